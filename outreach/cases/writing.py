"""Writing: rows of a case's log, and rows of `fresh`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from outreach import store
from outreach.models import CaseNote, Fresh, Installation, table
from outreach.store import Lock

_notes, _fresh, _installation = table(CaseNote), table(Fresh), table(Installation)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a case's log."""

    case_id: int
    kind: str  # as models.CaseNote
    at: datetime
    text: str
    by: str
    key: str = ""  # empty: no other line is the same
    order_id: int | None = None
    category: str | None = None
    sku: str | None = None


def begin(connection: Connection) -> None:
    """
    Be alone among all who open, change or import cases, until the transaction ends.

    Whoever imports anything takes this lock last; so take every other lock before.
    """
    store.lock(connection, Lock.FRESH)


def write_lines(connection: Connection, lines: Sequence[Line]) -> int:
    """Append the lines, except those whose key is known; gives how many were new."""
    if not lines:
        return 0
    rows = [
        {
            "case_id": line.case_id,
            "kind": line.kind,
            "at": line.at,
            "text": clean(line.text),
            "by": clean(line.by),
            "key": line.key or uuid.uuid4().hex,
            "order_id": line.order_id,
            "category": line.category,
            "sku": line.sku,
        }
        for line in lines
    ]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    into = dialect.insert(_notes).on_conflict_do_nothing(index_elements=["key"]).returning(_notes.c.id)
    return len(connection.execute(into, rows).all())


def write_fresh(
    connection: Connection,
    kind: str,
    case_id: int,
    customer_id: int,
    old: datetime | None,
    new: datetime | None,
    now: datetime,
) -> None:
    """The row of `fresh` that a time set, changed or cleared makes, if either time is recent enough: as an import's."""
    recent = [at for at in (old, new) if at is not None]
    if old == new or not recent:
        return
    look_back = connection.execute(select(_installation.c.look_back)).scalar_one()
    if max(recent) >= now - timedelta(days=look_back):
        connection.execute(insert(_fresh).values(kind=kind, record_id=case_id, customer_id=customer_id, at=new))


def clean(text: str) -> str:
    """Without NUL, which PostgreSQL cannot keep, and halves of surrogate pairs, which nothing can."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
