"""The shop whose messages are to be sent: one for each customer, on one channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from outreach import planner, store
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.killing.providers import Address
from tests.shop import customer, feed, publish, shop_settings

CAMPAIGN = """
title: One for each
purpose: service
brake: 10000000
trigger: {{event: customer.created}}
steps: [{{id: one, after: 0 minutes, channel: {channel}, template: m, expires: 60 days}}]
"""


@dataclass(frozen=True)
class Shop:
    """All that a process needs to know to work for it."""

    url: str
    workspace: Path
    provider: Address
    options: Mapping[str, Any] = field(default_factory=dict)  # of the channel
    in_doubt: str = "hold"

    @property
    def resends(self) -> bool:
        return self.in_doubt != "hold"

    def settings(self) -> Settings:
        return shop_settings(
            self.workspace,
            channels={self.provider.channel: self.provider.settings(self.options, self.in_doubt)},
            secrets=dict(self.provider.secrets),
            public_url="https://luna.example",
        )

    def open(self) -> tuple[Database, Settings]:
        return store.open_database(self.url, secret=SECRET), self.settings()


def begin(shop: Shop) -> None:
    """Publish the campaign."""
    db, settings = shop.open()
    campaign = CAMPAIGN.format(channel=shop.provider.channel)
    publish(db, settings, NOW - timedelta(hours=1), one=campaign)
    db.engine.dispose()


def arrive(shop: Shop, first: int, many: int, now: datetime, *, planned: bool = False) -> dict[str, str]:
    """So many new customers, whose messages are `planned`, or for a planner to find; gives each one's address."""
    db, settings = shop.open()
    people = [customer(number, created_at=now) for number in range(first, first + many)]
    feed(db, settings, now, customers=people)
    if planned:
        planner.plan(db, settings, now)
    db.engine.dispose()
    return {one["customer_id"]: one["email" if shop.provider.channel == "email" else "phone"] for one in people}
