"""What the public pages ask and change, by the token of a link in a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from outreach import store
from outreach.inbox import ledger, opting
from outreach.models import Customer, Message, MessageLink, Scope, table
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import CONTACT_KIND

_links, _messages, _customers = table(MessageLink), table(Message), table(Customer)


@dataclass(frozen=True)
class Link:
    """A stored link of a message."""

    kind: str  # unsubscribe | preferences | survey | survey_score | url
    target: str  # the address, or the survey and score
    public_id: str  # of the message


@dataclass(frozen=True)
class Person:
    """What a page may show of the person who holds a link; no name, no address."""

    channels: Mapping[str, str]  # that the shop has and they have an address on: granted | revoked | unknown
    opted_out: bool  # from service and marketing altogether, on the address that the message went to
    channel: str  # that the message went by
    locale: str | None  # the customer's own


def link(db: Database, token: str) -> Link | None:
    """The link with this token."""
    with store.read(db) as connection:
        row = connection.execute(_LINK, {"token": token}).first()
    return None if row is None else Link(row.kind, row.target, row.public_id)


def person(db: Database, settings: Settings, token: str) -> Person | None:
    """What the page of an `unsubscribe` or `preferences` link shows; changes nothing. None: there is no such link."""
    with store.read(db) as connection:
        row = _holder(connection, token)
        return None if row is None else _person(connection, settings, row)


def unsubscribe(db: Database, settings: Settings, now: datetime, token: str, how: str) -> Person | None:
    """
    Opt out whoever holds this link, on all their addresses; in force when this returns, and twice is as once.

    None: there is no such link.
    """
    with store.write(db) as connection:
        row = _holder(connection, token)
        if row is None:
            return None
        if not _is_silent(connection, row):
            said = opting.Said(row.contact_id, row.channel, granted=False, at=now, source=f"unsubscribe link: {how}")
            opting.write(connection, [said], now)
        return _person(connection, settings, row)


def prefer(
    db: Database, settings: Settings, now: datetime, token: str, choices: Mapping[str, bool], words: str = ""
) -> Person | None:
    """
    Grant or revoke channel by channel, as the holder of this link chose; what is not named stays as it is.

    A choice that is in force already changes nothing; `words` are kept in the ledger beside the others.
    A channel that the person has no address on is passed over. None: there is no such link.
    """
    with store.write(db) as connection:
        row = _holder(connection, token)
        if row is None:
            return None
        before, own = _person(connection, settings, row), _own(connection, settings, row)
        said = [
            opting.Said(own[name], name, granted, now, "preferences page", words, everywhere=False)
            for name, granted in sorted(choices.items())
            if name in own and (before.channels[name] != ("granted" if granted else "revoked"))
        ]
        opting.write(connection, said, now)
        return _person(connection, settings, row)


class _Holder(NamedTuple):
    customer_id: int
    contact_id: int
    channel: str


_LINK = (
    select(
        _links.c.kind,
        _links.c.target,
        _messages.c.public_id,
        _messages.c.customer_id,
        _messages.c.contact_id,
        _messages.c.channel,
    )
    .join(_messages, _messages.c.id == _links.c.message_id)
    .where(_links.c.token == bindparam("token"))
)


def _holder(connection: Connection, token: str) -> Any:
    """
    The message of the link, its contact, channel and customer.

    A message that may have left after the backup that this database was restored from has no contact of
    its own: it went to the customer's, as far as anybody knows.
    """
    row = connection.execute(_LINK, {"token": token}).first()
    if row is None or row.kind not in store.WAYS_OUT or row.channel is None:
        return None
    if row.contact_id is not None:
        return row
    customer = connection.execute(_PERSON, {"id": row.customer_id}).first()
    own = None if customer is None else getattr(customer, f"{CONTACT_KIND[row.channel]}_id")
    return None if own is None else _Holder(row.customer_id, own, row.channel)


_PERSON = select(_customers.c.locale, _customers.c.email_id, _customers.c.phone_id, _customers.c.messenger_id).where(
    _customers.c.id == bindparam("id")
)


def _own(connection: Connection, settings: Settings, row: Any) -> dict[str, int]:
    """The person's contact on each channel; on the message's own, the one it went to."""
    customer = connection.execute(_PERSON, {"id": row.customer_id}).first()
    known = {} if customer is None else {kind: getattr(customer, f"{kind}_id") for kind in set(CONTACT_KIND.values())}
    own = {
        name: known[CONTACT_KIND[name]]
        for name, channel in settings.channels.items()
        if known.get(CONTACT_KIND.get(name, "")) is not None and channel.provider != STAFF
    }
    return {**own, row.channel: row.contact_id}


def _is_silent(connection: Connection, row: Any) -> bool:
    """Whether nothing at all goes to the contact on the message's channel: an opt-out elsewhere lets orders' mail pass."""
    return any(
        entry.scope == Scope.ADDRESS and entry.channel in ("", row.channel)
        for entry in ledger.entries(connection, [row.contact_id])
    )


def _person(connection: Connection, settings: Settings, row: Any) -> Person:
    own = _own(connection, settings, row)
    lines = ledger.in_force(connection, own.values())
    customer = connection.execute(_PERSON, {"id": row.customer_id}).first()
    return Person(
        channels={name: _status(lines.get((contact, name))) for name, contact in sorted(own.items())},
        opted_out=any(
            entry.scope == Scope.CONTACT or (entry.scope == Scope.ADDRESS and not entry.channel)
            for entry in ledger.entries(connection, [row.contact_id])
        ),
        channel=row.channel,
        locale=None if customer is None else customer.locale,
    )


def _status(line: ledger.Line | None) -> str:
    return "unknown" if line is None else line.status
