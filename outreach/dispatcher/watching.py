"""Watching: a campaign that bounces or is complained about too much is paused, before the mailbox providers do it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, or_, select, text

from outreach.dispatcher.parts import pause
from outreach.models import CampaignState, Message, MessageEvent, table
from outreach.settings import Settings

WINDOW = timedelta(hours=24)
FEWEST = {"bounced": 10, "complained": 3}  # fewer say nothing about a campaign, whatever the share

_messages, _events, _states = table(Message), table(MessageEvent), table(CampaignState)
_BAD = (
    select(_messages.c.campaign, _events.c.kind, func.count(func.distinct(_events.c.message_id)).label("many"))
    .join(_messages, _messages.c.id == _events.c.message_id)
    .where(text("events.kind IN ('bounced', 'complained')"))
    .group_by(_messages.c.campaign, _events.c.kind)
)


def watch(connection: Connection, settings: Settings, now: datetime) -> dict[str, str]:
    """
    Pause every campaign whose bounces or complaints of the last 24 hours are over the settings' shares.

    Counts from a person's last `resume` on. The share is of the messages that were handed over
    since; refused ones count as such. Gives the reason by campaign.
    """
    limits = {"bounced": settings.bounces, "complained": settings.complaints}
    since = now - WINDOW
    bad = connection.execute(_BAD.where(_events.c.at > since)).all()
    wrong: dict[str, str] = {}
    for campaign in {row.campaign for row in bad if row.many >= FEWEST[row.kind]}:
        state = connection.execute(select(_states).where(_states.c.name == campaign)).first()
        if state is None or state.paused_at is not None:
            continue
        start = max(since, state.resumed_at or since)
        handed = _handed(connection, campaign, start)
        for row in connection.execute(_BAD.where(_events.c.at > start, _messages.c.campaign == campaign)):
            share = row.many / handed if handed else 1.0
            if row.many >= FEWEST[row.kind] and share > limits[row.kind]:
                wrong[campaign] = (
                    f"{row.many} of {handed} messages {row.kind} ({share:.1%}, over {limits[row.kind]:.1%})"
                )
    for campaign, reason in wrong.items():
        pause(connection, [campaign], reason, now)
    return wrong


def _handed(connection: Connection, campaign: str, since: datetime) -> int:
    c = _messages.c
    handed = or_(c.sent_at > since, c.refused != "")
    query = select(func.count()).where(c.campaign == campaign, c.created_at > since - timedelta(days=3), handed)
    return connection.execute(query).scalar_one()
