"""
The log of a process that stays: JSON lines on stderr, of one shape.

Each has an `action` of a closed list and its `fields`: counts and names of campaigns, never an
address or a text.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

log = logging.getLogger("outreach")


def say(action: StrEnum, level: int = logging.INFO, **fields: Any) -> None:
    """Log one action."""
    log.log(level, action.value, extra={"action": action.value, "fields": fields})


def place(error: Exception) -> str:
    """What went wrong in the program, and where; never the error's own text, which may hold anything."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


class JsonLines(logging.Formatter):
    """One JSON object a line; a record that is not ours shows its logger's name, not its text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, action and fields."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        action = getattr(record, "action", record.name)
        line = {"at": at, "level": record.levelname.lower(), "action": action, **getattr(record, "fields", {})}
        return json.dumps(line, ensure_ascii=False, default=str)


@contextmanager
def to_stderr(*others: str) -> Iterator[None]:
    """Our own log on stderr while this lasts; of the other loggers only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    former = []
    for one, level in ((log, logging.INFO), *((logging.getLogger(name), logging.ERROR) for name in others)):
        former.append((one, one.level, one.propagate))
        one.addHandler(handler)
        one.setLevel(level)
        one.propagate = False
    try:
        yield
    finally:
        for one, level, propagate in former:
            one.removeHandler(handler)
            one.setLevel(level)
            one.propagate = propagate
