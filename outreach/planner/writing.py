"""
Write messages: one row for every step that is due, planned, held, or ended with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from outreach import arms, facts, occasions, releases, store, timing
from outreach.campaigns import Campaign, Step
from outreach.facts import Item
from outreach.models import CampaignState, Customer, Enrolment, Message, Reason, Status, StepState, table
from outreach.occasions import PAGE
from outreach.planner.brake import Brake
from outreach.planner.tick import CampaignCounts, Tick, due_at
from outreach.store import BATCH, Lock, among

_states, _steps, _enrolments = table(CampaignState), table(StepState), table(Enrolment)
_messages, _customers = table(Message), table(Customer)


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


def write_due(tick: Tick, campaign: Campaign) -> None:
    """Write the messages of every due step, a page of enrolments a transaction, until none is left or the brake holds."""
    brake = Brake(tick, campaign)
    while _anything_due(tick, campaign):
        with store.write(tick.db) as connection:
            if not store.lock(connection, Lock.PLAN, campaign.name, wait=False):
                return
            due = _due_enrolments(connection, tick, campaign)
            if not due or not _write_messages(connection, tick, campaign, due, brake):
                return


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
        _customers.c.zones,
        _customers.c.email_id,
        _customers.c.phone_id,
    )
    .join(_customers, _customers.c.id == _enrolments.c.customer_id)
    .where(*_DUE)
    .order_by(_enrolments.c.wake_at, _enrolments.c.id)
    .limit(PAGE)
)


def _anything_due(tick: Tick, campaign: Campaign) -> bool:
    with store.read(tick.db) as connection:
        return connection.execute(_ANY_DUE, {"of": campaign.name, "now": tick.now}).first() is not None


def _due_enrolments(connection: Connection, tick: Tick, campaign: Campaign) -> Sequence[Any]:
    return connection.execute(_DUE_ENROLMENTS, {"of": campaign.name, "now": tick.now}).all()


@dataclass(frozen=True)
class _DueStep:
    enrolment: Any
    step: Step
    at: datetime
    expires_at: datetime


def _write_messages(
    connection: Connection, tick: Tick, campaign: Campaign, enrolments: Sequence[Any], brake: Brake
) -> bool:
    """Write what is due of these enrolments; False when the brake held, and nothing was written."""
    steps = _step_states(connection, campaign)
    due: list[_DueStep] = []
    wake: list[tuple[datetime | None, int]] = []
    for enrolment in enrolments:
        later, zones = None, tuple(enrolment.zones.split())
        for step in campaign.steps:
            at = due_at(tick, step, enrolment.occasion_at, zones)
            if at > tick.now:
                later = at if later is None else min(later, at)
            elif at >= enrolment.wake_at and at >= steps[step.id].first_published_at:
                expires = timing.add(at, step.expires, tick.settings.business.timezone)
                due.append(_DueStep(enrolment, step, at, expires))
        wake.append((later, enrolment.id))
    rows = _rows(connection, tick, campaign, _unwritten(connection, campaign, due), steps)
    if not brake.allows(connection, rows):
        return False
    store.insert_many(connection, _messages, rows)
    store.update_many(connection, _enrolments, "wake_at", wake)
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
        among(c.customer_id, {d.enrolment.customer_id for d in due}),
    )
    known = {tuple(row) for row in connection.execute(query)}
    return [d for d in due if (d.step.id, d.enrolment.customer_id, d.enrolment.occasion) not in known]


def _rows(
    connection: Connection, tick: Tick, campaign: Campaign, due: Sequence[_DueStep], steps: dict[str, Any]
) -> list[dict[str, Any]]:
    wanted = _where_allows(connection, tick, campaign, due)
    words: Sequence[frozenset[str]] = [frozenset()] * len(wanted)
    if campaign.stop_when or any(step.unless for step in campaign.steps):
        words = facts.true_words(connection, [_item(campaign, d) for d in wanted], tick.now)
    return [
        _row(tick, campaign, d, _ending(tick, campaign, d, true, steps[d.step.id]))
        for d, true in zip(wanted, words, strict=True)
    ]


def _where_allows(connection: Connection, tick: Tick, campaign: Campaign, due: Sequence[_DueStep]) -> list[_DueStep]:
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
    tick: Tick, campaign: Campaign, d: _DueStep, words: frozenset[str], state: Any
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


def _row(tick: Tick, campaign: Campaign, d: _DueStep, begins: tuple[Status, Reason | None, str]) -> dict[str, Any]:
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
