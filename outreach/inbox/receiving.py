"""Receiving: the stage that makes of each kept event what there is: facts, replies, addresses where nobody is."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from outreach import answering, cases, releases, store, surveys
from outreach.answering import Heard, OptedOut
from outreach.cases import Opening
from outreach.errors import ReleaseError
from outreach.inbox import matching, opting, words
from outreach.inbox.accepting import SILENCING, contacts_of
from outreach.intents import CASES, Certainty, Intent, Reading
from outreach.models import Fresh, Inbox, Installation, Reply, table
from outreach.releases import Loaded
from outreach.settings import Settings, Survey
from outreach.store import Database, Lock, among
from outreach.surveys import Given

ASKED = timedelta(days=7)  # how long a question is answered by a score, though other messages came after it
WORDS_OF_SCORE = 2  # a longer answer is kept as the comment, too
AT_ONCE = 500  # events a transaction

_inbox, _replies, _fresh, _here = table(Inbox), table(Reply), table(Fresh), table(Installation)


@dataclass(frozen=True)
class ReceiveCounts:
    """What the stage made of the events that waited."""

    handled: int = 0
    facts: int = 0  # about messages of ours
    replies: int = 0
    strangers: int = 0  # replies of nobody known here
    unmatched: int = 0  # facts about messages that are not ours

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _Said:
    """A reply of somebody known, once it is read."""

    event_id: str
    customer: int
    everyone: tuple[int, ...]  # who has the address
    message: Any  # that it answers
    reading: Reading
    given: Given | None  # the answer that it gives to the survey of that message
    at: datetime
    order: int | None
    channel: str
    contact: int
    received_at: datetime
    confirm: bool  # it is an opt-out, and nobody else tells them that it worked
    text: str


@dataclass
class _Made:
    """What one batch comes to."""

    events: list[dict[str, Any]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    said: list[_Said] = field(default_factory=list)
    unreachable: list[opting.Unreachable] = field(default_factory=list)
    handled: list[dict[str, Any]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)


def receive(
    db: Database,
    settings: Settings,
    now: datetime,
    *,
    limit: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> ReceiveCounts:
    """
    Make of every event kept and not handled what there is, at most `limit` of them, oldest first.

    Any number of processes may do so at once; each event is handled once. `stop` is asked before each
    transaction. Statuses of messages are not touched: what is in doubt is settled by `reconcile`.

    A reply is read: its score answers the survey of the message it answers, what it complains of or
    asks for opens a case, and a doubtful opt-out opens one for everybody who has the address.

    Raises:
        DatabaseError: what was not handled is taken up by the next tick.
    """
    tally: Counter[str] = Counter()
    started = time.monotonic()
    loaded = _release(db, settings)
    while not (stop and stop()):
        size = AT_ONCE if limit is None else min(AT_ONCE, limit - tally["handled"])
        done = _batch(db, settings, loaded, now, size) if size > 0 else Counter()
        tally.update(done)
        if done["handled"] < size or size <= 0:
            break
    counts = ReceiveCounts(**tally)
    with store.write(db) as connection:
        finished = now + timedelta(seconds=time.monotonic() - started)
        store.record_tick(connection, "receive", now, finished, counts.as_json())
    return counts


_WAITING = (
    select(_inbox)
    .where(text("handled_at IS NULL"))  # a literal: only then do both databases use the partial index
    .order_by(_inbox.c.id)
    .with_for_update(skip_locked=True)
)


def _release(db: Database, settings: Settings) -> Loaded | None:
    """What is in force, to tell which survey a message asks; replies are taken in whatever is wrong with it."""
    try:
        return releases.current(db, settings)
    except ReleaseError:
        return None


def _batch(db: Database, settings: Settings, loaded: Loaded | None, now: datetime, size: int) -> Counter[str]:
    with store.read(db) as connection:  # a tick that finds nothing takes no lock
        if connection.execute(select(_inbox.c.id).where(text("handled_at IS NULL")).limit(1)).first() is None:
            return Counter()
    with store.write(db) as connection:
        rows = connection.execute(_WAITING.limit(size)).all()
        made = _Made(tally=Counter({"handled": len(rows)}))
        written = [row for row in rows if is_written(row)]
        _read_replies(connection, db.secret, loaded, written, made)
        _read_facts(connection, [row for row in rows if not is_written(row)], made)
        opting.unreachable(connection, db.secret, made.unreachable)
        _write(connection, made, now)
        _follow(connection, loaded.settings if loaded else settings, made.said, now)
        if loaded is not None:
            _answer(connection, db.secret, loaded, made.said, now)
    return made.tally


def is_written(row: Any) -> bool:
    """Whether a person wrote it, rather than a provider reported it."""
    return row.kind == "reply" or (row.kind == "opted_out" and bool(row.text))


# --- what people wrote -------------------------------------------------------------------------------


def _read_replies(
    connection: Connection, secret: bytes, loaded: Loaded | None, rows: Sequence[Any], made: _Made
) -> None:
    if not rows:
        return
    whose = contacts_of(connection, secret, rows)
    customers, _ = matching.people(connection, {i for ids in whose.values() for i in ids})
    named = matching.named(connection, rows)
    for row in rows:
        contacts = whose[row.id]
        theirs = sorted({customer for i in contacts for customer in customers.get(i, ())})
        _read_reply(connection, loaded, row, contacts, theirs, named.get(row.id), made)


def _read_reply(
    connection: Connection,
    loaded: Loaded | None,
    row: Any,
    contacts: Sequence[int],
    theirs: Sequence[int],
    named: Any,
    made: _Made,
) -> None:
    message = named if named is not None else _answered(connection, loaded, contacts, row)
    customer = _whose(message, theirs)
    reading = words.reading(row.text, "STOP" if row.kind in SILENCING else row.code)
    given = _given(loaded, message, customer, reading, row)
    kind = "rated" if given else "auto_replied" if Intent.OUT_OF_OFFICE in reading else "replied"
    detail = {"channel": row.channel} | ({"provider_id": message.provider_id} if named and named.provider_id else {})
    for one in sorted({*theirs, *([customer] if customer is not None else [])}):
        about = message if message is not None and message.customer_id == one else None
        made.events.append(_event(row, kind, one, about, detail, first=one == customer))
        if reading.opt_out is Certainty.FINAL:
            made.events.append(_event(row, "opted_out", one, about, detail, first=False))
    order, case = matching.subject(message) if message is not None else (None, None)
    if contacts:
        made.replies.append(
            {
                "event_id": row.event_id,
                "channel": row.channel,
                "contact_id": contacts[0],
                "customer_id": customer,
                "message_id": message.id if message is not None else None,
                "order_id": order,
                "case_id": case,
                "text": row.text,
                "at": store.micros(row.at),
                "intents": json.dumps([str(intent) for intent in reading.intents]),
                "score": given.score if given else reading.score,
            }
        )
        if customer is not None:
            everyone = tuple(sorted({*theirs, customer}))
            made.said.append(
                _Said(
                    row.event_id,
                    customer,
                    everyone,
                    message,
                    reading,
                    given,
                    row.at,
                    order,
                    row.channel,
                    contacts[0],
                    row.received_at,
                    confirm=reading.opt_out is Certainty.FINAL and not _told_by_provider(row),
                    text=row.text,
                )
            )
        made.tally["replies"] += 1
        made.tally["strangers"] += customer is None
    made.handled.append(_handled(row, contacts, message))


def _answered(connection: Connection, loaded: Loaded | None, contacts: Sequence[int], row: Any) -> Any:
    """
    The message that a reply answers, where nobody names it: the last one, or the question that it gives a score to.

    What was sent after a question, such as a notice, does not ask; a person's answer and a menu do.
    """
    recent = matching.latest(connection, contacts, row.channel, row.at) if contacts else ()
    for message in recent:
        survey = _asked(loaded, message)
        if survey is not None and message.sent_at > row.at - ASKED:
            return message if surveys.read_score(survey, row.text) is not None else recent[0]
        if matching.asks_itself(connection, message):
            break
    return recent[0] if recent else None


def _asked(loaded: Loaded | None, message: Any) -> Survey | None:
    """The survey that a message asks."""
    campaign = loaded.campaigns.get(message.campaign) if loaded is not None else None
    step = next((step for step in campaign.steps if step.id == message.step), None) if campaign else None
    return loaded.settings.surveys.get(step.survey) if loaded is not None and step is not None and step.survey else None


def _given(loaded: Loaded | None, message: Any, customer: int | None, reading: Reading, row: Any) -> Given | None:
    """The answer that a reply gives to the survey of the message it answers."""
    if loaded is None or message is None or message.customer_id != customer or Intent.OUT_OF_OFFICE in reading:
        return None
    survey = _asked(loaded, message)
    score = surveys.read_score(survey, row.text) if survey is not None else None
    if survey is None or score is None or reading.opt_out is Certainty.FINAL:
        return None
    comment = row.text if len(row.text.split()) > WORDS_OF_SCORE else ""
    return Given(survey.name, message.customer_id, message.occasion, message.id, score, row.channel, row.at, comment)


# The words to which Twilio itself answers: www.twilio.com/docs/messaging/tutorials/advanced-opt-out
_TWILIOS = frozenset({"stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"})


def _told_by_provider(row: Any) -> bool:
    """Whether the provider has told them already that they are opted out."""
    if row.provider != "twilio":
        return False
    return row.code.upper() == "STOP" or (row.channel == "sms" and row.text.strip().lower() in _TWILIOS)


def _whose(message: Any, theirs: Sequence[int]) -> int | None:
    """The customer that a reply is kept under: whom the message went to, else the first who has the address."""
    if message is not None and (message.customer_id in theirs or not theirs):
        return int(message.customer_id)
    return theirs[0] if theirs else None


# --- what providers reported -------------------------------------------------------------------------


def _read_facts(connection: Connection, rows: Sequence[Any], made: _Made) -> None:
    if not rows:
        return
    named = matching.named(connection, rows)
    for row in rows:
        message = named.get(row.id)
        if message is not None:
            detail = {"channel": message.channel or row.channel, "provider_id": row.provider_id}
            more = {"code": row.code, "detail": row.detail, "fault": row.fault}
            detail |= {name: value for name, value in more.items() if value}
            made.events.append(_event(row, row.kind, message.customer_id, message, detail, first=True))
        if row.kind == "bounced" and (place := matching.place(row.channel, row.address or "")) is not None:
            source = f"{row.channel} {row.code or row.detail}".strip()
            made.unreachable.append(opting.Unreachable(place, row.channel, row.at, source))
        made.tally["facts" if message is not None else "unmatched"] += 1
        own = [message.contact_id] if message is not None and message.contact_id is not None else []
        made.handled.append(_handled(row, own, message))


# --- writing -----------------------------------------------------------------------------------------


def _event(row: Any, kind: str, customer: int, message: Any, detail: dict[str, Any], *, first: bool) -> dict[str, Any]:
    """A fact's row; where one event makes several, each further one's id says of what and of whom it is."""
    return {
        "event": row.event_id if first else f"{row.event_id}:{kind}:{customer}",
        "message": message.id if message is not None else None,
        "customer": customer,
        "kind": kind,
        "at": store.micros(row.at),
        "detail": json.dumps(detail),
    }


def _handled(row: Any, contacts: Iterable[int], message: Any) -> dict[str, Any]:
    contact = next(iter(contacts), None)
    return {"of": row.id, "contact": contact, "message": message.id if message is not None else None}


_EVENT = text(
    "INSERT INTO events (event_id, message_id, customer_id, kind, at, detail)"
    " VALUES (:event, :message, :customer, :kind, :at, :detail) ON CONFLICT (event_id) DO NOTHING"
)
_REPLY = text(
    "INSERT INTO replies"
    " (event_id, channel, contact_id, customer_id, message_id, order_id, case_id, text, at, intents, score) VALUES"
    " (:event_id, :channel, :contact_id, :customer_id, :message_id, :order_id, :case_id, :text, :at, :intents, :score)"
    " ON CONFLICT (event_id) DO NOTHING"
)
_HANDLED = text("UPDATE inbox SET handled_at = :now, contact_id = :contact, message_id = :message WHERE id = :of")


def _write(connection: Connection, made: _Made, now: datetime) -> None:
    if made.events:
        connection.execute(_EVENT, made.events)
    if made.replies:
        connection.execute(_REPLY, made.replies)
    if made.handled:
        connection.execute(_HANDLED, [{**one, "now": store.micros(now)} for one in made.handled])


# --- what follows from it ----------------------------------------------------------------------------

_BY_EVENT = select(_replies.c.event_id, _replies.c.id).where(among(_replies.c.event_id, "ids"))
_LOOK_BACK = select(_here.c.look_back)


def _follow(connection: Connection, settings: Settings, said: Sequence[_Said], now: datetime) -> None:
    """Answers to surveys, cases, and the news that campaigns start on: after every other lock has been taken."""
    if not said:
        return
    store.lock(connection, Lock.FRESH)
    found = connection.execute(_BY_EVENT, {"ids": [one.event_id for one in said]})
    numbers: dict[str, int] = {row.event_id: row.id for row in found}
    since = now - timedelta(days=connection.execute(_LOOK_BACK).scalar_one())
    news = []
    for one in said:
        if one.given is not None:
            surveys.record(connection, settings, now, one.given)
        for opening in _openings(one, numbers[one.event_id]):
            cases.open_case(connection, settings, now, opening)
        if one.at >= since:
            record = numbers[one.event_id]
            news.append({"kind": "reply.received", "record_id": record, "customer_id": one.customer, "at": one.at})
    store.insert_many(connection, _fresh, news)


def _answer(connection: Connection, secret: bytes, loaded: Loaded, said: Sequence[_Said], now: datetime) -> None:
    """Confirm opt-outs, and answer by itself what the release answers so."""
    if not said:
        return
    found = connection.execute(_BY_EVENT, {"ids": [one.event_id for one in said]})
    numbers: dict[str, int] = {row.event_id: row.id for row in found}
    opted_out = [
        OptedOut(one.event_id, numbers[one.event_id], one.customer, one.contact, one.channel, one.at, one.received_at)
        for one in said
        if one.confirm
    ]
    answering.confirm(connection, secret, loaded, now, opted_out)
    heard = [
        Heard(
            one.event_id,
            numbers[one.event_id],
            one.customer,
            one.contact,
            one.channel,
            one.text,
            one.reading,
            one.at,
            one.received_at,
            answers_survey=one.given is not None,
        )
        for one in said
    ]
    answering.respond(connection, secret, loaded, now, heard)


def _openings(said: _Said, reply: int) -> list[Opening]:
    """The cases that a reply opens; a question only where it is all that is said."""
    kinds = [intent for intent in CASES if intent in said.reading]
    if len(kinds) > 1:
        kinds = [kind for kind in kinds if kind is not Intent.QUESTION]
    message = said.message.id if said.message is not None else None
    only_scores = said.given is not None and not said.given.comment  # “2 no” chooses, and means nothing else
    doubtful = said.everyone if said.reading.opt_out is Certainty.DOUBTFUL and not only_scores else ()
    doubts = [
        Opening(
            Intent.QUESTION.value,
            customer,
            said.at,
            "reply",
            reply_id=reply if customer == said.customer else None,
            message_id=message if customer == said.customer else None,
            category=cases.OPT_OUT,
            key=f"reply:{said.event_id}:{cases.OPT_OUT}:{customer}",
        )
        for customer in doubtful
    ]
    return doubts + [
        Opening(
            kind.value,
            said.customer,
            said.at,
            "reply",
            reply_id=reply,
            message_id=message,
            order_id=said.order,
            key=f"reply:{said.event_id}:{kind}",
        )
        for kind in kinds
    ]
