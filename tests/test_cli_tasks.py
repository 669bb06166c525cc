"""`tasks list` stands in the order in which `tasks next` gives them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from outreach import dispatcher, planner, releases
from outreach.settings import Settings
from outreach.store import Database
from tests import test_cli, test_tasks
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, files_of, order
from tests.test_cli import Run
from tests.test_cli_people import done
from tests.test_tasks import CALLS, SCRIPT, WORKSPACE

run, settings = test_cli.run, test_tasks.settings
HOUR = timedelta(hours=1)
MANY = 12
AT = ("--now", NOW.isoformat())


@pytest.fixture
def busy(
    run: Run, db: Database, settings: Settings, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs `outreach ARGUMENTS` beside three campaigns of calls, the least urgent first; many are due at one moment."""
    own = {f"calls{n}": f"{CALLS}    priority: {n}\n" for n in (10, 30, 20)}
    files = files_of(SCRIPT, **own)
    files[releases.CATALOGUE] = '{"surveys": {"csat": {"scale": "1-5"}}}'
    releases.publish(db, settings, files, NOW - HOUR)
    people = [customer(n, call_consent="yes") for n in range(MANY)]
    orders = [order(n, f"c{n}", NOW, delivered_at=NOW - timedelta(minutes=n % 3)) for n in range(MANY)]
    feed(db, settings, NOW, customers=people, orders=list(reversed(orders)))
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)
    (tmp_path / "outreach.yaml").write_text(WORKSPACE)
    monkeypatch.setenv("OUTREACH_SECRET", SECRET)
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    return run


def test_those_of_a_paused_campaign_come_last_and_are_not_given(busy: Run, db: Database) -> None:
    first = done(busy("tasks", "next", *AT, "--json")).json["task"]["id"]
    releases.pause(db, "calls30", "by hand", NOW)

    listed = done(busy("tasks", "list", *AT, "--json")).json["tasks"]

    assert (listed[0]["id"], listed[0]["status"]) == (first, "open")
    waiting = [task for task in listed if task["status"] == "waiting"]
    assert [task["campaign"] for task in waiting] == ["calls20"] * MANY + ["calls10"] * MANY + ["calls30"] * (MANY - 1)
    assert [task["paused"] for task in listed] == [False] * (2 * MANY + 1) + [True] * (MANY - 1)
    shown = done(busy("tasks", "list", *AT)).out
    assert shown.count("  paused  ") == MANY - 1
    assert "outreach tasks next" in shown

    for campaign in ("calls10", "calls20"):
        releases.pause(db, campaign, "by hand", NOW)
    assert "outreach tasks next" not in done(busy("tasks", "list", *AT)).out
    assert done(busy("tasks", "next", *AT)).out == "No task can be opened now.\n"


def test_each_that_next_gives_is_the_next_of_the_list(busy: Run) -> None:
    listed = [task["id"] for task in done(busy("tasks", "list", *AT, "--json")).json["tasks"]]
    given = [done(busy("tasks", "next", *AT, "--json")).json["task"]["id"] for _ in listed]
    assert len(listed) == 3 * MANY
    assert given == listed
