"""
What SendGrid tells us afterwards: signed events.

Sources: www.twilio.com/docs/sendgrid/for-developers/tracking-events/event (what they say),
…/tracking-events/getting-started-event-webhook-security-features (how they are signed).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from outreach.addresses import LONGEST
from outreach.channels import InboundEvent
from outreach.channels.faults import about_address, by_policy
from outreach.channels.sendgrid.requests import ARGUMENT

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
# Repeats come for up to 24 hours. Whether they carry their first timestamp or a new one, SendGrid does not say:
# so a day and a little is taken, and an event taken twice is known by its id.
OLDEST = timedelta(hours=25)
AHEAD = timedelta(minutes=10)  # of our clock

KINDS = {  # what is not here is no fact about a message
    "processed": "accepted",
    "delivered": "delivered",
    "deferred": "deferred",
    "bounce": "bounced",  # or failed, see `_bounce`
    "dropped": "failed",
    "spamreport": "complained",
    "unsubscribe": "opted_out",
    "group_unsubscribe": "opted_out",
    "open": "opened",
    "click": "clicked",
}
# SendGrid's `bounce_classification`; what the first of these say is not the address's fault.
NOT_THE_ADDRESS = frozenset({"Content", "Frequency or Volume Too High", "Reputation", "Technical"})
CLASSES = NOT_THE_ADDRESS | {"Invalid Address", "Mailbox Unavailable", "Unclassified"}
_FOR_NOW = re.compile(r"4\.\d{1,3}\.\d{1,3}|4\d\d")
# Why SendGrid did not even try; some of it is about the person or the address.
DROPPED = {"Unsubscribed Address": "opted_out", "Spam Reporting Address": "complained", "Bounced Address": "bounced"}
DROPS = frozenset(
    {
        "Bounced Address",
        "Invalid",
        "Invalid SMTPAPI header",
        "Recipient List over Package Quota",
        "Spam Content",
        "Spam Reporting Address",
        "Unsubscribed Address",
    }
)


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The key as SendGrid shows it: base64 of DER, on the curve P-256; ValueError if it is not that."""
    written = re.sub(r"-----(BEGIN|END) PUBLIC KEY-----|\s", "", text)
    try:
        key = load_der_public_key(base64.b64decode(written, validate=True))
    except UnsupportedAlgorithm as error:
        raise ValueError("not a public key of P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a public key of P-256")
    return key


def is_signed(key: str, headers: Mapping[str, str], raw_body: bytes) -> bool:
    """Whether SendGrid signed timestamp and body with the key (ECDSA, SHA-256) within the last 25 hours."""
    named = {name.lower(): value for name, value in headers.items()}
    timestamp = named.get(TIMESTAMP, "")
    try:
        age = time.time() - int(timestamp)
        if not -AHEAD.total_seconds() <= age <= OLDEST.total_seconds():
            return False
        signature = base64.b64decode(named.get(SIGNATURE, ""), validate=True)
        public_key(key).verify(signature, timestamp.encode() + raw_body, ec.ECDSA(hashes.SHA256()))
    except (ValueError, OverflowError, InvalidSignature):
        return False
    return True


def read_events(raw_body: bytes) -> Sequence[InboundEvent]:
    """The events that are facts about messages; ValueError when it is not a list of events."""
    try:
        events = json.loads(raw_body)
    except RecursionError as error:
        raise ValueError("not a list of events") from error
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise ValueError("not a list of events")
    return [found for event in events if (found := _inbound(event)) is not None]


def _inbound(event: Mapping[str, Any]) -> InboundEvent | None:
    """One event in our words; None: of no use to us. Our custom argument stands among its keys."""
    kind = KINDS.get(_text(event, "event"))
    if kind is None:
        return None
    status = _text(event, "status")
    code = status if re.fullmatch(r"\d(\.\d{1,3}){2}|\d{3}", status) else ""
    detail = ""
    if kind == "bounced":
        kind, detail = _bounce(event, code)
    elif kind == "failed" and _text(event, "reason") in DROPS:
        detail = _text(event, "reason")
        kind = DROPPED.get(detail, kind)
    elif kind in ("opened", "clicked") and event.get("sg_machine_open") is True:
        detail = "machine"
    number = _text(event, "sg_event_id") or hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()
    return InboundEvent(
        event_id=f"sendgrid:{number[:200]}",
        kind=kind,
        at=_at(event.get("timestamp")),
        public_id=_text(event, ARGUMENT)[:64],
        provider_id=_text(event, "sg_message_id")[:200],
        code=code,
        detail=detail,
        fault=_fault(detail, code) if kind == "failed" else "",
        recipient=_text(event, "email")[:LONGEST],
        raw=event,
    )


# What SendGrid's words for a failure mean; the others are about one recipient, or leave it to the code.
_FAULTS = {
    "Content": "mailbox providers take this text for spam: change it before sending more",
    "Spam Content": "SendGrid takes this text for spam: change it before sending more",
    "Reputation": "mailbox providers distrust the sender: see its reputation in SendGrid's console",
    "Frequency or Volume Too High": "mailbox providers find it too much at once: set a lower `rate`",
    "Recipient List over Package Quota": "the account has used up its messages: upgrade it",
}
_BY_CODE = frozenset({"", "blocked", "Unclassified"})


def _fault(word: str, code: str) -> str:
    if word in _FAULTS:
        return f"{_FAULTS[word]} (SendGrid: {word})"
    return by_policy(code) if word in _BY_CODE else ""


def _bounce(event: Mapping[str, Any], code: str) -> tuple[str, str]:
    """Whether the address is at fault (`bounced`) or not (`failed`), and SendGrid's word for it."""
    sort = _text(event, "bounce_classification")
    blocked = _text(event, "type") == "blocked"
    excused = blocked or sort in NOT_THE_ADDRESS or is_excused(code)
    return "failed" if excused else "bounced", sort if sort in CLASSES else "blocked" if blocked else ""


def is_excused(code: str) -> bool:
    """Whether a bounce with this code says nothing of the address."""
    return _FOR_NOW.fullmatch(code) is not None or not about_address(code)


def _text(event: Mapping[str, Any], name: str) -> str:
    """A text of one line, or nothing."""
    value = event.get(name)
    return value if isinstance(value, str) and value.isprintable() else ""


def _at(seconds: object) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
