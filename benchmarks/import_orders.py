"""
Importing orders against a bare loop: `python benchmarks/import_orders.py [ROWS]`, by default 1,000,000.

The bare loop is `csv.reader` and `sqlite3.executemany` of the same rows into one table without an
index, in the same run, before and after. Aims: at most 8 times its wall time, roll-ups included, and
under 300 MB at the peak. Every measured step runs in a process of its own.
"""

from __future__ import annotations

import csv
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import babel.numbers
import phonenumbers

from outreach import importer, store
from outreach.settings import Business, Settings
from outreach.sources.csv import CsvSource

LOADED = (babel.numbers, phonenumbers)  # late imports of the importer: starting up is not what is measured
CUSTOMERS = 100_000
NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
DAYS = 1_100
ZONE = "America/Mexico_City"
HEADER = ("order_id", "customer_id", "placed_at", "status", "currency", "total")
LINES = ("sku", "product", "quantity", "unit_price")


def write_orders(path: Path, rows: int, *, with_lines: bool) -> None:
    """Seeded orders of the last three years, in the order of their time, one line each."""
    chance = random.Random(1)
    first, step = NOW - timedelta(days=DAYS), timedelta(days=DAYS) / rows
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER + LINES if with_lines else HEADER)
        for n in range(rows):
            pieces, price = chance.randint(1, 4), chance.randint(100, 90_000)
            at = (first + n * step).strftime("%Y-%m-%d %H:%M:%S")
            order = (
                f"A{n + 1:08d}",
                f"c{chance.randrange(CUSTOMERS)}",
                at,
                "paid",
                "MXN",
                f"{pieces * price / 100:.2f}",
            )
            line = (f"SKU{price % 977}", f"Producto {price % 977}", pieces, f"{price / 100:.2f}")
            writer.writerow(order + line if with_lines else order)


def bare(path: Path, folder: Path) -> None:
    """The loop to compare with."""
    (folder / "bare.db").unlink(missing_ok=True)
    connection = sqlite3.connect(folder / "bare.db")
    with path.open(newline="") as file, connection:
        rows = csv.reader(file)
        names = next(rows)
        connection.execute(f"CREATE TABLE orders ({', '.join(names)})")
        connection.executemany(f"INSERT INTO orders VALUES ({', '.join('?' * len(names))})", rows)
    connection.close()


def ours(path: Path, folder: Path) -> None:
    """The same file through the importer, into a new SQLite database."""
    settings = Settings(workspace=folder, business=Business("Bench", ZONE, "MXN"))
    db = store.open_database(database_of(folder), timezone=ZONE)
    counts = importer.import_source(db, settings, CsvSource({"orders": path}), NOW)
    assert counts.orders.read == counts.orders.created + counts.orders.unchanged, counts


def database_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'outreach.db'}"


def measured(step: str, path: Path, folder: Path) -> dict[str, float]:
    """Seconds of wall and processor time and peak megabytes of one step in a process of its own."""
    done = subprocess.run([sys.executable, __file__, step, path, folder], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def step(name: str, path: Path, folder: Path) -> None:
    began, processor = time.perf_counter(), time.process_time()
    {"bare": bare, "ours": ours}[name](path, folder)
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - began,
                "processor": time.process_time() - processor,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def main(rows: int) -> None:
    for with_lines in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "orders.csv"
            write_orders(path, rows, with_lines=with_lines)
            print(f"{rows:,} orders of {CUSTOMERS:,} customers, {'one line each' if with_lines else 'no lines'}")
            store.open_database(database_of(folder), timezone=ZONE)  # its tables are not what is measured either
            before, imported, again, after = (measured(what, path, folder) for what in ("bare", "ours", "ours", "bare"))
            loop = {name: (before[name] + after[name]) / 2 for name in before}
            for label, took in (("bare loop, mean of two", loop), ("import", imported), ("import again", again)):
                print(
                    f"  {label:22} {took['wall']:7.2f} s  {took['wall'] / loop['wall']:5.2f} x"
                    f"  (processor {took['processor']:6.2f} s, {took['processor'] / loop['processor']:5.2f} x)"
                    f"  {rows / took['wall']:9,.0f} orders/s  {took['megabytes']:5.0f} MB"
                )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        step(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
