"""
What is the same in every copy of an e-mail is worked on once: its styles, and the plain text made of it.

A filled e-mail is what its templates say, with values in between. Styling it and making text of it look at
elements and classes, never at what a customer is called: so both are done with a mark in place of each value,
kept, and filled. A value that could matter to them (markup that a macro made, a class, a part of a style sheet
or comment, odd blanks) is taken for the templates' own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from html import unescape

from markupsafe import Markup

from outreach.render.inlining import inlined
from outreach.render.plain_text import from_html

KEPT = 200  # shapes, of some 30 kB each
# A mark is a number between code points for private use, which every library passes on untouched.
_BEGIN, _END = "\ue100", "\ue101"
_MARK = re.compile(f"{_BEGIN}([0-9]+){_END}")
_MARKS = [f"{_BEGIN}{number}{_END}" for number in range(100)]
_MOST = len(_MARKS)
_RAW = re.compile("[<>\"']")  # what no escaped value has
_OWN_ENTITY = re.compile("&(?!amp;|lt;|gt;|#34;|#39;)")  # one that no escaped value has
# Inside a tag, and there inside an attribute that no rule of a style sheet would be about.
_IN_TAG = re.compile(r"""<[a-z/](?:[^<>"']|"[^"<]*"|'[^'<]*')*(?:"[^"<]*|'[^'<]*)?\Z""", re.IGNORECASE)
_HARMLESS = re.compile(r"""\s(?:href|src|alt|title|content)\s*=\s*(?:"[^"<]*|'[^'<]*)\Z""", re.IGNORECASE)
_HIDDEN = (("<!--", "-->"), ("<style", "</style"), ("<script", "</script"))


def html_and_text(parts: Sequence[str], path: str, *, text: bool) -> tuple[str, str]:
    """
    The e-mail of these parts with its styles inlined, and its plain text (empty where none is asked for).

    Values are those parts that are `Markup`: so Jinja2 gives what a template printed. The HTML means the same as
    if it had been styled whole; a quotation mark in a value stays the entity that it was escaped to.

    Raises:
        TemplateError: a style sheet cannot be read; names `path`.
    """
    if any(_BEGIN in part for part in parts):  # somebody's name, or a template, holds what looks like a mark
        parts = [part.replace(_BEGIN, "") for part in parts]
    words, values = _marked(parts, ())
    if exposed := _exposed(words):
        words, values = _marked(parts, exposed)
    html = _filled(_styled(words, path), values)
    if not text:
        return html, ""
    return html, _filled(_text(words), [unescape(value) if "&" in value else value for value in values])


Words = tuple[str, ...]  # of an e-mail, with marks in place of values


def _marked(parts: Sequence[str], exposed: Collection[int]) -> tuple[Words, list[str]]:
    """
    The parts with marks in place of values, but not of those `exposed`; and the values by their number.

    Equal values are one: a link whose words are its own address stays one, and what is exposed once is exposed.
    """
    words: list[str] = []
    numbers: dict[str, int] = {}
    for part in parts:
        if type(part) is Markup and len(numbers) < _MOST and _is_plain(value := str(part)):
            number = numbers.setdefault(value, len(numbers))
            if number not in exposed:
                words.append(_MARKS[number])
                continue
        words.append(part)
    return tuple(words), list(numbers)


def _is_plain(value: str) -> bool:
    """Whether it is words that nothing would rewrite: escaped, no markup, and only single spaces, inside."""
    return (
        value.isprintable()
        and not _RAW.search(value)
        and "  " not in value
        and value[:1] not in ("", " ")
        and value[-1] != " "
        and ("&" not in value or _OWN_ENTITY.search(value) is None)
    )


@lru_cache(maxsize=KEPT)
def _exposed(words: Words) -> frozenset[int]:
    """The numbers of those marks that stand where a value decides more than what is read."""
    shape = "".join(words)
    found = set()
    lower = shape.lower()
    for mark in _MARK.finditer(shape):
        at = mark.start()
        tag = shape[max(shape.rfind("<", 0, at), 0) : at]
        is_hidden = any(lower.rfind(begin, 0, at) > lower.rfind(end, 0, at) for begin, end in _HIDDEN)
        if is_hidden or (_IN_TAG.match(tag) and not _HARMLESS.search(tag)):
            found.add(int(mark[1]))
    return frozenset(found)


Worked = tuple[str, ...]  # words and numbers of values in turn; words first and last


@lru_cache(maxsize=KEPT)
def _styled(words: Words, path: str) -> Worked:
    return tuple(_MARK.split(inlined("".join(words).strip(), path)))


@lru_cache(maxsize=KEPT)
def _text(words: Words) -> Worked:
    return tuple(_MARK.split(from_html("".join(words).strip())))


def _filled(worked: Worked, values: Sequence[str]) -> str:
    filled = list(worked)
    for index in range(1, len(filled), 2):
        filled[index] = values[int(filled[index])]
    return "".join(filled)
