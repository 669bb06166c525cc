"""What the outbox has: the files themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outreach.channels import Channel, Doubtful, Kept, Outgoing, Record, Silent, open_channel
from outreach.render import Content
from outreach.settings import Business, ChannelSettings, Settings
from tests.conftest import NOW

ID, OTHER = "a" * 32, "b" * 32
AT = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)


def opened(workspace: Path) -> Channel:
    channels = {"sms": ChannelSettings(sender="+525500000000")}
    return open_channel("sms", Settings(workspace, Business("Luna", "America/Mexico_City", "MXN"), channels=channels))


def an_sms(public_id: str = ID) -> Outgoing:
    content = Content("sms", "Hola")
    return Outgoing(public_id, "sms", "+525512345678", "", content, "service", at=NOW, day=NOW.date())


def doubtful(public_id: str = ID) -> Doubtful:
    return Doubtful(public_id, "sms", "+525512345678", "Hola", NOW, NOW)


def one(answers: Iterable[Kept]) -> Kept:
    (answer,) = answers
    return answer


def test_a_message_that_was_written_is_found_by_its_file(tmp_path: Path) -> None:
    (receipt,) = opened(tmp_path).send([an_sms()])
    (file,) = (tmp_path / "outbox").iterdir()
    os.utime(file, (AT.timestamp(), AT.timestamp()))

    kept = one(opened(tmp_path).look_up([doubtful()]))

    assert receipt.provider_id is not None
    assert kept == Kept(ID, (Record(receipt.provider_id, AT, ID),), complete=True)


def test_a_message_that_was_not_is_missing_from_a_complete_answer(tmp_path: Path) -> None:
    list(opened(tmp_path).send([an_sms(OTHER)]))

    assert one(opened(tmp_path).look_up([doubtful()])) == Kept(ID, complete=True)


def test_before_the_first_message_there_is_none(tmp_path: Path) -> None:
    assert list(opened(tmp_path).look_up([doubtful(), doubtful(OTHER)])) == [
        Kept(ID, complete=True),
        Kept(OTHER, complete=True),
    ]
    assert not (tmp_path / "outbox").exists()


def test_a_file_of_an_earlier_attempt_on_another_day_and_channel_counts(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / f"2026-06-01-{ID}-email.eml").write_text("x")

    assert len(one(opened(tmp_path).look_up([doubtful()])).records) == 1


@pytest.mark.parametrize(
    "name",
    [
        f".2026-06-15-{ID}-sms.json.tmp",
        f"2026-06-15-{ID}-sms.json.tmp",
        f".2026-06-15-{ID}-sms.json",
        f"2026-06-15-{ID}x-sms.json",
        f"2026-06-15-x{ID}-sms.json",
        f"copy of 2026-06-15-{ID}-sms.json",
        f"2026-06-15-{ID}-sms.bak",
    ],
)
def test_an_unfinished_file_of_a_process_that_died_is_no_message(name: str, tmp_path: Path) -> None:
    """So that it is written again, and whole: see `send`."""
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / name).write_text('{"id": "a')

    assert one(opened(tmp_path).look_up([doubtful()])) == Kept(ID, complete=True)
    list(opened(tmp_path).send([an_sms()]))
    assert json.loads((tmp_path / "outbox" / f"2026-06-15-{ID}-sms.json").read_text())["id"] == ID


def test_a_folder_that_cannot_be_read_is_an_incomplete_answer(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("")

    kept = one(opened(tmp_path).look_up([doubtful()]))

    assert kept == Kept(ID, detail="the folder outbox cannot be read: Not a directory")


def test_an_outbox_lists_nobody_who_opted_out(tmp_path: Path) -> None:
    assert list(opened(tmp_path).opt_outs(NOW)) == []


def test_who_cannot_be_asked_says_so_and_lists_nobody() -> None:
    assert list(Silent().look_up([doubtful()])) == [
        Kept(ID, detail="this provider cannot be asked what became of a message")
    ]
    assert list(Silent().opt_outs(NOW)) == []
