"""
DESIGN section 9, point 3: whatever was sent broke no rule at the moment it was sent.

The checker reads the tables and knows the rules from DESIGN 3.4 alone; it shares no code with the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlmodel import SQLModel

from outreach import dispatcher, planner, store
from outreach.models import Case, Consent, Contact, Customer, Message, Status, Suppression, table
from outreach.settings import Cap, Settings
from outreach.values import Duration, Limit, WeekHours
from tests.conftest import SECRET
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR = timedelta(hours=1)
OPEN = WeekHours((*[(9 * 60, 20 * 60)] * 5, (10 * 60, 14 * 60), None))
CAMPAIGNS = {
    "offer": """
        title: Offer
        trigger: {event: order.placed}
        holdout: 20%
        steps:
          - {id: one, after: 0 days, channel: [sms, email], template: m, expires: 4 days}
          - {id: two, after: 1 day, channel: [whatsapp, email], template: m}
    """,
    "care": """
        title: Care
        purpose: service
        priority: 5
        trigger: {event: order.placed}
        steps:
          - {id: care, after: 2 hours, channel: [sms, email], template: m}
    """,
    "receipt": """
        title: Receipt
        purpose: transactional
        trigger: {event: order.placed}
        steps:
          - {id: receipt, after: 0 days, channel: [email, sms], template: m}
    """,
}
Known = dict[type[SQLModel], list[Any]]  # every row of a table

people = st.lists(
    st.fixed_dictionaries(
        {
            "country": st.sampled_from(["MX", "ES", ""]),
            "phone": st.sampled_from(["+525541000001", "+525541000002", "+34612345678", "+18505550123", ""]),
            "email": st.sampled_from(["a@example.com", "b@example.com", "c@example.com", ""]),
            "sms_consent": st.sampled_from(["yes", "yes", "no", ""]),
            "email_consent": st.sampled_from(["yes", "yes", "no", ""]),
            "whatsapp_consent": st.sampled_from(["yes", "no", ""]),
        }
    ),
    min_size=2,
    max_size=5,
)
sales = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 96)), min_size=3, max_size=12)
blocks = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 96), st.sampled_from(["marketing", "contact", "address", "revoked", "case"])
    ),
    max_size=5,
)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(["2026-03-27T12:00:00+00:00", "2026-10-23T12:00:00+00:00", "2026-06-15T15:00:00+00:00"]),
    people=people,
    sales=sales,
    blocks=blocks,
)
def test_nothing_that_was_sent_broke_a_rule(
    kind: str,
    new_database: Callable[[str], str],
    tmp_path: Path,
    start: str,
    people: list[dict[str, str]],
    sales: list[tuple[int, int]],
    blocks: list[tuple[int, int, str]],
) -> None:
    begin = datetime.fromisoformat(start)
    caps = (Cap(Limit(1, Duration(days=1)), purpose="marketing"), Cap(Limit(2, Duration(days=1)), purpose="service"))
    shop = shop_settings(tmp_path / uuid4().hex, sending_hours={"default": OPEN}, caps=caps)
    db = store.open_database(new_database(kind), secret=SECRET)
    feed(db, shop, begin, customers=[customer(n, **cells) for n, cells in enumerate(people)])
    publish(db, shop, begin, **CAMPAIGNS)
    for hours in range(6, 6 * 24, 6):
        now = begin + hours * HOUR
        new = [
            order(n, f"c{who % len(people)}", begin + at * HOUR)
            for n, (who, at) in enumerate(sales)
            if hours - 6 < at <= hours
        ]
        if new:
            feed(db, shop, now, orders=new)
        planner.plan(db, shop, now)
        for number, (who, at, what) in enumerate(blocks):
            if hours - 6 <= at < hours:
                block(db, shop, number, who, what, now)
        dispatcher.dispatch(db, shop, now)

    known: Known = {model: rows_of(db, model) for model in (Contact, Customer, Suppression, Consent, Case, Message)}
    for message in known[Message]:
        if message.status == Status.SENT:
            expect_allowed(known, message)
    db.engine.dispose()


def block(db: store.Database, shop: Settings, number: int, who: int, what: str, now: datetime) -> None:
    """An opt-out, a listing, a bounce or a complaint, at `now`."""
    contacts = rows_of(db, Contact)
    customers = rows_of(db, Customer)
    if what == "case":
        case = {
            "case_id": f"k{number}",
            "customer_id": customers[who % len(customers)].external_id,
            "kind": "complaint",
            "opened_at": now,
        }
        feed(db, shop, now, cases=[case])
    elif contacts:
        contact = contacts[who % len(contacts)]
        channel = "email" if contact.kind == "email" else "sms"
        with store.write(db) as connection:
            if what == "revoked" and not rows_of(db, Consent, contact_id=contact.id, at=now, status="revoked"):
                line = {"contact_id": contact.id, "channel": channel, "status": "revoked", "at": now, "by": "recipient"}
                connection.execute(
                    insert(table(Consent)).values(**line, basis="", source="", words="BAJA", recorded_at=now)
                )
            elif what != "revoked" and not rows_of(db, Suppression, address_hash=contact.address_hash, scope=what):
                said = channel if what == "contact" else ""
                entry = {"address_hash": contact.address_hash, "kind": contact.kind, "scope": what, "channel": said}
                connection.execute(insert(table(Suppression)).values(**entry, source="test", at=now))


def expect_allowed(known: Known, message: Any) -> None:
    at, purpose = message.sent_at, message.purpose
    (contact,) = (c for c in known[Contact] if c.id == message.contact_id)
    (person,) = (c for c in known[Customer] if c.id == message.customer_id)
    assert message.arm != "holdout"
    assert at < message.expires_at
    assert contact.id == (person.email_id if message.channel == "email" else person.phone_id)
    for entry in known[Suppression]:
        if entry.address_hash == contact.address_hash and entry.at <= at:
            assert entry.scope != "address"
            assert entry.scope != "contact" or (purpose == "transactional" and entry.channel != message.channel)
            assert entry.scope != "marketing" or purpose != "marketing"
    lines = [c for c in known[Consent] if (c.contact_id, c.channel) == (contact.id, message.channel) and c.at <= at]
    status = max(lines, key=lambda c: (c.at, c.status == "revoked")).status if lines else "unknown"
    assert status == "granted" if purpose == "marketing" else (purpose == "transactional" or status != "revoked")
    if purpose == "marketing":
        open_then = [c for c in known[Case] if c.customer_id == person.id and c.opened_at <= at]
        assert open_then == []
    if purpose != "transactional" or message.channel in ("sms", "call"):
        assert person.zones
        for zone in person.zones.split():
            local = at.astimezone(ZoneInfo(zone))
            window = [*[(9, 20)] * 5, (10, 14), (0, 0)][local.weekday()]
            assert window[0] <= local.hour < window[1]
    most = {"marketing": 1, "service": 2}.get(purpose)
    if most:
        own = [m for m in known[Message] if (m.contact_id, m.purpose) == (contact.id, purpose)]
        same = [m for m in own if m.status in ("sent", "unknown")]
        assert sum(timedelta(0) <= at - m.sent_at < timedelta(days=1) for m in same) <= most
