"""
The shop's own events as it posts them, one by one or some at once: written where a file's events are.

Unlike a file's, their fields may be numbers, lists and objects; and a request with anything wrong in
it writes nothing, since whoever posts it can mend it and post it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from outreach import coupons, store
from outreach.coupons import Use
from outreach.importer.cells import Months, Reader, key, times
from outreach.importer.people import customer_ids
from outreach.importer.writing import (
    Change,
    ImportCounts,
    Run,
    changed_times,
    digest,
    from_json,
    insert_into,
    many,
    new_ids,
    rows,
    settle,
    since,
    to_json,
    write_fresh,
)
from outreach.models import from_micros
from outreach.settings import Settings
from outreach.sources import REQUIRED
from outreach.store import Database, Lock
from outreach.yamlfile import did_you_mean

MOST = 1_000  # events in one request: one transaction
REDEEMED = "coupon.redeemed"  # needs no declaring; its fields are `code` and, if there is one, `order`
DEEPEST = 20  # lists and objects within each other
Row = tuple[Any, ...]  # of _COLUMNS
_COLUMNS = ("id", "external_id", "customer_id", "name", "at", "attributes", "row_hash")


@dataclass(frozen=True)
class Posted:
    """One event of the shop's own."""

    event_id: str
    customer_id: str  # the shop's
    name: str
    at: int  # microseconds since 1970 UTC
    fields: Mapping[str, Any]


@dataclass
class PostedCounts:
    """What became of the events of one request."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def as_json(self) -> dict[str, int]:
        """The same as plain data."""
        return asdict(self)


def read_events(raw: bytes, settings: Settings, now: datetime) -> list[Posted]:
    """
    The events of a request's body: one object, or a list of them. Of several with one id the last stands.

    Raises:
        ValueError: what is wrong with which of them, and what is allowed; it never says a value.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is no JSON in UTF-8") from error
    listed = found if isinstance(found, list) else [found]
    if not 0 < len(listed) <= MOST:
        raise ValueError(f"send an event, or a list of 1 to {MOST:,}")
    time = times(settings.business.timezone, now)
    posted: dict[str, Posted] = {}
    for place, one in enumerate(listed):
        try:
            event = _event(one, settings, time)
        except ValueError as error:
            raise ValueError(f"event {place + 1}: {error}" if len(listed) > 1 else str(error)) from error
        posted[event.event_id] = event
    return list(posted.values())


def _event(one: Any, settings: Settings, time: Reader) -> Posted:
    if not isinstance(one, dict):
        raise ValueError("it is no JSON object")
    for text in _texts(one):
        if not _can_be_stored(text):
            raise ValueError("a text holds a character that cannot be stored (U+0000, or half of a pair)")
    event_id, customer, name, at = (_text(one, column) for column in REQUIRED["events"])
    if name == REDEEMED:
        _check_redeemed(one)
    elif name not in settings.events:
        near = did_you_mean(name, settings.events)
        text = "`name` is no event that the settings declare under `events`"
        raise ValueError(f"{text} ({near})" if near else text)
    read = {column: _read(key, column, text) for column, text in (("event_id", event_id), ("customer_id", customer))}
    fields = {field: value for field, value in one.items() if field not in REQUIRED["events"]}
    micros = _read(time, "at", at)
    if micros is None:
        raise ValueError("`at` is missing: every event needs it")
    return Posted(read["event_id"], read["customer_id"], name, micros, fields)


def _text(one: Mapping[str, Any], column: str) -> str:
    value = one.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # ids are numbers in many a shop
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{column}` is missing or no text: every event needs {', '.join(REQUIRED['events'])}")
    return value.strip()


def _read(reader: Reader, column: str, text: str) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise ValueError(f"`{column}` {error}") from error


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in it, names included; ValueError for what JSON has no word for."""
    if depth > DEEPEST:
        raise ValueError(f"lists and objects are more than {DEEPEST} deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError("a number is not finite")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, depth + 1)


def _can_be_stored(text: str) -> bool:
    """PostgreSQL's texts hold no U+0000, and UTF-8 cannot write half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def post_events(db: Database, settings: Settings, now: datetime, events: Sequence[Posted]) -> PostedCounts:
    """
    Write the events in one transaction, by the shop's ids: the same ones again change nothing.

    Each new or changed time becomes `fresh`, as an import would make it. A customer that nobody knows
    is created without addresses.

    Raises:
        DatabaseError: nothing of them was written; post them again.
    """
    run = Run(db, settings, now, 0, ImportCounts(), Months(settings.business.timezone))
    try:
        customers = customer_ids(run, {event.customer_id for event in events})
        with store.write(db) as connection:
            store.lock(connection, Lock.IMPORT)
            stored = _stored(connection, [event.event_id for event in events])
            work = [event for event in events if not _is_known(event, stored)]
            new = [event.event_id for event in work if event.event_id not in stored]
            ids = dict(zip(new, new_ids(connection, "shop_events", len(new)), strict=True))
            after = [_row(event, stored.get(event.event_id), ids, customers) for event in work]
            _save(connection, after, ids)
            _redeem(connection, run, stored, after)
            start = since(connection, run)
            write_fresh(connection, [change for row in after for change in _changes(stored.get(row[1]), row, start)])
    finally:
        settle(db)
    return PostedCounts(len(new), len(work) - len(new), len(events) - len(work))


def _stored(connection: Connection, names: list[str]) -> dict[str, Row]:
    query = f"SELECT {', '.join(_COLUMNS)} FROM shop_events WHERE external_id = ANY(?)"
    return {row[1]: tuple(row) for row in rows(connection, query, names)}


def _is_known(event: Posted, stored: Mapping[str, Row]) -> bool:
    before = stored.get(event.event_id)
    return before is not None and bytes(before[6]) == _hash(event)


def _row(event: Posted, before: Row | None, ids: Mapping[str, int], customers: Mapping[str, int]) -> Row:
    """The event as it is stored; fields that it has no more keep their values, as after an import."""
    kept = from_json(before[5]) if before is not None else {}
    number = before[0] if before is not None else ids[event.event_id]
    values = (customers[event.customer_id], event.name, event.at, to_json({**kept, **event.fields}), _hash(event))
    return (number, event.event_id, *values)


def _save(connection: Connection, after: Sequence[Row], new: Mapping[str, int]) -> None:
    many(connection, insert_into("shop_events", _COLUMNS), [row for row in after if row[1] in new])
    update = f"UPDATE shop_events SET {', '.join(f'{name} = ?' for name in _COLUMNS[1:])} WHERE id = ?"
    many(connection, update, [(*row[1:], row[0]) for row in after if row[1] not in new])


def _check_redeemed(one: Mapping[str, Any]) -> None:
    """A coupon that was redeemed: which, and by which order if there is one."""
    code, order = one.get("code"), one.get("order")
    if not isinstance(code, str) or not code.strip():
        raise ValueError(f"`code` is missing: an event {REDEEMED} names the coupon's code, as text")
    if order is not None and (isinstance(order, bool) or not isinstance(order, str | int) or not str(order).strip()):
        raise ValueError("`order` is the shop's own id of the order, as text or a number")


def _redeem(connection: Connection, run: Run, stored: Mapping[str, Row], after: Sequence[Row]) -> None:
    """What these events say was redeemed, instead of what they said before."""
    uses = [_use(row) for row in after if row[3] == REDEEMED]
    before = [stored[row[1]] for row in after if row[1] in stored]
    if gone := {_use(row).key for row in before if row[3] == REDEEMED} - {use.key for use in uses}:
        coupons.take_back(connection, run.settings, run.now, gone)
    if uses:
        coupons.record(connection, run.settings, run.now, uses)


def _use(row: Row) -> Use:
    fields = from_json(row[5])
    code = fields["code"]
    order = str(fields["order"]).strip() if fields.get("order") is not None else None
    key = coupons.order_key(order, code) if order is not None else f"event:{row[1]}"
    return Use(key, code, from_micros(row[4]), "event", row[2], order)


def _hash(event: Posted) -> bytes:
    parts = [event.customer_id, event.name, str(event.at), json.dumps(event.fields, sort_keys=True)]
    return digest("\x1f".join(("posted", *parts)))


def _changes(before: Row | None, after: Row, start: int) -> list[Change]:
    """The time that was set or changed; what hung on another customer or name is cleared there."""
    number, _, customer, name, at, *_ = after
    was = before[4] if before is not None else None
    if before is None or (before[2], before[3]) == (customer, name):
        return changed_times(f"event.{name}", number, customer, was, at, start)
    return [
        *changed_times(f"event.{before[3]}", number, before[2], was, None, start),
        *changed_times(f"event.{name}", number, customer, None, at, start),
    ]
