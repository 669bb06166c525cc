"""Verbs of somebody who writes campaigns: check, schema, facts."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outreach import campaigns, settings
from outreach.cli import here, show
from outreach.errors import DatabaseError, OutreachError, Problem, Problems, said_once
from outreach.settings import SETTINGS_FILE, Settings

if TYPE_CHECKING:
    from outreach.conditions import Fact
    from outreach.store import Database

app = typer.Typer(rich_markup_mode=None)

SCHEMA_FILE = Path("campaigns", ".campaign.schema.json")


@app.command()
def check(
    ctx: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name each place of warnings that are otherwise said once.")
    ] = False,
    as_json: show.Json = False,
) -> None:
    """Show every problem in settings, campaigns and templates."""
    problems = found_problems(ctx)
    wrong = sum(not problem.warning for problem in problems)
    if as_json:
        show.as_json({"problems": [_plain(problem) for problem in problems]})
    else:
        for problem in problems if verbose else said_once(problems):
            show.line(str(problem))
        if not problems:
            show.line("Everything is in order.")
    if wrong:
        raise typer.Exit(1)


def _plain(problem: Problem) -> dict[str, Any]:
    """Its fields; of what it shares with others, the text."""
    return {**dataclasses.asdict(problem), "cause": problem.cause.text if problem.cause else ""}


def found_problems(ctx: typer.Context) -> list[Problem]:
    """Every problem of the workspace; those of the settings alone where they cannot be read."""
    from outreach import releases

    try:
        place = here.here(ctx)
        files = releases.read_files(place.folder)
    except Problems as error:
        return list(error.problems)
    unread = releases.unread_files(place.folder)
    try:
        db = _known_database(place.settings)
    except DatabaseError as error:
        unreachable = Problem(SETTINGS_FILE, 0, 0, "database", str(error))
        return [unreachable, *unread, *releases.check(files, place.settings, None)]
    return [*unread, *releases.check(files, place.settings, db)]


def _known_database(given: Settings) -> Database | None:
    """The database, unless it is an SQLite file that nothing has made yet."""
    if given.database.startswith("sqlite:///") and not Path(given.database.removeprefix("sqlite:///")).exists():
        return None
    return here.database(given)


@app.command()
def schema(
    ctx: typer.Context,
    write: Annotated[bool, typer.Option("--write", help=f"Write it to {SCHEMA_FILE} instead.")] = False,
) -> None:
    """Print the JSON Schema of campaign files, for editors."""
    where = here.folder(ctx)
    known = settings.load(where, os.environ) if (where / SETTINGS_FILE).exists() else None
    if write:
        write_schema(where, known)
        show.line(f"{where / SCHEMA_FILE} is written.")
    else:
        show.as_json(campaigns.schema(known))


def write_schema(where: Path, known: Settings | None) -> None:
    """Write the JSON Schema to where the starter campaigns' `yaml-language-server` line looks for it."""
    if not (where / SCHEMA_FILE).parent.is_dir():
        raise OutreachError(f"{where} holds no campaigns/ folder: run `outreach init` first")
    text = json.dumps(campaigns.schema(known), ensure_ascii=False, indent=2)
    (where / SCHEMA_FILE).write_text(text + "\n", encoding="utf-8")


@app.command()
def facts(as_json: show.Json = False) -> None:
    """List what `where:` and templates may name."""
    from outreach import conditions, render

    parts: dict[str, Any] = {
        "facts": conditions.FACTS,
        "functions": conditions.FUNCTIONS,
        "variables": render.VARIABLES,
    }
    if as_json:
        show.as_json(parts)
        return
    facts_ = [(one.name, one.type, one.subject, _with_values(one)) for one in conditions.FACTS]
    show.table("Facts, for `where:`", ("Name", "Type", "Of", "Meaning"), facts_)
    functions = [(one.form, one.text) for one in conditions.FUNCTIONS]
    show.table("Functions, for `where:`", ("Written", "Meaning"), functions)
    variables = [
        (one.name, one.type, "yes" if one.optional else "", ", ".join(one.subjects), one.text)
        for one in render.VARIABLES
    ]
    show.table("Variables, for templates", ("Name", "Type", "May be missing", "Only in", "Meaning"), variables)
    show.table("Filters, for templates", ("Name", "Meaning"), list(render.FILTERS.items()))


def _with_values(fact: Fact) -> str:
    return f"{fact.text}: {', '.join(fact.values)}" if fact.values else fact.text
