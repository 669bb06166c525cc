"""
What Twilio tells us: delivery reports and what people write, signed with the account's token.

Sources: www.twilio.com/docs/usage/security (signature), …/docs/messaging/guides/webhook-request (what
people write), …/docs/messaging/guides/outbound-message-status-in-status-callbacks (delivery reports).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from twilio.request_validator import HMAC_SHA1, RequestValidator

from outreach.channels import InboundEvent
from outreach.channels.twilio.codes import fault_of, kind_of_failure

FORM = "application/x-www-form-urlencoded"
SIGNATURE = "x-twilio-signature"
CHANNELS = {"whatsapp": "whatsapp", "messenger": "messenger"}  # by the prefix of an address; none is sms
KINDS = {
    "accepted": "accepted",
    "scheduled": "accepted",
    "queued": "accepted",
    "sending": "accepted",
    "sent": "accepted",  # to the carrier: no delivery
    "delivered": "delivered",
    "partially_delivered": "delivered",
    "read": "opened",
    "canceled": "failed",
    "failed": "failed",
    "undelivered": "failed",
}


class _Parameters(dict[str, list[str]]):
    """The form as the SDK's validator asks for it, with all values of a repeated name."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def is_signed(token: str, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:
    """
    Whether Twilio signed this, over the whole address and every parameter received.

    Always by HMAC-SHA1 with the account's token: the header that names another algorithm is written
    by whoever sends the request. Twilio may sign with or without the port.
    """
    given = _header(headers, SIGNATURE)
    try:
        parameters = _signed_parameters(url, headers, raw_body)
        if not token or not given or parameters is None:
            return False
        validator = RequestValidator(token)
        expected = [validator.compute_signature(one, parameters, HMAC_SHA1) for one in _spellings(url)]
    except ValueError:  # an address or a body that cannot be read
        return False
    matches = [hmac.compare_digest(one.encode(), given.encode("utf-8", "replace")) for one in expected]
    return True in matches


def events(url: str, raw_body: bytes) -> Sequence[InboundEvent]:
    """
    What a verified request says; nothing for a status that is not about a message's way.

    Raises ValueError when it is no request of Twilio's messaging.
    """
    form = dict(parse_qsl(_text(raw_body), keep_blank_values=True))
    sid = form.get("MessageSid") or form.get("SmsSid", "")
    if not sid:
        raise ValueError("no message of Twilio's: there is no MessageSid")
    status = form.get("MessageStatus", "")
    if status and status not in ("receiving", "received"):
        return _report(url, form, sid, status)
    if "From" not in form or not ("Body" in form or "NumMedia" in form):
        raise ValueError("neither a delivery report nor something a person wrote")
    return [_written(form, sid)]


def _report(url: str, form: Mapping[str, str], sid: str, status: str) -> list[InboundEvent]:
    if status not in KINDS:
        return []  # a status that Twilio thought of later: no reason to have it sent again and again
    code = form.get("ErrorCode", "") if KINDS[status] == "failed" else ""
    kind = kind_of_failure(code) if code else KINDS[status]
    channel, address = split_address(form.get("To", ""))
    return [
        InboundEvent(
            event_id=f"twilio:{sid}:{status}",
            kind=kind,
            public_id=dict(parse_qsl(urlsplit(url).query)).get("m", ""),
            provider_id=sid,
            address=address if kind == "opted_out" else "",
            code=code,
            detail=status,
            fault=fault_of(code) if kind == "failed" else "",
            channel=channel,
            recipient=address,
            raw=form,
        )
    ]


def _written(form: Mapping[str, str], sid: str) -> InboundEvent:
    """What a person wrote, or the button they tapped; a stop word that Twilio itself obeyed is an opt-out."""
    channel, address = split_address(form["From"])
    opt_out = form.get("OptOutType", "")
    return InboundEvent(
        event_id=f"twilio:{sid}",
        kind="opted_out" if opt_out.upper() == "STOP" else "reply",
        provider_id=form.get("OriginalRepliedMessageSid", ""),
        address=address,
        text=form.get("Body") or form.get("ButtonText") or form.get("ButtonPayload") or _without_words(form),
        code=opt_out,
        channel=channel,
        raw=form,
    )


_MOST_MEDIA = 10  # www.twilio.com/docs/messaging/guides/webhook-request: as many files as a message has at most
_KIND = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}")


def _without_words(form: Mapping[str, str]) -> str:
    """What a message without a word is: the kinds of its files, or that it is a place; their addresses stand in `raw`."""
    kinds = [form.get(f"MediaContentType{n}", "") for n in range(_MOST_MEDIA)]
    known = [kind.removeprefix("text/") for kind in kinds if _KIND.fullmatch(kind)]
    if known:
        return f"[{', '.join(known)}]"
    return "[location]" if form.get("Latitude") else ""


def split_address(text: str) -> tuple[str, str]:
    """`whatsapp:+52…` → (`whatsapp`, `+52…`); without a prefix it is SMS."""
    prefix, colon, rest = text.partition(":")
    return (CHANNELS[prefix], rest) if colon and prefix in CHANNELS else ("sms", text)


# --- the signature -------------------------------------------------------------------------------


def _signed_parameters(url: str, headers: Mapping[str, str], raw_body: bytes) -> _Parameters | None:
    """The parameters that were signed beside the address; None when the body is not the one that was signed."""
    kind = _header(headers, "content-type").partition(";")[0].strip().lower()
    if kind in ("", FORM):
        found = _Parameters()
        for name, value in parse_qsl(_text(raw_body), keep_blank_values=True):
            found.setdefault(name, []).append(value)
        return found
    promised = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
    actual = hashlib.sha256(raw_body).hexdigest()
    return _Parameters() if hmac.compare_digest(actual.encode(), promised.lower().encode()) else None


def _spellings(url: str) -> Iterator[str]:
    """The address as given, without its port, and with its scheme's own."""
    parts = urlsplit(url)
    yield url
    if parts.port:
        yield _with_host(parts, parts.netloc.rpartition(":")[0])
    else:
        yield _with_host(parts, f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}")


def _with_host(parts: SplitResult, host: str) -> str:
    return parts._replace(netloc=host).geturl()


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _text(raw_body: bytes) -> str:
    return raw_body.decode("utf-8", "replace")
