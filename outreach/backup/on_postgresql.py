"""A PostgreSQL database: read at one moment into a SQLite file, and written back in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Engine, Table

from outreach import store
from outreach.backup import files
from outreach.backup.files import Progress, columns, tables, translated
from outreach.errors import DatabaseError

if TYPE_CHECKING:
    import psycopg

ROWS = 2_000  # held in memory at a time
LOCK_SECONDS = 60  # that a restore waits for others to let go of the tables

_WHAT = "the database cannot be used"


@contextmanager
def session(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """A transaction on the driver itself, committed on a clean exit; its errors as one line without a value."""
    import psycopg

    store.version(engine)  # what is wrong with the address or the server is said by it
    pooled = engine.raw_connection()
    try:
        driver: Any = pooled.driver_connection
        driver.execute("SET LOCAL statement_timeout = 0")
        driver.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield driver
        driver.commit()
    except psycopg.OperationalError as error:
        raise DatabaseError(f"{_WHAT}: {_first_line(error)}") from error
    except psycopg.Error as error:  # its own text may hold a row
        where = f", in {error.diag.table_name}" if error.diag.table_name else ""
        raise DatabaseError(f"{_WHAT}: {type(error).__name__} ({error.sqlstate or 'no code'}{where})") from error
    finally:
        with suppress(psycopg.Error):
            pooled.close()  # rolls back what is not committed


def _first_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__


# --- out -------------------------------------------------------------------------------------------


def copy_out(engine: Engine, part: Path, progress: Progress | None = None) -> None:
    """
    Read every table, as all are at one moment, into an empty file that becomes a SQLite database.

    The locks are taken before the first look, so that nothing is emptied between them
    (www.postgresql.org/docs/current/sql-lock.html); they hold up no reader and no writer.

    Raises:
        DatabaseError: it cannot be read, or is of another version.
    """
    store.open_database(f"sqlite:///{part}").engine.dispose()  # the tables, by the same migrations
    with translated("the backup cannot be written"), closing(files.connect(part)) as file:
        files.single(file)
    with (
        session(engine) as live,
        translated("the backup cannot be written"),
        closing(files.hurried(part)) as file,
    ):
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        live.execute(f"LOCK TABLE {_names()}, alembic_version IN ACCESS SHARE MODE".encode())
        _refuse_other_version(live)
        expected = _estimates(live)
        file.execute("BEGIN")
        file.execute("DELETE FROM installation")
        done = 0
        for table in tables():
            for count in _copy_table_out(live, file, table):
                done += count
                if progress:
                    progress(f"copying {table.name}", done, max(expected, done))
        _keep_sequences(live, file)
        file.execute("COMMIT")
        files.verify(file, "the backup cannot be written", thorough=False)


def _names() -> str:
    return ", ".join(f'"{table.name}"' for table in tables())


def _refuse_other_version(live: psycopg.Connection[Any]) -> None:
    row = live.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None or row[0] != store.HEAD:
        found = row[0] if row else "none"
        raise DatabaseError(
            f"the database is at version {found}, this program needs {store.HEAD}: run `outreach db upgrade`,"
            " or make the backup with the program that it belongs to"
        )


def _estimates(live: psycopg.Connection[Any]) -> int:
    names = [table.name for table in tables()]
    query = "SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid = ANY(%s::regclass[])"
    row = live.execute(query, ([f'"{name}"' for name in names],)).fetchone()
    return int(row[0] or 0) if row else 0


def _copy_table_out(live: psycopg.Connection[Any], file: sqlite3.Connection, table: Table) -> Iterator[int]:
    """Copy a table a few rows at a time, which the server sends as they are asked for; gives how many each time."""
    stored = ", ".join(_as_stored(column) for column in table.columns)
    order = ", ".join(f'"{column.name}"' for column in table.primary_key.columns)
    marks = ", ".join("?" * len(table.columns))
    insert = f'INSERT INTO "{table.name}" ({columns(table)}) VALUES ({marks})'
    with live.cursor(name="outreach_backup") as rows:
        rows.execute(f'SELECT {stored} FROM "{table.name}" ORDER BY {order}'.encode())
        while page := rows.fetchmany(ROWS):
            file.executemany(insert, page)
            yield len(page)


def _as_stored(column: Any) -> str:
    """JSON as the text it is; everything else has one form in both databases."""
    return f'"{column.name}"::text' if isinstance(column.type, JSON) else f'"{column.name}"'


def _keep_sequences(live: psycopg.Connection[Any], file: sqlite3.Connection) -> None:
    """
    Where an id must never come back, keep the highest there ever was, though its row be gone.

    What the sequence says may be later than the moment of the copy, which is as good.
    """
    for table in tables():
        if table.dialect_options["sqlite"]["autoincrement"]:
            row = live.execute(f"SELECT last_value FROM {_sequence_of(live, table)}".encode()).fetchone()
            file.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
            file.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, row[0] if row else 0))


def _sequence_of(live: psycopg.Connection[Any], table: Table) -> str | None:
    """The sequence that a table's ids come from, quoted; None where they come from elsewhere."""
    if "id" not in table.columns:
        return None
    query = "SELECT pg_get_serial_sequence(%s, 'id')"
    row = live.execute(query, (f'"{table.name}"',)).fetchone()
    return str(row[0]) if row and row[0] else None


# --- in --------------------------------------------------------------------------------------------


def replace(engine: Engine, part: Path, prepare: Callable[[], None], progress: Progress | None) -> None:
    """
    Put what `prepare` makes of the part in place of every row, in one transaction.

    Nobody else can write from before `prepare` until the end, and nobody sees the tables empty. Until
    the commit, the old rows and the new ones are both on the server's disk. A cut-off one is rolled
    back by the server.

    Raises:
        DatabaseError: others hold the tables, or a row is refused; nothing is changed.
    """
    with session(engine) as live:
        live.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'".encode())
        live.execute(f"LOCK TABLE {_names()}, alembic_version IN EXCLUSIVE MODE".encode())
        _refuse_other_version(live)
        prepare()
        live.execute(f"TRUNCATE {_names()}".encode())
        with translated(_WHAT), closing(files.connect(part, mode="ro")) as file:
            expected, done = sum(files.count_rows(file).values()), 0
            for table in tables():
                for count in _copy_table_in(live, file, table):
                    done += count
                    if progress:
                        progress(f"restoring {table.name}", done, expected)
            for table in tables():
                _move_sequence(live, file, table)
    with suppress(DatabaseError), session(engine) as live:  # else the server does so itself, in a while
        live.execute("ANALYZE")


def _copy_table_in(live: psycopg.Connection[Any], file: sqlite3.Connection, table: Table) -> Iterator[int]:
    listed = columns(table)
    rows = file.execute(f'SELECT {listed} FROM "{table.name}"')
    with live.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({listed}) FROM STDIN'.encode()) as into:
        while page := rows.fetchmany(ROWS):
            for row in page:
                into.write_row(row)
            yield len(page)


def _move_sequence(live: psycopg.Connection[Any], file: sqlite3.Connection, table: Table) -> None:
    """
    Have the next id be one that was never given out, here or where the backup comes from.

    A sequence is no part of the transaction: it is only ever moved on, which does no harm if this
    restore is rolled back.
    """
    sequence = _sequence_of(live, table)
    if sequence is None:
        return
    row = file.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).fetchone()
    highest = f'greatest((SELECT last_value FROM {sequence}), (SELECT max(id) FROM "{table.name}"), %s)'
    live.execute(f"SELECT setval('{sequence}', {highest})".encode(), (row[0] if row else 1,))
