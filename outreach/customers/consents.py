"""Consents: what a person allowed, channel by channel, and changing it in the append-only ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from outreach import store
from outreach.customers.finding import Whose, find
from outreach.errors import NotFound
from outreach.inbox import ledger, opting
from outreach.inbox.ledger import Entry, Line
from outreach.models import Contact, table
from outreach.settings import Settings
from outreach.store import Database, among
from outreach.values import CONTACT_KIND

SOURCE = "command line"
_contacts = table(Contact)


@dataclass(frozen=True)
class Consents:
    """What is in force for one person."""

    customer: str
    channels: Mapping[str, Line | None]  # those the shop has, and those that something was said about
    entries: Sequence[Entry] = ()  # do-not-contact entries in force

    def as_json(self) -> dict[str, Any]:
        """As `outreach consent C --json` prints it."""
        return {
            "customer": self.customer,
            "channels": {name: _line(line) for name, line in self.channels.items()},
            "suppressed": bool(self.entries),
            "suppressions": [
                {"scope": one.scope, "channel": one.channel, "at": one.at.isoformat(), "source": one.source}
                for one in self.entries
            ],
        }


def _line(line: Line | None) -> dict[str, Any]:
    if line is None:
        return {"status": "unknown", "at": None, "source": "", "text": ""}
    return {"status": line.status, "at": line.at.isoformat(), "source": line.source or line.by, "text": line.words}


def consents(db: Database, settings: Settings, who: str) -> Consents:
    """
    What this person allowed.

    Raises:
        NotFound: nobody, or more than one person, has this id, address or number.
    """
    with store.read(db) as connection:
        return consents_of(connection, settings, find(connection, db, settings, who))


def consents_of(connection: Connection, settings: Settings, whose: Whose) -> Consents:
    """The same of somebody already found."""
    lines = ledger.in_force(connection, whose.contacts)
    channels: dict[str, Line | None] = {}
    for name in CONTACT_KIND:
        said = [line for (_, channel), line in lines.items() if channel == name]
        if said or name in settings.channels:
            channels[name] = max(said, key=lambda line: (line.at, line.status == "revoked"), default=None)
    return Consents(whose.name, channels, tuple(ledger.entries(connection, whose.contacts)))


def change(
    db: Database, settings: Settings, who: str, channel: str, now: datetime, *, granted: bool, words: str = ""
) -> Consents:
    """
    Append to the ledger what the person said to somebody of the shop, for this channel alone; gives what is in force then.

    A grant lifts an earlier opt-out or bounce for this channel. What they said themselves at a later
    time still counts.

    Raises:
        NotFound: nobody, or more than one person, is meant, or they have no address for that channel.
    """
    with store.write(db) as connection:
        whose = find(connection, db, settings, who)
        rows = connection.execute(select(_contacts.c.id, _contacts.c.kind).where(among(_contacts.c.id, whose.contacts)))
        own = [row.id for row in rows if row.kind == CONTACT_KIND.get(channel)]
        if not own:
            raise NotFound(f"{whose.name or 'this person'} has no address for {channel}: import one first")
        said = [opting.Said(i, channel, granted, now, SOURCE, words, by=opting.PERSON, everywhere=False) for i in own]
        opting.write(connection, said, now)
        return consents_of(connection, settings, whose)
