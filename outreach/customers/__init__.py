"""
One person: what is held about them, what they allowed, and how they are forgotten.

    finding      whom a verb means, and which rows of which table are theirs
    holdings     every table of the database: whose rows it has, what an erasure takes out of it
    consents     what a person allowed, channel by channel, and changing it
    exporting    everything held, as plain data
    erasing      everything that tells who they are, taken out; the figures stay
"""

from __future__ import annotations

from outreach.customers.consents import Consents, change, consents
from outreach.customers.erasing import Erased, erase
from outreach.customers.exporting import export, overview

__all__ = ["Consents", "Erased", "change", "consents", "erase", "export", "overview"]
