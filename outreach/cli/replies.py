"""`replies`: what people wrote to us."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from outreach.cli import here, show

app = typer.Typer(rich_markup_mode=None)
replies = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What people wrote to us.")
app.add_typer(replies, name="replies")


@replies.command("list")
def list_(
    ctx: typer.Context,
    customer: Annotated[str | None, typer.Option(help="Only those of this customer: the shop's own id.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only those on this channel.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the latest so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List what people wrote, the oldest first, with the message and order it answers."""
    from outreach.reports import replies as report

    place = here.here(ctx)
    found = report.replies(here.database(place.settings), customer=customer, channel=channel, limit=limit)
    if as_json:
        show.as_json({"replies": found})
        return
    rows = [
        (
            one["id"],
            show.when(datetime.fromisoformat(one["received_at"]), place.zone),
            one["customer"],
            one["channel"],
            one["text"],
            ", ".join(one["intents"]),
            one["order"],
        )
        for one in found
    ]
    heads = ("Reply", "Received", "Customer", "Channel", "Text", "Meaning", "Order")
    title = f"{show.number(len(found))} repl{'y' if len(found) == 1 else 'ies'}" if found else "Replies"
    show.table(title, heads, rows)
