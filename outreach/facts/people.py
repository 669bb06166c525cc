"""Who somebody is, where they can be reached, what they allowed, and what they were sent of late."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select

from outreach import arms
from outreach.facts.items import SAME_DAY, Item
from outreach.facts.records import NOT_SHOWN
from outreach.gates import ContactFacts, Facts
from outreach.models import Case, Consent, Contact, Customer, CustomerStats, Message, Status, Suppression, table
from outreach.settings import Settings
from outreach.store import among
from outreach.values import CONTACT_KIND

COUNTED_BY_CAPS = (Status.SENDING, Status.SENT, Status.UNKNOWN)

_customers, _stats, _contacts = table(Customer), table(CustomerStats), table(Contact)
_consents, _suppressions = table(Consent), table(Suppression)
_cases, _messages = table(Case), table(Message)

Sent = tuple[datetime, str, str, str]  # time, purpose, channel, campaign

_emails, _phones, _pages = (_contacts.alias(name) for name in ("emails", "phones", "pages"))
_PEOPLE = (
    select(
        _customers.c.id,
        _customers.c.external_id,
        _customers.c.zones,
        _customers.c.email_id,
        _customers.c.phone_id,
        _customers.c.messenger_id,
        _emails.c.address,
        _phones.c.address,
        _pages.c.address,
    )
    .join(_emails, _emails.c.id == _customers.c.email_id, isouter=True)
    .join(_phones, _phones.c.id == _customers.c.phone_id, isouter=True)
    .join(_pages, _pages.c.id == _customers.c.messenger_id, isouter=True)
    .where(among(_customers.c.id, "ids"), _customers.c.merged_into.is_(None))
)
_OWN = [
    *(column for column in _customers.c if column.name not in NOT_SHOWN),
    *(column for column in _stats.c if column.name != "customer_id"),
]
_OWN_NAMES, _BEFORE_OWN = [column.name for column in _OWN], len(_PEOPLE.selected_columns)
_WHOLE_PEOPLE = _PEOPLE.add_columns(*_OWN).join(_stats, _stats.c.customer_id == _customers.c.id, isouter=True)

_PLACES = {"email": 3, "phone": 4, "messenger": 5}  # of a contact's id in a row; its address is three further


def people_of(
    connection: Connection,
    settings: Settings,
    ids: Iterable[int],
    secret: bytes,
    *,
    consents: bool,
    kept: dict[int, dict[str, Any]] | None,
) -> dict[int, Facts]:
    """What hangs on the person alone, of those who are still there; consents are looked up only if asked for."""
    rows = connection.execute(_PEOPLE if kept is None else _WHOLE_PEOPLE, {"ids": ids}).all()
    if kept is not None:
        kept.update((row[0], dict(zip(_OWN_NAMES, row[_BEFORE_OWN:], strict=True))) for row in rows)
    usable = {row[place] for place in (3, 4, 5) for row in rows if row[place + 3] is not None}
    granted = _consents_in_force(connection, usable) if consents and usable else {}
    suppressed = _suppressions_in_force(connection, usable) if usable else {}
    places = [(channel, _PLACES[CONTACT_KIND[channel]]) for channel in settings.channels if channel in CONTACT_KIND]
    people = {}
    share = settings.holdout if secret else 0
    for row in rows:
        contacts = {}
        for channel, place in places:
            if (address := row[place + 3]) is not None:
                contact = row[place]
                consent = granted.get((contact, channel), "unknown")
                contacts[channel] = ContactFacts(contact, address, consent, suppressed.get(contact, ()))
        people[row[0]] = Facts(
            row[1],
            contacts,
            tuple(row[2].split()),
            email_id=row[3],
            phone_id=row[4],
            messenger_id=row[5],
            held_globally=share > 0 and arms.is_held_globally(secret, share, row[1]),
        )
    return people


_CONSENTS = (
    select(_consents.c.contact_id, _consents.c.channel, _consents.c.status)
    .where(among(_consents.c.contact_id, "ids"))
    .order_by(_consents.c.at, _consents.c.status == "revoked")
)


def _consents_in_force(connection: Connection, contact_ids: Iterable[int]) -> dict[tuple[int, str], str]:
    """The latest line by its own date; at one instant a revocation wins (models.Consent)."""
    rows = connection.execute(_CONSENTS, {"ids": contact_ids}).all()
    return {(contact, channel): status for contact, channel, status in rows}


_SUPPRESSIONS = (
    select(_contacts.c.id, _suppressions.c.scope, _suppressions.c.channel)
    .join(
        _suppressions,
        and_(_suppressions.c.address_hash == _contacts.c.address_hash, _suppressions.c.kind == _contacts.c.kind),
    )
    .where(among(_contacts.c.id, "ids"), _suppressions.c.lifted_at.is_(None))
)


def _suppressions_in_force(
    connection: Connection, contact_ids: Iterable[int]
) -> dict[int, tuple[tuple[str, str], ...]]:
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for contact, scope, channel in connection.execute(_SUPPRESSIONS, {"ids": contact_ids}):
        found[contact].append((scope, channel))
    return {contact: tuple(sorted(entries)) for contact, entries in found.items()}


_OPEN_CASES = select(_cases.c.customer_id, _cases.c.id).where(
    among(_cases.c.customer_id, "ids"),
    _cases.c.opened_at <= bindparam("now"),
    or_(_cases.c.closed_at.is_(None), _cases.c.closed_at > bindparam("now")),
)


def open_cases(connection: Connection, customer_ids: Iterable[int], now: datetime) -> dict[int, frozenset[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for row in connection.execute(_OPEN_CASES, {"ids": customer_ids, "now": now}):
        found[row.customer_id].add(row.id)
    return {customer: frozenset(ids) for customer, ids in found.items()}


_SENT = (
    select(_messages.c.contact_id, _messages.c.sent_at, _messages.c.purpose, _messages.c.channel, _messages.c.campaign)
    .where(
        among(_messages.c.contact_id, "ids"),
        _messages.c.sent_at > bindparam("since"),
        _messages.c.status.in_(COUNTED_BY_CAPS),
    )
    .order_by(_messages.c.sent_at.desc())
)


def sent_to(
    connection: Connection, settings: Settings, people: Iterable[Facts], now: datetime
) -> dict[int, tuple[Sent, ...]]:
    """What caps count: by contact, within the longest window, newest first."""
    ids = {contact.contact_id for person in people for contact in person.contacts.values()}
    if not ids or not settings.caps:
        return {}
    since = now - max(cap.limit.per.clock for cap in settings.caps)
    found: dict[int, list[Sent]] = defaultdict(list)
    for contact, at, purpose, channel, campaign in connection.execute(_SENT, {"ids": ids, "since": since}):
        found[contact].append((at, purpose, channel, campaign))
    return {contact: tuple(sent) for contact, sent in found.items()}


_TOLD = select(
    *(_messages.c[name] for name in ("contact_id", "campaign", "step", "occasion", "occasion_at", "customer_id"))
).where(
    among(_messages.c.contact_id, "ids"),
    _messages.c.sent_at > bindparam("since"),
    _messages.c.status.in_(COUNTED_BY_CAPS),
    among(_messages.c.campaign, "names"),
)


def told_another(
    connection: Connection, items: Sequence[Item], people: Mapping[int, Facts]
) -> dict[int, frozenset[int]]:
    """
    By place among the items: the contacts at which another record was sent the step for the same occasion.

    Only of occasions that many have in common; every other is of one record of the shop.
    """
    common = {i: item for i, item in enumerate(items) if item.campaign.trigger.is_common}
    ids = {c.contact_id for item in common.values() if (p := people.get(item.customer_id)) for c in p.contacts.values()}
    if not ids:
        return {}
    since = min(item.occasion_at for item in common.values()) - SAME_DAY
    names = {item.campaign.name for item in common.values()}
    told: dict[tuple[str, str, str], list[tuple[int, datetime, int]]] = defaultdict(list)
    for contact, *key, at, whose in connection.execute(_TOLD, {"ids": ids, "since": since, "names": names}):
        told[key[0], key[1], key[2]].append((contact, at, whose))
    found = {}
    for i, item in common.items():
        others = told.get((item.campaign.name, item.step.id, item.occasion), ())
        theirs = [c for c, at, whose in others if whose != item.customer_id and abs(at - item.occasion_at) < SAME_DAY]
        if theirs:
            found[i] = frozenset(theirs)
    return found
