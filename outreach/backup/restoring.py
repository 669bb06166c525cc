"""
Restoring: a database becomes what a backup holds, all at once or not at all, and sends nothing twice.

    1  refuse: no backup, a newer version, another secret, somebody at work, a clock that is wrong
    2  copy the backup, bring it up to this version
    3  keep the database that is replaced, as a backup of its own
    4  write into the copy what must be different (`aftermath`)
    5  put the copy in place
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from outreach import store
from outreach.backup import aftermath, files, making, on_postgresql, on_sqlite
from outreach.backup.aftermath import Aftermath
from outreach.backup.files import Backup, Progress
from outreach.errors import ClockError, DatabaseError
from outreach.models import from_micros
from outreach.settings import Settings

QUIET = timedelta(minutes=2)  # a daemon leaves a tick at least every minute
COUNTED = ("customers", "orders", "messages")  # what tells a person which database it is


@dataclass(frozen=True)
class Holds:
    """What a database holds, as far as a person recognises it by."""

    customers: int = 0
    orders: int = 0
    messages: int = 0
    newest: datetime | None = None  # the newest time that a stage has seen
    ticks: Mapping[str, datetime] = field(default_factory=dict)  # by stage, when it last began or finished

    @property
    def anything(self) -> bool:
        return bool(self.customers or self.orders or self.messages)


@dataclass(frozen=True)
class Outlook:
    """What a restore would do."""

    backup: Backup
    database: str  # sqlite | postgresql
    inside: Holds
    present: Holds | None  # None: there is no database yet, or it cannot be read
    damaged: bool  # there is one, and it cannot be read


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    backup: Backup
    restored_at: datetime
    database: str
    kept: Path | None  # where the replaced database is now
    after: Aftermath


def look(settings: Settings, file: Path, now: datetime, *, force: bool = False) -> Outlook:
    """
    What restoring this file would do, once nothing speaks against it. Changes nothing.

    `force`: although a daemon seems to be running, or the replaced database has seen a later time.

    Raises:
        DatabaseError: the file cannot be restored here, or the database cannot be reached.
        ClockError: `now` is earlier than the backup, or than what the replaced database has seen.
    """
    backup = files.read(file)
    files.check(backup)
    with files.reading(file) as inside:
        _secret(inside, file, settings.secret)
        outlook = _outlook(settings.database, backup, _holds(_of_file(inside)))
    _refuse_clock(outlook, now, force=force)
    if not force:
        _refuse_busy(outlook, now)
    return outlook


def restore(
    settings: Settings, file: Path, now: datetime, *, force: bool = False, progress: Progress | None = None
) -> Restored:
    """
    Replace the workspace's database by what the backup holds, all at once; see `aftermath.write` for what differs.

    A database that holds anything is first kept as a backup of its own, in the workspace's `backups/`;
    a SQLite file that cannot be read is renamed. An empty PostgreSQL database gets its tables first.

    Raises:
        DatabaseError, ClockError: as `look`, or others write to the database; nothing is changed.
    """
    outlook = look(settings, file, now, force=force)
    folder = settings.workspace / files.FOLDER
    live = on_sqlite.file_of(settings.database) if outlook.database == "sqlite" else None
    place = folder if live is None else live.parent
    files.sweep(place, now)
    done: list[tuple[Path | None, Aftermath]] = []
    with files.part(place, "restore") as part:

        def prepare() -> None:
            _copy(outlook.backup, part, settings, progress)
            kept = _keep(settings.database, folder, now, progress) if _holds_anything(outlook) else None
            with files.reading(part) as inside:
                secret = _secret(inside, outlook.backup.path, settings.secret)
            known = kept if kept is not None and files.read(kept).version == store.HEAD else None
            done.append((kept, aftermath.write(part, outlook.backup.made_at, _until(outlook, now), known, secret)))

        if live is None:
            _replace_on_postgresql(settings, part, prepare, progress)
        else:
            damaged = live.with_name(f"{live.name}.damaged-{now:%Y%m%d-%H%M%S}")
            on_sqlite.replace(live, part, prepare, damaged, force=force, progress=progress)
    kept, after = done[-1]
    kept = damaged if live is not None and outlook.damaged else kept
    return Restored(outlook.backup, _until(outlook, now), outlook.database, kept, after)


def _holds_anything(outlook: Outlook) -> bool:
    return outlook.present is not None and outlook.present.anything


def _copy(backup: Backup, part: Path, settings: Settings, progress: Progress | None) -> None:
    """The backup's pages in the part, with this version's tables."""
    with files.reading(backup.path) as source, closing(files.hurried(part)) as copy:
        files.copy_pages(source, copy, "reading the backup", progress)
    if backup.version != store.HEAD:
        zone = settings.business.timezone
        store.open_database(f"sqlite:///{part}", secret=settings.secret, timezone=zone).engine.dispose()
    with files.translated(f"{part}: the copy cannot be written"), closing(files.connect(part)) as copy:
        files.single(copy)


def _keep(url: str, folder: Path, now: datetime, progress: Progress | None) -> Path:
    """A backup of the database that is about to be replaced."""
    kept = files.free_name(folder, files.REPLACED, now)
    with files.part(folder, "replaced") as part:
        database = making.copy_database(url, part, progress)
        files.sign(part, database, now)
        files.publish(part, kept)
    return kept


def _replace_on_postgresql(
    settings: Settings, part: Path, prepare: Callable[[], None], progress: Progress | None
) -> None:
    engine = store.make_engine(settings.database)
    try:
        if store.version(engine) is None:
            zone = settings.business.timezone
            made = store.open_database(settings.database, secret=settings.secret, timezone=zone, upgrade=True)
            made.engine.dispose()
        on_postgresql.replace(engine, part, prepare, progress)
    finally:
        engine.dispose()


# --- what is there ---------------------------------------------------------------------------------

Query = Callable[[str], list[Any]]


def _outlook(url: str, backup: Backup, inside: Holds) -> Outlook:
    engine = store.make_engine(url)
    try:
        if engine.dialect.name == "postgresql":
            return Outlook(backup, "postgresql", inside, _on_server(engine), damaged=False)
    finally:
        engine.dispose()
    live = on_sqlite.file_of(url)
    if not on_sqlite.is_there(live):
        return Outlook(backup, "sqlite", inside, None, damaged=False)
    if not on_sqlite.is_readable(live):
        return Outlook(backup, "sqlite", inside, None, damaged=True)
    return Outlook(backup, "sqlite", inside, _in_file(live), damaged=False)


def _on_server(engine: Engine) -> Holds | None:
    version = store.version(engine)
    if version is None:
        return None
    if version != store.HEAD:
        raise DatabaseError(
            f"the database is at version {version}, this program needs {store.HEAD}: run `outreach db upgrade` first"
        )
    with engine.connect() as connection:
        return _holds(lambda query: [tuple(row) for row in connection.exec_driver_sql(query)])


def _in_file(live: Path) -> Holds | None:
    with files.reading(live) as file:
        if files.schema_version(file):
            return _holds(_of_file(file))
        if any(files.count_rows(file).values()):
            raise DatabaseError(f"{live}: this SQLite file is not outreach's: nothing is restored over it")
    return None


def _of_file(file: sqlite3.Connection) -> Query:
    return lambda query: file.execute(query).fetchall()


def _holds(query: Query) -> Holds:
    counts = {name: query(f"SELECT count(*) FROM {name}")[0][0] for name in COUNTED}
    newest = query("SELECT newest FROM installation")
    ticks = query("SELECT stage, coalesce(finished_at, started_at) FROM ticks")
    return Holds(
        newest=from_micros(newest[0][0]) if newest and newest[0][0] is not None else None,
        ticks={stage: from_micros(at) for stage, at in ticks},
        **counts,
    )


# --- what speaks against it ------------------------------------------------------------------------


def _secret(inside: sqlite3.Connection, file: Path, given: str) -> bytes:
    """The installation's secret; another secret would give other ids and hashes: nobody who opted out would be known again."""
    row = inside.execute("SELECT secret, secret_check FROM installation").fetchone()
    if row is None:
        raise DatabaseError(f"{file}: the backup says nothing of its installation, so it cannot be used")
    used = (row[0] or given).encode()
    if not used:
        raise DatabaseError(f"{file}: made with OUTREACH_SECRET set: set it to the same value, then restore again")
    if not hmac.compare_digest(store.keyed_hash(used, "check"), row[1]):
        raise DatabaseError(f"{file}: OUTREACH_SECRET differs from the one it was made with: set the former one")
    return used


def _refuse_clock(outlook: Outlook, now: datetime, *, force: bool) -> None:
    newest = max(filter(None, (outlook.backup.made_at, outlook.inside.newest)))
    if now < newest - store.SKEW:
        raise ClockError(f"it is {newest.isoformat()} in the backup, and {now.isoformat()} here: mend the clock first")
    seen = outlook.present.newest if outlook.present else None
    if seen is not None and now < seen - store.SKEW and not force:
        raise ClockError(
            f"the database has seen {seen.isoformat()}, and it is {now.isoformat()} here: what left by then would not"
            " be taken for gone; give that time with --now, or --force if it was a mistake"
        )


def _until(outlook: Outlook, now: datetime) -> datetime:
    """Up to when messages may have left: `now`, or a little later where another machine's clock is ahead."""
    seen = [outlook.inside.newest, outlook.present.newest if outlook.present else None]
    return max([now, *(at for at in seen if at is not None and at <= now + store.SKEW)])


def _refuse_busy(outlook: Outlook, now: datetime) -> None:
    ticks = outlook.present.ticks if outlook.present else {}
    recent = [(at, stage) for stage, at in ticks.items() if at > now - QUIET]
    if recent:
        at, stage = max(recent)
        raise DatabaseError(
            f"{stage} ran at {at.isoformat(timespec='seconds')}: stop every `outreach run` on this database, wait two"
            " minutes, then restore again (or now, with --force, if nothing runs)"
        )
