"""
SIGKILL, SIGSTOP and jumps of the clock at moments drawn from a seed, and afterwards the settling.

**The clock must not cheat.** Leases run out by the clock that all processes share, and nobody waits
for it: it is put forward. What that is allowed to mean depends on who is alive.

- While every sender is dead and the provider has taken in all that they had written, time may pass
  unseen, as much as you like: nobody is there whom it could wrong. Only then does the clock jump
  while `in_doubt` is `resend_if_absent`.
- While somebody lives, a jump is the suspension of the machine, or of the processes under SIGSTOP at
  that moment: all see it at once, on every clock that they have (`clock.wear`). A sender in mid-chunk
  finds its time to hand over past, and its lease perhaps lost. One that was caught between its last
  look at the clock and its write to the socket still writes, late. The product says of such a
  message that it is found if it comes within the quarter of an hour that absence waits for, and
  promises nothing beyond. So a jump like this is longer than a lease and shorter than that, and
  no process lives through two of them.

No process ever has a time of its own, so no live claimer's lease is declared over while it still
believes in it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from tests.killing.checker import Found, check, rows
from tests.killing.clock import Clock
from tests.killing.processes import STEPS, Death, start
from tests.killing.providers import CAN_BE_ASKED, Provider
from tests.killing.shop import Shop, arrive, begin
from tests.killing.workers import Duty, Job, work

LEASE_OVER = timedelta(minutes=6)  # more than any lease
SUSPENDED_AT_MOST = timedelta(minutes=14)  # less than what absence waits for
DOUBT_OVER = timedelta(minutes=25)  # after that, what a provider does not have it will never have
DISPATCHERS: tuple[Job, ...] = ("dispatch", "dispatch")
PATIENCE = 90.0  # real seconds without an end of something that has one
IDLE = 0.5  # real seconds without progress: what is left is in the hands of the dead
TELL_EVERY = 25  # kills
ROUNDS = 12  # of settling: what is not settled by then never will be
_ENDS = "SELECT status, count(*) AS many FROM messages GROUP BY status"
_CUSTOMERS = "SELECT count(*) AS many FROM customers"


class Broken(AssertionError):
    """Something went wrong that no kill explains."""


@dataclass
class Worker:
    """One process at work."""

    process: BaseProcess
    pipe: Connection
    duty: Duty
    suspended: bool = False  # the clock has jumped in its life

    def wait_until_ready(self) -> bool:
        """False when it died before."""
        try:
            return self.pipe.poll(PATIENCE) and self.pipe.recv() == "ready"
        except (EOFError, ConnectionResetError):
            return False


@dataclass
class Storm:
    """One shop, its provider and its processes, and what was done to them so far."""

    shop: Shop
    provider: Provider
    clock: Clock
    random: Random
    chunk: int
    folder: Path
    say: Callable[[str], None] = lambda _: None
    kills: int = 0
    stops: int = 0  # processes stopped and continued
    jumps: int = 0  # of the clock while somebody lived
    workers: list[Worker] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)  # who is to get a message, and where
    _log: int = 0

    # --- the shop ---------------------------------------------------------------------------------

    def begin(self, messages: int) -> None:
        """Open the shop with so many customers; a half of their messages is left to the planner."""
        begin(self.shop)
        self._arrive(messages - messages // 2, planned=True)
        self._arrive(messages // 2)

    def _arrive(self, many: int, *, planned: bool = False) -> None:
        self.expected |= arrive(self.shop, len(self.expected), many, self.clock.now(), planned=planned)

    def check(self) -> Found:
        return check(self.shop.url, self.provider.ledger(), self.expected)

    # --- processes --------------------------------------------------------------------------------

    def hire(self, job: Job, death: Death | None = None, *, until_idle: bool = False) -> Worker:
        self._log += 1
        log = self.folder / f"{self._log}-{job}.log"
        duty = Duty(self.shop, self.clock.file, log, job, self.chunk, death, until_idle)
        process, pipe = start(work, duty)
        worker = Worker(process, pipe, duty)
        self.workers.append(worker)
        return worker

    def kill(self, *victims: Worker) -> None:
        for worker in victims:
            worker.process.kill()
        for worker in victims:
            self.wait_for(worker)

    def massacre(self) -> None:
        """Kill everybody, and wait for the provider to take in what they had written."""
        self.kill(*self.workers)
        self.provider.settle()

    def run(self, *jobs: Job) -> None:
        """Each of them, at once and undisturbed, until it finds nothing more to do."""
        for worker in [self.hire(job, until_idle=True) for job in jobs]:
            self.wait_for(worker)

    def reap(self) -> None:
        """See who died meanwhile."""
        for worker in [one for one in self.workers if not one.process.is_alive()]:
            self.wait_for(worker)

    def wait_for(self, worker: Worker) -> None:
        """See it end; whoever was neither killed nor ended well has left its last words."""
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        if code is None:
            worker.process.kill()
        self.workers.remove(worker)
        worker.pipe.close()
        self.kills += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            words = worker.duty.log.read_text(encoding="utf-8", errors="replace").strip()
            what = "did not end" if code is None else f"ended with {code}"
            raise Broken(f"a process that was to {worker.duty.job} {what}:\n{words[-4000:]}")
        worker.duty.log.unlink(missing_ok=True)

    # --- where things stand -----------------------------------------------------------------------

    def statuses(self) -> dict[str, int]:
        """How many messages there are of each status; `none`: customers without one."""
        found = {str(row["status"]): int(row["many"]) for row in rows(self.shop.url, _ENDS)}
        return {"none": int(rows(self.shop.url, _CUSTOMERS)[0]["many"]) - sum(found.values()), **found}

    def waiting(self) -> int:
        """How many messages are still to be planned or sent."""
        found = self.statuses()
        return sum(found.get(status, 0) for status in ("none", "planned"))

    # --- the storm --------------------------------------------------------------------------------

    def rage(self, kills: int, jobs: Sequence[Job] = DISPATCHERS) -> None:
        """
        Kill so many more, spread over what there is to send; the last ones may finish their chunk.

        A kill costs up to a chunk, which nobody may send: when too little is left for those to come,
        new customers arrive.
        """
        goal = self.kills + kills
        told = self.kills
        while self.kills < goal:
            left = goal - self.kills
            if (waiting := self.waiting()) < self.chunk * min(left, len(DISPATCHERS) + 1):
                self._arrive(left * self.chunk)
                continue
            self._staff(jobs)
            self._act(max(1, waiting // left - self.chunk // 2))
            self.reap()
            if self.kills - told >= TELL_EVERY:
                told = self.kills
                self.say(f"{self.kills} kills, {self.provider.count()} accepted, {self.waiting()} to go")
        for worker in self.workers:  # the last ones may finish, so that no more are killed than asked for
            worker.pipe.send("stop")
        while self.workers:
            self.wait_for(self.workers[0])
        self.provider.settle()

    def _staff(self, jobs: Sequence[Job]) -> None:
        have = [worker.duty.job for worker in self.workers]
        wanted = list(jobs)
        if self.statuses()["none"]:
            wanted.append("plan")
        for job in have:
            if job in wanted:
                wanted.remove(job)
        new = [self.hire(job) for job in wanted]
        for worker in new:
            worker.wait_until_ready()

    def _act(self, room: int) -> None:
        acts = {self._kill_after_progress: 5, self._kill_after_a_time: 3, self._die_at_a_step: 3, self._kill_all: 1}
        if not self.shop.resends:  # see the top of this file
            acts[self._suspend] = 2
        self.random.choices(list(acts), list(acts.values()))[0](room)

    def _kill_after_progress(self, room: int) -> None:
        self._progress(self.random.randint(0, 2 * room))
        self.kill(self.random.choice(self.workers))

    def _kill_after_a_time(self, room: int) -> None:
        wait([worker.process.sentinel for worker in self.workers], self.random.uniform(0, min(0.5, room * 0.004)))
        self.kill(self.random.choice(self.workers))

    def _die_at_a_step(self, room: int) -> None:
        """A successor dies at an exact step."""
        step = self.random.choice(STEPS)
        nth = self.random.randint(1, 6 if "commit" in step else 2 * room)
        victim = self.random.choice(self.workers)
        self.kill(victim)
        doomed = self.hire(victim.duty.job, Death(step, nth))
        self._progress(2 * room, until=doomed)

    def _kill_all(self, room: int) -> None:
        self._progress(self.random.randint(0, room))
        self.massacre()
        self.clock.jump((DOUBT_OVER if self.shop.resends else LEASE_OVER) * self.random.uniform(1, 2))

    def _suspend(self, room: int) -> None:
        """Some or all are stopped, perhaps for longer than their leases; then they go on."""
        self._progress(self.random.randint(0, room))
        dispatching = [worker for worker in self.workers if worker.duty.job == "dispatch"]
        stopped = dispatching[: self.random.randint(1, max(1, len(dispatching)))]
        for worker in stopped:
            self._signal(worker, signal.SIGSTOP)
        self.stops += len(stopped)
        if self.random.random() < 0.5:
            self._jump_while_alive()
        wait([worker.process.sentinel for worker in self.workers], self.random.uniform(0, 0.2))
        for worker in stopped:
            self._signal(worker, signal.SIGCONT)

    def _jump_while_alive(self) -> None:
        if any(worker.suspended for worker in self.workers):
            self.massacre()
            return
        for worker in self.workers:
            worker.suspended = True
        self.jumps += 1
        self.clock.jump(self.random.uniform(0, 1) * (SUSPENDED_AT_MOST - LEASE_OVER) + LEASE_OVER)

    def _signal(self, worker: Worker, number: signal.Signals) -> None:
        if worker.process.is_alive() and worker.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, number)

    def _progress(self, messages: int, until: Worker | None = None) -> None:
        """Return once so many more were accepted, or nothing moves any more, or `until` is dead."""
        seen = self.provider.count()
        goal, moved = seen + messages, time.monotonic()
        sentinels = [worker.process.sentinel for worker in (self.workers if until is None else [until])]
        while seen < goal and time.monotonic() - moved < IDLE:
            if wait(sentinels, 0.003):
                return
            if (count := self.provider.count()) > seen:
                seen, moved = count, time.monotonic()

    # --- settling ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Undisturbed ticks, as time passes, until every message is sent or in doubt."""
        for _ in range(ROUNDS):
            self.clock.jump(LEASE_OVER)
            left = {status for status, many in self.statuses().items() if many}
            if "none" in left:
                self.run("plan")
            if left & {"none", "planned"}:
                self.run(*DISPATCHERS)
            elif "sending" in left:
                self.run("dispatch")
            else:
                return
        raise Broken(f"after {ROUNDS} undisturbed rounds there are still {self.statuses()}")

    def resolve(self, kills: int) -> None:
        """
        Ask the provider about every message in doubt, and send again what it does not have.

        So many processes are killed meanwhile, reconcilers among them, while new customers arrive.
        Ends when nothing is in doubt any more; where nobody can be asked, when nobody was.
        """
        self.shop = replace(self.shop, in_doubt="resend_if_absent")
        self.clock.jump(DOUBT_OVER)
        if self.provider.address.kind not in CAN_BE_ASKED:
            self.run("reconcile")
            self.settle()
            return
        self.rage(kills, (*DISPATCHERS, "reconcile"))
        for _ in range(ROUNDS):
            self.settle()
            if not self.statuses().get("unknown"):
                return
            self.clock.jump(DOUBT_OVER)
            self.run("reconcile")
        raise Broken(f"after {ROUNDS} rounds there are still {self.statuses()}")
