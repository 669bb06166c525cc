"""
What the tests of the web app share: a real server on this machine, and a shop that it belongs to.

A test module takes the fixture over by `serve = served.serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlmodel import SQLModel

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


Serve = Callable[..., Served]  # (db, settings, **further settings)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves the web app of a database and settings, whose `public_url` becomes the server's own."""
    with ExitStack() as open_ones:

        def start(db: Database, settings: Settings, **changes: Any) -> Served:
            listening = listen("127.0.0.1", 0)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            used = replace(settings, public_url=url, **changes)
            site = Served(db, used, open_ones.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=30)))
            open_ones.enter_context(serving(create_app(used, db, lambda: site.now), listening))
            return site

        yield start


def count(db: Database, model: type[SQLModel]) -> int:
    """How many rows a table has."""
    with store.read(db) as connection:
        return int(connection.execute(select(func.count()).select_from(table(model))).scalar_one())
