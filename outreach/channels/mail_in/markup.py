"""
Markup: the text of an HTML mail, without what mail programs mark as quoted.

`lxml` reads the HTML, whatever it is, in time that grows with its length alone; only what it makes of
it, which is well-formed, is given to the library that writes texts.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree
from lxml import html as parser

from outreach.render import plain_text

LONGEST = 200_000  # characters that are looked at
_SILENT = ("script", "style", "head", "title", "template", "noscript")
# What Gmail, Yahoo, Outlook (desktop, web, mobile), Thunderbird and Apple Mail put around or before a quoted message.
_QUOTES = re.compile(r"gmail_quote|gmail_attr|yahoo_quoted|moz-cite-prefix|mail-editor-reference|ms-outlook-mobile-ref")
_FOLLOWED = re.compile(r"divRplyFwdMsg|appendonsend")  # all that comes after it is quoted, too


def text_of(html: str) -> str:
    """What the person wrote in it; all of it where that would be nothing."""
    tree = _tree(html[:LONGEST])
    if tree is None:
        return ""
    for silent in list(tree.iter(*_SILENT)):
        _remove(silent)
    whole = _written(tree)
    for element in list(tree.iter("blockquote", "div")):
        marks = f"{element.get('class', '')} {element.get('id', '')}"
        if element.tag == "blockquote" or _QUOTES.search(marks):
            _remove(element)
        elif _FOLLOWED.search(marks):
            for later in list(element.itersiblings()):
                _remove(later)
            _remove(element)
    return _written(tree) or whole


def _tree(html: str) -> Any:
    try:
        return parser.document_fromstring(
            html.encode(), parser=parser.HTMLParser(encoding="utf-8", remove_comments=True)
        )
    except (etree.LxmlError, ValueError, AssertionError):  # nothing in it
        return None


def _remove(element: Any) -> None:
    """Take it out, and leave the text that follows it; what is out already stays out."""
    if element.getparent() is not None:
        element.drop_tree()


def _written(tree: Any) -> str:
    if not tree.text_content().strip():
        return ""
    try:
        return plain_text.from_html(parser.tostring(tree, encoding="unicode"))
    except Exception:  # that library, too, meets what nobody has thought of
        return plain_text.tidy(tree.text_content())
