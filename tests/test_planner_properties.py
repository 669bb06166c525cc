"""
DESIGN section 9, points 1 (planning side), 2 and 9, against shops and clocks made up by hypothesis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outreach import planner, store
from outreach.models import Customer, Enrolment, Message, Order, Status
from tests.conftest import SECRET
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR = timedelta(hours=1)
MEXICO = ZoneInfo("America/Mexico_City")

CAMPAIGNS = {
    "thanks": """
        title: Thanks
        purpose: service
        trigger: {event: order.delivered}
        holdout: 30%
        steps:
          - {id: one, after: 1 day, at: "10:00", channel: [sms, email], template: m}
          - {id: two, after: 4 days, channel: email, template: m, unless: [ordered]}
          - {id: three, after: 6 days, channel: email, template: m, expires: 1 day}
    """,
    "lapse": """
        title: Lapse
        trigger: {event: customer.inactive, after: 10 days}
        at_most: once per 15 days
        steps:
          - {id: miss, after: 0 days, at: "11:00", channel: [whatsapp, email], template: m, variants: {plain: 50%, warm: 50%}}
    """,
}
AFTER = {"one": timedelta(days=1), "two": timedelta(days=4), "three": timedelta(days=6)}

# Publishing days on purpose around changes of clock in Madrid and Bogota, and around 29 February.
STARTS = [
    "2024-02-27T12:00:00+00:00",
    "2026-03-27T12:00:00+00:00",
    "2026-10-23T12:00:00+00:00",
    "2026-06-15T15:00:00+00:00",
]

people = st.lists(
    st.fixed_dictionaries(
        {
            "country": st.sampled_from(["MX", "CO", "ES", "US", ""]),
            "phone": st.sampled_from(["+525541000001", "+34612345678", "+12125550123", "+18505550123", ""]),
            "sms_consent": st.sampled_from(["yes", "no", ""]),
            "email_consent": st.sampled_from(["yes", "no", ""]),
            "whatsapp_consent": st.sampled_from(["yes", "no", ""]),
            "timezone": st.sampled_from(["", "", "Europe/Madrid", "America/Tijuana"]),
        }
    ),
    min_size=1,
    max_size=5,
)
sales = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-24 * 8, 24 * 20), st.one_of(st.none(), st.integers(1, 24 * 8))),
    max_size=9,
)
ticks = st.lists(st.integers(1, 60), min_size=4, max_size=14)


Sales = list[tuple[int, int, int | None]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(STARTS), people=people, sales=sales, ticks=ticks)
def test_every_occasion_and_every_due_step_ends_as_exactly_one_row_however_the_ticks_fall_on_sqlite(
    new_database: Callable[[str], str],
    tmp_path: Path,
    start: str,
    people: list[dict[str, str]],
    sales: Sales,
    ticks: list[int],
) -> None:
    expect_one_row_each(new_database("sqlite"), tmp_path / uuid4().hex, start, people, sales, ticks)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(STARTS), people=people, sales=sales, ticks=ticks)
def test_every_occasion_and_every_due_step_ends_as_exactly_one_row_however_the_ticks_fall_on_postgresql(
    new_database: Callable[[str], str],
    tmp_path: Path,
    start: str,
    people: list[dict[str, str]],
    sales: Sales,
    ticks: list[int],
) -> None:
    expect_one_row_each(new_database("postgresql"), tmp_path / uuid4().hex, start, people, sales, ticks)


def expect_one_row_each(
    url: str, folder: Path, start: str, people: list[dict[str, str]], sales: Sales, ticks: list[int]
) -> None:
    begin = datetime.fromisoformat(start)
    shop = shop_settings(folder)
    db = store.open_database(url, secret=SECRET)
    feed(db, shop, begin, customers=[customer(n, **cells) for n, cells in enumerate(people)])
    publish(db, shop, begin, **CAMPAIGNS)
    now, known = begin, begin - timedelta(days=9)
    for hours in ticks:
        before, known, now = known, now + hours * HOUR, now + hours * HOUR
        rows = records(sales, len(people), begin, before, now)
        if rows:
            feed(db, shop, now, orders=rows)
        planner.plan(db, shop, now)
        planner.plan(db, shop, now)

    expect_every_delivery_enrolled(db, begin, now)
    expect_every_due_step_written(db, now)
    db.engine.dispose()


def records(sales: Sales, people: int, begin: datetime, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """The orders of which something became known in (since, until]."""
    rows = []
    for number, (who, placed, later) in enumerate(sales):
        at = begin + placed * HOUR
        delivered = at + later * HOUR if later else None
        news = [t for t in (at, delivered) if t is not None and since < t <= until]
        if news:
            cell = delivered if delivered is not None and delivered <= until else ""
            rows.append(order(number, f"c{who % people}", at, delivered_at=cell))
    return rows


def expect_every_delivery_enrolled(db: store.Database, begin: datetime, now: datetime) -> None:
    enrolled = Counter((e.campaign, e.customer_id, e.record_id) for e in rows_of(db, Enrolment))
    assert set(enrolled.values()) <= {1}
    delivered = {
        ("thanks", o.customer_id, o.id) for o in rows_of(db, Order) if o.delivered_at and begin <= o.delivered_at <= now
    }
    assert {key for key in enrolled if key[0] == "thanks"} == delivered


def expect_every_due_step_written(db: store.Database, now: datetime) -> None:
    zones = {c.id: c.zones.split() for c in rows_of(db, Customer)}
    written = Counter((m.campaign, m.step, m.customer_id, m.occasion) for m in rows_of(db, Message))
    assert set(written.values()) <= {1}
    expected = set()
    for e in rows_of(db, Enrolment):
        assert (e.arm is None) == (e.reason is not None)
        if e.campaign == "thanks" and e.arm is not None:
            for step, after in AFTER.items():
                if independent_due(e.occasion_at, after, zones[e.customer_id], at_ten=step == "one") <= now:
                    expected.add(("thanks", step, e.customer_id, e.occasion))
    assert {key for key in written if key[0] == "thanks"} == expected
    for m in rows_of(db, Message):
        assert m.status in {Status.PLANNED, Status.HELD, Status.SKIPPED, Status.EXPIRED}
        assert (m.reason is None) == (m.status == Status.PLANNED)
        assert m.due_at <= now


def independent_due(occasion: datetime, after: timedelta, zones: list[str], *, at_ten: bool) -> datetime:
    """The step's due time, worked out with plain wall-clock arithmetic in every zone the customer may be in."""
    found = []
    for zone in zones or ["America/Mexico_City"]:
        local = occasion.astimezone(ZoneInfo(zone)).replace(tzinfo=None) + after
        if at_ten:
            local = local.replace(hour=10, minute=0, second=0, microsecond=0)
        aware = local.replace(tzinfo=ZoneInfo(zone))
        # a wall-clock time that the clocks skip is the instant at which they jump
        there = aware.astimezone(ZoneInfo("UTC")).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        if there != local:
            before = local.replace(tzinfo=ZoneInfo(zone), fold=0).utcoffset()
            assert before is not None
            step = (local - timedelta(hours=3)).replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo("UTC"))
            while step.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < local:
                step += timedelta(minutes=1)
            aware = step
        found.append(aware.astimezone(ZoneInfo("UTC")))
    return max(found)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_arms_do_not_depend_on_when_or_in_what_order_customers_were_taken_up(
    kind: str, new_database: Callable[[str], str], tmp_path: Path
) -> None:
    begin = datetime.fromisoformat(STARTS[-1])
    drawn = []
    for turn, reverse in enumerate((False, True)):
        shop = shop_settings(tmp_path / str(turn))
        db = store.open_database(new_database(kind), secret=SECRET)
        publish(db, shop, begin, **CAMPAIGNS)
        numbers = sorted(range(1, 41), reverse=reverse)
        feed(db, shop, begin + HOUR, customers=[customer(n, orders=str(n)) for n in numbers])
        portion = 8 if reverse else 40
        for first in range(0, 40, portion):
            delivered = numbers[first : first + portion]
            rows = [order(n, f"c{n}", begin, delivered_at=begin + HOUR) for n in delivered]
            feed(db, shop, begin + HOUR, orders=rows)
            planner.plan(db, shop, begin + 2 * HOUR)
        names = {c.id: c.external_id for c in rows_of(db, Customer)}
        drawn.append({names[e.customer_id]: e.arm for e in rows_of(db, Enrolment, campaign="thanks")})
        db.engine.dispose()

    assert drawn[0] == drawn[1]
    assert set(drawn[0].values()) == {"contact", "holdout"}
