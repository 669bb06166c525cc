"""
Repurchase: how many first-time buyers come back, and how soon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, select

from outreach.models import CustomerStats, Order, table, to_micros
from outreach.reports import Report
from outreach.reports.periods import DAY, first_order, grid, instants, left_out, local_day, local_time
from outreach.reports.statistics import Survival, kaplan_meier
from outreach.settings import Settings
from outreach.store import Database, read
from outreach.timing import zone

REPURCHASE = ("days", "rate", "low", "high", "at_risk")

_stats, _orders = table(CustomerStats), table(Order)


def repurchase(
    db: Database,
    settings: Settings,
    start: date,
    end: date,
    *,
    now: datetime,
    days: Sequence[int] = (30, 60, 90, 180, 365),
) -> Report:
    """
    Of the customers whose first order falls in [start, end): the share with a second one within so
    many days, on another day.

    Kaplan-Meier, right-censored at `now`, with Greenwood's 95 % interval (`low`, `high`; on the
    log(-log) scale, see `statistics.kaplan_meier`); `at_risk` is the number of customers followed
    that long without a second order before. The rate is None where nobody was followed that long.
    Days are those of the business's time zone: N days later is the same wall-clock time.
    """
    zone_name = settings.business.timezone
    grid(start, end, None)  # refuses an empty period
    with read(db) as connection:
        since, until = instants(start, end, zone_name, now)
        observed = _observed(connection, since, until, zone_name, now, (max(days) + 1) * DAY)
        skipped = left_out(connection, since, until)
    found = kaplan_meier(observed, [day * DAY for day in days])
    return Report(REPURCHASE, [_row(day, one) for day, one in zip(days, found, strict=True)], {"left_out": skipped})


def _row(days: int, found: Survival) -> dict[str, Any]:
    values = (found.survival, found.high, found.low)  # a high survival is a low rate
    rate, low, high = (None if value is None else 1 - value for value in values)
    return {"days": days, "rate": rate, "low": low, "high": high, "at_risk": found.at_risk}


def _observed(
    connection: Connection, since: datetime, until: datetime, zone_name: str, now: datetime, longest: int
) -> list[tuple[float, bool, int]]:
    """(time to the second order, or to `now`; whether there was one; customers), nothing told apart past `longest`."""
    oldest = max(since, first_order(connection) or since)

    def local(at: Any) -> Any:
        return local_time(at, zone_name, oldest, now)

    o, first = _orders.c, _stats.c.first_order_at
    second = (
        select(local(o.placed_at))
        .where(o.customer_id == _stats.c.customer_id, o.counted, o.placed_at > first, o.placed_at < now)
        .where(local_day(local(o.placed_at)) > local_day(local(first)))
        .order_by(o.placed_at)
        .limit(1)  # with the index, the search ends at the first that fits
        .correlate(_stats)
        .scalar_subquery()
    )
    wall_clock = to_micros(now.astimezone(zone(zone_name)).replace(tzinfo=UTC))
    found: Counter[tuple[int, bool]] = Counter()
    for begun, again in connection.execute(select(local(first), second).where(first >= since, first < until)):
        took = (wall_clock if again is None else again) - begun
        found[max(0, min(took, longest)), again is not None and took <= longest] += 1
    return [(time, event, customers) for (time, event), customers in found.items()]
