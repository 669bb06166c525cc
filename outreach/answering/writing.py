"""Writing: an answer, and the message row that it goes out as."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from outreach import arms, store
from outreach.campaigns import ANSWERS, Campaign, Step, Trigger
from outreach.models import Customer, Message, ReplyAnswer, Status, table
from outreach.values import Duration

PRIORITY = 1_001  # before anything else: somebody waits for it
ANSWER = "answer"  # the purpose of what answers within a day

_answers, _messages, _customers = table(ReplyAnswer), table(Message), table(Customer)


@dataclass(frozen=True)
class ToSend:
    """An answer to be written."""

    key: str  # the same again is the same answer
    kind: str  # opted_out | person | automatic
    reply_id: int
    customer_id: int
    contact_id: int
    channel: str
    expires_at: datetime
    template: str = ""
    subject: str = ""
    text: str = ""
    by: str = ""
    menu: str = ""
    purpose: str = ANSWER


def write(connection: Connection, secret: bytes, now: datetime, release: int, answer: ToSend) -> int | None:
    """Write the answer and its message, due at once; gives the answer's id, or None where its key is known."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    into = dialect.insert(_answers).values(**_answer(answer, now)).on_conflict_do_nothing(index_elements=["key"])
    number = connection.execute(into.returning(_answers.c.id)).scalar()
    if number is None:
        return None
    who = select(_customers.c.external_id).where(_customers.c.id == answer.customer_id)
    name = connection.execute(who).scalar_one()
    row = _message(answer, now, release) | {
        "record_id": number,
        "public_id": store.public_id(secret, ANSWERS, answer.kind, name, answer.key),
    }
    store.insert_many(connection, _messages, [row])
    return int(number)


def _answer(answer: ToSend, now: datetime) -> dict[str, Any]:
    names = (
        "key",
        "kind",
        "reply_id",
        "customer_id",
        "contact_id",
        "channel",
        "template",
        "subject",
        "text",
        "by",
        "menu",
    )
    return {name: getattr(answer, name) for name in names} | {"at": now}


def _message(answer: ToSend, now: datetime, release: int) -> dict[str, Any]:
    return {
        "campaign": ANSWERS,
        "step": answer.kind,
        "customer_id": answer.customer_id,
        "occasion": answer.key,
        "occasion_at": now,
        "enrolment_id": 0,
        "arm": arms.CONTACT,
        "purpose": answer.purpose,
        "priority": PRIORITY,
        "status": Status.PLANNED.value,
        "detail": "",
        "due_at": now,
        "expires_at": answer.expires_at,
        "ready_at": now,
        "channel": answer.channel,
        "refused": "",
        "attempts": 0,
        "release": release,
        "created_at": now,
    }


def answer_campaign(kind: str, template: str, channel: str, purpose: str) -> Campaign:
    """What an answer is to the rules: a step of its kind, on the reply's own channel."""
    step = Step(kind, Duration(), (channel,), template, purpose=purpose)
    return Campaign(ANSWERS, "Answers to replies", Trigger("date"), (step,), purpose=purpose)
