"""One clock for all processes of a run: it goes on by itself, jumps when told to, and survives any of them."""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tests.conftest import NOW

_FORM = struct.Struct("=dd")  # the real clock's seconds when this one began, and the seconds it has jumped since
_JUMPED = struct.calcsize("=d")  # where the latter stands
_real = time.monotonic  # the machine's, the same in every process


@dataclass
class Clock:
    """Begins at `NOW`; every process that has the file sees a jump at once."""

    file: Path
    _map: mmap.mmap = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.file.exists():
            self.file.write_bytes(_FORM.pack(_real(), 0.0))
        handle = os.open(self.file, os.O_RDWR)
        self._map = mmap.mmap(handle, _FORM.size)
        os.close(handle)

    def now(self) -> datetime:
        began, jumped = _FORM.unpack_from(self._map)
        return NOW + timedelta(seconds=_real() - began + jumped)

    def jump(self, by: timedelta) -> None:
        """Put it forward; for one process, the killer."""
        struct.pack_into("=d", self._map, _JUMPED, self._jumped() + by.total_seconds())

    def wear(self) -> None:
        """
        Have the whole process go by it: `time.time`, `time.monotonic` and `time.clock_gettime` jump as one.

        To the process a jump is what the suspension of its machine is; what waits inside the
        interpreter (locks, sockets, sleep) goes on in real time.
        """
        time_of = time.clock_gettime

        def by_wall() -> float:
            return self.now().timestamp()

        def by_count() -> float:
            return _real() + self._jumped()

        def by_name(which: int) -> float:
            return time_of(which) + self._jumped()

        for name, clock in {"time": by_wall, "monotonic": by_count, "clock_gettime": by_name}.items():
            setattr(time, name, clock)

    def _jumped(self) -> float:
        jumped: float = struct.unpack_from("=d", self._map, _JUMPED)[0]
        return jumped
