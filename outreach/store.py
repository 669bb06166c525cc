"""
The database: engine, transactions, locks, keyed hashes, and bringing the schema up to date.

Every writing transaction is `write(db)`: IMMEDIATE on SQLite, so that it never fails half-way for
want of the lock, and an ordinary one on PostgreSQL. Errors never show bound values.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Integer,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError as BrokenDatabase
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from outreach import clocks
from outreach.errors import ClockError, DatabaseError
from outreach.models import Import, Installation, MessageLink, Release, Tick, UtcTime, to_micros
from outreach.models import table as table_of

BATCH = 1_000  # rows per transaction; DESIGN 3 allows 2,000, half of it keeps each under 0.2 s
SKEW = timedelta(minutes=1)  # how far the clocks of two machines may be apart
CHECKPOINT = 4_000  # pages, 16 MB: with 1,000 a sixth of a dispatch goes into writing the same pages back
_ABREAST = 50  # rows a step of an INSERT on SQLite
WAYS_OUT = ("unsubscribe", "preferences")  # kinds of links whose holder may speak for the person
ADD_LINK = "INSERT INTO links (token, message_id, kind, target) VALUES (?, ?, ?, ?) ON CONFLICT (token) DO NOTHING"
BUSY_SECONDS = 30  # how long a writer waits for another on SQLite


class Lock(IntEnum):
    """What an advisory lock protects (PostgreSQL; on SQLite every writer holds them all)."""

    IMPORT = 1  # one import at a time
    FRESH = 2  # ids of `fresh` grow in commit order
    PLAN = 3  # one planner per campaign
    PUBLISH = 4  # one publish at a time
    OFFER = 5  # the codes of one offer; offers are locked in the order of their names, before FRESH


@dataclass(frozen=True)
class Database:
    """An opened database and the secret that keys its hashes."""

    engine: Engine
    secret: bytes

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"


def keyed_hash(secret: bytes, *parts: str) -> str:
    """32 hex digits of HMAC-SHA-256 over the parts; equal parts give equal hashes, and nothing else is told."""
    return _digest(secret, parts).hex()[:32]


def erased_name(secret: bytes, name: str) -> str:
    """What stands for an erased customer's id, where that tells who they were: it is known again, and says nothing."""
    return f"erased:{keyed_hash(secret, 'erased', name)[:16]}"


def _digest(secret: bytes, parts: Sequence[str]) -> bytes:
    keyed = _keyed(secret).copy()  # half the cost of keying each anew
    keyed.update("\x1f".join(parts).encode())
    return keyed.digest()


@lru_cache(maxsize=8)
def _keyed(secret: bytes) -> hmac.HMAC:
    return hmac.new(secret, digestmod="sha256")


def address_hash(secret: bytes, kind: str, address: str) -> str:
    """The keyed hash under which contacts and suppressions know an address."""
    return keyed_hash(secret, "address", kind, address)


def public_id(secret: bytes, campaign: str, step: str, customer: str, occasion: str) -> str:
    """The message's id outside: an HMAC of its key, so the same again after a restore."""
    return keyed_hash(secret, "message", campaign, step, customer, occasion)


def link_token(secret: bytes, public_id: str, kind: str, target: str = "") -> str:
    """What stands for a link of this message: 72 bits of a keyed hash, which nobody can guess; the same at every attempt."""
    return base64.urlsafe_b64encode(_digest(secret, ("link", public_id, kind, target))[:9]).decode()


def ways_out(secret: bytes, messages: Iterable[tuple[int, str]]) -> list[tuple[str, int, str, str]]:
    """
    The links that whoever got one of these messages may have, to unsubscribe and to choose: what ADD_LINK takes.

    For messages, by id and public id, that may have left without a trace here.
    """
    return [
        (link_token(secret, public_id, kind), message, kind, "") for message, public_id in messages for kind in WAYS_OUT
    ]


def add_links(connection: Connection, links: Sequence[tuple[str, int, str, str]]) -> None:
    """Keep links, as (token, message, kind, target); one that is there already stays as it is."""
    insert_stored(connection, table_of(MessageLink), ("token", "message_id", "kind", "target"), links, unless="token")


@contextmanager
def write(db: Database) -> Iterator[Connection]:
    """A writing transaction, committed on a clean exit and rolled back on an exception."""
    with _translated(), db.engine.connect() as connection:
        connection = connection.execution_options(outreach_begin="IMMEDIATE")
        with connection.begin():
            yield connection


@contextmanager
def read(db: Database) -> Iterator[Connection]:
    """A reading transaction that sees one moment of the database, whatever is committed meanwhile."""
    with _translated(), db.engine.connect() as connection:
        if not db.is_sqlite:  # where each query would see a moment of its own
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def reader(db: Database) -> Iterator[Connection]:
    """
    A connection for reading at several moments: every `rollback()` ends one, and the next query begins another.

    A reader that keeps one moment while others write keeps SQLite from writing its log back: it grows without end.
    """
    with _translated(), db.engine.connect() as connection:
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not (isinstance(error, OperationalError) or type(error) is BrokenDatabase):
            raise
        raise DatabaseError(f"the database cannot be used: {_first_line(error)}") from error


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if error.orig and str(error.orig).strip() else type(error).__name__


def lock(connection: Connection, what: Lock, name: str = "", *, wait: bool = True) -> bool:
    """
    Hold an advisory lock until the transaction ends; False if `wait` is off and another holds it.

    On SQLite the IMMEDIATE transaction already excludes every other writer.
    """
    if connection.dialect.name == "sqlite":
        return True
    key = int.from_bytes(hashlib.sha256(f"outreach:{what.value}:{name}".encode()).digest()[:8], "big", signed=True)
    function = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    return connection.execute(text(f"SELECT {function}(:key)"), {"key": key}).scalar() is not False


def in_chunks(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """The items in slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class _Listed(TypeDecorator[Any]):
    """A list bound as one parameter: JSON on SQLite, an array on PostgreSQL."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[Text] | type[BigInteger] = BigInteger) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(self.of))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        listed = list(set(value))
        return json.dumps(listed) if dialect.name == "sqlite" else listed


class _Among(FunctionElement[bool]):
    inherit_cache = True
    type = Boolean()
    name = "among"

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002
        return self  # SQLite would get `... = 1`, and then use no index


@compiles(_Among, "sqlite")
def _among_sqlite(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, listed = (compiler.process(clause, **how) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({listed}))"


@compiles(_Among)
def _among(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, listed = (compiler.process(clause, **how) for clause in element.clauses)
    return f"{column} = ANY({listed})"


def among(column: ColumnElement[Any], values: str | Iterable[Any]) -> ColumnElement[bool]:
    """
    `column IN (values)` with the whole list, of integers or of strings, as one parameter.

    `values` may be the name of a parameter, to be given when the statement is executed: a statement
    that is built once costs a fifth of one built each time. Its text does not depend on how many
    values there are.
    """
    of = _Listed(BigInteger if isinstance(column.type, BigInteger | Integer) else Text)
    if isinstance(values, str):
        return _Among(column, bindparam(values, type_=of))
    return _Among(column, bindparam(None, list(values), type_=of))


def insert_many(connection: Connection, into: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """
    Insert the rows, which all have the same columns, in the driver's own bulk form.

    Times and JSON are converted here as the table's types would, at a fraction of their cost.
    """
    if not rows:
        return
    names = tuple(rows[0])
    converters = [(place, convert) for place, name in enumerate(names) if (convert := _converter(into.c[name].type))]
    values = [list(row.values()) for row in rows]
    for place, convert in converters:
        for stored in values:
            if stored[place] is not None:
                stored[place] = convert(stored[place])
    insert_stored(connection, into, names, [tuple(stored) for stored in values])


def new_ids(connection: Connection, of: Table, count: int) -> Sequence[int]:
    """Ids that no row of the table has or will get, for rows that this writing transaction is about to insert."""
    if connection.dialect.name == "sqlite":
        last = connection.exec_driver_sql(f"SELECT max(id) FROM {of.name}").scalar() or 0
        return range(last + 1, last + count + 1)
    each = f"SELECT nextval(pg_get_serial_sequence('{of.name}', 'id')) FROM generate_series(1, %s)"
    return connection.exec_driver_sql(each, (count,)).scalars().all()


def insert_stored(
    connection: Connection, into: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, unless: str = ""
) -> None:
    """
    Insert rows that are already in their stored form: times as microseconds, JSON as text.

    `unless` names a unique column: a row whose value is there already is left out.

    On SQLite fifty at a step, in two thirds of the time. What fails rolls the whole transaction
    back, so no step needs a journal of its own (OR FAIL).
    """
    row = f"({', '.join([_mark(connection)] * len(columns))})"
    head = f"INTO {into.name} ({', '.join(columns)}) VALUES"
    beside = f" ON CONFLICT ({unless}) DO NOTHING" if unless else ""
    alone = len(rows) % _ABREAST if connection.dialect.name == "sqlite" else len(rows)
    if abreast := rows[: len(rows) - alone]:
        flat, width = tuple(chain.from_iterable(abreast)), _ABREAST * len(columns)
        steps = [flat[n : n + width] for n in range(0, len(flat), width)]
        connection.exec_driver_sql(f"INSERT OR FAIL {head} {', '.join([row] * _ABREAST)}{beside}", steps)
    if alone:
        connection.exec_driver_sql(f"INSERT {head} {row}{beside}", rows[-alone:])


def update_many(connection: Connection, of: Table, column: str, values: Sequence[tuple[Any, int]]) -> None:
    """Set one column of many rows, given as (value, id), in the driver's own bulk form."""
    if not values:
        return
    convert, mark = _converter(of.c[column].type), _mark(connection)
    stored = [(value if value is None or convert is None else convert(value), i) for value, i in values]
    connection.exec_driver_sql(f"UPDATE {of.name} SET {column} = {mark} WHERE id = {mark}", stored)


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"


def _converter(of: Any) -> Callable[[Any], Any] | None:
    if isinstance(of, UtcTime):
        return to_micros
    return json.dumps if isinstance(of, JSON) else None


def seen(connection: Connection, now: datetime) -> None:
    """Note the newest `now`; ClockError when it is more than SKEW earlier than one already seen."""
    table = table_of(Installation)
    newest = connection.execute(select(table.c.newest)).scalar()
    if newest is not None and now < newest - SKEW:
        raise _is_earlier(now, newest)
    if newest is None or now > newest:
        connection.execute(update(table).values(newest=now))


def _is_earlier(now: datetime, newest: datetime) -> ClockError:
    """In words for whoever gave the time, or for whoever has the machine whose clock did."""
    if clocks.is_now(now):
        return ClockError(
            f"it is {now.isoformat()} by this machine's clock, and this database has already seen {newest.isoformat()}:"
            f" check the clock; if it is right now, this goes on by itself at {newest.isoformat()}"
        )
    return ClockError(
        f"--now {now.isoformat()} is earlier than {newest.isoformat()}, which this database has already seen:"
        " replay the past in a fresh workspace"
    )


def lived_until(db: Database) -> datetime | None:
    """The latest time that something was done at in this database: planned, published or imported; None: never."""
    releases, imports = table_of(Release), table_of(Import)
    queries = (
        select(table_of(Installation).c.newest),
        select(releases.c.published_at).order_by(releases.c.id.desc()).limit(1),
        select(imports.c.started_at).order_by(imports.c.id.desc()).limit(1),
    )
    with read(db) as connection:
        times = [connection.execute(query).scalar() for query in queries]
    return max((at for at in times if at is not None), default=None)


def record_tick(
    connection: Connection, stage: str, started: datetime, finished: datetime, counts: dict[str, Any], error: str = ""
) -> None:
    """Keep the last tick of a stage, for `status`; two processes may do so at once."""
    values = {"started_at": started, "finished_at": finished, "counts": counts, "error": error}
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    written = dialect.insert(table_of(Tick)).values(stage=stage, **values)
    connection.execute(written.on_conflict_do_update(index_elements=["stage"], set_=values))


def adopt_host(db: Database, host: str, *, adopt: bool) -> None:
    """
    Remember `host` as one that sends from this database: a SQLite file has one, PostgreSQL any number.

    Raises:
        DatabaseError: it is not known yet, others are, and `adopt` is off: this may be a copy of the
            database, which would send everything twice.
    """
    table = table_of(Installation)
    with write(db) as connection:
        lock(connection, Lock.PUBLISH)
        known = _hosts(connection)
        if known and host not in known and not adopt:
            raise _is_copy(known)
        if host not in known:
            hosts = [host] if db.is_sqlite else [*known, host]
            connection.execute(update(table).values(host="\n".join(hosts)))


def refuse_copy(db: Database, host: str) -> None:
    """
    DatabaseError where somebody else sends from this SQLite file: copied with its folder, it would send again.

    PostgreSQL has one database for all who send from it.
    """
    if db.is_sqlite:
        with read(db) as connection:
            known = _hosts(connection)
        if known and host not in known:
            raise _is_copy(known)


def _hosts(connection: Connection) -> list[str]:
    return (connection.execute(select(table_of(Installation).c.host)).scalar() or "").splitlines()


def _is_copy(known: Sequence[str]) -> DatabaseError:
    return DatabaseError(
        f"messages are sent from this database by {', '.join(known)}: a copy of it must not send as well;"
        " if this is no copy, run `outreach run --adopt`"
    )


def open_database(url: str, *, secret: str = "", timezone: str = "UTC", upgrade: bool | None = None) -> Database:
    """
    Open the database and make sure its schema is this version's.

    SQLite upgrades itself; PostgreSQL only with `upgrade=True` (`outreach db upgrade`). `secret`
    is OUTREACH_SECRET; without one, a random secret is kept in the database itself.

    Raises:
        DatabaseError: it cannot be reached, is of another version, or was made with another secret.
    """
    engine = make_engine(url)
    with _translated():
        _bring_up_to_date(engine, upgrade=engine.dialect.name == "sqlite" if upgrade is None else upgrade)
        return Database(engine, _the_secret(engine, secret, timezone))


def make_engine(url: str) -> Engine:
    """An engine with hidden parameters; SQLite in WAL with synchronous=FULL."""
    try:
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.split("://", 1)[1]
        if url.startswith("sqlite"):
            engine = create_engine(url, hide_parameters=True, json_deserializer=_from_json)
            _set_up_sqlite(engine)
        else:
            engine = create_engine(
                url,
                hide_parameters=True,
                json_deserializer=_from_json,
                pool_pre_ping=True,
                pool_size=2,
                max_overflow=8,
            )
            _set_up_postgresql(engine)
    except Exception as error:
        raise DatabaseError(
            "the database address cannot be read: write sqlite:///outreach.db or postgresql://user@host/name"
        ) from error
    return engine


def _from_json(text: str) -> Any:
    """As `json.loads`, at a tenth of the cost where there is nothing in it: so are most tags and attributes."""
    return [] if text == "[]" else {} if text == "{}" else json.loads(text)


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def opening(_dialect: Any, _record: Any, arguments: Sequence[Any], _named: Any) -> None:
        if arguments[0] != ":memory:":
            with suppress(OSError):  # there already; or SQLite says why it cannot be
                os.close(os.open(arguments[0], os.O_CREAT | os.O_EXCL, 0o600))  # for nobody else to read

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('outreach_begin', 'DEFERRED')}")


def _set_up_postgresql(engine: Engine) -> None:
    """A commit must outlive a power cut, whatever the server's default: what left is written before it leaves."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            of = "current_setting('synchronous_commit') = 'off'"
            cursor.execute(f"SELECT set_config('synchronous_commit', 'on', false) WHERE {of}")
        connection.commit()


def migrations() -> Path:
    """The folder of Alembic's migration scripts."""
    return Path(__file__).parent / "migrations"


HEAD = "0001"  # the newest migration; a test compares it with the scripts


def version(engine: Engine) -> str | None:
    """The schema version the database is at, None for an empty one."""
    with _translated(), engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return str(found) if found else None


def _bring_up_to_date(engine: Engine, *, upgrade: bool) -> None:
    found = version(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise DatabaseError(f"the database is of version {found}, newer than this program's {HEAD}: upgrade outreach")
    if not upgrade:
        raise DatabaseError(
            f"the database is at version {found or 'none'}, this program needs {HEAD}: run `outreach db upgrade`"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")


def _the_secret(engine: Engine, given: str, timezone: str) -> bytes:
    table = table_of(Installation)
    wanted = select(table.c.secret, table.c.secret_check)
    with read(Database(engine, b"")) as connection:
        row = connection.execute(wanted).first()
    if row is None:
        with write(Database(engine, b"")) as connection:
            lock(connection, Lock.PUBLISH)
            row = connection.execute(wanted).first()
            if row is None:
                return _first_secret(connection, given, timezone)
    used = (row.secret or given).encode()
    if not used:
        raise DatabaseError("this database was made with OUTREACH_SECRET set: set it to the same value again")
    if not hmac.compare_digest(keyed_hash(used, "check"), row.secret_check):
        raise DatabaseError("OUTREACH_SECRET differs from the one this database was made with: set the former one")
    return used


def _first_secret(connection: Connection, given: str, timezone: str) -> bytes:
    kept = "" if given else secrets.token_hex(32)
    used = (given or kept).encode()
    connection.execute(
        insert(Installation).values(id=1, secret=kept, secret_check=keyed_hash(used, "check"), timezone=timezone)
    )
    return used


BACKUP_NOTE = "outreach_backup"  # the table that only a backup has


def refuse_backup(db: Database) -> None:
    """DatabaseError for a backup that was put in the database's place by hand: it would send again what left since."""
    if db.is_sqlite and inspect(db.engine).has_table(BACKUP_NOTE):
        raise DatabaseError(
            "this database is a backup that was put in place by hand, and would send again what left since:"
            " move it away and run `outreach db restore FILE`"
        )


def this_host(workspace: Path) -> str:
    """The machine and folder a daemon sends from, to notice a copy that runs elsewhere."""
    return f"{socket.gethostname()}:{os.path.realpath(workspace)}"


def micros(at: datetime) -> int:
    """The stored form of a time, for SQL written as text."""
    return to_micros(at)
