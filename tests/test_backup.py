"""Backup and restore: everything comes along, nothing half-done is ever seen, and nothing is sent twice."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Integer,
    LargeBinary,
    Table,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlmodel import SQLModel

from outreach import alerts, backup, channels, cli, dispatcher, inbox, planner, releases, store
from outreach.backup import aftermath, files, on_postgresql
from outreach.channels import OptOut, Silent
from outreach.cli import here
from outreach.errors import ChannelError, ClockError, DatabaseError, OutreachError
from outreach.inbox import ledger
from outreach.models import (
    Alarm,
    CampaignState,
    Consent,
    Contact,
    Coupon,
    Customer,
    Fresh,
    Import,
    Installation,
    Message,
    MessageContent,
    Scope,
    Status,
    Suppression,
    Tick,
    UtcTime,
    table,
)
from outreach.reconciler import Decision, resolve
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import Database
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.twilio import FakeTwilio
from tests import by_twilio, shop
from tests.conftest import NOW, SECRET
from tests.copies import Original
from tests.killing.processes import start
from tests.test_cli import Run, run

__all__ = ["run"]

KINDS = ("sqlite", "postgresql")
LATER = NOW + timedelta(hours=6)  # when a restore takes place
ROWS = 3
_messages, _states, _installation = table(Message), table(CampaignState), table(Installation)


@dataclass(frozen=True)
class Place:
    """A workspace with its database."""

    settings: Settings
    request: pytest.FixtureRequest | None = None

    @property
    def url(self) -> str:
        return self.settings.database

    def open(self) -> Database:
        return store.open_database(self.url, secret=SECRET)

    @cached_property
    def _database(self) -> Database:
        return self.open()

    @contextmanager
    def looked_into(self) -> Iterator[Database]:
        """For a moment, after which nobody has it open."""
        try:
            yield self._database
        finally:
            self._database.engine.dispose()

    def back_up(self, now: datetime = NOW, **options: Any) -> Path:
        return backup.back_up(self.settings, now, **options).file

    def restore(self, file: Path, now: datetime = LATER, **options: Any) -> backup.Restored:
        try:
            return backup.restore(self.settings, file, now, **options)
        finally:
            vars(self).pop("_database", None)  # it has to open anew

    def rows(self, model: type[SQLModel], **equals: Any) -> list[Any]:
        with self.looked_into() as db:
            return shop.rows_of(db, model, **equals)

    def add(self, model: type[SQLModel], *rows: dict[str, Any]) -> None:
        with self.looked_into() as db, store.write(db) as connection:
            connection.execute(insert(table(model)), list(rows))

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        with self.looked_into() as db, store.read(db) as connection:
            return {
                of.name: [tuple(row) for row in connection.execute(select(of).order_by(*of.primary_key.columns))]
                for of in files.tables()
            }


@pytest.fixture
def new_place(
    new_database: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[str], Place]:
    """Makes a workspace with a database of the kind asked for."""
    made: list[int] = []

    def make(kind: str) -> Place:
        made.append(0)
        workspace = tmp_path / f"workspace-{len(made)}"
        workspace.mkdir()
        business = Business("Tienda Luna", "America/Mexico_City", "MXN", "es-MX", "MX")
        return Place(Settings(workspace, business, database=new_database(kind), secret=SECRET), request)

    return make


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, new_place: Callable[[str], Place]) -> Place:
    """A workspace with a database, of each kind in turn."""
    return new_place(request.param)


# --- rows for every table --------------------------------------------------------------------------


FILLED = Original()


def fill(place: Place) -> None:
    """Rows in every table, with values that are hard to copy."""
    assert place.request is not None

    def make(_folder: Path, url: str) -> None:
        fill_with(Place(replace(place.settings, database=url)), ROWS)

    FILLED.copy(place.request, place.settings.workspace, make, place.url)


def fill_with(place: Place, rows: int) -> None:
    with place.looked_into() as db, store.write(db) as connection:
        for of in files.tables():
            if of.name != "installation":
                connection.execute(insert(of), [_row(of, number) for number in range(1, rows + 1)])
        connection.execute(update(_installation).values(newest=NOW, host="machine:/shop"))


def _row(of: Table, number: int) -> dict[str, Any]:
    return {column.name: _value(column, number) for column in of.columns}


def _value(column: Any, number: int) -> Any:
    if column.nullable and number == 2:
        return None
    if column.primary_key and isinstance(column.type, Integer):
        return number
    if isinstance(column.type, UtcTime):
        return NOW - timedelta(days=number, microseconds=number)
    if isinstance(column.type, JSON):
        return {"ñ \u2028 'x'": [number, None, True, 1.5], "": {"\\": '"\t\n'}}
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, LargeBinary):
        return bytes(range(256)) * number
    if isinstance(column.type, BigInteger):
        return 2**53 + number
    if isinstance(column.type, Integer):
        return 2**31 - 1 - number
    return f"{column.name} {number} 'quoted' \"twice\" ; \\N \\ \t \n 🎉 {{}} %s ?"


def test_the_sample_has_rows_in_every_table(place: Place) -> None:
    fill(place)

    assert {name for name, rows in place.everything().items() if len(rows) >= ROWS} == {
        of.name for of in files.tables()
    } - {"installation"}


# --- everything comes along ------------------------------------------------------------------------


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_row_of_every_table_comes_along_between_any_two_databases(
    new_place: Callable[[str], Place], source: str, target: str
) -> None:
    here, there = new_place(source), new_place(target)
    fill(here)
    wanted = here.everything()

    restored = there.restore(here.back_up())

    found = there.everything()
    changed = {"installation": ("newest", "backup_at", "restored_at"), "messages": ("claim", "lease_until")}
    for name, rows in wanted.items():
        assert found[name] == [_without(name, row, changed.get(name, ()), found) for row in rows], name
    assert here.everything() == wanted
    assert (restored.database, restored.kept, restored.after.doubtful) == (target, None, {})


def _without(name: str, row: tuple[Any, ...], columns: tuple[str, ...], found: Any) -> tuple[Any, ...]:
    """The row, with what a restore may change taken from what was found; a campaign that ran is paused."""
    of = SQLModel.metadata.tables[name]
    names = [column.name for column in of.columns]
    if name == "campaign_states" and row[names.index("paused_at")] is None:
        columns = ("paused_at", "paused_reason")
    keys = [names.index(column.name) for column in of.primary_key.columns]
    same = next(other for other in found[name] if all(other[key] == row[key] for key in keys))
    return tuple(same[at] if one in columns else row[at] for at, one in enumerate(names))


def test_a_restored_database_has_the_tables_of_the_models_and_nothing_else(place: Place) -> None:
    fill(place)
    place.restore(place.back_up())

    db = place.open()
    names = set(db.engine.dialect.get_table_names(db.engine.connect()))

    assert names == {of.name for of in files.tables()} | {"alembic_version"}


def test_a_backup_is_one_file_of_its_owner_s_that_names_its_moment(place: Place) -> None:
    fill(place)

    made = backup.back_up(place.settings, NOW)

    assert made.file == place.settings.workspace / "backups" / "outreach-backup-20260615-150000.sqlite"
    assert [path.name for path in made.file.parent.iterdir()] == [made.file.name]
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.file.parent.stat().st_mode) == 0o700
    read = files.read(made.file)
    assert (read.made_at, read.version) == (NOW, store.HEAD)
    assert made.rows == read.rows
    assert made.rows["orders"] == ROWS
    assert made.has_secret is False
    with closing(sqlite3.connect(made.file)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_backup_of_a_backup_has_a_moment_of_its_own(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    fill(place)
    copy = Place(replace(place.settings, database=f"sqlite:///{place.back_up()}"))

    assert files.read(copy.back_up(LATER)).made_at == LATER


def test_a_backup_that_is_put_in_place_by_hand_is_refused(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    fill(place)
    by_hand = replace(place.settings, database=f"sqlite:///{place.back_up()}", secret=SECRET)

    with pytest.raises(DatabaseError, match="outreach db restore"):
        here.database(by_hand)
    assert here.database(replace(place.settings, secret=SECRET)).is_sqlite


def test_a_database_that_keeps_its_own_secret_has_it_in_the_backup_and_opens_with_it(tmp_path: Path) -> None:
    first = Settings(tmp_path, Business("Tienda", "UTC", "MXN"), database=f"sqlite:///{tmp_path / 'a.db'}")
    secret = store.open_database(first.database).secret
    second = replace(first, database=f"sqlite:///{tmp_path / 'b.db'}")

    made = backup.back_up(first, NOW)
    backup.restore(second, made.file, LATER)

    assert made.has_secret
    assert store.open_database(second.database).secret == secret


def test_ids_that_were_given_out_once_never_come_back(new_place: Callable[[str], Place]) -> None:
    for source in KINDS:
        for target in KINDS:
            here, there = new_place(source), new_place(target)
            rows = [{"kind": "order.placed", "record_id": n, "customer_id": n, "at": NOW} for n in range(9)]
            here.add(Fresh, *rows)
            db = here.open()
            with store.write(db) as connection:
                connection.execute(text("DELETE FROM fresh WHERE id > 2"))
            there.restore(here.back_up())

            there.add(Fresh, rows[0])

            assert [row.id for row in there.rows(Fresh)][-1] >= 10, (source, target)


def test_rows_written_after_a_restore_get_ids_of_their_own(place: Place) -> None:
    fill(place)
    place.restore(place.back_up())

    db = place.open()
    with store.write(db) as connection:
        ids = store.new_ids(connection, table(Message), 3)

    assert min(ids) > ROWS


# --- while others write ----------------------------------------------------------------------------

PAIRS = 20  # written before the backup begins


def write_pairs(there: Connection, url: str) -> None:
    """Write a message and its content, both or neither, over and over until told to end."""
    db = store.open_database(url, secret=SECRET)
    number = 0
    while not there.poll():
        number += 1
        with store.write(db) as connection:
            write_pair(connection, number)
        if number == PAIRS:
            there.send("going")


def write_pair(connection: Any, number: int) -> None:
    row = {**_row(_messages, 1), "id": None, "public_id": f"p{number}", "occasion": str(number), "provider_id": None}
    row = {name: value for name, value in row.items() if value is not None}
    message = connection.execute(insert(_messages).values(row).returning(_messages.c.id)).scalar_one()
    connection.execute(insert(table(MessageContent)).values({**_row(table(MessageContent), 1), "message_id": message}))


def test_a_backup_made_while_another_process_writes_is_of_one_moment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGES", 5)
    monkeypatch.setattr(on_postgresql, "ROWS", 2)
    writer, pipe = start(write_pairs, place.url)
    assert pipe.poll(60)
    assert pipe.recv() == "going"  # and has not ended instead
    db = place.open()
    before = count(db, Message)
    seen: list[int] = []

    def progress(_what: str, _done: int, _total: int) -> None:
        while len(seen) < 10 and count(db, Message) <= (seen or [before])[-1]:
            assert writer.is_alive()  # the backup goes on only once the writer did
        seen.append(count(db, Message))

    file = place.back_up(progress=progress)
    pipe.send("end")
    writer.join(60)
    pipe.close()

    with closing(sqlite3.connect(file)) as copy:
        messages = {row[0] for row in copy.execute("SELECT id FROM messages")}
        contents = {row[0] for row in copy.execute("SELECT message_id FROM contents")}
    assert writer.exitcode == 0
    assert messages == contents
    assert len(messages) >= PAIRS
    assert len(messages) < seen[-1]  # they were written while it was made


def test_writers_neither_wait_for_a_backup_nor_make_it_begin_anew(
    new_place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGES", 5)
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    place = new_place("sqlite")
    fill(place)
    db = place.open()
    left: list[int] = []

    def write(_what: str, done: int, total: int) -> None:
        left.append(total - done)
        with store.write(db) as connection:
            write_pair(connection, len(left))

    file = place.back_up(progress=write)

    assert len(left) > 5
    assert left == sorted(left, reverse=True)
    assert files.read(file).rows["messages"] == ROWS
    assert count(db, Message) == ROWS + len(left)


def count(db: Database, model: type[SQLModel]) -> int:
    with store.read(db) as connection:
        return connection.execute(select(func.count()).select_from(table(model))).scalar() or 0


# --- cut off ---------------------------------------------------------------------------------------


def back_up_and_wait(there: Connection, settings: Settings) -> None:
    files.PAGES = on_postgresql.ROWS = 2
    backup.back_up(settings, NOW, progress=lambda *_: hold(there))


def restore_and_wait(there: Connection, settings: Settings, file: Path) -> None:
    files.PAGES = on_postgresql.ROWS = 2
    begun: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        begun.append(what)
        if what.startswith("restoring") and done > total / 2:
            hold(there)

    backup.restore(settings, file, LATER, progress=progress)


def hold(there: Connection) -> None:
    """Say that it is half-way, and stay there."""
    there.send(os.getpid())
    there.recv()


def kill_half_way(work: Callable[..., None], *arguments: Any) -> None:
    process, pipe = start(work, *arguments)
    assert pipe.poll(60)
    assert pipe.recv() == process.pid  # half-way, and not at its end
    process.kill()
    process.join(60)
    pipe.close()
    assert process.exitcode == -9


def test_a_backup_killed_half_way_leaves_no_file_that_looks_whole(place: Place) -> None:
    fill(place)
    wanted = place.everything()

    kill_half_way(back_up_and_wait, place.settings)

    folder = place.settings.workspace / "backups"
    left = [path for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))]
    assert [path.name.endswith(".part") for path in left] == [True]
    assert stat.S_IMODE(left[0].stat().st_mode) == 0o600
    with pytest.raises(DatabaseError, match="no backup"):
        files.read(left[0])
    assert place.everything() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_killed_half_way_leaves_the_old_state(new_place: Callable[[str], Place], kind: str) -> None:
    here, there = new_place(kind), new_place("sqlite")
    fill(here)
    there.add(Contact, *({"kind": "email", "address": None, "address_hash": f"h{n}"} for n in range(300)))
    file, wanted = there.back_up(), here.everything()

    kill_half_way(restore_and_wait, here.settings, file)

    assert here.everything() == wanted
    here.restore(file)
    assert len(here.rows(Contact)) == 300


def test_what_a_cut_off_backup_left_is_swept_away_a_day_later(place: Place) -> None:
    folder = place.settings.workspace / "backups"
    folder.mkdir()
    old, new, other = (folder / name for name in (".outreach-1-backup.part", ".outreach-2-backup.part", ".mine.part"))
    for path, age in ((old, 25), (new, 23), (other, 99)):
        path.touch()
        at = (NOW - timedelta(hours=age)).timestamp()
        os.utime(path, (at, at))

    place.back_up()

    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


def test_a_backup_that_fails_leaves_nothing_behind(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    fill_with(place, 400)
    path = Path(place.url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_orders_customer'").fetchone()[0]
    with path.open("r+b") as raw:
        raw.seek((root - 1) * 4096)
        raw.write(b"\x7f" * 4096)

    with pytest.raises(DatabaseError, match="damaged, and no backup"):
        place.back_up()

    assert list((place.settings.workspace / "backups").iterdir()) == []


def test_a_database_that_is_not_there_is_not_backed_up_as_an_empty_one(tmp_path: Path) -> None:
    settings = Settings(tmp_path, Business("Tienda", "UTC", "MXN"), database=f"sqlite:///{tmp_path / 'none.db'}")

    with pytest.raises(DatabaseError, match="nothing to back up"):
        backup.back_up(settings, NOW)

    assert not (tmp_path / "none.db").exists()


# --- names -----------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_replaced_only_with_force(new_place: Callable[[str], Place], tmp_path: Path) -> None:
    place, target = new_place("sqlite"), tmp_path / "mine.sqlite"
    target.write_text("precious")

    with pytest.raises(OutreachError, match="--force"):
        place.back_up(to=target)
    assert target.read_text() == "precious"

    assert place.back_up(to=target, force=True) == target
    assert files.read(target).made_at == NOW


def test_only_the_newest_dated_backups_are_kept_and_no_other_file_is_touched(
    new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    place, folder = new_place("sqlite"), tmp_path / "safe"
    folder.mkdir()
    others = ["outreach-backup-20260101.sqlite", "outreach-replaced-20260101-000000.sqlite", "outreach.db"]
    for name in (*others, "outreach-backup-20260601-000000.sqlite", "outreach-backup-20260602-000000.sqlite"):
        (folder / name).touch()

    made = backup.back_up(place.settings, NOW, folder, keep=2)

    assert [path.name for path in made.deleted] == ["outreach-backup-20260601-000000.sqlite"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*others, "outreach-backup-20260602-000000.sqlite", made.file.name]
    )
    with pytest.raises(OutreachError, match="--keep"):
        backup.back_up(place.settings, NOW, tmp_path / "mine.sqlite", keep=2)


# --- what is refused -------------------------------------------------------------------------------


def refused(place: Place, file: Path, match: str, error: type[OutreachError] = DatabaseError) -> None:
    """Neither looking nor restoring gets anywhere, and nothing changes."""
    wanted = place.everything()
    for attempt in (backup.look, backup.restore):
        with pytest.raises(error, match=match) as caught:
            attempt(place.settings, file, LATER)
        assert "\n" not in str(caught.value)
    assert place.everything() == wanted
    assert not list(place.settings.workspace.glob("**/*.part*"))


def edited(file: Path, statement: str) -> Path:
    with closing(sqlite3.connect(file)) as copy:
        copy.execute(statement)
        copy.commit()
    return file


def test_what_is_no_backup_is_refused(place: Place, new_place: Callable[[str], Place], tmp_path: Path) -> None:
    fill(place)
    plain = new_place("sqlite")
    plain.open().engine.dispose()
    noise = tmp_path / "noise.sqlite"
    noise.write_bytes(b"not a database at all" * 1000)

    refused(place, Path(plain.url.removeprefix("sqlite:///")), "no backup, and nobody knows of when")
    refused(place, noise, "not a database")
    refused(place, tmp_path / "none.sqlite", "no such file")


def test_a_damaged_backup_is_refused(place: Place, tmp_path: Path) -> None:
    fill_with(place, 60)
    file = place.back_up()
    short = tmp_path / "short.sqlite"
    short.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    fewer = edited(Path(shutil.copy(file, tmp_path / "fewer.sqlite")), "DELETE FROM orders WHERE id = 7")

    refused(place, short, "damaged|malformed")
    refused(place, fewer, "rows are missing")


def test_a_backup_of_a_newer_version_is_refused(place: Place) -> None:
    fill(place)
    file = edited(place.back_up(), "UPDATE alembic_version SET version_num = '9999'")

    refused(place, file, "newer than this one: upgrade outreach")


def test_a_backup_made_with_another_secret_is_refused(place: Place) -> None:
    fill(place)
    file = place.back_up()

    for given, match in (("another", "differs"), ("", "set it to the same value")):
        with pytest.raises(DatabaseError, match=match) as caught:
            backup.restore(replace(place.settings, secret=given), file, LATER)
        assert SECRET not in str(caught.value)


def test_a_backup_of_an_earlier_version_is_brought_up_to_this_one(
    new_place: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = new_place("sqlite"), new_place("sqlite")
    fill(here)
    file = here.back_up()
    scripts = shutil.copytree(store.migrations(), tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    first = next((scripts / "versions").glob(f"{store.HEAD}*")).stem
    (scripts / "versions" / "9999_later.py").write_text(
        f"from alembic import op\nrevision, down_revision = '9999', '{store.HEAD}'\n"
        "def upgrade():\n    op.execute('CREATE TABLE later (id INTEGER PRIMARY KEY)')\n"
    )
    monkeypatch.setattr(store, "migrations", lambda: scripts)
    monkeypatch.setattr(store, "HEAD", "9999")
    assert first

    there.restore(file)

    db = there.open()
    assert store.version(db.engine) == "9999"
    assert count(db, Message) == ROWS
    with store.read(db) as connection:
        assert connection.execute(text("SELECT count(*) FROM later")).scalar() == 0


def test_nothing_is_restored_while_a_daemon_seems_to_be_running(place: Place) -> None:
    fill(place)
    file = place.back_up()
    place.add(Tick, {**_row(table(Tick), 1), "stage": "dispatch", "finished_at": LATER - timedelta(seconds=70)})

    refused(place, file, "dispatch ran at .*stop every `outreach run`")

    place.restore(file, force=True)
    assert place.rows(Tick, stage="dispatch") == []


def test_a_clock_that_is_behind_is_refused(place: Place) -> None:
    fill(place)
    file = place.back_up()

    with pytest.raises(ClockError, match="in the backup"):
        place.restore(file, NOW - timedelta(minutes=2))

    db = place.open()
    with store.write(db) as connection:
        store.seen(connection, LATER + timedelta(days=1))
    refused(place, file, "has seen 2026-06-16", ClockError)
    assert place.restore(file, force=True).restored_at == LATER


def test_what_another_machine_saw_a_moment_later_counts_as_the_moment_of_the_restore(place: Place) -> None:
    fill(place)
    file = place.back_up()
    db = place.open()
    with store.write(db) as connection:
        store.seen(connection, LATER + timedelta(seconds=40))

    assert place.restore(file).restored_at == LATER + timedelta(seconds=40)


def test_a_sqlite_file_of_another_program_is_not_replaced(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    file = place.back_up()
    path = Path(place.url.removeprefix("sqlite:///"))
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text TEXT)")
        other.execute("INSERT INTO notes VALUES ('precious')")
        other.commit()

    with pytest.raises(DatabaseError, match="not outreach's"):
        place.restore(file)

    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT text FROM notes").fetchone() == ("precious",)


def test_a_postgresql_database_of_another_version_is_not_read_or_replaced(new_place: Callable[[str], Place]) -> None:
    place = new_place("postgresql")
    file = place.back_up()
    with store.make_engine(place.url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))

    with pytest.raises(DatabaseError, match="outreach db upgrade"):
        place.restore(file)
    with pytest.raises(DatabaseError, match="outreach db upgrade"):
        place.back_up(LATER)


# --- what is replaced ------------------------------------------------------------------------------


def test_what_is_replaced_is_kept_and_can_be_restored_in_turn(place: Place) -> None:
    fill(place)
    file = place.back_up()
    place.add(Contact, {"id": 99, "kind": "email", "address": None, "address_hash": "later"})

    kept = place.restore(file).kept

    assert kept is not None
    assert kept.name == "outreach-replaced-20260615-210000.sqlite"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert place.rows(Contact, address_hash="later") == []
    again = place.restore(kept)
    assert len(place.rows(Contact, address_hash="later")) == 1
    assert again.kept is not None
    assert again.kept != kept


def test_a_process_that_still_has_the_database_open_sees_what_was_restored(place: Place) -> None:
    fill(place)
    file = place.back_up()
    db = place.open()
    with store.write(db) as connection:
        connection.execute(text("DELETE FROM messages"))
    with store.read(db) as connection:
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar() == 0

    place.restore(file)

    with store.read(db) as connection:
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar() == ROWS


def test_an_empty_database_gets_its_tables_and_rows(new_place: Callable[[str], Place], tmp_path: Path) -> None:
    here = new_place("sqlite")
    fill(here)
    file = here.back_up()
    nothing = Place(replace(here.settings, database=f"sqlite:///{tmp_path / 'new.db'}"))
    empty = new_place("postgresql")
    with store.make_engine(empty.url).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))

    for there in (nothing, empty):
        assert there.restore(file).kept is None
        assert there.everything()["orders"] == here.everything()["orders"]


def test_a_database_that_cannot_be_read_is_renamed(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    fill(place)
    file = place.back_up()
    path = Path(place.url.removeprefix("sqlite:///"))
    path.write_bytes(b"eaten by a broken disk" * 1000)
    Path(f"{path}-wal").write_bytes(b"what was left")

    assert backup.look(place.settings, file, LATER).damaged
    kept = place.restore(file).kept

    assert kept == Path(f"{path}.damaged-20260615-210000")
    assert kept.read_bytes().startswith(b"eaten")
    assert Path(f"{kept}-wal").read_bytes() == b"what was left"
    assert len(place.rows(Message)) == ROWS


def test_a_restore_gives_up_when_another_process_writes_to_the_file(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    fill(place)
    file = place.back_up()
    wrote: list[str] = []

    def write(what: str, _done: int, _total: int) -> None:
        if what == "copying" and not wrote:
            wrote.append(what)
            place.add(Contact, {"kind": "email", "address": None, "address_hash": "later"})

    with pytest.raises(DatabaseError, match="another process writes"):
        place.restore(file, progress=write)

    assert wrote
    assert len(place.rows(Contact)) == ROWS + 1


def test_nobody_can_write_to_postgresql_while_its_rows_are_replaced(new_place: Callable[[str], Place]) -> None:
    place = new_place("postgresql")
    fill(place)
    file = place.back_up()
    held: list[str] = []

    def write(what: str, _done: int, _total: int) -> None:
        engine = store.make_engine(place.url)
        with engine.connect() as connection:
            connection.execute(text("SET lock_timeout = '1ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                connection.execute(text("UPDATE messages SET priority = 1"))
        engine.dispose()
        held.append(what.split()[0])

    place.restore(file, progress=lambda *all_: write(*all_) if all_[0] != "reading the backup" else None)

    assert set(held) == {"copying", "restoring"}


def test_a_database_that_another_process_holds_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(place)
    file, wanted = place.back_up(), place.everything()
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    monkeypatch.setattr(on_postgresql, "LOCK_SECONDS", 0.01)
    db = place.open()

    with store.write(db) as connection:
        connection.execute(text("UPDATE messages SET priority = 1 WHERE id = 1"))
        with pytest.raises(DatabaseError, match=r"locked|lock timeout"):
            place.restore(file)
        connection.rollback()

    assert place.everything() == wanted


# --- many rows -------------------------------------------------------------------------------------

MANY = 4_000
LONG = "x" * 2_500  # 10 MB of texts in all


def many_imports(place: Place) -> None:
    place.add(Import, *({"started_at": NOW, "finished_at": NOW, "counts": {"x": LONG}} for _ in range(MANY)))


@pytest.mark.parametrize(("source", "target"), [("postgresql", "sqlite"), ("sqlite", "postgresql")])
def test_many_rows_are_never_all_in_memory(
    new_place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    monkeypatch.setattr(on_postgresql, "ROWS", 100)
    here, there = new_place(source), new_place(target)
    many_imports(here)

    tracemalloc.start()
    there.restore(here.back_up())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < MANY * len(LONG) / 2
    db = there.open()
    assert count(db, Import) == MANY


def test_rows_come_from_the_server_as_they_are_asked_for(
    new_place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_postgresql, "ROWS", 100)
    place = new_place("postgresql")
    many_imports(place)
    engine = store.make_engine(place.url)

    seen: list[int] = []

    def cut(what: str, done: int, _total: int) -> None:
        if what == "copying imports":
            seen.append(done)
            with engine.begin() as connection:
                others = "datname = current_database() AND pid <> pg_backend_pid()"
                connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))

    with pytest.raises(DatabaseError, match="cannot be used"):
        place.back_up(progress=cut)

    engine.dispose()
    assert seen == [100]
    assert list((place.settings.workspace / "backups").iterdir()) == []


# --- what is different afterwards ------------------------------------------------------------------

DUE, TO_COME = LATER - timedelta(minutes=1), LATER + timedelta(minutes=1)


def message(place: Place, number: int, status: str, due_at: datetime, **more: Any) -> dict[str, Any]:
    plain = {"id": number, "public_id": f"p{number}", "campaign": "greet", "occasion": str(number), "priority": 0}
    plain |= {"claim": None, "lease_until": None, "look_at": None, "provider_id": None, "blocked_by": None}
    return {**_row(_messages, 1), **plain, "status": status, "due_at": due_at, **more}


@pytest.mark.parametrize(
    ("status", "due_at", "more", "wanted"),
    [
        (Status.PLANNED, DUE, {}, Status.UNKNOWN),
        (Status.PLANNED, LATER, {}, Status.UNKNOWN),
        (Status.PLANNED, TO_COME, {}, Status.PLANNED),
        (Status.PLANNED, TO_COME, {"claim": "t", "lease_until": NOW}, Status.PLANNED),
        (
            Status.PLANNED,
            DUE,
            {"ready_at": TO_COME, "blocked_by": "hours"},
            Status.UNKNOWN,
        ),  # deferred; it may wait less
        (
            Status.PLANNED,
            DUE,
            {"channel": "call", "blocked_by": "person"},
            Status.UNKNOWN,
        ),  # the person may have called
        (Status.SENDING, DUE, {"claim": "t", "lease_until": TO_COME}, Status.UNKNOWN),
        (Status.UNKNOWN, DUE, {"claim": "t"}, Status.UNKNOWN),
        (Status.SENT, DUE, {}, Status.SENT),
        (Status.FAILED, DUE, {}, Status.FAILED),
        (Status.HELD, DUE, {}, Status.HELD),
        (Status.SKIPPED, DUE, {}, Status.SKIPPED),
        (Status.EXPIRED, DUE, {}, Status.EXPIRED),
        (Status.CANCELLED, DUE, {}, Status.CANCELLED),
    ],
)
def test_a_message_that_may_have_left_since_the_backup_is_in_doubt(
    new_place: Callable[[str], Place], status: Status, due_at: datetime, more: dict[str, Any], wanted: Status
) -> None:
    place = new_place("sqlite")
    place.add(Message, message(place, 1, status, due_at, **more))

    after = place.restore(place.back_up()).after

    [row] = place.rows(Message)
    assert row.status == wanted
    assert (row.claim, row.lease_until) == (None, None)
    assert row.look_at == (LATER if wanted is Status.UNKNOWN else None)
    turned = wanted is Status.UNKNOWN and status is not Status.UNKNOWN
    assert ("after the backup" in row.detail) is turned
    assert after.doubtful == ({"greet": 1} if turned else {})
    assert (row.contact_id, row.sent_at, row.channel) == tuple(
        message(place, 1, status, due_at, **more)[name] for name in ("contact_id", "sent_at", "channel")
    )


def test_one_in_doubt_keeps_the_look_that_it_has(new_place: Callable[[str], Place]) -> None:
    place = new_place("sqlite")
    place.add(Message, message(place, 1, Status.UNKNOWN, DUE, look_at=NOW))

    place.restore(place.back_up())

    assert [row.look_at for row in place.rows(Message)] == [NOW]


def test_a_code_that_may_have_been_given_out_since_the_backup_goes_to_nobody_else(place: Place) -> None:
    blank = {"offer": "back", "uses": 1, "shareable": False, "used": 0, "made_at": NOW, "reason": ""}
    codes = [
        {**blank, "id": n, "key": f"K{n}", "code": f"k{n}", "status": status, "customer_id": owner}
        for n, (status, owner) in enumerate([("made", None), ("live", None), ("issued", 7), ("redeemed", 7)], 1)
    ]
    place.add(Coupon, *codes)

    restored = place.restore(place.back_up())

    rows = place.rows(Coupon)
    assert restored.after.void_codes == {"back": 2}
    assert [row.status for row in rows] == ["void", "void", "issued", "redeemed"]
    assert [row.voided_at for row in rows] == [LATER, LATER, None, None]
    assert "given out after the backup" in rows[0].reason


def test_every_campaign_is_paused_and_waits_for_a_person(place: Place) -> None:
    state = _row(_states, 1) | {"paused_at": None, "paused_reason": ""}
    asleep = {**state, "name": "asleep", "paused_at": NOW, "paused_reason": "paused by hand"}
    place.add(CampaignState, {**state, "name": "greet"}, {**state, "name": dispatcher.MANUAL}, asleep)

    restored = place.restore(place.back_up())

    states = {row.name: row for row in place.rows(CampaignState)}
    assert restored.after.paused == ("greet", dispatcher.MANUAL)
    assert states["asleep"].paused_reason == "paused by hand"
    for name in restored.after.paused:
        assert states[name].paused_at == LATER
        assert states[name].paused_reason.startswith("restored from the backup of 2026-06-15 15:00 UTC")
    db = place.open()
    assert releases.resume(db, "greet", LATER) == ["greet"]


def test_a_restore_is_one_alarm_whatever_it_pauses(place: Place) -> None:
    """Not what had been paused before, nor what is paused later."""
    state = _row(_states, 1) | {"paused_at": None, "paused_reason": ""}
    before = {**state, "name": "before", "paused_at": NOW, "paused_reason": "volume brake: too many"}
    place.add(CampaignState, *({**state, "name": name} for name in ("greet", "thank", dispatcher.MANUAL)), before)
    place.restore(place.back_up())
    db = place.open()

    first = alerts.watch(db, place.settings, LATER + timedelta(minutes=1))
    told = {row.name: row.text for row in shop.rows_of(db, Alarm) if not row.name.startswith(".")}
    for name in ("greet", "thank"):
        releases.resume(db, name, LATER + timedelta(minutes=2))
    partly = alerts.watch(db, place.settings, LATER + timedelta(minutes=3))
    releases.resume(db, dispatcher.MANUAL, LATER + timedelta(minutes=4))
    last = alerts.watch(db, place.settings, LATER + timedelta(minutes=5))

    assert set(told) == {"restored", "paused:before"}
    assert "todo quedó en pausa" in told["restored"]
    assert told["restored"].endswith(" 3.")
    assert [(one.begun, one.over) for one in (first, partly, last)] == [(2, 0), (0, 0), (0, 1)]


def test_the_database_remembers_of_when_it_is_and_refuses_an_earlier_now(place: Place) -> None:
    fill(place)
    place.restore(place.back_up())

    [row] = place.rows(Installation)
    assert (row.backup_at, row.restored_at, row.newest, row.host) == (NOW, LATER, LATER, "machine:/shop")
    db = place.open()
    with pytest.raises(ClockError), store.write(db) as connection:
        store.seen(connection, NOW + timedelta(hours=1))


# --- the same ids, and nothing twice ---------------------------------------------------------------

GREET = """
title: Thank you
purpose: service
trigger: {event: order.placed}
steps:
  - {id: thanks, after: 1 hour, channel: sms, template: m}
  - {id: more, after: 1 day, channel: sms, template: m}
"""


def test_the_same_key_gives_the_same_id_after_a_restore_and_what_left_is_not_sent_again(place: Place) -> None:
    settings = replace(shop.shop_settings(place.settings.workspace), database=place.url, secret=SECRET)
    db = place.open()
    begin = NOW - timedelta(hours=3)
    shop.publish(db, settings, begin, greet=GREET)
    shop.feed(db, settings, begin, customers=[shop.customer(n) for n in range(5)])
    orders = [shop.order(n, f"c{n}", begin + timedelta(minutes=1 + 20 * (n // 2))) for n in range(5)]
    shop.feed(db, settings, begin + timedelta(minutes=30), orders=orders[:4])
    planner.plan(db, settings, begin + timedelta(hours=1, minutes=2))
    file = place.back_up(begin + timedelta(hours=1, minutes=3))
    assert len(ids(db)) == 2  # the others are due later, and the last one is not known yet

    # life goes on, and is then forgotten
    shop.feed(db, settings, NOW, orders=orders)
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)
    before, left = ids(db), sorted((settings.workspace / "outbox").iterdir())
    assert (len(before), len(left)) == (5, 5)
    place.restore(file)

    # a person looks, and lets it go on
    releases.resume(db, None, LATER)
    shop.feed(db, settings, LATER, orders=orders)
    planner.plan(db, settings, LATER)
    dispatcher.dispatch(db, settings, LATER)
    after = ids(db)
    assert [row.status for row in shop.rows_of(db, Message)] == [Status.UNKNOWN] * 5
    assert after == before
    assert sorted((settings.workspace / "outbox").iterdir()) == left

    tomorrow = LATER + timedelta(days=1)
    planner.plan(db, settings, tomorrow)
    dispatcher.dispatch(db, settings, tomorrow)
    assert {row.status for row in shop.rows_of(db, Message, step="more")} == {Status.SENT}
    assert len(list((settings.workspace / "outbox").iterdir())) == 10


def test_whoever_got_a_message_after_the_backup_still_finds_the_way_out_behind_its_links(place: Place) -> None:
    settings = replace(shop.shop_settings(place.settings.workspace), database=place.url, secret=SECRET)
    db = place.open()
    begin = NOW - timedelta(hours=3)
    shop.publish(db, settings, begin, greet=GREET)
    orders = [shop.order(n, f"c{n}", begin + timedelta(minutes=1)) for n in range(4)]
    shop.feed(db, settings, begin, customers=[shop.customer(n) for n in range(4)])
    shop.feed(db, settings, begin + timedelta(minutes=2), orders=orders[:2])
    planner.plan(db, settings, begin + timedelta(hours=1, minutes=2))
    file = place.back_up(begin + timedelta(hours=1, minutes=3))
    shop.feed(db, settings, NOW, orders=orders)
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)
    left = ids(db)
    place.restore(file)

    def link(customer: str, kind: str) -> str:
        return store.link_token(SECRET.encode(), left[customer], kind)

    for customer in ("c0", "c1"):  # the backup has their messages as planned
        shown = inbox.person(db, settings, link(customer, "preferences"))
        assert shown is not None
        assert not shown.opted_out
        person = inbox.unsubscribe(db, settings, LATER, link(customer, "unsubscribe"), "page")
        assert person is not None
        assert person.opted_out
    assert inbox.person(db, settings, link("c2", "preferences")) is None  # nobody knows of it yet

    releases.resume(db, None, LATER)
    shop.feed(db, settings, LATER, orders=orders)
    planner.plan(db, settings, LATER)
    dispatcher.dispatch(db, settings, LATER)
    person = inbox.unsubscribe(db, settings, LATER, link("c2", "unsubscribe"), "one-click")
    assert person is not None
    assert person.opted_out

    # what a person lets go again may be there already, with other links than the new one has
    resolve(db, left["c3"], Decision.RESEND, LATER, settings=settings)
    dispatcher.dispatch(db, settings, LATER)
    assert [row.status for row in shop.rows_of(db, Message, public_id=left["c3"])] == [Status.SENT]
    assert inbox.person(db, settings, link("c3", "preferences")) is not None


def ids(db: Database) -> dict[str, str]:
    """The message ids of the first step, by customer."""
    names = {row.id: row.external_id for row in shop.rows_of(db, Customer)}
    return {names[row.customer_id]: row.public_id for row in shop.rows_of(db, Message, step="thanks")}


# --- opt-outs --------------------------------------------------------------------------------------


def contact(number: int, kind: str = "email") -> dict[str, Any]:
    address = f"c{number}@example.com" if kind == "email" else f"+5255410000{number:02}"
    hashed = store.address_hash(SECRET.encode(), kind, address)
    return {"id": number, "kind": kind, "address": address, "address_hash": hashed}


def entry(number: int, **more: Any) -> dict[str, Any]:
    of = contact(number)
    plain = {"address_hash": of["address_hash"], "kind": "email", "scope": Scope.CONTACT, "channel": "email"}
    return {**plain, "source": "reply", "at": NOW + timedelta(hours=1), "lifted_at": None, **more}


def line(number: int, **more: Any) -> dict[str, Any]:
    plain = {"contact_id": number, "channel": "email", "status": "revoked", "at": NOW + timedelta(hours=1)}
    said = {"by": "recipient", "basis": "consent", "source": "reply", "words": "BAJA", "recorded_at": NOW}
    return {**plain, **said, **more}


def test_what_the_replaced_database_knows_of_opt_outs_comes_along(place: Place) -> None:
    """Also of contacts that the backup does not know; what was allowed in the meantime does not."""
    place.add(Contact, contact(1), contact(2))
    place.add(Suppression, entry(2, at=NOW - timedelta(days=9), lifted_at=NOW - timedelta(days=1)))
    file = place.back_up()
    place.add(Contact, contact(3))
    place.add(Suppression, entry(1), entry(3), entry(1, scope=Scope.ADDRESS, lifted_at=NOW))
    db = place.open()
    with store.write(db) as connection:
        again = update(table(Suppression)).where(table(Suppression).c.address_hash == contact(2)["address_hash"])
        connection.execute(again.values(at=NOW + timedelta(hours=2), lifted_at=None))
    place.add(Consent, line(1), line(3), line(1, status="granted"), line(2, by="shop"))
    db.engine.dispose()
    place.add(Customer, _row(table(Customer), 1))

    restored = place.restore(file)

    blocked = {row.address_hash: (row.scope, row.lifted_at) for row in place.rows(Suppression)}
    assert restored.after.opt_outs == 3
    assert blocked == {contact(n)["address_hash"]: (Scope.CONTACT, None) for n in (1, 2, 3)}
    hashes = {row.id: row.address_hash for row in place.rows(Contact)}
    revoked = {(hashes[row.contact_id], row.status, row.words) for row in place.rows(Consent)}
    assert revoked == {(contact(n)["address_hash"], "revoked", "BAJA") for n in (1, 3)}


def test_a_no_that_staff_recorded_comes_along_and_is_counted(place: Place) -> None:
    place.add(Contact, contact(1, "phone"))
    place.add(Customer, _row(table(Customer), 1))
    place.add(Consent, line(1, channel="sms", status="granted", at=NOW - timedelta(days=9), by="shop"))
    file = place.back_up()
    said = line(1, channel="sms", by="person", source="command line", words="no more, on the phone")
    place.add(Consent, said, {**said, "channel": "whatsapp"})

    restored = place.restore(file)

    assert restored.after.opt_outs == 1  # so many addresses, however much was said of each
    with place.looked_into() as db, store.read(db) as connection:
        lines = ledger.in_force(connection, [1])
    assert lines[1, "sms"] == ledger.Line("revoked", said["at"], "person", "command line", "no more, on the phone")
    assert lines[1, "whatsapp"].status == "revoked"


def test_opt_outs_of_a_database_with_another_secret_do_not_come_along(
    new_place: Callable[[str], Place],
) -> None:
    here, there = new_place("sqlite"), new_place("sqlite")
    file = here.back_up()
    there.add(Customer, _row(table(Customer), 1))
    there.add(Suppression, entry(1))
    db = there.open()
    with store.write(db) as connection:
        connection.execute(update(_installation).values(secret_check="of another"))
    db.engine.dispose()

    assert there.restore(file).after.opt_outs == 0
    assert there.rows(Suppression) == []


class Listing(Silent):
    """A provider that lists opt-outs, as told by the test, and may fail after them."""

    told: dict[str, list[OptOut]] = {}  # noqa: RUF012  by channel
    wrong: dict[str, Exception] = {}  # noqa: RUF012
    since: list[datetime] = []  # noqa: RUF012

    def __init__(self, _settings: Settings, name: str) -> None:
        self.name = name

    def opt_outs(self, since: datetime) -> Iterator[OptOut]:
        self.since.append(since)
        yield from self.told.get(self.name, ())
        if error := self.wrong.get(self.name):
            raise error


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> type[Listing]:
    """The outbox lists opt-outs."""
    monkeypatch.setitem(channels.CHANNELS, "outbox", "tests.test_backup.Listing")
    for name, empty in (("told", {}), ("wrong", {}), ("since", [])):
        monkeypatch.setattr(Listing, name, empty)
    return Listing


def asked(place: Place, *names: str) -> Settings:
    configured = {name: ChannelSettings("outbox") for name in names} | {"call": ChannelSettings("staff")}
    return replace(place.settings, channels=configured)


def test_opt_outs_are_read_again_from_the_providers(place: Place, listing: type[Listing]) -> None:
    place.add(Contact, contact(1), contact(2), contact(3), contact(4, "phone"))
    at = NOW + timedelta(hours=2)
    listing.told = {
        "email": [
            OptOut("C1@Example.com", "email", at, "opted_out"),
            OptOut("c2@example.com", "email", at, "complained"),
            OptOut("c3@example.com", "email", at, "bounced"),
            OptOut("stranger@example.com", "email", at, "opted_out"),
            OptOut("not an address", "email", at, "opted_out"),
        ],
        "sms": [OptOut("+52 1 55 4100 0004", "phone", at, "opted_out")],
    }
    settings = asked(place, "email", "sms")
    db = place.open()

    heard = backup.read_again(db, settings, NOW, LATER)
    again = backup.read_again(db, settings, NOW, LATER)

    assert [(one.channel, one.listed, one.new, one.unreadable, one.error) for one in heard] == [
        ("email", 5, 4, 1, ""),
        ("sms", 1, 1, 0, ""),
    ]
    assert [one.new for one in again] == [0, 0]
    assert listing.since == [NOW] * 4
    stranger = store.address_hash(db.secret, "email", "stranger@example.com")
    assert {(row.address_hash, row.scope, row.channel, row.at, row.source) for row in place.rows(Suppression)} == {
        (contact(1)["address_hash"], "contact", "email", at, "restore: outbox"),
        (contact(2)["address_hash"], "contact", "email", at, "restore: outbox"),
        (contact(3)["address_hash"], "address", "email", at, "restore: outbox"),
        (stranger, "contact", "email", at, "restore: outbox"),
        (contact(4, "phone")["address_hash"], "contact", "sms", at, "restore: outbox"),
    }
    assert [(row.contact_id, row.channel, row.status, row.by, row.at) for row in place.rows(Consent)] == [
        *((n, channel, "revoked", "recipient", at) for n, channel in ((1, "email"), (2, "email"), (4, "sms")))
    ]


def test_what_sendgrid_and_twilio_list_is_taken_over_by_the_restore(place: Place) -> None:
    said = NOW + timedelta(hours=1)
    place.add(Contact, contact(1), contact(4, "phone"))
    place.restore(place.back_up())
    with FakeSendGrid() as sendgrid, FakeTwilio() as twilio:
        sendgrid.suppress("unsubscribes", "c1@example.com", said)
        sendgrid.suppress("bounces", "c2@example.com", said, reason="550 5.1.1 no", status="5.1.1")
        twilio.put(by_twilio.SENDER, "Baja", sender="+525541000004", at=said, inbound=True)
        configured = {
            "email": ChannelSettings("sendgrid", "Tienda <hola@tienda.example>", {"base_url": sendgrid.url}),
            **by_twilio.settings(twilio).channels,
        }
        settings = replace(
            place.settings, channels=configured, secrets={**sendgrid.environment, **by_twilio.settings(twilio).secrets}
        )
        db = place.open()
        since = backup.read_since(db)
        assert since is not None

        heard = backup.read_again(db, settings, since, LATER)

    assert [(one.channel, one.listed, one.new, one.error) for one in heard] == [("email", 2, 2, ""), ("sms", 1, 1, "")]
    assert {(row.address_hash, row.scope, row.channel, row.at) for row in place.rows(Suppression)} == {
        (contact(1)["address_hash"], "contact", "email", said),
        (contact(2)["address_hash"], "address", "email", said),
        (contact(4, "phone")["address_hash"], "contact", "sms", said),
    }
    assert [(row.contact_id, row.channel, row.source) for row in place.rows(Consent)] == [
        (1, "email", "restore: sendgrid"),
        (4, "sms", "restore: twilio"),
    ]


def test_an_entry_that_a_person_lifted_later_stays_lifted(place: Place, listing: type[Listing]) -> None:
    said = NOW + timedelta(hours=1)
    place.add(Contact, contact(1), contact(2))
    place.add(Suppression, entry(1, at=NOW, lifted_at=said - timedelta(minutes=1)), entry(2, at=NOW, lifted_at=said))
    listing.told = {"email": [OptOut(f"c{n}@example.com", "email", said, "opted_out") for n in (1, 2)]}

    heard = backup.read_again(place.open(), asked(place, "email"), NOW, LATER)

    lifted = {row.address_hash: row.lifted_at for row in place.rows(Suppression)}
    assert heard[0].new == 1
    assert lifted == {contact(1)["address_hash"]: None, contact(2)["address_hash"]: said}


def test_an_opt_out_takes_the_lock_of_its_contact_before_it_is_written(
    new_place: Callable[[str], Place], listing: type[Listing]
) -> None:
    """As a sender does before its last look: whichever commits first wins."""
    place = new_place("postgresql")
    place.add(Contact, contact(1))
    listing.told = {"email": [OptOut("c1@example.com", "email", NOW, "opted_out")]}
    db = place.open()
    said: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *call: said.append(" ".join(call[2].split())))

    backup.read_again(db, asked(place, "email"), NOW, LATER)

    held = next(n for n, one in enumerate(said) if "FROM contacts" in one and one.endswith("FOR UPDATE"))
    assert held < next(n for n, one in enumerate(said) if one.startswith("INSERT INTO suppressions"))


def test_many_opt_outs_are_written_some_at_a_time(
    place: Place, listing: type[Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup.opt_outs, "BATCH", 3)
    listing.told = {"email": [OptOut(f"s{n}@example.com", "email", NOW, "opted_out") for n in range(7)]}

    heard = backup.read_again(place.open(), asked(place, "email"), NOW, LATER)

    assert (heard[0].listed, heard[0].new, len(place.rows(Suppression))) == (7, 7, 7)


def test_a_list_that_breaks_off_is_said_and_what_came_of_it_is_kept(place: Place, listing: type[Listing]) -> None:
    place.add(CampaignState, _row(_states, 1) | {"name": "greet", "paused_at": None, "paused_reason": ""})
    place.restore(place.back_up())
    listing.told = {"email": [OptOut("s@example.com", "email", NOW, "opted_out")]}
    listing.wrong = {"email": ChannelError("the list ended early"), "sms": RuntimeError("c1@example.com")}
    db, settings = place.open(), asked(place, "email", "sms")
    since = backup.read_since(db)
    assert since == NOW - timedelta(days=1)

    heard = backup.read_again(db, settings, since, LATER)

    assert [one.error for one in heard] == ["the list ended early", "the provider cannot be asked (RuntimeError)"]
    assert [one.new for one in heard] == [1, 0]
    assert len(place.rows(Suppression)) == 1
    assert place.rows(CampaignState)[0].paused_reason == aftermath.paused_reason(NOW, heard=False)

    # from too late on, and then in full
    listing.wrong = {}
    backup.read_again(db, settings, NOW + timedelta(hours=1), LATER)
    assert place.rows(CampaignState)[0].paused_reason == aftermath.paused_reason(NOW, heard=False)
    backup.read_again(db, settings, since, LATER)
    [state] = place.rows(CampaignState)
    assert state.paused_reason == aftermath.paused_reason(NOW, heard=True)
    assert state.paused_at == LATER


# --- the command line ------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTREACH_SECRET", SECRET)
    (tmp_path / "outreach.yaml").write_text(
        "business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN}\n", encoding="utf-8"
    )
    place = Place(
        Settings(
            tmp_path,
            Business("Tienda Luna", "America/Mexico_City", "MXN"),
            database=f"sqlite:///{tmp_path / 'outreach.db'}",
            secret=SECRET,
        )
    )
    place.add(Message, message(place, 1, Status.PLANNED, DUE))
    place.add(CampaignState, _row(_states, 1) | {"name": "greet", "paused_at": None, "paused_reason": ""})
    place.add(Customer, _row(table(Customer), 1))
    return tmp_path


def test_backup_and_restore_from_the_command_line(run: Run, workspace: Path) -> None:
    made = run("db", "backup", "--now", NOW.isoformat())
    assert made.code == 0
    assert made.out.startswith("backups/outreach-backup-20260615-150000.sqlite: 1 customers, 0 orders, 1 messages")
    assert "Keep OUTREACH_SECRET" in made.out
    again = run("db", "backup", "--now", NOW.isoformat())
    assert (again.code, "--force" in again.err) == (1, True)

    file = "backups/outreach-backup-20260615-150000.sqlite"
    unasked = run("db", "restore", file, "--now", LATER.isoformat())
    assert unasked.code == 1
    assert "--yes" in unasked.err
    assert not list(workspace.glob("backups/outreach-replaced*"))

    done = run("db", "restore", file, "--yes", "--now", LATER.isoformat())
    assert done.code == 0
    assert "What was there is kept: backups/outreach-replaced-20260615-210000.sqlite" in done.out
    assert "greet" in done.out
    assert "outreach tick reconcile" in done.out
    status = run("status", "--json").json
    assert status["messages"] == {"unknown": 1}
    assert "look at what is in doubt" in status["paused"][0]["reason"]


def test_what_a_restore_keeps_and_what_it_makes_void_is_printed_with_what_to_do_next(run: Run, workspace: Path) -> None:
    place = Place(
        Settings(workspace, Business("Luna", "UTC", "MXN"), database=f"sqlite:///{workspace / 'outreach.db'}")
    )
    blank = {"offer": "back", "uses": 1, "shareable": False, "used": 0, "made_at": NOW, "reason": "", "status": "live"}
    place.add(Coupon, *({**blank, "key": f"K{n}", "code": f"k{n}"} for n in range(1_200)))
    place.add(Contact, contact(1))
    run("db", "backup", "safe.sqlite", "--now", NOW.isoformat())
    place.add(Consent, line(1, by="person"))

    done = run("db", "restore", "safe.sqlite", "--yes", "--now", LATER.isoformat())
    plain = run("db", "restore", "safe.sqlite", "--yes", "--json", "--now", LATER.isoformat()).json

    words = [" ".join(said.split()) for said in done.out.splitlines()]
    assert "back 1,200" in words
    assert any(said.startswith("outreach coupons make OFFER makes new codes") for said in words)
    assert any("a revoked consent" in said and said.endswith(" 1") for said in words)
    assert (plain["void_codes"], plain["opt_outs_kept"]) == ({"back": 1_200}, 1)


def test_nothing_is_printed_where_a_program_reads_when_nobody_can_be_asked(run: Run, workspace: Path) -> None:
    run("db", "backup", "safe.sqlite", "--now", NOW.isoformat())

    done = run("db", "restore", "safe.sqlite", "--json", "--now", LATER.isoformat())

    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("Nothing was changed.\n")
    assert not list(workspace.glob("backups/outreach-replaced*"))


def test_backup_and_restore_as_json(run: Run, workspace: Path) -> None:
    made = run("db", "backup", "safe.sqlite", "--json", "--now", NOW.isoformat()).json
    done = run("db", "restore", "safe.sqlite", "--yes", "--json", "--now", LATER.isoformat()).json

    assert (made["file"], made["database"], made["rows"]["messages"]) == ("safe.sqlite", "sqlite", 1)
    assert done["doubtful"] == {"greet": 1}
    assert done["paused"] == ["greet"]
    assert done["backup_at"] == NOW.isoformat()
    assert {one["channel"] for one in done["opt_outs"]} == {"email", "sms", "whatsapp"}


def test_opt_outs_that_cannot_be_read_are_one_line_that_says_what_to_do(
    run: Run, workspace: Path, listing: type[Listing]
) -> None:
    run("db", "backup", "safe.sqlite", "--now", NOW.isoformat())
    listing.wrong = {"sms": ChannelError("the list ended early")}

    done = run("db", "restore", "safe.sqlite", "--yes", "--now", LATER.isoformat())

    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "sms: opt-outs could not all be read again: the list ended early" in done.err
    assert "outreach db opt-outs" in done.err
    assert run("status", "--json").json["messages"] == {"unknown": 1}
    assert run("db", "opt-outs").code == 1
    listing.wrong = {}
    assert run("db", "opt-outs").code == 0


def test_opt_outs_of_a_database_that_was_never_restored_need_a_time(
    run: Run, workspace: Path, listing: type[Listing]
) -> None:
    assert "--since" in run("db", "opt-outs").err
    assert run("db", "opt-outs", "--since", "yesterday").code == 2
    assert run("db", "opt-outs", "--since", "2026-06-01").code == 0
    assert set(listing.since) == {datetime(2026, 6, 1, 6, tzinfo=UTC)}


def test_json_of_what_happened_can_be_read(run: Run, workspace: Path, listing: type[Listing]) -> None:
    printed = run("db", "opt-outs", "--since", "2026-06-01", "--json").out

    assert {one["channel"]: one["listed"] for one in json.loads(printed)} == {"email": 0, "sms": 0, "whatsapp": 0}
    assert cli.VERBS["db"].module == "database"
