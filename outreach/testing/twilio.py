"""
A stand-in for Twilio's Messages on this machine: it keeps what it accepts and delivers nothing.

It answers as www.twilio.com/docs/messaging/api/message-resource says (create, fetch, list with its
pages), knows the numbers of Twilio's test credentials (www.twilio.com/docs/iam/test-credentials),
refuses people who opted out, moves messages through their statuses when told to, and signs what it
reports as www.twilio.com/docs/usage/security says, by code of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urlsplit

from outreach.testing import Fault, Faults, Lag

ACCOUNT_SID = "AC" + "0" * 32
AUTH_TOKEN = "a-token-for-tests"  # noqa: S105
STEPS = {"accepted": "queued", "queued": "sending", "sending": "sent", "sent": "delivered"}
TO = {  # the test credentials' own numbers, as recipients
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
FROM = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}  # and as senders
TEXTS = {
    20001: "Invalid parameter",
    20003: "Authenticate",
    20404: "The requested resource was not found",
    20429: "Too Many Requests",
    20500: "An internal server error has occurred",
    21211: "Invalid 'To' Phone Number",
    21481: "Invalid PageToken",
    21408: "Permission to send an SMS has not been enabled for the region",
    21603: "A 'From' phone number is required",
    21604: "A 'To' phone number is required",
    21606: "The 'From' phone number provided is not a valid message-capable Twilio phone number",
    21608: "The number is unverified. Trial accounts cannot send messages to unverified numbers",
    21609: "Invalid 'StatusCallback' URL",
    21610: "Attempt to send to unsubscribed recipient",
    21617: "The concatenated message body exceeds the 1600 character limit",
    21619: "A text message body or media urls must be specified",
    21655: "The ContentSid is Invalid",
    21656: "The ContentVariables Parameter is invalid",
    21705: "The Messaging Service Sid is invalid",
    21910: "Invalid 'From' and 'To' pair. 'From' and 'To' should be of the same channel",
    63007: "Twilio could not find a Channel with the specified From address",
    99999: "A refusal that was invented after you were written",
}
BEFORE = {  # faults that refuse a request without looking at it: HTTP status and code
    Fault.TOO_MANY: (429, 20429),
    Fault.BUSY_BEFORE: (500, 20500),
    Fault.OPTED_OUT: (400, 21610),
    Fault.BAD_ADDRESS: (400, 21211),
    Fault.NOT_ALLOWED: (401, 20003),
    Fault.UNHEARD_OF: (400, 99999),
}
RETRY_AFTER = 7  # seconds
TRIAL = "Sent from your Twilio trial account - "  # what the texts of a trial account begin with
LEDGER = "/_accepted"


@dataclass(frozen=True)
class Recorded:
    """One request, as it came."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True)
class Signed:
    """A request of Twilio's to us."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Message:
    """One message of Twilio's list: accepted, or written by a person."""

    sid: str
    form: Mapping[str, str]
    status: str
    created: datetime
    sent: datetime | None = None
    error: int | None = None
    stillborn: bool = False  # failed in the very answer that made it
    direction: str = "outbound-api"
    reported: list[str] = field(default_factory=list)  # statuses, the first one excepted: of that none is told

    @property
    def public_id(self) -> str:
        """Our own id, which the address for its reports carries."""
        return dict(parse_qsl(urlsplit(self.form.get("StatusCallback", "")).query)).get("m", "")


class FakeTwilio:
    """
    Listens on 127.0.0.1 while it is entered; any thread may use it.

    `senders` are the account's numbers (None: any that asks), `services` its messaging services,
    `whatsapp` its WhatsApp senders (None: any that asks). A `trial` account reaches only who is `verified`.
    `faults` has one entry for each API request to come; `list_faults`, if given, those for reading ones.
    What is accepted is in the list of messages after `lag` lists that could have held it; None: after `catch_up`.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        faults: Faults | None = None,
        list_faults: Faults | None = None,
        lag: int | None = 0,
        senders: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        whatsapp: Iterable[str] | None = None,
        trial: bool = False,
        verified: Iterable[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.account_sid, self.auth_token = ACCOUNT_SID, AUTH_TOKEN
        self.faults = faults or Faults()
        self.list_faults = list_faults or self.faults
        self.pools: dict[str, list[str]] = {}  # messaging service → its senders
        self.templates: dict[str, str] = {}  # content_sid → its text, with {{1}} for the first variable
        self.senders = None if senders is None else set(senders)
        self.services = None if services is None else set(services)
        self.whatsapp = None if whatsapp is None else set(whatsapp)
        self.trial = trial
        self.verified = set(verified)
        self.opted_out: set[str] = set()  # numbers that told Twilio to stop
        self.bad: set[str] = set()  # numbers that nobody has
        self.born_failed: dict[str, int] = {}  # number → code: made and failed in the same answer
        self.conversations: set[str] = set()  # who wrote within WhatsApp's 24 hours
        self.accepted: list[Message] = []  # in order
        self.requests: list[Recorded] = []
        self.connections = 0
        self.most_at_once = 0
        self.on_request: Callable[[Recorded], object] = lambda _: None  # called in the request's own thread
        self.clock = clock
        self._lag = Lag(lag)
        self._all: list[Message] = []  # in the order they came, those that people wrote among them
        self._by_recipient: dict[str, list[Message]] = {}
        self._at_once = 0
        self._lock = threading.RLock()
        self._leaving = threading.Event()
        self._server = _server(self, port)

    @property
    def url(self) -> str:
        """What `base_url` must be to reach it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._server.shutdown()
        self._server.server_close()

    # --- the ledger -------------------------------------------------------------------------------

    def accepted_count(self, public_id: str = "", *, to: str = "", body: str = "") -> int:
        """How often a message was accepted: by our own id, or by recipient and text."""
        with self._lock:
            alive = [one for one in self.accepted if not one.stillborn]
        if public_id:
            return sum(one.public_id == public_id for one in alive)
        return sum((one.form["To"], one.form.get("Body", "")) == (to, body) for one in alive)

    def accepted_by_public_id(self) -> Counter[str]:
        """How often each message was accepted, by our own id; those without one are together under an empty id."""
        with self._lock:
            return Counter(one.public_id for one in self.accepted if not one.stillborn)

    def accepted_by_text(self) -> Counter[tuple[str, str]]:
        """The same by recipient (as the form had it) and text."""
        with self._lock:
            return Counter((one.form["To"], self._text(one)) for one in self.accepted if not one.stillborn)

    def put(
        self, to: str, body: str, *, sender: str = "+15005550006", at: datetime | None = None, inbound: bool = False
    ) -> Message:
        """A message of the account's that somebody else sent, or a person wrote; in its list, not in `accepted`."""
        form = {"To": to, "From": sender, "Body": body}
        direction, status = ("inbound", "received") if inbound else ("outbound-api", "delivered")
        one = Message(_sid("SM"), form, status, at or self.clock(), direction=direction)
        self._keep(one)
        return one

    def catch_up(self) -> None:
        """List everything accepted so far."""
        with self._lock:
            self._lag.catch_up()

    def _keep(self, one: Message) -> None:
        with self._lock:
            self._all.append(one)
            self._by_recipient.setdefault(one.form["To"], []).append(one)

    def find(self, public_id: str) -> Message:
        """The first message accepted under our id."""
        with self._lock:
            return next(one for one in self.accepted if one.public_id == public_id)

    # --- statuses and reports -----------------------------------------------------------------------

    def advance(self, *public_ids: str) -> None:
        """
        Move these messages, or all, one status on.

        Free text to a WhatsApp user who has not written fails then, with 63016, as it does at Twilio.
        """
        with self._lock:
            for one in self.accepted:
                if one.status in STEPS and (not public_ids or one.public_id in public_ids):
                    self._step(one)

    def fail(self, public_id: str, code: int, status: str = "undelivered") -> None:
        """Have this message end badly."""
        with self._lock:
            one = self.find(public_id)
            one.error = code
            self._set(one, status)

    def report(self, public_id: str, status: str = "") -> Signed:
        """The signed delivery report of a message: of its status, or of one it had before."""
        with self._lock:
            one = self.find(public_id)
            status = status or one.status
            form = {
                "SmsSid": one.sid,
                "SmsStatus": status,
                "MessageStatus": status,
                "To": one.form["To"],
                "MessageSid": one.sid,
                "AccountSid": self.account_sid,
                "From": one.form.get("From", ""),
                "ApiVersion": "2010-04-01",
            }
            if one.error and status in ("failed", "undelivered"):
                form["ErrorCode"] = str(one.error)
            return self.sign(one.form["StatusCallback"], form)

    def deliver(self, at: str = "", *, copies: int = 1, backwards: bool = False) -> list[int]:
        """
        Post every report that is still to be made; the HTTP statuses of the answers.

        They go where each message asked for; `at` is the scheme and host to knock at instead, as a proxy
        would pass them on. Twilio promises neither order nor that each comes once: `backwards`, `copies`.
        """
        with self._lock:
            due = [
                self.report(one.public_id, status) for one in self.accepted if one.public_id for status in one.reported
            ]
            for one in self.accepted:
                one.reported.clear()
        due = [report for report in due for _ in range(copies)]
        return [post(report, at) for report in (reversed(due) if backwards else due)]

    def inbound(self, url: str, text: str, *, sender: str, to: str, **more: str) -> Signed:
        """
        The signed request about something that a person wrote, which is in the list from then on.

        `more` adds parameters such as OptOutType.
        """
        sid = self.put(to, text, sender=sender, inbound=True).sid
        self.conversations.add(sender)
        form = {
            "ToCountry": "MX",
            "SmsMessageSid": sid,
            "NumMedia": "0",
            "SmsSid": sid,
            "SmsStatus": "received",
            "Body": text,
            "To": to,
            "NumSegments": "1",
            "MessageSid": sid,
            "AccountSid": self.account_sid,
            "From": sender,
            "ApiVersion": "2010-04-01",
        }
        return self.sign(url, form | more)

    def sign(self, url: str, form: Mapping[str, str]) -> Signed:
        """A form as Twilio posts it, with the signature over its address and every parameter."""
        signed = url + "".join(name + form[name] for name in sorted(form))
        mac = hmac.new(self.auth_token.encode(), signed.encode(), hashlib.sha1)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": base64.b64encode(mac.digest()).decode(),
            "User-Agent": "TwilioProxy/1.1",
        }
        return Signed(url, headers, urlencode(form).encode())

    def _step(self, one: Message) -> None:
        to = one.form["To"]
        if (
            one.status == "sending"
            and "Body" in one.form
            and to.startswith("whatsapp:")
            and to not in self.conversations
        ):
            one.error = 63016
            self._set(one, "failed")
        else:
            self._set(one, STEPS[one.status])

    def _set(self, one: Message, status: str) -> None:
        one.status = status
        one.sent = one.sent or (self.clock() if status == "sent" else None)
        one.reported.append(status)

    # --- the API ------------------------------------------------------------------------------------

    def answer(self, request: Recorded) -> _Answer | None:
        """The answer to one request; None: the connection is cut without any."""
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.on_request(request)
            return self._answer(request)
        finally:
            with self._lock:
                self._at_once -= 1

    def connected(self) -> None:
        """A client opened a connection."""
        with self._lock:
            self.connections += 1

    def _answer(self, request: Recorded) -> _Answer | None:
        fault = (self.list_faults if request.method == "GET" else self.faults).take()
        if fault is Fault.DROP_BEFORE:
            return None
        if fault in BEFORE:
            return _refusal(*BEFORE[fault])
        with self._lock:
            answer = self._route(request)
        if fault is Fault.SLOW:
            self._leaving.wait(60)
        if fault is Fault.BUSY_AFTER:
            return _refusal(500, 20500)
        return None if fault in (Fault.DROP_AFTER, Fault.SLOW) else answer

    def _route(self, request: Recorded) -> _Answer:
        login = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {login}":
            return _refusal(401, 20003)
        parts = urlsplit(request.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        path = parts.path.removeprefix(f"/2010-04-01/Accounts/{self.account_sid}")
        match request.method, path:
            case "POST", "/Messages.json":
                return self._create(request.form)
            case "GET", "/Messages.json":
                return self._list(parts.path, query)
            case "GET", "/IncomingPhoneNumbers.json":
                return self._numbers(parts.path, query)
            case "GET", ".json":
                kind = "Trial" if self.trial else "Full"
                return _Answer(
                    200, {"sid": self.account_sid, "status": "active", "type": kind, "friendly_name": "fake"}
                )
            case "GET", "/v2/Channels/Senders":
                return self._whatsapp_senders()
        if request.method == "GET" and (found := re.fullmatch(r"/Messages/(\w+)\.json", path)):
            one = next((one for one in self.accepted if one.sid == found[1]), None)
            return _Answer(200, self._shown(one)) if one else _refusal(404, 20404)
        if request.method == "GET" and (found := re.fullmatch(r"/v1/Services/(MG\w+)", path)):
            known = self.services is None or found[1] in self.services
            return _Answer(200, {"sid": found[1], "account_sid": self.account_sid}) if known else _refusal(404, 20404)
        if request.method == "GET" and (found := re.fullmatch(r"/v1/Services/(MG\w+)/(\w+)", path)):
            return self._pool(found[1], found[2])
        return _refusal(404, 20404)

    def _create(self, form: Mapping[str, str]) -> _Answer:
        code = self._objection(form)
        if code:
            return _refusal(400, code)
        first = "accepted" if "MessagingServiceSid" in form else "queued"
        one = Message(_sid("SM"), dict(form), first, self.clock())
        born = self.born_failed.get(_plain(form["To"]))
        if born is not None:
            one.status, one.error, one.stillborn = "failed", born, True
        self.accepted.append(one)
        self._keep(one)
        self._lag.accept(one.sid)
        return _Answer(201, self._shown(one))

    def _objection(self, form: Mapping[str, str]) -> int:
        """The code that Twilio would refuse this with; 0: it takes it."""
        to, sender, service = form.get("To", ""), form.get("From", ""), form.get("MessagingServiceSid", "")
        callback = form.get("StatusCallback")
        validity = form.get("ValidityPeriod", "1")
        by_whatsapp = sender.startswith("whatsapp:") and self.whatsapp is not None
        owned = self.whatsapp if by_whatsapp else self.senders
        checks = (
            (not to, 21604),
            (not sender and not service, 21603),
            (not form.get("Body") and not form.get("ContentSid"), 21619),
            (len(form.get("Body", "")) > 1600, 21617),
            ("ContentSid" in form and not re.fullmatch("HX[0-9a-fA-F]{32}", form["ContentSid"]), 21655),
            ("ContentVariables" in form and not _are_variables(form["ContentVariables"]), 21656),
            (not validity.isdecimal() or not 1 <= int(validity) <= 36_000, 20001),
            (callback is not None and "_" in (urlsplit(callback).hostname or "_"), 21609),
            (bool(service) and self.services is not None and service not in self.services, 21705),
            (bool(sender) and to.rpartition(":")[0] != sender.rpartition(":")[0], 21910),
            (sender in FROM, FROM.get(sender, 0)),
            (bool(sender) and owned is not None and _plain(sender) not in owned, 63007 if by_whatsapp else 21606),
            (to in TO, TO.get(to, 0)),
            (not to.startswith("messenger:") and not re.fullmatch(r"\+[1-9]\d{6,14}", _plain(to)), 21211),
            (_plain(to) in self.bad, 21211),
            (self.trial and _plain(to) not in self.verified, 21608),
            (_plain(to) in self.opted_out, 21610),
        )
        return next((code for wrong, code in checks if wrong), 0)

    def _list(self, path: str, query: Mapping[str, str]) -> _Answer:
        """
        Last sent (or made) first, filtered and in pages; `DateSent` and its two comparisons leave out what was not sent yet.

        A page's token names the last message before it; `page` alone means nothing, as Twilio's description says.
        """
        size, token = query.get("PageSize", "50"), query.get("PageToken", "")
        if not size.isdecimal() or not 1 <= int(size) <= 1000:
            return _refusal(400, 20001)
        pool = self._by_recipient.get(query["To"], []) if "To" in query else self._all
        found = sorted((one for one in pool if self._wanted(one, query)), key=lambda one: one.sent or one.created)
        found.reverse()  # of the same moment, the last one first
        begin = next((place for place, one in enumerate(found, 1) if token == f"PA{one.sid}"), 0)
        if token and not begin:
            return _refusal(400, 21481)
        if not token:
            hidden = {one.sid for one in found if self._lag.hides(one.sid)}
            found = [one for one in found if one.sid not in hidden]
        shown = found[begin : begin + int(size)]
        rest = {name: value for name, value in query.items() if name not in ("Page", "PageToken")} | {"PageSize": size}
        page, following = int(query.get("Page", 0)) if token else 0, None
        if len(found) > begin + len(shown):
            more = {"Page": str(page + 1), "PageToken": f"PA{shown[-1].sid}"}
            following = f"{path}?{urlencode(rest | more)}"
        first = f"{path}?{urlencode(rest | {'Page': '0'})}"
        return _Answer(
            200,
            {
                "messages": [self._shown(one) for one in shown],
                "page": page,
                "page_size": int(size),
                "start": begin,
                "end": begin + len(shown) - 1,
                "first_page_uri": first,
                "next_page_uri": following,
                "previous_page_uri": None,
                "uri": f"{path}?{urlencode(query)}",
            },
        )

    def _wanted(self, one: Message, query: Mapping[str, str]) -> bool:
        if any(name in query and one.form.get(name, "") != query[name] for name in ("To", "From")):
            return False
        for name, holds in (("DateSent", str.__eq__), ("DateSent>", str.__ge__), ("DateSent<", str.__le__)):
            if name in query and (
                one.sent is None
                or not holds(f"{one.sent:%Y-%m-%dT%H:%M:%S}"[: len(query[name])], query[name].rstrip("Z"))
            ):
                return False
        return True

    def _numbers(self, path: str, query: Mapping[str, str]) -> _Answer:
        asked = query.get("PhoneNumber", "")
        owned = {asked} if self.senders is None and asked else set(self.senders or ())
        shown = [
            {"sid": _sid("PN"), "phone_number": number, "capabilities": {"sms": True, "mms": False, "voice": True}}
            for number in sorted(owned)
            if not asked or number == asked
        ]
        return _Answer(
            200, {"incoming_phone_numbers": shown, "page": 0, "page_size": 50, "next_page_uri": None, "uri": path}
        )

    def _pool(self, service: str, kind: str) -> _Answer:
        """The senders of one kind in a messaging service."""
        senders = self.pools.get(service, [])
        key, name, of_kind = {
            "PhoneNumbers": ("phone_numbers", "phone_number", [one for one in senders if one.startswith("+")]),
            "ShortCodes": ("short_codes", "short_code", [one for one in senders if one.isdecimal()]),
            "ChannelSenders": ("senders", "sender", [one for one in senders if ":" in one]),
        }[kind]
        shown = [{"sid": _sid("PN"), "service_sid": service, name: one} for one in of_kind]
        return _Answer(200, {key: shown, "meta": {"key": key, "page": 0, "page_size": 50, "next_page_url": None}})

    def _text(self, one: Message) -> str:
        """What its recipient reads, as far as the template is known."""
        text = one.form.get("Body") or self.templates.get(one.form.get("ContentSid", ""), "")
        for name, value in json.loads(one.form.get("ContentVariables") or "{}").items():
            text = text.replace(f"{{{{{name}}}}}", value)
        return text

    def _whatsapp_senders(self) -> _Answer:
        senders = [
            {"sid": _sid("XE"), "sender_id": f"whatsapp:{number}", "status": "ONLINE"}
            for number in sorted(self.whatsapp or ())
        ]
        return _Answer(
            200, {"senders": senders, "meta": {"key": "senders", "page": 0, "page_size": 50, "next_page_url": None}}
        )

    def _shown(self, one: Message) -> dict[str, Any]:
        """A message as the API writes it; fields as in Twilio's OpenAPI description."""
        uri = f"/2010-04-01/Accounts/{self.account_sid}/Messages/{one.sid}"
        outbound = one.direction != "inbound"
        return {
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": (TRIAL if self.trial and outbound else "") + self._text(one),
            "date_created": format_datetime(one.created),
            "date_sent": format_datetime(one.sent) if one.sent else None,
            "date_updated": format_datetime(one.sent or one.created),
            "direction": one.direction,
            "error_code": one.error,
            "error_message": None,
            "from": one.form.get("From"),
            "messaging_service_sid": one.form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": "0" if one.status == "accepted" else "1",
            "price": None,
            "price_unit": None,
            "sid": one.sid,
            "status": one.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": one.form["To"],
            "uri": f"{uri}.json",
        }


def post(signed: Signed, at: str = "") -> int:
    """Post a signed request, as Twilio would; the HTTP status of the answer. `at`: the scheme and host to knock at."""
    parts = urlsplit(signed.url)
    url = f"{at.rstrip('/')}{parts.path}{'?' + parts.query if parts.query else ''}" if at else signed.url
    request = urllib.request.Request(url, signed.body, dict(signed.headers), method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310  # Twilio waits 15 seconds
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


# --- HTTP ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def _refusal(status: int, code: int) -> _Answer:
    content = {
        "code": code,
        "message": TEXTS.get(code, "refused"),
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return _Answer(status, content, {"Retry-After": str(RETRY_AFTER)} if status == 429 else {})


def _plain(address: str) -> str:
    return address.rpartition(":")[2]


def _are_variables(text: str) -> bool:
    """Whether a template takes them: each has a text, as www.twilio.com/docs/api/errors/21656 asks for."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and all(
        isinstance(value, str) and value.strip() and not re.search(r"[\n\r\t]| {5}", value) for value in found.values()
    )


def _sid(prefix: str) -> str:
    return prefix + secrets.token_hex(16)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def _server(twilio: FakeTwilio, port: int) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body leave together

        def setup(self) -> None:
            super().setup()
            twilio.connected()

        def do_GET(self) -> None:  # the name that http.server calls
            self._do()

        def do_POST(self) -> None:
            self._do()

        def do_DELETE(self) -> None:
            self._do()

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == LEDGER:
                self._send(_Answer(200, twilio.accepted_by_public_id()))
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = twilio.answer(Recorded(self.command, self.path, headers, body))
            if answer is None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(2)
                return
            self._send(answer)

        def _send(self, answer: _Answer) -> None:
            content = json.dumps(answer.content).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return (
                format_datetime(twilio.clock().astimezone(UTC), usegmt=True)
                if timestamp is None
                else formatdate(timestamp, usegmt=True)
            )

        def log_message(self, *_: object) -> None:
            """Not a word."""

    return _Server(("127.0.0.1", port), Handler)
