"""
Facts: what the rules and the templates need to know, fetched once per batch.

`fetch` serves the planner, the dispatcher (twice) and `explain`; `contexts` serves rendering. Each
is a handful of queries whatever the size of the batch, proportional to it and never to history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam, or_, select

from outreach.campaigns import Campaign, Step, Trigger
from outreach.gates import ContactFacts, Facts, Rules
from outreach.models import (
    CampaignState,
    Case,
    Consent,
    Contact,
    Customer,
    CustomerStats,
    Message,
    MessageEvent,
    Order,
    OrderLine,
    Reason,
    ShopEvent,
    Status,
    Suppression,
    table,
)
from outreach.settings import Settings
from outreach.store import among
from outreach.values import Money

CONTACT_KIND = {"email": "email", "sms": "phone", "whatsapp": "phone", "call": "phone"}
COUNTED_BY_CAPS = (Status.SENDING, Status.SENT, Status.UNKNOWN)
EVENT_WORDS = frozenset({"replied", "answered", "clicked", "reached", "coupon_redeemed"})
ORDER_WORDS = {
    "paid": "paid_at",
    "shipped": "shipped_at",
    "delivered": "delivered_at",
    "refunded": "refunded_at",
    "cancelled": "cancelled_at",
}

_customers, _stats, _contacts = table(Customer), table(CustomerStats), table(Contact)
_orders, _lines, _cases, _shop_events = table(Order), table(OrderLine), table(Case), table(ShopEvent)
_consents, _suppressions, _messages = table(Consent), table(Suppression), table(Message)
_events, _states = table(MessageEvent), table(CampaignState)


@dataclass(frozen=True)
class Item:
    """One message, or one that might be: who, for what, and when."""

    campaign: Campaign
    step: Step
    customer_id: int
    record_id: int | None
    occasion: str
    occasion_at: datetime
    due_at: datetime
    expires_at: datetime
    refused: frozenset[str] = frozenset()
    message_id: int | None = None
    arm: str = "contact"


def rules(item: Item) -> Rules:
    """What the release says about the item, as the gates want it."""
    return Rules(
        campaign=item.campaign.name,
        step=item.step.id,
        purpose=item.step.purpose,
        channels=tuple(channel for channel in item.step.channels if channel not in item.refused),
        due_at=item.due_at,
        expires_at=item.expires_at,
        unless=item.step.unless,
        stop_when=item.campaign.stop_when,
    )


def fetch(
    connection: Connection, settings: Settings, items: Sequence[Item], now: datetime, *, judging: bool = False
) -> list[Facts]:
    """
    The facts of each item, in the items' order, as of `now`.

    With `judging`, only what the enrolment is judged by: no words, no caps.
    """
    people = {row.id: row for row in _people(connection, {item.customer_id for item in items})}
    addresses = _addresses(connection, settings, people.values())
    cases = _open_cases(connection, list(people), now)
    words: Sequence[frozenset[str]] = [frozenset()] * len(items)
    sent: Mapping[int, list[tuple[datetime, str, str, str]]] = {}
    paused: set[str] = set()
    cleared: set[int] = set()
    if not judging:
        words = true_words(connection, items, now)
        sent = _sent(connection, settings, addresses, now)
        paused = _paused(connection, {item.campaign.name for item in items})
        cleared = _cleared(connection, items)
    return [
        _facts(item, people.get(item.customer_id), addresses, cases, words[index], sent, paused, index in cleared)
        for index, item in enumerate(items)
    ]


def _facts(
    item: Item,
    person: Any | None,
    addresses: Mapping[int, dict[str, ContactFacts]],
    cases: Mapping[int, frozenset[int]],
    words: frozenset[str],
    sent: Mapping[int, list[tuple[datetime, str, str, str]]],
    paused: set[str],
    cleared: bool,
) -> Facts:
    if person is None or person.merged_into is not None:
        return Facts(external_id="", contacts={}, withdrawn=Reason.CUSTOMER_GONE)
    contacts = addresses.get(item.customer_id, {})
    return Facts(
        external_id=person.external_id,
        contacts=contacts,
        zones=tuple(person.zones.split()),
        withdrawn=Reason.RECORD_CLEARED if cleared else None,
        paused=item.campaign.name in paused,
        open_cases=cases.get(item.customer_id, frozenset()),
        own_case=item.record_id if item.campaign.trigger.subject == "case" else None,
        true_words=words,
        sent={
            contact.contact_id: tuple(sent[contact.contact_id])
            for contact in contacts.values()
            if contact.contact_id in sent
        },
    )


_PEOPLE = select(
    _customers.c.id,
    _customers.c.external_id,
    _customers.c.email_id,
    _customers.c.phone_id,
    _customers.c.zones,
    _customers.c.merged_into,
).where(among(_customers.c.id, "ids"))


def _people(connection: Connection, ids: Iterable[int]) -> Sequence[Any]:
    return connection.execute(_PEOPLE, {"ids": ids}).all()


_CONTACTS = select(_contacts.c.id, _contacts.c.kind, _contacts.c.address, _contacts.c.address_hash).where(
    among(_contacts.c.id, "ids"), _contacts.c.address.is_not(None)
)


def _addresses(connection: Connection, settings: Settings, people: Iterable[Any]) -> dict[int, dict[str, ContactFacts]]:
    people = list(people)
    ids = {i for person in people for i in (person.email_id, person.phone_id) if i is not None}
    if not ids:
        return {}
    contacts = {row.id: row for row in connection.execute(_CONTACTS, {"ids": ids})}
    consents = _consents_in_force(connection, ids)
    suppressions = _suppressions_in_force(connection, [row.address_hash for row in contacts.values()])
    channels = [(channel, CONTACT_KIND[channel]) for channel in settings.channels if channel in CONTACT_KIND]
    found: dict[int, dict[str, ContactFacts]] = {}
    for person in people:
        mine = {"email": contacts.get(person.email_id), "phone": contacts.get(person.phone_id)}
        found[person.id] = {
            channel: ContactFacts(
                contact_id=contact.id,
                address=contact.address,
                consent=consents.get((contact.id, channel), "unknown"),
                suppressions=suppressions.get((contact.kind, contact.address_hash), ()),
            )
            for channel, kind in channels
            if (contact := mine[kind]) is not None
        }
    return found


_CONSENTS = select(_consents.c.contact_id, _consents.c.channel, _consents.c.status, _consents.c.at).where(
    among(_consents.c.contact_id, "ids")
)


def _consents_in_force(connection: Connection, contact_ids: Iterable[int]) -> dict[tuple[int, str], str]:
    """The latest line by its own date; at one instant a revocation wins (models.Consent)."""
    latest: dict[tuple[int, str], tuple[datetime, bool]] = {}
    for contact_id, channel, status, at in connection.execute(_CONSENTS, {"ids": contact_ids}):
        line = (at, status == "revoked")
        key = (contact_id, channel)
        if key not in latest or line > latest[key]:
            latest[key] = line
    return {key: "revoked" if revoked else "granted" for key, (_, revoked) in latest.items()}


_SUPPRESSIONS = select(
    _suppressions.c.kind, _suppressions.c.address_hash, _suppressions.c.scope, _suppressions.c.channel
).where(among(_suppressions.c.address_hash, "hashes"), _suppressions.c.lifted_at.is_(None))


def _suppressions_in_force(
    connection: Connection, hashes: Sequence[str]
) -> dict[tuple[str, str], tuple[tuple[str, str], ...]]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in connection.execute(_SUPPRESSIONS, {"hashes": hashes}):
        found[(row.kind, row.address_hash)].append((row.scope, row.channel))
    return {key: tuple(sorted(entries)) for key, entries in found.items()}


_OPEN_CASES = select(_cases.c.customer_id, _cases.c.id).where(
    among(_cases.c.customer_id, "ids"),
    _cases.c.opened_at <= bindparam("now"),
    or_(_cases.c.closed_at.is_(None), _cases.c.closed_at > bindparam("now")),
)


def _open_cases(connection: Connection, customer_ids: Sequence[int], now: datetime) -> dict[int, frozenset[int]]:
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


def _sent(
    connection: Connection, settings: Settings, addresses: Mapping[int, dict[str, ContactFacts]], now: datetime
) -> dict[int, list[tuple[datetime, str, str, str]]]:
    """What caps count: by contact, within the longest window, newest first."""
    ids = {contact.contact_id for channels in addresses.values() for contact in channels.values()}
    if not ids or not settings.caps:
        return {}
    since = now - max(cap.limit.per.clock for cap in settings.caps)
    found: dict[int, list[tuple[datetime, str, str, str]]] = defaultdict(list)
    for row in connection.execute(_SENT, {"ids": ids, "since": since}):
        found[row.contact_id].append((row.sent_at, row.purpose, row.channel, row.campaign))
    return found


_PAUSED = select(_states.c.name).where(among(_states.c.name, "names"), _states.c.paused_at.is_not(None))


def _paused(connection: Connection, names: set[str]) -> set[str]:
    return set(connection.execute(_PAUSED, {"names": names}).scalars())


def _cleared(connection: Connection, items: Sequence[Item]) -> set[int]:
    """Which items' order no longer has the time that fired their trigger."""
    wanted = {i: item for i, item in enumerate(items) if item.campaign.trigger.subject == "order"}
    rows = _records(connection, {item.record_id for item in wanted.values() if item.record_id})
    return {
        i
        for i, item in wanted.items()
        if (order := rows.get(item.record_id)) is None
        or getattr(order, f"{item.campaign.trigger.event.partition('.')[2]}_at") is None
    }


_ORDER_TIMES = select(
    _orders.c.id,
    _orders.c.placed_at,
    _orders.c.paid_at,
    _orders.c.shipped_at,
    _orders.c.delivered_at,
    _orders.c.cancelled_at,
    _orders.c.refunded_at,
).where(among(_orders.c.id, "ids"))


def _records(connection: Connection, order_ids: Iterable[int | None]) -> dict[int | None, Any]:
    ids = [i for i in order_ids if i is not None]
    return {row.id: row for row in connection.execute(_ORDER_TIMES, {"ids": ids})} if ids else {}


# --- `unless` and `stop_when` ---------------------------------------------------------------------


def true_words(connection: Connection, items: Sequence[Item], now: datetime) -> list[frozenset[str]]:
    """For each item, which of its `unless` and `stop_when` words are true strictly since its occasion."""
    asked = [frozenset(item.step.unless) | frozenset(item.campaign.stop_when) for item in items]
    every = frozenset().union(*asked) if asked else frozenset()
    if not every:
        return list(asked)
    found: list[set[str]] = [set() for _ in items]
    people = {item.customer_id for item, words in zip(items, asked, strict=True) if words}
    since = min(item.occasion_at for item, words in zip(items, asked, strict=True) if words)
    if every & {"ordered", "ordered_same"}:
        _mark_ordered(connection, items, found, people, since, now)
    if every & ORDER_WORDS.keys():
        _mark_order_times(connection, items, found, now)
    if every & EVENT_WORDS:
        _mark_events(connection, items, found, people, since, now)
    if "opted_out" in every:
        _mark_opted_out(connection, items, found, people, now)
    if every & {"case_open", "case_closed"}:
        _mark_cases(connection, items, found, people, now)
    return [frozenset(words & wanted) for words, wanted in zip(found, asked, strict=True)]


def _mark_ordered(
    connection: Connection,
    items: Sequence[Item],
    found: list[set[str]],
    people: set[int],
    since: datetime,
    now: datetime,
) -> None:
    c = _orders.c
    wanted = select(c.id, c.customer_id, c.placed_at).where(
        among(c.customer_id, people), c.placed_at > since, c.placed_at <= now, c.counted
    )
    later: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(wanted):
        later[row.customer_id].append(row)
    same: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        own = item.record_id if item.campaign.trigger.subject == "order" else None
        orders = [
            row.id for row in later.get(item.customer_id, ()) if row.placed_at > item.occasion_at and row.id != own
        ]
        if orders:
            found[index].add("ordered")
            if "ordered_same" in item.step.unless or "ordered_same" in item.campaign.stop_when:
                same[index] = orders
    if same:
        _mark_ordered_same(connection, items, found, same)


def _mark_ordered_same(
    connection: Connection, items: Sequence[Item], found: list[set[str]], same: Mapping[int, list[int]]
) -> None:
    own = {items[index].record_id for index in same if items[index].campaign.trigger.subject == "order"}
    ids = {i for orders in same.values() for i in orders} | {i for i in own if i is not None}
    lines = lines_of(connection, ids)
    for index, orders in same.items():
        trigger = items[index].campaign.trigger
        bought = {line["sku"] for line in lines.get(items[index].record_id or 0, ()) if line.get("sku")}
        patterns = bool(trigger.sku or trigger.product or trigger.category)
        for line in (line for order in orders for line in lines.get(order, ())):
            if matches_line(trigger, line) if patterns else line.get("sku") in bought:
                found[index].add("ordered_same")


def _mark_order_times(connection: Connection, items: Sequence[Item], found: list[set[str]], now: datetime) -> None:
    rows = _records(connection, {item.record_id for item in items if item.campaign.trigger.subject == "order"})
    for index, item in enumerate(items):
        order = rows.get(item.record_id) if item.campaign.trigger.subject == "order" else None
        if order is None:
            continue
        for word, column in ORDER_WORDS.items():
            at = getattr(order, column)
            if at is not None and item.occasion_at < at <= now:
                found[index].add(word)


def _mark_events(
    connection: Connection,
    items: Sequence[Item],
    found: list[set[str]],
    people: set[int],
    since: datetime,
    now: datetime,
) -> None:
    c = _events.c
    wanted = select(c.customer_id, c.kind, c.at).where(
        among(c.customer_id, people), c.at > since, c.at <= now, c.kind.in_(sorted(EVENT_WORDS))
    )
    latest: dict[tuple[int, str], datetime] = {}
    for row in connection.execute(wanted):
        key = (row.customer_id, row.kind)
        latest[key] = max(row.at, latest.get(key, row.at))
    for index, item in enumerate(items):
        for word in EVENT_WORDS:
            at = latest.get((item.customer_id, word))
            if at is not None and at > item.occasion_at:
                found[index].add(word)


def _mark_opted_out(
    connection: Connection, items: Sequence[Item], found: list[set[str]], people: set[int], now: datetime
) -> None:
    c, s = _customers.c, _suppressions.c
    mine = and_(or_(_contacts.c.id == c.email_id, _contacts.c.id == c.phone_id), among(c.id, people))
    own = select(c.id, _consents.c.at).join(_contacts, mine).join(_consents, _consents.c.contact_id == _contacts.c.id)
    own = own.where(_consents.c.status == "revoked", _consents.c.by == "recipient", _consents.c.at <= now)
    listed = select(c.id, s.at).join(_contacts, mine)
    listed = listed.join(_suppressions, and_(s.address_hash == _contacts.c.address_hash, s.kind == _contacts.c.kind))
    listed = listed.where(s.scope == "contact", s.at <= now)
    latest: dict[int, datetime] = {}
    for query in (own, listed):
        for customer, at in connection.execute(query):
            latest[customer] = max(at, latest.get(customer, at))
    for index, item in enumerate(items):
        if (at := latest.get(item.customer_id)) is not None and at > item.occasion_at:
            found[index].add("opted_out")


def _mark_cases(
    connection: Connection, items: Sequence[Item], found: list[set[str]], people: set[int], now: datetime
) -> None:
    """`case_open`: another case is open now or was opened since; `case_closed`: one was closed since."""
    c = _cases.c
    wanted = select(c.id, c.customer_id, c.opened_at, c.closed_at)
    by_customer: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(wanted.where(among(c.customer_id, people), c.opened_at <= now)):
        by_customer[row.customer_id].append(row)
    for index, item in enumerate(items):
        about_case = item.campaign.trigger.subject == "case"
        for case in by_customer.get(item.customer_id, ()):
            own = about_case and case.id == item.record_id
            closed = case.closed_at is not None and case.closed_at <= now
            if not own and (not closed or case.opened_at > item.occasion_at):
                found[index].add("case_open")
            if closed and case.closed_at > item.occasion_at and (own or not about_case):
                found[index].add("case_closed")


# --- product patterns ---------------------------------------------------------------------------


def matches_line(trigger: Trigger, line: Mapping[str, Any]) -> bool:
    """Whether an order line fits every kind of pattern the trigger names (any pattern of a kind)."""
    return all(
        not patterns or any(fnmatchcase((line.get(name) or "").casefold(), p.casefold()) for p in patterns)
        for name, patterns in (("sku", trigger.sku), ("product", trigger.product), ("category", trigger.category))
    )


def lines_of(connection: Connection, order_ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """The lines of each order, in order, without the cells that are empty."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    c = _lines.c
    for row in connection.execute(select(_lines).where(among(c.order_id, order_ids)).order_by(c.order_id, c.number)):
        line = {k: v for k, v in row._mapping.items() if v is not None and k not in ("order_id", "number")}
        found[row.order_id].append(line)
    return found


# --- what templates see ---------------------------------------------------------------------------


def contexts(connection: Connection, settings: Settings, items: Sequence[Item]) -> list[dict[str, Any]]:
    """The template context of each item, in the items' order; names without a value are left out."""
    ids = sorted({item.customer_id for item in items})
    query = select(_customers, *(c for c in _stats.c if c.name != "customer_id"))
    query = query.join(_stats, _stats.c.customer_id == _customers.c.id, isouter=True).where(among(_customers.c.id, ids))
    people = {row.id: row._mapping for row in connection.execute(query)}
    own = {item.record_id for item in items if item.campaign.trigger.subject == "order" and item.record_id}
    last = {person["last_order_id"] for person in people.values() if person["last_order_id"]}
    orders = _orders_with_lines(connection, own | last)
    cases = _rows(connection, _cases, {i.record_id for i in items if i.campaign.trigger.subject == "case"})
    shop_events = _rows(connection, _shop_events, {i.record_id for i in items if i.campaign.trigger.subject == "event"})
    return [_context(settings, item, people, orders, cases, shop_events) for item in items]


def _context(
    settings: Settings,
    item: Item,
    people: Mapping[int, Any],
    orders: Mapping[int, dict[str, Any]],
    cases: Mapping[int, Mapping[str, Any]],
    shop_events: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    context: dict[str, Any] = {"business": settings.business}
    if person := people.get(item.customer_id):
        context["customer"] = _customer(settings, person, orders)
    subject, record = item.campaign.trigger.subject, item.record_id or 0
    if subject == "order" and record in orders:
        context["order"] = orders[record]
        context["matched"] = [line for line in orders[record]["lines"] if matches_line(item.campaign.trigger, line)]
    elif subject == "case" and record in cases:
        context["case"] = {"id": cases[record]["external_id"], **_present(cases[record])}
    elif subject == "event" and record in shop_events:
        row = shop_events[record]
        context["event"] = {**row["attributes"], "name": row["name"], "at": row["at"]}
    return context


def _customer(settings: Settings, person: Mapping[str, Any], orders: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    known = _present(person)
    name = " ".join(part for part in (person["first_name"], person["last_name"]) if part)
    known["orders_count"] = person["orders_count"] or 0
    known["total_spent"] = Money(person["total_spent"] or 0, settings.business.currency)
    if name:
        known["name"] = name
    if person["last_order_id"] in orders:
        known["last_order"] = orders[person["last_order_id"]]
    return known


_PRIVATE = frozenset(
    {
        "id",
        "external_id",
        "email_id",
        "phone_id",
        "zones",
        "merged_into",
        "row_hash",
        "last_order_id",
        "customer_id",
        "order_id",
    }
)


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None and key not in _PRIVATE}


def _orders_with_lines(connection: Connection, ids: set[int]) -> dict[int, dict[str, Any]]:
    if not ids:
        return {}
    lines = lines_of(connection, ids)
    found = {}
    for i, row in _rows(connection, _orders, ids).items():
        order = {"id": row["external_id"], **_present(row), "lines": []}
        order["total"] = Money(row["total"], row["currency"])
        for line in lines.get(i, ()):
            price = {"unit_price": Money(line["unit_price"], row["currency"])} if "unit_price" in line else {}
            order["lines"].append({**line, **price})
        found[i] = order
    return found


def _rows(connection: Connection, of: Table, ids: Iterable[int | None]) -> dict[int, Any]:
    wanted = sorted(i for i in ids if i is not None)
    if not wanted:
        return {}
    return {row.id: row._mapping for row in connection.execute(select(of).where(among(of.c.id, wanted)))}
