"""
Lists of who must not be contacted: one address or number a line, kept as keyed hashes only.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from outreach import store
from outreach.addresses import normal_email, normal_phone
from outreach.importer.cells import read_column
from outreach.importer.writing import (
    Run,
    insert_into,
    list_rejects,
    many,
    rows,
    transaction,
    write_rejects,
)
from outreach.sources import Refusal, Table

_COLUMNS = ("address_hash", "kind", "scope", "channel", "source", "at")


def take(run: Run, table: Table) -> None:
    """Import a do-not-contact list; what it already holds stays as it is, lifted entries too."""
    counts, country, done = run.counts.suppressions, run.settings.business.country, 0
    for batch in table.batches():
        done += len(batch.rows)
        refusals: dict[int, list[Refusal]] = {}
        found = read_column(
            [row[0] for row in batch.rows], lambda text: _address(text, country), "address", batch.lines, refusals
        )
        entries = [entry for entry in found if entry is not None]
        refused = [*batch.refusals, *(refusal for some in refusals.values() for refusal in some)]
        created = _write(run, table, entries, refused)
        counts.read += len(batch.rows) + len(batch.refusals)
        counts.rejected += len(refused)
        counts.created += created
        counts.unchanged += len(entries) - created
        if run.progress:
            run.progress("suppressions", done, batch.bytes_done, table.bytes_total)


def _address(text: str, country: str | None) -> tuple[str, str]:
    """The kind of contact and its address in the one form."""
    return ("email", normal_email(text)) if "@" in text else ("phone", normal_phone(text, country))


def _write(run: Run, table: Table, entries: Sequence[tuple[str, str]], refusals: Sequence[Refusal]) -> int:
    """One transaction: the entries that are new. Gives how many were."""
    hashes = {(kind, store.address_hash(run.db.secret, kind, address)): None for kind, address in entries}
    query = "SELECT kind, address_hash FROM suppressions WHERE address_hash = ANY(?) AND scope = ? AND channel = ''"
    with transaction(run) as connection:
        listed = [hashed for _, hashed in hashes]
        known = {(row[0], row[1]) for row in rows(connection, query, listed, table.scope)} if listed else set()
        new = [place for place in hashes if place not in known]
        _hold(connection, run, new)
        many(
            connection,
            insert_into("suppressions", _COLUMNS, "ON CONFLICT (address_hash, kind, scope, channel) DO NOTHING"),
            [(hashed, kind, table.scope, "", f"import {run.id}", run.micros) for kind, hashed in new],
        )
        write_rejects(connection, run, table.file, refusals)
    list_rejects(run, table.file, refusals)
    return len(new)


def _hold(connection: Connection, run: Run, new: Sequence[tuple[str, str]]) -> None:
    """Lock the contacts concerned, as a sender does before its last look, so that whichever commits first wins."""
    if run.db.is_sqlite:
        return
    for kind in sorted({kind for kind, _ in new}):
        listed = [hashed for of, hashed in new if of == kind]
        query = "SELECT id FROM contacts WHERE kind = ? AND address_hash = ANY(?) ORDER BY id FOR UPDATE"
        rows(connection, query, kind, listed)
