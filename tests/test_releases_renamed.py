"""
Whoever was held out stays so, and whoever was not, when a campaign gets another name.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from outreach import planner, releases
from outreach.models import Enrolment
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

DAY = timedelta(days=1)
NEWS = """
    title: News
    holdout: 50%
    trigger: {event: order.delivered}
    steps:
      - {id: a, after: 1 day, channel: email, template: m}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def renamed(was: str) -> str:
    return f"    was: {was}" + NEWS


def buy(db: Database, settings: Settings, day: int, *, people: range = range(24)) -> dict[int, tuple[str, str]]:
    """Everybody's order is delivered on that day; gives who was drawn into which arm, by which experiment."""
    at = NOW + day * DAY
    orders = [order(f"{day}-{n}", f"c{n}", at - DAY, delivered_at=at) for n in people]
    feed(db, settings, at, customers=[customer(n) for n in people], orders=orders)
    planner.plan(db, settings, at)
    return {row.customer_id: (row.arm, row.experiment) for row in rows_of(db, Enrolment) if row.occasion_at == at}


def test_nobody_changes_arms_when_a_campaign_is_renamed_once_or_twice(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, first=NEWS)
    drawn = buy(db, settings, 1)
    publish(db, settings, NOW + 2 * DAY, second=renamed("first"))
    again = buy(db, settings, 3)
    publish(db, settings, NOW + 4 * DAY, third=renamed("second"))
    once_more = buy(db, settings, 5)

    assert {arm for arm, _ in drawn.values()} == {"contact", "holdout"}
    assert drawn == again == once_more


def test_whoever_comes_after_the_renaming_is_drawn_as_they_would_have_been(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, first=NEWS)
    publish(db, settings, NOW, second=renamed("first"))

    drawn = buy(db, settings, 1)

    assert {experiment for _, experiment in drawn.values()} == {"first"}
    loaded = releases.current(db, settings)
    assert loaded is not None
    assert loaded.campaigns["second"].experiment == "first"


def test_a_new_campaign_of_the_former_name_is_an_experiment_of_its_own(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, first=NEWS)
    publish(db, settings, NOW, second=renamed("first"))
    number = publish(db, settings, NOW, second=NEWS, first=NEWS)

    drawn = buy(db, settings, 1)
    rows = rows_of(db, Enrolment)

    assert {row.campaign: row.experiment for row in rows} == {"second": "first", "first": f"first~{number}"}
    assert len(drawn) == 24
    publish(db, settings, NOW + DAY, second=NEWS, first=NEWS.replace("News", "Others"))
    buy(db, settings, 2)
    assert {row.experiment for row in rows_of(db, Enrolment)} == {"first", f"first~{number}"}


def test_an_experiment_that_the_file_names_is_not_changed(db: Database, settings: Settings) -> None:
    named = "    experiment: shared"
    publish(db, settings, NOW, first=named + NEWS)
    drawn = buy(db, settings, 1)
    publish(db, settings, NOW + 2 * DAY, second=named + "\n" + renamed("first"))

    assert buy(db, settings, 3) == drawn
    assert {experiment for _, experiment in drawn.values()} == {"shared"}


def test_a_renaming_that_is_rolled_back_draws_as_before(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, first=NEWS)
    drawn = buy(db, settings, 1)
    publish(db, settings, NOW + 2 * DAY, second=renamed("first"))
    releases.rollback(db, settings, 1, NOW + 3 * DAY)

    assert buy(db, settings, 4) == drawn
