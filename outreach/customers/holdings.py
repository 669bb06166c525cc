"""
Holdings: every table of the database, whose rows it has, and what an erasure takes out of it.

Each column of a table about people is either kept, because figures rest on it and it tells nobody who
the person is, or emptied; a table or column that stands in neither list fails a test. So what
is added to the database later cannot be forgotten by an erasure or an export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlmodel import SQLModel

from outreach import models
from outreach.customers.finding import Whose
from outreach.models import table
from outreach.store import among

Rows = Callable[[Whose], ColumnElement[bool]]


@dataclass(frozen=True)
class Holding:
    """A table about people: which rows are a person's, and what becomes of them."""

    model: type[SQLModel]
    rows: Rows
    emptied: Mapping[str, Any] = field(default_factory=dict)  # column → what stands there afterwards
    kept: frozenset[str] = frozenset()
    deleted: bool = False  # the whole row
    own: Rows | None = None  # the rows that an erasure changes, where they are fewer


def _of(column: Any, which: str) -> Rows:
    return lambda whose: among(column, getattr(whose, which))


def _columns(model: type[SQLModel]) -> Any:
    return table(model).c


def _kept(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _by_customer(model: type[SQLModel], kept: str, **emptied: Any) -> Holding:
    return Holding(model, _of(_columns(model).customer_id, "customers"), emptied, _kept(kept))


def _heard(whose: Whose) -> ColumnElement[bool]:
    """
    What providers said: by whose address it is, by the message, by the reply, or by the address as it came.

    By an address that they share, only what is known to be theirs: another customer may have written the rest.
    """
    inbox, replies = _columns(models.Inbox), _columns(models.Reply)
    written = select(replies.event_id).where(among(replies.customer_id, whose.customers))
    return or_(
        among(inbox.contact_id, whose.alone),
        among(inbox.message_id, whose.messages),
        inbox.event_id.in_(written),
        among(func.lower(inbox.address), whose.addresses),
    )


def _said(whose: Whose, contacts: str) -> ColumnElement[bool]:
    replies = _columns(models.Reply)
    strangers = and_(replies.customer_id.is_(None), among(replies.contact_id, getattr(whose, contacts)))
    return or_(among(replies.customer_id, whose.customers), strangers)


def _suppressed(which: str) -> Rows:
    contacts, entries = _columns(models.Contact), _columns(models.Suppression)

    def rows(whose: Whose) -> ColumnElement[bool]:
        hashes = select(contacts.address_hash).where(among(contacts.id, getattr(whose, which)))
        mine: ColumnElement[bool] = entries.address_hash.in_(hashes)
        return mine

    return rows


def _case_notes(whose: Whose) -> ColumnElement[bool]:
    notes, cases = _columns(models.CaseNote), _columns(models.Case)
    theirs: ColumnElement[bool] = notes.case_id.in_(select(cases.id).where(among(cases.customer_id, whose.customers)))
    return theirs


def _rejected(whose: Whose) -> ColumnElement[bool]:
    """Cells that an import refused of the person's rows, and what it refused that holds one of their addresses, or their id."""
    rejects = _columns(models.Reject)
    value = func.lower(rejects.value)
    needles = [*whose.addresses, *([whose.name.lower()] if len(whose.name) > 3 else [])]
    of_theirs = and_(rejects.customer == whose.name, rejects.customer != "")
    return or_(of_theirs, *(value.contains(needle, autoescape=True) for needle in needles))


_FACTS = frozenset(
    {"channel", "survey", "score", "occasion", "outcome", "provider_id", "code", "detail"}
)  # of an event's detail


def plain_facts(detail: Mapping[str, Any]) -> dict[str, Any]:
    """An event's detail without anything that somebody wrote."""
    return {name: value for name, value in detail.items() if name in _FACTS}


HOLDINGS = (
    Holding(
        models.Contact,
        _of(_columns(models.Contact).id, "contacts"),
        {"address": None},
        _kept("id kind address_hash"),
        own=_of(_columns(models.Contact).id, "alone"),
    ),
    Holding(
        models.Customer,
        _of(_columns(models.Customer).id, "customers"),
        {
            **dict.fromkeys(("email_id", "phone_id", "messenger_id", "first_name", "last_name", "locale", "country")),
            **dict.fromkeys(("region", "city", "postal_code", "timezone", "birthday")),
            "zones": "",
            "tags": [],
            "attributes": {},
            "external_id": ...,  # see erasing
            "merged_into": ...,
        },
        _kept("id created_at row_hash"),
    ),
    Holding(models.CustomerTag, _of(_columns(models.CustomerTag).customer_id, "customers"), deleted=True),
    Holding(models.CustomerDate, _of(_columns(models.CustomerDate).customer_id, "customers"), deleted=True),
    _by_customer(
        models.CustomerStats, "customer_id orders_count total_spent first_order_at last_order_at last_order_id"
    ),
    _by_customer(models.CustomerMonth, "customer_id month orders spent"),
    _by_customer(
        models.Order,
        "id external_id customer_id status placed_at paid_at shipped_at delivered_at cancelled_at refunded_at currency"
        " total counted coupon_code row_hash",
        attributes={},
    ),
    Holding(
        models.OrderLine,
        _of(_columns(models.OrderLine).order_id, "orders"),
        kept=_kept("order_id number sku product category quantity unit_price"),
    ),
    _by_customer(
        models.Case,
        "id external_id customer_id order_id kind category sku opened_at answered_at closed_at outcome row_hash due_at"
        " assignee opened_by reply_id message_id reopened",
        note=None,
        attributes={},
    ),
    Holding(models.CaseNote, _case_notes, {"text": ""}, _kept("id case_id key at kind by order_id category sku")),
    _by_customer(models.ShopEvent, "id external_id customer_id name at row_hash", attributes={}),
    Holding(
        models.Consent,
        _of(_columns(models.Consent).contact_id, "contacts"),
        {"words": "", "source": "erased"},
        _kept("id contact_id channel status at by basis recorded_at"),
        own=_of(_columns(models.Consent).contact_id, "alone"),
    ),
    Holding(
        models.Suppression,
        _suppressed("contacts"),
        kept=_kept("id address_hash kind scope channel source at lifted_at"),
    ),
    _by_customer(models.Fresh, "id kind record_id customer_id at"),
    _by_customer(
        models.Enrolment,
        "id campaign customer_id occasion record_id occasion_at first_due_at experiment arm reason release created_at"
        " wake_at",
    ),
    _by_customer(
        models.Message,
        "id public_id campaign step customer_id occasion occasion_at record_id enrolment_id arm purpose priority status"
        " reason detail blocked_by due_at expires_at ready_at channel contact_id refused claim lease_until look_at"
        " attempts sent_at provider_id release created_at",
    ),
    Holding(
        models.MessageContent,
        _of(_columns(models.MessageContent).message_id, "messages"),
        {"subject": "", "text": "", "html": "", "shape": "", "filling": "", "content_hash": ""},
        _kept("message_id segments at"),
    ),
    _by_customer(models.MessageEvent, "id event_id message_id customer_id kind at", detail=...),
    Holding(
        models.Inbox,
        _heard,
        {"address": None, "text": "", "raw": {}},
        _kept(
            "id event_id provider channel kind at received_at public_id provider_id code detail fault contact_id"
            " message_id handled_at"
        ),
    ),
    Holding(
        models.Reply,
        lambda whose: _said(whose, "contacts"),
        {"text": ""},
        _kept(
            "id event_id channel contact_id customer_id message_id order_id case_id at intents score answered_at labels"
        ),
        own=lambda whose: _said(whose, "alone"),
    ),
    _by_customer(
        models.ReplyAnswer,
        "id key kind reply_id customer_id contact_id channel template by menu at",
        subject="",
        text="",
    ),
    _by_customer(
        models.Answer,
        "id survey customer_id occasion kind scale score satisfied_from satisfied_to channel message_id campaign step at"
        " changed_at",
        comment="",
    ),
    Holding(
        models.MessageLink,
        _of(_columns(models.MessageLink).message_id, "messages"),
        {"target": ...},  # of plain links: they may lead to what is the person's own
        _kept("token message_id kind"),
    ),
    _by_customer(
        models.Coupon,
        "id key code offer status uses shareable used customer_id message_id made_at issued_at expires_at redeemed_at"
        " order_id voided_at reason replaced_by",
    ),
    Holding(
        models.CouponMessage,
        _of(_columns(models.CouponMessage).message_id, "messages"),
        kept=_kept("message_id coupon_id at settled doubted"),
    ),
    _by_customer(models.CouponRedemption, "id key coupon_id offer customer_id order_id at source verdict recorded_at"),
    Holding(models.Reject, _rejected, {"value": "", "customer": ""}, _kept("id import_id file line column reason")),
)

# Tables in which nobody is named.
ABOUT_NOBODY = (
    models.Installation,
    models.Release,
    models.CampaignState,
    models.StepState,
    models.Rate,
    models.ManualSend,
    models.Alarm,
    models.Import,
    models.Tick,
    models.Mailbox,
    models.OfferState,
    models.ContentShape,
)
