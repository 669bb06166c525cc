from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import InternalError
from sqlmodel import SQLModel

from outreach import store
from outreach.errors import ClockError, DatabaseError
from outreach.models import Contact, Installation, table
from tests.conftest import NOW, SECRET


def test_the_migrations_make_exactly_the_tables_that_the_models_declare(db: store.Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": SQLModel.metadata})

        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_newest_migration_is_the_one_the_program_asks_for() -> None:
    scripts = ScriptDirectory(str(store.migrations()))

    assert scripts.get_current_head() == store.HEAD


def test_sqlite_is_in_wal_mode_and_fully_synchronous(new_database: Callable[[str], str]) -> None:
    database = store.open_database(new_database("sqlite"), secret=SECRET)

    with store.read(database) as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_now_earlier_than_one_already_seen_is_refused(db: store.Database) -> None:
    with store.write(db) as connection:
        store.seen(connection, NOW)

    with pytest.raises(ClockError, match="already seen"), store.write(db) as connection:
        store.seen(connection, NOW - timedelta(seconds=61))


def test_the_secret_that_made_a_database_is_the_only_one_that_opens_it(database_url: str) -> None:
    with pytest.raises(DatabaseError, match="OUTREACH_SECRET differs"):
        store.open_database(database_url, secret="another")

    with pytest.raises(DatabaseError, match="set it to the same value"):
        store.open_database(database_url)


def test_without_a_secret_the_database_keeps_a_random_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    first, again = store.open_database(url), store.open_database(url)

    assert first.secret == again.secret
    assert len(first.secret) == 64


def test_an_unreachable_database_is_one_sentence_without_the_password() -> None:
    with pytest.raises(DatabaseError) as caught:
        store.open_database("postgresql://someone:hidden@127.0.0.1:1/nothing")

    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_postgresql_asks_for_an_upgrade(new_database: Callable[[str], str]) -> None:
    url = new_database("postgresql")
    with store.make_engine(url).begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))

    with pytest.raises(DatabaseError, match="outreach db upgrade"):
        store.open_database(url, secret=SECRET)


def test_times_come_back_as_they_went_in_to_the_microsecond(db: store.Database) -> None:
    at = NOW.replace(microsecond=123_457)
    with store.write(db) as connection:
        store.seen(connection, at)

    with store.read(db) as connection:
        assert connection.execute(select(table(Installation).c.newest)).scalar() == at


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(DatabaseError, match="not a database"):
        store.open_database(f"sqlite:///{path}")


def test_a_new_sqlite_file_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    with store.write(store.open_database(f"sqlite:///{tmp_path / 'new.db'}")) as connection:
        store.lock(connection, store.Lock.FRESH)
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}


def test_a_copy_elsewhere_must_be_adopted_and_only_postgresql_has_several_senders(db: store.Database) -> None:
    store.adopt_host(db, "one:/shop", adopt=False)
    store.adopt_host(db, "one:/shop", adopt=False)
    with pytest.raises(DatabaseError, match="--adopt"):
        store.adopt_host(db, "two:/shop", adopt=False)
    store.adopt_host(db, "two:/shop", adopt=True)

    if db.is_sqlite:
        with pytest.raises(DatabaseError, match="two:/shop"):
            store.adopt_host(db, "one:/shop", adopt=False)
    else:
        store.adopt_host(db, "one:/shop", adopt=False)


def test_a_list_of_ids_is_looked_up_by_index_on_sqlite(new_database: Callable[[str], str]) -> None:
    database = store.open_database(new_database("sqlite"), secret=SECRET)
    contacts = table(Contact)
    query = select(contacts.c.id).where(store.among(contacts.c.id, "ids"), contacts.c.address.is_not(None))

    with store.read(database) as connection:
        sql = str(query.compile(connection))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", ("[1, 2]",)).all()

    assert any("SEARCH contacts USING INTEGER PRIMARY KEY" in row[3] for row in plan)


def test_lists_are_one_parameter_on_both_databases(db: store.Database) -> None:
    contacts = table(Contact)
    with store.write(db) as connection:
        rows = [{"kind": "email", "address": f"{n}@example.com", "address_hash": f"h{n}"} for n in range(5)]
        store.insert_many(connection, contacts, rows)

    with store.read(db) as connection:
        by_hash = select(contacts.c.address_hash).where(store.among(contacts.c.address_hash, ["h1", "h3", "h9"]))
        named = select(contacts.c.id).where(store.among(contacts.c.id, "ids"))

        assert sorted(connection.execute(by_hash).scalars()) == ["h1", "h3"]
        assert len(connection.execute(named, {"ids": [1, 2, 99]}).all()) == 2
        assert connection.execute(named, {"ids": []}).all() == []


def test_a_reading_transaction_sees_one_moment_whatever_is_committed_meanwhile(db: store.Database) -> None:
    def newest(connection: Connection) -> object:
        return connection.execute(select(table(Installation).c.newest)).scalar()

    with store.read(db) as reading:
        before = newest(reading)
        with store.write(db) as connection:
            store.seen(connection, NOW)
        assert newest(reading) == before is None
    with store.read(db) as reading:
        assert newest(reading) == NOW


def test_a_reading_transaction_on_postgresql_writes_nothing(new_database: Callable[[str], str]) -> None:
    db = store.open_database(new_database("postgresql"), secret=SECRET)
    with pytest.raises(InternalError, match="read-only"), store.read(db) as reading:
        store.seen(reading, NOW)
    with store.write(db) as connection:  # and what comes next on the same connection may write again
        store.seen(connection, NOW)
    db.engine.dispose()
