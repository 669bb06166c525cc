"""
Surveys: what is asked, what a short answer says, and the answers, one for each customer and occasion.

    questions    the question in the reader's language: the settings' own, else a built-in one
    scores       the score that a few words give, such as "5/5", "un 9" or "sí"
    recording    an answer, in the transaction of whoever heard it: the answer, its event, the trigger's news
    asking       what the pages of survey links show and take

Whoever hears an answer (a page, a reply, a person on the phone) calls `record` within its own writing
transaction; what stands afterwards depends on the answers alone, not on their order or number.
"""

from __future__ import annotations

from outreach.surveys.asking import Asked, Asking, Heard, answer, asked
from outreach.surveys.questions import question
from outreach.surveys.recording import LONGEST_COMMENT, Given, record
from outreach.surveys.scores import ends, read_score, score_of, scores

__all__ = [
    "LONGEST_COMMENT",
    "Asked",
    "Asking",
    "Given",
    "Heard",
    "answer",
    "asked",
    "ends",
    "question",
    "read_score",
    "record",
    "score_of",
    "scores",
]
