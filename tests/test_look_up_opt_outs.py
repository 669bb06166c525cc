"""Whom the providers list as opted out, complaining or unreachable: read again after a restore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outreach.channels import Channel, OptOut
from outreach.channels.sendgrid import opt_outs as of_sendgrid
from outreach.channels.twilio import opt_outs as of_twilio
from outreach.errors import ChannelError
from outreach.testing import Fault
from outreach.testing.sendgrid import FakeSendGrid, Reply
from outreach.testing.twilio import FakeTwilio
from tests import by_twilio
from tests.by_twilio import SENDER, SERVICE, Opens
from tests.test_look_up_sendgrid import opened

twilio, channel = by_twilio.twilio, by_twilio.channel
SINCE = datetime(2026, 6, 1, tzinfo=UTC)
AT = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
PERSON = "+525541000001"


def until_an_error(found: Iterable[OptOut]) -> tuple[list[OptOut], str]:
    came: list[OptOut] = []
    with pytest.raises(ChannelError) as caught:
        came.extend(found)
    return came, str(caught.value)


# --- SendGrid ----------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[FakeSendGrid]:
    with FakeSendGrid() as server:
        yield server


@pytest.fixture
def email(fake: FakeSendGrid) -> Channel:
    return opened(fake)


def test_every_list_of_sendgrid_is_read_each_with_its_reason(fake: FakeSendGrid, email: Channel) -> None:
    fake.suppress("unsubscribes", "u@example.com", AT)
    fake.suppress("groups", "g@example.com", AT)
    fake.suppress("spam_reports", "s@example.com", AT, ip="127.0.0.1")
    fake.suppress("bounces", "b@example.com", AT, reason="550 5.1.1 no", status="5.1.1")
    fake.suppress("invalid_emails", "i@example.com", AT, reason="Mail domain mentioned in email address is unknown")
    fake.suppress("blocks", "k@example.com", AT, reason="too many", status="4.0.0")

    assert list(email.opt_outs(SINCE)) == [
        OptOut("u@example.com", "email", AT, "opted_out"),
        OptOut("g@example.com", "email", AT, "opted_out"),
        OptOut("s@example.com", "email", AT, "complained"),
        OptOut("b@example.com", "email", AT, "bounced"),
        OptOut("i@example.com", "email", AT, "bounced"),
    ]


@pytest.mark.parametrize("status", ["5.7.1", "5.2.2", "4.0.0", "421"])
def test_a_bounce_that_is_not_the_address_s_fault_is_none(status: str, fake: FakeSendGrid, email: Channel) -> None:
    fake.suppress("bounces", "b@example.com", AT, reason="x", status=status)

    assert list(email.opt_outs(SINCE)) == []


@pytest.mark.parametrize("kind", ["unsubscribes", "groups"])
def test_only_what_came_since_then_is_given(kind: str, fake: FakeSendGrid, email: Channel) -> None:
    since = AT + timedelta(milliseconds=700)
    for seconds in (-1, 0, 1):
        fake.suppress(kind, f"c{seconds}@example.com", AT + timedelta(seconds=seconds))

    assert [one.address for one in email.opt_outs(since)] == ["c0@example.com", "c1@example.com"]


def test_a_long_list_is_read_to_its_end(fake: FakeSendGrid, email: Channel) -> None:
    for number in range(1_201):
        fake.suppress("unsubscribes", f"c{number}@example.com", AT)

    assert len({one.address for one in email.opt_outs(SINCE)}) == 1_201
    pages = [request.path for request in fake.requests if "unsubscribes" in request.path]
    assert [re.findall(r"offset=(\d+)", path) for path in pages] == [["0"], ["500"], ["1000"], ["1201"]]
    assert all(f"start_time={int(SINCE.timestamp())}" in path and "limit=500" in path for path in pages)


def test_a_server_that_gives_shorter_pages_than_were_asked_for_is_read_to_the_end_too(
    fake: FakeSendGrid, email: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        fake.suppress("unsubscribes", f"c{number}@example.com", AT)
    whole = fake._suppressions
    monkeypatch.setattr(fake, "_suppressions", lambda kind, query: whole(kind, {**query, "limit": ["2"]}))

    assert len(list(email.opt_outs(SINCE))) == 5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.BUSY_BEFORE, "SendGrid answered HTTP 500"),
        (Fault.TOO_MANY, "SendGrid answered HTTP 429"),
        (Fault.DROP_BEFORE, "SendGrid did not answer"),
        (Fault.NOT_ALLOWED, "give it the permission to read suppressions"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_after_all_others_were(
    fault: Fault, said: str, fake: FakeSendGrid, email: Channel
) -> None:
    fake.suppress("unsubscribes", "u@example.com", AT)
    fake.suppress("invalid_emails", "i@example.com", AT)
    fake.faults.add(None, None, None, fault)

    came, told = until_an_error(email.opt_outs(SINCE))

    assert [one.address for one in came] == ["u@example.com", "i@example.com"]
    assert told.startswith("SendGrid's lists of spam reports could not be read to their end: ")
    assert said in told
    assert "@" not in told


def test_a_page_that_fails_in_mid_list_is_an_error(fake: FakeSendGrid, email: Channel) -> None:
    for number in range(501):
        fake.suppress("unsubscribes", f"c{number}@example.com", AT)
    fake.faults.add(None, Fault.BUSY_BEFORE)

    came, told = until_an_error(email.opt_outs(SINCE))

    assert len(came) == 500
    assert "unsubscribes" in told


def test_a_key_that_is_not_taken_is_said(fake: FakeSendGrid, email: Channel) -> None:
    fake.api_key = "SG.another"

    assert "SendGrid does not take SENDGRID_API_KEY" in until_an_error(email.opt_outs(SINCE))[1]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"null", b"[7]", b"[" * 100_000])
def test_a_list_that_is_none_is_an_error(body: bytes, fake: FakeSendGrid, email: Channel) -> None:
    fake.on_request = lambda _: Reply(200, body)

    assert "SendGrid's answer cannot be read" in until_an_error(email.opt_outs(SINCE))[1]


def test_a_list_at_sendgrid_that_never_ends_is_an_error(
    fake: FakeSendGrid, email: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_sendgrid, "MOST_PAGES", 1)
    fake.suppress("unsubscribes", "u@example.com", AT)

    assert "a list at SendGrid does not end" in until_an_error(email.opt_outs(SINCE))[1]


# --- Twilio ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *of_twilio.OF_TWILIO,
        *of_twilio.OF_SPANISH,
        *of_twilio.OF_PORTUGUESE,
        "stop",
        " Stop. ",
        "STOP!!! 🛑",
        "opt-out",
        "Opt out",
        "stop all",
        "no mas",
        "No más.",
        "NÃO QUERO",
        "nao quero",
    ],
)
def test_a_whole_message_that_is_a_stop_word_is_one_however_it_is_written(text: str) -> None:
    assert of_twilio.is_stop(text)


@pytest.mark.parametrize(
    "text", ["", "🛑", "STOP PLEASE", "no más descuentos?", "cancelar mi pedido", "START", "bajar", "stopping", "yes"]
)
def test_a_message_that_says_more_or_else_is_none(text: str) -> None:
    """A word within a sentence pauses and asks a person when it comes; here it stops nobody."""
    assert not of_twilio.is_stop(text)


def test_who_wrote_a_stop_word_since_then_is_read_from_what_people_wrote(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.put(SENDER, "Stop", sender=PERSON, at=AT, inbound=True)
    twilio.put(SENDER, "gracias", sender="+525541000002", at=AT, inbound=True)
    twilio.put(SENDER, "baja", sender="+525541000003", at=SINCE - timedelta(seconds=1), inbound=True)
    twilio.put(SENDER, "NO MÁS", sender="+525541000004", at=SINCE, inbound=True)
    twilio.put("+525599999999", "STOP", sender="+525541000005", at=AT, inbound=True)
    twilio.put(SENDER, "STOP", sender="+525541000006", at=AT)

    assert list(channel().opt_outs(SINCE)) == [
        OptOut(PERSON, "phone", AT, "opted_out"),
        OptOut("+525541000004", "phone", SINCE, "opted_out"),
    ]


def test_what_came_as_a_webhook_is_found_again(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.inbound("https://shop.example/x", "SALIR", sender=PERSON, to=SENDER)

    assert [one.address for one in channel().opt_outs(SINCE)] == [PERSON]


@pytest.mark.parametrize(("name", "kind"), [("whatsapp", "phone"), ("messenger", "messenger")])
def test_the_other_channels_are_asked_with_their_prefix_and_answer_without(
    name: str, kind: str, twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.put(f"{name}:{SENDER}", "STOP", sender=f"{name}:{PERSON}", at=AT, inbound=True)
    twilio.put(SENDER, "STOP", sender="+525541000002", at=AT, inbound=True)

    assert list(channel(name).opt_outs(SINCE)) == [OptOut(PERSON, kind, AT, "opted_out")]


def test_every_sender_s_list_is_read_to_its_end(twilio: FakeTwilio, channel: Opens) -> None:
    pool = ("+525511111111", "+525522222222")
    for number in range(1_500):
        twilio.put(pool[0], "hola", sender=f"+5255{number:08d}", at=AT, inbound=True)
    twilio.put(pool[0], "STOP", sender=PERSON, at=SINCE, inbound=True)
    twilio.put(pool[0], "STOP", sender="+525541000002", at=AT, inbound=True)
    twilio.put(pool[1], "STOP", sender="+525541000003", at=AT, inbound=True)

    found = [one.address for one in channel("sms", *pool).opt_outs(SINCE)]

    assert found == ["+525541000002", PERSON, "+525541000003"]


@pytest.mark.parametrize(("name", "expected"), [("sms", [PERSON, "+525541000002"]), ("whatsapp", ["+525541000003"])])
def test_of_a_messaging_service_its_senders_of_that_channel_are_read(
    name: str, expected: list[str], twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.pools[SERVICE] = ["+525511111111", "12345", "whatsapp:+525511111111", "messenger:1"]
    twilio.put("+525511111111", "STOP", sender=PERSON, at=AT, inbound=True)
    twilio.put("12345", "STOP", sender="+525541000002", at=AT, inbound=True)
    twilio.put("whatsapp:+525511111111", "STOP", sender="whatsapp:+525541000003", at=AT, inbound=True)
    twilio.put("messenger:1", "STOP", sender="messenger:2", at=AT, inbound=True)

    assert [one.address for one in channel(name, messaging_service=SERVICE).opt_outs(SINCE)] == expected


@pytest.mark.parametrize("fault", [Fault.BUSY_BEFORE, Fault.TOO_MANY, Fault.DROP_BEFORE])
@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_list_of_twilio_that_cannot_be_read_to_its_end_is_an_error(
    fault: Fault, service: str, twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.faults.add(fault)

    _, told = until_an_error(channel(messaging_service=service).opt_outs(SINCE))

    assert told.startswith("channels.sms: ")
    assert told.endswith("try again later")


@pytest.mark.parametrize("service", ["", SERVICE])
def test_credentials_that_are_not_taken_are_said(service: str, twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(Fault.NOT_ALLOWED)

    _, told = until_an_error(channel(messaging_service=service).opt_outs(SINCE))

    assert "the credentials are not right" in told


def test_what_came_before_a_page_that_failed_counts(twilio: FakeTwilio, channel: Opens) -> None:
    for number in range(1_001):
        twilio.put(SENDER, "STOP", sender=f"+5255{number:08d}", at=AT, inbound=True)
    twilio.faults.add(None, Fault.BUSY_BEFORE)

    came, _ = until_an_error(channel().opt_outs(SINCE))

    assert len(came) == 1_000


def test_a_message_without_a_date_counts() -> None:
    row: dict[str, Any] = {"sid": "SM1", "direction": "inbound", "from": PERSON, "body": "STOP", "date_created": None}

    class Undated:
        api = type("", (), {"absolute_url": staticmethod(lambda uri: uri)})

        def request(self, *_: str) -> Any:
            import json

            text = json.dumps({"messages": [row], "next_page_uri": None})
            return type("", (), {"status_code": 200, "text": text, "headers": {}})

    client: Any = Undated()

    assert list(of_twilio.since(client, "AC", "sms", [SENDER], SINCE)) == [OptOut(PERSON, "phone", SINCE, "opted_out")]
