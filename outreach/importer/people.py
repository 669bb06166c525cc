"""
Customers: their contacts, consents, tags, dates and time zones, in one transaction a thousand.

A column that the file lacks leaves what is stored; an empty cell clears it. Of several rows with
one customer_id the last wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import Connection

from outreach import store, timing
from outreach.addresses import country_code, normal_email, normal_messenger, normal_phone
from outreach.importer import consents
from outreach.importer.cells import (
    answer,
    attributes,
    birthdays,
    date_of,
    key,
    locale,
    read_cell,
    read_column,
    tags,
    time_zone,
    times,
    word,
)
from outreach.importer.writing import (
    Change,
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
from outreach.sources import OPTIONAL, Batch, Refusal, Table
from outreach.store import in_chunks
from outreach.values import CONTACT_KIND

KINDS = ("email", "phone", "messenger")  # of contacts
_KNOWN = frozenset({"customer_id", *OPTIONAL["customers"]})
_PLAIN = (
    "first_name",
    "last_name",
    "locale",
    "country",
    "region",
    "city",
    "postal_code",
    "timezone",
    "birthday",
    "created_at",
)
_COLUMNS = (
    "id",
    "external_id",
    "email_id",
    "phone_id",
    "messenger_id",
    *_PLAIN,
    "zones",
    "tags",
    "attributes",
    "row_hash",
)
_INSERT = insert_into("customers", _COLUMNS)
_UPDATE = f"UPDATE customers SET {', '.join(f'{name} = ?' for name in _COLUMNS[1:])} WHERE id = ?"
_CUSTOMERS_MET = 500_000  # ids remembered during one import


@dataclass(frozen=True)
class Person:
    """One customer as the file has it; `values` and `addresses` hold only columns that it has, and cells that were read."""

    external_id: str
    row_hash: bytes
    values: Mapping[str, Any]
    addresses: Mapping[str, str | None]  # by kind, normalised; only kinds whose column the file has
    tags: Sequence[str] | None
    attributes: Mapping[str, str]
    answers: Mapping[str, bool]  # by channel, what the file says of consent
    consent_at: int | None
    consent_source: str
    columns: frozenset[str]  # of the file
    replaced: int = 0  # earlier rows of the same customer with other data


# --- ids ------------------------------------------------------------------------------------------


def customer_ids(run: Run, names: Iterable[str]) -> Mapping[str, int]:
    """
    Our ids of (at least) these customers by the shop's; one that nobody knows is created without addresses.

    For a customer merged into another, the other's id.
    """
    if len(run.customers) > _CUSTOMERS_MET:
        run.customers.clear()
    missing = sorted(set(names).difference(run.customers))
    for chunk in in_chunks(missing):
        with store.read(run.db) as connection:
            run.customers.update(_ids(connection, run, chunk))
        if unknown := [name for name in chunk if name not in run.customers]:
            with transaction(run) as connection:
                run.customers.update(_created(connection, run, unknown))
    return run.customers


def _ids(connection: Connection, run: Run, names: Sequence[str]) -> dict[str, int]:
    wanted = "SELECT external_id, coalesce(merged_into, id) FROM customers WHERE external_id = ANY(?)"
    found = {row[0]: row[1] for row in rows(connection, wanted, list(names))}
    return found | _erased(connection, run, [name for name in names if name not in found])


def _erased(connection: Connection, run: Run, names: Sequence[str]) -> dict[str, int]:
    """Our ids of customers who were erased, and whose id told who they were."""
    gone = {store.erased_name(run.db.secret, name): name for name in names if _may_tell(name)}
    wanted = "SELECT external_id, id FROM customers WHERE external_id = ANY(?)"
    return {gone[row[0]]: row[1] for row in rows(connection, wanted, list(gone))} if gone else {}


def _may_tell(name: str) -> bool:
    """Whether the id is, or ends in, an address: `customers.erase` replaces no other."""
    return "@" in name or sum(letter.isdigit() for letter in name) >= 8


def _created(connection: Connection, run: Run, names: Sequence[str]) -> dict[str, int]:
    found = _ids(connection, run, names)
    new = [name for name in names if name not in found]
    ids = new_ids(connection, "customers", len(new))
    statement = insert_into("customers", ("id", "external_id", "zones", "tags", "attributes", "row_hash"))
    many(connection, statement, [(number, name, "", "[]", "{}", b"") for number, name in zip(ids, new, strict=True)])
    return {**found, **dict(zip(new, ids, strict=True))}


# --- reading --------------------------------------------------------------------------------------


def take(run: Run, table: Table) -> None:
    """Import a table of customers."""
    business = run.settings.business
    read_time = times(business.timezone, run.now)
    readers: dict[str, Callable[[str], Any]] = {
        "first_name": word, "last_name": word, "region": word, "city": word, "postal_code": word, "locale": locale,
        "country": _country, "timezone": time_zone, "birthday": birthdays(run.now), "created_at": read_time,
        "email": lambda text: normal_email(text) if text.strip() else None,
        "messenger_id": lambda text: normal_messenger(text) if text.strip() else None,
        "tags": tags, "consent_at": read_time, "consent_source": word,
        **{f"{channel}_consent": answer for channel in CONTACT_KIND},
    }  # fmt: skip
    start, done = seed(run, table), 0
    for batch in table.batches():
        done += len(batch.rows)
        people, refusals = _people(run, table, start, readers, batch)
        for chunk in in_chunks(people):
            _write(run, table, chunk, refusals)
            refusals = []
        _keep(run, table, refusals)
        if run.progress:
            run.progress("customers", done, batch.bytes_done, table.bytes_total)


def _country(text: str) -> str | None:
    return country_code(text) if text.strip() else None


def _people(
    run: Run, table: Table, start: str, readers: Mapping[str, Callable[[str], Any]], batch: Batch
) -> tuple[list[Person], list[Refusal]]:
    counts = run.counts.customers
    counts.read += len(batch.rows) + len(batch.refusals)
    counts.rejected += len(batch.refusals)
    if not batch.rows:
        return [], list(batch.refusals)
    refusals: dict[int, list[Refusal]] = {}
    cells = dict(zip(table.columns, zip(*batch.rows, strict=True), strict=True))
    read = {
        name: read_column(cells[name], reader, name, batch.lines, refusals)
        for name, reader in readers.items()
        if name in cells
    }
    ids = read_column(cells["customer_id"], key, "customer_id", batch.lines, refusals)
    phones = _phones(run, cells, read, ids, batch.lines, refusals)
    people = [
        _person(
            start, table, batch.rows[n], {name: values[n] for name, values in read.items()}, ids[n], phones, n, refusals
        )
        for n in range(len(ids))
        if ids[n] is not None
    ]
    counts.rejected += len(ids) - len(people)
    return _last_of_each(run, people, batch, ids, refusals), [
        *batch.refusals,
        *(replace(refusal, customer=ids[n] or "") for n in sorted(refusals) for refusal in refusals[n]),
    ]


def _phones(
    run: Run,
    cells: Mapping[str, Sequence[str]],
    read: Mapping[str, Sequence[Any]],
    ids: Sequence[str | None],
    lines: Sequence[int],
    refusals: dict[int, list[Refusal]],
) -> list[str | None] | None:
    """Each row's number, read as one of its own country's, else of the one that is stored, else of the business's."""
    if "phone" not in cells:
        return None
    countries = read.get("country") or _stored_countries(run, ids)
    own = run.settings.business.country
    numbers = []
    for n, (cell, country) in enumerate(zip(cells["phone"], countries, strict=True)):
        reader = partial(_phone, country or own)
        numbers.append(read_cell(cell, reader, "phone", lines[n], refusals, n))
    return numbers


def _stored_countries(run: Run, ids: Sequence[str | None]) -> list[str | None]:
    wanted = "SELECT external_id, country FROM customers WHERE external_id = ANY(?) AND country IS NOT NULL"
    known: dict[str, str] = {}
    with store.read(run.db) as connection:
        for some in in_chunks([name for name in ids if name is not None]):
            known.update((row[0], row[1]) for row in rows(connection, wanted, list(some)))
    return [None if name is None else known.get(name) for name in ids]


def _phone(country: str | None, text: str) -> str | None:
    return normal_phone(text, country) if text.strip() else None


def _person(
    start: str,
    table: Table,
    row: Sequence[str],
    read: Mapping[str, Any],
    external_id: str,
    phones: Sequence[str | None] | None,
    n: int,
    refusals: Mapping[int, list[Refusal]],
) -> Person:
    unread = {refusal.column for refusal in refusals.get(n, ())}  # what is stored stays
    read = {name: value for name, value in read.items() if name not in unread}
    addresses = {"email": read["email"]} if "email" in read else {}
    if "messenger_id" in read:
        addresses["messenger"] = read["messenger_id"]
    if phones is not None and "phone" not in unread:
        addresses["phone"] = phones[n]
    answers = {channel: read.get(f"{channel}_consent") for channel in CONTACT_KIND}
    if "consent_at" in unread:  # nobody knows whether they said no since
        answers = {channel: said for channel, said in answers.items() if not said}
    return Person(
        external_id,
        row_hash(start, row, refusals.get(n, ())),
        {name: read[name] for name in _PLAIN if name in read},
        addresses,
        (read["tags"] or []) if "tags" in read else None,
        attributes({name: cell for name, cell in zip(table.columns, row, strict=True) if name and name not in _KNOWN}),
        {channel: said for channel, said in answers.items() if said is not None},
        read.get("consent_at"),
        read.get("consent_source") or "",
        frozenset(table.columns),
    )


def _last_of_each(
    run: Run, people: Sequence[Person], batch: Batch, ids: Sequence[str | None], refusals: dict[int, list[Refusal]]
) -> list[Person]:
    """The last row of each customer; an earlier one with other data is noted, and counted like the one that replaced it."""
    last = {person.external_id: person for person in people}
    if len(last) == len(people):
        return list(people)
    places = {name: n for n, name in enumerate(ids)}
    numbers = [n for n, name in enumerate(ids) if name is not None]
    for n, person in zip(numbers, people, strict=True):
        winner = last[person.external_id]
        if n == places[person.external_id]:
            continue
        if person.row_hash == winner.row_hash:
            run.counts.customers.unchanged += 1
            continue
        reason = (
            f"stands again with other data on line {batch.lines[places[person.external_id]]}: the last row is taken"
        )
        refusals.setdefault(n, []).append(Refusal(batch.lines[n], "customer_id", person.external_id, reason))
        last[person.external_id] = replace(winner, replaced=winner.replaced + 1)
    return list(last.values())


# --- writing --------------------------------------------------------------------------------------


def _keep(run: Run, table: Table, refusals: Sequence[Refusal]) -> None:
    for some in in_chunks(refusals):
        with transaction(run) as connection:
            write_rejects(connection, run, table.file, some)
        list_rejects(run, table.file, some)


def _write(run: Run, table: Table, people: Sequence[Person], refusals: Sequence[Refusal]) -> None:
    """One transaction: customers and all that hangs on them."""
    with transaction(run) as connection:
        start = since(connection, run)
        stored = _stored(connection, [person.external_id for person in people])
        gone = _erased(connection, run, [one.external_id for one in people if one.external_id not in stored])
        work = [
            person
            for person in people
            if person.external_id not in gone and _is_news(person, stored.get(person.external_id))
        ]
        new = [person for person in work if person.external_id not in stored]
        contacts = _contacts(connection, run, work)
        ids = dict(zip((p.external_id for p in new), new_ids(connection, "customers", len(new)), strict=True))
        records = {
            person.external_id: _record(person, stored.get(person.external_id), ids, contacts) for person in work
        }
        _tag(connection, work, records)
        _save(connection, records, ids)
        _consents(connection, run, work, records, stored)
        changes = _date(connection, run, records)
        for name, record in records.items():
            old = stored[name]["created_at"] if name in stored else None
            changes += changed_times("customer.created", record["id"], record["id"], old, record["created_at"], start)
        write_fresh(connection, changes)
        write_rejects(connection, run, table.file, refusals)
    list_rejects(run, table.file, refusals)
    _count(run, people, work, new)


def _is_news(person: Person, stored: Mapping[str, Any] | None) -> bool:
    """Whether the row says anything new of somebody who was not erased."""
    if stored is None:
        return True
    is_erased = stored["merged_into"] == stored["id"]
    return not is_erased and bool(stored["row_hash"] != person.row_hash)


def _count(run: Run, people: Sequence[Person], work: Sequence[Person], new: Sequence[Person]) -> None:
    counts = run.counts.customers
    counts.created += len(new)
    counts.updated += len(work) - len(new)
    counts.unchanged += len(people) - len(work)
    written = {person.external_id for person in work}
    for person in people:
        if person.external_id in written:
            counts.updated += person.replaced
        else:
            counts.unchanged += person.replaced


def _stored(connection: Connection, names: list[str]) -> dict[str, dict[str, Any]]:
    """The customers as they are, with their addresses."""
    columns = ", ".join(f"c.{name}" for name in _COLUMNS)
    found = rows(
        connection,
        f"SELECT {columns}, e.address, p.address, m.address, c.merged_into FROM customers c LEFT JOIN contacts e ON e.id = c.email_id"
        " LEFT JOIN contacts p ON p.id = c.phone_id LEFT JOIN contacts m ON m.id = c.messenger_id"
        " WHERE c.external_id = ANY(?)",
        names,
    )
    stored = [dict(zip((*_COLUMNS, *KINDS, "merged_into"), row, strict=True)) for row in found]
    for row in stored:
        row.update(
            tags=from_json(row["tags"]), attributes=from_json(row["attributes"]), row_hash=bytes(row["row_hash"])
        )
    return {row["external_id"]: row for row in stored}


def _contacts(connection: Connection, run: Run, people: Sequence[Person]) -> dict[tuple[str, str], int]:
    """The ids of all addresses the people have, by kind and address; new ones are added."""
    wanted = {
        (kind, address): store.address_hash(run.db.secret, kind, address)
        for person in people
        for kind, address in person.addresses.items()
        if address
    }
    query = "SELECT kind, address_hash, id FROM contacts WHERE address_hash = ANY(?)"
    known = {(row[0], row[1]): row[2] for row in rows(connection, query, list(wanted.values()))} if wanted else {}
    missing = [(kind, address, hashed) for (kind, address), hashed in wanted.items() if (kind, hashed) not in known]
    ids = new_ids(connection, "contacts", len(missing))
    many(
        connection,
        insert_into("contacts", ("id", "kind", "address", "address_hash")),
        [(number, *contact) for number, contact in zip(ids, missing, strict=True)],
    )
    known |= {(kind, hashed): number for number, (kind, _, hashed) in zip(ids, missing, strict=True)}
    return {(kind, address): known[kind, hashed] for (kind, address), hashed in wanted.items()}


def _record(
    person: Person, stored: Mapping[str, Any] | None, ids: Mapping[str, int], contacts: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """The whole row to store: what is stored, overlaid with what the file has."""
    record: dict[str, Any] = dict(stored) if stored else dict.fromkeys((*_COLUMNS, *KINDS))
    record.update(person.values)
    for kind, address in person.addresses.items():
        record[kind] = address
        record[f"{kind}_id"] = contacts[kind, address] if address else None
    kept = {name: value for name, value in (record["attributes"] or {}).items() if name not in person.columns}
    record.update(
        id=ids.get(person.external_id, record["id"]),
        external_id=person.external_id,
        row_hash=person.row_hash,
        attributes={**kept, **person.attributes},
        tags=record["tags"] or [],
    )
    zones = _zones(record["timezone"], record["country"], record["region"], record["postal_code"], record["phone"])
    return {**record, "zones": zones}


@lru_cache(maxsize=16384)
def _zones(
    zone: str | None, country: str | None, region: str | None, postal_code: str | None, phone: str | None
) -> str:
    found = timing.candidate_zones(timezone=zone, country=country, region=region, postal_code=postal_code, phone=phone)
    return " ".join(found)


def _save(connection: Connection, records: Mapping[str, dict[str, Any]], new: Mapping[str, int]) -> None:
    values = {
        name: tuple(
            to_json(record[column]) if column in ("tags", "attributes") else record[column] for column in _COLUMNS
        )
        for name, record in records.items()
    }
    many(connection, _INSERT, [values[name] for name in new])
    many(connection, _UPDATE, [(*row[1:], row[0]) for name, row in values.items() if name not in new])


def _tag(connection: Connection, people: Sequence[Person], records: Mapping[str, dict[str, Any]]) -> None:
    """Make each customer's tags those of the file and those that campaigns put on, which no import takes off."""
    wanted = {records[p.external_id]["id"]: (list(p.tags), p.external_id) for p in people if p.tags is not None}
    query = "SELECT customer_id, tag, by_campaign FROM customer_tags WHERE customer_id = ANY(?)"
    stored = {(row[0], row[1]): bool(row[2]) for row in rows(connection, query, list(wanted))}
    gone = [(c, tag) for (c, tag), by_campaign in stored.items() if not by_campaign and tag not in wanted[c][0]]
    many(connection, "DELETE FROM customer_tags WHERE customer_id = ? AND tag = ?", gone)
    missing = [(c, tag, False) for c, (listed, _) in wanted.items() for tag in listed if (c, tag) not in stored]
    many(connection, insert_into("customer_tags", ("customer_id", "tag", "by_campaign")), missing)
    for customer, (listed, name) in wanted.items():
        own = sorted(
            tag for (c, tag), by_campaign in stored.items() if c == customer and by_campaign and tag not in listed
        )
        records[name]["tags"] = [*listed, *own]


def _date(connection: Connection, run: Run, records: Mapping[str, dict[str, Any]]) -> list[Change]:
    """Keep the customers' dates beside them; a customer whose dates changed is fresh, as of now."""
    wanted = {
        (record["id"], name): day
        for record in records.values()
        for name, value in {**record["attributes"], "birthday": record["birthday"]}.items()
        if (day := date_of(value))
    }
    query = "SELECT customer_id, name, on_date FROM customer_dates WHERE customer_id = ANY(?)"
    ids = [record["id"] for record in records.values()]
    stored = {(row[0], row[1]): row[2] for row in rows(connection, query, ids)}
    gone = [place for place, value in stored.items() if wanted.get(place) != value]
    set_ = [(*place, value, _month_day(value)) for place, value in wanted.items() if stored.get(place) != value]
    many(connection, "DELETE FROM customer_dates WHERE customer_id = ? AND name = ?", gone)
    many(connection, insert_into("customer_dates", ("customer_id", "name", "on_date", "month_day")), set_)
    changed = sorted({place[0] for place in gone} | {row[0] for row in set_})
    return [("customer.dates", customer, customer, run.micros) for customer in changed]


def _month_day(day: str) -> int:
    return int(day[5:7]) * 100 + int(day[8:10])


def _consents(
    connection: Connection,
    run: Run,
    people: Sequence[Person],
    records: Mapping[str, dict[str, Any]],
    stored: Mapping[str, Mapping[str, Any]],
) -> None:
    said = []
    moved: list[consents.Moved] = []
    for person in people:
        record = records[person.external_id]
        if before := stored.get(person.external_id):
            places = [(kind, before[f"{kind}_id"], record[f"{kind}_id"]) for kind in KINDS]
            moved += [consents.Moved(record["id"], kind, old, new) for kind, old, new in places if new and new != old]
        for channel, granted in person.answers.items():
            if contact := record[f"{CONTACT_KIND[channel]}_id"]:
                first = record["created_at"] if record["created_at"] is not None else run.micros
                at, source, known = person.consent_at, person.consent_source, record["id"] if before else None
                said.append(consents.Said(contact, channel, granted, at, first, source, known))
    consents.record(connection, run, said, moved)
