"""`--now` with a day to come: asked about where a database lives by the clock, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outreach.cli import WRITING, commands
from tests import test_cli, test_cli_asks
from tests.test_cli import Run

run, shop, asked = test_cli.run, test_cli.shop, test_cli_asks.asked
TO_COME = (datetime.now(UTC) + timedelta(days=30)).isoformat()
LATER = (datetime.now(UTC) + timedelta(days=40)).isoformat()


@pytest.fixture
def lived(shop: Run) -> Run:
    """The shop, published by the clock."""
    assert shop("publish", "--yes").code == 0
    return shop


@pytest.mark.parametrize("words", [("tick", "plan"), ("tick", "dispatch", "--json"), ("pause",), ("publish",)])
def test_without_a_terminal_a_time_to_come_needs_yes(words: tuple[str, ...], lived: Run) -> None:
    refused = lived(*words, "--now", TO_COME)
    assert (refused.code, refused.out) == (1, "")
    (said,) = refused.err.splitlines()
    assert "still to come" in said
    assert "outreach db backup" in said
    assert "--yes" in said

    assert lived("tick", "plan").code == 0  # the clock's own time is not refused after it


def test_at_a_terminal_it_is_asked_and_no_means_no(lived: Run, asked: list[str]) -> None:
    assert lived("tick", "plan", "--now", TO_COME).code == 1
    (question,) = asked
    assert "refuses any earlier time" in question
    assert lived("tick", "plan").code == 0


def test_yes_takes_the_database_there_and_then_it_is_for_trying_things_out(lived: Run) -> None:
    assert lived("tick", "plan", "--now", TO_COME, "--yes").code == 0
    assert lived("tick", "plan", "--now", LATER).code == 0
    assert "already seen" in lived("tick", "plan").err


def test_a_fresh_workspace_may_begin_at_any_time(shop: Run) -> None:
    for words in (("import",), ("publish", "--yes"), ("tick", "plan"), ("tick", "dispatch")):
        assert shop(*words, "--now", TO_COME).code == 0


def test_what_only_looks_is_never_asked_about(lived: Run, asked: list[str]) -> None:
    assert lived("import").code == 0
    looks = (
        ("status",), ("messages",), ("report", "retention"), ("diff",), ("consent", "ana"), ("tasks", "list"),
        ("audience", "orders_count >= 1"), ("resolve", "--all", "sent", "--dry-run"),
    )  # fmt: skip
    for words in looks:
        assert lived(*words, "--now", TO_COME).code == 0, words
    assert lived("consent", "ana", "sms", "revoke", "--now", TO_COME).code == 1
    assert len(asked) == 1


def test_every_verb_that_asks_is_there_and_takes_yes() -> None:
    root = commands()
    for path in sorted(WRITING):
        name, *inner = path.split()
        command = root.loaded(name)
        for word in inner:
            command = command.commands[word]  # type: ignore[union-attr, assignment]
        assert any("--yes" in param.opts for param in command.params), path


def test_a_copy_of_the_workspace_is_taken_ahead_while_the_real_one_lives_on(lived: Run, tmp_path: Path) -> None:
    """What the question advises."""
    copy = tmp_path / "copy"
    assert lived("db", "backup", "real.sqlite").code == 0
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv("OUTREACH_DATABASE", f"sqlite:///{copy}/outreach.db")
        copy.mkdir()
        (copy / "outreach.yaml").write_text((tmp_path / "outreach.yaml").read_text())
        assert lived("--workspace", copy, "db", "restore", "real.sqlite").code == 0
        assert lived("--workspace", copy, "tick", "plan", "--now", TO_COME, "--yes").code == 0
    assert lived("tick", "plan").code == 0
