"""Sending by Twilio: what is asked of it and what its answers mean, over real HTTP to a stand-in."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.client import RemoteDisconnected
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, ReadTimeout
from requests.exceptions import ProxyError as RequestsProxyError
from requests.exceptions import SSLError as RequestsSSLError
from twilio.rest import Client
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from outreach.channels import Blame, Outcome, Outgoing, Receipt, open_channel
from outreach.channels.twilio import status_url
from outreach.channels.twilio.api import Http, never_left, parse_retry_after
from outreach.channels.twilio.codes import MEANINGS
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import ChannelSettings
from outreach.testing import Fault
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, RETRY_AFTER, FakeTwilio, Recorded
from tests import by_twilio
from tests.by_twilio import (
    AT,
    PUBLIC,
    SENDER,
    SERVICE,
    SPEC,
    TEMPLATE,
    Opens,
    breaches,
    form,
    one,
    settings,
    sms,
    until_stopped,
    whatsapp,
)
from tests.openapi import problems

twilio, channel = by_twilio.twilio, by_twilio.channel


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_an_sms_is_accepted_under_twilio_s_id(twilio: FakeTwilio, channel: Opens) -> None:
    receipt = one(channel().send([sms()]))

    (accepted,) = twilio.accepted
    assert receipt == Receipt("m1", Outcome.ACCEPTED, provider_id=accepted.sid)
    assert form(twilio) == {
        "To": "+525541000001",
        "From": SENDER,
        "Body": "Hola, Ana",
        "StatusCallback": f"{PUBLIC}/webhooks/twilio/status?m=m1",
    }
    assert twilio.accepted_count("m1") == twilio.accepted_count(to="+525541000001", body="Hola, Ana") == 1


def test_every_form_that_is_sent_fits_twilio_s_own_description(twilio: FakeTwilio, channel: Opens) -> None:
    """As the fixture sees to for every test here; this one says so where the description is missing."""
    soon = AT + timedelta(minutes=5)
    list(channel().send([sms(1, valid_until=soon), sms(2, "ñ á 🎉\n" * 50)]))
    list(channel(messaging_service=SERVICE).send([sms(3)]))
    list(channel("whatsapp").send([whatsapp(4), whatsapp(5, conversation=True)]))

    assert len(twilio.accepted) == 5
    assert breaches(twilio) == []


def test_the_helper_for_descriptions_sees_what_is_wrong(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms()]))
    (request,) = twilio.requests

    def against(path: str = request.path, method: str = "POST", login: bool = True, **changes: str) -> list[str]:
        headers = {name: value for name, value in request.headers.items() if login or name != "authorization"}
        return problems(SPEC, method, path, headers, urlencode({**request.form, **changes}).encode())

    assert against() == []
    assert "Foo" in against(Foo="1")[0]
    assert "abc" in against(ValidityPeriod="abc")[0]
    assert "uri" in against(StatusCallback="nowhere")[0]
    assert "too short" in against(MessagingServiceSid="MG1")[0]
    assert "Security" in against(login=False)[0]
    assert "Path not found" in against(path="/2010-04-01/Messages.json")[0]
    assert "put not found" in against(method="PUT")[0]


def test_a_messaging_service_sends_in_place_of_a_number(twilio: FakeTwilio, channel: Opens) -> None:
    receipt = one(channel(messaging_service=SERVICE).send([sms()]))

    assert receipt.outcome is Outcome.ACCEPTED
    assert form(twilio)["MessagingServiceSid"] == SERVICE
    assert "From" not in form(twilio)
    assert twilio.accepted[0].status == "accepted"


def test_each_message_leaves_by_the_sender_whose_turn_it_is(twilio: FakeTwilio, channel: Opens) -> None:
    pool = ("+525511111111", "+525522222222")
    list(channel("sms", *pool).send(sms(number, sender=pool[number % 2]) for number in range(6)))

    assert {one.public_id: one.form["From"] for one in twilio.accepted} == {f"m{n}": pool[n % 2] for n in range(6)}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(150, "90"), (61, "1"), (61.9, "1"), (36_059.5, "35999"), (36_060, "36000"), (90_000, "36000")],
)
def test_a_message_may_not_be_delivered_after_its_hours(
    seconds: float, expected: str, twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.channels.twilio.monotonic", lambda: 1000.0)
    """A minute less than what `at` leaves: it may be that old, since the dispatcher's clock moves on in whole minutes."""
    list(channel().send([sms(valid_until=AT + timedelta(seconds=seconds))]))

    assert form(twilio)["ValidityPeriod"] == expected


def test_time_that_passes_within_a_batch_shortens_what_is_left(
    twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("outreach.channels.twilio.monotonic", lambda: clock[0])

    def batch() -> Iterator[Outgoing]:
        for number in (1, 2, 3):
            yield sms(number, valid_until=AT + timedelta(seconds=85))
            clock[0] += 10

    receipts = {one.public_id: one.outcome for one in channel(parallel=1).send(batch())}

    assert [one.form["ValidityPeriod"] for one in twilio.accepted] == ["25", "15", "5"]
    assert set(receipts.values()) == {Outcome.ACCEPTED}


@pytest.mark.parametrize("seconds", [-1, 0, 60, 60.9])
def test_a_message_whose_time_may_be_over_waits_and_nobody_is_asked(
    seconds: float, twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.channels.twilio.monotonic", lambda: 1000.0)
    receipt = one(channel().send([sms(valid_until=AT + timedelta(seconds=seconds))]))

    assert (receipt.outcome, receipt.blame, twilio.requests) == (Outcome.LATER, Blame.NOBODY, [])


def test_a_message_that_says_no_moment_is_measured_by_the_clock(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms(at=None, valid_until=datetime.now(UTC) + timedelta(hours=1))]))

    assert 3_000 < int(form(twilio)["ValidityPeriod"]) < 3_600


def test_without_an_end_no_validity_is_asked_for(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms()]))

    assert "ValidityPeriod" not in form(twilio)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("ñ" * 1600, Outcome.ACCEPTED), ("ñ" * 1601, Outcome.REFUSED), ("", Outcome.REFUSED), (" \n", Outcome.REFUSED)],
)
def test_a_text_that_twilio_would_refuse_is_refused_without_asking(
    text: str, outcome: Outcome, twilio: FakeTwilio, channel: Opens
) -> None:
    receipt = one(channel().send([sms(text=text)]))

    assert receipt.outcome is outcome
    assert len(twilio.requests) == (outcome is Outcome.ACCEPTED)
    assert receipt.blame is (Blame.NOBODY if outcome is Outcome.ACCEPTED else Blame.MESSAGE)


@pytest.mark.parametrize(
    ("public_url", "behind_base_url", "expected"),
    [
        ("https://shop.example", False, "https://shop.example/webhooks/twilio/status"),
        ("https://shop.example/outreach/", False, "https://shop.example/outreach/webhooks/twilio/status"),
        ("http://localhost:8080", False, ""),
        ("http://127.0.0.1:8080", False, ""),
        ("http://[::1]:8080", False, ""),
        ("http://192.168.0.7", False, ""),
        ("http://outreach", False, ""),
        ("http://mac.local", False, ""),
        ("http://localhost:8080", True, "http://localhost:8080/webhooks/twilio/status"),
        ("https://my_shop.example", False, ""),
        ("https://my_shop.example", True, ""),
    ],
)
def test_reports_are_asked_for_only_where_twilio_can_make_them(
    public_url: str, behind_base_url: bool, expected: str
) -> None:
    assert status_url(public_url, reachable=behind_base_url) == expected


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8026", True),
        ("http://localhost:8026", True),
        ("http://192.168.0.7", True),
        ("https://relay.example", False),
        ("https://8.8.8.8", False),
    ],
)
def test_an_address_of_this_machine_is_reached_only_from_a_stand_in_nearby(base_url: str, expected: bool) -> None:
    with FakeTwilio() as fake:
        opened = open_channel("sms", settings(fake, base_url=base_url, public_url="http://localhost:8080"))

    assert bool(opened._status_url) is expected  # type: ignore[attr-defined]


def test_our_id_is_quoted_in_the_address_for_reports(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms(public_id="a+b/c&d=é")]))

    assert parse_qs(urlsplit(form(twilio)["StatusCallback"]).query) == {"m": ["a+b/c&d=é"]}
    assert twilio.accepted_count("a+b/c&d=é") == 1


# --- WhatsApp and Messenger ------------------------------------------------------------------------------------------


def test_outside_the_window_whatsapp_gets_the_template_and_its_variables(twilio: FakeTwilio, channel: Opens) -> None:
    receipt = one(channel("whatsapp").send([whatsapp()]))

    sent = form(twilio)
    assert receipt.outcome is Outcome.ACCEPTED
    assert (sent["To"], sent["From"]) == ("whatsapp:+525541000001", f"whatsapp:{SENDER}")
    assert sent["ContentSid"] == TEMPLATE
    assert json.loads(sent["ContentVariables"]) == {"1": "Ana", "2": "Año “nuevo”"}
    assert "Body" not in sent


def test_within_the_window_whatsapp_gets_the_text(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel("whatsapp").send([whatsapp(conversation=True)]))

    assert form(twilio)["Body"] == "Hola, Ana"
    assert not {"ContentSid", "ContentVariables"} & form(twilio).keys()


def test_within_the_window_a_template_goes_where_there_is_no_text(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel("whatsapp").send([whatsapp(text=" ", conversation=True)]))

    assert form(twilio)["ContentSid"] == TEMPLATE


def test_a_template_without_variables_names_none(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel("whatsapp").send([whatsapp(content=Content("whatsapp", "Hola", content_sid=TEMPLATE))]))

    assert "ContentVariables" not in form(twilio)


def test_outside_the_window_a_message_without_a_template_stops_its_campaign_and_no_other(
    twilio: FakeTwilio, channel: Opens
) -> None:
    first, second = sorted(
        channel("whatsapp").send([whatsapp(1, content_sid=""), whatsapp(2)]), key=lambda receipt: receipt.public_id
    )

    assert (first.outcome, first.blame) == (Outcome.LATER, Blame.CAMPAIGN)
    assert "content_sid" in first.detail
    assert second.outcome is Outcome.ACCEPTED
    assert len(twilio.accepted) == 1


def test_messenger_gets_text_under_its_own_prefix(twilio: FakeTwilio, channel: Opens) -> None:
    message = sms(
        channel="messenger", address="5551234", sender="messenger:1029384756", content=Content("messenger", "Hola")
    )
    list(channel("messenger", "messenger:1029384756").send([message]))

    assert (form(twilio)["To"], form(twilio)["From"]) == ("messenger:5551234", "messenger:1029384756")
    assert form(twilio)["Body"] == "Hola"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (whatsapp(conversation=True), (Outcome.LATER, Blame.NOBODY)),  # its template goes next time
        (sms(channel="messenger", address="5551234"), (Outcome.REFUSED, Blame.MESSAGE)),
    ],
)
def test_free_text_that_comes_a_moment_too_late_stops_no_campaign(
    message: Outgoing, expected: tuple[Outcome, Blame], twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.born_failed[message.address] = 63016
    receipt = one(channel(message.channel).send([message]))

    assert (receipt.outcome, receipt.blame) == expected


@pytest.mark.parametrize("code", [21655, 30007, 63016])
def test_a_template_or_text_that_cannot_be_sent_stops_its_campaign_and_no_other(
    code: int, twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.born_failed[whatsapp().address] = code

    receipt = one(channel("whatsapp").send([whatsapp()]))

    assert (receipt.outcome, receipt.blame, receipt.code) == (Outcome.LATER, Blame.CAMPAIGN, str(code))
    assert receipt.detail == f"Twilio {code}: {MEANINGS[code].text}"


# --- what the answers mean -------------------------------------------------------------------------------------------

LATER, DOUBT, REFUSED = Outcome.LATER, Outcome.DOUBT, Outcome.REFUSED
FAULTS: list[tuple[Fault, Outcome, Blame, str, int]] = [
    (Fault.TOO_MANY, LATER, Blame.SENDER, "20429", 0),
    (Fault.BUSY_BEFORE, DOUBT, Blame.NOBODY, "20500", 0),
    (Fault.BUSY_AFTER, DOUBT, Blame.NOBODY, "20500", 1),
    (Fault.DROP_BEFORE, DOUBT, Blame.NOBODY, "", 0),
    (Fault.DROP_AFTER, DOUBT, Blame.NOBODY, "", 1),
    (Fault.SLOW, DOUBT, Blame.NOBODY, "", 1),
    (Fault.OPTED_OUT, REFUSED, Blame.OPT_OUT, "21610", 0),
    (Fault.BAD_ADDRESS, REFUSED, Blame.ADDRESS, "21211", 0),
    (Fault.UNHEARD_OF, DOUBT, Blame.NOBODY, "99999", 0),
]


@pytest.mark.parametrize(("fault", "outcome", "blame", "code", "acceptances"), FAULTS)
def test_whatever_goes_wrong_has_its_meaning_and_is_asked_once(
    fault: Fault,
    outcome: Outcome,
    blame: Blame,
    code: str,
    acceptances: int,
    twilio: FakeTwilio,
    channel: Opens,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault is Fault.SLOW:
        monkeypatch.setattr(ChannelSettings, "timeout", 0.2)
    twilio.faults.add(fault)
    receipt = one(channel().send([sms()]))

    assert (receipt.outcome, receipt.blame, receipt.code) == (outcome, blame, code)
    assert (len(twilio.requests), twilio.accepted_count("m1")) == (1, acceptances)
    assert receipt.provider_id is None
    assert not any(secret in receipt.detail for secret in ("5541000001", "Ana", AUTH_TOKEN, ACCOUNT_SID))


def test_every_fault_has_been_thought_of() -> None:
    assert {fault for fault, *_ in FAULTS} | {Fault.NOT_ALLOWED} == set(Fault)


@pytest.mark.parametrize(
    ("to", "outcome", "blame", "code"),
    [
        ("+15005550001", REFUSED, Blame.ADDRESS, "21211"),
        ("+15005550004", REFUSED, Blame.OPT_OUT, "21610"),
        ("+15005550009", REFUSED, Blame.ADDRESS, "21614"),
        ("+15005550002", REFUSED, Blame.PLACE, "21612"),
        ("+15005550003", REFUSED, Blame.PLACE, "21408"),
    ],
)
def test_the_recipients_of_twilio_s_test_credentials_mean_what_its_page_says(
    to: str, outcome: Outcome, blame: Blame, code: str, channel: Opens
) -> None:
    receipt = one(channel().send([sms(address=to)]))

    assert (receipt.outcome, receipt.blame, receipt.code) == (outcome, blame, code)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sender": "+15005550001"}, "`from`"),
        ({"sender": "+15005550007"}, "`from`"),
    ],
)
def test_what_no_other_message_could_pass_stops_the_campaign(
    changes: dict[str, Any], text: str, twilio: FakeTwilio, channel: Opens
) -> None:
    receipts, wrong = until_stopped(channel("sms", changes.get("sender", SENDER)).send([sms(**changes)]))

    assert [(one.public_id, one.outcome) for one in receipts] == [("m1", LATER)]
    assert twilio.accepted == []
    assert text in wrong
    assert "+1500" not in wrong
    assert "\n" not in wrong


def test_a_full_queue_slows_its_sender(channel: Opens) -> None:
    receipt = one(channel("sms", "+15005550008").send([sms(sender="+15005550008")]))

    assert (receipt.outcome, receipt.blame, receipt.code) == (LATER, Blame.SENDER, "21611")


def test_somebody_who_opted_out_at_twilio_is_taken_at_their_word(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.opted_out.add(sms(2).address)
    receipts = {one.public_id: (one.outcome, one.blame) for one in channel().send(sms(n) for n in (1, 2, 3))}

    assert receipts["m2"] == (REFUSED, Blame.OPT_OUT)
    assert receipts["m1"] == receipts["m3"] == (Outcome.ACCEPTED, Blame.NOBODY)


BORN_FAILED: list[tuple[int, Outcome, Blame]] = [
    (21610, REFUSED, Blame.OPT_OUT),
    (63014, REFUSED, Blame.OPT_OUT),
    *((code, REFUSED, Blame.ADDRESS) for code in (21211, 21614, 21635, 63003, 63024, 30004, 30005, 30006)),
    *((code, REFUSED, Blame.MESSAGE) for code in (35114, 35115, 35118, 63021, 21602, 21617, 21656, 63049)),
    *((code, REFUSED, Blame.PLACE) for code in (21408, 21612)),
    *((code, LATER, Blame.CAMPAIGN) for code in (21655, 30007)),
    *((code, LATER, Blame.SENDER) for code in (21611, 30001, 63018, 63038, 30022, 30023)),
    *((code, LATER, Blame.NOBODY) for code in (30003, 30036, 30047, 30610)),
    (30008, DOUBT, Blame.NOBODY),
    (12345, DOUBT, Blame.NOBODY),
]


@pytest.mark.parametrize(("code", "outcome", "blame"), BORN_FAILED)
def test_a_message_that_failed_as_it_was_made_is_no_success(
    code: int, outcome: Outcome, blame: Blame, twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.born_failed[sms().address] = code
    receipt = one(channel().send([sms()]))

    assert (receipt.outcome, receipt.blame, receipt.code) == (outcome, blame, str(code))
    assert receipt.provider_id == twilio.accepted[0].sid


@pytest.mark.parametrize("code", [20003, 20404, 21608, 21606, 30034, 63007, 30002])
def test_the_codes_of_a_wrong_configuration_stop_the_campaign(code: int, twilio: FakeTwilio, channel: Opens) -> None:
    twilio.born_failed[sms().address] = code

    with pytest.raises(ChannelError, match=str(code)):
        list(channel().send([sms()]))


def test_the_tests_name_every_outcome_that_the_table_has() -> None:
    """A row that is changed by mistake is seen above or here: nothing of the table may mean success."""
    assert Outcome.ACCEPTED not in {meaning.outcome for meaning in MEANINGS.values()}
    for code, outcome, blame in BORN_FAILED:
        if code in MEANINGS:
            assert (MEANINGS[code].outcome, MEANINGS[code].blame) == (outcome, blame)
    for meaning in MEANINGS.values():
        assert (meaning.blame is Blame.SENDER) <= (meaning.outcome is LATER)
        assert (meaning.blame in (Blame.ADDRESS, Blame.OPT_OUT, Blame.MESSAGE, Blame.PLACE)) == (
            meaning.outcome is REFUSED
        )


def test_wrong_credentials_stop_the_campaign_and_hand_back_all_that_was_drawn(
    twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.faults.add(*[Fault.NOT_ALLOWED] * 100)
    drawn: list[str] = []

    def batch() -> Iterator[Outgoing]:
        for number in range(100):
            drawn.append(f"m{number}")
            yield sms(number)

    receipts, wrong = until_stopped(channel(parallel=4).send(batch()))

    assert "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN" in wrong
    assert sorted(one.public_id for one in receipts) == sorted(drawn)
    assert {one.outcome for one in receipts} == {LATER}
    assert len(drawn) < 12
    assert twilio.accepted == []


def test_what_was_taken_before_the_campaign_stopped_keeps_its_receipt(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(None, None, Fault.NOT_ALLOWED)
    receipts, _ = until_stopped(channel(parallel=1).send(sms(n) for n in range(9)))

    assert [(one.public_id, one.outcome.value) for one in receipts] == [
        ("m0", "accepted"),
        ("m1", "accepted"),
        ("m2", "later"),
    ]


@pytest.mark.parametrize("missing", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"])
def test_without_credentials_the_channel_does_not_open(missing: str, twilio: FakeTwilio) -> None:
    known = settings(twilio)
    known = replace(known, secrets={name: value for name, value in known.secrets.items() if name != missing})

    with pytest.raises(ChannelError, match=missing):
        open_channel("sms", known)


@pytest.mark.parametrize("variable", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"])
@pytest.mark.parametrize("value", ["AC0123…", "AC 0123", "clave-ñ", "a\x7fb", "abc\n"])
def test_credentials_that_no_request_could_carry_are_named_and_never_shown(
    variable: str, value: str, twilio: FakeTwilio
) -> None:
    known = settings(twilio)
    known = replace(known, secrets={**known.secrets, variable: value})

    with pytest.raises(ChannelError, match=variable) as refused:
        open_channel("sms", known)
    assert value not in str(refused.value)
    assert "\n" not in str(refused.value)


# --- senders that were too fast ---------------------------------------------------------------------------------------


def test_a_sender_that_was_too_fast_is_asked_nothing_more(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(None, Fault.TOO_MANY)
    batch = (sms(number) for number in range(50))
    receipts = list(channel(parallel=1).send(batch))

    assert [one.outcome for one in receipts] == [Outcome.ACCEPTED, LATER]
    assert (receipts[1].blame, receipts[1].retry_after) == (Blame.SENDER, timedelta(seconds=RETRY_AFTER))
    assert len(twilio.requests) == 2
    assert len(list(batch)) == 48  # undrawn: it has certainly not left


def test_the_other_senders_of_a_pool_go_on(twilio: FakeTwilio, channel: Opens) -> None:
    slow, other = "+525511111111", "+525522222222"
    twilio.faults.add(Fault.TOO_MANY)
    batch = [sms(number, sender=(slow, other)[number % 2]) for number in range(6)]
    receipts = {one.public_id: one for one in channel("sms", slow, other, parallel=1).send(batch)}

    assert [receipts[f"m{n}"].outcome for n in (1, 3, 5)] == [Outcome.ACCEPTED] * 3
    assert [(receipts[f"m{n}"].outcome, receipts[f"m{n}"].blame) for n in (0, 2, 4)] == [(LATER, Blame.SENDER)] * 3
    assert {receipts[f"m{n}"].retry_after for n in (0, 2, 4)} == {timedelta(seconds=RETRY_AFTER)}
    assert len(twilio.requests) == 4


def test_the_next_call_asks_again(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    twilio.faults.add(Fault.TOO_MANY)

    assert one(opened.send([sms()])).outcome is LATER
    assert one(opened.send([sms()])).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("007", timedelta(seconds=7)),
        ("86399", timedelta(seconds=86_399)),
        ("99999999", timedelta(days=1)),
        ("99999999999", timedelta(days=1)),
        ("9" * 5_000, timedelta(days=1)),
        ("0" * 5_000, timedelta(0)),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(days=400)), timedelta(days=1), id="in 400 days"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(days=1)),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec " + "9" * 5_000 + " 23:59:59 GMT", None),
        ("Fri, 31 Dec 2027 23:59:59 +" + "9" * 12, None),
        ("Mon, 15 Jun 2015 15:00:00 GMT", timedelta(0)),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(header: str, expected: timedelta | None) -> None:
    assert parse_retry_after(header) == expected


def test_a_wait_of_absurd_length_is_cut_to_a_day() -> None:
    """And the answer is still read for what it is: nothing was accepted."""
    wait = b"9" * 5_000
    answer = b"HTTP/1.1 429 X\r\nRetry-After: %s\r\nContent-Length: 4\r\n\r\noops" % wait
    with _answering(answer) as url, FakeTwilio() as fake:
        receipt = one(open_channel("sms", settings(fake, base_url=url)).send([sms()]))

    assert (receipt.outcome, receipt.blame, receipt.retry_after) == (LATER, Blame.SENDER, timedelta(days=1))


# --- connections -------------------------------------------------------------------------------------------------------


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as closed, FakeTwilio() as fake:
        closed.bind(("127.0.0.1", 0))
        known = settings(fake, base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        receipt = one(open_channel("sms", known).send([sms()]))

    assert (receipt.outcome, receipt.blame) == (LATER, Blame.ROUTE)


def test_a_host_that_has_no_address_was_sent_nothing() -> None:
    with FakeTwilio() as fake:
        known = settings(fake, base_url="http://nowhere.invalid")
        receipt = one(open_channel("sms", known).send([sms()]))

    assert receipt.outcome is LATER


def _late() -> ReadTimeoutError:
    return ReadTimeoutError(None, "/", "Read timed out.")  # type: ignore[arg-type]


NO_TUNNEL = OSError("Tunnel connection failed: 403 Forbidden")
NO_CONNECTION = NewConnectionError(None, "refused")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (ConnectTimeout(MaxRetryError(None, "/", ConnectTimeoutError("slow"))), True),  # type: ignore[arg-type]
        (RequestsConnectionError(MaxRetryError(None, "/", NO_CONNECTION)), True),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", NO_CONNECTION))), True),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", ConnectTimeoutError()))), True),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", NO_TUNNEL))), True),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", OSError()))), False),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", ConnectionResetError()))), False),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", RemoteDisconnected("")))), False),  # type: ignore[arg-type]
        (RequestsProxyError(MaxRetryError(None, "/", ProxyError("no", _late()))), False),  # type: ignore[arg-type]
        (RequestsProxyError(), False),
        (RequestsSSLError(MaxRetryError(None, "/", SSLError(ssl.SSLCertVerificationError()))), True),  # type: ignore[arg-type]
        (RequestsSSLError(MaxRetryError(None, "/", SSLError(ssl.SSLError("bad record")))), False),  # type: ignore[arg-type]
        (RequestsConnectionError(ProtocolError("aborted", ConnectionResetError())), False),
        (RequestsConnectionError(MaxRetryError(None, "/", ProtocolError("aborted"))), False),  # type: ignore[arg-type]
        (RequestsConnectionError(), False),
        (ReadTimeout(), False),
        (OSError("anything"), False),
    ],
)
def test_only_a_request_that_found_no_connection_has_certainly_not_left(error: Exception, certain: bool) -> None:
    assert never_left(error) is certain


def test_something_that_is_not_twilio_is_believed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of 201 without a message, and one that is not even JSON."""
    for content in (b"{}", b"<html>welcome</html>"):
        with _answering(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)) as url:
            with FakeTwilio() as fake:
                receipt = one(open_channel("sms", settings(fake, base_url=url)).send([sms()]))
            assert receipt.outcome is DOUBT


@pytest.mark.parametrize(
    ("status", "outcome"), [(302, DOUBT), (400, DOUBT), (408, DOUBT), (500, DOUBT), (503, DOUBT), (429, LATER)]
)
def test_an_answer_without_a_code_of_twilio_s_is_certain_only_where_http_is(status: int, outcome: Outcome) -> None:
    with _answering(b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\noops" % status) as url, FakeTwilio() as fake:
        receipt = one(open_channel("sms", settings(fake, base_url=url)).send([sms()]))

    assert receipt.outcome is outcome


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [(400, 21610, REFUSED), (500, 21610, DOUBT), (503, 20429, DOUBT), (302, 21610, DOUBT), (429, 12345, LATER)],
)
def test_a_code_counts_only_where_the_request_was_certainly_refused(status: int, code: int, outcome: Outcome) -> None:
    content = json.dumps({"code": code, "message": "no", "status": status}).encode()
    answer = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)
    with _answering(answer) as url, FakeTwilio() as fake:
        receipt = one(open_channel("sms", settings(fake, base_url=url)).send([sms()]))

    assert (receipt.outcome, receipt.code) == (outcome, str(code))


@pytest.mark.parametrize("status", [401, 403, 404, 407])
def test_a_proxy_that_refuses_everything_stops_the_campaign(status: int) -> None:
    with (
        _answering(b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\noops" % status) as url,
        FakeTwilio() as fake,
        pytest.raises(ChannelError),
    ):
        list(open_channel("sms", settings(fake, base_url=url)).send([sms()]))


class _answering:  # noqa: N801
    """A server that gives every request the same bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.listening = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.listening.close()

    def _serve(self) -> None:
        try:
            asked, _ = self.listening.accept()
        except OSError:
            return
        with asked:
            while b"\r\n\r\n" not in asked.recv(65536, socket.MSG_PEEK):
                pass
            asked.recv(65536)
            asked.sendall(self.content)
            asked.shutdown(socket.SHUT_WR)
            while asked.recv(65536):
                pass


def test_connections_are_kept_and_used_again(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel(parallel=2)
    for number in range(3):
        list(opened.send(sms(10 * number + more) for more in range(10)))

    assert len(twilio.accepted) == 30
    assert twilio.connections <= 2


@pytest.mark.parametrize(("idle", "connections"), [(10, 1), (30, 2)])
def test_a_connection_that_twilio_may_have_closed_meanwhile_is_not_trusted(
    idle: int, connections: int, twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request on it could fail without telling whether it arrived."""
    clock = [1000.0]
    monkeypatch.setattr("outreach.channels.twilio.api.monotonic", lambda: clock[0])
    opened = channel()
    list(opened.send([sms(1)]))
    clock[0] += idle
    list(opened.send([sms(2)]))

    assert (len(twilio.accepted), twilio.connections) == (2, connections)


def test_a_closed_channel_may_be_used_again(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    list(opened.send([sms(1)]))
    opened.close()
    list(opened.send([sms(2)]))

    assert (len(twilio.accepted), twilio.connections) == (2, 2)


def test_the_log_names_nobody(twilio: FakeTwilio, channel: Opens, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        list(channel().send([sms()]))
        list(channel().check())
    with caplog.at_level(logging.INFO):  # below it, urllib3 logs what is asked for
        http = Http(5, twilio.url)
        Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http).messages.list(to=sms().address)
        http.close()

    assert len(twilio.requests) == 4
    assert not any(word in caplog.text for word in ("5541000001", "Hola", AUTH_TOKEN))


def test_an_environment_that_names_a_proxy_leaves_this_machine_alone(
    twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert one(channel().send([sms()])).outcome is Outcome.ACCEPTED


def test_a_client_waits_no_longer_than_it_was_told_and_posts_nothing_twice() -> None:
    http = Http(2.5)

    assert http.timeout == 2.5
    assert {adapter.max_retries.total for adapter in http.session.adapters.values()} == {0}


# --- batches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 3])
def test_messages_are_drawn_only_when_one_can_leave(parallel: int, twilio: FakeTwilio, channel: Opens) -> None:
    drawn: list[int] = []

    def batch() -> Iterator[Outgoing]:
        for number in range(30):
            drawn.append(number)
            yield sms(number)

    receipts = 0
    for _ in channel(parallel=parallel).send(batch()):
        receipts += 1
        assert len(drawn) <= receipts + 2 * parallel  # those that were answered, and those under way

    assert receipts == len(twilio.accepted) == 30


def test_a_batch_whose_time_is_up_ends_early(twilio: FakeTwilio, channel: Opens) -> None:
    batch = iter([sms(1), sms(2)])

    assert len(list(channel(parallel=1).send(one for one in batch if one.public_id == "m1"))) == 1
    assert len(twilio.accepted) == 1


def test_the_batch_is_drawn_by_the_caller_s_own_thread(channel: Opens) -> None:
    threads = set()

    def batch() -> Iterator[Outgoing]:
        for number in range(10):
            threads.add(threading.get_ident())
            yield sms(number)

    list(channel().send(batch()))

    assert threads == {threading.get_ident()}


def test_a_caller_that_stops_listening_leaves_nothing_half_done(twilio: FakeTwilio, channel: Opens) -> None:
    drawn: list[str] = []

    def batch() -> Iterator[Outgoing]:
        for number in range(50):
            drawn.append(f"m{number}")
            yield sms(number)

    sending = channel(parallel=2).send(batch())
    next(sending)
    sending.close()  # type: ignore[attr-defined]

    assert len(drawn) <= 6
    assert sorted(drawn) == sorted(one.public_id for one in twilio.accepted)


def test_as_many_requests_are_under_way_as_the_settings_say(channel: Opens, twilio: FakeTwilio) -> None:
    together = threading.Barrier(3)

    def meet(_: Any) -> None:
        if len(twilio.requests) <= 3:
            together.wait(10)  # breaks, and the test with it, unless three are under way at once

    twilio.on_request = meet
    receipts = list(channel(parallel=3).send(sms(number) for number in range(9)))

    assert {one.outcome for one in receipts} == {Outcome.ACCEPTED}
    assert twilio.most_at_once == 3


def test_a_slow_answer_holds_up_nobody_else(channel: Opens, twilio: FakeTwilio) -> None:
    others = threading.Event()

    def wait_for_others(request: Recorded) -> None:
        if "m=m0" in request.form["StatusCallback"]:
            assert others.wait(10)

    twilio.on_request = wait_for_others
    order = []
    for receipt in channel(parallel=2).send(sms(number) for number in range(6)):
        assert receipt.outcome is Outcome.ACCEPTED
        order.append(receipt.public_id)
        if len(order) == 5:
            others.set()

    assert sorted(order[:5]) == ["m1", "m2", "m3", "m4", "m5"]
    assert order[5] == "m0"


def test_a_thousand_sms_arrive_once_each(twilio: FakeTwilio, channel: Opens) -> None:
    receipts = list(channel().send(sms(number) for number in range(1000)))

    assert {one.outcome for one in receipts} == {Outcome.ACCEPTED}
    assert len({one.provider_id for one in receipts}) == len({one.public_id for one in receipts}) == 1000
    assert sorted(one.public_id for one in twilio.accepted) == sorted(f"m{number}" for number in range(1000))
    assert 1 <= twilio.most_at_once <= 8


def test_what_twilio_has_is_never_called_certain_not_to_have_left(twilio: FakeTwilio, channel: Opens) -> None:
    """Every fault in turn, over and over: accepted means there once, refused and later mean not there."""
    cycle = [None, *(fault for fault in Fault if fault not in (Fault.SLOW, Fault.NOT_ALLOWED, Fault.TOO_MANY))]
    twilio.faults.add(*cycle * 12)
    receipts = list(channel().send(sms(number) for number in range(len(cycle) * 12)))

    assert len(receipts) == len(cycle) * 12
    for receipt in receipts:
        acceptances = twilio.accepted_count(receipt.public_id)
        allowed = {Outcome.ACCEPTED: {1}, REFUSED: {0}, LATER: {0}, DOUBT: {0, 1}}[receipt.outcome]
        assert acceptances in allowed, receipt
    assert {one.outcome for one in receipts} == {Outcome.ACCEPTED, REFUSED, DOUBT}
