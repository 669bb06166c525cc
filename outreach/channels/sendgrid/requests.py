"""
From messages to the JSON of mail/send requests: one message each, or several of one sender and one shape.

Limits are those of www.twilio.com/docs/sendgrid/api-reference/mail-send.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from email.utils import parseaddr
from typing import Any, NamedTuple
from urllib.parse import quote

from outreach.channels import Blame, Outcome, Outgoing, Receipt
from outreach.channels.mime import address, one_line, with_token
from outreach.render import Shape, as_read

ARGUMENT = "outreach"  # the custom argument that holds our id
MOST_PERSONALIZATIONS = 1000  # of a request
MOST_SUBSTITUTIONS = 10_000  # bytes, of a personalization
TAG = 50  # more bytes than a tag has
# A request may have 30 MB. JSON makes at most six bytes of one byte of UTF-8, so this much always fits.
MOST_BYTES = 4_000_000
_PLAIN_URL = re.compile(r"[!#-;=?-Z\[\]_a-z~]+")


class Sender(NamedTuple):
    """`Shop <hello@shop.example>`, read."""

    name: str
    address: str


class Prepared(NamedTuple):
    """A message as a request takes it."""

    public_id: str
    sender: str
    address: str
    subject: str
    text: str
    html: str  # where it has no shape
    size: int  # of its substitutions, in bytes
    headers: dict[str, str] | None
    shape: Shape | None = None  # that its HTML has
    values: tuple[str, ...] = ()  # and what fills it


def read_sender(text: str) -> Sender:
    """Name and address; ValueError if it is not one."""
    name, written = parseaddr(text)
    return Sender(one_line(name), address(written))


def prepare(message: Outgoing, sender: str) -> Prepared | Receipt:
    """The message, its texts such as JSON and a header can hold them; refused if SendGrid certainly would."""
    content = message.content
    try:
        to = address(message.address)
    except ValueError:
        return _refused(message, "the address cannot stand in a message", Blame.ADDRESS)
    subject = one_line(content.subject)
    text, size = _sized(content.text)
    html, shape = content.own_html, content.shape
    if shape is not None and _sized(filling := "".join(content.values))[0] == filling:
        each = len(filling.encode()) + TAG * len(content.values)
        size = each + (each if shape.text is not None else size)
    else:
        shape = None
        html, html_size = _sized(content.html)
        size += html_size
    if not subject:
        return _refused(message, "it has no subject", Blame.MESSAGE)
    if not (text or html or shape):
        return _refused(message, "it has no text", Blame.MESSAGE)
    headers = None
    if message.unsubscribe_url and message.purpose == "marketing":  # RFC 8058
        headers = {
            "List-Unsubscribe": f"<{_url(message.unsubscribe_url)}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
    values = content.values if shape is not None else ()
    return Prepared(message.public_id, sender, to, subject, text, html, size + 2 * TAG, headers, shape, values)


def _url(text: str) -> str:
    """As a header can hold it; ours are plain already."""
    return text if _PLAIN_URL.fullmatch(text) else quote(one_line(text), safe="!#$%&'()*+,/:;=?@[]~")


def _refused(message: Outgoing, detail: str, blame: Blame) -> Receipt:
    return Receipt(message.public_id, Outcome.REFUSED, detail=detail, blame=blame)


def _sized(text: str) -> tuple[str, int]:
    """The text and its bytes; a lone surrogate has no form in any message."""
    if text.isascii():
        return text, len(text)
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        whole = text.encode("utf-8", "replace").decode()
        return whole, len(whole.encode())


def requests_of(messages: Iterable[Prepared]) -> list[list[Prepared]]:
    """
    The messages divided among requests, each of one sender and one shape.

    A message whose substitutions would be too large goes alone. An address stands at most once in a request: whether it
    may stand there twice, SendGrid's pages do not say alike.
    """
    requests: list[list[Prepared]] = []
    open_: dict[tuple[str, bool, Shape | bool], _Open] = {}
    for one in messages:
        if one.size > MOST_SUBSTITUTIONS:
            requests.append([one])
            continue
        shape = (one.sender, bool(one.text), one.shape or bool(one.html))
        there = open_.get(shape)
        if there is None or not there.takes(one):
            there = open_[shape] = _Open()
            requests.append(there.messages)
        there.add(one)
    return requests


class _Open:
    """A request that still has room."""

    def __init__(self) -> None:
        self.messages: list[Prepared] = []
        self._addresses: set[str] = set()
        self._size = 0

    def takes(self, one: Prepared) -> bool:
        return (
            len(self.messages) < MOST_PERSONALIZATIONS
            and self._size + one.size <= MOST_BYTES
            and one.address.lower() not in self._addresses
        )

    def add(self, one: Prepared) -> None:
        self.messages.append(one)
        self._addresses.add(one.address.lower())
        self._size += one.size


def body_of(request: Sequence[Prepared], sender: Sender, *, sandbox: bool, reply_to: str = "") -> dict[str, Any]:
    """
    The JSON of one request, as plain data.

    Where answers go is said once for a request, so only a message that goes alone has its own token there;
    SendGrid's own Message-ID, which answers name, tells which message it was in any case.

    Of several messages the words that all have in common stand there once. Each has its values, or the whole of its
    text and HTML, as substitutions of its personalization. Their tags are drawn at random now, when the content has
    long been written, so that no content can hold one; SendGrid looks for tags in what replaces a tag, too.
    """
    first, people = request[0], [_personalization(one) for one in request]
    text, html = first.text, first.html if first.shape is None else first.shape.html.filled(first.values)
    if len(request) > 1:
        in_html, in_text = _tags(request)
        html = first.shape.html.filled(in_html) if first.shape is not None else in_html[0]
        text = first.shape.text.filled(in_text) if first.shape is not None and first.shape.text else in_text[0]
        for one, person in zip(request, people, strict=True):
            person["substitutions"] = _substitutions(one, in_html, in_text)
    content = [("text/plain", text, first.text), ("text/html", html, first.html or first.shape)]
    body: dict[str, Any] = {
        "personalizations": people,
        "from": {"email": sender.address, "name": sender.name} if sender.name else {"email": sender.address},
        "content": [{"type": kind, "value": value} for kind, value, there in content if there],
        # Else SendGrid may add an unsubscribe link and header of its own, whatever the message's purpose.
        "tracking_settings": {"subscription_tracking": {"enable": False}},
    }
    if reply_to:
        body["reply_to"] = {"email": reply_to if len(request) > 1 else with_token(reply_to, first.public_id)}
    if sandbox:
        body["mail_settings"] = {"sandbox_mode": {"enable": True}}
    return body


def _tags(request: Sequence[Prepared]) -> tuple[list[str], list[str]]:
    """What stands for each value, in HTML and in text: the same where all that replaces it is written alike in both."""
    shape, mark = request[0].shape, secrets.token_hex(8)
    columns = ["".join(column) for column in zip(*(one.values for one in request), strict=True)]
    in_html = [f"-{n}h{mark}-" for n in range(1 if shape is None else len(columns))]
    if shape is None or shape.text is None:
        return in_html, [f"-0t{mark}-"]
    return in_html, [f"-{n}t{mark}-" if "&" in column else in_html[n] for n, column in enumerate(columns)]


def _personalization(one: Prepared) -> dict[str, Any]:
    made: dict[str, Any] = {
        "to": [{"email": one.address}],
        "subject": one.subject,
        "custom_args": {ARGUMENT: one.public_id},
    }
    if one.headers:
        made["headers"] = one.headers
    return made


def _substitutions(one: Prepared, in_html: Sequence[str], in_text: Sequence[str]) -> dict[str, str]:
    """What replaces each tag; nothing for what the message does not have."""
    if one.shape is None:
        return {tag: value for tag, value in ((in_html[0], one.html), (in_text[0], one.text)) if value}
    replaced = dict(zip(in_html, one.values, strict=True))
    if one.shape.text is None:
        replaced.update({in_text[0]: one.text} if one.text else {})
    elif in_text != in_html:
        replaced.update(zip(in_text, as_read(one.values), strict=True))
    return replaced
