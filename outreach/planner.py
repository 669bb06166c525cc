"""
Plan: from the release in force and the records to enrolments, and to messages written once.

`plan` is idempotent and safe to run in any number of processes: a page of occasions and what it
consumed are written in one transaction, under the campaign's lock, and a message's key is unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from outreach import arms, facts, gates, occasions, releases, store, timing
from outreach.campaigns import Campaign, Step
from outreach.facts import Item
from outreach.models import (
    CampaignState,
    Customer,
    Enrolment,
    Fresh,
    Message,
    Reason,
    Status,
    StepState,
    table,
)
from outreach.occasions import Occasion, Page
from outreach.releases import Loaded
from outreach.settings import Settings
from outreach.store import BATCH, Database, Lock, among

BRAKE_SHARE = 0.20  # of all customers, in a rolling 24 hours
BRAKE_LEAST = 500
DAY = timedelta(days=1)

_states, _steps, _enrolments = table(CampaignState), table(StepState), table(Enrolment)
_messages, _customers, _fresh = table(Message), table(Customer), table(Fresh)


@dataclass
class CampaignCounts:
    """What a tick did for one campaign."""

    enrolled: int = 0  # assigned to an arm
    planned: int = 0
    held: int = 0
    skipped: int = 0  # occasions and messages that ended here, expired ones included
    steps: Counter[str] = field(default_factory=Counter)  # planned, by step

    def as_json(self) -> dict[str, Any]:
        return {
            "enrolled": self.enrolled,
            "planned": self.planned,
            "held": self.held,
            "skipped": self.skipped,
            "steps": dict(self.steps),
        }


@dataclass(frozen=True)
class PlanCounts:
    """What a tick of `plan` did."""

    by_campaign: dict[str, CampaignCounts] = field(default_factory=dict)
    paused: list[dict[str, str]] = field(default_factory=list)

    def total(self, what: str) -> int:
        return sum(getattr(counts, what) for counts in self.by_campaign.values())

    @property
    def enrolled(self) -> int:
        return self.total("enrolled")

    @property
    def planned(self) -> int:
        return self.total("planned")

    @property
    def held(self) -> int:
        return self.total("held")

    @property
    def skipped(self) -> int:
        return self.total("skipped")

    def as_json(self) -> dict[str, Any]:
        return {
            "enrolled": self.enrolled,
            "planned": self.planned,
            "held": self.held,
            "skipped": self.skipped,
            "by_campaign": {name: counts.as_json() for name, counts in self.by_campaign.items()},
            "paused": self.paused,
        }


@dataclass(frozen=True)
class _Tick:
    """What every function of one tick works from."""

    db: Database
    loaded: Loaded
    now: datetime
    counts: PlanCounts

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    def of(self, campaign: Campaign) -> CampaignCounts:
        return self.counts.by_campaign.setdefault(campaign.name, CampaignCounts())


def plan(db: Database, settings: Settings, now: datetime) -> PlanCounts:
    """
    Enrol every new occasion of the release in force, and write the messages of every step that is due.

    Raises:
        ClockError: `now` is earlier than one this database has already seen.
    """
    counts = PlanCounts()
    with store.write(db) as connection:
        store.seen(connection, now)
    loaded = releases.current(db, settings)
    if loaded is not None:
        tick = _Tick(db, loaded, now, counts)
        with store.read(db) as connection:
            states = {row.name: row for row in connection.execute(select(_states))}
            newest = connection.execute(select(func.max(_fresh.c.id))).scalar() or 0
        for campaign in loaded.campaigns.values():
            state = states.get(campaign.name)
            if campaign.active and state is not None and state.paused_at is None:
                _enrol(tick, campaign, state, newest)
                _wake_again(tick, campaign, state)
                _write_due(tick, campaign)
        _prune(tick, newest)
    with store.write(db) as connection:
        store.record_tick(connection, "plan", now, now, counts.as_json())
    return counts


# --- 1. enrol -------------------------------------------------------------------------------------


def _enrol(tick: _Tick, campaign: Campaign, state: Any, newest: int) -> None:
    """Take the campaign's new occasions, a page a transaction; another planner's campaign is left to it."""
    settings, now = tick.settings, tick.now

    def sources(reading: Connection) -> Iterator[Page]:
        yield from occasions.from_fresh(reading, campaign, settings, state, now, newest)
        yield from occasions.from_clock(reading, campaign, settings, state, now)
        yield from occasions.owed(reading, campaign, settings, state)

    with store.read(tick.db) as reading:
        for page in sources(reading):
            with store.write(tick.db) as writing:
                if not store.lock(writing, Lock.PLAN, campaign.name, wait=False):
                    return
                _write_page(writing, tick, campaign, page)


def _write_page(connection: Connection, tick: _Tick, campaign: Campaign, page: Page) -> None:
    remember = dict(page.remember)
    found = _not_enrolled(connection, campaign, _in_time(connection, tick, campaign, page.occasions))
    if found:
        found = occasions.in_audience(connection, campaign, tick.settings, found, tick.now)
    debt = connection.execute(select(_states.c.backfill).where(_states.c.name == campaign.name)).scalar() or {}
    if "backfill" in remember and debt:
        found = occasions.paced(found, debt, tick.settings)
        if remember["backfill"]:
            remember["backfill"]["done"] = debt["done"] + len(found)
    if found:
        _write_enrolments(connection, tick, campaign, found)
    if page.cleared:
        _end_cleared(connection, campaign, page.cleared)
    if remember:
        connection.execute(update(_states).where(_states.c.name == campaign.name).values(remember))


def _in_time(connection: Connection, tick: _Tick, campaign: Campaign, found: Sequence[Occasion]) -> list[Occasion]:
    """Those between the campaign's start (its first publish, unless `starts` says otherwise) and its `ends`."""
    if not found:
        return []
    state = connection.execute(select(_states).where(_states.c.name == campaign.name)).one()
    start = releases.starts_at(campaign, tick.settings) or state.first_published_at
    if state.backfill:
        start = (
            min(
                start,
                timing.subtract(state.first_published_at, campaign.backfill.last, tick.settings.business.timezone),
            )
            if campaign.backfill
            else start
        )
    end = releases.ends_at(campaign, tick.settings)
    return [o for o in found if o.at >= start and (end is None or o.at < end)]


def _not_enrolled(connection: Connection, campaign: Campaign, found: Sequence[Occasion]) -> list[Occasion]:
    """Those that have no enrolment yet, one per key."""
    if not found:
        return []
    c = _enrolments.c
    query = select(c.customer_id, c.occasion).where(c.campaign == campaign.name)
    known = {
        tuple(row)
        for row in connection.execute(query.where(among(connection, c.customer_id, {o.customer_id for o in found})))
    }
    return list({(o.customer_id, o.key): o for o in found if (o.customer_id, o.key) not in known}.values())


def _write_enrolments(connection: Connection, tick: _Tick, campaign: Campaign, found: Sequence[Occasion]) -> None:
    first = campaign.steps[0]
    items = [
        Item(campaign, first, o.customer_id, o.record_id, o.key, o.at, due_at=o.at, expires_at=o.at) for o in found
    ]
    known = facts.fetch(connection, tick.settings, items, tick.now, judging=True)
    earlier = _earlier_times(connection, tick, campaign, found)
    drawn, by_contact = _arms_drawn(connection, campaign, found), dict[int, str]()
    rows, counts = [], tick.of(campaign)
    rules = facts.rules(items[0])  # judged without its times, so one serves all
    for occasion, fact in zip(found, known, strict=True):
        reason = gates.judge(fact, rules, tick.settings, tick.db.secret)
        if reason is None and not _at_most_allows(campaign, earlier.setdefault(occasion.customer_id, []), occasion.at):
            reason = Reason.AT_MOST
        arm = None
        if reason is None:
            earlier[occasion.customer_id].append(occasion.at)
            arm = _arm(tick, campaign, occasion.customer_id, fact, drawn, by_contact)
        due = min(_due(tick, step, occasion.at, fact.zones) for step in campaign.steps)
        rows.append(_enrolment(tick, campaign, occasion, arm, reason, due))
        counts.enrolled += reason is None
        counts.skipped += reason is not None
    store.insert_many(connection, _enrolments, rows)


def _enrolment(
    tick: _Tick, campaign: Campaign, occasion: Occasion, arm: str | None, reason: Reason | None, due: datetime
) -> dict[str, Any]:
    return {
        "campaign": campaign.name,
        "customer_id": occasion.customer_id,
        "occasion": occasion.key,
        "record_id": occasion.record_id,
        "occasion_at": occasion.at,
        "first_due_at": due,
        "experiment": campaign.experiment or campaign.name,
        "arm": arm,
        "reason": reason,
        "release": tick.loaded.number,
        "created_at": tick.now,
        "wake_at": due if reason is None else None,
    }


def _arm(
    tick: _Tick, campaign: Campaign, customer: int, fact: gates.Facts, drawn: dict[int, str], by_contact: dict[int, str]
) -> str:
    """The arm that the customer or one of their addresses already has, else the one the draw gives."""
    contacts = [contact.contact_id for contact in fact.contacts.values()]
    arm = drawn.get(customer) or next((by_contact[contact] for contact in contacts if contact in by_contact), None)
    if arm is None:
        experiment = campaign.experiment or campaign.name
        held = campaign.holdout and arms.is_held(tick.db.secret, experiment, campaign.holdout, fact.external_id)
        arm = "holdout" if held else "contact"
    drawn[customer] = arm
    by_contact.update(dict.fromkeys(contacts, arm))
    return arm


def _arms_drawn(connection: Connection, campaign: Campaign, found: Sequence[Occasion]) -> dict[int, str]:
    """By customer, the arm that they, or another record with one of their addresses, already have in the experiment."""
    ids = sorted({o.customer_id for o in found})
    others = {i: [i] for i in ids}
    mine, other = _customers.alias("mine"), _customers.alias("other")
    for shared in (mine.c.email_id == other.c.email_id, mine.c.phone_id == other.c.phone_id):
        query = (
            select(mine.c.id, other.c.id)
            .join(other, shared)
            .where(among(connection, mine.c.id, ids), mine.c.id != other.c.id)
        )
        for customer, twin in connection.execute(query):
            others[customer].append(twin)
    e = _enrolments.c
    query = select(e.customer_id, e.arm).where(
        e.experiment == (campaign.experiment or campaign.name), e.arm.is_not(None)
    )
    query = query.where(among(connection, e.customer_id, {twin for twins in others.values() for twin in twins}))
    arms_of: dict[int, str] = {}
    for customer, arm in connection.execute(query.order_by(e.id)):
        arms_of.setdefault(customer, arm)
    drawn = {customer: next((arms_of[t] for t in twins if t in arms_of), None) for customer, twins in others.items()}
    return {customer: arm for customer, arm in drawn.items() if arm is not None}


def _earlier_times(
    connection: Connection, tick: _Tick, campaign: Campaign, found: Sequence[Occasion]
) -> dict[int, list[datetime]]:
    """For `at_most`: when the campaign took up each customer before, within the window of the oldest occasion."""
    if campaign.at_most is None:
        return {}
    since = timing.subtract(min(o.at for o in found), campaign.at_most.per, tick.settings.business.timezone)
    c = _enrolments.c
    query = select(c.customer_id, c.occasion_at).where(
        c.campaign == campaign.name,
        among(connection, c.customer_id, {o.customer_id for o in found}),
        c.occasion_at > since,
        c.arm.is_not(None),
    )
    times: dict[int, list[datetime]] = {}
    for customer, at in connection.execute(query):
        times.setdefault(customer, []).append(at)
    return times


def _at_most_allows(campaign: Campaign, times: list[datetime], at: datetime) -> bool:
    if campaign.at_most is None:
        return True
    window = campaign.at_most.per.clock
    return sum(abs(at - earlier) < window for earlier in times) < campaign.at_most.count


def _due(tick: _Tick, step: Step, occasion_at: datetime, zones: tuple[str, ...]) -> datetime:
    if step.at is None and not step.after.is_calendar:
        return occasion_at + step.after.clock
    return timing.due_at(occasion_at, step.after, step.at, zones, tick.settings.business.timezone)


def _end_cleared(connection: Connection, campaign: Campaign, cleared: Sequence[Occasion]) -> None:
    """A time that was taken back cancels what was not sent of its occasions."""
    for occasion in cleared:
        e, m = _enrolments.c, _messages.c
        mine = (e.campaign == campaign.name, e.customer_id == occasion.customer_id, e.occasion == occasion.key)
        connection.execute(update(_enrolments).where(*mine).values(wake_at=None))
        theirs = (m.campaign == campaign.name, m.customer_id == occasion.customer_id, m.occasion == occasion.key)
        values = {"status": Status.CANCELLED, "reason": Reason.RECORD_CLEARED, "claim": None, "lease_until": None}
        connection.execute(update(_messages).where(*theirs, m.status == Status.PLANNED).values(values))


# --- 2. write messages ----------------------------------------------------------------------------


def _wake_again(tick: _Tick, campaign: Campaign, state: Any) -> None:
    """After its steps changed, look again at every enrolment that may still have a step to come."""
    if not state.look_again:
        return
    c, last = _enrolments.c, 0
    horizon = tick.now - campaign.look_back.longest
    while True:
        with store.write(tick.db) as connection:
            query = select(c.id).where(
                c.campaign == campaign.name, c.id > last, c.arm.is_not(None), c.occasion_at > horizon
            )
            ids = list(connection.execute(query.order_by(c.id).limit(BATCH)).scalars())
            at = tick.loaded.published_at
            later = (c.wake_at.is_(None)) | (c.wake_at > at)
            connection.execute(update(_enrolments).where(among(connection, c.id, ids), later).values(wake_at=at))
            if len(ids) < BATCH:
                connection.execute(update(_states).where(_states.c.name == campaign.name).values(look_again=False))
                return
            last = ids[-1]


def _write_due(tick: _Tick, campaign: Campaign) -> None:
    """Write the messages of every due step, a page of enrolments a transaction, until none is left or the brake holds."""
    brake = _Brake(tick, campaign)
    while _anything_due(tick, campaign):
        with store.write(tick.db) as connection:
            if not store.lock(connection, Lock.PLAN, campaign.name, wait=False):
                return
            due = _due_enrolments(connection, tick, campaign)
            if not due or not _write_messages(connection, tick, campaign, due, brake):
                return


def _anything_due(tick: _Tick, campaign: Campaign) -> bool:
    c = _enrolments.c
    with store.read(tick.db) as connection:
        query = select(c.id).where(c.campaign == campaign.name, c.wake_at.is_not(None), c.wake_at <= tick.now)
        return connection.execute(query.limit(1)).first() is not None


def _due_enrolments(connection: Connection, tick: _Tick, campaign: Campaign) -> Sequence[Any]:
    c, p = _enrolments.c, _customers.c
    columns = (c.id, c.customer_id, c.occasion, c.record_id, c.occasion_at, c.arm, c.created_at, c.wake_at)
    query = select(*columns, p.external_id, p.zones, p.email_id, p.phone_id).join(_customers, p.id == c.customer_id)
    query = query.where(c.campaign == campaign.name, c.wake_at.is_not(None), c.wake_at <= tick.now)
    return connection.execute(query.order_by(c.wake_at, c.id).limit(BATCH)).all()


@dataclass(frozen=True)
class _DueStep:
    enrolment: Any
    step: Step
    at: datetime
    expires_at: datetime


def _write_messages(
    connection: Connection, tick: _Tick, campaign: Campaign, enrolments: Sequence[Any], brake: _Brake
) -> bool:
    """Write what is due of these enrolments; False when the brake held, and nothing was written."""
    steps = _step_states(connection, campaign)
    due: list[_DueStep] = []
    wake: list[dict[str, Any]] = []
    for enrolment in enrolments:
        later, zones = None, tuple(enrolment.zones.split())
        for step in campaign.steps:
            at = _due(tick, step, enrolment.occasion_at, zones)
            if at > tick.now:
                later = at if later is None else min(later, at)
            elif at >= enrolment.wake_at and at >= steps[step.id].first_published_at:
                expires = timing.add(at, step.expires, tick.settings.business.timezone)
                due.append(_DueStep(enrolment, step, at, expires))
        wake.append({"which": enrolment.id, "wake_at": later})
    rows = _rows(connection, tick, campaign, _unwritten(connection, campaign, due), steps)
    if not brake.allows(connection, rows):
        return False
    store.insert_many(connection, _messages, rows)
    connection.execute(
        update(_enrolments).where(_enrolments.c.id == bindparam("which")).values(wake_at=bindparam("wake_at")), wake
    )
    _count(tick.of(campaign), rows)
    return True


def _step_states(connection: Connection, campaign: Campaign) -> dict[str, Any]:
    c = _steps.c
    return {row.step: row for row in connection.execute(select(_steps).where(c.campaign == campaign.name))}


def _unwritten(connection: Connection, campaign: Campaign, due: Sequence[_DueStep]) -> list[_DueStep]:
    """Those that have no message yet (an edited campaign looks again at steps it has written)."""
    if not due:
        return []
    c = _messages.c
    query = select(c.step, c.customer_id, c.occasion).where(
        c.campaign == campaign.name,
        c.step.in_({d.step.id for d in due}),
        among(connection, c.customer_id, {d.enrolment.customer_id for d in due}),
    )
    known = {tuple(row) for row in connection.execute(query)}
    return [d for d in due if (d.step.id, d.enrolment.customer_id, d.enrolment.occasion) not in known]


def _rows(
    connection: Connection, tick: _Tick, campaign: Campaign, due: Sequence[_DueStep], steps: dict[str, Any]
) -> list[dict[str, Any]]:
    wanted = _where_allows(connection, tick, campaign, due)
    words: Sequence[frozenset[str]] = [frozenset()] * len(wanted)
    if campaign.stop_when or any(step.unless for step in campaign.steps):
        words = facts.true_words(connection, [_item(campaign, d) for d in wanted], tick.now)
    return [
        _row(tick, campaign, d, _ending(tick, campaign, d, true, steps[d.step.id]))
        for d, true in zip(wanted, words, strict=True)
    ]


def _where_allows(connection: Connection, tick: _Tick, campaign: Campaign, due: Sequence[_DueStep]) -> list[_DueStep]:
    """A step whose own `where` is false writes no row."""
    true = {
        step.id: occasions.where_true(
            connection, campaign, tick.settings, step.where, [d.enrolment for d in due if d.step is step], tick.now
        )
        for step in {d.step.id: d.step for d in due}.values()
        if step.where
    }
    return [
        d for d in due if d.step.id not in true or (d.enrolment.customer_id, d.enrolment.record_id) in true[d.step.id]
    ]


def _item(campaign: Campaign, d: _DueStep) -> Item:
    e = d.enrolment
    return Item(campaign, d.step, e.customer_id, e.record_id, e.occasion, e.occasion_at, d.at, d.expires_at)


def _ending(
    tick: _Tick, campaign: Campaign, d: _DueStep, words: frozenset[str], state: Any
) -> tuple[Status, Reason | None, str]:
    """How the row begins: planned, held, or ended with its reason."""
    if state.cancelled_at is not None and d.enrolment.created_at <= state.cancelled_at:
        return Status.CANCELLED, Reason.CANCELLED, ""
    end = releases.ends_at(campaign, tick.settings)
    if end is not None and d.at >= end:
        return Status.SKIPPED, Reason.ENDED, ""
    for reason, listed in ((Reason.STOPPED, campaign.stop_when), (Reason.UNLESS, d.step.unless)):
        if true := [word for word in listed if word in words]:
            return Status.SKIPPED, reason, true[0]
    if d.expires_at <= tick.now:
        late = d.enrolment.created_at >= d.expires_at
        timed = campaign.trigger.event in ("date", "schedule")
        return Status.EXPIRED, Reason.LATE_DATA if late and not timed else Reason.MISSED, ""
    if d.enrolment.arm == "holdout":
        return Status.HELD, Reason.HOLDOUT, ""
    return Status.PLANNED, None, ""


def _row(tick: _Tick, campaign: Campaign, d: _DueStep, begins: tuple[Status, Reason | None, str]) -> dict[str, Any]:
    e, step = d.enrolment, d.step
    status, reason, detail = begins
    experiment = campaign.experiment or campaign.name
    arm = e.arm
    if arm != "holdout" and step.variants:
        arm = arms.variant(tick.db.secret, experiment, step.id, step.variants, e.external_id)
    return {
        "public_id": store.public_id(tick.db.secret, campaign.name, step.id, e.external_id, e.occasion),
        "campaign": campaign.name,
        "step": step.id,
        "customer_id": e.customer_id,
        "occasion": e.occasion,
        "occasion_at": e.occasion_at,
        "record_id": e.record_id,
        "enrolment_id": e.id,
        "arm": arm,
        "purpose": step.purpose,
        "priority": campaign.priority,
        "status": status,
        "reason": reason,
        "detail": detail,
        "due_at": d.at,
        "expires_at": d.expires_at,
        "ready_at": d.at,
        "channel": _provisional_channel(e, step) if status is Status.PLANNED else None,
        "refused": "",
        "attempts": 0,
        "release": tick.loaded.number,
        "created_at": tick.now,
    }


def _provisional_channel(enrolment: Any, step: Step) -> str | None:
    have = {"email": enrolment.email_id, "phone": enrolment.phone_id}
    return next((c for c in step.channels if have.get(facts.CONTACT_KIND.get(c, "")) is not None), None)


def _count(counts: CampaignCounts, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if row["status"] is Status.PLANNED:
            counts.planned += 1
            counts.steps[row["step"]] += 1
        elif row["status"] is Status.HELD:
            counts.held += 1
        else:
            counts.skipped += 1


class _Brake:
    """
    The volume brake of one campaign in one tick: messages planned in the rolling 24 hours, counted before writing.

    It rests for 24 hours after a person resumed the campaign.
    """

    def __init__(self, tick: _Tick, campaign: Campaign) -> None:
        self.tick, self.campaign = tick, campaign
        self.limit: int | None = None
        self.written = 0

    def allows(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether these rows may be written; if not, the campaign is paused in this transaction."""
        new = sum(row["status"] is Status.PLANNED for row in rows)
        if not new:
            return True
        if self.limit is None:
            self._look_up(connection)
        if self.limit is None or self.written + new <= self.limit:
            self.written += new
            return True
        reason = (
            f"volume brake: {self.written + new:,} messages in 24 hours would be more than {self.limit:,};"
            f" look at them, then `outreach resume {self.campaign.name}`"
        )
        values = {"paused_at": self.tick.now, "paused_reason": reason}
        connection.execute(update(_states).where(_states.c.name == self.campaign.name).values(values))
        self.tick.counts.paused.append({"campaign": self.campaign.name, "reason": reason})
        return False

    def _look_up(self, connection: Connection) -> None:
        state = connection.execute(select(_states).where(_states.c.name == self.campaign.name)).one()
        if state.resumed_at is not None and self.tick.now - state.resumed_at < DAY:
            return
        c = _messages.c
        query = select(func.count()).where(c.campaign == self.campaign.name, c.created_at > self.tick.now - DAY)
        uncounted = (Status.HELD, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED)
        self.written = connection.execute(query.where(c.status.not_in(uncounted))).scalar() or 0
        self.limit = self._limit(connection, state.brake)

    def _limit(self, connection: Connection, confirmed: int | None) -> int:
        customers = connection.execute(select(func.max(_customers.c.id))).scalar() or 0
        asked = self.campaign.brake
        if isinstance(asked, int):
            return asked
        if asked is None and confirmed is not None:
            return max(confirmed * len(self.campaign.steps), BRAKE_LEAST)
        return max(int(customers * (BRAKE_SHARE if asked is None else asked)), BRAKE_LEAST)


# --- 3. forget what every campaign has consumed ---------------------------------------------------


def _prune(tick: _Tick, newest: int) -> None:
    """Drop what no campaign will ask for any more from the queue, so that it stays as short as its news."""
    with store.read(tick.db) as connection:
        if connection.execute(select(_fresh.c.id).limit(1)).first() is None:
            return
        states = {row.name: row.fresh_id for row in connection.execute(select(_states.c.name, _states.c.fresh_id))}
        waiting = [
            states.get(c.name, 0) for c in tick.loaded.campaigns.values() if c.active and occasions.fresh_kinds(c)
        ]
        done = min([newest, *waiting]) if waiting else newest
    while True:
        with store.write(tick.db) as connection:
            ids = list(
                connection.execute(
                    select(_fresh.c.id).where(_fresh.c.id <= done).order_by(_fresh.c.id).limit(BATCH)
                ).scalars()
            )
            if ids:
                connection.execute(_fresh.delete().where(among(connection, _fresh.c.id, ids)))
        if len(ids) < BATCH:
            return
