"""Time: due moments, sending hours, schedules and candidate zones, on the days that go wrong."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from outreach import timing
from outreach.values import Duration, WeekHours, parse_duration, parse_week_hours

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

ZONES = (
    "America/Mexico_City",  # daylight saving until 2022, none since
    "America/Tijuana",  # as in the United States
    "America/New_York",
    "America/Bogota",  # none since 1993
    "America/Santiago",  # clocks change at midnight
    "America/Sao_Paulo",  # clocks skipped midnight until 2018
    "America/Asuncion",  # permanent summer time since 2024
    "America/Havana",  # midnight skipped, one o'clock repeated
    "America/St_Johns",  # half an hour; at 00:01 until 2011, so that a day began twice
    "America/Caracas",  # half an hour back in 2007 and forth in 2016
    "Europe/Madrid",
    "Atlantic/Azores",
    "Africa/Casablanca",  # two changes about a month apart, around Ramadan
    "Africa/Cairo",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Pacific/Apia",  # 30 December 2011 did not exist
    "Asia/Kathmandu",
    "UTC",
)
zones = st.sampled_from(ZONES)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timing.zone(zone), fold=fold).astimezone(UTC)


def near_changes(zone: str) -> list[datetime]:
    """The changes of a zone's clock from 1990 to 2030."""
    cuts = timing._stretches(utc("1990-01-01"), utc("2030-01-01"), timing.zone(zone))
    return [start for start, _, _ in cuts if _changes_at(start, zone)] or [utc("2026-01-01")]


def _changes_at(instant: datetime, zone: str) -> bool:
    in_zone = timing.zone(zone)
    return instant.astimezone(in_zone).utcoffset() != (instant - MINUTE).astimezone(in_zone).utcoffset()


CHANGES = {zone: near_changes(zone) for zone in ZONES}


@st.composite
def moments(draw: st.DrawFn, zone: str) -> datetime:
    """Any minute of 1990 to 2030, half of them within two days of a change of the zone's clock."""
    if draw(st.booleans()):
        around = draw(st.sampled_from(CHANGES[zone]))
        return around + draw(st.integers(-2880, 2880)) * MINUTE
    return utc("1990-01-01") + draw(st.integers(0, 40 * 365 * 1440)) * MINUTE


@st.composite
def places_and_moments(draw: st.DrawFn) -> tuple[str, datetime]:
    zone = draw(zones)
    return zone, draw(moments(zone))


times = st.builds(time, st.integers(0, 23), st.integers(0, 59)) | st.builds(
    time, st.integers(0, 3), st.sampled_from((0, 30))
)
windows = (
    st.none()
    | st.tuples(st.integers(0, 1439), st.integers(1, 1440)).filter(lambda w: w[0] < w[1])
    | st.sampled_from([(0, 1440), (60, 90), (30, 120), (540, 1200), (0, 60)])
)
weeks = st.builds(WeekHours, st.lists(windows, min_size=7, max_size=7).map(tuple))


# Calendar arithmetic


ADDITIONS = [
    # spring forward in New York: three days later is the same wall-clock time, 71 hours
    ("2026-03-06T10:00", "America/New_York", "3 days", "2026-03-09T10:00"),
    # 02:30 does not exist on 8 March: the first instant after the gap
    ("2026-03-07T02:30", "America/New_York", "1 day", "2026-03-08T03:00"),
    # 02:00 is the very start of the gap: the same
    ("2026-03-07T02:00", "America/New_York", "1 day", "2026-03-08T03:00"),
    # a month clips to the end of February
    ("2026-01-31T09:00", "America/Bogota", "1 month", "2026-02-28T09:00"),
    ("2028-01-31T09:00", "America/Bogota", "1 month", "2028-02-29T09:00"),
    # a year after a leap day is 28 February
    ("2028-02-29T09:00", "America/Bogota", "1 year", "2029-02-28T09:00"),
    # over the end of a year
    ("2025-11-30T09:00", "America/Bogota", "3 months", "2026-02-28T09:00"),
    # midnight does not exist on the day Santiago moves forward
    ("2026-09-05T00:00", "America/Santiago", "1 day", "2026-09-06T01:00"),
    # half an hour: Lord Howe's gap runs from 02:00 to 02:30
    ("2026-10-03T02:15", "Australia/Lord_Howe", "1 day", "2026-10-04T02:30"),
    # Samoa had no 30 December 2011: the next valid instant is midnight of the 31st
    ("2011-12-29T10:00", "Pacific/Apia", "1 day", "2011-12-31T00:00"),
    # two weeks over Mexico's last change, October 2022
    ("2022-10-20T10:00", "America/Mexico_City", "2 weeks", "2022-11-03T10:00"),
    # hours are absolute: 24 of them over a gap end an hour later on the clock
    ("2026-03-07T10:00", "America/New_York", "24 hours", "2026-03-08T11:00"),
    # and 90 minutes over it
    ("2026-03-08T01:00", "America/New_York", "90 minutes", "2026-03-08T03:30"),
]


@pytest.mark.parametrize(("start", "zone", "duration", "expected"), ADDITIONS)
def test_a_length_of_time_is_added_by_the_local_calendar(start: str, zone: str, duration: str, expected: str) -> None:
    assert timing.add(local(start, zone), parse_duration(duration), zone) == local(expected, zone)


def test_a_day_that_ends_in_a_fold_takes_the_first_pass() -> None:
    # 01:30 comes twice on 1 November 2026 in New York: at 05:30 and 06:30 UTC
    start = local("2026-10-31T01:30", "America/New_York")
    assert timing.add(start, Duration(days=1), "America/New_York") == utc("2026-11-01T05:30")


def test_nothing_added_to_the_second_pass_of_a_fold_stays_there() -> None:
    second = local("2026-11-01T01:30", "America/New_York", fold=1)
    assert timing.add(second, Duration(), "America/New_York") == second == utc("2026-11-01T06:30")


def test_microseconds_and_the_zone_of_the_argument_do_not_matter() -> None:
    start = datetime(2026, 3, 7, 2, 30, 0, 5, tzinfo=ZoneInfo("America/New_York"))
    result = timing.add(start, Duration(days=1), "America/New_York")
    assert result == utc("2026-03-08T07:00")  # a gap has no microseconds: its end
    assert result.tzinfo is UTC


@given(places_and_moments(), st.integers(0, 800), st.integers(0, 30))
def test_adding_never_goes_back_and_keeps_the_wall_clock_unless_it_is_skipped(
    where: tuple[str, datetime], days: int, months: int
) -> None:
    zone, start = where
    end = timing.add(start, Duration(months=months, days=days), zone)
    assert end >= start
    before, after = start.astimezone(timing.zone(zone)), end.astimezone(timing.zone(zone))
    if days or months:
        assert after.time() == before.time() or _changes_at(end, zone)
        assert after.fold == 0


@example(where=("Pacific/Apia", utc("2011-12-29T12:00")), days=1)
@example(where=("America/New_York", utc("9999-12-30T12:00")), days=1)
@given(places_and_moments(), st.integers(-800, 800).filter(bool))
def test_days_far_from_a_change_of_clocks_are_counted_as_those_beside_one(
    where: tuple[str, datetime], days: int
) -> None:
    zone, start = where
    wall_clock = start.astimezone(timing.zone(zone)).replace(tzinfo=None, fold=0) + timedelta(days)
    counted = timing.add if days >= 0 else timing.subtract
    assert counted(start, Duration(days=abs(days)), zone) == timing._instant(wall_clock, timing.zone(zone))


@given(places_and_moments(), st.integers(1, 800))
def test_days_added_and_taken_away_again_lead_back(where: tuple[str, datetime], days: int) -> None:
    zone, start = where
    there = timing.add(start, Duration(days=days), zone)
    back = timing.subtract(there, Duration(days=days), zone)
    skipped = there.astimezone(timing.zone(zone)).time() != start.astimezone(timing.zone(zone)).time()
    assume(not skipped and start.astimezone(timing.zone(zone)).fold == 0)
    assert back == start


@given(places_and_moments(), st.integers(0, 10**7))
def test_seconds_added_and_taken_away_again_lead_back(where: tuple[str, datetime], seconds: int) -> None:
    zone, start = where
    there = timing.add(start, Duration(seconds=seconds), zone)
    assert there - start == timedelta(seconds=seconds)
    assert timing.subtract(there, Duration(seconds=seconds), zone) == start


@given(zones, st.dates(date(1990, 1, 1), date(2035, 12, 31)))
def test_a_local_day_begins_at_its_first_instant(zone: str, day: date) -> None:
    assume((zone, day) != ("Pacific/Apia", date(2011, 12, 30)))
    begins = timing.local_midnight(day, zone)
    assert begins.astimezone(timing.zone(zone)).date() == day
    assert (begins - MINUTE).astimezone(timing.zone(zone)).date() < day


@given(st.dates(date(2000, 1, 1), date(2040, 1, 1)), st.integers(0, 24), st.integers(0, 60))
def test_the_days_whose_reminder_falls_on_a_day_are_all_found(day: date, months: int, days: int) -> None:
    before = Duration(months=months) if months else Duration(days=days)
    found = timing.days_falling_on(day, before)
    noon = datetime.combine(day, time(12), UTC)
    around = (timing.add(noon, before, "UTC") + timedelta(days=offset) for offset in range(-40, 41))
    assert found == [on.date() for on in around if timing.subtract(on, before, "UTC") == noon]


@pytest.mark.parametrize(
    ("year", "month", "day", "expected"),
    [
        (2028, 2, 29, date(2028, 2, 29)),  # a leap year keeps the day
        (2027, 2, 29, date(2027, 2, 28)),  # others keep it on the 28th
        (2100, 2, 29, date(2100, 2, 28)),  # a century that is no leap year
        (2027, 2, 28, date(2027, 2, 28)),
        (2027, 12, 31, date(2027, 12, 31)),
    ],
)
def test_a_leap_day_birthday_is_kept_on_the_28th(year: int, month: int, day: int, expected: date) -> None:
    assert timing.birthday_in(year, month, day) == expected


def test_a_birthday_that_no_calendar_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="day"):
        timing.birthday_in(2027, 4, 31)


# Due moments


DUE = [
    # whole days and a time: that local day at that time, whatever the hour of the occasion
    ("2026-06-15T23:50", ["America/Mexico_City"], "3 days", "10:00", "2026-06-18T10:00", "America/Mexico_City"),
    ("2026-06-15T00:10", ["America/Mexico_City"], "3 days", "10:00", "2026-06-18T10:00", "America/Mexico_City"),
    # the local day counts, not the UTC one: 20:00 in Mexico is the next day in UTC
    ("2026-06-15T20:00", ["America/Mexico_City"], "1 day", "09:00", "2026-06-16T09:00", "America/Mexico_City"),
    # no time: the same wall-clock time, over a change of clocks
    ("2026-03-28T10:00", ["Europe/Madrid"], "1 day", None, "2026-03-29T10:00", "Europe/Madrid"),
    # `at` inside a gap: the first instant after it
    ("2026-03-26T10:00", ["Europe/Madrid"], "3 days", "02:30", "2026-03-29T03:00", "Europe/Madrid"),
    # `at` inside a fold: its first pass is checked below; here the day after it is plain again
    ("2026-10-24T10:00", ["Europe/Madrid"], "2 days", "02:30", "2026-10-26T02:30", "Europe/Madrid"),
    # under a day: the next such time at or after occasion + after
    ("2026-06-15T08:00", ["America/Bogota"], "1 hour", "10:00", "2026-06-15T10:00", "America/Bogota"),
    ("2026-06-15T09:00", ["America/Bogota"], "1 hour", "10:00", "2026-06-15T10:00", "America/Bogota"),
    ("2026-06-15T09:01", ["America/Bogota"], "1 hour", "10:00", "2026-06-16T10:00", "America/Bogota"),
    # 0 days is under a day: never a due time before the occasion
    ("2026-06-15T09:00", ["America/Bogota"], "0 days", "10:00", "2026-06-15T10:00", "America/Bogota"),
    ("2026-06-15T12:00", ["America/Bogota"], "0 days", "10:00", "2026-06-16T10:00", "America/Bogota"),
    # months from a leap day
    ("2028-02-29T12:00", ["America/Bogota"], "12 months", "10:00", "2029-02-28T10:00", "America/Bogota"),
    # several zones: the latest instant, here 10:00 of the westernmost
    (
        "2026-06-15T12:00",
        ["America/Mexico_City", "America/Tijuana"],
        "2 days",
        "10:00",
        "2026-06-17T10:00",
        "America/Tijuana",
    ),
    # several zones without a time: the same instant in all but for changes of clocks between
    ("2026-03-07T12:00", ["America/New_York", "America/Bogota"], "1 day", None, "2026-03-08T12:00", "America/Bogota"),
    # none known: the business's zone, Madrid in this table
    ("2026-06-15T12:00", [], "1 day", "10:00", "2026-06-16T10:00", "Europe/Madrid"),
]


@pytest.mark.parametrize(("occasion", "names", "after", "at", "expected", "zone"), DUE)
def test_a_step_is_due_where_the_table_says(
    occasion: str, names: list[str], after: str, at: str | None, expected: str, zone: str
) -> None:
    occasion_at = local(occasion, names[0] if names else "Europe/Madrid")
    wanted = time.fromisoformat(at) if at else None
    assert timing.due_at(occasion_at, parse_duration(after), wanted, names, "Europe/Madrid") == local(expected, zone)


def test_a_due_time_in_a_fold_is_its_first_pass() -> None:
    # 02:30 comes twice on 25 October 2026 in Madrid: at 00:30 and 01:30 UTC
    occasion = local("2026-10-22T10:00", "Europe/Madrid")
    due = timing.due_at(occasion, Duration(days=3), time(2, 30), ["Europe/Madrid"], "UTC")
    assert due == utc("2026-10-25T00:30")


afters = st.sampled_from(["0 days", "1 day", "3 days", "2 weeks", "1 month", "12 months"]) | st.sampled_from(
    ["1 minute", "90 minutes", "23 hours", "26 hours"]
)


@given(places_and_moments(), afters, st.none() | times, st.lists(zones, max_size=3, unique=True), zones)
def test_a_step_is_never_due_before_its_occasion_and_waits_for_the_latest_zone(
    where: tuple[str, datetime], after: str, at: time | None, names: list[str], business: str
) -> None:
    _, occasion = where
    length = parse_duration(after)
    due = timing.due_at(occasion, length, at, names, business)
    assert due >= occasion
    alone = [timing.due_at(occasion, length, at, [name], business) for name in names or [business]]
    assert due == max(alone)


@given(places_and_moments(), afters, times)
def test_a_time_of_day_is_met_on_the_clock_unless_that_day_skips_it(
    where: tuple[str, datetime], after: str, at: time
) -> None:
    zone, occasion = where
    due = timing.due_at(occasion, parse_duration(after), at, [zone], "UTC")
    shown = due.astimezone(timing.zone(zone))
    assert (shown.time() == at and shown.fold == 0) or _changes_at(due, zone)


@given(places_and_moments(), st.integers(1, 400), times)
def test_whole_days_are_counted_on_the_local_calendar(where: tuple[str, datetime], days: int, at: time) -> None:
    zone, occasion = where
    due = timing.due_at(occasion, Duration(days=days), at, [zone], "UTC").astimezone(timing.zone(zone))
    expected = occasion.astimezone(timing.zone(zone)).date() + timedelta(days=days)
    assert due.date() == expected or (zone, expected) == ("Pacific/Apia", date(2011, 12, 30))


# Sending hours


OFFICE = parse_week_hours({"mon-fri": "09:00-20:00", "sat": "10:00-14:00"})
NIGHT = parse_week_hours({"mon-sun": "01:00-02:30"})

HOURS = [
    # within, at the edges: the start is in, the end is out
    ("2026-06-15T09:00", "America/Bogota", OFFICE, "2026-06-15T09:00"),
    ("2026-06-15T19:59", "America/Bogota", OFFICE, "2026-06-15T19:59"),
    ("2026-06-15T20:00", "America/Bogota", OFFICE, "2026-06-16T09:00"),
    ("2026-06-15T08:59", "America/Bogota", OFFICE, "2026-06-15T09:00"),
    # Friday night waits for Saturday's own hours, Saturday noon passes, then comes Monday
    ("2026-06-19T21:00", "America/Bogota", OFFICE, "2026-06-20T10:00"),
    ("2026-06-20T13:59", "America/Bogota", OFFICE, "2026-06-20T13:59"),
    ("2026-06-20T14:00", "America/Bogota", OFFICE, "2026-06-22T09:00"),
    # a Sunday is closed in the customer's zone although it is Monday in UTC
    ("2026-06-21T22:00", "America/Tijuana", OFFICE, "2026-06-22T09:00"),
    # the night of the gap: 02:00 to 03:00 is not there, so the hours end at 02:00
    ("2026-03-08T01:30", "America/New_York", NIGHT, "2026-03-08T01:30"),
    ("2026-03-08T03:00", "America/New_York", NIGHT, "2026-03-09T01:00"),
    # the night before a gap opens on the day after at an instant 23 hours later
    ("2026-03-07T20:00", "America/New_York", OFFICE, "2026-03-09T09:00"),
    # a leap day is a day
    ("2028-02-28T20:00", "America/Bogota", OFFICE, "2028-02-29T09:00"),
    # midnight to midnight is always
    ("2026-03-08T03:00", "America/New_York", parse_week_hours({"mon-sun": "00:00-24:00"}), "2026-03-08T03:00"),
    # 00:00 does not exist in Santiago on 6 September 2026: its Sunday opens at 01:00
    ("2026-09-05T12:00", "America/Santiago", parse_week_hours({"sun": "00:00-02:00"}), "2026-09-06T01:00"),
]


@pytest.mark.parametrize(("at", "zone", "week", "expected"), HOURS)
def test_sending_hours_open_where_the_table_says(at: str, zone: str, week: WeekHours, expected: str) -> None:
    instant = local(at, zone)
    found = timing.next_allowed(instant, week, [zone], instant + 14 * DAY)
    assert found == local(expected, zone)
    assert timing.allowed(instant, week, [zone]) is (at == expected)


def test_hours_inside_a_fold_open_again_on_its_second_pass() -> None:
    # 01:00 to 02:00 comes twice on 1 November 2026 in New York, from 05:00 and from 06:00 UTC
    week = parse_week_hours({"sun": "01:00-01:30"})
    assert timing.allowed(utc("2026-11-01T05:15"), week, ["America/New_York"])
    found = timing.next_allowed(utc("2026-11-01T05:45"), week, ["America/New_York"], utc("2026-11-02T00:00"))
    assert found == utc("2026-11-01T06:00")


def test_every_candidate_zone_must_be_open() -> None:
    both = ["Europe/Madrid", "America/Mexico_City"]  # eight hours apart in June
    found = timing.next_allowed(local("2026-06-16T09:00", "Europe/Madrid"), OFFICE, both, NOW + 7 * DAY)
    assert found == local("2026-06-16T09:00", "America/Mexico_City") == local("2026-06-16T17:00", "Europe/Madrid")


def test_zones_that_only_overlap_after_a_change_of_clocks_wait_for_it() -> None:
    # six hours apart these hours only touch; from 8 March, when New York alone moves, they are five apart
    week, both = parse_week_hours({"mon-sun": "09:00-15:00"}), ["America/New_York", "Europe/Madrid"]
    for start in ("2026-02-20T12:00", "2026-02-27T20:00", "2026-03-07T23:00"):
        found = timing.next_allowed(local(start, "America/New_York"), week, both, utc("2026-06-01T00:00"))
        assert found == local("2026-03-08T09:00", "America/New_York")


spans = st.lists(st.integers(0, 60), unique=True, max_size=16).map(sorted).map(lambda ends: ends[: len(ends) // 2 * 2])


@given(spans, spans)
def test_intervals_are_intersected_minute_by_minute(ours: list[int], theirs: list[int]) -> None:
    pairs = [
        [(NOW + a * MINUTE, NOW + b * MINUTE) for a, b in zip(s[::2], s[1::2], strict=True)] for s in (ours, theirs)
    ]
    common = timing._both(*pairs)
    for minute in (NOW + n * MINUTE for n in range(61)):
        within = [any(opens <= minute < closes for opens, closes in intervals) for intervals in (*pairs, common)]
        assert within[2] == (within[0] and within[1])
    assert common == sorted(common)


def test_hours_that_never_overlap_open_never() -> None:
    week = parse_week_hours({"mon-sun": "12:00-13:00"})
    assert timing.next_allowed(NOW, week, ["Europe/Madrid", "America/Bogota"], NOW + 3000 * DAY) is None


def test_an_opening_at_or_after_the_limit_is_none() -> None:
    opens = local("2026-06-16T09:00", "America/Bogota")
    closed = opens - timedelta(hours=5)
    assert timing.next_allowed(closed, OFFICE, ["America/Bogota"], opens) is None
    assert timing.next_allowed(closed, OFFICE, ["America/Bogota"], opens + timedelta(microseconds=1)) == opens
    assert timing.next_allowed(opens, OFFICE, ["America/Bogota"], opens) is None


def test_no_zone_is_an_error_rather_than_always_allowed() -> None:
    with pytest.raises(ValueError, match="time zone"):
        timing.allowed(NOW, OFFICE, [])


@settings(max_examples=60, deadline=None)
@given(st.data(), weeks, st.lists(zones, min_size=1, max_size=3, unique=True), st.integers(1, 3000))
def test_the_next_opening_is_the_one_a_scan_of_every_minute_finds(
    data: st.DataObject, week: WeekHours, names: list[str], minutes: int
) -> None:
    start = data.draw(moments(names[0]))
    scan = (start + n * MINUTE for n in range(minutes))
    expected = next((m for m in scan if all(_open(m, week, name) for name in names)), None)
    assert timing.next_allowed(start, week, names, start + minutes * MINUTE) == expected


def _open(instant: datetime, week: WeekHours, name: str) -> bool:
    shown = instant.astimezone(timing.zone(name))
    window = week.days[shown.weekday()]
    return window is not None and window[0] <= shown.hour * 60 + shown.minute < window[1]


# Schedules


SCHEDULES = [
    # strictly after, also when asked at the very moment
    ("0 10 1 * *", "America/Mexico_City", "2026-06-01T10:00", "2026-07-01T10:00"),
    ("0 10 1 * *", "America/Mexico_City", "2026-06-01T09:59", "2026-06-01T10:00"),
    # 02:30 does not exist: the first instant after the gap, and the day after as always
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", "2026-03-08T03:00"),
    ("30 2 * * *", "America/New_York", "2026-03-08T03:00", "2026-03-09T02:30"),
    # the last day of a month, the first Monday
    ("0 9 L * *", "America/Bogota", "2028-02-15T00:00", "2028-02-29T09:00"),
    ("0 9 * * 1#1", "America/Bogota", "2026-06-15T00:00", "2026-07-06T09:00"),
    # 29 February only comes in leap years
    ("0 9 29 2 *", "America/Bogota", "2026-06-15T00:00", "2028-02-29T09:00"),
    # every quarter of an hour runs through a gap by the real clock
    ("*/15 * * * *", "America/New_York", "2026-03-08T01:45", "2026-03-08T03:00"),
]


@pytest.mark.parametrize(("cron", "zone", "after", "expected"), SCHEDULES)
def test_a_schedule_comes_next_where_the_table_says(cron: str, zone: str, after: str, expected: str) -> None:
    assert timing.next_occurrence(cron, local(after, zone), zone) == local(expected, zone)


def test_a_daily_job_in_a_fold_runs_once() -> None:
    found = list(timing.occurrences("30 1 * * *", utc("2026-10-31T12:00"), utc("2026-11-02T12:00"), "America/New_York"))
    assert found == [utc("2026-11-01T05:30"), utc("2026-11-02T06:30")]
    # asked between the two passes, or in the second, it has already run
    assert timing.next_occurrence("30 1 * * *", utc("2026-11-01T06:10"), "America/New_York") == utc("2026-11-02T06:30")


def test_occurrences_leave_out_the_start_and_take_in_the_end() -> None:
    found = timing.occurrences("0 * * * *", NOW, NOW + timedelta(hours=2), "UTC")
    assert list(found) == [NOW + timedelta(hours=1), NOW + timedelta(hours=2)]


@pytest.mark.parametrize("cron", ["", "0 10 * *", "0 0 10 1 * *", "61 0 * * *", "x 0 * * *", "0 0 30 2 *", "@daily"])
def test_a_schedule_that_cannot_be_read_or_never_comes_is_an_error(cron: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        timing.next_occurrence(cron, NOW, "UTC")


@given(places_and_moments(), st.integers(0, 3) | st.integers(0, 23), st.sampled_from((0, 1, 30, 59)))
def test_a_daily_schedule_runs_once_on_every_local_day(where: tuple[str, datetime], hour: int, minute: int) -> None:
    zone, after = where
    days = (after.astimezone(timing.zone(zone)).date() + timedelta(days=n) for n in range(-1, 8))
    expected = sorted({timing.at_local(day, time(hour, minute), zone) for day in days})
    found = list(islice(timing.occurrences(f"{minute} {hour} * * *", after, None, zone), 4))
    assert found == [instant for instant in expected if instant > after][:4]


# Back-off


@given(st.integers(-5, 5000), st.floats(0, 1, exclude_max=True))
def test_waiting_grows_between_half_a_minute_and_an_hour(attempt: int, unit: float) -> None:
    wait = timing.back_off(attempt, unit)
    assert timedelta(seconds=30) <= wait <= timedelta(hours=1)
    assert timing.back_off(attempt, 0.0) <= wait <= timing.back_off(attempt + 1, unit)


def test_waiting_doubles_with_each_attempt() -> None:
    waits = [timing.back_off(attempt, 0.0) for attempt in range(1, 9)]
    assert [wait.total_seconds() for wait in waits] == [30, 60, 120, 240, 480, 960, 1800, 1800]


# Candidate zones


PHONES = [
    # the table of PROVIDERS E: what the library gets right
    ("+12125550123", {"America/New_York"}),
    ("+525512345678", {"America/Mexico_City"}),
    ("+526641234567", {"America/Tijuana"}),
    ("+529981234567", {"America/Cancun"}),
    ("+526561234567", {"America/Ciudad_Juarez"}),
    ("+5491123456789", {"America/Buenos_Aires"}),
    ("+5511987654321", {"America/Sao_Paulo"}),
    ("+5592987654321", {"America/Manaus"}),
    ("+5568987654321", {"America/Rio_Branco"}),
    ("+573001234567", {"America/Bogota"}),
    # two zones, as the library says
    ("+12082001234", {"America/Boise", "America/Los_Angeles"}),
    # Florida's panhandle: the library knows Eastern only
    ("+18503211234", {"America/New_York", "America/Chicago"}),
    ("+14483211234", {"America/New_York", "America/Chicago"}),
    # Chattanooga is Eastern; the library says Central
    ("+14232655555", {"America/New_York", "America/Chicago"}),
    # Kentucky, Nebraska, Michigan, Indiana, Oregon, Kansas, Arizona: split, the library knows one side
    ("+12707811234", {"America/Chicago", "America/New_York"}),
    ("+13647811234", {"America/Chicago", "America/New_York"}),
    ("+16066781234", {"America/New_York", "America/Chicago"}),
    ("+13083821234", {"America/Chicago", "America/Denver"}),
    ("+19062261234", {"America/Detroit", "America/Menominee"}),
    ("+18123341234", {"America/Indiana/Indianapolis", "America/Chicago"}),
    ("+19303341234", {"America/Indiana/Indianapolis", "America/Chicago"}),
    ("+12192341234", {"America/Chicago", "America/Indiana/Indianapolis"}),
    ("+15413461234", {"America/Los_Angeles", "America/Boise"}),
    ("+14583461234", {"America/Los_Angeles", "America/Boise"}),
    ("+16202251234", {"America/Chicago", "America/Denver"}),
    ("+17852251234", {"America/Chicago", "America/Denver"}),
    ("+19287741234", {"America/Phoenix", "America/Denver"}),
    # Chihuahua moved to Central time in October 2022; the library still says Mazatlan
    ("+526144101234", {"America/Chihuahua"}),
    # the old form of Mexican mobiles, which WhatsApp gives: without the 1
    ("+5215512345678", {"America/Mexico_City"}),
    ("+5216144101234", {"America/Chihuahua"}),
    # Spanish mobiles may be in the Canaries
    ("+34612345678", {"Europe/Madrid", "Atlantic/Canary"}),
    ("+34928123456", {"Atlantic/Canary"}),
    # Pernambuco is on Recife's time; the library knows its islands only
    ("+5581987654321", {"America/Recife", "America/Noronha"}),
    # Pará left Manaus's time in 2008
    ("+5593987654321", {"America/Santarem"}),
    # freephone, invalid, not a number: no place
    ("+18005551234", set()),
    ("+5255", set()),
    ("12", set()),
]


@pytest.mark.parametrize(("phone", "expected"), PHONES)
def test_a_number_tells_every_zone_it_may_be_in(phone: str, expected: set[str]) -> None:
    assert set(timing.candidate_zones(phone=phone)) == expected


def test_a_number_that_may_be_anywhere_in_a_country_gives_its_distinct_zones() -> None:
    assert len(timing.candidate_zones(phone="+61412345678")) == 8
    assert len(timing.candidate_zones(phone="+79161234567")) > 8


ADDRESSES = [
    # one time in the whole country, whatever the phone says: people move
    ({"country": "CO"}, {"America/Bogota"}),
    ({"country": "PE", "phone": "+525512345678"}, {"America/Lima"}),
    ({"country": "co"}, {"America/Bogota"}),
    # Argentina's twelve zones keep one time
    ({"country": "AR", "region": "Salta"}, {"America/Argentina/Buenos_Aires"}),
    # Mexico by state, in the spellings of shops: ISO, WooCommerce, Shopify, words
    ({"country": "MX", "region": "Baja California"}, {"America/Tijuana"}),
    ({"country": "MX", "region": "MX-BCN"}, {"America/Tijuana"}),
    ({"country": "MX", "region": "baja california sur"}, {"America/Mazatlan"}),
    ({"country": "MX", "region": "Q. Roo"}, {"America/Cancun"}),
    ({"country": "MX", "region": "SON"}, {"America/Hermosillo"}),
    ({"country": "MX", "region": "CIUDAD DE MEXICO"}, {"America/Mexico_City"}),
    ({"country": "MX", "region": "Chihuahua"}, {"America/Chihuahua", "America/Ciudad_Juarez", "America/Ojinaga"}),
    # the region outweighs the number, the postcode outweighs the region
    ({"country": "MX", "region": "Sonora", "phone": "+525512345678"}, {"America/Hermosillo"}),
    ({"country": "MX", "region": "Jalisco", "postal_code": "77500"}, {"America/Cancun"}),
    # a spreadsheet ate the leading zero of 06600
    ({"country": "MX", "postal_code": "6600"}, {"America/Mexico_City"}),
    # a country alone tells no more than its own number, less than a number from abroad would pretend
    ({"country": "MX", "phone": "+526641234567"}, {"America/Tijuana"}),
    # Brazil by state and CEP
    ({"country": "BR", "region": "SP"}, {"America/Sao_Paulo"}),
    ({"country": "BR", "region": "Acre"}, {"America/Rio_Branco"}),
    ({"country": "BR", "postal_code": "69005-010"}, {"America/Manaus"}),
    ({"country": "BR", "postal_code": "01310-100"}, {"America/Sao_Paulo"}),
    ({"country": "BR", "postal_code": "69640-000"}, {"America/Manaus", "America/Eirunepe"}),
    ({"country": "BR", "region": "AM"}, {"America/Manaus", "America/Eirunepe"}),
    # Spain: the Canaries by postcode or province
    ({"country": "ES", "postal_code": "38001"}, {"Atlantic/Canary"}),
    ({"country": "ES", "postal_code": "28013"}, {"Europe/Madrid"}),
    ({"country": "ES", "region": "Las Palmas"}, {"Atlantic/Canary"}),
    ({"country": "ES", "region": "A Coruña"}, {"Europe/Madrid"}),
    ({"country": "ES"}, {"Europe/Madrid", "Atlantic/Canary"}),
    ({"country": "PT", "postal_code": "9500-150"}, {"Atlantic/Azores"}),
    # Chile's far south keeps summer time all year
    ({"country": "CL", "region": "Magallanes"}, {"America/Punta_Arenas"}),
    ({"country": "CL", "region": "RM"}, {"America/Santiago"}),
    # the United States and Canada by state and province
    ({"country": "US", "region": "TX"}, {"America/Chicago", "America/Denver"}),
    ({"country": "US", "region": "California"}, {"America/Los_Angeles"}),
    ({"country": "CA", "postal_code": "M5V 3L9"}, {"America/Toronto"}),
    # the customer's own zone outweighs everything; a wrong one is not heard
    ({"timezone": "Europe/Madrid", "country": "MX", "phone": "+525512345678"}, {"Europe/Madrid"}),
    ({"timezone": "Mexico City", "country": "CO"}, {"America/Bogota"}),
    ({"timezone": "../../etc/passwd", "country": "CO"}, {"America/Bogota"}),
    # nothing, or nothing that is a place
    ({}, set()),
    ({"country": "ZZ"}, set()),
    ({"region": "Jalisco"}, set()),
]


@pytest.mark.parametrize(("known", "expected"), ADDRESSES)
def test_an_address_tells_its_zones(known: dict[str, str], expected: set[str]) -> None:
    assert set(timing.candidate_zones(**known)) == expected


def test_a_number_from_abroad_does_not_narrow_the_country() -> None:
    everywhere = timing.candidate_zones(country="MX")
    assert {"America/Mexico_City", "America/Cancun", "America/Tijuana", "America/Mazatlan"} <= set(everywhere)
    assert timing.candidate_zones(country="MX", phone="+12125550123") == everywhere
    assert timing.candidate_zones(country="MX", region="no such state") == everywhere


def data_rows(name: str) -> Iterator[dict[str, str]]:
    with files("outreach").joinpath("data", name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


@pytest.mark.parametrize("name", ["phone_zones.csv", "region_zones.csv", "postcode_zones.csv"])
def test_every_row_of_the_zone_tables_is_dated_sourced_and_names_real_zones(name: str) -> None:
    for row in data_rows(name):
        assert None not in row
        assert date.fromisoformat(row["as_of"]) <= date(2100, 1, 1)
        assert row["source"]
        assert row["zones"]
        assert all(timing.is_zone(zone) for zone in row["zones"].split())


def test_no_region_is_given_two_answers() -> None:
    seen: dict[tuple[str, str], str] = {}
    for row in data_rows("region_zones.csv"):
        for region in row["regions"].split("|"):
            key = row["country"], timing._plain(region)
            assert seen.setdefault(key, row["zones"]) == row["zones"], key


@pytest.mark.parametrize("country", ["MX", "BR"])
def test_the_states_of_a_country_cover_all_its_times(country: str) -> None:
    named = {
        zone for row in data_rows("region_zones.csv") if row["country"] == country for zone in row["zones"].split()
    }
    assert {timing._changes(zone) for zone in named} == {
        timing._changes(zone) for zone in timing._country_zones()[country]
    }


@pytest.mark.parametrize("first", ["MX", "BR", "US", "AR", "ES"])
def test_zones_named_once_stand_for_all_that_keep_their_time(first: str) -> None:
    kept = timing.candidate_zones(country=first)
    hour = timedelta(hours=1)
    for name in timing._country_zones()[first]:
        same = [
            other
            for other in kept
            if all(
                (at := utc("2026-01-01") + n * hour).astimezone(timing.zone(name)).utcoffset()
                == at.astimezone(timing.zone(other)).utcoffset()
                for n in range(0, 366 * 24, 3)
            )
        ]
        assert same, name


# The rules of zones


@pytest.mark.parametrize(
    "name", ["", "Nowhere", "America", "../UTC", "/etc/localtime", "America/", "zone.tab", "Factory"]
)
def test_what_names_no_zone_is_refused(name: str) -> None:
    assert not timing.is_zone(name)
    with pytest.raises(ValueError, match="America/Mexico_City"):
        timing.zone(name)


def test_no_clock_changes_twice_within_five_days() -> None:
    for names in timing._country_zones().values():
        for name in names:
            times_ = [at for at in _transitions(name) if at >= 946_684_800]  # since 2000
            assert all(later - earlier > 5 * 86_400 for earlier, later in pairwise(times_)), name


def _transitions(name: str) -> tuple[int, ...]:
    """The times at which a zone's rules change, read from its file (RFC 8536, section 3)."""
    data = files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    isut, isstd, leap, count, types, chars = struct.unpack(">6L", data[20:44])
    second = 44 + count * 5 + types * 6 + chars + leap * 8 + isstd + isut
    count = struct.unpack(">L", data[second + 32 : second + 36])[0]
    return struct.unpack(f">{count}q", data[second + 44 : second + 44 + 8 * count])


@example(where=("Pacific/Apia", utc("2011-12-29T12:00")))
@given(places_and_moments())
def test_a_year_is_cut_into_pieces_of_one_offset_each(where: tuple[str, datetime]) -> None:
    zone, start = where
    pieces = list(timing._stretches(start, start + 366 * DAY, timing.zone(zone)))
    assert pieces[0][0] == start
    assert pieces[-1][1] == start + 366 * DAY
    assert all(one[1] == two[0] for one, two in pairwise(pieces))
    for first, last, offset in pieces:
        for at in (first, first + (last - first) / 2, last - timedelta(microseconds=1)):
            assert at.astimezone(timing.zone(zone)).utcoffset() == offset
