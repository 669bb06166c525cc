"""
An e-mail's styles, from its `<style>` elements into the `style` attributes of what they describe.

Many mail programs read nothing else (caniemail.com/features/html-style: Gmail has no `<style>` for addresses of other
providers). css-inline does it in a fraction of the time that the plain-text part takes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from outreach.errors import TemplateError

# The serializer would write these out inside attributes: allowed by HTML, but not by every filter between us and
# the reader. Code points for private use pass it untouched.
_ESCAPES = {"&lt;": "\ue000", "&gt;": "\ue001"}


def inlined(html: str, path: str = "") -> str:
    """
    The HTML with the rules of its style sheets in `style` attributes; unchanged where it has no style sheet.

    What only a sheet can say (`@media`: screens, dark mode) stays in one. A `style` attribute that was there already
    wins. Reads no file and no address.

    Raises:
        TemplateError: a style sheet that cannot be read; names the template.
    """
    if "<style" not in html:
        return html
    from css_inline import InlineError

    for escape, stand_in in _ESCAPES.items():
        html = html.replace(escape, stand_in)
    try:
        html = str(_inliner().inline(html))
    except InlineError:
        raise TemplateError(f"{path}: a style sheet of this e-mail cannot be read", template=path, line=1) from None
    for escape, stand_in in _ESCAPES.items():
        html = html.replace(stand_in, escape)
    return html


@cache
def _inliner() -> Any:
    from css_inline import CSSInliner  # slow to load

    return CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
