"""
SMS parts: how many a text costs, and in which encoding.

Source: Twilio's "What is GSM-7 character encoding" and "SMS character limit"; 3GPP TS 23.038 for the alphabet.
"""

from __future__ import annotations

import math
import re

GSM_7 = "GSM-7"
UCS_2 = "UCS-2"

_EXTENDED = "\f^{}\\[~]|€"
_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_OUTSIDE = re.compile(f"[^{re.escape(_BASIC + _EXTENDED)}]")
_DOUBLE = {GSM_7: re.compile(f"[{re.escape(_EXTENDED)}]"), UCS_2: re.compile("[\U00010000-\U0010ffff]")}
_ALONE = {GSM_7: 160, UCS_2: 70}
_PART = {GSM_7: 153, UCS_2: 67}


def sms_segments(text: str) -> tuple[int, str]:
    """
    How many parts the text is sent (and billed) as, and its encoding: `GSM-7` or `UCS-2`.

    GSM-7 holds 160 septets alone and 153 a part, its extension characters costing two that never straddle
    parts; one character outside it turns the whole text into UCS-2: 70 UTF-16 units alone and 67 a part,
    a surrogate pair never split. An empty text has no part.
    """
    encoding = UCS_2 if _OUTSIDE.search(text) else GSM_7
    doubles = [match.start() for match in _DOUBLE[encoding].finditer(text)]
    if len(text) + len(doubles) <= _ALONE[encoding]:
        return min(len(text), 1), encoding
    return _parts(len(text), doubles, _PART[encoding]), encoding


def outside_gsm(text: str) -> str:
    """The characters of the text that force UCS-2, each once, in order."""
    return "".join(dict.fromkeys(_OUTSIDE.findall(text)))


def _parts(length: int, doubles: list[int], room: int) -> int:
    """Parts of `room` units filled one after the other; the characters at `doubles` take two and stay whole."""
    used = done = 0
    for at in doubles:
        used += at - done
        used += 1 if used % room == room - 1 else 0  # one unit stays empty: the pair begins the next part
        used, done = used + 2, at + 1
    return math.ceil((used + length - done) / room)
