"""Recording: what each receipt makes of its message, its contact, its sender and its campaign."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from outreach import contents, store, tags, timing
from outreach.campaigns import ANSWERS
from outreach.channels import Blame, Outcome, Receipt
from outreach.dispatcher import pacing
from outreach.dispatcher.committing import deferred
from outreach.dispatcher.handing import Handed
from outreach.dispatcher.parts import UNCLAIMED, UNSENT, Change, Chunk, Ready, Tally, pause, run_many, update_each
from outreach.gates import Defer
from outreach.models import Contact, Message, Reason, Scope, Status, table
from outreach.store import among

UNPAUSED_WAIT = timedelta(minutes=5)  # of an answer to a reply: no pause keeps it from being tried again and again
MOST_REFUSED = 5  # of one campaign in a chunk, and none accepted: it is wrong, and not the recipients
OF_CAMPAIGN = (Blame.MESSAGE, Blame.PLACE, Blame.CAMPAIGN)  # what may be its own mistake
MOST_ATTEMPTS = 8  # at one message, of those that count: a back-off of some two hours in all
SLOWED = (Blame.SENDER, Blame.ROUTE)  # the whole sender waits

_messages, _contacts = table(Message), table(Contact)


def record(connection: Connection, chunk: Chunk, ready: Sequence[Ready], handed: Handed, tally: Tally) -> None:
    """
    Write what became of the chunk; a channel that is wrongly configured pauses its campaigns, a campaign's own
    mistake that campaign alone.

    A message that another process took for abandoned meanwhile is still ours to settle: nobody
    else has, or the claim would be gone.
    """
    _believe(connection, chunk, ready, handed)  # first: contacts are locked before senders, as in `committing`
    slowed = _slow(connection, chunk, ready, handed)
    stopped = _stopped(ready, handed)
    outcomes = [_outcome(one, handed, slowed, stopped, chunk.now) for one in ready]
    sent = [one for one, (values, _) in zip(ready, outcomes, strict=True) if values["status"] is Status.SENT]
    _write_sent(connection, chunk, sent, handed)
    others = {
        one.going.row.id: values
        for one, (values, _) in zip(ready, outcomes, strict=True)
        if values["status"] is not Status.SENT
    }
    ours = _still_ours(connection, others.keys(), chunk.token)
    update_each(connection, [{"of": i, **others[i]} for i in ours])
    contents.forget(connection, [i for i in ours if "contact_id" in others[i]])
    put = [(one.going.item.customer_id, tag) for one in sent if (tag := one.going.item.step.tag)]
    tags.put(connection, put)
    for campaign, reason in sorted(stopped.items()):
        pause(connection, [campaign], reason, chunk.now)
    for channel, reason in handed.wrong.items():
        concerned = {one.going.item.campaign.name for one in ready if one.outgoing.channel == channel}
        pause(connection, concerned, reason, chunk.now)
    tally.update(counted for _, counted in outcomes)


_OURS = (
    select(_messages.c.id)
    .where(among(_messages.c.id, "ids"), text("status IN ('sending', 'unknown')"))
    .where(_messages.c.claim == bindparam("token"))
    .order_by(_messages.c.id)
    .with_for_update()
)


def _still_ours(connection: Connection, ids: Collection[int], token: str) -> Sequence[int]:
    """Locked. What was settled meanwhile may be in other hands by now: not a row of it is touched, its content neither."""
    return connection.execute(_OURS, {"ids": ids, "token": token}).scalars().all() if ids else ()


_SENT = (
    "UPDATE messages SET status = 'sent', provider_id = ?, claim = NULL, lease_until = NULL"
    " WHERE id = ? AND status IN ('sending', 'unknown') AND claim = ?"
)


def _write_sent(connection: Connection, chunk: Chunk, sent: Sequence[Ready], handed: Handed) -> None:
    by = [(handed.receipts[one.outgoing.public_id].provider_id, one.going.row.id, chunk.token) for one in sent]
    run_many(connection, _SENT, by)


# --- the message -----------------------------------------------------------------------------------


def _outcome(
    one: Ready,
    handed: Handed,
    slowed: Mapping[tuple[str, str], datetime],
    stopped: Mapping[str, str],
    now: datetime,
) -> Change:
    receipt = handed.receipts.get(one.outgoing.public_id)
    if receipt is None and one.outgoing.public_id in handed.drawn:
        return _in_doubt("the channel did not say what became of it", now)
    if receipt is None:
        until = slowed.get((one.outgoing.channel, one.outgoing.sender), now)
        return _not_handed_over(one, handed.wrong.get(one.outgoing.channel), until)
    if receipt.outcome is Outcome.ACCEPTED:
        return {"status": Status.SENT}, ("sent", "")
    if receipt.outcome is Outcome.DOUBT:
        return _in_doubt(receipt.detail, now)
    if receipt.blame in OF_CAMPAIGN and one.going.item.campaign.name in stopped:
        return _not_handed_over(one, receipt.detail, now)  # once mended, it may leave
    if receipt.outcome is Outcome.REFUSED:
        return refused(one.going.row, one.outgoing.channel, one.others, receipt, now)
    return _later(one, receipt, handed.wrong.get(one.outgoing.channel), slowed, now)


def _in_doubt(detail: str, now: datetime) -> Change:
    return {"status": Status.UNKNOWN, "detail": detail, "look_at": now, **UNCLAIMED}, ("unknown", "")


def _not_handed_over(one: Ready, wrong: str | None, until: datetime) -> Change:
    """The channel never saw it: it waits as before, or with its sender, and this attempt does not count."""
    reason = Reason.RETRY if wrong is None else Reason.CHANNEL
    if wrong is not None and one.going.row.campaign == ANSWERS:
        until += UNPAUSED_WAIT
    why = {"blocked_by": reason, "detail": wrong or "it was not handed over in time"}
    again = {"status": Status.PLANNED, "ready_at": until, "attempts": one.going.row.attempts}
    return {**again, **why, **UNSENT}, ("deferred", reason)


def refused(row: Any, channel: str, others: frozenset[str], receipt: Receipt, now: datetime) -> Change:
    """On to the next channel the customer can be reached on; failed when there is none, or the text is to blame."""
    if receipt.blame is Blame.MESSAGE:
        values = {"status": Status.FAILED, "reason": Reason.TEXT_REFUSED, "detail": receipt.detail, **UNCLAIMED}
        return values, ("failed", Reason.TEXT_REFUSED)
    why = {"refused": f"{row.refused} {channel}".strip(), "detail": receipt.detail}
    if not others:
        return {"status": Status.FAILED, "reason": Reason.REFUSED, **why, **UNCLAIMED}, ("failed", Reason.REFUSED)
    again = {"status": Status.PLANNED, "ready_at": now, "blocked_by": Reason.REFUSED}
    return {**again, **why, **UNSENT}, ("deferred", Reason.REFUSED)


def _later(
    one: Ready, receipt: Receipt, wrong: str | None, slowed: Mapping[tuple[str, str], datetime], now: datetime
) -> Change:
    """Planned again: with its sender, when its channel is mended, or after a back-off of its own."""
    row, attempt = one.going.row, one.going.row.attempts + 1
    if wrong is not None:
        return _not_handed_over(one, wrong, now)
    if receipt.blame in SLOWED:
        until = slowed.get((one.outgoing.channel, one.outgoing.sender)) or now + _again_after(row, 1)
        uncounted = {"attempts": row.attempts}
        values, counted = deferred(row, Defer(until, pacing.slowed_for(receipt), receipt.detail), now)
        return {"status": Status.PLANNED, **UNSENT, **uncounted, **values}, counted
    if attempt >= MOST_ATTEMPTS:
        values = {"status": Status.FAILED, "reason": Reason.GAVE_UP, "detail": receipt.detail, **UNCLAIMED}
        return values, ("failed", Reason.GAVE_UP)
    wait = receipt.retry_after or _again_after(row, attempt)
    values, counted = deferred(row, Defer(now + wait, Reason.RETRY, receipt.detail), now)
    return {"status": Status.PLANNED, **UNSENT, **values}, counted


def _again_after(row: Any, attempt: int) -> timedelta:
    return timing.back_off(attempt, _unit(row.public_id, attempt))


def _unit(public_id: str, attempt: int) -> float:
    """A number in [0, 1), always the same for one attempt at one message."""
    return hashlib.sha256(f"{public_id}:{attempt}".encode()).digest()[0] / 256


def _stopped(ready: Sequence[Ready], handed: Handed) -> dict[str, str]:
    """The campaigns that can send nothing as they are, or of which the providers refuse everything; with the reason."""
    told: dict[str, list[str]] = {}
    taken: set[str] = set()
    found: dict[str, str] = {}
    for one in ready:
        receipt, campaign = handed.receipts.get(one.outgoing.public_id), one.going.item.campaign.name
        if receipt is None:
            continue
        if receipt.outcome is Outcome.ACCEPTED:
            taken.add(campaign)
        elif receipt.blame is Blame.CAMPAIGN:
            found[campaign] = f"{one.outgoing.channel}: {receipt.detail}"
        elif receipt.blame in OF_CAMPAIGN:
            told.setdefault(campaign, []).append(receipt.detail)
    for campaign, said in told.items():
        if len(said) >= MOST_REFUSED and campaign not in taken:
            found.setdefault(campaign, f"{MOST_REFUSED} messages and more were refused, and none was taken: {said[-1]}")
    return found


# --- the sender ------------------------------------------------------------------------------------


def _slow(
    connection: Connection, chunk: Chunk, ready: Sequence[Ready], handed: Handed
) -> dict[tuple[str, str], datetime]:
    """Slow the senders that were too fast, or whose provider is out of order or away; gives until when each is."""
    said = [
        ((one.outgoing.channel, one.outgoing.sender), receipt)
        for one in ready
        if (receipt := handed.receipts.get(one.outgoing.public_id)) is not None
    ]
    through = {by for by, receipt in said if receipt.outcome is Outcome.ACCEPTED}
    told: dict[tuple[str, str], Receipt] = {}
    for by, receipt in said:
        if receipt.outcome is Outcome.LATER and receipt.blame in SLOWED:
            waits = receipt.blame is Blame.SENDER or by not in through  # one connection of many says nothing of it
        else:
            waits = receipt.outcome is Outcome.DOUBT and by[0] in handed.broken
        if waits:
            told.setdefault(by, receipt)
    pacing.forget_slow(connection, through - told.keys(), chunk.slowed)
    return {
        by: pacing.slow(connection, *by, receipt, _unit(receipt.public_id, 0), chunk.now)
        for by, receipt in sorted(told.items())
    }


# --- the customer ----------------------------------------------------------------------------------


def _believe(connection: Connection, chunk: Chunk, ready: Sequence[Ready], handed: Handed) -> None:
    """Take over what a refusal said: an address where nobody is, or a person who told the provider to stop."""
    told = [
        (one, receipt)
        for one in ready
        if (receipt := handed.receipts.get(one.outgoing.public_id)) is not None
        and receipt.outcome is Outcome.REFUSED
        and receipt.blame in (Blame.ADDRESS, Blame.OPT_OUT)
    ]
    for one, receipt in sorted(told, key=lambda each: each[0].contact_id):
        source = f"{one.outgoing.channel} {receipt.code}".strip()
        believe(connection, one.going.row, one.outgoing.channel, one.contact_id, receipt.blame, source, chunk.now)


def believe(
    connection: Connection, row: Any, channel: str, contact_id: int, blame: Blame, source: str, now: datetime
) -> None:
    """Suppress the contact for what was said of it, under its lock, and keep the event that it was said with."""
    opted_out = blame is Blame.OPT_OUT
    contact = connection.execute(
        select(_contacts.c.kind, _contacts.c.address_hash).where(_contacts.c.id == contact_id).with_for_update()
    ).one()
    scope = Scope.CONTACT if opted_out else Scope.ADDRESS
    entry = {"hash": contact.address_hash, "kind": contact.kind, "scope": scope, "channel": channel}
    at = {"source": source, "at": store.micros(now)}
    connection.execute(_SUPPRESS, {**entry, **at})
    if opted_out:
        connection.execute(_REVOKE, {"contact": contact_id, "channel": channel, **at})
    kind = "opted_out" if opted_out else "bounced"
    event = {"event": f"refused:{row.public_id}:{channel}", "message": row.id, "kind": kind}
    connection.execute(_EVENT, {**event, "customer": row.customer_id, "at": at["at"]})


_SUPPRESS = text(
    "INSERT INTO suppressions (address_hash, kind, scope, channel, source, at)"
    " VALUES (:hash, :kind, :scope, :channel, :source, :at)"
    " ON CONFLICT (address_hash, kind, scope, channel) DO UPDATE SET source = :source, at = :at, lifted_at = NULL"
)
_REVOKE = text(
    'INSERT INTO consents (contact_id, channel, status, at, "by", basis, source, words, recorded_at)'
    " VALUES (:contact, :channel, 'revoked', :at, 'recipient', 'consent', :source, '', :at)"
    " ON CONFLICT (contact_id, channel, at, status) DO NOTHING"
)
_EVENT = text(
    "INSERT INTO events (event_id, message_id, customer_id, kind, at, detail)"
    " VALUES (:event, :message, :customer, :kind, :at, '{}') ON CONFLICT (event_id) DO NOTHING"
)
