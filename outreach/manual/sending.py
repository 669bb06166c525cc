"""
Sending a draft: its rows in short transactions, then the dispatcher, for these messages alone.

A send has an id of its own, and each of its messages a key made of it: the same send never writes
anybody twice, and the same command given again is another send. Once a row is written it is a
message like any other: what this process does not get to is sent by the next dispatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, insert, literal_column, select, text

from outreach import arms, store, timing
from outreach.dispatcher import MANUAL, dispatch
from outreach.dispatcher.parts import minutes_on
from outreach.manual.drafting import Draft, Intended, Progress
from outreach.manual.people import admit
from outreach.models import CampaignState, ManualSend, Message, Status, table, to_micros
from outreach.settings import Settings
from outreach.store import BATCH, Database

PRIORITY = 1_000  # the most a campaign may have: a person waits for it

_messages, _sends, _states = table(Message), table(ManualSend), table(CampaignState)


@dataclass(frozen=True)
class Ended:
    """How many of a send's messages stand so, for one reason."""

    kind: str  # sent | deferred | skipped | failed | expired | unknown
    reason: str  # empty where they were sent, or another process is at it
    count: int
    until: datetime | None = None  # of what waits: the earliest next look
    detail: str = ""  # of one of them


@dataclass(frozen=True)
class Became:
    """What became of a manual send."""

    id: int
    ended: tuple[Ended, ...]
    paused: str | None = None  # why manual sends are paused, if they are

    def count(self, kind: str) -> int:
        return sum(one.count for one in self.ended if one.kind == kind)


def send(
    db: Database,
    settings: Settings,
    draft: Draft,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Became:
    """
    Write the rows of the draft, dispatch them, and say what became of them.

    `stop` is asked between transactions: nothing is left half-written or in the air.

    Raises:
        ClockError: the draft's `now` is earlier than what the database has seen.
        DatabaseError: what is written by then is sent by the next dispatch.
    """
    number = write(db, draft, progress, stop)
    now = minutes_on(draft.now, draft.drafted)  # somebody was asked meanwhile
    dispatch(db, settings, now, only=number, stop=stop)
    return became(db, number)


# --- writing -------------------------------------------------------------------------------------


def write(db: Database, draft: Draft, progress: Progress | None = None, stop: Callable[[], bool] | None = None) -> int:
    """Write one row a person, at most 1,000 a transaction; gives the id of the send."""
    number, done = draft.continues, 0
    for page in store.in_chunks(draft.intended, BATCH):
        if done and stop and stop():
            break
        with store.write(db) as connection:
            if not done:
                store.seen(connection, minutes_on(draft.now, draft.drafted))
                number = number or _begin(connection, draft)
            new = admit(connection, [draft.strangers[one.external_id] for one in page if not one.customer_id])
            rows = [_row(db, draft, number, one, one.customer_id or new[one.external_id]) for one in page]
            store.insert_many(connection, _messages, rows)
        done += len(page)
        if progress:
            progress("writing", done, len(draft.intended))
    return number


def _begin(connection: Connection, draft: Draft) -> int:
    """The send itself; and that manual sends are something that can be paused, and its template cancelled."""
    at = {"name": MANUAL, "step": draft.template, "at": to_micros(draft.now)}
    connection.execute(_NOTE, at)
    connection.execute(_NOTE_STEP, at)
    step = draft.campaign.steps[0]
    values = {"template": step.template, "channels": list(step.channels), "purpose": step.purpose, "at": draft.now}
    return int(connection.execute(insert(_sends).values(values).returning(_sends.c.id)).scalar_one())


_NOTE = text(
    "INSERT INTO campaign_states (name, first_published_at, fresh_id, cursor, cursor_customer, backfill,"
    " paused_reason, look_again) VALUES (:name, :at, 0, :at, 0, '{}', '', FALSE) ON CONFLICT (name) DO NOTHING"
)
_NOTE_STEP = text(
    "INSERT INTO step_states (campaign, step, first_published_at, undefined) VALUES (:name, :step, :at, 0)"
    " ON CONFLICT (campaign, step) DO NOTHING"
)


def _row(db: Database, draft: Draft, number: int, one: Intended, customer: int) -> dict[str, Any]:
    step, now = draft.campaign.steps[0], draft.now  # the time in the public id: after a restore, numbers come again
    occasion = f"{MANUAL}:{number}"
    return {
        "public_id": store.public_id(db.secret, MANUAL, step.id, one.external_id, f"{occasion}:{to_micros(now)}"),
        "campaign": MANUAL,
        "step": step.id,
        "customer_id": customer,
        "occasion": occasion,
        "occasion_at": now,
        "record_id": number,
        "enrolment_id": 0,
        "arm": arms.CONTACT,
        "purpose": step.purpose,
        "priority": PRIORITY,
        "status": Status.SKIPPED.value if one.reason else Status.PLANNED.value,
        "reason": one.reason or None,
        "detail": one.detail,
        "due_at": now,
        "expires_at": timing.add(now, step.expires, draft.loaded.settings.business.timezone),
        "ready_at": now,
        "channel": one.channel,
        "refused": " ".join(one.closed),
        "attempts": 0,
        "release": draft.loaded.number,
        "created_at": now,
    }


# --- what became of it ---------------------------------------------------------------------------

_KINDS = {
    Status.PLANNED: "deferred",
    Status.SENDING: "deferred",
    Status.CANCELLED: "skipped",
    Status.HELD: "skipped",
}


def became(db: Database, number: int) -> Became:
    """Where the messages of a send stand at this moment."""
    c = _messages.c
    waits_for = case((text("status = 'planned'"), c.blocked_by))  # what held it back stays on the row of what was sent
    reason = func.coalesce(c.reason, waits_for, literal_column("''"))
    since = select(_sends.c.at).where(_sends.c.id == number).scalar_subquery()  # so that the index serves
    of = (c.campaign == MANUAL, c.created_at >= since, c.record_id == number)
    counts = select(c.status, reason, func.count(), func.min(c.ready_at), func.min(c.detail))
    with store.read(db) as connection:
        rows = connection.execute(counts.where(*of).group_by(c.status, reason).order_by(c.status, reason)).all()
        pause = select(_states.c.paused_reason).where(_states.c.name == MANUAL, _states.c.paused_at.is_not(None))
        paused = connection.execute(pause).scalar()
    return Became(number, tuple(_ended(row, paused) for row in rows), paused)


def _ended(row: Sequence[Any], paused: str | None) -> Ended:
    status, reason, count, until, detail = row
    kind = _KINDS.get(status, str(status))
    if status == Status.SENT:
        return Ended(kind, "", count)
    if status == Status.PLANNED and paused is not None:
        return Ended(kind, "paused", count, None, paused)
    return Ended(kind, "" if status == Status.SENDING else reason, count, until if kind == "deferred" else None, detail)
