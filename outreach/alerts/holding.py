"""Holding: which alarms hold now, derived from the database alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, select, text

from outreach.alerts import words
from outreach.models import (
    Alarm,
    CampaignState,
    Import,
    Installation,
    Message,
    MessageEvent,
    Rate,
    Tick,
    from_micros,
    table,
)
from outreach.releases.control import BY_HAND
from outreach.settings import Settings
from outreach.store import micros

STAGE = "alert"
PATIENCE = timedelta(minutes=15)  # a stage may fail, or nothing run, for so long before anybody is told
SILENCE = timedelta(days=1)  # an import may bring nothing for so long, however often it looks
MOVING = ("plan", "dispatch")  # the stages without which nothing happens

# Names of rows that begin with a dot are notes of the watch itself, and no alarms.
STARTED = ".started"  # since when stages have run without a gap
FAILING = ".failing:"  # + stage: since when each look has found it failing
UNTOLD = ".untold:"  # + target: since when it cannot be told, when that was last tried, and why
COUNTED = ".counted:"  # + alarm: how many there were when it was last told, or fewer if they became fewer

_alarms, _ticks, _states = table(Alarm), table(Tick), table(CampaignState)
_messages, _events, _imports, _rates = table(Message), table(MessageEvent), table(Import), table(Rate)


@dataclass(frozen=True)
class Held:
    """An alarm that holds."""

    name: str  # its kind, and what it is about if there are several: `paused:win_back`
    since: datetime
    text: str
    count: int = 0  # of what is told again when there is much more of it


@dataclass(frozen=True)
class Seen:
    """What one look at the database found."""

    rows: Mapping[str, Any]  # of `alarms`, by name, notes included
    ticks: Mapping[str, Any]  # by stage
    paused: Sequence[Any]  # by a program
    unknown: tuple[int, datetime | None]  # how many, and the oldest
    late_tasks: tuple[int, datetime | None]  # how many, and when the first was half-way
    imported: datetime | None
    overdue_cases: tuple[int, datetime | None] = (0, None)  # how many, and the earliest target time
    slowed: Sequence[Any] = ()  # rows of `rates`: senders by which nothing got through lately


# Literals, not parameters: only then do both databases use a partial index.
_UNKNOWN = select(func.count(), func.min(func.coalesce(_messages.c.sent_at, _messages.c.due_at))).where(
    text("status = 'unknown'")
)
_TASKS = (  # that are late, or would be had nobody called yet; with each call that was made
    select(_messages.c.id, _messages.c.due_at, _messages.c.expires_at, _events.c.detail)
    .outerjoin(_events, and_(_events.c.message_id == _messages.c.id, _events.c.kind == "called"))
    .where(text("messages.status = 'planned' AND messages.blocked_by = 'person'"))
    .where(text("(messages.due_at + messages.expires_at) / 2 <= :now"))
)
_OVERDUE = text("SELECT count(*), min(due_at) FROM cases WHERE closed_at IS NULL AND due_at <= :now")
_BY_RESTORE = _states.c.paused_at == select(table(Installation).c.restored_at).scalar_subquery()
_PAUSED = select(_states.c.name, _states.c.paused_at, _states.c.paused_reason, _BY_RESTORE.label("by_restore")).where(
    _states.c.paused_at.is_not(None)
)
_SLOWED = select(_rates).where(_rates.c.slowed > 0).order_by(_rates.c.slowed_since)


def look(connection: Connection, now: datetime) -> Seen:
    """Everything that the alarms are derived from, at one moment."""
    unknown = connection.execute(_UNKNOWN).one()
    overdue, target = connection.execute(_OVERDUE, {"now": micros(now)}).one()
    return Seen(
        rows={row.name: row for row in connection.execute(select(_alarms))},
        ticks={row.stage: row for row in connection.execute(select(_ticks))},
        paused=[row for row in connection.execute(_PAUSED) if not row.paused_reason.startswith(BY_HAND)],
        unknown=(unknown[0], unknown[1]),
        late_tasks=_late(connection, now),
        imported=connection.execute(select(func.max(_imports.c.finished_at))).scalar(),
        overdue_cases=(overdue, None if target is None else from_micros(target)),
        slowed=connection.execute(_SLOWED).all(),
    )


def _late(connection: Connection, now: datetime) -> tuple[int, datetime | None]:
    """The tasks that have been on the list for half of their time there; after a call, since it brought them back."""
    half_way: dict[int, datetime] = {}
    for row in connection.execute(_TASKS, {"now": micros(now)}):
        back = (row.detail or {}).get("back_at")
        since = max(row.due_at, datetime.fromisoformat(back)) if back else row.due_at
        half = since + (row.expires_at - since) / 2
        half_way[row.id] = max(half, half_way.get(row.id, half))
    late = [half for half in half_way.values() if half <= now]
    return len(late), min(late, default=None)


def gap(seen: Seen, now: datetime) -> datetime | None:
    """Until when things ran, where nobody has even watched since: the daemon was off, or the machine asleep."""
    last = seen.ticks.get(STAGE)
    return last.finished_at if last is not None and now - last.finished_at > PATIENCE else None


def holding(seen: Seen, settings: Settings, now: datetime) -> dict[str, Held]:
    """The alarms that hold, by name."""
    found = (
        *_paused(seen, settings),
        *_slowed(seen, settings, now),
        *_unknown(seen, settings),
        *_late_tasks(seen, settings),
        *_overdue_cases(seen, settings),
        *_low_offers(seen, settings),
        *_silent(seen, settings, now),
        *_stopped(seen, settings, now),
        *_notes(seen, settings, now),
    )
    return {one.name: one for one in found}


def _paused(seen: Seen, settings: Settings) -> Iterator[Held]:
    """Each campaign by itself, but once for all that a restore paused."""
    for row in seen.paused:
        if not row.by_restore:
            name = f"paused:{row.name}"
            yield Held(name, row.paused_at, words.text(settings.business, name, why=row.paused_reason))
    restored = [row.paused_at for row in seen.paused if row.by_restore]
    if restored:
        yield Held("restored", restored[0], words.text(settings.business, "restored", count=len(restored)))


def _slowed(seen: Seen, settings: Settings, now: datetime) -> Iterator[Held]:
    """By channel; of several senders, the one by which nothing has got through for the longest."""
    of = {f"{name} {sender}": name for name, channel in settings.channels.items() for sender in channel.senders}
    told = set()
    for row in seen.slowed:
        channel = of.get(row.name)
        if channel is None or channel in told or now - row.slowed_since <= PATIENCE:
            continue
        told.add(channel)
        several = len(settings.channels[channel].senders) > 1
        why = f"{row.name.partition(' ')[2]}: {row.detail}" if several else row.detail
        name = f"channel:{channel}"
        yield Held(name, row.slowed_since, words.text(settings.business, name, why=why))


def _unknown(seen: Seen, settings: Settings) -> Iterator[Held]:
    count, since = seen.unknown
    if since is not None:
        yield Held("unknown", since, words.text(settings.business, "unknown", count=count), count)


def _late_tasks(seen: Seen, settings: Settings) -> Iterator[Held]:
    count, since = seen.late_tasks
    if since is not None:
        yield Held("tasks", since, words.text(settings.business, "tasks", count=count))


def _overdue_cases(seen: Seen, settings: Settings) -> Iterator[Held]:
    count, since = seen.overdue_cases
    if since is not None:
        yield Held("cases", since, words.text(settings.business, "cases", count=count), count)


def _low_offers(seen: Seen, settings: Settings) -> Iterator[Held]:
    """As the last tick of `plan` found them; one that failed has not looked, so what held still holds."""
    tick = seen.ticks.get("plan")
    if tick is None:
        return
    if tick.error:
        yield from (Held(name, row.since, row.text) for name, row in seen.rows.items() if name.startswith("coupons:"))
        return
    for low in tick.counts.get("offers", ()):
        name = f"coupons:{low['offer']}"
        since = seen.rows[name].since if name in seen.rows else tick.started_at
        yield Held(name, since, words.text(settings.business, name, count=low["left"]))


def _silent(seen: Seen, settings: Settings, now: datetime) -> Iterator[Held]:
    every = settings.clock.get("import")
    limit = max(SILENCE, 3 * every.clock) if every else SILENCE
    if settings.sources and seen.imported is not None and now - seen.imported > limit:
        yield Held("import", seen.imported, words.text(settings.business, "import"))


def _stopped(seen: Seen, settings: Settings, now: datetime) -> Iterator[Held]:
    """
    Stages no longer finish a tick, though the watch itself goes on: all of them, or one while another does.

    Told that nothing runs, nobody is told that it runs again before every stage does. A stage that
    has never finished is not missed while another finishes: perhaps nobody runs it here.
    """
    started = seen.rows.get(STARTED)
    if started is None:
        return
    unwatched = gap(seen, now) is not None
    sinces = {}
    for stage in MOVING:
        tick, known = seen.ticks.get(stage), seen.rows.get(f"stopped:{stage}")
        if tick is not None and tick.finished_at is not None:
            sinces[stage] = max((known or started).since, tick.finished_at)
    newest = max((started.since, *sinces.values()))
    if not unwatched and now - newest > min(_patience(settings, stage) for stage in MOVING):
        yield Held("stopped", newest, words.text(settings.business, "stopped"))
    for stage, since in sinces.items():
        name = f"stopped:{stage}"
        if newest - since > _patience(settings, stage) and (name in seen.rows or not unwatched):
            said = words.text(settings.business, name)
            lasting = "stopped" in seen.rows and name not in seen.rows
            yield Held("stopped" if lasting else name, since, said)


def _patience(settings: Settings, stage: str) -> timedelta:
    """How long a stage may take to finish its next tick."""
    every = settings.clock.get(stage)
    return max(PATIENCE, 3 * every.clock) if every else PATIENCE


def _notes(seen: Seen, settings: Settings, now: datetime) -> Iterator[Held]:
    """What a note has said for long enough."""
    for kind, note in (("failing", FAILING), ("untold", UNTOLD)):
        for name, row in seen.rows.items():
            if name.startswith(note) and now - row.since > PATIENCE:
                what = f"{kind}:{name.removeprefix(note)}"
                yield Held(what, row.since, words.text(settings.business, what, why=row.text))
