"""The command line, from outside: what is printed, in which shape, and with which exit code."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outreach import cli, settings, store
from outreach.cli import show
from outreach.cli.workspace import HOMES
from tests.copies import Original

CUSTOMERS = """\
customer_id,email,phone,first_name,locale,country,timezone,email_consent,sms_consent,consent_at,note
ana,ana@example.com,+525512345678,Ana,es-MX,MX,America/Mexico_City,yes,yes,2026-01-05,=1+1
beto,beto@example.com,,Beto,es-MX,MX,America/Mexico_City,yes,,2026-01-05,
carla,,,Carla,es-MX,MX,America/Mexico_City,,,,
broken,not an address,"5,43517E+11",Dora,es-MX,MX,America/Mexico_City,yes,,2026-01-05,
"""
ORDERS = """\
order_id,customer_id,placed_at,delivered_at,currency,total
o1,ana,2026-04-03T10:00,2026-04-08T10:00,MXN,500.00
o2,ana,2026-06-12T10:00,2026-06-15T08:30,MXN,250.00
o3,beto,2026-06-12T10:00,2026-06-15T08:30,MXN,90.50
o4,carla,2026-06-12T10:00,2026-06-15T08:30,MXN,10.00
o5,beto,2026-02-30T10:00,,MXN,1.00
"""
CAMPAIGN = """\
title: Thank you
purpose: service
trigger: {event: order.delivered}
steps:
  - {id: thanks, after: 1 hour, channel: [email, sms], template: thanks/hello}
"""
EMAIL = """\
---
subject: "{{ customer | greeting }}: gracias"
---
{{ customer | greeting }}, gracias por tu pedido {{ order.id }}.
"""
SMS = "{{ customer | greeting }}, gracias.\n"
MORNING, NOON = "2026-06-15T08:00", "2026-06-15T12:00"
TICKS = (("tick", "plan", "--now", NOON), ("tick", "dispatch", "--now", NOON))


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

    def outreach(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["outreach", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return outreach


FURNISHED, SENT = Original(), Original()


@pytest.fixture
def shop(
    run: Run, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Run:
    """Runs `outreach ARGUMENTS` in a small workspace with one campaign and records that are not imported yet."""
    monkeypatch.setenv("OUTREACH_DATABASE", database_url)
    monkeypatch.setenv("OUTREACH_SECRET", "a secret for tests")
    FURNISHED.copy(request, tmp_path, partial(furnish, run))
    return run


def furnish(run: Run, folder: Path, _url: str) -> None:
    assert run("init", folder, "--name", "Luna").code == 0
    for old in (*folder.glob("campaigns/*.yaml"), *folder.glob("message_templates/*/*")):
        old.unlink()  # the starter kit has tests of its own, and reading it takes a second
    settings = folder / "outreach.yaml"
    settings.write_text(settings.read_text().partition("\nsegments:")[0] + "\n")  # as have its surveys and offers
    (folder / "campaigns" / "thanks.yaml").write_text(CAMPAIGN)
    (folder / "message_templates" / "thanks").mkdir()
    (folder / "message_templates" / "thanks" / "hello.email.j2").write_text(EMAIL)
    (folder / "message_templates" / "thanks" / "hello.sms.j2").write_text(SMS)
    (folder / "data" / "customers.csv").write_text(CUSTOMERS)
    (folder / "data" / "orders.csv").write_text(ORDERS)


@pytest.fixture
def sent(shop: Run, tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Run:
    """The same, with everything published, imported, planned and sent."""

    def send(folder: Path, url: str) -> None:
        shutil.copytree(tmp_path, folder, dirs_exist_ok=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("OUTREACH_DATABASE", url)
            for words in (("publish", "--yes", "--now", MORNING), ("import", "--now", NOON), *TICKS):
                assert shop("--workspace", folder, *words).code == 0

    SENT.copy(request, tmp_path, send, database_url)
    return shop


def lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# --- exit codes and options --------------------------------------------------------------------------------------


def test_wrong_usage_ends_with_2(run: Run) -> None:
    assert run("stats").code == 2
    assert "Did you mean 'status'" in run("stats").err
    assert run("status", "--colour").code == 2
    assert run("report", "retention", "--by", "fortnight").code == 2
    assert run("--now", "tomorrow", "status").code == 2


@pytest.mark.parametrize("verb", ["run", "web"])
def test_what_lives_by_the_clock_takes_no_other_time(run: Run, verb: str) -> None:
    done = run("--now", NOON, verb)

    assert done.code == 2
    assert "runs by the clock" in done.err


def test_a_folder_without_settings_is_one_line_and_ends_with_1(run: Run) -> None:
    done = run("status")

    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "outreach.yaml" in done.err


def test_every_problem_of_the_settings_has_its_own_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outreach.yaml").write_text(
        "business: {name: X, timezone: Mars/Phobos, currency: ZZZ}\nquiet_hours: 9\n"
    )

    done = run("status")

    assert done.code == 1
    assert [line.split(": ")[0] for line in done.err.splitlines()] == [
        "outreach.yaml:1:31",
        "outreach.yaml:1:54",
        "outreach.yaml:2:1",
    ]


def test_a_database_that_cannot_be_reached_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("init", ".").code == 0
    monkeypatch.setenv("OUTREACH_DATABASE", "postgresql://nobody@127.0.0.1:1/nothing")

    done = run("releases")

    assert (done.code, len(done.err.splitlines())) == (1, 1)


def test_now_and_workspace_stand_before_or_after_the_verb(run: Run, tmp_path: Path) -> None:
    assert run("init", "there").code == 0

    before = run("--workspace", "there", "--now", NOON, "tick", "plan", "--json")
    between = run("tick", "--workspace", "there", "--now", NOON, "plan", "--json")
    after = run("tick", "plan", "--json", "--workspace", tmp_path / "there", "--now", NOON)

    assert (before.code, between.code, after.code) == (0, 0, 0)
    assert before.json == between.json == after.json


def test_a_now_without_offset_is_in_the_business_s_time_zone(run: Run) -> None:
    assert run("init", ".", "--country", "MX").code == 0
    assert run("publish", "--yes", "--now", "2026-06-15T09:30").code == 0

    assert run("releases", "--json").json["releases"][0]["published_at"] == "2026-06-15T15:30:00+00:00"


@pytest.mark.parametrize(
    "arguments",
    [
        "--now 9999-12-31T23:59 status", "--now 0001-01-02 report retention", "messages --limit 99999999999999999999",
        "replies list --limit 99999999999999999999", "rollback 99999999999999999999",
    ],
)  # fmt: skip
def test_a_time_or_number_beyond_all_bounds_is_wrong_usage(run: Run, arguments: str) -> None:
    assert run(*arguments.split()).code == 2


def test_a_now_in_the_past_of_the_database_is_refused(sent: Run) -> None:
    done = sent("tick", "plan", "--now", "2026-06-01")

    assert done.code == 1
    assert "earlier than" in done.err


def test_a_closed_pipe_is_silent(run: Run, tmp_path: Path) -> None:
    assert run("init", ".").code == 0
    script = "import sys; sys.argv = ['outreach', 'schema']; from outreach.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, "")


# --- a workspace -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("country", sorted(HOMES))
def test_a_new_workspace_has_sensible_settings_for_its_country(run: Run, tmp_path: Path, country: str) -> None:
    assert run("init", "new", "--name", 'La "Luna": {té} #1', "--country", country).code == 0

    made = settings.load(tmp_path / "new", {})

    home = HOMES[country]
    assert (made.business.timezone, made.business.currency) == (home.timezone, home.currency)
    assert (made.business.name, made.business.country, made.business.locale) == (
        'La "Luna": {té} #1',
        country,
        home.locale,
    )
    assert made.channels["email"].sender.endswith("<hello@shop.example>")


def test_a_new_workspace_passes_its_own_check_and_can_be_published(run: Run) -> None:
    assert run("init", ".").code == 0

    assert run("check", "--json").json == {"problems": []}
    assert run("publish", "--yes").code == 0


def test_init_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "campaigns").mkdir()

    done = run("init", ".")

    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["campaigns"]


def test_init_writes_nothing_when_the_settings_would_be_wrong(run: Run, tmp_path: Path) -> None:
    done = run("init", "new", "--timezone", "Mars/Phobos")

    assert done.code == 1
    assert "Mars/Phobos" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_country_asks_for_what_it_cannot_know(run: Run) -> None:
    assert run("init", "a", "--country", "NZ").code == 1
    given = ("--timezone", "Pacific/Auckland", "--currency", "NZD", "--locale", "en-NZ")
    assert run("init", "a", "--country", "NZ", *given).code == 0


def test_check_shows_every_problem_with_its_place(shop: Run, tmp_path: Path) -> None:
    campaign = tmp_path / "campaigns" / "thanks.yaml"
    campaign.write_text(CAMPAIGN + "stop_when: [refundd]\ncolour: red\n")

    done = shop("check")
    problems = shop("check", "--json").json["problems"]

    assert done.code == 1
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [
        "campaigns/thanks.yaml:6:13",
        "campaigns/thanks.yaml:7:1",
    ]
    assert [(one["file"], one["line"], one["column"]) for one in problems] == [
        ("campaigns/thanks.yaml", 6, 13),
        ("campaigns/thanks.yaml", 7, 1),
    ]
    assert {*problems[0]} == {"file", "line", "column", "id", "text", "hint", "warning", "cause"}


def test_check_warns_of_a_trigger_that_no_record_can_fire(shop: Run, tmp_path: Path) -> None:
    text = CAMPAIGN.replace("order.delivered", "order.refunded")
    (tmp_path / "campaigns" / "thanks.yaml").write_text(text)
    assert shop("import", "--now", NOON).code == 0

    done = shop("check")

    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "warning: order.refunded: 0 of 4 orders" in done.out


def test_the_schema_is_written_where_editors_look_for_it(run: Run, tmp_path: Path) -> None:
    assert run("init", ".").code == 0
    file = tmp_path / "campaigns" / ".campaign.schema.json"
    made = json.loads(file.read_text())
    file.unlink()

    assert run("schema", "--write").code == 0

    assert json.loads(file.read_text()) == run("schema").json
    assert made["properties"].keys() == run("schema").json["properties"].keys()
    starter = (tmp_path / "campaigns" / "post_sale.yaml").read_text()
    assert starter.startswith("# yaml-language-server: $schema=./.campaign.schema.json")


def test_facts_lists_what_may_be_named(run: Run) -> None:
    listed = run("facts", "--json").json

    assert "orders_count" in [fact["name"] for fact in listed["facts"]]
    assert "tagged" in [function["name"] for function in listed["functions"]]
    assert "customer.first_name" in [variable["name"] for variable in listed["variables"]]
    assert "orders_count" in run("facts").out


# --- records -----------------------------------------------------------------------------------------------------


def test_import_counts_every_row_and_names_the_rejects_file(shop: Run) -> None:
    first = shop("import", "--json", "--now", NOON).json
    again = shop("import", "--json", "--now", NOON).json

    assert [*first] == ["customers", "orders", "cases", "events", "suppressions", "rejects_file", "reach"]
    assert first["orders"] == {"read": 5, "created": 4, "updated": 0, "unchanged": 0, "rejected": 1}
    assert again["orders"] == {"read": 5, "created": 0, "updated": 0, "unchanged": 4, "rejected": 1}
    assert first["cases"] == {"read": 0, "created": 0, "updated": 0, "unchanged": 0, "rejected": 0}
    rejects = lines(Path(first["rejects_file"]))
    assert Path(first["rejects_file"]).parent.stat().st_mode & 0o077 == 0
    assert any("2026-02-30" in " ".join(row) for row in rejects)


def test_import_takes_files_from_its_options_alone(shop: Run, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("customer_id,first_name\nzoe,Zoe\n")

    counts = shop("import", "--customers", "more.csv", "--json").json

    assert (counts["customers"]["created"], counts["orders"]["read"]) == (1, 0)


def test_import_shows_who_can_be_reached(shop: Run) -> None:
    done = shop("import", "--now", NOON)

    assert done.code == 0
    assert "email" in done.out
    assert "orders" in done.out


def test_import_of_a_folder_or_of_nothing_is_one_line(shop: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")

    for wrong in ("data", "empty.csv", "nowhere.csv"):
        done = shop("import", "--orders", wrong)
        assert (done.code, len(done.err.splitlines()), wrong in done.err) == (1, 1, True)


def test_audience_counts_the_people_and_shows_some(shop: Run) -> None:
    assert shop("import", "--now", NOON).code == 0

    found = shop("audience", "orders_count >= 2", "--json", "--now", NOON).json

    assert (found["count"], found["total"]) == (1, 4)
    assert [one["customer"] for one in found["examples"]] == ["ana"]
    assert "ana" in shop("audience", "orders_count >= 2", "--now", NOON).out
    assert shop("audience", "orders_cuont >= 2").code == 1


# --- publishing --------------------------------------------------------------------------------------------------


def test_publish_asks_and_does_nothing_without_a_yes(shop: Run) -> None:
    done = shop("publish")

    assert done.code == 1
    assert "new campaign thanks" in done.out
    assert "--yes" in done.err
    assert shop("releases", "--json").json == {"releases": []}


def test_publish_stops_at_problems(shop: Run, tmp_path: Path) -> None:
    (tmp_path / "campaigns" / "thanks.yaml").write_text(CAMPAIGN.replace("thanks/hello", "thanks/nothing"))

    done = shop("publish", "--yes")

    assert done.code == 1
    assert "campaigns/thanks.yaml:5:" in done.err
    assert shop("releases", "--json").json == {"releases": []}


def test_a_release_is_published_listed_and_published_again(shop: Run, tmp_path: Path) -> None:
    assert shop("publish", "--yes", "--json").json == {"release": 1}
    (tmp_path / "message_templates" / "thanks" / "hello.sms.j2").write_text("Gracias.\n")
    assert shop("diff", "--json").json["files"] == ["message_templates/thanks/hello.sms.j2"]
    assert shop("publish", "--yes", "--note", "shorter", "--json").json == {"release": 2}

    assert shop("rollback", "1", "--yes", "--json").json == {"release": 3}

    listed = shop("releases", "--json").json["releases"]
    assert [(one["release"], one["note"]) for one in listed] == [(3, "release 1 again"), (2, "shorter"), (1, "")]
    assert shop("diff", "--json").json["files"] == ["message_templates/thanks/hello.sms.j2"]


def test_publishing_nothing_new_says_so(shop: Run) -> None:
    assert shop("publish", "--yes").code == 0

    done = shop("publish", "--yes")

    assert (done.code, "Nothing differs" in done.out) == (0, True)
    assert len(shop("releases", "--json").json["releases"]) == 1


# --- the stages --------------------------------------------------------------------------------------------------


def test_the_ticks_print_their_counts(shop: Run) -> None:
    assert shop("publish", "--yes", "--now", MORNING).code == 0
    assert shop("import", "--now", NOON).code == 0

    planned = shop("tick", "plan", "--json", "--now", NOON).json
    dispatched = shop("tick", "dispatch", "--json", "--now", NOON).json

    assert planned == {
        "enrolled": 2,
        "planned": 2,
        "held": 0,
        "skipped": 1,
        "by_campaign": {"thanks": {"enrolled": 2, "planned": 2, "held": 0, "skipped": 1, "steps": {"thanks": 2}}},
        "paused": [],
    }
    assert dispatched == {
        "claimed": 2,
        "sent": 2,
        "failed": 0,
        "deferred": 0,
        "skipped": 0,
        "expired": 0,
        "by_reason": {},
        "paused": [],
    }


def test_messages_are_listed_with_the_shop_s_ids(sent: Run) -> None:
    listed = sent("messages", "--json").json["messages"]

    assert [*listed[0]] == [
        "id",
        "campaign",
        "step",
        "customer",
        "occasion",
        "channel",
        "arm",
        "status",
        "reason",
        "due_at",
        "sent_at",
        "subject",
        "release",
        "detail",
        "look_at",
        "blocked_by",
        "until",
    ]
    assert {one["customer"]: (one["status"], one["subject"], one["release"]) for one in listed} == {
        "ana": ("sent", "Hola, Ana: gracias", 1),
        "beto": ("sent", "Hola, Beto: gracias", 1),
    }
    assert sent("messages", "--customer", "beto", "--json").json["messages"][0]["customer"] == "beto"
    assert sent("messages", "--status", "planned", "--json").json == {"messages": []}
    assert sent("messages", "--campaign", "thanks", "--limit", 1, "--json").json["messages"] == listed[-1:]
    assert sent("messages", "--customer", "nobody").code == 1
    assert sent("messages", "--status", "lost").code == 2
    assert "Hola, Ana: gracias" in sent("messages").out


@pytest.mark.parametrize(
    "verb",
    [
        "tick dispatch",
        "send thanks/hello --to ana --channel sms --purpose service --yes",
        "replies answer 1 --text Hola --yes",
    ],
)
def test_a_copy_of_the_workspace_sends_nothing(shop: Run, database_url: str, verb: str) -> None:
    assert shop("import").code == 0
    assert shop("publish", "--yes").code == 0
    db = store.open_database(database_url, secret="a secret for tests")
    store.adopt_host(db, "elsewhere:/shop", adopt=False)
    db.engine.dispose()

    done = shop(*verb.split())

    is_refused = "are sent from this database by elsewhere:/shop: a copy" in done.err
    assert is_refused is database_url.startswith("sqlite")
    assert done.code == 1 or not is_refused


def test_cancel_ends_what_is_planned(shop: Run) -> None:
    assert shop("publish", "--yes", "--now", MORNING).code == 0
    assert shop("import", "--now", NOON).code == 0
    assert shop("tick", "plan", "--now", NOON).code == 0

    assert shop("cancel", "thanks/thanks", "--json", "--now", NOON).json == {"cancelled": 2}
    assert shop("cancel", "thanks/other").code == 1
    assert shop("cancel", "nothing").code == 1
    assert {one["status"] for one in shop("messages", "--json").json["messages"]} == {"cancelled"}


def test_a_paused_campaign_waits_until_it_is_resumed(shop: Run) -> None:
    assert shop("publish", "--yes", "--now", MORNING).code == 0
    assert shop("import", "--now", NOON).code == 0
    assert shop("tick", "plan", "--now", NOON).code == 0

    assert shop("pause", "thanks", "--reason", "a typing mistake", "--now", NOON).code == 0
    dispatched = shop("tick", "dispatch", "--json", "--now", NOON).json
    assert dispatched["sent"] == 0
    assert dispatched["paused"] == [{"campaign": "thanks", "reason": "paused by hand: a typing mistake"}]
    assert shop("tick", "dispatch", "--now", NOON).out.splitlines()[-1] == (
        "thanks is paused: paused by hand: a typing mistake. Its messages wait: mend that, then `outreach resume thanks`."
    )
    assert "a typing mistake" in shop("status", "--now", NOON).out
    assert shop("resume", "thanks", "--now", NOON).code == 0

    assert shop("tick", "dispatch", "--json", "--now", "2026-06-15T13:00").json["sent"] == 2


def test_status_shows_the_queue(sent: Run) -> None:
    found = sent("status", "--json", "--now", NOON).json

    assert found["messages"] == {"sent": 2}
    assert found["paused"] == []
    assert "sent" in sent("status", "--now", NOON).out


# --- reports -----------------------------------------------------------------------------------------------------


def test_reports_have_the_documented_shapes(sent: Run) -> None:
    retention = sent("report", "retention", "--by", "quarter", "--json", "--now", NOON).json
    days = ("--from", "2026-04-01", "--to", "2026-07-01")
    cohorts = sent("report", "cohorts", *days, "--json", "--now", NOON).json
    repurchase = sent("report", "repurchase", "--json", "--now", NOON).json
    campaigns = sent("report", "campaigns", "--json", "--now", NOON).json

    assert {*retention} >= {"rows", "left_out"}
    assert [*retention["rows"][0]] == ["period", "before", "retained", "rate", "low", "high", "new", "reactivated"]
    assert [*cohorts["rows"][0]] == ["cohort", "size", "active"]
    assert cohorts["rows"][0] == {"cohort": "2026-04", "size": 1, "active": [1, 0, None]}
    assert [*repurchase["rows"][0]] == ["days", "rate", "low", "high", "at_risk"]
    assert [row["days"] for row in repurchase["rows"]] == [30, 60, 90, 180, 365]
    assert campaigns["rows"][0]["campaign"] == "thanks"


@pytest.mark.parametrize("name", ["retention", "cohorts", "repurchase", "campaigns"])
def test_every_report_prints_a_table_and_writes_csv(sent: Run, tmp_path: Path, name: str) -> None:
    file = tmp_path / "report.csv"

    assert sent("report", name, "--now", NOON).code == 0
    assert sent("report", name, "--csv", file, "--now", NOON).code == 0

    assert len(lines(file)) > 1
    assert len({len(row) for row in lines(file)}) == 1


def test_one_period_is_compared_with_the_equally_long_one_before(sent: Run) -> None:
    given = ("--from", "2026-06-01", "--to", "2026-07-01", "--json", "--now", NOON)

    rows = sent("report", "retention", *given).json["rows"]

    assert [(row["before"], row["retained"], row["rate"], row["new"], row["reactivated"]) for row in rows] == [
        (0, 0, None, 2, 1)
    ]


def test_cells_that_a_spreadsheet_would_run_are_made_harmless(tmp_path: Path) -> None:
    show.write_csv(tmp_path / "out.csv", ("a", "b"), [("=HYPERLINK(1)", -5), ("@x", None), ("plain", "+52")])

    assert lines(tmp_path / "out.csv") == [["a", "b"], ["'=HYPERLINK(1)", "-5"], ["'@x", ""], ["plain", "'+52"]]


def test_a_csv_that_cannot_be_written_is_one_line(sent: Run) -> None:
    done = sent("report", "repurchase", "--csv", "nowhere/out.csv", "--now", NOON)

    assert (done.code, len(done.err.splitlines())) == (1, 1)


# --- the demo ----------------------------------------------------------------------------------------------------


def test_the_demo_refuses_a_folder_that_is_not_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")

    assert run("demo", "mine").code == 1
    assert run("demo", "mine", "--force").code == 1
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
