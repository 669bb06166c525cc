"""A refused cell leaves what is stored as it is; an empty one clears it; a mended one is taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach.models import Case, Fresh, Order, OrderLine
from outreach.settings import OrderEstimates, Settings
from outreach.store import Database
from outreach.values import parse_duration
from tests.shop import feed, order, rows_of, shop_settings

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TYPO = "15/06/2026 17:00"


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def case(**cells: Any) -> dict[str, Any]:
    return {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW, **cells}


def test_a_mistyped_delivery_date_changes_nothing_of_what_is_stored(db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, orders=[order(1, "c1", NOW - DAY, delivered_at=NOW)])
    queued = rows_of(db, Fresh)
    wrong = [order(1, "c1", NOW - DAY, delivered_at=TYPO)]
    for _ in range(2):
        counts = feed(db, shop, NOW + DAY, orders=wrong)
        assert counts.rejects_file
        assert [o.delivered_at for o in rows_of(db, Order)] == [NOW]
        assert rows_of(db, Fresh) == queued
    assert counts.orders.unchanged == 1
    feed(db, shop, NOW + DAY, orders=[order(1, "c1", NOW - DAY, delivered_at=NOW + HOUR)])
    assert [o.delivered_at for o in rows_of(db, Order)] == [NOW + HOUR]
    feed(db, shop, NOW + DAY, orders=[order(1, "c1", NOW - DAY, delivered_at="")])
    assert [o.delivered_at for o in rows_of(db, Order)] == [None]


def test_a_mistyped_cancellation_leaves_an_order_cancelled(db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, orders=[order(1, "c1", NOW - DAY, cancelled_at=NOW)])
    feed(db, shop, NOW + DAY, orders=[order(1, "c1", NOW - DAY, cancelled_at=TYPO)])
    assert [(o.cancelled_at, o.counted) for o in rows_of(db, Order)] == [(NOW, False)]


def test_an_estimate_stays_one_where_the_delivery_date_is_mistyped(db: Database, tmp_path: Path) -> None:
    shop = shop_settings(tmp_path, orders=OrderEstimates(delivered=("shipped", parse_duration("5 days"))))
    feed(db, shop, NOW, orders=[order(1, "c1", NOW - 2 * DAY, shipped_at=NOW - 2 * DAY, delivered_at="")])
    feed(db, shop, NOW, orders=[order(1, "c1", NOW - 2 * DAY, shipped_at=NOW - DAY, delivered_at=TYPO)])
    assert [o.delivered_at for o in rows_of(db, Order)] == [NOW + 4 * DAY]


def test_a_refused_cell_of_a_line_leaves_the_stored_one(db: Database, shop: Settings) -> None:
    def lines(price: str, pieces: str = "2") -> list[dict[str, Any]]:
        return [
            order(1, "c1", NOW - DAY, sku="A", quantity="1", unit_price="50"),
            order(1, "c1", NOW - DAY, sku="B", quantity=pieces, unit_price=price),
        ]

    feed(db, shop, NOW, orders=lines("25"))
    feed(db, shop, NOW, orders=lines("1,250.00", "3"))
    assert [(x.sku, x.quantity, x.unit_price) for x in rows_of(db, OrderLine)] == [("A", "1", 5000), ("B", "3", 2500)]
    feed(db, shop, NOW, orders=lines("1250.00", "3"))
    assert [(x.sku, x.quantity, x.unit_price) for x in rows_of(db, OrderLine)] == [("A", "1", 5000), ("B", "3", 125000)]


def test_a_mistyped_closing_time_does_not_reopen_a_case(db: Database, shop: Settings) -> None:
    closed = NOW + HOUR
    feed(db, shop, NOW + 2 * HOUR, cases=[case(closed_at=closed, outcome="resolved", note="x")])
    queued = rows_of(db, Fresh)
    for _ in range(2):
        counts = feed(db, shop, NOW + DAY, cases=[case(closed_at=TYPO, outcome="solved", note="y")])
        assert [(c.closed_at, c.outcome, c.note) for c in rows_of(db, Case)] == [(closed, "resolved", "y")]
        assert rows_of(db, Fresh) == queued
    assert counts.cases.unchanged == 1
    feed(db, shop, NOW + DAY, cases=[case(closed_at=closed + HOUR, outcome="", note="y")])
    assert [(c.closed_at, c.outcome) for c in rows_of(db, Case)] == [(closed + HOUR, None)]
    feed(db, shop, NOW + DAY, cases=[case(closed_at="", outcome="", note="y")])
    assert [c.closed_at for c in rows_of(db, Case)] == [None]
