"""The starter kit's e-mails as people see them: in a real Chromium, on a phone and on a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from tests import test_pages_in_browser
from tests.test_pages_in_browser import axe_script, violations
from tests.test_starter import EMAILS, ORDINARY, PEOPLE, Text, _rendered

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

browser = test_pages_in_browser.browser
SIZES = "all => all.map(it => it.getBoundingClientRect()).map(box => [box.width, box.height])"
WIDTHS = (360, 700)  # CSS pixels: a phone, and a mail program's reading pane
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MAIN = ("post_sale/thanks", "post_sale/question", "nps/ask", "review_request/review", "win_back_150/offer")
SHOWN = [text for text in EMAILS if text.template in MAIN and not text.variant]
LOCALES = dict(zip(MAIN, ("es-MX", "es-AR", "pt-BR", "en-US", "es-MX"), strict=True))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def shown(page: Page, html: str) -> Iterator[tuple[int, str]]:
    """Show it at each width, by day and by night."""
    page.set_content(html)
    for width, scheme in product(WIDTHS, SCHEMES):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
        yield width, scheme


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.template)
def test_an_email_fits_the_screen_and_is_easy_to_read(page: Page, text: Text, tmp_path: Path) -> None:
    """Keep pictures, and see that nothing is cut off, and nothing hard to perceive (WCAG 2, A and AA)."""
    for width, scheme in shown(page, _rendered(text, LOCALES[text.template], ORDINARY).html):
        if (width, scheme) == (WIDTHS[0], SCHEMES[0]):
            page.evaluate(axe_script())
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        assert fits(page), (width, scheme)
        assert violations(page, runOnly=["wcag2a", "wcag2aa"]) == [], (width, scheme)
        card = page.locator(".card").bounding_box()
        assert card is not None
        assert card["width"] <= 560
        assert card["x"] >= 0
        assert page.locator(".card").evaluate("it => getComputedStyle(it).backgroundColor") == (
            "rgb(42, 40, 37)" if scheme == "dark" else "rgb(255, 255, 255)"
        )
        assert not page.locator(".preheader").is_visible()


@pytest.mark.parametrize("name", ["long product", "arabic", "60 letters in words", "a gift"])
def test_what_a_customer_brings_does_not_break_an_email(page: Page, name: str) -> None:
    for text in SHOWN:
        for where in shown(page, _rendered(text, "es-MX", PEOPLE[name]).html):
            assert fits(page), (text.template, where)


def test_a_finger_finds_every_score_and_button(page: Page) -> None:
    found: set[str] = set()
    for text in SHOWN:
        for where in shown(page, _rendered(text, "es-MX", ORDINARY).html):
            sizes = page.locator(".scores a, .button a").evaluate_all(SIZES)
            assert all(min(size) >= 36 for size in sizes), (text.template, where, sizes)
            found.update(text.template for _ in sizes)
    assert found >= {"post_sale/question", "nps/ask", "review_request/review"}
