"""One tick of the dispatcher."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from outreach import clocks, coupons, releases, store
from outreach.channels import Channels
from outreach.dispatcher import claiming, committing, handing, recording, watching
from outreach.dispatcher.handing import Handed
from outreach.dispatcher.heartbeat import Heart
from outreach.dispatcher.parts import Chunk, DispatchCounts, Ready, Tally, counts_of
from outreach.errors import DatabaseError
from outreach.releases import Loaded
from outreach.settings import Settings
from outreach.store import Database

CHUNK = 100
RECORD_AGAIN = (0.2, 1.0, 5.0)  # seconds to wait when what became of a chunk cannot be written
LEASE = timedelta(minutes=2)  # of a chunk whose dispatcher says nothing more


def dispatch(
    db: Database,
    settings: Settings,
    now: datetime,
    *,
    limit: int | None = None,
    chunk: int = CHUNK,
    stop: Callable[[], bool] | None = None,
    channels: Channels | None = None,
    only: int | tuple[str, int] | None = None,
) -> DispatchCounts:
    """
    Send what is due at `now`, the most important first, until nothing is, or `limit` were claimed.

    Any number of processes may do so at once. `stop` is asked before each chunk; a chunk begun is
    finished. What an earlier dispatcher left behind in `sending` becomes `unknown`. `channels` that
    are given stay open for the next dispatch. `only` is the id of a manual send, or a campaign
    and a record: its messages alone.

    Raises:
        DatabaseError: what was claimed is taken up again once its lease is over.
    """
    tick = _Tick(db, settings, now, channels or Channels(), chunk, limit, only)
    try:
        tick.run(stop or (lambda: False))
    finally:
        tick.heart.close()
        if channels is None:
            tick.channels.close()
    coupons.settle(db)
    counts = counts_of(tick.tally)
    with store.write(db) as connection:
        watching.watch(connection, settings, now)
        store.record_tick(connection, "dispatch", now, tick.passed(), counts.as_json())
    return counts


class _Tick:
    def __init__(
        self,
        db: Database,
        settings: Settings,
        now: datetime,
        channels: Channels,
        size: int,
        limit: int | None,
        only: int | tuple[str, int] | None,
    ) -> None:
        self.db, self.settings, self.now, self.channels = db, settings, now, channels
        self.size, self.limit, self.only = size, limit, only
        self.started = self.claimed_at = clocks.read()
        self.behind: Counter[str] = Counter()
        self.heart = Heart(db, self.lease_until)
        self.tally: Tally = Counter({("unknown", ""): claiming.release_expired(db, now)})

    def passed(self) -> datetime:
        """`now`, plus the real time since: a lease must not be short because its tick is long."""
        return self.now + timedelta(seconds=self._elapsed())

    def _elapsed(self) -> float:
        """Seconds since the tick began, by the clock that saw more of them: a machine may have slept meanwhile."""
        return clocks.elapsed(self.started)

    def lease_until(self) -> datetime:
        return self.passed() + LEASE

    def run(self, stop: Callable[[], bool]) -> None:
        """Chunk after chunk; each one's record shares its transaction with the next one's claim."""
        loaded = self._release(stop)
        with store.write(self.db) as connection:
            claimed = self._claim(connection, loaded)
        while claimed is not None:
            chunk, rows = claimed
            self.tally["claimed", ""] += len(rows)
            start = self.claimed_at  # who was stopped since may have lost the chunk, and not know it
            ready = committing.commit(self.db, chunk, rows, self.tally)
            handed = Handed()
            try:
                with self.heart.beating(chunk.token) as lost:
                    handing.hand_over(ready, chunk.loaded.settings, self.channels, handed, start, lost)
                loaded = self._release(stop)
            except BaseException:
                self._record(chunk, ready, handed, None)
                raise
            claimed = self._record(chunk, ready, handed, loaded)

    def _record(
        self, chunk: Chunk, ready: list[Ready], handed: Handed, loaded: Loaded | None
    ) -> tuple[Chunk, list[Any]] | None:
        """
        Write what became of a chunk, and claim the next one.

        What the providers said is known here alone, so a database that is away for a moment is waited
        for. Raises DatabaseError when it stays away: then nobody knows, and the messages are in doubt.
        """
        for pause in (*RECORD_AGAIN, None):
            tally: Tally = Counter()
            try:
                with store.write(self.db) as connection:
                    if ready:
                        recording.record(connection, chunk, ready, handed, tally)
                    claimed = self._claim(connection, loaded)
            except DatabaseError:
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                self.tally.update(tally)
                return claimed
        return None

    def _claim(self, connection: Connection, loaded: Loaded | None) -> tuple[Chunk, list[Any]] | None:
        size = self.size if self.limit is None else min(self.size, self.limit - self.tally["claimed", ""])
        if size <= 0 or loaded is None:
            return None
        self.claimed_at = clocks.read()
        now = self.now + timedelta(minutes=self._elapsed() // 60)
        chunk = Chunk(loaded, secrets.token_hex(8), now, self.lease_until(), behind=self.behind)
        rows = claiming.claim(connection, now, size, chunk.token, chunk.lease_until, self.only)
        return (chunk, rows) if rows else None

    def _release(self, stop: Callable[[], bool]) -> Loaded | None:
        """The release in force now; None when told to stop, or before the first one."""
        return None if stop() else releases.current(self.db, self.settings)
