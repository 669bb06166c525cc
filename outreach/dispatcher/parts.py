"""What the parts of a dispatch pass to each other, and the two updates that several of them make."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, update

from outreach import clocks
from outreach.campaigns import Campaign, Step, Trigger
from outreach.channels import Outgoing
from outreach.facts import Item
from outreach.gates import Rules, Verdict
from outreach.models import CampaignState, Message, table
from outreach.releases import Loaded
from outreach.values import Duration

_messages, _states = table(Message), table(CampaignState)

MANUAL = "manual"  # the campaign of manual sends; no file may have this name


@dataclass(frozen=True)
class DispatchCounts:
    """
    What a dispatch did with what it claimed; each non-send has its reason.

    A message that goes on to its step's next channel counts as deferred, and is claimed again.
    """

    claimed: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    skipped: int = 0  # cancelled ones, too
    expired: int = 0
    unknown: int = 0  # left behind by a claimer that is gone, or in doubt now
    by_reason: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data; `unknown` only where there is one."""
        counts: dict[str, Any] = {
            "claimed": self.claimed,
            "sent": self.sent,
            "failed": self.failed,
            "deferred": self.deferred,
            "skipped": self.skipped,
            "expired": self.expired,
        }
        return counts | ({"unknown": self.unknown} if self.unknown else {}) | {"by_reason": dict(self.by_reason)}


Tally = Counter[tuple[str, str]]  # (count's name, reason or "")


def counts_of(tally: Tally) -> DispatchCounts:
    """The counts by name, and by reason."""
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (kind, reason), count in tally.items():
        totals[kind] += count
        reasons[reason] += count if reason else 0
    return DispatchCounts(**totals, by_reason={r: n for r, n in sorted(reasons.items()) if r})


class Claimed(NamedTuple):
    """A message that is ours for a while, as it was when we claimed it; the names are its columns'."""

    id: int
    public_id: str
    campaign: str
    step: str
    customer_id: int
    record_id: int | None
    occasion: str
    occasion_at: datetime
    due_at: datetime
    expires_at: datetime
    ready_at: datetime
    created_at: datetime
    look_at: datetime | None
    arm: str
    purpose: str
    refused: str
    attempts: int


@dataclass(slots=True)  # not frozen, like all that is made for every message: see gates.Facts
class Going:
    """A claimed message that the release still has."""

    row: Claimed
    item: Item
    rules: Rules


@dataclass(slots=True)
class Ready:
    """A message committed as `sending`."""

    going: Going
    outgoing: Outgoing
    contact_id: int
    others: frozenset[str]  # the step's further channels on which the customer has an address


@dataclass(frozen=True, slots=True)
class Chunk:
    """What all messages of a chunk have in common."""

    loaded: Loaded
    token: str
    now: datetime
    lease_until: datetime
    by_person: bool = False  # claimed by a person who opened a task, not by a program
    behind: Counter[str] = field(default_factory=Counter)  # by sender or provider, how many of this tick wait already
    slowed: set[str] = field(default_factory=set)  # senders that got nothing through the last time, by name


Change = tuple[dict[str, Any], tuple[str, str]]  # a message's new values, and what to count it as
Stays = tuple[Claimed, Verdict]  # a message, and why it does not go

# What a message in `planned` has, once it has been there before: nothing of its attempt.
UNCLAIMED: dict[str, Any] = {"claim": None, "lease_until": None}
UNSENT: dict[str, Any] = {**UNCLAIMED, "contact_id": None, "sent_at": None}


def minutes_on(now: datetime, started: tuple[float, float]) -> datetime:
    """
    `now`, moved on by the whole minutes since the clocks said `started`.

    So a long tick does not judge sending hours by a moment long past, and a short one has one `now`.
    """
    return now + timedelta(minutes=clocks.elapsed(started) // 60)


def manual_campaign(template: str, channels: Sequence[str], purpose: str) -> Campaign:
    """What a manual send is to the rules: a campaign of one step without a trigger of its own."""
    step = Step(template, Duration(), tuple(channels), template, purpose=purpose)
    return Campaign(MANUAL, "Manual sends", Trigger("date"), (step,), purpose=purpose)


def run_many(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """
    The driver's own bulk form of a statement with `?` marks, rows in stored form: times as microseconds.

    A message costs a handful of such rows, and going through the toolkit for each doubles their price.
    """
    if rows:
        marked = statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")
        connection.exec_driver_sql(marked, list(rows))


def update_each(connection: Connection, changes: Sequence[dict[str, Any]], *where: Any) -> None:
    """Update messages by id (key `of`), those with the same columns at once."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        alike[tuple(change)].append(change)
    for same in alike.values():
        connection.execute(update(_messages).where(_messages.c.id == bindparam("of"), *where), same)


def pause(connection: Connection, campaigns: Iterable[str], reason: str, now: datetime) -> None:
    """Pause campaigns that run; a paused one keeps its first reason."""
    c = _states.c
    values = {"paused_at": now, "paused_reason": reason}
    for campaign in sorted(campaigns):
        connection.execute(update(_states).where(c.name == campaign, c.paused_at.is_(None)).values(values))
