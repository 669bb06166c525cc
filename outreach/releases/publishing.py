"""
Publish and roll back: all or nothing, in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, insert, select, update

from outreach import campaigns as campaign_files
from outreach import store
from outreach.campaigns import Campaign, Step
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
from outreach.releases.changes import confirmed, former_of, listens_alike
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
    `starts` or `backfill`, which are noted here for the planner to take up. One that was gone, or
    that listens to something else than before, begins anew. Messages already planned follow their
    campaign and step through `was`.

    Raises:
        Problems: the files have errors; nothing is stored.
        ReleaseError: they equal the current release.
    """
    problems = [problem for problem in check(files, settings) if not problem.warning]
    if problems:
        raise Problems(problems)
    used = with_catalogue(settings, json.loads(files[CATALOGUE]))
    campaigns = campaign_files.load(files, used)[0]
    ahead = _look_ahead(db, campaigns.values(), settings, now)
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
            _note_campaign(connection, campaign, former_of(old, campaign), used, now, ahead)
        _draw_apart(connection, campaigns, number)
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
        seed = case((_states.c.experiment == "", campaign.was), else_=_states.c.experiment)  # its arms stay as drawn
        values = {"name": campaign.name, "experiment": seed}
        connection.execute(update(_states).where(_states.c.name == campaign.was).values(values))
    for step in campaign.steps:
        if step.was:
            _rename_step(connection, campaign.name, step)


def _draw_apart(connection: Connection, campaigns: Iterable[str], number: int) -> None:
    """Who takes the name that a renamed campaign had draws by another one: theirs are two experiments."""
    seeds = {row.name: row.experiment for row in connection.execute(select(_states.c.name, _states.c.experiment))}
    taken = {seeds[name] for name in campaigns} - {""}
    for name in taken.intersection(campaigns):
        if not seeds[name]:
            values = {"experiment": f"{name}~{number}"}
            connection.execute(update(_states).where(_states.c.name == name).values(values))


def _rename_step(connection: Connection, campaign: str, step: Step) -> None:
    known = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign)).scalars())
    if step.was in known and step.id not in known:
        for of in (_steps, _messages):
            connection.execute(update(of).where(of.c.campaign == campaign, of.c.step == step.was).values(step=step.id))


def _note_campaign(
    connection: Connection, campaign: Campaign, former: Campaign | None, settings: Settings, now: datetime, ahead: Ahead
) -> None:
    """
    A campaign starts when it is first published, when it is switched on, when it is back after it was gone, and when
    it listens to something else: what came before is not its own.
    """
    known = connection.execute(select(_states.c.name).where(_states.c.name == campaign.name)).first()
    brake = confirmed(connection, campaign, settings, now)
    begins = known is None or _begins(campaign, former)
    if begins:
        start = starts_at(campaign, settings) or now
        if known is not None and not _is_told_to_start(campaign, former):
            start = max(start, now)
        timed = _is_timed(campaign) and not campaign.backfill
        values: dict[str, Any] = {
            "first_published_at": now,
            "fresh_id": ahead.newest,
            "cursor": start if timed and start < now else now,
            "cursor_customer": 0,
            "backfill": _owed(campaign, start, now),
            "brake": brake,
            "look_again": _has_other_steps(campaign, former) and not _is_switched_on(campaign, former),
        }
    else:
        values = {"brake": brake}
        if _has_other_steps(campaign, former):
            values["look_again"] = True
        if campaign.backfill and former is not None and not former.backfill:
            values["backfill"] = _owed(campaign, now, now)
    if known is None:
        connection.execute(insert(_states).values(name=campaign.name, paused_reason="", **values))
    else:
        connection.execute(update(_states).where(_states.c.name == campaign.name).values(values))
    if begins and campaign.active:
        _queue_what_is_to_come(connection, campaign, now, ahead)
    have = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign.name)).scalars())
    new = [
        {"campaign": campaign.name, "step": s.id, "first_published_at": now, "undefined": 0}
        for s in campaign.steps
        if s.id not in have
    ]
    if new:
        connection.execute(insert(_steps), new)


def _begins(campaign: Campaign, former: Campaign | None) -> bool:
    if former is None or _is_switched_on(campaign, former):
        return True
    return not listens_alike(campaign.trigger, former.trigger)


def _is_switched_on(campaign: Campaign, former: Campaign | None) -> bool:
    return campaign.active and former is not None and not former.active


def _has_other_steps(campaign: Campaign, former: Campaign | None) -> bool:
    return former is not None and former.steps != campaign.steps


def _is_told_to_start(campaign: Campaign, former: Campaign | None) -> bool:
    """Whether a `starts` in the past is meant of this publish; one that was there before has been taken up by now."""
    return _is_switched_on(campaign, former) or (former is not None and former.starts != campaign.starts)


@dataclass(frozen=True)
class Ahead:
    """What is known before the publishing transaction: how far the queue goes, and which orders' times are to come."""

    newest: int  # `fresh` row
    coming: Mapping[str, Sequence[dict[str, Any]]]  # by event, as rows of `fresh`


def _look_ahead(db: Database, campaigns: Iterable[Campaign], settings: Settings, now: datetime) -> Ahead:
    """
    Look for the times to come of the campaigns that begin, before anything is locked.

    No index serves it, and one for each time of an order would cost every import more than this look costs a publish.
    The end of the queue is read first: what is imported from then on comes by the queue.
    """
    with store.read(db) as connection:
        newest = connection.execute(select(func.max(_fresh.c.id))).scalar() or 0
        old = campaigns_of(files_of(connection, None) or {}, settings)
        events = {
            campaign.trigger.event
            for campaign in campaigns
            if campaign.active and campaign.trigger.subject == "order" and _begins(campaign, former_of(old, campaign))
        }
        return Ahead(newest, {event: _coming(connection, event, now) for event in sorted(events)})


def _coming(connection: Connection, event: str, now: datetime) -> list[dict[str, Any]]:
    """An order that is on its way may be delivered later than now, as the shop says or the settings estimate."""
    o, at = _orders.c, _orders.c[f"{event.partition('.')[2]}_at"]
    rows = connection.execute(select(o.id, o.customer_id, at).where(at > now))
    return [{"kind": event, "record_id": i, "customer_id": customer, "at": when} for i, customer, when in rows]


def _queue_what_is_to_come(connection: Connection, campaign: Campaign, now: datetime, ahead: Ahead) -> None:
    """What comes later than now is the campaign's own: what is before is not."""
    event = campaign.trigger.event
    if campaign.trigger.subject != "order":
        return
    coming = (
        ahead.coming[event] if event in ahead.coming else _coming(connection, event, now)
    )  # another publish between
    if coming:
        connection.execute(insert(_fresh), coming)


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
