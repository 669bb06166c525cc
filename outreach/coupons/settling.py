"""
Settling: what became of each message decides whether the code it carried was ever given out.

Whoever ends a message (a refusal, a rule, a person, its expiry) need not think of its code: a message
that has ended is looked at once more here, and derived from its status and nothing else.

    sent, or dropped by a person in doubt     the customer has the code, or may have it
    any other end                             it certainly never left: the code goes back to the pool
    planned, sending, unknown                 nothing yet; a retry carries the same code
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, select, text, update

from outreach import store
from outreach.coupons.holding import carriers, concerned, first_carriers, give_back, lock
from outreach.models import Message, Reason, Status, table
from outreach.store import BATCH, Database, among

_messages = table(Message)
_OPEN = text("NOT coupon_messages.settled")  # a literal: only then do both databases use the partial index
_ENDED = (Status.SENT, Status.FAILED, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED, Status.HELD)
_ROWS = (
    select(carriers.c.message_id, carriers.c.coupon_id, carriers.c.doubted, _messages.c.status, _messages.c.reason)
    .join(_messages, _messages.c.id == carriers.c.message_id)
    .where(_OPEN, _messages.c.status.in_(_ENDED))
    .order_by(carriers.c.message_id)
    .limit(BATCH)
)


def settle(db: Database) -> int:
    """
    Settle the coupon of every message that has ended since; gives how many codes went back to the pool.

    Looks only at messages that carry a code and are not settled yet, so it costs one look-up where there are none.
    """
    returned = 0
    with store.read(db) as connection:
        waiting = connection.execute(_ROWS).first() is not None
    while waiting:
        with store.write(db) as connection:
            rows = connection.execute(_ROWS).all()
            returned += _settle(connection, rows)
        waiting = len(rows) == BATCH
    return returned


def _settle(connection: Connection, rows: Collection[Any]) -> int:
    ids = {row.coupon_id for row in rows}
    lock(connection, concerned(connection, ids))
    kept = [row.message_id for row in rows if _may_be_theirs(row)]
    gone = [row for row in rows if not _may_be_theirs(row)]
    if kept:
        connection.execute(update(carriers).where(among(carriers.c.message_id, kept)).values(settled=True))
    if not gone:
        return 0
    connection.execute(delete(carriers).where(among(carriers.c.message_id, {row.message_id for row in gone})))
    freed = {row.coupon_id for row in gone}
    first_carriers(connection, freed)
    return give_back(connection, freed)


def _may_be_theirs(row: Any) -> bool:
    """Doubt leaves a code with the customer: it must never be two people's."""
    return bool(row.status == Status.SENT or row.doubted or row.reason == Reason.DROPPED)


def doubted(connection: Connection, messages: Collection[int]) -> None:
    """A person has these sent again after a doubt: what they carried may be in the customer's hands all the same."""
    connection.execute(update(carriers).where(among(carriers.c.message_id, messages)).values(doubted=True))
