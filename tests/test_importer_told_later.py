"""What a trigger filters on may come later than the time it fires at: the times are then looked at again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import planner
from outreach.models import Enrolment, Fresh, Message
from outreach.settings import Settings
from outreach.store import Database
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CAMPAIGN = """
    title: T
    purpose: service
    trigger: {trigger}
    steps:
      - {{id: a, after: 2 days, channel: [email], template: m}}
"""
TRIGGERS = {
    "closed": "{event: case.closed, outcome: [unresolved]}",
    "opened": "{event: case.opened, kind: cancellation}",
    "bought": '{event: order.placed, category: ["cafe*"]}',
}


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def case(number: int, **cells: Any) -> dict[str, Any]:
    cells = {"kind": "complaint", "closed_at": "", "outcome": "", "note": "", **cells}
    return {"case_id": f"k{number}", "customer_id": f"c{number}", "opened_at": NOW + MINUTE, **cells}


def queued(db: Database, after: int) -> list[tuple[str, datetime | None]]:
    return [(row.kind, row.at) for row in rows_of(db, Fresh) if row.id > after]


def last(db: Database) -> int:
    return max((row.id for row in rows_of(db, Fresh)), default=0)


def test_a_campaign_fires_once_what_it_filters_on_is_known(db: Database, shop: Settings) -> None:
    publish(db, shop, NOW, **{name: CAMPAIGN.format(trigger=text) for name, text in TRIGGERS.items()})

    def night(at: datetime, outcome: str, kind: str, category: str) -> None:
        cases = [case(1, closed_at=NOW + HOUR, outcome=outcome), case(2, kind=kind)]
        feed(db, shop, at, cases=cases, orders=[order(3, "c3", NOW + MINUTE, category=category)])
        planner.plan(db, shop, at + MINUTE)

    feed(db, shop, NOW, customers=[customer(n) for n in (1, 2, 3)])
    night(NOW + HOUR, "", "question", "")
    assert rows_of(db, Enrolment) == []
    night(NOW + DAY, "unresolved", "cancellation", "cafes")
    enrolled = rows_of(db, Enrolment)
    assert sorted(row.campaign for row in enrolled) == ["bought", "closed", "opened"]
    night(NOW + DAY + HOUR, "unresolved", "cancellation", "cafe")
    assert rows_of(db, Enrolment) == enrolled
    planner.plan(db, shop, NOW + 3 * DAY)
    assert len(rows_of(db, Message)) == 3


def test_only_a_change_of_what_triggers_see_puts_times_into_the_queue_again(db: Database, shop: Settings) -> None:
    cells: dict[str, Any] = {"sku": "A", "product": "Té", "category": "te", "quantity": "1", "status": "paid"}

    def told(**changes: Any) -> list[tuple[str, datetime | None]]:
        before = last(db)
        cells.update(changes)
        feed(db, shop, NOW, orders=[order(1, "c1", NOW - HOUR, paid_at=NOW, delivered_at="", **cells)])
        return [row for row in queued(db, before) if row[0] != "customer.last_order"]

    both = [("order.placed", NOW - HOUR), ("order.paid", NOW)]
    assert told() == both
    assert told() == []
    assert told(quantity="2") == told(note="x") == told(coupon_code="X") == []
    assert told(sku="B") == told(product="Café") == told(category="cafe") == both
    assert told(total="70") == told(status="sent") == []
    assert told(status="cancelled") == []


def test_a_case_told_of_anew_is_queued_again_but_not_for_its_note(db: Database, shop: Settings) -> None:
    def told(**changes: Any) -> list[tuple[str, datetime | None]]:
        before = last(db)
        feed(db, shop, NOW + HOUR, cases=[case(1, **changes)])
        return queued(db, before)

    opened = [("case.opened", NOW + MINUTE)]
    assert told() == opened
    assert told(note="x") == []
    assert told(kind="return") == told(kind="return", category="size") == opened
    closed = [("case.closed", NOW + HOUR)]
    assert told(kind="return", category="size", closed_at=NOW + HOUR) == closed
    assert told(kind="return", category="size", closed_at=NOW + HOUR, outcome="kept") == closed


def test_what_lies_before_the_look_back_is_not_queued_again(db: Database, shop: Settings) -> None:
    old = NOW - timedelta(days=3000)
    feed(db, shop, NOW, orders=[order(1, "c1", old, sku="A")])
    feed(db, shop, NOW, orders=[order(1, "c1", old, sku="B")])
    assert rows_of(db, Fresh) == []
