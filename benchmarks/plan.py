"""
How much a tick of `plan` costs: idle over a long history, and with new occasions.

    python benchmarks/plan.py [CUSTOMERS] [ORDERS_EACH] [NEW_OCCASIONS]

Prints, on SQLite in a temporary folder:
- an idle tick of 12 campaigns over CUSTOMERS x ORDERS_EACH orders, and over a tenth of them;
- enrolling and planning NEW_OCCASIONS, per second, beside a bare loop that inserts as many rows
  of the same two tables, and the longest single transaction.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event, insert

from outreach import collect_less_often, planner, releases, store
from outreach.models import Enrolment, Fresh, Message, table, to_micros
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import Database

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
TEMPLATE = "---\nsubject: Hola\n---\n<p>Hola</p> <a href='{{ links.unsubscribe }}'>baja</a>"
LAPSES = [30, 45, 60, 90, 120, 150, 180, 365]


def campaign(trigger: str, purpose: str = "service", more: str = "") -> str:
    return (
        f"title: Benchmark\npurpose: {purpose}\ntrigger: {trigger}\n{more}"
        "steps:\n  - {id: one, after: 0 days, channel: email, template: m}\n"
    )


def twelve_campaigns() -> dict[str, str]:
    """Eight lapses of various ages and four order events: what a busy shop runs."""
    texts = {f"lapse_{days}": campaign(f"{{event: customer.inactive, after: {days} days}}") for days in LAPSES}
    for name in ("placed", "paid", "shipped", "delivered"):
        texts[name] = campaign(f"{{event: order.{name}}}")
    return texts


def publish(db: Database, settings: Settings, texts: dict[str, str]) -> None:
    files = {f"campaigns/{name}.yaml": text for name, text in texts.items()}
    files |= {"message_templates/m.email.j2": TEMPLATE, releases.CATALOGUE: json.dumps({})}
    releases.publish(db, settings, files, NOW)


def fill(db: Database, customers: int, orders_each: int) -> None:
    """Customers whose last orders are spread over two years, and their orders, without going through import."""
    span = timedelta(days=730)
    with db.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        cursor: Any = raw.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(
            "INSERT INTO contacts (id, kind, address, address_hash) VALUES (?, 'email', ?, ?)",
            ((i, f"c{i}@example.com", f"{i:032x}") for i in range(1, customers + 1)),
        )
        cursor.executemany(
            "INSERT INTO customers (id, external_id, email_id, zones, tags, attributes, row_hash)"
            " VALUES (?, ?, ?, 'America/Mexico_City', '[]', '{}', x'')",
            ((i, f"c{i}", i) for i in range(1, customers + 1)),
        )
        start, step = to_micros(NOW - span), span // timedelta(microseconds=1) // customers
        cursor.executemany(
            "INSERT INTO customer_stats (customer_id, orders_count, total_spent, first_order_at, last_order_at, last_order_id)"
            " VALUES (?, ?, 1000, ?, ?, ?)",
            ((i, orders_each, start, start + i * step, i * orders_each) for i in range(1, customers + 1)),
        )
        cursor.executemany(
            "INSERT INTO orders (id, external_id, customer_id, placed_at, currency, total, counted, attributes, row_hash)"
            " VALUES (?, ?, ?, ?, 'MXN', 1000, 1, '{}', x'')",
            (
                (n, f"o{n}", i, start + i * step - (i * orders_each - n) * 86_400_000_000)
                for i in range(1, customers + 1)
                for n in range((i - 1) * orders_each + 1, i * orders_each + 1)
            ),
        )
        cursor.execute("COMMIT")


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def idle_tick(folder: Path, customers: int, orders_each: int) -> float:
    """Median seconds of a tick, a minute apart each, once the first has caught up."""
    settings = the_settings(folder)
    db = store.open_database(f"sqlite:///{folder / f'idle-{customers}.db'}", secret="benchmark")
    fill(db, customers, orders_each)
    publish(db, settings, twelve_campaigns())
    planner.plan(db, settings, NOW + timedelta(microseconds=1))
    moments = [NOW + timedelta(seconds=n) for n in range(1, 12)]
    return statistics.median(timed(partial(planner.plan, db, settings, moment)) for moment in moments)


def the_settings(folder: Path) -> Settings:
    business = Business("Benchmark", "America/Mexico_City", "MXN", "es-MX", "MX")
    return Settings(workspace=folder, business=business, channels={"email": ChannelSettings("outbox", "x@example.com")})


def new_occasions(folder: Path, count: int) -> tuple[float, float, float]:
    """Seconds to enrol and plan `count` delivered orders; the longest transaction; seconds of the bare loop."""
    settings = the_settings(folder)
    db = store.open_database(f"sqlite:///{folder / 'new.db'}", secret="benchmark")
    fill(db, count, 1)
    publish(db, settings, {"delivered": campaign("{event: order.delivered}", more="brake: 100000000\n")})
    at = NOW + timedelta(minutes=1)
    with store.write(db) as connection:
        connection.exec_driver_sql(f"UPDATE orders SET delivered_at = {to_micros(at)} + id")  # no two alike
        rows = [{"kind": "order.delivered", "record_id": i, "customer_id": i, "at": at} for i in range(1, count + 1)]
        connection.execute(insert(table(Fresh)), rows)
    longest = watch_transactions(db)
    seconds = timed(lambda: planner.plan(db, settings, NOW + timedelta(minutes=2)))
    with store.read(db) as connection:
        written = connection.exec_driver_sql("SELECT count(*) FROM messages WHERE status = 'planned'").scalar()
    assert written == count, written
    return seconds, max(longest), bare_loop(folder, db, count)


def watch_transactions(db: Database) -> list[float]:
    """Seconds of every writing transaction from now on."""
    lengths, begun = [0.0], {}

    @event.listens_for(db.engine, "begin")
    def _begin(connection: object) -> None:
        begun[id(connection)] = time.perf_counter()

    @event.listens_for(db.engine, "commit")
    def _commit(connection: object) -> None:
        options = connection.get_execution_options()  # type: ignore[attr-defined]
        if options.get("outreach_begin"):
            lengths.append(time.perf_counter() - begun.pop(id(connection), time.perf_counter()))

    return lengths


def bare_loop(folder: Path, filled: Database, count: int) -> float:
    """Insert the same enrolments and messages, already made, into an empty database, 1,000 a transaction."""
    db = store.open_database(f"sqlite:///{folder / 'bare.db'}", secret="benchmark")
    total = 0.0
    for model in (Enrolment, Message):
        of = table(model)
        with filled.engine.connect() as connection:
            rows = [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {of.name}")]
        marks = ",".join("?" * len(rows[0]))
        for start in range(0, count, store.BATCH):
            begun = time.perf_counter()
            with store.write(db) as connection:
                connection.exec_driver_sql(f"INSERT INTO {of.name} VALUES ({marks})", rows[start : start + store.BATCH])
            total += time.perf_counter() - begun
    return total


def main() -> None:
    collect_less_often()
    customers, orders_each, count = [*map(int, sys.argv[1:]), *[1_000_000, 10, 100_000][len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = idle_tick(folder, customers // 10, orders_each)
        large = idle_tick(folder, customers, orders_each)
        print(f"idle tick, 12 campaigns, {customers // 10:,} customers: {small * 1000:.1f} ms")
        print(f"idle tick, 12 campaigns, {customers:,} customers: {large * 1000:.1f} ms, {large / small:.2f} times")
        seconds, longest, bare = new_occasions(folder, count)
        rate = f"{count / seconds:,.0f} a second, {seconds / bare:.1f} times a bare loop"
        print(f"{count:,} new occasions enrolled and planned: {rate}")
        print(f"longest transaction: {longest * 1000:.0f} ms")


if __name__ == "__main__":
    main()
