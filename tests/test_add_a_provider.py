"""The provider of `docs/how-to/add-a-provider.md`, installed as the page says, really sends through a dispatch."""

from __future__ import annotations

import json
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from outreach import dispatcher, planner, store
from outreach import settings as settings_module
from outreach.channels import open_channel
from outreach.errors import ChannelError, SettingsError
from outreach.models import CampaignState, Message, Status, Suppression, table
from outreach.settings import Settings
from outreach.store import Database, open_database
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, publish, rows_of

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "add-a-provider.md").read_text(encoding="utf-8")
SHOP = "business: {name: Tienda Luna, timezone: America/Mexico_City, currency: MXN, country: MX}\nsending_hours: {default: {mon-sun: '00:00-24:00'}}\n"
HELLO = """\
trigger: {event: customer.created}
purpose: service
steps:
  - {id: hello, after: 0 days, channel: sms, template: m}
"""


def shown(language: str) -> str:
    """The page's one block in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(block)


class Tiny(ThreadingHTTPServer):
    """Tiny's side: answers each message with the next of `statuses`, else 201; 0 hangs up, after having taken it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Tiny

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers["Authorization"])
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 201
        if status in (0, 201):
            self.server.taken.append(message)
        if status == 0:
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"id": f"T{len(self.server.taken)}"}).encode())

    def do_GET(self) -> None:
        self.send_response(200 if self.headers["Authorization"] == "Bearer abc123" else 401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def tiny() -> Iterator[Tiny]:
    with Tiny() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's file and its entry point, as a package installer leaves them."""
    site, project = tmp_path / "site", tomllib.loads(shown("toml"))["project"]
    info = site / f"outreach_tiny-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "outreach_tiny.py").write_text(shown("python"), encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("TINY_TOKEN", "abc123")
    yield
    sys.modules.pop("outreach_tiny", None)


def settings_of(folder: Path, tiny: Tiny) -> Settings:
    """The page's settings, loaded as the program does, but for where Tiny is."""
    channels = shown("yaml").replace("https://api.tiny.example", tiny.url)
    (folder / "outreach.yaml").write_text(SHOP + channels, encoding="utf-8")
    return settings_module.load(folder, {})


@pytest.fixture
def db(new_database: Callable[[str], str]) -> Iterator[Database]:
    database = open_database(new_database("sqlite"), secret=SECRET)
    yield database
    database.engine.dispose()


def due(db: Database, settings: Settings, people: int = 1) -> None:
    """As many greetings as people, planned and due."""
    publish(db, settings, NOW, hello=HELLO)
    feed(db, settings, NOW, customers=[customer(n, created_at=NOW.isoformat()) for n in range(people)])
    assert planner.plan(db, settings, NOW).planned == people


def test_it_sends_through_a_dispatch(installed: None, tiny: Tiny, db: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, tiny)
    assert settings_module.problems(settings) == []
    due(db, settings, 3)

    dispatcher.dispatch(db, settings, NOW)

    messages = rows_of(db, Message)
    assert [message.status for message in messages] == [Status.SENT] * 3
    assert {message.provider_id for message in messages} == {"T1", "T2", "T3"}
    assert sorted((one["reference"], one["from"], one["text"]) for one in tiny.taken) == sorted(
        (message.public_id, "+525500000000", "Hola Ana") for message in messages
    )
    assert {one["to"] for one in tiny.taken} == {"+525541000000", "+525541000001", "+525541000002"}
    assert tiny.tokens == {"Bearer abc123"}


@pytest.mark.parametrize(
    ("answer", "status", "taken"),
    [
        (404, Status.FAILED, 0),
        (410, Status.FAILED, 0),
        (422, Status.FAILED, 0),
        (429, Status.PLANNED, 0),
        (500, Status.UNKNOWN, 0),
        (418, Status.UNKNOWN, 0),
        (0, Status.UNKNOWN, 1),
    ],
)
def test_each_answer_does_to_the_message_what_the_page_says(
    installed: None, tiny: Tiny, db: Database, tmp_path: Path, answer: int, status: Status, taken: int
) -> None:
    settings = settings_of(tmp_path, tiny)
    due(db, settings)
    tiny.statuses = [answer]

    dispatcher.dispatch(db, settings, NOW)

    (message,) = rows_of(db, Message)
    assert message.status == status
    assert len(tiny.taken) == taken


def test_whom_tiny_calls_opted_out_is_not_written_to_again(
    installed: None, tiny: Tiny, db: Database, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, tiny)
    due(db, settings)
    tiny.statuses = [410]

    dispatcher.dispatch(db, settings, NOW)

    with store.read(db) as connection:
        assert connection.execute(table(Suppression).select()).all() != []


def test_a_wrong_token_pauses_the_campaign(installed: None, tiny: Tiny, db: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, tiny)
    due(db, settings, 2)
    tiny.statuses = [401]

    dispatcher.dispatch(db, settings, NOW)

    assert {message.status for message in rows_of(db, Message)} == {Status.PLANNED}
    (state,) = rows_of(db, CampaignState)
    assert "TINY_TOKEN" in state.paused_reason
    assert tiny.taken == []


def test_its_check_logs_in(installed: None, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path, tiny)
    (good,) = open_channel("sms", settings).check()
    monkeypatch.setenv("TINY_TOKEN", "other")
    (bad,) = open_channel("sms", settings).check()

    assert good.ok
    assert not bad.ok
    assert bad.hint


def test_without_its_token_it_says_so(
    installed: None, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINY_TOKEN")

    with pytest.raises(ChannelError, match="TINY_TOKEN"):
        open_channel("sms", settings_of(tmp_path, tiny))


def test_a_provider_that_nobody_installed_is_a_problem_of_the_settings(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tiny"):
        settings_of(tmp_path, tiny)


def test_no_package_takes_the_place_of_a_provider_of_ours(installed: None, tmp_path: Path) -> None:
    points = next((tmp_path / "site").glob("*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text().replace("tiny =", "outbox ="))
    (tmp_path / "outreach.yaml").write_text(SHOP + "channels: {sms: {provider: outbox}}\n")

    opened = open_channel("sms", settings_module.load(tmp_path, {}))

    assert type(opened).__module__ == "outreach.channels.outbox"
