from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach.values import (
    Duration,
    Limit,
    parse_duration,
    parse_limit,
    parse_share,
    parse_time_of_day,
    parse_week_hours,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90 minutes", Duration(seconds=5400)),
        ("1 hour", Duration(seconds=3600)),
        ("3 days", Duration(days=3)),
        ("2 Weeks", Duration(days=14)),
        ("24 months", Duration(months=24)),
        ("1 year", Duration(months=12)),
        ("0 days", Duration()),
        ("5days", Duration(days=5)),
    ],
)
def test_a_length_of_time_is_read(text: str, expected: Duration) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["3", "days", "3 dayz", "-1 days", "1.5 days", "", "3 m", "s", None, 3, "101 years"])
def test_what_is_no_length_of_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"`90 minutes`|100 years"):
        parse_duration(text)


@given(st.integers(0, 36_500), st.sampled_from(["second", "minute", "hour", "day", "month"]))
def test_a_length_of_time_survives_being_written_and_read(amount: int, unit: str) -> None:
    if unit == "month" and amount > 1200:
        amount %= 1200
    duration = parse_duration(f"{amount} {unit}s")
    assert parse_duration(str(duration)) == duration


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0%", 0.0), ("100 %", 1.0), ("2.5%", 0.025), (0, 0), ("0", 0)]
)
def test_a_share_is_a_percentage(text: object, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0.1", "101%", "-1%", "ten", "10", "", False])
def test_what_is_no_percentage_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="write a percentage such as `10%`"):
        parse_share(text)


def test_a_time_of_day_is_read() -> None:
    assert parse_time_of_day("9:05") == time(9, 5)
    for text in ("24:00", "9", "09:60", 600, "9:5"):
        with pytest.raises(ValueError, match='"10:00"'):
            parse_time_of_day(text)


def test_week_hours_close_the_days_not_named() -> None:
    hours = parse_week_hours({"mon-fri": "09:00-20:00", "sun": "10:00-24:00"})
    assert hours.days == (*[(540, 1200)] * 5, None, (600, 1440))


def test_a_range_of_days_may_run_over_sunday() -> None:
    assert [bool(day) for day in parse_week_hours({"sat-mon": "09:00-20:00"}).days] == [True, *[False] * 4, True, True]


@pytest.mark.parametrize(
    ("hours", "says"),
    [
        ({"mon": "21:00-09:00"}, r'runs over midnight.*such as "09:00-21:00"'),
        ({"mon-fri": "09:00-20:00", "fri": "10:00-11:00"}, "fri has two windows"),
        ({"lun": "09:00-20:00"}, "names no weekday: use mon, tue"),
        ({"mon": "9-20"}, '"09:00-20:00"'),
        ({"mon": "09:00-25:00"}, "of one day"),
        ({"mon": "09:00-09:61"}, "of one day"),
        ({}, "sending hours are written"),
        ("mon-fri", "sending hours are written"),
    ],
)
def test_wrong_week_hours_say_what_is_right(hours: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_week_hours(hours)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("once per 180 days", Limit(1, Duration(days=180))),
        ("twice per week", Limit(2, Duration(days=7))),
        ("50 per day", Limit(50, Duration(days=1))),
        ("3 per 7 days", Limit(3, Duration(days=7))),
    ],
)
def test_a_limit_is_read(text: str, expected: Limit) -> None:
    assert parse_limit(text) == expected


@pytest.mark.parametrize("text", ["0 per day", "3 per 0 days", "often", "3", None, "1 per"])
def test_what_is_no_limit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="once per 180 days"):
        parse_limit(text)
