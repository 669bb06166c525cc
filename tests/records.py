"""
Real records: the invoices of Online Retail II (UCI, Chen 2012), read where they lie and written as the canonical files.

A test module that needs them takes the fixture over by `real_shop = records.real_shop`. It skips
where the folder of real records is missing, and fails there when CI=true.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
INVOICES = "online_retail_ii_invoices.csv.gz"

SETTINGS = """\
business: {name: Online Retail, timezone: Europe/London, currency: GBP, country: GB, locale: en}
"""
COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Brazil": "BR", "Canada": "CA", "Cyprus": "CY",
    "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE", "Finland": "FI", "France": "FR", "Germany": "DE", "Greece": "GR",
    "Iceland": "IS", "Israel": "IL", "Italy": "IT", "Japan": "JP", "Korea": "KR", "Lebanon": "LB", "Lithuania": "LT", "Malta": "MT",
    "Netherlands": "NL", "Nigeria": "NG", "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Saudi Arabia": "SA",
    "Singapore": "SG", "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "Thailand": "TH", "USA": "US",
    "United Arab Emirates": "AE", "United Kingdom": "GB",
}  # fmt: skip


@dataclass(frozen=True)
class Invoice:
    """One line of the file; `at` is the local time, naive."""

    id: str
    customer: str
    at: datetime
    is_cancellation: bool
    amount: str  # GBP, negative on cancellations
    country: str

    @property
    def is_counted(self) -> bool:
        """Whether it is an order that counts: no cancellation, amount over zero."""
        return not self.is_cancellation and float(self.amount) > 0


@dataclass(frozen=True)
class RealShop:
    """The canonical files, and the invoices they were made from, in the order of time."""

    settings: str  # of outreach.yaml
    customers: Path
    orders: Path
    cases: Path
    invoices: tuple[Invoice, ...]


def shared_file(name: str) -> Path:
    """A file of real records; skips the test where there is none, and fails it in CI."""
    path = SHARED / name
    if not path.is_file():
        reason = f"the real records are not here: {name} belongs in ../shared/data"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def invoices(path: Path) -> Iterator[Invoice]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["invoiced_at"])
            is_cancellation = row["is_cancellation"] == "1"
            yield Invoice(row["invoice_id"], row["customer_id"], at, is_cancellation, row["amount"], row["country"])


def write_orders(path: Path, some: Iterable[Invoice]) -> Path:
    """Every invoice that is no cancellation, as an order."""
    columns = ("order_id", "customer_id", "placed_at", "currency", "total")
    rows = (
        (one.id, one.customer, f"{one.at:%Y-%m-%d %H:%M}", "GBP", one.amount) for one in some if not one.is_cancellation
    )
    return _write(path, columns, rows)


def write_cases(path: Path, some: Iterable[Invoice]) -> Path:
    """Every cancellation, as a return that was opened and settled at once."""
    columns = ("case_id", "customer_id", "kind", "opened_at", "closed_at", "outcome")
    at = "%Y-%m-%d %H:%M"
    rows = (
        (one.id, one.customer, "return", one.at.strftime(at), one.at.strftime(at), "resolved")
        for one in some
        if one.is_cancellation
    )
    return _write(path, columns, rows)


def write_customers(path: Path, some: Iterable[Invoice]) -> Path:
    """Every customer with an address reserved for examples, who agreed to everything before the first invoice."""
    countries: dict[str, str] = {}
    for one in some:
        countries.setdefault(one.customer, COUNTRIES.get(one.country, ""))
    columns = ("customer_id", "email", "country", "email_consent", "consent_at")
    rows = ((name, f"c{name}@example.com", country, "yes", "2009-11-30") for name, country in sorted(countries.items()))
    return _write(path, columns, rows)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(rows)
    return path


@pytest.fixture(scope="session")
def real_shop(tmp_path_factory: pytest.TempPathFactory) -> RealShop:
    """The canonical files of Online Retail II: 36,975 orders, 7,897 returns, 5,942 customers."""
    read = tuple(sorted(invoices(shared_file(INVOICES)), key=lambda one: (one.at, one.id)))
    folder = tmp_path_factory.mktemp("online_retail")
    return RealShop(
        settings=SETTINGS,
        customers=write_customers(folder / "customers.csv", read),
        orders=write_orders(folder / "orders.csv", read),
        cases=write_cases(folder / "cases.csv", read),
        invoices=read,
    )
