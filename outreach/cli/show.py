"""How results are printed: short tables for people, JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

MOST = 1_000_000_000  # rows or messages that may be asked for at once
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

PIPE_WIDTH = 160  # columns when nobody's terminal says how wide it is
NONE = "–"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_json(value: object) -> None:
    """Print it as JSON: times as ISO 8601, dataclasses as objects."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def number(value: float | None) -> str:
    """A count with thousands separators."""
    return NONE if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    return NONE if value is None else f"{100 * value:.1f} %"


def when(at: datetime | None, zone: ZoneInfo) -> str:
    """A time on the business's clock, to the minute."""
    return NONE if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def cell(value: object) -> str:
    """The text of a table's cell; what could steer a terminal is replaced."""
    text = number(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, or that there is nothing; a column whose heading begins with `>` is aligned right."""
    if not rows:
        typer.echo(f"{title}: none yet.\n" if title else "None yet.\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        drawn.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        drawn.add_row(*(NONE if value is None else cell(value) for value in row))
    with console.capture() as printed:
        console.print(drawn)
    lines = [title] if title else []
    typer.echo("\n".join([*lines, *(text.rstrip() for text in printed.get().splitlines()), ""]))


def line(text: str) -> None:
    """Print one line of text."""
    typer.echo(text)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV (UTF-8); text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows([_safe(value) for value in row] for row in rows)


def _safe(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
