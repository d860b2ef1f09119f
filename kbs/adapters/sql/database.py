"""`kbs.broker.ports.Database` on SQLite or PostgreSQL.

A write transaction holds the head of the log from its first statement on: the file's
write lock, or the lock of the head's row. A reading one is a snapshot that the
database itself keeps from writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar, cast, final

from kbs.adapters.sql.broker import SqlBrokerKeyStore, SqlInstanceStore
from kbs.adapters.sql.collateral import SqlCollateralStore
from kbs.adapters.sql.cursor import Cursor
from kbs.adapters.sql.engine import (
    LOCK_SECONDS,
    POOL_SIZE,
    Engines,
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
from kbs.adapters.sql.faults import locked
from kbs.adapters.sql.governance import SqlGovernanceStore
from kbs.adapters.sql.kept import BEGIN_READING, BEGIN_WRITING, Held, Kept, held_by
from kbs.adapters.sql.keys import SqlKeyStore
from kbs.adapters.sql.log import SqlLogStore

R = TypeVar("R")

# Milliseconds to wait for readers, before the log is emptied some other time.
_PATIENCE = 50


@final
class _Repository(Generic[R]):
    """A repository of a transaction, made when it is first asked for.

    A plain `cached_property` takes a lock each time; a transaction has one thread.
    """

    def __init__(self, made: Callable[[Cursor], R]) -> None:
        self._made = made

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, transaction: SqlTransaction, owner: type) -> R:
        # Found among the transaction's own attributes from now on.
        made = self._made(transaction.cursor)
        transaction.__dict__[self._name] = made
        return made


@final
class SqlTransaction:
    """One transaction with every repository."""

    def __init__(self, held: Held) -> None:
        """Work in the transaction that was begun on a connection."""
        self.cursor = Cursor(*held)

    log = _Repository(SqlLogStore)
    """The audit log."""
    keys = _Repository(SqlKeyStore)
    """Secrets, encrypted."""
    governance = _Repository(SqlGovernanceStore)
    """Statements and governed objects."""
    spent = _Repository(SqlSpentStore)
    """Spent challenges."""
    sessions = _Repository(SqlSessionStore)
    """Attested sessions."""
    evidence = _Repository(SqlEvidenceStore)
    """Encrypted evidence."""
    enrolments = _Repository(SqlEnrolmentStore)
    """Pending enrolments."""
    collateral = _Repository(SqlCollateralStore)
    """Vendor collateral."""
    broker_keys = _Repository(SqlBrokerKeyStore)
    """The broker's own keys."""
    tokens = _Repository(SqlTokenStore)
    """Used administrators' tokens."""
    instance = _Repository(SqlInstanceStore)
    """Who this database belongs to."""

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run a part that is rolled back alone when it raises."""
        try:
            with self.cursor.savepoint():
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
        self.cursor.require_whole()

    @property
    def erased(self) -> bool:
        """Whether secrets were removed."""
        return self.cursor.erased


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
        is_embedded = self.engine.dialect.name == "sqlite"
        # A server may be gone since: its connections are tried each time.
        self._writers = self._readers = None
        if is_embedded:
            # Threads that find SQLite's file locked sleep and try again; here they
            # queue for the one connection.
            self._writers = Kept(
                self.engine,
                1,
                begin=BEGIN_WRITING,
                patience=lock_seconds,
                waited=locked,
            )
            self._readers = Kept(
                self._reading, size, begin=BEGIN_READING, patience=lock_seconds
            )
        # The process before may have died between an erasure and its scrubbing.
        self._residue = is_embedded

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        """Open a consistent snapshot that cannot write.

        Raises:
            UnavailableError: the database is away.
        """
        readers = self._readers
        if readers is None:
            with begun(self._reading) as connection:
                yield SqlTransaction(held_by(connection))
            return
        held = readers.begin()
        try:
            yield SqlTransaction(held)
        finally:
            readers.give_back(held)

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        """Open the one write transaction; leaving it commits durably.

        Raises:
            UnavailableError: the database is away, locked for too long, or full.
        """
        writers = self._writers
        if writers is None:
            with begun(self.engine) as connection:
                transaction = SqlTransaction(held_by(connection))
                transaction.log.lock_head()
                yield transaction
                transaction.require_whole()
            return
        held = writers.begin()
        try:
            transaction = SqlTransaction(held)
            transaction.log.lock_head()
            yield transaction
            transaction.require_whole()
            writers.commit(held)
            self._residue |= transaction.erased
            if self._residue:
                self._scrub(held, erased=transaction.erased)
        finally:
            writers.give_back(held)

    def close(self) -> None:
        """Close every connection; one that is in use closes when it is given back."""
        for kept in (self._writers, self._readers):
            if kept is not None:
                kept.close()
        self.engine.dispose()
        self._reading.dispose()

    def _scrub(self, held: Held, *, erased: bool) -> None:
        """Empty SQLite's write-ahead log, which still has what was erased.

        Readers of an older snapshot prevent it; then every next write tries again. The
        commit is done: nothing here may look as if it were not.
        """
        driver = cast("sqlite3.Connection", held.driver)
        with suppress(sqlite3.Error):
            driver.execute(f"PRAGMA busy_timeout={_PATIENCE if erased else 0}")
            self._residue = not _emptied(driver)


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
