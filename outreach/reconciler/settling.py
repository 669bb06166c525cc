"""
Settling: the verdict on each message is reached and written in one transaction, after everybody was asked.

Whatever could have made a record that a provider showed was committed here before the provider had
it; so what is read in this transaction is enough to tell whose record it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Update, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from outreach import contents, store, tags
from outreach.models import Message, MessageContent, MessageEvent, MessageLink, Reason, Status, table
from outreach.reconciler import deciding, looking
from outreach.reconciler.deciding import EVIDENCE, MEANT, Heard, Verdict, Why
from outreach.reconciler.looking import UNKNOWN, Doubt, Said, World
from outreach.releases import Loaded
from outreach.store import Database, among

RESEND = "resend_if_absent"
LAST_LOOK = "; last look "  # what stands before it in a detail is how the message came to be in doubt

_messages, _contents, _links, _events = table(Message), table(MessageContent), table(MessageLink), table(MessageEvent)

Tally = Counter[tuple[str, str]]  # (status, why)

# What a message is given back to the dispatcher with: nothing of its attempt, and the sign that it was settled once.
AGAIN: dict[str, Any] = {
    "status": Status.PLANNED,
    "reason": None,
    "blocked_by": Reason.RETRY,
    "claim": None,
    "lease_until": None,
    "contact_id": None,
    "sent_at": None,
    "provider_id": None,
}
SENT: dict[str, Any] = {"status": Status.SENT, "reason": None, "claim": None, "lease_until": None}


def settle(db: Database, world: World, batch: Sequence[Doubt], said: Mapping[int, Said], now: datetime) -> Tally:
    """
    Write what the evidence makes of each message; gives how many became what, and why.

    A message that another process has changed since it was read, or is just changing, is left alone.
    """
    tally: Tally = Counter()
    with store.write(db) as connection:
        mine = _untouched(connection, batch)
        heard = _heard(connection, [one.row.id for one in mine])
        taken = _taken(connection, said.values())
        rivals = _with_rivals(connection, mine)
        verdicts = _verdicts(world, mine, said, heard, taken, rivals)
        earned: list[tuple[int, str]] = []
        for one in mine:
            verdict = verdicts[one.row.id]
            if one.row.id not in said and verdict.status is not Status.SENT:
                continue  # nobody was asked about it
            if _write(connection, world, one, verdict, now):
                tally[verdict.status, verdict.why] += 1
                earned += tags_of(world.loaded, one.row) if verdict.status is Status.SENT else []
        tags.put(connection, earned)
    return tally


# --- reading once more -----------------------------------------------------------------------------------


def _untouched(connection: Connection, batch: Sequence[Doubt]) -> list[Doubt]:
    """Those that are as they were when the others were asked about them, locked; nobody is waited for."""
    c = _messages.c
    query = select(c.id, c.claim, c.sent_at, c.channel, c.contact_id).where(
        among(c.id, [one.row.id for one in batch]), UNKNOWN
    )
    rows = {row.id: row for row in connection.execute(query.order_by(c.id).with_for_update(skip_locked=True))}
    return [one for one in batch if one.row.id in rows and _same(rows[one.row.id], one.row)]


def _same(row: Any, former: Any) -> bool:
    return all(getattr(row, name) == getattr(former, name) for name in ("claim", "sent_at", "channel", "contact_id"))


def _heard(connection: Connection, ids: Sequence[int]) -> dict[int, list[Heard]]:
    c = _events.c
    query = select(c.message_id, c.kind, c.at, c.event_id, c.detail).where(
        among(c.message_id, ids), c.kind.in_(sorted(EVIDENCE))
    )
    found: dict[int, list[Heard]] = defaultdict(list)
    for row in connection.execute(query):
        told = row.detail or {}
        exact = row.kind not in MEANT or told.get("exact") is True
        by, channel = str(told.get("provider_id") or ""), str(told.get("channel") or "")
        found[row.message_id].append(Heard(row.kind, row.at, row.event_id, by, channel, exact))
    return found


def _taken(connection: Connection, said: Iterable[Said]) -> set[tuple[str, str]]:
    """Which of the providers' records our other messages are known by."""
    asked: dict[str, set[str]] = defaultdict(set)
    for answer in (answer for one in said for answer in one.answers):
        asked[answer.channel].update(record.provider_id for record in answer.kept.records if record.provider_id)
    found: set[tuple[str, str]] = set()
    c = _messages.c
    for channel, ids in asked.items():
        if ids:
            query = select(c.provider_id).where(c.channel == channel, among(c.provider_id, ids))
            found.update((channel, provider_id) for provider_id in connection.execute(query).scalars())
    return found


def _with_rivals(connection: Connection, batch: Sequence[Doubt]) -> set[int]:
    """
    The messages beside which another of ours, with no provider's id, may have gone to the same address at that time.

    Whether that one is being sent, in doubt, refused, or settled by a person does not matter: its
    record may be there. A text that is no longer kept may be any.
    """
    known = [one for one in batch if one.row.contact_id is not None and not one.attempt.before_restore]
    if not known:
        return set()
    first = min(one.attempt.since for one in known)
    last = max(one.attempt.until for one in known)
    c = _messages.c
    query = (
        select(c.id, c.contact_id, c.channel, c.sent_at, _contents.c.text)
        .outerjoin(_contents, _contents.c.message_id == c.id)
        .where(
            among(c.contact_id, {one.row.contact_id for one in known}),
            c.sent_at > first - (last - first),
            c.sent_at < last,
            c.provider_id.is_(None),
        )
    )
    others: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        others[row.contact_id, row.channel].append(row)
    return {
        one.row.id
        for one in known
        if any(_is_rival(other, one) for other in others[one.row.contact_id, one.row.channel])
    }


def _is_rival(other: Any, one: Doubt) -> bool:
    attempt = one.attempt
    overlaps = abs(other.sent_at - one.row.sent_at) <= attempt.until - attempt.since
    alike = other.text is None or attempt.text is None or deciding.plain(other.text) == deciding.plain(attempt.text)
    return bool(other.id != one.row.id and overlaps and alike)


# --- deciding --------------------------------------------------------------------------------------------


def _verdicts(
    world: World,
    batch: Sequence[Doubt],
    said: Mapping[int, Said],
    heard: Mapping[int, Sequence[Heard]],
    taken: set[tuple[str, str]],
    rivals: set[int],
) -> dict[int, Verdict]:
    """Twice, since a record that is found to be one message's is no longer in the way of the next one's absence."""
    verdicts: dict[int, Verdict] = {}
    for _ in range(2):
        for one in batch:
            if one.row.id in verdicts and verdicts[one.row.id].status is Status.SENT:
                continue
            known = said.get(one.row.id, Said())
            resend = _resends(world, one.row.channel)
            verdict = deciding.decide(
                one.attempt,
                heard.get(one.row.id, ()),
                known.answers,
                taken,
                rivals=one.row.id in rivals,
                resend=resend,
            )
            verdicts[one.row.id] = verdict = _excused(verdict, known)
            if verdict.status is Status.SENT and verdict.provider_id:
                taken.add((verdict.channel or one.row.channel, verdict.provider_id))
    return verdicts


def _resends(world: World, channel: str | None) -> bool:
    configured = world.settings.channels.get(channel or "")
    return configured is not None and configured.in_doubt == RESEND


def _excused(verdict: Verdict, said: Said) -> Verdict:
    """Where nothing was found because somebody could not be asked, that is what to tell; and then nothing is absent."""
    if verdict.status is Status.SENT or said.trouble is None:
        return verdict
    why, told = said.trouble
    if said.answers and why is Why.NOBODY:
        return verdict
    return Verdict(Status.UNKNOWN, why, told)


# --- writing ---------------------------------------------------------------------------------------------


def _write(connection: Connection, world: World, one: Doubt, verdict: Verdict, now: datetime) -> bool:
    """Whether the verdict was written: not where somebody was first."""
    if verdict.status is Status.SENT:
        values = _sent(world, one, verdict, now)
    elif verdict.status is Status.PLANNED:
        values = {**AGAIN, "ready_at": now, "look_at": now, "detail": f"{verdict.text} ({when(now)}): planned again"}
    else:
        began = one.row.sent_at or world.restored_at or one.row.due_at
        look_at = deciding.next_look(verdict.why, began, one.attempt.until, now)
        values = {"look_at": look_at, "detail": noted(one.row.detail, verdict.text, now)}
    if not change(connection, one.row, values):
        return False
    if verdict.status is Status.PLANNED:
        contents.forget(connection, [one.row.id])
    return True


def _sent(world: World, one: Doubt, verdict: Verdict, now: datetime) -> dict[str, Any]:
    """A message that is found after a restore gets the time, channel and contact that caps count by."""
    values: dict[str, Any] = {**SENT, "detail": verdict.text}
    if verdict.provider_id:
        values["provider_id"] = verdict.provider_id
    if one.row.sent_at is None:
        channel = verdict.channel or one.row.channel
        contact = next((place.contact_id for place in one.places if place.channel == channel), one.row.contact_id)
        values |= {"channel": channel, "contact_id": contact, "sent_at": verdict.at or world.restored_at or now}
    return values


def change(connection: Connection, row: Any, values: Mapping[str, Any]) -> bool:
    """
    Change a message in doubt that is still as `row` says; whether it was.

    Not either where another message has just become known by the very same provider's id.
    """
    changed, bound = _changed(tuple(sorted(values))), {"of": row.id, "of_claim": row.claim, "of_sent_at": row.sent_at}
    if not values.get("provider_id"):
        return connection.execute(changed, {**values, **bound}).rowcount == 1
    try:
        with connection.begin_nested():
            return connection.execute(changed, {**values, **bound}).rowcount == 1
    except IntegrityError:
        return False


@lru_cache(maxsize=16)
def _changed(columns: tuple[str, ...]) -> Update:
    """Built once: that costs more than running it."""
    c = _messages.c
    claim, sent_at = bindparam("of_claim", type_=c.claim.type), bindparam("of_sent_at", type_=c.sent_at.type)
    as_read = (
        c.id == bindparam("of"),
        UNKNOWN,
        c.claim.is_not_distinct_from(claim),
        c.sent_at.is_not_distinct_from(sent_at),
    )
    return update(_messages).where(*as_read).values({name: bindparam(name) for name in columns})


def noted(detail: str, said: str, now: datetime) -> str:
    """How the message came to be in doubt, and what the last look at it said."""
    return f"{detail.partition(LAST_LOOK)[0]}{LAST_LOOK}{when(now)}: {said}"


def without_time(detail: str) -> str:
    """The same, without when the look was."""
    before, mark, look = detail.partition(LAST_LOOK)
    return f"{before}; {look.partition(': ')[2]}" if mark else before


def when(at: datetime) -> str:
    """A time in a detail: UTC, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


# --- tags ------------------------------------------------------------------------------------------------


def tags_of(loaded: Loaded | None, row: Any) -> list[tuple[int, str]]:
    """The tag that its step puts on a customer when it is sent."""
    step = looking.step_of(loaded, row)
    return [(row.customer_id, step.tag)] if step is not None and step.tag else []
