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


# RFC 3463: what says nothing of the recipient, as in `smtp_replies`: the sender (5.1.7, 5.1.8), a full mailbox, which
# may be emptied (5.2.2), size (5.2.3, 5.3.4), routes and time (5.4, but for “no way to this address”), protocol and
# content (5.5, 5.6), policy and authentication (5.7). 5.0.0, 5.3.0 and 5.5.0 are many servers' word for unknown users.
_OTHERWISE = re.compile(
    r"5\.1\.[78]|5\.2\.[23]|5\.3\.[1-9]\d{0,2}|5\.4\.(?![14]$)\d{1,3}|5\.5\.[1-9]\d{0,2}|5\.[67]\.\d{1,3}"
)


def about_address(code: str) -> bool:
    """Whether an enhanced status code may mean that nobody can be reached at the address."""
    return _OTHERWISE.fullmatch(code) is None
