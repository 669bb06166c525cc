"""
Deciding: what the evidence makes of one message in doubt. Pure, so that it can be tried with everything.

What shows that the provider had the message settles it as sent. That the provider does not have it
counts only where nothing else can explain the silence; whatever is left stays unknown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from outreach.channels import Kept, Record
from outreach.models import Status

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
TICK = timedelta(seconds=60)  # the dispatcher's clock moves in whole minutes: the commit may be so much later
HAND_OVER = timedelta(seconds=30)  # nothing is handed over later after the commit
ROOM = timedelta(minutes=15)  # for clocks that differ, and for a provider whose lists are behind
BLUR = timedelta(seconds=10)  # providers count in whole seconds, and earlier attempts are further apart than this
LOOKS = 7  # days on which an unsettled message is looked for, once absence could count


class Why(StrEnum):
    """How a look ended."""

    REPORTED = "reported"  # sent: the provider told us something about it
    FOUND = "found"  # sent: the provider has it
    ABSENT = "absent"  # the provider does not have it: planned again, or held
    AMBIGUOUS = "ambiguous"  # what the provider has may be this message or another
    TOO_EARLY = "too_early"  # not there, but it might still appear
    UNPROVEN = "unproven"  # not there, which proves nothing after a restore or a change of provider
    INCOMPLETE = "incomplete"  # the provider's answer may lack something
    NO_ANSWER = "no_answer"  # the provider did not answer
    CHANNEL = "channel"  # the channel is wrongly set up, or gone
    NOBODY = "nobody"  # there is nobody who could be asked
    PERSON = "person"  # a person has it: `outreach tasks done`
    BY_HAND = "by_hand"  # settled by a person


ASK_AGAIN_SOON = frozenset({Why.NO_ANSWER, Why.INCOMPLETE, Why.CHANNEL})
NEVER_AGAIN = frozenset({Why.NOBODY, Why.PERSON})


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt that is in doubt, as far as it is known here."""

    public_id: str
    text: str | None  # as it was handed over; None when it is no longer kept
    began: datetime | None  # when it was committed as `sending`; None after a restore
    since: datetime  # it cannot have left earlier,
    until: datetime  # nor later; from here on absence can count
    first: bool = True  # there was no earlier attempt, on any channel, that could be taken for this one
    before_restore: bool = False  # made before the database was restored: others may have followed that it forgot
    same_provider: bool = True  # its channel leads to the same account as then


@dataclass(frozen=True, slots=True)
class Heard:
    """An event about the message."""

    kind: str
    at: datetime
    event_id: str
    provider_id: str = ""
    channel: str = ""
    exact: bool = True  # the message was named; False: it is only likely to be the one that was meant


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider of one channel keeps for the address."""

    channel: str
    kept: Kept
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the message: sent, planned (again) or unknown (still)."""

    status: Status
    why: Why
    text: str  # for the message's detail
    provider_id: str | None = None
    channel: str = ""  # where it was found, or reported to have been
    at: datetime | None = None  # when it was made there, if the provider says


def decide(
    attempt: Attempt,
    heard: Sequence[Heard],
    answers: Sequence[Answer],
    taken: Collection[tuple[str, str]],
    *,
    rivals: bool,
    resend: bool,
) -> Verdict:
    """
    What the evidence makes of an attempt; the first of these that applies.

    1. An event shows that the provider had it: sent.
    2. A provider has exactly one message with our id, or (at that time, with that text, and nobody
       else's) exactly one that may be it: sent. More than one: unknown.
    3. The provider's complete answer, read when nothing could appear any more, has nothing at that
       time that is not another message of ours: planned again if `resend`, else unknown.
    4. Unknown.

    `taken` holds (channel, provider's id) of our other messages; `rivals` says that another message
    of ours, with the same text for the same address and time, may be whose record it is.
    """
    verdict = _reported(attempt, heard) or _by_id(attempt, answers, taken)
    if verdict is None and not attempt.before_restore:
        verdict = _by_text(attempt, answers, taken, rivals=rivals)
    return verdict or _absent(attempt, answers, taken, resend=resend)


# --- what was reported -------------------------------------------------------------------------------

HAD_IT = frozenset(
    {
        "accepted",
        "delivered",
        "deferred",
        "opened",
        "clicked",
        "complained",
        "reply",
        "replied",
        "rated",
        "auto_replied",
    }
)
REFUSED_IT = frozenset({"failed", "bounced", "opted_out"})  # after it was accepted; but see `_shows`
EVIDENCE = HAD_IT | REFUSED_IT
MEANT = frozenset(
    {"reply", "replied", "rated", "auto_replied", "opted_out"}
)  # people write back without naming a message
OUR_OWN = ("refused:", "task:")  # beginnings of the ids of events that our own answers left: of an earlier attempt


def _reported(attempt: Attempt, heard: Sequence[Heard]) -> Verdict | None:
    shown = sorted((one for one in heard if _shows(one, attempt)), key=lambda one: (not one.provider_id, one.at))
    if not shown:
        return None
    text = f"settled: the provider reported it as {shown[0].kind}"
    return Verdict(Status.SENT, Why.REPORTED, text, shown[0].provider_id or None, channel=shown[0].channel)


def _shows(one: Heard, attempt: Attempt) -> bool:
    """
    Whether an event shows that the provider had this very attempt.

    An earlier attempt was certainly refused, perhaps on another channel: what was refused may be
    that one, whatever was delivered is not.
    """
    if one.event_id.startswith(OUR_OWN) or not one.exact:
        return False
    return one.kind in HAD_IT or (one.kind in REFUSED_IT and attempt.first)


# --- what the provider has ---------------------------------------------------------------------------


def _by_id(attempt: Attempt, answers: Sequence[Answer], taken: Collection[tuple[str, str]]) -> Verdict | None:
    own = _distinct(
        (answer.channel, record)
        for answer in answers
        for record in answer.kept.records
        if record.public_id == attempt.public_id
    )
    if len(own) > 1:
        return Verdict(Status.UNKNOWN, Why.AMBIGUOUS, "the provider has more than one message with this id")
    for channel, record in own:
        return _found(channel, record, None if (channel, record.provider_id) in taken else record.provider_id)
    return None


def _by_text(
    attempt: Attempt, answers: Sequence[Answer], taken: Collection[tuple[str, str]], *, rivals: bool
) -> Verdict | None:
    """Only where nobody keeps our ids: then the text, the address and the time must do."""
    alike = _distinct(
        (answer.channel, record)
        for answer in answers
        for record in unaccounted(answer, taken)
        if _in_window(record, attempt) and _same_text(record.text, attempt.text)
    )
    if not alike:
        return None
    if len(alike) > 1:
        return Verdict(Status.UNKNOWN, Why.AMBIGUOUS, "the provider has more than one message like it")
    if rivals:
        text = "the provider has one message like it, and two of ours could be that one"
        return Verdict(Status.UNKNOWN, Why.AMBIGUOUS, text)
    [(channel, record)] = alike
    if not attempt.first and (record.at is None or attempt.began is None or record.at < attempt.began - BLUR):
        return Verdict(Status.UNKNOWN, Why.AMBIGUOUS, "what the provider has may be an earlier attempt at it")
    return _found(channel, record, record.provider_id)


def _distinct(found: Iterable[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """Each once, though a provider's pages may overlap; what has no id is like nothing else."""
    once: dict[tuple[str, str | int], tuple[str, Record]] = {}
    for number, (channel, record) in enumerate(found):
        once.setdefault((channel, record.provider_id or number), (channel, record))
    return list(once.values())


def _found(channel: str, record: Record, provider_id: str | None) -> Verdict:
    return Verdict(
        Status.SENT, Why.FOUND, "settled: the provider has it", provider_id or None, channel=channel, at=record.at
    )


def unaccounted(answer: Answer, taken: Collection[tuple[str, str]]) -> list[Record]:
    """The records that carry nobody's id, and that no message of ours is known by."""
    return [
        record
        for record in answer.kept.records
        if not record.public_id and (answer.channel, record.provider_id) not in taken
    ]


def _in_window(record: Record, attempt: Attempt) -> bool:
    return record.at is None or attempt.since <= record.at <= attempt.until


def _same_text(one: str | None, other: str | None) -> bool:
    """An empty text is like no other."""
    return one is not None and other is not None and bool(plain(one)) and plain(one) == plain(other)


def plain(text: str) -> str:
    """The text as it is compared: composed (NFC), each run of white space one blank, none at its ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


# --- what the provider does not have -----------------------------------------------------------------


def _absent(
    attempt: Attempt, answers: Sequence[Answer], taken: Collection[tuple[str, str]], *, resend: bool
) -> Verdict:
    """
    Whether silence says anything.

    A record of the same text at any other time counts against it, too: a clock may have been wrong.
    """
    if not answers:
        return Verdict(Status.UNKNOWN, Why.NO_ANSWER, "the provider did not answer")
    for answer in answers:
        if not answer.kept.complete:
            detail = answer.kept.detail or "the provider's answer was not complete"
            return Verdict(Status.UNKNOWN, Why.INCOMPLETE, detail)
        for record in unaccounted(answer, taken):
            if _in_window(record, attempt) or _same_text(record.text, attempt.text):
                text = "the provider has a message to this address that is none of those known here"
                return Verdict(Status.UNKNOWN, Why.AMBIGUOUS, text)
    if attempt.before_restore:
        text = "the provider does not show it, which proves nothing after a restore"
        return Verdict(Status.UNKNOWN, Why.UNPROVEN, text)
    if not attempt.same_provider:
        text = "the provider does not have it, but the channel led to another one then"
        return Verdict(Status.UNKNOWN, Why.UNPROVEN, text)
    if any(answer.asked_at < attempt.until for answer in answers):
        return Verdict(Status.UNKNOWN, Why.TOO_EARLY, "the provider does not have it yet")
    status = Status.PLANNED if resend else Status.UNKNOWN
    return Verdict(status, Why.ABSENT, "the provider does not have it")


# --- when to look again ------------------------------------------------------------------------------


def next_look(why: Why, began: datetime, until: datetime, now: datetime) -> datetime | None:
    """
    When to look for a message that stays unknown; None: no more.

    At 1, 2, 4… minutes after it began until absence can count, at that moment, then once a day for
    7 days. A provider that did not answer in full is asked again at 16, 32, 64… minutes, too.
    """
    if why in NEVER_AGAIN:
        return None
    if now < until:
        return min(until, _doubled(began, now))
    last = until + LOOKS * DAY
    daily = until + ((now - until) // DAY + 1) * DAY
    if why in ASK_AGAIN_SOON:
        daily = min(daily, _doubled(began, now))
    return daily if daily <= last else None


def _doubled(began: datetime, now: datetime) -> datetime:
    """The first of 1, 2, 4, 8… minutes after `began` that is still to come."""
    wait = MINUTE
    while began + wait <= now:
        wait *= 2
    return began + wait


def until(began: datetime, timeout: timedelta) -> datetime:
    """By when a message committed as `sending` has reached its provider, and the provider's lists, or never will."""
    return began + TICK + HAND_OVER + timeout + ROOM
