"""What is no occasion any more when its message's turn comes: an order of somebody else, a lapse that was none, a case open again."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import cases, dispatcher, planner
from outreach.cases import Opening
from outreach.models import Message, Reason, Status
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.paid}
    stop_when: [refunded, cancelled]
    steps: [{id: thanks, after: 2 days, channel: email, template: m}]
"""
LAPSE = """
    title: We miss you
    purpose: service
    trigger: {event: customer.inactive, after: 90 days}
    steps: [{id: miss, after: 12 hours, channel: email, template: m}]
"""
SORRY = """
    title: Sorry
    purpose: service
    trigger: {event: case.closed, outcome: unresolved}
    steps: [{id: sorry, after: 2 hours, channel: email, template: m}]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def live(db: Database, settings: Settings, start: datetime, end: datetime, every: timedelta = 6 * HOUR) -> None:
    """Plan and dispatch at each round, from `start` on and before `end`."""
    now = start
    while now < end:
        planner.plan(db, settings, now)
        dispatcher.dispatch(db, settings, now)
        now += every


def told(db: Database) -> dict[int, tuple[str, str | None]]:
    """By customer: what became of their one message."""
    return {row.customer_id: (row.status, row.reason) for row in rows_of(db, Message)}


def paid(number: int, whose: str, **cells: Any) -> dict[str, Any]:
    return order(number, whose, NOW - HOUR, paid_at=NOW, **cells)


def test_an_order_that_went_to_another_customer_is_no_occasion_of_its_first_one(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - DAY, thanks=THANKS)
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=[paid(1, "c1"), paid(2, "c2")])
    planner.plan(db, settings, NOW)
    planner.plan(db, settings, NOW + 2 * DAY)
    feed(db, settings, NOW + 2 * DAY, orders=[paid(1, "c2")])

    dispatcher.dispatch(db, settings, NOW + 2 * DAY)

    assert told(db) == {1: (Status.CANCELLED, Reason.RECORD_CLEARED), 2: (Status.SENT, None)}


def test_nothing_is_planned_of_an_order_that_has_become_another_customer_s(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - DAY, thanks=THANKS)
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=[paid(1, "c1")])
    planner.plan(db, settings, NOW)
    feed(db, settings, NOW + HOUR, orders=[paid(1, "c2")])

    counts = planner.plan(db, settings, NOW + 2 * DAY)

    assert told(db)[1] == (Status.CANCELLED, Reason.RECORD_CLEARED)
    assert counts.planned == 1
    assert told(db)[2] == (Status.PLANNED, None)


def test_who_had_bought_before_the_lapse_is_not_missed_though_the_file_came_later(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - DAY, lapse=LAPSE)
    last = NOW - 90 * DAY
    feed(
        db,
        settings,
        NOW - HOUR,
        customers=[customer(n) for n in (1, 2, 3)],
        orders=[order(n, f"c{n}", last) for n in (1, 2, 3)],
    )
    planner.plan(db, settings, NOW + HOUR)
    late = [order(11, "c1", NOW - 2 * HOUR), order(12, "c2", NOW + 2 * HOUR), order(13, "c3", last - DAY)]
    feed(db, settings, NOW + 3 * HOUR, orders=late)

    live(db, settings, NOW + 3 * HOUR, NOW + 2 * DAY)

    assert told(db) == {
        1: (Status.CANCELLED, Reason.RECORD_CLEARED),
        2: (Status.SENT, None),  # it was a lapse; whether an order since stops it is for `stop_when` to say
        3: (Status.SENT, None),
    }


def test_who_comes_back_before_their_turn_in_a_backfill_is_not_missed(db: Database, settings: Settings) -> None:
    orders = [order(n, f"c{n}", NOW - (100 + n) * DAY) for n in range(1, 5)]
    feed(db, settings, NOW - DAY, customers=[customer(n) for n in range(1, 5)], orders=orders)
    publish(db, settings, NOW, lapse=LAPSE + "    backfill: {last: 365 days, pace: 1 per day}\n")
    planner.plan(db, settings, NOW)
    feed(db, settings, NOW + DAY, orders=[order(50, "c4", NOW + DAY)])

    live(db, settings, NOW + DAY, NOW + 6 * DAY)

    assert told(db) == {
        **dict.fromkeys((1, 2, 3), (Status.SENT, None)),
        4: (Status.CANCELLED, Reason.RECORD_CLEARED),
    }


def test_a_case_that_is_open_again_is_not_spoken_of_as_closed(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - DAY, sorry=SORRY)
    feed(db, settings, NOW, customers=[customer(1), customer(2)])
    numbers = []
    for whose in ("c1", "c2"):
        number, _ = cases.open_for(db, settings, NOW, whose, None, Opening("complaint", 0, NOW, "maria"))
        cases.close(db, NOW + HOUR, number, "unresolved", "", "maria")
        numbers.append(number)
    planner.plan(db, settings, NOW + HOUR)
    planner.plan(db, settings, NOW + 3 * HOUR)
    cases.reopen(db, settings, NOW + 3 * HOUR, numbers[0], "", "maria")

    dispatcher.dispatch(db, settings, NOW + 3 * HOUR)  # before any plan sees it

    assert told(db) == {1: (Status.CANCELLED, Reason.RECORD_CLEARED), 2: (Status.SENT, None)}


def test_a_case_that_is_closed_again_is_another_occasion_and_its_first_closing_none_any_more(
    db: Database, settings: Settings
) -> None:
    twice = SORRY.replace("steps: [{", "steps: [{id: again, after: 3 days, channel: email, template: m}, {")
    publish(db, settings, NOW - DAY, sorry=twice)
    feed(db, settings, NOW, customers=[customer(1)])
    number, _ = cases.open_for(db, settings, NOW, "c1", None, Opening("complaint", 0, NOW, "maria"))
    cases.close(db, NOW + HOUR, number, "unresolved", "", "maria")
    live(db, settings, NOW + HOUR, NOW + DAY)
    cases.reopen(db, settings, NOW + DAY, number, "", "maria")
    cases.close(db, NOW + DAY + HOUR, number, "unresolved", "", "maria")  # before any plan sees it open

    live(db, settings, NOW + DAY + HOUR, NOW + 9 * DAY)

    found = [(row.occasion, row.step, row.status) for row in rows_of(db, Message)]
    assert sorted(found) == [
        ("case.closed:1", "again", Status.CANCELLED),
        ("case.closed:1", "sorry", Status.SENT),
        ("case.closed:1.1", "again", Status.SENT),
        ("case.closed:1.1", "sorry", Status.SENT),
    ]


@pytest.mark.parametrize(
    ("cells", "stops"),
    [
        ({"status": "cancelled"}, True),
        ({"status": "Anulado"}, True),
        ({"status": "refunded"}, False),
        ({"cancelled_at": NOW}, True),
        ({"refunded_at": NOW}, True),
        ({"cancelled_at": NOW - HOUR}, False),
        ({"total": "0"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_an_order_is_cancelled_by_its_status_too_and_at_the_very_moment_of_its_payment(
    db: Database, settings: Settings, cells: dict[str, Any], stops: bool
) -> None:
    publish(db, settings, NOW - DAY, thanks=THANKS)
    feed(db, settings, NOW, customers=[customer(1)], orders=[paid(1, "c1")])
    planner.plan(db, settings, NOW)
    feed(db, settings, NOW + HOUR, orders=[paid(1, "c1") | cells])

    live(db, settings, NOW + 2 * DAY, NOW + 3 * DAY)

    assert told(db) == {1: (Status.SKIPPED, Reason.STOPPED) if stops else (Status.SENT, None)}


@pytest.mark.parametrize("word", ["cancelled", "refunded"])
def test_a_campaign_about_cancelled_orders_is_not_stopped_by_the_very_cancellation(
    db: Database, settings: Settings, word: str
) -> None:
    about = THANKS.replace("order.paid", f"order.{word}").replace("after: 2 days", "after: 1 hour")
    publish(db, settings, NOW - DAY, about=about)
    feed(db, settings, NOW, customers=[customer(1)], orders=[paid(1, "c1", status=word) | {f"{word}_at": NOW}])

    live(db, settings, NOW, NOW + DAY)

    assert told(db) == {1: (Status.SENT, None)}


def test_a_date_of_the_customer_s_own_that_was_moved_or_taken_back_is_not_reminded_of(
    db: Database, settings: Settings
) -> None:
    appointment = """
        title: Your appointment
        purpose: service
        trigger: {date: attributes.appointment, before: 2 days}
        steps: [{id: soon, after: 0 days, at: "18:00", channel: email, template: m}]
    """
    publish(db, settings, NOW - DAY, appointment=appointment)
    feed(db, settings, NOW, customers=[customer(n, appointment="2026-06-20") for n in (1, 2, 3)])
    live(db, settings, NOW, NOW + 3 * DAY)  # the reminders are due at 18:00 there on the 18th
    feed(db, settings, NOW + 3 * DAY, customers=[customer(1, appointment="2026-07-01"), customer(2, appointment="")])

    live(db, settings, NOW + 3 * DAY, NOW + 20 * DAY)

    found = [(row.customer_id, row.occasion[-10:], row.status) for row in rows_of(db, Message)]
    assert sorted(found) == [
        (1, "2026-06-20", Status.CANCELLED),
        (1, "2026-07-01", Status.SENT),
        (2, "2026-06-20", Status.CANCELLED),
        (3, "2026-06-20", Status.SENT),
    ]


# --- steps whose time moves ------------------------------------------------------------------------

DELIVERED = """
    title: Thanks
    purpose: service
    trigger: {event: order.delivered}
    steps: [{id: thanks, after: 3 days, at: "10:00", channel: email, template: m}]
"""


def delivered(number: int) -> dict[str, Any]:
    return order(number, f"c{number}", NOW - DAY, delivered_at=NOW)


def test_a_step_that_is_due_earlier_once_the_customer_s_zone_is_known_is_written_all_the_same(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - DAY, thanks=DELIVERED)
    west = [customer(n, country="MX", region="Baja California") for n in (1, 2)]
    feed(db, settings, NOW, customers=west, orders=[delivered(1), delivered(2)])
    planner.plan(db, settings, NOW)
    feed(db, settings, NOW + DAY, customers=[customer(1, country="MX", region="CDMX")])

    live(db, settings, NOW + DAY, NOW + 6 * DAY)

    assert told(db) == {1: (Status.SENT, None), 2: (Status.SENT, None)}


def test_who_is_due_today_gets_a_step_that_was_moved_to_an_earlier_hour_and_nobody_twice(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - DAY, thanks=DELIVERED)
    feed(db, settings, NOW, customers=[customer(1)], orders=[delivered(1)])
    planner.plan(db, settings, NOW)
    half_past_nine = NOW + 3 * DAY + HOUR / 2

    publish(db, settings, half_past_nine, thanks=DELIVERED.replace("10:00", "09:00"))
    live(db, settings, half_past_nine, NOW + 4 * DAY, HOUR)
    publish(db, settings, NOW + 4 * DAY, thanks=DELIVERED.replace("10:00", "08:00"))
    live(db, settings, NOW + 4 * DAY, NOW + 6 * DAY)

    assert told(db) == {1: (Status.SENT, None)}
    assert len(rows_of(db, Message)) == 1


# --- occasions that are there again ----------------------------------------------------------------


def test_a_time_that_was_taken_back_and_is_there_again_goes_on_from_then(db: Database, settings: Settings) -> None:
    twice = DELIVERED.replace(
        'steps: [{id: thanks, after: 3 days, at: "10:00", channel: email, template: m}]',
        """steps:
      - {id: thanks, after: 1 day, channel: email, template: m}
      - {id: ask, after: 4 days, channel: email, template: m}""",
    )
    publish(db, settings, NOW - DAY, thanks=twice)
    people = [customer(n) for n in (1, 2, 3)]
    feed(db, settings, NOW, customers=people, orders=[delivered(n) for n in (1, 2, 3)])
    live(db, settings, NOW, NOW + 2 * DAY)
    blank = [delivered(n) | {"delivered_at": ""} for n in (1, 2)]
    feed(db, settings, NOW + 2 * DAY, orders=blank)
    live(db, settings, NOW + 2 * DAY, NOW + 3 * DAY)

    feed(db, settings, NOW + 3 * DAY, orders=[delivered(1), delivered(2) | {"delivered_at": NOW + 3 * DAY}])
    live(db, settings, NOW + 3 * DAY, NOW + 20 * DAY)

    found = {(row.customer_id, row.step): (row.status, (row.due_at - NOW).days) for row in rows_of(db, Message)}
    assert found == {
        **{(n, "thanks"): (Status.SENT, 1) for n in (1, 2, 3)},
        **{(n, "ask"): (Status.SENT, 4) for n in (1, 3)},
        (2, "ask"): (Status.SENT, 7),
    }
