"""`outreach send` and `outreach preview`, from outside."""

from __future__ import annotations

import json
import os
import stat
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import create_engine, inspect, text

from outreach import cli, manual
from outreach.cli import here
from tests.conftest import SECRET
from tests.copies import Original

CUSTOMERS = """\
customer_id,email,phone,first_name,locale,country,timezone,email_consent,sms_consent,consent_at
ana,ana@example.com,+525512345678,Ana,es-MX,MX,America/Mexico_City,yes,yes,2026-01-05
beto,beto@example.com,,Be\x1bto,es-MX,MX,America/Mexico_City,yes,,2026-01-05
carla,,,Carla,es-MX,MX,America/Mexico_City,,,
"""
ORDERS = """\
order_id,customer_id,placed_at,delivered_at,currency,total
o1,ana,2026-06-12T10:00,2026-06-15T08:30,MXN,250.00
"""
THANKS = """\
title: Thank you
purpose: service
trigger: {event: order.delivered}
steps:
  - {id: hello, after: 1 day, channel: [email, sms], template: thanks}
"""
TEMPLATES = {
    "thanks.email.j2": "---\nsubject: Pedido {{ order.id }}\n---\n<p>{{ customer | greeting }}, gracias</p>",
    "thanks.sms.j2": "<{{ customer.first_name }}>",
    "hi.email.j2": "---\nsubject: Novedades\n---\n<p>{{ customer | greeting }}</p><p>Té</p>"
    "<a href='{{ links.unsubscribe }}'>baja</a>",
    "hi.sms.j2": "{{ customer | greeting }}: novedades",
}
MORNING, NOON, NIGHT = "2026-06-15T08:00", "2026-06-15T12:00", "2026-06-15T23:00"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `outreach ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTREACH_SECRET", SECRET)

    def outreach(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["outreach", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return outreach


STOCKED = Original()


@pytest.fixture
def shop(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> Run:
    """The same in a workspace whose files are published and whose records are imported."""
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    STOCKED.copy(request, tmp_path, partial(stock, run), database_url)
    return run


@pytest.fixture
def quick(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    new_database: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Run:
    """The same on SQLite alone, for what no database has a say in."""
    url = new_database("sqlite")
    monkeypatch.setenv("OUTREACH_DATABASE", url)
    STOCKED.copy(request, tmp_path, partial(stock, run), url)
    return run


def stock(run: Run, folder: Path, url: str) -> None:
    assert run("init", folder, "--name", "Luna").code == 0
    for old in (*folder.glob("campaigns/*.yaml"), *folder.glob("message_templates/*/*")):
        old.unlink()  # the starter kit has tests of its own, and reading it takes a second
    (folder / "campaigns" / "thanks.yaml").write_text(THANKS)
    for name, body in TEMPLATES.items():
        (folder / "message_templates" / name).write_text(body)
    settings = folder / "outreach.yaml"
    mine = settings.read_text().partition("\nsegments:")[0]  # as have its surveys and offers
    settings.write_text(mine + "\ncosts: {sms: 0.90 per segment, email: 0.01}\n")
    (folder / "data" / "customers.csv").write_text(CUSTOMERS)
    (folder / "data" / "orders.csv").write_text(ORDERS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OUTREACH_DATABASE", url)
        assert run("--workspace", folder, "publish", "--yes", "--now", MORNING).code == 0
        assert run("--workspace", folder, "import", "--now", MORNING).code == 0


def everything(url: str) -> dict[str, list[str]]:
    """Every row of every table."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        found = {name: sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}")))) for name in names}
    engine.dispose()
    return found


def noting(asked: list[str], *, answer: bool) -> Callable[..., bool]:
    """Stands in for a person, or a browser: notes what it was asked, and answers so."""

    def note(question: str, *, yes: bool = False) -> bool:
        assert not yes
        asked.append(question)
        return answer

    return note


def outbox(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "outbox").glob("*"))


# --- send ----------------------------------------------------------------------------------------


def test_a_send_shows_the_message_asks_and_tells_what_became_of_it(
    shop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(here, "agreed", noting(asked, answer=True))

    done = shop("send", "hi", "--where", "orders_count >= 0", "--now", NOON)

    assert done.code == 0
    assert asked == ["Send 2 messages, for 0.91 MXN?"]
    shown, _, became = done.out.partition("Send 1\n")
    assert "The first message, as ana reads it: sms, from +10000000000" in shown
    assert "  Hola, Ana: novedades\n" in shown
    assert "3 people, 2 messages." in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["sms", "1", "1", "0.90", "MXN"] in lines
    assert ["email", "1", "–", "0.01", "MXN"] in lines
    assert ["all", "2", "1", "0.91", "MXN"] in lines
    assert ["not", "at", "all", "unreachable", "1", "–"] in lines
    assert ["sent", "2", "–"] in [line.split() for line in became.splitlines()]
    assert ["not", "sent", "unreachable", "1", "–"] in [line.split() for line in became.splitlines()]
    assert len(outbox(tmp_path)) == 2


def test_without_a_terminal_only_yes_sends_more_than_one(shop: Run, tmp_path: Path, database_url: str) -> None:
    before = everything(database_url)

    done = shop("send", "hi", "--to", "ana", "--to", "beto", "--now", NOON)

    assert (done.code, "--yes" in done.err) == (1, True)
    assert everything(database_url) == before
    assert shop("send", "hi", "--to", "ana", "--to", "beto", "--now", NOON, "--yes").code == 0
    assert len(outbox(tmp_path)) == 2


def test_one_message_needs_no_question(quick: Run, tmp_path: Path) -> None:
    assert quick("send", "hi", "--to", "ana", "--now", NOON).code == 0
    assert len(outbox(tmp_path)) == 1


def test_a_dry_run_writes_nothing(shop: Run, tmp_path: Path, database_url: str) -> None:
    before = everything(database_url)
    named = [word for name in ("ana", "new@example.com", "+525587654321") for word in ("--to", name)]

    for as_json in ([], ["--json"]):
        done = shop("send", "hi", *named, "--purpose", "service", "--dry-run", "--yes", "--now", NOON, *as_json)
        assert done.code == 0
        assert everything(database_url) == before
    assert outbox(tmp_path) == []


def test_the_json_of_a_send(shop: Run) -> None:
    where = ("--where", "orders_count >= 0", "--channel", "email", "--channel", "sms")
    would = shop("send", "hi", *where, "--now", NOON, "--dry-run", "--json")
    done = shop("send", "hi", *where, "--now", NOON, "--yes", "--json")

    assert would.code == done.code == 0
    assert done.json == {
        "send": 1,
        "people": 3,
        "messages": {"sent": 2, "deferred": 0, "skipped": 1, "failed": 0, "expired": 0, "unknown": 0},
        "by_reason": {"unreachable": 1},
        "segments": 0,
        "cost": "0.02",
        "currency": "MXN",
        "preview": {"channel": "email", "subject": "Novedades", "text": done.json["preview"]["text"]},
    }
    assert done.json["preview"]["text"].startswith("Hola, Ana")
    assert would.json == done.json | {"send": None}


def test_at_night_it_waits_until_the_morning_and_the_daemon_sends_it(quick: Run, tmp_path: Path) -> None:
    done = quick("send", "hi", "--to", "ana", "--channel", "sms", "--now", NIGHT)

    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["later", "hours", "1", "2026-06-16", "09:00", "sms", "in", "America/Mexico_City"] in lines
    assert ["waiting", "hours", "1", "2026-06-16", "09:00", "sms", "in", "America/Mexico_City"] in lines
    assert "`outreach tick dispatch`" in done.out
    assert outbox(tmp_path) == []
    assert quick("send", "hi", "--to", "ana", "--now", NIGHT, "--json").json["messages"]["deferred"] == 1
    assert quick("tick", "dispatch", "--now", "2026-06-16T09:00", "--json").json["sent"] == 1  # the other: the cap


def test_several_messages_of_which_some_wait_are_asked_for_as_such(quick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(here, "agreed", noting(asked, answer=False))

    assert quick("send", "hi", "--to", "ana", "--to", "beto", "--now", NIGHT).code == 1
    assert asked == ["Send 2 messages, for 0.91 MXN? (2 of them wait first)"]


def test_a_mistake_is_one_line_and_writes_nothing(quick: Run) -> None:
    url = os.environ["OUTREACH_DATABASE"]
    before = everything(url)

    for arguments, said in (
        (("hi", "--to", "zoe"), "there is no customer 'zoe'"),
        (("hi", "--to", "x@nowhere"), "what --to names is no e-mail address"),
        (("hi", "--where", "orders_count >"), "something is missing"),
        (("hi", "--where", "order_count > 1"), "orders_count"),
        (("hi", "--where", "orders_count > 99"), "nobody would get it: the condition holds for no customer"),
        (("hii", "--to", "ana"), "did you mean `hi`?"),
        (("hi", "--to", "ana", "--channel", "messenger"), "messenger is not configured"),
        (("thanks", "--to", "ana", "--channel", "email", "--purpose", "service"), "thanks.email.j2:2:"),
    ):
        done = quick("send", *arguments, "--now", NOON, "--yes")
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert said in done.err

    assert everything(url) == before


@pytest.mark.parametrize(
    "arguments",
    [("hi",), ("hi", "--to", "ana", "--where", "1 = 1"), ("hi", "--to", "ana", "--channel", "fax"), ("--to", "ana")],
)
def test_wrong_usage_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("send", *arguments).code == 2


def test_a_crash_between_writing_and_sending_loses_nothing(
    shop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(manual.sending, "dispatch", lambda *_args, **_options: sys.exit(9))
        assert shop("send", "hi", "--to", "ana", "--to", "beto", "--yes", "--now", NOON).code == 9
    assert outbox(tmp_path) == []

    assert shop("tick", "dispatch", "--now", NOON, "--json").json["sent"] == 2
    assert len(outbox(tmp_path)) == 2


def test_a_send_is_continued_by_its_number(quick: Run, tmp_path: Path) -> None:
    assert quick("send", "hi", "--to", "ana", "--to", "beto", "--yes", "--now", NOON).code == 0
    of = ("send", "hi", "--to", "ana", "--to", "beto", "--to", "carla", "--now", NOON)

    done = quick(*of, "--continue", "1", "--json")

    assert (done.json["send"], done.json["people"], done.json["by_reason"]) == (1, 1, {"unreachable": 1})
    assert done.json["messages"]["sent"] == 2
    assert "send 1 is complete" in quick(*of, "--continue", "1").err
    assert len(outbox(tmp_path)) == 2


def test_a_channel_that_is_wrong_says_how_to_go_on(quick: Run, tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file where the folder should be")

    done = quick("send", "hi", "--to", "ana", "--now", NOON)

    assert "Manual sends are paused: " in done.out
    assert "`outreach resume manual`" in done.out


def test_a_stranger_s_unknown_time_zone_has_a_remedy(quick: Run, tmp_path: Path) -> None:
    of = ("send", "hi", "--to", "new@example.com", "--purpose", "service", "--now", NOON)
    settings = tmp_path / "outreach.yaml"
    as_made = settings.read_text()
    settings.write_text(as_made.replace("unknown_zone: business", "unknown_zone: hold"))
    assert "`unknown_zone: business`" in quick(*of, "--dry-run").out

    settings.write_text(as_made)

    assert quick(*of, "--json").json["messages"]["sent"] == 1


def test_what_could_steer_a_terminal_is_not_printed(quick: Run) -> None:
    assert "\x1b" not in quick("send", "hi", "--to", "beto", "--now", NOON).out
    assert "\x1b" not in quick("preview", "thanks", "hello", "--customer", "beto", "--now", NOON).out


# --- preview -------------------------------------------------------------------------------------


def test_a_preview_shows_the_message_and_what_would_hold_it(quick: Run) -> None:
    done = quick("preview", "thanks", "hello", "--customer", "ana", "--channel", "sms", "--now", NIGHT)

    assert done.code == 0
    assert done.out.splitlines() == [
        "thanks/hello, to ana about order o1: not published, not sent.",
        "",
        "sms, from +10000000000",
        "",
        "  <Ana>",
        "",
        "1 segment of GSM-7, 0.90 MXN",
        "",
        "hours: would wait until 2026-06-16 09:00 (hours: sms in America/Mexico_City)",
    ]


def test_the_json_of_a_preview(shop: Run) -> None:
    done = shop("preview", "thanks", "hello", "--customer", "ana", "--now", NIGHT, "--json")

    assert done.code == 0
    assert done.json == {
        "campaign": "thanks",
        "step": "hello",
        "customer": "ana",
        "variant": None,
        "purpose": "service",
        "record": "order o1",
        "sample": False,
        "notes": [],
        "channel": "email",
        "from": "Luna <hello@shop.example>",
        "subject": "Pedido o1",
        "preheader": "",
        "text": "Hola, Ana, gracias",
        "html": "<p>Hola, Ana, gracias</p>",
        "segments": 0,
        "encoding": "",
        "content_sid": "",
        "variables": {},
        "coupon": None,
        "cost": "0.01",
        "currency": "MXN",
        "gates": [
            {
                "gate": "hours",
                "reason": "hours",
                "detail": "email in America/Mexico_City",
                "until": "2026-06-16T13:00:00+00:00",
            }
        ],
    }


def test_open_shows_the_html_or_the_text_as_a_page_only_this_person_can_read(
    quick: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", noting(opened, answer=True))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    of = ("preview", "thanks", "hello", "--customer", "ana", "--open", "--now", NOON)

    assert quick(*of).code == quick(*of, "--channel", "sms").code == 0

    pages = [Path(unquote(urlsplit(url).path)) for url in opened]
    assert [urlsplit(url).scheme for url in opened] == ["file", "file"]
    assert pages[0].read_text() == "<p>Hola, Ana, gracias</p>"
    assert "&lt;Ana&gt;" in pages[1].read_text()
    assert {stat.S_IMODE(page.stat().st_mode) for page in pages} == {0o600}


def test_a_test_copy_is_sent_once_asked_and_nothing_is_written(
    shop: Run, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(database_url)
    of = ("preview", "thanks", "hello", "--customer", "ana", "--send-to", "me@example.com", "--now", NOON)
    refused = shop(*of)
    assert (refused.code, "--yes" in refused.err, outbox(tmp_path)) == (1, True, [])

    done = shop(*of, "--yes")
    again = shop(*of, "--yes", "--json")

    assert done.code == again.code == 0
    assert "its links lead nowhere" in done.out
    assert again.json["sent"].startswith("outbox:test-")
    mails = [(tmp_path / "outbox" / name).read_text() for name in outbox(tmp_path)]
    assert ["Subject: [TEST] Pedido o1" in mail and "To: me@example.com" in mail for mail in mails] == [True, True]
    assert everything(database_url) == before


def test_a_preview_s_mistake_is_one_line(quick: Run) -> None:
    for arguments, said in (
        (("thank", "hello", "--customer", "ana"), "did you mean `thanks`?"),
        (("thanks", "hallo", "--customer", "ana"), "did you mean `hello`?"),
        (("thanks", "hello", "--customer", "zoe"), "there is no customer 'zoe'"),
    ):
        done = quick("preview", *arguments, "--now", NOON)
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert said in done.err
    assert quick("preview", "thanks", "hello").code == 2
