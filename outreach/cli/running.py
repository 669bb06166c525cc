"""Verbs that make the stages run: tick, run."""

from __future__ import annotations

from typing import Annotated

import typer

from outreach.cli import here, show
from outreach.signals import Stop, stop_on_signals

app = typer.Typer(rich_markup_mode=None)
tick = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Run one stage once, by hand.")
app.add_typer(tick, name="tick")


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
    for text in counts.outlook.lines() if counts.outlook else ():
        show.line(text)
    for low in counts.offers:
        show.line(f"{low}.")


@tick.command()
def dispatch(
    ctx: typer.Context,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=show.MOST, help="At most this many messages.")
    ] = None,
    as_json: show.Json = False,
) -> None:
    """Send the messages that are due and that every rule lets pass."""
    from outreach import dispatcher, releases

    place, stop = here.here(ctx), Stop()
    db = here.database(place.settings)
    here.may_send(place, db)
    with stop_on_signals(stop):
        counts = dispatcher.dispatch(db, place.settings, place.now, limit=limit, stop=stop.is_set).as_json()
    paused = releases.paused(db)
    if as_json:
        show.as_json({**counts, "paused": [{"campaign": name, "reason": why} for name, why in paused.items()]})
        return
    by_reason = counts.pop("by_reason")
    show.table("Dispatched", tuple(f">{name.capitalize()}" for name in counts), [tuple(counts.values())])
    if by_reason:
        show.table("Why not", ("Reason", ">Messages"), sorted(by_reason.items()))
    for name, why in paused.items():
        show.line(f"{name} is paused: {why}. Its messages wait: mend that, then `outreach resume {name}`.")
    if stop.is_set():
        show.line("Stopped as asked, with nothing in the air: the next dispatch goes on from here.")


@tick.command()
def receive(
    ctx: typer.Context,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=show.MOST, help="Handle at most this many events.")
    ] = None,
    as_json: show.Json = False,
) -> None:
    """Make facts and replies of what providers and people told us."""
    from outreach import inbox

    place, stop = here.here(ctx), Stop()
    db = here.database(place.settings)
    with stop_on_signals(stop):
        counts = inbox.receive(db, place.settings, place.now, limit=limit, stop=stop.is_set).as_json()
    if as_json:
        show.as_json(counts)
        return
    show.table("Received", tuple(f">{name.capitalize()}" for name in counts), [tuple(counts.values())])


@tick.command()
def reconcile(
    ctx: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=show.MOST, help="Ask about at most this many messages.")
    ] = 500,
    as_json: show.Json = False,
) -> None:
    """Look for messages in doubt at their providers, and settle those that evidence settles."""
    from outreach import reconciler

    place, stop = here.here(ctx), Stop()
    db = here.database(place.settings)
    with stop_on_signals(stop):
        counts = reconciler.reconcile(db, place.settings, place.now, limit=limit, stop=stop.is_set).as_json()
    if as_json:
        show.as_json(counts)
        return
    by_reason, expired = counts.pop("by_reason"), counts.pop("expired", 0)
    if expired:
        show.line(f"{expired:,} texts were older than `keep_bodies`, and are deleted.")
    show.table("Messages in doubt", tuple(f">{name.capitalize()}" for name in counts), [tuple(counts.values())])
    if by_reason:
        show.table("Why", ("Reason", ">Messages"), sorted(by_reason.items()))


@tick.command()
def mail(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=show.MOST, help="Read at most this many mails.")] = 500,
    as_json: show.Json = False,
) -> None:
    """Fetch new mail from the mailbox of the settings."""
    from outreach import mailbox

    place, stop = here.here(ctx), Stop()
    db = here.database(place.settings)
    with stop_on_signals(stop):
        counts = mailbox.fetch(db, place.settings, place.now, limit=limit, stop=stop.is_set).as_json()
    if as_json:
        show.as_json(counts)
        return
    if place.settings.mailbox is None or not place.settings.mailbox.host:
        show.line("No mailbox is set up: name one under `mailbox` in outreach.yaml.")
        return
    heads = tuple(f">{name.replace('_', ' ').capitalize()}" for name in counts)
    show.table("Mail", heads, [tuple(counts.values())])


@app.command()
def run(
    ctx: typer.Context,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Send from here from now on, where another place sent before.")
    ] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="Where the web app listens; 127.0.0.1 if not given.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Its port. If neither is given: 8080, and without the web app as long as somebody else has that.",
        ),
    ] = None,
) -> None:
    """Run every stage on its clock until stopped, and the web app beside them."""
    from outreach import daemon

    here.only_by_the_clock(ctx, "try another time with `outreach tick`")
    place = here.here(ctx)
    usual = daemon.Address()
    web = daemon.Address(
        usual.host if host is None else host,
        usual.port if port is None else port,
        needed=host is not None or port is not None,
    )
    daemon.run(place.settings, here.database(place.settings), adopt=adopt, web=web)
