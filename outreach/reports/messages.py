"""
Messages: what was planned, sent or not sent, one by one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import case, select

from outreach import naming
from outreach.models import Customer, Message, MessageContent, Status, table
from outreach.store import Database, read

MESSAGES = (
    *("id", "campaign", "step", "customer", "occasion", "channel", "arm", "status", "reason"),
    *("due_at", "sent_at", "subject", "release", "detail", "look_at", "blocked_by", "until"),
)

_messages, _customers, _contents = table(Message), table(Customer), table(MessageContent)


def messages(
    db: Database,
    *,
    status: str | None = None,
    campaign: str | None = None,
    customer: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """
    The messages, in the order they are due; `limit` keeps the latest.

    `id` is the message's public id, which the outbox and the providers see; `customer` the shop's
    own id; times are ISO 8601 in UTC; `subject` is empty until something was rendered; `look_at` is
    when a message in doubt is looked for next; `blocked_by` what holds back a planned one, or held back
    one that has expired, and `until` when a planned one is looked at again at the earliest.

    Raises:
        NotFound: there is no such customer, or no such campaign.
    """
    m, c = _messages.c, _customers.c
    wanted = (
        select(
            m.public_id, m.campaign, m.step, c.external_id, m.occasion, m.channel, m.arm, m.status, m.reason,
            m.due_at, m.sent_at, _contents.c.subject, m.release, m.detail, m.look_at, m.blocked_by,
            case((m.status == Status.PLANNED, m.ready_at)).label("until"),
        )
        .join(_customers, c.id == m.customer_id)
        .outerjoin(_contents, _contents.c.message_id == m.id)
        .order_by(m.due_at.desc(), m.id.desc())
    )  # fmt: skip
    with read(db) as connection:
        if customer is not None:
            known = connection.execute(select(c.id).where(c.external_id == customer)).scalar()
            if known is None:
                raise naming.no_customer(connection, customer)
            wanted = wanted.where(m.customer_id == known)
        if campaign is not None:
            naming.check_campaign(connection, campaign)
        for column, value in ((m.status, status), (m.campaign, campaign)):
            wanted = wanted.where(column == value) if value is not None else wanted
        rows = connection.execute(wanted.limit(limit)).all()
    return [
        dict(zip(MESSAGES, map(_plain, row), strict=True)) | {"subject": row.subject or ""} for row in reversed(rows)
    ]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
