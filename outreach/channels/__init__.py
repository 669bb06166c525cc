"""
Channels: how a rendered message leaves, one file per provider, one row each in CHANNELS.

A channel draws the messages one by one and answers each with one Receipt. Only ChannelError may
cross this border: its configuration is wrong, and the campaign must stop.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Protocol

from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Settings


class Outcome(StrEnum):
    ACCEPTED = "accepted"  # the provider has it; provider_id is its id
    REFUSED = "refused"  # this address for good
    LATER = "later"  # certainly not accepted; may be tried again
    DOUBT = "doubt"  # may or may not have been accepted


@dataclass(frozen=True)
class Outgoing:
    """One message to hand over; `public_id` is the only id of ours that may leave."""

    public_id: str
    channel: str
    address: str
    sender: str
    content: Content
    purpose: str
    unsubscribe_url: str = ""
    at: datetime | None = None  # when it is sent
    day: date | None = None  # when it was due: the same at every attempt


@dataclass(frozen=True)
class Receipt:
    public_id: str
    outcome: Outcome
    provider_id: str | None = None
    detail: str = ""  # never an address or a body
    retry_after: timedelta | None = None


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
        """
        ...


CHANNELS = {"outbox": "outreach.channels.outbox.Outbox"}


def open_channel(name: str, settings: Settings) -> Channel:
    """
    The provider that the settings name for a channel, imported on first use.

    Raises:
        ChannelError: the channel is not configured, or its provider is unknown.
    """
    configured = settings.channels.get(name)
    if configured is None:
        raise ChannelError(f"channel {name} is not configured: add it under `channels` in outreach.yaml")
    path = CHANNELS.get(configured.provider)
    if path is None:
        near = get_close_matches(configured.provider, CHANNELS, 1)
        raise ChannelError(
            f"channels.{name}.provider: {configured.provider!r} is not one of {', '.join(CHANNELS)}"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    module, _, made_by = path.rpartition(".")
    channel: Channel = getattr(importlib.import_module(module), made_by)(settings, name)
    return channel
