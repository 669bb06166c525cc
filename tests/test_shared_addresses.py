"""The arms of customers who share addresses, and what looking them up costs."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, update

from outreach import arms, dispatcher, planner, store
from outreach.models import Customer, Enrolment, Message, Reason, Status, table
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

HOUR = timedelta(hours=1)
KINDS = ("email_id", "phone_id", "messenger_id")
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.paid}
    holdout: 50%
    steps: [{id: thanks, after: 2 days, channel: [email, sms], template: m}]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def buy(db: Database, settings: Settings, people: list[dict[str, Any]], at: datetime) -> None:
    number = int((at - NOW) / HOUR) * 100
    orders = [order(number + n, p["customer_id"], at, paid_at=at) for n, p in enumerate(people)]
    feed(db, settings, at, customers=people, orders=orders)
    planner.plan(db, settings, at)


def arms_told(db: Database, secret: bytes) -> list[str]:
    """The arm of each enrolment by the rule alone: their own, else the first enrolled of their twins, else the draw."""
    people = {c.id: c for c in rows_of(db, Customer)}
    own: dict[int, str] = {}
    of_address: dict[tuple[str, int], str] = {}
    told = []
    for e in rows_of(db, Enrolment):
        who = people[e.customer_id]
        addresses = [(kind, i) for kind in KINDS if (i := getattr(who, kind)) is not None]
        arm = own.get(who.id) or next((of_address[a] for a in addresses if a in of_address), None)
        if arm is None:
            held = arms.is_held(secret, "thanks", 0.5, who.external_id)
            arm = arms.HOLDOUT if held else arms.CONTACT
        own[who.id] = arm
        for address in addresses:
            of_address.setdefault(address, arm)
        told.append(arm)
    return told


def test_the_first_enrolled_of_those_who_share_an_address_decides_the_arm(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS)
    draw = Random(7)
    for turn in range(6):  # with each turn more of them are people whom the campaign knows
        numbers = draw.sample(range(10 * turn + 10), 8)
        mail = {n: f"mail{n % 9}@example.com" for n in numbers}
        people = [customer(n, email=mail[n], phone=f"+5255410000{n % 17:02d}") for n in numbers]
        buy(db, settings, people, NOW + turn * HOUR)

    enrolled = [e.arm for e in rows_of(db, Enrolment)]

    assert enrolled == arms_told(db, db.secret)
    assert set(enrolled) == {arms.CONTACT, arms.HOLDOUT}


def test_an_address_that_came_to_belong_to_both_arms_gives_the_one_of_its_first_enrolment(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS)
    buy(db, settings, [customer(n) for n in range(20)], NOW)
    first = {e.customer_id: e.arm for e in rows_of(db, Enrolment)}
    assert set(first.values()) == {arms.CONTACT, arms.HOLDOUT}
    till = {"email": "till@example.com", "phone": ""}
    feed(db, settings, NOW + HOUR, customers=[customer(n, **till) for n in range(3, 20)])

    buy(db, settings, [customer(n, **till) for n in range(40, 60)], NOW + 2 * HOUR)

    names = {c.id: c.external_id for c in rows_of(db, Customer)}
    decides = next(arm for who, arm in first.items() if names[who] == "c3")
    assert {e.arm for e in rows_of(db, Enrolment)[20:]} == {decides}


def test_an_address_that_hundreds_share_is_looked_up_as_one(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS)
    people = [customer(n, email="till@example.com", phone="") for n in range(700)]
    asked: list[str] = []

    def note(*call: Any) -> None:
        asked.append(call[2])

    buy(db, settings, people[:1], NOW)
    event.listen(db.engine, "before_cursor_execute", note)
    buy(db, settings, people, NOW + HOUR)
    event.remove(db.engine, "before_cursor_execute", note)

    assert len({e.arm for e in rows_of(db, Enrolment)}) == 1
    assert not [text for text in asked if text.count("customers AS") > 1], "each is joined with each"


# --- one occasion, one address, several records ------------------------------------------------------

SALE = """
    title: Sale
    purpose: service
    trigger: {date: 2026-06-20, at: "12:00"}
    steps: [{id: sale, after: 0 days, channel: email, template: m}]
"""
THERE = datetime(2026, 6, 20, 18, 0, tzinfo=NOW.tzinfo)  # noon in Mexico City


def became(db: Database) -> dict[int, tuple[str, str | None]]:
    return {row.customer_id: (row.status, row.reason) for row in rows_of(db, Message)}


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize(
    "trigger", ["{date: 2026-06-20, at: '12:00'}", '{schedule: "0 12 20 * *"}', "{event: customer.birthday}"]
)
def test_of_one_day_s_campaign_an_address_gets_one_message_however_many_records_have_it(
    db: Database, settings: Settings, trigger: str, limit: int | None
) -> None:
    publish(db, settings, NOW, sale=SALE.replace('{date: 2026-06-20, at: "12:00"}', trigger))
    twin = {"email": "ana@example.com", "birthday": "1990-06-20"}
    people = [customer(1, **twin), customer(2, **twin), customer(3, birthday="1990-06-20")]
    feed(db, settings, NOW, customers=people)
    planner.plan(db, settings, THERE)

    for _ in range(3):
        dispatcher.dispatch(db, settings, THERE, limit=limit)

    assert became(db) == {
        1: (Status.SENT, None), 2: (Status.SKIPPED, Reason.AT_MOST), 3: (Status.SENT, None)
    }  # fmt: skip


def test_two_birthdays_at_one_address_are_two(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, sale=SALE.replace('{date: 2026-06-20, at: "12:00"}', "{event: customer.birthday}"))
    people = [customer(n, email="casa@example.com", birthday=f"1990-06-{20 + n}") for n in (1, 2)]
    feed(db, settings, NOW, customers=people)

    for day in range(10):
        planner.plan(db, settings, NOW + timedelta(days=day))
        dispatcher.dispatch(db, settings, NOW + timedelta(days=day))

    assert became(db) == {1: (Status.SENT, None), 2: (Status.SENT, None)}


def test_an_order_of_each_record_at_one_address_is_followed_up(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW - HOUR, thanks=THANKS.replace("    holdout: 50%\n", ""))
    buy(db, settings, [customer(1, email="ana@example.com"), customer(2, email="ana@example.com")], NOW)

    later = NOW + timedelta(days=3)
    planner.plan(db, settings, later)
    dispatcher.dispatch(db, settings, later)

    assert became(db) == {1: (Status.SENT, None), 2: (Status.SENT, None)}


def test_where_the_first_was_refused_the_second_gets_it(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, sale=SALE)
    feed(db, settings, NOW, customers=[customer(n, email="ana@example.com") for n in (1, 2)])
    planner.plan(db, settings, THERE)
    with store.write(db) as connection:
        connection.execute(update(table(Message)).where(table(Message).c.id == 1).values(status=Status.FAILED))

    dispatcher.dispatch(db, settings, THERE)

    assert became(db)[2] == (Status.SENT, None)
