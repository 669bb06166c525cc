"""What Twilio tells us: reports, replies and signatures; what the doctor asks it; and that the stand-in is like it."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import pytest
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from outreach.channels import InboundEvent, Outcome, Outgoing, open_channel
from outreach.channels.twilio import Twilio
from outreach.channels.twilio.api import Http, is_public
from outreach.channels.twilio.codes import kind_of_failure
from outreach.channels.twilio.webhooks import events
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio, Signed
from tests import by_twilio
from tests.by_twilio import (
    AT,
    PUBLIC,
    SENDER,
    SERVICE,
    TEMPLATE,
    Opens,
    one,
    settings,
    sms,
    whatsapp,
)

twilio, channel = by_twilio.twilio, by_twilio.channel
SIGNATURE = "X-Twilio-Signature"

# --- delivery reports and replies ------------------------------------------------------------------------------------------


def read(opened: Twilio, signed: Signed) -> InboundEvent:
    assert opened.verify(signed.url, signed.headers, signed.body)
    (event,) = opened.parse(signed.url, signed.headers, signed.body)
    return event


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("queued", "accepted"),
        ("sending", "accepted"),
        ("sent", "accepted"),
        ("delivered", "delivered"),
        ("read", "opened"),
    ],
)
def test_a_report_says_which_message_and_how_far(status: str, kind: str, twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    receipt = one(opened.send([sms(7)]))

    assert read(opened, twilio.report("m7", status)) == InboundEvent(
        event_id=f"twilio:{receipt.provider_id}:{status}",
        kind=kind,
        public_id="m7",
        provider_id=receipt.provider_id or "",
        detail=status,
        channel="sms",
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (30005, "bounced"),
        (30006, "bounced"),
        (21610, "opted_out"),
        (30008, "failed"),
        (30007, "failed"),
        (12345, "failed"),
    ],
)
def test_a_report_of_failure_has_its_code_and_what_was_to_blame(
    code: int, kind: str, twilio: FakeTwilio, channel: Opens
) -> None:
    opened = channel()
    list(opened.send([sms(7)]))
    twilio.fail("m7", code)
    event = read(opened, twilio.report("m7"))

    assert (event.kind, event.code, event.public_id) == (kind, str(code), "m7")
    assert event.address == (sms(7).address if kind == "opted_out" else "")


def test_a_code_beside_a_delivery_changes_nothing(twilio: FakeTwilio, channel: Opens) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "ErrorCode": "30005", "To": "+525541000001"}
    event = read(channel(), twilio.sign(f"{PUBLIC}/webhooks/twilio/status?m=m1", form))

    assert (event.kind, event.code) == ("delivered", "")


def test_codes_that_are_no_numbers_are_plain_failures() -> None:
    assert [kind_of_failure(code) for code in ("", "abc", "²", "30005")] == ["failed", "failed", "failed", "bounced"]


def test_a_status_that_twilio_thought_of_later_is_passed_over(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    list(opened.send([sms(7)]))
    signed = twilio.report("m7", "teleported")

    assert opened.verify(signed.url, signed.headers, signed.body)
    assert list(opened.parse(signed.url, signed.headers, signed.body)) == []


def test_repeated_reports_are_the_same_event(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    list(opened.send([sms(7)]))
    events = [read(opened, twilio.report("m7", status)) for status in ("sent", "delivered", "sent", "delivered")]

    assert events[0] == events[2]
    assert events[1] == events[3]
    assert len({one.event_id for one in events}) == 2


@pytest.mark.parametrize(
    ("sender", "channel_name", "address"),
    [
        ("+525541000001", "sms", "+525541000001"),
        ("whatsapp:+5215541000001", "whatsapp", "+5215541000001"),
        ("messenger:5551234", "messenger", "5551234"),
    ],
)
def test_a_reply_says_who_wrote_and_by_which_channel(
    sender: str, channel_name: str, address: str, twilio: FakeTwilio, channel: Opens
) -> None:
    signed = twilio.inbound(f"{PUBLIC}/webhooks/twilio", "¿Cuánto cuesta? 🎉 a+b & c=d", sender=sender, to=SENDER)
    event = read(channel(), signed)

    assert (event.kind, event.channel, event.address) == ("reply", channel_name, address)
    assert event.text == "¿Cuánto cuesta? 🎉 a+b & c=d"
    assert event.event_id == f"twilio:{dict(parse_qsl(signed.body.decode()))['MessageSid']}"
    assert event == read(channel(), signed)


def test_a_stop_that_twilio_obeyed_is_an_opt_out(twilio: FakeTwilio, channel: Opens) -> None:
    url = f"{PUBLIC}/webhooks/twilio"
    stop, start = (
        read(channel(), twilio.inbound(url, text, sender=sms().address, to=SENDER, OptOutType=kind))
        for text, kind in (("baja ya", "STOP"), ("START", "START"))
    )

    assert (stop.kind, stop.text, stop.code, stop.address) == ("opted_out", "baja ya", "STOP", sms().address)
    assert (start.kind, start.code) == ("reply", "START")


def test_a_tapped_button_is_its_text(twilio: FakeTwilio, channel: Opens) -> None:
    button = {"ButtonText": "Sí", "ButtonPayload": "1", "OriginalRepliedMessageSid": "SM1"}
    url, sender = f"{PUBLIC}/webhooks/twilio", "whatsapp:+5215541000001"
    event = read(channel("whatsapp"), twilio.inbound(url, "", sender=sender, to=SENDER, **button))

    assert (event.text, event.provider_id) == ("Sí", "SM1")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({"NumMedia": "1", "MediaContentType0": "audio/ogg"}, "[audio/ogg]"),
        (
            {"NumMedia": "2", "MediaContentType0": "image/jpeg", "MediaContentType1": "text/vcard"},
            "[image/jpeg, vcard]",
        ),
        ({"NumMedia": "1", "MediaContentType0": "BAJA"}, ""),
        ({"NumMedia": "0", "Latitude": "19.4", "Longitude": "-99.1"}, "[location]"),
        ({"NumMedia": "1", "MediaContentType0": "image/jpeg", "Body": "Llegó así"}, "Llegó así"),
    ],
)
def test_what_comes_without_a_word_says_what_it_is(sent: dict[str, str], text: str) -> None:
    form = {"MessageSid": "SM1", "From": "whatsapp:+5215541000001", "To": "whatsapp:+525500000000", "Body": "", **sent}
    (event,) = events("https://luna.example/webhooks/twilio/messages", urlencode(form).encode())
    assert (event.text, event.raw["NumMedia"]) == (text, sent["NumMedia"])


def test_parameters_that_nobody_knew_are_signed_too(twilio: FakeTwilio, channel: Opens) -> None:
    signed = twilio.inbound(f"{PUBLIC}/webhooks/twilio", "hola", sender=sms().address, to=SENDER, Novelty="", X="ñ")

    assert read(channel(), signed).text == "hola"


@pytest.mark.parametrize("body", [b"", b"Body=hola", b"MessageSid=SM1", b"MessageSid=SM1&From=x", b"\xff\xfe", b"{}"])
def test_what_is_nothing_of_twilio_s_messaging_cannot_be_read(body: bytes, channel: Opens) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        channel().parse(f"{PUBLIC}/webhooks/twilio", {}, body)


# --- signatures ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(twilio: FakeTwilio) -> Signed:
    return twilio.inbound(f"{PUBLIC}/webhooks/twilio?m=7", "hola", sender=sms().address, to=SENDER)


def test_the_stand_in_signs_as_twilio_s_own_library_and_page_do(twilio: FakeTwilio, signed: Signed) -> None:
    """The example is the one of www.twilio.com/docs/usage/security, whose signature is printed there."""
    assert RequestValidator(AUTH_TOKEN).validate(
        signed.url, dict(parse_qsl(signed.body.decode(), keep_blank_values=True)), signed.headers[SIGNATURE]
    )
    example = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    twilio.auth_token = "12345"
    made = twilio.sign("https://mycompany.com/myapp.php?foo=1&bar=2", example)
    assert made.headers[SIGNATURE] == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_a_request_with_any_change_is_not_believed(signed: Signed, channel: Opens) -> None:
    opened, good = channel(), dict(signed.headers)
    another = ("B" if good[SIGNATURE][0] == "A" else "A") + good[SIGNATURE][1:]
    assert opened.verify(signed.url, good, signed.body)

    assert not opened.verify(signed.url, good, signed.body.replace(b"hola", b"hole"))
    assert not opened.verify(signed.url, good, signed.body + b"&More=1")
    assert not opened.verify(signed.url, good, signed.body + b"&Body=hole")
    assert not opened.verify(signed.url, good, signed.body.replace(b"&NumMedia=0", b""))
    assert not opened.verify(signed.url.replace("m=7", "m=8"), good, signed.body)
    assert not opened.verify(signed.url.replace("https", "http"), good, signed.body)
    assert not opened.verify(signed.url.replace("shop", "shop2"), good, signed.body)
    assert not opened.verify(signed.url, good | {SIGNATURE: another}, signed.body)
    assert not opened.verify(signed.url, good | {SIGNATURE: ""}, signed.body)
    assert not opened.verify(signed.url, {}, signed.body)
    assert not opened.verify(signed.url, good | {"Content-Type": "application/json"}, signed.body)


def test_header_names_are_compared_without_case(signed: Signed, channel: Opens) -> None:
    shouting = {name.upper(): value for name, value in signed.headers.items()}

    assert channel().verify(signed.url, shouting, signed.body)


def test_a_signature_by_another_token_is_not_believed(signed: Signed, twilio: FakeTwilio) -> None:
    other = replace(settings(twilio), secrets={"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": "another"})

    assert not open_channel("sms", other).verify(signed.url, signed.headers, signed.body)


def test_whoever_sends_does_not_choose_the_algorithm(signed: Signed, channel: Opens) -> None:
    form = dict(parse_qsl(signed.body.decode(), keep_blank_values=True))
    by_sha256 = RequestValidator(AUTH_TOKEN).compute_signature(signed.url, form, "HMAC_SHA256")
    chosen = {"X-Twilio-Webhooks-Signature-Settings": "key=k,algorithm=HMAC_SHA256"}

    assert not channel().verify(signed.url, {**signed.headers, **chosen, SIGNATURE: by_sha256}, signed.body)
    assert channel().verify(signed.url, {**signed.headers, **chosen}, signed.body)


@pytest.mark.parametrize(
    ("signed_url", "seen_url"),
    [
        ("https://shop.example:443/webhooks/twilio?m=7", "https://shop.example/webhooks/twilio?m=7"),
        ("https://shop.example/webhooks/twilio?m=7", "https://shop.example:443/webhooks/twilio?m=7"),
        ("http://[2001:db8::1]/t", "http://[2001:db8::1]:8080/t"),
        ("https://user:pass@shop.example/t", "https://user:pass@shop.example:8443/t"),
    ],
)
def test_a_port_may_be_signed_or_not(signed_url: str, seen_url: str, twilio: FakeTwilio, channel: Opens) -> None:
    made = twilio.sign(signed_url, {"MessageSid": "SM1", "Body": ""})

    assert channel().verify(seen_url, made.headers, made.body)


def test_repeated_names_count_with_each_of_their_values(channel: Opens) -> None:
    class Both(dict[str, list[str]]):
        def getall(self, name: str) -> list[str]:
            return self[name]

    url = f"{PUBLIC}/webhooks/twilio"
    signature = RequestValidator(AUTH_TOKEN).compute_signature(url, Both({"A": ["2", "1"], "B": ["x"]}))

    assert channel().verify(url, {SIGNATURE: signature}, b"A=2&A=1&B=x")
    assert not channel().verify(url, {SIGNATURE: signature}, b"A=2&B=x")


def test_a_json_body_is_believed_by_its_hash(twilio: FakeTwilio, channel: Opens) -> None:
    import hashlib

    body = b'{"a": 1}'
    made = twilio.sign(f"{PUBLIC}/webhooks/twilio?bodySHA256={hashlib.sha256(body).hexdigest()}", {})
    headers = {**made.headers, "Content-Type": "application/json"}

    assert channel().verify(made.url, headers, body)
    assert not channel().verify(made.url, headers, b'{"a": 2}')
    bare = twilio.sign(f"{PUBLIC}/webhooks/twilio", {})
    assert not channel().verify(bare.url, {**bare.headers, "Content-Type": "application/json"}, body)


def test_rubbish_is_never_believed_and_never_an_error(channel: Opens) -> None:
    urls = ("", "nonsense", "https://shop.example:port/", "http://[::1", "https://x/\ud800", f"{PUBLIC}/?bodySHA256=é")
    bodies = (b"", b"\xff\x00\xfe", b"a=%ff%00", b"a=1&" * 50)
    signatures = ("x", "ñ", "\ud800", "x" * 10_000)
    kinds: tuple[dict[str, str], ...] = ({}, {"Content-Type": "application/json"}, {"Content-Type": "\ud800"})
    opened = channel()

    for url, body, signature, kind in itertools.product(urls, bodies, signatures, kinds):
        assert opened.verify(url, {SIGNATURE: signature, **kind}, body) is False


# --- the doctor ------------------------------------------------------------------------------------------------------------


def said(opened: Twilio) -> list[tuple[bool, bool, str]]:
    return [(one.ok, one.warning, one.text) for one in opened.check()]


def test_the_doctor_finds_a_healthy_account(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.senders = {SENDER}

    assert said(channel()) == [
        (True, False, "the account at Twilio is active"),
        (True, False, f"{SENDER} is a number of this account and can send SMS"),
        (
            True,
            False,
            f"delivery reports will be posted to {PUBLIC}/webhooks/twilio/status",
        ),
    ]
    assert twilio.accepted == []


def test_the_doctor_sees_every_sender_that_is_not_the_account_s(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.senders = {SENDER}
    findings = list(channel("sms", SENDER, "+525599999999", "TIENDALUNA").check())

    assert [(one.ok, one.warning) for one in findings[1:4]] == [(True, False), (False, False), (False, True)]
    assert "+525599999999" in findings[2].text
    assert all(one.hint for one in findings if not one.ok)


def test_the_doctor_sees_wrong_credentials_and_asks_no_further(twilio: FakeTwilio) -> None:
    wrong = replace(settings(twilio), secrets={"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": "wrong"})
    findings = list(open_channel("sms", wrong).check())

    assert (findings[0].ok, findings[0].warning) == (False, False)
    assert "TWILIO_AUTH_TOKEN" in findings[0].hint
    assert len(twilio.requests) == 1
    assert "wrong" not in "".join(one.text for one in findings)


def test_the_doctor_says_that_a_trial_reaches_few(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.trial = True

    assert said(channel())[0][:2] == (False, True)


def test_the_doctor_looks_for_the_messaging_service(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.services = {SERVICE}

    assert said(channel(messaging_service=SERVICE))[1][0] is True
    assert said(channel(messaging_service="MG" + "c" * 32))[1][:2] == (False, False)


def test_the_doctor_knows_whatsapp_s_senders(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.whatsapp = {SENDER}
    findings = list(channel("whatsapp", SENDER, "+525599999999", "+14155238886").check())

    assert [(one.ok, one.warning) for one in findings[1:4]] == [(True, False), (False, False), (False, True)]
    assert "sandbox" in findings[3].text


def test_the_doctor_admits_what_it_cannot_know(channel: Opens) -> None:
    assert said(channel("messenger", "1029384756"))[1][:2] == (False, True)


def test_the_doctor_names_an_address_that_nobody_can_report_to(twilio: FakeTwilio, channel: Opens) -> None:
    assert said(channel(public_url="https://my_shop.example"))[-1][:2] == (False, True)
    assert said(channel(public_url="http://shop.example"))[-1][:2] == (False, True)


def test_the_doctor_says_when_twilio_cannot_be_reached() -> None:
    with FakeTwilio() as fake:
        known = settings(fake)
    finding = next(open_channel("sms", known).check())

    assert (finding.ok, finding.warning) == (False, False)
    assert "cannot be reached" in finding.text


@pytest.mark.parametrize(
    ("url", "public"),
    [("https://api.twilio.com", True), ("http://127.0.0.1:1", False), ("http://localhost", False), ("http://[", False)],
)
def test_a_host_is_public_by_its_name(url: str, public: bool) -> None:
    assert is_public(url) is public


# --- the stand-in itself -----------------------------------------------------------------------------------------------------


def test_the_stand_in_lists_what_it_took_newest_first_and_in_pages(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel(parallel=1).send(sms(number, address=sms(number % 2).address) for number in range(25)))
    http = Http(5, twilio.url)
    client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http)
    listed = client.messages.list(page_size=10)
    to_one = client.messages.list(to=sms(1).address, page_size=5)
    sent_before = client.messages.list(date_sent_after=AT)
    twilio.advance()
    twilio.advance()
    sent_after = client.messages.list(date_sent_after=AT)
    fetched = client.messages(listed[0].sid).fetch()
    http.close()

    assert [one.sid for one in listed] == [one.sid for one in reversed(twilio.accepted)]
    assert len(to_one) == 12
    assert {one.to for one in to_one} == {sms(1).address}
    assert (len(sent_before), len(sent_after)) == (0, 25)  # what was not sent yet has no date
    assert (fetched.status, fetched.body, fetched.direction) == ("sent", "Hola, Ana", "outbound-api")


def test_the_stand_in_delivers_signed_reports_twice_and_backwards(twilio: FakeTwilio, channel: Opens) -> None:
    with _Inbox() as inbox:
        opened = channel(public_url=inbox.url)
        list(opened.send([sms(1)]))
        for _ in range(3):
            twilio.advance()
        answers = twilio.deliver(copies=2, backwards=True)
        again = twilio.deliver()

    assert (answers, again) == ([204] * 6, [])
    statuses = [opened.parse(one.url, one.headers, one.body)[0].detail for one in inbox.seen]
    assert statuses == ["delivered", "delivered", "sent", "sent", "sending", "sending"]
    assert all(opened.verify(one.url, one.headers, one.body) for one in inbox.seen)


def test_the_stand_in_knocks_where_a_proxy_would(twilio: FakeTwilio, channel: Opens) -> None:
    with _Inbox() as inbox:
        opened = channel()
        list(opened.send([sms(1)]))
        twilio.fail("m1", 30005)
        assert twilio.deliver(inbox.url) == [204]

    (seen,) = inbox.seen
    public = PUBLIC + seen.url.removeprefix(inbox.url)
    assert opened.verify(public, seen.headers, seen.body)
    assert not opened.verify(seen.url, seen.headers, seen.body)
    assert opened.parse(public, seen.headers, seen.body)[0].kind == "bounced"


def test_free_text_to_whatsapp_fails_later_where_nobody_wrote(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel("whatsapp").send([whatsapp(1, conversation=True), whatsapp(2, conversation=True), whatsapp(3)]))
    twilio.inbound(f"{PUBLIC}/webhooks/twilio", "hola", sender=f"whatsapp:{whatsapp(2).address}", to=SENDER)
    for _ in range(4):
        twilio.advance()

    assert {one.public_id: (one.status, one.error) for one in twilio.accepted} == {
        "m1": ("failed", 63016),
        "m2": ("delivered", None),
        "m3": ("delivered", None),
    }


def refused_with(fake: FakeTwilio, name: str, message: Outgoing) -> str:
    """The code that the stand-in refuses a message with; empty where it takes it."""
    opened = open_channel(name, settings(fake, name))
    receipts = []
    with suppress(ChannelError):
        for receipt in opened.send([message]):
            receipts.append(receipt)  # noqa: PERF402  # what came before the exception counts
    opened.close()
    assert len(fake.accepted) == (receipts[0].outcome is Outcome.ACCEPTED)
    return receipts[0].code


@pytest.mark.parametrize("sid", ["HX", "HX" + "b" * 31, "HX" + "b" * 33, "HX" + "z" * 32, "MG" + "b" * 32, "aviso"])
def test_the_stand_in_takes_no_template_s_id_that_could_be_none(sid: str) -> None:
    with FakeTwilio() as fake:
        assert refused_with(fake, "whatsapp", whatsapp(content_sid=sid)) == "21655"


@pytest.mark.parametrize(
    ("value", "code"),
    [("Ana", ""), ("a    b", ""), *((bad, "21656") for bad in ("", " ", "a\nb", "a\tb", "a     b", None))],
)
def test_the_stand_in_takes_no_variable_without_a_value(value: str | None, code: str) -> None:
    content = Content("whatsapp", "Hola", content_sid=TEMPLATE, variables=(("1", "Luna"), ("2", value)))  # type: ignore[arg-type]
    with FakeTwilio() as fake:
        assert refused_with(fake, "whatsapp", whatsapp(content=content)) == code


@pytest.mark.parametrize(("senders", "code"), [(None, ""), ([SENDER], ""), (["+525599999999"], "63007"), ([], "63007")])
def test_the_stand_in_knows_its_whatsapp_senders(senders: list[str] | None, code: str) -> None:
    with FakeTwilio(senders=None if senders is None else [], whatsapp=senders) as fake:
        assert refused_with(fake, "whatsapp", whatsapp()) == code


@pytest.mark.parametrize(("trial", "verified", "code"), [(True, [], "21608"), (True, [1], ""), (False, [], "")])
@pytest.mark.parametrize("name", ["sms", "whatsapp"])
def test_a_trial_reaches_only_who_is_verified(name: str, trial: bool, verified: list[int], code: str) -> None:
    message = {"sms": sms, "whatsapp": whatsapp}[name](1)
    with FakeTwilio(trial=trial, verified=[sms(number).address for number in verified]) as fake:
        assert refused_with(fake, name, message) == code


class _Inbox:
    """A web server of ours, as small as can be: it keeps what is posted to it."""

    def __init__(self) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        inbox = self
        self.seen: list[Signed] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.seen.append(Signed(inbox.url + self.path, dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> _Inbox:
        threading.Thread(target=self.server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
