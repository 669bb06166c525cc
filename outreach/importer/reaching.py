"""
Whom the shop may write to, per channel and purpose, and why not the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, not_, or_, select

from outreach import store
from outreach.models import Consent, Contact, Customer, Scope, Suppression
from outreach.models import table as table_of
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import CONTACT_KIND, PURPOSES

_customers, _contacts = table_of(Customer), table_of(Contact)
_consents, _suppressions = table_of(Consent), table_of(Suppression)
_NAMES = {"email": "E-mail", "sms": "SMS", "whatsapp": "WhatsApp"}
_ADDRESS = {"email": "e-mail address", "phone": "phone number", "messenger": "Messenger id"}
_BLOCKING = {
    "transactional": (Scope.ADDRESS,),  # and scope `contact` on the channel where it was said
    "service": (Scope.ADDRESS, Scope.CONTACT),
    "marketing": (Scope.ADDRESS, Scope.CONTACT, Scope.MARKETING),
}


@dataclass(frozen=True)
class Reach:
    """How many of the customers a channel may reach for a purpose."""

    channel: str
    purpose: str
    customers: int
    reachable: int
    why: str  # what keeps the others from being reached; empty when nothing does

    def __str__(self) -> str:
        name = _NAMES.get(self.channel, self.channel.capitalize())
        return f"{name} {self.purpose}: {self.reachable:,} of {self.customers:,}" + (
            f", {self.why}" if self.why else ""
        )


def reach(db: Database, settings: Settings) -> list[Reach]:
    """
    The reach of every configured channel that has addresses, for every purpose, by the table of DESIGN 3.4.

    Each customer that is not reached counts under the first of: no address, suppressed, opted out, no consent.
    """
    with store.read(db) as connection:
        return [
            _told(channel, purpose, dict(connection.execute(_query(channel, purpose)).mappings().one()))
            for channel in CONTACT_KIND
            if channel in settings.channels
            for purpose in PURPOSES
        ]


def _query(channel: str, purpose: str) -> Any:
    contact = _customers.c[f"{CONTACT_KIND[channel]}_id"]
    ranked = (
        select(
            _consents.c.contact_id,
            _consents.c.status,
            func.row_number()
            .over(partition_by=_consents.c.contact_id, order_by=(_consents.c.at.desc(), _consents.c.status.desc()))
            .label("place"),
        )
        .where(_consents.c.channel == channel)
        .subquery()
    )
    consent = func.coalesce(ranked.c.status, "unknown")
    no_address = _contacts.c.address.is_(None)
    blocked = and_(not_(no_address), _suppressed(channel, purpose))
    refused = and_(not_(or_(no_address, blocked)), _refusal(purpose, consent))
    return (
        select(
            func.count().label("customers"),
            _sum(no_address, "no_address"),
            _sum(blocked, "suppressed"),
            _sum(and_(refused, consent == "revoked"), "revoked"),
            _sum(and_(refused, consent == "unknown"), "unknown"),
        )
        .select_from(_customers)
        .join(_contacts, _contacts.c.id == contact, isouter=True)
        .join(ranked, and_(ranked.c.contact_id == contact, ranked.c.place == 1), isouter=True)
        .where(_customers.c.merged_into.is_(None))
    )


def _suppressed(channel: str, purpose: str) -> ColumnElement[bool]:
    s = _suppressions.c
    scopes: ColumnElement[bool] = or_(
        s.scope.in_([scope.value for scope in _BLOCKING[purpose] if scope is not Scope.ADDRESS]),
        and_(s.scope == Scope.ADDRESS.value, s.channel.in_(["", channel])),
    )
    if purpose == "transactional":
        scopes = or_(scopes, and_(s.scope == Scope.CONTACT.value, s.channel == channel))
    return exists().where(
        s.address_hash == _contacts.c.address_hash, s.kind == _contacts.c.kind, s.lifted_at.is_(None), scopes
    )


def _refusal(purpose: str, consent: ColumnElement[str]) -> ColumnElement[bool]:
    return {"transactional": consent == "never", "service": consent == "revoked", "marketing": consent != "granted"}[
        purpose
    ]


def _sum(condition: ColumnElement[bool], name: str) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0).label(name)


def _told(channel: str, purpose: str, row: dict[str, int]) -> Reach:
    total = row["customers"]
    why = [
        (row["no_address"], f"no {_ADDRESS[CONTACT_KIND[channel]]}"),
        (row["suppressed"], "on a do-not-contact list"),
        (row["revoked"], "opted out"),
        (row["unknown"], "no consent recorded"),
    ]
    told = [text if count == total else f"{count:,} {text}" for count, text in why if count]
    return Reach(channel, purpose, total, total - sum(count for count, _ in why), ", ".join(told))
