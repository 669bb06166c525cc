"""Which words of `unless` and `stop_when` are true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, func, or_, select, type_coerce

from outreach.facts.items import Item
from outreach.facts.records import lines_of, matches_line, times_of
from outreach.models import Case, Consent, Contact, Customer, MessageEvent, Order, Suppression, table, to_micros
from outreach.store import among

EVENT_WORDS = frozenset({"replied", "answered", "clicked", "reached", "coupon_redeemed"})
ORDER_WORDS = {
    "paid": "paid_at",
    "shipped": "shipped_at",
    "delivered": "delivered_at",
    "refunded": "refunded_at",
    "cancelled": "cancelled_at",
}
UNDOING = frozenset({"refunded", "cancelled"})

_customers, _contacts = table(Customer), table(Contact)
_orders, _cases, _events = table(Order), table(Case), table(MessageEvent)
_consents, _suppressions = table(Consent), table(Suppression)


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
    known, end = times_of(connection, _orders, columns.values(), set(own.values())), to_micros(now)
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
