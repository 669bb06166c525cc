"""Which occasions are none any more."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, select

from outreach import timing
from outreach.campaigns import ANSWERS, RESERVED
from outreach.facts.items import Item, key_of
from outreach.facts.records import times_of
from outreach.models import Case, CustomerDate, CustomerStats, Order, table
from outreach.settings import Settings
from outreach.store import among

_orders, _cases = table(Order), table(Case)
_stats, _dates = table(CustomerStats), table(CustomerDate)


def gone(connection: Connection, settings: Settings, items: Sequence[Item]) -> set[int]:
    """Which items' occasion is none any more: its time was taken back or moved, its record is another's, a lapse was none."""
    found = {i for i, item in enumerate(items) if _is_of_another(item)}
    found |= _cleared(connection, items, "order", _orders) | _cleared(connection, items, "case", _cases)
    return found | _lapsed_not(connection, settings, items) | _moved(connection, items)


def _is_of_another(item: Item) -> bool:
    """Whether its occasion is one of another trigger, which the campaign had before it was edited."""
    event, _, key = item.occasion.rpartition(":")
    if not key or not event or item.campaign.name in (RESERVED, ANSWERS):  # a preview, a manual send, an answer
        return False
    return event.partition(":")[0] != item.campaign.trigger.event


def _cleared(connection: Connection, items: Sequence[Item], subject: str, of: Table) -> set[int]:
    """Whose record's time is gone, or is of a later closing, or whose record has become another customer's."""
    events = {
        i: event
        for i, item in enumerate(items)
        if item.campaign.trigger.subject == subject and (event := item.campaign.trigger.event) != "case.overdue"
    }
    columns = {event: f"{event.partition('.')[2]}_at" for event in events.values()}
    counted = ["reopened"] if "case.closed" in columns else []
    known = times_of(connection, of, [*columns.values(), *counted], {items[i].record_id for i in events})
    found = set()
    for i, event in events.items():
        item, record = items[i], known.get(items[i].record_id, {})
        is_there = record.get(columns[event]) is not None and record["customer_id"] == item.customer_id
        now = (
            key_of(event, item.record_id or 0, record.get("reopened") or 0) if event == "case.closed" else item.occasion
        )
        if not is_there or (":" in item.occasion and item.occasion != now):
            found.add(i)
    return found


_LAST_ORDERS = select(_stats.c.customer_id, _stats.c.last_order_id, _stats.c.last_order_at).where(
    among(_stats.c.customer_id, "ids")
)


def _lapsed_not(connection: Connection, settings: Settings, items: Sequence[Item]) -> set[int]:
    """Which items' customer had ordered too shortly before the lapse: the order came in only later, or it was spread."""
    lapses = {i: item for i, item in enumerate(items) if item.campaign.trigger.event == "customer.inactive"}
    if not lapses:
        return set()
    rows = connection.execute(_LAST_ORDERS, {"ids": {item.customer_id for item in lapses.values()}}).all()
    last = {customer: (order, at) for customer, order, at in rows if at is not None}
    found, zone = set(), settings.business.timezone
    for i, item in lapses.items():
        order, at = last.get(item.customer_id, (None, None))
        after = item.campaign.trigger.after
        if at is None or after is None or order == item.record_id:
            continue
        if at <= item.occasion_at < timing.add(at, after, zone):
            found.add(i)
    return found


_OWN_DATES = select(_dates.c.customer_id, _dates.c.name, _dates.c.on_date).where(among(_dates.c.customer_id, "ids"))


def _moved(connection: Connection, items: Sequence[Item]) -> set[int]:
    """Which items' date of the customer's own is another by now, or none."""
    dated = {i: item for i, item in enumerate(items) if item.campaign.trigger.attribute is not None}
    if not dated:
        return set()
    rows = connection.execute(_OWN_DATES, {"ids": {item.customer_id for item in dated.values()}}).all()
    known = {(customer, f"date:{name}:{on_date}") for customer, name, on_date in rows}
    return {i for i, item in dated.items() if (item.customer_id, item.occasion) not in known}
