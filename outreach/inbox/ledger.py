"""What is in force: the latest line of the consent ledger, and the do-not-contact entries that nothing has lifted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, select

from outreach.models import Consent, Contact, Suppression, table
from outreach.store import among

_contacts, _consents, _suppressions = table(Contact), table(Consent), table(Suppression)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the consent ledger."""

    status: str  # granted | revoked
    at: datetime
    by: str
    source: str
    words: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A do-not-contact entry for a contact's address."""

    contact_id: int
    scope: str
    channel: str
    at: datetime
    source: str


_LINES = (
    select(_consents)
    .where(among(_consents.c.contact_id, "ids"))
    .order_by(_consents.c.at, _consents.c.status == "revoked")
)
_ENTRIES = (
    select(_contacts.c.id, _suppressions.c.scope, _suppressions.c.channel, _suppressions.c.at, _suppressions.c.source)
    .join(
        _suppressions,
        and_(_suppressions.c.address_hash == _contacts.c.address_hash, _suppressions.c.kind == _contacts.c.kind),
    )
    .where(among(_contacts.c.id, "ids"), _suppressions.c.lifted_at.is_(None))
    .order_by(_contacts.c.id, _suppressions.c.scope, _suppressions.c.channel)
)


def in_force(connection: Connection, contact_ids: Iterable[int]) -> dict[tuple[int, str], Line]:
    """By contact and channel, the line with the latest date; at the same instant a revocation wins (models.Consent)."""
    rows = connection.execute(_LINES, {"ids": list(contact_ids)})
    return {(row.contact_id, row.channel): Line(row.status, row.at, row.by, row.source, row.words) for row in rows}


def entries(connection: Connection, contact_ids: Iterable[int]) -> list[Entry]:
    """The entries in force for these contacts."""
    return [Entry(*row) for row in connection.execute(_ENTRIES, {"ids": list(contact_ids)})]
