"""
Reconcile: messages that may or may not have gone out are settled by evidence, or by a person; never by guessing.

    looking      1  which are in doubt, who could know what became of them, and what those say
    deciding     2  what the evidence makes of each message: sent, planned again, or still unknown; pure
    settling     3  deciding on fresh facts and writing it, in one transaction
    tick         1 to 3, a hundred messages at a time; no transaction is open while a provider is asked
    accounts     since when each channel has led to the provider and account it leads to now
    resolving    what a person decides about the rest

Every change is conditional on the message's being as it was read, so that of several who settle it,
the claimer that was only slow included, one does. What is planned again passes every gate again.

Whoever writes an event about a message need do nothing more: it is found here, also when nobody
looks for the message any more. An event's `detail` may name the `provider_id` and the `channel`; a
reply or an opt-out counts only with `exact: true`, where the message itself was named and not guessed.
"""

from __future__ import annotations

from outreach.reconciler.resolving import Decision, InDoubt, Resolved, full_id, in_doubt, resolve, resolve_all
from outreach.reconciler.tick import LIMIT, ReconcileCounts, reconcile

__all__ = [
    "LIMIT",
    "Decision",
    "InDoubt",
    "ReconcileCounts",
    "Resolved",
    "full_id",
    "in_doubt",
    "reconcile",
    "resolve",
    "resolve_all",
]
