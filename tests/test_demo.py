"""
The demo as the acceptance test: a whole shop lived through by the real stages, then checked from outside.

What must hold is computed here again, in plain Python, from the shop's files and the outbox alone; the database is
asked only which message belongs to which record.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import phonenumbers
import psycopg
import pytest
from click.testing import CliRunner
from rich.console import Console
from sqlalchemy import select

from outreach import importer, planner, releases, store
from outreach.cli import VERBS, commands
from outreach.demo import story
from outreach.demo.market import ZONE
from outreach.demo.replay import Replay, live, moments, prepare, set_up
from outreach.demo.shop import customer_row, sample
from outreach.demo.words import WORDS
from outreach.models import Enrolment, Message, Order, Reason, Reject, Status, table
from outreach.sources.csv import CsvSource
from outreach.store import Database
from tests.conftest import SECRET, not_waiting_for_the_disk

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
HOME = ZoneInfo(ZONE)
CHANNEL_COLUMNS = {"email": 14, "sms": 15, "whatsapp": 16}
# The zones of the cities that do not keep their country's main time.
OTHER_ZONES = {
    "Tijuana": "America/Tijuana",
    "Hermosillo": "America/Hermosillo",
    "Cancún": "America/Cancun",
    "Las Palmas de Gran Canaria": "Atlantic/Canary",
}
MAIN_ZONES = {
    "MX": ZONE,
    "CO": "America/Bogota",
    "AR": "America/Argentina/Buenos_Aires",
    "ES": "Europe/Madrid",
}
_messages, _orders, _enrolments, _rejects = table(Message), table(Order), table(Enrolment), table(Reject)


@dataclass(frozen=True)
class Sent:
    """A file of the outbox."""

    id: str
    channel: str
    address: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Demo:
    folder: Path
    replay: Replay
    told: str
    outbox: dict[str, Sent]
    messages: list[Any]
    environ: dict[str, str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo") / "shop"
    written = StringIO()
    show = Console(file=written, width=140)
    folder.mkdir()
    db, environ = database_of(request, request.param, folder)
    replay = prepare(folder, now=NOW, customers=400, days=50, db=db)
    story.watch(show, replay)
    story.tell(show, replay)
    with store.read(replay.db) as connection:
        messages = list(connection.execute(select(_messages)).all())
    yield Demo(folder, replay, written.getvalue(), outbox_of(folder / "outbox"), messages, environ)
    replay.db.engine.dispose()


def database_of(request: pytest.FixtureRequest, kind: str, folder: Path) -> tuple[Database, dict[str, str]]:
    """A database whose secret, and so whose arms, are always the same; and how the shell is told of it."""
    address = f"sqlite:///{folder / 'outreach.db'}"
    if kind == "postgresql":
        postgres: Callable[[str], str] = request.getfixturevalue("postgres_uri")
        name = f"demo_{uuid4().hex[:12]}"
        with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
            template = request.getfixturevalue("postgres_template")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        address = postgres(name)
    database = store.open_database(address, secret=SECRET)
    not_waiting_for_the_disk(database)
    return database, {"OUTREACH_DATABASE": address, "OUTREACH_SECRET": SECRET}


def outbox_of(folder: Path) -> dict[str, Sent]:
    sent = [_sent(path) for path in folder.iterdir()]
    assert len({one.id for one in sent}) == len(sent)
    return {one.id: one for one in sent}


def _sent(path: Path) -> Sent:
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        at = datetime.fromisoformat(content["at"])
        return Sent(content["id"], content["channel"], content["to"], at, content["text"])
    mail = message_from_bytes(path.read_bytes(), policy=policy.default)
    body = mail.get_body(("plain",))
    assert body is not None
    public_id = mail["Message-ID"].strip("<>").partition("@")[0]
    at = datetime.strptime(mail["Date"], "%a, %d %b %Y %H:%M:%S %z")
    return Sent(public_id, "email", mail["To"], at, body.get_content())


def _rows(demo: Demo, name: str) -> list[dict[str, str]]:
    with (demo.folder / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _address(channel: str, email: str, phone: str, country: str) -> str:
    if channel == "email":
        return email
    try:
        number = phonenumbers.parse(phone, country or None)
    except phonenumbers.NumberParseException:
        return ""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _utc(wall: str) -> datetime:
    return datetime.fromisoformat(wall).replace(tzinfo=HOME).astimezone(UTC)


def _consents(demo: Demo) -> dict[tuple[str, str], list[tuple[datetime, str]]]:
    """(channel, address) → what was said and when it became known: at the first morning's import after it."""
    ledger: dict[tuple[str, str], list[tuple[datetime, str]]] = defaultdict(list)
    mornings = [at for at, is_morning in moments(demo.replay.began, NOW) if is_morning]
    for person in demo.replay.shop.people:
        for until in (person.created_at, demo.replay.shop.end):
            row = customer_row(person, until)
            for channel, column in CHANNEL_COLUMNS.items():
                address = _address(channel, row[1], row[2], row[6])
                if row[column] and address:
                    said = _utc(row[18])
                    known = next((at for at in [demo.replay.began, *mornings] if at >= said), NOW)
                    ledger[channel, address].append((known, row[column]))
    return {key: sorted(lines) for key, lines in ledger.items()}


def _said(ledger: dict[tuple[str, str], list[tuple[datetime, str]]], sent: Sent) -> str:
    """The latest consent known for the message's address and channel when it left; of two at once, the no."""
    known = [(at, said) for at, said in ledger.get((sent.channel, sent.address), []) if at <= sent.at]
    return min(said for at, said in known if at == known[-1][0]) if known else ""


# --- what was sent -------------------------------------------------------------------------------


def test_every_sent_message_is_one_file_of_the_outbox_and_the_other_way_round(demo: Demo) -> None:
    sent = {row.public_id: row for row in demo.messages if row.status == Status.SENT}

    assert len(sent) > 150
    assert set(sent) == set(demo.outbox)
    for public_id, row in sent.items():
        assert demo.outbox[public_id].channel == row.channel


def test_every_starter_campaign_sent_something_on_every_channel_together(demo: Demo) -> None:
    names = {path.stem for path in (demo.folder / "campaigns").glob("*.yaml")}

    assert names == {row.campaign for row in demo.messages if row.status == Status.SENT}
    assert {one.channel for one in demo.outbox.values()} == {"email", "sms", "whatsapp"}


def test_nobody_gets_marketing_on_a_channel_they_did_not_allow_nor_service_after_a_no(demo: Demo) -> None:
    ledger = _consents(demo)
    purposes = {row.public_id: row.purpose for row in demo.messages}
    seen = set()
    for public_id, sent in demo.outbox.items():
        said = _said(ledger, sent)
        seen.add((purposes[public_id], said))
        assert said == "yes" or (purposes[public_id] == "service" and said == "")

    assert {("marketing", "yes"), ("service", "")} <= seen


def test_nobody_on_the_do_not_contact_list_gets_marketing_there(demo: Demo) -> None:
    barred = {row["address"] for row in _rows(demo, "do_not_contact.csv")}
    marketing = {row.public_id for row in demo.messages if row.purpose == "marketing"}

    assert not [one for one in demo.outbox.values() if one.address in barred and one.id in marketing]


def test_nothing_leaves_outside_sending_hours_where_the_customer_lives(demo: Demo) -> None:
    zones: dict[str, set[str]] = defaultdict(set)
    for row in _rows(demo, "customers.csv"):
        for channel in ("email", "sms"):
            address = _address(channel, row["email"], row["phone"], row["country"])
            place = OTHER_ZONES.get(row["city"]) or MAIN_ZONES.get(row["country"], "") if row["city"] else ""
            zones[address].add(row["timezone"] or place)
    checked = 0
    for sent in demo.outbox.values():
        for zone in zones[sent.address] - {""}:
            local = sent.at.astimezone(ZoneInfo(zone))
            checked += 1
            assert _is_decent(local, sent.channel), (local, zone, sent.channel)

    assert checked > len(demo.outbox) * 0.8


def _is_decent(local: datetime, channel: str) -> bool:
    if channel == "email":
        return 7 <= local.hour < 22
    return 9 <= local.hour < 20 if local.weekday() < 5 else local.weekday() == 5 and 10 <= local.hour < 15


def test_a_post_sale_message_follows_an_order_that_was_delivered(demo: Demo) -> None:
    delivered: dict[str, datetime] = {}
    for row in _rows(demo, "orders.csv"):
        if row["delivered_at"]:
            delivered[row["order_id"]] = _utc(row["delivered_at"])
        elif row["shipped_at"]:  # the settings estimate it
            delivered[row["order_id"]] = _utc(row["shipped_at"]) + timedelta(days=12)
    with store.read(demo.replay.db) as connection:
        shop_ids = {row.id: row.external_id for row in connection.execute(select(_orders.c.id, _orders.c.external_id))}
    post_sale = [row for row in demo.messages if row.campaign == "post_sale" and row.status == Status.SENT]

    assert len(post_sale) > 50
    for row in post_sale:
        assert delivered[shop_ids[row.record_id]] + timedelta(days=1) < row.sent_at


def test_no_address_gets_more_marketing_than_the_caps_allow(demo: Demo) -> None:
    marketing = {row.public_id for row in demo.messages if row.purpose == "marketing"}
    times: dict[str, list[datetime]] = defaultdict(list)
    for sent in demo.outbox.values():
        if sent.id in marketing:
            times[sent.address].append(sent.at)

    for moments_of_one in times.values():
        for at in moments_of_one:
            later = [other - at for other in moments_of_one if other >= at]
            assert sum(gap < timedelta(days=1) for gap in later) <= 1
            assert sum(gap < timedelta(days=7) for gap in later) <= 3


def test_no_text_shows_a_gap_where_a_name_or_value_is_missing(demo: Demo) -> None:
    for sent in demo.outbox.values():
        assert sent.text.strip()
        assert not any(slip in sent.text for slip in ("None", "{{", "}}", "{%", "Undefined"))


# --- what was not sent ---------------------------------------------------------------------------


def test_every_message_ends_in_one_status_and_every_non_send_has_its_reason(demo: Demo) -> None:
    keys = {(row.campaign, row.step, row.customer_id, row.occasion) for row in demo.messages}

    assert len(keys) == len(demo.messages)
    for row in demo.messages:
        assert Status(row.status) not in (Status.SENDING, Status.UNKNOWN, Status.FAILED)
        assert (row.sent_at is not None) == (row.status == Status.SENT)
        if row.status in (Status.HELD, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED):
            assert Reason(row.reason)
        if row.status == Status.PLANNED:
            assert row.expires_at > NOW
            assert Reason(row.blocked_by)
            assert row.ready_at > NOW


def test_the_held_out_got_nothing_and_those_contacted_were_not_held(demo: Demo) -> None:
    held = {row.enrolment_id for row in demo.messages if row.status == Status.HELD}
    sent = {row.enrolment_id for row in demo.messages if row.status == Status.SENT}

    assert held
    assert not held & sent
    assert {"holdout"} == {row.arm for row in demo.messages if row.status == Status.HELD}


def test_an_occasion_is_either_assigned_to_an_arm_or_skipped_with_a_reason(demo: Demo) -> None:
    with store.read(demo.replay.db) as connection:
        enrolments = connection.execute(select(_enrolments)).all()
    skipped = {row.id for row in enrolments if row.arm is None}

    assert all((row.arm is None) == (row.reason is not None) for row in enrolments)
    assert skipped
    assert not skipped & {row.enrolment_id for row in demo.messages}


def test_every_delivery_since_the_start_is_an_occasion_of_post_sale(demo: Demo) -> None:
    """Counted from the files: recorded deliveries in the replayed months, of customers the campaign is for."""
    expected = {
        row["order_id"]
        for row in _rows(demo, "orders.csv")
        if row["delivered_at"] and demo.replay.began < _utc(row["delivered_at"])
    }
    with store.read(demo.replay.db) as connection:
        query = select(_orders.c.external_id).join(_enrolments, _enrolments.c.record_id == _orders.c.id)
        found = set(connection.execute(query.where(_enrolments.c.campaign == "post_sale")).scalars())

    assert expected <= found


def test_the_rows_that_are_wrong_are_in_the_rejects_with_their_place(demo: Demo) -> None:
    with store.read(demo.replay.db) as connection:
        rejects = connection.execute(select(_rejects)).all()
    found = {(row.column, row.value) for row in rejects}
    wrong = {(bad.column, bad.value) for bad in demo.replay.shop.bad if bad.column != "customer_id"}

    assert wrong <= found
    assert all(row.line > 1 and row.reason and row.file for row in rejects)


# --- what stays behind ---------------------------------------------------------------------------


def test_importing_the_whole_files_again_changes_nothing(demo: Demo) -> None:
    replay = demo.replay
    counts = importer.import_source(replay.db, replay.settings, CsvSource(replay.shop.files), NOW).as_json()
    again = importer.import_source(replay.db, replay.settings, CsvSource(replay.shop.files), NOW).as_json()

    for kind in ("customers", "orders", "cases"):
        assert counts[kind]["created"] == 0
    assert counts["orders"]["updated"] == counts["cases"]["updated"] == 0
    assert counts["customers"]["updated"] <= 2  # the one that stands twice in its file
    assert {kind: again[kind] for kind in ("customers", "orders", "cases")} == {
        kind: counts[kind] for kind in ("customers", "orders", "cases")
    }


def test_planning_once_more_at_the_same_time_writes_nothing(demo: Demo) -> None:
    counts = planner.plan(demo.replay.db, demo.replay.settings, NOW)

    assert (counts.enrolled, counts.planned, counts.held, counts.skipped) == (0, 0, 0, 0)


def test_the_workspace_it_leaves_has_no_problem_to_fix(demo: Demo) -> None:
    problems = releases.check(releases.read_files(demo.folder), demo.replay.settings, demo.replay.db)

    assert [str(problem) for problem in problems if not problem.warning] == []


def test_the_environment_cannot_turn_the_demo_to_another_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTREACH_DATABASE", f"sqlite:///{tmp_path}/the_shop_of_somebody.db")

    assert str(tmp_path / "play") in set_up(tmp_path / "play").database


# --- what is told --------------------------------------------------------------------------------


def test_the_story_has_its_headings_in_order(demo: Demo) -> None:
    heads = [
        "1. A shop's files are read",
        "2. On ",
        "3. 50 days pass",
        "4. What was sent",
        "5. What was not sent, and why",
        "6. Three of the messages, in full",
        "7. Did customers come back?",
        "8. Where to look next",
    ]
    places = [demo.told.index(head) for head in heads]

    assert places == sorted(places)


def test_the_story_tells_the_numbers_of_the_outbox(demo: Demo) -> None:
    assert f"{len(demo.outbox):,} messages" in demo.told
    assert "5,43517E+11" in demo.told


def test_every_command_the_story_names_works_in_the_workspace(demo: Demo) -> None:
    named = [shlex.split(line.strip()) for line in re.findall(r"^  outreach (.+?)(?:  |$)", demo.told, re.MULTILINE)]

    root: Any = commands()

    assert len(named) >= 4
    for words in named:
        assert words[0] in VERBS
        if words[0] != "init":
            where = ["--workspace", str(demo.folder), "--now", NOW.isoformat()]
            result = CliRunner(env=demo.environ).invoke(root, [*where, *words])
            assert result.exit_code == 0, result.output


def test_every_reason_has_words_in_plain_english() -> None:
    assert set(WORDS) == set(Reason)


def test_three_different_messages_are_shown_one_of_them_an_email(demo: Demo) -> None:
    shown = story.three_messages(demo.replay.db)

    assert len({row.id for row in shown}) == 3
    assert shown[0].channel in ("sms", "whatsapp")
    assert shown[1].channel == "email"
    for row in shown:
        first_line = next(line for line in row.text.strip().splitlines() if line.strip())
        assert first_line[:30] in demo.told


def test_what_was_not_sent_adds_up(demo: Demo) -> None:
    never, ended, waiting = story.not_sent(demo.replay.db)

    assert sum(ended.values()) + sum(waiting.values()) + len(demo.outbox) == len(demo.messages)
    assert sum(never.values()) > 0


def test_monthly_retention_told_is_that_of_the_files(demo: Demo) -> None:
    months: dict[str, set[str]] = defaultdict(set)
    bad = {row.row[0] for row in demo.replay.shop.bad}
    for row in _rows(demo, "orders.csv"):
        if row["order_id"] not in bad and not row["cancelled_at"] and float(row["total"]) > 0:
            months[row["placed_at"][:7]].add(row["customer_id"])
    told = {row["period"]: (row["before"], row["retained"]) for row in story.monthly_retention(demo.replay)}

    assert len(told) >= 12
    for before, month in zip(sorted(months), sorted(months)[1:], strict=False):
        if month in told:
            assert told[month] == (len(months[before]), len(months[before] & months[month]))


# --- the virtual clock ---------------------------------------------------------------------------


def test_the_ticks_never_go_back_and_end_now() -> None:
    began = NOW - timedelta(days=30)
    ticks = [at for at, _ in moments(began, NOW)]

    assert ticks == sorted(set(ticks))
    assert ticks[0] > began
    assert ticks[-1] == NOW


def test_each_day_of_the_replay_has_one_import() -> None:
    mornings = [at.date() for at, is_morning in moments(NOW - timedelta(days=30), NOW) if is_morning]

    assert len(mornings) - 1 == len(set(mornings[:-1]))
    assert len(mornings) >= 30


@pytest.mark.parametrize("hour", [0, 6, 23])
def test_a_demo_begun_at_any_hour_plays(tmp_path: Path, hour: int) -> None:
    now = NOW.replace(hour=hour)
    replay = prepare(tmp_path / "shop", now=now, customers=25, days=4)
    ticks = [at for at, _ in live(replay)]
    replay.db.engine.dispose()

    assert ticks[-1] == now
    assert sample(tmp_path, today=now.astimezone(HOME).date(), customers=25).people == replay.shop.people
