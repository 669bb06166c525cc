"""Verbs that change what is sent: diff, publish, releases, rollback, cancel, pause, resume."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from outreach import releases
from outreach.cli import here, show
from outreach.errors import Problems, said_once

if TYPE_CHECKING:
    from outreach.store import Database

app = typer.Typer(rich_markup_mode=None)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OneCampaign = Annotated[str | None, typer.Argument(metavar="CAMPAIGN", help="A campaign's name; without it, all.")]


@app.command()
def diff(ctx: typer.Context, as_json: show.Json = False) -> None:
    """Show what publishing now would change."""
    place = here.here(ctx)
    changes = releases.diff(here.database(place.settings), place.settings, releases.read_files(place.folder), place.now)
    if as_json:
        show.as_json(changes.as_json())
        return
    for text in _sentences(changes):
        show.line(text)


@app.command()
def publish(
    ctx: typer.Context,
    yes: Yes = False,
    note: Annotated[str, typer.Option("--note", help="A word on why, kept with the release.")] = "",
    as_json: show.Json = False,
) -> None:
    """Check everything, show what changes, and publish it."""
    place = here.here(ctx)
    db = here.database(place.settings)
    files = releases.read_files(place.folder)
    warnings = _stop_at_problems(files, place, db)
    changes = releases.diff(db, place.settings, files, place.now)
    for text in [*warnings, *_sentences(changes)]:
        typer.echo(text, err=as_json)
    if changes.is_empty:
        number = releases.listed(db)[0]["release"]
    elif here.agreed("Publish this?", yes=yes):
        number = releases.publish(db, place.settings, files, place.now, note=note)
    else:
        raise typer.Exit(1)
    _say_release(number, as_json=as_json)


def _sentences(changes: releases.Changes) -> list[str]:
    if changes.is_empty:
        return ["Nothing differs from the current release."]
    lines = [f"- {text}" for text in changes.lines()]
    if changes.example:
        file, before, after = changes.example
        lines += ["", *difflib.unified_diff(before.splitlines(), after.splitlines(), file, file, n=1, lineterm="")]
    return lines


def _stop_at_problems(files: dict[str, str], place: here.Here, db: Database) -> list[str]:
    problems = [*releases.unread_files(place.folder), *releases.check(files, place.settings, db)]
    if any(not problem.warning for problem in problems):
        raise Problems(problems)
    return [str(problem) for problem in said_once(problems)]


def _say_release(number: int, *, as_json: bool) -> None:
    if as_json:
        show.as_json({"release": number})
    else:
        show.line(f"Release {number} is in force: only what it holds is planned and sent.")


@app.command("releases")
def listed(ctx: typer.Context, as_json: show.Json = False) -> None:
    """List what was published, newest first."""
    place = here.here(ctx)
    found = releases.listed(here.database(place.settings))
    if as_json:
        show.as_json({"releases": found})
        return
    rows = [
        (one["release"], show.when(one["published_at"], place.zone), one["campaigns"], one["templates"], one["note"])
        for one in found
    ]
    show.table("", (">Release", "Published", ">Campaigns", ">Templates", "Note"), rows)


@app.command()
def rollback(
    ctx: typer.Context,
    number: Annotated[
        int, typer.Argument(metavar="N", min=1, max=show.MOST, help="The number of the release to publish again.")
    ],
    yes: Yes = False,
    as_json: show.Json = False,
) -> None:
    """Publish the content of an earlier release again."""
    place = here.here(ctx)
    db = here.database(place.settings)
    changes = releases.diff(db, place.settings, releases.published(db, number), place.now)
    if not changes.is_empty:
        for text in _sentences(changes):
            typer.echo(text, err=as_json)
    if not (changes.is_empty or here.agreed(f"Publish release {number} again?", yes=yes)):
        raise typer.Exit(1)
    _say_release(releases.rollback(db, place.settings, number, place.now), as_json=as_json)


@app.command()
def cancel(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="CAMPAIGN[/STEP]", help="`win_back`, or `win_back/door`.")],
    as_json: show.Json = False,
) -> None:
    """End the planned messages of a campaign, or of one step."""
    place = here.here(ctx)
    campaign, _, step = what.partition("/")
    count = releases.cancel(here.database(place.settings), campaign, step or None, place.now)
    if as_json:
        show.as_json({"cancelled": count})
    else:
        show.line(f"{show.number(count)} planned messages of {what} are cancelled.")


@app.command()
def pause(
    ctx: typer.Context,
    campaign: OneCampaign = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; `status` shows it.")] = "paused by hand",
    as_json: show.Json = False,
) -> None:
    """Hold a campaign, or all of them, until resumed."""
    place = here.here(ctx)
    names = releases.pause(here.database(place.settings), campaign, reason, place.now)
    if as_json:
        show.as_json({"paused": names})
        return
    show.line(f"Paused: {', '.join(names) or 'nothing'}. Messages wait until `outreach resume`, or expire.")


@app.command()
def resume(ctx: typer.Context, campaign: OneCampaign = None, as_json: show.Json = False) -> None:
    """Let a paused campaign, or all of them, go on."""
    place = here.here(ctx)
    names = releases.resume(here.database(place.settings), campaign, place.now)
    if as_json:
        show.as_json({"resumed": names})
        return
    show.line(f"Going on again: {', '.join(names) or 'nothing was paused'}.")
