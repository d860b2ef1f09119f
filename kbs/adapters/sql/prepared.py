"""Statements that are compiled once and run on the driver's own cursor.

SQLAlchemy writes the text for each kind of database and says how values are converted.
What it does around every execution costs more than the execution itself, and a release
has some twenty of them: those say `Prepared`, all others take the ordinary way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast, final

from sqlalchemy import BindParameter, Connection, Dialect, Executable, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Row = Mapping[str, Any]
"""One row, by the names of its columns."""

_Convert = Callable[[Any], Any]


class _Bind(NamedTuple):
    """A value of a statement; one that `is_given` comes with each execution."""

    name: str
    convert: _Convert | None
    is_given: bool
    constant: object


class _Plan(NamedTuple):
    """A compiled statement; `columns` is empty where it returns no rows."""

    text: str
    binds: tuple[_Bind, ...]
    by_place: bool
    columns: tuple[str, ...]
    converted: tuple[tuple[int, _Convert], ...]


class _DriverCursor(Protocol):
    """What we use of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, text: str, values: Any, /) -> object: ...

    def executemany(self, text: str, values: Any, /) -> object: ...

    def fetchone(self) -> Sequence[Any] | None: ...

    def fetchall(self) -> list[Sequence[Any]]: ...

    def close(self) -> None: ...


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
        self._plans: dict[str, _Plan] = {}
        self._lock = threading.Lock()

    def plan(self, dialect: Dialect) -> _Plan:
        """Return the statement compiled for a kind of database."""
        found = self._plans.get(dialect.name)
        if found is None:
            with self._lock:
                found = _planned(self._of(dialect.name), dialect, self._keys)
                self._plans[dialect.name] = found
        return found

    def _of(self, name: str) -> Executable:
        if isinstance(self._statement, Executable):
            return self._statement
        return self._statement(name)


@final
class Driver:
    """Runs prepared statements in the transaction of a connection."""

    __slots__ = ("_connection", "_dialect", "_open")

    def __init__(self, connection: Connection) -> None:
        """Use a connection on which a transaction was begun."""
        self._connection = connection
        self._dialect = connection.dialect
        self._open: Callable[[], _DriverCursor] | None = None

    def run(
        self, statement: Prepared, values: Mapping[str, object] | Sequence[Any]
    ) -> int:
        """Run a statement, or one a row, and return how many rows changed.

        Raises:
            DBAPIError: as SQLAlchemy raises it.
        """
        plan = statement.plan(self._dialect)
        cursor = self._cursor()
        try:
            if isinstance(values, Mapping):
                cursor.execute(plan.text, _bound(plan, values))
            elif len(values) == 1:
                cursor.execute(plan.text, _bound(plan, values[0]))
            else:
                cursor.executemany(plan.text, [_bound(plan, row) for row in values])
            count = cursor.rowcount
            cursor.close()
        except self._errors as exc:
            raise self._wrapped(exc) from exc
        return count

    def all(self, statement: Prepared, values: Mapping[str, object]) -> list[Row]:
        """Return every row of a query.

        Raises:
            DBAPIError: as SQLAlchemy raises it.
        """
        plan = statement.plan(self._dialect)
        cursor = self._cursor()
        try:
            cursor.execute(plan.text, _bound(plan, values))
            rows = cursor.fetchall()
            cursor.close()
        except self._errors as exc:
            raise self._wrapped(exc) from exc
        return [_row(plan, row) for row in rows]

    def first(self, statement: Prepared, values: Mapping[str, object]) -> Row | None:
        """Return the first row of a query, if there is one.

        Raises:
            DBAPIError: as SQLAlchemy raises it.
        """
        plan = statement.plan(self._dialect)
        cursor = self._cursor()
        try:
            cursor.execute(plan.text, _bound(plan, values))
            row = cursor.fetchone()
            cursor.close()
        except self._errors as exc:
            raise self._wrapped(exc) from exc
        return None if row is None else _row(plan, row)

    @property
    def _errors(self) -> type[Exception]:
        return self._dialect.loaded_dbapi.Error

    def _cursor(self) -> _DriverCursor:
        if self._open is None:
            driver = cast("Any", self._connection.connection.driver_connection)
            self._open = driver.cursor
        return self._open()

    def _wrapped(self, exc: Exception) -> BaseException:
        driver = cast("Any", self._connection.connection.driver_connection)
        lost = self._dialect.is_disconnect(cast("Any", exc), driver, None)
        if lost:
            self._connection.invalidate(exc)
        return driver_error(self._dialect, exc, lost=lost)


def driver_error(
    dialect: Dialect, exc: Exception, *, lost: bool = False
) -> BaseException:
    """Return a driver's error as SQLAlchemy raises it; statements are left out."""
    return DBAPIError.instance(
        None,
        None,
        exc,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )


def _planned(statement: Executable, dialect: Dialect, keys: list[str] | None) -> _Plan:
    compiled = cast(
        "SQLCompiler",
        cast("Any", statement).compile(dialect=dialect, column_keys=keys),
    )
    by_place = compiled.positiontup is not None
    names = compiled.positiontup or list(compiled.bind_names.values())
    columns = list(statement.selected_columns) if isinstance(statement, Select) else []
    results = [_result(column.type, dialect) for column in columns]
    return _Plan(
        text=str(compiled),
        binds=tuple(_bind(compiled.binds[name], name, dialect) for name in names),
        by_place=by_place,
        columns=tuple(str(column.key) for column in columns),
        converted=tuple(
            (place, convert)
            for place, convert in enumerate(results)
            if convert is not None
        ),
    )


def _bind(bind: BindParameter[Any], name: str, dialect: Dialect) -> _Bind:
    # A column of an INSERT, or a parameter of ours, has no value of its own.
    given = bind.required or bind.value is None
    convert = _implementation(bind.type, dialect).bind_processor(dialect)
    return _Bind(name, cast("_Convert | None", convert), given, bind.value)


def _implementation(kind: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    return kind.dialect_impl(dialect)


def _result(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    found = _implementation(kind, dialect).result_processor(dialect, None)
    return cast("_Convert | None", found)


def _bound(plan: _Plan, values: Mapping[str, object]) -> object:
    bound = []
    for name, convert, is_given, constant in plan.binds:
        value = values[name] if is_given else constant
        bound.append(value if convert is None else convert(value))
    if plan.by_place:
        return bound
    return {bind.name: value for bind, value in zip(plan.binds, bound, strict=True)}


def _row(plan: _Plan, row: Sequence[Any]) -> Row:
    if plan.converted:
        row = list(row)
        for place, convert in plan.converted:
            row[place] = convert(row[place])
    return dict(zip(plan.columns, row, strict=True))
