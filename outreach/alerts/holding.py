"""Holding: which alarms hold now, derived from the database alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, text

from outreach.alerts import words
from outreach.models import Alarm, CampaignState, Import, Message, Rate, Tick, from_micros, table
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
_messages, _imports, _rates = table(Message), table(Import), table(Rate)


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
_HALF_WAY = text("""
    SELECT count(*), min((due_at + expires_at) / 2) FROM messages
    WHERE status = 'planned' AND blocked_by = 'person' AND (due_at + expires_at) / 2 <= :now
""")
_OVERDUE = text("SELECT count(*), min(due_at) FROM cases WHERE closed_at IS NULL AND due_at <= :now")
_PAUSED = select(_states.c.name, _states.c.paused_at, _states.c.paused_reason).where(_states.c.paused_at.is_not(None))
_SLOWED = select(_rates).where(_rates.c.slowed > 0).order_by(_rates.c.slowed_since)


def look(connection: Connection, now: datetime) -> Seen:
    """Everything that the alarms are derived from, at one moment."""
    unknown = connection.execute(_UNKNOWN).one()
    overdue, target = connection.execute(_OVERDUE, {"now": micros(now)}).one()
    late, half_way = connection.execute(_HALF_WAY, {"now": micros(now)}).one()
    return Seen(
        rows={row.name: row for row in connection.execute(select(_alarms))},
        ticks={row.stage: row for row in connection.execute(select(_ticks))},
        paused=[row for row in connection.execute(_PAUSED) if not row.paused_reason.startswith(BY_HAND)],
        unknown=(unknown[0], unknown[1]),
        late_tasks=(late, None if half_way is None else from_micros(half_way)),
        imported=connection.execute(select(func.max(_imports.c.finished_at))).scalar(),
        overdue_cases=(overdue, None if target is None else from_micros(target)),
        slowed=connection.execute(_SLOWED).all(),
    )


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
    for row in seen.paused:
        name = f"paused:{row.name}"
        yield Held(name, row.paused_at, words.text(settings.business, name, why=row.paused_reason))


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
    """As the last tick of `plan` found them."""
    tick = seen.ticks.get("plan")
    if tick is None:
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
