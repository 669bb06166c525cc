"""Gates: the table of DESIGN 3.4 row by row, every reason, and an independent checker of every verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outreach import gates
from outreach.gates import ContactFacts, Defer, End, Facts, Rules, Send, Verdict
from outreach.models import Reason, Status
from outreach.settings import Business, Cap, Settings
from outreach.values import CHANNELS, PURPOSES, Duration, Limit, WeekHours, parse_duration, parse_week_hours

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)  # a Monday; 09:00 in Mexico City, 10:00 in Bogotá
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SECRET = b"a secret for tests"

EMAIL = ContactFacts(1, "ana@example.com", "granted")
PHONE = ContactFacts(2, "+573001234567", "granted")
FACTS = Facts("C-1", {"email": EMAIL, "sms": PHONE, "whatsapp": PHONE, "call": PHONE}, zones=("America/Bogota",))
RULES = Rules("win_back", "miss", "marketing", ("email",), NOW - HOUR, NOW + 3 * DAY)
SETTINGS = Settings(
    Path(),
    Business("Luna", "America/Mexico_City", "MXN"),
    sending_hours={"default": parse_week_hours({"mon-fri": "09:00-20:00"})},
    caps=(Cap(Limit(1, Duration(days=1)), "marketing"), Cap(Limit(2, Duration(days=1)), "service")),
)
NIGHT = NOW.replace(hour=8)  # 03:00 in Bogotá


def facts(**changes: Any) -> Facts:
    return replace(FACTS, **changes)


def with_contact(**changes: Any) -> Facts:
    """The facts with every contact changed alike."""
    return facts(contacts={channel: replace(contact, **changes) for channel, contact in FACTS.contacts.items()})


def sent(*ago: timedelta, purpose: str = "marketing", channel: str = "email", contact: int = 1) -> Facts:
    return facts(sent={contact: tuple((NOW - one, purpose, channel, "post_sale") for one in sorted(ago))})


def ask(known: Facts = FACTS, *, now: datetime = NOW, using: Settings = SETTINGS, **changes: Any) -> Verdict:
    return gates.decide(known, replace(RULES, **changes), using, now)


def outcome(verdict: Verdict) -> str:
    return "send" if isinstance(verdict, Send) else str(verdict.reason)


# The table of DESIGN 3.4


CASE = {"open_cases": frozenset({7})}
TABLE: list[tuple[str, Facts, str, datetime, str, str, str]] = [
    # situation, facts, channel, now → transactional, service, marketing
    ("all is well", FACTS, "email", NOW, "send", "send", "send"),
    # consent: not needed, not revoked, granted
    ("consent unknown", with_contact(consent="unknown"), "email", NOW, "send", "send", "no_consent"),
    ("consent revoked", with_contact(consent="revoked"), "email", NOW, "send", "no_consent", "no_consent"),
    # caps: none, service's own, marketing's own
    ("one marketing message today", sent(HOUR), "email", NOW, "send", "send", "cap"),
    ("one service message today", sent(HOUR, purpose="service"), "email", NOW, "send", "send", "send"),
    ("two service messages today", sent(HOUR, 2 * HOUR, purpose="service"), "email", NOW, "send", "cap", "send"),
    # sending hours: calls and SMS only, always, always
    ("e-mail at night", FACTS, "email", NIGHT, "send", "hours", "hours"),
    ("WhatsApp at night", FACTS, "whatsapp", NIGHT, "send", "hours", "hours"),
    ("SMS at night", FACTS, "sms", NIGHT, "hours", "hours", "hours"),
    ("a call at night", FACTS, "call", NIGHT, "hours", "hours", "hours"),
    # no zone known
    ("e-mail, no zone", facts(zones=()), "email", NOW, "send", "no_zone", "no_zone"),
    ("SMS, no zone", facts(zones=()), "sms", NOW, "no_zone", "no_zone", "no_zone"),
    # another open case: passes, passes, stops; the occasion's own passes everywhere
    ("another case open", facts(**CASE), "email", NOW, "send", "send", "case_open"),
    ("its own case open", facts(**CASE, own_case=7), "email", NOW, "send", "send", "send"),
    (
        "its own and another case open",
        facts(open_cases=frozenset({7, 8}), own_case=7),
        "email",
        NOW,
        "send",
        "send",
        "case_open",
    ),
    # suppression, by scope
    (
        "national list",
        with_contact(suppressions=(("marketing", ""),)),
        "sms",
        NOW,
        "send",
        "send",
        "suppressed",
    ),
    (
        "opted out on this channel",
        with_contact(suppressions=(("contact", "sms"),)),
        "sms",
        NOW,
        "suppressed",
        "suppressed",
        "suppressed",
    ),
    (
        "opted out on another channel of the same number",
        with_contact(suppressions=(("contact", "whatsapp"),)),
        "sms",
        NOW,
        "send",
        "suppressed",
        "suppressed",
    ),
    (
        "opted out, nobody knows where",
        with_contact(suppressions=(("contact", ""),)),
        "sms",
        NOW,
        "suppressed",
        "suppressed",
        "suppressed",
    ),
    (
        "bounced for good",
        with_contact(suppressions=(("address", ""),)),
        "email",
        NOW,
        "suppressed",
        "suppressed",
        "suppressed",
    ),
    # what stops every purpose alike
    ("no address", facts(contacts={}), "email", NOW, "unreachable", "unreachable", "unreachable"),
    ("paused", facts(paused=True), "email", NOW, "paused", "paused", "paused"),
    ("expired", FACTS, "email", NOW + 3 * DAY, "expired", "expired", "expired"),
    (
        "record cleared",
        facts(withdrawn=Reason.RECORD_CLEARED),
        "email",
        NOW,
        "record_cleared",
        "record_cleared",
        "record_cleared",
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_purpose_is_ruled_as_the_table_says(
    row: tuple[str, Facts, str, datetime, str, str, str], purpose: str
) -> None:
    _, known, channel, now, *expected = row
    verdict = ask(known, now=now, purpose=purpose, channels=(channel,))
    assert outcome(verdict) == dict(zip(PURPOSES, expected, strict=True))[purpose]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_enrolment_is_refused_only_for_what_its_record_says(
    row: tuple[str, Facts, str, datetime, str, str, str], purpose: str
) -> None:
    _, known, channel, _, *expected = row
    word = dict(zip(PURPOSES, expected, strict=True))[purpose]
    lasting = {"suppressed", "no_consent", "unreachable", "case_open"}
    reason = gates.judge(known, replace(RULES, purpose=purpose, channels=(channel,)), SETTINGS, SECRET)
    assert reason == (word if word in lasting else None)


# Every reason


REACHED: dict[Reason, Callable[[], Verdict]] = {
    Reason.WITHDRAWN: lambda: ask(facts(withdrawn=Reason.WITHDRAWN)),
    Reason.CANCELLED: lambda: ask(facts(withdrawn=Reason.CANCELLED)),
    Reason.RECORD_CLEARED: lambda: ask(facts(withdrawn=Reason.RECORD_CLEARED)),
    Reason.CUSTOMER_GONE: lambda: ask(facts(withdrawn=Reason.CUSTOMER_GONE, contacts={})),
    Reason.ENDED: lambda: ask(facts(withdrawn=Reason.ENDED)),
    Reason.SUPPRESSED: lambda: ask(with_contact(suppressions=(("address", ""),))),
    Reason.NO_CONSENT: lambda: ask(with_contact(consent="unknown")),
    Reason.UNREACHABLE: lambda: ask(channels=("messenger", "visit")),
    Reason.ONLY_TO: lambda: ask(using=replace(SETTINGS, only_to=("eva@example.com",))),
    Reason.CASE_OPEN: lambda: ask(facts(**CASE)),
    Reason.GLOBAL_HOLDOUT: lambda: ask(facts(held_globally=True)),
    Reason.AT_MOST: lambda: ask(facts(told=frozenset({1}))),
    Reason.UNLESS: lambda: ask(facts(true_words=frozenset({"ordered"})), unless=("replied", "ordered")),
    Reason.STOPPED: lambda: ask(facts(true_words=frozenset({"refunded"})), stop_when=("refunded",)),
    Reason.EXPIRED: lambda: ask(expires_at=NOW),
    Reason.HOURS: lambda: ask(now=NIGHT),
    Reason.NO_ZONE: lambda: ask(facts(zones=())),
    Reason.CAP: lambda: ask(sent(HOUR)),
    Reason.PAUSED: lambda: ask(facts(paused=True)),
}


@pytest.mark.parametrize("reason", [reason for gate in gates.GATES for reason in gate.reasons])
def test_every_reason_of_every_gate_can_be_met(reason: Reason) -> None:
    verdict = REACHED[reason]()
    assert not isinstance(verdict, Send)
    assert verdict.reason is reason
    if isinstance(verdict, End):
        withdrawn = reason in gates.GATES[0].reasons
        expected = Status.CANCELLED if withdrawn else Status.EXPIRED if reason is Reason.EXPIRED else Status.SKIPPED
        assert verdict.status is expected


def test_no_reason_belongs_to_two_gates_and_each_gate_explains_itself() -> None:
    reasons = [reason for gate in gates.GATES for reason in gate.reasons]
    assert len(reasons) == len(set(reasons))
    assert len({gate.name for gate in gates.GATES}) == len(gates.GATES)
    assert all(gate.text for gate in gates.GATES)


def test_gates_are_asked_in_the_order_of_the_design() -> None:
    order = "withdrawn suppression consent reachability only_to open_case global_holdout told unless stop_when"
    order += " expiry hours caps paused"
    assert [gate.name for gate in gates.GATES] == order.split()


def test_the_first_gate_that_objects_has_the_last_word() -> None:
    worst = facts(
        contacts={"email": replace(EMAIL, suppressions=(("address", ""),), consent="revoked")},
        withdrawn=Reason.WITHDRAWN,
        paused=True,
        open_cases=frozenset({7}),
        told=frozenset({1}),
        true_words=frozenset({"ordered", "refunded"}),
        sent={1: ((NOW - HOUR, "marketing", "email", "x"),)},
    )
    changes: dict[str, Any] = {"unless": ("ordered",), "stop_when": ("refunded",), "expires_at": NOW}
    mending: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("withdrawn", {"withdrawn": None}, {}),
        ("suppressed", {"contacts": {"email": replace(EMAIL, consent="revoked")}}, {}),
        ("no_consent", {"contacts": {"email": EMAIL}}, {}),
        ("case_open", {"open_cases": frozenset()}, {}),
        ("at_most", {"told": frozenset()}, {}),
        ("unless", {}, {"unless": ()}),
        ("stopped", {}, {"stop_when": ()}),
        ("expired", {}, {"expires_at": NOW + 9 * DAY}),
        ("cap", {"sent": {}}, {}),
        ("paused", {"paused": False}, {}),
    ]
    for expected, mended_facts, mended_rules in mending:
        assert outcome(ask(worst, **changes)) == expected
        worst, changes = replace(worst, **mended_facts), {**changes, **mended_rules}
    assert outcome(ask(worst, **changes)) == "send"


def test_every_gate_is_heard_for_an_explanation() -> None:
    known = facts(paused=True, open_cases=frozenset({7}))
    said = {gate.name: verdict for gate, verdict in gates.why(known, RULES, SETTINGS, NIGHT)}
    assert list(said) == [gate.name for gate in gates.GATES]
    assert {name for name, verdict in said.items() if verdict} == {"open_case", "hours", "paused"}
    nobody = dict(gates.why(facts(contacts={}), RULES, SETTINGS, NOW))
    assert [gate.name for gate, verdict in nobody.items() if verdict] == ["reachability"]


# The channel


@pytest.mark.parametrize(
    ("channels", "changes", "expected"),
    [
        (("whatsapp", "sms", "email"), {}, "whatsapp"),
        # no address on the first
        (("messenger", "email"), {}, "email"),
        # suppressed on the first
        (("email", "sms"), {"email": replace(EMAIL, suppressions=(("contact", "email"),))}, "sms"),
        # no consent on the first
        (("email", "sms"), {"email": replace(EMAIL, consent="unknown")}, "sms"),
        # consent is per channel, though the number is one
        (("whatsapp", "sms"), {"whatsapp": replace(PHONE, consent="revoked")}, "sms"),
    ],
)
def test_the_first_permitted_channel_is_taken(
    channels: tuple[str, ...], changes: dict[str, ContactFacts], expected: str
) -> None:
    known = facts(contacts={**FACTS.contacts, **changes})
    verdict = ask(known, channels=channels)
    assert verdict == Send(expected, known.contacts[expected].contact_id, known.contacts[expected].address)


def test_a_message_waits_for_its_best_channel() -> None:
    hours = {"default": parse_week_hours({"mon-sun": "00:00-24:00"}), "sms": parse_week_hours({"tue": "09:00-10:00"})}
    verdict = ask(using=replace(SETTINGS, sending_hours=hours), channels=("sms", "email"))
    assert outcome(verdict) == "hours"


def test_the_reason_is_the_last_filter_that_left_nothing() -> None:
    known = facts(
        contacts={
            "email": replace(EMAIL, suppressions=(("address", ""),)),
            "sms": replace(PHONE, consent="unknown"),
        }
    )
    assert outcome(ask(known, channels=("email", "sms"))) == "no_consent"


@pytest.mark.parametrize(
    ("listed", "channel", "expected"),
    [
        ("Ana@Example.com ", "email", "send"),
        ("+57 300 123-4567", "sms", "send"),
        ("eva@example.com", "email", "only_to"),
        ("ana@example.com", "sms", "only_to"),
    ],
)
def test_a_rehearsal_reaches_only_those_listed(listed: str, channel: str, expected: str) -> None:
    verdict = ask(using=replace(SETTINGS, only_to=(listed,)), channels=(channel,))
    assert outcome(verdict) == expected


# Waiting


def test_outside_hours_a_message_waits_for_the_next_opening_in_every_zone() -> None:
    known = facts(zones=("America/Bogota", "America/Tijuana"))  # five and seven hours behind UTC
    assert ask(known, now=NIGHT) == Defer(NOW.replace(hour=16), Reason.HOURS, "email in America/Bogota America/Tijuana")


def test_a_message_that_cannot_leave_before_it_expires_ends_and_says_what_kept_it() -> None:
    opens = NOW.replace(hour=14)  # 09:00 in Bogotá
    assert ask(now=NIGHT, expires_at=opens + timedelta(seconds=1)) == Defer(
        opens, Reason.HOURS, "email in America/Bogota"
    )
    ended = End(Status.EXPIRED, Reason.EXPIRED, "email in America/Bogota", blocked_by=Reason.HOURS)
    assert ask(now=NIGHT, expires_at=opens) == ended
    known = sent(HOUR)
    assert ask(known, expires_at=NOW + 23 * HOUR + timedelta(seconds=1)) == Defer(
        NOW + 23 * HOUR, Reason.CAP, "marketing: 1 per 1 day"
    )
    assert ask(known, expires_at=NOW + 23 * HOUR) == End(
        Status.EXPIRED, Reason.EXPIRED, "marketing: 1 per 1 day", blocked_by=Reason.CAP
    )


def test_a_channel_without_hours_of_its_own_takes_the_default_and_without_one_the_built_in() -> None:
    sunday = datetime(2026, 6, 21, 15, 0, tzinfo=UTC)
    expires = sunday + 9 * DAY
    only_sms = replace(SETTINGS, sending_hours={"sms": parse_week_hours({"sun": "09:00-20:00"})})
    assert outcome(ask(now=sunday, using=only_sms, channels=("sms",), expires_at=expires)) == "send"
    assert outcome(ask(now=sunday, using=only_sms, channels=("call",), expires_at=expires)) == "hours"  # built in
    assert outcome(ask(now=sunday, using=only_sms, channels=("email",), expires_at=expires)) == "send"  # built in
    assert outcome(ask(now=sunday, channels=("email",), expires_at=expires)) == "hours"  # the written default


def test_without_a_zone_the_business_says_whether_its_own_counts() -> None:
    unknown = facts(zones=())
    assert ask(unknown) == Defer(NOW + HOUR, Reason.NO_ZONE)
    business = replace(SETTINGS, unknown_zone="business")
    assert outcome(ask(unknown, using=business)) == "send"  # 09:00 in Mexico City
    assert outcome(ask(unknown, using=business, now=NOW - HOUR)) == "hours"


def test_a_held_or_paused_message_waits_until_its_expiry_and_not_beyond() -> None:
    soon = NOW + timedelta(seconds=20)
    assert ask(facts(zones=()), expires_at=soon) == Defer(soon, Reason.NO_ZONE)
    assert ask(facts(paused=True), expires_at=soon) == Defer(soon, Reason.PAUSED)
    assert ask(facts(paused=True)) == Defer(NOW + timedelta(minutes=1), Reason.PAUSED)


CAPS: list[tuple[str, Cap, list[tuple[timedelta, str, str, str]], timedelta | None]] = [
    # what the cap is, what was sent how long ago, and when the window frees (None: it is free)
    ("below", Cap(Limit(2, Duration(days=7))), [(HOUR, "marketing", "email", "a")], None),
    ("full", Cap(Limit(1, Duration(days=7))), [(DAY, "marketing", "email", "a")], 6 * DAY),
    # the window is half-open: what was sent exactly its length ago counts no more
    ("just free", Cap(Limit(1, Duration(days=1))), [(DAY, "marketing", "email", "a")], None),
    (
        "just full",
        Cap(Limit(1, Duration(days=1))),
        [(DAY - timedelta(microseconds=1), "marketing", "email", "a")],
        timedelta(microseconds=1),
    ),
    # the second newest of three has to leave the window of two
    (
        "more than full",
        Cap(Limit(2, Duration(days=7))),
        [(timedelta(days=n), "marketing", "email", "a") for n in (1, 2, 3)],
        5 * DAY,
    ),
    # whatever order they come in
    (
        "unordered",
        Cap(Limit(2, Duration(days=7))),
        [(timedelta(days=n), "marketing", "email", "a") for n in (3, 1, 2)],
        5 * DAY,
    ),
    # only what matches every word counts
    ("another purpose", Cap(Limit(1, Duration(days=7)), "marketing"), [(HOUR, "service", "email", "a")], None),
    ("another channel", Cap(Limit(1, Duration(days=7)), channel="email"), [(HOUR, "marketing", "sms", "a")], None),
    (
        "another campaign",
        Cap(Limit(1, Duration(days=7)), campaign="win_back"),
        [(HOUR, "marketing", "email", "a")],
        None,
    ),
    (
        "this campaign",
        Cap(Limit(1, Duration(days=7)), campaign="win_back"),
        [(HOUR, "marketing", "email", "win_back")],
        7 * DAY - HOUR,
    ),
    # a cap on another campaign or channel does not concern this message
    ("not concerned", Cap(Limit(1, Duration(days=7)), campaign="a"), [(HOUR, "marketing", "email", "a")], None),
    # without words it counts everything
    ("everything", Cap(Limit(1, Duration(days=7))), [(HOUR, "transactional", "sms", "a")], 7 * DAY - HOUR),
]


@pytest.mark.parametrize(("cap", "history", "frees"), [row[1:] for row in CAPS], ids=[row[0] for row in CAPS])
def test_a_cap_counts_and_frees_as_the_table_says(
    cap: Cap, history: list[tuple[timedelta, str, str, str]], frees: timedelta | None
) -> None:
    known = facts(sent={1: tuple((NOW - ago, *words) for ago, *words in history)})
    verdict = ask(known, using=replace(SETTINGS, caps=(cap,)), expires_at=NOW + 30 * DAY)
    if frees is None:
        assert isinstance(verdict, Send)
    else:
        assert isinstance(verdict, Defer)
        assert (verdict.until, verdict.reason) == (NOW + frees, Reason.CAP)


def test_caps_belong_to_the_contact_and_not_to_the_customer() -> None:
    assert outcome(ask(sent(HOUR, contact=2))) == "send"
    assert outcome(ask(sent(HOUR, contact=2), channels=("whatsapp",))) == "cap"


def test_of_several_full_caps_the_one_that_frees_last_decides() -> None:
    caps = (Cap(Limit(1, Duration(days=1))), Cap(Limit(1, Duration(days=7))), Cap(Limit(1, Duration(days=2))))
    verdict = ask(sent(HOUR), using=replace(SETTINGS, caps=caps), expires_at=NOW + 30 * DAY)
    assert verdict == Defer(NOW + 7 * DAY - HOUR, Reason.CAP, "all: 1 per 7 days")


# The enrolment


def test_the_global_holdout_keeps_marketing_only_from_a_share_of_all() -> None:
    everybody = replace(SETTINGS, holdout=1.0)
    assert gates.judge(FACTS, RULES, everybody, SECRET) is Reason.GLOBAL_HOLDOUT
    assert gates.judge(FACTS, replace(RULES, purpose="service"), everybody, SECRET) is None
    assert gates.judge(FACTS, RULES, SETTINGS, SECRET) is None
    some = replace(SETTINGS, holdout=0.2)
    held = [gates.judge(facts(external_id=f"C-{n}"), RULES, some, SECRET) for n in range(2000)]
    assert 300 < sum(reason is Reason.GLOBAL_HOLDOUT for reason in held) < 500


def test_an_enrolment_is_judged_by_its_record_before_the_holdout() -> None:
    everybody = replace(SETTINGS, holdout=1.0)
    assert gates.judge(facts(**CASE), RULES, everybody, SECRET) is Reason.CASE_OPEN
    known = facts(**CASE, contacts={})
    assert gates.judge(known, RULES, everybody, SECRET) is Reason.UNREACHABLE


# Any facts whatever


ZONES = ("America/Bogota", "America/Mexico_City", "America/Tijuana", "Europe/Madrid", "America/Sao_Paulo")
SCOPES = ("marketing", "contact", "address")
WORDS = ("ordered", "replied", "case_open")
CAMPAIGNS = ("win_back", "post_sale")

few = st.sampled_from


def one_of_all(*columns: Iterable[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """A row of all that the columns can make: drawn as one thing, for it is the drawing that takes the time."""
    return few(list(product(*columns)))


def seldom(value: st.SearchStrategy[Any], otherwise: Any) -> st.SearchStrategy[Any]:
    """Mostly `otherwise`, so that a message has a chance to pass all of many gates."""
    return st.integers(0, 9).flatmap(lambda n: value if n == 9 else st.just(otherwise))


def _window(minute: int) -> tuple[int, int] | None:
    opens, closes = divmod(minute, 1440)
    return (opens, closes + 1) if opens <= closes else None


windows = st.integers(0, 1440**2 - 1).map(_window)
weeks = st.builds(WeekHours, st.lists(windows, min_size=7, max_size=7).map(tuple)) | st.just(
    parse_week_hours({"mon-sun": "08:00-21:00"})
)
suppressions = st.just(()) | one_of_all(SCOPES, ("", "email", "sms", "call")).map(lambda one: (one,))
contacts = st.builds(
    lambda known, suppressions: replace(known, suppressions=suppressions),
    one_of_all(
        (1, 2, 3),
        ("a@example.com", "b@example.com", "+573001234567"),
        ("granted", "granted", "revoked", "unknown"),
    ).map(lambda words: ContactFacts(*words)),
    suppressions,
)
minutes = st.integers(0, 10 * 1440).map(lambda n: timedelta(minutes=n))
histories = st.lists(
    st.builds(lambda ago, words: (NOW - ago, *words), minutes, one_of_all(PURPOSES, CHANNELS, CAMPAIGNS)),
    min_size=2,
    max_size=6,
).map(lambda rows: tuple(sorted(rows, reverse=True)))

any_facts = st.builds(
    Facts,
    st.just("C-1"),
    st.fixed_dictionaries({channel: seldom(st.none(), EMAIL) | contacts for channel in CHANNELS}).map(
        lambda known: {channel: contact for channel, contact in known.items() if contact}
    ),
    st.lists(few(ZONES), max_size=3, unique=True).map(tuple),
    seldom(few((Reason.WITHDRAWN, Reason.CUSTOMER_GONE)), None),
    seldom(st.booleans(), False),
    seldom(st.frozensets(st.integers(1, 3), max_size=2), frozenset()),
    st.none() | st.integers(1, 3),
    seldom(st.frozensets(few(WORDS), max_size=1), frozenset()),
    st.fixed_dictionaries(dict.fromkeys((1, 2, 3), histories)),
)
any_rules = st.builds(
    Rules,
    few(CAMPAIGNS),
    st.just("step"),
    few(PURPOSES),
    st.lists(few(CHANNELS), min_size=1, max_size=3, unique=True).map(tuple),
    st.just(NOW - HOUR),
    seldom(few((NOW - HOUR, NOW, NOW + timedelta(microseconds=1))), NOW + 3 * DAY) | minutes.map(lambda n: NOW + n),
    st.lists(few(WORDS), max_size=1).map(tuple),
    st.lists(few(WORDS), max_size=1).map(tuple),
)
spans = [parse_duration(text) for text in ("1 day", "7 days", "90 minutes", "1 month")]
caps = one_of_all((1, 2), spans, (None, None, *PURPOSES), (*[None] * 6, *CHANNELS), (None, None, *CAMPAIGNS)).map(
    lambda of: Cap(Limit(*of[:2]), *of[2:])
)
any_settings = st.builds(
    Settings,
    st.just(Path()),
    st.just(Business("Luna", "America/Mexico_City", "MXN")),
    only_to=seldom(few((("A@example.com", "+57 300 1234567"), ("ana@example.com",))), ()),
    sending_hours=st.dictionaries(few(("default", *CHANNELS)), weeks, max_size=2).map(
        lambda hours: {"default": parse_week_hours({"mon-fri": "08:00-20:00"}), **hours}
    ),
    caps=st.lists(caps, min_size=1, max_size=3).map(tuple),
    unknown_zone=few(("hold", "business")),
)


def broken_rules(known: Facts, rules: Rules, using: Settings, now: datetime, channel: str) -> set[str]:
    """
    Which rows of DESIGN 3.4 a message on the channel at `now` would break.

    Written from the table alone, without the gates, `timing`, or their order.
    """
    marketing, transactional = rules.purpose == "marketing", rules.purpose == "transactional"
    contact = known.contacts[channel]
    scopes = {scope for scope, _ in contact.suppressions}
    said_on = {where for scope, where in contact.suppressions if scope == "contact"}
    week = using.sending_hours.get(channel, using.sending_hours["default"])
    places = known.zones or ((using.business.timezone,) if using.unknown_zone == "business" else ())
    clocks = [now.astimezone(ZoneInfo(name)) for name in places]
    listed = {address.lower().replace(" ", "") for address in using.only_to}
    broken = {
        "withdrawn": known.withdrawn is not None,
        "marketing list": marketing and "marketing" in scopes,
        "opt-out": "contact" in scopes and (not transactional or bool(said_on & {"", channel})),
        "bounce": bool({("address", ""), ("address", channel)} & set(contact.suppressions)),
        "consent": (marketing and contact.consent != "granted")
        or (rules.purpose == "service" and contact.consent == "revoked"),
        "case": marketing and any(case != known.own_case for case in known.open_cases),
        "until": any(word in known.true_words for word in (*rules.unless, *rules.stop_when)),
        "expiry": not now < rules.expires_at,
        "hours": (not transactional or channel in ("sms", "call"))
        and (not clocks or not all(_is_open(week, clock) for clock in clocks)),
        "caps": not transactional and any(_is_full(cap, known, rules, channel, now) for cap in using.caps),
        "paused": known.paused,
        "rehearsal": bool(listed) and contact.address.lower() not in listed,
    }
    return {name for name, is_broken in broken.items() if is_broken}


def _is_open(week: WeekHours, clock: datetime) -> bool:
    opens, closes = week.days[clock.weekday()] or (0, 0)
    return opens * 60 <= clock.hour * 3600 + clock.minute * 60 + clock.second < closes * 60


def _is_full(cap: Cap, known: Facts, rules: Rules, channel: str, now: datetime) -> bool:
    wanted = (cap.purpose, cap.channel, cap.campaign)
    own = (rules.purpose, channel, rules.campaign)
    if any(word and word != mine for word, mine in zip(wanted, own, strict=True)):
        return False
    start = now - cap.limit.per.clock
    history = known.sent.get(known.contacts[channel].contact_id, ())
    matching = [at for at, *words in history if all(w in (None, v) for w, v in zip(wanted, words, strict=True))]
    return sum(at > start for at in matching) >= cap.limit.count


PERSONAL = {"marketing list", "opt-out", "bounce", "consent"}  # what makes the next channel be tried


@settings(max_examples=400, deadline=None)
@given(any_facts, any_rules, any_settings)
def test_a_message_leaves_exactly_when_it_breaks_no_row_of_the_table(
    known: Facts, rules: Rules, using: Settings
) -> None:
    verdict = gates.decide(known, rules, using, NOW)
    broken = {
        channel: broken_rules(known, rules, using, NOW, channel)
        for channel in rules.channels
        if channel in known.contacts
    }
    if isinstance(verdict, Send):
        assert not broken[verdict.channel]
        assert verdict.address == known.contacts[verdict.channel].address
        assert verdict.contact_id == known.contacts[verdict.channel].contact_id
    best = next((channel for channel, rows in broken.items() if not rows & PERSONAL), None)
    may_leave = best is not None and not broken[best]
    assert isinstance(verdict, Send) == may_leave
    assert not isinstance(verdict, Send) or verdict.channel == best


@settings(max_examples=250, deadline=None)
@given(any_facts, any_rules, any_settings)
def test_a_waiting_message_always_comes_to_an_end_by_its_expiry(known: Facts, rules: Rules, using: Settings) -> None:
    now, seen = NOW, 0
    if known.paused or not known.zones:  # looked at again every minute or hour: start near the end
        now = max(NOW, rules.expires_at - HOUR / 4)
    verdict = gates.decide(known, rules, using, now)
    while isinstance(verdict, Defer):
        assert now < verdict.until <= rules.expires_at
        if verdict.reason in (Reason.HOURS, Reason.CAP):
            assert verdict.until < rules.expires_at
        now, seen = verdict.until, seen + 1
        assert seen < 100
        again = gates.decide(known, rules, using, now)
        if verdict.reason is Reason.HOURS or (verdict.reason is Reason.CAP and isinstance(again, Send)):
            assert outcome(again) != verdict.reason
        verdict = again
    assert isinstance(verdict, Send) == (not _first_broken(known, rules, using, now))


def _first_broken(known: Facts, rules: Rules, using: Settings, now: datetime) -> set[str]:
    broken: Mapping[str, set[str]] = {
        channel: broken_rules(known, rules, using, now, channel)
        for channel in rules.channels
        if channel in known.contacts
    }
    return next((rows for rows in broken.values() if not rows & PERSONAL), {"unreachable"})


@given(any_facts, any_rules, any_settings)
def test_a_verdict_is_the_first_objection_of_the_explanation(known: Facts, rules: Rules, using: Settings) -> None:
    verdict = gates.decide(known, rules, using, NOW)
    objections = [said for _, said in gates.why(known, rules, using, NOW) if said is not None]
    if isinstance(verdict, Send):
        assert objections == []
    else:
        assert verdict == objections[0]


@given(any_facts, any_rules, any_settings)
def test_whoever_is_refused_an_enrolment_would_be_refused_the_message(
    known: Facts, rules: Rules, using: Settings
) -> None:
    reason = gates.judge(known, rules, using, SECRET)
    if reason is not None:
        assert not isinstance(gates.decide(known, rules, using, NOW), Send)


@given(any_facts, any_rules, any_settings)
def test_a_verdict_names_no_address(known: Facts, rules: Rules, using: Settings) -> None:
    said = [verdict for _, verdict in gates.why(known, rules, using, NOW) if verdict is not None]
    addresses = {contact.address for contact in known.contacts.values()}
    assert not any(address in verdict.detail for verdict in said for address in addresses)
