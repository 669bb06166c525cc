"""
Cases: complaints, cancellations, returns, refund requests and questions, from opening to closing.

    opening    by a reply, a page or a person; an open case of the same kind is joined
    working    what people do with one: assign, note, answer, close, reopen
    listing    what stands open, the overdue first; one case with its log
    targets    until when a case should be closed, and which are overdue
    writing    rows of the log, and of `fresh`, so that campaigns start on our cases as on imported ones

While a case is open, its customer gets no marketing but the messages about that very case (gates).
"""

from __future__ import annotations

from outreach.cases.listing import Case, Note, listed, show
from outreach.cases.opening import OPT_OUT, Opening, open_case
from outreach.cases.targets import due_at, note_overdue
from outreach.cases.working import KINDS, OUTCOMES, SAVING, answer, assign, close, note, open_for, reopen

__all__ = [
    "KINDS",
    "OPT_OUT",
    "OUTCOMES",
    "SAVING",
    "Case",
    "Note",
    "Opening",
    "answer",
    "assign",
    "close",
    "due_at",
    "listed",
    "note",
    "note_overdue",
    "open_case",
    "open_for",
    "reopen",
    "show",
]
