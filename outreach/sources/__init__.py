"""
Sources: where customers and orders come from, one file per kind, one row each in SOURCES.

A source hands over tables of text cells under the canonical column names (DESIGN 6.4). It
guarantees, per table: the columns are known and the whole input was readable before the first row
is handed over; all rows with one key (`KEYS`) come together, in one batch, in the input's order.
What cells mean is the importer's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outreach.errors import ImportFileError
from outreach.settings import SourceSettings

REQUIRED = {
    "suppressions": ("address",),
    "customers": ("customer_id",),
    "orders": ("order_id", "customer_id", "placed_at"),
    "cases": ("case_id", "customer_id", "kind", "opened_at"),
    "events": ("event_id", "customer_id", "name", "at"),
}  # in the order in which an import takes the tables: do-not-contact lists come first
OPTIONAL = {
    "suppressions": (),
    "customers": (
        "email", "phone", "first_name", "last_name", "locale", "country", "region", "city", "postal_code", "timezone",
        "birthday", "created_at", "tags", "messenger_id",
        "email_consent", "sms_consent", "whatsapp_consent", "messenger_consent", "call_consent", "visit_consent",
        "consent_at", "consent_source",
    ),
    "orders": (
        "status", "paid_at", "shipped_at", "delivered_at", "cancelled_at", "refunded_at", "currency", "total",
        "coupon_code", "sku", "product", "category", "quantity", "unit_price",
    ),
    "cases": ("category", "sku", "answered_at", "closed_at", "outcome", "order_id", "note"),
    "events": (),
}  # fmt: skip
TABLES = tuple(REQUIRED)
KEYS = {name: columns[0] for name, columns in REQUIRED.items()}


@dataclass(frozen=True)
class Refusal:
    """A row that is no row, or a value that cannot be used; `line` counts from 1."""

    line: int
    column: str
    value: str
    reason: str
    customer: str = ""  # whose row it is, by the shop's id, where that can be read


@dataclass(frozen=True)
class Batch:
    """Rows of text cells in the order of the table's columns, and the line on which each begins."""

    lines: Sequence[int]
    rows: Sequence[Sequence[str]]
    refusals: Sequence[Refusal]
    bytes_done: int


@dataclass(frozen=True)
class Table:
    """One table of a source. Columns named "" are to be ignored."""

    name: str
    file: str  # as the user knows it, for error texts
    columns: tuple[str, ...]
    bytes_total: int
    batches: Callable[[], Iterator[Batch]]
    scope: str = "marketing"  # of suppressions


class Source(Protocol):
    """Anything that can be imported."""

    def tables(self) -> list[Table]:
        """The tables it has, looked through whole; ImportFileError when one cannot be imported at all."""
        ...


def open_source(source: SourceSettings, workspace: Path) -> Source:
    """The source that the settings name; relative files are the workspace's. ImportFileError for an unknown kind."""
    if source.kind not in SOURCES:
        raise ImportFileError(f"a source of kind {source.kind!r} is unknown: use {', '.join(SOURCES)}")
    return SOURCES[source.kind](source, workspace)


def _csv(source: SourceSettings, workspace: Path) -> Source:
    from outreach.sources.csv import CsvSource

    return CsvSource({name: workspace / file for name, file in source.files.items()}, source.format)


SOURCES: dict[str, Callable[[SourceSettings, Path], Source]] = {"csv": _csv}
