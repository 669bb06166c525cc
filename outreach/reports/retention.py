"""
Retention and cohorts: who ordered again.

Both work on `periods.histories`: how many customers ordered in which periods. An order
counts unless it is cancelled or its amount is zero; nothing dated `now` or later is read.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from outreach.reports import Report
from outreach.reports.periods import Grid, Period, grid, histories, instants, is_over, left_out, periods
from outreach.reports.statistics import wilson
from outreach.settings import Settings
from outreach.store import Database, read

RETENTION = ("period", "before", "retained", "rate", "low", "high", "new", "reactivated")
COHORTS = ("cohort", "size", "active")


def retention(
    db: Database,
    settings: Settings,
    start: date,
    end: date,
    by: str | None = None,
    *,
    now: datetime,
    contract: bool = False,
) -> Report:
    """
    Per period: of the customers with an order in the period before, how many have one in this.

    `before` and `retained` are numbers of customers, `rate` their ratio with Wilson's 95 % interval
    (`low`, `high`). `new` customers ordered for the first time ever, `reactivated` ones had ordered,
    but not in the period before; neither is in the rate. The rate is None where `before` is 0,
    and while the period is not over. `by` is week, month, quarter or year, each whole; without
    it, [start, end) is one period beside the equally long one before it (whole months where both
    are first days of months). `left_out` counts the orders of all these periods that do not count.

    `contract` adds `contract_retention`, (E - N) / S: customers at the end who are not new, per
    customer at the start, so that those who return count as kept.
    """
    zone, listed, cells = settings.business.timezone, periods(start, end, by), grid(start, end, by)
    first = cells.start(cells.number(listed[0].start) - 1)
    with read(db) as connection:
        totals = _totals(connection, cells, listed, zone, now)
        skipped = left_out(connection, *instants(first, listed[-1].end, zone, now))
    rows = []
    for period in listed:
        number = cells.number(period.start)
        before, (total, kept, new) = totals[number - 1][0], totals[number]
        over = is_over(period, zone, now)
        row = {"period": period.label, "before": before, "retained": kept, **share(kept, before if over else 0)}
        row |= {"new": new, "reactivated": total - kept - new}
        if contract:
            row["contract_retention"] = (total - new) / before if over and before else None
        rows.append(row)
    return Report((*RETENTION, "contract_retention") if contract else RETENTION, rows, {"left_out": skipped})


def share(part: int, whole: int) -> dict[str, float | None]:
    """`rate`, `low` and `high` of a share by Wilson; each None where there is nothing to divide by."""
    low, high = wilson(part, whole) or (None, None)
    return {"rate": part / whole if whole else None, "low": low, "high": high}


def _totals(
    connection: Connection, cells: Grid, listed: list[Period], zone: str, now: datetime
) -> dict[int, tuple[int, int, int]]:
    """By period: active customers, those of them active in the period before, those never active before."""
    first = cells.number(listed[0].start) - 1
    total, kept, new = Counter[int](), Counter[int](), Counter[int]()
    for history in histories(connection, cells, first, listed[-1].end, zone, now):
        for place, k in enumerate(history.periods):
            total[k] += history.customers
            if k and history.bits >> (k - 1) & 1:
                kept[k] += history.customers
            elif place == 0 and not history.earlier:
                new[k] += history.customers
    return {first + k: (total[k], kept[k], new[k]) for k in range(len(listed) + 1)}


def cohorts(db: Database, settings: Settings, start: date, end: date, by: str = "month", *, now: datetime) -> Report:
    """
    Per period of [start, end): the customers whose first order ever falls in it, and how many of
    them have an order in each period from then on.

    `active[k]` belongs to the k-th period after the cohort's own; every row has as many as the
    report has periods. It is None where not yet observed: the period is not over at `now`, or
    lies past the report's end.
    """
    zone, listed, cells = settings.business.timezone, periods(start, end, by), grid(start, end, by)
    with read(db) as connection:
        counts = _cohort_counts(connection, cells, listed, zone, now)
        skipped = left_out(connection, *instants(listed[0].start, listed[-1].end, zone, now))
    observed = sum(is_over(period, zone, now) for period in listed)
    rows: list[dict[str, Any]] = []
    for place, period in enumerate(listed):
        own = counts[place]
        activity = [own[place + k] if place + k < observed else None for k in range(len(listed))]
        rows.append({"cohort": period.label, "size": own[place], "active": activity})
    return Report(COHORTS, rows, {"left_out": skipped})


def _cohort_counts(
    connection: Connection, cells: Grid, listed: list[Period], zone: str, now: datetime
) -> list[Counter[int]]:
    """For each period those who first ordered in it, by the period in which they ordered; both counted from 0."""
    counts = [Counter[int]() for _ in listed]
    for history in histories(connection, cells, cells.number(listed[0].start), listed[-1].end, zone, now):
        if history.bits and not history.earlier:
            active = history.periods
            counts[active[0]].update(dict.fromkeys(active, history.customers))
    return counts
