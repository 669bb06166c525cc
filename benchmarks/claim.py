"""
Claim a chunk of messages behind a backlog of deferred ones: `python benchmarks/claim.py [SIZE ...] [--on URL]`.

The goal is under 10 ms behind 1,000,000. Prints milliseconds (median of 31, commit included) and
the ratio to a claim on an empty backlog in the same run. Without `--on`, a SQLite file of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from outreach import store
from outreach.dispatcher import claiming
from outreach.models import to_micros

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
CHUNK, PRIORITIES, ROUNDS = 50, 12, 31
COLUMNS = """public_id, campaign, step, customer_id, occasion, occasion_at, enrolment_id, arm, purpose, priority,
    status, detail, due_at, expires_at, ready_at, refused, attempts, release, created_at"""
ROWS = f"""
    INSERT INTO messages ({COLUMNS})
    WITH RECURSIVE n(i) AS (SELECT CAST(:first AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i < :last)
    SELECT 'm' || i, 'win_back', 'miss', i, 'customer.inactive:' || i, :now, i, 'contact', 'marketing',
        i % {PRIORITIES}, 'planned', '', :now, :ready, :ready + (i % 1000), '', 0, 1, :now
    FROM n
"""


def add(db: store.Database, first: int, last: int, ready: datetime) -> None:
    """Planned messages with the ids `first` to `last`, waiting until `ready`."""
    with store.write(db) as connection:
        values = {"first": first, "last": last, "now": to_micros(NOW), "ready": to_micros(ready)}
        connection.execute(text(ROWS), values)


def claim_time(db: store.Database, due: int) -> float:
    """Seconds that one claim takes, median; each claimed message is handed back, unmeasured."""
    times = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        with store.write(db) as connection:
            rows = claiming.claim(connection, NOW, CHUNK, f"token {number}", NOW + timedelta(minutes=5))
        times.append(time.perf_counter() - start)
        assert len(rows) == due, f"{len(rows)} claimed, not {due}"
        with store.write(db) as connection:
            connection.execute(text("UPDATE messages SET claim = NULL, lease_until = NULL WHERE claim IS NOT NULL"))
    return statistics.median(times)


def measure(db: store.Database, sizes: list[int]) -> None:
    """Add to the backlog size by size, and print what a claim takes."""
    add(db, 1, CHUNK, NOW - timedelta(minutes=1))
    empty = claim_time(db, CHUNK)
    print(f"{0:>12,} deferred: {empty * 1000:7.2f} ms for {CHUNK} due")
    last = CHUNK
    for size in sizes:
        add(db, last + 1, CHUNK + size, NOW + timedelta(hours=9))
        last = CHUNK + size
        taken = claim_time(db, CHUNK)
        print(
            f"{size:>12,} deferred: {taken * 1000:7.2f} ms for {CHUNK} due, {taken / empty:.2f} times the empty backlog"
        )
    with store.write(db) as connection:
        connection.execute(text("UPDATE messages SET status = 'sent' WHERE customer_id <= :chunk"), {"chunk": CHUNK})
    print(f"{sizes[-1]:>12,} deferred: {claim_time(db, 0) * 1000:7.2f} ms where nothing is due")


def main() -> None:
    """Read the arguments and measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    arguments.add_argument("--on", help="the address of an empty database")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.on or f"sqlite:///{Path(folder) / 'outreach.db'}"
        measure(store.open_database(url, upgrade=True), sorted(given.sizes))


if __name__ == "__main__":
    main()
