"""
Write messages: one row for every step that is due, planned, held, or ended with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from outreach import arms, facts, occasions, releases, store, timing
from outreach.campaigns import Campaign, Step
from outreach.facts import Item
from outreach.models import (
    CampaignState,
    Case,
    Customer,
    Enrolment,
    Message,
    Order,
    Reason,
    Reply,
    ShopEvent,
    Status,
    StepState,
    table,
    to_micros,
)
from outreach.occasions import PAGE
from outreach.planner.brake import Brake
from outreach.planner.tick import Tick, dues_at
from outreach.store import BATCH, Lock, among
from outreach.values import CONTACT_KIND

_states, _steps, _enrolments = table(CampaignState), table(StepState), table(Enrolment)
_messages, _customers = table(Message), table(Customer)


# --- one transaction's messages -------------------------------------------------------------------


class Waiting(NamedTuple):
    """An enrolment some of whose steps may be due, and what their messages need of its customer."""

    id: int
    customer_id: int
    occasion: str
    record_id: int | None
    occasion_at: datetime
    arm: str
    created_at: datetime
    wake_at: datetime
    external_id: str
    email_id: int | None
    phone_id: int | None
    messenger_id: int | None
    dues: list[datetime]  # when each step of the campaign is due


class DueStep(NamedTuple):
    """A step that is due for an enrolment."""

    waiting: Waiting
    step: Step
    at: datetime
    expires_at: datetime
    cancelled_at: datetime | None  # when a person cancelled the step


Beginning = tuple[Status, Reason | None, str]  # how a message begins: status, reason, detail
_PLANNED: Beginning = (Status.PLANNED, None, "")

_COLUMNS = (
    "public_id",
    "campaign",
    "step",
    "customer_id",
    "occasion",
    "occasion_at",
    "record_id",
    "enrolment_id",
    "arm",
    "purpose",
    "priority",
    "status",
    "reason",
    "detail",
    "due_at",
    "expires_at",
    "ready_at",
    "channel",
    "refused",
    "attempts",
    "release",
    "created_at",
)
_STEP_STATES = select(_steps.c.step, _steps.c.first_published_at, _steps.c.cancelled_at).where(
    _steps.c.campaign == bindparam("of")
)


class Writer:
    """Writes the messages of one campaign in one tick, under its volume brake."""

    def __init__(self, tick: Tick, campaign: Campaign) -> None:
        self.tick, self.campaign, self.brake = tick, campaign, Brake(tick, campaign)
        self.ends_at = releases.ends_at(campaign, tick.settings)
        # enrolments a transaction: with a page of new ones, at most 2,000 rows though every step be due
        self.page = min(PAGE, (2 * BATCH - PAGE) // len(campaign.steps))

    def due(
        self, connection: Connection, waiting: Sequence[Waiting]
    ) -> tuple[list[DueStep], dict[int, datetime | None]]:
        """
        Which steps of these enrolments are due; by enrolment, when the next one will be.

        A step whose time has moved to before this look, since somebody's zone is known or its hour was edited, is due
        while it has not expired; unless it has a `where`, which it may have failed when its time was.
        """
        now, zone = self.tick.now, self.tick.settings.business.timezone
        states = {step: times for step, *times in connection.execute(_STEP_STATES, {"of": self.campaign.name})}
        steps = [(step, *states[step.id]) for step in self.campaign.steps]
        due: list[DueStep] = []
        wake: dict[int, datetime | None] = {}
        for one in waiting:
            later = None
            for at, (step, first_published_at, cancelled_at) in zip(one.dues, steps, strict=True):
                if at > now:
                    later = at if later is None else min(later, at)
                elif at >= first_published_at:
                    ends = timing.add(at, step.expires, zone)
                    if at >= one.wake_at or (ends > now and not step.where):
                        due.append(DueStep(one, step, at, ends, cancelled_at))
            wake[one.id] = later
        return due, wake

    def write(self, connection: Connection, due: Sequence[DueStep]) -> bool:
        """Write their messages; False when the brake holds, and nothing was written."""
        due = self._where_allows(connection, due)
        items = [self._item(d) for d in due]
        words = facts.true_words(connection, items, self.tick.now)
        gone = facts.gone(connection, self.tick.settings, items)
        begins = [self._begins(d, words[n], n in gone) for n, d in enumerate(due)]
        if not self.brake.allows(connection, sum(begin[0] is Status.PLANNED for begin in begins)):
            return False
        created, names = to_micros(self.tick.now), _names(connection, self.campaign, due)
        rows = [self._row(d, begin, created, names) for d, begin in zip(due, begins, strict=True)]
        rows = _with_own_ids(connection, self.tick.db.secret, rows)
        store.insert_stored(connection, _messages, _COLUMNS, rows)
        self._count(due, begins)
        return True

    def _where_allows(self, connection: Connection, due: Sequence[DueStep]) -> Sequence[DueStep]:
        """A step whose own `where` is false writes no row."""
        for step in self.campaign.steps:
            mine = [d.waiting for d in due if d.step is step] if step.where else []
            if step.where and mine:
                true = occasions.where_true(
                    connection, self.campaign, self.tick.settings, step.where, mine, self.tick.now
                )
                due = [d for d in due if d.step is not step or (d.waiting.customer_id, d.waiting.record_id) in true]
        return due

    def _item(self, d: DueStep) -> Item:
        w = d.waiting
        return Item(self.campaign, d.step, w.customer_id, w.record_id, w.occasion, w.occasion_at, d.at, d.expires_at)

    def _begins(self, d: DueStep, words: frozenset[str], gone: bool) -> Beginning:
        """Planned, held, or ended with its reason."""
        if gone:
            return Status.CANCELLED, Reason.RECORD_CLEARED, ""
        if d.cancelled_at is not None and d.waiting.created_at <= d.cancelled_at:
            return Status.CANCELLED, Reason.CANCELLED, ""
        if self.ends_at is not None and d.at >= self.ends_at:
            return Status.SKIPPED, Reason.ENDED, ""
        if words:
            for reason, listed in ((Reason.STOPPED, self.campaign.stop_when), (Reason.UNLESS, d.step.unless)):
                if true := [word for word in listed if word in words]:
                    return Status.SKIPPED, reason, true[0]
        if d.expires_at <= self.tick.now:
            late = d.waiting.created_at >= d.expires_at
            timed = self.campaign.trigger.event in ("date", "schedule")
            return Status.EXPIRED, Reason.LATE_DATA if late and not timed else Reason.MISSED, ""
        if d.waiting.arm == arms.HOLDOUT:
            return Status.HELD, Reason.HOLDOUT, ""
        return _PLANNED

    def _row(self, d: DueStep, begins: Beginning, created: int, names: Mapping[int, str]) -> tuple[Any, ...]:
        w, step, campaign, secret = d.waiting, d.step, self.campaign, self.tick.db.secret
        status, reason, detail = begins
        arm = w.arm
        if arm != arms.HOLDOUT and step.variants:
            arm = arms.variant(secret, campaign.experiment or campaign.name, step.id, step.variants, w.external_id)
        public_id = store.public_id(secret, campaign.name, step.id, w.external_id, _named(w, names))
        at = to_micros(d.at)
        channel = _provisional_channel(w, step) if status is Status.PLANNED else None
        return (
            public_id,
            campaign.name,
            step.id,
            w.customer_id,
            w.occasion,
            to_micros(w.occasion_at),
            w.record_id,
            w.id,
            arm,
            step.purpose,
            campaign.priority,
            status.value,
            reason and reason.value,
            detail,
            at,
            to_micros(d.expires_at),
            at,
            channel,
            "",
            0,
            self.tick.loaded.number,
            created,
        )

    def _count(self, due: Sequence[DueStep], begins: Sequence[Beginning]) -> None:
        counts = self.tick.of(self.campaign)
        planned = [d.step.id for d, begin in zip(due, begins, strict=True) if begin[0] is Status.PLANNED]
        held = sum(begin[0] is Status.HELD for begin in begins)
        counts.planned += len(planned)
        counts.held += held
        counts.skipped += len(due) - len(planned) - held
        counts.steps.update(planned)


_TAKEN = select(_messages.c.public_id).where(among(_messages.c.public_id, "ids"))


def _with_own_ids(connection: Connection, secret: bytes, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """
    The rows with public ids that no message has.

    What was renamed keeps the ids that its former name made: whatever takes that name later needs others.
    """
    while taken := set(connection.execute(_TAKEN, {"ids": [row[0] for row in rows]}).scalars()) if rows else set():
        rows = [(store.keyed_hash(secret, "again", row[0]), *row[1:]) if row[0] in taken else row for row in rows]
    return rows


_RECORDS = {"order": table(Order), "case": table(Case), "event": table(ShopEvent), "customer": _customers}
_replies = table(Reply)
_NAMES = {subject: select(of.c.id, of.c.external_id).where(among(of.c.id, "ids")) for subject, of in _RECORDS.items()}
_NAMES["reply"] = select(_replies.c.id, _replies.c.event_id.label("external_id")).where(among(_replies.c.id, "ids"))


def _names(connection: Connection, campaign: Campaign, due: Sequence[DueStep]) -> dict[int, str]:
    """The shop's own ids of the records that the occasions are of."""
    ids = {d.waiting.record_id for d in due if d.waiting.record_id is not None}
    if not ids:
        return {}
    subject = "order" if campaign.trigger.event == "customer.inactive" else campaign.trigger.subject
    if subject not in _NAMES:
        return {}
    return {row.id: row.external_id for row in connection.execute(_NAMES[subject], {"ids": ids})}


def _named(waiting: Waiting, names: Mapping[int, str]) -> str:
    """The occasion by the shop's own id of its record: ours may be another one when it is imported after a restore."""
    name = names.get(waiting.record_id) if waiting.record_id is not None else None
    if name is None:
        return waiting.occasion
    event, _, key = waiting.occasion.rpartition(":")
    return f"{event}:{name}{key.removeprefix(str(waiting.record_id))}"


def _provisional_channel(waiting: Waiting, step: Step) -> str | None:
    for channel in step.channels:
        if getattr(waiting, f"{CONTACT_KIND[channel]}_id") is not None:
            return channel
    return None


# --- on the clock ---------------------------------------------------------------------------------


def wake_again(tick: Tick, campaign: Campaign, state: Any) -> None:
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
            connection.execute(update(_enrolments).where(among(c.id, ids), later).values(wake_at=at))
            if len(ids) < BATCH:
                connection.execute(update(_states).where(_states.c.name == campaign.name).values(look_again=False))
                return
            last = ids[-1]


def write_due(tick: Tick, campaign: Campaign, writer: Writer) -> None:
    """Write the messages of every due step, a page of enrolments a transaction, until none is left or the brake holds."""
    while not writer.brake.held and _anything_due(tick, campaign):
        with store.write(tick.db) as connection:
            if not store.lock(connection, Lock.PLAN, campaign.name, wait=False):
                return
            waiting = _due_enrolments(connection, tick, campaign, writer.page)
            due, wake = writer.due(connection, waiting)
            if not waiting or not writer.write(connection, _unwritten(connection, campaign, due)):
                return
            store.update_many(connection, _enrolments, "wake_at", [(at, i) for i, at in wake.items()])


_DUE = (
    _enrolments.c.campaign == bindparam("of"),
    _enrolments.c.wake_at.is_not(None),
    _enrolments.c.wake_at <= bindparam("now"),
)
_ANY_DUE = select(_enrolments.c.id).where(*_DUE).limit(1)
_DUE_ENROLMENTS = (
    select(
        _enrolments.c.id,
        _enrolments.c.customer_id,
        _enrolments.c.occasion,
        _enrolments.c.record_id,
        _enrolments.c.occasion_at,
        _enrolments.c.arm,
        _enrolments.c.created_at,
        _enrolments.c.wake_at,
        _customers.c.external_id,
        _customers.c.email_id,
        _customers.c.phone_id,
        _customers.c.messenger_id,
        _customers.c.zones,
    )
    .join(_customers, _customers.c.id == _enrolments.c.customer_id)
    .where(*_DUE)
    .order_by(_enrolments.c.wake_at, _enrolments.c.id)
    .limit(bindparam("page"))
)


def _anything_due(tick: Tick, campaign: Campaign) -> bool:
    with store.read(tick.db) as connection:
        return connection.execute(_ANY_DUE, {"of": campaign.name, "now": tick.now}).first() is not None


def _due_enrolments(connection: Connection, tick: Tick, campaign: Campaign, page: int) -> list[Waiting]:
    rows = connection.execute(_DUE_ENROLMENTS, {"of": campaign.name, "now": tick.now, "page": page}).all()
    return [
        Waiting._make((*row[:-1], dues_at(tick, campaign, row.occasion_at, tuple(row.zones.split())))) for row in rows
    ]


_WRITTEN = select(_messages.c.step, _messages.c.customer_id, _messages.c.occasion).where(
    _messages.c.campaign == bindparam("of"),
    _messages.c.step.in_(bindparam("steps", expanding=True)),
    among(_messages.c.customer_id, "ids"),
)


def _unwritten(connection: Connection, campaign: Campaign, due: Sequence[DueStep]) -> Sequence[DueStep]:
    """Those that have no message yet (an edited campaign looks again at steps it has written)."""
    if not due:
        return due
    steps, ids = sorted({d.step.id for d in due}), {d.waiting.customer_id for d in due}
    rows = connection.execute(_WRITTEN, {"of": campaign.name, "steps": steps, "ids": ids})
    known = {tuple(row) for row in rows.all()}
    return [d for d in due if (d.step.id, d.waiting.customer_id, d.waiting.occasion) not in known]
