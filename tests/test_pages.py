"""The pages that links in messages lead to: what they show, what they do, and what they never do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlmodel import SQLModel

from outreach import releases, store
from outreach.models import Consent, Inbox, Message, MessageEvent, MessageLink, Suppression, table
from outreach.settings import Settings
from outreach.store import Database
from outreach.web.pages import form_of, token_of
from outreach.web.words import EN, ES, LANGUAGES, PT, words_for
from tests import served
from tests.conftest import NOW
from tests.served import NO_TLS, Serve, Served, count
from tests.shop import customer, feed, files_of, rows_of, shop_settings

serve = served.serve
TARGET = "https://luna.example/tazas?x=1&y=ñ#aquí"
LETTER = """---
subject: Hola
---
<p>Hola</p> <a href="{{ links.unsubscribe }}">baja</a> <a href="{{ links.preferences }}">elegir</a>
<a href="{{ 'TARGET' | link }}">tazas</a>
""".replace("TARGET", TARGET)
TEXT = "Hola {{ links.unsubscribe }} {{ links.preferences }}"
LETTERS = """
    title: Letters
    purpose: marketing
    trigger: {event: customer.created}
    steps:
      - {id: first, after: 0 minutes, channel: CHANNEL, template: letter}
      - {id: second, after: 2 days, channel: CHANNEL, template: letter}
      - {id: third, after: 4 days, channel: CHANNEL, template: letter}
"""
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def begun(serve: Serve, db: Database, settings: Settings, *, channel: str = "email", **cells: Any) -> Served:
    """A customer has the first letter, with its links."""
    site = serve(db, settings)
    templates = {"message_templates/letter.email.j2": LETTER, "message_templates/letter.sms.j2": TEXT}
    files = files_of(templates, letters=LETTERS.replace("CHANNEL", channel))
    releases.publish(db, site.settings, files, NOW)
    feed(db, site.settings, NOW, customers=[customer(1, created_at=NOW, **cells)])
    site.go_on()
    return site


def everything(db: Database) -> dict[str, int]:
    """How many rows each table has."""
    with store.read(db) as connection:
        return {
            name: connection.execute(select(func.count()).select_from(one)).scalar_one()
            for name, one in SQLModel.metadata.tables.items()
        }


def statuses(db: Database) -> list[tuple[str, str | None]]:
    return [(row.status, row.reason) for row in rows_of(db, Message)]


# --- unsubscribing -----------------------------------------------------------------------------------


def test_opening_the_page_changes_nothing_and_its_button_stops_the_next_letter(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    before = everything(db)

    page = site.http.get(site.link())
    head = site.http.head(site.link())
    unchanged = everything(db)
    done = site.http.post(site.link(), data={"act": "stop"})
    site.go_on(days=3)

    assert (page.status_code, head.status_code, head.content) == (200, 200, b"")
    assert ES.stop_title in page.text
    assert unchanged == before
    assert (done.status_code, ES.stopped_title in done.text) == (200, True)
    assert statuses(db) == [("sent", None), ("skipped", "suppressed")]


def one_clicks() -> dict[str, dict[str, Any]]:
    """The ways in which mail programs post one click (RFC 8058, 3.2), and some that none should."""
    mixed = {"Content-Type": "Multipart/Form-Data; Boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n'
    return {
        "urlencoded": {"data": ONE_CLICK},
        "multipart": {"files": {"List-Unsubscribe": (None, "One-Click")}},
        "multipart by hand": {"content": part, "headers": mixed},
        "with a charset": {
            "content": b"List-Unsubscribe=One-Click",
            "headers": {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        },
    }


@pytest.mark.parametrize("way", one_clicks())
def test_one_click_acts_at_once_without_cookies_or_redirects_and_twice_is_as_once(
    way: str, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))

    answers = [
        httpx.post(site.url + site.link(), **one_clicks()[way], trust_env=False, verify=NO_TLS) for _ in range(3)
    ]
    site.go_on(days=3)

    assert [(one.status_code, one.headers["content-type"]) for one in answers] == [
        (200, "text/plain; charset=utf-8")
    ] * 3
    assert statuses(db) == [("sent", None), ("skipped", "suppressed")]
    assert {row.source for row in rows_of(db, Suppression)} == {"unsubscribe link: one-click"}


@pytest.mark.parametrize("body", [b"", b"List-Unsubscribe", b"\xff\xfe", b"act=nothing"])
def test_whatever_is_posted_to_a_link_to_unsubscribe_falls_on_the_side_of_silence(
    body: bytes, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))

    answers = [
        site.http.post(site.link(), content=body, headers={"Content-Type": kind})
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "")
    ]

    assert [one.status_code for one in answers] == [200] * 4
    assert count(db, Suppression) > 0


def test_the_link_still_works_after_a_sign_up_again_and_years_later(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    site.http.post(site.link(), data=ONE_CLICK)
    site.now += timedelta(days=1)
    site.http.post(f"{site.link()}/choose", data={"act": "choose", "keep": "email"})
    site.go_on(days=2)

    site.http.post(site.link(), data=ONE_CLICK)
    site.go_on(days=2)
    site.now += timedelta(days=3000)

    assert statuses(db) == [("sent", None), ("sent", None), ("skipped", "suppressed")]
    assert site.http.get(site.link()).status_code == 200


def test_a_forged_form_without_the_token_reaches_nobody(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    before = everything(db)

    for path in ("/l/", "/l/AAAAAAAAAAAA", "/l/AAAAAAAAAAAA/choose", f"{site.link()}A", f"{site.link().lower()}"):
        assert site.http.post(path, data=ONE_CLICK).status_code == 404

    assert everything(db) == before


def test_a_body_too_large_for_a_form_is_refused(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))

    assert site.http.post(site.link(), data={"a": "x" * 70_000}).status_code == 413
    assert count(db, Suppression) == 0


# --- preferences -------------------------------------------------------------------------------------


class Inputs(HTMLParser):
    """The checkboxes of a page: channel → on, off or locked."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.boxes: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "input" and found["type"] == "checkbox":
            state = "locked" if "disabled" in found else "on" if "checked" in found else "off"
            self.boxes[str(found["value"])] = state


def test_what_is_switched_off_gets_no_marketing_and_the_words_are_kept(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    path = site.link("preferences")
    shown = Inputs(site.http.get(path).text).boxes

    answer = site.http.post(path, data={"act": "choose", "keep": ["sms", "whatsapp"]})
    site.go_on(days=3)

    assert shown == {"email": "on", "sms": "on", "whatsapp": "on"}
    assert Inputs(answer.text).boxes == {"email": "off", "sms": "on", "whatsapp": "on"}
    assert ES.chosen_title in answer.text
    (line,) = rows_of(db, Consent, by="recipient")
    assert (line.channel, line.status, line.words) == ("email", "revoked", "Promociones y novedades de Tienda Luna")
    assert statuses(db) == [("sent", None), ("skipped", "no_consent")]


def test_what_was_switched_off_can_be_switched_on_again_from_where_it_arrives(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    path = site.link("preferences")
    site.http.post(path, data={"act": "choose", "keep": ["sms", "whatsapp"]})
    site.now += timedelta(hours=1)

    site.http.post(path, data={"act": "choose", "keep": ["email", "sms", "whatsapp"]})
    site.go_on(days=3)

    assert statuses(db) == [("sent", None), ("sent", None)]


def test_a_forwarded_letter_cannot_consent_for_somebodys_phone(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path), sms_consent="no", whatsapp_consent="")
    path = site.link("preferences")
    shown = Inputs(site.http.get(path).text).boxes

    site.http.post(path, data={"act": "choose", "keep": ["email", "sms", "whatsapp"]})

    assert shown == {"email": "on", "sms": "locked", "whatsapp": "locked"}
    assert rows_of(db, Consent, by="recipient") == []


def test_who_reads_on_the_phone_may_choose_among_what_arrives_there(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path), channel="sms", whatsapp_consent="no", email_consent="no")
    path = site.link("preferences")
    shown = Inputs(site.http.get(path).text).boxes

    site.http.post(
        path, data={"act": "choose", "keep": ["sms", "whatsapp", "email", "visit", "'; DROP TABLE consents"]}
    )

    assert shown == {"email": "locked", "sms": "on", "whatsapp": "off"}
    assert [(row.channel, row.status) for row in rows_of(db, Consent, by="recipient")] == [("whatsapp", "granted")]


def test_everything_can_be_stopped_from_the_preferences_too(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    path = site.link("preferences")

    looked = site.http.post(path, content=b"")
    untouched = count(db, Suppression)
    stopped = site.http.post(path, data={"act": "stop"})
    shown = site.http.get(path).text
    site.go_on(days=3)

    assert (looked.status_code, untouched) == (200, 0)
    assert ES.stopped_title in stopped.text
    assert ES.stop_button not in shown
    assert Inputs(shown).boxes == {"email": "off", "sms": "locked", "whatsapp": "locked"}
    assert statuses(db) == [("sent", None), ("skipped", "suppressed")]


def test_the_links_between_the_pages_hold_behind_any_prefix_of_the_public_address(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    token = site.link().removeprefix("/l/")

    first = site.http.get(site.link()).text
    stopped_there = site.http.post(f"{site.link()}/choose", data={"act": "stop"}).text

    assert f'href="{token}/choose"' in first  # from /…/l/TOKEN
    assert 'href="choose"' in stopped_there  # from /…/l/TOKEN/choose
    assert site.http.get(f"{site.link()}/choose").status_code == 200


# --- tracked links -----------------------------------------------------------------------------------


def test_a_tracked_link_leads_to_its_address_and_is_a_fact_once(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    path = site.link("url")

    answers = [site.http.get(path, params={"to": "https://evil.example"}) for _ in range(3)]
    site.receive()

    assert {(one.status_code, one.headers["location"]) for one in answers} == {
        (302, "https://luna.example/tazas?x=1&y=%C3%B1#aqu%C3%AD")
    }
    (message,) = rows_of(db, Message)
    assert [(row.kind, row.message_id) for row in rows_of(db, MessageEvent)] == [("clicked", message.id)]


def test_who_only_looks_ahead_has_not_clicked(db: Database, tmp_path: Path, serve: Serve) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    path = site.link("url")

    answers = [
        site.http.head(path),
        site.http.get(path, headers={"Sec-Purpose": "prefetch;prerender"}),
        site.http.get(path, headers={"Purpose": "prefetch"}),
    ]

    assert [one.status_code for one in answers] == [302] * 3
    assert count(db, Inbox) == 0


def test_a_tracked_link_acts_on_nothing_and_one_to_anything_but_the_web_leads_nowhere(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    (message,) = rows_of(db, Message)
    rows = [
        {"token": token, "message_id": message.id, "kind": kind, "target": target}
        for token, kind, target in (
            ("javascript00", "url", "javascript:alert(1)"),
            ("nothing_____", "url", ""),
            ("survey______", "survey", "csat"),
        )
    ]
    with store.write(db) as connection:
        store.insert_many(connection, table(MessageLink), rows)

    answers = [site.http.get(f"/l/{row['token']}") for row in rows] + [site.http.post(site.link("url"), data=ONE_CLICK)]

    assert [one.status_code for one in answers] == [404] * 4
    assert count(db, Suppression) == 0


# --- what is shown to whom ---------------------------------------------------------------------------


def test_links_that_never_were_and_what_cannot_be_one_look_all_the_same(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))
    paths = ("AAAAAAAAAAAA", "a", "x" * 300, "ñ", "AAAAAAAAAAAA.", "%00", "AAAAAAAAAAA'", "AAAAAAAAAAAA/choose")

    answers = [site.http.get(f"/l/{path}") for path in paths]

    assert {one.status_code for one in answers} == {404}
    assert len({one.content for one in answers}) == 1
    assert site.metrics()["outreach_refused_total{unknown_link}"] == len(paths)


@pytest.mark.parametrize("end", [".", ")", "…", "”", "\u00a0"])
def test_a_mark_that_a_phone_takes_for_the_end_of_the_address_does_no_harm(
    end: str, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))

    assert site.http.get(f"{site.link()}{end}").status_code == 200


@pytest.mark.parametrize(
    ("locale", "accepted", "expected"),
    [
        ("pt-BR", "en", PT),
        ("en", "es", EN),
        ("", "fr, pt;q=0.5, en;q=0.7", EN),
        ("fr-FR", "pt-PT", PT),
        ("", "", ES),
        ("", "fr;q=1", ES),
    ],
)
def test_a_page_speaks_the_customers_language_else_the_browsers_else_the_shops(
    locale: str, accepted: str, expected: Any, db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path), locale=locale)

    page = site.http.get(site.link(), headers={"Accept-Language": accepted}).text

    assert f'<html lang="{expected.lang}">' in page
    assert expected.stop_button in page


def test_every_language_says_everything_and_names_every_channel() -> None:
    for words in LANGUAGES.values():
        assert words.channels.keys() == ES.channels.keys()
        assert words.here.keys() == ES.here.keys()
        for name in ("stop_text", "stopped_text"):
            assert "{business}" in getattr(words, name)
            assert "{here}" in getattr(words, name)
        assert "{business}" in words.choose_legend


@given(st.text(), st.text(), st.text())
def test_any_header_and_locale_give_a_language(locale: str, accepted: str, fallback: str) -> None:
    assert words_for(locale, accepted, fallback) in LANGUAGES.values()


@given(st.text(), st.binary())
def test_any_body_is_a_form_or_nothing(kind: str, raw: bytes) -> None:
    for media in (kind, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert all(isinstance(value, str) for pair in form_of({"content-type": media}, raw) for value in pair)


@given(st.text())
def test_a_token_is_twelve_letters_of_its_alphabet_or_none(text: str) -> None:
    found = token_of(text)
    assert found is None or (len(found) == 12 and text.startswith(found))


def test_what_the_shop_is_called_cannot_run_in_a_page(db: Database, tmp_path: Path, serve: Serve) -> None:
    settings = shop_settings(tmp_path)
    evil = "<script>alert(1)</script>{{ 7 * 7 }}{here}"
    site = begun(serve, db, replace(settings, business=replace(settings.business, name=evil)))

    pages = [
        site.http.get(site.link()),
        site.http.get(site.link("preferences")),
        site.http.post(site.link()),
        site.http.get("/l/x"),
    ]

    for page in pages:
        assert "<script" not in page.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}{here}" in page.text


def test_a_page_loads_nothing_sets_nothing_and_stays_out_of_caches_frames_and_indexes(
    db: Database, tmp_path: Path, serve: Serve
) -> None:
    site = begun(serve, db, shop_settings(tmp_path))

    for page in (site.http.get(site.link()), site.http.post(site.link()), site.http.get(site.link("url"))):
        assert "set-cookie" not in page.headers
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-robots-tag"] == "noindex, nofollow"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        for forbidden in ("<script", "src=", "http://", "https://", "style=", "c1@", "Ana"):
            assert forbidden not in page.text
