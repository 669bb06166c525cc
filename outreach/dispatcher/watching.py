"""
Watching: a campaign is paused before the providers do it.

That is one that bounces or is complained about too much, and one whose messages fail after they were accepted
because sender, account, registration or text is at fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, func, or_, select, text

from outreach.dispatcher.parts import pause
from outreach.models import CampaignState, Message, MessageEvent, table
from outreach.settings import Settings

WINDOW = timedelta(days=7)  # complaints come days after their message
OLDEST = timedelta(days=60)  # a message is planned no longer than this before it is sent
FEWEST = {"bounced": 10, "complained": 3}  # fewer say nothing about a campaign, whatever the share
FEWEST_FAULTS, ONE_IN = 5, 10  # of a campaign's messages by one channel: less may be a few recipients' after all

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

_FAILED = (
    select(_messages.c.campaign, _messages.c.channel, _messages.c.id, _messages.c.sent_at, _events.c.detail)
    .join(_messages, _messages.c.id == _events.c.message_id)
    # A literal: only then do both databases use the partial index.
    .where(text("events.kind = 'failed'"), _events.c.at > bindparam("since"), _messages.c.sent_at > bindparam("since"))
    .order_by(_events.c.at)
)
# The newest first, and no more than it takes to know: a campaign with few faults is not counted through at every tick.
_SENT_BY = select(func.count()).select_from(
    select(_messages.c.id)
    .where(
        _messages.c.campaign == bindparam("of"),
        _messages.c.created_at > bindparam("oldest"),
        _messages.c.sent_at > bindparam("since"),
        _messages.c.channel == bindparam("channel"),
    )
    .order_by(_messages.c.created_at.desc())
    .limit(bindparam("enough"))
    .subquery()
)


def watch(connection: Connection, settings: Settings, now: datetime) -> dict[str, str]:
    """
    Pause every campaign too many of whose messages of the last 7 days bounced, were complained about or failed later.

    Counts from a person's last `resume` on: messages handed over since, refused ones included, and
    what was said of these very messages. Gives the reason by campaign.
    """
    wrong = _unwelcome(connection, settings, now) | _at_fault(connection, now)
    for campaign, reason in wrong.items():
        pause(connection, [campaign], reason, now)
    return wrong


def _unwelcome(connection: Connection, settings: Settings, now: datetime) -> dict[str, str]:
    limits = {"bounced": settings.bounces, "complained": settings.complaints}
    bad = connection.execute(_BAD, {"since": now - WINDOW}).all()
    wrong: dict[str, str] = {}
    for campaign in sorted({row.campaign for row in bad if row.many >= FEWEST[row.kind]}):
        since = _since(connection, campaign, now - WINDOW)
        if since is None:
            continue
        handed = _handed(connection, campaign, since)
        for row in connection.execute(_OF_THEM, {"of": campaign, "since": since}):
            if handed and row.many >= FEWEST[row.kind] and row.many / handed > limits[row.kind]:
                share = _share(row.many / handed, limits[row.kind])
                wrong[campaign] = f"{row.many} of {handed} messages {row.kind} ({share})"
    return wrong


def _since(connection: Connection, campaign: str, earliest: datetime) -> datetime | None:
    """From when on messages of a campaign count; None while it is paused."""
    state = connection.execute(select(_states).where(_states.c.name == campaign)).first()
    if state is None or state.paused_at is not None:
        return None
    return max(earliest, state.resumed_at or earliest)


def _handed(connection: Connection, campaign: str, since: datetime) -> int:
    values = {"of": campaign, "since": since}
    sent: int = connection.execute(_SENT, {**values, "oldest": since - OLDEST}).scalar_one()
    refused: int = connection.execute(_REFUSED, values).scalar_one()
    return sent + refused


def _share(share: float, limit: float) -> str:
    return f"{share:.1%}, over {limit:.1%}"


# --- what providers accepted, and reported later -----------------------------------------------------


def _at_fault(connection: Connection, now: datetime) -> dict[str, str]:
    faults: dict[tuple[str, str], dict[int, tuple[datetime, str]]] = defaultdict(dict)
    for row in connection.execute(_FAILED, {"since": now - WINDOW}):
        if fault := row.detail.get("fault"):
            faults[row.campaign, row.channel][row.id] = (row.sent_at, fault)  # once, however often it was reported
    wrong: dict[str, str] = {}
    for (campaign, channel), of in sorted(faults.items()):
        since = _since(connection, campaign, now - WINDOW) if len(of) >= FEWEST_FAULTS else None
        if since is None:
            continue
        said = Counter(fault for sent_at, fault in of.values() if sent_at > since)
        if (many := said.total()) < FEWEST_FAULTS:
            continue
        values = {"of": campaign, "channel": channel, "since": since, "oldest": since - OLDEST}
        sent = connection.execute(_SENT_BY, {**values, "enough": many * ONE_IN}).scalar_one()
        if 0 < sent < many * ONE_IN:
            ((most, _),) = said.most_common(1)
            share = _share(many / sent, 1 / ONE_IN)
            wrong[campaign] = f"{many} of {sent} messages by {channel} failed ({share}): {most}"
    return wrong
