"""
What every table of an import shares: counts, transactions, raw SQL in the driver's bulk form, `fresh`, rejects.

SQL is written once with `?` and `= ANY(?)`; times are integer microseconds and JSON is text.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from outreach import store
from outreach.importer.cells import KEPT, Months
from outreach.models import to_micros
from outreach.settings import Settings
from outreach.sources import Refusal, Table
from outreach.store import Database, Lock

Progress = Callable[[str, int, int, int], None]  # table, rows done, bytes done, bytes in all
Change = tuple[str, int, int, int | None]  # kind, record, customer, time: a row of `fresh`
REJECTS_KEPT = timedelta(days=90)
_ABREAST = 50
_CHECKPOINT = 40_000  # pages of the write-ahead log between two checkpoints while importing
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_VERSION = "1"  # of what this program makes of a row: another one looks at every row anew


@dataclass
class Counts:
    """Of one table: read = created + updated + unchanged + rejected. Lines of one order are one."""

    read: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0


@dataclass
class ImportCounts:
    """What an import did. `rejects_file` lists what was refused, rows and single values; None when nothing was."""

    customers: Counts = field(default_factory=Counts)
    orders: Counts = field(default_factory=Counts)
    cases: Counts = field(default_factory=Counts)
    events: Counts = field(default_factory=Counts)
    suppressions: Counts = field(default_factory=Counts)
    rejects_file: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The counts as `import --json` shows them."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One import: what all its transactions need."""

    db: Database
    settings: Settings
    now: datetime
    id: int
    counts: ImportCounts
    months: Months
    progress: Progress | None = None
    customers: dict[str, int] = field(default_factory=dict)  # ids of customers by the shop's id, as far as met

    @property
    def micros(self) -> int:
        return to_micros(self.now)


@contextmanager
def transaction(run: Run) -> Iterator[Connection]:
    """One short writing transaction of the import, alone among imports."""
    with store.write(run.db) as connection:
        store.lock(connection, Lock.IMPORT)
        if run.db.is_sqlite:
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        yield connection


def settle(db: Database) -> None:
    """After an import: SQLite's write-ahead log is written back as far as it can be, and kept short again."""
    if db.is_sqlite:
        with suppress(sqlite3.Error), db.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute(f"PRAGMA wal_autocheckpoint = {store.CHECKPOINT}")
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


# --- SQL ------------------------------------------------------------------------------------------


@cache
def _spelt(statement: str, dialect: str) -> str:
    if dialect == "sqlite":
        return statement.replace("= ANY(?)", "IN (SELECT value FROM json_each(?))")
    return statement.replace("%", "%%").replace("?", "%s")


def rows(connection: Connection, statement: str, *values: Any) -> list[Any]:
    """The rows of a query; a list among the values stands for `= ANY(?)`."""
    dialect = connection.dialect.name
    if dialect == "sqlite":
        values = tuple(json.dumps(value) if isinstance(value, list) else value for value in values)
    result = connection.exec_driver_sql(_spelt(statement, dialect), values)
    return list(result.fetchall()) if result.returns_rows else []


def many(connection: Connection, statement: str, values: Iterable[Sequence[Any]]) -> None:
    """The statement once for every row of values."""
    many_columns(connection, statement, list(zip(*values, strict=True)))


def many_columns(connection: Connection, statement: str, columns: Sequence[Sequence[Any]]) -> None:
    """The statement once for every row, given column by column; on SQLite inserts take `_ABREAST` rows at a step, a fifth faster."""
    if not columns:
        return
    dialect, count, width = connection.dialect.name, len(columns[0]), len(columns)
    alone = 0
    if dialect == "sqlite" and statement.startswith("INSERT") and count >= _ABREAST:
        alone = count - count % _ABREAST
        flat: list[Any] = [None] * (count * width)
        for place, column in enumerate(columns):
            flat[place::width] = column
        steps = range(0, alone * width, _ABREAST * width)
        connection.exec_driver_sql(_abreast(statement), [tuple(flat[n : n + _ABREAST * width]) for n in steps])
    if alone < count:
        rest = [column[alone:] for column in columns]
        connection.exec_driver_sql(_spelt(statement, dialect), list(zip(*rest, strict=True)))


@cache
def _abreast(statement: str) -> str:
    head, row, then = re.split(r"VALUES (\([^()]+\))", statement, maxsplit=1)
    head = head.replace(
        "INSERT INTO", "INSERT OR FAIL INTO"
    )  # the transaction is rolled back anyway: no statement journal
    return f"{head}VALUES {', '.join([row] * _ABREAST)}{then}"


def insert_into(table: str, columns: Sequence[str], then: str = "", **marks: str) -> str:
    """INSERT of one row with these columns; `marks` are what stands for a column instead of `?`."""
    values = ", ".join(marks.get(name, "?") for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) {then}".strip()


def new_ids(connection: Connection, table: str, count: int) -> list[int]:
    """Ids that no row has: on SQLite nobody else writes meanwhile, on PostgreSQL they come from the sequence."""
    if not count:
        return []
    if connection.dialect.name == "sqlite":
        last = rows(connection, f"SELECT coalesce(max(id), 0) FROM {table}")[0][0]
        return list(range(last + 1, last + 1 + count))
    drawn = f"SELECT nextval(pg_get_serial_sequence('{table}', 'id')) FROM generate_series(1, ?)"
    return [int(row[0]) for row in rows(connection, drawn, count)]


def from_json(value: Any) -> Any:
    """A JSON column as read by the driver: text on SQLite, already parsed on PostgreSQL."""
    return json.loads(value) if isinstance(value, str) else value


def to_json(value: Any) -> str:
    """The stored text of a JSON value."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


# --- fresh ----------------------------------------------------------------------------------------


def since(connection: Connection, run: Run) -> int:
    """The earliest event time that the longest look-back of any campaign still sees."""
    days = rows(connection, "SELECT look_back FROM installation")[0][0]
    return to_micros(run.now - timedelta(days=int(days)))


def changed_times(kind: str, record: int, customer: int, old: int | None, new: int | None, since: int) -> list[Change]:
    """The row of `fresh` that a time set, changed or cleared makes, if either time is recent enough."""
    if old == new or max(old if old is not None else since - 1, new if new is not None else since - 1) < since:
        return []
    return [(kind, record, customer, new)]


def write_fresh(connection: Connection, changes: Sequence[Change]) -> None:
    """Append to the queue from which `plan` enrols; ids grow in commit order."""
    if changes:
        store.lock(connection, Lock.FRESH)
        many(connection, insert_into("fresh", ("kind", "record_id", "customer_id", "at")), list(dict.fromkeys(changes)))


# --- rejects --------------------------------------------------------------------------------------


def write_rejects(connection: Connection, run: Run, file: str, refusals: Sequence[Refusal]) -> None:
    """Keep what was refused in the rejects table."""
    columns = ("import_id", "file", "line", '"column"', "value", "reason", "customer")
    kept = [(run.id, file, r.line, r.column, r.value[:KEPT], r.reason, r.customer) for r in refusals]
    many(connection, insert_into("rejects", columns), kept)


def list_rejects(run: Run, file: str, refusals: Sequence[Refusal]) -> None:
    """Append what was refused to the rejects file, once the transaction that keeps it has committed."""
    if not refusals:
        return
    path = _rejects_folder(run) / f"import-{run.id}.csv"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # people's data
    first = run.counts.rejects_file is None  # what is there by then is of another database
    with path.open("w" if first else "a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        if first:
            writer.writerow(("file", "line", "column", "value", "reason"))
        writer.writerows(
            [safe_cell(cell) for cell in (Path(file).name, r.line, r.column, r.value[:KEPT], r.reason)]
            for r in refusals
        )
    run.counts.rejects_file = str(path)


def forget_rejects(run: Run) -> None:
    """Delete what was refused longer than REJECTS_KEPT ago, rows and files: it holds what people's records said."""
    old = "SELECT id FROM imports WHERE started_at < ? ORDER BY id DESC LIMIT 1"
    some = "DELETE FROM rejects WHERE id IN (SELECT id FROM rejects WHERE import_id <= ? ORDER BY import_id LIMIT ?)"
    with store.read(run.db) as connection:
        found = rows(connection, old, to_micros(run.now - REJECTS_KEPT))
    if not found:
        return
    last, deleted = found[0][0], store.BATCH
    while deleted == store.BATCH:
        with store.write(run.db) as connection:
            statement = _spelt(some, connection.dialect.name)
            deleted = connection.exec_driver_sql(statement, (last, store.BATCH)).rowcount
    for path in _rejects_folder(run).glob("import-*.csv"):
        number = path.stem.removeprefix("import-")
        if number.isdecimal() and int(number) <= last:
            path.unlink(missing_ok=True)


def _rejects_folder(run: Run) -> Path:
    return run.settings.workspace / "rejects"


def safe_cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


# --- rows -----------------------------------------------------------------------------------------


def seed(run: Run, table: Table) -> str:
    """What the meaning of a row depends on beside its cells: the columns and some settings."""
    business, estimates = run.settings.business, run.settings.orders
    parts = (_VERSION, *table.columns, business.timezone, business.currency, str(business.country), repr(estimates))
    return blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()


def row_hash(seed: str, cells: Iterable[str], refusals: Iterable[Refusal] = ()) -> bytes:
    """
    Equal for rows that mean the same: 8 bytes over the cells.

    A row of which a value was refused also hashes the reason, so that it is looked at again, and
    written again once the value can be used (a date no longer ahead, an order that has arrived).
    """
    text = "\x1f".join((seed, *cells, *(f"{r.column}\x1e{r.reason}" for r in refusals)))
    return digest(text)


def digest(text: str) -> bytes:
    """8 bytes that stand for a text."""
    return blake2b(text.encode(), digest_size=8).digest()
