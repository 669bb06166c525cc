"""
Backup files: one SQLite file with the product's own tables, and a note of when it was made.

A file under its own name is whole: it is written under another one, put on the disk and renamed. Only
its owner may read it, for it holds personal data, and the installation's secret where OUTREACH_SECRET
is not set.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Table
from sqlmodel import SQLModel

from outreach import __version__, store
from outreach.errors import DatabaseError
from outreach.models import from_micros, to_micros

FOLDER = "backups"  # in the workspace
MADE, REPLACED = "outreach-backup", "outreach-replaced"
NOTE = store.BACKUP_NOTE
FORMAT = 1
PAGES = 2_000  # at a time: 8 MB between two looks at the progress bar
STALE = timedelta(days=1)  # what a cut-off backup left behind is swept away after that
MOST_TRIES = 3  # in a row at a database that others write to, each of which waits BUSY_SECONDS itself

_OF_DEFAULT_NAME = re.compile(rf"{MADE}-\d{{8}}-\d{{6}}\.sqlite")
_PART = re.compile(r"\.outreach-\d+-[a-z]+\.part(-wal|-shm|-journal)?")
_WITH_IT = ("", "-wal", "-shm", "-journal")

Progress = Callable[[str, int, int], None]  # what is being done, how far it is, of how much


@dataclass(frozen=True)
class Backup:
    """A backup file, as far as its note says."""

    path: Path
    made_at: datetime
    database: str  # sqlite | postgresql: what it was made of
    program: str  # the version of outreach that made it
    version: str  # of its tables
    rows: Mapping[str, int]  # by table


def tables() -> list[Table]:
    """Every table of the product, in the order of their names."""
    return sorted(SQLModel.metadata.tables.values(), key=lambda of: of.name)


def columns(of: Table) -> str:
    """Its columns, quoted for both databases."""
    return ", ".join(f'"{column.name}"' for column in of.columns)


# --- names -----------------------------------------------------------------------------------------


def default_name(kind: str, now: datetime) -> str:
    """Dated in UTC, so that names sort as the moments do."""
    return f"{kind}-{now.astimezone(UTC):%Y%m%d-%H%M%S}.sqlite"


def free_name(folder: Path, kind: str, now: datetime) -> Path:
    """A dated name in the folder that no file has."""
    first = folder / default_name(kind, now)
    numbered = (first.with_stem(f"{first.stem}-{number}") for number in range(2, 1_000))
    return next(path for path in (first, *numbered) if not path.exists())


def delete_older(folder: Path, keep: int) -> list[Path]:
    """Delete the backups of the default name beyond the newest `keep`; gives those deleted."""
    found = sorted((path for path in folder.iterdir() if _OF_DEFAULT_NAME.fullmatch(path.name)), reverse=True)
    for path in found[keep:]:
        path.unlink()
    return found[keep:]


def sweep(folder: Path, now: datetime) -> None:
    """Delete what backups and restores that were cut off more than a day ago left in the folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PART.fullmatch(path.name):
            with suppress(OSError):
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) < now - STALE:
                    path.unlink()


# --- writing one -----------------------------------------------------------------------------------


@contextmanager
def part(folder: Path, what: str) -> Iterator[Path]:
    """A new, empty file in the folder for its owner alone; it is gone afterwards, unless it was renamed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f".outreach-{os.getpid()}-{what}.part"
    try:
        _remove(path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for ending in _WITH_IT:
        Path(f"{path}{ending}").unlink(missing_ok=True)


def publish(part: Path, target: Path) -> None:
    """Put the finished part on the disk, then under its name, in place of what is there."""
    _sync(part)
    part.replace(target)
    sync_folder(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where a folder can be opened."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sign(path: Path, database: str, now: datetime) -> dict[str, int]:
    """Write the note into a finished copy, and make it one file; gives the rows of each table."""
    with closing(connect(path)) as copy:
        single(copy)
        rows = count_rows(copy)
        copy.execute("BEGIN")
        copy.execute(f"DROP TABLE IF EXISTS {NOTE}")
        copy.execute(f"CREATE TABLE {NOTE} (format INTEGER, made_at INTEGER, source TEXT, program TEXT, counts TEXT)")
        values = (FORMAT, to_micros(now), database, __version__, json.dumps(rows))
        copy.execute(f"INSERT INTO {NOTE} VALUES (?, ?, ?, ?, ?)", values)
        copy.execute("COMMIT")
    return rows


# --- reading one -----------------------------------------------------------------------------------


def read(path: Path) -> Backup:
    """
    The backup in a file.

    Raises:
        DatabaseError: it is none, of a newer version, or damaged.
    """
    if not path.is_file():
        raise DatabaseError(f"{path}: there is no such file")
    with reading(path) as file:
        if not _has_table(file, NOTE):
            made = "`outreach db backup` makes backups"
            raise DatabaseError(f"{path}: this is no backup, and nobody knows of when it is: {made}")
        form, made_at, database, program, counts = file.execute(f"SELECT * FROM {NOTE}").fetchone()
        version = schema_version(file)
    if form > FORMAT or version > store.HEAD:
        raise DatabaseError(f"{path}: made by outreach {program}, which is newer than this one: upgrade outreach first")
    return Backup(path, from_micros(made_at), database, program, version, json.loads(counts))


def check(backup: Backup) -> None:
    """DatabaseError unless the file is sound and holds as many rows as its note says."""
    with reading(backup.path) as file:
        verify(file, f"{backup.path}: the backup is damaged", thorough=False)
        if count_rows(file) != backup.rows:
            raise DatabaseError(f"{backup.path}: the backup is damaged: rows are missing, or were added since")


def schema_version(file: sqlite3.Connection) -> str:
    """The version of the tables in a SQLite file; empty where there are none of ours."""
    if not _has_table(file, "alembic_version"):
        return ""
    row = file.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else ""


def _has_table(file: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return file.execute(query, (name,)).fetchone() is not None


def count_rows(file: sqlite3.Connection) -> dict[str, int]:
    """The rows of each table that the file has, ours by their own."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY name"
    names = [name for (name,) in file.execute(query) if name not in (NOTE, "alembic_version")]
    return {name: file.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


def verify(file: sqlite3.Connection, what: str, *, thorough: bool = True) -> None:
    """DatabaseError unless SQLite finds the file sound; `thorough` compares every index with its table."""
    said = file.execute(f"PRAGMA {'integrity_check' if thorough else 'quick_check'}(1)").fetchone()[0]
    if said != "ok":
        raise DatabaseError(f"{what}: {str(said).splitlines()[-1]}")


# --- SQLite files ----------------------------------------------------------------------------------


def connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """A connection to a file that exists; transactions are begun and ended by hand."""
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=store.BUSY_SECONDS)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, closed afterwards."""
    with translated(f"{path}: the file cannot be read"), closing(connect(path, mode="ro")) as file:
        yield file


def hurried(path: Path) -> sqlite3.Connection:
    """A connection to a part that only we write: it is put on the disk once, when it is finished."""
    connection = connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def single(connection: sqlite3.Connection) -> None:
    """Have the file need no other one beside it: no write-ahead log."""
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = OFF")


def copy_pages(source: sqlite3.Connection, target: sqlite3.Connection, what: str, progress: Progress | None) -> None:
    """
    Copy one SQLite database over another, which changes all at once at the end, or not at all.

    Raises:
        DatabaseError: others keep writing to the target, so that it never comes to its turn.
    """
    tries = 0

    def moved(status: int, remaining: int, total: int) -> None:
        nonlocal tries
        tries = tries + 1 if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else 0
        if tries >= MOST_TRIES:
            raise DatabaseError(f"{what}: others keep writing to the database: stop them, then try again")
        if progress:
            progress(what, total - remaining, total)

    source.backup(target, pages=PAGES, progress=moved)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """SQLite's errors as one line that says what cannot be done."""
    try:
        yield
    except sqlite3.Error as error:
        said = str(error).strip().splitlines()
        raise DatabaseError(f"{what}: {said[0] if said else type(error).__name__}") from error
