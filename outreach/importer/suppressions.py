"""
Lists of who must not be contacted: one address or number a line, kept as keyed hashes only.
"""

from __future__ import annotations

from collections.abc import Sequence

from outreach import store
from outreach.addresses import normal_email, normal_phone
from outreach.errors import ImportFileError
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
from outreach.models import Scope
from outreach.sources import Refusal, Table

_COLUMNS = ("address_hash", "kind", "scope", "channel", "source", "at")


def take(run: Run, table: Table) -> None:
    """Import a do-not-contact list; what it already holds stays as it is, lifted entries too."""
    if table.scope not in tuple(Scope):
        raise ImportFileError(f"the scope {table.scope!r} is unknown: use {', '.join(Scope)}")
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
        many(
            connection,
            insert_into("suppressions", _COLUMNS, "ON CONFLICT (address_hash, kind, scope, channel) DO NOTHING"),
            [(hashed, kind, table.scope, "", f"import {run.id}", run.micros) for kind, hashed in new],
        )
        write_rejects(connection, run, table.file, refusals)
    list_rejects(run, table.file, refusals)
    return len(new)
