"""The clocks that tell how long something really took, though somebody puts one, or the machine sleeps."""

from __future__ import annotations

import time
from datetime import datetime

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)
_JUST_NOW = 120.0  # a stage reads the clock first, and may then wait for its turn to write


def read() -> tuple[float, float]:
    """
    The wall clock, and the clock that goes on while the machine sleeps, in seconds.

    A suspended machine is seen by the second, a suspended virtual machine by the first; where
    there is no such second clock, the monotonic one stands in.
    """
    return time.time(), time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """The seconds since `start`, by either clock."""
    wall, boot = read()
    return wall - start[0], boot - start[1]


def is_now(at: datetime) -> bool:
    """Whether this machine's clock says that it is `at`, or was a moment ago."""
    return abs(read()[0] - at.timestamp()) < _JUST_NOW


def elapsed(start: tuple[float, float]) -> float:
    """The seconds since `start` by the clock that saw more of them, never fewer than none."""
    return max(0.0, *since(start))
