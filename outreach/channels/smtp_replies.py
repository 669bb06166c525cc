"""
What a mail server's replies mean: one table, read from the top; the first row that matches counts.

A row is matched against the reply's code and, where there is one, its enhanced status code (RFC
3463), as in `550 5.1.1`. What no row knows is in doubt if it answers the final dot: before that,
nothing was handed over.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from outreach.channels import Blame, Outcome


class Stage(StrEnum):
    """What a reply answers."""

    NOOP = "noop"
    RSET = "rset"
    MAIL = "mail"  # the sender
    RCPT = "rcpt"  # the recipient
    DATA = "data"
    DOT = "dot"  # the whole message
    EMPTY = "empty"  # a lone dot, after a server asked for a message that it had refused


class Reply(NamedTuple):
    """One reply, whole."""

    code: int
    status: str = ""  # RFC 3463; RFC 2034 section 4: its first digit is the code's

    def __str__(self) -> str:
        return f"{self.code} {self.status}".rstrip()


class Row(NamedTuple):
    reply: str  # a regular expression over the whole of `550 5.1.1`, or `550` where there is no more
    stages: frozenset[Stage]
    outcome: Outcome
    blame: Blame
    says: str  # never the server's own words: they often hold the address
    source: str
    stops: bool = False  # our settings or our standing are wrong: everything else would be refused, too
    one_or_all: bool = False  # it may be about this recipient, and it may be about us: `Standing` tells


_MAIL, _RCPT, _DOT = frozenset({Stage.MAIL}), frozenset({Stage.RCPT}), frozenset({Stage.DOT})
_TO = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})
_ALL = _MAIL | _TO

ROWS = (
    # Mailbox full: soft, although some say it with a 5.
    Row(r"\d{3} [45]\.2\.2", _ALL, Outcome.LATER, Blame.NOBODY, "the mailbox is full", "RFC 3463 section 3.3, X.2.2"),
    # The sender's address.
    Row(
        r"5\d\d 5\.1\.[78]",
        _ALL,
        Outcome.LATER,
        Blame.NOBODY,
        "the server refuses the sender's address",
        "RFC 3463 section 3.2, X.1.7 and X.1.8",
        stops=True,
    ),
    # The recipient's address.
    Row(r"5\d\d 5\.1\.\d+", _TO, Outcome.REFUSED, Blame.ADDRESS, "there is no such address", "RFC 3463 section 3.2"),
    Row(
        r"5\d\d 5\.2\.1", _TO, Outcome.REFUSED, Blame.ADDRESS, "the mailbox is disabled", "RFC 3463 section 3.3, X.2.1"
    ),
    Row(
        r"5\d\d 5\.4\.[14]",
        _RCPT,
        Outcome.REFUSED,
        Blame.ADDRESS,
        "there is no way to this address",
        "RFC 3463 section 3.5, X.4.4; Exchange Online answers 5.4.1 for unknown recipients: "
        "learn.microsoft.com/exchange/troubleshoot/email-delivery/ndr/non-delivery-reports-in-exchange-online",
    ),
    # The message.
    Row(
        r"5\d\d 5\.(?:2\.3|3\.4)",
        _ALL,
        Outcome.REFUSED,
        Blame.MESSAGE,
        "the message is too large",
        "RFC 3463 sections 3.3 and 3.4, X.2.3 and X.3.4",
    ),
    Row(r"5\d\d 5\.6\.\d+", _ALL, Outcome.REFUSED, Blame.MESSAGE, "the content was refused", "RFC 3463 section 3.7"),
    # Policy and authentication: our own standing.
    Row(
        r"5\d\d 5\.7\.(?:1|1[23]\d)",
        _TO,
        Outcome.REFUSED,
        Blame.MESSAGE,
        "the server's policy refused it",
        "RFC 3463 section 3.8, X.7.1: not authorised, by a filter of the host or of the recipient; so, too, "
        "learn.microsoft.com/exchange/troubleshoot/email-delivery/ndr/fix-error-code-5-7-1-in-exchange-online",
        one_or_all=True,
    ),
    Row(
        r"5\d\d 5\.7\.\d+",
        _ALL,
        Outcome.LATER,
        Blame.NOBODY,
        "the server refuses us: login, permission, or authentication of the domain",
        "RFC 3463 section 3.8; support.google.com/a/answer/3726730 (5.7.25 to 5.7.30); "
        "Outlook.com's 5.7.515: techcommunity.microsoft.com, requirements for high-volume senders, 2025",
        stops=True,
    ),
    Row(
        r"53[0458].*",
        _ALL,
        Outcome.LATER,
        Blame.NOBODY,
        "the server wants another login",
        "RFC 4954 section 6",
        stops=True,
    ),
    # Not now.
    Row(
        r"421 4\.7\.\d+|4\d\d 4\.7\.28",
        _ALL,
        Outcome.LATER,
        Blame.SENDER,
        "too fast for the server",
        "support.google.com/a/answer/3726730: 421 4.7.0 and 4.7.28",
    ),
    Row(r"4\d\d.*", _ALL, Outcome.LATER, Blame.NOBODY, "the server cannot take it now", "RFC 5321 section 4.2.1: 4yz"),
    # Codes alone.
    Row(r"552", _RCPT, Outcome.LATER, Blame.NOBODY, "the mailbox is full", "RFC 5321 section 4.5.3.1.10"),
    Row(r"552.*", _ALL, Outcome.REFUSED, Blame.MESSAGE, "the message is too large", "RFC 1870 section 6.1"),
    Row(
        r"5\d\d.*",
        _MAIL,
        Outcome.LATER,
        Blame.NOBODY,
        "the server refuses the sender",
        "RFC 5321 section 3.3: at MAIL, the sender or we ourselves are not acceptable",
        stops=True,
    ),
    Row(
        r"55[013]",
        _RCPT,
        Outcome.REFUSED,
        Blame.ADDRESS,
        "there is no such address",
        "RFC 5321 section 4.2.3: `mailbox not found, no access, or command rejected for policy reasons`, so it is "
        "also the `550 relay not permitted` of Exim's default configuration (src/configure.default in its source)",
        one_or_all=True,
    ),
    Row(r"501", _RCPT, Outcome.REFUSED, Blame.ADDRESS, "there can be no such address", "RFC 5321 section 4.2.3"),
    Row(r"5\d\d.*", _TO, Outcome.REFUSED, Blame.MESSAGE, "the server refused it", "RFC 5321 section 4.2.1: 5yz"),
)
UNKNOWN = "the server's answer is in no table"


def meaning(reply: Reply, stage: Stage) -> Row:
    """What a reply other than the hoped for one means."""
    for row in ROWS:
        if stage in row.stages and re.fullmatch(row.reply, str(reply)):
            return row
    outcome = Outcome.DOUBT if stage is Stage.DOT else Outcome.LATER
    return Row("", _ALL, outcome, Blame.NOBODY, UNKNOWN, "")


def reply_of(code: int, said: bytes) -> Reply:
    """The reply as `smtplib` gives it: its code, and its lines without theirs."""
    return _reply(b"%03d %s" % (code, said.rpartition(b"\n")[2])) if 0 <= code <= 999 else Reply(code)


def take_replies(received: bytearray) -> list[Reply]:
    """
    Take the whole replies out of what was received so far; the rest stays.

    Raises:
        ValueError: this is not SMTP.
    """
    replies = []
    while (end := received.find(b"\n")) >= 0:
        begin = 0
        while received[begin + 3 : begin + 4] == b"-":  # more lines follow (RFC 5321 section 4.2.1)
            begin, end = end + 1, received.find(b"\n", end + 1)
            if end < 0:
                break
        if end < 0:
            break
        replies.append(_reply(bytes(received[begin:end])))
        del received[: end + 1]
    if len(received) > LONGEST_REPLY:
        raise ValueError("endless reply")
    return replies


LONGEST_REPLY = 65_536
_LINE = re.compile(rb"([0-9]{3})(?:[ ]+(?:([245])(\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.]))?.*)?\r?")


@lru_cache(maxsize=256)  # a server says nearly always the same
def _reply(line: bytes) -> Reply:
    """Its last line: it has the code, and the enhanced one as every line does (RFC 2034 section 4)."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError("not a reply")
    code, kind, detail = found.groups()
    agrees = kind is not None and code[:1] == kind
    return Reply(int(code), (kind + detail).decode() if agrees else "")


class Standing:
    """
    Whether a refusal is about one recipient or about us, where the reply does not say (`Row.one_or_all`).

    Once the server has taken a message of ours, a lone one counts, against its message or its
    address. Before that it may come again, and nobody is blamed; and when `LIMIT` come in a row
    with no message taken between them, the server means us.
    """

    LIMIT = 5

    def __init__(self) -> None:
        self._accepted = False
        self._refused = 0

    def accepted(self) -> None:
        """The server took a message."""
        self._accepted, self._refused = True, 0

    def judge(self, row: Row) -> Row:
        """The row as it is to be understood now."""
        if not row.one_or_all:
            return row
        self._refused += 1
        if self._refused >= self.LIMIT:
            says = f"the server refused {self._refused} messages in a row, so it refuses us: is the login missing?"
            return row._replace(outcome=Outcome.LATER, blame=Blame.NOBODY, says=says, stops=True)
        if self._accepted:
            return row
        says = "the server refuses this recipient, or us"
        return row._replace(outcome=Outcome.LATER, blame=Blame.NOBODY, says=says)
