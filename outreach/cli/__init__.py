"""
The command line: one Typer app, one module per group of verbs.

VERBS lists every verb; a verb's module is imported when the verb is used, so that
`outreach --help` costs no more than Typer itself. `--now` and `--workspace` are given to every verb
here, so that they stand before or after it; WRITING names the verbs that ask before a `--now` to come.

Exit codes: 0 done; 1 something to fix, said on stderr in one line per problem; 2 wrong usage.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from outreach import __version__, collect_less_often
from outreach.errors import OutreachError

NOW = "outreach.now"
YEARS = range(1970, 3000)  # of `--now`: look-backs and waits reach no further than times can be written
WORKSPACE = "outreach.workspace"
YES = "outreach.yes"


@dataclass(frozen=True)
class Verb:
    """Where a verb is written, the heading it is listed under, and the first line of its help."""

    module: str
    panel: str
    help: str


VERBS = {
    "init": Verb("workspace", "Begin", "Write a new workspace: settings, campaigns, message templates."),
    "demo": Verb("workspace", "Begin", "Play the whole story on sample data in a fresh folder."),
    "import": Verb("records", "Begin", "Read customers, orders, cases, events and do-not-contact lists."),
    "check": Verb("writing", "Write campaigns", "Show every problem in settings, campaigns and templates."),
    "schema": Verb("writing", "Write campaigns", "Print the JSON Schema of campaign files, for editors."),
    "facts": Verb("writing", "Write campaigns", "List what `where:` and templates may name."),
    "audience": Verb("records", "Write campaigns", "Count the customers a condition holds for, and show five."),
    "preview": Verb("sending", "Write campaigns", "Show a step of the working files as one customer would get it."),
    "diff": Verb("publishing", "Publish", "Show what publishing now would change."),
    "publish": Verb("publishing", "Publish", "Check everything, show what changes, and publish it."),
    "releases": Verb("publishing", "Publish", "List what was published, newest first."),
    "rollback": Verb("publishing", "Publish", "Publish the content of an earlier release again."),
    "cancel": Verb("publishing", "Publish", "End the planned messages of a campaign, or of one step."),
    "pause": Verb("publishing", "Publish", "Hold a campaign, or all of them, until resumed."),
    "resume": Verb("publishing", "Publish", "Let a paused campaign, or all of them, go on."),
    "tick": Verb("running", "Run", "Run one stage once, by hand."),
    "send": Verb("sending", "Run", "Send a template by hand, through the same rules and the same ledger."),
    "run": Verb("running", "Run", "Run every stage on its clock until stopped, and the web app beside them."),
    "web": Verb(
        "web", "Run", "Serve the web app alone, until stopped: webhooks, the shop's events and the pages of links."
    ),
    "db": Verb("database", "Run", "Look after the database."),
    "fake-providers": Verb("fakes", "Run", "Stand in for SMTP, Twilio and SendGrid on this machine, until stopped."),
    "tasks": Verb("tasks", "Run", "Calls and visits that a person makes."),
    "resolve": Verb("resolving", "Run", "Say what became of messages in doubt, or have them sent again."),
    "replies": Verb("replies", "People", "What people wrote to us."),
    "cases": Verb("cases", "People", "Complaints, cancellations, returns, refunds and questions."),
    "coupons": Verb("coupons", "People", "Codes of offers: whose each is, and what was redeemed."),
    "join": Verb("join", "People", "Show where people agree to receive offers and news, and draw its QR code."),
    "consent": Verb("consent", "People", "Show what a person allowed on each channel, or record that they changed it."),
    "customer": Verb("consent", "People", "Show, export or erase what is held about one person."),
    "status": Verb("status", "Look", "Show the queue, the last ticks and what is paused."),
    "doctor": Verb("doctor", "Look", "Look whether providers, database and settings are ready to send."),
    "messages": Verb("messages", "Look", "List messages as they fall due, with the reason of each non-send."),
    "report": Verb("report", "Look", "Report retention, cohorts, repurchase, campaigns and coupons."),
}

# Verbs that write down the time they act at, and so ask first when `--now` is still to come (`here.here`).
WRITING = frozenset(
    {
        "import", "publish", "rollback", "cancel", "pause", "resume", "send", "resolve", "consent", "customer erase",
        "tick plan", "tick dispatch", "tick receive", "tick reconcile", "tick mail", "tasks next", "tasks done",
        "replies answer", "cases open", "cases assign", "cases note", "cases answer", "cases close", "cases reopen",
        "coupons make", "coupons activate", "coupons redeem", "coupons void",
    }
)  # fmt: skip


def _keep_now(ctx: typer.Context, value: str | None) -> None:
    if value is None:
        return
    try:
        now = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a time: write 2026-06-15 or 2026-06-15T09:30") from None
    if now.year not in YEARS:
        raise typer.BadParameter(f"{value!r} is not a time to work at: write one from {YEARS[0]} to {YEARS[-1]}")
    ctx.meta[NOW] = now


def _keep_workspace(ctx: typer.Context, value: Path | None) -> None:
    if value is not None:
        ctx.meta[WORKSPACE] = value


def _keep_yes(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.meta[YES] = True


def _say_version(value: bool) -> None:
    if value:
        typer.echo(f"outreach {__version__}")
        raise typer.Exit


NowOption = Annotated[
    str | None,
    typer.Option(
        "--now",
        metavar="TIME",
        callback=_keep_now,
        expose_value=False,
        help="Act as if it were this time (ISO 8601; without an offset: the business's time zone).",
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        callback=_keep_workspace,
        expose_value=False,
        help="The folder that holds outreach.yaml; the current one if not given.",
    ),
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        callback=_keep_yes,
        expose_value=False,
        hidden=True,  # shown by the verbs that have something to ask
        help="Do not ask, though --now is still to come.",
    ),
]


def _module_group(verb: str) -> TyperGroup:
    return get_group(importlib.import_module(f"outreach.cli.{VERBS[verb].module}").app)


class VerbsOnDemand(TyperGroup):
    """Lists the verbs from VERBS and imports a verb's module only when it is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=verb.help) for name, verb in VERBS.items()}

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """List the verbs under their headings."""
        for panel in dict.fromkeys(verb.panel for verb in VERBS.values()):
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(10), verb.help) for name, verb in VERBS.items() if verb.panel == panel])

    def loaded(self, name: str) -> TyperCommand | TyperGroup:
        """The verb itself, with the options that every verb has."""
        command = _module_group(name).commands[name]
        _share_options(command, name, {option.name: option for option in self.params})
        return command  # type: ignore[return-value]

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.loaded(name) if name in VERBS else command, rest


def _share_options(command: Any, path: str, options: Mapping[str | None, Any]) -> None:
    """Give the command what every verb has, and `--yes` where a `--now` to come has to be asked about."""
    shared = [options["now"], options["workspace"]]
    if path in WRITING and all(param.name != "yes" for param in command.params):
        shared.append(copy(options["yes"]))
        shared[-1].hidden = False
    command.params = [*command.params, *shared]
    for name, inner in getattr(command, "commands", {}).items():
        _share_options(inner, f"{path} {name}", options)


app = typer.Typer(
    cls=VerbsOnDemand, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True, rich_markup_mode=None
)


@app.callback()
def root(
    now: NowOption = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Follow-ups, offers and win-backs for shops: sent once, and measured."""


def commands() -> VerbsOnDemand:
    """The root command, for the shell and for the reference pages."""
    command = get_command(app)
    assert isinstance(command, VerbsOnDemand)  # noqa: S101  the app's own class
    return command


def main() -> None:
    """Run the command line and leave with 0, 1 or 2; a user's mistake never shows a traceback."""
    collect_less_often()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that lacks a letter
    try:
        try:
            commands().main(prog_name="outreach")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say nothing
        sys.exit(1)
    except OutreachError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _give_up(text: str) -> NoReturn:
    typer.echo(text, err=True)
    sys.exit(1)
