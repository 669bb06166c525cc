"""Verbs that ask look first whether there is anything to ask about; verbs that change something answer programs, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from outreach import store
from tests import test_cli, test_cli_people
from tests.test_cli import MORNING, NOON, Run
from tests.test_cli_people import done

run, shop, sent, heard = test_cli.run, test_cli.shop, test_cli.sent, test_cli_people.heard


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked at a terminal, where the answer is no."""
    questions: list[str] = []

    def confirm(question: str, **_options: object) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    return questions


def test_pause_and_resume_say_to_programs_what_they_did(shop: Run) -> None:
    done(shop("publish", "--yes", "--now", MORNING))
    assert done(shop("pause", "thanks", "--now", NOON, "--json")).json == {"paused": ["thanks"]}
    assert done(shop("resume", "--now", NOON, "--json")).json == {"resumed": ["thanks"]}
    assert done(shop("resume", "--now", NOON, "--json")).json == {"resumed": []}


def test_upgrade_says_its_version_to_programs(shop: Run) -> None:
    assert done(shop("db", "upgrade", "--json")).json == {"version": store.HEAD}


def test_import_tells_programs_who_can_be_reached(shop: Run) -> None:
    reach = done(shop("import", "--now", NOON, "--json")).json["reach"]
    (mails,) = [row for row in reach if (row["channel"], row["purpose"]) == ("email", "marketing")]
    assert mails == {
        "channel": "email", "purpose": "marketing", "customers": 4, "reachable": 2,
        "why": "2 no e-mail address",
    }  # fmt: skip


def test_rollback_asks_only_about_a_release_there_is_and_shows_what_changes(
    shop: Run, tmp_path: Path, asked: list[str]
) -> None:
    done(shop("publish", "--yes", "--now", MORNING))
    template = tmp_path / "message_templates" / "thanks" / "hello.sms.j2"
    template.write_text("{{ customer | greeting }}, hola.\n")
    done(shop("publish", "--yes", "--now", NOON))

    missing = shop("rollback", "9", "--now", NOON)
    assert (missing.code, asked) == (1, [])
    assert missing.err == "there is no release 9: `outreach releases` lists them\n"
    assert "nothing differs" in shop("rollback", "2", "--now", NOON).err
    assert asked == []

    refused = shop("rollback", "1", "--now", NOON)
    assert (refused.code, asked) == (1, ["Publish release 1 again?"])
    assert "hello.sms.j2" in refused.out
    told = shop("rollback", "1", "--now", NOON, "--yes", "--json")
    assert told.json == {"release": 3}
    assert "hello.sms.j2" in told.err


def test_an_answer_is_asked_about_for_programs_too_and_only_where_it_could_go(heard: Run, asked: list[str]) -> None:
    done(heard("tick", "receive"))
    (reply,) = done(heard("replies", "list", "--json")).json["replies"]
    for words, said in (
        (("99", "--text", "a"), "there is no reply 99"),
        ((reply["id"], "--text", " "), "the answer is empty"),
        ((reply["id"], "--template", "gone"), "has no template gone"),
        ((reply["id"], "--text", "a" * 2000), "the answer has 2000 characters"),
    ):
        refused = heard("replies", "answer", *words, "--json")
        assert (refused.code, said in refused.err) == (1, True), refused.err
    assert asked == []

    for as_json in ((), ("--json",)):
        refused = heard("replies", "answer", reply["id"], "--text", "Mañana.", *as_json)
        assert (refused.code, refused.out) == (1, "")
    assert asked == [f'Answer reply {reply["id"]} of ana by sms now: "Mañana."?'] * 2
    assert done(heard("replies", "list", "--unanswered", "--json")).json["replies"] != []


def test_without_a_terminal_an_answer_needs_yes(heard: Run) -> None:
    done(heard("tick", "receive"))
    (reply,) = done(heard("replies", "list", "--json")).json["replies"]
    refused = heard("replies", "answer", reply["id"], "--text", "Mañana.", "--json")
    assert (refused.code, "--yes" in refused.err) == (1, True)


def test_nobody_is_asked_about_erasing_a_person_there_is_not(sent: Run, asked: list[str]) -> None:
    assert sent("customer", "erase", "zoe").code == 1
    assert asked == []
    assert sent("customer", "erase", "ana").code == 1
    assert asked == ["Erase ana? It cannot be undone."]
