"""The reports on coupons, by offer and by campaign, against what each use says by itself."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import coupons, store
from outreach.models import Customer, table
from outreach.reports.campaigns import campaigns
from outreach.reports.coupons import COUPONS, taken_off
from outreach.reports.coupons import coupons as report
from outreach.settings import Business, Offer, Settings
from outreach.store import Database
from outreach.values import written
from tests.conftest import NOW
from tests.coupon_shop import AGAIN, GREET, CouponShop, refused
from tests.shop import feed, order, shop_settings

DAY = timedelta(days=1)
EVER = (date(1970, 1, 1), date(2200, 1, 1))
TEN = "{kind: percent, value: 10, expires: 14 days}"


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> CouponShop:
    made = CouponShop(db, shop_settings(tmp_path))
    made.offer(TEN)
    made.publish(greet=GREET)
    return made


def given(shop: CouponShop, many: int, now: datetime = NOW) -> list[tuple[str, str]]:
    """So many new customers with a code each: the shop's ids, and the codes."""
    shop.live(many)
    names = shop.arrive(many, now)
    shop.run(now)
    owner = {one.customer: one.code for one in coupons.listed(shop.db, now)}
    return [(name, owner[name]) for name in names]


def row_of(shop: CouponShop, now: datetime, name: str = "back", days: tuple[date, date] = EVER) -> dict[str, Any]:
    (row,) = [row for row in report(shop.db, shop.settings, *days, now=now).rows if row["offer"] == name]
    assert row["issued"] == row["used"] + row["expired"] + row["void"] + row["waiting"]
    return row


def test_each_code_stands_in_one_column_and_uses_bring_revenue_and_cost(shop: CouponShop) -> None:
    (ana, one), (bea, two), (_, three), (_, _) = given(shop, 4)
    coupons.void(shop.db, [three], "a mistake", NOW + DAY)
    used = [
        order(1, ana, NOW + DAY, coupon_code=one, total="900", currency="MXN"),
        order(2, bea, NOW + 4 * DAY, coupon_code=two, total="45.05", currency="EUR"),
        order(3, bea, NOW + 5 * DAY, coupon_code=two, total="10", currency="EUR"),
    ]
    feed(shop.db, shop.settings, NOW + 6 * DAY, orders=used)

    row = row_of(shop, NOW + 20 * DAY)

    assert tuple(row) == COUPONS
    assert (row["issued"], row["used"], row["expired"], row["void"], row["waiting"]) == (4, 2, 1, 1, 0)
    assert (row["customers"], row["redeemed"], row["rate"], row["not_valid"], row["orders"]) == (4, 2, 0.5, 1, 2)
    assert row["low"] < 0.5 < row["high"]
    assert row["revenue"] == {"EUR": 4505, "MXN": 90000}
    assert row["discount"] == {"EUR": 501, "MXN": 10000}
    assert row["median_days"] == 2.5
    assert row_of(shop, NOW + 20 * DAY, days=(date(2026, 6, 16), EVER[1]))["issued"] == 0


def test_a_report_as_of_an_earlier_moment_knows_nothing_later(shop: CouponShop) -> None:
    ((ana, one), _) = given(shop, 2)
    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[order(1, ana, NOW + 2 * DAY, coupon_code=one, total="90")])

    before, after = row_of(shop, NOW + DAY), row_of(shop, NOW + 3 * DAY)

    assert (before["used"], before["waiting"], before["revenue"]) == (0, 2, {})
    assert (after["used"], after["waiting"], after["orders"]) == (1, 1, 1)
    assert row_of(shop, NOW)["issued"] == 0


def test_an_order_that_does_not_count_brings_nothing_and_a_code_that_went_back_was_not_given_out(
    shop: CouponShop,
) -> None:
    ((ana, one),) = given(shop, 1)
    cancelled = order(1, ana, NOW + DAY, coupon_code=one, total="90", cancelled_at=NOW + 2 * DAY)
    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[cancelled])
    shop.live(1)
    shop.arrive(1, NOW + 3 * DAY)
    shop.run(NOW + 3 * DAY, refused)
    shop.dispatch(NOW + 3 * DAY)

    row = row_of(shop, NOW + 4 * DAY)

    assert (row["issued"], row["used"], row["orders"], row["left_out"]) == (1, 1, 0, 1)
    assert (row["revenue"], row["discount"]) == ({}, {})


def test_an_order_with_two_codes_of_one_offer_brings_its_revenue_once_and_costs_both(shop: CouponShop) -> None:
    shop.offer(TEN.replace("expires", "shareable: yes, expires"))
    (ana, one), (_, two) = given(shop, 2)
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, ana, NOW + DAY, coupon_code=f"{one}, {two}", total="90")])

    row = row_of(shop, NOW + 2 * DAY)

    assert (row["used"], row["orders"], row["revenue"], row["discount"]) == (2, 1, {"MXN": 9000}, {"MXN": 2000})


def test_customers_that_were_merged_are_one(shop: CouponShop) -> None:
    given(shop, 2)
    with store.write(shop.db) as connection:
        c = table(Customer).c
        connection.execute(table(Customer).update().where(c.external_id == "c1").values(merged_into=1))

    row = row_of(shop, NOW + DAY)

    assert (row["issued"], row["customers"]) == (2, 1)


def test_a_campaign_counts_the_codes_that_its_messages_brought_first(shop: CouponShop) -> None:
    shop.publish(greet=GREET, again=AGAIN)
    (ana, one), (bea, _) = given(shop, 2)
    shop.cart(ana, 1, NOW + DAY)
    shop.run(NOW + DAY)
    feed(shop.db, shop.settings, NOW + 3 * DAY, orders=[order(1, ana, NOW + 2 * DAY, coupon_code=one, total="90")])
    shop.live(1)
    shop.cart(bea, 2, NOW + 20 * DAY)
    shop.run(NOW + 20 * DAY)

    found = campaigns(shop.db, shop.settings, *EVER, now=NOW + 40 * DAY, goals={})

    columns = ("campaign", "sent", "coupons", "coupons_used", "coupons_expired", "revenue", "discount")
    assert [[row[name] for name in columns] for row in found.rows] == [
        ["again", 2, 1, 0, 1, {}, {}],
        ["greet", 2, 2, 1, 1, {"MXN": 9000}, {"MXN": 1000}],
    ]


@pytest.mark.parametrize(
    ("kind", "value", "total", "currency", "taken"),
    [
        ("percent", "10", 9000, "MXN", 1000),
        ("percent", "12.5", 7000, "MXN", 1000),
        ("percent", "100", 0, "MXN", 0),
        ("amount", "50", 20000, "MXN", 5000),
        ("amount", "1500", 30000, "CLP", 1500),
        ("gift", "a mug", 9000, "MXN", 0),
        ("free_shipping", "", 9000, "MXN", 0),
    ],
)
def test_what_an_offer_takes_off_follows_from_its_terms(
    kind: str, value: str, total: int, currency: str, taken: int
) -> None:
    assert taken_off(_settings(currency, Offer("x", kind, value)), "x", total, currency) == taken


def test_what_an_offer_took_off_in_another_currency_or_one_that_is_gone_is_not_known() -> None:
    shop = _settings("MXN", Offer("x", "amount", "100"))

    assert [taken_off(shop, name, 9000, code) for name, code in (("x", "EUR"), ("y", "MXN"))] == [0, 0]


def _settings(currency: str, offer: Offer) -> Settings:
    return Settings(workspace=Path(), business=Business("Luna", "UTC", currency), offers={offer.name: offer})


def test_amounts_are_written_with_as_many_places_as_their_currency_has() -> None:
    assert [written(123450, "MXN"), written(123450, "CLP"), written(-5, "EUR")] == [
        "1,234.50 MXN", "123,450 CLP", "-0.05 EUR",
    ]  # fmt: skip
