"""`outreach doctor`: every part is looked at, nothing is sent, and a dead network keeps nobody waiting."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outreach import campaigns, channels, cli, releases, store
from outreach.channels import Finding
from outreach.channels.outbox import Outbox
from outreach.cli import doctor
from outreach.cli.workspace_files import NO_ADDRESS
from outreach.models import Installation, table
from outreach.render import Templates
from outreach.settings import Business, ChannelSettings, Settings
from outreach.testing.smtp import FakeSmtp
from outreach.testing.twilio import FakeTwilio
from tests.shop import files_of, shop_settings

SETTINGS = """\
business: {name: Luna, timezone: America/Mexico_City, currency: MXN}
public_url: https://luna.example
alerts: {webhook: "https://hooks.example/x"}
sources: [{kind: csv, orders: data/orders.csv}]
"""
OUTBOX = "channels: {email: {provider: outbox}}\n"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Doctor = Callable[..., Result]


@pytest.fixture
def doctor_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> Doctor:
    """Runs `outreach doctor` in a workspace of these settings, on each kind of database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    monkeypatch.setenv("OUTREACH_SECRET", "a secret for tests")
    store.open_database(database_url, secret="a secret for tests").engine.dispose()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orders.csv").write_text("order_id,customer_id,placed_at\n")

    def run(settings: str, *arguments: str) -> Result:
        (tmp_path / "outreach.yaml").write_text(settings)
        monkeypatch.setattr(sys, "argv", ["outreach", "doctor", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return run


def line(result: Result, about: str) -> str:
    [found] = [text for text in result.out.splitlines() if text[2:].startswith(f"{about}: ")]
    return found


def test_a_workspace_in_order_has_a_tick_on_every_line(doctor_of: Doctor) -> None:
    done = doctor_of(SETTINGS + OUTBOX)

    assert done.code == 0, done.out
    assert {text[0] for text in done.out.splitlines()} == {"✓"}
    assert "the secret behind ids and links comes from OUTREACH_SECRET" in done.out
    assert line(done, "sources") == "✓ sources: data/orders.csv"


def test_json_says_the_same(doctor_of: Doctor) -> None:
    import json

    done = doctor_of("business: {name: L, timezone: UTC, currency: MXN}\n" + OUTBOX, "--json")

    found = json.loads(done.out)
    assert (done.code, found["ok"]) == (0, True)
    assert [one["about"] for one in found["findings"] if one["warning"]] == ["sources", "alerts"]


def test_settings_that_are_wrong_are_said_before_the_provider_is_asked(
    doctor_of: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENDGRID_API_KEY", raising=False)
    monkeypatch.setitem(channels.CHANNELS, "sendgrid", "no.such.module.Anything")

    done = doctor_of(SETTINGS + 'channels: {email: {provider: sendgrid, from: "a@luna.example"}}\n')

    assert done.code == 1
    assert line(done, "email").startswith("✗ email: `channels.email`: the environment variable SENDGRID_API_KEY")


def test_calls_by_the_staff_become_tasks(doctor_of: Doctor) -> None:
    done = doctor_of(SETTINGS + "channels: {call: {provider: staff}}\n")

    assert (done.code, line(done, "call")) == (0, "✓ call: calls become tasks: `outreach tasks list`")


def smtp_channel(port: int) -> str:
    return f'channels: {{email: {{provider: smtp, host: 127.0.0.1, port: {port}, security: none, from: "a@luna.example"}}}}\n'


def test_a_mail_server_is_asked_and_sent_nothing(doctor_of: Doctor) -> None:
    with FakeSmtp() as server:
        done = doctor_of(SETTINGS + smtp_channel(server.port))
        assert server.accepted == []
        assert "MAIL" in server.commands

    assert done.code == 0, done.out
    assert "✓ email: the server accepts the sender of `from`" in done.out
    assert "DKIM is the server's work" in done.out


def test_a_mail_server_that_is_not_there_is_a_cross(doctor_of: Doctor) -> None:
    done = doctor_of(SETTINGS + smtp_channel(1))

    assert (done.code, line(done, "email")[0]) == (1, "✗")


def test_twilio_is_asked_about_the_sender_and_sent_nothing(doctor_of: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTwilio(senders=["+525500000000"]) as twilio:
        monkeypatch.setenv("TWILIO_ACCOUNT_SID", twilio.account_sid)
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", twilio.auth_token)
        sms = 'channels: {sms: {provider: twilio, from: "%s", base_url: "%s"}}\n'
        ours = doctor_of(SETTINGS + sms % ("+525500000000", twilio.url))
        foreign = doctor_of(SETTINGS + sms % ("+525500000001", twilio.url))
        assert twilio.accepted == []

    assert (ours.code, foreign.code) == (0, 1), ours.out
    assert "✗ sms: +525500000001 is not a number of this account (" in foreign.out


def test_links_that_lead_nowhere_matter_once_a_provider_reaches_people(doctor_of: Doctor) -> None:
    with FakeSmtp() as server:
        local = SETTINGS.replace("https://luna.example", "http://localhost:8080")
        plain = SETTINGS.replace("https://", "http://")
        results = [
            doctor_of(settings)
            for settings in (local + OUTBOX, local + smtp_channel(server.port), plain + smtp_channel(server.port))
        ]

    assert [(done.code, line(done, "public_url")[0]) for done in results] == [(0, "✓"), (1, "✗"), (0, "!")]


def test_the_address_that_marketing_emails_must_show_matters_once_they_reach_people(doctor_of: Doctor) -> None:
    with FakeSmtp() as server:
        real = SETTINGS + smtp_channel(server.port)
        own, example = (
            real.replace("timezone:", f'postal_address: "{address}", timezone:', 1)
            for address in ("Av. Reforma 1", NO_ADDRESS)
        )
        results = [doctor_of(settings) for settings in (own, example, real)]

    assert [line(done, "postal address")[0] for done in results] == ["✓", "!", "!"]
    assert "the one that `outreach init` wrote" in line(results[1], "postal address")
    assert "postal address" not in doctor_of(SETTINGS + OUTBOX).out


def test_a_source_that_is_missing_is_named(doctor_of: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data" / "orders.csv").unlink()

    done = doctor_of(SETTINGS + OUTBOX)

    assert (done.code, line(done, "sources")[:40]) == (1, "✗ sources: there is no data/orders.csv (")


def test_alerts_that_only_reach_a_folder_or_nobody_are_a_warning(doctor_of: Doctor) -> None:
    by_mail = SETTINGS.replace('webhook: "https://hooks.example/x"', "email: a@luna.example")

    folder = doctor_of(by_mail + OUTBOX)
    nowhere = doctor_of(by_mail + "channels: {sms: {provider: outbox}}\n")

    assert (folder.code, line(folder, "alerts")[:40]) == (0, "! alerts: they are only written to the f")
    assert (nowhere.code, line(nowhere, "alerts")[0]) == (1, "✗")


def test_another_secret_than_the_database_was_made_with_is_found(
    doctor_of: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTREACH_SECRET", "another")

    done = doctor_of(SETTINGS + OUTBOX)

    assert done.code == 1
    assert "OUTREACH_SECRET differs" in line(done, "database")


def test_a_clock_that_is_behind_what_the_stages_have_seen_is_wrong(doctor_of: Doctor, database_url: str) -> None:
    db = store.open_database(database_url, secret="a secret for tests")
    with store.write(db) as connection:
        connection.execute(table(Installation).update().values(newest=datetime.now(UTC) + timedelta(days=1)))
    db.engine.dispose()

    done = doctor_of(SETTINGS + OUTBOX)

    assert (done.code, line(done, "clock")[0]) == (1, "✗")


def test_a_database_that_is_not_there_is_not_made(
    doctor_of: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTREACH_DATABASE", "sqlite:///new.db")

    done = doctor_of(SETTINGS + OUTBOX)

    assert (done.code, line(done, "database")[0]) == (0, "!")
    assert not (tmp_path / "new.db").exists()


def test_a_database_on_a_network_file_system_is_seen(tmp_path: Path) -> None:
    (tmp_path / "share" / "deep").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path}/share nfs4 rw 0 0\n")

    assert doctor._file_system(tmp_path / "share" / "deep", mounts) == "nfs4"
    assert doctor._file_system(tmp_path, mounts) == "ext4"
    assert doctor._file_system(tmp_path, tmp_path / "none") == ""


class Stuck(Outbox):
    """Says one thing, and then nothing more."""

    def check(self) -> Iterator[Finding]:
        import threading

        yield Finding(ok=True, text="so far, so good")
        threading.Event().wait()


class Broken(Outbox):
    def check(self) -> Iterator[Finding]:
        raise KeyError("a@luna.example")


def test_a_provider_that_does_not_answer_is_waited_for_no_longer_than_the_limit(
    doctor_of: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(channels.CHANNELS, "outbox", "tests.test_doctor.Stuck")
    monkeypatch.setattr(doctor, "LIMIT_SECONDS", 0.2)

    done = doctor_of(SETTINGS + OUTBOX)

    assert done.code == 1
    assert "✓ email: so far, so good\n✗ email: outbox did not answer within 0.2 seconds" in done.out


def test_a_fault_of_ours_is_one_line_that_holds_nothing_private(
    doctor_of: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(channels.CHANNELS, "outbox", "tests.test_doctor.Broken")

    done = doctor_of(SETTINGS + OUTBOX)

    assert (done.code, done.err) == (1, "")
    assert line(done, "email").startswith("✗ email: it cannot be looked at (KeyError)")
    assert "a@luna" not in done.out


# --- what `check` says of WhatsApp, and of scripts for calls ---------------------------------------------------------

WHATSAPP = """
    title: W
    trigger: {event: customer.created}
    steps: [{id: w, after: 1 hour, channel: whatsapp, template: w, variants: {a: 50%, b: 50%}}]
"""
CALL = """
    title: C
    trigger: {event: customer.created}
    steps: [{id: c, after: 1 hour, channel: call, template: c}]
"""
APPROVED = "---\ncontent_sid: HX0123456789abcdef0123456789abcdef\n---\nHola"


def by_twilio(folder: Path) -> Settings:
    return shop_settings(folder, channels={"whatsapp": ChannelSettings("twilio", "+525500000000")})


def errors(settings: Settings, files: dict[str, str]) -> list[tuple[str, str]]:
    secrets = {"TWILIO_ACCOUNT_SID": "AC", "TWILIO_AUTH_TOKEN": "t"}
    from dataclasses import replace

    found = releases.check(files, replace(settings, secrets=secrets))
    return [(one.file.rpartition("/")[2], one.id) for one in found if not one.warning]


def test_a_whatsapp_template_without_an_approved_id_is_refused_where_it_would_really_be_sent(tmp_path: Path) -> None:
    templates = {
        "message_templates/w.text.es.j2": "Hola",
        "message_templates/w-a.whatsapp.j2": APPROVED.replace(" HX0123456789abcdef0123456789abcdef", ""),
        "message_templates/w-b.whatsapp.j2": APPROVED,
    }
    files = files_of(templates, w=WHATSAPP)

    assert errors(shop_settings(tmp_path), files) == []
    assert errors(by_twilio(tmp_path), files) == [
        ("w-a.whatsapp.j2", "template-content-sid"),
        ("w.text.es.j2", "template-content-sid"),
    ]


def test_whatsapp_templates_with_approved_ids_pass(tmp_path: Path) -> None:
    assert errors(by_twilio(tmp_path), files_of({"message_templates/w.text.j2": APPROVED}, w=WHATSAPP)) == []


def test_a_call_takes_a_script_of_its_own_and_no_text_written_for_sms(tmp_path: Path) -> None:
    staff = shop_settings(tmp_path, channels={"call": ChannelSettings("staff")})
    script = {"message_templates/c.call.es.j2": "Pregunta a {{ customer | greeting }} si llegó bien."}

    assert errors(staff, files_of(script, c=CALL)) == []
    assert errors(staff, files_of({"message_templates/c.text.j2": "Hola"}, c=CALL)) == [("c.yaml", "template-missing")]
    made = Templates(script, Business("Luna", "UTC", "MXN")).render(
        "c", "call", "es", {"customer": {}}, link=lambda *_: ("", "")
    )
    assert (made.channel, made.text) == ("call", "Pregunta a Hola si llegó bien.")
    assert campaigns.load(files_of(script, c=CALL), staff)[1] == []
