"""Matching: whose an address or a message is, and which message a reply answers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, text

from outreach import store
from outreach.addresses import normal_email, normal_messenger, normal_phone
from outreach.campaigns import ANSWERS, AUTOMATIC, OPTED_OUT
from outreach.models import Contact, Customer, Message, ReplyAnswer, table
from outreach.store import among
from outreach.values import CONTACT_KIND

LATEST = 5  # messages back in which a reply's question is looked for

_contacts, _customers, _messages = table(Contact), table(Customer), table(Message)
_answers = table(ReplyAnswer)


@dataclass(frozen=True, slots=True)
class Place:
    """An address in its one form, and every form that it may be known by."""

    kind: str  # email | phone | messenger
    address: str
    known_as: tuple[str, ...]


def place(channel: str, address: str) -> Place | None:
    """The address of somebody on a channel; None for an empty one. What is no address of its kind stays as it is."""
    kind = CONTACT_KIND.get(channel, "email")
    given = address.strip()
    if not given:
        return None
    if kind != "phone":
        normal = normal_email if kind == "email" else normal_messenger
        try:
            one = normal(given)
        except ValueError:
            one = given.casefold()
        return Place(kind, one, (one,))
    forms = tuple(dict.fromkeys(_phone(form) for form in (*_forms(given), given)))
    return Place(kind, forms[0], forms)


def _phone(number: str) -> str:
    try:
        return normal_phone(number, None)
    except ValueError:  # a short code, or a name in place of a number
        return number


def _forms(number: str) -> list[str]:
    """
    The ways to write one mobile number, today's first: WhatsApp knows some by an older one.

    Brazil's mobiles got a 9 before their eight digits; Argentina's have a 9 after +54 that many leave out.
    """
    if brazil := re.fullmatch(r"\+55(\d\d)9?([6-9]\d{7})", number):
        return [f"+55{brazil[1]}9{brazil[2]}", f"+55{brazil[1]}{brazil[2]}"]
    if argentina := re.fullmatch(r"\+549?(\d{10})", number):
        return [number, f"+549{argentina[1]}", f"+54{argentina[1]}"]
    return []


# --- contacts ----------------------------------------------------------------------------------------

Known = Mapping[tuple[str, str], int]  # kind and keyed hash → contact


def contacts(connection: Connection, secret: bytes, places: Iterable[Place], *, admit: bool) -> dict[Place, list[int]]:
    """The contacts that have one of these addresses in any form; with `admit`, new ones for those that none has."""
    wanted = sorted(set(places), key=lambda one: (one.kind, one.address))
    hashes = {(one.kind, form): store.address_hash(secret, one.kind, form) for one in wanted for form in one.known_as}
    known = _known(connection, hashes.values())
    new = [one for one in wanted if not any((one.kind, hashes[one.kind, form]) in known for form in one.known_as)]
    if admit and new:
        values = [{"kind": x.kind, "address": x.address, "hash": hashes[x.kind, x.address]} for x in new]
        connection.execute(_ADMIT, values)
        known |= _known(connection, [value["hash"] for value in values])
    found: dict[Place, list[int]] = {}
    for one in wanted:
        keys = [(one.kind, hashes[one.kind, form]) for form in one.known_as]
        found[one] = [known[key] for key in keys if key in known]
    return found


_BY_HASH = select(_contacts.c.kind, _contacts.c.address_hash, _contacts.c.id).where(
    among(_contacts.c.address_hash, "hashes")
)
_ADMIT = text(
    "INSERT INTO contacts (kind, address, address_hash) VALUES (:kind, :address, :hash)"
    " ON CONFLICT (kind, address_hash) DO NOTHING"
)


def _known(connection: Connection, hashes: Iterable[str]) -> dict[tuple[str, str], int]:
    listed = list(hashes)
    rows = connection.execute(_BY_HASH, {"hashes": listed}) if listed else ()
    return {(kind, hashed): i for kind, hashed, i in rows}


# --- customers ---------------------------------------------------------------------------------------

_OWN = {"email": _customers.c.email_id, "phone": _customers.c.phone_id, "messenger": _customers.c.messenger_id}
_HAVING = select(_customers.c.id, *_OWN.values()).where(
    or_(*(among(own, "ids") for own in _OWN.values())), _customers.c.merged_into.is_(None)
)


def people(connection: Connection, contact_ids: Iterable[int]) -> tuple[dict[int, list[int]], dict[int, set[int]]]:
    """By contact, the customers who have it; and, by contact, every contact of these customers (itself among them)."""
    ids = set(contact_ids)
    customers: dict[int, list[int]] = defaultdict(list)
    together: dict[int, set[int]] = {i: {i} for i in ids}
    rows = connection.execute(_HAVING.order_by(_customers.c.id), {"ids": ids}) if ids else ()
    for customer, *own in rows:
        theirs = {i for i in own if i is not None}
        for contact in theirs & ids:
            customers[contact].append(customer)
            together[contact] |= theirs
    return dict(customers), together


# --- messages ----------------------------------------------------------------------------------------

_COLUMNS = (
    _messages.c.id, _messages.c.public_id, _messages.c.customer_id, _messages.c.contact_id, _messages.c.channel,
    _messages.c.occasion, _messages.c.record_id, _messages.c.provider_id, _messages.c.sent_at, _messages.c.campaign,
    _messages.c.step,
)  # fmt: skip
_BY_PUBLIC_ID = select(*_COLUMNS).where(among(_messages.c.public_id, "ids"))
_BY_PROVIDER_ID = select(*_COLUMNS).where(
    _messages.c.channel == bindparam("channel"),
    among(_messages.c.provider_id, "ids"),
    _messages.c.provider_id.is_not(None),
)
_LATEST = (
    select(*_COLUMNS)
    .where(
        among(_messages.c.contact_id, "ids"),
        _messages.c.contact_id.is_not(None),
        _messages.c.channel == bindparam("channel"),
        _messages.c.status == "sent",
        _messages.c.sent_at <= bindparam("at"),
    )
    .order_by(_messages.c.sent_at.desc(), _messages.c.id.desc())
    .limit(LATEST)
)
_MENU = select(_answers.c.menu).where(_answers.c.id == bindparam("of"))


def named(connection: Connection, rows: Sequence[Any]) -> dict[int, Any]:
    """By inbox row, the message that the provider itself names: by our public id, else by the provider's own."""
    wanted = {row.public_id for row in rows if row.public_id}
    found = connection.execute(_BY_PUBLIC_ID, {"ids": wanted}) if wanted else ()
    by_public = {message.public_id: message for message in found}
    by_provider: dict[tuple[str, str], Any] = {}
    others: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.public_id not in by_public:
            others[row.channel].update(_provider_ids(row.provider_id))
    for channel, ids in others.items():
        values = {"channel": channel, "ids": ids}
        for message in connection.execute(_BY_PROVIDER_ID, values) if ids else ():
            by_provider[channel, message.provider_id] = message
    matched = {}
    for row in rows:
        keys = [(row.channel, part) for part in _provider_ids(row.provider_id)]
        candidates = [by_public.get(row.public_id), *(by_provider.get(key) for key in keys)]
        one: Any = next((candidate for candidate in candidates if candidate is not None), None)
        if one is not None:
            matched[row.id] = one
    return matched


def _provider_ids(given: str) -> list[str]:
    """SendGrid's `sg_message_id` is the id that it answered with, and more after a dot."""
    parts = given.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)] if given else []


def latest(connection: Connection, contact_ids: Iterable[int], channel: str, at: datetime) -> Sequence[Any]:
    """
    The last few messages sent to these contacts on that channel by then, the latest first: a reply most likely
    answers that one, and a score the latest that asks for it.

    One in doubt is none: that somebody wrote to us proves nothing about it.
    """
    return connection.execute(_LATEST, {"ids": list(contact_ids), "channel": channel, "at": at}).all()


def asks_itself(connection: Connection, message: Any) -> bool:
    """Whether what a message asks is no survey: a person's answer, or a menu to choose from."""
    if message.campaign != ANSWERS or message.step == OPTED_OUT:
        return False
    return message.step != AUTOMATIC or bool(connection.execute(_MENU, {"of": message.record_id}).scalar())


def subject(message: Any) -> tuple[int | None, int | None]:
    """The order and the case that a message is about."""
    kind = message.occasion.partition(".")[0]
    return (message.record_id if kind == "order" else None, message.record_id if kind == "case" else None)
