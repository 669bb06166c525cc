"""`outreach cases`, from outside."""

from __future__ import annotations

import pytest

from tests import test_cli
from tests.test_cli import NOON, Result, Run

run, shop, sent = test_cli.run, test_cli.shop, test_cli.sent
TOMORROW = "2026-06-16T13:00"


def done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.fixture
def case(sent: Run) -> str:
    """The id of a case that somebody opened for ana at noon."""
    options = ("--order", "o2", "--category", "envío", "--sku", "CAF", "--note", "lleg\x1b[31mó roto", "--by", "maria")
    found: str = done(sent("cases", "open", "complaint", "ana", *options, "--now", NOON, "--json")).json["case"]["id"]
    return found


def test_a_case_from_its_opening_to_its_closing(sent: Run, case: str) -> None:
    (one,) = done(sent("cases", "list", "--now", NOON, "--json")).json["cases"]
    expected = {
        "id": case, "customer": "ana", "kind": "complaint", "category": "envío", "sku": "CAF", "order": "o2",
        "opened_by": "person", "overdue": False, "assignee": None, "answered_at": None, "closed_at": None,
        "outcome": None, "reopened": 0, "contacts": 0,
    }  # fmt: skip
    assert {name: one[name] for name in expected} == expected
    assert (one["opened_at"], one["due_at"]) == ("2026-06-15T18:00:00+00:00", "2026-06-16T18:00:00+00:00")

    joined = done(sent("cases", "open", "complaint", "ana", "--now", NOON))
    assert joined.out == f"It is noted in case {case}, which is open already.\n"
    done(sent("cases", "assign", case, "beto", "--now", NOON))
    assert (
        done(sent("cases", "answer", case, "--note", "llamé", "--now", "2026-06-15T14:00")).out
        == f"{case}: answered.\n"
    )
    done(sent("cases", "note", case, "espera", "--now", "2026-06-15T15:00"))
    closed = done(sent("cases", "close", case, "resolved", "--now", TOMORROW, "--json")).json["case"]
    assert (closed["outcome"], closed["answered_at"]) == ("resolved", "2026-06-15T20:00:00+00:00")
    assert [line["kind"] for line in closed["log"]] == [
        "opened", "joined", "assigned", "answered", "noted", "closed",
    ]  # fmt: skip
    assert closed["log"][0]["by"] == "maria"
    assert done(sent("cases", "reopen", case, "--now", TOMORROW)).out == f"{case} is open again.\n"


def test_what_is_shown_to_people(sent: Run, case: str) -> None:
    listed = done(sent("cases", "list", "--now", TOMORROW)).out
    assert "1 case, 1 overdue" in listed
    assert "OVERDUE since 2026-06-16 12:00" in listed
    shown = done(sent("cases", "show", case, "--now", TOMORROW)).out
    assert "Order: o2" in shown
    assert "ó roto" in shown
    assert "\x1b" not in shown
    status = done(sent("status", "--now", TOMORROW))
    assert "Open cases: 1, 1 of them overdue." in status.out
    assert done(sent("status", "--now", NOON, "--json")).json["cases"] == {"open": 1, "overdue": 0}
    assert done(sent("cases", "list", "--closed")).out == "Cases: none yet.\n\n"


def test_filters(sent: Run, case: str) -> None:
    done(sent("cases", "open", "cancellation", "beto", "--now", NOON))

    def listed(*options: str) -> list[str]:
        return [one["customer"] for one in done(sent("cases", "list", "--json", "--now", NOON, *options)).json["cases"]]

    assert listed("--customer", "beto") == ["beto"]
    assert listed("--kind", "complaint") == ["ana"]
    assert listed("--open") == ["ana", "beto"]
    assert listed("--closed") == listed("--assignee", "zoe") == []
    assert listed("--limit", "1") == ["ana"]


def test_what_is_wrong_is_said(sent: Run, case: str) -> None:
    assert sent("cases", "open", "rage", "ana").code == 2
    assert sent("cases", "list", "--kind", "rage").code == 2
    assert sent("cases", "close", case, "solved").code == 2
    for wrong, said in (
        (("cases", "open", "complaint", "zoe"), "there is no customer 'zoe'"),
        (("cases", "open", "complaint", "ana", "--order", "o3"), "no order 'o3'"),
        (("cases", "close", case, "kept", "--now", TOMORROW), "only a cancellation ends as kept"),
        (("cases", "show", "k9"), "there is no case 'k9'"),
        (("cases", "reopen", case), "is open already"),
        (("cases", "list", "--customer", "zoe"), "there is no customer 'zoe'"),
    ):
        result = sent(*wrong)
        assert (result.code, said in result.err) == (1, True), result.err
