"""The clocks that tell how long something really took, though somebody puts one, or the machine sleeps."""

from __future__ import annotations

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


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


def elapsed(start: tuple[float, float]) -> float:
    """The seconds since `start` by the clock that saw more of them, never fewer than none."""
    return max(0.0, *since(start))
