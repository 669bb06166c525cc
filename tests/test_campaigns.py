from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach import campaigns, yamlfile
from outreach.campaign_keys import CAMPAIGN
from outreach.campaigns import Backfill, Campaign, Goal, Step, Trigger
from outreach.keys import Kind, ListOf, Record
from outreach.settings import Business, Cap, ChannelSettings, Offer, Settings, Survey
from outreach.values import Duration, Limit

SETTINGS = Settings(
    workspace=Path("/shop"),
    business=Business("Luna", "America/Mexico_City", "MXN"),
    channels={name: ChannelSettings() for name in ("email", "sms", "whatsapp")},
    events={"cart.abandoned": ("url",)},
    surveys={"csat": Survey("csat", "1-5")},
    offers={
        "back15": Offer("back15", "percent", "15", shared_code="VUELVE15", codes="shared"),
        "sorry10": Offer("sorry10", "percent", "10"),
    },
)

POST_SALE = """
# campaigns/post_sale.yaml
title: Thank-you and satisfaction
active: yes                        # no: checked and published, but sends nothing
purpose: service                   # per step too; see 3.4
trigger: {event: order.delivered}
where: country = 'MX' and orders_count >= 1
stop_when: [case_open, refunded]
starts: 2026-12-01                 # optional; default is the first publish
ends: 2027-12-01                   # optional
steps:
  - id: thanks
    after: 3 days
    at: "10:00"                    # customer's local time
    channel: [whatsapp, sms, email]   # first one the customer can be reached on
    template: post_sale/thanks
    expires: 2 days                # counted from the due time; default 3 days
  - id: survey
    after: 7 days
    channel: email
    template: post_sale/survey
    survey: csat
"""

LOW_SCORE = """
title: We want to put it right
purpose: service
trigger: {event: case.closed, kind: complaint, outcome: [resolved, kept]}
steps:
  - {id: listen, after: 1 hour, channel: sms, template: low_score/listen}
  - {id: sorry, after: 3 days, purpose: marketing, channel: [sms, email], template: low_score/sorry, offer: back15,
     unless: [ordered]}
"""

WIN_BACK = """
title: We miss you
goal: {event: order.placed, within: 30 days}     # the default goal
holdout: 10%
priority: 50                       # who goes first under a cap; higher first
at_most: once per 180 days
trigger: {event: customer.inactive, after: 90 days}
where: orders_count >= 2 and not tagged('wholesale')
steps:
  - {id: miss, after: 0 days, at: "11:00", channel: [whatsapp, email], template: win_back/miss,
     variants: {plain: 50%, warm: 50%}}
  - {id: offer, after: 10 days, channel: email, template: win_back/offer, offer: back15, unless: [ordered, replied]}
"""

EVERYTHING = """
trigger: {schedule: "0  10 1 * *"}
was: old_name
brake: 5%
experiment: shared
starts: 2026-12-01T10:00
ends: 2026-12-01 18:00:00+00:00
stop_when: opted_out
steps:
  - {id: a, was: b, after: 90 minutes, at: 9:30, channel: email, template: x, tag: seen, where: orders_count > 1}
"""

STEPS = "steps: [{id: a, after: 1 day, channel: email, template: x}]\n"
PLACED = "trigger: {event: order.placed}\n"


def load(text: str, name: str = "c") -> tuple[Campaign | None, list[str]]:
    found, problems = campaigns.load({f"campaigns/{name}.yaml": text}, SETTINGS)
    return found.get(name), [str(problem).removeprefix(f"campaigns/{name}.yaml:") for problem in problems]


def good(text: str, name: str = "c") -> Campaign:
    campaign, problems = load(text, name)
    assert problems == []
    assert campaign is not None
    return campaign


def test_a_post_sale_campaign_is_read() -> None:
    assert good(POST_SALE, "post_sale") == Campaign(
        name="post_sale",
        title="Thank-you and satisfaction",
        purpose="service",
        trigger=Trigger("order.delivered"),
        where="country = 'MX' and orders_count >= 1",
        stop_when=("case_open", "refunded"),
        starts=date(2026, 12, 1),
        ends=date(2027, 12, 1),
        experiment="post_sale",
        steps=(
            Step(
                "thanks",
                Duration(days=3),
                ("whatsapp", "sms", "email"),
                "post_sale/thanks",
                at=time(10),
                expires=Duration(days=2),
                purpose="service",
            ),
            Step("survey", Duration(days=7), ("email",), "post_sale/survey", purpose="service", survey="csat"),
        ),
    )


def test_a_campaign_on_cases_is_read() -> None:
    campaign = good(LOW_SCORE)
    assert campaign.trigger == Trigger("case.closed", kind=("complaint",), outcome=("resolved", "kept"))
    assert [step.purpose for step in campaign.steps] == ["service", "marketing"]
    assert campaign.steps[1].offer == "back15"


def test_a_win_back_campaign_is_read() -> None:
    campaign = good(WIN_BACK)
    assert campaign.trigger == Trigger("customer.inactive", after=Duration(days=90))
    assert (campaign.holdout, campaign.priority) == (0.1, 50)
    assert campaign.at_most == Limit(1, Duration(days=180))
    assert campaign.goal == Goal("order.placed", Duration(days=30))
    assert campaign.steps[0].variants == (("plain", 0.5), ("warm", 0.5))
    assert campaign.steps[1].unless == ("ordered", "replied")


def test_every_further_key_is_read() -> None:
    campaign = good(EVERYTHING)
    assert campaign.trigger == Trigger("schedule", schedule="0 10 1 * *")
    assert (campaign.title, campaign.was, campaign.brake, campaign.experiment) == ("c", "old_name", 0.05, "shared")
    assert campaign.starts == datetime(2026, 12, 1, 16, 0, tzinfo=UTC)
    assert campaign.ends == datetime(2026, 12, 1, 18, 0, tzinfo=UTC)
    assert campaign.stop_when == ("opted_out",)
    step = campaign.steps[0]
    assert (step.at, step.tag, step.was, step.where) == (time(9, 30), "seen", "b", "orders_count > 1")


BACKFILL = "backfill: {last: 365 days, pace: 50 per day}\n"


@pytest.mark.parametrize("event", ["order.delivered", "customer.created", "customer.inactive, after: 90 days"])
def test_what_has_happened_can_be_taken_up(event: str) -> None:
    backfill = good(f"trigger: {{event: {event}}}\n{BACKFILL}{STEPS}").backfill
    assert backfill == Backfill(Duration(days=365), Limit(50, Duration(days=1)))


@pytest.mark.parametrize(
    "trigger",
    [
        "{event: customer.birthday}", "{date: 2026-11-13}", "{date: attributes.renewal}", '{schedule: "0 10 1 * *"}',
        "{event: case.overdue, after: 2 days}", "{event: coupon.expiring, before: 3 days}",
    ],
)  # fmt: skip
def test_what_comes_due_by_the_clock_cannot_be_taken_up(trigger: str) -> None:
    _, problems = load(f"trigger: {trigger}\n{BACKFILL}{STEPS}")
    assert len(problems) == 1
    assert "`backfill` takes up what has happened" in problems[0]


@pytest.mark.parametrize("key", ["sku", "product", "category"])
def test_a_list_without_a_value_is_no_list(key: str) -> None:
    _, problems = load(f"trigger:\n  event: order.placed\n  {key}:\n  # - MUG\n{STEPS}")
    assert len(problems) == 1
    assert f"`trigger.{key}` has no value" in problems[0]


@pytest.mark.parametrize("name", ["contact", "holdout"])
def test_no_variant_is_called_like_an_arm(name: str) -> None:
    step = f"{{id: a, after: 1 day, channel: email, template: x, variants: {{{name}: 50%, other: 50%}}}}"
    _, problems = load(f"{PLACED}steps: [{step}]\n")
    assert [one.partition(": ")[2] for one in problems] == [
        f"a variant cannot be called {name}: that is what everybody's arm is called"
    ]


@pytest.mark.parametrize(
    ("written", "trigger"),
    [
        ("{event: order.placed, sku: [A*, B], product: Mug}", Trigger("order.placed", sku=("A*", "B"), product=("Mug",))),
        ("{event: order.refunded, category: 010}", Trigger("order.refunded", category=("010",))),
        ("{event: customer.created}", Trigger("customer.created")),
        ("{event: customer.birthday}", Trigger("customer.birthday")),
        ("{event: case.overdue, after: 2 hours}", Trigger("case.overdue", after=Duration(seconds=7200))),
        ("{event: case.opened, kind: return, category: size}", Trigger("case.opened", kind=("return",), category=("size",))),
        ("{event: cart.abandoned}", Trigger("cart.abandoned")),
        ('{date: 2026-11-13, at: "10:00"}', Trigger("date", on_date=date(2026, 11, 13), at=time(10))),
        ("{date: attributes.warranty_end, before: 7 days}", Trigger("date", attribute="warranty_end", before=Duration(days=7))),
        ('{schedule: "*/5 9-17 * * mon"}', Trigger("schedule", schedule="*/5 9-17 * * mon")),
    ],
)  # fmt: skip
def test_every_kind_of_trigger_is_read(written: str, trigger: Trigger) -> None:
    assert good(f"trigger: {written}\n{STEPS}").trigger == trigger


ALL_EVENTS = (
    "order.placed, order.paid, order.shipped, order.delivered, order.cancelled, order.refunded, customer.created,"
    " case.opened, case.closed, survey.answered, reply.received, customer.birthday, customer.inactive, case.overdue, coupon.expiring, cart.abandoned"
)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ("{event: order.shiped}", f"1:18: unknown event `order.shiped`: allowed are {ALL_EVENTS} (did you mean `order.shipped`?)"),
        ("{event: survey.answered, score: 2}", "1:42: `trigger.score` means nothing without `survey`: each survey has its own scale (add survey: NAME)"),
        ("{event: survey.answered, survey: cast}", "1:43: unknown survey `cast`: outreach.yaml has csat (did you mean `csat`?)"),
        ("{event: survey.answered, survey: csat, score: 5-6}", "1:56: `trigger.score` is not on the scale 1-5 of the survey csat"),
        ("{event: survey.answered, survey: csat, score: 2-1}", "1:56: `trigger.score`: `2-1` is neither a score such as 2 nor a range such as 1-2, nor yes or no"),
        ("{event: order.placed, survey: csat}", "1:32: the trigger `order.placed` takes no `survey`: it takes sku, product, category"),
        ("{event: reply.received, intent: sometimes}", "1:42: `trigger.intent`: `sometimes` is unknown: allowed are opt_out, opt_in, help, score, yes, no, complaint, cancellation, return, refund, question, thanks, out_of_office, other"),
        ("{event: reply.received, to: nobody}", "1:38: `trigger.to`: there is no campaign nobody"),
        ("{event: reply.received, to: c/nothing}", "1:38: `trigger.to`: c has no step nothing"),
        ("{event: order.placed, to: c}", "1:32: the trigger `order.placed` takes no `to`: it takes sku, product, category"),
        (
            "{event: coupon.expiring}",
            "1:10: the trigger `coupon.expiring` needs `before` (such as before: 3 days)",
        ),
        (
            "{event: coupon.expiring, before: 3 days, offer: back51}",
            "1:58: unknown offer `back51`: outreach.yaml has back15, sorry10 (did you mean `back15`?)",
        ),
        (
            "{event: coupon.expiring, before: 90 minutes}",
            "1:43: `trigger.before` is counted in whole days, not in 90 minutes",
        ),
        ("{event: customer.inactive}", "1:10: the trigger `customer.inactive` needs `after` (such as after: 90 days)"),
        (
            "{event: customer.inactive, after: 90 minutes}",
            "1:44: `trigger.after`: inactivity is counted in whole days, not in 90 minutes",
        ),
        (
            "{event: order.paid, after: 3 days}",
            "1:30: the trigger `order.paid` takes no `after`: it takes sku, product, category",
        ),
        (
            "{event: customer.created, sku: X}",
            "1:36: the trigger `customer.created` takes no `sku`: it takes no further keys",
        ),
        ("{event: case.opened, outcome: lost}", "1:31: the trigger `case.opened` takes no `outcome`: it takes kind, category"),
        (
            "{date: 2026-11-13, before: 2 days}",
            "1:29: the trigger `date` takes no `before`: it takes at",
        ),
        (
            '{date: attributes.end, at: "10:00"}',
            "1:33: the trigger `date: attributes.NAME` takes no `at`: it takes before",
        ),
        ("{date: 2026-02-30}", "1:17: `trigger.date`: there is no 2026-02-30 in the calendar"),
        ("{date: birthday}", "1:17: `trigger.date`: `birthday` is neither a date such as 2026-11-13 nor attributes.NAME"),
        (
            '{schedule: "0 10 1 *"}',
            '1:21: `trigger.schedule`: `0 10 1 *` has 4 fields; a schedule has five, such as "0 10 1 * *"',
        ),
        ('{schedule: "0 10 30 2 *"}', "1:21: `trigger.schedule`: `0 10 30 2 *` is not a schedule such as \"0 10 1 * *\": Bad day-of-month"),
        (
            '{schedule: "0 25 * * *"}',
            '1:21: `trigger.schedule`: `0 25 * * *` is not a schedule such as "0 10 1 * *": Bad hour',
        ),
        (
            "{event: order.paid, date: 2026-11-13}",
            "1:10: `trigger` takes exactly one of event, date and schedule (such as {event: order.delivered})",
        ),
        (
            "{}",
            "1:10: `trigger` takes exactly one of event, date and schedule (such as {event: order.delivered})",
        ),
        (
            "",
            "1:1: `trigger` takes exactly one of event, date and schedule (such as {event: order.delivered})",
        ),
        (
            "order.paid",
            '1:10: `trigger` takes {event: order.delivered}, {date: 2026-11-13} or {schedule: "0 10 1 * *"}',
        ),
        (
            "{event: case.opened, kind: complain}",
            ("1:37: `trigger.kind`: `complain` is unknown: allowed are complaint, cancellation, return, refund, question"
            " (did you mean `complaint`?)"),
        ),
    ],
)  # fmt: skip
def test_a_wrong_trigger_is_named_with_its_place(trigger: str, expected: str) -> None:
    assert load(f"trigger: {trigger}\n{STEPS}")[1] == [expected]


CHANNELS = "allowed are email, sms, whatsapp, messenger, call, visit"
STEP_KEYS = "id, after, at, channel, template, expires, purpose, where, unless, variants, offer, survey, tag, was"


def step(**keys: str) -> str:
    values = {"id": "a", "after": "1 day", "channel": "email", "template": "x", **keys}
    return PLACED + "steps:\n  - {" + ", ".join(f"{key}: {value}" for key, value in values.items() if value) + "}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (step(channel="emial"), f"3:36: `steps.channel`: `emial` is unknown: {CHANNELS} (did you mean `email`?)"),
        (
            step(channel="[email, call]"),
            ("3:44: the channel call is not configured in outreach.yaml "
            "(configured are email, sms, whatsapp: add it there, or take it out of the step)"),
        ),
        (step(channel="[sms, sms]"), "3:42: the channel sms is named twice"),
        (step(channel="[]"), "3:36: `steps.channel` is empty (it takes a channel, or a list of such)"),
        (step(after="3 dais"), "3:20: `steps.after`: `3 dais` is not a length of time: write `90 minutes`, `3 days`, `2 weeks`"),
        (step(after=""), "3:5: `after` is missing in `steps` (it takes a length of time such as `3 days`)"),
        (step(at="25:00"), '3:60: `steps.at`: `25:00` is not a time of day: write it in quotes, as "10:00"'),
        (step(expires="0 days"), "3:65: `steps.expires`: it must be longer than nothing, such as `3 days`"),
        (step(template="../secret"), "3:53: `steps.template`: `../secret` is not a template such as post_sale/thanks"),
        (step(chanel="sms"), f"3:56: unknown key `chanel` in `steps`: allowed are {STEP_KEYS} (did you mean `channel`?)"),
        (step(unless="orderd"), None),
        (step(survey="cast"), "3:64: unknown survey `cast`: outreach.yaml has csat (did you mean `csat`?)"),
        (step(offer="back51"), "3:63: unknown offer `back51`: outreach.yaml has back15, sorry10 (did you mean `back15`?)"),
        (
            step(offer="back15", purpose="service"),
            "3:63: a service message takes no offer: an offer makes it marketing (write purpose: marketing for this step)",
        ),
        (
            step(variants="{a: 50%, b: 40%}"),
            "3:66: the shares of `variants` add up to 90%, not to 100% (such as {plain: 50%, warm: 50%})",
        ),
        (step(variants="{a: half}"), "3:70: `steps.variants.a`: `half` is not a share: write a percentage such as `10%`"),
        (step(tag="a b"), "3:61: `steps.tag`: `a b` is not a tag of letters, digits, _ and -"),
        (step(quiet_hours="22-7"), None),
        (step(where=""), None),
        (step(id="Thanks!"), "3:10: `steps.id`: `Thanks!` is not a name such as thanks (small letters, digits, _ and -)"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_named_with_its_place(text: str, expected: str | None) -> None:
    expected_of_long_lists = {
        "orderd": f"3:64: `steps.unless`: `orderd` is unknown: allowed are {', '.join(campaigns.UNTIL_WORDS)}"
        " (did you mean `ordered`?)",
        "quiet": "3:56: there are no quiet hours: `sending_hours` of outreach.yaml says when sending is allowed"
        ' (write sending_hours: {default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}})',
    }
    long = [line for word, line in expected_of_long_lists.items() if word in text]
    assert load(text)[1] == ([expected] if expected else long)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STEPS, ["1:1: `trigger` is missing (it takes {event: order.delivered}, {date: 2026-11-13} or {schedule: \"0 10 1 * *\"})"]),
        (PLACED, ["1:1: `steps` is missing (it takes a list: {id: thanks, after: 3 days, channel: email, template: post_sale/thanks})"]),
        (PLACED + "steps: []", ["2:8: `steps` is empty (it takes a list: {id: thanks, after: 3 days, channel: email, template: post_sale/thanks})"]),
        (PLACED + "steps: {}", ["2:8: `steps` takes a list: {id: thanks, after: 3 days, channel: email, template: post_sale/thanks}"]),
        (PLACED + STEPS + "holdout: 10", ["3:10: `holdout`: `10` is not a share: write a percentage such as `10%`"]),
        (PLACED + STEPS + "active: maybe", ["3:9: `active`: `maybe` is neither yes nor no"]),
        (PLACED + STEPS + "where:", ["3:1: `where` has no value (it takes a condition such as `orders_count >= 2`)"]),
        (PLACED + STEPS + "brake: 0", ["3:8: `brake`: `0` is neither a number of messages such as 500 nor a percentage such as 20%"]),
        (PLACED + STEPS + "starts: 1.12.2026", ["3:9: `starts`: `1.12.2026` is neither a date such as 2026-12-01 nor a time such as 2026-12-01T10:00"]),
        (PLACED + STEPS + "starts: 2026-12-01\nends: 2026-12-01", ["4:7: `ends` is not after `starts`"]),
        (PLACED + STEPS + "holdout: 5%\nholdout: 6%", ["4:1: `holdout` is written twice: line 3 has it, too (keep one of them)"]),
        (PLACED + STEPS + "sending: x\nholdout: y", [
            ("3:1: unknown key `sending`: allowed are title, active, purpose, trigger, where, stop_when, starts, ends,"
            " goal, holdout, priority, at_most, brake, backfill, experiment, was, steps"),
            "4:10: `holdout`: `y` is not a share: write a percentage such as `10%`",
        ]),
        (PLACED + STEPS + "backfill: {last: 1 year}", ["3:11: `pace` is missing in `backfill` (it takes a limit such as `once per 180 days`)"]),
        (PLACED + STEPS + "purpose: transactional\nholdout: 5%", ["4:10: a holdout keeps transactional messages from people who need them (take `holdout` away)"]),
        (PLACED + STEPS + "purpose: service\nholdout: 5%", ["4:10: warning: a holdout keeps service messages from some of the customers they serve"]),
        (PLACED + STEPS + "goal: {event: order.plaiced}", [
            ("3:15: unknown goal `order.plaiced`: allowed are order.placed, order.paid, order.shipped, order.delivered,"
            " order.cancelled, order.refunded, case.closed, survey.answered, cart.abandoned (did you mean `order.placed`?)")]),
        (PLACED + STEPS + "goal: {event: survey.answered}", []),
        (PLACED + "goal: {within: 5 days}\nsteps:\n- {id: a, after: 1 day, channel: sms, template: x}\n- {id: b, after: 6 days, channel: sms, template: x}", [
            ("2:16: the goal's window of 5 days closes before the last step, 5 days in (make `goal: {within: …}` longer,"
            " counted from the first step)")]),
        ("trigger: {event: customer.created}\nstop_when: [paid]\n" + STEPS, ["2:13: warning: `paid` looks at the occasion's order, which this trigger has not (it never comes true)"]),
        ("- a", ["1:1: holds a list where `key: value` lines are expected"]),
        (PLACED + "\tsteps: []", ["2:1: a tab: YAML is indented with spaces only"]),
        (PLACED + "steps:\n- {id: a, after: 1 day, channel: sms, template: x}\n- {id: a, was: c, after: 2 days, channel: sms, template: x}\n"
         "- {id: d, was: c, after: 2 days, channel: sms, template: x}\n- {id: e, was: d, after: 2 days, channel: sms, template: x}", [
            "4:8: two steps have the id `a`: an id is a step's identity",
            "5:16: two steps say `was: c`",
            "6:16: `was: d` names a step that is still there"]),
    ],
)  # fmt: skip
def test_a_wrong_campaign_is_named_with_its_place(text: str, expected: list[str]) -> None:
    assert load(text)[1] == expected


def test_a_campaign_of_ten_thousand_steps_is_refused_at_its_101st() -> None:
    steps = "".join(f"- {{id: s{n}, after: 1 day, channel: sms, template: x}}\n" for n in range(10_000))
    campaign, problems = load(PLACED + "steps:\n" + steps)
    assert campaign is None
    assert problems == ["103:3: `steps` has over 100 entries, more than outreach takes"]


def test_all_problems_of_all_files_come_at_once() -> None:
    files = {
        "campaigns/b.yaml": PLACED + STEPS + "was: a\nholdout: x",
        "campaigns/a.yaml": PLACED + STEPS + "was: gone",
        "campaigns/c.yaml": PLACED + STEPS + "was: gone",
        "campaigns/Big Name.yaml": PLACED + STEPS,
        "campaigns/sub/d.yaml": "ignored",
        "message_templates/x.email.j2": "ignored",
        "catalogue.json": "{}",
    }
    found, problems = campaigns.load(files, SETTINGS)
    assert [str(one) for one in problems] == [
        "campaigns/Big Name.yaml: the file's name `Big Name` is no campaign name: use small letters, digits, _ and -",
        "campaigns/b.yaml:4:10: `holdout`: `x` is not a share: write a percentage such as `10%`",
        "campaigns/b.yaml:3:6: `was: a` names a campaign that is still there",
        "campaigns/c.yaml:3:6: `was: gone` is said by a.yaml, too",
    ]
    assert sorted(found) == ["Big Name", "a", "b", "c"]


def test_a_cap_on_a_campaign_that_does_not_exist_is_a_warning() -> None:
    from dataclasses import replace

    settings = replace(SETTINGS, caps=(Cap(Limit(1, Duration(days=1)), campaign="wim_back"),))
    _, problems = campaigns.load({"campaigns/win_back.yaml": WIN_BACK}, settings)
    assert [str(one) for one in problems] == [
        "outreach.yaml: warning: a cap names the campaign `wim_back`, which does not exist (did you mean `win_back`?)"
    ]


def test_a_value_is_found_at_its_place() -> None:
    files = {"campaigns/c.yaml": WIN_BACK, "campaigns/d.yaml": PLACED + "where: >\n  a = 1\n  and b = 2\n"}
    assert campaigns.position(files, "c", "where") == ("campaigns/c.yaml", 8, 8)
    assert campaigns.position(files, "c", "steps", 1, "template") == ("campaigns/c.yaml", 12, 59)
    assert campaigns.position(files, "c", "steps", 0, "at") == ("campaigns/c.yaml", 10, 36)
    assert campaigns.position(files, "c", "steps", 1, "where") == ("campaigns/c.yaml", 12, 5)
    assert campaigns.position(files, "d", "where") == ("campaigns/d.yaml", 3, 3)
    assert campaigns.position(files, "none", "where") == ("campaigns/none.yaml", 0, 0)


# --- the schema ------------------------------------------------------------------------------------------------------


def mismatches(rule: Mapping[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What of this value the schema forbids: the few words of JSON Schema that ours uses."""
    types: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    assert set(rule) <= {
        "type", "enum", "const", "pattern", "anyOf", "items", "minItems", "maxItems", "minimum", "maximum", "properties",
        "required", "additionalProperties", "propertyNames", "description", "title", "$schema",
    }  # fmt: skip
    kinds = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if kinds and not any(isinstance(value, types[kind]) for kind in kinds):
        yield f"{path}: not {kinds}"
        return
    if "enum" in rule and value not in rule["enum"]:
        yield f"{path}: not in {rule['enum']}"
    if "const" in rule and value != rule["const"]:
        yield f"{path}: not {rule['const']}"
    if "pattern" in rule and isinstance(value, str) and not re.search(rule["pattern"], value):
        yield f"{path}: not like {rule['pattern']}"
    if "anyOf" in rule and all(list(mismatches(part, value, path)) for part in rule["anyOf"]):
        yield f"{path}: none of {rule['anyOf']}"
    if isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        for index, item in enumerate(value):
            yield from mismatches(rule.get("items", {}), item, f"{path}[{index}]")
    if isinstance(value, dict):
        yield from (f"{path}: lacks {name}" for name in rule.get("required", ()) if name not in value)
        further = rule.get("additionalProperties", {})
        for name, inner in value.items():
            below = rule.get("properties", {}).get(name, further)
            if below is False:
                yield f"{path}: knows no {name}"
            else:
                yield from mismatches(rule.get("propertyNames", {}), name, f"{path}.{name}")
                yield from mismatches(below, inner, f"{path}.{name}")


def editors_view(text: str) -> Any:
    """The values as an editor's YAML 1.2 parser sees them: whole numbers are numbers."""

    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: typed(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [typed(inner) for inner in value]
        return int(value) if re.fullmatch("[0-9]+", value) else value

    node, _ = yamlfile.read("f.yaml", text)
    assert node is not None
    return typed(yamlfile.plain(node))


@pytest.mark.parametrize("settings", [None, SETTINGS])
@pytest.mark.parametrize("text", [POST_SALE, LOW_SCORE, WIN_BACK, EVERYTHING])
def test_the_schema_accepts_what_the_parser_accepts(text: str, settings: Settings | None) -> None:
    schema = json.loads(json.dumps(campaigns.schema(settings)))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(mismatches(schema, editors_view(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        STEPS,
        PLACED + STEPS + "holdout: ten",
        PLACED + STEPS + "chanel: x",
        step(channel="emial"),
        step(after="3 dais"),
        step(unless="orderd"),
        step(at="25:00"),
        step(offer="back51"),
        step(survey="cast"),
        "trigger: {event: order.payed}\n" + STEPS,
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(text: str) -> None:
    assert load(text)[1]
    assert list(mismatches(campaigns.schema(SETTINGS), editors_view(text)))


def schema_paths(rule: Mapping[str, Any], path: str = "") -> set[str]:
    below = {f"{path}{name}" for name in rule.get("properties", {})}
    for name, inner in rule.get("properties", {}).items():
        below |= schema_paths(inner, f"{path}{name}.")
    for part in rule.get("anyOf", ()):
        below |= schema_paths(part, path)
    return below | (schema_paths(rule["items"], path.removesuffix(".") + "[].") if "items" in rule else set())


def parser_paths(kind: Kind, path: str = "") -> set[str]:
    if isinstance(kind, ListOf):
        return parser_paths(kind.of, path.removesuffix(".") + "[].")
    if not isinstance(kind, Record):
        return set()
    return {f"{path}{key.name}" for key in kind.keys}.union(
        *(parser_paths(key.kind, f"{path}{key.name}.") for key in kind.keys)
    )


def test_schema_parser_and_reference_hold_the_same_keys() -> None:
    assert schema_paths(campaigns.schema(None)) == parser_paths(CAMPAIGN) == {row.path for row in campaigns.KEYS}
    assert all(row.text.endswith(".") for row in campaigns.KEYS)


WORDS = st.sampled_from(
    ["trigger: ", "steps: ", "event: ", "order.placed", "id: ", "a", "after: ", "1 day", "channel: ", "email", "template: ", "\n", "\n- ", "\n  ", "{", "}", "[", "]", ", ", ": ", "variants: ", "50%", "where: ", "~", "'", "\t", "offer: ", "date: ", "schedule: ", "* * * * *", "goal: ", "within: ", "was: ", "a", "backfill: ", "starts: ", "2026-12-01", "&x ", "*x", "brake: "]
)  # fmt: skip
YAMLISH = st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=40).map("".join)


@given(st.sampled_from(["", PLACED, STEPS, PLACED + STEPS, PLACED + "steps:\n- "]), YAMLISH)
def test_any_text_is_a_campaign_or_has_problems_and_never_raises(start: str, text: str) -> None:
    found, problems = campaigns.load({"campaigns/c.yaml": start + text, "campaigns/d.yaml": text}, SETTINGS)
    for name in ("c", "d"):
        assert name in found or any(one.file == f"campaigns/{name}.yaml" for one in problems)
        campaigns.position({"campaigns/c.yaml": start + text}, name, "steps", 0, "where")
    for campaign in found.values():
        assert campaign.steps
        assert campaign.look_back.days > 0
