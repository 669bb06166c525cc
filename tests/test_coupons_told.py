"""
Uses of a code that events and people tell of, beside the orders that the shop's files bring.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from outreach import coupons, store
from outreach.coupons import Verdict
from outreach.errors import OutreachError
from outreach.importer import posting
from outreach.reports.coupons import coupons as report
from outreach.store import Database
from tests.conftest import NOW
from tests.coupon_shop import AGAIN, GREET, CouponShop
from tests.shop import feed, order, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Teller = Callable[[CouponShop, str, str, str, datetime], None]


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> CouponShop:
    found = CouponShop(db, shop_settings(tmp_path))
    found.offer()
    found.publish(greet=GREET, again=AGAIN)
    return found


def given(shop: CouponShop, many: int = 1) -> list[tuple[str, str]]:
    """Customers with their codes."""
    shop.live(many)
    shop.arrive(many)
    shop.run()
    return sorted((str(one.customer), one.code) for one in coupons.listed(shop.db, NOW, status="issued"))


def by_event(shop: CouponShop, name: str, code: str, order: str, now: datetime) -> None:
    told = {"event_id": f"r-{order}", "customer_id": name, "name": "coupon.redeemed", "at": now.isoformat()}
    body = json.dumps({**told, "code": code, "order": order}).encode()
    posting.post_events(shop.db, shop.settings, now, posting.read_events(body, shop.settings, now))


def by_hand(shop: CouponShop, name: str, code: str, order: str, now: datetime) -> None:
    coupons.redeem(shop.db, shop.settings, code, now, customer=name, order=order)


telling = pytest.mark.parametrize("tell", [by_event, by_hand])


def told(shop: CouponShop) -> list[tuple[str, str, str]]:
    return sorted((one.order or "", one.source, one.verdict) for one in coupons.uses(shop.db))


def reported(shop: CouponShop) -> dict[str, Any]:
    row = report(shop.db, shop.settings, date(2026, 6, 1), date(2026, 7, 1), now=NOW + 9 * DAY).rows[0]
    return {name: row[name] for name in ("used", "orders", "left_out", "revenue")}


@telling
def test_what_was_told_of_an_order_stands_when_the_order_is_imported_again(shop: CouponShop, tell: Teller) -> None:
    ((name, code),) = given(shop)
    row = order(1, name, NOW + DAY)
    feed(shop.db, shop.settings, NOW + DAY, orders=[row])
    tell(shop, name, code, "o1", NOW + DAY)
    (before,) = coupons.uses(shop.db)

    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[{**row, "shipped_at": NOW + 2 * DAY}])

    assert coupons.uses(shop.db) == [before]
    assert before.verdict == "valid"
    assert coupons.redeem(shop.db, shop.settings, code, NOW + 3 * DAY) is Verdict.OVER_USED


@telling
def test_a_use_told_of_an_order_brings_in_what_the_order_does(shop: CouponShop, tell: Teller) -> None:
    ((name, code),) = given(shop)
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, name, NOW + DAY, total="850.00")])

    tell(shop, name, code, "o1", NOW + DAY)

    assert reported(shop) == {"used": 1, "orders": 1, "left_out": 0, "revenue": {"MXN": 85000}}
    (coupon,) = coupons.listed(shop.db, NOW + 2 * DAY, status="redeemed")
    assert coupon.order == "o1"


@telling
def test_an_order_that_is_cancelled_gives_back_what_was_told_of_it(shop: CouponShop, tell: Teller) -> None:
    ((name, code),) = given(shop)
    row = order(1, name, NOW + DAY, total="850.00")
    feed(shop.db, shop.settings, NOW + DAY, orders=[row])
    tell(shop, name, code, "o1", NOW + DAY)
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[order(2, name, NOW + 2 * DAY, coupon_code=code)])
    source = "event" if tell is by_event else "person"
    assert told(shop) == [("o1", source, "valid"), ("o2", "order", "over_used")]

    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[{**row, "cancelled_at": NOW + DAY + HOUR}])

    assert told(shop) == [("o1", source, "valid"), ("o2", "order", "valid")]
    assert reported(shop)["left_out"] == 1


def test_an_order_that_names_another_code_leaves_the_code_that_was_told_of_it(shop: CouponShop) -> None:
    (first, one), (_, two) = given(shop, 2)
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, first, NOW + DAY, coupon_code=two)])
    by_hand(shop, first, one, "o1", NOW + DAY)

    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, first, NOW + DAY, coupon_code="")])

    assert told(shop) == [("o1", "person", "valid")]
    assert [row.status for row in shop.coupons(code=two)] == ["issued"]


def test_of_a_code_that_everybody_has_it_must_be_said_who_used_it(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, codes: {shared: VUELVE15}}")
    shop.publish(greet=GREET)
    first, second = shop.arrive(2)
    shop.run()
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, second, NOW + DAY)])

    for unknown in (None, "o7"):
        with pytest.raises(OutreachError, match="everybody has the code VUELVE15: say who used it, with --customer"):
            coupons.redeem(shop.db, shop.settings, "VUELVE15", NOW + DAY, order=unknown)

    assert coupons.uses(shop.db) == []
    assert coupons.redeem(shop.db, shop.settings, "VUELVE15", NOW + DAY, customer=first) is Verdict.VALID
    assert coupons.redeem(shop.db, shop.settings, "VUELVE15", NOW + DAY, order="o1") is Verdict.VALID
    assert {one.customer for one in coupons.uses(shop.db)} == {first, second}


# --- orders that come in later ------------------------------------------------------------------------


@telling
def test_a_use_told_before_its_order_is_joined_to_it_when_it_comes_in(shop: CouponShop, tell: Teller) -> None:
    ((name, code),) = given(shop)
    tell(shop, name, code, "o1", NOW + DAY)
    source = "event" if tell is by_event else "person"
    assert coupons.uses(shop.db)[0].order is None
    assert reported(shop) == {"used": 1, "orders": 0, "left_out": 0, "revenue": {}}
    row = order(1, name, NOW + DAY, total="850.00")

    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[row, order(9, name, NOW + DAY)])

    assert told(shop) == [("o1", source, "valid")]
    assert reported(shop) == {"used": 1, "orders": 1, "left_out": 0, "revenue": {"MXN": 85000}}
    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[{**row, "cancelled_at": NOW + 2 * DAY}])
    assert reported(shop) == {"used": 1, "orders": 0, "left_out": 1, "revenue": {}}
    feed(shop.db, shop.settings, NOW + 4 * DAY, orders=[order(2, name, NOW + 4 * DAY, coupon_code=code)])
    assert told(shop) == [("o1", source, "valid"), ("o2", "order", "valid")]


@telling
def test_an_order_that_comes_in_cancelled_took_nothing_of_what_was_told_of_it(shop: CouponShop, tell: Teller) -> None:
    ((name, code),) = given(shop)
    tell(shop, name, code, "o1", NOW + DAY)
    later = order(2, name, NOW + 2 * DAY, coupon_code=code)
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[later])
    assert [verdict for *_, verdict in told(shop)] == ["valid", "over_used"]

    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[order(1, name, NOW + DAY, cancelled_at=NOW + 2 * DAY)])

    assert [verdict for *_, verdict in told(shop)] == ["valid", "valid"]


def test_a_use_told_without_a_customer_is_its_orders_customers(shop: CouponShop) -> None:
    (_, one), (second, _) = given(shop, 2)
    assert coupons.redeem(shop.db, shop.settings, one, NOW + DAY, order="o1") is Verdict.VALID

    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[order(1, second, NOW + DAY)])

    assert [(use.customer, use.order, use.verdict) for use in coupons.uses(shop.db)] == [
        (second, "o1", "wrong_customer")
    ]


def test_an_order_that_is_awaited_and_names_its_code_is_one_use(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    by_event(shop, name, code, "o1", NOW + DAY)

    for _ in range(2):
        feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[order(1, name, NOW + DAY, coupon_code=code)])

    assert told(shop) == [("o1", "order", "valid")]


def test_an_import_looks_for_awaited_orders_by_an_index_and_only_where_there_are_any(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    asked: list[tuple[str, Any]] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))

    feed(shop.db, shop.settings, NOW + DAY, orders=[order(n, name, NOW + DAY) for n in range(300)])
    alone = [one for one in asked if "coupon_r" in one[0]]
    by_event(shop, name, code, "later", NOW + DAY)
    asked.clear()
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(n, name, NOW + DAY) for n in range(300, 600)])
    awaited = [one for one in asked if "coupon_r" in one[0]]

    assert (len(alone), len(awaited)) == (1, 2)
    with store.read(shop.db) as connection:
        if not shop.db.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, values in awaited:
            how = "EXPLAIN QUERY PLAN" if shop.db.is_sqlite else "EXPLAIN"
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"{how} {statement}", values))
            assert "ix_coupon_redemptions_order" in plan, plan
