"""
Health: when each stage last finished, and what waits.

For machines that ask every few seconds: every figure comes from an index of what is not settled, or
from the end of a primary key, so that what has been sent over the years costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text

from outreach import store
from outreach.models import Alarm, Tick, table, to_micros
from outreach.store import Database

_ticks, _alarms = table(Tick), table(Alarm)


@dataclass(frozen=True)
class LastTick:
    """The last tick of a stage that came to its end."""

    started_at: datetime
    finished_at: datetime
    failed: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True)
class Waiting:
    """What is not settled yet."""

    planned: int
    due: int  # of the planned ones, those that may be looked at by now
    sending: int
    unknown: int
    inbox: int  # events that were taken and not handled yet
    written: int  # messages ever written


def last_ticks(db: Database) -> dict[str, LastTick]:
    """Of each stage that has ever finished one."""
    with store.read(db) as connection:
        rows = connection.execute(select(_ticks).order_by(_ticks.c.stage)).all()
    return {
        row.stage: LastTick(row.started_at, row.finished_at, bool(row.error))
        for row in rows
        if row.finished_at is not None
    }


def alarms(db: Database) -> Counter[str]:
    """How many hold, by kind, as the last look found them; what each is about may be a campaign, and is not said."""
    with store.read(db) as connection:
        names = connection.execute(select(_alarms.c.name)).scalars().all()
    return Counter(name.partition(":")[0] for name in names if not name.startswith("."))


# The conditions are written as those of the partial indexes: only then do both databases use these.
_WAITING: Mapping[str, str] = {
    "planned": "SELECT count(*) FROM messages WHERE status = 'planned'",
    "due": "SELECT count(*) FROM messages WHERE status = 'planned' AND ready_at <= :now",
    "sending": "SELECT count(*) FROM messages WHERE claim IS NOT NULL AND status = 'sending'",
    "unknown": "SELECT count(*) FROM messages WHERE status = 'unknown'",
    "inbox": "SELECT count(*) FROM inbox WHERE handled_at IS NULL",
    "written": "SELECT coalesce(max(id), 0) FROM messages",
}


def waiting(db: Database, now: datetime) -> Waiting:
    """What waits at this moment."""
    with store.read(db) as connection:
        values = {"now": to_micros(now)}
        return Waiting(
            **{name: connection.execute(text(query), values).scalar_one() for name, query in _WAITING.items()}
        )
