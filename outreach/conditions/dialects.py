"""SQL that differs between databases: attributes in JSON, numbers in text, byte order, patterns."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class JsonText(FunctionElement[str]):
    """One attribute of a JSON column, as text."""

    name = "outreach_json_text"
    type = Text()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], key: str) -> None:
        paths = dict.fromkeys(f"$.{json.dumps(key, ensure_ascii=ascii_only)}" for ascii_only in (True, False))
        super().__init__(column, literal(key, Text()), *(literal(path, Text()) for path in paths))


@compiles(JsonText)
def _json_text(element: JsonText, compiler: Any, **options: Any) -> str:
    column, _key, *paths = (compiler.process(clause, **options) for clause in element.clauses)
    found = [f"json_extract({column}, {path})" for path in paths]
    return f"CAST({found[0] if len(found) == 1 else f'coalesce({found[0]}, {found[1]})'} AS TEXT)"


@compiles(JsonText, "postgresql")
def _json_text_postgresql(element: JsonText, compiler: Any, **options: Any) -> str:
    column, key = (compiler.process(clause, **options) for clause in list(element.clauses)[:2])
    return f"({column} ->> {key})"


class AsNumber(FunctionElement[float]):
    """A text as a number where it reads as one, else NULL; never an error."""

    name = "outreach_as_number"
    type = Float()
    inherit_cache = True


@compiles(AsNumber)
def _as_number(element: AsNumber, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return (
        f"CASE WHEN length({text}) <= 30 AND ({text} GLOB '[0-9]*' OR {text} GLOB '[-+][0-9]*')"
        f" AND substr({text}, 2) NOT GLOB '*[^0-9.]*' AND {text} NOT GLOB '*.*.*' AND {text} NOT GLOB '*.'"
        f" THEN CAST({text} AS NUMERIC) END"
    )


@compiles(AsNumber, "postgresql")
def _as_number_postgresql(element: AsNumber, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    pattern = r"^[-+]?[0-9]+(\.[0-9]+)?$"
    return f"CASE WHEN length({text}) <= 30 AND {text} ~ '{pattern}' THEN CAST({text} AS NUMERIC) END"


class ByteOrder(FunctionElement[str]):
    """A text that sorts by code point, whatever the database's own order."""

    name = "outreach_byte_order"
    type = Text()
    inherit_cache = True


@compiles(ByteOrder)
def _byte_order(element: ByteOrder, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(ByteOrder, "postgresql")
def _byte_order_postgresql(element: ByteOrder, compiler: Any, **options: Any) -> str:
    return f'({compiler.process(element.clauses, **options)}) COLLATE "C"'


class Matches(FunctionElement[bool]):
    """Whether a text fits a pattern (NULL without a text): GLOB on SQLite, a regular expression on PostgreSQL."""

    name = "outreach_matches"
    type = Boolean()
    inherit_cache = True

    def __init__(
        self, column: ColumnElement[Any], pattern: str, many: str, one: str, *, any_case: bool = False
    ) -> None:
        glob, regex = _glob_and_regex(pattern, many, one, any_case=any_case)
        super().__init__(column, literal(glob, Text()), literal(regex, Text()))


@compiles(Matches)
def _matches(element: Matches, compiler: Any, **options: Any) -> str:
    column, glob = (compiler.process(clause, **options) for clause in list(element.clauses)[:2])
    return f"({column} GLOB {glob})"


@compiles(Matches, "postgresql")
def _matches_postgresql(element: Matches, compiler: Any, **options: Any) -> str:
    column, _, regex = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} ~ {regex})"


def _glob_and_regex(pattern: str, many: str, one: str, *, any_case: bool) -> tuple[str, str]:
    glob: list[str] = []
    regex: list[str] = []
    for character in pattern:
        forms = {character, character.lower(), character.upper()} if any_case else {character}
        forms = {form for form in forms if len(form) == 1}
        if character == many:
            parts = "*", ".*"
        elif character == one:
            parts = "?", "."
        elif len(forms) > 1:
            parts = (f"[{''.join(sorted(forms))}]",) * 2
        else:
            special = character.isascii() and not character.isalnum()
            parts = f"[{character}]" if character in "*?[" else character, ("\\" if special else "") + character
        glob.append(parts[0])
        regex.append(parts[1])
    return "".join(glob), f"^{''.join(regex)}$"
