"""Resolving: a person decides what nobody could find out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select

from outreach import contents, coupons, naming, releases, store, tags
from outreach.errors import NotFound, OutreachError
from outreach.models import Customer, Message, Reason, Status, table
from outreach.reconciler import looking
from outreach.reconciler.looking import UNKNOWN
from outreach.reconciler.settling import AGAIN, SENT, change, tags_of, without_time
from outreach.releases import Loaded
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import Database, among
from outreach.values import CONTACT_KIND

SHORTEST = 6  # of the beginning of an id
AT_ONCE = 100  # messages in a transaction

_messages, _customers = table(Message), table(Customer)


class Decision(StrEnum):
    """What a person may decide about a message in doubt."""

    SENT = "sent"  # it went out
    RESEND = "resend"  # it did not: it goes through every rule again
    DROP = "drop"  # never mind


@dataclass(frozen=True)
class InDoubt:
    """A message in doubt, as a person sees it before deciding."""

    id: str  # public
    customer: str  # the shop's own id
    campaign: str
    step: str
    channel: str | None
    at: datetime | None  # handed over; None where only a restore made it doubtful
    expires_at: datetime
    detail: str
    look_at: datetime | None  # when its provider is asked next
    task: bool  # a person has it: it is settled with `outreach tasks done`

    @property
    def why(self) -> str:
        """How it came to be in doubt and what the last look said, without when that was: the same for many."""
        return without_time(self.detail)


@dataclass(frozen=True)
class Resolved:
    """What followed from a decision."""

    id: str
    status: str
    follows: str  # in words


_SHOWN = (
    select(
        _messages.c.public_id,
        _customers.c.external_id,
        _messages.c.campaign,
        _messages.c.step,
        _messages.c.channel,
        _messages.c.sent_at,
        _messages.c.expires_at,
        _messages.c.detail,
        _messages.c.look_at,
        _messages.c.claim,
    )
    .join(_customers, _customers.c.id == _messages.c.customer_id)
    .where(UNKNOWN)
    .order_by(_messages.c.sent_at, _messages.c.id)
)


def in_doubt(
    db: Database,
    settings: Settings,
    *,
    ids: Sequence[str] = (),
    campaign: str | None = None,
    channel: str | None = None,
) -> list[InDoubt]:
    """
    The messages in doubt that match whatever is given, the longest doubtful first.

    Raises:
        NotFound: there is no such campaign.
    """
    query = _SHOWN.where(among(_messages.c.public_id, ids)) if ids else _SHOWN
    with store.read(db) as connection:
        if campaign is not None:
            naming.check_campaign(connection, campaign)
        found = [_shown(row, settings) for row in connection.execute(query)]
    # Not by the database: it would go through all messages of a campaign.
    return [one for one in found if campaign in (None, one.campaign) and channel in (None, one.channel)]


def _shown(row: Any, settings: Settings) -> InDoubt:
    named = (row.public_id, row.external_id, row.campaign, row.step, row.channel)
    return InDoubt(*named, row.sent_at, row.expires_at, row.detail, row.look_at, _is_open_task(row, settings))


def _is_open_task(row: Any, settings: Settings) -> bool:
    """A task that nobody has in hand any more, after a restore, can be settled by nobody else."""
    configured = settings.channels.get(row.channel or "")
    return configured is not None and configured.provider == STAFF and row.claim is not None


def full_id(db: Database, start: str) -> str:
    """
    The id of the one message that begins so, in doubt or not.

    Raises:
        NotFound: there is none, or there are several.
        OutreachError: it is too short to go by.
    """
    plain = start.strip().lower()
    if len(plain) < SHORTEST:
        raise OutreachError(f"{start!r} is too short: give at least {SHORTEST} characters of the message's id")
    c = _messages.c
    # "g" stands behind every hexadecimal digit in every collation; DEL does not.
    query = select(c.public_id).where(c.public_id >= plain, c.public_id < plain + "g").limit(2)
    with store.read(db) as connection:
        found = [str(one) for one in connection.execute(query).scalars() if one.startswith(plain)]
    if not found:
        raise NotFound(f"there is no message {start!r}: `outreach messages --status unknown` shows those in doubt")
    if len(found) > 1:
        raise NotFound(f"several messages begin with {start!r}: give more of the id")
    return found[0]


def resolve(db: Database, public_id: str, decision: Decision, now: datetime, *, settings: Settings) -> Resolved:
    """
    Settle one message in doubt as a person says, and give in words what follows.

    Raises:
        NotFound: there is no such message.
        OutreachError: it is not in doubt, or it is a task that a person has.
    """
    query = select(_messages).where(_messages.c.public_id == public_id)
    loaded = releases.current(db, settings)
    with store.write(db) as connection:
        row = connection.execute(query.with_for_update()).first()
        if row is None:
            raise NotFound(
                f"there is no message {public_id!r}: `outreach messages --status unknown` shows those in doubt"
            )
        if row.status != Status.UNKNOWN:
            raise OutreachError(f"the message {public_id} is {row.status}, not in doubt: there is nothing to settle")
        if _is_open_task(row, settings):
            raise OutreachError(
                f"the message {public_id} is a task of a person: say what became of it with"
                f" `outreach tasks done {public_id[:12]} RESULT`"
            )
        return _settle(connection, loaded, row, decision, now)


def resolve_all(
    db: Database, public_ids: Iterable[str], decision: Decision, now: datetime, *, settings: Settings
) -> list[Resolved]:
    """
    Settle those of the messages that are still in doubt, and no person's task; gives what followed for each.

    One that another process is just changing is left to it. A hundred at a time: cut off, it is simply
    asked for again.
    """
    loaded, done = releases.current(db, settings), []
    for ids in store.in_chunks(list(public_ids), AT_ONCE):
        query = select(_messages).where(among(_messages.c.public_id, ids), UNKNOWN).order_by(_messages.c.id)
        with store.write(db) as connection:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            free = [row for row in rows if not _is_open_task(row, settings)]
            done += [_settle(connection, loaded, row, decision, now) for row in free]
    return done


def _settle(connection: Connection, loaded: Loaded | None, row: Any, decision: Decision, now: datetime) -> Resolved:
    """The row is locked and in doubt."""
    if decision is Decision.SENT:
        values, follows = _as_sent(connection, row), "recorded as sent; it is never sent again"
    elif decision is Decision.RESEND:
        values = {**AGAIN, "ready_at": now, "look_at": now, "detail": "planned again by a person"}
        follows = "planned again; every rule is asked again before it leaves"
        if row.expires_at < now:
            follows = "planned again, but its time is over: the next dispatch ends it as expired"
    else:
        values = {"status": Status.FAILED, "reason": Reason.DROPPED, "claim": None, "lease_until": None}
        values["detail"] = "dropped by a person"
        follows = "ended as failed; it is never sent"
    changed = change(connection, row, values)
    assert changed, "a locked row has changed"  # noqa: S101
    if decision is Decision.RESEND:
        contents.forget(connection, [row.id])
        coupons.doubted(connection, [row.id])
    if decision is Decision.SENT:
        tags.put(connection, tags_of(loaded, row))
    return Resolved(row.public_id, str(values["status"]), follows)


def _as_sent(connection: Connection, row: Any) -> dict[str, Any]:
    """What a restore made doubtful gets the time and the contact that caps count by, as well as they can be known."""
    values: dict[str, Any] = {**SENT, "detail": "settled by a person"}
    if row.sent_at is None:
        values["sent_at"] = looking.restored(connection)[1] or row.due_at
    if row.contact_id is None and row.channel:
        places = looking.addresses(connection, {row.customer_id}).get(row.customer_id, {})
        place = places.get(CONTACT_KIND[row.channel])
        values["contact_id"] = place.contact_id if place is not None else None
    return values
