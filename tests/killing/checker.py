"""
The independent checker: a provider's ledger against the database, in SQL of its own.

It knows nothing of the product but the names of its tables: it imports none of its code.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

NO_SEND = frozenset({"failed", "held", "skipped", "expired", "cancelled"})  # each with its reason
WENT = frozenset({"sent", "unknown"})
SHOWN = 5  # of the same complaint
_MESSAGES = """
    SELECT m.public_id, m.status, m.reason, m.provider_id, m.claim, c.external_id AS customer, k.kind AS content
    FROM messages m LEFT JOIN customers c ON c.id = m.customer_id
    LEFT JOIN (SELECT message_id, 'kept' AS kind FROM contents) k ON k.message_id = m.id
"""
_STRAY = "SELECT count(*) AS many FROM contents WHERE message_id NOT IN (SELECT id FROM messages)"


class Acceptance(NamedTuple):
    """One line of a provider's ledger."""

    public_id: str  # our own id of the message, as it reached the provider
    provider_id: str  # the provider's
    address: str


@dataclass(frozen=True)
class Found:
    """What a check came to; `wrong` is empty when everything is as it must be."""

    wrong: Sequence[str]
    messages: int
    accepted: int
    duplicates: int  # acceptances beyond the first of a message, or of a person
    unaccounted: int  # messages of which the two sides do not tell the same, or nothing at all
    unknown: int
    unknown_by_claim: Mapping[str, int]

    @property
    def most_unknown(self) -> int:
        """Of one claim: the chunk that one process had in its hands when it died or was suspended."""
        return max(self.unknown_by_claim.values(), default=0)


def rows(url: str, query: str) -> list[dict[str, Any]]:
    """The rows of a query, on SQLite or PostgreSQL, by column."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as file:
            cursor = file.execute(query)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


def check(url: str, ledger: Collection[Acceptance], expected: Mapping[str, str]) -> Found:
    """
    Compare a provider's ledger with the database, when nothing is on its way any more.

    `expected` has each customer who was to get exactly one message, with the address it goes to.
    """
    listed = rows(url, _MESSAGES)
    messages = {row["public_id"]: row for row in listed}
    ids, people = Counter(one.public_id for one in ledger), Counter(one.address for one in ledger)
    doubled = {i for i, times in ids.items() if times > 1}
    people_doubled = {address for address, times in people.items() if times > 1}
    complaints = [
        *((i, f"was accepted {ids[i]} times") for i in sorted(doubled)),
        *((a, f"was reached {people[a]} times") for a in sorted(people_doubled)),
    ]
    unaccounted = list(_unaccounted(messages, ledger, expected))
    if len(listed) > len(messages):
        unaccounted.append(("messages", f"{len(listed) - len(messages)} have the public id of another"))
    unknown = [row for row in listed if row["status"] == "unknown"]
    if stray := rows(url, _STRAY)[0]["many"]:
        unaccounted.append(("contents", f"{stray} of them belong to no message"))
    return Found(
        wrong=list(_shown([*complaints, *unaccounted])),
        messages=len(listed),
        accepted=len(ledger),
        duplicates=max(sum(ids.values()) - len(ids), sum(people.values()) - len(people)),
        unaccounted=len({who for who, _ in unaccounted}),
        unknown=len(unknown),
        unknown_by_claim=Counter(str(row["claim"]) for row in unknown if row["claim"] is not None),
    )


def _unaccounted(
    messages: Mapping[str, Mapping[str, Any]], ledger: Collection[Acceptance], expected: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Who or which message is not accounted for, and why; the same one perhaps several times."""
    of_customer = Counter(row["customer"] for row in messages.values())
    for customer in sorted(expected.keys() | of_customer.keys(), key=str):
        if of_customer[customer] != (customer in expected):
            yield str(customer), f"has {of_customer[customer]} messages instead of {int(customer in expected)}"
    accepted: dict[str, list[Acceptance]] = {}
    for one in ledger:
        accepted.setdefault(one.public_id, []).append(one)
        row = messages.get(one.public_id)
        if row is None:
            yield one.public_id, "was accepted, and the database knows nothing of it"
        elif row["status"] not in WENT:
            yield one.public_id, f"was accepted, and is {row['status']} in the database"
        elif expected.get(row["customer"]) != one.address:
            yield one.public_id, "went to somebody else's address"
    for i, row in messages.items():
        yield from ((i, why) for why in _wrong(row, accepted.get(i, [])))
    by_provider_id = Counter(row["provider_id"] for row in messages.values() if row["provider_id"])
    for provider_id, times in by_provider_id.items():
        if times > 1:
            yield provider_id, f"stands for {times} messages in the database"


def _wrong(row: Mapping[str, Any], accepted: Sequence[Acceptance]) -> Iterator[str]:
    """What is wrong with one message by itself, and with its acceptances."""
    status = row["status"]
    if status not in WENT | NO_SEND:
        yield f"is {status}, which is no end"
    if status in NO_SEND and not row["reason"]:
        yield f"is {status} without a reason"
    if status == "sent" and not accepted:
        yield "is sent, and its provider never accepted it"
    if status == "sent" and accepted and not any(_same(row["provider_id"], one.provider_id) for one in accepted):
        yield "is sent under an id that its provider never gave it"
    if (status in WENT) != (row["content"] is not None):
        yield f"is {status} and has {'no' if row['content'] is None else 'a'} content"


def _same(kept: str | None, given: str) -> bool:
    """SendGrid's id of a request stands before the place of a message in it."""
    return kept is not None and (kept == given or kept.startswith(f"{given}."))


def _shown(complaints: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line each, the first few of every kind."""
    kinds: Counter[str] = Counter()
    for who, why in complaints:
        kinds[why] += 1
        if kinds[why] <= SHOWN:
            yield f"{who} {why}"
    yield from (f"… and {times - SHOWN} more {why}" for why, times in kinds.items() if times > SHOWN)
