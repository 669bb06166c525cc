"""
Mail: what e-mails tell us is completed from what we know, and accepted.

Anybody can write a bounce. So one is believed only about a message that it returns, and about the address
that we sent that message to: not about the address that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, select

from outreach import store
from outreach.channels import AUTOMATIC, InboundEvent
from outreach.inbox import matching, words
from outreach.inbox.accepting import Accepted, accept
from outreach.intents import Certainty, Intent
from outreach.models import Contact, table
from outreach.settings import Settings
from outreach.store import Database, among

STOP = "STOP"  # the code of a reply that is an opt-out, as `words.read` knows it
_SILENT = {Intent.OTHER, Intent.THANKS, Intent.YES}  # what a text means that asks for nothing else
_contacts = table(Contact)


def accept_mail(
    db: Database, settings: Settings, now: datetime, provider: str, events: Sequence[InboundEvent]
) -> Accepted:
    """
    As `accept`, for the events of e-mails; `provider` is who brought them.

    Raises:
        DatabaseError: nothing was kept; bring them again.
    """
    facts = [event for event in events if event.kind == "bounced"]
    if facts:
        with store.read(db) as connection:
            known = _addresses(connection, facts)
        events = [_believed(event, known) if event.kind == "bounced" else event for event in events]
    return accept(db, settings, now, provider, [_with_subject(event) for event in events])


class _Named:
    """What `matching.named` asks of a row."""

    def __init__(self, number: int, event: InboundEvent) -> None:
        self.id, self.channel = number, event.channel
        self.public_id, self.provider_id = event.public_id, event.provider_id


def _addresses(connection: Connection, events: Sequence[InboundEvent]) -> dict[str, str]:
    """By event, the address that the message it is about was sent to."""
    named = matching.named(connection, [_Named(number, event) for number, event in enumerate(events)])
    contacts = {number: message.contact_id for number, message in named.items() if message.contact_id is not None}
    query = select(_contacts.c.id, _contacts.c.address).where(among(_contacts.c.id, contacts.values()))
    addresses = {row.id: row.address for row in connection.execute(query)}
    found = {events[number].event_id: addresses.get(contact) for number, contact in contacts.items()}
    return {name: address for name, address in found.items() if address}


def _believed(event: InboundEvent, addresses: dict[str, str]) -> InboundEvent:
    """A bounce about a message of ours, with the address it went to; any other says nothing about any address."""
    address = addresses.get(event.event_id)
    return replace(event, recipient=address) if address else replace(event, kind="failed")


def _with_subject(event: InboundEvent) -> InboundEvent:
    """Who writes BAJA in the subject of a new mail wants out, unless its text is about something else (“Cancelar”)."""
    subject = str(event.raw.get("headers", {}).get("Subject", "")) if event.kind == "reply" else ""
    answers = "In-Reply-To" in event.raw.get("headers", {})
    if event.code == AUTOMATIC or answers or words.read(subject) != words.OPT_OUT:
        return event
    said = words.reading(event.text)
    if said.opt_out is Certainty.NONE and not set(said.intents) <= _SILENT:
        return event
    return replace(event, code=STOP)
