"""
The pages that links in messages lead to: `/l/TOKEN`.

    unsubscribe     a page with one button, and the one-click POST of RFC 8058
    preferences     offers and news by channel, on or off
    survey          questions, and thanks for the answers (surveys)
    url             a redirect to the address that the message named, noted as a click

Opening a page changes nothing, since mail scanners follow links; only a POST acts. The token in the
address is all that proves who is there: 72 bits that nobody can guess, and no cookies, so a request
forged by another site has nothing to ride on. A link works as long as its message is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from outreach import inbox
from outreach.channels import InboundEvent
from outreach.errors import DatabaseError
from outreach.inbox import Person
from outreach.values import CONTACT_KIND
from outreach.web import surveys
from outreach.web.drawing import draw, notice
from outreach.web.intake import FORM, MULTIPART, Reason, Site, body, media_type
from outreach.web.words import Words, words_for

ONE_CLICK = ("List-Unsubscribe", "One-Click")  # www.rfc-editor.org/rfc/rfc8058, section 3.2
MOST_BYTES = 64 * 1024  # several comments of a thousand characters, each up to 12 bytes in a form
WITH_PAGES = ("unsubscribe", "preferences")  # kinds of links

# What the reader of a text message may take for a part of the address does no harm: a full stop, a bracket.
_TOKEN = re.compile(r"([A-Za-z0-9_-]{12})[^A-Za-z0-9_-]{0,3}")

Posted = Annotated[bytes, Depends(body(MOST_BYTES))]

_FORM: dict[str, Any] = {
    "requestBody": {
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "List-Unsubscribe": {"type": "string", "enum": ["One-Click"]},
                        "act": {"type": "string", "enum": ["stop", "choose", "answer"]},
                        "keep": {"type": "array", "items": {"type": "string"}},
                    },
                    "patternProperties": {
                        f"^{surveys.SCORE}": {"type": "string", "description": "The score given to this survey."},
                        f"^{surveys.WHY}": {"type": "string", "description": "Why, in the reader's words."},
                    },
                }
            }
            for kind in (FORM, MULTIPART)
        }
    }
}
_PAGES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}, "text/plain": {}}},
    302: {"description": "The address that the message named."},
    404: {"description": "No such link, or none with a page."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    503: {"description": "Nothing was changed: try again."},
}


@dataclass(frozen=True)
class Box:
    """One channel on the page of preferences."""

    channel: str
    on: bool
    locked: bool  # it is off, and may only be switched on from where it arrives


def routes(site: Site) -> APIRouter:
    """Everything under `/l/`."""
    router = APIRouter(tags=["pages"], responses=_PAGES, default_response_class=Response)

    @router.get("/l/{token}")
    @router.head("/l/{token}", include_in_schema=False)
    def open_link(token: str, request: Request) -> Response:
        """Show the page of a link, or lead on to its address; changes nothing but the count of clicks."""
        return _open(site, request, token)

    @router.get("/l/{token}/choose")
    @router.head("/l/{token}/choose", include_in_schema=False)
    def open_choices(token: str, request: Request) -> Response:
        """Show the preferences, whichever of the two kinds the link is of."""
        person = _person(site, token)
        return _missing(site, request) if person is None else _choices(site, request, person)

    @router.post("/l/{token}", openapi_extra=_FORM)
    @router.post("/l/{token}/choose", openapi_extra=_FORM, operation_id="act_on_choices")
    def act(token: str, request: Request, raw: Posted) -> Response:
        """Unsubscribe, by button or in one click, take over the preferences, or answer a survey."""
        return _act(site, request, token, form_of(request.headers, raw))

    return router


# --- opening ---------------------------------------------------------------------------------------


def _open(site: Site, request: Request, written: str) -> Response:
    token = token_of(written)
    link = inbox.link(site.db, token) if token else None
    if token is None or link is None:
        return _missing(site, request)
    if link.kind == "url" and urlsplit(link.target).scheme in ("https", "http"):
        if request.method == "GET" and not _is_ahead(request.headers):
            _note_click(site, token, link.public_id)
        return RedirectResponse(link.target, 302)
    if link.kind in surveys.KINDS:
        return surveys.show(site, request, token) or _missing(site, request)
    person = _person(site, token) if link.kind in WITH_PAGES else None
    if person is None:
        return _missing(site, request)
    if link.kind == "preferences":
        return _choices(site, request, person)
    words = _words(site, request, person)
    return _page(site, words, "stop.html", words.stop_title, person, choose_path=_choose_path(request))


def token_of(written: str) -> str | None:
    """The token, without what a text message's reader took for its end; None: it cannot be one."""
    found = _TOKEN.fullmatch(written)
    return found[1] if found else None


def _is_ahead(headers: Mapping[str, str]) -> bool:
    """Whether a browser fetches it before anybody clicked (developer.mozilla.org: Sec-Purpose)."""
    return "prefetch" in headers.get("sec-purpose", headers.get("purpose", "")).lower()


def _note_click(site: Site, token: str, public_id: str) -> None:
    """One a day for each link: scanners and people who click again tell nothing new. The reader goes on whatever happens."""
    now = site.clock()
    event = InboundEvent(f"link:{token}:{now:%Y%m%d}", "clicked", now, public_id, detail="link")
    try:
        inbox.accept(site.db, site.settings, now, "link", [event])
        site.count_taken("link", 1)
    except DatabaseError:
        site.count_refusal(Reason.UNAVAILABLE)


# --- acting ------------------------------------------------------------------------------------------


def _act(site: Site, request: Request, written: str, form: Sequence[tuple[str, str]]) -> Response:
    """
    What a form asks for; whatever is no form of ours, posted to a link to unsubscribe, unsubscribes.

    So no mail program's way of writing one click fails.
    """
    token = token_of(written)
    link = inbox.link(site.db, token) if token else None
    if token is not None and link is not None and link.kind in surveys.KINDS:
        return surveys.take(site, request, token, form) or _missing(site, request)
    if token is None or link is None or link.kind not in WITH_PAGES:
        return _missing(site, request)
    one_click = ONE_CLICK in form
    if ("act", "choose") in form and not one_click:
        return _choose(site, request, token, form)
    if link.kind == "preferences" and not one_click and ("act", "stop") not in form:
        return _open(site, request, token)
    person = inbox.unsubscribe(site.db, site.settings, site.clock(), token, "one-click" if one_click else "page")
    if person is None:
        return _missing(site, request)
    words = _words(site, request, person)
    if one_click:
        return PlainTextResponse(words.stopped_title)
    return _page(site, words, "stopped.html", words.stopped_title, person, choose_path=_choose_path(request))


def form_of(headers: Mapping[str, str], raw: bytes) -> list[tuple[str, str]]:
    """The names and values of a form, urlencoded or multipart; nothing where it is none."""
    kind = media_type(headers)
    if kind == FORM:
        return parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
    if kind != MULTIPART:
        return []
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode("latin-1", "replace")
    parts = BytesParser(policy=HTTP).parsebytes(head + raw)
    found = []
    for part in parts.iter_parts() if parts.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(value, bytes):
            found.append((name, value.decode("utf-8", "replace").strip()))
    return found


# --- choosing ----------------------------------------------------------------------------------------


def _boxes(person: Person) -> list[Box]:
    """
    One for each channel. What is off may be switched on from a link that came to the same address alone.

    So a forwarded e-mail cannot consent to text messages on somebody's phone.
    """
    here = CONTACT_KIND[person.channel]
    found = []
    for channel, consent in person.channels.items():
        on = consent == "granted"
        found.append(Box(channel, on, locked=not on and CONTACT_KIND[channel] != here))
    return found


def _choose(site: Site, request: Request, token: str, form: Sequence[tuple[str, str]]) -> Response:
    before = _person(site, token)
    if before is None:
        return _missing(site, request)
    words = _words(site, request, before)
    keep = {value for name, value in form if name == "keep"}
    wanted = {box.channel: box.channel in keep for box in _boxes(before) if not box.locked}
    changed = {box.channel: wanted[box.channel] for box in _boxes(before) if wanted.get(box.channel, box.on) != box.on}
    legend = words.choose_legend.format(business=site.settings.business.name)
    now = site.clock()
    person = inbox.prefer(site.db, site.settings, now, token, changed, legend) if changed else before
    return _missing(site, request) if person is None else _choices(site, request, person, saved=True)


def _choices(site: Site, request: Request, person: Person, *, saved: bool = False) -> Response:
    words = _words(site, request, person)
    values = {"boxes": _boxes(person), "opted_out": person.opted_out, "saved": saved}
    return _page(site, words, "choose.html", words.choose_title, person, **values)


# --- answers -----------------------------------------------------------------------------------------


def _person(site: Site, written: str) -> Person | None:
    token = token_of(written)
    return inbox.person(site.db, site.settings, token) if token else None


def _words(site: Site, request: Request, person: Person | None) -> Words:
    locale = person.locale if person is not None else None
    return words_for(locale, request.headers.get("accept-language", ""), site.settings.business.locale)


def _choose_path(request: Request) -> str:
    """From the page that is open, so that it holds whatever stands before our paths in `public_url`."""
    *_, before, last = request.url.path.split("/")
    return last if before != "l" else f"{last}/choose"


def _page(site: Site, words: Words, template: str, title: str, person: Person, **values: Any) -> Response:
    values |= {"business": site.settings.business.name, "title": title, "here": words.place(person.channel)}
    return HTMLResponse(draw(template, words, values))


def _missing(site: Site, request: Request) -> Response:
    """The same for a link that never was, one without a page, and what cannot be one."""
    site.count_refusal(Reason.UNKNOWN_LINK)
    words = _words(site, request, None)
    return HTMLResponse(notice(words, site.settings.business.name, words.missing_title, words.missing_text), 404)
