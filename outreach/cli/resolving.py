"""`resolve`: a person decides what became of messages in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from outreach.cli import here, show

if TYPE_CHECKING:
    from outreach.reconciler import Decision, InDoubt
    from outreach.settings import Settings
    from outreach.store import Database

app = typer.Typer(rich_markup_mode=None)

LISTED = 20
QUESTIONS = {
    "sent": "Record {these} as sent?",
    "resend": "Plan {these} again? Whoever has one already gets it twice.",
    "drop": "End {these} as failed, never to be sent?",
}


@app.command()
def resolve(
    ctx: typer.Context,
    messages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MESSAGE",
            help="Which: the first 6 characters of its id, or more. Several may be named, or none and an option below.",
        ),
    ] = None,
    *,
    decision: Annotated[
        str,
        typer.Argument(
            metavar="sent|resend|drop",
            help="`sent`: it went out. `resend`: it did not, and goes through every rule again. `drop`: never mind.",
        ),
    ],
    campaign: Annotated[str | None, typer.Option(help="All in doubt of this campaign.")] = None,
    channel: Annotated[str | None, typer.Option(help="All in doubt on this channel.")] = None,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored", help="All that the last restore put in doubt, and nothing that was in doubt before it."
        ),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All that are in doubt.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which these are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: show.Json = False,
) -> None:
    """Say what became of messages in doubt, or have them sent again."""
    said, ids = _decision(decision), list(dict.fromkeys(messages or ()))
    filtered = campaign is not None or channel is not None or restored or everything
    if bool(ids) == filtered:
        raise typer.BadParameter("name messages, or give --campaign, --channel, --restored or --all: one of the two")
    place = here.here(ctx)
    db = here.database(place.settings)
    if len(ids) == 1 and not dry_run:
        _one(db, place, ids[0], said, as_json=as_json)
    else:
        found = _found(db, place.settings, ids, campaign, here.channel(channel))
        found = [one for one in found if _by_restore(one)] if restored else found
        _several(db, place, found, said, dry_run=dry_run, yes=yes, as_json=as_json)


def _decision(word: str) -> Decision:
    from outreach.reconciler import Decision

    try:
        return Decision(word.lower())
    except ValueError:
        raise typer.BadParameter(f"{word!r} is no decision: end with sent, resend or drop") from None


def _one(db: Database, place: here.Here, start: str, decision: Decision, *, as_json: bool) -> None:
    from outreach import reconciler

    done = reconciler.resolve(db, reconciler.full_id(db, start), decision, place.now, settings=place.settings)
    if as_json:
        show.as_json({"decision": decision.value, "settled": [done], "tasks": 0})
    else:
        show.line(f"{done.id[:12]}: {done.follows}.")


# --- several at once -------------------------------------------------------------------------------------


def _found(
    db: Database, settings: Settings, starts: Sequence[str], campaign: str | None, channel: str | None
) -> list[InDoubt]:
    from outreach import reconciler

    ids = [reconciler.full_id(db, start) for start in starts]
    return reconciler.in_doubt(db, settings, ids=ids, campaign=campaign, channel=channel)


def _by_restore(one: InDoubt) -> bool:
    """Only the last restore put it in doubt: it was never handed over, as far as anybody knows, nor doubtful before."""
    from outreach.backup import EARLIER

    return one.at is None and not one.detail.startswith(EARLIER)


def _several(
    db: Database,
    place: here.Here,
    found: Sequence[InDoubt],
    decision: Decision,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show which they are, ask, and settle those that are in doubt even then."""
    from outreach import reconciler

    free = [one for one in found if not one.task]
    tasks = len(found) - len(free)
    if not as_json:
        _show(free, place, tasks)
    if dry_run or not free:
        if as_json:
            messages = [_plain(one, place.settings) for one in free]
            show.as_json({"decision": decision.value, "would_settle": messages, "tasks": tasks})
        return
    these = f"{show.number(len(free))} message{'s' * (len(free) != 1)}"
    if not here.agreed(QUESTIONS[decision.value].format(these=these), yes=yes):
        raise typer.Exit(1)
    done = reconciler.resolve_all(db, [one.id for one in free], decision, place.now, settings=place.settings)
    if as_json:
        show.as_json({"decision": decision.value, "settled": done, "tasks": tasks})
        return
    for follows, count in Counter(one.follows for one in done).items():
        show.line(f"{show.number(count)} message{'s' * (count != 1)}: {follows}.")
    if others := len(free) - len(done):
        show.line(f"{show.number(others)} meanwhile settled by others.")


def _show(found: Sequence[InDoubt], place: here.Here, tasks: int) -> None:
    heads = ["Message", "Handed over", "Customer", "Step", "Channel", "Best before", "Next look"]
    rows = [_row(one, place.zone) for one in found[:LISTED]]
    ids = [message_id(place.settings, one.channel, one.id) for one in found[:LISTED]]
    if any(ids):
        heads.append("Message-ID")
        rows = [[*row, known] for row, known in zip(rows, ids, strict=True)]
    show.table(f"In doubt: {show.number(len(found))}" if found else "Messages in doubt", heads, rows)
    if len(found) > LISTED:
        show.line(f"and {show.number(len(found) - LISTED)} more\n")
    if found:
        reasons = Counter(one.why for one in found)
        show.table("Why", ("Why", ">Messages"), reasons.most_common(LISTED))
    if tasks:
        show.line(f"Besides {show.number(tasks)} tasks of a person: `outreach tasks list` shows them.")


def _row(one: InDoubt, zone: ZoneInfo) -> list[object]:
    step = f"{one.campaign}/{one.step}"
    until, look_at = show.when(one.expires_at, zone), show.when(one.look_at, zone)
    return [one.id[:12], show.when(one.at, zone), one.customer, step, one.channel, until, look_at]


def _plain(one: InDoubt, settings: Settings) -> dict[str, Any]:
    found = message_id(settings, one.channel, one.id)
    plain = {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "task"}
    return plain | ({"message_id": found} if found else {})


def message_id(settings: Settings, channel: str | None, public_id: str) -> str:
    """What the log of a mail server knows a message by; empty where no mail server of ours was spoken to."""
    from outreach.channels import mime

    configured = settings.channels.get(channel or "")
    if channel != "email" or configured is None or configured.provider not in ("smtp", "outbox"):
        return ""
    try:
        domains = {mime.read_sender(sender).domain for sender in configured.senders}
    except ValueError:
        return ""
    return mime.message_id(public_id, domains.pop()) if len(domains) == 1 else ""
