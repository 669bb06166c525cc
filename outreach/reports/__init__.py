"""
Reports: SQL aggregates by the definitions of the documentation, one file per family.

`statistics` holds the formulas, `periods` the calendar and the SQL that tells which period an
order falls in. Nothing is imported here, so that `status` stays a light import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Rows of one shape, and what else belongs to them (`left_out`)."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """`{"rows": […], …}`, ready for json.dumps."""
        return {"rows": self.rows, **self.more}
