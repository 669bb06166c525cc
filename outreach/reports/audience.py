"""
Audience: how many customers a condition means, and how many of them can be reached.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, or_, select

from outreach.conditions import compile_condition
from outreach.models import Consent, Contact, Customer, CustomerStats, Scope, Suppression, table
from outreach.settings import Settings
from outreach.store import Database, read
from outreach.values import CONTACT_KIND

_customers, _stats, _contacts = table(Customer), table(CustomerStats), table(Contact)
_consents, _suppressions = table(Consent), table(Suppression)


@dataclass(frozen=True)
class Reach:
    """Of the audience, how many have an address of the channel, and may get marketing or service messages there."""

    channel: str
    address: int
    marketing: int  # consent granted, nothing suppressed
    service: int  # consent not revoked, not opted out


@dataclass(frozen=True)
class Example:
    customer: str  # the shop's own id
    country: str | None
    orders_count: int
    last_order_at: datetime | None


@dataclass(frozen=True)
class Audience:
    """The customers that a condition means."""

    count: int
    total: int  # all customers
    reach: tuple[Reach, ...]  # per configured channel that has addresses
    examples: tuple[Example, ...]  # up to five, those who ordered last

    def as_json(self) -> dict[str, Any]:
        """Everything, times as ISO 8601 in UTC."""
        examples = [
            asdict(one) | {"last_order_at": one.last_order_at and one.last_order_at.isoformat()}
            for one in self.examples
        ]
        return {
            "count": self.count,
            "total": self.total,
            "reach": {one.channel: {k: v for k, v in asdict(one).items() if k != "channel"} for one in self.reach},
            "examples": examples,
        }


def audience(db: Database, settings: Settings, expression: str, now: datetime) -> Audience:
    """
    Who the condition means at `now`, of the customers that are not merged into another.

    Reach is what consent and suppression allow, before any campaign's own rules: marketing needs a
    granted consent, service one that was not revoked.

    Raises:
        ConditionError: the expression cannot be understood.
    """
    condition = compile_condition(expression, subject="customer", settings=settings, now=now)
    meant = and_(_customers.c.merged_into.is_(None), condition)
    joined = _customers.outerjoin(_stats, _stats.c.customer_id == _customers.c.id)
    with read(db) as connection:
        total = select(func.count()).select_from(_customers).where(_customers.c.merged_into.is_(None))
        count = select(func.count()).select_from(joined).where(meant)
        channels = [channel for channel in settings.channels if channel in CONTACT_KIND]
        return Audience(
            count=connection.execute(count).scalar_one(),
            total=connection.execute(total).scalar_one(),
            reach=tuple(_reach(connection, joined, meant, channel, now) for channel in channels),
            examples=_examples(connection, joined, meant),
        )


def _examples(connection: Connection, joined: Any, meant: ColumnElement[bool]) -> tuple[Example, ...]:
    c, last = _customers.c, _stats.c.last_order_at
    wanted = select(c.external_id, c.country, func.coalesce(_stats.c.orders_count, 0), last).select_from(joined)
    rows = connection.execute(wanted.where(meant).order_by(last.is_(None), last.desc(), c.id).limit(5))
    return tuple(Example(*row) for row in rows)


def _reach(connection: Connection, joined: Any, meant: ColumnElement[bool], channel: str, now: datetime) -> Reach:
    kind = CONTACT_KIND[channel]
    contact = _contacts.c
    line = _consents.c
    consent = (
        select(line.status)
        .where(line.contact_id == contact.id, line.channel == channel, line.at <= now)
        .order_by(line.at.desc(), line.status.desc())  # at one instant `revoked` wins over `granted`
        .limit(1)
        .correlate(_contacts)
        .scalar_subquery()
    )
    people = (
        select(
            consent.label("consent"),
            _suppressed(now, channel).label("stopped"),
            _suppressed(now, channel, Scope.MARKETING).label("unwanted"),
        )
        .select_from(joined.join(_contacts, contact.id == _customers.c[f"{kind}_id"]))
        .where(meant, contact.address.is_not(None))
        .subquery()
    )
    may = and_(people.c.consent == "granted", people.c.stopped == 0, people.c.unwanted == 0)
    serve = and_(or_(people.c.consent.is_(None), people.c.consent != "revoked"), people.c.stopped == 0)
    counts = select(func.count(), *(func.coalesce(func.sum(case((one, 1), else_=0)), 0) for one in (may, serve)))
    address, marketing, service = connection.execute(counts.select_from(people)).one()
    return Reach(channel, address, int(marketing), int(service))


def _suppressed(now: datetime, channel: str, scope: str = "") -> ColumnElement[int]:
    """1 where an entry of the scope (or of those that stop everything but transactional) is in force, else 0."""
    c = _suppressions.c
    scopes = (scope,) if scope else (Scope.CONTACT, Scope.ADDRESS)
    found = select(c.id).where(
        c.address_hash == _contacts.c.address_hash, c.kind == _contacts.c.kind, c.scope.in_([str(s) for s in scopes]),
        or_(c.scope != str(Scope.ADDRESS), c.channel.in_(["", channel])),
        or_(c.lifted_at.is_(None), c.lifted_at > now),
    )  # fmt: skip
    return case((exists(found.correlate(_contacts)), 1), else_=0)
