"""A thousand messages of the sample shop on each channel, by the command line, through the providers' own clients."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import date
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from outreach import store
from outreach.cli import commands
from outreach.demo.shop import write_shop
from outreach.models import Message
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.smtp import FakeSmtp
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from tests.by_twilio import breaches
from tests.openapi import is_here, problems
from tests.shop import rows_of

MANY = 1_000
ROOT = Path(__file__).parents[1]
SETTINGS = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN, locale: es-MX, country: MX}
public_url: https://luna.example
sending_hours: {default: {mon-sun: "00:00-24:00"}}
unknown_zone: business
channels:
  CHANNEL
"""
CAMPAIGN = """
title: Aviso
purpose: transactional
trigger: {date: 2026-06-20, at: "12:00"}
steps: [{id: aviso, after: 0 days, channel: CHANNEL, template: aviso}]
"""
LETTER = """---
subject: "{% if customer.first_name %}{{ customer.first_name }}: {% endif %}cambiamos de dirección 🏬"
---
<p>{{ customer | greeting }}: desde mañana estamos en la calle Ñandú 12.</p>
"""
TEXT = "{{ customer | greeting }}: desde mañana estamos en la calle Ñandú 12."
APPROVED = (
    """---
content_sid: HX0123456789abcdef0123456789abcdef
variables:
  1: "{{ customer.first_name | default('amiga') }}"
---
"""
    + TEXT
)


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has the sample shop's customers, imported by the command line."""
    folder = tmp_path_factory.mktemp("customers")
    shop = write_shop(folder / "data", today=date(2026, 6, 15), customers=1_700)
    with_page_ids(shop.files["customers"])
    (folder / "outreach.yaml").write_text(SETTINGS.replace("CHANNEL", "{}"), encoding="utf-8")
    here(folder, {}, "import", "--customers", str(shop.files["customers"]), "--now", "2026-06-16")
    return folder / "outreach.db"


def here(folder: Path, environment: Mapping[str, str], *arguments: str) -> None:
    """The command line in this process: what comes before the thousand messages need not import everything anew."""
    root: Any = commands()
    done = CliRunner(env=environment).invoke(root, [*arguments, "--workspace", str(folder)])
    assert done.exit_code == 0, done.output


def run(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments, "--workspace", str(folder)]
    more = {**os.environ, **environment}
    done = subprocess.run(command, env=more, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Shop:
    """A workspace of the sample shop, and the command line in it."""

    def __init__(
        self, folder: Path, customers: Path, channel: str, configured: str, environment: Mapping[str, str]
    ) -> None:
        self.folder, self.environment = folder, environment
        shutil.copy(customers, folder / "outreach.db")
        (folder / "outreach.yaml").write_text(SETTINGS.replace("CHANNEL", f"{channel}: {configured}"), encoding="utf-8")
        for name, text in {
            "campaigns/aviso.yaml": CAMPAIGN.replace("CHANNEL", channel),
            "message_templates/aviso.email.j2": LETTER,
            "message_templates/aviso.text.j2": TEXT,
            "message_templates/aviso.whatsapp.j2": APPROVED,
        }.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        here(folder, environment, "publish", "--yes", "--now", "2026-06-16")
        here(folder, environment, "tick", "plan", "--now", "2026-06-20T12:00")

    def dispatch(self) -> Counter[str]:
        """Dispatch until a thousand are sent: of those who share a number, one gets the message."""
        counts: Counter[str] = Counter()
        while counts["sent"] < MANY:
            missing = str(MANY - counts["sent"])
            arguments = ("tick", "dispatch", "--limit", missing, "--now", "2026-06-20T12:00", "--json")
            said = json.loads(run(self.folder, self.environment, *arguments))
            assert said["claimed"]
            counts.update(claimed=said["claimed"], sent=said["sent"], **said["by_reason"])
        return counts

    def sent(self) -> list[Any]:
        db = store.open_database(f"sqlite:///{self.folder / 'outreach.db'}", timezone="America/Mexico_City")
        rows = rows_of(db, Message, status="sent")
        db.engine.dispose()
        return rows


def with_page_ids(file: Path) -> None:
    """Give every customer the id that Messenger knows them by."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    rows[0].append("messenger_id")
    for number, row in enumerate(rows[1:]):
        row.append(str(4_000_000_000_000_000 + number))
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)


def expect_each_once(shop: Shop, counts: Counter[str], acceptances: Mapping[str, int]) -> None:
    sent = shop.sent()
    assert counts.keys() <= {"claimed", "sent", "at_most"}
    assert (counts["claimed"] - counts["at_most"], counts["sent"]) == (MANY, MANY)
    assert len(sent) == len({row.provider_id for row in sent}) == len({row.contact_id for row in sent}) == MANY
    assert acceptances == {row.public_id: 1 for row in sent}


def test_a_thousand_emails_over_smtp(tmp_path: Path, customers: Path) -> None:
    with FakeSmtp(login=("luna", "a password")) as smtp:
        configured = f'{{provider: smtp, from: "Tienda Luna <hola@luna.example>", host: 127.0.0.1, port: {smtp.port}'
        configured += ", security: none, user: luna}"
        shop = Shop(tmp_path, customers, "email", configured, {"SMTP_PASSWORD": "a password"})

        counts = shop.dispatch()

        expect_each_once(shop, counts, smtp.accepted_by_public_id())
        assert len(smtp.accepted) == MANY
        for one in smtp.accepted:
            letter = message_from_bytes(one.content, policy=policy.default)
            assert not letter.defects
            assert letter["Subject"].endswith("cambiamos de dirección 🏬")
            assert "Ñandú 12" in letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]


@pytest.mark.parametrize("batch", [1, 100])
def test_a_thousand_emails_through_sendgrid(tmp_path: Path, customers: Path, batch: int) -> None:
    with FakeSendGrid() as sendgrid:
        configured = f'{{provider: sendgrid, from: "Tienda Luna <hola@luna.example>", base_url: "{sendgrid.url}"'
        shop = Shop(tmp_path, customers, "email", f"{configured}, batch: {batch}}}", sendgrid.environment)

        counts = shop.dispatch()

        expect_each_once(shop, counts, sendgrid.accepted_by_public_id())
        assert len(sendgrid.accepted) == MANY
        assert len(sendgrid.requests) == MANY / batch
        if is_here("sendgrid_mail.json"):
            for one in sendgrid.requests[:: max(1, 50 // batch)]:
                assert problems("sendgrid_mail.json", one.method, one.path, one.headers, one.body) == []


@pytest.mark.parametrize("channel", ["sms", "whatsapp", "messenger"])
def test_a_thousand_messages_through_twilio(tmp_path: Path, customers: Path, channel: str) -> None:
    with FakeTwilio() as twilio:
        sender = "1234567890" if channel == "messenger" else "+525500000000"
        configured = f'{{provider: twilio, from: "{sender}", base_url: "{twilio.url}", rate: 100000 per second}}'
        environment = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
        shop = Shop(tmp_path, customers, channel, configured, environment)

        counts = shop.dispatch()

        expect_each_once(shop, counts, twilio.accepted_by_public_id())
        assert len(twilio.accepted) == MANY
        if is_here("twilio_messages.json"):
            assert breaches(twilio) == []
