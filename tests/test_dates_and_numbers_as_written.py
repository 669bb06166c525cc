"""Dates with a time of day, and phone numbers in forms that were abolished, as files still have them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from outreach.addresses import normal_phone
from outreach.models import CustomerDate
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, rows_of, shop_settings


@pytest.mark.parametrize(
    ("cell", "dates"),
    [
        ("2026-06-20", ["2026-06-20"]),
        ("2026-06-20 00:00:00", ["2026-06-20"]),
        ("2026-06-20T00:00:00Z", ["2026-06-20"]),
        ("2026-06-20T23:30:00.000-06:00", ["2026-06-20"]),
        ("2026-06-31 00:00:00", []),
        ("2026-06-20 25:00", []),
        ("20/06/2026", []),  # day or month first: nobody knows
        ("soon", []),
    ],
)
def test_a_date_of_a_customer_is_the_one_that_a_date_or_timestamp_is_written_with(
    db: Database, tmp_path: Path, cell: str, dates: list[str]
) -> None:
    settings, row = shop_settings(tmp_path), customer(1, warranty_end=cell)
    feed(db, settings, NOW, customers=[row])
    again = feed(db, settings, NOW + timedelta(days=1), customers=[row])

    found = rows_of(db, CustomerDate)
    assert [(one.name, one.on_date, one.month_day) for one in found] == [("warranty_end", day, 620) for day in dates]
    assert again.customers.unchanged == 1


@pytest.mark.parametrize(
    ("text", "country", "normal"),
    [
        ("044 55 1234 5678", "MX", "+525512345678"),
        ("045 664 123 4567", "MX", "+526641234567"),
        ("01 55 1234 5678", "MX", "+525512345678"),
        ("+52 044 55 1234 5678", None, "+525512345678"),
        ("5215512345678", "MX", "+525512345678"),
        ("09 8765 4321", "CL", "+56987654321"),
        ("+56 09 8765 4321", None, "+56987654321"),
    ],
)
def test_a_prefix_that_was_abolished_is_dropped(text: str, country: str | None, normal: str) -> None:
    assert normal_phone(text, country) == normal


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("044 1234 5678", "MX"),  # a digit short of a number without its prefix
        ("044 05 1234 5678", "MX"),
        ("046 55 1234 5678", "MX"),
        ("0 55 1234 5678", "MX"),
        ("09 8765 432", "CL"),
        ("08 8765 4321", "CL"),
    ],
)
def test_nothing_else_is_dropped_to_make_a_number(text: str, country: str) -> None:
    with pytest.raises(ValueError, match="no number that can exist"):
        normal_phone(text, country)
