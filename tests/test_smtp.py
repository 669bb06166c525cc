"""E-mail over real SMTP to a mail server on 127.0.0.1 that makes mistakes on demand."""

from __future__ import annotations

import asyncio
import email
import email.policy
import smtplib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outreach import clocks
from outreach.channels import Blame, Channel, Outcome, Outgoing, Receipt, open_channel, smtp_connection, smtp_pool
from outreach.channels.smtp_replies import Reply, take_replies
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Business, ChannelSettings, Settings
from outreach.testing import Fault, Faults
from outreach.testing.smtp import HOST, FakeSmtp, _Envelope
from outreach.values import Duration
from tests.conftest import NOW

SENDER = "Tienda Luna <hola@tienda.example>"
LATER, REFUSED, DOUBT, ACCEPTED = Outcome.LATER, Outcome.REFUSED, Outcome.DOUBT, Outcome.ACCEPTED


def mail(number: int = 0, **changes: object) -> Outgoing:
    content = Content("email", f"Hola {number}", subject="¡Hola!", own_html=f"<p>Hola {number}</p>")
    to = f"ana{number}@example.com"
    message = Outgoing(f"{number:032x}", "email", to, "", content, "service", at=NOW, day=NOW.date())
    return replace(message, **changes)  # type: ignore[arg-type]


def mails(count: int, start: int = 0) -> list[Outgoing]:
    return [mail(number) for number in range(start, start + count)]


def message_id(message: Outgoing) -> str:
    return f"<{message.public_id}@tienda.example>"


def settings_of(server: FakeSmtp | int, password: str = "", sender: str = SENDER, **options: object) -> Settings:
    port = server if isinstance(server, int) else server.port
    options = {"host": HOST, "port": port, "security": "none"} | options
    channel = ChannelSettings("smtp", sender, options)
    secrets = {"SMTP_PASSWORD": password} if password else {}
    business = Business("Tienda Luna", "America/Mexico_City", "MXN")
    return Settings(Path("."), business, channels={"email": channel}, secrets=secrets)


@contextmanager
def channel_to(
    server: FakeSmtp | int, password: str = "", sender: str = SENDER, **options: object
) -> Iterator[Channel]:
    channel = open_channel("email", settings_of(server, password, sender, **options))
    try:
        yield channel
    finally:
        channel.close()


def sent(channel: Channel, messages: Sequence[Outgoing]) -> tuple[list[Receipt], str]:
    """The receipts, and what the channel's configuration is blamed for, if it is."""
    receipts, wrong = [], ""
    try:
        for receipt in channel.send(messages):
            receipts.append(receipt)  # noqa: PERF402  those before an error count, too
    except ChannelError as error:
        wrong = str(error)
    assert not any("example" in text for text in [wrong, *(receipt.detail for receipt in receipts)])
    return receipts, wrong


def outcomes(receipts: Sequence[Receipt]) -> Counter[Outcome]:
    return Counter(receipt.outcome for receipt in receipts)


def kept_once(server: FakeSmtp, messages: Sequence[Outgoing]) -> bool:
    return Counter(one.message_id for one in server.accepted) == Counter(map(message_id, messages))


# --- what goes well ------------------------------------------------------------------------------------------------


def test_a_message_is_accepted_under_its_message_id_and_arrives_as_it_was() -> None:
    with FakeSmtp() as server, channel_to(server) as channel:
        receipts, _ = sent(channel, [mail(7)])

        (kept,) = server.accepted
        assert receipts == [Receipt(mail(7).public_id, ACCEPTED, message_id(mail(7)))]
        assert (kept.sender, kept.recipient) == ("hola@tienda.example", "ana7@example.com")
        assert server.accepted_count(message_id(mail(7))) == 1
        read = email.message_from_bytes(kept.content, policy=email.policy.default)
        assert (read["To"], read["Subject"]) == ("ana7@example.com", "¡Hola!")


def test_a_thousand_messages_arrive_once_each_and_can_be_read() -> None:
    messages = mails(1000)

    with FakeSmtp() as server, channel_to(server) as channel:
        receipts, _ = sent(channel, messages)

        assert outcomes(receipts) == {ACCEPTED: 1000}
        assert kept_once(server, messages)
        assert {receipt.public_id for receipt in receipts} == {message.public_id for message in messages}
        for kept in server.accepted[::20]:
            read = email.message_from_bytes(kept.content, policy=email.policy.default)
            assert isinstance(read, EmailMessage)
            plain = read.get_body(("plain",))
            assert plain is not None
            number = int(read["Message-ID"][1:33], 16)
            assert plain.get_content().strip() == f"Hola {number}"
            assert kept.recipient == read["To"] == f"ana{number}@example.com"


def test_connections_are_used_again_by_the_next_batch() -> None:
    with FakeSmtp() as server, channel_to(server, connections=3) as channel:
        sent(channel, mails(30))
        opened = server.opened
        sent(channel, mails(30, start=30))

        assert opened == server.opened == 3
        assert kept_once(server, mails(60))


def test_no_more_connections_are_opened_than_there_are_messages() -> None:
    with FakeSmtp() as server, channel_to(server, connections=10) as channel:
        sent(channel, mails(2))

        assert server.opened <= 2


def test_messages_leave_on_many_connections_at_once() -> None:
    """Each of four messages is held back until all four are there."""

    class Gate(FakeSmtp):
        waiting = 0

        async def handle_MAIL(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
            self.waiting += 1
            while self.waiting < 4:
                await asyncio.sleep(0)
            return await super().handle_MAIL(server, session, envelope, address, options)

    with Gate() as server, channel_to(server, connections=4) as channel:
        receipts, _ = sent(channel, mails(4))

        assert outcomes(receipts) == {ACCEPTED: 4}
        assert server.most_open == 4


def test_a_message_is_drawn_only_when_a_connection_can_take_it() -> None:
    with FakeSmtp() as server, channel_to(server, connections=2) as channel:
        behind = []

        def batch() -> Iterator[Outgoing]:
            for number in range(40):
                behind.append(number - len(server.accepted))
                yield mail(number)

        receipts = list(channel.send(batch()))

        assert outcomes(receipts) == {ACCEPTED: 40}
        assert max(behind) <= 1  # at most one other is on its way


def test_without_pipelining_it_goes_one_command_at_a_time() -> None:
    with FakeSmtp(pipelining=False, bad_addresses=["ana5@example.com"]) as server, channel_to(server) as channel:
        receipts, _ = sent(channel, mails(50))

        assert outcomes(receipts) == {ACCEPTED: 49, REFUSED: 1}
        assert kept_once(server, [message for message in mails(50) if message.address != "ana5@example.com"])


def test_a_lone_dot_does_not_end_a_message_early() -> None:
    body = ".\n..\n.a\nend\n.\n" + "a" * 75 + ".b" * 50
    message = mail(content=Content("email", body, subject="."))

    with FakeSmtp() as server, channel_to(server) as channel:
        receipts, _ = sent(channel, [message])

        read = email.message_from_bytes(server.accepted[0].content, policy=email.policy.default)
        assert outcomes(receipts) == {ACCEPTED: 1}
        assert read.get_content().replace("\r\n", "\n") == body + "\n"


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_message_too_big_for_one_write_arrives_whole(security: str, monkeypatch: pytest.MonkeyPatch) -> None:
    html = "".join(f"<p>{number}</p>" for number in range(100_000))
    message = mail(content=Content("email", "x", subject="x", own_html=html))

    with FakeSmtp(security=security) as server, channel_to(server, security=security) as channel:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        receipts, _ = sent(channel, [message])

        read = email.message_from_bytes(server.accepted[0].content, policy=email.policy.default)
        assert isinstance(read, EmailMessage)
        part = read.get_body(("html",))
        assert part is not None
        assert outcomes(receipts) == {ACCEPTED: 1}
        assert part.get_content().rstrip("\n") == html


# --- what goes wrong -------------------------------------------------------------------------------------------------

FAULTS: list[tuple[Fault, Outcome, Blame, int, bool]] = [
    # fault, outcome, blame, how often the server has it, whether the campaign stops
    (Fault.TOO_MANY, LATER, Blame.SENDER, 0, False),
    (Fault.BUSY_BEFORE, LATER, Blame.NOBODY, 0, False),
    (Fault.BUSY_AFTER, LATER, Blame.NOBODY, 1, False),  # against RFC 5321: what is answered with 4yz is not kept
    (Fault.DROP_BEFORE, DOUBT, Blame.NOBODY, 0, False),
    (Fault.DROP_AFTER, DOUBT, Blame.NOBODY, 1, False),
    (Fault.SLOW, DOUBT, Blame.NOBODY, 1, False),
    (Fault.OPTED_OUT, REFUSED, Blame.MESSAGE, 0, False),
    (Fault.BAD_ADDRESS, REFUSED, Blame.ADDRESS, 0, False),
    (Fault.NOT_ALLOWED, LATER, Blame.NOBODY, 0, True),
    (Fault.UNHEARD_OF, DOUBT, Blame.NOBODY, 0, False),
]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("fault", "outcome", "blame", "kept", "stops"), FAULTS, ids=[row[0] for row in FAULTS])
def test_what_a_fault_makes_of_its_message(
    fault: Fault,
    outcome: Outcome,
    blame: Blame,
    kept: int,
    stops: bool,
    pipelining: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smtp_connection, "DOT_TIMEOUTS", 1)
    with (
        FakeSmtp(faults=Faults([None, fault]), pipelining=pipelining) as server,
        channel_to(server, connections=1, timeout=Duration(seconds=1)) as channel,
    ):
        receipts, wrong = sent(channel, mails(3))

        assert receipts[0].outcome is ACCEPTED
        assert (receipts[1].outcome, receipts[1].blame) == (outcome, blame)
        assert server.accepted_count(message_id(mail(1))) == kept
        assert bool(wrong) is stops
        assert outcomes(receipts[2:]) == ({} if stops else {ACCEPTED: 1})  # the next one is none the worse for it


def test_every_fault_is_in_the_table() -> None:
    assert {row[0] for row in FAULTS} == set(Fault)


@pytest.mark.parametrize("drop_at", ["mail", "rcpt"])
def test_a_connection_cut_before_the_message_was_there_costs_nothing(drop_at: str) -> None:
    faults = Faults([None, Fault.DROP_BEFORE, None, None])
    with FakeSmtp(faults=faults, drop_at=drop_at) as server, channel_to(server, connections=1) as channel:
        receipts, _ = sent(channel, mails(3))

        assert outcomes(receipts) == {ACCEPTED: 3}
        assert kept_once(server, mails(3))
        assert server.opened == 2


def test_a_message_whose_connection_is_cut_twice_before_it_was_there_comes_later() -> None:
    faults = Faults([Fault.DROP_BEFORE, Fault.DROP_BEFORE])
    with FakeSmtp(faults=faults, drop_at="mail") as server, channel_to(server, connections=1) as channel:
        receipts, _ = sent(channel, mails(2))

        assert [(one.public_id, one.outcome) for one in receipts] == [
            (mail(0).public_id, LATER),
            (mail(1).public_id, ACCEPTED),
        ]
        assert kept_once(server, [mail(1)])


@given(
    st.lists(st.sampled_from([None, *(fault for fault in Fault if fault is not Fault.SLOW)]), max_size=40),
    st.integers(1, 5),
    st.sampled_from(["mail", "rcpt", "dot"]),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_no_faults_in_any_order_have_a_message_accepted_twice(
    faults: list[Fault | None], connections: int, drop_at: str
) -> None:
    messages = mails(25)
    with (
        FakeSmtp(faults=Faults(faults), drop_at=drop_at) as server,
        channel_to(server, connections=connections) as channel,
    ):
        drawn: list[Outgoing] = []
        receipts, wrong = sent(channel, (drawn.append(one) or one for one in messages))  # type: ignore[arg-type, func-returns-value]

        counts = Counter(one.message_id for one in server.accepted)
        assert max(counts.values(), default=0) <= 1
        assert Counter(one.public_id for one in receipts) == Counter(one.public_id for one in drawn)
        assert wrong or drawn == messages
        for receipt in receipts:
            times = counts[f"<{receipt.public_id}@tienda.example>"]
            assert times == 1 if receipt.outcome is ACCEPTED else receipt.outcome is not REFUSED or times == 0


# --- replies ----------------------------------------------------------------------------------------------------------


class Saying(FakeSmtp):
    """Answers the second message as it is told, and keeps it only where that is a yes."""

    def __init__(self, stage: str, reply: str, **options: bool) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.stage, self.reply, self.seen = stage, reply, 0

    async def handle_MAIL(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        self.seen += 1
        if self.stage == "mail" and self.seen == 2:
            return self.reply
        return await super().handle_MAIL(server, session, envelope, address, options)

    async def handle_RCPT(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        if self.stage == "rcpt" and self.seen == 2:
            return self.reply
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server, session, envelope: _Envelope) -> str:  # type: ignore[no-untyped-def]  # noqa: N802
        if self.stage == "dot" and self.seen == 2:
            return self.reply
        return await super().handle_DATA(server, session, envelope)


ADDRESS, MESSAGE, NOBODY = Blame.ADDRESS, Blame.MESSAGE, Blame.NOBODY
REPLIES: list[tuple[str, str, Outcome, Blame, bool]] = [
    ("rcpt", "550 5.1.1 unknown", REFUSED, ADDRESS, False),
    ("rcpt", "550-5.1.1 unknown,\r\n550-5.1.1 see our\r\n550 5.1.1 page", REFUSED, ADDRESS, False),
    ("rcpt", "550 5.1.10 RESOLVER.ADR.RecipientNotFound", REFUSED, ADDRESS, False),
    ("rcpt", "550 no such user", REFUSED, ADDRESS, False),
    ("rcpt", "551 not local", REFUSED, ADDRESS, False),
    ("rcpt", "553 not allowed", REFUSED, ADDRESS, False),
    ("rcpt", "501 that is no address", REFUSED, ADDRESS, False),
    ("rcpt", "550 5.4.1 Access denied", REFUSED, ADDRESS, False),
    ("rcpt", "550 5.2.1 disabled", REFUSED, ADDRESS, False),
    ("rcpt", "552 5.2.2 over quota", LATER, NOBODY, False),
    ("rcpt", "452 4.2.2 over quota", LATER, NOBODY, False),
    ("rcpt", "552 too much", LATER, NOBODY, False),
    ("rcpt", "450 4.2.1 receiving mail too quickly", LATER, NOBODY, False),
    ("rcpt", "451 4.7.1 greylisted", LATER, NOBODY, False),
    ("rcpt", "451 later", LATER, NOBODY, False),
    ("rcpt", "550 5.7.1 filtered", REFUSED, MESSAGE, False),
    ("rcpt", "550 5.7.133 for our organisation only", REFUSED, MESSAGE, False),
    ("rcpt", "554 5.5.0 odd", REFUSED, MESSAGE, False),
    ("rcpt", "530 5.7.0 log in", LATER, NOBODY, True),
    ("rcpt", "550 4.1.1 at odds with itself", REFUSED, ADDRESS, False),
    ("rcpt", "354 what", LATER, NOBODY, False),
    ("mail", "550 5.7.1 not yours", LATER, NOBODY, True),
    ("mail", "550 5.7.60 SendAsDenied", LATER, NOBODY, True),
    ("mail", "553 5.1.8 no such domain", LATER, NOBODY, True),
    ("mail", "550 not you", LATER, NOBODY, True),
    ("mail", "552 5.3.4 too large", REFUSED, MESSAGE, False),
    ("mail", "552 too large", REFUSED, MESSAGE, False),
    ("mail", "452 4.3.1 disk full", LATER, NOBODY, False),
    ("mail", "421 4.7.28 unusual rate", LATER, Blame.SENDER, False),
    ("dot", "554 rejected", REFUSED, MESSAGE, False),
    ("dot", "550 5.6.0 bad content", REFUSED, MESSAGE, False),
    ("dot", "552 5.3.4 too large", REFUSED, MESSAGE, False),
    ("dot", "550 5.1.1 nobody", REFUSED, ADDRESS, False),
    ("dot", "550 5.7.26 unauthenticated", LATER, NOBODY, True),
    ("dot", "550 5.7.515 does not meet the level", LATER, NOBODY, True),
    ("dot", "450 4.7.28 slow down", LATER, Blame.SENDER, False),
    ("dot", "451 4.7.1 greylisted", LATER, NOBODY, False),
    ("dot", "421 4.3.2 shutting down", LATER, NOBODY, False),
    ("dot", "251 what", DOUBT, NOBODY, False),
    ("dot", "354 what", DOUBT, NOBODY, False),
    ("dot", "hello", DOUBT, NOBODY, False),
]


@pytest.mark.parametrize(
    ("stage", "reply", "outcome", "blame", "stops"), REPLIES, ids=[f"{r[0]} {r[1]}" for r in REPLIES]
)
def test_what_a_reply_means(stage: str, reply: str, outcome: Outcome, blame: Blame, stops: bool) -> None:
    with Saying(stage, reply) as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(3))

        assert (receipts[1].outcome, receipts[1].blame) == (outcome, blame)
        assert bool(wrong) is stops
        assert kept_once(server, [mail(0)] if stops else [mail(0), mail(2)])


def test_a_filter_counts_against_nobody_before_the_server_has_taken_any_message() -> None:
    with FakeSmtp(faults=Faults([Fault.OPTED_OUT])) as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(1))

        assert (receipts[0].outcome, receipts[0].blame, wrong) == (LATER, NOBODY, "")


def test_a_server_that_filters_every_message_stops_the_campaign() -> None:
    with (
        FakeSmtp(faults=Faults([None, *[Fault.OPTED_OUT] * 9])) as server,
        channel_to(server, connections=1) as channel,
    ):
        receipts, wrong = sent(channel, mails(10))

        assert [one.outcome for one in receipts] == [ACCEPTED, *[REFUSED] * 4, LATER]
        assert "5 messages in a row" in wrong


class Refusing(FakeSmtp):
    """Says the same to every recipient from the `begin`th message on."""

    def __init__(self, reply: str, begin: int = 0) -> None:
        super().__init__()
        self.reply, self.begin, self.seen = reply, begin, 0

    async def handle_RCPT(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        self.seen += 1
        if self.seen > self.begin:
            return self.reply
        return await super().handle_RCPT(server, session, envelope, address, options)


CODES_ALONE = ["550 relay not permitted", "551 we do not relay", "553 sorry, your host is on a list"]


@pytest.mark.parametrize("reply", CODES_ALONE)
def test_a_server_that_takes_nothing_from_us_blames_no_address_and_stops_the_campaign(reply: str) -> None:
    with Refusing(reply) as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(10))

        assert [(one.outcome, one.blame) for one in receipts] == [(LATER, NOBODY)] * 5
        assert "5 messages in a row" in wrong
        assert server.accepted == []


def test_a_server_that_takes_nothing_from_us_is_found_out_over_several_batches_too() -> None:
    with Refusing("550 relay not permitted") as server, channel_to(server, connections=3) as channel:
        several = [sent(channel, mails(2, start=2 * number)) for number in range(3)]

        assert [bool(wrong) for _, wrong in several] == [False, False, True]
        assert {(one.outcome, one.blame) for receipts, _ in several for one in receipts} == {(LATER, NOBODY)}


@pytest.mark.parametrize("reply", CODES_ALONE)
def test_a_server_that_begins_to_refuse_us_stops_the_campaign_before_many_addresses_are_blamed(reply: str) -> None:
    with Refusing(reply, begin=2) as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(20))

        assert [one.outcome for one in receipts] == [ACCEPTED, ACCEPTED, *[REFUSED] * 4, LATER]
        assert {one.blame for one in receipts[2:6]} == {ADDRESS}
        assert receipts[6].blame is NOBODY
        assert "5 messages in a row" in wrong


def test_bad_addresses_among_good_ones_never_stop_a_campaign() -> None:
    class Bare(FakeSmtp):
        async def handle_RCPT(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
            if int(address.partition("@")[0].removeprefix("ana")) % 5:
                return "550 no such user"
            return await super().handle_RCPT(server, session, envelope, address, options)

    with Bare() as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(30))

        assert wrong == ""
        assert Counter((one.outcome, one.blame) for one in receipts) == {(ACCEPTED, NOBODY): 6, (REFUSED, ADDRESS): 24}


def test_an_address_that_is_said_not_to_exist_is_blamed_at_once() -> None:
    with Refusing("550 5.1.1 nobody") as server, channel_to(server, connections=1) as channel:
        receipts, wrong = sent(channel, mails(8))

        assert [(one.outcome, one.blame) for one in receipts] == [(REFUSED, ADDRESS)] * 8
        assert wrong == ""


@given(st.lists(st.sampled_from([(250, "2.1.0"), (250, ""), (550, "5.1.1"), (354, "")]), max_size=6), st.data())
@hypothesis_settings(max_examples=40, deadline=None)
def test_replies_are_read_however_they_are_cut(replies: list[tuple[int, str]], data: st.DataObject) -> None:
    wire = b"".join(
        b"".join(f"{code}-{status} first\r\n".encode() for _ in range(data.draw(st.integers(0, 2))))
        + f"{code} {status} last".encode()
        + b"\r\n"
        for code, status in replies
    )
    received, read = bytearray(), []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        received += wire[:cut]
        wire = wire[cut:]
        read += take_replies(received)

    assert read == [Reply(*reply) for reply in replies]
    assert not received


def test_a_server_that_never_ends_its_reply_is_given_up() -> None:
    with pytest.raises(ValueError, match="endless"):
        take_replies(bytearray(b"250-x\r\n" * 20_000))


# --- how long an answer is waited for -----------------------------------------------------------------------------------


def job_of(data: bytes) -> smtp_connection.Job:
    addresses = "a@x.example", "b@x.example"
    return smtp_connection.Job(mail(), "<id@x>", *addresses, data, utf8=False, drawn=clocks.read())


@pytest.mark.parametrize(("timeout", "whole"), [(1.0, 6.0), (20.0, 120.0), (60.0, 240.0), (300.0, 300.0)])
def test_the_answer_to_a_whole_message_may_take_six_times_as_long(timeout: float, whole: float) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        smtp = smtplib.SMTP()
        smtp.sock = ours
        connection = smtp_connection.Connection(smtp, timeout)
        waits = []
        connection.begin(job_of(b"x\r\n.\r\n"), now=1000.0)
        for now, reply in [(1001.0, b"250 ok"), (1002.0, b"250 ok"), (1003.0, b"354 go on")]:
            waits.append(connection.deadline - now + 1.0)
            theirs.sendall(reply + b"\r\n")
            connection.react(now)

        assert [*waits, connection.deadline - 1003.0] == [timeout, timeout, timeout, whole]


def test_a_server_that_looks_at_a_message_for_longer_than_the_timeout_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it has the message, the clock jumps by 25 seconds, and is looked at a few times more before it answers."""
    jumped, looks = 0.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic() + jumped

    class Scanning(FakeSmtp):
        async def handle_DATA(self, server, session, envelope: _Envelope) -> str:  # type: ignore[no-untyped-def]  # noqa: N802
            nonlocal jumped
            jumped, enough = 25.0, looks + 10
            while looks < enough:
                await asyncio.sleep(0)
            return await super().handle_DATA(server, session, envelope)

    monkeypatch.setattr(smtp_pool, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(smtp_pool, "_LOOK_SECONDS", 0.01)
    with Scanning() as server, channel_to(server, connections=1, timeout=Duration(seconds=20)) as channel:
        receipts, _ = sent(channel, [mail()])

        assert [one.outcome for one in receipts] == [ACCEPTED]
        assert kept_once(server, [mail()])


# --- how long a message may wait to be handed over ----------------------------------------------------------------------

LIMIT = smtp_connection.HAND_OVER_SECONDS
TOO_LATE = "its time to be handed over ran out"


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the machine slept, by the wall clock and by the other; nothing else moves them."""
    slept = [0.0, 0.0]
    monkeypatch.setattr(clocks, "read", lambda: tuple(slept))
    return slept


class Sleeping(FakeSmtp):
    """The machine sleeps at this point of the first message; `cut`: its connection is gone when it wakes."""

    def __init__(self, asleep: list[float], slept: Sequence[float], point: str, *, cut: bool, pipelining: bool) -> None:
        super().__init__(pipelining=pipelining)
        self.asleep, self.slept, self.point, self.cut_off = asleep, slept, point, cut

    async def sleep(self, server, point: str) -> None:  # type: ignore[no-untyped-def]
        if point == self.point:
            self.asleep[:], self.point = self.slept, ""
            if self.cut_off:
                server.transport.abort()
                await asyncio.Event().wait()

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # type: ignore[no-untyped-def]  # noqa: N802
        answer = await super().handle_EHLO(server, session, envelope, hostname, responses)
        await self.sleep(server, "ehlo")
        return answer

    async def handle_MAIL(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        answer = await super().handle_MAIL(server, session, envelope, address, options)
        await self.sleep(server, "mail")
        return answer

    async def handle_RCPT(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        answer = await super().handle_RCPT(server, session, envelope, address, options)
        await self.sleep(server, "rcpt")
        return answer


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("point", "cut", "opened"),
    [
        ("ehlo", False, 1),  # while its connection is opened: that is as good as ever, for the next message
        ("mail", True, 2),  # its connection is gone, and it would be tried once more at once
        ("rcpt", True, 2),
        ("mail", False, 2),  # and then the server asks for it after all
        ("rcpt", False, 2),
    ],
)
@pytest.mark.parametrize("slept", [(LIMIT + 1, 0.0), (0.0, LIMIT + 1), (-3600.0, 3 * 3600.0)])
def test_a_message_that_waited_too_long_is_not_handed_over_and_comes_later(
    asleep: list[float], point: str, cut: bool, opened: int, slept: Sequence[float], pipelining: bool
) -> None:
    with (
        Sleeping(asleep, slept, point, cut=cut, pipelining=pipelining) as server,
        channel_to(server, connections=1) as channel,
    ):
        receipts, wrong = sent(channel, mails(2))

        first = Receipt(mail(0).public_id, LATER, detail=TOO_LATE)
        assert receipts == [first, Receipt(mail(1).public_id, ACCEPTED, message_id(mail(1)))]
        assert kept_once(server, [mail(1)])
        assert (server.opened, server.commands.count("MAIL"), wrong) == (opened, opened, "")


@pytest.mark.parametrize("point", ["ehlo", "rcpt"])
def test_a_message_that_waited_as_long_as_it_may_is_handed_over(asleep: list[float], point: str) -> None:
    with (
        Sleeping(asleep, (LIMIT, LIMIT), point, cut=False, pipelining=True) as server,
        channel_to(server, connections=1) as channel,
    ):
        receipts, _ = sent(channel, mails(2))

        assert outcomes(receipts) == {ACCEPTED: 2}
        assert (kept_once(server, mails(2)), server.opened) == (True, 1)


def test_a_message_is_as_old_as_the_question_whether_it_may_leave(asleep: list[float]) -> None:
    def batch() -> Iterator[Outgoing]:
        yield mail(0)
        asleep[:] = 3600.0, 3600.0  # after whoever gives it looked at the clocks
        yield mail(1)
        yield mail(2)

    with FakeSmtp() as server, channel_to(server, connections=1) as channel:
        receipts = list(channel.send(batch()))

        assert [one.outcome for one in receipts] == [ACCEPTED, LATER, ACCEPTED]
        assert kept_once(server, [mail(0), mail(2)])


def test_nothing_of_a_message_that_is_asked_for_too_late_is_written(asleep: list[float]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        smtp = smtplib.SMTP()
        smtp.sock = ours
        connection = smtp_connection.Connection(smtp, 20.0)
        connection.begin(job_of(b"x\r\n.\r\n"), now=0.0)
        theirs.sendall(b"250 ok\r\n")
        connection.react(0.0)
        theirs.sendall(b"250 ok\r\n")
        connection.react(0.0)
        asleep[1] = 3600.0
        theirs.sendall(b"354 go on\r\n")
        end = connection.react(0.0)

        assert end is not None
        assert (end.how, connection.open, connection.busy) == (smtp_connection.How.LATE, False, False)
        heard = b""
        while data := theirs.recv(4096):
            heard += data
        assert heard.endswith(b"DATA\r\n")


def test_what_was_begun_in_time_is_written_to_its_end(asleep: list[float]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = in_mid_message(ours, theirs)
        asleep[:] = 3600.0, 3600.0
        theirs.setblocking(False)
        heard = b""
        while connection.writing:
            heard += theirs.recv(65_536)
            connection.react(0.0)
        heard += theirs.recv(1_000_000)
        theirs.sendall(b"250 ok\r\n")
        end = connection.react(0.0)

        assert end is not None
        assert end.how is smtp_connection.How.ACCEPTED


# --- connections that end -----------------------------------------------------------------------------------------------


def test_connections_that_the_server_closed_meanwhile_cost_no_message() -> None:
    with FakeSmtp() as server, channel_to(server, connections=3) as channel:
        sent(channel, mails(9))
        server.cut()
        receipts, _ = sent(channel, mails(9, start=9))

        assert outcomes(receipts) == {ACCEPTED: 9}
        assert kept_once(server, mails(18))


def test_a_good_bye_for_idleness_costs_no_message() -> None:
    with Saying("mail", "421 4.4.2 idle for too long") as server, channel_to(server, connections=1) as channel:
        receipts, _ = sent(channel, mails(3))

        assert outcomes(receipts) == {ACCEPTED: 3}
        assert kept_once(server, mails(3))


def test_connections_idle_for_long_are_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSmtp() as server, channel_to(server, connections=1) as channel:
        sent(channel, mails(1))
        assert "NOOP" not in server.commands
        monkeypatch.setattr(smtp_pool, "IDLE_SECONDS", -1.0)
        receipts, _ = sent(channel, mails(1, start=1))

        assert outcomes(receipts) == {ACCEPTED: 1}
        assert server.commands.count("NOOP") == server.opened == 1


def test_a_server_that_takes_few_connections_is_used_with_those() -> None:
    with FakeSmtp(most_connections=2) as server, channel_to(server, connections=6) as channel:
        receipts, _ = sent(channel, mails(40))

        assert outcomes(receipts)[ACCEPTED] >= 36  # each that was turned away may cost its message a later attempt
        assert outcomes(receipts).total() == 40
        assert outcomes(receipts).keys() <= {ACCEPTED, LATER}
        assert len(server.accepted) == outcomes(receipts)[ACCEPTED]


def test_when_nobody_listens_everything_comes_later() -> None:
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]

    with channel_to(port) as channel:
        receipts, wrong = sent(channel, mails(50))

    assert outcomes(receipts) == {LATER: 50}
    assert {receipt.detail for receipt in receipts} == {"Connection refused"}
    assert wrong == ""


class Mute(FakeSmtp):
    """Never answers at one stage of any message."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    async def handle_MAIL(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        if self.stage == "mail":
            await asyncio.Event().wait()
        return await super().handle_MAIL(server, session, envelope, address, options)

    async def handle_RCPT(self, server, session, envelope, address, options):  # type: ignore[no-untyped-def]  # noqa: N802
        if self.stage == "rcpt":
            await asyncio.Event().wait()
        return await super().handle_RCPT(server, session, envelope, address, options)


@pytest.mark.parametrize(("stage", "blame"), [("mail", Blame.ROUTE), ("rcpt", NOBODY)])
def test_a_server_that_says_nothing_at_all_costs_no_attempt_and_one_that_ponders_a_recipient_does(
    stage: str, blame: Blame
) -> None:
    with Mute(stage) as server, channel_to(server, connections=1, timeout=Duration(seconds=1)) as channel:
        (receipt,), wrong = sent(channel, mails(1))

    assert (receipt.outcome, receipt.blame, wrong) == (LATER, blame, "")
    assert receipt.detail == "the server did not answer in time"
    assert not server.accepted


def test_a_server_that_hangs_up_on_every_sender_costs_no_attempt() -> None:
    cuts = Faults([Fault.DROP_BEFORE] * 20)
    with FakeSmtp(faults=cuts, drop_at="mail") as server, channel_to(server, connections=2) as channel:
        receipts, _ = sent(channel, mails(3))

    assert {(one.outcome, one.blame) for one in receipts} == {(LATER, Blame.ROUTE)}


def test_a_batch_that_is_left_halfway_harms_nothing() -> None:
    with FakeSmtp() as server, channel_to(server, connections=4) as channel:
        first = channel.send(mails(20))
        next(first)
        first.close()  # type: ignore[attr-defined]
        receipts, _ = sent(channel, mails(20, start=20))

        assert outcomes(receipts) == {ACCEPTED: 20}
        counts = Counter(one.message_id for one in server.accepted)
        assert max(counts.values()) == 1


def test_closing_says_good_bye_and_the_channel_can_be_used_again() -> None:
    with FakeSmtp() as server, channel_to(server, connections=2) as channel:
        sent(channel, mails(4))
        opened = server.opened
        channel.close()
        assert server.commands.count("QUIT") == opened
        receipts, _ = sent(channel, mails(4, start=4))

        assert outcomes(receipts) == {ACCEPTED: 4}


class Scripted:
    """A server of a few fixed answers: what it says after the greeting, line by line of what it hears."""

    def __init__(self, *answers: tuple[bytes, bytes]) -> None:
        self._answers = answers
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        connection, _ = self._listening.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 scripted\r\n")
            for begins, answer in self._answers:
                line = lines.readline()
                self.heard.append(line)
                assert line.startswith(begins), line
                connection.sendall(answer)


def test_a_server_that_wants_the_message_of_a_refused_recipient_gets_a_lone_dot() -> None:
    script = Scripted(
        (b"ehlo", b"250-x\r\n250 PIPELINING\r\n"),
        (b"MAIL", b"250 ok\r\n"),
        (b"RCPT", b"550 5.1.1 nobody\r\n"),
        (b"DATA", b"354 go on\r\n"),
        (b".\r\n", b"554 no valid recipients\r\n"),
        (b"RSET", b"250 ok\r\n"),
        (b"MAIL", b"250 ok\r\n"),
        (b"RCPT", b"550 5.1.1 nobody\r\n"),
        (b"DATA", b"503 no valid recipients\r\n"),
        (b"QUIT", b"221 bye\r\n"),
    )
    with script, channel_to(script.port, connections=1) as channel:
        receipts, _ = sent(channel, mails(2))

    assert [(one.outcome, one.blame) for one in receipts] == [(REFUSED, ADDRESS)] * 2


def test_a_server_that_refuses_in_the_middle_of_a_message_is_believed() -> None:
    script = Scripted(
        (b"ehlo", b"250 x\r\n"),
        (b"MAIL", b"250 ok\r\n"),
        (b"RCPT", b"250 ok\r\n"),
        (b"DATA", b"354 go on\r\n552 5.3.4 that is too much\r\n"),
    )
    big = mail(content=Content("email", "x", subject="x", own_html="x" * 12_000_000))
    with script, channel_to(script.port, connections=1) as channel:
        receipts, _ = sent(channel, [big])

    assert [(one.outcome, one.blame) for one in receipts] == [(REFUSED, MESSAGE)]


def in_mid_message(ours: socket.socket, theirs: socket.socket) -> smtp_connection.Connection:
    """A connection on which more was to be written than the other side takes."""
    smtp = smtplib.SMTP()
    smtp.sock = ours
    connection = smtp_connection.Connection(smtp, 20.0)
    connection.begin(job_of(b"x" * 3_000_000 + b"\r\n.\r\n"), now=0.0)
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
        theirs.sendall(reply)
        connection.react(0.0)
    assert connection.writing
    return connection


@pytest.mark.parametrize("reply", [b"250 2.0.0 Ok: queued\r\n", b"251 what\r\n", b"354 go on\r\n"])
def test_a_yes_in_the_middle_of_a_message_leaves_it_in_doubt(reply: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = in_mid_message(ours, theirs)
        theirs.sendall(reply)
        end = connection.react(0.0)

        assert end is not None
        assert (end.how, connection.open) == (smtp_connection.How.DOUBT, False)


@pytest.mark.parametrize("size", [10, 12_000_000])
def test_a_yes_before_the_message_was_there_is_no_reason_to_send_it_once_more(size: int) -> None:
    script = Scripted(
        (b"ehlo", b"250 x\r\n"),
        (b"MAIL", b"250 ok\r\n"),
        (b"RCPT", b"250 ok\r\n"),
        (b"DATA", b"354 go on\r\n250 2.0.0 Ok: queued\r\n"),
    )
    message = mail(content=Content("email", "x", subject="x", own_html="x" * size))
    with script, channel_to(script.port, connections=1, timeout=Duration(seconds=1)) as channel:
        receipts, _ = sent(channel, [message])

    assert [(one.outcome, one.blame) for one in receipts] == [(DOUBT, NOBODY)]


# --- getting in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_messages_go_over_tls_with_a_certificate_that_is_trusted(
    security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = ("tienda", "s3cret")
    with FakeSmtp(security=security, login=login) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        with channel_to(server, "s3cret", security=security, user="tienda", connections=3) as channel:
            receipts, _ = sent(channel, mails(60))

            assert outcomes(receipts) == {ACCEPTED: 60}
            assert kept_once(server, mails(60))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_is_not_trusted_stops_the_campaign(security: str) -> None:
    with FakeSmtp(security=security) as server, channel_to(server, security=security) as channel:
        receipts, wrong = sent(channel, mails(30))

        assert "certificate of the server cannot be trusted" in wrong
        assert 1 <= outcomes(receipts)[LATER] == len(receipts) <= 10
        assert server.accepted == []


def test_without_starttls_nothing_is_said_in_clear() -> None:
    login = ("tienda", "s3cret")
    with (
        FakeSmtp(login=login) as server,
        channel_to(server, "s3cret", security="starttls", user="tienda") as channel,
    ):
        receipts, wrong = sent(channel, mails(3))

        assert wrong == f"channels.email: the server offers no STARTTLS on port {server.port}"
        assert outcomes(receipts).keys() == {LATER}
        assert server.commands == []


@pytest.mark.parametrize(
    ("login", "user", "password", "wrong"),
    [
        (("tienda", "s3cret"), "tienda", "wrong", "refuses the login (535)"),
        (("tienda", "s3cret"), "", "", "the server refuses us"),
        (("tienda", "s3cret"), "tienda", "contraseña", "characters that SMTP cannot carry"),
        (None, "tienda", "s3cret", "offers no login"),
    ],
)
def test_a_login_that_fails_stops_the_campaign(
    login: tuple[str, str] | None, user: str, password: str, wrong: str
) -> None:
    with FakeSmtp(login=login) as server, channel_to(server, password, user=user, connections=1) as channel:
        receipts, said = sent(channel, mails(3))

        assert wrong in said
        assert password not in said or not password
        assert outcomes(receipts) == {LATER: 1}
        assert server.accepted == []


def test_tls_on_a_port_without_it_is_an_error_of_the_settings() -> None:
    with FakeSmtp() as server, channel_to(server, security="tls") as channel:
        _, wrong = sent(channel, mails(1))

        assert "`security` or `port` is wrong" in wrong


@pytest.mark.parametrize("sender", ["hola", "hola@", "Tienda <hola tienda@x.example>"])
def test_a_sender_that_is_no_address_is_an_error_of_the_settings(sender: str) -> None:
    with pytest.raises(ChannelError, match=r"channels\.email\.from"):
        open_channel("email", settings_of(1, sender=sender))


# --- addresses and sizes ----------------------------------------------------------------------------------------------------


def test_an_address_that_would_add_a_command_is_refused() -> None:
    with FakeSmtp() as server, channel_to(server) as channel:
        receipts, _ = sent(channel, [mail(address="ana@example.com>\r\nRCPT TO:<all@example.com"), mail(1)])

        assert [(one.outcome, one.blame) for one in receipts] == [(REFUSED, ADDRESS), (ACCEPTED, NOBODY)]
        assert kept_once(server, [mail(1)])


@pytest.mark.parametrize(("utf8", "outcome"), [(True, ACCEPTED), (False, REFUSED)])
def test_an_address_beyond_ascii_needs_a_server_that_takes_it(utf8: bool, outcome: Outcome) -> None:
    with FakeSmtp(utf8=utf8) as server, channel_to(server, connections=1) as channel:
        receipts, _ = sent(channel, [mail(address="ñandú@tienda.example"), mail(1)])

        assert [one.outcome for one in receipts] == [outcome, ACCEPTED]
        assert ("ñandú@tienda.example" in [one.recipient for one in server.accepted]) is utf8


def test_a_domain_beyond_ascii_goes_to_any_server() -> None:
    with FakeSmtp(utf8=False) as server, channel_to(server) as channel:
        sent(channel, [mail(address="ana@ñandú.example")])

        assert [one.recipient for one in server.accepted] == ["ana@xn--and-6ma2c.example"]


def test_a_message_larger_than_the_server_takes_is_not_begun() -> None:
    big = mail(content=Content("email", "x" * 5000, subject="x"))
    with FakeSmtp(size=3000) as server, channel_to(server, connections=1) as channel:
        receipts, _ = sent(channel, [big, mail(1)])

        assert [(one.outcome, one.blame) for one in receipts] == [(REFUSED, MESSAGE), (ACCEPTED, NOBODY)]
        assert server.commands.count("MAIL") == 1


# --- check ----------------------------------------------------------------------------------------------------------------


def test_check_tells_what_is_well_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSmtp(security="starttls", login=("tienda", "s3cret")) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        with channel_to(server, "s3cret", security="starttls", user="tienda") as channel:
            findings = list(channel.check())

        assert all(finding.ok for finding in findings)
        text = "\n".join(finding.text for finding in findings)
        for part in ("over TLS", "accepts the login", "accepts the sender", "33,554 kB", "DKIM"):
            assert part in text
        assert "s3cret" not in text
        assert server.accepted == []
        assert server.commands == ["MAIL", "RCPT", "RSET", "QUIT"]


def test_check_warns_of_a_connection_in_clear() -> None:
    with FakeSmtp() as server, channel_to(server) as channel:
        (bad,) = [finding for finding in channel.check() if not finding.ok]

        assert bad.warning
        assert "without TLS" in bad.text


def test_check_tells_a_sender_that_is_refused() -> None:
    with FakeSmtp(faults=Faults([Fault.NOT_ALLOWED])) as server, channel_to(server) as channel:
        bad = [finding for finding in channel.check() if not finding.ok and not finding.warning]

        assert len(bad) == 1
        assert "530" in bad[0].text


@pytest.mark.parametrize(
    ("reply", "warning", "hint"),
    [
        ("550 relay not permitted", True, "without a login"),
        ("554 5.7.1 Relay access denied", True, "without a login"),
        ("550 5.1.1 User unknown", True, "it should exist"),
        ("450 4.7.1 greylisted", True, "in a few minutes"),
        ("530 5.7.0 log in", False, "without a login"),
    ],
)
def test_check_tells_a_server_that_takes_no_mail_from_us(reply: str, warning: bool, hint: str) -> None:
    with Refusing(reply) as server, channel_to(server) as channel:
        findings = list(channel.check())

        (bad,) = [finding for finding in findings if not finding.ok and "without TLS" not in finding.text]
        assert bad.warning is warning
        assert " ".join(part for part in reply.split() if part[0].isdigit()) in bad.text
        assert hint in bad.hint
        assert "example" not in bad.text
        assert "DKIM" in findings[-1].text  # it goes on after that
        assert server.commands[-2:] == ["RSET", "QUIT"]
        assert server.accepted == []


def test_check_asks_about_every_sender() -> None:
    with Refusing("550 relay not permitted", begin=1) as server:
        settings = settings_of(server)
        pool = (SENDER, "Tienda Sol <hola@sol.example>")
        settings = replace(settings, channels={"email": replace(settings.channels["email"], pool=pool)})
        findings = list(open_channel("email", settings).check())

        assert sum("accepts the sender" in finding.text for finding in findings) == 2
        assert sum("with 550" in finding.text for finding in findings) == 1  # a port may hold it, too


def test_check_tells_what_keeps_it_out() -> None:
    with FakeSmtp(login=("tienda", "s3cret")) as server, channel_to(server, "no", user="tienda") as channel:
        assert [finding.ok for finding in channel.check()] == [False]

    with channel_to(server.port) as channel:
        (finding,) = channel.check()
        assert not finding.ok
        assert "Connection refused" in finding.text


# --- the page -------------------------------------------------------------------------------------------------------------
