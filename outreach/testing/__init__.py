"""
Stand-ins for the providers, on this machine: rehearse and test campaigns without sending anything.

    smtp         a mail server that keeps what it accepts
    twilio       Twilio's Messages: create, list, fetch, statuses, signed callbacks
    sendgrid     SendGrid's mail/send, logs, signed events

Each is a context manager that listens on 127.0.0.1 at a free port (or the one given), speaks the
provider's real protocol, keeps a ledger of what it accepted, and makes mistakes on demand: `faults`
is asked before each request and says what goes wrong with it, if anything.

The ledger answers how often each message was accepted: `accepted_by_public_id`, by our own id, and
`accepted_by_text`, by recipient and text. From another process, GET /_accepted at the fakes of Twilio
and SendGrid gives the former as JSON, `{"<public id>": 1, ...}`, whatever `faults` holds, without a login.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from enum import StrEnum


class Fault(StrEnum):
    """What can be made to go wrong with one request (over SMTP: one message)."""

    TOO_MANY = "too_many"  # 429 with Retry-After; over SMTP 421 4.7.0
    BUSY_BEFORE = "busy_before"  # 500, and nothing was accepted; over SMTP 451
    BUSY_AFTER = "busy_after"  # accepted, and the answer is 500 all the same
    DROP_BEFORE = "drop_before"  # the connection is cut before anything was accepted
    DROP_AFTER = "drop_after"  # accepted, and the connection is cut before the answer
    SLOW = "slow"  # accepted at once, answered later than any timeout
    OPTED_OUT = "opted_out"  # the recipient told the provider to stop
    BAD_ADDRESS = "bad_address"  # there is nobody at this address
    NOT_ALLOWED = "not_allowed"  # our credentials or sender are wrong
    UNHEARD_OF = "unheard_of"  # refused with a code that no table knows


class Faults:
    """The faults still to come, in order; None lets a request through. Any thread may use it."""

    def __init__(self, faults: Iterable[Fault | None] = ()) -> None:
        self._next = deque(faults)
        self._lock = threading.Lock()

    def add(self, *faults: Fault | None) -> None:
        """Have these happen to the next requests, one each."""
        with self._lock:
            self._next.extend(faults)

    def take(self) -> Fault | None:
        """The fault of this request; None: it goes well."""
        with self._lock:
            return self._next.popleft() if self._next else None


class Lag:
    """
    What a list does not show yet: each message for as many lists that would hold it, or (None) until told.

    For whoever holds the fake's lock.
    """

    def __init__(self, lists: int | None = 0) -> None:
        self.lists = lists
        self._left: dict[str, float] = {}

    def accept(self, number: str) -> None:
        """A message has been accepted."""
        if self.lists != 0:
            self._left[number] = math.inf if self.lists is None else self.lists

    def hides(self, number: str) -> bool:
        """Whether the list that is being made lacks the message; this counts as one list."""
        left = self._left.get(number, 0)
        if left > 0:
            self._left[number] = left - 1
        return left > 0

    def catch_up(self) -> None:
        """Show everything accepted so far."""
        self._left.clear()
