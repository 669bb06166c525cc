"""
A preview: a step of the working files as it would read for one customer, and what would hold it back.

Nothing is written. The facts are the customer's own newest record that would have started the
campaign; where there is none, the documented sample facts stand in, and the preview says so.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from outreach import arms, coupons, facts, gates, occasions, releases, store, timing
from outreach import campaigns as campaign_files
from outreach.addresses import normal_email, normal_phone
from outreach.campaigns import Campaign, Step, Trigger
from outreach.channels import Outcome, Outgoing, open_channel
from outreach.errors import CampaignError, NotFound, OutreachError, TemplateError
from outreach.facts import Item
from outreach.gates import ContactFacts, Defer, Facts
from outreach.manual.drafting import Amount, cost, filled, permitted
from outreach.manual.people import named
from outreach.models import Answer, Case, Coupon, Customer, CustomerStats, Order, Reply, ShopEvent, Suppression, table
from outreach.occasions import Occasion
from outreach.releases import Loaded
from outreach.render import Templates, sample_facts, sms_segments
from outreach.setting_keys import STAFF
from outreach.settings import Settings, with_catalogue
from outreach.store import Database
from outreach.values import CONTACT_KIND
from outreach.yamlfile import did_you_mean

TEST = "[TEST] "
MOST_SAMPLED = 50  # attributes of a sample record that a template may name

_customers, _stats, _suppressions = table(Customer), table(CustomerStats), table(Suppression)
_orders, _cases, _shop_events, _answers, _replies = (
    table(Order),
    table(Case),
    table(ShopEvent),
    table(Answer),
    table(Reply),
)
_coupons = table(Coupon)


@dataclass(frozen=True)
class GateSays:
    """A gate that would keep the message from leaving now."""

    gate: str
    reason: str
    detail: str
    until: datetime | None  # None: it would end there


@dataclass(frozen=True)
class Preview:
    """One message as it would read."""

    campaign: str
    step: str
    customer: str
    variant: str  # empty: the step has none
    purpose: str
    record: str  # what it is about, such as `order o17`; empty: the customer alone
    is_sample: bool
    notes: tuple[str, ...]
    outgoing: Outgoing
    coupon: coupons.Given | None  # that it would bring, or a sample where none is to be had; None: it brings none
    cost: Decimal | None
    gates: tuple[GateSays, ...]


def preview(
    db: Database,
    settings: Settings,
    files: Mapping[str, str],
    now: datetime,
    campaign: str,
    step: str,
    customer: str,
    *,
    channel: str | None = None,
    variant: str | None = None,
) -> Preview:
    """
    The step of these files, for a customer given by id, address or number, as if it were due at `now`.

    Without a channel, the one it would leave by; without a variant, the one that the customer draws.

    Raises:
        NotFound: there is no such campaign, step, variant or customer, or the step has no such channel.
        CampaignError: the campaign's file has errors.
        TemplateError: the message cannot be filled; it names template, line and variable.
    """
    loaded = _loaded(files, settings, now, campaign)
    of, one = _step(loaded, campaign, step)
    if variant is not None and variant not in dict(one.variants):
        raise _unknown("variant", variant, [name for name, _ in one.variants], f"step {step}")
    if channel is not None and channel not in one.channels:
        raise _unknown("channel", channel, one.channels, f"step {step}")
    with store.read(db) as connection:
        people = named(connection, db, settings, [customer], option="--customer")
        if not people.known:
            raise NotFound("no customer has this address: give the shop's own id")
        return _Previewing(connection, db, loaded, of, one, people.known[0], now).made(channel, variant)


def _loaded(files: Mapping[str, str], settings: Settings, now: datetime, campaign: str) -> Loaded:
    """The working files, compiled; problems of other campaigns' files are no matter."""
    used = with_catalogue(settings, json.loads(files[releases.CATALOGUE]))
    campaigns, problems = campaign_files.load(files, used)
    own = [p for p in problems if p.file == f"campaigns/{campaign}.yaml" and not p.warning]
    if own:
        raise CampaignError(own)
    return Loaded(0, now, campaigns, Templates(files, used.business), used)


def _step(loaded: Loaded, campaign: str, step: str) -> tuple[Campaign, Step]:
    of = loaded.campaigns.get(campaign)
    if of is None:
        raise _unknown("campaign", campaign, list(loaded.campaigns), "the folder campaigns")
    one = next((each for each in of.steps if each.id == step), None)
    if one is None:
        raise _unknown("step", step, [each.id for each in of.steps], f"campaign {campaign}")
    configured = tuple(channel for channel in one.channels if channel in loaded.settings.channels)
    if not configured:
        names = " and ".join(one.channels)
        raise NotFound(f"step {step} of {campaign} goes by {names} alone: configure it in outreach.yaml first")
    return of, replace(one, channels=configured)


def _unknown(what: str, name: str, known: Any, place: str) -> NotFound:
    near = did_you_mean(name, list(known))
    has = ", ".join(known) or "none"
    return NotFound(f"{place} has no {what} {name!r}: it has {has}" + (f" ({near})" if near else ""))


# --- the customer's own facts ----------------------------------------------------------------------


class _Previewing:
    def __init__(
        self,
        connection: Connection,
        db: Database,
        loaded: Loaded,
        campaign: Campaign,
        step: Step,
        customer: int,
        now: datetime,
    ) -> None:
        self.connection, self.db, self.loaded, self.settings = connection, db, loaded, loaded.settings
        self.campaign, self.step, self.customer, self.now = campaign, step, customer, now
        self.notes: list[str] = []
        self.coupon: coupons.Given | None = None

    def made(self, channel: str | None, variant: str | None) -> Preview:
        occasion = self._occasion()
        is_sample = occasion is None and self.campaign.trigger.subject != "customer"
        item = self._item(occasion)
        people: dict[int, dict[str, Any]] = {}
        secret = self.db.secret
        found = facts.fetch(self.connection, self.settings, [item], self.now, secret=secret, rows=people)[0]
        item.arm = variant or self._drawn(found)
        by = channel or self._first(item, found)
        rules = facts.rules(item)
        if channel:
            rules = replace(rules, channels=(channel,))
        self._note(found, item, occasion)
        context = facts.contexts(self.connection, self.settings, [item], people)[0]
        self.coupon = self._coupon(item, found)
        outgoing = self._sampled(item, found, by, context) if is_sample else self._filled(item, found, by, context)
        amount = Amount(1, outgoing.content.segments)
        return Preview(
            campaign=self.campaign.name,
            step=self.step.id,
            customer=found.external_id,
            variant="" if item.arm == arms.CONTACT else item.arm,
            purpose=self.step.purpose,
            record=self._record(context) if occasion else "",
            is_sample=is_sample,
            notes=tuple(self.notes),
            outgoing=outgoing,
            coupon=self.coupon,
            cost=cost(self.settings, {by: amount}),
            gates=tuple(
                GateSays(
                    gate.name,
                    verdict.reason.value,
                    verdict.detail,
                    verdict.until if isinstance(verdict, Defer) else None,
                )
                for gate, verdict in gates.why(found, rules, self.settings, self.now)
                if verdict is not None
            ),
        )

    def _item(self, occasion: Occasion | None) -> Item:
        """Due now; without a record it asks nothing of one."""
        campaign = self.campaign
        if occasion is None and campaign.trigger.subject != "customer":
            campaign = replace(campaign, trigger=Trigger("date"))
        expires = timing.add(self.now, self.step.expires, self.settings.business.timezone)
        at, record = (occasion.at, occasion.record_id) if occasion else (self.now, None)
        return Item(campaign, self.step, self.customer, record, "preview", at, self.now, expires)

    def _drawn(self, found: Facts) -> str:
        experiment = self.campaign.experiment or self.campaign.name
        return arms.variant(self.db.secret, experiment, self.step.id, self.step.variants, found.external_id)

    def _first(self, item: Item, found: Facts) -> str:
        """The channel it would leave by; where none is permitted the first with an address, else the first."""
        allowed = permitted(found, item, self.settings, self.db.secret)
        with_address = [channel for channel in item.step.channels if channel in found.contacts]
        return [*allowed, *with_address, *item.step.channels][0]

    def _record(self, context: Mapping[str, Any]) -> str:
        subject = self.campaign.trigger.subject
        if subject in ("order", "case"):
            return f"{subject} {context[subject]['id']}"
        if subject == "coupon":
            return f"coupon {self.coupon.code}" if self.coupon is not None else "coupon"
        if subject == "answer":
            return f"answer to {context['answer']['survey']}"
        return str(context["event"]["name"]) if subject == "event" else ""

    # --- which record

    def _occasion(self) -> Occasion | None:
        """The newest record of the customer's that the trigger fires for; None for customers and where there is none."""
        trigger = self.campaign.trigger
        if trigger.subject == "customer":
            return self._lapse() if trigger.event == "customer.inactive" else None
        of, column = {
            "order": (
                _orders,
                _orders.c[f"{trigger.event.partition('.')[2]}_at"] if trigger.subject == "order" else None,
            ),
            "case": (_cases, _cases.c.closed_at if trigger.event == "case.closed" else _cases.c.opened_at),
            "event": (_shop_events, _shop_events.c.at),
            "answer": (_answers, _answers.c.changed_at),
            "reply": (_replies, _replies.c.at),
            "coupon": (_coupons, _coupons.c.issued_at),
        }[trigger.subject]
        assert column is not None  # noqa: S101 - an order's trigger has its time
        query = select(of.c.id, column).where(of.c.customer_id == self.customer, column <= self.now)
        if trigger.subject == "event":
            query = query.where(of.c.name == trigger.event)
        if trigger.event == "case.overdue":
            query = query.where(of.c.closed_at.is_(None))
        if trigger.subject == "coupon":
            theirs = (of.c.status == coupons.State.ISSUED, of.c.expires_at > self.now)
            query = query.where(*theirs, *([of.c.offer == trigger.offer] if trigger.offer else []))
        rows = self.connection.execute(query.order_by(column.desc(), of.c.id.desc())).all()
        all_of = [Occasion(self.customer, i, f"{trigger.event}:{i}", self._fired(at)) for i, at in rows]
        anywhere = replace(self.campaign, where=None)
        fitting = occasions.in_audience(self.connection, anywhere, self.settings, all_of, self.now)
        return fitting[0] if fitting else None

    def _lapse(self) -> Occasion | None:
        c = _stats.c
        row = self.connection.execute(
            select(c.last_order_id, c.last_order_at).where(c.customer_id == self.customer, c.last_order_at.is_not(None))
        ).first()
        if row is None:
            return None
        key = f"customer.inactive:{row.last_order_id}"
        return Occasion(self.customer, row.last_order_id, key, self._fired(row.last_order_at))

    def _fired(self, at: datetime) -> datetime:
        """When the trigger fires for a record of that time; a wait that is not over yet is taken as over."""
        after = self.campaign.trigger.after
        return min(timing.add(at, after, self.settings.business.timezone), self.now) if after else at

    # --- what else is to be known

    def _note(self, found: Facts, item: Item, occasion: Occasion | None) -> None:
        campaign, step, trigger = self.campaign, self.step, self.campaign.trigger
        subject = trigger.subject
        if occasion is None and subject != "customer":
            self.notes.append(f"no {subject} of theirs fits the trigger {trigger.event}: sample facts stand in for it")
        if not campaign.active:
            self.notes.append("the campaign is switched off (active: no)")
        if occasion is not None or subject == "customer":
            asked = occasion or Occasion(self.customer, None, "", self.now)
            for what, where in (("campaign", campaign.where), (f"step {step.id}", step.where)):
                if where and not self._holds(where, asked):
                    self.notes.append(f"the `where` of the {what} does not hold for them: they would not get it")
        secret, name = self.db.secret, campaign.experiment or campaign.name
        if step.purpose == "marketing" and arms.is_held_globally(secret, self.settings.holdout, found.external_id):
            self.notes.append("they are in the global holdout: they get no marketing")
        elif arms.is_held(secret, name, campaign.holdout, found.external_id):
            self.notes.append("they draw the campaign's holdout: they would not get it")
        if item.arm != arms.CONTACT and step.variants and item.arm != self._drawn(found):
            self.notes.append(f"they draw the variant {self._drawn(found)}")

    def _holds(self, where: str, asked: Occasion) -> bool:
        true = occasions.where_true(self.connection, self.campaign, self.settings, where, [asked], self.now)
        return bool(true)

    # --- the message

    def _filled(self, item: Item, found: Facts, channel: str, context: Mapping[str, Any]) -> Outgoing:
        public_id = f"test-{secrets.token_hex(13)}"  # with `reply_to` it must fit an address
        return filled(
            self.db, self.loaded, item, found, channel, context, self.now, public_id=public_id, coupon=self.coupon
        )

    def _coupon(self, item: Item, found: Facts) -> coupons.Given | None:
        """What the message would bring, not allocated: nothing is written, and the next customer may get this code."""
        offer = self.settings.offers.get(self.step.offer or "")
        about = item.record_id if item.campaign.trigger.subject == "coupon" else None
        if offer is None and about is None:
            return None
        wanted = coupons.Wanted(0, self.customer, offer.name if offer else "", about)
        given = coupons.would_give(self.connection, self.settings, self.now, wanted, found.zones)
        if isinstance(given, coupons.Given):
            if not given.is_kept and given.coupon.id is None and given.offer.is_generated:
                self.notes.append("the code is made when the message leaves: it will be another one")
            return given
        if isinstance(given, coupons.Denied):
            self.notes.append(f"they would get no coupon, and the message would end: {given.detail}")
        else:
            self.notes.append(f"{given.reason}: the campaign would pause before this message; a sample code stands in")
        if offer is None:
            offer = self.settings.offers[self._offer_of(about)]
        return coupons.sample(offer, self.now, found.zones, self.settings.business.timezone)

    def _offer_of(self, coupon: int | None) -> str:
        return str(self.connection.execute(select(_coupons.c.offer).where(_coupons.c.id == coupon)).scalar_one())

    def _sampled(self, item: Item, found: Facts, channel: str, context: Mapping[str, Any]) -> Outgoing:
        """With sample facts for the record that is not there, and for each attribute that the template asks of it."""
        subject = self.campaign.trigger.subject
        fields = self.settings.events.get(self.campaign.trigger.event, ()) if subject == "event" else ()
        asked = [f"event.{name}" for name in fields]
        own = ("order", "matched") if subject == "order" else (subject,)
        sampled = "offer" if subject == "coupon" else subject
        for _ in range(MOST_SAMPLED):
            sample = {name: value for name, value in sample_facts({sampled}, asked).items() if name in own}
            try:
                return self._filled(item, found, channel, {**context, **sample})
            except TemplateError as error:
                if error.variable.partition(".")[0] not in own or error.variable in asked:
                    raise
                asked.append(error.variable)
        raise NotFound(f"the template asks more than {MOST_SAMPLED} attributes of a record that is not there")


# --- a test copy ---------------------------------------------------------------------------------


def send_test(db: Database, settings: Settings, made: Preview, address: str, now: datetime) -> str:
    """
    Hand one marked copy to the channel's provider for this address, and give the provider's id of it.

    Nobody's ledger is touched. An address that is on a do-not-contact list, or outside `only_to`, gets none.

    Raises:
        OutreachError: it must not be sent there, or the provider did not take it.
        ChannelError: the channel is not configured so that it can send.
    """
    channel = made.outgoing.channel
    kind = CONTACT_KIND.get(channel)
    if kind is None or settings.channels[channel].provider == STAFF:
        raise OutreachError(f"{channel}: there is no provider that a test copy could be given to")
    try:
        to = normal_email(address) if kind == "email" else normal_phone(address, settings.business.country)
    except ValueError as error:
        raise OutreachError(f"what --send-to names {error}") from None
    _stop_where_unwanted(db, settings, made, kind, to, now)
    day = now.astimezone(ZoneInfo(settings.business.timezone)).date()
    # Sending hours are the customers', not those of whoever tries it out.
    copy = replace(_marked(made.outgoing), address=to, at=now, day=day, valid_until=None)
    opened = open_channel(channel, settings)
    try:
        receipt = next(iter(list(opened.send(iter([copy])))), None)
    finally:
        opened.close()
    if receipt is None or receipt.outcome is not Outcome.ACCEPTED:
        said = receipt.outcome.value if receipt else "no answer"
        raise OutreachError(f"the test copy was not taken ({said}): {receipt.detail if receipt else channel}")
    return receipt.provider_id or ""


def _marked(outgoing: Outgoing) -> Outgoing:
    """Marked where the person sees it: an e-mail's subject, else the text, or an approved template's first value."""
    content = outgoing.content
    if outgoing.channel == "email":
        return replace(outgoing, content=replace(content, subject=TEST + content.subject))
    marked = replace(content, text=TEST + content.text)
    if outgoing.channel == "sms":
        segments, encoding = sms_segments(marked.text)
        marked = replace(marked, segments=segments, encoding=encoding)
    if content.variables:
        (name, value), *rest = content.variables
        marked = replace(marked, variables=((name, TEST + value), *rest))
    return replace(outgoing, content=marked)


def _stop_where_unwanted(
    db: Database, settings: Settings, made: Preview, kind: str, address: str, now: datetime
) -> None:
    channel, c = made.outgoing.channel, _suppressions.c
    hashed = store.address_hash(db.secret, kind, address)
    query = select(c.scope, c.channel).where(c.address_hash == hashed, c.kind == kind, c.lifted_at.is_(None))
    with store.read(db) as connection:
        listed = tuple((scope, said_on) for scope, said_on in connection.execute(query))
    known = Facts("", {channel: ContactFacts(0, address, "granted", listed)})
    rules = gates.Rules(made.campaign, made.step, made.purpose, (channel,), now, now)
    said = {gate.name: verdict for gate, verdict in gates.why(known, rules, settings, now)}
    if said["suppression"] is not None:
        raise OutreachError("this address is on a do-not-contact list: no test copy is sent to it")
    if said["only_to"] is not None:
        raise OutreachError("`only_to` is set in outreach.yaml and this address is not in it: no test copy is sent")
