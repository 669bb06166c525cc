"""Making a backup, of either database, while everything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from outreach import store
from outreach.backup import files, on_postgresql, on_sqlite
from outreach.backup.files import Progress
from outreach.errors import DatabaseError, OutreachError
from outreach.settings import Settings


@dataclass(frozen=True)
class Made:
    """A backup that was made."""

    file: Path
    made_at: datetime
    database: str  # sqlite | postgresql
    size: int  # bytes
    rows: Mapping[str, int] = field(default_factory=dict)  # by table
    deleted: tuple[Path, ...] = ()  # older ones
    has_secret: bool = False  # the installation's own secret is in it, for OUTREACH_SECRET was not set


def back_up(
    settings: Settings,
    now: datetime,
    to: Path | None = None,
    *,
    keep: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Made:
    """
    Make a backup of the workspace's database: everything as it was at one moment, no later than this returns.

    `to` is the file, or a folder in which it gets its dated name; without it, the workspace's
    `backups/`. A cut-off one leaves no file of that name. `keep`: delete those of a dated name in that
    folder beyond the newest so many, this one counted, once this one is on the disk. `force`: replace
    a file that is there.

    Raises:
        OutreachError: the file is there already, or `keep` was given with a name of one's own.
        DatabaseError: there is no database, it cannot be read, or it is damaged.
    """
    target = _target(settings, now, to)
    if keep is not None and target.name != files.default_name(files.MADE, now):
        raise OutreachError(f"{target}: --keep goes with a folder, in which the backups get dated names")
    if target.exists() and not force:
        raise OutreachError(f"{target}: there is such a file already: give another name, or --force to replace it")
    files.sweep(target.parent, now)
    with files.part(target.parent, "backup") as part:
        database = copy_database(settings.database, part, progress)
        rows = files.sign(part, database, now)
        files.publish(part, target)
    deleted = files.delete_older(target.parent, keep) if keep is not None else []
    return Made(target, now, database, target.stat().st_size, rows, tuple(deleted), _has_secret(target))


def _target(settings: Settings, now: datetime, to: Path | None) -> Path:
    folder = settings.workspace / files.FOLDER if to is None else to
    return folder / files.default_name(files.MADE, now) if to is None or to.is_dir() else to


def copy_database(url: str, part: Path, progress: Progress | None = None) -> str:
    """Copy the database at the address into an empty file; gives which kind it is."""
    engine = store.make_engine(url)
    try:
        if engine.dialect.name == "postgresql":
            on_postgresql.copy_out(engine, part, progress)
        else:
            _copy_file(on_sqlite.file_of(url), part, progress)
        return engine.dialect.name
    finally:
        engine.dispose()


def _copy_file(live: Path, part: Path, progress: Progress | None) -> None:
    if not on_sqlite.is_there(live):
        raise DatabaseError(f"there is no database at {live} yet: there is nothing to back up")
    on_sqlite.copy_out(live, part, progress)
    with files.reading(part) as copy:
        if not files.schema_version(copy):
            raise DatabaseError(f"{live}: this SQLite file holds no tables of outreach's")


def _has_secret(file: Path) -> bool:
    with files.reading(file) as copy:
        return copy.execute("SELECT 1 FROM installation WHERE secret <> ''").fetchone() is not None
