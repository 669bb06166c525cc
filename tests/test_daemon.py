from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from outreach import channels, clocks, daemon, dispatcher, releases, store
from outreach.channels import Outgoing, Receipt
from outreach.channels.outbox import Outbox
from outreach.daemon import STAGES, Action, Daemon, run, tick
from outreach.dispatcher import CHUNK
from outreach.dispatcher.parts import pause
from outreach.errors import DatabaseError, ImportFileError
from outreach.logs import to_stderr
from outreach.models import Customer, Import, Message, Tick
from outreach.settings import Settings, SourceSettings
from outreach.store import Database
from outreach.values import Duration
from tests.conftest import NOW, SECRET
from tests.forked import Forked
from tests.shop import customer, feed, publish, rows_of, shop_settings, write_csv

HELLO = """
    title: Hello
    trigger: {event: customer.created}
    steps: [{id: hello, after: 0 minutes, channel: email, template: m}]
"""
HOUR = Duration(seconds=3600)


def settings_of(workspace: Path, **changes: Any) -> Settings:
    return shop_settings(workspace, clock=dict.fromkeys(STAGES, HOUR), **changes)


def with_customers(settings: Settings, *numbers: int) -> Settings:
    """The settings with a customers file as their source."""
    rows = [customer(number, created_at=NOW) for number in numbers]
    write_csv(settings.workspace / "customers.csv", rows)
    return replace(settings, sources=(SourceSettings("csv", {"customers": "customers.csv"}),))


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_now", lambda: NOW)


def log_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ticks(db: Database) -> dict[str, Any]:
    return {row.stage: row for row in rows_of(db, Tick)}


# --- the stages ------------------------------------------------------------------------------------


def test_one_round_imports_plans_and_sends(db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = with_customers(settings_of(tmp_path), 1, 2)
    publish(db, settings, NOW, hello=HELLO)

    run(settings, db, once=True)

    assert [row.status for row in rows_of(db, Message)] == ["sent", "sent"]
    assert len(list((tmp_path / "outbox").glob("*.eml"))) == 2
    assert {stage: (row.started_at, row.error) for stage, row in ticks(db).items()} == dict.fromkeys(STAGES, (NOW, ""))
    assert ticks(db)["import"].counts["customers"]["created"] == 2
    lines = log_lines(capfd.readouterr().err)
    assert [line["action"] for line in lines] == ["started", "imported", "planned", "dispatched", "stopped"]
    assert lines[3]["counts"]["sent"] == 2


def test_a_tick_without_anything_to_do_is_no_news(
    db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = with_customers(settings_of(tmp_path), 1)
    publish(db, settings, NOW, hello=HELLO)
    running = Daemon(settings, db)

    with to_stderr():
        for stage in ("import", "plan", "plan", "dispatch", "dispatch"):
            tick(running, stage)

    said = [line["action"] for line in log_lines(capfd.readouterr().err) if line["level"] == "info"]
    assert said == ["imported", "planned", "dispatched"]
    assert "outlook" in ticks(db)["plan"].counts


def test_the_log_says_once_what_paused_and_why(db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(tmp_path)
    publish(db, settings, NOW, hello=HELLO, other=HELLO.replace("{event: customer.created}", "{event: order.placed}"))
    running = Daemon(settings, db)

    releases.pause(db, "hello", "Ana asked for it", NOW)
    with store.write(db) as connection:
        pause(connection, ["other"], "twilio: wrong credentials", NOW)
    with to_stderr():
        for _ in range(2):
            tick(running, "dispatch")
        releases.resume(db, "hello", NOW)
        tick(running, "dispatch")
        releases.pause(db, "hello", "", NOW)
        tick(running, "dispatch")

    said = [line for line in log_lines(capfd.readouterr().err) if line["action"] == "paused"]
    assert [(line["level"], line["campaign"], line["why"]) for line in said] == [
        ("warning", "hello", "paused by hand"),
        ("warning", "other", "twilio: wrong credentials"),
        ("warning", "hello", "paused by hand"),
    ]


def test_the_log_speaks_a_closed_list_of_words_and_names_nobody(
    db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = with_customers(settings_of(tmp_path), 1)
    publish(db, settings, NOW, hello=HELLO)
    (tmp_path / "outbox").write_text("in the way")

    run(settings, db, once=True)

    said = capfd.readouterr().err
    assert {line["action"] for line in log_lines(said)} <= set(Action)
    for private in ("c1@", "example.com", "+52", "Ana", "Hola"):
        assert private not in said


def test_a_file_is_imported_again_only_once_it_changed(db: Database, tmp_path: Path) -> None:
    settings = with_customers(settings_of(tmp_path), 1)
    running = Daemon(settings, db)

    tick(running, "import")
    tick(running, "import")
    unchanged = len(rows_of(db, Import))
    with_customers(settings, 1, 2)
    tick(running, "import")

    assert (unchanged, len(rows_of(db, Import))) == (1, 2)


def test_a_file_that_was_wrong_is_read_again_until_it_is_right(db: Database, tmp_path: Path) -> None:
    settings = with_customers(settings_of(tmp_path), 1)
    running = Daemon(settings, db)
    (tmp_path / "customers.csv").unlink()

    tick(running, "import")
    assert "customers.csv" in ticks(db)["import"].error

    with_customers(settings, 1)
    tick(running, "import")
    assert ticks(db)["import"].error == ""


def test_a_source_that_cannot_be_read_keeps_none_of_the_others_out(db: Database, tmp_path: Path) -> None:
    good = with_customers(settings_of(tmp_path), 1)
    broken = [SourceSettings("csv", {"orders": name}) for name in ("orders.csv", "old.csv")]
    running = Daemon(replace(good, sources=(broken[0], *good.sources, broken[1])), db)

    tick(running, "import")
    failed = ticks(db)["import"].error
    tick(running, "import")

    assert [row.external_id for row in rows_of(db, Customer)] == ["c1"]
    assert [part.rpartition("/")[2] for part in failed.split("; ")] == [
        "orders.csv: there is no such file",
        "old.csv: there is no such file",
    ]
    assert len([row for row in rows_of(db, Import) if row.finished_at]) == 1  # and is read again only once it changed


def test_a_stage_that_fails_is_logged_kept_for_status_and_tried_again(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = Daemon(settings_of(tmp_path), db)

    def fails(_daemon: Daemon) -> None:
        raise ImportFileError("orders.csv: line 7 is ragged: mend it")

    with monkeypatch.context() as broken:
        broken.setitem(STAGES, "plan", fails)
        tick(running, "plan")

    assert ticks(db)["plan"].error == "orders.csv: line 7 is ragged: mend it"
    assert [record.__dict__["fields"]["stage"] for record in caplog.records] == ["plan"]

    tick(running, "plan")
    assert ticks(db)["plan"].error == ""


def test_an_error_of_the_program_says_where_and_not_what_it_held(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_daemon: Daemon) -> None:
        raise KeyError("ana@example.com")

    monkeypatch.setitem(STAGES, "plan", breaks)
    tick(Daemon(settings_of(tmp_path), db), "plan")

    assert ticks(db)["plan"].error.startswith("KeyError in test_daemon.py:")
    assert "ana@example.com" not in caplog.text + str(caplog.records[0].__dict__)


def test_a_daemon_whose_database_is_gone_says_so_and_goes_on(
    tmp_path: Path, new_database: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    Path(str(db.engine.url.database)).write_bytes(b"")
    running = Daemon(settings_of(tmp_path), db)

    for stage in ("plan", "dispatch"):
        tick(running, stage)

    assert [record.__dict__["fields"]["stage"] for record in caplog.records] == ["plan", "dispatch"]


def test_a_daemon_that_starts_after_a_gap_tells_it_and_says_so_in_its_log(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path, alerts={"email": "duena@tiendaluna.example"})
    run(settings, db, once=True)
    capfd.readouterr()

    monkeypatch.setattr(daemon, "_now", lambda: NOW + timedelta(hours=9))
    run(settings, db, once=True)
    run(settings, db, once=True)

    [file] = (tmp_path / "outbox").glob("*-alert-*.eml")
    said = capfd.readouterr().err
    assert "Nada funcion=C3=B3 desde" in file.read_text()
    assert [line["counts"]["told"] for line in log_lines(said) if line["action"] == "alerted"] == [1]
    assert "duena@" not in said


def test_an_alert_that_does_not_get_through_is_logged_and_is_no_failure_of_the_stage(
    db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path, alerts={"webhook": "http://127.0.0.1:1/?key=s3cret"})
    publish(db, settings, NOW, hello=HELLO)
    with store.write(db) as connection:
        dispatcher.parts.pause(connection, ["hello"], "volume brake", NOW)

    run(settings, db, once=True)

    said = capfd.readouterr().err
    [line] = [line for line in log_lines(said) if line["action"] == "untold"]
    assert (line["level"], line["by"], line["alarm"]) == ("warning", "webhook", "paused:hello")
    assert ticks(db)["alert"].error == ""
    assert "s3cret" not in said


def test_somebody_looks_every_minute_whatever_the_settings_clock(tmp_path: Path) -> None:
    settings = shop_settings(tmp_path, clock=dict.fromkeys(("import", "plan", "dispatch"), HOUR))

    assert [str(daemon._every(settings, stage)) for stage in ("plan", "alert")] == ["1 hour", "1 minute"]


# --- a clock that is put back --------------------------------------------------------------------------


def test_no_stage_waits_for_a_clock_that_is_put_back_to_catch_up(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = [timedelta()]
    running, ran = Daemon(settings_of(tmp_path), db), dict.fromkeys(STAGES, 0)

    class PutBack(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - behind[0]

    def count(stage: str) -> Callable[[Daemon], None]:
        return lambda _daemon: ran.update({stage: ran[stage] + 1})

    def put_back(_seconds: float) -> None:
        """A stage that is called while its last tick ends is passed over, so the clock is put back until each has run."""
        time.sleep(0.005)
        behind[0] += timedelta(hours=3)
        if min(ran.values()) > 1 or behind[0] > timedelta(hours=3 * 400):
            running.stop.set()

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", PutBack)
    monkeypatch.setattr(clocks, "read", lambda: (time.time() - behind[0].total_seconds(), time.monotonic()))
    monkeypatch.setattr(daemon, "_now", lambda: PutBack.now(UTC))
    monkeypatch.setattr(daemon, "time", SimpleNamespace(sleep=put_back))
    for stage in STAGES:
        monkeypatch.setitem(STAGES, stage, count(stage))

    daemon._until_stopped(running)

    assert min(ran.values()) > 1, ran


@pytest.mark.parametrize(
    ("by_clock", "words"),
    [
        (
            True,
            ["by this machine's clock", "check the clock", f"by itself at {(NOW + timedelta(hours=6)).isoformat()}"],
        ),
        (False, ["--now", "fresh workspace"]),
    ],
)
def test_a_time_that_the_database_is_past_is_refused_in_words_for_whoever_gave_it(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_clock: bool, words: list[str]
) -> None:
    if by_clock:
        monkeypatch.setattr(clocks, "read", lambda: (NOW.timestamp() + 30, 0.0))
    with store.write(db) as connection:
        store.seen(connection, NOW + timedelta(hours=6))

    tick(Daemon(settings_of(tmp_path), db), "plan")

    said = ticks(db)["plan"].error
    assert [word for word in words if word not in said] == []
    assert ("--now" in said) is not by_clock


# --- who sends -------------------------------------------------------------------------------------


def test_a_copy_that_runs_elsewhere_asks_to_be_adopted(db: Database, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    run(settings_of(here), db, once=True)

    with pytest.raises(DatabaseError, match="--adopt"):
        run(settings_of(there), db, once=True)

    run(settings_of(there), db, once=True, adopt=True)
    run(settings_of(there), db, once=True)


# --- signals ---------------------------------------------------------------------------------------


class Interrupting(Outbox):
    """Asks its own process to end as soon as the first message is to be handed over."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().send(batch)


def interrupted(url: str, workspace: Path) -> None:
    channels.CHANNELS["outbox"] = "tests.test_daemon.Interrupting"
    daemon._now = lambda: NOW
    run(settings_of(workspace), store.open_database(url, secret=SECRET))


def busy(url: str, workspace: Path) -> None:
    """A daemon that is asked to end while its dispatch is busy, for ever."""
    never, _ = os.pipe()

    def dispatch(_daemon: Daemon) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.read(never, 1)

    STAGES["dispatch"] = dispatch  # type: ignore[index]
    run(settings_of(workspace), store.open_database(url, secret=SECRET))


def test_a_daemon_asked_to_end_finishes_the_chunk_in_flight_and_exits_cleanly(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    publish(db, settings, NOW, hello=HELLO)
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(2 * CHUNK)])
    tick(Daemon(settings, db), "plan")

    process = Forked(interrupted, database_url, tmp_path)
    with process.stderr as stream:
        said = stream.read()

    statuses = [row.status for row in rows_of(db, Message)]
    actions = [line["action"] for line in log_lines(said)]
    assert process.wait(60) == 0
    assert (statuses.count("sent"), statuses.count("planned")) == (CHUNK, CHUNK)
    assert {row.claim for row in rows_of(db, Message)} == {None}
    assert len(list((tmp_path / "outbox").glob("*.eml"))) == CHUNK
    assert (actions[0], actions[-1]) == ("started", "stopped")
    assert {"stopping", "dispatched"} < set(actions)


def until(stream: IO[str], action: Action) -> None:
    for line in stream:
        if json.loads(line)["action"] == action:
            return
    pytest.fail(f"the daemon ended before it said {action}")


def test_a_second_signal_ends_the_daemon_at_once(new_database: Callable[[str], str], tmp_path: Path) -> None:
    process = Forked(busy, new_database("sqlite"), tmp_path)
    with process.stderr as stream:
        until(stream, Action.STOPPING)
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == -signal.SIGTERM
