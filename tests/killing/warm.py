"""
For the server that processes are forked from, which imports this first: a small shop's day.

So the server has what else each process would load and compile by itself, for half of its short life.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from outreach import dispatcher, importer, planner, reconciler, releases, store
from outreach.sources.csv import CsvSource
from tests.conftest import NOW, SECRET, share_statements
from tests.killing import records
from tests.shop import files_of, shop_settings


def _live(folder: Path) -> None:
    settings = shop_settings(folder)
    db = store.open_database(f"sqlite:///{folder / 'outreach.db'}", secret=SECRET)
    for now, files, later in (
        (NOW, records.CAMPAIGNS, False),
        (records.LATER, records.NEXT, True),
    ):
        releases.publish(db, settings, files_of(**files), now - timedelta(days=1))
        tables = records.tables(folder / str(later), Random(0), 40, later=later)
        importer.import_source(db, settings, CsvSource(dict(tables)), now)
        planner.plan(db, settings, now)
        dispatcher.dispatch(db, settings, now)
        reconciler.reconcile(db, settings, now)
    db.engine.dispose()  # nothing that is open may be forked


share_statements(pytest.MonkeyPatch())
with TemporaryDirectory() as _folder:
    _live(Path(_folder))
