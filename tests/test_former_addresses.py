"""An opt-out at an address that a customer once had: no file grants it away at the next one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from outreach import dispatcher, planner, store
from outreach.inbox import opting
from outreach.models import Consent, Contact
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

DAY = timedelta(days=1)
OLD, NEW = "c1@example.com", "ana.nueva@example.com"
CAMPAIGN = """
    title: T
    purpose: service
    trigger: {event: order.paid}
    steps:
      - {id: a, after: 1 hour, channel: [email], template: m}
"""


@pytest.fixture
def settings(db: Database, tmp_path: Path) -> Settings:
    """A shop that has written to the customer once."""
    settings = shop_settings(tmp_path)
    publish(db, settings, NOW, a=CAMPAIGN)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW, paid_at=NOW)])
    for minutes in (1, 90):
        planner.plan(db, settings, NOW + timedelta(minutes=minutes))
        dispatcher.dispatch(db, settings, NOW + timedelta(minutes=minutes))
    return settings


def say(db: Database, address: str, day: int, *, granted: bool) -> None:
    (contact,) = [one.id for one in rows_of(db, Contact) if one.address == address]
    at = NOW + day * DAY
    with store.write(db) as connection:
        opting.write(connection, [opting.Said(contact, "email", granted, at, "page", everywhere=True)], at)


def in_force(db: Database, address: str) -> str | None:
    (contact,) = [one.id for one in rows_of(db, Contact) if one.address == address]
    lines = [one for one in rows_of(db, Consent, contact_id=contact) if one.channel == "email"]
    latest = max(lines, key=lambda one: (one.at, one.status == "revoked"), default=None)
    return None if latest is None else latest.status


@pytest.mark.parametrize("dated", ["2020-01-01T00:00:00Z", ""])
def test_an_opt_out_outlives_an_address_that_was_cleared_before_the_next_came(
    db: Database, settings: Settings, dated: str
) -> None:
    say(db, OLD, 1, granted=False)
    feed(db, settings, NOW + 2 * DAY, customers=[customer(1, email="", consent_at=dated)])
    feed(db, settings, NOW + 3 * DAY, customers=[customer(1, email=NEW, consent_at=dated)])

    assert in_force(db, NEW) == "revoked"


@pytest.mark.parametrize("dated", ["2020-01-01T00:00:00Z", ""])
def test_an_opt_out_at_the_former_address_after_the_move_keeps_a_file_from_granting(
    db: Database, settings: Settings, dated: str
) -> None:
    feed(db, settings, NOW + DAY, customers=[customer(1, email=NEW, email_consent="", consent_at=dated)])
    say(db, OLD, 2, granted=False)
    row = customer(1, email=NEW, consent_at=dated)
    feed(db, settings, NOW + 3 * DAY, customers=[row])

    assert in_force(db, NEW) == "revoked"
    asked = (NOW + 4 * DAY).isoformat()
    feed(db, settings, NOW + 5 * DAY, customers=[row | {"consent_at": asked}])
    assert in_force(db, NEW) == "granted"


def test_an_opt_out_that_they_took_back_does_not_go_with_them(db: Database, settings: Settings) -> None:
    say(db, OLD, 1, granted=False)
    say(db, OLD, 2, granted=True)
    feed(db, settings, NOW + 3 * DAY, customers=[customer(1, email=NEW)])

    assert in_force(db, NEW) == "granted"
