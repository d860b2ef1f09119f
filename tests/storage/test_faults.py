"""A database that is away, locked, full or closed to us: one kind of error, ours."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import psycopg.errors
import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kbs.adapters.sql.database import SqlDatabase, SqlTransaction, connect
from kbs.adapters.sql.engine import DATABASE_NAME
from kbs.adapters.sql.faults import fault
from kbs.adapters.sql.migrate import current_revision, upgrade
from kbs.adapters.sql.prepared import Prepared
from kbs.adapters.sql.schema import evidence, used_tokens
from kbs.audit.log import QueryFilter
from kbs.audit.merkle import NodeId
from kbs.broker.ports import Database, StoredEvidence
from kbs.core.errors import (
    ConflictError,
    IntegrityError,
    KbsError,
    MalformedError,
    UnavailableError,
)
from tests.fakes.databases import Place, pragma
from tests.fakes.postgres import PostgresServer, running_server

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)

# The uid of nobody on Debian; any that is not ours will do.
_NOBODY = 65534


def _sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("text of the driver")
    error.sqlite_errorname = name
    return error


def _use(database: Database, jti: str) -> None:
    with database.write() as transaction:
        transaction.tokens.use(jti, NOW)


def _read(database: Database) -> int:
    with database.read() as transaction:
        return transaction.log.head().size


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (_sqlite_error("SQLITE_BUSY"), UnavailableError, "database.locked"),
        (_sqlite_error("SQLITE_BUSY_SNAPSHOT"), UnavailableError, "database.locked"),
        (_sqlite_error("SQLITE_LOCKED"), UnavailableError, "database.locked"),
        (_sqlite_error("SQLITE_FULL"), UnavailableError, "database.full"),
        (_sqlite_error("SQLITE_READONLY"), UnavailableError, "database.read_only"),
        (
            _sqlite_error("SQLITE_READONLY_DBMOVED"),
            UnavailableError,
            "database.read_only",
        ),
        (_sqlite_error("SQLITE_CANTOPEN"), UnavailableError, "database.away"),
        (_sqlite_error("SQLITE_IOERR_WRITE"), UnavailableError, "database.disk"),
        (_sqlite_error("SQLITE_IOERR_FSYNC"), UnavailableError, "database.disk"),
        (_sqlite_error("SQLITE_CORRUPT"), IntegrityError, "integrity"),
        (_sqlite_error("SQLITE_CORRUPT_INDEX"), IntegrityError, "integrity"),
        (_sqlite_error("SQLITE_NOTADB"), IntegrityError, "integrity"),
        (sqlite3.OperationalError("Could not decode"), IntegrityError, "integrity"),
        (_sqlite_error("SQLITE_CONSTRAINT_UNIQUE"), ConflictError, "conflict"),
        (_sqlite_error("SQLITE_CONSTRAINT_PRIMARYKEY"), ConflictError, "conflict"),
        (
            _sqlite_error("SQLITE_CONSTRAINT_NOTNULL"),
            UnavailableError,
            "database.failed",
        ),
        (psycopg.errors.LockNotAvailable(), UnavailableError, "database.locked"),
        (psycopg.errors.DeadlockDetected(), UnavailableError, "database.locked"),
        (psycopg.errors.SerializationFailure(), UnavailableError, "database.locked"),
        (psycopg.errors.IoError(), UnavailableError, "database.disk"),
        (psycopg.errors.DiskFull(), UnavailableError, "database.full"),
        (
            psycopg.errors.ReadOnlySqlTransaction(),
            UnavailableError,
            "database.read_only",
        ),
        (
            psycopg.errors.FeatureNotSupported(),
            UnavailableError,
            "database.read_only",
        ),
        (psycopg.errors.AdminShutdown(), UnavailableError, "database.away"),
        (psycopg.errors.ConnectionFailure(), UnavailableError, "database.away"),
        (psycopg.OperationalError("refused"), UnavailableError, "database.away"),
        (psycopg.errors.UndefinedTable(), UnavailableError, "database.failed"),
        (psycopg.errors.DataCorrupted(), IntegrityError, "integrity"),
        (psycopg.errors.IndexCorrupted(), IntegrityError, "integrity"),
        (psycopg.errors.UniqueViolation(), ConflictError, "conflict"),
        (psycopg.errors.CheckViolation(), UnavailableError, "database.failed"),
    ],
    ids=lambda value: getattr(value, "sqlite_errorname", None) or str(value)[:24],
)
def test_what_a_drivers_error_means(
    raised: BaseException, kind: type[Exception], code: str
) -> None:
    found = fault(DBAPIError("SELECT 'sEcret'", {}, raised), "the row")
    assert type(found) is kind
    assert found.code == code
    assert str(found).startswith("the row: ")
    assert "sEcret" not in str(found)


def test_what_errors_of_the_layer_between_mean() -> None:
    assert fault(PoolTimeoutError()).code == "database.busy"
    assert fault(SQLAlchemyError()).code == "database.failed"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_no_column_holds(sqlite_place: Place, number: int) -> None:
    """PostgreSQL compares with any integer."""
    wanted = QueryFilter(after_index=number)
    with (
        closing(sqlite_place.connect()) as database,
        database.read() as transaction,
        pytest.raises(MalformedError),
    ):
        transaction.log.query(wanted)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_no_column_holds(database: SqlDatabase, text: str) -> None:
    with database.write() as transaction, pytest.raises(MalformedError):
        transaction.tokens.use(text, NOW)


def test_text_with_a_nul_is_stored_or_refused(database: SqlDatabase) -> None:
    def use() -> None:
        _use(database, "a\x00b")

    if database.engine.dialect.name == "sqlite":
        use()
        with pytest.raises(ConflictError):
            use()
    else:
        with pytest.raises(MalformedError):
            use()


def test_no_error_shows_values(database: SqlDatabase) -> None:
    """Values are hidden from the chain of causes, which ends up in the server's log."""
    planted = StoredEvidence(
        digest=b"d" * 32,
        sealed=b"sEcret",
        decision="d",
        created=NOW,
        expires=NOW + timedelta(days=1),
    )
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE evidence")
    with pytest.raises(UnavailableError) as caught, database.write() as transaction:
        transaction.evidence.insert(planted)
    chain: list[BaseException] = [caught.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert len(chain) > 1
    assert "sEcret" not in " ".join(str(error) for error in chain)
    with database.engine.begin() as connection:
        evidence.create(connection)


def test_a_lock_that_another_process_holds(place: Place) -> None:
    with (
        closing(place.connect()) as other,
        closing(place.connect(lock_seconds=0.2)) as database,
    ):
        with other.write(), pytest.raises(UnavailableError) as caught:
            _use(database, "jti")
        assert caught.value.code == "database.locked"
        assert _read(database) == 0
        _use(database, "jti")


def test_a_lock_that_this_process_holds(place: Place) -> None:
    with closing(place.connect(lock_seconds=0.2)) as database:
        with database.write(), pytest.raises(UnavailableError) as caught:
            _use(database, "jti")
        assert caught.value.code == "database.locked"
        _use(database, "jti")


def test_more_readers_than_connections(place: Place) -> None:
    def read(count: int) -> None:
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(database.read())

    with closing(place.connect(lock_seconds=0.1)) as database:
        read(16)
        with pytest.raises(UnavailableError) as caught:
            read(40)
        assert caught.value.code == "database.busy"
        read(16)


def test_a_full_disk_takes_nothing_and_loses_nothing(sqlite_place: Place) -> None:
    large = StoredEvidence(
        digest=b"d" * 32, sealed=bytes(10**6), decision="d", created=NOW, expires=NOW
    )

    def keep() -> None:
        with database.write() as transaction:
            transaction.tokens.use("second", NOW)
            transaction.evidence.insert(large)

    with closing(sqlite_place.connect()) as database:
        _use(database, "first")
        _limit_pages(database, 100)
        with pytest.raises(UnavailableError) as caught:
            keep()
        assert caught.value.code == "database.full"
        _use(database, "second")
        _limit_pages(database, 1_000_000)
        with pytest.raises(ConflictError):
            _use(database, "first")


def test_no_part_begins_anew_what_the_database_gave_up(sqlite_place: Place) -> None:
    def keep() -> None:
        with database.write() as transaction:
            transaction.tokens.use("lost", NOW)
            # As SQLite does by itself after some errors of the disk.
            transaction.cursor.run(Prepared(text("ROLLBACK")))
            with transaction.savepoint():
                transaction.tokens.use("later", NOW)

    with closing(sqlite_place.connect()) as database:
        with pytest.raises(UnavailableError) as caught:
            keep()
        assert caught.value.code == "database.failed"
        for jti in ("lost", "later"):
            _use(database, jti)


@pytest.mark.parametrize("error", [None, ConflictError("the part")])
def test_a_part_that_can_neither_be_kept_nor_taken_back_takes_all_with_it(
    database: SqlDatabase, error: ConflictError | None
) -> None:
    """Else half of it would be committed, without the entry that tells of it."""

    def keep_part(transaction: SqlTransaction) -> None:
        with transaction.savepoint():
            transaction.tokens.use("half", NOW)
            # Its savepoint is gone when the part ends.
            transaction.cursor.run(Prepared(text("RELEASE sa_savepoint_1")))
            if error is not None:
                raise error

    def keep() -> None:
        with database.write() as transaction:
            transaction.tokens.use("lost", NOW)
            with pytest.raises(KbsError):
                keep_part(transaction)

    with pytest.raises(UnavailableError) as caught:
        keep()
    assert caught.value.code == "database.failed"
    for jti in ("lost", "half"):
        _use(database, jti)


@pytest.mark.parametrize("jti", [None, "lost"])
def test_a_commit_that_fails_gives_the_lock_back(
    sqlite_place: Place, jti: str | None
) -> None:
    """SQLite leaves the transaction open when a constraint fails at the end of it."""

    def commit() -> None:
        with database.write() as transaction:
            if jti is not None:  # which goes the ordinary way, not the driver's
                transaction.tokens.use(jti, NOW)
            for text_of in (
                "PRAGMA defer_foreign_keys=ON",
                "INSERT INTO log_subjects VALUES (1, 'acme', 7, 0)",
            ):
                transaction.cursor.run(Prepared(text(text_of)))

    with closing(sqlite_place.connect(lock_seconds=0.2)) as database:
        with pytest.raises(UnavailableError) as caught:
            commit()
        assert caught.value.code == "database.failed"
        _use(database, "lost")


def test_a_rollback_that_fails_gives_the_lock_back(sqlite_place: Place) -> None:
    """Also while somebody keeps the error, from which the connection is known."""

    def refuse_rollback(action: int, word: str | None, *_: object) -> int:
        is_rollback = action == sqlite3.SQLITE_TRANSACTION and word == "ROLLBACK"
        return sqlite3.SQLITE_DENY if is_rollback else sqlite3.SQLITE_OK

    def fail() -> None:
        with database.write() as transaction:
            transaction.tokens.use("lost", NOW)
            driver = transaction.cursor._driver
            cast("sqlite3.Connection", driver).set_authorizer(refuse_rollback)
            raise ConflictError("the caller's")

    with closing(sqlite_place.connect(lock_seconds=0.2)) as database:
        with pytest.raises(ConflictError) as kept:
            fail()
        _use(database, "lost")
        assert kept.value.__traceback__ is not None


def test_a_commit_that_postgresql_answers_with_a_rollback(
    postgresql_place: Place,
) -> None:
    """It says so to nobody, where a statement failed before and none came after it."""

    def use_twice() -> None:
        with database.write() as transaction:
            transaction.tokens.use("one", NOW)
            with pytest.raises(ConflictError):
                transaction.tokens.use("one", NOW)

    with closing(postgresql_place.connect()) as database:
        with pytest.raises(UnavailableError) as caught:
            use_twice()
        assert caught.value.code == "database.failed"
        _use(database, "one")


@pytest.mark.parametrize("way", ["read", "write"])
def test_a_connection_in_use_closes_when_it_is_given_back(
    sqlite_place: Place, way: str
) -> None:
    database = sqlite_place.connect()
    with getattr(database, way)() as transaction:
        database.close()
        transaction.log.head()
    driver = cast("sqlite3.Connection", transaction.cursor._driver)
    with pytest.raises(sqlite3.ProgrammingError):
        driver.execute("SELECT 1")


def test_the_schema_is_not_read_while_another_process_writes(
    sqlite_place: Place,
) -> None:
    with (
        closing(sqlite_place.connect()) as other,
        closing(sqlite_place.connect(lock_seconds=0.1)) as database,
        other.write(),
        pytest.raises(UnavailableError) as caught,
    ):
        current_revision(database.engine)
    assert caught.value.code == "database.locked"


def test_a_row_that_cannot_be_stored_is_told_apart(database: SqlDatabase) -> None:
    naive = NOW.replace(tzinfo=None)
    rows = [{"jti": jti, "expires": naive} for jti in ("one", "two")]
    statement = Prepared(insert(used_tokens))
    with database.write() as transaction:
        with pytest.raises(MalformedError):
            transaction.cursor.run(statement, rows[0])
        with pytest.raises(MalformedError):
            transaction.cursor.run_each(statement, rows)


def test_several_rows_of_which_one_is_taken(database: SqlDatabase) -> None:
    rows = {NodeId(0, place): bytes(32) for place in range(3)}
    with database.write() as transaction:
        transaction.log.append_nodes(rows)

    def append() -> None:
        with database.write() as transaction:
            with pytest.raises(ConflictError):
                transaction.log.append_nodes({NodeId(1, 0): bytes(32), **rows})
            transaction.log.append_nodes({NodeId(2, 0): bytes(32), **rows})

    with pytest.raises(KbsError):
        append()
    with database.read() as transaction:
        assert transaction.log.read_nodes([NodeId(1, 0), NodeId(2, 0)]) == {}


def _limit_pages(database: SqlDatabase, pages: int) -> None:
    # SQLite says "full" when a file would grow beyond this many pages.
    pragma(database, f"max_page_count={pages}")


@pytest.fixture
def unprivileged(sqlite_template: Path) -> Iterator[Path]:
    """A migrated database in a folder of nobody's, seen by nobody (root may write)."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / DATABASE_NAME).write_bytes(sqlite_template.read_bytes())
        if is_root:
            os.chown(folder, _NOBODY, -1)
            os.chown(folder / DATABASE_NAME, _NOBODY, -1)
            os.seteuid(_NOBODY)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o700)


def test_a_folder_that_cannot_be_written(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    with closing(connect(None, data_dir=unprivileged)) as database:
        for action in (_read, lambda opened: _use(opened, "jti")):
            with pytest.raises(UnavailableError) as caught:
                action(database)
            assert caught.value.code in ("database.away", "database.read_only")


def test_a_file_that_cannot_be_written(unprivileged: Path) -> None:
    (unprivileged / DATABASE_NAME).chmod(0o400)
    with pytest.raises(UnavailableError, match="Permission denied"):
        connect(None, data_dir=unprivileged)


def test_a_file_that_may_not_be_made(unprivileged: Path) -> None:
    (unprivileged / DATABASE_NAME).unlink()
    unprivileged.chmod(0o500)
    with pytest.raises(UnavailableError, match="check owner and mode"):
        connect(None, data_dir=unprivileged)


@pytest.fixture(scope="module")
def own_server(postgresql_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that a test may stop; the common one only says that there may be any."""
    del postgresql_server
    with running_server() as server:
        yield server


@pytest.fixture
def stoppable(own_server: PostgresServer, tmp_path: Path) -> Iterator[SqlDatabase]:
    name = own_server.create_database()
    database = connect(own_server.url(name), data_dir=tmp_path)
    upgrade(database.engine)
    yield database
    database.close()


def _is_away(action: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        action()
    assert type(caught.value) is UnavailableError
    assert caught.value.code == "database.away"


def test_a_server_that_stops_and_comes_back(
    own_server: PostgresServer, stoppable: SqlDatabase
) -> None:
    _use(stoppable, "before")
    own_server.stop()
    _is_away(lambda: _use(stoppable, "meanwhile"))
    _is_away(lambda: _read(stoppable))
    own_server.start()
    assert _read(stoppable) == 0
    _use(stoppable, "meanwhile")
    with pytest.raises(ConflictError):
        _use(stoppable, "before")


def test_a_server_that_dies_in_the_middle_of_a_transaction(
    own_server: PostgresServer, stoppable: SqlDatabase
) -> None:
    _use(stoppable, "before")

    def die() -> None:
        with stoppable.write() as transaction:
            transaction.tokens.use("lost", NOW)
            own_server.kill()

    def die_before_a_prepared_statement() -> None:
        with stoppable.write() as transaction:
            own_server.kill()
            with pytest.raises(UnavailableError) as caught:
                transaction.governance.head()
            assert caught.value.code == "database.away"
            with pytest.raises(UnavailableError) as caught:
                transaction.governance.head()
            assert caught.value.code == "database.failed"
            raise UnavailableError("database", code="database.away")

    def die_in_a_savepoint() -> None:
        with stoppable.write() as transaction, transaction.savepoint():
            own_server.kill()
            transaction.tokens.use("lost", NOW)

    for action in (die, die_before_a_prepared_statement, die_in_a_savepoint):
        _is_away(action)
        own_server.start()
    _use(stoppable, "lost")
    with pytest.raises(ConflictError):
        _use(stoppable, "before")
