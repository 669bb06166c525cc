"""`outreach check`: what it refuses, what it warns of, and what it says once."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from outreach import releases
from outreach.errors import Problem, Problems, said_once
from outreach.settings import ChannelSettings, Settings, SourceSettings
from outreach.store import Database
from outreach.values import parse_week_hours
from tests import test_cli
from tests.conftest import NOW
from tests.shop import EMAIL, customer, feed, files_of, order, shop_settings, write_csv
from tests.test_cli import Run

run, shop = test_cli.run, test_cli.shop

HOW_TO = Path(__file__).parent.parent / "docs" / "how-to"
NEWS = """
    title: News
    active: {active}
    trigger: {{event: customer.created}}
    steps: [{{id: hi, after: 1 hour, channel: {channel}, template: hi}}]
"""
HI = {f"message_templates/hi.{kind}.j2": "Hola" for kind in ("text", "call")}


def news(*, active: str, channel: str) -> str:
    return NEWS.format(active=active, channel=channel)


def by_twilio(folder: Path) -> Settings:
    channels = {"whatsapp": ChannelSettings("twilio", "+525500000000")}
    return shop_settings(folder, channels=channels, secrets={"TWILIO_ACCOUNT_SID": "AC", "TWILIO_AUTH_TOKEN": "t"})


def paste_channels(workspace: Path, page: str) -> None:
    """What somebody does who takes the `channels` of a page for their own."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    block = re.search(r"^channels:\n(?:  .*\n)+", text, re.MULTILINE)
    assert block is not None
    settings = workspace / "outreach.yaml"
    settings.write_text(re.sub(r"channels:\n(?:  .*\n)+", block[0], settings.read_text(), count=1))


def switch(workspace: Path, campaign: str, state: str) -> None:
    file = workspace / "campaigns" / f"{campaign}.yaml"
    file.write_text(re.sub(r"^active: .*$", f"active: {state}", file.read_text(), flags=re.MULTILINE))


# --- what a campaign that is off will need ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    ["send-email-by-sendgrid.md", "send-email-by-smtp.md", "send-sms-whatsapp-and-messenger-by-twilio.md"],
)
def test_the_channels_of_a_provider_s_page_do_not_fail_the_check_for_campaigns_that_are_off(
    run: Run, tmp_path: Path, page: str
) -> None:
    assert run("init", "shop", "--yes", "--name", "Luna").code == 0
    switch(tmp_path / "shop", "post_sale", "no")
    paste_channels(tmp_path / "shop", page)

    done = run("check", "--workspace", "shop")

    assert (done.code, done.err) == (0, "")
    assert all(": warning: " in line for line in done.out.splitlines())
    assert 2 <= len(done.out.splitlines()) <= 8
    assert "campaigns that are off" in done.out


def test_a_campaign_that_is_on_and_names_a_channel_that_is_not_configured_is_refused(
    db: Database, tmp_path: Path
) -> None:
    settings = shop_settings(tmp_path)
    off, on = (files_of(HI, news=news(active=active, channel="[call, sms]")) for active in ("no", "yes"))

    (warning,) = releases.check(off, settings)
    (error,) = releases.check(on, settings)

    assert str(warning) == (
        "campaigns/news.yaml:5:43: warning: the channel call is not configured in outreach.yaml: this campaign cannot "
        "be switched on (configured are email, sms, whatsapp: add it there, or take it out of the step)"
    )
    assert (error.warning, error.line, error.column) == (False, 5, 43)
    assert releases.publish(db, settings, off, NOW) == 1
    with pytest.raises(Problems, match="the channel call is not configured"):
        releases.publish(db, settings, on, NOW)


def test_a_campaign_that_is_on_and_has_no_approved_template_is_refused(db: Database, tmp_path: Path) -> None:
    settings = by_twilio(tmp_path)
    off, on = (files_of(HI, news=news(active=active, channel="whatsapp")) for active in ("no", "yes"))

    assert [(one.id, one.warning) for one in releases.check(off, settings)] == [("template-content-sid", True)]
    assert releases.publish(db, settings, off, NOW) == 1
    with pytest.raises(Problems, match="content_sid"):
        releases.publish(db, settings, on, NOW)


def test_a_template_that_a_campaign_that_is_on_shares_with_one_that_is_off_is_an_error_alone(tmp_path: Path) -> None:
    both = {active: news(active=active, channel="whatsapp") for active in ("no", "yes")}

    found = releases.check(files_of(HI, off=both["no"], on=both["yes"]), by_twilio(tmp_path))

    assert [(one.file, one.warning) for one in found] == [("message_templates/hi.text.j2", False)]


def test_a_mistake_in_a_campaign_that_is_off_is_an_error(tmp_path: Path) -> None:
    wrong = news(active="no", channel="sms").replace("template: hi", "template: missing, offer: none")

    found = releases.check(files_of(HI, news=wrong), shop_settings(tmp_path))

    assert [(one.id, one.warning) for one in found] == [("template-missing", False), ("unknown-offer", False)]


# --- sending hours ---------------------------------------------------------------------------------------------------


HOURS = {"default": parse_week_hours({"mon-fri": "09:00-20:00", "sat": "10:00-14:00"})}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ('at: "10:00"', ""),
        ('at: "19:59"', ""),
        ('at: "20:00"', "messages wait until they begin"),
        ('at: "23:30"', "messages wait until they begin"),
        ('at: "23:30", expires: 9 hours', "until they begin a message has expired, after 9 hours"),
        ('at: "23:30", expires: 10 hours', "messages wait until they begin"),
        ('at: "08:59", expires: 1 minute', "until they begin a message has expired, after 1 minute"),
        ('at: "23:30", purpose: transactional', "sending hours of sms on"),
    ],
)
def test_a_time_outside_the_sending_hours_of_every_day_is_warned_of(tmp_path: Path, step: str, expected: str) -> None:
    campaign = news(active="yes", channel="[sms, whatsapp]").replace("1 hour", f"1 day, {step}")

    found = releases.check(files_of(HI, news=campaign), shop_settings(tmp_path, sending_hours=HOURS))

    assert [(one.id, one.warning, one.line) for one in found] == ([("closed-hours", True, 5)] if expected else [])
    assert all(expected in one.text for one in found)


def test_the_built_in_hours_are_known(tmp_path: Path) -> None:
    campaign = news(active="yes", channel="[sms, email]").replace("1 hour", '1 day, at: "21:00"')
    files = files_of({**HI, "message_templates/hi.email.j2": EMAIL}, news=campaign)

    (found,) = releases.check(files, shop_settings(tmp_path, sending_hours={}))

    assert found.text.startswith("`at: 21:00` is outside the sending hours of sms on every day")


# --- attributes that nobody has -------------------------------------------------------------------------------------


ASKING = """
    title: Asking
    trigger: {event: order.placed}
    where: attributes.points > 100 and order.attributes.gift = 'yes'
    steps: [{id: hi, after: 1 hour, channel: sms, template: ask, where: "attributes['pionts'] = '1'"}]
"""
ASK = {
    "message_templates/ask.sms.j2": "Hola{% if customer.attributes.points %}, {{ customer.attributes.pints }}{% endif %}"
    " {{ order.attributes.gift | default }}",
}


def test_attributes_are_not_judged_before_there_is_a_record_or_a_file(db: Database, tmp_path: Path) -> None:
    sources = (SourceSettings("csv", {"customers": "customers.csv"}),)

    found = releases.check(files_of(ASK, asking=ASKING), shop_settings(tmp_path, sources=sources), db)

    assert [one for one in found if one.id == "unknown-attribute"] == []


@pytest.mark.parametrize("known_by", ["file", "records"])
def test_an_attribute_that_no_file_and_no_record_has_is_warned_of_where_it_is_named(
    db: Database, tmp_path: Path, known_by: str
) -> None:
    settings = shop_settings(tmp_path, segments={"rich": "attributes.pointz > 9"})
    ana, bought = customer(1, points="7"), order(1, "c1", NOW)
    if known_by == "file":
        write_csv(tmp_path / "customers.csv", [ana])
        write_csv(tmp_path / "orders.csv", [bought])
        named = {"customers": "customers.csv", "orders": "orders.csv"}
        settings = replace(settings, sources=(SourceSettings("csv", named),))
    else:
        feed(db, settings, NOW, customers=[ana], orders=[bought])
    files = files_of(ASK, asking=ASKING)
    files[releases.CATALOGUE] = json.dumps({"segments": settings.segments})

    found = [one for one in releases.check(files, settings, db) if one.id == "unknown-attribute"]

    assert [(one.file.rpartition("/")[2], one.line, one.column, one.hint, one.warning) for one in found] == [
        ("asking.yaml", 4, 36, "", True),
        ("asking.yaml", 5, 70, "did you mean `points`?", True),
        ("ask.sms.j2", 1, 45, "did you mean `points`?", True),
        ("ask.sms.j2", 1, 88, "", True),
        ("outreach.yaml", 0, 0, "did you mean `points`?", True),
    ]
    assert (
        found[0].text == "no record of orders has the attribute `gift`: it is a column of no file, and of none imported"
    )


# --- files that are not read ----------------------------------------------------------------------------------------


def test_what_looks_like_a_campaign_and_is_not_read_is_named(shop: Run, tmp_path: Path) -> None:
    folder = tmp_path / "campaigns"
    for name in ("spring.yml", "summer.YAML", "autumn.txt", "README.md", ".hidden.yml"):
        (folder / name).write_text("title: x\n")
    (folder / "old").mkdir()
    (folder / "old" / "winter.yaml").write_text("title: x\n")

    done = shop("check")
    published = shop("publish", "--yes")

    assert done.code == 1
    assert done.out.splitlines() == [
        (
            "campaigns/autumn.txt: warning: is not read: the name of a campaign's file ends in .yaml"
            " (rename it, or keep it elsewhere)"
        ),
        "campaigns/old: warning: is not read: campaigns lie in campaigns/ itself (move its files there)",
        "campaigns/spring.yml: is not read: the name of a campaign's file ends in .yaml (rename it to spring.yaml)",
        "campaigns/summer.YAML: is not read: the name of a campaign's file ends in .yaml (rename it to summer.yaml)",
    ]
    assert (published.code, published.err.splitlines()) == (1, done.out.splitlines())


# --- what is said once -----------------------------------------------------------------------------------------------


def test_several_problems_of_one_cause_are_said_once_with_their_number() -> None:
    cause = Problem("outreach.yaml", 3, 1, "x", "it rains", "take an umbrella", warning=True)
    wet = [Problem(f"{name}.j2", 1, 1, "x", "is wet", warning=True, cause=cause) for name in "abc"]
    other = Problem("d.j2", 1, 1, "y", "is torn")

    assert [str(one) for one in said_once([*wet, other, *wet])] == [
        "outreach.yaml:3:1: warning: it rains, in 3 places (take an umbrella; `outreach check --verbose` names each)",
        "d.j2:1:1: is torn",
    ]
    assert said_once([wet[0], other, other]) == [wet[0], other]


def test_a_secret_that_several_channels_need_is_said_once(tmp_path: Path) -> None:
    settings = replace(by_twilio(tmp_path), secrets={"TWILIO_ACCOUNT_SID": "AC"})
    settings = replace(settings, channels=dict.fromkeys(("sms", "whatsapp"), settings.channels["whatsapp"]))

    found = releases.check(files_of(), settings)

    assert [one.text.partition(":")[0] for one in found] == ["`channels.sms`", "`channels.whatsapp`"]
    assert [str(one) for one in said_once(found)] == [
        (
            "outreach.yaml: warning: the environment variable TWILIO_AUTH_TOKEN is not set, and twilio needs it, in 2 "
            "places (set it, or TWILIO_AUTH_TOKEN_FILE to a file that holds it; `outreach check --verbose` names each)"
        )
    ]


def test_a_shop_s_name_that_makes_every_sms_longer_is_said_once(run: Run, tmp_path: Path) -> None:
    assert run("init", "shop", "--yes", "--name", "Tienda Útil").code == 0

    done, each, as_json = (run("check", "--workspace", "shop", *options) for options in ([], ["--verbose"], ["--json"]))

    count = len(each.out.splitlines())
    assert count > 40
    assert (done.code, done.out) == (
        0,
        (
            "outreach.yaml: warning: `business.name` makes the SMS of templates longer than 2 parts, with sample facts, in "
            f"{count} places ('Ú' halves the room of every part: write the name without it if it can be; "
            "`outreach check --verbose` names each)\n"
        ),
    )
    assert [one["cause"] for one in as_json.json["problems"]] == [
        "`business.name` makes the SMS of templates longer than 2 parts, with sample facts"
    ] * count


def test_an_sms_that_is_long_without_the_shop_s_name_is_a_problem_of_its_own(tmp_path: Path) -> None:
    settings = shop_settings(tmp_path)
    settings = replace(settings, business=replace(settings.business, name="Útil"))
    texts = {
        "message_templates/hi.sms.j2": "camión " * 30,
        "message_templates/hey.sms.j2": "{{ business.name }}" + "x" * 150,
    }
    long = news(active="yes", channel="sms")
    files = files_of(texts, news=long, more=long.replace("template: hi", "template: hey"))

    own, named = sorted(releases.check(files, settings), key=lambda one: one.cause is not None)

    assert (own.file, own.cause) == ("message_templates/hi.sms.j2", None)
    assert named.file == "message_templates/hey.sms.j2"
