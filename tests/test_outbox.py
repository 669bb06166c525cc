from __future__ import annotations

import email
import email.policy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from outreach.channels import Channel, Outcome, Outgoing, Receipt, mime, open_channel
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Business, ChannelSettings, Settings
from tests.conftest import NOW

ID = "0123456789abcdef0123456789abcdef"
UNSUBSCRIBE = "https://tienda.example/" + "a" * 150


def settings_of(workspace: Path, sender: str = "Tienda Luna <hola@tienda.example>") -> Settings:
    channels = {"email": ChannelSettings(sender=sender), "sms": ChannelSettings(sender="+525500000000")}
    return Settings(workspace, Business("Tienda Luna", "America/Mexico_City", "MXN"), channels=channels)


def an_email(public_id: str = ID, **changes: object) -> Outgoing:
    content = Content("email", "Hola Ñandú", subject="¡Gracias, Ana!", own_html="<p>Hola Ñandú</p>")
    message = Outgoing(public_id, "email", "ana@example.com", "", content, "marketing", UNSUBSCRIBE, NOW, NOW.date())
    return replace(message, **changes)  # type: ignore[arg-type]


def an_sms(public_id: str = ID) -> Outgoing:
    content = Content("sms", "Hola ñ", segments=1, encoding="GSM-7")
    return Outgoing(public_id, "sms", "+525512345678", "", content, "service", at=NOW, day=NOW.date())


def outbox(workspace: Path, name: str = "email", **changes: str) -> Channel:
    return open_channel(name, settings_of(workspace, **changes))


def sent(workspace: Path, *messages: Outgoing, **changes: str) -> list[Receipt]:
    return list(outbox(workspace, messages[0].channel, **changes).send(messages))


def files(workspace: Path) -> list[Path]:
    return sorted((workspace / "outbox").iterdir())


def only_mail(workspace: Path) -> EmailMessage:
    (file,) = files(workspace)
    read = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


def test_an_email_becomes_a_file_that_mail_programs_read(tmp_path: Path) -> None:
    receipts = sent(tmp_path, an_email())

    assert receipts == [Receipt(ID, Outcome.ACCEPTED, f"outbox:{ID}")]
    assert [file.name for file in files(tmp_path)] == [f"2026-06-15-{ID}-email.eml"]
    mail = only_mail(tmp_path)
    assert mail["From"] == "Tienda Luna <hola@tienda.example>"
    assert mail["To"] == "ana@example.com"
    assert mail["Subject"] == "¡Gracias, Ana!"
    assert mail["Message-ID"] == f"<{ID}@tienda.example>"
    assert mail["Date"].datetime == NOW
    assert mail.get_body(("plain",)).get_content().strip() == "Hola Ñandú"  # type: ignore[union-attr]
    assert mail.get_body(("html",)).get_content().strip() == "<p>Hola Ñandú</p>"  # type: ignore[union-attr]


def test_every_line_of_an_email_is_ascii_crlf_and_of_a_length_that_smtp_carries(tmp_path: Path) -> None:
    long = Content("email", "ñ" * 3000, subject="¡Ofertas! " * 40, own_html="<p>" + "x" * 3000 + "</p>")
    sent(tmp_path, an_email(content=long))

    raw = files(tmp_path)[0].read_bytes()

    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998


def test_marketing_carries_the_headers_of_one_click_unsubscribing_unbroken(tmp_path: Path) -> None:
    sent(tmp_path, an_email())

    raw = files(tmp_path)[0].read_bytes().decode()

    assert f"\r\nList-Unsubscribe: <{UNSUBSCRIBE}>\r\n" in raw
    assert "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw


def test_a_service_message_carries_no_unsubscribe_headers(tmp_path: Path) -> None:
    sent(tmp_path, an_email(purpose="service"))

    assert only_mail(tmp_path)["List-Unsubscribe"] is None


def test_a_text_message_becomes_one_json_file(tmp_path: Path) -> None:
    sent(tmp_path, an_sms())

    (file,) = files(tmp_path)
    assert file.name == f"2026-06-15-{ID}-sms.json"
    assert json.loads(file.read_text()) == {
        "id": ID,
        "channel": "sms",
        "purpose": "service",
        "at": "2026-06-15T15:00:00+00:00",
        "from": "+525500000000",
        "to": "+525512345678",
        "text": "Hola ñ",
        "segments": 1,
        "encoding": "GSM-7",
    }


def test_only_the_owner_may_read_the_messages(tmp_path: Path) -> None:
    sent(tmp_path, an_email())

    assert (tmp_path / "outbox").stat().st_mode & 0o077 == 0
    assert files(tmp_path)[0].stat().st_mode & 0o077 == 0


def test_a_message_already_there_is_accepted_and_left_as_it_was(tmp_path: Path) -> None:
    sent(tmp_path, an_email())
    before = files(tmp_path)[0].read_bytes()

    again = sent(tmp_path, an_email(content=Content("email", "other"), at=NOW + timedelta(days=2)))

    assert again == [Receipt(ID, Outcome.ACCEPTED, f"outbox:{ID}")]
    assert [file.read_bytes() for file in files(tmp_path)] == [before]


def test_a_message_already_there_on_another_channel_is_not_written_again(tmp_path: Path) -> None:
    sent(tmp_path, an_email())

    again = sent(tmp_path, an_sms())

    assert again[0].outcome is Outcome.ACCEPTED
    assert len(files(tmp_path)) == 1


def test_an_address_that_would_add_a_header_is_refused(tmp_path: Path) -> None:
    receipts = sent(tmp_path, an_email(address="ana@example.com\r\nBcc: all@example.com"))

    assert receipts[0].outcome is Outcome.REFUSED
    assert "example" not in receipts[0].detail
    assert not (tmp_path / "outbox").exists()


def test_an_email_is_written_as_it_would_leave_over_smtp(tmp_path: Path) -> None:
    sent(tmp_path, an_email())

    assert files(tmp_path)[0].read_bytes() == mime.message(an_email(), "Tienda Luna <hola@tienda.example>")


def test_of_several_senders_the_one_whose_turn_it_is_stands_there(tmp_path: Path) -> None:
    sent(tmp_path, an_email(sender="Luna Dos <dos@tienda.example>"))

    assert only_mail(tmp_path)["From"] == "Luna Dos <dos@tienda.example>"


def test_an_address_beyond_ascii_stands_as_it_is(tmp_path: Path) -> None:
    sent(tmp_path, an_email(address="ñandú@tienda.example"))

    assert "\r\nTo: ñandú@tienda.example\r\n" in files(tmp_path)[0].read_bytes().decode()


def test_a_full_disk_is_a_reason_to_try_again_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / f".2026-06-15-{ID}-email.eml.tmp").symlink_to("/dev/full")

    full, after = sent(tmp_path, an_email()), sent(tmp_path, an_email())

    assert full == [Receipt(ID, Outcome.LATER, detail="outbox: No space left on device")]
    assert after[0].outcome is Outcome.ACCEPTED
    assert len(files(tmp_path)) == 1


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from tests.test_outbox import an_email, an_sms, sent
from outreach.render import Content
big = an_email("f" * 32, content=Content("email", "x" * 5000))
for receipt in sent(Path(sys.argv[1]), an_email("a" * 32), big, an_email("b" * 32)):
    print(receipt.public_id[0], receipt.outcome)
"""


def test_a_file_that_does_not_fit_stops_neither_those_before_nor_those_after_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )

    assert done.stdout.split("\n")[:3] == ["a accepted", "f later", "b accepted"]
    assert [file.name[11] for file in files(tmp_path)] == ["a", "b"]


def test_what_the_channel_has_not_drawn_when_it_stops_has_not_left(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("")
    drawn: list[str] = []

    def batch() -> Iterator[Outgoing]:
        for letter in "abc":
            drawn.append(letter)
            yield an_email(letter * 32)

    received = outbox(tmp_path).send(batch())

    assert next(received).outcome is Outcome.LATER
    with pytest.raises(ChannelError, match="outbox of the workspace cannot be written to: File exists"):
        next(received)
    assert drawn == ["a"]


def test_an_unfinished_file_of_a_process_that_died_is_no_message(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / f".2026-06-15-{ID}-email.eml.tmp").write_text("half of i")

    receipts = sent(tmp_path, an_email())

    assert receipts[0].outcome is Outcome.ACCEPTED
    assert len(files(tmp_path)) == 1
    assert only_mail(tmp_path)["Subject"] == "¡Gracias, Ana!"


@pytest.mark.parametrize("sender", ["hola", "hola@", "@tienda.example", "Tienda <hola tienda@x.example>"])
def test_a_sender_that_is_no_address_is_an_error_of_the_settings(tmp_path: Path, sender: str) -> None:
    with pytest.raises(ChannelError, match=r"channels\.email\.from"):
        outbox(tmp_path, sender=sender)


def test_without_a_sender_the_business_stands_there(tmp_path: Path) -> None:
    sent(tmp_path, an_email(), sender="")

    assert only_mail(tmp_path)["From"] == "Tienda Luna <outbox@localhost>"


def test_a_business_with_quotes_in_its_name_can_stand_there(tmp_path: Path) -> None:
    settings = replace(settings_of(tmp_path, ""), business=Business('La "Luna" \\ Co.', "America/Mexico_City", "MXN"))

    list(open_channel("email", settings).send([an_email()]))

    assert only_mail(tmp_path)["From"].addresses[0].display_name == 'La "Luna" \\ Co.'


def test_a_provider_nobody_knows_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    wrong = replace(settings_of(tmp_path), channels={"sms": ChannelSettings(provider="outbos")})

    with pytest.raises(
        ChannelError,
        match=r"channels.sms.provider: 'outbos' is not one of outbox, smtp, sendgrid, twilio \(did you mean outbox\?\)",
    ):
        open_channel("sms", wrong)


def test_a_channel_that_is_not_configured_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="add it under `channels`"):
        open_channel("whatsapp", settings_of(tmp_path))
