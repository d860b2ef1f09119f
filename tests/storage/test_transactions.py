"""Transactions: whole snapshots, one writer, savepoints, nothing left half done."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.audit import merkle, proof
from kbs.audit.log import append_batch
from kbs.broker.ports import Database, StoredStatement, Transaction
from kbs.core.errors import ConflictError, UnavailableError
from tests.fakes.databases import FailingDatabase, Place
from tests.storage.writer import prepare

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)


def _append_statement(database: Database, seq: int) -> None:
    with database.write() as transaction:
        transaction.governance.append(StoredStatement(seq, b"{}", NOW))


def _head(database: Database) -> int:
    with database.read() as transaction:
        return transaction.governance.head()


def _use_in_a_savepoint(transaction: Transaction, *tokens: str) -> None:
    with transaction.savepoint():
        for token in tokens:
            transaction.tokens.use(token, NOW)


def test_a_savepoint_takes_only_its_part_back(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.tokens.use("kept", NOW)
        with pytest.raises(ConflictError):
            _use_in_a_savepoint(transaction, "lost", "kept")
        _use_in_a_savepoint(transaction, "later")
    with database.write() as transaction:
        _use_in_a_savepoint(transaction, "lost")
        for token in ("kept", "later", "lost"):
            with pytest.raises(ConflictError):
                _use_in_a_savepoint(transaction, token)


def test_savepoints_nest(database: SqlDatabase) -> None:
    def outer() -> None:
        with transaction.savepoint():
            transaction.tokens.use("outer", NOW)
            _use_in_a_savepoint(transaction, "inner")
            raise ConflictError("the outer part")

    with database.write() as transaction:
        with pytest.raises(ConflictError):
            outer()
        _use_in_a_savepoint(transaction, "outer", "inner")


def test_an_error_rolls_everything_back(database: SqlDatabase) -> None:
    def fail() -> None:
        with database.write() as transaction:
            transaction.tokens.use("jti", NOW)
            append_batch(transaction.log, [prepare("a", 1)])
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        fail()
    with database.write() as transaction:
        transaction.tokens.use("jti", NOW)
        assert transaction.log.lock_head().size == 0


def test_an_error_of_the_caller_is_not_the_databases(database: SqlDatabase) -> None:
    def fail() -> None:
        with database.write():
            "\ud800".encode()

    with pytest.raises(UnicodeEncodeError):
        fail()


def test_a_reader_sees_one_state_whole(database: SqlDatabase) -> None:
    _append_statement(database, 1)
    with database.read() as reader:
        assert reader.governance.head() == 1
        _append_statement(database, 2)
        assert reader.governance.head() == 1
        assert len(reader.governance.statements()) == 1
        assert _head(database) == 2
    assert _head(database) == 2


def test_a_reader_does_not_see_what_is_not_committed(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.governance.append(StoredStatement(1, b"{}", NOW))
        assert transaction.governance.head() == 1
        assert _head(database) == 0


def test_a_reader_cannot_write(database: SqlDatabase) -> None:
    with database.read() as transaction, pytest.raises(UnavailableError) as caught:
        transaction.tokens.use("jti", NOW)
    assert caught.value.code == "database.read_only"
    with database.write() as transaction:
        transaction.tokens.use("jti", NOW)


def test_what_a_writer_read_stays_true(place: Place) -> None:
    """Two processes read the head, and the second one waits to do so."""
    entered, proceed, order = threading.Event(), threading.Event(), []

    def write(database: SqlDatabase, name: str) -> None:
        with database.write() as transaction:
            seq = transaction.governance.head() + 1
            order.append(f"{name} reads {seq}")
            if name == "first":
                entered.set()
                assert proceed.wait(10)
            transaction.governance.append(StoredStatement(seq, b"{}", NOW))

    with (
        closing(place.connect()) as one,
        closing(place.connect()) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(write, one, "first")
        assert entered.wait(10)
        second = pool.submit(write, other, "second")
        # The second one cannot get in; what is awaited here must not happen.
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)
        proceed.set()
        first.result()
        second.result()
        assert order == ["first reads 1", "second reads 2"]


def test_threads_take_turns(database: SqlDatabase) -> None:
    def write(name: str) -> None:
        for number in range(10):
            with database.write() as transaction:
                append_batch(transaction.log, [prepare(name, number)])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, name) for name in "abcd"]:
            done.result()
    _check_log(database, 40)


def test_processes_take_turns(place: Place) -> None:
    arguments = [sys.executable, "-m", "tests.storage.writer"]
    running = [
        subprocess.Popen(
            [*arguments, name, "15", str(place.folder), place.url or ""],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with closing(place.connect()) as database:
        _check_log(database, 30)


def _check_log(database: SqlDatabase, size: int) -> None:
    """Every entry is there, and the tree over them is the tree of these leaves."""
    with database.read() as transaction:
        log = transaction.log
        entries = log.read_entries(0, size + 1)
        assert [entry.index for entry in entries] == list(range(size))
        assert log.head().size == size
        again = merkle.append(log, 0, [proof.leaf_hash(e.leaf) for e in entries])
        assert merkle.root(log, size) == again.root


def test_a_failure_before_the_commit_leaves_nothing(database: SqlDatabase) -> None:
    failing = FailingDatabase(database, fail_before=1)
    with pytest.raises(UnavailableError):
        _append_statement(failing, 1)
    assert _head(failing) == 0
    _append_statement(failing, 1)
    assert (_head(failing), failing.commits) == (1, 1)


def test_a_failure_after_the_commit_leaves_everything(database: SqlDatabase) -> None:
    failing = FailingDatabase(database, fail_after=1, fail_reads=1)
    with pytest.raises(UnavailableError):
        _append_statement(failing, 1)
    with pytest.raises(UnavailableError):
        _head(failing)
    assert (_head(failing), failing.commits) == (1, 1)


def test_as_many_threads_as_were_named_may_each_look_twice(place: Place) -> None:
    threads = 20
    with (
        closing(place.connect(lock_seconds=0.2, threads=threads)) as database,
        ExitStack() as held,
    ):
        for _ in range(2 * threads):
            transaction = held.enter_context(database.read())
            assert transaction.governance.head() == 0
