"""Importing: what goes in, what is refused and why, and what hangs on it."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update
from sqlmodel import SQLModel

from outreach import importer, store
from outreach.errors import DatabaseError, ImportFileError
from outreach.importer import ImportCounts
from outreach.importer.consents import GRANTED, REVOKED, Line, Said, in_force, next_line
from outreach.importer.writing import safe_cell, write_fresh
from outreach.models import (
    Case,
    Consent,
    Contact,
    Customer,
    CustomerDate,
    CustomerMonth,
    CustomerStats,
    CustomerTag,
    Fresh,
    Import,
    Installation,
    Order,
    OrderLine,
    Reject,
    ShopEvent,
    Suppression,
    table,
    to_micros,
)
from outreach.settings import Business, ChannelSettings, OrderEstimates, Settings
from outreach.sources.csv import CsvSource
from outreach.store import Database
from outreach.values import Duration
from tests.conftest import NOW

ZONE = "America/Mexico_City"
DAY = timedelta(days=1)
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return Settings(
        workspace=tmp_path,
        business=Business("Tienda Luna", ZONE, "MXN", "es-MX", "MX"),
        channels={name: ChannelSettings() for name in ("email", "sms", "whatsapp")},
        events={"cart.abandoned": ("url",)},
    )


def write(folder: Path, name: str, rows: Rows | str) -> Path:
    path = folder / f"{name}.csv"
    if isinstance(rows, str):
        path.write_text(rows, encoding="utf-8")
        return path
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def feed(db: Database, shop: Settings, now: datetime = NOW, **tables: Rows | str) -> ImportCounts:
    files = {name: write(shop.workspace, name, rows) for name, rows in tables.items()}
    return importer.import_source(db, shop, CsvSource(files), now)


def all_of(db: Database, model: type[SQLModel]) -> list[Any]:
    of = table(model)
    with store.read(db) as connection:
        return list(connection.execute(select(of).order_by(*of.primary_key.columns)).all())


def one(db: Database, model: type[SQLModel]) -> Any:
    (row,) = all_of(db, model)
    return row


def local(*when: int) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)  # type: ignore[arg-type, misc]


def tally(counts: ImportCounts, name: str) -> tuple[int, int, int, int, int]:
    of = counts.as_json()[name]
    return of["read"], of["created"], of["updated"], of["unchanged"], of["rejected"]


def rejects(counts: ImportCounts) -> list[dict[str, str]]:
    assert counts.rejects_file
    with Path(counts.rejects_file).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ORDER = {"order_id": "o1", "customer_id": "c1", "placed_at": "2026-06-10 10:30", "total": "99.90"}
ANA = {
    "customer_id": "c1", "email": "Ana@Example.com", "phone": "55 1234 5678", "first_name": " Ana  María ", "last_name": "Pérez",
    "locale": "es_mx", "country": "México", "region": "Jalisco", "city": "Guadalajara", "postal_code": "44100",
    "timezone": "", "birthday": "1990-02-28", "created_at": "2026-06-01", "tags": "vip; mayoreo,vip",
    "email_consent": "yes", "sms_consent": "no", "consent_at": "2026-05-01 09:00", "consent_source": "checkout",
    "nickname": "Anita", "warranty_end": "2027-01-31",
}  # fmt: skip


# --- customers -----------------------------------------------------------------------------------


def test_a_customer_goes_in_with_everything_that_hangs_on_it(db: Database, shop: Settings) -> None:
    counts = feed(db, shop, customers=[ANA])
    ana = one(db, Customer)

    assert tally(counts, "customers") == (1, 1, 0, 0, 0)
    assert (ana.external_id, ana.first_name, ana.last_name, ana.locale, ana.country) == (
        "c1",
        "Ana María",
        "Pérez",
        "es-MX",
        "MX",
    )
    assert (ana.birthday, ana.created_at, ana.zones) == ("1990-02-28", local(2026, 6, 1), ZONE)
    assert ana.tags == ["vip", "mayoreo"]
    assert ana.attributes == {"nickname": "Anita", "warranty_end": "2027-01-31"}
    assert [(c.kind, c.address) for c in all_of(db, Contact)] == [
        ("email", "ana@example.com"),
        ("phone", "+525512345678"),
    ]
    assert {c.id for c in all_of(db, Contact)} == {ana.email_id, ana.phone_id}
    assert all_of(db, Contact)[0].address_hash == store.address_hash(db.secret, "email", "ana@example.com")
    assert {(t.tag, t.by_campaign) for t in all_of(db, CustomerTag)} == {("vip", False), ("mayoreo", False)}
    assert [(d.name, d.on_date, d.month_day) for d in all_of(db, CustomerDate)] == [
        ("birthday", "1990-02-28", 228),
        ("warranty_end", "2027-01-31", 131),
    ]
    assert {(c.contact_id, c.channel, c.status, c.at, c.by, c.source) for c in all_of(db, Consent)} == {
        (ana.email_id, "email", "granted", local(2026, 5, 1, 9), "shop", "checkout"),
        (ana.phone_id, "sms", "revoked", local(2026, 5, 1, 9), "shop", "checkout"),
    }
    assert {(f.kind, f.record_id, f.customer_id) for f in all_of(db, Fresh)} == {
        ("customer.created", ana.id, ana.id),
        ("customer.dates", ana.id, ana.id),
    }


def test_a_column_that_the_file_lacks_stays_and_an_empty_cell_clears(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=[ANA])
    feed(db, shop, customers=[{"customer_id": "c1", "city": "León", "birthday": "", "nickname": ""}])
    ana = one(db, Customer)

    assert (ana.city, ana.birthday, ana.first_name) == ("León", None, "Ana María")
    assert ana.email_id is not None
    assert ana.tags == ["vip", "mayoreo"]
    assert ana.attributes == {"warranty_end": "2027-01-31"}
    assert [d.name for d in all_of(db, CustomerDate)] == ["warranty_end"]


def test_two_customers_with_one_phone_share_one_contact(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=[{"customer_id": name, "phone": "+525512345678"} for name in ("c1", "c2")])

    assert [customer.phone_id for customer in all_of(db, Customer)] == [one(db, Contact).id] * 2


def test_of_two_rows_of_one_customer_the_last_wins_and_the_other_is_told(db: Database, shop: Settings) -> None:
    rows = [
        {"customer_id": "c1", "city": "León"},
        {"customer_id": "c2", "city": "x"},
        {"customer_id": "c1", "city": "Puebla"},
    ]
    counts = feed(db, shop, customers=rows)
    again = feed(db, shop, customers=rows)

    assert sorted((c.external_id, c.city) for c in all_of(db, Customer)) == [("c1", "Puebla"), ("c2", "x")]
    assert tally(counts, "customers") == (3, 2, 1, 0, 0)
    assert tally(again, "customers") == (3, 0, 0, 3, 0)
    assert [(r["line"], r["column"], r["value"]) for r in rejects(counts)] == [("2", "customer_id", "c1")]
    assert "on line 4" in rejects(counts)[0]["reason"]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("phone", "5,43517E+11", "mangled by a spreadsheet"),
        ("phone", "12", "no phone number"),
        ("email", "email@noinformado.com", "placeholder"),
        ("birthday", "1990-02-30", "does not exist"),
        ("birthday", "2031-01-01", "no birthday"),
        ("created_at", "31/12/2025", "no date and time"),
        ("created_at", "2030-01-01", "after tomorrow"),
        ("timezone", "Mexico", "no time zone"),
        ("country", "Atlantis", "no country"),
        ("locale", "español de México", "no language"),
        ("email_consent", "maybe", "neither yes nor no"),
        ("consent_at", "2026-13-01", "does not exist"),
        ("tags", "x" * 200, "longer than 100"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_and_its_row_goes_in_without_it(
    db: Database, shop: Settings, column: str, value: str, why: str
) -> None:
    rows = [{"customer_id": "c0", column: ""}, {"customer_id": "c1", column: value}]
    counts = feed(db, shop, customers=rows)
    again = feed(db, shop, customers=rows)

    assert tally(counts, "customers") == (2, 2, 0, 0, 0)
    assert tally(again, "customers") == (2, 0, 0, 2, 0)
    for found in (rejects(counts), rejects(again)):
        assert [(r["file"], r["line"], r["column"], r["value"]) for r in found] == [
            ("customers.csv", "3", column, value)
        ]
        assert why in found[0]["reason"]
    assert [(r.line, r.column, r.value) for r in all_of(db, Reject)] == [(3, column, value)] * 2
    assert getattr(all_of(db, Customer)[1], column, None) in (None, [])


def test_a_customer_without_an_id_is_rejected(db: Database, shop: Settings) -> None:
    counts = feed(db, shop, customers=[{"customer_id": " ", "city": "x"}, {"customer_id": "c" * 300, "city": "y"}])

    assert tally(counts, "customers") == (2, 0, 0, 0, 2)
    assert [r["reason"] for r in rejects(counts)] == ["is missing: every row needs it", "is longer than 200 characters"]


def test_an_import_never_takes_off_a_tag_that_a_campaign_put_on(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=[{"customer_id": "c1", "tags": "vip"}])
    with store.write(db) as connection:
        connection.execute(insert(CustomerTag).values(customer_id=one(db, Customer).id, tag="won", by_campaign=True))

    feed(db, shop, customers=[{"customer_id": "c1", "tags": "new"}])

    assert {(t.tag, t.by_campaign) for t in all_of(db, CustomerTag)} == {("new", False), ("won", True)}
    assert one(db, Customer).tags == ["new", "won"]


def test_an_erased_address_stays_erased(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=[{"customer_id": "c1", "email": "ana@example.com"}])
    with store.write(db) as connection:
        connection.execute(update(Contact).values(address=None))

    feed(db, shop, customers=[{"customer_id": "c2", "email": "ana@example.com"}])

    assert one(db, Contact).address is None


# --- consent -------------------------------------------------------------------------------------


def consents(db: Database) -> list[tuple[str, str, datetime, str]]:
    return [(c.channel, c.status, c.at, c.by) for c in all_of(db, Consent)]


def opt_out(db: Database, at: datetime, channel: str = "email") -> None:
    with store.write(db) as connection:
        connection.execute(
            insert(Consent).values(
                contact_id=one(db, Contact).id, channel=channel, status="revoked", at=at, by="recipient", recorded_at=at
            )
        )


def say(said: str, at: str = "", **more: str) -> Rows:
    return [{"customer_id": "c1", "email": "ana@example.com", "email_consent": said, "consent_at": at, **more}]


def test_silence_is_not_consent(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=say(""))

    assert consents(db) == []


def test_an_undated_yes_gets_the_customers_first_date_else_now(db: Database, shop: Settings) -> None:
    rows = [
        *say("yes", created_at="2026-05-05"),
        {"customer_id": "c2", "email": "eva@example.com", "email_consent": "yes"},
    ]
    feed(db, shop, customers=rows)

    assert consents(db) == [("email", "granted", local(2026, 5, 5), "shop"), ("email", "granted", NOW, "shop")]


def test_an_undated_word_follows_the_shops_own_changes_of_mind(db: Database, shop: Settings) -> None:
    for day, said in enumerate(["yes", "no", "yes", "yes"]):
        feed(db, shop, NOW + day * DAY, customers=say(said, city=str(day)))

    assert [(status, at) for _, status, at, _ in consents(db)] == [
        ("granted", NOW),
        ("revoked", NOW + DAY),
        ("granted", NOW + 2 * DAY),
    ]


def test_a_nightly_file_never_undoes_an_opt_out(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=say("yes", "2026-01-01"))
    opt_out(db, NOW)
    before = consents(db)

    for day, at in enumerate(["2026-01-01", "", "2026-06-01", "2026-06-15 09:00"], 1):
        feed(db, shop, NOW + day * DAY, customers=say("yes", at, city=str(day)))

    latest = max(all_of(db, Consent), key=lambda c: (c.at, c.status == "revoked"))
    assert (latest.status, latest.by) == ("revoked", "recipient")
    assert consents(db) == before


def test_an_opt_out_yields_to_a_grant_of_a_later_date(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=say("yes", "2026-01-01"))
    opt_out(db, NOW)
    feed(db, shop, NOW + 3 * DAY, customers=say("yes", "2026-06-17"))

    assert consents(db)[-1] == ("email", "granted", local(2026, 6, 17), "shop")


def test_a_new_number_starts_unknown(db: Database, shop: Settings) -> None:
    feed(db, shop, customers=[{"customer_id": "c1", "phone": "+525512345678", "sms_consent": "yes"}])
    feed(db, shop, customers=[{"customer_id": "c1", "phone": "+525587654321"}])

    assert [c.contact_id for c in all_of(db, Consent)] == [all_of(db, Contact)[0].id]
    assert one(db, Customer).phone_id == all_of(db, Contact)[1].id


LINES = st.lists(
    st.builds(Line, st.integers(0, 20), st.sampled_from([GRANTED, REVOKED]), st.sampled_from(["shop", "recipient", "person"])),
    max_size=6,
    unique_by=lambda line: (line.at, line.status),
)  # fmt: skip
WORDS = st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, 20)), max_size=8)


@given(lines=LINES, words=WORDS)
def test_no_sequence_of_files_undoes_an_opt_out_without_a_later_grant(lines: list[Line], words: list[Any]) -> None:
    ledger = list(lines)
    opted_out = max((line.at for line in lines if line.by == "recipient" and line.status == REVOKED), default=None)
    for now, (granted, at) in enumerate(words, 20):
        line = next_line(ledger, Said(1, "email", granted, at, 5, ""), now)
        again = None
        if line:
            assert (line.at, line.status) not in {(known.at, known.status) for known in ledger}
            ledger.append(line)
            again = next_line(ledger, Said(1, "email", granted, at, 5, ""), now)
        assert again is None
    latest = in_force(ledger)
    if latest and latest.status == GRANTED and opted_out is not None:
        dated = [at for granted, at in words if granted and at is not None and at > opted_out]
        assert dated or any(line.status == GRANTED and line.at > opted_out for line in lines)


# --- orders --------------------------------------------------------------------------------------


def test_an_order_goes_in_with_its_lines_its_totals_and_what_is_fresh(db: Database, shop: Settings) -> None:
    rows = [
        {**ORDER, "status": "paid", "paid_at": "2026-06-10T17:00:00Z", "coupon_code": "0012", "sku": "A", "product": "Taza",
         "category": "hogar", "quantity": "2", "unit_price": "40.00", "gift": "sí"},
        {**ORDER, "sku": "B", "quantity": "1", "unit_price": "19.90", "gift": ""},
    ]  # fmt: skip
    counts = feed(db, shop, orders=rows)
    order, customer = one(db, Order), one(db, Customer)

    assert tally(counts, "orders") == (1, 1, 0, 0, 0)
    assert (order.placed_at, order.paid_at) == (local(2026, 6, 10, 10, 30), datetime(2026, 6, 10, 17, tzinfo=UTC))
    assert (order.status, order.currency, order.total, order.counted) == ("paid", "MXN", 9990, True)
    assert (order.coupon_code, order.attributes, order.customer_id) == ("0012", {"gift": "sí"}, customer.id)
    assert [(x.number, x.sku, x.product, x.category, x.quantity, x.unit_price) for x in all_of(db, OrderLine)] == [
        (1, "A", "Taza", "hogar", "2", 4000),
        (2, "B", None, None, "1", 1990),
    ]
    stats = one(db, CustomerStats)
    assert (stats.orders_count, stats.total_spent, stats.last_order_id) == (1, 9990, order.id)
    assert stats.first_order_at == stats.last_order_at == order.placed_at
    assert [(m.month, m.orders, m.spent) for m in all_of(db, CustomerMonth)] == [(202606, 1, 9990)]
    assert {(f.kind, f.record_id, f.customer_id, f.at) for f in all_of(db, Fresh)} == {
        ("order.placed", order.id, customer.id, order.placed_at),
        ("order.paid", order.id, customer.id, order.paid_at),
        ("customer.last_order", customer.id, customer.id, order.placed_at),
    }
    assert (customer.external_id, customer.email_id, customer.created_at) == ("c1", None, None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"total": "1,234.50"}, "has a comma"),
        ({"total": "-5.00"}, "is negative"),
        ({"total": "$5"}, "is no amount"),
        ({"placed_at": "2026-02-30 10:00"}, "does not exist"),
        ({"placed_at": "2026-06-10 25:00"}, "does not exist"),
        ({"placed_at": "10/06/2026"}, "is no date and time"),
        ({"placed_at": "1969-12-31 10:00"}, "is before 1970"),
        ({"placed_at": "0001-01-01"}, "is before 1970"),
        ({"placed_at": "2026-06-17 00:00"}, "is after tomorrow, 2026-06-16"),
        ({"placed_at": ""}, "is missing"),
        ({"customer_id": ""}, "is missing"),
        ({"currency": "pesos"}, "is no currency"),
    ],
)
def test_an_order_that_cannot_be_right_is_rejected_and_the_rest_goes_in(
    db: Database, shop: Settings, change: dict[str, str], why: str
) -> None:
    bad = {**ORDER, "order_id": "bad", "currency": "MXN", **change}
    counts = feed(db, shop, orders=[{**ORDER, "currency": "MXN"}, bad, {**ORDER, "order_id": "o2", "currency": ""}])

    assert tally(counts, "orders") == (3, 2, 0, 0, 1)
    assert [order.external_id for order in all_of(db, Order)] == ["o1", "o2"]
    ((column, value),) = change.items()
    (found,) = rejects(counts)
    assert (found["line"], found["column"], found["value"]) == ("3", column, safe_cell(value))
    assert why in found["reason"]


def test_an_order_of_tomorrow_is_taken(db: Database, shop: Settings) -> None:
    assert feed(db, shop, orders=[{**ORDER, "placed_at": "2026-06-16 23:59:59"}]).orders.created == 1


def test_a_bad_optional_value_of_an_order_is_refused_alone(db: Database, shop: Settings) -> None:
    row = {**ORDER, "delivered_at": "2026-06-31", "sku": "A", "quantity": "two", "unit_price": "1,5"}
    counts = feed(db, shop, orders=[row])

    assert tally(counts, "orders") == (1, 1, 0, 0, 0)
    assert {r["column"] for r in rejects(counts)} == {"delivered_at", "quantity", "unit_price"}
    assert one(db, Order).delivered_at is None
    assert one(db, OrderLine).sku == "A"


def test_what_was_refused_is_kept_for_three_months_and_then_deleted_with_its_file(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 2)
    wrong = [{**ORDER, "order_id": f"o{n}", "total": "-1"} for n in range(5)]
    first = feed(db, shop, orders=wrong)
    second = feed(db, shop, NOW + 20 * DAY, orders=wrong[:3])

    feed(db, shop, NOW + 90 * DAY, orders=[ORDER])
    assert {row.import_id for row in all_of(db, Reject)} == {1, 2}
    feed(db, shop, NOW + 91 * DAY, orders=[ORDER])

    assert {row.import_id for row in all_of(db, Reject)} == {2}
    assert not Path(str(first.rejects_file)).exists()
    assert len(rejects(second)) == 3
    feed(db, shop, NOW + 111 * DAY, orders=[ORDER])
    assert all_of(db, Reject) == []
    assert list((shop.workspace / "rejects").iterdir()) == []


def test_a_new_database_in_an_old_workspace_does_not_write_on_in_its_rejects_files(
    db: Database, shop: Settings
) -> None:
    (shop.workspace / "rejects").mkdir()
    (shop.workspace / "rejects" / "import-1.csv").write_text("of another database\n")

    counts = feed(db, shop, orders=[{**ORDER, "total": "-1"}])

    assert [row["column"] for row in rejects(counts)] == ["total"]


def test_a_refused_value_is_taken_once_it_can_be_used(db: Database, shop: Settings) -> None:
    rows = [{**ORDER, "delivered_at": "2026-06-20 12:00"}]
    first = feed(db, shop, orders=rows)
    same = feed(db, shop, orders=rows)
    later = feed(db, shop, NOW + 5 * DAY, orders=rows)

    assert tally(first, "orders") == (1, 1, 0, 0, 0)
    assert tally(same, "orders") == (1, 0, 0, 1, 0)
    assert tally(later, "orders") == (1, 0, 1, 0, 0)
    assert later.rejects_file is None
    assert one(db, Order).delivered_at == local(2026, 6, 20, 12)


def test_rows_of_one_order_that_stand_apart_are_still_its_lines(db: Database, shop: Settings) -> None:
    rows = [
        {**ORDER, "sku": "A"},
        {**ORDER, "order_id": "o2", "sku": "X"},
        {"order_id": "o1", "sku": "B"},  # as Shopify writes further lines
        {**ORDER, "order_id": "o2", "sku": "Y"},
    ]
    counts = feed(db, shop, orders=rows)
    again = feed(db, shop, orders=rows)
    names = {order.id: order.external_id for order in all_of(db, Order)}

    assert tally(counts, "orders") == (2, 2, 0, 0, 0)
    assert tally(again, "orders") == (2, 0, 0, 2, 0)
    assert sorted((names[line.order_id], line.number, line.sku) for line in all_of(db, OrderLine)) == [
        ("o1", 1, "A"), ("o1", 2, "B"), ("o2", 1, "X"), ("o2", 2, "Y"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({"total": "0"}, False),
        ({"status": "cancelled"}, False),
        ({"status": "Cancelada"}, False),
        ({"status": "refunded"}, True),
        ({"cancelled_at": "2026-06-12"}, False),
        ({"status": "delivered"}, True),
        ({"refunded_at": "2026-06-12"}, True),  # DESIGN 7: only cancelled ones and those of no amount do not count
    ],
)
def test_an_order_counts_unless_cancelled_or_nothing(
    db: Database, shop: Settings, change: dict[str, str], counted: bool
) -> None:
    feed(db, shop, orders=[{**ORDER, **change}])

    assert one(db, Order).counted is counted
    assert [stats.orders_count for stats in all_of(db, CustomerStats)] == [1] * counted


def test_an_order_whose_lines_name_two_customers_is_refused_with_the_line_and_the_others_go_in(
    db: Database, shop: Settings
) -> None:
    rows = [
        {**ORDER, "sku": "A"},
        {**ORDER, "order_id": "o2", "sku": "A"},
        {**ORDER, "order_id": "o2", "customer_id": "c2", "sku": "B"},
        {**ORDER, "order_id": "o3", "sku": "A"},
        {**ORDER, "order_id": "o3", "customer_id": "", "sku": "B"},
    ]
    counts = feed(db, shop, orders=rows)

    assert sorted(row.external_id for row in all_of(db, Order)) == ["o1", "o3"]
    (refusal,) = rejects(counts)
    assert (refusal["line"], refusal["column"], refusal["value"]) == ("4", "customer_id", "c2")
    assert "an order has one" in refusal["reason"]


def test_a_file_without_totals_takes_them_from_the_lines(db: Database, shop: Settings) -> None:
    bare = {name: ORDER[name] for name in ("order_id", "customer_id", "placed_at")}
    rows = [{**bare, "quantity": "3", "unit_price": "1.50"}, {**bare, "quantity": "", "unit_price": "2.25"}]
    feed(db, shop, orders=rows)

    assert one(db, Order).total == 675


def test_amounts_are_in_the_minor_unit_of_their_own_currency(db: Database, shop: Settings) -> None:
    rows = [
        {**ORDER, "currency": "MXN", "total": "10.5"},
        {**ORDER, "order_id": "o2", "currency": "clp", "total": "1500"},
        {**ORDER, "order_id": "o3", "currency": "USD", "total": "10.125"},
    ]
    feed(db, shop, orders=rows)

    assert {o.external_id: (o.currency, o.total) for o in all_of(db, Order)} == {
        "o1": ("MXN", 1050), "o2": ("CLP", 1500), "o3": ("USD", 1013),
    }  # fmt: skip
    assert (one(db, CustomerStats).orders_count, one(db, CustomerStats).total_spent) == (3, 1050)


def test_the_month_is_that_of_the_business_s_clock(db: Database, shop: Settings) -> None:
    rows = [
        {**ORDER, "placed_at": "2026-06-01T05:59:59Z"},  # 31 May, 23:59:59 in Mexico City
        {**ORDER, "order_id": "o2", "placed_at": "2026-06-01T06:00:00Z"},
        {**ORDER, "order_id": "o3", "placed_at": "2026-05-31 23:59:59.5"},
    ]
    feed(db, shop, orders=rows)

    assert [(m.month, m.orders) for m in all_of(db, CustomerMonth)] == [(202605, 2), (202606, 1)]


def test_an_edited_a_cancelled_and_a_moved_order_recount_their_customers(db: Database, shop: Settings) -> None:
    rows = [ORDER, {**ORDER, "order_id": "o2", "placed_at": "2026-06-12 10:00"}]
    feed(db, shop, orders=rows)
    feed(db, shop, orders=[{**rows[1], "cancelled_at": "2026-06-13"}])
    after_cancel = [(s.orders_count, s.last_order_at) for s in all_of(db, CustomerStats)]
    feed(db, shop, orders=[{**ORDER, "customer_id": "c2", "total": "5"}])
    names = {customer.id: customer.external_id for customer in all_of(db, Customer)}

    assert after_cancel == [(1, local(2026, 6, 10, 10, 30))]
    assert [(names[s.customer_id], s.orders_count, s.total_spent) for s in all_of(db, CustomerStats)] == [
        ("c2", 1, 500)
    ]
    assert [(names[m.customer_id], m.orders, m.spent) for m in all_of(db, CustomerMonth)] == [("c2", 1, 500)]


def kinds(db: Database, since: int = 0) -> list[tuple[str, datetime | None]]:
    return [(f.kind, f.at) for f in all_of(db, Fresh) if f.id > since]


def newest(db: Database) -> int:
    return max((f.id for f in all_of(db, Fresh)), default=0)


def test_a_time_set_late_changed_or_cleared_is_fresh(db: Database, shop: Settings) -> None:
    row = {**ORDER, "delivered_at": ""}
    feed(db, shop, orders=[row])
    before = newest(db)
    feed(db, shop, orders=[{**row, "delivered_at": "2026-06-12"}])
    feed(db, shop, orders=[{**row, "delivered_at": "2026-06-13"}])
    feed(db, shop, orders=[row])

    assert kinds(db, before) == [
        ("order.delivered", local(2026, 6, 12)),
        ("order.delivered", local(2026, 6, 13)),
        ("order.delivered", None),
    ]


def test_what_lies_before_the_longest_look_back_is_not_fresh(db: Database, shop: Settings) -> None:
    with store.write(db) as connection:
        connection.execute(update(Installation).values(look_back=10))
    old, recent = NOW - 11 * DAY, NOW - 9 * DAY
    rows = [
        {**ORDER, "placed_at": old.isoformat()},
        {**ORDER, "order_id": "o2", "customer_id": "c2", "placed_at": recent.isoformat()},
    ]
    feed(db, shop, orders=rows)

    assert {(kind, at) for kind, at in kinds(db)} == {("order.placed", recent), ("customer.last_order", recent)}


def test_a_cancelled_last_order_takes_the_last_order_back(db: Database, shop: Settings) -> None:
    rows = [ORDER, {**ORDER, "order_id": "o2", "placed_at": "2026-06-12 10:00", "status": "paid"}]
    feed(db, shop, orders=rows)
    before = newest(db)
    feed(db, shop, orders=[{**rows[1], "status": "cancelled"}])
    feed(db, shop, orders=[{**ORDER, "total": "0"}])

    assert kinds(db, before) == [("customer.last_order", local(2026, 6, 10, 10, 30)), ("customer.last_order", None)]


def test_an_older_order_that_arrives_late_leaves_the_last_order(db: Database, shop: Settings) -> None:
    feed(db, shop, orders=[ORDER])
    before = newest(db)
    feed(db, shop, orders=[{**ORDER, "order_id": "o0", "placed_at": "2026-06-09"}])
    stats = one(db, CustomerStats)

    assert kinds(db, before) == [("order.placed", local(2026, 6, 9))]
    assert (stats.orders_count, stats.first_order_at, stats.last_order_at) == (
        2,
        local(2026, 6, 9),
        local(2026, 6, 10, 10, 30),
    )


ESTIMATES = OrderEstimates(delivered=("shipped", Duration(days=5)), shipped=("paid", Duration(days=2)))


def test_missing_dates_are_estimated_until_real_ones_come(db: Database, shop: Settings) -> None:
    shop = replace(shop, orders=ESTIMATES)
    row = {**ORDER, "paid_at": "2026-06-01 10:00", "shipped_at": "", "delivered_at": ""}
    seen = []
    for change in (
        {},
        {"shipped_at": "2026-06-05 09:00"},
        {"delivered_at": "2026-06-06"},
        {"cancelled_at": "2026-06-07"},
    ):
        row |= change
        feed(db, shop, orders=[row])
        seen.append((one(db, Order).shipped_at, one(db, Order).delivered_at))
    row |= {"shipped_at": "", "delivered_at": ""}
    feed(db, shop, orders=[row])

    assert seen[:3] == [
        (local(2026, 6, 3, 10), local(2026, 6, 8, 10)),
        (local(2026, 6, 5, 9), local(2026, 6, 10, 9)),
        (local(2026, 6, 5, 9), local(2026, 6, 6)),
    ]
    assert (one(db, Order).shipped_at, one(db, Order).delivered_at) == (None, None)


def test_an_estimate_moves_with_its_base_where_the_file_has_no_such_column(db: Database, shop: Settings) -> None:
    shop = replace(shop, orders=ESTIMATES)
    for paid in ("2026-06-01 10:00", "2026-06-02 10:00"):
        feed(db, shop, orders=[{**ORDER, "paid_at": paid}])

    assert (one(db, Order).shipped_at, one(db, Order).delivered_at) == (local(2026, 6, 4, 10), local(2026, 6, 9, 10))


def test_estimates_are_made_for_what_is_already_imported_once_the_settings_ask(db: Database, shop: Settings) -> None:
    rows = [{**ORDER, "paid_at": "2026-06-01 10:00"}]
    feed(db, shop, orders=rows)
    counts = feed(db, replace(shop, orders=ESTIMATES), orders=rows)

    assert tally(counts, "orders") == (1, 0, 1, 0, 0)
    assert one(db, Order).delivered_at == local(2026, 6, 8, 10)


def test_a_business_that_moves_to_another_zone_has_its_months_counted_anew(db: Database, shop: Settings) -> None:
    feed(db, shop, orders=[{**ORDER, "placed_at": "2026-06-01T05:59:59Z"}])
    moved = replace(shop, business=replace(shop.business, timezone="UTC"))
    importer.import_source(db, moved, CsvSource({}), NOW)

    assert [m.month for m in all_of(db, CustomerMonth)] == [202606]
    assert one(db, Installation).timezone == "UTC"


def test_more_orders_than_a_window_or_a_transaction_go_in(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.importer.orders.WINDOW", 1_500)
    monkeypatch.setattr("outreach.importer.orders.ORDERS", 200)
    rows = [{**ORDER, "order_id": f"o{n}", "customer_id": f"c{n % 7}", "total": str(n)} for n in range(2_500)]
    seen: list[tuple[str, int, int, int]] = []
    path = write(shop.workspace, "orders", rows)
    counts = importer.import_source(db, shop, CsvSource({"orders": path}), NOW, progress=lambda *at: seen.append(at))

    assert tally(counts, "orders") == (2500, 2500, 0, 0, 0)
    assert sum(s.total_spent for s in all_of(db, CustomerStats)) == 100 * sum(range(2_500))
    assert [at[0] for at in seen] == ["orders"] * len(seen)
    assert seen[-1][1:] == (2500, path.stat().st_size, path.stat().st_size)


# --- cases, events, suppressions -----------------------------------------------------------------

CASE = {
    "case_id": "k1",
    "customer_id": "c1",
    "kind": "return",
    "opened_at": "2026-06-10",
    "closed_at": "",
    "order_id": "o1",
}


def test_a_case_goes_in_and_its_times_are_fresh(db: Database, shop: Settings) -> None:
    feed(db, shop, orders=[ORDER], cases=[{**CASE, "note": "roto", "outcome": "", "agent": "Eva"}])
    before = newest(db)
    feed(db, shop, cases=[{**CASE, "closed_at": "2026-06-11", "outcome": "resolved"}])
    case = one(db, Case)
    reopened = feed(db, shop, cases=[CASE])

    assert (case.kind, case.order_id, case.note, case.outcome) == ("return", one(db, Order).id, "roto", "resolved")
    assert case.attributes == {"agent": "Eva"}
    assert kinds(db, before) == [("case.closed", local(2026, 6, 11)), ("case.closed", None)]
    assert tally(reopened, "cases") == (1, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [({"kind": "anger"}, "complaint, cancellation"), ({"kind": ""}, "is missing"), ({"opened_at": "x"}, "no date")],
)
def test_a_case_that_cannot_be_right_is_rejected(
    db: Database, shop: Settings, change: dict[str, str], why: str
) -> None:
    counts = feed(db, shop, orders=[ORDER], cases=[{**CASE, **change}])

    assert tally(counts, "cases") == (1, 0, 0, 0, 1)
    assert any(why in r["reason"] for r in rejects(counts))


def test_a_case_whose_order_comes_later_finds_it_then(db: Database, shop: Settings) -> None:
    first = feed(db, shop, cases=[CASE])
    second = feed(db, shop, orders=[ORDER], cases=[CASE])

    assert [r["reason"] for r in rejects(first)] == ["is no order that has been imported"]
    assert tally(second, "cases") == (1, 0, 1, 0, 0)
    assert one(db, Case).order_id == one(db, Order).id


def test_a_declared_event_goes_in_with_its_fields_and_another_is_rejected(db: Database, shop: Settings) -> None:
    event = {
        "event_id": "e1",
        "customer_id": "c1",
        "name": "cart.abandoned",
        "at": "2026-06-14 12:00",
        "url": "https://x.example",
    }
    counts = feed(db, shop, events=[event, {**event, "event_id": "e2", "name": "cart.abandonned"}])
    found = one(db, ShopEvent)

    assert tally(counts, "events") == (2, 1, 0, 0, 1)
    assert (found.name, found.at, found.attributes) == (
        "cart.abandoned",
        local(2026, 6, 14, 12),
        {"url": "https://x.example"},
    )
    assert kinds(db) == [("event.cart.abandoned", found.at)]
    assert "use cart.abandoned" in rejects(counts)[0]["reason"]


def test_of_two_rows_of_one_case_the_last_that_can_be_used_wins(db: Database, shop: Settings) -> None:
    rows = [{**CASE, "note": "a"}, {**CASE, "note": "b"}, {**CASE, "note": "c", "kind": "anger"}]
    counts = feed(db, shop, orders=[ORDER], cases=rows)
    again = feed(db, shop, cases=rows)

    assert one(db, Case).note == "b"
    assert tally(counts, "cases") == (3, 1, 1, 0, 1)
    assert tally(again, "cases") == (3, 0, 0, 2, 1)


def test_a_list_of_suppressions_is_kept_as_hashes_in_the_scope_asked_for(db: Database, shop: Settings) -> None:
    path = write(shop.workspace, "stop", "numero\n55 1234 5678\nANA@example.com\n+525512345678\nx\n")
    counts = importer.import_source(db, shop, CsvSource({"suppressions": path}), NOW)
    again = importer.import_source(db, shop, CsvSource({"suppressions": path}), NOW)
    wider = importer.import_source(db, shop, CsvSource({"suppressions": path}, suppression_scope="address"), NOW)

    assert tally(counts, "suppressions") == (4, 2, 0, 1, 1)
    assert tally(again, "suppressions") == (4, 0, 0, 3, 1)
    assert tally(wider, "suppressions") == (4, 2, 0, 1, 1)
    assert {(s.kind, s.address_hash, s.scope) for s in all_of(db, Suppression)} == {
        (kind, store.address_hash(db.secret, kind, address), scope)
        for kind, address in (("phone", "+525512345678"), ("email", "ana@example.com"))
        for scope in ("marketing", "address")
    }


def test_an_unknown_scope_is_refused_before_anything_is_written(db: Database, shop: Settings) -> None:
    path = write(shop.workspace, "stop", "ana@example.com\n")

    with pytest.raises(ImportFileError, match="the scope 'all' is unknown: use marketing, contact, address"):
        importer.import_source(db, shop, CsvSource({"suppressions": path}, suppression_scope="all"), NOW)

    assert all_of(db, Suppression) == []
    assert all_of(db, Import) == []


# --- reach ---------------------------------------------------------------------------------------


def test_the_reach_says_how_many_and_why_not_the_others(db: Database, shop: Settings) -> None:
    people = [
        {"customer_id": "granted", "email": "a@example.com", "email_consent": "yes"},
        {"customer_id": "listed", "email": "b@example.com", "email_consent": "yes"},
        {"customer_id": "refused", "email": "c@example.com", "email_consent": "no"},
        {"customer_id": "silent", "email": "d@example.com"},
        {"customer_id": "bounced", "email": "e@example.com", "email_consent": "yes"},
        {"customer_id": "nobody"},
    ]
    feed(db, shop, customers=people, suppressions="b@example.com\n")
    path = write(shop.workspace, "bounces", "e@example.com\n")
    importer.import_source(db, shop, CsvSource({"suppressions": path}, suppression_scope="address"), NOW)
    found = {(r.channel, r.purpose): r for r in importer.reach(db, shop)}

    assert [found["email", purpose].reachable for purpose in ("transactional", "service", "marketing")] == [4, 3, 1]
    assert str(found["email", "marketing"]) == (
        "E-mail marketing: 1 of 6, 1 no e-mail address, 2 on a do-not-contact list, 1 opted out, 1 no consent recorded"
    )
    assert str(found["whatsapp", "marketing"]) == "WhatsApp marketing: 0 of 6, no phone number"
    assert ("call", "marketing") not in found


def test_an_empty_shop_reaches_nobody(db: Database, shop: Settings) -> None:
    assert {str(r) for r in importer.reach(db, shop) if r.channel == "sms"} == {
        "SMS transactional: 0 of 0", "SMS service: 0 of 0", "SMS marketing: 0 of 0",
    }  # fmt: skip


# --- the whole -----------------------------------------------------------------------------------


def test_the_counts_are_exactly_what_import_json_promises(db: Database, shop: Settings) -> None:
    five = {"read": 0, "created": 0, "updated": 0, "unchanged": 0, "rejected": 0}
    counts = feed(db, shop, customers=[{"customer_id": "c1"}])

    assert counts.as_json() == {
        "customers": {**five, "read": 1, "created": 1}, "orders": five, "cases": five, "events": five,
        "suppressions": five, "rejects_file": None,
    }  # fmt: skip
    assert json.loads(json.dumps(one(db, Import).counts)) == counts.as_json()
    assert one(db, Import).finished_at == NOW


def test_nothing_is_written_when_one_file_cannot_be_read(db: Database, shop: Settings) -> None:
    with pytest.raises(ImportFileError, match="the column order_id is missing"):
        feed(db, shop, customers=[ANA], orders=[{"customer_id": "c1"}])

    assert all_of(db, Customer) == []
    assert all_of(db, Import) == []


def test_cells_that_a_spreadsheet_takes_for_formulas_are_made_harmless(db: Database, shop: Settings) -> None:
    for value in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        assert safe_cell(value) == f"'{value}"
    counts = feed(db, shop, orders=[{**ORDER, "total": "=HYPERLINK(1)"}])

    assert rejects(counts)[0]["value"] == "'=HYPERLINK(1)"


def test_no_address_is_in_an_error_text(db: Database, shop: Settings) -> None:
    db.engine.dispose()
    with store.write(db) as connection:
        connection.exec_driver_sql("DROP TABLE consents")

    with pytest.raises(Exception) as error:  # noqa: PT011
        feed(db, shop, customers=say("yes"))

    assert "ana@example.com" not in str(error.value)


def test_a_gzip_file_of_windows_1252_with_semicolons_goes_in(db: Database, shop: Settings) -> None:
    path = shop.workspace / "clientes.csv.gz"
    path.write_bytes(gzip.compress("customer_id;city\nc1;Mérida\n".encode("cp1252")))
    importer.import_source(db, shop, CsvSource({"customers": path}), NOW)

    assert one(db, Customer).city == "Mérida"


def test_an_import_cut_off_anywhere_is_finished_by_the_next(
    db: Database, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outreach.importer.orders.ORDERS", 10)
    rows = [{**ORDER, "order_id": f"o{n}", "customer_id": f"c{n % 3}"} for n in range(100)]
    path = write(shop.workspace, "orders", rows)
    transactions = 0

    def cut(connection: Any, changes: Any) -> None:
        nonlocal transactions
        transactions += 1
        if transactions == 5:
            raise DatabaseError("the disk is full")
        written(connection, changes)

    written = write_fresh
    with monkeypatch.context() as patched:
        patched.setattr("outreach.importer.orders.write_fresh", cut)
        with pytest.raises(DatabaseError):
            importer.import_source(db, shop, CsvSource({"orders": path}), NOW)
    assert len(all_of(db, Order)) == 40
    assert recounted(db) == kept(db)

    counts = importer.import_source(db, shop, CsvSource({"orders": path}), NOW)

    assert tally(counts, "orders") == (100, 60, 0, 40, 0)
    assert recounted(db) == kept(db)


# --- properties ----------------------------------------------------------------------------------

KEPT = (
    Customer, Contact, CustomerTag, CustomerDate, CustomerStats, CustomerMonth, Order, OrderLine, Case, ShopEvent,
    Consent, Suppression, Fresh, Installation,
)  # fmt: skip


def dump(db: Database) -> dict[str, list[Any]]:
    return {model.__tablename__: [tuple(row) for row in all_of(db, model)] for model in KEPT}


def recounted(db: Database) -> tuple[Any, Any]:
    """Stats and months by a plain pass over the orders."""
    stats: dict[int, list[Any]] = {}
    months: dict[tuple[int, int], list[int]] = {}
    orders = sorted((o for o in all_of(db, Order) if o.counted), key=lambda o: (o.placed_at, o.id))
    for order in orders:
        spent = order.total if order.currency == "MXN" else 0
        at = order.placed_at.astimezone(ZoneInfo(ZONE))
        of = stats.setdefault(order.customer_id, [0, 0, order.placed_at, None, None])
        of[:] = [of[0] + 1, of[1] + spent, of[2], order.placed_at, order.id]
        month = months.setdefault((order.customer_id, at.year * 100 + at.month), [0, 0])
        month[:] = [month[0] + 1, month[1] + spent]
    return stats, months


def kept(db: Database) -> tuple[Any, Any]:
    stats = {
        s.customer_id: [s.orders_count, s.total_spent, s.first_order_at, s.last_order_at, s.last_order_id]
        for s in all_of(db, CustomerStats)
    }
    return stats, {(m.customer_id, m.month): [m.orders, m.spent] for m in all_of(db, CustomerMonth)}


def cell(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


TIMES = cell(
    "2026-06-01 10:00",
    "2026-05-31 23:30",
    "2026-06-14T08:00:00Z",
    "2025-11-02 01:30",
    "2026-06-10",
    "",
    "never",
    "2030-01-01",
)
CUSTOMERS = st.lists(
    st.fixed_dictionaries({
        "customer_id": cell("c1", "c2", "c3", ""),
        "email": cell("a@example.com", "b@example.com", "email@noinformado.com", ""),
        "phone": cell("+525512345678", "5,43517E+11", "55 8765 4321", ""),
        "city": cell("León", "Puebla", " "),
        "birthday": cell("1990-02-28", "1988-02-29", "1990-02-30", ""),
        "created_at": TIMES,
        "tags": cell("vip", "vip,new", ""),
        "email_consent": cell("yes", "no", "", "maybe"),
        "sms_consent": cell("yes", "no", ""),
        "consent_at": cell("", "2026-01-01", "2026-06-14"),
        "until": cell("2026-12-31", "soon", ""),
    }),
    max_size=6,
)  # fmt: skip
ORDERS = st.lists(
    st.fixed_dictionaries({
        "order_id": cell("o1", "o2", "o3", "o4", ""),
        "customer_id": cell("c1", "c2", "c9", "c9", ""),
        "placed_at": cell("2026-06-01 10:00", "2026-05-31 23:30", "2026-06-14T08:00:00Z", "2025-11-02 01:30", "2026-06-31"),
        "status": cell("paid", "cancelled", ""),
        "delivered_at": TIMES,
        "cancelled_at": cell("", "", "2026-06-13"),
        "currency": cell("", "MXN", "USD", "pesos"),
        "total": cell("10.00", "0", "", "1,5", "99.999", "-1"),
        "sku": cell("A", "B", ""),
        "quantity": cell("1", "2.5", "x"),
        "unit_price": cell("5.00", "", "1,5"),
        "gift": cell("yes", ""),
    }),
    max_size=8,
)  # fmt: skip
CASES = st.lists(
    st.fixed_dictionaries({
        "case_id": cell("k1", "k2"), "customer_id": cell("c1", "c8"), "kind": cell("return", "anger"),
        "opened_at": TIMES, "closed_at": TIMES, "order_id": cell("o1", "o9", ""),
    }),
    max_size=3,
)  # fmt: skip
EVENTS = st.lists(
    st.fixed_dictionaries({"event_id": cell("e1", "e2"), "customer_id": cell("c1", "c7"), "name": cell("cart.abandoned", "x"), "at": TIMES}),
    max_size=3,
)  # fmt: skip
SHOPS = st.fixed_dictionaries({"customers": CUSTOMERS, "orders": ORDERS, "cases": CASES, "events": EVENTS})
COLUMNS = {
    "customers": "customer_id", "orders": "order_id,customer_id,placed_at", "cases": "case_id,customer_id,kind,opened_at",
    "events": "event_id,customer_id,name,at",
}  # fmt: skip

slow = hypothesis_settings(
    max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def clear(db: Database) -> None:
    with store.write(db) as connection:
        for model in (*KEPT[:-1], Reject, Import):
            connection.execute(table(model).delete())


def put(db: Database, shop: Settings, generated: Mapping[str, Any], now: datetime) -> ImportCounts:
    tables = {name: rows or COLUMNS[name] + "\n" for name, rows in generated.items()}
    return feed(db, shop, now, suppressions="55 1234 5678\nb@example.com\n", **tables)


@slow
@given(generated=SHOPS)
def test_importing_the_same_files_twice_changes_nothing_the_second_time(
    db: Database, shop: Settings, generated: dict[str, Any]
) -> None:
    clear(db)
    first = put(db, shop, generated, NOW)
    before = dump(db)
    second = put(db, shop, generated, NOW + timedelta(hours=1))

    assert dump(db) == before
    for name in ("customers", "orders", "cases", "events", "suppressions"):
        read, created, updated, unchanged, rejected = tally(second, name)
        assert (created, updated) == (0, 0)
        assert (read, rejected) == (tally(first, name)[0], tally(first, name)[4])
        assert read == unchanged + rejected
        assert tally(first, name)[0] == sum(tally(first, name)[1:])


def orders_of_one(*days: str) -> dict[str, Any]:
    """A shop in whose file the orders of one customer stand in this order."""
    rows = [{"order_id": f"o{n}", "customer_id": "c1", "placed_at": day, "total": "10"} for n, day in enumerate(days)]
    return {"customers": [], "orders": rows, "cases": [], "events": []}


@slow
@given(shops=st.lists(SHOPS, min_size=2, max_size=4))
@example(shops=[orders_of_one("2026-06-02", "2026-05-31", "2026-06-01", "2026-06-02")])
def test_stats_and_months_always_equal_a_recount_of_the_orders(
    db: Database, shop: Settings, shops: list[dict[str, Any]]
) -> None:
    clear(db)
    for day, generated in enumerate(shops):
        put(db, shop, generated, NOW + day * DAY)

        assert kept(db) == recounted(db)


@slow
@given(shops=st.lists(SHOPS, min_size=2, max_size=3))
def test_every_event_time_of_late_is_in_the_queue_as_it_last_was(
    db: Database, shop: Settings, shops: list[dict[str, Any]]
) -> None:
    clear(db)
    for day, generated in enumerate(shops):
        put(db, shop, generated, NOW + day * DAY)
    look_back = to_micros(NOW - 50 * DAY)
    last = {(f.kind, f.record_id): f.at for f in all_of(db, Fresh)}

    for order in all_of(db, Order):
        for name in ("placed", "delivered", "cancelled"):
            at = getattr(order, f"{name}_at")
            if at is not None and to_micros(at) > look_back:
                assert last[f"order.{name}", order.id] == at
            elif at is None:
                was = last.get((f"order.{name}", order.id))  # moved out of reach before it was cleared: no news
                assert was is None or to_micros(was) <= look_back
    for stats in all_of(db, CustomerStats):
        if to_micros(stats.last_order_at) > look_back:
            assert last["customer.last_order", stats.customer_id] == stats.last_order_at


@slow
@given(shops=st.lists(SHOPS, min_size=1, max_size=3), day=st.integers(0, 3))
def test_no_file_undoes_a_recipients_own_opt_out_without_a_later_date(
    db: Database, shop: Settings, shops: list[dict[str, Any]], day: int
) -> None:
    clear(db)
    feed(db, shop, customers=say("yes"))
    opted_out = NOW + timedelta(hours=day)
    opt_out(db, opted_out)
    for n, generated in enumerate(shops, 1):
        put(db, shop, generated, NOW + n * DAY)

    contact = next(c.id for c in all_of(db, Contact) if c.address == "a@example.com" or c.address == "ana@example.com")
    lines = [c for c in all_of(db, Consent) if c.contact_id == contact and c.channel == "email"]
    latest = max(lines, key=lambda line: (line.at, line.status == "revoked"))
    assert latest.status == "revoked" or latest.at > opted_out
