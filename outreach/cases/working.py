"""Working: what people do with a case. Each call is one short transaction, and leaves a line in the case's log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from outreach import naming, store
from outreach.cases import targets
from outreach.cases.opening import Opening, open_case
from outreach.cases.writing import Line, begin, write_fresh, write_lines
from outreach.errors import NotFound, OutreachError
from outreach.models import Case, Customer, Order, table
from outreach.settings import Settings
from outreach.store import Database

KINDS = ("complaint", "cancellation", "return", "refund", "question")
OUTCOMES = ("resolved", "unresolved", "kept", "lost")
SAVING = ("kept", "lost")  # outcomes of a cancellation alone

_cases, _customers, _orders = table(Case), table(Customer), table(Order)


def open_for(
    db: Database, settings: Settings, now: datetime, customer: str, order: str | None, opening: Opening
) -> tuple[str, bool]:
    """
    Open a case for a customer, and an order, named by the shop's own ids; `opening` is the rest of it.

    Gives the case's id, and whether it is new: an open case of the same kind is joined.

    Raises:
        NotFound: there is no such customer, or the customer has no such order.
    """
    with store.write(db) as connection:
        c = _customers.c
        found = connection.execute(select(c.id, c.merged_into).where(c.external_id == customer)).first()
        if found is None or found.merged_into == found.id:
            raise naming.no_customer(connection, customer)
        whose = found.merged_into or found.id
        bought = None if order is None else _order(connection, order, {found.id, whose})
        before = connection.execute(select(_cases.c.id).where(_cases.c.customer_id == whose)).scalars().all()
        case = open_case(connection, settings, now, replace(opening, customer_id=whose, order_id=bought))
        name = connection.execute(select(_cases.c.external_id).where(_cases.c.id == case)).scalar_one()
    return name, case not in before


def _order(connection: Connection, order: str, customers: set[int]) -> int:
    row = connection.execute(select(_orders.c.id, _orders.c.customer_id).where(_orders.c.external_id == order)).first()
    if row is None or row.customer_id not in customers:
        raise NotFound(f"the customer has no order {order!r}: give the shop's own id")
    return int(row.id)


def assign(db: Database, now: datetime, case: str, to: str, by: str) -> None:
    """
    Note who looks after the case; an empty `to` says that nobody does.

    Raises:
        NotFound: there is no such case.
        OutreachError: it is closed.
    """
    with store.write(db) as connection:
        row = _open(connection, case)
        _set(connection, row, assignee=to or None)
        write_lines(connection, [Line(row.id, "assigned", now, to, by)])


def note(db: Database, now: datetime, case: str, text: str, by: str) -> None:
    """
    Write a note into the case's log, whether it is open or closed.

    Raises:
        NotFound: there is no such case.
    """
    with store.write(db) as connection:
        write_lines(connection, [Line(_case(connection, case).id, "noted", now, text, by)])


def answer(db: Database, now: datetime, case: str, text: str, by: str) -> None:
    """
    Note that a person answered the customer; the first answer is the one whose time is kept.

    Raises:
        NotFound: there is no such case.
        OutreachError: it is closed.
    """
    with store.write(db) as connection:
        row = _open(connection, case)
        if row.answered_at is None:
            _set(connection, row, answered_at=max(now, row.opened_at))
        write_lines(connection, [Line(row.id, "answered", now, text, by)])


def close(db: Database, now: datetime, case: str, outcome: str, text: str, by: str) -> None:
    """
    Close the case; `case.closed` fires as for an imported case.

    Raises:
        NotFound: there is no such case.
        OutreachError: it is closed already, or such a case cannot end so.
    """
    with store.write(db) as connection:
        row = _open(connection, case)
        if outcome not in OUTCOMES:
            raise OutreachError(f"{outcome!r} is no outcome: write {', '.join(OUTCOMES)}")
        if outcome in SAVING and row.kind != "cancellation":
            raise OutreachError(f"case {case} is a {row.kind}: only a cancellation ends as {outcome}")
        closed = max(now, row.opened_at)
        _set(connection, row, closed_at=closed, outcome=outcome)
        write_fresh(connection, "case.closed", row.id, row.customer_id, None, closed, now)
        said = f"{outcome}: {text}" if text else outcome
        write_lines(connection, [Line(row.id, "closed", closed, said, by)])


def reopen(db: Database, settings: Settings, now: datetime, case: str, text: str, by: str) -> None:
    """
    Open a closed case again, with a target time from now on; what its closing started and was not sent is cancelled.

    Raises:
        NotFound: there is no such case.
        OutreachError: it is open.
    """
    with store.write(db) as connection:
        row = _case(connection, case)
        if row.closed_at is None:
            raise OutreachError(f"case {case} is open already")
        due = targets.due_at(settings, row.kind, now)
        _set(connection, row, closed_at=None, outcome=None, due_at=due, reopened=row.reopened + 1)
        write_fresh(connection, "case.closed", row.id, row.customer_id, row.closed_at, None, now)
        write_lines(connection, [Line(row.id, "reopened", now, text, by)])


def _case(connection: Connection, name: str) -> Any:
    """The case's row, which nobody else changes until the transaction ends."""
    begin(connection)
    row = connection.execute(select(_cases).where(_cases.c.external_id == name)).first()
    if row is None:
        raise NotFound(f"there is no case {name!r}: `outreach cases list` shows those there are")
    return row


def _open(connection: Connection, name: str) -> Any:
    row = _case(connection, name)
    if row.closed_at is not None:
        raise OutreachError(f"case {name} is closed: `outreach cases reopen {name}` opens it again")
    return row


def _set(connection: Connection, row: Any, **values: Any) -> None:
    connection.execute(update(_cases).where(_cases.c.id == row.id).values(**values))
