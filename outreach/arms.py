"""
Who is held out, and who gets which variant: keyed hashes, so sticky and independent. Pure.

u = the first 53 bits of HMAC-SHA-256(secret, experiment ␟ purpose ␟ the customer's external id),
as a number in [0, 1). It depends on nothing else, so a draw is the same on every run, machine and
re-import; draws of two experiments, or of two purposes within one, are independent; and the held
are those with u below the share, so raising a share never releases anyone already held.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache

CONTACT = "contact"
HOLDOUT = "holdout"
NAMES = frozenset({CONTACT, HOLDOUT})  # what no variant may be called


def unit(secret: bytes, experiment: str, purpose: str, external_id: str) -> float:
    """The customer's number in [0, 1) for a purpose within an experiment: uniform, and always the same."""
    digest = _begun(secret, experiment, purpose).copy()
    digest.update(external_id.encode())
    return (int.from_bytes(digest.digest()[:8], "big") >> 11) / (1 << 53)


@lru_cache(maxsize=256)
def _begun(secret: bytes, experiment: str, purpose: str) -> hmac.HMAC:
    """The draws of a purpose up to the customer, which costs more than the rest."""
    return hmac.new(secret, f"{experiment}\x1f{purpose}\x1f".encode(), "sha256")


def is_held(secret: bytes, experiment: str, share: float, external_id: str) -> bool:
    """Whether the customer is in the experiment's holdout, a `share` in [0, 1] of all; 0 is nobody, 1 everybody."""
    return share > 0 and unit(secret, experiment, HOLDOUT, external_id) < share


def is_held_globally(secret: bytes, share: float, external_id: str) -> bool:
    """Whether the customer is in the installation-wide holdout, independent of every campaign's."""
    return share > 0 and unit(secret, "", "global", external_id) < share


def variant(secret: bytes, experiment: str, step: str, variants: Sequence[tuple[str, float]], external_id: str) -> str:
    """
    The name of the variant that the customer draws at a step; `contact` where the step has none.

    `variants` are names and shares that add up to 1, in the file's order. The draw is keyed
    `step:ID`, so that a step called `holdout` does not repeat the holdout's own draw.
    """
    if not variants:
        return CONTACT
    drawn, reached = unit(secret, experiment, f"step:{step}", external_id), 0.0
    for name, share in variants:
        reached += share
        if drawn < reached:
            return name
    return next(name for name, share in reversed(variants) if share > 0)  # shares that add up to 0.9999…
