"""
What the text of a cell means: times, money, numbers, words. Pure; each reader raises ValueError that says what is allowed.

The hot ones remember: a day is worked out once, a price once, so that a million timestamps cost a
few look-ups each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from typing import Any

from outreach import timing
from outreach.models import from_micros, to_micros
from outreach.sources import Refusal

LONGEST_KEY = 200  # characters of an id of the shop's
LONGEST_TAG = 100
KEPT = 200  # characters of a refused value that are kept
_REMEMBERED = 100_000
_MINUTE, _HOUR, _DAY = 60_000_000, 3_600_000_000, 86_400_000_000

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)\s?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_AMOUNT = re.compile(r"\d{1,15}(\.\d{1,12})?", re.ASCII)
_QUANTITY = re.compile(r"-?\d{1,12}(\.\d{1,12})?", re.ASCII)
_YES = frozenset({"yes", "y", "true", "1", "si", "sí", "sim"})
_NO = frozenset({"no", "n", "false", "0", "não", "nao"})
_CANCELLED = frozenset({
    "cancelled", "canceled", "cancelado", "cancelada", "anulado", "anulada", "voided",
})  # fmt: skip


class Memo(dict[str, Any]):
    """What a reader made of each text, forgotten all at once when it grows too large. ValueErrors are not kept."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, text: str) -> Any:
        value = self.read(text)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = value
        return value


@dataclass(frozen=True)
class Reader:
    """Reads a cell, or a whole column at once; `whole` raises ValueError or KeyError where a cell needs a closer look."""

    one: Callable[[str], Any]
    whole: Callable[[Sequence[str]], list[Any]]

    def __call__(self, text: str) -> Any:
        return self.one(text)


@cache
def _parts_of_a_day() -> tuple[Mapping[str, int], Mapping[str, int]]:
    """The microseconds of ` 10` or `T10`, and those of `:30` or `:30:59`."""
    hours = {f"{mark}{n:02d}": n * 60 * _MINUTE for n in range(24) for mark in " T"}
    seconds = {"": 0, **{f":{n:02d}": n * 1_000_000 for n in range(60)}}
    return hours, {f":{n:02d}{text}": n * _MINUTE + rest for n in range(60) for text, rest in seconds.items()}


def times(zone: str, now: datetime) -> Reader:
    """
    A reader of timestamps to microseconds since 1970 UTC; "" gives None.

    Without an offset a time is local in `zone` (in a fold the first of the two; in a gap, as if the
    clock had not yet been put forward). Refused: what is no date and time, before 1970, after tomorrow.
    """
    tomorrow = now.astimezone(timing.zone(zone)).date() + timedelta(days=1)
    last = to_micros(timing.local_midnight(tomorrow + timedelta(days=1), zone)) - 1
    hours, past_the_hour = _parts_of_a_day()
    days, exactly = Memo(lambda day: _day(day, zone)), Memo(lambda text: _instant(text, zone))

    def hour(text: str) -> int:
        start = int(days[text[:10]]) + hours[text[10:]]
        if start < 0 or start + _HOUR - 1 > last:
            raise ValueError
        return start

    on_the_hour = Memo(hour)

    def read(text: str) -> int | None:
        at = exactly[text.strip()]
        if at is not None and at < 0:
            raise ValueError("is before 1970")
        if at is not None and at > last:
            raise ValueError(f"is after tomorrow, {tomorrow.isoformat()}")
        return None if at is None else int(at)

    def whole(cells: Sequence[str]) -> list[int | None]:
        return [on_the_hour[text[:13]] + past_the_hour[text[13:]] if text else None for text in cells]

    return Reader(read, whole)


def _day(text: str, zone: str) -> int:
    """The instant at which a local day begins; ValueError where its clock changes."""
    day = date.fromisoformat(read_date(text))
    start, end = (to_micros(timing.local_midnight(d, zone)) for d in (day, day + timedelta(days=1)))
    if end - start != _DAY:
        raise ValueError
    return start


def _local(text: str, zone: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=timing.zone(zone))


def _instant(text: str, zone: str) -> int | None:
    if not text:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is no date and time: write it as 2026-06-15 10:30")
    day, clock, offset = match[1], match[2] or "00:00", match[3] or ""
    try:
        return to_micros(_local(f"{day}T{clock}{offset.upper()}", zone))
    except ValueError:
        raise ValueError("is a date or a time that does not exist") from None
    except OverflowError:
        raise ValueError("is no date of this world") from None


def read_date(text: str) -> str:
    """An ISO date that exists, as text."""
    if not _DATE.fullmatch(text):
        raise ValueError("is no date: write it as 1990-06-15")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("is a date that does not exist") from None


def date_of(text: object) -> str | None:
    """The date that an ISO date or timestamp is written with; None for anything else: 03/04/2026 is not guessed."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}{(match[3] or '').upper()}")
    except ValueError:
        return None
    return match[1]


def birthdays(now: datetime) -> Callable[[str], str | None]:
    """A reader of birthdays: an ISO date from 1900 on that is not ahead."""

    def read(text: str) -> str | None:
        if not text:
            return None
        if not "1900-01-01" <= (day := read_date(text)) <= (now + timedelta(days=1)).date().isoformat():
            raise ValueError("is no birthday: it must lie between 1900 and today")
        return day

    return read


class Months(dict[int, int]):
    """UTC day since 1970 → the month (100 * year + month) it lies in by a zone's clock; 0 where it lies in two."""

    def __init__(self, zone: str) -> None:
        super().__init__()
        self.zone = timing.zone(zone)

    def of_all(self, times: Sequence[int]) -> list[int]:
        """The months in which instants fall."""
        found = [self[at // _DAY] for at in times]
        return [month or self.exactly(at) for month, at in zip(found, times, strict=True)] if 0 in found else found

    def exactly(self, micros: int) -> int:
        at = from_micros(micros).astimezone(self.zone)
        return 100 * at.year + at.month

    def __missing__(self, day: int) -> int:
        first, last = (self.exactly(micros) for micros in (day * _DAY, (day + 1) * _DAY - 1))
        self[day] = first if first == last else 0
        return self[day]


def money(currency: str) -> Reader:
    """A reader of amounts to minor units of the currency, half a unit rounded up; "" gives None."""
    from babel.numbers import get_currency_precision

    digits = int(get_currency_precision(currency))
    minor = rf"\.\d{{{digits}}}" if digits else ""
    plain_column = re.compile(rf"(?:\d{{1,12}}{minor}\n)+", re.ASCII)

    def read(text: str) -> int | None:
        text = text.strip()
        if not text:
            return None
        if not _AMOUNT.fullmatch(text):
            raise ValueError(_not_an_amount(text))
        return int(Decimal(text).scaleb(digits).to_integral_value(ROUND_HALF_UP))

    remembered = Memo(read)

    def whole(cells: Sequence[str]) -> list[int | None]:
        joined = "\n".join(cells) + "\n"
        if plain_column.fullmatch(joined):
            found: list[int | None] = [int(text) for text in joined.replace(".", "").split("\n")[:-1]]
            if len(found) == len(cells):
                return found
        return [remembered[cell] for cell in cells]

    return Reader(remembered.__getitem__, whole)


def _not_an_amount(text: str) -> str:
    if text.startswith("-"):
        return "is negative: an order has 0 or more; a return is a case of its own"
    if "," in text:
        return "has a comma, which may mean thousands or decimals: write 1234.50"
    return "is no amount: write digits with a decimal point, such as 1234.50"


def currency_code(text: str) -> str:
    """A currency's three letters, in capitals; "" stays."""
    if text and not re.fullmatch(r"[A-Za-z]{3}", text):
        raise ValueError("is no currency: write its three letters, such as MXN")
    return text.upper()


def quantity(text: str) -> str | None:
    """A number of pieces, as written."""
    text = text.strip()
    if text and not _QUANTITY.fullmatch(text):
        raise ValueError("is no quantity: write digits with a decimal point, such as 2 or 0.5")
    return text or None


def word(text: str) -> str | None:
    """Its text with single spaces; None for nothing."""
    return " ".join(text.split()) or None


def plain(text: str) -> str | None:
    """Its text without the spaces around it; None for nothing."""
    return text.strip() or None


def _key(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("is missing: every row needs it")
    if len(text) > LONGEST_KEY:
        raise ValueError(f"is longer than {LONGEST_KEY} characters")
    return text


def _keys(cells: Sequence[str]) -> list[str]:
    found = list(map(str.strip, cells))
    if not all(found) or max(map(len, found), default=0) > LONGEST_KEY:
        raise ValueError
    return found


key = Reader(_key, _keys)  # of ids of the shop's, which may not be empty


def answer(text: str) -> bool | None:
    """yes or no; None for nothing, because silence is not consent."""
    said = text.strip().lower()
    if said and said not in _YES | _NO:
        raise ValueError("is neither yes nor no: leave it empty where nothing is known")
    return said in _YES if said else None


def tags(text: str) -> list[str]:
    """Tags between commas, semicolons or bars, each once, in their order."""
    found = list(dict.fromkeys(" ".join(tag.split()) for tag in re.split(r"[,;|]", text) if tag.strip()))
    if any(len(tag) > LONGEST_TAG for tag in found):
        raise ValueError(f"holds a tag longer than {LONGEST_TAG} characters")
    return found


def locale(text: str) -> str | None:
    """A language with an optional country: `es` or `es-MX`."""
    text = text.strip().replace("_", "-")
    if not text:
        return None
    if not (match := re.fullmatch(r"([A-Za-z]{2,3})(?:-([A-Za-z]{2}))?", text)):
        raise ValueError("is no language: write es, or es-MX")
    return match[1].lower() + (f"-{match[2].upper()}" if match[2] else "")


def time_zone(text: str) -> str | None:
    """An IANA time zone."""
    text = text.strip()
    if text and not timing.is_zone(text):
        raise ValueError("is no time zone: write one such as America/Mexico_City")
    return text or None


def one_of(words: Sequence[str]) -> Callable[[str], str | None]:
    """A reader of one word out of a closed list."""

    def read(text: str) -> str | None:
        said = text.strip().lower()
        if said and said not in words:
            raise ValueError(f"is unknown: use {', '.join(words)}")
        return said or None

    return read


@lru_cache(maxsize=1024)
def uncounts(status: str | None) -> bool:
    """Whether an order's status says that it was cancelled, with or without a date (DESIGN 7: a refunded one counts)."""
    return (status or "").lower() in _CANCELLED


def read_column(
    cells: Sequence[str],
    read: Callable[[str], Any],
    column: str,
    lines: Sequence[int],
    refusals: dict[int, list[Refusal]],
) -> list[Any]:
    """Every cell as read; one that cannot be read becomes None, and a refusal under its row's number."""
    try:
        return read.whole(cells) if isinstance(read, Reader) else list(map(read, cells))
    except (ValueError, KeyError):
        return [read_cell(cell, read, column, lines[n], refusals, n) for n, cell in enumerate(cells)]


def read_cell(
    cell: str, read: Callable[[str], Any], column: str, line: int, refusals: dict[int, list[Refusal]], row: int = 0
) -> Any:
    """The cell as read, or None and a refusal."""
    try:
        return read(cell)
    except ValueError as error:
        refusals.setdefault(row, []).append(Refusal(line, column, cell[:KEPT], str(error)))
        return None


def attributes(cells: Mapping[str, str]) -> dict[str, str]:
    """The cells that say something."""
    return {name: text for name, cell in cells.items() if (text := cell.strip())}


def aware(micros: int | None) -> datetime | None:
    """The aware time of stored microseconds."""
    return None if micros is None else from_micros(micros).astimezone(UTC)
