"""
Dispatchers, reconcilers, a provider, a person and a clock, all in one process, one step at a time.

The dispatchers and reconcilers are the product's own `dispatch` and `reconcile`, whole, each in a
thread that stands still before every writing transaction, with every message in its hand and at
every question to a provider, until the test says what happens there. Between two such points nobody
else can see what a process does, so these interleavings are those of real processes. A crash ends
a process where it stands: nothing that its code would still do reaches the database or a provider.
What holds is read from the database by a connection of its own, and from the provider's ledger.

Taken for granted: a request reaches its provider within the channel's timeout of being drawn, or
never (the documented gap: a process suspended between its last check and its socket); what a provider
has is in its complete list after LAG; a machine's clock is wrong by less than `store.SKEW`.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select

from outreach import clocks, dispatcher, reconciler, releases, store
from outreach.channels import Blame, Channels, Doubtful, Finding, Kept, Outcome, Outgoing, Receipt, Record, Silent
from outreach.dispatcher import heartbeat, recording, tick
from outreach.dispatcher.heartbeat import Heart
from outreach.errors import DatabaseError
from outreach.models import Contact, Message, MessageEvent, Status, table, to_micros
from outreach.reconciler import Decision
from outreach.reconciler import tick as reconciler_tick
from outreach.settings import ChannelSettings
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, publish, shop_settings

DISPATCHERS, RECONCILERS = ("A", "B"), ("R", "S")
CHUNK = 2
MOST = 60  # steps that a tick takes at most, unless it goes round in circles
HOUR = timedelta(hours=1)
LAG = timedelta(minutes=10)
ADDRESSES = ("c1@example.com", "+525541000001", "+525541000002")
BEAT = timedelta(seconds=heartbeat.BEAT_SECONDS)
GREET = """
title: Greet
purpose: service
trigger: {event: customer.created}
steps:
  - {id: hello, after: 0 minutes, channel: [email, sms], template: m}
"""
BOOK_KEEPING = frozenset({"dispatch", "reconcile", "since"})  # what begins transactions that concern no message
ENDED = frozenset({Status.SENT, Status.FAILED, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED})
IN_FLIGHT = frozenset({Status.SENDING, Status.SENT, Status.UNKNOWN})
real_write, real_read = store.write, store.read


class Violation(AssertionError):
    """Something happened that must never happen."""


class Crash(BaseException):
    """The end of a process, as its own code would see it."""


class Broken(Exception):
    """What no provider's file should raise."""


# --- the words of the model --------------------------------------------------------------------------


class How(StrEnum):
    """What becomes of a message in a dispatcher's hand."""

    ACCEPTED = "accepted"
    UNANSWERED = "accepted, and the answer is lost"
    SILENT = "accepted, and the channel says nothing at all"
    LOST = "lost on its way, and nobody knows"
    SLOW = "still on its way when the channel gives up"
    NO_ADDRESS = "refused: nobody is there"
    NO_TEXT = "refused: not this text"
    LATER = "refused for now"
    TOO_FAST = "refused for now: this sender is too fast"
    BREAKS = "the channel breaks while it is on its way"


class Listing(StrEnum):
    """What a provider shows to the reconciler who asks."""

    COMPLETE = "everything"
    BEHIND = "everything that is older than LAG"
    PARTIAL = "some, and says so"
    NOTHING = "no answer"


class Away(StrEnum):
    """What becomes of a transaction while the database is away."""

    BEFORE = "it never began"
    AFTER = "it was committed, and nobody was told"


class Pause(StrEnum):
    """What the processes do while time passes."""

    ALIVE = "they wait; hearts beat"
    FROZEN = "they are stopped"
    ASLEEP = "their machine is suspended: its monotonic clock stands still"


@dataclass(eq=False)
class Flight:
    """A message on its way to a provider."""

    outgoing: Outgoing
    drawn_at: datetime
    drawn: int  # the step in which it was drawn
    committed: int | None = None  # the step in which it had last become `sending`
    over: bool = False  # the provider has decided, or it can no longer arrive


@dataclass(frozen=True, eq=False)
class Taken:
    """What a provider accepted: a line of its ledger."""

    flight: Flight
    provider_id: str
    at: datetime
    step: int

    @property
    def public_id(self) -> str:
        return self.flight.outgoing.public_id


@dataclass(frozen=True)
class Point:
    """Where a process stands: before a transaction, with a message in its hand, or asking a provider."""

    kind: str  # write | clock | hand over | look up | sleep
    name: str  # of the function that begins the transaction; of the channel
    flight: Flight | None = None


# --- a process -----------------------------------------------------------------------------------------

_mine = threading.local()


class Process:
    """A function of the product in a thread of its own, which runs to its next point whenever it is told to."""

    reconciles = False

    def __init__(self, world: World, name: str, skew: timedelta, work: Callable[[Process], Any]) -> None:
        self.world, self.name, self.skew, self.work = world, name, skew, work
        self.dead = False
        self.told_to_stop = False
        self.heart: Heart | None = None
        self.at: Point | None = None  # None once it has ended
        self.ended_by: BaseException | None = None
        self._slept = world.slept
        self._told: SimpleQueue[Any] = SimpleQueue()
        self._says: SimpleQueue[Point | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self.go_on()

    @property
    def alive(self) -> bool:
        return self.at is not None

    def go_on(self, what: Any = None) -> None:
        """Let it run to its next point; `what` happens at the present one: an exception is raised there."""
        self.world.running = self
        self._told.put(what)
        self.at = self._says.get()
        self.world.running = None

    def crash(self) -> None:
        """End it where it stands."""
        self.dead = True
        while self.alive:
            self.go_on(Crash())

    def stand(self, point: Point) -> Any:
        """In its own thread: wait here until told what happens."""
        if self.dead:
            raise Crash
        self._says.put(point)
        what = self._told.get()
        if isinstance(what, BaseException):
            raise what
        return what

    def _run(self) -> None:
        _mine.process = self
        try:
            self._told.get()
            self.work(self)
        except BaseException as error:
            self.ended_by = error
        self._says.put(None)

    def now(self) -> datetime:
        return self.world.now + self.skew

    def monotonic(self) -> float:
        return (self.world.now - NOW - self.world.slept).total_seconds()

    def clocks(self) -> tuple[float, float]:
        return self.now().timestamp(), (self.world.now - NOW).total_seconds()

    def beat(self) -> None:
        """One beat of its heart, which beats while a chunk is in the air."""
        if self.alive and self.heart is not None and self.heart._token:
            self.world.running = self
            self.heart._beat(self.heart._token)
            self.world.running = None


def _process() -> Process | None:
    """Whose thread this is; None: the test's own."""
    return getattr(_mine, "process", None)


@contextmanager
def _write(db: Database) -> Iterator[Connection]:
    process, what = _process(), None
    name = sys._getframe(2).f_code.co_qualname
    if process is not None and (process.dead or name not in BOOK_KEEPING):
        what = process.stand(Point("write", name))
    with real_write(db) as connection:
        yield connection
    if what is Away.AFTER:
        raise DatabaseError("the database cannot be used: it went away")


@contextmanager
def _read(db: Database) -> Iterator[Connection]:
    process = _process()
    if process is not None and process.dead:
        raise Crash
    with real_read(db) as connection:
        yield connection


class _HeartThread:
    """In place of the thread that beats every 20 seconds: the world says when it does."""

    def __init__(self, target: Any, **_more: Any) -> None:
        self.heart = target.__self__

    def start(self) -> None:
        process = _process()
        assert process is not None
        process.heart = self.heart


# --- the provider ----------------------------------------------------------------------------------------


class Provider(Silent):
    """One channel's provider. By e-mail it keeps our ids, by SMS only the text: as SendGrid and Twilio do."""

    def __init__(self, world: World, process: Process, channel: str) -> None:
        self.world, self.process, self.channel = world, process, channel

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for outgoing in batch:
            flight = Flight(outgoing, self.world.now, self.world.step)
            receipt = self.process.stand(Point("hand over", self.channel, flight))
            if receipt is not None:
                yield receipt

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        listing = self.process.stand(Point("look up", self.channel))
        if listing is Listing.NOTHING:
            raise Broken
        for one in doubtful:
            yield Kept(one.public_id, tuple(self._records(one, listing)), complete=listing is not Listing.PARTIAL)

    def check(self) -> Iterator[Finding]:
        yield Finding(ok=True, text=f"{self.channel}: a model")

    def _records(self, one: Doubtful, listing: Listing) -> Iterator[Record]:
        if listing is Listing.PARTIAL:
            return
        for taken in self.world.ledger:
            sent = taken.flight.outgoing
            seen = listing is Listing.COMPLETE or taken.at <= self.world.now - LAG
            if seen and (sent.channel, sent.address) == (one.channel, one.address):
                ours, said = (sent.public_id, None) if sent.channel == "email" else ("", sent.content.text)
                yield Record(taken.provider_id, taken.at, ours, said)


# --- where it all happens ----------------------------------------------------------------------------------


class Place:
    """A database with a release in force and three customers, which every world begins with."""

    def __init__(self, folder: Path, in_doubt: str) -> None:
        self.folder = folder
        self.settings = replace(
            shop_settings(folder),
            channels={
                "email": ChannelSettings(sender="Tienda <hola@tienda.example>", in_doubt=in_doubt),
                "sms": ChannelSettings(sender="+525500000000", in_doubt=in_doubt),
            },
        )
        path = folder / "outreach.db"
        self.db = store.open_database(f"sqlite:///{path}", secret=SECRET)
        event.listen(self.db.engine, "connect", lambda made, _record: made.execute("PRAGMA synchronous = OFF"))
        self.db.engine.dispose()
        publish(self.db, self.settings, NOW - timedelta(days=2), greet=GREET)
        people = (customer(1), customer(2, email=""), customer(3, phone="", email="c1@example.com", country="MX"))
        feed(self.db, self.settings, NOW - timedelta(days=1), customers=people)
        self.raw = sqlite3.connect(path, isolation_level=None)
        self.raw.row_factory = sqlite3.Row
        self._template = sqlite3.connect(":memory:")
        self.raw.backup(self._template)
        self.world: World | None = None

    def new_world(self) -> World:
        """The database as it was in the beginning, and nobody there yet."""
        self._template.backup(self.raw)
        self.world = World(self)
        return self.world

    def running(self) -> Process:
        assert self.world is not None
        assert self.world.running is not None
        return self.world.running

    def _clocks(self) -> tuple[float, float]:
        """Whoever looks at the clock between two points may be stopped just before: then that is a point, too."""
        process = _process()
        if process is not None and sys._getframe(1).f_code is tick._Tick.run.__code__:
            process.stand(Point("clock", "clocks"))
        return self.running().clocks()

    def close(self) -> None:
        self.raw.close()
        self._template.close()
        self.db.engine.dispose()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the model's points and clocks in place of the real ones."""
        clock = SimpleNamespace(monotonic=lambda: self.running().monotonic(), sleep=_sleep)
        for module in (tick, reconciler_tick):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(clocks, "read", self._clocks)
        monkeypatch.setattr(heartbeat, "threading", SimpleNamespace(Event=threading.Event, Thread=_HeartThread))
        monkeypatch.setattr(store, "write", _write)
        monkeypatch.setattr(store, "read", _read)


def _sleep(_seconds: float) -> None:
    process = _process()
    assert process is not None
    process.stand(Point("sleep", ""))


class World:
    """Everything of one run; every method is one step, after which what must hold is looked at."""

    def __init__(self, place: Place) -> None:
        self.place, self.db, self.settings = place, place.db, place.settings
        self.now = NOW
        self.slept = timedelta()  # how long the machine was suspended
        self.step = 0
        self.processes: dict[str, Process] = {}
        self.running: Process | None = None
        self.flights: list[Flight] = []
        self.ledger: list[Taken] = []
        self.errors: list[BaseException] = []
        self.violated = False
        self.paused = False
        self.reported: list[Taken] = []
        self.tolerant = False  # of errors: a rule broken on purpose may break more than one thing
        self._rows: dict[str, sqlite3.Row] = {}
        self._committed: dict[str, int] = {}  # by public id: the step in which it last became `sending`
        self._sender: dict[str, int] = {}  # and by which process
        self._claimer: dict[str, int] = {}  # by public id: the process that last claimed it
        self._decided: dict[str, int] = {}  # by public id: the step in which a person last decided
        self._said_sent: set[str] = set()  # by a person
        self._opted_out: dict[str, int] = {}  # by address: the step in which it was committed

    # what happens

    def plan(self, *customers: int) -> list[str]:
        """One message is planned for each customer, due now; gives their public ids."""
        made: list[str] = []
        with store.write(self.db) as connection:
            for number in customers:
                count = len(self._rows) + len(made) + 1
                made.append(f"{count:032x}")
                values = {
                    "public_id": made[-1], "campaign": "greet", "step": "hello", "customer_id": number,
                    "occasion": f"customer.created:{count}", "occasion_at": self.now, "enrolment_id": count,
                    "arm": "contact", "purpose": "service", "priority": 0, "status": Status.PLANNED, "detail": "",
                    "refused": "", "due_at": self.now, "expires_at": self.now + timedelta(days=3),
                    "ready_at": self.now, "attempts": 0, "release": 1, "created_at": self.now,
                }  # fmt: skip
                connection.execute(insert(table(Message)).values(values))
        self._after(None)
        return made

    def dispatch(self, name: str, skew: timedelta = timedelta()) -> Process:
        """A dispatcher's tick begins."""

        def work(process: Process) -> None:
            dispatcher.dispatch(
                self.db,
                self.settings,
                process.now(),
                chunk=CHUNK,
                stop=lambda: process.told_to_stop,
                channels=self._channels(process),
            )

        return self._begin(name, skew, work)

    def reconcile(self, name: str, skew: timedelta = timedelta()) -> Process:
        """A reconciler's tick begins."""

        def work(process: Process) -> None:
            process.reconciles = True
            reconciler.reconcile(self.db, self.settings, process.now(), channels=self._channels(process))

        return self._begin(name, skew, work)

    def _begin(self, name: str, skew: timedelta, work: Callable[[Process], Any]) -> Process:
        assert name not in self.alive(), f"{name} is at work already"
        process = self.processes[name] = Process(self, name, skew, work)
        self._after(process)
        return process

    def _channels(self, process: Process) -> Channels:
        return Channels({name: Provider(self, process, name) for name in self.settings.channels})

    def begin(self, name: str, skew: timedelta = timedelta()) -> Process:
        """A tick begins: of a dispatcher, or of a reconciler if the name is one of theirs."""
        return self.dispatch(name, skew) if name in DISPATCHERS else self.reconcile(name, skew)

    def idle(self) -> list[str]:
        """The dispatchers with something to do and the reconcilers with something in doubt, if they are not at work."""
        names: tuple[str, ...] = DISPATCHERS if self.of(Status.PLANNED) + self.of(Status.SENDING) else ()
        names += RECONCILERS if self.of(Status.UNKNOWN) else ()
        return [name for name in names if name not in self.alive()]

    def kind(self, name: str) -> str:
        """The kind of point where a process stands."""
        point = self.processes[name].at
        return point.kind if point is not None else "end"

    def stands_at(self, name: str, where: str) -> bool:
        """Whether a process stands before this function, or has this kind of thing to do next."""
        point = self.processes[name].at
        return point is not None and where in (point.kind, point.name)

    def holds(self, name: str) -> bool:
        """Whether a process has claimed, committed or asked about something, so that it matters when it goes on."""
        point = self.processes[name].at
        return point is not None and point.name not in ("_Tick.run", "release_expired")

    def alive(self) -> list[str]:
        """Who has not ended yet."""
        return [name for name, process in self.processes.items() if process.alive]

    def go_on(self, name: str, what: How | Listing | Away | None = None) -> None:
        """A process goes on to its next point; `what` happens at the present one, where it can."""
        process = self.processes[name]
        point = process.at
        assert point is not None, f"{name} has ended"
        if point.flight is not None:
            self._answer(process, point.flight, what if isinstance(what, How) else How.ACCEPTED)
        elif point.kind == "look up":
            process.go_on(what if isinstance(what, Listing) else Listing.COMPLETE)
        elif what is Away.BEFORE and point.kind == "write":
            process.go_on(DatabaseError("the database cannot be used: it is away"))
        else:
            process.go_on(what if isinstance(what, Away) else None)
        self._after(process)

    def until(self, name: str, where: str, what: How | Listing | None = None) -> None:
        """A process goes on until it stands before `where`, a function, `hand over` or `look up`, or ends, or seems never to."""
        for _ in range(MOST):
            if not self.processes[name].alive or self.stands_at(name, where):
                return
            self.go_on(name, what)

    def finish(self, name: str, how: How) -> None:
        """A process goes on to its end; every message it hands over meets the same fate."""
        self.until(name, "end", how)

    def stand_still(self, name: str, how_long: timedelta) -> None:
        """A process is stopped for so long, and then the others do what there is to do: release, reconcile, send."""
        self.pass_time(how_long, Pause.FROZEN)
        other = DISPATCHERS[name == DISPATCHERS[0]]
        for one in (other, RECONCILERS[0], other):
            if one in self.idle():
                self.begin(one)
            if one != name and one in self.alive():
                self.until(one, "end")

    def crash(self, name: str) -> None:
        """A process is killed where it stands; what is on its way may still arrive."""
        self.processes[name].crash()
        self._after(self.processes[name])

    def stop(self, name: str) -> None:
        """A process is asked to end after its chunk."""
        self.processes[name].told_to_stop = True

    def pass_time(self, how_long: timedelta, pause: Pause = Pause.ALIVE) -> None:
        """Time passes for everybody."""
        end = self.now + how_long
        while pause is Pause.ALIVE and self.now + BEAT < end and any(self._beating()):
            self.now += BEAT
            self.beat()
        self.slept += end - self.now if pause is Pause.ASLEEP else timedelta()
        self.now = end
        self._after(None)

    def _beating(self) -> Iterator[bool]:
        for name in self.alive():
            heart = self.processes[name].heart
            yield heart is not None and bool(heart._token)

    def beat(self) -> None:
        """Every heart that beats does so once."""
        for name in self.alive():
            self.processes[name].beat()
        self._after(None)

    def put_clock(self, name: str, by: timedelta) -> None:
        """Somebody puts the wall clock of a process's machine."""
        self.processes[name].skew += by

    def land(self, flight: Flight) -> None:
        """What was still on its way reaches its provider, if there is still time."""
        self._take(flight)
        self._after(None)

    def in_the_air(self) -> list[Flight]:
        """What may still reach a provider, though nobody waits for its answer."""
        held = [self.processes[name].at for name in self.alive()]
        return [one for one in self.flights if not one.over and all(at is None or at.flight is not one for at in held)]

    def opt_out(self, address: str) -> None:
        """A person opts out, as a provider's refusal would say it: committed in this step."""
        query = select(table(Contact)).where(table(Contact).c.address == address)
        with store.write(self.db) as connection:
            contact = connection.execute(query).one()
            row = SimpleNamespace(id=None, public_id=address, customer_id=None)
            channel = "email" if contact.kind == "email" else "sms"
            recording.believe(connection, row, channel, contact.id, Blame.OPT_OUT, "reply", self.now)
        self._opted_out.setdefault(address, self.step)
        self._after(None)

    def decide(self, public_id: str, decision: Decision) -> None:
        """A person settles a message that is in doubt."""
        reconciler.resolve(self.db, public_id, decision, self.now, settings=self.settings)
        self._decided[public_id] = self.step
        if decision is Decision.SENT:
            self._said_sent.add(public_id)
        self._after(None)

    def report(self, taken: Taken) -> None:
        """The provider tells us that it delivered a message."""
        values = {"event_id": f"delivered:{taken.provider_id}", "kind": "delivered", "at": self.now}
        values |= {"message_id": self._rows[taken.public_id]["id"], "customer_id": None}
        values |= {"detail": {"provider_id": taken.provider_id, "channel": taken.flight.outgoing.channel}}
        with store.write(self.db) as connection:
            connection.execute(insert(table(MessageEvent)).values(values))
        self.reported.append(taken)
        self._after(None)

    def pause(self) -> None:
        """A person pauses the campaign."""
        releases.pause(self.db, "greet", "", self.now)
        self.paused = True
        self._after(None)

    def resume(self) -> None:
        """A person lets the campaign go on."""
        releases.resume(self.db, "greet", self.now)
        self.paused = False
        self._after(None)

    def cancel(self) -> None:
        """A person cancels what is planned."""
        releases.cancel(self.db, "greet", None, self.now)
        self._after(None)

    def may_opt_out(self) -> list[str]:
        """The addresses that have not yet."""
        return [address for address in ADDRESSES if address not in self._opted_out]

    def unreported(self) -> list[Taken]:
        """What was accepted, and the provider has not told us that it was delivered."""
        return [taken for taken in self.ledger if taken not in self.reported]

    def of(self, status: Status) -> list[str]:
        """The public ids of the messages with this status."""
        return [i for i, row in self._rows.items() if row["status"] == status]

    def messages(self) -> list[str]:
        """The public ids of all messages."""
        return list(self._rows)

    def row(self, public_id: str) -> sqlite3.Row:
        return self._rows[public_id]

    # the provider

    def _answer(self, process: Process, flight: Flight, how: How) -> None:
        outgoing = flight.outgoing
        if how in (How.ACCEPTED, How.UNANSWERED, How.SILENT) and not self._take(flight):
            how = How.LOST
        flight.over = flight.over or how not in (How.SLOW, How.BREAKS)
        blame = {How.NO_ADDRESS: Blame.ADDRESS, How.NO_TEXT: Blame.MESSAGE, How.TOO_FAST: Blame.SENDER}
        outcome = {
            How.ACCEPTED: Outcome.ACCEPTED,
            How.NO_ADDRESS: Outcome.REFUSED,
            How.NO_TEXT: Outcome.REFUSED,
            How.LATER: Outcome.LATER,
            How.TOO_FAST: Outcome.LATER,
        }.get(how, Outcome.DOUBT)
        provider_id = self.ledger[-1].provider_id if how is How.ACCEPTED else None
        if how is How.BREAKS:
            process.go_on(Broken())
        elif how is How.SILENT:
            process.go_on(None)
        else:
            told = Receipt(outgoing.public_id, outcome, provider_id, how, blame=blame.get(how, Blame.NOBODY))
            process.go_on(told)

    def _take(self, flight: Flight) -> bool:
        """The provider accepts it, unless it is too late to arrive."""
        timeout = timedelta(seconds=self.settings.channels[flight.outgoing.channel].timeout)
        late = flight.over or self.now > flight.drawn_at + timeout
        flight.over = True
        if not late:
            self.ledger.append(Taken(flight, f"p{len(self.ledger)}", self.now, self.step))
        return not late

    # what must hold

    def _after(self, process: Process | None) -> None:
        """A step is done, by that process if by any: look at what it left."""
        rows = {row["public_id"]: row for row in self.place.raw.execute("SELECT * FROM messages")}
        for public_id, row in rows.items():
            former = self._rows.get(public_id)
            if former is not None:
                self._taken_over(former, row, process)
                self._changed(former["status"], row, process)
            began = row["status"] == Status.SENDING and (
                former is None or former["status"] != Status.SENDING or former["claim"] != row["claim"]
            )
            if began:
                self._committed[public_id] = self.step
                self._sender[public_id] = id(process)
        self._rows = rows
        self.violated = True  # until it is known better
        if process is not None:
            self._note(process)
        self._check()
        self.violated = False
        self.step += 1

    def _changed(self, former: str, row: sqlite3.Row, process: Process | None) -> None:
        """What has ended stays as it is, and what is to be held is no reconciler's to plan again."""
        status, short = row["status"], _short(row["public_id"])
        if former in ENDED and status != former:
            raise Violation(f"message {short} had ended as {former}, and is {status}")
        asked = process is not None and process.reconciles and (former, status) == (Status.UNKNOWN, Status.PLANNED)
        if asked and self.settings.channels["email"].in_doubt == "hold":
            raise Violation(f"message {short} is planned again, though it was to be held")

    def _note(self, process: Process) -> None:
        error = process.ended_by
        if error is not None and not isinstance(error, (Crash, DatabaseError, Broken)):
            process.ended_by = None
            if not self.tolerant:
                raise error
        flight = process.at.flight if process.at is not None else None
        if flight is not None and flight not in self.flights:
            public_id = flight.outgoing.public_id
            flight.committed = self._committed.get(public_id)
            self.flights.append(flight)
            decided = self._decided.get(public_id)
            if decided is not None and (flight.committed is None or flight.committed <= decided):
                raise Violation(f"message {_short(public_id)} leaves although a person had settled it")

    def _taken_over(self, former: sqlite3.Row, row: sqlite3.Row, process: Process | None) -> None:
        """A claim is another's only once its lease is over, by clocks that differ by less than SKEW."""
        if not row["claim"] or former["claim"] == row["claim"]:
            return
        others = former["claim"] and self._claimer[row["public_id"]] != id(process)
        self._claimer[row["public_id"]] = id(process)
        if others and former["lease_until"] and former["lease_until"] >= to_micros(self.now + store.SKEW):
            raise Violation(f"message {_short(row['public_id'])} was taken from a claimer whose lease was not over")

    def _check(self) -> None:
        counted = Counter(taken.public_id for taken in self._standing())
        for public_id, count in counted.items():
            if count > 1:
                raise Violation(f"message {_short(public_id)} was accepted twice")
        for taken in self._standing():
            row = self._rows[taken.public_id]
            if row["status"] not in IN_FLIGHT:
                raise Violation(f"message {_short(taken.public_id)} was accepted, and is {row['status']}")
        for taken in self.ledger:
            since = self._opted_out.get(taken.flight.outgoing.address)
            committed = taken.flight.drawn if taken.flight.committed is None else taken.flight.committed
            if since is not None and committed > since:
                raise Violation(f"message {_short(taken.public_id)} went to somebody who had opted out")
        accepted = {taken.public_id for taken in self.ledger}
        for public_id in self.of(Status.SENT):
            if public_id not in accepted | self._said_sent and not self._misled(public_id):
                raise Violation(f"message {_short(public_id)} is sent, and was never accepted")
        in_doubt = Counter(self._sender[i] for i in self.of(Status.UNKNOWN) if self._rows[i]["claim"])
        if any(count > CHUNK for count in in_doubt.values()):
            raise Violation("one process left more than a chunk in doubt")

    def _misled(self, public_id: str) -> bool:
        """A person had another text like this one sent again, though it had arrived: its record is then taken for this one's."""
        row = self._rows[public_id]
        return row["channel"] == "sms" and any(
            taken.public_id in self._decided
            and taken.public_id != public_id
            and taken.flight.drawn <= self._decided[taken.public_id]
            and self._rows[taken.public_id]["customer_id"] == row["customer_id"]
            for taken in self.ledger
        )

    def _standing(self) -> list[Taken]:
        """What was accepted, but for what a person judged later, who may err."""
        return [one for one in self.ledger if one.flight.drawn > self._decided.get(one.public_id, -1)]

    # the end

    def recover(self) -> None:
        """
        Everybody comes to an end, new processes take over, providers answer, and nothing may be left over.

        Where providers are to be believed about absence, only SMS that look alike stay unknown.
        """
        for name in self.alive():
            self.stop(name)
            self._end(name)
        self.resume()
        for wait in (
            timedelta(minutes=21),
            timedelta(minutes=21),
            HOUR,
            4 * HOUR,
            timedelta(days=1),
            timedelta(days=5),
        ):
            if not (self.of(Status.PLANNED) + self.of(Status.SENDING) + self.of(Status.UNKNOWN)):
                break
            self.pass_time(wait)
            self.dispatch("recovery")
            self._end("recovery")
            self.reconcile("recovery")
            self._end("recovery")
        self._check_end()

    def _end(self, name: str) -> None:
        self.until(name, "end")
        if name in self.alive():
            raise Violation(f"{name} goes round in circles")

    def _check_end(self) -> None:
        for public_id, row in self._rows.items():
            status, short = row["status"], _short(public_id)
            if status in (Status.PLANNED, Status.SENDING):
                raise Violation(f"message {short} is still {status}")
            if status in (Status.FAILED, Status.SKIPPED, Status.EXPIRED, Status.CANCELLED) and not row["reason"]:
                raise Violation(f"message {short} is {status} without a reason")
            if status == Status.UNKNOWN and not row["detail"]:
                raise Violation(f"message {short} is unknown, and nobody says why")
            believed = self.settings.channels["email"].in_doubt == "resend_if_absent"
            judged = public_id in self._decided  # a person who errs may have it sent twice: then nobody can tell
            if status == Status.UNKNOWN and row["channel"] == "email" and believed and not judged:
                raise Violation(f"message {short} is still unknown, though its provider could tell")

    def close(self) -> None:
        """End every process."""
        for process in self.processes.values():
            process.crash()


def _short(public_id: str) -> str:
    return public_id.lstrip("0")
