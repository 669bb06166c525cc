"""
Occasions: which firings of a campaign's trigger are new.

Three ways in: the `fresh` queue (an event time was set), the clock (a lapse, a birthday, a
schedule came due since the cursor) and what publishing left owed (`backfill`, a past `starts`).
Each gives pages of occasions and what to remember once a page is written; reading a page again
after a crash is harmless, since an occasion has one key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, literal, or_, select, text, tuple_

from outreach import conditions, facts, timing
from outreach.campaigns import Campaign
from outreach.models import (
    Answer,
    Case,
    Coupon,
    Customer,
    CustomerDate,
    CustomerStats,
    Fresh,
    Message,
    Order,
    Reply,
    ShopEvent,
    from_micros,
    table,
    to_micros,
)
from outreach.releases import date_name
from outreach.settings import Settings
from outreach.store import among
from outreach.values import Duration, parse_duration

PAGE = 500  # occasions or enrolments a transaction: keeps each well under 0.2 s on a small machine
AHEAD = timedelta(hours=14)  # the furthest any zone is ahead of UTC: a date is taken up before it begins anywhere
SLACK = timedelta(hours=1)  # a daylight-saving change may move a lapse by this much
SHORTER = timedelta(days=3)  # what February lacks of the longest month

_customers, _stats, _dates = table(Customer), table(CustomerStats), table(CustomerDate)
_orders, _cases, _shop_events, _fresh = table(Order), table(Case), table(ShopEvent), table(Fresh)
_answers, _replies, _messages = table(Answer), table(Reply), table(Message)
_coupons = table(Coupon)

_Move = Callable[[datetime, Duration, str], datetime]
_Bounds = tuple[datetime, datetime]


class Occasion(NamedTuple):
    """One firing of a trigger for one customer."""

    customer_id: int
    record_id: int | None
    key: str
    at: datetime


@dataclass(frozen=True)
class Page:
    """Some new occasions, the keys of cleared ones, and what to remember of the campaign once they are written."""

    occasions: Sequence[Occasion]
    remember: Mapping[str, Any] = field(default_factory=dict)
    cleared: Sequence[Occasion] = ()


# --- from the queue -------------------------------------------------------------------------------


def fresh_kinds(campaign: Campaign) -> tuple[str, ...]:
    """The kinds of `fresh` rows that may start the campaign."""
    trigger = campaign.trigger
    if trigger.subject == "event":
        return (f"event.{trigger.event}",)
    if trigger.event == "customer.inactive":
        return ("customer.last_order",)
    if trigger.event == "case.overdue":
        return ("case.opened",)
    if date_name(campaign):
        return ("customer.dates",)
    return () if trigger.event in ("date", "schedule", "coupon.expiring") else (trigger.event,)


def from_fresh(
    connection: Connection, campaign: Campaign, settings: Settings, state: Any, now: datetime, newest: int
) -> Iterator[Page]:
    """Pages of what the queue holds for the campaign beyond what it has consumed."""
    kinds = fresh_kinds(campaign)
    last = state.fresh_id
    while kinds and last < newest:
        rows = connection.execute(_FRESH_PAGE, {"kinds": kinds, "last": last, "newest": newest}).all()
        last = rows[-1].id if len(rows) == PAGE else newest
        if rows:
            records = {record: customer for _, record, customer in rows}
            occasions, cleared = _of_records(connection, campaign, settings, records, now)
            yield Page(occasions, {"fresh_id": last}, cleared)


_FRESH_PAGE = (
    select(_fresh.c.id, _fresh.c.record_id, _fresh.c.customer_id)
    .where(
        _fresh.c.kind.in_(bindparam("kinds", expanding=True)),
        _fresh.c.id > bindparam("last"),
        _fresh.c.id <= bindparam("newest"),
    )
    .order_by(_fresh.c.id)
    .limit(PAGE)
)


def _of_records(
    connection: Connection, campaign: Campaign, settings: Settings, records: Mapping[int, int], now: datetime
) -> tuple[list[Occasion], list[Occasion]]:
    trigger, zone = campaign.trigger, settings.business.timezone
    if trigger.event == "customer.inactive":
        rows = connection.execute(_lapse_query(among(_stats.c.customer_id, records))).all()
        return [o for o in _lapses(rows, campaign, zone) if o.at <= now], []
    if trigger.event == "case.overdue":
        rows = connection.execute(_overdue_query(among(_cases.c.id, records))).all()
        return [o for o in _overdue(rows, campaign, zone) if o.at <= now], []
    if name := date_name(campaign):
        last = _last_date(now, zone)
        days = [last - timedelta(days=n) for n in range(campaign.look_back.days + 1)]
        found = [
            occasion
            for day in days
            for page in _on_day(connection, campaign, zone, name, day, among(_dates.c.customer_id, records))
            for occasion in page
        ]
        return found, []
    occasions, cleared, event = [], [], trigger.event
    for record, customer, at, again in connection.execute(_times(trigger.subject, event), {"ids": records}).all():
        if at is not None:
            occasions.append(Occasion(customer, record, facts.key_of(event, record, again), at))
        else:  # a case that is open again is no more the one that was closed before
            cleared.append(Occasion(customer, record, facts.key_of(event, record, max(again - 1, 0)), now))
    return occasions, cleared


@cache
def _times(subject: str, event: str) -> Select[Any]:
    """The id, the customer and the time of each of some records, and which time it is that it happens."""
    of, column = _record_time(subject, event)
    customer = of.c.id.label("customer_id") if of is _customers else of.c.customer_id
    return select(of.c.id, customer, column, _again(event)).where(among(of.c.id, "ids"))


def _again(event: str) -> ColumnElement[int]:
    return (_cases.c.reopened if event == "case.closed" else literal(0)).label("again")


def _record_time(subject: str, event: str) -> tuple[Any, Any]:
    """The table and the time column of a record trigger."""
    if subject == "event":
        return _shop_events, _shop_events.c.at
    if subject == "answer":
        return _answers, _answers.c.changed_at
    if subject == "reply":
        return _replies, _replies.c.at
    if event == "customer.created":
        return _customers, _customers.c.created_at
    of = _orders if subject == "order" else _cases
    return of, of.c[f"{event.partition('.')[2]}_at"]


# --- from the clock -------------------------------------------------------------------------------


def from_clock(
    connection: Connection, campaign: Campaign, settings: Settings, state: Any, now: datetime
) -> Iterator[Page]:
    """Pages of what came due in (cursor, now]; the last page moves the cursor. Nothing due gives no page."""
    trigger, zone = campaign.trigger, settings.business.timezone
    if trigger.event == "customer.inactive":
        c = _stats.c
        pages = _waited(
            connection, campaign, zone, state.cursor, now, _lapse_query, _lapses, (c.last_order_at, c.customer_id)
        )
        yield from _came_due(pages, state, now)
    elif trigger.event == "case.overdue":
        key = (_cases.c.opened_at, _cases.c.id)
        pages = _waited(connection, campaign, zone, state.cursor, now, _overdue_query, _overdue, key)
        yield from _came_due(pages, state, now)
    elif trigger.event == "coupon.expiring":
        yield from _came_due(_expiring_pages(connection, campaign, zone, state.cursor, now), state, now)
    elif name := date_name(campaign):
        yield from _came_due(_date_pages(connection, campaign, zone, name, state.cursor, now), state, now)
    elif trigger.event in ("date", "schedule"):
        resumed = state.cursor_customer  # of the first occurrence after the cursor, where a tick was cut off
        for occurrence in _occurrences(campaign, zone, state.cursor, now):
            yield from _whole_audience(connection, campaign, occurrence, resumed)
            resumed = 0


def _came_due(pages: Iterator[list[Occasion]], state: Any, now: datetime) -> Iterator[Page]:
    """Every page, the cursor moving only with the last, and once a day where there is none."""
    kept: list[Occasion] | None = None
    for page in pages:
        if kept:
            yield Page(kept)
        kept = page or kept
    if kept or now - state.cursor > timedelta(days=1):
        yield Page(kept or [], {"cursor": now})


def _bounds(since: datetime, now: datetime, by: Duration, back: _Move, forth: _Move, zone: str) -> _Bounds:
    """
    The bounds of what `forth` moves into (since, now]: exact, or wider where `back` does not undo it.

    Beside a change of the clocks the same wall-clock time comes twice or never; months later, or earlier, the 29th to
    the 31st may all fall on the last day of a shorter month.
    """
    low, high = back(since, by, zone), back(now, by, zone)
    if by.months and (forth(high, by, zone) != now or forth(high + timedelta(days=1), by, zone) <= now):
        high += SHORTER
    if all(_is_steady(at, zone) for at in (since, now, low, high)):
        return low, high
    return low - SLACK, high + SLACK


def _is_steady(at: datetime, zone: str) -> bool:
    """Whether the clocks of the zone do not change within two hours of the instant."""
    around = (at - 2 * SLACK, at, at + 2 * SLACK)
    return len({moment.astimezone(timing.zone(zone)).utcoffset() for moment in around}) == 1


def _lapse_query(where: ColumnElement[bool]) -> Select[Any]:
    c = _stats.c
    return select(c.customer_id, c.last_order_id, c.last_order_at).where(where, c.last_order_at.is_not(None))


def _lapses(rows: Sequence[Any], campaign: Campaign, zone: str) -> list[Occasion]:
    after = campaign.trigger.after
    assert after is not None  # noqa: S101 - the campaign's reader requires it
    return [
        Occasion(
            row.customer_id,
            row.last_order_id,
            f"customer.inactive:{row.last_order_id}",
            timing.add(row.last_order_at, after, zone),
        )
        for row in rows
    ]


def _waited(
    connection: Connection,
    campaign: Campaign,
    zone: str,
    since: datetime,
    now: datetime,
    query: Callable[[ColumnElement[bool]], Select[Any]],
    read: Callable[[Sequence[Any], Campaign, str], list[Occasion]],
    key: tuple[Any, Any],  # the time the wait began, and what tells two of the same time apart
) -> Iterator[list[Occasion]]:
    """Pages of what began its wait so that the wait ended in (since, now]."""
    after = campaign.trigger.after
    assert after is not None  # noqa: S101
    low, high = _bounds(since, now, after, timing.subtract, timing.add, zone)
    for rows in _paged(connection, query(and_(key[0] > low, key[0] <= high)), key):
        yield [occasion for occasion in read(rows, campaign, zone) if since < occasion.at <= now]


def _paged(connection: Connection, query: Select[Any], key: tuple[Any, ...]) -> Iterator[Sequence[Any]]:
    """The query in pages by its key, each starting where the last one ended."""
    page = query.order_by(*key).limit(PAGE)
    while rows := connection.execute(page).all():
        yield rows
        if len(rows) < PAGE:
            return
        last = tuple(getattr(rows[-1], column.name) for column in key)
        page = query.where(tuple_(*key) > tuple_(*last)).order_by(*key).limit(PAGE)


def _overdue_query(where: ColumnElement[bool]) -> Select[Any]:
    c = _cases.c
    return select(c.id, c.customer_id, c.opened_at).where(where, c.closed_at.is_(None))


def _overdue(rows: Sequence[Any], campaign: Campaign, zone: str) -> list[Occasion]:
    after = campaign.trigger.after
    assert after is not None  # noqa: S101
    return [
        Occasion(row.customer_id, row.id, f"case.overdue:{row.id}", timing.add(row.opened_at, after, zone))
        for row in rows
    ]


def _expiring_pages(
    connection: Connection, campaign: Campaign, zone: str, since: datetime, now: datetime
) -> Iterator[list[Occasion]]:
    """Pages of the coupons that nobody has redeemed and that expire so that the moment before fell in (since, now]."""
    before, c = campaign.trigger.before, _coupons.c
    assert before is not None  # noqa: S101 - the campaign's reader requires it
    low, high = _bounds(since, now, before, timing.add, timing.subtract, zone)
    open_ones = (text("coupons.status = 'issued'"), c.expires_at > max(low, since), c.expires_at <= high)
    query = select(c.id, c.customer_id, c.expires_at).where(*open_ones)
    if campaign.trigger.offer:
        query = query.where(c.offer == campaign.trigger.offer)
    for rows in _paged(connection, query, (c.expires_at, c.id)):
        page = [
            Occasion(
                row.customer_id, row.id, f"coupon.expiring:{row.id}", timing.subtract(row.expires_at, before, zone)
            )
            for row in rows
        ]
        yield [occasion for occasion in page if since < occasion.at <= now]


def _last_date(now: datetime, zone: str) -> date:
    """The latest calendar day that has begun, or will within 14 hours, in the business's zone."""
    return (now + AHEAD).astimezone(timing.zone(zone)).date()


def _date_pages(
    connection: Connection, campaign: Campaign, zone: str, name: str, since: datetime, now: datetime
) -> Iterator[list[Occasion]]:
    day, last = _last_date(since, zone), _last_date(now, zone)
    while day < last:
        day += timedelta(days=1)
        yield from _on_day(connection, campaign, zone, name, day)


def _on_day(
    connection: Connection,
    campaign: Campaign,
    zone: str,
    name: str,
    day: date,
    only: ColumnElement[bool] | None = None,
) -> Iterator[list[Occasion]]:
    """The occasions that fall on one calendar day: midnight there in the customer's own zone."""
    c = _dates.c
    if campaign.trigger.event == "customer.birthday":
        wanted: ColumnElement[bool] = c.month_day.in_(_month_days(day))
    else:
        before = campaign.trigger.before
        on = [day] if before is None else timing.days_falling_on(day, before)
        wanted = c.on_date.in_([each.isoformat() for each in on])
    query = select(c.customer_id, c.on_date, _customers.c.zones).join(_customers, _customers.c.id == c.customer_id)
    query = query.where(c.name == name, wanted, *([only] if only is not None else []))
    for rows in _paged(connection, query, (c.customer_id,)):
        yield [_on_date(campaign, zone, name, day, row) for row in rows]


def _on_date(campaign: Campaign, zone: str, name: str, day: date, row: Any) -> Occasion:
    yearly = campaign.trigger.event == "customer.birthday"
    key = f"customer.birthday:{day.year}" if yearly else f"date:{name}:{row.on_date}"
    return Occasion(row.customer_id, None, key, timing.local_midnight(day, (row.zones.split() or [zone])[0]))


def _month_days(day: date) -> list[int]:
    """The stored month-days kept on this day: 29 February is kept on the 28th in other years."""
    days = [100 * day.month + day.day]
    if (day.month, day.day) == (2, 28) and (day + timedelta(days=1)).month == 3:
        days.append(229)
    return days


def _occurrences(campaign: Campaign, zone: str, since: datetime, now: datetime) -> Iterator[datetime]:
    trigger = campaign.trigger
    if trigger.schedule:
        yield from timing.occurrences(trigger.schedule, since, now, zone)
    elif trigger.on_date:
        at = timing.at_local(trigger.on_date, trigger.at or time(0), zone)
        if since < at <= now:
            yield at


def _whole_audience(connection: Connection, campaign: Campaign, occurrence: datetime, after: int) -> Iterator[Page]:
    day = campaign.trigger.on_date  # its hour may be corrected: nobody is told twice
    key = f"date:{day}" if day is not None else f"{campaign.trigger.event}:{to_micros(occurrence) // 1_000_000}"
    query = select(_customers.c.id).where(_customers.c.merged_into.is_(None), _customers.c.id > after)
    for rows in _paged(connection, query, (_customers.c.id,)):
        yield Page([Occasion(row.id, None, key, occurrence) for row in rows], {"cursor_customer": rows[-1].id})
    yield Page([], {"cursor": occurrence, "cursor_customer": 0})


# --- what publishing left owed --------------------------------------------------------------------


def owed(connection: Connection, campaign: Campaign, settings: Settings, state: Any) -> Iterator[Page]:
    """Older occasions, newest first; the page's times are the records' own (`paced` spreads a backfill)."""
    debt = dict(state.backfill)
    while debt:
        rows = connection.execute(_older(campaign, settings, debt)).all()
        if campaign.trigger.event == "customer.inactive":
            found = _lapses(rows, campaign, settings.business.timezone)
        else:
            event = campaign.trigger.event
            found = [Occasion(row.customer_id, row.id, facts.key_of(event, row.id, row.again), row.at) for row in rows]
        occasions = [occasion for occasion in found if debt["from"] <= to_micros(occasion.at) < debt["to"]]
        if len(rows) == PAGE:
            debt["before"] = [to_micros(rows[-1].sort), rows[-1].id]
        else:
            debt = {}
        yield Page(occasions, {"backfill": dict(debt)})


def paced(occasions: Sequence[Occasion], debt: Mapping[str, Any], settings: Settings) -> list[Occasion]:
    """The occasions with their times spread from publish on at the backfill's pace, continuing after `done`."""
    if "pace" not in debt:
        return list(occasions)
    per, at = parse_duration(debt["per"]), from_micros(debt["at"])
    spread = []
    for number, occasion in enumerate(occasions, debt["done"]):
        turns = number // debt["pace"]
        later = replace(per, months=per.months * turns, days=per.days * turns, seconds=per.seconds * turns)
        spread.append(occasion._replace(at=timing.add(at, later, settings.business.timezone)))
    return spread


def _older(campaign: Campaign, settings: Settings, debt: Mapping[str, Any]) -> Select[Any]:
    """One page of records by an indexed time, newest first, beginning below `before`."""
    low, high = from_micros(debt["from"]), from_micros(debt["to"])
    zone, trigger = settings.business.timezone, campaign.trigger
    if trigger.event == "customer.inactive" and trigger.after:
        c = _stats.c
        low, high = _bounds(low, high, trigger.after, timing.subtract, timing.add, zone)
        query = _lapse_query(c.last_order_id.is_not(None))
        query = query.add_columns(c.last_order_id.label("id"), c.last_order_at.label("sort"))
        key: tuple[Any, ...] = (c.last_order_at, c.last_order_id)
    else:
        of, column = _record_time(trigger.subject, trigger.event)
        sort = of.c.placed_at if of is _orders else column
        low = low - timedelta(days=90) if of is _orders else low  # delivered long after it was placed
        customer = of.c.id.label("customer_id") if of is _customers else of.c.customer_id
        query = select(of.c.id, customer, column.label("at"), sort.label("sort"), _again(trigger.event))
        query = query.where(column.is_not(None))
        key = (sort, of.c.id)
    query = query.where(key[0] >= low, key[0] < high)
    if debt.get("before"):
        at, last = from_micros(debt["before"][0]), debt["before"][1]
        query = query.where(or_(key[0] < at, and_(key[0] == at, key[1] < last)))
    return query.order_by(key[0].desc(), key[1].desc()).limit(PAGE)


# --- the audience ---------------------------------------------------------------------------------


def in_audience(
    connection: Connection, campaign: Campaign, settings: Settings, occasions: Sequence[Occasion], now: datetime
) -> list[Occasion]:
    """Those whose record fits the trigger's patterns and whose customer fits the campaign's `where`."""
    kept = _fitting(connection, campaign, occasions)
    if campaign.where and kept:
        true = where_true(connection, campaign, settings, campaign.where, kept, now)
        kept = [occasion for occasion in kept if (occasion.customer_id, occasion.record_id) in true]
    return kept


def _fitting(connection: Connection, campaign: Campaign, occasions: Sequence[Occasion]) -> list[Occasion]:
    trigger = campaign.trigger
    if trigger.subject == "order" and (trigger.sku or trigger.product or trigger.category):
        lines = facts.lines_of(connection, {o.record_id for o in occasions if o.record_id})
        return [
            o for o in occasions if any(facts.matches_line(trigger, line) for line in lines.get(o.record_id or 0, ()))
        ]
    if trigger.subject == "case" and (trigger.kind or trigger.category or trigger.outcome):
        c = _cases.c
        rows = connection.execute(
            select(c.id, c.kind, c.category, c.outcome).where(among(c.id, [o.record_id for o in occasions]))
        )
        fit = {row.id for row in rows if _fits_case(campaign, row)}
        return [o for o in occasions if o.record_id in fit]
    if trigger.subject == "answer" and trigger.survey:
        c = _answers.c
        rows = connection.execute(select(c.id, c.survey, c.score).where(among(c.id, [o.record_id for o in occasions])))
        fit = {row.id for row in rows if _fits_answer(campaign, row)}
        return [o for o in occasions if o.record_id in fit]
    if trigger.subject == "reply" and (trigger.intent or trigger.to):
        c = _replies.c
        query = select(c.id, c.intents, _messages.c.campaign, _messages.c.step).outerjoin(
            _messages, _messages.c.id == c.message_id
        )
        rows = connection.execute(query.where(among(c.id, [o.record_id for o in occasions])))
        fit = {row.id for row in rows if _fits_reply(campaign, row)}
        return [o for o in occasions if o.record_id in fit]
    return list(occasions)


def _fits_reply(campaign: Campaign, row: Any) -> bool:
    trigger = campaign.trigger
    means = not trigger.intent or bool(set(trigger.intent) & set(row.intents))
    return means and trigger.to in (None, row.campaign, f"{row.campaign}/{row.step}")


def _fits_answer(campaign: Campaign, row: Any) -> bool:
    trigger = campaign.trigger
    low, high = trigger.score or (row.score, row.score)
    return bool(row.survey == trigger.survey and low <= row.score <= high)


def _fits_case(campaign: Campaign, row: Any) -> bool:
    trigger = campaign.trigger
    return all(
        not patterns or any(facts.fits_pattern(value, pattern) for pattern in patterns)
        for patterns, value in (
            (trigger.kind, row.kind),
            (trigger.category, row.category),
            (trigger.outcome, row.outcome),
        )
    )


def where_true(
    connection: Connection,
    campaign: Campaign,
    settings: Settings,
    expression: str,
    occasions: Sequence[Any],
    now: datetime,
) -> set[tuple[int, int | None]]:
    """The (customer, record) pairs, of occasions or enrolments, for which the expression is true as of `now`."""
    subject = campaign.trigger.subject
    condition = conditions.compile_condition(expression, subject=subject, settings=settings, now=now)
    joined = _customers.outerjoin(_stats, _stats.c.customer_id == _customers.c.id)
    if subject == "customer":
        query = (
            select(_customers.c.id)
            .select_from(joined)
            .where(among(_customers.c.id, [o.customer_id for o in occasions]), condition)
        )
        true = set(connection.execute(query).scalars())
        return {(o.customer_id, o.record_id) for o in occasions if o.customer_id in true}
    of = {
        "order": _orders,
        "case": _cases,
        "event": _shop_events,
        "answer": _answers,
        "reply": _replies,
        "coupon": _coupons,
    }[subject]
    query = select(of.c.id).select_from(joined.join(of, of.c.customer_id == _customers.c.id))
    true = set(connection.execute(query.where(among(of.c.id, [o.record_id for o in occasions]), condition)).scalars())
    return {(o.customer_id, o.record_id) for o in occasions if o.record_id in true}
