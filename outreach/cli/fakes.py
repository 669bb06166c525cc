"""The verb that stands in for every provider: fake-providers."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from outreach.cli import show
from outreach.errors import OutreachError

if TYPE_CHECKING:
    from outreach.testing.sendgrid import FakeSendGrid
    from outreach.testing.smtp import FakeSmtp
    from outreach.testing.twilio import FakeTwilio

app = typer.Typer(rich_markup_mode=None)

NUMBER = "+525500000000"
LOOK_EVERY = 0.1  # seconds
_OURS = re.compile(r"[0-9a-f]{8,64}")
CHANNELS = """\
channels:
  email: {{provider: sendgrid, from: "My Shop <hola@shop.example>", base_url: {sendgrid}, batch: 100}}
  sms: {{provider: twilio, from: "{number}", base_url: {twilio}}}
  whatsapp: {{provider: outbox, from: "{number}"}}
  call: {{provider: staff}}
"""
BY_TWILIO = 'whatsapp: {{provider: twilio, from: "{number}", base_url: {twilio}}}'
BY_SMTP = (
    'email: {{provider: smtp, from: "My Shop <hola@shop.example>", host: 127.0.0.1, port: {smtp}, security: none}}'
)

Port = Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0: at any free port.")]


@app.command("fake-providers")
def fake_providers(smtp_port: Port = 8025, twilio_port: Port = 8026, sendgrid_port: Port = 8027) -> None:
    """Stand in for SMTP, Twilio and SendGrid on this machine, until stopped."""
    try:
        _run(smtp_port, twilio_port, sendgrid_port)
    except KeyboardInterrupt:
        show.line("Stopped.")


def _run(smtp_port: int, twilio_port: int, sendgrid_port: int) -> None:
    from outreach.testing.sendgrid import FakeSendGrid
    from outreach.testing.smtp import FakeSmtp
    from outreach.testing.twilio import FakeTwilio

    with ExitStack() as running:
        with _named("--smtp-port", smtp_port):
            smtp = running.enter_context(FakeSmtp(port=smtp_port))
        with _named("--twilio-port", twilio_port):
            twilio = running.enter_context(FakeTwilio(port=twilio_port, whatsapp=[NUMBER]))
        with _named("--sendgrid-port", sendgrid_port):
            sendgrid = running.enter_context(FakeSendGrid(port=sendgrid_port))
        show.line("Nothing that is sent here reaches anybody. In outreach.yaml, in place of your own `channels`:\n")
        show.line(CHANNELS.format(sendgrid=sendgrid.url, twilio=twilio.url, number=NUMBER))
        show.line("E-mail by SMTP in place of SendGrid:\n")
        show.line(f"  {BY_SMTP.format(smtp=smtp.port)}\n")
        show.line("WhatsApp by Twilio, once the templates name their `content_sid`, without which it takes none:\n")
        show.line(f"  {BY_TWILIO.format(twilio=twilio.url, number=NUMBER)}\n")
        show.line("In the terminal that outreach is used from:\n")
        for name, value in environment(twilio, sendgrid).items():
            show.line(f"export {name}={shlex.quote(value)}")
        show.line("\nWhat is accepted, until Ctrl-C:")
        for text in accepted(smtp, twilio, sendgrid):
            show.line(text)


@contextmanager
def _named(option: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OutreachError(f"port {port} cannot be used ({why.lower()}): give another by {option}") from error


def environment(twilio: FakeTwilio, sendgrid: FakeSendGrid) -> Mapping[str, str]:
    """The secrets that the stand-ins ask for."""
    return {
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": twilio.auth_token,
        **sendgrid.environment,
    }


def accepted(smtp: FakeSmtp, twilio: FakeTwilio, sendgrid: FakeSendGrid) -> Iterator[str]:
    """A line for each message as it is accepted: its provider, its channel and our own id of it; never ends."""
    seen = [0, 0, 0]
    never = threading.Event()
    while not never.wait(LOOK_EVERY):
        found = (
            [("smtp", "email", one.message_id) for one in smtp.accepted[seen[0] :]],
            [("twilio", _channel(one.form["To"]), one.public_id) for one in twilio.accepted[seen[1] :]],
            [("sendgrid", "email", one.public_id) for one in sendgrid.accepted[seen[2] :]],
        )
        for place, some in enumerate(found):
            seen[place] += len(some)
            for provider, channel, number in some:
                ours = _OURS.search(number.partition("@")[0])  # of what is not ours nothing is shown
                yield f"{provider}  {channel}  {ours[0] if ours else 'a message that is not ours'}"


def _channel(to: str) -> str:
    prefix, colon, _ = to.partition(":")
    return prefix if colon and prefix in ("whatsapp", "messenger") else "sms"
