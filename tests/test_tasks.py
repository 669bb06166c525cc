"""Calls and visits: a person as the dispatcher, under the same rules."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from outreach import alerts, cli, dispatcher, planner, releases, store
from outreach.dispatcher import committing, tasks
from outreach.dispatcher.tasks import Result
from outreach.errors import NotFound, OutreachError
from outreach.models import (
    Alarm,
    Answer,
    CampaignState,
    Consent,
    Contact,
    Customer,
    CustomerTag,
    Message,
    MessageContent,
    MessageEvent,
    Reason,
    Status,
    Suppression,
    table,
)
from outreach.settings import ChannelSettings, Settings, Survey
from outreach.store import Database
from outreach.values import WeekHours
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, files_of, order, rows_of, shop_settings

HOUR = timedelta(hours=1)
CALLS = """
    title: Calls
    trigger: {event: order.delivered}
    purpose: service
    steps: [{id: ask, after: 0 minutes, channel: [call, sms], template: m, survey: csat, expires: 2 days}]
"""
WORKSPACE = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN, locale: es-MX, country: MX}
channels:
  call: {provider: staff}
  sms: {provider: outbox, from: "+525500000000"}
  email: {provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}
surveys: {csat: {scale: 1-5}}
"""
SCRIPT = {"message_templates/m.call.j2": "Buenos días, {{ customer.first_name }}."}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = shop_settings(tmp_path, surveys={"csat": Survey("csat", "1-5")})
    return replace(made, channels={**made.channels, "call": ChannelSettings("staff")})


def waiting(db: Database, settings: Settings, *people: dict[str, Any], files: dict[str, str] | None = None) -> None:
    """A delivered order for each of them, planned, and looked at by the dispatcher."""
    files = files or files_of(SCRIPT, calls=CALLS)
    files[releases.CATALOGUE] = '{"surveys": {"csat": {"scale": "1-5"}}}'
    releases.publish(db, settings, files, NOW - HOUR)
    people = people or (customer(1, call_consent="yes"),)
    orders = [order(n, who["customer_id"], NOW, delivered_at=NOW) for n, who in enumerate(people)]
    feed(db, settings, NOW, customers=people, orders=orders)
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)


def the_message(db: Database) -> Any:
    (message,) = rows_of(db, Message)
    return message


def opened(db: Database, settings: Settings, now: datetime = NOW) -> tasks.Opened:
    found = tasks.open_next(db, settings, now)
    assert found is not None
    return found


def test_a_call_waits_for_a_person_and_nothing_is_sent(db: Database, settings: Settings) -> None:
    waiting(db, settings)

    (task,) = tasks.listed(db, settings)
    message = the_message(db)

    assert (task.status, task.customer, task.name, task.channel, task.calls) == ("waiting", "c1", "Ana", "call", 0)
    assert (task.due_at, task.best_before) == (NOW, NOW + 2 * 24 * HOUR)
    assert (message.status, message.blocked_by, message.claim) == (Status.PLANNED, Reason.PERSON, None)
    assert not list(settings.workspace.glob("outbox/*"))


def test_opening_shows_whom_to_call_and_what_to_say(db: Database, settings: Settings) -> None:
    waiting(db, settings)

    task = opened(db, settings)

    assert (task.address, task.script, task.survey) == ("+525541000001", "Buenos días, Ana.", "csat")
    assert task.task.status == "open"
    assert the_message(db).status == Status.SENDING
    assert [row.text for row in rows_of(db, MessageContent)] == ["Buenos días, Ana."]
    assert tasks.open_next(db, settings, NOW) is None


def test_somebody_reached_is_sent_with_the_score_and_the_notes_kept(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    task = opened(db, settings).task

    said = tasks.done(db, settings, task.id, Result.REACHED, NOW + HOUR, score=4, notes="muy amable")

    message = the_message(db)
    assert (message.status, message.provider_id, message.claim) == (Status.SENT, f"task:{task.id}", None)
    assert [(row.kind, row.detail) for row in rows_of(db, MessageEvent)] == [
        ("reached", {"outcome": "reached", "notes": "muy amable", "channel": "call"}),
        ("answered", {"survey": "csat", "score": 4, "channel": "call", "occasion": message.occasion}),
    ]
    (answer,) = rows_of(db, Answer)
    assert (answer.survey, answer.score, answer.channel, answer.comment) == ("csat", 4, "call", "")
    assert (answer.customer_id, answer.occasion, answer.campaign) == (message.customer_id, message.occasion, "calls")
    assert said == "recorded as reached"
    assert tasks.listed(db, settings) == []


def test_somebody_reached_gets_the_tag_of_the_step_and_nobody_else_does(db: Database, settings: Settings) -> None:
    files = files_of(SCRIPT, calls=CALLS.replace("expires: 2 days", "expires: 2 days, tag: called"))
    people = [customer(n, call_consent="yes") for n in (1, 2)]
    waiting(db, settings, *people, files=files)

    for result in (Result.NO_ANSWER, Result.REACHED):
        tasks.done(db, settings, opened(db, settings).task.id, result, NOW)

    reached = [row.customer_id for row in rows_of(db, Message, status=Status.SENT)]
    assert [(row.customer_id, row.tag, row.by_campaign) for row in rows_of(db, CustomerTag)] == [
        (*reached, "called", True)
    ]


def test_nobody_answering_three_times_ends_it(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    now = NOW
    for call in range(3):
        dispatcher.dispatch(db, settings, now)
        task = opened(db, settings, now).task
        assert task.calls == call
        tasks.done(db, settings, task.id, Result.NO_ANSWER, now)
        if call < 2:
            message = the_message(db)
            assert (message.status, message.ready_at) == (Status.PLANNED, now + tasks.WAITS[call])
            assert (message.contact_id, rows_of(db, MessageContent)) == (None, [])
            dispatcher.dispatch(db, settings, message.ready_at - timedelta(seconds=1))
            assert tasks.listed(db, settings) == []
            now = message.ready_at

    message = the_message(db)
    assert (message.status, message.reason) == (Status.FAILED, Reason.GAVE_UP)
    assert [row.detail["outcome"] for row in rows_of(db, MessageEvent)] == ["no_answer"] * 3


def test_call_backs_agreed_on_are_no_unanswered_calls(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    now = NOW
    for _ in range(3):
        task = opened(db, settings, now).task
        tasks.done(db, settings, task.id, Result.CALL_BACK, now, call_at=now + HOUR)
        now += HOUR
        dispatcher.dispatch(db, settings, now)
    task = opened(db, settings, now).task
    tasks.done(db, settings, task.id, Result.NO_ANSWER, now)

    message = the_message(db)
    assert task.calls == 0
    assert (message.status, message.ready_at) == (Status.PLANNED, now + tasks.WAITS[0])
    assert message.detail == "nobody answered, 1 times"
    dispatcher.dispatch(db, settings, message.ready_at)
    assert [one.calls for one in tasks.listed(db, settings)] == [1]


def test_what_was_tried_on_an_earlier_channel_is_no_unanswered_call(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    with store.write(db) as connection:
        connection.execute(update(table(Message)).values(attempts=3, refused="sms"))
    assert [one.calls for one in tasks.listed(db, settings)] == [0]

    task = opened(db, settings).task
    said = tasks.done(db, settings, task.id, Result.NO_ANSWER, NOW)

    assert task.calls == 0
    assert said == "it comes back to the list for another call"
    assert the_message(db).ready_at == NOW + tasks.WAITS[0]


@pytest.mark.parametrize("attempts", [0, 1])
def test_calls_are_not_counted_against_the_visit_that_follows_and_both_are_kept(
    db: Database, settings: Settings, attempts: int
) -> None:
    visits = replace(settings, channels={**settings.channels, "visit": ChannelSettings("staff")})
    steps = CALLS.replace("[call, sms]", "[call, visit]")
    files = files_of({**SCRIPT, "message_templates/m.visit.j2": "Hola."}, calls=steps)
    who = customer(1, call_consent="yes", visit_consent="yes")
    waiting(db, visits, who, files=files)
    for _ in range(2):
        tasks.done(db, visits, opened(db, visits, the_message(db).due_at).task.id, Result.NO_ANSWER, NOW)
        with store.write(db) as connection:
            connection.execute(update(table(Message)).values(ready_at=NOW))
        dispatcher.dispatch(db, visits, NOW)
    tasks.done(db, visits, opened(db, visits).task.id, Result.WRONG_NUMBER, NOW)
    with store.write(db) as connection:  # whether or not another channel begins to count anew
        connection.execute(update(table(Message)).values(attempts=attempts))
    dispatcher.dispatch(db, visits, NOW)

    task = opened(db, visits).task
    tasks.done(db, visits, task.id, Result.NO_ANSWER, NOW)

    assert (task.channel, task.calls) == ("visit", 0)
    assert the_message(db).ready_at == NOW + tasks.WAITS[0]
    said = [(row.detail["channel"], row.detail["outcome"]) for row in rows_of(db, MessageEvent, kind="called")]
    assert said == [("call", "no_answer")] * 2 + [("call", "wrong_number"), ("visit", "no_answer")]
    dispatcher.dispatch(db, visits, the_message(db).ready_at)
    assert [one.calls for one in tasks.listed(db, visits)] == [1]


def test_the_list_counts_the_calls_of_all_its_tasks_at_once(db: Database, settings: Settings) -> None:
    waiting(db, settings, *(customer(n, call_consent="yes") for n in range(1, 6)))
    asked: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))

    assert len(tasks.listed(db, settings)) == 5
    assert len([one for one in asked if "FROM events" in one]) == 1


def test_a_call_back_comes_again_at_the_time_agreed_even_after_its_expiry(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    at = NOW + timedelta(days=5)
    tasks.done(db, settings, opened(db, settings).task.id, Result.CALL_BACK, NOW, call_at=at)

    dispatcher.dispatch(db, settings, at - HOUR)
    assert tasks.listed(db, settings) == []
    dispatcher.dispatch(db, settings, at)

    assert opened(db, settings, at).task.best_before == at + timedelta(days=1)


@pytest.mark.parametrize(
    ("called", "result", "back", "half_way"),
    [
        (timedelta(), Result.CALL_BACK, timedelta(days=10), timedelta(days=10, hours=12)),  # until a day after it
        (20 * HOUR, Result.NO_ANSWER, 23 * HOUR, timedelta(hours=35.5)),  # until the step's own expiry
        (20 * HOUR, Result.NOT_CALLED, 20 * HOUR, 24 * HOUR),  # it never left the list
    ],
)
def test_a_task_is_late_after_half_of_its_time_since_a_call_brought_it_back(
    db: Database, settings: Settings, called: timedelta, result: Result, back: timedelta, half_way: timedelta
) -> None:
    waiting(db, settings)
    agreed = NOW + back if result is Result.CALL_BACK else None
    tasks.done(db, settings, opened(db, settings, NOW + called).task.id, result, NOW + called, call_at=agreed)
    dispatcher.dispatch(db, settings, NOW + back)
    assert [one.status for one in tasks.listed(db, settings)] == ["waiting"]

    looks = [alerts.watch(db, settings, NOW + half_way + later).holding for later in (-HOUR / 60, timedelta())]

    assert looks == [0, 1]
    assert [row.since for row in rows_of(db, Alarm, name="tasks")] == [NOW + half_way]


def test_a_wrong_number_goes_on_to_the_next_channel_and_is_never_called_again(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    tasks.done(db, settings, opened(db, settings).task.id, Result.WRONG_NUMBER, NOW)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.sent, the_message(db).channel) == (1, "sms")
    assert [(row.scope, row.channel) for row in rows_of(db, Suppression)] == [("address", "call")]


def test_a_wrong_number_without_another_channel_has_failed(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    with store.write(db) as connection:
        connection.execute(update(table(Message)).values(refused="sms"))
    tasks.done(db, settings, opened(db, settings).task.id, Result.WRONG_NUMBER, NOW)

    assert (the_message(db).status, the_message(db).reason) == (Status.FAILED, Reason.REFUSED)


def test_who_wants_no_calls_is_opted_out(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    tasks.done(db, settings, opened(db, settings).task.id, Result.DO_NOT_CALL, NOW)

    assert the_message(db).status == Status.SENT
    assert [(row.scope, row.channel) for row in rows_of(db, Suppression)] == [("contact", "call")]
    assert [row.status for row in rows_of(db, Consent, by="recipient")] == ["revoked"]
    assert {row.kind for row in rows_of(db, MessageEvent)} == {"opted_out", "reached"}


def test_a_task_that_was_not_done_goes_back_to_the_list_uncounted(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    tasks.done(db, settings, opened(db, settings).task.id, Result.NOT_CALLED, NOW)
    dispatcher.dispatch(db, settings, NOW)

    (task,) = tasks.listed(db, settings)
    assert (task.status, task.calls, rows_of(db, MessageEvent)) == ("waiting", 0, [])


def test_an_opt_out_before_it_is_opened_ends_the_task(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    phone = next(row for row in rows_of(db, Contact) if row.kind == "phone")
    entry = {"address_hash": phone.address_hash, "kind": "phone", "scope": "contact", "channel": "sms"}
    with store.write(db) as connection:
        connection.execute(insert(table(Suppression)).values(**entry, source="", at=NOW))

    assert tasks.open_next(db, settings, NOW) is None
    assert (the_message(db).status, the_message(db).reason) == (Status.SKIPPED, Reason.SUPPRESSED)


def test_a_call_that_is_no_longer_allowed_goes_on_by_the_step_s_other_channel(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    phone = next(row for row in rows_of(db, Contact) if row.kind == "phone")
    entry = {"address_hash": phone.address_hash, "kind": "phone", "scope": "address", "channel": "call"}
    with store.write(db) as connection:
        connection.execute(insert(table(Suppression)).values(**entry, source="", at=NOW))

    assert tasks.open_next(db, settings, NOW) is None
    assert (the_message(db).status, rows_of(db, MessageContent)) == (Status.PLANNED, [])
    assert dispatcher.dispatch(db, settings, NOW + timedelta(seconds=1)).sent == 1
    assert the_message(db).channel == "sms"


def test_a_task_opened_outside_sending_hours_waits_for_them_and_comes_back(db: Database, settings: Settings) -> None:
    night = replace(settings, sending_hours={"default": WeekHours(((9 * 60, 20 * 60),) * 7)})
    waiting(db, night)
    late = NOW + 12 * HOUR  # 3:00 the next day, in UTC; 21:00 in Mexico City

    assert tasks.open_next(db, night, late) is None
    message = the_message(db)
    assert (message.blocked_by, message.ready_at) == (Reason.HOURS, NOW + 24 * HOUR)
    dispatcher.dispatch(db, night, message.ready_at)
    assert opened(db, night, message.ready_at).task.customer == "c1"


def test_a_task_of_a_paused_campaign_cannot_be_opened_and_is_there_again_afterwards(
    db: Database, settings: Settings
) -> None:
    waiting(db, settings)
    with store.write(db) as connection:
        connection.execute(update(table(CampaignState)).values(paused_at=NOW))
    assert tasks.open_next(db, settings, NOW) is None

    with store.write(db) as connection:
        connection.execute(update(table(CampaignState)).values(paused_at=None))
    assert opened(db, settings).task.customer == "c1"


def test_a_task_that_nobody_takes_expires(db: Database, settings: Settings) -> None:
    waiting(db, settings)

    counts = dispatcher.dispatch(db, settings, NOW + 48 * HOUR)

    message = the_message(db)
    assert counts.expired == 1
    assert (message.status, message.reason, message.blocked_by) == (Status.EXPIRED, Reason.EXPIRED, Reason.PERSON)


def test_an_opened_task_nobody_speaks_of_is_in_doubt_and_can_still_be_settled(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    task = opened(db, settings).task

    dispatcher.dispatch(db, settings, NOW + tasks.LEASE + HOUR)
    assert [one.status for one in tasks.listed(db, settings)] == ["unknown"]
    tasks.done(db, settings, task.id, Result.REACHED, NOW + 6 * HOUR)

    assert the_message(db).status == Status.SENT


def test_a_task_whose_opening_was_cut_off_is_there_again_in_a_few_minutes(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(db, settings)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(committing, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            tasks.open_next(db, settings, NOW)

    assert tasks.open_next(db, settings, NOW + timedelta(minutes=4)) is None
    later = NOW + timedelta(minutes=6)
    assert opened(db, settings, later).task.customer == "c1"
    assert the_message(db).lease_until == later + tasks.LEASE


def test_two_people_never_open_the_same_task(db: Database, settings: Settings) -> None:
    waiting(db, settings, *(customer(n, call_consent="yes") for n in (1, 2)))

    first, second = opened(db, settings), opened(db, settings)

    assert {first.task.customer, second.task.customer} == {"c1", "c2"}
    assert tasks.open_next(db, settings, NOW) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"result": Result.REACHED, "score": 9}, "the score 9 is not on the scale of csat: from 1 to 5"),
        ({"result": Result.NO_ANSWER, "score": 4}, "a score is taken only of somebody reached"),
        ({"result": Result.CALL_BACK}, "call_back takes the time agreed"),
        ({"result": Result.CALL_BACK, "call_at": NOW - HOUR}, "the time to call back has passed"),
        ({"result": Result.REACHED, "call_at": NOW + HOUR}, "call_back takes the time agreed"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    db: Database, settings: Settings, given: dict[str, Any], message: str
) -> None:
    waiting(db, settings)
    task = opened(db, settings).task
    before = the_message(db)

    with pytest.raises(OutreachError, match=message):
        tasks.done(db, settings, task.id, now=NOW, **given)

    assert the_message(db) == before


def test_a_task_must_exist_and_be_open(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    (task,) = tasks.listed(db, settings)

    with pytest.raises(OutreachError, match="is not open: `outreach tasks next"):
        tasks.done(db, settings, task.id, Result.REACHED, NOW)
    with pytest.raises(NotFound, match="there is no task"):
        tasks.done(db, settings, "f" * 32, Result.REACHED, NOW)
    assert tasks.full_id(db, task.id[:10].upper()) == task.id
    with pytest.raises(NotFound, match="there is no one task"):
        tasks.full_id(db, "zz")


def test_what_is_over_or_not_on_the_list_is_not_said_to_be_there_for_opening(db: Database, settings: Settings) -> None:
    waiting(db, settings)
    task = opened(db, settings).task.id

    tasks.done(db, settings, task, Result.CALL_BACK, NOW, call_at=NOW + HOUR)
    with pytest.raises(OutreachError, match="not on the list now") as not_yet:
        tasks.done(db, settings, task, Result.REACHED, NOW)
    dispatcher.dispatch(db, settings, NOW + HOUR)
    opened(db, settings, NOW + HOUR)
    with store.write(db) as connection:
        connection.execute(update(table(Message)).values(status=Status.UNKNOWN, claim=None))  # as after a restore
    with pytest.raises(OutreachError, match=f"in doubt: `outreach resolve {task}` settles it"):
        tasks.done(db, settings, task, Result.REACHED, NOW + HOUR)
    with store.write(db) as connection:
        connection.execute(update(table(Message)).values(status=Status.SENT))
    with pytest.raises(OutreachError, match=r"is over \(sent\): nothing more can be said of it") as over:
        tasks.done(db, settings, task, Result.REACHED, NOW + HOUR)

    assert "tasks next" not in f"{not_yet.value} {over.value}"


# --- the verbs -------------------------------------------------------------------------------------


def test_what_a_shop_s_file_holds_does_not_steer_the_terminal(
    db: Database,
    database_url: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = files_of({"message_templates/m.call.j2": "Hola, {{ customer.first_name }}.\n\x1b[2J¿Qué tal?"}, calls=CALLS)
    waiting(db, settings, customer(1, call_consent="yes"), files=files)
    with store.write(db) as connection:
        connection.execute(update(table(Customer)).values(first_name="A\x1b[2Jna\ue000"))
    (tmp_path / "outreach.yaml").write_text(WORKSPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTREACH_SECRET", SECRET)
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)

    shown = []
    for verb in ("list", "next"):
        monkeypatch.setattr(sys, "argv", ["outreach", "tasks", verb, "--now", NOW.isoformat()])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert (left.value.code or 0, printed.err) == (0, "")
        shown.append(printed.out)

    assert all("A·[2Jna·" in out and "\x1b" not in out and "\ue000" not in out for out in shown)
    assert "Call A·[2Jna· at +525541000001\n" in shown[1]
    assert "\nHola, A[2Jna·.\n·[2J¿Qué tal?\n" in shown[1]
