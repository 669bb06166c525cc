"""`outreach fake-providers`: what it prints works as printed, and what is sent there is told without an address."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from outreach import settings as settings_module
from outreach.channels import Outcome, Outgoing, open_channel
from outreach.render import Content
from outreach.settings import Settings
from tests import test_cli
from tests.conftest import NOW
from tests.test_cli import Run

run = test_cli.run

ID = "0123456789abcdef0123456789abcdef"
SHOP = "business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN}\npublic_url: https://shop.example\n"
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "rehearse-with-fake-providers.md"
VERB = [sys.executable, str(ROOT / "cli.py"), "fake-providers"]


@dataclass
class Started:
    """The verb, running in a folder of its own."""

    process: subprocess.Popen[str]
    printed: list[str]

    def line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        self.printed.append(text)
        return text.rstrip("\n")

    def settings(self, workspace: Path, email: str = "") -> Settings:
        """The settings that it printed, loaded with the secrets that it printed."""
        block = self.block()
        for channel, provider in (("email", email), ("whatsapp", "twilio")):
            if provider:
                block = re.sub(rf"{channel}: .*", self.line_of(channel, provider), block)
        (workspace / "outreach.yaml").write_text(SHOP + block + "\n", encoding="utf-8")
        return settings_module.load(workspace, self.secrets())

    def block(self) -> str:
        """The `channels` that it printed."""
        text = "".join(self.printed)
        return text[text.index("channels:") :].split("\n\n")[0]

    def line_of(self, channel: str, provider: str) -> str:
        found = re.search(rf"{channel}: {{provider: {provider}.*", "".join(self.printed))
        assert found is not None
        return found[0]

    def secrets(self) -> dict[str, str]:
        """The environment that it printed."""
        exports = [shlex.split(line)[1] for line in self.printed if line.startswith("export ")]
        return dict(export.split("=", 1) for export in exports)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    folder = tmp_path / "here"
    folder.mkdir()
    ports = ["--smtp-port", "0", "--twilio-port", "0", "--sendgrid-port", "0"]
    # Whoever runs tests in the background may have them ignore Ctrl-C, and processes inherit that.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [*VERB, *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=heeding,
    ) as process:
        run = Started(process, [])
        while not run.line().startswith("What is accepted"):
            assert process.poll() is None
        yield run
        process.kill()
    assert list(folder.iterdir()) == []


def a_message(channel: str, address: str, sender: str) -> Outgoing:
    content = Content(channel, "Hola", subject="Hola" if channel == "email" else "")
    return Outgoing(ID, channel, address, sender, content, "service", at=NOW, day=NOW.date(), conversation=True)


@pytest.mark.parametrize(
    ("channel", "address", "email", "told"),
    [
        ("email", "ana@example.com", "", f"sendgrid  email  {ID}"),
        ("email", "ana@example.com", "smtp", f"smtp  email  {ID}"),
        ("sms", "+525541000001", "", f"twilio  sms  {ID}"),
        ("whatsapp", "+525541000001", "", f"twilio  whatsapp  {ID}"),
    ],
)
def test_what_is_sent_with_the_printed_settings_is_told_without_an_address(
    started: Started, tmp_path: Path, channel: str, address: str, email: str, told: str
) -> None:
    settings = started.settings(tmp_path, email)
    assert settings_module.problems(settings) == []

    opened = open_channel(channel, settings)
    (receipt,) = opened.send([a_message(channel, address, settings.channels[channel].sender)])
    opened.close()

    assert receipt.outcome is Outcome.ACCEPTED
    assert started.line() == told


def test_the_page_works_as_it_is_typed(
    started: Started, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, value in started.secrets().items():
        monkeypatch.setenv(name, value)
    shop = tmp_path / "rehearsal"
    for line in re.findall(r"^   outreach ((?!fake-providers).*)$", text, re.MULTILINE):
        done = run(*shlex.split(line))
        assert done.code == 0, f"{line}: {done.out}{done.err}"
        if line.startswith("init"):
            monkeypatch.chdir(shop)
            for name, rows in re.findall(r"`(data/\w+\.csv)`:\n\n   ```text\n(.*?)   ```", text, re.DOTALL):
                (shop / name).write_text(re.sub("^   ", "", rows, flags=re.MULTILINE))
            settings = shop / "outreach.yaml"
            settings.write_text(
                re.sub(r"channels:\n(?:  .*\n)+", started.block() + "\n", settings.read_text(), count=1)
            )
        elif line == "check":
            assert done.out == "Everything is in order.\n"

    told = {started.line().rpartition("  ")[0] for _ in range(2)}
    assert told == {"sendgrid  email", "twilio  sms"}
    assert without_ports(started.block()) in without_ports(re.sub("^   ", "", text, flags=re.MULTILINE))
    for channel, provider in (("email", "smtp"), ("whatsapp", "twilio")):
        assert without_ports(started.line_of(channel, provider)) in without_ports(text)


def without_ports(text: str) -> str:
    return re.sub(r"(127\.0\.0\.1:|port: )\d+", r"\1", text)


def test_what_is_not_ours_is_told_without_what_stands_in_it(started: Started, tmp_path: Path) -> None:
    import smtplib

    settings = started.settings(tmp_path, "smtp")
    with smtplib.SMTP("127.0.0.1", settings.channels["email"].options["port"]) as client:
        client.sendmail("a@x.example", ["ana@x.example"], "Message-ID: <ana.lopez@x.example>\r\n\r\nHola\r\n")

    assert started.line() == "smtp  email  a message that is not ours"


def test_it_stops_at_ctrl_c_without_a_word_of_trouble(started: Started) -> None:
    started.process.send_signal(signal.SIGINT)
    out, err = started.process.communicate(timeout=10)

    assert started.process.returncode == 0
    assert out == "Stopped.\n"
    assert err == ""


def test_a_port_that_is_taken_is_said_in_one_line(started: Started) -> None:
    text = "".join(started.printed)
    port = re.search(r"base_url: http://127.0.0.1:(\d+), batch", text)
    assert port is not None

    taken = ["--smtp-port", "0", "--twilio-port", "0", "--sendgrid-port", port[1]]
    done = subprocess.run([*VERB, *taken], capture_output=True, text=True, check=False, env=dict(os.environ))

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
