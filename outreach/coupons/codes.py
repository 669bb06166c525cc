"""Codes: how they are made, what makes two of them the same, and reading them from a file."""

from __future__ import annotations

import csv
import io
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outreach.errors import ImportFileError, OutreachError

# Without vowels, so that no code spells a word, and without 0/O, 1/I/L, 2/Z, 5/S, 8/B, U/V, which people misread.
ALPHABET = "CDFGHJKMNPQRTWXY34679"
LENGTH = 12  # of the part that is drawn: 52 bits, of which nobody guesses one that is live
LONGEST = 60  # characters; Shopify takes 255, Tiendanube and WooCommerce no fewer than this
MOST = 1_000_000  # codes in one file
HEADS = ("code", "coupon_code", "coupon code", "post_title", "codigo", "código", "cupom", "cupón", "cupon")
SHARED_MARK = "#"  # in the key of a shared code's row; no code of its own has one

_CODE = re.compile(r"[^\W_][\w.-]*")


@dataclass(frozen=True)
class Refused:
    """A line of a file whose code cannot be taken."""

    line: int
    reason: str


def key_of(code: str) -> str:
    """
    What a code is known by: carts do not tell capitals from small letters.

    Shopify's codes are "not case-sensitive" (matrixify.app/documentation/discounts), WooCommerce keeps them
    in small letters (github.com/woocommerce/woocommerce-rest-api-docs, Coupon properties).
    """
    return code.strip().upper()


def generate(prefix: str, count: int) -> list[str]:
    """So many different codes that nobody can guess: 52 bits each from the system's own randomness."""
    made: set[str] = set()
    while len(made) < count:
        made.add(prefix + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
    return list(made)


def named(text: str) -> list[str]:
    """The codes that an order's `coupon_code` names; carts write several with commas or semicolons between."""
    return [part for part in (part.strip() for part in re.split(r"[,;|]", text)) if part]


def read(path: Path) -> tuple[list[tuple[int, str]], list[Refused]]:
    """
    The codes of a file with their lines: one a line, or the column called `code` of a CSV file.

    A code is letters, digits, `.`, `-` and `_`, and begins with a letter or a digit; whatever else stands there is
    refused by line, as is a code that the file names twice.

    Raises:
        ImportFileError: the file cannot be read, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ImportFileError(f"{path}: it is not in UTF-8: save it as CSV UTF-8") from None
    except OSError as error:
        raise ImportFileError(f"{path}: it cannot be read: {error.strerror or type(error).__name__}") from error
    return _checked(_cells(text, path))


def _cells(text: str, path: Path) -> Iterator[tuple[int, str]]:
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    column = 0
    try:
        for number, row in enumerate(reader):
            if number >= MOST:
                raise ImportFileError(f"{path}: it has more than {MOST:,} lines: split it")
            cells = [cell.strip() for cell in row]
            if number == 0 and (head := _head(cells)) is not None:
                column = head
            elif any(cells):
                yield reader.line_num, cells[column] if column < len(cells) else ""
    except csv.Error as error:
        raise ImportFileError(f"{path}, line {reader.line_num}: {error}") from error


def _head(cells: list[str]) -> int | None:
    """The place of the codes' column, where the first line is a heading."""
    names = [cell.lower() for cell in cells]
    return next((names.index(head) for head in HEADS if head in names), None)


def _checked(cells: Iterable[tuple[int, str]]) -> tuple[list[tuple[int, str]], list[Refused]]:
    codes: list[tuple[int, str]] = []
    refused: list[Refused] = []
    seen: dict[str, int] = {}
    for line, code in cells:
        key = key_of(code)
        if (wrong := problem(code)) is not None:
            refused.append(Refused(line, wrong))
        elif key in seen:
            refused.append(Refused(line, f"line {seen[key]} has the same code"))
        else:
            seen[key] = line
            codes.append((line, code))
    return codes, refused


def problem(code: str) -> str | None:
    """Why this cannot be a code; None when it can."""
    if not code:
        return "there is no code in it"
    if len(code) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    if not _CODE.fullmatch(code):
        return "a code is letters, digits, `.`, `-` and `_`, and begins with a letter or a digit"
    return None


def checked(code: str) -> str:
    """The code as it was typed; OutreachError when it can be none."""
    if (wrong := problem(code.strip())) is not None:
        raise OutreachError(f"{code[:LONGEST]!r} is no code: {wrong}")
    return code.strip()
