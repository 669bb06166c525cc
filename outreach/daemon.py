"""
The daemon: APScheduler as the clock that calls the stages, and nothing else.

The scheduler remembers nothing (jobs in memory): what is due is always read from the database, so
that missed ticks, restarts and a second daemon are harmless. `now` is read from the clock here.

Logs are JSON lines with an `action` of a closed list; they hold counts and names of campaigns,
never an address or a text.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from outreach import alerts, clocks, dispatcher, importer, inbox, mailbox, planner, reconciler, releases, sources, store
from outreach.channels import Channels
from outreach.errors import ImportFileError, ListenError, OutreachError
from outreach.logs import place, say, to_stderr
from outreach.settings import Settings
from outreach.signals import LOOK_SECONDS, Stop, stop_on_signals
from outreach.store import Database
from outreach.values import Duration

DISPATCH_AT_ONCE = 500  # messages under one reading of the clock: sending hours must not slip by meanwhile
ALERT_EVERY = Duration(seconds=60)
GRACE_SECONDS = 10.0  # for each other stage when stopping; cut off, its transaction is done again next time
LISTEN_AGAIN_SECONDS = 30.0  # how soon a port that somebody else had is tried again


class Action(StrEnum):
    """Everything the log can say."""

    STARTED = "started"
    IMPORTED = "imported"
    PLANNED = "planned"
    DISPATCHED = "dispatched"
    RECEIVED = "received"  # what came back was made facts and replies
    FETCHED = "fetched"  # new mail was read from the mailbox
    RECONCILED = "reconciled"  # messages in doubt were looked for
    ALERTED = "alerted"  # something began that a person should know, or is over
    PAUSED = "paused"  # a campaign, with the reason; its messages wait until somebody resumes it
    UNTOLD = "untold"  # an alert did not get through; it is tried again
    FAILED = "failed"  # a stage's tick; the next one comes as usual
    SERVING = "serving"  # the web app
    NOT_SERVING = "not_serving"  # somebody else has its port; it is tried again, and the stages go on
    STOPPING = "stopping"
    CUT_OFF = "cut_off"  # a stage was still busy when the grace period ended
    STOPPED = "stopped"


@dataclass
class Daemon:
    """One running daemon: what its stages share."""

    settings: Settings
    db: Database
    stop: Stop = field(default_factory=Stop)
    channels: Channels = field(default_factory=Channels)  # kept open between ticks
    asking: Channels = field(default_factory=Channels)  # the reconciler's own: a channel is for one thread at a time
    seen: dict[int, Signature] = field(default_factory=dict)  # by source: its files when they were imported
    paused: dict[str, str] = field(default_factory=dict)  # by campaign: the reason, as the log has said it
    busy: dict[str, threading.Lock] = field(default_factory=lambda: {stage: threading.Lock() for stage in STAGES})


@dataclass(frozen=True)
class Address:
    """Where the web app listens; `needed`: a port that somebody else has is an error."""

    host: str = "127.0.0.1"
    port: int = 8080
    needed: bool = False


Signature = tuple[tuple[str, int, int], ...]  # path, time of change, size


def run(
    settings: Settings, db: Database, *, adopt: bool = False, once: bool = False, web: Address | None = None
) -> None:
    """
    Run every stage on its clock until SIGTERM or SIGINT, and the web app beside them; with `once`, once each.

    The first signal lets the chunk in flight finish; a second one ends the process at once.

    Raises:
        DatabaseError: this database sends from elsewhere, and `adopt` is off.
        ListenError: the web app cannot listen where it needs to.
    """
    store.adopt_host(db, store.this_host(settings.workspace), adopt=adopt)
    daemon = Daemon(settings, db)
    with to_stderr("apscheduler", "uvicorn"), stop_on_signals(daemon.stop), _web(daemon, web):
        say(Action.STARTED, every={stage: str(_every(settings, stage)) for stage in STAGES})
        if once:
            for stage in STAGES:
                tick(daemon, stage)
        else:
            _until_stopped(daemon)
        daemon.channels.close()
        daemon.asking.close()
        say(Action.STOPPED)


def serve(settings: Settings, db: Database, at: Address) -> None:
    """
    Serve the web app alone until SIGTERM or SIGINT; requests under way are answered first.

    Raises:
        ListenError: it cannot listen there.
    """
    daemon = Daemon(settings, db)
    with to_stderr("uvicorn"), stop_on_signals(daemon.stop), _web(daemon, at):
        daemon.stop.wait()
        say(Action.STOPPING)
    say(Action.STOPPED)


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
    while not daemon.stop.is_set():
        time.sleep(LOOK_SECONDS)
        _call_now_what_waits_too_long(scheduler)
    say(Action.STOPPING)
    scheduler.shutdown(wait=False)
    _finish(daemon)


def _call_now_what_waits_too_long(scheduler: BackgroundScheduler) -> None:
    """
    Let no stage wait for longer than it does between two ticks.

    The scheduler waits for a time of the wall clock: put back three hours, it would call nothing for three hours.
    """
    now = datetime.fromtimestamp(clocks.read()[0], UTC)
    for job in scheduler.get_jobs():
        if job.next_run_time - now > job.trigger.interval:
            job.modify(next_run_time=now)


def _every(settings: Settings, stage: str) -> Duration:
    """How often a stage runs; the settings have no say in how often somebody looks after the others."""
    return settings.clock.get(stage, ALERT_EVERY) if stage in ("alert", "mail") else settings.clock[stage]


def _finish(daemon: Daemon) -> None:
    """Wait for the chunk in flight, and a little for the stages that may be cut off anywhere."""
    while not daemon.busy["dispatch"].acquire(timeout=LOOK_SECONDS):
        pass
    late = [stage for stage in STAGES if stage != "dispatch" and not daemon.busy[stage].acquire(timeout=GRACE_SECONDS)]
    if late:
        say(Action.CUT_OFF, stages=late)
        logging.shutdown()
        os._exit(0)  # their threads would be waited for


# --- one tick ------------------------------------------------------------------------------------


def tick(daemon: Daemon, stage: str) -> None:
    """One tick of a stage; an error is logged, kept for `status`, and never ends the daemon."""
    with daemon.busy[stage]:
        started = _now()
        try:
            if not daemon.stop.is_set():
                STAGES[stage](daemon)
        except Exception as error:
            what = str(error) if isinstance(error, OutreachError) else place(error)
            say(Action.FAILED, logging.ERROR, stage=stage, error=what)
            with suppress(Exception):  # what is wrong with the database has just been said
                _keep(daemon.db, stage, started, {}, what)


def _keep(db: Database, stage: str, started: datetime, counts: dict[str, Any], error: str = "") -> None:
    with store.write(db) as connection:
        store.record_tick(connection, stage, started, _now(), counts, error)


def _import(daemon: Daemon) -> None:
    """Import each source whose files have changed since this daemon last read them, whatever is wrong with others."""
    started, counts = _now(), {}
    wrong = []
    for number, source in enumerate(daemon.settings.sources):
        files = {name: daemon.settings.workspace / path for name, path in source.files.items()}
        signature = _signature(files)
        if daemon.seen.get(number) != signature:
            try:
                opened = sources.open_source(source, daemon.settings.workspace)
                counts = importer.import_source(daemon.db, daemon.settings, opened, _now()).as_json()
            except ImportFileError as error:
                wrong.append(str(error))
                continue
            daemon.seen[number] = signature
            say(Action.IMPORTED, counts=counts)
    if wrong:
        raise ImportFileError("; ".join(wrong))
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
    _say_what_paused(daemon)


def _say_what_paused(daemon: Daemon) -> None:
    """Each pause once; what a person wrote as its reason is theirs, and may name anybody."""
    now = releases.paused(daemon.db)
    for campaign, reason in now.items():
        if daemon.paused.get(campaign) != reason:
            why = releases.BY_HAND if reason.startswith(releases.BY_HAND) else reason
            say(Action.PAUSED, logging.WARNING, campaign=campaign, why=why)
    daemon.paused = now


def _receive(daemon: Daemon) -> None:
    counts = inbox.receive(daemon.db, daemon.settings, _now(), stop=daemon.stop.is_set).as_json()
    _say_if_any(Action.RECEIVED, counts)


def _mail(daemon: Daemon) -> None:
    counts = mailbox.fetch(daemon.db, daemon.settings, _now(), stop=daemon.stop.is_set).as_json()
    _say_if_any(Action.FETCHED, counts)


def _reconcile(daemon: Daemon) -> None:
    counts = reconciler.reconcile(
        daemon.db, daemon.settings, _now(), channels=daemon.asking, stop=daemon.stop.is_set
    ).as_json()
    _say_if_any(Action.RECONCILED, counts)


def _alert(daemon: Daemon) -> None:
    """Look for what a person should know; a telling that fails is no failure of the stage."""
    counts = alerts.watch(daemon.db, daemon.settings, _now())
    for one in counts.untold:
        say(Action.UNTOLD, logging.WARNING, by=one.by, alarm=one.alarm, why=one.why)
    changed = counts.begun or counts.over or counts.told or counts.overdue
    say(Action.ALERTED, logging.INFO if changed else logging.DEBUG, counts=counts.as_json())


STAGES: Mapping[str, Callable[[Daemon], None]] = {
    "import": _import,
    "plan": _plan,
    "dispatch": _dispatch,
    "receive": _receive,
    "reconcile": _reconcile,
    "mail": _mail,
    "alert": _alert,
}


def _now() -> datetime:
    return datetime.now(UTC)


# --- the web app -----------------------------------------------------------------------------------


@contextmanager
def _web(daemon: Daemon, at: Address | None) -> Iterator[None]:
    """The web app in a thread of its own while this lasts; nothing where there is no address."""
    if at is None:
        yield
        return
    if at.needed:
        from outreach.web.serving import listen

        listen(at.host, at.port).close()
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(daemon, at, ended), name="web-app", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _serve(daemon: Daemon, at: Address, ended: threading.Event) -> None:
    """Serve until it is ended. While somebody else has the port, perhaps another daemon, it is tried again."""
    from outreach import web
    from outreach.web import serving

    app, said = web.create_app(daemon.settings, daemon.db, lambda: _now()), False
    while not ended.is_set():
        try:
            listening = serving.listen(at.host, at.port)
        except ListenError as error:
            if not said:
                say(Action.NOT_SERVING, logging.WARNING, why=str(error))
            said = True
            ended.wait(LISTEN_AGAIN_SECONDS)
            continue
        with serving.serving(app, listening) as address:
            say(Action.SERVING, url=address)
            ended.wait()


# --- the log ---------------------------------------------------------------------------------------


def _say_if_any(action: Action, counts: Mapping[str, Any]) -> None:
    """A tick that found nothing to do is no news."""
    news = any(value for name, value in counts.items() if name != "outlook")  # why there was nothing to do is none
    say(action, logging.INFO if news else logging.DEBUG, counts=counts)
