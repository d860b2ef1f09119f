"""Runs statements inside one transaction; only our own errors come out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.exc import SQLAlchemyError

from kbs.adapters.sql.faults import given_up, translated, translated_values
from kbs.adapters.sql.prepared import Driver, Prepared, Row

Values = Mapping[str, object]

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

    Upsert: TypeAlias = sqlite.Insert | postgresql.Insert

# PostgreSQL sends at most 65535 values with a statement, SQLite 32766; a list of names
# or numbers is asked for in pieces of this many.
PIECE = 500

_NOTHING: Values = {}

# SQLAlchemy forgets the count of an INSERT otherwise.
_COUNTED = {"preserve_rowcount": True}


class _Watch:
    """Notices that a statement failed: what follows has to ask whether it still may."""

    __slots__ = ("failed",)

    def __init__(self) -> None:
        self.failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.failed = True


@final
class Cursor:
    """The connection of one transaction, as repositories see it."""

    def __init__(self, connection: Connection) -> None:
        """Use a connection on which a transaction was begun."""
        self._connection = connection
        self._driver = Driver(connection)
        self._watch = _Watch()
        self.erased = False
        """Whether a secret was removed: its old bytes must leave the files too."""

    def run(
        self,
        statement: Executable | Prepared,
        values: Values | Sequence[Values] | None = None,
        *,
        what: str = "database",
    ) -> int:
        """Run a statement and return how many rows it changed.

        Raises:
            ConflictError: a unique value is taken; `what` names it.
            UnavailableError: the database is away, or refuses.
        """
        if values is not None and not values:
            return 0
        with self._watched(), translated_values(what):
            if isinstance(statement, Prepared):
                return self._driver.run(statement, values or _NOTHING)
            done = self._connection.execute(
                statement, _plain(values), execution_options=_COUNTED
            )
            return done.rowcount

    def all(
        self, statement: Executable | Prepared, values: Values | None = None
    ) -> Sequence[Row]:
        """Return every row of a query.

        Raises:
            UnavailableError: the database is away.
            IntegrityError: a row is damaged.
        """
        with self._watched(), translated_values():
            if isinstance(statement, Prepared):
                return self._driver.all(statement, values or _NOTHING)
            found = self._connection.execute(statement, _plain(values))
            return [row._asdict() for row in found]

    def first(
        self, statement: Executable | Prepared, values: Values | None = None
    ) -> Row | None:
        """Return the first row of a query, if there is one.

        Raises:
            UnavailableError: the database is away.
            IntegrityError: a row is damaged.
        """
        with self._watched(), translated_values():
            if isinstance(statement, Prepared):
                return self._driver.first(statement, values or _NOTHING)
            row = self._connection.execute(statement, _plain(values)).first()
            return None if row is None else row._asdict()

    @property
    def dialect(self) -> str:
        """The kind of database, by which `upserts` names statements."""
        return self._connection.dialect.name

    def upsert(self, table: Table) -> Upsert:
        """Return an insert that can say what to do on a conflict."""
        return _insert_of(self.dialect, table)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run a part that is rolled back alone when it raises."""
        with translated():
            part = self._connection.begin_nested()
            try:
                yield
            except BaseException:
                # Fails where the database took back more than the part, which
                # `require_whole` says; here what went wrong first is what counts.
                with suppress(SQLAlchemyError):
                    part.rollback()
                raise
            part.commit()

    @property
    def is_whole(self) -> bool:
        """Whether the transaction that was begun is still the one that is open.

        After some errors SQLite rolls everything back by itself (a full disk, an
        error of the disk, no memory: https://sqlite.org/lang_transaction.html,
        section 2.3), and what comes then would be kept statement by statement.
        PostgreSQL takes nothing more before a rollback.
        """
        if self._connection.invalidated:
            return False
        if self.dialect != "sqlite":
            return True
        held = self._connection.connection.driver_connection
        driver = cast("sqlite3.Connection", held)
        return driver.in_transaction

    def require_whole(self) -> None:
        """Return if the transaction is whole.

        Raises:
            UnavailableError: it was given up; nothing of it is kept.
        """
        if not self.is_whole:
            raise given_up()

    def _watched(self) -> _Watch:
        if self._watch.failed:
            self.require_whole()
        return self._watch


def upserts(table: Table, complete: Callable[[Upsert], Executable]) -> Prepared:
    """Return an upsert for each kind of database, made once for all transactions."""
    return Prepared(lambda dialect: complete(_insert_of(dialect, table)))


def _insert_of(dialect: str, table: Table) -> Upsert:
    # Imported by name: nobody needs the other database's drivers.
    made: Upsert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return made


def values_of(row: Any) -> dict[str, object]:
    """Return the columns of a flat dataclass; `asdict` would copy every value."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a list into pieces that one statement can carry."""
    for start in range(0, len(items), PIECE):
        yield items[start : start + PIECE]


def _plain(values: Values | Sequence[Values] | None) -> Any:
    if values is None or isinstance(values, Mapping):
        return values
    return list(values)
