"""
Gates: pure functions from prefetched facts to a verdict. No database, no clock, no rendering.

The same functions serve the planner (`judge`), the dispatcher (`decide`, twice), `explain` (`why`)
and the replay, so that a rule exists once. `GATES` is all of them, in the order they are asked:
the first that does not let a message pass has the last word.

The channel is the first of the step's that has an address, is not suppressed for the purpose, and
has the consent the purpose needs; hours, caps and `only_to` then speak of that one alone. So a
message waits for its best channel rather than leave by a worse one at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

from outreach import arms, timing
from outreach.models import Reason, Scope, Status
from outreach.setting_keys import DEFAULT_HOURS
from outreach.settings import Cap, Settings
from outreach.values import WeekHours, parse_week_hours

PAUSED_LOOK = timedelta(minutes=1)  # how soon a paused message is looked at again
NO_ZONE_LOOK = timedelta(hours=1)  # how soon one whose zone is unknown is: a person may have set it


# Not frozen, though nobody changes them: they are made by the thousand, and freezing makes each dearer threefold.


@dataclass(slots=True)
class ContactFacts:
    """What is known of one address on one channel."""

    contact_id: int
    address: str
    consent: str  # granted | revoked | unknown, for this channel
    suppressions: tuple[tuple[str, str], ...] = ()  # (scope, channel or ""), those in force


@dataclass(slots=True)
class Facts:
    """What the rules need to know of one message or candidate, fetched once per batch."""

    external_id: str
    contacts: Mapping[str, ContactFacts]  # by channel, only channels with a usable address
    zones: tuple[str, ...] = ()  # candidate time zones; empty: none known
    withdrawn: Reason | None = None  # set when the step must not go at all any more
    paused: bool = False
    open_cases: frozenset[int] = frozenset()
    own_case: int | None = None  # the case that is the occasion
    true_words: frozenset[str] = frozenset()  # the `unless`/`stop_when` words true since the occasion
    sent: Mapping[int, tuple[tuple[datetime, str, str, str], ...]] = field(default_factory=dict)
    # by contact id: (time, purpose, channel, campaign) of what caps count, newest first
    email_id: int | None = None  # the customer's contacts on record, usable or not
    phone_id: int | None = None
    messenger_id: int | None = None
    held_globally: bool = False  # in the global holdout
    told: frozenset[int] = frozenset()  # contacts at which another record was sent this step for the same occasion


@dataclass(slots=True)
class Rules:
    """What the release and the settings say about one message."""

    campaign: str
    step: str
    purpose: str
    channels: tuple[str, ...]  # the step's, without those already refused for good
    due_at: datetime
    expires_at: datetime
    unless: tuple[str, ...] = ()
    stop_when: tuple[str, ...] = ()
    contact_id: int | None = None  # of an answer: whoever wrote, and nobody else
    confirms: bool = False  # the one confirmation of an opt-out


@dataclass(slots=True)  # not frozen: see above
class Send:
    channel: str
    contact_id: int
    address: str


@dataclass(frozen=True)
class Defer:
    until: datetime
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class End:
    status: Status
    reason: Reason
    detail: str = ""
    blocked_by: Reason | None = None  # what it would still have waited for, when it ends as expired


Verdict = Send | Defer | End


# Which channel


@dataclass(slots=True)
class _Question:
    """What every gate is asked, and what several of them look at: by channel, in the step's order."""

    facts: Facts
    rules: Rules
    settings: Settings
    now: datetime
    usable: Mapping[str, ContactFacts]  # with an address
    free: Mapping[str, ContactFacts]  # of those, not suppressed for the purpose
    permitted: Mapping[str, ContactFacts]  # of those, with the consent it needs
    chosen: tuple[str, ContactFacts] | None  # it would leave by; where none is permitted, the first with an address


def _question(facts: Facts, rules: Rules, settings: Settings, now: datetime) -> _Question:
    usable: dict[str, ContactFacts] = {}
    free: dict[str, ContactFacts] = {}
    permitted: dict[str, ContactFacts] = {}
    for channel in rules.channels:
        one = facts.contacts.get(channel)
        if one is not None and rules.contact_id in (None, one.contact_id):
            usable[channel] = one
            if not _is_suppressed(one, channel, rules):
                free[channel] = one
                if _consents(one, rules.purpose):
                    permitted[channel] = one
    chosen = next(iter((permitted or usable).items()), None)
    return _Question(facts, rules, settings, now, usable, free, permitted, chosen)


_ASKED_FOR = ("transactional", "answer")  # purposes that need no consent


def _is_suppressed(contact: ContactFacts, channel: str, rules: Rules) -> bool:
    """
    Whether an entry in force blocks the message on the channel (the scopes of DESIGN 3.4).

    The confirmation of an opt-out passes the two entries that the opt-out itself made.
    """
    if not contact.suppressions:
        return False
    entries = set(contact.suppressions)
    if rules.confirms and (Scope.CONTACT, channel) in entries:
        entries -= {(Scope.CONTACT, channel), (Scope.ADDRESS, channel)}
    for scope, said_on in entries:
        if scope == Scope.ADDRESS and said_on in ("", channel):
            return True
        if (
            scope == Scope.CONTACT
            and not rules.confirms
            and (rules.purpose not in _ASKED_FOR or said_on in ("", channel))
        ):
            return True
        if scope == Scope.MARKETING and rules.purpose == "marketing":
            return True
    return False


def _consents(contact: ContactFacts, purpose: str) -> bool:
    """Whether the contact's consent suffices: granted for marketing, not revoked for service, any for transactional."""
    if purpose in _ASKED_FOR:
        return True
    return contact.consent == "granted" or (purpose == "service" and contact.consent != "revoked")


# The gates


def _withdrawn(q: _Question) -> End | None:
    return End(Status.CANCELLED, q.facts.withdrawn) if q.facts.withdrawn is not None else None


def _suppressed(q: _Question) -> End | None:
    if q.usable and not q.free:
        return End(Status.SKIPPED, Reason.SUPPRESSED)
    return None


def _consent(q: _Question) -> End | None:
    if q.free and not q.permitted:
        return End(Status.SKIPPED, Reason.NO_CONSENT)
    return None


def _reachable(q: _Question) -> End | None:
    return None if q.usable else End(Status.SKIPPED, Reason.UNREACHABLE)


def _rehearsal(q: _Question) -> End | None:
    chosen = q.chosen
    if not q.settings.only_to or chosen is None:
        return None
    listed = {_comparable(address) for address in q.settings.only_to}
    return None if _comparable(chosen[1].address) in listed else End(Status.SKIPPED, Reason.ONLY_TO)


def _comparable(address: str) -> str:
    """An address without case, a number without its spaces, dashes and brackets."""
    address = address.strip().casefold()
    return address if "@" in address else re.sub(r"[^\w+]", "", address)


def _open_case(q: _Question) -> End | None:
    if q.rules.purpose == "marketing" and q.facts.open_cases - {q.facts.own_case}:
        return End(Status.SKIPPED, Reason.CASE_OPEN)
    return None


def _global_holdout(q: _Question) -> End | None:
    if q.rules.purpose == "marketing" and q.facts.held_globally:
        return End(Status.SKIPPED, Reason.GLOBAL_HOLDOUT)
    return None


SAME_ADDRESS = "another customer with this address or number got it"


def _told(q: _Question) -> End | None:
    if q.facts.told and q.chosen is not None and q.chosen[1].contact_id in q.facts.told:
        return End(Status.SKIPPED, Reason.AT_MOST, SAME_ADDRESS)
    return None


def _unless(q: _Question) -> End | None:
    word = next((word for word in q.rules.unless if word in q.facts.true_words), None)
    return End(Status.SKIPPED, Reason.UNLESS, word) if word else None


def _stop_when(q: _Question) -> End | None:
    word = next((word for word in q.rules.stop_when if word in q.facts.true_words), None)
    return End(Status.SKIPPED, Reason.STOPPED, word) if word else None


def _expired(q: _Question) -> End | None:
    return End(Status.EXPIRED, Reason.EXPIRED) if q.now >= q.rules.expires_at else None


@cache
def _built_in_hours() -> dict[str, WeekHours]:
    return {name: parse_week_hours(days) for name, days in DEFAULT_HOURS.items()}


def hours_of(channel: str, settings: Settings) -> WeekHours:
    """When sending by the channel is allowed: as written, else as built in."""
    written, built_in = settings.sending_hours, _built_in_hours()
    if channel in written or "default" in written:
        return written.get(channel) or written["default"]
    return built_in.get(channel) or built_in["default"]


def keeps_hours(purpose: str, channel: str) -> bool:
    """Whether messages of this purpose wait for the channel's sending hours."""
    return purpose != "answer" and (purpose != "transactional" or channel in ("call", "sms"))


def _hours(q: _Question) -> Defer | End | None:
    chosen = q.chosen
    if chosen is None:
        return None
    if not keeps_hours(q.rules.purpose, chosen[0]):
        return None
    zones = q.facts.zones or ((q.settings.business.timezone,) if q.settings.unknown_zone == "business" else ())
    if not zones:
        return _wait(q.now + NO_ZONE_LOOK, Reason.NO_ZONE, q.rules, at_the_latest=q.rules.expires_at)
    week = hours_of(chosen[0], q.settings)
    if timing.allowed(q.now, week, zones):
        return None
    opens = timing.next_allowed(q.now, week, zones, q.rules.expires_at)
    return _wait(opens or q.rules.expires_at, Reason.HOURS, q.rules, f"{chosen[0]} in {' '.join(zones)}")


def _caps(q: _Question) -> Defer | End | None:
    chosen = q.chosen
    if chosen is None or q.rules.purpose in _ASKED_FOR:
        return None
    channel, contact = chosen
    sent = q.facts.sent.get(contact.contact_id, ())
    full = []
    for cap in q.settings.caps:
        if _concerns(cap, q.rules.purpose, channel, q.rules.campaign):
            counted = sorted((at for at, *words in sent if _concerns(cap, *words)), reverse=True)
            if len(counted) >= cap.limit.count:
                full.append((counted[cap.limit.count - 1] + cap.limit.per.clock, _in_words(cap)))
    frees, which = max(full, default=(q.now, ""))
    return _wait(frees, Reason.CAP, q.rules, which) if frees > q.now else None


def _concerns(cap: Cap, purpose: str, channel: str, campaign: str) -> bool:
    """Whether a message with these words is one that the cap limits and counts."""
    return (
        purpose != "answer"
        and cap.purpose in (None, purpose)
        and cap.channel in (None, channel)
        and cap.campaign in (None, campaign)
    )


def _in_words(cap: Cap) -> str:
    """A cap in words: `marketing email: 3 per 7 days`."""
    words = " ".join(word for word in (cap.purpose, cap.channel, cap.campaign) if word)
    return f"{words or 'all'}: {cap.limit.count} per {cap.limit.per}"


def _paused(q: _Question) -> Defer | End | None:
    if not q.facts.paused:
        return None
    return _wait(q.now + PAUSED_LOOK, Reason.PAUSED, q.rules, at_the_latest=q.rules.expires_at)


def _wait(
    until: datetime, reason: Reason, rules: Rules, detail: str = "", *, at_the_latest: datetime | None = None
) -> Defer | End:
    """Defer it; what would wait past its expiry ends now, saying what it waited for."""
    if at_the_latest is not None:
        return Defer(min(until, at_the_latest), reason, detail)
    if until < rules.expires_at:
        return Defer(until, reason, detail)
    return End(Status.EXPIRED, Reason.EXPIRED, detail, blocked_by=reason)


@dataclass(frozen=True)
class Gate:
    """One rule: its name, what it asks, the reasons it may give, and the function that asks."""

    name: str
    text: str
    reasons: tuple[Reason, ...]
    ask: Callable[[_Question], Defer | End | None]
    at_enrolment: bool = False


GATES = (
    Gate(
        "withdrawn",
        "Is the step still wanted? The campaign, the step, the record and the customer must still be there.",
        (Reason.WITHDRAWN, Reason.CANCELLED, Reason.RECORD_CLEARED, Reason.CUSTOMER_GONE, Reason.ENDED),
        _withdrawn,
    ),
    Gate(
        "suppression",
        "Is an address of the step's channels free of do-not-contact entries? Scope `marketing` blocks marketing; "
        "`contact` blocks service and marketing, and transactional on the channel it was said on; `address` blocks all, "
        "or all on the one channel where nobody could be reached.",
        (Reason.SUPPRESSED,),
        _suppressed,
        at_enrolment=True,
    ),
    Gate(
        "consent",
        "Has one of them the consent that the purpose needs? Marketing: granted. Service: not revoked. "
        "Transactional: none needed.",
        (Reason.NO_CONSENT,),
        _consent,
        at_enrolment=True,
    ),
    Gate(
        "reachability",
        "Has the customer a usable address on any of the step's channels?",
        (Reason.UNREACHABLE,),
        _reachable,
        at_enrolment=True,
    ),
    Gate(
        "only_to",
        "While `only_to` is set (a rehearsal): is the chosen address in it?",
        (Reason.ONLY_TO,),
        _rehearsal,
    ),
    Gate(
        "open_case",
        "Marketing only: has the customer no open case, other than the one that is the occasion?",
        (Reason.CASE_OPEN,),
        _open_case,
        at_enrolment=True,
    ),
    Gate(
        "global_holdout",
        "Marketing only: is the customer outside the holdout over all marketing?",
        (Reason.GLOBAL_HOLDOUT,),
        _global_holdout,
    ),
    Gate(
        "told",
        "Dates, birthdays and schedules only: has nobody else with the chosen address been sent this step for the same "
        "day or hour?",
        (Reason.AT_MOST,),
        _told,
    ),
    Gate(
        "unless",
        "Has none of the step's `unless` words come true since the occasion?",
        (Reason.UNLESS,),
        _unless,
    ),
    Gate(
        "stop_when",
        "Has none of the campaign's `stop_when` words come true since the occasion?",
        (Reason.STOPPED,),
        _stop_when,
    ),
    Gate("expiry", "Is there still time: is it before due time + `expires`?", (Reason.EXPIRED,), _expired),
    Gate(
        "hours",
        "Is it within the channel's sending hours in every time zone the customer may be in? "
        "Transactional: calls and SMS only.",
        (Reason.HOURS, Reason.NO_ZONE),
        _hours,
    ),
    Gate(
        "caps",
        "Is every cap that concerns the message below its limit, over what its contact was sent? Not transactional.",
        (Reason.CAP,),
        _caps,
    ),
    Gate("paused", "Is the campaign running?", (Reason.PAUSED,), _paused),
)
_ALL = tuple(gate.ask for gate in GATES)
_AT_ENROLMENT = tuple(gate.ask for gate in GATES if gate.at_enrolment)


# The verdicts


def judge(facts: Facts, rules: Rules, settings: Settings, secret: bytes) -> Reason | None:
    """
    Why an occasion is not taken up, or None: the gates of the enrolment, then the global holdout.

    Without knowing the arm, and nothing that a clock changes: suppression, consent, reachability,
    open case; `at_most` is the planner's own. `rules` are those of the campaign's first step.
    """
    question = _question(facts, rules, settings, rules.due_at)
    for ask in _AT_ENROLMENT:
        if (verdict := ask(question)) is not None:
            return verdict.reason
    if rules.purpose == "marketing" and arms.is_held_globally(secret, settings.holdout, facts.external_id):
        return Reason.GLOBAL_HOLDOUT
    return None


def decide(facts: Facts, rules: Rules, settings: Settings, now: datetime) -> Verdict:
    """
    Whether the message leaves now, waits, or ends: the word of the first of GATES that objects.

    A Defer is always to a moment after `now`, and before the expiry except for a paused campaign or
    an unknown zone, which may wait until it. A message that nothing keeps is a Send.
    """
    question = _question(facts, rules, settings, now)
    for ask in _ALL:
        if (verdict := ask(question)) is not None:
            return verdict
    channel, contact = next(iter(question.permitted.items()))
    return Send(channel, contact.contact_id, contact.address)


def why(facts: Facts, rules: Rules, settings: Settings, now: datetime) -> list[tuple[Gate, Defer | End | None]]:
    """What every gate says, in their order, None where it lets the message pass; for `explain`."""
    question = _question(facts, rules, settings, now)
    return [(gate, gate.ask(question)) for gate in GATES]


def valid_until(channel: str, found: Facts, rules: Rules, settings: Settings, now: datetime) -> datetime:
    """Until when a message let go at `now` may still arrive: the end of its sending hours, and its expiry."""
    zones = found.zones or (settings.business.timezone,)
    if rules.purpose == "answer" or (rules.purpose == "transactional" and channel not in ("call", "sms")):
        return rules.expires_at
    return min(rules.expires_at, timing.closing(now, hours_of(channel, settings), zones))
