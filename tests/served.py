"""
What the tests of the web app share: a real server on this machine, and a shop that it belongs to.

A test module takes the fixture over by `serve = served.serve`.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlmodel import SQLModel
from starlette.types import ASGIApp, Receive, Scope, Send

from outreach import dispatcher, inbox, planner, store
from outreach.channels import Channels
from outreach.models import MessageLink, table
from outreach.settings import Settings
from outreach.store import Database
from outreach.testing.twilio import Signed
from outreach.web import create_app
from outreach.web.serving import listen, serving
from tests.conftest import NOW
from tests.shop import rows_of


@dataclass
class Served:
    """A web app that is being served, and its shop."""

    db: Database
    settings: Settings
    http: httpx.Client
    now: datetime = NOW

    @property
    def url(self) -> str:
        return self.settings.public_url

    def post(self, signed: Signed) -> httpx.Response:
        return self.http.post(signed.url, content=signed.body, headers=dict(signed.headers))

    def go_on(self, **later: float) -> None:
        """Let time pass, plan what is due by then, and hand it over."""
        self.now += timedelta(**later)
        planner.plan(self.db, self.settings, self.now)
        opened = Channels()
        dispatcher.dispatch(self.db, self.settings, self.now, channels=opened)
        opened.close()

    def receive(self) -> None:
        inbox.receive(self.db, self.settings, self.now)

    def link(self, kind: str = "unsubscribe") -> str:
        """The path of the first link of this kind."""
        return f"/l/{rows_of(self.db, MessageLink, kind=kind)[0].token}"

    def metrics(self) -> Mapping[str, float]:
        """Every sample of /metrics, read by Prometheus' own parser: `name{label}` → value."""
        from prometheus_client.parser import text_string_to_metric_families

        answer = self.http.get("/metrics")
        assert answer.status_code == 200
        return {
            f"{one.name}{{{','.join(one.labels.values())}}}" if one.labels else one.name: one.value
            for family in text_string_to_metric_families(answer.text)
            for one in family.samples
        }


# For servers without TLS. A client makes one of its own, and every time reads all certificates of this machine.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Server(FastAPI):
    """
    A server that shows one app after another: to start one and to end it takes a quarter of a second of waiting.

    An app is shown until all requests to it are answered.
    """

    def __init__(self, config: pytest.Config, first: ASGIApp) -> None:
        super().__init__()
        self._shown: ASGIApp | None = first
        self._under_way = 0
        self._change = threading.Condition()
        listening = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        ending = ExitStack()
        ending.enter_context(serving(self, listening))
        config.add_cleanup(ending.close)

    @contextmanager
    def showing(self, app: ASGIApp) -> Iterator[None]:
        self._shown = app
        try:
            yield
        finally:
            with self._change:
                assert self._change.wait_for(lambda: not self._under_way, 15), "a request is never answered"
                self._shown = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._shown
        assert app is not None, "a request to an app whose test is over"
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        with self._change:
            self._under_way += 1
        try:
            await app(scope, receive, send)
        finally:
            with self._change:
                self._under_way -= 1
                self._change.notify_all()


_idle: list[_Server] = []

Serve = Callable[..., Served]  # (db, settings, **further settings)


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serves the web app of a database and settings, whose `public_url` becomes the server's own."""
    with ExitStack() as open_ones:

        def start(db: Database, settings: Settings, **changes: Any) -> Served:
            server = _idle.pop() if _idle else _Server(request.config, create_app(settings, db))
            open_ones.callback(_idle.append, server)
            used = replace(settings, public_url=server.url, **changes)
            client = httpx.Client(base_url=server.url, trust_env=False, timeout=30, verify=NO_TLS)
            site = Served(db, used, client)
            open_ones.enter_context(server.showing(create_app(used, db, lambda: site.now)))
            open_ones.enter_context(client)
            return site

        yield start


def count(db: Database, model: type[SQLModel]) -> int:
    """How many rows a table has."""
    with store.read(db) as connection:
        return int(connection.execute(select(func.count()).select_from(table(model))).scalar_one())
