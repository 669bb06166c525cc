"""
Publish and roll back: all or nothing, in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, literal, select, update

from outreach import campaigns as campaign_files
from outreach import store
from outreach.campaigns import Campaign, Step, Trigger
from outreach.errors import Problems, ReleaseError
from outreach.models import (
    CampaignState,
    Enrolment,
    Fresh,
    Installation,
    Message,
    Order,
    Release,
    StepState,
    table,
    to_micros,
)
from outreach.releases.changes import confirmed
from outreach.releases.checking import check
from outreach.releases.snapshot import (
    CATALOGUE,
    campaigns_of,
    files_hash,
    files_of,
    published,
    starts_at,
)
from outreach.settings import Settings, with_catalogue
from outreach.store import Database, Lock

LEAST_LOOK_BACK = 30  # days; so that a campaign published today sees dates filled in late
_releases = table(Release)
_states = table(CampaignState)
_steps = table(StepState)
_messages = table(Message)
_enrolments = table(Enrolment)
_fresh, _orders = table(Fresh), table(Order)


def publish(db: Database, settings: Settings, files: Mapping[str, str], now: datetime, *, note: str = "") -> int:
    """
    Store the files as the new current release and give its number; all or nothing.

    A campaign published for the first time starts now: older occasions are its own only by
    `starts` or `backfill`, which are noted here for the planner to take up. Messages already
    planned follow their campaign and step through `was`.

    Raises:
        Problems: the files have errors; nothing is stored.
        ReleaseError: they equal the current release.
    """
    problems = [problem for problem in check(files, settings) if not problem.warning]
    if problems:
        raise Problems(problems)
    used = with_catalogue(settings, json.loads(files[CATALOGUE]))
    campaigns = campaign_files.load(files, used)[0]
    with store.write(db) as connection:
        store.lock(connection, Lock.PUBLISH)
        store.lock(connection, Lock.FRESH)
        former = files_of(connection, None)
        if former is not None and files_hash(former) == files_hash(files):
            raise ReleaseError("nothing differs from the current release")
        old = campaigns_of(former or {}, settings)
        values = {"published_at": now, "files": dict(files), "files_hash": files_hash(files), "note": note}
        number = connection.execute(insert(_releases).values(values).returning(_releases.c.id)).scalar_one()
        for campaign in campaigns.values():
            _follow_renames(connection, campaign)
            _note_campaign(connection, campaign, old.get(campaign.name) or old.get(campaign.was or ""), used, now)
        days = max([LEAST_LOOK_BACK, *(campaign.look_back.days for campaign in campaigns.values())])
        connection.execute(update(Installation).values(look_back=days))
    return int(number)


def rollback(db: Database, settings: Settings, number: int, now: datetime) -> int:
    """Publish the content of release `number` again, under a new number."""
    return publish(db, settings, published(db, number), now, note=f"release {number} again")


def _follow_renames(connection: Connection, campaign: Campaign) -> None:
    """Give the rows of a renamed campaign or step their new name, in the publishing transaction."""
    known = set(connection.execute(select(_states.c.name)).scalars())
    if campaign.was in known and campaign.name not in known:
        for of in (_steps, _enrolments, _messages):
            connection.execute(update(of).where(of.c.campaign == campaign.was).values(campaign=campaign.name))
        connection.execute(update(_states).where(_states.c.name == campaign.was).values(name=campaign.name))
    for step in campaign.steps:
        if step.was:
            _rename_step(connection, campaign.name, step)


def _rename_step(connection: Connection, campaign: str, step: Step) -> None:
    known = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign)).scalars())
    if step.was in known and step.id not in known:
        for of in (_steps, _messages):
            connection.execute(update(of).where(of.c.campaign == campaign, of.c.step == step.was).values(step=step.id))


def _note_campaign(
    connection: Connection, campaign: Campaign, former: Campaign | None, settings: Settings, now: datetime
) -> None:
    """A campaign starts when it is first published, and when it is switched on: what came before is not its own."""
    known = connection.execute(select(_states.c.name).where(_states.c.name == campaign.name)).first()
    brake = confirmed(connection, campaign, settings, now)
    switched_on = campaign.active and former is not None and not former.active
    if known is None or switched_on:
        newest = connection.execute(select(func.max(_fresh.c.id))).scalar() or 0
        start = starts_at(campaign, settings) or now
        owed = _owed(campaign, start, now)
        timed = _is_timed(campaign) and not campaign.backfill
        values: dict[str, Any] = {
            "first_published_at": now,
            "fresh_id": newest,
            "cursor": start if timed and start < now else now,
            "cursor_customer": 0,
            "backfill": owed,
            "brake": brake,
            "look_again": False,
        }
    else:
        again = former is not None and former.steps != campaign.steps
        values = {"brake": brake, **({"look_again": True} if again else {})}
    if known is None:
        connection.execute(insert(_states).values(name=campaign.name, paused_reason="", **values))
    else:
        connection.execute(update(_states).where(_states.c.name == campaign.name).values(values))
    if campaign.active and (known is None or switched_on):
        _queue_what_is_to_come(connection, campaign.trigger, now)
    have = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign.name)).scalars())
    new = [
        {"campaign": campaign.name, "step": s.id, "first_published_at": now, "undefined": 0}
        for s in campaign.steps
        if s.id not in have
    ]
    if new:
        connection.execute(insert(_steps), new)


def _queue_what_is_to_come(connection: Connection, trigger: Trigger, now: datetime) -> None:
    """An order that is on its way may be delivered later than now, as the shop says or the settings estimate: not before."""
    if trigger.subject != "order":
        return
    at = _orders.c[f"{trigger.event.partition('.')[2]}_at"]
    coming = select(literal(trigger.event), _orders.c.id, _orders.c.customer_id, at).where(at > now)
    connection.execute(insert(_fresh).from_select(["kind", "record_id", "customer_id", "at"], coming))


def _is_timed(campaign: Campaign) -> bool:
    return campaign.trigger.event in (*campaign_files.TIME_EVENTS, "date", "schedule")


def _owed(campaign: Campaign, start: datetime, now: datetime) -> dict[str, Any]:
    """The older occasions that `backfill` or a past `starts` takes: the planner works them off, newest first."""
    if campaign.backfill:
        begin = now - campaign.backfill.last.clock
        pace, per = campaign.backfill.pace.count, str(campaign.backfill.pace.per)
        return {
            "from": to_micros(begin),
            "to": to_micros(now),
            "at": to_micros(now),
            "pace": pace,
            "per": per,
            "done": 0,
        }
    if start < now and not _is_timed(campaign):
        return {"from": to_micros(start), "to": to_micros(now), "done": 0}
    return {}
