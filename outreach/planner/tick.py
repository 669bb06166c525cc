"""
One tick of `plan`: what all its parts work from, and what they count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select

from outreach import timing
from outreach.campaigns import Campaign
from outreach.coupons import Low
from outreach.models import CampaignState, table
from outreach.releases import Loaded
from outreach.settings import Settings
from outreach.store import Database

_states = table(CampaignState)
STATE = select(_states).where(_states.c.name == bindparam("of"))


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
class Outlook:
    """Why a tick wrote no message, and what comes next, in words; and the campaign and the time of that, if it is known."""

    why: str
    next: str = ""
    campaign: str | None = None
    at: datetime | None = None
    what: str | None = None  # step | occasion | start

    def lines(self) -> list[str]:
        return [text for text in (self.why, self.next) if text]

    def as_json(self) -> dict[str, Any]:
        return {
            "why": self.why,
            "next": self.next,
            "campaign": self.campaign,
            "at": self.at and self.at.isoformat(),
            "what": self.what,
        }


@dataclass(frozen=True)
class PlanCounts:
    """What a tick of `plan` did."""

    by_campaign: dict[str, CampaignCounts] = field(default_factory=dict)
    paused: list[dict[str, str]] = field(default_factory=list)
    offers: list[Low] = field(default_factory=list)  # that run out
    outlook: Outlook | None = None  # where no message was written, and nothing was paused

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
        plain: dict[str, Any] = {
            "enrolled": self.enrolled,
            "planned": self.planned,
            "held": self.held,
            "skipped": self.skipped,
            "by_campaign": {name: counts.as_json() for name, counts in self.by_campaign.items()},
            "paused": self.paused,
        }
        if self.offers:
            plain["offers"] = [one.as_json() for one in self.offers]
        if self.outlook:
            plain["outlook"] = self.outlook.as_json()
        return plain


@dataclass(frozen=True)
class Tick:
    """What every function of one tick works from."""

    db: Database
    loaded: Loaded
    now: datetime
    counts: PlanCounts
    looked: Counter[str] = field(default_factory=Counter)  # occasions that were seen, and why they were passed over

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    def of(self, campaign: Campaign) -> CampaignCounts:
        return self.counts.by_campaign.setdefault(campaign.name, CampaignCounts())


def dues_at(tick: Tick, campaign: Campaign, occasion_at: datetime, zones: tuple[str, ...]) -> list[datetime]:
    """When each step of the campaign is due for a customer who may be in any of these zones."""
    return [
        occasion_at + timedelta(0, step.after.seconds)
        if step.at is None and not step.after.is_calendar
        else timing.due_at(occasion_at, step.after, step.at, zones, tick.settings.business.timezone)
        for step in campaign.steps
    ]
