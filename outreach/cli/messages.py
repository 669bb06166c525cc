"""`messages`: what was planned, sent or not sent, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from outreach.cli import here, show
from outreach.models import Reason, Status
from outreach.reports import messages as report
from outreach.settings import Settings

app = typer.Typer(rich_markup_mode=None)

COLUMNS = ("due_at", "customer", "campaign", "step", "channel", "status", "reason", "sent_at", "subject")
OF_UNKNOWN = ("id", "sent_at", "customer", "campaign", "step", "channel", "detail", "look_at")
HEADS = {"sent_at": "Sent", "due_at": "Due", "look_at": "Next look"}


@app.command()
def messages(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Only those of this campaign.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only those to this customer: the shop's own id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=show.MOST, help="Only the latest so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List messages as they fall due, with the reason of each non-send."""
    place = here.here(ctx)
    found = report.messages(
        here.database(place.settings), status=status, campaign=campaign, customer=customer, limit=limit
    )
    if as_json:
        show.as_json({"messages": [one | _more(one, place.settings) for one in found]})
        return
    columns = OF_UNKNOWN if status is Status.UNKNOWN else COLUMNS
    heads = tuple(HEADS.get(name, name.capitalize()) for name in columns)
    rows = [[_cell(name, message, place.zone) for name in columns] for message in found]
    show.table(f"{show.number(len(found))} message{'s' * (len(found) != 1)}" if found else "Messages", heads, rows)
    if found and status is Status.UNKNOWN:
        show.line("Settle what nobody finds out: outreach resolve ID sent, resend or drop.")


def _cell(name: str, message: Mapping[str, Any], zone: ZoneInfo) -> object:
    """Times come as ISO 8601 text."""
    value = message[name]
    if name == "reason" and message["blocked_by"]:
        return _why_not_yet(message, zone) or value
    if name.endswith("_at") and isinstance(value, str):
        return show.when(datetime.fromisoformat(value), zone)
    return str(value)[:12] if name == "id" else value


def _why_not_yet(message: Mapping[str, Any], zone: ZoneInfo) -> str:
    """What holds back one that waits, with what was said of it; and what held back one that has expired."""
    reason, detail = message["blocked_by"], message["detail"]
    if message["status"] == Status.EXPIRED:
        return f"{message['reason']}: {reason}"
    if message["status"] != Status.PLANNED:
        return ""
    if reason in (Reason.PERSON, Reason.PAUSED):
        return str(reason)  # it waits for somebody, not for a time
    said = f": {detail}" if detail and reason not in (Reason.HOURS, Reason.CAP) else ""
    return f"{reason} until {show.when(datetime.fromisoformat(message['until']), zone)}{said}"


def _more(message: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """What a mail server's log knows a message in doubt by."""
    if message["status"] != Status.UNKNOWN:
        return {}
    from outreach.cli.resolving import message_id

    found = message_id(settings, message["channel"], message["id"])
    return {"message_id": found} if found else {}
