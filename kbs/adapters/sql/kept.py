"""Connections to SQLite that stay open, and transactions that the driver keeps.

What every release does several times: taking a connection from SQLAlchemy's pool,
beginning and giving it back there costs more than the transaction itself.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol, cast, final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from kbs.adapters.sql.faults import busy, fault, translated_connect
from kbs.adapters.sql.prepared import Driver, driver_error
from kbs.core.errors import KbsError

# SQLite's statements; a writing transaction holds the lock from its first moment on.
BEGIN_READING, BEGIN_WRITING = "BEGIN", "BEGIN IMMEDIATE"

# SQLite itself would sleep for up to 100 ms between two tries, and another process that
# writes without a break would win all of them: each try takes a few microseconds.
_BUSY_PAUSE = 0.002
# What is waited for: a length of time. `time.sleep` asks for a point in time, which is
# refused where the clock is moved under a process (libfaketime).
_NEVER = threading.Event()


class Held(NamedTuple):
    """A connection, and the driver's own beneath it."""

    connection: Connection
    driver: Driver


@final
class Kept:
    """Connections to SQLite that stay open between transactions.

    Taking one from the engine, beginning and giving it back costs more than a short
    transaction. As many as were said may be in use; whoever comes then waits for one.

    A transaction is the driver's: begun, committed and rolled back here. A statement
    that goes SQLAlchemy's ordinary way, and a savepoint, make SQLAlchemy join it
    (`Cursor`): it begins one of its own, which the engine's listener finds begun
    already, and which ends first, with the driver's, in `commit` and `give_back`.
    """

    def __init__(
        self,
        engine: Engine,
        size: int,
        *,
        begin: str,
        patience: float,
        waited: Callable[[], KbsError] = busy,
    ) -> None:
        """Open at most `size`, each when it is first needed; wait so many seconds.

        `begin` begins a transaction; `waited` is the error of who waited in vain.
        """
        self._engine = engine
        self._begin = begin
        self._patience = patience
        self._waited = waited
        self._idle: list[Held] = []
        self._is_closed = False
        # One for each that is not in use, open or not.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._free.put(None)

    def begin(self) -> Held:
        """Take a connection and begin a transaction on it; `give_back` ends it.

        Raises:
            UnavailableError: the database is away, locked for too long, or full; or
                all connections stay in use.
        """
        held, is_begun = self._take(), False
        try:
            execute_patiently(_sqlite(held), self._begin, self._patience)
            is_begun = True
        except sqlite3.Error as exc:
            raise fault(driver_error(self._engine.dialect, exc)) from exc
        finally:
            if not is_begun:
                self.give_back(held)
        return held

    def commit(self, held: Held) -> None:
        """Commit the transaction, durably if it wrote.

        Raises:
            UnavailableError: it may not have been committed.
        """
        try:
            # What the engine began for ordinary statements ends with it.
            held.connection.commit()
            _sqlite(held).commit()
        except SQLAlchemyError as exc:
            raise fault(exc) from exc
        except sqlite3.Error as exc:
            raise fault(driver_error(self._engine.dialect, exc)) from exc

    def give_back(self, held: Held) -> None:
        """Roll back what was not committed, and let others have the connection."""
        try:
            if _is_reusable(held):
                self._idle.append(held)
            if self._is_closed:
                self.close()
        finally:
            self._free.put(None)

    def close(self) -> None:
        """Close those that are not in use; the others when they are given back."""
        self._is_closed = True
        with suppress(IndexError):
            while True:
                connection = self._idle.pop().connection
                # Not into the engine's pool, which may be closed already.
                connection.invalidate()
                connection.close()

    def _take(self) -> Held:
        try:
            self._free.get(timeout=self._patience)
        except Empty:
            raise self._waited() from None
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            with translated_connect():
                return held_by(self._engine.connect())
        except BaseException:
            self._free.put(None)
            raise


def held_by(connection: Connection) -> Held:
    """Return a connection with that of the driver."""
    return Held(connection, cast("Driver", connection.connection.driver_connection))


def _sqlite(held: Held) -> sqlite3.Connection:
    return cast("sqlite3.Connection", held.driver)


def _is_reusable(held: Held) -> bool:
    """Whether nothing is begun on a connection; otherwise it is closed.

    A COMMIT or ROLLBACK that failed may leave its transaction open, and the lock with
    it, for as long as somebody keeps the error that knows of the connection.
    """
    connection, driver = held.connection, _sqlite(held)
    with suppress(SQLAlchemyError, sqlite3.Error):
        if not connection.invalidated:
            connection.rollback()
            driver.rollback()
            if not driver.in_transaction:
                return True
    with suppress(SQLAlchemyError, sqlite3.Error):
        connection.invalidate()
        connection.close()
    return False


class _Executing(Protocol):
    def execute(self, statement: str, /) -> object: ...


def execute_patiently(driver: _Executing, statement: str, seconds: float) -> None:
    """Execute a statement, again and again while others hold the lock.

    Raises:
        sqlite3.Error: it failed, or they hold it for longer than that.
    """
    until: float | None = None
    while True:
        try:
            driver.execute(statement)
        except sqlite3.OperationalError as exc:
            now = time.monotonic()
            until = now + seconds if until is None else until
            # The lowest byte is the primary code (https://sqlite.org/rescode.html).
            is_busy = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or now > until:
                raise
            _NEVER.wait(_BUSY_PAUSE)
        else:
            return
