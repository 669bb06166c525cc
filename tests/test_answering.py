"""Answers: the confirmation of an opt-out, what people answer, and what a machine may say by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from outreach import (
    answering,
    campaign_keys,
    channels,
    dispatcher,
    gates,
    inbox,
    planner,
    releases,
    replies_file,
    store,
)
from outreach.campaigns import ANSWERS
from outreach.channels import InboundEvent, Outcome, Outgoing, Receipt, Silent
from outreach.errors import ChannelError, NotFound, OutreachError
from outreach.inbox import words
from outreach.intents import Intent
from outreach.models import (
    Answer,
    Case,
    Customer,
    Enrolment,
    Message,
    MessageContent,
    Reason,
    Reply,
    Status,
    Suppression,
    table,
)
from outreach.reports import replies as report
from outreach.settings import Cap, Settings
from outreach.store import Database
from outreach.values import Limit, WeekHours, parse_duration
from tests.conftest import NOW
from tests.shop import ALWAYS, customer, feed, files_of, order, rows_of, shop_settings
from tests.test_inbox import EMAIL, PHONE, THANKS, written

LATER = NOW + timedelta(hours=2)
NIGHT = NOW + timedelta(hours=18)  # three in the morning where the shop is
DAY = WeekHours(((9 * 60, 20 * 60),) * 7)


def built(db: Database, folder: Path, templates: Mapping[str, str] | None = None, **changes: Any) -> Settings:
    """Two customers, each written to by e-mail, SMS and WhatsApp."""
    settings = shop_settings(folder, **changes)
    releases.publish(db, settings, files_of(templates, thanks=THANKS), NOW - timedelta(hours=1))
    orders = [order(n, f"c{n}", NOW - timedelta(minutes=30)) for n in (1, 2)]
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=orders)
    planner.plan(db, settings, NOW)
    assert dispatcher.dispatch(db, settings, NOW).sent == 6
    return settings


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Settings:
    return built(db, tmp_path)


def heard(
    db: Database, settings: Settings, *events: InboundEvent, now: datetime = LATER, provider: str = "imap"
) -> None:
    inbox.accept(db, settings, now, provider, events)
    inbox.receive(db, settings, now)


def sent(db: Database) -> list[Any]:
    """Every answer's message."""
    return rows_of(db, Message, campaign=ANSWERS)


def texts(db: Database) -> list[str]:
    """What the answers said that left."""
    left = {row.id for row in sent(db) if row.status == Status.SENT}
    return [row.text for row in rows_of(db, MessageContent) if row.message_id in left]


def only_reply(db: Database) -> Any:
    (reply,) = rows_of(db, Reply)
    return reply


def mailed(text: str, number: int = 1, **more: Any) -> InboundEvent:
    return InboundEvent(f"imap:{number}", "reply", address=EMAIL, text=text, channel="email", **more)


# --- the confirmation of an opt-out ------------------------------------------------------------------


def test_an_opt_out_is_confirmed_once_on_the_channel_it_came_by(db: Database, shop: Settings) -> None:
    heard(db, shop, written("no me manden más mensajes"))
    dispatcher.dispatch(db, shop, LATER)
    heard(db, shop, written("ya les dije: BAJA", number=2), now=LATER + timedelta(minutes=1))
    dispatcher.dispatch(db, shop, LATER + timedelta(minutes=1))

    (one,) = sent(db)
    assert (one.status, one.channel, one.purpose) == (Status.SENT, "sms", "answer")
    assert texts(db) == ["Tienda Luna: listo, ya no te enviaremos mensajes. Si fue un error, responde ALTA."]


def test_the_confirmation_leaves_at_night_and_over_every_cap(db: Database, tmp_path: Path) -> None:
    full = (Cap(Limit(1, parse_duration("30 days"))),)
    settings = built(db, tmp_path)
    strict = replace(settings, sending_hours={"default": DAY}, caps=full)

    heard(db, strict, written("BAJA"), now=NIGHT)
    dispatcher.dispatch(db, strict, NIGHT)

    assert [row.status for row in sent(db)] == [Status.SENT]


def test_what_answers_is_counted_by_no_cap(db: Database, tmp_path: Path) -> None:
    settings = built(db, tmp_path)
    heard(db, settings, written("¿Cuándo llega?"))
    answering.answer(db, settings, LATER, only_reply(db).id, text="Mañana")
    dispatcher.dispatch(db, settings, LATER)
    cap = Cap(Limit(1, parse_duration("1 hours")))
    marketing = (LATER, "answer", "sms", ANSWERS)

    assert gates._concerns(cap, *marketing[1:]) is False
    assert texts(db) == ["Mañana"]


def test_a_confirmation_that_is_too_late_is_none(db: Database, shop: Settings) -> None:
    inbox.accept(db, shop, LATER, "imap", [written("BAJA")])
    inbox.receive(db, shop, LATER + timedelta(minutes=5))
    assert sent(db) == []

    heard(db, shop, written("BAJA", address="+525541000002", number=2))
    dispatcher.dispatch(db, shop, LATER + timedelta(minutes=5))
    assert [(row.status, row.reason) for row in sent(db)] == [(Status.EXPIRED, Reason.EXPIRED)]


@pytest.mark.parametrize(("text", "code"), [("STOP", ""), ("cancel", ""), ("baja", "STOP")])
def test_twilio_confirms_what_it_obeyed_itself(text: str, code: str, db: Database, shop: Settings) -> None:
    heard(db, shop, written(text, **({"OptOutType": code} if code else {})), provider="twilio")

    assert sent(db) == []


def test_what_twilio_does_not_know_we_confirm(db: Database, shop: Settings) -> None:
    heard(db, shop, written("BAJA"), provider="twilio")

    assert len(sent(db)) == 1


def test_complaints_and_pages_are_not_confirmed(db: Database, shop: Settings) -> None:
    (of,) = rows_of(db, Message, customer_id=rows_of(db, Customer, external_id="c1")[0].id, channel="email")
    heard(db, shop, InboundEvent("e1", "complained", public_id=of.public_id, channel="email", address=EMAIL))

    assert sent(db) == []


def test_an_e_mail_is_told_of_no_word_that_signs_up_again(db: Database, shop: Settings) -> None:
    heard(db, shop, mailed("Por favor no me escriban más"))
    dispatcher.dispatch(db, shop, LATER)

    assert texts(db) == ["Tienda Luna: listo, ya no te enviaremos mensajes."]
    (row,) = sent(db)
    (content,) = rows_of(db, MessageContent, message_id=row.id)
    assert content.subject == "Ya no te escribiremos"


def test_a_workspace_confirms_in_its_own_words(db: Database, tmp_path: Path) -> None:
    own = {"message_templates/answers/opted_out.text.es.j2": "Adiós, {{ customer.first_name }}."}
    settings = built(db, tmp_path, own)

    heard(db, settings, written("BAJA"))
    dispatcher.dispatch(db, settings, LATER)

    assert texts(db) == ["Adiós, Ana."]


@pytest.mark.parametrize(("locale", "word"), [("pt-BR", "VOLTAR"), ("en-US", "START"), ("fr", "ALTA")])
def test_it_is_confirmed_in_the_customers_language(locale: str, word: str, db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, customers=[customer(1, locale=locale)])

    heard(db, shop, written("BAJA"))
    dispatcher.dispatch(db, shop, LATER)

    (text,) = texts(db)
    assert text.rstrip(".").endswith(word)
    assert words.read(word) == words.OPT_IN


def test_who_opts_out_again_much_later_is_told_only_if_it_changed_anything(db: Database, shop: Settings) -> None:
    later = LATER + timedelta(days=2)
    heard(db, shop, written("BAJA"))
    heard(db, shop, written("BAJA", number=2), now=later)
    assert len(sent(db)) == 1

    heard(db, shop, written("ALTA", number=3), now=later + timedelta(hours=1))
    heard(db, shop, written("BAJA", number=4), now=later + timedelta(hours=2))
    assert len(sent(db)) == 2


def test_nobody_is_told_twice_within_a_day_whatever_they_change(db: Database, shop: Settings) -> None:
    for hours, text in enumerate(("BAJA", "ALTA", "BAJA")):
        heard(db, shop, written(text, number=hours), now=LATER + timedelta(hours=hours))

    assert len(sent(db)) == 1


def test_a_hard_bounce_stops_even_the_confirmation(db: Database, shop: Settings) -> None:
    heard(db, shop, written("BAJA"))
    with store.write(db) as connection:
        connection.execute(update(table(Suppression)).where(table(Suppression).c.scope == "address").values(channel=""))
    dispatcher.dispatch(db, shop, LATER)

    assert [(row.status, row.reason) for row in sent(db)] == [(Status.SKIPPED, Reason.SUPPRESSED)]


# --- doubt -------------------------------------------------------------------------------------------


def test_a_doubtful_opt_out_pauses_marketing_and_waits_for_a_person(db: Database, shop: Settings) -> None:
    heard(db, shop, written("número equivocado"))

    (case,) = rows_of(db, Case)
    assert (case.kind, case.category, case.closed_at, case.opened_by) == ("question", "opt_out", None, "reply")
    assert only_reply(db).intents == ["opt_out"]
    assert only_reply(db).case_id == case.id
    assert rows_of(db, Suppression) == []
    assert sent(db) == []


def test_a_doubtful_opt_out_concerns_everybody_with_the_address(db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, customers=[customer(2, phone=PHONE)])

    heard(db, shop, written("número equivocado"))

    assert {row.customer_id for row in rows_of(db, Case)} == {row.id for row in rows_of(db, Customer)}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Llegó roto", ["complaint"]),
        ("quiero cancelar mi pedido 4521", ["cancellation"]),
        ("¿Cuándo llega?", ["question"]),
        ("vino defectuoso, exijo mi reembolso", ["complaint", "refund"]),
        ("Gracias!", []),
        ("5", []),
    ],
)
def test_what_a_reply_asks_for_opens_cases(text: str, kinds: list[str], db: Database, shop: Settings) -> None:
    heard(db, shop, written(text))
    heard(db, shop, written(text))

    assert sorted(row.kind for row in rows_of(db, Case)) == kinds


def test_a_machine_opts_nobody_out_for_good(db: Database, shop: Settings) -> None:
    heard(db, shop, mailed("Ya no trabajo aquí, no me escriban más", code=channels.AUTOMATIC))

    assert rows_of(db, Suppression) == []
    assert only_reply(db).intents == ["out_of_office"]
    assert [row.category for row in rows_of(db, Case)] == ["opt_out"]


# --- what people answer ------------------------------------------------------------------------------


def test_a_person_answers_on_the_replys_channel_at_any_hour(db: Database, tmp_path: Path) -> None:
    settings = built(db, tmp_path, sending_hours={"default": ALWAYS})
    heard(db, settings, written("¿Cuándo llega?", channel="whatsapp"), now=NIGHT)
    strict = replace(settings, sending_hours={"default": DAY})

    done = answering.answer(db, strict, NIGHT, only_reply(db).id, text="Mañana.", by="Eva")
    dispatcher.dispatch(db, strict, NIGHT)

    assert answering.became(db, done.id).status == Status.SENT
    assert [(row.channel, row.purpose) for row in sent(db)] == [("whatsapp", "answer")]
    assert texts(db) == ["Mañana."]
    assert only_reply(db).answered_at == NIGHT
    (case,) = rows_of(db, Case)
    assert case.answered_at == NIGHT


def test_an_answer_that_its_channel_cannot_take_is_tried_again_minutes_later_and_not_for_ever(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Silent):
        tried = 0

        def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
            for outgoing in batch:
                Wrong.tried += 1
                yield Receipt(outgoing.public_id, Outcome.LATER, detail="the login is wrong")
            raise ChannelError("channels.sms: the login is wrong")

    heard(db, shop, written("¿Cuándo llega?"))
    answering.answer(db, shop, LATER, only_reply(db).id, text="Mañana.")
    monkeypatch.setattr(channels, "open_channel", lambda *_: Wrong())

    for minutes, tried in ((1, 1), (2, 1), (7, 2)):
        dispatcher.dispatch(db, shop, LATER + timedelta(minutes=minutes))
        assert Wrong.tried == tried


def test_the_same_answer_again_is_not_sent_twice_and_the_first_time_stays(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?"))
    number = only_reply(db).id
    first = answering.answer(db, shop, LATER, number, text="Mañana.")
    again = answering.answer(db, shop, LATER + timedelta(minutes=1), number, text=" Mañana. ")
    more = answering.answer(db, shop, LATER + timedelta(minutes=2), number, text="Por la tarde.")
    dispatcher.dispatch(db, shop, LATER + timedelta(minutes=3))

    assert (first.new, again.new, more.new) == (True, False, True)
    assert again.id == first.id
    assert sorted(texts(db)) == ["Mañana.", "Por la tarde."]
    assert only_reply(db).answered_at == LATER


def test_whatsapp_takes_no_answer_after_a_day(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?", channel="whatsapp"))
    number = only_reply(db).id

    with pytest.raises(OutreachError, match="24 hours"):
        answering.answer(db, shop, LATER + timedelta(hours=24), number, text="Mañana.")
    assert sent(db) == []
    answering.answer(db, shop, LATER + timedelta(hours=23, minutes=59), number, text="Mañana.")


def test_after_a_day_an_sms_keeps_to_the_hours(db: Database, tmp_path: Path) -> None:
    settings = built(db, tmp_path)
    strict = replace(settings, sending_hours={"default": DAY})
    heard(db, settings, written("¿Cuándo llega?"), now=NIGHT)
    late = NIGHT + timedelta(hours=24)

    done = answering.answer(db, strict, late, only_reply(db).id, text="Mañana.")
    dispatcher.dispatch(db, strict, late)

    assert (answering.became(db, done.id).status, answering.became(db, done.id).reason) == ("planned", "hours")


def test_an_opt_out_stops_a_persons_answer(db: Database, shop: Settings) -> None:
    heard(db, shop, written("BAJA, pésimo servicio"))

    with pytest.raises(OutreachError, match="suppressed"):
        answering.answer(db, shop, LATER, only_reply(db).id, text="¿Qué pasó?")
    assert only_reply(db).answered_at is None


def test_an_answer_goes_to_whoever_wrote_or_to_nobody(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?"))
    done = answering.answer(db, shop, LATER, only_reply(db).id, text="Mañana.")
    feed(db, shop, LATER, customers=[customer(1, phone="+525549876543")])
    dispatcher.dispatch(db, shop, LATER)

    assert answering.became(db, done.id).status == Status.SKIPPED
    assert texts(db) == []


def test_an_e_mail_is_answered_under_its_subject(db: Database, shop: Settings) -> None:
    heard(db, shop, mailed("¿Cuándo llega?"))
    answering.answer(db, shop, LATER, only_reply(db).id, text="Mañana.")
    dispatcher.dispatch(db, shop, LATER)

    (row,) = sent(db)
    (content,) = rows_of(db, MessageContent, message_id=row.id)
    assert (content.subject, content.text) == ("Re: Hola", "Mañana.")


def test_a_template_answers_and_must_be_published(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?"))
    answering.answer(db, shop, LATER, only_reply(db).id, template="m")
    dispatcher.dispatch(db, shop, LATER)
    assert texts(db) == ["Hola Ana"]

    with pytest.raises(NotFound, match="no template nope"):
        answering.answer(db, shop, LATER, only_reply(db).id, template="nope")


def test_strangers_and_unknown_replies_are_refused(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Abren?", address="+525587654321"))

    with pytest.raises(OutreachError, match="nobody known"):
        answering.answer(db, shop, LATER, only_reply(db).id, text="Sí")
    with pytest.raises(NotFound, match="no reply 99"):
        answering.answer(db, shop, LATER, 99, text="Sí")
    with pytest.raises(OutreachError, match="empty"):
        answering.answer(db, shop, LATER, only_reply(db).id, text="  ")


# --- labels ------------------------------------------------------------------------------------------


def test_labels_are_kept_beside_what_was_read(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?"))
    number = only_reply(db).id

    assert answering.label(db, number, ["refund", "complaint"]) == ("complaint", "refund")
    assert (only_reply(db).labels, only_reply(db).intents) == (["complaint", "refund"], ["question"])
    with pytest.raises(OutreachError, match="no meaning"):
        answering.label(db, number, ["angry"])
    with pytest.raises(NotFound):
        answering.label(db, 99, ["yes"])


def test_who_waits_for_an_answer_is_listed(db: Database, shop: Settings) -> None:
    heard(db, shop, written("¿Cuándo llega?"), written("gracias", number=2), written("ayuda", number=3))
    first = rows_of(db, Reply)[0].id
    assert [row["text"] for row in report.replies(db, unanswered=True)] == ["¿Cuándo llega?", "ayuda"]

    answering.answer(db, shop, LATER, first, text="Mañana")
    assert [row["text"] for row in report.replies(db, unanswered=True)] == ["ayuda"]
    assert len(report.replies(db)) == 3


# --- campaigns that start on replies -----------------------------------------------------------------

ON_REPLY = """
    title: Thanks for asking
    purpose: service
    trigger: {event: reply.received, intent: [question, complaint], to: thanks/text}
    steps: [{id: only, after: 1 hour, channel: sms, template: m}]
"""


def test_a_campaign_starts_once_on_each_reply_that_fits(db: Database, tmp_path: Path) -> None:
    settings = shop_settings(tmp_path)
    start = NOW - timedelta(hours=1)
    releases.publish(db, settings, files_of(thanks=THANKS, asked=ON_REPLY), start)
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=[order(1, "c1", NOW - timedelta(minutes=30))])
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)
    asked = written("¿Cuándo llega?", number=1)

    heard(db, settings, asked, written("gracias", number=2), written("¿Y el color?", channel="whatsapp", number=3))
    heard(db, settings, written("¿Abren?", address="+525541000002", number=4))  # answers no message of the campaign
    heard(db, settings, asked)
    for hours in (0, 2):
        planner.plan(db, settings, LATER + timedelta(hours=hours))

    (reply,) = [row for row in rows_of(db, Reply) if row.text == "¿Cuándo llega?"]
    assert [(row.record_id, row.status) for row in rows_of(db, Message, campaign="asked")] == [(reply.id, "planned")]
    assert [row.record_id for row in rows_of(db, Enrolment, campaign="asked")] == [reply.id]


def test_campaigns_may_name_every_meaning_that_there_is() -> None:
    assert tuple(Intent) == campaign_keys.INTENTS


# --- surveys -----------------------------------------------------------------------------------------

ASK = """
    title: Ask
    purpose: service
    trigger: {event: order.placed}
    stop_when: [replied]
    steps:
      - {id: ask, after: 0 days, channel: sms, template: m, survey: csat}
      - {id: again, after: 1 day, channel: sms, template: m}
"""


@pytest.fixture
def asked(db: Database, tmp_path: Path) -> Settings:
    settings = shop_settings(tmp_path)
    files = {**files_of(ask=ASK), releases.CATALOGUE: '{"surveys": {"csat": {"scale": "1-5", "satisfied": "4-5"}}}'}
    releases.publish(db, settings, files, NOW - timedelta(hours=1))
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - timedelta(minutes=30))])
    planner.plan(db, settings, NOW)
    assert dispatcher.dispatch(db, settings, NOW).sent == 1
    return settings


def test_a_score_answers_the_survey_of_the_message(db: Database, asked: Settings) -> None:
    heard(db, asked, written("4"))
    heard(db, asked, written("2, llegó roto y tarde", number=2), now=LATER + timedelta(hours=1))

    (answer,) = rows_of(db, Answer)
    assert (answer.survey, answer.score, answer.channel, answer.at) == ("csat", 2, "sms", LATER)
    assert answer.comment == "2, llegó roto y tarde"
    assert [(row.score, row.intents) for row in rows_of(db, Reply)] == [(4, ["score"]), (2, ["score", "complaint"])]
    assert [row.kind for row in rows_of(db, Case)] == ["complaint"]


def test_an_answer_to_a_survey_is_no_reply_to_stop_when(db: Database, asked: Settings) -> None:
    heard(db, asked, written("4"))
    planner.plan(db, asked, NOW + timedelta(days=1, minutes=1))
    assert [row.status for row in rows_of(db, Message, step="again")] == ["planned"]


def test_any_other_word_is_a_reply_to_stop_when(db: Database, asked: Settings) -> None:
    heard(db, asked, written("todo bien por acá"))
    planner.plan(db, asked, NOW + timedelta(days=1, minutes=1))
    assert [row.reason for row in rows_of(db, Message, step="again")] == [Reason.STOPPED]


# --- what is answered by itself ----------------------------------------------------------------------

AUTOMATIC = """
answers:
  help: {template: answers/menu, options: menu}
  question: {template: answers/soon}
options:
  menu:
    1: {template: answers/hours}
    2: {template: answers/person, person: yes}
    3: {template: answers/more, options: more}
  more:
    1: {template: answers/deep}
"""
WORDS = {
    f"message_templates/answers/{name}.{kind}.j2": head + text
    for name, text in {
        "menu": "1 horario, 2 persona, 3 otro",
        "soon": "Te respondemos hoy.",
        "hours": "De 9 a 18.",
        "person": "Te llamamos.",
        "more": "1 envios",
        "deep": "Tarda 3 dias.",
    }.items()
    for kind, head in (("text", ""), ("email", "---\nsubject: Hola\n---\n"))
}


@pytest.fixture
def robot(db: Database, tmp_path: Path) -> Settings:
    return built(db, tmp_path, {**WORDS, replies_file.FILE: AUTOMATIC})


def chat(db: Database, settings: Settings, *said: str, address: str = PHONE) -> list[str]:
    """What is answered to these messages, one a minute."""
    for number, text in enumerate(said):
        now = LATER + timedelta(minutes=number)
        heard(db, settings, written(text, address=address, number=f"{address}-{number}"), now=now)
        dispatcher.dispatch(db, settings, now)
    return texts(db)


def test_a_menu_leads_through_its_options(db: Database, robot: Settings) -> None:
    assert chat(db, robot, "ayuda", "3", "1") == ["1 horario, 2 persona, 3 otro", "1 envios", "Tarda 3 dias."]


def test_a_number_without_a_menu_is_no_choice(db: Database, robot: Settings) -> None:
    assert chat(db, robot, "1") == []


def test_who_wants_a_person_gets_one(db: Database, robot: Settings) -> None:
    assert chat(db, robot, "ayuda", "2")[-1] == "Te llamamos."
    assert [(row.kind, row.category) for row in rows_of(db, Case)] == [("question", "person")]


def test_nobody_gets_more_than_three_an_hour(db: Database, robot: Settings) -> None:
    assert len(chat(db, robot, "¿Abren hoy?", "¿Y mañana?", "¿Tienen azul?", "¿Y rojo?", "ayuda")) == 3


def test_the_same_words_again_are_not_answered_again(db: Database, robot: Settings) -> None:
    assert chat(db, robot, "¿Abren hoy?", "¿abren hoy?", "¿Abren hoy? ") == ["Te respondemos hoy."]


def test_machines_and_opt_outs_are_not_answered(db: Database, robot: Settings) -> None:
    heard(
        db, robot, mailed("¿Cuándo llega?", code=channels.AUTOMATIC), mailed("Fuera de la oficina ¿urgente?", number=2)
    )
    heard(db, robot, written("número equivocado, ¿quién es?"))
    dispatcher.dispatch(db, robot, LATER)
    assert texts(db) == []


def test_an_automatic_answer_is_written_once_for_each_reply(db: Database, robot: Settings) -> None:
    event = written("¿Abren hoy?")
    heard(db, robot, event, event)
    heard(db, robot, event)
    assert len(sent(db)) == 1


def test_an_answer_to_a_survey_is_not_answered_by_itself(db: Database, tmp_path: Path) -> None:
    settings = shop_settings(tmp_path)
    survey = '{"surveys": {"csat": {"scale": "1-5", "satisfied": "4-5"}}}'
    rules = "answers: {score: {template: answers/soon}}"
    files = files_of(WORDS, ask=ASK) | {releases.CATALOGUE: survey, replies_file.FILE: rules}
    releases.publish(db, settings, files, NOW - timedelta(hours=1))
    orders = [order(1, "c1", NOW - timedelta(minutes=30))]
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=orders)
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)

    heard(db, settings, written("4"), written("4", address="+525541000002", number=2))

    (asked,) = rows_of(db, Answer)
    assert [row.customer_id != asked.customer_id for row in sent(db)] == [True]


def test_what_comes_late_is_not_answered_by_itself(db: Database, robot: Settings) -> None:
    inbox.accept(db, robot, LATER, "imap", [written("¿Abren hoy?")])
    inbox.receive(db, robot, LATER + timedelta(minutes=15))
    assert sent(db) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("answers:\n  helps: {template: a}", "replies.yaml:2:3"),
        ("answers:\n  help: {template: answers/hours, options: nope}", "replies.yaml:2:44"),
        ("answers:\n  help: {template: answers/nothing}", "replies.yaml:2:20"),
        ("answers:\n  opt_out: {template: answers/hours}", "replies.yaml:2:3"),
        ("answers:\n  help: {options: menu}\noptions: {menu: {1: {template: answers/hours}}}", "replies.yaml:2:9"),
    ],
)
def test_check_names_the_place_of_what_is_wrong(text: str, problem: str, tmp_path: Path) -> None:
    found = releases.check({**files_of(WORDS), replies_file.FILE: text}, shop_settings(tmp_path))

    assert {
        f"{one.file}:{one.line}:{one.column}" for one in found if not one.warning and one.file == "replies.yaml"
    } == {problem}
    assert not [
        x
        for x in releases.check(
            files_of(
                WORDS,
            )
            | {replies_file.FILE: AUTOMATIC},
            shop_settings(tmp_path),
        )
        if not x.warning
    ]
