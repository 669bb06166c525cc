"""The page where people agree to receive offers and news: /join. It changes nothing, and knows nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from outreach.web import joining
from outreach.web.drawing import draw, notice
from outreach.web.intake import Reason, Site
from outreach.web.words import words_for


@dataclass(frozen=True)
class JoinWords:
    """One language. `{business}` is the shop's name, `{channel}` one of its channels."""

    title: str
    terms: str
    button: str
    by_hand: str
    picture: str


JOIN_LANGUAGES = {
    "es": JoinWords(
        title="Recibe ofertas y novedades",
        terms="El botón abre un mensaje ya escrito. Al enviarlo aceptas recibir ofertas y novedades de {business} por ese medio. No es condición para comprar, y puedes darte de baja cuando quieras: responde BAJA.",
        button="Recibirlas por {channel}",
        by_hand="O envía la palabra {word} al {number}.",
        picture="Código QR que abre el mensaje en tu teléfono",
    ),
    "pt": JoinWords(
        title="Receba ofertas e novidades",
        terms="O botão abre uma mensagem já escrita. Ao enviá-la, você aceita receber ofertas e novidades de {business} por esse meio. Não é condição para comprar, e você pode cancelar quando quiser: responda SAIR.",
        button="Receber por {channel}",
        by_hand="Ou envie a palavra {word} para {number}.",
        picture="Código QR que abre a mensagem no seu telefone",
    ),
    "en": JoinWords(
        title="Get offers and news",
        terms="The button opens a message that is already written. By sending it you agree to receive offers and news from {business} on that channel. It is no condition of buying, and you can stop at any time: reply STOP.",
        button="Get them by {channel}",
        by_hand="Or send the word {word} to {number}.",
        picture="QR code that opens the message on your phone",
    ),
}
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}},
    404: {"description": "The shop has no number to write to."},
}


def routes(site: Site) -> APIRouter:
    """The opt-in page."""
    router = APIRouter(tags=["pages"], responses=_PAGE, default_response_class=Response)

    @router.get("/join")
    @router.head("/join", include_in_schema=False)
    def join(request: Request) -> Response:
        """How to agree to receive offers and news, on each channel by a message of one's own."""
        return _show(site, request)

    return router


def _show(site: Site, request: Request) -> Response:
    business = site.settings.business
    words = words_for(None, request.headers.get("accept-language", ""), business.locale)
    own, ways = JOIN_LANGUAGES[words.lang], joining.ways(site.settings, words.lang)
    if not ways:
        site.count_refusal(Reason.NOT_SET_UP)
        return HTMLResponse(notice(words, business.name, words.missing_title, words.missing_text), 404)
    pictures = {way.channel: Markup(joining.drawn(way.link)) for way in ways}  # noqa: S704  drawn by us
    values = {"business": business.name, "title": own.title, "own": own, "ways": ways, "pictures": pictures}
    return HTMLResponse(draw("join.html", words, values))
