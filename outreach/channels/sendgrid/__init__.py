"""
SendGrid: e-mail through v3 mail/send, by the official SDK, and its signed event webhook.

    requests   from messages to the JSON of requests
    answers    what SendGrid's answers mean: the table of statuses
    events     what it tells us afterwards: signatures, kinds of events
    findings   what `outreach doctor` says of the account

One request carries one message, or with `batch: N` up to N whose content allows it. It is accepted or refused as
a whole, so the messages in doubt after a lost answer are exactly those of one request. SendGrid knows no
idempotency key: nothing whose fate is unknown is ever posted again.

Only our opaque id leaves beside the message itself, as the custom argument `outreach`, which events and logs give
back: SendGrid does not keep categories and arguments as personal data
(www.twilio.com/docs/sendgrid/for-developers/tracking-events/event).
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from http.client import HTTPException
from itertools import chain, islice
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from python_http_client import Client  # type: ignore[import-untyped]
from python_http_client.exceptions import HTTPError  # type: ignore[import-untyped]
from sendgrid import SendGridAPIClient

from outreach.channels import Finding, InboundEvent, Outcome, Outgoing, Receipt
from outreach.channels.sendgrid import events, findings
from outreach.channels.sendgrid.answers import Answer, Verdict, each, too_fast, verdict_of
from outreach.channels.sendgrid.requests import (
    MOST_PERSONALIZATIONS,
    Prepared,
    body_of,
    prepare,
    read_sender,
    requests_of,
)
from outreach.errors import ChannelError
from outreach.settings import Settings

HOSTS = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}
HAND_OVER_SECONDS = 20.0  # a message is handed over no later than this after it was drawn, or not at all

# The SDK logs whole requests, addresses and the key included, when debugging is on.
logging.getLogger("python_http_client").setLevel(logging.INFO)


class SendGrid:
    """A channel for e-mail; its settings under `channels.email`, its key in SENDGRID_API_KEY."""

    def __init__(self, settings: Settings, name: str) -> None:
        configured = settings.channels[name]
        options = configured.options
        self._batch = min(int(options.get("batch", 1)), MOST_PERSONALIZATIONS)
        self._sandbox = bool(options.get("sandbox", False))
        try:
            self._senders = {sender: read_sender(sender) for sender in configured.senders}
        except ValueError:
            text = f"channels.{name}.from is not an address such as `Shop <hello@shop.example>`"
            raise ChannelError(text) from None
        self._webhook_key = settings.secrets.get("SENDGRID_WEBHOOK_KEY", "")
        host = str(options.get("base_url") or HOSTS[options.get("region", "global")]).rstrip("/")
        self._api = _client(_api_key(settings), host, configured.timeout)
        self._closed_until = 0.0  # SendGrid takes no request before that (monotonic)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Hand over the batch, at most `batch` messages drawn before each request.

        Of a request that is refused for some of its messages nothing was accepted: the others are handed over
        again at once. When SendGrid asks for a pause, what was drawn is to be tried later, and no more is drawn.

        Raises:
            ChannelError: the key, its permissions, the sender or the host is wrong.
        """
        messages = iter(batch)
        while drawn := list(islice(messages, 1 if self._pause() else self._batch)):
            goes_on = yield from self._hand_over(drawn)
            if not goes_on:
                return

    def verify(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:  # noqa: ARG002
        """Whether SendGrid signed this request, within the last 25 hours; False also where no key is set."""
        return events.is_signed(self._webhook_key, headers, raw_body)

    def parse(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:  # noqa: ARG002
        """The events that are facts about messages; ValueError when it is not a list of events."""
        return events.read_events(raw_body)

    def check(self) -> Iterator[Finding]:
        """Look at the key and its permissions, the senders and the webhook's key; sends nothing."""
        scopes = self._get(self._api.scopes)
        yield findings.of_key(scopes)
        if scopes.status == 200:
            verified = self._get(self._api.verified_senders)
            for sender in self._senders.values():
                domain = sender.address.rpartition("@")[2]
                domains = self._get(self._api.whitelabel.domains, {"domain": domain})
                yield findings.of_sender(sender.address, domains, verified)
        if self._sandbox:
            yield findings.SANDBOX
        yield findings.of_webhook_key(self._webhook_key)

    def close(self) -> None:
        """Nothing is open: the SDK makes a connection for each request."""

    def _hand_over(self, drawn: Sequence[Outgoing]) -> Generator[Receipt, None, bool]:
        """A receipt for each; whether more may be drawn."""
        begun = _clocks()
        prepared = [prepare(message, self._sender_of(message)) for message in drawn]
        yield from (one for one in prepared if isinstance(one, Receipt))
        waiting: deque[Sequence[Prepared]] = deque(requests_of(one for one in prepared if isinstance(one, Prepared)))
        while waiting:
            if pause := self._pause():
                yield from too_fast(chain(*waiting), pause).receipts
                return False
            if any(now - then > HAND_OVER_SECONDS for now, then in zip(_clocks(), begun, strict=True)):
                yield from each(chain(*waiting), Outcome.LATER, "its time to be handed over ran out")
                return True
            verdict = self._ask(waiting.popleft())
            yield from verdict.receipts
            if verdict.wrong:
                yield from each(chain(*waiting), Outcome.LATER, verdict.wrong)
                raise ChannelError(verdict.wrong)
            waiting.extendleft(reversed(verdict.again))
        return self._pause() is None

    def _ask(self, request: Sequence[Prepared]) -> Verdict:
        verdict = verdict_of(request, self._post(request), sandbox=self._sandbox)
        if verdict.wait is not None:
            self._closed_until = time.monotonic() + verdict.wait.total_seconds()
        return verdict

    def _post(self, request: Sequence[Prepared]) -> Answer:
        """
        The answer, or what is known without one.

        urllib makes a URLError of what fails before the request is written whole, and of nothing that fails later
        (`urllib.request.AbstractHTTPHandler.do_open`).
        """
        body = body_of(request, self._senders[request[0].sender], sandbox=self._sandbox)
        try:
            return _answer(self._api.mail.send.post(request_body=body))
        except HTTPError as error:
            return _answer(error)
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                return Answer(not_taken=True, wrong=True, why="the certificate of SendGrid's host is not valid")
            return Answer(not_taken=True, why=f"SendGrid cannot be reached: {_why(error.reason)}")
        except (OSError, HTTPException) as error:
            return Answer(why=f"SendGrid's answer did not come: {_why(error)}")

    def _get(self, resource: Any, query: Mapping[str, str] | None = None) -> Answer:
        try:
            return _answer(resource.get(query_params=query))
        except HTTPError as error:
            return _answer(error)
        except (OSError, HTTPException) as error:
            return Answer(why=_why(error.reason if isinstance(error, URLError) else error))

    def _sender_of(self, message: Outgoing) -> str:
        """The message's own sender if the settings name it, else the first of theirs."""
        return message.sender if message.sender in self._senders else next(iter(self._senders))

    def _pause(self) -> timedelta | None:
        """How long SendGrid still wants no request; None: it takes them."""
        left = self._closed_until - time.monotonic()
        return timedelta(seconds=left) if left > 0 else None


def _api_key(settings: Settings) -> str:
    key = settings.secrets.get("SENDGRID_API_KEY", "").strip()
    if not key:
        raise ChannelError("the environment variable SENDGRID_API_KEY is not set, and sendgrid needs it")
    if not re.fullmatch(r"[!-~]+", key):  # http.client would show it in an error's text
        raise ChannelError("SENDGRID_API_KEY holds characters that no key has")
    return key


class _Straight(Client):  # type: ignore[misc]
    """
    The SDK's client, but that no answer is followed elsewhere.

    urllib would repeat the key at whatever host a redirect names, and what failed there would look as if the
    first host had not been reached.
    """

    opener: OpenerDirector

    def _build_client(self, name: str | None = None) -> _Straight:
        path = [*self._url_path, name] if name else self._url_path
        made = _Straight(self.host, self.request_headers, self._version, path, timeout=self.timeout)
        made.opener = self.opener
        return made

    def _make_request(self, opener: OpenerDirector, request: Request, timeout: float | None = None) -> Any:  # noqa: ARG002
        return super()._make_request(self.opener, request, timeout)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an answer like any other."""


def _client(key: str, host: str, timeout: float) -> Any:
    api = SendGridAPIClient(key, host=host)
    client = _Straight(host, api.client.request_headers, version=3, timeout=timeout)  # the SDK's own waits for ever
    where = urlsplit(host)
    handlers: list[Any] = [_NoRedirects()]
    if where.scheme == "https":  # one context for all: reading the authorities takes 40 ms
        handlers.append(HTTPSHandler(context=ssl.create_default_context()))
    if where.hostname in ("127.0.0.1", "localhost", "::1"):  # where no proxy leads
        handlers.append(ProxyHandler({}))
    client.opener = build_opener(*handlers)
    return client


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, response.body or b"", response.headers or {})


def _why(error: object) -> str:
    """Never more than the system's own words: an exception's text may hold anything."""
    return getattr(error, "strerror", None) or type(error).__name__


def _clocks() -> tuple[float, float]:
    """The wall clock, and the clock that goes on while the machine sleeps: one of them sees any suspension."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time(), time.clock_gettime(boot) if boot is not None else time.monotonic()
