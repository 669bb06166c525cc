"""
Real processes killed in mid-work: no message leaves twice and none gets lost, on every channel and either database.

The short run. `make torture` does the same for longer; `tests/killing` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from outreach import importer, planner, releases
from outreach.sources.csv import CsvSource
from outreach.store import open_database
from tests.conftest import NOW, SECRET
from tests.killing import records
from tests.killing.clock import Clock
from tests.killing.databases import KINDS, Databases, PostgresDatabases, SqliteFiles
from tests.killing.processes import STEPS, Death
from tests.killing.providers import CAN_BE_ASKED, provider
from tests.killing.shop import Shop
from tests.killing.stages import Errand, compare, every_step
from tests.killing.storm import DOUBT_OVER, LEASE_OVER, Storm
from tests.shop import files_of, shop_settings

SEED = 20260615
MESSAGES, KILLS, CHUNK = 120, 6, 10


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """Where databases of each kind come from."""
    made: Databases
    if request.param == "sqlite":
        made = SqliteFiles(tmp_path)
    else:
        uri: Callable[[str], str] = request.getfixturevalue("postgres_uri")
        made = PostgresDatabases(uri, request.getfixturevalue("postgres_template"))
    yield made
    made.close()


@contextmanager
def storm(databases: Databases, folder: Path, kind: str, chunk: int) -> Iterator[Storm]:
    clock = Clock(folder / "clock")
    with provider(kind, clock.file) as running:
        shop = Shop(databases.fresh(), folder, running.address)
        made = Storm(shop, running, clock, Random(f"{SEED}:{kind}"), chunk, folder)
        yield made
        made.massacre()


@pytest.mark.parametrize("kind", ["smtp", "sendgrid", "twilio"])
def test_whoever_is_killed_whenever_nothing_leaves_twice_and_all_is_accounted_for(
    databases: Databases, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    with storm(databases, tmp_path, kind, CHUNK) as there:
        there.begin(MESSAGES)
        there.rage(KILLS)
        there.settle()
        before = there.check()

        there.resolve(2 if kind in CAN_BE_ASKED else 0)
        after = there.check()

    again = f"seed {SEED}; to repeat: pytest '{request.node.nodeid}'"
    assert (before.wrong, after.wrong) == ([], []), again
    assert there.kills >= KILLS
    assert before.most_unknown <= CHUNK, again
    assert before.unknown <= CHUNK * (there.kills + there.stops), again
    assert after.unknown == (0 if kind in CAN_BE_ASKED else before.unknown), again
    assert after.accepted >= len(there.expected) - after.unknown, again


def test_a_dispatcher_that_dies_at_any_step_leaves_no_trace_but_doubt(databases: Databases, tmp_path: Path) -> None:
    """Each successor dies one step later than the one before, and at last a reconciler at each of its own."""
    with storm(databases, tmp_path, "twilio", 2) as there:
        there.shop = replace(there.shop, options={"parallel": 1})  # so that a step is the same one each time
        there.begin(120)
        deaths = [Death(step, nth) for step in STEPS for nth in range(1, 6 if "commit" in step else 4)]
        for death in deaths:
            there.clock.jump(LEASE_OVER)
            there.wait_for(there.hire("dispatch", death, until_idle=True))
        kills = there.kills
        there.settle()
        before = there.check()
        there.clock.jump(DOUBT_OVER)
        errand = Errand(
            there.shop.url, replace(there.shop, in_doubt="resend_if_absent").settings(), "reconcile", there.clock.now()
        )
        reconciled = compare(databases, errand, lambda steps, _: every_step(steps, before=False))
        there.resolve(0)
        after = there.check()

    assert kills == len(deaths)
    assert before.wrong == []
    assert before.most_unknown <= 2
    assert 0 < before.unknown <= 2 * len(deaths)
    assert reconciled.kills > 0
    assert reconciled.wrong == []
    assert (after.wrong, after.unknown) == ([], 0)
    assert after.accepted == len(there.expected)


def test_a_stage_killed_at_any_step_and_begun_again_leaves_what_an_undisturbed_one_leaves(
    databases: Databases, tmp_path: Path
) -> None:
    settings, url = shop_settings(tmp_path), databases.fresh()
    first = records.tables(tmp_path / "first", Random(SEED), 40)
    later = records.tables(tmp_path / "later", Random(SEED), 40, later=True)
    db = open_database(url, secret=SECRET)
    releases.publish(db, settings, files_of(**records.CAMPAIGNS), NOW - timedelta(days=1))
    importer.import_source(db, settings, CsvSource(dict(first)), NOW)
    planner.plan(db, settings, NOW)
    db.engine.dispose()
    errands = [
        Errand(url, settings, "import", records.LATER, tables=later),
        Errand(url, settings, "publish", records.LATER, files=files_of(**records.NEXT)),
        Errand(url, settings, "plan", records.LATER),
    ]

    done = [compare(databases, errand, lambda steps, _: every_step(steps, before=False)) for errand in errands]

    assert [(one.stage, one.wrong) for one in done] == [(errand.stage, []) for errand in errands]
    assert all(one.kills > 0 for one in done)
