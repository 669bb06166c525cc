"""Verbs of somebody who begins: init, demo."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from outreach import setting_keys, settings, starter_kit
from outreach.cli import NOW, here, show
from outreach.cli.homes import HOMES as HOMES
from outreach.cli.homes import Home, home_of
from outreach.cli.workspace_files import CHANNELS, DATA_README, settings_text
from outreach.cli.writing import write_schema
from outreach.errors import OutreachError
from outreach.settings import SETTINGS_FILE
from outreach.yamlfile import did_you_mean, listed, shown

app = typer.Typer(rich_markup_mode=None)

DEFAULT_COUNTRY = "MX"
DEFAULT_CHANNELS = "email,sms,whatsapp,call"
FIRST_CAMPAIGN = "post_sale"  # what a new workspace publishes first sends little


@app.command()
def init(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where; else the current folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The shop's name; else the folder's.")] = None,
    country: Annotated[str | None, typer.Option(help="Two letters; else MX.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as America/Bogota; else the country's.")] = None,
    currency: Annotated[str | None, typer.Option(help="Such as COP; else the country's.")] = None,
    locale: Annotated[str | None, typer.Option(help="Such as es-CO; else the country's.")] = None,
    channels: Annotated[
        str | None, typer.Option(help="Those that the shop has, with commas between; else email,sms,whatsapp,call.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take the default of what is not given.")
    ] = False,
) -> None:
    """
    Write a new workspace: settings, campaigns, message templates.

    In a terminal it asks for what the options do not say. All campaigns but post_sale are off (`active: no`).
    """
    where = target or here.folder(ctx)
    _refuse_to_overwrite(where)
    ask = Asking(quiet=yes or not (sys.stdin.isatty() and sys.stdout.isatty()))
    name = ask.text("The shop's name", name, where.resolve().name)
    country = ask.text("Its country, two letters", country, DEFAULT_COUNTRY, setting_keys.country).upper()
    home = _home(ask, country, timezone, currency, locale)
    chosen = _channels(ask.text("Its channels", channels, DEFAULT_CHANNELS, _channels_or_complaint))
    text = settings_text(name, country, home, chosen)
    _try_out(text)
    _write(where, text, chosen)
    show.line(f"A workspace is ready in {where}. Next: put the shop's files into data/ and run `outreach import`.")
    show.line("Only the campaign post_sale is on. Read another one in campaigns/, then write `active: yes` in it.")


@dataclass(frozen=True)
class Asking:
    """Asks at the terminal for what was not given; takes the default when it may not ask."""

    quiet: bool

    def text(self, what: str, given: str | None, default: str, check: Callable[[str], object] = str) -> str:
        """The given text, or the answer, asked until `check` (ValueError says why not) takes it; empty: unknown."""
        if given is not None or self.quiet:
            return default if given is None else given
        while True:
            answer: str = typer.prompt(what, default=default or None).strip()
            try:
                check(answer)
            except ValueError as error:
                show.line(str(error))
            else:
                return answer


def _home(ask: Asking, country: str, timezone: str | None, currency: str | None, locale: str | None) -> Home:
    usual = home_of(country)
    found = Home(
        ask.text("Its time zone", timezone, usual.timezone, setting_keys.time_zone),
        ask.text("Its currency", currency, usual.currency, setting_keys.currency),
        ask.text("Its language", locale, usual.locale, setting_keys.locale),
    )
    missing = [f"--{field.name}" for field in fields(found) if not getattr(found, field.name)]
    if missing:
        raise OutreachError(f"{country} has not just one of these: give {' and '.join(missing)}")
    return found


def _channels(written: str) -> list[str]:
    """The channels named, in our order; raises OutreachError for what is none."""
    try:
        return _channels_or_complaint(written)
    except ValueError as error:
        raise OutreachError(f"--channels: {error}") from None


def _channels_or_complaint(written: str) -> list[str]:
    names = [name.strip().lower() for name in written.split(",") if name.strip()]
    for name in names:
        if name not in CHANNELS:
            hint = did_you_mean(name, list(CHANNELS)) or f"use {listed(list(CHANNELS))}"
            raise ValueError(f"`{shown(name)}` is no channel: {hint}")
    if not set(names) - {"visit"}:
        raise ValueError("name at least one channel besides visit, such as email,sms")
    return [channel for channel in CHANNELS if channel in names]


def _write(where: Path, text: str, channels: Collection[str]) -> None:
    where.mkdir(parents=True, exist_ok=True)
    starter_kit.copy_into(where, active=(FIRST_CAMPAIGN,), channels=channels)
    write_schema(where, None)
    (where / "data").mkdir(exist_ok=True)
    (where / "data" / "README.txt").write_text(DATA_README, encoding="utf-8")
    (where / SETTINGS_FILE).write_text(text, encoding="utf-8")


def _refuse_to_overwrite(where: Path) -> None:
    for name in (SETTINGS_FILE, *starter_kit.FOLDERS):
        if (where / name).exists():
            raise OutreachError(f"{where / name} is there already: give a folder that holds no workspace")


def _try_out(text: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")
        settings.load(Path(folder), {})


@app.command()
def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to play in.")] = Path("demo-shop"),
    force: Annotated[bool, typer.Option("--force", help="Remove an earlier demo in that folder.")] = False,
    whole_year: Annotated[
        bool, typer.Option("--year", help="A year with every starter campaign, coupons and answers: some minutes.")
    ] = False,
    customers: Annotated[int, typer.Option(min=50, max=20_000, help="How many the shop has.")] = 2000,
) -> None:
    """Play the whole story on sample data in a fresh folder."""
    from rich.console import Console

    from outreach import demo as story

    _make_room(folder, force=force)
    width = None if sys.stdout.isatty() else show.PIPE_WIDTH
    console = Console(width=width, highlight=False)
    now = here.at(ctx.meta.get(NOW), "UTC")
    story.run(folder, now=now, show=console, customers=customers, whole_year=whole_year)


def _make_room(folder: Path, *, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise OutreachError(f"{folder} is there already: give another folder, or --force to play the demo there anew")
    if not _is_demo(folder):
        raise OutreachError(f"{folder} was not made by the demo, so it is left alone: give another folder")
    shutil.rmtree(folder)


def _is_demo(folder: Path) -> bool:
    from outreach.demo.replay import SETTINGS as WRITTEN

    file = folder / SETTINGS_FILE
    return file.is_file() and file.read_text(encoding="utf-8", errors="replace") == WRITTEN
