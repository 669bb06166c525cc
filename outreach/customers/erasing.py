"""
Erasing: everything that tells who a person is, taken out of the database in one transaction.

What stays tells nobody who it was: that some customer bought, was written to and answered, so that no
figure changes. Their addresses stay as keyed hashes in a do-not-contact entry that blocks everything,
and the customer's record is marked so that nothing is ever planned for it again: the next import of
the same file contacts nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, text, update

from outreach import store
from outreach.customers.finding import Whose, find
from outreach.customers.holdings import HOLDINGS, plain_facts
from outreach.inbox import receive
from outreach.models import Contact, Customer, Message, MessageEvent, MessageLink, Reason, Scope, Status, table
from outreach.settings import Settings
from outreach.store import Database, among

_contacts, _customers, _messages = table(Contact), table(Customer), table(Message)
_events, _links = table(MessageEvent), table(MessageLink)


@dataclass(frozen=True)
class Erased:
    """What an erasure did."""

    customer: str  # the id under which the rest is kept
    rows: int  # that were emptied or deleted
    cancelled: int  # messages that were planned
    shared_with: tuple[str, ...] = ()  # other customers with an address of theirs, which therefore stays


def erase(db: Database, settings: Settings, who: str, now: datetime) -> Erased:
    """
    Erase one person; twice is as once.

    1. What providers told us and nobody has looked at yet is matched first, so that it is found.
    2. Under the locks that a sender takes: planned messages are cancelled, addresses are suppressed,
       and every table is emptied of what is theirs, as `holdings` lists it.

    An address that another customer has, too, is that customer's and stays.

    Raises:
        NotFound: nobody, or more than one person, has this id, address or number.
    """
    with store.read(db) as connection:
        find(connection, db, settings, who)
    receive(db, settings, now)
    with store.write(db) as connection:
        whose = find(connection, db, settings, who)
        held = select(_contacts).where(among(_contacts.c.id, whose.contacts)).order_by(_contacts.c.id)
        contacts = connection.execute(held.with_for_update()).all()
        _suppress(connection, [row for row in contacts if row.id in whose.alone], now)
        cancelled = _cancel(connection, whose)
        rows = _empty_events(connection, whose)
        rows += _drop_plain_links(connection, whose)
        rows += sum(_empty(connection, holding, whose) for holding in HOLDINGS)
        name = _mark(connection, db, whose)
    return Erased(name, rows, cancelled, whose.sharing)


_SUPPRESS = text(
    "INSERT INTO suppressions (address_hash, kind, scope, channel, source, at)"
    f" VALUES (:hash, :kind, '{Scope.ADDRESS}', '', 'erased', :at)"
    " ON CONFLICT (address_hash, kind, scope, channel) DO UPDATE SET source = 'erased', lifted_at = NULL"
)


def _suppress(connection: Connection, contacts: list[Any], now: datetime) -> None:
    values = [{"hash": row.address_hash, "kind": row.kind, "at": store.micros(now)} for row in contacts]
    if values:
        connection.execute(_SUPPRESS, values)


def _cancel(connection: Connection, whose: Whose) -> int:
    c = _messages.c
    gone = {"status": Status.CANCELLED, "reason": Reason.CUSTOMER_GONE, "claim": None, "lease_until": None}
    waiting = update(_messages).where(among(c.customer_id, whose.customers), c.status == Status.PLANNED)
    return connection.execute(waiting.values(**gone)).rowcount


def _empty_events(connection: Connection, whose: Whose) -> int:
    c = _events.c
    rows = connection.execute(select(c.id, c.detail).where(among(c.customer_id, whose.customers))).all()
    changed = [{"of": row.id, "new": plain_facts(row.detail)} for row in rows if plain_facts(row.detail) != row.detail]
    if changed:
        connection.execute(update(_events).where(c.id == bindparam("of")).values(detail=bindparam("new")), changed)
    return len(changed)


def _drop_plain_links(connection: Connection, whose: Whose) -> int:
    """Links to pages of ours stay: an opt-out in an old message must still be heard."""
    c = _links.c
    return connection.execute(delete(_links).where(among(c.message_id, whose.messages), c.kind == "url")).rowcount


def _empty(connection: Connection, holding: Any, whose: Whose) -> int:
    of = table(holding.model)
    mine = (holding.own or holding.rows)(whose)
    if holding.deleted:
        return connection.execute(delete(of).where(mine)).rowcount
    values = {name: value for name, value in holding.emptied.items() if value is not ...}
    return connection.execute(update(of).where(mine).values(**values)).rowcount if values else 0


def _mark(connection: Connection, db: Database, whose: Whose) -> str:
    """
    Mark the records as nobody's any more: merged into themselves.

    An id of the shop's that is itself an address is replaced by its keyed hash.
    """
    name = whose.name
    for customer in whose.customers:
        known = connection.execute(select(_customers.c.external_id).where(_customers.c.id == customer)).scalar_one()
        kept = store.erased_name(db.secret, known) if _tells(known, whose) else known
        name = kept if customer == whose.customers[0] else name
        values = {"external_id": kept, "merged_into": whose.customers[0]}
        connection.execute(update(_customers).where(_customers.c.id == customer).values(**values))
    return name


def _tells(name: str, whose: Whose) -> bool:
    digits = "".join(letter for letter in name if letter.isdigit())
    return "@" in name or (len(digits) >= 8 and any(address.endswith(digits) for address in whose.addresses))
