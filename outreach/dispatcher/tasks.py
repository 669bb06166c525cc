"""
Tasks: messages that a person delivers, by phone or at the door.

A person is a dispatcher of another kind. A message whose channel is the `staff` provider's waits as
a task once every gate lets it pass; opening it claims it, asks every gate again and commits it as
`sending`, like any other; what the person says became of it is the receipt.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, select, text, update

from outreach import contents, facts, releases, store, surveys, tags
from outreach.channels import Blame, Outcome, Receipt
from outreach.dispatcher import claiming, committing, recording
from outreach.dispatcher.parts import UNCLAIMED, UNSENT, Change, Chunk, Claimed, Ready
from outreach.errors import NotFound, OutreachError
from outreach.facts import Item
from outreach.gates import Defer
from outreach.models import Customer, Message, MessageEvent, Reason, Status, table
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import Database, among
from outreach.surveys import Given

LEASE = timedelta(hours=4)  # an opened task that nobody speaks of any more is in doubt
OPENING = timedelta(minutes=5)  # a task being opened is hidden for so long, if its opener goes away meanwhile
MOST_CALLS = 3  # that nobody answers
WAITS = (timedelta(hours=3), timedelta(days=1))  # after the first unanswered call, and the second
CALL_BACK_WITHIN = timedelta(days=1)  # of the time agreed: it outlives the step's own expiry

_messages, _customers, _events = table(Message), table(Customer), table(MessageEvent)


class Result(StrEnum):
    """What became of a task."""

    REACHED = "reached"  # the person was spoken to
    NO_ANSWER = "no_answer"  # tried again later, three times in all
    CALL_BACK = "call_back"  # the person asked to be called at another time
    WRONG_NUMBER = "wrong_number"  # nobody of that name there: the step's next channel is tried
    DO_NOT_CALL = "do_not_call"  # the person wants no more: taken as an opt-out
    NOT_CALLED = "not_called"  # nothing was done: handed back to the list


@dataclass(frozen=True)
class Task:
    """One task as a list shows it."""

    id: str  # the message's public id
    status: str  # waiting | open | unknown
    customer: str  # the shop's own id
    name: str
    channel: str
    campaign: str
    step: str
    due_at: datetime
    best_before: datetime
    opened_at: datetime | None
    calls: int  # on this channel that nobody answered


@dataclass(frozen=True)
class Opened:
    """A task in somebody's hands: whom to call, and what to say."""

    task: Task
    address: str
    script: str
    survey: str | None  # whose score `done` takes


# --- looking ---------------------------------------------------------------------------------------

_WAITING = "messages.status = 'planned' AND messages.blocked_by = 'person'"
_COLUMNS = (
    select(
        _messages,
        _customers.c.external_id,
        _customers.c.first_name,
        _customers.c.last_name,
    )
    .join(_customers, _customers.c.id == _messages.c.customer_id)
    .order_by(_messages.c.priority.desc(), _messages.c.due_at, _messages.c.id)
)


def listed(db: Database, settings: Settings) -> list[Task]:
    """Every task that waits, is open or in doubt, the most urgent first."""
    by_staff = sorted(_staffed(settings))
    c = _messages.c
    opened = (c.claim.is_not(None), c.channel.in_(by_staff), c.status.in_([Status.SENDING, Status.UNKNOWN]))
    with store.read(db) as connection:
        rows = list(connection.execute(_COLUMNS.where(*opened)))
        rows += connection.execute(_COLUMNS.where(text(_WAITING))).all()
        calls = _unanswered_calls(connection, [row.id for row in rows])
    return [_task(row, calls) for row in rows]


def _staffed(settings: Settings) -> set[str]:
    return {name for name, channel in settings.channels.items() if channel.provider == STAFF}


Calls = Counter[tuple[int, str]]  # by message and channel, those that nobody answered


def _unanswered_calls(connection: Connection, messages: Collection[int]) -> Calls:
    """From what was said of them: attempts count call-backs and the step's earlier channels, too."""
    c = _events.c
    query = select(c.message_id, c.detail).where(among(c.message_id, messages), c.kind == "called")
    return Counter(
        (message, str(detail.get("channel")))
        for message, detail in connection.execute(query)
        if detail.get("outcome") == Result.NO_ANSWER
    )


def _task(row: Any, calls: Calls) -> Task:
    status = {Status.PLANNED: "waiting", Status.SENDING: "open"}.get(row.status, "unknown")
    return Task(
        id=row.public_id,
        status=status,
        customer=row.external_id,
        name=" ".join(part for part in (row.first_name, row.last_name) if part),
        channel=row.channel,
        campaign=row.campaign,
        step=row.step,
        due_at=row.due_at,
        best_before=row.expires_at,
        opened_at=None if status == "waiting" else row.sent_at,
        calls=calls[row.id, row.channel],
    )


def full_id(db: Database, start: str) -> str:
    """The one task whose id begins so; NotFound for none or several."""
    plain = "".join(character for character in start.strip().lower() if character.isalnum())
    c = _messages.c
    with store.read(db) as connection:
        query = select(c.public_id).where(c.public_id >= plain, c.public_id < plain + "g").limit(2)
        found = connection.execute(query).scalars().all()
    if not plain or len(found) != 1:
        raise NotFound(f"there is no one task {start!r}: `outreach tasks list` shows them")
    return str(found[0])


# --- opening ---------------------------------------------------------------------------------------

_NEXT = f"""
    SELECT id FROM messages
    WHERE {_WAITING} AND (claim IS NULL OR lease_until < :now) AND (:id = '' OR public_id = :id)
      AND campaign NOT IN (SELECT name FROM campaign_states WHERE paused_at IS NOT NULL)
    ORDER BY priority DESC, due_at, id LIMIT 1
"""
_NEXT_BY_DIALECT = {"sqlite": text(_NEXT), "postgresql": text(_NEXT + " FOR UPDATE OF messages SKIP LOCKED")}


def open_next(db: Database, settings: Settings, now: datetime, *, task: str = "") -> Opened | None:
    """
    Open the most urgent task (or the one named) that every gate still lets pass; None when there is none.

    Those that a gate holds back or ends are settled on the way, as a dispatch would.
    """
    loaded = releases.current(db, settings)
    while loaded is not None:
        chunk = Chunk(loaded, secrets.token_hex(8), now, now + LEASE, by_person=True)  # what goes gets this lease
        with store.write(db) as connection:
            statement = _NEXT_BY_DIALECT[connection.dialect.name]
            ids = connection.execute(statement, {"now": store.micros(now), "id": task}).scalars().all()
            rows = claiming.take(connection, ids, chunk.token, now + OPENING)
        if not rows:
            return None
        ready = committing.commit(db, chunk, rows, Counter())
        if ready:
            return _opened(db, ready[0])
    return None


def _opened(db: Database, one: Ready) -> Opened:
    with store.read(db) as connection:
        row = connection.execute(_COLUMNS.where(_messages.c.id == one.going.row.id)).one()
        calls = _unanswered_calls(connection, [row.id])
    return Opened(_task(row, calls), one.outgoing.address, one.outgoing.content.text, one.going.item.step.survey)


# --- done ------------------------------------------------------------------------------------------


def done(
    db: Database,
    settings: Settings,
    task: str,
    result: Result,
    now: datetime,
    *,
    score: int | None = None,
    notes: str = "",
    call_at: datetime | None = None,
) -> str:
    """
    Record what became of an opened task, and give in words what follows from it.

    Raises:
        NotFound: there is no such task.
        OutreachError: it is not open, or the score or the time do not fit.
    """
    loaded = releases.current(db, settings)
    with store.write(db) as connection:
        row = connection.execute(select(_messages).where(_messages.c.public_id == task).with_for_update()).first()
        if row is None or row.channel not in _staffed(settings):
            raise NotFound(f"there is no task {task!r}: `outreach tasks list` shows them")
        if row.status not in (Status.SENDING, Status.UNKNOWN) or row.claim is None:
            raise OutreachError(_why_not_open(row))
        item = None
        if loaded is not None:
            claimed = Claimed._make(getattr(row, name) for name in Claimed._fields)
            item = next(
                (i for i in committing.items_of(connection, loaded, [claimed], {}) if isinstance(i, Item)), None
            )
        survey = item.step.survey if item else None
        _check(settings, result, score, survey, call_at, now)
        others = _others(connection, settings, item, row, now)
        values, follows = _follows(connection, row, result, others, call_at, now)
        c = _messages.c
        changed = update(_messages).where(c.id == row.id, c.claim == row.claim).values(values)
        connection.execute(changed)
        if "contact_id" in values:
            contents.forget(connection, [row.id])
        if values["status"] is Status.SENT and item is not None and item.step.tag:
            tags.put(connection, [(row.customer_id, item.step.tag)])
        _note(connection, row, result, notes, values.get("ready_at"), now)
        if survey is not None and score is not None:
            answered = Given(survey, row.customer_id, row.occasion, row.id, score, row.channel, now)
            surveys.record(connection, settings, now, answered)
    return follows


def _why_not_open(row: Any) -> str:
    """Why nothing can be said of a task now, and what opens or settles it if anything does."""
    task = row.public_id
    if row.status == Status.UNKNOWN:
        return f"the task {task} is not open, but in doubt: `outreach resolve {task}` settles it"
    if row.status != Status.PLANNED:
        return f"the task {task} is over ({row.status}): nothing more can be said of it"
    if row.blocked_by != Reason.PERSON:
        return f"the task {task} is not open: it is not on the list now, see `outreach tasks list`"
    return f"the task {task} is not open: `outreach tasks next --task {task}` opens it"


def _check(
    settings: Settings, result: Result, score: int | None, survey: str | None, call_at: datetime | None, now: datetime
) -> None:
    if score is not None:
        if result is not Result.REACHED or survey is None or survey not in settings.surveys:
            raise OutreachError("a score is taken only of somebody reached, in a step that names a survey")
        scale = settings.surveys[survey].scale
        low, high = (0, 1) if scale == "yes_no" else (int(end) for end in scale.split("-"))
        if not low <= score <= high:
            raise OutreachError(f"the score {score} is not on the scale of {survey}: from {low} to {high}")
    if (result is Result.CALL_BACK) != (call_at is not None):
        raise OutreachError("call_back takes the time agreed, as --at 2026-06-15T17:00, and nothing else does")
    if call_at is not None and call_at <= now:
        raise OutreachError("the time to call back has passed: give a later one")


def _others(connection: Connection, settings: Settings, item: Item | None, row: Any, now: datetime) -> frozenset[str]:
    if item is None:
        return frozenset()
    found = facts.fetch(connection, settings, [item], now)[0]
    return frozenset(facts.rules(item).channels) & found.contacts.keys() - {row.channel}


def _follows(
    connection: Connection,
    row: Any,
    result: Result,
    others: frozenset[str],
    call_at: datetime | None,
    now: datetime,
) -> tuple[dict[str, Any], str]:
    """The message's new values, and what happens next in words."""
    sent = {"status": Status.SENT, "provider_id": f"task:{row.public_id}", **UNCLAIMED}
    if result is Result.REACHED:
        return sent, "recorded as reached"
    if result is Result.DO_NOT_CALL:
        recording.believe(connection, row, row.channel, row.contact_id, Blame.OPT_OUT, "said on the phone", now)
        return sent, "recorded, and taken as an opt-out: no more service or marketing to this number"
    if result is Result.WRONG_NUMBER:
        recording.believe(connection, row, row.channel, row.contact_id, Blame.ADDRESS, "wrong number", now)
        receipt = Receipt(row.public_id, Outcome.REFUSED, detail="wrong number", blame=Blame.ADDRESS)
        values = recording.refused(row, row.channel, others, receipt, now)[0]
        return (
            values,
            f"the next channel is tried: {', '.join(sorted(others))}" if others else "no other channel is left",
        )
    if result is Result.CALL_BACK and call_at is not None:
        longer = {"expires_at": max(row.expires_at, call_at + CALL_BACK_WITHIN)}
        return {**_again(call_at, "call back"), **longer}, "it comes back to the list then"
    if result is Result.NOT_CALLED:
        again = _again(now, "handed back")
        return {**again, "attempts": row.attempts - 1}, "it is back on the list at the next dispatch"
    calls = _unanswered_calls(connection, [row.id])[row.id, row.channel] + 1
    return _unanswered(row, calls, now)


def _again(at: datetime, detail: str) -> dict[str, Any]:
    """Planned anew; the dispatcher puts it back on the list at that time, if every gate still agrees."""
    return {"status": Status.PLANNED, **UNSENT, "ready_at": at, "blocked_by": Reason.RETRY, "detail": detail}


def _unanswered(row: Any, calls: int, now: datetime) -> tuple[dict[str, Any], str]:
    """`calls` is how many of them nobody answered, this one included."""
    detail = f"nobody answered, {calls} times"
    if calls >= MOST_CALLS:
        values = {"status": Status.FAILED, "reason": Reason.GAVE_UP, "detail": detail, **UNCLAIMED}
        return values, f"nobody answered {MOST_CALLS} times: it ends here"
    change: Change = committing.deferred(row, Defer(now + WAITS[calls - 1], Reason.RETRY, detail), now)
    values = {"status": Status.PLANNED, **UNSENT, **change[0]}
    if values["status"] == Status.EXPIRED:
        return values, "there is no time for another call before it expires: it ends here"
    return values, "it comes back to the list for another call"


def _note(
    connection: Connection, row: Any, result: Result, notes: str, back_at: datetime | None, now: datetime
) -> None:
    """Keep that a call was made, how it went, and when the task comes back to the list, if it does."""
    if result is Result.NOT_CALLED:
        return
    kind = "reached" if result in (Result.REACHED, Result.DO_NOT_CALL) else "called"
    earlier = connection.execute(select(func.count()).where(_events.c.message_id == row.id)).scalar_one()
    back = {} if back_at is None else {"back_at": back_at.isoformat()}
    made = {
        "event_id": f"task:{row.public_id}:{row.channel}:{earlier}:{kind}",
        "message_id": row.id,
        "customer_id": row.customer_id,
        "kind": kind,
        "at": now,
        "detail": {"outcome": result.value, "notes": notes, "channel": row.channel, **back},
    }
    store.insert_many(connection, _events, [made])
