"""
The web app: what providers, the shop and the readers of messages send to us.

    webhooks    what providers post: signatures, bodies, on disk before the 2xx
    shop        POST /events: the shop's own events, signed by the shop
    pages       /l/TOKEN: unsubscribe, preferences, tracked links      drawing  words  templates/
    surveys     /l/TOKEN: questions, and thanks for the answers        survey_words
    join        /join: how to agree to receive offers and news         joining
    watching    /healthz and /metrics
    intake      what all routes share: bodies read in pieces, refusals counted
    serving     uvicorn in a thread of its own

It keeps nothing of its own: each request is one or two short transactions, answered with success only
when its facts are on disk, so that it may be killed at any time and run in any number. It sets no
cookies, knows no logins, and logs neither addresses nor tokens.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outreach import __version__
from outreach.errors import OutreachError
from outreach.logs import place, say
from outreach.settings import Settings
from outreach.store import Database
from outreach.web import join, pages, shop, watching, webhooks
from outreach.web.drawing import headers, notice
from outreach.web.intake import Reason, Refused, Site
from outreach.web.words import words_for

__all__ = ["Action", "create_app"]

THREADS = 8  # that use the database at once: below the connections that an engine holds
RETRY_SECONDS = "60"


class Action(StrEnum):
    """What the web app can say in the log."""

    UNAVAILABLE = "unavailable"  # a request could not be served; who sent it is told to try again
    FAULT = "fault"  # a request met a fault of ours


def _clock() -> datetime:
    return datetime.now(UTC)


def create_app(settings: Settings, db: Database, clock: Callable[[], datetime] = _clock) -> FastAPI:
    """The web app of a workspace; `clock` is where it reads `now`."""
    site = Site(settings, db, clock)
    app = FastAPI(
        title="outreach",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.add_middleware(_Guard, site=site)
    app.add_exception_handler(Refused, lambda _, error: _refused(site, error))
    for routes in (webhooks.routes, shop.routes, pages.routes, join.routes, watching.routes):
        app.include_router(routes(site))
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _refused(site: Site, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101  it is registered for nothing else
    site.count_refusal(error.reason)
    return JSONResponse({"detail": error.text}, error.status)


class _Guard:
    """Outermost: every answer gets the headers, and no error gets out, since its text may hold anything."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *headers().items()]
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as error:
            answer = self._answer(Request(scope), error)
            if not begun:
                await answer(scope, receive, guarded)

    def _answer(self, request: Request, error: Exception) -> Response:
        """503 where it is not up to us alone, 500 for a fault of ours; either way the sender may try again."""
        ours = not isinstance(error, OutreachError)
        self._site.count_refusal(Reason.FAILED if ours else Reason.UNAVAILABLE)
        what = place(error) if ours else str(error)
        say(Action.FAULT if ours else Action.UNAVAILABLE, logging.ERROR, error=what)
        status, again = (500, None) if ours else (503, {"Retry-After": RETRY_SECONDS})
        if not request.url.path.startswith("/l/"):
            return JSONResponse({"detail": "this cannot be done right now: send it again"}, status, again)
        business = self._site.settings.business
        words = words_for(None, request.headers.get("accept-language", ""), business.locale)
        return HTMLResponse(notice(words, business.name, words.busy_title, words.busy_text), status, again)
