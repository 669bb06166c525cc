"""What the pages of survey links show and take, by the token of a message's link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from outreach import releases, store
from outreach.models import Customer, Message, MessageLink, table
from outreach.settings import Settings, Survey
from outreach.store import Database
from outreach.surveys.recording import CHANGEABLE, Given, history, record, satisfied
from outreach.surveys.scores import score_of, scores

KINDS = ("survey", "survey_score")  # of links
MOST_CHANGES = 20  # of one answer: whoever changes their mind more often is no customer

_links, _messages, _customers = table(MessageLink), table(Message), table(Customer)


@dataclass(frozen=True)
class Asking:
    """One question of a page."""

    survey: Survey
    score: int | None  # what the link says, or what was answered before; None: nothing yet
    open: bool  # it may still be answered, or answered otherwise


@dataclass(frozen=True)
class Asked:
    """What the page of a survey link asks; no name, no address."""

    questions: tuple[Asking, ...]  # the link's own survey first
    locale: str | None  # the customer's own


@dataclass(frozen=True)
class Heard:
    """What was answered."""

    taken: int  # how many answers count
    satisfied: bool  # every one of them
    locale: str | None


def asked(db: Database, settings: Settings, now: datetime, token: str) -> Asked | None:
    """What the page of a survey link shows; changes nothing. None: there is no such link, or no such survey."""
    known = _known(db, settings)
    with store.read(db) as connection:
        row = connection.execute(_LINK, {"token": token}).first()
        if row is None or not (named := _surveys(known, row)):
            return None
        chosen = score_of(named[0], _score(row)) if row.kind == "survey_score" else None
        found = []
        for survey in named:
            said = _so_far(connection, row, survey)
            score = chosen if survey is named[0] and chosen is not None else said.score
            found.append(Asking(survey, score, said.is_open(now)))
        return Asked(tuple(found), row.locale)


def answer(
    db: Database,
    settings: Settings,
    now: datetime,
    token: str,
    given: Mapping[str, int],
    comments: Mapping[str, str],
) -> Heard | None:
    """
    Record the scores by survey, each with its comment if there is one; in force when it returns.

    Surveys that the link does not ask, scores that are not on their scale and answers that can no
    longer be changed are passed over. None: there is no such link, or no such survey.
    """
    known = _known(db, settings)
    used = replace(settings, surveys=known)
    with store.write(db) as connection:
        row = connection.execute(_LINK, {"token": token}).first()
        if row is None or not (named := _surveys(known, row)):
            return None
        taken = []
        for survey in named:
            score = given.get(survey.name)
            if score is None or score not in scores(survey) or not _so_far(connection, row, survey).is_open(now):
                continue
            comment = comments.get(survey.name, "") if survey.why else ""
            how = "click" if row.kind == "survey_score" and survey is named[0] else "page"
            answered = Given(survey.name, row.customer_id, row.occasion, row.message_id, score, how, now, comment)
            if record(connection, used, now, answered):
                low, high = satisfied(survey)
                taken.append(low <= score <= high)
        return Heard(len(taken), bool(taken) and all(taken), row.locale)


_LINK = (
    select(
        _links.c.kind,
        _links.c.target,
        _messages.c.id.label("message_id"),
        _messages.c.customer_id,
        _messages.c.occasion,
        _customers.c.locale,
    )
    .join(_messages, _messages.c.id == _links.c.message_id)
    .join(_customers, _customers.c.id == _messages.c.customer_id)
    .where(_links.c.token == bindparam("token"), _links.c.kind.in_(KINDS), _customers.c.merged_into.is_(None))
)


def _known(db: Database, settings: Settings) -> Mapping[str, Survey]:
    """The surveys of the release in force; those that only the working files still have follow."""
    loaded = releases.current(db, settings)
    return {**settings.surveys, **(loaded.settings.surveys if loaded is not None else {})}


def _surveys(known: Mapping[str, Survey], row: Any) -> list[Survey]:
    """The link's survey and those that stand on its page."""
    own = known.get(row.target.partition(":")[0])
    return [] if own is None else [own, *(known[name] for name in own.along if name in known)]


def _score(row: Any) -> str:
    return str(row.target.partition(":")[2])


@dataclass(frozen=True)
class _SoFar:
    score: int | None
    first: datetime | None
    changes: int

    def is_open(self, now: datetime) -> bool:
        """Whether an answer given now would count."""
        return self.first is None or (now <= self.first + CHANGEABLE and self.changes < MOST_CHANGES)


def _so_far(connection: Connection, row: Any, survey: Survey) -> _SoFar:
    said = history(connection, row.customer_id, survey.name, row.occasion)
    if not said:
        return _SoFar(None, None, 0)
    return _SoFar(max(said, key=lambda one: one.rank).score, said[0].at, len(said))
