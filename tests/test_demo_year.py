"""
The whole starter kit, lived through for a year: what the demo's ledger says, against the files and the outbox.

What must hold is computed here again in plain Python; the database is asked only for its rows.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from outreach import importer, starter_kit
from outreach.cli import commands
from outreach.demo import story, year
from outreach.demo.replay import Replay, prepare
from outreach.models import Answer, Case, Coupon, CouponMessage, CouponRedemption, Enrolment, Message, Order
from outreach.reports.campaigns import campaigns
from outreach.reports.coupons import coupons
from outreach.sources.csv import CsvSource
from tests.shop import rows_of
from tests.test_demo import Sent, database_of, outbox_of

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
EVER = (date(1970, 1, 1), date(2200, 1, 1))
CAPS = (("marketing", 1, timedelta(days=1)), ("marketing", 3, timedelta(days=7)), ("service", 3, timedelta(days=1)))
UNSENT = ("failed", "unknown", "held", "skipped", "expired", "cancelled")


@dataclass(frozen=True)
class Year:
    replay: Replay
    told: str
    outbox: dict[str, Sent]
    messages: list[Any]
    ledger: dict[str, dict[str, Any]]  # by campaign
    environ: dict[str, str]
    share: float  # of a whole year


DAYS = {"sqlite": year.DAYS, "postgresql": 75}  # to be lived through


@pytest.fixture(scope="module", params=list(DAYS))
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    folder = tmp_path_factory.mktemp("year") / "shop"
    folder.mkdir()
    db, environ = database_of(request, request.param, folder)
    replay = prepare(folder, now=NOW, customers=120, days=DAYS[request.param], campaigns=None, db=db)
    written = StringIO()
    show = Console(file=written, width=160)
    story.watch(show, replay, whole_year=True)
    story.tell(show, replay, whole_year=True)
    rows = campaigns(db, replay.settings, *EVER, now=NOW, goals={}).rows
    ledger = {row["campaign"]: row for row in rows}
    yield Year(
        replay,
        written.getvalue(),
        outbox_of(folder / "outbox"),
        rows_of(db, Message),
        ledger,
        environ,
        DAYS[request.param] / 365,
    )
    db.engine.dispose()


def test_every_campaign_of_the_kit_has_its_year(lived: Year) -> None:
    kit = {path.stem for path in starter_kit.folder().glob("campaigns/*.yaml")}

    assert lived.ledger.keys() <= kit | {"answers"}
    assert sum(row["sent"] > 0 for row in lived.ledger.values()) >= (len(kit) - 3 if lived.share == 1 else 10)


def test_nobody_gets_more_than_the_caps_allow(lived: Year) -> None:
    purpose = {row.public_id: row.purpose for row in lived.messages}
    times: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for sent in lived.outbox.values():
        times[purpose[sent.id], sent.address].append(sent.at)

    for of, most, per in CAPS:
        checked = 0
        for (kind, _), moments in times.items():
            if kind == of:
                checked += 1
                assert all(sum(at <= other < at + per for other in moments) <= most for at in moments)
        assert checked > 10


def test_nobody_with_an_open_case_gets_marketing_but_about_that_very_case(lived: Year) -> None:
    troubled: dict[int, list[Any]] = defaultdict(list)
    for case in rows_of(lived.replay.db, Case):
        troubled[case.customer_id].append(case)
    about = {
        row.id: row.record_id for row in rows_of(lived.replay.db, Enrolment) if row.campaign == "cancellation_save"
    }

    seen = 0
    for row in lived.messages:
        if row.purpose == "marketing" and row.status == "sent":
            for case in troubled[row.customer_id]:
                is_open = case.opened_at <= row.sent_at and (case.closed_at is None or row.sent_at < case.closed_at)
                assert not is_open or about.get(row.enrolment_id) == case.id
                seen += 1
    assert seen > 20 * lived.share


def test_the_outbox_has_what_the_ledger_calls_sent(lived: Year) -> None:
    by_call = {row.public_id for row in lived.messages if row.channel == "call" and row.status == "sent"}
    campaign = {row.public_id: row.campaign for row in lived.messages}
    sent = Counter(campaign[name] for name in (*lived.outbox, *by_call))

    assert sent == {name: row["sent"] for name, row in lived.ledger.items() if row["sent"]}


def test_every_message_stands_in_one_column_and_every_one_unsent_has_a_reason(lived: Year) -> None:
    never = Counter((row.campaign, row.reason) for row in rows_of(lived.replay.db, Enrolment) if not row.arm)
    for name, row in lived.ledger.items():
        mine = [message for message in lived.messages if message.campaign == name]
        assert row["planned"] + row["sent"] + sum(row[status] for status in UNSENT) == len(mine)
        why = Counter(message.reason for message in mine if message.status not in ("planned", "sent"))
        why.update({reason: count for (campaign, reason), count in never.items() if campaign == name})
        assert row["by_reason"] == why
        assert None not in row["by_reason"]


def test_the_coupons_of_the_ledger_are_those_of_the_outbox_and_of_the_shops_orders(lived: Year) -> None:
    """Codes are found in the texts that left, redemptions in the shop's own file, discounts from goods and totals."""
    offered = {row.code: row for row in rows_of(lived.replay.db, Coupon) if row.customer_id is not None}
    first = _first_message(lived, offered)
    campaign = {row.public_id: row.campaign for row in lived.messages}
    issued = Counter(campaign[message] for message in first.values())
    assert issued == {name: row["coupons"] for name, row in lived.ledger.items() if row["coupons"]}
    assert sum(issued.values()) > 40 * lived.share

    revenue: dict[str, Counter[str]] = defaultdict(Counter)
    discount: dict[str, Counter[str]] = defaultdict(Counter)
    used: dict[str, set[str]] = defaultdict(set)
    orders = 0
    for one in _orders(lived.replay.shop.folder / "orders.csv"):
        if one["code"] in first:
            of = campaign[first[one["code"]]]
            used[of].add(one["code"])
            if not one["cancelled"]:
                revenue[of][one["currency"]] += one["total"]
                discount[of][one["currency"]] += one["goods"] - one["total"]
                orders += 1
    assert orders > 5 * lived.share
    for name, row in lived.ledger.items():
        assert row["coupons_used"] == len(used[name])
        assert row["revenue"] == revenue[name]
        for currency, taken in discount[name].items():
            assert abs(row["discount"].get(currency, 0) - taken) <= orders  # each is rounded to a hundredth
    expired = sum(
        row.expires_at is not None and row.expires_at <= NOW and row.voided_at is None and row.redeemed_at is None
        for row in offered.values()
    )
    assert sum(row["coupons_expired"] for row in lived.ledger.values()) == expired > 0


def _first_message(lived: Year, offered: dict[str, Any]) -> dict[str, str]:
    """By code that stands in any text of the outbox: the earliest message that carried it."""
    found: dict[str, str] = {}
    for sent in sorted(lived.outbox.values(), key=lambda one: one.at):
        for word in re.findall(r"[A-Z0-9]{6,}", sent.text):
            if word in offered:
                found.setdefault(word, sent.id)
    return found


def _orders(path: Path) -> Iterator[dict[str, Any]]:
    """The shop's orders in hundredths, goods as its lines add up; refused rows left out."""
    with path.open(encoding="utf-8", newline="") as file:
        for _, some in groupby(csv.DictReader(file), key=lambda row: row["order_id"]):
            lines = list(some)
            if re.fullmatch(r"\d+\.\d\d", lines[0]["total"]):
                goods = sum(int(Decimal(line["unit_price"]) * 100) * int(line["quantity"]) for line in lines)
                total = int(Decimal(lines[0]["total"]) * 100)
                yield {
                    "code": lines[0]["coupon_code"], "currency": lines[0]["currency"], "goods": goods, "total": total,
                    "cancelled": bool(lines[0]["cancelled_at"]),
                }  # fmt: skip


def test_a_code_reached_one_customer_only_and_the_books_balance(lived: Year) -> None:
    owner = {row.id: row.customer_id for row in rows_of(lived.replay.db, Coupon)}
    recipient = {row.id: row.customer_id for row in lived.messages}
    for carried in rows_of(lived.replay.db, CouponMessage):
        assert recipient[carried.message_id] == owner[carried.coupon_id]
    rows = coupons(lived.replay.db, lived.replay.settings, *EVER, now=NOW).rows
    for row in rows:
        assert row["issued"] == row["used"] + row["expired"] + row["void"] + row["waiting"]
    assert sum(row["issued"] for row in rows) == sum(row["coupons"] for row in lived.ledger.values())
    assert sum(row["used"] for row in rows) == sum(row["coupons_used"] for row in lived.ledger.values()) > 0
    valid = [row for row in rows_of(lived.replay.db, CouponRedemption) if row.verdict == "valid"]
    assert len({row.order_id for row in valid}) == sum(row["orders"] for row in rows) + _uncounted(lived, valid)


def _uncounted(lived: Year, valid: list[Any]) -> int:
    counted = {row.id for row in rows_of(lived.replay.db, Order) if row.counted}
    return len({row.order_id for row in valid} - counted)


def test_customers_answered_and_somebody_called(lived: Year) -> None:
    assert {row.survey for row in rows_of(lived.replay.db, Answer)} >= {"csat", "nps"}
    assert any(row.channel == "call" and row.status == "sent" for row in lived.messages)


def test_a_year_later_the_shops_whole_files_say_nothing_new(lived: Year) -> None:
    report = importer.import_source(
        lived.replay.db, lived.replay.settings, CsvSource(dict(lived.replay.shop.files)), NOW
    )

    for counts in (report.customers, report.orders, report.cases):
        assert (counts.created, counts.updated) == (0, 0)
        assert counts.unchanged > 10


def test_the_ledger_is_printed_with_every_campaign(lived: Year) -> None:
    at = lived.told.index("The ledger, campaign by campaign")
    ledger = lived.told[at : lived.told.index("Did customers come back?")]

    for name, row in lived.ledger.items():
        line = next(line for line in ledger.splitlines() if line.strip().startswith(f"{name} "))
        assert f" {row['sent']:,}" in line
    assert "MXN" in ledger


@pytest.mark.parametrize("words", [("campaigns",), ("coupons",)])
def test_the_reports_of_the_command_line_show_it(lived: Year, words: tuple[str, ...]) -> None:
    root: Any = commands()
    where = ["--workspace", str(lived.replay.settings.workspace), "--now", NOW.isoformat()]
    result = CliRunner(env=lived.environ).invoke(root, [*where, "report", *words])

    assert result.exit_code == 0, result.output
    assert "MXN" in result.output


def test_the_kit_that_was_played_is_the_kit_that_shops_get(lived: Year) -> None:
    played = lived.replay.settings.workspace / "campaigns"

    for path in starter_kit.folder().glob("campaigns/*.yaml"):
        assert (played / path.name).read_bytes() == path.read_bytes()
