"""
The daemon: APScheduler as the clock that calls the stages, and nothing else.

The scheduler remembers nothing (jobs in memory): what is due is always read from the database, so
that missed ticks, restarts and a second daemon are harmless. `now` is read from the clock here.

Logs are JSON lines with an `action` of a closed list; they hold counts and names of campaigns,
never an address or a text.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from outreach import alerts, dispatcher, importer, planner, sources, store
from outreach.channels import Channels
from outreach.errors import OutreachError
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import Duration

DISPATCH_AT_ONCE = 500  # messages under one reading of the clock: sending hours must not slip by meanwhile
ALERT_EVERY = Duration(seconds=60)
LOOK_SECONDS = 0.5  # a signal that comes just as a wait begins does not interrupt it
GRACE_SECONDS = 10.0  # for import and plan when stopping; cut off, their transaction is done again next time

log = logging.getLogger("outreach")


class Action(StrEnum):
    """Everything the log can say."""

    STARTED = "started"
    IMPORTED = "imported"
    PLANNED = "planned"
    DISPATCHED = "dispatched"
    ALERTED = "alerted"  # something began that a person should know, or is over
    UNTOLD = "untold"  # an alert did not get through; it is tried again
    FAILED = "failed"  # a stage's tick; the next one comes as usual
    STOPPING = "stopping"
    CUT_OFF = "cut_off"  # a stage was still busy when the grace period ended
    STOPPED = "stopped"


class Stop:
    """
    An event that a signal's handler may set while the same thread waits for it.

    `threading.Event` would then wait for its own lock for ever; `SimpleQueue.put` may interrupt itself
    (docs.python.org/3/library/queue.html).
    """

    def __init__(self) -> None:
        self._asked = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def is_set(self) -> bool:
        """Whether the daemon is asked to end."""
        return self._asked

    def set(self) -> None:
        """Ask it to end."""
        self._asked = True
        self._wake.put(None)

    def wait(self) -> None:
        """Return once it is asked to end; for one thread."""
        while not self._asked:
            with suppress(Empty):
                self._wake.get(timeout=LOOK_SECONDS)


@dataclass
class Daemon:
    """One running daemon: what its stages share."""

    settings: Settings
    db: Database
    stop: Stop = field(default_factory=Stop)
    channels: Channels = field(default_factory=Channels)  # kept open between ticks
    seen: dict[int, Signature] = field(default_factory=dict)  # by source: its files when they were imported
    busy: dict[str, threading.Lock] = field(default_factory=lambda: {stage: threading.Lock() for stage in STAGES})


Signature = tuple[tuple[str, int, int], ...]  # path, time of change, size


def run(settings: Settings, db: Database, *, adopt: bool = False, once: bool = False) -> None:
    """
    Run every stage on its clock until SIGTERM or SIGINT; with `once`, once each.

    The first signal lets the chunk in flight finish; a second one ends the process at once.

    Raises:
        DatabaseError: this database sends from elsewhere, and `adopt` is off.
    """
    store.adopt_host(db, store.this_host(settings.workspace), adopt=adopt)
    daemon = Daemon(settings, db)
    with _logging(), _signals(daemon.stop):
        _say(Action.STARTED, every={stage: str(_every(settings, stage)) for stage in STAGES})
        if once:
            for stage in STAGES:
                tick(daemon, stage)
        else:
            _until_stopped(daemon)
        daemon.channels.close()
        _say(Action.STOPPED)


def _until_stopped(daemon: Daemon) -> None:
    scheduler = BackgroundScheduler(
        jobstores={"default": MemoryJobStore()},
        executors={"default": ThreadPoolExecutor(len(STAGES))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
    )
    for stage in STAGES:
        every = _every(daemon.settings, stage).clock.total_seconds()
        scheduler.add_job(tick, "interval", (daemon, stage), seconds=every, id=stage, next_run_time=_now())
    scheduler.start()
    daemon.stop.wait()
    _say(Action.STOPPING)
    scheduler.shutdown(wait=False)
    _finish(daemon)


def _every(settings: Settings, stage: str) -> Duration:
    """How often a stage runs; the settings have no say in how often somebody looks after the others."""
    return settings.clock.get(stage, ALERT_EVERY) if stage == "alert" else settings.clock[stage]


def _finish(daemon: Daemon) -> None:
    """Wait for the chunk in flight, and a little for the stages that may be cut off anywhere."""
    while not daemon.busy["dispatch"].acquire(timeout=LOOK_SECONDS):
        pass
    late = [stage for stage in STAGES if stage != "dispatch" and not daemon.busy[stage].acquire(timeout=GRACE_SECONDS)]
    if late:
        _say(Action.CUT_OFF, stages=late)
        logging.shutdown()
        os._exit(0)  # their threads would be waited for


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    def asked(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    former = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


# --- one tick ------------------------------------------------------------------------------------


def tick(daemon: Daemon, stage: str) -> None:
    """One tick of a stage; an error is logged, kept for `status`, and never ends the daemon."""
    with daemon.busy[stage]:
        started = _now()
        try:
            if not daemon.stop.is_set():
                STAGES[stage](daemon)
        except Exception as error:
            what = str(error) if isinstance(error, OutreachError) else _place(error)
            _say(Action.FAILED, logging.ERROR, stage=stage, error=what)
            with suppress(Exception):  # what is wrong with the database has just been said
                _keep(daemon.db, stage, started, {}, what)


def _place(error: Exception) -> str:
    """What went wrong in the program, and where; never the error's own text, which may hold anything."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def _keep(db: Database, stage: str, started: datetime, counts: dict[str, Any], error: str = "") -> None:
    with store.write(db) as connection:
        store.record_tick(connection, stage, started, _now(), counts, error)


def _import(daemon: Daemon) -> None:
    """Import each source whose files have changed since this daemon last read them."""
    started, counts = _now(), {}
    for number, source in enumerate(daemon.settings.sources):
        files = {name: daemon.settings.workspace / path for name, path in source.files.items()}
        signature = _signature(files)
        if daemon.seen.get(number) != signature:
            opened = sources.open_source(source, daemon.settings.workspace)
            counts = importer.import_source(daemon.db, daemon.settings, opened, _now()).as_json()
            daemon.seen[number] = signature
            _say(Action.IMPORTED, counts=counts)
    _keep(daemon.db, "import", started, counts)


def _signature(files: Mapping[str, Path]) -> Signature:
    """A file that is not there has no time and no size: `import` says what is wrong with it."""
    stats = [(path, path.stat() if path.exists() else None) for _, path in sorted(files.items())]
    return tuple((str(path), stat.st_mtime_ns if stat else 0, stat.st_size if stat else -1) for path, stat in stats)


def _plan(daemon: Daemon) -> None:
    counts = planner.plan(daemon.db, daemon.settings, _now()).as_json()
    _say_if_any(Action.PLANNED, counts)


def _dispatch(daemon: Daemon) -> None:
    """Until nothing is due, the clock read anew for every few hundred messages."""
    while not daemon.stop.is_set():
        counts = dispatcher.dispatch(
            daemon.db,
            daemon.settings,
            _now(),
            limit=DISPATCH_AT_ONCE,
            stop=daemon.stop.is_set,
            channels=daemon.channels,
        )
        _say_if_any(Action.DISPATCHED, counts.as_json())
        if counts.claimed < DISPATCH_AT_ONCE:
            break


def _alert(daemon: Daemon) -> None:
    """Look for what a person should know; a telling that fails is no failure of the stage."""
    counts = alerts.watch(daemon.db, daemon.settings, _now())
    for one in counts.untold:
        _say(Action.UNTOLD, logging.WARNING, by=one.by, alarm=one.alarm, why=one.why)
    changed = counts.begun or counts.over or counts.told
    _say(Action.ALERTED, logging.INFO if changed else logging.DEBUG, counts=counts.as_json())


STAGES: Mapping[str, Callable[[Daemon], None]] = {
    "import": _import,
    "plan": _plan,
    "dispatch": _dispatch,
    "alert": _alert,
}


def _now() -> datetime:
    return datetime.now(UTC)


# --- the log ---------------------------------------------------------------------------------------


def _say(action: Action, level: int = logging.INFO, **fields: Any) -> None:
    log.log(level, action.value, extra={"action": action.value, "fields": fields})


def _say_if_any(action: Action, counts: Mapping[str, Any]) -> None:
    """A tick that found nothing to do is no news."""
    _say(action, logging.INFO if any(counts.values()) else logging.DEBUG, counts=counts)


class JsonLines(logging.Formatter):
    """One JSON object a line; a record that is not ours shows its logger's name, not its text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, action and fields."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        action = getattr(record, "action", record.name)
        line = {"at": at, "level": record.levelname.lower(), "action": action, **getattr(record, "fields", {})}
        return json.dumps(line, ensure_ascii=False, default=str)


@contextmanager
def _logging() -> Iterator[None]:
    """Our own log on stderr while the daemon runs; the scheduler's only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    former = []
    for one, level in ((log, logging.INFO), (logging.getLogger("apscheduler"), logging.ERROR)):
        former.append((one, one.level, one.propagate))
        one.addHandler(handler)
        one.setLevel(level)
        one.propagate = False
    try:
        yield
    finally:
        for one, level, propagate in former:
            one.removeHandler(handler)
            one.setLevel(level)
            one.propagate = propagate
