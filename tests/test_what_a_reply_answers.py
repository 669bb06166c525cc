"""What a reply is an answer to: a question that other messages followed, a doubt that a person decides on, a link."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from outreach import cases, dispatcher, inbox, planner, releases
from outreach.channels import InboundEvent
from outreach.models import Answer, Case, Enrolment, Message, MessageLink, Reason, Reply, Status
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, order, rows_of, shop_settings
from tests.test_inbox import PHONE, taken, written
from tests.test_surveys import CATALOGUE, SURVEYS

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ASK = """
    title: Ask
    purpose: service
    trigger: {event: order.placed}
    steps: [{id: ask, after: 0 minutes, channel: sms, template: m, survey: SURVEY}]
"""
NOTICE = """
    title: On its way
    purpose: transactional
    trigger: {event: order.shipped}
    steps: [{id: sent, after: 0 minutes, channel: CHANNEL, template: m}]
"""
OFFER = """
    title: Offer
    purpose: marketing
    trigger: {event: order.placed}
    steps: [{id: only, after: 1 day, channel: sms, template: m}]
"""
REPLIES = """
answers: {question: {template: answers/soon}, help: {template: answers/menu, options: menu}}
options: {menu: {1: {template: answers/hours}, sí: {template: answers/hours, person: yes}}}
"""
TEMPLATES = {"replies.yaml": REPLIES} | {
    f"message_templates/answers/{name}.{end}": f"{head}{name}"
    for name in ("soon", "menu", "hours")
    for end, head in (("text.j2", ""), ("email.j2", "---\nsubject: x\n---\n"))
}


def shop(db: Database, folder: Path, survey: str = "csat", channel: str = "sms") -> Settings:
    """One customer has been asked, and their order is on its way after that."""
    settings = shop_settings(folder, surveys=SURVEYS)
    ask, notice = ASK.replace("SURVEY", survey), NOTICE.replace("CHANNEL", channel)
    files = files_of(TEMPLATES, ask=ask, notice=notice, offer=OFFER) | {releases.CATALOGUE: json.dumps(CATALOGUE)}
    releases.publish(db, settings, files, NOW - HOUR)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW)])
    go_on(db, settings, timedelta())
    return settings


def go_on(db: Database, settings: Settings, later: timedelta) -> None:
    planner.plan(db, settings, NOW + later)
    dispatcher.dispatch(db, settings, NOW + later)


def says(db: Database, settings: Settings, text: str, later: timedelta) -> None:
    event = InboundEvent(f"twilio:{text}:{later}", "reply", address=PHONE, text=text, channel="sms")
    inbox.accept(db, settings, NOW + later, "twilio", [event])
    inbox.receive(db, settings, NOW + later)


def scores(db: Database) -> list[int]:
    return [row.score for row in rows_of(db, Answer)]


def test_a_score_answers_the_question_though_a_notice_came_after_it(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    feed(db, settings, NOW + HOUR, orders=[order(1, "c1", NOW, shipped_at=NOW + HOUR)])
    go_on(db, settings, HOUR)

    says(db, settings, "2", 2 * HOUR)

    assert scores(db) == [2]
    (reply,) = rows_of(db, Reply)
    assert reply.message_id == rows_of(db, Message, step="ask")[0].id


def test_a_score_answers_the_question_though_an_automatic_answer_came_after_it(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    says(db, settings, "¿hay talla 38?", HOUR)
    go_on(db, settings, HOUR)
    assert [row.step for row in rows_of(db, Message, campaign="answers")] == ["automatic"]

    says(db, settings, "4 👍", HOUR + timedelta(minutes=1))

    assert scores(db) == [4]


def test_after_a_menu_a_number_is_a_choice(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    says(db, settings, "AYUDA", HOUR)
    go_on(db, settings, HOUR)

    says(db, settings, "1", HOUR + timedelta(minutes=1))

    assert scores(db) == []
    assert len(rows_of(db, Message, campaign="answers")) == 2


def test_a_question_that_was_asked_long_ago_is_answered_no_more(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    feed(db, settings, NOW + 9 * DAY, orders=[order(1, "c1", NOW, shipped_at=NOW + 9 * DAY)])
    go_on(db, settings, 9 * DAY)

    says(db, settings, "2", 9 * DAY + HOUR)

    assert scores(db) == []


def test_what_is_no_score_answers_the_last_message(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    feed(db, settings, NOW + HOUR, orders=[order(1, "c1", NOW, shipped_at=NOW + HOUR)])
    go_on(db, settings, HOUR)

    says(db, settings, "gracias", 2 * HOUR)

    (reply,) = rows_of(db, Reply)
    assert reply.message_id == rows_of(db, Message, step="sent")[0].id


@pytest.mark.parametrize("text", ["1️⃣", "uno", "Opción 1", "1 por favor", "1,", "el 1", "«1»", "1!"])
def test_a_choice_is_understood_however_it_is_written(db: Database, tmp_path: Path, text: str) -> None:
    settings = shop(db, tmp_path)
    says(db, settings, "AYUDA", HOUR)
    go_on(db, settings, HOUR)

    says(db, settings, text, HOUR + timedelta(minutes=1))

    assert len(rows_of(db, Message, campaign="answers")) == 2


def test_a_code_with_its_meaning_answers_and_opens_no_case(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path, survey="expectations")

    says(db, settings, "2 no", HOUR)

    assert scores(db) == [0]
    assert rows_of(db, Case) == []


def test_a_doubtful_opt_out_is_a_case_of_its_own_whatever_else_is_open(db: Database, tmp_path: Path) -> None:
    settings = shop(db, tmp_path)
    file = {"case_id": "Z1", "customer_id": "c1", "kind": "question", "category": "talla", "opened_at": NOW}
    feed(db, settings, NOW, cases=[file])

    says(db, settings, "ya no manden", HOUR)
    says(db, settings, "¿cuándo llega?", 2 * HOUR)
    feed(db, settings, NOW + 3 * HOUR, cases=[file | {"closed_at": NOW + 2 * HOUR, "outcome": "resolved"}])
    go_on(db, settings, DAY + HOUR)

    assert sorted((row.category, row.closed_at is None) for row in rows_of(db, Case)) == [
        ("opt_out", True), ("talla", False),
    ]  # fmt: skip
    (offer,) = rows_of(db, Message, campaign="offer")
    assert (offer.status, offer.reason) == (Status.SKIPPED, Reason.CASE_OPEN)
    doubt = rows_of(db, Case, category="opt_out")[0].external_id
    assert cases.show(db, NOW + 4 * HOUR, doubt).category == "opt_out"


def test_who_unsubscribes_from_mail_after_opting_out_by_sms_gets_no_mail_at_all(db: Database, tmp_path: Path) -> None:
    settings = shop_settings(tmp_path)
    letter = ASK.replace("channel: sms, template: m, survey: SURVEY", "channel: email, template: m")
    releases.publish(db, settings, files_of(ask=letter, notice=NOTICE.replace("CHANNEL", "email")), NOW - HOUR)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW)])
    go_on(db, settings, timedelta())
    taken(db, settings, written("BAJA", PHONE, number=1))
    token = rows_of(db, MessageLink, kind="unsubscribe")[0].token

    inbox.unsubscribe(db, settings, NOW + 3 * HOUR, token, "one-click")
    feed(db, settings, NOW + 4 * HOUR, orders=[order(1, "c1", NOW, shipped_at=NOW + 4 * HOUR)])
    go_on(db, settings, 4 * HOUR)

    assert rows_of(db, Message, campaign="notice") == []
    assert [row.reason for row in rows_of(db, Enrolment, campaign="notice")] == [Reason.SUPPRESSED]
