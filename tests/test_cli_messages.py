"""What `messages` and `status` say of what waits."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from outreach import settings, store
from outreach.cli import here
from outreach.models import Message, Rate, Reason, Status, table
from tests import test_cli
from tests.conftest import NOW
from tests.test_cli import NOON, Run
from tests.test_cli_people import done

run, shop, sent = test_cli.run, test_cli.shop, test_cli.sent
HOUR = timedelta(hours=1)


def wait(folder: Path, **values: object) -> None:
    """Let every message of the workspace wait for this."""
    db = here.database(settings.load(folder, os.environ))
    with store.write(db) as connection:
        connection.execute(update(table(Message)).values(ready_at=NOW + HOUR, **values))
    db.engine.dispose()


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [
        (Reason.HOURS, "sms in America/Mexico_City", "hours until 2026-06-15 10:00"),
        (Reason.CAP, "", "cap until 2026-06-15 10:00"),
        (Reason.CHANNEL, "cannot be reached", "channel until 2026-06-15 10:00: cannot be reached"),
        (Reason.UNDEFINED, "a.j2:3: order", "undefined until 2026-06-15 10:00: a.j2:3: order"),
        (Reason.PERSON, "call", "person"),
        (Reason.PAUSED, "", "paused"),
    ],
)
def test_what_waits_says_why_and_until_when(reason: Reason, detail: str, said: str, sent: Run, tmp_path: Path) -> None:
    wait(tmp_path, status=Status.PLANNED, reason=None, blocked_by=reason, detail=detail)

    rows = done(sent("messages", "--now", NOON)).out.splitlines()[3:]
    assert all(f"  {said}  " in row for row in rows if row), rows
    one, *_ = done(sent("messages", "--json")).json["messages"]
    assert (one["reason"], one["blocked_by"], one["until"]) == (None, reason, "2026-06-15T16:00:00+00:00")


def test_what_expired_says_what_held_it_back(sent: Run, tmp_path: Path) -> None:
    wait(tmp_path, status=Status.EXPIRED, reason=Reason.EXPIRED, blocked_by=Reason.HOURS, detail="sms in X")
    assert "  expired: hours  " in done(sent("messages", "--status", "expired")).out
    one, *_ = done(sent("messages", "--json")).json["messages"]
    assert (one["reason"], one["blocked_by"], one["until"]) == ("expired", "hours", None)


def test_what_was_sent_says_nothing_of_what_held_it_back_before(sent: Run, tmp_path: Path) -> None:
    wait(tmp_path, blocked_by=Reason.HOURS)
    assert "hours" not in done(sent("messages", "--status", "sent")).out


def test_a_channel_that_is_out_of_order_is_named_as_long_as_it_is(sent: Run, tmp_path: Path) -> None:
    db = here.database(settings.load(tmp_path, os.environ))
    slow = {"slowed": 2, "slowed_since": NOW, "slow_until": NOW + 4 * HOUR}
    with store.write(db) as connection:
        for name, reason, detail in (
            ("email a@b.example", Reason.CHANNEL, "Connection refused"),
            ("sms +52", Reason.RATE, ""),
        ):
            row = {"name": name, "slowed_for": reason, "detail": detail, **slow}
            connection.execute(insert(table(Rate)).values(row))
    db.engine.dispose()

    said = done(sent("status", "--now", NOON)).out
    times = "since 2026-06-15 09:00, tried again at 2026-06-15 13:00"
    assert f"Email is out of order {times}: Connection refused." in said
    assert f"Sms may not send as fast {times}." in said
    assert "a@b.example" not in said
    assert "out of order" not in done(sent("status", "--now", "2026-06-15T14:00")).out
