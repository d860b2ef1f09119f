"""`kbs.broker.ports.Database` on SQLite or PostgreSQL.

A write transaction holds the head of the log from its first statement on: the file's
write lock, or the lock of the head's row. A reading one is a snapshot that the
database itself keeps from writing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import cast, final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from kbs.adapters.sql.broker import SqlBrokerKeyStore, SqlInstanceStore
from kbs.adapters.sql.collateral import SqlCollateralStore
from kbs.adapters.sql.cursor import Cursor
from kbs.adapters.sql.engine import (
    LOCK_SECONDS,
    POOL_SIZE,
    Engines,
    Kept,
    begun,
    pool_size,
    postgresql_engines,
    sqlite_engines,
)
from kbs.adapters.sql.expiring import (
    SqlEnrolmentStore,
    SqlEvidenceStore,
    SqlSessionStore,
    SqlSpentStore,
    SqlTokenStore,
)
from kbs.adapters.sql.governance import SqlGovernanceStore
from kbs.adapters.sql.keys import SqlKeyStore
from kbs.adapters.sql.log import SqlLogStore
from kbs.core.errors import KbsError, UnavailableError

# Milliseconds to wait for readers, before the log is emptied some other time.
_PATIENCE = 50


@final
class SqlTransaction:
    """One transaction with every repository."""

    def __init__(self, connection: Connection) -> None:
        """Work in the transaction that was begun on `connection`."""
        self._cursor = Cursor(connection)

    @cached_property
    def log(self) -> SqlLogStore:
        """The audit log."""
        return SqlLogStore(self._cursor)

    @cached_property
    def keys(self) -> SqlKeyStore:
        """Secrets, encrypted."""
        return SqlKeyStore(self._cursor)

    @cached_property
    def governance(self) -> SqlGovernanceStore:
        """Statements and governed objects."""
        return SqlGovernanceStore(self._cursor)

    @cached_property
    def spent(self) -> SqlSpentStore:
        """Spent challenges."""
        return SqlSpentStore(self._cursor)

    @cached_property
    def sessions(self) -> SqlSessionStore:
        """Attested sessions."""
        return SqlSessionStore(self._cursor)

    @cached_property
    def evidence(self) -> SqlEvidenceStore:
        """Encrypted evidence."""
        return SqlEvidenceStore(self._cursor)

    @cached_property
    def enrolments(self) -> SqlEnrolmentStore:
        """Pending enrolments."""
        return SqlEnrolmentStore(self._cursor)

    @cached_property
    def collateral(self) -> SqlCollateralStore:
        """Vendor collateral."""
        return SqlCollateralStore(self._cursor)

    @cached_property
    def broker_keys(self) -> SqlBrokerKeyStore:
        """The broker's own keys."""
        return SqlBrokerKeyStore(self._cursor)

    @cached_property
    def tokens(self) -> SqlTokenStore:
        """Used administrators' tokens."""
        return SqlTokenStore(self._cursor)

    @cached_property
    def instance(self) -> SqlInstanceStore:
        """Who this database belongs to."""
        return SqlInstanceStore(self._cursor)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run a part that is rolled back alone when it raises."""
        try:
            with self._cursor.savepoint():
                yield
        except BaseException:
            self.log.forget_head()
            self.collateral.forget()
            raise

    def require_whole(self) -> None:
        """Return if everything done so far will be kept together, or not at all.

        Raises:
            UnavailableError: the database gave the transaction up after an error.
        """
        self._cursor.require_whole()

    @property
    def erased(self) -> bool:
        """Whether secrets were removed."""
        return self._cursor.erased


@final
class SqlDatabase:
    """A database; threads share it, processes each make their own."""

    def __init__(
        self,
        engines: Engines,
        *,
        lock_seconds: float = LOCK_SECONDS,
        size: int = POOL_SIZE,
    ) -> None:
        """Use engines of `kbs.adapters.sql.engine`, whose pools of `size` this owns."""
        self.engine = engines.writing
        """For `upgrade` and `check_schema`."""
        self._reading = engines.reading
        self._lock_seconds = lock_seconds
        # Threads that find SQLite's file locked sleep and try again; here they queue.
        is_embedded = self.engine.dialect.name == "sqlite"
        # A server may be gone since: its connections are tried each time.
        self._writers = self._readers = None
        if is_embedded:
            self._writers = Kept(self.engine, 1, patience=lock_seconds)
            self._readers = Kept(self._reading, size, patience=lock_seconds)
        self._queue = threading.Lock() if is_embedded else None
        # The process before may have died between an erasure and its scrubbing.
        self._residue = is_embedded

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        """Open a consistent snapshot that cannot write.

        Raises:
            UnavailableError: the database is away.
        """
        with _begun(self._readers, self._reading) as connection:
            yield SqlTransaction(connection)

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        """Open the one write transaction; leaving it commits durably.

        Raises:
            UnavailableError: the database is away, locked for too long, or full.
        """
        with self._turn():
            with _begun(self._writers, self.engine) as connection:
                transaction = SqlTransaction(connection)
                transaction.log.lock_head()
                yield transaction
                transaction.require_whole()
            if self._writers is not None:
                self._scrub(self._writers, erased=transaction.erased)

    def close(self) -> None:
        """Close every connection; one that is in use closes when it is given back."""
        for kept in (self._writers, self._readers):
            if kept is not None:
                kept.close()
        self.engine.dispose()
        self._reading.dispose()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._queue is None:
            yield
            return
        if not self._queue.acquire(timeout=self._lock_seconds):
            raise UnavailableError(
                "database",
                got="another writer that holds it for too long",
                hint="try again",
                code="database.locked",
            )
        try:
            yield
        finally:
            self._queue.release()

    def _scrub(self, writers: Kept, *, erased: bool) -> None:
        """Empty SQLite's write-ahead log, which still has what was erased.

        Readers of an older snapshot prevent it; then every next write tries again. The
        commit is done: nothing here may look as if it were not.
        """
        self._residue |= erased
        if not self._residue:
            return
        with (
            suppress(SQLAlchemyError, sqlite3.Error, KbsError),
            writers.taken() as held,
        ):
            driver = cast("sqlite3.Connection", held.connection.driver_connection)
            driver.execute(f"PRAGMA busy_timeout={_PATIENCE if erased else 0}")
            self._residue = not _emptied(driver)


def _begun(kept: Kept | None, engine: Engine) -> AbstractContextManager[Connection]:
    return begun(engine) if kept is None else kept.begun()


def _emptied(driver: sqlite3.Connection) -> bool:
    try:
        (busy, *_) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(busy == 0)
    finally:
        driver.execute("PRAGMA busy_timeout=0")


def connect(
    url: str | None,
    *,
    data_dir: Path,
    lock_seconds: float = LOCK_SECONDS,
    threads: int = 1,
) -> SqlDatabase:
    """Open the database at `url`, or the embedded one in the data folder.

    So many `threads` may use it at once without waiting for a connection.

    Call it after any fork. Nothing is read yet: `check_schema` and `upgrade` do.

    Raises:
        ConfigurationError: the URL or the folder is wrong.
        UnavailableError: the database file cannot be made.
    """
    size = pool_size(threads)
    if url is None:
        engines = sqlite_engines(data_dir, lock_seconds=lock_seconds, size=size)
    else:
        engines = postgresql_engines(url, lock_seconds=lock_seconds, size=size)
    return SqlDatabase(engines, lock_seconds=lock_seconds, size=size)
