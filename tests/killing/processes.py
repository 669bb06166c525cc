"""Starting the processes that are to be killed, and having one die at an exact step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from sqlalchemy import Engine, event

from outreach.channels import Channel, Channels, Outgoing, Receipt
from outreach.settings import Settings

PRELOAD = [  # by the one server that all tests fork from: what each process would else load by itself
    "tests.test_concurrency",
    "tests.killing.providers",
    "tests.killing.stages",
    "tests.killing.warm",
    "tests.killing.workers",
    "outreach.channels.sendgrid",
    "outreach.channels.smtp",
    "outreach.channels.twilio",
    "html2text",
    "psycopg",
    "ruamel.yaml",
    "tzdata",
]
Step = Literal["before_commit", "after_commit", "drawn", "receipt"]
COMMITS: tuple[Step, ...] = ("before_commit", "after_commit")
STEPS: tuple[Step, ...] = (*COMMITS, "drawn", "receipt")


@dataclass(frozen=True)
class Death:
    """
    SIGKILL by its own hand, at the nth time it is

    before_commit   about to commit a writing transaction
    after_commit    back from such a commit
    drawn           giving a message to its channel
    receipt         getting an answer about one
    """

    step: Step
    nth: int


def start(what: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """
    A process that does `what(pipe, *arguments)`, and our end of the pipe. For one thread.

    Starting one looks after all others, too, and of two threads that learn of an end at the same
    moment one would be told that it is unknown.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=what, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


class Doom:
    """Counts the steps of this process, and ends it when the time has come."""

    def __init__(self, death: Death | None) -> None:
        self._death = death
        self.steps: dict[Step, int] = dict.fromkeys(STEPS, 0)

    def at(self, step: Step) -> None:
        self.steps[step] += 1
        if self._death == Death(step, self.steps[step]):
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: Engine) -> None:
        """Count the writing transactions of an engine."""
        here, commit = threading.local(), engine.dialect.do_commit

        @event.listens_for(engine, "commit")
        def committing(connection: Any) -> None:
            here.writes = connection.get_execution_options().get("outreach_begin") == "IMMEDIATE"
            if here.writes:
                self.at("before_commit")

        def do_commit(connection: Any) -> None:
            commit(connection)
            if getattr(here, "writes", False):
                here.writes = False
                self.at("after_commit")

        setattr(engine.dialect, "do_commit", do_commit)  # noqa: B010  the type checker would not have it


class Doomed(Channels):
    """Channels that count what goes through them."""

    def __init__(self, doom: Doom) -> None:
        super().__init__()
        self._doom = doom

    def get(self, name: str, settings: Settings) -> Channel:
        channel = super().get(name, settings)
        if not isinstance(channel, _Counted):
            self.opened[name] = channel = _Counted(channel, self._doom)
        return channel


class _Counted:
    """A channel, and the count of what it draws and answers."""

    def __init__(self, channel: Channel, doom: Doom) -> None:
        self._channel, self._doom = channel, doom

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for receipt in self._channel.send(self._drawn(batch)):
            self._doom.at("receipt")
            yield receipt

    def _drawn(self, batch: Iterable[Outgoing]) -> Iterator[Outgoing]:
        for message in batch:
            self._doom.at("drawn")
            yield message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)
