"""
Two years of real orders, replayed day by day: a lapse campaign against an independent count.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from outreach import planner, store
from outreach.models import Enrolment, Message, Status
from outreach.settings import Business
from tests.conftest import SECRET
from tests.records import records_folder
from tests.shop import feed, publish, rows_of, shop_settings

FIRST, PUBLISHED, LAST = date(2009, 12, 1), date(2010, 3, 1), date(2011, 12, 9)
LONDON = ZoneInfo("Europe/London")
LAPSE = """
    title: Lapse
    purpose: service
    brake: 1000000
    trigger: {event: customer.inactive, after: 90 days}
    steps:
      - {id: miss, after: 0 days, channel: email, template: m}
"""


def orders() -> dict[date, list[dict[str, str]]]:
    """The orders, as canonical rows, by their local day."""
    by_day: dict[date, list[dict[str, str]]] = defaultdict(list)
    path = records_folder() / "online_retail_ii_invoices.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["is_cancellation"] == "0":
                at = datetime.fromisoformat(row["invoiced_at"])
                cells = {"order_id": row["invoice_id"], "customer_id": row["customer_id"], "placed_at": at.isoformat()}
                by_day[at.date()].append({**cells, "total": row["amount"]})
    return by_day


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(0), LONDON)


def days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)


def independent_count(by_day: dict[date, list[dict[str, str]]]) -> int:
    """
    Lapses that a tick at each midnight sees: 90 days of wall clock after an order, none since.

    Only the orders' local times are used: no zone, no database.
    """
    times: dict[str, set[datetime]] = defaultdict(set)
    for rows in by_day.values():
        for row in rows:
            if float(row["total"]) > 0:
                times[row["customer_id"]].add(datetime.fromisoformat(row["placed_at"]))
    lapses = 0
    for of_customer in times.values():
        ordered = sorted(of_customer)
        for at, following in zip(ordered, [*ordered[1:], datetime.fromisoformat("9999-01-01")], strict=True):
            lapse = at + timedelta(days=90)
            seen = datetime.combine(lapse.date() + timedelta(days=lapse.time() > time(0)), time(0))
            if datetime.combine(PUBLISHED, time(0)) <= lapse and seen.date() <= LAST and following >= seen:
                lapses += 1
    return lapses


@pytest.mark.records
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_lapse_of_every_customer_is_planned_exactly_once(
    kind: str, new_database: Callable[[str], str], tmp_path: Path
) -> None:
    by_day = orders()
    shop = shop_settings(tmp_path, business=Business("Gifts", "Europe/London", "GBP", "en", "GB"))
    db = store.open_database(new_database(kind), secret=SECRET, timezone="Europe/London")
    people = {row["customer_id"] for rows in by_day.values() for row in rows}
    history = [row for day in days(FIRST, PUBLISHED - timedelta(days=1)) for row in by_day.get(day, [])]
    customers = [{"customer_id": c, "email": f"c{c}@example.com", "email_consent": "yes"} for c in sorted(people)]
    feed(db, shop, midnight(PUBLISHED), customers=customers, orders=history)
    publish(db, shop, midnight(PUBLISHED), lapse=LAPSE)

    for day in days(PUBLISHED, LAST):
        planner.plan(db, shop, midnight(day))
        if day < LAST and by_day.get(day):
            feed(db, shop, midnight(day + timedelta(days=1)), orders=by_day[day])

    messages = rows_of(db, Message)
    assert len(messages) == independent_count(by_day) > 5_000
    assert {m.status for m in messages} == {Status.PLANNED}
    assert len({(m.customer_id, m.occasion) for m in messages}) == len(messages) == len(rows_of(db, Enrolment))
    db.engine.dispose()
