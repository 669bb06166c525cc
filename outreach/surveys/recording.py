"""
Recording an answer: the answer itself, the fact that it was given, and the news that starts campaigns.

Every answer given within a day of the first is kept as an `answered` event; the latest of them is the
answer. An earlier one that is heard of late moves the day, and what then lies beyond it is dropped. So
what stands depends on the set of answers, never on the order in which they were heard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from outreach import store
from outreach.models import Answer, Fresh, Message, MessageEvent, table
from outreach.settings import Settings, Survey
from outreach.store import Lock, among
from outreach.surveys.scores import ends

CHANGEABLE = timedelta(days=1)  # from the first answer on
LONGEST_COMMENT = 1_000  # characters
PROMOTERS = (9, 10)  # of an NPS question

_answers, _events, _fresh, _messages = table(Answer), table(MessageEvent), table(Fresh), table(Message)


@dataclass(frozen=True)
class Given:
    """One answer as it was given. `score` is on the survey's scale; yes is 1 and no is 0."""

    survey: str
    customer_id: int
    occasion: str  # of the message that asked
    message_id: int | None  # that asked
    score: int
    channel: str  # page | click | the channel of a reply | call
    at: datetime
    comment: str = ""


@dataclass(frozen=True)
class Said:
    """An answer as its event keeps it."""

    event_id: str
    at: datetime
    score: int
    channel: str
    message_id: int | None
    comment: str

    @property
    def rank(self) -> tuple[Any, ...]:
        """The latest stands; of two at one instant always the same one."""
        return self.at, self.score, self.channel, self.message_id or 0, self.comment


def record(connection: Connection, settings: Settings, now: datetime, given: Given) -> bool:
    """
    Take over an answer within the caller's writing transaction; True if it counts.

    It counts if it was given within a day of the first to this survey on this occasion; the same one
    again changes nothing. What was given later than that changes nothing either, and gives False,
    as does an answer to a survey that the settings no longer have.

    Raises:
        ValueError: the score is not on the survey's scale.
    """
    survey = settings.surveys.get(given.survey)
    if survey is None:
        return False
    low, high = ends(survey.scale)
    if not low <= given.score <= high:
        raise ValueError(f"{given.score} is not on the scale {survey.scale} of {survey.name}")
    store.lock(connection, Lock.FRESH)  # one answer at a time: what stands rests on all that were given
    new = _said(given, now)
    earlier = history(connection, given.customer_id, given.survey, given.occasion)
    first = min(one.at for one in (new, *earlier))
    if new.at > first + CHANGEABLE:
        return False
    _drop(connection, [one for one in earlier if one.at > first + CHANGEABLE])
    kept = [one for one in earlier if one.at <= first + CHANGEABLE]
    if new.event_id not in {one.event_id for one in kept}:
        connection.execute(insert(_events).values(_event(given, new)))
        kept.append(new)
    _stand(connection, survey, given, first, max(kept, key=lambda one: one.rank), new)
    return True


def history(connection: Connection, customer_id: int, survey: str, occasion: str) -> list[Said]:
    """The answers that a customer gave to a survey on one occasion, oldest first."""
    c = _events.c
    query = select(c.event_id, c.message_id, c.at, c.detail).where(c.customer_id == customer_id, c.kind == "answered")
    return [
        Said(
            row.event_id,
            row.at,
            row.detail["score"],
            row.detail["channel"],
            row.message_id,
            row.detail.get("comment", ""),
        )
        for row in connection.execute(query.order_by(c.at, c.event_id))
        if (row.detail.get("survey"), row.detail.get("occasion")) == (survey, occasion)
    ]


def clean(comment: str) -> str:
    """A comment as it is kept: at most so long, without what no database keeps."""
    text = comment.replace("\x00", "").encode("utf-8", "replace").decode().replace("\r\n", "\n").strip()
    return text[:LONGEST_COMMENT].rstrip()


def _said(given: Given, now: datetime) -> Said:
    at, comment = min(given.at, now), clean(given.comment)
    parts = (given.survey, given.customer_id, given.occasion, given.message_id, given.score, given.channel)
    content = json.dumps([*parts, store.micros(at), comment])
    name = f"answer:{hashlib.sha256(content.encode()).hexdigest()[:40]}"
    return Said(name, at, given.score, given.channel, given.message_id, comment)


def _event(given: Given, said: Said) -> dict[str, Any]:
    detail: dict[str, Any] = {"survey": given.survey, "score": said.score, "channel": said.channel}
    return {
        "event_id": said.event_id,
        "message_id": said.message_id,
        "customer_id": given.customer_id,
        "kind": "answered",
        "at": said.at,
        "detail": detail | {"occasion": given.occasion} | ({"comment": said.comment} if said.comment else {}),
    }


def _drop(connection: Connection, late: Iterable[Said]) -> None:
    if names := [one.event_id for one in late]:
        connection.execute(delete(_events).where(among(_events.c.event_id, names)))


def _stand(connection: Connection, survey: Survey, given: Given, first: datetime, stands: Said, new: Said) -> None:
    """Make the answer the one that stands, and news for campaigns if it was another before."""
    c = _answers.c
    key = (c.survey == given.survey, c.customer_id == given.customer_id, c.occasion == given.occasion)
    before = connection.execute(select(_answers).where(*key)).first()
    values: dict[str, Any] = {"at": first}
    if before is None or (before.score, before.changed_at) != (stands.score, stands.at) or stands is new:
        values |= _content(connection, survey, stands)
    if before is None:
        whose = {"survey": given.survey, "customer_id": given.customer_id, "occasion": given.occasion}
        number = connection.execute(insert(_answers).values(**whose, **values).returning(c.id)).scalar_one()
    else:
        number = before.id
        connection.execute(update(_answers).where(c.id == number).values(values))
        if (before.score, before.changed_at) == (stands.score, stands.at):
            return
    news = {"kind": "survey.answered", "record_id": number, "customer_id": given.customer_id, "at": stands.at}
    connection.execute(insert(_fresh).values(news))


def _content(connection: Connection, survey: Survey, stands: Said) -> dict[str, Any]:
    """What the answer's row says of the one that stands, judged by the settings as they are."""
    m = _messages.c
    asked = connection.execute(select(m.campaign, m.step).where(m.id == stands.message_id)).first()
    low, high = satisfied(survey)
    return {
        "kind": survey.kind,
        "scale": survey.scale,
        "score": stands.score,
        "satisfied_from": low,
        "satisfied_to": high,
        "comment": stands.comment,
        "channel": stands.channel,
        "message_id": stands.message_id,
        "campaign": asked.campaign if asked else "",
        "step": asked.step if asked else "",
        "changed_at": stands.at,
    }


def satisfied(survey: Survey) -> tuple[int, int]:
    """The scores that count as satisfied, both included; of an NPS question, those that promote."""
    if survey.kind == "nps":
        return PROMOTERS
    if survey.scale == "yes_no":
        return 1, 1
    return survey.satisfied or (ends(survey.scale)[1], ends(survey.scale)[1])
