"""
The table of what a campaign file may hold, with its defaults.

`campaigns` reads by it; the JSON Schema and the reference page are made from it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from outreach.keys import (
    DURATION,
    LENGTH,
    LIMIT,
    SHARE,
    TIME_OF_DAY,
    YES_NO,
    Key,
    ListOf,
    MapOf,
    Record,
    Scalar,
    choice,
    matching,
    text,
    whole,
)
from outreach.values import CHANNELS, PURPOSES, parse_share
from outreach.yamlfile import shown

RECORD_EVENTS = (
    "order.placed", "order.paid", "order.shipped", "order.delivered", "order.cancelled", "order.refunded",
    "customer.created", "case.opened", "case.closed", "survey.answered",
    "reply.received",
)  # fmt: skip
TIME_EVENTS = ("customer.birthday", "customer.inactive", "case.overdue", "coupon.expiring")
GOAL_EVENTS = (*(event for event in RECORD_EVENTS if event.startswith("order.")), "case.closed", "survey.answered")
UNTIL_WORDS = (
    "ordered", "ordered_same", "paid", "shipped", "delivered", "refunded", "cancelled", "replied", "answered",
    "clicked", "reached", "opted_out", "case_open", "case_closed", "coupon_redeemed",
)  # fmt: skip
ORDER_WORDS = frozenset(("ordered_same", "paid", "shipped", "delivered", "refunded", "cancelled"))
CASE_KINDS = ("complaint", "cancellation", "return", "refund", "question")
CASE_OUTCOMES = ("resolved", "unresolved", "kept", "lost")
INTENTS = (  # as `intents.Intent`
    "opt_out", "opt_in", "help", "score", "yes", "no", "complaint", "cancellation", "return", "refund", "question",
    "thanks", "out_of_office", "other",
)  # fmt: skip
MOST_STEPS = 100

_LINES = ("sku", "product", "category")
TRIGGER_KEYS: dict[str, tuple[str, ...]] = {
    **{event: _LINES for event in RECORD_EVENTS if event.startswith("order.")},
    "customer.created": (),
    "customer.birthday": (),
    "customer.inactive": ("after",),
    "case.opened": ("kind", "category"),
    "case.closed": ("kind", "category", "outcome"),
    "case.overdue": ("after", "kind", "category"),
    "coupon.expiring": ("before", "offer"),
    "survey.answered": ("survey", "score"),
    "reply.received": ("intent", "to"),
    "schedule": (),
    "date": ("at",),
    "attribute": ("before",),
}


# --- small forms -----------------------------------------------------------------------------------------------------


def cron(value: str) -> str:
    """Five cron fields that fire at some time; ValueError says what is wrong."""
    from cronsim import CronSim, CronSimError

    fields = value.split()
    if len(fields) != 5:
        raise ValueError(f'`{shown(value)}` has {len(fields)} fields; a schedule has five, such as "0 10 1 * *"')
    try:
        next(CronSim(" ".join(fields), datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, ValueError, StopIteration) as error:
        why = shown(str(error)) or "it never comes"
        raise ValueError(f'`{shown(value)}` is not a schedule such as "0 10 1 * *": {why}') from None
    return " ".join(fields)


_DAY = r"2[0-1]\d{2}-\d{2}-\d{2}"
_MOMENT = _DAY + r"([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?"
_ATTRIBUTE = r"attributes\.\w{1,60}"


def _day_or_attribute(value: str) -> date | str:
    if re.fullmatch(_ATTRIBUTE, value.strip()):
        return value.strip()
    if re.fullmatch(_DAY, value.strip()):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"there is no {value.strip()} in the calendar") from None
    raise ValueError(f"`{shown(value)}` is neither a date such as 2026-11-13 nor attributes.NAME")


def _day_or_moment(value: str) -> date | datetime:
    words = value.strip()
    if not re.fullmatch(_MOMENT, words):
        raise ValueError(f"`{shown(value)}` is neither a date such as 2026-12-01 nor a time such as 2026-12-01T10:00")
    try:
        return date.fromisoformat(words) if len(words) == 10 else datetime.fromisoformat(words)
    except ValueError:
        raise ValueError(f"there is no {shown(words)} in the calendar") from None


def _brake(value: str) -> int | float:
    if value.strip().endswith("%") and (share := parse_share(value)):
        return share
    if re.fullmatch(r"[0-9]{1,9}", value.strip()) and int(value):
        return int(value)
    raise ValueError(f"`{shown(value)}` is neither a number of messages such as 500 nor a percentage such as 20%")


def _scores(value: str) -> tuple[int, int]:
    """A score or a range of scores, both ends included; of yes and no, as answers store them."""
    word = value.strip().lower()
    if word in ("yes", "no"):
        return (1, 1) if word == "yes" else (0, 0)
    match = re.fullmatch(r"([0-9]{1,2})(?:\s*-\s*([0-9]{1,2}))?", word)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if low > high:
        raise ValueError(f"`{shown(value)}` is neither a score such as 2 nor a range such as 1-2, nor yes or no")
    return low, high


_EVENT_SCHEMA = {
    "anyOf": [{"enum": [*RECORD_EVENTS, *TIME_EVENTS]}, {"type": "string", "pattern": r"^[a-z][a-z0-9_.]*$"}]
}
_NAME = matching("a name such as thanks (small letters, digits, _ and -)", r"[a-z0-9][a-z0-9_-]{0,59}")
_CONDITION = text("a condition such as `orders_count >= 2`", 2000, lines=True)
_PURPOSE = choice(*PURPOSES)
_CHANNEL = choice(*CHANNELS, what="a channel", names="channels")
_WORDS = ListOf(choice(*UNTIL_WORDS, what="a word such as ordered"), lone=True)
_PATTERNS = ListOf(text("a text, with * and ? for any letters", 200), lone=True)

# --- the table -------------------------------------------------------------------------------------------------------

TRIGGER = Record(
    (
        Key(
            "event",
            Scalar("an event such as order.delivered", str, _EVENT_SCHEMA, names="events"),
            f"What happened: {', '.join((*RECORD_EVENTS, *TIME_EVENTS))}, or an event that the settings declare.",
        ),
        Key(
            "date",
            Scalar(
                "a date such as 2026-11-13, or attributes.NAME",
                _day_or_attribute,
                {"type": "string", "pattern": f"^(?:{_DAY}|{_ATTRIBUTE})$"},
            ),
            "One day, once for everybody; or a date that is an attribute of the customer.",
        ),
        Key(
            "schedule",
            Scalar(
                'five cron fields such as "0 10 1 * *"', cron, {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$"}
            ),
            "Again and again, in the business's time.",
        ),
        Key("at", TIME_OF_DAY, "With a `date`: the time of that day, in the business's time.", "00:00"),
        Key("after", LENGTH, "With customer.inactive, since the last order; with case.overdue, since it was opened."),
        Key("before", LENGTH, "With a date attribute or coupon.expiring: this long before it."),
        Key("sku", _PATTERNS, "With order.*: only orders with a line of such a SKU."),
        Key("product", _PATTERNS, "With order.*: only orders with a line of such a product."),
        Key("category", _PATTERNS, "With order.* and case.*: only of such a category."),
        Key("kind", ListOf(choice(*CASE_KINDS), lone=True), "With case.*: only cases of this kind."),
        Key("outcome", ListOf(choice(*CASE_OUTCOMES), lone=True), "With case.closed: only with this outcome."),
        Key(
            "offer",
            Scalar("the name of an offer", str, names="offers"),
            "With coupon.expiring: only coupons of this offer.",
        ),
        Key(
            "survey",
            Scalar("the name of a survey", str, names="surveys"),
            "With survey.answered: only answers to this survey.",
        ),
        Key(
            "score",
            Scalar(
                "a score such as 2, a range such as 1-2, yes or no",
                _scores,
                {"anyOf": [{"type": "integer"}, {"type": "boolean"}, {"type": "string"}]},
            ),
            "With survey.answered, which then names the survey: only these scores.",
        ),
        Key("intent", ListOf(choice(*INTENTS), lone=True), "With reply.received: only replies that mean one of these."),
        Key(
            "to",
            matching("CAMPAIGN or CAMPAIGN/STEP", r"[a-z0-9][a-z0-9_-]{0,59}(/[a-z0-9][a-z0-9_-]{0,59})?"),
            "With reply.received: only replies to messages of this campaign, or of this step of it.",
        ),
    ),
    '{event: order.delivered}, {date: 2026-11-13} or {schedule: "0 10 1 * *"}',
)

GOAL = Record(
    (
        Key(
            "event",
            Scalar(
                "an event such as order.placed",
                str,
                {"anyOf": [{"enum": list(GOAL_EVENTS)}, _EVENT_SCHEMA["anyOf"][1]]},
                names="goals",
            ),
            f"What counts as success: {', '.join(GOAL_EVENTS)}, or an event that the settings declare.",
            "order.placed",
        ),
        Key("within", LENGTH, "How long after the first step.", "30 days"),
    ),
    "{event: order.placed, within: 30 days}",
)

STEP = Record(
    (
        Key("id", _NAME, "The step's identity: keep it when the step changes.", required=True),
        Key("after", DURATION, "How long after the occasion.", required=True),
        Key("at", TIME_OF_DAY, "The customer's local time on that day."),
        Key(
            "channel",
            ListOf(_CHANNEL, lone=True, least=1, most=len(CHANNELS)),
            "The first of these that the customer can be reached on.",
            required=True,
        ),
        Key(
            "template",
            matching("a template such as post_sale/thanks", r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,4}"),
            "The template's path, without channel, language and `.j2`.",
            required=True,
        ),
        Key("expires", LENGTH, "How long after its due time it may still leave.", "3 days"),
        Key("purpose", _PURPOSE, "Which rules it keeps.", "the campaign's"),
        Key("where", _CONDITION, "Only for customers of whom this is true when the step is due."),
        Key("unless", _WORDS, "Not when one of these happened since the occasion."),
        Key(
            "variants",
            MapOf(_NAME, SHARE),
            "Different texts to compare, with their shares of 100%: template `NAME-VARIANT` where there is one.",
        ),
        Key("offer", Scalar("the name of an offer", str, names="offers"), "The offer whose coupon it brings."),
        Key("survey", Scalar("the name of a survey", str, names="surveys"), "The survey it asks."),
        Key(
            "tag", matching("a tag of letters, digits, _ and -", r"[\w-]{1,60}"), "Put on the customer when it is sent."
        ),
        Key("was", _NAME, "The id it had before."),
    ),
    "{id: thanks, after: 3 days, channel: email, template: post_sale/thanks}",
)

CAMPAIGN = Record(
    (
        Key("title", text("a title", 200), "What people call it.", "the file's name"),
        Key(
            "active",
            YES_NO,
            "`no`: checked and published, but sends nothing; switched on later, it takes only what comes after that.",
            "yes",
        ),
        Key("purpose", _PURPOSE, "Which rules its steps keep.", "marketing"),
        Key("trigger", TRIGGER, "What starts it.", required=True),
        Key("where", _CONDITION, "Only for customers of whom this is true at the occasion."),
        Key("stop_when", _WORDS, "Once one of these happened since the occasion, all later steps end."),
        Key(
            "starts",
            Scalar("a date or a time", _day_or_moment, {"type": "string", "pattern": f"^{_MOMENT}$"}),
            "Occasions from then on, in the business's time.",
            "the first publish",
        ),
        Key(
            "ends",
            Scalar("a date or a time", _day_or_moment, {"type": "string", "pattern": f"^{_MOMENT}$"}),
            "No message from then on, in the business's time.",
        ),
        Key("goal", GOAL, "What it is measured by."),
        Key("holdout", SHARE, "The share that is deliberately not contacted, to measure by.", "0%"),
        Key("priority", whole(-1000, 1000), "Who goes first under a cap; higher first.", "0"),
        Key("at_most", LIMIT, "How often one customer may enter it."),
        Key(
            "brake",
            Scalar("a number or a percentage", _brake, {"type": ["integer", "string"]}),
            "More messages than this in 24 hours pause it.",
            "20% of customers, and at least 500",
        ),
        Key(
            "backfill",
            Record(
                (
                    Key("last", LENGTH, "How far back to take older occasions.", required=True),
                    Key("pace", LIMIT, "How many to take up at a time.", required=True),
                ),
                "{last: 365 days, pace: 50 per day}",
            ),
            "Takes occasions from before the first publish, newest first.",
        ),
        Key("experiment", _NAME, "Campaigns of one experiment share their arms.", "the campaign's name"),
        Key("was", _NAME, "The name its file had before."),
        Key("steps", ListOf(STEP, least=1, most=MOST_STEPS), "The messages, each at its time.", required=True),
    ),
    "title:, trigger:, steps:",
)
