"""Supply: which offers will run out, judged by how fast their codes were given out of late."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger as Micros
from sqlalchemy import Connection, func, literal, select, text, type_coerce

from outreach.campaigns import Campaign
from outreach.coupons.holding import State, coupons, offers
from outreach.models import from_micros
from outreach.settings import Offer, Settings

WINDOW = timedelta(days=7)  # of what was given out of late
AHEAD = 7  # days: what lasts longer is no matter yet
SHORTEST = timedelta(days=1)  # an offer that began this hour has no rate yet


@dataclass(frozen=True)
class Low:
    """An offer that runs out, or has run out."""

    offer: str
    left: int  # codes that may still be given out
    per_day: float  # given out of late
    days: float | None  # that they last at this rate; None: nothing was given out of late

    def __str__(self) -> str:
        if not self.left:
            return f"offer {self.offer}: no code is left; its campaigns pause before they send without one"
        days = math.floor(self.days or 0)
        lasts = "less than a day" if not days else f"some {days} day{'s' * (days != 1)}"
        return f"offer {self.offer}: {self.left:,} codes left, for {lasts} at {self.per_day:,.0f} a day"

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        days = None if self.days is None else round(self.days, 1)
        return {"offer": self.offer, "left": self.left, "per_day": round(self.per_day, 1), "days": days}


def running_out(connection: Connection, settings: Settings, campaigns: Iterable[Campaign], now: datetime) -> list[Low]:
    """
    The offers of active campaigns that have no code left, or at the current rate none within a week.

    Counts no more codes than a week needs, so it costs as little as is given out.
    """
    named = {step.offer for campaign in campaigns if campaign.active for step in campaign.steps if step.offer}
    found = [_low(connection, settings.offers[name], now) for name in sorted(named) if name in settings.offers]
    return [one for one in found if one is not None]


def _low(connection: Connection, offer: Offer, now: datetime) -> Low | None:
    limited = offer.budget is not None or not (offer.shared_code or (offer.trust and offer.is_generated))
    if not limited:
        return None
    c = coupons.c
    since = now - WINDOW
    query = select(func.count(), func.min(type_coerce(c.issued_at, Micros)))
    many, first = connection.execute(query.where(c.offer == offer.name, c.issued_at > since, c.issued_at <= now)).one()
    elapsed = max(now - from_micros(first), SHORTEST) if many else WINDOW
    per_day = many / (elapsed / timedelta(days=1))
    left = _left(connection, offer, math.ceil(per_day * AHEAD) + 1)
    if left and (not per_day or left / per_day >= AHEAD):
        return None
    return Low(offer.name, left, per_day, left / per_day if per_day else None)


def _left(connection: Connection, offer: Offer, enough: int) -> int:
    """How many may still be given out, or `enough` where there are more."""
    left = enough
    if offer.budget is not None:
        issued = connection.execute(select(offers.c.issued).where(offers.c.name == offer.name)).scalar() or 0
        left = min(left, max(0, offer.budget - issued))
    if offer.shared_code or (offer.trust and offer.is_generated):
        return left
    c = coupons.c
    pool = 0
    for state in (State.LIVE, State.MADE) if offer.trust else (State.LIVE,):
        some = select(literal(1)).where(text(f"status = '{state}'"), c.offer == offer.name).limit(enough)
        pool += connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
    return min(left, pool)
