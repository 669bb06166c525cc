"""
A model check of claim, commit, hand over, record, release and reconcile: hypothesis makes up what
happens, and every ordering rule, broken on purpose, is found out. `protocol_model` says how.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Connection, bindparam, select, text, update

from outreach import facts, store
from outreach.channels import Kept
from outreach.dispatcher import claiming, committing, handing, recording, tick
from outreach.dispatcher.parts import UNSENT
from outreach.facts import Item
from outreach.models import Message, Reason, Status, table
from outreach.reconciler import Decision, deciding, looking, settling
from outreach.reconciler.deciding import Answer
from outreach.store import Database, among
from tests.protocol_model import DISPATCHERS, HOUR, RECONCILERS, Away, How, Listing, Pause, Place, Violation, World

THOROUGH = "THOROUGH" in os.environ  # `make model`: some minutes instead of seconds
SKEWS = tuple(timedelta(seconds=seconds) for seconds in (1, 50, -50))
MOST_MESSAGES = 6
TIMES = [timedelta(seconds=seconds) for seconds in (0, 25, 150, 1200)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    made = {rule: Place(tmp_path_factory.mktemp(rule), rule) for rule in ("resend_if_absent", "hold")}
    yield made
    for place in made.values():
        place.close()


@pytest.fixture
def place(places: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where what is in doubt is sent again once it is known to be absent."""
    places["resend_if_absent"].install(monkeypatch)
    return places["resend_if_absent"]


@pytest.fixture
def held(places: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where what is in doubt is a person's to decide, unless a provider has it."""
    places["hold"].install(monkeypatch)
    return places["hold"]


# --- the rarest, told one by one -------------------------------------------------------------------


def test_a_dispatcher_that_comes_too_late_to_commit_leaves_the_message_to_whoever_claimed_it_since(
    place: Place,
) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.dispatch("A")
    world.until("A", "commit")
    world.pass_time(timedelta(minutes=3), Pause.FROZEN)
    world.dispatch("B")
    world.until("B", "hand over")

    world.until("A", "end")
    assert world.row(message)["status"] == Status.SENDING
    world.until("B", "end")

    assert world.row(message)["status"] == Status.SENT
    assert len(world.ledger) == 1


def test_what_was_taken_over_by_a_dispatcher_whose_clock_is_ahead_is_left_to_it(place: Place) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.pass_time(max(SKEWS))
    world.begin("A", min(SKEWS))
    world.until("A", "commit")
    world.pass_time(timedelta(seconds=25), Pause.FROZEN)
    world.begin("B", max(SKEWS))
    world.until("B", "commit")

    world.until("A", "end")
    assert world.ledger == []
    world.until("B", "end")

    assert world.row(message)["status"] == Status.SENT


def test_a_dispatcher_that_was_stopped_with_a_chunk_in_hand_hands_nothing_over_when_it_goes_on(place: Place) -> None:
    world = place.new_world()
    world.plan(1, 2)
    world.dispatch("A")
    world.until("A", "hand over")
    world.stand_still("A", timedelta(minutes=20))  # released, found absent, sent by B
    assert len(world.ledger) == 2

    world.go_on("A", How.ACCEPTED)  # what it had drawn is lost with its connection
    assert not world.stands_at("A", "hand over")  # and nothing more is drawn
    world.until("A", "end")

    assert len(world.ledger) == 2
    assert len(world.of(Status.SENT)) == 2


def test_a_slow_dispatcher_whose_chunk_was_given_up_still_says_what_became_of_it(place: Place) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.dispatch("A")
    world.until("A", "hand over")
    world.go_on("A", How.ACCEPTED)
    world.pass_time(timedelta(minutes=3), Pause.FROZEN)
    world.dispatch("B")
    world.until("B", "end")
    assert world.row(message)["status"] == Status.UNKNOWN

    world.until("A", "end")

    assert (world.row(message)["status"], world.row(message)["provider_id"]) == (Status.SENT, "p0")


def test_a_request_that_is_still_in_the_air_when_its_provider_is_asked_is_not_made_twice(place: Place) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.dispatch("A")
    world.until("A", "hand over")
    world.crash("A")
    world.pass_time(timedelta(seconds=15))
    world.dispatch("B")
    world.until("B", "end")
    assert world.row(message)["status"] == Status.SENDING  # its lease is not over
    world.land(world.in_the_air()[0])
    world.pass_time(timedelta(minutes=3))
    world.dispatch("B")
    world.until("B", "end")
    assert world.row(message)["status"] == Status.UNKNOWN

    world.reconcile("R")
    world.until("R", "end", Listing.BEHIND)  # it is not in the list yet
    assert world.row(message)["status"] == Status.UNKNOWN
    world.pass_time(timedelta(minutes=20))
    world.reconcile("R")
    world.until("R", "end", Listing.BEHIND)

    assert world.row(message)["status"] == Status.SENT


def test_of_two_reconcilers_that_find_the_same_message_absent_the_second_changes_nothing(place: Place) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.dispatch("A")
    world.until("A", "end", How.LOST)
    world.pass_time(timedelta(minutes=20))
    for name in ("R", "S"):
        world.reconcile(name)
        world.until(name, "settle")
    world.until("R", "end")
    world.dispatch("A")
    world.until("A", "end")
    assert world.row(message)["status"] == Status.SENT

    world.until("S", "end")

    assert world.row(message)["status"] == Status.SENT
    assert len(world.ledger) == 1


def test_two_texts_that_read_alike_stay_in_doubt_when_the_provider_has_one_of_them(place: Place) -> None:
    world = place.new_world()
    world.plan(2, 2)
    world.dispatch("A")
    world.until("A", "hand over")
    world.go_on("A", How.UNANSWERED)
    world.go_on("A", How.LOST)
    world.until("A", "end")
    world.pass_time(timedelta(minutes=20))

    world.reconcile("R")
    world.until("R", "end", Listing.COMPLETE)

    assert len(world.of(Status.UNKNOWN)) == 2


def test_whoever_opts_out_before_the_commit_hears_nothing_and_after_it_once_more_at_most(place: Place) -> None:
    world = place.new_world()
    before, after = world.plan(2, 1)
    world.dispatch("A")
    world.until("A", "commit")
    world.opt_out("+525541000002")
    world.until("A", "hand over")
    world.opt_out("c1@example.com")
    world.until("A", "end")

    assert world.row(before)["status"] == Status.SKIPPED
    assert world.row(after)["status"] == Status.SENT
    assert [taken.public_id for taken in world.ledger] == [after]


def test_what_was_lost_is_not_sent_again_to_somebody_who_opted_out_meanwhile(place: Place) -> None:
    world = place.new_world()
    [message] = world.plan(2)
    world.dispatch("A")
    world.until("A", "end", How.LOST)
    world.opt_out("+525541000002")
    world.pass_time(timedelta(minutes=20))
    world.reconcile("R")
    world.until("R", "end")
    assert world.row(message)["status"] == Status.PLANNED

    world.dispatch("B")
    world.until("B", "end")

    assert (world.row(message)["status"], world.row(message)["reason"]) == (Status.SKIPPED, Reason.SUPPRESSED)
    assert world.ledger == []


def test_a_record_that_was_committed_and_never_confirmed_is_made_again_and_changes_nothing(place: Place) -> None:
    world = place.new_world()
    world.plan(1, 2, 3)
    world.dispatch("A")
    world.until("A", "_Tick._record")
    world.go_on("A", Away.AFTER)
    assert world.stands_at("A", "sleep")
    world.until("A", "end")
    assert (len(world.of(Status.SENT)), len(world.of(Status.PLANNED))) == (2, 1)  # claimed twice, and lost once

    world.pass_time(timedelta(minutes=3))
    world.dispatch("B")
    world.until("B", "end")

    assert (len(world.of(Status.SENT)), len(world.ledger)) == (3, 3)


def test_a_database_that_stays_away_while_receipts_are_written_leaves_them_for_the_reconciler(place: Place) -> None:
    world = place.new_world()
    world.plan(1, 2)
    world.dispatch("A")
    world.until("A", "_Tick._record")
    while "A" in world.alive():
        world.go_on("A", Away.BEFORE)
    assert len(world.of(Status.SENDING)) == 2
    world.pass_time(timedelta(minutes=20))

    world.dispatch("B")
    world.until("B", "end")
    world.reconcile("R")
    world.until("R", "end")

    assert (len(world.of(Status.SENT)), len(world.ledger)) == (2, 2)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_put_while_a_chunk_is_handed_over_ends_the_hand_over(place: Place, hours: int) -> None:
    world = place.new_world()
    world.plan(1, 2)
    world.dispatch("A")
    world.until("A", "hand over")
    world.put_clock("A", hours * HOUR)
    world.go_on("A", How.ACCEPTED)

    assert not world.stands_at("A", "hand over")
    assert len(world.ledger) == 1


def test_a_machine_that_was_suspended_within_a_tick_dates_its_next_chunk_by_the_time_it_is(place: Place) -> None:
    world = place.new_world()
    world.plan(1, 2, 3)
    world.dispatch("A")
    world.until("A", "hand over")
    world.pass_time(timedelta(minutes=20), Pause.ASLEEP)
    world.until("A", "commit", How.LOST)
    world.until("A", "hand over")
    world.stand_still("A", timedelta(seconds=0))  # the others take it neither for abandoned nor for absent
    chunk = world.of(Status.SENDING)
    world.until("A", "end")

    assert len(chunk) == 2
    assert [world.row(message)["status"] for message in chunk] == [Status.SENT] * 2
    world.recover()


def test_a_dispatcher_that_is_stopped_after_its_claim_hands_nothing_over_though_nobody_took_its_place(
    place: Place,
) -> None:
    world = place.new_world()
    [message] = world.plan(1)
    world.dispatch("A")
    world.go_on("A")  # claims
    world.pass_time(timedelta(minutes=20), Pause.FROZEN)
    world.stop("A")
    world.until("A", "_Tick._record")
    assert world.row(message)["status"] == Status.SENDING
    world.until("A", "end")

    assert world.ledger == []
    assert world.row(message)["status"] == Status.PLANNED


# --- whatever happens -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Move:
    """Something that may happen next: a method of the world, with its arguments."""

    what: str
    of: tuple[Any, ...] = ()
    weight: int = 1  # how often it should happen compared with the rest

    def __repr__(self) -> str:
        return " ".join([self.what, *map(str, self.of)])


@dataclass(frozen=True)
class Mood:
    """What mostly happens in a run; what is not named in it happens as often as ever."""

    customers: tuple[int, ...] = (2, 1, 3)
    times: Mapping[object, int] = field(default_factory=dict)  # how many times as often: by move, or what it names
    skews: Sequence[timedelta] = SKEWS  # how wrong a process's clock is

    def weight(self, move: Move) -> int:
        factors = [self.times[one] for one in (move.what, *move.of) if isinstance(one, Hashable) and one in self.times]
        return move.weight * math.prod(factors)


QUIET: Mapping[object, int] = dict.fromkeys(("cancel", "pause", "opt_out", "report", "put_clock", *Away), 0)
HARMLESS = {**QUIET, "finish": 0, "crash": 0}
ONLY_ACCEPTED: Mapping[object, int] = {how: 0 for how in How if how is not How.ACCEPTED}
HASTY: Mapping[object, int] = {
    **HARMLESS,
    **ONLY_ACCEPTED,
    "decide": 0,
    "beat": 0,
    **dict.fromkeys((TIMES[0], *TIMES[2:]), 0),
}
AT_ONCE: Mapping[object, int] = {**HARMLESS, **dict.fromkeys(("plan", "commit", *TIMES[2:]), 0)}
MOODS = {
    "anything": Mood(),
    "race": Mood((2, 1), {**HASTY, "stand_still": 0, "commit": 9, "begin": 3, TIMES[1]: 9}, SKEWS[1:]),
    "standstill": Mood(times={**HARMLESS, "stand_still": 4, "pass_time": 2, TIMES[3]: 2, "decide": 3}),
    "haste": Mood(
        (1, 3),
        {**AT_ONCE, "pass_time": 0, TIMES[1]: 9, "hand over": 9, How.ACCEPTED: 9, "decide": 8, "begin": 2},
        SKEWS[:1],
    ),
    "doubt": Mood(times={**QUIET, How.SLOW: 9, How.LOST: 3, Listing.PARTIAL: 3, "stand_still": 2, "decide": 0}),
    "silence": Mood(times={**HARMLESS, How.UNANSWERED: 9, Listing.PARTIAL: 9, TIMES[3]: 3, "stand_still": 0}),
    "alike": Mood((2,), {**QUIET, How.SLOW: 6, How.LOST: 6, How.UNANSWERED: 6, "decide": 0}),
    "opt out": Mood((1, 2), {**HARMLESS, "opt_out": 6, "stand_still": 0}),
    "again": Mood((2, 1), {**QUIET, "opt_out": 9, How.LATER: 9, TIMES[3]: 2, "stand_still": 0, "decide": 0}),
    "both": Mood(times={**HARMLESS, How.LOST: 30, TIMES[3]: 9, "begin": 2, "stand_still": 0, "decide": 3}),
}


class Protocol(RuleBasedStateMachine):
    """
    Two dispatchers, two reconcilers, their providers, a person, and time.

    There is one rule, and it chooses among what can happen: hypothesis leaves out whole rules in
    many a run, and a run without a dispatcher, or without time, tells nothing.
    """

    place: Place
    moods = tuple(MOODS)
    tolerant = False

    def __init__(self) -> None:
        super().__init__()
        self.world: World = self.place.new_world()
        self.world.tolerant = self.tolerant
        self.mood = Mood()
        self.skews: dict[str, timedelta] = {}
        self.passed_time = False

    @initialize(
        mood=st.runner().flatmap(lambda self: st.sampled_from(self.moods)),
        data=st.data(),
    )
    def start(self, mood: str, data: st.DataObject) -> None:
        self.mood = MOODS[mood]
        self.skews = {name: data.draw(st.sampled_from(self.mood.skews)) for name in DISPATCHERS + RECONCILERS}
        customers = st.lists(st.sampled_from(self.mood.customers), min_size=2, max_size=4)
        self.world.plan(*data.draw(customers))
        self.world.pass_time(max(SKEWS))  # so that it is due for those whose clocks are behind

    @rule(move=st.runner().flatmap(lambda self: st.sampled_from(self.likely())))
    def happens(self, move: Move) -> None:
        getattr(self.world, move.what)(*move.of)
        self.passed_time = move.what in ("pass_time", "stand_still") or (self.passed_time and move.what == "plan")

    def likely(self) -> list[Move]:
        """What can happen, each as often as it should."""
        return [move for move in self.moves() for _ in range(self.mood.weight(move))]

    def moves(self) -> Iterator[Move]:
        world = self.world
        yield from (Move("begin", (name, self.skews[name]), 9) for name in world.idle())
        for name in world.alive():
            yield from self.moves_of(name, world.kind(name))
        if not self.passed_time:
            yield from (Move("pass_time", (how_long, pause)) for how_long in TIMES for pause in Pause)
        yield from (Move("land", (flight,), 9) for flight in world.in_the_air())
        yield from (Move("decide", (i, decision), 2) for i in world.of(Status.UNKNOWN) for decision in Decision)
        yield from (Move("report", (taken,)) for taken in world.unreported())
        if any(world.holds(name) for name in world.alive()):
            yield from (Move("opt_out", (address,)) for address in world.may_opt_out())
            yield Move("cancel")
        done = not world.alive() and not world.idle()
        if done or (not world.of(Status.PLANNED) and len(world.messages()) < MOST_MESSAGES):
            pairs = product(self.mood.customers, repeat=2)
            yield from (Move("plan", pair, 3) for pair in pairs)
        yield Move("resume", (), 9) if world.paused else Move("pause")
        yield Move("beat")

    def moves_of(self, name: str, kind: str) -> Iterator[Move]:
        if kind == "hand over":
            yield from (Move("go_on", (name, how), 8 if how is How.ACCEPTED else 2) for how in How)
            yield from (Move("put_clock", (name, by)) for by in (-HOUR, HOUR))
            yield Move("stop", (name,))
        elif kind == "look up":
            yield from (Move("go_on", (name, listing), 9 if listing is Listing.COMPLETE else 3) for listing in Listing)
        else:
            yield Move("go_on", (name,), 8)
            yield Move("until", (name, "hand over"), 6)
            if not self.world.stands_at(name, "commit"):
                yield Move("until", (name, "commit"), 6)
            yield from (Move("go_on", (name, away)) for away in Away if kind == "write")
        if self.world.holds(name) and not self.passed_time:
            weight = (
                1 if kind == "clock" or self.world.stands_at(name, "commit") else 4
            )  # others take over what it claimed
            yield from (Move("stand_still", (name, how_long), weight) for how_long in TIMES)
        yield Move("finish", (name, How.ACCEPTED), 6)
        yield Move("finish", (name, How.SLOW), 3)
        yield Move("crash", (name,), 4)

    def teardown(self) -> None:
        try:
            if not self.tolerant and not self.world.violated:
                self.world.recover()
        finally:
            self.world.close()


def explore(place: Place, examples: int, *, moods: tuple[str, ...] = tuple(MOODS), tolerant: bool = False) -> None:
    machine = type("Protocol", (Protocol,), {"place": place, "moods": moods, "tolerant": tolerant})
    profile = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=profile)


def test_whatever_happens_each_message_is_accepted_once_at_most_and_none_is_lost(place: Place) -> None:
    explore(place, 3_000 if THOROUGH else 40)


def test_whatever_happens_what_is_to_be_held_is_never_sent_again_but_by_a_person(held: Place) -> None:
    explore(held, 1_000 if THOROUGH else 14)


# --- every ordering rule, broken on purpose --------------------------------------------------------


class Undone(Exception):
    """A transaction that is tried and rolled back."""


def hand_over_first(break_: pytest.MonkeyPatch) -> None:
    commit, hand_over, write = committing.commit, handing.hand_over, store.write
    trying: set[int] = set()  # threads
    prepared: dict[int, tuple[Any, ...]] = {}

    @contextmanager
    def write_or_try(db: Database) -> Iterator[Connection]:
        with suppress(Undone), write(db) as connection:
            yield connection
            if get_ident() in trying:
                raise Undone

    def prepare(*chunk: Any) -> Any:
        trying.add(get_ident())
        try:
            ready = commit(*chunk)
        finally:
            trying.remove(get_ident())
        prepared[get_ident()] = chunk
        return ready

    def hand_over_and_commit(*ready: Any) -> None:
        hand_over(*ready)
        commit(*prepared.pop(get_ident()))

    break_.setattr(store, "write", write_or_try)
    break_.setattr(committing, "commit", prepare)
    break_.setattr(handing, "hand_over", hand_over_and_commit)


def commit_whoever_has_claimed_it(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(committing, "_still_ours", lambda _connection, ids, _token: set(ids))


def record_whatever_it_became(break_: pytest.MonkeyPatch) -> None:
    conditions = " AND status IN ('sending', 'unknown') AND claim = ?"
    assert conditions in recording._SENT
    break_.setattr(recording, "_SENT", recording._SENT.replace(conditions, " AND ? <> ''"))
    break_.setattr(recording, "_still_ours", lambda _connection, ids, _token: list(ids))


def plan_again_what_was_left_behind(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(claiming, "Status", SimpleNamespace(UNKNOWN=Status.PLANNED))


def never_look_at_the_clock(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(handing, "in_time", lambda _start: True)


def lease_for_ten_seconds(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(tick, "LEASE", timedelta(seconds=10))


def claim_what_others_have_claimed(break_: pytest.MonkeyPatch) -> None:
    lease = "AND (claim IS NULL OR lease_until < :now)"
    assert lease in claiming._DUE
    break_.setitem(
        claiming._DUE_BY_DIALECT, "sqlite", text(claiming._DUE.replace(lease, "")).columns(*claiming._CLAIMED)
    )


def believe_absence_at_once(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(deciding, "until", lambda began, _timeout: began)


def believe_an_incomplete_list(break_: pytest.MonkeyPatch) -> None:
    def believed(channel: str, kept: Kept, asked_at: datetime) -> Answer:
        return Answer(channel, replace(kept, complete=True), asked_at)

    break_.setattr(looking, "Answer", believed)


def take_a_text_for_the_message(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(settling, "_with_rivals", lambda _connection, _batch: set())


def settle_what_has_changed_since(break_: pytest.MonkeyPatch) -> None:
    def change(connection: Connection, row: Any, values: Mapping[str, Any]) -> bool:
        of = table(Message)
        return connection.execute(update(of).where(of.c.id == row.id).values(values)).rowcount == 1

    break_.setattr(settling, "_untouched", lambda _connection, batch: list(batch))
    break_.setattr(settling, "change", change)


def gate_only_the_first_attempt(break_: pytest.MonkeyPatch) -> None:
    fetch = facts.fetch

    def ungated(connection: Connection, shop: Any, items: Sequence[Any], now: datetime, **more: Any) -> list[Any]:
        found = fetch(connection, shop, items, now, **more)
        of = table(Message)
        again = select(of.c.id).where(of.c.attempts > 0)
        tried = set(connection.execute(again).scalars())
        for one, item in zip(found, items, strict=True):
            if item.message_id in tried:
                one.contacts = {
                    channel: replace(contact, consent="granted", suppressions=())
                    for channel, contact in one.contacts.items()
                }
        return found

    break_.setattr(facts, "fetch", ungated)


def gate_before_the_transaction(break_: pytest.MonkeyPatch) -> None:
    commit, fetch, items_of = committing.commit, facts.fetch, committing.items_of
    known: dict[int, dict[int, Any]] = {}  # by thread: the facts by message

    def looked_before(db: Database, chunk: Any, rows: Sequence[Any], tally: Any) -> Any:
        with store.read(db) as connection:
            items = [one for one in items_of(connection, chunk.loaded, rows, {}) if isinstance(one, Item)]
            found = fetch(connection, chunk.loaded.settings, items, chunk.now, secret=db.secret)
        known[get_ident()] = {item.message_id or 0: one for item, one in zip(items, found, strict=True)}
        return commit(db, chunk, rows, tally)

    def as_known(*asked: Any, **options: Any) -> list[Any]:
        fetch(*asked, **options)  # for what the templates need
        items = asked[2]
        return [known[get_ident()][item.message_id or 0] for item in items]

    break_.setattr(committing, "commit", looked_before)
    break_.setattr(facts, "fetch", as_known)


def take_doubt_for_refusal(break_: pytest.MonkeyPatch) -> None:
    def later(detail: str, now: datetime) -> Any:
        values = {"status": Status.PLANNED, "ready_at": now, "blocked_by": Reason.RETRY, "detail": detail}
        return {**values, **UNSENT}, ("deferred", Reason.RETRY)

    break_.setattr(recording, "_in_doubt", later)


def claim_what_is_in_doubt(break_: pytest.MonkeyPatch) -> None:
    planned, either = "status = 'planned'", "status IN ('planned', 'unknown')"
    c = table(Message).c
    still = select(c.id).where(among(c.id, "ids"), c.claim == bindparam("token"))
    break_.setattr(claiming, "_PRIORITIES", text(str(claiming._PRIORITIES).replace(planned, either)))
    break_.setitem(
        claiming._DUE_BY_DIALECT, "sqlite", text(claiming._DUE.replace(planned, either)).columns(*claiming._CLAIMED)
    )
    break_.setattr(committing, "_STILL", still)
    break_.setattr(committing, "_GOING", committing._GOING.replace(planned, either))


def resend_what_is_to_be_held(break_: pytest.MonkeyPatch) -> None:
    break_.setattr(settling, "_resends", lambda _world, _channel: True)


TWICE, LOST, OPTED_OUT = "was accepted twice", "was accepted, and is", "had opted out"
BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "a message is handed over before its sending is committed": (hand_over_first, "anything", f"{LOST}|{TWICE}"),
    "a chunk is committed though another has claimed it": (
        commit_whoever_has_claimed_it,
        "race",
        f"{LOST}|{TWICE}|never accepted",
    ),
    "a receipt is recorded whatever became of the message": (
        record_whatever_it_became,
        "standstill",
        f"{LOST}|{TWICE}|never accepted|still",
    ),
    "what a dead dispatcher was sending is planned again": (
        plan_again_what_was_left_behind,
        "standstill",
        f"{LOST}|{TWICE}",
    ),
    "a sender does not look at the clock": (never_look_at_the_clock, "standstill", f"{TWICE}|had settled it"),
    "a lease is shorter than the hand-over": (lease_for_ten_seconds, "haste", f"{TWICE}|had settled it"),
    "a claim takes no notice of other leases": (
        claim_what_others_have_claimed,
        "standstill",
        "whose lease was not over",
    ),
    "the reconciler believes absence at once": (believe_absence_at_once, "doubt", f"{LOST}|{TWICE}"),
    "the reconciler believes an incomplete list": (believe_an_incomplete_list, "silence", f"{LOST}|{TWICE}"),
    "the reconciler takes a text for the message": (
        take_a_text_for_the_message,
        "alike",
        f"never accepted|{TWICE}|{LOST}",
    ),
    "the reconciler settles what has changed since it was read": (
        settle_what_has_changed_since,
        "both",
        f"{LOST}|{TWICE}|had ended",
    ),
    "what is planned again passes no gate": (gate_only_the_first_attempt, "again", OPTED_OUT),
    "the gates are asked before the transaction": (gate_before_the_transaction, "opt out", OPTED_OUT),
    "doubt is recorded as a refusal": (take_doubt_for_refusal, "doubt", f"{LOST}|{TWICE}"),
    "what is in doubt is claimed again": (claim_what_is_in_doubt, "doubt", f"{LOST}|{TWICE}"),
}


# Those that take a minute and more to come upon are only looked for by `make model`.
RARE: dict[str, Callable[[Place], None]] = {
    "a chunk is committed though another has claimed it": (
        test_what_was_taken_over_by_a_dispatcher_whose_clock_is_ahead_is_left_to_it
    ),
    "the reconciler settles what has changed since it was read": (
        test_of_two_reconcilers_that_find_the_same_message_absent_the_second_changes_nothing
    ),
    "the gates are asked before the transaction": (
        test_whoever_opts_out_before_the_commit_hears_nothing_and_after_it_once_more_at_most
    ),
}


@pytest.mark.parametrize("rule_broken", BROKEN, ids=str)
def test_the_model_finds_out_when(place: Place, monkeypatch: pytest.MonkeyPatch, rule_broken: str) -> None:
    break_, mood, said = BROKEN[rule_broken]
    break_(monkeypatch)

    seldom = None if THOROUGH else RARE.get(rule_broken)
    look = seldom or partial(explore, examples=10_000, moods=(mood,), tolerant=True)

    with pytest.raises(Violation, match=said):
        look(place)


def test_the_model_finds_out_when_what_is_to_be_held_is_sent_again(
    held: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    resend_what_is_to_be_held(monkeypatch)

    with pytest.raises(Violation, match="though it was to be held"):
        explore(held, 10_000, moods=("doubt",), tolerant=True)
