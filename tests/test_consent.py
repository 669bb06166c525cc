"""What a person allowed: shown, and changed in the append-only ledger."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from outreach import customers, inbox
from outreach.errors import NotFound
from outreach.models import Consent, Suppression
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, rows_of
from tests.test_inbox import LATER, PHONE, blocked, built, message, report, take, taken, written

SOON = LATER + timedelta(minutes=1)


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Settings:
    return built(db, tmp_path)


def status(found: customers.Consents) -> dict[str, str]:
    return {name: "unknown" if line is None else line.status for name, line in found.channels.items()}


def test_every_channel_of_the_shop_is_shown_with_what_was_said(db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, customers=[customer(8, whatsapp_consent="", email_consent="no", consent_source="till")])
    found = customers.consents(db, shop, "c8").as_json()

    assert found["customer"] == "c8"
    assert found["channels"] == {
        "email": {"status": "revoked", "at": "2020-01-01T00:00:00+00:00", "source": "till", "text": ""},
        "sms": {"status": "granted", "at": "2020-01-01T00:00:00+00:00", "source": "till", "text": ""},
        "whatsapp": {"status": "unknown", "at": None, "source": "", "text": ""},
    }
    assert found["suppressed"] is False


def test_an_opt_out_is_shown_with_its_words_and_what_it_blocks(db: Database, shop: Settings) -> None:
    take(db, shop, written("Hola, ¿cuándo llega?", number=1), written("BASTA", number=2))
    found = customers.consents(db, shop, "c1").as_json()

    assert found["channels"]["email"] == {
        "status": "revoked",
        "at": LATER.isoformat(),
        "source": "sms reply",
        "text": "BASTA",
    }
    assert found["suppressed"] is True
    assert {(one["scope"], one["channel"]) for one in found["suppressions"]} == {("contact", "sms"), ("address", "sms")}


def test_somebody_is_named_by_id_by_address_or_by_number(db: Database, shop: Settings) -> None:
    assert customers.consents(db, shop, "c3") == customers.consents(db, shop, "c3@example.com")
    assert customers.consents(db, shop, "c3") == customers.consents(db, shop, "+52 55 4100 0003")
    with pytest.raises(NotFound, match=r"more than one customer.*c1, c2"):
        customers.consents(db, shop, PHONE)
    with pytest.raises(NotFound, match="nothing is held"):
        customers.consents(db, shop, "nobody@example.com")
    with pytest.raises(NotFound, match="there is no customer 'c99'"):
        customers.consents(db, shop, "c99")


def test_what_a_person_told_the_shop_changes_that_channel_alone(db: Database, shop: Settings) -> None:
    found = customers.change(db, shop, "c3", "sms", LATER, granted=False, words="no more texts, on the phone")

    assert status(found) == {"email": "granted", "sms": "revoked", "whatsapp": "granted"}
    assert blocked(db, shop, "service", "sms", number=3)
    assert not blocked(db, shop, "marketing", "whatsapp", number=3)
    (line,) = rows_of(db, Consent, by="person")
    assert (line.words, line.source, line.at) == ("no more texts, on the phone", "command line", LATER)


def test_a_grant_takes_back_an_opt_out_for_its_channel_and_no_line_is_lost(db: Database, shop: Settings) -> None:
    take(db, shop, written("STOP", address="+525541000003"))
    before = rows_of(db, Consent)
    found = customers.change(db, shop, "c3", "whatsapp", SOON, granted=True, words="write me on WhatsApp again")

    assert status(found) == {
        "email": "revoked",
        "sms": "revoked",
        "whatsapp": "granted",
        "call": "revoked",
        "visit": "revoked",
    }
    assert rows_of(db, Consent)[: len(before)] == before
    assert not blocked(db, shop, "marketing", "whatsapp", number=3)
    assert blocked(db, shop, "transactional", "sms", number=3)


def test_a_grant_reopens_an_address_that_had_bounced(db: Database, shop: Settings) -> None:
    taken(db, shop, report(message(db, 3), "undelivered", "30005", "+525541000003"))
    assert blocked(db, shop, "service", "sms", number=3)
    customers.change(db, shop, "c3", "sms", SOON, granted=True, words="the number works again")

    assert not blocked(db, shop, "service", "sms", number=3)


def test_a_nightly_file_undoes_neither_an_opt_out_nor_what_was_recorded(db: Database, shop: Settings) -> None:
    take(db, shop, written("STOP"))
    customers.change(db, shop, "c3", "sms", LATER, granted=False)
    feed(db, shop, SOON, customers=[customer(1, city="Oaxaca"), customer(3, city="Oaxaca")])

    assert status(customers.consents(db, shop, "c1"))["sms"] == "revoked"
    assert status(customers.consents(db, shop, "c3"))["sms"] == "revoked"
    assert blocked(db, shop, "marketing", "email")


def test_a_channel_without_an_address_cannot_be_granted(db: Database, shop: Settings) -> None:
    feed(db, shop, NOW, customers=[customer(8, phone="")])

    with pytest.raises(NotFound, match="c8 has no address for sms"):
        customers.change(db, shop, "c8", "sms", LATER, granted=True)
    assert rows_of(db, Suppression) == []


def test_a_grant_by_the_shop_never_goes_before_a_later_word_of_their_own(db: Database, shop: Settings) -> None:
    customers.change(db, shop, "c3", "sms", SOON, granted=True)
    inbox.accept(db, shop, SOON + timedelta(minutes=1), "twilio", [written("STOP", address="+525541000003")])

    assert status(customers.consents(db, shop, "c3"))["sms"] == "revoked"
