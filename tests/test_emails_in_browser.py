"""The starter kit's e-mails as people see them: in a real Chromium, on a phone and on a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import test_pages_in_browser
from tests.test_starter import EMAILS, ORDINARY, PEOPLE, Text, _rendered

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

browser = test_pages_in_browser.browser
WIDTHS = (360, 700)  # CSS pixels: a phone, and a mail program's reading pane
MAIN = ("post_sale/thanks", "post_sale/question", "nps/ask", "review_request/review", "win_back_150/offer")
SHOWN = [text for text in EMAILS if text.template in MAIN and not text.variant]
LOCALES = dict(zip(MAIN, ("es-MX", "es-AR", "pt-BR", "en-US", "es-MX"), strict=True))


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=str)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A fresh page, at each width by day and by night."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    yield context.new_page()
    context.close()


def fits(page: Page, html: str) -> None:
    page.set_content(html)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def look(page: Page, html: str, picture: Path) -> None:
    """Keep a picture, and see that nothing is cut off, and nothing hard to perceive (WCAG 2, A and AA)."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    fits(page, html)
    page.screenshot(path=picture, full_page=True)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
    assert [(one["id"], one["nodes"][0]["html"]) for one in found.response["violations"]] == []


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.template)
def test_an_email_fits_the_screen_and_is_easy_to_read(page: Page, text: Text, tmp_path: Path) -> None:
    html = _rendered(text, LOCALES[text.template], ORDINARY).html

    look(page, html, tmp_path / "email.png")
    card = page.locator(".card").bounding_box()
    assert card is not None
    assert card["width"] <= 560
    assert card["x"] >= 0
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert page.locator(".card").evaluate("it => getComputedStyle(it).backgroundColor") == (
        "rgb(42, 40, 37)" if dark else "rgb(255, 255, 255)"
    )
    assert not page.locator(".preheader").is_visible()


@pytest.mark.parametrize("name", ["long product", "arabic", "60 letters in words", "a gift"])
def test_what_a_customer_brings_does_not_break_an_email(page: Page, name: str) -> None:
    for text in SHOWN:
        fits(page, _rendered(text, "es-MX", PEOPLE[name]).html)


def test_a_finger_finds_every_score_and_button(page: Page) -> None:
    for text in SHOWN:
        page.set_content(_rendered(text, "es-MX", ORDINARY).html)
        for link in page.locator(".scores a, .button a").all():
            box = link.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 36, (text.template, box)
