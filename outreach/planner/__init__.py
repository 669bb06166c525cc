"""
Plan: from the release in force and the records to enrolments, and to messages written once.

`plan` is idempotent and safe to run in any number of processes: a page of occasions, the messages
of it that are due at once, and what it consumed are written in one transaction, under the
campaign's lock, and a message's key is unique.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, select

from outreach import coupons, occasions, releases, store
from outreach.models import CampaignState, Fresh, table
from outreach.planner import outlook
from outreach.planner.enrolling import enrol
from outreach.planner.tick import CampaignCounts, Outlook, PlanCounts, Tick
from outreach.planner.writing import Writer, wake_again, write_due
from outreach.settings import Settings
from outreach.store import BATCH, Database

__all__ = ["CampaignCounts", "Outlook", "PlanCounts", "plan"]

_states, _fresh = table(CampaignState), table(Fresh)


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
    if loaded is None:
        counts = replace(counts, outlook=outlook.of_nothing_published())
    else:
        tick = Tick(db, loaded, now, counts)
        with store.read(db) as connection:
            states = {row.name: row for row in connection.execute(select(_states))}
            newest = connection.execute(select(func.max(_fresh.c.id))).scalar() or 0
        for campaign in loaded.campaigns.values():
            state = states.get(campaign.name)
            if campaign.active and state is not None and state.paused_at is None:
                writer = Writer(tick, campaign)
                wake_again(tick, campaign, state)
                enrol(tick, campaign, state, newest, writer)
                write_due(tick, campaign, writer)
        _prune(tick, newest)
        if loaded.settings.offers:
            with store.read(db) as connection:
                counts.offers.extend(coupons.running_out(connection, loaded.settings, loaded.campaigns.values(), now))
        if not (counts.planned or counts.held or counts.paused):
            counts = replace(counts, outlook=outlook.of_an_idle_tick(tick, states))
    with store.write(db) as connection:
        store.record_tick(connection, "plan", now, now, counts.as_json())
    return counts


def _prune(tick: Tick, newest: int) -> None:
    """Drop what no campaign will ask for any more from the queue, so that it stays as short as its news."""
    with store.read(tick.db) as connection:
        if connection.execute(select(_fresh.c.id).limit(1)).first() is None:
            return
        states = {row.name: row.fresh_id for row in connection.execute(select(_states.c.name, _states.c.fresh_id))}
        waiting = [
            states.get(c.name, 0) for c in tick.loaded.campaigns.values() if c.active and occasions.fresh_kinds(c)
        ]
        done = min([newest, *waiting]) if waiting else newest
    upto = select(_fresh.c.id).where(_fresh.c.id <= done).order_by(_fresh.c.id).offset(2 * BATCH - 1).limit(1)
    while True:
        with store.write(tick.db) as connection:
            last = connection.execute(upto).scalar()
            connection.execute(_fresh.delete().where(_fresh.c.id <= (done if last is None else last)))
        if last is None:
            return
