"""Connections on which a commit is durable and an erased secret is gone.

SQLite: write-ahead log with a sync at every commit (https://sqlite.org/pragma.html;
NORMAL may lose the last commits when the power fails, which would be keys released
without an entry), overwritten deletes, explicit transactions. PostgreSQL: the same is
asked of the server, and a server that answers otherwise is refused. Engines are made
by these functions only, after any fork; nothing here outlives them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, cast
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from kbs.adapters.sql.faults import translated, translated_connect
from kbs.adapters.sql.kept import BEGIN_READING, BEGIN_WRITING, execute_patiently
from kbs.adapters.sql.prepared import driver_error
from kbs.core.errors import ConfigurationError, UnavailableError

DATABASE_NAME = "kbs.db"

# How long a writer waits for another one.
LOCK_SECONDS = 10.0

POOL_SIZE = 16
"""Connections that are there at least; who wants one more waits for another's."""

# Parameters of libpq that the URL may set otherwise. A peer that vanished gives its
# locks back once its connection is seen dead.
_POSTGRESQL_DEFAULTS = {
    "connect_timeout": "5",
    "application_name": "kbs",
    "tcp_user_timeout": "30000",
}

# STRICT tables: https://sqlite.org/releaselog/3_37_0.html.
_LEAST_SQLITE = (3, 37, 0)
_LEAST_POSTGRESQL = 150000

# Pragma, the value that we set, and how SQLite reads it back.
_PRAGMAS = (
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("secure_delete", "ON", 1),
    # Sorting and savepoints leave nothing on the disk.
    ("temp_store", "MEMORY", 2),
    # A schema written by somebody else cannot call functions with side effects.
    ("trusted_schema", "OFF", 0),
)

_POSTGRESQL_SETTINGS = (
    "SELECT current_setting('server_version_num')::int,"
    " current_setting('server_encoding'),"
    " current_setting('synchronous_commit'),"
    " current_setting('fsync'),"
    " set_config('lock_timeout', %s, false),"
    " set_config('TimeZone', 'UTC', false)"
)


class _Cursor(Protocol):
    def execute(
        self, operation: str, parameters: tuple[object, ...] = ..., /
    ) -> object: ...

    def fetchone(self) -> tuple[object, ...] | None: ...


class _Driver(Protocol):
    """What we use of a driver's connection (PEP 249)."""

    def cursor(self) -> _Cursor: ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


class Engines(NamedTuple):
    """Where write transactions begin, and where reading ones do."""

    writing: Engine
    reading: Engine


def pool_size(threads: int) -> int:
    """Return how many connections so many threads never wait for.

    A thread that reads one snapshot may have to look into a newer one.
    """
    return max(POOL_SIZE, 2 * threads)


def sqlite_engines(
    folder: Path, *, lock_seconds: float = LOCK_SECONDS, size: int = POOL_SIZE
) -> Engines:
    """Open the embedded database of a data folder; the file is made when missing.

    Raises:
        ConfigurationError: no such folder, or this SQLite is too old.
        UnavailableError: the file cannot be made.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise ConfigurationError(
            "SQLite", got=sqlite3.sqlite_version, expected="3.37.0 or newer"
        )
    path = folder / DATABASE_NAME
    _create_private(path)
    # The lock comes first, so that nothing read is stale and no deadlock is; with it,
    # nothing is waited for. One connection is enough for the one writer; one is left
    # for changes of the schema.
    writing = _sqlite_engine(
        path, BEGIN_WRITING, size=2, patience=lock_seconds, timeout=0
    )
    reading = _sqlite_engine(
        path, BEGIN_READING, size=size, patience=lock_seconds, timeout=lock_seconds
    )
    event.listen(reading, "connect", _forbid_writing)
    return Engines(writing, reading)


def postgresql_engines(
    url: str, *, lock_seconds: float = LOCK_SECONDS, size: int = POOL_SIZE
) -> Engines:
    """Open a PostgreSQL database; `postgres://` is accepted as well.

    Raises:
        ConfigurationError: not the URL of a PostgreSQL database.
    """
    parsed = parse_url(url)
    defaults = {
        name: value
        for name, value in _POSTGRESQL_DEFAULTS.items()
        if name not in parsed.query
    }
    engine = create_engine(
        parsed,
        connect_args={"client_encoding": "utf8", **defaults},
        # The head's row is locked first, so every later statement sees the latest.
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=size,
        pool_timeout=lock_seconds,
        hide_parameters=True,
    )

    def set_up(connection: _Driver, record: object) -> None:
        del record
        with _closing_on_error(connection):
            _set_up_postgresql(connection, lock_seconds)

    event.listen(engine, "connect", set_up)
    reading = engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    return Engines(engine, reading)


def parse_url(url: str) -> URL:
    """Accept `postgresql://…`, `postgres://…` or `postgresql+psycopg://…`.

    Raises:
        ConfigurationError: anything else; the message holds no password.
    """
    expected = "postgresql://USER@HOST/DATABASE"
    hint = "leave --db away for the embedded database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without its cause: that one quotes the whole text.
        raise ConfigurationError(
            "database URL", got="no URL", expected=expected, hint=hint
        ) from None
    if parsed.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise ConfigurationError(
            "database URL", got=f"{parsed.drivername}:", expected=expected, hint=hint
        )
    if not parsed.database:
        raise ConfigurationError("database URL", got="no database", expected=expected)
    # libpq's spelling of a socket's folder: %2Frun%2Fpostgresql.
    host = None if parsed.host is None else unquote(parsed.host)
    return parsed.set(drivername="postgresql+psycopg", host=host)


@contextmanager
def begun(engine: Engine) -> Iterator[Connection]:
    """Open a transaction; only our own errors come out of it, its commit included.

    Raises:
        UnavailableError: the database is away, locked for too long, or full.
    """
    with translated_connect():
        connection = engine.connect()
    with connection, translated(), connection.begin():
        yield connection


def _create_private(path: Path) -> None:
    # SQLite would use the umask; its -wal and -shm files take the mode of this one.
    if not path.parent.is_dir():
        raise ConfigurationError(
            "data folder", got=f"no folder {path.parent}", hint="kbs init makes one"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise UnavailableError(
            f"database {path}",
            got=exc.strerror or type(exc).__name__,
            hint="check owner and mode of the data folder",
        ) from exc


def _sqlite_engine(
    path: Path, begin: str, *, size: int, patience: float, timeout: float
) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=os.fspath(path)),
        # None: the driver begins no transaction on its own; `begin_explicitly` does.
        connect_args={"isolation_level": None, "timeout": timeout},
        pool_size=size,
        max_overflow=0,
        pool_timeout=patience,
        hide_parameters=True,
        # As psycopg: the values of a prepared statement go to the driver by name.
        paramstyle="named",
    )

    def begin_explicitly(connection: Connection) -> None:
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        if driver.in_transaction:
            return  # `Kept` began it; an ordinary statement joins in
        try:
            execute_patiently(driver, begin, patience)
        except sqlite3.Error as exc:
            raise driver_error(connection.dialect, exc) from exc

    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", begin_explicitly)
    return engine


def _set_up_sqlite(connection: _Driver, record: object) -> None:
    del record
    with _closing_on_error(connection):
        cursor = connection.cursor()
        for name, value, expected in _PRAGMAS:
            # While another process changes the journal of a new file, it is busy.
            execute_patiently(cursor, f"PRAGMA {name}={value}", LOCK_SECONDS)
            cursor.execute(f"PRAGMA {name}")
            _require_setting(name, cursor.fetchone(), expected)


def _forbid_writing(connection: _Driver, record: object) -> None:
    del record
    with _closing_on_error(connection):
        connection.cursor().execute("PRAGMA query_only=ON")


@contextmanager
def _closing_on_error(connection: _Driver) -> Iterator[None]:
    # The pool would forget a connection that it could not set up, still open.
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _require_setting(
    name: str, got: tuple[object, ...] | None, expected: object
) -> None:
    if got != (expected,):
        raise ConfigurationError(
            f"SQLite {name}",
            got=str(got),
            expected=str(expected),
            hint="the data folder must lie on a local file system",
        )


def _set_up_postgresql(connection: _Driver, lock_seconds: float) -> None:
    cursor = connection.cursor()
    cursor.execute(_POSTGRESQL_SETTINGS, (f"{round(lock_seconds * 1000)}ms",))
    row = cursor.fetchone() or (0, None, None, None)
    connection.commit()
    version, encoding, synchronous_commit, fsync = row[:4]
    if not isinstance(version, int) or version < _LEAST_POSTGRESQL:
        raise ConfigurationError(
            "PostgreSQL", got=f"version {version}", expected="15 or newer"
        )
    if encoding != "UTF8":
        raise ConfigurationError(
            "PostgreSQL database encoding", got=str(encoding), expected="UTF8"
        )
    for name, got in (("synchronous_commit", synchronous_commit), ("fsync", fsync)):
        if got == "off":
            raise ConfigurationError(
                f"PostgreSQL {name}",
                got="off",
                expected="on",
                hint="a key leaves only after its entry is durable",
            )
