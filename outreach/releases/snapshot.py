"""
A release as it is stored and loaded: its files, compiled once per process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from outreach import campaigns as campaign_files
from outreach import replies_file, store, timing
from outreach.campaigns import Campaign
from outreach.errors import NotFound, Problem, ReleaseError
from outreach.models import (
    CampaignState,
    Release,
    table,
)
from outreach.render import Templates
from outreach.replies_file import AutoAnswers
from outreach.settings import SETTINGS_FILE, Settings, raw_catalogue, with_catalogue
from outreach.store import Database

CATALOGUE = "catalogue.json"
_releases = table(Release)
_states = table(CampaignState)


@dataclass(frozen=True)
class Loaded:
    """A release, compiled: what every stage of one tick works from."""

    number: int
    published_at: datetime
    campaigns: Mapping[str, Campaign]
    templates: Templates
    settings: Settings  # the live settings with the release's catalogue
    replies: AutoAnswers = field(default_factory=AutoAnswers)


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
    if (automatic := workspace / replies_file.FILE).is_file():
        files[replies_file.FILE] = _text(automatic)
    settings_file = workspace / SETTINGS_FILE
    raw = raw_catalogue(_text(settings_file)) if settings_file.is_file() else {}
    files[CATALOGUE] = json.dumps(raw, ensure_ascii=False, sort_keys=True)
    return files


def unread_files(workspace: Path) -> list[Problem]:
    """What lies in campaigns/ and looks as if it were read, and is not; what is hidden is somebody else's."""
    beside = sorted(path for path in (workspace / "campaigns").glob("*") if not path.name.startswith("."))
    return [found for path in beside if (found := _unread(path, path.relative_to(workspace).as_posix())) is not None]


def _unread(path: Path, name: str) -> Problem | None:
    ending = "is not read: the name of a campaign's file ends in .yaml"
    if path.is_dir():
        holds_some = any(path.rglob("*.yaml")) or any(path.rglob("*.yml"))
        text, hint = "is not read: campaigns lie in campaigns/ itself", "move its files there"
        return Problem(name, 0, 0, "unread", text, hint, warning=True) if holds_some else None
    if path.suffix in (".yaml", ".md"):
        return None
    if path.suffix.lower() in (".yml", ".yaml"):
        return Problem(name, 0, 0, "unread", ending, f"rename it to {path.stem}.yaml")
    return Problem(name, 0, 0, "unread", ending, "rename it, or keep it elsewhere", warning=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path}: not UTF-8 at byte {error.start}: save the file as UTF-8") from error


def only_templates(files: Mapping[str, str]) -> dict[str, str]:
    return {path: text for path, text in files.items() if path.startswith("message_templates/")}


_loaded: dict[str, tuple[Settings, Loaded]] = {}  # by the files' hash; compiled once per process


_NEWEST = (
    select(_releases.c.id, _releases.c.published_at, _releases.c.files_hash).order_by(_releases.c.id.desc()).limit(1)
)


def current(db: Database, settings: Settings) -> Loaded | None:
    """The release in force, compiled; None before the first publish."""
    with store.read(db) as connection:
        row = connection.execute(_NEWEST).first()
        if row is None:
            return None
        kept = _loaded.get(row.files_hash)
        seeds = {row.name: row.experiment for row in connection.execute(_SEEDS)}
        if kept is not None and kept[0] is settings:
            return _seeded(replace(kept[1], number=row.id, published_at=row.published_at), seeds)
        files = connection.execute(select(_releases.c.files).where(_releases.c.id == row.id)).scalar_one()
    loaded = _compile(row.id, row.published_at, files, settings)
    _loaded.clear()
    _loaded[row.files_hash] = (settings, loaded)
    return _seeded(loaded, seeds)


_SEEDS = select(_states.c.name, _states.c.experiment).where(_states.c.experiment != "")


def _seeded(loaded: Loaded, seeds: Mapping[str, str]) -> Loaded:
    """A campaign that was renamed draws by the name it began with, so that nobody changes arms."""
    others = {
        name: replace(campaign, experiment=seeds[name])
        for name, campaign in loaded.campaigns.items()
        if name in seeds and campaign.experiment in ("", name)
    }
    return replace(loaded, campaigns={**loaded.campaigns, **others}) if others else loaded


def _compile(number: int, at: datetime, files: Mapping[str, str], settings: Settings) -> Loaded:
    used = with_catalogue(settings, json.loads(files[CATALOGUE]))
    campaigns, problems = campaign_files.load(files, used)
    replies, wrong = replies_file.load(files)
    errors = [problem for problem in (*problems, *wrong) if not problem.warning]
    if errors:
        raise ReleaseError(f"release {number} does not fit the settings any more: {errors[0]}; mend and publish again")
    return Loaded(number, at, campaigns, Templates(only_templates(files), used.business), used, replies)


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


def files_of(connection: Connection, number: int | None) -> dict[str, str] | None:
    query = select(_releases.c.files)
    query = query.where(_releases.c.id == number) if number else query.order_by(_releases.c.id.desc()).limit(1)
    found: dict[str, str] | None = connection.execute(query).scalar()
    return found


def published(db: Database, number: int) -> dict[str, str]:
    """
    What a release holds: path → text.

    Raises:
        NotFound: there is no such release.
    """
    with store.read(db) as connection:
        files = files_of(connection, number)
    if files is None:
        raise NotFound(f"there is no release {number}: `outreach releases` lists them")
    return files


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


def date_name(campaign: Campaign) -> str | None:
    """The name in `customer_dates` that the campaign's trigger looks at, if it is of that kind."""
    if campaign.trigger.event == "customer.birthday":
        return "birthday"
    return campaign.trigger.attribute


def campaigns_of(files: Mapping[str, str], settings: Settings) -> dict[str, Campaign]:
    if not files:
        return {}
    return campaign_files.load(files, with_catalogue(settings, json.loads(files[CATALOGUE])))[0]


def files_hash(files: Mapping[str, str]) -> str:
    """A hash of the files' names and texts."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:32]
