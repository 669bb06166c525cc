"""
Template files: what their names and their front matter say.

`post_sale/thanks.sms.es-MX.j2` is the template `post_sale/thanks` for the kind `sms` in `es-MX`. A kind is a
channel, `text` (SMS, WhatsApp and Messenger, where there is no own file), or `email_text` (an e-mail's plain-text
part in the same locale, derived from the HTML where it is not written). Files without a kind, and those whose name
begins with `_`, are only there for `{% extends %}`, `{% include %}` and `{% import %}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from outreach.errors import Problem
from outreach.values import CHANNELS
from outreach.yamlfile import did_you_mean, listed, shown

FOLDER = "message_templates/"
KINDS: dict[str, tuple[str, ...]] = {
    "email": ("email",),
    "sms": ("sms", "text"),
    "whatsapp": ("whatsapp", "text"),
    "messenger": ("messenger", "text"),
    "call": ("call",),
    "visit": ("visit",),
}
ALL_KINDS = (*CHANNELS, "text", "email_text")
KEYS = {
    "subject": "e-mail: the subject, one line",
    "preheader": "e-mail: the line that mailboxes show after the subject",
    "locale": "the language of a file whose name says none",
    "content_sid": "WhatsApp: the approved template's id",
    "variables": "WhatsApp: below it, indented, one `name: value` a line",
}


@dataclass(frozen=True)
class Name:
    """What a template's path says."""

    template: str
    kind: str
    locale: str


@dataclass(frozen=True)
class Entry:
    """A value of the front matter, itself a template, and the line it stands on."""

    text: str
    line: int


@dataclass(frozen=True)
class Source:
    """A template file taken apart; `body` keeps the file's line numbers."""

    path: str
    body: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    variables: tuple[tuple[str, Entry], ...] = ()
    problems: tuple[Problem, ...] = ()
    lines: tuple[str, ...] = ()  # of the whole file


def normal_locale(text: str) -> str:
    """`es_mx` as `es-MX`; scripts and variants are dropped."""
    parts = [part for part in re.split(r"[-_.@]", text.strip()) if part.isalnum()]
    if not parts:
        return ""
    territory = next((part.upper() for part in parts[1:] if re.fullmatch(r"[A-Za-z]{2}|\d{3}", part)), "")
    return parts[0].lower() + (f"-{territory}" if territory else "")


def name_of(path: str) -> Name | None:
    """What the path says; None for a file that is only there to be extended or included."""
    folder, _, base = path.removeprefix(FOLDER).rpartition("/")
    stem, *words = base.removesuffix(".j2").split(".")
    if stem.startswith("_") or not words or words[0] not in ALL_KINDS or len(words) > 2:
        return None
    return Name(f"{folder}/{stem}" if folder else stem, words[0], normal_locale(words[1]) if len(words) == 2 else "")


def name_problem(path: str) -> Problem | None:
    """Why the path cannot be told apart, or None."""
    base = path.rpartition("/")[2]
    words = base.removesuffix(".j2").split(".")[1:]
    if name_of(path) is not None or not words or base.startswith("_"):
        return None
    text = f"{shown(words[0])} is no channel"
    if words[0] in ALL_KINDS:
        text = "the name has too many parts: write NAME.CHANNEL.LOCALE.j2"
    hint = did_you_mean(words[0], ALL_KINDS) or f"use {listed(ALL_KINDS)}"
    return Problem(path, 0, 0, "template-name", text, hint)


_ENTRY = re.compile(r"([A-Za-z_]\w*)\s*:\s*(.*?)\s*")
_VARIABLE = re.compile(r"\s+(\w+)\s*:\s*(.*?)\s*")


def read_source(path: str, text: str) -> Source:
    """The file taken apart; what is wrong with its front matter stands in `problems`."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "---":
        return Source(path, "\n".join(lines), lines=tuple(lines))
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        problem = Problem(path, 1, 1, "front-matter", "the front matter is not closed", "write a line `---` after it")
        return Source(path, "", problems=(problem,), lines=tuple(lines))
    entries, variables, problems = _front_matter(path, lines[1:end])
    problems += _misplaced(path, entries)
    body = "\n" * (end + 1) + "\n".join(lines[end + 1 :])
    return Source(path, body, entries, tuple(variables), tuple(problems), tuple(lines))


def _front_matter(path: str, lines: list[str]) -> tuple[dict[str, Entry], list[tuple[str, Entry]], list[Problem]]:
    entries: dict[str, Entry] = {}
    variables: list[tuple[str, Entry]] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if "variables" in entries and (match := _VARIABLE.fullmatch(line)):
            variables.append((match[1], Entry(_unquoted(match[2]), number)))
        elif (match := _ENTRY.fullmatch(line)) and match[1] in KEYS and match[1] not in entries:
            entries[match[1]] = Entry(_unquoted(match[2]), number)
        else:
            problems.append(_bad_entry(path, number, line, entries))
    return entries, variables, problems


_KEYS_OF = {
    "email": ("subject", "preheader", "locale"),
    "whatsapp": ("content_sid", "variables", "locale"),
    "text": ("content_sid", "variables", "locale"),
}


def _misplaced(path: str, entries: Mapping[str, Entry]) -> list[Problem]:
    name = name_of(path)
    allowed = _KEYS_OF.get(name.kind, ("locale",)) if name else ()
    return [
        Problem(path, entry.line, 1, "front-matter", f"{key} has no use in this file: {KEYS[key]}", "remove it")
        for key, entry in entries.items()
        if key not in allowed
    ]


def _bad_entry(path: str, number: int, line: str, entries: Mapping[str, Entry]) -> Problem:
    match = _ENTRY.fullmatch(line)
    if match is None:
        return Problem(path, number, 1, "front-matter", f"{shown(line)!r} is not `key: value`", f"keys: {listed(KEYS)}")
    if match[1] in entries:
        return Problem(path, number, 1, "front-matter", f"{match[1]} stands twice", "remove one")
    hint = did_you_mean(match[1], KEYS) or f"use {listed(KEYS)}"
    return Problem(path, number, 1, "front-matter", f"unknown key {shown(match[1])}", hint)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
