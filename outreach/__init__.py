"""
outreach: follow-ups, offers and retention attempts for shops, sent once and measured.

The pipeline, each stage one plain function that takes the database and `now`:

    importer.import_source   the shop's records        → customers, orders, cases
    planner.plan             release + records         → enrolments, messages (written once)
    dispatcher.dispatch      claim, gate, render, send → channels → people
    reports                  what was sent, and what it changed

Stages never call each other; they meet in the database. `daemon` is only the clock that
calls them. Start reading at `planner.plan`, then `dispatcher.dispatch`.
"""

__version__ = "0.1.0"
