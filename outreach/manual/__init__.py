"""
Manual sends and previews: a person at the terminal decides, the same gates and ledger hold.

    people      whom a send means: customers by id, by address or number, or by a condition
    drafting    what would become of it, by the real gates and templates; writes nothing
    sending     one message row a person, in short transactions; dispatched at once
    previewing  a step of the working files for one customer; nothing is kept of it
"""

from __future__ import annotations

from outreach.manual.drafting import Amount, Draft, Shown, Waits, cost, draft
from outreach.manual.previewing import GateSays, Preview, preview, send_test
from outreach.manual.sending import Became, Ended, became, send, write

__all__ = [
    "Amount",
    "Became",
    "Draft",
    "Ended",
    "GateSays",
    "Preview",
    "Shown",
    "Waits",
    "became",
    "cost",
    "draft",
    "preview",
    "send",
    "send_test",
    "write",
]
