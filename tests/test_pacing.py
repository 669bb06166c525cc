"""How fast senders may send, over all processes; and what refusals do to senders, people and campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from outreach import channels, dispatcher, planner, releases, store
from outreach.alerts.holding import PATIENCE, holding, look
from outreach.channels import Blame, Outcome, Outgoing, Receipt, Silent
from outreach.dispatcher import handing, recording, tick, watching
from outreach.errors import DatabaseError
from outreach.models import (
    CampaignState,
    Consent,
    Message,
    MessageEvent,
    Rate,
    Reason,
    Scope,
    Status,
    Suppression,
    table,
)
from outreach.settings import ChannelSettings, Settings
from outreach.store import Database
from outreach.values import Duration, Limit
from tests.conftest import NOW, SECRET
from tests.copies import Original
from tests.shop import customer, feed, publish, rows_of, shop_settings

SECOND = timedelta(seconds=1)
TEXTS = """
    title: Texts
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: hi, after: 0 minutes, channel: [CHANNELS], template: m, expires: 3 days}]
"""


@dataclass
class Provider(Silent):
    """Answers as told, message by message."""

    answer: Callable[[Outgoing], Receipt]
    got: list[Outgoing] = field(default_factory=list)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for message in batch:
            self.got.append(message)
            yield self.answer(message)


def accepted(message: Outgoing) -> Receipt:
    return Receipt(message.public_id, Outcome.ACCEPTED, f"p-{message.public_id}")


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Outgoing], Receipt] = accepted) -> Provider:
    provider = Provider(answer)
    monkeypatch.setattr(channels, "open_channel", lambda _name, _settings: provider)
    return provider


def sms(settings: Settings, *senders: str, rate: Limit | None = None, **options: Any) -> Settings:
    made = ChannelSettings("outbox", senders[0], options, senders if len(senders) > 1 else (), rate)
    return replace(settings, channels={**settings.channels, "sms": made})


def planned(db: Database, settings: Settings, people: int, channels: str = "sms") -> None:
    publish(db, settings, NOW - timedelta(hours=1), texts=TEXTS.replace("CHANNELS", channels))
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(people)])
    planner.plan(db, settings, NOW)


def per(count: int, **length: int) -> Limit:
    return Limit(count, Duration(**length))


# --- rates -----------------------------------------------------------------------------------------


def test_a_sender_sends_no_faster_than_its_rate_and_everything_goes_in_time(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(1, seconds=1))
    answering(monkeypatch)
    planned(db, settings, 23)

    sent = [dispatcher.dispatch(db, settings, NOW + 5 * n * SECOND).sent for n in range(5)]

    assert sent == [5, 5, 5, 5, 3]
    assert {row.reason for row in rows_of(db, Message)} == {None}


def test_what_must_wait_is_looked_at_again_when_its_turn_comes_and_not_before(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(1, seconds=60))
    answering(monkeypatch)
    planned(db, settings, 4)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.sent, counts.by_reason) == (1, {"rate": 3})
    waiting = sorted(row.ready_at for row in rows_of(db, Message, status=Status.PLANNED))
    assert waiting == [NOW + n * timedelta(minutes=1) for n in (1, 2, 3)]
    assert dispatcher.dispatch(db, settings, NOW + 59 * SECOND).claimed == 0
    assert dispatcher.dispatch(db, settings, NOW + 60 * SECOND).as_json()["sent"] == 1


def test_what_is_urgent_neither_waits_behind_what_is_not_nor_expires_for_its_sake(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(6, seconds=60))
    provider = answering(monkeypatch)
    planned(db, settings, 200)
    dispatcher.dispatch(db, settings, NOW)  # the other 199 are spread over half an hour
    with store.write(db) as connection:
        urgent = [row.id for row in rows_of(db, Message, status=Status.PLANNED)][:8]
        soon = {"ready_at": NOW, "priority": 900, "expires_at": NOW + timedelta(minutes=5)}
        connection.execute(update(table(Message)).where(table(Message).c.id.in_(urgent)).values(soon))

    for seconds in range(0, 100, 5):
        dispatcher.dispatch(db, settings, NOW + seconds * SECOND)

    assert {rows_of(db, Message, id=number)[0].status for number in urgent} == {Status.SENT}
    assert len(provider.got) == 10


def test_what_cannot_leave_in_time_at_its_sender_s_rate_ends_at_its_expiry_and_not_before(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(1, seconds=4 * 3600))
    answering(monkeypatch)
    planned(db, settings, 25)
    now = NOW
    while waiting := rows_of(db, Message, status=Status.PLANNED):
        assert now < NOW + timedelta(days=4)
        now = max(now + SECOND, min(row.ready_at for row in waiting))
        dispatcher.dispatch(db, settings, now)

    ended = rows_of(db, Message, status=Status.EXPIRED)
    assert (len(rows_of(db, Message, status=Status.SENT)), len(ended)) == (18, 7)
    assert {(row.reason, row.blocked_by) for row in ended} == {(Reason.EXPIRED, Reason.RATE)}
    assert now >= NOW + timedelta(days=3)


def test_a_daily_quota_is_never_exceeded_by_more_than_one(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(6, days=1))
    answering(monkeypatch)
    planned(db, settings, 30)

    sent = sum(dispatcher.dispatch(db, settings, NOW + timedelta(hours=n)).sent for n in range(24))

    assert sent == 6


def test_the_parts_of_an_sms_count_one_each(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(1, seconds=1))
    answering(monkeypatch)
    planned(db, settings, 9)
    monkeypatch.setattr("outreach.render.sms_segments", lambda _text: (3, "GSM-7"))

    assert dispatcher.dispatch(db, settings, NOW).sent == 2


def test_of_several_senders_each_has_its_own_rate_and_each_contact_always_the_same(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", "+2", rate=per(1, seconds=60))
    provider = answering(monkeypatch)
    planned(db, settings, 20)

    assert dispatcher.dispatch(db, settings, NOW).sent == 2
    assert {message.sender for message in provider.got} == {"+1", "+2"}
    for minute in range(1, 20):
        dispatcher.dispatch(db, settings, NOW + timedelta(minutes=minute))
    assert min(Counter(message.sender for message in provider.got).values()) >= 5
    assert len({message.address for message in provider.got}) == len(provider.got) == 20


def test_a_provider_has_a_limit_of_its_own_over_all_senders(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(sms(shop_settings(tmp_path), "+1", "+2"), rates={"outbox": per(1, seconds=60)})
    answering(monkeypatch)
    planned(db, settings, 5)

    assert dispatcher.dispatch(db, settings, NOW).by_reason == {"rate": 4}


def test_a_long_code_of_twilio_has_one_part_a_second_unless_told_otherwise(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    settings = replace(settings, channels={**settings.channels, "sms": ChannelSettings("twilio", "+1")})
    answering(monkeypatch)
    planned(db, settings, 9)

    assert dispatcher.dispatch(db, settings, NOW).by_reason == {"rate": 4}


TWELVE = Original()


def plan_twelve(folder: Path, url: str) -> None:
    db = store.open_database(url, secret=SECRET)
    planned(db, shop_settings(folder), 12)
    db.engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 3),
    seconds=st.integers(1, 20),
    ticks=st.lists(st.integers(0, 30), min_size=3, max_size=12),
)
def test_in_any_stretch_a_sender_gets_what_its_rate_allows_and_one_tick_more(
    kind: str,
    new_database: Callable[[str], str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    count: int,
    seconds: int,
    ticks: list[int],
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(count, seconds=seconds))
    url = new_database(kind)
    TWELVE.copy(request, tmp_path, plan_twelve, url)
    db = store.open_database(url, secret=SECRET)
    now, sent = NOW, []
    for wait in ticks:
        now += wait * SECOND
        sent += [now] * dispatcher.dispatch(db, settings, now).sent

    burst = 1 + 5 * count / seconds
    for first, start in enumerate(sent):
        for last in range(first, len(sent)):
            length = (sent[last] - start).total_seconds()
            assert last - first + 1 <= count * length / seconds + burst
    db.engine.dispose()


# --- too fast --------------------------------------------------------------------------------------


def too_fast(sender: str, wait: timedelta | None = timedelta(seconds=90)) -> Callable[[Outgoing], Receipt]:
    def answer(message: Outgoing) -> Receipt:
        if message.sender != sender:
            return accepted(message)
        return Receipt(message.public_id, Outcome.LATER, retry_after=wait, blame=Blame.SENDER, code="20429")

    return answer


def test_a_sender_that_is_too_fast_is_slowed_and_no_other(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", "+2")
    answering(monkeypatch, too_fast("+1"))
    planned(db, settings, 20)

    counts = dispatcher.dispatch(db, settings, NOW)

    waiting = rows_of(db, Message, status=Status.PLANNED)
    assert 5 <= counts.sent <= 15
    assert counts.by_reason == {"rate": 20 - counts.sent} == {"rate": len(waiting)}
    assert {(row.ready_at, row.attempts) for row in waiting} == {(NOW + timedelta(seconds=90), 0)}
    assert {row.name: row.slow_until for row in rows_of(db, Rate)} == {"sms +1": NOW + timedelta(seconds=90)}


def test_what_comes_due_while_its_sender_is_slowed_waits_without_being_tried(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    provider = answering(monkeypatch, too_fast("+1"))
    planned(db, settings, 1)
    dispatcher.dispatch(db, settings, NOW)
    feed(db, settings, NOW, customers=[customer(50, created_at=NOW)])
    planner.plan(db, settings, NOW)

    counts = dispatcher.dispatch(db, settings, NOW + 30 * SECOND)

    assert (len(provider.got), counts.by_reason) == (1, {"rate": 1})
    provider.answer = accepted
    assert dispatcher.dispatch(db, settings, NOW + 90 * SECOND).sent == 2
    assert [row.slow_until for row in rows_of(db, Rate)] == [None]


def test_without_a_time_given_each_slowing_in_a_row_is_longer(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    answering(monkeypatch, too_fast("+1", None))
    planned(db, settings, 1)
    now, waits = NOW, []
    for _ in range(4):
        dispatcher.dispatch(db, settings, now)
        (rate,) = rows_of(db, Rate)
        waits.append(rate.slow_until - now)
        now = rate.slow_until

    assert all(later > sooner for sooner, later in pairwise(waits))


def test_a_provider_out_of_order_puts_few_messages_in_doubt_and_is_left_alone_for_a_while(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    provider = answering(monkeypatch, lambda message: Receipt(message.public_id, Outcome.DOUBT, detail="500"))
    planned(db, settings, 250)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (len(provider.got), counts.unknown) == (handing.MOST_DOUBTS, handing.MOST_DOUBTS)
    (rate,) = rows_of(db, Rate)
    waiting = rows_of(db, Message, status=Status.PLANNED)
    assert len(waiting) == 245
    assert min(row.ready_at for row in waiting) >= rate.slow_until > NOW
    assert {row.attempts for row in waiting} == {0}
    provider.answer = accepted
    assert dispatcher.dispatch(db, settings, rate.slow_until).sent == 245


# --- refusals --------------------------------------------------------------------------------------


def refusing(blame: Blame, code: str) -> Callable[[Outgoing], Receipt]:
    return lambda message: (
        Receipt(message.public_id, Outcome.REFUSED, detail="no", blame=blame, code=code)
        if message.channel == "sms"
        else accepted(message)
    )


def test_an_address_where_nobody_is_stays_known_for_its_channel_and_the_next_is_tried(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    provider = answering(monkeypatch, refusing(Blame.ADDRESS, "21614"))
    planned(db, settings, 1, "sms, whatsapp")

    dispatcher.dispatch(db, settings, NOW)

    assert [message.channel for message in provider.got] == ["sms", "whatsapp"]
    assert [(row.scope, row.channel, row.source) for row in rows_of(db, Suppression)] == [
        (Scope.ADDRESS, "sms", "sms 21614")
    ]
    assert [row.kind for row in rows_of(db, MessageEvent)] == ["bounced"]


def test_who_told_the_provider_to_stop_is_opted_out_here_at_once(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    provider = answering(monkeypatch, refusing(Blame.OPT_OUT, "21610"))
    planned(db, settings, 1, "sms, whatsapp")

    dispatcher.dispatch(db, settings, NOW)

    assert [message.channel for message in provider.got] == ["sms"]
    (message,) = rows_of(db, Message)
    assert (message.status, message.reason) == (Status.SKIPPED, Reason.SUPPRESSED)
    assert [(row.scope, row.channel) for row in rows_of(db, Suppression)] == [(Scope.CONTACT, "sms")]
    assert [(row.channel, row.source) for row in rows_of(db, Consent, by="recipient")] == [("sms", "sms 21610")]
    assert [row.kind for row in rows_of(db, MessageEvent)] == ["opted_out"]


def test_a_refused_text_ends_the_message_and_blames_nobody(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    answering(monkeypatch, refusing(Blame.MESSAGE, "21617"))
    planned(db, settings, 1, "sms, whatsapp")

    assert dispatcher.dispatch(db, settings, NOW).by_reason == {"text_refused": 1}
    assert (rows_of(db, Suppression), rows_of(db, MessageEvent)) == ([], [])


@pytest.mark.parametrize("blame", [Blame.MESSAGE, Blame.PLACE])
def test_a_campaign_of_which_everything_is_refused_is_paused_and_none_of_it_has_failed(
    blame: Blame, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    provider = answering(monkeypatch, refusing(blame, "21617"))
    planned(db, settings, 250)

    dispatcher.dispatch(db, settings, NOW)

    (state,) = rows_of(db, CampaignState)
    assert state.paused_reason == "5 messages and more were refused, and none was taken: no"
    assert len(provider.got) == dispatcher.CHUNK
    assert len(rows_of(db, Message, status=Status.PLANNED)) == 250

    provider.answer = accepted
    releases.resume(db, "texts", NOW)
    assert dispatcher.dispatch(db, settings, NOW).sent == 250


def test_one_country_that_cannot_be_reached_goes_on_by_the_next_channel_and_stops_nobody_else(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    refuse = refusing(Blame.PLACE, "21408")
    answering(monkeypatch, lambda message: (refuse if message.address.endswith("0") else accepted)(message))
    planned(db, settings, 30, "sms, whatsapp")

    dispatcher.dispatch(db, settings, NOW)

    sent = Counter(row.channel for row in rows_of(db, Message, status=Status.SENT))
    assert sent == {"sms": 27, "whatsapp": 3}
    assert (rows_of(db, Suppression), rows_of(db, MessageEvent)) == ([], [])
    assert rows_of(db, CampaignState)[0].paused_at is None


def test_a_mistake_of_one_campaign_pauses_that_campaign_alone_and_costs_no_message(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    wrong = TEXTS.replace("CHANNELS", "whatsapp")

    def answer(message: Outgoing) -> Receipt:
        if message.channel == "sms":
            return accepted(message)
        return Receipt(message.public_id, Outcome.LATER, detail="no such template", blame=Blame.CAMPAIGN)

    provider = answering(monkeypatch, answer)
    publish(db, settings, NOW - timedelta(hours=1), right=TEXTS.replace("CHANNELS", "sms"), wrong=wrong)
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(20)])
    planner.plan(db, settings, NOW)

    dispatcher.dispatch(db, settings, NOW)

    states = {row.name: row.paused_reason for row in rows_of(db, CampaignState)}
    assert states == {"right": "", "wrong": "whatsapp: no such template"}
    assert len(provider.got) == 40
    assert Counter((row.campaign, row.status, row.attempts) for row in rows_of(db, Message)) == {
        ("right", Status.SENT, 1): 20,
        ("wrong", Status.PLANNED, 0): 20,
    }


def test_while_nobody_can_be_reached_a_message_waits_for_as_long_as_it_may(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    provider = answering(
        monkeypatch, lambda message: Receipt(message.public_id, Outcome.LATER, detail="no route", blame=Blame.ROUTE)
    )
    planned(db, settings, 3)
    now = NOW
    while now < NOW + timedelta(days=1):
        dispatcher.dispatch(db, settings, now)
        now += timedelta(minutes=10)
    assert 20 <= len(provider.got) / 3 <= 60
    assert {(row.status, row.blocked_by, row.detail, row.attempts) for row in rows_of(db, Message)} == {
        (Status.PLANNED, Reason.CHANNEL, "no route", 0),
    }

    provider.answer = accepted
    assert dispatcher.dispatch(db, settings, now + timedelta(hours=1)).sent == 3


def test_one_connection_that_fails_slows_nobody_while_others_get_through(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    seen: list[str] = []

    def answer(message: Outgoing) -> Receipt:
        seen.append(message.public_id)
        if len(seen) == 2:
            return Receipt(message.public_id, Outcome.LATER, detail="no route", blame=Blame.ROUTE)
        return accepted(message)

    answering(monkeypatch, answer)
    planned(db, settings, 3)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.sent, counts.by_reason) == (2, {"channel": 1})
    assert [row.slow_until for row in rows_of(db, Rate)] in ([], [None])
    (waiting,) = rows_of(db, Message, status=Status.PLANNED)
    assert waiting.attempts == 0
    assert NOW < waiting.ready_at < NOW + timedelta(minutes=10)
    assert dispatcher.dispatch(db, settings, waiting.ready_at).sent == 1


def test_what_comes_due_while_its_provider_is_out_of_order_says_that_and_not_that_its_sender_is_too_fast(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1", rate=per(100))
    answering(
        monkeypatch, lambda message: Receipt(message.public_id, Outcome.LATER, detail="no route", blame=Blame.ROUTE)
    )
    planned(db, settings, 1)
    dispatcher.dispatch(db, settings, NOW)
    feed(db, settings, NOW, customers=[customer(50, created_at=NOW)])
    planner.plan(db, settings, NOW)

    counts = dispatcher.dispatch(db, settings, NOW + SECOND)

    assert counts.by_reason == {"channel": 1}
    assert {(row.blocked_by, row.detail) for row in rows_of(db, Message)} == {("channel", "no route")}


@pytest.mark.parametrize("senders", [("+1",), ("+1", "+2")])
def test_a_channel_by_which_nothing_gets_through_is_an_alarm_until_something_does(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, senders: tuple[str, ...]
) -> None:
    settings = sms(shop_settings(tmp_path), *senders)
    provider = answering(
        monkeypatch,
        lambda message: (
            Receipt(message.public_id, Outcome.LATER, detail="no route", blame=Blame.ROUTE)
            if message.sender == "+1"
            else accepted(message)
        ),
    )
    planned(db, settings, 20)
    dispatcher.dispatch(db, settings, NOW)
    began, patience = NOW, PATIENCE

    assert alarms(db, settings, began + patience) == []
    now = began
    while now <= began + patience:
        now += timedelta(minutes=4)
        dispatcher.dispatch(db, settings, now)
    ((name, text, since),) = alarms(db, settings, now)
    assert (name, since) == ("channel:sms", began)
    assert ("+1: no route" if len(senders) > 1 else "no route") in text
    assert alarms(db, replace(settings, channels={}), now) == []

    provider.answer = accepted
    assert dispatcher.dispatch(db, settings, now + timedelta(hours=1)).sent > 0
    assert alarms(db, settings, now + timedelta(hours=1)) == []


def alarms(db: Database, settings: Settings, now: datetime) -> list[tuple[str, str, datetime]]:
    with store.read(db) as connection:
        held = holding(look(connection, now), settings, now)
    return [(one.name, one.text, one.since) for one in held.values()]


def test_what_is_refused_for_now_is_given_up_after_eight_attempts(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    provider = answering(monkeypatch, lambda message: Receipt(message.public_id, Outcome.LATER, detail="451 4.3.0"))
    planned(db, settings, 1)
    now = NOW
    while (row := rows_of(db, Message)[0]).status == Status.PLANNED:
        now = max(now, row.ready_at)
        dispatcher.dispatch(db, settings, now)

    assert (row.status, row.reason, row.detail) == (Status.FAILED, Reason.GAVE_UP, "451 4.3.0")
    assert len(provider.got) == recording.MOST_ATTEMPTS
    assert now < NOW + timedelta(days=3)


def test_a_database_that_is_away_for_a_moment_loses_no_receipt(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sms(shop_settings(tmp_path), "+1")
    provider = answering(monkeypatch)
    planned(db, settings, 3)
    monkeypatch.setattr(tick, "RECORD_AGAIN", (0, 0))
    record, away = recording.record, iter([True, True])

    def away_at_first(*arguments: Any) -> None:
        record(*arguments)
        if next(away, False):
            raise DatabaseError("the database cannot be used: it restarts")

    monkeypatch.setattr(recording, "record", away_at_first)

    counts = dispatcher.dispatch(db, settings, NOW)

    assert (counts.claimed, counts.sent, counts.unknown, len(provider.got)) == (3, 3, 0, 3)


# --- campaigns that bounce -------------------------------------------------------------------------


def bouncing(share: int) -> Callable[[Outgoing], Receipt]:
    """Every so many'th address does not exist."""

    def answer(message: Outgoing) -> Receipt:
        if int(message.address[-4:]) % share:
            return accepted(message)
        return Receipt(message.public_id, Outcome.REFUSED, detail="no", blame=Blame.ADDRESS, code="21614")

    return answer


def test_a_campaign_that_bounces_too_much_is_paused_with_the_figures(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    answering(monkeypatch, bouncing(10))
    planned(db, settings, 150)

    dispatcher.dispatch(db, settings, NOW)

    (state,) = rows_of(db, CampaignState)
    assert (state.paused_at, state.paused_reason) == (NOW, "15 of 150 messages bounced (10.0%, over 5.0%)")


def test_a_campaign_below_the_limit_or_with_few_messages_goes_on(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, bouncing(25))
    settings = shop_settings(tmp_path)
    planned(db, settings, 260)

    dispatcher.dispatch(db, settings, NOW)

    assert len(rows_of(db, MessageEvent, kind="bounced")) >= watching.FEWEST["bounced"]
    assert [state.paused_at for state in rows_of(db, CampaignState)] == [None]


def test_complaints_about_messages_of_another_day_are_measured_against_that_day_s(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    answering(monkeypatch)
    planned(db, settings, 150)
    dispatcher.dispatch(db, settings, NOW)
    later = NOW + timedelta(days=2)
    complain(db, 3, later)
    dispatcher.dispatch(db, replace(settings, complaints=0.021), later)
    assert [state.paused_at for state in rows_of(db, CampaignState)] == [None]

    dispatcher.dispatch(db, replace(settings, complaints=0.019), later)
    assert [state.paused_reason for state in rows_of(db, CampaignState)] == [
        "3 of 150 messages complained (2.0%, over 1.9%)"
    ]


def complain(db: Database, how_many: int, at: datetime) -> None:
    with store.write(db) as connection:
        for row in rows_of(db, Message)[:how_many]:
            event = {"event_id": f"complaint {row.id}", "message_id": row.id, "customer_id": row.customer_id}
            connection.execute(insert(table(MessageEvent)).values(**event, kind="complained", at=at, detail={}))


def test_after_a_person_resumed_it_only_new_bounces_count(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_settings(tmp_path)
    provider = answering(monkeypatch, bouncing(10))
    planned(db, settings, 150)
    dispatcher.dispatch(db, settings, NOW)
    later: datetime = NOW + timedelta(hours=1)
    with store.write(db) as connection:
        connection.execute(update(table(CampaignState)).values(paused_at=None, resumed_at=later))
    provider.answer = accepted

    dispatcher.dispatch(db, settings, later + timedelta(minutes=1))

    assert [state.paused_at for state in rows_of(db, CampaignState)] == [None]
