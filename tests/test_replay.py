"""
Two years of real orders, replayed day by day: a lapse campaign against an independent count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from outreach import importer, planner, store
from outreach.models import Enrolment, Message, Status
from outreach.settings import Business
from outreach.sources.csv import CsvSource
from tests import records
from tests.conftest import SECRET, not_waiting_for_the_disk
from tests.records import Invoice, RealShop
from tests.shop import publish, rows_of, shop_settings

real_shop = records.real_shop

PUBLISHED = {"sqlite": date(2010, 3, 1), "postgresql": date(2011, 6, 1)}
LAST = date(2011, 12, 9)
LONDON = ZoneInfo("Europe/London")
LAPSE = """
    title: Lapse
    purpose: service
    brake: 1000000
    trigger: {event: customer.inactive, after: 90 days}
    steps:
      - {id: miss, after: 0 days, channel: email, template: m}
"""


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(0), LONDON)


def days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)


def independent_count(invoices: Iterable[Invoice], published: date) -> int:
    """
    Lapses that a tick at each midnight sees: 90 days of wall clock after an order, none since.

    Only the invoices' local times are used: no zone, no database.
    """
    times: dict[str, set[datetime]] = defaultdict(set)
    for one in invoices:
        if one.is_counted:
            times[one.customer].add(one.at)
    lapses = 0
    for of_customer in times.values():
        ordered = sorted(of_customer)
        for at, following in zip(ordered, [*ordered[1:], None], strict=True):
            lapse = at + timedelta(days=90)
            seen = datetime.combine(lapse.date() + timedelta(days=lapse.time() > time(0)), time(0))
            is_ours = lapse >= datetime.combine(published, time(0)) and seen.date() <= LAST
            lapses += is_ours and (following is None or following >= seen)
    return lapses


@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_every_lapse_of_every_customer_is_planned_exactly_once(
    kind: str, new_database: Callable[[str], str], tmp_path: Path, real_shop: RealShop
) -> None:
    published = PUBLISHED[kind]
    by_day: dict[date, list[Invoice]] = defaultdict(list)
    for one in real_shop.invoices:
        by_day[max(one.at.date(), published - timedelta(days=1))].append(one)
    shop = shop_settings(tmp_path, business=Business("Gifts", "Europe/London", "GBP", "en", "GB"))
    db = store.open_database(new_database(kind), secret=SECRET, timezone="Europe/London")
    not_waiting_for_the_disk(db)
    begin = midnight(published)
    importer.import_source(db, shop, CsvSource({"customers": real_shop.customers}), begin)
    for day in days(published - timedelta(days=1), LAST):
        now = midnight(day)
        if day == published:
            publish(db, shop, now, lapse=LAPSE)
        if day >= published:
            planner.plan(db, shop, now)
        if day < LAST and by_day[day]:
            orders = records.write_orders(tmp_path / "orders.csv", by_day[day])
            importer.import_source(db, shop, CsvSource({"orders": orders}), midnight(day + timedelta(days=1)))

    messages = rows_of(db, Message)
    assert len(messages) == independent_count(real_shop.invoices, published) > 1_000
    assert {m.status for m in messages} == {Status.PLANNED}
    assert len({(m.customer_id, m.occasion) for m in messages}) == len(messages) == len(rows_of(db, Enrolment))
    db.engine.dispose()
