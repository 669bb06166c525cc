"""What templates see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from outreach.facts.items import Item
from outreach.facts.records import NOT_SHOWN, lines_of, matches_line, rows_of
from outreach.models import Answer, Case, Order, ShopEvent, table
from outreach.settings import Settings
from outreach.values import Money

_orders, _cases, _shop_events, _answers = table(Order), table(Case), table(ShopEvent), table(Answer)


def contexts(
    connection: Connection, settings: Settings, items: Sequence[Item], people: Mapping[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The template context of each item, in the items' order; names without a value are left out. `people`: `fetch`'s rows."""
    own = {item.record_id for item in items if item.campaign.trigger.subject == "order" and item.record_id}
    known = [people[item.customer_id] for item in items if item.customer_id in people]
    last = {person["last_order_id"] for person in known if person["last_order_id"]}
    orders = _orders_with_lines(connection, own | last)
    cases = rows_of(connection, _cases, {i.record_id for i in items if i.campaign.trigger.subject == "case"})
    shop_events = rows_of(
        connection, _shop_events, {i.record_id for i in items if i.campaign.trigger.subject == "event"}
    )
    answers = rows_of(connection, _answers, {i.record_id for i in items if i.campaign.trigger.subject == "answer"})
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
    elif subject == "event" and record in shop_events and shop_events[record]["customer_id"] == item.customer_id:
        row = shop_events[record]
        context["event"] = {**row["attributes"], "name": row["name"], "at": row["at"]}
    elif subject == "answer" and record in answers and answers[record]["customer_id"] == item.customer_id:
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
    return {key: value for key, value in row.items() if value is not None and key not in NOT_SHOWN}


def _orders_with_lines(connection: Connection, ids: set[int]) -> dict[int, dict[str, Any]]:
    if not ids:
        return {}
    lines = lines_of(connection, ids)
    found = {}
    for i, row in rows_of(connection, _orders, ids).items():
        order = {"id": row["external_id"], **_present(row), "lines": []}
        order["total"] = Money(row["total"], row["currency"])
        for line in lines.get(i, ()):
            price = {"unit_price": Money(line["unit_price"], row["currency"])} if "unit_price" in line else {}
            order["lines"].append({**line, **price})
        found[i] = order
    return found
