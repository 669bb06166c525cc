"""
Time: due moments, sending hours, time-zone candidates, schedules, back-off. Pure.

Every moment that goes in or comes out is an aware datetime, and those that come out are in UTC.
Zones are named by IANA; their rules are read from the `tzdata` package, not from the operating
system, so that every machine of an installation agrees and `pip` brings them up to date.

Daylight saving, everywhere in this file: a wall-clock time that does not exist (a gap) means the
first instant after the gap; one that exists twice (a fold) means the first.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from itertools import takewhile
from zoneinfo import ZoneInfo

from outreach.values import Duration, WeekHours

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# No zone has ever changed its clock twice within five days, so that equal offsets at both ends
# of such a stretch mean one offset throughout (a test looks at every zone since 2000).
_STRETCH = timedelta(days=5)
_LOOK_AHEAD = timedelta(days=400)


# Zones


@cache
def zone(name: str) -> ZoneInfo:
    """The rules of an IANA time zone; ValueError when there is none of that name."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name) and name != "Factory":
        try:
            with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
                return ZoneInfo.from_file(file, key=name)
        except (OSError, ValueError):
            pass
    raise ValueError(f"{name!r} is no time zone: write one such as America/Mexico_City")


def is_zone(name: str) -> bool:
    """Whether it names a time zone."""
    try:
        zone(name)
    except ValueError:
        return False
    return True


def _offset(instant: datetime, in_zone: ZoneInfo) -> timedelta:
    return instant.astimezone(in_zone).utcoffset() or timedelta()


def _change(start: datetime, end: datetime, in_zone: ZoneInfo) -> datetime:
    """The instant in (start, end] from which the offset is that of `end`, there being one change between."""
    start = start.replace(microsecond=0)
    low, high = 0, -((start - end) // _SECOND)
    before = _offset(start, in_zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(start + middle * _SECOND, in_zone) == before:
            low = middle
        else:
            high = middle
    return start + high * _SECOND


def _stretches(start: datetime, end: datetime, in_zone: ZoneInfo) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """[start, end) cut into pieces of one offset each."""
    while start < end:
        stop = min(start + _STRETCH, end)
        before, after = _offset(start, in_zone), _offset(stop, in_zone)
        if before == after:
            yield start, stop, before
        else:
            middle = _change(start, stop, in_zone)
            yield start, middle, before
            if middle < stop:
                yield middle, stop, after
        start = stop


def _instant(local: datetime, in_zone: ZoneInfo) -> datetime:
    """The UTC instant of a naive local time; see the module's rule for gaps and folds."""
    # PEP 495: around a change, fold=0 has the offset before it and fold=1 the one after
    before = in_zone.utcoffset(local) or timedelta()
    after = in_zone.utcoffset(local.replace(fold=1)) or timedelta()
    as_utc = local.replace(tzinfo=UTC)
    if before < after:  # a gap
        return _change(as_utc - after, as_utc - before, in_zone)
    return as_utc - before


@lru_cache(maxsize=65536)
def at_local(day: date, at: time, zone_name: str) -> datetime:
    """The instant, in UTC, of a wall-clock time on a local day."""
    return _instant(datetime.combine(day, at), zone(zone_name))


def local_midnight(day: date, zone_name: str) -> datetime:
    """The instant at which a local day begins (where clocks skip midnight, the first instant after it)."""
    return at_local(day, time(), zone_name)


# Calendar arithmetic and due moments


def _shift(day: date, months: int, days: int) -> date:
    if months:
        year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
        day = date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
    return day + timedelta(days=days)


def days_falling_on(day: date, before: Duration) -> list[date]:
    """
    Every date whose reminder `before` it falls on `day`.

    One date for days; for months none or several: a month before 29, 30 and 31 May is 29 and
    twice 30 April.
    """
    around = _shift(day, before.months, before.days)
    nearby = (around + timedelta(days=offset) for offset in range(-4, 5))
    return [on for on in nearby if _shift(on, -before.months, -before.days) == day]


@lru_cache(maxsize=65536)
def _steady_offset(day: int, zone_name: str) -> timedelta | None:
    """The offset through a UTC day (given as its ordinal) and the days beside it; None where it changes, or at the ends of time."""
    try:
        start = datetime.combine(date.fromordinal(day - 1), time(), UTC)
        first, last = (_offset(at, zone(zone_name)) for at in (start, start + 3 * _DAY))
    except (OverflowError, ValueError):
        return None
    return first if first == last else None


def _moved(at: datetime, months: int, days: int, zone_name: str) -> datetime:
    at = at.astimezone(UTC)
    if not months:
        # no wall clock moves by more than a day, so none says the same time twice, or skips it, so far from a change
        day = at.toordinal()
        offset = _steady_offset(day, zone_name) if days else None
        if not days or (offset is not None and offset == _steady_offset(day + days, zone_name)):
            return at + timedelta(days)
    local = at.astimezone(zone(zone_name)).replace(tzinfo=None, fold=0)
    return _instant(datetime.combine(_shift(local.date(), months, days), local.time()), zone(zone_name))


def add(at: datetime, duration: Duration, zone_name: str) -> datetime:
    """
    The moment `duration` after `at`, in UTC.

    Months and days keep the wall-clock time in `zone_name` (the end of a shorter month where the
    day is missing: 31 January + 1 month = 28 February), seconds are absolute. Never before `at`.
    OverflowError or ValueError when the result lies after the year 9999.
    """
    moved = _moved(at, duration.months, duration.days, zone_name)
    return moved + timedelta(0, duration.seconds) if duration.seconds else moved


def subtract(at: datetime, duration: Duration, zone_name: str) -> datetime:
    """The moment `duration` before `at`, in UTC, by the arithmetic of `add`."""
    return _moved(at, -duration.months, -duration.days, zone_name) - timedelta(seconds=duration.seconds)


def _due_in(occasion_at: datetime, after: Duration, at: time | None, zone_name: str) -> datetime:
    if at is not None and after.is_calendar and not after.seconds:
        local_day = occasion_at.astimezone(zone(zone_name)).date()
        return at_local(_shift(local_day, after.months, after.days), at, zone_name)
    earliest = add(occasion_at, after, zone_name)
    if at is None:
        return earliest
    day = earliest.astimezone(zone(zone_name)).date()
    candidates = (at_local(day + timedelta(days=n), at, zone_name) for n in range(3))
    return next(instant for instant in candidates if instant >= earliest)


def due_at(
    occasion_at: datetime, after: Duration, at: time | None, zones: Sequence[str], business_zone: str
) -> datetime:
    """
    When a step is due: `after` its occasion, at the local time `at` if one is given (DESIGN 3.2).

    - no `at`: `add(occasion_at, after)`, calendar days by the local wall clock;
    - whole days or months and `at`: at that time on that local calendar day;
    - under a day and `at`: the next such local time at or after occasion + after. So, too, for
      `0 days`: an occasion at noon with `at: "10:00"` is due the next morning, not in the past.

    With several candidate zones it is the latest of their instants; with none, `business_zone`
    decides. Never before the occasion; in UTC.
    """
    return max(_due_in(occasion_at, after, at, name) for name in zones or (business_zone,))


def birthday_in(year: int, month: int, day: int) -> date:
    """The birthday in a year: 29 February is kept on 28 February where there is none."""
    try:
        return date(year, month, day)
    except ValueError:
        if (month, day) != (2, 29):
            raise
        return date(year, 2, 28)


# Sending hours


def allowed(instant: datetime, week: WeekHours, zones: Sequence[str]) -> bool:
    """Whether the local wall clock of every one of `zones` is within its hours; ValueError for no zone."""
    if not zones:
        raise ValueError("sending hours mean nothing without a time zone")
    for name in zones:
        local = instant.astimezone(zone(name))
        window = week.days[local.weekday()]
        if window is None or not window[0] <= local.hour * 60 + local.minute < window[1]:
            return False
    return True


def _windows(week: WeekHours, zone_name: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """The parts of [start, end) within the hours, in order."""
    windows = []
    for first, last, offset in _stretches(start, end, zone(zone_name)):
        midnight = (first + offset).replace(hour=0, minute=0, second=0, microsecond=0) - offset
        while midnight < last:
            window = week.days[(midnight + offset).weekday()]
            if window:
                opens = max(first, midnight + timedelta(minutes=window[0]))
                closes = min(last, midnight + timedelta(minutes=window[1]))
                if opens < closes:
                    windows.append((opens, closes))
            midnight += _DAY
    return windows


def _both(
    ours: Sequence[tuple[datetime, datetime]], theirs: Sequence[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    """The intersection of two ordered lists of intervals, in order."""
    common, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        opens, closes = max(ours[i][0], theirs[j][0]), min(ours[i][1], theirs[j][1])
        if opens < closes:
            common.append((opens, closes))
        if ours[i][1] <= theirs[j][1]:
            i += 1
        else:
            j += 1
    return common


@lru_cache(maxsize=8192)
def _opening(start: datetime, end: datetime, week: WeekHours, zones: tuple[str, ...]) -> datetime | None:
    common = [(start, end)]
    for name in zones:
        common = _both(common, _windows(week, name, start, end))
    return common[0][0] if common else None


def closing(instant: datetime, week: WeekHours, zones: Sequence[str]) -> datetime:
    """When the hours that `instant` is within end in the first of `zones`; at most two days later."""
    return _closing(instant, week, tuple(zones))


@lru_cache(maxsize=8192)
def _closing(instant: datetime, week: WeekHours, zones: tuple[str, ...]) -> datetime:
    common = [(instant, instant + 2 * _DAY)]
    for name in zones:
        common = _both(common, _windows(week, name, *common[0])) or [(instant, instant)]
    return common[0][1]


def next_allowed(instant: datetime, week: WeekHours, zones: Sequence[str], until: datetime) -> datetime | None:
    """
    The earliest moment in [instant, until) that is `allowed` in every one of `zones`, or None.

    Exact to the microsecond through every change of clocks. Looks 400 days ahead at the most:
    hours repeat weekly, so what never opens in a year never does. ValueError for no zone.
    """
    if instant >= until:
        return None
    if allowed(instant, week, zones):
        return instant.astimezone(UTC)
    start = instant.astimezone(UTC)
    limit = min(until, start + _LOOK_AHEAD)
    while start < limit:
        # eight days at a time: a whole week whatever the day it starts on, and one cached answer
        # for all the messages of a batch, whose expiries differ
        found = _opening(start, start + 8 * _DAY, week, tuple(zones))
        if found is not None:
            return found if found < until else None
        start += 8 * _DAY
    return None


# Schedules


def next_occurrence(cron: str, after: datetime, zone_name: str) -> datetime:
    """
    The first occurrence strictly after `after` of five cron fields read on the clock of `zone_name`.

    A job at a fixed time runs once on the days clocks change: in a gap at the first instant after
    it, in a fold at the first pass. ValueError when the fields cannot be read or never come true.
    """
    return next(occurrences(cron, after, None, zone_name))


def occurrences(cron: str, start: datetime, end: datetime | None, zone_name: str) -> Iterator[datetime]:
    """The occurrences in (start, end], in order, in UTC; without an end, for ever. Errors as `next_occurrence`."""
    found = _occurrences(cron, start, zone_name)
    return found if end is None else takewhile(lambda instant: instant <= end, found)


def _occurrences(cron: str, start: datetime, zone_name: str) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    if len(cron.split()) != 5:
        raise ValueError(
            f'{cron!r} is not a schedule: write five fields, as "0 10 1 * *" (minute hour day month weekday)'
        )
    try:
        simulation = CronSim(cron, start.astimezone(zone(zone_name)))
    except CronSimError as error:
        raise ValueError(f"{cron!r} is not a schedule: {str(error).lower()}") from error
    last = start
    while True:
        local = next(simulation, None)
        if local is None:
            raise ValueError(f"{cron!r} never comes true")
        instant = local.astimezone(UTC)
        if instant > last:  # on the second pass of a fold it offers the first again
            yield instant
            last = instant


# Back-off


def back_off(attempt: int, unit: float) -> timedelta:
    """
    How long to wait before trying again after the `attempt`-th failure (from 1).

    Twice as long each time, from 1 minute to 1 hour; of that, between half and all, as `unit` in
    [0, 1) says, so that what failed together does not come back together.
    """
    whole = min(3600.0, 60.0 * 2.0 ** min(max(attempt, 1) - 1, 10))
    return timedelta(seconds=whole * (0.5 + unit / 2))


# Candidate zones


def candidate_zones(
    *,
    timezone: str | None = None,
    country: str | None = None,
    region: str | None = None,
    postal_code: str | None = None,
    phone: str | None = None,
) -> tuple[str, ...]:
    """
    Every time zone that the customer may be in, as far as the records tell; () when nothing does.

    1. `timezone`, the customer's own, if it is one;
    2. the address: the postcode, else the region, else a country that has a single time;
    3. every zone of the phone number (E.164), corrected where the library is wrong or incomplete,
       unless it belongs to another country than the address. Freephone and premium numbers tell
       no place;
    4. every zone of the country.

    A country alone never widens what its own phone number says. Zones that have kept the same
    time since 2023 and will under today's rules are named once, by the first of them: Argentina's
    twelve are one.

    Sources: the zones of countries are tzdb's `zone.tab`; `data/region_zones.csv`,
    `data/postcode_zones.csv` and `data/phone_zones.csv` are dated, editable, and leave out places
    where fewer than about one in a thousand of a region live; phone zones are Google's, through
    `phonenumbers`.
    """
    if timezone and is_zone(timezone.strip()):
        return (timezone.strip(),)
    country = (country or "").strip().upper()
    place = _zones_of_place(country, region or "", postal_code or "")
    if place:
        return place
    phone_country, by_phone = _zones_of_phone(phone) if phone else ("", ())
    if by_phone and country in ("", phone_country):
        return by_phone
    return _distinct(_country_zones().get(country, ()))


@lru_cache(maxsize=16384)
def _zones_of_place(country: str, region: str, postal_code: str) -> tuple[str, ...]:
    whole = _distinct(_country_zones().get(country, ()))
    if len(whole) == 1:
        return whole
    code = re.sub(r"[^A-Z0-9]", "", postal_code.upper())
    for pattern, zones in _postcodes().get(country, ()) if code else ():
        if pattern.fullmatch(code):
            return _distinct(zones)
    return _distinct(_regions().get((country, _plain(re.sub(rf"^\s*{country}-", "", region.upper()))), ()))


def _zones_of_phone(phone: str) -> tuple[str, tuple[str, ...]]:
    """The country of an E.164 number and the zones it may be in; () for those that tell no place."""
    import phonenumbers
    from phonenumbers import PhoneNumberType, timezone

    phone = re.sub(r"^\+521(\d{10})$", r"+52\1", phone)  # the old form, which WhatsApp still gives
    try:
        number = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return "", ()
    country = phonenumbers.region_code_for_number(number) or ""
    telling_no_place = (
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.UAN,
    )
    if phonenumbers.number_type(number) in telling_no_place:
        return country, ()
    zones = [name for name in timezone.time_zones_for_number(number) if is_zone(name) and name != "Etc/Unknown"]
    return country, _distinct(_corrected(phone, zones)) if zones else ()


def _corrected(phone: str, zones: list[str]) -> list[str]:
    corrections = _phone_corrections()
    longest = max(map(len, corrections))
    for length in range(longest, 1, -1):
        if phone[:length] in corrections:
            mode, ours = corrections[phone[:length]]
            return [*zones, *ours] if mode == "also" else list(ours)
    return zones


@cache
def _changes(zone_name: str) -> tuple[tuple[datetime, timedelta], ...]:
    """The zone's offsets from 2023 to 2038, each with the instant it begins."""
    start, end = datetime(2023, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
    changes: list[tuple[datetime, timedelta]] = []
    for first, _last, offset in _stretches(start, end, zone(zone_name)):
        if not changes or changes[-1][1] != offset:
            changes.append((first, offset))
    return tuple(changes)


def _distinct(zones: Iterable[str]) -> tuple[str, ...]:
    """The zones without those that keep the same time as one before them."""
    first: dict[tuple[tuple[datetime, timedelta], ...], str] = {}
    for name in zones:
        first.setdefault(_changes(name), name)
    return tuple(first.values())


def _plain(text: str) -> str:
    """Letters and digits only, without accents and case."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        character for character in decomposed if character.isalnum() and not unicodedata.combining(character)
    )


def _rows(name: str) -> list[dict[str, str]]:
    with files("outreach").joinpath("data", name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@lru_cache(maxsize=1)
def _country_zones() -> Mapping[str, tuple[str, ...]]:
    """By ISO 3166 country, its zones in the order of tzdb's zone.tab."""
    zones: dict[str, list[str]] = {}
    lines = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            country, _place, name, *_comment = line.split("\t")
            zones.setdefault(country, []).append(name)
    return {country: tuple(names) for country, names in zones.items()}


@lru_cache(maxsize=1)
def _regions() -> Mapping[tuple[str, str], tuple[str, ...]]:
    return {
        (row["country"], _plain(name)): tuple(row["zones"].split())
        for row in _rows("region_zones.csv")
        for name in row["regions"].split("|")
    }


@lru_cache(maxsize=1)
def _postcodes() -> Mapping[str, list[tuple[re.Pattern[str], tuple[str, ...]]]]:
    patterns: dict[str, list[tuple[re.Pattern[str], tuple[str, ...]]]] = {}
    for row in _rows("postcode_zones.csv"):
        patterns.setdefault(row["country"], []).append((re.compile(row["pattern"]), tuple(row["zones"].split())))
    return patterns


@lru_cache(maxsize=1)
def _phone_corrections() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    return {row["prefix"]: (row["mode"], tuple(row["zones"].split())) for row in _rows("phone_zones.csv")}
