"""
What a file says of consent, appended to the ledger (DESIGN 3.1).

Silence is not consent. A recipient's own opt-out yields only to a grant with a later date of its
own, so that a nightly file can never undo it; it goes with them to a new address. Saying the same
again appends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from outreach.importer.writing import Run, insert_into, many, rows
from outreach.values import CONTACT_KIND

GRANTED, REVOKED = "granted", "revoked"


class Line(NamedTuple):
    """One line of the ledger of a contact and channel; `at` in microseconds."""

    at: int
    status: str
    by: str


@dataclass(frozen=True)
class Said:
    """What a file says of one contact and channel; `at` is its date, `first` the date a first undated word gets."""

    contact_id: int
    channel: str
    granted: bool
    at: int | None
    first: int
    source: str
    customer: int | None = None  # whose row it is, if the row is not their first


class Moved(NamedTuple):
    """A customer who has another contact of a kind than before, or one where there was none."""

    customer: int
    kind: str
    before: int | None
    after: int


def in_force(lines: Sequence[Line]) -> Line | None:
    """The line with the latest date; at the same instant a revocation wins."""
    return max(lines, key=lambda line: (line.at, line.status == REVOKED), default=None)


def next_line(lines: Sequence[Line], said: Said, now: int) -> Line | None:
    """
    The line to append for what a file says, or None.

    1. dated: its own date, unless that line exists; a grant only if later than the recipient's own revocation;
    2. undated and nothing is known: the customer's first date;
    3. undated yes: now, if the shop's own revocation is in force and no recipient's stands unanswered;
    4. undated no: now, if a grant is in force.
    """
    status = GRANTED if said.granted else REVOKED
    opted_out = max((line.at for line in lines if line.by == "recipient" and line.status == REVOKED), default=None)
    if said.at is not None:
        known = any(line.at == said.at and line.status == status for line in lines)
        return None if known or _undoes(said, opted_out) else Line(said.at, status, "shop")
    latest = in_force(lines)
    if latest is None:
        return Line(said.first, status, "shop")
    if latest.status == status:
        return None
    if not said.granted:
        return Line(max(now, latest.at), status, "shop")
    answered = opted_out is None or any(line.status == GRANTED and line.at > opted_out for line in lines)
    return Line(max(now, latest.at + 1), status, "shop") if latest.by == "shop" and answered else None


def _undoes(said: Said, opted_out: int | None) -> bool:
    return said.granted and opted_out is not None and said.at is not None and said.at <= opted_out


def record(connection: Connection, run: Run, said: Sequence[Said], moved: Sequence[Moved] = ()) -> None:
    """Append to the ledger what the file says, under the lock of each contact that an opt-out takes too."""
    if not said and not moved:
        return
    contacts = sorted(
        {word.contact_id for word in said} | {one.after for one in moved} | {one.before for one in moved if one.before}
    )
    if not run.db.is_sqlite:
        rows(connection, "SELECT id FROM contacts WHERE id = ANY(?) ORDER BY id FOR UPDATE", contacts)
    ledger = _ledger(connection, contacts)
    new = _carried(connection, ledger, [*moved, *_asking(ledger, said, run.micros)], run.micros)
    shared = _shared(connection, [word.contact_id for word in said if _overturns(ledger, word)])
    noes = {(word.contact_id, word.channel) for word in said if not word.granted}
    for word in said:
        lines = ledger.setdefault((word.contact_id, word.channel), [])
        if _overturns(ledger, word) and (word.contact_id in shared or (word.contact_id, word.channel) in noes):
            continue
        if line := next_line(lines, word, run.micros):
            lines.append(line)
            new.append((word.contact_id, word.channel, *line, "consent", word.source, "", run.micros))
    columns = ("contact_id", "channel", "at", "status", '"by"', "basis", "source", "words", "recorded_at")
    many(connection, insert_into("consents", columns), new)


def _ledger(connection: Connection, contacts: Sequence[int]) -> dict[tuple[int, str], list[Line]]:
    query = 'SELECT contact_id, channel, at, status, "by" FROM consents WHERE contact_id = ANY(?)'
    ledger: dict[tuple[int, str], list[Line]] = {}
    for contact, channel, *line in rows(connection, query, list(contacts)) if contacts else ():
        ledger.setdefault((contact, channel), []).append(Line(*line))
    return ledger


def _asking(ledger: Mapping[tuple[int, str], list[Line]], said: Sequence[Said], now: int) -> list[Moved]:
    """Customers whom the file would grant something, which an opt-out at a former address may forbid."""
    return [
        Moved(word.customer, CONTACT_KIND[word.channel], None, word.contact_id)
        for word in said
        if word.granted and word.customer and next_line(ledger.get((word.contact_id, word.channel), ()), word, now)
    ]


def _carried(
    connection: Connection, ledger: dict[tuple[int, str], list[Line]], moved: Sequence[Moved], now: int
) -> list[tuple[Any, ...]]:
    """The recipients' opt-outs that go with them to an address, from those they had; put into the ledger, too."""
    if not moved:
        return []
    had: dict[int, set[int]] = {}
    query = (
        "SELECT DISTINCT customer_id, contact_id FROM messages WHERE customer_id = ANY(?) AND contact_id IS NOT NULL"
    )
    for customer, contact in rows(connection, query, sorted({one.customer for one in moved})):
        had.setdefault(customer, set()).add(contact)
    for one in moved:
        had.setdefault(one.customer, set()).update([one.before] if one.before else [])
    former = _ledger(connection, sorted({contact for contacts in had.values() for contact in contacts}))
    new = []
    for one in moved:
        for channel in [name for name, kind in CONTACT_KIND.items() if kind == one.kind]:
            lines = [line for contact in had[one.customer] for line in former.get((contact, channel), ())]
            known = ledger.get((one.after, channel), [])
            opted_out = _standing([*lines, *known])
            if opted_out and not any(line.at == opted_out.at and line.status == REVOKED for line in known):
                ledger.setdefault((one.after, channel), []).append(opted_out)
                new.append((one.after, channel, *opted_out, "consent", "former address", "", now))
    return new


def _standing(lines: Sequence[Line]) -> Line | None:
    """The recipient's latest opt-out, unless something granted later answers it."""
    opted_out = max((line for line in lines if line.by == "recipient" and line.status == REVOKED), default=None)
    answered = opted_out and any(line.status == GRANTED and line.at > opted_out.at for line in lines)
    return None if answered else opted_out


def _overturns(ledger: dict[tuple[int, str], list[Line]], said: Said) -> bool:
    """An undated yes against the shop's own no."""
    latest = in_force(ledger.get((said.contact_id, said.channel), ()))
    return said.granted and said.at is None and latest is not None and latest.status == REVOKED


def _shared(connection: Connection, contacts: Sequence[int]) -> set[int]:
    """Which of these contacts several customers have: whose yes it is that comes after a no, nobody knows."""
    found: set[int] = set()
    for kind in ("email", "phone", "messenger") if contacts else ():
        several = f"SELECT {kind}_id FROM customers WHERE {kind}_id = ANY(?) GROUP BY {kind}_id HAVING count(*) > 1"
        found.update(row[0] for row in rows(connection, several, sorted(set(contacts))))
    return found
