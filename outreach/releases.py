"""
Releases: check, compare, publish, roll back and load what marketers wrote.

A release is an immutable snapshot of campaigns, templates and the catalogue (segments, events,
offers, surveys). `plan` and `dispatch` only ever use the current one, the highest number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from outreach import campaigns as campaign_files
from outreach import conditions, store, timing
from outreach.campaigns import Campaign, Step
from outreach.errors import NotFound, Problem, Problems, ReleaseError
from outreach.models import (
    CampaignState,
    Case,
    Customer,
    CustomerDate,
    CustomerStats,
    Enrolment,
    Fresh,
    Installation,
    Message,
    Order,
    Reason,
    Release,
    ShopEvent,
    Status,
    StepState,
    table,
    to_micros,
)
from outreach.render import Templates
from outreach.settings import SETTINGS_FILE, Settings, raw_catalogue, with_catalogue
from outreach.settings import position as settings_position
from outreach.settings import problems as settings_problems
from outreach.store import BATCH, Database, Lock

CATALOGUE = "catalogue.json"
LEAST_LOOK_BACK = 30  # days; so that a campaign published today sees dates filled in late

_releases, _states, _steps = table(Release), table(CampaignState), table(StepState)
_customers, _stats, _orders = table(Customer), table(CustomerStats), table(Order)
_messages, _enrolments, _fresh = table(Message), table(Enrolment), table(Fresh)


@dataclass(frozen=True)
class Loaded:
    """A release, compiled: what every stage of one tick works from."""

    number: int
    published_at: datetime
    campaigns: Mapping[str, Campaign]
    templates: Templates
    settings: Settings  # the live settings with the release's catalogue


@dataclass(frozen=True)
class Changes:
    """What publishing would change, in terms of people."""

    new_campaigns: tuple[str, ...] = ()
    gone_campaigns: tuple[tuple[str, int], ...] = ()  # name, planned messages that would be withdrawn
    new_steps: tuple[str, ...] = ()
    gone_steps: tuple[tuple[str, int], ...] = ()
    changed: tuple[str, ...] = ()  # campaigns whose rules differ
    differently: tuple[tuple[str, int], ...] = ()  # campaign/step, planned messages that would read differently
    example: tuple[str, str, str] | None = None  # a file, before, after
    confirmed: tuple[tuple[str, int], ...] = ()  # dated, scheduled, backfilled campaigns: how many people
    files: tuple[str, ...] = ()  # every file that differs

    @property
    def is_empty(self) -> bool:
        return not self.files

    def lines(self) -> list[str]:
        """The changes as sentences, the most far-reaching first."""
        out = [f"new campaign {name}" for name in self.new_campaigns]
        out += [f"campaign {name} vanishes: {n:,} planned messages end as withdrawn" for name, n in self.gone_campaigns]
        out += [f"new step {name}" for name in self.new_steps]
        out += [f"step {name} vanishes: {n:,} planned messages end as withdrawn" for name, n in self.gone_steps]
        out += [f"campaign {name} has other rules" for name in self.changed]
        out += [f"{name}: {n:,} planned messages would read differently" for name, n in self.differently]
        out += [f"{name}: {n:,} people may be contacted" for name, n in self.confirmed]
        return out or [f"changed: {', '.join(self.files)}"] * bool(self.files)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "new_campaigns": list(self.new_campaigns),
            "gone_campaigns": dict(self.gone_campaigns),
            "new_steps": list(self.new_steps),
            "gone_steps": dict(self.gone_steps),
            "changed": list(self.changed),
            "differently": dict(self.differently),
            "example": dict(zip(("file", "before", "after"), self.example, strict=True)) if self.example else None,
            "confirmed": dict(self.confirmed),
            "files": list(self.files),
        }


# --- reading and checking ----------------------------------------------------------------------


def read_files(workspace: Path) -> dict[str, str]:
    """
    What a release of this workspace would hold: path → text.

    Raises:
        ReleaseError: a file is not UTF-8.
    """
    files: dict[str, str] = {}
    for pattern in ("campaigns/*.yaml", "message_templates/**/*.j2"):
        for path in sorted(workspace.glob(pattern)):
            files[path.relative_to(workspace).as_posix()] = _text(path)
    settings_file = workspace / SETTINGS_FILE
    raw = raw_catalogue(_text(settings_file)) if settings_file.is_file() else {}
    files[CATALOGUE] = json.dumps(raw, ensure_ascii=False, sort_keys=True)
    return files


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path}: not UTF-8 at byte {error.start}: save the file as UTF-8") from error


def check(files: Mapping[str, str], settings: Settings, db: Database | None = None) -> list[Problem]:
    """Every problem of the files at once; with a database, triggers that no record can fire, too."""
    used = with_catalogue(settings, json.loads(files.get(CATALOGUE, "{}")))
    campaigns, problems = campaign_files.load(files, used)
    problems += settings_problems(settings)
    templates = Templates(_only_templates(files), used.business)
    problems += templates.file_problems()
    for name, expression in used.segments.items():
        file, line, column = settings_position(settings, "segments", name)
        problems += [
            Problem(file, line, column + error.column - 1 if line else 0, "segment", f"segment {name}: {error}")
            for error in conditions.problems(expression, subject="customer", settings=used)
        ]
    for campaign in campaigns.values():
        problems += _condition_problems(files, campaign, used)
        problems += _template_problems(files, campaign, used, templates)
        if db is not None and (text := _cannot_fire(db, campaign)):
            problems.append(
                Problem(*campaign_files.position(files, campaign.name, "trigger"), "trigger", text, warning=True)
            )
    return sorted(set(problems), key=lambda problem: (problem.warning, problem.file, problem.line, problem.column))


def _only_templates(files: Mapping[str, str]) -> dict[str, str]:
    return {path: text for path, text in files.items() if path.startswith("message_templates/")}


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
        elif trigger.subject == "event":
            events = table(ShopEvent)
            if connection.execute(select(events.c.id).where(events.c.name == trigger.event).limit(1)).first() is None:
                return f"{trigger.event}: no such event has been imported, so nothing can start this campaign"
        elif name := date_name(campaign):
            dates = table(CustomerDate)
            if connection.execute(select(dates.c.name).where(dates.c.name == name).limit(1)).first() is None:
                return f"{name}: no customer has this date, so nothing can start this campaign"
    return None


def date_name(campaign: Campaign) -> str | None:
    """The name in `customer_dates` that the campaign's trigger looks at, if it is of that kind."""
    if campaign.trigger.event == "customer.birthday":
        return "birthday"
    return campaign.trigger.attribute


# --- loading -----------------------------------------------------------------------------------

_loaded: dict[str, tuple[Settings, Loaded]] = {}  # by the files' hash; compiled once per process


def current(db: Database, settings: Settings) -> Loaded | None:
    """The release in force, compiled; None before the first publish."""
    with store.read(db) as connection:
        newest = select(_releases.c.id, _releases.c.published_at, _releases.c.files_hash)
        row = connection.execute(newest.order_by(_releases.c.id.desc()).limit(1)).first()
        if row is None:
            return None
        kept = _loaded.get(row.files_hash)
        if kept is not None and kept[0] is settings:
            return replace(kept[1], number=row.id, published_at=row.published_at)
        files = connection.execute(select(_releases.c.files).where(_releases.c.id == row.id)).scalar_one()
    loaded = _compile(row.id, row.published_at, files, settings)
    _loaded.clear()
    _loaded[row.files_hash] = (settings, loaded)
    return loaded


def _compile(number: int, at: datetime, files: Mapping[str, str], settings: Settings) -> Loaded:
    used = with_catalogue(settings, json.loads(files[CATALOGUE]))
    campaigns, problems = campaign_files.load(files, used)
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        raise ReleaseError(f"release {number} does not fit the settings any more: {errors[0]}; mend and publish again")
    return Loaded(number, at, campaigns, Templates(_only_templates(files), used.business), used)


def listed(db: Database) -> list[dict[str, Any]]:
    """Every release, the newest first: number, published_at, note, and how many campaigns and templates."""
    with store.read(db) as connection:
        rows = connection.execute(select(_releases).order_by(_releases.c.id.desc())).all()
    return [
        {
            "release": row.id,
            "published_at": row.published_at,
            "note": row.note,
            "campaigns": sum(path.startswith("campaigns/") for path in row.files),
            "templates": sum(path.startswith("message_templates/") for path in row.files),
        }
        for row in rows
    ]


def _files_of(connection: Connection, number: int | None) -> dict[str, str] | None:
    query = select(_releases.c.files)
    query = query.where(_releases.c.id == number) if number else query.order_by(_releases.c.id.desc()).limit(1)
    found: dict[str, str] | None = connection.execute(query).scalar()
    return found


# --- what would change ---------------------------------------------------------------------------


def diff(db: Database, settings: Settings, files: Mapping[str, str], now: datetime) -> Changes:
    """What publishing these files would change; writes nothing."""
    with store.read(db) as connection:
        before = _files_of(connection, None) or {}
        old, new = _campaigns(before, settings), _campaigns(files, settings)
        gone = [name for name in old if name not in new and name not in {c.was for c in new.values()}]
        changed_files = tuple(sorted(p for p in {*before, *files} if before.get(p) != files.get(p)))
        used = with_catalogue(settings, json.loads(files[CATALOGUE]))
        fresh = [name for name, campaign in new.items() if name not in old and campaign.was not in old]
        return Changes(
            new_campaigns=tuple(fresh),
            gone_campaigns=tuple((name, _planned(connection, name)) for name in gone),
            new_steps=tuple(_new_steps(old, new)),
            gone_steps=tuple((f"{c}/{s}", _planned(connection, c, s)) for c, s in _gone_steps(old, new)),
            changed=tuple(n for n, c in new.items() if n in old and replace(old[n], steps=c.steps) != c),
            differently=tuple(_differently(connection, new, changed_files)),
            example=_example(before, files, changed_files),
            confirmed=tuple(
                (name, _confirmed(connection, new[name], used, now) or 0) for name in fresh if _counts_ahead(new[name])
            ),
            files=changed_files,
        )


def _campaigns(files: Mapping[str, str], settings: Settings) -> dict[str, Campaign]:
    if not files:
        return {}
    return campaign_files.load(files, with_catalogue(settings, json.loads(files[CATALOGUE])))[0]


def _new_steps(old: Mapping[str, Campaign], new: Mapping[str, Campaign]) -> list[str]:
    return [
        f"{name}/{step.id}"
        for name, campaign in new.items()
        if (former := old.get(name) or old.get(campaign.was or "")) is not None
        for step in campaign.steps
        if not {step.id, step.was} & {s.id for s in former.steps}
    ]


def _gone_steps(old: Mapping[str, Campaign], new: Mapping[str, Campaign]) -> list[tuple[str, str]]:
    return [
        (name, step.id)
        for name, campaign in old.items()
        if name in new
        for step in campaign.steps
        if step.id not in {i for s in new[name].steps for i in (s.id, s.was)}
    ]


def _planned(connection: Connection, campaign: str, step: str | None = None) -> int:
    c = _messages.c
    query = select(func.count()).select_from(_messages).where(c.campaign == campaign, c.status == Status.PLANNED)
    return connection.execute(query.where(c.step == step) if step else query).scalar() or 0


def _differently(connection: Connection, new: Mapping[str, Campaign], changed: Sequence[str]) -> list[tuple[str, int]]:
    layout = any(path.startswith("message_templates/") and path.count("/") == 1 for path in changed)
    found = []
    for name, campaign in new.items():
        for step in campaign.steps:
            stem = f"message_templates/{step.template}"
            if layout or any(path.startswith((f"{stem}.", f"{stem}-")) for path in changed):
                count = _planned(connection, name, step.id)
                found += [(f"{name}/{step.id}", count)] if count else []
    return found


def _example(
    before: Mapping[str, str], after: Mapping[str, str], changed: Sequence[str]
) -> tuple[str, str, str] | None:
    for path in changed:
        if path.startswith("message_templates/") and path in before and path in after:
            return path, before[path], after[path]
    return None


def _counts_ahead(campaign: Campaign) -> bool:
    return campaign.trigger.event in ("date", "schedule") or campaign.backfill is not None


def _confirmed(connection: Connection, campaign: Campaign, settings: Settings, now: datetime) -> int | None:
    """For campaigns whose number is known ahead: how many people it may contact; it becomes their brake."""
    if not _counts_ahead(campaign):
        return None
    query = select(func.count()).select_from(_customers.outerjoin(_stats, _stats.c.customer_id == _customers.c.id))
    if campaign.where and campaign.trigger.subject == "customer":
        query = query.where(
            conditions.compile_condition(campaign.where, subject="customer", settings=settings, now=now)
        )
    return connection.execute(query.where(_customers.c.merged_into.is_(None))).scalar() or 0


# --- publishing --------------------------------------------------------------------------------


def files_hash(files: Mapping[str, str]) -> str:
    """A hash of the files' names and texts."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:32]


def publish(db: Database, settings: Settings, files: Mapping[str, str], now: datetime, *, note: str = "") -> int:
    """
    Store the files as the new current release and give its number; all or nothing.

    A campaign published for the first time starts now: older occasions are its own only by
    `starts` or `backfill`, which are noted here for the planner to take up. Messages already
    planned follow their campaign and step through `was`.

    Raises:
        Problems: the files have errors; nothing is stored.
        ReleaseError: they equal the current release.
    """
    problems = [problem for problem in check(files, settings) if not problem.warning]
    if problems:
        raise Problems(problems)
    used = with_catalogue(settings, json.loads(files[CATALOGUE]))
    campaigns = campaign_files.load(files, used)[0]
    with store.write(db) as connection:
        store.lock(connection, Lock.PUBLISH)
        store.lock(connection, Lock.FRESH)
        former = _files_of(connection, None)
        if former is not None and files_hash(former) == files_hash(files):
            raise ReleaseError("nothing differs from the current release")
        old = _campaigns(former or {}, settings)
        values = {"published_at": now, "files": dict(files), "files_hash": files_hash(files), "note": note}
        number = connection.execute(insert(_releases).values(values).returning(_releases.c.id)).scalar_one()
        for campaign in campaigns.values():
            _follow_renames(connection, campaign)
            _note_campaign(connection, campaign, old.get(campaign.name) or old.get(campaign.was or ""), used, now)
        days = max([LEAST_LOOK_BACK, *(campaign.look_back.days for campaign in campaigns.values())])
        connection.execute(update(Installation).values(look_back=days))
    return int(number)


def rollback(db: Database, settings: Settings, number: int, now: datetime) -> int:
    """Publish the content of release `number` again, under a new number."""
    with store.read(db) as connection:
        files = _files_of(connection, number)
    if files is None:
        raise NotFound(f"there is no release {number}: `outreach releases` lists them")
    return publish(db, settings, files, now, note=f"release {number} again")


def _follow_renames(connection: Connection, campaign: Campaign) -> None:
    """Give the rows of a renamed campaign or step their new name, in the publishing transaction."""
    known = set(connection.execute(select(_states.c.name)).scalars())
    if campaign.was in known and campaign.name not in known:
        for of in (_steps, _enrolments, _messages):
            connection.execute(update(of).where(of.c.campaign == campaign.was).values(campaign=campaign.name))
        connection.execute(update(_states).where(_states.c.name == campaign.was).values(name=campaign.name))
    for step in campaign.steps:
        if step.was:
            _rename_step(connection, campaign.name, step)


def _rename_step(connection: Connection, campaign: str, step: Step) -> None:
    known = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign)).scalars())
    if step.was in known and step.id not in known:
        for of in (_steps, _messages):
            connection.execute(update(of).where(of.c.campaign == campaign, of.c.step == step.was).values(step=step.id))


def _note_campaign(
    connection: Connection, campaign: Campaign, former: Campaign | None, settings: Settings, now: datetime
) -> None:
    known = connection.execute(select(_states.c.name).where(_states.c.name == campaign.name)).first()
    brake = _confirmed(connection, campaign, settings, now)
    if known is None:
        newest = connection.execute(select(func.max(_fresh.c.id))).scalar() or 0
        start = starts_at(campaign, settings) or now
        owed = _owed(campaign, start, now)
        timed = _is_timed(campaign) and not campaign.backfill
        values = {
            "name": campaign.name,
            "first_published_at": now,
            "fresh_id": newest,
            "cursor": start if timed and start < now else now,
            "cursor_customer": 0,
            "backfill": owed,
            "brake": brake,
            "paused_reason": "",
            "look_again": False,
        }
        connection.execute(insert(_states).values(values))
    else:
        again = former is not None and former.steps != campaign.steps
        values = {"brake": brake, **({"look_again": True} if again else {})}
        connection.execute(update(_states).where(_states.c.name == campaign.name).values(values))
    have = set(connection.execute(select(_steps.c.step).where(_steps.c.campaign == campaign.name)).scalars())
    new = [
        {"campaign": campaign.name, "step": s.id, "first_published_at": now, "undefined": 0}
        for s in campaign.steps
        if s.id not in have
    ]
    if new:
        connection.execute(insert(_steps), new)


def _is_timed(campaign: Campaign) -> bool:
    return campaign.trigger.event in (*campaign_files.TIME_EVENTS, "date", "schedule")


def _owed(campaign: Campaign, start: datetime, now: datetime) -> dict[str, Any]:
    """The older occasions that `backfill` or a past `starts` takes: the planner works them off, newest first."""
    if campaign.backfill:
        begin = now - campaign.backfill.last.clock
        pace, per = campaign.backfill.pace.count, str(campaign.backfill.pace.per)
        return {
            "from": to_micros(begin),
            "to": to_micros(now),
            "at": to_micros(now),
            "pace": pace,
            "per": per,
            "done": 0,
        }
    if start < now and not _is_timed(campaign):
        return {"from": to_micros(start), "to": to_micros(now), "done": 0}
    return {}


def starts_at(campaign: Campaign, settings: Settings) -> datetime | None:
    """The instant of `starts` (a date: its midnight in the business's zone)."""
    return _instant(campaign.starts, settings.business.timezone)


def ends_at(campaign: Campaign, settings: Settings) -> datetime | None:
    """The instant of `ends`."""
    return _instant(campaign.ends, settings.business.timezone)


def _instant(value: datetime | date | None, zone: str) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=timing.zone(zone))
    return None if value is None else timing.local_midnight(value, zone)


# --- pause, resume, cancel ---------------------------------------------------------------------


def pause(db: Database, campaign: str | None, reason: str, now: datetime) -> list[str]:
    """Pause one campaign, or all: nothing of theirs is planned or sent from the next chunk on; gives their names."""
    with store.write(db) as connection:
        names = _named(connection, campaign)
        values = {"paused_at": now, "paused_reason": reason}
        connection.execute(
            update(_states).where(_states.c.name.in_(names), _states.c.paused_at.is_(None)).values(values)
        )
    return names


def resume(db: Database, campaign: str | None, now: datetime) -> list[str]:
    """Let one campaign, or all paused ones, go on; its volume brake rests for 24 hours, since a person looked."""
    with store.write(db) as connection:
        names = _named(connection, campaign)
        paused = select(_states.c.name).where(_states.c.name.in_(names), _states.c.paused_at.is_not(None))
        resumed = list(connection.execute(paused).scalars())
        values = {"paused_at": None, "paused_reason": "", "resumed_at": now}
        connection.execute(update(_states).where(_states.c.name.in_(resumed)).values(values))
        connection.execute(update(_steps).where(_steps.c.campaign.in_(resumed)).values(undefined=0))
    return resumed


def _named(connection: Connection, campaign: str | None) -> list[str]:
    known = list(connection.execute(select(_states.c.name).order_by(_states.c.name)).scalars())
    if campaign is None:
        return known
    if campaign not in known:
        listed = ", ".join(known) or "none yet"
        raise NotFound(f"no campaign {campaign!r} has been published; there are: {listed}")
    return [campaign]


def cancel(db: Database, campaign: str, step: str | None, now: datetime) -> int:
    """
    End what is in the pipeline of a campaign or step as `cancelled`; gives how many planned messages ended.

    Steps of earlier enrolments that fall due later end as cancelled, too; new occasions go on.
    """
    with store.write(db) as connection:
        _named(connection, campaign)
        store.lock(connection, Lock.PLAN, campaign)
        wanted = (
            _steps.c.campaign == campaign if step is None else (_steps.c.campaign == campaign) & (_steps.c.step == step)
        )
        if not connection.execute(update(_steps).where(wanted).values(cancelled_at=now)).rowcount:
            raise NotFound(f"campaign {campaign} has no step {step!r}")
    ended = 0
    c = _messages.c
    while True:
        with store.write(db) as connection:
            query = select(c.id).where(c.campaign == campaign, c.status == Status.PLANNED, c.created_at <= now)
            ids = list(connection.execute((query.where(c.step == step) if step else query).limit(BATCH)).scalars())
            values = {"status": Status.CANCELLED, "reason": Reason.CANCELLED, "claim": None, "lease_until": None}
            done = connection.execute(update(_messages).where(c.id.in_(ids), c.status == Status.PLANNED).values(values))
            ended += done.rowcount
        if len(ids) < BATCH:
            return ended
