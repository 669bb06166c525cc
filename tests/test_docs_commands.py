"""The reference of commands says of each option what `--help` says: its words, its bounds, its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from outreach.cli import VERBS, commands, reference


def every_command() -> Iterator[tuple[str, Any]]:
    root = commands()
    for name in VERBS:
        yield from below(name, root.loaded(name))


def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
    for name, one in (inner or {}).items():
        yield from below(f"{path} {name}", one)


def test_what_the_help_shows_of_an_option_stands_in_the_reference() -> None:
    page, looked = reference.commands_page(), 0
    for path, command in every_command():
        section = page.partition(f"\n### outreach {path}\n")[2].partition("\n##")[0]
        context = typer.Context(command, info_name=path)
        for param in command.params:
            record = param.get_help_record(context)
            if record is None or param.name in ("now", "workspace", "help"):
                continue
            head, text = record
            (row,) = [line for line in section.splitlines() if line.startswith("| `") and param_name(param, line)]
            for words in re.findall(r"<(?:list\[)?([a-z_]+(?:\|[a-z_]+)+)\]?>", head):
                assert all(f"`{word}`" in row for word in words.split("|")), (path, head)
                looked += 1
            for default in re.findall(r"\[default: ([^;\]]+)", text):
                assert f"`{default}`" in row, (path, text)
                looked += 1
            for least in re.findall(r"\[.*?\b(\d+)<=x|x>=(\d+)", text):
                assert f"{''.join(least)} " in row, (path, text)
                looked += 1
            assert ("required" in row.split("|")[-2]) == ("required]" in text), (path, text)
    assert looked > 30


def param_name(param: Any, line: str) -> bool:
    cell = line.split("` |", 1)[0].removeprefix("| `").replace("\\|", "|")
    return cell in (", ".join([*param.opts, *param.secondary_opts]), param.metavar, param.name.upper())
