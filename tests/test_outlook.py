"""Why a tick of `plan` wrote no message, and what it says comes next."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert

from outreach import planner, releases, store
from outreach.models import Coupon, Tick, table
from outreach.planner import Outlook
from outreach.settings import Settings
from outreach.store import Database
from tests import test_cli
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings
from tests.test_cli import NOON, Run
from tests.test_planner import LAPSE, THANKS

run, shop, sent = test_cli.run, test_cli.shop, test_cli.sent
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
STEPS = "\n    steps:\n      - {id: one, after: 1 hour, channel: email, template: m}\n"


def timed(trigger: str) -> str:
    return f"title: T\n    purpose: service\n    trigger: {trigger}{STEPS}".replace("title", "    title", 1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def outlook(db: Database, settings: Settings, now: datetime) -> Outlook:
    found = planner.plan(db, settings, now).outlook
    assert found is not None
    return found


def test_nothing_published_no_campaign_on_no_customers_and_all_paused_are_said(
    db: Database, settings: Settings
) -> None:
    assert outlook(db, settings, NOW).why.startswith("Nothing is published: `outreach publish`")
    publish(db, settings, NOW, thanks=THANKS + "    active: no\n")
    assert "No campaign of release 1 is switched on" in outlook(db, settings, NOW).why
    publish(db, settings, NOW, thanks=THANKS)
    assert "`outreach import`" in outlook(db, settings, NOW).why
    feed(db, settings, NOW, customers=[customer(1)])
    releases.pause(db, "thanks", "by hand", NOW)
    assert outlook(db, settings, NOW).why.startswith("Every campaign that is switched on is paused (thanks)")


def test_orders_from_before_the_first_publish_are_said_to_be_left_alone(db: Database, settings: Settings) -> None:
    old = order(1, "c1", NOW - 9 * DAY, delivered_at=NOW - 5 * DAY)
    on_its_way = order(2, "c1", NOW - DAY)
    feed(db, settings, NOW, customers=[customer(1)], orders=[old, on_its_way])
    publish(db, settings, NOW, thanks=THANKS)

    found = outlook(db, settings, NOW + HOUR)

    assert found.lines() == [
        (
            "Nothing has come for thanks since 2026-06-15 09:00, when it was published; the newest order is of"
            " 2026-06-14 09:00. Older ones are left alone, unless a campaign says `backfill:`."
        ),
        "Next: thanks waits for order.delivered; not delivered yet, of the latest orders: 1.",
    ]
    assert (found.campaign, found.at, found.what) == (None, None, None)


def test_what_was_looked_at_and_passed_over_is_counted(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS.replace("steps:", "where: country = 'PE'\n    steps:"))
    early = order(1, "c1", NOW - 9 * DAY, delivered_at=NOW - 5 * DAY)
    other = order(2, "c1", NOW - DAY, delivered_at=NOW + HOUR)
    feed(db, settings, NOW + 2 * HOUR, customers=[customer(1)], orders=[early, other])

    found = outlook(db, settings, NOW + 2 * HOUR)

    assert found.why.startswith("2 occasions were looked at: 1 outside the time of their campaign")
    assert "1 of customers outside its `where`" in found.why
    assert outlook(db, settings, NOW + 3 * HOUR).why.startswith("Nothing has come for thanks")


def test_who_is_enrolled_and_waits_is_counted_with_the_day_of_the_next_step(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    row = order(1, "c1", NOW - DAY, delivered_at=NOW + HOUR)
    feed(db, settings, NOW + 2 * HOUR, customers=[customer(1)], orders=[row])

    first, again = outlook(db, settings, NOW + 2 * HOUR), outlook(db, settings, NOW + 3 * HOUR)

    assert first.why == "Enrolled 1, and no step of theirs is due yet."
    assert again.why == "Nothing new has come for thanks; the newest order is of 2026-06-14 09:00."
    assert first.next == again.next == (
        "Next: a step of thanks is due on 2026-06-18 10:00 (enrolled and waiting: 1)."
    )  # fmt: skip
    assert (again.campaign, again.at, again.what) == ("thanks", NOW + HOUR + 3 * DAY, "step")
    assert planner.plan(db, settings, NOW + HOUR + 3 * DAY).outlook is None


@pytest.mark.parametrize(
    ("trigger", "days"),
    [
        ("{event: customer.inactive, after: 90 days}", 90 - 40),
        ("{event: case.overdue, after: 5 days}", 3),
        ("{event: coupon.expiring, before: 3 days}", 7),
        ("{event: customer.birthday}", 17 - 9 / 24),  # midnight there
        ("{date: attributes.warranty_end, before: 10 days}", 36 - 9 / 24),
        ("{date: 2026-07-01, at: '09:00'}", 16),
        ("'{schedule: \"0 9 16 * *\"}'".strip("'"), 1),
    ],
)
def test_the_next_occasion_is_told_by_the_trigger(trigger: str, days: float, db: Database, settings: Settings) -> None:
    cells = {"birthday": "1990-07-02", "warranty_end": "2026-07-31"}
    opened = {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW - 2 * DAY}
    last = order(1, "c1", NOW - 40 * DAY)
    feed(db, settings, NOW, customers=[customer(1, **cells)], orders=[last], cases=[opened])
    coupon = {"key": "A", "code": "A", "offer": "gift", "status": "issued", "customer_id": 1, "made_at": NOW}
    with store.write(db) as connection:
        connection.execute(insert(table(Coupon)).values(**coupon, issued_at=NOW, expires_at=NOW + 10 * DAY))
    publish(db, settings, NOW, it=timed(trigger))

    found = outlook(db, settings, NOW)

    assert (found.at, found.campaign, found.what) == (NOW + timedelta(days=days), "it", "occasion")
    assert found.next.startswith("Next: it may take up its next customers on 2026-0")


def test_a_campaign_that_begins_later_says_when_and_one_that_has_ended_says_nothing(
    db: Database, settings: Settings
) -> None:
    feed(db, settings, NOW, customers=[customer(1)])
    publish(db, settings, NOW, it=THANKS + "    starts: 2026-07-01\n")
    assert outlook(db, settings, NOW).next == "Next: it starts on 2026-07-01 00:00, as its file says."
    publish(db, settings, NOW, it=timed("{date: 2026-07-01}") + "    ends: 2026-06-20\n")
    assert outlook(db, settings, NOW).at is None


def test_it_is_kept_with_the_tick_for_programs_and_for_status(db: Database, settings: Settings) -> None:
    found = planner.plan(db, settings, NOW)
    assert found.outlook is not None
    (tick,) = rows_of(db, Tick, stage="plan")
    assert tick.counts["outlook"] == json.loads(json.dumps(found.as_json()))["outlook"]
    assert set(tick.counts["outlook"]) == {"why", "next", "campaign", "at", "what"}


def test_the_tick_by_hand_says_it(sent: Run) -> None:
    said = sent("tick", "plan", "--now", NOON).out.splitlines()
    assert said[-2].startswith("Nothing new has come for thanks; the newest order is of")
    assert said[-1].startswith("Next: thanks waits for order.delivered")


def test_status_says_it_too(sent: Run) -> None:
    assert "wrote no message" not in sent("status", "--now", NOON).out
    assert sent("tick", "plan", "--json", "--now", NOON).json["outlook"]["why"].startswith("Nothing new has come")
    said = sent("status", "--now", NOON).out
    assert "The last `plan` wrote no message. Nothing new has come for thanks; the newest order is of" in said
    assert "Next: thanks waits for order.delivered" in said


def test_no_history_is_read_for_it(settings: Settings, new_database: Callable[[str], str]) -> None:
    """Every query of an idle tick goes by an index or reads a few rows."""
    opened = store.open_database(new_database("sqlite"), secret="a secret for tests")
    campaigns = {"thanks": THANKS, "lapse": LAPSE, "soon": timed("{event: coupon.expiring, before: 3 days}")}
    feed(opened, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - DAY)])
    publish(opened, settings, NOW, **campaigns)
    queries: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if statement.startswith("SELECT"):
            queries.append((statement, values))

    event.listen(opened.engine, "before_cursor_execute", note)
    planner.plan(opened, settings, NOW)
    event.remove(opened.engine, "before_cursor_execute", note)

    with store.read(opened) as connection:
        plans = [
            str(row[-1])
            for statement, values in queries
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    large = ("orders", "messages", "enrolments", "customer_stats", "coupons")
    scans = [plan for plan in plans for name in large if plan.startswith(f"SCAN {name}")]
    assert all("ix_orders_placed" in scan for scan in scans), scans
    opened.engine.dispose()
