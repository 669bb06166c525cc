"""
Processes for tests that end, or are ended, as a whole: forked from one server that has imported the program already.

They are processes like any other, with signals, an exit code and a standard error of their own, at a tenth of the
cost of a new Python.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from typing import Any

from tests.killing.processes import PRELOAD

MORE = ["outreach.cli.running", "outreach.cli.web", "outreach.daemon", "outreach.web", "outreach.web.serving"]


def context(module: str) -> ForkServerContext:
    """Where processes come from that do something of this module of tests."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*PRELOAD, *MORE, module])
    return server


class Forked:
    """A process that does `what(*arguments)`, with as much of Popen's interface as its users ask for."""

    def __init__(
        self, what: Callable[..., None], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        server = context(what.__module__)
        said, theirs = server.Pipe(duplex=False)
        of = (theirs, {**os.environ, **(environment or {})}, what, *arguments)
        self._process = server.Process(target=_alone, args=of, daemon=True)
        self._process.start()
        theirs.close()
        self.stderr = os.fdopen(os.dup(said.fileno()), encoding="utf-8")
        said.close()
        self._too_late = threading.Timer(120, self.kill)  # nobody waits for ever for a word that never comes
        self._too_late.daemon = True
        self._too_late.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._too_late.cancel()
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, "it goes on and on"
        return code

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _alone(said: Any, environment: Mapping[str, str], what: Callable[..., None], *arguments: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said.fileno(), 2)
    said.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.clear()  # of what held for whoever started the server
    os.environ.update(environment)
    what(*arguments)


def outreach(*arguments: str) -> None:
    """What `outreach ARGUMENTS` does."""
    from outreach.cli import main

    sys.argv = ["outreach", *arguments]
    main()
