"""
The desk: who gets which code, in the transaction that commits a chunk's messages as `sending`.

It is opened once for a chunk, after the contacts and the messages are locked: it locks the offers that the
chunk's messages name, in the order of their names, and reads what it needs of exactly these customers. A code is
proposed before the message is rendered and taken only once it is; what was taken is written in the same
transaction as the messages, so that no message is `sending` with a code that is not its customer's, whatever dies
when. Nothing is read or locked for a chunk without an offer.

Of one offer, in this order:
1. a message that was planned again carries the code it had;
2. a customer with a coupon that is neither used up nor expired keeps that code, and its expiry;
3. else they get the next live code, if `per_customer` and `budget` allow it: records with an address in common
   are one person to `per_customer`.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, or_, select, text, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from outreach import store, timing
from outreach.coupons.codes import ALPHABET, LENGTH, SHARED_MARK, generate, key_of
from outreach.coupons.holding import State, carriers, coupons, give_back, lock, offers
from outreach.coupons.holding import count as count_issued
from outreach.models import Customer, table
from outreach.settings import Offer, Settings
from outreach.store import among


@dataclass(frozen=True, slots=True)
class Wanted:
    """A message that brings a coupon: one of an offer; or, if it reminds of a coupon, this very one while it is good."""

    message_id: int
    customer_id: int
    offer: str = ""
    coupon_id: int | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The coupon that a message brings."""

    offer: Offer
    code: str
    expires_at: datetime | None
    coupon: Held
    is_kept: bool  # the customer has it already, from this message's earlier attempt or from another message


@dataclass(frozen=True, slots=True)
class Denied:
    """This customer may not have one: the message ends."""

    detail: str


@dataclass(frozen=True, slots=True)
class RunOut:
    """Nobody can have one: the campaign pauses before it starts a message without a code."""

    reason: str


@dataclass(slots=True, eq=False)
class Held:
    """A coupon as this transaction sees it."""

    id: int | None  # None: it is made at this moment
    code: str
    offer: str
    status: str
    uses: int = 1
    used: int = 0
    customer_id: int | None = None
    message_id: int | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    carriers: set[int] = field(default_factory=set)  # messages

    def is_current(self, now: datetime) -> bool:
        """Whether it is still good: neither void nor used up nor expired."""
        if self.voided_at is not None or self.customer_id is None or self.used >= max(self.uses, 1):
            return False
        return self.expires_at is None or self.expires_at > now


def variables(given: Given) -> dict[str, Any]:
    """What a template sees as `coupon`."""
    offer = given.offer
    shown: dict[str, Any] = {"code": given.code, "kind": offer.kind, "value": offer.value}
    if offer.minimum is not None:
        shown["minimum"] = offer.minimum
    if given.expires_at is not None:
        shown["expires_at"] = given.expires_at
    return shown


def expiry(offer: Offer, now: datetime, zones: Sequence[str], business_zone: str) -> datetime | None:
    """
    When a code that is sent `now` expires: by the customer's own calendar.

    Where they may live in several zones, the latest of the moments.
    """
    if offer.expires is None:
        return None
    return max(timing.add(now, offer.expires, zone) for zone in zones or (business_zone,))


def sample(offer: Offer, now: datetime, zones: Sequence[str], business_zone: str) -> Given:
    """A coupon that nobody has, to show what a message would look like."""
    code = offer.shared_code or f"{offer.prefix}{ALPHABET[:LENGTH]}"
    held = Held(None, code, offer.name, State.MADE)
    return Given(offer, code, expiry(offer, now, zones, business_zone), held, is_kept=False)


def open_desk(connection: Connection, settings: Settings, now: datetime, wanted: Sequence[Wanted]) -> Desk | None:
    """The desk of a chunk, its offers locked; None where no message of the chunk brings a coupon."""
    return Desk(connection, settings, now, wanted, locking=True) if wanted else None


def would_give(
    connection: Connection, settings: Settings, now: datetime, wanted: Wanted, zones: Sequence[str]
) -> Given | Denied | RunOut:
    """What the message would bring if it left now; nothing is locked, written or kept."""
    return Desk(connection, settings, now, [wanted], locking=False).propose(wanted, zones)


class Desk:
    """What is proposed and taken for the messages of one chunk."""

    def __init__(
        self, connection: Connection, settings: Settings, now: datetime, wanted: Sequence[Wanted], *, locking: bool
    ) -> None:
        self._connection, self._settings, self._now = connection, settings, now
        self._carried: dict[int, Held] = {}  # by message
        self._own: defaultdict[tuple[int, str], list[Held]] = defaultdict(list)  # by customer and offer
        self._twins: defaultdict[int, set[int]] = defaultdict(set)  # by customer, other records of the same person
        self._issued: Counter[str] = Counter()
        self._given: Counter[str] = Counter()  # of the issued, those that this chunk adds
        self._pool: dict[str, deque[Held]] = {}
        self._keys: set[str] = set()
        self._changed: dict[int, Held] = {}
        self._new: list[Held] = []
        self._carry: dict[int, Held] = {}  # by message, what is written
        self._left: set[int] = set()  # coupons that a message carried and does no more
        self._void: list[dict[str, Any]] = []  # weaker ones
        named = self._named(wanted)
        if locking:
            lock(connection, named)
        self._read(wanted, named)

    # --- reading

    def _named(self, wanted: Sequence[Wanted]) -> set[str]:
        """The offers meant, those of codes carried before, those they replace, and those that replace them."""
        known, c, m = self._settings.offers, coupons.c, carriers.c
        ids = {one.coupon_id for one in wanted if one.coupon_id is not None}
        earlier = select(m.coupon_id).where(among(m.message_id, {one.message_id for one in wanted}))
        before = select(c.offer).where(or_(among(c.id, ids), c.id.in_(earlier))).distinct()
        meant = {one.offer for one in wanted if one.offer in known} | set(self._connection.execute(before).scalars())
        weaker = {name for offer in meant & known.keys() for name in known[offer].replaces}
        better = {name for name, offer in known.items() if meant & set(offer.replaces)}
        return meant | weaker | better

    def _read(self, wanted: Sequence[Wanted], named: set[str]) -> None:
        c, m = coupons.c, carriers.c
        found: dict[int, Held] = {}
        earlier = select(m.coupon_id).where(among(m.message_id, {one.message_id for one in wanted}))
        asked = {one.coupon_id for one in wanted if one.coupon_id is not None}
        ids = {*self._connection.execute(earlier).scalars(), *asked}
        people = {one.customer_id for one in wanted}
        if any(name in named and offer.per_customer for name, offer in self._settings.offers.items()):
            for customer, twin in self._connection.execute(_TWINS, {"ids": people}):
                self._twins[customer].add(twin)
        theirs = among(c.customer_id, people.union(*self._twins.values()))
        for condition in (theirs & among(c.offer, named), among(c.id, ids)):
            for row in self._connection.execute(select(coupons).where(condition).order_by(c.id)):
                found.setdefault(row.id, _held(row))
        carried = select(m.message_id, m.coupon_id).where(among(m.coupon_id, found))
        for message, coupon in self._connection.execute(carried).all() if found else ():
            found[coupon].carriers.add(message)
            self._carried[message] = found[coupon]
        for one in found.values():
            if one.customer_id is not None:
                self._own[one.customer_id, one.offer].append(one)
        counted = select(offers.c.name, offers.c.issued).where(among(offers.c.name, named))
        self._issued.update({row.name: row.issued for row in self._connection.execute(counted)})
        needed = Counter(one.offer for one in wanted)
        for name, many in needed.items():
            if (offer := self._settings.offers.get(name)) is not None and not offer.shared_code:
                self._pool[name] = deque(self._live(offer, many))

    def _live(self, offer: Offer, many: int) -> list[Held]:
        found: list[Held] = []
        for state in (State.LIVE, State.MADE) if offer.trust else (State.LIVE,):
            values = {"offer": offer.name, "many": many - len(found)}
            found += [_held(row) for row in self._connection.execute(_POOL[state], values)]
        return found

    # --- deciding

    def propose(self, one: Wanted, zones: Sequence[str]) -> Given | Denied | RunOut:
        """What the message may bring; nothing is taken by it."""
        if one.coupon_id is not None:
            about = self._reminder(one)
            if isinstance(about, Denied) or one.offer in ("", about.offer.name):
                return about
        offer, now = self._settings.offers[one.offer], self._now
        before = self._carried.get(one.message_id)
        if before is not None and before.offer == offer.name and before.customer_id == one.customer_id:
            if before.used >= max(before.uses, 1):
                return Denied(f"{offer.name}: its code has been redeemed")
            if before.status == State.ISSUED and before.carriers == {one.message_id}:
                return Given(offer, before.code, self._expiry(offer, zones), before, is_kept=True)
        own = self._own[one.customer_id, offer.name]
        for held in own:
            if held.is_current(now):
                return Given(offer, held.code, held.expires_at, held, is_kept=True)
        for better in (other for other in self._settings.offers.values() if offer.name in other.replaces):
            if any(held.is_current(now) for held in self._own[one.customer_id, better.name]):
                return Denied(f"{offer.name}: they have {better.name}, which replaces it")
        if (limit := offer.per_customer) is not None:
            since = now - limit.per.clock
            persons = [h for i in self._twins[one.customer_id] for h in self._own[i, offer.name]]
            every = [*own, *persons]
            had = [h for h in every if h.issued_at is not None and h.issued_at > since and h is not before]
            if len(had) >= limit.count:
                return Denied(f"{offer.name}: {limit.count} per {limit.per}")
        return self._fresh(offer, zones)

    def _reminder(self, one: Wanted) -> Given | Denied:
        held = next((h for rows in self._own.values() for h in rows if h.id == one.coupon_id), None)
        if held is None or held.customer_id != one.customer_id or held.used or not held.is_current(self._now):
            return Denied("the coupon has been redeemed, or is good no more")
        if (offer := self._settings.offers.get(held.offer)) is None:
            return Denied(f"{held.offer} is no offer any more")
        return Given(offer, held.code, held.expires_at, held, is_kept=True)

    def _fresh(self, offer: Offer, zones: Sequence[str]) -> Given | RunOut:
        if offer.budget is not None and self._issued[offer.name] >= offer.budget:
            return RunOut(f"offer {offer.name}: its budget of {offer.budget:,} is given out")
        if offer.shared_code:
            held = Held(None, offer.shared_code, offer.name, State.LIVE, uses=offer.most_uses)
        elif self._pool[offer.name]:
            held = self._pool[offer.name][0]
        elif offer.trust and offer.is_generated:
            held = Held(None, self._unheard(offer), offer.name, State.LIVE, uses=offer.most_uses)
        else:
            return RunOut(f"offer {offer.name}: no live code is left")
        return Given(offer, held.code, self._expiry(offer, zones), held, is_kept=False)

    def _unheard(self, offer: Offer) -> str:
        while True:
            code = generate(offer.prefix, 1)[0]
            known = select(coupons.c.id).where(coupons.c.key == key_of(code))
            if key_of(code) not in self._keys and self._connection.execute(known).first() is None:
                return code

    def _expiry(self, offer: Offer, zones: Sequence[str]) -> datetime | None:
        return expiry(offer, self._now, zones, self._settings.business.timezone)

    # --- taking

    def take(self, one: Wanted, given: Given) -> None:
        """The message leaves with what was proposed."""
        held = given.coupon
        before = self._carried.get(one.message_id)
        if before is not None and before is not held:
            before.carriers.discard(one.message_id)
            if before.id is not None:
                self._left.add(before.id)
        if not given.is_kept:
            self._give(one, given)
        elif held.carriers == {one.message_id}:  # its own code: nobody has it from elsewhere
            held.issued_at, held.expires_at = self._now, given.expires_at
            self._keep(held)
        held.carriers.add(one.message_id)
        self._carried[one.message_id] = self._carry[one.message_id] = held
        self._replace(one, given)

    def _give(self, one: Wanted, given: Given) -> None:
        held, name = given.coupon, given.offer.name
        if self._pool.get(name) and self._pool[name][0] is held:
            self._pool[name].popleft()
        held.uses = given.offer.most_uses
        held.status, held.customer_id, held.message_id = State.ISSUED, one.customer_id, one.message_id
        held.issued_at, held.expires_at = self._now, given.expires_at
        self._issued[name] += 1
        self._given[name] += 1
        self._own[one.customer_id, name].append(held)
        if held.id is None:
            self._keys.add(key_of(held.code))
        self._keep(held)

    def _keep(self, held: Held) -> None:
        if held.id is not None:
            self._changed[held.id] = held
        elif held not in self._new:
            self._new.append(held)

    def _replace(self, one: Wanted, given: Given) -> None:
        for weaker in given.offer.replaces:
            for held in self._own[one.customer_id, weaker]:
                if held.status == State.ISSUED and held.used == 0:
                    held.status, held.voided_at = State.VOID, self._now
                    self._void.append({"weaker": held, "by": given.coupon, "reason": f"replaced by {given.offer.name}"})

    # --- writing

    def write(self) -> None:
        """Write what was taken, in the transaction that commits the messages."""
        if not self._carry:
            return
        self._insert_new()
        if self._changed:
            self._connection.execute(_ISSUE, [_issued_values(held) for held in self._changed.values()])
        fixed = {"at": self._now, "settled": False, "doubted": False}
        rows = [{"message_id": m, "coupon_id": h.id, **fixed} for m, h in self._carry.items()]
        self._connection.execute(_carries(self._connection), rows)
        if self._void:
            values = [
                {"of": one["weaker"].id, "by": one["by"].id, "why": one["reason"], "when": self._now}
                for one in self._void
            ]
            self._connection.execute(_REPLACED, values)
        count_issued(self._connection, self._given)
        give_back(self._connection, self._left)

    def _insert_new(self) -> None:
        if not self._new:
            return
        ids = store.new_ids(self._connection, coupons, len(self._new))
        for held, number in zip(self._new, ids, strict=True):
            held.id = number
        self._connection.execute(insert(coupons), [self._new_values(held) for held in self._new])

    def _new_values(self, held: Held) -> dict[str, Any]:
        offer = self._settings.offers[held.offer]
        mark = f"{SHARED_MARK}{held.customer_id}{SHARED_MARK}{held.message_id}" if offer.shared_code else ""
        return {
            "id": held.id,
            "key": key_of(held.code) + mark,
            "code": held.code,
            "offer": held.offer,
            "made_at": self._now,
            "status": held.status,
            "uses": held.uses,
            "shareable": offer.shareable,
            "used": 0,
            "customer_id": held.customer_id,
            "message_id": held.message_id,
            "issued_at": held.issued_at,
            "expires_at": held.expires_at,
            "reason": "",
        }


_mine, _other = table(Customer).alias("mine"), table(Customer).alias("other")
_TWINS = union_all(
    *(
        select(_mine.c.id, _other.c.id).join(_other, shared).where(among(_mine.c.id, "ids"), _mine.c.id != _other.c.id)
        for shared in (_mine.c[name] == _other.c[name] for name in ("email_id", "phone_id", "messenger_id"))
    )
)


def _held(row: Any) -> Held:
    return Held(
        row.id,
        row.code,
        row.offer,
        row.status,
        row.uses,
        row.used,
        row.customer_id,
        row.message_id,
        row.issued_at,
        row.expires_at,
        row.voided_at,
    )


# Literals, not parameters: only then do both databases use the partial index.
_POOL = {
    state: select(coupons)
    .where(text(f"status = '{state}'"), coupons.c.offer == bindparam("offer"))
    .order_by(coupons.c.id)
    .limit(bindparam("many"))
    for state in (State.LIVE, State.MADE)
}
_ISSUE = (
    update(coupons)
    .where(coupons.c.id == bindparam("of"))
    .values(
        status=bindparam("to"),
        customer_id=bindparam("customer"),
        message_id=bindparam("message"),
        issued_at=bindparam("issued"),
        expires_at=bindparam("expires"),
        uses=bindparam("most"),
    )
)
_REPLACED = (
    update(coupons)
    .where(coupons.c.id == bindparam("of"))
    .values(status=State.VOID, replaced_by=bindparam("by"), reason=bindparam("why"), voided_at=bindparam("when"))
)


def _issued_values(held: Held) -> dict[str, Any]:
    return {
        "of": held.id,
        "to": held.status,
        "customer": held.customer_id,
        "message": held.message_id,
        "issued": held.issued_at,
        "expires": held.expires_at,
        "most": held.uses,
    }


def _carries(connection: Connection) -> Any:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    into = dialect.insert(carriers)
    again = {"coupon_id": into.excluded.coupon_id, "at": into.excluded.at, "settled": False}
    return into.on_conflict_do_update(index_elements=["message_id"], set_=again)
