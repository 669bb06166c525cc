"""One tick of the reconciler."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from outreach import contents, releases, store
from outreach.channels import Channels
from outreach.models import Status
from outreach.reconciler import accounts, looking, settling
from outreach.reconciler.looking import Doubt, World
from outreach.reconciler.settling import Tally
from outreach.settings import Settings
from outreach.store import Database

STAGE = "reconcile"
LIMIT = 500  # messages looked for in a tick: a provider has other things to do than to answer us
BATCH = 100  # asked about, and then settled, at once


@dataclass(frozen=True)
class ReconcileCounts:
    """What a look at the messages in doubt made of them, and why."""

    looked: int = 0
    sent: int = 0
    planned: int = 0  # again
    unknown: int = 0  # still
    expired: int = 0  # texts that have been kept as long as the settings say
    by_reason: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data; `expired` only where there is one."""
        counts = {"looked": self.looked, "sent": self.sent, "planned": self.planned, "unknown": self.unknown}
        return counts | ({"expired": self.expired} if self.expired else {}) | {"by_reason": dict(self.by_reason)}


def reconcile(
    db: Database,
    settings: Settings,
    now: datetime,
    *,
    channels: Channels | None = None,
    stop: Callable[[], bool] | None = None,
    limit: int = LIMIT,
) -> ReconcileCounts:
    """
    Settle messages in doubt by what providers reported, and by asking them for at most `limit` that are due.

    Texts older than `keep_bodies` are deleted besides, but for those of messages that are still in doubt.
    Any number of processes may do so at once, and be cut off anywhere: two that ask at the same time
    ask twice, and settle once. No transaction is open while a provider is asked. `stop` is asked
    before each hundred. `channels` that are given stay open for the next look; they are for this
    thread alone.

    Raises:
        DatabaseError: the next look does what this one could not.
    """
    began, opened = time.monotonic(), channels or Channels()
    tally: Tally = Counter()
    try:
        for one in _ticks(db, settings, now, opened, stop or (lambda: False), limit):
            tally.update(one)
    finally:
        if channels is None:
            opened.close()
    counts = _counts_of(tally, contents.expire(db, settings.keep_bodies, now, stop or (lambda: False)))
    with store.write(db) as connection:
        passed = now + timedelta(seconds=time.monotonic() - began)
        store.record_tick(connection, STAGE, now, passed, counts.as_json())
    return counts


def _ticks(
    db: Database, settings: Settings, now: datetime, channels: Channels, stop: Callable[[], bool], limit: int
) -> Iterator[Tally]:
    """What became of the messages, some at a time."""
    with store.read(db) as connection:
        heard = looking.heard_of(connection)
        anything = bool(heard) or bool(looking.due(connection, now, 1, ()))
    if not anything:
        accounts.since(db, settings, now)
        return
    world = _world(db, settings, now)
    for ids in store.in_chunks(heard, BATCH):
        if stop():
            return
        with store.read(db) as connection:
            batch = looking.doubts(connection, world, looking.of_ids(connection, ids))
        yield settling.settle(db, world, batch, {}, now)
    seen: set[int] = set()
    while len(seen) < limit and not stop():
        with store.read(db) as connection:
            rows = looking.due(connection, now, min(BATCH, limit - len(seen)), seen)
            batch = looking.doubts(connection, world, rows)
        if not batch:
            return
        seen.update(one.row.id for one in batch)
        for part in _by_places(batch):
            yield settling.settle(db, world, part, looking.ask(part, world, channels, now), now)


def _world(db: Database, settings: Settings, now: datetime) -> World:
    since = accounts.since(db, settings, now)
    loaded = releases.current(db, settings)
    with store.read(db) as connection:
        backup_at, restored_at = looking.restored(connection)
    return World(settings, loaded, backup_at, restored_at, since)


def _by_places(batch: Sequence[Doubt]) -> Iterable[list[Doubt]]:
    """Those apart that others are asked about, so that one who is slow to answer keeps nobody else waiting unsettled."""

    def channels(one: Doubt) -> tuple[str, ...]:
        return tuple(place.channel for place in one.places)

    for _, part in groupby(sorted(batch, key=channels), key=channels):
        yield list(part)


def _counts_of(tally: Tally, expired: int) -> ReconcileCounts:
    by_status: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    for (status, why), count in tally.items():
        by_status[status] += count
        by_reason[why] += count
    return ReconcileCounts(
        looked=by_status.total(),
        sent=by_status[Status.SENT],
        planned=by_status[Status.PLANNED],
        unknown=by_status[Status.UNKNOWN],
        expired=expired,
        by_reason={str(why): count for why, count in sorted(by_reason.items())},
    )
