"""
A small shop for tests: settings, records fed through the real importer, campaigns published for real.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlmodel import SQLModel

from outreach import importer, releases, store
from outreach.models import Status, table
from outreach.settings import Business, ChannelSettings, Settings
from outreach.sources.csv import CsvSource
from outreach.store import Database
from outreach.values import WeekHours

ALWAYS = WeekHours(((0, 1440),) * 7)
PLAIN = "Hola {{ customer.first_name }}"
EMAIL = "---\nsubject: Hola\n---\n<p>Hola</p> <a href='{{ links.unsubscribe }}'>baja</a>"


def shop_settings(folder: Path, **changes: Any) -> Settings:
    """A Mexican shop with an outbox for every channel, open at all hours and without caps."""
    settings = Settings(
        workspace=folder,
        business=Business("Tienda Luna", "America/Mexico_City", "MXN", "es-MX", "MX"),
        channels={
            "email": ChannelSettings("outbox", "Tienda Luna <hola@tiendaluna.example>"),
            "sms": ChannelSettings("outbox", "+525500000000"),
            "whatsapp": ChannelSettings("outbox", "+525500000000"),
        },
        sending_hours={"default": ALWAYS},
        events={"cart.abandoned": ("url",)},
    )
    return replace(settings, **changes)


def customer(number: int | str, **cells: Any) -> dict[str, Any]:
    """A reachable customer who allowed everything long ago."""
    return {
        "customer_id": f"c{number}",
        "email": f"c{number}@example.com",
        "phone": f"+5255{41000000 + int(number):08d}" if str(number).isdigit() else "",
        "first_name": "Ana",
        "email_consent": "yes",
        "sms_consent": "yes",
        "whatsapp_consent": "yes",
        "consent_at": "2020-01-01T00:00:00Z",
        **cells,
    }


def order(number: int | str, customer_id: str, placed_at: datetime | str, **cells: Any) -> dict[str, Any]:
    """A counted order."""
    return {
        "order_id": f"o{number}",
        "customer_id": customer_id,
        "placed_at": _cell(placed_at),
        "total": "100.00",
        **cells,
    }


def _cell(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The rows as a canonical CSV file; a row's missing cells are empty."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return path


def feed(
    db: Database, settings: Settings, now: datetime, **tables: Iterable[Mapping[str, Any]]
) -> importer.ImportCounts:
    """Import `customers=[…]`, `orders=[…]`, `cases=[…]`, `events=[…]` through real CSV files."""
    folder = settings.workspace / f"feed-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    files = {name: write_csv(folder / f"{name}.csv", rows) for name, rows in tables.items() if rows}
    return importer.import_source(db, settings, CsvSource(files), now)


TEMPLATES = {
    f"message_templates/m.{channel}.j2": text
    for channel, text in (("sms", PLAIN), ("whatsapp", PLAIN), ("email", EMAIL))
}


def files_of(templates: Mapping[str, str] | None = None, /, **campaigns: str) -> dict[str, str]:
    """The files of a release: campaigns as YAML by name, and template `m` for every channel."""
    files = {f"campaigns/{name}.yaml": dedent(text) for name, text in campaigns.items()}
    return {
        **files,
        **TEMPLATES,
        **(templates or {}),
        releases.CATALOGUE: json.dumps({"events": {"cart.abandoned": {"fields": ["url"]}}}),
    }


def publish(db: Database, settings: Settings, now: datetime, **campaigns: str) -> int:
    """Publish exactly these campaigns."""
    return releases.publish(db, settings, files_of(**campaigns), now)


def rows_of(db: Database, model: type[SQLModel], **equals: Any) -> list[Any]:
    """Every row of a table, by id, whose columns equal what is given."""
    of = table(model)
    with store.read(db) as connection:
        query = select(of).where(*(of.c[name] == value for name, value in equals.items()))
        return list(connection.execute(query.order_by(*of.primary_key.columns)).all())


ENDED = frozenset(Status) - {Status.PLANNED, Status.SENDING}
