"""
Campaign files: YAML → frozen `Campaign`, with every problem at its file, line and column.

What may be written stands in one table (`campaign_keys`), which also makes the JSON Schema and the
reference page; this file checks what several keys, the settings and other files say together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from outreach import arms, keys, yamlfile
from outreach import settings as settings_file
from outreach.campaign_keys import CAMPAIGN, GOAL_EVENTS, MOST_STEPS, ORDER_WORDS, TRIGGER_KEYS
from outreach.campaign_keys import RECORD_EVENTS as RECORD_EVENTS
from outreach.campaign_keys import TIME_EVENTS as TIME_EVENTS
from outreach.campaign_keys import UNTIL_WORDS as UNTIL_WORDS
from outreach.errors import Problem
from outreach.settings import Settings
from outreach.values import Duration, Limit
from outreach.yamlfile import Node, did_you_mean, listed, problem, shown

_THREE_DAYS = Duration(days=3)
_THIRTY_DAYS = Duration(days=30)
RESERVED = "manual"  # what `outreach send` sends counts as this campaign's
ANSWERS = "answers"  # and what answers replies as this one's
OPTED_OUT = "opted_out"  # its step that confirms an opt-out
AUTOMATIC = "automatic"  # and the one that answers by itself


@dataclass(frozen=True)
class Trigger:
    """What starts a campaign; `event` is one of RECORD_EVENTS, TIME_EVENTS, `date`, `schedule`, or a declared event."""

    event: str
    after: Duration | None = None  # customer.inactive, case.overdue
    before: Duration | None = None  # a date of the customer, coupon.expiring
    on_date: date | None = None  # `{date: 2026-11-13}`
    attribute: str | None = None  # `{date: attributes.NAME}`
    at: time | None = None  # with on_date: business time
    schedule: str | None = None  # five cron fields, business time
    sku: tuple[str, ...] = ()  # patterns with * and ?, case ignored; any may match
    product: tuple[str, ...] = ()
    category: tuple[str, ...] = ()  # of order lines; of the case in case.*
    kind: tuple[str, ...] = ()  # case.*
    outcome: tuple[str, ...] = ()  # case.closed
    survey: str | None = None  # survey.answered
    score: tuple[int, int] | None = None  # of that survey, both ends included
    offer: str | None = None  # coupon.expiring
    intent: tuple[str, ...] = ()  # reply.received
    to: str | None = None  # reply.received: campaign, or campaign/step

    @cached_property
    def subject(self) -> str:
        """The record it fires for: order, customer, case, coupon, answer, reply or event (a shop event)."""
        head = self.event.partition(".")[0]
        if self.event == "survey.answered":
            return "answer"
        if self.event in RECORD_EVENTS or self.event in TIME_EVENTS:
            return head
        return "customer" if self.event in ("date", "schedule") else "event"

    @property
    def is_common(self) -> bool:
        """Whether the day is all there is to an occasion: a date that is everybody's, a schedule's turn, a birthday."""
        return self.event in ("schedule", "customer.birthday") or self.on_date is not None


@dataclass(frozen=True)
class Goal:
    event: str = "order.placed"
    within: Duration = _THIRTY_DAYS


_AN_ORDER = Goal()


@dataclass(frozen=True)
class Step:
    id: str
    after: Duration
    channels: tuple[str, ...]
    template: str
    at: time | None = None
    expires: Duration = _THREE_DAYS
    purpose: str = "marketing"  # the campaign's where the step names none
    where: str | None = None
    unless: tuple[str, ...] = ()
    variants: tuple[tuple[str, float], ...] = ()  # name, share; the shares add up to 1
    offer: str | None = None
    survey: str | None = None
    tag: str | None = None
    was: str | None = None


@dataclass(frozen=True)
class Backfill:
    last: Duration
    pace: Limit


@dataclass(frozen=True)
class Campaign:
    name: str  # the file's name without .yaml
    title: str
    trigger: Trigger
    steps: tuple[Step, ...]
    active: bool = True
    purpose: str = "marketing"
    where: str | None = None
    stop_when: tuple[str, ...] = ()
    starts: datetime | date | None = None  # a date: its midnight in the business's zone
    ends: datetime | date | None = None
    goal: Goal = _AN_ORDER
    holdout: float = 0.0
    priority: int = 0
    at_most: Limit | None = None
    brake: int | float | None = None  # messages a rolling 24 h; a float is a share of all customers
    backfill: Backfill | None = None
    experiment: str = ""  # defaults to the campaign's name
    was: str | None = None

    @property
    def look_back(self) -> Duration:
        """How old a record's time may be and still have a step that could be sent, in whole days."""
        steps = max((step.after.longest + step.expires.longest for step in self.steps), default=timedelta())
        waits = self.trigger.after.longest if self.trigger.after else timedelta()
        return Duration(days=(steps + waits).days + 2)


KEYS = keys.rows(CAMPAIGN.keys)


def load(files: Mapping[str, str], settings: Settings) -> tuple[dict[str, Campaign], list[Problem]]:
    """The campaigns of all `campaigns/*.yaml`, and every problem of all files at once; never raises.

    A campaign with problems is still returned if it has a trigger and a step, so that its conditions and
    templates can be checked in the same pass: nothing may be published while a problem is an error.
    """
    found: list[Problem] = []
    read: dict[str, tuple[Campaign, Node]] = {}
    for file in sorted(file for file in files if is_campaign_file(file)):
        name = PurePosixPath(file).stem
        node, wrong = _tree(file, files[file])
        own = list(wrong)
        campaign = _campaign(name, node, settings, own) if node else None
        found += sorted(own, key=lambda one: (one.line, one.column))
        if campaign and node:
            read[name] = campaign, node
    names = {PurePosixPath(file).stem for file in files if is_campaign_file(file)}
    found += _between(read, names)
    found += _reply_problems(read)
    found += _cap_problems(settings, names)
    return {name: campaign for name, (campaign, _) in read.items()}, found


def is_campaign_file(file: str) -> bool:
    """Whether it is a `campaigns/NAME.yaml`."""
    path = PurePosixPath(file)
    return path.suffix == ".yaml" and path.parts[:-1] == ("campaigns",)


def position(files: Mapping[str, str], campaign: str, *path: str | int) -> tuple[str, int, int]:
    """File, line and column where the text at this path starts, such as ("steps", 2, "template").

    Inside the quotes, and below a `|`; of what is not written, the nearest above it; line 0: no such file.
    """
    file = f"campaigns/{campaign}.yaml"
    node, _ = _tree(file, files.get(file, ""))
    if node is None:
        return file, 0, 0
    at = node.nearest(*path)
    return file, *(at.content or (at.line, at.column))


def schema(settings: Settings | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a campaign file; with settings, their names are offered, too."""
    names: dict[str, list[str]] = {}
    if settings:
        names = {
            "channels": list(settings.channels),
            "events": [*RECORD_EVENTS, *TIME_EVENTS, *settings.events],
            "goals": [*GOAL_EVENTS, *settings.events],
            "offers": list(settings.offers),
            "surveys": list(settings.surveys),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A campaign of outreach",
        **keys.schema(CAMPAIGN, names),
    }


@lru_cache(maxsize=128)
def _tree(file: str, text: str) -> tuple[Node | None, tuple[Problem, ...]]:
    node, found = yamlfile.read(file, text, longest={"steps": MOST_STEPS})
    return node, tuple(found)


# --- one file --------------------------------------------------------------------------------------------------------


def _campaign(name: str, node: Node, settings: Settings, found: list[Problem]) -> Campaign | None:
    values = keys.read_record(CAMPAIGN, node, "", found)
    if not _is_name(name):
        text = f"the file's name `{shown(name)}` is no campaign name: use small letters, digits, _ and -"
        found.append(Problem(node.file, 0, 0, "campaign-name", text))
    if name in (RESERVED, ANSWERS):
        what = "manual sends" if name == RESERVED else "answers to replies"
        text = f"the name `{name}` is taken: {what} are counted under it"
        found.append(Problem(node.file, 0, 0, "campaign-name", text, "give the file another name"))
    if values.get("was") == RESERVED:
        found.append(problem(node.nearest("was"), "was", f"`was: {RESERVED}` would take over what was sent by hand"))
    trigger = _trigger(values["trigger"], node.nearest("trigger"), settings, found) if "trigger" in values else None
    purpose = values.get("purpose", "marketing")
    steps = _steps(values.get("steps", ()), node, purpose, settings, found, is_on=values.get("active", True))
    if trigger is None or not steps:
        return None
    zone = ZoneInfo(settings.business.timezone)
    simple = ("title", "active", "where", "stop_when", "holdout", "priority", "at_most", "brake", "experiment", "was")
    campaign = Campaign(
        name=name,
        trigger=trigger,
        steps=tuple(steps),
        purpose=purpose,
        starts=_moment(values.get("starts"), zone),
        ends=_moment(values.get("ends"), zone),
        goal=Goal(**_texts(values.get("goal", {}))),
        backfill=Backfill(**values["backfill"]) if len(values.get("backfill", {})) == 2 else None,
        **{"title": name, "experiment": name} | {key: _clean(values[key]) for key in simple if key in values},
    )
    found += _rule_problems(campaign, node, settings, zone)
    return campaign


def _is_name(name: str) -> bool:
    return name.isascii() and name == name.lower() and name.replace("_", "").replace("-", "").isalnum()


def _clean(value: Any) -> Any:
    return tuple(item for item in value if item is not None) if isinstance(value, tuple) else value


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}


def _moment(value: date | datetime | None, zone: ZoneInfo) -> date | datetime | None:
    if not isinstance(value, datetime):
        return value
    return (value if value.tzinfo else value.replace(tzinfo=zone)).astimezone(UTC)


# --- the trigger -----------------------------------------------------------------------------------------------------


def _trigger(values: Mapping[str, Any], node: Node, settings: Settings, found: list[Problem]) -> Trigger | None:
    heads = [head for head in ("event", "date", "schedule") if head in (node.entries or {})]
    if len(heads) != 1:
        if node.entries is not None or node.is_null:
            text = "`trigger` takes exactly one of event, date and schedule"
            found.append(problem(node, "trigger", text, "such as {event: order.delivered}"))
        return None
    if heads[0] not in values:
        return None
    event, row = _trigger_event(heads[0], values[heads[0]])
    if row not in TRIGGER_KEYS and row not in settings.events:
        allowed = (*RECORD_EVENTS, *TIME_EVENTS, *settings.events)
        text = f"unknown event `{shown(event)}`: allowed are {listed(allowed)}"
        found.append(problem(node.nearest("event"), "unknown-event", text, did_you_mean(event, allowed)))
        return None
    found += _trigger_key_problems(row, heads[0], node)
    found += _answer_problems(values, node, settings) if row == "survey.answered" else ()
    if row == "coupon.expiring" and (offer := (values.get("offer") or "").strip()) and offer not in settings.offers:
        found.append(_unknown_name("offer", offer, settings.offers, node.nearest("offer")))
    rest = {name: _clean(value) for name, value in values.items() if name not in ("event", "date")}
    day = values.get("date")
    attribute = day.removeprefix("attributes.") if isinstance(day, str) else None
    return Trigger(event=event, on_date=day if isinstance(day, date) else None, attribute=attribute, **_texts(rest))


def _trigger_event(head: str, value: Any) -> tuple[str, str]:
    """The trigger's event, and its row in TRIGGER_KEYS."""
    if head == "event":
        return value.strip(), value.strip()
    return head, "attribute" if isinstance(value, str) and head == "date" else head


def _trigger_key_problems(row: str, head: str, node: Node) -> Iterator[Problem]:
    allowed = TRIGGER_KEYS.get(row, ())
    name = row if head == "event" else {"attribute": "date: attributes.NAME"}.get(row, head)
    for key in node.entries or {}:
        if key != head and key not in allowed and key in _ALL_TRIGGER_KEYS:
            text = f"the trigger `{name}` takes no `{key}`: it takes {listed(allowed) or 'no further keys'}"
            yield problem(node.keys[key], "trigger", text)
    if "after" in allowed and "after" not in (node.entries or {}):
        yield problem(node, "trigger", f"the trigger `{name}` needs `after`", "such as after: 90 days")
    if row == "coupon.expiring" and "before" not in (node.entries or {}):
        yield problem(node, "trigger", f"the trigger `{name}` needs `before`", "such as before: 3 days")


def _answer_problems(values: Mapping[str, Any], node: Node, settings: Settings) -> Iterator[Problem]:
    """What is wrong with the survey and the scores of a survey.answered trigger."""
    name, score = values.get("survey"), values.get("score")
    if name is None:
        if score is not None:
            text = "`trigger.score` means nothing without `survey`: each survey has its own scale"
            yield problem(node.nearest("score"), "trigger", text, "add survey: NAME")
    elif name.strip() not in settings.surveys:
        yield _unknown_name("survey", name.strip(), settings.surveys, node.nearest("survey"))
    elif score is not None:
        scale = settings.surveys[name.strip()].scale
        low, high = (0, 1) if scale == "yes_no" else (int(end) for end in scale.split("-"))
        if not low <= score[0] <= score[1] <= high:
            allowed = "yes or no" if scale == "yes_no" else f"the scale {scale}"
            text = f"`trigger.score` is not on {allowed} of the survey {name.strip()}"
            yield problem(node.nearest("score"), "trigger", text)


_ALL_TRIGGER_KEYS = frozenset(
    (
        "at",
        "after",
        "before",
        "sku",
        "product",
        "category",
        "kind",
        "outcome",
        "survey",
        "score",
        "intent",
        "to",
        "offer",
    )
)


# --- the steps -------------------------------------------------------------------------------------------------------


def _steps(
    values: tuple[dict[str, Any], ...],
    node: Node,
    purpose: str,
    settings: Settings,
    found: list[Problem],
    *,
    is_on: bool,
) -> list[Step]:
    steps = []
    for index, step in enumerate(values):
        at = node.nearest("steps", index)
        if step is None or at.entries is None:
            continue
        found += _step_problems(step, at, settings, is_on=is_on)
        if all(key in step for key in ("id", "after", "channel", "template")):
            steps.append(_step(step, purpose))
    found += _repeated(values, node)
    return steps


def _step(values: Mapping[str, Any], purpose: str) -> Step:
    plain = {key: _clean(value) for key, value in values.items() if key not in ("channel", "variants")}
    channels = tuple(dict.fromkeys(_clean(values["channel"])))
    shares = values.get("variants", {})
    variants = tuple((name, share) for name, share in shares.items() if share is not None)
    return Step(**{"purpose": purpose, **_texts(plain)}, channels=channels, variants=variants)


def _step_problems(values: Mapping[str, Any], node: Node, settings: Settings, *, is_on: bool) -> Iterator[Problem]:
    yield from _channel_problems(values.get("channel", ()), node.nearest("channel"), settings, is_on=is_on)
    yield from _variant_problems(values.get("variants"), node)
    survey, offer = values.get("survey"), values.get("offer")
    if survey is not None and survey.strip() not in settings.surveys:
        yield _unknown_name("survey", survey.strip(), settings.surveys, node.nearest("survey"))
    if offer is not None and offer.strip() not in settings.offers:
        yield _unknown_name("offer", offer.strip(), settings.offers, node.nearest("offer"))


def _unknown_name(what: str, name: str, known: Mapping[str, object], node: Node) -> Problem:
    have = f"outreach.yaml has {listed(known)}" if known else f"outreach.yaml has no {what}s"
    return problem(node, f"unknown-{what}", f"unknown {what} `{shown(name)}`: {have}", did_you_mean(name, known))


def _channel_problems(
    channels: tuple[str | None, ...], node: Node, settings: Settings, *, is_on: bool
) -> Iterator[Problem]:
    for index, channel in enumerate(channels):
        at = node.nearest(index)
        if channel and channel in channels[:index]:
            yield problem(at, "channel", f"the channel {channel} is named twice")
        elif channel and channel not in settings.channels:
            yield _unconfigured(channel, at, settings, is_on=is_on)


def _unconfigured(channel: str, at: Node, settings: Settings, *, is_on: bool) -> Problem:
    """What a campaign that is off will need is no mistake yet: nothing of it is sent."""
    text = f"the channel {channel} is not configured in outreach.yaml"
    hint = f"configured are {listed(settings.channels) or 'none'}: add it there, or take it out of the step"
    if is_on:
        return problem(at, "channel", text, hint)
    place = settings_file.position(settings, "channels")
    cause = Problem(
        *place, "channel", f"the channel {channel} is not configured, and campaigns that are off name it", warning=True
    )
    later = f"{text}: this campaign cannot be switched on"
    return Problem(at.file, at.line, at.column, "channel", later, hint, warning=True, cause=cause)


def _variant_problems(variants: Mapping[str, float | None] | None, node: Node) -> Iterator[Problem]:
    at = node.nearest("variants")
    if variants is None or len(variants) != len(at.entries or {}) or None in variants.values():
        return  # its own problems are noted already
    for name in arms.NAMES & variants.keys():
        text = f"a variant cannot be called {name}: that is what everybody's arm is called"
        yield problem(at.nearest(name), "variants", text)
    total = sum(share or 0 for share in variants.values())
    if abs(total - 1) > 1e-6:
        text = f"the shares of `variants` add up to {100 * total:.6g}%, not to 100%"
        yield problem(at, "variants", text, "such as {plain: 50%, warm: 50%}")


def _repeated(values: tuple[dict[str, Any], ...], node: Node) -> Iterator[Problem]:
    ids = [step.get("id") if step else None for step in values]
    former: list[str] = []
    for index, step in enumerate(values):
        step_id, was = (step or {}).get("id"), (step or {}).get("was")
        if step_id and step_id in ids[:index]:
            text = f"two steps have the id `{step_id}`: an id is a step's identity"
            yield problem(node.nearest("steps", index, "id"), "duplicate-step", text)
        if was and was in ids:
            text = f"`was: {was}` names a step that is still there"
            yield problem(node.nearest("steps", index, "was"), "was", text)
        elif was and was in former:
            yield problem(node.nearest("steps", index, "was"), "was", f"two steps say `was: {was}`")
        former += [was] if was else []


# --- what the keys say together --------------------------------------------------------------------------------------


def _rule_problems(campaign: Campaign, node: Node, settings: Settings, zone: ZoneInfo) -> Iterator[Problem]:
    yield from _goal_problems(campaign, node, settings)
    yield from _purpose_problems(campaign, node)
    yield from _word_problems(campaign, node)
    trigger = campaign.trigger
    if trigger.event == "customer.inactive" and trigger.after and not trigger.after.is_calendar:
        text = f"`trigger.after`: inactivity is counted in whole days, not in {trigger.after}"
        yield problem(node.nearest("trigger", "after"), "trigger", text)
    if (
        campaign.backfill
        and trigger.event in ("date", "schedule", *TIME_EVENTS)
        and trigger.event != "customer.inactive"
    ):
        text = f"`backfill` takes up what has happened, and {trigger.event} comes due by the clock"
        yield problem(node.nearest("backfill"), "trigger", text, "take `backfill` away")
    if trigger.before and not trigger.before.is_calendar:
        text = f"`trigger.before` is counted in whole days, not in {trigger.before}"
        yield problem(node.nearest("trigger", "before"), "trigger", text)
    if campaign.starts and campaign.ends and _instant(campaign.ends, zone) <= _instant(campaign.starts, zone):
        yield problem(node.nearest("ends"), "ends", "`ends` is not after `starts`")


def _instant(moment: date | datetime, zone: ZoneInfo) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time(), zone)


def _goal_problems(campaign: Campaign, node: Node, settings: Settings) -> Iterator[Problem]:
    goal = campaign.goal
    allowed = (*GOAL_EVENTS, *settings.events)
    if goal.event not in allowed:
        text = f"unknown goal `{shown(goal.event)}`: allowed are {listed(allowed)}"
        yield problem(node.nearest("goal", "event"), "unknown-event", text, did_you_mean(goal.event, allowed))
    first, last = (pick(step.after.clock for step in campaign.steps) for pick in (min, max))
    if last - first >= goal.within.clock:
        text = f"the goal's window of {goal.within} closes before the last step, {(last - first).days} days in"
        yield problem(
            node.nearest("goal", "within") if node.get("goal") else node.nearest("steps"),
            "goal",
            text,
            "make `goal: {within: …}` longer, counted from the first step",
        )


def _purpose_problems(campaign: Campaign, node: Node) -> Iterator[Problem]:
    """DESIGN 3.4: no holdout and no offer on transactional messages, no offer on service messages."""
    purposes = {step.purpose for step in campaign.steps}
    if campaign.holdout and "transactional" in purposes:
        text = "a holdout keeps transactional messages from people who need them"
        yield problem(node.nearest("holdout"), "holdout", text, "take `holdout` away")
    elif campaign.holdout and "service" in purposes:
        text = "a holdout keeps service messages from some of the customers they serve"
        yield problem(node.nearest("holdout"), "holdout", text, warning=True)
    for step in node.nearest("steps").items or ():
        written = step.get("purpose")
        purpose = (written.text or "").strip().lower() if written else campaign.purpose
        if step.get("offer") and purpose in ("transactional", "service"):
            text = f"a {purpose} message takes no offer: an offer makes it marketing"
            yield problem(step.nearest("offer"), "purpose", text, "write purpose: marketing for this step")


def _word_problems(campaign: Campaign, node: Node) -> Iterator[Problem]:
    if campaign.trigger.subject == "order":
        return
    steps = node.nearest("steps").items or ()
    for words in (node.get("stop_when"), *(step.get("unless") for step in steps)):
        for word in (words.items or (words,)) if words else ():
            if word.text and word.text.strip().lower() in ORDER_WORDS:
                text = f"`{word.text.strip()}` looks at the occasion's order, which this trigger has not"
                yield problem(word, "word", text, "it never comes true", warning=True)


# --- what the files say together -------------------------------------------------------------------------------------


def _between(read: Mapping[str, tuple[Campaign, Node]], names: set[str]) -> Iterator[Problem]:
    former: dict[str, str] = {}
    for name, (campaign, node) in read.items():
        if campaign.was is None:
            continue
        at = node.nearest("was")
        if campaign.was in names:
            yield problem(at, "was", f"`was: {campaign.was}` names a campaign that is still there")
        elif campaign.was in former:
            yield problem(at, "was", f"`was: {campaign.was}` is said by {former[campaign.was]}.yaml, too")
        former.setdefault(campaign.was, name)


def _reply_problems(read: Mapping[str, tuple[Campaign, Node]]) -> Iterator[Problem]:
    """Triggers on replies to a campaign, or a step, that is not there."""
    for campaign, node in read.values():
        name, _, step = (campaign.trigger.to or "").partition("/")
        at = node.nearest("trigger").nearest("to")
        if name and name not in read:
            yield problem(at, "trigger", f"`trigger.to`: there is no campaign {name}", did_you_mean(name, list(read)))
        elif step and step not in (ids := [one.id for one in read[name][0].steps]):
            yield problem(at, "trigger", f"`trigger.to`: {name} has no step {step}", did_you_mean(step, ids))


def _cap_problems(settings: Settings, names: set[str]) -> Iterator[Problem]:
    for cap in settings.caps:
        if cap.campaign and cap.campaign not in (*names, RESERVED, ANSWERS):
            file, line, column = settings_file.position(settings, "caps")
            text = f"a cap names the campaign `{cap.campaign}`, which does not exist"
            yield Problem(file, line, column, "cap", text, did_you_mean(cap.campaign, list(names)), warning=True)
