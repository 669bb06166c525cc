"""
Dispatch: claim → gate → commit `sending` → hand over → record, one chunk after the other.

1. Claim a chunk of due messages, under a token and a lease; commit.
2. Gate each against facts fetched for the whole chunk.
3. In one transaction that holds the contacts' locks: fetch the facts again, decide again, render,
   store what is about to leave, set `sending`; commit. An opt-out takes the same lock, so
   whichever commits first wins.
4. Hand over, for at most 30 s after that commit.
5. Record each receipt, conditional on the claim: sent, failed, planned again (only what certainly
   was not accepted) or unknown.

A message is handed over only after its `sending` is committed, and `sending` never goes back to
`planned` without certainty: so a crash anywhere can leave a message unknown, and never send it twice.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, delete, insert, select, text, update

from outreach import arms, facts, gates, releases, store, timing
from outreach.channels import Channel, Outcome, Outgoing, Receipt, open_channel
from outreach.errors import ChannelError, TemplateError
from outreach.facts import Item
from outreach.gates import Defer, End, Facts, Send, Verdict
from outreach.models import (
    CampaignState,
    Contact,
    CustomerTag,
    Message,
    MessageContent,
    MessageLink,
    Reason,
    Status,
    StepState,
    table,
    to_micros,
)
from outreach.releases import Loaded
from outreach.settings import Settings
from outreach.store import Database

CHUNK = 50
LEASE = timedelta(minutes=5)  # longer than a chunk can take: 30 s of handing over, and its last answers
HAND_OVER_SECONDS = 30.0
UNDEFINED_WAIT = timedelta(hours=1)
UNDEFINED_LIMIT = 5  # in a row, of one step: its campaign pauses
SOON = timedelta(seconds=1)  # what is deferred is never due within the same tick

_messages, _contents, _links = table(Message), table(MessageContent), table(MessageLink)
_states, _steps, _contacts, _tags = table(CampaignState), table(StepState), table(Contact), table(CustomerTag)


@dataclass(frozen=True)
class DispatchCounts:
    """
    What a dispatch did with what it claimed; each non-send has its reason.

    A message that goes on to its step's next channel counts as deferred, and is claimed again.
    """

    claimed: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    skipped: int = 0  # cancelled ones, too
    expired: int = 0
    unknown: int = 0  # left behind by a claimer that is gone, or in doubt now
    by_reason: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data; `unknown` only where there is one."""
        counts: dict[str, Any] = {
            "claimed": self.claimed,
            "sent": self.sent,
            "failed": self.failed,
            "deferred": self.deferred,
            "skipped": self.skipped,
            "expired": self.expired,
        }
        return counts | ({"unknown": self.unknown} if self.unknown else {}) | {"by_reason": dict(self.by_reason)}


Tally = Counter[tuple[str, str]]  # (count's name, reason or "")


@dataclass(frozen=True)
class Claimed:
    """A message under our claim, and what the current release makes of it."""

    row: Any
    item: Item | None  # None: the release has no such step any more, or it was cancelled
    ended: Reason = Reason.WITHDRAWN


@dataclass(frozen=True)
class Going:
    """A claimed message that the release still has."""

    row: Any
    item: Item


@dataclass(frozen=True)
class Ready:
    """A message committed as `sending`."""

    going: Going
    outgoing: Outgoing
    contact_id: int
    others: frozenset[str]  # the step's further channels on which the customer has an address


@dataclass(frozen=True)
class Chunk:
    """What all messages of a chunk have in common."""

    loaded: Loaded
    token: str
    now: datetime
    lease_until: datetime


Change = tuple[dict[str, Any], tuple[str, str]]  # a message's new values, and what to count it as
Stays = tuple[Any, Verdict]  # a message's row, and why it does not go
Sending = tuple[datetime, str, str, str]  # time, purpose, channel, campaign: what caps count


def dispatch(
    db: Database,
    settings: Settings,
    now: datetime,
    *,
    limit: int | None = None,
    chunk: int = CHUNK,
    stop: Callable[[], bool] | None = None,
) -> DispatchCounts:
    """
    Send what is due at `now`, the most important first, until nothing is, or `limit` were claimed.

    Any number of processes may do so at once. `stop` is asked before each chunk; a chunk begun is
    finished. What an earlier dispatcher left behind in `sending` becomes `unknown`.

    Raises:
        DatabaseError: what was claimed is taken up again once its lease is over.
    """
    started = time.monotonic()
    tally: Tally = Counter({("unknown", ""): release_expired(db, now)})
    opened: dict[str, Channel] = {}
    while not (stop and stop()):
        size = chunk if limit is None else min(chunk, limit - tally["claimed", ""])
        loaded = releases.current(db, settings)
        if size <= 0 or loaded is None:
            break
        token = secrets.token_hex(8)
        rows = claim(db, now, size, token, _lease(now, started))
        if not rows:
            break
        tally["claimed", ""] += len(rows)
        part = Chunk(loaded, token, now, _lease(now, started))
        _send(db, part, _commit(db, part, rows, tally), tally, opened)
    counts = _counts(tally)
    with store.write(db) as connection:
        store.record_tick(connection, "dispatch", now, _passed(now, started), counts.as_json())
    return counts


def _counts(tally: Tally) -> DispatchCounts:
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (kind, reason), count in tally.items():
        totals[kind] += count
        reasons[reason] += count if reason else 0
    return DispatchCounts(**totals, by_reason={r: n for r, n in sorted(reasons.items()) if r})


def _passed(now: datetime, started: float) -> datetime:
    """`now`, plus the real time since: a lease must not be short because its tick is long."""
    return now + timedelta(seconds=time.monotonic() - started)


def _lease(now: datetime, started: float) -> datetime:
    return _passed(now, started) + LEASE


# --- 1 claim -------------------------------------------------------------------------------------

# Literals, not parameters: only then do both databases use the partial index.
# One probe of the index per priority, whatever the number of messages.
_PRIORITIES = text("""
    WITH RECURSIVE p(priority) AS (
        SELECT max(priority) FROM messages WHERE status = 'planned'
        UNION ALL
        SELECT (SELECT max(m.priority) FROM messages m WHERE m.status = 'planned' AND m.priority < p.priority)
        FROM p WHERE p.priority IS NOT NULL
    )
    SELECT priority FROM p
    WHERE EXISTS (
        SELECT 1 FROM messages m WHERE m.status = 'planned' AND m.priority = p.priority AND m.ready_at <= :now
    )
    ORDER BY priority DESC
""")
_DUE = """
    SELECT id FROM messages
    WHERE status = 'planned' AND priority = :priority AND ready_at <= :now
      AND (claim IS NULL OR lease_until < :now)
      AND campaign NOT IN (SELECT name FROM campaign_states WHERE paused_at IS NOT NULL)
    ORDER BY ready_at LIMIT :size
"""
_DUE_BY_DIALECT = {"sqlite": text(_DUE), "postgresql": text(_DUE + " FOR UPDATE OF messages SKIP LOCKED")}


def claim(db: Database, now: datetime, size: int, token: str, lease_until: datetime) -> list[Any]:
    """
    At most `size` due messages, ours until `lease_until`: the highest priority first, then the longest due.

    Takes a time that depends on `size` and the number of different priorities, not on how many wait.
    """
    with store.write(db) as connection:
        ids = _due(connection, now, size)
        if not ids:
            return []
        wanted = _messages.c.id.in_(ids)
        connection.execute(update(_messages).where(wanted).values(claim=token, lease_until=lease_until))
        rows = {row.id: row for row in connection.execute(select(_messages).where(wanted))}
    return [rows[i] for i in ids]


def _due(connection: Connection, now: datetime, size: int) -> list[int]:
    statement = _DUE_BY_DIALECT[connection.dialect.name]
    ids: list[int] = []
    for priority in connection.execute(_PRIORITIES, {"now": to_micros(now)}).scalars().all():
        values = {"priority": priority, "now": to_micros(now), "size": size - len(ids)}
        ids += connection.execute(statement, values).scalars()
        if len(ids) == size:
            break
    return ids


def release_expired(db: Database, now: datetime) -> int:
    """
    Declare `unknown` what was left in `sending` by a claimer whose lease is over; gives how many.

    Its claim stays, so that a claimer that was only slow can still say what became of it. What was
    claimed and not yet `sending` needs nothing: it is simply claimed again.
    """
    c = _messages.c
    late = select(c.id).where(c.claim.is_not(None), c.lease_until < now, c.status == text("'sending'"))
    with store.read(db) as connection:
        if connection.execute(late.limit(1)).first() is None:
            return 0
    with store.write(db) as connection:
        ids = connection.execute(late.with_for_update(skip_locked=True)).scalars().all()
        values = {"status": Status.UNKNOWN, "lease_until": None, "detail": "the process that sent it went away"}
        connection.execute(update(_messages).where(c.id.in_(ids)).values(values))
    return len(ids)


# --- 2 gate --------------------------------------------------------------------------------------


def _items(connection: Connection, loaded: Loaded, rows: Sequence[Any]) -> list[Claimed]:
    """The rows with their campaign and step of the current release."""
    query = select(_steps.c.campaign, _steps.c.step, _steps.c.cancelled_at)
    query = query.where(_steps.c.campaign.in_({row.campaign for row in rows}), _steps.c.cancelled_at.is_not(None))
    cancelled = {(row.campaign, row.step): row.cancelled_at for row in connection.execute(query)}
    return [_item(loaded, row, cancelled.get((row.campaign, row.step))) for row in rows]


def _item(loaded: Loaded, row: Any, cancelled_at: datetime | None) -> Claimed:
    if cancelled_at is not None and row.created_at <= cancelled_at:
        return Claimed(row, None, Reason.CANCELLED)
    campaign = loaded.campaigns.get(row.campaign)
    step = next((step for step in campaign.steps if step.id == row.step), None) if campaign else None
    if campaign is None or step is None or not campaign.active:
        return Claimed(row, None)
    item = Item(
        campaign=campaign,
        step=step,
        customer_id=row.customer_id,
        record_id=row.record_id,
        occasion=row.occasion,
        occasion_at=row.occasion_at,
        due_at=row.due_at,
        expires_at=row.expires_at,
        refused=frozenset(row.refused.split()),
        message_id=row.id,
        arm=row.arm,
    )
    return Claimed(row, item)


def _first_look(
    connection: Connection, loaded: Loaded, claimed: Sequence[Claimed], now: datetime
) -> tuple[list[Stays], list[tuple[Going, Facts]]]:
    """Those that do not go, with the verdict; and those that may go, with their facts."""
    stay: list[Stays] = [(one.row, End(Status.CANCELLED, one.ended)) for one in claimed if one.item is None]
    known = [Going(one.row, one.item) for one in claimed if one.item is not None]
    go: list[tuple[Going, Facts]] = []
    fetched = facts.fetch(connection, loaded.settings, [one.item for one in known], now) if known else []
    for one, found in zip(known, fetched, strict=True):
        verdict = gates.decide(found, facts.rules(one.item), loaded.settings, now)
        if isinstance(verdict, Send):
            go.append((one, found))
        else:
            stay.append((one.row, verdict))
    return stay, go


# --- 3 commit `sending` ------------------------------------------------------------------------------


def _commit(db: Database, chunk: Chunk, rows: Sequence[Any], tally: Tally) -> list[Ready]:
    """
    Settle every claimed message that does not go, and commit the others as `sending`.

    The second look happens under the lock of every contact that the first one saw.
    """
    with store.read(db) as connection:
        stay, go = _first_look(connection, chunk.loaded, _items(connection, chunk.loaded, rows), chunk.now)
    ready: list[Ready] = []
    with store.write(db) as connection:
        if go:
            held = _hold(connection, [found for _, found in go])
            mine = _still_ours(connection, [one.row.id for one, _ in go], chunk.token)
            ready, more = _second_look(connection, db, chunk, [one for one, _ in go if one.row.id in mine], held)
            stay += more
            _write_sending(connection, chunk, ready)
        _write_staying(connection, chunk, stay, tally)
    return ready


def _hold(connection: Connection, fetched: Iterable[Facts]) -> frozenset[int]:
    """
    Lock every contact that any of the messages could go to, in the order of their ids.

    On SQLite the IMMEDIATE transaction already excludes every other writer.
    """
    ids = {contact.contact_id for found in fetched for contact in found.contacts.values()}
    if connection.dialect.name == "postgresql":
        query = select(_contacts.c.id).where(_contacts.c.id.in_(sorted(ids))).order_by(_contacts.c.id)
        connection.execute(query.with_for_update()).all()
    return frozenset(ids)


def _still_ours(connection: Connection, ids: Sequence[int], token: str) -> set[int]:
    """Locked, so that nobody cancels them meanwhile; what another is changing just now is left to them."""
    c = _messages.c
    query = select(c.id).where(c.id.in_(ids), c.status == text("'planned'"), c.claim == token)
    return set(connection.execute(query.with_for_update(skip_locked=True)).scalars())


def _second_look(
    connection: Connection, db: Database, chunk: Chunk, going: Sequence[Going], held: frozenset[int]
) -> tuple[list[Ready], list[Stays]]:
    """Decide again, counting what this very chunk sends, and render what goes."""
    items, settings = [one.item for one in going], chunk.loaded.settings
    fetched = facts.fetch(connection, settings, items, chunk.now) if items else []
    contexts = facts.contexts(connection, settings, items) if items else []
    streaks = _streaks(connection, items)
    before = dict(streaks)
    here: dict[int, tuple[Sending, ...]] = {}
    ready: list[Ready] = []
    stay: list[Stays] = []
    for one, found, context in zip(going, fetched, contexts, strict=True):
        verdict = _again(one, found, chunk, here, held, streaks)
        if isinstance(verdict, Send):
            try:
                ready.append(_render(db, chunk, one, found, verdict, context))
            except TemplateError as error:
                verdict = _undefined(connection, chunk, one.item, error, streaks)
            else:
                streaks[_key(one.item)] = 0
                sending = (chunk.now, one.item.step.purpose, verdict.channel, one.item.campaign.name)
                here[verdict.contact_id] = (sending, *here.get(verdict.contact_id, ()))
        if not isinstance(verdict, Send):
            stay.append((one.row, verdict))
    _keep_streaks(connection, before, streaks)
    return ready, stay


def _again(
    one: Going,
    found: Facts,
    chunk: Chunk,
    here: Mapping[int, tuple[Sending, ...]],
    held: frozenset[int],
    streaks: Mapping[tuple[str, str], int],
) -> Verdict:
    own = {contact.contact_id for contact in found.contacts.values()} & here.keys()
    sent = {**found.sent, **{contact: (*here[contact], *found.sent.get(contact, ())) for contact in own}}
    paused = found.paused or any(
        count >= UNDEFINED_LIMIT for (campaign, _), count in streaks.items() if campaign == one.item.campaign.name
    )
    verdict = gates.decide(
        replace(found, sent=sent, paused=paused), facts.rules(one.item), chunk.loaded.settings, chunk.now
    )
    if isinstance(verdict, Send) and verdict.contact_id not in held:  # the customer's address changed this moment
        return Defer(chunk.now, Reason.RETRY)
    return verdict


def _key(item: Item) -> tuple[str, str]:
    return item.campaign.name, item.step.id


def _streaks(connection: Connection, items: Sequence[Item]) -> dict[tuple[str, str], int]:
    """By campaign and step, how many messages in a row could not be rendered."""
    c = _steps.c
    query = select(c.campaign, c.step, c.undefined).where(c.campaign.in_({item.campaign.name for item in items}))
    return {(row.campaign, row.step): row.undefined for row in connection.execute(query)}


def _keep_streaks(
    connection: Connection, before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int]
) -> None:
    for (campaign, step), count in after.items():
        if count != before.get((campaign, step), 0):
            of_step = (_steps.c.campaign == campaign, _steps.c.step == step)
            connection.execute(update(_steps).where(*of_step).values(undefined=count))


def _undefined(
    connection: Connection, chunk: Chunk, item: Item, error: TemplateError, streaks: dict[tuple[str, str], int]
) -> Defer:
    key = _key(item)
    streaks[key] = streaks.get(key, 0) + 1
    place = f"{error.template or item.step.template}, line {error.line}"
    what = f"{place}: {error.variable} has no value" if error.variable else f"{place}: it cannot be filled"
    if streaks[key] >= UNDEFINED_LIMIT:
        reason = f"step {item.step.id}: {UNDEFINED_LIMIT} messages in a row could not be filled: {what}"
        _pause(connection, [item.campaign.name], reason, chunk.now)
    return Defer(chunk.now + UNDEFINED_WAIT, Reason.UNDEFINED, what)


def _pause(connection: Connection, campaigns: Iterable[str], reason: str, now: datetime) -> None:
    c = _states.c
    values = {"paused_at": now, "paused_reason": reason}
    for campaign in sorted(campaigns):
        connection.execute(update(_states).where(c.name == campaign, c.paused_at.is_(None)).values(values))


def _render(db: Database, chunk: Chunk, one: Going, found: Facts, verdict: Send, context: Mapping[str, Any]) -> Ready:
    """TemplateError when the template names what this customer lacks, or cannot be filled for another reason."""
    item, row, settings = one.item, one.row, chunk.loaded.settings
    content = chunk.loaded.templates.render(
        item.step.template,
        verdict.channel,
        context["customer"].get("locale"),
        _with_coupon(settings, item, context, chunk.now),
        variant="" if item.arm == arms.CONTACT else item.arm,
        zone=found.zones[0] if len(found.zones) == 1 else "",
        survey=item.step.survey or "",
        link=link_maker(db, settings, row.public_id),
    )
    outgoing = Outgoing(
        public_id=row.public_id,
        channel=verdict.channel,
        address=verdict.address,
        sender=settings.channels[verdict.channel].sender,
        content=content,
        purpose=item.step.purpose,
        unsubscribe_url=next((link_url(settings, x.token) for x in content.links if x.kind == "unsubscribe"), ""),
        at=chunk.now,
        day=row.due_at.astimezone(ZoneInfo(settings.business.timezone)).date(),
    )
    others = frozenset(facts.rules(item).channels) & found.contacts.keys() - {verdict.channel}
    return Ready(one, outgoing, verdict.contact_id, others)


def link_url(settings: Settings, token: str) -> str:
    """The address behind which a message's link is kept."""
    return f"{settings.public_url.rstrip('/')}/l/{token}"


def link_maker(db: Database, settings: Settings, public_id: str) -> Callable[[str, str], tuple[str, str]]:
    """
    What makes the links of one message: (kind, target) → (token, address).

    A token is 72 bits of a keyed hash: it cannot be guessed, and a further attempt has the same ones.
    """

    def make(kind: str, target: str) -> tuple[str, str]:
        digest = bytes.fromhex(store.keyed_hash(db.secret, "link", public_id, kind, target))
        token = base64.urlsafe_b64encode(digest[:9]).decode()
        return token, link_url(settings, token)

    return make


def _with_coupon(settings: Settings, item: Item, context: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """A shared code is the same for everyone, so it needs no allocation."""
    offer = settings.offers.get(item.step.offer) if item.step.offer else None
    if offer is None or offer.shared_code is None:
        return dict(context)
    coupon: dict[str, Any] = {"code": offer.shared_code, "kind": offer.kind, "value": offer.value}
    if offer.minimum is not None:
        coupon["minimum"] = offer.minimum
    if offer.expires is not None:
        coupon["expires_at"] = timing.add(now, offer.expires, settings.business.timezone)
    return {**context, "coupon": coupon}


# What a message in `planned` has, once it has been there before: nothing of its attempt.
_UNCLAIMED: dict[str, Any] = {"claim": None, "lease_until": None}
_UNSENT: dict[str, Any] = {**_UNCLAIMED, "contact_id": None, "sent_at": None}


def _write_sending(connection: Connection, chunk: Chunk, ready: Sequence[Ready]) -> None:
    if not ready:
        return
    c = _messages.c
    going = update(_messages).where(c.id == bindparam("of"), c.status == text("'planned'"), c.claim == chunk.token)
    connection.execute(going, [_sending(chunk, one) for one in ready])
    _forget(connection, [one.going.row.id for one in ready if one.going.row.attempts])
    connection.execute(insert(_contents), [_content(chunk, one) for one in ready])
    links = [
        {"token": link.token, "message_id": one.going.row.id, "kind": link.kind, "target": link.target}
        for one in ready
        for link in {link.token: link for link in one.outgoing.content.links}.values()
    ]
    if links:
        connection.execute(insert(_links), links)


def _sending(chunk: Chunk, one: Ready) -> dict[str, Any]:
    return {
        "of": one.going.row.id,
        "status": Status.SENDING,
        "channel": one.outgoing.channel,
        "contact_id": one.contact_id,
        "purpose": one.outgoing.purpose,
        "sent_at": chunk.now,
        "release": chunk.loaded.number,
        "attempts": one.going.row.attempts + 1,
        "lease_until": chunk.lease_until,
    }


def _content(chunk: Chunk, one: Ready) -> dict[str, Any]:
    content = one.outgoing.content
    parts = "\x1f".join((content.subject, content.text, content.html))
    return {
        "message_id": one.going.row.id,
        "subject": content.subject,
        "text": content.text,
        "html": content.html,
        "content_hash": hashlib.sha256(parts.encode()).hexdigest(),
        "segments": content.segments,
        "at": chunk.now,
    }


def _forget(connection: Connection, ids: Sequence[int]) -> None:
    """Drop the content and links of an attempt that certainly reached nobody."""
    if ids:
        connection.execute(delete(_contents).where(_contents.c.message_id.in_(ids)))
        connection.execute(delete(_links).where(_links.c.message_id.in_(ids)))


def _write_staying(connection: Connection, chunk: Chunk, stay: Sequence[Stays], tally: Tally) -> None:
    changes = []
    for row, verdict in stay:
        values, counted = _staying(row, verdict, chunk.now)
        changes.append({"of": row.id, **values})
        tally[counted] += 1
    c = _messages.c
    _update_each(connection, changes, c.status == text("'planned'"), c.claim == chunk.token)


def _staying(row: Any, verdict: Verdict, now: datetime) -> Change:
    """The row's new values, and what to count it as."""
    if isinstance(verdict, Defer):
        return _deferred(row, verdict, now)
    assert isinstance(verdict, End)  # noqa: S101  the third kind of verdict is not written here
    kind = {Status.EXPIRED: "expired", Status.FAILED: "failed"}.get(verdict.status, "skipped")
    values = {"status": verdict.status, "reason": verdict.reason, "detail": verdict.detail, **_UNCLAIMED}
    return values | ({"blocked_by": verdict.blocked_by} if verdict.blocked_by else {}), (kind, verdict.reason)


def _deferred(row: Any, verdict: Defer, now: datetime) -> Change:
    """
    Planned again, later; or expired, when that would be too late.

    A paused campaign's message keeps its place: it is not claimed before the campaign goes on.
    """
    why = {"blocked_by": verdict.reason, "detail": verdict.detail, **_UNCLAIMED}
    if verdict.reason is Reason.PAUSED:
        return why, ("deferred", Reason.PAUSED)
    until = max(verdict.until, now + SOON)
    if until <= row.expires_at:
        return {"ready_at": until, **why}, ("deferred", verdict.reason)
    reason = Reason.NOT_RENDERED if verdict.reason is Reason.UNDEFINED else Reason.EXPIRED
    return {"status": Status.EXPIRED, "reason": reason, **why}, ("expired", reason)


def _update_each(connection: Connection, changes: Sequence[dict[str, Any]], *where: Any) -> None:
    """Update messages by id, those with the same columns at once."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        alike[tuple(change)].append(change)
    for same in alike.values():
        connection.execute(update(_messages).where(_messages.c.id == bindparam("of"), *where), same)


# --- 4 hand over -------------------------------------------------------------------------------------


def clocks() -> tuple[float, float]:
    """
    The wall clock, and the clock that goes on while the machine sleeps, in seconds.

    A suspended machine is seen by the second, a suspended virtual machine by the first; where
    there is no such second clock, the monotonic one stands in.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time(), time.clock_gettime(boot) if boot is not None else time.monotonic()


def _in_time(messages: Iterable[Outgoing], drawn: set[str], start: tuple[float, float]) -> Iterator[Outgoing]:
    """The messages, as long as it is no more than 30 s since `start`; notes which were drawn."""
    for message in messages:
        if any(at - begun > HAND_OVER_SECONDS for at, begun in zip(clocks(), start, strict=True)):
            return
        drawn.add(message.public_id)
        yield message


def _send(db: Database, chunk: Chunk, ready: Sequence[Ready], tally: Tally, opened: dict[str, Channel]) -> None:
    """Hand the chunk over, channel by channel, and record what became of each message, whatever happens."""
    if not ready:
        return
    start = clocks()
    drawn: set[str] = set()
    receipts: dict[str, Receipt] = {}
    wrong: dict[str, str] = {}
    by_channel: dict[str, list[Outgoing]] = defaultdict(list)
    for one in ready:
        by_channel[one.outgoing.channel].append(one.outgoing)
    try:
        for name, messages in by_channel.items():
            try:
                if name not in opened:
                    opened[name] = open_channel(name, chunk.loaded.settings)
                for receipt in opened[name].send(_in_time(messages, drawn, start)):
                    receipts.setdefault(receipt.public_id, receipt)
            except ChannelError as error:
                wrong[name] = str(error)
    finally:
        _record(db, chunk, ready, _outcomes(ready, drawn, receipts, wrong, chunk.now), wrong, tally)


# --- 5 record ------------------------------------------------------------------------------------


def _outcomes(
    ready: Sequence[Ready],
    drawn: set[str],
    receipts: Mapping[str, Receipt],
    wrong: Mapping[str, str],
    now: datetime,
) -> list[Change]:
    found = []
    for one in ready:
        receipt = receipts.get(one.outgoing.public_id)
        if receipt is not None:
            found.append(_received(one, receipt, now))
        elif one.outgoing.public_id in drawn:
            found.append(_in_doubt("the channel did not say what became of it"))
        else:
            found.append(_not_handed_over(one, wrong.get(one.outgoing.channel), now))
    return found


def _received(one: Ready, receipt: Receipt, now: datetime) -> Change:
    """What a receipt makes of its message."""
    row, attempt = one.going.row, one.going.row.attempts + 1
    if receipt.outcome is Outcome.ACCEPTED:
        return {"status": Status.SENT, "provider_id": receipt.provider_id, **_UNCLAIMED}, ("sent", "")
    if receipt.outcome is Outcome.DOUBT:
        return _in_doubt(receipt.detail)
    if receipt.outcome is Outcome.REFUSED:
        return _refused(one, receipt, now)
    wait = receipt.retry_after or timing.back_off(attempt, _unit(row.public_id, attempt))
    values, counted = _deferred(row, Defer(now + wait, Reason.RETRY, receipt.detail), now)
    return {"status": Status.PLANNED, **_UNSENT, **values}, counted


def _refused(one: Ready, receipt: Receipt, now: datetime) -> Change:
    """On to the next channel the customer can be reached on; failed when there is none."""
    why = {"refused": f"{one.going.row.refused} {one.outgoing.channel}".strip(), "detail": receipt.detail}
    if not one.others:
        return {"status": Status.FAILED, "reason": Reason.REFUSED, **why, **_UNCLAIMED}, ("failed", Reason.REFUSED)
    again = {"status": Status.PLANNED, "ready_at": now, "blocked_by": Reason.REFUSED}
    return {**again, **why, **_UNSENT}, ("deferred", Reason.REFUSED)


def _in_doubt(detail: str) -> Change:
    return {"status": Status.UNKNOWN, "detail": detail, **_UNCLAIMED}, ("unknown", "")


def _not_handed_over(one: Ready, wrong: str | None, now: datetime) -> Change:
    """The channel never saw it: it waits as before, and this attempt does not count."""
    reason = Reason.RETRY if wrong is None else Reason.CHANNEL
    why = {"blocked_by": reason, "detail": wrong or "its time to be handed over ran out"}
    again = {"status": Status.PLANNED, "ready_at": now, "attempts": one.going.row.attempts}
    return {**again, **why, **_UNSENT}, ("deferred", reason)


def _unit(public_id: str, attempt: int) -> float:
    """A number in [0, 1), always the same for one attempt at one message."""
    return hashlib.sha256(f"{public_id}:{attempt}".encode()).digest()[0] / 256


def _record(
    db: Database,
    chunk: Chunk,
    ready: Sequence[Ready],
    outcomes: Sequence[Change],
    wrong: Mapping[str, str],
    tally: Tally,
) -> None:
    """
    Write what became of the chunk; a channel that is wrongly configured pauses its campaigns.

    A message that another process took for abandoned meanwhile is still ours to settle: nobody
    else has, or the claim would be gone.
    """
    changes = [{"of": one.going.row.id, **values} for one, (values, _) in zip(ready, outcomes, strict=True)]
    c = _messages.c
    ours = (text("status IN ('sending', 'unknown')"), c.claim == chunk.token)
    sent = [one for one, (values, _) in zip(ready, outcomes, strict=True) if values["status"] is Status.SENT]
    with store.write(db) as connection:
        _update_each(connection, changes, *ours)
        _forget(connection, [change["of"] for change in changes if "contact_id" in change])
        _tag(connection, sent)
        for channel, reason in wrong.items():
            concerned = {one.going.item.campaign.name for one in ready if one.outgoing.channel == channel}
            _pause(connection, concerned, reason, chunk.now)
    tally.update(counted for _, counted in outcomes)


def _tag(connection: Connection, sent: Sequence[Ready]) -> None:
    """Put the step's tag on the customer; one that an import put there becomes ours as well."""
    tags = [
        {"customer": one.going.item.customer_id, "tag": one.going.item.step.tag}
        for one in sent
        if one.going.item.step.tag
    ]
    if tags:
        connection.execute(_TAG, tags)


_TAG = text(
    "INSERT INTO customer_tags (customer_id, tag, by_campaign) VALUES (:customer, :tag, TRUE)"
    " ON CONFLICT (customer_id, tag) DO UPDATE SET by_campaign = TRUE"
)
