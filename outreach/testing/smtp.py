"""
A mail server for rehearsals and tests: real SMTP (aiosmtpd) on 127.0.0.1, and mistakes on demand.

What the faults are here:

    TOO_MANY      421 4.7.0 to the sender, and the connection is closed
    BUSY_BEFORE   451 4.3.0 after the message, which is not kept
    BUSY_AFTER    451 4.3.0 after the message, which is kept all the same
    DROP_BEFORE   the connection is cut at `drop_at`: by default when the whole message is there; it is not kept
    DROP_AFTER    the message is kept, and the connection cut instead of an answer
    SLOW          the message is kept, and no answer comes before the server stops
    OPTED_OUT     550 5.7.1 to the recipient: a filter of theirs; SMTP knows no opt-out
    BAD_ADDRESS   550 5.1.1 to the recipient
    NOT_ALLOWED   530 5.7.0 to the sender
    UNHEARD_OF    654 9.9.9 after the message, which is not kept
"""

# ruff: noqa: ARG002, N802  aiosmtpd names its hooks after the commands, and gives each all it knows

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
import ipaddress
import re
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from outreach.testing import Fault, Faults

HOST = "127.0.0.1"
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(\S+)", re.MULTILINE | re.IGNORECASE)


class Accepted(NamedTuple):
    """A message that the server keeps."""

    sender: str  # of the envelope
    recipient: str
    content: bytes
    message_id: str


class FakeSmtp:
    """
    A mail server while the context is entered; `port` is known before.

    `security` is as in the settings: none, starttls or tls; for the latter two `certificate` is a
    PEM file that a client must be told to trust (such as by SSL_CERT_FILE).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        faults: Faults | None = None,
        login: tuple[str, str] | None = None,
        security: str = "none",
        bad_addresses: Collection[str] = (),
        pipelining: bool = True,
        utf8: bool = True,
        size: int = 33_554_432,
        drop_at: str = "dot",  # mail | rcpt | dot
        most_connections: int | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.bad_addresses = set(bad_addresses)
        self.most_connections = most_connections  # more are turned away with 421
        self._login = login
        self._security = security
        self._pipelining = pipelining
        self._drop_at = drop_at
        self._options: dict[str, Any] = {"enable_SMTPUTF8": utf8, "data_size_limit": size, "hostname": "fake.example"}
        self._lock = threading.Lock()
        self._kept: list[Accepted] = []
        self._counts: Counter[str] = Counter()
        self._commands: list[str] = []
        self._opened = 0
        self._open: dict[int, SMTP] = {}
        self._most_open = 0
        # Only with its protocol named does asyncio send small answers at once (TCP_NODELAY).
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, port))
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-smtp", daemon=True)
        self._runs = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="fake-smtp-")
        self.certificate = Path(self._folder.name) / "certificate.pem"
        self._context = _self_signed(self.certificate) if security != "none" else None

    # --- what it has seen --------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> list[Accepted]:
        """What it keeps, in the order it came."""
        with self._lock:
            return list(self._kept)

    def accepted_count(self, message_id: str) -> int:
        """How often it keeps this message; the id is that of the header, `<…@…>`."""
        with self._lock:
            return self._counts[message_id]

    def accepted_by_message_id(self) -> Counter[str]:
        """How often it keeps each message, by the id of its header, `<…@…>`."""
        with self._lock:
            return Counter(self._counts)

    def accepted_by_public_id(self) -> Counter[str]:
        """The same by our own id of each message, which its Message-ID begins with."""
        counts: Counter[str] = Counter()
        for message_id, count in self.accepted_by_message_id().items():
            counts[message_id.removeprefix("<").partition("@")[0]] += count
        return counts

    @property
    def opened(self) -> int:
        """How many connections there were so far."""
        return self._opened

    @property
    def most_open(self) -> int:
        """How many there were at once."""
        return self._most_open

    @property
    def commands(self) -> list[str]:
        """The names of the commands that clients gave, as far as this server is asked about them."""
        with self._lock:
            return list(self._commands)

    def cut(self) -> None:
        """Close every connection, as a server does that restarts."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    # --- running -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeSmtp:
        self._thread.start()
        self._runs.wait()  # a loop that is stopped before it runs would run for ever
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._folder.cleanup()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        tls = self._context if self._security == "tls" else None
        server = self._loop.run_until_complete(self._loop.create_server(self._protocol, sock=self._socket, ssl=tls))
        self._loop.call_soon(self._runs.set)
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._stopped())
        self._loop.close()

    async def _stopped(self) -> None:
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _cut(self) -> None:
        for protocol in [one for one in self._open.values() if one.transport is not None]:
            _transport(protocol).abort()
        while any(protocol.transport is not None for protocol in self._open.values()):
            await asyncio.sleep(0)
        self._open.clear()

    def _protocol(self) -> SMTP:
        return _Protocol(
            self,
            self._options
            | {
                "loop": self._loop,
                "tls_context": self._context if self._security == "starttls" else None,
                "require_starttls": self._security == "starttls",
                "auth_require_tls": False,  # STARTTLS is required anyway where there is any
                "authenticator": self._authenticate,
            },
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        given = (data.login, data.password) if isinstance(data, LoginPassword) else (b"", b"")
        wanted = [part.encode() for part in self._login or ("", "")]
        good = all(hmac.compare_digest(a, b) for a, b in zip(given, wanted, strict=True))
        return AuthResult(success=good, handled=False)

    def _connected(self, protocol: SMTP) -> bool:
        """Whether one more is welcome."""
        self._opened += 1
        self._open[id(protocol)] = protocol
        self._most_open = max(self._most_open, len(self._open))
        return self.most_connections is None or len(self._open) <= self.most_connections

    def _gone(self, protocol: SMTP) -> None:
        self._open.pop(id(protocol), None)

    def _keep(self, envelope: _Envelope) -> None:
        assert isinstance(envelope.content, bytes)  # noqa: S101
        found = _MESSAGE_ID.search(envelope.content.partition(b"\r\n\r\n")[0])
        message_id = found[1].decode() if found else ""
        sender = envelope.mail_from or ""
        with self._lock:
            self._kept += [Accepted(sender, to, envelope.content, message_id) for to in envelope.rcpt_tos]
            self._counts[message_id] += len(envelope.rcpt_tos)

    def _note(self, command: str) -> None:
        with self._lock:
            self._commands.append(command)

    # --- what aiosmtpd asks ----------------------------------------------------------------------------------------

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: _Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Announce what this server can do."""
        session.host_name = hostname
        more = ["250-ENHANCEDSTATUSCODES", *(["250-PIPELINING"] if self._pipelining else [])]
        if self._login is None:
            responses = [line for line in responses if not line.startswith("250-AUTH")]
        return [*responses[:-1], *more, responses[-1]]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: _Envelope, address: str, options: list[str]
    ) -> str:
        """Take the fault of this message, and those of it that concern the sender."""
        self._note("MAIL")
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        fault = self.faults.take()
        envelope.fault = fault
        if fault is Fault.TOO_MANY:
            return await _good_bye(server, "421 4.7.0 Try again later, closing connection")
        if fault is Fault.NOT_ALLOWED:
            return "530 5.7.0 Authentication required"
        if fault is Fault.DROP_BEFORE and self._drop_at == "mail":
            return await _cut_off(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: _Envelope, address: str, options: list[str]
    ) -> str:
        """The faults that concern the recipient."""
        self._note("RCPT")
        if envelope.fault is Fault.BAD_ADDRESS or address in self.bad_addresses:
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        if envelope.fault is Fault.OPTED_OUT:
            return f"550 5.7.1 <{address}>: Recipient does not want mail from you"
        if envelope.fault is Fault.DROP_BEFORE and self._drop_at == "rcpt":
            return await _cut_off(server)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: _Envelope) -> str:
        """Keep the message, and whatever else its fault wants."""
        fault = envelope.fault
        if fault is Fault.DROP_BEFORE:
            return await _cut_off(server)
        if fault is Fault.BUSY_BEFORE:
            return "451 4.3.0 Mail server temporarily rejected message"
        if fault is Fault.UNHEARD_OF:
            return "654 9.9.9 Never heard of this"
        self._keep(envelope)
        if fault is Fault.DROP_AFTER:
            return await _cut_off(server)
        if fault is Fault.SLOW:
            await asyncio.Event().wait()  # it is cancelled when the connection ends
        if fault is Fault.BUSY_AFTER:
            return "451 4.3.0 Mail server temporarily rejected message"
        return "250 2.0.0 Ok: queued"

    async def handle_RSET(self, server: SMTP, session: Session, envelope: _Envelope) -> str:
        """Note it."""
        self._note("RSET")
        return "250 2.0.0 Ok"

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: _Envelope, arg: str) -> str:
        """Note it."""
        self._note("NOOP")
        return "250 2.0.0 Ok"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: _Envelope) -> str:
        """Note it."""
        self._note("QUIT")
        return "221 2.0.0 Bye"


class _Envelope(Envelope):
    """A message on its way in, with what goes wrong with it."""

    fault: Fault | None = None


class _Protocol(SMTP):
    """One connection, which its server knows of."""

    def __init__(self, owner: FakeSmtp, options: dict[str, Any]) -> None:
        self._owner = owner
        super().__init__(owner, **options)

    def _create_envelope(self) -> Envelope:
        return _Envelope()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self.transport is None
        welcome = not first or self._owner._connected(self)
        if not welcome:
            assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101
            transport.write(b"421 4.7.0 Too many connections\r\n")
        super().connection_made(transport)
        if not welcome:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._owner._gone(self)
        super().connection_lost(error)


def _transport(server: SMTP) -> asyncio.Transport:
    assert isinstance(server.transport, asyncio.Transport)  # noqa: S101
    return server.transport


async def _cut_off(server: SMTP) -> str:
    """The connection ends here and now; what awaits this is cancelled with it."""
    _transport(server).abort()
    await asyncio.Event().wait()
    return ""


async def _good_bye(server: SMTP, words: str) -> str:
    await server.push(words)
    _transport(server).close()
    await asyncio.Event().wait()
    return ""


def _self_signed(path: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 and localhost, made on the fly, and what serves it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outreach fake mail server")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = path.with_name("key.pem")
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context
