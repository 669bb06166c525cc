"""
Dispatch: claim → gate → commit `sending` → hand over → record, one chunk after the other.

    claiming     1  a chunk of due messages, under a token and a lease; commit
    committing   2  under the contacts' locks: facts, gates, pace, filling; what goes is `sending`; commit
    filling         template and facts → what is handed over
    pacing          how fast each sender and provider may send
    handing      3  to the channels, for at most 30 s after that commit
    heartbeat       renews the lease of the chunk in the air
    recording    4  each receipt, conditional on the claim: sent, failed, planned again (only what
                    certainly was not accepted) or unknown
    watching        pauses campaigns that bounce too much
    tasks           the same, with a person in place of a channel

A message is handed over only after its `sending` is committed, and `sending` never goes back to
`planned` without certainty: so a crash anywhere can leave a message unknown, and never send it twice.
"""

from __future__ import annotations

from outreach.dispatcher.filling import link_maker
from outreach.dispatcher.parts import MANUAL, DispatchCounts, manual_campaign
from outreach.dispatcher.tick import CHUNK, dispatch

__all__ = ["CHUNK", "MANUAL", "DispatchCounts", "dispatch", "link_maker", "manual_campaign"]
