"""What a customers' file cannot undo or spoil: stored values by refused cells, a person's no, somebody's erasure."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import customers, store
from outreach.inbox import opting
from outreach.models import Consent, Contact, Customer
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, order, rows_of, shop_settings

DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def whole(db: Database, name: str = "c1") -> dict[str, Any]:
    """The customer's row, with addresses."""
    (row,) = rows_of(db, Customer, external_id=name)
    addresses = {one.id: one.address for one in rows_of(db, Contact)}
    kinds = {kind: addresses.get(getattr(row, f"{kind}_id")) for kind in ("email", "phone", "messenger")}
    return {**row._asdict(), **kinds}


def in_force(db: Database, address: str) -> dict[str, str]:
    """By channel: what the ledger says of an address."""
    (contact,) = [one.id for one in rows_of(db, Contact) if one.address == address]
    lines = sorted(rows_of(db, Consent, contact_id=contact), key=lambda one: (one.at, one.status == "revoked"))
    return {line.channel: line.status for line in lines}


@pytest.mark.parametrize(
    ("column", "cell", "kept"),
    [
        ("phone", "5,25541E+11", "phone"),
        ("email", "ana@", "email"),
        ("birthday", "31/02", "birthday"),
        ("country", "Atlantis", "country"),
        ("created_at", "soon", "created_at"),
        ("timezone", "Mexico", "timezone"),
    ],
)
def test_a_cell_that_is_refused_leaves_what_is_stored_and_an_empty_one_clears_it(
    db: Database, settings: Settings, column: str, cell: str, kept: str
) -> None:
    row = customer(
        1, country="MX", birthday="1990-05-05", timezone="America/Tijuana", created_at="2020-01-01T00:00:00Z"
    )
    feed(db, settings, NOW, customers=[row])
    before = whole(db)

    feed(db, settings, NOW + DAY, customers=[row | {column: cell}])
    assert whole(db)[kept] == before[kept] is not None
    again = feed(db, settings, NOW + 2 * DAY, customers=[row | {column: cell}])
    assert again.customers.unchanged == 1

    feed(db, settings, NOW + 3 * DAY, customers=[row | {column: ""}])
    assert whole(db)[kept] is None


def test_a_consent_whose_date_cannot_be_read_grants_nothing_and_still_revokes(db: Database, settings: Settings) -> None:
    row = customer(1, consent_at="yesterday", sms_consent="no", whatsapp_consent="")

    feed(db, settings, NOW, customers=[row])

    (said,) = rows_of(db, Consent)
    assert (said.channel, said.status) == ("sms", "revoked")


def opted_out(db: Database, address: str) -> None:
    (contact,) = [one.id for one in rows_of(db, Contact) if one.address == address]
    with store.write(db) as connection:
        said = opting.Said(contact, "email", False, NOW + DAY, "page", "baja", by="recipient", everywhere=True)
        opting.write(connection, [said], NOW + DAY)


@pytest.mark.parametrize("dated", ["2020-01-01T00:00:00Z", ""])
def test_an_opt_out_goes_with_the_customer_to_a_new_address(db: Database, settings: Settings, dated: str) -> None:
    row = customer(1, consent_at=dated)
    feed(db, settings, NOW, customers=[row])
    opted_out(db, "c1@example.com")
    moved = row | {"email": "ana.nueva@example.com"}

    feed(db, settings, NOW + 2 * DAY, customers=[moved])
    feed(db, settings, NOW + 3 * DAY, customers=[moved | {"city": "Puebla"}])

    assert in_force(db, "ana.nueva@example.com") == {"email": "revoked"}
    asked = (NOW + 4 * DAY).isoformat()
    feed(db, settings, NOW + 5 * DAY, customers=[moved | {"consent_at": asked}])
    assert in_force(db, "ana.nueva@example.com") == {"email": "granted"}


@pytest.mark.parametrize("first", ["yes", "no"])
def test_of_two_customers_with_one_number_the_no_of_either_stands(db: Database, settings: Settings, first: str) -> None:
    shared = {"phone": "+525541000001", "email": "", "email_consent": "", "sms_consent": "", "consent_at": ""}
    yes = customer(1, **shared, city="X") | {"whatsapp_consent": "yes"}
    no = customer(2, **shared) | {"whatsapp_consent": "no"}
    feed(db, settings, NOW, customers=[yes, no] if first == "yes" else [no, yes])

    feed(db, settings, NOW + DAY, customers=[yes | {"city": "Y"}, no])
    feed(db, settings, NOW + 2 * DAY, customers=[yes | {"city": "Z"}, no])

    assert in_force(db, "+525541000001") == {"whatsapp": "revoked"}


def test_a_customer_with_a_number_of_their_own_may_change_their_mind_without_a_date(
    db: Database, settings: Settings
) -> None:
    row = customer(1, consent_at="", sms_consent="", email_consent="")
    for day, word in enumerate(("yes", "no", "yes")):
        feed(db, settings, NOW + day * DAY, customers=[row | {"whatsapp_consent": word}])

    assert in_force(db, row["phone"]) == {"whatsapp": "granted"}


def test_a_number_without_a_country_in_the_file_is_of_the_country_that_is_stored(
    db: Database, settings: Settings
) -> None:
    feed(db, settings, NOW, customers=[{"customer_id": "c1", "country": "CO"}, {"customer_id": "c2", "country": "PE"}])

    numbers = {"c1": "312 345 6789", "c2": "987 654 321", "c3": "55 4100 0001"}
    feed(db, settings, NOW, customers=[{"customer_id": name, "phone": number} for name, number in numbers.items()])

    assert [whole(db, name)["phone"] for name in numbers] == ["+573123456789", "+51987654321", "+525541000001"]


@pytest.mark.parametrize("name", ["c1", "ana@example.com", "+525541000001"])
def test_who_was_erased_does_not_come_back_by_a_file(db: Database, settings: Settings, name: str) -> None:
    row = customer(1) | {"customer_id": name, "last_name": "Pérez", "city": "Puebla", "tags": "vip"}
    row |= {"email": "ana@example.com"}
    feed(db, settings, NOW, customers=[row])
    customers.erase(db, settings, name, NOW)
    before = rows_of(db, Customer), [one.address for one in rows_of(db, Contact)]

    same = feed(db, settings, NOW + DAY, customers=[row])
    changed = feed(db, settings, NOW + DAY, customers=[row | {"tags": "vip,loyal"}], orders=[order(1, name, NOW - DAY)])

    assert (same.customers.unchanged, changed.customers.unchanged) == (1, 1)
    assert (rows_of(db, Customer), [one.address for one in rows_of(db, Contact)]) == before
