"""The web app: real HTTP to a real server, real signatures of the stand-ins, on both databases."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text

from outreach import inbox, planner, releases, store
from outreach.channels import InboundEvent
from outreach.cli import doctor
from outreach.importer import posting
from outreach.models import Alarm, Consent, Fresh, Inbox, Message, MessageEvent, Reply, ShopEvent, Suppression
from outreach.reports.health import _WAITING
from outreach.settings import EVENTS_KEY, ChannelSettings, Settings
from outreach.store import Database
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio, Signed
from outreach.web import shop as shop_events
from outreach.web import webhooks
from tests import served
from tests.conftest import NOW
from tests.served import Serve, Served, count
from tests.shop import customer, feed, files_of, publish, rows_of, shop_settings

serve = served.serve
KEY = "a key between the shop and us"
SMS = "+15005550006"
TWO_TEXTS = """
    title: Two texts
    purpose: marketing
    trigger: {event: customer.created}
    steps:
      - {id: first, after: 0 minutes, channel: sms, template: m}
      - {id: second, after: 2 days, channel: [sms, whatsapp, email], template: m}
"""
LETTER = """
    title: Letter
    trigger: {event: customer.created}
    steps:
      - {id: first, after: 0 minutes, channel: email, template: m}
      - {id: second, after: 2 days, channel: email, template: m}
"""


@pytest.fixture
def twilio() -> Iterator[FakeTwilio]:
    with FakeTwilio() as fake:
        yield fake


@pytest.fixture
def sendgrid() -> Iterator[FakeSendGrid]:
    with FakeSendGrid() as fake:
        yield fake


def by_twilio(folder: Path, fake: FakeTwilio) -> Settings:
    sms = ChannelSettings("twilio", SMS, {"base_url": fake.url})
    secrets = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
    settings = shop_settings(folder, secrets=secrets)
    return replace(settings, channels={**settings.channels, "sms": sms})


def by_sendgrid(folder: Path, fake: FakeSendGrid) -> Settings:
    email = ChannelSettings("sendgrid", "Tienda Luna <hola@luna.example>", {"base_url": fake.url})
    settings = shop_settings(folder, secrets=fake.environment)
    return replace(settings, channels={**settings.channels, "email": email})


def begun(site: Served, campaign: str, *numbers: int) -> Served:
    """These customers have had the first message of the campaign."""
    publish(site.db, site.settings, NOW, it=campaign)
    feed(site.db, site.settings, NOW, customers=[customer(n, created_at=NOW) for n in numbers or (1,)])
    site.go_on()
    return site


def facts(db: Database) -> list[str]:
    return sorted(row.kind for row in rows_of(db, MessageEvent))


# --- Twilio ------------------------------------------------------------------------------------------


def test_delivery_reports_become_facts_however_often_and_in_whatever_order_they_come(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = begun(serve(db, by_twilio(tmp_path, twilio)), TWO_TEXTS)
    for _ in range(3):
        twilio.advance()

    answers = twilio.deliver(copies=5, backwards=True)
    site.receive()

    assert answers == [204] * 15
    assert facts(db) == ["accepted", "accepted", "delivered"]
    (message,) = rows_of(db, Message, step="first")
    assert {row.message_id for row in rows_of(db, MessageEvent)} == {message.id}


def test_a_person_who_writes_stop_gets_no_further_message_on_any_channel(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = begun(serve(db, by_twilio(tmp_path, twilio)), TWO_TEXTS, 1, 2)
    (leaving, _) = twilio.accepted

    answer = site.post(
        twilio.inbound(f"{site.url}/webhooks/twilio/messages", "BAJA", sender=leaving.form["To"], to=SMS)
    )
    site.go_on(days=3)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert answer.text.endswith("<Response/>")
    second = {row.status: row.reason for row in rows_of(db, Message, step="second")}
    assert second == {"sent": None, "skipped": "suppressed"}


def test_an_opt_out_is_in_force_when_it_is_answered_without_any_stage(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = begun(serve(db, by_twilio(tmp_path, twilio)), TWO_TEXTS)

    site.post(
        twilio.inbound(f"{site.url}/webhooks/twilio/messages", "stop", sender=twilio.accepted[0].form["To"], to=SMS)
    )

    assert {row.scope for row in rows_of(db, Suppression)} >= {"contact"}
    assert [row.words for row in rows_of(db, Consent, status="revoked", channel="sms")] == ["stop"]


def test_what_a_person_writes_becomes_a_reply(db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio) -> None:
    site = begun(serve(db, by_twilio(tmp_path, twilio)), TWO_TEXTS)
    text = "¿Cuándo llega? 📦 & 100 % + más"

    site.post(
        twilio.inbound(f"{site.url}/webhooks/twilio/messages", text, sender=twilio.accepted[0].form["To"], to=SMS)
    )
    site.receive()

    assert [row.text for row in rows_of(db, Reply)] == [text]


def test_the_signature_covers_the_public_address_and_not_the_one_a_proxy_asks_for(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = serve(db, by_twilio(tmp_path, twilio))
    public = twilio.inbound(f"{site.url}/webhooks/twilio/messages?a=1&b=%C3%B1", "hola", sender="+525541000001", to=SMS)
    path = public.url.removeprefix(site.url)
    elsewhere = {"Host": "inside.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}

    answer = site.http.post(path, content=public.body, headers={**public.headers, **elsewhere})

    assert answer.status_code == 200


# --- SendGrid ----------------------------------------------------------------------------------------


def test_what_sendgrid_says_becomes_facts_and_a_complaint_stops_the_next_letter(
    db: Database, tmp_path: Path, serve: Serve, sendgrid: FakeSendGrid
) -> None:
    site = begun(serve(db, by_sendgrid(tmp_path, sendgrid)), LETTER, 1, 2)
    first, second = sendgrid.accepted
    events = [
        sendgrid.event(first, "processed"),
        sendgrid.event(first, "delivered"),
        sendgrid.event(first, "spamreport"),
        sendgrid.event(second, "delivered"),
        sendgrid.event(second, "open", sg_machine_open=True),
    ]

    answers = sendgrid.post(f"{site.url}/webhooks/sendgrid/events", events, times=3, backwards=True)
    site.receive()
    site.go_on(days=3)

    assert answers == [204] * 3
    assert facts(db) == ["accepted", "complained", "delivered", "delivered", "opened"]
    later = {row.customer_id: (row.status, row.reason) for row in rows_of(db, Message, step="second")}
    assert sorted(later.values(), key=str) == [("sent", None), ("skipped", "suppressed")]


def test_an_array_without_events_is_taken(db: Database, tmp_path: Path, serve: Serve, sendgrid: FakeSendGrid) -> None:
    site = serve(db, by_sendgrid(tmp_path, sendgrid))

    assert sendgrid.post(f"{site.url}/webhooks/sendgrid/events", []) == [204]


# --- what is refused ---------------------------------------------------------------------------------


def forgeries(twilio: FakeTwilio, url: str) -> Iterator[Signed]:
    good = twilio.inbound(f"{url}/webhooks/twilio/messages", "BAJA", sender="+525541000001", to=SMS)
    without = {name: value for name, value in good.headers.items() if name != "X-Twilio-Signature"}
    yield replace(good, headers=without)
    yield replace(good, headers={**good.headers, "X-Twilio-Signature": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="})
    yield replace(good, headers={**good.headers, "X-Twilio-Signature": ""})
    yield replace(good, headers={**good.headers, "X-Twilio-Signature": "ñ"})
    yield replace(good, body=good.body[:-1])
    yield replace(good, body=good.body + b"&More=1")
    yield replace(good, url=good.url + "?m=1")
    yield replace(good, url=good.url.replace("/messages", "/status"))


def test_forged_and_truncated_requests_change_nothing_and_are_counted(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio, sendgrid: FakeSendGrid
) -> None:
    both = by_twilio(tmp_path, twilio)
    channels = {**both.channels, "email": by_sendgrid(tmp_path, sendgrid).channels["email"]}
    site = serve(db, replace(both, channels=channels, secrets={**both.secrets, **sendgrid.environment}))
    tampered = list(forgeries(twilio, site.url))
    body, hours = b'[{"event": "spamreport"}]', 3600
    url = "/webhooks/sendgrid/events"
    signed = sendgrid.signed(body)

    answers = [
        site.http.post(
            one.url, content=one.body, headers=[(k.encode(), v.encode("latin-1")) for k, v in one.headers.items()]
        )
        for one in tampered
    ]
    answers += [
        site.http.post(url, content=body, headers={"Content-Type": "application/json"}),
        site.http.post(url, content=body[:-1], headers=signed),
        site.http.post(url, content=body, headers=sendgrid.signed(body, at=1_000_000_000)),
        site.http.post(url, content=body, headers={**signed, "X-Twilio-Email-Event-Webhook-Timestamp": str(hours)}),
    ]

    assert [one.status_code for one in answers] == [403] * 12
    assert count(db, Inbox) == 0
    assert site.metrics()["outreach_refused_total{signature}"] == 12


def test_what_is_signed_and_cannot_be_read_is_refused_for_good(
    db: Database, tmp_path: Path, serve: Serve, sendgrid: FakeSendGrid, twilio: FakeTwilio
) -> None:
    both = by_twilio(tmp_path, twilio)
    channels = {**both.channels, "email": by_sendgrid(tmp_path, sendgrid).channels["email"]}
    site = serve(db, replace(both, channels=channels, secrets={**both.secrets, **sendgrid.environment}))
    bodies = (b"{", b"{}", b"\xff\xfe", b"[1]", b"[" * 100_000, b"")

    answers = [
        site.http.post("/webhooks/sendgrid/events", content=body, headers=sendgrid.signed(body)) for body in bodies
    ]
    answers.append(site.post(twilio.sign(f"{site.url}/webhooks/twilio/messages", {"Body": "BAJA"})))

    assert [one.status_code for one in answers] == [400] * 7
    assert count(db, Inbox) == 0
    assert site.metrics()["outreach_refused_total{unreadable}"] == 7


def test_another_media_type_is_refused_before_anything_is_read(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = serve(db, by_twilio(tmp_path, twilio))
    good = twilio.inbound(f"{site.url}/webhooks/twilio/messages", "BAJA", sender="+525541000001", to=SMS)

    answers = [
        site.http.post(good.url, content=good.body, headers={**good.headers, "Content-Type": kind})
        for kind in ("application/json", "text/plain", "")
    ]

    assert [one.status_code for one in answers] == [415] * 3
    assert site.metrics()["outreach_refused_total{media_type}"] == 3


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


def test_a_body_over_the_limit_is_given_up_with_and_without_its_length(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = serve(db, by_twilio(tmp_path, twilio))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection("127.0.0.1", int(site.url.rpartition(":")[2]))

    connection.putrequest("POST", "/webhooks/twilio/status")
    for name, value in {**form, "Content-Length": str(webhooks.TWILIO_BYTES + 1)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    announced = connection.getresponse().status  # before a byte of it has come
    connection.close()
    connection.request("POST", "/webhooks/twilio/status", pieces(2 * webhooks.TWILIO_BYTES), form, encode_chunked=True)
    chunked = connection.getresponse()
    just_in = site.http.post("/webhooks/twilio/status", content=b"x" * webhooks.TWILIO_BYTES, headers=form).status_code

    assert (announced, chunked.status, just_in) == (413, 413, 403)
    assert site.metrics()["outreach_refused_total{too_large}"] == 2
    connection.close()


def test_a_body_that_never_ends_is_given_up(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.web.intake.SECONDS", 0.05)
    site = serve(db, by_twilio(tmp_path, twilio))
    connection = http.client.HTTPConnection("127.0.0.1", int(site.url.rpartition(":")[2]))
    connection.putrequest("POST", "/webhooks/twilio/status")
    for name, value in {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "100"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"a=b")

    assert connection.getresponse().status == 408
    assert site.metrics()["outreach_refused_total{too_slow}"] == 1
    connection.close()


def test_a_provider_that_no_channel_uses_finds_nobody(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = serve(db, shop_settings(tmp_path))

    answer = site.http.post(
        "/webhooks/twilio/messages", content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )

    assert answer.status_code == 404
    assert site.metrics()["outreach_refused_total{not_set_up}"] == 1


# --- when it cannot be done --------------------------------------------------------------------------


def away(db: Database) -> Database:
    """A database that nobody can reach."""
    return replace(db, engine=store.make_engine("postgresql://nobody@127.0.0.1:1/none"))


def test_while_the_database_is_away_everybody_is_told_to_try_again(
    tmp_path: Path, serve: Serve, twilio: FakeTwilio, caplog: pytest.LogCaptureFixture
) -> None:
    gone = away(Database(store.make_engine("sqlite://"), b"secret"))
    site = serve(gone, by_twilio(tmp_path, twilio), secrets={EVENTS_KEY: KEY, "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN})  # fmt: skip
    report = twilio.inbound(f"{site.url}/webhooks/twilio/messages", "BAJA", sender="+525541000001", to=SMS)

    answers = [
        site.post(report),
        post_events(site, an_event()),
        site.http.get("/l/AAAAAAAAAAAA"),
        site.http.get("/metrics"),
    ]
    health = site.http.get("/healthz")

    assert [one.status_code for one in answers] == [503] * 4
    assert {one.headers["retry-after"] for one in answers} == {"60"}
    assert "Inténtalo en un momento" in answers[2].text
    assert (health.status_code, health.json()["database"]) == (503, False)
    assert "+52" not in caplog.text


def test_a_fault_of_ours_says_where_and_not_what_it_held(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    def breaks(*_: object) -> None:
        raise RuntimeError("+525541000001 wrote BAJA")

    monkeypatch.setattr(inbox, "accept", breaks)
    site = serve(db, by_twilio(tmp_path, twilio))

    with caplog.at_level(logging.ERROR):
        answer = site.post(
            twilio.inbound(f"{site.url}/webhooks/twilio/messages", "BAJA", sender="+525541000001", to=SMS)
        )

    assert answer.status_code == 500
    assert [record.__dict__["fields"]["error"].partition(":")[0] for record in caplog.records] == [
        "RuntimeError in test_web.py"
    ]
    for said in (caplog.text, answer.text):
        assert "BAJA" not in said
        assert "+52" not in said
    monkeypatch.undo()
    assert site.metrics()["outreach_refused_total{failed}"] == 1


# --- the shop's own events ---------------------------------------------------------------------------


def an_event(**changes: Any) -> dict[str, Any]:
    event = {
        "event_id": "cart-1",
        "customer_id": "c1",
        "name": "cart.abandoned",
        "at": NOW.isoformat(),
        "url": "https://luna.example/cart/1",
        "total": 123.5,
        "items": [{"name": "Taza <b>", "price": 120.5}, {"name": "Ñandú", "price": 3}],
    }
    return {name: value for name, value in {**event, **changes}.items() if value is not None}


def signed(body: bytes, *, key: str = KEY, at: float | None = None) -> dict[str, str]:
    """By hand, so that the documented recipe and not our own function is what is tried."""
    timestamp = str(int(NOW.timestamp() if at is None else at))
    mac = hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-Outreach-Timestamp": timestamp, "X-Outreach-Signature": mac}


def post_events(site: Served, events: Any) -> httpx.Response:
    body = json.dumps(events).encode()
    return site.http.post("/events", content=body, headers=signed(body))


def with_key(folder: Path) -> Settings:
    return shop_settings(folder, secrets={EVENTS_KEY: KEY})


CART = """
    title: Cart
    purpose: service
    trigger: {event: cart.abandoned}
    steps: [{id: cart, after: 1 hour, channel: sms, template: cart}]
"""
CART_TEXT = "{{ event.url }} {{ event.total }}"


def test_an_event_that_the_shop_posts_starts_a_campaign_and_fills_its_message(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))
    feed(db, site.settings, NOW, customers=[customer(1)])
    releases.publish(db, site.settings, files_of({"message_templates/cart.sms.j2": CART_TEXT}, cart=CART), NOW)

    answer = post_events(site, an_event())
    site.go_on(hours=2)

    assert (answer.status_code, answer.json()) == (200, {"created": 1, "updated": 0, "unchanged": 0})
    (sent,) = [json.loads(file.read_text()) for file in (tmp_path / "outbox").glob("*.json")]
    assert sent["text"] == "https://luna.example/cart/1 123.5"


def test_an_event_posted_again_changes_nothing_and_a_corrected_one_takes_its_place(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))
    later = (NOW - timedelta(hours=1)).isoformat()

    answers = [
        post_events(site, one).json() for one in (an_event(), an_event(), [an_event(at=later)], an_event(at=later))
    ]

    assert [next(name for name, n in answer.items() if n) for answer in answers] == ["created", "unchanged", "updated", "unchanged"]  # fmt: skip
    (row,) = rows_of(db, ShopEvent)
    assert (row.name, row.at, row.attributes["items"][1]) == (
        "cart.abandoned", NOW - timedelta(hours=1), {"name": "Ñandú", "price": 3},
    )  # fmt: skip
    assert [(one.kind, one.at) for one in rows_of(db, Fresh, record_id=row.id)] == [
        ("event.cart.abandoned", NOW),
        ("event.cart.abandoned", NOW - timedelta(hours=1)),
    ]


def test_a_posted_event_and_one_of_a_file_are_the_same_to_the_planner(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))
    feed(db, site.settings, NOW, customers=[customer(1), customer(2)])
    publish(db, site.settings, NOW, cart=CART.replace("template: cart", "template: m"))
    feed(db, site.settings, NOW, events=[{"event_id": "f", "customer_id": "c1", "name": "cart.abandoned", "at": NOW}])

    post_events(site, {"event_id": "p", "customer_id": "c2", "name": "cart.abandoned", "at": NOW.isoformat()})
    planner.plan(db, site.settings, NOW + timedelta(hours=2))

    (by_file, posted) = rows_of(db, Message)
    assert (by_file.due_at, by_file.status) == (posted.due_at, posted.status)


def test_an_event_that_moves_to_another_customer_is_taken_from_the_first(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))

    post_events(site, an_event())
    post_events(site, an_event(customer_id="c2"))

    first, cleared, second = rows_of(db, Fresh, kind="event.cart.abandoned")
    assert (first.customer_id, cleared.customer_id, cleared.at, second.at) == (
        first.customer_id,
        first.customer_id,
        None,
        NOW,
    )
    assert second.customer_id != first.customer_id


WRONG = {
    "no JSON": (b"{", "no JSON"),
    "not UTF-8": (b"\xff", "no JSON"),
    "nothing": (b"[]", "a list of 1 to 1,000"),
    "no object": (b"[1]", "no JSON object"),
    "a name nobody declared": (an_event(name="cart.abandonned"), "did you mean `cart.abandoned`?"),
    "no id": (an_event(event_id=None), "`event_id` is missing"),
    "a true id": (an_event(event_id=True), "`event_id` is missing"),
    "an id too long": (an_event(event_id="x" * 201), "`event_id` is longer than 200"),
    "no customer": (an_event(customer_id="  "), "`customer_id` is missing"),
    "no time": (an_event(at="soon"), "`at` is no date and time"),
    "a time ahead": (an_event(at="2027-01-01"), "`at` is after tomorrow"),
    "a number that is none": (b'{"event_id": NaN}', "not finite"),
    "an endless number": (b'{"event_id": 1e999}', "not finite"),
    "what PostgreSQL cannot keep": (an_event(url="a\0b"), "cannot be stored"),
    "half a letter": (an_event(url="\ud800"), "cannot be stored"),
    "half a letter in a name": (an_event(**{"\udfff": 1}), "cannot be stored"),
    "too deep": (b'{"a":' + b"[" * 30 + b"]" * 30 + b"}", "deep"),
    "far too deep": (b"[" * 100_000, "no JSON"),
    "the second": ([an_event(), an_event(event_id="2", name="x")], "event 2: `name`"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_event_is_refused_with_its_reason_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    body, why = WRONG[what]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    with pytest.raises(ValueError, match=re.escape(why)) as refusal:
        posting.read_events(raw, shop_settings(tmp_path), NOW)

    assert "luna.example" not in str(refusal.value)


def test_of_some_events_all_are_written_or_none(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = serve(db, with_key(tmp_path))

    answer = post_events(site, [an_event(), an_event(event_id="2", at="soon")])

    assert (answer.status_code, answer.json()["detail"][:10]) == (400, "event 2: `")
    assert count(db, ShopEvent) == 0
    assert post_events(site, [an_event(event_id=str(n)) for n in range(1000)]).json()["created"] == 1000


def test_events_that_the_shop_did_not_sign_or_signed_long_ago_are_refused(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))
    body, now = json.dumps(an_event()).encode(), NOW.timestamp()
    good = signed(body)
    wrong = [
        {"Content-Type": "application/json"},
        {**good, "X-Outreach-Signature": ""},
        {**good, "X-Outreach-Timestamp": str(int(now) + 1)},
        {**good, "X-Outreach-Timestamp": ""},
        signed(body, key="another key"),
        signed(body + b" "),
    ]
    stale = [signed(body, at=now - 301), signed(body, at=now + 301)]

    assert [site.http.post("/events", content=body, headers=one).status_code for one in wrong + stale] == [403] * 8
    assert count(db, ShopEvent) == 0
    counted = site.metrics()
    assert (counted["outreach_refused_total{signature}"], counted["outreach_refused_total{stale}"]) == (6, 2)
    assert site.http.post("/events", content=body, headers=signed(body, at=now - 299)).status_code == 200


def test_without_a_key_nobody_can_post_events(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = serve(db, shop_settings(tmp_path))

    answer = site.http.post("/events", content=b"{}", headers=signed(b"{}", key=""))

    assert answer.status_code == 404
    assert EVENTS_KEY in answer.json()["detail"]


def test_our_own_function_signs_as_the_page_says() -> None:
    headers = signed(b"{}")

    assert shop_events.signature(KEY, headers["X-Outreach-Timestamp"], b"{}") == headers["X-Outreach-Signature"]


# --- health and metrics ------------------------------------------------------------------------------


def test_all_is_well_while_every_stage_finishes_in_its_time(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = serve(db, shop_settings(tmp_path))
    assert site.http.get("/healthz").json() == {"service": "outreach", "ok": True, "database": True, "stages": {}}

    with store.write(db) as connection:
        store.record_tick(connection, "plan", NOW, NOW + timedelta(seconds=2), {})
    site.now = NOW + timedelta(minutes=15)
    well = site.http.get("/healthz")
    site.now = NOW + timedelta(minutes=15, seconds=3)
    late = site.http.get("/healthz")

    assert (well.status_code, well.json()["ok"]) == (200, True)
    assert (late.status_code, late.json()["stages"]["plan"]["overdue"]) == (503, True)


def test_metrics_say_how_much_waits_and_name_nobody(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = begun(serve(db, by_twilio(tmp_path, twilio)), TWO_TEXTS, 1, 2)
    twilio.advance()
    twilio.deliver()
    site.now += timedelta(days=3)
    planner.plan(db, site.settings, site.now)

    found = site.metrics()
    site.receive()

    assert found["outreach_messages{planned}"] == found["outreach_messages_due"] == 2
    assert (found["outreach_messages{sending}"], found["outreach_messages{unknown}"]) == (0, 0)
    assert found["outreach_messages_written_total"] == 4
    assert (found["outreach_inbox_waiting"], found["outreach_taken_total{twilio}"]) == (2, 2)
    assert found["outreach_stage_failed{plan}"] == 0
    assert site.metrics()["outreach_inbox_waiting"] == 0
    text = site.http.get("/metrics").text
    for private in ("+52", "c1", "Ana", "example.com", "luna"):
        assert private not in text


def test_metrics_count_alarms_by_kind_and_do_not_say_what_they_are_about(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, shop_settings(tmp_path))
    names = ("paused:win_back", "paused:birthday", "channel:email", ".failing:plan")
    with store.write(db) as connection:
        connection.execute(insert(Alarm), [{"name": name, "text": "x", "since": NOW} for name in names])

    found = {name: value for name, value in site.metrics().items() if name.startswith("outreach_alarms")}

    assert found == {"outreach_alarms{paused}": 2, "outreach_alarms{channel}": 1}


INDEXES = {
    "planned": "ix_messages_ready",
    "due": "ix_messages_ready",
    "sending": "ix_messages_claimed",
    "unknown": "ix_messages_unknown",
    "inbox": "ix_inbox_waiting",
    "written": "messages",  # one look at the end of the primary key
}


@pytest.mark.parametrize("figure", INDEXES)
def test_each_figure_comes_from_an_index_of_what_is_not_settled(db: Database, figure: str) -> None:
    explain = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"

    with store.read(db) as connection:
        if not db.is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # it has no rows yet
        plan = " ".join(map(str, connection.execute(text(f"{explain} {_WAITING[figure]}"), {"now": 0})))

    assert INDEXES[figure] in plan
    assert "SCAN messages'" not in plan
    assert "Seq Scan" not in plan


def test_nothing_is_answered_anywhere_else_and_every_answer_carries_the_headers(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, shop_settings(tmp_path))

    answers = [
        site.http.get(path)
        for path in ("/", "/docs", "/openapi.json", "/l/", "/healthz", "/metrics", "/l/x", "/events")
    ]

    assert [one.status_code for one in answers] == [404, 404, 404, 404, 200, 200, 404, 405]
    for one in answers:
        assert "default-src 'none'" in one.headers["content-security-policy"]
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["referrer-policy"] == "no-referrer"
        assert one.headers["cache-control"] == "no-store"
        assert "set-cookie" not in one.headers
        assert "server" not in one.headers


def test_a_clicked_fact_reaches_the_message_it_is_about(db: Database, tmp_path: Path) -> None:
    settings = shop_settings(tmp_path)
    publish(db, settings, NOW, it=LETTER)
    feed(db, settings, NOW, customers=[customer(1, created_at=NOW)])
    planner.plan(db, settings, NOW)
    (message,) = rows_of(db, Message)

    inbox.accept(db, settings, NOW, "link", [InboundEvent("link:a", "clicked", NOW, message.public_id)])
    inbox.receive(db, settings, NOW)

    assert [(row.kind, row.message_id) for row in rows_of(db, MessageEvent)] == [("clicked", message.id)]


# --- what the pages of documentation and the doctor say ----------------------------------------------


HOW_TO = Path(__file__).parents[1] / "docs" / "how-to" / "put-the-pages-on-the-web.md"


@pytest.mark.parametrize(("language", "program"), [("bash", "bash"), ("python", sys.executable)])
def test_the_documented_lines_post_an_event(
    language: str, program: str, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, with_key(tmp_path))
    site.now = datetime.now(UTC)
    (lines,) = re.findall(rf"```{language}\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    script = lines.replace("https://outreach.tiendaluna.example", site.url).replace("2026-06-15", "2026-06-14")

    environment = {**os.environ, EVENTS_KEY: KEY, "no_proxy": "*"}
    done = subprocess.run([program, "-c", script], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert '"created":1' in done.stdout.replace(" ", "")
    assert [row.name for row in rows_of(db, ShopEvent)] == ["cart.abandoned"]


def test_the_doctor_tells_whether_the_public_address_leads_here(
    db: Database, tmp_path: Path, serve: Serve, twilio: FakeTwilio
) -> None:
    site = serve(db, by_twilio(tmp_path, twilio))
    real = ChannelSettings("smtp", "hola@luna.example", {"host": "smtp.luna.example"})
    used = replace(site.settings, channels={"email": real})
    elsewhere, nowhere = (replace(used, public_url=url) for url in (twilio.url, "http://127.0.0.1:9"))

    (good,) = doctor._answers(used)
    others = [next(doctor._answers(one)) for one in (elsewhere, nowhere)]
    with store.write(db) as connection:
        store.record_tick(connection, "plan", NOW - timedelta(days=1), NOW - timedelta(days=1), {})
    (late,) = doctor._answers(used)

    assert good.ok
    assert [(one.ok, "nothing of outreach answers" in one.text) for one in others] == [(False, True)] * 2
    assert (late.ok, late.hint) == (False, "see `outreach status`")
    assert list(doctor._answers(site.settings)) == []  # only stand-ins: nobody is reached
