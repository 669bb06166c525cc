"""SendGrid: real requests over 127.0.0.1 to the stand-in, every one held against SendGrid's own description."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outreach import clocks, dispatcher, planner
from outreach.channels import Blame, Channel, Finding, Outcome, Outgoing, Receipt, open_channel
from outreach.channels.sendgrid import api
from outreach.channels.sendgrid.answers import STATUSES, Answer, verdict_of
from outreach.channels.sendgrid.events import read_events
from outreach.channels.sendgrid.requests import body_of, prepare, read_sender, requests_of
from outreach.errors import ChannelError
from outreach.models import Message
from outreach.render import Content, Gaps, Shape, as_read
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import open_database
from outreach.testing import Fault
from outreach.testing.sendgrid import FakeSendGrid, Recorded, Reply
from outreach.values import Duration
from tests import openapi, shop
from tests.conftest import NOW, SECRET

SENDER = "Tienda Luña <hola@tienda.example>"
UNSUBSCRIBE = "https://tienda.example/l/0123abcd"
HALF_A_SECOND = Duration(seconds=0.5)  # type: ignore[arg-type]  # no settings can say it


def settings_of(fake: FakeSendGrid | str, *, senders: tuple[str, ...] = (), **options: Any) -> Settings:
    url, secrets = (fake, {"SENDGRID_API_KEY": "SG.x"}) if isinstance(fake, str) else (fake.url, fake.environment)
    options = {"base_url": url, "timeout": Duration(seconds=10), **options}
    channels = {"email": ChannelSettings("sendgrid", senders[0] if senders else SENDER, options, senders)}
    business = Business("Tienda Luna", "America/Mexico_City", "MXN")
    return Settings(Path(), business, channels=channels, secrets=secrets)


def opened(fake: FakeSendGrid | str, **options: Any) -> Channel:
    return open_channel("email", settings_of(fake, **options))


def an_email(number: int = 0, **changes: Any) -> Outgoing:
    content = Content("email", f"Hola {number} ñ", subject=f"¡Gracias {number}!", own_html=f"<p>Hola {number} ñ</p>")
    message = Outgoing(
        f"{number:032x}", "email", f"c{number}@example.com", "", content, "marketing", UNSUBSCRIBE, NOW, NOW.date()
    )
    return replace(message, **changes)


def emails(count: int, **changes: Any) -> list[Outgoing]:
    return [an_email(number, **changes) for number in range(count)]


def with_text(number: int, text: str, html: str = "", subject: str = "Hola") -> Outgoing:
    return an_email(number, content=Content("email", text, subject=subject, own_html=html))


def outcomes(receipts: Iterable[Receipt]) -> list[Outcome]:
    return [receipt.outcome for receipt in receipts]


def collected(channel: Channel, messages: Iterable[Outgoing], into: list[Receipt]) -> None:
    for receipt in channel.send(messages):
        into.append(receipt)  # noqa: PERF402  what came before an error is kept


@pytest.fixture
def fake() -> Iterator[FakeSendGrid]:
    with FakeSendGrid() as server:
        yield server
        sent = [request for request in server.requests if request.path == "/v3/mail/send"]
        for request in [*sent[:3], *sent[3::50]]:
            assert openapi.problems("sendgrid_mail.json", "POST", request.path, request.headers, request.body) == []


@pytest.fixture(scope="module")
def lasting() -> Iterator[FakeSendGrid]:
    with FakeSendGrid() as server:
        yield server


# --- one message ---------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_written(fake: FakeSendGrid) -> None:
    receipts = list(opened(fake).send([an_email(7)]))

    (mail,) = fake.accepted
    assert (mail.to, mail.sender, mail.sender_name) == ("c7@example.com", "hola@tienda.example", "Tienda Luña")
    assert (mail.subject, mail.text, mail.html) == ("¡Gracias 7!", "Hola 7 ñ", "<p>Hola 7 ñ</p>")
    assert mail.custom_args == {"outreach": f"{7:032x}"}
    (receipt,) = receipts
    assert (receipt.public_id, receipt.outcome) == (f"{7:032x}", Outcome.ACCEPTED)
    assert receipt.provider_id is not None
    assert mail.message_id.startswith(f"{receipt.provider_id}.")


def test_beside_the_message_only_our_id_leaves(fake: FakeSendGrid) -> None:
    list(opened(fake, batch=2).send(emails(2)))

    body = json.loads(fake.requests[0].body)
    assert set(body) == {"personalizations", "from", "content", "tracking_settings"}
    assert all(
        set(one) == {"to", "subject", "headers", "substitutions", "custom_args"} for one in body["personalizations"]
    )


def test_marketing_carries_the_headers_of_one_click_unsubscribing(fake: FakeSendGrid) -> None:
    list(opened(fake, batch=5).send([an_email(1), an_email(2, purpose="service"), an_email(3, unsubscribe_url="")]))

    assert [mail.headers for mail in fake.accepted] == [
        {"List-Unsubscribe": f"<{UNSUBSCRIBE}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
        {},
        {},
    ]


def test_sendgrid_is_told_to_add_no_unsubscribe_link_of_its_own(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email()]))

    tracking = json.loads(fake.requests[0].body)["tracking_settings"]
    assert tracking == {"subscription_tracking": {"enable": False}}


def test_in_sandbox_mode_everything_is_checked_and_nothing_sent(fake: FakeSendGrid) -> None:
    receipts = list(opened(fake, sandbox=True, batch=2).send(emails(2)))

    assert receipts == [Receipt(f"{n:032x}", Outcome.ACCEPTED) for n in range(2)]
    assert fake.accepted == []
    assert json.loads(fake.requests[0].body)["mail_settings"] == {"sandbox_mode": {"enable": True}}


def test_each_message_leaves_from_its_own_sender(fake: FakeSendGrid) -> None:
    one, other = "Uno <uno@tienda.example>", "dos@tienda.example"
    channel = opened(fake, senders=(one, other), batch=10)

    receipts = list(channel.send([an_email(1, sender=one), an_email(2, sender=other), an_email(3, sender=one)]))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 3
    assert {mail.to: mail.sender for mail in fake.accepted} == {
        "c1@example.com": "uno@tienda.example",
        "c2@example.com": "dos@tienda.example",
        "c3@example.com": "uno@tienda.example",
    }
    assert len(fake.requests) == 2


def test_an_account_in_europe_has_its_own_host() -> None:
    settings = settings_of("x", region="eu")
    options = {name: value for name, value in settings.channels["email"].options.items() if name != "base_url"}
    channels = {"email": replace(settings.channels["email"], options=options)}

    channel: Any = open_channel("email", replace(settings, channels=channels))

    assert channel._api.host == "https://api.eu.sendgrid.com"
    assert channel._api.timeout == 10.0


@pytest.mark.parametrize("address", ["ana", "ana@", "ana@x.example\r\nBcc: all@x.example", "a b@x.example", "", "@x"])
def test_what_can_be_no_address_is_refused_without_asking(fake: FakeSendGrid, address: str) -> None:
    (receipt,) = opened(fake).send([an_email(address=address)])

    assert (receipt.outcome, receipt.blame) == (Outcome.REFUSED, Blame.ADDRESS)
    assert "x.example" not in receipt.detail
    assert fake.requests == []


def test_an_address_of_a_domain_beyond_ascii_is_written_in_ascii(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email(address="ana@ñandú.example")]))

    assert [mail.to for mail in fake.accepted] == ["ana@xn--and-6ma2c.example"]


@pytest.mark.parametrize(
    "content", [Content("email", "x"), Content("email", "", subject="x"), Content("email", "x", subject="\r\n")]
)
def test_a_message_that_sendgrid_requires_more_of_is_refused_without_asking(
    fake: FakeSendGrid, content: Content
) -> None:
    (receipt,) = opened(fake).send([an_email(content=content)])

    assert (receipt.outcome, receipt.blame) == (Outcome.REFUSED, Blame.MESSAGE)
    assert fake.requests == []


HOSTILE = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["x\r\nBcc: all@example.com", "a\u2028b", "\ud800", "\x00"]
)


@given(subject=HOSTILE, name=HOSTILE, url=HOSTILE, body=HOSTILE)
@hypothesis_settings(max_examples=40, deadline=None)
def test_nothing_from_outside_breaks_out_of_its_place(
    lasting: FakeSendGrid, subject: str, name: str, url: str, body: str
) -> None:
    sender = f'"{name.translate({34: None, 92: None})}" <hola@tienda.example>'
    messages = [
        an_email(
            number,
            content=Content("email", f"x{body}", subject=f"x{subject}"),
            unsubscribe_url=f"https://x.example/{url}",
        )
        for number in range(2)
    ]
    try:
        channel = opened(lasting, senders=(sender, "x@tienda.example"), batch=2)
    except ChannelError:
        return  # the sender's name is the marketer's own: it may be refused
    before = len(lasting.requests)

    receipts = list(channel.send([replace(message, sender=sender) for message in messages]))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 2
    for request in lasting.requests[before:]:
        body_there = json.loads(request.body)
        for text in [body_there["from"].get("name", ""), *(one["subject"] for one in body_there["personalizations"])]:
            assert len(text.splitlines()) <= 1
        for one in body_there["personalizations"]:
            assert one["headers"]["List-Unsubscribe"].isascii()
            assert one["headers"]["List-Unsubscribe"].isprintable()
        json.dumps(body_there, ensure_ascii=False).encode()  # no lone surrogate


# --- faults and statuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "outcome", "blame", "acceptances"),
    [
        (Fault.TOO_MANY, Outcome.LATER, Blame.SENDER, 0),
        (Fault.BUSY_BEFORE, Outcome.DOUBT, Blame.NOBODY, 0),
        (Fault.BUSY_AFTER, Outcome.DOUBT, Blame.NOBODY, 1),
        (Fault.DROP_BEFORE, Outcome.DOUBT, Blame.NOBODY, 0),
        (Fault.DROP_AFTER, Outcome.DOUBT, Blame.NOBODY, 1),
        (Fault.SLOW, Outcome.DOUBT, Blame.NOBODY, 1),
        (Fault.OPTED_OUT, Outcome.ACCEPTED, Blame.NOBODY, 1),  # SendGrid takes it, and drops it afterwards
        (Fault.BAD_ADDRESS, Outcome.REFUSED, Blame.ADDRESS, 0),
        (Fault.UNHEARD_OF, Outcome.DOUBT, Blame.NOBODY, 0),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_what_a_fault_makes_of_its_request(
    fake: FakeSendGrid, fault: Fault, outcome: Outcome, blame: Blame, acceptances: int, size: int
) -> None:
    fake.faults.add(fault)
    channel = opened(fake, batch=size, **({"timeout": HALF_A_SECOND} if fault is Fault.SLOW else {}))

    receipts = {receipt.public_id: receipt for receipt in channel.send(emails(size))}

    assert len(receipts) == size
    assert (receipts[f"{0:032x}"].outcome, receipts[f"{0:032x}"].blame) == (outcome, blame)
    assert fake.accepted_count(f"{0:032x}") == acceptances
    for number in range(1, size):  # of one request all have the same fate, unless one of them was refused
        expected, count = (Outcome.ACCEPTED, 1) if fault is Fault.BAD_ADDRESS else (outcome, acceptances)
        assert receipts[f"{number:032x}"].outcome is expected
        assert fake.accepted_count(f"{number:032x}") == count


def test_after_a_refusal_of_the_sender_nothing_more_is_drawn(fake: FakeSendGrid) -> None:
    fake.faults.add(None, Fault.NOT_ALLOWED)
    drawn: list[int] = []

    receipts, error = _drawing(opened(fake, batch=2, parallel=1), emails(9), drawn)

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 2 + [Outcome.LATER] * 2
    assert len(drawn) == 4
    assert "sender" in str(error)
    assert len(fake.accepted) == 2


def test_what_waited_behind_a_refused_sender_is_to_be_tried_later(fake: FakeSendGrid) -> None:
    fake.faults.add(Fault.NOT_ALLOWED)
    messages = [with_text(number, "x" * 20_000) for number in range(3)]  # three requests

    receipts, _ = _drawing(opened(fake, batch=3, parallel=1), messages, [])

    assert [(one.public_id, one.outcome) for one in receipts] == [(m.public_id, Outcome.LATER) for m in messages]
    assert len(fake.requests) == 1


def _drawing(channel: Channel, messages: list[Outgoing], drawn: list[int]) -> tuple[list[Receipt], ChannelError]:
    def draw() -> Iterator[Outgoing]:
        for place, message in enumerate(messages):
            drawn.append(place)
            yield message

    receipts: list[Receipt] = []
    with pytest.raises(ChannelError) as raised:
        collected(channel, draw(), receipts)
    return receipts, raised.value


def test_no_fault_leads_to_a_second_acceptance(fake: FakeSendGrid) -> None:
    faults = [fault for fault in Fault if fault not in (Fault.TOO_MANY, Fault.NOT_ALLOWED, Fault.SLOW)]
    for fault in faults:
        fake.faults.add(fault, None)
    messages = emails(60)

    receipts = {receipt.public_id: receipt for receipt in opened(fake, batch=4).send(messages)}

    assert receipts.keys() == {message.public_id for message in messages}
    for public_id, receipt in receipts.items():
        wanted = {Outcome.ACCEPTED: {1}, Outcome.DOUBT: {0, 1}}.get(receipt.outcome, {0})
        assert fake.accepted_count(public_id) in wanted


def request_of(*messages: Outgoing) -> list[Any]:
    return [prepare(message, SENDER) for message in messages]


@pytest.mark.parametrize(
    ("status", "outcome", "blame", "wrong"),
    [
        (200, Outcome.DOUBT, Blame.NOBODY, False),
        (202, Outcome.ACCEPTED, Blame.NOBODY, False),
        (201, Outcome.DOUBT, Blame.NOBODY, False),
        (302, Outcome.DOUBT, Blame.NOBODY, False),
        (400, Outcome.REFUSED, Blame.MESSAGE, False),
        (401, Outcome.LATER, Blame.NOBODY, True),
        (403, Outcome.LATER, Blame.NOBODY, True),
        (404, Outcome.LATER, Blame.NOBODY, True),
        (405, Outcome.LATER, Blame.NOBODY, True),
        (408, Outcome.DOUBT, Blame.NOBODY, False),
        (413, Outcome.REFUSED, Blame.MESSAGE, False),
        (418, Outcome.DOUBT, Blame.NOBODY, False),
        (429, Outcome.LATER, Blame.SENDER, False),
        (500, Outcome.DOUBT, Blame.NOBODY, False),
        (502, Outcome.DOUBT, Blame.NOBODY, False),
        (503, Outcome.DOUBT, Blame.NOBODY, False),
        (504, Outcome.DOUBT, Blame.NOBODY, False),
    ],
)
def test_what_a_status_means_for_one_message(status: int, outcome: Outcome, blame: Blame, wrong: bool) -> None:
    verdict = verdict_of(request_of(an_email()), Answer(status, b"<html>ana@example.com</html>"))

    (receipt,) = verdict.receipts
    assert (receipt.outcome, receipt.blame, bool(verdict.wrong)) == (outcome, blame, wrong)
    assert list(verdict.again) == []
    assert "@" not in receipt.detail


def test_every_status_that_the_description_of_mail_send_has_is_in_the_table() -> None:
    described = openapi.described("sendgrid_mail.json").raw["paths"]["/v3/mail/send"]["post"]["responses"]

    assert {int(status) for status in described if status != "500"} <= set(STATUSES)


@pytest.mark.parametrize(
    ("field", "blame"),
    [
        ("personalizations.1.to.0.email", Blame.ADDRESS),
        ("personalizations.1.to", Blame.ADDRESS),
        ("personalizations.1", Blame.MESSAGE),
        ("personalizations.1.subject", Blame.MESSAGE),
        ("personalizations.1.substitutions", Blame.MESSAGE),
    ],
)
def test_whom_the_field_of_an_error_blames(field: str, blame: Blame) -> None:
    body = json.dumps({"errors": [{"message": "no ana@example.com", "field": field, "help": None}]}).encode()

    verdict = verdict_of(request_of(*emails(3)), Answer(400, body))

    (receipt,) = verdict.receipts
    assert (receipt.public_id, receipt.outcome, receipt.blame) == (f"{1:032x}", Outcome.REFUSED, blame)
    assert "example" not in receipt.detail
    assert [[one.public_id for one in part] for part in verdict.again] == [[f"{0:032x}", f"{2:032x}"]]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'{"errors": null}', b'{"errors": [1]}', b'{"errors": [{"field": "personalizations.7"}]}', b'{"errors": [{"field": null}]}', b'{"errors": [{"field": "content"}]}'],
)  # fmt: skip
def test_an_error_that_names_no_message_halves_the_request(body: bytes) -> None:
    verdict = verdict_of(request_of(*emails(3)), Answer(400, body))

    assert list(verdict.receipts) == []
    assert [len(part) for part in verdict.again] == [1, 2]


@pytest.mark.parametrize(
    ("field", "key"), [("from.email", "`from`"), ("from", "`from`"), ("reply_to.email", "`mailbox.reply_to`")]
)
def test_an_error_about_what_the_settings_put_into_every_message_is_the_configuration_s(field: str, key: str) -> None:
    body = json.dumps({"errors": [{"message": "x", "field": field}]}).encode()

    verdict = verdict_of(request_of(*emails(2)), Answer(400, body))

    assert outcomes(verdict.receipts) == [Outcome.LATER] * 2
    assert key in verdict.wrong


def test_a_key_that_sendgrid_does_not_know_stops_the_channel(fake: FakeSendGrid) -> None:
    settings = replace(settings_of(fake, parallel=1), secrets={"SENDGRID_API_KEY": "SG.other"})
    receipts: list[Receipt] = []

    with pytest.raises(ChannelError) as raised:
        collected(open_channel("email", settings), emails(3), receipts)

    assert outcomes(receipts) == [Outcome.LATER]
    assert "SENDGRID_API_KEY" in str(raised.value)
    assert "SG.other" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "SG.a\r\nX-Other: b", "SG.ñ"])
def test_a_key_that_can_be_none_is_said_before_anything_is_sent(key: str) -> None:
    settings = replace(settings_of("http://127.0.0.1:1"), secrets={"SENDGRID_API_KEY": key} if key else {})

    with pytest.raises(ChannelError) as raised:
        open_channel("email", settings)

    assert "SENDGRID_API_KEY" in str(raised.value)
    assert "SG." not in str(raised.value)


# --- the connection --------------------------------------------------------------------------------


def test_a_refused_connection_is_tried_again_later() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    receipts = list(opened(url, batch=2).send(emails(3)))

    assert outcomes(receipts) == [Outcome.LATER] * 3
    assert receipts[0].detail == "SendGrid cannot be reached: Connection refused"


def test_a_host_that_has_no_address_is_tried_again_later() -> None:
    (receipt,) = opened("http://nowhere.invalid").send([an_email()])

    assert receipt.outcome is Outcome.LATER


@contextmanager
def answering(do: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does this with its first connection; gives its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                do(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def _reset(connection: socket.socket) -> None:
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_connection_that_breaks_while_the_request_is_written_is_tried_again_later() -> None:
    large = with_text(1, "x" * 12_000_000)
    with answering(_reset) as port:
        (receipt,) = opened(f"http://127.0.0.1:{port}").send([large])

    assert receipt.outcome is Outcome.LATER


def _read_all_and(reply: bytes) -> Callable[[socket.socket], None]:
    def do(connection: socket.socket) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            got += connection.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        connection.sendall(reply)

    return do


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 20",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_half_an_answer_leaves_us_in_doubt(reply: bytes) -> None:
    with answering(_read_all_and(reply)) as port:
        (receipt,) = opened(f"http://127.0.0.1:{port}").send([an_email()])

    assert receipt.outcome is Outcome.DOUBT


def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else(fake: FakeSendGrid) -> None:
    elsewhere = f"HTTP/1.1 302 Found\r\nLocation: {fake.url}/v3/scopes\r\nContent-Length: 0\r\n\r\n"
    with answering(_read_all_and(elsewhere.encode())) as port:
        (receipt,) = opened(f"http://127.0.0.1:{port}").send([an_email()])

    assert (receipt.outcome, receipt.code) == (Outcome.DOUBT, "302")
    assert fake.requests == []


def test_an_acceptance_without_an_id_is_one_all_the_same() -> None:
    with answering(_read_all_and(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")) as port:
        (receipt,) = opened(f"http://127.0.0.1:{port}").send([an_email()])

    assert receipt == Receipt(f"{0:032x}", Outcome.ACCEPTED)


def test_a_handshake_that_fails_is_tried_again_later() -> None:
    with answering(lambda connection: connection.sendall(b"no TLS here" * 10)) as port:
        (receipt,) = opened(f"https://127.0.0.1:{port}").send([an_email()])

    assert receipt.outcome is Outcome.LATER


def test_a_host_with_a_certificate_of_its_own_making_stops_the_channel(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate(tmp_path / "own.pem"))

    def shake(connection: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    with answering(shake) as port:
        receipts: list[Receipt] = []
        with pytest.raises(ChannelError, match="certificate"):
            collected(opened(f"https://127.0.0.1:{port}", parallel=1), emails(2), receipts)

    assert outcomes(receipts) == [Outcome.LATER]


def test_a_host_is_believed_by_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = own_certificate(tmp_path / "own.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            _read_all_and(b"HTTP/1.1 202 Accepted\r\nX-Message-Id: abc\r\nContent-Length: 0\r\n\r\n")(secure)

    with answering(serve) as port:
        (receipt,) = opened(f"https://127.0.0.1:{port}").send([an_email()])

    assert receipt == Receipt(f"{0:032x}", Outcome.ACCEPTED, "abc")


def own_certificate(path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        made.add_extension(address, critical=False)
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def test_nothing_is_logged_of_people_or_keys(fake: FakeSendGrid, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        list(opened(fake).send([an_email()]))

    assert "example.com" not in caplog.text
    assert fake.api_key not in caplog.text


# --- too fast --------------------------------------------------------------------------------------


def test_a_429_is_waited_out_and_nothing_more_is_drawn(fake: FakeSendGrid) -> None:
    fake.faults.add(None, Fault.TOO_MANY)
    channel, messages = opened(fake, batch=2, parallel=1), iter(emails(9))

    receipts = list(channel.send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 2 + [Outcome.LATER] * 2
    assert [(one.blame, one.retry_after, one.code) for one in receipts[2:]] == [
        (Blame.SENDER, timedelta(seconds=60), "429")
    ] * 2
    assert len(list(messages)) == 5


def test_until_the_pause_is_over_no_request_is_made(fake: FakeSendGrid) -> None:
    fake.faults.add(Fault.TOO_MANY)
    channel = opened(fake, batch=3)
    list(channel.send(emails(3)))
    messages = iter(emails(9))

    (receipt,) = channel.send(messages)

    assert (receipt.outcome, receipt.blame) == (Outcome.LATER, Blame.SENDER)
    assert receipt.retry_after is not None
    assert timedelta(seconds=30) < receipt.retry_after <= timedelta(seconds=60)
    assert len(list(messages)) == 8
    assert len(fake.requests) == 1


def test_when_the_last_request_of_a_window_is_used_up_the_others_wait_for_its_reset(fake: FakeSendGrid) -> None:
    fake.limit(2, time.time() + 120)
    channel, messages = opened(fake, parallel=1), iter(emails(9))

    receipts = list(channel.send(messages))
    (later,) = channel.send(messages)

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 2
    assert (later.outcome, later.blame) == (Outcome.LATER, Blame.SENDER)
    assert later.retry_after is not None
    assert timedelta(seconds=60) < later.retry_after <= timedelta(seconds=120)
    assert len(list(messages)) == 6
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"X-RateLimit-Reset": "1700000090", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 90),
        ({"X-RateLimit-Reset": "1600000000", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 1),
        ({"X-RateLimit-Reset": "1900000000", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 3600),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:20 GMT"}, 60),
        ({}, 60),
    ],
)
def test_how_long_is_waited(headers: dict[str, str], wait: int) -> None:
    verdict = verdict_of(request_of(an_email()), Answer(429, b"", headers))

    assert verdict.wait == timedelta(seconds=wait)


def test_what_was_drawn_too_long_ago_is_not_handed_over(fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = chain([0.0, 1.0], repeat(3600.0))  # between the first request of what was drawn and the second
    monkeypatch.setattr(clocks, "read", lambda: (next(asleep), 0.0))
    messages = [an_email(1), with_text(2, "x" * 20_000), with_text(3, "y" * 20_000)]

    receipts = {receipt.public_id: receipt.outcome for receipt in opened(fake, batch=3).send(messages)}

    assert [receipts[one.public_id] for one in messages] == [Outcome.ACCEPTED, Outcome.LATER, Outcome.LATER]
    assert len(fake.accepted) == 1


def test_what_goes_again_is_as_old_as_when_it_was_drawn(fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = chain([0.0, 1.0], repeat(3600.0))  # between the answer and what it leaves to hand over again
    monkeypatch.setattr(clocks, "read", lambda: (next(asleep), 0.0))
    fake.faults.add(Fault.BAD_ADDRESS)

    receipts = list(opened(fake, batch=2).send(emails(2)))

    assert outcomes(receipts) == [Outcome.REFUSED, Outcome.LATER]
    assert len(fake.requests) == 1


# --- several requests at a time ------------------------------------------------------------------------


def of(number: int, request: Recorded) -> bool:
    """Whether the request carries this message."""
    return f'"c{number}@example.com"'.encode() in request.body


def held_back(fake: FakeSendGrid, count: int, number: int, reply: Reply) -> threading.Event:
    """
    Of the first `count` requests, all under way at once, the one that carries this message has that reply.

    The others are answered only once the event is set.
    """
    together, others = threading.Barrier(count), threading.Event()

    def answer(request: Recorded) -> Reply | None:
        if others.is_set():
            return None
        together.wait(10)  # breaks, and the test with it, unless so many are under way at once
        if of(number, request):
            return reply
        assert others.wait(10)
        return None

    fake.on_request = answer
    return others


def drawn_from(messages: list[Outgoing], drawn: list[str]) -> Iterator[Outgoing]:
    for message in messages:
        drawn.append(message.public_id)
        yield message


def heard(
    channel: Channel, messages: Iterable[Outgoing], after_each: Callable[[], object]
) -> tuple[dict[str, Receipt], str]:
    """The receipts, and the text of the error that ended them, if any."""
    receipts = {}
    try:
        for receipt in channel.send(messages):
            receipts[receipt.public_id] = receipt
            after_each()
    except ChannelError as error:
        return receipts, str(error)
    return receipts, ""


@pytest.mark.parametrize("batch", [1, 2])
def test_as_many_requests_are_under_way_as_the_settings_say(fake: FakeSendGrid, batch: int) -> None:
    together = threading.Barrier(3)

    def meet(_: Recorded) -> None:
        together.wait(10)  # breaks, and the test with it, unless three are under way at once

    fake.on_request = meet

    receipts = list(opened(fake, batch=batch, parallel=3).send(emails(9 * batch)))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 9 * batch
    assert (len(fake.requests), fake.most_at_once) == (9, 3)


@pytest.mark.parametrize(("options", "most"), [({}, 8), ({"parallel": 1}, 1), ({"parallel": 5}, 5)])
def test_there_are_never_more_requests_under_way_than_that(
    fake: FakeSendGrid, options: dict[str, Any], most: int
) -> None:
    enough = threading.Event()

    def gather(_: Recorded) -> None:
        if fake.most_at_once < most:
            enough.wait(10)
        enough.set()  # whoever waited in vain lets the others go, and the count tells

    fake.on_request = gather

    receipts = list(opened(fake, **options).send(emails(100)))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 100
    assert fake.most_at_once == most


def test_a_slow_answer_holds_up_nobody_else(fake: FakeSendGrid) -> None:
    others = threading.Event()

    def wait_for_others(request: Recorded) -> None:
        if of(0, request):
            assert others.wait(10)

    fake.on_request = wait_for_others
    order = []
    for receipt in opened(fake, parallel=2).send(emails(6)):
        order.append(receipt.public_id)
        if len(order) == 5:
            others.set()

    assert sorted(order[:5]) == [f"{n:032x}" for n in range(1, 6)]
    assert order[5] == f"{0:032x}"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, "SENDGRID_API_KEY"), (403, "sender"), (404, "base_url")],
)
def test_when_one_of_several_is_told_that_nothing_can_be_sent_the_others_are_heard_first(
    fake: FakeSendGrid, status: int, error: str
) -> None:
    others = held_back(fake, 4, 2, Reply(status))
    drawn: list[str] = []

    receipts, text = heard(opened(fake, parallel=4), drawn_from(emails(12), drawn), others.set)

    assert error in text
    assert next(iter(receipts)) == f"{2:032x}"
    assert {public_id: one.outcome for public_id, one in receipts.items()} == {
        f"{n:032x}": Outcome.LATER if n == 2 else Outcome.ACCEPTED for n in range(4)
    }
    assert drawn == [f"{n:032x}" for n in range(4)]
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(429, headers={"Retry-After": "60"}), Outcome.LATER),
        (Reply(202, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4000000000"}), Outcome.ACCEPTED),
    ],
)
def test_when_one_of_several_is_told_to_wait_the_others_are_heard_and_nothing_more_is_drawn(
    fake: FakeSendGrid, reply: Reply, outcome: Outcome
) -> None:
    others = held_back(fake, 4, 2, reply)
    drawn: list[str] = []
    channel = opened(fake, parallel=4)

    receipts, error = heard(channel, drawn_from(emails(12), drawn), others.set)
    (later,) = channel.send(emails(12)[4:])

    assert error == ""
    assert {public_id: one.outcome for public_id, one in receipts.items()} == {
        f"{n:032x}": outcome if n == 2 else Outcome.ACCEPTED for n in range(4)
    }
    assert drawn == [f"{n:032x}" for n in range(4)]
    assert (later.outcome, later.blame) == (Outcome.LATER, Blame.SENDER)
    assert len(fake.requests) == 4


@pytest.mark.parametrize(("status", "blame"), [(401, Blame.NOBODY), (429, Blame.SENDER)])
def test_what_was_to_go_again_waits_when_another_request_was_told_that_none_may(
    fake: FakeSendGrid, status: int, blame: Blame
) -> None:
    others = held_back(fake, 2, 0, Reply(status))
    fake.faults.add(Fault.BAD_ADDRESS)  # of the other request's first message

    receipts, error = heard(opened(fake, batch=3, parallel=2), emails(6), others.set)

    assert bool(error) == (status == 401)
    found = {public_id: (one.outcome, one.blame) for public_id, one in receipts.items()}
    expected = {f"{n:032x}": (Outcome.LATER, blame) for n in range(6)}
    assert found == {**expected, f"{3:032x}": (Outcome.REFUSED, Blame.ADDRESS)}
    assert len(fake.requests) == 2
    assert fake.accepted == []


def test_what_needs_no_request_has_its_receipt_before_any_answer(fake: FakeSendGrid) -> None:
    answers = threading.Event()

    def hold(_: Recorded) -> None:
        assert answers.wait(10)

    fake.on_request = hold
    messages = [an_email(0), an_email(1, address="nobody"), an_email(2)]
    order = []
    for receipt in opened(fake, parallel=3).send(messages):
        order.append(receipt.outcome)
        answers.set()

    assert order == [Outcome.REFUSED, Outcome.ACCEPTED, Outcome.ACCEPTED]


def test_a_caller_that_stops_listening_leaves_nothing_half_done(fake: FakeSendGrid) -> None:
    drawn: list[str] = []
    sending = opened(fake, parallel=3).send(drawn_from(emails(50), drawn))

    next(sending)
    sending.close()  # type: ignore[attr-defined]

    assert drawn == [f"{n:032x}" for n in range(3)]
    assert drawn == sorted(mail.public_id for mail in fake.accepted)


def test_an_error_that_nobody_foresaw_puts_only_its_own_request_in_doubt(
    fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = api.Straight.post

    def failing(client: api.Straight, request_body: Any) -> Any:
        answer = post(client, request_body)
        if request_body["personalizations"][0]["to"] == [{"email": "c1@example.com"}]:
            raise RuntimeError("ana@example.com")
        return answer

    monkeypatch.setattr(api.Straight, "post", failing)

    receipts = {receipt.public_id: receipt for receipt in opened(fake, parallel=2).send(emails(4))}

    doubtful = receipts.pop(f"{1:032x}")
    assert (doubtful.outcome, doubtful.detail) == (Outcome.DOUBT, "SendGrid's answer cannot be read: RuntimeError")
    assert outcomes(receipts.values()) == [Outcome.ACCEPTED] * 3
    assert len(fake.accepted) == 4


def test_several_requests_at_a_time_believe_the_host_by_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = own_certificate(tmp_path / "own.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake, together = FakeSendGrid(api_key="SG.x"), threading.Barrier(4)
    fake._server.socket = context.wrap_socket(fake._server.socket, server_side=True)

    def meet(_: Recorded) -> None:
        together.wait(10)

    fake.on_request = meet
    with fake:
        receipts = list(opened(fake.url.replace("http:", "https:"), parallel=4).send(emails(12)))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 12
    assert len(fake.accepted) == 12


# --- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "requests"), [(1, 1000), (100, 10)])
def test_a_thousand_messages_arrive_once_each(fake: FakeSendGrid, batch: int, requests: int) -> None:
    messages = emails(1000)

    receipts = list(opened(fake, batch=batch).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 1000
    assert len({receipt.provider_id for receipt in receipts}) == 1000
    assert all(fake.accepted_count(message.public_id) == 1 for message in messages)
    assert {(mail.public_id, mail.to, mail.subject, mail.text, mail.html) for mail in fake.accepted} == {
        (message.public_id, message.address, message.content.subject, message.content.text, message.content.html)
        for message in messages
    }
    assert len(fake.requests) == requests


@pytest.mark.parametrize(("batch", "parallel"), [(1, 1), (4, 1), (1, 3), (4, 3)])
def test_no_more_is_drawn_than_free_requests_may_carry(fake: FakeSendGrid, batch: int, parallel: int) -> None:
    receipts: list[Receipt] = []
    ahead, threads = [], set()

    def draw() -> Iterator[Outgoing]:
        for place, message in enumerate(emails(40)):
            ahead.append(place + 1 - len(receipts))
            threads.add(threading.get_ident())
            yield message

    collected(opened(fake, batch=batch, parallel=parallel), draw(), receipts)

    assert len(receipts) == len(fake.accepted) == 40
    assert max(ahead) == batch * parallel
    assert threads == {threading.get_ident()}


def test_a_batch_of_one_shape_is_one_request_and_others_go_apart(fake: FakeSendGrid) -> None:
    messages = [
        with_text(0, "text alone"),
        with_text(1, "text", "<p>and HTML</p>"),
        with_text(2, "text alone, too"),
        with_text(3, "", "<p>HTML alone</p>"),
        with_text(4, "x" * 11_000, "<p>too large for a substitution</p>"),
        with_text(5, "ñ" * 5_000),  # as many letters as bytes may be
    ]

    receipts = list(opened(fake, batch=10).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 6
    sizes = [len(json.loads(request.body)["personalizations"]) for request in fake.requests]
    assert sorted(sizes) == [1, 1, 1, 1, 2]
    assert {mail.public_id: (mail.text, mail.html) for mail in fake.accepted} == {
        message.public_id: (message.content.text, message.content.html) for message in messages
    }


def shaped(number: int, shape: Shape, *values: str, text: str = "Hola") -> Outgoing:
    said = shape.text.filled(as_read(values)) if shape.text else text
    content = Content("email", said, subject="Hola", shape=shape, values=values)
    return an_email(number, content=content)


LONG = "<p>larga</p>" * 2_000
TWO = Shape(Gaps(("<h1>Hola, ", f"</h1>{LONG}<p>", " y ", "</p>"), (0, 1, 0)), None, "2")
ELEVEN = Shape(Gaps(("<b>", *["</b><b>"] * 10, "</b>"), tuple(range(11))), Gaps((LONG, "."), (10,)), "11")


def test_what_messages_of_one_shape_share_stands_in_a_request_once(fake: FakeSendGrid) -> None:
    messages = [shaped(n, TWO, f"c{n}", f"Ana {n} &amp; ñ", text=f"texto {n}") for n in range(40)]
    messages += [shaped(n, ELEVEN, *(f"v{n}.{place} &lt;a&gt;" for place in range(11))) for n in range(40, 60)]

    receipts = list(opened(fake, batch=100).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 60
    assert sorted(request.body.count(LONG.encode()) for request in fake.requests) == [1, 1]
    assert {mail.public_id: (mail.text, mail.html) for mail in fake.accepted} == {
        message.public_id: (message.content.text, message.content.html) for message in messages
    }


def test_messages_without_any_value_of_their_own_share_a_request(fake: FakeSendGrid) -> None:
    same = Shape(Gaps(("<p>Hola</p>",), ()), Gaps(("Hola",), ()), "same")
    apart = Shape(Gaps(("<p>Hola</p>",), ()), None, "apart")
    messages = [shaped(n, same) for n in range(5)] + [shaped(n, apart, text=f"texto {n}") for n in range(5, 9)]

    receipts = list(opened(fake, batch=100).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 9
    assert len(fake.requests) == 2
    assert {mail.public_id: (mail.text, mail.html) for mail in fake.accepted} == {
        message.public_id: (message.content.text, message.content.html) for message in messages
    }


def test_a_request_that_cannot_be_written_has_certainly_not_left(
    fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.channels.sendgrid.body_of", lambda *_, **__: 1 / 0)

    receipts = list(opened(fake, batch=2).send(emails(3)))

    assert outcomes(receipts) == [Outcome.LATER] * 3
    assert {receipt.detail for receipt in receipts} == {"it cannot be written (ZeroDivisionError)"}
    assert fake.requests == []


def test_a_channel_that_was_closed_opens_again(fake: FakeSendGrid) -> None:
    channel = opened(fake)
    for number in range(2):
        assert outcomes(list(channel.send([an_email(number)]))) == [Outcome.ACCEPTED]
        channel.close()


def test_a_value_that_text_and_html_write_alike_in_all_messages_of_a_request_leaves_once(fake: FakeSendGrid) -> None:
    both = Shape(Gaps(("<b>", " y ", "</b>"), (0, 1)), Gaps(("", " con ", "."), (1, 0)), "both")
    messages = [shaped(n, both, f"Ana {n} ñ", "Luz &amp; Sol" if n == 7 else f"Luz {n}") for n in range(20)]

    list(opened(fake, batch=20).send(messages))

    (request,) = fake.requests
    people = json.loads(request.body)["personalizations"]
    assert {len(one["substitutions"]) for one in people} == {3}
    assert {mail.public_id: (mail.text, mail.html) for mail in fake.accepted} == {
        message.public_id: (message.content.text, message.content.html) for message in messages
    }
    assert fake.accepted[7].text == "Luz & Sol con Ana 7 ñ."


def test_a_message_of_a_shape_goes_alone_where_its_values_are_too_large_or_cannot_be_written(
    fake: FakeSendGrid,
) -> None:
    messages = [shaped(0, TWO, "x" * 9_000, "y" * 1_000), shaped(1, TWO, "a\ud800", "b"), shaped(2, TWO, "c", "d")]

    receipts = list(opened(fake, batch=100).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 3
    assert [len(json.loads(request.body)["personalizations"]) for request in fake.requests] == [1, 1, 1]
    assert {mail.public_id: mail.html for mail in fake.accepted} == {
        message.public_id: message.content.html.replace("\ud800", "?") for message in messages
    }


def test_the_same_address_stands_once_in_a_request(fake: FakeSendGrid) -> None:
    messages = [an_email(0, address="ana@example.com"), an_email(1), an_email(2, address="Ana@example.com")]

    receipts = list(opened(fake, batch=3).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 3
    assert sorted(len(json.loads(request.body)["personalizations"]) for request in fake.requests) == [1, 2]


def test_a_full_batch_of_the_longest_messages_stays_far_below_the_limit() -> None:
    prepared = [prepare(with_text(number, "\x01" * 9_000), SENDER) for number in range(1000)]

    parts = requests_of(one for one in prepared if not isinstance(one, Receipt))

    sizes = [len(json.dumps(body_of(part, read_sender(SENDER), sandbox=False))) for part in parts]
    assert sum(len(part) for part in parts) == 1000
    assert max(sizes) < 25_000_000


def test_of_a_hundred_those_with_a_bad_address_are_refused_and_the_others_arrive_once(fake: FakeSendGrid) -> None:
    bad = {3, 40, 99}
    messages = [an_email(n, **({"address": f"c{n}@local"} if n in bad else {})) for n in range(100)]

    receipts = {receipt.public_id: receipt for receipt in opened(fake, batch=100).send(messages)}

    for number, message in enumerate(messages):
        receipt = receipts[message.public_id]
        expected = (Outcome.REFUSED, Blame.ADDRESS) if number in bad else (Outcome.ACCEPTED, Blame.NOBODY)
        assert (receipt.outcome, receipt.blame) == expected
        assert fake.accepted_count(message.public_id) == (number not in bad)
    assert len(fake.requests) == 2


def test_a_link_that_no_header_can_hold_is_quoted(fake: FakeSendGrid) -> None:
    (receipt,) = opened(fake).send([an_email(unsubscribe_url="https://x.example/ñ>\r\nX-A: <b")])

    assert receipt.outcome is Outcome.ACCEPTED
    assert fake.accepted[0].headers["List-Unsubscribe"] == "<https://x.example/%C3%B1%3E%20X-A:%20%3Cb>"


def test_what_is_too_large_is_halved_until_it_fits() -> None:
    with FakeSendGrid(most_bytes=20_000) as fake:
        messages = [*(with_text(n, "x" * 4_000) for n in range(8)), with_text(8, "x" * 30_000)]

        receipts = {receipt.public_id: receipt for receipt in opened(fake, batch=9).send(messages)}

        assert outcomes(receipts[message.public_id] for message in messages[:8]) == [Outcome.ACCEPTED] * 8
        refused = receipts[messages[8].public_id]
        assert (refused.outcome, refused.blame, refused.code) == (Outcome.REFUSED, Blame.MESSAGE, "413")
        assert [fake.accepted_count(message.public_id) for message in messages] == [1] * 8 + [0]


def test_in_doubt_are_exactly_the_messages_of_the_request_whose_answer_was_lost(fake: FakeSendGrid) -> None:
    fake.faults.add(None, Fault.DROP_AFTER)

    receipts = list(opened(fake, batch=3, parallel=1).send(emails(9)))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * 3 + [Outcome.DOUBT] * 3 + [Outcome.ACCEPTED] * 3
    assert all(fake.accepted_count(f"{n:032x}") == 1 for n in range(9))


LOOKALIKES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=40)
    | st.sampled_from(
        ["-text-", "-html-", "%text%", "{{x}}", "-text0123456789abcdef01234567-", "<%body%>", "[%x%]", "\\", '"']
    ),
    min_size=2,
    max_size=5,
)


@given(LOOKALIKES)
@hypothesis_settings(max_examples=40, deadline=None)
def test_no_content_is_mistaken_for_a_tag(lasting: FakeSendGrid, texts: list[str]) -> None:
    messages = [with_text(n, text, f"<p>{text}</p>", f"x {n}") for n, text in enumerate(texts)]
    before = len(lasting.accepted)

    receipts = list(opened(lasting, batch=5).send(messages))

    assert outcomes(receipts) == [Outcome.ACCEPTED] * len(texts)
    assert [(mail.text, mail.html) for mail in lasting.accepted[before:]] == [
        (text, f"<p>{text}</p>") for text in texts
    ]


def test_the_tags_of_two_requests_are_never_the_same(fake: FakeSendGrid) -> None:
    list(opened(fake, batch=2).send(emails(4)))

    tags = [set(json.loads(request.body)["personalizations"][0]["substitutions"]) for request in fake.requests]
    assert len(tags[0] | tags[1]) == 4


# --- signed events -----------------------------------------------------------------------------------

BODY = b'[{"event": "delivered", "sg_event_id": "a"}]\r\n'


def test_a_request_that_sendgrid_signed_is_believed(fake: FakeSendGrid) -> None:
    assert opened(fake).verify("https://x.example/hook", fake.signed(BODY), BODY)
    assert opened(fake).verify("", {k.upper(): v for k, v in fake.signed(BODY).items()}, BODY)


def test_the_stand_in_signs_as_the_sdk_verifies(fake: FakeSendGrid) -> None:
    from sendgrid import EventWebhook

    headers = fake.signed(BODY)

    signature, timestamp = (headers[f"X-Twilio-Email-Event-Webhook-{name}"] for name in ("Signature", "Timestamp"))
    assert EventWebhook(fake.public_key).verify_signature(BODY.decode(), signature, timestamp)


SIGNATURE, TIMESTAMP = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, BODY.rstrip()),
        ({}, BODY.replace(b"a", b"b")),
        ({TIMESTAMP: str(int(time.time()) - 1)}, BODY),
        ({TIMESTAMP: ""}, BODY),
        ({TIMESTAMP: "never"}, BODY),
        ({TIMESTAMP: "9" * 400}, BODY),
        ({SIGNATURE: ""}, BODY),
        ({SIGNATURE: "ñ"}, BODY),
        ({SIGNATURE: base64.b64encode(b"x" * 70).decode()}, BODY),
    ],
)
def test_a_request_that_was_tampered_with_is_not_believed(
    fake: FakeSendGrid, change: dict[str, str], body: bytes
) -> None:
    assert not opened(fake).verify("", {**fake.signed(BODY), **change}, body)


@pytest.mark.parametrize("missing", [SIGNATURE, TIMESTAMP])
def test_a_request_without_a_signature_is_not_believed(fake: FakeSendGrid, missing: str) -> None:
    headers = {name: value for name, value in fake.signed(BODY).items() if name != missing}

    assert not opened(fake).verify("", headers, BODY)
    assert not opened(fake).verify("", {}, BODY)


@pytest.mark.parametrize(("hours", "believed"), [(24, True), (26, False), (-1, False)])
def test_a_signature_is_believed_for_a_day_and_a_little(fake: FakeSendGrid, hours: int, believed: bool) -> None:
    headers = fake.signed(BODY, time.time() - hours * 3600)

    assert opened(fake).verify("", headers, BODY) is believed


@pytest.mark.parametrize("key", ["", "no key", "YWJj", "-----BEGIN PUBLIC KEY-----"])
def test_without_the_right_key_nothing_is_believed(fake: FakeSendGrid, key: str) -> None:
    secrets = {"SENDGRID_API_KEY": fake.api_key, "SENDGRID_WEBHOOK_KEY": key}
    with FakeSendGrid() as other:
        other_key = {**secrets, "SENDGRID_WEBHOOK_KEY": other.public_key}

    for wrong in (secrets, other_key):
        channel = open_channel("email", replace(settings_of(fake), secrets=wrong))
        assert not channel.verify("", fake.signed(BODY), BODY)


@pytest.mark.parametrize(
    ("event", "more", "kind", "code", "detail"),
    [
        ("processed", {}, "accepted", "", ""),
        ("delivered", {}, "delivered", "", ""),
        ("deferred", {"response": "400 ana@example.com try later"}, "deferred", "", ""),
        ("bounce", {}, "bounced", "5.1.1", "Invalid Address"),
        ("bounce", {"bounce_classification": "Mailbox Unavailable", "status": "5.2.1"}, "bounced", "5.2.1", "Mailbox Unavailable"),
        ("bounce", {"bounce_classification": "Mailbox Unavailable", "status": "5.2.2"}, "failed", "5.2.2", "Mailbox Unavailable"),
        ("bounce", {"bounce_classification": "Reputation", "status": "5.7.1"}, "failed", "5.7.1", "Reputation"),
        ("bounce", {"bounce_classification": "Unclassified", "status": "5.7.26"}, "failed", "5.7.26", "Unclassified"),
        ("bounce", {"bounce_classification": "Content", "status": "5.0.0"}, "failed", "5.0.0", "Content"),
        ("bounce", {"bounce_classification": "Unclassified", "status": "5.0.0"}, "bounced", "5.0.0", "Unclassified"),
        ("bounce", {"bounce_classification": None, "status": None}, "bounced", "", ""),
        ("bounce", {"type": "blocked", "bounce_classification": "Unclassified", "status": None}, "failed", "", "Unclassified"),
        ("bounce", {"type": "blocked", "bounce_classification": "of ana@example.com"}, "failed", "5.1.1", "blocked"),
        ("dropped", {"reason": "Bounced Address"}, "bounced", "5.0.0", "Bounced Address"),
        ("dropped", {"reason": "Unsubscribed Address"}, "opted_out", "5.0.0", "Unsubscribed Address"),
        ("dropped", {"reason": "Spam Reporting Address"}, "complained", "5.0.0", "Spam Reporting Address"),
        ("dropped", {"reason": "Spam Content"}, "failed", "5.0.0", "Spam Content"),
        ("dropped", {"reason": "ana@example.com is bad"}, "failed", "5.0.0", ""),
        ("spamreport", {}, "complained", "", ""),
        ("unsubscribe", {}, "opted_out", "", ""),
        ("group_unsubscribe", {"asm_group_id": 1}, "opted_out", "", ""),
        ("open", {}, "opened", "", ""),
        ("open", {"sg_machine_open": True}, "opened", "", "machine"),
        ("click", {}, "clicked", "", ""),
    ],
)  # fmt: skip
def test_what_an_event_says(
    fake: FakeSendGrid, event: str, more: dict[str, Any], kind: str, code: str, detail: str
) -> None:
    channel = opened(fake)
    list(channel.send([an_email()]))
    posted = fake.event(fake.accepted[0], event, timestamp=1_700_000_000, **more)

    (found,) = channel.parse("", {}, json.dumps([posted]).encode())

    assert (found.kind, found.code, found.detail) == (kind, code, detail)
    assert found.event_id == f"sendgrid:{posted['sg_event_id']}"
    assert found.public_id == f"{0:032x}"
    assert found.provider_id == fake.accepted[0].message_id
    assert found.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert found.address == ""


@pytest.mark.parametrize(
    "event", ["group_resubscribe", "received", "account_status_change", "something new", "", None, 7]
)
def test_an_event_that_is_no_fact_about_a_message_is_passed_over(fake: FakeSendGrid, event: object) -> None:
    assert list(opened(fake).parse("", {}, json.dumps([{"event": event, "sg_event_id": "x"}]).encode())) == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"nonsense", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_list_of_events_is_an_error(fake: FakeSendGrid, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whichever text it has
        opened(fake).parse("", {}, body)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["event", "timestamp", "sg_event_id", "outreach", "status", "type", "reason"]),
            st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just("bounce") | st.just("open"),
        )
    )
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_no_event_however_odd_breaks_the_reading(events: list[dict[str, Any]]) -> None:
    for found in read_events(json.dumps(events).encode()):
        assert found.event_id.startswith("sendgrid:")
        assert len(found.event_id) > len("sendgrid:")


def test_an_event_without_an_id_has_the_same_one_each_time(fake: FakeSendGrid) -> None:
    body = json.dumps([{"event": "open", "timestamp": 1}]).encode()

    assert opened(fake).parse("", {}, body) == opened(fake).parse("", {}, body)


# --- check -------------------------------------------------------------------------------------------


def findings(**account: Any) -> list[Finding]:
    options = account.pop("options", {})
    secrets = account.pop("secrets", {})
    with FakeSendGrid(**account) as server:
        settings = settings_of(server, **options)
        settings = replace(settings, secrets={**settings.secrets, **secrets})
        found = list(open_channel("email", settings).check())
        assert server.accepted == []
        assert all(request.method == "GET" for request in server.requests)
        return found


def test_an_account_that_is_ready_is_said_to_be() -> None:
    found = findings(domains=["tienda.example"])

    assert [finding.ok for finding in found] == [True, True, True]
    assert found[1].text == "SendGrid has authenticated the domain tienda.example"


@pytest.mark.parametrize(
    ("account", "text", "warning"),
    [
        ({"secrets": {"SENDGRID_API_KEY": "SG.other"}}, "does not take SENDGRID_API_KEY", False),
        ({"scopes": ["stats.read"]}, "may not send mail", False),
        ({"domains": ["other.example"], "senders": []}, "neither authenticated tienda.example", False),
        ({"domains": ["sub.tienda.example"], "senders": []}, "neither authenticated tienda.example", False),
        ({"domains": [], "senders": ["hola@tienda.example"]}, "but not the domain tienda.example", True),
        ({"options": {"sandbox": True}}, "sandbox mode", True),
        ({"secrets": {"SENDGRID_WEBHOOK_KEY": ""}}, "SENDGRID_WEBHOOK_KEY is not set", True),
        ({"secrets": {"SENDGRID_WEBHOOK_KEY": "x"}}, "SENDGRID_WEBHOOK_KEY is not a key", False),
        ({"faults": [None, Fault.NOT_ALLOWED, Fault.NOT_ALLOWED]}, "does not show this key whether", True),
        ({"faults": [Fault.BUSY_BEFORE]}, "it answered 500", False),
        ({"faults": [Fault.DROP_BEFORE]}, "cannot be asked", False),
    ],
)
def test_what_an_account_lacks_is_said_with_a_hint(account: dict[str, Any], text: str, warning: bool) -> None:
    wrong = [finding for finding in findings(**account) if not finding.ok]

    assert len(wrong) == 1
    assert text in wrong[0].text
    assert wrong[0].hint
    assert wrong[0].warning is warning
    assert "SG." not in wrong[0].text + wrong[0].hint


# --- the stand-in itself -----------------------------------------------------------------------------


def asked(fake: FakeSendGrid, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", fake.port, timeout=10)
    headers = {"Authorization": f"Bearer {fake.api_key}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, json.loads(read) if read else None


def test_the_logs_find_a_message_by_its_recipient_and_give_our_id_back(fake: FakeSendGrid) -> None:
    list(opened(fake, batch=3).send(emails(5)))
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    query = f"to_email = 'c4@example.com' AND sg_message_id_created_at > TIMESTAMP \"{since}\""

    status, found = asked(fake, "POST", "/v3/logs", {"query": query, "limit": 10})

    assert status == 200
    assert [row["to_email"] for row in found["messages"]] == ["c4@example.com"]
    _, one = asked(fake, "GET", f"/v3/logs/{found['messages'][0]['sg_message_id']}")
    assert one["custom_args"] == {"outreach": f"{4:032x}"}
    for request in fake.requests[-2:]:
        assert openapi.problems("sendgrid_logs.json", request.method, request.path, request.headers, request.body) == []


@pytest.mark.parametrize(
    ("query", "status", "count"),
    [
        ("", 200, 3),
        ("status IN ('delivered', 'bounced')", 200, 1),
        ("status IN ('processed') AND subject = '¡Gracias 1!'", 200, 1),
        ('sg_message_id_created_at < TIMESTAMP "2020-01-01T00:00:00Z"', 200, 0),
        ("to_email > 'a'", 400, 0),
        ("custom_args = 'x'", 400, 0),
        ("to_email = 'a' OR to_email = 'b'", 400, 0),
    ],
)
def test_the_logs_answer_the_queries_that_are_described(
    fake: FakeSendGrid, query: str, status: int, count: int
) -> None:
    list(opened(fake, batch=3).send(emails(3)))
    fake.event(fake.accepted[2], "delivered")

    got, found = asked(fake, "POST", "/v3/logs", {"query": query})

    assert (got, len(found.get("messages", ()))) == (status, count)


def _mail_send(**changes: Any) -> dict[str, Any]:
    person = {"to": [{"email": "ana@example.com"}], "subject": "x"}
    body = {
        "personalizations": [person],
        "from": {"email": "a@b.example"},
        "content": [{"type": "text/plain", "value": "x"}],
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def _person(**changes: Any) -> list[dict[str, Any]]:
    return [{"to": [{"email": "ana@example.com"}], "subject": "x", **changes}]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"personalizations": None}, "personalizations"),
        ({"personalizations": _person() * 1001}, "personalizations"),
        ({"personalizations": _person(to=[])}, "personalizations.0.to"),
        ({"personalizations": _person(to=[{"email": "nobody"}])}, "personalizations.0.to.0.email"),
        ({"personalizations": _person(to=[{"email": "a@b.example"}, {"email": "A@b.example"}])}, "personalizations.0"),
        ({"personalizations": _person(subject="")}, "personalizations.0.subject"),
        ({"personalizations": _person(substitutions={"-x-": "ñ" * 5000})}, "personalizations.0.substitutions"),
        ({"personalizations": _person(custom_args={"x": 1})}, "personalizations.0.custom_args"),
        ({"personalizations": _person(headers={"Subject": "x"})}, "personalizations.0.headers"),
        ({"personalizations": _person(headers={"X-A": "b\r\nc"})}, "personalizations.0.headers"),
        ({"from": None}, "from.email"),
        ({"content": None}, "content"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
        ({"content": [{"type": t, "value": "x"} for t in ("text/html", "text/plain")]}, "content"),
    ],
)
def test_the_stand_in_refuses_what_sendgrid_refuses(fake: FakeSendGrid, changes: dict[str, Any], field: str) -> None:
    status, answer = asked(fake, "POST", "/v3/mail/send", _mail_send(**changes))
    fake.requests.clear()

    assert status == 400
    assert field in [error["field"] for error in answer["errors"]]
    assert fake.accepted == []


@pytest.mark.parametrize(
    ("value", "status"), [("x" * 9_997, 202), ("x" * 9_998, 400), ("ñ" * 4_998, 202), ("ñ" * 4_999, 400)]
)
def test_the_stand_in_counts_the_bytes_of_substitutions(fake: FakeSendGrid, value: str, status: int) -> None:
    got, _ = asked(fake, "POST", "/v3/mail/send", _mail_send(personalizations=_person(substitutions={"-x-": value})))
    fake.requests.clear()

    assert got == status


def test_the_stand_in_finds_tags_in_what_replaced_a_tag(fake: FakeSendGrid) -> None:
    pairs = {"-a-": "one -b-", "-b-": "two"}
    body = _mail_send(personalizations=_person(substitutions=pairs), content=[{"type": "text/plain", "value": "-a-"}])
    backwards = _mail_send(
        personalizations=_person(substitutions=dict(reversed(pairs.items()))),
        content=[{"type": "text/plain", "value": "-a-"}],
    )

    for one in (body, backwards):
        asked(fake, "POST", "/v3/mail/send", one)

    assert [mail.text for mail in fake.accepted] == ["one two", "one two"]


def test_the_stand_in_closes_at_once_while_somebody_waits() -> None:
    with FakeSendGrid(faults=[Fault.SLOW]) as fake:
        connection = HTTPConnection("127.0.0.1", fake.port, timeout=30)
        body = json.dumps(_mail_send()).encode()
        connection.request("POST", "/v3/mail/send", body, {"Authorization": f"Bearer {fake.api_key}"})
    with pytest.raises((OSError, HTTPException)):
        connection.getresponse()
    connection.close()


# --- all the way ---------------------------------------------------------------------------------------

CAMPAIGN = """\
trigger: {event: customer.created}
steps:
  - {id: hello, after: 0 days, channel: email, template: m}
"""


@pytest.mark.parametrize(
    ("fault", "status", "acceptances"),
    [
        (None, "sent", 1),
        (Fault.TOO_MANY, "planned", 0),
        (Fault.DROP_AFTER, "unknown", 1),
        (Fault.NOT_ALLOWED, "planned", 0),
    ],
)
def test_a_dispatch_sends_by_it(
    fake: FakeSendGrid,
    new_database: Callable[[str], str],
    tmp_path: Path,
    fault: Fault | None,
    status: str,
    acceptances: int,
) -> None:
    db = open_database(new_database("sqlite"), secret=SECRET)
    settings = shop.shop_settings(tmp_path, channels=settings_of(fake, batch=10).channels, secrets=fake.environment)
    shop.publish(db, settings, NOW, hello=CAMPAIGN)
    shop.feed(db, settings, NOW, customers=[shop.customer(number, created_at=NOW.isoformat()) for number in range(5)])
    assert planner.plan(db, settings, NOW).planned == 5
    fake.faults.add(fault)

    dispatcher.dispatch(db, settings, NOW)

    messages = shop.rows_of(db, Message)
    db.engine.dispose()
    assert [message.status for message in messages] == [status] * 5
    assert [fake.accepted_count(message.public_id) for message in messages] == [acceptances] * 5
    assert len({message.provider_id for message in messages}) == (5 if status == "sent" else 1)
