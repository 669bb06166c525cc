"""`status`: what a person should know, what waits, what is stuck, what is paused, when each stage last ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import typer

from outreach.cli import here, show
from outreach.reports import status as report
from outreach.reports.status import Status

app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(ctx: typer.Context, as_json: show.Json = False) -> None:
    """Show the queue, the last ticks and what is paused."""
    place = here.here(ctx)
    found = report.read(place.settings.database, place.now)
    if as_json:
        show.as_json(found.as_json())
    else:
        _print(found, place.zone)


def _print(found: Status, zone: ZoneInfo) -> None:
    release = (
        f"Release {found.release}, of {show.when(found.released_at, zone)}."
        if found.release
        else "Nothing is published yet."
    )
    show.line(f"{release} Last import: {show.when(found.last_import_at, zone)}.\n")
    for alarm in found.alarms:
        show.line(f"! {alarm.text} (since {show.when(alarm.since, zone)})")
    if found.alarms:
        show.line("")
    if found.messages:
        show.table("Messages", ("Status", ">Messages"), list(found.messages.items()))
    if found.blocked_by:
        show.table("Planned ones that wait", ("For", ">Messages"), list(found.blocked_by.items()))
    if found.oldest_due:
        one = found.oldest_due
        show.line(
            f"Due now: {show.number(found.due)}, the oldest since {show.when(one.at, zone)} ({one.campaign}/{one.step}).\n"
        )
    for slow in found.slowed:
        what = "may not send as fast" if slow.reason == "rate" else "is out of order"
        said = f": {slow.detail}" if slow.detail else ""
        times = f"since {show.when(slow.since, zone)}, tried again at {show.when(slow.until, zone)}"
        show.line(show.cell(f"{slow.channel.capitalize()} {what} {times}{said}."))
    if found.slowed:
        show.line("")
    for one in found.unknown:
        show.line(f"In doubt since {show.when(one.at, zone)}: {one.id} ({one.campaign}/{one.step}, {one.channel}).")
    if found.in_doubt:
        show.line(
            f"In doubt: {_listed(found.in_doubt)}. Nobody knows whether they went out, so they are not sent again."
        )
        show.line("Why: outreach messages --status unknown. What nobody finds out you decide: outreach resolve.\n")
    if found.cases["open"]:
        late = f", {show.number(found.cases['overdue'])} of them overdue" if found.cases["overdue"] else ""
        show.line(f"Open cases: {show.number(found.cases['open'])}{late}. Which: outreach cases list --open\n")
    planned = next((tick.counts for tick in found.ticks if tick.stage == "plan"), {})
    if found.release and (outlook := planned.get("outlook")):
        show.line(f"The last `plan` wrote no message. {outlook['why']}".rstrip())
        show.line(f"{outlook['next']}\n" if outlook["next"] else "")
    for low in planned.get("offers", ()):
        show.line(f"{_low(low)}\n")
    for paused in found.paused:
        show.line(f"Paused since {show.when(paused.since, zone)}: {paused.campaign} ({paused.reason}).")
    if found.ticks:
        rows = [
            (tick.stage, show.when(tick.started_at, zone), show.when(tick.finished_at, zone), tick.error)
            for tick in found.ticks
        ]
        show.table("Last ticks", ("Stage", "Started", "Finished", "Error"), rows)


def _low(low: Mapping[str, Any]) -> str:
    """What the last tick of `plan` said of an offer that runs out."""
    what = f"Offer {low['offer']}: {show.number(low['left'])} codes left"
    if low["days"] is not None and low["left"]:
        what += f", at the current rate for {low['days']:.0f} days" if low["days"] >= 1 else ", for less than a day"
    return f"{what}. Its campaigns pause before they send without a code: outreach coupons make"


def _listed(in_doubt: Mapping[str, int]) -> str:
    return ", ".join(f"{show.number(count)} by {channel or 'no channel yet'}" for channel, count in in_doubt.items())
