"""
Pacing: how fast each sender, and each provider, may send, over all processes.

The generic cell rate algorithm (ITU-T I.371): a name's `free_at` is when all that it was given
would be paid off at its rate; it may be given more while that is no further ahead than a short
tolerance. So in any stretch of time it gets what its rate allows, plus at most the tolerance's
worth. What must wait is spread over the time that its sender needs, in the order of the tick, so
that each is looked at again about when its turn comes; the most important are asked first then,
too. Nothing here sleeps.

The state is read and written in the transaction that commits `sending`, under the rows' locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, collate, select, text, update

from outreach import timing
from outreach.channels import Blame, Receipt
from outreach.gates import Defer
from outreach.models import Rate, Reason, table
from outreach.setting_keys import DEFAULT_RATES
from outreach.settings import Settings
from outreach.store import among
from outreach.values import Limit, parse_limit

_rates = table(Rate)
_ADD = text("INSERT INTO rates (name, slowed, detail) VALUES (:name, 0, '') ON CONFLICT (name) DO NOTHING")
_READ = select(_rates).where(among(_rates.c.name, "names"))
# In the order that Python has, whatever the database's language: senders that are slowed are locked in it as well.
_LOCK = {"sqlite": _READ, "postgresql": _READ.order_by(collate(_rates.c.name, "C")).with_for_update()}
_WRITE = update(_rates).where(_rates.c.name == bindparam("of")).values(free_at=bindparam("free"))
_SLOW = (
    update(_rates)
    .where(_rates.c.name == bindparam("of"))
    .values(
        slow_until=bindparam("until"),
        slowed=bindparam("times"),
        slowed_since=bindparam("since"),
        slowed_for=bindparam("reason"),
        detail=bindparam("said"),
    )
)
NO_TIME = timedelta()
SOON = timedelta(seconds=1)


@dataclass
class _Name:
    """One sender or provider as this transaction leaves it."""

    interval: timedelta  # of one message; zero: no limit
    free_at: datetime | None = None
    slow_until: datetime | None = None
    slowed_for: str | None = None
    detail: str = ""  # why it is slowed
    changed: bool = False

    def opens(self, now: datetime, tolerance: timedelta) -> datetime:
        """When it may be given one more; `now` if at once."""
        at = now
        if self.interval and self.free_at:
            at = max(at, self.free_at - max(tolerance - self.interval, NO_TIME))
        return max(at, self.slow_until) if self.slow_until else at


class Pace:
    """The senders and providers that a chunk's messages may leave by."""

    def __init__(
        self,
        settings: Settings,
        now: datetime,
        intervals: Mapping[str, timedelta],
        rows: Iterable[Any],
        behind: Counter[str],
    ) -> None:
        self._settings = settings
        self._now = now
        self._behind = behind
        self._tolerance = settings.clock["dispatch"].clock if "dispatch" in settings.clock else timedelta(seconds=5)
        self._names = {name: _Name(interval) for name, interval in intervals.items()}
        for row in rows:
            if row.name in self._names:
                one = self._names[row.name]
                one.free_at, one.slow_until = row.free_at, row.slow_until
                one.slowed_for, one.detail = row.slowed_for, row.detail
        self._kept_by: dict[tuple[str, str], list[str]] = {}  # by channel and sender, names that may keep them

    def wait(self, channel: str, sender: str, expires_at: datetime) -> Defer | None:
        """
        None where a message may leave now; else when to look at it again, and why not before.

        That is behind those of this tick that wait already, and before its expiry while there is any
        time left: only its expiry itself ends it.
        """
        until = self._now
        reason, detail = Reason.RATE, f"{channel} by {self._settings.channels[channel].provider}"
        for name in self._limits(channel, sender):
            one = self._names[name]
            opens = one.opens(self._now, self._tolerance)
            if opens > self._now:
                until = max(until, opens + self._behind[name] * one.interval)
                self._behind[name] += 1
                if one.slow_until and one.slow_until > self._now and one.slowed_for == Reason.CHANNEL:
                    reason, detail = Reason.CHANNEL, one.detail
        if until <= self._now:
            return None
        return Defer(max(min(until, expires_at - SOON), self._now + SOON), reason, detail)

    def take(self, channel: str, sender: str, parts: int) -> None:
        """Note that a message of so many parts leaves now."""
        for one in map(self._names.__getitem__, self._limits(channel, sender)):
            if one.interval:
                one.free_at = max(one.free_at or self._now, self._now) + max(parts, 1) * one.interval
                one.changed = True

    def write(self, connection: Connection) -> None:
        """Keep what has changed."""
        changed = [{"of": name, "free": one.free_at} for name, one in self._names.items() if one.changed]
        if changed:
            connection.execute(_WRITE, changed)

    def _limits(self, channel: str, sender: str) -> list[str]:
        """Of the sender and its provider those that have a rate, or are slowed."""
        if (kept := self._kept_by.get((channel, sender))) is None:
            names = (sender_name(channel, sender), self._settings.channels[channel].provider)
            kept = [name for name in names if self._names[name].interval or self._names[name].slow_until]
            self._kept_by[channel, sender] = kept
        return kept


def sender_name(channel: str, sender: str) -> str:
    """Under which a sender's state is kept."""
    return f"{channel} {sender}"


def _intervals(settings: Settings) -> dict[str, timedelta]:
    """Every sender and provider of the settings, with the time that one message of it takes; zero: no limit."""
    found = {}
    for name, channel in settings.channels.items():
        default = DEFAULT_RATES.get((channel.provider, name))
        rate = channel.rate or (parse_limit(default) if default and not _by_service(channel.options) else None)
        for sender in channel.senders:
            found[sender_name(name, sender)] = _interval(rate)
        found[channel.provider] = _interval(settings.rates.get(channel.provider))
    return found


def _by_service(options: Mapping[str, Any]) -> bool:
    """A messaging service spreads over senders of its own."""
    return bool(options.get("messaging_service"))


def _interval(limit: Limit | None) -> timedelta:
    return limit.per.clock / limit.count if limit else NO_TIME


def read(connection: Connection, settings: Settings, now: datetime, behind: Counter[str], slowed: set[str]) -> Pace:
    """Where every sender stands, locked where it has a limit, so that two processes share it truly; fills `slowed`."""
    intervals = _intervals(settings)
    limited = [name for name, interval in intervals.items() if interval]
    if limited:
        connection.execute(_ADD, [{"name": name} for name in sorted(limited)])
        rows = list(connection.execute(_LOCK[connection.dialect.name], {"names": limited}))
    else:
        rows = []
    others = [name for name in intervals if name not in limited]
    rows += connection.execute(_READ, {"names": others}).all()
    slowed.update(row.name for row in rows if row.slowed)
    return Pace(settings, now, intervals, rows, behind)


def slow(
    connection: Connection,
    channel: str,
    sender: str,
    receipt: Receipt,
    unit: float,
    now: datetime,
) -> datetime:
    """
    This sender was too fast, or its provider is out of order: nothing more leaves by it before the moment given back.

    That is what the provider said, or a back-off that grows with each time in a row.
    """
    name = sender_name(channel, sender)
    connection.execute(_ADD, [{"name": name}])
    known = connection.execute(select(_rates).where(_rates.c.name == name).with_for_update()).one()
    times = known.slowed + 1
    until = now + (receipt.retry_after or timing.back_off(times, unit))
    connection.execute(
        _SLOW,
        {
            "of": name,
            "until": until,
            "times": times,
            "since": known.slowed_since or now,
            "reason": slowed_for(receipt),
            "said": receipt.detail,
        },
    )
    return until


def slowed_for(receipt: Receipt) -> Reason:
    """What is said of messages that wait because of it."""
    return Reason.RATE if receipt.blame is Blame.SENDER else Reason.CHANNEL


_AGAIN = (
    update(_rates)
    .where(among(_rates.c.name, "names"), _rates.c.slowed > 0)
    .values(slow_until=None, slowed=0, slowed_since=None, slowed_for=None, detail="")
)


def forget_slow(connection: Connection, senders: Iterable[tuple[str, str]], slowed: Collection[str]) -> None:
    """
    Senders got through again: their next slowing starts from the beginning.

    Of those that were slowed when they were asked; what another process has slowed since stays slowed.
    """
    names = {sender_name(*one) for one in senders}.intersection(slowed)
    if names:
        connection.execute(_AGAIN, {"names": names})
