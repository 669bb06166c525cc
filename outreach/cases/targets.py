"""Targets: until when a case should be closed, and which cases are overdue."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, select, text

from outreach import timing
from outreach.cases.writing import Line, write_lines
from outreach.models import Case, CaseNote, table
from outreach.settings import Settings
from outreach.store import micros

AT_ONCE = 500  # cases noted as overdue in one transaction

_cases, _notes = table(Case), table(CaseNote)
# A literal, not a parameter: only then do both databases use the partial index.
OPEN = text("cases.closed_at IS NULL")


def due_at(settings: Settings, kind: str, opened_at: datetime) -> datetime | None:
    """When a case of this kind should be closed; None for a kind without a target."""
    target = settings.targets.get(kind)
    return None if target is None else timing.add(opened_at, target, settings.business.timezone)


def note_overdue(connection: Connection, now: datetime) -> int:
    """
    Write into the log of every open case that its target time has passed, once for each such time.

    At most 500 in one go. Gives how many were written.
    """
    c = _cases.c
    known = exists().where(_notes.c.case_id == c.id, _notes.c.kind == "overdue", _notes.c.at == c.due_at)
    query = select(c.id, c.due_at).where(OPEN, c.due_at <= now, ~known).order_by(c.due_at, c.id).limit(AT_ONCE)
    lines = [
        Line(row.id, "overdue", row.due_at, "", "overdue", f"overdue:{row.id}:{micros(row.due_at)}")
        for row in connection.execute(query).all()
    ]
    return write_lines(connection, lines)
