"""
Opting out and in: what a person said, in the consent ledger and among the do-not-contact entries.

An opt-out on one channel (DESIGN 3.4, scope `contact`) silences the person: for their address, and
for every other address of the customers who have it,

    contact   no service and no marketing on any channel, until they opt in there again
    address   nothing at all on the channel it was said on, until they opt in on that very channel

and the ledger gets a revocation for each channel of these addresses. An opt-in grants the one channel
it was said on: the others stay revoked in the ledger. So renewing SMS renews no WhatsApp.

Everything is weighed by its own time, under the locks that a sender takes, and a revocation wins over
a grant of the same instant: what is in force depends on what was said, not on when we heard it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text

from outreach import store
from outreach.inbox import matching
from outreach.models import Contact, Scope, table
from outreach.store import among
from outreach.values import CONTACT_KIND

RECIPIENT, PERSON = "recipient", "person"  # who wrote the line: they themselves, or somebody of the shop for them
_contacts = table(Contact)


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of one contact and channel."""

    contact_id: int
    channel: str
    granted: bool
    at: datetime
    source: str = ""
    words: str = ""
    by: str = RECIPIENT
    everywhere: bool = True  # a revocation: on every channel and address of the person; else on this channel alone


@dataclass(frozen=True, slots=True)
class Unreachable:
    """That nobody can be reached at an address on a channel."""

    place: matching.Place
    channel: str
    at: datetime
    source: str


def write(connection: Connection, said: Sequence[Said], now: datetime) -> None:
    """Take over what was said; saying it again changes nothing."""
    if not said:
        return
    _, together = matching.people(connection, {one.contact_id for one in said})
    rows = _hold(connection, {i for ids in together.values() for i in ids})
    lines: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for one in said:
        for contact, channel in _channels(one, together[one.contact_id], rows):
            lines.append(_line(one, contact, channel, now))
        if not one.granted and one.everywhere:
            entries += [_entry(rows[i], Scope.CONTACT, one) for i in together[one.contact_id] if i in rows]
            entries.append(_entry(rows[one.contact_id], Scope.ADDRESS, one))
    connection.execute(_LINE, sorted(lines, key=lambda line: (line["contact"], line["channel"], line["at"])))
    _suppress(connection, entries)
    _weigh(connection, rows.values())


def _channels(one: Said, together: Iterable[int], rows: Mapping[int, Any]) -> list[tuple[int, str]]:
    if one.granted or not one.everywhere:
        return [(one.contact_id, one.channel)]
    return [(i, channel) for i in together if i in rows for channel in _own(rows[i].kind)]


def _own(kind: str) -> list[str]:
    return [channel for channel, of in CONTACT_KIND.items() if of == kind]


def unreachable(connection: Connection, secret: bytes, found: Sequence[Unreachable]) -> None:
    """Note addresses where nobody can be reached on a channel, known here or not."""
    if not found:
        return
    known = matching.contacts(connection, secret, [one.place for one in found], admit=False)
    rows = _hold(connection, {i for ids in known.values() for i in ids})
    entries = []
    for one in found:
        hashes = {rows[i].address_hash for i in known[one.place] if i in rows}
        for hashed in hashes or {store.address_hash(secret, one.place.kind, one.place.address)}:
            key = {"hash": hashed, "kind": one.place.kind, "scope": Scope.ADDRESS, "channel": one.channel}
            entries.append({**key, "source": one.source, "at": store.micros(one.at)})
    _suppress(connection, entries)
    _weigh(connection, rows.values())


# --- writing -----------------------------------------------------------------------------------------

_HELD = (
    select(_contacts.c.id, _contacts.c.kind, _contacts.c.address_hash)
    .where(among(_contacts.c.id, "ids"))
    .order_by(_contacts.c.id)
    .with_for_update()
)


def _hold(connection: Connection, ids: Iterable[int]) -> dict[int, Any]:
    """Lock these contacts in the order of their ids, as every sender does."""
    return {row.id: row for row in connection.execute(_HELD, {"ids": set(ids)})}


def _line(one: Said, contact: int, channel: str, now: datetime) -> dict[str, Any]:
    return {
        "contact": contact,
        "channel": channel,
        "status": "granted" if one.granted else "revoked",
        "at": store.micros(one.at),
        "by": one.by,
        "source": one.source,
        "words": one.words,
        "now": store.micros(now),
    }


# Of two things said at the same instant the ledger has one line, whichever came first: a recipient's own word
# goes before anybody else's, then the longer words.
_LINE = text(
    'INSERT INTO consents (contact_id, channel, status, at, "by", basis, source, words, recorded_at)'
    " VALUES (:contact, :channel, :status, :at, :by, 'consent', :source, :words, :now)"
    " ON CONFLICT (contact_id, channel, at, status)"
    ' DO UPDATE SET "by" = excluded."by", source = excluded.source, words = excluded.words'
    """ WHERE (excluded."by" = 'recipient' AND consents."by" <> 'recipient')"""
    ' OR (excluded."by" = consents."by" AND (excluded.words, excluded.source) > (consents.words, consents.source))'
)


def _entry(contact: Any, scope: Scope, one: Said) -> dict[str, Any]:
    key = {"hash": contact.address_hash, "kind": contact.kind, "scope": scope, "channel": one.channel}
    return {**key, "source": one.source, "at": store.micros(one.at)}


def _suppress(connection: Connection, entries: Sequence[dict[str, Any]]) -> None:
    ordered = sorted(entries, key=lambda one: (one["kind"], one["hash"], one["scope"], one["channel"], one["at"]))
    if ordered:
        connection.execute(_SUPPRESS, ordered)


# The entry is as of the latest it was said; whether something later lifts it is weighed afterwards.
_SUPPRESS = text(
    "INSERT INTO suppressions (address_hash, kind, scope, channel, source, at)"
    " VALUES (:hash, :kind, :scope, :channel, :source, :at)"
    " ON CONFLICT (address_hash, kind, scope, channel) DO UPDATE SET"
    " source = CASE WHEN (excluded.at, excluded.source) > (suppressions.at, suppressions.source)"
    " THEN excluded.source ELSE suppressions.source END,"
    " at = CASE WHEN excluded.at > suppressions.at THEN excluded.at ELSE suppressions.at END,"
    " lifted_at = NULL"
)
_GRANTED = (
    "SELECT max(at) FROM consents WHERE contact_id = :contact AND status = 'granted'"
    """ AND "by" IN ('recipient', 'person') AND at > suppressions.at"""
)
_OF_CONTACT = "address_hash = :hash AND kind = :kind"
_WEIGH = (
    text(
        f"UPDATE suppressions SET lifted_at = ({_GRANTED})"
        f" WHERE {_OF_CONTACT} AND scope = '{Scope.CONTACT}' AND EXISTS ({_GRANTED.replace('max(at)', '1')})"
    ),
    text(
        f"UPDATE suppressions SET lifted_at = ({_GRANTED} AND channel = suppressions.channel)"
        f" WHERE {_OF_CONTACT} AND scope = '{Scope.ADDRESS}'"
        f" AND EXISTS ({_GRANTED.replace('max(at)', '1')} AND channel = suppressions.channel)"
    ),
)


def _weigh(connection: Connection, contacts: Iterable[Any]) -> None:
    """Lift the entries to which a later grant in the person's own name is the answer."""
    values = [{"contact": one.id, "hash": one.address_hash, "kind": one.kind} for one in contacts]
    for statement in _WEIGH if values else ():
        connection.execute(statement, values)
