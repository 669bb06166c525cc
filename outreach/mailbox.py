"""
The mailbox: new mails are fetched by IMAP, and what they tell us is accepted, one by one.

How far it was read is kept in the database: UIDs grow as long as UIDVALIDITY stays. The first time, and
whenever that has changed, the mails of the last days are read; what was accepted before is known by ids
made from the mails themselves, so reading again changes nothing. Any number of processes may do so at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.dialects import postgresql, sqlite

from outreach import inbox, store
from outreach.channels import imap, mail_in
from outreach.models import Mailbox, table
from outreach.settings import MailboxSettings, Settings
from outreach.store import Database

STAGE = "mail"
LOOK_BACK = timedelta(days=7)  # before the first look; and before the last one, where UIDVALIDITY has changed
AT_ONCE = 500  # mails a tick

_mailboxes = table(Mailbox)


@dataclass
class MailCounts:
    """What one look into the mailbox found."""

    read: int = 0
    new: int = 0  # replies, bounces and complaints that are on disk now
    repeated: int = 0  # that were already
    passed_over: int = 0  # mass mail, copies of our own

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def fetch(
    db: Database,
    settings: Settings,
    now: datetime,
    *,
    limit: int = AT_ONCE,
    stop: Callable[[], bool] | None = None,
) -> MailCounts:
    """
    Read the mails that have come since the last time, at most `limit`; nothing where no mailbox is set up.

    A mail counts as read only once what it says is on disk. `stop` is asked before each.

    Raises:
        ChannelError: the mailbox cannot be read; the next time goes on where this one stopped.
        DatabaseError: likewise.
    """
    counts, box = MailCounts(), settings.mailbox
    if box is not None and box.host:
        ours = mail_in.ours_of(settings)
        with imap.opened(settings, box) as folder:
            waiting = _waiting(db, box, folder, now)
            for uid in waiting[:limit]:
                if stop and stop():
                    break
                mail = folder.get(uid)
                if mail is not None:
                    _take(db, settings, now, mail_in.read(mail.raw, ours, mail.at), counts)
                    if box.mark_seen:
                        folder.mark_seen(uid)
                _reached(db, box, folder.validity, uid, now)
            else:
                if len(waiting) <= limit:
                    _reached(db, box, folder.validity, folder.last, now)
    with store.write(db) as connection:
        store.record_tick(connection, STAGE, now, now, counts.as_json())
    return counts


def name_of(box: MailboxSettings) -> str:
    """What a mailbox is known by in the database."""
    return f"{box.user} {box.host}/{box.folder}"


def _waiting(db: Database, box: MailboxSettings, folder: imap.Opened, now: datetime) -> list[int]:
    with store.read(db) as connection:
        row = connection.execute(select(_mailboxes).where(_mailboxes.c.name == name_of(box))).first()
    if row is not None and row.uidvalidity == folder.validity:
        return folder.after(row.uid)
    since = (now if row is None else min(row.looked_at, now)) - LOOK_BACK
    return folder.since(since.date())


def _take(db: Database, settings: Settings, now: datetime, events: Any, counts: MailCounts) -> None:
    counts.read += 1
    if not events:
        counts.passed_over += 1
        return
    done = inbox.accept_mail(db, settings, now, "imap", events)
    counts.new += done.new
    counts.repeated += done.repeated


def _reached(db: Database, box: MailboxSettings, validity: int, uid: int, now: datetime) -> None:
    """Remember how far it was read: never back, while UIDVALIDITY stays."""
    values = {"uidvalidity": validity, "uid": uid, "looked_at": now}
    insert = (sqlite if db.is_sqlite else postgresql).insert(_mailboxes).values(name=name_of(box), **values)
    further = or_(_mailboxes.c.uidvalidity != validity, _mailboxes.c.uid <= uid)
    with store.write(db) as connection:
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values, where=further))
