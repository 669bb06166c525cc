"""
The tables, and every closed list of words that is stored.

Times are stored as integer microseconds since 1970 UTC (`UtcTime`): the same arithmetic and the
same SQL on SQLite and PostgreSQL, and aware datetimes in Python. Money is integer minor units
beside its currency. Uniqueness never rests on a nullable column.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text, TypeDecorator, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

BigId = BigInteger().with_variant(Integer(), "sqlite")


def to_micros(at: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime; ValueError for a naive one."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be stored")
    return (at - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of stored microseconds."""
    return EPOCH + micros * _MICROSECOND  # half the cost of making the timedelta by name


@lru_cache(maxsize=10_000)  # rows that were written together have most of their times in common
def _from_stored(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + micros * _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as integer microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def result_processor(self, _dialect: Dialect, _coltype: object) -> Callable[[int | None], datetime | None]:
        """By itself, not around that of `impl`: a row of ours has half a dozen times."""
        return _from_stored


def table(model: type[SQLModel]) -> Table:
    """The Core table that a model declares."""
    found: Table = model.__table__  # type: ignore[attr-defined]
    return found


class Status(StrEnum):
    """Where a message stands. Facts after sending are events, not statuses."""

    PLANNED = "planned"  # planner: due, waiting for dispatch (a deferred message stays planned)
    SENDING = "sending"  # dispatcher: committed just before the hand-over to the channel
    SENT = "sent"  # dispatcher, reconciler: the provider accepted it; or a person said so
    FAILED = "failed"  # dispatcher: refused for good on every channel of the step; or a person dropped it
    UNKNOWN = "unknown"  # dispatcher: it may have gone out; the reconciler or a person settles it
    HELD = "held"  # planner: the holdout arm, deliberately not contacted
    SKIPPED = "skipped"  # planner, dispatcher: a rule ended it, see reason
    EXPIRED = "expired"  # planner, dispatcher: its time passed, see reason and blocked_by
    CANCELLED = "cancelled"  # planner, cli: withdrawn before anything was sent


class Reason(StrEnum):
    """Why somebody was not contacted, or not yet. The closed list of every non-send."""

    # ends an occasion or a message
    SUPPRESSED = "suppressed"  # a do-not-contact entry in force for the purpose and channel
    NO_CONSENT = "no_consent"  # no channel of the step has the consent its purpose needs
    UNREACHABLE = "unreachable"  # no usable address for any channel of the step
    CASE_OPEN = "case_open"  # another case of the customer is open (marketing)
    GLOBAL_HOLDOUT = "global_holdout"  # the customer is in the installation-wide holdout (marketing)
    AT_MOST = "at_most"  # the campaign took this customer up too recently, or another record with the same address
    HOLDOUT = "holdout"  # the campaign's own holdout arm
    UNLESS = "unless"  # the step's `unless` came true
    STOPPED = "stopped"  # the campaign's `stop_when` came true
    LATE_DATA = "late_data"  # the record arrived after the step's expiry
    MISSED = "missed"  # an occurrence that passed while nothing ran
    EXPIRED = "expired"  # could not leave before its expiry; blocked_by names the last obstacle
    WITHDRAWN = "withdrawn"  # the step or campaign left the release, or is switched off
    CANCELLED = "cancelled"  # a person cancelled the campaign or step
    RECORD_CLEARED = "record_cleared"  # the time that fired the trigger was taken back
    CUSTOMER_GONE = "customer_gone"  # the customer was merged into another or erased
    ENDED = "ended"  # the campaign's `ends` has passed
    ONLY_TO = "only_to"  # a rehearsal (`only_to`) is on and the address is not in it
    NO_COUPON = "no_coupon"  # the customer may have no coupon of the step's offer: has had it, or has a better one
    REFUSED = "refused"  # the provider refused the address for good
    TEXT_REFUSED = "text_refused"  # the provider refused this very text
    GAVE_UP = "gave_up"  # refused for now too often, or nobody answered the phone
    NOT_RENDERED = "not_rendered"  # the template could not be filled before the expiry
    DROPPED = "dropped"  # it was in doubt, and a person gave it up
    # only defers a message (blocked_by), until it passes or expires
    HOURS = "hours"  # outside sending hours in some zone the customer may be in
    NO_ZONE = "no_zone"  # no time zone is known and the settings name none
    CAP = "cap"  # a frequency cap is full
    PAUSED = "paused"  # the campaign is paused
    CHANNEL = "channel"  # the channel cannot send now
    RATE = "rate"  # its sender or provider may not send faster
    PERSON = "person"  # a task that waits for a person to call or visit
    UNDEFINED = "undefined"  # the template names something this customer lacks
    RETRY = "retry"  # refused for now; a later attempt is certain not to double it


class Scope(StrEnum):
    """What a suppression blocks (DESIGN 3.4)."""

    MARKETING = "marketing"  # national lists: marketing
    CONTACT = "contact"  # opt-out, complaint: service, marketing; transactional on its channel
    ADDRESS = "address"  # hard bounce, erased: everything, or everything on one channel


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index over the rows alone for which the condition holds, on both databases."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class Installation(SQLModel, table=True):
    """One row: who this database is."""

    __tablename__ = "installation"
    id: int = Field(primary_key=True)  # always 1
    secret: str  # keys hashes, arms and ids when OUTREACH_SECRET is not set; else empty
    secret_check: str  # fingerprint of the secret in use: another secret is refused
    timezone: str  # the business zone the roll-up was made in
    host: str = ""  # the machine and folder that `run` sends from
    newest: datetime | None = Field(default=None, sa_type=UtcTime)  # newest `now` a stage has seen
    look_back: int = 60  # days: how old a changed event time may be and still reach `fresh`
    backup_at: datetime | None = Field(
        default=None, sa_type=UtcTime
    )  # when the backup was made that this was restored from
    restored_at: datetime | None = Field(default=None, sa_type=UtcTime)  # what was due between the two may have left


class Contact(SQLModel, table=True):
    """One address. Consent, suppression and caps hang here, not on the customer."""

    __tablename__ = "contacts"
    __table_args__ = (UniqueConstraint("kind", "address_hash", name="uq_contacts_address"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    kind: str  # email | phone | messenger
    address: str | None  # normalised; None once erased
    address_hash: str  # keyed hash, 32 hex digits


class Customer(SQLModel, table=True):
    """A customer of the shop."""

    __tablename__ = "customers"
    __table_args__ = (
        _partial("ix_customers_email", "email_id", where="email_id IS NOT NULL"),
        _partial("ix_customers_phone", "phone_id", where="phone_id IS NOT NULL"),
        _partial("ix_customers_messenger", "messenger_id", where="messenger_id IS NOT NULL"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    external_id: str = Field(unique=True)
    email_id: int | None = Field(default=None, sa_type=BigId)
    phone_id: int | None = Field(default=None, sa_type=BigId)
    messenger_id: int | None = Field(default=None, sa_type=BigId)
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None
    country: str | None = None  # ISO 3166 alpha-2
    region: str | None = None
    city: str | None = None
    postal_code: str | None = None
    timezone: str | None = None  # IANA, as the shop gave it
    zones: str = ""  # candidate zones, space between, as `timing.candidate_zones` found them
    birthday: str | None = None  # ISO date
    created_at: datetime | None = Field(default=None, sa_type=UtcTime)
    tags: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    attributes: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    merged_into: int | None = Field(default=None, sa_type=BigId)  # its own id: erased, nobody's any more
    row_hash: bytes = b""  # of the imported row: equal means unchanged


class CustomerTag(SQLModel, table=True):
    """A tag of a customer, kept beside `customers.tags` so that `tagged()` is an indexed look-up."""

    __tablename__ = "customer_tags"
    customer_id: int = Field(primary_key=True, sa_type=BigId)
    tag: str = Field(primary_key=True)
    by_campaign: bool = False  # put on by a sent step; an import never takes it off


class CustomerDate(SQLModel, table=True):
    """A date of a customer (`birthday`, or an attribute that reads as a date), for date triggers."""

    __tablename__ = "customer_dates"
    __table_args__ = (
        Index("ix_customer_dates_on", "name", "on_date"),
        Index("ix_customer_dates_day", "name", "month_day"),
    )
    customer_id: int = Field(primary_key=True, sa_type=BigId)
    name: str = Field(primary_key=True)
    on_date: str  # ISO date
    month_day: int  # 100 * month + day


class CustomerStats(SQLModel, table=True):
    """What a customer's counted orders add up to, kept in the order's own transaction."""

    __tablename__ = "customer_stats"
    __table_args__ = (Index("ix_customer_stats_last", "last_order_at"),)
    customer_id: int = Field(primary_key=True, sa_type=BigId)
    orders_count: int = 0  # counted orders: not cancelled, amount over zero
    total_spent: int = Field(default=0, sa_type=BigInteger)  # minor units, orders in the business's currency only
    first_order_at: datetime | None = Field(default=None, sa_type=UtcTime)
    last_order_at: datetime | None = Field(default=None, sa_type=UtcTime)
    last_order_id: int | None = Field(default=None, sa_type=BigId)


class CustomerMonth(SQLModel, table=True):
    """The monthly roll-up: counted orders of a customer in a month of the business's time zone."""

    __tablename__ = "customer_months"
    __table_args__ = (Index("ix_customer_months_month", "month"), {"sqlite_with_rowid": False})
    customer_id: int = Field(primary_key=True, sa_type=BigId)
    month: int = Field(primary_key=True)  # 100 * year + month
    orders: int = 0
    spent: int = Field(default=0, sa_type=BigInteger)  # minor units, business's currency only


class Order(SQLModel, table=True):
    """An order of the shop."""

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_customer", "customer_id", "placed_at"),
        Index("ix_orders_placed", "placed_at"),
        Index(
            "ix_orders_uncounted", "placed_at", sqlite_where=text("counted = 0"), postgresql_where=text("NOT counted")
        ),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    external_id: str = Field(unique=True)
    customer_id: int = Field(sa_type=BigId)
    status: str | None = None
    placed_at: datetime = Field(sa_type=UtcTime)
    paid_at: datetime | None = Field(default=None, sa_type=UtcTime)
    shipped_at: datetime | None = Field(default=None, sa_type=UtcTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcTime)
    cancelled_at: datetime | None = Field(default=None, sa_type=UtcTime)
    refunded_at: datetime | None = Field(default=None, sa_type=UtcTime)
    currency: str
    total: int = Field(default=0, sa_type=BigInteger)  # minor units
    counted: bool = True  # counts as an order: not cancelled, amount over zero
    coupon_code: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    row_hash: bytes = b""


class OrderLine(SQLModel, table=True):
    """One line of an order."""

    __tablename__ = "order_lines"
    __table_args__ = {"sqlite_with_rowid": False}
    order_id: int = Field(primary_key=True, sa_type=BigId)
    number: int = Field(primary_key=True)  # from 1, in the file's order
    sku: str | None = None
    product: str | None = None
    category: str | None = None
    quantity: str | None = None  # decimal text, as given
    unit_price: int | None = Field(default=None, sa_type=BigInteger)  # minor units of the order's currency


class Case(SQLModel, table=True):
    """A complaint, cancellation, return, refund request or question."""

    __tablename__ = "cases"
    __table_args__ = (
        Index("ix_cases_customer", "customer_id"),
        _partial("ix_cases_open", "opened_at", where="closed_at IS NULL"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    external_id: str = Field(unique=True)  # the shop's; `oc-…` where we opened it
    customer_id: int = Field(sa_type=BigId)
    order_id: int | None = Field(default=None, sa_type=BigId)
    kind: str  # complaint | cancellation | return | refund | question
    category: str | None = None
    sku: str | None = None
    opened_at: datetime = Field(sa_type=UtcTime)
    answered_at: datetime | None = Field(default=None, sa_type=UtcTime)
    closed_at: datetime | None = Field(default=None, sa_type=UtcTime)
    outcome: str | None = None  # resolved | unresolved | kept | lost
    note: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    row_hash: bytes = b""
    due_at: datetime | None = Field(default=None, sa_type=UtcTime)  # its target time, fixed when it is opened
    assignee: str | None = None  # who of the shop looks after it
    opened_by: str = Field(
        default="import", sa_column_kwargs={"server_default": "import"}
    )  # reply | page | import | person
    reply_id: int | None = Field(default=None, sa_type=BigId)  # that opened it
    message_id: int | None = Field(default=None, sa_type=BigId)  # that the reply or the page answers
    reopened: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # times


class CaseNote(SQLModel, table=True):
    """One line of a case's log: what was done, by whom; never changed."""

    __tablename__ = "case_notes"
    __table_args__ = (Index("ix_case_notes_case", "case_id"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    case_id: int = Field(sa_type=BigId)
    key: str = Field(unique=True)  # of what made it: the same again writes nothing
    at: datetime = Field(sa_type=UtcTime)
    kind: str  # opened | joined | noted | assigned | answered | closed | reopened | overdue
    text: str = Field(default="", sa_type=Text)
    by: str = ""  # reply, page, import, overdue, or who of the shop
    order_id: int | None = Field(default=None, sa_type=BigId)  # that an opening named, as the next two
    category: str | None = None
    sku: str | None = None


class ShopEvent(SQLModel, table=True):
    """An event of the shop's own (a cart left behind), as the settings declare it."""

    __tablename__ = "shop_events"
    __table_args__ = (Index("ix_shop_events_name", "name", "at"), Index("ix_shop_events_customer", "customer_id", "at"))
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    external_id: str = Field(unique=True)
    customer_id: int = Field(sa_type=BigId)
    name: str
    at: datetime = Field(sa_type=UtcTime)
    attributes: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    row_hash: bytes = b""


class Consent(SQLModel, table=True):
    """
    One line of the append-only consent ledger.

    The consent in force for (contact, channel) is the line with the latest `at`; at the same
    instant a revocation wins. A file's grant is appended only where it is later than a recipient's
    own revocation.
    """

    __tablename__ = "consents"
    __table_args__ = (UniqueConstraint("contact_id", "channel", "at", "status", name="uq_consents_line"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    contact_id: int = Field(sa_type=BigId)
    channel: str
    status: str  # granted | revoked
    at: datetime = Field(sa_type=UtcTime)  # the consent's own date
    by: str  # shop (a file) | recipient (their own words) | person (the command line)
    basis: str = "consent"
    source: str = ""
    words: str = ""
    recorded_at: datetime = Field(sa_type=UtcTime)


class Suppression(SQLModel, table=True):
    """Who must not be contacted, by keyed hash, so that no customer or contact need exist."""

    __tablename__ = "suppressions"
    __table_args__ = (UniqueConstraint("address_hash", "kind", "scope", "channel", name="uq_suppressions_entry"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    address_hash: str
    kind: str  # email | phone | messenger
    scope: str  # Scope
    channel: str = ""  # scope contact: where it was said; scope address: the only one it blocks, empty for all
    source: str = ""
    at: datetime = Field(sa_type=UtcTime)
    lifted_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Fresh(SQLModel, table=True):
    """
    The queue from which `plan` enrols: an event time that was set, changed or cleared.

    Ids grow in commit order (writers hold `store.lock(Lock.FRESH)`), so one number per campaign
    says what it has consumed.
    """

    __tablename__ = "fresh"
    __table_args__ = (Index("ix_fresh_kind", "kind", "id"), {"sqlite_autoincrement": True})  # an id never comes back
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    kind: str  # order.placed … order.refunded, customer.created, customer.last_order, customer.dates, case.opened, case.closed, survey.answered, reply.received, event.NAME
    record_id: int = Field(sa_type=BigId)  # of the order, customer, case or shop event
    customer_id: int = Field(sa_type=BigId)
    at: datetime | None = Field(sa_type=UtcTime)  # None: the time was cleared


class Release(SQLModel, table=True):
    """A published, immutable snapshot; its id is its number. The highest is current."""

    __tablename__ = "releases"
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    published_at: datetime = Field(sa_type=UtcTime)
    files: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))  # path → text
    files_hash: str
    note: str = ""


class CampaignState(SQLModel, table=True):
    """What is remembered of a campaign between ticks."""

    __tablename__ = "campaign_states"
    name: str = Field(primary_key=True)
    first_published_at: datetime = Field(sa_type=UtcTime)
    fresh_id: int = Field(default=0, sa_type=BigId)  # the last `fresh` row consumed
    cursor: datetime = Field(sa_type=UtcTime)  # time triggers: occasions up to here are enrolled
    cursor_customer: int = Field(
        default=0, sa_type=BigId
    )  # within a schedule's or date's occurrence that is being enrolled
    backfill: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSON, nullable=False)
    )  # older occasions still owed
    brake: int | None = None  # the count confirmed at publish, for dated, scheduled and backfilled ones
    paused_at: datetime | None = Field(default=None, sa_type=UtcTime)
    paused_reason: str = ""
    resumed_at: datetime | None = Field(default=None, sa_type=UtcTime)  # the brake counts from here
    look_again: bool = False  # the release changed its steps: wake its enrolments
    experiment: str = Field(
        default="", sa_column_kwargs={"server_default": ""}
    )  # that its arms are drawn by where the file names none; empty: its own name


class StepState(SQLModel, table=True):
    """When a step was first published: it plans only due times from then on."""

    __tablename__ = "step_states"
    campaign: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    first_published_at: datetime = Field(sa_type=UtcTime)
    cancelled_at: datetime | None = Field(
        default=None, sa_type=UtcTime
    )  # `outreach cancel`: later due times end as cancelled
    undefined: int = 0  # undefined-variable deferrals in a row; five pause the campaign


class Enrolment(SQLModel, table=True):
    """One immutable row per campaign, customer and occasion. `wake_at` alone changes: an index hint."""

    __tablename__ = "enrolments"
    __table_args__ = (
        UniqueConstraint("campaign", "customer_id", "occasion", name="uq_enrolments_occasion"),
        Index("ix_enrolments_experiment", "experiment", "customer_id"),
        _partial("ix_enrolments_wake", "campaign", "wake_at", where="wake_at IS NOT NULL"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    campaign: str
    customer_id: int = Field(sa_type=BigId)
    occasion: str  # `order.delivered:17`: trigger and our record id, or trigger and date
    record_id: int | None = Field(default=None, sa_type=BigId)  # the order, case or shop event
    occasion_at: datetime = Field(sa_type=UtcTime)
    first_due_at: datetime = Field(sa_type=UtcTime)
    experiment: str
    arm: str | None  # contact | holdout; None when skipped
    reason: str | None = None  # why it was skipped
    release: int
    created_at: datetime = Field(sa_type=UtcTime)
    wake_at: datetime | None = Field(default=None, sa_type=UtcTime)  # no step of it is due before


class Message(SQLModel, table=True):
    """One intended contact: one row, written once, before anything is sent."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("campaign", "step", "customer_id", "occasion", name="uq_messages_key"),
        UniqueConstraint("public_id", name="uq_messages_public"),
        _partial("ix_messages_ready", "priority", "ready_at", where="status = 'planned'"),
        _partial("ix_messages_claimed", "lease_until", where="claim IS NOT NULL"),
        _partial("ix_messages_contact", "contact_id", "sent_at", where="contact_id IS NOT NULL"),
        _partial("ix_messages_unknown", "look_at", where="status = 'unknown'"),
        _partial("ix_messages_tasks", "priority", "due_at", where="status = 'planned' AND blocked_by = 'person'"),
        Index("ix_messages_customer", "customer_id"),
        Index("ix_messages_created", "campaign", "created_at"),
        _partial("ix_messages_provider", "channel", "provider_id", where="provider_id IS NOT NULL", unique=True),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    public_id: str  # HMAC of the key: the same after a restore; the only id that leaves
    campaign: str
    step: str
    customer_id: int = Field(sa_type=BigId)
    occasion: str
    occasion_at: datetime = Field(sa_type=UtcTime)
    record_id: int | None = Field(default=None, sa_type=BigId)
    enrolment_id: int = Field(sa_type=BigId)  # 0 for a manual send, whose id is record_id
    arm: str  # contact, a variant's name, or holdout
    purpose: str
    priority: int
    status: str  # Status
    reason: str | None = None  # Reason of a non-send
    detail: str = ""  # which word, cap or rule; never an address or a body
    blocked_by: str | None = None  # Reason that last deferred it
    due_at: datetime = Field(sa_type=UtcTime)
    expires_at: datetime = Field(sa_type=UtcTime)
    ready_at: datetime = Field(sa_type=UtcTime)  # not looked at before; due_at, later when deferred
    channel: str | None = None  # provisional until the first `sending`
    contact_id: int | None = Field(default=None, sa_type=BigId)  # set with `sending`: what caps count
    refused: str = ""  # channels whose address was refused for good, space between
    claim: str | None = None  # token of the claimer
    lease_until: datetime | None = Field(default=None, sa_type=UtcTime)
    look_at: datetime | None = Field(default=None, sa_type=UtcTime)  # of an unknown one: when its provider is asked
    attempts: int = 0
    sent_at: datetime | None = Field(default=None, sa_type=UtcTime)  # of `sending`, then of acceptance
    provider_id: str | None = None
    release: int  # planned from; once `sending`, rendered from
    created_at: datetime = Field(sa_type=UtcTime)


class MessageContent(SQLModel, table=True):
    """What was handed over, kept `keep_bodies`."""

    __tablename__ = "contents"
    message_id: int = Field(primary_key=True, sa_type=BigId)
    subject: str = ""
    text: str = Field(default="", sa_type=Text)
    html: str = Field(default="", sa_type=Text)  # where it has no shape
    shape: str = ""  # key of the ContentShape that its HTML fills
    filling: str = Field(default="", sa_type=Text)  # the values, as HTML, U+001F between
    content_hash: str  # SHA-256 of all of these
    segments: int = 0
    at: datetime = Field(sa_type=UtcTime, index=True)


class ContentShape(SQLModel, table=True):
    """HTML that many messages share, without anybody's values."""

    __tablename__ = "content_shapes"
    key: str = Field(primary_key=True)
    words: str = Field(sa_type=Text)  # render.Shape as JSON
    at: datetime = Field(sa_type=UtcTime)  # used since, at most a month before it last was


class MessageEvent(SQLModel, table=True):
    """A later fact about a message: delivered, bounced, opened, clicked, replied, rated (a reply that answers a survey), auto_replied (a machine wrote), answered, reached, complained, opted_out, coupon_redeemed."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_customer", "customer_id", "at"),
        Index("ix_events_message", "message_id"),
        _partial("ix_events_bad", "at", where="kind IN ('bounced', 'complained')"),
        _partial("ix_events_failed", "at", where="kind = 'failed'"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    event_id: str = Field(unique=True)  # the provider's, or made from its content: repeats are harmless
    message_id: int | None = Field(default=None, sa_type=BigId)
    customer_id: int | None = Field(default=None, sa_type=BigId)
    kind: str
    at: datetime = Field(sa_type=UtcTime)
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class Inbox(SQLModel, table=True):
    """Something a provider told us, as it came; kept under the provider's own id, so that repeats are harmless."""

    __tablename__ = "inbox"
    __table_args__ = (_partial("ix_inbox_waiting", "id", where="handled_at IS NULL"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    event_id: str = Field(unique=True)
    provider: str  # twilio | sendgrid | imap
    channel: str
    kind: str  # of channels.InboundEvent
    at: datetime = Field(sa_type=UtcTime)  # as the provider dates it, else when it first came
    received_at: datetime = Field(sa_type=UtcTime)
    public_id: str = ""  # of the message it is about, as far as the provider says
    provider_id: str = ""
    address: str | None = None  # who wrote, or whom it is about, as it came; None once erased
    text: str = Field(default="", sa_type=Text)  # of a reply
    code: str = ""
    detail: str = ""
    fault: str = ""
    raw: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # all the provider said
    contact_id: int | None = Field(default=None, sa_type=BigId)  # whose address it is
    message_id: int | None = Field(default=None, sa_type=BigId)  # once handled
    handled_at: datetime | None = Field(default=None, sa_type=UtcTime)  # `receive` has made of it what there is


class Reply(SQLModel, table=True):
    """Something a person wrote to us, strangers included; only what is found out later changes."""

    __tablename__ = "replies"
    __table_args__ = (Index("ix_replies_customer", "customer_id"), Index("ix_replies_at", "at"))
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    event_id: str = Field(unique=True)  # of its inbox row
    channel: str
    contact_id: int = Field(sa_type=BigId)  # whose address it came from
    customer_id: int | None = Field(default=None, sa_type=BigId)  # None: a stranger
    message_id: int | None = Field(default=None, sa_type=BigId)  # that it answers
    order_id: int | None = Field(default=None, sa_type=BigId)
    case_id: int | None = Field(default=None, sa_type=BigId)
    text: str = Field(default="", sa_type=Text)
    at: datetime = Field(sa_type=UtcTime)
    intents: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    score: int | None = None
    answered_at: datetime | None = Field(default=None, sa_type=UtcTime)  # first answered by a person
    labels: list[str] | None = Field(default=None, sa_column=Column(JSON))  # what a person says it means


class ReplyAnswer(SQLModel, table=True):
    """What answers a reply; it goes out as a message of the campaign `answers` whose record it is."""

    __tablename__ = "reply_answers"
    __table_args__ = (
        Index("ix_reply_answers_contact", "contact_id", "at"),
        Index("ix_reply_answers_reply", "reply_id"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    key: str = Field(unique=True)  # of what it answers and how: never twice
    kind: str  # opted_out | person | automatic
    reply_id: int = Field(sa_type=BigId)
    customer_id: int = Field(sa_type=BigId)
    contact_id: int = Field(sa_type=BigId)  # who wrote, and nobody else, gets it
    channel: str  # that the reply came by
    template: str = ""  # empty: the text below
    subject: str = ""  # of an e-mail
    text: str = Field(default="", sa_type=Text)
    by: str = ""  # who of the shop
    menu: str = ""  # of an automatic answer: which of the options in replies.yaml the next choice is from
    at: datetime = Field(sa_type=UtcTime)


class Answer(SQLModel, table=True):
    """
    What a customer answered to a survey on one occasion.

    Within a day of the first answer the latest one stands, as the `answered` events tell; afterwards
    nothing changes. Scale and satisfied scores are those in force when it was given.
    """

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("survey", "customer_id", "occasion", name="uq_answers_occasion"),
        Index("ix_answers_customer", "customer_id", "kind", "changed_at"),
        Index("ix_answers_changed", "changed_at"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    survey: str
    customer_id: int = Field(sa_type=BigId)
    occasion: str  # of the message that asked
    kind: str  # csat | nps
    scale: str  # 1-5 | 1-10 | 0-10 | yes_no
    score: int  # yes is 1, no is 0
    satisfied_from: int  # the scores that count as satisfied, both included; nps: those that promote
    satisfied_to: int
    comment: str = Field(default="", sa_type=Text)
    channel: str  # page | click (on a score in an e-mail, confirmed on the page) | sms | whatsapp | call …
    message_id: int | None = Field(default=None, sa_type=BigId)  # that asked
    campaign: str = ""  # its
    step: str = ""
    at: datetime = Field(sa_type=UtcTime)  # of the first answer
    changed_at: datetime = Field(sa_type=UtcTime)  # of the one that stands


class Mailbox(SQLModel, table=True):
    """How far a mailbox of ours has been read."""

    __tablename__ = "mailboxes"
    name: str = Field(primary_key=True)  # user, host and folder
    uidvalidity: int = Field(sa_type=BigInteger)
    uid: int = Field(sa_type=BigInteger)  # of the last mail that was read
    looked_at: datetime = Field(sa_type=UtcTime)


class MessageLink(SQLModel, table=True):
    """A short stored id behind a link in a message; reveals nothing and cannot be guessed."""

    __tablename__ = "links"
    token: str = Field(primary_key=True)
    message_id: int = Field(sa_type=BigId)
    kind: str  # unsubscribe | preferences | survey | survey_score | url
    target: str = ""  # the address, or the survey and score


class Coupon(SQLModel, table=True):
    """
    One code of an offer. It has one owner at a time: the customer in its own row.

    Of a code that everybody shares, each customer who was sent it has a row, whose `key` names the customer, too.
    """

    __tablename__ = "coupons"
    __table_args__ = (
        _partial("ix_coupons_pool", "offer", "status", "id", where="status IN ('made', 'live')"),
        _partial("ix_coupons_customer", "customer_id", "offer", where="customer_id IS NOT NULL"),
        Index("ix_coupons_issued", "offer", "issued_at"),
        _partial("ix_coupons_expiring", "expires_at", where="status = 'issued'"),
        _partial("ix_coupons_replaced", "replaced_by", where="replaced_by IS NOT NULL"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    key: str = Field(unique=True)  # the code in capitals: carts do not tell them apart
    code: str  # as the customer reads it
    offer: str
    status: str  # made (not yet in the shop's cart) | live (may be given out) | issued | redeemed | void
    uses: int = 1  # how often it may be redeemed; 0: as often as they like (shared)
    shareable: bool = False  # whoever redeems it, its owner is credited
    used: int = 0  # redemptions that were valid
    customer_id: int | None = Field(default=None, sa_type=BigId)  # whose it is
    message_id: int | None = Field(default=None, sa_type=BigId)  # that brought it first
    made_at: datetime = Field(sa_type=UtcTime)
    issued_at: datetime | None = Field(default=None, sa_type=UtcTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcTime)  # None: never, or not issued yet
    redeemed_at: datetime | None = Field(default=None, sa_type=UtcTime)  # first, validly
    order_id: int | None = Field(default=None, sa_type=BigId)  # of that first time
    voided_at: datetime | None = Field(default=None, sa_type=UtcTime)
    reason: str = ""  # why it is void
    replaced_by: int | None = Field(default=None, sa_type=BigId)  # the coupon of a better offer that made it void


class CouponMessage(SQLModel, table=True):
    """Which coupon a message carries, from the commit that started its sending on; no row once it certainly left without."""

    __tablename__ = "coupon_messages"
    __table_args__ = (
        Index("ix_coupon_messages_coupon", "coupon_id"),
        _partial("ix_coupon_messages_open", "message_id", where="NOT settled"),
    )
    message_id: int = Field(primary_key=True, sa_type=BigId)
    coupon_id: int = Field(sa_type=BigId)
    at: datetime = Field(sa_type=UtcTime)
    settled: bool = False  # the message has ended, and the customer may have the code
    doubted: bool = False  # a person had it sent again after a doubt: whatever becomes of it, they may have the code


class CouponRedemption(SQLModel, table=True):
    """One use of a code at the shop, valid or not."""

    __tablename__ = "coupon_redemptions"
    __table_args__ = (
        Index("ix_coupon_redemptions_coupon", "coupon_id"),
        Index("ix_coupon_redemptions_order", "order_id"),
        Index("ix_coupon_redemptions_customer", "customer_id"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    key: str = Field(unique=True)  # of the order and code, or of the event: the same one again is no second use
    coupon_id: int | None = Field(default=None, sa_type=BigId)  # None: a shared code that they were never sent
    offer: str
    customer_id: int | None = Field(default=None, sa_type=BigId)  # who used it, where that is known
    order_id: int | None = Field(
        default=None, sa_type=BigId
    )  # below 0: told of an order that has not been imported yet
    at: datetime = Field(sa_type=UtcTime)
    source: str  # order | event | person
    verdict: str  # valid | wrong_customer | expired | over_used | void | not_issued
    recorded_at: datetime = Field(sa_type=UtcTime)


class OfferState(SQLModel, table=True):
    """How many coupons of an offer are, or have been, in customers' hands: what its budget counts."""

    __tablename__ = "offers"
    name: str = Field(primary_key=True)
    issued: int = 0


class Rate(SQLModel, table=True):
    """How far a sender, or a provider, is from its limit; every process that sends keeps it here."""

    __tablename__ = "rates"
    name: str = Field(primary_key=True)  # `CHANNEL SENDER`, or the provider's name
    free_at: datetime | None = Field(default=None, sa_type=UtcTime)  # when all it was given is paid off
    slow_until: datetime | None = Field(default=None, sa_type=UtcTime)  # too fast, or its provider is out of order
    slowed: int = 0  # times in a row
    slowed_since: datetime | None = Field(default=None, sa_type=UtcTime)  # the first of them
    slowed_for: str | None = None  # Reason of what waits: `rate` or `channel`
    detail: str = ""  # what was said the last time; never an address or a body


class ManualSend(SQLModel, table=True):
    """One `outreach send`: what its messages have in common."""

    __tablename__ = "manual_sends"
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    template: str
    channels: list[str] = Field(sa_column=Column(JSON, nullable=False))  # in the order they are tried
    purpose: str
    at: datetime = Field(sa_type=UtcTime)


class Alarm(SQLModel, table=True):
    """Something that a person should know: one row while it lasts. Names that begin with a dot are the watch's own notes."""

    __tablename__ = "alarms"
    name: str = Field(primary_key=True)  # `paused:win_back`, `unknown`, `import`, `stopped`
    text: str
    since: datetime = Field(sa_type=UtcTime)
    told_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Import(SQLModel, table=True):
    """One run of `import`."""

    __tablename__ = "imports"
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    started_at: datetime = Field(sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)
    counts: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class Reject(SQLModel, table=True):
    """A row, or a value of one, that an import refused."""

    __tablename__ = "rejects"
    __table_args__ = (Index("ix_rejects_import", "import_id"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    import_id: int = Field(sa_type=BigId)
    file: str
    line: int
    column: str
    value: str
    reason: str
    customer: str = Field(default="", sa_column_kwargs={"server_default": ""})  # whose row it is, by the shop's id


class Tick(SQLModel, table=True):
    """The last tick of each stage."""

    __tablename__ = "ticks"
    stage: str = Field(primary_key=True)
    started_at: datetime = Field(sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)
    counts: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    error: str = ""
