"""
Reading orders: rows of cells → orders with their lines, column by column. Pure but for what it remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import compress
from typing import Any, NamedTuple

from outreach import timing
from outreach.importer.cells import (
    Memo,
    Reader,
    attributes,
    aware,
    currency_code,
    key,
    money,
    plain,
    quantity,
    read_cell,
    read_column,
    times,
    uncounts,
)
from outreach.importer.writing import Run, digest, row_hash, seed, to_json
from outreach.models import to_micros
from outreach.sources import OPTIONAL, REQUIRED, Batch, Refusal, Table

TIMES = ("placed", "paid", "shipped", "delivered", "cancelled", "refunded")
LINE = ("sku", "product", "category", "quantity", "unit_price")
_FATAL = frozenset({"order_id", "customer_id", "placed_at", "currency", "total"})  # no order without them
_KNOWN = frozenset({*REQUIRED["orders"], *OPTIONAL["orders"]})

Columns = Mapping[str, Sequence[Any]]  # by those fields of Parsed that the file has or that it always has, and customer
Line = tuple[str | None, str | None, str | None, str | None, int | None]  # the columns of LINE
Refusals = dict[int, list[Refusal]]
_NO_LINE: Line = (None, None, None, None, None)
_NONE: frozenset[str] = frozenset()


class Parsed(NamedTuple):
    """One order as the file has it; times in microseconds, money in minor units."""

    external_id: str
    row_hash: bytes
    placed_at: int
    currency: str
    total: int
    counted: bool
    attributes: str  # JSON
    status: str | None = None
    paid_at: int | None = None
    shipped_at: int | None = None
    delivered_at: int | None = None
    cancelled_at: int | None = None
    refunded_at: int | None = None
    coupon_code: str | None = None
    lines: tuple[Line, ...] = ()
    refused: frozenset[str] = frozenset()  # the columns of which a cell was refused: what is stored stays


@dataclass(frozen=True)
class Reading:
    """What reading a file of orders needs to remember."""

    run: Run
    table: Table
    seed: str
    times: Reader
    words: Memo
    currencies: Memo
    pieces: Memo
    amounts: dict[str, Reader]

    @property
    def present(self) -> frozenset[str]:
        """The columns that the file has."""
        return frozenset(self.table.columns)

    @property
    def estimates(self) -> bool:
        """Whether the settings estimate missing times."""
        return bool(self.run.settings.orders.shipped or self.run.settings.orders.delivered)

    @property
    def times_present(self) -> list[str]:
        """The times that the file has or that are estimated."""
        estimates = self.run.settings.orders
        estimated = {name for name in ("shipped", "delivered") if getattr(estimates, name)}
        return [name for name in TIMES if f"{name}_at" in self.table.columns or name in estimated]


def reading_of(run: Run, table: Table) -> Reading:
    """What is needed to read one table of orders."""
    read_time = times(run.settings.business.timezone, run.now)
    return Reading(run, table, seed(run, table), read_time, Memo(plain), Memo(currency_code), Memo(quantity), {})


def parsed(reading: Reading, batch: Batch, refused: list[Refusal]) -> Columns:
    """The orders of a batch, column by column; what was refused is appended to `refused`, and rows counted as read and rejected."""
    counts = reading.run.counts.orders
    counts.read += len(batch.refusals)
    counts.rejected += len(batch.refusals)
    refused += batch.refusals
    if not batch.rows:
        return {}
    ends = _groups(batch.rows, reading.table.columns.index("order_id"))
    refusals: Refusals = {}
    orders = _orders(reading, batch, ends, refusals)
    counts.read += len(orders["external_id"])
    for n, found in refusals.items():
        refused += [replace(refusal, customer=orders["customer"][n] or "") for refusal in found]
    dead = {n for n, found in refusals.items() if any(refusal.column in _FATAL for refusal in found)}
    counts.rejected += len(dead)
    if dead:
        alive = [n not in dead for n in range(len(orders["external_id"]))]
        return {name: list(compress(column, alive)) for name, column in orders.items()}
    return orders


def _groups(batch_rows: Sequence[Sequence[str]], at: int) -> list[int] | None:
    """Where each order's rows end; None where every row is an order of its own."""
    keys = [row[at].strip() for row in batch_rows]
    if len(set(keys)) == len(keys):
        return None
    return [n + 1 for n, name in enumerate(keys) if n + 1 == len(keys) or not name or keys[n + 1] != name]


def _merged(batch_rows: Sequence[Sequence[str]], ends: list[int]) -> list[Sequence[str]]:
    """One row an order: in each column the last of its cells that says something."""
    merged, start = [], 0
    for end in ends:
        group = batch_rows[start:end]
        merged.append(
            group[0]
            if len(group) == 1
            else [next((cell for cell in reversed(cells) if cell), "") for cells in zip(*group, strict=True)]
        )
        start = end
    return merged


def _orders(reading: Reading, batch: Batch, ends: list[int] | None, refusals: Refusals) -> Columns:
    heads = batch.rows if ends is None else _merged(batch.rows, ends)
    lines = batch.lines if ends is None else [batch.lines[start] for start in (0, *ends[:-1])]
    cells = dict(zip(reading.table.columns, zip(*heads, strict=True), strict=True))
    own, words = reading.run.settings.business.currency, reading.words.__getitem__
    readers: dict[str, Callable[[str], Any]] = {
        "status": words,
        "coupon_code": words,
        **{f"{name}_at": reading.times for name in TIMES},
    }
    orders: dict[str, Sequence[Any]] = {
        name: read_column(cells[name], read, name, lines, refusals) for name, read in readers.items() if name in cells
    }
    orders["external_id"] = read_column(cells["order_id"], key, "order_id", lines, refusals)
    orders["customer"] = read_column(cells["customer_id"], key, "customer_id", lines, refusals)
    if ends is not None:
        _need_one_customer(batch, ends, reading.table.columns.index("customer_id"), refusals)
    nothing = [None] * len(heads)
    codes = nothing
    if "currency" in cells:
        codes = read_column(cells["currency"], reading.currencies.__getitem__, "currency", lines, refusals)
    orders["currency"] = [code or own for code in codes]
    if None in orders["placed_at"]:
        _need_placed(cells["placed_at"], lines, refusals)
    bought = _lines(reading, batch, cells, ends, orders["currency"], refusals)
    amounts = _amounts(reading, "total", cells, orders["currency"], lines, refusals)
    if "unit_price" in reading.present:
        _need_whole_lines(amounts, lines, refusals)
    orders["total"] = _totals(amounts, bought)
    orders["counted"] = list(
        map(counts, orders["total"], orders.get("cancelled_at", nothing), orders.get("status", nothing))
    )
    orders["attributes"] = _attributes(reading, cells, len(heads))
    if not reading.present.isdisjoint(LINE):
        orders["lines"] = bought
    orders["row_hash"] = _hashes(reading, batch, ends, refusals)
    orders["refused"] = [
        frozenset(refusal.column for refusal in refusals[n]) if n in refusals else _NONE for n in range(len(heads))
    ]
    return orders


def _need_one_customer(batch: Batch, ends: list[int], at: int, refusals: Refusals) -> None:
    """The rows of an order are its lines: whose it is cannot differ."""
    start = 0
    for n, end in enumerate(ends):
        if end - start > 1:
            named = [(row, cell) for row in range(start, end) if (cell := batch.rows[row][at].strip())]
            other = next(((row, cell) for row, cell in named if cell != named[0][1]), None)
            if other is not None:
                why = "is not the customer of the order's rows before: an order has one"
                refusals.setdefault(n, []).append(Refusal(batch.lines[other[0]], "customer_id", other[1], why))
        start = end


def _need_whole_lines(amounts: Sequence[int | None], lines: Sequence[int], refusals: Refusals) -> None:
    """An order without a total costs what its lines do: one that cannot be read makes the whole unknown."""
    for n, found in refusals.items():
        refused = {refusal.column for refusal in found}
        if amounts[n] is None and "total" not in refused and not refused.isdisjoint({"quantity", "unit_price"}):
            why = "cannot be added up from the order's lines: a unit_price or a quantity of theirs was refused"
            found.append(Refusal(lines[n], "total", "", why))


def _totals(amounts: Sequence[int | None], lines: Sequence[tuple[Line, ...]]) -> Sequence[Any]:
    if None not in amounts:
        return amounts
    return [_sum(bought) if amount is None else amount for amount, bought in zip(amounts, lines, strict=True)]


def _need_placed(cells: Sequence[str], lines: Sequence[int], refusals: Refusals) -> None:
    for n, cell in enumerate(cells):
        if not cell.strip():
            refusals.setdefault(n, []).append(Refusal(lines[n], "placed_at", cell, "is missing: every row needs it"))


def _amounts(
    reading: Reading,
    name: str,
    cells: dict[str, Any],
    currency: Sequence[str],
    lines: Sequence[int],
    refusals: Refusals,
) -> list[int | None]:
    """The amounts of a column, each in the minor unit of its row's currency."""
    if name not in cells:
        return [None] * len(currency)
    for code in set(currency) - set(reading.amounts):
        reading.amounts[code] = money(code)
    if len(set(currency)) == 1:
        return read_column(cells[name], reading.amounts[currency[0]], name, lines, refusals)
    return [
        read_cell(cell, reading.amounts[code], name, lines[n], refusals, n)
        for n, (cell, code) in enumerate(zip(cells[name], currency, strict=True))
    ]


def _lines(
    reading: Reading,
    batch: Batch,
    cells: dict[str, Any],
    ends: list[int] | None,
    currency: Sequence[str],
    refusals: Refusals,
) -> list[tuple[Line, ...]]:
    """Each order's lines; a row whose line columns are all empty is none."""
    if reading.present.isdisjoint(LINE):
        return [()] * len(currency)
    if ends is not None:
        cells = dict(zip(reading.table.columns, zip(*batch.rows, strict=True), strict=True))
    order = range(len(batch.rows)) if ends is None else _order_of_row(ends)
    by_row: Refusals = {}
    codes = currency if ends is None else [currency[n] for n in order]
    nothing = [None] * len(batch.rows)
    words = [
        read_column(cells[name], reading.words.__getitem__, name, batch.lines, by_row) if name in cells else nothing
        for name in LINE[:3]
    ]
    pieces = (
        read_column(cells["quantity"], reading.pieces.__getitem__, "quantity", batch.lines, by_row)
        if "quantity" in cells
        else nothing
    )
    prices = _amounts(reading, "unit_price", cells, codes, batch.lines, by_row)
    for row, refused in by_row.items():
        refusals.setdefault(order[row], []).extend(refused)
    found: list[Line] = list(zip(*words, pieces, prices, strict=True))
    if ends is None:
        return [(line,) if line != _NO_LINE else () for line in found]
    return [
        tuple(line for line in found[start:end] if line != _NO_LINE)
        for start, end in zip((0, *ends), ends, strict=False)
    ]


def _order_of_row(ends: list[int]) -> list[int]:
    return [n for n, (start, end) in enumerate(zip((0, *ends), ends, strict=False)) for _ in range(start, end)]


def counts(total: int, cancelled_at: int | None, status: str | None) -> bool:
    """Whether an order counts: its amount over zero, and not cancelled, by time or by its status."""
    return total > 0 and cancelled_at is None and not (status is not None and uncounts(status))


def _sum(lines: Iterable[Line]) -> int:
    """What the lines cost together, for a file without totals."""
    amount = sum((Decimal(pieces or 1) * price for *_, pieces, price in lines if price), Decimal())
    return max(int(amount.to_integral_value(ROUND_HALF_UP)), 0)


def _attributes(reading: Reading, cells: dict[str, Any], count: int) -> list[str]:
    names = [name for name in reading.table.columns if name and name not in _KNOWN]
    if not names:
        return ["{}"] * count
    return [
        to_json(attributes(dict(zip(names, row, strict=True))))
        for row in zip(*(cells[name] for name in names), strict=True)
    ]


def _hashes(reading: Reading, batch: Batch, ends: list[int] | None, refusals: Refusals) -> list[bytes]:
    if ends is None:
        start = f"{reading.seed}\x1f"
        hashes = [digest(start + "\x1f".join(row)) for row in batch.rows]
    else:
        spans = zip((0, *ends), ends, strict=False)
        hashes = [row_hash(reading.seed, (c for row in batch.rows[start:end] for c in row)) for start, end in spans]
    for n, found in refusals.items():
        hashes[n] = row_hash(reading.seed, (hashes[n].hex(),), found)
    return hashes


# --- estimated times ------------------------------------------------------------------------------


def with_estimates(run: Run, order: Parsed) -> Parsed:
    """
    The order with shipped and delivered as given, else as the settings estimate them.

    `orders: {delivered: {else: shipped + 5 days}}`: calendar arithmetic in the business's time zone.
    A real time given later takes the estimate's place; a cancelled order gets none.
    """
    estimates = run.settings.orders
    if not (estimates.shipped or estimates.delivered) or order.cancelled_at is not None or uncounts(order.status):
        return order
    known = {
        "placed": order.placed_at,
        "paid": order.paid_at,
        "shipped": order.shipped_at,
        "delivered": order.delivered_at,
    }
    for name, rule in (("shipped", estimates.shipped), ("delivered", estimates.delivered)):
        if rule and known[name] is None and (base := known.get(rule[0])) is not None:
            known[name] = _moved(base, rule[1], run.settings.business.timezone)
    return order._replace(shipped_at=known["shipped"], delivered_at=known["delivered"])


def without_estimates(run: Run, order: Parsed) -> Parsed:
    """A stored order without the times that are only estimates."""
    without = order._replace(delivered_at=None)
    if order.delivered_at == with_estimates(run, without).delivered_at:
        order = without
    without = order._replace(shipped_at=None)
    return without if order.shipped_at == with_estimates(run, without).shipped_at else order


def _moved(at: int, duration: Any, zone: str) -> int:
    moment = aware(at)
    assert moment is not None  # noqa: S101
    return to_micros(timing.add(moment, duration, zone))
