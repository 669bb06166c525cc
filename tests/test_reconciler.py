"""Messages in doubt: settled by evidence alone, whoever else has a hand on them, and never by a second acceptance."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, text, update

from outreach import channels, daemon, dispatcher, planner, reconciler, releases, store
from outreach.channels import Channels, Doubtful, Kept, Outcome, Outgoing, Receipt, Record, Silent
from outreach.dispatcher import claiming, tasks
from outreach.errors import ChannelError, NotFound, OutreachError
from outreach.models import (
    Alarm,
    CustomerTag,
    Installation,
    Message,
    MessageContent,
    MessageEvent,
    MessageLink,
    Reason,
    Status,
    Suppression,
    Tick,
    table,
)
from outreach.reconciler import Decision, ReconcileCounts, deciding, settling
from outreach.reconciler.deciding import Answer, Attempt, Heard, Why, decide, next_look
from outreach.reconciler.tick import BATCH
from outreach.settings import ChannelSettings, Settings
from outreach.store import Database
from outreach.testing import Fault, Faults
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from outreach.values import Duration, Limit
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, publish, rows_of, shop_settings

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
COUNTS_AT = NOW + timedelta(minutes=16, seconds=50)  # 60 s + 30 s + the channels' 20 s + 15 minutes
SMS, EMAIL = "+525500000000", "Tienda Luna <hola@tiendaluna.example>"
ONE = """
    title: One
    purpose: service
    trigger: {event: customer.created}
    steps: [{id: one, after: 0 minutes, channel: [CHANNELS], template: m, expires: 30 days, tag: greeted}]
"""


# --- deciding: pure ------------------------------------------------------------------------------------

SINCE, UNTIL = NOW - deciding.ROOM, COUNTS_AT
ATTEMPT = Attempt("ours", "Hola Ana", NOW, SINCE, UNTIL)


def answer(*records: Record, complete: bool = True, at: datetime = UNTIL) -> Answer:
    return Answer("sms", Kept("ours", records, complete), at)


def decided(
    *answers: Answer,
    attempt: Attempt = ATTEMPT,
    heard: Sequence[Heard] = (),
    taken: Iterable[str] = (),
    rivals: bool = False,
    resend: bool = True,
) -> tuple[str, str, str | None]:
    known = {("sms", one) for one in taken}
    verdict = decide(attempt, heard, answers, known, rivals=rivals, resend=resend)
    return str(verdict.status), str(verdict.why), verdict.provider_id


def record(number: str = "r1", at: datetime | None = NOW, public_id: str = "", text: str | None = "Hola Ana") -> Record:
    return Record(number, at, public_id, text)


MINE = record(public_id="ours")
BEGAN_AGAIN = replace(ATTEMPT, first=False)
CASES: list[tuple[str, tuple[str, str, str | None], tuple[str, str, str | None]]] = [
    ("our id", decided(answer(MINE)), ("sent", "found", "r1")),
    ("our id, at any time", decided(answer(record(at=NOW - DAY, public_id="ours"))), ("sent", "found", "r1")),
    ("our id, and not all of the list", decided(answer(MINE, complete=False)), ("sent", "found", "r1")),
    ("our id, on two pages", decided(answer(MINE, MINE)), ("sent", "found", "r1")),
    ("our id twice", decided(answer(MINE, record("r2", public_id="ours"))), ("unknown", "ambiguous", None)),
    ("our id, known as another's", decided(answer(MINE), taken=["r1"]), ("sent", "found", None)),
    ("another's id", decided(answer(record(public_id="another"))), ("planned", "absent", None)),
    ("the text", decided(answer(record())), ("sent", "found", "r1")),
    ("the text, composed and spaced otherwise", decided(answer(record(text=" Hola\n Ana ")), attempt=replace(ATTEMPT, text="Hola Ana")), ("sent", "found", "r1")),
    ("an accent in two characters", decided(answer(record(text="A\u0301nimo")), attempt=replace(ATTEMPT, text="\u00c1nimo")), ("sent", "found", "r1")),
    ("the text, nobody knows when", decided(answer(record(at=None))), ("sent", "found", "r1")),
    ("the text twice", decided(answer(record(), record("r2"))), ("unknown", "ambiguous", None)),
    ("the text twice, without an id", decided(answer(record(""), record(""))), ("unknown", "ambiguous", None)),
    ("the text twice, one of them another's", decided(answer(record(), record("r2")), taken=["r2"]), ("sent", "found", "r1")),
    ("the text, and a rival", decided(answer(record()), rivals=True), ("unknown", "ambiguous", None)),
    ("the text, at another time", decided(answer(record(at=SINCE - MINUTE))), ("unknown", "ambiguous", None)),
    ("another text", decided(answer(record(text="Hola Eva"))), ("unknown", "ambiguous", None)),
    ("another text, at another time", decided(answer(record(at=NOW + HOUR, text="Hola Eva"))), ("planned", "absent", None)),
    ("another text, of a message known here", decided(answer(record(text="Hola Eva")), taken=["r1"]), ("planned", "absent", None)),
    ("a text that the provider does not tell", decided(answer(record(text=None))), ("unknown", "ambiguous", None)),
    ("an empty text is like no other", decided(answer(record(text=" ")), attempt=replace(ATTEMPT, text="")), ("unknown", "ambiguous", None)),
    ("a text no longer kept", decided(answer(record()), attempt=replace(ATTEMPT, text=None)), ("unknown", "ambiguous", None)),
    ("of an earlier attempt, or of this one", decided(answer(record(at=NOW - MINUTE)), attempt=BEGAN_AGAIN), ("unknown", "ambiguous", None)),
    ("of this attempt, not of an earlier one", decided(answer(record(at=NOW)), attempt=BEGAN_AGAIN), ("sent", "found", "r1")),
    ("nothing", decided(answer()), ("planned", "absent", None)),
    ("nothing, and somebody wants to decide", decided(answer(), resend=False), ("unknown", "absent", None)),
    ("nothing yet", decided(answer(at=UNTIL - timedelta(seconds=1))), ("unknown", "too_early", None)),
    ("nothing, in a list that may lack it", decided(answer(complete=False)), ("unknown", "incomplete", None)),
    ("no answer", decided(), ("unknown", "no_answer", None)),
    ("nothing, after a restore", decided(answer(), attempt=replace(ATTEMPT, before_restore=True)), ("unknown", "unproven", None)),
    ("our id, after a restore", decided(answer(MINE), attempt=replace(ATTEMPT, before_restore=True)), ("sent", "found", "r1")),
    ("the text, after a restore", decided(answer(record()), attempt=replace(ATTEMPT, before_restore=True)), ("unknown", "ambiguous", None)),
    ("nothing, at a provider chosen since", decided(answer(), attempt=replace(ATTEMPT, same_provider=False)), ("unknown", "unproven", None)),
]  # fmt: skip


@pytest.mark.parametrize(("is_", "said"), [(is_, said) for _, is_, said in CASES], ids=[name for name, _, _ in CASES])
def test_what_the_provider_has_decides(is_: tuple[str, str, str | None], said: tuple[str, str, str | None]) -> None:
    assert is_ == said


@pytest.mark.parametrize(
    ("kind", "event_id", "first", "settles"),
    [
        ("delivered", "twilio:1", True, True),
        ("failed", "twilio:1", True, True),  # it was accepted, and could not be delivered
        ("delivered", "twilio:1", False, True),  # an earlier attempt was certainly refused
        ("failed", "twilio:1", False, False),  # this may be that refusal
        ("bounced", "refused:ours:email", True, False),  # what a refusal left here, on the channel before
        ("reached", "task:ours:call:0:reached", True, False),
        ("coupon_redeemed", "x", True, False),  # a shared code is known to many
    ],
)
def test_what_the_provider_reported_decides(kind: str, event_id: str, first: bool, settles: bool) -> None:
    found = decided(heard=[Heard(kind, NOW, event_id, "r9")], attempt=replace(ATTEMPT, first=first))

    assert found == (("sent", "reported", "r9") if settles else ("unknown", "no_answer", None))


times = st.integers(-40, 40).map(lambda minutes: NOW + minutes * MINUTE)
texts = st.sampled_from(["Hola Ana", "Hola Eva", "Adiós"])


@dataclass(frozen=True)
class Truth:
    """What really happened: what each record of the provider's is."""

    accepted: bool
    records: tuple[Record, ...]
    taken: frozenset[str]
    rivals: bool


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    """
    A provider that keeps ids or does not, this attempt at it or not, other messages of ours whose ids are known here
    or not, and strangers' messages; whoever has the same text as ours and no id known here is known as a rival.
    """
    keeps_ids, accepted = draw(st.booleans()), draw(st.booleans())
    records, taken, rivals = [], set(), False
    if accepted:
        made = NOW + draw(st.integers(0, 110)) * timedelta(seconds=1)
        records.append(Record("mine", made, "ours" if keeps_ids else "", "Hola Ana"))
    for number in range(draw(st.integers(0, 3))):
        said, known = draw(texts), draw(st.booleans())
        records.append(Record(f"other{number}", draw(times), f"o{number}" if keeps_ids else "", said))
        taken |= {f"other{number}"} if known else set()
        rivals |= not known and said == "Hola Ana"
    records += [Record(f"stranger{n}", draw(times), "", "Adiós") for n in range(draw(st.integers(0, 2)))]
    return Truth(accepted, tuple(draw(st.permutations(records))), frozenset(taken), rivals)


@given(truth=truths(), at=times, complete=st.booleans(), resend=st.booleans(), first=st.booleans())
@hypothesis_settings(max_examples=200, deadline=None)
def test_nothing_is_planned_again_that_the_provider_has_and_nothing_is_sent_that_it_has_not(
    truth: Truth, at: datetime, complete: bool, resend: bool, first: bool
) -> None:
    there = truth.records if complete else truth.records[1:]
    status, _, provider_id = decided(
        answer(*there, complete=complete, at=at),
        attempt=replace(ATTEMPT, first=first),
        taken=truth.taken,
        rivals=truth.rivals,
        resend=resend,
    )

    if status == Status.PLANNED:
        assert (truth.accepted, complete, resend, at >= UNTIL) == (False, True, True, True)
    if status == Status.SENT:
        assert truth.accepted
        assert provider_id == "mine"
    if truth.accepted and complete and not truth.rivals and first:
        assert status == Status.SENT


@given(
    truth=truths(),
    attempt=st.sampled_from([replace(ATTEMPT, before_restore=True), replace(ATTEMPT, same_provider=False)]),
)
def test_where_absence_proves_nothing_nothing_is_planned_again(truth: Truth, attempt: Attempt) -> None:
    status, _, _ = decided(answer(*truth.records), attempt=attempt, taken=truth.taken, rivals=truth.rivals)

    assert status != Status.PLANNED
    assert truth.accepted or status != Status.SENT


def looks(why: Why) -> list[timedelta]:
    """When a message in doubt is looked for, counted from its hand-over, if every look ends so."""
    found, now = [timedelta()], NOW
    while (following := next_look(why, NOW, UNTIL, now)) is not None:
        assert following > now
        found.append(following - NOW)
        now = following
    return found


def test_looks_come_soon_then_when_absence_counts_then_daily_and_then_no_more() -> None:
    counts = UNTIL - NOW
    soon = [timedelta(), *(m * MINUTE for m in (1, 2, 4, 8, 16))]

    assert looks(Why.ABSENT) == [*soon, counts, *(counts + n * DAY for n in range(1, 8))]
    assert looks(Why.NOBODY) == looks(Why.PERSON) == [timedelta()]
    assert [look for look in looks(Why.NO_ANSWER) if look > counts][:3] == [m * MINUTE for m in (32, 64, 128)]
    assert len(looks(Why.NO_ANSWER)) < 25


@given(late=st.integers(0, 20 * 24 * 60).map(lambda minutes: minutes * MINUTE), why=st.sampled_from(Why))
def test_a_look_that_comes_late_is_followed_by_a_later_one_or_by_none(late: timedelta, why: Why) -> None:
    following = next_look(why, NOW, UNTIL, NOW + late)

    assert following is None or NOW + late < following <= UNTIL + 7 * DAY
    assert following is None or following <= NOW + late + DAY
    assert late >= 7 * DAY or why in deciding.NEVER_AGAIN or following is not None


# --- a shop whose provider loses answers -------------------------------------------------------------------


@dataclass
class Provider:
    """Stands in for a provider: it may take what it gets, loses the answer, and can be asked later."""

    takes: Callable[[Outgoing], bool] = lambda _: False
    answers: bool = False  # whether what it took is confirmed at once
    keeps_ids: bool = False
    complete: bool = True
    kept: dict[str, list[Record]] = field(default_factory=dict)  # by address
    accepted: Counter[str] = field(default_factory=Counter)  # by public id
    asked: list[str] = field(default_factory=list)  # public ids, in order
    batches: list[int] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None  # while it is being asked
    wrong: Exception | None = None
    at: datetime = NOW

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for one in batch:
            taken = self.takes(one)
            if taken:
                self.accepted[one.public_id] += 1
                number = f"p{self.accepted.total()}"
                made = Record(number, self.at, one.public_id if self.keeps_ids else "", one.content.text)
                self.kept.setdefault(one.address, []).append(made)
            if taken and self.answers:
                yield Receipt(one.public_id, Outcome.ACCEPTED, number)

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        self.batches.append(len(doubtful))
        for one in doubtful:
            self.asked.append(one.public_id)
            self.meanwhile()
            if self.wrong is not None:
                raise self.wrong
            yield Kept(one.public_id, tuple(self.kept.get(one.address, ())), self.complete)

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Rig:
    """A shop with customers, and a stand-in for the provider of each of its channels."""

    db: Database
    settings: Settings
    providers: dict[str, Any]

    def begin(self, people: int = 1, **changes: Any) -> None:
        """A message for each of so many customers, planned."""
        channels = ", ".join(self.settings.channels)
        publish(self.db, self.settings, NOW - HOUR, one=ONE.replace("CHANNELS", channels))
        cells = {"created_at": NOW, "call_consent": "yes", **changes}
        feed(self.db, self.settings, NOW, customers=[customer(n, **cells) for n in range(people)])
        planner.plan(self.db, self.settings, NOW)

    def dispatch(self, now: datetime = NOW) -> dispatcher.DispatchCounts:
        return dispatcher.dispatch(self.db, self.settings, now)

    def reconcile(self, now: datetime, **options: Any) -> ReconcileCounts:
        return reconciler.reconcile(self.db, self.settings, now, **options)

    def messages(self) -> list[Any]:
        return rows_of(self.db, Message)

    @property
    def message(self) -> Any:
        [found] = self.messages()
        return found

    def change(self, model: Any = Message, **values: Any) -> None:
        with store.write(self.db) as connection:
            connection.execute(update(table(model)).values(values))

    def event(self, message: Any, kind: str = "delivered", **cells: Any) -> None:
        values = {"event_id": f"e:{message.id}:{kind}", "message_id": message.id, "kind": kind, "at": NOW}
        with store.write(self.db) as connection:
            connection.execute(insert(table(MessageEvent)).values(**{**values, "detail": {}, **cells}))


@pytest.fixture
def rig(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A shop that sends by SMS, whose provider takes nothing and says nothing, and plans again what is absent."""
    made = Rig(db, shop_settings(tmp_path), {})
    by_channel(made, monkeypatch, sms=Provider())
    return made


def by_channel(rig: Rig, monkeypatch: pytest.MonkeyPatch, **providers: Any) -> None:
    """These channels and no others, each by its stand-in."""
    configured = {
        name: ChannelSettings("outbox", EMAIL if name == "email" else SMS, in_doubt="resend_if_absent")
        for name in providers
    }
    rig.settings, rig.providers = replace(rig.settings, channels=configured), providers
    monkeypatch.setattr(channels, "open_channel", lambda name, _settings: rig.providers[name])


def held(rig: Rig) -> None:
    rig.settings = replace(
        rig.settings, channels={name: replace(one, in_doubt="hold") for name, one in rig.settings.channels.items()}
    )


def sms(rig: Rig) -> Provider:
    found: Provider = rig.providers["sms"]
    return found


# --- evidence --------------------------------------------------------------------------------------------


def test_a_message_that_the_provider_has_is_sent_and_known_by_its_id(rig: Rig) -> None:
    sms(rig).takes = lambda _: True
    rig.begin()
    assert rig.dispatch().unknown == 1

    counts = rig.reconcile(NOW + MINUTE)

    assert counts == ReconcileCounts(looked=1, sent=1, by_reason={"found": 1})
    row = rig.message
    assert (row.status, row.provider_id, row.sent_at, row.claim) == (Status.SENT, "p1", NOW, None)
    assert row.detail == "settled: the provider has it"
    assert [(tag.tag, tag.by_campaign) for tag in rows_of(rig.db, CustomerTag)] == [("greeted", True)]
    assert rig.reconcile(NOW + HOUR) == ReconcileCounts()


def test_texts_are_deleted_once_they_are_older_than_the_settings_say_but_not_those_of_messages_in_doubt(
    rig: Rig,
) -> None:
    rig.settings = replace(rig.settings, keep_bodies=Duration(days=90))
    sms(rig).takes = lambda outgoing: outgoing.address.endswith("0")
    rig.begin(2)
    rig.dispatch()
    late = NOW + 91 * DAY
    rig.reconcile(NOW + MINUTE)
    rig.change(look_at=None)
    doubtful = {row.id for row in rig.messages() if row.status == Status.UNKNOWN}
    assert (len(doubtful), len(rows_of(rig.db, MessageContent))) == (1, 2)

    assert rig.reconcile(NOW + 90 * DAY).expired == 0
    counts = rig.reconcile(late)

    assert (counts, counts.as_json()["expired"]) == (ReconcileCounts(expired=1), 1)
    assert {row.message_id for row in rows_of(rig.db, MessageContent)} == doubtful
    assert "expired" not in rig.reconcile(late).as_json()


def test_what_the_provider_reported_settles_a_message_without_asking(rig: Rig) -> None:
    rig.begin(2)
    rig.dispatch()
    first, second = rig.messages()
    rig.event(first, "delivered", detail={"provider_id": "p7"})

    counts = rig.reconcile(NOW + MINUTE)

    assert (counts.sent, counts.unknown, counts.by_reason) == (1, 1, {"reported": 1, "too_early": 1})
    assert sms(rig).asked == [second.public_id]
    assert [row.provider_id for row in rig.messages()] == ["p7", None]
    assert rig.messages()[0].detail == "settled: the provider reported it as delivered"


def test_a_late_report_settles_a_message_that_nobody_looks_for_any_more(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    rig.change(look_at=None)
    assert rig.reconcile(NOW + 30 * DAY) == ReconcileCounts()
    rig.event(rig.message, "opened", at=NOW + 30 * DAY)

    assert rig.reconcile(NOW + 30 * DAY).by_reason == {"reported": 1}
    assert (rig.message.status, sms(rig).asked) == (Status.SENT, [])


def test_a_reply_shows_that_a_message_arrived_only_where_it_names_it(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    rig.event(rig.message, "replied")
    assert rig.reconcile(NOW + MINUTE).by_reason == {"too_early": 1}

    rig.event(rig.message, "opted_out", detail={"exact": True})
    assert rig.reconcile(NOW + MINUTE).by_reason == {"reported": 1}


def test_a_refusal_on_an_earlier_channel_says_nothing_about_this_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(Provider):
        def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
            for one in batch:
                yield Receipt(one.public_id, Outcome.REFUSED, detail="nobody there", blame=channels.Blame.ADDRESS)

    by_channel(rig, monkeypatch, email=Refuses(), sms=Provider())
    rig.begin()
    rig.dispatch()
    assert (rig.message.channel, rig.message.status) == ("sms", Status.UNKNOWN)
    assert [row.kind for row in rows_of(rig.db, MessageEvent)] == ["bounced"]

    assert rig.reconcile(NOW + MINUTE).by_reason == {"too_early": 1}


@pytest.mark.parametrize("earlier", [{"attempts": 2}, {"refused": "email"}])
def test_a_failure_reported_after_an_earlier_attempt_may_be_that_one_s(rig: Rig, earlier: dict[str, Any]) -> None:
    rig.begin()
    rig.dispatch()
    rig.event(rig.message, "failed")
    rig.change(**earlier)

    assert rig.reconcile(NOW + MINUTE).by_reason == {"too_early": 1}
    rig.change(attempts=1, refused="")
    assert rig.reconcile(NOW + MINUTE).by_reason == {"reported": 1}


def test_of_two_messages_with_one_text_and_one_record_nobody_knows_which_it_is(rig: Rig) -> None:
    sms(rig).takes = lambda _: not sms(rig).accepted
    rig.begin()
    feed(rig.db, rig.settings, NOW, customers=[customer(9, phone="+525541000000", created_at=NOW)])  # the same phone
    planner.plan(rig.db, rig.settings, NOW)
    assert rig.dispatch().unknown == 2

    counts = rig.reconcile(COUNTS_AT)

    assert counts == ReconcileCounts(looked=2, unknown=2, by_reason={"ambiguous": 2})
    assert "two of ours could be that one" in rig.messages()[0].detail


@pytest.mark.parametrize(
    ("status", "rivals"), [(Status.SENDING, True), (Status.SENT, True), (Status.FAILED, True), (Status.PLANNED, False)]
)
def test_a_message_without_a_provider_s_id_may_be_whose_record_it_is(rig: Rig, status: Status, rivals: bool) -> None:
    """Being sent by somebody slow, or settled by a person: only what certainly never left is no rival."""
    sms(rig).takes = lambda _: not sms(rig).accepted
    rig.begin()
    feed(rig.db, rig.settings, NOW, customers=[customer(9, phone="+525541000000", created_at=NOW)])
    planner.plan(rig.db, rig.settings, NOW)
    rig.dispatch()
    other = rig.messages()[1].id
    never = {"contact_id": None, "sent_at": None} if status is Status.PLANNED else {}
    with store.write(rig.db) as connection:
        of = table(Message).c.id == other
        connection.execute(update(table(Message)).where(of).values(status=status, look_at=None, **never))

    assert rig.reconcile(COUNTS_AT).by_reason == ({"ambiguous": 1} if rivals else {"found": 1})


def test_a_message_that_is_known_by_a_provider_s_id_is_no_rival(rig: Rig) -> None:
    provider = sms(rig)
    provider.takes = lambda _: True
    rig.begin()
    provider.answers = True
    rig.dispatch()
    provider.answers = False
    feed(rig.db, rig.settings, NOW, customers=[customer(9, phone="+525541000000", created_at=NOW)])
    planner.plan(rig.db, rig.settings, NOW)
    rig.dispatch()

    assert rig.reconcile(COUNTS_AT).by_reason == {"found": 1}
    assert [row.provider_id for row in rig.messages()] == ["p1", "p2"]


def test_records_of_our_other_messages_are_in_nobody_s_way(rig: Rig) -> None:
    """Two for one phone with different texts, of which the provider has one: the other is absent, at the same look."""
    sms(rig).takes = lambda one: "Eva" in one.content.text
    rig.begin()
    eva = customer(9, phone="+525541000000", first_name="Eva", created_at=NOW)
    feed(rig.db, rig.settings, NOW, customers=[eva])
    planner.plan(rig.db, rig.settings, NOW)
    rig.dispatch()

    counts = rig.reconcile(COUNTS_AT)

    assert counts == ReconcileCounts(looked=2, sent=1, planned=1, by_reason={"absent": 1, "found": 1})
    assert [row.status for row in rig.messages()] == [Status.PLANNED, Status.SENT]


def test_a_record_that_nobody_knows_speaks_against_absence(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    sms(rig).kept["+525541000000"] = [Record("x", NOW + MINUTE, text="Your code is 1234")]

    assert rig.reconcile(COUNTS_AT).by_reason == {"ambiguous": 1}
    assert rig.message.status == Status.UNKNOWN


# --- absence -----------------------------------------------------------------------------------------------


def test_what_is_absent_is_planned_again_with_nothing_of_its_attempt_and_goes_out_once(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    assert len(rows_of(rig.db, MessageContent)) == 1
    rig.change(claim="gone")  # as of one whose process went away

    early = rig.reconcile(COUNTS_AT - timedelta(seconds=1))
    counts = rig.reconcile(COUNTS_AT)

    assert (early.planned, early.by_reason) == (0, {"too_early": 1})
    assert counts == ReconcileCounts(looked=1, planned=1, by_reason={"absent": 1})
    row = rig.message
    assert (row.status, row.claim, row.lease_until, row.contact_id, row.sent_at) == (Status.PLANNED, *[None] * 4)
    assert (row.ready_at, row.attempts, row.blocked_by) == (COUNTS_AT, 1, Reason.RETRY)
    assert row.look_at is not None
    assert rows_of(rig.db, MessageContent) == rows_of(rig.db, MessageLink) == []
    sms(rig).takes, sms(rig).answers = lambda _: True, True
    assert rig.dispatch(COUNTS_AT).sent == 1
    assert (rig.message.attempts, sms(rig).accepted.total()) == (2, 1)


def test_what_is_planned_again_passes_every_gate_again(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    phone = store.address_hash(rig.db.secret, "phone", "+525541000000")
    with store.write(rig.db) as connection:
        values = {"address_hash": phone, "kind": "phone", "scope": "contact", "channel": "sms", "at": NOW, "source": ""}
        connection.execute(insert(table(Suppression)).values(values))

    assert rig.reconcile(COUNTS_AT).planned == 1
    rig.dispatch(COUNTS_AT)

    assert (rig.message.status, rig.message.reason) == (Status.SKIPPED, Reason.SUPPRESSED)


def test_under_hold_it_waits_for_a_person_who_can_read_that_the_provider_does_not_have_it(rig: Rig) -> None:
    held(rig)
    rig.begin()
    rig.dispatch()

    counts = rig.reconcile(COUNTS_AT)

    assert counts == ReconcileCounts(looked=1, unknown=1, by_reason={"absent": 1})
    row = rig.message
    assert (
        row.detail
        == "the channel did not say what became of it; last look 2026-06-15 15:16 UTC: the provider does not have it"
    )
    assert (row.status, row.look_at) == (Status.UNKNOWN, COUNTS_AT + DAY)
    rig.reconcile(COUNTS_AT + DAY)
    assert (
        rig.message.detail
        == "the channel did not say what became of it; last look 2026-06-16 15:16 UTC: the provider does not have it"
    )


def test_each_look_is_due_when_the_last_one_said_and_none_before(rig: Rig) -> None:
    held(rig)
    rig.begin()
    rig.dispatch()
    times = []
    while (due := rig.message.look_at) is not None:
        assert rig.reconcile(due - timedelta(microseconds=1)) == ReconcileCounts()
        times.append(due - NOW)
        assert rig.reconcile(due).looked == 1

    assert times == looks(Why.ABSENT)


def test_after_a_change_of_provider_its_silence_says_nothing_about_what_went_before(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    rig.reconcile(NOW + MINUTE)
    elsewhere = replace(rig.settings.channels["sms"], provider="twilio", sender="+525511111111")
    rig.settings = replace(
        rig.settings,
        channels={"sms": elsewhere},
        secrets={"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN},
    )
    rig.reconcile(NOW + 2 * MINUTE)

    counts = rig.reconcile(COUNTS_AT)

    assert counts.by_reason == {"unproven": 1}
    assert rig.message.status == Status.UNKNOWN
    assert ACCOUNT_SID not in repr(rows_of(rig.db, Alarm))
    rig.change(sent_at=NOW + 3 * MINUTE, look_at=NOW)  # and of what went since, it says something
    assert rig.reconcile(COUNTS_AT + 3 * MINUTE).by_reason == {"absent": 1}


def test_a_shell_without_the_provider_s_key_or_another_pace_is_no_change_of_provider(rig: Rig) -> None:
    secrets = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
    before = ChannelSettings("twilio", SMS, {"timeout": Duration(seconds=20)}, in_doubt="resend_if_absent")
    rig.settings = replace(rig.settings, channels={"sms": before}, secrets=secrets)
    rig.begin()
    rig.dispatch()
    rig.reconcile(NOW + MINUTE)
    reconciler.reconcile(rig.db, replace(rig.settings, secrets={}), NOW + 2 * MINUTE)
    faster = replace(before, options={"timeout": Duration(seconds=20), "parallel": 9})
    turned = secrets | {"TWILIO_AUTH_TOKEN": "another"}
    rig.settings = replace(rig.settings, channels={"sms": faster}, secrets=turned)

    assert rig.reconcile(COUNTS_AT).by_reason == {"absent": 1}


# --- who cannot be asked -------------------------------------------------------------------------------------


def test_where_nobody_can_be_asked_that_is_said_at_once_and_nobody_looks_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mail(Silent):
        def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
            yield from (Receipt(one.public_id, Outcome.DOUBT, detail="no reply") for one in batch)

    by_channel(rig, monkeypatch, email=Mail())
    rig.begin()
    rig.dispatch()

    counts = rig.reconcile(NOW + MINUTE)

    assert counts == ReconcileCounts(looked=1, unknown=1, by_reason={"nobody": 1})
    row = rig.message
    assert row.look_at is None
    assert row.detail == "no reply; last look 2026-06-15 15:01 UTC: outbox cannot be asked what became of a message"
    rig.event(row, "delivered")
    assert rig.reconcile(NOW + DAY).sent == 1


def test_a_provider_that_was_written_before_anybody_could_be_asked_is_no_error(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
            yield from (Receipt(one.public_id, Outcome.DOUBT) for one in batch)

        def close(self) -> None:
            pass

    by_channel(rig, monkeypatch, sms=Old())
    rig.begin()
    rig.dispatch()

    assert rig.reconcile(NOW).by_reason == {"nobody": 1}


def test_a_task_in_doubt_is_left_to_the_person_who_has_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    by_channel(rig, monkeypatch, call=None)
    rig.settings = replace(rig.settings, channels={"call": ChannelSettings("staff")})
    publish(rig.db, rig.settings, NOW - HOUR)
    files = files_of({"message_templates/m.call.j2": "Hola"}, one=ONE.replace("CHANNELS", "call"))
    releases.publish(rig.db, rig.settings, files, NOW - HOUR)
    feed(rig.db, rig.settings, NOW, customers=[customer(1, created_at=NOW, call_consent="yes")])
    planner.plan(rig.db, rig.settings, NOW)
    rig.dispatch()
    assert tasks.open_next(rig.db, rig.settings, NOW) is not None
    rig.dispatch(NOW + DAY)  # nobody spoke of it any more
    row = rig.message
    assert row.status == Status.UNKNOWN

    assert rig.reconcile(NOW + DAY).by_reason == {"person": 1}
    assert "`outreach tasks done`" in rig.message.detail
    with pytest.raises(OutreachError, match=f"is a task of a person.*outreach tasks done {row.public_id[:12]} RESULT"):
        reconciler.resolve(rig.db, row.public_id, Decision.SENT, NOW + DAY, settings=rig.settings)
    assert reconciler.resolve_all(rig.db, [row.public_id], Decision.DROP, NOW + DAY, settings=rig.settings) == []
    tasks.done(rig.db, rig.settings, row.public_id, tasks.Result.REACHED, NOW + DAY)
    assert rig.message.status == Status.SENT


def test_a_task_that_a_restore_made_doubtful_is_settled_by_hand(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has it in hand any more, so that `tasks done` would refuse it."""
    by_channel(rig, monkeypatch, sms=Provider())
    rig.begin()
    rig.settings = replace(rig.settings, channels={"sms": ChannelSettings("staff")})
    restored(rig, channel="sms")

    assert rig.reconcile(NOW + HOUR).by_reason == {"nobody": 1}
    assert "only the person whose task it may have been knows: `outreach resolve`" in rig.message.detail
    done = reconciler.resolve(rig.db, rig.message.public_id, Decision.SENT, NOW + HOUR, settings=rig.settings)
    assert done.status == Status.SENT


def test_an_erased_address_cannot_be_asked_about(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    with store.write(rig.db) as connection:
        connection.execute(text("UPDATE contacts SET address = NULL"))

    assert rig.reconcile(NOW).by_reason == {"nobody": 1}
    assert (rig.message.look_at, sms(rig).asked) == (None, [])


@pytest.mark.parametrize(
    ("error", "why", "said"),
    [
        (ChannelError("set the environment variable X"), "channel", "could not be looked for: set the environment"),
        (ValueError("+525541000000 said no"), "no_answer", "the provider could not be asked (ValueError)"),
    ],
)
def test_one_channel_that_is_wrong_keeps_no_other_from_being_settled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str, said: str
) -> None:
    by_channel(rig, monkeypatch, email=Provider(), sms=Provider(takes=lambda _: True))
    rig.begin()
    without_mail = customer(9, email="", created_at=NOW)
    feed(rig.db, rig.settings, NOW, customers=[without_mail])
    planner.plan(rig.db, rig.settings, NOW)
    rig.dispatch()
    rig.providers["email"].wrong = error

    counts = rig.reconcile(NOW + MINUTE)

    assert counts == ReconcileCounts(looked=2, sent=1, unknown=1, by_reason={"found": 1, why: 1})
    [row] = rows_of(rig.db, Message, channel="email")
    assert said in row.detail
    assert "+5255" not in row.detail
    assert row.look_at == NOW + 2 * MINUTE
    rig.providers["email"].wrong = None
    assert rig.reconcile(COUNTS_AT).planned == 1


# --- after a restore ---------------------------------------------------------------------------------------


def restored(rig: Rig, **changes: Any) -> None:
    """As a restore leaves messages that were due since the backup."""
    rig.change(Installation, backup_at=NOW - HOUR, restored_at=NOW + HOUR)
    gone = {"status": Status.UNKNOWN, "look_at": NOW + HOUR, "sent_at": None, "contact_id": None, "claim": None}
    rig.change(**gone, **changes)


def test_after_a_restore_our_own_id_on_any_channel_of_the_step_settles_a_message(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_channel(rig, monkeypatch, email=Provider(), sms=Provider())
    rig.begin()
    restored(rig)
    made = Record("p1", NOW + MINUTE, rig.message.public_id)
    rig.providers["sms"].kept["+525541000000"] = [made]

    counts = rig.reconcile(NOW + HOUR)

    assert counts.by_reason == {"found": 1}
    row = rig.message
    assert (row.status, row.channel, row.provider_id, row.sent_at) == (Status.SENT, "sms", "p1", NOW + MINUTE)
    with store.read(rig.db) as connection:
        contact = connection.execute(text("SELECT phone_id FROM customers")).scalar_one()
    assert row.contact_id == contact  # so that caps count it


def test_after_a_restore_absence_proves_nothing_whatever_the_message_was_then(rig: Rig) -> None:
    rig.begin(2)
    rig.dispatch()
    restored(rig)
    with store.write(rig.db) as connection:  # one that was in doubt already when the backup was made
        c = table(Message).c
        of = connection.execute(select(c.id).limit(1)).scalar_one()
        connection.execute(update(table(Message)).where(c.id == of).values(sent_at=NOW))

    for now in (NOW + HOUR, NOW + 2 * HOUR, NOW + 2 * DAY):
        assert rig.reconcile(now).planned == 0
    assert {row.status for row in rig.messages()} == {Status.UNKNOWN}
    assert all("which proves nothing after a restore" in row.detail for row in rig.messages())


def test_a_manual_send_after_a_restore_is_looked_for_on_its_own_channels(rig: Rig) -> None:
    rig.begin()
    with store.write(rig.db) as connection:
        send = {"id": 7, "template": "m", "channels": '["sms"]', "purpose": "service", "at": store.micros(NOW)}
        connection.execute(
            text(
                "INSERT INTO manual_sends (id, template, channels, purpose, at) VALUES (:id, :template, :channels, :purpose, :at)"
            ),
            send,
        )
    restored(rig, campaign="manual", record_id=7, channel=None)
    sms(rig).kept["+525541000000"] = [Record("p1", NOW, rig.message.public_id)]

    assert rig.reconcile(NOW + HOUR).by_reason == {"found": 1}


def test_what_left_after_the_restore_is_an_ordinary_doubt(rig: Rig) -> None:
    rig.change(Installation, backup_at=NOW - 2 * HOUR, restored_at=NOW - HOUR)
    rig.begin()
    rig.change(look_at=NOW - HOUR)  # settled once: the dispatcher lets it go
    rig.dispatch()

    assert rig.reconcile(COUNTS_AT).by_reason == {"absent": 1}


# --- together with others ----------------------------------------------------------------------------------


def test_no_transaction_is_open_while_a_provider_is_asked(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    before = rig.db.engine.pool.checkedout()  # type: ignore[attr-defined]
    open_then: list[int] = []
    sms(rig).meanwhile = lambda: open_then.append(rig.db.engine.pool.checkedout() - before)  # type: ignore[attr-defined]

    rig.reconcile(NOW)

    assert open_then == [0]


def test_two_reconcilers_that_ask_at_the_same_time_settle_once(rig: Rig) -> None:
    sms(rig).takes = lambda one: "1" in one.address[-1]
    rig.begin(4)
    rig.dispatch()
    inner: list[ReconcileCounts] = []

    def another() -> None:
        sms(rig).meanwhile = lambda: None
        inner.append(rig.reconcile(COUNTS_AT))

    sms(rig).meanwhile = another
    outer = rig.reconcile(COUNTS_AT)

    assert inner == [ReconcileCounts(looked=4, sent=1, planned=3, by_reason={"absent": 3, "found": 1})]
    assert outer == ReconcileCounts()


@pytest.mark.parametrize("receipt", [Outcome.ACCEPTED, Outcome.LATER])
def test_a_slow_claimer_that_records_while_the_provider_is_asked_is_believed(rig: Rig, receipt: Outcome) -> None:
    """Its claim was kept, and the reconciler leaves a message alone that is no longer as it was read."""

    class Slow(Provider):
        def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
            for one in batch:
                late = NOW + HOUR
                assert claiming.release_expired(rig.db, late) == 1
                held(rig)
                self.meanwhile = lambda: recorded.append(rig.message.status)
                rig.reconcile(late)  # finds nothing, and leaves the claim
                yield Receipt(one.public_id, receipt, "p9" if receipt is Outcome.ACCEPTED else None)

    recorded: list[str] = []
    rig.providers["sms"] = Slow()
    rig.begin()
    rig.dispatch()

    row = rig.message
    assert recorded == [Status.UNKNOWN]
    assert (row.status, row.provider_id) == (
        (Status.SENT, "p9") if receipt is Outcome.ACCEPTED else (Status.PLANNED, None)
    )


def test_a_claimer_that_records_between_question_and_verdict_is_first(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    rig.change(claim="slow")

    def records() -> None:
        with store.write(rig.db) as connection:
            c = table(Message).c
            mine = update(table(Message)).where(c.claim == "slow", c.status == Status.UNKNOWN)
            connection.execute(mine.values(status=Status.SENT, provider_id="p9", claim=None))

    sms(rig).meanwhile = records

    assert rig.reconcile(COUNTS_AT) == ReconcileCounts()
    assert (rig.message.status, rig.message.provider_id) == (Status.SENT, "p9")


def test_a_message_that_was_settled_and_is_in_doubt_again_meanwhile_is_left_for_the_next_look(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    sms(rig).meanwhile = lambda: rig.change(sent_at=COUNTS_AT)  # another attempt, with the same words

    assert rig.reconcile(COUNTS_AT) == ReconcileCounts()
    assert rig.message.status == Status.UNKNOWN


def test_one_who_has_its_hand_on_a_message_is_not_waited_for(rig: Rig) -> None:
    if rig.db.is_sqlite:
        pytest.skip("a writer of SQLite has the database to itself")
    rig.begin(2)
    rig.dispatch()
    first, second = (row.id for row in rig.messages())
    with rig.db.engine.connect() as other:
        other.execute(select(table(Message).c.id).where(table(Message).c.id == first).with_for_update())

        counts = rig.reconcile(COUNTS_AT)

    assert counts.planned == 1
    assert [row.status for row in rig.messages()] == [Status.UNKNOWN, Status.PLANNED]
    assert second == rig.messages()[1].id


def test_a_provider_s_id_that_another_message_gets_at_the_same_moment_breaks_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sms(rig).takes = lambda one: one.address == "+525541000000"
    rig.begin(2)
    rig.dispatch()
    _, second = rig.messages()
    taken = settling._taken

    def late(connection: Any, said: Any) -> set[tuple[str, str]]:
        """As it reads a moment before the other one is committed."""
        found = taken(connection, said)
        of = update(table(Message)).where(table(Message).c.id == second.id)
        connection.execute(of.values(status=Status.SENT, provider_id="p1"))
        return found

    monkeypatch.setattr(settling, "_taken", late)

    assert rig.reconcile(NOW + MINUTE).sent == 0
    assert [row.status for row in rig.messages()] == [Status.UNKNOWN, Status.SENT]


def test_many_reconcilers_and_dispatchers_at_once_settle_and_send_each_message_once(rig: Rig) -> None:
    provider = sms(rig)
    provider.keeps_ids, provider.takes = True, lambda one: int(one.address[-2:]) % 3 == 0
    rig.begin(60)
    rig.dispatch()
    arrived = {i for i, count in provider.accepted.items() if count}
    provider.takes, provider.answers = lambda _: True, True
    together = threading.Barrier(5)

    def reconciling() -> ReconcileCounts:
        together.wait(30)
        return rig.reconcile(COUNTS_AT, channels=Channels())

    def dispatching() -> int:
        together.wait(30)
        return sum(rig.dispatch(COUNTS_AT).sent for _ in range(3))

    with ThreadPoolExecutor(5) as pool:
        looks = [pool.submit(reconciling) for _ in range(3)]
        sent = [pool.submit(dispatching) for _ in range(2)]
        counts = [one.result(60) for one in looks]
        by_dispatch = sum(one.result(60) for one in sent)
    by_dispatch += rig.dispatch(COUNTS_AT).sent

    assert len(arrived) == 20
    assert sum(one.sent for one in counts) == 20
    assert sum(one.planned for one in counts) == by_dispatch == 40
    assert set(provider.accepted.values()) == {1}
    assert {row.status for row in rig.messages()} == {Status.SENT}


class Crash(BaseException):
    """The end of a process, as its own code would see it."""


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_wherever_a_reconciler_dies_the_next_one_finishes_with_the_same_result(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    monkeypatch.setattr(reconciler.tick, "BATCH", 2)
    sms(rig).takes = lambda one: int(one.address[-1]) < 3
    rig.begin(6)
    rig.dispatch()
    write, begun = store.write, iter(range(1, crash_at))

    def dying(db: Database) -> Any:
        if next(begun, None) is None:
            raise Crash
        return write(db)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", dying)
        try:
            rig.reconcile(COUNTS_AT)
        except Crash:
            died = True
        else:
            died = False
    rig.reconcile(COUNTS_AT)

    assert died == (crash_at <= 5)  # accounts, three batches, and what `status` shows
    assert [row.status for row in rig.messages()] == [Status.SENT] * 3 + [Status.PLANNED] * 3


# --- what it costs -----------------------------------------------------------------------------------------


def test_no_more_are_asked_about_than_the_limit_and_a_hundred_at_once(rig: Rig) -> None:
    held(rig)
    rig.begin(BATCH + 30)
    rig.dispatch()

    counts = rig.reconcile(COUNTS_AT, limit=BATCH + 10)

    assert counts.looked == BATCH + 10
    assert sms(rig).batches == [BATCH, 10]
    assert len(set(sms(rig).asked)) == BATCH + 10
    assert rig.reconcile(COUNTS_AT).looked == 20


def test_when_told_to_stop_what_was_begun_is_settled_and_no_more_asked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler.tick, "BATCH", 2)
    rig.begin(4)
    rig.dispatch()
    asked = iter([False, True])

    counts = rig.reconcile(COUNTS_AT, stop=lambda: next(asked))

    assert (counts.looked, len(sms(rig).asked)) == (2, 2)
    assert rig.reconcile(COUNTS_AT).looked == 2


def test_no_look_goes_through_all_messages(rig: Rig) -> None:
    """Cost follows from what is in doubt, not from history."""
    sms(rig).takes = lambda _: True
    rig.begin(3)
    rig.dispatch()
    rig.event(rig.messages()[0])
    asked: list[tuple[str, Any]] = []

    @event.listens_for(rig.db.engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _m: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and "messages" in statement:
            asked.append((statement, parameters))

    rig.reconcile(NOW + MINUTE)
    reconciler.in_doubt(rig.db, rig.settings, campaign="one")
    event.remove(rig.db.engine, "before_cursor_execute", note)

    assert len(asked) > 8
    with store.read(rig.db) as connection:
        if not rig.db.is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in asked:
            explain = "EXPLAIN QUERY PLAN " if rig.db.is_sqlite else "EXPLAIN "
            plan = [str(row) for row in connection.exec_driver_sql(explain + statement, parameters)]
            through_all = [line for line in plan if "SCAN messages" in line or "Seq Scan on messages" in line]
            assert all("ix_messages_unknown" in line for line in through_all), (statement, plan)


def test_a_look_without_anything_in_doubt_is_a_handful_of_statements(rig: Rig) -> None:
    rig.begin(3)
    rig.reconcile(NOW)
    statements: list[str] = []

    @event.listens_for(rig.db.engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, _p: Any, _x: Any, _m: Any) -> None:
        statements.append(statement)

    rig.reconcile(NOW)

    assert len([one for one in statements if not one.startswith("BEGIN")]) == 5


def test_the_last_look_is_kept_for_status(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()

    counts = rig.reconcile(NOW + MINUTE)

    [tick] = rows_of(rig.db, Tick, stage="reconcile")
    assert (tick.started_at, tick.counts, tick.error) == (NOW + MINUTE, counts.as_json(), "")
    assert counts.as_json() == {"looked": 1, "sent": 0, "planned": 0, "unknown": 1, "by_reason": {"too_early": 1}}


def test_channels_that_are_given_stay_open_and_others_are_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Provider, "close", lambda _: closed.append("closed"))
    rig.begin()
    rig.dispatch()
    closed.clear()

    rig.reconcile(NOW, channels=Channels())
    assert closed == []
    rig.reconcile(NOW + MINUTE)
    assert closed == ["closed"]


def test_the_daemon_looks_on_a_clock_of_its_own_by_channels_of_its_own(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_now", lambda: COUNTS_AT)
    rig.begin()
    rig.dispatch()
    running = daemon.Daemon(replace(rig.settings, clock={"reconcile": Duration(seconds=60)}), rig.db)

    daemon.tick(running, "reconcile")

    assert rig.message.status == Status.PLANNED
    assert (list(running.asking.opened), running.channels.opened) == (["sms"], {})
    assert daemon._every(running.settings, "reconcile") == Duration(seconds=60)
    assert [tick.started_at for tick in rows_of(rig.db, Tick, stage="reconcile")] == [COUNTS_AT]


# --- a person decides --------------------------------------------------------------------------------------


def test_a_person_s_sent_is_sent_and_keeps_the_time_that_caps_count(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    row = rig.message

    done = reconciler.resolve(rig.db, row.public_id, Decision.SENT, NOW + HOUR, settings=rig.settings)

    assert done == reconciler.Resolved(row.public_id, "sent", "recorded as sent; it is never sent again")
    row = rig.message
    assert (row.status, row.detail, row.sent_at, row.contact_id is None) == ("sent", "settled by a person", NOW, False)
    assert [tag.tag for tag in rows_of(rig.db, CustomerTag)] == ["greeted"]


def test_a_person_s_resend_passes_every_gate_again_and_says_when_its_time_is_over(rig: Rig) -> None:
    rig.begin(2)
    rig.dispatch()
    first, second = rig.messages()
    sms(rig).takes, sms(rig).answers = lambda _: True, True

    done = reconciler.resolve(rig.db, first.public_id, Decision.RESEND, NOW + HOUR, settings=rig.settings)
    assert done.follows == "planned again; every rule is asked again before it leaves"
    assert rig.messages()[0].look_at is not None
    assert rig.dispatch(NOW + HOUR).sent == 1
    late = NOW + 31 * DAY
    done = reconciler.resolve(rig.db, second.public_id, Decision.RESEND, late, settings=rig.settings)
    rig.dispatch(late)

    assert done.follows == "planned again, but its time is over: the next dispatch ends it as expired"
    assert [(row.status, row.reason) for row in rig.messages()] == [("sent", None), ("expired", "expired")]
    assert set(sms(rig).accepted.values()) == {1}


def test_a_message_that_a_person_dropped_ends_with_its_reason(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()

    reconciler.resolve(rig.db, rig.message.public_id, Decision.DROP, NOW + HOUR, settings=rig.settings)

    assert (rig.message.status, rig.message.reason) == (Status.FAILED, Reason.DROPPED)
    assert rig.dispatch(NOW + HOUR).claimed == 0


def test_what_a_person_settled_a_slow_claimer_and_a_reconciler_leave_alone(rig: Rig) -> None:
    rig.begin()
    rig.dispatch()
    rig.change(claim="slow")
    sms(rig).meanwhile = lambda: reconciler.resolve(
        rig.db, rig.message.public_id, Decision.DROP, COUNTS_AT, settings=rig.settings
    )

    assert rig.reconcile(COUNTS_AT) == ReconcileCounts()
    assert (rig.message.status, rig.message.claim) == (Status.FAILED, None)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNKNOWN])
def test_nobody_decides_about_what_is_not_in_doubt(rig: Rig, status: Status) -> None:
    rig.begin()
    rig.change(status=status)
    before = rig.message

    for decision in Decision:
        with pytest.raises(OutreachError, match=f"{before.public_id} is {status}, not in doubt"):
            reconciler.resolve(rig.db, before.public_id, decision, NOW, settings=rig.settings)
    assert rig.message == before


def test_a_message_is_named_by_the_beginning_of_its_id(rig: Rig) -> None:
    rig.begin(2)
    first, second = rig.messages()
    with store.write(rig.db) as connection:
        for number, row in enumerate((first, second)):
            of = update(table(Message)).where(table(Message).c.id == row.id)
            connection.execute(of.values(public_id=f"abcdef{number}" + "0" * 25))

    assert reconciler.full_id(rig.db, " ABCDEF1") == "abcdef1" + "0" * 25
    with pytest.raises(NotFound, match="several messages begin with 'abcdef'"):
        reconciler.full_id(rig.db, "abcdef")
    with pytest.raises(NotFound, match="there is no message 'abcdef9'"):
        reconciler.full_id(rig.db, "abcdef9")
    with pytest.raises(OutreachError, match="'abcde' is too short: give at least 6"):
        reconciler.full_id(rig.db, "abcde")


def test_what_a_restore_made_doubtful_gets_a_time_and_a_contact_when_a_person_says_it_was_sent(rig: Rig) -> None:
    rig.begin()
    rig.change(channel="sms")
    restored(rig)

    reconciler.resolve(rig.db, rig.message.public_id, Decision.SENT, NOW + DAY, settings=rig.settings)

    row = rig.message
    assert (row.status, row.sent_at, row.contact_id is None) == (Status.SENT, NOW + HOUR, False)


# --- with the real channels, at stand-ins that speak the providers' protocols -------------------------------


class Clock:
    """The providers' clock, and ours."""

    now = NOW


@contextmanager
def real(provider: str, folder: Path) -> Iterator[tuple[Settings, Faults, Callable[[str], int], type[Clock]]]:
    """Settings that lead to a stand-in, its faults, how often it accepted a message, and its clock."""
    Clock.now = NOW
    made = shop_settings(folder, public_url="https://tienda.example")
    options = {"timeout": Duration(seconds=1)}
    in_doubt = "resend_if_absent"
    fast = Limit(1_000_000, Duration(seconds=1))
    if provider == "sendgrid":
        with FakeSendGrid(clock=lambda: Clock.now) as sendgrid:
            to = ChannelSettings("sendgrid", EMAIL, {"base_url": sendgrid.url, **options}, in_doubt=in_doubt)
            settings = replace(made, channels={"email": to}, secrets=sendgrid.environment)
            yield settings, sendgrid.faults, sendgrid.accepted_count, Clock
    else:
        with FakeTwilio(clock=lambda: Clock.now) as twilio:
            to = ChannelSettings("twilio", SMS, {"base_url": twilio.url, **options}, rate=fast, in_doubt=in_doubt)
            secrets = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
            settings = replace(made, channels={"sms": to}, secrets=secrets)
            yield settings, twilio.faults, twilio.accepted_count, Clock


@pytest.mark.parametrize("provider", ["sendgrid", "twilio"])
def test_at_the_real_providers_what_arrived_is_sent_and_what_did_not_goes_out_once(
    db: Database, tmp_path: Path, provider: str
) -> None:
    with real(provider, tmp_path) as (settings, faults, accepted, clock):
        rig = Rig(db, settings, {})
        rig.begin(4)
        faults.add(Fault.DROP_AFTER, Fault.DROP_BEFORE, None, Fault.BUSY_AFTER)
        rig.dispatch()
        assert Counter(row.status for row in rig.messages()) == {"unknown": 3, "sent": 1}

        clock.now = NOW + MINUTE
        first = rig.reconcile(clock.now)
        clock.now = rig.settings.channels[next(iter(rig.settings.channels))].timeout * timedelta(seconds=1) + NOW
        clock.now += timedelta(minutes=16, seconds=30)
        second = rig.reconcile(clock.now)
        rig.dispatch(clock.now)

        assert (first.sent, first.by_reason) == (2, {"found": 2, "too_early": 1})
        assert second == ReconcileCounts(looked=1, planned=1, by_reason={"absent": 1})
        assert {row.status for row in rig.messages()} == {Status.SENT}
        assert [accepted(row.public_id) for row in rig.messages()] == [1] * 4
        assert len({row.provider_id for row in rig.messages()}) == 4


def test_in_the_outbox_a_file_is_found_by_its_name(db: Database, tmp_path: Path) -> None:
    rig = Rig(db, shop_settings(tmp_path), {})
    rig.settings = replace(
        rig.settings, channels={"email": ChannelSettings("outbox", EMAIL, in_doubt="resend_if_absent")}
    )
    rig.begin(2)
    rig.dispatch()
    rig.change(status=Status.UNKNOWN, provider_id=None, look_at=NOW)
    gone = next((tmp_path / "outbox").glob("*.eml"))
    gone.unlink()

    counts = rig.reconcile(COUNTS_AT)

    assert counts == ReconcileCounts(looked=2, sent=1, planned=1, by_reason={"absent": 1, "found": 1})
    assert rig.dispatch(COUNTS_AT).sent == 1
    assert len(list((tmp_path / "outbox").glob("*.eml"))) == 2
