"""
A draft: what a manual send would do now, worked out with the real gates and templates.

Nothing is written. Whoever the gates would leave out at an enrolment (suppressed, unconsenting,
unreachable, with an open case, in the global holdout) is left out here, and written down as skipped
with the reason; what only keeps a message waiting is asked again by the dispatcher.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from outreach import clocks, coupons, facts, gates, releases, store, timing
from outreach.campaigns import Campaign
from outreach.channels import Outgoing
from outreach.conditions import minor_digits
from outreach.dispatcher import MANUAL, manual_campaign
from outreach.dispatcher.filling import fill, sender_of
from outreach.dispatcher.parts import Chunk, Claimed, Going
from outreach.errors import NotFound, OutreachError, Problems, ReleaseError, TemplateError
from outreach.facts import Item
from outreach.gates import Defer, End, Facts, Send
from outreach.manual.people import People, Stranger, admit, meant, named
from outreach.models import Customer, ManualSend, Message, Reason, Status, table
from outreach.releases import Loaded
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import Database, in_chunks
from outreach.values import CHANNELS, CONTACT_KIND

USUAL = ("whatsapp", "sms", "email", "messenger")  # a person is only asked to call where the sender says so
PAGE = 500
FILLED = 1_000  # of messages that have no parts to count, as many are filled to see whether they can be
TWICE = "shares its address or number with another customer of this send"

_messages, _customers, _sends = table(Message), table(Customer), table(ManualSend)

Progress = Callable[[str, int, int], None]  # what, done, of how many


class Intended(NamedTuple):
    """One person of the send, and how the row begins: planned on a channel, or skipped with a reason."""

    customer_id: int  # 0: a stranger, not in the database yet
    external_id: str
    reason: str  # empty: planned
    detail: str
    channel: str | None = None  # that it would leave by now
    closed: tuple[str, ...] = ()  # that it must not leave by: somebody else of this send may get it there


@dataclass
class Amount:
    """Messages that leave by one channel, now or later, and their SMS segments."""

    messages: int = 0
    segments: int = 0


@dataclass(frozen=True)
class Shown:
    """A message as somebody would read it."""

    customer: str
    channel: str
    sender: str
    subject: str
    text: str
    has_html: bool


@dataclass
class Waits:
    """People who would not get it now, for one reason."""

    reason: str
    waits: bool  # later, if the reason passes; else never
    people: int = 0
    until: datetime | None = None  # the earliest of them
    detail: str = ""  # of one of them


@dataclass
class Draft:
    """What the send would do."""

    loaded: Loaded
    campaign: Campaign
    now: datetime
    continues: int = 0  # the send whose rows were not all written, if it is to be completed
    intended: list[Intended] = field(default_factory=list)
    strangers: Mapping[str, Stranger] = field(default_factory=dict)  # by external id
    amounts: dict[str, Amount] = field(default_factory=dict)  # by channel, in the order they are tried
    not_now: dict[tuple[str, bool], Waits] = field(default_factory=dict)
    first: Shown | None = None
    drafted: tuple[float, float] = field(default_factory=clocks.read)

    @property
    def template(self) -> str:
        return self.campaign.steps[0].template

    @property
    def messages(self) -> int:
        """How many would leave, now or later."""
        return sum(amount.messages for amount in self.amounts.values())

    @property
    def waiting(self) -> int:
        return sum(one.people for one in self.not_now.values() if one.waits)

    @property
    def segments(self) -> int:
        return sum(amount.segments for amount in self.amounts.values())

    @property
    def cost(self) -> Decimal | None:
        """What they cost by `costs` of the settings; None where those name none of the channels."""
        return cost(self.loaded.settings, self.amounts)


def cost(settings: Settings, amounts: Mapping[str, Amount]) -> Decimal | None:
    """The cost of these messages in the business's currency, to its minor unit; a channel without one is free."""
    costs = [_rate(settings, channel, amount) for channel, amount in amounts.items() if channel in settings.costs]
    if not costs:
        return None
    smallest = Decimal(1).scaleb(-minor_digits(settings.business.currency))
    return sum(costs, Decimal()).quantize(smallest, ROUND_HALF_UP)


def _rate(settings: Settings, channel: str, amount: Amount) -> Decimal:
    number, _, unit = settings.costs[channel].partition(" ")
    parts = amount.segments if unit.split()[-1:] == ["segment"] and amount.segments else amount.messages
    return Decimal(number) * parts


# --- what is sent --------------------------------------------------------------------------------


def draft(
    db: Database,
    settings: Settings,
    now: datetime,
    template: str,
    *,
    to: Sequence[str] = (),
    where: str | None = None,
    channels: Sequence[str] = (),
    purpose: str = "marketing",
    continues: int = 0,
    progress: Progress | None = None,
) -> Draft:
    """
    What sending the template of the release in force to these people would do at `now`.

    `continues` is the number of a send that was cut off while its rows were written: whoever has
    one already is left as they are.

    Without `channels`, those that are configured and that the template has a file for; if only
    addresses are named, all e-mail or all numbers, the channels that reach those.

    Raises:
        ReleaseError: nothing is published.
        NotFound: there is no such template or customer, or nobody at all is meant.
        Problems: the template cannot be sent to a customer for this purpose.
        ConditionError: `where` cannot be understood.
    """
    loaded = releases.current(db, settings)
    if loaded is None:
        raise ReleaseError("nothing is published yet, and only what is published is sent: run `outreach publish` first")
    with store.read(db) as connection:
        people = (
            meant(connection, loaded.settings, where, now) if where is not None else named(connection, db, settings, to)
        )
    if not people:
        raise NotFound(
            "nobody would get it: the condition holds for no customer"
            if where is not None
            else "nobody is named by --to"
        )
    tried = _channels(loaded, template, channels, people.kinds, purpose)
    made = Draft(
        loaded, manual_campaign(template, tried, purpose), now, continues, amounts={c: Amount() for c in tried}
    )
    drafting = _Drafting(db, made, progress or (lambda *_: None))
    drafting.run(drafting.without_a_row(people) if continues else people)
    if not made.intended:
        raise NotFound("nobody would get it: whoever was meant has just been merged or erased")
    return made


def _channels(
    loaded: Loaded, template: str, asked: Sequence[str], kinds: Iterable[str], purpose: str
) -> tuple[str, ...]:
    configured, templates = loaded.settings.channels, loaded.templates
    for channel in asked:
        if channel not in configured:
            raise OutreachError(f"the channel {channel} is not configured: there are {', '.join(configured) or 'none'}")
    has = [channel for channel in CHANNELS if templates.path(template, channel, None)]
    if not has:
        raise NotFound(_no_template(loaded, template))
    kinds = set(kinds)
    usual = [c for c in USUAL if c in has and c in configured and (not kinds or CONTACT_KIND.get(c) in kinds)]
    tried = tuple(dict.fromkeys(asked or usual))
    if not tried:
        reach = f" that reaches {'an e-mail address' if kinds == {'email'} else 'a number'}" if kinds else ""
        raise NotFound(
            f"the template {template} is written for {', '.join(has)}, and no such channel{reach} is configured"
            + (": ask for one with --channel" if set(has) & set(configured) else "")
        )
    found = templates.problems(template, tried, purpose=purpose, position=(f"release {loaded.number}", 0, 0))
    if problems := [problem for problem in found if not problem.warning]:
        raise Problems(problems)
    return tried


def _no_template(loaded: Loaded, template: str) -> str:
    hints = [
        problem.hint for channel in CHANNELS for problem in loaded.templates.problems(template, [channel])
        if problem.hint.startswith("did you mean")
    ]  # fmt: skip
    near = f" ({hints[0]})" if hints else ""
    return (
        f"release {loaded.number} has no template {template!r}{near}: if its file is new, run `outreach publish` first"
    )


# --- to whom -------------------------------------------------------------------------------------


class _Drafting:
    """Judges the people page by page, and adds up."""

    def __init__(self, db: Database, made: Draft, progress: Progress) -> None:
        self.db, self.made, self.progress = db, made, progress
        self.settings, self.now, self.step = made.loaded.settings, made.now, made.campaign.steps[0]
        self.expires_at = timing.add(self.now, self.step.expires, self.settings.business.timezone)
        self.spoken_for: set[int] = set()  # contacts that one of this send's messages may go to, or might yet
        self.filled: Counter[str] = Counter()

    def without_a_row(self, people: People) -> People:
        """Those of the people who have none in the send that is continued; the others' contacts are spoken for."""
        number, kinds = self.made.continues, {CONTACT_KIND.get(channel) for channel in self.step.channels}
        with store.read(self.db) as connection:
            begun = connection.execute(select(_sends).where(_sends.c.id == number)).first()
            if begun is None:
                raise NotFound(f"there is no send {number}")
            if (begun.template, tuple(begun.channels), begun.purpose) != (
                self.step.template, self.step.channels, self.step.purpose
            ):  # fmt: skip
                by = ", ".join(begun.channels)
                raise OutreachError(f"send {number} is another one: {begun.template} by {by}, {begun.purpose}")
            m, c = _messages.c, _customers.c
            query = select(c.id, c.email_id, c.phone_id, m.status).join(_messages, m.customer_id == c.id)
            rows = connection.execute(
                query.where(m.campaign == MANUAL, m.created_at >= begun.at, m.record_id == number)
            ).all()
        for row in rows:
            if row.status != Status.SKIPPED:
                own = {"email": row.email_id, "phone": row.phone_id}
                self.spoken_for |= {contact for kind, contact in own.items() if kind in kinds and contact is not None}
        written = {row.id for row in rows}
        left = replace(people, known=tuple(customer for customer in people.known if customer not in written))
        if not left:
            raise NotFound(f"send {number} is complete: everybody meant has a row")
        return left

    def run(self, people: People) -> None:
        done = 0
        for ids in in_chunks(people.known, PAGE):
            with store.read(self.db) as connection:
                self._page(connection, ids)
            done += len(ids)
            self.progress("looking", done, len(people))
        if people.strangers:
            self.made.strangers = {one.external_id: one for one in people.strangers}
            with _undone(self.db) as connection:
                self._page(connection, list(admit(connection, people.strangers).values()))
        self.made.intended = [
            one._replace(customer_id=0) if one.external_id in self.made.strangers else one for one in self.made.intended
        ]
        self.made.amounts = {channel: amount for channel, amount in self.made.amounts.items() if amount.messages}

    def _page(self, connection: Connection, ids: Sequence[int]) -> None:
        items = [self._item(customer) for customer in ids]
        people: dict[int, dict[str, Any]] = {}
        found = facts.fetch(connection, self.settings, items, self.now, secret=self.db.secret, rows=people)
        going: list[tuple[Item, Facts, str]] = []
        for item, one in zip(items, found, strict=True):
            if one.withdrawn is not None:  # merged or erased this very moment
                continue
            person = self._judged(item, one)
            self.made.intended.append(person)
            if person.channel is None:
                self._count(person.reason, waits=False, detail=person.detail)
            else:
                item.refused = frozenset(person.closed)
                going.append((item, one, person.channel))
        contexts = facts.contexts(connection, self.settings, [item for item, _, _ in going], people) if going else []
        for (item, one, channel), context in zip(going, contexts, strict=True):
            self._leaving(item, one, channel, context)

    def _item(self, customer: int) -> Item:
        now = self.now
        return Item(self.made.campaign, self.step, customer, None, "manual", now, now, self.expires_at)

    def _judged(self, item: Item, one: Facts) -> Intended:
        """
        Whether a message is planned: nobody's goes to a contact that an earlier person's may go to.

        Whose best contact is spoken for gets none; who shares only a further one is kept from that
        one, also where it is not open to them now but may be when the message leaves.
        """
        reason = gates.judge(one, facts.rules(item), self.settings, self.db.secret)
        if reason is not None:
            return Intended(item.customer_id, one.external_id, reason.value, "")
        contacts = {
            channel: one.contacts[channel].contact_id for channel in self.step.channels if channel in one.contacts
        }
        channels = permitted(one, item, self.settings, self.db.secret)
        if contacts[channels[0]] in self.spoken_for:
            return Intended(item.customer_id, one.external_id, Reason.AT_MOST.value, TWICE)
        closed = tuple(channel for channel, contact in contacts.items() if contact in self.spoken_for)
        self.spoken_for |= set(contacts.values())
        return Intended(item.customer_id, one.external_id, "", "", channels[0], closed)

    def _leaving(self, item: Item, one: Facts, channel: str, context: Mapping[str, Any]) -> None:
        """Count a message that leaves now, later or never, and keep the first that leaves now."""
        verdict = gates.decide(one, facts.rules(item), self.settings, self.now)
        if isinstance(verdict, End):
            self._count(verdict.reason.value, waits=False, detail=verdict.detail)
            return
        if self.settings.channels[channel].provider == STAFF and isinstance(verdict, Send):
            verdict = Defer(self.expires_at, Reason.PERSON, channel)
        outgoing = None
        if channel == "sms" or self.made.first is None or self.filled[channel] < FILLED:
            self.filled[channel] += 1
            try:
                outgoing = filled(self.db, self.made.loaded, item, one, channel, context, self.now)
            except TemplateError as error:
                self._count(Reason.UNDEFINED.value, waits=True, detail=f"{error.template}, line {error.line}")
                return
        amount = self.made.amounts[channel]
        amount.messages += 1
        amount.segments += outgoing.content.segments if outgoing else 0
        if isinstance(verdict, Defer):
            until = None if verdict.reason in (Reason.PERSON, Reason.PAUSED) else verdict.until
            self._count(verdict.reason.value, waits=True, until=until, detail=verdict.detail)
        if outgoing is not None and self.made.first is None:
            self.made.first = shown(one.external_id, outgoing)

    def _count(self, reason: str, *, waits: bool, until: datetime | None = None, detail: str = "") -> None:
        one = self.made.not_now.setdefault((reason, waits), Waits(reason, waits, detail=detail))
        one.people += 1
        if until is not None:
            one.until = until if one.until is None else min(one.until, until)


@contextmanager
def _undone(db: Database) -> Iterator[Connection]:
    """A writing transaction of which nothing remains."""
    with store.write(db) as connection:
        yield connection
        connection.rollback()


# --- one message ---------------------------------------------------------------------------------


def permitted(found: Facts, item: Item, settings: Settings, secret: bytes) -> tuple[str, ...]:
    """The channels it may leave by: those that neither suppression nor consent nor a missing address closes."""
    closing = (Reason.SUPPRESSED, Reason.NO_CONSENT, Reason.UNREACHABLE)
    rules = facts.rules(item)
    return tuple(
        channel
        for channel in rules.channels
        if gates.judge(found, replace(rules, channels=(channel,)), settings, secret) not in closing
    )


def filled(
    db: Database,
    loaded: Loaded,
    item: Item,
    found: Facts,
    channel: str,
    context: Mapping[str, Any],
    now: datetime,
    *,
    public_id: str = "preview",
    coupon: coupons.Given | None = None,
) -> Outgoing:
    """
    The message as the dispatcher would hand it over; its links lead nowhere, since nobody keeps them.

    Raises:
        TemplateError: the template names what this customer lacks, or cannot be filled.
    """
    contact = found.contacts.get(channel)
    to = Send(channel, contact.contact_id if contact else 0, contact.address if contact else "")
    chunk = Chunk(loaded, "", now, now)
    going = Going(_unwritten(public_id, item), item, facts.rules(item))
    sender = sender_of(loaded.settings, channel, to.contact_id)
    return fill(db, chunk, going, found, to, context, sender=sender, conversation=False, coupon=coupon).outgoing


def _unwritten(public_id: str, item: Item) -> Claimed:
    """A message that is in no table yet."""
    return Claimed(
        id=0,
        public_id=public_id,
        campaign=item.campaign.name,
        step=item.step.id,
        customer_id=item.customer_id,
        record_id=item.record_id,
        occasion=item.occasion,
        occasion_at=item.occasion_at,
        due_at=item.due_at,
        expires_at=item.expires_at,
        ready_at=item.due_at,
        created_at=item.due_at,
        look_at=None,
        arm=item.arm,
        purpose=item.step.purpose,
        refused="",
        attempts=0,
    )


def shown(customer: str, outgoing: Outgoing) -> Shown:
    """The message as it is shown to the person who sends it."""
    content = outgoing.content
    return Shown(customer, outgoing.channel, outgoing.sender, content.subject, content.text, content.has_html)
