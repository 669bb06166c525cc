"""What a verb works on: the workspace's settings, its `now`, its database."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import typer

from outreach import settings as settings_module
from outreach.cli import NOW, WORKSPACE, WRITING, YES
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
    """
    Settings and time of this call; raises SettingsError with every problem of outreach.yaml.

    A verb that writes asks first when `--now` is still to come: see `_ask_about_a_time_to_come`.
    """
    where = folder(ctx)
    settings = settings_module.load(where, os.environ)
    place = Here(where, settings, at(ctx.meta.get(NOW), settings.business.timezone))
    if NOW in ctx.meta and _writes(ctx):
        _ask_about_a_time_to_come(ctx, place)
    return place


def _writes(ctx: typer.Context) -> bool:
    path: list[str] = []
    step: Any = ctx
    while step.parent is not None:
        path.insert(0, step.info_name or "")
        step = step.parent
    shows = ctx.params.get("dry_run") or (path == ["consent"] and ctx.params.get("word") is None)
    return " ".join(path) in WRITING and not shows


def _ask_about_a_time_to_come(ctx: typer.Context, place: Here) -> None:
    """
    Leave with 1 unless a person agrees to take a database that lives by the clock to a time to come.

    One in which nothing was done yet, and one that was taken there already, are for trying things out.
    """
    from outreach import store

    soon = datetime.now(UTC) + store.SKEW
    if place.now <= soon:
        return
    db = database(place.settings)
    lived = store.lived_until(db)
    db.engine.dispose()
    if lived is None or lived > soon:
        return
    question = (
        f"--now {place.now.astimezone(place.zone):%Y-%m-%d %H:%M} is still to come: what is due by then would be planned"
        " or sent now, and from then on this database refuses any earlier time, so nothing more is planned until that"
        " day. Try it in a copy of the workspace (`outreach db backup`, then `outreach db restore` there) or in the"
        " `outreach demo`. Do it in this database all the same?"
    )
    if not agreed(question, yes=bool(ctx.params.get("yes") or ctx.meta.get(YES))):
        raise typer.Exit(1)


def only_by_the_clock(ctx: typer.Context, instead: str) -> None:
    """Wrong usage where a verb that lives by the clock is given `--now`."""
    if NOW in ctx.meta:
        raise typer.BadParameter(f"this runs by the clock, so --now means nothing to it: {instead}")


def database(settings: Settings) -> Database:
    """The workspace's database, its schema ready; raises DatabaseError."""
    from outreach import store

    db = store.open_database(settings.database, secret=settings.secret, timezone=settings.business.timezone)
    store.refuse_backup(db)
    return db


def may_send(place: Here, db: Database) -> None:
    """DatabaseError in a copy of the workspace, which would send what the original sends."""
    from outreach import store

    store.refuse_copy(db, store.this_host(place.settings.workspace))


def channel(given: str | None) -> str | None:
    """`--channel` as given, or not given; wrong usage where there is no such channel."""
    from outreach.values import CHANNELS
    from outreach.yamlfile import did_you_mean

    if given is None or given in CHANNELS:
        return given
    near = did_you_mean(given, CHANNELS) or f"write one of {', '.join(CHANNELS)}"
    raise typer.BadParameter(f"{given!r} is not a channel: {near}")


def agreed(question: str, *, yes: bool) -> bool:
    """Whether the person at the terminal says yes; without a terminal only `--yes` is a yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        typer.echo(f"{question} Nobody can be asked here: say so with --yes.", err=True)
        return False
    return typer.confirm(question, err=True)  # stdout may be for a program
