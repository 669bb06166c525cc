"""Answers to surveys: the same whatever the order, what a few words say, and what follows from an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from outreach import dispatcher, facts, manual, planner, releases, store, surveys
from outreach.channels import Channels
from outreach.conditions import compile_condition
from outreach.facts import Item
from outreach.models import (
    Answer,
    Customer,
    CustomerStats,
    Enrolment,
    Fresh,
    Message,
    MessageContent,
    MessageEvent,
    table,
)
from outreach.settings import Settings, Survey
from outreach.store import Database
from outreach.surveys import Given, read_score
from outreach.surveys.recording import CHANGEABLE
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, order, rows_of, shop_settings

CSAT = Survey("csat", "1-5", satisfied=(4, 5), why=True, along=("nps",))
NPS = Survey("nps", "0-10", kind="nps")
CODED = Survey("expectations", "yes_no", codes={"1": "yes", "2": "no"})
SURVEYS = {one.name: one for one in (CSAT, NPS, CODED)}
CATALOGUE = {
    "surveys": {
        "csat": {"scale": "1-5", "satisfied": "4-5", "why": "yes", "with": ["nps"]},
        "nps": {"scale": "0-10", "kind": "nps"},
        "expectations": {"scale": "yes_no", "codes": {"1": "yes", "2": "no"}},
    }
}
ASK = """
    title: Ask
    purpose: service
    trigger: {event: order.placed}
    steps: [{id: ask, after: 0 minutes, channel: sms, template: ask, survey: csat}]
"""
LISTEN = """
    title: Listen
    purpose: service
    trigger: {event: survey.answered, survey: csat, score: 1-2}
    steps: [{id: sorry, after: 1 hour, channel: sms, template: sorry}]
"""
SORRY = "{{ answer.survey }} {{ answer.score }} {{ 'bien' if answer.satisfied else 'mal' }} {% if answer.comment %}{{ answer.comment }}{% endif %}"
HOUR = timedelta(hours=1)


def written(**campaigns: str) -> dict[str, str]:
    """The files of a release that asks, and of these campaigns."""
    templates = {"message_templates/ask.sms.j2": "{{ links.survey }}", "message_templates/sorry.sms.j2": SORRY}
    return {**files_of(templates, ask=ASK, **campaigns), releases.CATALOGUE: json.dumps(CATALOGUE)}


def asked(db: Database, folder: Path, **campaigns: str) -> Settings:
    """Two customers have a message that asks how satisfied they are."""
    settings = shop_settings(folder, surveys=SURVEYS)
    releases.publish(db, settings, written(**campaigns), NOW - HOUR)
    orders = [order(n, f"c{n}", NOW) for n in (1, 2)]
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=orders)
    go_on(db, settings)
    return settings


def go_on(db: Database, settings: Settings, later: timedelta = timedelta()) -> None:
    planner.plan(db, settings, NOW + later)
    opened = Channels()
    dispatcher.dispatch(db, settings, NOW + later, channels=opened)
    opened.close()


def the_given(db: Database, score: int, *, survey: str = "csat", number: int = 0, **more: Any) -> Given:
    message = rows_of(db, Message, step="ask")[number]
    values = {"channel": "page", "at": NOW, **more}
    return Given(survey, message.customer_id, message.occasion, message.id, score, **values)


def record(db: Database, settings: Settings, *given: Given) -> list[bool]:
    """Each in a transaction of its own."""
    found = []
    for one in given:
        with store.write(db) as connection:
            found.append(surveys.record(connection, settings, NOW + timedelta(days=30), one))
    return found


# --- what stands -------------------------------------------------------------------------------------


def test_an_answer_is_kept_with_all_that_it_means_then(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)

    assert record(db, settings, the_given(db, 4, comment="  Muy\x00 bien\r\n ")) == [True]

    (message, _), (answer,) = rows_of(db, Message), rows_of(db, Answer)
    assert (answer.survey, answer.customer_id, answer.occasion) == ("csat", message.customer_id, message.occasion)
    assert (answer.kind, answer.scale, answer.score, answer.comment) == ("csat", "1-5", 4, "Muy bien")
    assert (answer.satisfied_from, answer.satisfied_to) == (4, 5)
    assert (answer.channel, answer.message_id, answer.campaign, answer.step) == ("page", message.id, "ask", "ask")
    assert (answer.at, answer.changed_at) == (NOW, NOW)
    (event,) = rows_of(db, MessageEvent, kind="answered")
    assert (event.message_id, event.customer_id, event.at) == (message.id, message.customer_id, NOW)
    assert event.detail["score"] == 4


def test_a_change_of_the_settings_leaves_earlier_answers_as_they_were(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    record(db, settings, the_given(db, 4))
    stricter = replace(settings, surveys={"csat": replace(CSAT, satisfied=(5, 5))})

    record(db, stricter, the_given(db, 4), the_given(db, 4, number=1))

    assert [(row.satisfied_from, row.satisfied_to) for row in rows_of(db, Answer)] == [(4, 5), (5, 5)]


def test_within_a_day_the_latest_stands_and_afterwards_nothing_changes(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    later = [timedelta(0), timedelta(hours=3), CHANGEABLE, CHANGEABLE + timedelta(microseconds=1)]

    given = [the_given(db, score, at=NOW + after) for score, after in zip((5, 3, 2, 1), later, strict=True)]

    assert record(db, settings, *given) == [True, True, True, False]
    assert [(row.score, row.at, row.changed_at) for row in rows_of(db, Answer)] == [(2, NOW, NOW + CHANGEABLE)]
    assert [row.detail["score"] for row in rows_of(db, MessageEvent, kind="answered")] == [5, 3, 2]


def test_only_what_changes_the_answer_is_news_to_campaigns(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    first, second = the_given(db, 4, at=NOW + HOUR), the_given(db, 2, at=NOW + 2 * HOUR)

    record(db, settings, first, first, second, second, first, the_given(db, 5, at=NOW))

    (answer,) = rows_of(db, Answer)
    news = [(row.record_id, row.customer_id, row.at) for row in rows_of(db, Fresh, kind="survey.answered")]
    assert news == [(answer.id, answer.customer_id, NOW + HOUR), (answer.id, answer.customer_id, NOW + 2 * HOUR)]


def test_each_survey_customer_and_occasion_has_an_answer_of_its_own(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    first = the_given(db, 3)

    record(db, settings, first, the_given(db, 9, survey="nps"), the_given(db, 4, number=1))
    record(db, settings, replace(first, occasion="order.placed:999", score=1))

    assert [(row.survey, row.score, row.satisfied_from) for row in rows_of(db, Answer)] == [
        ("csat", 3, 4),
        ("nps", 9, 9),
        ("csat", 4, 4),
        ("csat", 1, 4),
    ]


def test_what_is_no_answer_is_refused_and_writes_nothing(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)

    with pytest.raises(ValueError, match="6 is not on the scale 1-5 of csat"):
        record(db, settings, the_given(db, 6))

    assert record(db, settings, the_given(db, 5, survey="gone")) == [False]
    assert rows_of(db, Answer) + rows_of(db, MessageEvent, kind="answered") + rows_of(db, Fresh) == []


def test_answers_that_are_heard_at_once_are_one_answer(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    hours = [0, 5, 10, 20, 24, 30, 2, 7]
    given = [the_given(db, number % 5 + 1, at=NOW + timedelta(hours=hour)) for number, hour in enumerate(hours)]

    with ThreadPoolExecutor(len(given)) as threads:
        list(threads.map(lambda one: record(db, settings, one), given))

    (answer,) = rows_of(db, Answer)
    assert (answer.at, answer.changed_at) == (NOW, NOW + timedelta(hours=24))
    assert len(rows_of(db, MessageEvent, kind="answered")) == 7


GIVEN = st.tuples(
    st.sampled_from([0, 1, 12, 23, 24, 25, 26, 40, 48, 49, 70]),  # hours
    st.integers(1, 5),
    st.sampled_from(["page", "sms"]),
    st.sampled_from(["", "porque sí"]),
)


def state(db: Database) -> tuple[list[Any], list[Any], set[Any]]:
    """All that answers leave, but for the numbers of the rows."""
    answers = [row[1:] for row in rows_of(db, Answer)]
    events = sorted(
        json.dumps([*row[1:5], str(row.at), row.detail]) for row in rows_of(db, MessageEvent, kind="answered")
    )
    return answers, events, {(row.kind, row.customer_id) for row in rows_of(db, Fresh)}


def wipe(db: Database) -> None:
    with store.write(db) as connection:
        for model in (Answer, Fresh):
            connection.execute(delete(table(model)))
        connection.execute(delete(table(MessageEvent)).where(table(MessageEvent).c.kind == "answered"))


@given(
    said=st.lists(GIVEN, min_size=1, max_size=6, unique=True),
    order_=st.randoms(use_true_random=False),
    copies=st.integers(1, 3),
)
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_in_any_order_and_repeated_they_leave_the_same(
    said: Sequence[tuple[int, int, str, str]], order_: Any, copies: int, db: Database, tmp_path: Path
) -> None:
    if not rows_of(db, Message):
        asked(db, tmp_path)
    settings = shop_settings(tmp_path, surveys=SURVEYS)
    all_ = [
        the_given(db, score, at=NOW + timedelta(hours=hours), channel=channel, comment=comment)
        for hours, score, channel, comment in said
    ]
    wipe(db)
    record(db, settings, *sorted(all_, key=lambda one: one.at))
    in_order = state(db)
    shuffled = all_ * copies
    order_.shuffle(shuffled)
    wipe(db)

    record(db, settings, *shuffled)

    assert state(db) == in_order
    first = min(one.at for one in all_)
    counted = [one for one in all_ if one.at <= first + CHANGEABLE]
    (answer,) = rows_of(db, Answer)
    latest = max(counted, key=lambda one: (one.at, one.score, one.channel, one.comment))
    assert (answer.at, answer.changed_at, answer.score) == (first, latest.at, latest.score)
    assert (answer.channel, answer.comment) == (latest.channel, latest.comment)


# --- what follows ------------------------------------------------------------------------------------


def test_a_low_score_starts_its_campaign_once_and_its_template_sees_the_answer(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path, listen=LISTEN)

    record(db, settings, the_given(db, 2, comment="Tardó"), the_given(db, 3, number=1))
    go_on(db, settings, 2 * HOUR)
    record(db, settings, the_given(db, 1, at=NOW + 3 * HOUR))
    go_on(db, settings, 5 * HOUR)

    (enrolment,) = rows_of(db, Enrolment, campaign="listen")
    (answer, _) = rows_of(db, Answer)
    (sorry,) = rows_of(db, Message, campaign="listen")
    (content,) = rows_of(db, MessageContent, message_id=sorry.id)
    assert (enrolment.occasion, enrolment.record_id) == (f"survey.answered:{answer.id}", answer.id)
    assert (answer.score, content.text.strip()) == (1, "csat 2 mal Tardó")


def test_who_comes_down_to_a_low_score_within_the_day_is_listened_to(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path, listen=LISTEN)

    record(db, settings, the_given(db, 5))
    go_on(db, settings, 1 * HOUR)
    before = rows_of(db, Enrolment, campaign="listen")
    record(db, settings, the_given(db, 2, at=NOW + 2 * HOUR))
    go_on(db, settings, 4 * HOUR)

    (enrolment,) = rows_of(db, Enrolment, campaign="listen")
    assert before == []
    assert enrolment.occasion_at == NOW + 2 * HOUR


@pytest.mark.parametrize(
    ("trigger", "starts"),
    [
        ("survey: csat, score: 2", True),
        ("survey: csat, score: 3-5", False),
        ("survey: csat", True),
        ("survey: nps", False),
        ("", True),
    ],
)
def test_a_trigger_takes_the_survey_and_the_scores_it_names(
    trigger: str, starts: bool, db: Database, tmp_path: Path
) -> None:
    listen = LISTEN.replace("survey: csat, score: 1-2", trigger)
    settings = asked(db, tmp_path, listen=listen)

    record(db, settings, the_given(db, 2))
    planner.plan(db, settings, NOW + HOUR)

    assert len(rows_of(db, Enrolment, campaign="listen")) == starts


def test_an_answers_own_facts_are_known_to_where(db: Database, tmp_path: Path) -> None:
    listen = LISTEN.replace(
        "steps:", "where: answer.score = 1 and answer.survey = 'csat' and last_csat = 1\n    steps:"
    )
    settings = asked(db, tmp_path, listen=listen)

    record(db, settings, the_given(db, 1), the_given(db, 2, number=1))
    planner.plan(db, settings, NOW + HOUR)

    (enrolment,) = rows_of(db, Enrolment, campaign="listen")
    assert enrolment.customer_id == rows_of(db, Customer, external_id="c1")[0].id


def test_a_backfill_takes_up_earlier_answers(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    record(db, settings, the_given(db, 1), the_given(db, 5, number=1))
    planner.plan(db, settings, NOW + HOUR)
    older = f"{LISTEN.rstrip()}\n    backfill: {{last: 30 days, pace: 10 per day}}\n"

    releases.publish(db, settings, written(listen=older), NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 3 * HOUR)

    (enrolment,) = rows_of(db, Enrolment, campaign="listen")
    assert enrolment.customer_id == rows_of(db, Customer, external_id="c1")[0].id


def test_a_preview_shows_the_answer_there_is_or_a_sample(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    record(db, settings, the_given(db, 2, comment="Tardó mucho"))

    real, sample = (
        manual.preview(db, settings, written(listen=LISTEN), NOW + HOUR, "listen", "sorry", who) for who in ("c1", "c2")
    )

    assert (real.record, real.outgoing.content.text.strip()) == ("answer to csat", "csat 2 mal Tardó mucho")
    assert sample.outgoing.content.text.strip() == "csat 2 mal Tardó"
    assert "sample facts stand in" in " ".join(sample.notes)


def test_who_answered_needs_no_reminder(db: Database, tmp_path: Path) -> None:
    remind = ASK.replace("title: Ask", "title: Remind").replace("0 minutes", "1 day")
    remind = remind.replace("template: ask, survey: csat", "template: ask, survey: csat, unless: [answered]")
    settings = asked(db, tmp_path, remind=remind)

    record(db, settings, the_given(db, 5, at=NOW + HOUR))
    planner.plan(db, settings, NOW + timedelta(days=2))

    found = {row.customer_id: (row.status, row.detail) for row in rows_of(db, Message, campaign="remind")}
    people = [rows_of(db, Customer, external_id=name)[0].id for name in ("c1", "c2")]
    assert [found[person] for person in people] == [("skipped", "answered"), ("planned", "")]


# --- facts -------------------------------------------------------------------------------------------


def picked(db: Database, settings: Settings, expression: str, now: Any = NOW + timedelta(days=30)) -> set[str]:
    condition = compile_condition(expression, subject="customer", settings=settings, now=now)
    people, stats = table(Customer), table(CustomerStats)
    joined = people.outerjoin(stats, stats.c.customer_id == people.c.id)
    with store.read(db) as connection:
        return set(connection.execute(select(people.c.external_id).select_from(joined).where(condition)).scalars())


def test_the_last_scores_are_facts_of_the_customer(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    other: dict[str, Any] = {"occasion": "order.placed:999", "at": NOW + timedelta(days=3)}
    record(
        db,
        settings,
        the_given(db, 5),
        replace(the_given(db, 2), **other),
        the_given(db, 0, survey="expectations", at=NOW + timedelta(days=5)),
        the_given(db, 9, survey="nps"),
        the_given(db, 4, number=1),
    )

    assert picked(db, settings, "last_csat = 2") == {"c1"}
    assert picked(db, settings, "last_csat = 5", now=NOW + HOUR) == {"c1"}
    assert picked(db, settings, "last_csat <= 3 and last_nps >= 9") == {"c1"}
    assert picked(db, settings, "last_csat >= 4") == {"c2"}
    assert picked(db, settings, "last_nps is null") == {"c2"}
    assert picked(db, settings, "last_nps != 9") == {"c2"}


def test_the_last_score_is_found_by_index(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path)
    condition = compile_condition("last_csat <= 2", subject="customer", settings=settings, now=NOW)
    people = table(Customer)
    with store.read(db) as connection:
        if not db.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        query = select(people.c.id).where(condition).compile(db.engine, compile_kwargs={"literal_binds": True})
        how = connection.exec_driver_sql(
            f"EXPLAIN {'QUERY PLAN' if db.is_sqlite else ''} {str(query).replace('%', '%%')}"
        )
        plan = "\n".join(str(row) for row in how)

    assert "ix_answers_customer" in plan


def test_a_context_has_the_answer_only_where_an_answer_started_it(db: Database, tmp_path: Path) -> None:
    settings = asked(db, tmp_path, listen=LISTEN)
    record(db, settings, the_given(db, 4))
    loaded = releases.current(db, settings)
    assert loaded is not None
    (answer,) = rows_of(db, Answer)
    items = [
        Item(campaign, campaign.steps[0], answer.customer_id, answer.id, "x", NOW, NOW, NOW)
        for campaign in (loaded.campaigns["listen"], loaded.campaigns["ask"])
    ]

    with store.read(db) as connection:
        mine, other = facts.contexts(connection, settings, items, {})

    expected = {"survey": "csat", "scale": "1-5", "score": 4, "satisfied": True, "at": NOW}
    assert (mine["answer"], "answer" in other) == (expected, False)


# --- what a few words say ----------------------------------------------------------------------------

FIVE, TEN, YES_NO = Survey("five", "1-5"), NPS, Survey("plain", "yes_no")


@pytest.mark.parametrize(
    ("survey", "text", "score"),
    [
        (FIVE, "5", 5),
        (FIVE, " 5! ", 5),
        (FIVE, "5/5", 5),
        (FIVE, "Cinco", 5),
        (FIVE, "5️⃣", 5),
        (FIVE, "⭐⭐⭐⭐", 4),
        (FIVE, "4, muy bien", 4),
        (FIVE, "4\nTardó un poco", 4),
        (FIVE, "5 estrellas", 5),
        (FIVE, "5 excelente servicio", 5),
        (FIVE, "Hola, le doy un 3", 3),
        (FIVE, "três", 3),
        (TEN, "un 9", 9),
        (TEN, "dez", 10),
        (TEN, "9 out of 10!", 9),
        (TEN, "Le doy un 8 de 10, gracias", 8),
        (TEN, "0", 0),
        (YES_NO, "sí", 1),
        (YES_NO, "Sim, obrigada", 1),
        (YES_NO, "no, llegó roto", 0),
        (YES_NO, "1", 1),
        (CODED, "1", 1),
        (CODED, "2", 0),
        (CODED, "2\nllegó tarde", 0),
        (CODED, "Não", 0),
        (FIVE, "10", None),
        (FIVE, "6", None),
        (FIVE, "5/10", None),
        (FIVE, "4.5", None),
        (FIVE, "4,5", None),
        (FIVE, "3 o 4", None),
        (FIVE, "3-4", None),
        (FIVE, "3, 4", None),
        (FIVE, "5%", None),
        (FIVE, "2 productos llegaron rotos", None),
        (FIVE, "uno de los productos llegó roto", None),
        (FIVE, "3 días y no llega", None),
        (FIVE, "1:30 pm", None),
        (FIVE, "¿Cuándo llega?", None),
        (FIVE, "", None),
        (FIVE, "5" * 2_000, None),
        (YES_NO, "no sé", None),
        (YES_NO, "¿dónde está mi pedido?", None),
        (TEN, "Mi pedido 10", None),
        (FIVE, "5 😍", 5),
        (FIVE, "un 4 👍🏽", 4),
        (TEN, "10/10 ❤️", 10),
        (FIVE, "Excelente 5", 5),
        (FIVE, "¡Gracias! 5", 5),
        (FIVE, "5 me encantó", 5),
        (FIVE, "perdón, 4", 4),
        (FIVE, "5 muy bien, llegó en 2 días", 5),
        (FIVE, "2 de 5 productos llegaron rotos", None),
        (FIVE, "2 bien 1 mal", None),
        (FIVE, "1 bien y otro roto", None),
        (CODED, "1 sí", 1),
        (CODED, "2, no", 0),
        (CODED, "1 no", None),
        (CODED, "claro que no", 0),
        (CODED, "Claro que sí 😊", 1),
        (CODED, "sí, no hubo problema", 1),
        (CODED, "si no llega mañana cancelo", None),
        (CODED, "no lo he recibido", None),
        (CODED, "ainda não", None),
        (CODED, "sí y no", None),
        (CODED, "No tengo quejas, todo perfecto", None),
        (CODED, "não tenho do que reclamar", None),
    ],
)
def test_a_score_is_read_where_the_words_can_be_nothing_else(survey: Survey, text: str, score: int | None) -> None:
    assert read_score(survey, text) == score


@given(st.text(max_size=60))
def test_whatever_is_written_gives_a_score_of_the_scale_or_none(text: str) -> None:
    for survey in (FIVE, TEN, YES_NO, CODED):
        assert read_score(survey, text) in {*surveys.scores(survey), None}


# --- questions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "language", "expected"),
    [
        ({"es": "¿Bien?", "pt": "Bom?"}, "pt", "Bom?"),
        ({"es": "¿Bien?", "es-MX": "¿Chido?"}, "es-MX", "¿Chido?"),
        ({"es": "¿Bien?", "es-MX": "¿Chido?"}, "es", "¿Bien?"),
        ({"es-MX": "¿Chido?"}, "es", "¿Chido?"),
        ({"pt": "Bom?", "es": "¿Bien?"}, "en", "¿Bien?"),
        ({"pt": "Bom?"}, "en", "Bom?"),
    ],
)
def test_a_shops_own_question_goes_first_in_the_readers_language(
    questions: dict[str, str], language: str, expected: str
) -> None:
    assert surveys.question(replace(FIVE, question=questions), language, "es-MX") == expected


def test_without_one_the_built_in_question_is_asked_in_the_readers_language() -> None:
    asked_ = {surveys.question(one, language, "es") for one in (FIVE, NPS, YES_NO) for language in ("es", "pt", "en")}

    assert len(asked_) == 9
    assert surveys.question(NPS, "pt-BR", "es").startswith("Qual a probabilidade")
    assert surveys.question(NPS, "fr", "es").startswith("¿Qué tan probable es que nos recomiendes")
