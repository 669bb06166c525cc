"""Every way a provider can fail, on every provider, as the documentation says it ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach import dispatcher, planner, store
from outreach.channels import smtp_connection
from outreach.models import CampaignState, Message, MessageEvent, Suppression
from outreach.settings import ChannelSettings, Settings
from outreach.store import Database
from outreach.testing import Fault, Faults
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.smtp import FakeSmtp
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from outreach.values import Duration, Limit
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, publish, rows_of, shop_settings

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "what-happens-when-a-provider-fails.md"
PROVIDERS = ("smtp", "sendgrid", "twilio")
NOT_PROMISED = "–"  # the page says why
FAST = Limit(1_000_000, Duration(seconds=1))
CAMPAIGN = """
    title: One
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: one, after: 0 minutes, channel: CHANNEL, template: m, expires: 30 days}]
"""


def documented() -> Iterator[tuple[str, Fault, str, str]]:
    """Provider, fault, and what the page says: at once, and in the end."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.match(r"`(\w+)`:", cells[0]):
            for provider, cell in zip(PROVIDERS, cells[1:], strict=True):
                if cell not in ("", NOT_PROMISED):
                    at_once, _, in_the_end = cell.partition(" → ")
                    yield provider, Fault(match[1]), at_once, in_the_end


CASES = list(documented())


@dataclass
class Rig:
    """A provider's stand-in, and the settings that lead to it."""

    settings: Settings
    faults: Faults
    acceptances: Callable[[str], int]


@contextmanager
def rig(provider: str, folder: Path) -> Iterator[Rig]:
    settings = shop_settings(folder)
    email = "Tienda Luna <hola@tiendaluna.example>"
    soon = {"timeout": Duration(seconds=1)}
    if provider == "smtp":
        with FakeSmtp() as smtp:
            made = ChannelSettings("smtp", email, {"host": "127.0.0.1", "port": smtp.port, "security": "none", **soon})
            found = replace(settings, channels={"email": made})
            yield Rig(found, smtp.faults, lambda i: smtp.accepted_count(f"<{i}@tiendaluna.example>"))
    elif provider == "sendgrid":
        with FakeSendGrid() as sendgrid:
            made = ChannelSettings("sendgrid", email, {"base_url": sendgrid.url, "batch": 1, **soon})
            found = replace(settings, channels={"email": made}, secrets=sendgrid.environment)
            yield Rig(found, sendgrid.faults, sendgrid.accepted_count)
    else:
        with FakeTwilio() as twilio:
            made = ChannelSettings("twilio", "+525500000000", {"base_url": twilio.url, **soon}, rate=FAST)
            secrets = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
            found = replace(settings, channels={"sms": made}, secrets=secrets)
            yield Rig(found, twilio.faults, lambda i: twilio.accepted_count(i))


@pytest.fixture(autouse=True)
def _no_longer_for_a_whole_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_connection, "DOT_TIMEOUTS", 1)


def planned(db: Database, settings: Settings, people: int = 1) -> None:
    publish(db, settings, NOW - timedelta(hours=1), one=CAMPAIGN.replace("CHANNEL", next(iter(settings.channels))))
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW) for n in range(people)])
    planner.plan(db, settings, NOW)


def stands(message: Any) -> str:
    why = message.blocked_by if message.status == "planned" else message.reason
    return f"{message.status} ({why})" if why else str(message.status)


def later_ticks(db: Database, settings: Settings) -> None:
    for hours in (1, 6, 24, 48):
        dispatcher.dispatch(db, settings, NOW + timedelta(hours=hours))


def test_the_page_has_every_fault_and_every_provider() -> None:
    assert {fault for _, fault, _, _ in CASES} == set(Fault)
    assert {provider for provider, _, _, _ in CASES} == set(PROVIDERS)


@pytest.mark.parametrize(("provider", "fault", "at_once", "in_the_end"), CASES)
def test_a_fault_ends_as_documented_and_never_in_a_second_acceptance(
    new_database: Callable[[str], str], tmp_path: Path, provider: str, fault: Fault, at_once: str, in_the_end: str
) -> None:
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    with rig(provider, tmp_path) as there:
        planned(db, there.settings)
        there.faults.add(fault)

        dispatcher.dispatch(db, there.settings, NOW)
        (first,) = rows_of(db, Message)
        later_ticks(db, there.settings)
        (last,) = rows_of(db, Message)

        assert (stands(first), str(last.status)) == (at_once, in_the_end)
        taken = fault in (Fault.BUSY_AFTER, Fault.DROP_AFTER, Fault.SLOW) or last.status == "sent"
        assert there.acceptances(first.public_id) == int(taken)
    db.engine.dispose()


def test_the_page_admits_that_a_mail_server_which_keeps_what_it_says_it_did_not_take_gets_it_twice(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| `busy_after`")]
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    with rig("smtp", tmp_path) as there:
        planned(db, there.settings)
        there.faults.add(Fault.BUSY_AFTER)

        dispatcher.dispatch(db, there.settings, NOW)
        later_ticks(db, there.settings)
        (message,) = rows_of(db, Message)

        assert there.acceptances(message.public_id) == 2
        assert row.split("|")[2].strip() == NOT_PROMISED
        assert re.search(r"^- \*\*The dash:\*\* .*451.* may arrive twice", page, re.MULTILINE)
    db.engine.dispose()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_message_that_fails_leaves_those_beside_it_alone(
    new_database: Callable[[str], str], tmp_path: Path, provider: str
) -> None:
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    with rig(provider, tmp_path) as there:
        planned(db, there.settings, 5)
        there.faults.add(None, Fault.DROP_AFTER, Fault.BAD_ADDRESS)

        dispatcher.dispatch(db, there.settings, NOW)
        later_ticks(db, there.settings)

        messages = rows_of(db, Message)
        assert sorted(str(message.status) for message in messages) == ["failed", "sent", "sent", "sent", "unknown"]
        counts = {str(message.status): there.acceptances(message.public_id) for message in messages}
        assert counts == {"sent": 1, "unknown": 1, "failed": 0}
    db.engine.dispose()


def test_an_opt_out_at_twilio_and_a_wrong_key_have_the_consequences_that_the_page_tells(
    db: Database, tmp_path: Path
) -> None:
    with rig("twilio", tmp_path) as there:
        planned(db, there.settings, 2)
        there.faults.add(Fault.OPTED_OUT, Fault.NOT_ALLOWED)

        dispatcher.dispatch(db, there.settings, NOW)

    (state,) = rows_of(db, CampaignState)
    assert state.paused_at == NOW
    assert AUTH_TOKEN not in state.paused_reason
    assert [(row.scope, row.channel) for row in rows_of(db, Suppression)] == [("contact", "sms")]
    assert [row.kind for row in rows_of(db, MessageEvent)] == ["opted_out"]
