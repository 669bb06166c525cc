"""The web app as a process: beside the stages, alone, on a port that somebody has, and killed in mid-stream."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from outreach import daemon, settings, store
from outreach.models import Inbox, table
from outreach.store import Database
from outreach.testing.sendgrid import FakeSendGrid
from outreach.web.serving import listen
from tests import forked
from tests.conftest import SECRET
from tests.forked import Forked
from tests.served import NO_TLS

ROOT = Path(__file__).parents[1]
SETTINGS = """
business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN}
channels:
  email: {provider: sendgrid, from: hola@luna.example, base_url: "http://127.0.0.1:9"}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "outreach.yaml").write_text(SETTINGS)
    return tmp_path


class Process:
    """A process that serves the web app, and what it says."""

    def __init__(self, popen: subprocess.Popen[str] | Forked) -> None:
        self.popen = popen
        self.said: list[dict[str, Any]] = []

    def until(self, action: str) -> dict[str, Any]:
        """Read on until it says this; whatever else it said before is in `said`."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if not line.startswith("{"):
                pytest.fail(line + self.popen.stderr.read())
            self.said.append(json.loads(line))
            if self.said[-1]["action"] == action:
                return self.said[-1]
        return pytest.fail(f"it ended without {action}: {self.said}")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.gone()

    def gone(self) -> int:
        code = self.popen.wait(60)
        assert self.popen.stderr is not None
        self.popen.stderr.close()
        return code


def command(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program as a shell starts it."""
    typed = [sys.executable, str(ROOT / "cli.py"), *arguments, "--workspace", str(workspace)]
    return subprocess.Popen(typed, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT)


def verb(workspace: Path, *arguments: str, **environment: str) -> Forked:
    """The same, from where its imports are done."""
    return Forked(forked.outreach, *arguments, "--workspace", str(workspace), environment=environment)


@contextmanager
def running(popen: subprocess.Popen[str] | Forked) -> Iterator[Process]:
    process = Process(popen)
    too_late = threading.Timer(120, process.popen.kill)  # nobody waits for ever for a word that never comes
    too_late.start()
    try:
        yield process
    finally:
        too_late.cancel()
        if process.popen.poll() is None:
            process.popen.kill()
        with suppress(ValueError):
            process.gone()


def a_free_port() -> int:
    with listen("127.0.0.1", 0) as listening:
        port: int = listening.getsockname()[1]
        return port


def health(url: str) -> httpx.Response:
    return httpx.get(f"{url}/healthz", trust_env=False, timeout=30, verify=NO_TLS)


# --- beside the stages, and alone --------------------------------------------------------------------


def test_the_daemon_serves_the_web_app_beside_its_stages_and_ends_with_it(workspace: Path) -> None:
    with running(command(workspace, "run", "--port", "0")) as process:
        url = process.until("serving")["url"]

        answer = health(url)

        assert (answer.status_code, answer.json()["service"]) == (200, "outreach")
        assert process.end() == 0
        with pytest.raises(httpx.ConnectError):
            health(url)


def test_the_web_app_runs_alone(workspace: Path) -> None:
    with running(command(workspace, "web", "--port", "0")) as process:
        url = process.until("serving")["url"]

        assert health(url).json()["stages"] == {}
        assert process.end(signal.SIGINT) == 0


def test_a_port_that_somebody_has_is_an_error_for_whoever_asked_for_it(workspace: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for name in ("run", "web"):
            with running(verb(workspace, name, "--port", port)) as process:
                said = process.popen.stderr.read() if process.popen.stderr else ""

                assert process.gone() == 1
                assert said.count("\n") == 1
                assert f"127.0.0.1:{port} cannot be listened on" in said


def impatient(workspace: Path, port: int) -> None:
    daemon.LISTEN_AGAIN_SECONDS = 0.05
    loaded = settings.load(workspace, os.environ)
    daemon.run(loaded, store.open_database(loaded.database), web=daemon.Address(port=port))


def test_a_daemon_whose_usual_port_is_taken_works_without_the_web_app_until_it_is_free(workspace: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with running(Forked(impatient, workspace, port)) as process:
            why = process.until("not_serving")["why"]
            taken.close()
            url = process.until("serving")["url"]

            assert f"127.0.0.1:{port}" in why
            assert health(url).status_code == 200
            assert process.end() == 0


# --- killed in mid-stream ----------------------------------------------------------------------------


class Sender(threading.Thread):
    """Posts each of its requests again and again until it is told that it was taken, as SendGrid does."""

    def __init__(self, port: int, requests: Sequence[tuple[bytes, dict[str, str]]], up: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.requests, self.up = port, requests, up
        self.taken = threading.Semaphore(0)
        self.tries = 0

    def run(self) -> None:
        for body, headers in self.requests:
            while not self._post(body, headers):
                self.up.wait()
            self.taken.release()

    def _post(self, body: bytes, headers: dict[str, str]) -> bool:
        self.tries += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/webhooks/sendgrid/events", body, headers)
            return connection.getresponse().status == 204
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


BATCHES, SIZE, KILLS = 30, 20, 3


def requests(fake: FakeSendGrid, sender: int) -> list[tuple[bytes, dict[str, str]]]:
    made = []
    for batch in range(BATCHES):
        events = [
            {"event": "delivered", "sg_event_id": f"{sender}-{batch}-{n}", "outreach": "f" * 32} for n in range(SIZE)
        ]
        body = json.dumps(events).encode()
        made.append((body, fake.signed(body)))
    return made


def test_killed_in_mid_stream_it_loses_nothing_that_the_sender_repeats(
    db: Database, database_url: str, workspace: Path
) -> None:
    fake, port, up = FakeSendGrid(), a_free_port(), threading.Event()
    senders = [Sender(port, requests(fake, number), up) for number in range(2)]
    environment = {**fake.environment, "OUTREACH_DATABASE": database_url, "OUTREACH_SECRET": SECRET}
    seeded = random.Random(1)

    for kill in range(KILLS + 1):
        with running(verb(workspace, "web", "--port", str(port), **environment)) as process:
            process.until("serving")
            up.set()
            if kill == 0:
                for sender in senders:
                    sender.start()
            if kill == KILLS:
                for sender in senders:
                    sender.join(120)
                break
            for _ in range(seeded.randint(2, 6)):
                assert senders[kill % 2].taken.acquire(timeout=60)
            up.clear()
            assert process.end(signal.SIGKILL) == -signal.SIGKILL

    with store.read(db) as connection:
        kept = sorted(connection.execute(select(table(Inbox).c.event_id)).scalars())
    assert not any(sender.is_alive() for sender in senders)
    assert sum(sender.tries for sender in senders) > 2 * BATCHES  # something was repeated
    assert kept == sorted(f"sendgrid:{s}-{b}-{n}" for s in range(2) for b in range(BATCHES) for n in range(SIZE))
