"""The pages of surveys as people see them: in a real Chromium, on a phone and on a desk, by keyboard alone, in three languages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from outreach.models import Answer
from outreach.store import Database
from outreach.web.survey_words import SURVEY_LANGUAGES
from outreach.web.words import Words
from tests import test_pages_in_browser as in_browser
from tests.served import Serve
from tests.shop import rows_of
from tests.test_pages_in_browser import look
from tests.test_survey_pages import asked, score_link

if TYPE_CHECKING:
    from playwright.sync_api import Page

serve, browser, db, words, page = (
    in_browser.serve,
    in_browser.browser,
    in_browser.db,
    in_browser.words,
    in_browser.page,
)


def test_a_click_on_a_score_in_the_letter_is_confirmed(
    page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site, own = asked(serve, db, tmp_path, locale=words.lang), SURVEY_LANGUAGES[words.lang]

    page.goto(site.url + score_link(db, "csat:4"))
    look(page, tmp_path, "ask")
    assert page.locator("[name=score-csat][value='4']").is_checked()
    assert rows_of(db, Answer) == []
    page.get_by_label(own.why).fill("Llegó rápido ☕")
    page.get_by_role("button", name=own.send).click()
    page.wait_for_selector(f"h1:has-text('{own.thanks_title}')")
    look(page, tmp_path, "thanks")
    assert page.get_by_role("link", name=own.review_link).is_visible()
    page.get_by_role("link", name=own.change).click()
    page.wait_for_selector(f"h1:has-text('{own.ask_title}')")

    assert [(row.score, row.comment, row.channel) for row in rows_of(db, Answer)] == [(4, "Llegó rápido ☕", "click")]


def test_all_questions_by_keyboard_alone(page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve) -> None:
    site, own = asked(serve, db, tmp_path, locale=words.lang), SURVEY_LANGUAGES[words.lang]
    keys = page.keyboard
    focused = "document.activeElement.name || document.activeElement.innerText"

    page.goto(site.url + site.link("survey"))
    names = []
    keys.press("Tab")
    names.append(page.evaluate(focused))
    outlined = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    keys.press("Space")
    keys.press("ArrowRight")  # 2
    keys.press("Tab")
    names.append(page.evaluate(focused))
    keys.type("Tardó")
    keys.press("Tab")
    names.append(page.evaluate(focused))
    keys.press("Space")  # 0
    for _ in range(3):
        keys.press("ArrowRight")  # 3
    keys.press("Tab")
    names.append(page.evaluate(focused))
    keys.press("Space")  # yes
    keys.press("Tab")
    names.append(page.evaluate(focused))
    keys.press("Enter")
    page.wait_for_selector(f"h1:has-text('{own.thanks_title}')")

    assert names == ["score-csat", "why-csat", "score-nps", "score-expectations", own.send]
    assert outlined == "3px"
    assert [(row.survey, row.score, row.comment) for row in rows_of(db, Answer)] == [
        ("csat", 2, "Tardó"),
        ("nps", 3, ""),
        ("expectations", 1, ""),
    ]


def test_sending_nothing_and_coming_too_late_are_said_kindly(
    page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site, own = asked(serve, db, tmp_path, locale=words.lang), SURVEY_LANGUAGES[words.lang]

    page.goto(site.url + site.link("survey"))
    page.get_by_role("button", name=own.send).click()
    page.wait_for_selector(f"text={own.choose_one}")
    look(page, tmp_path, "incomplete")
    for survey, score in (("csat", 1), ("nps", 0), ("expectations", 0)):
        page.locator(f"[name=score-{survey}][value='{score}']").check()
    page.get_by_role("button", name=own.send).click()
    page.wait_for_selector(f"h1:has-text('{own.thanks_title}')")
    look(page, tmp_path, "thanks-low")
    site.go_on(days=2)
    page.goto(site.url + site.link("survey"))
    look(page, tmp_path, "closed")

    assert page.inner_text("h1") == own.closed_title
