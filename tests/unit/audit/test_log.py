from __future__ import annotations

from datetime import timedelta

import pytest

from kbs.audit import merkle
from kbs.audit.entry import prepare
from kbs.audit.log import (
    CLOCK_TOLERANCE,
    LogHead,
    PreparedEntry,
    QueryFilter,
    StoredCheckpoint,
    append_batch,
)
from kbs.audit.proof import EMPTY_ROOT, leaf_hash, node_hash
from kbs.core.errors import ConflictError, IntegrityError, UnavailableError
from tests.fakes.logs import MemoryLog, When
from tests.unit.audit.samples import START, init, key_decision, release, small_log

ENTRY = prepare(init(), time=START)


def entry(seconds: int) -> PreparedEntry:
    return prepare(release(key_decision()), time=START + timedelta(seconds=seconds))


def test_a_batch_gets_places_in_order_and_moves_the_head() -> None:
    log = MemoryLog()
    batch = [entry(0), entry(2), entry(1)]
    with log.transaction() as transaction:
        done = append_batch(transaction, batch)
    assert [placed.index for placed in done.entries] == [0, 1, 2]
    assert [placed.id for placed in log.state.entries] == [item.id for item in batch]
    assert log.state.head == LogHead(3, START + timedelta(seconds=2))
    with log.transaction() as transaction:
        assert merkle.root(transaction, 3) == done.root
        found = transaction.find_entry(batch[1].id)
        assert found == batch[1].at(1)
        assert transaction.find_entry("00" * 16) is None
        proof = merkle.inclusion_proof(transaction, 1, 3)
    merkle_leaf = leaf_hash(batch[1].leaf)
    assert node_hash(node_hash(proof[0], merkle_leaf), proof[1]) == done.root


def test_an_empty_batch_changes_nothing() -> None:
    log = MemoryLog()
    with log.transaction() as transaction:
        done = append_batch(transaction, [])
    assert (done.size, done.root, done.entries) == (0, EMPTY_ROOT, ())
    assert log.state.head == LogHead(0, None)


def test_a_clock_more_than_60_s_behind_refuses_the_whole_batch() -> None:
    log = MemoryLog()
    with log.transaction() as transaction:
        append_batch(transaction, [entry(100)])
    with log.transaction() as transaction:
        append_batch(transaction, [entry(100 - 60)])
    with (
        pytest.raises(UnavailableError) as caught,
        log.transaction() as transaction,
    ):
        append_batch(transaction, [entry(101), entry(101 - 61)])
    assert caught.value.code == "clock.behind"
    assert timedelta(seconds=60) == CLOCK_TOLERANCE
    assert log.state.head == LogHead(2, START + timedelta(seconds=100))
    assert len(log.state.entries) == 2


@pytest.mark.parametrize(
    "operation",
    ["lock_head", "read_nodes", "append_nodes", "append_entries", "store_checkpoint"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_in_the_middle_leaves_the_log_as_it_was(
    operation: str, when: When
) -> None:
    built = small_log()
    before = (list(built.log.state.entries), dict(built.log.state.nodes), built.note)
    built.log.fail(operation, when=when)
    with pytest.raises(UnavailableError, match=operation):
        built.append(release())
    assert (built.log.state.entries, built.log.state.nodes) == before[:2]
    with built.log.transaction() as transaction:
        latest = transaction.latest_checkpoint()
    assert latest == StoredCheckpoint(6, before[2])
    built.append(release())
    assert built.log.state.head.size == 7


def test_a_commit_that_fails_afterwards_took_effect() -> None:
    built = small_log()
    built.log.fail("commit", when="before")
    with pytest.raises(UnavailableError):
        built.append(release())
    assert built.log.state.head.size == 6
    built.log.fail("commit", when="after", error=OSError("connection lost"))
    with pytest.raises(OSError, match="lost"):
        built.append(release())
    assert built.log.state.head.size == 7


def test_a_damaged_tree_takes_no_entry() -> None:
    built = small_log()
    built.log.state.nodes[merkle.NodeId(2, 0)] = b""
    with pytest.raises(IntegrityError):
        built.append(release())


def test_an_entry_cannot_be_appended_twice() -> None:
    log = MemoryLog()
    with pytest.raises(ConflictError), log.transaction() as transaction:
        append_batch(transaction, [ENTRY, ENTRY])
    with log.transaction() as transaction:
        append_batch(transaction, [ENTRY])
        with pytest.raises(ConflictError):
            transaction.append_nodes({merkle.NodeId(0, 0): bytes(32)})
    with log.transaction() as transaction:
        assert transaction.head() == LogHead(1, START)
        assert transaction.lock_head() == LogHead(1, START)


def test_a_log_without_checkpoint_has_none() -> None:
    with MemoryLog().transaction() as transaction:
        assert transaction.latest_checkpoint() is None


def test_the_first_checkpoint_over_an_entry_is_found() -> None:
    built = small_log()
    with built.log.transaction() as transaction:
        found = [transaction.checkpoint_covering(index) for index in range(7)]
    assert [None if item is None else item.size for item in found] == [
        *(1, 3, 3, 6, 6, 6),
        None,
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (QueryFilter(), [0, 1, 2, 3, 4, 5]),
        (QueryFilter(limit=2), [0, 1]),
        (QueryFilter(limit=2, newest=True), [4, 5]),
        (QueryFilter(after_index=3), [4, 5]),
        (QueryFilter(before_index=2), [0, 1]),
        (QueryFilter(key="acme/model/llama"), [2]),
        (QueryFilter(key="acme/model/other"), []),
        (QueryFilter(tenants=("beta",)), [3, 5]),
        (QueryFilter(tenants=("acme", "beta")), [1, 2, 3, 4, 5]),
        (QueryFilter(tenants=()), []),
        (QueryFilter(decision="de" * 16), [2, 3, 5]),
        (QueryFilter(kinds=("statement", "release.granted")), [1, 2, 4]),
        (QueryFilter(policy="acme/chat"), [1, 2, 4]),
        (QueryFilter(since=START + timedelta(seconds=4)), [4, 5]),
        (QueryFilter(until=START + timedelta(seconds=1)), [0]),
    ],
)
def test_a_query_finds_what_every_member_of_the_filter_allows(
    wanted: QueryFilter, found: list[int]
) -> None:
    built = small_log()
    with built.log.transaction() as transaction:
        assert [entry.index for entry in transaction.query(wanted)] == found
