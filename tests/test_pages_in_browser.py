"""The pages as people see them: in a real Chromium, on a phone and on a desk, by keyboard alone, in three languages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from outreach.models import Consent, Message
from outreach.store import Database, open_database
from outreach.web.words import LANGUAGES, Words
from tests import served
from tests.conftest import SECRET
from tests.served import Serve, Served
from tests.shop import rows_of, shop_settings
from tests.test_pages import begun

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

serve = served.serve
SCREENS = {"phone": (360, 640), "desk": (1280, 800)}
USED_ON = dict(zip(LANGUAGES, cycle(SCREENS)))  # the pages of each language are looked at on every screen
TOUCH = 44  # CSS pixels that a finger needs (www.w3.org/TR/WCAG22, target size, enhanced)
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium: `apt-get install chromium-headless-shell`")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def db(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """What a page shows does not depend on the kind of database."""
    path = tmp_path / "outreach.db"
    shutil.copy(sqlite_template, path)
    database = open_database(f"sqlite:///{path}", secret=SECRET)
    yield database
    database.engine.dispose()


@pytest.fixture(params=LANGUAGES)
def words(request: pytest.FixtureRequest) -> Words:
    """Each language in turn."""
    return LANGUAGES[request.param]


@pytest.fixture
def page(words: Words, browser: Browser) -> Iterator[Page]:
    """A fresh page on one of the screens; whatever it complains of fails the test."""
    screen = USED_ON[words.lang]
    width, height = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=screen == "phone")
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda asked: complaints.append(asked.url))
    yield opened
    assert [one for one in complaints if "status of 404" not in one] == []
    assert context.cookies() == []
    context.close()


def look(page: Page, folder: Path, name: str) -> None:
    """Keep pictures, and see that on no screen anything is cut off, too small for a finger, or hard to perceive."""
    own = page.viewport_size
    page.evaluate(axe_script())
    for screen, (width, height) in sorted(
        SCREENS.items(), key=lambda one: own == {"width": one[1][0], "height": one[1][1]}
    ):
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=folder / f"{name}-{screen}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        heights = page.locator("button, .choice, a").evaluate_all(
            "all => all.map(it => it.getBoundingClientRect().height)"
        )
        assert min(heights, default=TOUCH) >= TOUCH
        assert violations(page) == []


def axe_script() -> str:
    """What a page has to have in it before its `violations` can be asked for: most of their cost."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    return str(Axe().axe_script)


def violations(page: Page, **options: Any) -> list[str]:
    """What is hard to perceive on a page as it is shown now."""
    run = "options => axe.run({resultTypes: ['violations'], ...options}).then(found => found.violations)"
    found = page.evaluate(run, options)
    return [f"{one['id']} ({one['impact']}): {one['help']}: {one['nodes'][0]['html']}" for one in found]


def shop(serve: Serve, db: Database, folder: Path, words: Words, *, sms: str = "yes") -> Served:
    return begun(serve, db, shop_settings(folder), locale=words.lang, sms_consent=sms)


def test_unsubscribing_by_the_button(page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve) -> None:
    site = shop(serve, db, tmp_path, words)

    page.goto(site.url + site.link())
    look(page, tmp_path, "stop")
    page.get_by_role("button", name=words.stop_button).click()
    page.wait_for_selector(f"h1:has-text('{words.stopped_title}')")
    look(page, tmp_path, "stopped")
    page.get_by_role("link", name=words.by_mistake).click()
    page.wait_for_selector(f"h1:has-text('{words.choose_title}')")
    look(page, tmp_path, "choose-after")
    site.go_on(days=3)

    assert [row.status for row in rows_of(db, Message)] == ["sent", "skipped"]


def test_choosing_what_to_receive(page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve) -> None:
    site = shop(serve, db, tmp_path, words, sms="no")

    page.goto(site.url + site.link())
    page.get_by_role("link", name=words.choose_instead).click()
    page.wait_for_selector(f"h1:has-text('{words.choose_title}')")
    look(page, tmp_path, "choose")
    assert page.get_by_label(words.channels["sms"]).is_disabled()
    page.get_by_label(words.channels["whatsapp"]).uncheck()
    page.get_by_role("button", name=words.choose_button).click()
    page.wait_for_selector(f"text={words.chosen_title}")
    look(page, tmp_path, "chosen")

    assert not page.get_by_label(words.channels["whatsapp"]).is_checked()
    assert page.get_by_label(words.channels["email"]).is_checked()
    assert [(row.channel, row.status) for row in rows_of(db, Consent, by="recipient")] == [("whatsapp", "revoked")]


def test_all_of_it_by_keyboard_alone(page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve) -> None:
    site = shop(serve, db, tmp_path, words)
    keys = page.keyboard
    focused = "document.activeElement.id || document.activeElement.innerText"

    page.goto(site.url + site.link("preferences"))
    keys.press("Tab")
    first = page.evaluate(focused)
    outlined = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    keys.press("Space")
    for _ in range(3):
        keys.press("Tab")
    save = page.evaluate(focused)
    keys.press("Enter")
    page.wait_for_selector(f"text={words.chosen_title}")
    for _ in range(5):
        keys.press("Tab")
    stop = page.evaluate(focused)
    keys.press("Enter")
    page.wait_for_selector(f"h1:has-text('{words.stopped_title}')")

    assert (first, outlined, save, stop) == ("keep-email", "3px", words.choose_button, words.stop_button)
    assert {row.source for row in rows_of(db, Consent, by="recipient", channel="email")} >= {"preferences page"}
    assert "unsubscribe link: page" in {row.source for row in rows_of(db, Consent, by="recipient")}


def test_a_link_that_leads_nowhere_says_so(
    page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = shop(serve, db, tmp_path, words)
    page.set_extra_http_headers({"Accept-Language": words.lang})

    page.goto(f"{site.url}/l/AAAAAAAAAAAA")

    look(page, tmp_path, "missing")
    assert page.inner_text("h1") == words.missing_title
    assert page.get_attribute("html", "lang") == words.lang
