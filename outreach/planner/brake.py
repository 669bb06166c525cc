"""
The volume brake: no campaign plans more than its share of messages in 24 hours without a person's look.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, func, select, update

from outreach.campaigns import Campaign
from outreach.models import CampaignState, Customer, Message, Status, table
from outreach.planner.tick import STATE, Tick

BRAKE_SHARE = 0.20  # of all customers, in a rolling 24 hours
BRAKE_LEAST = 500
DAY = timedelta(days=1)

_states, _messages, _customers = table(CampaignState), table(Message), table(Customer)


class Brake:
    """
    The volume brake of one campaign in one tick: messages planned in the rolling 24 hours, counted before writing.

    It rests for 24 hours after a person resumed the campaign.
    """

    def __init__(self, tick: Tick, campaign: Campaign) -> None:
        self.tick, self.campaign = tick, campaign
        self.limit: int | None = None
        self.written = 0
        self.held = False  # has paused the campaign: nothing more is written in this tick

    def allows(self, connection: Connection, new: int) -> bool:
        """Whether so many more may be planned; if not, the campaign is paused in this transaction."""
        if self.held or not new:
            return not self.held
        if self.limit is None:
            self._look_up(connection)
        if self.limit is None or self.written + new <= self.limit:
            self.written += new
            return True
        self.held = True
        reason = (
            f"volume brake: {self.written + new:,} messages in 24 hours would be more than {self.limit:,};"
            f" look at them, then `outreach resume {self.campaign.name}`"
        )
        values = {"paused_at": self.tick.now, "paused_reason": reason}
        connection.execute(update(_states).where(_states.c.name == self.campaign.name).values(values))
        self.tick.counts.paused.append({"campaign": self.campaign.name, "reason": reason})
        return False

    def _look_up(self, connection: Connection) -> None:
        state = connection.execute(STATE, {"of": self.campaign.name}).one()
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
