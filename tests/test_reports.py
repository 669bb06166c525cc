"""
Retention, cohorts and repurchase: against plain-Python counts over random small shops, on both databases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update

from outreach.errors import OutreachError
from outreach.models import Customer, CustomerMonth, CustomerStats, Installation, Order, table
from outreach.reports.periods import KINDS, grid, label, periods
from outreach.reports.repurchase import repurchase
from outreach.reports.retention import cohorts, retention
from outreach.reports.statistics import wilson
from outreach.settings import Business, Settings
from outreach.store import Database, write

customers, stats, months, orders = table(Customer), table(CustomerStats), table(CustomerMonth), table(Order)


@dataclass(frozen=True)
class Bought:
    customer: int
    at: datetime
    total: int = 100
    cancelled: bool = False

    @property
    def counted(self) -> bool:
        return self.total > 0 and not self.cancelled


def shop_of(zone: str) -> Settings:
    return Settings(workspace=Path(), business=Business("Tienda", zone, "MXN"))


@contextmanager
def stored(db: Database, bought: list[Bought], zone: str, *, rolled_up_in: str | None = None) -> Iterator[None]:
    """The orders in the database with the aggregates that an import keeps, computed here apart."""
    counted: dict[int, list[Bought]] = defaultdict(list)
    by_month: dict[tuple[int, int], int] = defaultdict(int)
    for one in bought:
        if one.counted:
            counted[one.customer].append(one)
            local = one.at.astimezone(ZoneInfo(rolled_up_in or zone))
            by_month[one.customer, 100 * local.year + local.month] += 1
    with write(db) as connection:
        for model in (orders, months, stats, customers):
            connection.execute(delete(model))
        connection.execute(update(table(Installation)).values(timezone=rolled_up_in or zone))
        for customer in sorted({one.customer for one in bought}):
            person: dict[str, Any] = {
                "id": customer,
                "external_id": f"c{customer}",
                "zones": "",
                "tags": [],
                "attributes": {},
                "row_hash": b"",
            }
            connection.execute(insert(customers), person)
            times = sorted(one.at for one in counted[customer])
            first, last = (times[0], times[-1]) if times else (None, None)
            added = {
                "customer_id": customer,
                "orders_count": len(times),
                "total_spent": 0,
                "first_order_at": first,
                "last_order_at": last,
            }
            connection.execute(insert(stats), added)
        for (customer, month), count in by_month.items():
            connection.execute(insert(months), {"customer_id": customer, "month": month, "orders": count, "spent": 0})
        for number, one in enumerate(bought, 1):
            row: dict[str, Any] = {
                "id": number, "external_id": f"o{number}", "customer_id": one.customer, "placed_at": one.at, "currency": "MXN",
                "total": one.total, "counted": one.counted, "attributes": {}, "row_hash": b"",
            }  # fmt: skip
            connection.execute(insert(orders), row)
    yield


# What a period is


def step(day: date, by: str) -> date:
    """The first day of the next period after the one that begins on `day`."""
    if by == "week":
        return day + timedelta(days=7)
    there = {"month": 1, "quarter": 3, "year": 12}[by] + day.month - 1
    return date(day.year + there // 12, there % 12 + 1, 1)


def name(day: date, by: str) -> str:
    if by == "week":
        return f"{day.isocalendar().year}-W{day.isocalendar().week:02d}"
    if by == "quarter":
        return f"{day.year}-Q{(day.month + 2) // 3}"
    return f"{day.year}" if by == "year" else f"{day.year}-{day.month:02d}"


DAYS = st.dates(date(1970, 1, 1), date(2035, 12, 31))


@given(day=DAYS, more=st.integers(1, 900), by=st.sampled_from(KINDS))
def test_periods_are_whole_and_hold_every_day_asked_for(day: date, more: int, by: str) -> None:
    end = day + timedelta(days=more)
    found = periods(day, end, by)
    assert found[0].start <= day < found[0].end
    assert found[-1].start < end <= found[-1].end
    for one in found:
        assert step(one.start, by) == one.end
        assert one.label == name(one.start, by)
        assert grid(day, end, by).number(one.start) == grid(day, end, by).number(one.end - timedelta(days=1))
    assert [one.end for one in found[:-1]] == [one.start for one in found[1:]]


@pytest.mark.parametrize(
    ("start", "end", "before", "written"),
    [
        ("2010-12-01", "2011-12-01", "2009-12-01", "2010-12-01/2011-12-01"),
        ("2010-01-01", "2011-01-01", "2009-01-01", "2010"),
        ("2010-04-01", "2010-07-01", "2010-01-01", "2010-Q2"),
        ("2010-03-01", "2010-04-01", "2010-02-01", "2010-03"),  # whole months: 28 days before 31
        ("2010-02-01", "2010-02-08", "2010-01-25", "2010-W05"),
        ("2010-02-01", "2010-02-03", "2010-01-30", "2010-02-01/2010-02-03"),
        ("2010-03-01", "2010-04-02", "2010-01-28", "2010-03-01/2010-04-02"),
        ("2008-12-29", "2009-01-05", "2008-12-22", "2009-W01"),
        ("2012-02-01", "2013-08-01", "2010-08-01", "2012-02-01/2013-08-01"),
    ],
)
def test_one_period_stands_beside_the_equally_long_one_before(start: str, end: str, before: str, written: str) -> None:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    cells = grid(first, last, None)
    number = cells.number(first)
    assert (cells.start(number - 1), cells.start(number), cells.start(number + 1)) == (
        date.fromisoformat(before),
        first,
        last,
    )
    assert label(first, last) == written


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-02-01", "2026-02-01"),
        ("2026-02-01", "2026-01-01"),
        ("0001-01-01", "2026-01-01"),
        ("2026-01-01", "9999-12-31"),
    ],
)
@pytest.mark.parametrize("by", [None, *KINDS])
def test_a_period_that_cannot_be_is_refused(start: str, end: str, by: str | None) -> None:
    with pytest.raises(OutreachError):
        periods(date.fromisoformat(start), date.fromisoformat(end), by)


# Against plain counts

ZONES = st.sampled_from(["America/Mexico_City", "Europe/Madrid", "Pacific/Auckland", "America/Santiago", "UTC"])
EDGES = [
    datetime(2025, 12, 31, 22, 59, 59, tzinfo=UTC), datetime(2025, 12, 31, 23, 0, tzinfo=UTC), datetime(2026, 1, 1, 5, 59, 59, tzinfo=UTC),
    datetime(2026, 1, 1, 6, 0, tzinfo=UTC), datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
    datetime(2026, 3, 29, 22, 0, tzinfo=UTC), datetime(2026, 4, 1, 6, 0, tzinfo=UTC), datetime(2025, 10, 26, 1, 30, tzinfo=UTC),
]  # fmt: skip
BEGINNING = datetime(2025, 9, 1, tzinfo=UTC)
TIMES = st.sampled_from(EDGES) | st.integers(0, 300 * 24 * 60).map(
    lambda minutes: BEGINNING + timedelta(minutes=minutes)
)
BOUGHT = st.builds(
    Bought, st.integers(1, 6), TIMES, st.sampled_from([100, 100, 100, 0]), st.sampled_from([False, False, False, True])
)
SHOPS = st.lists(BOUGHT, max_size=25)
NOWS = st.sampled_from(
    [datetime(2026, 4, 15, 12, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), *EDGES]
)


def local_day(at: datetime, zone: str) -> date:
    return at.astimezone(ZoneInfo(zone)).date()


def midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def whole(start: date, end: date, by: str) -> list[tuple[date, date]]:
    """The whole periods that hold [start, end), found by walking."""
    day = date(2024, 1, 1)  # a Monday, and the first of a year
    found = []
    while day < end:
        after = step(day, by)
        if after > start:
            found.append((day, after))
        day = after
    return found


def who(bought: list[Bought], zone: str, now: datetime, start: date, end: date) -> set[int]:
    return {one.customer for one in bought if one.counted and one.at < now and start <= local_day(one.at, zone) < end}


def uncounted(bought: list[Bought], zone: str, now: datetime, start: date, end: date) -> dict[str, int]:
    missed = [one for one in bought if not one.counted and one.at < now and start <= local_day(one.at, zone) < end]
    return {"cancelled": sum(one.total > 0 for one in missed), "zero_amount": sum(one.total <= 0 for one in missed)}


EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RANGES = st.tuples(st.dates(date(2025, 9, 1), date(2026, 5, 1)), st.integers(1, 200)).map(
    lambda given: (given[0], given[0] + timedelta(days=given[1]))
)
ROLLED = st.sampled_from([None, None, "Asia/Tokyo"])  # a roll-up made in another zone is of no use


@EXAMPLES
@given(bought=SHOPS, zone=ZONES, now=NOWS, span=RANGES, by=st.sampled_from(KINDS), rolled_up_in=ROLLED)
def test_retention_equals_a_plain_count(
    db: Database,
    bought: list[Bought],
    zone: str,
    now: datetime,
    span: tuple[date, date],
    by: str,
    rolled_up_in: str | None,
) -> None:
    walked = whole(*span, by)
    prior = whole(date(2024, 1, 1), walked[0][0], by)[-1]
    expected = []
    for before, (start, end) in zip([prior, *walked], walked, strict=False):
        active, previous = who(bought, zone, now, start, end), who(bought, zone, now, *before)
        earlier = who(bought, zone, now, date(2000, 1, 1), start)
        over = midnight(end, zone) <= now
        rate = len(active & previous) / len(previous) if previous and over else None
        low, high = wilson(len(active & previous), len(previous)) or (None, None) if rate is not None else (None, None)
        expected.append({
            "period": name(start, by), "before": len(previous), "retained": len(active & previous), "rate": rate, "low": low, "high": high,
            "new": len(active - earlier), "reactivated": len((active & earlier) - previous),
            "contract_retention": len(active & earlier) / len(previous) if rate is not None else None,
        })  # fmt: skip
    with stored(db, bought, zone, rolled_up_in=rolled_up_in):
        found = retention(db, shop_of(zone), *span, by, now=now, contract=True)
        assert found.rows == expected
        assert found.columns == tuple(found.rows[0])
        assert found.more == {"left_out": uncounted(bought, zone, now, prior[0], walked[-1][1])}
        plain = retention(db, shop_of(zone), *span, by, now=now)
        assert plain.as_json()["rows"] == [{key: row[key] for key in plain.columns} for row in expected]


@EXAMPLES
@given(
    bought=SHOPS,
    zone=ZONES,
    now=NOWS,
    start=st.dates(date(2025, 9, 1), date(2026, 5, 1)),
    length=st.integers(1, 99),
    by_months=st.booleans(),
)
def test_one_period_equals_a_plain_count(
    db: Database, bought: list[Bought], zone: str, now: datetime, start: date, length: int, by_months: bool
) -> None:
    end, before = start + timedelta(days=length), start - timedelta(days=length)
    if by_months:
        count = 1 + length % 4
        start = start.replace(day=1)
        end = before = start
        for _ in range(count):
            end, before = step(end, "month"), (before - timedelta(days=1)).replace(day=1)
    elif start.day == end.day == 1:
        end += timedelta(days=1)
        before -= timedelta(days=1)
    active, previous = who(bought, zone, now, start, end), who(bought, zone, now, before, start)
    with stored(db, bought, zone):
        (row,) = retention(db, shop_of(zone), start, end, now=now).rows
    assert (row["before"], row["retained"]) == (len(previous), len(active & previous))
    assert row["retained"] + row["new"] + row["reactivated"] == len(active)


@EXAMPLES
@given(bought=SHOPS, zone=ZONES, now=NOWS, span=RANGES, by=st.sampled_from(KINDS), rolled_up_in=ROLLED)
def test_cohorts_equal_a_plain_count(
    db: Database,
    bought: list[Bought],
    zone: str,
    now: datetime,
    span: tuple[date, date],
    by: str,
    rolled_up_in: str | None,
) -> None:
    walked = whole(*span, by)
    expected = []
    for place, (start, end) in enumerate(walked):
        cohort = who(bought, zone, now, start, end) - who(bought, zone, now, date(2000, 1, 1), start)
        later: list[tuple[date, date] | None] = [*walked[place:], *[None] * place]
        activity = [
            len(cohort & who(bought, zone, now, *one)) if one and midnight(one[1], zone) <= now else None
            for one in later
        ]
        expected.append({"cohort": name(start, by), "size": len(cohort), "active": activity})
    with stored(db, bought, zone, rolled_up_in=rolled_up_in):
        found = cohorts(db, shop_of(zone), *span, by, now=now)
    assert found.rows == expected
    assert found.more == {"left_out": uncounted(bought, zone, now, walked[0][0], walked[-1][1])}


@EXAMPLES
@given(bought=SHOPS, zone=ZONES, now=NOWS, span=RANGES)
def test_repurchase_equals_a_customer_by_customer_product(
    db: Database, bought: list[Bought], zone: str, now: datetime, span: tuple[date, date]
) -> None:
    start, end = span
    people: list[tuple[timedelta, bool]] = []
    for customer in {one.customer for one in bought}:
        times = sorted(one.at for one in bought if one.customer == customer and one.counted and one.at < now)
        if not times or not start <= local_day(times[0], zone) < end:
            continue
        again = [at for at in times if local_day(at, zone) > local_day(times[0], zone)]
        wall = [at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in (again[0] if again else now, times[0])]
        people.append((max(wall[0] - wall[1], timedelta()), bool(again)))
    with stored(db, bought, zone):
        found = repurchase(db, shop_of(zone), start, end, now=now, days=(1, 30, 60, 400)).rows

    for row in found:
        within, survival = timedelta(days=row["days"]), 1.0
        for moment in sorted({took for took, event in people if event and took <= within}):
            exposed = sum(took >= moment for took, _ in people)
            survival *= 1 - sum(took == moment and event for took, event in people) / exposed
        at_risk = sum(took >= within for took, _ in people)
        assert row["at_risk"] == at_risk
        assert row["rate"] == (None if at_risk == 0 and survival > 1e-12 else pytest.approx(1 - survival))
        if row["rate"] is not None:
            assert 0 <= row["low"] <= row["rate"] + 1e-9
            assert row["rate"] - 1e-9 <= row["high"] <= 1


# A shop worked out by hand


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T12:00:00+00:00")


BY_HAND = [
    Bought(1, day("2026-01-10")), Bought(1, day("2026-02-10")),  # came back the next month
    Bought(2, day("2026-01-11")), Bought(2, day("2026-01-11")), Bought(2, day("2026-03-02")),  # skipped February
    Bought(3, day("2026-01-12")), Bought(3, day("2026-02-01"), cancelled=True),  # cancelled: not back
    Bought(4, day("2026-02-20")), Bought(4, day("2026-02-21"), total=0),  # new in February
    Bought(5, day("2026-01-31")), Bought(5, day("2026-05-01")),  # a far later order
]  # fmt: skip


def test_a_shop_worked_out_by_hand(db: Database) -> None:
    now = day("2026-03-15")
    with stored(db, BY_HAND, "UTC"):
        rows = retention(db, shop_of("UTC"), date(2026, 1, 1), date(2026, 4, 1), "month", now=now)
        table_of = [(r["period"], r["before"], r["retained"], r["rate"], r["new"], r["reactivated"]) for r in rows.rows]
        assert table_of == [
            ("2026-01", 0, 0, None, 4, 0),
            ("2026-02", 4, 1, 0.25, 1, 0),
            ("2026-03", 2, 0, None, 0, 1),  # still running: no rate yet
        ]
        assert rows.more == {"left_out": {"cancelled": 1, "zero_amount": 1}}
        assert cohorts(db, shop_of("UTC"), date(2026, 1, 1), date(2026, 4, 1), now=now).rows == [
            {"cohort": "2026-01", "size": 4, "active": [4, 1, None]},
            {"cohort": "2026-02", "size": 1, "active": [1, None, None]},
            {"cohort": "2026-03", "size": 0, "active": [None, None, None]},
        ]
        found = repurchase(db, shop_of("UTC"), date(2026, 1, 1), date(2026, 4, 1), now=now, days=(31, 50, 90)).rows
        assert [row["at_risk"] for row in found] == [4, 2, 0]  # 4 was followed for 23 days only, 5 for 43
        assert [row["rate"] for row in found[:2]] == pytest.approx([1 / 4, 1 - 3 / 4 * 1 / 2])
        assert found[2]["rate"] is None  # nobody was followed for 90 days


def test_a_report_of_an_empty_shop_has_rows_without_rates(db: Database) -> None:
    now, shop = day("2026-03-15"), shop_of("UTC")
    row: dict[str, Any] = retention(db, shop, date(2025, 1, 1), date(2026, 1, 1), now=now).rows[0]
    assert (row["before"], row["rate"], row["low"], row["high"]) == (0, None, None, None)
    assert cohorts(db, shop, date(2026, 1, 1), date(2026, 2, 1), now=now).rows == [
        {"cohort": "2026-01", "size": 0, "active": [0]}
    ]
    assert {row["rate"] for row in repurchase(db, shop, date(2025, 1, 1), date(2026, 1, 1), now=now).rows} == {None}
