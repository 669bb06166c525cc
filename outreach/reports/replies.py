"""
Replies: what people wrote to us, one by one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select

from outreach import naming
from outreach.models import Case, Customer, Message, Order, Reply, table
from outreach.store import Database, read

REPLIES = ("id", "customer", "channel", "text", "received_at", "intents", "score", "message", "order", "case")

# What somebody waits for an answer to.
WANTS_ANSWER = frozenset(("help", "complaint", "cancellation", "return", "refund", "question", "other"))

_replies, _customers, _messages = table(Reply), table(Customer), table(Message)
_orders, _cases = table(Order), table(Case)


def replies(
    db: Database,
    *,
    customer: str | None = None,
    channel: str | None = None,
    unanswered: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """
    The replies, the oldest first; `limit` keeps the latest.

    `unanswered` keeps those of known customers that want an answer and have had none from a person.

    `customer`, `order` and `case` are the shop's own ids, `message` our public one; None where there
    is none, as for a stranger's. Times are ISO 8601 in UTC.

    Raises:
        NotFound: there is no such customer.
    """
    r = _replies.c
    wanted = (
        select(
            r.id, _customers.c.external_id, r.channel, r.text, r.at, r.intents, r.score, _messages.c.public_id,
            _orders.c.external_id, _cases.c.external_id,
        )
        .outerjoin(_customers, _customers.c.id == r.customer_id)
        .outerjoin(_messages, _messages.c.id == r.message_id)
        .outerjoin(_orders, _orders.c.id == r.order_id)
        .outerjoin(_cases, _cases.c.id == r.case_id)
        .order_by(r.at.desc(), r.id.desc())
    )  # fmt: skip
    with read(db) as connection:
        if customer is not None:
            known = connection.execute(select(_customers.c.id).where(_customers.c.external_id == customer)).scalar()
            if known is None:
                raise naming.no_customer(connection, customer)
            wanted = wanted.where(r.customer_id == known)
        if channel is not None:
            wanted = wanted.where(r.channel == channel)
        if unanswered:
            wanted = wanted.where(r.answered_at.is_(None), r.customer_id.is_not(None))
            rows = [row for row in connection.execute(wanted) if WANTS_ANSWER & set(row.intents)][:limit]
        else:
            rows = list(connection.execute(wanted.limit(limit)))
    return [dict(zip(REPLIES, map(_plain, row), strict=True)) for row in reversed(rows)]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
