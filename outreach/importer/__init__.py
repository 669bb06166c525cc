"""
Sources → customers, orders, cases, events, suppressions, and all that hangs on them (DESIGN 3.1).

Upsert by the shop's ids, in transactions of at most a thousand records, each complete in itself:
cut off anywhere, the same import run again does what is left. Importing the same files twice
changes nothing the second time. A bad row is refused with its place, value and reason and the rest
goes in; a bad optional value is refused alone.

```
cells         what the text of a cell means
people        customers: contacts, tags, dates, time zones   consents   the ledger
orders        orders and their lines    order_rows  read     totals     customer_stats, customer_months
records       cases and the shop's events                    suppressions
writing       transactions, bulk SQL, `fresh`, rejects       reaching   whom the shop may write to
```
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, update

from outreach import store
from outreach.importer import orders, people, records, suppressions, totals
from outreach.importer.cells import Months
from outreach.importer.reaching import Reach, reach
from outreach.importer.writing import Counts, ImportCounts, Progress, Run, forget_rejects, settle
from outreach.models import Import
from outreach.models import table as table_of
from outreach.settings import Settings
from outreach.sources import Source
from outreach.store import Database

__all__ = ["Counts", "ImportCounts", "Reach", "import_source", "reach"]

_TAKE = {
    "suppressions": suppressions.take,
    "customers": people.take,
    "orders": orders.take,
    "cases": records.take_cases,
    "events": records.take_events,
}


def import_source(
    db: Database, settings: Settings, source: Source, now: datetime, *, progress: Progress | None = None
) -> ImportCounts:
    """
    Import every table of the source; safe to cut off and to repeat.

    `progress(table, rows done, bytes done, bytes in all)` is called after every batch.

    Raises:
        ImportFileError: an input cannot be read at all; then nothing was written.
        DatabaseError: the database cannot be used; what was committed stays and is complete.
    """
    tables = source.tables()
    counts = ImportCounts()
    run = Run(db, settings, now, _begun(db, now), counts, Months(settings.business.timezone), progress)
    try:
        totals.rebuild(run)
        for table in tables:
            _TAKE[table.name](run, table)
        with store.write(db) as connection:
            done = {"finished_at": now, "counts": counts.as_json()}
            connection.execute(update(Import).where(table_of(Import).c.id == run.id).values(done))
        forget_rejects(run)
    finally:
        settle(db)
    return counts


def _begun(db: Database, now: datetime) -> int:
    with store.write(db) as connection:
        statement = insert(Import).values(started_at=now, counts={}).returning(table_of(Import).c.id)
        return int(connection.execute(statement).scalar_one())
