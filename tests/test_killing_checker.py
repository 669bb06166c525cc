"""The checker of the kill tests is itself checked: it passes what is right, and names everything that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

from outreach import dispatcher, planner, store
from outreach.models import Message, table
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.copies import Original
from tests.killing.checker import Acceptance, Found, check
from tests.killing.databases import PostgresDatabases, SqliteFiles
from tests.killing.results import LEFT_OUT, contents, differences
from tests.shop import customer, feed, publish, rows_of, shop_settings

CAMPAIGN = """
    title: One for each
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: one, after: 0 minutes, channel: email, template: m}]
"""
PEOPLE = 6


@dataclass
class Sent:
    """A shop whose messages are all sent, and the provider's ledger as it should be."""

    db: Database
    url: str
    ledger: list[Acceptance]
    expected: dict[str, str]

    def check(self) -> Found:
        return check(self.url, self.ledger, self.expected)

    def change(self, statement: str) -> None:
        with store.write(self.db) as connection:
            connection.execute(text(statement))


PERSONS = [customer(number, created_at=NOW) for number in range(PEOPLE)]
SENT = Original()


def live(folder: Path, url: str) -> None:
    settings = shop_settings(folder)
    db = store.open_database(url, secret=SECRET)
    publish(db, settings, NOW - timedelta(hours=1), one=CAMPAIGN)
    feed(db, settings, NOW, customers=PERSONS)
    planner.plan(db, settings, NOW)
    dispatcher.dispatch(db, settings, NOW)
    db.engine.dispose()


@pytest.fixture
def sent(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sent]:
    SENT.copy(request, tmp_path, live, database_url)
    db = store.open_database(database_url, secret=SECRET)
    expected = {one["customer_id"]: one["email"] for one in PERSONS}
    addresses = list(expected.values())
    ledger = [
        Acceptance(row.public_id, row.provider_id, addresses[place]) for place, row in enumerate(rows_of(db, Message))
    ]
    yield Sent(db, database_url, ledger, expected)
    db.engine.dispose()


def test_it_passes_what_is_right(sent: Sent) -> None:
    found = sent.check()

    assert found.wrong == []
    assert (found.messages, found.accepted) == (PEOPLE, PEOPLE)
    assert (found.duplicates, found.unaccounted, found.unknown, found.most_unknown) == (0, 0, 0, 0)


def test_it_passes_what_is_in_doubt_accepted_or_not_and_counts_it_by_claim(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'unknown', provider_id = NULL, claim = 'a' WHERE id IN (1, 2)")
    sent.change("UPDATE messages SET status = 'unknown', provider_id = NULL, claim = 'b' WHERE id = 3")
    sent.change("UPDATE messages SET status = 'unknown', provider_id = NULL WHERE id = 4")
    del sent.ledger[0]

    found = sent.check()

    assert found.wrong == []
    assert (found.accepted, found.unknown) == (PEOPLE - 1, 4)
    assert (found.most_unknown, found.unknown_by_claim) == (2, {"a": 2, "b": 1})


def test_it_passes_what_was_not_sent_for_a_reason(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'expired', reason = 'expired', provider_id = NULL WHERE id = 1")
    sent.change("DELETE FROM contents WHERE message_id = 1")
    del sent.ledger[0]

    assert sent.check().wrong == []


def twice(sent: Sent) -> None:
    sent.ledger.append(sent.ledger[2]._replace(provider_id="another"))


def twice_to_one_person(sent: Sent) -> None:
    sent.ledger[3] = sent.ledger[3]._replace(address=sent.ledger[2].address)


def lost_by_the_provider(sent: Sent) -> None:
    del sent.ledger[2]


def lost_by_us(sent: Sent) -> None:
    sent.change("DELETE FROM contents WHERE message_id = 3")
    sent.change("DELETE FROM messages WHERE id = 3")


def lost_before_it_left(sent: Sent) -> None:
    lost_by_us(sent)
    del sent.ledger[2]


def taken_back(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'planned', provider_id = NULL WHERE id = 3")
    sent.change("DELETE FROM contents WHERE message_id = 3")


def left_in_the_air(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'sending', provider_id = NULL WHERE id = 3")


def ended_without_a_reason(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'failed', provider_id = NULL WHERE id = 3")
    sent.change("DELETE FROM contents WHERE message_id = 3")
    del sent.ledger[2]


def a_second_message(sent: Sent) -> None:
    own = ("id", "public_id", "occasion", "provider_id")
    columns = ", ".join(column.name for column in table(Message).c if column.name not in own)
    sent.change(
        f"INSERT INTO messages (id, public_id, occasion, provider_id, {columns})"
        f" SELECT 99, 'second', 'second', 'second', {columns} FROM messages WHERE id = 3"
    )
    sent.change(
        "INSERT INTO contents (message_id, subject, text, html, shape, filling, content_hash, segments, at)"
        " SELECT 99, subject, text, html, shape, filling, content_hash, segments, at FROM contents WHERE message_id = 3"
    )
    sent.ledger.append(Acceptance("second", "second", sent.ledger[2].address))


def another_id(sent: Sent) -> None:
    sent.ledger[2] = sent.ledger[2]._replace(provider_id="another")


def content_lost(sent: Sent) -> None:
    sent.change("DELETE FROM contents WHERE message_id = 3")


def content_without_a_message(sent: Sent) -> None:
    sent.change("UPDATE contents SET message_id = 99 WHERE message_id = 3")


def content_of_what_never_left(sent: Sent) -> None:
    sent.change("UPDATE messages SET status = 'skipped', reason = 'unless', provider_id = NULL WHERE id = 3")
    del sent.ledger[2]


WRONG: dict[Callable[[Sent], None], tuple[str, int, int]] = {
    twice: ("was accepted 2 times", 1, 0),
    twice_to_one_person: ("was reached 2 times", 1, 1),
    lost_by_the_provider: ("is sent, and its provider never accepted it", 0, 1),
    lost_by_us: ("was accepted, and the database knows nothing of it", 0, 2),
    lost_before_it_left: ("has 0 messages instead of 1", 0, 1),
    taken_back: ("was accepted, and is planned in the database", 0, 1),
    left_in_the_air: ("is sending, which is no end", 0, 1),
    ended_without_a_reason: ("is failed without a reason", 0, 1),
    a_second_message: ("has 2 messages instead of 1", 1, 1),
    another_id: ("is sent under an id that its provider never gave it", 0, 1),
    content_lost: ("is sent and has no content", 0, 1),
    content_without_a_message: ("1 of them belong to no message", 0, 2),
    content_of_what_never_left: ("is skipped and has a content", 0, 1),
}


@pytest.mark.parametrize("doctored", WRONG, ids=lambda doctored: doctored.__name__)
def test_it_catches(sent: Sent, doctored: Callable[[Sent], None]) -> None:
    words, duplicates, unaccounted = WRONG[doctored]
    doctored(sent)

    found = sent.check()

    assert any(words in line for line in found.wrong), found.wrong
    assert (found.duplicates, found.unaccounted) == (duplicates, unaccounted)


# --- table by table --------------------------------------------------------------------------------


def test_every_table_is_compared_but_for_those_that_it_says(sent: Sent) -> None:
    assert contents(sent.url).keys() == SQLModel.metadata.tables.keys() - LEFT_OUT.keys()


@pytest.mark.parametrize(
    ("change", "of"),
    [
        ("UPDATE customers SET first_name = 'Eva' WHERE id = 3", "customers"),
        ("UPDATE messages SET status = 'unknown' WHERE id = 3", "messages"),
        ("UPDATE messages SET claim = 'a' WHERE id = 3", "messages"),
        ("UPDATE messages SET customer_id = 4, occasion = 'x' WHERE id = 3", "messages"),
        ("DELETE FROM enrolments WHERE id = 3", "enrolments"),
        ("UPDATE campaign_states SET paused_reason = 'x'", "campaign_states"),
        ("UPDATE releases SET note = 'x'", "releases"),
    ],
)
def test_two_databases_that_differ_are_told_apart(
    sent: Sent, tmp_path: Path, request: pytest.FixtureRequest, change: str, of: str
) -> None:
    sent.db.engine.dispose()  # nobody may be connected to what is copied
    sqlite = sent.db.is_sqlite
    databases = SqliteFiles(tmp_path) if sqlite else PostgresDatabases(request.getfixturevalue("postgres_uri"))
    copy = databases.copy(sent.url)

    same = differences(contents(sent.url), contents(copy))
    sent.change(change)
    found = differences(contents(sent.url), contents(copy))
    databases.close()

    assert same == []
    assert of in {line.partition(":")[0] for line in found}
