"""
What SendGrid's answers to mail/send mean: one table of statuses, and from an answer to receipts.

The source of STATUSES is www.twilio.com/docs/sendgrid/api-reference/mail-send/errors, but for the credits, which
are from support.sendgrid.com/hc/en-us/articles/18322114821403. Every other status, 5xx above all, is in doubt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

from outreach.channels import Blame, Outcome, Receipt
from outreach.channels.sendgrid.requests import Prepared

SLOWEST = timedelta(hours=1)  # an answer that asks for a longer wait is not taken at its word
UNTOLD = timedelta(minutes=1)  # the wait after a 429 that does not say how long


class Means(Enum):
    """What follows from the status of an answer."""

    ACCEPTED = "accepted"
    CHECKED = "checked"  # accepted in sandbox mode, else in doubt
    SOME_REFUSED = "some refused"  # the body says which; the others were not accepted either
    TOO_LARGE = "too large"
    TOO_FAST = "too fast"
    WRONG = "wrong"  # the configuration is; nothing was accepted
    DOUBT = "doubt"


STATUSES: Mapping[int, tuple[Means, str]] = {
    200: (Means.CHECKED, "SendGrid checked it, and did not say that it sends it"),
    202: (Means.ACCEPTED, ""),
    400: (Means.SOME_REFUSED, "SendGrid refused it"),
    401: (Means.WRONG, "SendGrid does not take SENDGRID_API_KEY: it is wrong, or the account has no credits left"),
    403: (
        Means.WRONG,
        "SendGrid does not let this key send from this sender: verify the sender, allow the key to send",
    ),
    404: (Means.WRONG, "mail/send of SendGrid is not at this host: look at `base_url`"),
    405: (Means.WRONG, "mail/send of SendGrid is not at this host: look at `base_url`"),
    413: (Means.TOO_LARGE, "SendGrid found it too large"),
    429: (Means.TOO_FAST, "SendGrid asked for fewer requests"),
}
OURS = {  # parts of a request that are the same for every message, and come from the settings
    "from": "SendGrid does not take the sender: look at `from`",
    "reply_to": "SendGrid does not take the address that answers go to: look at `mailbox.reply_to`",
}


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int = 0  # 0: no answer
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    not_taken: bool = False  # no answer, and the request was certainly not complete
    wrong: bool = False  # no answer, and there will be none: the host is not who it says
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """What an answer means for the messages of its request."""

    receipts: Sequence[Receipt] = ()
    again: Sequence[Sequence[Prepared]] = ()  # certainly not accepted: to be handed over once more, so divided
    wrong: str = ""  # why nothing can be sent at all
    wait: timedelta | None = None  # nothing more before that


def verdict_of(request: Sequence[Prepared], answer: Answer, *, sandbox: bool = False) -> Verdict:
    """What became of each message of a request."""
    if not answer.status:
        if not answer.not_taken:
            return Verdict(each(request, Outcome.DOUBT, answer.why))
        blame = Blame.NOBODY if answer.wrong else Blame.ROUTE
        return Verdict(each(request, Outcome.LATER, answer.why, blame), wrong=answer.why if answer.wrong else "")
    code = str(answer.status)
    means, why = STATUSES.get(answer.status, (Means.DOUBT, f"SendGrid answered {code}"))
    if means is Means.ACCEPTED or (means is Means.CHECKED and sandbox):
        return Verdict(_accepted(request, answer), wait=_wait(answer) if _used_up(answer) else None)
    if means is Means.WRONG:
        return Verdict(each(request, Outcome.LATER, why, code=code), wrong=why)
    if means is Means.TOO_FAST:
        return too_fast(request, _wait(answer))
    if means is Means.SOME_REFUSED:
        return _some_refused(request, answer, why)
    if means is Means.TOO_LARGE:
        return _divided(request, why, code)
    return Verdict(each(request, Outcome.DOUBT, why, code=code))


def each(
    request: Iterable[Prepared],
    outcome: Outcome,
    detail: str,
    blame: Blame = Blame.NOBODY,
    wait: timedelta | None = None,
    code: str = "",
) -> list[Receipt]:
    """The same receipt for each message."""
    return [Receipt(one.public_id, outcome, None, detail, wait, blame, code) for one in request]


def too_fast(request: Iterable[Prepared], wait: timedelta) -> Verdict:
    """None was accepted, and none is before that time."""
    return Verdict(each(request, Outcome.LATER, STATUSES[429][1], Blame.SENDER, wait, "429"), wait=wait)


def _accepted(request: Sequence[Prepared], answer: Answer) -> list[Receipt]:
    """
    With the id that SendGrid gave the request; in one of several, with its place after it.

    The `sg_message_id` of each event begins with the request's (sendgrid.com/docs/glossary/x-message-id).
    """
    found = (answer.headers.get("X-Message-Id") or "").strip()[:100]
    if not found:
        return [Receipt(one.public_id, Outcome.ACCEPTED) for one in request]
    if len(request) == 1:
        return [Receipt(request[0].public_id, Outcome.ACCEPTED, found)]
    return [Receipt(one.public_id, Outcome.ACCEPTED, f"{found}.{place}") for place, one in enumerate(request)]


def _some_refused(request: Sequence[Prepared], answer: Answer, why: str) -> Verdict:
    """Those that the errors name are refused; the others go again, divided where none is named."""
    fields = _fields(answer.body)
    if (wrong := next((OURS[part] for name in fields if (part := name.partition(".")[0]) in OURS), None)) is not None:
        return Verdict(each(request, Outcome.LATER, wrong, code="400"), wrong=wrong)
    blamed: dict[int, str] = {}
    for name in fields:
        found = re.fullmatch(r"personalizations\.(\d{1,4})(?:\.(.+))?", name)
        if found and int(found[1]) < len(request):
            blamed.setdefault(int(found[1]), found[2] or "")
    if not blamed:
        return _divided(request, f"{why}: {fields[0]}" if fields else why, "400")
    receipts = [_named(request[place], part, why) for place, part in sorted(blamed.items())]
    others = [one for place, one in enumerate(request) if place not in blamed]
    return Verdict(receipts, again=[others] if others else [])


def _named(one: Prepared, part: str, why: str) -> Receipt:
    blame = Blame.ADDRESS if part.partition(".")[0] == "to" else Blame.MESSAGE
    return Receipt(one.public_id, Outcome.REFUSED, None, f"{why}: {part}" if part else why, None, blame, "400")


def _divided(request: Sequence[Prepared], why: str, code: str) -> Verdict:
    """Its two halves again; a message alone is refused."""
    if len(request) == 1:
        return Verdict(each(request, Outcome.REFUSED, why, Blame.MESSAGE, code=code))
    middle = len(request) // 2
    return Verdict(again=[request[:middle], request[middle:]])


def _fields(body: bytes) -> list[str]:
    """
    The fields that the errors of an answer name: {"errors": [{"message", "field", "help"}]}.

    An error's message may repeat an address, so that it is not read; of the fields, what looks like a name is taken.
    """
    try:
        names = [error.get("field") for error in json.loads(body)["errors"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str) and re.fullmatch(r"(?!null)[a-z_0-9.]{1,80}", name)]


def _used_up(answer: Answer) -> bool:
    return answer.headers.get("X-RateLimit-Remaining") == "0"


def _wait(answer: Answer) -> timedelta:
    """
    Until requests are taken again: Retry-After, else X-RateLimit-Reset by the answer's own clock.

    The latter is in Unix seconds (…/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits).
    """
    seconds = _number(answer.headers.get("Retry-After"))
    reset = _number(answer.headers.get("X-RateLimit-Reset"))
    if seconds is None and reset is not None:
        try:
            now = parsedate_to_datetime(answer.headers.get("Date") or "").timestamp()
        except (ValueError, TypeError, OverflowError):
            now = time.time()
        seconds = reset - now
    if seconds is None:
        return UNTOLD
    return timedelta(seconds=min(max(seconds, 1.0), SLOWEST.total_seconds()))


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,12}", text.strip()) else None
