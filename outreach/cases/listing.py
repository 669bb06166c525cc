"""Listing: the cases, the overdue first, and one case with its log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select

from outreach import naming, store
from outreach.campaigns import ANSWERS
from outreach.errors import NotFound
from outreach.models import Case as CaseRow
from outreach.models import CaseNote, Customer, Message, Order, Reply, ReplyAnswer, Status, table
from outreach.store import Database, among
from outreach.yamlfile import did_you_mean

_cases, _notes, _customers = table(CaseRow), table(CaseNote), table(Customer)
_orders, _messages, _replies = table(Order), table(Message), table(Reply)
_answers = table(ReplyAnswer)


@dataclass(frozen=True)
class Note:
    """One line of a case's log."""

    at: datetime
    kind: str  # opened | joined | noted | assigned | answered | closed | reopened | overdue
    by: str
    text: str


@dataclass(frozen=True)
class Case:
    """A case as of `now`; `id`, `customer` and `order` are the shop's own, `message` is our public one."""

    id: str
    customer: str
    kind: str
    category: str | None
    sku: str | None
    order: str | None
    opened_at: datetime
    opened_by: str  # reply | page | import | person
    reply: int | None
    message: str | None
    due_at: datetime | None
    overdue: bool
    assignee: str | None
    answered_at: datetime | None
    closed_at: datetime | None
    outcome: str | None
    reopened: int
    contacts: int  # messages sent about it, and replies about it, from its opening to its closing
    note: str | None
    log: tuple[Note, ...] = field(default=())  # only of `show`


def listed(
    db: Database,
    now: datetime,
    *,
    customer: str | None = None,
    kind: str | None = None,
    is_open: bool | None = None,
    assignee: str | None = None,
    limit: int | None = None,
) -> list[Case]:
    """
    The cases opened by `now`: overdue ones, other open ones by their target time, then closed ones, the latest first.

    Raises:
        NotFound: there is no such customer, or nobody looks after a case but one whose name reads alike.
    """
    c = _cases.c
    fits = [c.opened_at <= now]
    closed = and_(c.closed_at.is_not(None), c.closed_at <= now)
    if kind is not None:
        fits.append(c.kind == kind)
    if assignee is not None:
        fits.append(c.assignee == assignee)
    if is_open is not None:
        fits.append(or_(c.closed_at.is_(None), c.closed_at > now) if is_open else closed)
    with store.read(db) as connection:
        if customer is not None:
            fits.append(among(c.customer_id, _customers_named(connection, customer)))
        if assignee is not None:
            _check_assignee(connection, assignee)
        order = (
            case((closed, 1), else_=0),
            case((closed, c.closed_at), else_=None).desc(),
            func.coalesce(c.due_at, store.micros(datetime.max.replace(tzinfo=now.tzinfo))),
            c.opened_at,
            c.id,
        )
        rows = connection.execute(_wanted().where(*fits).order_by(*order).limit(limit)).all()
        return _made(connection, rows, now)


def show(db: Database, now: datetime, name: str) -> Case:
    """
    One case with its log.

    Raises:
        NotFound: there is no such case.
    """
    with store.read(db) as connection:
        rows = connection.execute(_wanted().where(_cases.c.external_id == name)).all()
        if not rows:
            raise NotFound(f"there is no case {name!r}: `outreach cases list` shows those there are")
        n = _notes.c
        log = connection.execute(select(n.at, n.kind, n.by, n.text).where(n.case_id == rows[0].id).order_by(n.at, n.id))
        return _made(connection, rows, now, tuple(Note(*line) for line in log))[0]


def _check_assignee(connection: Connection, name: str) -> None:
    """Whoever has no case may be a colleague all the same: only what looks mistyped is said to be."""
    c = _cases.c
    if connection.execute(select(c.id).where(c.assignee == name).limit(1)).first() is None:
        known = list(connection.execute(select(c.assignee).where(c.assignee.is_not(None)).distinct()).scalars())
        if near := did_you_mean(name, sorted(known)):
            raise NotFound(f"nobody called {name!r} looks after a case: {near}")


def _customers_named(connection: Connection, name: str) -> list[int]:
    """The customer of this id, and who was merged into or out of it."""
    c = _customers.c
    found = connection.execute(select(c.id, c.merged_into).where(c.external_id == name)).first()
    if found is None:
        raise naming.no_customer(connection, name)
    return [i for i in (found.id, found.merged_into) if i is not None]


def _wanted() -> Any:
    return (
        select(
            _cases,
            _customers.c.external_id.label("customer"),
            _orders.c.external_id.label("order_name"),
            _messages.c.public_id,
        )
        .outerjoin(_customers, _customers.c.id == _cases.c.customer_id)
        .outerjoin(_orders, _orders.c.id == _cases.c.order_id)
        .outerjoin(_messages, _messages.c.id == _cases.c.message_id)
    )


def _made(connection: Connection, rows: Sequence[Any], now: datetime, log: tuple[Note, ...] = ()) -> list[Case]:
    spent = _contacts(connection, rows, now)
    return [
        Case(
            id=row.external_id,
            customer=row.customer,
            kind=row.kind,
            category=row.category,
            sku=row.sku,
            order=row.order_name,
            opened_at=row.opened_at,
            opened_by=row.opened_by,
            reply=row.reply_id,
            message=row.public_id,
            due_at=row.due_at,
            overdue=_is_open(row, now) and row.due_at is not None and row.due_at <= now,
            assignee=row.assignee,
            answered_at=row.answered_at,
            closed_at=row.closed_at,
            outcome=row.outcome,
            reopened=row.reopened,
            contacts=spent[row.id],
            note=row.note,
            log=log,
        )
        for row in rows
    ]


def _is_open(row: Any, now: datetime) -> bool:
    return row.closed_at is None or bool(row.closed_at > now)


def _contacts(connection: Connection, rows: Sequence[Any], now: datetime) -> Counter[int]:
    """How many messages, replies and answers to these each case took, counted from its opening to its closing, both included."""
    cases = {row.id: row for row in rows}
    customers = {row.customer_id for row in rows}
    m, r = _messages.c, _replies.c
    sent = select(m.record_id, m.sent_at).where(
        among(m.customer_id, customers),
        m.status == Status.SENT,
        m.occasion.like("case.%"),
        among(m.record_id, cases),
    )
    written = select(r.case_id, r.at).where(among(r.customer_id, customers), among(r.case_id, cases))
    a = _answers.c
    answered = (
        select(r.case_id, m.sent_at)
        .join_from(_messages, _answers, and_(a.id == m.record_id, m.campaign == ANSWERS))
        .join(_replies, r.id == a.reply_id)
        .where(among(m.customer_id, customers), m.status == Status.SENT, among(r.case_id, cases))
    )
    spent: Counter[int] = Counter()
    for of, at in chain(*(connection.execute(query) for query in (sent, written, answered))):
        if cases[of].opened_at <= at <= min(cases[of].closed_at or now, now):
            spent[of] += 1
    return spent
