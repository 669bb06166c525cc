"""What a verb imports, because imports are most of the time that a small verb takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "sqlmodel",
    "sqlalchemy",
    "sqlglot",
    "alembic",
    "phonenumbers",
    "html2text",
    "twilio",
    "sendgrid",
    "apscheduler",
}

RUN = """
import sys
from outreach.cli import main
sys.argv = ["outreach", *sys.argv[1:]]
try:
    main()
finally:
    print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported_by(*arguments: str, folder: Path) -> tuple[int, set[str]]:
    """The exit code of `outreach ARGUMENTS` and the top-level modules it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, set(done.stderr.rpartition("imported:")[2].split())


@pytest.mark.parametrize("arguments", [("--help",), ("status", "--help"), ("--version",)])
def test_help_imports_no_heavy_library(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, modules = imported_by(*arguments, folder=tmp_path)

    assert (code, modules & {*HEAVY, "babel", "rich"}) == (0, set())
    assert "typer" in modules


def test_status_imports_no_heavy_library(tmp_path: Path) -> None:
    init, _ = imported_by("init", ".", folder=tmp_path)
    upgrade, _ = imported_by("db", "upgrade", folder=tmp_path)

    code, modules = imported_by("status", folder=tmp_path)

    assert (init, upgrade, code) == (0, 0, 0)
    assert modules & HEAVY == set()
