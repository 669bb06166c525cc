"""Cases: opened once, joined, worked on, closed; and campaigns that start on them as on imported ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text

from outreach import alerts, cases, dispatcher, planner, store
from outreach.campaigns import ANSWERS
from outreach.cases import Opening
from outreach.errors import NotFound, OutreachError
from outreach.models import (
    Alarm,
    Case,
    CaseNote,
    Fresh,
    Message,
    Order,
    Reply,
    ReplyAnswer,
    Status,
    table,
)
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import Duration
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FOLLOW = """
    title: Follow-up of cases
    trigger: {event: case.opened, kind: complaint}
    steps: [{id: sorry, after: 0 minutes, channel: email, template: m, purpose: service}]
"""
OFFER = """
    title: Unresolved complaints
    trigger: {event: case.closed, kind: complaint, outcome: unresolved}
    goal: {event: order.placed, within: 30 days}
    steps: [{id: offer, after: 1 hour, channel: email, template: m}]
"""
KEEP = """
    title: Keep who wants to cancel
    trigger: {event: case.opened, kind: cancellation}
    steps: [{id: stay, after: 0 minutes, channel: email, template: m}]
"""
LATE = """
    title: Overdue
    trigger: {event: case.overdue, after: 2 days}
    steps: [{id: late, after: 0 minutes, channel: email, template: m, purpose: service}]
"""
NEWS = """
    title: News
    trigger: {event: order.placed}
    steps: [{id: news, after: 0 minutes, channel: email, template: m}]
"""


@pytest.fixture
def settings(db: Database, tmp_path: Path) -> Settings:
    """A shop with three customers and an order each."""
    made = shop_settings(tmp_path)
    orders = [order(n, f"c{n}", NOW - DAY) for n in (1, 2, 3)] + [order(12, "c1", NOW - 2 * DAY)]
    feed(db, made, NOW - HOUR, customers=[customer(n) for n in (1, 2, 3)], orders=orders)
    return made


def opened(db: Database, settings: Settings, *openings: Opening, now: datetime = NOW) -> list[int]:
    found = []
    for opening in openings:
        with store.write(db) as connection:
            found.append(cases.open_case(connection, settings, now, opening))
    return found


def complaint(number: int = 1, at: datetime = NOW, **more: Any) -> Opening:
    return replace(Opening("complaint", number, at, "reply"), **more)


def fresh(db: Database, kind: str) -> list[tuple[int, int, datetime | None]]:
    return [(row.record_id, row.customer_id, row.at) for row in rows_of(db, Fresh, kind=kind)]


def log(db: Database, case: str, now: datetime = NOW + 90 * DAY) -> list[tuple[str, str, str]]:
    return [(line.kind, line.by, line.text) for line in cases.show(db, now, case).log]


def sent(db: Database, **equals: Any) -> list[Any]:
    return rows_of(db, Message, status=Status.SENT, **equals)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_an_opened_case_has_a_target_time_a_log_and_a_row_in_the_queue(db: Database, settings: Settings) -> None:
    (case,) = opened(db, settings, complaint(note="llegó roto", category="envío", sku="CAF"))

    (row,) = rows_of(db, Case)
    assert (row.id, row.customer_id, row.kind, row.opened_at, row.opened_by) == (case, 1, "complaint", NOW, "reply")
    assert (row.due_at, row.note, row.category, row.sku) == (NOW + DAY, "llegó roto", "envío", "CAF")
    assert fresh(db, "case.opened") == [(case, 1, NOW)]
    assert log(db, row.external_id) == [("opened", "reply", "llegó roto")]
    assert row.external_id.startswith("oc-")


def test_the_settings_say_until_when(db: Database, settings: Settings) -> None:
    slow = replace(settings, targets={"complaint": Duration(days=5)})
    opened(db, slow, complaint(), Opening("question", 2, NOW, "reply"))

    assert [row.due_at for row in rows_of(db, Case)] == [NOW + 5 * DAY, None]


def test_the_same_key_is_the_same_case_even_once_it_is_closed(db: Database, settings: Settings) -> None:
    (first,) = opened(db, settings, complaint(key="SM1", note="a"))
    (again,) = opened(db, settings, complaint(key="SM1", note="b"))
    name = rows_of(db, Case)[0].external_id
    cases.close(db, NOW, name, "resolved", "", "ana")
    (after,) = opened(db, settings, complaint(key="SM1", note="c"))
    (other,) = opened(db, settings, complaint(key="SM2"))

    assert first == again == after != other
    assert [kind for kind, _, _ in log(db, name)] == ["opened", "closed"]


def test_an_open_case_of_the_same_kind_is_joined(db: Database, settings: Settings) -> None:
    first, again, other_kind, other_person = opened(
        db,
        settings,
        complaint(note="a"),
        complaint(at=NOW + HOUR, note="b", category="envío"),
        Opening("refund", 1, NOW, "reply"),
        complaint(2),
        now=NOW + 2 * HOUR,
    )

    assert first == again
    assert len({first, other_kind, other_person}) == 3
    row = rows_of(db, Case, id=first)[0]
    assert (row.opened_at, row.category) == (NOW, "envío")
    assert log(db, row.external_id) == [("opened", "reply", "a"), ("joined", "reply", "b")]
    assert len(fresh(db, "case.opened")) == 3


def test_cases_that_a_person_opens_about_two_orders_are_two_and_one_about_none_joins(
    db: Database, settings: Settings
) -> None:
    one, two = (rows_of(db, Order, external_id=name)[0].id for name in ("o1", "o12"))
    said = complaint(by="ana")
    first, second, vague, third = opened(
        db, settings, replace(said, order_id=one), replace(said, order_id=two), said, replace(said, order_id=two)
    )
    (late,) = opened(db, settings, Opening("question", 1, NOW, "ana"))
    (named,) = opened(db, settings, Opening("question", 1, NOW, "ana", order_id=one))

    assert first != second
    assert vague in (first, second)
    assert third == second
    assert (named, rows_of(db, Case, id=late)[0].order_id) == (late, one)


def test_what_a_customer_writes_joins_the_case_of_its_order_else_the_first(db: Database, settings: Settings) -> None:
    one, two = (rows_of(db, Order, external_id=name)[0].id for name in ("o1", "o12"))
    first, second = opened(db, settings, complaint(by="ana", order_id=one), complaint(by="ana", order_id=two))
    right, vague = opened(db, settings, complaint(order_id=two), complaint())
    asked = Opening("question", 1, NOW, "reply")
    start, follow = opened(db, settings, replace(asked, order_id=one, key="a"), replace(asked, order_id=two, key="b"))

    assert (right, vague) == (second, first)
    assert (follow, rows_of(db, Case, id=start)[0].order_id) == (start, one)


def test_an_imported_case_that_is_open_is_joined_and_keeps_its_times(db: Database, settings: Settings) -> None:
    row = {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW - HOUR}
    feed(db, settings, NOW, cases=[row])
    (case,) = opened(db, settings, complaint(at=NOW - 2 * HOUR, note="sigue roto"))

    (stored,) = rows_of(db, Case)
    assert (stored.id, stored.external_id, stored.opened_at, stored.opened_by) == (case, "k1", NOW - HOUR, "import")
    assert log(db, "k1") == [("joined", "reply", "sigue roto")]


def test_what_the_shop_s_file_says_of_a_case_stands_and_only_its_gaps_are_filled(
    db: Database, settings: Settings
) -> None:
    one, two = (rows_of(db, Order, external_id=name)[0].id for name in ("o1", "o12"))
    opened(db, settings, complaint(key="a", note="a"))
    name = rows_of(db, Case)[0].external_id
    row = {"case_id": name, "customer_id": "c1", "kind": "complaint", "opened_at": NOW - 2 * HOUR, "category": "envío"}
    feed(db, settings, NOW + HOUR, cases=[row])

    later, earlier = (
        complaint(key="b", at=NOW, category="talla", order_id=two),
        complaint(key="c", at=NOW - DAY, order_id=one),
    )
    opened(db, settings, later, earlier, now=NOW + HOUR)

    (case,) = rows_of(db, Case)
    assert (case.opened_at, case.category, case.order_id) == (NOW - 2 * HOUR, "envío", one)


def test_an_order_named_of_an_imported_case_without_one_is_kept(db: Database, settings: Settings) -> None:
    one, two = (rows_of(db, Order, external_id=name)[0].id for name in ("o1", "o12"))
    row = {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW - HOUR}
    feed(db, settings, NOW, cases=[row])

    first, second = opened(db, settings, complaint(by="ana", order_id=one), complaint(by="ana", order_id=two))

    assert rows_of(db, Case, id=first)[0].order_id == one
    assert first != second


def test_what_comes_to_light_late_leaves_the_target_of_a_case_that_was_opened_again(
    db: Database, settings: Settings
) -> None:
    opened(db, settings, complaint(key="a"))
    name = rows_of(db, Case)[0].external_id
    cases.close(db, NOW + HOUR, name, "resolved", "", "ana")
    cases.reopen(db, settings, NOW + 30 * DAY, name, "", "ana")

    opened(db, settings, complaint(key="b", at=NOW - DAY), now=NOW + 30 * DAY)

    (case,) = rows_of(db, Case)
    assert (case.opened_at, case.due_at) == (NOW - DAY, NOW + 31 * DAY)


@st.composite
def several_openings(draw: st.DrawFn) -> list[Opening]:
    """What customers wrote, few enough times, orders and categories to meet again and again."""
    said = st.builds(
        Opening,
        kind=st.sampled_from(("complaint", "question")),
        customer_id=st.sampled_from((1, 1, 1, 2)),
        at=st.sampled_from((NOW - 2 * HOUR, NOW - HOUR, NOW)),
        by=st.just("reply"),
        message_id=st.sampled_from((None, 5, 6)),
        order_id=st.sampled_from((None, 1, 4)),
        category=st.sampled_from((None, "envío", "talla")),
        sku=st.sampled_from((None, "CAF")),
        note=st.sampled_from(("", "a", "b")),
    )
    some = draw(st.lists(said, min_size=1, max_size=7))
    return [replace(one, key=f"k{number}", reply_id=100 + number) for number, one in enumerate(some)]


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(openings=several_openings(), theirs=st.booleans(), dice=st.randoms(use_true_random=False))
def test_whatever_order_they_come_in_the_same_openings_make_the_same_cases(
    db: Database, settings: Settings, openings: list[Opening], theirs: bool, dice: random.Random
) -> None:
    again = openings * 2
    dice.shuffle(again)
    found = []
    for some in (sorted(openings, key=lambda one: (one.at, one.key)), again):
        with suppress(_Undone), store.write(db) as connection:
            for one in (1, 4) if theirs else ():
                cases.open_case(connection, settings, NOW, complaint(by="ana", order_id=one, note="ana"))
            for opening in some:
                cases.open_case(connection, settings, NOW, opening)
            found.append(_state(connection))
            raise _Undone

    assert found[0] == found[1]


class _Undone(Exception):
    """Ends a transaction that is not to be committed."""


def _state(connection: Connection) -> Any:
    """What stands in cases and logs, without our row numbers, what a person's line is called, and who came first."""
    lines: dict[int, list[Any]] = {}
    for line in connection.execute(select(table(CaseNote))):
        key = line.key if line.by == "reply" else ""
        lines.setdefault(line.case_id, []).append((key, line.at, line.text, line.by))
    rows = connection.execute(select(table(Case)).order_by(table(Case).c.external_id)).all()
    return [(row[1:], sorted(lines[row.id])) for row in rows]


def test_a_time_ahead_counts_as_now(db: Database, settings: Settings) -> None:
    opened(db, settings, complaint(at=NOW + DAY))

    assert rows_of(db, Case)[0].opened_at == NOW


def test_the_reply_that_opens_a_case_is_about_it(db: Database, settings: Settings) -> None:
    reply = replied(db, NOW)
    (case,) = opened(db, settings, complaint(reply_id=reply))
    opened(db, settings, Opening("refund", 1, NOW, "reply", reply_id=reply))

    assert rows_of(db, Reply)[0].case_id == case


def replied(db: Database, at: datetime, case: int | None = None) -> int:
    with store.write(db) as connection:
        values = {"event_id": f"r{at}", "channel": "email", "contact_id": 1, "customer_id": 1, "text": "x", "at": at}
        into = insert(table(Reply)).values(**values, intents=[], case_id=case).returning(table(Reply).c.id)
        return int(connection.execute(into).scalar_one())


# --- beside the shop's own ----------------------------------------------------------------------------------------------


def test_our_case_comes_back_in_a_file_and_is_updated(db: Database, settings: Settings) -> None:
    opened(db, settings, complaint())
    name = rows_of(db, Case)[0].external_id
    row = {"case_id": name, "customer_id": "c1", "kind": "complaint", "opened_at": NOW, "closed_at": NOW + HOUR,
           "outcome": "resolved"}  # fmt: skip
    counts = feed(db, settings, NOW + 2 * HOUR, cases=[row]).cases

    (stored,) = rows_of(db, Case)
    assert (counts.updated, stored.closed_at, stored.outcome, stored.opened_by) == (1, NOW + HOUR, "resolved", "reply")
    assert stored.due_at == NOW + DAY
    assert fresh(db, "case.closed") == [(stored.id, 1, NOW + HOUR)]


def test_imported_cases_have_target_times_too_and_keep_them(db: Database, settings: Settings) -> None:
    row = {"case_id": "k1", "customer_id": "c1", "kind": "refund", "opened_at": NOW}
    feed(db, settings, NOW, cases=[row])
    assert [one.due_at for one in rows_of(db, Case)] == [NOW + 3 * DAY]

    faster = replace(settings, targets={"refund": Duration(days=1)})
    feed(db, faster, NOW + HOUR, cases=[{**row, "note": "otra nota"}])
    assert [one.due_at for one in rows_of(db, Case)] == [NOW + 3 * DAY]
    feed(db, faster, NOW + HOUR, cases=[{**row, "opened_at": NOW - DAY}])
    assert [one.due_at for one in rows_of(db, Case)] == [NOW]


# --- working ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def name(db: Database, settings: Settings) -> str:
    """The id of an open cancellation of customer 1."""
    opened(db, settings, Opening("cancellation", 1, NOW, "reply"))
    found: str = rows_of(db, Case)[0].external_id
    return found


def test_a_case_is_assigned_answered_noted_and_closed(db: Database, name: str) -> None:
    cases.assign(db, NOW + HOUR, name, "ana", "beto")
    cases.answer(db, NOW + 2 * HOUR, name, "llamé", "ana")
    cases.answer(db, NOW + 3 * HOUR, name, "otra vez", "ana")
    cases.note(db, NOW + 4 * HOUR, name, "se queda", "ana")
    cases.close(db, NOW + 5 * HOUR, name, "kept", "", "ana")

    one = cases.show(db, NOW + DAY, name)
    assert (one.assignee, one.answered_at, one.closed_at) == ("ana", NOW + 2 * HOUR, NOW + 5 * HOUR)
    assert one.outcome == "kept"
    assert [line.kind for line in one.log] == ["opened", "assigned", "answered", "answered", "noted", "closed"]
    assert fresh(db, "case.closed") == [(1, 1, NOW + 5 * HOUR)]


def test_only_a_cancellation_is_kept_or_lost(db: Database, settings: Settings) -> None:
    opened(db, settings, complaint())
    name = rows_of(db, Case)[0].external_id

    with pytest.raises(OutreachError, match="only a cancellation ends as kept"):
        cases.close(db, NOW, name, "kept", "", "ana")
    with pytest.raises(OutreachError, match="no outcome"):
        cases.close(db, NOW, name, "solved", "", "ana")
    assert rows_of(db, Case)[0].closed_at is None


def test_a_closed_case_is_not_worked_on_until_it_is_opened_again(db: Database, settings: Settings, name: str) -> None:
    with pytest.raises(OutreachError, match="is open already"):
        cases.reopen(db, settings, NOW, name, "", "ana")
    cases.close(db, NOW + HOUR, name, "lost", "", "ana")
    calls: list[Callable[[], None]] = [
        lambda: cases.close(db, NOW, name, "kept", "", "ana"),
        lambda: cases.assign(db, NOW, name, "ana", "ana"),
        lambda: cases.answer(db, NOW, name, "", "ana"),
    ]
    for call in calls:
        with pytest.raises(OutreachError, match="cases reopen"):
            call()
    cases.reopen(db, settings, NOW + 5 * DAY, name, "volvió a escribir", "ana")

    one = cases.show(db, NOW + 5 * DAY, name)
    assert (one.closed_at, one.outcome, one.reopened, one.due_at) == (None, None, 1, NOW + 6 * DAY)
    assert fresh(db, "case.closed")[-1] == (1, 1, None)
    with pytest.raises(NotFound):
        cases.note(db, NOW, "oc-nothing", "x", "ana")


def test_who_has_no_such_order_opens_no_case(db: Database, settings: Settings) -> None:
    opening = Opening("refund", 0, NOW, "ana")
    with pytest.raises(NotFound, match="no customer"):
        cases.open_for(db, settings, NOW, "zoe", None, opening)
    with pytest.raises(NotFound, match="no order"):
        cases.open_for(db, settings, NOW, "c1", "o2", opening)
    assert cases.open_for(db, settings, NOW, "c1", "o1", opening)[1] is True
    assert cases.open_for(db, settings, NOW, "c1", "o1", opening)[1] is False
    assert [(row.opened_by, row.order_id) for row in rows_of(db, Case)] == [("person", 1)]


def test_contacts_are_what_was_sent_and_written_about_it_while_it_was_open(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, keep=KEEP, news=NEWS)
    (case,) = opened(db, settings, Opening("cancellation", 1, NOW, "reply", reply_id=replied(db, NOW)))
    work(db, settings, NOW + 60 * timedelta(seconds=1))
    for at in (NOW + HOUR, NOW + 30 * HOUR):
        replied(db, at, case)
    replied(db, NOW + 2 * HOUR)  # about something else
    name = rows_of(db, Case)[0].external_id

    answer = {"key": "a", "kind": "person", "reply_id": 1, "customer_id": 1, "contact_id": 1, "channel": "email"}
    with store.write(db) as connection:  # as `outreach replies answer` would have it sent
        number = connection.execute(insert(table(ReplyAnswer)).values(**answer, at=NOW).returning(text("id"))).scalar()
        (one,) = connection.execute(select(table(Message))).all()
        row = {**one._mapping, "id": 99, "public_id": "x", "campaign": ANSWERS, "occasion": "a", "record_id": number}
        connection.execute(insert(table(Message)).values(row | {"provider_id": None, "sent_at": NOW + 40 * HOUR}))
    assert len(sent(db)) == 2
    assert cases.show(db, NOW + 90 * HOUR, name).contacts == 5
    assert cases.show(db, NOW + 2 * HOUR, name).contacts == 3
    assert cases.show(db, NOW + 31 * HOUR, name).contacts == 4
    cases.close(db, NOW + DAY, name, "kept", "", "ana")
    assert cases.listed(db, NOW + 90 * DAY)[0].contacts == 3


# --- what campaigns make of them ------------------------------------------------------------------------------------------


def work(db: Database, settings: Settings, now: datetime) -> None:
    planner.plan(db, settings, now)
    dispatcher.dispatch(db, settings, now)


def test_campaigns_start_on_our_cases_as_on_imported_ones(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, follow=FOLLOW, offer=OFFER, late=LATE)
    opened(db, settings, complaint(1), Opening("question", 3, NOW, "reply"))
    feed(db, settings, NOW, cases=[{"case_id": "k2", "customer_id": "c2", "kind": "complaint", "opened_at": NOW}])
    ours = rows_of(db, Case, customer_id=1)[0].external_id
    work(db, settings, NOW)
    assert {row.customer_id for row in sent(db, campaign="follow")} == {1, 2}

    work(db, settings, NOW + 2 * DAY + HOUR)
    assert {row.customer_id for row in sent(db, campaign="late")} == {1, 2, 3}
    cases.close(db, NOW + 3 * DAY, ours, "unresolved", "", "ana")
    work(db, settings, NOW + 3 * DAY)
    work(db, settings, NOW + 3 * DAY + HOUR)
    assert [row.occasion for row in sent(db, campaign="offer")] == ["case.closed:1"]


def test_opening_again_cancels_what_the_closing_started(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, offer=OFFER.replace("1 hour", "1 day"))
    opened(db, settings, complaint())
    name = rows_of(db, Case)[0].external_id
    cases.close(db, NOW + HOUR, name, "unresolved", "", "ana")
    work(db, settings, NOW + HOUR)
    work(db, settings, NOW + 25 * HOUR - timedelta(minutes=1))
    cases.reopen(db, settings, NOW + 2 * HOUR, name, "", "ana")
    work(db, settings, NOW + 26 * HOUR)

    assert sent(db) == []


def test_an_open_case_stops_marketing_but_not_the_messages_about_it(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, keep=KEEP, news=NEWS)
    opened(db, settings, Opening("cancellation", 1, NOW, "reply"))
    feed(db, settings, NOW, orders=[order(90 + n, f"c{n}", NOW) for n in (1, 2)])
    work(db, settings, NOW + timedelta(minutes=1))

    assert {(row.campaign, row.customer_id) for row in sent(db)} == {("news", 2), ("keep", 1)}
    opened(db, settings, complaint(1))
    feed(db, settings, NOW + 5 * DAY, orders=[order(80, "c1", NOW + 5 * DAY)])
    work(db, settings, NOW + 5 * DAY)
    assert len(sent(db, customer_id=1)) == 1


# --- overdue --------------------------------------------------------------------------------------------------------------


def test_overdue_cases_come_first_then_by_target_time_and_closed_ones_last(db: Database, settings: Settings) -> None:
    opened(
        db,
        settings,
        Opening("refund", 1, NOW, "reply"),  # due in three days
        complaint(2, at=NOW - 2 * DAY),
        complaint(3, at=NOW - 3 * DAY),
        Opening("question", 1, NOW - 5 * DAY, "reply"),
        Opening("question", 2, NOW, "reply"),
    )
    closed = next(row.external_id for row in rows_of(db, Case, kind="question", customer_id=1))
    cases.close(db, NOW, closed, "resolved", "", "ana")
    cases.assign(db, NOW, rows_of(db, Case, kind="refund")[0].external_id, "ana", "ana")

    found = cases.listed(db, NOW + HOUR)
    assert [(one.kind, one.customer, one.overdue) for one in found] == [
        ("complaint", "c3", True),
        ("complaint", "c2", True),
        ("question", "c2", False),
        ("refund", "c1", False),
        ("question", "c1", False),
    ]
    assert [one.id for one in cases.listed(db, NOW + HOUR, is_open=False)] == [closed]
    assert len(cases.listed(db, NOW + HOUR, is_open=True)) == 4
    assert [one.kind for one in cases.listed(db, NOW + HOUR, customer="c1", is_open=True)] == ["refund"]
    assert [one.kind for one in cases.listed(db, NOW + HOUR, assignee="ana")] == ["refund"]
    assert [one.customer for one in cases.listed(db, NOW + HOUR, kind="complaint", limit=1)] == ["c3"]
    assert len(cases.listed(db, NOW - HOUR)) == 3  # as it was then
    with pytest.raises(NotFound):
        cases.listed(db, NOW, customer="zoe")


def test_a_case_that_becomes_overdue_is_logged_once_and_told(db: Database, settings: Settings) -> None:
    opened(db, settings, complaint(1), complaint(2))
    one, two = (row.external_id for row in rows_of(db, Case))
    assert alerts.watch(db, settings, NOW + DAY - timedelta(seconds=1)).overdue == 0
    counts = alerts.watch(db, settings, NOW + DAY)
    assert (counts.overdue, counts.begun) == (2, 1)
    assert alerts.watch(db, settings, NOW + DAY + HOUR).overdue == 0
    assert [kind for kind, _, _ in log(db, one)] == ["opened", "overdue"]
    (alarm,) = rows_of(db, Alarm, name="cases")
    assert "2" in alarm.text

    cases.close(db, NOW + DAY + HOUR, one, "resolved", "", "ana")
    cases.close(db, NOW + DAY + HOUR, two, "resolved", "", "ana")
    alerts.watch(db, settings, NOW + 26 * HOUR)
    assert rows_of(db, Alarm, name="cases") == []
    cases.reopen(db, settings, NOW + 2 * DAY, one, "", "ana")
    assert alerts.watch(db, settings, NOW + 3 * DAY).overdue == 1
    assert [kind for kind, _, _ in log(db, one)].count("overdue") == 2


def test_openings_at_the_same_moment_make_one_case(db: Database, settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: opened(db, settings, complaint(key=f"k{n}"))[0], range(8)))

    assert len(set(found)) == 1
    assert len(rows_of(db, CaseNote)) == 8
