"""
A year of the sample shop with every starter campaign: its customers answer, complain and use their codes, its
staff calls and closes cases.

What people do follows from dice, never from what they were sent: nobody orders because of a message. So what the
reports show is the ledger's arithmetic, and no proof that messages work.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any

from sqlalchemy import select

from outreach import cases, coupons, dispatcher, inbox, planner, releases, store, surveys
from outreach.channels import InboundEvent
from outreach.demo.replay import Replay, import_changes, moments, on_the_wall, utc
from outreach.demo.shop import write_slice
from outreach.dispatcher import tasks
from outreach.models import Case, Contact, Coupon, Customer, Message, MessageLink, Status, table
from outreach.releases import Loaded
from outreach.settings import Survey

DAYS = 365
TICKS = (time(17, 5),)  # when every country of the shop may be written to. UTC
USED = 0.6  # of the orders of who has a code, those that use it
FRIENDS = 0.3  # of first orders, those by a friend's code where one is about
ANSWERED = 0.4  # of questions that were sent
WRITES = {"gracias": 0.02, "llegó roto": 0.008, "¿cuándo llega?": 0.006, "baja": 0.006}  # and of other texts
SCORES = {"1-5": (4, 6, 12, 30, 48), "0-10": (2, 1, 1, 2, 2, 4, 5, 9, 20, 24, 30)}  # how often each, from the lowest
CLOSED_AFTER = timedelta(days=2)

_cases, _contacts, _coupons, _customers = table(Case), table(Contact), table(Coupon), table(Customer)
_links, _messages = table(MessageLink), table(Message)


def live(replay: Replay) -> Iterator[tuple[datetime, int]]:
    """
    Live through the days until `now`; after each: when it was, and how many messages are sent.

    At the end the shop's whole files name the codes that were used.
    """
    _fill_pools(replay)
    since, sent = replay.began, 0
    for at, _ in moments(replay.began, replay.now, TICKS):
        _use_codes(replay, since, at)
        import_changes(replay, since, at)
        _answer(replay, since, at)
        _work(replay, at)
        planner.plan(replay.db, replay.settings, at)
        sent += dispatcher.dispatch(replay.db, replay.settings, at).sent
        since = at
        yield at, sent
    write_slice(replay.shop, replay.shop.folder, None, replay.shop.end)


def _dice(*of: object) -> random.Random:
    """The same for the same person and thing, whatever else happens."""
    return random.Random(" ".join(map(str, of)))  # noqa: S311 (a sample, nothing secret)


# --- codes -------------------------------------------------------------------------------------------


def _fill_pools(replay: Replay) -> None:
    """Codes for everybody, as `coupons make` and `coupons activate` would have it."""
    for offer in replay.settings.offers.values():
        coupons.make(replay.db, offer, 2 * len(replay.shop.people), replay.began)
        coupons.activate_all(replay.db, offer.name)


def _use_codes(replay: Replay, since: datetime, at: datetime) -> None:
    """Some of the orders placed since then are by customers with a code, and name it."""
    placed = [purchase.placed_at for purchase in replay.shop.purchases]
    first, last = (bisect_right(placed, on_the_wall(moment)) for moment in (since, at))
    held = _held(replay)
    friends = [row for rows in held.values() for row in rows if row.shareable]
    for index in range(first, last):
        purchase = replay.shop.purchases[index]
        dice = _dice("code", purchase.id)
        mine = held[purchase.person.id] if dice.random() < USED else []
        if not mine and friends and purchase.coupon and dice.random() < FRIENDS:  # of a first order
            mine = [dice.choice(friends)]
        good = [one for one in mine if one.issued_at <= utc(purchase.placed_at) < (one.expires_at or replay.now)]
        if purchase.free or not good:
            continue
        offer = replay.settings.offers[good[0].offer]
        off = int(offer.value) if offer.kind == "percent" else 0
        replay.shop.purchases[index] = replace(purchase, coupon=good[0].code, off=off)
        if good[0] in held[purchase.person.id]:
            held[purchase.person.id].remove(good[0])


def _held(replay: Replay) -> dict[str, list[Any]]:
    """The codes in customers' hands that were not used yet, by customer."""
    c = _coupons.c
    query = (
        select(c.code, c.offer, c.issued_at, c.expires_at, c.shareable, _customers.c.external_id)
        .join(_customers, _customers.c.id == c.customer_id)
        .where(c.status == "issued")
        .order_by(c.id)
    )
    held: dict[str, list[Any]] = defaultdict(list)
    with store.read(replay.db) as connection:
        for row in connection.execute(query):
            held[row.external_id].append(row)
    return held


# --- what customers say --------------------------------------------------------------------------------


def _answer(replay: Replay, since: datetime, at: datetime) -> None:
    """Some of those who were sent something since then answer: a question by its page or a score, else a few words."""
    loaded = releases.current(replay.db, replay.settings)
    if loaded is None:
        return
    m = _messages.c
    query = (
        select(m.id, m.campaign, m.step, m.channel, m.sent_at, _contacts.c.address, _customers.c.external_id)
        .join(_contacts, _contacts.c.id == m.contact_id)
        .join(_customers, _customers.c.id == m.customer_id)
        .where(m.status == Status.SENT, m.sent_at >= since, m.sent_at < at, m.channel.in_(("email", "sms", "whatsapp")))
        .order_by(_customers.c.external_id, m.campaign, m.step)
    )
    with store.read(replay.db) as connection:
        rows = connection.execute(query).all()
    heard = []
    for row in rows:
        dice = _dice(row.external_id, row.campaign, row.step, row.sent_at.date())
        said_at = row.sent_at + (at - row.sent_at) * dice.random()
        asked = _asked(loaded, row)
        if asked is not None and row.channel == "email":
            _tap(replay, row.id, asked, dice, said_at)
        elif row.channel != "email" and (words := _words(asked, dice)):
            name = f"demo:{row.external_id}:{row.campaign}:{row.step}:{row.sent_at.date()}"
            heard.append(InboundEvent(name, "reply", said_at, address=row.address, text=words, channel=row.channel))
    inbox.accept(replay.db, replay.settings, at, "demo", heard)
    inbox.receive(replay.db, replay.settings, at)


def _asked(loaded: Loaded, row: Any) -> Survey | None:
    campaign = loaded.campaigns.get(row.campaign)
    step = next((step for step in campaign.steps if step.id == row.step), None) if campaign else None
    return loaded.settings.surveys[step.survey] if step and step.survey else None


def _score(survey: Survey, dice: random.Random) -> int:
    lowest, _ = surveys.ends(survey.scale)
    weights = SCORES[survey.scale]
    return dice.choices(range(lowest, lowest + len(weights)), weights)[0]


def _words(asked: Survey | None, dice: random.Random) -> str:
    if asked is not None:
        return str(_score(asked, dice)) if dice.random() < ANSWERED else ""
    return dice.choices((*WRITES, ""), (*WRITES.values(), 1 - sum(WRITES.values())))[0]


def _tap(replay: Replay, message: int, asked: Survey, dice: random.Random, at: datetime) -> None:
    """Answer on the page of the e-mail's link."""
    if dice.random() >= ANSWERED:
        return
    with store.read(replay.db) as connection:
        kinds = ("survey", "survey_score")
        query = select(_links.c.token).where(_links.c.message_id == message, _links.c.kind.in_(kinds))
        token = connection.execute(query.order_by(_links.c.token).limit(1)).scalar()
    if token is not None:
        surveys.answer(replay.db, replay.settings, at, token, {asked.name: _score(asked, dice)}, {})


# --- what the staff does --------------------------------------------------------------------------------


def _work(replay: Replay, at: datetime) -> None:
    """Every call that may be made is made; cases that customers opened by writing are answered and closed."""
    while (opened := tasks.open_next(replay.db, replay.settings, at)) is not None:
        dice = _dice("call", opened.task.customer, opened.task.campaign, opened.task.calls)
        result = dice.choices((tasks.Result.REACHED, tasks.Result.NO_ANSWER, tasks.Result.WRONG_NUMBER), (65, 30, 5))[0]
        tasks.done(replay.db, replay.settings, opened.task.id, result, at)
    c = _cases.c
    query = select(c.external_id, c.kind).where(
        c.closed_at.is_(None), c.opened_by == "reply", c.opened_at < at - CLOSED_AFTER
    )
    with store.read(replay.db) as connection:
        waiting = connection.execute(query.order_by(c.external_id)).all()
    for row in waiting:
        cases.answer(replay.db, at, row.external_id, "", "ana")
        outcomes: Mapping[str, int] = (
            {"kept": 3, "lost": 7} if row.kind == "cancellation" else {"resolved": 7, "unresolved": 3}
        )
        outcome = _dice("close", row.external_id).choices(list(outcomes), list(outcomes.values()))[0]
        cases.close(replay.db, at, row.external_id, outcome, "", "ana")
