"""The sample shop: deterministic, plausible, wrong only where it means to be."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path

import phonenumbers
import pytest
from email_validator import validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from outreach.demo.market import CATALOGUE, COUNTRIES
from outreach.demo.shop import (
    COLUMNS,
    FILES,
    Shop,
    known,
    sample,
    write_shop,
    write_slice,
)

TODAY = date(2026, 6, 15)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return write_shop(tmp_path_factory.mktemp("shop"), today=TODAY)


@cache
def _small_shop() -> Shop:
    return sample(Path("nowhere"), today=TODAY, customers=150)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _good(shop: Shop, kind: str) -> list[dict[str, str]]:
    bad = {bad.row for bad in shop.bad}
    return [row for row in _rows(shop.files[kind]) if tuple(row.values()) not in bad]


def test_the_same_seed_and_day_write_the_same_bytes(tmp_path: Path, shop: Shop) -> None:
    again = write_shop(tmp_path / "again", today=TODAY)

    assert set(FILES) == set(again.files)
    for kind, path in again.files.items():
        assert shop.files[kind].read_bytes() == path.read_bytes()


def test_another_seed_writes_another_shop(tmp_path: Path) -> None:
    one, two = (write_shop(tmp_path / str(seed), today=TODAY, seed=seed, customers=50) for seed in (1, 2))

    assert one.files["orders"].read_bytes() != two.files["orders"].read_bytes()


def test_the_files_have_the_canonical_columns(shop: Shop) -> None:
    for kind, path in shop.files.items():
        with path.open(encoding="utf-8") as file:
            assert next(csv.reader(file)) == list(COLUMNS[kind])


def test_it_has_the_customers_asked_for_and_18_months_of_orders(shop: Shop) -> None:
    placed = sorted(row["placed_at"] for row in _good(shop, "orders"))

    assert len(shop.people) == 2000
    assert placed[0] < "2025-01-01"
    assert "2026-06-10" < placed[-1] < "2026-06-15"


def test_nothing_is_later_than_the_first_minute_of_today(shop: Shop) -> None:
    for kind in ("customers", "orders", "cases"):
        for row in _rows(shop.files[kind]):
            assert all(row[name] <= "2026-06-15 00:00:00" for name in row if name.endswith("_at"))


def test_an_order_is_paid_then_sent_then_delivered_or_else_cancelled(shop: Shop) -> None:
    for row in _good(shop, "orders"):
        times = [
            row[name] for name in ("placed_at", "paid_at", "shipped_at", "delivered_at", "refunded_at") if row[name]
        ]
        assert times == sorted(times)
        assert not row["cancelled_at"] or not row["shipped_at"]
        datetime.fromisoformat(row["placed_at"])


def test_a_delivery_takes_days_not_minutes_and_some_are_never_recorded(shop: Shop) -> None:
    rows = [row for row in _good(shop, "orders") if row["shipped_at"] and row["shipped_at"] < "2026-05-01"]
    days = [
        (datetime.fromisoformat(row["delivered_at"]) - datetime.fromisoformat(row["shipped_at"])).days
        for row in rows
        if row["delivered_at"]
    ]

    assert min(days) >= 0
    assert max(days) < 40
    assert 0.03 < sum(not row["delivered_at"] for row in rows) / len(rows) < 0.12


def test_each_country_pays_in_its_own_currency(shop: Shop) -> None:
    currency = {country.code: country.currency for country in COUNTRIES}
    country = {person.id: person.country.code for person in shop.people}

    assert {"MXN", "COP", "ARS", "EUR"} == set(currency.values())
    for row in _good(shop, "orders"):
        assert currency[country[row["customer_id"]]] == row["currency"]


def test_a_total_is_its_lines_less_the_welcome_coupon(shop: Shop) -> None:
    lines: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _good(shop, "orders"):
        lines[row["order_id"]].append(row)

    for rows in lines.values():
        goods = round(sum(int(row["quantity"]) * float(row["unit_price"]) for row in rows) * 100)
        expected = goods * 9 // 10 if rows[0]["coupon_code"] else goods
        assert round(float(rows[0]["total"]) * 100) in (expected, 0)
        assert {row["sku"] for row in rows} <= {product.sku for product in CATALOGUE}


def test_every_phone_is_valid_in_its_country_but_lies_in_a_block_nobody_is_given(shop: Shop) -> None:
    block = {country.code: country.phone for country in COUNTRIES}
    owner = {person.id: person.country.code for person in shop.people}
    written_at_home = 0
    for row in _good(shop, "customers"):
        if row["phone"]:
            number = phonenumbers.parse(row["phone"], row["country"] or None)
            e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
            assert phonenumbers.is_valid_number(number)
            assert e164.startswith(block[owner[row["customer_id"]]])
            written_at_home += not row["phone"].startswith("+")

    assert written_at_home > 50


def test_every_email_is_valid_and_at_example_com(shop: Shop) -> None:
    emails = [row["email"] for row in _good(shop, "customers") if row["email"]]

    assert len(emails) == len(set(emails))
    for email in emails[:300]:
        validate_email(email, check_deliverability=False)
    assert all(email.endswith("@example.com") for email in emails)


def test_consents_differ_by_person_and_some_are_revoked_later(shop: Shop) -> None:
    rows = _good(shop, "customers")
    names = ("email_consent", "sms_consent", "whatsapp_consent", "call_consent")
    silent = [row for row in rows if not any(row[name] for name in names)]

    assert 0.1 < len(silent) / len(rows) < 0.3
    assert all(not row["consent_at"] for row in silent)
    assert {"yes", "no", ""} == {row["whatsapp_consent"] for row in rows}
    assert sum(row["consent_at"] > row["created_at"] for row in rows) > 50


def test_names_have_accents_and_tildes(shop: Shop) -> None:
    names = "".join(row["first_name"] + row["last_name"] for row in _rows(shop.files["customers"]))

    assert set("áéíóúñüÁÍÓ") - {"ü"} <= set(names)


def test_monthly_retention_lies_where_small_shops_are(shop: Shop) -> None:
    months: dict[str, set[str]] = defaultdict(set)
    for row in _good(shop, "orders"):
        months[row["placed_at"][:7]].add(row["customer_id"])
    kept = [
        len(months[a] & months[b]) / len(months[a]) for a, b in zip(sorted(months), sorted(months)[1:-1], strict=False)
    ]

    assert min(kept) > 0.1
    assert max(kept) < 0.5


def test_most_customers_order_once_and_a_few_order_often(shop: Shop) -> None:
    orders = Counter(purchase.person.id for purchase in shop.purchases)
    counts = Counter(orders.values())

    assert counts[1] == max(counts.values())
    assert 0.3 < counts[1] / len(orders) < 0.7
    assert max(counts) >= 10


def test_cases_are_answered_and_closed_and_some_stay_open(shop: Shop) -> None:
    rows = _rows(shop.files["cases"])

    assert {"complaint", "return", "refund", "question", "cancellation"} == {row["kind"] for row in rows}
    assert 5 < sum(not row["closed_at"] for row in rows) < len(rows) / 4
    for row in rows:
        assert row["opened_at"] <= (row["answered_at"] or "9") <= (row["closed_at"] or "9")
        assert bool(row["closed_at"]) == bool(row["outcome"])


def test_the_bad_rows_stand_in_the_files(shop: Shop) -> None:
    assert {"5,43517E+11", "email@noinformado.com", "1.245,50", "2025-02-30 10:00:00"} <= {
        bad.value for bad in shop.bad
    }
    for bad in shop.bad:
        found = [row for row in _rows(shop.files[bad.kind]) if tuple(row.values()) == bad.row]
        assert [bad.value] == [row[bad.column] for row in found]
    ids = Counter(row["customer_id"] for row in _rows(shop.files["customers"]))
    assert [count for count in ids.values() if count > 1] == [2]


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 549), max_size=8, unique=True))
def test_slices_of_any_size_add_up_to_the_whole_files(cuts: list[int]) -> None:
    shop = _small_shop()
    moments = [shop.start + timedelta(days=days, hours=7) for days in sorted(cuts)]
    latest: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {kind: {} for kind in COLUMNS}
    since = None
    for until in [*moments, shop.end]:
        for kind, rows in known(shop, since, until).items():
            records: dict[str, list[tuple[str, ...]]] = defaultdict(list)
            for row in rows:
                records[row[0]].append(row)
            latest[kind] |= {key: tuple(lines) for key, lines in records.items()}
        since = until

    for kind, rows in known(shop, None, shop.end).items():
        ids = {bad.row[0] for bad in shop.bad}
        whole: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for row in rows:
            whole[row[0]].append(row)
        assert set(whole) == set(latest[kind])
        assert all(latest[kind][key] == tuple(lines) for key, lines in whole.items() if key not in ids)


def test_a_slice_holds_only_what_was_known_then(tmp_path: Path, shop: Shop) -> None:
    since, until = datetime.fromisoformat("2026-03-02 06:00:00"), datetime.fromisoformat("2026-03-03 06:00:00")
    files = write_slice(shop, tmp_path, since, until)

    assert {"orders", "customers"} <= set(files)
    for row in _rows(files["orders"]):
        times = [value for name, value in row.items() if name.endswith("_at") and value]
        assert since.isoformat(" ") < max(times) <= until.isoformat(" ")
        assert row["status"] != "delivered" or row["delivered_at"]


def test_a_slice_of_no_time_writes_no_file(tmp_path: Path, shop: Shop) -> None:
    assert write_slice(shop, tmp_path, shop.end, shop.end) == {}


def test_the_shop_never_tells_a_revocation_before_it_happened(shop: Shop) -> None:
    person = next(person for person in shop.people if person.revoked_at is not None)
    assert person.revoked_at is not None
    rows = known(shop, None, person.revoked_at - timedelta(seconds=1))["customers"]
    before = next(row for row in rows if row[0] == person.id)

    assert person.consents == before[14:18]
    assert "yes" in before[14:18]
