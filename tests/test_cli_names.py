"""A name that nothing has is said to be none, with the nearest there is: never `none yet`."""

from __future__ import annotations

from pathlib import Path

import pytest

from outreach import naming, store
from outreach.store import Database
from tests import test_cli
from tests.conftest import NOW
from tests.shop import customer, feed, shop_settings
from tests.test_cli import NOON, Run
from tests.test_cli_people import done

run, shop, sent = test_cli.run, test_cli.shop, test_cli.sent
MISSING = (
    (("messages", "--campaign", "thank"), 1, "no campaign 'thank' has been published", "did you mean `thanks`?"),
    (("messages", "--customer", "ANA"), 1, "there is no customer 'ANA'", "did you mean `ana`?"),
    (("replies", "list", "--customer", "anna"), 1, "there is no customer 'anna'", "did you mean `ana`?"),
    (("replies", "list", "--channel", "emial"), 2, "'emial' is not a channel", "did you mean `email`?"),
    (("cases", "list", "--customer", "betho"), 1, "there is no customer 'betho'", "did you mean `beto`?"),
    (("cases", "list", "--assignee", "eve"), 1, "nobody called 'eve'", "did you mean `eva`?"),
    (("cases", "open", "complaint", "carl"), 1, "there is no customer 'carl'", "did you mean `carla`?"),
    (("coupons", "list", "--offer", "bak15"), 1, "there is no offer 'bak15'", "outreach.yaml has"),
    (("coupons", "list", "--redeemed", "--offer", "bak15"), 1, "there is no offer 'bak15'", "outreach.yaml has"),
    (("coupons", "list", "--code", "GONE"), 1, "there is no code 'GONE'", "outreach coupons list"),
    (("coupons", "list", "--customer", "zoe"), 1, "there is no customer 'zoe'", "give the shop's own id"),
    (("resolve", "--campaign", "thank", "sent"), 1, "no campaign 'thank'", "did you mean `thanks`?"),
    (("resolve", "--channel", "smss", "sent"), 2, "'smss' is not a channel", "did you mean `sms`?"),
    (("cancel", "thanks/thank"), 1, "campaign thanks has no step 'thank'", "did you mean `thanks`?"),
    (("pause", "thank"), 1, "no campaign 'thank' has been published", "did you mean `thanks`?"),
    (("consent", "anna"), 1, "there is no customer 'anna'", "did you mean `ana`?"),
    (("consent", "ana", "smss", "revoke"), 2, "'smss' is not a channel", "did you mean `sms`?"),
    (("report", "repurchase", "--from", "2026-06-01", "--to", "2026-05-01"), 2, "--to 2026-05-01 is not after", "--from"),
    (("report", "retention", "--from", "2026-06-10"), 2, "2026-06-10 is not before 2026-06-01", "give --to"),
)  # fmt: skip


def test_what_a_filter_names_must_be_there(sent: Run) -> None:
    (case,) = [done(sent("cases", "open", "complaint", "ana", "--now", NOON, "--json")).json["case"]["id"]]
    done(sent("cases", "assign", case, "eva", "--now", NOON))
    for words, code, said, near in MISSING:
        found = sent(*words, "--now", NOON)
        assert (found.code, found.out) == (code, ""), words
        assert said in found.err, words
        assert near in found.err, words


def test_what_is_there_and_has_nothing_is_none_yet(sent: Run) -> None:
    for words in (("messages", "--customer", "carla", "--status", "unknown"), ("replies", "list", "--customer", "ana")):
        assert "none yet" in done(sent(*words, "--now", NOON)).out
    assert done(sent("messages", "--campaign", "answers", "--json")).json == {"messages": []}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("C00042", "c42"),  # other capitals, other zeros
        ("c042", "c42"),
        ("z9", None),
        ("pedro-lopes", "pedro-lopez"),
        ("somebody@example.co", None),  # an id that is an address is nobody's to hear
    ],
)
def test_the_nearest_customer_is_found_by_the_index(name: str, near: str | None, db: Database, tmp_path: Path) -> None:
    known = [
        customer("42"),
        customer("x", customer_id="pedro-lopez"),
        customer("y", customer_id="somebody@example.com"),
    ]
    feed(db, shop_settings(tmp_path), NOW, customers=known)
    with store.read(db) as connection:
        said = str(naming.no_customer(connection, name))
    assert (f"did you mean `{near}`? Else give the shop's own id" in said) == (near is not None), said
    assert ("did you mean" in said) == (near is not None), said
