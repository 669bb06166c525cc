"""Accepting: one request's events are kept as they came, and what must not wait takes effect, in one transaction."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from outreach import store
from outreach.channels import InboundEvent
from outreach.errors import DatabaseError
from outreach.inbox import matching, opting, words
from outreach.models import Inbox, table
from outreach.settings import Settings
from outreach.store import Database, among

AGAIN = (0.1, 0.5)  # seconds to wait when the database is away: Twilio does not send again by itself
LONGEST_ID = 200  # characters of an id as it is kept; what is longer is kept by its hash
LONGEST_TEXT = 100_000  # characters of what somebody wrote
SILENCING = ("opted_out", "complained")  # kinds of event

_inbox = table(Inbox)


@dataclass(frozen=True)
class Accepted:
    """How many of a request's events are new, and how many were there already."""

    new: int = 0
    repeated: int = 0


def accept(db: Database, settings: Settings, now: datetime, provider: str, events: Sequence[InboundEvent]) -> Accepted:
    """
    Keep the events of one verified request; when this returns they are on disk and opt-outs are in force.

    One transaction: all of it or nothing. An event whose id is known changes nothing. Undated events
    count from `now`, dated ones from their own date and never from later than `now`.

    Raises:
        DatabaseError: nothing was kept; answer so that the provider sends it again.
    """
    rows = [_row(settings, now, provider, event) for event in events]
    once = {row["event_id"]: row for row in reversed(rows)}  # of two with one id the first counts
    ordered = [once[name] for name in sorted(once)]  # in one order, so that two requests never wait for each other
    if not ordered:
        return Accepted()
    for pause in (*AGAIN, None):
        try:
            new = _keep(db, ordered, now)
        except DatabaseError:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return Accepted(new, len(rows) - new)
    raise AssertionError("the last try returns or raises")


def _row(settings: Settings, now: datetime, provider: str, event: InboundEvent) -> dict[str, Any]:
    """The event as it is stored; texts without what no database keeps."""
    return {
        "event_id": _id(event.event_id),
        "provider": provider,
        "channel": _channel(settings, provider, event),
        "kind": event.kind,
        "at": now if event.at is None else min(event.at, now),
        "received_at": now,
        "public_id": _clean(event.public_id)[:LONGEST_ID],
        "provider_id": _clean(event.provider_id)[:LONGEST_ID],
        "address": _clean(event.address or event.recipient)[:LONGEST_ID] or None,
        "text": _clean(event.text)[:LONGEST_TEXT],
        "code": _clean(event.code)[:LONGEST_ID],
        "detail": _clean(event.detail)[:LONGEST_ID],
        "fault": _clean(event.fault)[:LONGEST_ID],
        "raw": _clean_all(event.raw),
        "contact_id": None,
    }


def _channel(settings: Settings, provider: str, event: InboundEvent) -> str:
    if event.channel:
        return event.channel
    of_provider = (name for name, channel in sorted(settings.channels.items()) if channel.provider == provider)
    return next(of_provider, "email")


def _id(text: str) -> str:
    clean = _clean(text)
    return clean if len(clean) <= LONGEST_ID else f"{clean[:40]}:{hashlib.sha256(clean.encode()).hexdigest()}"


def _clean(text: str) -> str:
    """Without NUL, which PostgreSQL cannot keep, and halves of surrogate pairs, which nothing can."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean_all(one) for name, one in value.items()}
    return [_clean_all(one) for one in value] if isinstance(value, list | tuple) else value


# --- the transaction ---------------------------------------------------------------------------------


def _keep(db: Database, rows: Sequence[dict[str, Any]], now: datetime) -> int:
    said = {row["event_id"]: meaning(row["kind"], row["text"], row["code"]) for row in rows}
    with store.write(db) as connection:
        insert = (sqlite if db.is_sqlite else postgresql).insert(_inbox)
        kept = insert.on_conflict_do_nothing(index_elements=["event_id"]).returning(_inbox.c.event_id)
        new = set(connection.execute(kept, list(rows)).scalars())
        telling = [row for row in rows if row["event_id"] in new and said[row["event_id"]]]
        if telling:
            _obey(connection, db.secret, {row["event_id"]: said[row["event_id"]] for row in telling}, now)
    return len(new)


def meaning(kind: str, text: str, code: str) -> str:
    """What an event says about being written to: `opt_out`, `opt_in`, or nothing of the kind."""
    if kind in SILENCING:
        return words.OPT_OUT
    said = words.read(text, code) if kind == "reply" else ""
    return said if said != words.HELP else ""


_TELLING = select(_inbox).where(among(_inbox.c.event_id, "ids")).order_by(_inbox.c.event_id)


def _obey(connection: Connection, secret: bytes, meant: Mapping[str, str], now: datetime) -> None:
    rows = connection.execute(_TELLING, {"ids": list(meant)}).all()
    whose = contacts_of(connection, secret, rows)
    said = []
    for row in rows:
        granted = meant[row.event_id] == words.OPT_IN
        if granted and row.channel == "email":
            continue  # who wrote an e-mail can be forged: nobody is signed up by it, whoever wants out is let out
        said += [
            opting.Said(contact, row.channel, granted, row.at, _source(row), row.text) for contact in whose[row.id]
        ]
    opting.write(connection, said, now)


def _source(row: Any) -> str:
    return f"{row.channel} {'reply' if row.text else row.kind}" + (f" {row.code}" if row.code and not row.text else "")


def contacts_of(connection: Connection, secret: bytes, rows: Sequence[Any]) -> dict[int, list[int]]:
    """
    By inbox row, the contacts of whoever wrote or is meant, added where new; else of the message it is about.

    An e-mail that answers a message of ours is also from whom that went to: people write from other addresses, too.
    """
    places = {row.id: matching.place(row.channel, row.address or "") for row in rows}
    wanted = [place for place in places.values() if place is not None]
    known = matching.contacts(connection, secret, wanted, admit=True)
    answers = {row.id for row in rows if row.channel == "email" and row.kind == "reply"}
    unnamed = [row for row in rows if places[row.id] is None or row.id in answers]
    about = matching.named(connection, unnamed) if unnamed else {}
    found: dict[int, list[int]] = {}
    for row in rows:
        place = places[row.id]
        message = about.get(row.id)
        own = [message.contact_id] if message is not None and message.contact_id is not None else []
        found[row.id] = list(dict.fromkeys((*known[place], *own))) if place is not None else own
    return found
