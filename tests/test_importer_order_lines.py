"""Orders of several lines: whose rows they are, and what they cost together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from outreach.models import Order, OrderLine
from outreach.settings import Settings
from outreach.store import Database
from tests.shop import rows_of, shop_settings
from tests.test_importer import feed, rejects, tally

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def test_lines_whose_order_id_differs_only_in_blanks_are_of_one_order(db: Database, shop: Settings) -> None:
    text = (
        "order_id,customer_id,placed_at,total,sku\n"
        "o1,c1,2026-06-01 10:00,200,A\n"
        "o1 ,c1,2026-06-01 10:00,200,B\n"
        "o2,c1,2026-06-02 10:00,50,C\n"
    )
    assert tally(feed(db, shop, NOW, orders=text), "orders") == (2, 2, 0, 0, 0)
    assert [(o.external_id, o.total) for o in rows_of(db, Order)] == [("o1", 20000), ("o2", 5000)]
    assert [line.sku for line in rows_of(db, OrderLine)] == ["A", "B", "C"]
    assert tally(feed(db, shop, NOW, orders=text), "orders") == (2, 0, 0, 2, 0)


def test_an_order_whose_lines_cannot_be_added_up_is_refused(db: Database, shop: Settings) -> None:
    text = (
        "order_id,customer_id,placed_at,total,sku,quantity,unit_price\n"
        "o1,c1,2026-06-01 10:00,,A,1,100.00\n"
        'o1,c1,2026-06-01 10:00,,B,1,"1,250.00"\n'
        'o2,c2,2026-06-02 10:00,,C,"2,0",50\n'
        'o3,c3,2026-06-02 10:00,70,C,1,"1.250,00"\n'
        "o4,c3,2026-06-02 10:00,,C,2,5\n"
    )
    counts = feed(db, shop, NOW, orders=text)
    assert tally(counts, "orders") == (4, 2, 0, 0, 2)
    assert [(o.external_id, o.total) for o in rows_of(db, Order)] == [("o3", 7000), ("o4", 1000)]
    assert sorted((r["line"], r["column"]) for r in rejects(counts)) == [
        ("2", "total"),
        ("3", "unit_price"),
        ("4", "quantity"),
        ("4", "total"),
        ("5", "unit_price"),
    ]
    assert tally(feed(db, shop, NOW, orders=text), "orders") == (4, 0, 0, 2, 2)
    mended = text.replace('"1,250.00"', "1250.00").replace('"2,0"', "2")
    assert tally(feed(db, shop, NOW, orders=mended), "orders") == (4, 2, 0, 2, 0)
    assert {o.external_id: o.total for o in rows_of(db, Order)} == {"o1": 135000, "o2": 10000, "o3": 7000, "o4": 1000}


def test_a_file_of_new_orders_without_any_amount_says_so_once(db: Database, shop: Settings) -> None:
    bare = "order_id,customer_id,placed_at\no1,c1,2026-06-01\no2,c1,2026-06-02\n"
    (refused,) = rejects(feed(db, shop, NOW, orders=bare))
    assert (refused["line"], refused["column"]) == ("1", "total")
    assert "its 2 new orders are worth nothing" in refused["reason"]
    assert feed(db, shop, NOW, orders=bare).rejects_file is None
    delivered = "order_id,customer_id,placed_at,delivered_at\no1,c1,2026-06-01,2026-06-05\n"
    assert feed(db, shop, NOW, orders=delivered).rejects_file is None
