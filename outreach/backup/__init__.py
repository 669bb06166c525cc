"""
Backup and restore: a consistent copy while everything runs, and a way back that sends nothing twice.

    files         what a backup is: one SQLite file, whichever database it is of, and a note of its moment
    making        the copy, verified, under its name only once it is whole
    restoring     1  refuse what would do harm; 2  prepare a copy; 3  put it in place of the database, all or nothing
    aftermath        what must be different in a database that was set back: paused, in doubt, dated
    opt_outs      4  who opted out since, as the replaced database and the providers know it
    on_sqlite     reading and replacing a SQLite database
    on_postgresql reading and replacing a PostgreSQL database

Between the moment of a backup and the restore, messages left that the backup does not know of. So a
restore takes nothing for unsent that was due by then, and lets no campaign go on before a person says so.
"""

from __future__ import annotations

from outreach.backup.aftermath import EARLIER, Aftermath
from outreach.backup.files import Backup, Progress
from outreach.backup.making import Made, back_up
from outreach.backup.opt_outs import Heard, read_again, read_since
from outreach.backup.restoring import Holds, Outlook, Restored, look, restore

__all__ = [
    "EARLIER",
    "Aftermath",
    "Backup",
    "Heard",
    "Holds",
    "Made",
    "Outlook",
    "Progress",
    "Restored",
    "back_up",
    "look",
    "read_again",
    "read_since",
    "restore",
]
