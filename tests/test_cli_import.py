"""`import`: what can be read goes in, whatever is wrong with the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import test_cli
from tests.test_cli import Run

run, shop = test_cli.run, test_cli.shop


@pytest.fixture
def torn(shop: Run, tmp_path: Path) -> Run:
    """Two of its three sources have no file."""
    settings = tmp_path / "outreach.yaml"
    before, _, after = settings.read_text().partition("sources:")
    rest = after.partition("\n\n")[2]
    named = [{"kind": "csv", table: f"data/{file}.csv"} for table, file in SOURCES]
    settings.write_text(f"{before}sources: {json.dumps(named)}\n\n{rest}")
    return shop


SOURCES = (("orders", "old"), ("customers", "customers"), ("cases", "cases"))


def test_a_source_that_cannot_be_read_keeps_none_of_the_others_out(torn: Run) -> None:
    done = torn("import")

    assert done.code == 1
    assert [line.rpartition("/")[2] for line in done.err.splitlines()] == [
        "old.csv: there is no such file",
        "cases.csv: there is no such file",
    ]
    assert "customers" in done.out
    assert "Who can be reached" in done.out
    assert torn("import", "--json").json["customers"]["unchanged"] > 0


def test_where_nothing_can_be_read_nothing_is_shown(torn: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "customers.csv").unlink()

    done = torn("import")

    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 3)
