"""A SQLite database: copied while others write to it, and replaced all at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import make_url

from outreach.backup import files
from outreach.backup.files import Progress, translated
from outreach.errors import DatabaseError


def file_of(url: str) -> Path:
    """The file that a SQLite address names."""
    return Path(make_url(url).database or "")


def copy_out(live: Path, part: Path, progress: Progress | None = None) -> None:
    """
    Copy the database, as it is at one moment, into an empty file.

    Writers go on meanwhile: in WAL mode a reader never holds them up (www.sqlite.org/wal.html). The
    reading transaction is kept for the whole copy; without it, each write of another process would
    make the copy begin anew (www.sqlite.org/c3ref/backup_finish.html).

    Raises:
        DatabaseError: it cannot be read, or the copy shows that the database is damaged.
    """
    with (
        translated(f"{live}: the database cannot be copied"),
        closing(files.connect(live)) as source,
        closing(files.hurried(part)) as copy,
    ):
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        files.copy_pages(source, copy, "copying", progress)
    with translated(f"{live}: the database cannot be copied"), closing(files.connect(part)) as copy:
        files.single(copy)
        files.verify(copy, f"{live}: the database is damaged, and no backup was made of it")


def is_there(live: Path) -> bool:
    """Whether there is anything in the file."""
    return live.is_file() and live.stat().st_size > 0


def is_readable(live: Path) -> bool:
    """Whether SQLite takes the file for a database; looking changes nothing, its write-ahead log included."""
    try:
        with closing(files.connect(live, mode="ro")) as file:
            file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raise DatabaseError(f"{live}: the database cannot be opened: {error}") from error
    except sqlite3.DatabaseError:
        return False
    return True


def replace(
    live: Path, part: Path, prepare: Callable[[], None], damaged: Path, *, force: bool, progress: Progress | None
) -> None:
    """
    Put what `prepare` makes of the part in place of the database.

    A database that is there is written over in one transaction: a cut-off one is rolled back by whoever
    opens it next, and a process that still has it open sees the new one from its next transaction on,
    whereas it would go on with the old one if the file were only renamed. What cannot be read is renamed
    to `damaged`. `force`: although others write to it meanwhile.

    Raises:
        DatabaseError: others write to it; nothing is changed.
    """
    if not is_there(live) or not is_readable(live):
        prepare()
        _set_aside(live, damaged)
        files.publish(part, live)
        return
    with translated(f"{live}: the database cannot be replaced"), closing(files.connect(live)) as target:
        before = _changes(target)
        prepare()
        if _changes(target) != before and not force:
            raise DatabaseError(f"{live}: another process writes to the database: stop it, then restore again")
        target.execute("BEGIN IMMEDIATE")  # whoever holds it is waited for, and named
        target.execute("ROLLBACK")
        target.execute("PRAGMA synchronous = FULL")
        with closing(files.connect(part, mode="ro")) as source:
            files.copy_pages(source, target, "restoring", progress)
        with suppress(sqlite3.Error):  # else the next writer does it
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _changes(target: sqlite3.Connection) -> int:
    """A number that changes when another connection commits (www.sqlite.org/pragma.html#pragma_data_version)."""
    number: int = target.execute("PRAGMA data_version").fetchone()[0]
    return number


def _set_aside(live: Path, damaged: Path) -> None:
    """Rename what cannot be read, with the files that belong to it, so that nothing of it meets the new one."""
    for ending in ("-wal", "-shm", "-journal", ""):
        path = Path(f"{live}{ending}")
        if path.exists():
            path.rename(f"{damaged}{ending}")
