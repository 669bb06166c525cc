"""What many tests begin with: made once in a test process, and copied for each of them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import _admin


class Original:
    """A folder and, of each kind, a database, filled when they are first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Path, str]] = {}  # by kind; the database is a file, or a name in the PostgreSQL

    def copy(
        self, request: pytest.FixtureRequest, folder: Path, fill: Callable[[Path, str], None], url: str = ""
    ) -> None:
        """
        Copy into the folder, and in place of the fresh database at `url`, which nobody has open.

        `fill` gets the folder and the address of the database that it is to fill.
        """
        kind = url.partition(":")[0]
        if kind not in self._made:
            self._made[kind] = _filled(request, kind, fill)
        made, database = self._made[kind]
        shutil.copytree(made, folder, dirs_exist_ok=True)
        if kind == "sqlite":
            file = url.removeprefix("sqlite:///")
            assert not Path(f"{file}-wal").exists()  # of the fresh one, it would be read into the copy
            shutil.copy(database, file)
        elif kind:
            uri = request.getfixturevalue("postgres_uri")
            name = url.partition("?")[0].rpartition("/")[2]
            _admin(uri, f"DROP DATABASE {name} WITH (FORCE)")
            _admin(uri, f"CREATE DATABASE {name} TEMPLATE {database} STRATEGY FILE_COPY")


def _filled(request: pytest.FixtureRequest, kind: str, fill: Callable[[Path, str], None]) -> tuple[Path, str]:
    folders: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    folder, name = folders.mktemp("original"), f"original_{uuid4().hex[:12]}"
    if kind == "sqlite":
        file = folders.mktemp("database") / f"{name}.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        fill(folder, f"sqlite:///{file}")
        with closing(sqlite3.connect(file)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy  # somebody still reads: a part of what was filled in would be missing
        return folder, str(file)
    if kind:
        uri, template = request.getfixturevalue("postgres_uri"), request.getfixturevalue("postgres_template")
        _admin(uri, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        fill(folder, uri(name))
        # a database that somebody has open cannot be copied
        _admin(uri, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    else:
        fill(folder, "")
    return folder, name
