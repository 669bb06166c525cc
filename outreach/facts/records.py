"""The shop's records behind the facts: their times, their order lines, and what of them is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, Table, select, type_coerce

from outreach.campaigns import Trigger
from outreach.models import OrderLine, table
from outreach.store import among

# Of records, what no template sees.
NOT_SHOWN = frozenset(
    {
        "id",
        "external_id",
        "email_id",
        "phone_id",
        "messenger_id",
        "zones",
        "merged_into",
        "row_hash",
        "last_order_id",
        "customer_id",
        "order_id",
    }
)

_lines = table(OrderLine)


def times_of(
    connection: Connection, of: Table, columns: Iterable[str], ids: Iterable[int | None]
) -> dict[int | None, dict[str, int | None]]:
    """Whose some records are, and some times of them, as they are stored."""
    names, wanted = tuple(sorted(set(columns))), [i for i in ids if i is not None]
    if not wanted:
        return {}
    rows = connection.execute(_times_query(of, names), {"ids": wanted}).all()
    return {row[0]: dict(zip(("customer_id", *names), row[1:], strict=True)) for row in rows}


@cache
def _times_query(of: Table, columns: tuple[str, ...]) -> Select[Any]:
    times = [type_coerce(of.c[name], BigInteger) for name in columns]
    return select(of.c.id, of.c.customer_id, *times).where(among(of.c.id, "ids"))


def fits_pattern(value: str | None, pattern: str) -> bool:
    """Whether a text is like a pattern in which `*` and `?` stand for any letters, and nothing else does; case ignored."""
    return fnmatchcase((value or "").casefold(), pattern.casefold().replace("[", "[[]"))


def matches_line(trigger: Trigger, line: Mapping[str, Any]) -> bool:
    """Whether an order line fits every kind of pattern the trigger names (any pattern of a kind)."""
    return all(
        not patterns or any(fits_pattern(line.get(name), pattern) for pattern in patterns)
        for name, patterns in (("sku", trigger.sku), ("product", trigger.product), ("category", trigger.category))
    )


_LINES = select(_lines).where(among(_lines.c.order_id, "ids")).order_by(_lines.c.order_id, _lines.c.number)


def lines_of(connection: Connection, order_ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """The lines of each order, in order, without the cells that are empty."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in _dicts(connection, _LINES, order_ids):
        line = {k: v for k, v in row.items() if v is not None and k not in ("order_id", "number")}
        found[row["order_id"]].append(line)
    return found


def _dicts(connection: Connection, query: Select[Any], ids: Iterable[int]) -> list[dict[str, Any]]:
    result = connection.execute(query, {"ids": ids})
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def rows_of(connection: Connection, of: Table, ids: Iterable[int | None]) -> dict[int, dict[str, Any]]:
    wanted = [i for i in ids if i is not None]
    return {row["id"]: row for row in _dicts(connection, _by_id(of), wanted)} if wanted else {}


@cache
def _by_id(of: Table) -> Select[Any]:
    return select(of).where(among(of.c.id, "ids"))
