"""
What a file says of consent, appended to the ledger (DESIGN 3.1).

Silence is not consent. A recipient's own opt-out yields only to a grant with a later date of its
own, so that a nightly file can never undo it; it goes with them to a new address. Saying the same
again appends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from outreach.importer.writing import Run, insert_into, many, rows

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


class Moved(NamedTuple):
    """A customer who had one contact, and now has another of the same kind."""

    before: int
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
    contacts = sorted({word.contact_id for word in said} | {contact for pair in moved for contact in pair})
    if not run.db.is_sqlite:
        rows(connection, "SELECT id FROM contacts WHERE id = ANY(?) ORDER BY id FOR UPDATE", contacts)
    query = 'SELECT contact_id, channel, at, status, "by" FROM consents WHERE contact_id = ANY(?)'
    ledger: dict[tuple[int, str], list[Line]] = {}
    for contact, channel, *line in rows(connection, query, contacts):
        ledger.setdefault((contact, channel), []).append(Line(*line))
    new = _carried(ledger, moved, run.micros)
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


def _carried(ledger: dict[tuple[int, str], list[Line]], moved: Sequence[Moved], now: int) -> list[tuple[Any, ...]]:
    """The recipients' opt-outs that go with them to a new address; put into the ledger, too."""
    new = []
    for before, after in moved:
        for (contact, channel), lines in [*ledger.items()]:
            latest = in_force(lines) if contact == before else None
            if latest is None or latest.status != REVOKED or latest.by != "recipient":
                continue
            known = ledger.setdefault((after, channel), [])
            if not any(line.at == latest.at and line.status == REVOKED for line in known):
                known.append(latest)
                new.append((after, channel, *latest, "consent", "former address", "", now))
    return new


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
