"""
Redeeming: a code was used at the shop, as an order, an event or a person says.

Every use is kept, also one that should not have been possible: whether it is valid follows from all uses of the code
in the order of their times, never from the order in which they were heard of. The same use told twice, or once by an
order and once by an event that names this order, is one use. What an event or a person told of an order that has not
been imported is joined to it when it comes in.

    valid            by its owner (or anybody, where the offer's codes are shareable), in time, and not too often
    wrong_customer   by somebody else, who has none of the owner's addresses either
    expired          later than it was good
    over_used        more often than the offer allows; an order that was cancelled took nothing of that
    void             after it had been made void
    not_issued       nobody had been sent it
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from outreach import naming, store
from outreach.coupons.codes import key_of, named
from outreach.coupons.holding import State, coupons, lock, redemptions
from outreach.errors import NotFound, OutreachError
from outreach.models import Customer, MessageEvent, Order, table
from outreach.settings import Settings
from outreach.store import Database, Lock, among

_customers, _events, _orders = table(Customer), table(MessageEvent), table(Order)
UNISSUED = "it was used without having been given out"


class Verdict(StrEnum):
    """What is recorded of one use of a code."""

    VALID = "valid"
    WRONG_CUSTOMER = "wrong_customer"
    EXPIRED = "expired"
    OVER_USED = "over_used"
    VOID = "void"
    NOT_ISSUED = "not_issued"


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a code, as somebody told of it."""

    key: str  # the same use has the same key
    code: str
    at: datetime
    source: str  # order | event | person
    customer_id: int | None = None
    order: str | None = None  # the shop's own id


@dataclass(frozen=True, slots=True)
class Bought:
    """An order, with the code that it names."""

    id: int
    name: str  # the shop's own id
    customer_id: int
    code: str | None
    at: datetime


def order_key(order: str, code: str) -> str:
    """What tells a use by an order from any other: told by the order, or by an event or a person that names it."""
    return f"order:{order}:{key_of(code)}"


def from_orders(
    connection: Connection, settings: Settings, now: datetime, orders: Iterable[Bought], *, changed: Collection[int]
) -> None:
    """
    Take over what imported orders say, within the import's own transaction and before it writes `fresh`.

    `changed` are those that were there before: what they said then and say no more is taken back; what events and
    people told of them stands, and is judged again. Costs one look-up where no order names a code that we know.
    """
    bought = [one for one in orders if one.code]
    uses = [
        Use(order_key(one.name, code), code, one.at, "order", one.customer_id, one.name)
        for one in bought
        for code in named(one.code or "")
    ]
    known = _known(connection, settings, uses) if uses else {}
    former = _of_orders(connection, changed) if changed else []
    if known or former:
        uses = [use for use in uses if key_of(use.code) in known]
        said = {use.key for use in uses}
        gone = [row for row in former if row.source == "order" and row.key not in said]
        _write(connection, settings, now, uses, {one.name: one.id for one in bought}, former=former, gone=gone)


def join(
    connection: Connection,
    settings: Settings,
    now: datetime,
    orders: Sequence[str],
    numbers: Sequence[int],
    customers: Sequence[int],
) -> None:
    """
    Join to orders that have just come in what events and people told of them before; within the import's transaction.

    `orders` are the shop's own ids. Costs one look-up where no order is awaited, and never grows with history.
    """
    if connection.execute(_AWAITED).first() is None:
        return
    awaited = {_awaited(name): name for name in orders}
    told = _of_orders(connection, awaited)
    if not told:
        return
    ids, buyers = dict(zip(orders, numbers, strict=True)), dict(zip(orders, customers, strict=True))
    lock(connection, {*settings.offers, *(row.offer for row in told)})
    names = {row.id: awaited[row.order_id] for row in told}
    connection.execute(_JOIN, [{"of": i, "order": ids[name], "buyer": buyers[name]} for i, name in names.items()])
    judge(connection, {row.coupon_id for row in told if row.coupon_id is not None}, now)


def record(connection: Connection, settings: Settings, now: datetime, uses: Sequence[Use]) -> dict[str, Verdict]:
    """
    Take over uses within the caller's writing transaction; gives the verdict on each by its key.

    A code that nobody knows is in none of the ledger's books, and in nothing that is given back. Where a use names
    an order, the caller holds the lock of imports: the order is either found here, or joined when it comes in.
    """
    known = _known(connection, settings, uses)
    wanted = [use for use in uses if key_of(use.code) in known]
    if not wanted:
        return {}
    placed = _placed(connection, {use.order for use in wanted if use.order is not None})
    _write(connection, settings, now, wanted, {name: row.id for name, row in placed.items()})
    r = redemptions.c
    rows = connection.execute(select(r.key, r.verdict).where(among(r.key, {use.key for use in wanted})))
    return {row.key: Verdict(row.verdict) for row in rows}


def take_back(connection: Connection, settings: Settings, now: datetime, keys: Collection[str]) -> None:
    """An event does not say these uses any more; what an order says stands."""
    r = redemptions.c
    if gone := connection.execute(select(redemptions).where(among(r.key, keys), r.source != "order")).all():
        _write(connection, settings, now, [], {}, former=gone, gone=gone)


# --- which codes are ours --------------------------------------------------------------------------


def _known(connection: Connection, settings: Settings, uses: Iterable[Use]) -> dict[str, str]:
    """The offers of those codes that are ours, by key."""
    keys = {key_of(use.code) for use in uses}
    found = {key: offer for key, offer in _shared(settings).items() if key in keys}
    c = coupons.c
    rows = connection.execute(select(c.key, c.offer).where(among(c.key, keys)))
    return {**found, **{row.key: row.offer for row in rows}}


def _shared(settings: Settings) -> dict[str, str]:
    return {key_of(one.shared_code): name for name, one in settings.offers.items() if one.shared_code}


# --- of which orders -------------------------------------------------------------------------------

_AWAITED = select(redemptions.c.id).where(redemptions.c.order_id < 0).limit(1)
_JOIN = (
    update(redemptions)
    .where(redemptions.c.id == bindparam("of"))
    .values(
        order_id=bindparam("order"),
        customer_id=func.coalesce(redemptions.c.customer_id, bindparam("buyer", type_=BigInteger)),
    )
)


def _awaited(order: str) -> int:
    """What `order_id` is until the order is imported: below 0, and found by its index from the order's name."""
    return -1 - (int.from_bytes(hashlib.sha256(order.encode()).digest()[:8]) >> 1)


def _of_orders(connection: Connection, orders: Collection[int]) -> Sequence[Any]:
    return connection.execute(select(redemptions).where(among(redemptions.c.order_id, orders))).all()


def _placed(connection: Connection, names: Collection[str]) -> dict[str, Any]:
    """The orders that have been imported, of those with these ids of the shop's own."""
    o = _orders.c
    query = select(o.external_id, o.id, o.customer_id).where(among(o.external_id, names))
    return {row.external_id: row for row in connection.execute(query)} if names else {}


# --- writing ---------------------------------------------------------------------------------------


def _write(
    connection: Connection,
    settings: Settings,
    now: datetime,
    uses: Sequence[Use],
    orders: Mapping[str, int],
    *,
    former: Sequence[Any] = (),
    gone: Sequence[Any] = (),
) -> None:
    """Write the uses, without those of the former that are `gone`; then the verdicts on every code concerned."""
    known = _known(connection, settings, uses)
    # All of them at once: a transaction of the import comes here twice, and takes no offer out of its turn.
    lock(connection, {*settings.offers, *known.values(), *(row.offer for row in former)})
    if gone:
        connection.execute(delete(redemptions).where(among(redemptions.c.id, {row.id for row in gone})))
        _drop_events(connection, [row.key for row in gone])
    concerned = {row.coupon_id for row in former if row.coupon_id is not None}
    c = coupons.c
    before = select(redemptions.c.coupon_id).where(among(redemptions.c.key, {use.key for use in uses}))
    concerned |= {i for i in connection.execute(before).scalars() if i is not None}
    if uses:
        own = {row.key: row for row in connection.execute(select(coupons).where(among(c.key, set(known))))}
        theirs = _theirs(connection, settings, uses)
        rows = []
        for use in {use.key: use for use in uses}.values():
            key = key_of(use.code)
            coupon = own[key].id if key in own else _meant(theirs[use.customer_id, known[key]], use.at)
            order = None if use.order is None else orders.get(use.order, _awaited(use.order))
            rows.append(_row(use, coupon, known[key], order, now))
            if coupon is not None:
                concerned.add(coupon)
        _upsert(connection, rows)
    judge(connection, concerned, now)


def _theirs(
    connection: Connection, settings: Settings, uses: Iterable[Use]
) -> defaultdict[tuple[int | None, str], list[Any]]:
    """The rows of shared codes of whoever used one."""
    found: defaultdict[tuple[int | None, str], list[Any]] = defaultdict(list)
    shared = _shared(settings)
    people = {use.customer_id for use in uses if use.customer_id is not None and key_of(use.code) in shared}
    if people:
        c = coupons.c
        query = select(coupons).where(among(c.customer_id, people), among(c.offer, set(shared.values())))
        for row in connection.execute(query.order_by(c.id)):
            found[row.customer_id, row.offer].append(row)
    return found


def _meant(rows: Sequence[Any], at: datetime) -> int | None:
    """Of a customer's rows of one shared code the last that they had by then."""
    if not rows:
        return None
    earlier = [row for row in rows if row.issued_at is not None and row.issued_at <= at]
    return int((earlier or rows[:1])[-1].id)


def _row(use: Use, coupon: int | None, offer: str, order: int | None, now: datetime) -> dict[str, Any]:
    return {
        "key": use.key,
        "coupon_id": coupon,
        "offer": offer,
        "customer_id": use.customer_id,
        "order_id": order,
        "at": use.at,
        "source": use.source,
        "verdict": Verdict.NOT_ISSUED,
        "recorded_at": now,
    }


def _upsert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """An order knows best; what an event or a person said of it before is kept where it says nothing."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    into = dialect.insert(redemptions)
    new = into.excluded
    better = new.source == "order"
    again = {name: new[name] for name in ("coupon_id", "offer", "customer_id", "order_id", "at", "source")}
    unless = redemptions.c.source != "order"
    connection.execute(
        into.on_conflict_do_update(index_elements=["key"], set_=again, where=better | unless), list(rows)
    )


# --- judging ---------------------------------------------------------------------------------------


def judge(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Write what follows from all uses of these coupons together; their offers are locked."""
    if not ids:
        return
    found = {row.id: row for row in connection.execute(select(coupons).where(among(coupons.c.id, ids)))}
    uses: defaultdict[int, list[Any]] = defaultdict(list)
    r = redemptions.c
    for row in connection.execute(select(redemptions).where(among(r.coupon_id, ids)).order_by(r.at, r.key)):
        uses[row.coupon_id].append(row)
    every = [row for rows in uses.values() for row in rows]
    people, cancelled = _people(connection, [*found.values(), *every]), _cancelled(connection, every)
    changed: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    no_event: list[str] = []
    for i, coupon in found.items():
        verdicts = _verdicts(coupon, uses[i], people, cancelled)
        valid = [row for row, verdict in zip(uses[i], verdicts, strict=True) if verdict is Verdict.VALID]
        changed += [
            {"of": row.id, "said": verdict}
            for row, verdict in zip(uses[i], verdicts, strict=True)
            if row.verdict != verdict
        ]
        events += [_event(coupon, row) for row in valid]
        no_event += [row.key for row in uses[i] if row not in valid]
        stand = [row for row in valid if row.order_id not in cancelled] or valid[:1]
        _stand(connection, coupon, uses[i], stand, now)
    if changed:
        connection.execute(_SAY, changed)
    _drop_events(connection, no_event)
    _add_events(connection, events)


_SAY = update(redemptions).where(redemptions.c.id == bindparam("of")).values(verdict=bindparam("said"))


def _people(connection: Connection, rows: Iterable[Any]) -> dict[int, Person]:
    ids = {row.customer_id for row in rows if row.customer_id is not None}
    c = _customers.c
    query = select(c.id, c.merged_into, c.email_id, c.phone_id, c.messenger_id).where(among(c.id, ids))
    found = {i: Person(i, frozenset()) for i in ids}
    for i, root, *contacts in connection.execute(query):
        found[i] = Person(root or i, frozenset(contacts) - {None})
    return found


class Person(NamedTuple):
    """Whose a record is: of records that were merged, or have an address in common, one person's."""

    root: int
    contacts: frozenset[int | None]

    def is_also(self, other: Person) -> bool:
        return self.root == other.root or not self.contacts.isdisjoint(other.contacts)


def _cancelled(connection: Connection, uses: Iterable[Any]) -> set[int]:
    """The orders that were cancelled; one that a coupon brought to nothing, and does not count either, is none."""
    o = _orders.c
    gone = or_(o.cancelled_at.is_not(None), and_(~o.counted, o.total > 0))
    ids = {use.order_id for use in uses if use.order_id is not None}
    return set(connection.execute(select(o.id).where(among(o.id, ids), gone)).scalars()) if ids else set()


def _verdicts(
    coupon: Any, uses: Sequence[Any], people: Mapping[int, Person], cancelled: Collection[int]
) -> list[Verdict]:
    """In the order of the uses' times."""
    found: list[Verdict] = []
    taken = 0
    for use in uses:
        if coupon.customer_id is None:
            found.append(Verdict.NOT_ISSUED)
        elif not coupon.shareable and use.customer_id is not None and not _is_theirs(coupon, use, people):
            found.append(Verdict.WRONG_CUSTOMER)
        elif coupon.voided_at is not None and use.at >= coupon.voided_at:
            found.append(Verdict.VOID)
        elif coupon.expires_at is not None and use.at > coupon.expires_at:
            found.append(Verdict.EXPIRED)
        elif coupon.uses and taken >= coupon.uses:
            found.append(Verdict.OVER_USED)
        else:
            found.append(Verdict.VALID)
            taken += use.order_id not in cancelled
    return found


def _is_theirs(coupon: Any, use: Any, people: Mapping[int, Person]) -> bool:
    return people[coupon.customer_id].is_also(people[use.customer_id])


def _stand(connection: Connection, coupon: Any, uses: Sequence[Any], valid: Sequence[Any], now: datetime) -> None:
    """
    Where the code stands after all that.

    One that was used although nobody had been sent it is good no more: nobody else may get it.
    """
    values: dict[str, Any] = {"used": len(valid)}
    values["redeemed_at"] = valid[0].at if valid else None
    order = valid[0].order_id if valid else None
    values["order_id"] = None if order is None or order < 0 else order  # below 0: it has not been imported
    if coupon.customer_id is None and uses and coupon.status in (State.MADE, State.LIVE):
        values |= {"status": State.VOID, "voided_at": now, "reason": UNISSUED}
    elif coupon.customer_id is not None:
        values["status"] = State.REDEEMED if valid else State.ISSUED if coupon.voided_at is None else State.VOID
    if any(getattr(coupon, name) != value for name, value in values.items()):
        connection.execute(update(coupons).where(coupons.c.id == coupon.id).values(values))


# --- the fact that campaigns ask for -----------------------------------------------------------------


def _event(coupon: Any, use: Any) -> dict[str, Any]:
    """Of the coupon's owner, whoever used it: they are credited."""
    return {
        "event_id": _event_id(use.key),
        "message_id": coupon.message_id,
        "customer_id": coupon.customer_id,
        "kind": "coupon_redeemed",
        "at": use.at,
        "detail": {"offer": coupon.offer, "coupon": coupon.id},
    }


def _event_id(key: str) -> str:
    return f"coupon:{key}"


def _drop_events(connection: Connection, keys: Iterable[str]) -> None:
    if names := [_event_id(key) for key in keys]:
        connection.execute(delete(_events).where(among(_events.c.event_id, names)))


def _add_events(connection: Connection, events: Sequence[Mapping[str, Any]]) -> None:
    if not events:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    into = dialect.insert(_events)
    again = {name: into.excluded[name] for name in ("message_id", "customer_id", "at", "detail")}
    connection.execute(into.on_conflict_do_update(index_elements=["event_id"], set_=again), list(events))


# --- by hand -----------------------------------------------------------------------------------------


def redeem(
    db: Database, settings: Settings, code: str, now: datetime, *, customer: str | None = None, order: str | None = None
) -> Verdict:
    """
    A person says that a code was used, at the counter for instance; gives the verdict on it.

    Without a customer it is taken that the order's did, or else the code's owner. With an order, that an import
    brings later or has brought, it is one use and not two.

    Raises:
        NotFound: there is no such code or customer.
        OutreachError: everybody has this code, and nobody says who used it.
    """
    with store.write(db) as connection:
        if order is not None:
            store.lock(connection, Lock.IMPORT)
        who = _person(connection, customer) if customer is not None else None
        if who is None and order is not None and (bought := _placed(connection, [order]).get(order)) is not None:
            who = bought.customer_id
        if who is None and key_of(code) in _shared(settings):
            raise OutreachError(f"everybody has the code {code}: say who used it, with --customer")
        key = order_key(order, code) if order is not None else f"person:{key_of(code)}:{store.micros(now)}"
        found = record(connection, settings, now, [Use(key, code, now, "person", who, order)])
    if not found:
        raise NotFound(f"there is no code {code!r}: `outreach coupons list` shows those there are")
    return found[key]


def _person(connection: Connection, name: str) -> int:
    c = _customers.c
    row = connection.execute(select(c.id, c.merged_into).where(c.external_id == name)).first()
    if row is None:
        raise naming.no_customer(connection, name)
    return int(row.merged_into or row.id)
