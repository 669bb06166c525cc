"""Waits of months: the 29th to the 31st come due on the last day of a shorter month, once and not before."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from outreach import planner, store
from outreach.models import Coupon, Customer, Enrolment, table
from outreach.settings import Settings
from outreach.store import Database
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MEXICO = ZoneInfo("America/Mexico_City")
LAPSE = """
    title: Lapse
    purpose: service
    trigger: {event: customer.inactive, after: MONTHS}
    steps: [{id: miss, after: 0 days, channel: email, template: m}]
"""
OVERDUE = LAPSE.replace("customer.inactive", "case.overdue")
EXPIRING = LAPSE.replace("customer.inactive, after", "coupon.expiring, before").replace("service", "marketing")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def months_from(at: datetime, months: int) -> datetime:
    """So many months later, or earlier, at the same time of day in Mexico."""
    local = at.astimezone(MEXICO)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day).astimezone(UTC)


def ticks(start: datetime, end: datetime) -> Iterator[datetime]:
    """Every seven hours, and now and then nothing for days."""
    now, turn = start, 0
    while now < end:
        yield now
        turn += 1
        now += 4 * DAY if turn % 40 == 25 else 7 * HOUR


def live(db: Database, settings: Settings, start: datetime, end: datetime) -> dict[str, datetime]:
    """Plan at every tick; by customer, when their one enrolment says its occasion was. None is early or late."""
    since, known = start, 0
    for now in ticks(start, end):
        planner.plan(db, settings, now)
        rows = rows_of(db, Enrolment)
        assert all(since < row.occasion_at <= now for row in rows[known:])
        since, known = now, len(rows)
    names = {c.id: c.external_id for c in rows_of(db, Customer)}
    found = {names[e.customer_id]: e.occasion_at for e in rows_of(db, Enrolment)}
    assert len(found) == known
    return found


def days(first: datetime, count: int) -> dict[str, datetime]:
    return {f"c{n}": first + n * (DAY + HOUR) for n in range(count)}


@pytest.mark.parametrize(
    ("months", "start"), [(1, datetime(2026, 1, 22, 8, tzinfo=UTC)), (3, datetime(2025, 11, 22, 8, tzinfo=UTC))]
)
@pytest.mark.parametrize("trigger", ["lapse", "overdue"])
def test_a_wait_of_months_ends_once_for_whatever_day_it_began(
    trigger: str, months: int, start: datetime, db: Database, settings: Settings
) -> None:
    publish(db, settings, start, it={"lapse": LAPSE, "overdue": OVERDUE}[trigger].replace("MONTHS", f"{months} months"))
    began = days(start + HOUR, 16)
    people = [customer(n) for n in range(len(began))]
    if trigger == "lapse":
        feed(db, settings, start + 20 * DAY, customers=people, orders=[order(w, w, at) for w, at in began.items()])
    else:
        cases = [
            {"case_id": who, "customer_id": who, "kind": "complaint", "opened_at": at} for who, at in began.items()
        ]
        feed(db, settings, start + 20 * DAY, customers=people, cases=cases)
    with store.write(db) as connection:  # as though the queue had been consumed before they were due
        connection.exec_driver_sql("DELETE FROM fresh")

    found = live(db, settings, start + DAY, start + (18 + 31 * months) * DAY)

    assert found == {who: months_from(at, months) for who, at in began.items()}


def test_a_coupon_is_announced_once_a_month_before_whatever_day_it_expires(db: Database, settings: Settings) -> None:
    start = datetime(2026, 1, 10, 15, tzinfo=UTC)
    publish(db, settings, start, it=EXPIRING.replace("MONTHS", "1 month"))
    expires = days(datetime(2026, 2, 20, 2, tzinfo=UTC), 45)
    feed(db, settings, start, customers=[customer(n) for n in range(len(expires))])
    ids = {c.external_id: c.id for c in rows_of(db, Customer)}
    same = {
        "offer": "o", "status": "issued", "uses": 1, "shareable": False, "used": 0, "made_at": start, "reason": "",
        "issued_at": start,
    }  # fmt: skip
    with store.write(db) as connection:
        coupons = [
            {**same, "key": who, "code": who, "customer_id": ids[who], "expires_at": at} for who, at in expires.items()
        ]
        connection.execute(insert(table(Coupon)), coupons)

    found = live(db, settings, start + HOUR, max(expires.values()))

    assert found == {who: months_from(at, -1) for who, at in expires.items()}


def test_a_backfill_takes_what_lapsed_on_the_last_day_of_a_shorter_month(db: Database, settings: Settings) -> None:
    now = datetime(2026, 2, 28, 20, tzinfo=UTC)
    placed = {f"c{n}": datetime(2025, 11, n, 18, tzinfo=UTC) for n in (27, 28, 29, 30)}
    feed(
        db,
        settings,
        now - DAY,
        customers=[customer(n) for n in (27, 28, 29, 30)],
        orders=[order(who, who, at) for who, at in placed.items()],
    )
    publish(
        db, settings, now, it=LAPSE.replace("MONTHS", "3 months") + "    backfill: {last: 30 days, pace: 50 per day}\n"
    )

    planner.plan(db, settings, now + HOUR)

    names = {c.id: c.external_id for c in rows_of(db, Customer)}
    assert sorted(names[e.customer_id] for e in rows_of(db, Enrolment)) == sorted(placed)
