"""
What a customer's orders add up to: `customer_stats` and the monthly roll-up `customer_months`.

Both always equal a recount of the counted orders: a customer without one has no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from outreach.importer.writing import Change, Run, changed_times, insert_into, many, rows, transaction
from outreach.store import BATCH

Counted = Sequence[Sequence[Any]]  # five columns of orders that count: customers, ids, placed at, totals, currencies

_ADD_STATS = insert_into(
    "customer_stats",
    ("customer_id", "orders_count", "total_spent", "first_order_at", "last_order_at", "last_order_id"),
    """ON CONFLICT (customer_id) DO UPDATE SET
    orders_count = customer_stats.orders_count + excluded.orders_count,
    total_spent = customer_stats.total_spent + excluded.total_spent,
    first_order_at = CASE WHEN excluded.first_order_at < customer_stats.first_order_at
        THEN excluded.first_order_at ELSE customer_stats.first_order_at END,
    last_order_id = CASE WHEN excluded.last_order_at >= customer_stats.last_order_at
        THEN excluded.last_order_id ELSE customer_stats.last_order_id END,
    last_order_at = CASE WHEN excluded.last_order_at >= customer_stats.last_order_at
        THEN excluded.last_order_at ELSE customer_stats.last_order_at END""",
)
_ADD_MONTHS = insert_into(
    "customer_months",
    ("customer_id", "month", "orders", "spent"),
    """ON CONFLICT (customer_id, month) DO UPDATE SET
    orders = customer_months.orders + excluded.orders, spent = customer_months.spent + excluded.spent""",
)


def add(connection: Connection, run: Run, orders: Counted, since: int) -> list[Change]:
    """Add orders whose ids are higher than any of their customer's; gives the changes of last orders."""
    stats: list[list[int]] = []
    months: list[list[int]] = []
    own = run.settings.business.currency
    customers, numbers, placed, totals, currencies = orders
    spent = [total if currency == own else 0 for total, currency in zip(totals, currencies, strict=True)]
    now, in_month = [0], [0, 0]  # neighbours of one customer are added up here, the others by the database
    for customer, order, at, amount, month in zip(
        customers, numbers, placed, spent, run.months.of_all(placed), strict=True
    ):
        if customer != now[0]:
            stats.append(now := [customer, 1, amount, at, at, order])
            months.append(in_month := [customer, month, 1, amount])
            continue
        now[1] += 1
        now[2] += amount
        if at < now[3]:
            now[3] = at
        if at >= now[4]:
            now[4], now[5] = at, order
        if month != in_month[1]:
            months.append(in_month := [customer, month, 1, amount])
        else:
            in_month[2] += 1
            in_month[3] += amount
    changes = _later(connection, stats, since)
    many(connection, _ADD_STATS, stats)
    many(connection, _ADD_MONTHS, months)
    return changes


def _later(connection: Connection, stats: Iterable[Sequence[int]], since: int) -> list[Change]:
    recent: dict[int, int] = {}
    for row in stats:
        if row[4] >= since:
            recent[row[0]] = max(row[4], recent.get(row[0], 0))
    old = _last_orders(connection, recent) if recent else {}
    return [
        ("customer.last_order", customer, customer, at)
        for customer, at in recent.items()
        if at > old.get(customer, at - 1)
    ]


def _last_orders(connection: Connection, customers: Iterable[int]) -> dict[int, int]:
    found = rows(
        connection, "SELECT customer_id, last_order_at FROM customer_stats WHERE customer_id = ANY(?)", list(customers)
    )
    return {row[0]: row[1] for row in found}


def recount(connection: Connection, run: Run, customers: Sequence[int], since: int) -> list[Change]:
    """Work out the customers' rows anew from their orders; gives the changes of last orders."""
    if not customers:
        return []
    listed = list(customers)
    old = _last_orders(connection, listed)
    for table in ("customer_stats", "customer_months"):
        rows(connection, f"DELETE FROM {table} WHERE customer_id = ANY(?)", listed)
    counted = rows(
        connection,
        "SELECT customer_id, id, placed_at, total, currency FROM orders WHERE customer_id = ANY(?) AND counted"
        " ORDER BY customer_id, placed_at, id",
        listed,
    )
    add(connection, run, list(zip(*counted, strict=True)) or [()] * 5, since)
    new = _last_orders(connection, listed)
    return [
        change
        for customer in listed
        for change in changed_times(
            "customer.last_order", customer, customer, old.get(customer), new.get(customer), since
        )
    ]


def rebuild(run: Run) -> None:
    """Count every customer's months anew where the business has moved to another time zone since; safe to cut off."""
    last = 0
    while True:
        with transaction(run) as connection:
            if rows(connection, "SELECT timezone FROM installation")[0][0] == run.settings.business.timezone:
                return
            customers = [
                row[0]
                for row in rows(
                    connection,
                    "SELECT DISTINCT customer_id FROM orders WHERE customer_id > ? ORDER BY customer_id LIMIT ?",
                    last,
                    BATCH,
                )
            ]
            recount(connection, run, customers, run.micros)
            if len(customers) < BATCH:
                rows(connection, "UPDATE installation SET timezone = ?", run.settings.business.timezone)
                return
            last = customers[-1]
