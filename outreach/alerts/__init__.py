"""
Alerts: what a person should know, found in the database and told once.

    holding    which alarms hold now
    telling    by e-mail, by webhook
    words      what they say, by language

`alarms` has one row for each alarm while it lasts. What is still to be told stands beside them, one
row for each telling, so that neither a crash nor a dead webhook loses one, and neither target waits
for the other. A telling that may or may not have arrived is repeated. Any number of daemons may
watch at once: a telling is claimed before it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from outreach import cases, store
from outreach.alerts import words
from outreach.alerts.holding import COUNTED, FAILING, STAGE, STARTED, UNTOLD, Held, Seen, gap, holding, look
from outreach.alerts.telling import TELLERS, News
from outreach.models import Alarm, table
from outreach.settings import Settings
from outreach.store import Database

__all__ = ["AlertCounts", "Untold", "watch"]

LEASE = timedelta(minutes=5)  # a telling that takes longer is taken for lost, and made again
TIMES, MORE = 10, 100  # an alarm is told again when there is so many times, or so much, more of it
LONGEST_REST = timedelta(hours=1)  # of a target that cannot be told

_alarms = table(Alarm)
_TELL = ".tell:"  # + target:begun|over:alarm


@dataclass(frozen=True)
class Untold:
    """A telling that failed, and will be tried again."""

    by: str  # email | webhook
    alarm: str
    why: str  # never an address


@dataclass(frozen=True)
class AlertCounts:
    """What one look found and told."""

    holding: int = 0  # alarms that hold
    begun: int = 0
    over: int = 0
    told: int = 0
    overdue: int = 0  # cases whose target time has passed since the last look: their log says so now
    untold: tuple[Untold, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        counts = {
            "holding": self.holding,
            "begun": self.begun,
            "over": self.over,
            "told": self.told,
            "overdue": self.overdue,
        }
        return {**counts, "untold": len(self.untold)}


def watch(db: Database, settings: Settings, now: datetime) -> AlertCounts:
    """
    Keep the alarms that hold, and tell the settings' `alerts` of each that began or is over.

    Each is told once to each target, and once more whenever what it counts has become much more. A telling that fails is tried again at a later look, after rests
    that double up to an hour; whatever goes wrong with it, nothing is raised.

    Raises:
        DatabaseError: the next look does what this one could not.
    """
    targets = {name: where for name, where in settings.alerts.items() if where and name in TELLERS}
    with store.read(db) as connection:
        seen = look(connection, now)
    held = holding(seen, settings, now)
    with store.write(db) as connection:
        _note(connection, seen, now)
        begun = sum(_begin(connection, seen, one, targets) for one in held.values())
        gone = [row for name, row in seen.rows.items() if words.is_known(name) and name not in held]
        over = sum(_end(connection, row, settings, targets, now) for row in gone)
        over += _tell_of_gap(connection, seen, settings, targets, now)
        _forget_targets(connection, seen, targets)
        overdue = cases.note_overdue(connection, now)
        store.record_tick(connection, STAGE, now, now, {"holding": len(held)})
    told, untold = 0, []
    for target, where in targets.items():
        done, failed = _tell_all(db, settings, target, where, now)
        told += done
        untold += failed
    return AlertCounts(len(held), begun, over, told, overdue, tuple(untold))


# --- the rows ----------------------------------------------------------------------------------------


def _put(connection: Connection, name: str, text: str, since: datetime) -> bool:
    """Write a row unless there is one of this name; whether it was written."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    row = dialect.insert(_alarms).values(name=name, text=text, since=since, told_at=None)
    written = row.on_conflict_do_nothing(index_elements=["name"]).returning(_alarms.c.name)
    return connection.execute(written).first() is not None


def _drop(connection: Connection, name: str) -> bool:
    return connection.execute(delete(_alarms).where(_alarms.c.name == name)).rowcount == 1


def _telling(target: str, alarm: str, *, over: bool) -> str:
    return f"{_TELL}{target}:{'over' if over else 'begun'}:{alarm}"


def _hearers(targets: Iterable[str], alarm: str) -> list[str]:
    """Who can be told of it: that a target cannot be told is nothing to tell it."""
    return [target for target in targets if alarm != f"untold:{target}"]


def _note(connection: Connection, seen: Seen, now: datetime) -> None:
    """Keep the notes: which stages fail, and since when everything has run."""
    for stage, tick in seen.ticks.items():
        name = f"{FAILING}{stage}"
        if tick.error and stage != STAGE:
            _put(connection, name, "", now)
        elif name in seen.rows:
            _drop(connection, name)
    if gap(seen, now) is not None:
        _drop(connection, STARTED)
    _put(connection, STARTED, "", now)


def _begin(connection: Connection, seen: Seen, one: Held, targets: Iterable[str]) -> bool:
    """Keep a row of an alarm that holds, and have it told if nobody was; whether it is new."""
    row = seen.rows.get(one.name)
    if row is not None and row.text != one.text:
        connection.execute(update(_alarms).where(_alarms.c.name == one.name).values(text=one.text))
    new = row is None and _put(connection, one.name, one.text, one.since)
    grown = row is not None and _has_grown(connection, seen, one)
    if new or grown or (row is not None and row.told_at is None and _is_untold(connection, one.name)):
        said = [_have_told(connection, one, target) for target in _hearers(targets, one.name)]
        if one.count and all(said):
            _count(connection, one)
    return new


def _have_told(connection: Connection, one: Held, target: str) -> bool:
    """Have the target told of the alarm as it is now; whether what it will hear is up to date."""
    if _drop(connection, _telling(target, one.name, over=True)):
        return True  # they believe it lasts, and it does
    name = _telling(target, one.name, over=False)
    if _put(connection, name, one.text, one.since):
        return True
    waiting = update(_alarms).where(_alarms.c.name == name, _alarms.c.told_at.is_(None))
    return connection.execute(waiting.values(text=one.text)).rowcount == 1  # else it is just being told


def _has_grown(connection: Connection, seen: Seen, one: Held) -> bool:
    """Whether there is much more of it than when it was last told."""
    if not one.count:
        return False
    note = seen.rows.get(f"{COUNTED}{one.name}")
    last = int(note.text) if note is not None else 1
    if one.count < last:
        _count(connection, one)
    return one.count >= min(TIMES * last, last + MORE)


def _count(connection: Connection, one: Held) -> None:
    _drop(connection, f"{COUNTED}{one.name}")
    _put(connection, f"{COUNTED}{one.name}", str(one.count), one.since)


def _is_untold(connection: Connection, name: str) -> bool:
    """Locked, since another daemon may just be telling it."""
    query = select(_alarms.c.name).where(_alarms.c.name == name, _alarms.c.told_at.is_(None))
    return connection.execute(query.with_for_update()).first() is not None


def _end(connection: Connection, row: Any, settings: Settings, targets: Iterable[str], now: datetime) -> bool:
    """Take away the row of an alarm that is over; whoever was told of it is told so."""
    if not _drop(connection, row.name):
        return False
    _drop(connection, f"{COUNTED}{row.name}")
    text = words.over(settings.business, row.name, row.since, now)
    for target in _hearers(targets, row.name):
        waiting = _drop(connection, _telling(target, row.name, over=False))
        if not waiting and row.told_at is not None:
            _put(connection, _telling(target, row.name, over=True), text, row.since)
    return True


def _tell_of_gap(connection: Connection, seen: Seen, settings: Settings, targets: Iterable[str], now: datetime) -> bool:
    """Nobody could tell while it lasted; so it is told when it is over."""
    since = gap(seen, now)
    if since is None:
        return False
    text = words.over(settings.business, "stopped", since, now)
    for target in targets:
        _put(connection, _telling(target, "stopped", over=True), text, since)
    return True


def _forget_targets(connection: Connection, seen: Seen, targets: Iterable[str]) -> None:
    """Whoever is no longer to be told has nothing waiting."""
    for target in set(TELLERS) - set(targets):
        for name in seen.rows:
            if name.startswith(f"{_TELL}{target}:") or name == f"{UNTOLD}{target}":
                _drop(connection, name)


# --- telling ---------------------------------------------------------------------------------------------


def _tell_all(db: Database, settings: Settings, target: str, where: str, now: datetime) -> tuple[int, list[Untold]]:
    """Tell one target what waits for it, the oldest first, until one telling fails."""
    with store.read(db) as connection:
        rows = {row.name: row for row in connection.execute(select(_alarms))}
    failing = rows.get(f"{UNTOLD}{target}")
    if failing is not None and now < failing.told_at + min(failing.told_at - failing.since, LONGEST_REST):
        return 0, []
    waiting = [row for row in rows.values() if row.name.startswith(f"{_TELL}{target}:")]
    told = 0
    for row in sorted(waiting, key=lambda row: (row.since, row.name)):
        if not _claim(db, row.name, now):
            continue
        state, _, alarm = row.name.removeprefix(f"{_TELL}{target}:").partition(":")
        news = News(alarm, row.text, row.since, over=state == "over")
        try:
            why = TELLERS[target](db, settings, where, news, now)
        except Exception as error:
            why = f"it cannot be told ({type(error).__name__})"  # its own text may hold anything
        _settle(db, target, row.name, news, why, now)
        if why:
            return told, [Untold(target, alarm, why)]
        told += 1
    return told, []


def _claim(db: Database, name: str, now: datetime) -> bool:
    """Whether this telling is ours to make."""
    free = or_(_alarms.c.told_at.is_(None), _alarms.c.told_at < now - LEASE)
    with store.write(db) as connection:
        done = connection.execute(update(_alarms).where(_alarms.c.name == name, free).values(told_at=now))
    return done.rowcount == 1


def _settle(db: Database, target: str, name: str, news: News, why: str, now: datetime) -> None:
    with store.write(db) as connection:
        if why:
            connection.execute(update(_alarms).where(_alarms.c.name == name).values(told_at=None))
            _put(connection, f"{UNTOLD}{target}", why, now)
            again = {"text": why, "told_at": now}
            connection.execute(update(_alarms).where(_alarms.c.name == f"{UNTOLD}{target}").values(again))
            return
        if not news.over:
            first = update(_alarms).where(_alarms.c.name == news.alarm, _alarms.c.told_at.is_(None))
            connection.execute(first.values(told_at=now))
        _drop(connection, name)
        _drop(connection, f"{UNTOLD}{target}")
