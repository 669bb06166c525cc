"""Verbs about the shop's records: import, audience."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from outreach import importer
from outreach.cli import here, show
from outreach.errors import ImportFileError, OutreachError
from outreach.models import Scope
from outreach.sources import Source, open_source
from outreach.sources.csv import CsvSource
from outreach.store import Database

app = typer.Typer(rich_markup_mode=None)

COUNTS = ("read", "created", "updated", "unchanged", "rejected")


class Format(StrEnum):
    AUTO = "auto"
    CANONICAL = "canonical"


FileOption = Annotated[Path | None, typer.Option(metavar="FILE", help="CSV, plain or .gz.")]
ListOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Who must not be contacted: one address or number a line.")
]


@app.command("import")
def import_(
    ctx: typer.Context,
    customers: FileOption = None,
    orders: FileOption = None,
    cases: FileOption = None,
    events: FileOption = None,
    suppressions: ListOption = None,
    scope: Annotated[Scope, typer.Option(help="What the --suppressions block.")] = Scope.MARKETING,
    layout: Annotated[
        Format, typer.Option("--format", help="The files' layout; there is one, so both words mean the same.")
    ] = Format.AUTO,
    as_json: show.Json = False,
) -> None:
    """
    Read customers, orders, cases, events and do-not-contact lists.

    Without a file given, those that `sources:` of the settings name; one that cannot be read keeps no other out.
    """
    place = here.here(ctx)
    named = {"customers": customers, "orders": orders, "cases": cases, "events": events, "suppressions": suppressions}
    files = {name: path for name, path in named.items() if path is not None}
    sources = [CsvSource(files, layout, scope)] if files else _configured(place)
    db = here.database(place.settings)
    results, wrong = [], []
    for source in sources:
        try:
            results.append(_import(db, place, source))
        except ImportFileError as error:
            wrong.append(str(error))
    if results:
        _show(db, place, results, as_json=as_json)
    if wrong:
        raise ImportFileError("\n".join(wrong))


def _show(db: Database, place: here.Here, results: list[dict[str, Any]], *, as_json: bool) -> None:
    """What the sources brought together, and whom that makes reachable."""
    counts = {name: _added([result[name] for result in results]) for name in TABLES_SHOWN}
    rejects = [result["rejects_file"] for result in results if result["rejects_file"]]
    if as_json:
        reach = importer.reach(db, place.settings)
        show.as_json({**counts, "rejects_file": rejects[-1] if rejects else None, "reach": reach})
    else:
        _print(counts, rejects)
        _print_reach(db, place)


TABLES_SHOWN = ("customers", "orders", "cases", "events", "suppressions")


def _configured(place: here.Here) -> list[Source]:
    sources = [open_source(source, place.folder) for source in place.settings.sources]
    if not sources:
        raise OutreachError(
            "no file to import: give --customers, --orders, --cases, --events or --suppressions,"
            " or name the files under `sources:` in outreach.yaml"
        )
    return sources


def _import(db: Database, place: here.Here, source: Source) -> dict[str, Any]:
    with _progress() as progress:
        counts = importer.import_source(db, place.settings, source, place.now, progress=progress)
    return counts.as_json()


def _added(counts: list[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(count[name] for count in counts) for name in COUNTS}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, int], None] | None]:
    """A bar per table on stderr while somebody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show_progress(table: str, rows: int, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bars.add_task(table)
            bars.update(tasks[table], description=f"{table}, {rows:,} rows", completed=done, total=max(total, 1))

        yield show_progress


def _print(counts: Mapping[str, Mapping[str, int]], rejects: list[str]) -> None:
    rows = [(name, *count.values()) for name, count in counts.items() if count["read"]]
    show.table("Imported", ("", *(f">{name.capitalize()}" for name in COUNTS)), rows)
    for file in rejects:
        show.line(f"What was refused, with line, column and reason: {file}\n")


def _print_reach(db: Database, place: here.Here) -> None:
    rows = [
        (row.channel, row.purpose, row.reachable, row.customers, row.why) for row in importer.reach(db, place.settings)
    ]
    show.table("Who can be reached", ("Channel", "For", ">Customers", ">Of", "Why not the others"), rows)


@app.command()
def audience(
    ctx: typer.Context,
    expression: Annotated[str, typer.Argument(metavar="EXPR", help='A condition, such as "orders_count >= 2".')],
    as_json: show.Json = False,
) -> None:
    """Count the customers a condition holds for, and show five."""
    from outreach.reports.audience import audience as report

    place = here.here(ctx)
    found = report(here.database(place.settings), place.settings, expression, place.now)
    if as_json:
        show.as_json(found.as_json())
        return
    show.line(f"{show.number(found.count)} of {show.number(found.total)} customers.\n")
    reach = [(one.channel, one.address, one.marketing, one.service) for one in found.reach]
    show.table("Of them, with", ("Channel", ">Address", ">Marketing allowed", ">Service allowed"), reach)
    examples = [
        (one.customer, one.country, one.orders_count, show.when(one.last_order_at, place.zone))
        for one in found.examples
    ]
    if examples:
        show.table("Such as", ("Customer", "Country", ">Orders", "Last order"), examples)
