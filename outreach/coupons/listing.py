"""Listing: every coupon as the command line and reports show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from outreach import naming, store
from outreach.coupons.holding import State, coupons, of_code, offers, redemptions
from outreach.coupons.making import offer_of
from outreach.errors import NotFound
from outreach.models import Customer, Message, Order, table
from outreach.settings import Settings
from outreach.store import BATCH, Database, among

_customers, _messages, _orders = table(Customer), table(Message), table(Order)
EXPIRED = "expired"  # issued, and good no more: nothing is written when its time passes
STATUSES = (*(state.value for state in State), EXPIRED)


@dataclass(frozen=True)
class Coupon:
    """One coupon; `customer` and `order` are the shop's own ids, `message` is our public one."""

    code: str
    offer: str
    customer: str | None
    message: str | None
    status: str  # made | live | issued | redeemed | void, or expired: issued, and its time is over
    issued_at: datetime | None
    expires_at: datetime | None
    redeemed_at: datetime | None
    order: str | None
    uses: int  # how often it may be redeemed; 0: no limit
    used: int
    reason: str  # why it is void


@dataclass(frozen=True)
class Redeemed:
    """One use of a code."""

    code: str | None  # None: a shared code that the customer was never sent
    offer: str
    customer: str | None
    order: str | None
    at: datetime
    source: str
    verdict: str


@dataclass(frozen=True)
class Books:
    """The ledger's sums of one offer."""

    offer: str
    by_status: dict[str, int]
    issued: int  # in customers' hands now or before: what the budget counts
    redemptions: dict[str, int]  # by verdict


def listed(
    db: Database,
    now: datetime,
    *,
    offer: str | None = None,
    status: str | None = None,
    customer: str | None = None,
    code: str | None = None,
    limit: int | None = None,
) -> list[Coupon]:
    """
    The coupons, the latest issued first, then those of the pool in the order they were made.

    Raises:
        NotFound: there is no such customer, or no such code.
    """
    c = coupons.c
    fits: list[Any] = []
    if offer is not None:
        fits.append(c.offer == offer)
    if code is not None:
        fits.append(of_code(code))
    if status == EXPIRED:
        fits += [c.status == State.ISSUED, c.expires_at <= now]
    elif status == State.ISSUED:
        fits += [c.status == status, c.expires_at.is_(None) | (c.expires_at > now)]
    elif status is not None:
        fits.append(c.status == status)
    with store.read(db) as connection:
        if customer is not None:
            fits.append(among(c.customer_id, _named(connection, customer)))
        if code is not None and connection.execute(select(c.id).where(of_code(code)).limit(1)).first() is None:
            raise NotFound(f"there is no code {code!r}: `outreach coupons list` shows those there are")
        query = _wanted().where(*fits).order_by(c.issued_at.is_(None), c.issued_at.desc(), c.id)
        return [_coupon(row, now) for row in connection.execute(query.limit(limit))]


def check_offer(db: Database, settings: Settings, name: str) -> None:
    """
    Nothing, if the settings have this offer, or had it and there are codes of it.

    Raises:
        NotFound: there is none.
    """
    with store.read(db) as connection:
        if connection.execute(select(coupons.c.id).where(coupons.c.offer == name).limit(1)).first() is None:
            offer_of(settings, name)


def codes(db: Database, offer: str, statuses: Sequence[str]) -> Iterator[str]:
    """The codes of an offer in these statuses, in the order they were made; a thousand are read at a time."""
    c, last = coupons.c, 0
    while True:
        query = select(c.id, c.code).where(c.offer == offer, c.status.in_(list(statuses)), c.id > last)
        with store.read(db) as connection:
            rows = connection.execute(query.order_by(c.id).limit(BATCH)).all()
        yield from (row.code for row in rows)
        if len(rows) < BATCH:
            return
        last = rows[-1].id


def books(db: Database, now: datetime, offer: str | None = None) -> list[Books]:
    """The sums of each offer that has a coupon or a redemption."""
    c, r = coupons.c, redemptions.c
    over = (c.status == State.ISSUED) & (c.expires_at <= now)
    with store.read(db) as connection:
        statuses = connection.execute(
            select(c.offer, c.status, over.label("over"), func.count()).group_by(c.offer, c.status, "over")
        ).all()
        uses = connection.execute(select(r.offer, r.verdict, func.count()).group_by(r.offer, r.verdict)).all()
        issued = {row.name: row.issued for row in connection.execute(select(offers))}
    names = sorted({row[0] for row in (*statuses, *uses)} if offer is None else {offer})
    found = []
    for name in names:
        by_status: dict[str, int] = {}
        for of, status, is_over, many in statuses:
            if of == name:
                word = EXPIRED if is_over else status
                by_status[word] = by_status.get(word, 0) + many
        verdicts = {verdict: many for of, verdict, many in uses if of == name}
        found.append(Books(name, dict(sorted(by_status.items())), issued.get(name, 0), dict(sorted(verdicts.items()))))
    return found


def uses(db: Database, *, offer: str | None = None, limit: int | None = None) -> list[Redeemed]:
    """What was redeemed, the latest first, with the verdict on each."""
    r = redemptions.c
    query = (
        select(redemptions, coupons.c.code, _customers.c.external_id, _orders.c.external_id.label("order_name"))
        .outerjoin(coupons, coupons.c.id == r.coupon_id)
        .outerjoin(_customers, _customers.c.id == r.customer_id)
        .outerjoin(_orders, _orders.c.id == r.order_id)
    )
    if offer is not None:
        query = query.where(r.offer == offer)
    with store.read(db) as connection:
        rows = connection.execute(query.order_by(r.at.desc(), r.id.desc()).limit(limit)).all()
    return [
        Redeemed(row.code, row.offer, row.external_id, row.order_name, row.at, row.source, row.verdict) for row in rows
    ]


def _named(connection: Connection, name: str) -> list[int]:
    """The customer of this id, and who was merged into or out of it."""
    c = _customers.c
    found = connection.execute(select(c.id, c.merged_into).where(c.external_id == name)).first()
    if found is None:
        raise naming.no_customer(connection, name)
    return [i for i in (found.id, found.merged_into) if i is not None]


def _wanted() -> Select[Any]:
    c = coupons.c
    return (
        select(coupons, _customers.c.external_id, _messages.c.public_id, _orders.c.external_id.label("order_name"))
        .outerjoin(_customers, _customers.c.id == c.customer_id)
        .outerjoin(_messages, _messages.c.id == c.message_id)
        .outerjoin(_orders, _orders.c.id == c.order_id)
    )


def _coupon(row: Any, now: datetime) -> Coupon:
    over = row.status == State.ISSUED and row.expires_at is not None and row.expires_at <= now
    return Coupon(
        code=row.code,
        offer=row.offer,
        customer=row.external_id,
        message=row.public_id,
        status=EXPIRED if over else row.status,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        redeemed_at=row.redeemed_at,
        order=row.order_name,
        uses=row.uses,
        used=row.used,
        reason=row.reason,
    )
