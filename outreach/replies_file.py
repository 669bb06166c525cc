"""
`replies.yaml`: what is answered by itself, by what a reply means and by the options of a menu.

    answers:
      help: {template: answers/menu, options: menu}
    options:
      menu:
        1: {template: answers/hours}
        2: {template: answers/person, person: yes}
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from outreach import yamlfile
from outreach.campaign_keys import INTENTS
from outreach.errors import Problem
from outreach.keys import YES_NO, Key, MapOf, Record, choice, matching, read_record
from outreach.values import NUMBER_WORDS
from outreach.yamlfile import Node, did_you_mean, problem

FILE = "replies.yaml"
NEVER = ("opt_out", "opt_in", "out_of_office")  # meanings that nothing is answered to by itself


@dataclass(frozen=True)
class AutoAnswer:
    """One answer of the file."""

    template: str
    options: str | None = None  # the list of options that the reader's next choice is from
    person: bool = False  # a person takes over: a case is opened


@dataclass(frozen=True)
class AutoAnswers:
    """The file."""

    answers: Mapping[str, AutoAnswer] = field(default_factory=dict)  # by meaning
    options: Mapping[str, Mapping[str, AutoAnswer]] = field(default_factory=dict)  # by list and choice

    def all(self) -> Iterator[tuple[tuple[str, ...], AutoAnswer]]:
        """Every answer with its place in the file."""
        for meaning, answer in self.answers.items():
            yield ("answers", meaning), answer
        for name, listed in self.options.items():
            for chosen, answer in listed.items():
                yield ("options", name, chosen), answer


_NAME = matching("a name such as menu (small letters, digits, _ and -)", r"[a-z0-9][a-z0-9_-]{0,59}")
_CHOICE = matching("what somebody types to choose, such as 1", r"\w[\w ]{0,29}")
_ANSWER = Record(
    (
        Key(
            "template",
            matching("a template such as answers/hours", r"[\w./-]{1,200}"),
            "What is answered.",
            required=True,
        ),
        Key("options", _NAME, "The list of options that it offers: the next choice is from there."),
        Key("person", YES_NO, "A person takes over: a case is opened.", "no"),
    ),
    "{template: answers/hours}",
)
REPLIES = Record(
    (
        Key("answers", MapOf(choice(*(one for one in INTENTS if one not in NEVER)), _ANSWER), "By what a reply means."),
        Key("options", MapOf(_NAME, MapOf(_CHOICE, _ANSWER)), "Lists of options: what is answered to each choice."),
    ),
    "answers and options",
)


def load(files: Mapping[str, str]) -> tuple[AutoAnswers, list[Problem]]:
    """The file of a workspace, and every problem in it at once; without it, nothing is answered."""
    if FILE not in files:
        return AutoAnswers(), []
    node, found = yamlfile.read(FILE, files[FILE])
    if node is None or found:
        return AutoAnswers(), list(found)
    problems: list[Problem] = []
    values = read_record(REPLIES, node, "", problems)
    answers = {meaning: _answer(row) for meaning, row in values.get("answers", {}).items()}
    options = {
        name: {typed(one): _answer(row) for one, row in listed.items()}
        for name, listed in values.get("options", {}).items()
    }
    for name, listed in values.get("options", {}).items():
        for twin in [one for n, one in enumerate(listed) if typed(one) in map(typed, list(listed)[:n])]:
            text = f"{twin} is the same choice as another one of {name}, as people type it"
            problems.append(problem(node.nearest("options", name, twin), "options", text, "keep one of them"))
    made = AutoAnswers(answers, options)
    problems += _options_problems(made, node)
    return made, problems


_BESIDE = frozenset(
    [
        "por",
        "favor",
        "porfa",
        "porfavor",
        "opcion",
        "opcao",
        "option",
        "numero",
        "number",
        "el",
        "la",
        "o",
        "a",
        "the",
        "gracias",
        "obrigado",
        "obrigada",
        "please",
        "thanks",
    ]
)


def typed(text: str) -> str:
    """A choice without what does not matter about it: case, accents, marks, courtesies; a number word as its number."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    said = re.findall(r"\w+", "".join(letter for letter in folded if not unicodedata.combining(letter)))
    kept = [NUMBER_WORDS.get(word, word) for word in said if word not in _BESIDE] or said
    return " ".join(map(str, kept)) or " ".join(text.split())


def position(files: Mapping[str, str], *path: str) -> tuple[str, int, int]:
    """File, line and column of an answer."""
    node, _ = yamlfile.read(FILE, files[FILE])
    at = node.nearest(*path, "template") if node else None
    return (FILE, at.line, at.column) if at else (FILE, 0, 0)


def _answer(row: Mapping[str, object]) -> AutoAnswer:
    options = row.get("options")
    return AutoAnswer(str(row.get("template", "")), str(options) if options else None, bool(row.get("person", False)))


def _options_problems(made: AutoAnswers, node: Node) -> Iterator[Problem]:
    offered = {answer.options for _, answer in made.all() if answer.options}
    for path, answer in made.all():
        if answer.options and answer.options not in made.options:
            text = f"there is no list of options {answer.options}"
            yield problem(
                node.nearest(*path, "options"), "options", text, did_you_mean(answer.options, list(made.options))
            )
    for name in made.options:
        if name not in offered:
            at = node.nearest("options", name)
            yield problem(at, "options", f"no answer offers the options {name}", "add options to one", warning=True)
