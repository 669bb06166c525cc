"""
What every route shares, and what it refuses before it believes anything: bodies that are too large, too slow or of the wrong kind.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fastapi import Request
from starlette.requests import ClientDisconnect

from outreach.channels import Channel, open_channel
from outreach.settings import Settings
from outreach.store import Database

FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
SECONDS = 20.0  # for a whole body to arrive; Twilio waits 15 s for an answer, and nobody honest needs more


class Reason(StrEnum):
    """Why a request was refused: the closed list that `/metrics` counts."""

    SIGNATURE = "signature"  # unsigned, or signed by somebody else
    STALE = "stale"  # signed too long ago
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"  # its body did not come to an end
    CUT_OFF = "cut_off"  # the sender hung up in the middle
    MEDIA_TYPE = "media_type"
    UNREADABLE = "unreadable"  # not what it says it is
    NOT_SET_UP = "not_set_up"  # no channel, or no secret, for such requests
    UNKNOWN_LINK = "unknown_link"
    UNAVAILABLE = "unavailable"  # the database could not be used: the sender tries again
    FAILED = "failed"  # a fault of ours


class Refused(Exception):
    """A request that changes nothing; its text goes to the sender, so it holds nothing of ours."""

    def __init__(self, status: int, reason: Reason, text: str) -> None:
        self.status, self.reason, self.text = status, reason, text
        super().__init__(text)


@dataclass
class Site:
    """What the routes of one web app share; any thread may use it."""

    settings: Settings
    db: Database
    clock: Callable[[], datetime]
    refused: Counter[Reason] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)  # events and replies, by who brought them
    _channels: dict[str, Channel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_refusal(self, reason: Reason) -> None:
        """One more request that was refused."""
        with self._lock:
            self.refused[reason] += 1

    def count_taken(self, source: str, number: int) -> None:
        """So many more events that are on disk."""
        with self._lock:
            self.taken[source] += number

    def channel_of(self, provider: str) -> Channel:
        """
        A channel of this provider, to verify and read what the provider says of any of its channels.

        Raises:
            Refused: no channel is sent by it.
            ChannelError: it cannot be opened.
        """
        with self._lock:
            if provider not in self._channels:
                name = next((n for n, c in self.settings.channels.items() if c.provider == provider), None)
                if name is None:
                    raise Refused(404, Reason.NOT_SET_UP, f"no channel is sent by {provider} here")
                self._channels[provider] = open_channel(name, self.settings)
            return self._channels[provider]

    def url_of(self, request: Request) -> str:
        """The address as the sender knows it: under `public_url`, whatever a proxy in between says (signatures cover it)."""
        query = request.scope["query_string"].decode("latin-1")
        path: str = request.scope["path"]
        return self.settings.public_url.rstrip("/") + path + (f"?{query}" if query else "")


def body(limit: int, *media: str) -> Callable[[Request], Awaitable[bytes]]:
    """
    What reads a request's body, as it came: at most `limit` bytes, of one of these media types, or of any if none is named.

    It is read in pieces and given up at the limit, with or without a Content-Length.
    """

    async def read(request: Request) -> bytes:
        if media and media_type(request.headers) not in media:
            raise Refused(415, Reason.MEDIA_TYPE, f"send {' or '.join(media)}")
        too_large = Refused(413, Reason.TOO_LARGE, f"a body may have {limit:,} bytes at most")
        with suppress(ValueError):
            if int(request.headers.get("content-length", "")) > limit:
                raise too_large
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(SECONDS):
                async for piece in request.stream():
                    size += len(piece)
                    if size > limit:
                        raise too_large
                    pieces.append(piece)
        except TimeoutError as error:
            raise Refused(408, Reason.TOO_SLOW, "the body did not arrive in time") from error
        except ClientDisconnect as error:
            raise Refused(400, Reason.CUT_OFF, "the body was cut off") from error
        return b"".join(pieces)

    return read


def media_type(headers: Mapping[str, str]) -> str:
    """What a body is said to be, without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
