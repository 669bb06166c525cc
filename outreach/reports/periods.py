"""
Periods: how they are written, which one a day falls in, and the SQL that says so of an order.

Every period is half-open, `[start, end)`, and whole: weeks are ISO weeks, months, quarters and
years those of the calendar, all in the business's time zone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from outreach.errors import OutreachError
from outreach.models import CustomerMonth, CustomerStats, Installation, Order, table, to_micros
from outreach.timing import local_midnight, zone

KINDS = ("week", "month", "quarter", "year")
MOST = 2_000  # periods in one report
DAY = 86_400_000_000  # microseconds
_MONTHS = {"month": 1, "quarter": 3, "year": 12}

_orders, _stats = table(Order), table(CustomerStats)
_months, _installation = table(CustomerMonth), table(Installation)


@dataclass(frozen=True)
class Period:
    """A stretch of days, `end` not among them."""

    label: str
    start: date
    end: date


@dataclass(frozen=True)
class Grid:
    """Equal periods without gaps, numbered: of so many calendar months, or of so many days."""

    size: int
    origin: int  # a month (12 * year + month - 1) or day number at which a period begins
    by_months: bool

    def number(self, day: date) -> int:
        """The number of the period that holds the day."""
        at = _month(day) if self.by_months else day.toordinal()
        return (at - self.origin % self.size) // self.size

    def start(self, number: int) -> date:
        """The first day of a period."""
        at = number * self.size + self.origin % self.size
        return _first_of(at) if self.by_months else date.fromordinal(at)


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1


def _first_of(month: int) -> date:
    return date(month // 12, month % 12 + 1, 1)


def grid(start: date, end: date, by: str | None) -> Grid:
    """The periods of a kind; without one, those as long as [start, end): whole months where both are firsts."""
    if by is not None and by not in KINDS:
        raise ValueError(f"by is one of {', '.join(KINDS)}")
    if start >= end:
        raise OutreachError(f"the period is empty: it begins on {start} and ends before {end}; give a later end")
    if start.year < 1900 or end.year > 2300:
        raise OutreachError(f"{start} to {end}: reports reach from 1900 to 2300")
    if by == "week":
        return Grid(7, date(2001, 1, 1).toordinal(), by_months=False)
    if by:
        return Grid(_MONTHS[by], 0, by_months=True)
    if start.day == end.day == 1:
        return Grid(_month(end) - _month(start), _month(start), by_months=True)
    return Grid((end - start).days, start.toordinal(), by_months=False)


def periods(start: date, end: date, by: str | None) -> list[Period]:
    """
    The periods that hold the days of [start, end), whole: the first and last are not cut.

    Raises:
        OutreachError: there are none, or too many.
    """
    cells = grid(start, end, by)
    first, last = cells.number(start), cells.number(end - timedelta(days=1))
    if last - first >= MOST:
        raise OutreachError(f"{last - first + 1:,} periods are too many for a report: at most {MOST:,}")
    starts = [cells.start(number) for number in range(first, last + 2)]
    return [Period(label(a, b), a, b) for a, b in pairwise(starts)]


def label(start: date, end: date) -> str:
    """`2010`, `2010-Q1`, `2010-01`, `2010-W05`; any other stretch as `2010-12-01/2011-12-01`, its end not in it."""
    months = _month(end) - _month(start) if start.day == end.day == 1 else 0
    if months == 12 and start.month == 1:
        return f"{start:%Y}"
    if months == 3 and start.month % 3 == 1:
        return f"{start:%Y}-Q{start.month // 3 + 1}"
    if months == 1:
        return f"{start:%Y-%m}"
    if (end - start).days == 7 and start.weekday() == 0:
        week = start.isocalendar()
        return f"{week.year}-W{week.week:02d}"
    return f"{start}/{end}"


def is_over(period: Period, zone_name: str, now: datetime) -> bool:
    """Whether all of the period lies before `now`."""
    return local_midnight(period.end, zone_name) <= now


def instants(start: date, end: date, zone_name: str, now: datetime) -> tuple[datetime, datetime]:
    """[start, end) as instants, nothing from `now` on in it."""
    first, after = local_midnight(start, zone_name), min(local_midnight(end, zone_name), now)
    return first, max(first, after)


# --- SQL -----------------------------------------------------------------------------------------


def local_time(at: Any, zone_name: str, since: datetime, until: datetime) -> ColumnElement[int]:
    """
    The wall clock of a stored time as microseconds since 1970, right for times in [since, until).

    The zone's offset is written out as a CASE over the clock changes in between.
    """
    micros = type_coerce(at, BigInteger)
    (_, first), *changes = _offsets(zone_name, since, until)
    latest_first = [(micros >= to_micros(at), literal(offset, BigInteger())) for at, offset in reversed(changes)]
    earliest = literal(first, BigInteger())
    return micros + (case(*latest_first, else_=earliest) if changes else earliest)


def first_order(connection: Connection) -> datetime | None:
    """The time of the oldest order there is, so that no clock change before it is written out."""
    oldest: datetime | None = connection.execute(select(func.min(_orders.c.placed_at))).scalar()
    return oldest


def local_day(local: ColumnElement[int]) -> ColumnElement[int]:
    """The day of a wall clock in microseconds, numbered as `date.toordinal` does."""
    eve = date(1969, 12, 31).toordinal()  # a wall clock may lie just before 1970, and `//` rounds towards 0
    return (local + DAY) // DAY + eve


def _offsets(zone_name: str, since: datetime, until: datetime) -> list[tuple[datetime, int]]:
    """(instant, offset in microseconds from then on) over [since, until], found day by day."""
    in_zone = zone(zone_name)
    since = since.replace(minute=0, second=0, microsecond=0)
    found = [(since, _offset(since, in_zone))]
    day = since
    while day < until:
        after = day + timedelta(days=1)
        if _offset(after, in_zone) != found[-1][1]:
            found.append((_change(day, after, in_zone), _offset(after, in_zone)))
        day = after
    return found


def _offset(at: datetime, in_zone: ZoneInfo) -> int:
    return (at.astimezone(in_zone).utcoffset() or timedelta()) // timedelta(microseconds=1)


def _change(low: datetime, high: datetime, in_zone: ZoneInfo) -> datetime:
    """The second at which the offset becomes what it is at `high`."""
    target = _offset(high, in_zone)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if _offset(middle, in_zone) == target:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True)
class History:
    """So many customers ordered in the same periods: bit k of `bits` is the k-th period."""

    earlier: bool  # they had ordered before the first of these periods, too
    bits: int
    customers: int

    @property
    def periods(self) -> list[int]:
        """The periods they ordered in, the first being 0."""
        found, bits = [], self.bits
        while bits:
            lowest = bits & -bits
            found.append(lowest.bit_length() - 1)
            bits ^= lowest
        return found


def histories(
    connection: Connection, cells: Grid, first: int, end: date, zone_name: str, now: datetime
) -> Iterator[History]:
    """
    Who ordered when: customers by the periods, from the grid's `first` up to `end` and `now`, in
    which they have a counted order. Customers without any of these may be left out.

    Months come from the roll-up as far as it was made in this time zone, one pass in the order of
    its key; the rest from the orders.
    """
    until = min(local_midnight(end, zone_name), now)
    made_in = connection.execute(select(_installation.c.timezone)).scalar()
    count = cells.number(end - timedelta(days=1)) - first + 1
    if cells.by_months and made_in == zone_name:
        yield from _from_months(connection, cells, first, count, zone_name, until)
    else:
        yield from _from_orders(connection, cells, first, zone_name, until)


_WIDTH = 60  # periods in one integer of the database


def _words(number: ColumnElement[int], count: int) -> list[Any]:
    """The periods of a group of rows, each a row of its own, as sums of powers of two, so many to an integer."""
    words = []
    for low in range(0, count, _WIDTH):
        inside = and_(number >= low, number < low + _WIDTH)
        bit = literal(1, BigInteger()).bitwise_lshift(cast(number - low, Integer))
        words.append(func.sum(case((inside, bit), else_=literal(0, BigInteger()))).label(f"bits_{low}"))
    return words


def _from_months(
    connection: Connection, cells: Grid, first: int, count: int, zone_name: str, until: datetime
) -> Iterator[History]:
    c, o = _months.c, _orders.c
    running = until.astimezone(zone(zone_name)).date().replace(day=1)
    begun = exists().where(
        o.customer_id == c.customer_id,
        o.counted,
        o.placed_at >= local_midnight(running, zone_name),
        o.placed_at < until,
    )
    in_running = 100 * running.year + running.month
    number = c.month // 100 * 12 + c.month % 100 - 1 - _month(cells.start(first))
    each = (
        select(func.max(case((number < 0, 1), else_=0)).label("earlier"), *_words(number, count * cells.size))
        .where(c.orders > 0, or_(c.month < in_running, and_(c.month == in_running, begun)))
        .group_by(c.customer_id)
    )
    one = each.subquery()
    gathered = select(*one.c, func.count()).group_by(*one.c)
    for earlier, *words, customers in connection.execute(gathered):
        bits = sum(int(word) << (_WIDTH * place) for place, word in enumerate(words))
        yield History(bool(earlier), _in_periods(bits, cells.size), int(customers))


def _in_periods(bits: int, size: int) -> int:
    """Bits of months as bits of periods of so many months."""
    if size == 1:
        return bits
    found, mask = 0, (1 << size) - 1
    for k in range(-(-bits.bit_length() // size)):
        found |= (bits >> k * size & mask > 0) << k
    return found


def _from_orders(connection: Connection, cells: Grid, first: int, zone_name: str, until: datetime) -> Iterator[History]:
    o, since = _orders.c, local_midnight(cells.start(first), zone_name)
    oldest = max(since, first_order(connection) or since)
    number = _number_of(cells, local_time(o.placed_at, zone_name, oldest, until)) - first
    placed = select(o.customer_id, number).where(o.counted, o.placed_at >= since, o.placed_at < until)
    bits: dict[int, int] = defaultdict(int)
    for customer, period in connection.execute(placed):
        bits[customer] |= 1 << period
    begun = select(_stats.c.customer_id).where(_stats.c.first_order_at >= since, _stats.c.first_order_at < until)
    new = set(connection.execute(begun).scalars())
    for (earlier, same), customers in Counter((one not in new, same) for one, same in bits.items()).items():
        yield History(earlier, same, customers)


def _number_of(cells: Grid, local: ColumnElement[int]) -> ColumnElement[int]:
    at: ColumnElement[int] = _MonthOf(local) if cells.by_months else local_day(local)
    return (at - cells.origin % cells.size) // cells.size


class _MonthOf(FunctionElement[int]):
    """12 * year + month - 1 of a wall clock in microseconds."""

    name = "outreach_month_of"
    type = Integer()
    inherit_cache = True


@compiles(_MonthOf)
def _month_of(element: _MonthOf, compiler: Any, **options: Any) -> str:
    at = f"({compiler.process(element.clauses, **options)}) / 1000000, 'unixepoch'"
    return f"(CAST(strftime('%Y', {at}) AS INTEGER) * 12 + CAST(strftime('%m', {at}) AS INTEGER) - 1)"


@compiles(_MonthOf, "postgresql")
def _month_of_postgresql(element: _MonthOf, compiler: Any, **options: Any) -> str:
    at = f"to_timestamp(({compiler.process(element.clauses, **options)}) / 1000000) AT TIME ZONE 'UTC'"
    return f"CAST(EXTRACT(YEAR FROM {at}) * 12 + EXTRACT(MONTH FROM {at}) - 1 AS INTEGER)"


def left_out(connection: Connection, since: datetime, until: datetime) -> dict[str, int]:
    """How many orders placed in [since, until) do not count, and why: cancelled, or of amount zero."""
    c = _orders.c
    zero = func.coalesce(func.sum(case((c.total <= 0, 1), else_=0)), 0)
    wanted = select(func.count(), zero).where(c.placed_at >= since, c.placed_at < until, not_(c.counted))
    every, amount = connection.execute(wanted).one()
    return {"cancelled": every - int(amount), "zero_amount": int(amount)}
