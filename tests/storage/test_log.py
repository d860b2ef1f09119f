"""The audit log's tables: batches, proofs read back, queries, checkpoints."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.adapters.sql.query import select_entries
from kbs.audit import merkle, proof
from kbs.audit.log import (
    LogEntry,
    LogHead,
    PreparedEntry,
    QueryFilter,
    StoredCheckpoint,
    append_batch,
)
from kbs.audit.merkle import NodeId
from kbs.broker.ports import Database
from kbs.core.errors import ConflictError, IntegrityError, UnavailableError
from tests.fakes.databases import Place

# The largest size that any tile or proof can name.
_LARGEST = 2**63 - 1

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)


def _entry(number: int, **changes: Any) -> PreparedEntry:
    entry = PreparedEntry(
        id=f"{number:032x}",
        time=NOW + timedelta(seconds=number),
        kind="release",
        leaf=b'{"leaf":%d}' % number,
        body=b'{"body":%d}' % number,
        salt=bytes([number % 256]) * 16,
        tenants=("acme",),
        keys=("acme/model/chat",),
        policies=("chat-inference",),
        decision="granted",
    )
    return replace(entry, **changes)


def _append(database: Database, *entries: PreparedEntry) -> tuple[LogEntry, ...]:
    with database.write() as transaction:
        return append_batch(transaction.log, entries).entries


def test_an_empty_log_has_an_empty_head(database: SqlDatabase) -> None:
    with database.read() as transaction:
        assert transaction.log.head() == LogHead(0, None)
        assert transaction.log.read_entries(0, 10) == []
        assert transaction.log.latest_checkpoint() is None
        assert transaction.log.checkpoint_covering(0) is None
        assert transaction.log.find_entry("00" * 16) is None
        assert transaction.log.read_nodes([NodeId(0, 0)]) == {}
        assert transaction.log.query(QueryFilter()) == []


def test_entries_come_back_as_they_went_in(database: SqlDatabase) -> None:
    bare = _entry(3, tenants=(), keys=(), policies=(), decision=None)
    many = _entry(
        4,
        tenants=("zeta", "acme"),
        keys=("zeta/b/c", "acme/a/b"),
        policies=("q", "p"),
    )
    stored = _append(database, _entry(1), _entry(2)) + _append(database, bare, many)
    with database.read() as transaction:
        assert transaction.log.read_entries(0, 10) == list(stored)
        assert transaction.log.read_entries(1, 3) == list(stored[1:3])
        assert transaction.log.find_entry(many.id) == many.at(3)
        assert transaction.log.head() == LogHead(4, many.time)


def test_the_same_name_twice_in_an_entry_counts_once(database: SqlDatabase) -> None:
    _append(database, _entry(1, keys=("a/b/c", "a/b/c")))
    with database.read() as transaction:
        found = transaction.log.query(QueryFilter(key="a/b/c"))
    assert [entry.keys for entry in found] == [("a/b/c",)]


def test_proofs_are_read_back_from_the_stored_nodes(database: SqlDatabase) -> None:
    sizes = []
    for start, stop in ((0, 1), (1, 8), (8, 40), (40, 41)):
        batch = [_entry(number) for number in range(start, stop)]
        with database.write() as transaction:
            grown = append_batch(transaction.log, batch)
        sizes.append((grown.size, grown.root))
    with database.read() as transaction:
        log = transaction.log
        size, root = sizes[-1]
        assert merkle.root(log, size) == root
        for entry in log.read_entries(0, size):
            proof.verify_inclusion(
                proof.leaf_hash(entry.leaf),
                index=entry.index,
                size=size,
                proof=merkle.inclusion_proof(log, entry.index, size),
                root=root,
            )
        for first, first_root in sizes:
            proof.verify_consistency(
                first=first,
                first_root=first_root,
                second=size,
                second_root=root,
                proof=merkle.consistency_proof(log, first, size),
            )


def test_more_nodes_than_one_statement_carries(database: SqlDatabase) -> None:
    nodes = {NodeId(0, place): place.to_bytes(32, "big") for place in range(1200)}
    with database.write() as transaction:
        transaction.log.append_nodes(nodes)
        assert transaction.log.read_nodes([*nodes, NodeId(1, 0)]) == nodes


def test_the_largest_tree_fits(database: SqlDatabase) -> None:
    node = NodeId(0, _LARGEST - 1)
    with database.write() as transaction:
        transaction.log.append_nodes({node: b"x" * 32})
        transaction.log.append_entries([], LogHead(_LARGEST, NOW))
    with database.read() as transaction:
        assert transaction.log.read_nodes([node]) == {node: b"x" * 32}
        assert transaction.log.head() == LogHead(_LARGEST, NOW)


@pytest.mark.parametrize(
    "changes", [{"id": "ff" * 16}, {"index": 1}], ids=["index taken", "id taken"]
)
def test_an_entry_in_the_log_stays(
    database: SqlDatabase, changes: dict[str, Any]
) -> None:
    (first,) = _append(database, _entry(1))
    with pytest.raises(ConflictError), database.write() as transaction:
        transaction.log.append_entries([replace(first, **changes)], LogHead(2, NOW))
    with database.read() as transaction:
        assert transaction.log.read_entries(0, 9) == [first]
        assert transaction.log.head() == LogHead(1, first.time)


def test_a_node_of_the_tree_stays(database: SqlDatabase) -> None:
    (first,) = _append(database, _entry(1))
    node = NodeId(0, 0)
    with pytest.raises(ConflictError), database.write() as transaction:
        transaction.log.append_nodes({node: b"y" * 32})
    with database.read() as transaction:
        found = transaction.log.read_nodes([node])
    assert found == {node: proof.leaf_hash(first.leaf)}


def test_a_clock_behind_the_log_refuses(database: SqlDatabase) -> None:
    _append(database, _entry(1000))
    with pytest.raises(UnavailableError) as caught:
        _append(database, _entry(1))
    assert caught.value.code == "clock.behind"


def test_several_batches_in_one_transaction_follow_each_other(
    database: SqlDatabase,
) -> None:
    with database.write() as transaction:
        append_batch(transaction.log, [_entry(1)])
        append_batch(transaction.log, [_entry(2)])
    with database.read() as transaction:
        assert [entry.id for entry in transaction.log.read_entries(0, 9)] == [
            _entry(1).id,
            _entry(2).id,
        ]


def test_a_batch_that_a_savepoint_took_back_leaves_no_gap(
    database: SqlDatabase,
) -> None:
    def append_in_a_savepoint() -> None:
        with transaction.savepoint():
            append_batch(transaction.log, [_entry(2)])
            raise ConflictError("the release")

    with database.write() as transaction:
        append_batch(transaction.log, [_entry(1)])
        with pytest.raises(ConflictError):
            append_in_a_savepoint()
        assert transaction.log.lock_head() == LogHead(1, _entry(1).time)
        append_batch(transaction.log, [_entry(3)])
    with database.read() as transaction:
        ids = [entry.id for entry in transaction.log.read_entries(0, 9)]
        assert ids == [_entry(1).id, _entry(3).id]
        merkle.root(transaction.log, 2)


def test_a_log_without_its_head_is_damaged(database: SqlDatabase) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM log_head")
    with database.read() as transaction, pytest.raises(IntegrityError):
        transaction.log.head()
    with pytest.raises(IntegrityError), database.write():
        pytest.fail("a write began without a head")


def test_checkpoints(database: SqlDatabase) -> None:
    with database.write() as transaction:
        for size, note in ((3, b"three"), (8, b"old"), (8, b"eight"), (5, b"five")):
            transaction.log.store_checkpoint(StoredCheckpoint(size, note))
    with database.read() as transaction:
        log = transaction.log
        assert log.latest_checkpoint() == StoredCheckpoint(8, b"eight")
        covering = {index: log.checkpoint_covering(index) for index in (0, 3, 5, 7, 8)}
    assert {index: found and found.note for index, found in covering.items()} == {
        0: b"three",
        3: b"five",
        5: b"eight",
        7: b"eight",
        8: None,
    }


# Entry: (tenants, keys, policies, kind, decision); times are one second apart.
_LOG = (
    (("acme",), ("acme/model/a",), ("p",), "release", "granted"),
    (("zeta",), ("zeta/model/b",), ("q",), "release", "denied"),
    (
        ("acme", "zeta"),
        ("acme/model/a", "zeta/model/b"),
        ("p", "q"),
        "release",
        "denied",
    ),
    (("acme",), ("acme/model/a",), (), "key", None),
    ((), (), (), "refusals", None),
    (("acme",), ("acme/model/c",), ("p",), "release", "granted"),
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (QueryFilter(), [0, 1, 2, 3, 4, 5]),
        (QueryFilter(limit=2), [0, 1]),
        (QueryFilter(limit=2, newest=True), [4, 5]),
        (QueryFilter(limit=0), []),
        (QueryFilter(key="acme/model/a"), [0, 2, 3]),
        (QueryFilter(key="acme/model/a", newest=True, limit=2), [2, 3]),
        (QueryFilter(key="acme/model/a", policy="q"), [2]),
        (QueryFilter(key="acme/model/a", tenants=("zeta",)), [2]),
        (QueryFilter(key="acme/model/a", tenants=("zeta", "beta")), [2]),
        (QueryFilter(key="acme/model"), []),
        (QueryFilter(key="acme/model/%"), []),
        (QueryFilter(policy="p"), [0, 2, 5]),
        (QueryFilter(policy="p", tenants=("zeta",)), [2]),
        (QueryFilter(tenants=()), []),
        (QueryFilter(tenants=("zeta",)), [1, 2]),
        (QueryFilter(tenants=("acme", "zeta")), [0, 1, 2, 3, 5]),
        (QueryFilter(tenants=("acme", "zeta"), newest=True, limit=2), [3, 5]),
        (QueryFilter(decision="denied"), [1, 2]),
        (QueryFilter(kinds=("key", "refusals")), [3, 4]),
        (QueryFilter(kinds=()), []),
        (QueryFilter(since=NOW + timedelta(seconds=2)), [2, 3, 4, 5]),
        (QueryFilter(until=NOW + timedelta(seconds=2)), [0, 1]),
        (QueryFilter(after_index=1, before_index=4), [2, 3]),
        (QueryFilter(key="acme/model/a", after_index=0, before_index=3), [2]),
        (
            QueryFilter(
                tenants=("acme",),
                policy="p",
                kinds=("release",),
                decision="granted",
                since=NOW + timedelta(seconds=1),
                until=NOW + timedelta(seconds=9),
            ),
            [5],
        ),
    ],
)
def test_a_query_gives_what_matches_in_order(
    database: SqlDatabase, wanted: QueryFilter, expected: list[int]
) -> None:
    _append(
        database,
        *(
            _entry(
                number,
                tenants=tenants,
                keys=keys,
                policies=policies,
                kind=kind,
                decision=decision,
            )
            for number, (tenants, keys, policies, kind, decision) in enumerate(_LOG)
        ),
    )
    with database.read() as transaction:
        found = transaction.log.query(wanted)
    assert [entry.index for entry in found] == expected


def test_a_query_by_key_walks_its_own_index(sqlite_place: Place) -> None:
    """It reads as many rows as it returns, whatever the size of the log.

    Not on PostgreSQL, which plans by statistics, and a small table has none.
    """
    statement = select_entries(QueryFilter(key="k", newest=True, limit=5))
    database = sqlite_place.connect()
    with closing(database), database.engine.connect() as connection:
        text = str(
            statement.compile(connection, compile_kwargs={"literal_binds": True})
        )
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + text).fetchall()
    steps = [row[-1] for row in plan]
    assert any("PRIMARY KEY (role=? AND name=?)" in step for step in steps)
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps)
