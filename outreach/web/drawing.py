"""Drawing: templates with everything escaped, and headers that let a page load nothing at all."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from outreach.web.words import Words

_FOLDER = Path(__file__).parent / "templates"


@cache
def _style() -> str:
    return (_FOLDER / "style.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def draw(template: str, words: Words, values: Mapping[str, Any]) -> str:
    """A page in one language."""
    style = Markup(_style())  # noqa: S704  our own file
    return _environment().get_template(template).render(words=words, style=style, **values)


def notice(words: Words, business: str, title: str, text: str) -> str:
    """A page that only says something."""
    return draw("notice.html", words, {"business": business, "title": title, "text": text})


@cache
def headers() -> Mapping[bytes, bytes]:
    """
    What every answer carries.

    The policy lets a page use its own style, which it knows by its hash, and send its form back to
    us: no script, no picture, nothing from elsewhere, and no other site may put it in a frame.
    """
    style = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        b"content-security-policy": policy.encode(),
        b"referrer-policy": b"no-referrer",  # the address is a secret of its recipient
        b"x-content-type-options": b"nosniff",
        b"x-robots-tag": b"noindex, nofollow",
        b"cache-control": b"no-store",
    }
