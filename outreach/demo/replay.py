"""
The sample shop's last months, lived through by the real stages: import, plan, dispatch under a moving `now`.

Records become known as time passes: every morning the shop's export holds what changed since the last one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import event

from outreach import dispatcher, importer, planner, releases, settings, starter_kit, store
from outreach.campaigns import schema
from outreach.demo.market import ZONE
from outreach.demo.shop import Shop, write_shop, write_slice
from outreach.settings import SETTINGS_FILE, Settings
from outreach.sources.csv import CsvSource
from outreach.store import Database

CAMPAIGNS = ("post_sale", "review_request", "second_purchase", "win_back")  # of the starter kit, those played here
DAYS = 92  # how long before `now` the campaigns are switched on
# When it is morning in Spain, and morning in all of Mexico, noon in the south. UTC.
TICKS = (time(10, 5), time(17, 5))

SETTINGS = """\
# The settings of the sample shop. Nothing leaves this machine: every channel writes files into outbox/.
business:
  name: Tienda Luna
  timezone: America/Mexico_City
  currency: MXN
  locale: es-MX
  country: MX
  postal_address: Calle del Ejemplo 1, 06600 Ciudad de México
  links:
    returns: https://tiendaluna.example/devoluciones
    help: https://tiendaluna.example/ayuda
    review: https://tiendaluna.example/opinion

database: sqlite:///outreach.db

channels:
  email: {provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}
  sms: {provider: outbox, from: "+525500000000"}
  whatsapp: {provider: outbox, from: "+525500000000"}
  call: {provider: staff}

# When sending is allowed, in the customer's own time.
sending_hours:
  default: {mon-fri: "09:00-20:00", sat: "10:00-15:00"}
  email: {mon-sun: "07:00-22:00"}

# How often a person may be contacted.
caps:
  - {purpose: marketing, messages: 1, per: 1 day}
  - {purpose: marketing, messages: 3, per: 7 days}
  - {purpose: service, messages: 3, per: 1 day}

# Exports often lack delivery dates: how to estimate them.
orders: {delivered: {else: shipped + 12 days}}

sources:
  - {kind: csv, customers: data/customers.csv, orders: data/orders.csv, cases: data/cases.csv, suppressions: data/do_not_contact.csv}

segments:
  vip: "orders_count >= 5"
  unhappy: "last_csat <= 2"

surveys:
  csat:
    question: {es: "¿Quedaste contento con tu compra?", en: "Are you happy with what you bought?"}
    scale: 1-5
    satisfied: 4-5
  support:
    question: {es: "¿Qué tan bien te atendimos?", en: "How well did we look after you?"}
    scale: 1-5
    satisfied: 4-5
  nps: {scale: 0-10, kind: nps}

# What the campaigns give away.
"""
SETTINGS += starter_kit.OFFERS


@dataclass(frozen=True)
class Replay:
    """A workspace of the sample shop, its campaigns published at `began`, to be lived through until `now`."""

    settings: Settings
    db: Database
    shop: Shop
    began: datetime
    now: datetime


def prepare(
    folder: Path,
    *,
    now: datetime,
    customers: int = 2000,
    days: int = DAYS,
    campaigns: Collection[str] | None = CAMPAIGNS,
    db: Database | None = None,
) -> Replay:
    """
    Make a workspace in `folder`, import the shop's history up to `days` ago, and publish the starter campaigns then.

    So they see only what comes after. `campaigns` None means all of the kit; `db` takes the place of the
    workspace's own database.
    """
    written = set_up(folder, campaigns)
    shop = write_shop(folder / "data", today=now.astimezone(ZoneInfo(ZONE)).date(), customers=customers)
    began = utc(shop.end) - timedelta(days=days)
    db = db or _opened(written)
    replay = Replay(written, db, shop, began, now)
    import_changes(replay, None, began)
    releases.publish(db, written, releases.read_files(folder), began, note="the starter campaigns")
    return replay


def live(replay: Replay) -> Iterator[tuple[datetime, int]]:
    """Import, plan and dispatch at every tick until `now`; after each: when it was, and how many messages are sent."""
    since, sent = replay.began, 0
    for at, is_morning in moments(replay.began, replay.now):
        if is_morning:
            import_changes(replay, since, at)
            since = at
        planner.plan(replay.db, replay.settings, at)
        sent += dispatcher.dispatch(replay.db, replay.settings, at).sent
        yield at, sent


def set_up(folder: Path, campaigns: Collection[str] | None = CAMPAIGNS) -> Settings:
    """A workspace in `folder`: settings, starter campaigns and the templates. The environment plays no part in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS_FILE).write_text(SETTINGS, encoding="utf-8")
    starter_kit.copy_into(folder, campaigns=campaigns)
    written = settings.load(folder, {})
    completion = json.dumps(schema(written), ensure_ascii=False, indent=2)  # editors complete by it
    (folder / "campaigns" / ".campaign.schema.json").write_text(completion + "\n", encoding="utf-8")
    return written


def _opened(written: Settings) -> Database:
    """The workspace's database, not waiting for the disk: a power cut would cost a demo, not a shop."""
    db = store.open_database(written.database, timezone=written.business.timezone)

    @event.listens_for(db.engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    return db


def moments(began: datetime, now: datetime, ticks: Sequence[time] = TICKS) -> Iterator[tuple[datetime, bool]]:
    """The ticks after `began` up to `now`, which is the last, and whether each is its day's first."""
    day = began.astimezone(UTC).date()
    while day <= now.astimezone(UTC).date():
        for tick in ticks:
            at = datetime.combine(day, tick, tzinfo=UTC)
            if began < at < now:
                yield at, tick == ticks[0]
        day += timedelta(days=1)
    yield now, True


def utc(at: datetime) -> datetime:
    """When it is so much on the shop's wall clock."""
    return at.replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC)


def on_the_wall(at: datetime) -> datetime:
    """A moment on the shop's wall clock."""
    return at.astimezone(ZoneInfo(ZONE)).replace(tzinfo=None)


def import_changes(replay: Replay, since: datetime | None, now: datetime) -> None:
    """Import the shop's export of `now`, which holds all that changed after `since`; it stays beside the whole files."""
    export = replay.shop.folder / "exports" / on_the_wall(now).date().isoformat()
    files = write_slice(replay.shop, export, since and on_the_wall(since), on_the_wall(now))
    importer.import_source(replay.db, replay.settings, CsvSource(files), now)
