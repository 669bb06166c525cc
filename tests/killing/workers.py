"""What the processes do until they are killed, told to stop, or done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from outreach import dispatcher, planner, reconciler
from outreach.channels import Channels
from outreach.settings import Settings
from outreach.store import Database
from tests.killing.clock import Clock
from tests.killing.processes import Death, Doom, Doomed
from tests.killing.shop import Shop

Job = Literal["dispatch", "plan", "reconcile"]
IDLE = 0.05  # seconds between two ticks that found nothing


@dataclass(frozen=True)
class Duty:
    """What one process is to do."""

    shop: Shop
    clock: Path
    log: Path  # where its last words go
    job: Job
    chunk: int
    death: Death | None = None
    until_idle: bool = False  # else until told to stop


def work(pipe: Connection, duty: Duty) -> None:
    """Say that we are ready, and do one tick after the other."""
    os.dup2(os.open(duty.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    clock = Clock(duty.clock)
    clock.wear()
    doom = Doom(duty.death)
    db, settings = duty.shop.open()
    doom.watch(db.engine)
    tick = _JOBS[duty.job](db, settings, Doomed(doom), duty.chunk, pipe.poll)
    pipe.send("ready")
    while not pipe.poll():
        if not tick(clock.now()):
            if duty.until_idle:
                break
            pipe.poll(IDLE)
    db.engine.dispose()


Tick = Callable[[datetime], int]  # gives how much it did


def _dispatch(db: Database, settings: Settings, channels: Doomed, chunk: int, stop: Callable[[], bool]) -> Tick:
    return lambda now: dispatcher.dispatch(db, settings, now, chunk=chunk, stop=stop, channels=channels).claimed


def _plan(db: Database, settings: Settings, _channels: Doomed, _chunk: int, _stop: Callable[[], bool]) -> Tick:
    return lambda now: planner.plan(db, settings, now).planned


def _reconcile(db: Database, settings: Settings, _channels: Doomed, _chunk: int, _stop: Callable[[], bool]) -> Tick:
    channels = Channels()
    return lambda now: reconciler.reconcile(db, settings, now, channels=channels).looked


_JOBS: dict[Job, Callable[[Database, Settings, Doomed, int, Callable[[], bool]], Tick]] = {
    "dispatch": _dispatch,
    "plan": _plan,
    "reconcile": _reconcile,
}
