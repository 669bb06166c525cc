"""
Ending gracefully: the first SIGTERM or SIGINT asks, the second ends the process at once.

Both are safe: what was in the air at the second is in doubt, and is settled like after any crash.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

LOOK_SECONDS = 0.5  # a signal that comes just as a wait begins does not interrupt it


class Stop:
    """
    An event that a handler of signals may set while the same thread waits for it.

    `threading.Event` would then wait for its own lock for ever; `SimpleQueue.put` may interrupt itself
    (docs.python.org/3/library/queue.html).
    """

    def __init__(self) -> None:
        self._asked = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def is_set(self) -> bool:
        """Whether the process is asked to end."""
        return self._asked

    def set(self) -> None:
        """Ask the process to end."""
        self._asked = True
        self._wake.put(None)

    def wait(self) -> None:
        """Return once it is asked to end; for one thread."""
        while not self._asked:
            with suppress(Empty):
                self._wake.get(timeout=LOOK_SECONDS)


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Within it, the first signal sets `stop` and the second does what it does by default. For the main thread."""

    def asked(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    former = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
