"""A person is exported whole, and erased so that nobody can tell who it was; the figures stay."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlmodel import SQLModel

from outreach import answering, coupons, customers, dispatcher, inbox, planner, releases, store, surveys
from outreach import cases as work
from outreach.customers.holdings import ABOUT_NOBODY, HOLDINGS
from outreach.errors import NotFound
from outreach.models import (
    Answer,
    Case,
    Contact,
    ContentShape,
    Coupon,
    CouponMessage,
    Customer,
    Message,
    MessageContent,
    MessageEvent,
    MessageLink,
    Order,
    Reason,
    Reject,
    Reply,
    Status,
    Suppression,
    table,
)
from outreach.reports.retention import retention
from outreach.settings import Settings, Survey
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, order, rows_of, shop_settings
from tests.test_inbox import THANKS, mailed, taken, written

LATER = NOW + timedelta(hours=2)
PHONE, EMAIL = "+525547218365", "quetzalli@example.com"
SECRETS = ("quetzal", "xochitl", "5547218365", "coyoacán", "04310", "1987-05-06", "talla xq", "deja la caja", "gritó")
FOLLOW = """
    title: Follow
    purpose: service
    trigger: {event: order.placed}
    steps:
      - {id: later, after: 1 hour, channel: email, template: m}
      - {id: last, after: 3 days, channel: sms, template: m}
"""


PERSONAL = """---
subject: Hola, {{ customer.first_name }}
---
<p>Hola, {{ customer.first_name }} {{ customer.last_name | default("") }}</p> <a href='{{ links.unsubscribe }}'>baja</a>
"""


def person(**cells: Any) -> dict[str, Any]:
    """A customer whose every cell is one that can be searched for."""
    return customer(
        77, email=EMAIL, phone=PHONE, first_name="Quetzalli", last_name="Xochitl", city="Coyoacán", postal_code="04310",
        region="CDMX", country="MX", birthday="1987-05-06", tags="talla xq", consent_source="web xochitl", shoe="talla xq",
        **cells,
    )  # fmt: skip


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Settings:
    """Quetzalli and two others, with all that can be held about anybody."""
    settings = shop_settings(tmp_path)
    files = files_of({"message_templates/m.email.j2": PERSONAL}, thanks=THANKS, follow=FOLLOW)
    releases.publish(db, settings, files, NOW - timedelta(days=2))
    people = [person(), customer(2), customer(3, email="Xochitl no es correo")]
    orders = [order(n, f"c{n}", NOW - timedelta(days=1), note="deja la caja" if n == 77 else "") for n in (77, 2, 3)]
    orders.append(order(78, "c77", NOW - timedelta(days=50), sku="ZAPATO"))
    cases = [{"case_id": "k1", "customer_id": "c77", "kind": "complaint", "opened_at": NOW, "closed_at": NOW,
              "note": "Quetzalli gritó", "to": "xochitl"}]  # fmt: skip
    events = [{"event_id": "v1", "customer_id": "c77", "name": "cart.abandoned", "at": NOW,
               "url": "https://shop.example/quetzalli"}]  # fmt: skip
    feed(db, settings, NOW - timedelta(days=1), customers=people, orders=orders)
    feed(db, settings, NOW, cases=cases, events=events, orders=[order(79, "c77", NOW)])
    planner.plan(db, settings, NOW)
    assert dispatcher.dispatch(db, settings, NOW).sent >= 6
    (own,) = rows_of(db, Customer, external_id="c77")
    mail = rows_of(db, Message, customer_id=own.id, channel="email", status=Status.SENT)[0]
    taken(
        db, settings, mailed(mail, "delivered", 1, email=EMAIL), mailed(mail, "click", 2, email=EMAIL, url="/quetzalli")
    )
    taken(db, settings, written("Soy Quetzalli Xochitl", PHONE, number=3), written("hola", number=4))
    with store.write(db) as connection:
        url = {"token": "plain", "message_id": mail.id, "kind": "url", "target": "https://shop.example/?u=quetzalli"}
        connection.execute(insert(table(MessageLink)).values(**url))
        call = {"event_id": "task:1", "message_id": mail.id, "customer_id": own.id, "kind": "reached", "at": NOW}
        detail = {"outcome": "reached", "channel": "call", "notes": "Quetzalli gritó"}
        connection.execute(insert(table(MessageEvent)).values(**call, detail=detail))
        rejected = {
            "import_id": 1,
            "file": "c.csv",
            "line": 2,
            "column": "email",
            "reason": "no",
            "value": f"<{EMAIL}>",
        }
        connection.execute(insert(table(Reject)).values(**rejected))
        asked = dataclasses.replace(settings, surveys={"csat": Survey("csat", "1-5")})
        answer = surveys.Given("csat", own.id, mail.occasion, mail.id, 2, "page", NOW, "Quetzalli gritó")
        assert surveys.record(connection, asked, NOW, answer)
        coupon = {"id": 1, "key": "UNO", "code": "UNO", "offer": "back", "status": "issued", "uses": 1, "used": 0}
        coupon |= {"customer_id": own.id, "message_id": mail.id, "made_at": NOW, "issued_at": NOW, "reason": ""}
        connection.execute(insert(table(Coupon)).values(**coupon, shareable=False))
        carried = {"message_id": mail.id, "coupon_id": 1, "at": NOW, "settled": True, "doubted": False}
        connection.execute(insert(table(CouponMessage)).values(**carried))
        use = coupons.Use("order:o79:UNO", "UNO", NOW, "order", own.id)
        assert coupons.record(connection, asked, NOW, [use]) == {"order:o79:UNO": coupons.Verdict.VALID}
    work.note(db, NOW, "k1", "Quetzalli gritó otra vez", "maria")
    said = rows_of(db, Reply, customer_id=own.id)[0]
    answered = answering.answer(db, settings, LATER, said.id, text="Hola, Quetzalli")
    assert dispatcher.dispatch(db, settings, LATER, only=("answers", answered.id)).sent == 1
    planner.plan(db, settings, NOW + timedelta(minutes=61))
    inbox.accept(
        db, settings, LATER, "twilio", [written("otra vez Quetzalli", PHONE, number=5)]
    )  # nobody looked at it yet
    return settings


def dump(db: Database) -> dict[str, str]:
    """Every table, as text."""
    found = {}
    for of in SQLModel.metadata.sorted_tables:
        with store.read(db) as connection:
            rows = [dict(row._mapping) for row in connection.execute(select(of))]
        found[of.name] = json.dumps(rows, default=str, ensure_ascii=False).casefold()
    return found


def told(db: Database, *but: str) -> set[tuple[str, str]]:
    """Which tables still hold which of the person's secrets."""
    return {(name, word) for name, text in dump(db).items() for word in SECRETS if word in text and name not in but}


def figures(db: Database) -> Any:
    """What every report about orders, messages and answers is made of."""
    counts = {}
    for model in (Order, Message, MessageEvent, Reply, Case, MessageContent, Answer):
        rows = [dict(row._mapping) for row in rows_of(db, model)]
        kept = {
            "status",
            "kind",
            "total",
            "counted",
            "segments",
            "channel",
            "campaign",
            "customer_id",
            "placed_at",
            "score",
        }
        counts[model.__name__] = [{name: row[name] for name in row.keys() & kept} for row in rows]
    return counts


# --- nothing is forgotten -----------------------------------------------------------------------------------


def test_every_table_is_known_as_about_people_or_about_nobody() -> None:
    listed = [table(holding.model).name for holding in HOLDINGS] + [table(model).name for model in ABOUT_NOBODY]

    assert sorted(listed) == sorted(of.name for of in SQLModel.metadata.sorted_tables)


@pytest.mark.parametrize("holding", HOLDINGS, ids=lambda holding: str(holding.model.__name__))
def test_every_column_about_a_person_is_kept_or_emptied(holding: Any) -> None:
    columns = {column.name for column in table(holding.model).columns}

    if not holding.deleted:
        assert set(holding.emptied) | holding.kept == columns
        assert not set(holding.emptied) & holding.kept


def test_an_export_holds_everything_that_is_held(db: Database, shop: Settings) -> None:
    found = customers.export(db, shop, "c77", LATER)
    text = json.dumps(found, ensure_ascii=False).casefold()

    assert [word for word in SECRETS if word not in text] == []
    others = {"c2@example.com", "c3@example.com", "+525541000002", "+525541000001"}
    assert [word for word in others if word in text] == []
    assert {name for name, rows in found["held"].items() if not rows} <= {"suppressions", "fresh"}
    assert found["customer"] == "c77"


def test_an_export_shows_emails_as_they_left_and_an_erasure_takes_their_values(db: Database, shop: Settings) -> None:
    held = customers.export(db, shop, "c77", LATER)["held"]["contents"]
    written = [row["html"] for row in held if row["shape"]]
    assert written
    assert all("<p>Hola, Quetzalli Xochitl</p>" in html for html in written)

    customers.erase(db, shop, "c77", LATER)

    assert [row["html"] for row in customers.export(db, shop, "c77", LATER)["held"]["contents"]] == [""] * len(held)
    assert rows_of(db, ContentShape)  # of nobody


def test_what_the_tests_search_for_stands_in_the_database(db: Database, shop: Settings) -> None:
    assert {word for _, word in told(db)} == set(SECRETS)
    assert len({name for name, _ in told(db)}) >= 12


# --- erasing ------------------------------------------------------------------------------------------------


def test_nothing_tells_who_an_erased_person_was(db: Database, shop: Settings) -> None:
    customers.erase(db, shop, "c77", LATER)

    assert told(db, "rejects") == set()
    assert EMAIL not in dump(db)["rejects"]
    assert {row.external_id for row in rows_of(db, Customer)} >= {"c77", "c2"}


def test_the_others_lose_nothing(db: Database, shop: Settings) -> None:
    before = [customers.export(db, shop, who, LATER)["held"] for who in ("c2", "c3")]
    customers.erase(db, shop, "c77", LATER)

    assert [customers.export(db, shop, who, LATER)["held"] for who in ("c2", "c3")] == before


def test_what_is_counted_stays_as_it_was(db: Database, shop: Settings) -> None:
    inbox.receive(db, shop, LATER)
    before = figures(db)
    was = _retention(db, shop)
    customers.erase(db, shop, "c77", LATER)
    after = figures(db)

    planned = [row for row in before["Message"] if row["status"] == "planned" and row["customer_id"] == _id(db)]
    assert planned
    for row in planned:
        row["status"] = "cancelled"
    assert after == before
    assert _retention(db, shop) == was


def _id(db: Database) -> int:
    return int(rows_of(db, Customer, external_id="c77")[0].id)


def _retention(db: Database, settings: Settings) -> Any:
    found = retention(db, settings, start=date(2026, 4, 1), end=date(2026, 7, 1), by="month", now=LATER)
    return dataclasses.asdict(found)


def test_what_was_planned_is_cancelled_and_nothing_is_planned_again(db: Database, shop: Settings) -> None:
    done = customers.erase(db, shop, "c77", LATER)
    mine = [row for row in rows_of(db, Message, customer_id=_id(db)) if row.reason == Reason.CUSTOMER_GONE]
    assert (done.cancelled, len(mine)) == (1, 1)
    for days in (2, 4):
        planner.plan(db, shop, NOW + timedelta(days=days))
        dispatcher.dispatch(db, shop, NOW + timedelta(days=days))

    later = [row for row in rows_of(db, Message, customer_id=_id(db)) if row.due_at > LATER]
    assert {row.status for row in later} <= {Status.CANCELLED, Status.SKIPPED}


@pytest.mark.parametrize("change", [{}, {"city": "Puebla"}, {"phone": "+525547218366"}, {"customer_id": "c78"}])
def test_the_next_import_contacts_them_no_more(change: dict[str, Any], db: Database, shop: Settings) -> None:
    customers.erase(db, shop, "c77", LATER)
    row = {**person(), **change}
    again = NOW + timedelta(days=1)
    feed(db, shop, again, customers=[row, customer(2)], orders=[order(n, n, again) for n in (row["customer_id"], "c2")])
    for days in (1, 2, 5):
        planner.plan(db, shop, NOW + timedelta(days=days, hours=2))
        dispatcher.dispatch(db, shop, NOW + timedelta(days=days, hours=2))

    sent = [message for message in rows_of(db, Message) if message.sent_at and message.sent_at > LATER]
    theirs = {one.id for one in rows_of(db, Customer) if one.external_id in ("c77", "c78")}
    assert {message.customer_id for message in sent} == {rows_of(db, Customer, external_id="c2")[0].id}
    assert theirs
    if not change:
        assert told(db, "rejects") == set()


def test_an_address_that_somebody_else_has_too_stays_theirs(db: Database, shop: Settings) -> None:
    feed(db, shop, LATER, customers=[customer(9, phone=PHONE)])
    done = customers.erase(db, shop, "c77", LATER)

    assert done.shared_with == ("c9",)
    assert [row.address for row in rows_of(db, Contact) if row.address in (PHONE, EMAIL)] == [PHONE]
    assert [(row.kind, row.scope) for row in rows_of(db, Suppression)] == [("email", "address")]


def test_what_was_refused_of_a_person_s_rows_is_theirs(db: Database, shop: Settings) -> None:
    feed(
        db, shop, LATER, customers=[customer(77, email="quetzalli.xochitl@gmail,com")],
        orders=[order(80, "c77", NOW, total="12 pesos para quetzalli")],
        cases=[{"case_id": "k2", "customer_id": "c77", "kind": "queja de xochitl", "opened_at": NOW}],
    )  # fmt: skip
    refused = [row["value"] for row in customers.export(db, shop, "c77", LATER)["held"]["rejects"]]
    assert {"quetzalli.xochitl@gmail,com", "12 pesos para quetzalli", "queja de xochitl"} <= set(refused)

    customers.erase(db, shop, "c77", LATER)

    assert [row.value for row in rows_of(db, Reject) if row.value] == ["Xochitl no es correo"]  # another's
    assert {row.customer for row in rows_of(db, Reject)} == {"", "c3"}


def test_of_a_number_that_two_share_each_has_what_they_wrote_themselves(db: Database, shop: Settings) -> None:
    feed(db, shop, LATER, customers=[customer(9, phone=PHONE)])
    heard = {
        who: [row["text"] for row in customers.export(db, shop, who, LATER)["held"]["inbox"]] for who in ("c77", "c9")
    }
    assert "Soy Quetzalli Xochitl" in heard["c77"]
    assert "Soy Quetzalli Xochitl" not in heard["c9"]

    customers.erase(db, shop, "c77", LATER)

    assert "soy quetzalli xochitl" not in dump(db)["inbox"]


def test_an_id_that_is_itself_an_address_is_replaced(db: Database, shop: Settings) -> None:
    feed(db, shop, LATER, customers=[customer(9, customer_id="ana@example.net", email="ana@example.net")])
    done = customers.erase(db, shop, "ana@example.net", LATER)

    assert done.customer.startswith("erased:")
    assert "ana@example.net" not in "".join(dump(db).values())


def test_a_stranger_who_wrote_can_be_erased(db: Database, shop: Settings) -> None:
    taken(db, shop, written("Soy Xochitl la otra", "+525587654329", number=9))
    customers.erase(db, shop, "+525587654329", LATER)

    assert [row.text for row in rows_of(db, Reply) if "la otra" in row.text] == []
    assert "la otra" not in dump(db)["inbox"]
    assert "87654329" not in dump(db)["contacts"]


def test_erasing_twice_is_as_once(db: Database, shop: Settings) -> None:
    customers.erase(db, shop, "c77", LATER)
    first = dump(db)
    customers.erase(db, shop, "c77", LATER)

    assert {name for name, text in dump(db).items() if text != first[name]} <= {"ticks"}
    with pytest.raises(NotFound):
        customers.erase(db, shop, "c99", LATER)


def test_a_repeated_event_does_not_bring_an_erased_person_back(db: Database, shop: Settings) -> None:
    customers.erase(db, shop, "c77", LATER)
    repeated = [written("Soy Quetzalli Xochitl", PHONE, number=3), written("otra vez Quetzalli", PHONE, number=5)]

    assert taken(db, shop, *repeated).handled == 0
    assert told(db, "rejects") == set()


def test_an_erased_person_can_still_opt_out_by_an_old_link(db: Database, shop: Settings) -> None:
    mine = rows_of(db, MessageLink, kind="unsubscribe")
    own = {row.id for row in rows_of(db, Message, customer_id=_id(db))}
    token = next(link.token for link in mine if link.message_id in own)
    customers.erase(db, shop, "c77", LATER)

    after = inbox.unsubscribe(db, shop, LATER, token, "page")
    assert after is not None
    assert after.opted_out


def test_an_overview_shows_what_matters(db: Database, shop: Settings) -> None:
    found = customers.overview(db, shop, "c77", LATER)

    assert (found["first_name"], found["addresses"], found["orders_count"]) == ("Quetzalli", [EMAIL, PHONE], 3)
    assert found["replies"][0]["text"] == "Soy Quetzalli Xochitl"
    assert found["open_cases"] == []
    assert found["messages"]
    assert isinstance(datetime.fromisoformat(found["last_order_at"]), datetime)
    assert not found["erased"]
