"""
Channels: how a rendered message leaves and what comes back, one file per provider, one row each in CHANNELS.

A channel draws the messages one by one and answers each with one Receipt. Only ChannelError may
cross this border: its configuration is wrong, and the campaign must stop. What a provider's codes
mean stands in one table in its file, each row with its source; a code that is not in it is in doubt,
never success.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Protocol

from outreach.errors import ChannelError
from outreach.render import Content
from outreach.setting_keys import plugged_in
from outreach.settings import Settings

AUTOMATIC = "automatic"  # the code of a reply that a machine wrote in somebody's name: nothing may answer it


class Outcome(StrEnum):
    ACCEPTED = "accepted"  # the provider has it; provider_id is its id
    REFUSED = "refused"  # for good, see `blame`
    LATER = "later"  # certainly not accepted; may be tried again
    DOUBT = "doubt"  # may or may not have been accepted


class Blame(StrEnum):
    """What a refusal was about: it decides what happens beside the message."""

    ADDRESS = "address"  # REFUSED: nobody can be reached there on this channel; the step's next channel is tried
    OPT_OUT = "opt_out"  # REFUSED: the person told the provider to stop; taken as an opt-out
    MESSAGE = "message"  # REFUSED: this very text; neither the address nor another channel is to blame
    PLACE = (
        "place"  # REFUSED: not to that country or network from here; as ADDRESS, but nothing is wrong with the address
    )
    CAMPAIGN = "campaign"  # LATER: its campaign can send nothing by this channel until somebody mends it, and is paused
    SENDER = "sender"  # LATER: this sender was too fast; it alone is slowed
    ROUTE = (
        "route"  # LATER: nobody was reached who could have taken it; no attempt of the message's, and tried less often
    )
    NOBODY = ""


@dataclass(slots=True)  # not frozen: a message is made for every send, and freezing costs three times as much
class Outgoing:
    """One message to hand over; `public_id` is the only id of ours that may leave."""

    public_id: str
    channel: str
    address: str
    sender: str  # the one of the channel's senders that is its turn
    content: Content
    purpose: str
    unsubscribe_url: str = ""
    at: datetime | None = None  # when it is sent
    day: date | None = None  # when it was due: the same at every attempt
    valid_until: datetime | None = None  # the provider must not deliver it later: sending hours and expiry
    conversation: bool = False  # the customer wrote on this channel within the last 24 hours


@dataclass(slots=True)  # not frozen: see Outgoing
class Receipt:
    public_id: str
    outcome: Outcome
    provider_id: str | None = None
    detail: str = ""  # never an address or a body
    retry_after: timedelta | None = None
    blame: Blame = Blame.NOBODY
    code: str = ""  # the provider's own


@dataclass(frozen=True)
class InboundEvent:
    """One thing that a provider told us. Repeats have the same `event_id`."""

    event_id: str
    kind: str  # accepted | delivered | failed | bounced | deferred | opened | clicked | complained | opted_out | reply
    at: datetime | None = None  # as the provider dates it; None: it does not
    public_id: str = ""  # of the message it is about, if it says so
    provider_id: str = ""
    address: str = ""  # of a reply: who wrote, without any prefix of the provider's
    text: str = ""  # of a reply
    code: str = ""
    detail: str = ""  # never an address or a body
    fault: str = ""  # of a failure: what others of the sender, account or text would share, and what to do
    channel: str = ""  # that it is about, from a provider that serves several
    recipient: str = field(default="", compare=False, repr=False)  # of a message it is about, if it says so
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # all that was said of it


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A message that its provider may or may not have."""

    public_id: str
    channel: str
    address: str
    text: str | None  # as it was handed over; None when it is no longer kept
    since: datetime  # it cannot have left earlier,
    until: datetime  # nor later; both with room for clocks that differ


@dataclass(frozen=True, slots=True)
class Record:
    """One message that a provider has for an address."""

    provider_id: str
    at: datetime | None = None  # when it was made there; None: the provider does not say
    public_id: str = ""  # ours, where the provider keeps it
    text: str | None = None  # None: the provider does not say


@dataclass(frozen=True, slots=True)
class Kept:
    """What a provider has for the address of one doubtful message, in its time and perhaps beyond."""

    public_id: str
    records: tuple[Record, ...] = ()
    complete: bool = False  # nothing is missing: only then does absence say anything
    detail: str = ""  # why it is not complete; never an address or a body


@dataclass(frozen=True, slots=True)
class OptOut:
    """What a provider keeps about an address that must not be written to."""

    address: str  # as the provider writes it, without any prefix of the provider's
    kind: str  # email | phone | messenger: of a contact
    at: datetime
    reason: str  # opted_out | complained (the person's wish), bounced (nobody can be reached there)


@dataclass(frozen=True)
class Finding:
    """One line of `outreach doctor`."""

    ok: bool
    text: str  # never a secret
    hint: str = ""  # what to do, when not ok
    warning: bool = False  # not ok, and yet it can send


class Channel(Protocol):
    """What a provider's file offers: a class built from (settings, the channel's name)."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Hand over the batch; one receipt per message, as they come.

        1. Draw the next message only when about to hand it over: what was not drawn has certainly
           not left, and the batch may end early, when its time is up.
        2. What was drawn and has no receipt when this ends or raises counts as in doubt.
        3. Raise ChannelError when the configuration is wrong, after a LATER receipt for each
           message drawn that the provider certainly did not take.
        4. Try again by itself only what certainly was not accepted, and only at once.
        """
        ...

    def verify(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:
        """
        Whether the provider signed this request; `url` is the public one it was sent to, with its query.

        Header names are compared without case. False wherever anything is missing: never an exception.
        """
        ...

    def parse(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:
        """What a verified request says; ValueError when it cannot be read."""
        ...

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        """
        What the provider has for the addresses of these messages, one answer each, as they come.

        Only reads. An answer is `complete` only if nothing can be missing from it. A message without an
        answer may be asked for again later; ChannelError where the configuration is wrong.
        """
        ...

    def opt_outs(self, since: datetime) -> Iterator[OptOut]:
        """
        Who opted out, complained or cannot be reached since then, as far as the provider lists it; the same one may come twice.

        Only reads. It is for a database that was set back: what was heard since its backup is heard again.
        What comes is true; that nothing is missing is known only when it ends by itself, without an error.

        Raises:
            ChannelError: the configuration is wrong, or a list could not be read to its end: ask again.
        """
        ...

    def check(self) -> Iterator[Finding]:
        """Log in and look at the sender's identity as far as the provider lets us, without sending."""
        ...

    def close(self) -> None:
        """Let go of connections; the channel may be used again."""
        ...


class Silent:
    """The rest of a Channel for providers that never call back, cannot be asked and keep nothing open."""

    def verify(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> bool:  # noqa: ARG002
        """Nothing is believed."""
        return False

    def parse(self, url: str, headers: Mapping[str, str], raw_body: bytes) -> Sequence[InboundEvent]:  # noqa: ARG002
        """Nothing comes back."""
        return ()

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        """Nobody can be asked."""
        for one in doubtful:
            yield Kept(one.public_id, detail="this provider cannot be asked what became of a message")

    def opt_outs(self, since: datetime) -> Iterator[OptOut]:  # noqa: ARG002
        """Nobody is listed."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


CHANNELS = {  # `staff` is no row: a person sends, see `dispatcher.tasks`
    "outbox": "outreach.channels.outbox.Outbox",
    "smtp": "outreach.channels.smtp.Smtp",
    "sendgrid": "outreach.channels.sendgrid.SendGrid",
    "twilio": "outreach.channels.twilio.Twilio",
}
# An installed package adds a provider by an entry point of the group `setting_keys.PLUG_INS`, of the same form.


def open_channel(name: str, settings: Settings) -> Channel:
    """
    The provider that the settings name for a channel, imported on first use.

    Raises:
        ChannelError: the channel is not configured, or its provider is unknown.
    """
    configured = settings.channels.get(name)
    if configured is None:
        raise ChannelError(f"channel {name} is not configured: add it under `channels` in outreach.yaml")
    path = CHANNELS.get(configured.provider) or plugged_in(configured.provider)
    if not path:
        near = get_close_matches(configured.provider, CHANNELS, 1)
        raise ChannelError(
            f"channels.{name}.provider: {configured.provider!r} is not one of {', '.join(CHANNELS)}"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    module, _, made_by = path.replace(":", ".").rpartition(".")
    channel: Channel = getattr(importlib.import_module(module), made_by)(settings, name)
    return channel


@dataclass
class Channels:
    """The channels opened so far, kept open from one tick to the next; for one thread at a time."""

    opened: dict[str, Channel] = field(default_factory=dict)

    def get(self, name: str, settings: Settings) -> Channel:
        """The channel of that name; ChannelError where it cannot be opened."""
        if name not in self.opened:
            self.opened[name] = open_channel(name, settings)
        return self.opened[name]

    def close(self) -> None:
        """Let go of every connection; the channels open again when they are needed."""
        for channel in self.opened.values():
            channel.close()
