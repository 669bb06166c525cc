"""
SMS, WhatsApp and Messenger by Twilio.

    api          the official SDK's client, made safe: it repeats nothing, ends every wait, logs nothing
    codes        what Twilio's codes mean for a message
    lookup       what Twilio has for a recipient
    opt_outs     who wrote to our senders that they want no more
    webhooks     delivery reports and replies, signed
    checking     what `outreach doctor` asks

Twilio has no idempotency key for messages (its OpenAPI description of Messages has none), so each
message is posted once. Its answer decides: a 201 is acceptance, a 4xx of the table is certain refusal,
no connection is certainly nothing; all else is in doubt until a delivery report with our own id, which
the report's address carries, or the list of messages settles it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import quote, urlsplit

from requests.exceptions import RequestException
from twilio.base.exceptions import TwilioRestException, TwilioServiceException
from twilio.rest import Client

from outreach.channels import (
    Blame,
    Doubtful,
    Finding,
    InboundEvent,
    Kept,
    OptOut,
    Outcome,
    Outgoing,
    Receipt,
    asking,
)
from outreach.channels.asking import Heard
from outreach.channels.twilio import lookup, opt_outs, webhooks
from outreach.channels.twilio.api import Clients, is_public, never_left
from outreach.channels.twilio.checking import findings
from outreach.channels.twilio.codes import OUTSIDE_THE_WINDOW, Meaning, of_failure, of_refusal
from outreach.errors import ChannelError
from outreach.settings import Settings

PREFIXES = {"sms": "", "whatsapp": "whatsapp:", "messenger": "messenger:"}
PARALLEL = 8
LONGEST_TEXT = 1600  # www.twilio.com/docs/api/errors/21617
LONGEST_WAIT = 36_000  # seconds, of ValidityPeriod: www.twilio.com/docs/messaging/api/message-resource
CLOCK_BEHIND = 60  # seconds: how old a message's `at` may be, since the dispatcher's clock moves on in whole minutes
STATUS_PATH = "/webhooks/twilio/status"
_FAILED = frozenset({"failed", "undelivered", "canceled"})


@dataclass(frozen=True)
class _Result:
    """What became of one message; `wrong` says what to mend when no other would fare better."""

    receipt: Receipt
    wrong: str = ""


@dataclass
class _Round:
    """One call of `send`: what it has learnt so far."""

    began: float = field(default_factory=lambda: monotonic())
    slowed: dict[str, timedelta | None] = field(default_factory=dict)  # sender → Retry-After
    wrong: str = ""

    def learn(self, sender: str, result: _Result) -> Receipt:
        if result.receipt.blame is Blame.SENDER:
            self.slowed[sender] = result.receipt.retry_after
        self.wrong = self.wrong or result.wrong
        return result.receipt


class Twilio:
    """One of the channels sms, whatsapp and messenger, by Twilio's Messages."""

    def __init__(self, settings: Settings, name: str) -> None:
        channel = settings.channels[name]
        options = channel.options
        self.name = name
        self._token = settings.secrets.get("TWILIO_AUTH_TOKEN", "")
        self._account = settings.secrets.get("TWILIO_ACCOUNT_SID", "")
        if not self._token or not self._account:
            raise ChannelError(
                f"channels.{name}: set the environment variables TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
            )
        for variable, value in {"TWILIO_ACCOUNT_SID": self._account, "TWILIO_AUTH_TOKEN": self._token}.items():
            if not re.fullmatch("[!-~]+", value):  # no request could be written with it
                raise ChannelError(
                    f"channels.{name}: {variable} has a character that none of Twilio's has: copy it from Twilio's console again"
                )
        self._service: str = options.get("messaging_service", "")
        self._senders = (self._service,) if self._service else channel.senders
        self._parallel: int = options.get("parallel", PARALLEL)
        base_url: str = options.get("base_url", "")
        self._status_url = status_url(settings.public_url, reachable=bool(base_url) and not is_public(base_url))
        self._clients = Clients(self._account, self._token, channel.timeout, base_url)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Post each message once, at most `parallel` at a time; receipts come as the answers do.

        The batch is drawn by the caller's thread, one message for each request that is free. A sender
        that Twilio calls too fast gets no further request here; when all are, nothing more is drawn.

        Raises:
            ChannelError: no message could be sent before somebody changes something. What was under way
                has its receipt by then.
        """
        now, messages = _Round(), iter(batch)
        under_way: dict[Future[_Result], Outgoing] = {}
        with ThreadPoolExecutor(self._parallel, "twilio") as pool:
            while True:
                while len(under_way) < self._parallel and (message := self._next(messages, now)) is not None:
                    result = self._beforehand(message, now)
                    if result is None:
                        under_way[pool.submit(self._post, message, self._form(message, now))] = message
                    else:
                        yield now.learn(self._sender(message), result)
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    message = under_way.pop(future)
                    yield now.learn(self._sender(message), future.result())
        if now.wrong:
            raise ChannelError(f"channels.{self.name}: {now.wrong}")

    def verify(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:
        """Whether it is signed with TWILIO_AUTH_TOKEN, over the address and every parameter."""
        return webhooks.is_signed(self._token, url, headers, raw_body)

    def parse(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:  # noqa: ARG002
        """Delivery reports, and what people write, on any of Twilio's channels."""
        return webhooks.events(url, raw_body)

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        """
        The messages in Twilio's list for each recipient, in full: when each was made there, and what it says.

        Our own id is not among them: Twilio shows no address for reports (its description of Messages).

        Raises:
            ChannelError: Twilio does not take the credentials.
        """
        try:
            yield from asking.look_up(doubtful, self._has, self._parallel)
        except ChannelError as error:
            raise ChannelError(f"channels.{self.name}: {error}") from error

    def opt_outs(self, since: datetime) -> Iterator[OptOut]:
        """
        Who wrote one of the stop words to our senders since then, and nothing else.

        Twilio does not list the numbers that it blocks for us, so these are read from the messages people wrote.

        Raises:
            ChannelError: Twilio does not take the credentials, or did not give the whole list.
        """
        with self._clients.borrow() as (client, _):
            try:
                yield from opt_outs.since(client, self._account, self.name, self._inboxes(client), since)
            except ChannelError as error:
                raise ChannelError(f"channels.{self.name}: {error}") from error

    def check(self) -> Iterator[Finding]:
        """Whether the account is active, the sender is its own, and delivery reports can come back."""
        with self._clients.borrow() as (client, _):
            yield from findings(client, self.name, self._account, self._senders, self._service)
        yield self._reports()

    def close(self) -> None:
        """Close every kept connection."""
        self._clients.close()

    # --- before the request ----------------------------------------------------------------------

    def _next(self, messages: Iterator[Outgoing], now: _Round) -> Outgoing | None:
        over = now.wrong or now.slowed.keys() >= set(self._senders)
        return None if over else next(messages, None)

    def _sender(self, message: Outgoing) -> str:
        return self._service or message.sender

    def _beforehand(self, message: Outgoing, now: _Round) -> _Result | None:
        """What is certain without asking Twilio; None: ask."""
        sender, content = self._sender(message), message.content
        if sender in now.slowed:
            detail = "this sender was too fast a moment ago"
            return _Result(_receipt(message, Outcome.LATER, detail, Blame.SENDER, retry_after=now.slowed[sender]))
        if _seconds_left(message, now) < 1:
            return _Result(_receipt(message, Outcome.LATER, "its time was over before it could leave"))
        if self._is_free_text(message):
            if len(content.text) > LONGEST_TEXT:
                detail = f"the text is longer than {LONGEST_TEXT} characters"
                return _Result(_receipt(message, Outcome.REFUSED, detail, Blame.MESSAGE))
            if not content.text.strip():
                return _Result(_receipt(message, Outcome.REFUSED, "there is no text", Blame.MESSAGE))
        elif not content.content_sid:
            detail = "outside WhatsApp's 24-hour window only an approved template may be sent: name its `content_sid` in the template's front matter"
            return _Result(_receipt(message, Outcome.LATER, detail, Blame.CAMPAIGN))
        return None

    def _is_free_text(self, message: Outgoing) -> bool:
        """WhatsApp takes free text within 24 hours of what the customer wrote: www.twilio.com/docs/whatsapp/key-concepts."""
        return self.name != "whatsapp" or (message.conversation and bool(message.content.text.strip()))

    def _form(self, message: Outgoing, now: _Round) -> dict[str, Any]:
        """The parameters of POST Messages. No MaxPrice: Twilio ignores it since June 2024."""
        content = message.content
        form: dict[str, Any] = {"to": self._addressed(message.address)}
        if self._service:
            form["messaging_service_sid"] = self._service
        else:
            form["from_"] = self._addressed(message.sender)
        if self._is_free_text(message):
            form["body"] = content.text
        else:
            form["content_sid"] = content.content_sid
            if content.variables:
                form["content_variables"] = json.dumps(dict(content.variables), ensure_ascii=False)
        if self._status_url:
            form["status_callback"] = f"{self._status_url}?m={quote(message.public_id, safe='')}"
        if message.valid_until is not None:
            form["validity_period"] = max(1, min(int(_seconds_left(message, now)), LONGEST_WAIT))
        return form

    def _addressed(self, address: str) -> str:
        prefix = PREFIXES[self.name]
        return address if address.startswith(prefix) else prefix + address

    # --- reading --------------------------------------------------------------------------------------

    def _has(self, group: Sequence[Doubtful]) -> Heard:
        with self._clients.borrow() as (client, _):
            addresses = lookup.spellings(self._addressed(group[0].address))
            return lookup.ask(client, self._account, addresses, group)

    def _inboxes(self, client: Client) -> Sequence[str]:
        """The addresses that people write to."""
        if self._service:
            return opt_outs.senders_of(client, self._service, PREFIXES[self.name])
        return [self._addressed(sender) for sender in self._senders]

    # --- the request and its answer ---------------------------------------------------------------

    def _post(self, message: Outgoing, form: Mapping[str, Any]) -> _Result:
        """Post it, once; whatever happens has a result."""
        with self._clients.borrow() as (client, http):
            try:
                made = client.messages.create(**form)
            except (TwilioRestException, TwilioServiceException) as refusal:
                meaning = _known(message, form, refusal.code) or of_refusal(refusal.status, refusal.code)
                return _result(message, meaning, refusal.code, http.retry_after)
            except RequestException as error:
                why = type(error).__name__
                if never_left(error):
                    return _Result(_receipt(message, Outcome.LATER, f"no connection to Twilio ({why})", Blame.ROUTE))
                return _Result(_receipt(message, Outcome.DOUBT, f"Twilio did not answer ({why})"))
            except Exception as error:  # an answer that nobody foresaw must not take the other messages along
                detail = f"an answer that cannot be read ({type(error).__name__})"
                return _Result(_receipt(message, Outcome.DOUBT, detail))
        if str(made.status) in _FAILED:
            meaning = _known(message, form, made.error_code) or of_failure(made.error_code)
            return _result(message, meaning, made.error_code, None, made.sid)
        if not made.sid:
            return _Result(_receipt(message, Outcome.DOUBT, "an answer without an id"))
        return _Result(Receipt(message.public_id, Outcome.ACCEPTED, provider_id=made.sid))

    def _reports(self) -> Finding:
        if self._status_url and urlsplit(self._status_url).scheme == "https":
            text = f"delivery reports will be posted to {self._status_url}"
            return Finding(ok=True, text=text)
        if self._status_url:
            hint = "set `public_url` to an address that begins with https://"
            return Finding(
                ok=False, warning=True, text="delivery reports and replies would come unencrypted", hint=hint
            )
        return Finding(
            ok=False,
            warning=True,
            text="no delivery reports: Twilio cannot reach `public_url`",
            hint="set `public_url` to the https:// address that leads to outreach; its host may hold no underscore",
        )


def status_url(public_url: str, *, reachable: bool = False) -> str:
    """
    Where delivery reports shall go; empty where Twilio could not send them, and might refuse the message for it.

    `reachable`: what stands in for Twilio is on this machine, too.
    """
    host = urlsplit(public_url).hostname or ""
    if not host or "_" in host or not (reachable or is_public(public_url)):
        return ""
    return public_url.rstrip("/") + STATUS_PATH


def _seconds_left(message: Outgoing, now: _Round) -> float:
    """At least so long it may be delivered: by the message's own clock, and what has passed since."""
    if message.valid_until is None:
        return LONGEST_WAIT
    if message.at is None:
        return (message.valid_until - datetime.now(UTC)).total_seconds()
    return (message.valid_until - message.at).total_seconds() - (monotonic() - now.began) - CLOCK_BEHIND


def _known(message: Outgoing, form: Mapping[str, Any], code: int | None) -> Meaning | None:
    """What only the message itself can tell: free text may come a moment after its 24 hours."""
    if code != OUTSIDE_THE_WINDOW or "body" not in form:
        return None
    if message.channel == "whatsapp":  # by the next attempt its template goes
        return Meaning(Outcome.LATER, Blame.NOBODY, "the 24-hour window has just closed")
    return Meaning(Outcome.REFUSED, Blame.MESSAGE, "the customer wrote more than 24 hours ago")


def _result(
    message: Outgoing, meaning: Meaning, code: int | None, retry_after: timedelta | None, sid: str | None = None
) -> _Result:
    outcome, wrong = (Outcome.LATER, meaning.text) if meaning.outcome is None else (meaning.outcome, "")
    retry_after = retry_after if outcome is Outcome.LATER else None
    known = "" if code is None else str(code)
    detail = f"Twilio {known}: {meaning.text}" if known else f"Twilio: {meaning.text}"
    receipt = _receipt(message, outcome, detail, meaning.blame, code=known, retry_after=retry_after, sid=sid)
    return _Result(receipt, f"{wrong} (Twilio {known})" if wrong else "")


def _receipt(
    message: Outgoing,
    outcome: Outcome,
    detail: str,
    blame: Blame = Blame.NOBODY,
    *,
    code: str = "",
    retry_after: timedelta | None = None,
    sid: str | None = None,
) -> Receipt:
    return Receipt(message.public_id, outcome, sid, detail, retry_after, blame, code)
