"""Runs statements inside one transaction; only our own errors come out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.exc import SQLAlchemyError

from kbs.adapters.sql.faults import given_up, translate, translated
from kbs.adapters.sql.prepared import Driver, Prepared, Row, driver_error

Values = Mapping[str, object]

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.dialects import postgresql, sqlite

    Upsert: TypeAlias = sqlite.Insert | postgresql.Insert

# PostgreSQL sends at most 65535 values with a statement, SQLite 32766; a list of names
# or numbers is asked for in pieces of this many.
PIECE = 500

_NOTHING: Values = {}

# SQLAlchemy forgets the count of an INSERT otherwise.
_COUNTED = {"preserve_rowcount": True}


@final
class Cursor:
    """The connection of one transaction, as repositories see it."""

    def __init__(self, connection: Connection, driver: Driver) -> None:
        """Use a connection on which a transaction was begun, and the driver's own."""
        self._connection = connection
        self._driver = driver
        self._dialect = connection.dialect
        self._failed = False
        self._torn = False
        self.erased = False
        """Whether a secret was removed: its old bytes must leave the files too."""

    def run(
        self,
        statement: Executable | Prepared,
        values: Values | None = None,
        *,
        what: str = "database",
    ) -> int:
        """Run a statement and return how many rows it changed.

        Raises:
            ConflictError: a unique value is taken; `what` names it.
            UnavailableError: the database is away, or refuses.
        """
        if self._failed:
            self.require_whole()
        try:
            if isinstance(statement, Prepared):
                plan = statement.plan(self._dialect)
                bound = plan.bound(_NOTHING if values is None else values)
                return self._driver.execute(plan.text, bound).rowcount
            done = self._joined().execute(statement, values, execution_options=_COUNTED)
            return done.rowcount
        except BaseException as exc:
            self._failed_with(exc, what)
            raise

    def run_each(
        self, statement: Prepared, rows: Sequence[Values], *, what: str = "database"
    ) -> None:
        """Run a statement once for each row of values.

        Raises:
            ConflictError: as `run`.
            UnavailableError: as `run`.
        """
        if len(rows) == 1:
            self.run(statement, rows[0], what=what)
            return
        if self._failed:
            self.require_whole()
        try:
            plan = statement.plan(self._dialect)
            bound = [plan.bound(row) for row in rows]
            self._driver.cursor().executemany(plan.text, bound)
        except BaseException as exc:
            self._failed_with(exc, what)
            raise

    def all(
        self, statement: Executable | Prepared, values: Values = _NOTHING
    ) -> Sequence[Row]:
        """Return every row of a query.

        Raises:
            UnavailableError: the database is away.
            IntegrityError: a row is damaged.
        """
        if self._failed:
            self.require_whole()
        try:
            if isinstance(statement, Prepared):
                plan = statement.plan(self._dialect)
                rows = self._driver.execute(plan.text, plan.bound(values)).fetchall()
                return [plan.row(row) for row in rows]
            found = self._joined().execute(statement, values or None)
            return [row._asdict() for row in found]
        except BaseException as exc:
            self._failed_with(exc)
            raise

    def first(
        self, statement: Executable | Prepared, values: Values = _NOTHING
    ) -> Row | None:
        """Return the first row of a query, if there is one.

        Raises:
            UnavailableError: the database is away.
            IntegrityError: a row is damaged.
        """
        if self._failed:
            self.require_whole()
        try:
            if isinstance(statement, Prepared):
                plan = statement.plan(self._dialect)
                found = self._driver.execute(plan.text, plan.bound(values)).fetchone()
                return None if found is None else plan.row(found)
            row = self._joined().execute(statement, values or None).first()
            return None if row is None else row._asdict()
        except BaseException as exc:
            self._failed_with(exc)
            raise

    @property
    def dialect(self) -> str:
        """The kind of database, by which `upserts` names statements."""
        return self._dialect.name

    def upsert(self, table: Table) -> Upsert:
        """Return an insert that can say what to do on a conflict."""
        return _insert_of(self.dialect, table)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run a part that is rolled back alone when it raises.

        Where it can be neither taken back nor kept as a whole, all is lost with it.

        Raises:
            UnavailableError: the transaction was given up; a savepoint would begin one.
        """
        self.require_whole()
        with translated():
            part = self._joined().begin_nested()
            try:
                yield
            except BaseException:
                # What went wrong first is what counts; `require_whole` says the rest.
                with suppress(SQLAlchemyError), self._tearing():
                    part.rollback()
                raise
            with self._tearing():
                part.commit()

    @contextmanager
    def _tearing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._torn = True
            raise

    @property
    def is_whole(self) -> bool:
        """Whether the transaction that was begun is still the one that is open.

        After some errors SQLite rolls everything back by itself (a full disk, an
        error of the disk, no memory: https://sqlite.org/lang_transaction.html,
        section 2.3), and what comes then would be kept statement by statement.
        PostgreSQL takes nothing more before a rollback, and makes one of a COMMIT
        without a word.
        """
        if self._torn or self._connection.invalidated:
            return False
        if self.dialect == "sqlite":
            return cast("sqlite3.Connection", self._driver).in_transaction
        info = cast("psycopg.Connection[Any]", self._driver).info
        return info.transaction_status.name != "INERROR"

    def require_whole(self) -> None:
        """Return if the transaction is whole.

        Raises:
            UnavailableError: it was given up; nothing of it is kept.
        """
        if not self.is_whole:
            raise given_up()

    def _joined(self) -> Connection:
        """Return the connection for SQLAlchemy's ordinary way of running statements.

        Where the transaction was begun on the driver it joins in first: otherwise it
        would roll back what it knows nothing of when a statement fails. One that the
        database gave up is not begun anew: half of it would be kept.

        Raises:
            UnavailableError: it was given up.
        """
        if not self._connection.in_transaction():
            self.require_whole()
            self._connection.begin()
        return self._connection

    def _failed_with(self, exc: BaseException, what: str = "database") -> None:
        """Raise what an error of the database means; return if it is another one.

        What follows in this transaction has to ask whether it still may.
        """
        self._failed = True
        if isinstance(exc, self._dialect.loaded_dbapi.Error):
            lost = self._dialect.is_disconnect(exc, cast("Any", self._driver), None)
            if lost:
                self._connection.invalidate(exc)
            exc = driver_error(self._dialect, exc, lost=lost)
        translate(exc, what, has_values=True)


def upserts(table: Table, complete: Callable[[Upsert], Executable]) -> Prepared:
    """Return an upsert for each kind of database, made once for all transactions."""
    return Prepared(lambda dialect: complete(_insert_of(dialect, table)))


def _insert_of(dialect: str, table: Table) -> Upsert:
    # Imported by name: nobody needs the other database's drivers.
    made: Upsert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return made


def values_of(row: Any) -> dict[str, object]:
    """Return the columns of a flat dataclass with slots, as they are."""
    return {name: getattr(row, name) for name in row.__slots__}


def pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a list into pieces that one statement can carry."""
    for start in range(0, len(items), PIECE):
        yield items[start : start + PIECE]
