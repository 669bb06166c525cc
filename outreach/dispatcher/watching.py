"""Watching: a campaign that bounces or is complained about too much is paused, before the mailbox providers do it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, func, or_, select, text

from outreach.dispatcher.parts import pause
from outreach.models import CampaignState, Message, MessageEvent, table
from outreach.settings import Settings

WINDOW = timedelta(days=7)  # complaints come days after their message
OLDEST = timedelta(days=60)  # a message is planned no longer than this before it is sent
FEWEST = {"bounced": 10, "complained": 3}  # fewer say nothing about a campaign, whatever the share

_messages, _events, _states = table(Message), table(MessageEvent), table(CampaignState)
_BAD = (
    select(_messages.c.campaign, _events.c.kind, func.count(func.distinct(_events.c.message_id)).label("many"))
    .join(_messages, _messages.c.id == _events.c.message_id)
    .where(text("events.kind IN ('bounced', 'complained')"), _events.c.at > bindparam("since"))
    .group_by(_messages.c.campaign, _events.c.kind)
)
# Of messages handed over since, and of those refused since, which have no time of sending.
_OF_THEM = _BAD.where(
    _messages.c.campaign == bindparam("of"),
    or_(_messages.c.sent_at > bindparam("since"), _messages.c.sent_at.is_(None)),
)
_SENT = select(func.count()).where(
    _messages.c.campaign == bindparam("of"),
    _messages.c.created_at > bindparam("oldest"),
    _messages.c.sent_at > bindparam("since"),
)
_REFUSED = (
    select(func.count(func.distinct(_messages.c.id)))
    .join(_events, _events.c.message_id == _messages.c.id)
    .where(
        text("events.kind IN ('bounced', 'complained')"),
        _events.c.at > bindparam("since"),
        _messages.c.campaign == bindparam("of"),
        _messages.c.sent_at.is_(None),
    )
)


def watch(connection: Connection, settings: Settings, now: datetime) -> dict[str, str]:
    """
    Pause every campaign too many of whose messages of the last 7 days bounced or were complained about.

    Counts from a person's last `resume` on: messages handed over since, refused ones included, and
    what was said of these very messages. Gives the reason by campaign.
    """
    limits = {"bounced": settings.bounces, "complained": settings.complaints}
    bad = connection.execute(_BAD, {"since": now - WINDOW}).all()
    wrong: dict[str, str] = {}
    for campaign in sorted({row.campaign for row in bad if row.many >= FEWEST[row.kind]}):
        state = connection.execute(select(_states).where(_states.c.name == campaign)).first()
        if state is None or state.paused_at is not None:
            continue
        since = max(now - WINDOW, state.resumed_at or now - WINDOW)
        handed = _handed(connection, campaign, since)
        for row in connection.execute(_OF_THEM, {"of": campaign, "since": since}):
            if handed and row.many >= FEWEST[row.kind] and row.many / handed > limits[row.kind]:
                share = f"{row.many / handed:.1%}, over {limits[row.kind]:.1%}"
                wrong[campaign] = f"{row.many} of {handed} messages {row.kind} ({share})"
    for campaign, reason in wrong.items():
        pause(connection, [campaign], reason, now)
    return wrong


def _handed(connection: Connection, campaign: str, since: datetime) -> int:
    values = {"of": campaign, "since": since}
    sent: int = connection.execute(_SENT, {**values, "oldest": since - OLDEST}).scalar_one()
    refused: int = connection.execute(_REFUSED, values).scalar_one()
    return sent + refused
