"""Campaigns whose messages providers accept, and report as failed later: paused where it is no recipient's fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import event, text, update

from outreach import alerts, channels, dispatcher, inbox, planner, store
from outreach.channels import InboundEvent, Outcome, Outgoing, Receipt, Silent
from outreach.channels.sendgrid.events import read_events
from outreach.channels.twilio import webhooks
from outreach.dispatcher import watching
from outreach.models import Alarm, CampaignState, Message, MessageEvent, Status, table
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, publish, rows_of, shop_settings

MINUTE = timedelta(minutes=1)
LATER = NOW + 10 * MINUTE
TEXTS = """
    title: Texts
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: hi, after: 0 minutes, channel: [sms, email], template: m, expires: 3 days}]
"""
FILTERED = "the carrier or Twilio filters this text as spam: change it before sending more (Twilio 30007)"


class Taking(Silent):
    """Accepts everything."""

    def send(self, batch: Iterable[Outgoing]) -> Iterable[Receipt]:
        for message in batch:
            yield Receipt(message.public_id, Outcome.ACCEPTED, f"p-{message.public_id}")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(channels, "open_channel", lambda _name, _settings: Taking())
    return shop_settings(tmp_path)


def planned(db: Database, settings: Settings, people: Iterable[int], now: datetime = NOW, **cells: Any) -> None:
    if not rows_of(db, CampaignState):
        publish(db, settings, now - timedelta(hours=1), texts=TEXTS)
    feed(db, settings, now, customers=[customer(n, created_at=now, **cells) for n in people])
    planner.plan(db, settings, now)


def sent(db: Database, settings: Settings, people: Iterable[int], now: datetime = NOW, **cells: Any) -> None:
    planned(db, settings, people, now, **cells)
    dispatcher.dispatch(db, settings, now)


Says = Callable[[Any], list[InboundEvent]]  # what a provider says of a message


def by_twilio(code: str, status: str = "undelivered") -> Says:
    def says(row: Any) -> list[InboundEvent]:
        form = {"MessageSid": row.provider_id, "MessageStatus": status, "ErrorCode": code, "To": "+525541000001"}
        return list(webhooks.events(f"https://shop.example/?m={row.public_id}", urlencode(form).encode()))

    return says


def by_sendgrid(said: Mapping[str, str]) -> Says:
    def says(row: Any) -> list[InboundEvent]:
        of = {"sg_event_id": row.public_id, "sg_message_id": row.provider_id, "outreach": row.public_id}
        return list(read_events(json.dumps([{**of, **said}]).encode()))

    return says


def report(db: Database, settings: Settings, rows: Iterable[Any], says: Says, at: datetime = LATER) -> None:
    inbox.accept(db, settings, at, "a provider", [one for row in rows for one in says(row)])
    inbox.receive(db, settings, at)


def paused_for(db: Database, settings: Settings, now: datetime = LATER + MINUTE) -> str:
    """Why the campaign is paused after one more dispatch; empty if it is not."""
    dispatcher.dispatch(db, settings, now)
    (state,) = rows_of(db, CampaignState)
    assert (state.paused_at is None) == (not state.paused_reason)
    return str(state.paused_reason)


def on(db: Database, channel: str) -> list[Any]:
    return rows_of(db, Message, status=Status.SENT, channel=channel)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("30007", FILTERED),
        ("30034", "the number is not registered for A2P 10DLC: register it in Twilio's console (Twilio 30034)"),
        ("30454", "the trial account has used up its messages: upgrade it (Twilio 30454)"),
        (
            "63021",
            "the template's variables are too long, or its content is invalid: correct the template (Twilio 63021)",
        ),
        ("30001", "the sender's queue is full: set a lower `rate` (Twilio 30001)"),
    ],
)
def test_a_campaign_whose_messages_fail_after_they_were_accepted_is_paused_and_a_person_is_told(
    db: Database, settings: Settings, code: str, what: str
) -> None:
    planned(db, settings, range(120))
    now = NOW
    while not rows_of(db, CampaignState)[0].paused_at and now < NOW + 10 * MINUTE:
        dispatcher.dispatch(db, settings, now, limit=20)
        report(db, settings, on(db, "sms"), by_twilio(code), at=now)
        now += MINUTE

    (state,) = rows_of(db, CampaignState)
    assert state.paused_reason == f"20 of 40 messages by sms failed (50.0%, over 10.0%): {what}"
    assert (len(on(db, "sms")), len(rows_of(db, Message, status=Status.PLANNED))) == (40, 80)
    alerts.watch(db, settings, now)
    (alarm,) = (row for row in rows_of(db, Alarm) if not row.name.startswith("."))
    assert (alarm.name, state.paused_reason in alarm.text) == ("paused:texts", True)


@pytest.mark.parametrize("code", ["30003", "30008", "30036", "63049", "12345", "21408", ""])
def test_what_is_one_recipient_s_affair_or_unheard_of_pauses_nothing(
    db: Database, settings: Settings, code: str
) -> None:
    sent(db, settings, range(12))
    report(db, settings, on(db, "sms"), by_twilio(code))

    assert len(rows_of(db, MessageEvent, kind="failed")) == 12
    assert paused_for(db, settings) == ""


@pytest.mark.parametrize(("of", "failed"), [(4, 4), (50, 5), (60, 5)])
def test_a_few_failures_or_a_tenth_of_all_pause_nothing(db: Database, settings: Settings, of: int, failed: int) -> None:
    sent(db, settings, range(of))
    report(db, settings, on(db, "sms")[:failed], by_twilio("30007"))

    assert paused_for(db, settings) == ""


def test_a_message_that_is_reported_more_than_once_counts_once(db: Database, settings: Settings) -> None:
    sent(db, settings, range(10))
    for status in ("failed", "undelivered"):
        report(db, settings, on(db, "sms")[:4], by_twilio("30007", status))

    assert len(rows_of(db, MessageEvent, kind="failed")) == 8
    assert paused_for(db, settings) == ""


def test_failures_on_one_channel_are_measured_against_what_went_by_that_channel(
    db: Database, settings: Settings
) -> None:
    sent(db, settings, range(100), phone="", timezone="America/Mexico_City")
    sent(db, settings, range(100, 108), NOW + MINUTE)
    report(db, settings, on(db, "sms")[:6], by_twilio("30007"))

    assert len(on(db, "email")) == 100
    assert paused_for(db, settings) == f"6 of 8 messages by sms failed (75.0%, over 10.0%): {FILTERED}"


def test_of_several_causes_the_commonest_is_told(db: Database, settings: Settings) -> None:
    sent(db, settings, range(20))
    rows = on(db, "sms")
    for code, some in (("30034", rows[:2]), ("30007", rows[2:6]), ("30003", rows[6:])):
        report(db, settings, some, by_twilio(code))

    assert paused_for(db, settings) == f"6 of 20 messages by sms failed (30.0%, over 10.0%): {FILTERED}"


def test_after_a_person_resumed_it_only_failures_of_what_was_sent_since_count(db: Database, settings: Settings) -> None:
    sent(db, settings, range(20))
    old = on(db, "sms")
    report(db, settings, old[:10], by_twilio("30007"))
    assert paused_for(db, settings) != ""
    resumed = LATER + 2 * MINUTE
    with store.write(db) as connection:
        connection.execute(update(table(CampaignState)).values(paused_at=None, paused_reason="", resumed_at=resumed))
    report(db, settings, old[10:], by_twilio("30007"), at=resumed + MINUTE)  # what was on its way
    assert paused_for(db, settings, resumed + MINUTE) == ""

    sent(db, settings, range(20, 30), resumed + 2 * MINUTE)
    new = [row for row in on(db, "sms") if row not in old]
    report(db, settings, new[:5], by_twilio("30007"), at=resumed + 3 * MINUTE)
    reason = paused_for(db, settings, resumed + 4 * MINUTE)
    assert reason == f"5 of 10 messages by sms failed (50.0%, over 10.0%): {FILTERED}"


def test_what_was_sent_more_than_seven_days_ago_no_longer_counts(db: Database, settings: Settings) -> None:
    sent(db, settings, range(10))
    report(db, settings, on(db, "sms"), by_twilio("30007"), at=NOW + timedelta(days=8))

    assert paused_for(db, settings, NOW + timedelta(days=8)) == ""


POLICY = "mail servers refuse the sender or the text: check SPF, DKIM and DMARC of the sender's domain"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (
            {"event": "bounce", "bounce_classification": "Content", "status": "5.7.1"},
            "mailbox providers take this text for spam: change it before sending more (SendGrid: Content)",
        ),
        (
            {"event": "bounce", "type": "blocked", "bounce_classification": "Reputation", "status": "550"},
            "mailbox providers distrust the sender: see its reputation in SendGrid's console (SendGrid: Reputation)",
        ),
        (
            {"event": "dropped", "reason": "Spam Content"},
            "SendGrid takes this text for spam: change it before sending more (SendGrid: Spam Content)",
        ),
        ({"event": "bounce", "type": "blocked", "status": "5.7.26"}, f"{POLICY} (5.7.26)"),
        ({"event": "bounce", "bounce_classification": "Unclassified", "status": "5.7.509"}, f"{POLICY} (5.7.509)"),
        ({"event": "bounce", "type": "blocked", "status": "5.7.13"}, ""),
        ({"event": "bounce", "type": "blocked", "status": "5.2.2"}, ""),
        ({"event": "bounce", "type": "blocked"}, ""),
        ({"event": "bounce", "bounce_classification": "Mailbox Unavailable", "status": "5.7.1"}, ""),
        ({"event": "bounce", "bounce_classification": "Technical", "status": "550"}, ""),
        ({"event": "dropped", "reason": "a reason that SendGrid thought of later"}, ""),
    ],
)
def test_what_sendgrid_reports_later_pauses_where_sender_or_text_is_at_fault(
    db: Database, settings: Settings, said: dict[str, str], what: str
) -> None:
    sent(db, settings, range(10), phone="", timezone="America/Mexico_City")
    report(db, settings, on(db, "email")[:5], by_sendgrid(said))

    assert len(rows_of(db, MessageEvent, kind="failed")) == 5
    assert paused_for(db, settings) == (what and f"5 of 10 messages by email failed (50.0%, over 10.0%): {what}")


def test_looking_for_failures_reads_no_table_from_end_to_end(db: Database, settings: Settings) -> None:
    sent(db, settings, range(10))
    report(db, settings, on(db, "sms"), by_twilio("", "delivered"), at=NOW + MINUTE)
    sent(db, settings, range(10, 60), LATER)
    report(db, settings, on(db, "sms")[10:17], by_twilio("30007"))
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    with store.write(db) as connection:
        event.listen(connection, "before_cursor_execute", note)
        assert watching.watch(connection, settings, LATER)
        event.remove(connection, "before_cursor_execute", note)
        if not db.is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # it has few rows
        explain = "EXPLAIN QUERY PLAN " if db.is_sqlite else "EXPLAIN "
        plans = [
            str(row) for statement, values in asked for row in connection.exec_driver_sql(explain + statement, values)
        ]

    assert any("ix_messages_created" in line for line in plans)
    assert any("ix_events_failed" in line for line in plans)
    assert [line for line in plans for of in ("events", "messages") if f"SCAN {of}" in line] == []
    assert [line for line in plans if "Seq Scan" in line] == []
