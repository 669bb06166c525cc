"""
Killing the other stages: `import`, `publish`, `plan`, `reconcile`.

Each is begun again, with the same input and the same `now`, as often as it is killed, until it gets
to its end; then every table must tell what an undisturbed run on a copy of the same database tells.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Literal

from outreach import importer, planner, reconciler, releases, store
from outreach.errors import ReleaseError
from outreach.settings import Settings
from outreach.sources.csv import CsvSource
from outreach.store import Database
from tests.conftest import SECRET
from tests.killing.databases import Databases
from tests.killing.processes import Death, Doom, start
from tests.killing.results import contents, differences
from tests.killing.storm import PATIENCE, Broken

LONGEST = 3_600.0  # real seconds that one attempt may take
Deaths = Callable[[int, float], "Iterable[Death | float]"]
Stage = Literal["import", "publish", "plan", "reconcile"]


@dataclass(frozen=True)
class Errand:
    """One run of a stage, to be done in a process of its own."""

    url: str
    settings: Settings
    stage: Stage
    now: datetime
    tables: Mapping[str, Path] | None = None  # of an import
    files: Mapping[str, str] | None = None  # of a publish
    again: bool = False  # an earlier attempt was killed
    death: Death | None = None


@dataclass(frozen=True)
class Compared:
    """What became of a stage that was killed again and again."""

    stage: Stage
    kills: int
    wrong: list[str]


# --- in the process -------------------------------------------------------------------------------


def do(pipe: Connection, errand: Errand) -> None:
    """Do it once; at the end say how many writing transactions it took."""
    os.dup2(os.open(_log(errand), os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    doom = Doom(errand.death)
    db = store.open_database(errand.url, secret=SECRET)
    doom.watch(db.engine)
    pipe.send("ready")
    _STAGES[errand.stage](db, errand)
    pipe.send(doom.steps["after_commit"])
    db.engine.dispose()


def _log(errand: Errand) -> Path:
    return errand.settings.workspace / f"{errand.stage}.log"


def _import(db: Database, errand: Errand) -> None:
    importer.import_source(db, errand.settings, CsvSource(dict(errand.tables or {})), errand.now)


def _publish(db: Database, errand: Errand) -> None:
    try:
        releases.publish(db, errand.settings, errand.files or {}, errand.now)
    except ReleaseError:  # an earlier attempt had come to its end
        if not errand.again:
            raise


def _plan(db: Database, errand: Errand) -> None:
    planner.plan(db, errand.settings, errand.now)


def _reconcile(db: Database, errand: Errand) -> None:
    while reconciler.reconcile(db, errand.settings, errand.now).looked:  # a tick asks about so many at most
        pass


_STAGES: dict[Stage, Callable[[Database, Errand], None]] = {
    "import": _import,
    "publish": _publish,
    "plan": _plan,
    "reconcile": _reconcile,
}


# --- from outside ---------------------------------------------------------------------------------


def undisturbed(errand: Errand) -> tuple[int, float]:
    """Do it in one go; gives how many writing transactions and real seconds it took."""
    died, steps, seconds = _attempt(errand)
    assert not died
    return steps, seconds


def interrupted(errand: Errand, deaths: Iterable[Death | float]) -> int:
    """
    Do it until it gets to its end, one attempt for each death, and a last one without; gives how often it was killed.

    A number is a moment: so many real seconds after the process was ready.
    """
    kills = 0
    for death in deaths:
        again = replace(errand, again=kills > 0)
        if isinstance(death, Death):
            died, _, _ = _attempt(replace(again, death=death))
        else:
            died, _, _ = _attempt(again, death)
        kills += died
        if not died:
            return kills
    undisturbed(replace(errand, again=kills > 0))
    return kills


def every_step(steps: int, *, before: bool = True) -> Iterator[Death]:
    """
    At every commit of a run that takes so many, after it and perhaps `before` it: the nth attempt dies at its nth.

    All earlier transactions of it have been done by its predecessors, so its own nth is the first
    that is new. Dying before a commit leaves in the database what dying after the one before does.
    """
    for nth in range(1, steps + 1):
        if before:
            yield Death("before_commit", nth)
        yield Death("after_commit", nth)


def any_moment(random: Random, seconds: float, steps: int, times: int) -> Iterator[Death | float]:
    """Moments of a run that takes so long, and steps of one that takes so many."""
    for _ in range(times):
        if random.random() < 0.5:
            yield random.uniform(0, seconds)
        else:
            yield Death(random.choice(("before_commit", "after_commit")), random.randint(1, steps))


def compare(databases: Databases, errand: Errand, deaths: Deaths, *, kills: int = 1) -> Compared:
    """
    The errand undisturbed on one copy of its database, interrupted on others, and at last on the database itself.

    `deaths` is told how many writing transactions and real seconds the undisturbed run took. A run
    that gets to its end before its deaths are used up is followed by another on a new copy, until
    there were so many kills.
    """
    url = databases.copy(errand.url)
    took = undisturbed(replace(errand, url=url))
    model = contents(url)
    done, wrong = 0, []
    for _ in range(2 * kills):
        copy = databases.copy(errand.url) if done < kills - 1 else errand.url
        done += interrupted(replace(errand, url=copy), deaths(*took))
        wrong += differences(model, contents(copy))
        if copy == errand.url:
            return Compared(errand.stage, done, wrong)
    undisturbed(errand)
    return Compared(errand.stage, done, [*wrong, *differences(model, contents(errand.url))])


def _attempt(errand: Errand, moment: float | None = None) -> tuple[bool, int, float]:
    """Whether it was killed, how many transactions it took, and how long after it was ready."""
    process, pipe = start(do, errand)
    steps, begun = 0, time.monotonic()
    try:
        if pipe.poll(PATIENCE) and pipe.recv() == "ready":
            begun = time.monotonic()
            if moment is not None and not wait([process.sentinel], moment):
                process.kill()
            if not pipe.poll(LONGEST):
                raise Broken(f"{errand.stage} did not end in {LONGEST:g} s")
            steps = pipe.recv()
    except (EOFError, ConnectionResetError):
        pass  # it is dead
    seconds = time.monotonic() - begun
    process.join(PATIENCE)
    code = process.exitcode
    pipe.close()
    if code not in (0, -signal.SIGKILL):
        process.kill()
        words = _log(errand).read_text(encoding="utf-8", errors="replace")
        raise Broken(f"{errand.stage} {'did not end' if code is None else f'ended with {code}'}:\n{words[-4000:]}")
    return code != 0, steps, seconds
