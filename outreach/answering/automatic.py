"""
Automatic answers: what `replies.yaml` answers by itself, at most once to each reply.

Two machines never talk for long: what a machine wrote is not answered, nor the same words again within an
hour, and nobody gets more than three automatic answers an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from outreach import cases
from outreach.answering.writing import ToSend, write
from outreach.campaigns import AUTOMATIC
from outreach.cases import Opening
from outreach.intents import Certainty, Intent, Reading
from outreach.models import Reply, ReplyAnswer, table
from outreach.releases import Loaded
from outreach.replies_file import AutoAnswer, typed

MOST, WITHIN = 3, timedelta(hours=1)  # so many answers to one contact
OFFERED = timedelta(hours=24)  # how long a menu's choices are understood
LATE = timedelta(minutes=15)  # after the reply came, an automatic answer only confuses
PERSON_CASE = "person"  # category of the case of who wants to talk to a person

_answers, _replies = table(ReplyAnswer), table(Reply)


@dataclass(frozen=True)
class Heard:
    """A reply of somebody known, as far as an automatic answer needs it."""

    event_id: str
    reply_id: int
    customer_id: int
    contact_id: int
    channel: str
    text: str
    reading: Reading
    at: datetime
    received_at: datetime
    answers_survey: bool = False


def respond(connection: Connection, secret: bytes, loaded: Loaded, now: datetime, heard: Sequence[Heard]) -> list[int]:
    """
    Write the automatic answers to these replies; gives their ids.

    `person: yes` opens a case: call it after every other lock has been taken, as `cases.open_case` wants.
    """
    written: list[int] = []
    if not loaded.replies.answers:
        return written
    for one in sorted(heard, key=lambda each: (each.at, each.event_id)):
        if now >= one.received_at + LATE or not _may_be_answered(one) or one.channel not in loaded.settings.channels:
            continue
        before = _before(connection, one)
        chosen = _chosen(loaded, one, before)
        if chosen is None or _braked(one, before, now):
            continue
        number = write(connection, secret, now, loaded.number, _to_send(one, chosen))
        written += [number] if number is not None else []
        if chosen.person:
            cases.open_case(connection, loaded.settings, now, _case(one))
    return written


def _may_be_answered(one: Heard) -> bool:
    if one.answers_survey or one.reading.opt_out is not Certainty.NONE:
        return False
    return Intent.OUT_OF_OFFICE not in one.reading and Intent.OPT_IN not in one.reading


def _before(connection: Connection, one: Heard) -> Sequence[Any]:
    """The automatic answers to whoever wrote, of the last day, the latest first, with what each answered."""
    c = _answers.c
    query = (
        select(c.at, c.channel, c.menu, _replies.c.text)
        .join(_replies, _replies.c.id == c.reply_id)
        .where(c.contact_id == one.contact_id, c.kind == AUTOMATIC, c.at > one.received_at - OFFERED)
        .order_by(c.at.desc(), c.id.desc())
    )
    return connection.execute(query).all()


def _chosen(loaded: Loaded, one: Heard, before: Sequence[Any]) -> AutoAnswer | None:
    """What the choice from the menu that was offered last, else the reply's meaning, is answered with."""
    latest = next((row for row in before if row.channel == one.channel), None)
    if latest is not None and latest.menu:
        choice = loaded.replies.options.get(latest.menu, {}).get(typed(one.text))
        if choice is not None:
            return choice
    answers = loaded.replies.answers
    return next((answers[intent] for intent in one.reading.intents if intent in answers), None)


def _braked(one: Heard, before: Sequence[Any], now: datetime) -> bool:
    lately = [row for row in before if row.at > now - WITHIN]
    if len(lately) >= MOST:
        return True
    menu = next((row.menu for row in before if row.channel == one.channel), "")
    return not menu and any(typed(row.text) == typed(one.text) for row in lately)


def _to_send(one: Heard, chosen: AutoAnswer) -> ToSend:
    return ToSend(
        key=f"{AUTOMATIC}:{one.event_id}",
        kind=AUTOMATIC,
        reply_id=one.reply_id,
        customer_id=one.customer_id,
        contact_id=one.contact_id,
        channel=one.channel,
        expires_at=one.received_at + LATE,
        template=chosen.template,
        menu=chosen.options or "",
    )


def _case(one: Heard) -> Opening:
    return Opening(
        Intent.QUESTION.value,
        one.customer_id,
        one.at,
        "reply",
        reply_id=one.reply_id,
        category=PERSON_CASE,
        key=f"reply:{one.event_id}:{PERSON_CASE}",
    )
