"""Fresh, migrated databases for tests, on SQLite and PostgreSQL, and one that fails.

A test file imports the fixtures that it uses (all of `__all__` that ends in lower
case, with what they need). `database` runs a test twice, once on each; a machine
without PostgreSQL fails loudly unless KBS_NO_POSTGRES=1 says that this is meant.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from kbs.adapters.sql import schema
from kbs.adapters.sql.database import SqlDatabase, connect
from kbs.adapters.sql.engine import DATABASE_NAME
from kbs.adapters.sql.migrate import upgrade
from kbs.broker.ports import Database, Transaction
from kbs.core.errors import UnavailableError
from tests.fakes.postgres import PostgresServer, running_server

__all__ = [
    "FailingDatabase",
    "Place",
    "database",
    "empty_place",
    "place",
    "postgresql_place",
    "postgresql_server",
    "postgresql_template",
    "pragma",
    "sqlite_place",
    "sqlite_template",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is; every `connect` stands for another process."""

    kind: str
    folder: Path
    url: str | None = None

    def connect(self, *, lock_seconds: float = 10.0, threads: int = 1) -> SqlDatabase:
        """Open it once more."""
        return connect(
            self.url, data_dir=self.folder, lock_seconds=lock_seconds, threads=threads
        )


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, to be copied."""
    folder = tmp_path_factory.mktemp("sqlite-template")
    _migrate(Place("sqlite", folder))
    return folder / DATABASE_NAME


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """One server for all tests of this process."""
    if os.environ.get("KBS_NO_POSTGRES") == "1":
        pytest.skip("KBS_NO_POSTGRES=1")
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresServer) -> str:
    """The name of a migrated database, to be copied."""
    name = postgresql_server.create_database()
    _migrate(Place("postgresql", Path(), postgresql_server.url(name)))
    return name


@pytest.fixture
def sqlite_place(tmp_path: Path, sqlite_template: Path) -> Place:
    """A fresh SQLite database in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copy(sqlite_template, folder / DATABASE_NAME)
    return Place("sqlite", folder)


@pytest.fixture
def postgresql_place(
    tmp_path: Path, postgresql_server: PostgresServer, postgresql_template: str
) -> Iterator[Place]:
    """A fresh PostgreSQL database."""
    name = postgresql_server.take_database(postgresql_template)
    place = Place("postgresql", tmp_path, postgresql_server.url(name))
    yield place
    # To empty one is ten times quicker than to drop it and copy the next.
    _empty(place)
    postgresql_server.give_back(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A database without a schema, of each kind in turn."""
    if request.param == "sqlite":
        yield Place("sqlite", tmp_path)
        return
    server = request.getfixturevalue("postgresql_server")
    name = server.create_database()
    yield Place("postgresql", tmp_path, server.url(name))
    server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """A fresh database of each kind in turn."""
    found = request.getfixturevalue(f"{request.param}_place")
    assert isinstance(found, Place)
    return found


@pytest.fixture
def database(place: Place) -> Iterator[SqlDatabase]:
    """A fresh database of each kind in turn, open."""
    opened = place.connect()
    yield opened
    opened.close()


class FailingDatabase:
    """Lets the next commits fail on command, before or after they took effect.

    `fail_before` and `fail_after` count the write transactions still to fail; one that
    fails before is rolled back, one that fails after stands although its caller is told
    that it does not. `fail_reads` counts reading ones.
    """

    def __init__(
        self,
        wrapped: Database,
        *,
        fail_before: int = 0,
        fail_after: int = 0,
        fail_reads: int = 0,
    ) -> None:
        """Stand in front of a database that works."""
        self._wrapped = wrapped
        self.fail_before = fail_before
        self.fail_after = fail_after
        self.fail_reads = fail_reads
        self.commits = 0

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a snapshot, or fail."""
        if self.fail_reads:
            self.fail_reads -= 1
            raise _away("read")
        with self._wrapped.read() as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open the write transaction, and fail as told when it commits."""
        with self._wrapped.write() as transaction:
            yield transaction
            if self.fail_before:
                self.fail_before -= 1
                raise _away("before the commit")
        self.commits += 1
        if self.fail_after:
            self.fail_after -= 1
            raise _away("after the commit")


def _away(when: str) -> UnavailableError:
    return UnavailableError("database", got=f"a failure on command, {when}")


def _migrate(place: Place) -> None:
    opened = place.connect()
    upgrade(opened.engine)
    # The last connection to leave writes SQLite's log back into the file.
    opened.close()


def _empty(place: Place) -> None:
    opened = place.connect()
    with opened.engine.begin() as connection:
        for table in reversed(schema.METADATA.sorted_tables):
            connection.execute(table.delete())
        connection.execute(schema.log_head.insert(), {"id": 1, "size": 0})
    opened.close()


def pragma(database: SqlDatabase, text: str) -> object:
    """Set or ask something of the one SQLite connection that writes."""
    writers = database._writers
    assert writers is not None
    held = writers._take()
    try:
        row = (
            cast("sqlite3.Connection", held.driver).execute(f"PRAGMA {text}").fetchone()
        )
    finally:
        writers.give_back(held)
    return row and row[0]
