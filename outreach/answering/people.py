"""What people do with a reply: answer it, and say what it means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from outreach import facts, gates, releases, store, timing
from outreach.answering.writing import ANSWER, ToSend, answer_campaign, write
from outreach.campaigns import ANSWERS
from outreach.cases.writing import Line, begin, write_lines
from outreach.errors import NotFound, OutreachError, ReleaseError
from outreach.facts import Item
from outreach.gates import End
from outreach.intents import Intent
from outreach.models import Case, Customer, Message, MessageContent, Reply, ReplyAnswer, table
from outreach.releases import Loaded
from outreach.settings import Settings
from outreach.store import Database
from outreach.values import Duration

PERSON = "person"
WINDOW = timedelta(hours=24)  # www.twilio.com/docs/whatsapp/key-concepts; Messenger's standard messaging window
WINDOWED = ("whatsapp", "messenger")  # channels on which nothing may be written freely after it
LATER = Duration(days=3)  # how long an answer after the window may wait for its hours
LONGEST = {"sms": 1_600, "whatsapp": 1_600, "messenger": 1_600}  # characters, as Twilio takes them

_replies, _customers, _messages = table(Reply), table(Customer), table(Message)
_contents, _answers, _cases = table(MessageContent), table(ReplyAnswer), table(Case)


@dataclass(frozen=True)
class Addressed:
    """Whom an answer would reach."""

    customer: str  # the shop's own id
    channel: str


@dataclass(frozen=True)
class Answered:
    """An answer that was written, and goes out by the next dispatch."""

    id: int
    channel: str
    new: bool  # False: the very same had been written before


@dataclass(frozen=True)
class Became:
    """Where an answer's message stands."""

    status: str
    reason: str
    detail: str
    until: datetime | None  # of what waits


def answer(
    db: Database, settings: Settings, now: datetime, reply: int, *, text: str = "", template: str = "", by: str = ""
) -> Answered:
    """
    Write what somebody of the shop answers to a reply, by `text` or by a published `template`.

    It goes out on the reply's own channel, to the address that wrote. Within 24 hours of what they last
    wrote there neither hours nor caps apply; afterwards they do, and WhatsApp and Messenger take nothing.
    The first answer's time is kept with the reply and its case. The same answer again is not sent again.

    Raises:
        NotFound: there is no such reply, or no such template.
        OutreachError: it cannot go out: the rule that stops it stands in the text.
        ReleaseError: nothing is published.
    """
    loaded = _release(db, settings, text, template)
    with store.write(db) as connection:
        row, one = _checked(connection, db, loaded, now, reply, text, template, by)
        number = write(connection, db.secret, now, loaded.number, one)
        if number is None:
            known = connection.execute(select(_answers.c.id).where(_answers.c.key == one.key)).scalar_one()
            return Answered(known, one.channel, new=False)
        _note(connection, row, number, now, by)
    return Answered(number, one.channel, new=True)


def addressed(
    db: Database, settings: Settings, now: datetime, reply: int, *, text: str = "", template: str = ""
) -> Addressed:
    """Whom an answer would reach, and by which channel; raises as `answer` would, and writes nothing."""
    loaded = _release(db, settings, text, template)
    with store.read(db) as connection:
        row, one = _checked(connection, db, loaded, now, reply, text, template, "")
        c = _customers.c
        customer = connection.execute(select(c.external_id).where(c.id == row.customer_id)).scalar_one()
    return Addressed(customer, one.channel)


def _release(db: Database, settings: Settings, text: str, template: str) -> Loaded:
    if not text.strip() and not template:
        raise OutreachError("the answer is empty: give --text or --template")
    loaded = releases.current(db, settings)
    if loaded is None:
        raise ReleaseError("nothing is published: answers go out by the rules of a release; run `outreach publish`")
    return loaded


def _checked(
    connection: Connection,
    db: Database,
    loaded: Loaded,
    now: datetime,
    reply: int,
    text: str,
    template: str,
    by: str,
) -> tuple[Any, ToSend]:
    """The reply, and the answer to it, which every rule lets pass."""
    row = connection.execute(select(_replies).where(_replies.c.id == reply)).first()
    if row is None:
        raise NotFound(f"there is no reply {reply}: `outreach replies list` shows those there are")
    one = _to_send(connection, loaded, now, row, text.strip(), template, by)
    _may_go(connection, db, loaded, now, one)
    return row, one


def _to_send(
    connection: Connection, loaded: Loaded, now: datetime, row: Any, text: str, template: str, by: str
) -> ToSend:
    if row.customer_id is None:
        raise OutreachError(f"reply {row.id} came from nobody known here: import the customer first")
    if row.channel not in loaded.settings.channels:
        raise OutreachError(f"reply {row.id} came by {row.channel}, which outreach.yaml does not configure")
    if len(text) > (most := LONGEST.get(row.channel, len(text))):
        raise OutreachError(f"the answer has {len(text)} characters: {row.channel} takes {most}")
    locale = connection.execute(select(_customers.c.locale).where(_customers.c.id == row.customer_id)).scalar()
    if template and loaded.templates.path(template, row.channel, locale) is None:
        raise NotFound(f"release {loaded.number} has no template {template} for {row.channel}")
    last = _last_written(connection, row)
    within = now < last + WINDOW
    if not within and row.channel in WINDOWED:
        raise OutreachError(
            f"more than 24 hours have passed since they last wrote on {row.channel}, which takes no free answer any"
            " more: reach them on another channel (`outreach send`), or call"
        )
    words = hashlib.sha256(f"{template}\x1f{text}".encode()).hexdigest()[:20]
    zone = loaded.settings.business.timezone
    return ToSend(
        key=f"{PERSON}:{row.event_id}:{words}",
        kind=PERSON,
        reply_id=row.id,
        customer_id=row.customer_id,
        contact_id=row.contact_id,
        channel=row.channel,
        expires_at=last + WINDOW if within else timing.add(now, LATER, zone),
        template=template,
        subject=_subject(connection, loaded, row) if row.channel == "email" and not template else "",
        text="" if template else text,
        by=by,
        purpose=ANSWER if within else "service",
    )


def _last_written(connection: Connection, row: Any) -> datetime:
    """When whoever wrote the reply last wrote on that channel: they keep the conversation open."""
    same = (_replies.c.contact_id == row.contact_id, _replies.c.channel == row.channel)
    latest: datetime = connection.execute(
        select(_replies.c.at).where(*same).order_by(_replies.c.at.desc()).limit(1)
    ).scalar_one()
    return latest


def _subject(connection: Connection, loaded: Loaded, row: Any) -> str:
    asked = connection.execute(select(_contents.c.subject).where(_contents.c.message_id == row.message_id)).scalar()
    subject = " ".join((asked or loaded.settings.business.name).split())
    return subject if subject.lower().startswith("re:") else f"Re: {subject}"


def _may_go(connection: Connection, db: Database, loaded: Loaded, now: datetime, one: ToSend) -> None:
    """OutreachError where a gate would end it."""
    campaign = answer_campaign(one.kind, one.template, one.channel, one.purpose)
    item = Item(
        campaign, campaign.steps[0], one.customer_id, None, one.key, now, now, one.expires_at, contact_id=one.contact_id
    )
    (found,) = facts.fetch(connection, loaded.settings, [item], now, secret=db.secret)
    verdict = gates.decide(found, facts.rules(item), loaded.settings, now)
    if isinstance(verdict, End):
        why = f"{verdict.reason}" + (f" ({verdict.detail})" if verdict.detail else "")
        raise OutreachError(f"the answer may not go out: {why}; `outreach customer show` tells what is known of them")


def _note(connection: Connection, row: Any, number: int, now: datetime, by: str) -> None:
    """Keep when the reply, and the case it is about, was first answered."""
    first = (_replies.c.id == row.id, _replies.c.answered_at.is_(None))
    connection.execute(update(_replies).where(*first).values(answered_at=now))
    if row.case_id is None:
        return
    begin(connection)
    case = connection.execute(select(_cases.c.opened_at).where(_cases.c.id == row.case_id)).scalar_one()
    unanswered = (_cases.c.id == row.case_id, _cases.c.answered_at.is_(None), _cases.c.closed_at.is_(None))
    connection.execute(update(_cases).where(*unanswered).values(answered_at=max(now, case)))
    write_lines(connection, [Line(row.case_id, "answered", now, "", by, key=f"reply-answer:{number}")])


def became(db: Database, number: int) -> Became:
    """What became of an answer so far."""
    c = _messages.c
    columns = (c.status, c.reason, c.blocked_by, c.detail, c.ready_at)
    with store.read(db) as connection:
        row = connection.execute(select(*columns).where(c.campaign == ANSWERS, c.record_id == number)).one()
    waits = row.status == "planned"
    return Became(
        row.status,
        (row.blocked_by if waits else row.reason) or "",
        row.detail,
        row.ready_at if waits else None,
    )


def label(db: Database, reply: int, meanings: Sequence[str]) -> tuple[str, ...]:
    """
    Keep what a person says that a reply means, beside what the rules read; gives it in the usual order.

    Raises:
        NotFound: there is no such reply.
        OutreachError: one of these is no meaning.
    """
    wrong = next((one for one in meanings if one not in tuple(Intent)), None)
    if wrong is not None or not meanings:
        raise OutreachError(f"{wrong!r} is no meaning: write some of {', '.join(Intent)}")
    listed = tuple(one.value for one in Intent if one in meanings)
    with store.write(db) as connection:
        changed = update(_replies).where(_replies.c.id == reply).values(labels=list(listed)).returning(_replies.c.id)
        if connection.execute(changed).first() is None:
            raise NotFound(f"there is no reply {reply}: `outreach replies list` shows those there are")
    return listed
