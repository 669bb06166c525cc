"""Looking: which messages are in doubt, who could know what became of them, and what those say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, select, text

from outreach.campaigns import RESERVED as MANUAL
from outreach.channels import Channel, Channels, Doubtful, Silent
from outreach.errors import ChannelError
from outreach.models import (
    EPOCH,
    Contact,
    Customer,
    Installation,
    ManualSend,
    Message,
    MessageContent,
    MessageEvent,
    table,
)
from outreach.reconciler import deciding
from outreach.reconciler.deciding import EVIDENCE, ROOM, Answer, Attempt, Why
from outreach.releases import Loaded
from outreach.setting_keys import STAFF
from outreach.settings import ChannelSettings, Settings
from outreach.store import among
from outreach.values import CONTACT_KIND

_messages, _contents, _contacts = table(Message), table(MessageContent), table(Contact)
_customers, _events, _manual = table(Customer), table(MessageEvent), table(ManualSend)
_installation = table(Installation)

UNKNOWN = text("messages.status = 'unknown'")  # a literal: only then do both databases use the partial index


@dataclass(frozen=True, slots=True)
class Place:
    """A channel by which a message may have gone, and to whom."""

    channel: str
    contact_id: int
    address: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """One message in doubt, as it was before anybody was asked."""

    row: Any
    attempt: Attempt
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class World:
    """What is the same for all messages of one look."""

    settings: Settings
    loaded: Loaded | None  # the release in force
    backup_at: datetime | None
    restored_at: datetime | None
    account_since: Mapping[str, datetime]  # by channel: since when it leads to the account it leads to now


@dataclass(slots=True)
class Said:
    """What came of asking about one message."""

    answers: list[Answer] = field(default_factory=list)
    trouble: tuple[Why, str] | None = None  # why there is no answer, or not every one


def restored(connection: Connection) -> tuple[datetime | None, datetime | None]:
    """When the backup was made that this database was restored from, and when that was; None: it never was."""
    row = connection.execute(select(_installation.c.backup_at, _installation.c.restored_at)).first()
    return (row.backup_at, row.restored_at) if row is not None else (None, None)


# --- which ---------------------------------------------------------------------------------------------

_ROWS = (
    select(_messages, _contacts.c.address, _contents.c.text)
    .outerjoin(_contacts, _contacts.c.id == _messages.c.contact_id)
    .outerjoin(_contents, _contents.c.message_id == _messages.c.id)
    .where(UNKNOWN)
)
_TOLD = select(_events.c.id).where(_events.c.message_id == _messages.c.id, _events.c.kind.in_(sorted(EVIDENCE)))
# In the order of the partial index: in any other, SQLite would go through all messages.
_HEARD = select(_messages.c.id).where(UNKNOWN, _TOLD.exists()).order_by(_messages.c.look_at)


def due(connection: Connection, now: datetime, size: int, seen: Collection[int]) -> list[Any]:
    """At most `size` messages that are to be looked for by now, the longest due first, without those already `seen`."""
    c = _messages.c
    query = _ROWS.where(c.look_at <= now).order_by(c.look_at, c.id).limit(size + len(seen))
    return [row for row in connection.execute(query) if row.id not in seen][:size]


def heard_of(connection: Connection) -> list[int]:
    """
    The messages in doubt about which a provider has told us something, also those nobody looks for any more.

    Costs a probe of an index for each message in doubt.
    """
    return list(connection.execute(_HEARD).scalars())


def of_ids(connection: Connection, ids: Iterable[int]) -> list[Any]:
    """These of the messages in doubt."""
    return list(connection.execute(_ROWS.where(among(_messages.c.id, ids)).order_by(_messages.c.id)))


# --- who could know ------------------------------------------------------------------------------------


def doubts(connection: Connection, world: World, rows: Sequence[Any]) -> list[Doubt]:
    """What is known of each of the messages, and who could know more."""
    lost = [row for row in rows if row.contact_id is None]
    people = addresses(connection, {row.customer_id for row in lost})
    sends = _sends(connection, {row.record_id for row in lost if row.campaign == MANUAL})
    return [Doubt(row, attempt(world, row), _places(world, row, people, sends)) for row in rows]


def attempt(world: World, row: Any) -> Attempt:
    """The attempt that is in doubt; after a restore, whatever may have followed the backup."""
    timeout = _timeout(world.settings, row.channel)
    before = row.sent_at is None or (world.restored_at is not None and row.sent_at <= world.restored_at)
    began = row.sent_at or world.backup_at or row.created_at
    ended = max(began, world.restored_at or row.due_at) if before else began
    return Attempt(
        public_id=row.public_id,
        text=row.text,
        began=row.sent_at,
        since=began - ROOM,
        until=deciding.until(ended, timeout),
        first=row.attempts <= (1 if row.sent_at else 0) and not row.refused,
        before_restore=before,
        same_provider=row.sent_at is not None and row.sent_at > world.account_since.get(row.channel, EPOCH),
    )


def _timeout(settings: Settings, channel: str | None) -> timedelta:
    configured = settings.channels.get(channel or "") or ChannelSettings()
    return timedelta(seconds=configured.timeout)


def _places(
    world: World, row: Any, people: Mapping[int, Mapping[str, Place]], sends: Mapping[int, Any]
) -> tuple[Place, ...]:
    if row.contact_id is not None:
        return (Place(row.channel, row.contact_id, row.address),) if row.address else ()
    own = people.get(row.customer_id, {})
    channels = _step_channels(world, row, sends) or ((row.channel,) if row.channel else ())
    kinds = [(channel, own.get(CONTACT_KIND[channel])) for channel in channels if channel in world.settings.channels]
    return tuple(Place(channel, place.contact_id, place.address) for channel, place in kinds if place is not None)


def _step_channels(world: World, row: Any, sends: Mapping[int, Any]) -> tuple[str, ...]:
    """Every channel that the release in force, or the manual send, could have used."""
    if row.campaign == MANUAL:
        return tuple(sends[row.record_id].channels) if row.record_id in sends else ()
    step = step_of(world.loaded, row)
    return tuple(step.channels) if step is not None else ()


def step_of(loaded: Loaded | None, row: Any) -> Any:
    """The message's step in the release, if it still has it."""
    campaign = loaded.campaigns.get(row.campaign) if loaded is not None else None
    return next((step for step in campaign.steps if step.id == row.step), None) if campaign is not None else None


def _sends(connection: Connection, ids: set[int | None]) -> dict[int, Any]:
    known = [i for i in ids if i is not None]
    query = select(_manual).where(among(_manual.c.id, known))
    return {row.id: row for row in connection.execute(query)} if known else {}


def addresses(connection: Connection, customers: Collection[int]) -> dict[int, dict[str, Place]]:
    """Of each of the customers, by kind of contact, where they can be reached; the places' channel is left open."""
    found: dict[int, dict[str, Place]] = {}
    if not customers:
        return found
    for kind in ("email", "phone", "messenger"):
        for row in connection.execute(_contact_of(kind).where(among(_customers.c.id, customers))):
            found.setdefault(row.customer, {})[kind] = Place("", row.id, row.address)
    return found


def _contact_of(kind: str) -> Select[Any]:
    return (
        select(_customers.c.id.label("customer"), _contacts.c.id, _contacts.c.address)
        .join(_contacts, _contacts.c.id == _customers.c[f"{kind}_id"])
        .where(_contacts.c.address.is_not(None))
    )


# --- asking --------------------------------------------------------------------------------------------


def ask(batch: Sequence[Doubt], world: World, channels: Channels, now: datetime) -> dict[int, Said]:
    """
    Ask every provider that could know, once for each channel; gives what was said, by message id.

    Nothing is raised: what is wrong with one channel is no reason not to ask the others.
    """
    said = {one.row.id: Said() for one in batch}
    for one in batch:
        if not one.places:
            said[one.row.id].trouble = (Why.NOBODY, "its address is no longer known here")
    for channel in sorted({place.channel for one in batch for place in one.places}):
        asked = [(one, place) for one in batch for place in one.places if place.channel == channel]
        _ask_one(channel, asked, said, world, channels, now)
    return said


def _ask_one(
    channel: str,
    asked: Sequence[tuple[Doubt, Place]],
    said: dict[int, Said],
    world: World,
    channels: Channels,
    now: datetime,
) -> None:
    configured = world.settings.channels.get(channel)
    by_staff = configured is not None and configured.provider == STAFF
    trouble = None if by_staff else _answers(channel, asked, said, world, channels, now)
    for one, _ in asked:
        if by_staff:
            said[one.row.id].trouble = _OF_TASK if one.row.claim is not None else _OF_FORMER_TASK
        elif trouble is not None and all(answer.channel != channel for answer in said[one.row.id].answers):
            said[one.row.id].trouble = trouble


_OF_TASK = (Why.PERSON, "a person has it, who says what became of it with `outreach tasks done`")
_OF_FORMER_TASK = (Why.NOBODY, "only the person whose task it may have been knows: `outreach resolve`")


def _answers(
    channel: str,
    asked: Sequence[tuple[Doubt, Place]],
    said: dict[int, Said],
    world: World,
    channels: Channels,
    now: datetime,
) -> tuple[Why, str] | None:
    """Note what the provider says; gives why it does not say it all, if so."""
    ids = {one.row.public_id: one.row.id for one, _ in asked}
    doubtful = [
        Doubtful(one.row.public_id, channel, place.address, one.attempt.text, one.attempt.since, one.attempt.until)
        for one, place in sorted(asked, key=lambda each: each[1].address)  # the same recipient's stand together
    ]
    try:
        provider = channels.get(channel, world.settings)
        if not can_be_asked(provider):
            name = world.settings.channels[channel].provider
            return Why.NOBODY, f"{name} cannot be asked what became of a message"
        for kept in provider.look_up(doubtful):
            if kept.public_id in ids:
                said[ids[kept.public_id]].answers.append(Answer(channel, kept, now))
    except ChannelError as error:
        return Why.CHANNEL, f"it could not be looked for: {error}"
    except Exception as error:  # of a provider's file; its own text may hold anything
        return Why.NO_ANSWER, f"the provider could not be asked ({type(error).__name__})"
    return Why.NO_ANSWER, "the provider did not answer"


def can_be_asked(provider: Channel) -> bool:
    """Whether the provider's file can ask at all; those written before it was invented cannot."""
    look_up = getattr(type(provider), "look_up", None)
    return look_up is not None and look_up is not Silent.look_up
