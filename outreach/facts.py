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
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Table, and_, bindparam, func, or_, select, type_coerce

from outreach import arms, timing
from outreach.campaigns import ANSWERS, OPTED_OUT, Campaign, Step, Trigger
from outreach.gates import ContactFacts, Facts, Rules
from outreach.models import (
    Answer,
    CampaignState,
    Case,
    Consent,
    Contact,
    Customer,
    CustomerDate,
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
    to_micros,
)
from outreach.settings import Settings
from outreach.store import among
from outreach.values import CONTACT_KIND, Money

COUNTED_BY_CAPS = (Status.SENDING, Status.SENT, Status.UNKNOWN)
EVENT_WORDS = frozenset({"replied", "answered", "clicked", "reached", "coupon_redeemed"})
ORDER_WORDS = {
    "paid": "paid_at",
    "shipped": "shipped_at",
    "delivered": "delivered_at",
    "refunded": "refunded_at",
    "cancelled": "cancelled_at",
}
UNDOING = frozenset({"refunded", "cancelled"})

# Of records, what no template sees.
_NOT_SHOWN = frozenset(
    {
        "id",
        "external_id",
        "email_id",
        "phone_id",
        "messenger_id",
        "zones",
        "merged_into",
        "row_hash",
        "last_order_id",
        "customer_id",
        "order_id",
    }
)

_customers, _stats, _contacts = table(Customer), table(CustomerStats), table(Contact)
_dates = table(CustomerDate)
_orders, _lines, _cases, _shop_events = table(Order), table(OrderLine), table(Case), table(ShopEvent)
_consents, _suppressions, _messages = table(Consent), table(Suppression), table(Message)
_events, _states, _answers = table(MessageEvent), table(CampaignState), table(Answer)


@dataclass(slots=True)  # not frozen: see gates.Facts
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
    contact_id: int | None = None  # the only one that it may go to; None: whichever the customer has
    written: tuple[str, str] | None = None  # subject and text, where no template makes them


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
        contact_id=item.contact_id,
        confirms=item.campaign.name == ANSWERS and item.step.id == OPTED_OUT,
    )


def fetch(
    connection: Connection,
    settings: Settings,
    items: Sequence[Item],
    now: datetime,
    *,
    judging: bool = False,
    secret: bytes = b"",
    rows: dict[int, dict[str, Any]] | None = None,
) -> list[Facts]:
    """
    The facts of each item, in the items' order, as of `now`.

    Who is in the global holdout is told by the installation's `secret`. With `judging`, only what the enrolment is judged by: no words, no caps. What no purpose among
    the items asks for (consents, open cases) is not looked up. `rows`, where given, gets what `contexts` needs of
    each customer.
    """
    purposes = {item.step.purpose for item in items}
    people = _people(
        connection,
        settings,
        {item.customer_id for item in items},
        secret,
        consents=purposes != {"transactional"},
        kept=rows,
    )
    cases = _open_cases(connection, people, now) if "marketing" in purposes else {}
    words: Sequence[frozenset[str]] = [_NO_WORD] * len(items)
    sent: Mapping[int, tuple[Sent, ...]] = {}
    paused: set[str] = set()
    cleared: set[int] = set()
    if not judging:
        words = true_words(connection, items, now)
        sent = _sent(connection, settings, people.values(), now)
        paused = _paused(connection, {item.campaign.name for item in items})
        cleared = _cleared(connection, settings, items)
    found = []
    for index, item in enumerate(items):
        person = people.get(item.customer_id)
        if person is None:
            found.append(Facts(external_id="", contacts={}, withdrawn=Reason.CUSTOMER_GONE))
            continue
        open_cases = cases.get(item.customer_id, _NO_CASE)
        if judging and not open_cases:
            found.append(person)
            continue
        if not (open_cases or words[index] or sent or paused or cleared):  # nothing but who they are
            found.append(person)
            continue
        found.append(
            Facts(
                external_id=person.external_id,
                contacts=person.contacts,
                zones=person.zones,
                withdrawn=Reason.RECORD_CLEARED if index in cleared else None,
                paused=item.campaign.name in paused,
                open_cases=open_cases,
                own_case=item.record_id if open_cases and item.campaign.trigger.subject == "case" else None,
                true_words=words[index],
                sent={i: sent[i] for one in person.contacts.values() if (i := one.contact_id) in sent} if sent else {},
                email_id=person.email_id,
                phone_id=person.phone_id,
                messenger_id=person.messenger_id,
                held_globally=person.held_globally,
            )
        )
    return found


Sent = tuple[datetime, str, str, str]  # time, purpose, channel, campaign
_NO_CASE, _NO_WORD = frozenset[int](), frozenset[str]()


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
    *(column for column in _customers.c if column.name not in _NOT_SHOWN),
    *(column for column in _stats.c if column.name != "customer_id"),
]
_OWN_NAMES, _BEFORE_OWN = [column.name for column in _OWN], len(_PEOPLE.selected_columns)
_WHOLE_PEOPLE = _PEOPLE.add_columns(*_OWN).join(_stats, _stats.c.customer_id == _customers.c.id, isouter=True)

_PLACES = {"email": 3, "phone": 4, "messenger": 5}  # of a contact's id in a row; its address is three further


def _people(
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


def _open_cases(connection: Connection, customer_ids: Iterable[int], now: datetime) -> dict[int, frozenset[int]]:
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


_PAUSED = select(_states.c.name).where(among(_states.c.name, "names"), _states.c.paused_at.is_not(None))


def _paused(connection: Connection, names: set[str]) -> set[str]:
    return set(connection.execute(_PAUSED, {"names": names}).scalars())


def _cleared(connection: Connection, settings: Settings, items: Sequence[Item]) -> set[int]:
    """Which items' occasion is none any more: its time was taken back or moved, its record is another's, a lapse was none."""
    found: set[int] = set()
    for subject, of in (("order", _orders), ("case", _cases)):
        fired = {
            i: f"{item.campaign.trigger.event.partition('.')[2]}_at"
            for i, item in enumerate(items)
            if item.campaign.trigger.subject == subject and item.campaign.trigger.event != "case.overdue"
        }
        known = _times(connection, of, fired.values(), {items[i].record_id for i in fired})
        for i, column in fired.items():
            record = known.get(items[i].record_id, {})
            if record.get(column) is None or record["customer_id"] != items[i].customer_id:
                found.add(i)
    return found | _lapsed_not(connection, settings, items) | _moved(connection, items)


_LAST_ORDERS = select(_stats.c.customer_id, _stats.c.last_order_id, _stats.c.last_order_at).where(
    among(_stats.c.customer_id, "ids")
)


def _lapsed_not(connection: Connection, settings: Settings, items: Sequence[Item]) -> set[int]:
    """Which items' customer had ordered too shortly before the lapse: the order came in only later, or it was spread."""
    lapses = {i: item for i, item in enumerate(items) if item.campaign.trigger.event == "customer.inactive"}
    if not lapses:
        return set()
    rows = connection.execute(_LAST_ORDERS, {"ids": {item.customer_id for item in lapses.values()}}).all()
    last = {customer: (order, at) for customer, order, at in rows if at is not None}
    found, zone = set(), settings.business.timezone
    for i, item in lapses.items():
        order, at = last.get(item.customer_id, (None, None))
        after = item.campaign.trigger.after
        if at is None or after is None or order == item.record_id:
            continue
        if at <= item.occasion_at < timing.add(at, after, zone):
            found.add(i)
    return found


_OWN_DATES = select(_dates.c.customer_id, _dates.c.name, _dates.c.on_date).where(among(_dates.c.customer_id, "ids"))


def _moved(connection: Connection, items: Sequence[Item]) -> set[int]:
    """Which items' date of the customer's own is another by now, or none."""
    dated = {i: item for i, item in enumerate(items) if item.campaign.trigger.attribute is not None}
    if not dated:
        return set()
    rows = connection.execute(_OWN_DATES, {"ids": {item.customer_id for item in dated.values()}}).all()
    known = {(customer, f"date:{name}:{on_date}") for customer, name, on_date in rows}
    return {i for i, item in dated.items() if (item.customer_id, item.occasion) not in known}


def _times(
    connection: Connection, of: Table, columns: Iterable[str], ids: Iterable[int | None]
) -> dict[int | None, dict[str, int | None]]:
    """Whose some records are, and some times of them, as they are stored."""
    names, wanted = tuple(sorted(set(columns))), [i for i in ids if i is not None]
    if not wanted:
        return {}
    rows = connection.execute(_times_query(of, names), {"ids": wanted}).all()
    return {row[0]: dict(zip(("customer_id", *names), row[1:], strict=True)) for row in rows}


@cache
def _times_query(of: Table, columns: tuple[str, ...]) -> Select[Any]:
    times = [type_coerce(of.c[name], BigInteger) for name in columns]
    return select(of.c.id, of.c.customer_id, *times).where(among(of.c.id, "ids"))


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
    if words_of_orders := every & ORDER_WORDS.keys():
        _mark_order_times(connection, items, found, words_of_orders, now)
    if every & EVENT_WORDS:
        _mark_events(connection, items, found, people, since, now)
    if "opted_out" in every:
        _mark_opted_out(connection, items, found, people, now)
    if every & {"case_open", "case_closed"}:
        _mark_cases(connection, items, found, people, now)
    return [frozenset(words & wanted) for words, wanted in zip(found, asked, strict=True)]


_ORDERED = select(_orders.c.customer_id, _orders.c.id, type_coerce(_orders.c.placed_at, BigInteger)).where(
    among(_orders.c.customer_id, "ids"),
    _orders.c.placed_at > bindparam("since"),
    _orders.c.placed_at <= bindparam("now"),
    _orders.c.counted,
)


def _mark_ordered(
    connection: Connection,
    items: Sequence[Item],
    found: list[set[str]],
    people: set[int],
    since: datetime,
    now: datetime,
) -> None:
    later: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for customer, order, at in connection.execute(_ORDERED, {"ids": people, "since": since, "now": now}).all():
        later[customer].append((order, at))
    same: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        if item.customer_id not in later:
            continue
        own = item.record_id if item.campaign.trigger.subject == "order" else None
        occasion_at = to_micros(item.occasion_at)
        orders = [order for order, at in later[item.customer_id] if at > occasion_at and order != own]
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


def _mark_order_times(
    connection: Connection, items: Sequence[Item], found: list[set[str]], words: Iterable[str], now: datetime
) -> None:
    """
    Exports that know days alone have a payment and its cancellation at one moment: that is enough to stop.

    An order that is only said to be cancelled, or the like, by its status, is.
    """
    columns = {word: ORDER_WORDS[word] for word in words}
    own = {i: item.record_id for i, item in enumerate(items) if item.campaign.trigger.subject == "order"}
    known, end = _times(connection, _orders, columns.values(), set(own.values())), to_micros(now)
    undone = _undone(connection, known) if "cancelled" in columns else set()
    for index, order in own.items():
        fired, since = items[index].campaign.trigger.event, to_micros(items[index].occasion_at)
        for word, column in columns.items() if order in known else ():
            at = known[order][column]
            as_good = word in UNDOING and fired != f"order.{word}"
            happened = at is not None and at <= end and (at > since or (as_good and at == since))
            if happened or (word == "cancelled" and as_good and order in undone):
                found[index].add(word)


_UNDONE = select(_orders.c.id).where(
    among(_orders.c.id, "ids"), ~_orders.c.counted, _orders.c.cancelled_at.is_(None), _orders.c.total > 0
)


def _undone(connection: Connection, orders: Iterable[int | None]) -> set[int]:
    """Which of these orders do not count by their status alone: no other reason is left."""
    return set(connection.execute(_UNDONE, {"ids": [i for i in orders if i is not None]}).scalars())


_HAPPENED = (
    select(_events.c.customer_id, _events.c.kind, func.max(type_coerce(_events.c.at, BigInteger)))
    .where(
        among(_events.c.customer_id, "ids"),
        _events.c.at > bindparam("since"),
        _events.c.at <= bindparam("now"),
        _events.c.kind.in_(sorted(EVENT_WORDS)),
    )
    .group_by(_events.c.customer_id, _events.c.kind)
)


def _mark_events(
    connection: Connection,
    items: Sequence[Item],
    found: list[set[str]],
    people: set[int],
    since: datetime,
    now: datetime,
) -> None:
    latest: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for customer, word, at in connection.execute(_HAPPENED, {"ids": people, "since": since, "now": now}):
        latest[customer].append((word, at))
    for index, item in enumerate(items):
        for word, at in latest.get(item.customer_id, ()):
            if at > to_micros(item.occasion_at):
                found[index].add(word)


_mine = or_(
    *(_contacts.c.id == own for own in (_customers.c.email_id, _customers.c.phone_id, _customers.c.messenger_id))
)
_REVOKED = (
    select(_customers.c.id, _consents.c.at)
    .join(_contacts, _mine)
    .join(_consents, _consents.c.contact_id == _contacts.c.id)
    .where(
        among(_customers.c.id, "ids"),
        _consents.c.status == "revoked",
        _consents.c.by == "recipient",
        _consents.c.at <= bindparam("now"),
    )
)
_LISTED = (
    select(_customers.c.id, _suppressions.c.at)
    .join(_contacts, _mine)
    .join(
        _suppressions,
        and_(_suppressions.c.address_hash == _contacts.c.address_hash, _suppressions.c.kind == _contacts.c.kind),
    )
    .where(among(_customers.c.id, "ids"), _suppressions.c.scope == "contact", _suppressions.c.at <= bindparam("now"))
)


def _mark_opted_out(
    connection: Connection, items: Sequence[Item], found: list[set[str]], people: set[int], now: datetime
) -> None:
    latest: dict[int, datetime] = {}
    for query in (_REVOKED, _LISTED):
        for customer, at in connection.execute(query, {"ids": people, "now": now}):
            latest[customer] = max(at, latest.get(customer, at))
    for index, item in enumerate(items):
        if (at := latest.get(item.customer_id)) is not None and at > item.occasion_at:
            found[index].add("opted_out")


_CASES = select(_cases.c.id, _cases.c.customer_id, _cases.c.opened_at, _cases.c.closed_at).where(
    among(_cases.c.customer_id, "ids"), _cases.c.opened_at <= bindparam("now")
)


def _mark_cases(
    connection: Connection, items: Sequence[Item], found: list[set[str]], people: set[int], now: datetime
) -> None:
    """`case_open`: another case is open now or was opened since; `case_closed`: one was closed since."""
    by_customer: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(_CASES, {"ids": people, "now": now}):
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


_LINES = select(_lines).where(among(_lines.c.order_id, "ids")).order_by(_lines.c.order_id, _lines.c.number)


def lines_of(connection: Connection, order_ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """The lines of each order, in order, without the cells that are empty."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in _dicts(connection, _LINES, order_ids):
        line = {k: v for k, v in row.items() if v is not None and k not in ("order_id", "number")}
        found[row["order_id"]].append(line)
    return found


def _dicts(connection: Connection, query: Select[Any], ids: Iterable[int]) -> list[dict[str, Any]]:
    result = connection.execute(query, {"ids": ids})
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


# --- what templates see ---------------------------------------------------------------------------


def contexts(
    connection: Connection, settings: Settings, items: Sequence[Item], people: Mapping[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The template context of each item, in the items' order; names without a value are left out. `people`: `fetch`'s rows."""
    own = {item.record_id for item in items if item.campaign.trigger.subject == "order" and item.record_id}
    known = [people[item.customer_id] for item in items if item.customer_id in people]
    last = {person["last_order_id"] for person in known if person["last_order_id"]}
    orders = _orders_with_lines(connection, own | last)
    cases = _rows(connection, _cases, {i.record_id for i in items if i.campaign.trigger.subject == "case"})
    shop_events = _rows(connection, _shop_events, {i.record_id for i in items if i.campaign.trigger.subject == "event"})
    answers = _rows(connection, _answers, {i.record_id for i in items if i.campaign.trigger.subject == "answer"})
    return [_context(settings, item, people, orders, cases, shop_events, answers) for item in items]


def _context(
    settings: Settings,
    item: Item,
    people: Mapping[int, Any],
    orders: Mapping[int, dict[str, Any]],
    cases: Mapping[int, Mapping[str, Any]],
    shop_events: Mapping[int, Mapping[str, Any]],
    answers: Mapping[int, Mapping[str, Any]],
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
    elif subject == "answer" and record in answers:
        context["answer"] = _answer(answers[record])
    return context


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: row[name] for name in ("survey", "scale", "score")}
    known["satisfied"] = row["satisfied_from"] <= row["score"] <= row["satisfied_to"]
    known["at"] = row["changed_at"]
    return known | ({"comment": row["comment"]} if row["comment"] else {})


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


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None and key not in _NOT_SHOWN}


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


def _rows(connection: Connection, of: Table, ids: Iterable[int | None]) -> dict[int, dict[str, Any]]:
    wanted = [i for i in ids if i is not None]
    return {row["id"]: row for row in _dicts(connection, _by_id(of), wanted)} if wanted else {}


@cache
def _by_id(of: Table) -> Select[Any]:
    return select(of).where(among(of.c.id, "ids"))
