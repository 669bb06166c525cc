"""
Facts: what the rules and the templates need to know, fetched once per batch.

    items        one message, or one that might be, and what its release says about it
    fetching     the facts that the gates decide by: for the planner, the dispatcher (twice) and previews
    people         who somebody is, where they can be reached and what they allowed
    words          which of `unless` and `stop_when` are true
    withdrawn      which occasions are none any more
    showing      what templates see
    records      the shop's records behind all of them

Each is a handful of queries whatever the size of the batch, proportional to it and never to history.
"""

from __future__ import annotations

from outreach.facts.fetching import fetch
from outreach.facts.items import Item, is_same_for_another, key_of, rules
from outreach.facts.records import fits_pattern, lines_of, matches_line
from outreach.facts.showing import contexts
from outreach.facts.withdrawn import gone
from outreach.facts.words import true_words

__all__ = [
    "Item",
    "contexts",
    "fetch",
    "fits_pattern",
    "gone",
    "is_same_for_another",
    "key_of",
    "lines_of",
    "matches_line",
    "rules",
    "true_words",
]
