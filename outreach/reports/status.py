"""
Status: what a person should know, what waits, what is stuck, what is paused, when each stage last ran.

Reads through the plain database drivers, because `outreach status` must answer at once and the
table definitions alone take longer to import than that. Times are integer microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from outreach.errors import DatabaseError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LISTED = 20  # unknown messages shown one by one

Query = Callable[[str, Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class Tick:
    """The last tick of a stage; `finished_at` is None while it runs, or where it was cut off."""

    stage: str
    started_at: datetime
    finished_at: datetime | None
    error: str
    counts: dict[str, Any]


@dataclass(frozen=True)
class Paused:
    campaign: str
    since: datetime
    reason: str


@dataclass(frozen=True)
class Alarm:
    """Something that a person should know, while it lasts."""

    name: str  # `paused:win_back`, `unknown`, `import`…
    text: str
    since: datetime


@dataclass(frozen=True)
class Waiting:
    """One message: the oldest due, or one nobody knows whether it left."""

    id: str
    campaign: str
    step: str
    channel: str | None
    at: datetime  # due, or handed over


@dataclass(frozen=True)
class Slowed:
    """A channel one of whose senders sends nothing for now: it was too fast, or its provider is out of order."""

    channel: str
    since: datetime
    until: datetime
    reason: str  # rate | channel
    detail: str


@dataclass(frozen=True)
class Status:
    """The state of an installation at `now`."""

    now: datetime
    release: int | None
    released_at: datetime | None
    messages: dict[str, int]  # by status
    due: int  # planned and due by now
    blocked_by: dict[str, int]  # planned and deferred, by what deferred them last
    oldest_due: Waiting | None
    unknown: list[Waiting]  # the oldest of those in doubt
    in_doubt: dict[str, int]  # how many there are, by channel
    slowed: list[Slowed]
    paused: list[Paused]
    ticks: list[Tick]
    last_import_at: datetime | None
    alarms: list[Alarm]
    cases: dict[str, int]  # open, and of those overdue
    newest: datetime | None  # the newest time that a stage has seen

    def as_json(self) -> dict[str, Any]:
        """Everything, times as ISO 8601 in UTC."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def read(url: str, now: datetime) -> Status:
    """
    The status of the database at an address such as `sqlite:////abs/outreach.db` or `postgresql://…`.

    A relative SQLite path is taken from the current folder.

    Raises:
        DatabaseError: there is no database, it cannot be reached, or it holds no tables of ours.
    """
    if url.startswith("sqlite"):
        return _read_sqlite(url, now)
    if url.startswith(("postgresql", "postgres")):
        return _read_postgresql(url, now)
    raise DatabaseError(
        "the database address cannot be read: write sqlite:///outreach.db or postgresql://user@host/name"
    )


def _read_sqlite(url: str, now: datetime) -> Status:
    import sqlite3

    path = Path(unquote(url.partition(":///")[2].partition("?")[0]))
    if not path.is_file():
        raise DatabaseError(f"there is no database at {path} yet: run `outreach import` first")
    try:
        connection = sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True, timeout=30)
        try:
            connection.execute("BEGIN")
            return _status(lambda text, values: connection.execute(text, values).fetchall(), now)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DatabaseError(_advice(str(error))) from error


def _read_postgresql(url: str, now: datetime) -> Status:
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseError("PostgreSQL needs its driver: pip install 'outreach[postgresql]'") from error
    try:
        with psycopg.connect("postgresql://" + url.split("://", 1)[1]) as connection:
            return _status(
                lambda text, values: connection.execute(text.replace("?", "%s").encode(), values).fetchall(), now
            )
    except psycopg.Error as error:
        raise DatabaseError(_advice(str(error))) from error


def _advice(error: str) -> str:
    first = (error.strip().splitlines() or ["no reason given"])[0]
    if "no such table" in first or "does not exist" in first:
        return f"the database has no tables of outreach yet ({first}): run `outreach import`, or `outreach db upgrade`"
    return f"the database cannot be used: {first}"


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def _at(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _status(query: Query, now: datetime) -> Status:
    at = (now - _EPOCH) // timedelta(microseconds=1)
    release = next(iter(query("SELECT id, published_at FROM releases ORDER BY id DESC LIMIT 1", ())), (None, None))
    blocked = "SELECT blocked_by, count(*) FROM messages WHERE status = 'planned' AND blocked_by IS NOT NULL GROUP BY 1"
    in_doubt = "SELECT coalesce(channel, ''), count(*) FROM messages WHERE status = 'unknown'"
    oldest = _waiting(query, "status = 'planned' AND due_at <= ?", "due_at", (at, 1))
    imported = query("SELECT max(finished_at) FROM imports", ())[0][0]
    return Status(
        now=now,
        release=release[0],
        released_at=_time(release[1]),
        messages=dict(query("SELECT status, count(*) FROM messages GROUP BY status ORDER BY status", ())),
        due=query("SELECT count(*) FROM messages WHERE status = 'planned' AND due_at <= ?", (at,))[0][0],
        blocked_by=dict(query(f"{blocked} ORDER BY 1", ())),
        oldest_due=oldest[0] if oldest else None,
        unknown=_waiting(query, "status = 'unknown'", "sent_at", (_LISTED,)),
        in_doubt=dict(query(f"{in_doubt} GROUP BY 1 ORDER BY 1", ())),
        slowed=_slowed(query, at),
        paused=_paused(query),
        ticks=_ticks(query),
        last_import_at=_time(imported),
        alarms=_alarms(query),
        cases=_cases(query, at),
        newest=_time(next(iter(query("SELECT newest FROM installation", ())), (None,))[0]),
    )


def _waiting(query: Query, which: str, when: str, values: Sequence[Any]) -> list[Waiting]:
    text = f"SELECT public_id, campaign, step, channel, coalesce({when}, due_at) FROM messages WHERE {which} ORDER BY 5 LIMIT ?"
    return [
        Waiting(public, campaign, step, channel, _at(at)) for public, campaign, step, channel, at in query(text, values)
    ]


def _slowed(query: Query, at: int) -> list[Slowed]:
    """By channel alone: the sender stands in the settings."""
    text = (
        "SELECT name, coalesce(slowed_since, slow_until), slow_until, coalesce(slowed_for, 'rate'), detail"
        " FROM rates WHERE slowed > 0 AND slow_until > ? ORDER BY name"
    )
    return [
        Slowed(name.partition(" ")[0], _at(since), _at(until), reason, detail)
        for name, since, until, reason, detail in query(text, (at,))
    ]


def _paused(query: Query) -> list[Paused]:
    text = "SELECT name, paused_at, paused_reason FROM campaign_states WHERE paused_at IS NOT NULL ORDER BY name"
    return [Paused(name, _at(since), reason) for name, since, reason in query(text, ())]


def _alarms(query: Query) -> list[Alarm]:
    """Without the notes that the watch keeps beside them, whose names begin with a dot."""
    text = "SELECT name, text, since FROM alarms WHERE substr(name, 1, 1) <> '.' ORDER BY since, name"
    return [Alarm(name, said, _at(since)) for name, said, since in query(text, ())]


def _cases(query: Query, at: int) -> dict[str, int]:
    counts = "SELECT count(*), sum(CASE WHEN due_at <= ? THEN 1 ELSE 0 END) FROM cases WHERE closed_at IS NULL"
    (opened, overdue), *_ = query(f"{counts} AND opened_at <= ?", (at, at))
    return {"open": int(opened), "overdue": int(overdue or 0)}


def _ticks(query: Query) -> list[Tick]:
    text = "SELECT stage, started_at, finished_at, error, counts FROM ticks ORDER BY stage"
    return [
        Tick(stage, _at(started), _time(finished), error, json.loads(counts) if isinstance(counts, str) else counts)
        for stage, started, finished, error, counts in query(text, ())
    ]
