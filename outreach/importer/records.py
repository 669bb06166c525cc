"""
Cases, and the shop's own events: rows that hang on a customer and have times of their own.

A column that the file lacks, and a cell that is refused, leave what is stored; an empty cell clears
it. Of several rows with one id the last that can be used wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from outreach import cases, store
from outreach.importer.cells import attributes, key, one_of, plain, read_column, times, word
from outreach.importer.people import customer_ids
from outreach.importer.writing import (
    Change,
    Counts,
    Run,
    changed_times,
    from_json,
    insert_into,
    list_rejects,
    many,
    new_ids,
    row_hash,
    rows,
    seed,
    since,
    to_json,
    transaction,
    write_fresh,
    write_rejects,
)
from outreach.models import from_micros, to_micros
from outreach.sources import KEYS, REQUIRED, Batch, Refusal, Table
from outreach.store import Lock, in_chunks

CASE_KINDS = ("complaint", "cancellation", "return", "refund", "question")
OUTCOMES = ("resolved", "unresolved", "kept", "lost")
Readers = Mapping[str, Callable[[str], Any]]


@dataclass(frozen=True)
class _Kind:
    """How one table is stored: its columns of cells, and the kinds of `fresh` rows of its times."""

    table: str
    columns: tuple[str, ...]
    times: Callable[[Mapping[str, Any]], Mapping[str, int | None]]
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by kind of time: what its trigger filters on
    derived: tuple[str, ...] = ()  # further columns, which `derive` fills in from the row and the one stored before
    derive: Callable[[Run, Mapping[str, Any], Mapping[str, Any] | None], Mapping[str, Any]] = lambda *_: {}


def _due(run: Run, row: Mapping[str, Any], before: Mapping[str, Any] | None) -> Mapping[str, int | None]:
    """The target time of a case: fixed, while it stays what it is and was opened when it was."""
    if before and (before["kind"], before["opened_at"]) == (row["kind"], row["opened_at"]):
        return {"due_at": before["due_at"]}
    due = cases.due_at(run.settings, row["kind"], from_micros(row["opened_at"]))
    return {"due_at": None if due is None else to_micros(due)}


@dataclass(frozen=True)
class _Record:
    external_id: str
    row_hash: bytes
    customer: str
    values: Mapping[str, Any]  # only columns that the file has, and whose cell was not refused
    attributes: Mapping[str, str]
    replaced: int  # earlier rows of the same id, which this one replaces


_CASES = _Kind(
    "cases",
    ("order_id", "kind", "category", "sku", "opened_at", "answered_at", "closed_at", "outcome", "note"),
    lambda row: {"case.opened": row["opened_at"], "case.closed": row["closed_at"]},
    {"case.opened": ("kind", "category"), "case.closed": ("kind", "category", "outcome")},
    ("due_at",),
    _due,
)
_EVENTS = _Kind("shop_events", ("name", "at"), lambda row: {f"event.{row['name']}": row["at"]})


def take_cases(run: Run, table: Table) -> None:
    """Import a table of cases. An order that nobody knows is left out of its case, and refused as a value."""
    time = times(run.settings.business.timezone, run.now)

    def readers(cells: Mapping[str, Sequence[str]]) -> Readers:
        return {
            "kind": one_of(CASE_KINDS), "category": word, "sku": plain, "opened_at": time, "answered_at": time,
            "closed_at": time, "outcome": one_of(OUTCOMES), "note": plain,
            "order_id": _order_reader(run, cells.get("order_id", ())),
        }  # fmt: skip

    _take(run, table, _CASES, readers, run.counts.cases)


def _order_reader(run: Run, names: Sequence[str]) -> Callable[[str], int | None]:
    query = "SELECT external_id, id FROM orders WHERE external_id = ANY(?)"
    with store.read(run.db) as connection:
        known = {row[0]: row[1] for row in rows(connection, query, sorted({name.strip() for name in names} - {""}))}

    def read(text: str) -> int | None:
        if text.strip() and text.strip() not in known:
            raise ValueError("is no order that has been imported")
        return known.get(text.strip())

    return read


def take_events(run: Run, table: Table) -> None:
    """Import a table of the shop's own events, whose names the settings declare."""
    time, declared = times(run.settings.business.timezone, run.now), run.settings.events

    def name(text: str) -> str | None:
        if text.strip() and text.strip() not in declared:
            allowed = f"use {', '.join(declared)}, or add it" if declared else "declare it"
            raise ValueError(f"is no event that the settings declare: {allowed} under `events` in outreach.yaml")
        return text.strip() or None

    _take(run, table, _EVENTS, lambda _: {"name": name, "at": time}, run.counts.events)


# --- reading --------------------------------------------------------------------------------------


def _take(
    run: Run, table: Table, kind: _Kind, readers: Callable[[Mapping[str, Sequence[str]]], Readers], counts: Counts
) -> None:
    start, done = seed(run, table), 0
    for batch in table.batches():
        done += len(batch.rows)
        refusals: list[Refusal] = list(batch.refusals)
        counts.read += len(batch.rows) + len(batch.refusals)
        counts.rejected += len(batch.refusals)
        records = _records(table, kind, start, readers, batch, refusals, counts) if batch.rows else []
        _keep(run, table, refusals)
        for chunk in in_chunks(records):
            _write(run, kind, chunk, frozenset(table.columns), counts)
        if run.progress:
            run.progress(table.name, done, batch.bytes_done, table.bytes_total)


def _records(
    table: Table,
    kind: _Kind,
    start: str,
    readers: Callable[[Mapping[str, Sequence[str]]], Readers],
    batch: Batch,
    refused: list[Refusal],
    counts: Counts,
) -> list[_Record]:
    refusals: dict[int, list[Refusal]] = {}
    cells = dict(zip(table.columns, zip(*batch.rows, strict=True), strict=True))
    ids, customers = (
        read_column(cells[name], key, name, batch.lines, refusals) for name in (KEYS[table.name], "customer_id")
    )
    read = {
        name: read_column(cells[name], reader, name, batch.lines, refusals)
        for name, reader in readers(cells).items()
        if name in cells
    }
    needed = REQUIRED[table.name]
    for name in needed[2:]:
        for n, cell in enumerate(cells[name]):
            if not cell.strip():
                refusals.setdefault(n, []).append(Refusal(batch.lines[n], name, cell, "is missing: every row needs it"))
    others = [name for name in table.columns if name and name not in (*needed, *kind.columns)]
    last: dict[str, _Record] = {}
    for n, row in enumerate(batch.rows):
        found = refusals.get(n, ())
        if any(refusal.column in needed for refusal in found):
            counts.rejected += 1
            continue
        unread = {refusal.column for refusal in found}
        record = _Record(
            ids[n],
            row_hash(start, row, found),
            customers[n],
            {name: values[n] for name, values in read.items() if name not in unread},
            attributes({name: cells[name][n] for name in others}),
            last[ids[n]].replaced + 1 if ids[n] in last else 0,
        )
        last[ids[n]] = record
    refused += [replace(refusal, customer=customers[n] or "") for n in sorted(refusals) for refusal in refusals[n]]
    return list(last.values())


# --- writing --------------------------------------------------------------------------------------


def _keep(run: Run, table: Table, refusals: Sequence[Refusal]) -> None:
    for some in in_chunks(refusals):
        with transaction(run) as connection:
            write_rejects(connection, run, table.file, some)
        list_rejects(run, table.file, some)


def _write(run: Run, kind: _Kind, records: Sequence[_Record], present: frozenset[str], counts: Counts) -> None:
    """One transaction: the records, and what is fresh."""
    customers = customer_ids(run, {record.customer for record in records})
    columns = ("id", "external_id", "customer_id", *kind.columns, *kind.derived, "attributes", "row_hash")
    with transaction(run) as connection:
        start = since(connection, run)
        store.lock(connection, Lock.FRESH)  # before any row: who opens a case changes rows under this lock
        stored = _stored(connection, kind, columns, [record.external_id for record in records])
        work = [r for r in records if r.external_id not in stored or stored[r.external_id]["row_hash"] != r.row_hash]
        new = [record.external_id for record in work if record.external_id not in stored]
        ids = dict(zip(new, new_ids(connection, kind.table, len(new)), strict=True))
        changes: list[Change] = []
        after: dict[str, dict[str, Any]] = {}
        for record in work:
            before = stored.get(record.external_id)
            row = _overlaid(record, before, kind, present, customers)
            row["id"] = before["id"] if before else ids[record.external_id]
            row.update(kind.derive(run, row, before))
            changes += _changes(kind, before, row, start)
            after[record.external_id] = row
        _save(connection, kind, columns, after, ids)
        write_fresh(connection, changes)
    counts.created += len(new)
    counts.updated += len(work) - len(new)
    counts.unchanged += len(records) - len(work)
    written = {record.external_id for record in work}
    for record in records:
        if record.external_id in written:
            counts.updated += record.replaced
        else:
            counts.unchanged += record.replaced


def _stored(connection: Connection, kind: _Kind, columns: Sequence[str], names: list[str]) -> dict[str, dict[str, Any]]:
    query = f"SELECT {', '.join(columns)} FROM {kind.table} WHERE external_id = ANY(?)"
    found = [dict(zip(columns, row, strict=True)) for row in rows(connection, query, names)]
    for row in found:
        row.update(attributes=from_json(row["attributes"]), row_hash=bytes(row["row_hash"]))
    return {row["external_id"]: row for row in found}


def _overlaid(
    record: _Record,
    before: Mapping[str, Any] | None,
    kind: _Kind,
    present: frozenset[str],
    customers: Mapping[str, int],
) -> dict[str, Any]:
    kept = {name: value for name, value in before["attributes"].items() if name not in present} if before else {}
    return {
        **{name: before[name] if before else None for name in kind.columns},
        **record.values,
        "external_id": record.external_id,
        "customer_id": customers[record.customer],
        "attributes": {**kept, **record.attributes},
        "row_hash": record.row_hash,
    }


def _changes(kind: _Kind, before: Mapping[str, Any] | None, after: Mapping[str, Any], start: int) -> list[Change]:
    """
    What changed of a record's times; for another customer, all of them are cleared and set again.

    Where what its trigger filters on has changed, a time that stays is named again: it may start a campaign now.
    """
    old = kind.times(before) if before else {}
    new = kind.times(after)
    found: list[Change] = []
    for name in dict.fromkeys((*old, *new)):
        was = old.get(name)
        if before and before["customer_id"] != after["customer_id"]:
            found += changed_times(name, after["id"], before["customer_id"], was, None, start)
            was = None
        again = before and any(before[column] != after[column] for column in kind.filters.get(name, ()))
        if again and was == new.get(name):
            was = None
        found += changed_times(name, after["id"], after["customer_id"], was, new.get(name), start)
    return found


def _save(
    connection: Connection,
    kind: _Kind,
    columns: Sequence[str],
    after: Mapping[str, Mapping[str, Any]],
    new: Mapping[str, int],
) -> None:
    values = {
        name: tuple(to_json(row[column]) if column == "attributes" else row[column] for column in columns)
        for name, row in after.items()
    }
    many(connection, insert_into(kind.table, columns), [values[name] for name in new])
    update = f"UPDATE {kind.table} SET {', '.join(f'{name} = ?' for name in columns[1:])} WHERE id = ?"
    many(connection, update, [(*row[1:], row[0]) for name, row in values.items() if name not in new])
