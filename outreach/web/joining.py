"""
How somebody agrees to receive offers and news: by a message of their own, which the page has written for them.

An address that anybody can type into a form proves nothing. A message that arrives from the phone
itself does, and the consent ledger keeps it with its time and its words, which say what was agreed to.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import phonenumbers
import segno

from outreach.inbox.words import JOINING
from outreach.settings import Settings

CHANNELS = ("whatsapp", "sms")  # where a message opens already written, the easier first


@dataclass(frozen=True)
class Way:
    """One channel on which somebody may join."""

    channel: str
    number: str  # as people read it
    word: str  # that is enough, alone
    link: str  # opens the message, already written


def ways(settings: Settings, language: str) -> list[Way]:
    """Every channel of the shop that has a number to write to."""
    text = f"{JOINING[language]} {settings.business.name}."
    word = JOINING[language].partition(":")[0]
    found = []
    for channel in CHANNELS:
        number = settings.channels[channel].sender.removeprefix("whatsapp:") if channel in settings.channels else ""
        if number.startswith("+"):
            found.append(Way(channel, _readable(number), word, _link(channel, number, text)))
    return found


def page(settings: Settings) -> str:
    """The address of the page, which may stand on a receipt or in a shop window."""
    return f"{settings.public_url.rstrip('/')}/join"


def _link(channel: str, number: str, text: str) -> str:
    """https://faq.whatsapp.com/5913398998672934 for WhatsApp, RFC 5724 for SMS."""
    if channel == "whatsapp":
        return f"https://wa.me/{number.removeprefix('+')}?text={quote(text, safe='')}"
    return f"sms:{number}?body={quote(text, safe='')}"


def _readable(number: str) -> str:
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return number
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL))


@lru_cache(maxsize=64)
def drawn(address: str) -> str:
    """A QR code of the address as SVG for a page, of the size that its frame has."""
    return str(
        segno.make(address, micro=False, error="m").svg_inline(border=4, omitsize=True, svgclass=None, lineclass=None)
    )


def picture(address: str, kind: str) -> bytes:
    """A QR code of the address as a file of this kind, `svg` or `png`, large enough to print."""
    kept = io.BytesIO()
    options: Mapping[str, str] = {"light": "white"}
    segno.make(address, micro=False, error="m").save(kept, kind=kind, scale=12, border=4, **options)
    return kept.getvalue()
