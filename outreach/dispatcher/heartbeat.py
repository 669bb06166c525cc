"""
The heartbeat: while a chunk is in the air its lease is renewed, so that only a dead claimer loses it.

A claimer that is suspended says nothing, and loses its chunk as a dead one does. Once it goes on, it
finds its lease gone and hands nothing more over; what it had handed over it may still record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import bindparam, text, update

from outreach import store
from outreach.errors import DatabaseError
from outreach.models import Message, table
from outreach.store import Database

BEAT_SECONDS = 20.0

_messages = table(Message)
_RENEW = (
    update(_messages)
    .where(text("claim IS NOT NULL AND lease_until IS NOT NULL AND status = 'sending'"))
    .where(_messages.c.claim == bindparam("token"))
    .values(lease_until=bindparam("until"))
)


def renew(db: Database, token: str, until: datetime) -> bool:
    """Move the end of a chunk's lease; False when none of it is ours any more."""
    with store.write(db) as connection:
        return connection.execute(_RENEW, {"token": token, "until": until}).rowcount > 0


class Heart:
    """Beats for the chunk in the air; its thread begins with the first chunk."""

    def __init__(self, db: Database, lease_until: Callable[[], datetime]) -> None:
        self._db = db
        self._lease_until = lease_until
        self._token = ""
        self._lost = ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def beating(self, token: str) -> Iterator[Callable[[], bool]]:
        """Within it the chunk's lease is renewed; what it gives tells whether the chunk is lost."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        self._token = token
        try:
            yield lambda: self._lost == token
        finally:
            self._token = ""

    def close(self) -> None:
        """End the thread, at the latest when the process ends."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            if token := self._token:
                self._beat(token)

    def _beat(self, token: str) -> None:
        try:
            ours = renew(self._db, token, self._lease_until())
        except DatabaseError:
            return  # the lease goes on for a while; the next beat may come in time
        if not ours:
            self._lost = token
