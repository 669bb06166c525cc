"""
Outlook: why a tick of `plan` wrote no message, and what comes next.

Looked up only where nothing was written, by index and a few rows for each campaign: it costs the
same after ten years as on the first day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text

from outreach import releases, store, timing
from outreach.campaigns import Campaign, Trigger
from outreach.models import Case, Coupon, Customer, CustomerDate, CustomerStats, Enrolment, Order, table
from outreach.planner.tick import Outlook, Tick
from outreach.settings import Settings

MOST = 1_000  # rows counted; beyond them it is `1,000 or more`
NAMED = 3  # campaigns named in one line

_orders, _cases, _customers, _coupons = table(Order), table(Case), table(Customer), table(Coupon)
_stats, _dates, _enrolments = table(CustomerStats), table(CustomerDate), table(Enrolment)


class Coming(NamedTuple):
    """What comes next for a campaign."""

    at: datetime
    campaign: str
    what: str  # `step`: of somebody enrolled; `occasion`: somebody may be enrolled; `start`: the campaign itself


def of_nothing_published() -> Outlook:
    return Outlook("Nothing is published: `outreach publish` puts what is in campaigns/ in force.")


def of_an_idle_tick(tick: Tick, states: Mapping[str, Any]) -> Outlook:
    """Why the tick wrote no message, as far as it is not a pause that began in it."""
    running = [one for one in tick.loaded.campaigns.values() if one.active and one.name in states]
    if not running:
        return Outlook(
            f"No campaign of release {tick.loaded.number} is switched on:"
            " write `active: yes` into a file of campaigns/, then `outreach publish`."
        )
    going = [one for one in running if states[one.name].paused_at is None]
    if not going:
        return Outlook(
            f"Every campaign that is switched on is paused ({_named(running)}):"
            " `outreach status` says why, `outreach resume` lets it go on."
        )
    with store.read(tick.db) as connection:
        if connection.execute(select(_customers.c.id).limit(1)).first() is None:
            return Outlook("There are no customers yet: `outreach import` reads them.")
        coming = min(
            (one for campaign in going for one in _coming(connection, campaign, tick.settings, tick.now)), default=None
        )
        why = _why(connection, tick, going, states)
        if coming is None:
            return Outlook(why, _awaited(connection, going))
        return Outlook(why, _said(connection, coming, tick), coming.campaign, coming.at, coming.what)


# --- why ------------------------------------------------------------------------------------------


def _why(connection: Connection, tick: Tick, going: Sequence[Campaign], states: Mapping[str, Any]) -> str:
    counts, looked = tick.counts, tick.looked
    if counts.enrolled:
        return f"Enrolled {counts.enrolled:,}, and no step of theirs is due yet."
    if counts.skipped:
        return "Nothing of what was due may be sent: `outreach report campaigns` counts the reasons."
    if looked["seen"]:
        parts = (
            (looked["untimely"], "outside the time of their campaign, which begins with its publish"),
            (looked["outside"], "of customers outside its `where`, or of records that its trigger does not mean"),
            (looked["known"], "taken up before"),
        )
        listed = ", ".join(f"{count:,} {what}" for count, what in parts if count)
        return f"{looked['seen']:,} occasions were looked at: {listed}."
    which = _named(going) if len(going) <= NAMED else f"any of the {len(going)} campaigns that are on"
    newest = connection.execute(select(func.max(_orders.c.placed_at))).scalar()
    order = f"; the newest order is of {_when(newest, tick)}" if newest else "; there are no orders yet"
    if any(_has_enrolled(connection, one) for one in going):
        return f"Nothing new has come for {which}{order}."
    since = max(states[one.name].first_published_at for one in going)
    return (
        f"Nothing has come for {which} since {_when(since, tick)}, when it was published{order}."
        " Older ones are left alone, unless a campaign says `backfill:`."
    )


def _has_enrolled(connection: Connection, campaign: Campaign) -> bool:
    query = select(_enrolments.c.id).where(_enrolments.c.campaign == campaign.name).limit(1)
    return connection.execute(query).first() is not None


def _named(campaigns: Sequence[Campaign]) -> str:
    names = sorted(one.name for one in campaigns)
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _when(at: datetime, tick: Tick) -> str:
    return f"{at.astimezone(timing.zone(tick.settings.business.timezone)):%Y-%m-%d %H:%M}"


# --- what comes next ------------------------------------------------------------------------------


def _said(connection: Connection, coming: Coming, tick: Tick) -> str:
    name, at = coming.campaign, _when(coming.at, tick)
    if coming.what == "start":
        return f"Next: {name} starts on {at}, as its file says."
    if coming.what == "occasion":
        return f"Next: {name} may take up its next customers on {at}."
    mine = (_enrolments.c.campaign == name, _enrolments.c.wake_at > tick.now)
    waiting = _count(connection, select(_enrolments.c.id).where(*mine).limit(MOST))
    return f"Next: a step of {name} is due on {at} (enrolled and waiting: {waiting})."


def _awaited(connection: Connection, going: Sequence[Campaign]) -> str:
    """What campaigns wait for that start with something the shop, or a customer, has yet to tell."""
    events = sorted({one.trigger.event for one in going})
    said = f"Next: {_named(going)} {'waits' if len(going) == 1 else 'wait'} for {', '.join(events)}"
    for event in ("delivered", "shipped", "paid"):
        if f"order.{event}" in events:
            newest = select(_orders.c[f"{event}_at"], _orders.c.cancelled_at).order_by(_orders.c.placed_at.desc())
            last = newest.limit(MOST).subquery()
            open_ones = select(last).where(last.c[f"{event}_at"].is_(None), last.c.cancelled_at.is_(None))
            return f"{said}; not {event} yet, of the latest orders: {_count(connection, open_ones)}."
    return f"{said}."


def _count(connection: Connection, rows: Any) -> str:
    count = connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
    return f"{count:,}" + (" or more" if count >= MOST else "")


def _coming(connection: Connection, campaign: Campaign, settings: Settings, now: datetime) -> list[Coming]:
    """When the campaign's next step is due, when its next occasion may come, and when it starts, where that is known."""
    starts, ends = releases.starts_at(campaign, settings), releases.ends_at(campaign, settings)
    woken = select(func.min(_enrolments.c.wake_at)).where(
        _enrolments.c.campaign == campaign.name, _enrolments.c.wake_at > now
    )
    times = (
        ("step", connection.execute(woken).scalar()),
        ("occasion", _next_occasion(connection, campaign, settings.business.timezone, max(now, starts or now))),
        ("start", starts if starts and starts > now else None),
    )
    return [Coming(at, campaign.name, what) for what, at in times if at is not None and (ends is None or at < ends)]


def _next_occasion(connection: Connection, campaign: Campaign, zone: str, now: datetime) -> datetime | None:
    """The next time that the trigger itself tells: None for what only the shop or a customer can make happen."""
    trigger = campaign.trigger
    if trigger.event == "customer.inactive":
        return _waited(connection, _stats.c.last_order_at, (), trigger, zone, now)
    if trigger.event == "case.overdue":
        return _waited(connection, _cases.c.opened_at, (_cases.c.closed_at.is_(None),), trigger, zone, now)
    if trigger.event == "coupon.expiring":
        return _expires(connection, trigger, zone, now)
    if trigger.schedule:
        return next(timing.occurrences(trigger.schedule, now, None, zone), None)
    if trigger.on_date:
        return _if_later(timing.at_local(trigger.on_date, trigger.at or datetime.min.time(), zone), now)
    name = releases.date_name(campaign)
    return _dated(connection, trigger, name, zone, now) if name else None


def _if_later(at: datetime, now: datetime) -> datetime | None:
    return at if at > now else None


def _waited(
    connection: Connection, began: Any, which: Sequence[Any], trigger: Trigger, zone: str, now: datetime
) -> datetime | None:
    """The end of the wait that began first of those that are not over."""
    assert trigger.after is not None  # noqa: S101 - the campaign's reader requires it
    low = timing.subtract(now, trigger.after, zone)
    first = connection.execute(select(func.min(began)).where(*which, began > low)).scalar()
    return None if first is None else _if_later(timing.add(first, trigger.after, zone), now)


def _expires(connection: Connection, trigger: Trigger, zone: str, now: datetime) -> datetime | None:
    assert trigger.before is not None  # noqa: S101
    c = _coupons.c
    query = select(func.min(c.expires_at)).where(
        text("coupons.status = 'issued'"), c.expires_at > timing.add(now, trigger.before, zone)
    )
    if trigger.offer:
        query = query.where(c.offer == trigger.offer)
    first = connection.execute(query).scalar()
    return None if first is None else _if_later(timing.subtract(first, trigger.before, zone), now)


def _dated(connection: Connection, trigger: Trigger, name: str, zone: str, now: datetime) -> datetime | None:
    """The next birthday, or the next date of the customers' own."""
    today, c = now.astimezone(timing.zone(zone)).date(), _dates.c
    if trigger.event == "customer.birthday":
        for year, after in ((today.year, 100 * today.month + today.day), (today.year + 1, 0)):
            first = connection.execute(
                select(func.min(c.month_day)).where(c.name == name, c.month_day > after)
            ).scalar()
            if first is not None:
                return timing.local_midnight(_day(year, first), zone)
        return None
    midnight = timing.local_midnight(today, zone)
    after_day = timing.add(midnight, trigger.before, zone) if trigger.before else midnight
    day = after_day.astimezone(timing.zone(zone)).date().isoformat()
    soonest = connection.execute(select(func.min(c.on_date)).where(c.name == name, c.on_date > day)).scalar()
    if soonest is None:
        return None
    at = timing.local_midnight(date.fromisoformat(soonest), zone)
    return _if_later(timing.subtract(at, trigger.before, zone) if trigger.before else at, now)


def _day(year: int, month_day: int) -> date:
    """29 February is kept on the 28th in other years."""
    month, day = divmod(month_day, 100)
    try:
        return date(year, month, day)
    except ValueError:
        return date(year, month + 1, 1) - timedelta(days=1)
