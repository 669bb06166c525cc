"""
Enrol: every new occasion of a campaign becomes an enrolment, assigned to an arm or skipped with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from outreach import arms, facts, gates, occasions, releases, store, timing
from outreach.campaigns import Campaign
from outreach.facts import Item
from outreach.models import CampaignState, Customer, Enrolment, Message, Reason, Status, table
from outreach.occasions import Occasion, Page
from outreach.planner.tick import Tick, due_at
from outreach.store import Lock, among

_states, _enrolments = table(CampaignState), table(Enrolment)
_messages, _customers = table(Message), table(Customer)


def enrol(tick: Tick, campaign: Campaign, state: Any, newest: int) -> None:
    """Take the campaign's new occasions, a page a transaction; another planner's campaign is left to it."""
    settings, now = tick.settings, tick.now

    def sources(reading: Connection) -> Iterator[Page]:
        yield from occasions.from_fresh(reading, campaign, settings, state, now, newest)
        yield from occasions.from_clock(reading, campaign, settings, state, now)
        yield from occasions.owed(reading, campaign, settings, state)

    with store.read(tick.db) as reading:
        for page in sources(reading):
            with store.write(tick.db) as writing:
                if not store.lock(writing, Lock.PLAN, campaign.name, wait=False):
                    return
                _write_page(writing, tick, campaign, page)


def _write_page(connection: Connection, tick: Tick, campaign: Campaign, page: Page) -> None:
    remember = dict(page.remember)
    found = _not_enrolled(connection, campaign, _in_time(connection, tick, campaign, page.occasions))
    if found:
        found = occasions.in_audience(connection, campaign, tick.settings, found, tick.now)
    debt = connection.execute(select(_states.c.backfill).where(_states.c.name == campaign.name)).scalar() or {}
    if "backfill" in remember and debt:
        found = occasions.paced(found, debt, tick.settings)
        if remember["backfill"]:
            remember["backfill"]["done"] = debt["done"] + len(found)
    if found:
        _write_enrolments(connection, tick, campaign, found)
    if page.cleared:
        _end_cleared(connection, campaign, page.cleared)
    if remember:
        connection.execute(update(_states).where(_states.c.name == campaign.name).values(remember))


def _in_time(connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion]) -> list[Occasion]:
    """Those between the campaign's start (its first publish, unless `starts` says otherwise) and its `ends`."""
    if not found:
        return []
    state = connection.execute(select(_states).where(_states.c.name == campaign.name)).one()
    start = releases.starts_at(campaign, tick.settings) or state.first_published_at
    if state.backfill and campaign.backfill:
        zone = tick.settings.business.timezone
        start = min(start, timing.subtract(state.first_published_at, campaign.backfill.last, zone))
    end = releases.ends_at(campaign, tick.settings)
    return [o for o in found if o.at >= start and (end is None or o.at < end)]


def _not_enrolled(connection: Connection, campaign: Campaign, found: Sequence[Occasion]) -> list[Occasion]:
    """Those that have no enrolment yet, one per key."""
    if not found:
        return []
    c = _enrolments.c
    query = select(c.customer_id, c.occasion).where(c.campaign == campaign.name)
    known = {
        tuple(row) for row in connection.execute(query.where(among(c.customer_id, {o.customer_id for o in found})))
    }
    return list({(o.customer_id, o.key): o for o in found if (o.customer_id, o.key) not in known}.values())


def _write_enrolments(connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion]) -> None:
    first = campaign.steps[0]
    items = [
        Item(campaign, first, o.customer_id, o.record_id, o.key, o.at, due_at=o.at, expires_at=o.at) for o in found
    ]
    known = facts.fetch(connection, tick.settings, items, tick.now, judging=True)
    earlier = _earlier_times(connection, tick, campaign, found)
    drawn, by_contact = _arms_drawn(connection, campaign, found), dict[int, str]()
    rows, counts = [], tick.of(campaign)
    rules = facts.rules(items[0])  # judged without its times, so one serves all
    for occasion, fact in zip(found, known, strict=True):
        reason = gates.judge(fact, rules, tick.settings, tick.db.secret)
        if reason is None and not _at_most_allows(campaign, earlier.setdefault(occasion.customer_id, []), occasion.at):
            reason = Reason.AT_MOST
        arm = None
        if reason is None:
            earlier[occasion.customer_id].append(occasion.at)
            arm = _arm(tick, campaign, occasion.customer_id, fact, drawn, by_contact)
        due = min(due_at(tick, step, occasion.at, fact.zones) for step in campaign.steps)
        rows.append(_enrolment(tick, campaign, occasion, arm, reason, due))
        counts.enrolled += reason is None
        counts.skipped += reason is not None
    store.insert_many(connection, _enrolments, rows)


def _enrolment(
    tick: Tick, campaign: Campaign, occasion: Occasion, arm: str | None, reason: Reason | None, due: datetime
) -> dict[str, Any]:
    return {
        "campaign": campaign.name,
        "customer_id": occasion.customer_id,
        "occasion": occasion.key,
        "record_id": occasion.record_id,
        "occasion_at": occasion.at,
        "first_due_at": due,
        "experiment": campaign.experiment or campaign.name,
        "arm": arm,
        "reason": reason,
        "release": tick.loaded.number,
        "created_at": tick.now,
        "wake_at": due if reason is None else None,
    }


def _arm(
    tick: Tick, campaign: Campaign, customer: int, fact: gates.Facts, drawn: dict[int, str], by_contact: dict[int, str]
) -> str:
    """The arm that the customer or one of their addresses already has, else the one the draw gives."""
    contacts = [contact.contact_id for contact in fact.contacts.values()]
    arm = drawn.get(customer) or next((by_contact[contact] for contact in contacts if contact in by_contact), None)
    if arm is None:
        experiment = campaign.experiment or campaign.name
        held = campaign.holdout and arms.is_held(tick.db.secret, experiment, campaign.holdout, fact.external_id)
        arm = "holdout" if held else "contact"
    drawn[customer] = arm
    by_contact.update(dict.fromkeys(contacts, arm))
    return arm


def _arms_drawn(connection: Connection, campaign: Campaign, found: Sequence[Occasion]) -> dict[int, str]:
    """By customer, the arm that they, or another record with one of their addresses, already have in the experiment."""
    ids = sorted({o.customer_id for o in found})
    others = {i: [i] for i in ids}
    mine, other = _customers.alias("mine"), _customers.alias("other")
    for shared in (mine.c.email_id == other.c.email_id, mine.c.phone_id == other.c.phone_id):
        query = select(mine.c.id, other.c.id).join(other, shared).where(among(mine.c.id, ids), mine.c.id != other.c.id)
        for customer, twin in connection.execute(query):
            others[customer].append(twin)
    e = _enrolments.c
    query = select(e.customer_id, e.arm).where(
        e.experiment == (campaign.experiment or campaign.name), e.arm.is_not(None)
    )
    query = query.where(among(e.customer_id, {twin for twins in others.values() for twin in twins}))
    arms_of: dict[int, str] = {}
    for customer, arm in connection.execute(query.order_by(e.id)):
        arms_of.setdefault(customer, arm)
    drawn = {customer: next((arms_of[t] for t in twins if t in arms_of), None) for customer, twins in others.items()}
    return {customer: arm for customer, arm in drawn.items() if arm is not None}


def _earlier_times(
    connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion]
) -> dict[int, list[datetime]]:
    """For `at_most`: when the campaign took up each customer before, within the window of the oldest occasion."""
    if campaign.at_most is None:
        return {}
    since = timing.subtract(min(o.at for o in found), campaign.at_most.per, tick.settings.business.timezone)
    c = _enrolments.c
    query = select(c.customer_id, c.occasion_at).where(
        c.campaign == campaign.name,
        among(c.customer_id, {o.customer_id for o in found}),
        c.occasion_at > since,
        c.arm.is_not(None),
    )
    times: dict[int, list[datetime]] = {}
    for customer, at in connection.execute(query):
        times.setdefault(customer, []).append(at)
    return times


def _at_most_allows(campaign: Campaign, times: list[datetime], at: datetime) -> bool:
    if campaign.at_most is None:
        return True
    window = campaign.at_most.per.clock
    return sum(abs(at - earlier) < window for earlier in times) < campaign.at_most.count


def _end_cleared(connection: Connection, campaign: Campaign, cleared: Sequence[Occasion]) -> None:
    """A time that was taken back cancels what was not sent of its occasions."""
    for occasion in cleared:
        e, m = _enrolments.c, _messages.c
        mine = (e.campaign == campaign.name, e.customer_id == occasion.customer_id, e.occasion == occasion.key)
        connection.execute(update(_enrolments).where(*mine).values(wake_at=None))
        theirs = (m.campaign == campaign.name, m.customer_id == occasion.customer_id, m.occasion == occasion.key)
        values = {"status": Status.CANCELLED, "reason": Reason.RECORD_CLEARED, "claim": None, "lease_until": None}
        connection.execute(update(_messages).where(*theirs, m.status == Status.PLANNED).values(values))
