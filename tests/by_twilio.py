"""
What the tests of Twilio share: the stand-in, channels on it, messages to send.

A test module takes the fixtures over by `twilio = by_twilio.twilio` and `channel = by_twilio.channel`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from outreach.channels import Outgoing, Receipt, open_channel
from outreach.channels.twilio import Twilio
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Business, ChannelSettings, Settings
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio, Recorded
from tests.openapi import is_here, problems

Opens = Callable[..., Twilio]  # (channel's name, *senders, **options)
SPEC = "twilio_messages.json"
SENDER = "+15005550006"
PUBLIC = "https://shop.example"
TEMPLATE = "HX" + "b" * 32
SERVICE = "MG" + "a" * 32
AT = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)


def breaches(fake: FakeTwilio) -> list[str]:
    """What Twilio's own description has against the requests about messages that a stand-in saw."""
    return [found for one in fake.requests if "/Messages" in one.path for found in _breaches(one)]


def _breaches(request: Recorded) -> list[str]:
    """Checking takes 20 ms: of requests that are alike but for their letters and digits, one is."""
    fields = parse_qsl(request.body.decode(), keep_blank_values=True)
    likeness = (
        request.method,
        _like(request.path),
        (*request.headers,),
        tuple((name, _like(value), len(value) // 100) for name, value in fields),
    )
    if likeness not in _checked:
        _checked[likeness] = problems(SPEC, request.method, request.path, request.headers, request.body)
    return _checked[likeness]


def _like(text: str) -> str:
    return re.sub(r"[^\W_]+", "a", text)


_checked: dict[object, list[str]] = {}


@pytest.fixture
def twilio() -> Iterator[FakeTwilio]:
    """A stand-in; every request that a test made of it must fit Twilio's own description."""
    with FakeTwilio() as fake:
        yield fake
    if is_here(SPEC):
        assert breaches(fake) == []


def settings(fake: FakeTwilio, name: str = "sms", *senders: str, public_url: str = PUBLIC, **options: Any) -> Settings:
    pool = senders or (SENDER,)
    channel = ChannelSettings("twilio", pool[0], {"base_url": fake.url, **options}, pool if len(pool) > 1 else ())
    return Settings(
        workspace=Path("nowhere"),
        business=Business("Tienda Luna", "America/Mexico_City", "MXN"),
        secrets={"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN},
        channels={name: channel},
        public_url=public_url,
    )


@pytest.fixture
def channel(twilio: FakeTwilio) -> Iterator[Opens]:
    """Opens channels on the stand-in: (name, *senders, **options)."""
    opened: list[Twilio] = []

    def make(name: str = "sms", *senders: str, **options: Any) -> Twilio:
        made = open_channel(name, settings(twilio, name, *senders, **options))
        assert isinstance(made, Twilio)
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.close()


def sms(number: int = 1, text: str = "Hola, Ana", **changes: Any) -> Outgoing:
    one = Outgoing(
        public_id=f"m{number}",
        channel="sms",
        address=f"+5255{41000000 + number:08d}",
        sender=SENDER,
        content=Content("sms", text),
        purpose="marketing",
        at=AT,
    )
    return replace(one, **changes)


def whatsapp(number: int = 1, text: str = "Hola, Ana", content_sid: str = TEMPLATE, **changes: Any) -> Outgoing:
    content = Content("whatsapp", text, content_sid=content_sid, variables=(("1", "Ana"), ("2", "Año “nuevo”")))
    return sms(number, **{"channel": "whatsapp", "content": content, **changes})


def one(of: Iterable[Receipt]) -> Receipt:
    (receipt,) = of
    return receipt


def until_stopped(receipts: Iterable[Receipt]) -> tuple[list[Receipt], str]:
    """What came before the campaign was stopped, and why it was."""
    seen = []
    try:
        for receipt in receipts:
            seen.append(receipt)  # noqa: PERF402  # what came before the exception counts
    except ChannelError as stopped:
        return seen, str(stopped)
    pytest.fail("the campaign was not stopped")


def form(fake: FakeTwilio) -> dict[str, str]:
    (request,) = fake.requests
    return request.form
