"""
outreach: follow-ups, offers and retention attempts for shops, sent once and measured.

The pipeline, each stage one plain function that takes the database and `now`:

    importer.import_source   the shop's records        → customers, orders, cases
    planner.plan             release + records         → enrolments, messages (written once)
    dispatcher.dispatch      claim, gate, render, send → channels → people
    reports                  what was sent, and what it changed
    alerts.watch             what a person should know: pauses, doubts, silence

Stages never call each other; they meet in the database. `daemon` is only the clock that
calls them; `manual` sends by hand, through the same gates; `testing` stands in for the
providers. Start reading at `planner.plan`, then `dispatcher.dispatch`.
"""

from __future__ import annotations

import gc

__version__ = "0.1.0"


def collect_less_often() -> None:
    """
    Let the garbage collector wait for 50,000 new objects instead of 700.

    The stages make rows by the thousand and hardly a cycle among them: with the interpreter's own
    threshold a quarter of their time goes into looking for some.
    """
    gc.set_threshold(50_000, 20, 20)
