"""The report on coupons of a shop with very many offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from outreach.reports.coupons import coupons as report
from outreach.store import Database
from tests import test_cli
from tests.conftest import NOW
from tests.coupon_shop import GREET, CouponShop
from tests.shop import shop_settings
from tests.test_cli import NOON, Run
from tests.test_reports_coupons import DAY, EVER, TEN, given

run, shop = test_cli.run, test_cli.shop


@pytest.fixture
def many(db: Database, tmp_path: Path) -> CouponShop:
    """A shop with one offer that is used, and forty that are not."""
    made = CouponShop(db, shop_settings(tmp_path))
    made.offer(TEN, **{f"a{n}": TEN for n in range(40)})
    made.publish(greet=GREET)
    return made


def test_the_offers_that_gave_out_the_most_come_first_and_the_others_are_counted(many: CouponShop) -> None:
    given(many, 2)
    found = report(many.db, many.settings, *EVER, now=NOW + DAY, limit=3)
    assert [row["offer"] for row in found.rows] == ["back", "a0", "a1"]
    assert found.as_json()["offers_not_shown"] == 38
    whole = report(many.db, many.settings, *EVER, now=NOW + DAY, limit=99)
    assert (len(whole.rows), whole.more) == (41, {})
    assert [row["offer"] for row in report(many.db, many.settings, *EVER, now=NOW + DAY).rows][-1] == "back"


def test_the_verb_takes_a_limit(shop: Run, tmp_path: Path) -> None:
    offers = "".join(f"  a{n}: {{kind: percent, value: 10, expires: 9 days}}\n" for n in range(3))
    with (tmp_path / "outreach.yaml").open("a") as file:
        file.write(f"offers:\n{offers}")
    shown = shop("report", "coupons", "--limit", "1", "--now", NOON)
    assert (shown.code, "a0" in shown.out, "a1" in shown.out) == (0, True, False)
    assert shown.out.endswith("Offers not shown: 2.\n")
    assert "Offers not shown" not in shop("report", "coupons", "--now", NOON).out
