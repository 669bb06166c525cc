"""
Coupons: what became of the codes that were given out, and the orders that used them, by offer or by campaign.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, select

from outreach.models import Coupon, CouponRedemption, Customer, Message, Order, table
from outreach.reports import Report
from outreach.reports.periods import grid, instants
from outreach.reports.retention import share
from outreach.settings import Settings
from outreach.store import Database, read

COUPONS = (
    *("offer", "issued", "used", "expired", "void", "waiting", "customers", "redeemed", "rate", "low", "high"),
    *("not_valid", "orders", "left_out", "revenue", "discount", "median_days"),
)
DAY = timedelta(days=1)

_coupons, _redemptions = table(Coupon), table(CouponRedemption)
_customers, _messages, _orders = table(Customer), table(Message), table(Order)
_owner = func.coalesce(_customers.c.merged_into, _coupons.c.customer_id)  # two that were merged are one person


@dataclass
class Sums:
    """What the coupons of one offer, or of one campaign, add up to."""

    issued: int = 0
    used: int = 0  # at least once, validly
    expired: int = 0
    void: int = 0
    waiting: int = 0
    customers: int = 0  # who were given one
    redeemed: int = 0  # of those, who used one
    not_valid: int = 0  # uses that the ledger refused
    orders: int = 0  # that count and used one validly
    left_out: int = 0  # that used one validly, and do not count
    revenue: Counter[str] = field(default_factory=Counter)  # minor units by currency
    discount: Counter[str] = field(default_factory=Counter)
    days: list[float] = field(default_factory=list)  # from being given out to the first use


def coupons(
    db: Database, settings: Settings, start: date, end: date, *, now: datetime, limit: int | None = None
) -> Report:
    """
    Per offer, the coupons given out in [start, end), local days, as they stand at `now`.

    - `issued` = `used` (at least once, validly) + `expired` + `void` + `waiting`, in coupons.
    - `customers` were given at least one, `redeemed` of them used one; `rate` with Wilson's 95 % interval.
    - `not_valid`: uses by the wrong customer, too late, too often, or of a void code.
    - `orders` used one validly and count as orders (`left_out` those that do not: cancelled, or of amount 0);
      `revenue` is what they add up to, `discount` what the offer's terms took off them: for p percent
      total x p / (100 - p), for an amount that amount, which is in the business's currency; gifts and free
      deliveries are not known. Both in minor units by currency.
    - With a `limit`, the offers that gave out the most, those first; `offers_not_shown` counts the others.
    - `median_days` from being given out to the first use, of those that were used.

    Raises:
        OutreachError: the period is empty.
    """
    grid(start, end, None)
    with read(db) as connection:
        since, until = instants(start, end, settings.business.timezone, datetime.max.replace(tzinfo=now.tzinfo))
        when = and_(_coupons.c.issued_at >= since, _coupons.c.issued_at < until)
        found = sums(connection, settings, _coupons.c.offer, when, now)
    names = sorted(found.keys() | settings.offers.keys())
    if limit is None:
        return Report(COUPONS, [_row(name, found.get(name, Sums())) for name in names])
    names.sort(key=lambda name: -found.get(name, Sums()).issued)
    rows = [_row(name, found.get(name, Sums())) for name in names[:limit]]
    others = len(names) - len(rows)
    return Report(COUPONS, rows, {"offers_not_shown": others} if others else {})


def by_campaign(
    connection: Connection, settings: Settings, since: datetime, until: datetime, now: datetime
) -> dict[str, Sums]:
    """The same of each campaign: of the coupons whose first message was due in [since, until)."""
    when = and_(_messages.c.due_at >= since, _messages.c.due_at < until)
    return sums(connection, settings, _messages.c.campaign, when, now)


def _row(name: str, one: Sums) -> dict[str, Any]:
    return {
        "offer": name,
        **{column: getattr(one, column) for column in COUPONS[1:8]},
        **share(one.redeemed, one.customers),
        "not_valid": one.not_valid,
        "orders": one.orders,
        "left_out": one.left_out,
        "revenue": dict(sorted(one.revenue.items())),
        "discount": dict(sorted(one.discount.items())),
        "median_days": round(median(one.days), 1) if one.days else None,
    }


def sums(
    connection: Connection, settings: Settings, key: ColumnElement[Any], when: ColumnElement[bool], now: datetime
) -> dict[str, Sums]:
    """What the coupons that `when` picks add up to by `key`, as far as things happened before `now`."""
    found: dict[str, Sums] = {}
    _stands(connection, found, key, when, now)
    _people(connection, found, key, when, now)
    _uses(connection, settings, found, key, when, now)
    return found


def _first_uses(now: datetime) -> Any:
    r = _redemptions.c
    valid = and_(r.verdict == "valid", r.at < now)
    return select(r.coupon_id, func.min(r.at).label("at")).where(valid).group_by(r.coupon_id).subquery()


def _given(*columns: Any, when: ColumnElement[bool], now: datetime) -> Select[Any]:
    c = _coupons.c
    return (
        select(*columns)
        .select_from(_coupons)
        .outerjoin(_messages, _messages.c.id == c.message_id)
        .where(c.customer_id.is_not(None), c.issued_at < now, when)
    )


def _stands(
    connection: Connection, found: dict[str, Sums], key: ColumnElement[Any], when: ColumnElement[bool], now: datetime
) -> None:
    c, first = _coupons.c, _first_uses(now)
    stands = case(
        (first.c.at.is_not(None), "used"),
        (c.voided_at < now, "void"),
        (c.expires_at <= now, "expired"),
        else_="waiting",
    ).label("stands")
    query = _given(key, stands, func.count(), when=when, now=now).outerjoin(first, first.c.coupon_id == c.id)
    for name, word, count in connection.execute(query.group_by(key, stands)):
        one = found.setdefault(name, Sums())
        one.issued += count
        setattr(one, word, count)


def _people(
    connection: Connection, found: dict[str, Sums], key: ColumnElement[Any], when: ColumnElement[bool], now: datetime
) -> None:
    c, first = _coupons.c, _first_uses(now)
    columns = (key, func.count(_owner.distinct()), func.count(case((first.c.at.is_not(None), _owner)).distinct()))
    query = (
        _given(*columns, when=when, now=now)
        .outerjoin(_customers, _customers.c.id == c.customer_id)
        .outerjoin(first, first.c.coupon_id == c.id)
    )
    for name, customers, redeemed in connection.execute(query.group_by(key)):
        one = found.setdefault(name, Sums())
        one.customers, one.redeemed = customers, redeemed


def _uses(
    connection: Connection,
    settings: Settings,
    found: dict[str, Sums],
    key: ColumnElement[Any],
    when: ColumnElement[bool],
    now: datetime,
) -> None:
    c, r, o = _coupons.c, _redemptions.c, _orders.c
    columns = (
        *(key.label("name"), c.id, c.offer, c.issued_at, r.at, r.verdict),
        *(o.id.label("order_id"), o.currency, o.total, o.counted),
    )
    query = (
        _given(*columns, when=when, now=now)
        .join(_redemptions, and_(r.coupon_id == c.id, r.at < now))
        .outerjoin(_orders, o.id == r.order_id)
        .order_by(r.at, r.id)
    )
    used: set[tuple[str, int]] = set()
    bought: set[tuple[str, int]] = set()
    cost: set[tuple[str, int, int]] = set()
    for row in connection.execution_options(yield_per=5_000).execute(query):
        one = found.setdefault(row.name, Sums())
        if row.verdict != "valid":
            one.not_valid += 1
            continue
        if (row.name, row.id) not in used:
            used.add((row.name, row.id))
            one.days.append(max((row.at - row.issued_at) / DAY, 0.0))  # an order of which the day alone is known
        if row.order_id is None:
            continue
        if (row.name, row.order_id) not in bought:
            bought.add((row.name, row.order_id))
            one.orders += row.counted
            one.left_out += not row.counted
            if row.counted:
                one.revenue[row.currency] += row.total
        if row.counted and (row.name, row.order_id, row.id) not in cost:
            cost.add((row.name, row.order_id, row.id))
            if taken := taken_off(settings, row.offer, row.total, row.currency):
                one.discount[row.currency] += taken


def taken_off(settings: Settings, offer: str, total: int, currency: str) -> int:
    """What the offer's terms took off an order that came to `total`, in minor units; 0 where they do not say."""
    from babel.numbers import get_currency_precision

    terms = settings.offers.get(offer)
    if terms is None or terms.kind not in ("percent", "amount"):
        return 0
    value = Decimal(terms.value)
    if terms.kind == "amount":
        exact = value.scaleb(get_currency_precision(currency)) if currency == settings.business.currency else Decimal(0)
    else:
        exact = Decimal(total) * value / (100 - value) if value < 100 else Decimal(0)
    return int(exact.to_integral_value(ROUND_HALF_UP))
