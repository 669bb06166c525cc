"""
The connections to one mail server: opened by threads, several at once, driven by one, and kept.
"""

from __future__ import annotations

import selectors
import smtplib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from outreach.channels.smtp_connection import Connection, End, How, Job, Server

IDLE_SECONDS = 30.0  # a connection idle for longer is asked first whether it is still there
GOOD_BYE_SECONDS = 1.0  # for all of them
_LOOK_SECONDS = 5.0  # no deadline is nearer than the smaller of this and the timeout


class NotOpened(NamedTuple):
    """The connection that this message was to go out on could not be opened."""

    job: Job
    error: Exception


class Pool:
    """At most `most` connections, those idle and those with a message on them. For one thread alone."""

    def __init__(self, server: Server, most: int) -> None:
        self._server = server
        self._most = most
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="smtp")
        self._opened: SimpleQueue[tuple[Job, smtplib.SMTP | Exception]] = SimpleQueue()
        self._opening: set[int] = set()  # the jobs that wait for a connection of their own, by id()
        self._threads_busy = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the one used last is the first to be used again
        self._busy = 0
        self._next_look = 0.0

    @property
    def waiting(self) -> bool:
        """Whether an answer or a connection is awaited."""
        return bool(self._busy or self._threads_busy)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return bool(self._connections)

    @property
    def opening(self) -> bool:
        """Whether there may soon be one more."""
        return bool(self._opening)

    def has_room(self, most: int) -> bool:
        """Whether a message would be taken at once, with no more than `most` connections."""
        return bool(self._idle) or len(self._connections) + self._threads_busy < min(most, self._most)

    def look(self) -> None:
        """Forget the connections that were closed meanwhile, and ask those that were idle for long."""
        now = time.monotonic()
        self._next_look = now
        list(self._take_opened(begin=False))
        for key, _ in self._selector.select(0):
            if key.data is not None:
                key.data.react(now)
        for connection in [one for one in self._idle if one.open and now - one.since > IDLE_SECONDS]:
            self._idle.remove(connection)
            self._busy += 1
            connection.ask(now)
            self._after(connection, None, now)
        for connection in [one for one in self._idle if not one.open]:
            self._drop(connection)

    def hand_over(self, job: Job) -> list[End]:
        """Begin with this message, on an idle connection or a new one; there must be room."""
        if self._idle and not job.fresh:
            return self._begin(self._idle.pop(), job, time.monotonic())
        if self._idle and len(self._connections) + self._threads_busy >= self._most:
            self._drop(self._idle[0])
        self._opening.add(id(job))
        self._threads_busy += 1
        self._threads.submit(self._open, job)
        return []

    def wait(self, *, begin: bool) -> list[End | NotOpened]:
        """
        Wait until something happens, and see to it.

        A new connection takes its message only if `begin`; else that ends as if it had been closed.
        """
        events = self._selector.select(max(0.0, self._next_look - time.monotonic()))
        now = time.monotonic()
        happened: list[End | NotOpened] = []
        for key, _ in events:
            if key.data is None:
                happened += self._take_opened(begin=begin)
            elif key.data.open:
                happened += self._after(key.data, key.data.react(now), now)
        if now >= self._next_look:
            happened += self._look_at_deadlines(now)
        return happened

    def abandon(self) -> None:
        """Drop what is not at rest."""
        self._opening.clear()
        for connection in self._connections.difference(self._idle):
            self._drop(connection)

    def close(self) -> None:
        """Say good-bye on every connection."""
        self._opening.clear()
        self._threads.shutdown()
        list(self._take_opened(begin=False))
        for connection in self._connections:
            self._selector.unregister(connection.sock)
            connection.say_good_bye()
        until = time.monotonic() + GOOD_BYE_SECONDS
        for connection in self._connections:
            connection.hear_good_bye(max(0.0, until - time.monotonic()))
        self._selector.close()
        self._woken.close()
        self._wake.close()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _open(self, job: Job) -> None:
        """In a thread of its own."""
        opened: smtplib.SMTP | Exception
        try:
            opened = self._server.open()
        except Exception as error:  # judged in the thread that sends
            opened = error
        self._opened.put((job, opened))
        self._wake.send(b"!")

    def _take_opened(self, *, begin: bool) -> Iterator[End | NotOpened]:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while True:
            try:
                job, opened = self._opened.get_nowait()
            except Empty:
                return
            self._threads_busy -= 1
            wanted = id(job) in self._opening
            self._opening.discard(id(job))
            if isinstance(opened, Exception):
                if wanted:
                    yield NotOpened(job, opened)
                continue
            connection = Connection(opened, self._server.timeout)
            self._connections.add(connection)
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            if wanted and begin:
                yield from self._begin(connection, job, time.monotonic())
                continue
            self._rest(connection, time.monotonic())
            if wanted:
                yield End(job, How.CLOSED)

    # --- one connection ------------------------------------------------------------------------------------------------

    def _begin(self, connection: Connection, job: Job, now: float) -> list[End]:
        self._busy += 1
        return self._after(connection, connection.begin(job, now), now)

    def _after(self, connection: Connection, end: End | None, now: float) -> list[End]:
        """Where a connection belongs after whatever it has just done."""
        if not connection.open:
            self._drop(connection)
        elif connection.busy:
            self._watch(connection)
        elif connection not in self._idle:
            self._busy -= 1
            self._rest(connection, now)
        return [] if end is None else [end]

    def _rest(self, connection: Connection, now: float) -> None:
        connection.since = now
        self._idle.append(connection)

    def _watch(self, connection: Connection) -> None:
        if connection.writing != connection.watched:
            connection.watched = connection.writing
            write = selectors.EVENT_WRITE if connection.writing else 0
            self._selector.modify(connection.sock, selectors.EVENT_READ | write, connection)

    def _drop(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._busy -= 1
        self._selector.unregister(connection.sock)
        connection.close()

    def _look_at_deadlines(self, now: float) -> Iterator[End]:
        soonest = now + min(_LOOK_SECONDS, self._server.timeout)
        for connection in self._connections.difference(self._idle):
            if connection.deadline <= now:
                yield from self._after(connection, connection.give_up(), now)
            else:
                soonest = min(soonest, connection.deadline)
        self._next_look = soonest
