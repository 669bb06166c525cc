"""Receiving: the stage that makes of each kept event what there is: facts, replies, addresses where nobody is."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from outreach import store
from outreach.inbox import matching, opting, words
from outreach.inbox.accepting import SILENCING, contacts_of
from outreach.models import Inbox, table
from outreach.settings import Settings
from outreach.store import Database

AT_ONCE = 500  # events a transaction

_inbox = table(Inbox)


@dataclass(frozen=True)
class ReceiveCounts:
    """What the stage made of the events that waited."""

    handled: int = 0
    facts: int = 0  # about messages of ours
    replies: int = 0
    strangers: int = 0  # replies of nobody known here
    unmatched: int = 0  # facts about messages that are not ours

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


@dataclass
class _Made:
    """What one batch comes to."""

    events: list[dict[str, Any]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    unreachable: list[opting.Unreachable] = field(default_factory=list)
    handled: list[dict[str, Any]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)


def receive(
    db: Database,
    settings: Settings,  # noqa: ARG001  as every stage
    now: datetime,
    *,
    limit: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> ReceiveCounts:
    """
    Make of every event kept and not handled what there is, at most `limit` of them, oldest first.

    Any number of processes may do so at once; each event is handled once. `stop` is asked before each
    transaction. Statuses of messages are not touched: what is in doubt is settled by `reconcile`.

    Raises:
        DatabaseError: what was not handled is taken up by the next tick.
    """
    tally: Counter[str] = Counter()
    started = time.monotonic()
    while not (stop and stop()):
        size = AT_ONCE if limit is None else min(AT_ONCE, limit - tally["handled"])
        done = _batch(db, now, size) if size > 0 else Counter()
        tally.update(done)
        if done["handled"] < size or size <= 0:
            break
    counts = ReceiveCounts(**tally)
    with store.write(db) as connection:
        finished = now + timedelta(seconds=time.monotonic() - started)
        store.record_tick(connection, "receive", now, finished, counts.as_json())
    return counts


_WAITING = (
    select(_inbox)
    .where(text("handled_at IS NULL"))  # a literal: only then do both databases use the partial index
    .order_by(_inbox.c.id)
    .with_for_update(skip_locked=True)
)


def _batch(db: Database, now: datetime, size: int) -> Counter[str]:
    with store.read(db) as connection:  # a tick that finds nothing takes no lock
        if connection.execute(select(_inbox.c.id).where(text("handled_at IS NULL")).limit(1)).first() is None:
            return Counter()
    with store.write(db) as connection:
        rows = connection.execute(_WAITING.limit(size)).all()
        made = _Made(tally=Counter({"handled": len(rows)}))
        written = [row for row in rows if is_written(row)]
        _read_replies(connection, db.secret, written, made)
        _read_facts(connection, [row for row in rows if not is_written(row)], made)
        opting.unreachable(connection, db.secret, made.unreachable)
        _write(connection, made, now)
    return made.tally


def is_written(row: Any) -> bool:
    """Whether a person wrote it, rather than a provider reported it."""
    return row.kind == "reply" or (row.kind == "opted_out" and bool(row.text))


# --- what people wrote -------------------------------------------------------------------------------


def _read_replies(connection: Connection, secret: bytes, rows: Sequence[Any], made: _Made) -> None:
    if not rows:
        return
    whose = contacts_of(connection, secret, rows)
    customers, _ = matching.people(connection, {i for ids in whose.values() for i in ids})
    named = matching.named(connection, rows)
    for row in rows:
        contacts = whose[row.id]
        theirs = sorted({customer for i in contacts for customer in customers.get(i, ())})
        _read_reply(connection, row, contacts, theirs, named.get(row.id), made)


def _read_reply(
    connection: Connection, row: Any, contacts: Sequence[int], theirs: Sequence[int], named: Any, made: _Made
) -> None:
    message = named
    if message is None and contacts:
        message = matching.latest(connection, contacts, row.channel, row.at)
    customer = _whose(message, theirs)
    said = words.OPT_OUT if row.kind in SILENCING else words.read(row.text, row.code)
    detail = {"channel": row.channel} | ({"provider_id": message.provider_id} if named and named.provider_id else {})
    for one in sorted({*theirs, *([customer] if customer is not None else [])}):
        about = message if message is not None and message.customer_id == one else None
        made.events.append(_event(row, "replied", one, about, detail, first=one == customer))
        if said == words.OPT_OUT:
            made.events.append(_event(row, "opted_out", one, about, detail, first=False))
    if contacts:
        order, case = matching.subject(message) if message is not None else (None, None)
        made.replies.append(
            {
                "event_id": row.event_id,
                "channel": row.channel,
                "contact_id": contacts[0],
                "customer_id": customer,
                "message_id": message.id if message is not None else None,
                "order_id": order,
                "case_id": case,
                "text": row.text,
                "at": store.micros(row.at),
                "intents": json.dumps([said] if said else []),
            }
        )
        made.tally["replies"] += 1
        made.tally["strangers"] += customer is None
    made.handled.append(_handled(row, contacts, message))


def _whose(message: Any, theirs: Sequence[int]) -> int | None:
    """The customer that a reply is kept under: whom the message went to, else the first who has the address."""
    if message is not None and (message.customer_id in theirs or not theirs):
        return int(message.customer_id)
    return theirs[0] if theirs else None


# --- what providers reported -------------------------------------------------------------------------


def _read_facts(connection: Connection, rows: Sequence[Any], made: _Made) -> None:
    if not rows:
        return
    named = matching.named(connection, rows)
    for row in rows:
        message = named.get(row.id)
        if message is not None:
            detail = {"channel": message.channel or row.channel, "provider_id": row.provider_id}
            more = {"code": row.code, "detail": row.detail}
            detail |= {name: value for name, value in more.items() if value}
            made.events.append(_event(row, row.kind, message.customer_id, message, detail, first=True))
        if row.kind == "bounced" and (place := matching.place(row.channel, row.address or "")) is not None:
            source = f"{row.channel} {row.code or row.detail}".strip()
            made.unreachable.append(opting.Unreachable(place, row.channel, row.at, source))
        made.tally["facts" if message is not None else "unmatched"] += 1
        own = [message.contact_id] if message is not None and message.contact_id is not None else []
        made.handled.append(_handled(row, own, message))


# --- writing -----------------------------------------------------------------------------------------


def _event(row: Any, kind: str, customer: int, message: Any, detail: dict[str, Any], *, first: bool) -> dict[str, Any]:
    """A fact's row; where one event makes several, each further one's id says of what and of whom it is."""
    return {
        "event": row.event_id if first else f"{row.event_id}:{kind}:{customer}",
        "message": message.id if message is not None else None,
        "customer": customer,
        "kind": kind,
        "at": store.micros(row.at),
        "detail": json.dumps(detail),
    }


def _handled(row: Any, contacts: Iterable[int], message: Any) -> dict[str, Any]:
    contact = next(iter(contacts), None)
    return {"of": row.id, "contact": contact, "message": message.id if message is not None else None}


_EVENT = text(
    "INSERT INTO events (event_id, message_id, customer_id, kind, at, detail)"
    " VALUES (:event, :message, :customer, :kind, :at, :detail) ON CONFLICT (event_id) DO NOTHING"
)
_REPLY = text(
    "INSERT INTO replies (event_id, channel, contact_id, customer_id, message_id, order_id, case_id, text, at, intents)"
    " VALUES (:event_id, :channel, :contact_id, :customer_id, :message_id, :order_id, :case_id, :text, :at, :intents)"
    " ON CONFLICT (event_id) DO NOTHING"
)
_HANDLED = text("UPDATE inbox SET handled_at = :now, contact_id = :contact, message_id = :message WHERE id = :of")


def _write(connection: Connection, made: _Made, now: datetime) -> None:
    if made.events:
        connection.execute(_EVENT, made.events)
    if made.replies:
        connection.execute(_REPLY, made.replies)
    if made.handled:
        connection.execute(_HANDLED, [{**one, "now": store.micros(now)} for one in made.handled])
