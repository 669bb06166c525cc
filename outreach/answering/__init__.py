"""
Answering: what goes back to whoever wrote to us, on the channel they wrote on.

    writing      an answer and its message row, in the caller's transaction; never twice for one key
    confirming   the one confirmation of an opt-out, within five minutes
    people       what somebody of the shop answers
    automatic    what `replies.yaml` answers by itself

An answer is a message like any other, of the reserved campaign `answers`: the dispatcher claims, gates,
fills, sends and records it. Its purpose `answer` needs no consent, no sending hours and no cap, and it
goes to the very address that wrote, or nowhere.
"""

from __future__ import annotations

from outreach.answering.automatic import Heard, respond
from outreach.answering.confirming import BUILT_IN, OptedOut, confirm
from outreach.answering.people import Addressed, Answered, Became, addressed, answer, became, label
from outreach.answering.writing import answer_campaign

__all__ = [
    "BUILT_IN",
    "Addressed",
    "Answered",
    "Became",
    "Heard",
    "OptedOut",
    "addressed",
    "answer",
    "answer_campaign",
    "became",
    "confirm",
    "label",
    "respond",
]
