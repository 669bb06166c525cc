"""
SendGrid: e-mail through v3 mail/send, by the official SDK, and its signed event webhook.

    requests   from messages to the JSON of requests
    api        the SDK's client, made safe
    answers    what SendGrid's answers mean: the table of statuses
    events     what it tells us afterwards: signatures, kinds of events
    lookup     what it has for a recipient
    opt_outs   whom it will not write to any more
    findings   what `outreach doctor` says of the account

One request carries one message, or with `batch: N` up to N whose content allows it; `parallel` of them are made at
once, each on a connection of its own. A request is accepted or refused as a whole, so the messages in doubt after a
lost answer are exactly those of one request. SendGrid knows no idempotency key: nothing whose fate is unknown is ever
posted again.

Only our opaque id leaves beside the message itself, as the custom argument `outreach`, which events and logs give
back: SendGrid does not keep categories and arguments as personal data
(www.twilio.com/docs/sendgrid/for-developers/tracking-events/event).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from outreach import clocks
from outreach.channels import Doubtful, Finding, InboundEvent, Kept, OptOut, Outcome, Outgoing, Receipt, asking
from outreach.channels.asking import Heard
from outreach.channels.sendgrid import api, events, findings, lookup, opt_outs
from outreach.channels.sendgrid.answers import Verdict, each, too_fast, verdict_of
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
PARALLEL = 8
HAND_OVER_SECONDS = 20.0  # a message is handed over no later than this after it was drawn, or not at all


class _Request(NamedTuple):
    """Messages that leave together, and when they were drawn."""

    messages: Sequence[Prepared]
    drawn: tuple[float, float]


@dataclass
class _Round:
    """One call of `send`: what still waits for a free worker, and whether anything more is drawn."""

    waiting: deque[_Request] = field(default_factory=deque)
    over: bool = False
    wrong: str = ""


class SendGrid:
    """A channel for e-mail; its settings under `channels.email`, its key in SENDGRID_API_KEY."""

    def __init__(self, settings: Settings, name: str) -> None:
        configured = settings.channels[name]
        options = configured.options
        self._batch = min(int(options.get("batch", 1)), MOST_PERSONALIZATIONS)
        self._parallel = int(options.get("parallel", PARALLEL))
        self._sandbox = bool(options.get("sandbox", False))
        try:
            self._senders = {sender: read_sender(sender) for sender in configured.senders}
        except ValueError:
            text = f"channels.{name}.from is not an address such as `Shop <hello@shop.example>`"
            raise ChannelError(text) from None
        self._reply_to = settings.mailbox.reply_to if settings.mailbox else ""
        self._webhook_key = settings.secrets.get("SENDGRID_WEBHOOK_KEY", "")
        host = str(options.get("base_url") or HOSTS[options.get("region", "global")]).rstrip("/")
        self._api = api.client(_api_key(settings), host, configured.timeout)
        self._pool: ThreadPoolExecutor | None = None
        self._closed_until = 0.0  # SendGrid takes no request before that (monotonic)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Hand over the batch, at most `parallel` requests at a time; receipts come as the answers do.

        The batch is drawn by the caller's thread, at most `batch` messages for a request that is free. Of a request
        that is refused for some of its messages nothing was accepted: the others are handed over again at once. When
        SendGrid asks for a pause, what was drawn and has not left is to be tried later, and no more is drawn.

        Raises:
            ChannelError: the key, its permissions, the sender or the host is wrong. What was under way has its
                receipts by then.
        """
        now, messages = _Round(), iter(batch)
        pool = self._pool = self._pool or ThreadPoolExecutor(self._parallel, "sendgrid")
        under_way: dict[Future[Verdict], _Request] = {}
        try:
            while True:
                while len(under_way) < self._parallel and (request := (yield from self._next(messages, now))):
                    under_way[pool.submit(self._ask, request.messages)] = request
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield from self._learn(now, under_way.pop(future), future.result())
        finally:
            wait(under_way)  # whoever stops listening goes on only when nothing leaves any more
        if now.wrong:
            raise ChannelError(now.wrong)

    def verify(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:  # noqa: ARG002
        """Whether SendGrid signed this request, within the last 25 hours; False also where no key is set."""
        return events.is_signed(self._webhook_key, headers, raw_body)

    def parse(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:  # noqa: ARG002
        """The events that are facts about messages; ValueError when it is not a list of events."""
        return events.read_events(raw_body)

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        """
        The messages in SendGrid's Email Logs for each recipient and time, with our own ids.

        Where the account or the key has no logs, no answer is complete.

        Raises:
            ChannelError: SendGrid does not take the key.
        """
        yield from asking.look_up(doubtful, self._has, self._parallel)

    def opt_outs(self, since: datetime) -> Iterator[OptOut]:
        """
        Everybody on SendGrid's suppression lists since then: unsubscribes, spam reports, bounces, invalid addresses.

        Raises:
            ChannelError: SendGrid does not take the key, or did not give a whole list.
        """
        yield from opt_outs.since(self._api, since)

    def check(self) -> Iterator[Finding]:
        """Look at the key and its permissions, the senders and the webhook's key; sends nothing."""
        scopes = api.get(self._api.scopes)
        yield findings.of_key(scopes)
        if scopes.status == 200:
            verified = api.get(self._api.verified_senders)
            for sender in self._senders.values():
                domain = sender.address.rpartition("@")[2]
                domains = api.get(self._api.whitelabel.domains, {"domain": domain})
                yield findings.of_sender(sender.address, domains, verified)
        if self._sandbox:
            yield findings.SANDBOX
        yield findings.of_webhook_key(self._webhook_key)

    def close(self) -> None:
        """Let the threads go; no connection is open, for the SDK makes one for each request."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _next(self, messages: Iterator[Outgoing], now: _Round) -> Generator[Receipt, None, _Request | None]:
        """The next request to be made, if any; receipts for what is certain without one."""
        while True:
            while now.waiting:
                request = now.waiting.popleft()
                if now.wrong:
                    yield from each(request.messages, Outcome.LATER, now.wrong)
                elif pause := self._pause():
                    now.over = True
                    yield from too_fast(request.messages, pause).receipts
                elif clocks.elapsed(request.drawn) > HAND_OVER_SECONDS:
                    yield from each(request.messages, Outcome.LATER, "its time to be handed over ran out")
                else:
                    return request
            if now.over or now.wrong:
                return None
            at = clocks.read()
            drawn = list(islice(messages, 1 if self._pause() else self._batch))
            now.over = not drawn
            prepared = [prepare(message, self._sender_of(message)) for message in drawn]
            parts = requests_of(one for one in prepared if isinstance(one, Prepared))
            now.waiting.extend(_Request(part, at) for part in parts)
            yield from (one for one in prepared if isinstance(one, Receipt))

    def _ask(self, request: Sequence[Prepared]) -> Verdict:
        """Make the request, once; whatever happens has a verdict. Any thread may."""
        sender = self._senders[request[0].sender]
        try:
            body = body_of(request, sender, sandbox=self._sandbox, reply_to=self._reply_to)
        except Exception as error:  # a mistake of ours must not put in doubt what certainly did not leave
            return Verdict(each(request, Outcome.LATER, f"it cannot be written ({type(error).__name__})"))
        return verdict_of(request, api.post(self._api.mail.send, body), sandbox=self._sandbox)

    def _learn(self, now: _Round, request: _Request, verdict: Verdict) -> Sequence[Receipt]:
        if verdict.wait is not None:
            self._closed_until = max(self._closed_until, time.monotonic() + verdict.wait.total_seconds())
            now.over = True
        now.wrong = now.wrong or verdict.wrong
        now.waiting.extendleft(_Request(part, request.drawn) for part in reversed(verdict.again))
        return verdict.receipts

    def _has(self, group: Sequence[Doubtful]) -> Heard:
        return lookup.ask(self._api, group, batches=self._batch > 1)

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
