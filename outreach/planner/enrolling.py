"""
Enrol: every new occasion of a campaign becomes an enrolment, assigned to an arm or skipped with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, select, update

from outreach import arms, facts, gates, occasions, releases, store, timing
from outreach.campaigns import Campaign
from outreach.facts import Item
from outreach.models import CampaignState, Customer, Enrolment, Message, Reason, Status, table, to_micros
from outreach.occasions import Occasion, Page
from outreach.planner.tick import STATE, Tick, dues_at
from outreach.planner.writing import Waiting, Writer
from outreach.store import Lock, among
from outreach.values import Limit

_states, _enrolments = table(CampaignState), table(Enrolment)
_messages, _customers = table(Message), table(Customer)


def enrol(tick: Tick, campaign: Campaign, state: Any, newest: int, writer: Writer) -> None:
    """
    Take the campaign's new occasions, a page a transaction; another planner's campaign is left to it.

    What is due at once is written with its enrolment; what is too much for one transaction is left to `write_due`.
    """
    settings, now = tick.settings, tick.now

    def sources(reading: Connection) -> Iterator[Page]:
        yield from occasions.from_fresh(reading, campaign, settings, state, now, newest)
        yield from occasions.from_clock(reading, campaign, settings, state, now)
        yield from occasions.owed(reading, campaign, settings, state)

    with store.reader(tick.db) as reading:
        for page in sources(reading):
            reading.rollback()
            with store.write(tick.db) as writing:
                if not store.lock(writing, Lock.PLAN, campaign.name, wait=False):
                    return
                _write_page(writing, tick, campaign, page, writer)


_REMEMBER = update(_states).where(_states.c.name == bindparam("of"))


def _write_page(connection: Connection, tick: Tick, campaign: Campaign, page: Page, writer: Writer) -> None:
    state = connection.execute(STATE, {"of": campaign.name}).one()
    remember = dict(page.remember)
    timely = _in_time(tick, campaign, state, page.occasions)
    new = found = _not_enrolled(connection, campaign, timely)
    if "fresh_id" in remember and len(new) < len(timely):
        _begin_again(connection, campaign, {(o.customer_id, o.key): o for o in timely}.values(), tick.now)
    if found:
        found = occasions.in_audience(connection, campaign, tick.settings, found, tick.now)
    tick.looked.update(
        seen=len(page.occasions),
        untimely=len(page.occasions) - len(timely),
        known=len(timely) - len(new),
        outside=len(new) - len(found),
    )
    if "backfill" in remember and state.backfill:
        found = occasions.paced(found, state.backfill, tick.settings)
        if remember["backfill"]:
            remember["backfill"]["done"] = state.backfill["done"] + len(found)
    if found:
        _write_enrolments(connection, tick, campaign, found, writer)
    if page.cleared:
        _end_cleared(connection, campaign, page.cleared)
    if remember:
        connection.execute(_REMEMBER, {"of": campaign.name, **remember})


def _in_time(tick: Tick, campaign: Campaign, state: Any, found: Sequence[Occasion]) -> list[Occasion]:
    """Those between the campaign's start (its first publish, unless `starts` says otherwise) and its `ends`."""
    start = releases.starts_at(campaign, tick.settings) or state.first_published_at
    if state.backfill and campaign.backfill:
        zone = tick.settings.business.timezone
        start = min(start, timing.subtract(state.first_published_at, campaign.backfill.last, zone))
    end = releases.ends_at(campaign, tick.settings)
    return [o for o in found if o.at >= start and (end is None or o.at < end)]


_KNOWN = select(_enrolments.c.customer_id, _enrolments.c.occasion).where(
    _enrolments.c.campaign == bindparam("of"), among(_enrolments.c.customer_id, "ids")
)


def _not_enrolled(connection: Connection, campaign: Campaign, found: Sequence[Occasion]) -> list[Occasion]:
    """Those that have no enrolment yet, one per key."""
    if not found:
        return []
    rows = connection.execute(_KNOWN, {"of": campaign.name, "ids": {o.customer_id for o in found}})
    known = {tuple(row) for row in rows.all()}
    return list({key: o for o in found if (key := (o.customer_id, o.key)) not in known}.values())


class _Judged(NamedTuple):
    """An occasion with what became of it: its arm, or the reason why it is not taken up."""

    occasion: Occasion
    fact: gates.Facts
    dues: list[datetime]  # of each step
    first_due: datetime
    arm: str | None
    reason: Reason | None


_COLUMNS = (
    "id",
    "campaign",
    "customer_id",
    "occasion",
    "record_id",
    "occasion_at",
    "first_due_at",
    "experiment",
    "arm",
    "reason",
    "release",
    "created_at",
    "wake_at",
)


def _write_enrolments(
    connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion], writer: Writer
) -> None:
    """Write an enrolment for each, and the messages of those that are due at once."""
    ids = store.new_ids(connection, _enrolments, len(found))
    judged = dict(zip(ids, _judge(connection, tick, campaign, found), strict=True))
    wake: dict[int, datetime | None] = {i: one.first_due for i, one in judged.items() if one.arm is not None}
    now = tick.now
    at_once = [
        _waiting(i, one, one.arm, now) for i, one in judged.items() if one.arm is not None and one.first_due <= now
    ]
    if at_once:
        due, later = writer.due(connection, at_once[: writer.page])
        if writer.write(connection, due):
            wake |= later
    created, experiment = to_micros(tick.now), campaign.experiment or campaign.name
    rows = [
        (
            i,
            campaign.name,
            o.customer_id,
            o.key,
            o.record_id,
            to_micros(o.at),
            to_micros(first_due),
            experiment,
            arm,
            reason and reason.value,
            tick.loaded.number,
            created,
            (at := wake.get(i)) and to_micros(at),
        )
        for i, (o, _, _, first_due, arm, reason) in judged.items()
    ]
    store.insert_stored(connection, _enrolments, _COLUMNS, rows)
    counts = tick.of(campaign)
    counts.enrolled += len(wake)
    counts.skipped += len(found) - len(wake)


def _waiting(i: int, judged: _Judged, arm: str, now: datetime) -> Waiting:
    o, fact, dues, first_due, _, _ = judged
    customer, email, phone, messenger = fact.external_id, fact.email_id, fact.phone_id, fact.messenger_id
    return Waiting(
        i, o.customer_id, o.key, o.record_id, o.at, arm, now, first_due, customer, email, phone, messenger, dues
    )


def _judge(connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion]) -> Iterator[_Judged]:
    """Whether each is taken up, and those that are with their arm."""
    first, experiment = campaign.steps[0], campaign.experiment or campaign.name
    items = [Item(campaign, first, o.customer_id, o.record_id, o.key, o.at, o.at, o.at) for o in found]
    known = facts.fetch(connection, tick.settings, items, tick.now, judging=True)
    rules = facts.rules(items[0])  # judged without its times, so one serves all
    earlier = _earlier_times(connection, tick, campaign, found)
    drawn, by_contact = _arms_drawn(connection, experiment, found, known), dict[int, str]()
    for o, fact in zip(found, known, strict=True):
        arm, reason = None, gates.judge(fact, rules, tick.settings, tick.db.secret)
        if reason is None and campaign.at_most and not _at_most_allows(campaign.at_most, earlier, o):
            reason = Reason.AT_MOST
        if reason is None:
            arm = _arm(tick, campaign, o.customer_id, fact, drawn, by_contact)
        dues = dues_at(tick, campaign, o.at, fact.zones)
        yield _Judged(o, fact, dues, min(dues), arm, reason)


def _arm(
    tick: Tick, campaign: Campaign, customer: int, fact: gates.Facts, drawn: dict[int, str], by_contact: dict[int, str]
) -> str:
    """The arm that the customer or one of their addresses already has, else the one the draw gives."""
    arm = drawn.get(customer)
    for contact in fact.contacts.values():
        arm = arm or by_contact.get(contact.contact_id)
    if arm is None:
        experiment = campaign.experiment or campaign.name
        held = campaign.holdout and arms.is_held(tick.db.secret, experiment, campaign.holdout, fact.external_id)
        arm = arms.HOLDOUT if held else arms.CONTACT
    drawn[customer] = arm
    for contact in fact.contacts.values():
        by_contact[contact.contact_id] = arm
    return arm


_ARMS = (
    select(_enrolments.c.customer_id, _enrolments.c.arm)
    .where(
        _enrolments.c.experiment == bindparam("experiment"),
        _enrolments.c.arm.is_not(None),
        among(_enrolments.c.customer_id, "ids"),
    )
    .order_by(_enrolments.c.id)
)


def _arms_of(kind: str) -> Select[Any]:
    """By address, the arm of the first enrolment of anybody who has it: a row an address, however many share it."""
    address = _customers.c[f"{kind}_id"]
    first = (
        select(address.label("contact"), func.min(_enrolments.c.id).label("enrolment"))
        .join(_enrolments, _enrolments.c.customer_id == _customers.c.id)
        .where(
            among(address, "ids"),
            _enrolments.c.experiment == bindparam("experiment"),
            _enrolments.c.arm.is_not(None),
        )
        .group_by(address)
        .subquery()
    )
    return select(first.c.contact, _enrolments.c.arm).join(_enrolments, _enrolments.c.id == first.c.enrolment)


_ARMS_OF = {kind: _arms_of(kind) for kind in ("email", "phone", "messenger")}


def _arms_drawn(
    connection: Connection, experiment: str, found: Sequence[Occasion], known: Sequence[gates.Facts]
) -> dict[int, str]:
    """By customer, the arm that they, or another record with one of their addresses, already have in the experiment."""
    drawn: dict[int, str] = {}
    for kind, query in _ARMS_OF.items():
        addresses = {o.customer_id: getattr(fact, f"{kind}_id") for o, fact in zip(found, known, strict=True)}
        ids = set(addresses.values()) - {None}
        rows = connection.execute(query, {"experiment": experiment, "ids": ids}).all() if ids else []
        arm_of: dict[int | None, str] = {row.contact: row.arm for row in rows}
        drawn = {customer: arm_of[i] for customer, i in addresses.items() if i in arm_of} | drawn
    own: dict[int, str] = {}
    for customer, arm in connection.execute(_ARMS, {"experiment": experiment, "ids": {o.customer_id for o in found}}):
        own.setdefault(customer, arm)
    return drawn | own


_EARLIER = select(_enrolments.c.customer_id, _enrolments.c.occasion_at).where(
    _enrolments.c.campaign == bindparam("of"),
    among(_enrolments.c.customer_id, "ids"),
    _enrolments.c.occasion_at > bindparam("since"),
    _enrolments.c.arm.is_not(None),
)


def _earlier_times(
    connection: Connection, tick: Tick, campaign: Campaign, found: Sequence[Occasion]
) -> dict[int, list[datetime]]:
    """For `at_most`: when the campaign took up each customer before, within the window of the oldest occasion."""
    times: dict[int, list[datetime]] = {}
    if campaign.at_most is not None:
        since = timing.subtract(min(o.at for o in found), campaign.at_most.per, tick.settings.business.timezone)
        values = {"of": campaign.name, "ids": {o.customer_id for o in found}, "since": since}
        for customer, at in connection.execute(_EARLIER, values):
            times.setdefault(customer, []).append(at)
    return times


def _at_most_allows(at_most: Limit, earlier: dict[int, list[datetime]], occasion: Occasion) -> bool:
    """Whether `at_most` lets the campaign take the customer up once more; if so, it is noted."""
    times, window = earlier.setdefault(occasion.customer_id, []), at_most.per.clock
    if sum(abs(occasion.at - at) < window for at in times) >= at_most.count:
        return False
    times.append(occasion.at)
    return True


def _end_cleared(connection: Connection, campaign: Campaign, cleared: Sequence[Occasion]) -> None:
    """A time that was taken back cancels what was not sent of its occasions."""
    for occasion in cleared:
        e, m = _enrolments.c, _messages.c
        mine = (e.campaign == campaign.name, e.customer_id == occasion.customer_id, e.occasion == occasion.key)
        connection.execute(update(_enrolments).where(*mine).values(wake_at=None))
        theirs = (m.campaign == campaign.name, m.customer_id == occasion.customer_id, m.occasion == occasion.key)
        values = {"status": Status.CANCELLED, "reason": Reason.RECORD_CLEARED, "claim": None, "lease_until": None}
        connection.execute(update(_messages).where(*theirs, m.status == Status.PLANNED).values(values))


_BEGIN_AGAIN = (
    update(_enrolments)
    .where(
        _enrolments.c.campaign == bindparam("of"),
        _enrolments.c.customer_id == bindparam("whose"),
        _enrolments.c.occasion == bindparam("key"),
        _enrolments.c.wake_at.is_(None),
        _enrolments.c.arm.is_not(None),
    )
    .values(wake_at=bindparam("now"), occasion_at=bindparam("then"))
)


def _begin_again(connection: Connection, campaign: Campaign, told: Iterable[Occasion], now: datetime) -> None:
    """
    A time that was taken back is there again: the steps that were not written then are still to come.

    An enrolment that has ended in any other way is looked at once more, and has nothing left to write.
    """
    values = [{"of": campaign.name, "whose": o.customer_id, "key": o.key, "then": o.at, "now": now} for o in told]
    connection.execute(_BEGIN_AGAIN, values)
