"""
What the campaigns did: messages, status, audience and the campaign report, on both databases.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from outreach.campaigns import Goal
from outreach.errors import ConditionError, DatabaseError, NotFound
from outreach.models import (
    CampaignState,
    Case,
    Consent,
    Contact,
    Customer,
    CustomerStats,
    Enrolment,
    Import,
    Message,
    MessageContent,
    Order,
    Release,
    ShopEvent,
    Suppression,
    Tick,
    table,
)
from outreach.reports import status
from outreach.reports.audience import audience
from outreach.reports.campaigns import campaigns
from outreach.reports.messages import MESSAGES, messages
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import Database, write
from outreach.values import Duration

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
SHOP = Settings(
    workspace=Path(),
    business=Business("Tienda Luna", "America/Mexico_City", "MXN"),
    channels={name: ChannelSettings() for name in ("email", "sms", "whatsapp")},
)
JUNE = date(2026, 6, 1), date(2026, 7, 1)


def put(db: Database, model: Any, *rows: dict[str, Any]) -> None:
    with write(db) as connection:
        for row in rows:
            connection.execute(insert(table(model)), row)


def person(number: int, **more: Any) -> dict[str, Any]:
    blank = {"external_id": f"c{number}", "zones": "", "tags": [], "attributes": {}, "row_hash": b""}
    return {"id": number, **blank, **more}


def message(number: int, customer: int = 1, **more: Any) -> dict[str, Any]:
    due = more.pop("due_at", NOW - timedelta(days=1))
    return {
        "id": number, "public_id": f"m{number}", "campaign": "thanks", "step": "one", "customer_id": customer,
        "occasion": f"order.placed:{number}", "occasion_at": due, "enrolment_id": number, "arm": "contact", "purpose": "marketing",
        "priority": 0, "status": "planned", "due_at": due, "expires_at": due, "ready_at": due, "release": 3, "created_at": due, **more,
    }  # fmt: skip


def sent(number: int, customer: int, at: datetime, campaign: str = "thanks") -> dict[str, Any]:
    return message(number, customer, campaign=campaign, status="sent", channel="email", due_at=at, sent_at=at)


def order(number: int, customer: int, at: datetime, **more: Any) -> dict[str, Any]:
    blank = {"currency": "MXN", "total": 100, "counted": True, "attributes": {}, "row_hash": b""}
    return {"id": number, "external_id": f"o{number}", "customer_id": customer, "placed_at": at, **blank, **more}


# Messages


def test_messages_have_the_documented_keys_with_the_shops_own_customer_ids(db: Database) -> None:
    put(db, Customer, person(1), person(2))
    put(
        db,
        Message,
        message(1, 2, due_at=NOW),
        message(2, 1, status="skipped", reason="unless", due_at=NOW - timedelta(hours=2)),
        sent(3, 1, NOW - timedelta(hours=1)),
    )
    put(db, MessageContent, {"message_id": 3, "subject": "Hola, Ana", "content_hash": "x", "at": NOW})

    found = messages(db)

    assert [one["id"] for one in found] == ["m2", "m3", "m1"]
    assert {tuple(one) for one in found} == {MESSAGES}
    assert found[1] == {
        "id": "m3", "campaign": "thanks", "step": "one", "customer": "c1", "occasion": "order.placed:3", "channel": "email",
        "arm": "contact", "status": "sent", "reason": None, "due_at": "2026-06-15T14:00:00+00:00",
        "sent_at": "2026-06-15T14:00:00+00:00", "subject": "Hola, Ana", "release": 3,
        "detail": "", "look_at": None, "blocked_by": None, "until": None,
    }  # fmt: skip
    assert (found[2]["sent_at"], found[2]["subject"], found[2]["channel"]) == (None, "", None)


def test_messages_are_found_by_status_campaign_and_customer(db: Database) -> None:
    put(db, Customer, person(1), person(2))
    put(
        db,
        Message,
        *(message(n, 1 + n % 2, campaign=f"k{n % 3}", status="held" if n < 6 else "sent") for n in range(12)),
    )

    assert [one["id"] for one in messages(db, status="held", campaign="k1")] == ["m1", "m4"]
    assert [one["id"] for one in messages(db, customer="c2", campaign="k0")] == ["m3", "m9"]
    assert [one["id"] for one in messages(db, limit=2)] == ["m10", "m11"]
    assert messages(db, status="failed") == []
    with pytest.raises(NotFound, match="c'3"):
        messages(db, customer="c'3")


# Status


def test_status_tells_what_waits_and_what_is_stuck(db: Database, database_url: str) -> None:
    put(
        db,
        Release,
        *(
            {"id": n, "published_at": NOW - timedelta(days=9 - n), "files": {}, "files_hash": "x", "note": ""}
            for n in (1, 2)
        ),
    )
    put(
        db,
        Import,
        {"id": 1, "started_at": NOW, "finished_at": NOW, "counts": {}},
        {"id": 2, "started_at": NOW, "finished_at": None, "counts": {}},
    )
    blank = {"first_published_at": NOW, "cursor": NOW, "backfill": []}
    put(
        db,
        CampaignState,
        {"name": "thanks", **blank},
        {"name": "back", **blank, "paused_at": NOW, "paused_reason": "the volume brake"},
    )
    put(
        db,
        Tick,
        {"stage": "plan", "started_at": NOW, "finished_at": NOW, "counts": {"enrolled": 2}, "error": ""},
        {"stage": "dispatch", "started_at": NOW, "finished_at": None, "counts": {}, "error": ""},
    )
    put(
        db,
        Message,
        message(1, due_at=NOW + timedelta(days=1)),
        message(2, due_at=NOW - timedelta(days=2), blocked_by="hours"),
        message(3, due_at=NOW - timedelta(days=3), blocked_by="cap", channel="sms"),
        message(4, status="unknown", channel="email", sent_at=NOW - timedelta(hours=5)),
        sent(5, 1, NOW),
    )

    found = status.read(database_url, NOW)

    assert found.messages == {"planned": 3, "sent": 1, "unknown": 1}
    assert (found.release, found.released_at, found.last_import_at) == (2, NOW - timedelta(days=7), NOW)
    assert (found.due, found.blocked_by) == (2, {"cap": 1, "hours": 1})
    assert found.oldest_due == status.Waiting("m3", "thanks", "one", "sms", NOW - timedelta(days=3))
    assert found.unknown == [status.Waiting("m4", "thanks", "one", "email", NOW - timedelta(hours=5))]
    assert found.paused == [status.Paused("back", NOW, "the volume brake")]
    assert [(tick.stage, tick.finished_at, tick.counts) for tick in found.ticks] == [
        ("dispatch", None, {}),
        ("plan", NOW, {"enrolled": 2}),
    ]
    assert found.as_json()["oldest_due"]["at"] == "2026-06-12T15:00:00+00:00"
    assert found.as_json()["ticks"][1]["counts"] == {"enrolled": 2}


def test_the_status_of_a_new_database_is_empty(database_url: str) -> None:
    found = status.read(database_url, NOW)
    assert (found.release, found.messages, found.due, found.oldest_due, found.ticks) == (None, {}, 0, None, [])


def test_status_of_a_missing_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "not.db").write_text("this is no database, whatever its name says")
    (tmp_path / "empty.db").touch()
    for url, said in (
        (f"sqlite:///{tmp_path}/none.db", "no database at"),
        (f"sqlite:///{tmp_path}", "no database at"),
        (f"sqlite:///{tmp_path}/not.db", "cannot be used"),
        (f"sqlite:///{tmp_path}/empty.db", "no tables"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be used"),
        ("mysql://x", "write sqlite:///outreach.db"),
    ):
        with pytest.raises(DatabaseError, match=said) as caught:
            status.read(url, NOW)
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "none.db").exists()


def test_status_of_a_postgresql_without_our_tables_is_one_line(postgres_uri: Callable[[str], str]) -> None:
    with pytest.raises(DatabaseError, match="no tables"):
        status.read(postgres_uri("postgres"), NOW)


def test_status_imports_nothing_heavy() -> None:
    program = "import sys, outreach.reports.status; print([name for name in ('sqlalchemy', 'sqlmodel', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Audience


def put_people_with_consents(db: Database) -> None:
    put(
        db,
        Contact,
        *(
            {"id": n, "kind": "email" if n < 10 else "phone", "address": f"a{n}", "address_hash": f"h{n}"}
            for n in (1, 2, 3, 4, 5, 6, 11)
        ),
    )
    put(db, Contact, {"id": 7, "kind": "email", "address": None, "address_hash": "h7"})
    put(
        db,
        Customer,
        *(person(n, email_id=n, country="MX") for n in range(1, 8)),
        person(8, country="CO"),
        person(9, country="MX", merged_into=1),
    )
    put(db, Customer, person(10, phone_id=11, country="MX"))
    put(
        db,
        CustomerStats,
        *(
            {"customer_id": n, "orders_count": n, "total_spent": 0, "last_order_at": NOW - timedelta(days=n)}
            for n in (2, 3, 8)
        ),
    )
    said = {"by": "shop", "basis": "consent", "source": "", "words": "", "recorded_at": NOW, "channel": "email"}
    put(
        db,
        Consent,
        *({**said, "contact_id": n, "status": "granted", "at": NOW - timedelta(days=9)} for n in (1, 2, 3, 4, 5, 7)),
        {**said, "contact_id": 2, "status": "revoked", "at": NOW - timedelta(days=8)},
        {**said, "contact_id": 3, "status": "revoked", "at": NOW - timedelta(days=9)},  # at one instant, it wins
        {**said, "contact_id": 1, "status": "revoked", "at": NOW + timedelta(days=1)},  # not yet
        {**said, "contact_id": 11, "channel": "sms", "status": "granted", "at": NOW},
    )
    entry = {"kind": "email", "channel": "", "source": "", "at": NOW}
    put(
        db,
        Suppression,
        {**entry, "address_hash": "h4", "scope": "marketing"},
        {**entry, "address_hash": "h5", "scope": "contact", "channel": "email"},
        {**entry, "address_hash": "h1", "scope": "address", "lifted_at": NOW},
        {**entry, "address_hash": "h11", "scope": "address"},  # an e-mail's entry does not concern a phone
    )


def test_an_audience_has_a_count_a_reach_per_channel_and_examples(db: Database) -> None:
    put_people_with_consents(db)

    found = audience(db, SHOP, "country = 'MX'", NOW)

    assert (found.count, found.total) == (8, 9)
    assert [(r.channel, r.address, r.marketing, r.service) for r in found.reach] == [
        ("email", 6, 1, 3),  # marketing: 1; service: 1, 4 and 6, who never said anything
        ("sms", 1, 1, 1),
        ("whatsapp", 1, 0, 1),
    ]
    assert [one.customer for one in found.examples] == ["c2", "c3", "c1", "c4", "c5"]
    assert found.as_json()["examples"][0] == {
        "customer": "c2",
        "country": "MX",
        "orders_count": 2,
        "last_order_at": "2026-06-13T15:00:00+00:00",
    }
    assert found.as_json()["reach"]["sms"] == {"address": 1, "marketing": 1, "service": 1}


def test_an_audience_of_nobody_and_one_that_cannot_be_understood(db: Database) -> None:
    put_people_with_consents(db)
    nobody = audience(db, SHOP, "country = 'AR'", NOW)
    assert (nobody.count, nobody.total, nobody.examples) == (0, 9, ())
    assert {reach.service for reach in nobody.reach} == {0}
    with pytest.raises(ConditionError):
        audience(db, SHOP, "contry = 'MX'", NOW)


# Campaigns


GOALS = {"thanks": Goal("order.placed", Duration(days=30)), "back": Goal("order.placed", Duration(days=7))}


def enrolment(number: int, arm: str | None, campaign: str = "thanks", **more: Any) -> dict[str, Any]:
    at = more.pop("first_due_at", NOW - timedelta(days=1))
    return {
        "id": number, "campaign": campaign, "customer_id": number, "occasion": f"x:{number}", "occasion_at": at, "first_due_at": at,
        "experiment": campaign, "arm": arm, "release": 1, "created_at": at, **more,
    }  # fmt: skip


def test_the_campaign_report_counts_every_outcome_with_its_reason(db: Database) -> None:
    put(db, Customer, *(person(n) for n in range(1, 12)))
    put(
        db,
        Enrolment,
        enrolment(1, "contact"),
        enrolment(2, "contact"),
        enrolment(3, "holdout"),
        enrolment(4, None, reason="no_consent"),
        enrolment(5, None, reason="no_consent"),
        enrolment(6, "contact", first_due_at=NOW - timedelta(days=40)),
        enrolment(7, "contact", created_at=NOW + timedelta(days=1)),
    )
    ends = ["planned", "sending", "sent", "sent", "failed", "unknown", "held", "skipped", "expired", "cancelled"]
    reasons = {
        "failed": "refused",
        "held": "holdout",
        "skipped": "unless",
        "expired": "expired",
        "cancelled": "withdrawn",
    }
    put(db, Message, *(message(n, n, status=end, reason=reasons.get(end)) for n, end in enumerate(ends, 1)))
    put(db, Message, message(20, 11, status="sent", due_at=NOW - timedelta(days=40)))

    found = campaigns(db, SHOP, *JUNE, now=NOW, goals={})

    assert found.rows == [
        {
            "campaign": "thanks", "enrolled": 5, "assigned": 3, "holdout": 1, "planned": 2, "sent": 2, "failed": 1, "unknown": 1,
            "held": 1, "skipped": 1, "expired": 1, "cancelled": 1, "goal": None, "attributed": None, "rate": None, "low": None, "high": None,
            "by_reason": {"expired": 1, "holdout": 1, "no_consent": 2, "refused": 1, "unless": 1, "withdrawn": 1},
            "coupons": 0, "coupons_used": 0, "coupons_expired": 0, "revenue": {}, "discount": {},
        }
    ]  # fmt: skip
    assert set(found.columns) == set(found.rows[0])


def test_an_order_credits_the_last_message_before_it_within_the_goals_window(db: Database) -> None:
    start = NOW - timedelta(days=10)
    put(db, Customer, *(person(n) for n in range(1, 7)))
    put(
        db,
        Message,
        sent(1, 1, start),  # credited: ordered after 3 days
        sent(2, 2, start),  # not: a later message of another campaign was last
        sent(3, 2, start + timedelta(days=1), "back"),
        sent(4, 3, start, "back"),  # not: 8 days are past its window
        sent(5, 4, start),  # not: the order does not count
        sent(6, 5, start),  # credited once, with two orders
        message(7, 6, status="unknown", due_at=start, sent_at=start),  # nobody knows whether it left
    )
    put(
        db,
        Order,
        order(1, 1, start + timedelta(days=3)),
        order(2, 2, start + timedelta(days=2)),
        order(3, 3, start + timedelta(days=8)),
        order(4, 4, start + timedelta(days=1), counted=False, cancelled_at=NOW),
        *(order(5 + n, 5, start + timedelta(days=1 + n)) for n in (0, 1)),
        order(8, 6, start + timedelta(days=1)),
        order(9, 1, start - timedelta(days=1)),
        order(10, 3, NOW + timedelta(hours=1)),
    )

    rows = {row["campaign"]: row for row in campaigns(db, SHOP, *JUNE, now=NOW, goals=GOALS).rows}

    assert (rows["thanks"]["sent"], rows["thanks"]["attributed"], rows["thanks"]["rate"]) == (4, 2, 0.5)
    assert (rows["back"]["sent"], rows["back"]["attributed"], rows["back"]["rate"]) == (2, 1, 0.5)
    assert rows["thanks"]["goal"] == "order.placed within 30 days"
    assert 0 < rows["thanks"]["low"] < 0.5 < rows["thanks"]["high"] < 1


def test_goals_may_be_cases_closed_and_events_of_the_shop(db: Database) -> None:
    put(db, Customer, person(1))
    put(
        db,
        Message,
        sent(1, 1, NOW - timedelta(days=2)),
        sent(2, 1, NOW - timedelta(days=2), "back"),
        sent(3, 1, NOW - timedelta(days=2), "paid"),
    )
    put(
        db,
        Case,
        {
            "id": 1,
            "external_id": "k",
            "customer_id": 1,
            "kind": "return",
            "opened_at": NOW - timedelta(days=9),
            "closed_at": NOW - timedelta(days=1),
            "attributes": {},
            "row_hash": b"",
        },
    )
    put(
        db,
        ShopEvent,
        {
            "id": 1,
            "external_id": "e",
            "customer_id": 1,
            "name": "visit",
            "at": NOW - timedelta(hours=1),
            "attributes": {},
            "row_hash": b"",
        },
    )
    put(db, Order, order(1, 1, NOW - timedelta(days=9), paid_at=NOW - timedelta(hours=1)))
    month = Duration(months=1)
    goals = {"thanks": Goal("case.closed", month), "back": Goal("visit", month), "paid": Goal("order.paid", month)}

    rows = campaigns(db, SHOP, *JUNE, now=NOW, goals=goals).rows

    assert [(row["campaign"], row["attributed"]) for row in rows] == [("back", 1), ("paid", 1), ("thanks", 1)]


SENT = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40), st.sampled_from(["thanks", "back"])), max_size=8)
ORDERED = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60)), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent_to=SENT, ordered=ORDERED)
def test_attribution_equals_a_plain_count(
    db: Database, sent_to: list[tuple[int, int, str]], ordered: list[tuple[int, int]]
) -> None:
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    put_away = (Message, Order, Customer)
    with write(db) as connection:
        for model in put_away:
            connection.execute(delete(table(model)))
    put(db, Customer, *(person(n) for n in (1, 2, 3)))
    put(
        db,
        Message,
        *(
            sent(n, who, start + timedelta(days=day, seconds=n), campaign)
            for n, (who, day, campaign) in enumerate(sent_to)
        ),
    )
    put(db, Order, *(order(n, who, start + timedelta(days=day, hours=1)) for n, (who, day) in enumerate(ordered, 1)))
    now, goals = start + timedelta(days=50), GOALS

    credited: set[tuple[str, int]] = set()
    for who, day in ordered:
        at = start + timedelta(days=day, hours=1)
        before = [
            (start + timedelta(days=sent_day, seconds=n), campaign, n)
            for n, (customer, sent_day, campaign) in enumerate(sent_to)
            if customer == who
            and start + timedelta(days=sent_day, seconds=n)
            < at
            < start + timedelta(days=sent_day + goals[campaign].within.days, seconds=n)
        ]
        if before and at < now:
            credited.add(max(before)[1:])
    for first, last in ((date(2026, 5, 1), date(2026, 7, 1)), (date(2026, 5, 11), date(2026, 5, 21))):
        found = {row["campaign"]: row for row in campaigns(db, SHOP, first, last, now=now, goals=goals).rows}
        for campaign in goals:
            mine = [
                n
                for n, (_, day, name) in enumerate(sent_to)
                if name == campaign and first <= (start + timedelta(days=day)).date() < last
            ]
            if mine:
                expected = sum((campaign, n) in credited for n in mine)
                assert (found[campaign]["sent"], found[campaign]["attributed"]) == (len(mine), expected)
