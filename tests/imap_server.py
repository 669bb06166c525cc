"""A real IMAP server (pymap) as a process on this machine, and a mailbox in it for each test."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import uuid4

from imapclient import IMAPClient, SocketTimeout

from outreach.settings import MailboxSettings

USER, PASSWORD = "shop", "a secret of the mailbox"
# One round of hashing the password at each login, not half a million: it stands in a test's source.
_START = """
import sys
from functools import partial
import pymap.config
from pymap.main import main
pymap.config.BuiltinHash = partial(pymap.config.BuiltinHash, rounds=1)
sys.exit(main())
"""
UP_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int

    @cached_property
    def at_hand(self) -> Any:
        """A client that stays logged in and looks into no folder: for what a test does before its own look."""
        client = IMAPClient("127.0.0.1", port=self.port, ssl=False, timeout=SocketTimeout(10, 10))
        client.login(USER, PASSWORD)
        return client

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Somebody else who uses the mailbox."""
        client = IMAPClient("127.0.0.1", port=self.port, ssl=False, timeout=SocketTimeout(10, 10))
        client.login(USER, PASSWORD)
        try:
            yield client
        finally:
            client.logout()

    def folder(self) -> Folder:
        """A new folder, empty."""
        name = f"F{uuid4().hex[:10]}"
        self.at_hand.create_folder(name)
        return Folder(self, name)


@dataclass(frozen=True)
class Folder:
    """A folder of the mailbox."""

    server: Server
    name: str

    def settings(self, **changes: Any) -> MailboxSettings:
        told: dict[str, Any] = {"host": "127.0.0.1", "port": self.server.port, "security": "none", "user": USER}
        return MailboxSettings(**{**told, "folder": self.name, **changes})

    def put(self, raw: bytes, at: datetime) -> None:
        """A mail arrives."""
        self.server.at_hand.append(self.name, raw, msg_time=at)

    def flags(self) -> list[tuple[bytes, ...]]:
        """Those of every mail that is there."""
        with self.server.client() as client:
            client.select_folder(self.name, readonly=True)
            return [one[b"FLAGS"] for _, one in sorted(client.fetch(client.search(), ["FLAGS"]).items())]

    def made_anew(self) -> None:
        """As after a restore of the server: the same mails under new UIDs, and another UIDVALIDITY."""
        with self.server.client() as client:
            client.select_folder(self.name, readonly=True)
            mails = client.fetch(client.search(), ["BODY.PEEK[]", "INTERNALDATE"])
            client.unselect_folder() if client.has_capability("UNSELECT") else client.select_folder("INBOX")
            client.delete_folder(self.name)
            client.create_folder(self.name)
            for _, one in sorted(mails.items()):
                client.append(self.name, one[b"BODY[]"], msg_time=one[b"INTERNALDATE"])


@contextmanager
def running() -> Iterator[Server]:
    """The server, while this lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-tls", "dict", "--demo-data"]
    login = ["--demo-user", USER, "--demo-password", PASSWORD]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *options, *login], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + UP_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server does not come up"
                time.sleep(0.05)
        server = Server(port)
        yield server
        server.at_hand.shutdown()
    finally:
        process.kill()
        process.wait()
