"""`messages`: what was planned, sent or not sent, one by one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from outreach.cli import here, show
from outreach.models import Status
from outreach.reports import messages as report

app = typer.Typer(rich_markup_mode=None)

COLUMNS = ("due_at", "customer", "campaign", "step", "channel", "status", "reason", "sent_at", "subject")


@app.command()
def messages(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Only those of this campaign.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only those to this customer: the shop's own id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the latest so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List messages as they fall due, with the reason of each non-send."""
    place = here.here(ctx)
    found = report.messages(
        here.database(place.settings), status=status, campaign=campaign, customer=customer, limit=limit
    )
    if as_json:
        show.as_json({"messages": found})
        return
    heads = tuple(name.removesuffix("_at").capitalize() for name in COLUMNS)
    rows = [[_cell(message[name], place.zone) for name in COLUMNS] for message in found]
    show.table(f"{show.number(len(found))} message{'s' * (len(found) != 1)}" if found else "Messages", heads, rows)


def _cell(value: object, zone: ZoneInfo) -> object:
    """Times come as ISO 8601 text, which no other column holds."""
    if isinstance(value, str) and len(value) >= 25 and value[10] == "T":
        return show.when(datetime.fromisoformat(value), zone)
    return value
