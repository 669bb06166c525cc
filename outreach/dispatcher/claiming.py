"""Claiming: which messages are ours for a while, and what became of those whose claimer is gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from outreach import store
from outreach.dispatcher.parts import MANUAL, Claimed
from outreach.models import Message, Status, table, to_micros
from outreach.store import Database, among

_messages = table(Message)

# Literals, not parameters: only then do both databases use the partial index.
# One probe of the index per priority, whatever the number of messages.
_PRIORITIES = text("""
    WITH RECURSIVE p(priority) AS (
        SELECT max(priority) FROM messages WHERE status = 'planned'
        UNION ALL
        SELECT (SELECT max(m.priority) FROM messages m WHERE m.status = 'planned' AND m.priority < p.priority)
        FROM p WHERE p.priority IS NOT NULL
    )
    SELECT priority FROM p
    WHERE EXISTS (
        SELECT 1 FROM messages m WHERE m.status = 'planned' AND m.priority = p.priority AND m.ready_at <= :now
    )
    ORDER BY priority DESC
""")
_CLAIMED = [_messages.c[name] for name in Claimed._fields]
_DUE = f"""
    SELECT {", ".join(Claimed._fields)} FROM messages
    WHERE status = 'planned' AND priority = :priority AND ready_at <= :now
      AND (claim IS NULL OR lease_until < :now)
      AND campaign NOT IN (SELECT name FROM campaign_states WHERE paused_at IS NOT NULL)
    ORDER BY ready_at LIMIT :size
"""
_DUE_OF_SEND = _DUE.replace("ORDER BY", "AND campaign = :campaign AND record_id = :only ORDER BY")
_LOCKED = {"sqlite": "", "postgresql": " FOR UPDATE OF messages SKIP LOCKED"}
_DUE_BY_DIALECT = {dialect: text(_DUE + locked).columns(*_CLAIMED) for dialect, locked in _LOCKED.items()}
_DUE_OF_SEND_BY_DIALECT = {
    dialect: text(_DUE_OF_SEND + locked).columns(*_CLAIMED) for dialect, locked in _LOCKED.items()
}
_CLAIM = (
    update(_messages)
    .where(among(_messages.c.id, "ids"))
    .values(claim=bindparam("token"), lease_until=bindparam("until"))
)
_BY_ID = select(*_CLAIMED).where(among(_messages.c.id, "ids"))


def claim(
    connection: Connection,
    now: datetime,
    size: int,
    token: str,
    lease_until: datetime,
    only: int | tuple[str, int] | None = None,
) -> list[Claimed]:
    """
    At most `size` due messages, ours until `lease_until`: the highest priority first, then the longest due.

    `only` is the id of a manual send, or a campaign and a record: its messages alone.
    Takes a time that depends on `size` and the number of different priorities, not on how many wait
    for later; due messages of a paused campaign are stepped over one by one.
    """
    rows = _due(connection, now, size, only)
    if rows:
        connection.execute(_CLAIM, {"ids": [row.id for row in rows], "token": token, "until": lease_until})
    return rows


def take(connection: Connection, ids: Sequence[int], token: str, lease_until: datetime) -> list[Claimed]:
    """Put our claim on these messages, and give them in the same order."""
    if not ids:
        return []
    connection.execute(_CLAIM, {"ids": ids, "token": token, "until": lease_until})
    rows = {row[0]: Claimed._make(row) for row in connection.execute(_BY_ID, {"ids": ids}).all()}
    return [rows[i] for i in ids]


def _due(connection: Connection, now: datetime, size: int, only: int | tuple[str, int] | None) -> list[Claimed]:
    statement = (_DUE_BY_DIALECT if only is None else _DUE_OF_SEND_BY_DIALECT)[connection.dialect.name]
    rows: list[Claimed] = []
    for priority in connection.execute(_PRIORITIES, {"now": to_micros(now)}).scalars().all():
        values: dict[str, Any] = {"priority": priority, "now": to_micros(now), "size": size - len(rows)}
        if only is not None:
            values["campaign"], values["only"] = only if isinstance(only, tuple) else (MANUAL, only)
        rows += map(Claimed._make, connection.execute(statement, values).all())
        if len(rows) == size:
            break
    return rows


def release_expired(db: Database, now: datetime) -> int:
    """
    Declare `unknown` what was left in `sending` by a claimer whose lease is over; gives how many.

    Its claim stays, so that a claimer that was only slow can still say what became of it. What was
    claimed and not yet `sending` needs nothing: it is simply claimed again.
    """
    c = _messages.c
    late = select(c.id).where(c.claim.is_not(None), c.lease_until < now, c.status == text("'sending'"))
    with store.read(db) as connection:
        if connection.execute(late.limit(1)).first() is None:
            return 0
    with store.write(db) as connection:
        ids = connection.execute(late.with_for_update(skip_locked=True)).scalars().all()
        gone = "the process that sent it went away"
        values = {"status": Status.UNKNOWN, "lease_until": None, "look_at": now, "detail": gone}
        connection.execute(update(_messages).where(c.id.in_(ids)).values(values))
    return len(ids)
