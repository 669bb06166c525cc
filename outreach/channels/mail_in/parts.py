"""
Parts: an e-mail taken apart by the standard library, within bounds.

The library may fail on what nobody would write, and takes long over some of it; so its input is cut
to a number of bytes and lines, its recursion is caught, and nothing is asked of it that parses
headers. What is beyond the bounds is left out.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32

MOST_BYTES = 25 * 1024 * 1024
MOST_LINES = 500_000  # 25 MB of base64 have 350,000
MOST_HEADERS = 1_000  # of one part that are looked at
MOST_PARTS, DEEPEST = 200, 20
LONGEST_HEADER = 4_000  # characters
# Codecs that take time or memory far beyond their input, or are none of any mail: all others are texts.
_CODEC = re.compile(
    r"(utf-?(8|16|32)|iso8859|cp\d|cp1|koi8|mac|big5|gb|shift_jis|euc|ascii|latin|iso2022|tis|hz|ptcp).*"
)


@dataclass(frozen=True)
class Part:
    """One part of a message, or all of it."""

    _message: Message
    _headers: dict[str, list[str]]
    depth: int = 0

    @property
    def kind(self) -> str:
        """Its media type in small letters; `text/plain` where it says none."""
        given = self.header("Content-Type").partition(";")[0].strip().lower()
        return given if re.fullmatch(r"[\w.+-]{1,80}/[\w.+-]{1,80}", given) else "text/plain"

    @property
    def attached(self) -> bool:
        """Whether it is a file beside the text."""
        disposition = self.header("Content-Disposition").lower()
        return (
            disposition.startswith("attachment") or "name=" in disposition or not self.kind.startswith(("text/", "mul"))
        )

    def header(self, name: str) -> str:
        """The first header of this name: decoded, one line, at most 4,000 characters; empty without one."""
        found = self._headers.get(name.lower())
        return _decoded(found[0]) if found else ""

    def lines(self) -> list[str]:
        """Its headers, a line each."""
        return [f"{name}: {_decoded(value)}" for name, values in self._headers.items() for value in values]

    def has(self, name: str) -> bool:
        return name.lower() in self._headers

    def parts(self) -> list[Part]:
        """Those directly within it."""
        inner = self._message.get_payload() if self.depth < DEEPEST else None
        if not isinstance(inner, list):
            return []
        return [_part(one, self.depth + 1) for one in inner[:MOST_PARTS] if isinstance(one, Message)]

    def walk(self) -> Iterator[Part]:
        """Itself and those within it that are no messages of their own, at most so many."""
        waiting, seen = [self], 0
        while waiting and seen < MOST_PARTS:
            part = waiting.pop(0)
            seen += 1
            yield part
            if not part.kind.startswith("message/"):
                waiting[:0] = part.parts()

    def content(self) -> bytes:
        """What it holds, decoded; what is not encoded as it says comes as it is."""
        if self._message.is_multipart():
            return b""
        try:
            found = self._message.get_payload(decode=True)
        except (ValueError, LookupError, AttributeError, TypeError, binascii.Error, MessageError):
            found = None
        return found if isinstance(found, bytes) else b""

    def text(self, most: int) -> str:
        """What it holds, as text, at most so many characters; what cannot be read is replaced."""
        data = self.content()[: 4 * most]
        return _without_marks(_read(data, self._charset()))[:most]

    def _charset(self) -> str:
        found = re.search(r"charset\s*=\s*\"?'?([\w.:+-]{1,40})", self.header("Content-Type"), re.IGNORECASE)
        return found[1] if found else ""


def parse(raw: bytes) -> Part:
    """The message as far as it can be read; never raises."""
    cut = raw[:MOST_BYTES]
    if cut.count(b"\n") + cut.count(b"\r") > MOST_LINES:
        cut = b"\n".join(re.split(rb"\r\n|\r|\n", cut, maxsplit=MOST_LINES)[:MOST_LINES])
    try:
        message = message_from_bytes(cut, policy=compat32)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError, IndexError, MessageError):
        message = _headers_alone(cut)
    return _part(message)


def _headers_alone(cut: bytes) -> Message:
    try:
        return BytesHeaderParser(policy=compat32).parsebytes(cut[:100_000])
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError, IndexError, MessageError):
        return Message()


def _part(message: Message, depth: int = 0) -> Part:
    headers: dict[str, list[str]] = {}
    for number, (name, value) in enumerate(message.raw_items()):
        if number >= MOST_HEADERS:
            break
        headers.setdefault(name.lower(), []).append(str(value)[: 2 * LONGEST_HEADER])
    return Part(message, headers, depth)


def _decoded(value: str) -> str:
    """A header's value as people read it: RFC 2047, and UTF-8 as it stands."""
    plain = (
        value.encode("ascii", "surrogateescape") if not _has_letters_beyond(value) else value.encode("utf-8", "replace")
    )
    text = plain.decode("utf-8", "replace")
    if "=?" in text:
        try:
            pieces = decode_header(" ".join(text.split()))
        except (HeaderParseError, ValueError, LookupError, binascii.Error):
            pieces = [(text, None)]
        text = "".join(one if isinstance(one, str) else _read(one, charset or "ascii") for one, charset in pieces)
    return " ".join(_without_marks(text).split())[:LONGEST_HEADER]


def _has_letters_beyond(value: str) -> bool:
    """Whether it has letters beyond ASCII that are not bytes in disguise."""
    return any(ord(letter) > 127 and not 0xDC80 <= ord(letter) <= 0xDCFF for letter in value)


def _read(data: bytes, charset: str) -> str:
    """The text of these bytes: by the charset they name, else UTF-8, else what old Windows wrote."""
    try:
        name = codecs.lookup(charset).name if charset else ""
    except (LookupError, ValueError):
        name = ""
    if name and name != "ascii" and _CODEC.fullmatch(name):
        return data.decode(name, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _without_marks(text: str) -> str:
    """Without control characters, and signs that have no width; lone surrogates replaced."""
    clean = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return _MARKS.sub("", clean.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))


_MARKS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
