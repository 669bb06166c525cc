"""
Committing: every claimed message is decided on, and those that go become `sending`, in one transaction.

The transaction holds the lock of each contact that any of them could go to, before it reads a fact.
An opt-out takes the same lock, so whichever commits first wins; caps and rates are counted truly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, union, update

from outreach import contents, coupons, facts, gates, store
from outreach.answering import answer_campaign
from outreach.campaigns import ANSWERS, Campaign, Step
from outreach.coupons import Wanted
from outreach.dispatcher import pacing
from outreach.dispatcher.filling import fill, sender_of
from outreach.dispatcher.parts import (
    MANUAL,
    UNCLAIMED,
    Change,
    Chunk,
    Claimed,
    Going,
    Ready,
    Stays,
    Tally,
    manual_campaign,
    pause,
    run_many,
    update_each,
)
from outreach.errors import TemplateError
from outreach.facts import Item
from outreach.gates import Defer, End, Facts, Send, Verdict
from outreach.models import (
    Contact,
    Customer,
    Installation,
    ManualSend,
    Message,
    MessageEvent,
    Reason,
    ReplyAnswer,
    Status,
    StepState,
    table,
)
from outreach.releases import Loaded
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import Database, among

UNDEFINED_WAIT = timedelta(hours=1)
UNDEFINED_LIMIT = 5  # in a row, of one step: its campaign pauses
SOON = timedelta(seconds=1)  # what is deferred is never due within the same tick
WROTE = ("replied", "rated", "auto_replied")  # kinds of event: what they wrote, whatever it was
CONVERSATION = timedelta(hours=24)  # WhatsApp's customer service window: www.twilio.com/docs/whatsapp/key-concepts

_messages = table(Message)
_steps, _contacts, _customers = table(StepState), table(Contact), table(Customer)
_manual, _events = table(ManualSend), table(MessageEvent)

Sending = tuple[datetime, str, str, str]  # time, purpose, channel, campaign: what caps count


def commit(db: Database, chunk: Chunk, rows: Sequence[Claimed], tally: Tally) -> list[Ready]:
    """
    Settle every claimed message that does not go, and commit the others as `sending`.

    One that another process has its hand on just now is given back: whoever comes next claims it again.
    """
    with store.write(db) as connection:
        held = _hold(connection, [row.customer_id for row in rows])
        mine = _still_ours(connection, [row.id for row in rows], chunk.token)
        gone = _may_be_gone(connection, db, chunk, [row for row in rows if row.id in mine], tally)
        look = _Look(connection, db, chunk, held)
        ready, stay = look.at([row for row in rows if row.id in mine - gone])
        _write_sending(connection, chunk, ready)
        write_staying(connection, chunk, stay, tally)
    _give_back(db, [row.id for row in rows if row.id not in mine], chunk.token)
    return ready


# --- locks ---------------------------------------------------------------------------------------

_OWN = union(
    *(
        select(column).where(among(_customers.c.id, "ids"), column.is_not(None))
        for column in (_customers.c.email_id, _customers.c.phone_id, _customers.c.messenger_id)
    )
)
_HOLD = (
    select(_contacts.c.id).where(_contacts.c.id.in_(_OWN.scalar_subquery())).order_by(_contacts.c.id).with_for_update()
)


def _hold(connection: Connection, customers: Iterable[int]) -> frozenset[int] | None:
    """
    Lock every contact of these customers, in the order of their ids, and give them.

    None on SQLite, where the IMMEDIATE transaction already excludes every other writer.
    """
    if connection.dialect.name == "sqlite":
        return None
    return frozenset(connection.execute(_HOLD, {"ids": customers}).scalars())


_STILL = (
    select(_messages.c.id)
    .where(
        among(_messages.c.id, "ids"), _messages.c.status == text("'planned'"), _messages.c.claim == bindparam("token")
    )
    .with_for_update(skip_locked=True)
)


def _still_ours(connection: Connection, ids: Sequence[int], token: str) -> set[int]:
    """
    Locked, so that nobody cancels them meanwhile.

    What another has locked is stepped over: it may wait for a contact that we hold. It need not be
    changing the message; whoever claims waits for our claim, too, and holds its lock for a moment.
    """
    return set(connection.execute(_STILL, {"ids": ids, "token": token}).scalars())


_GIVE_BACK = (
    update(_messages)
    .where(_messages.c.id == bindparam("of"), _messages.c.claim == bindparam("token"))
    .where(_messages.c.status == text("'planned'"))
    .values(**UNCLAIMED)
)


def _give_back(db: Database, ids: Iterable[int], token: str) -> None:
    """Each in a transaction of its own, which waits for whoever has the message, and holds nothing meanwhile."""
    for message in ids:
        with store.write(db) as connection:
            connection.execute(_GIVE_BACK, {"of": message, "token": token})


# --- after a restore -----------------------------------------------------------------------------

_RESTORED = select(table(Installation).c.restored_at)
_GONE = "it may have left before the database was restored"


def _may_be_gone(connection: Connection, db: Database, chunk: Chunk, rows: Sequence[Claimed], tally: Tally) -> set[int]:
    """
    Declare `unknown` what was due before this database was restored from a backup, and planned again since.

    If it did leave, whoever has it must still find the way out behind its links. What has been settled once, by evidence or by a person, has a `look_at`, and goes like any other.
    """
    restored_at = connection.execute(_RESTORED).scalar()
    if restored_at is None:
        return set()
    gone = {row.id: row.public_id for row in rows if row.look_at is None and row.due_at <= restored_at}
    if gone:
        values = {"status": Status.UNKNOWN, "look_at": chunk.now, "detail": _GONE, **UNCLAIMED}
        connection.execute(update(_messages).where(among(_messages.c.id, gone)).values(values))
        store.add_links(connection, store.ways_out(db.secret, gone.items()))
        tally["unknown", ""] += len(gone)
    return set(gone)


# --- what the release makes of a row -------------------------------------------------------------

_STATES = select(_steps.c.campaign, _steps.c.step, _steps.c.cancelled_at, _steps.c.undefined).where(
    among(_steps.c.campaign, "names")
)
_ANSWERS = select(table(ReplyAnswer)).where(among(table(ReplyAnswer).c.id, "ids"))
_SENDS = select(_manual).where(among(_manual.c.id, "ids"))


def items_of(
    connection: Connection,
    loaded: Loaded,
    rows: Sequence[Claimed],
    cancelled: Mapping[tuple[str, str], datetime | None],
) -> list[Item | Reason]:
    """The rows as their campaign and step of the current release have them, or why there is none."""
    ids = {row.record_id for row in rows if row.campaign == MANUAL}
    sends = {send.id: send for send in connection.execute(_SENDS, {"ids": ids})} if ids else {}
    ids = {row.record_id for row in rows if row.campaign == ANSWERS}
    answers = {answer.id: answer for answer in connection.execute(_ANSWERS, {"ids": ids})} if ids else {}
    steps = {  # of a whole chunk mostly one
        key: _step_of(loaded.campaigns.get(key[0]), key[1]) for key in {(row.campaign, row.step) for row in rows}
    }
    return [_item(row, steps[row.campaign, row.step], cancelled, sends, answers) for row in rows]


def _step_of(campaign: Campaign | None, step: str) -> tuple[Campaign, Step] | None:
    if campaign is None or not campaign.active:
        return None
    return next(((campaign, one) for one in campaign.steps if one.id == step), None)


def _item(
    row: Claimed,
    found: tuple[Campaign, Step] | None,
    cancelled: Mapping[tuple[str, str], datetime | None],
    sends: Mapping[int | None, Any],
    answers: Mapping[int | None, Any],
) -> Item | Reason:
    contact, written = None, None
    cancelled_at = cancelled.get((row.campaign, row.step))
    if cancelled_at is not None and row.created_at <= cancelled_at:
        return Reason.CANCELLED
    if row.campaign == MANUAL:
        send = sends[row.record_id]
        found = _step_of(manual_campaign(send.template, send.channels, send.purpose), row.step)
    elif row.campaign == ANSWERS:
        answer = answers[row.record_id]
        found = _step_of(answer_campaign(answer.kind, answer.template, answer.channel, row.purpose), row.step)
        contact = answer.contact_id
        written = (answer.subject, answer.text) if not answer.template else None
    if found is None:
        return Reason.WITHDRAWN
    return Item(
        *found,
        row.customer_id,
        row.record_id,
        row.occasion,
        row.occasion_at,
        row.due_at,
        row.expires_at,
        frozenset(row.refused.split()) if row.refused else _NONE,
        row.id,
        row.arm,
        contact,
        written,
    )


_NONE = frozenset[str]()


def _coupon_of(one: Going, settings: Settings) -> Wanted | None:
    """The coupon that a message brings: one of its step's offer, or the very one that a reminder is about."""
    offer = one.item.step.offer if one.item.step.offer in settings.offers else None
    about = one.item.record_id if one.item.campaign.trigger.subject == "coupon" else None
    if offer is None and about is None:
        return None
    return Wanted(one.row.id, one.row.customer_id, offer or "", about)


# --- the look --------------------------------------------------------------------------------------


class _Look:
    """Deciding on one chunk: what it counts of itself while it does."""

    def __init__(self, connection: Connection, db: Database, chunk: Chunk, held: frozenset[int] | None) -> None:
        self.connection, self.db, self.chunk, self.held = connection, db, chunk, held
        self.settings = chunk.loaded.settings
        self.here: dict[int, tuple[Sending, ...]] = {}  # by contact, what this very chunk sends
        self.told: dict[int, list[Item]] = {}  # the same by the items, of occasions that many have in common
        self.streaks: dict[tuple[str, str], int] = {}  # by campaign and step, failures to render in a row
        self.paused: set[str] = set()
        self.desk: coupons.Desk | None = None  # only where a message brings a coupon

    def at(self, rows: Sequence[Claimed]) -> tuple[list[Ready], list[Stays]]:
        """Those that go, rendered; and those that stay, with the verdict."""
        if not rows:
            return [], []
        states = list(self.connection.execute(_STATES, {"names": {row.campaign for row in rows}}))
        before = {(state.campaign, state.step): state.undefined for state in states}
        self.streaks = dict(before)
        cancelled = {(state.campaign, state.step): state.cancelled_at for state in states}
        items = items_of(self.connection, self.chunk.loaded, rows, cancelled)
        stay: list[Stays] = []
        known: list[Going] = []
        for row, item in zip(rows, items, strict=True):
            if isinstance(item, Item):
                known.append(Going(row, item, facts.rules(item)))
            else:
                stay.append((row, End(Status.CANCELLED, item)))
        may_go: list[tuple[Going, Facts, Send]] = []
        items_known = [one.item for one in known]
        now, secret = self.chunk.now, self.db.secret
        people: dict[int, dict[str, Any]] = {}
        fetched = (
            facts.fetch(self.connection, self.settings, items_known, now, secret=secret, rows=people) if known else []
        )
        for one, found in zip(known, fetched, strict=True):
            verdict = gates.decide(found, one.rules, self.settings, self.chunk.now)
            if isinstance(verdict, Send):
                may_go.append((one, found, verdict))
            else:
                stay.append((one.row, verdict))
        ready = self._fill(may_go, people, stay) if may_go else []
        self._keep_streaks(before)
        return ready, stay

    def _fill(
        self, may_go: Sequence[tuple[Going, Facts, Send]], people: Mapping[int, dict[str, Any]], stay: list[Stays]
    ) -> list[Ready]:
        contexts = facts.contexts(self.connection, self.settings, [one.item for one, _, _ in may_go], people)
        open_talks = self._conversations(may_go)
        wanted = [brings for one, _, _ in may_go if (brings := _coupon_of(one, self.settings)) is not None]
        self.desk = coupons.open_desk(self.connection, self.settings, self.chunk.now, wanted)
        pace = pacing.read(self.connection, self.settings, self.chunk.now, self.chunk.behind, self.chunk.slowed)
        ready: list[Ready] = []
        for (one, found, first), context in zip(may_go, contexts, strict=True):
            verdict = self._again(one, found, first)
            if isinstance(verdict, Send):
                sender = sender_of(self.settings, verdict.channel, verdict.contact_id)
                waits = pace.wait(verdict.channel, sender, one.item.expires_at)
                if waits is not None:
                    verdict = waits
                else:
                    talks = (one.row.customer_id, verdict.channel) in open_talks
                    made = self._made(one, found, verdict, context, sender=sender, conversation=talks)
                    if isinstance(made, Ready):
                        pace.take(verdict.channel, sender, made.outgoing.content.segments)
                        ready.append(made)
                        continue
                    verdict = made
            stay.append((one.row, verdict))
        if self.desk is not None:
            self.desk.write()
        pace.write(self.connection)
        return ready

    def _provider(self, channel: str) -> str:
        return self.settings.channels[channel].provider

    def _again(self, one: Going, found: Facts, first: Send) -> Verdict:
        """The verdict once this chunk's own messages count; a person's task waits for the person."""
        verdict: Verdict = first
        own = [i for contact in found.contacts.values() if (i := contact.contact_id) in self.here]
        paused = one.item.campaign.name in self.paused
        if own or paused:
            sent = {**found.sent, **{contact: (*self.here[contact], *found.sent.get(contact, ())) for contact in own}}
            told = {i for i in own for other in self.told.get(i, ()) if facts.is_same_for_another(one.item, other)}
            by_now = replace(found, sent=sent, paused=found.paused or paused, told=found.told | told)
            verdict = gates.decide(by_now, one.rules, self.settings, self.chunk.now)
        if isinstance(verdict, Send):
            # The customer's address changed this moment.
            if self.held is not None and verdict.contact_id not in self.held:
                return Defer(self.chunk.now, Reason.RETRY)
            by_staff = self._provider(verdict.channel) == STAFF
            if by_staff and not self.chunk.by_person:
                return Defer(one.item.expires_at, Reason.PERSON, verdict.channel)
            if self.chunk.by_person and not by_staff:  # what kept it with a person is gone
                return Defer(self.chunk.now, Reason.RETRY)
        return verdict

    def _made(
        self, one: Going, found: Facts, verdict: Send, context: Mapping[str, Any], *, sender: str, conversation: bool
    ) -> Ready | Defer | End:
        key = (one.item.campaign.name, one.item.step.id)
        wanted = _coupon_of(one, self.settings) if self.desk is not None else None
        coupon = self.desk.propose(wanted, found.zones) if self.desk is not None and wanted is not None else None
        if isinstance(coupon, coupons.Denied):
            return End(Status.SKIPPED, Reason.NO_COUPON, coupon.detail)
        if isinstance(coupon, coupons.RunOut):
            return self._run_out(one.item.campaign.name, coupon.reason)
        try:
            made = fill(
                self.db,
                self.chunk,
                one,
                found,
                verdict,
                context,
                sender=sender,
                conversation=conversation,
                coupon=coupon,
            )
        except TemplateError as error:
            return self._undefined(key, one.item, error)
        if self.desk is not None and wanted is not None and coupon is not None:
            self.desk.take(wanted, coupon)  # only now: what cannot be filled burns no code
        self.streaks[key] = 0
        sending = (self.chunk.now, one.item.step.purpose, verdict.channel, one.item.campaign.name)
        self.here[verdict.contact_id] = (sending, *self.here.get(verdict.contact_id, ()))
        if one.item.campaign.trigger.is_common:
            self.told.setdefault(verdict.contact_id, []).append(one.item)
        return made

    def _run_out(self, campaign: str, reason: str) -> Defer:
        """No message of an offer that has run out starts without a code: its campaign pauses, and it keeps its place."""
        pause(self.connection, [campaign], reason, self.chunk.now)
        self.paused.add(campaign)
        return Defer(self.chunk.now, Reason.PAUSED, reason)

    def _undefined(self, key: tuple[str, str], item: Item, error: TemplateError) -> Defer:
        self.streaks[key] = self.streaks.get(key, 0) + 1
        place = f"{error.template or item.step.template}, line {error.line}"
        what = f"{place}: {error.variable} has no value" if error.variable else f"{place}: it cannot be filled"
        if self.streaks[key] >= UNDEFINED_LIMIT:
            reason = f"step {item.step.id}: {UNDEFINED_LIMIT} messages in a row could not be filled: {what}"
            pause(self.connection, [item.campaign.name], reason, self.chunk.now)
            self.paused.add(item.campaign.name)
        return Defer(self.chunk.now + UNDEFINED_WAIT, Reason.UNDEFINED, what)

    def _keep_streaks(self, before: Mapping[tuple[str, str], int]) -> None:
        for (campaign, step), count in self.streaks.items():
            if count != before.get((campaign, step), 0):
                of_step = (_steps.c.campaign == campaign, _steps.c.step == step)
                self.connection.execute(update(_steps).where(*of_step).values(undefined=count))

    def _conversations(self, may_go: Sequence[tuple[Going, Facts, Send]]) -> set[tuple[int, str]]:
        """Which of the customers wrote to us on which of these channels within the window they opened."""
        people = {one.row.customer_id for one, _, verdict in may_go if verdict.channel in ("whatsapp", "messenger")}
        if not people:
            return set()
        c = _events.c
        query = select(c.customer_id, c.detail).where(
            among(c.customer_id, people),
            c.kind.in_(WROTE),
            c.at > self.chunk.now - CONVERSATION,
            c.at <= self.chunk.now,
        )
        return {(customer, str(detail.get("channel"))) for customer, detail in self.connection.execute(query)}


# --- writing ---------------------------------------------------------------------------------------

_GOING = (
    "UPDATE messages SET status = 'sending', channel = ?, contact_id = ?, purpose = ?, sent_at = ?, release = ?,"
    " attempts = ?, lease_until = ? WHERE id = ? AND status = 'planned' AND claim = ?"
)


def _write_sending(connection: Connection, chunk: Chunk, ready: Sequence[Ready]) -> None:
    if not ready:
        return
    now, until = store.micros(chunk.now), store.micros(chunk.lease_until)
    going = [
        (
            one.outgoing.channel,
            one.contact_id,
            one.outgoing.purpose,
            now,
            chunk.loaded.number,
            one.going.row.attempts + 1,
            until,
            one.going.row.id,
            chunk.token,
        )
        for one in ready
    ]
    run_many(connection, _GOING, going)
    contents.forget(connection, [one.going.row.id for one in ready if one.going.row.attempts])
    links = [
        (link.token, one.going.row.id, link.kind, link.target) for one in ready for link in one.outgoing.content.links
    ]
    store.add_links(connection, links)
    contents.keep(connection, [(one.going.row.id, one.outgoing.content) for one in ready], chunk.now)


def write_staying(connection: Connection, chunk: Chunk, stay: Sequence[Stays], tally: Tally) -> None:
    """Write why each of these did not go, and count it."""
    if not stay:
        return
    changes = []
    for row, verdict in stay:
        values, counted = _staying(row, verdict, chunk.now)
        changes.append({"of": row.id, **values})
        tally[counted] += 1
    c = _messages.c
    update_each(connection, changes, c.status == text("'planned'"), c.claim == chunk.token)


def _staying(row: Claimed, verdict: Verdict, now: datetime) -> Change:
    """The row's new values, and what to count it as."""
    if isinstance(verdict, Defer):
        return deferred(row, verdict, now)
    assert isinstance(verdict, End)  # noqa: S101  the third kind of verdict is not written here
    kind = {Status.EXPIRED: "expired", Status.FAILED: "failed"}.get(verdict.status, "skipped")
    values = {"status": verdict.status, "reason": verdict.reason, "detail": verdict.detail, **UNCLAIMED}
    return values | ({"blocked_by": verdict.blocked_by} if verdict.blocked_by else {}), (kind, verdict.reason)


def deferred(row: Any, verdict: Defer, now: datetime) -> Change:
    """
    Planned again, later; or expired, when that would be too late.

    A paused campaign's message keeps its place: it is not claimed before the campaign goes on. A
    task's is looked at again when nobody has taken it by its expiry.
    """
    why = {"blocked_by": verdict.reason, "detail": verdict.detail, **UNCLAIMED}
    if verdict.reason is Reason.PAUSED:
        return {"ready_at": min(row.ready_at, now), **why}, ("deferred", Reason.PAUSED)
    if verdict.reason is Reason.PERSON:
        return {"ready_at": verdict.until, "channel": verdict.detail, **why}, ("deferred", Reason.PERSON)
    until = max(verdict.until, now + SOON)
    if until <= row.expires_at:
        return {"ready_at": until, **why}, ("deferred", verdict.reason)
    reason = Reason.NOT_RENDERED if verdict.reason is Reason.UNDEFINED else Reason.EXPIRED
    return {"status": Status.EXPIRED, "reason": reason, **why}, ("expired", reason)
