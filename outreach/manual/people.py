"""
Whom a manual send means.

A customer is named by the shop's own id, or by an address or number that a customer has. One that
nobody has belongs to a stranger: a bare customer without a consent, made only when the send is
written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text

from outreach import naming, store, timing
from outreach.addresses import normal_email, normal_phone
from outreach.conditions import compile_condition
from outreach.errors import NotFound
from outreach.models import Contact, Customer, CustomerStats, table
from outreach.settings import Settings
from outreach.store import Database, among

STRANGER = "address:"  # how the id of a customer begins who is known by an address alone

_customers, _stats, _contacts = table(Customer), table(CustomerStats), table(Contact)


@dataclass(frozen=True)
class Stranger:
    """An address or number that no customer has."""

    external_id: str
    kind: str  # email | phone
    address: str
    address_hash: str


@dataclass(frozen=True)
class People:
    """Whom a send means, each once, in the order they were named or became known."""

    known: tuple[int, ...] = ()  # ids of customers
    strangers: tuple[Stranger, ...] = ()
    kinds: frozenset[str] = frozenset()  # of the addresses, where nobody was named in another way

    def __len__(self) -> int:
        return len(self.known) + len(self.strangers)


# --- by a condition ------------------------------------------------------------------------------


def meant(connection: Connection, settings: Settings, expression: str, now: datetime) -> People:
    """
    The customers for whom the condition holds at `now`.

    Raises:
        ConditionError: the expression cannot be understood.
    """
    condition = compile_condition(expression, subject="customer", settings=settings, now=now)
    joined = _customers.outerjoin(_stats, _stats.c.customer_id == _customers.c.id)
    query = select(_customers.c.id).select_from(joined).where(_customers.c.merged_into.is_(None), condition)
    return People(tuple(connection.execute(query.order_by(_customers.c.id)).scalars()))


# --- by name -------------------------------------------------------------------------------------


ADVICE = "give the shop's own id, an e-mail address, or a number with + and its country code"


def named(
    connection: Connection, db: Database, settings: Settings, names: Sequence[str], *, option: str = "--to"
) -> People:
    """
    The customers with these ids, and those who have these addresses or numbers (written with + and country code).

    An id goes before an address that reads the same; for a customer merged into another, the other.

    Raises:
        NotFound: one is neither; it says which, and quotes no address.
    """
    wanted = [name.strip() for name in names]
    by_id = _by_id(connection, wanted)
    known: dict[int, None] = {}
    strangers: dict[str, Stranger] = {}
    kinds: set[str] = set()
    for place, name in enumerate(wanted, 1):
        if name in by_id:
            known[by_id[name]] = None
            kinds.add("")
            continue
        if "@" not in name and not name.startswith("+"):
            raise naming.no_customer(connection, name, ADVICE)
        said = f"what {option} names" + (f" in place {place}" if len(wanted) > 1 else "")
        kind, address = _address(name, said, settings.business.country)
        hashed = store.address_hash(db.secret, kind, address)
        kinds.add(kind)
        if having := _having(connection, kind, hashed):
            known |= dict.fromkeys(having)
        else:
            stranger = Stranger(f"{STRANGER}{hashed[:12]}", kind, address, hashed)
            strangers[stranger.external_id] = stranger
    return People(tuple(known), tuple(strangers.values()), frozenset() if "" in kinds else frozenset(kinds))


def _by_id(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    c = _customers.c
    query = select(c.external_id, c.id, c.merged_into).where(among(c.external_id, names))
    return {row.external_id: row.merged_into or row.id for row in connection.execute(query)}


def _address(name: str, said: str, country: str | None) -> tuple[str, str]:
    """
    The kind of contact and its address in the one form.

    A number needs its +: without one, a slip in a customer's id could reach somebody's phone.
    """
    try:
        return ("email", normal_email(name)) if "@" in name else ("phone", normal_phone(name, country))
    except ValueError as error:
        raise NotFound(f"{said} {error}") from None


def _having(connection: Connection, kind: str, hashed: str) -> list[int]:
    """The customers who have the address; one known by it alone only where nobody else does."""
    own = _customers.c.email_id if kind == "email" else _customers.c.phone_id
    query = (
        select(_customers.c.id, _customers.c.external_id)
        .join(_contacts, _contacts.c.id == own)
        .where(_contacts.c.kind == kind, _contacts.c.address_hash == hashed, _customers.c.merged_into.is_(None))
        .order_by(_customers.c.id)
    )
    rows = connection.execute(query).all()
    real = [row.id for row in rows if not row.external_id.startswith(STRANGER)]
    return real or [row.id for row in rows]


# --- strangers -----------------------------------------------------------------------------------

_ADD_CONTACT = text(
    "INSERT INTO contacts (kind, address, address_hash) VALUES (:kind, :address, :hash)"
    " ON CONFLICT (kind, address_hash) DO NOTHING"
)
_ADD_CUSTOMER = text(
    "INSERT INTO customers (external_id, email_id, phone_id, zones, tags, attributes, row_hash)"
    " VALUES (:name, :email, :phone, :zones, '[]', '{}', :hash) ON CONFLICT (external_id) DO NOTHING"
)


def admit(connection: Connection, strangers: Sequence[Stranger]) -> Mapping[str, int]:
    """
    Make each a bare customer with that one contact, and give their ids by external id.

    Nothing is recorded of consent. An erased contact stays erased.
    """
    found: dict[str, int] = {}
    for one in strangers:
        values = {"kind": one.kind, "address": one.address, "hash": one.address_hash}
        connection.execute(_ADD_CONTACT, values)
        contact = connection.execute(
            select(_contacts.c.id).where(_contacts.c.kind == one.kind, _contacts.c.address_hash == one.address_hash)
        ).scalar_one()
        own = {"email": None, "phone": None, one.kind: contact}
        zones = timing.candidate_zones(phone=one.address) if one.kind == "phone" else ()
        added = {**own, "name": one.external_id, "zones": " ".join(zones), "hash": b""}
        connection.execute(_ADD_CUSTOMER, added)
        c = _customers.c
        row = connection.execute(select(c.id, c.merged_into).where(c.external_id == one.external_id)).one()
        found[one.external_id] = row.merged_into or row.id
    return found
