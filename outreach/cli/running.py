"""Verbs that make the stages run: tick, run, db."""

from __future__ import annotations

from typing import Annotated

import typer

from outreach.cli import here, show

app = typer.Typer(rich_markup_mode=None)
tick = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Run one stage once, by hand.")
db = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look after the database.")
app.add_typer(tick, name="tick")
app.add_typer(db, name="db")


@tick.command()
def plan(ctx: typer.Context, as_json: show.Json = False) -> None:
    """Enrol the customers of new occasions and write the messages that are due."""
    from outreach import planner

    place = here.here(ctx)
    counts = planner.plan(here.database(place.settings), place.settings, place.now)
    if as_json:
        show.as_json(counts.as_json())
        return
    rows = [
        (name, part.enrolled, part.planned, part.held, part.skipped)
        for name, part in sorted(counts.by_campaign.items())
    ]
    total = ("all", counts.enrolled, counts.planned, counts.held, counts.skipped)
    show.table("Planned", ("Campaign", ">Enrolled", ">Planned", ">Held", ">Skipped"), [*rows, total])
    for paused in counts.paused:
        show.line(f"{paused['campaign']} is paused: {paused['reason']}")


@tick.command()
def dispatch(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many messages.")] = None,
    as_json: show.Json = False,
) -> None:
    """Send the messages that are due and that every rule lets pass."""
    from outreach import dispatcher

    place = here.here(ctx)
    counts = dispatcher.dispatch(here.database(place.settings), place.settings, place.now, limit=limit).as_json()
    if as_json:
        show.as_json(counts)
        return
    by_reason = counts.pop("by_reason")
    show.table("Dispatched", tuple(f">{name.capitalize()}" for name in counts), [tuple(counts.values())])
    if by_reason:
        show.table("Why not", ("Reason", ">Messages"), sorted(by_reason.items()))


@app.command()
def run(
    ctx: typer.Context,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Send from here from now on, where another place sent before.")
    ] = False,
) -> None:
    """Run every stage on its clock until stopped."""
    from outreach import daemon

    place = here.here(ctx)
    daemon.run(place.settings, here.database(place.settings), adopt=adopt)


@db.command()
def upgrade(ctx: typer.Context) -> None:
    """Bring the database to this version's tables."""
    from outreach import store

    settings = here.here(ctx).settings
    store.open_database(settings.database, secret=settings.secret, timezone=settings.business.timezone, upgrade=True)
    show.line(f"The database is at version {store.HEAD}.")
