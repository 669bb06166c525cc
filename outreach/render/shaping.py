"""
What is the same in every copy of an e-mail is worked on once: its styles, and the plain text made of it.

A filled e-mail is what its templates say, with values in between. Styling it and making text of it look at
elements and classes, never at what a customer is called: so both are done with a mark in place of each value,
kept, and filled. A value that could matter to them (markup that a macro made, a class, a part of a style sheet
or comment, odd blanks) is taken for the templates' own words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import NamedTuple

from markupsafe import Markup

from outreach.errors import TemplateError
from outreach.render.inlining import inlined
from outreach.render.plain_text import from_html

KEPT = 200  # shapes, of some 30 kB each
# A mark is a number between code points for private use, which every library passes on untouched.
_BEGIN, _END = "\ue100", "\ue101"
_MARK = re.compile(f"{_BEGIN}([0-9]+){_END}")
_MARKS = [f"{_BEGIN}{number}{_END}" for number in range(100)]
_MOST = len(_MARKS)
_OWN_ENTITY = re.compile("&(?!amp;|lt;|gt;|#34;|#39;)")  # one that no escaped value has
# Inside a tag, and there inside an attribute that no rule of a style sheet would be about.
_IN_TAG = re.compile(r"""<[a-z/](?:[^<>"']|"[^"<]*"|'[^'<]*')*(?:"[^"<]*|'[^'<]*)?\Z""", re.IGNORECASE)
_HARMLESS = re.compile(r"""\s(?:href|src|alt|title|content)\s*=\s*(?:"[^"<]*|'[^'<]*)\Z""", re.IGNORECASE)
_HIDDEN = (("<!--", "-->"), ("<style", "</style"), ("<script", "</script"))


class Gaps(NamedTuple):
    """A text without its values: `words[0]`, a value, `words[1]`, … `words[-1]`."""

    words: tuple[str, ...]
    numbers: tuple[int, ...]  # of the values between them; a value may stand in several places

    def filled(self, values: Sequence[str]) -> str:
        """The text with these values."""
        filled = [""] * (2 * len(self.words) - 1)
        filled[::2] = self.words
        filled[1::2] = [values[number] for number in self.numbers]
        return "".join(filled)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """
    What all copies of an e-mail have in common. It holds nothing of any customer.

    The same object for every copy, so it may be a key.
    """

    html: Gaps  # for values that are escaped
    text: Gaps | None  # the plain text made of it, for the values as they are read; None: it is written apart
    key: str  # of 32 hex digits, the same for the same HTML in every process

    def as_json(self) -> str:
        """The HTML, to be kept; `read_html` reads it."""
        return json.dumps(self.html, ensure_ascii=False, separators=(",", ":"))


def read_html(kept: str) -> Gaps:
    """What `as_json` wrote."""
    words, numbers = json.loads(kept)
    return Gaps(tuple(words), tuple(numbers))


def as_read(values: Sequence[str]) -> list[str]:
    """Values of HTML as they are read: in plain text."""
    return [unescape(value) if "&" in value else value for value in values]


@dataclass(slots=True)  # not frozen: see render.Link
class Shaped:
    """One e-mail: its plain text, and its HTML as the shape and values that it is made of."""

    own_html: str  # where values stand among the words; else empty
    text: str  # empty where none was asked for
    shape: Shape | None
    values: tuple[str, ...]

    @property
    def html(self) -> str:
        """The whole of it."""
        return self.own_html if self.shape is None else self.shape.html.filled(self.values)


def html_and_text(parts: Sequence[str], path: str, *, text: bool) -> Shaped:
    """
    The e-mail of these parts with its styles inlined, and its plain text where that is asked for.

    Values are those parts that are `Markup`: so Jinja2 gives what a template printed. The HTML means the same as
    if it had been styled whole; a quotation mark in a value stays the entity that it was escaped to.

    Raises:
        TemplateError: a style sheet, or the HTML itself, cannot be read; names `path`.
    """
    words, values, marks, told = _marked(parts, ())
    exposed = _exposed(words, marks)
    if exposed is None:  # somebody's name, or a template, holds what looks like a mark
        parts = [part.replace(_BEGIN, "") for part in parts]
        words, values, marks, told = _marked(parts, ())
        exposed = _exposed(words, marks)
    if exposed:
        words, values, marks, told = _marked(parts, exposed)
    shape = _shape(words, path, text)
    derived = shape.text.filled(as_read(values)) if shape.text is not None else ""
    if told:
        return Shaped(shape.html.filled(values), derived, None, ())
    return Shaped("", derived, shape, tuple(values))


Words = tuple[str, ...]  # of an e-mail, with marks in place of values


def _marked(parts: Sequence[str], exposed: Collection[int]) -> tuple[Words, list[str], int, bool]:
    """
    The parts with marks in place of values, but not of those `exposed`; the values by their number; how many marks
    there are; and whether any value is left among the words.

    Equal values are one: a link whose words are its own address stays one, and what is exposed once is exposed.
    """
    words: list[str] = []
    numbers: dict[str, int] = {}
    marks, told = 0, False
    for part in parts:
        if type(part) is Markup:
            value = str(part)
            number = numbers.get(value)
            if number is None and len(numbers) < _MOST and _is_plain(value):
                number = numbers[value] = len(numbers)
            if number is not None and number not in exposed:
                words.append(_MARKS[number])
                marks += 1
                continue
            told = told or bool(value)
        words.append(part)
    return tuple(words), list(numbers), marks, told


def _is_plain(value: str) -> bool:
    """Whether it is words that nothing would rewrite: escaped, no markup, and only single spaces, inside."""
    return (
        value.isprintable()
        and "<" not in value
        and ">" not in value
        and '"' not in value
        and "'" not in value
        and "  " not in value
        and value[:1] not in ("", " ")
        and value[-1] != " "
        and ("&" not in value or _OWN_ENTITY.search(value) is None)
    )


@lru_cache(maxsize=KEPT)
def _exposed(words: Words, marks: int) -> frozenset[int] | None:
    """The numbers of those marks that stand where a value decides more than what is read; None if more look like one."""
    shape = "".join(words)
    if shape.count(_BEGIN) > marks:
        return None
    found = set()
    lower = shape.lower()
    for mark in _MARK.finditer(shape):
        at = mark.start()
        tag = shape[max(shape.rfind("<", 0, at), 0) : at]
        is_hidden = any(lower.rfind(begin, 0, at) > lower.rfind(end, 0, at) for begin, end in _HIDDEN)
        if is_hidden or (_IN_TAG.match(tag) and not _HARMLESS.search(tag)):
            found.add(int(mark[1]))
    return frozenset(found)


@lru_cache(maxsize=KEPT)
def _shape(words: Words, path: str, text: bool) -> Shape:
    marked = "".join(words).strip()
    try:
        html, plain = _divided(inlined(marked, path)), _divided(from_html(marked)) if text else None
    except TemplateError:
        raise
    except Exception as error:  # html.parser: a declaration that is none, such as `<![x[`
        raise TemplateError(f"{path}: its HTML cannot be read ({type(error).__name__})", template=path) from None
    written = json.dumps(html, ensure_ascii=False, separators=(",", ":"))
    key = hashlib.sha256(written.encode("utf-8", "replace")).hexdigest()[:32]
    return Shape(html, plain, key)


def _divided(marked: str) -> Gaps:
    """The words between the marks, and the marks' numbers."""
    parts = _MARK.split(marked)
    return Gaps(tuple(parts[::2]), tuple(map(int, parts[1::2])))
