"""
Orders and their lines. The hot path of an import: columns are read whole, rows written in the driver's bulk form.

Rows are taken in windows of some ten thousand and written customer by customer, a thousand orders
a transaction: a transaction then touches a narrow strip of every index that begins with the
customer, instead of all of it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection

from outreach.importer import totals
from outreach.importer.order_rows import (
    LINE,
    TIMES,
    Parsed,
    Reading,
    counts,
    parsed,
    reading_of,
    with_estimates,
    without_estimates,
)
from outreach.importer.people import customer_ids
from outreach.importer.writing import (
    Change,
    Run,
    changed_times,
    from_json,
    insert_into,
    list_rejects,
    many,
    new_ids,
    rows,
    since,
    to_json,
    transaction,
    write_fresh,
    write_rejects,
)
from outreach.sources import Refusal, Table
from outreach.store import BATCH, in_chunks

WINDOW = 50_000  # rows read before they are written in the order of their customers
_COLUMNS = ("id", "customer_id", *Parsed._fields[:-2])
_INSERT = insert_into("orders", _COLUMNS)
_INSERT_LINE = insert_into("order_lines", ("order_id", "number", *LINE))
_UPDATE = f"UPDATE orders SET {', '.join(f'{name} = ?' for name in _COLUMNS[1:])} WHERE id = ?"


def take(run: Run, table: Table) -> None:
    """Import a table of orders; rows with one order_id are its lines."""
    reading = reading_of(run, table)
    orders: list[Parsed] = []
    refusals: list[Refusal] = []
    done = 0
    with _uncollected():
        for batch in table.batches():
            done += len(batch.rows)
            orders += parsed(reading, batch, refusals)
            if len(orders) >= WINDOW or len(refusals) >= BATCH:
                _write_window(reading, orders, refusals)
                orders, refusals = [], []
            if run.progress:
                run.progress("orders", done, batch.bytes_done, table.bytes_total)
        _write_window(reading, orders, refusals)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look through a window's orders again and again: a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# --- writing --------------------------------------------------------------------------------------


def _write_window(reading: Reading, orders: list[Parsed], refusals: list[Refusal]) -> None:
    run, table = reading.run, reading.table
    for some in in_chunks(refusals):
        with transaction(run) as connection:
            write_rejects(connection, run, table.file, some)
        list_rejects(run, table.file, some)
    ids = customer_ids(run, {order.customer for order in orders})
    for chunk in in_chunks(_by_customer(orders, ids)):
        with transaction(run) as connection:
            created, updated = _write(connection, reading, chunk, ids)
        counts = run.counts.orders
        counts.created += created
        counts.updated += updated
        counts.unchanged += len(chunk) - created - updated


def _by_customer(orders: Sequence[Parsed], ids: Mapping[str, int]) -> list[Parsed]:
    customers = [ids[order.customer] for order in orders]
    return [orders[n] for n in sorted(range(len(orders)), key=customers.__getitem__)]


def _write(connection: Connection, reading: Reading, chunk: Sequence[Parsed], ids: dict[str, int]) -> tuple[int, int]:
    """One transaction: the orders, their lines, what they add up to, and what is fresh. Gives created and updated."""
    stored = {
        row[0]: (row[1], bytes(row[2]))
        for row in rows(
            connection,
            "SELECT external_id, id, row_hash FROM orders WHERE external_id = ANY(?)",
            [order.external_id for order in chunk],
        )
    }
    new = [order for order in chunk if order.external_id not in stored] if stored else chunk
    changed = [
        (stored[order.external_id][0], order)
        for order in chunk
        if stored and order.external_id in stored and stored[order.external_id][1] != order.row_hash
    ]
    start = since(connection, reading.run)
    changes = _insert(connection, reading, list(new), ids, start)
    if changed:
        changes += _update(connection, reading, changed, ids, start)
    write_fresh(connection, changes)
    return len(new), len(changed)


def _insert(
    connection: Connection, reading: Reading, new: list[Parsed], ids: dict[str, int], start: int
) -> list[Change]:
    if reading.run.settings.orders.shipped or reading.run.settings.orders.delivered:
        new = [with_estimates(reading.run, order) for order in new]
    numbers = new_ids(connection, "orders", len(new))
    numbered = list(zip(numbers, new, strict=True))
    many(connection, _INSERT, [(number, ids[order.customer], *order[:-2]) for number, order in numbered])
    many(connection, _INSERT_LINE, _line_rows(numbered))
    counted = [
        (ids[order.customer], number, order.placed_at, order.total, order.currency)
        for number, order in numbered
        if order.counted
    ]
    changes = totals.add(connection, reading.run, counted, start)
    for name in reading.times_present:
        of = attrgetter(f"{name}_at")
        changes += [
            (f"order.{name}", number, ids[order.customer], at)
            for number, order in numbered
            if (at := of(order)) is not None and at >= start
        ]
    return changes


def _line_rows(orders: Iterable[tuple[int, Parsed]]) -> list[tuple[Any, ...]]:
    return [(number, n, *line) for number, order in orders for n, line in enumerate(order.lines, 1)]


def _update(
    connection: Connection, reading: Reading, changed: list[tuple[int, Parsed]], ids: dict[str, int], start: int
) -> list[Change]:
    """Write changed orders over their former selves; columns that the file lacks stay as they are."""
    numbers = [number for number, _ in changed]
    stored = {
        row[0]: (row[1], _stored(row[2:]))
        for row in rows(connection, f"SELECT {', '.join(_COLUMNS)} FROM orders WHERE id = ANY(?)", numbers)
    }
    after = [(number, _overlaid(reading, order, stored[number][1])) for number, order in changed]
    many(connection, _UPDATE, [(ids[order.customer], *order[:-2], number) for number, order in after])
    if not reading.present.isdisjoint(LINE):
        rows(connection, "DELETE FROM order_lines WHERE order_id = ANY(?)", numbers)
        many(connection, _INSERT_LINE, _line_rows(after))
    customers = {ids[order.customer] for _, order in after} | {customer for customer, _ in stored.values()}
    changes = totals.recount(connection, reading.run, sorted(customers), start)
    for number, order in after:
        customer, before = stored[number]
        changes += _changes(number, before, order, customer, ids[order.customer], start)
    return changes


def _stored(row: Sequence[Any]) -> Parsed:
    values = dict(zip(Parsed._fields[:-2], row, strict=True))
    values |= {"attributes": to_json(from_json(values["attributes"])), "counted": bool(values["counted"])}
    return Parsed(**values, customer="", lines=())


def _overlaid(reading: Reading, order: Parsed, before: Parsed) -> Parsed:
    run, present = reading.run, reading.present
    kept = without_estimates(run, before)
    absent = [name for name in ("status", "coupon_code", *(f"{name}_at" for name in TIMES)) if name not in present]
    values: dict[str, Any] = {name: getattr(kept, name) for name in absent}
    if present.isdisjoint({"total", "unit_price"}):
        values["total"] = before.total
    others = {name: value for name, value in json.loads(before.attributes).items() if name not in present}
    merged = order._replace(**values, attributes=to_json({**others, **json.loads(order.attributes)}))
    merged = with_estimates(run, merged)
    return merged._replace(counted=counts(merged.total, merged.cancelled_at, merged.status))


def _changes(number: int, before: Parsed, after: Parsed, old_customer: int, customer: int, start: int) -> list[Change]:
    """What changed of an order's times; for another customer, all of them are new."""
    return [
        change
        for name in TIMES
        for change in changed_times(
            f"order.{name}",
            number,
            customer,
            getattr(before, f"{name}_at") if customer == old_customer else None,
            getattr(after, f"{name}_at"),
            start,
        )
    ]
