"""
Reports: what mail servers and mailbox providers write about messages of ours.

    delivery reports    multipart/report of RFC 6522 with message/delivery-status (RFC 3464)
    complaints          message/feedback-report of RFC 5965: somebody called it spam

Anybody can write either. So they are only ever about the message that they return, whose id nobody can
guess, and about the address that it went to: never about an address that they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from email.policy import compat32

from outreach.channels.faults import about_address
from outreach.channels.mail_in.parts import Part

LONGEST = 20_000  # characters of a report that are looked at
MOST = 20  # recipients of one report
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_ACTIONS = {"delayed": "deferred", "delivered": "delivered"}
_FEEDBACK = {"abuse": "complained", "fraud": "complained", "virus": "complained", "opt-out": "opted_out"}


@dataclass(frozen=True)
class Report:
    """One thing that a report says."""

    kind: str  # of channels.InboundEvent: bounced | failed | deferred | delivered | complained | opted_out
    code: str = ""  # of RFC 3463, or the kind of complaint
    returned: tuple[str, ...] = ()  # ids in what it returns of the message, as they stand in its headers
    fields: Mapping[str, str] = field(default_factory=dict)


def read(whole: Part) -> Iterator[Report]:
    """What it reports; nothing where it is no report."""
    inner = list(whole.walk())
    returned = tuple(_returned(inner))
    for part in inner:
        if part.kind == "message/delivery-status":
            yield from _deliveries(part, returned)
        elif part.kind == "message/feedback-report":
            said = _fields(_text(part))
            kind = _FEEDBACK.get(said.get("feedback-type", "").strip().lower())
            if kind:
                yield Report(kind, said["feedback-type"].strip().lower(), returned, _kept(said))


def _deliveries(part: Part, returned: tuple[str, ...]) -> Iterator[Report]:
    """Each recipient's block, after the one about the message."""
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", _text(part))]
    for said in [block for block in blocks if "action" in block][:MOST]:
        status = _STATUS.search(said.get("status", ""))
        code = status[0] if status else ""
        yield Report(_kind(said["action"].strip().lower(), code), code, returned, _kept(said))


def _kind(action: str, code: str) -> str:
    """What became of the message. A refusal for good is the address's fault unless its code says otherwise."""
    if action != "failed":
        return _ACTIONS.get(action, "deferred" if code.startswith("4") else "accepted")
    return "bounced" if code.startswith("5") and about_address(code) else "failed"


def _text(part: Part) -> str:
    """The report's text: the library reads blocks of a delivery report as messages without a body."""
    inner = part.parts()
    if inner:
        return "\n\n".join("\n".join(one.lines()) for one in inner[: MOST + 1])[:LONGEST]
    return part.text(LONGEST)


def _fields(block: str) -> dict[str, str]:
    found = HeaderParser(policy=compat32).parsestr(block[:LONGEST].strip("\n"))
    return {name.lower(): " ".join(str(value).split())[:500] for name, value in list(found.raw_items())[:100]}


def _kept(said: Mapping[str, str]) -> dict[str, str]:
    """Without addresses, and without the other server's words, which may hold some."""
    names = ("action", "status", "feedback-type", "reporting-mta", "user-agent")
    return {name: said[name] for name in names if name in said}


def _returned(parts: list[Part]) -> Iterator[str]:
    """The ids of the returned message, whole or its headers alone (RFC 6522 section 3)."""
    for part in parts:
        if part.kind in ("message/rfc822", "message/global"):
            yield from (one.header("Message-ID") for one in part.parts())
        elif part.kind in ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers"):
            yield _fields(part.text(LONGEST)).get("message-id", "")
