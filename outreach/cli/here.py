"""What a verb works on: the workspace's settings, its `now`, its database."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import typer

from outreach import settings as settings_module
from outreach.cli import NOW, WORKSPACE
from outreach.settings import Settings

if TYPE_CHECKING:
    from outreach.store import Database


@dataclass(frozen=True)
class Here:
    """The workspace, its settings and the time that a verb acts at (UTC)."""

    folder: Path
    settings: Settings
    now: datetime

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.business.timezone)


def folder(ctx: typer.Context) -> Path:
    """The folder of `--workspace`, else the current one."""
    return Path(ctx.meta.get(WORKSPACE, "."))


def at(given: datetime | None, timezone: str) -> datetime:
    """The time of `--now` in UTC: without an offset it is in the business's zone; not given, the clock's."""
    if given is None:
        return datetime.now(UTC)
    return (given if given.tzinfo else given.replace(tzinfo=ZoneInfo(timezone))).astimezone(UTC)


def here(ctx: typer.Context) -> Here:
    """Settings and time of this call; raises SettingsError with every problem of outreach.yaml."""
    where = folder(ctx)
    settings = settings_module.load(where, os.environ)
    return Here(where, settings, at(ctx.meta.get(NOW), settings.business.timezone))


def database(settings: Settings) -> Database:
    """The workspace's database, its schema ready; raises DatabaseError."""
    from outreach import store

    db = store.open_database(settings.database, secret=settings.secret, timezone=settings.business.timezone)
    store.refuse_backup(db)
    return db


def agreed(question: str, *, yes: bool) -> bool:
    """Whether the person at the terminal says yes; without a terminal only `--yes` is a yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        typer.echo(f"{question} Nobody can be asked here: say so with --yes.", err=True)
        return False
    return typer.confirm(question)
