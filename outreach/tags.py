"""Tags that campaigns put on customers; those that an import puts there are the importer's."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text

_PUT = text(
    "INSERT INTO customer_tags (customer_id, tag, by_campaign) VALUES (:customer, :tag, TRUE)"
    " ON CONFLICT (customer_id, tag) DO UPDATE SET by_campaign = TRUE"
)


def put(connection: Connection, tags: Iterable[tuple[int, str]]) -> None:
    """
    Put each tag on its customer, by id; one that an import put there becomes a campaign's as well.

    Locks them in one order, so that nobody waits for one who waits for us.
    """
    rows = [{"customer": customer, "tag": tag} for customer, tag in sorted(set(tags))]
    if rows:
        connection.execute(_PUT, rows)
