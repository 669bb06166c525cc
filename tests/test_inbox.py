"""What comes back: kept raw, matched, obeyed at once, and the same whatever the order and the number of copies."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from outreach import dispatcher, inbox, planner, reconciler, store
from outreach.channels import InboundEvent
from outreach.channels.outbox import Outbox
from outreach.channels.sendgrid.events import read_events
from outreach.channels.sendgrid.requests import ARGUMENT
from outreach.channels.twilio.webhooks import events as read_twilio
from outreach.errors import DatabaseError
from outreach.inbox import matching, words
from outreach.models import (
    Answer,
    Case,
    Consent,
    Contact,
    Customer,
    Enrolment,
    Inbox,
    Installation,
    Message,
    MessageEvent,
    MessageLink,
    Reason,
    Reply,
    Status,
    Suppression,
    Tick,
    table,
)
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import PURPOSES
from tests import forked
from tests.conftest import NOW, SECRET, _admin
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

LATER = NOW + timedelta(hours=2)
PHONE, EMAIL = "+525541000001", "c1@example.com"
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.placed}
    steps:
      - {id: mail, after: 0 days, channel: email, template: m}
      - {id: text, after: 0 days, channel: sms, template: m}
      - {id: chat, after: 0 days, channel: whatsapp, template: m}
"""
FOLLOW_UP = """
    title: {name}
    purpose: {purpose}
    trigger: {{event: order.placed}}
    steps:
      - {{id: only, after: 1 day, channel: {channel}, template: m}}
"""


def built(db: Database, folder: Path) -> Settings:
    """Three customers, two of them with one phone, each written to by e-mail, SMS and WhatsApp."""
    settings = shop_settings(folder)
    people = [customer(1), customer(2, phone=PHONE), customer(3)]
    publish(db, settings, NOW - timedelta(hours=1), thanks=THANKS)
    orders = [order(n, f"c{n}", NOW - timedelta(minutes=30)) for n in (1, 2, 3)]
    feed(db, settings, NOW, customers=people, orders=orders)
    planner.plan(db, settings, NOW)
    assert dispatcher.dispatch(db, settings, NOW).sent == 9
    return settings


Worlds = Callable[[str], str]  # kind of database → the address of a fresh copy of the small shop


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Worlds]:
    """Makes copies of the small shop with its nine messages sent."""
    folder = tmp_path_factory.mktemp("worlds")
    templates: dict[str, str] = {}
    cloned: list[str] = []

    def clone(of: str) -> str:
        name = f"w_{uuid4().hex[:12]}"
        _admin(request.getfixturevalue("postgres_uri"), f"CREATE DATABASE {name} TEMPLATE {of} STRATEGY FILE_COPY")
        cloned.append(name)
        return name

    def fresh(kind: str) -> str:
        if kind not in templates:
            templates[kind] = request.getfixturevalue(f"{'postgres' if kind == 'postgresql' else kind}_template")
            url = fresh(kind)
            db = store.open_database(url, secret=SECRET)
            built(db, folder)
            db.engine.dispose()
            templates[kind] = url.removeprefix("sqlite:///") if kind == "sqlite" else cloned[-1]
        if kind == "sqlite":
            path = folder / f"{uuid4().hex}.db"
            shutil.copy(templates[kind], path)
            return f"sqlite:///{path}"
        return str(request.getfixturevalue("postgres_uri")(clone(templates[kind])))

    yield fresh
    for name in cloned:
        _admin(request.getfixturevalue("postgres_uri"), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Database]:
    """A database with the small shop, on each kind in turn."""
    database = store.open_database(worlds(request.param), secret=SECRET)
    yield database
    database.engine.dispose()


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Settings:
    """The small shop: built unless the database is a copy of it, as it is here."""
    return shop_settings(tmp_path) if rows_of(db, Message) else built(db, tmp_path)


def message(db: Database, number: int = 1, channel: str = "sms") -> Any:
    (person,) = rows_of(db, Customer, external_id=f"c{number}")
    return rows_of(db, Message, customer_id=person.id, channel=channel)[0]


def written(text: str, address: str = PHONE, channel: str = "sms", number: int | str = 1, **more: str) -> InboundEvent:
    """Something a person wrote, as Twilio posts it."""
    prefix = "" if channel == "sms" else f"{channel}:"
    form = {"MessageSid": f"SM{number}", "From": prefix + address, "To": f"{prefix}+525500000000", "Body": text, **more}
    (event,) = read_twilio("https://shop.example/webhooks/twilio/messages", urlencode(form).encode())
    return event


def report(of: Any, status: str, code: str = "", address: str = PHONE) -> InboundEvent:
    """A delivery report, as Twilio posts it."""
    prefix = "" if of.channel == "sms" else f"{of.channel}:"
    form = {"MessageSid": f"SMout{of.id}", "MessageStatus": status, "To": prefix + address, "From": "+525500000000"}
    form |= {"ErrorCode": code} if code else {}
    (event,) = read_twilio(f"https://shop.example/webhooks/twilio/status?m={of.public_id}", urlencode(form).encode())
    return event


def mailed(of: Any, kind: str, number: int | str = 1, at: datetime = NOW, **more: Any) -> InboundEvent:
    """An event about an e-mail, as SendGrid posts it."""
    event = {"event": kind, "sg_event_id": f"e{number}", "timestamp": int(at.timestamp()), "email": EMAIL, **more}
    event |= {ARGUMENT: of.public_id, "sg_message_id": f"sg{of.id}.recvd.1"} if of is not None else {}
    (found,) = read_events(json.dumps([event]).encode())
    return found


def take(db: Database, settings: Settings, *events: InboundEvent, now: datetime = LATER) -> inbox.Accepted:
    provider = "twilio" if events[0].event_id.startswith("twilio:") else "sendgrid"
    return inbox.accept(db, settings, now, provider, events)


def taken(db: Database, settings: Settings, *events: InboundEvent, now: datetime = LATER) -> inbox.ReceiveCounts:
    take(db, settings, *events, now=now)
    return inbox.receive(db, settings, now)


def silenced(db: Database, settings: Settings, *asked: str) -> set[str]:
    """
    Those of the asked whose new message the dispatcher ends for what the customer said.

    Each is a purpose and a channel, and the number of the customer unless it is the first.
    """
    name, campaigns = uuid4().hex[:8], {}
    for purpose, channel, *_ in map(str.split, asked):
        campaigns[f"{purpose}_{channel}_{name}"] = FOLLOW_UP.format(name=name, purpose=purpose, channel=channel)
    (here,) = rows_of(db, Installation)
    now = max(LATER + timedelta(hours=1), here.newest)
    publish(db, settings, now, thanks=THANKS, **campaigns)
    numbers = {(*one.split(), "1")[2] for one in asked}
    feed(db, settings, now, orders=[order(f"{name}-{number}", f"c{number}", now) for number in sorted(numbers)])
    later = now + timedelta(days=1, minutes=1)
    planner.plan(db, settings, later)
    dispatcher.dispatch(db, settings, later)
    return {one for one in asked if _ended(db, name, *one.split())}


def _ended(db: Database, name: str, purpose: str, channel: str, number: str = "1") -> bool:
    (person,) = rows_of(db, Customer, external_id=f"c{number}")
    of = {"campaign": f"{purpose}_{channel}_{name}", "customer_id": person.id}
    (one,) = rows_of(db, Message, **of) or rows_of(db, Enrolment, **of)  # judged at its enrolment, it has no message
    ended = one.reason in (Reason.SUPPRESSED, Reason.NO_CONSENT)
    assert ended or (one.reason, one.status) == (None, Status.SENT), one  # nothing else keeps it
    return ended


def blocked(db: Database, settings: Settings, purpose: str, channel: str, number: int = 1) -> bool:
    return bool(silenced(db, settings, f"{purpose} {channel} {number}"))


def consents(db: Database) -> set[tuple[str, str, str]]:
    """The revocations and grants that people made themselves: (kind of address, channel, status)."""
    kinds = {row.id: row.kind for row in rows_of(db, Contact)}
    return {(kinds[row.contact_id], row.channel, row.status) for row in rows_of(db, Consent, by="recipient")}


# --- keeping ----------------------------------------------------------------------------------------------


def test_every_event_is_kept_as_it_came_once(db: Database, shop: Settings) -> None:
    of = message(db, channel="email")
    events = [mailed(of, "processed", 1), mailed(of, "delivered", 2, response="250 OK")]

    assert take(db, shop, *events, events[0]) == inbox.Accepted(2, 1)
    assert take(db, shop, *events) == inbox.Accepted(0, 2)
    kept = rows_of(db, Inbox)
    assert [(row.kind, row.channel, row.provider, row.at) for row in kept] == [
        ("accepted", "email", "sendgrid", NOW),
        ("delivered", "email", "sendgrid", NOW),
    ]
    assert kept[1].raw["response"] == "250 OK"
    assert kept[1].raw["email"] == EMAIL
    assert {row.handled_at for row in kept} == {None}


def test_what_no_database_can_keep_is_left_out_of_a_text(db: Database, shop: Settings) -> None:
    events = [
        InboundEvent(f"twilio:{'x' * n}\x00\ud800", "reply", text="ho\x00la \ud83d", address=PHONE, channel="sms",
                     raw={"Body\x00": ["\udc00", {"deep": "\x00"}]})
        for n in (5, 5_000)
    ]  # fmt: skip
    take(db, shop, *events)
    take(db, shop, *events)
    short, long = sorted(rows_of(db, Inbox), key=lambda row: len(row.event_id))

    assert (short.event_id, short.text) == ("twilio:xxxxx?", "hola ?")
    assert short.raw == {"Body": ["?", {"deep": ""}]}
    assert len(long.event_id) <= 200


def test_events_of_the_future_count_from_now(db: Database, shop: Settings) -> None:
    of = message(db, channel="email")
    take(db, shop, mailed(of, "unsubscribe", at=LATER + timedelta(days=900)))

    assert {row.at for row in rows_of(db, Inbox)} == {LATER}


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    really = store.write

    def write(of: Database) -> Any:
        if len(waits) < 1:
            raise DatabaseError("the database cannot be used: it is away")
        return really(of)

    monkeypatch.setattr("outreach.inbox.accepting.time.sleep", waits.append)
    monkeypatch.setattr("outreach.inbox.accepting.store.write", write)

    assert take(db, shop, written("hola")).new == 1
    assert len(waits) == 1


def test_a_database_that_stays_away_is_said_and_nothing_is_kept(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("outreach.inbox.accepting.time.sleep", lambda _: None)
        patched.setattr("outreach.inbox.accepting._obey", _fail)
        with pytest.raises(DatabaseError):
            take(db, shop, written("BAJA"))

    assert rows_of(db, Inbox) == []
    assert take(db, shop, written("BAJA")).new == 1


def _fail(*_: Any) -> None:
    raise DatabaseError("the database cannot be used: it is away")


# --- opting out and in ------------------------------------------------------------------------------------


def test_a_stop_word_silences_the_person_on_every_channel_at_once(db: Database, shop: Settings) -> None:
    going_on = {"transactional whatsapp", "transactional email", *(f"{purpose} email 3" for purpose in PURPOSES)}
    ending = {"transactional sms", "service sms", "service whatsapp", "service email", "marketing email"}
    assert silenced(db, shop, *going_on, *ending) == set()
    take(db, shop, written("Baja, por favor."))

    assert silenced(db, shop, *going_on, *ending) == ending


def test_whoever_shares_the_number_is_silenced_with_it(db: Database, shop: Settings) -> None:
    take(db, shop, written("STOP"))
    theirs = {"marketing sms 2", "marketing email 2"}

    assert silenced(db, shop, *theirs) == theirs


def test_the_words_are_kept_in_the_ledger(db: Database, shop: Settings) -> None:
    take(db, shop, written("No más mensajes!"))
    lines = rows_of(db, Consent, by="recipient")

    assert {(row.status, row.words, row.source, row.at) for row in lines} == {
        ("revoked", "No más mensajes!", "sms reply", LATER)
    }
    assert consents(db) == {
        *(("phone", channel, "revoked") for channel in ("sms", "whatsapp", "call", "visit")),
        ("email", "email", "revoked"),
    }


@pytest.mark.parametrize(
    "text",
    ["cancelar mi pedido", "no quiero que pare", "stop by the shop tomorrow", "¿cuándo es el alta?", "sí", "1", ""],
)
def test_a_word_inside_a_sentence_is_no_final_opt_out(text: str, db: Database, shop: Settings) -> None:
    take(db, shop, written(text))

    assert rows_of(db, Suppression) == []
    assert consents(db) == set()


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("STOP", "opt_out"), ("stop.", "opt_out"), (" Stop!! ", "opt_out"), ("S T O P", "opt_out"), ("STOP 🛑", "opt_out"),
        ("baja", "opt_out"), ("Darme de baja, gracias", "opt_out"), ("NO MAS", "opt_out"), ("não quero", "opt_out"),
        ("NAO QUERO", "opt_out"), ("sair", "opt_out"), ("Cancelar", "opt_out"), ("opt-out", "opt_out"),
        ("START", "opt_in"), ("alta", "opt_in"), ("AYUDA", "help"), ("hola", ""), ("", ""), ("por favor", ""),
        ("stop " * 40, "opt_out"), ("no me manden más mensajes porfa", "opt_out"), ("quiero recibir", ""),
    ],
)  # fmt: skip
def test_whole_messages_are_read_whatever_their_spelling(text: str, meaning: str) -> None:
    assert words.read(text) == meaning


def test_what_the_provider_made_of_a_message_goes_before_its_words() -> None:
    assert words.read("hola", "STOP") == "opt_out"
    assert words.read("STOP", "HELP") == "help"


def test_a_stranger_who_opts_out_is_known_by_it_when_the_shop_imports_them(db: Database, shop: Settings) -> None:
    taken(db, shop, written("PARE", address="+525549876543", channel="whatsapp"))
    feed(db, shop, LATER, customers=[customer(9, phone="+52 1 55 4987 6543")])

    ending = {"marketing sms 9", "transactional whatsapp 9"}
    assert silenced(db, shop, *ending, "transactional sms 9") == ending


def test_an_opt_in_renews_the_channel_it_was_said_on_and_no_other(db: Database, shop: Settings) -> None:
    take(db, shop, written("STOP", number=1), now=NOW + timedelta(minutes=1))
    take(db, shop, written("STOP", channel="whatsapp", number=2), now=NOW + timedelta(minutes=2))
    take(db, shop, written("START", number=3), now=NOW + timedelta(minutes=3))

    ending = {"service whatsapp", "transactional whatsapp", "service email"}
    assert silenced(db, shop, *ending, "marketing sms") == ending


def test_a_stop_that_is_heard_late_does_not_undo_a_later_start(db: Database, shop: Settings) -> None:
    take(db, shop, written("START", number=2), now=NOW + timedelta(minutes=2))
    take(db, shop, written("STOP", number=1), now=NOW + timedelta(minutes=1))

    assert not blocked(db, shop, "marketing", "sms")


def test_of_an_opt_out_and_an_opt_in_of_one_instant_the_opt_out_counts(db: Database, shop: Settings) -> None:
    take(db, shop, written("START", number=1), written("STOP", number=2))

    ending = {"service sms", "transactional sms"}
    assert silenced(db, shop, *ending) == ending


def test_a_repeated_stop_does_not_undo_what_came_after_it(db: Database, shop: Settings) -> None:
    stop = written("STOP", number=1)
    take(db, shop, stop, now=NOW + timedelta(minutes=1))
    take(db, shop, written("START", number=2), now=NOW + timedelta(minutes=2))
    take(db, shop, stop, now=NOW + timedelta(minutes=3))

    assert not blocked(db, shop, "marketing", "sms")


def test_nobody_is_signed_up_by_an_e_mail_that_anybody_could_have_written(db: Database, shop: Settings) -> None:
    opt_in = InboundEvent("imap:1", "reply", address=EMAIL, text="ALTA", channel="email")
    opt_out = InboundEvent("imap:2", "reply", address=EMAIL, text="BAJA", channel="email")

    inbox.accept(db, shop, LATER, "imap", [opt_in])
    assert consents(db) == set()
    inbox.accept(db, shop, LATER, "imap", [opt_out])
    assert ("email", "email", "revoked") in consents(db)


@pytest.mark.parametrize("kind", ["spamreport", "unsubscribe", "group_unsubscribe"])
def test_complaints_and_unsubscribes_of_the_provider_silence_like_a_stop(
    kind: str, db: Database, shop: Settings
) -> None:
    of = message(db, channel="email")
    take(db, shop, mailed(of, kind))

    ending = {"service sms", "transactional email"}
    assert silenced(db, shop, *ending) == ending
    inbox.receive(db, shop, LATER)
    (fact,) = rows_of(db, MessageEvent)
    assert (fact.kind, fact.message_id) == ("complained" if kind == "spamreport" else "opted_out", of.id)


def test_a_code_by_which_the_provider_says_that_they_opted_out_is_an_opt_out(db: Database, shop: Settings) -> None:
    take(db, shop, report(message(db), "undelivered", "21610"))

    ending = {"transactional sms", "service email"}
    assert silenced(db, shop, *ending) == ending


def test_an_address_where_nobody_is_is_closed_on_that_channel_alone(db: Database, shop: Settings) -> None:
    of = message(db)
    taken(db, shop, report(of, "undelivered", "30006"))

    assert silenced(db, shop, "transactional sms", "marketing whatsapp") == {"transactional sms"}
    (fact,) = rows_of(db, MessageEvent)
    assert (fact.kind, fact.message_id, fact.detail["code"]) == ("bounced", of.id, "30006")
    assert consents(db) == set()


def test_a_bounce_of_nobody_s_address_is_remembered_for_whoever_gets_it(db: Database, shop: Settings) -> None:
    taken(db, shop, mailed(None, "bounce", type="bounce", status="5.1.1", email="new@example.com"))
    feed(db, shop, LATER, customers=[customer(9, email="new@example.com")])

    assert blocked(db, shop, "transactional", "email", number=9)


def test_an_opt_out_waits_for_the_sender_that_holds_the_contact(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.inbox.accepting.AGAIN", ())
    url = new_database("postgresql")
    db, settings = store.open_database(url, secret=SECRET), shop_settings(tmp_path)
    feed(db, settings, NOW, customers=[customer(1)])
    glue = "&" if "?" in url else "?"
    impatient = store.open_database(f"{url}{glue}options=-c%20lock_timeout%3D100", secret=SECRET)
    with store.write(db) as connection:
        held = select(table(Contact).c.id).where(table(Contact).c.address == EMAIL).with_for_update()
        assert connection.execute(held).all()
        assert take(impatient, settings, written("hola")).new == 1
        with pytest.raises(DatabaseError, match="lock timeout"):
            take(impatient, settings, written("STOP", number=2))

    assert take(impatient, settings, written("STOP", number=2)).new == 1
    db.engine.dispose()
    impatient.engine.dispose()


# --- facts --------------------------------------------------------------------------------------------------


def test_facts_are_rows_with_what_their_readers_need(db: Database, shop: Settings) -> None:
    of = message(db, channel="email")
    more = [mailed(of, "open", 3, sg_machine_open=True), mailed(of, "click", 4, url="https://shop.example")]
    counts = taken(db, shop, mailed(of, "processed", 1), mailed(of, "delivered", 2), *more)

    facts = {row.kind: row for row in rows_of(db, MessageEvent)}
    assert (counts.handled, counts.facts, counts.unmatched) == (4, 4, 0)
    assert facts.keys() == {"accepted", "delivered", "opened", "clicked"}
    assert {(row.message_id, row.customer_id, row.at) for row in facts.values()} == {(of.id, of.customer_id, NOW)}
    assert facts["opened"].detail == {"channel": "email", "provider_id": f"sg{of.id}.recvd.1", "detail": "machine"}
    assert message(db, channel="email") == of
    assert inbox.receive(db, shop, LATER).handled == 0
    (tick,) = rows_of(db, Tick, stage="receive")
    assert tick.counts["handled"] == 0


def test_a_message_is_known_by_the_provider_s_id_too(db: Database, shop: Settings) -> None:
    of = message(db, channel="email")
    with store.write(db) as connection:
        connection.execute(update(table(Message)).where(table(Message).c.id == of.id).values(provider_id="abc.def"))
    event = InboundEvent("sendgrid:1", "delivered", provider_id="abc.def.filter01.16.5.0", channel="email")

    assert taken(db, shop, event).facts == 1


def test_facts_about_somebody_else_s_messages_are_kept_and_counted(db: Database, shop: Settings) -> None:
    counts = taken(db, shop, mailed(None, "delivered", email="who@example.com"))

    assert (counts.handled, counts.facts, counts.unmatched) == (1, 0, 1)
    assert rows_of(db, MessageEvent) == []


def test_a_message_in_doubt_is_settled_by_what_its_provider_reports(db: Database, shop: Settings) -> None:
    of = message(db)
    doubt = {"status": Status.UNKNOWN, "provider_id": None, "look_at": LATER}
    with store.write(db) as connection:
        connection.execute(update(table(Message)).where(table(Message).c.id == of.id).values(**doubt))
    taken(db, shop, report(of, "delivered"))
    assert message(db).status == Status.UNKNOWN

    reconciler.reconcile(db, shop, LATER)
    assert (message(db).status, message(db).provider_id) == (Status.SENT, f"SMout{of.id}")


def test_at_most_so_many_events_are_handled_as_asked(db: Database, shop: Settings) -> None:
    of = message(db, channel="email")
    take(db, shop, *(mailed(of, "open", n) for n in range(7)))

    assert inbox.receive(db, shop, LATER, limit=3).handled == 3
    assert inbox.receive(db, shop, LATER, stop=lambda: True).handled == 0
    assert inbox.receive(db, shop, LATER).handled == 4


# --- replies ------------------------------------------------------------------------------------------------


def test_a_reply_is_matched_to_customer_message_and_order(db: Database, shop: Settings) -> None:
    of = message(db, 3)
    counts = taken(db, shop, written("¿Cuándo llega?", address="+525541000003"))

    (reply,) = rows_of(db, Reply)
    assert (counts.replies, counts.strangers) == (1, 0)
    assert (reply.customer_id, reply.message_id, reply.order_id) == (of.customer_id, of.id, of.record_id)
    assert (reply.text, reply.channel, reply.at, reply.intents) == ("¿Cuándo llega?", "sms", LATER, ["question"])


def test_a_reply_goes_to_the_latest_message_on_its_channel_sent_by_then(db: Database, shop: Settings) -> None:
    texts = [message(db, 1), message(db, 2)]  # to one phone
    with store.write(db) as connection:
        for minutes, one in zip((10, 20), texts, strict=True):
            at = NOW + timedelta(minutes=minutes)
            connection.execute(update(table(Message)).where(table(Message).c.id == one.id).values(sent_at=at))
    for number, minutes in enumerate((15, 25)):
        take(db, shop, written("hola", number=number), now=NOW + timedelta(minutes=minutes))
    inbox.receive(db, shop, LATER)

    assert [reply.message_id for reply in rows_of(db, Reply)] == [one.id for one in texts]


def test_a_reply_goes_to_the_message_that_the_provider_names(db: Database, shop: Settings) -> None:
    first = message(db, 1, "whatsapp")
    more = {"OriginalRepliedMessageSid": first.provider_id}
    taken(db, shop, written("sí", channel="whatsapp", **more), written("no", channel="whatsapp", number=2))

    named, latest = rows_of(db, Reply)
    assert (named.message_id, named.customer_id) == (first.id, first.customer_id)
    assert latest.message_id == message(db, 2, "whatsapp").id


def test_a_reply_says_nothing_of_a_message_in_doubt_that_it_does_not_name(db: Database, shop: Settings) -> None:
    of = message(db, 3)
    values = {"status": Status.UNKNOWN, "look_at": LATER}
    with store.write(db) as connection:
        connection.execute(update(table(Message)).where(table(Message).c.id == of.id).values(**values))
    taken(db, shop, written("hola", address="+525541000003"))

    (reply,) = rows_of(db, Reply)
    assert (reply.customer_id, reply.message_id) == (of.customer_id, None)


def test_everybody_with_the_number_has_replied_for_the_rules(db: Database, shop: Settings) -> None:
    taken(db, shop, written("hola", channel="whatsapp"))

    facts = rows_of(db, MessageEvent, kind="replied")
    assert len({fact.customer_id for fact in facts}) == 2
    assert {fact.detail["channel"] for fact in facts} == {"whatsapp"}
    assert [fact.message_id for fact in facts if fact.message_id] == [message(db, 2, "whatsapp").id]


def test_the_words_of_rules_become_true_by_what_came_back(db: Database, shop: Settings) -> None:
    text = FOLLOW_UP.format(name="after", purpose="service", channel="email").rstrip() + "\n"
    text = text.replace("template: m}", "template: m, unless: [replied]}")
    publish(db, shop, LATER, thanks=THANKS, after=text)
    feed(db, shop, LATER, orders=[order(11, "c1", LATER), order(13, "c3", LATER)])
    planner.plan(db, shop, LATER)
    taken(db, shop, written("hola"), now=LATER + timedelta(minutes=5))
    day_after = LATER + timedelta(days=1, minutes=1)
    planner.plan(db, shop, day_after)
    dispatcher.dispatch(db, shop, day_after)

    became = {row.customer_id: (row.status, row.detail) for row in rows_of(db, Message, campaign="after")}
    assert became == {
        message(db, 1).customer_id: (Status.SKIPPED, "replied"),
        message(db, 3).customer_id: (Status.SENT, ""),
    }


def test_who_wrote_by_whatsapp_has_opened_a_conversation_there(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}
    really = Outbox.send

    def send(self: Outbox, batch: Any) -> Any:
        for one in batch:
            seen[one.address] = one.conversation
            yield from really(self, [one])

    monkeypatch.setattr(Outbox, "send", send)
    text = FOLLOW_UP.format(name="chat", purpose="service", channel="whatsapp").replace("1 day", "1 hour")
    publish(db, shop, LATER, thanks=THANKS, chat=text)
    feed(db, shop, LATER, orders=[order(11, "c1", LATER), order(13, "c3", LATER)])
    taken(db, shop, written("hola", channel="whatsapp"), now=LATER + timedelta(minutes=30))
    taken(db, shop, written("hola", address="+525541000003", number=2), now=LATER + timedelta(minutes=30))
    soon = LATER + timedelta(minutes=61)
    planner.plan(db, shop, soon)
    dispatcher.dispatch(db, shop, soon)

    whatsapp = {row.customer_id for row in rows_of(db, Message, campaign="chat", status=Status.SENT)}
    assert len(whatsapp) == 2
    assert {address: talks for address, talks in seen.items() if address in (PHONE, "+525541000003")} == {
        PHONE: True,
        "+525541000003": False,
    }


def test_strangers_are_kept_without_a_customer(db: Database, shop: Settings) -> None:
    counts = taken(db, shop, written("¿Abren mañana?", address="+525587654321"))

    (reply,) = rows_of(db, Reply)
    (who,) = rows_of(db, Contact, id=reply.contact_id)
    assert counts.strangers == 1
    assert (reply.customer_id, reply.message_id, who.address) == (None, None, "+525587654321")
    assert rows_of(db, MessageEvent) == []


def test_an_opt_out_is_a_reply_too_and_says_so(db: Database, shop: Settings) -> None:
    taken(db, shop, written("baja ya", OptOutType="STOP"), written("START", number=2), written("AYUDA", number=3))

    assert [(reply.text, reply.intents) for reply in rows_of(db, Reply)] == [
        ("baja ya", ["opt_out"]),
        ("START", ["opt_in"]),
        ("AYUDA", ["help"]),
    ]
    assert {row.kind for row in rows_of(db, MessageEvent)} == {"replied", "opted_out"}


@pytest.mark.parametrize(
    ("known", "writes"),
    [
        ("+525549876543", "+5215549876543"),
        ("+5511987654321", "+551187654321"),
        ("+5491123456789", "+541123456789"),
        ("+541123456789", "+5491123456789"),
    ],
)
def test_a_number_that_whatsapp_spells_in_another_way_is_the_same_person(
    known: str, writes: str, db: Database, shop: Settings
) -> None:
    feed(db, shop, NOW, customers=[customer(9, phone=known)])
    taken(db, shop, written("STOP", address=writes, channel="whatsapp"))

    (person,) = rows_of(db, Customer, external_id="c9")
    assert [reply.customer_id for reply in rows_of(db, Reply)] == [person.id]
    assert blocked(db, shop, "service", "sms", number=9)


def test_what_is_no_address_is_kept_as_it_is() -> None:
    assert matching.place("sms", "28000") == matching.Place("phone", "28000", ("28000",))
    assert matching.place("email", "NOBODY") == matching.Place("email", "nobody", ("nobody",))
    assert matching.place("sms", " ") is None


# --- pages --------------------------------------------------------------------------------------------------


def token(db: Database, number: int = 1) -> str:
    of = message(db, number, "email")
    (found,) = rows_of(db, MessageLink, message_id=of.id, kind="unsubscribe")
    return str(found.token)


def test_the_holder_of_a_link_is_unsubscribed_everywhere_and_twice_is_as_once(db: Database, shop: Settings) -> None:
    mine = token(db)
    before = inbox.person(db, shop, mine)
    assert before == inbox.Person(
        {"email": "granted", "sms": "granted", "whatsapp": "granted"}, opted_out=False, channel="email", locale=None
    )
    after = inbox.unsubscribe(db, shop, LATER, mine, "one-click")
    lines = rows_of(db, Consent)

    assert inbox.unsubscribe(db, shop, LATER + timedelta(days=400), mine, "page") == after
    assert after is not None
    assert (after.opted_out, set(after.channels.values())) == (True, {"revoked"})
    assert rows_of(db, Consent) == lines
    assert blocked(db, shop, "service", "sms")
    assert {row.source for row in rows_of(db, Suppression)} == {"unsubscribe link: one-click"}


def test_choices_are_taken_channel_by_channel(db: Database, shop: Settings) -> None:
    mine = token(db)
    chosen = inbox.prefer(db, shop, LATER, mine, {"sms": False, "email": True, "fax": True}, "Novedades por SMS")

    assert chosen is not None
    assert dict(chosen.channels) == {"email": "granted", "sms": "revoked", "whatsapp": "granted"}
    assert not chosen.opted_out
    assert [(row.channel, row.status, row.words) for row in rows_of(db, Consent, by="recipient")] == [
        ("sms", "revoked", "Novedades por SMS")
    ]
    assert silenced(db, shop, "service sms", "marketing whatsapp") == {"service sms"}


def test_a_choice_takes_back_an_unsubscribe_for_its_channel(db: Database, shop: Settings) -> None:
    mine = token(db)
    inbox.unsubscribe(db, shop, LATER, mine, "page")
    chosen = inbox.prefer(db, shop, LATER + timedelta(minutes=1), mine, {"email": True}, "Sí, quiero")

    assert chosen is not None
    assert (chosen.opted_out, chosen.channels["email"], chosen.channels["sms"]) == (False, "granted", "revoked")
    assert silenced(db, shop, "marketing email", "service sms") == {"service sms"}


def test_a_link_that_is_none_changes_nothing(db: Database, shop: Settings) -> None:
    with store.write(db) as connection:
        (of,) = [message(db, 3, "email")]
        values = {"token": "click", "message_id": of.id, "kind": "url", "target": "https://shop.example"}
        connection.execute(table(MessageLink).insert().values(**values))

    for wrong in ("", "nobody's", "click"):
        assert inbox.person(db, shop, wrong) is None
        assert inbox.unsubscribe(db, shop, LATER, wrong, "page") is None
        assert inbox.prefer(db, shop, LATER, wrong, {"email": False}) is None
    assert rows_of(db, Suppression) == []
    assert inbox.link(db, "click") == inbox.Link("url", "https://shop.example", of.public_id)
    assert inbox.link(db, "nobody's") is None


# --- any order, any number of copies ------------------------------------------------------------------------

DATED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("processed", {}), ("deferred", {}), ("delivered", {}), ("bounce", {"type": "bounce", "status": "5.1.1"}),
    ("bounce", {"type": "blocked", "status": "5.7.1"}), ("dropped", {"reason": "Bounced Address"}),
    ("dropped", {"reason": "Unsubscribed Address"}), ("dropped", {"reason": "Spam Reporting Address"}),
    ("dropped", {"reason": "Spam Content"}), ("open", {}), ("open", {"sg_machine_open": True}),
    ("click", {"url": "https://shop.example"}), ("spamreport", {}), ("unsubscribe", {}),
    ("group_unsubscribe", {"asm_group_id": 1}),
)  # fmt: skip
REPORTED = (
    ("queued", ""), ("sending", ""), ("sent", ""), ("delivered", ""), ("read", ""), ("canceled", ""),
    ("failed", "30008"), ("undelivered", "30005"), ("undelivered", "30006"), ("undelivered", "21610"),
)  # fmt: skip
TEXTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("STOP", {}), ("baja", {}), ("START", {}), ("alta", {}), ("START", {"OptOutType": "START"}), ("HELP", {}),
    ("baja ya", {"OptOutType": "STOP"}), ("hola", {}), ("", {"NumMedia": "1"}),
    ("", {"ButtonText": "Sí", "ButtonPayload": "1"}), ("llegó roto, qué vergüenza", {}), ("quiero mi reembolso", {}),
    ("¿cuándo llega?", {}), ("bórrenlo", {}), ("Me quejo: vino otro color", {}),
)  # fmt: skip
WRITERS = (PHONE, "+525541000003", "+5215541000003", "+525599887766", "28000")

Delivery = tuple[datetime, InboundEvent]  # when it first came, or could have


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What happened, as recipes: messages are known only once there is a database."""
    minutes = st.integers(1, 6)
    dated = st.tuples(st.just("dated"), st.tuples(st.sampled_from(DATED), st.integers(1, 4), minutes))
    reported = st.tuples(
        st.just("reported"),
        st.tuples(st.sampled_from(REPORTED), st.integers(1, 3), st.sampled_from(("sms", "whatsapp")), minutes),
    )
    said = st.tuples(
        st.just("said"),
        st.tuples(st.sampled_from(TEXTS), st.sampled_from(WRITERS), st.sampled_from(("sms", "whatsapp")), minutes),
    )
    return draw(st.lists(st.one_of(said, dated, reported), min_size=1, max_size=14))


def made(db: Database, recipes: Sequence[tuple[str, Any]]) -> list[Delivery]:
    """The recipes as events of the very forms that the providers post."""
    found = []
    for number, (sort, recipe) in enumerate(recipes):
        at = NOW + timedelta(minutes=recipe[-1])
        if sort == "dated":
            (kind, more), person, _ = recipe
            of = message(db, person, "email") if person < 4 else None
            event = mailed(of, kind, number, at, **{"email": f"c{person}@example.com", **more})
            at = LATER
        elif sort == "reported":
            (status, code), person, channel, _ = recipe
            event = report(message(db, person, channel), status, code, WRITERS[person == 3])
        else:
            (text, more), address, channel, _ = recipe
            event = written(text, address, channel, number, **more)
        found.append((at, event))
    once = {event.event_id: (at, event) for at, event in reversed(found)}  # the same report is the same event
    return list(once.values())


def state(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Whole tables, apart from ids of rows and the times at which we heard."""
    contacts = {row.id: (row.kind, row.address_hash) for row in rows_of(db, Contact)}
    heard = {"id", "received_at", "recorded_at", "handled_at"}
    found = {}
    names = {
        "case_id": {row.id: row.external_id for row in rows_of(db, Case)},
        "reply_id": {row.id: row.event_id for row in rows_of(db, Reply)},
    }
    for model in (Inbox, MessageEvent, Reply, Case, Answer, Consent, Suppression, Contact, Message, Customer):
        rows = []
        for row in rows_of(db, model):
            values = {name: value for name, value in row._mapping.items() if name not in heard}
            if "contact_id" in values:
                values["contact_id"] = contacts.get(values["contact_id"])
            for column, known in names.items():
                if column in values:
                    values[column] = known.get(values[column])
            rows.append(tuple(json.dumps(value, default=str, sort_keys=True) for value in values.values()))
        found[model.__name__] = sorted(rows)
    return found


def deliver(db: Database, settings: Settings, all_of: Sequence[Delivery], parts: random.Random | None = None) -> None:
    """Hand them in: each alone, or in requests of several, with a tick of the stage now and then."""
    index = 0
    while index < len(all_of):
        size = parts.randint(1, 5) if parts else 1
        for at, event in all_of[index : index + size]:
            inbox.accept(db, settings, at, event.event_id.partition(":")[0], [event])
        if parts and parts.random() < 0.3:
            inbox.receive(db, settings, LATER)
        index += size
    inbox.receive(db, settings, LATER)


def in_order(worlds: Worlds, kind: str, settings: Settings, recipes: Sequence[tuple[str, Any]]) -> Any:
    db = store.open_database(worlds(kind), secret=SECRET)
    events = made(db, recipes)
    deliver(db, settings, sorted(events, key=lambda one: (one[1].at or one[0], one[1].event_id)))
    found = state(db)
    db.engine.dispose()
    return found


def property_of(worlds: Worlds, kind: str, folder: Path, recipes: Sequence[tuple[str, Any]], seed: int) -> None:
    settings, dice = shop_settings(folder), random.Random(seed)
    db = store.open_database(worlds(kind), secret=SECRET)
    events = made(db, recipes)
    copies = [one for one in events for _ in range(dice.choice((1, 1, 2, 3)))]
    copies += [events[0]] * dice.choice((0, 50))
    dice.shuffle(copies)
    deliver(db, settings, copies, dice)
    found = state(db)
    db.engine.dispose()

    assert found == in_order(worlds, kind, settings, recipes)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes=deliveries(), seed=st.integers(0, 2**32))
def test_any_order_and_number_of_copies_leaves_the_same_state_on_sqlite(
    worlds: Worlds, tmp_path: Path, recipes: list[tuple[str, Any]], seed: int
) -> None:
    property_of(worlds, "sqlite", tmp_path, recipes, seed)


@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes=deliveries(), seed=st.integers(0, 2**32))
def test_any_order_and_number_of_copies_leaves_the_same_state_on_postgresql(
    worlds: Worlds, tmp_path: Path, recipes: list[tuple[str, Any]], seed: int
) -> None:
    property_of(worlds, "postgresql", tmp_path, recipes, seed)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_that_get_the_same_events_leave_the_same_state(kind: str, worlds: Worlds, tmp_path: Path) -> None:
    dice = random.Random(7)
    recipes: list[tuple[str, Any]] = [("dated", (one, dice.randint(1, 4), dice.randint(1, 6))) for one in DATED]
    recipes += [("reported", (one, 1 + n % 3, "sms", dice.randint(1, 6))) for n, one in enumerate(REPORTED)]
    recipes += [
        ("said", (one, WRITERS[n % 5], ("sms", "whatsapp")[n % 2], dice.randint(1, 6)))
        for n, one in enumerate(TEXTS * 2)
    ]
    url, context = worlds(kind), forked.context(__name__)
    both = [context.Process(target=_one_of_two, args=(url, tmp_path, recipes, seed)) for seed in (1, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]

    db = store.open_database(url, secret=SECRET)
    found = state(db)
    db.engine.dispose()
    assert found == in_order(worlds, kind, shop_settings(tmp_path), recipes)


def _one_of_two(url: str, folder: Path, recipes: Sequence[tuple[str, Any]], seed: int) -> None:
    db, dice = store.open_database(url, secret=SECRET), random.Random(seed)
    copies = made(db, recipes) * 3
    dice.shuffle(copies)
    deliver(db, shop_settings(folder), copies, dice)
