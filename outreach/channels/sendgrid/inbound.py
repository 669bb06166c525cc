"""
SendGrid Inbound Parse: mails that SendGrid took for us, as it posts them.

Sources: www.twilio.com/docs/sendgrid/for-developers/parsing-email/setting-up-the-inbound-parse-webhook (fields; with
"POST the raw, full MIME message" the mail is whole, in the field `email`; other pages call it `rawEmail`),
…/parsing-email/securing-your-parse-webhooks (signatures as those of events, where a security policy asks for them).
Without the raw message its parts come as fields, decoded, and bounces and complaints cannot be told.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from outreach.channels import InboundEvent, mail_in
from outreach.channels.mail_in.parts import MOST_BYTES, Part, parse
from outreach.channels.sendgrid.events import is_signed
from outreach.settings import Settings

MOST_REQUEST = 30 * 1024 * 1024  # of one mail with all that is attached: SendGrid's limit
KEY, TOKEN = "SENDGRID_INBOUND_KEY", "SENDGRID_INBOUND_TOKEN"
_RAW = ("email", "rawEmail")
_BOUNDARY = re.compile(r"boundary=\"?([^\"\s;]{1,200})\"?", re.IGNORECASE)
_BODY_HEADER = re.compile(r"(?im)^(content-[\w-]+|mime-version):[^\n]*(\n[ \t][^\n]*)*\n?")


def is_set_up(settings: Settings) -> bool:
    """Whether there is anything by which a request can be told from a forged one."""
    return any(settings.secrets.get(name) for name in (KEY, TOKEN))


def is_authentic(settings: Settings, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:
    """
    Whether SendGrid posted this: by its signature where SENDGRID_INBOUND_KEY is set, else by the secret in the URL.

    The secret SENDGRID_INBOUND_TOKEN stands in the query (`?token=…`) or is the password of HTTP Basic.
    """
    if key := settings.secrets.get(KEY):
        return is_signed(key, headers, raw_body)
    token = settings.secrets.get(TOKEN, "")
    given = [*parse_qs(urlsplit(url).query).get("token", ()), _password(headers)]
    return bool(token) and any(hmac.compare_digest(one.encode(), token.encode()) for one in given)


def _password(headers: Mapping[str, str]) -> str:
    scheme, _, value = next((v for name, v in headers.items() if name.lower() == "authorization"), "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
    except ValueError:
        return ""


def read_mail(settings: Settings, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:
    """What the posted mail tells us; ValueError when the body is no form of Inbound Parse."""
    fields = _fields(headers, raw_body)
    envelope = _recipients(fields.get("envelope"))
    whole = next((fields[name].content() for name in _RAW if name in fields), None)
    if whole is None:
        if "headers" not in fields:
            raise ValueError("neither a raw mail nor its headers")
        whole = _put_together(fields)
    return mail_in.read(whole[:MOST_BYTES], mail_in.ours_of(settings), envelope=envelope)


def _fields(headers: Mapping[str, str], raw_body: bytes) -> dict[str, Part]:
    """The fields of the form by name; the first of each counts."""
    named = {name.lower(): value for name, value in headers.items()}
    boundary = _BOUNDARY.search(named.get("content-type", ""))
    if boundary is None:
        raise ValueError("no form")
    head = f'Content-Type: multipart/form-data; boundary="{boundary[1]}"\r\n\r\n'.encode("ascii", "replace")
    found: dict[str, Part] = {}
    for part in parse(head + raw_body).parts():
        name = re.search(r"\bname=\"?([\w-]{1,60})\"?", part.header("Content-Disposition"))
        if name:
            found.setdefault(name[1], part)
    return found


def _recipients(envelope: Part | None) -> str:
    """The addresses it was delivered to."""
    try:
        said = json.loads(envelope.text(20_000)) if envelope else {}
    except (ValueError, RecursionError):
        return ""
    to = said.get("to") if isinstance(said, dict) else None
    return " ".join(one for one in to if isinstance(one, str)) if isinstance(to, list) else ""


def _put_together(fields: Mapping[str, Part]) -> bytes:
    """The mail's own headers with the text that SendGrid took out of it."""
    head = _BODY_HEADER.sub("", fields["headers"].text(200_000)).strip("\n")
    texts = {kind: fields[name].text(500_000) for name, kind in (("text", "plain"), ("html", "html")) if name in fields}
    kind = "plain" if texts.get("plain", "").strip() or "html" not in texts else "html"
    encoded = base64.encodebytes(texts.get(kind, "").encode("utf-8", "replace"))
    typed = f"Content-Type: text/{kind}; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
    return f"{head}\n{typed}".encode("utf-8", "replace") + encoded
