"""
Whose use of a code counts: orders that were cancelled, and people who have several records.
"""

from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from outreach import coupons
from outreach.models import CouponRedemption, Customer, MessageEvent, Reason, Status
from outreach.reports.coupons import coupons as report
from outreach.store import Database
from tests.conftest import NOW
from tests.coupon_shop import AGAIN, GREET, CouponShop
from tests.shop import customer, feed, order, rows_of, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ONCE = "{kind: percent, value: 15, expires: 2 days, per_customer: 1 per 180 days}"


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> CouponShop:
    found = CouponShop(db, shop_settings(tmp_path))
    found.offer()
    found.publish(greet=GREET, again=AGAIN)
    return found


def given(shop: CouponShop, many: int = 1, **cells: Any) -> list[tuple[str, str]]:
    """Customers with their codes."""
    shop.live(many)
    shop.arrive(many, **cells)
    shop.run()
    return sorted((str(one.customer), one.code) for one in coupons.listed(shop.db, NOW, status="issued"))


def told(shop: CouponShop) -> dict[str | None, str]:
    return {one.order: one.verdict for one in coupons.uses(shop.db)}


# --- orders that were cancelled ----------------------------------------------------------------------


def test_who_cancels_and_orders_again_with_the_same_code_has_used_it_once(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    first = order(1, name, NOW + DAY, coupon_code=code)
    second = order(2, name, NOW + DAY + HOUR, coupon_code=code)
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[first, second])
    assert told(shop) == {"o1": "valid", "o2": "over_used"}

    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[{**first, "cancelled_at": NOW + DAY + HOUR / 2}])

    assert told(shop) == {"o1": "valid", "o2": "valid"}
    (coupon,) = coupons.listed(shop.db, NOW + 2 * DAY, status="redeemed")
    assert (coupon.order, coupon.redeemed_at, coupon.used) == ("o2", NOW + DAY + HOUR, 1)
    row = report(shop.db, shop.settings, date(2026, 6, 1), date(2026, 7, 1), now=NOW + 3 * DAY).rows[0]
    assert (row["orders"], row["left_out"], row["not_valid"]) == (1, 1, 0)
    third = order(3, name, NOW + DAY + 2 * HOUR, coupon_code=code)
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[third])
    assert told(shop)["o3"] == "over_used"


@pytest.mark.parametrize("hearing", list(permutations(range(3))))
@pytest.mark.parametrize("cancelled", [{"cancelled_at": NOW + DAY + HOUR / 2}, {"status": "cancelled"}])
def test_the_order_of_imports_does_not_matter_to_what_a_cancelled_order_took(
    shop: CouponShop, hearing: tuple[int, ...], cancelled: dict[str, Any]
) -> None:
    ((name, code),) = given(shop)
    rows = [
        order(1, name, NOW + DAY, coupon_code=code, **cancelled),
        order(2, name, NOW + DAY + HOUR, coupon_code=code),
        order(3, name, NOW + DAY + 2 * HOUR, coupon_code=code),
    ]

    for _ in range(2):
        for number in hearing:
            feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[rows[number]])

    assert told(shop) == {"o1": "valid", "o2": "valid", "o3": "over_used"}
    assert {row.used for row in shop.coupons()} == {1}
    assert len(rows_of(shop.db, MessageEvent, kind="coupon_redeemed")) == 2


def test_a_code_that_brought_its_order_to_nothing_is_used(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    free = order(1, name, NOW + DAY, coupon_code=code, total="0")
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[free, order(2, name, NOW + DAY + HOUR, coupon_code=code)])

    assert told(shop) == {"o1": "valid", "o2": "over_used"}


def test_a_code_that_was_used_on_the_day_it_was_given_out_took_no_days(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    feed(shop.db, shop.settings, NOW + HOUR, orders=[order(1, name, NOW.date().isoformat(), coupon_code=code)])

    row = report(shop.db, shop.settings, date(2026, 6, 1), date(2026, 7, 1), now=NOW + DAY).rows[0]

    assert (row["used"], row["median_days"]) == (1, 0.0)


# --- several records of one person --------------------------------------------------------------------


@pytest.mark.parametrize("shared", [{"email": "ana@example.com"}, {"phone": "+525541234567"}])
def test_a_code_is_its_owners_by_whichever_of_their_records_they_order(
    shop: CouponShop, shared: dict[str, Any]
) -> None:
    ((_, code),) = given(shop, 1, **shared)
    twin, stranger = customer("guest", **shared), customer("other")
    rows = [
        order(1, "cother", NOW + DAY - HOUR, coupon_code=code),
        order(2, "cguest", NOW + DAY, coupon_code=code),
    ]

    feed(shop.db, shop.settings, NOW + 2 * DAY, customers=[twin, stranger], orders=rows)

    assert told(shop) == {"o1": "wrong_customer", "o2": "valid"}
    (owner,) = rows_of(shop.db, Customer, external_id="c0")
    (happened,) = rows_of(shop.db, MessageEvent, kind="coupon_redeemed")
    assert happened.customer_id == owner.id
    assert len(rows_of(shop.db, CouponRedemption)) == 2


def test_records_with_one_address_get_one_code_where_a_person_may_have_one(shop: CouponShop) -> None:
    shop.offer(ONCE)
    shop.publish(greet=GREET, again=AGAIN.replace("Again", "Once more"))
    shop.live(5)
    shop.arrive(2, email="ana@example.com")
    shop.arrive(1)

    shop.run()

    assert sorted(row.customer_id for row in shop.coupons(status="issued")) == [1, 3]
    (denied,) = shop.messages(customer_id=2)
    assert (denied.status, denied.reason, denied.detail) == (Status.SKIPPED, Reason.NO_COUPON, "back: 1 per 180 days")
    shop.cart("c1", 1, NOW + 3 * DAY)
    shop.run(NOW + 3 * DAY)
    assert [row.reason for row in shop.messages(campaign="again")] == [Reason.NO_COUPON]
    assert len(shop.coupons(status="live")) == 3


def test_records_with_one_address_have_a_code_each_where_the_offer_sets_no_limit(shop: CouponShop) -> None:
    shop.live(2)
    shop.arrive(2, email="ana@example.com")

    shop.run()

    assert sorted(row.customer_id for row in shop.coupons(status="issued")) == [1, 2]
