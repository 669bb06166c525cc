"""The pages of survey links by HTTP: what they show, what counts, and what changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from outreach import releases, store
from outreach.models import Answer, Customer, Enrolment, MessageEvent, MessageLink, table
from outreach.store import Database
from outreach.surveys import LONGEST_COMMENT
from outreach.surveys.asking import MOST_CHANGES
from outreach.web.survey_words import EN, ES, PT
from tests import served
from tests.conftest import NOW
from tests.served import Serve, Served
from tests.shop import customer, feed, files_of, rows_of, shop_settings
from tests.test_pages import everything
from tests.test_surveys import LISTEN, SORRY, SURVEYS

serve = served.serve
CATALOGUE = {
    "surveys": {
        "csat": {
            "scale": "1-5",
            "satisfied": "4-5",
            "why": "yes",
            "question": {"es": "¿Quedaste contento?", "pt": "Ficou satisfeito?"},
            "with": ["nps", "expectations"],
        },
        "nps": {"scale": "0-10", "kind": "nps"},
        "expectations": {"scale": "yes_no", "codes": {"1": "yes", "2": "no"}},
    }
}
LETTER = """---
subject: ¿Cómo te fue?
---
<p>Hola</p> <a href="{{ links.survey }}">responder</a> <a href="{{ links.unsubscribe }}">baja</a>
{% for n in [1, 2, 3, 4, 5] %}<a href="{{ links.survey_score(n) }}">{{ n }}</a>{% endfor %}
"""
CODED = """---
subject: ¿Cumplió?
---
<a href="{{ links.survey_score(1) }}">sí</a> <a href="{{ links.survey_score(2) }}">no</a> {{ links.unsubscribe }}
"""
ASK = """
    title: Ask
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: ask, after: 0 minutes, channel: email, template: ask, survey: csat}]
"""
REVIEW = "https://luna.example/reviews"


def asked(serve: Serve, db: Database, folder: Path, *, survey: str = "csat", **cells: Any) -> Served:
    """A customer has a letter that asks, with a link for the page and one for each score."""
    settings = shop_settings(folder, surveys=SURVEYS)
    business = replace(settings.business, links={"review": REVIEW})
    site = serve(db, replace(settings, business=business))
    letter = CODED if survey == "expectations" else LETTER
    files = files_of(
        {"message_templates/ask.email.j2": letter, "message_templates/sorry.sms.j2": SORRY},
        ask=ASK.replace("survey: csat", f"survey: {survey}"),
        listen=LISTEN,
    )
    files[releases.CATALOGUE] = json.dumps(CATALOGUE)
    releases.publish(db, site.settings, files, NOW)
    feed(db, site.settings, NOW, customers=[customer(1, created_at=NOW, **cells)])
    site.go_on()
    return site


def score_link(db: Database, target: str) -> str:
    return f"/l/{rows_of(db, MessageLink, kind='survey_score', target=target)[0].token}"


def answers(db: Database) -> list[tuple[str, int, str, str]]:
    return [(row.survey, row.score, row.comment, row.channel) for row in rows_of(db, Answer)]


def test_following_a_score_chooses_it_and_only_confirming_it_counts(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)
    before = everything(db)

    page = site.http.get(score_link(db, "csat:4"))
    head = site.http.head(score_link(db, "csat:4"))
    unchanged = everything(db)
    done = site.http.post(score_link(db, "csat:4"), data={"act": "answer", "score-csat": "5", "why-csat": "Rápido"})

    assert (page.status_code, head.status_code, unchanged) == (200, 200, before)
    assert page.text.count(" checked") == 1
    assert '<input type="radio" name="score-csat" value="4" checked>' in page.text
    assert (done.status_code, ES.thanks_title in done.text) == (200, True)
    assert answers(db) == [("csat", 5, "Rápido", "click")]


def test_several_questions_on_one_page_are_answered_each_on_its_own(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)

    page = site.http.get(site.link("survey"))
    site.http.post(site.link("survey"), data={"score-csat": "2", "why-csat": "Tardó", "score-nps": "10"})
    again = site.http.get(site.link("survey"))
    site.http.post(site.link("survey"), data={"score-expectations": "0", "why-expectations": "nobody asked"})

    assert "¿Quedaste contento?" in page.text
    assert "¿Qué tan probable es que nos recomiendes" in page.text
    assert page.text.count('type="radio"') == 5 + 11 + 2
    assert again.text.count(" checked") == 2
    assert answers(db) == [("csat", 2, "Tardó", "page"), ("nps", 10, "", "page"), ("expectations", 0, "", "page")]
    assert {row.occasion for row in rows_of(db, Answer)} == {f"customer.created:{rows_of(db, Customer)[0].id}"}


@pytest.mark.parametrize(("code", "score"), [(1, 1), (2, 0)])
def test_a_code_in_a_link_chooses_the_yes_or_no_it_stands_for(
    code: int, score: int, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = asked(serve, db, tmp_path, survey="expectations")

    page = site.http.get(score_link(db, f"expectations:{code}"))

    assert f'name="score-expectations" value="{score}" checked' in page.text


def test_a_mind_changed_within_a_day_replaces_the_answer_and_later_the_page_says_so(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = asked(serve, db, tmp_path, survey="nps")
    path = site.link("survey")

    site.http.post(path, data={"score-nps": "3"})
    site.now += timedelta(hours=23)
    shown = site.http.get(path)
    site.http.post(path, data={"score-nps": "9"})
    site.now += timedelta(hours=2)
    late = [site.http.get(path), site.http.post(path, data={"score-nps": "0"})]

    assert 'value="3" checked' in shown.text
    assert [(row.score, row.at, row.changed_at) for row in rows_of(db, Answer)] == [(9, NOW, NOW + timedelta(hours=23))]
    assert [(one.status_code, ES.closed_title in one.text, "radio" in one.text) for one in late] == [
        (200, True, False)
    ] * 2


def test_a_low_score_on_the_page_starts_the_campaign_that_listens(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)

    site.http.post(site.link("survey"), data={"score-csat": "1"})
    site.go_on(hours=2)

    assert [row.reason for row in rows_of(db, Enrolment, campaign="listen")] == [None]


def test_nothing_chosen_asks_again_and_keeps_what_was_written(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)
    wrong: list[dict[str, str]] = [
        {"act": "answer", "why-csat": "<b>porque</b>"},
        {"score-csat": "6", "why-csat": "<b>porque</b>"},
        {"score-csat": "-1", "score-other": "3", "why-csat": "<b>porque</b>"},
        {"score-csat": "٣", "why-csat": "<b>porque</b>"},
    ]

    pages = [site.http.post(site.link("survey"), data=form) for form in wrong]

    assert [(one.status_code, ES.choose_one in one.text) for one in pages] == [(200, True)] * 4
    assert all("&lt;b&gt;porque&lt;/b&gt;</textarea>" in one.text for one in pages)
    assert answers(db) == []


def test_a_comment_is_bounded_and_a_body_too_large_is_refused(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)

    taken = site.http.post(site.link("survey"), data={"score-csat": "4", "why-csat": "ñ\x00" * 3_000})
    refused = site.http.post(site.link("survey"), data={"score-csat": "1", "why-csat": "x" * 70_000})

    assert (taken.status_code, refused.status_code) == (200, 413)
    assert [(score, comment) for _, score, comment, _ in answers(db)] == [(4, "ñ" * LONGEST_COMMENT)]


def test_whoever_changes_an_answer_without_end_is_stopped(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path, survey="nps")

    for number in range(MOST_CHANGES + 5):
        site.now += timedelta(seconds=1)
        site.http.post(site.link("survey"), data={"score-nps": str(number % 10)})

    assert len(rows_of(db, MessageEvent, kind="answered")) == MOST_CHANGES


@pytest.mark.parametrize(("score", "offered"), [("5", True), ("4", True), ("3", False)])
def test_the_satisfied_are_shown_where_to_write_a_review(
    score: str, offered: bool, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = asked(serve, db, tmp_path)

    thanks = site.http.post(site.link("survey"), data={"score-csat": score})

    assert (REVIEW in thanks.text) == offered


@pytest.mark.parametrize(
    ("locale", "words", "question"),
    [("es-MX", ES, "¿Quedaste contento?"), ("pt-BR", PT, "Ficou satisfeito?"), ("en", EN, "¿Quedaste contento?")],
)
def test_the_page_speaks_the_customers_language(
    locale: str, words: Any, question: str, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = asked(serve, db, tmp_path, locale=locale)

    page = site.http.get(site.link("survey"), headers={"Accept-Language": "fr"})

    assert f'<html lang="{locale[:2]}">' in page.text
    assert words.ask_title in page.text
    assert question in page.text


def test_links_of_the_erased_and_of_surveys_that_are_gone_lead_nowhere(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = asked(serve, db, tmp_path)
    unknown = {"token": "survey______", "message_id": 1, "kind": "survey", "target": "gone"}
    with store.write(db) as connection:
        store.insert_many(connection, table(MessageLink), [unknown])
    gone = [site.http.get("/l/survey______"), site.http.post("/l/survey______", data={"score-gone": "1"})]
    people = table(Customer)
    with store.write(db) as connection:
        number = connection.execute(select(people.c.id)).scalar_one()
        connection.execute(people.update().values(merged_into=number))

    erased = [site.http.get(site.link("survey")), site.http.post(site.link("survey"), data={"score-csat": "1"})]

    assert [one.status_code for one in gone + erased] == [404] * 4
    assert answers(db) == []


def test_a_survey_link_neither_unsubscribes_nor_shows_preferences(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = asked(serve, db, tmp_path)
    before = everything(db)

    one_click = site.http.post(site.link("survey"), data={"List-Unsubscribe": "One-Click"})
    choose = site.http.get(f"{site.link('survey')}/choose")

    assert (one_click.status_code, choose.status_code) == (200, 404)
    assert everything(db) == before
