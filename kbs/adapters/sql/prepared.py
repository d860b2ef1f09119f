"""Statements that are compiled once and run on the driver's own connection.

SQLAlchemy writes the text for each kind of database and says how values are converted.
What it does around every execution costs more than the execution itself, and a release
has some twenty of them: those say `Prepared`, all others take the ordinary way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, final

from sqlalchemy import Dialect, Executable, LargeBinary, Select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from kbs.adapters.sql.columns import UtcTime, microseconds_of, time_of

Row = Mapping[str, Any]
"""One row, by the names of its columns."""

_Convert = Callable[[Any], Any]


class _Results(Protocol):
    """What we use of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int: ...

    def executemany(self, text: str, values: Any, /) -> object: ...

    def fetchone(self) -> Sequence[Any] | None: ...

    def fetchall(self) -> list[Sequence[Any]]: ...


class Driver(Protocol):
    """What we use of a driver's connection: `sqlite3` and psycopg have the same."""

    def execute(self, text: str, values: Any = ..., /) -> _Results:
        """Run a statement on a cursor of its own."""
        ...

    def cursor(self) -> _Results:
        """Open a cursor."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled statement; `columns` is empty where it returns no rows.

    `constants` are values that the statement brings itself. `given` and `found` say
    which values and columns have another form in the database, and how it is made.
    """

    text: str
    constants: Mapping[str, object]
    given: tuple[tuple[str, _Convert], ...]
    columns: tuple[str, ...]
    found: tuple[tuple[str, _Convert], ...]

    def bound(self, values: Mapping[str, object]) -> Mapping[str, object]:
        """Return values, by their names, as the driver takes them."""
        if not self.given and not self.constants:
            return values
        bound = {**self.constants, **values}
        for name, convert in self.given:
            bound[name] = convert(bound[name])
        return bound

    def row(self, found: Sequence[Any]) -> Row:
        """Return a row that the driver gave."""
        row = dict(zip(self.columns, found, strict=True))
        for name, convert in self.found:
            row[name] = convert(row[name])
        return row


@final
class Prepared:
    """A statement of this module's kind; threads and processes share it."""

    __slots__ = ("_keys", "_lock", "_plans", "_statement")

    def __init__(
        self,
        statement: Executable | Callable[[str], Executable],
        keys: Sequence[str] | None = None,
    ) -> None:
        """Take a statement, or what makes it for a kind of database by its name.

        `keys` are the columns that an INSERT or UPDATE sets, all of them by default.
        A statement with an expanding list of values cannot be prepared.
        """
        self._statement = statement
        self._keys = None if keys is None else list(keys)
        self._plans: dict[str, Plan] = {}
        self._lock = threading.Lock()

    def plan(self, dialect: Dialect) -> Plan:
        """Return the statement compiled for a kind of database."""
        try:
            return self._plans[dialect.name]
        except KeyError:
            with self._lock:
                made = _planned(self._of(dialect.name), dialect, self._keys)
                self._plans[dialect.name] = made
            return made

    def _of(self, name: str) -> Executable:
        if isinstance(self._statement, Executable):
            return self._statement
        return self._statement(name)


def driver_error(
    dialect: Dialect, exc: Exception, *, lost: bool = False
) -> SQLAlchemyError:
    """Return a driver's error as SQLAlchemy raises it; statements are left out."""
    error = DBAPIError.instance(
        None,
        None,
        exc,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
    error.__cause__ = exc
    return cast("SQLAlchemyError", error)


def _planned(statement: Executable, dialect: Dialect, keys: list[str] | None) -> Plan:
    compiled = cast(
        "SQLCompiler",
        cast("Any", statement).compile(dialect=dialect, column_keys=keys),
    )
    binds = {name: compiled.binds[name] for name in compiled.bind_names.values()}
    columns = list(statement.selected_columns) if isinstance(statement, Select) else []
    return Plan(
        text=str(compiled),
        # A column of an INSERT, or a parameter of ours, has no value of its own.
        constants={
            name: bind.value
            for name, bind in binds.items()
            if not bind.required and bind.value is not None
        },
        given=_where_converted(
            (name, _to_driver(bind.type, dialect)) for name, bind in binds.items()
        ),
        columns=tuple(str(column.key) for column in columns),
        found=_where_converted(
            (str(column.key), _from_driver(column.type, dialect)) for column in columns
        ),
    )


def _where_converted(
    named: Iterable[tuple[str, _Convert | None]],
) -> tuple[tuple[str, _Convert], ...]:
    return tuple((name, convert) for name, convert in named if convert is not None)


def _to_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    if isinstance(kind, UtcTime):
        return microseconds_of
    # Both drivers take bytes and give bytes; SQLAlchemy wraps them for others.
    if isinstance(kind, LargeBinary):
        return None
    found = kind.dialect_impl(dialect).bind_processor(dialect)
    return cast("_Convert | None", found)


def _from_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    if isinstance(kind, UtcTime):
        return time_of
    if isinstance(kind, LargeBinary):
        return None
    found = kind.dialect_impl(dialect).result_processor(dialect, None)
    return cast("_Convert | None", found)
