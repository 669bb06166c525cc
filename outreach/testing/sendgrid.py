"""
A stand-in for SendGrid on 127.0.0.1: mail/send, logs, suppressions, scopes, senders, signed events.

It judges a request as SendGrid does, at once, and keeps what it accepts. What the recipients would read, each
personalization's substitutions made, is worked out when somebody looks at `accepted`. Pages under www.twilio.com/docs/sendgrid/api-reference: mail-send/mail-send,
mail-send/errors, email-logs, suppressions-global-suppressions and its neighbours,
how-to-use-the-sendgrid-v3-api/rate-limits.

Where SendGrid's own way is not known, this one is the stricter: it takes no address twice in one request.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import select
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outreach.testing import Fault, Faults, Lag

KEY = "SG.a-key-that-only-the-fake-knows"
MOST = 1000  # personalizations, and recipients
MOST_BYTES = 30 * 1024 * 1024
MOST_OF_A_PERSONALIZATION = 10_000  # bytes of substitutions, and of custom arguments
NESTED = 4  # substitutions in substitutions
MOST_SUPPRESSIONS = 500  # entries of a page
SUPPRESSIONS = ("unsubscribes", "spam_reports", "bounces", "invalid_emails", "blocks")
LEDGER = "/_accepted"
RESERVED = frozenset(
    [
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    ]
)
_EMAIL = re.compile(r"[!#-'*+/-9=?A-Z^-~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
JSON, HTML = "application/json", "text/html"


@dataclass(frozen=True)
class Recorded:
    """One request as it came."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Mail:
    """One accepted message, as its recipient would read it."""

    public_id: str  # the custom argument `outreach`
    to: str
    sender: str
    sender_name: str
    subject: str
    text: str
    html: str
    headers: Mapping[str, str]
    custom_args: Mapping[str, str]
    message_id: str  # sg_message_id; begins with the X-Message-Id of the request
    at: datetime
    dropped: str = ""  # why SendGrid will not even try to deliver it


@dataclass(frozen=True)
class Reply:
    """What a request is answered."""

    status: int
    body: bytes = b""
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False  # the connection is closed in place of it
    late: bool = False  # it comes later than anybody waits


class _Accepted(NamedTuple):
    """A request that was accepted, as it came."""

    number: str  # its X-Message-Id
    body: bytes
    at: datetime
    dropped: str


class FakeSendGrid:
    """
    The server, as a context manager; `url` is what `base_url` must be.

    `senders` are the addresses that are verified, `domains` those authenticated; both None: whoever asks.
    `faults` has one entry for each request to come; `list_faults`, if given, those for reading ones.
    The logs have what is accepted after `lag` lists that could have held it (None: after `catch_up`), and not at
    all with `logs=False`, as an account or key that may not read them.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        faults: Faults | Iterable[Fault | None] = (),
        list_faults: Faults | None = None,
        lag: int | None = 0,
        logs: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        api_key: str = KEY,
        scopes: Sequence[str] = ("mail.send", "sender_verification_eligible"),
        senders: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.faults = faults if isinstance(faults, Faults) else Faults(faults)
        self.list_faults = list_faults or self.faults
        self.logs = logs
        self.clock = clock
        self.requests: list[Recorded] = []
        self.most_at_once = 0
        # Called in the request's own thread; what it gives back, if anything, is answered in place of all else.
        self.on_request: Callable[[Recorded], Reply | None] = lambda _: None
        self.api_key = api_key
        self._scopes, self._senders, self._domains = scopes, senders, domains
        self._most_bytes = most_bytes
        self._mails: list[Mail] = []
        self._by_id: dict[str, Mail] = {}
        self._by_recipient: dict[str, list[Mail]] = {}
        self._lag = Lag(lag)
        self._suppressed: dict[str, list[dict[str, Any]]] = {}
        self._unread: deque[_Accepted] = deque()
        self._counts: Counter[str] = Counter()
        self._at_once = 0
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.RLock()
        self._left: int | None = None
        self._resets_at = 0
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), self)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> FakeSendGrid:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def public_key(self) -> str:
        """The key that events are signed with, as SendGrid shows it."""
        der = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    @property
    def environment(self) -> dict[str, str]:
        """The secrets of whoever sends through it."""
        return {"SENDGRID_API_KEY": self.api_key, "SENDGRID_WEBHOOK_KEY": self.public_key}

    @property
    def accepted(self) -> list[Mail]:
        """Every message accepted so far, in the order of the requests and their personalizations."""
        with self._lock:
            while self._unread:
                for mail in _mails(self._unread.popleft()):
                    self._mails.append(mail)
                    self._by_id[mail.message_id] = mail
                    self._by_recipient.setdefault(mail.to, []).append(mail)
                    self._lag.accept(mail.message_id)
            return self._mails

    def accepted_count(self, public_id: str) -> int:
        """How many times a message with this id of ours was accepted."""
        with self._lock:
            return self._counts[public_id]

    def accepted_by_public_id(self) -> Counter[str]:
        """How often each message was accepted, by our own id; those without one are together under an empty id."""
        with self._lock:
            return Counter(self._counts)

    def accepted_by_text(self) -> Counter[tuple[str, str]]:
        """The same by recipient and text (of a message in HTML alone, that)."""
        return Counter((mail.to, mail.text or mail.html) for mail in list(self.accepted))

    def catch_up(self) -> None:
        """Have everything accepted so far in the logs."""
        with self._lock:
            _ = self.accepted  # read, so that it is known
            self._lag.catch_up()

    def suppress(self, kind: str, email: str, at: datetime, **more: Any) -> None:
        """
        Put an address on a suppression list: one of SUPPRESSIONS, or `groups` for unsubscribe groups.

        `more` are further fields of the entry, such as the `status` of a bounce.
        """
        entry: dict[str, Any] = {"created": int(at.timestamp()), "email": email, **more}
        if kind == "groups":
            entry = {"group_id": 1, "group_name": "News", "created_at": entry.pop("created"), **entry}
        elif kind not in SUPPRESSIONS:
            raise ValueError(f"{kind} is no list of SendGrid's")
        with self._lock:
            self._suppressed.setdefault(kind, []).append(entry)

    def limit(self, requests: int, resets_at: float) -> None:
        """Take only so many more requests to mail/send until that time (Unix seconds); then 429."""
        with self._lock:
            self._left, self._resets_at = requests, int(resets_at)

    # --- events --------------------------------------------------------------------------------------

    def event(self, mail: Mail, kind: str, **more: Any) -> dict[str, Any]:
        """A new event about an accepted message, as SendGrid would post it; `more` are further fields of it."""
        made = {
            "email": mail.to,
            "timestamp": int(time.time()),
            "smtp-id": f"<{mail.message_id.partition('.')[0]}@geopod-ismtpd-1>",
            "event": kind,
            "sg_event_id": secrets.token_urlsafe(24),
            "sg_message_id": mail.message_id,
            **_FURTHER.get(kind, {}),
            **mail.custom_args,
            **more,
        }
        with self._lock:
            self._events.setdefault(mail.message_id, []).append(made)
        return made

    def signed(self, body: bytes, at: float | None = None) -> dict[str, str]:
        """The headers that an events' request with this body has."""
        timestamp = str(int(time.time() if at is None else at))
        signature = self._private.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        return {
            "Content-Type": JSON,
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }

    def post(
        self, url: str, events: Sequence[Mapping[str, Any]], *, times: int = 1, backwards: bool = False
    ) -> list[int]:
        """Post signed events to a webhook, `times` over, last event first if `backwards`; gives each answer's status."""
        body = (json.dumps(list(reversed(events)) if backwards else list(events)) + "\r\n").encode()
        statuses = []
        for _ in range(times):
            request = urllib.request.Request(url, body, self.signed(body), method="POST")  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  the test's own address
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    statuses.append(error.code)
        return statuses

    # --- requests ------------------------------------------------------------------------------------

    def reply(self, request: Recorded) -> Reply:
        """Record a request, and answer it as SendGrid would, but for the fault whose turn it is."""
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reads = request.method == "GET" or request.path == "/v3/logs"
            faults = self.list_faults if reads else self.faults
            return self.on_request(request) or self._reply(request, faults.take())
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, request: Recorded, fault: Fault | None) -> Reply:
        if fault in _AT_ONCE:
            return _AT_ONCE[fault](request)
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _errors(401, ("The provided authorization grant is invalid, expired, or revoked", None))
        address = urlsplit(request.path)
        if (request.method, address.path) == ("POST", "/v3/mail/send"):
            answer = self._mail_send(request, fault)
        else:
            answer = self._look_up(request.method, address.path, parse_qs(address.query), request.body)
        if fault is Fault.BUSY_AFTER:
            return _busy(request)
        if fault is Fault.DROP_AFTER:
            return Reply(0, cut=True)
        return Reply(**{**vars(answer), "late": True}) if fault is Fault.SLOW else answer

    def _mail_send(self, request: Recorded, fault: Fault | None) -> Reply:
        limits = self._limits()
        if limits.get("X-RateLimit-Remaining") == "-1":
            return _too_many(request, {**limits, "X-RateLimit-Remaining": "0"})
        if len(request.body) > self._most_bytes:
            return Reply(413, b"<html><body><h1>413 Request Entity Too Large</h1></body></html>", HTML, limits)
        try:
            body = json.loads(request.body)
        except ValueError:
            return _errors(400, ("Bad Request", None))
        wrong = list(_wrong(body))
        if fault is Fault.BAD_ADDRESS and not wrong:
            wrong = [("Does not contain a valid address.", "personalizations.0.to.0.email")]
        if wrong:
            return _errors(400, *wrong, headers=limits)
        if not self._may_send(body["from"]["email"]):
            return _not_allowed(request)
        if body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"):
            return Reply(200, headers=limits)
        number = secrets.token_urlsafe(16)
        dropped = "Unsubscribed Address" if fault is Fault.OPTED_OUT else ""
        ids = [_public_id(one) for one in body["personalizations"]]
        with self._lock:
            self._unread.append(_Accepted(number, request.body, self.clock(), dropped))
            self._counts.update(ids)
        return Reply(202, headers={"X-Message-Id": number, **limits})

    def _limits(self) -> dict[str, str]:
        """The rate limit's headers, this request counted; -1: it is one too many."""
        with self._lock:
            if self._left is not None and time.time() >= self._resets_at:
                self._left = None
            if self._left is None:
                return {}
            self._left = max(self._left - 1, -1)
            return {
                "X-RateLimit-Limit": "100",
                "X-RateLimit-Remaining": str(self._left),
                "X-RateLimit-Reset": str(self._resets_at),
            }

    def _may_send(self, address: str) -> bool:
        if self._senders is None and self._domains is None:
            return True
        return address in (self._senders or ()) or address.rpartition("@")[2] in (self._domains or ())

    def _look_up(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> Reply:
        if (method, path) == ("GET", "/v3/scopes"):
            return _json({"scopes": list(self._scopes)})
        if (method, path) == ("GET", "/v3/verified_senders"):
            found = [{"id": n, "from_email": one, "verified": True} for n, one in enumerate(self._senders or (), 1)]
            return _json({"results": found})
        if (method, path) == ("GET", "/v3/whitelabel/domains"):
            asked = query.get("domain", [""])[0]
            known = [asked] if self._domains is None and self._senders is None else self._domains or ()
            return _json([{"id": n, "domain": one, "valid": True} for n, one in enumerate(known, 1) if asked in one])
        if path.partition("/v3/logs")[1] and not self.logs:
            return _errors(403, ("access forbidden", None))
        if (method, path) == ("GET", "/v3/asm/suppressions"):
            with self._lock:
                return _json(list(self._suppressed.get("groups", ())))
        if method == "GET" and path.startswith("/v3/suppression/"):
            return self._suppressions(path.removeprefix("/v3/suppression/"), query)
        if (method, path) == ("POST", "/v3/logs"):
            return self._logs(body)
        if method == "GET" and path.startswith("/v3/logs/"):
            return self._log(unquote(path.removeprefix("/v3/logs/")))
        return _errors(404, ("not found", None))

    # --- logs ----------------------------------------------------------------------------------------

    def _logs(self, body: bytes) -> Reply:
        """The messages that a query holds for, newest first."""
        try:
            asked = json.loads(body or b"{}")
            conditions = list(_conditions(asked.get("query", "")))
            limit = int(asked.get("limit", 10))
        except (ValueError, AttributeError):
            return _errors(400, ("invalid query", "query"))
        if not 1 <= limit <= MOST:
            return _errors(400, ("limit must be between 1 and 1000", "limit"))
        to = next((values[0] for name, sign, values in conditions if (name, sign) == ("to_email", "=")), None)
        with self._lock:
            mails = self.accepted if to is None else (self.accepted and self._by_recipient.get(to, []))
            found = [self._logged(mail) for mail in reversed(mails)]
        holding = [row for row in found if all(_holds(row, *condition) for condition in conditions)]
        with self._lock:
            shown = [row for row in holding if not self._lag.hides(row["sg_message_id"])]
        return _json({"messages": shown[:limit]})

    def _suppressions(self, kind: str, query: Mapping[str, list[str]]) -> Reply:
        """One page of a list: `limit` entries from `offset` on, of those between `start_time` and `end_time`."""
        if kind not in SUPPRESSIONS:
            return _errors(404, ("not found", None))
        try:
            given = {name: int(values[0]) for name, values in query.items() if name != "email"}
        except ValueError:
            return _errors(400, ("must be an integer", None))
        limit, offset = given.get("limit", MOST_SUPPRESSIONS), given.get("offset", 0)
        if not 1 <= limit <= MOST_SUPPRESSIONS or offset < 0:
            return _errors(400, ("limit must be between 1 and 500", "limit"))
        begin, end = given.get("start_time", 0), given.get("end_time", 2**40)
        with self._lock:
            found = [one for one in self._suppressed.get(kind, ()) if begin <= one["created"] <= end]
        return _json(found[offset : offset + limit])

    def _logged(self, mail: Mail) -> dict[str, str]:
        kinds = {event["event"] for event in self._events.get(mail.message_id, ())}
        status = next((name for kind, name in _STATUSES if kind in kinds), "processed")
        return {
            "from_email": mail.sender,
            "sg_message_id": mail.message_id,
            "subject": mail.subject,
            "to_email": mail.to,
            "status": "dropped" if mail.dropped else status,
            "reason": mail.dropped,
            "sg_message_id_created_at": mail.at.isoformat().replace("+00:00", "Z"),
        }

    def _log(self, message_id: str) -> Reply:
        with self._lock:
            mail = self._by_id.get(message_id) if self.accepted else None
            if mail is None:
                return _errors(404, ("message not found", None))
            summary = self._logged(mail)
            events = [
                {**{k: v for k, v in event.items() if k not in mail.custom_args}, "custom_args": dict(mail.custom_args)}
                for event in self._events.get(message_id, ())
            ]
        kept = ("from_email", "sg_message_id", "subject", "to_email", "status")
        details = {"api_key_id": "fake", "client_ip": "127.0.0.1", "custom_args": dict(mail.custom_args)}
        return _json({**{name: summary[name] for name in kept}, **details, "events": events[-100:]})


# --- answers -------------------------------------------------------------------------------------------


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), JSON, headers or {})


def _errors(status: int, *errors: tuple[str, str | None], headers: Mapping[str, str] | None = None) -> Reply:
    """SendGrid's own form of errors."""
    found = [{"message": message, "field": name, "help": None} for message, name in errors]
    return _json({"errors": found}, status, headers)


def _too_many(_: Recorded, headers: Mapping[str, str] | None = None) -> Reply:
    in_a_minute = str(int(time.time()) + 60)
    told = {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": in_a_minute,
        "Retry-After": "60",
    }
    return _errors(429, ("too many requests", None), headers=told if headers is None else headers)


def _busy(_: Recorded) -> Reply:
    return _json({"errors": [{"message": "internal server error"}]}, 500)


def _not_allowed(_: Recorded) -> Reply:
    text = (
        "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved."
    )
    return _errors(403, (text, "from"))


def _unheard_of(_: Recorded) -> Reply:
    return _errors(418, ("something that no page describes", None))


_AT_ONCE = {
    Fault.TOO_MANY: _too_many,
    Fault.BUSY_BEFORE: _busy,
    Fault.DROP_BEFORE: lambda _: Reply(0, cut=True),
    Fault.NOT_ALLOWED: _not_allowed,
    Fault.UNHEARD_OF: _unheard_of,
}
_FURTHER: dict[str, dict[str, Any]] = {
    "processed": {},
    "delivered": {"response": "250 OK", "ip": "127.0.0.1", "tls": 1},
    "deferred": {"response": "400 try again later", "attempt": "1"},
    "bounce": {
        "type": "bounce",
        "status": "5.1.1",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist",
        "bounce_classification": "Invalid Address",
    },
    "dropped": {"reason": "Bounced Address", "status": "5.0.0"},
    "open": {"useragent": "Mozilla/5.0", "ip": "127.0.0.1"},
    "click": {"useragent": "Mozilla/5.0", "ip": "127.0.0.1", "url": "https://shop.example/"},
}
_STATUSES = (("bounce", "bounced"), ("dropped", "dropped"), ("click", "delivered"), ("open", "delivered"), ("delivered", "delivered"), ("deferred", "deferred"))  # fmt: skip


# --- what SendGrid finds wrong -------------------------------------------------------------------------


def _wrong(body: Any) -> Iterator[tuple[str, str | None]]:
    """Each error of a mail/send body: its message and its field, in SendGrid's words where its page gives them."""
    if not isinstance(body, dict):
        yield "Bad Request", None
        return
    personalizations = body.get("personalizations")
    if not isinstance(personalizations, list) or not personalizations:
        yield "You must have at least one personalization.", "personalizations"
        return
    if len(personalizations) > MOST:
        yield (
            f"The personalization block is limited to 1000 personalizations per API request. You have provided {len(personalizations)} personalizations.",
            "personalizations",
        )
        return
    seen: set[str] = set()
    for place, one in enumerate(personalizations):
        yield from _wrong_personalization(one, f"personalizations.{place}", seen)
    yield from _wrong_sender(body.get("from"))
    yield from _wrong_content(body)
    yield from _wrong_headers(body.get("headers"), "headers")


def _wrong_personalization(one: Any, name: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    recipients = one.get("to") if isinstance(one, dict) else None
    if not isinstance(recipients, list) or not recipients:
        yield "The to parameter is required for all personalization objects.", f"{name}.to"
        return
    for place, recipient in enumerate(recipients):
        email = recipient.get("email") if isinstance(recipient, dict) else None
        if not isinstance(email, str) or not _EMAIL.fullmatch(email):
            yield "Does not contain a valid address.", f"{name}.to.{place}.email"
        elif email.lower() in seen:
            yield "Each unique email address in the personalizations array should only be included once.", name
        else:
            seen.add(email.lower())
    if "subject" in one and not (isinstance(one["subject"], str) and one["subject"]):
        yield "The subject must be a string at least one character in length.", f"{name}.subject"
    if isinstance(one.get("subject"), str) and ("\n" in one["subject"] or "\r" in one["subject"]):
        yield "The subject must be one line.", f"{name}.subject"
    for part in ("substitutions", "custom_args"):
        pairs = one.get(part, {})
        if not isinstance(pairs, dict) or any(not isinstance(value, str) for value in pairs.values()):
            yield f"The {part} must be an object of strings.", f"{name}.{part}"
        elif pairs and _over(MOST_OF_A_PERSONALIZATION, *pairs, *pairs.values()):
            yield f"The {part} may not exceed 10000 bytes.", f"{name}.{part}"
    if one.get("headers"):
        yield from _wrong_headers(one["headers"], f"{name}.headers")


def _wrong_sender(sender: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(sender, dict) or not isinstance(sender.get("email"), str):
        yield "The from object must be provided for every email send.", "from.email"
    elif not _EMAIL.fullmatch(sender["email"]):
        yield "The from email does not contain a valid address.", "from.email"


def _wrong_content(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    subjects = [body, *body["personalizations"]]
    if not body.get("subject") and not all(isinstance(one, dict) and one.get("subject") for one in subjects[1:]):
        yield (
            "The subject is required. You can get around this requirement if you use a template with a subject defined or if every personalization has a subject defined.",
            "subject",
        )
    content = body.get("content")
    if not isinstance(content, list) or not content:
        yield "Unless a valid template_id is provided, the content parameter is required.", "content"
        return
    for place, part in enumerate(content):
        value = part.get("value") if isinstance(part, dict) else None
        if not isinstance(value, str) or not value:
            yield "The content value must be a string at least one character in length.", f"content.{place}.value"
    kinds = [part.get("type") for part in content if isinstance(part, dict)]
    if kinds not in (["text/plain"], ["text/html"], ["text/plain", "text/html"]):
        yield "If present, text/plain and text/html may only be provided once. text/plain must be first.", "content"


def _wrong_headers(headers: Any, name: str) -> Iterator[tuple[str, str]]:
    for key, value in (headers or {}).items():
        if key.lower() in RESERVED:
            yield f"The header {key.lower()} is reserved.", name
        if not (isinstance(value, str) and value.isascii() and value.isprintable() and _is_header_name(key)):
            yield "A header must be one line of ASCII.", name


@lru_cache(maxsize=256)
def _is_header_name(text: str) -> bool:
    return re.fullmatch(r"[!-9;-~]+", text) is not None


def _over(most: int, *texts: str) -> bool:
    """Whether they have more bytes than that, in UTF-8; they are only counted where their letters do not tell."""
    letters = sum(map(len, texts))
    if letters * 4 <= most or letters > most:
        return letters > most
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts) > most


# --- what a recipient reads ----------------------------------------------------------------------------


def _mails(accepted: _Accepted) -> Iterator[Mail]:
    body = json.loads(accepted.body)
    content = {part["type"]: part["value"] for part in body["content"]}
    for place, one in enumerate(body["personalizations"]):
        pairs = one.get("substitutions") or {}
        yield Mail(
            public_id=_public_id(one),
            to=one["to"][0]["email"],
            sender=body["from"]["email"],
            sender_name=body["from"].get("name", ""),
            subject=_substituted(one.get("subject") or body["subject"], pairs),
            text=_substituted(content.get("text/plain", ""), pairs),
            html=_substituted(content.get("text/html", ""), pairs),
            headers={**(body.get("headers") or {}), **(one.get("headers") or {})},
            custom_args=one.get("custom_args") or {},
            message_id=f"{accepted.number}.recvd-fake-{place}",
            at=accepted.at,
            dropped=accepted.dropped,
        )


def _public_id(personalization: Mapping[str, Any]) -> str:
    arguments = personalization.get("custom_args") or {}
    found: str = arguments.get("outreach", "")
    return found


def _substituted(text: str, pairs: Mapping[str, str]) -> str:
    """With every tag replaced, also in what replaced one: up to four deep, as SendGrid does it."""
    for _ in range(NESTED):
        before = text
        for tag, value in pairs.items():
            text = text.replace(tag, value)
        if text == before:
            break
    return text


# --- what a query of the logs says ---------------------------------------------------------------------

_CONDITION = re.compile(
    r"""\s*(?P<name>\w+)\s*(?P<sign>>=|<=|=|>|<|IN)\s*
    (?:\(\s*(?P<many>(?:'[^']*'|"[^"]*")(?:\s*,\s*(?:'[^']*'|"[^"]*"))*)\s*\)|(?:TIMESTAMP\s+)?(?P<one>'[^']*'|"[^"]*"))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_SIGNS = {
    "sg_message_id": {"="},
    "subject": {"="},
    "to_email": {"="},
    "status": {"IN"},
    "reason": {"="},
    "sg_message_id_created_at": {">", "<", ">=", "<="},
}


def _conditions(query: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Name, sign and values of each condition; ValueError when it is none that SendGrid knows."""
    at = 0
    while at < len(query):
        found = _CONDITION.match(query, at)
        if found is None or found["sign"].upper() not in _SIGNS.get(found["name"], ()):
            raise ValueError("not a condition")
        values = re.findall(r"'([^']*)'|\"([^\"]*)\"", found["many"] or found["one"])
        yield found["name"], found["sign"].upper(), tuple(one or other for one, other in values)
        at = found.end()
        if at < len(query):
            if query[at : at + 3].upper() != "AND":
                raise ValueError("not joined by AND")
            at += 3


def _holds(row: Mapping[str, str], name: str, sign: str, values: tuple[str, ...]) -> bool:
    if sign in ("=", "IN"):
        return row[name] in values
    there, asked = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (row[name], values[0]))
    return {">": there > asked, "<": there < asked, ">=": there >= asked, "<=": there <= asked}[sign]


# --- HTTP ----------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeSendGrid) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is none of our troubles, and anything else is seen by its missing answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True
    wbufsize = -1  # one write an answer

    def do_POST(self) -> None:
        """Answer one request of any method."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path == LEDGER:
            self._send(_json(self.server.fake.accepted_by_public_id()))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Recorded(self.command, self.path, headers, self.rfile.read(length))
        reply = self.server.fake.reply(request)
        if reply.late:
            self._wait_until_nobody_does()
        if reply.late or reply.cut:
            self.close_connection = True
            return
        self._send(reply)

    do_GET = do_POST  # noqa: N815

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {
            "Content-Type": reply.kind,
            "Content-Length": str(len(reply.body)),
            **reply.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.fake.clock().timestamp() if timestamp is None else timestamp, usegmt=True)

    def _wait_until_nobody_does(self) -> None:
        """Until the client hangs up, or the fake is closed."""
        while not self.server.fake.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self.connection.recv(1):
                return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: what came stands in `requests`."""
