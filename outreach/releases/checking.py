"""
Every problem of what marketers wrote, at once, each at its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import time, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy import text as sql

from outreach import campaigns as campaign_files
from outreach import conditions, gates, replies_file, store
from outreach.campaigns import Campaign
from outreach.errors import Problem
from outreach.models import (
    Case,
    Coupon,
    CustomerDate,
    Order,
    ShopEvent,
    table,
)
from outreach.releases.attributes import nowhere_known
from outreach.releases.snapshot import (
    CATALOGUE,
    date_name,
    only_templates,
)
from outreach.render import Templates
from outreach.settings import Settings, with_catalogue
from outreach.settings import position as settings_position
from outreach.settings import problems as settings_problems
from outreach.store import Database
from outreach.values import WeekHours

_orders, _coupons = table(Order), table(Coupon)
_DAY_MINUTES = 24 * 60
WRITTEN_ON = ("email", "sms", "whatsapp", "messenger")


def check(files: Mapping[str, str], settings: Settings, db: Database | None = None) -> list[Problem]:
    """Every problem of the files at once; with a database, triggers that no record can fire, too."""
    used = with_catalogue(settings, json.loads(files.get(CATALOGUE, "{}")))
    campaigns, problems = campaign_files.load(files, used)
    problems += settings_problems(settings)
    templates = Templates(only_templates(files), used.business)
    problems += templates.file_problems()
    problems += _reply_problems(files, used, templates)
    for name, expression in used.segments.items():
        file, line, column = settings_position(settings, "segments", name)
        problems += [
            Problem(file, line, column + error.column - 1 if line else 0, "segment", f"segment {name}: {error}")
            for error in conditions.problems(expression, subject="customer", settings=used)
        ]
    for campaign in campaigns.values():
        problems += _condition_problems(files, campaign, used)
        problems += _template_problems(files, campaign, used, templates)
        problems += _closed_hours(files, campaign, used)
        if db is not None:
            problems += _without_codes(files, db, campaign, used)
        if db is not None and campaign.active and (text := _cannot_fire(db, campaign)):
            problems.append(
                Problem(*campaign_files.position(files, campaign.name, "trigger"), "trigger", text, warning=True)
            )
    problems += _unapproved(campaigns, used, templates)
    problems += nowhere_known(files, campaigns.values(), templates, used, db)
    return sorted(set(problems), key=lambda one: (one.warning, one.file, one.line, one.column, one.text))


def _reply_problems(files: Mapping[str, str], settings: Settings, templates: Templates) -> list[Problem]:
    """What is wrong with replies.yaml, and with the templates that it answers with, on every channel people write on."""
    automatic, found = replies_file.load(files)
    channels = [name for name in WRITTEN_ON if name in settings.channels]
    for path, answer in automatic.all():
        if not answer.template:
            continue  # told already
        found += templates.problems(
            answer.template,
            channels,
            purpose="transactional",
            max_segments=settings.sms_segments,
            position=replies_file.position(files, *path),
        )
    return found


def _condition_problems(files: Mapping[str, str], campaign: Campaign, settings: Settings) -> list[Problem]:
    places: list[tuple[str | None, tuple[Any, ...]]] = [(campaign.where, ("where",))]
    places += [(step.where, ("steps", index, "where")) for index, step in enumerate(campaign.steps)]
    found = []
    for expression, path in places:
        if expression is None:
            continue
        file, line, column = campaign_files.position(files, campaign.name, *path)
        found += [
            Problem(file, line, column + error.column - 1, "where", str(error))
            for error in conditions.problems(expression, subject=campaign.trigger.subject, settings=settings)
        ]
    return found


def _closed_hours(files: Mapping[str, str], campaign: Campaign, settings: Settings) -> list[Problem]:
    """Steps whose `at` is outside the sending hours of their channels on every day of the week."""
    found = []
    for index, step in enumerate(campaign.steps):
        if step.at is None:
            continue
        gated = [channel for channel in step.channels if gates.keeps_hours(step.purpose, channel)]
        waits = {channel: _until_open(step.at, gates.hours_of(channel, settings)) for channel in gated}
        closed = {channel: wait for channel, wait in waits.items() if wait}
        if not closed:
            continue
        late = [channel for channel, wait in closed.items() if wait >= step.expires.clock]
        what = f"`at: {step.at:%H:%M}` is outside the sending hours of {' and '.join(closed)} on every day"
        then = (
            f"until they begin a message has expired, after {step.expires}"
            if late
            else "messages wait until they begin"
        )
        hint = "choose a time within `sending_hours`, or change those"
        place = campaign_files.position(files, campaign.name, "steps", index, "at")
        found.append(Problem(*place, "closed-hours", f"{what}: {then}", hint, warning=True))
    return found


def _until_open(at: time, week: WeekHours) -> timedelta:
    """The shortest wait, over the days of a week, from this time of day to the next time that is allowed."""
    minute = at.hour * 60 + at.minute
    waits = [
        max(window[0] + after * _DAY_MINUTES - minute, 0)
        for day in range(7)
        for after in range(8)
        if (window := week.days[(day + after) % 7]) is not None and window[1] + after * _DAY_MINUTES > minute
    ]
    return timedelta(minutes=min(waits, default=7 * _DAY_MINUTES))


def _template_problems(
    files: Mapping[str, str], campaign: Campaign, settings: Settings, templates: Templates
) -> list[Problem]:
    found: list[Problem] = []
    for index, step in enumerate(campaign.steps):
        file, line, column = campaign_files.position(files, campaign.name, "steps", index, "template")
        found += templates.problems(
            step.template,
            step.channels,
            variants=tuple(name for name, _ in step.variants),
            subject=campaign.trigger.subject,
            purpose=step.purpose,
            has_offer=step.offer is not None,
            has_survey=step.survey is not None,
            max_segments=settings.sms_segments,
            position=(file, line, column),
        )
    return found


def _unapproved(campaigns: Mapping[str, Campaign], settings: Settings, templates: Templates) -> list[Problem]:
    """
    WhatsApp messages without an approved template, where a provider would really send them.

    Free text reaches only people who wrote within the last 24 hours
    (www.twilio.com/docs/whatsapp/key-concepts): a campaign's message would be refused for all others.
    Of campaigns that are off these are warnings: nothing of theirs is sent, and approval takes days.
    """
    channel = settings.channels.get("whatsapp")
    if channel is None or channel.provider == "outbox":
        return []
    text = "a WhatsApp message without `content_sid`: free text reaches only people who wrote in the last 24 hours"
    hint = (
        "begin the file with ---, content_sid: HX… and ---, where HX… is the approved template's id; "
        "or take whatsapp out of the step"
    )
    place = settings_position(settings, "channels", "whatsapp")
    common = "campaigns that are off have WhatsApp messages without `content_sid`, which they need before they are on"
    cause = Problem(*place, "template-content-sid", common, hint, warning=True)
    wanted = _whatsapp_files(campaigns.values(), templates, is_on=True)
    later = _whatsapp_files(campaigns.values(), templates, is_on=False) - wanted
    return [
        *(Problem(path, 1, 1, "template-content-sid", text, hint) for path in wanted),
        *(Problem(path, 1, 1, "template-content-sid", text, hint, warning=True, cause=cause) for path in later),
    ]


def _whatsapp_files(campaigns: Iterable[Campaign], templates: Templates, *, is_on: bool) -> set[str]:
    """The files without `content_sid` that WhatsApp messages of these campaigns may be made from."""
    return {
        path
        for campaign in campaigns
        if campaign.active == is_on
        for step in campaign.steps
        if "whatsapp" in step.channels
        for path in templates.without_content_sid(step.template, tuple(name for name, _ in step.variants))
    }


def _without_codes(files: Mapping[str, str], db: Database, campaign: Campaign, settings: Settings) -> list[Problem]:
    """Steps whose offer has no live code to give out: their campaign would pause at the first message."""
    found = []
    for index, step in enumerate(campaign.steps):
        offer = settings.offers.get(step.offer or "")
        if offer is None or not campaign.active or offer.shared_code or (offer.trust and offer.is_generated):
            continue
        some = select(_coupons.c.id).where(sql("status = 'live'"), _coupons.c.offer == offer.name).limit(1)
        with store.read(db) as connection:
            if connection.execute(some).first() is not None:
                continue
        how = f"{offer.name} 500" if offer.is_generated else offer.name
        text = f"the offer `{offer.name}` has no live code: the campaign would pause before its first message"
        hint = f"`outreach coupons make {how}`" + (", then `outreach coupons activate`" if offer.is_generated else "")
        place = campaign_files.position(files, campaign.name, "steps", index, "offer")
        found.append(Problem(*place, "no-codes", text, hint, warning=True))
    return found


def _cannot_fire(db: Database, campaign: Campaign) -> str | None:
    """Why no record there is can fire the trigger; None when one can, or nothing was imported yet."""
    trigger = campaign.trigger
    with store.read(db) as connection:
        orders = connection.execute(select(func.count()).select_from(_orders)).scalar() or 0
        if not orders:
            return None
        if trigger.subject == "order":
            column = _orders.c[f"{trigger.event.partition('.')[2]}_at"]
            if connection.execute(select(_orders.c.id).where(column.is_not(None)).limit(1)).first() is None:
                return f"{trigger.event}: 0 of {orders:,} orders have a date, so nothing can start this campaign"
        elif trigger.subject == "case":
            if connection.execute(select(table(Case).c.id).limit(1)).first() is None:
                return f"{trigger.event}: no case has been imported, so nothing can start this campaign"
        elif trigger.subject in ("answer", "reply"):
            return None  # the campaign that asks may be published together with this one
        elif trigger.subject == "event":
            events = table(ShopEvent)
            if connection.execute(select(events.c.id).where(events.c.name == trigger.event).limit(1)).first() is None:
                return f"{trigger.event}: no such event has been imported, so nothing can start this campaign"
        elif name := date_name(campaign):
            dates = table(CustomerDate)
            if connection.execute(select(dates.c.name).where(dates.c.name == name).limit(1)).first() is None:
                return f"{name}: no customer has this date, so nothing can start this campaign"
    return None
