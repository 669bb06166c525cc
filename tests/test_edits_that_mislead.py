"""Edits and spellings that look harmless: a trigger of another kind, a name used again, a list left empty, `5.000`."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import dispatcher, planner, releases
from outreach.models import Message, MessageContent, Reason, Status
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, order, publish, rows_of, shop_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.placed}
    steps: [{id: reminder, after: 1 day, channel: email, template: m}]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def go_on(db: Database, settings: Settings, now: datetime) -> None:
    planner.plan(db, settings, now)
    dispatcher.dispatch(db, settings, now)


def told(db: Database) -> list[tuple[Any, ...]]:
    return sorted((row.customer_id, row.campaign, row.step, row.status) for row in rows_of(db, Message))


def test_nobody_gets_another_s_record_when_a_campaign_listens_to_something_else(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS)
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=[order(1, "c1", NOW)])
    planner.plan(db, settings, NOW)
    cart = {"event_id": "v1", "customer_id": "c2", "name": "cart.abandoned", "at": NOW + HOUR, "url": "https://x/c2"}
    publish(db, settings, NOW + HOUR / 2, thanks=THANKS.replace("order.placed", "cart.abandoned"))
    feed(db, settings, NOW + HOUR, events=[cart])

    go_on(db, settings, NOW + 2 * DAY)

    found = {row.customer_id: (row.status, row.reason) for row in rows_of(db, Message)}
    assert found == {1: (Status.CANCELLED, Reason.RECORD_CLEARED), 2: (Status.SENT, None)}


def test_a_step_s_former_name_can_be_another_step_s(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW)])
    go_on(db, settings, NOW + DAY)
    renamed = THANKS.replace("{id: reminder", "{id: thanks, was: reminder")
    publish(db, settings, NOW + DAY, thanks=renamed)
    both = THANKS.replace("{id: reminder", "{id: thanks").replace(
        "template: m}", "template: m}, {id: reminder, after: 3 days, channel: email, template: m}"
    )
    publish(db, settings, NOW + DAY + HOUR, thanks=both)

    go_on(db, settings, NOW + 3 * DAY)
    go_on(db, settings, NOW + 4 * DAY)

    assert told(db) == [(1, "thanks", "reminder", "sent"), (1, "thanks", "thanks", "sent")]
    assert len({row.public_id for row in rows_of(db, Message)}) == 2


def test_a_date_whose_hour_is_corrected_tells_nobody_twice(db: Database, settings: Settings) -> None:
    sale = 'title: Sale\npurpose: service\ntrigger: {date: 2026-06-20, at: "10:00"}\nsteps:'
    sale += " [{id: sale, after: 0 days, channel: email, template: m}]"
    publish(db, settings, NOW, sale=sale)
    feed(db, settings, NOW, customers=[customer(1)])
    ten = datetime(2026, 6, 20, 16, 0, tzinfo=NOW.tzinfo)
    go_on(db, settings, ten)

    publish(db, settings, ten + timedelta(minutes=5), sale=sale.replace("10:00", "10:30"))
    go_on(db, settings, ten + HOUR)

    assert told(db) == [(1, "sale", "sale", "sent")]


@pytest.mark.parametrize(("product", "fits"), [("Café [250 g] molido", True), ("Café 2", False)])
def test_a_bracket_in_a_pattern_is_a_bracket(db: Database, settings: Settings, product: str, fits: bool) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS.replace("order.placed", 'order.placed, product: "café [250 g]*"'))
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW, product=product, unit_price="10")])

    go_on(db, settings, NOW + DAY)

    assert bool(told(db)) is fits


def test_an_amount_is_in_the_units_that_people_write(db: Database, settings: Settings) -> None:
    text = "Total {{ order.total.amount }}{% if order.total.amount > 500 %}, envío gratis{% endif %}"
    files = files_of({"message_templates/m.sms.j2": text}, thanks=THANKS.replace("email", "sms"))
    releases.publish(db, settings, files, NOW - HOUR)
    orders = [order(1, "c1", NOW, total="100.00"), order(2, "c2", NOW, total="600")]
    feed(db, settings, NOW, customers=[customer(1), customer(2)], orders=orders)

    go_on(db, settings, NOW + DAY)

    said = {row.message_id: row.text for row in rows_of(db, MessageContent)}
    assert said == {1: "Total 100.00", 2: "Total 600.00, envío gratis"}
