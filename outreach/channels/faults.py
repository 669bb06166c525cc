"""Failures reported after a message was accepted: which of them others of its sender or text would share."""

from __future__ import annotations

import re

# RFC 3463: policy and authentication; but a list (5.7.2), a disabled account (5.7.13: RFC 5248) and a new owner
# (5.7.17, 5.7.18: RFC 7293) are about one recipient.
_BY_POLICY = re.compile(r"5\.7\.(?!(?:2|13|17|18)$)\d{1,3}")


def by_policy(code: str) -> str:
    """What an enhanced status code says is wrong with the sender or the text, and what to do; empty for any other."""
    if not _BY_POLICY.fullmatch(code):
        return ""
    return f"mail servers refuse the sender or the text: check SPF, DKIM and DMARC of the sender's domain ({code})"
