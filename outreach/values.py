"""
The small values that marketers write: durations, shares, times of day, weekly hours, limits.

Pure parsing into frozen values. Every parser raises ValueError whose text says what is allowed;
`campaigns` and `settings` add the file, line and column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time, timedelta
from decimal import Decimal

# From 0 to 10 in Spanish, Portuguese and English, without accents.
NUMBER_WORDS = {
    word: number
    for number, words in enumerate(
        (
            "cero zero", "uno una um uma one", "dos dois duas two", "tres three", "cuatro quatro four", "cinco five",
            "seis six", "siete sete seven", "ocho oito eight", "nueve nove nine", "diez dez ten",
        )
    )
    for word in words.split()
}  # fmt: skip

CHANNELS = ("email", "sms", "whatsapp", "messenger", "call", "visit")
CONTACT_KIND = {  # of each channel; a visit is to whom the phone belongs: consent and caps hang there
    "email": "email",
    "sms": "phone",
    "whatsapp": "phone",
    "messenger": "messenger",
    "call": "phone",
    "visit": "phone",
}
PURPOSES = ("transactional", "service", "marketing")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True)
class Duration:
    """A length of time: calendar months and days apart from clock seconds."""

    months: int = 0
    days: int = 0
    seconds: int = 0

    @property
    def is_calendar(self) -> bool:
        """Whether it is counted in whole days or months of a local calendar."""
        return bool(self.months or self.days)

    @property
    def longest(self) -> timedelta:
        """An upper bound of it in clock time (a month as 31 days, a day as 25 hours)."""
        return timedelta(days=31 * self.months + self.days, hours=self.days + 31 * self.months, seconds=self.seconds)

    @property
    def clock(self) -> timedelta:
        """It as clock time, a month as 30 days and a day as 24 hours; for rolling windows."""
        return timedelta(days=30 * self.months + self.days, seconds=self.seconds)

    def __str__(self) -> str:
        for amount, unit in ((self.months, "month"), (self.days, "day")):
            if amount:
                return f"{amount} {unit}{'s' if amount != 1 else ''}"
        for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
            if self.seconds and self.seconds % size == 0:
                amount = self.seconds // size
                return f"{amount} {unit}{'s' if amount != 1 else ''}"
        return "0 days"


_UNITS = {
    "second": (0, 0, 1),
    "minute": (0, 0, 60),
    "hour": (0, 0, 3600),
    "day": (0, 1, 0),
    "week": (0, 7, 0),
    "month": (1, 0, 0),
    "year": (12, 0, 0),
}
_DURATION = re.compile(r"(\d{1,6})\s*([a-z]+?)s?")


def _quoted(text: object) -> str:
    shown = " ".join(str(text)[:200].split())
    return f"`{shown}`" if len(shown) <= 60 else f"`{shown[:59]}…`"


def parse_duration(text: object) -> Duration:
    """Read `90 minutes`, `3 days`, `2 weeks`, `24 months`; ValueError says what is allowed (at most 100 years)."""
    match = _DURATION.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{_quoted(text)} is not a length of time: write `90 minutes`, `3 days`, `2 weeks`")
    amount = int(match[1])
    months, days, seconds = (amount * size for size in _UNITS[match[2]])
    if months > 1200 or days > 36_600 or seconds > 36_600 * 86_400:
        raise ValueError(f"{_quoted(text)} is longer than 100 years")
    return Duration(months, days, seconds)


def parse_share(text: object) -> float:
    """Read `10%` (or 0) as a fraction between 0 and 1."""
    if isinstance(text, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())):
        share = float(match[1]) / 100
        if share <= 1:
            return share
    if (isinstance(text, str) and text.strip() == "0") or (text == 0 and not isinstance(text, bool)):
        return 0.0
    raise ValueError(f"{_quoted(text)} is not a share: write a percentage such as `10%`")


def parse_time_of_day(text: object) -> time:
    """Read `09:30` as a local wall-clock time."""
    if isinstance(text, str) and (match := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text.strip())):
        return time(int(match[1]), int(match[2]))
    raise ValueError(f'{_quoted(text)} is not a time of day: write it in quotes, as "10:00"')


@dataclass(frozen=True)
class WeekHours:
    """When sending is allowed: for Monday to Sunday, minutes [start, end) from local midnight, or None."""

    days: tuple[tuple[int, int] | None, ...]


def parse_week_window(text: object) -> tuple[int, int]:
    """Read `09:00-20:00` as minutes [start, end) from local midnight; one over midnight is refused."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})", text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'{_quoted(text)} is not a window: write `"09:00-20:00"`')
    start, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
    if int(match[2]) > 59 or int(match[4]) > 59 or start > 1439 or end > 1440:
        raise ValueError(f'{_quoted(text)} is not a window of one day: times run from "00:00" to "24:00"')
    if end <= start:
        raise ValueError(
            f"{_quoted(text)} runs over midnight: sending hours say when sending is allowed,"
            f' so write the hours of the day, such as "{match[3]}:{match[4]}-{match[1]}:{match[2]}"'
        )
    return start, end


def parse_weekdays(text: str) -> range | list[int]:
    """Read `sat` or `mon-fri` as weekday numbers, Monday 0; a range may run over Sunday."""
    first, dash, last = text.strip().lower().partition("-")
    names = (first.strip(), last.strip() if dash else first.strip())
    if any(name not in WEEKDAYS for name in names):
        raise ValueError(f"{_quoted(text)} names no weekday: use {', '.join(WEEKDAYS)} or a range such as mon-fri")
    start, end = (WEEKDAYS.index(name) for name in names)
    return range(start, end + 1) if start <= end else [*range(start, 7), *range(end + 1)]


def parse_week_hours(value: object) -> WeekHours:
    """Read `{mon-fri: "09:00-20:00", sat: "10:00-14:00"}`; days not named are closed."""
    if not isinstance(value, dict) or not value:
        raise ValueError('sending hours are written {mon-fri: "09:00-20:00", sat: "10:00-14:00"}')
    days: list[tuple[int, int] | None] = [None] * 7
    for key, window in value.items():
        for day in parse_weekdays(str(key)):
            if days[day] is not None:
                raise ValueError(f"{WEEKDAYS[day]} has two windows: a day has one")
            days[day] = parse_week_window(window)
    return WeekHours(tuple(days))


@dataclass(frozen=True)
class Limit:
    """At most `count` within `per` (a rolling window)."""

    count: int
    per: Duration


def parse_limit(text: object) -> Limit:
    """Read `once per 180 days`, `50 per day`, `3 per 7 days`."""
    if isinstance(text, str):
        match = re.fullmatch(r"(once|twice|\d{1,9})\s+per\s+(.+)", text.strip().lower())
        if match:
            count = {"once": 1, "twice": 2}.get(match[1]) or int(match[1])
            per = match[2] if match[2][0].isdigit() else f"1 {match[2]}"
            length = parse_duration(per)
            if count > 0 and length.clock:
                return Limit(count, length)
    raise ValueError(f"{_quoted(text)} is not a limit: write `once per 180 days` or `50 per day`")


@dataclass(frozen=True)
class Money:
    """An amount in minor units (cents) of one currency; never added across currencies."""

    amount: int
    currency: str


def written(amount: int, currency: str) -> str:
    """Minor units as people read them, such as 1,234.50 MXN."""
    value = in_main_units(Money(amount, currency))
    return f"{value:,f} {currency}"


def in_main_units(money: Money) -> Decimal:
    """The amount in pesos, reais, dollars, with as many decimals as the currency has."""
    from babel.numbers import get_currency_precision  # its tables take long to load

    return Decimal(money.amount).scaleb(-get_currency_precision(money.currency))
