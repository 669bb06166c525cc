"""Finding: whom a verb means, and what is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, or_, select

from outreach.errors import NotFound
from outreach.manual.people import named
from outreach.models import Contact, Customer, Message, Order, table
from outreach.settings import Settings
from outreach.store import Database, among

_customers, _contacts, _messages, _orders = table(Customer), table(Contact), table(Message), table(Order)
OWN = (_customers.c.email_id, _customers.c.phone_id, _customers.c.messenger_id)


@dataclass(frozen=True)
class Whose:
    """One person: their records, and the addresses they have."""

    name: str  # the shop's own id; empty for somebody who is known by an address alone
    customers: tuple[int, ...]  # the record itself first, then those merged into it
    contacts: tuple[int, ...]
    alone: tuple[int, ...]  # of these, the contacts that no other customer has
    addresses: tuple[str, ...]  # of `alone`
    messages: tuple[int, ...]
    orders: tuple[int, ...]
    sharing: tuple[str, ...] = ()  # other customers who have one of the contacts


def find(connection: Connection, db: Database, settings: Settings, who: str) -> Whose:
    """
    The person with this id of the shop's, or with this address or number (also one who only wrote to us).

    Raises:
        NotFound: nobody, or more than one.
    """
    people = named(connection, db, settings, [who], option="CUSTOMER")
    if len(people.known) > 1:
        ids = connection.execute(select(_customers.c.external_id).where(_customers.c.id.in_(people.known))).scalars()
        raise NotFound(f"that address has more than one customer: name one by its id ({', '.join(sorted(ids))})")
    if not people.known:
        hashes = [one.address_hash for one in people.strangers]
        contacts = connection.execute(select(_contacts.c.id).where(_contacts.c.address_hash.in_(hashes))).scalars()
        if not (found := tuple(contacts)):
            raise NotFound("nothing is held about that address")
        return _whose(connection, "", (), found)
    (first,) = people.known
    merged = connection.execute(
        select(_customers.c.id).where(_customers.c.merged_into == first, _customers.c.id != first)
    )
    customers = (first, *merged.scalars())
    rows = connection.execute(select(_customers.c.external_id, *OWN).where(_customers.c.id.in_(customers))).all()
    contacts_of = dict.fromkeys(i for row in rows for i in row[1:] if i is not None)
    name = connection.execute(select(_customers.c.external_id).where(_customers.c.id == first)).scalar_one()
    return _whose(connection, str(name), customers, tuple(contacts_of))


def _whose(connection: Connection, name: str, customers: Sequence[int], contacts: Sequence[int]) -> Whose:
    others = connection.execute(
        select(_customers.c.external_id, *OWN).where(
            or_(*(among(own, contacts) for own in OWN)), _customers.c.id.not_in(customers)
        )
    ).all()
    shared = {i for row in others for i in row[1:] if i in contacts}
    alone = tuple(i for i in contacts if i not in shared)
    known = connection.execute(select(_contacts.c.address).where(among(_contacts.c.id, alone))).scalars()
    return Whose(
        name=name,
        customers=tuple(customers),
        contacts=tuple(contacts),
        alone=alone,
        addresses=tuple(address for address in known if address is not None),
        messages=tuple(
            connection.execute(select(_messages.c.id).where(among(_messages.c.customer_id, customers))).scalars()
        ),
        orders=tuple(connection.execute(select(_orders.c.id).where(among(_orders.c.customer_id, customers))).scalars()),
        sharing=tuple(sorted(row.external_id for row in others)),
    )
