"""Verbs for one message by hand: send, preview."""

from __future__ import annotations

import html
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outreach import manual, releases
from outreach.cli import here, show
from outreach.signals import Stop, stop_on_signals
from outreach.values import CHANNELS, PURPOSES

if TYPE_CHECKING:
    from decimal import Decimal

    from outreach.channels import Outgoing
    from outreach.manual import Became, Draft, Preview

app = typer.Typer(rich_markup_mode=None)

ChannelName = StrEnum("ChannelName", [(name.upper(), name) for name in CHANNELS])  # type: ignore[misc]
Purpose = StrEnum("Purpose", [(name.upper(), name) for name in PURPOSES])  # type: ignore[misc]
KINDS = ("sent", "deferred", "skipped", "failed", "expired", "unknown")
SAID = {
    "sent": "sent",
    "deferred": "waiting",
    "skipped": "not sent",
    "failed": "failed",
    "expired": "expired",
    "unknown": "nobody knows whether it left",
}

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


# --- send ----------------------------------------------------------------------------------------


@app.command()
def send(
    ctx: typer.Context,
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="A template of the release in force.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="CUSTOMER|ADDRESS", help="The shop's id, an e-mail address, or a +number; again for more."
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPR", help='All for whom it holds: "orders_count >= 2".')
    ] = None,
    channel: Annotated[
        list[ChannelName] | None,
        typer.Option("--channel", help="In the order they are tried; without it, whatsapp, sms, email, messenger."),
    ] = None,
    purpose: Annotated[Purpose, typer.Option("--purpose", help="Which rules apply.")] = Purpose("marketing"),  # noqa: B008
    yes: Yes = False,
    continues: Annotated[
        int | None, typer.Option("--continue", metavar="N", min=1, help="Complete send N: only who has no row yet.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    as_json: show.Json = False,
) -> None:
    """Send a template by hand, through the same rules and the same ledger."""
    if bool(to) == (where is not None):
        raise typer.BadParameter("say to whom: with --to, or with --where", param_hint="--to, --where")
    place = here.here(ctx)
    db = here.database(place.settings)
    with _progress() as progress:
        draft = manual.draft(
            db, place.settings, place.now, template,
            to=to or (), where=where, channels=[str(name) for name in channel or ()], purpose=str(purpose),
            continues=continues or 0, progress=progress,
        )  # fmt: skip
    if not as_json:
        _print_draft(draft, place)
    if dry_run:
        if as_json:
            show.as_json(_draft_as_json(draft))
        return
    here.may_send(place, db)
    if draft.messages > 1 and not here.agreed(_question(draft), yes=yes):
        raise typer.Exit(1)
    stop = Stop()
    with _progress() as progress, stop_on_signals(stop):
        became = manual.send(db, place.settings, draft, progress, stop.is_set)
    if as_json:
        show.as_json(_became_as_json(draft, became))
    else:
        _print_became(became, place)
        if stop.is_set():
            rest = f"; who has no row yet gets one by `--continue {became.id}`"
            show.line(f"Stopped as asked: what is written and waits is sent by the next dispatch{rest}.")


def _question(draft: Draft) -> str:
    later = min(draft.waiting, draft.messages)
    cost = f", for {_money(draft.cost, draft.loaded.settings.business.currency)}" if draft.cost is not None else ""
    return f"Send {show.number(draft.messages)} messages{cost}?" + (
        f" ({show.number(later)} of them wait first)" if later else ""
    )


def _money(cost: Decimal | None, currency: str) -> str:
    return show.NONE if cost is None else f"{cost:,} {currency}"


def _print_draft(draft: Draft, place: here.Here) -> None:
    if first := draft.first:
        show.line(f"The first message, as {show.cell(first.customer)} reads it: {_by(first.channel, first.sender)}\n")
        _print_text(first.subject, first.text, has_html=first.has_html)
    settings = draft.loaded.settings
    people = len(draft.intended)
    show.line(f"{show.number(people)} {'person' if people == 1 else 'people'}, {_messages(draft.messages)}.\n")
    costs = {name: manual.cost(settings, {name: amount}) for name, amount in draft.amounts.items()}
    rows: list[tuple[object, ...]] = [
        (name, amount.messages, amount.segments or None, _money(costs[name], settings.business.currency))
        for name, amount in draft.amounts.items()
    ]
    if len(rows) > 1:
        rows.append(("all", draft.messages, draft.segments or None, _money(draft.cost, settings.business.currency)))
    if rows:
        show.table("", ("Channel", ">Messages", ">SMS segments", ">Cost"), rows)
    if draft.not_now:
        rows = [
            (
                "later" if one.waits else "not at all",
                one.reason,
                one.people,
                show.when(one.until, place.zone),
                one.detail,
            )
            for one in sorted(draft.not_now.values(), key=lambda one: (not one.waits, -one.people))
        ]
        show.table("Not now", ("Gets it", "Why", ">People", "From", "Such as"), rows)
    if ("no_zone", True) in draft.not_now:
        show.line(
            "no_zone: nobody knows their time zone; with `unknown_zone: business` the business's stands in for it.\n"
        )


def _messages(count: int) -> str:
    return f"{show.number(count)} message{'s' * (count != 1)}"


def _by(channel: str, sender: str) -> str:
    return f"{channel}, from {show.cell(sender)}" if sender else channel


def _print_text(subject: str, text: str, *, has_html: bool) -> None:
    """The message, indented; what could steer a terminal is replaced."""
    if subject:
        show.line(f"  Subject: {show.cell(subject)}\n")
    for line in text.splitlines():
        show.line(f"  {show.cell(line)}".rstrip())
    show.line("\n  (It has an HTML part, too.)\n" if has_html else "")


def _print_became(became: Became, place: here.Here) -> None:
    rows = [
        (SAID[one.kind], one.reason, one.count, show.when(one.until, place.zone), one.detail)
        for kind in KINDS
        for one in became.ended
        if one.kind == kind
    ]
    show.table(f"Send {became.id}", ("Message", "Why", ">People", "From", "Such as"), rows)
    if became.paused is not None:
        show.line(f"Manual sends are paused: {became.paused}. `outreach resume manual` lets what waits go on.")
    elif became.count("deferred"):
        show.line("What waits is sent by the daemon, or by `outreach tick dispatch`, once its time has come.")


def _draft_as_json(draft: Draft) -> dict[str, Any]:
    """The same shape as of a send: what would happen."""
    waiting = draft.waiting
    skipped = sum(one.people for one in draft.not_now.values() if not one.waits)
    counts = dict.fromkeys(KINDS, 0)
    counts |= {"sent": len(draft.intended) - waiting - skipped, "deferred": waiting, "skipped": skipped}
    reasons = {reason: one.people for (reason, _), one in draft.not_now.items()}
    return _as_json(draft, None, counts, reasons)


def _became_as_json(draft: Draft, became: Became) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for one in became.ended:
        if one.reason:
            reasons[one.reason] = reasons.get(one.reason, 0) + one.count
    return _as_json(draft, became.id, {kind: became.count(kind) for kind in KINDS}, reasons)


def _as_json(draft: Draft, number: int | None, counts: dict[str, int], reasons: dict[str, int]) -> dict[str, Any]:
    first = draft.first
    shown = {"channel": first.channel, "subject": first.subject, "text": first.text} if first else None
    return {
        "send": number,
        "people": len(draft.intended),
        "messages": counts,
        "by_reason": dict(sorted(reasons.items())),
        "segments": draft.segments,
        "cost": None if draft.cost is None else str(draft.cost),
        "currency": draft.loaded.settings.business.currency,
        "preview": shown,
    }


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr while somebody is watching, and where there is anything to watch."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show_progress(what: str, done: int, total: int) -> None:
            if what not in tasks and done < total:
                tasks[what] = bars.add_task(what)
            if what in tasks:
                bars.update(tasks[what], completed=done, total=total)

        yield show_progress


# --- preview -------------------------------------------------------------------------------------


@app.command()
def preview(
    ctx: typer.Context,
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A file in campaigns/, without .yaml.")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="The id of one of its steps.")],
    customer: Annotated[
        str, typer.Option("--customer", metavar="CUSTOMER|ADDRESS", help="For whom: the shop's id, or an address.")
    ],
    channel: Annotated[ChannelName | None, typer.Option("--channel", help="One of the step's channels.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="One of the step's variants.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    send_to: Annotated[
        str | None, typer.Option("--send-to", metavar="ADDRESS", help="Send one marked test copy to this address.")
    ] = None,
    yes: Yes = False,
    as_json: show.Json = False,
) -> None:
    """Show a step of the working files as one customer would get it."""
    place = here.here(ctx)
    db = here.database(place.settings)
    made = manual.preview(
        db, place.settings, releases.read_files(place.folder), place.now, campaign, step, customer,
        channel=str(channel) if channel else None, variant=variant,
    )  # fmt: skip
    if not as_json:
        _print_preview(made, place)
    if open_:
        _open(made.outgoing, quiet=as_json)
    sent = None
    if send_to is not None:
        if not here.agreed(f"Send one test copy by {made.outgoing.channel}?", yes=yes):
            raise typer.Exit(1)
        sent = manual.send_test(db, place.settings, made, send_to, place.now)
    if as_json:
        show.as_json(_preview_as_json(made, place) | ({"sent": sent} if sent is not None else {}))
    elif sent is not None:
        show.line("One test copy was handed over, and nothing was written down of it: its links lead nowhere.")


def _print_preview(made: Preview, place: here.Here) -> None:
    content, outgoing = made.outgoing.content, made.outgoing
    about = f" about {show.cell(made.record)}" if made.record else ""
    variant = f", variant {made.variant}" if made.variant else ""
    show.line(f"{made.campaign}/{made.step}{variant}, to {show.cell(made.customer)}{about}: not published, not sent.")
    for note in made.notes:
        show.line(f"- {note}")
    show.line(f"\n{_by(outgoing.channel, outgoing.sender)}\n")
    _print_text(content.subject, content.text, has_html=content.has_html)
    if content.content_sid:
        show.line(f"Approved template {content.content_sid}, with")
        for name, value in content.variables:
            show.line(f"  {show.cell(name)}: {show.cell(value)}")
        show.line("")
    parts = (
        f"{content.segments} segment{'s' * (content.segments != 1)} of {content.encoding}" if content.segments else ""
    )
    cost = _money(made.cost, place.settings.business.currency) if made.cost is not None else ""
    if parts or cost:
        show.line(", ".join(text for text in (parts, cost) if text) + "\n")
    if made.coupon is not None:
        until = f", good until {show.when(made.coupon.expires_at, place.zone)}" if made.coupon.expires_at else ""
        show.line(f"Coupon {show.cell(made.coupon.code)} of {made.coupon.offer.name}{until}: not given out by this.\n")
    if not made.gates:
        show.line("Every gate would let it leave now.")
    for gate in made.gates:
        what = f"would wait until {show.when(gate.until, place.zone)}" if gate.until else "would end it"
        show.line(f"{gate.gate}: {what} ({gate.reason}{f': {show.cell(gate.detail)}' if gate.detail else ''})")


def _preview_as_json(made: Preview, place: here.Here) -> dict[str, Any]:
    content = made.outgoing.content
    return {
        "campaign": made.campaign,
        "step": made.step,
        "customer": made.customer,
        "variant": made.variant or None,
        "purpose": made.purpose,
        "record": made.record or None,
        "sample": made.is_sample,
        "notes": list(made.notes),
        "channel": made.outgoing.channel,
        "from": made.outgoing.sender,
        "subject": content.subject,
        "preheader": content.preheader,
        "text": content.text,
        "html": content.html,
        "segments": content.segments,
        "encoding": content.encoding,
        "content_sid": content.content_sid,
        "variables": dict(content.variables),
        "coupon": None
        if made.coupon is None
        else {
            "offer": made.coupon.offer.name,
            "code": made.coupon.code,
            "expires_at": made.coupon.expires_at,
            "kept": made.coupon.is_kept,
        },
        "cost": None if made.cost is None else str(made.cost),
        "currency": place.settings.business.currency,
        "gates": list(made.gates),
    }


def _open(outgoing: Outgoing, *, quiet: bool) -> None:
    """Write the HTML part, or the text as a page, where only this person can read it, and open it."""
    content = outgoing.content
    page = content.html or (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(outgoing.channel)}</title>'
        f'<pre style="white-space: pre-wrap; max-width: 32em">{html.escape(content.text)}</pre>'
    )
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="outreach-", suffix=".html", delete=False) as file:
        file.write(page)
    opened = webbrowser.open(f"file://{file.name}")
    if not quiet or not opened:
        typer.echo(f"{'Opened' if opened else 'No browser could be opened for'} {file.name}", err=quiet)
