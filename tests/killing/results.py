"""
Table by table: whether an interrupted run left what an undisturbed one leaves.

Rows are compared by what they mean, not by their numbers: a row's own id is left out and a reference
becomes the name of what it leads to; so does the number of an import, of which each attempt is one. PostgreSQL gives no number of a rolled-back transaction again, so the
ids of the two runs differ rightly, and with them whatever is made of ids: the number in the key of an
occasion, and a message's `public_id`, which is the HMAC of that key. A claim's token is random: only
whether there is one counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlmodel import SQLModel

from tests.killing.checker import rows

LEFT_OUT = {
    "imports": "one row for every attempt, each with what that attempt did",
    "ticks": "what the last attempt did, who found less to do than an undisturbed one",
}
NAMES = {  # what a row of these is known by
    "customers": "external_id",
    "contacts": "address_hash",
    "orders": "external_id",
    "cases": "external_id",
    "shop_events": "external_id",
}
REFERENCES = {  # columns that lead to a row of another table
    "customer_id": "customers",
    "merged_into": "customers",
    "cursor_customer": "customers",
    "contact_id": "contacts",
    "email_id": "contacts",
    "phone_id": "contacts",
    "messenger_id": "contacts",
    "order_id": "orders",
    "last_order_id": "orders",
    "message_id": "messages",
    "enrolment_id": "enrolments",
}
RECORDS = {"order": "orders", "customer": "customers", "case": "cases"}  # by how an occasion's key begins
SHOWN = 3

Names = Mapping[str, Mapping[int, str]]  # by table and id


Contents = Mapping[str, Counter[str]]  # by table, its rows and how often each is there


def differences(one: Contents, other: Contents) -> list[str]:
    """What the second tells differently from the first, a line each; empty when they tell the same."""
    found: list[str] = []
    for table in one:
        for text, times in ((one[table] - other[table], "missing"), (other[table] - one[table], "too many")):
            lines = [f"{table}: {times}: {row}" for row in sorted(text.elements())]
            found += lines[:SHOWN] + ([f"{table}: … and {len(lines) - SHOWN} more"] if lines[SHOWN:] else [])
    return found


def contents(url: str) -> Contents:
    """Every table's rows of a database, by what they mean."""
    tables = {name: rows(url, f'SELECT * FROM "{name}"') for name in SQLModel.metadata.tables if name not in LEFT_OUT}
    names: dict[str, dict[int, str]] = {
        table: {row["id"]: row[column] for row in tables[table]} for table, column in NAMES.items()
    }
    for table in ("enrolments", "messages"):
        names[table] = {row["id"]: _key(row, names) for row in tables[table]}
    found = {}
    for name, listed in tables.items():
        meant = [_meant(name, row, tables, names) for row in listed]
        found[name] = Counter(set(meant) if name == "rejects" else meant)
    return found


def _key(row: Mapping[str, Any], names: Names) -> str:
    """What an enrolment or a message is known by."""
    step = row.get("step", "")
    return f"{row['campaign']}/{step}/{names['customers'][row['customer_id']]}/{_occasion(row['occasion'], names)}"


def _occasion(key: str, names: Names) -> str:
    event, _, number = key.rpartition(":")
    of = RECORDS.get(event.partition(".")[0], "shop_events")
    return f"{event}:{names[of].get(int(number), number)}" if number.isdigit() else key


def _meant(table: str, row: Mapping[str, Any], tables: Mapping[str, list[dict[str, Any]]], names: Names) -> str:
    told = {column: _value(table, column, value, row, names) for column, value in row.items()}
    for column in _unsaid(table):
        told.pop(column, None)
    if table == "campaign_states":  # the queue's numbers have gaps: how much of it is consumed is what counts
        told["fresh_id"] = sum(one["id"] <= row["fresh_id"] for one in tables["fresh"])
    return repr(sorted(told.items()))


def _unsaid(table: str) -> tuple[str, ...]:
    """A refused row is refused anew by every attempt that meets it: of which attempt it is says nothing."""
    return ("id", "public_id", *(("import_id",) if table == "rejects" else ()))


def _value(table: str, column: str, value: Any, row: Mapping[str, Any], names: Names) -> Any:
    if column in REFERENCES:
        return names[REFERENCES[column]].get(value, value)
    if column == "claim":
        return value is not None
    if (table, column) == ("suppressions", "source"):
        return re.sub(r"^import \d+$", "import", value)
    if column == "occasion":
        return _occasion(value, names)
    if column == "record_id" and value is not None:
        event = str(row["kind"] if table == "fresh" else row["occasion"])
        return names[RECORDS.get(event.partition(".")[0], "shop_events")].get(value, value)
    return value
