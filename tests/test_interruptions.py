"""
What may happen to a dispatcher in mid-chunk, short of being killed: suspended, robbed of its lease, its
clock, its database or its disk. Whatever it is, nobody gets a message twice and none is lost.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from outreach import channels, clocks, dispatcher, planner, releases, store
from outreach import settings as settings_module
from outreach.channels import Outcome, Outgoing, Receipt, Silent
from outreach.channels.outbox import Outbox
from outreach.dispatcher import claiming, committing, heartbeat, tick
from outreach.errors import DatabaseError
from outreach.models import Installation, Message, Status, table
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.killing.processes import start
from tests.shop import customer, feed, files_of, publish, rows_of, shop_settings

ROOT = Path(__file__).parents[1]
HELLO = """
    title: Hello
    trigger: {event: customer.created}
    steps: [{id: hello, after: 0 minutes, channel: email, template: m}]
"""
LATER = NOW + timedelta(hours=1)


@dataclass
class Provider(Silent):
    """Accepts everything; `meanwhile` is called as each message reaches it."""

    meanwhile: Callable[[int], None]

    def __post_init__(self) -> None:
        self.got: list[str] = []

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for message in batch:
            self.got.append(message.public_id)
            self.meanwhile(len(self.got))
            yield Receipt(message.public_id, Outcome.ACCEPTED, f"p-{message.public_id}")


def planned(db: Database, folder: Path, count: int) -> Settings:
    """A shop with so many messages that are due."""
    settings = shop_settings(folder)
    publish(db, settings, NOW, hello=HELLO)
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(count)])
    planner.plan(db, settings, NOW)
    return settings


def taking(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[int], None] = lambda _number: None) -> Provider:
    provider = Provider(meanwhile)
    monkeypatch.setattr(channels, "open_channel", lambda _name, _settings: provider)
    return provider


def statuses(db: Database) -> Counter[str]:
    return Counter(row.status for row in rows_of(db, Message))


# --- the lease -------------------------------------------------------------------------------------


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A heart that beats all the time; set after each beat."""
    beat, renew = threading.Event(), heartbeat.renew

    def renewed(*arguments: Any) -> bool:
        ours = renew(*arguments)
        beat.set()
        return ours

    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "renew", renewed)
    return beat


def until_it_beats(beat: threading.Event, times: int) -> None:
    for _ in range(times):
        beat.clear()
        assert beat.wait(30)


def test_a_chunk_that_takes_long_keeps_its_lease_as_long_as_its_claimer_lives(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: threading.Event
) -> None:
    settings = planned(db, tmp_path, 2)
    seen = []

    def slow(_number: int) -> None:
        with store.write(db) as connection:
            connection.execute(update(table(Message)).values(lease_until=NOW - timedelta(seconds=1)))
        until_it_beats(beats, 2)  # one may have begun before
        seen.append(claiming.release_expired(db, NOW))

    provider = taking(monkeypatch, slow)

    assert dispatcher.dispatch(db, settings, NOW).sent == 2
    assert (seen, len(provider.got)) == ([0, 0], 2)


def test_who_lost_a_chunk_hands_nothing_more_of_it_over_and_still_records_what_it_had(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: threading.Event
) -> None:
    settings = planned(db, tmp_path, 3)

    def robbed(_number: int) -> None:
        if len(provider.got) == 1:
            while statuses(db)[Status.UNKNOWN] < 3:  # what the heart has in hand is stepped over
                claiming.release_expired(db, LATER)
            until_it_beats(beats, 2)

    provider = taking(monkeypatch, robbed)
    stop = iter([False, True])

    counts = dispatcher.dispatch(db, settings, NOW, stop=lambda: next(stop))

    assert (counts.sent, counts.by_reason, len(provider.got)) == (1, {"retry": 2}, 1)
    assert statuses(db) == {Status.SENT: 1, Status.PLANNED: 2}
    assert dispatcher.dispatch(db, settings, LATER).sent == 2


def test_a_heart_whose_database_is_away_beats_on(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: threading.Event
) -> None:
    settings = planned(db, tmp_path, 1)
    renew, away = heartbeat.renew, iter([True, True, True])

    def away_at_first(*arguments: Any) -> bool:
        if next(away, False):
            raise DatabaseError("the database cannot be used: it restarts")
        return renew(*arguments)

    monkeypatch.setattr(heartbeat, "renew", away_at_first)
    taking(monkeypatch, lambda _number: until_it_beats(beats, 2))

    assert dispatcher.dispatch(db, settings, NOW).sent == 1


def test_two_who_both_believe_they_own_a_message_hand_it_over_once(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 3)
    provider = taking(monkeypatch)
    robbed = iter([True])
    commit = committing.commit

    def late(database: Database, chunk: Any, rows: Any, tally: Any) -> Any:
        """Its lease ran out before it came to commit, and another claimed and sent."""
        if next(robbed, False):
            assert dispatcher.dispatch(db, settings, LATER).sent == 3
        return commit(database, chunk, rows, tally)

    monkeypatch.setattr(committing, "commit", late)

    assert dispatcher.dispatch(db, settings, NOW).sent == 0
    assert (len(provider.got), statuses(db)) == (3, {Status.SENT: 3})


# --- clocks and sleep ------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 31.0, -6.0])
def test_a_clock_that_jumps_ends_the_hand_over_and_what_had_not_left_goes_later(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    settings = planned(db, tmp_path, 4)
    real, ahead = clocks.read, [0.0]
    monkeypatch.setattr(clocks, "read", lambda: (real()[0] + ahead[0], real()[1]))

    def jumps(number: int) -> None:
        ahead[0] = jump if number == 2 else ahead[0]

    provider = taking(monkeypatch, jumps)
    stop = iter([False, True])

    counts = dispatcher.dispatch(db, settings, NOW, stop=lambda: next(stop))

    assert (counts.sent, counts.by_reason) == (2, {"retry": 2})
    assert dispatcher.dispatch(db, settings, LATER).sent == 2
    assert max(Counter(provider.got).values()) == 1


def test_who_is_stopped_between_claim_and_commit_hands_nothing_over(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 2)
    provider = taking(monkeypatch)
    real, commit, ahead = clocks.read, committing.commit, [0.0]
    monkeypatch.setattr(clocks, "read", lambda: tuple(at + ahead[0] for at in real()))

    def late(*arguments: Any) -> Any:
        ahead[0] = 3600.0
        return commit(*arguments)

    stop = iter([False, True])
    with monkeypatch.context() as patched:
        patched.setattr(committing, "commit", late)
        counts = dispatcher.dispatch(db, settings, NOW, stop=lambda: next(stop))

    assert (counts.sent, counts.by_reason, provider.got) == (0, {"retry": 2}, [])
    assert dispatcher.dispatch(db, settings, LATER).sent == 2


def test_a_tick_in_which_the_machine_slept_takes_its_next_lease_from_the_time_it_is(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 2)
    real, ahead = clocks.read, [0.0]
    monkeypatch.setattr(clocks, "read", lambda: tuple(at + ahead[0] for at in real()))
    leases: list[datetime] = []

    def sleeps(number: int) -> None:
        leases.extend(row.lease_until for row in rows_of(db, Message, status=Status.SENDING))
        ahead[0] = 3600.0 if number == 1 else ahead[0]

    taking(monkeypatch, sleeps)

    assert dispatcher.dispatch(db, settings, NOW, chunk=1).sent == 2
    assert leases[0] < NOW + timedelta(minutes=3)
    assert leases[1] > NOW + timedelta(hours=1, minutes=1)


def test_a_clock_put_right_by_a_moment_stops_nothing(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 2)
    real, ahead = clocks.read, [0.0]
    monkeypatch.setattr(clocks, "read", lambda: (real()[0] + ahead[0], real()[1]))
    taking(monkeypatch, lambda _number: ahead.__setitem__(0, -2.0))

    assert dispatcher.dispatch(db, settings, NOW).sent == 2


class Suspended(Outbox):
    """Suspends its own process once the first message is handed over, as a laptop's lid does."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        left = iter(batch)
        yield from super().send([next(left)])
        os.kill(os.getpid(), signal.SIGSTOP)
        yield from super().send(left)


def suspended(url: str, workspace: str) -> None:
    """A dispatcher whose clocks are ahead by the seconds that the file `slept` names."""
    real, slept = clocks.read, Path(workspace, "slept")
    setattr(  # noqa: B010  the type checker would not have it
        clocks, "read", lambda: tuple(at + (float(slept.read_text()) if slept.exists() else 0.0) for at in real())
    )
    channels.CHANNELS["outbox"] = "tests.test_interruptions.Suspended"
    dispatcher.dispatch(store.open_database(url, secret=SECRET), shop_settings(Path(workspace)), NOW, limit=3)


def child(function: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    code = f"import sys; from tests.test_interruptions import {function}; {function}(*sys.argv[1:])"
    command = [*before, sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def apart(folder: Path, function: Callable[..., None], *arguments: str) -> tuple[int | None, str, str]:
    """Do this in a process that is forked and not loaded anew; gives its exit code and what it wrote to 1 and 2."""
    process, pipe = start(_apart, dict(os.environ), folder, function, *arguments)
    process.join(60)
    pipe.close()
    return process.exitcode, (folder / "printed").read_text(), (folder / "complained").read_text()


def _apart(
    _pipe: Connection, environ: dict[str, str], folder: Path, function: Callable[..., None], *arguments: str
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    for number, name in ((1, "printed"), (2, "complained")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    function(*arguments)


def outbox(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "outbox").glob("*.eml"))


def test_a_dispatcher_that_was_suspended_for_an_hour_hands_nothing_more_over(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    settings = planned(db, tmp_path, 3)
    with child("suspended", database_url, str(tmp_path)) as process:
        ended = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_code == os.CLD_STOPPED
        try:
            while_it_sleeps = dispatcher.dispatch(db, settings, LATER)
            in_doubt = statuses(db)
            (tmp_path / "slept").write_text("3600")
        finally:
            process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert (while_it_sleeps.unknown, while_it_sleeps.claimed, in_doubt) == (3, 0, {Status.UNKNOWN: 3})
    assert len(outbox(tmp_path)) == 1
    assert statuses(db) == {Status.SENT: 1, Status.PLANNED: 2}
    assert dispatcher.dispatch(db, settings, LATER).sent == 2
    assert len(outbox(tmp_path)) == 3


# --- the database ------------------------------------------------------------------------------------


def end_every_connection(db: Database) -> None:
    """What a restart of PostgreSQL does to those who use it."""
    with store.read(db) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))


def test_a_postgresql_that_restarts_while_a_chunk_is_in_the_air_loses_no_receipt(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database("postgresql")
    db, other = (store.open_database(url, secret=SECRET) for _ in range(2))
    settings = planned(db, tmp_path, 3)
    provider = taking(monkeypatch, lambda _number: end_every_connection(other))

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.sent, counts.unknown, len(provider.got)) == (3, 0, 3)
    for one in (db, other):
        one.engine.dispose()


def test_a_postgresql_that_restarts_before_a_chunk_is_committed_lets_nothing_leave(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database("postgresql")
    db, other = (store.open_database(url, secret=SECRET) for _ in range(2))
    settings = planned(db, tmp_path, 3)
    provider, written = taking(monkeypatch), committing.write_staying

    def cut_off(*arguments: Any) -> None:
        end_every_connection(other)
        written(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(committing, "write_staying", cut_off)
        with pytest.raises(DatabaseError):
            dispatcher.dispatch(db, settings, NOW)
    assert (provider.got, statuses(db)) == ([], {Status.PLANNED: 3})

    assert dispatcher.dispatch(db, settings, LATER).sent == 3
    for one in (db, other):
        one.engine.dispose()


def locked_at_the_first(lock: sqlite3.Connection) -> Callable[[int], None]:
    def meanwhile(number: int) -> None:
        if number == 1:
            lock.execute("BEGIN IMMEDIATE")

    return meanwhile


def test_a_database_locked_by_another_program_while_a_chunk_is_in_the_air_loses_no_receipt(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database("sqlite")
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    monkeypatch.setattr(tick, "RECORD_AGAIN", (0, 0))
    db = store.open_database(url, secret=SECRET)
    settings = planned(db, tmp_path, 3)
    lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    provider = taking(monkeypatch, locked_at_the_first(lock))
    slept = []

    def let_go(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            lock.execute("ROLLBACK")

    monkeypatch.setattr(time, "sleep", let_go)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.sent, len(provider.got), len(slept)) == (3, 3, 2)
    db.engine.dispose()
    lock.close()


def test_a_database_that_stays_away_leaves_the_chunk_in_doubt_and_it_is_not_sent_again(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database("sqlite")
    monkeypatch.setattr(store, "BUSY_SECONDS", 0)
    monkeypatch.setattr(tick, "RECORD_AGAIN", (0,))
    db = store.open_database(url, secret=SECRET)
    settings = planned(db, tmp_path, 3)
    lock = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    provider = taking(monkeypatch, locked_at_the_first(lock))

    with pytest.raises(DatabaseError, match="locked"):
        dispatcher.dispatch(db, settings, NOW)
    lock.execute("ROLLBACK")
    counts = dispatcher.dispatch(db, settings, LATER)

    assert (counts.unknown, counts.claimed, len(provider.got)) == (3, 0, 3)
    db.engine.dispose()
    lock.close()


# --- the disk ----------------------------------------------------------------------------------------


def without_room(url: str, workspace: str, room: str) -> None:
    """A dispatcher on a disk that takes files of so many bytes and no more."""
    db = store.open_database(url, secret=SECRET)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
    channels.CHANNELS["outbox"] = "tests.test_interruptions.Counted"
    dispatcher.dispatch(db, shop_settings(Path(workspace)), NOW, chunk=10)


class Counted(Outbox):
    """The outbox, which would hide a second hand-over, with a file for every one."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        return super().send(self._counted(message) for message in batch)

    def _counted(self, message: Outgoing) -> Outgoing:
        folder = self.folder.parent / "handed_over"
        folder.mkdir(exist_ok=True)
        (folder / f"{message.public_id}.{os.getpid()}.{len(list(folder.iterdir()))}").touch()
        return message


@pytest.mark.parametrize("pages", [40, 60, 90])
def test_a_disk_that_is_full_in_mid_chunk_loses_no_message_and_sends_none_twice(
    new_database: Callable[[str], str], tmp_path: Path, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database("sqlite")
    db = store.open_database(url, secret=SECRET)
    settings = planned(db, tmp_path, 100)
    db.engine.dispose()  # writes the log back, so that the child's begins empty
    code, _, said = apart(tmp_path, without_room, url, str(tmp_path), str(pages * 4096))
    assert code == 1
    assert "the database cannot be used" in said

    monkeypatch.setitem(channels.CHANNELS, "outbox", "tests.test_interruptions.Counted")
    dispatcher.dispatch(db, settings, LATER)

    handed_over = [path.name[:32] for path in (tmp_path / "handed_over").iterdir()]
    found = {row.public_id: row.status for row in rows_of(db, Message)}
    assert max(Counter(handed_over).values()) == 1
    assert set(found.values()) <= {Status.SENT, Status.UNKNOWN}
    assert list(found.values()).count(Status.UNKNOWN) <= 10
    assert {i for i, status in found.items() if status == Status.SENT} <= set(handed_over)
    db.engine.dispose()


def only_dispatch(url: str, workspace: str) -> None:
    dispatcher.dispatch(store.open_database(url, secret=SECRET), shop_settings(Path(workspace)), NOW, chunk=5)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: it sees what reaches the disk")
def test_what_leaves_is_on_the_disk_before_so_that_a_power_cut_cannot_forget_it(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    url = new_database("sqlite")
    db = store.open_database(url, secret=SECRET)
    planned(db, tmp_path, 20)
    db.engine.dispose()
    trace = tmp_path / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,openat,rename,renameat2,link,linkat"
    with child("only_dispatch", url, str(tmp_path), before=("strace", "-f", "-y", "-o", str(trace), "-e", calls)) as of:
        _, said = of.communicate(timeout=120)
    if of.returncode and "ptrace" in said.lower():
        pytest.skip("this machine does not let processes be traced")

    unsynced, left, syncs = False, 0, 0
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(r"pwrite64\(\d+<[^>]*-wal>", line):
            unsynced = True
        elif re.search(r"f(data)?sync\(\d+<[^>]*-wal>", line):
            unsynced, syncs = False, syncs + 1
        elif ".eml" in line and re.search(r"(rename|link)", line):
            left += 1
            assert not unsynced, line
    assert (left, len(outbox(tmp_path))) == (20, 20)
    assert syncs >= 4


def test_postgresql_commits_are_durable_whatever_the_servers_default(
    new_database: Callable[[str], str],
) -> None:
    url = new_database("postgresql")
    db = store.open_database(url, secret=SECRET)
    with store.write(db) as connection:
        name = connection.execute(text("SELECT current_database()")).scalar()
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    db.engine.dispose()

    again = store.open_database(url, secret=SECRET)
    with store.read(again) as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
    again.engine.dispose()


# --- after a restore -------------------------------------------------------------------------------


def test_what_was_due_before_a_restore_and_is_planned_again_may_be_gone_and_is_not_sent(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 2)
    provider = taking(monkeypatch)
    first, second = (row.id for row in rows_of(db, Message))
    with store.write(db) as connection:
        connection.execute(update(table(Installation)).values(backup_at=NOW - timedelta(days=1), restored_at=NOW))
        settled = update(table(Message)).where(table(Message).c.id == second)
        connection.execute(settled.values(look_at=NOW))  # a person looked, and wants it sent

    counts = dispatcher.dispatch(db, settings, LATER)

    assert (counts.unknown, counts.sent) == (1, 1)
    rows = {row.id: row for row in rows_of(db, Message)}
    assert (rows[first].status, rows[first].look_at, rows[first].claim) == (Status.UNKNOWN, LATER, None)
    assert provider.got == [rows[second].public_id]


def test_what_falls_due_after_a_restore_is_sent_as_ever(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = planned(db, tmp_path, 2)
    provider = taking(monkeypatch)
    with store.write(db) as connection:
        before = NOW - timedelta(hours=2)
        connection.execute(update(table(Installation)).values(backup_at=before, restored_at=before))

    assert dispatcher.dispatch(db, settings, NOW).sent == len(provider.got) == 2


# --- a person at the terminal --------------------------------------------------------------------------

SETTINGS = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN}
channels:
  email: {provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}
sending_hours: {default: {mon-sun: "00:00-24:00"}}
"""


class Interrupted(Outbox):
    """Somebody presses Ctrl-C as soon as the first message is to be handed over."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().send(batch)


def by_hand(workspace: str, *words: str) -> None:
    from outreach import cli

    channels.CHANNELS["outbox"] = "tests.test_interruptions.Interrupted"
    sys.argv = ["outreach", *words, "--workspace", workspace, "--now", NOW.isoformat()]
    cli.main()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with more e-mails due than one chunk holds."""
    (tmp_path / "outreach.yaml").write_text(SETTINGS)
    settings = settings_module.load(tmp_path, {})
    db = store.open_database(settings.database, secret=settings.secret)
    publish(db, settings, NOW, hello=HELLO)
    people = [customer(n, created_at=NOW, timezone="America/Mexico_City") for n in range(dispatcher.CHUNK + 5)]
    feed(db, settings, NOW, customers=people)
    planner.plan(db, settings, NOW)
    db.engine.dispose()
    return tmp_path


def test_a_dispatch_by_hand_that_is_interrupted_finishes_its_chunk_and_says_so(workspace: Path) -> None:
    code, said, errors = apart(workspace, by_hand, str(workspace), "tick", "dispatch")

    assert (code, errors) == (0, "")
    assert "Stopped as asked" in said
    assert len(outbox(workspace)) == dispatcher.CHUNK
    db = store.open_database(settings_module.load(workspace, {}).database)
    assert statuses(db) == {Status.SENT: dispatcher.CHUNK, Status.PLANNED: 5}
    assert {row.claim for row in rows_of(db, Message)} == {None}
    db.engine.dispose()


def test_a_manual_send_that_is_interrupted_says_how_it_goes_on(workspace: Path) -> None:
    news = {"message_templates/news.email.j2": "---\nsubject: Hola\n---\n<p>Hola</p>"}
    settings = settings_module.load(workspace, {})
    db = store.open_database(settings.database)
    releases.publish(db, settings, files_of(news, hello=HELLO), NOW)
    words = ("send", "news", "--where", "first_name = 'Ana'", "--purpose", "service", "--yes")
    code, said, errors = apart(workspace, by_hand, str(workspace), *words)

    assert (code, errors) == (0, "")
    assert "Stopped as asked" in said
    assert "--continue 1" in said
    assert len(outbox(workspace)) == dispatcher.CHUNK
    manual = Counter(row.status for row in rows_of(db, Message) if row.campaign == dispatcher.MANUAL)
    assert manual == {Status.SENT: dispatcher.CHUNK, Status.PLANNED: 5}
    db.engine.dispose()
