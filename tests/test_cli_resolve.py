"""`outreach resolve`, and what `messages`, `status` and `tick reconcile` say about messages in doubt, from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from outreach import channels, cli, dispatcher, planner, store
from outreach.channels import Outcome, Outgoing, Receipt, Silent
from outreach.cli import here
from outreach.cli.resolving import message_id
from outreach.models import Message, Status, table
from outreach.settings import ChannelSettings, Settings, load
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, publish, rows_of, shop_settings

WORKSPACE = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN, locale: es-MX, country: MX}
channels:
  email: {provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}
  sms: {provider: outbox, from: "+525500000000"}
sending_hours: {default: {mon-sun: "00:00-23:59"}}
"""
CAMPAIGN = """
    title: {name}
    purpose: service
    trigger: {{event: customer.created}}
    steps: [{{id: hello, after: 0 minutes, channel: {channel}, template: m}}]
"""
LATER = "2026-06-15T16:00Z"
AFTER = NOW + timedelta(hours=2)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Doubtful:
    """A workspace with messages in doubt: `mails` by e-mail, then `texts` by SMS."""

    db: Database
    settings: Settings
    run: Callable[..., Result]

    def messages(self, **equals: Any) -> list[Any]:
        return rows_of(self.db, Message, **equals)

    def ids(self, channel: str) -> list[str]:
        return [row.public_id for row in self.messages(channel=channel)]

    def statuses(self, channel: str) -> set[str]:
        return {row.status for row in self.messages(channel=channel)}


class Lost(Silent):
    """A provider that says nothing of what it got."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for one in batch:
            yield Receipt(one.public_id, Outcome.DOUBT, detail="no reply to the whole message")


@pytest.fixture
def shop(
    db: Database,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Doubtful:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTREACH_SECRET", SECRET)
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    (tmp_path / "outreach.yaml").write_text(WORKSPACE)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["outreach", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Result(int(left.value.code or 0), printed.out, printed.err)

    settings = shop_settings(tmp_path)
    with monkeypatch.context() as lost:
        lost.setattr(channels, "open_channel", lambda _name, _settings: Lost())
        both = {
            name: CAMPAIGN.format(name=name, channel=channel)
            for name, channel in (("mails", "email"), ("texts", "sms"))
        }
        publish(db, settings, NOW - timedelta(hours=1), **both)
        feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(3)])
        planner.plan(db, settings, NOW)
        dispatcher.dispatch(db, settings, NOW)
        with store.write(db) as connection:  # what the dispatcher kept back after five doubts in a row
            left = update(table(Message)).where(table(Message).c.status == Status.PLANNED)
            connection.execute(left.values(status=Status.UNKNOWN, look_at=NOW, sent_at=NOW, detail="no reply"))
    made = Doubtful(db, settings, run)
    assert {row.status for row in made.messages()} == {Status.UNKNOWN}
    return made


def noting(asked: list[str], *, answer: bool) -> Callable[..., bool]:
    """Stands in for a person: notes what it was asked, and answers so."""

    def note(question: str, *, yes: bool) -> bool:
        assert not yes
        asked.append(question)
        return answer

    return note


# --- one message -------------------------------------------------------------------------------------------


def test_a_message_is_settled_by_the_beginning_of_its_id(shop: Doubtful) -> None:
    first, second, third = shop.ids("email")

    said = {
        decision: shop.run("resolve", of[:8], decision, "--now", LATER)
        for of, decision in ((first, "sent"), (second, "resend"), (third, "DROP"))
    }

    assert {done.code for done in said.values()} == {0}
    assert said["sent"].out == f"{first[:12]}: recorded as sent; it is never sent again.\n"
    assert said["resend"].out == f"{second[:12]}: planned again; every rule is asked again before it leaves.\n"
    assert said["DROP"].out == f"{third[:12]}: ended as failed; it is never sent.\n"
    assert [(row.status, row.reason) for row in shop.messages(channel="email")] == [
        ("sent", None), ("planned", None), ("failed", "dropped"),
    ]  # fmt: skip
    assert shop.statuses("sms") == {"unknown"}


def test_what_is_not_in_doubt_is_refused_in_one_line(shop: Doubtful) -> None:
    (one, *_) = shop.ids("email")
    shop.run("resolve", one, "sent", "--now", LATER)

    for arguments, said in (
        ((one, "resend"), f"the message {one} is sent, not in doubt: there is nothing to settle"),
        (("ffffff", "sent"), "there is no message 'ffffff': `outreach messages --status unknown` shows those in doubt"),
        (("abc", "sent"), "'abc' is too short: give at least 6 characters of the message's id"),
    ):
        done = shop.run("resolve", *arguments, "--now", LATER)
        assert (done.code, done.out, done.err) == (1, "", f"{said}\n")


@pytest.mark.parametrize(
    "arguments",
    [("abcdef",), ("sent",), ("abcdef", "maybe"), ("abcdef", "sent", "--all"), ("sent", "--campaign")],
)
def test_wrong_usage_ends_with_2(shop: Doubtful, arguments: tuple[str, ...]) -> None:
    assert shop.run("resolve", *arguments).code == 2
    assert shop.statuses("email") == {"unknown"}


def test_the_json_of_one_message(shop: Doubtful) -> None:
    (one, *_) = shop.ids("sms")

    assert shop.run("resolve", one, "drop", "--json").json == {
        "decision": "drop",
        "settled": [{"id": one, "status": "failed", "follows": "ended as failed; it is never sent"}],
        "tasks": 0,
    }


# --- many at once ------------------------------------------------------------------------------------------


def test_all_of_a_channel_are_shown_asked_for_and_settled(shop: Doubtful, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(here, "agreed", noting(asked, answer=True))

    done = shop.run("resolve", "--channel", "email", "sent", "--now", LATER)

    assert (done.code, asked) == (0, ["Record 3 messages as sent?"])
    for public_id in shop.ids("email"):
        assert public_id[:12] in done.out
        assert f"<{public_id}@tiendaluna.example>" in done.out  # what the mail server's log knows it by
    assert ["no", "reply", "to", "the", "whole", "message", "3"] in [line.split() for line in done.out.splitlines()]
    assert done.out.endswith("3 messages: recorded as sent; it is never sent again.\n")
    assert (shop.statuses("email"), shop.statuses("sms")) == ({"sent"}, {"unknown"})


def test_resending_many_warns_that_whoever_has_one_gets_it_twice(
    shop: Doubtful, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(here, "agreed", noting(asked, answer=False))

    done = shop.run("resolve", "--all", "resend", "--now", LATER)

    assert (done.code, asked) == (1, ["Plan 6 messages again? Whoever has one already gets it twice."])
    assert shop.statuses("email") | shop.statuses("sms") == {"unknown"}


def test_without_a_terminal_only_yes_settles_several(shop: Doubtful) -> None:
    refused = shop.run("resolve", "--campaign", "texts", "drop", "--now", LATER)
    assert (refused.code, "--yes" in refused.err) == (1, True)
    assert shop.statuses("sms") == {"unknown"}

    assert shop.run("resolve", "--campaign", "texts", "drop", "--yes", "--now", LATER).code == 0
    assert (shop.statuses("sms"), shop.statuses("email")) == ({"failed"}, {"unknown"})


def test_several_messages_may_be_named(shop: Doubtful) -> None:
    first, second, third = shop.ids("email")

    done = shop.run("resolve", first[:9], second, "sent", "--yes", "--json", "--now", LATER).json

    assert [one["id"] for one in done["settled"]] == [first, second]
    assert [row.status for row in shop.messages(channel="email")] == ["sent", "sent", "unknown"]
    assert third in shop.ids("email")


def test_a_dry_run_shows_them_and_writes_nothing(shop: Doubtful) -> None:
    before = shop.messages()

    shown = shop.run("resolve", "--channel", "sms", "resend", "--dry-run", "--yes", "--now", LATER)
    plain = shop.run("resolve", "--channel", "email", "resend", "--dry-run", "--json", "--now", LATER).json

    assert shown.code == 0
    assert "In doubt: 3" in shown.out
    assert [one["id"] for one in plain["would_settle"]] == shop.ids("email")
    one = plain["would_settle"][0]
    assert one["message_id"] == f"<{one['id']}@tiendaluna.example>"
    assert (one["campaign"], one["at"]) == ("mails", "2026-06-15T15:00:00+00:00")
    assert shop.messages() == before


def test_what_the_restore_put_in_doubt_is_settled_apart_from_what_was_in_doubt_before(shop: Doubtful) -> None:
    """Also in doubt: what is planned only after the restore, and was due before it. Not: what was being sent."""
    waiting, sending, former = shop.ids("email")
    shop.run("resolve", waiting, "resend", "--now", LATER)
    of = table(Message).c.public_id == sending
    with store.write(shop.db) as connection:
        connection.execute(update(table(Message)).where(of).values(status=Status.SENDING, claim="gone"))
    restore(shop)
    feed(shop.db, shop.settings, AFTER, customers=[customer(7, created_at=NOW)])
    planner.plan(shop.db, shop.settings, AFTER)
    dispatcher.dispatch(shop.db, shop.settings, AFTER)
    (late,) = [
        row.public_id for row in shop.messages(channel="email") if row.public_id not in (waiting, sending, former)
    ]
    assert shop.statuses("email") | shop.statuses("sms") == {"unknown"}

    shown = shop.run("resolve", "--restored", "--channel", "email", "resend", "--dry-run", "--json").json
    done = shop.run("resolve", "--restored", "resend", "--yes", "--json", "--now", AFTER.isoformat()).json

    assert {one["id"] for one in shown["would_settle"]} == {waiting, late}
    assert {one["id"] for one in done["settled"]} >= {waiting, late}
    assert {row.public_id: row.status for row in shop.messages(channel="email")} == {
        waiting: "planned", sending: "unknown", former: "unknown", late: "planned",
    }  # fmt: skip
    assert [row.status for row in shop.messages(channel="sms")] == ["unknown"] * 3 + ["planned"]


def test_what_an_earlier_restore_put_in_doubt_was_in_doubt_before_the_last_one(shop: Doubtful) -> None:
    (one, *_) = shop.ids("email")
    shop.run("resolve", one, "resend", "--now", LATER)
    restore(shop)
    assert len(shop.run("resolve", "--restored", "resend", "--dry-run", "--json").json["would_settle"]) == 1

    restore(shop, "again.sqlite", AFTER + timedelta(hours=1))
    shop.run("tick", "reconcile", "--now", (AFTER + timedelta(hours=2)).isoformat())

    assert shop.run("resolve", "--restored", "resend", "--dry-run", "--json").json["would_settle"] == []
    assert shop.statuses("email") == {"unknown"}


def restore(shop: Doubtful, file: str = "first.sqlite", now: datetime = AFTER) -> None:
    """Back up and restore at once, as for a move, and let the campaigns go on."""
    shop.db.engine.dispose()
    assert shop.run("db", "backup", file, "--now", now.isoformat()).code == 0
    assert shop.run("db", "restore", file, "--yes", "--force", "--now", now.isoformat()).code == 0
    assert shop.run("resume", "--now", now.isoformat()).code == 0


def test_nothing_in_doubt_is_no_error(shop: Doubtful) -> None:
    done = shop.run("resolve", "--channel", "whatsapp", "sent")

    assert (done.code, done.out) == (0, "Messages in doubt: none yet.\n\n")


# --- looking -----------------------------------------------------------------------------------------------


def test_messages_in_doubt_are_listed_with_what_is_known_and_the_next_look(shop: Doubtful) -> None:
    shop.run("tick", "reconcile", "--now", "2026-06-15T15:01Z")

    done = shop.run("messages", "--status", "unknown")
    plain = shop.run("messages", "--json").json["messages"]

    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    (one, *_) = shop.ids("email")
    [line] = [line for line in lines if line.startswith(one[:12])]
    assert "no reply to the whole message; last look 2026-06-15 15:01 UTC" in line
    assert line.endswith("2026-06-15 09:02")  # in the business's time zone
    assert "outreach resolve ID sent, resend or drop" in done.out
    by_channel = {message["channel"]: message for message in plain}
    assert by_channel["email"]["detail"].endswith("; last look 2026-06-15 15:01 UTC: the provider does not have it yet")
    assert by_channel["email"]["message_id"] == f"<{by_channel['email']['id']}@tiendaluna.example>"
    assert "message_id" not in by_channel["sms"]
    assert by_channel["sms"]["look_at"] == "2026-06-15T15:02:00+00:00"


def test_status_counts_them_by_channel_and_says_what_to_do(shop: Doubtful) -> None:
    done = shop.run("status")

    assert "In doubt: 3 by email, 3 by sms." in done.out
    assert "outreach messages --status unknown" in done.out
    assert "outreach resolve" in done.out
    assert shop.run("status", "--json").json["in_doubt"] == {"email": 3, "sms": 3}
    assert "\nIn doubt: " not in shop.run("status", "--json").out


def test_every_report_that_counts_messages_counts_them(shop: Doubtful) -> None:
    rows = shop.run("report", "campaigns", "--json").json["rows"]

    assert [(row["campaign"], row["unknown"]) for row in rows] == [("mails", 3), ("texts", 3)]
    shown = shop.run("report", "campaigns").out.splitlines()
    assert "unknown" in shown[1]


def test_one_tick_of_the_stage_by_hand(shop: Doubtful) -> None:
    settings = Path("outreach.yaml")
    settings.write_text(settings.read_text().replace("sms: {", "sms: {in_doubt: resend_if_absent, "))

    shown = shop.run("tick", "reconcile", "--now", "2026-06-15T15:01Z", "--limit", "2")
    plain = shop.run("tick", "reconcile", "--now", LATER, "--json").json

    assert ["2", "0", "0", "2"] in [line.split() for line in shown.out.splitlines()]
    assert ["too_early", "2"] in [line.split() for line in shown.out.splitlines()]
    assert plain == {"looked": 6, "sent": 0, "planned": 3, "unknown": 3, "by_reason": {"absent": 6}}
    assert (shop.statuses("sms"), shop.statuses("email")) == ({"planned"}, {"unknown"})


# --- settings ----------------------------------------------------------------------------------------------


def test_a_channel_that_cannot_be_asked_says_so_where_it_is_told_to_resend(shop: Doubtful) -> None:
    settings = Path("outreach.yaml")
    mail = '{provider: smtp, host: mail.example, in_doubt: resend_if_absent, from: "T <a@b.example>"}'
    settings.write_text(WORKSPACE.replace('{provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}', mail))

    done = shop.run("check")

    assert (
        "warning: `in_doubt` changes nothing here: smtp cannot be asked what became of a message" in done.out + done.err
    )


def test_what_to_do_in_doubt_is_set_for_each_channel_and_is_to_hold(shop: Doubtful, tmp_path: Path) -> None:
    (tmp_path / "outreach.yaml").write_text(WORKSPACE.replace("sms: {", "sms: {in_doubt: resend_if_absent, "))
    read = load(tmp_path, {}).channels

    assert {name: one.in_doubt for name, one in read.items()} == {"email": "hold", "sms": "resend_if_absent"}


@pytest.mark.parametrize(
    ("channel", "configured", "known"),
    [
        ("email", ChannelSettings("smtp", "T <a@b.example>"), "<abc@b.example>"),
        (
            "email",
            ChannelSettings("smtp", "T <a@b.example>", pool=("T <a@b.example>", "c@b.example")),
            "<abc@b.example>",
        ),
        ("email", ChannelSettings("smtp", "T <a@b.example>", pool=("T <a@b.example>", "c@d.example")), ""),
        ("email", ChannelSettings("sendgrid", "T <a@b.example>"), ""),
        ("email", ChannelSettings("smtp", "nobody"), ""),
        ("sms", ChannelSettings("outbox", "+525500000000"), ""),
    ],
)
def test_a_message_id_is_told_where_it_can_be_known(
    tmp_path: Path, channel: str, configured: ChannelSettings, known: str
) -> None:
    assert message_id(shop_settings(tmp_path, channels={channel: configured}), channel, "abc") == known
    assert message_id(shop_settings(tmp_path, channels={}), channel, "abc") == ""
