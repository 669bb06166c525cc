"""
What publishing would change, in terms of people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from outreach import conditions, store
from outreach.campaigns import Campaign, Trigger
from outreach.models import (
    CampaignState,
    Customer,
    CustomerStats,
    Message,
    Status,
    table,
)
from outreach.releases.snapshot import (
    CATALOGUE,
    campaigns_of,
    files_of,
)
from outreach.settings import Settings, with_catalogue
from outreach.store import Database

_customers = table(Customer)
_stats = table(CustomerStats)
_messages = table(Message)
_states = table(CampaignState)


@dataclass(frozen=True)
class Changes:
    """What publishing would change, in terms of people."""

    new_campaigns: tuple[str, ...] = ()
    off: tuple[str, ...] = ()  # those of them that are not switched on
    gone_campaigns: tuple[tuple[str, int], ...] = ()  # name, planned messages that would be withdrawn
    new_steps: tuple[str, ...] = ()
    gone_steps: tuple[tuple[str, int], ...] = ()
    switched_on: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()  # that ran before: they are back, or listen to something else
    switched_off: tuple[tuple[str, int], ...] = ()  # name, planned messages that would be withdrawn
    changed: tuple[str, ...] = ()  # campaigns whose rules differ, but for their steps'
    changed_steps: tuple[str, ...] = ()  # campaign/step
    differently: tuple[tuple[str, int], ...] = ()  # campaign/step, planned messages that would read differently
    example: tuple[str, str, str] | None = None  # a file, before, after
    confirmed: tuple[tuple[str, int], ...] = ()  # dated, scheduled, backfilled campaigns: how many people
    files: tuple[str, ...] = ()  # every file that differs

    @property
    def is_empty(self) -> bool:
        return not self.files

    def lines(self) -> list[str]:
        """The changes as sentences, the most far-reaching first."""
        out = [f"new campaign {name}" for name in self.new_campaigns if name not in self.off]
        if self.off:
            out.append(f"new, and not switched on: {', '.join(self.off)}")
        out += [f"campaign {name} vanishes: {n:,} planned messages end as withdrawn" for name, n in self.gone_campaigns]
        out += [f"new step {name}" for name in self.new_steps]
        out += [f"step {name} vanishes: {n:,} planned messages end as withdrawn" for name, n in self.gone_steps]
        out += [f"campaign {name} is switched on" for name in self.switched_on]
        out += [f"campaign {name} begins anew: only later occasions" for name in self.anew]
        out += [
            f"campaign {name} is switched off: {n:,} planned messages end as withdrawn" for name, n in self.switched_off
        ]
        out += [f"campaign {name} has other rules" for name in self.changed]
        out += [f"step {name} has other rules" for name in self.changed_steps]
        out += [f"{name}: {n:,} planned messages would read differently" for name, n in self.differently]
        out += [f"{name}: {n:,} people may be contacted" for name, n in self.confirmed]
        return out or [f"changed: {', '.join(self.files)}"] * bool(self.files)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "new_campaigns": list(self.new_campaigns),
            "off": list(self.off),
            "gone_campaigns": dict(self.gone_campaigns),
            "new_steps": list(self.new_steps),
            "gone_steps": dict(self.gone_steps),
            "switched_on": list(self.switched_on),
            "anew": list(self.anew),
            "switched_off": dict(self.switched_off),
            "changed": list(self.changed),
            "changed_steps": list(self.changed_steps),
            "differently": dict(self.differently),
            "example": dict(zip(("file", "before", "after"), self.example, strict=True)) if self.example else None,
            "confirmed": dict(self.confirmed),
            "files": list(self.files),
        }


def diff(db: Database, settings: Settings, files: Mapping[str, str], now: datetime) -> Changes:
    """What publishing these files would change; writes nothing."""
    with store.read(db) as connection:
        before = files_of(connection, None) or {}
        old, new = campaigns_of(before, settings), campaigns_of(files, settings)
        gone = [name for name in old if name not in new and name not in {c.was for c in new.values()}]
        changed_files = tuple(sorted(p for p in {*before, *files} if before.get(p) != files.get(p)))
        used = with_catalogue(settings, json.loads(files[CATALOGUE]))
        fresh = [name for name, campaign in new.items() if name not in old and campaign.was not in old]
        switched_on = [name for name, one in new.items() if one.active and name in old and not old[name].active]
        known = set(connection.execute(select(_states.c.name)).scalars())
        back = [name for name in fresh if new[name].active and {name, new[name].was} & known]
        goes_on = [
            (campaign, former)
            for campaign in new.values()
            if campaign.active and (former := former_of(old, campaign)) is not None and former.active
        ]
        turned = [one.name for one, former in goes_on if not listens_alike(one.trigger, former.trigger)]
        looks_back = [one.name for one, former in goes_on if one.backfill and not former.backfill]
        return Changes(
            new_campaigns=tuple(name for name in fresh if name not in back),
            off=tuple(name for name in fresh if not new[name].active),
            gone_campaigns=tuple((name, _planned(connection, name)) for name in gone),
            new_steps=tuple(_new_steps(old, new)),
            gone_steps=tuple((f"{c}/{s}", _planned(connection, c, s)) for c, s in _gone_steps(old, new)),
            switched_on=tuple(switched_on),
            anew=(*back, *turned),
            switched_off=tuple(
                (name, _planned(connection, name))
                for name, one in new.items()
                if name in old and old[name].active and not one.active
            ),
            changed=tuple(
                n for n, c in new.items() if n in old and replace(old[n], steps=c.steps, active=c.active) != c
            ),
            changed_steps=tuple(_changed_steps(old, new)),
            differently=tuple(_differently(connection, new, changed_files)),
            example=_example(before, files, changed_files),
            confirmed=tuple(
                (name, confirmed(connection, new[name], used, now) or 0)
                for name in dict.fromkeys((*fresh, *switched_on, *turned, *looks_back))
                if new[name].active and counts_ahead(new[name])
            ),
            files=changed_files,
        )


def former_of(old: Mapping[str, Campaign], campaign: Campaign) -> Campaign | None:
    """What the campaign was in the release before, under whatever name."""
    return old.get(campaign.name) or old.get(campaign.was or "")


def listens_alike(one: Trigger, other: Trigger) -> bool:
    """
    Whether both fire at the same things, whatever they pick out of them.

    How far a campaign has come is told for what it listens to: of anything else it would take up all that lies
    behind. Patterns pick from what it has heard, and a changed wait moves nobody by more than the last tick.
    """
    return _heard(one) == _heard(other)


def _heard(trigger: Trigger) -> tuple[Any, ...]:
    return trigger.event, trigger.attribute, trigger.on_date, trigger.at, trigger.schedule


def _new_steps(old: Mapping[str, Campaign], new: Mapping[str, Campaign]) -> list[str]:
    return [
        f"{name}/{step.id}"
        for name, campaign in new.items()
        if (former := old.get(name) or old.get(campaign.was or "")) is not None
        for step in campaign.steps
        if not {step.id, step.was} & {s.id for s in former.steps}
    ]


def _changed_steps(old: Mapping[str, Campaign], new: Mapping[str, Campaign]) -> list[str]:
    return [
        f"{name}/{step.id}"
        for name, campaign in new.items()
        if name in old
        for step in campaign.steps
        if any(step.id == former.id and step != former for former in old[name].steps)
    ]


def _gone_steps(old: Mapping[str, Campaign], new: Mapping[str, Campaign]) -> list[tuple[str, str]]:
    return [
        (name, step.id)
        for name, campaign in old.items()
        if name in new
        for step in campaign.steps
        if step.id not in {i for s in new[name].steps for i in (s.id, s.was)}
    ]


def _planned(connection: Connection, campaign: str, step: str | None = None) -> int:
    c = _messages.c
    query = select(func.count()).select_from(_messages).where(c.campaign == campaign, c.status == Status.PLANNED)
    return connection.execute(query.where(c.step == step) if step else query).scalar() or 0


def _differently(connection: Connection, new: Mapping[str, Campaign], changed: Sequence[str]) -> list[tuple[str, int]]:
    layout = any(path.startswith("message_templates/") and path.count("/") == 1 for path in changed)
    found = []
    for name, campaign in new.items():
        for step in campaign.steps:
            stem = f"message_templates/{step.template}"
            if layout or any(path.startswith((f"{stem}.", f"{stem}-")) for path in changed):
                count = _planned(connection, name, step.id)
                found += [(f"{name}/{step.id}", count)] if count else []
    return found


def _example(
    before: Mapping[str, str], after: Mapping[str, str], changed: Sequence[str]
) -> tuple[str, str, str] | None:
    for path in changed:
        if path.startswith("message_templates/") and path in before and path in after:
            return path, before[path], after[path]
    return None


def counts_ahead(campaign: Campaign) -> bool:
    return campaign.trigger.event in ("date", "schedule") or campaign.backfill is not None


def confirmed(connection: Connection, campaign: Campaign, settings: Settings, now: datetime) -> int | None:
    """For campaigns whose number is known ahead: how many people it may contact; it becomes their brake."""
    if not counts_ahead(campaign):
        return None
    query = select(func.count()).select_from(_customers.outerjoin(_stats, _stats.c.customer_id == _customers.c.id))
    if campaign.where and campaign.trigger.subject == "customer":
        query = query.where(
            conditions.compile_condition(campaign.where, subject="customer", settings=settings, now=now)
        )
    return connection.execute(query.where(_customers.c.merged_into.is_(None))).scalar() or 0
