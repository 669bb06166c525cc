"""The providers' stand-ins, in a process of their own: their ledger outlives whoever is killed while sending."""

from __future__ import annotations

import http.client
import smtplib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from outreach.settings import ChannelSettings
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.smtp import FakeSmtp
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from outreach.values import Duration, Limit
from tests.killing.checker import Acceptance
from tests.killing.clock import Clock
from tests.killing.processes import start

CHANNELS = {"smtp": "email", "sendgrid": "email", "twilio": "sms"}
CAN_BE_ASKED = ("sendgrid", "twilio")
FROM = {"email": "Tienda Luna <hola@tiendaluna.example>", "sms": "+525500000000"}
UNLIMITED = Limit(1_000_000, Duration(seconds=1))
SETTLED_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Address:
    """How to reach a provider: all that its senders need to know."""

    kind: str  # smtp | sendgrid | twilio
    port: int
    secrets: Mapping[str, str]

    @property
    def channel(self) -> str:
        return CHANNELS[self.kind]

    def settings(self, options: Mapping[str, Any], in_doubt: str) -> ChannelSettings:
        """The channel's settings that lead there."""
        if self.kind == "smtp":
            where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "security": "none"}
        else:
            where = {"base_url": f"http://127.0.0.1:{self.port}"}
        made = ChannelSettings(self.kind, FROM[self.channel], {**where, **options}, rate=UNLIMITED)
        return replace(made, in_doubt=in_doubt) if in_doubt != "hold" else made


@dataclass(frozen=True)
class Provider:
    """A running stand-in, asked over a pipe."""

    address: Address
    _pipe: Connection

    def count(self) -> int:
        """How many messages it has accepted so far."""
        return int(self._ask("count"))

    def ledger(self) -> list[Acceptance]:
        """Every acceptance, in order."""
        found: list[Acceptance] = self._ask("ledger")
        return found

    def settle(self) -> None:
        """Return once it has taken in all that dead senders had written; only while no sender is alive."""
        self._ask("settle")

    def _ask(self, what: str) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()


@contextmanager
def provider(kind: str, clock: Path) -> Iterator[Provider]:
    """The stand-in of a provider, in a process of its own, by the clock of the run."""
    process, pipe = start(serve, kind, clock)
    try:
        yield Provider(pipe.recv(), pipe)
    finally:
        process.kill()
        process.join()
        pipe.close()


# --- in the process -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Served:
    address: Address
    count: Callable[[], int]
    ledger: Callable[[], list[Acceptance]]
    settle: Callable[[], None]


def serve(pipe: Connection, kind: str, clock: Path) -> None:
    """Answer the killer's questions until it is gone."""
    with _SERVERS[kind](Clock(clock)) as served:
        answers: Mapping[str, Callable[[], Any]] = {
            "count": served.count,
            "ledger": served.ledger,
            "settle": served.settle,
        }
        pipe.send(served.address)
        while True:
            try:
                what = pipe.recv()
            except EOFError:
                return
            pipe.send(answers[what]())


@contextmanager
def _smtp(_: Clock) -> Iterator[_Served]:
    with FakeSmtp() as fake:

        def ledger() -> list[Acceptance]:
            ids = [one.message_id for one in fake.accepted]
            return [
                Acceptance(i.strip("<>").partition("@")[0], i, one.recipient)
                for i, one in zip(ids, fake.accepted, strict=True)
            ]

        def settle() -> None:
            with smtplib.SMTP("127.0.0.1", fake.port, timeout=SETTLED_WITHIN) as mine:
                mine.noop()  # connections are taken in their order: it has all earlier ones
            before = -1
            while before != (before := len(fake.accepted)):
                time.sleep(0.02)
            fake.cut()  # whatever was not read by now never is

        yield _Served(Address("smtp", fake.port, {}), lambda: len(fake.accepted), ledger, settle)


@contextmanager
def _twilio(clock: Clock) -> Iterator[_Served]:
    with FakeTwilio(clock=clock.now) as fake:
        port = int(fake.url.rpartition(":")[2])
        secrets = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}

        def ledger() -> list[Acceptance]:
            return [Acceptance(one.public_id, one.sid, one.form["To"]) for one in list(fake.accepted)]

        yield _Served(Address("twilio", port, secrets), lambda: len(fake.accepted), ledger, lambda: _answered(port))


@contextmanager
def _sendgrid(clock: Clock) -> Iterator[_Served]:
    with FakeSendGrid(clock=clock.now) as fake:

        def ledger() -> list[Acceptance]:
            return [Acceptance(one.public_id, one.message_id.partition(".")[0], one.to) for one in fake.accepted]

        address = Address("sendgrid", fake.port, fake.environment)
        yield _Served(address, lambda: len(fake.accepted), ledger, lambda: _answered(fake.port))


def _answered(port: int) -> None:
    """Connections are taken in their order: once ours is answered and no other is being served, nothing is on its way."""
    mine = http.client.HTTPConnection("127.0.0.1", port, timeout=SETTLED_WITHIN)
    mine.request("GET", "/")
    mine.getresponse().read()
    mine.close()
    until = time.monotonic() + SETTLED_WITHIN
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        if time.monotonic() > until:
            raise TimeoutError("a connection is still open: is a sender alive?")
        time.sleep(0.005)


_SERVERS = {"smtp": _smtp, "twilio": _twilio, "sendgrid": _sendgrid}
