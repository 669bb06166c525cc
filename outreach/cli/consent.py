"""Verbs about one person: consent, customer."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from outreach.cli import here, show

if TYPE_CHECKING:
    from outreach.customers import Consents

app = typer.Typer(rich_markup_mode=None)
customer = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Show, export or erase what is held about one person."
)
app.add_typer(customer, name="customer")

Who = Annotated[
    str, typer.Argument(metavar="CUSTOMER", help="The shop's own id, or an address or number (with its +) they have.")
]


class Word(StrEnum):
    GRANT = "grant"
    REVOKE = "revoke"


@app.command()
def consent(
    ctx: typer.Context,
    who: Who,
    channel: Annotated[str | None, typer.Argument(help="To change it: the channel.")] = None,
    word: Annotated[Word | None, typer.Argument(help="To change it: what the person said.")] = None,
    words: Annotated[str, typer.Option("--words", help="Their own words, or where they said it; kept.")] = "",
    as_json: show.Json = False,
) -> None:
    """Show what a person allowed on each channel, or record that they changed it."""
    from outreach import customers

    channel = here.channel(channel)
    if (channel is None) != (word is None):
        raise typer.BadParameter("to change a consent, write the channel and grant or revoke")
    if words and word is None:
        raise typer.BadParameter("--words goes with grant or revoke")
    place = here.here(ctx)
    db = here.database(place.settings)
    if channel is None:
        found = customers.consents(db, place.settings, who)
    else:
        granted = word is Word.GRANT
        found = customers.change(db, place.settings, who, channel, place.now, granted=granted, words=words)
    if as_json:
        show.as_json(found.as_json())
        return
    _show_consents(found, place.zone)


def _show_consents(found: Consents, zone: ZoneInfo) -> None:
    rows = [
        (name, line.status, show.when(line.at, zone), line.source or line.by, line.words)
        if line is not None
        else (name, "unknown", None, None, None)
        for name, line in found.channels.items()
    ]
    show.table(f"Consent of {show.cell(found.customer)}", ("Channel", "Consent", "Since", "Source", "Words"), rows)
    entries = [(one.scope, one.channel or "all", show.when(one.at, zone), one.source) for one in found.entries]
    if entries:
        show.table("Not to be contacted", ("Scope", "Channel", "Since", "Source"), entries)


@customer.command("show")
def show_(ctx: typer.Context, who: Who, as_json: show.Json = False) -> None:
    """Show one person at a glance: addresses, orders, consents, and the latest that was said either way."""
    from outreach import customers

    place = here.here(ctx)
    found = customers.overview(here.database(place.settings), place.settings, who, place.now)
    if as_json:
        show.as_json(found)
        return
    name = " ".join(part for part in (found.get("first_name"), found.get("last_name")) if part)
    show.line(show.cell(f"{found['customer']}  {name}".rstrip()) + ("  (erased)" if found["erased"] else ""))
    for address in found["addresses"]:
        show.line(f"  {show.cell(address)}")
    last = show.when(_time(found["last_order_at"]), place.zone)
    show.line(f"  {show.number(found['orders_count'])} orders, the last on {last}\n")
    consent_rows = [(channel, one["status"], one["source"]) for channel, one in found["channels"].items()]
    show.table("Consent", ("Channel", "Consent", "Source"), consent_rows)
    if found["suppressed"]:
        show.line("Not to be contacted: see `outreach consent`.\n")
    _show_latest(found, place.zone)


def _show_latest(found: dict[str, Any], zone: ZoneInfo) -> None:
    messages = [
        (show.when(_time(one["sent_at"] or one["due_at"]), zone), f"{one['campaign']}/{one['step']}", one["channel"],
         one["status"], one["reason"])
        for one in found["messages"]
    ]  # fmt: skip
    show.table("Latest messages", ("Sent or due", "Step", "Channel", "Status", "Reason"), messages)
    replies = [(show.when(_time(one["at"]), zone), one["channel"], one["text"]) for one in found["replies"]]
    show.table("Latest replies", ("Received", "Channel", "Text"), replies)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@customer.command()
def export(
    ctx: typer.Context,
    who: Who,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write it there; else it is printed.")] = None,
    as_json: show.Json = False,
) -> None:
    """Give everything held about one person, as JSON."""
    import json

    from outreach import customers

    place = here.here(ctx)
    found = customers.export(here.database(place.settings), place.settings, who, place.now)
    if to is None:
        show.as_json(found)
        return
    to.touch(mode=0o600)  # for nobody else to read
    to.chmod(0o600)  # one that was there already, too
    to.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if as_json:
        show.as_json({"file": str(to)})
    else:
        show.line(f"{to} is written.")


@customer.command()
def erase(
    ctx: typer.Context,
    who: Who,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: show.Json = False,
) -> None:
    """Take out everything that tells who a person is, and never contact them again."""
    from outreach import customers

    place = here.here(ctx)
    db = here.database(place.settings)
    found = customers.consents(db, place.settings, who)
    if not here.agreed(f"Erase {show.cell(found.customer or 'this person')}? It cannot be undone.", yes=yes):
        raise typer.Exit(1)
    done = customers.erase(db, place.settings, who, place.now)
    if as_json:
        show.as_json(done)
        return
    show.line(
        f"Erased: {show.number(done.rows)} rows emptied, {show.number(done.cancelled)} planned messages cancelled."
    )
    if done.shared_with:
        show.line(f"An address of theirs is also of {', '.join(done.shared_with)}, and stays with them.")
    show.line("Backups, the outbox folder and the shop's own files still name them: see docs/how-to.")
