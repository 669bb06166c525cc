"""
Orders and their lines. The hot path of an import: columns are read whole, rows written in the driver's bulk form.

Rows are taken in windows of some ten thousand and written customer by customer, two thousand
orders a transaction: a transaction then touches a narrow strip of every index that begins with the
customer, instead of all of it.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

from sqlalchemy import Connection

from outreach import coupons, store
from outreach.coupons import Bought
from outreach.importer import totals
from outreach.importer.order_rows import (
    LINE,
    TIMES,
    Columns,
    Line,
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
    many_columns,
    new_ids,
    rows,
    since,
    to_json,
    transaction,
    write_fresh,
    write_rejects,
)
from outreach.models import from_micros
from outreach.sources import Refusal, Table
from outreach.store import BATCH, in_chunks

WINDOW = 50_000  # orders read before they are written in the order of their customers
ORDERS = 2 * BATCH  # in one transaction: the 2,000 that DESIGN 3 allows, under 0.1 s
_STORED = Parsed._fields[:-2]  # lines are a table of their own, and what was refused is nowhere
_COLUMNS = ("id", "customer_id", *_STORED)
_LINE = ("order_id", "number", *LINE)
_SINGLE = frozenset({"status", "coupon_code", *(f"{name}_at" for name in TIMES)})
_UPDATE = f"UPDATE orders SET {', '.join(f'{name} = ?' for name in _COLUMNS[1:])} WHERE id = ?"
_Lines = dict[int, list[Line]]  # by order


@dataclass(frozen=True)
class _Writing:
    """`own` holds the highest id of this import while every stored order is of this import; else it is empty."""

    reading: Reading
    own: list[int]


def take(run: Run, table: Table) -> None:
    """Import a table of orders; rows with one order_id are its lines."""
    reading = reading_of(run, table)
    with store.read(run.db) as connection:
        alone = run.db.is_sqlite and not rows(connection, "SELECT id FROM orders LIMIT 1")
    writing = _Writing(reading, [0] if alone else [])
    window: dict[str, list[Any]] = {}
    refusals: list[Refusal] = []
    done = 0
    with _uncollected():
        for batch in table.batches():
            done += len(batch.rows)
            for name, column in parsed(reading, batch, refusals).items():
                window.setdefault(name, []).extend(column)
            if len(window.get("customer", ())) >= WINDOW or len(refusals) >= BATCH:
                _write_window(writing, window, refusals)
                window, refusals = {}, []
            if run.progress:
                run.progress("orders", done, batch.bytes_done, table.bytes_total)
        _write_window(writing, window, refusals)
    _warn_of_no_amounts(reading)


def _warn_of_no_amounts(reading: Reading) -> None:
    """New orders without an amount count nowhere (DESIGN 7): that a whole file has none must not pass in silence."""
    created = reading.run.counts.orders.created
    if created and reading.present.isdisjoint({"total", "unit_price"}):
        why = (
            f"the file has neither this column nor unit_price: its {created} new orders are worth nothing"
            " and count nowhere until a file says what they cost"
        )
        _write_refusals(reading, [Refusal(1, "total", "", why)])


def _write_refusals(reading: Reading, refusals: Sequence[Refusal]) -> None:
    run, file = reading.run, reading.table.file
    for some in in_chunks(refusals):
        with transaction(run) as connection:
            write_rejects(connection, run, file, some)
        list_rejects(run, file, some)


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


def _write_window(writing: _Writing, window: dict[str, list[Any]], refusals: list[Refusal]) -> None:
    run = writing.reading.run
    _write_refusals(writing.reading, refusals)
    names = window.pop("customer", [])
    customers = list(map(customer_ids(run, names).__getitem__, names))
    for places in in_chunks(sorted(range(len(customers)), key=customers.__getitem__), ORDERS):
        orders = {name: [column[n] for n in places] for name, column in window.items()}
        with transaction(run) as connection:
            created, updated = _write(connection, writing, orders, [customers[n] for n in places])
        counts = run.counts.orders
        counts.created += created
        counts.updated += updated
        counts.unchanged += len(places) - created - updated


def _write(connection: Connection, writing: _Writing, orders: Columns, customers: list[int]) -> tuple[int, int]:
    """One transaction: the orders, their lines, what they add up to, and what is fresh. Gives created and updated."""
    start = since(connection, writing.reading.run)
    known = {} if _alone(connection, writing) else _known(connection, orders["external_id"])
    if not known:
        write_fresh(connection, _insert(connection, writing, orders, customers, start))
        return len(customers), 0
    new = [n for n, name in enumerate(orders["external_id"]) if name not in known]
    changed = [
        n
        for n, (name, hashed) in enumerate(zip(orders["external_id"], orders["row_hash"], strict=True))
        if name in known and known[name][1] != hashed
    ]
    changes: list[Change] = []
    if new:
        some = {name: [column[n] for n in new] for name, column in orders.items()}
        changes = _insert(connection, writing, some, [customers[n] for n in new], start)
    if changed:
        after = [Parsed(**{name: column[n] for name, column in orders.items()}) for n in changed]
        numbers = [known[order.external_id][0] for order in after]
        changes += _update(connection, writing.reading, numbers, after, [customers[n] for n in changed], start)
    write_fresh(connection, changes)
    return len(new), len(changed)


def _alone(connection: Connection, writing: _Writing) -> bool:
    """
    Whether every stored order is of this very import, so that none of its orders can be there yet.

    The table was empty, nobody else's ids came after ours, and a source names each order once.
    """
    if writing.own and rows(connection, "SELECT coalesce(max(id), 0) FROM orders")[0][0] == writing.own[-1]:
        return True
    writing.own.clear()
    return False


def _known(connection: Connection, names: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    query = "SELECT external_id, id, row_hash FROM orders WHERE external_id = ANY(?)"
    return {row[0]: (row[1], bytes(row[2])) for row in rows(connection, query, list(names))}


def _insert(
    connection: Connection, writing: _Writing, orders: Columns, customers: list[int], start: int
) -> list[Change]:
    reading = writing.reading
    if reading.estimates:
        orders = _estimated(reading, orders)
    numbers = new_ids(connection, "orders", len(customers))
    names = tuple(name for name in _STORED if name in orders)
    stored = {
        **orders,  # sqlite3 takes four times as long to bind bytes and bools
        "row_hash": list(map(bytearray, orders["row_hash"])),
        "counted": list(map(int, orders["counted"])),
    }
    many_columns(connection, _insert_of(names), [numbers, customers, *(stored[name] for name in names)])
    if "lines" in orders:
        _insert_lines(connection, reading, numbers, orders["lines"])
    if writing.own:
        writing.own[:] = numbers[-1:]
    columns = [customers, numbers, orders["placed_at"], orders["total"], orders["currency"]]
    if not all(orders["counted"]):
        columns = [list(compress(column, orders["counted"])) for column in columns]
    _redeem(connection, reading, numbers, customers, orders)
    changes = totals.add(connection, reading.run, columns, start)
    for name in reading.times_present:
        if max(filter(None, times := orders[f"{name}_at"]), default=0) >= start:
            changes += [
                (f"order.{name}", number, customer, at)
                for number, customer, at in zip(numbers, customers, times, strict=True)
                if at is not None and at >= start
            ]
    return changes


def _redeem(
    connection: Connection, reading: Reading, numbers: Sequence[int], customers: Sequence[int], orders: Columns
) -> None:
    """What the coupon codes of new orders say was used, and what was told of these orders before they came in."""
    coupons.join(connection, reading.run.settings, reading.run.now, orders["external_id"], numbers, customers)
    bought = [
        Bought(number, name, customer, code, from_micros(at))
        for number, name, customer, code, at in zip(
            numbers, orders["external_id"], customers, orders.get("coupon_code", ()), orders["placed_at"], strict=False
        )
        if code
    ]
    if bought:
        coupons.from_orders(connection, reading.run.settings, reading.run.now, bought, changed=())


@cache
def _insert_of(names: tuple[str, ...]) -> str:
    return insert_into("orders", ("id", "customer_id", *names), counted="? <> 0")


def _estimated(reading: Reading, orders: Columns) -> Columns:
    rows_ = [Parsed(**dict(zip(orders, row, strict=True))) for row in zip(*orders.values(), strict=True)]
    found = [with_estimates(reading.run, order) for order in rows_]
    return {**orders, "shipped_at": [o.shipped_at for o in found], "delivered_at": [o.delivered_at for o in found]}


def _insert_lines(
    connection: Connection, reading: Reading, numbers: Sequence[int], lines: Sequence[tuple[Line, ...]]
) -> None:
    whole = [
        (number, n, *line) for number, bought in zip(numbers, lines, strict=True) for n, line in enumerate(bought, 1)
    ]
    columns = dict(zip(_LINE, zip(*whole, strict=True), strict=False))
    names = tuple(name for name in columns if name not in LINE or name in reading.present)
    many_columns(connection, _insert_line_of(names), [columns[name] for name in names])


@cache
def _insert_line_of(names: tuple[str, ...]) -> str:
    return insert_into("order_lines", names)


def _update(
    connection: Connection, reading: Reading, numbers: list[int], orders: list[Parsed], customers: list[int], start: int
) -> list[Change]:
    """Write changed orders over their former selves; columns that the file lacks stay as they are."""
    query = f"SELECT {', '.join(_COLUMNS)} FROM orders WHERE id = ANY(?)"
    stored = {row[0]: (row[1], _stored(row[2:])) for row in rows(connection, query, numbers)}
    after = [_overlaid(reading, order, stored[number][1]) for number, order in zip(numbers, orders, strict=True)]
    values = [
        (customer, *order[: len(_STORED)], number)
        for number, order, customer in zip(numbers, after, customers, strict=True)
    ]
    many(connection, _UPDATE, values)
    lines: _Lines = {}
    if not reading.present.isdisjoint(LINE):
        lines = _stored_lines(connection, numbers)
        after = [_with_kept_cells(order, lines[number]) for number, order in zip(numbers, after, strict=True)]
        rows(connection, "DELETE FROM order_lines WHERE order_id = ANY(?)", numbers)
        _insert_lines(connection, reading, numbers, [order.lines for order in after])
    bought = [
        Bought(number, order.external_id, customer, order.coupon_code, from_micros(order.placed_at))
        for number, order, customer in zip(numbers, after, customers, strict=True)
    ]
    coupons.from_orders(connection, reading.run.settings, reading.run.now, bought, changed=numbers)
    changes = totals.recount(
        connection, reading.run, sorted({*customers, *(customer for customer, _ in stored.values())}), start
    )
    for number, order, customer in zip(numbers, after, customers, strict=True):
        old_customer, before = stored[number]
        again = number in lines and _bought(lines[number]) != _bought(order.lines)
        changes += _changes(number, before, order, old_customer, customer, start, again)
    return changes


def _bought(lines: Sequence[Line]) -> list[tuple[str | None, ...]]:
    """What triggers filter lines on: their sku, product and category."""
    return [line[:3] for line in lines]


def _stored_lines(connection: Connection, numbers: Sequence[int]) -> _Lines:
    query = f"SELECT {', '.join(_LINE)} FROM order_lines WHERE order_id = ANY(?) ORDER BY order_id, number"
    found: _Lines = {number: [] for number in numbers}
    for number, _, *line in rows(connection, query, list(numbers)):
        found[number].append((line[0], line[1], line[2], line[3], line[4]))
    return found


def _with_kept_cells(order: Parsed, before: Sequence[Line]) -> Parsed:
    """The order, a refused cell of a line as it is stored for the same product in the same place."""
    if order.refused.isdisjoint(LINE):
        return order
    lines = list(order.lines)
    for n, (line, old) in enumerate(zip(lines, before, strict=False)):
        if line[:3] == old[:3]:
            pieces = old[3] if line[3] is None and "quantity" in order.refused else line[3]
            price = old[4] if line[4] is None and "unit_price" in order.refused else line[4]
            lines[n] = (*line[:3], pieces, price)
    return order._replace(lines=tuple(lines))


def _stored(row: Sequence[Any]) -> Parsed:
    values = dict(zip(_STORED, row, strict=True))
    values |= {"attributes": to_json(from_json(values["attributes"])), "counted": bool(values["counted"])}
    return Parsed(**values)


def _overlaid(reading: Reading, order: Parsed, before: Parsed) -> Parsed:
    run, present = reading.run, reading.present
    kept = without_estimates(run, before)
    absent = _SINGLE - present | _SINGLE & order.refused
    values: dict[str, Any] = {name: getattr(kept, name) for name in absent}
    if present.isdisjoint({"total", "unit_price"}):
        values["total"] = before.total
    others = {name: value for name, value in json.loads(before.attributes).items() if name not in present}
    merged = order._replace(**values, attributes=to_json({**others, **json.loads(order.attributes)}))
    merged = with_estimates(run, merged)
    return merged._replace(counted=counts(merged.total, merged.cancelled_at, merged.status))


def _changes(
    number: int, before: Parsed, after: Parsed, old_customer: int, customer: int, start: int, again: bool
) -> list[Change]:
    """
    What changed of an order's times; for another customer, all of them are cleared and set again.

    `again`: what campaigns filter on has changed, so the times that stay are named again: one may start a campaign now.
    """
    found: list[Change] = []
    for name in TIMES:
        old, new, kind = getattr(before, f"{name}_at"), getattr(after, f"{name}_at"), f"order.{name}"
        if customer != old_customer:
            found += changed_times(kind, number, old_customer, old, None, start)
            old = None
        if again and old == new:
            old = None
        found += changed_times(kind, number, customer, old, new, start)
    return found
