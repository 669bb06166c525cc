"""
The main job on real records: two years of a shop's invoices, imported and reported through the command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from outreach import cli
from tests import records
from tests.records import Invoice, RealShop

real_shop = records.real_shop
pytestmark = pytest.mark.records

LATER = "2012-01-15T12:00"


@pytest.fixture
def outreach(
    real_shop: RealShop,
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """Runs `outreach ARGUMENTS --json` in a workspace of that shop, and gives what it printed."""
    (tmp_path / "outreach.yaml").write_text(real_shop.settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    monkeypatch.setenv("OUTREACH_SECRET", "a secret for tests")

    def run(*arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", ["outreach", *map(str, arguments), "--json", "--now", LATER])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert left.value.code in (0, None), printed.err
        return json.loads(printed.out)

    return run


def test_two_years_of_a_real_shop_give_the_known_retention_rate(
    outreach: Callable[..., Any], real_shop: RealShop
) -> None:
    files = ("--customers", real_shop.customers, "--orders", real_shop.orders, "--cases", real_shop.cases)
    year = ("--from", "2010-12-01", "--to", "2011-12-01")

    first = outreach("import", *files)

    every = {"customers": 5_942, "orders": 36_975, "cases": 7_897, "events": 0, "suppressions": 0}
    nothing = {"created": 0, "updated": 0, "unchanged": 0, "rejected": 0}
    assert {name: first[name] for name in every} == {n: {"read": k, **nothing, "created": k} for n, k in every.items()}
    assert first["rejects_file"] is None

    report = outreach("report", "retention", *year)

    (row,) = report["rows"]
    assert (row["before"], row["retained"], row["period"]) == (4_266, 2_713, "2010-12-01/2011-12-01")
    assert (row["rate"], row["low"], row["high"]) == pytest.approx((0.6360, 0.6214, 0.6503), abs=5e-5)
    assert report["left_out"] == {"cancelled": 0, "zero_amount": 6}

    again = outreach("import", *files)

    assert {name: again[name] for name in every} == {
        n: {"read": k, **nothing, "unchanged": k} for n, k in every.items()
    }
    assert outreach("report", "retention", *year) == report
    _agree_with_the_invoices(outreach, real_shop.invoices)


def _agree_with_the_invoices(outreach: Callable[..., Any], invoices: tuple[Invoice, ...]) -> None:
    """The monthly figures and the days to a second order, against plain passes over the invoices."""
    months: dict[str, set[str]] = {}
    orders: dict[str, list[datetime]] = {}
    for one in invoices:
        if one.is_counted:
            months.setdefault(f"{one.at:%Y-%m}", set()).add(one.customer)
            orders.setdefault(one.customer, []).append(one.at)
    names = sorted(months)
    rows = outreach("report", "retention", "--from", "2010-01-01", "--to", "2011-12-01", "--by", "month")["rows"]
    assert [(row["period"], row["before"], row["retained"]) for row in rows] == [
        (this, len(months[before]), len(months[before] & months[this])) for before, this in pairwise(names[:-1])
    ]

    cohorts = outreach("report", "cohorts", "--from", "2009-12-01", "--to", "2011-12-01", "--by", "month")["rows"]
    firsts = {name: {who for who, times in orders.items() if f"{times[0]:%Y-%m}" == name} for name in names}
    assert [(row["cohort"], row["size"], row["active"][:2]) for row in cohorts[:-1]] == [
        (this, len(firsts[this]), [len(firsts[this]), len(firsts[this] & months[after])])
        for this, after in pairwise(names[:-1])
    ]

    rows = outreach("report", "repurchase", "--from", "2009-12-01", "--to", "2010-12-01")["rows"]
    buyers = [times for times in orders.values() if times[0].date() < date(2010, 12, 1)]
    assert len(buyers) == 4_266
    for row in rows:  # all were followed for more than a year: the estimate is the plain share
        back = sum(
            any(at.date() > times[0].date() and (at - times[0]).total_seconds() <= row["days"] * 86_400 for at in times)
            for times in buyers
        )
        assert row["rate"] == pytest.approx(back / len(buyers))


def test_without_the_records_a_test_skips_at_home_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(records, "SHARED", tmp_path)
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="not here"):
        records.shared_file(records.INVOICES)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not here"):
        records.shared_file(records.INVOICES)
