"""
Campaigns: what each one did, and the orders that followed its messages.

Conversions are called attributed, never caused: the customers might have come back unasked, which
only a holdout can tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, func, select, true, type_coerce

from outreach.campaigns import Goal
from outreach.models import Answer, Case, Enrolment, Message, Order, ShopEvent, Status, table
from outreach.reports import Report
from outreach.reports.coupons import Sums, by_campaign
from outreach.reports.periods import grid, instants
from outreach.reports.retention import share
from outreach.settings import Settings
from outreach.store import Database, read
from outreach.timing import add

CAMPAIGNS = (
    *("campaign", "enrolled", "assigned", "holdout", "planned", "sent", "failed", "unknown"),
    *("held", "skipped", "expired", "cancelled", "by_reason", "goal", "attributed", "rate", "low", "high"),
    *("coupons", "coupons_used", "coupons_expired", "revenue", "discount"),
)

_enrolments, _messages, _answers = table(Enrolment), table(Message), table(Answer)
_orders, _cases, _shop_events = table(Order), table(Case), table(ShopEvent)


@dataclass
class _Counts:
    """What is added up for one campaign."""

    enrolled: int = 0
    assigned: int = 0
    holdout: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def campaigns(
    db: Database, settings: Settings, start: date, end: date, *, now: datetime, goals: Mapping[str, Goal]
) -> Report:
    """
    Per campaign with anything due in [start, end), local days: enrolments by their first due time,
    messages by their due time, as far as they were made before `now`.

    - `enrolled` occasions taken up; `assigned` those of them that passed the rules and drew an arm;
      `holdout` those that drew the holdout. `planned` (waiting, or being sent), `sent`, `failed`,
      `unknown`, `held`, `skipped`, `expired`, `cancelled` count messages. `by_reason` says why,
      for occasions without an arm and messages that were not sent.
    - `attributed`: sent messages whose customer met the campaign's goal within its window; a record
      that several messages could claim goes to the last of them. `rate` is per message sent, with
      Wilson's 95 % interval. None without a goal: `goals` has those of the current release.
    - `coupons` that its messages brought first, those `coupons_used` and `coupons_expired`, the `revenue`
      of the orders that used them and the `discount` on these: as in `reports.coupons`.
    """
    zone = settings.business.timezone
    grid(start, end, None)  # refuses an empty period
    with read(db) as connection:
        since, until = instants(start, end, zone, datetime.max.replace(tzinfo=now.tzinfo))
        counts = _counts(connection, since, until, now)
        credited = _attributed(connection, zone, since, until, now, goals)
        given = by_campaign(connection, settings, since, until, now)
    rows = [
        _row(name, counts[name], goals.get(name), credited[name], given.get(name, Sums())) for name in sorted(counts)
    ]
    return Report(CAMPAIGNS, rows)


def _row(name: str, counts: _Counts, goal: Goal | None, credited: int, given: Sums) -> dict[str, Any]:
    sent = counts.statuses[Status.SENT]
    attributed = credited if goal else None
    return {
        "campaign": name,
        "enrolled": counts.enrolled,
        "assigned": counts.assigned,
        "holdout": counts.holdout,
        "planned": counts.statuses[Status.PLANNED] + counts.statuses[Status.SENDING],
        **{str(status): counts.statuses[status] for status in _ENDS},
        "by_reason": dict(sorted(counts.reasons.items())),
        "goal": f"{goal.event} within {goal.within}" if goal else None,
        "attributed": attributed,
        **share(credited, sent if goal else 0),
        "coupons": given.issued,
        "coupons_used": given.used,
        "coupons_expired": given.expired,
        "revenue": dict(sorted(given.revenue.items())),
        "discount": dict(sorted(given.discount.items())),
    }


_ENDS = (
    Status.SENT, Status.FAILED, Status.UNKNOWN, Status.HELD, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED,
)  # fmt: skip


def _counts(connection: Connection, since: datetime, until: datetime, now: datetime) -> dict[str, _Counts]:
    found: dict[str, _Counts] = defaultdict(_Counts)
    e, m = _enrolments.c, _messages.c
    due = and_(e.first_due_at >= since, e.first_due_at < until, e.created_at <= now)
    taken = select(e.campaign, e.arm, e.reason, func.count()).where(due).group_by(e.campaign, e.arm, e.reason)
    for campaign, arm, reason, count in connection.execute(taken):
        one = found[campaign]
        one.enrolled += count
        one.assigned += count if arm else 0
        one.holdout += count if arm == "holdout" else 0
        one.reasons.update({reason: count} if not arm and reason else {})
    due = and_(m.due_at >= since, m.due_at < until, m.created_at <= now)
    ended = select(m.campaign, m.status, m.reason, func.count()).where(due).group_by(m.campaign, m.status, m.reason)
    for campaign, status, reason, count in connection.execute(ended):
        found[campaign].statuses[status] += count
        found[campaign].reasons.update({reason: count} if reason and status != Status.PLANNED else {})
    return found


# --- attribution ---------------------------------------------------------------------------------


def _attributed(
    connection: Connection, zone: str, since: datetime, until: datetime, now: datetime, goals: Mapping[str, Goal]
) -> Counter[str]:
    """By campaign: sent messages due in [since, until) that are credited with a goal."""
    credited: Counter[str] = Counter()
    for event in sorted({goal.event for goal in goals.values()}):
        own = {name: goal for name, goal in goals.items() if goal.event == event}
        best = _claims(_candidates(connection, event, own, since, now), own, zone)
        counted = {(campaign, message) for campaign, message, due_at in best if since <= due_at < until}
        credited.update(campaign for campaign, _ in counted)
    return credited


Claim = tuple[str, int, datetime]  # campaign, message, when it was due


def _claims(rows: Iterable[Any], goals: Mapping[str, Goal], zone: str) -> Iterable[Claim]:
    """For each record the last message before it whose window holds it; rows come by record, latest message first."""
    last = None
    for row in rows:
        if row.record != last and row.at < add(row.sent_at, goals[row.campaign].within, zone):
            last = row.record
            yield row.campaign, row.id, row.due_at


def _candidates(
    connection: Connection, event: str, goals: Mapping[str, Goal], since: datetime, now: datetime
) -> Iterable[Any]:
    """Records that met the goal, each with the sent messages before it that might claim it."""
    source = _source(event)
    if source is None:
        return []
    records, at, condition = source
    longest = max(int(goal.within.longest.total_seconds() * 1_000_000) for goal in goals.values())
    m, sent, micros = _messages.c, type_coerce(_messages.c.sent_at, BigInteger), type_coerce(at, BigInteger)
    wanted = (
        select(records.c.id.label("record"), at.label("at"), m.id, m.campaign, m.sent_at, m.due_at)
        .join(_messages, m.customer_id == records.c.customer_id)
        .where(
            condition, at < now, at >= since, m.status == Status.SENT, m.campaign.in_(sorted(goals)),
            sent < micros, micros < sent + longest,
        )
        .order_by(records.c.id, m.sent_at.desc(), m.id.desc())
    )  # fmt: skip
    return connection.execution_options(yield_per=5_000).execute(wanted)


def _source(event: str) -> tuple[Any, Any, Any] | None:
    """Where a goal's records stand: their table, the time that counts, and which of them do."""
    head, _, tail = event.partition(".")
    if head == "order" and f"{tail}_at" in _orders.c:
        at = _orders.c[f"{tail}_at"]
        return _orders, at, and_(at.is_not(None), _orders.c.counted | (tail in ("cancelled", "refunded")))
    if head == "case" and tail in ("opened", "closed"):
        at = _cases.c[f"{tail}_at"]
        return _cases, at, at.is_not(None)
    if event == "survey.answered":
        return _answers, _answers.c.changed_at, true()
    return _shop_events, _shop_events.c.at, _shop_events.c.name == event
