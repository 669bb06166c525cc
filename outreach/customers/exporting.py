"""Exporting: everything held about one person, as plain data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from outreach import contents, store
from outreach.customers.consents import consents_of
from outreach.customers.finding import Whose, find
from outreach.customers.holdings import HOLDINGS
from outreach.models import Case, Contact, Customer, CustomerStats, Message, MessageContent, Order, Reply, table
from outreach.settings import Settings
from outreach.store import Database, among

LATEST = 5  # messages, orders and replies that an overview shows

_customers, _contacts, _stats, _cases = table(Customer), table(Contact), table(CustomerStats), table(Case)
_messages, _orders, _replies = table(Message), table(Order), table(Reply)


def export(db: Database, settings: Settings, who: str, now: datetime) -> dict[str, Any]:
    """
    Every row of every table that is about the person, by the table's name; times ISO 8601 in UTC, money in minor units.

    Raises:
        NotFound: nobody, or more than one person, has this id, address or number.
    """
    with store.read(db) as connection:
        whose = find(connection, db, settings, who)
        tables = {}
        for holding in HOLDINGS:
            of = table(holding.model)
            rows = connection.execute(select(of).where(holding.rows(whose)).order_by(*of.primary_key.columns))
            tables[of.name] = [_plain(row._mapping) for row in rows]
        for content in tables[table(MessageContent).name]:
            content["html"] = contents.html_of(connection, content["message_id"], content["html"])
    return {"customer": whose.name, "exported_at": now.isoformat(), "held": tables}


def _plain(row: Any) -> dict[str, Any]:
    """Without the fingerprints by which an import knows a row again."""
    return {name: _value(value) for name, value in row.items() if not isinstance(value, bytes)}


def _value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


# --- at a glance ---------------------------------------------------------------------------------------


def overview(db: Database, settings: Settings, who: str, now: datetime) -> dict[str, Any]:
    """
    One person at a glance: name, addresses, orders, consents, open cases, and the latest that was said either way.

    Raises:
        NotFound: nobody, or more than one person, has this id, address or number.
    """
    with store.read(db) as connection:
        whose = find(connection, db, settings, who)
        return {
            "customer": whose.name,
            **_person(connection, whose),
            **_bought(connection, settings, whose),
            "open_cases": _open_cases(connection, whose, now),
            **consents_of(connection, settings, whose).as_json(),
            "messages": _latest_messages(connection, whose),
            "replies": _latest_replies(connection, whose),
        }


_SHOWN = ("first_name", "last_name", "locale", "country", "region", "city", "postal_code", "timezone", "birthday")


def _person(connection: Connection, whose: Whose) -> dict[str, Any]:
    row = connection.execute(select(_customers).where(among(_customers.c.id, whose.customers[:1]))).first()
    shown = {} if row is None else {name: getattr(row, name) for name in (*_SHOWN, "tags", "attributes")}
    rows = connection.execute(select(_contacts).where(among(_contacts.c.id, whose.contacts)).order_by(_contacts.c.id))
    erased = row is not None and row.merged_into == row.id
    return {**shown, "erased": erased, "addresses": [one.address for one in rows if one.address is not None]}


def _bought(connection: Connection, settings: Settings, whose: Whose) -> dict[str, Any]:
    row = connection.execute(select(_stats).where(among(_stats.c.customer_id, whose.customers[:1]))).first()
    return {
        "orders_count": row.orders_count if row else 0,
        "total_spent": row.total_spent if row else 0,
        "currency": settings.business.currency,
        "last_order_at": _value(row.last_order_at) if row else None,
    }


def _open_cases(connection: Connection, whose: Whose, now: datetime) -> list[str]:
    c = _cases.c
    query = select(c.external_id, c.closed_at).where(among(c.customer_id, whose.customers), c.opened_at <= now)
    rows = connection.execute(query.order_by(c.opened_at))
    return [row.external_id for row in rows if row.closed_at is None or row.closed_at > now]


def _latest_messages(connection: Connection, whose: Whose) -> list[dict[str, Any]]:
    c = _messages.c
    query = select(c.public_id.label("id"), c.campaign, c.step, c.channel, c.status, c.reason, c.due_at, c.sent_at)
    rows = connection.execute(
        query.where(among(c.id, whose.messages)).order_by(c.due_at.desc(), c.id.desc()).limit(LATEST)
    )
    return [_plain(row._mapping) for row in rows]


def _latest_replies(connection: Connection, whose: Whose) -> list[dict[str, Any]]:
    c = _replies.c
    theirs = among(c.customer_id, whose.customers) if whose.customers else among(c.contact_id, whose.contacts)
    query = select(c.id, c.channel, c.text, c.at, c.intents).where(theirs)
    rows = connection.execute(query.order_by(c.at.desc(), c.id.desc()).limit(LATEST))
    return [_plain(row._mapping) for row in rows]
