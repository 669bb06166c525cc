"""Fresh databases with the schema, and copies of what is in one, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from sqlalchemy import make_url

from outreach.store import open_database
from tests.conftest import SECRET

KINDS = ("sqlite", "postgresql")


class Databases(Protocol):
    """Where databases come from."""

    def fresh(self) -> str:
        """The address of a new one, with the schema and nothing else."""
        ...

    def copy(self, url: str) -> str:
        """The address of a copy; nobody may be connected to the original."""
        ...

    def close(self) -> None:
        """Drop them all."""
        ...


@dataclass
class SqliteFiles:
    """Files in a folder."""

    folder: Path

    def fresh(self) -> str:
        url = self._new()
        open_database(url, secret=SECRET).engine.dispose()
        return url

    def copy(self, url: str) -> str:
        made = self._new()
        with closing(sqlite3.connect(_path(url))) as original, closing(sqlite3.connect(_path(made))) as file:
            original.backup(file)
        return made

    def close(self) -> None:
        """They go with their folder."""

    def _new(self) -> str:
        return f"sqlite:///{self.folder / uuid4().hex[:12]}.db"


def _path(url: str) -> str:
    return url.removeprefix("sqlite:///")


@dataclass
class PostgresDatabases:
    """Databases of a running server; `uri` gives the address of one by its name."""

    uri: Callable[[str], str]
    template: str = ""  # one with the schema, if there is one already
    _made: list[str] = field(default_factory=list)

    def fresh(self) -> str:
        if not self.template:
            self.template = self._create("")
            open_database(self.uri(self.template), secret=SECRET, upgrade=True).engine.dispose()
        return self.uri(self._create(self.template))

    def copy(self, url: str) -> str:
        name = make_url(url).database
        assert name is not None
        return self.uri(self._create(name))

    def close(self) -> None:
        for name in self._made:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _create(self, template: str) -> str:
        name = f"k_{uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY FILE_COPY" if template else ""))
        self._made.append(name)
        return name

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())
