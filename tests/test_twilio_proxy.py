"""Sending by Twilio through a proxy: a real one, on this machine, whose failures come before or after the request."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from outreach.channels import Outcome, Receipt, open_channel
from outreach.settings import ChannelSettings
from outreach.testing import Fault
from outreach.testing.twilio import FakeTwilio
from tests import by_twilio
from tests.by_twilio import one, settings, sms

twilio = by_twilio.twilio
HOST = "twilio.example"  # nobody is there: only the proxy leads on
Asks = Callable[[str, str], Receipt]  # (what the proxy does, the scheme of the request)

AT_ONCE = {  # answers to the request for a tunnel, or to the request itself where there is none; then it hangs up
    "refuses": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "asks for a login": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "hangs up": b"",
}


class Proxy:
    """
    A proxy of HTTP and of tunnels, for one connection; it ends TLS itself and hands on to the stand-in.

    What it does: "relays", "closes", "resets" or "is silent" (the latter three once the stand-in answered), or
    one of AT_ONCE.
    """

    def __init__(self, does: str, fake: FakeTwilio, certificate: Path) -> None:
        self.does, self.fake = does, fake
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked = b""  # the first line
        self._over = threading.Event()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.close()

    def _serve(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:
            return
        try:
            request = _whole(client)
            self.asked = request.split(b"\r\n")[0]
            if self.does in AT_ONCE:
                client.sendall(AT_ONCE[self.does])
                return
            if self.asked.startswith(b"CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                client = self._tls.wrap_socket(client, server_side=True)
                request = _whole(client)
            answer = self._handed_on(request.replace(f"http://{HOST}/".encode(), b"/", 1))
            if self.does == "relays":
                client.sendall(answer)
            elif self.does == "resets":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self.does == "is silent":
                self._over.wait(60)
        except OSError:  # the client does not trust the certificate
            pass
        finally:
            client.close()

    def _handed_on(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", urlsplit(self.fake.url).port or 0)) as there:
            there.sendall(request)
            return _whole(there)


def _whole(connection: socket.socket) -> bytes:
    """One request or answer, with the body that its head promises."""
    seen = b""
    while b"\r\n\r\n" not in seen or len(seen) < _length(seen):
        more = connection.recv(65536)
        if not more:
            break
        seen += more
    return seen


def _length(seen: bytes) -> int:
    head = seen.partition(b"\r\n\r\n")[0]
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return len(head) + 4 + next((int(value) for name, _, value in lines if name.lower() == b"content-length"), 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of HOST with its key, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("proxy") / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Names a proxy to whoever asks the environment for one."""

    def name(url: str) -> None:
        for variable in ("NO_PROXY", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.delenv(variable.lower(), raising=False)
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)

    return name


@pytest.fixture
def ask(
    twilio: FakeTwilio, certificate: Path, environment: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Asks:
    """Sends one SMS through a proxy that does as it is told."""

    def send(does: str, scheme: str) -> Receipt:
        if does == "is silent":
            monkeypatch.setattr(ChannelSettings, "timeout", 0.2)
        with Proxy(does, twilio, certificate) as proxy:
            environment(proxy.url)
            opened = open_channel("sms", settings(twilio, base_url=f"{scheme}://{HOST}"))
            receipt = one(opened.send([sms()]))
            opened.close()
        assert proxy.asked.startswith(b"CONNECT " if scheme == "https" else b"POST http://")
        return receipt

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return send


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_through_a_proxy_an_sms_is_accepted(scheme: str, ask: Asks, twilio: FakeTwilio) -> None:
    assert ask("relays", scheme) == Receipt("m1", Outcome.ACCEPTED, provider_id=twilio.accepted[0].sid)


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("does", ["closes", "resets", "is silent"])
def test_what_is_cut_off_after_the_request_left_through_a_proxy_is_in_doubt(
    does: str, scheme: str, ask: Asks, twilio: FakeTwilio
) -> None:
    receipt = ask(does, scheme)

    assert (receipt.outcome, twilio.accepted_count("m1")) == (Outcome.DOUBT, 1)


@pytest.mark.parametrize("does", ["refuses", "asks for a login"])
def test_a_tunnel_that_was_refused_let_nothing_through(does: str, ask: Asks, twilio: FakeTwilio) -> None:
    receipt = ask(does, "https")

    assert (receipt.outcome, twilio.requests) == (Outcome.LATER, [])


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_hangs_up_without_a_word_leaves_doubt(scheme: str, ask: Asks) -> None:
    assert ask("hangs up", scheme).outcome is Outcome.DOUBT


def test_behind_a_certificate_that_is_not_trusted_nothing_was_sent(
    ask: Asks, twilio: FakeTwilio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    receipt = ask("relays", "https")

    assert (receipt.outcome, twilio.requests) == (Outcome.LATER, [])


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_is_not_there_was_sent_nothing(
    scheme: str, twilio: FakeTwilio, environment: Callable[[str], None]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environment(f"http://127.0.0.1:{closed.getsockname()[1]}")
        receipt = one(open_channel("sms", settings(twilio, base_url=f"{scheme}://{HOST}")).send([sms()]))

    assert (receipt.outcome, twilio.requests) == (Outcome.LATER, [])


def test_twilio_s_own_answers_come_through_a_proxy(ask: Asks, twilio: FakeTwilio) -> None:
    twilio.faults.add(Fault.OPTED_OUT)

    assert ask("relays", "https").code == "21610"
