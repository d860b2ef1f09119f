"""What a driver's error means in our words; no driver's error leaves this package.

A unique value that is taken is a conflict, damaged pages are a lack of integrity, and
everything else means "could not be done now" (https://sqlite.org/rescode.html,
https://www.postgresql.org/docs/15/errcodes-appendix.html).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kbs.core.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    KbsError,
    MalformedError,
    UnavailableError,
)


class _Fault(NamedTuple):
    code: str
    got: str
    hint: str


_LOCKED = _Fault(
    "database.locked",
    "another writer that holds it for too long",
    "try again; if it stays so, look for a process that keeps a transaction open",
)
_FULL = _Fault("database.full", "a full disk", "free disk space; then try again")
_READ_ONLY = _Fault(
    "database.read_only",
    "a database that cannot be written",
    "check owner and mode of the data folder, or that the server is not a standby",
)
_AWAY = _Fault(
    "database.away", "no connection", "check that the database runs; then try again"
)
_BUSY_POOL = _Fault(
    "database.busy", "no free connection", "too many requests at once; try again"
)
_DISK = _Fault(
    "database.disk",
    "a disk that does not read or write",
    "look at the disk below the data folder and at the system's log of it",
)
_DESCRIPTORS = _Fault(
    "database.descriptors",
    "no file descriptor left",
    "too many connections at once; if it stays so, raise the limit of open files",
)
_GIVEN_UP = _Fault(
    "database.failed",
    "a transaction that the database gave up after an error",
    "nothing of it is kept; try again",
)
_OTHER = _Fault(
    "database.failed", "an error of the database", "see the log of the server"
)

# Primary names of SQLite's result codes; extended ones begin with these.
_SQLITE = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_CANTOPEN": _AWAY,
    "SQLITE_IOERR": _DISK,
}
# Five-digit codes, or classes of two digits, of PostgreSQL.
_POSTGRESQL = {
    "55P03": _LOCKED,
    "40P01": _LOCKED,
    "40001": _LOCKED,
    "53100": _FULL,
    "58030": _DISK,
    "25006": _READ_ONLY,
    # What a standby says to a transaction that begins in order to write.
    "0A000": _READ_ONLY,
    "08": _AWAY,
    "57": _AWAY,
}
# What psycopg raises when no server answered; there is no code then.
_NO_ANSWER = ("OperationalError", "InterfaceError", "ConnectionTimeout")
_SQLITE_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_SQLITE_TAKEN = ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")
_POSTGRESQL_DAMAGED = ("XX001", "XX002")
_POSTGRESQL_TAKEN = "23505"


def fault(exc: SQLAlchemyError, what: str = "database") -> KbsError:
    """Return the error that says the same in our words; statements are left out."""
    if isinstance(exc, PoolTimeoutError):
        return _unavailable(_BUSY_POOL, what)
    if isinstance(exc, DataError):
        return _unstorable(what)
    if not isinstance(exc, DBAPIError):
        return _unavailable(_OTHER, what)
    name = str(getattr(exc.orig, "sqlite_errorname", None) or "")
    state = str(getattr(exc.orig, "sqlstate", None) or "")
    if name in _SQLITE_TAKEN or state == _POSTGRESQL_TAKEN:
        return ConflictError(what, got="one that is taken", expected="a new one")
    if _is_damage(exc, name, state):
        return IntegrityError(
            what,
            got="damaged pages or text",
            expected="a sound database",
            hint="restore a backup; kbs audit verify shows what is lost",
        )
    return _unavailable(_known(exc, name, state), what)


def busy() -> UnavailableError:
    """Return the error of one who waited for a connection in vain."""
    return _unavailable(_BUSY_POOL, "database")


def locked() -> UnavailableError:
    """Return the error of one who waited in vain to write."""
    return UnavailableError(
        "database", got=_LOCKED.got, hint="try again", code=_LOCKED.code
    )


def given_up() -> UnavailableError:
    """Return the error of a transaction that the database rolled back by itself."""
    return _unavailable(_GIVEN_UP, "database")


def translate(
    exc: BaseException, what: str = "database", *, has_values: bool = False
) -> None:
    """Raise what an error of the database layer means; return if it is another one.

    Raises:
        ConflictError: a unique value is taken.
        IntegrityError: the database is damaged.
        MalformedError: with `has_values`, a value that no column can hold.
        UnavailableError: anything else that the database says.
    """
    if isinstance(exc, SQLAlchemyError):
        if isinstance(exc, StatementError) and isinstance(exc.orig, KbsError):
            raise exc.orig from None  # a column type of ours refused the value
        raise fault(exc, what) from exc
    if has_values and isinstance(exc, (UnicodeError, OverflowError)):
        raise _unstorable(what) from exc


@contextmanager
def translated() -> Iterator[None]:
    """Let no error of the database layer out of a block.

    Raises:
        KbsError: as `translate`.
    """
    try:
        yield
    except BaseException as exc:
        translate(exc)
        raise


@contextmanager
def translated_connect() -> Iterator[None]:
    """Do the same around taking a connection.

    Raises:
        UnavailableError: there is none, or the server was set up otherwise since.
    """
    try:
        with translated():
            yield
    except ConfigurationError as exc:
        raise UnavailableError("database", got=str(exc), code=_AWAY.code) from exc


def _is_damage(exc: DBAPIError, name: str, state: str) -> bool:
    # Text that is no UTF-8 fails in Python's module, without a code of SQLite's.
    undecodable = isinstance(exc.orig, sqlite3.OperationalError) and not name
    return (
        undecodable or name.startswith(_SQLITE_DAMAGED) or state in _POSTGRESQL_DAMAGED
    )


def _known(exc: DBAPIError, name: str, state: str) -> _Fault:
    primary = "_".join(name.split("_")[:2])
    found = _SQLITE.get(primary) or _POSTGRESQL.get(state)
    found = found or _POSTGRESQL.get(state[:2])
    if found is None:
        # psycopg has no code to give when it could not connect at all.
        unheard = not name and not state and type(exc.orig).__name__ in _NO_ANSWER
        found = _AWAY if exc.connection_invalidated or unheard else _OTHER
    # Drivers that cannot open anything do not say why.
    return _DESCRIPTORS if found is _AWAY and _has_no_descriptor() else found


def _has_no_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        return exc.errno in {errno.EMFILE, errno.ENFILE}
    return False


def _unstorable(what: str) -> MalformedError:
    return MalformedError(
        what,
        got="a value that cannot be stored",
        expected="well-formed text and integers of 64 bits",
    )


def _unavailable(found: _Fault, what: str) -> UnavailableError:
    return UnavailableError(what, got=found.got, hint=found.hint, code=found.code)
