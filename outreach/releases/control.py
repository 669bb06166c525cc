"""
Pause, resume and cancel campaigns that are published.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from outreach import naming, store
from outreach.errors import NotFound
from outreach.models import (
    CampaignState,
    Message,
    Reason,
    Status,
    StepState,
    table,
)
from outreach.store import BATCH, Database, Lock
from outreach.yamlfile import did_you_mean, listed

_states = table(CampaignState)
_steps = table(StepState)
_messages = table(Message)

BY_HAND = "paused by hand"  # how the stored reason of a person's pause begins; no program's reason does


def pause(db: Database, campaign: str | None, reason: str, now: datetime) -> list[str]:
    """
    A person pauses one campaign, or all: nothing of theirs is planned or sent from the next chunk on.

    Gives their names. The reason is kept so that it is told from those that programs give.
    """
    with store.write(db) as connection:
        names = _named(connection, campaign)
        said = reason if reason.startswith(BY_HAND) else f"{BY_HAND}: {reason}" if reason else BY_HAND
        values = {"paused_at": now, "paused_reason": said}
        connection.execute(
            update(_states).where(_states.c.name.in_(names), _states.c.paused_at.is_(None)).values(values)
        )
    return names


def paused(db: Database) -> dict[str, str]:
    """The campaigns that are paused, each with its reason, by name."""
    c = _states.c
    with store.read(db) as connection:
        rows = connection.execute(select(c.name, c.paused_reason).where(c.paused_at.is_not(None)).order_by(c.name))
        return {row.name: row.paused_reason for row in rows}


def resume(db: Database, campaign: str | None, now: datetime) -> list[str]:
    """Let one campaign, or all paused ones, go on; its volume brake rests for 24 hours, since a person looked."""
    with store.write(db) as connection:
        names = _named(connection, campaign)
        paused = select(_states.c.name).where(_states.c.name.in_(names), _states.c.paused_at.is_not(None))
        resumed = list(connection.execute(paused).scalars())
        values = {"paused_at": None, "paused_reason": "", "resumed_at": now}
        connection.execute(update(_states).where(_states.c.name.in_(resumed)).values(values))
        connection.execute(update(_steps).where(_steps.c.campaign.in_(resumed)).values(undefined=0))
    return resumed


def _named(connection: Connection, campaign: str | None) -> list[str]:
    known = list(connection.execute(select(_states.c.name).order_by(_states.c.name)).scalars())
    if campaign is None:
        return known
    if campaign not in known:
        raise naming.no_campaign(connection, campaign)
    return [campaign]


def _no_step(connection: Connection, campaign: str, step: str | None) -> NotFound:
    known = list(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign)).scalars())
    near = did_you_mean(step or "", known)
    hint = f" ({near})" if near else ""
    return NotFound(f"campaign {campaign} has no step {step!r}; there are: {listed(known) or 'none yet'}{hint}")


def cancel(db: Database, campaign: str, step: str | None, now: datetime) -> int:
    """
    End what is in the pipeline of a campaign or step as `cancelled`; gives how many planned messages ended.

    Steps of earlier enrolments that fall due later end as cancelled, too; new occasions go on.
    """
    with store.write(db) as connection:
        _named(connection, campaign)
        store.lock(connection, Lock.PLAN, campaign)
        wanted = (
            _steps.c.campaign == campaign if step is None else (_steps.c.campaign == campaign) & (_steps.c.step == step)
        )
        if not connection.execute(update(_steps).where(wanted).values(cancelled_at=now)).rowcount:
            raise _no_step(connection, campaign, step)
    ended = 0
    c = _messages.c
    while True:
        with store.write(db) as connection:
            query = select(c.id).where(c.campaign == campaign, c.status == Status.PLANNED, c.created_at <= now)
            ids = list(connection.execute((query.where(c.step == step) if step else query).limit(BATCH)).scalars())
            values = {"status": Status.CANCELLED, "reason": Reason.CANCELLED, "claim": None, "lease_until": None}
            done = connection.execute(update(_messages).where(c.id.in_(ids), c.status == Status.PLANNED).values(values))
            ended += done.rowcount
        if len(ids) < BATCH:
            return ended
