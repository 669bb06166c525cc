"""
What a reply means: an opt-out, a score, a complaint …, in Spanish, Portuguese and English, and in mixtures of them.

    normal     a text as the words that mean the same however they are typed
    phrases    the lists in `data/`, one file a language, and what of them stands in a text
    reading    what the phrases found come to

Rules over lists, without anything learnt: the same text always means the same, and `explain` says by
which phrases. An opt-out is certain (`final`) or suspected (`doubtful`): a mistake falls on the side of
silence, since 47 CFR 64.1200 (a)(10) lets people revoke their consent “in any reasonable manner”.

Sources of the stop words: CTIA's Messaging Principles 5.1.3, www.twilio.com/docs/messaging/tutorials/
advanced-opt-out, 47 CFR 64.1200 (a)(10), and common usage for Spanish and Portuguese, of which there is
no authoritative list.
"""

from __future__ import annotations

from outreach.intents.reading import CASES, Certainty, Intent, Reading, explain, read

__all__ = ["CASES", "Certainty", "Intent", "Reading", "explain", "read"]
