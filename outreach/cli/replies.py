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
    unanswered: Annotated[
        bool, typer.Option("--unanswered", help="Only those that want an answer and have had none.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=show.MOST, help="Only the latest so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List what people wrote, the oldest first, with the message and order it answers."""
    from outreach.reports import replies as report

    place = here.here(ctx)
    db = here.database(place.settings)
    found = report.replies(db, customer=customer, channel=here.channel(channel), unanswered=unanswered, limit=limit)
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


@replies.command("answer")
def answer(
    ctx: typer.Context,
    reply: Annotated[int, typer.Argument(help="The reply's number, as `replies list` shows it.")],
    text: Annotated[str, typer.Option(help="What to answer, word for word.")] = "",
    template: Annotated[str, typer.Option(help="A published template to answer with.")] = "",
    by: Annotated[str, typer.Option(help="Who answers, for the case's log.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: show.Json = False,
) -> None:
    """
    Answer a reply on its own channel.

    Within 24 hours of what they last wrote neither sending hours nor caps apply; an opt-out stops it always.

    Example: outreach replies answer 12 --text "Sale hoy mismo."
    """
    from outreach import answering, dispatcher
    from outreach.campaigns import ANSWERS
    from outreach.errors import OutreachError

    place = here.here(ctx)
    db = here.database(place.settings)
    here.may_send(place, db)
    if text and template:
        raise OutreachError("give --text or --template, not both")
    to = answering.addressed(db, place.settings, place.now, reply, text=text, template=template)
    what = f"template {template}" if template else f'"{show.cell(text.strip())}"'
    if not here.agreed(f"Answer reply {reply} of {show.cell(to.customer)} by {to.channel} now: {what}?", yes=yes):
        raise typer.Exit(1)
    done = answering.answer(db, place.settings, place.now, reply, text=text, template=template, by=by)
    dispatcher.dispatch(db, place.settings, place.now, only=(ANSWERS, done.id))
    found = answering.became(db, done.id)
    if as_json:
        until = found.until.isoformat() if found.until else None
        facts = {"reply": reply, "channel": done.channel, "new": done.new, "status": found.status}
        show.as_json(facts | {"reason": found.reason, "detail": found.detail, "until": until})
        return
    again = "" if done.new else " The very same answer had been written before; it is not sent twice."
    if found.status == "sent":
        show.line(f"Sent by {done.channel}.{again}")
    elif found.status in ("planned", "sending"):
        why = f" ({found.reason})" if found.reason else ""
        show.line(f"Waiting to go out by {done.channel}{why}: the next dispatch looks again.{again}")
    else:
        detail = f": {found.detail}" if found.detail else ""
        show.line(f"Not sent by {done.channel}: {found.status}, {found.reason}{detail}.{again}")


@replies.command("label")
def label(
    ctx: typer.Context,
    reply: Annotated[int, typer.Argument(help="The reply's number, as `replies list` shows it.")],
    intents: Annotated[list[str], typer.Argument(metavar="INTENT...", help="What it means: opt_out, question, ...")],
    as_json: show.Json = False,
) -> None:
    """
    Say what a reply means, beside what the rules read; it changes nothing else.

    Example: outreach replies label 12 complaint refund
    """
    from outreach import answering

    place = here.here(ctx)
    listed = answering.label(here.database(place.settings), reply, intents)
    if as_json:
        show.as_json({"reply": reply, "labels": list(listed)})
        return
    show.line(f"Reply {reply}: {', '.join(listed)}.")
