"""Verbs about the database: upgrade, backup, restore, opt-outs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outreach.cli import here, show
from outreach.cli.here import Here
from outreach.errors import OutreachError

if TYPE_CHECKING:
    from outreach.backup import Aftermath, Heard, Made, Outlook, Restored

app = typer.Typer(rich_markup_mode=None)
db = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look after the database.")
app.add_typer(db, name="db")


@db.command()
def upgrade(ctx: typer.Context, as_json: show.Json = False) -> None:
    """Bring the database to this version's tables."""
    from outreach import store

    settings = here.here(ctx).settings
    store.open_database(settings.database, secret=settings.secret, timezone=settings.business.timezone, upgrade=True)
    if as_json:
        show.as_json({"version": store.HEAD})
    else:
        show.line(f"The database is at version {store.HEAD}.")


# --- backup ----------------------------------------------------------------------------------------


@db.command()
def backup(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TO]", help="A file, or a folder for dated files; `backups` in the workspace if not given."
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Then delete the older dated backups there, all but so many.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    as_json: show.Json = False,
) -> None:
    """
    Copy the database into one file, as it is at this moment, while everything runs.

    The file is SQLite, of a PostgreSQL database, too, and can be restored into either. It is checked
    before it gets its name. It holds personal data: only its owner may read it.
    """
    from outreach import backup as backups

    place = here.here(ctx)
    with _progress() as progress:
        made = backups.back_up(place.settings, place.now, to, keep=keep, force=force, progress=progress)
    if as_json:
        show.as_json(_plain_backup(made))
        return
    counts = ", ".join(f"{show.number(made.rows.get(name, 0))} {name}" for name in ("customers", "orders", "messages"))
    show.line(f"{made.file}: {counts}; {_size(made.size)}.")
    for path in made.deleted:
        show.line(f"Deleted: {path}")
    show.line(
        "Who has this file can make valid ids and links: it holds the installation's secret."
        if made.has_secret
        else "Keep OUTREACH_SECRET as well, elsewhere: nobody can restore this file without it."
    )
    show.line("Not in it: outreach.yaml, campaigns/ and message_templates/ (what was published is), and outbox/.")


def _plain_backup(made: Made) -> dict[str, Any]:
    return {
        "file": str(made.file),
        "made_at": made.made_at,
        "database": made.database,
        "bytes": made.size,
        "rows": made.rows,
        "deleted": [str(path) for path in made.deleted],
        "has_secret": made.has_secret,
    }


def _size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1_000_000:,.1f} MB" if count >= 100_000 else f"{count / 1_000:,.1f} kB"


# --- restore ---------------------------------------------------------------------------------------


@db.command()
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `outreach db backup` made.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a database is replaced.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Although `outreach run` seems to be running, or the clock to be behind.")
    ] = False,
    as_json: show.Json = False,
) -> None:
    """
    Replace the database by a backup, all at once or not at all, and pause every campaign.

    What was due by now may have left since the backup: it becomes `unknown`, is asked after, and is
    never sent again by itself. Coupon codes that nobody had become void. Who opted out since is read
    again from the providers that list it.
    """
    from outreach import backup as backups

    place = here.here(ctx)
    outlook = backups.look(place.settings, file, place.now, force=force)
    if not as_json:
        _show_outlook(outlook, place)
    if not here.agreed(_question(outlook), yes=yes or _is_new(outlook)):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
    with _progress() as progress:
        done = backups.restore(place.settings, file, place.now, force=force, progress=progress)
    heard = _read_opt_outs(place, None)
    if as_json:
        show.as_json({**_plain_restore(done), "opt_outs": heard})
    else:
        _show_restored(done, heard, place)
    _leave_unless_complete(heard)


def _is_new(outlook: Outlook) -> bool:
    return not outlook.damaged and (outlook.present is None or not outlook.present.anything)


def _question(outlook: Outlook) -> str:
    if outlook.damaged:
        return "The database cannot be read. Rename it, and put this backup in its place?"
    return "Replace all of the database by this backup?"


def _show_outlook(outlook: Outlook, place: Here) -> None:
    inside, present = outlook.inside, outlook.present
    rows: list[tuple[object, ...]] = [
        (
            "Last at work",
            show.when(inside.newest, place.zone),
            show.when(present.newest if present else None, place.zone),
        ),
        *(
            (name.capitalize(), show.number(getattr(inside, name)), show.number(getattr(present, name, None)))
            for name in ("customers", "orders", "messages")
        ),
    ]
    when = show.when(outlook.backup.made_at, place.zone)
    show.table(f"Backup of {when} ({outlook.backup.database})", ("", ">In the backup", ">In the database"), rows)


def _plain_restore(done: Restored) -> dict[str, Any]:
    return {
        "file": str(done.backup.path),
        "backup_at": done.backup.made_at,
        "restored_at": done.restored_at,
        "database": done.database,
        "replaced": str(done.kept) if done.kept else None,
        "paused": done.after.paused,
        "doubtful": done.after.doubtful,
        "void_codes": done.after.void_codes,
        "opt_outs_kept": done.after.opt_outs,
    }


def _show_restored(done: Restored, heard: Sequence[Heard], place: Here) -> None:
    after, doubtful = done.after, sum(done.after.doubtful.values())
    show.line(f"Restored the backup of {show.when(done.backup.made_at, place.zone)}.")
    if done.kept:
        show.line(f"What was there is kept: {done.kept}")
    if after.opt_outs:
        show.line(
            "Addresses of which only the replaced database knew an opt-out, a revoked consent or a bounce, kept here:"
            f" {show.number(after.opt_outs)}"
        )
    show.line("")
    if doubtful:
        show.table(
            "In doubt: they may have left since the backup", ("Campaign", ">Messages"), list(after.doubtful.items())
        )
    if after.void_codes:
        title = "Void codes: they may have been given out since the backup, so nobody else gets them"
        show.table(title, ("Offer", ">Codes"), list(after.void_codes.items()))
    if after.paused:
        show.table("Paused", ("Campaign",), [(name,) for name in after.paused])
    _show_heard(heard)
    steps = [
        ("outreach import", "reads again what the shop knows by now"),
        ("outreach tick reconcile", "asks the providers about what is in doubt"),
        ("outreach messages --status unknown", "shows what nobody could settle: `outreach resolve` is for a person"),
        *_new_codes(after),
        ("outreach resume CAMPAIGN", "lets a campaign go on; nothing is sent before that"),
    ]
    show.table("Next", ("", ""), steps)
    show.line("outreach.yaml, campaigns/, message_templates/ and outbox/ are as they were: no backup holds them.")


def _new_codes(after: Aftermath) -> list[tuple[str, str]]:
    """What to do about codes that are void."""
    makes = "makes new codes, or reads new ones from the shop's cart, in place of the void ones"
    return [("outreach coupons make OFFER", makes)] if after.void_codes else []


# --- opt-outs --------------------------------------------------------------------------------------


@db.command("opt-outs")
def opt_outs(
    ctx: typer.Context,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="ISO 8601; if not given, a day before the backup that was restored."
        ),
    ] = None,
    as_json: show.Json = False,
) -> None:
    """
    Read again from the providers who opted out, complained or bounced, as after a restore.

    As often as you like: what is known stays as it is.
    """
    place = here.here(ctx)
    heard = _read_opt_outs(place, _time(since, place) if since else None)
    if as_json:
        show.as_json(heard)
    else:
        _show_heard(heard)
    _leave_unless_complete(heard)


def _time(text: str, place: Here) -> datetime:
    try:
        return here.at(datetime.fromisoformat(text), place.settings.business.timezone)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time: write 2026-06-15 or 2026-06-15T09:30") from None


def _read_opt_outs(place: Here, since: datetime | None) -> list[Heard]:
    from outreach import backup as backups

    database = here.database(place.settings)
    since = since or backups.read_since(database)
    if since is None:
        raise OutreachError("this database was never restored: say from when on to read, with --since 2026-06-01")
    return backups.read_again(database, place.settings, since, place.now)


def _show_heard(heard: Sequence[Heard]) -> None:
    rows = [(one.channel, one.provider, one.listed, one.new, one.unreadable or None) for one in heard]
    heads = ("Channel", "Provider", ">Listed", ">New here", ">Unreadable")
    show.table("Opt-outs, complaints and bounces that the providers list", heads, rows)


def _leave_unless_complete(heard: Sequence[Heard]) -> None:
    """One line for each list that could not be read to its end, and exit code 1."""
    wrong = [one for one in heard if one.error]
    for one in wrong:
        again = "mend that, then run `outreach db opt-outs` before a campaign goes on"
        typer.echo(f"{one.channel}: opt-outs could not all be read again: {one.error}; {again}", err=True)
    if wrong:
        raise typer.Exit(1)


# --- progress --------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar for each thing that is done, on stderr, while somebody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show_progress(what: str, done: int, total: int) -> None:
            kind = what.split()[0]
            if kind not in tasks:
                tasks[kind] = bars.add_task(kind)
            bars.update(tasks[kind], description=what, completed=done, total=max(total, 1))

        yield show_progress
