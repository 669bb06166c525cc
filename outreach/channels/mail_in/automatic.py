"""
Automatic: whether a person wrote a mail, a machine answered for one, or it went to many.

Sources: RFC 3834 section 5 (Auto-Submitted), RFC 2919 (List-Id), RFC 8058; X-Autoreply, X-Autorespond and Precedence
are what older programs write. X-Auto-Response-Suppress ([MS-OXCMAIL] 2.1.3.2.20) says how to answer, not who wrote.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from outreach.channels.mail_in.parts import Part


class Author(Enum):
    """Who wrote it."""

    PERSON = auto()
    AUTOMATIC = auto()  # a machine answers in a person's name: out of office, "we have got your mail"
    MASS = auto()  # newsletters, lists, notices: nobody answers us


_ANSWERS = ("X-Autoreply", "X-Autorespond", "X-AutoReply-From", "X-Mail-Autoreply")
_LISTS = ("List-Id", "List-Unsubscribe", "List-Post", "Feedback-ID")
_MACHINES = re.compile(
    r"(.*<)?\s*(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)([+-][^@]*)?@[^@<>]*>?\s*", re.IGNORECASE
)
# Subjects that mail programs write themselves; only at the beginning, after what stands for "Re".
_SUBJECT = re.compile(
    r"((re|rv|aw|res|ref)\s*:\s*)*\[?("
    r"respuesta\s+autom[aá]tica|autorrespuesta|fuera\s+de\s+(la\s+)?oficina|(ausente|ausencia|aus[eê]ncia)\b(?=\s*([:\]–-]|hasta\b|at[eé]\b|temporal|$))|estoy\s+de\s+vacaciones"
    r"|resposta\s+autom[aá]tica|fora\s+do\s+escrit[oó]rio|estou\s+de\s+f[eé]rias"
    r"|automatic\s+reply|auto(matic)?[\s-]?(reply|response)|autoreply|out\s+of\s+(the\s+)?office|on\s+vacation"
    r"|away\s+from\s+(my|the)\s+(office|desk|email)"
    r")",
    re.IGNORECASE,
)


def author_of(whole: Part) -> Author:
    """Who wrote it, as its headers tell; a mail that says nothing of it is a person's."""
    submitted = whole.header("Auto-Submitted").partition(";")[0].strip().lower()
    precedence = whole.header("Precedence").strip().lower()
    answers = (
        submitted == "auto-replied"
        or precedence in ("auto_reply", "auto-reply")
        or any(whole.has(name) for name in _ANSWERS)
        or _SUBJECT.match(whole.header("Subject")) is not None
    )
    if answers:
        return Author.AUTOMATIC
    mass = (
        submitted not in ("", "no")
        or precedence in ("bulk", "junk", "list")
        or any(whole.has(name) for name in _LISTS)
        or whole.header("Return-Path") == "<>"
        or _MACHINES.fullmatch(whole.header("From")) is not None
    )
    return Author.MASS if mass else Author.PERSON
