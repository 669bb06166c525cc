"""The page where people agree to receive offers and news, and the message that it writes for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach import inbox
from outreach.channels.twilio.webhooks import events as read_twilio
from outreach.inbox import words as inbox_words
from outreach.models import Consent
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import Database
from outreach.web import joining
from outreach.web.join import JOIN_LANGUAGES
from outreach.web.words import LANGUAGES, Words
from tests import served, test_cli
from tests import test_pages_in_browser as in_browser
from tests.conftest import NOW
from tests.served import Serve
from tests.shop import customer, feed, rows_of, shop_settings
from tests.test_cli import Run
from tests.test_pages import everything
from tests.test_pages_in_browser import look

if TYPE_CHECKING:
    from playwright.sync_api import Page

serve = served.serve
browser, words, page, run = in_browser.browser, in_browser.words, in_browser.page, test_cli.run
PHONE = "+525541000001"


def text_of(link: str) -> str:
    """The message that a link opens."""
    (text,) = (value for values in parse_qs(urlsplit(link).query).values() for value in values)
    return text


def written(text: str, channel: str) -> Any:
    prefix = "" if channel == "sms" else f"{channel}:"
    form = {"MessageSid": "SM1", "From": prefix + PHONE, "To": f"{prefix}+525500000000", "Body": text}
    (event,) = read_twilio("https://shop.example/webhooks/twilio/messages", urlencode(form).encode())
    return event


def settings_of(folder: Path, **changes: Any) -> Settings:
    return shop_settings(folder, **changes)


# --- the message -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["sms", "whatsapp"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_sending_the_message_grants_its_channel_with_the_words_that_were_sent(
    language: str, channel: str, db: Database, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    nothing = {"sms_consent": "", "whatsapp_consent": "", "email_consent": "", "consent_at": ""}
    feed(db, settings, NOW, customers=[customer(1, phone=PHONE, **nothing)])
    (way,) = (one for one in joining.ways(settings, language) if one.channel == channel)

    inbox.accept(db, settings, NOW, "twilio", [written(text_of(way.link), channel)])

    (line,) = rows_of(db, Consent)
    assert (line.channel, line.status, line.by, line.at) == (channel, "granted", "recipient", NOW)
    assert line.words == f"{inbox_words.JOINING[language]} Tienda Luna."


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_word_alone_is_enough_and_the_whole_is_one_sms(language: str, tmp_path: Path) -> None:
    for way in joining.ways(settings_of(tmp_path), language):
        assert inbox_words.read(way.word) == inbox_words.OPT_IN
        text = text_of(way.link)
        assert text.isascii()
        assert len(text) <= 160


@pytest.mark.parametrize(
    "text",
    [
        "Acepto recibir por este medio ofertas y novedades de Tienda Luna.",
        "No quiero el alta: acepto recibir por este medio ofertas y novedades de Tienda Luna",
        "ALTA: no acepto recibir por este medio ofertas y novedades de Tienda Luna.",
        "ALTA: acepto recibir por este medio ofertas y novedades de Tienda Luna." + " x" * 200,
    ],
)
def test_nothing_but_the_whole_message_opts_in(text: str) -> None:
    assert inbox_words.read(text) != inbox_words.OPT_IN


@given(st.text(max_size=40))
def test_whatever_the_shop_is_called_its_links_open_that_very_message(name: str) -> None:
    business = Business(name, "America/Mexico_City", "MXN")
    channels = {
        "sms": ChannelSettings("outbox", "+525500000000"),
        "whatsapp": ChannelSettings("outbox", "+525500000000"),
    }

    for way in joining.ways(Settings(Path(), business, channels=channels), "es"):
        assert unquote(way.link.partition("=")[2]) == f"{inbox_words.JOINING['es']} {name}."


# --- the page ----------------------------------------------------------------------------------------


def test_the_page_offers_each_channel_with_a_number_and_changes_nothing(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = serve(db, settings_of(tmp_path))
    before = everything(db)

    shown = site.http.get("/join")
    head = site.http.head("/join")
    refused = site.http.post("/join", data={"phone": PHONE})

    assert (shown.status_code, head.status_code, refused.status_code) == (200, 200, 405)
    assert 'href="https://wa.me/525500000000?text=ALTA%3A%20acepto' in shown.text
    assert 'href="sms:+525500000000?body=ALTA%3A%20acepto' in shown.text
    assert "ALTA al +52\u00a055\u00a00000\u00a00000." in shown.text
    assert (shown.text.count("<svg"), "<script" in shown.text, "style=" in shown.text) == (2, False, False)
    assert everything(db) == before


def test_a_shop_without_a_number_has_no_such_page(db: Database, tmp_path: Path, serve: Serve) -> None:
    senders = {"sms": ChannelSettings("twilio", "TIENDA"), "email": ChannelSettings("outbox", "hola@luna.example")}
    site = serve(db, settings_of(tmp_path, channels=senders))

    assert site.http.get("/join").status_code == 404


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_page_as_people_see_it(page: Page, words: Words, db: Database, tmp_path: Path, serve: Serve) -> None:
    site, own = serve(db, settings_of(tmp_path)), JOIN_LANGUAGES[words.lang]
    page.set_extra_http_headers({"Accept-Language": words.lang})

    page.goto(f"{site.url}/join")
    look(page, tmp_path, "join")
    page.keyboard.press("Tab")

    assert page.inner_text("h1") == own.title
    assert page.evaluate("document.activeElement.href").startswith("https://wa.me/525500000000?text=")
    size = page.viewport_size
    assert size is not None
    assert page.locator(".qr").first.is_visible() == (size["width"] > 480)


# --- the verb ----------------------------------------------------------------------------------------

YAML = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN, locale: pt-BR}
public_url: https://outreach.luna.example/
channels: {whatsapp: {from: "+525500000000"}, email: {from: hola@luna.example}}
"""


def test_the_verb_shows_the_address_and_draws_the_code(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outreach.yaml").write_text(YAML, encoding="utf-8")

    told = run("join", "--output", "page.svg", "--json")
    drawn = run("join", "--output", "chat.png", "--channel", "whatsapp")

    shown = told.json
    assert (told.code, drawn.code) == (0, 0)
    assert (shown["page"], shown["picture"]) == ("https://outreach.luna.example/join",) * 2
    assert [(one["channel"], one["word"]) for one in shown["ways"]] == [("whatsapp", "CADASTRAR")]
    assert "<svg" in (tmp_path / "page.svg").read_text(encoding="utf-8")
    assert (tmp_path / "chat.png").read_bytes().startswith(b"\x89PNG")
    assert "leads to https://wa.me/525500000000?text=" in drawn.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--channel", "sms"], "there is no number to write to on sms: there is on whatsapp"),
        (["--output", "code.pdf"], "code.pdf: the picture is written as .svg or .png"),
        (["--output", "nowhere/code.svg"], "nowhere/code.svg cannot be written: No such file or directory"),
    ],
)
def test_the_verb_says_what_is_wrong(more: list[str], said: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "outreach.yaml").write_text(YAML, encoding="utf-8")

    found = run("join", *more)

    assert found.code == 1
    assert said in found.err
