"""
Tables of keys: what a YAML file may hold, in one place.

One table reads a file (`read`), is its JSON Schema (`schema`) and its reference page (`rows`), so the
three cannot disagree. Reading never raises: it notes every problem at its place and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from outreach.errors import Problem
from outreach.values import (
    parse_duration,
    parse_limit,
    parse_share,
    parse_time_of_day,
    parse_week_window,
    parse_weekdays,
)
from outreach.yamlfile import Node, did_you_mean, listed, problem, shown


@dataclass(frozen=True)
class Scalar:
    """One word, number or text; `parse` raises ValueError that says what is allowed."""

    what: str
    parse: Callable[[str], Any] = str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    names: str = ""  # names known only with the settings, for editors: offers, surveys, events, channels


@dataclass(frozen=True)
class ListOf:
    of: Kind
    lone: bool = False  # one value may stand without brackets
    least: int = 0
    most: int | None = None

    @property
    def what(self) -> str:
        return f"{self.of.what}, or a list of such" if self.lone else f"a list: {self.of.what}"


@dataclass(frozen=True)
class MapOf:
    key: Scalar
    value: Kind

    @property
    def what(self) -> str:
        return f"{{{self.key.what}: {self.value.what}}}"


@dataclass(frozen=True)
class Record:
    """A mapping with these keys and no others."""

    keys: tuple[Key, ...]
    form: str  # what it looks like, for error texts

    @property
    def what(self) -> str:
        return self.form


@dataclass(frozen=True)
class Either:
    """A scalar, or something with a structure."""

    scalar: Scalar
    other: Record | MapOf | ListOf

    @property
    def what(self) -> str:
        return f"{self.scalar.what}, or {self.other.what}"


Kind = Scalar | ListOf | MapOf | Record | Either


@dataclass(frozen=True)
class Key:
    name: str
    kind: Kind
    text: str  # one sentence for the reference page and for editors
    default: str = ""
    required: bool = False


class Row(NamedTuple):
    """One line of a reference page."""

    path: str
    what: str
    default: str
    text: str


SECRETS = {
    "secret": "OUTREACH_SECRET",
    "secret_key": "OUTREACH_SECRET",
    "password": "SMTP_PASSWORD",
    "passwd": "SMTP_PASSWORD",
    "smtp_password": "SMTP_PASSWORD",
    "imap_password": "IMAP_PASSWORD",
    "api_key": "SENDGRID_API_KEY",
    "apikey": "SENDGRID_API_KEY",
    "sendgrid_api_key": "SENDGRID_API_KEY",
    "account_sid": "TWILIO_ACCOUNT_SID",
    "twilio_account_sid": "TWILIO_ACCOUNT_SID",
    "auth_token": "TWILIO_AUTH_TOKEN",
    "twilio_auth_token": "TWILIO_AUTH_TOKEN",
    "token": "TWILIO_AUTH_TOKEN",
    "outreach_secret": "OUTREACH_SECRET",
    "sendgrid_webhook_key": "SENDGRID_WEBHOOK_KEY",
    "webhook_key": "SENDGRID_WEBHOOK_KEY",
    "sendgrid_inbound_key": "SENDGRID_INBOUND_KEY",
    "inbound_key": "SENDGRID_INBOUND_KEY",
    "sendgrid_inbound_token": "SENDGRID_INBOUND_TOKEN",
    "inbound_token": "SENDGRID_INBOUND_TOKEN",
    "outreach_events_key": "OUTREACH_EVENTS_KEY",
    "events_key": "OUTREACH_EVENTS_KEY",
}
# Words that mean another secret in one mapping than elsewhere.
SECRETS_IN = {"mailbox": dict.fromkeys(("password", "passwd", "secret"), "IMAP_PASSWORD")}

QUIET_HOURS = (
    "there are no quiet hours: `sending_hours` of outreach.yaml says when sending is allowed",
    'write sending_hours: {default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}}',
)


def read(kind: Kind, node: Node, name: str, problems: list[Problem]) -> Any:
    """The value of the node as its kind says; None where something was wrong, which is then in `problems`."""
    match kind:
        case Scalar():
            return _read_scalar(kind, node, name, problems)
        case ListOf():
            return _read_list(kind, node, name, problems)
        case MapOf():
            return _read_map(kind, node, name, problems)
        case Record():
            return read_record(kind, node, name, problems)
        case Either():
            structured = node.items is not None or node.entries is not None
            return read(kind.other if structured else kind.scalar, node, name, problems)


def _read_scalar(kind: Scalar, node: Node, name: str, problems: list[Problem]) -> Any:
    if node.is_null:
        problems.append(problem(node, "no-value", f"`{name}` has no value", f"it takes {kind.what}"))
    elif node.text is None:
        found = "a list" if node.items is not None else "a mapping"
        problems.append(problem(node, "wrong-shape", f"`{name}` takes {kind.what}, not {found}"))
    else:
        try:
            return kind.parse(node.text)
        except _UnknownError as error:
            problems.append(problem(node, "wrong-value", f"`{name}`: {error}", error.hint))
        except ValueError as error:
            problems.append(problem(node, "wrong-value", f"`{name}`: {error}"))
    return None


def _read_list(kind: ListOf, node: Node, name: str, problems: list[Problem]) -> tuple[Any, ...]:
    items = node.items
    if node.is_null:
        problems.append(problem(node, "no-value", f"`{name}` has no value", f"it takes {kind.what}"))
        return ()
    if items is None:
        if not kind.lone:
            problems.append(problem(node, "wrong-shape", f"`{name}` takes {kind.what}"))
            return ()
        items = (node,)
    items = items or ()
    if len(items) < kind.least:
        problems.append(problem(node, "empty-list", f"`{name}` is empty", f"it takes {kind.what}"))
    if kind.most is not None and len(items) > kind.most:
        problems.append(problem(node, "too-many", f"`{name}` has {len(items)} entries; {kind.most} are allowed"))
        return ()
    return tuple(read(kind.of, item, name, problems) for item in items)


def _read_map(kind: MapOf, node: Node, name: str, problems: list[Problem]) -> dict[Any, Any]:
    if node.is_null:
        return {}
    if node.entries is None:
        problems.append(problem(node, "wrong-shape", f"`{name}` takes a mapping: {kind.what}"))
        return {}
    result: dict[Any, Any] = {}
    for key, value in node.entries.items():
        if mistaken := _mistaken(key, name):
            problems.append(problem(node.keys[key], *mistaken))
            continue
        parsed = _read_scalar(kind.key, node.keys[key], name, problems)
        if parsed is not None:
            result[parsed] = read(kind.value, value, f"{name}.{shown(key)}", problems)
    return result


def read_record(kind: Record, node: Node, name: str, problems: list[Problem]) -> dict[str, Any]:
    """The values of the keys that are there and right; everything else is in `problems`."""
    if node.entries is None and not node.is_null:
        problems.append(problem(node, "wrong-shape", f"`{name}` takes {kind.form}"))
        return {}
    entries = node.entries or {}
    known = {key.name: key for key in kind.keys}
    problems += [_unknown_key(node, word, known, name) for word in entries if word not in known]
    for key in kind.keys:
        if key.required and key.name not in entries:
            text = f"`{key.name}` is missing" + (f" in `{name}`" if name else "")
            problems.append(problem(node, "missing-key", text, f"it takes {key.kind.what}"))
    values = {
        word: read(known[word].kind, value, f"{name}.{word}" if name else word, problems)
        for word, value in entries.items()
        if word in known
    }
    return {word: value for word, value in values.items() if value is not None}


def _unknown_key(node: Node, word: str, known: Mapping[str, Key], name: str) -> Problem:
    """The problem of a key that its mapping does not take, with the nearest one that it does."""
    if mistaken := _mistaken(word, name):
        return problem(node.keys[word], *mistaken)
    where = f" in `{name}`" if name else ""
    text = f"unknown key `{shown(word)}`{where}: allowed are {listed(known)}"
    owner = next((key.name for key in known.values() if _has_key(key.kind, word)), None)
    hint = f"`{word}` stands under `{owner}`" if owner else did_you_mean(word, known)
    return problem(node.keys[word], "unknown-key", text, hint)


def _has_key(kind: Kind, word: str) -> bool:
    inner = kind.of if isinstance(kind, ListOf) else kind
    return isinstance(inner, Record) and any(key.name == word for key in inner.keys)


def _mistaken(word: str, place: str) -> tuple[str, str, str] | None:
    """Why a word is wrong, in this mapping and wherever else it stands, as id, text and hint: quiet hours, and secrets."""
    small = re.sub(r"[\s-]", "_", word.strip().lower())
    if small.replace("_", "") in ("quiethours", "quiethour"):
        return "quiet-hours", *QUIET_HOURS
    if variable := SECRETS_IN.get(place, {}).get(small) or SECRETS.get(small):
        text = f"`{shown(word)}` is a secret, and secrets never stand in a file"
        return "secret", text, f"set the environment variable {variable}, or {variable}_FILE to a file that holds it"
    return None


# --- kinds of values -------------------------------------------------------------------------------------------------


class _UnknownError(ValueError):
    """A word that is not in the list of those allowed."""

    def __init__(self, word: str, allowed: Sequence[str]) -> None:
        self.hint = did_you_mean(word, tuple(allowed))
        super().__init__(f"`{shown(word)}` is unknown: allowed are {listed(tuple(allowed))}")


def choice(*words: str, what: str = "", names: str = "") -> Scalar:
    """One of these words, upper and lower case alike."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise _UnknownError(text.strip(), words)
        return word

    return Scalar(what or _or(words), parse, {"enum": list(words)}, names)


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # control characters and line breaks of every script


def text(what: str = "a text", most: int = 500, *, lines: bool = False, **schema: Any) -> Scalar:
    """
    Any text, not empty, at most so many characters; on one line, unless it may have `lines`.

    What stands in a header of a message can so begin no other one.
    """

    def parse(value: str) -> str:
        if not value.strip():
            raise ValueError(f"it is empty; it takes {what}")
        if not lines and (found := _BREAK.search(value.strip())):
            raise ValueError(f"it has {_named(found[0])} in it; it takes {what}, on one line")
        if len(value) > most:
            raise ValueError(f"it has {len(value):,} characters; at most {most:,} are allowed")
        return value.strip()

    return Scalar(what, parse, {"type": ["string", "number"], **schema} if not schema.get("type") else schema)


def _named(broken: str) -> str:
    return "a tab" if broken == "\t" else "a line break" if broken.splitlines() == [""] else "a control character"


def matching(what: str, pattern: str, names: str = "") -> Scalar:
    """A text of this pattern; `what` says so in words."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value.strip()):
            raise ValueError(f"`{shown(value)}` is not {what}")
        return value.strip()

    return Scalar(what, parse, {"type": ["string", "number"], "pattern": f"^(?:{pattern})$"}, names)


def whole(low: int, high: int) -> Scalar:
    """A whole number between these, both included."""
    what = f"a whole number from {low:,} to {high:,}"

    def parse(value: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9_]{1,18}", value.strip()) or not low <= int(value) <= high:
            raise ValueError(f"`{shown(value)}` is not {what}")
        return int(value)

    return Scalar(what, parse, {"type": "integer", "minimum": low, "maximum": high})


def _yes_no(value: str) -> bool:
    word = value.strip().lower()
    if word in ("yes", "true", "on"):
        return True
    if word in ("no", "false", "off"):
        return False
    raise ValueError(f"`{shown(value)}` is neither yes nor no")


def _length(value: str) -> Any:
    duration = parse_duration(value)
    if not (duration.is_calendar or duration.seconds):
        raise ValueError("it must be longer than nothing, such as `3 days`")
    return duration


_DURATION_PATTERN = r"^\s*\d{1,6}\s*([Ss]econd|[Mm]inute|[Hh]our|[Dd]ay|[Ww]eek|[Mm]onth|[Yy]ear)s?\s*$"
_DURATION_SCHEMA = {"type": "string", "pattern": _DURATION_PATTERN}
_SHARE_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"^\s*(\d+(\.\d+)?\s*%|0)\s*$"}, {"const": 0}]}

YES_NO = Scalar("yes or no", _yes_no, {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}]})
DURATION = Scalar("a length of time such as `3 days`", parse_duration, _DURATION_SCHEMA)
LENGTH = Scalar("a length of time such as `3 days`", _length, _DURATION_SCHEMA)
SHARE = Scalar("a percentage such as `10%`", parse_share, _SHARE_SCHEMA)
LIMIT = Scalar(
    "a limit such as `once per 180 days`",
    parse_limit,
    {"type": "string", "pattern": r"^\s*(once|twice|\d{1,9})\s+per\s+\S.*$"},
)
TIME_OF_DAY = Scalar(
    'a time of day such as "10:00"',
    parse_time_of_day,
    {"type": "string", "pattern": r"^\s*([01]?\d|2[0-3]):[0-5]\d\s*$"},
)
WINDOW = Scalar(
    'hours such as "09:00-20:00"',
    parse_week_window,
    {"type": "string", "pattern": r"^\s*\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}\s*$"},
)
WEEKDAYS = Scalar(
    "weekdays such as mon-fri",
    lambda text: tuple(parse_weekdays(text)),
    {"pattern": r"^\s*(mon|tue|wed|thu|fri|sat|sun)(\s*-\s*(mon|tue|wed|thu|fri|sat|sun))?\s*$"},
)


# --- the same tables as a schema and as a page -----------------------------------------------------------------------


def schema(kind: Kind, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The kind as JSON Schema (draft 2020-12); `names` holds the words that only the settings know."""
    match kind:
        case Scalar():
            known = list(names.get(kind.names, ()))
            return {"enum": known} if known else dict(kind.schema)
        case ListOf():
            listing: dict[str, Any] = {"type": "array", "items": schema(kind.of, names)}
            if kind.least:
                listing["minItems"] = kind.least
            if kind.most is not None:
                listing["maxItems"] = kind.most
            return {"anyOf": [schema(kind.of, names), listing]} if kind.lone else listing
        case MapOf():
            result = {"type": "object", "additionalProperties": schema(kind.value, names)}
            key = {word: rule for word, rule in schema(kind.key, names).items() if word in ("enum", "pattern")}
            return {**result, "propertyNames": key} if key else result
        case Record():
            return _record_schema(kind, names)
        case Either():
            return {"anyOf": [schema(kind.scalar, names), schema(kind.other, names)]}


def _record_schema(kind: Record, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    properties = {key.name: {**schema(key.kind, names), "description": _described(key)} for key in kind.keys}
    required = [key.name for key in kind.keys if key.required]
    result: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**result, "required": required} if required else result


def _described(key: Key) -> str:
    return f"{key.text} It takes {key.kind.what}." + (f" Default: {key.default}." if key.default else "")


def rows(keys: Sequence[Key], path: str = "") -> tuple[Row, ...]:
    """Every key, depth first, as one row each; `[]` stands for a list's entries, `NAME` for a name of one's own."""
    found: list[Row] = []
    for key in keys:
        here = f"{path}{key.name}"
        found.append(Row(here, key.kind.what, "required" if key.required else key.default, key.text))
        found += _inner_rows(key.kind, here)
    return tuple(found)


def _inner_rows(kind: Kind, path: str) -> tuple[Row, ...]:
    match kind:
        case Record():
            return rows(kind.keys, f"{path}.")
        case ListOf():
            return _inner_rows(kind.of, f"{path}[]")
        case MapOf():
            return _inner_rows(kind.value, f"{path}.NAME")
        case Either():
            return _inner_rows(kind.other, path)
        case Scalar():
            return ()
