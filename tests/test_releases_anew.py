"""
Which occasions are a campaign's own once its file has been away, has changed, or has another name.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from outreach import planner, releases
from outreach.models import Enrolment
from outreach.releases import publishing
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, order, publish, rows_of, shop_settings

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
OTHER = """
    title: Other
    purpose: service
    trigger: {event: order.refunded}
    steps:
      - {id: a, after: 0 days, channel: email, template: m}
"""
LAPSE = OTHER.replace("order.refunded", "customer.inactive, after: 90 days")
WEEKLY = OTHER.replace("{event: order.refunded}", '{schedule: "0 10 * * 1"}')
DELIVERED = OTHER.replace("order.refunded", "order.delivered")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def enrolled(db: Database) -> Counter[str]:
    return Counter(row.campaign for row in rows_of(db, Enrolment))


def lapsing(db: Database, settings: Settings, *, every: timedelta = DAY, many: int = 40) -> None:
    """So many customers, who lapse one after the other from tomorrow on."""
    last = [NOW - 89 * DAY + number * every for number in range(many)]
    people = [customer(number) for number in range(many)]
    feed(db, settings, NOW, customers=people, orders=[order(n, f"c{n}", at) for n, at in enumerate(last)])


def test_a_campaign_that_is_back_after_it_was_gone_takes_up_nothing_of_the_time_between(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, lapse=LAPSE, weekly=WEEKLY, other=OTHER)
    lapsing(db, settings)
    planner.plan(db, settings, NOW + MINUTE)
    publish(db, settings, NOW + MINUTE, other=OTHER)
    planner.plan(db, settings, NOW + 30 * DAY)

    said = releases.diff(db, settings, files_of(lapse=LAPSE, weekly=WEEKLY, other=OTHER), NOW + 30 * DAY)
    publish(db, settings, NOW + 30 * DAY, lapse=LAPSE, weekly=WEEKLY, other=OTHER)
    planner.plan(db, settings, NOW + 30 * DAY + MINUTE)

    assert said.new_campaigns == ()
    assert "campaign lapse begins anew: only later occasions" in said.lines()
    assert said.confirmed == (("weekly", 40),)
    assert enrolled(db) == {}
    planner.plan(db, settings, NOW + 33 * DAY)
    assert enrolled(db) == {"lapse": 3}


def test_a_renamed_campaign_that_is_back_begins_anew_too(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, lapse=LAPSE, other=OTHER)
    lapsing(db, settings)
    publish(db, settings, NOW + MINUTE, other=OTHER)

    renamed = "    was: lapse" + LAPSE
    assert releases.diff(db, settings, files_of(gone=renamed, other=OTHER), NOW + 30 * DAY).anew == ("gone",)
    publish(db, settings, NOW + 30 * DAY, gone=renamed, other=OTHER)
    planner.plan(db, settings, NOW + 30 * DAY + MINUTE)

    assert enrolled(db) == {}


@pytest.mark.parametrize("before", [DELIVERED, OTHER])
@pytest.mark.parametrize("after", [LAPSE, WEEKLY, OTHER.replace("refunded", "placed")])
def test_a_campaign_that_listens_to_something_else_takes_up_nothing_older(
    db: Database, settings: Settings, before: str, after: str
) -> None:
    publish(db, settings, NOW, turned=before)
    lapsing(db, settings)
    feed(db, settings, NOW + DAY, orders=[order(100, "c39", NOW + DAY)])
    planner.plan(db, settings, NOW + 20 * DAY)

    said = releases.diff(db, settings, files_of(turned=after), NOW + 20 * DAY)
    publish(db, settings, NOW + 20 * DAY, turned=after)
    planner.plan(db, settings, NOW + 20 * DAY + MINUTE)

    assert said.anew == ("turned",)
    assert enrolled(db) == {}


def test_a_start_that_was_taken_up_before_is_not_taken_up_again(db: Database, settings: Settings) -> None:
    began = f"    starts: {NOW.date()}"
    publish(db, settings, NOW, turned=began + OTHER)
    lapsing(db, settings)
    publish(db, settings, NOW + 20 * DAY, turned=began + LAPSE)
    planner.plan(db, settings, NOW + 20 * DAY + MINUTE)

    assert enrolled(db) == {}
    publish(db, settings, NOW + 21 * DAY, turned=f"    starts: {NOW.date() + 10 * DAY}" + WEEKLY)
    planner.plan(db, settings, NOW + 21 * DAY + MINUTE)
    assert enrolled(db) == {"turned": 40}  # the Monday since that new start


def test_an_order_that_is_on_its_way_is_of_a_campaign_that_listens_anew(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, turned=OTHER)
    coming = order(1, "c1", NOW - DAY, delivered_at=NOW + DAY)
    feed(db, settings, NOW, customers=[customer(1)], orders=[coming])
    planner.plan(db, settings, NOW + MINUTE)

    publish(db, settings, NOW + DAY / 2, turned=DELIVERED)
    planner.plan(db, settings, NOW + DAY + MINUTE)

    assert enrolled(db) == {"turned": 1}


@pytest.mark.parametrize(
    "edited",
    [
        DELIVERED.replace("id: a", "id: b"),
        DELIVERED.replace("title: Other", "title: Other\n    where: orders_count >= 1"),
        DELIVERED.replace("order.delivered", 'order.delivered, sku: "*"'),
        "    holdout: 0%" + DELIVERED,
    ],
)
def test_other_keys_leave_a_campaign_where_it_is(db: Database, settings: Settings, edited: str) -> None:
    publish(db, settings, NOW, news=DELIVERED)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - DAY, sku="x")])
    planner.plan(db, settings, NOW + MINUTE)

    files = files_of(news=edited)
    assert releases.diff(db, settings, files, NOW + 3 * DAY).anew == ()
    publish(db, settings, NOW + 3 * DAY, news=edited)
    late = order(1, "c1", NOW - DAY, sku="x", delivered_at=NOW + DAY)
    feed(db, settings, NOW + 3 * DAY, orders=[late])
    planner.plan(db, settings, NOW + 3 * DAY + MINUTE)

    assert enrolled(db) == {"news": 1}


def test_a_backfill_that_is_added_to_a_running_campaign_is_confirmed_and_taken_up(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, lapse=LAPSE)
    people = [customer(number) for number in range(1, 6)]
    orders = [order(number, f"c{number}", NOW - (100 + number) * DAY) for number in range(1, 6)]
    feed(db, settings, NOW, customers=people, orders=orders)
    planner.plan(db, settings, NOW + MINUTE)
    assert enrolled(db) == {}
    backfill = "    backfill: {last: 365 days, pace: 2 per day}"

    said = releases.diff(db, settings, files_of(lapse=backfill + LAPSE), NOW + DAY)
    publish(db, settings, NOW + DAY, lapse=backfill + LAPSE)
    planner.plan(db, settings, NOW + DAY + MINUTE)

    assert said.confirmed == (("lapse", 5),)
    assert said.anew == ()
    rows = rows_of(db, Enrolment)
    assert [row.occasion_at - NOW for row in rows] == [DAY, DAY, 2 * DAY, 2 * DAY, 3 * DAY]
    publish(db, settings, NOW + 9 * DAY, lapse=backfill + LAPSE.replace("Other", "Others"))
    planner.plan(db, settings, NOW + 9 * DAY + MINUTE)
    assert len(rows_of(db, Enrolment)) == 5


def test_publish_looks_for_times_to_come_before_it_locks_anything(db: Database, settings: Settings) -> None:
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - DAY, delivered_at=NOW + DAY)])
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(" ".join(statement.split()))

    event.listen(db.engine, "before_cursor_execute", note)
    publish(db, settings, NOW, news=DELIVERED)
    event.remove(db.engine, "before_cursor_execute", note)

    looked = [number for number, statement in enumerate(said) if "FROM orders" in statement]
    written = next(number for number, statement in enumerate(said) if statement.startswith("INSERT"))
    begun = next((number for number, text in enumerate(said) if "BEGIN IMMEDIATE" in text or "lock" in text), written)
    assert len(looked) == 1
    assert looked[0] < min(begun, written)


def test_what_is_imported_while_publish_looks_is_not_lost(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = publishing._look_ahead

    def look_and_import(*arguments: Any) -> Any:
        found = look(*arguments)
        feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - DAY, delivered_at=NOW + DAY)])
        return found

    monkeypatch.setattr(publishing, "_look_ahead", look_and_import)
    publish(db, settings, NOW, news=DELIVERED)
    planner.plan(db, settings, NOW + DAY + MINUTE)

    assert enrolled(db) == {"news": 1}
