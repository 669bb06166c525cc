"""Alerts: what holds is derived from the database, told once to each target, and told again when it is over."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default as email_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, insert, update

from outreach import alerts, releases, store
from outreach.alerts import AlertCounts, words
from outreach.alerts.telling import TELLERS
from outreach.cli import status as status_verb
from outreach.models import Alarm, CampaignState, Import, Message, Tick, table
from outreach.reports import status
from outreach.settings import Business, ChannelSettings, Settings, SourceSettings
from outreach.store import Database
from outreach.testing import Fault, Faults
from outreach.testing.smtp import FakeSmtp
from outreach.values import Duration
from tests.conftest import NOW
from tests.shop import publish, rows_of, shop_settings

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OWNER = "duena@tiendaluna.example"
BRAKE = "volume brake: 612 messages in 24 hours would be more than 500"
HELLO = """
    title: Hello
    trigger: {event: customer.created}
    steps: [{id: hello, after: 0 minutes, channel: email, template: m}]
"""


class Webhook(ThreadingHTTPServer):
    """Takes POSTs on this machine; answers with `status`."""

    def __init__(self) -> None:
        self.status, self.location = 200, ""
        self.taken: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Hook)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=s3cret"


class _Hook(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.taken.append(json.loads(body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, webhook: Webhook) -> Settings:
    return shop_settings(tmp_path, alerts={"webhook": webhook.url})


def watch(db: Database, settings: Settings, now: datetime) -> AlertCounts:
    """One look, the other stages having just run."""
    ticked(db, "plan", now)
    return alerts.watch(db, settings, now)


def ticked(db: Database, stage: str, at: datetime, error: str = "") -> None:
    with store.write(db) as connection:
        store.record_tick(connection, stage, at, at, {}, error)


def paused(db: Database, settings: Settings, reason: str = BRAKE, at: datetime = NOW) -> None:
    publish(db, settings, NOW - DAY, hello=HELLO)
    with store.write(db) as connection:
        connection.execute(update(CampaignState).values(paused_at=at, paused_reason=reason))


def told(webhook: Webhook) -> list[tuple[str, bool]]:
    return [(one["alarm"], one["over"]) for one in webhook.taken]


def holding(db: Database) -> list[str]:
    return [row.name for row in rows_of(db, Alarm) if not row.name.startswith(".")]


def message(number: int, status: str = "unknown", **cells: Any) -> dict[str, Any]:
    times = {"occasion_at": NOW, "due_at": NOW, "expires_at": NOW + DAY, "ready_at": NOW, "created_at": NOW}
    return {
        "public_id": f"p{number}",
        "campaign": "hello",
        "step": "hello",
        "customer_id": number,
        "occasion": f"o{number}",
        "enrolment_id": number,
        "arm": "contact",
        "purpose": "service",
        "priority": 0,
        "status": status,
        "release": 1,
        **times,
        **cells,
    }


def write(db: Database, *messages: dict[str, Any]) -> None:
    with store.write(db) as connection:
        for one in messages:
            connection.execute(insert(Message).values(detail="", refused="", attempts=1, **one))


# --- once when it begins, once when it is over ----------------------------------------------------------------------


def test_a_campaign_that_a_program_paused_is_told_once_and_once_more_when_it_goes_on(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    paused(db, settings)

    first = watch(db, settings, NOW + MINUTE)
    again = watch(db, settings, NOW + 2 * MINUTE)
    releases.resume(db, "hello", NOW + 3 * MINUTE)
    over = watch(db, settings, NOW + 3 * MINUTE)
    after = watch(db, settings, NOW + 4 * MINUTE)

    assert [(c.holding, c.begun, c.over, c.told) for c in (first, again, over, after)] == [
        (1, 1, 0, 1),
        (1, 0, 0, 0),
        (0, 0, 1, 1),
        (0, 0, 0, 0),
    ]
    assert webhook.taken == [
        {
            "alarm": "paused:hello",
            "text": f"La campaña hello se detuvo sola: {BRAKE}. Sus mensajes esperan.",
            "since": NOW.isoformat(),
            "business": "Tienda Luna",
            "over": False,
        },
        {
            "alarm": "paused:hello",
            "text": "La campaña hello sigue adelante.",
            "since": NOW.isoformat(),
            "business": "Tienda Luna",
            "over": True,
        },
    ]
    assert holding(db) == []


@pytest.mark.parametrize("reason", ["holiday", "", "volume brake: as I see it", "paused by hand"])
def test_a_pause_by_a_person_is_no_alarm_whatever_reason_they_give(
    db: Database, settings: Settings, webhook: Webhook, reason: str
) -> None:
    publish(db, settings, NOW - DAY, hello=HELLO)
    releases.pause(db, "hello", reason, NOW)

    assert watch(db, settings, NOW + MINUTE).holding == 0
    assert webhook.taken == []


def test_the_row_lasts_as_long_as_the_alarm_and_status_shows_it(
    db: Database, database_url: str, settings: Settings
) -> None:
    paused(db, settings)
    watch(db, settings, NOW + MINUTE)

    [row] = [row for row in rows_of(db, Alarm) if not row.name.startswith(".")]
    shown = status.read(database_url, NOW + MINUTE)

    assert (row.name, row.since, row.told_at) == ("paused:hello", NOW, NOW + MINUTE)
    assert shown.as_json()["alarms"] == [{"name": "paused:hello", "text": row.text, "since": NOW.isoformat()}]


def test_status_says_it_before_everything_that_merely_waits(
    db: Database, database_url: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    paused(db, settings)
    watch(db, settings, NOW + MINUTE)

    status_verb._print(status.read(database_url, NOW + MINUTE), ZoneInfo("America/Mexico_City"))

    second = capsys.readouterr().out.splitlines()[2]
    assert second == f"! La campaña hello se detuvo sola: {BRAKE}. Sus mensajes esperan. (since 2026-06-15 09:00)"


def test_messages_in_doubt_are_counted_from_the_oldest_on(db: Database, settings: Settings, webhook: Webhook) -> None:
    write(db, message(1, sent_at=NOW), message(2, sent_at=NOW - HOUR), message(3, "sent", sent_at=NOW - DAY))

    watch(db, settings, NOW)
    write(db, message(4, sent_at=NOW))
    watch(db, settings, NOW + MINUTE)

    assert [(one["alarm"], one["since"]) for one in webhook.taken] == [("unknown", (NOW - HOUR).isoformat())]
    assert "en duda: 2." in webhook.taken[0]["text"]
    assert "en duda: 3." in rows_of(db, Alarm, name="unknown")[0].text


def doubts(db: Database, count: int) -> None:
    """Exactly so many messages in doubt."""
    with store.write(db) as connection:
        connection.execute(delete(table(Message)))
        rows = [message(n, detail="", refused="", attempts=1, sent_at=NOW) for n in range(count)]
        store.insert_many(connection, table(Message), rows)


@pytest.mark.parametrize(
    ("counts", "heard"),
    [
        ((1, 9, 10, 11), (1, 10)),  # tenfold
        ((50, 149, 150, 249, 250), (50, 150, 250)),  # a hundred more
        ((300, 2, 19, 20), (300, 20)),  # measured from the fewest since
        ((1, 400, 400), (1, 400)),
    ],
)
def test_doubts_that_have_become_many_more_are_told_again(
    db: Database, settings: Settings, webhook: Webhook, counts: tuple[int, ...], heard: tuple[int, ...]
) -> None:
    for minute, count in enumerate(counts):
        doubts(db, count)
        watch(db, settings, NOW + minute * MINUTE)
    doubts(db, 0)
    watch(db, settings, NOW + HOUR / 6)

    assert told(webhook) == [("unknown", False)] * len(heard) + [("unknown", True)]
    assert [int(one["text"].partition("duda: ")[2].partition(".")[0]) for one in webhook.taken[:-1]] == list(heard)
    assert {row.name for row in rows_of(db, Alarm)} == {".started"}


@pytest.mark.parametrize("counts", [(40, 40), (2, 40)])
def test_a_target_that_comes_back_hears_how_many_doubts_there_are_now(
    db: Database, settings: Settings, webhook: Webhook, counts: tuple[int, int]
) -> None:
    doubts(db, 1)
    watch(db, settings, NOW)
    doubts(db, 0)
    webhook.status = 503
    watch(db, settings, NOW + MINUTE)
    for minute, count in enumerate(counts, 2):
        doubts(db, count)
        watch(db, settings, NOW + minute * MINUTE)
    webhook.taken.clear()
    webhook.status = 200
    for minute in range(4, 10):
        watch(db, settings, NOW + minute * MINUTE)

    assert [(one["over"], "en duda: 40." in one["text"]) for one in webhook.taken] == [(False, True)]


def test_an_e_mail_told_again_is_another_e_mail(db: Database, settings: Settings) -> None:
    with FakeSmtp() as server:
        used = by_smtp(settings, server.port, alerts={"email": OWNER})
        for minute, count in enumerate((1, 10)):
            doubts(db, count)
            watch(db, used, NOW + minute * MINUTE)
        ids = {message_from_bytes(one.content, policy=email_policy)["Message-ID"] for one in server.accepted}

    assert len(ids) == 2


def test_an_import_that_brings_nothing_for_long_is_told_only_where_there_are_sources(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    with store.write(db) as connection:
        connection.execute(insert(Import).values(started_at=NOW, finished_at=NOW, counts={}))
    with_source = replace(
        settings, sources=(SourceSettings("csv", {"orders": "o.csv"}),), clock={"import": Duration(days=2)}
    )

    assert watch(db, settings, NOW + 30 * DAY).holding == 0
    assert watch(db, with_source, NOW + 6 * DAY).holding == 0
    assert watch(db, replace(with_source, clock={}), NOW + DAY + MINUTE).holding == 1
    assert watch(db, with_source, NOW + 6 * DAY + MINUTE).holding == 1
    assert ("import", False) in told(webhook)


def test_a_stage_that_fails_at_each_look_for_a_quarter_of_an_hour_is_told(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    for minute in range(16):
        ticked(db, "import", NOW + minute * MINUTE, "customers.csv: line 3: ana@example.com is wrong")
        watch(db, settings, NOW + minute * MINUTE)
    patient = list(webhook.taken)
    watch(db, settings, NOW + 16 * MINUTE)
    ticked(db, "import", NOW + 17 * MINUTE)
    watch(db, settings, NOW + 17 * MINUTE)
    watch(db, settings, NOW + 18 * MINUTE)

    assert patient == []
    assert told(webhook) == [("failing:import", False), ("failing:import", True)]
    assert "ana@" not in json.dumps(webhook.taken)


def test_a_stage_that_fails_now_and_then_is_nothing_to_tell(db: Database, settings: Settings, webhook: Webhook) -> None:
    for minute in range(40):
        ticked(db, "import", NOW + minute * MINUTE, "" if minute % 10 == 0 else "the database was busy")
        watch(db, settings, NOW + minute * MINUTE)

    assert webhook.taken == []


def test_stages_that_no_longer_finish_are_noticed_while_the_watch_goes_on(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    watch(db, settings, NOW)
    for minute in range(1, 20):
        alerts.watch(db, settings, NOW + minute * MINUTE)
    watch(db, settings, NOW + 20 * MINUTE)
    watch(db, settings, NOW + 21 * MINUTE)

    assert told(webhook) == [("stopped", False), ("stopped", True)]
    assert webhook.taken[0]["since"] == NOW.isoformat()


def minutes(db: Database, settings: Settings, first: int, last: int, *stages: str, step: int = 1) -> None:
    """A look each minute, or every few, just after these stages have run."""
    for minute in range(first, last + 1, step):
        for stage in stages:
            ticked(db, stage, NOW + minute * MINUTE)
        alerts.watch(db, settings, NOW + minute * MINUTE)


@pytest.mark.parametrize(("dead", "alive"), [("plan", "dispatch"), ("dispatch", "plan")])
def test_one_stage_that_no_longer_finishes_is_told_though_the_other_does(
    db: Database, settings: Settings, webhook: Webhook, dead: str, alive: str
) -> None:
    minutes(db, settings, 0, 0, dead, alive)
    minutes(db, settings, 1, 15, alive)
    patient = list(webhook.taken)
    minutes(db, settings, 16, 40, alive)
    alerts.watch(db, settings, NOW + 100 * MINUTE)  # a gap: nobody has seen that it works again
    minutes(db, settings, 101, 140, alive)
    lasting = [one for one in told(webhook) if one != ("stopped", True)]
    minutes(db, settings, 141, 142, dead, alive)

    assert patient == []
    assert lasting == [(f"stopped:{dead}", False)]
    assert told(webhook)[-1] == (f"stopped:{dead}", True)
    assert webhook.taken[0]["since"] == NOW.isoformat()
    assert webhook.taken[0]["text"].startswith(f"La etapa {dead} ya no termina: ")
    assert webhook.taken[-1]["text"] == f"La etapa {dead} termina otra vez."


def test_a_stage_on_a_slow_clock_is_given_its_time(db: Database, settings: Settings, webhook: Webhook) -> None:
    hourly = replace(settings, clock={"plan": Duration(seconds=3600), "dispatch": Duration(seconds=60)})
    minutes(db, hourly, 0, 0, "plan", "dispatch")

    minutes(db, hourly, 10, 180, "dispatch", step=10)
    patient = told(webhook)
    minutes(db, hourly, 181, 182, "dispatch")

    assert patient == []
    assert told(webhook) == [("stopped:plan", False)]


def test_a_stage_that_nobody_has_ever_run_here_is_not_missed(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    minutes(db, settings, 0, 60, "plan")

    assert webhook.taken == []


def test_told_that_nothing_runs_nobody_is_told_otherwise_before_everything_runs_again(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    minutes(db, settings, 0, 0, "plan")
    minutes(db, settings, 1, 3, "plan", "dispatch")
    minutes(db, settings, 4, 20)
    both = list(webhook.taken)
    minutes(db, settings, 21, 60, "plan")
    half = told(webhook)
    [row] = rows_of(db, Alarm, name="stopped")
    minutes(db, settings, 61, 62, "plan", "dispatch")

    assert [(one["alarm"], one["text"]) for one in both] == [
        ("stopped", "Nada se planea ni se envía: las etapas plan y dispatch ya no terminan.")
    ]
    assert half == [("stopped", False)]
    assert row.text == "La etapa dispatch ya no termina: lo planeado no se envía."
    assert told(webhook) == [("stopped", False), ("stopped", True)]
    assert holding(db) == []


def test_when_the_second_stage_stops_as_well_that_is_told_too(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    minutes(db, settings, 0, 0, "plan", "dispatch")
    minutes(db, settings, 1, 30, "dispatch")
    minutes(db, settings, 31, 50)
    minutes(db, settings, 51, 52, "dispatch")
    minutes(db, settings, 53, 54, "plan", "dispatch")

    assert told(webhook) == [("stopped:plan", False), ("stopped", False), ("stopped", True), ("stopped:plan", True)]


def test_a_gap_in_which_nothing_ran_is_told_once_by_whoever_looks_next(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    watch(db, settings, NOW)

    alerts.watch(db, settings, NOW + 10 * HOUR)  # before any other stage has ended a tick
    alerts.watch(db, settings, NOW + 10 * HOUR + MINUTE)

    assert told(webhook) == [("stopped", True)]
    text = webhook.taken[0]["text"]
    assert "lunes, 15 de junio de 2026, 09:00 hasta lunes, 15 de junio de 2026, 19:00" in text
    assert holding(db) == []


def test_calls_that_have_waited_past_half_of_their_time_are_told(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    write(db, message(1, "planned", blocked_by="person"), message(2, "planned", blocked_by="rate"))

    before = watch(db, settings, NOW + 11 * HOUR)
    watch(db, settings, NOW + 12 * HOUR)

    [late] = [one for one in webhook.taken if one["alarm"] == "tasks"]
    assert before.holding == 0
    assert late["since"] == (NOW + 12 * HOUR).isoformat()
    assert late["text"].endswith(": 1.")


def test_codes_that_run_out_are_not_taken_for_made_because_one_tick_of_plan_failed(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    def planned(minute: int, *offers: dict[str, Any], error: str = "") -> None:
        at = NOW + minute * MINUTE
        with store.write(db) as connection:
            store.record_tick(connection, "plan", at, at, {"offers": list(offers)} if not error else {}, error)
        alerts.watch(db, settings, at)

    planned(0, {"offer": "back", "left": 0})
    planned(1, error="the database is locked")
    planned(2, error="the database is locked")
    planned(3, {"offer": "back", "left": 0})
    lasting = told(webhook)
    planned(4)

    assert lasting == [("coupons:back", False)]
    assert told(webhook) == [("coupons:back", False), ("coupons:back", True)]


# --- telling ---------------------------------------------------------------------------------------------------------


def by_smtp(settings: Settings, port: int, **changes: Any) -> Settings:
    options = {"host": "127.0.0.1", "port": port, "security": "none", "timeout": Duration(seconds=5)}
    email = ChannelSettings("smtp", "Tienda Luna <hola@tiendaluna.example>", options)
    return replace(settings, channels={**settings.channels, "email": email}, **changes)


def test_an_e_mail_goes_by_the_shop_s_own_server_and_names_the_next_command(db: Database, settings: Settings) -> None:
    paused(db, settings)
    with FakeSmtp() as server:
        used = by_smtp(settings, server.port, alerts={"email": OWNER})
        watch(db, used, NOW + MINUTE)
        releases.resume(db, "hello", NOW + HOUR)
        watch(db, used, NOW + 10 * MINUTE)
        begun, over = [message_from_bytes(one.content, policy=email_policy) for one in server.accepted]
        recipients = {one.recipient for one in server.accepted}

    assert recipients == {OWNER}
    assert begun["Subject"] == "Tienda Luna: la campaña hello se detuvo"
    assert over["Subject"] == "Tienda Luna: La campaña hello sigue adelante"
    assert begun["Message-ID"].startswith("<alert-")
    assert begun["Message-ID"] != over["Message-ID"]
    assert begun.get_content_type() == "text/plain"
    text = begun.get_content()
    assert "outreach resume hello" in text
    assert "Desde: lunes, 15 de junio de 2026, 09:00" in text
    assert rows_of(db, Message) == []


def test_a_telling_that_fails_is_logged_without_addresses_and_tried_again_with_longer_and_longer_rests(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    paused(db, settings)
    webhook.status = 503
    looks = [watch(db, settings, NOW + minute * MINUTE) for minute in range(11)]
    tries = [minute for minute, counts in enumerate(looks) if counts.untold]
    webhook.status = 204
    later = [watch(db, settings, NOW + minute * MINUTE) for minute in range(11, 20)]

    assert tries == [0, 1, 2, 4, 8]
    assert looks[0].untold == (alerts.Untold("webhook", "paused:hello", "the webhook answered 503"),)
    assert [counts.told for counts in later] == [0] * 5 + [1] + [0] * 3
    assert len(webhook.taken) == 6


def test_one_dead_target_keeps_no_other_waiting_and_is_itself_an_alarm(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    paused(db, settings)
    with FakeSmtp(faults=Faults([Fault.NOT_ALLOWED] * 40)) as server:
        used = by_smtp(settings, server.port, alerts={"email": OWNER, "webhook": webhook.url})
        for minute in range(20):
            counts = watch(db, used, NOW + minute * MINUTE)
        assert server.accepted == []

    assert told(webhook) == [("paused:hello", False), ("untold:email", False)]
    assert OWNER not in json.dumps(webhook.taken)
    assert counts.holding == 2


def test_what_is_over_before_a_target_heard_of_it_is_never_told_there(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    paused(db, settings)
    webhook.status = 500
    watch(db, settings, NOW)
    releases.resume(db, "hello", NOW)
    webhook.status = 200
    watch(db, settings, NOW + MINUTE)
    watch(db, settings, NOW + 2 * MINUTE)

    assert told(webhook) == [("paused:hello", False)]
    assert {row.name for row in rows_of(db, Alarm)} <= {".started", ".untold:webhook"}


def test_a_redirect_is_not_followed(db: Database, settings: Settings, webhook: Webhook) -> None:
    paused(db, settings)
    webhook.status, webhook.location = 302, "/elsewhere"

    counts = watch(db, settings, NOW)

    assert (counts.told, len(webhook.taken)) == (0, 1)
    assert counts.untold[0].why == "the webhook answered 302"


def test_a_webhook_that_is_not_there_is_named_by_no_address(db: Database, settings: Settings) -> None:
    paused(db, settings)

    counts = watch(db, replace(settings, alerts={"webhook": "http://127.0.0.1:1/?key=s3cret"}), NOW)

    assert counts.untold[0].why == "the webhook cannot be reached (Connection refused)"


def test_a_telling_that_was_cut_off_is_made_again(
    db: Database, settings: Settings, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused(db, settings)

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setitem(TELLERS, "webhook", killed)
        with pytest.raises(KeyboardInterrupt):
            watch(db, settings, NOW)
    meanwhile = watch(db, settings, NOW + MINUTE)
    later = watch(db, settings, NOW + 6 * MINUTE)

    assert (meanwhile.told, later.told) == (0, 1)


def test_two_daemons_that_watch_at_once_tell_it_once(db: Database, settings: Settings, webhook: Webhook) -> None:
    paused(db, settings)
    ticked(db, "plan", NOW)
    both = [threading.Thread(target=alerts.watch, args=(db, settings, NOW)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()

    assert told(webhook) == [("paused:hello", False)]


def test_nobody_to_tell_is_no_error_and_who_is_named_later_hears_what_still_holds(
    db: Database, settings: Settings, webhook: Webhook
) -> None:
    paused(db, settings)

    alone = watch(db, replace(settings, alerts={}), NOW)
    watch(db, settings, NOW + MINUTE)

    assert (alone.holding, alone.told) == (1, 0)
    assert told(webhook) == [("paused:hello", False)]


def test_a_target_that_is_taken_away_leaves_nothing_waiting(db: Database, settings: Settings, webhook: Webhook) -> None:
    paused(db, settings)
    webhook.status = 500
    watch(db, settings, NOW)

    watch(db, replace(settings, alerts={}), NOW + MINUTE)

    assert {row.name for row in rows_of(db, Alarm)} == {".started", "paused:hello"}


def test_with_an_outbox_the_e_mail_is_a_file(db: Database, settings: Settings, tmp_path: Path) -> None:
    paused(db, settings)

    watch(db, replace(settings, alerts={"email": OWNER}), NOW)

    [file] = (tmp_path / "outbox").glob("*.eml")
    assert file.name.startswith("2026-06-15-alert-")
    assert message_from_bytes(file.read_bytes(), policy=email_policy)["To"] == OWNER


def test_without_an_e_mail_channel_the_reason_is_said(db: Database, settings: Settings) -> None:
    paused(db, settings)

    counts = watch(db, replace(settings, channels={}, alerts={"email": OWNER}), NOW)

    assert counts.untold[0].why.startswith("channel email is not configured")


# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["es-MX", "pt-BR", "en", "fr-FR"])
@pytest.mark.parametrize("kind", [*sorted(words.TODO), "stopped:plan", "stopped:dispatch"])
def test_every_alarm_is_said_whole_in_every_language(locale: str, kind: str) -> None:
    business = Business("Luna", "America/Mexico_City", "MXN", locale)
    name = kind if ":" in kind else f"{kind}:it"

    text = words.text(business, name, count=3, why="because")
    over = words.over(business, name, NOW, NOW + HOUR)
    letters = [
        words.letter(business, name, text, NOW, is_over=False),
        words.letter(business, name, over, NOW, is_over=True),
    ]

    assert text != over
    assert "outreach " in letters[0]
    assert text in letters[0]
    assert over in letters[1]
    subjects = [words.subject(business, name, said, is_over=said is over) for said in (text, over)]
    assert all(subject.startswith("Luna: ") and len(subject) < 140 for subject in subjects)
    assert not any(mark in "".join([*letters, *subjects]) for mark in "{}")


def test_the_page_about_alerts_has_a_row_of_every_alarm_and_names_the_command_that_shows_it() -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "be-told-when-something-is-wrong.md"
    cells = [line.split("|") for line in page.read_text().splitlines() if line.startswith("| `")]
    named = [(name, row[3]) for row in cells for name in re.findall(r"`([^`]+)`", row[1])]
    rows = dict(named)
    shown = {name.partition(":")[0]: look for name, look in rows.items()}

    assert len(rows) == len(named)
    assert shown.keys() == words.TODO.keys()
    assert {name for name in words.WORDS["en"] if ":" in name} <= rows.keys()
    first = {kind: todo.splitlines()[0].partition(" {")[0] for kind, todo in words.TODO.items()}
    assert {kind: look for kind, look in shown.items() if f"`{first[kind]}" not in look} == {}


def test_an_alarm_that_nobody_keeps_is_taken_away(db: Database, settings: Settings) -> None:
    watch(db, settings, NOW)
    with store.write(db) as connection:
        connection.execute(insert(Alarm).values(name="import", text="old", since=NOW))

    watch(db, settings, NOW + MINUTE)
    with store.write(db) as connection:
        left = connection.execute(delete(table(Tick)).where(table(Tick).c.error != "")).rowcount

    assert (holding(db), left) == ([], 0)
