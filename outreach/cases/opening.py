"""
Opening: a case comes to be, or joins the open one that it is about.

Our own ids are `oc-` and ten letters and digits made from the customer's id, the kind, and a number:
the same set of openings gives the same ids after a restore, and a shop has no such ids.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from outreach.cases import targets
from outreach.cases.writing import Line, begin, clean, write_fresh, write_lines
from outreach.models import Case, CaseNote, Customer, Reply, table
from outreach.settings import Settings

OWN = "oc-"
ID_LENGTH = 10  # of 32 characters each: 50 bits
OPT_OUT = "opt_out"  # category of the case in which a person decides on a doubtful opt-out
OPENED, JOINED = "opened", "joined"  # lines of the log that an opening writes

_cases, _notes, _replies, _customers = table(Case), table(CaseNote), table(Reply), table(Customer)


@dataclass(frozen=True)
class Opening:
    """Why a case is opened, and about what."""

    kind: str  # complaint | cancellation | return | refund | question
    customer_id: int
    at: datetime
    by: str  # reply | page | import, else who of the shop
    reply_id: int | None = None
    message_id: int | None = None
    order_id: int | None = None
    category: str | None = None
    sku: str | None = None
    note: str = ""
    key: str = ""  # of what opens it, such as an event's id: the same again is the same case


def open_case(connection: Connection, settings: Settings, now: datetime, opening: Opening) -> int:
    """
    Open a case inside the caller's writing transaction; gives its id.

    An open case of the same customer and kind is joined instead; where a person says that it is about
    another order, it is not. A case that we opened follows from the set of its openings, in whatever
    order they come: it is dated by the earliest, whose note it takes, and of order, category and product
    it takes the earliest that was named. What the shop's files say of a case stands; they only lend it
    what it lacks. Opening with a key that is known changes nothing and gives the same case. `case.opened`
    fires as for an imported case. A time ahead of `now` counts as `now`.

    Call it after every other lock of the transaction has been taken (see `writing.begin`).
    """
    begin(connection)
    if opening.key and (known := _known(connection, _key(opening))) is not None:
        return known
    at = min(opening.at, now)
    joined = _to_join(connection, opening)
    case = _insert(connection, settings, now, opening, at) if joined is None else int(joined.id)
    line = Line(
        case,
        OPENED if joined is None else JOINED,
        at,
        opening.note,
        opening.by,
        _key(opening),
        opening.order_id,
        _text(opening.category),
        _text(opening.sku),
    )
    write_lines(connection, [line])
    if joined is not None:
        _settle(connection, settings, now, joined, opening)
    if opening.reply_id is not None:
        mine = and_(_replies.c.id == opening.reply_id, _replies.c.case_id.is_(None))
        connection.execute(update(_replies).where(mine).values(case_id=case))
    return case


def _key(opening: Opening) -> str:
    return f"open:{opening.key}" if opening.key else ""


def _known(connection: Connection, key: str) -> int | None:
    found: int | None = connection.execute(select(_notes.c.case_id).where(_notes.c.key == key)).scalar()
    return found


def _to_join(connection: Connection, opening: Opening) -> Any:
    """
    The open case that this opening is about: the one with its order, else the first.

    Which order a reply is about is a guess, so one conversation stays one case; a person's word is none.
    Whether somebody opted out is decided by itself: what else is open may be closed without a look at it.
    """
    c = _cases.c
    is_doubt = func.coalesce(c.category, "") == OPT_OUT
    fits: list[Any] = [targets.OPEN, c.customer_id == opening.customer_id, c.kind == opening.kind]
    fits.append(is_doubt if opening.category == OPT_OUT else ~is_doubt)
    if opening.order_id is not None and opening.by != "reply":
        fits.append(or_(c.order_id.is_(None), c.order_id == opening.order_id))
    rows = connection.execute(select(_cases).where(*fits).order_by(c.id)).all()
    return min(rows, key=lambda row: row.order_id != opening.order_id, default=None)


def _insert(connection: Connection, settings: Settings, now: datetime, opening: Opening, at: datetime) -> int:
    values = {
        "external_id": _free_id(connection, opening),
        "customer_id": opening.customer_id,
        "order_id": opening.order_id,
        "kind": opening.kind,
        "category": _text(opening.category),
        "sku": _text(opening.sku),
        "opened_at": at,
        "note": _text(opening.note),
        "attributes": {},
        "row_hash": b"",
        "due_at": targets.due_at(settings, opening.kind, at),
        **_origin(opening),
    }
    case = int(connection.execute(insert(_cases).values(values).returning(_cases.c.id)).scalar_one())
    write_fresh(connection, "case.opened", case, opening.customer_id, None, at, now)
    return case


def _origin(opening: Opening) -> dict[str, Any]:
    by = opening.by if opening.by in ("reply", "page", "import") else "person"
    return {"opened_by": by, "reply_id": opening.reply_id, "message_id": opening.message_id}


def _settle(connection: Connection, settings: Settings, now: datetime, case: Any, latest: Opening) -> None:
    """Have the case be what its openings say, of which `latest` has just been written."""
    n = _notes.c
    query = select(_notes).where(n.case_id == case.id, n.kind.in_((OPENED, JOINED))).order_by(n.at, n.key)
    lines = connection.execute(query).all()
    first, values = lines[0], dict[str, Any]()
    for name in ("order_id", "category", "sku"):
        named = [said for line in lines if (said := getattr(line, name)) is not None]
        if named and getattr(case, name) in (None, *named):
            values[name] = named[0]
    if case.opened_by != "import" and not case.row_hash:  # no file of the shop's has it
        if latest.key and first.key == _key(latest):
            values |= _origin(latest) | {"note": first.text or None}
        if first.at != case.opened_at:
            values["opened_at"] = first.at
            if not case.reopened:
                values["due_at"] = targets.due_at(settings, case.kind, first.at)
            write_fresh(connection, "case.opened", case.id, case.customer_id, case.opened_at, first.at, now)
    if values:
        connection.execute(update(_cases).where(_cases.c.id == case.id).values(**values))


def _free_id(connection: Connection, opening: Opening) -> str:
    c = _customers.c
    customer = connection.execute(select(c.external_id).where(c.id == opening.customer_id)).scalar_one()
    for number in count(1):
        name = own_id(customer, opening.kind, number)
        if connection.execute(select(_cases.c.id).where(_cases.c.external_id == name)).first() is None:
            return name
    raise AssertionError("some number is free")


def own_id(customer: str, kind: str, number: int) -> str:
    """The id of a customer's case of a kind that we opened, numbered from 1."""
    digest = hashlib.sha256("\x1f".join(("case", customer, kind, str(number))).encode()).digest()
    return OWN + base64.b32encode(digest).decode().lower()[:ID_LENGTH]


def _text(given: str | None) -> str | None:
    return clean(given) or None if given else None
