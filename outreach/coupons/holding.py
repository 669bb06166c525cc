"""What the parts of the ledger share: its tables, the lock of an offer, and giving codes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from outreach import store
from outreach.coupons.codes import SHARED_MARK, key_of
from outreach.models import Coupon, CouponMessage, CouponRedemption, OfferState, table
from outreach.store import Lock, among

coupons, carriers = table(Coupon), table(CouponMessage)
redemptions, offers = table(CouponRedemption), table(OfferState)


class State(StrEnum):
    """Where a code stands."""

    MADE = "made"  # the shop's cart does not know it yet
    LIVE = "live"  # it may be given out
    ISSUED = "issued"  # a customer has it, or may have it
    REDEEMED = "redeemed"  # and used it
    VOID = "void"  # it is good no more


# What a code has that nobody ever got.
FREE: dict[str, Any] = {
    "status": State.LIVE,
    "customer_id": None,
    "message_id": None,
    "issued_at": None,
    "expires_at": None,
    "voided_at": None,
    "reason": "",
    "replaced_by": None,
}


def of_code(code: str) -> ColumnElement[bool]:
    """Whether a row is of this code, however it is written: the code's own, or any customer's row of a shared one."""
    c, key = coupons.c, key_of(code)
    mark = key + SHARED_MARK
    # By the index: an id follows the mark, and "g" stands behind every digit in every collation.
    shared = and_(c.key > mark, c.key < mark + "g", func.substr(c.key, 1, len(mark)) == mark)
    return or_(c.key == key, shared)


def lock(connection: Connection, names: Iterable[str]) -> None:
    """Be alone with these offers until the transaction ends; always in the order of their names."""
    for name in sorted(set(names)):
        store.lock(connection, Lock.OFFER, name)


def count(connection: Connection, issued: Mapping[str, int]) -> None:
    """Add to how many coupons of each offer are in customers' hands; the offers are locked."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    rows = [{"name": name, "issued": more} for name, more in sorted(issued.items()) if more]
    if rows:
        into = dialect.insert(offers)
        added = {"issued": offers.c.issued + into.excluded.issued}
        connection.execute(into.on_conflict_do_update(index_elements=["name"], set_=added), rows)


def give_back(connection: Connection, ids: Collection[int]) -> int:
    """
    Return to the pool those of the coupons that no message carries any more and nobody has used; gives how many.

    A weaker code that one of them had made void is its owner's again. The offers are locked.
    """
    if not ids:
        return 0
    c = coupons.c
    unsent = (
        among(c.id, ids),
        or_(c.status == State.ISSUED, and_(c.status == State.VOID, c.replaced_by.is_not(None))),
        c.used == 0,
        ~exists().where(carriers.c.coupon_id == c.id),
        ~exists().where(redemptions.c.coupon_id == c.id),
    )
    free = connection.execute(select(c.id, c.key, c.offer).where(*unsent)).all()
    if not free:
        return 0
    restored = {"status": State.ISSUED, "voided_at": None, "reason": "", "replaced_by": None}
    freed = [row.id for row in free]
    connection.execute(update(coupons).where(among(c.replaced_by, freed)).values(restored))
    shared = [row.id for row in free if SHARED_MARK in row.key]
    if shared:
        connection.execute(delete(coupons).where(among(c.id, shared)))
    connection.execute(update(coupons).where(among(c.id, set(freed) - set(shared))).values(FREE))
    count(connection, {name: -many for name, many in Counter(row.offer for row in free).items()})
    return len(free)


def concerned(connection: Connection, ids: Collection[int]) -> set[str]:
    """The offers of these coupons, and of those that they made void: what to lock before giving them back."""
    c = coupons.c
    query = select(c.offer).where(or_(among(c.id, ids), among(c.replaced_by, ids))).distinct()
    return set(connection.execute(query).scalars())


def first_carriers(connection: Connection, ids: Collection[int]) -> None:
    """Where the message that a coupon names carries it no more, name the first one that does."""
    c = coupons.c
    gone = ~exists().where(carriers.c.message_id == c.message_id, carriers.c.coupon_id == c.id)
    first = select(func.min(carriers.c.message_id)).where(carriers.c.coupon_id == c.id).scalar_subquery()
    carried = exists().where(carriers.c.coupon_id == c.id)
    connection.execute(update(coupons).where(among(c.id, ids), gone, carried).values(message_id=first))
