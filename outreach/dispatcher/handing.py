"""Handing over: a committed chunk goes to its channels, for at most 30 s after the commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from outreach import clocks
from outreach.channels import Channels, Outcome, Outgoing, Receipt
from outreach.dispatcher.parts import Ready
from outreach.errors import ChannelError
from outreach.settings import Settings

HAND_OVER_SECONDS = 30.0
PUT_BACK_SECONDS = 5.0  # a clock may be put right by so much
MOST_DOUBTS = 5  # in a row: the provider is out of order, and more messages would only be put in doubt


@dataclass
class Handed:
    """What became of a chunk, as far as its channels said."""

    drawn: set[str] = field(default_factory=set)  # public ids
    receipts: dict[str, Receipt] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)  # by channel, what is wrong with its configuration
    broken: set[str] = field(default_factory=set)  # channels that nothing more is handed to for now


def in_time(start: tuple[float, float]) -> bool:
    """
    Whether it is no more than 30 s since `start`, by both clocks.

    A wall clock that was put back is not believed either: it may be hours since, and nobody can tell.
    """
    wall, boot = clocks.since(start)
    return -PUT_BACK_SECONDS <= wall <= HAND_OVER_SECONDS and -PUT_BACK_SECONDS <= boot <= HAND_OVER_SECONDS


def hand_over(
    ready: Sequence[Ready],
    settings: Settings,
    channels: Channels,
    handed: Handed,
    start: tuple[float, float],
    lost: Callable[[], bool],
) -> None:
    """
    Give the chunk to its channels, one after the other; `handed` is filled as they answer.

    `start` is what the clocks said before the chunk was claimed; `lost` whether it is ours no more.

    `handed` is right at any moment, also when a channel raises what is not a ChannelError.
    """
    by_channel: dict[str, list[Outgoing]] = defaultdict(list)
    for one in ready:
        by_channel[one.outgoing.channel].append(one.outgoing)
    for name, messages in by_channel.items():
        doubts = 0
        try:
            for receipt in channels.get(name, settings).send(_in_time(name, messages, handed, start, lost)):
                handed.receipts.setdefault(receipt.public_id, receipt)
                doubts = doubts + 1 if receipt.outcome is Outcome.DOUBT else 0
                if doubts >= MOST_DOUBTS:
                    handed.broken.add(name)
        except ChannelError as error:
            handed.wrong[name] = str(error)


def _in_time(
    channel: str, messages: Iterable[Outgoing], handed: Handed, start: tuple[float, float], lost: Callable[[], bool]
) -> Iterator[Outgoing]:
    """The messages, as long as their channel works and they may leave; notes which were drawn."""
    for message in messages:
        if channel in handed.broken or lost() or not in_time(start):
            return
        handed.drawn.add(message.public_id)
        yield message
