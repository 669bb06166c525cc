"""
The plain-text part of an e-mail, from its HTML, where none is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_HIDDEN = re.compile(r'<div class="preheader".*?</div>', re.DOTALL)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


def from_html(html: str) -> str:
    """
    The text of the HTML, links as `words: address`, without wrapping.

    The layout's preheader (`<div class="preheader">`) is left out: mail programs show it beside the subject.
    """
    writer = _writer()
    return tidy(writer.handle(_HIDDEN.sub("", html)))


def tidy(text: str) -> str:
    """The text without trailing blanks, doubled spaces between words, or more than one empty line in a row."""
    if "  " in text or " \n" in text or "\t" in text:
        text = re.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", re.sub(r"[ \t]+(?=\n)", "", text))
    if "\n\n\n" in text:
        text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip()


@cache
def _writer_class() -> type[Any]:
    from html2text import HTML2Text

    class Writer(HTML2Text):
        """html2text without Markdown: no escapes, no heading marks, links written out."""

        def handle_data(self, data: str, entity_char: bool = False) -> None:  # noqa: ARG002
            super().handle_data(data, True)

        def handle_tag(self, tag: str, attrs: dict[str, str | None], start: bool) -> None:
            if tag == "a":
                _link(self, attrs, start=start)
            elif tag in _HEADINGS or tag == "hr":
                self.p()
            elif tag in ("title", "style"):
                self.quiet += 1 if start else -1
            else:
                super().handle_tag(tag, attrs, start)

    return Writer


def _writer() -> Any:
    writer = _writer_class()(bodywidth=0)
    writer.ignore_emphasis = writer.ignore_images = writer.ignore_tables = writer.unicode_snob = True
    writer.opened = []
    return writer


def _link(writer: Any, attributes: Mapping[str, str | None], *, start: bool) -> None:
    if start:
        writer.opened.append((attributes.get("href") or "", len(writer.outtextlist)))
    elif writer.opened:
        address, before = writer.opened.pop()
        words = "".join(writer.outtextlist[before:]).strip()
        if address and address != words:
            writer.o(f": {address}" if words else address)
