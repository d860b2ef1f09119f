"""The audit log's tables, as `kbs.audit.log.LogStore` wants them.

An append is six statements at most, whatever the size of the batch: head, nodes read,
nodes, entries, subjects, head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import final

from sqlalchemy import and_, bindparam, insert, or_, select, update

from kbs.adapters.sql.cursor import PIECE, Cursor, pieces, upserts
from kbs.adapters.sql.prepared import Prepared, Row
from kbs.adapters.sql.query import select_entries
from kbs.adapters.sql.schema import (
    ROLE_KEY,
    ROLE_POLICY,
    ROLE_TENANT,
    log_checkpoints,
    log_entries,
    log_head,
    log_nodes,
    log_subjects,
)
from kbs.audit.log import LogEntry, LogHead, QueryFilter, StoredCheckpoint
from kbs.audit.merkle import NodeId
from kbs.core.errors import IntegrityError

_ENTRY = log_entries.c
_SUBJECT = log_subjects.c

_SELECT_HEAD = select(log_head.c.size, log_head.c.time)
_HEAD = Prepared(_SELECT_HEAD)
_LOCK_HEAD = Prepared(_SELECT_HEAD.with_for_update())
_MOVE_HEAD = Prepared(update(log_head), ("size", "time"))
_ADD_ENTRIES = Prepared(insert(log_entries))
_ADD_SUBJECTS = Prepared(insert(log_subjects))
_ADD_NODES = Prepared(insert(log_nodes))
_RANGE = (
    select(log_entries)
    .where(
        _ENTRY.leaf_index >= bindparam("start"), _ENTRY.leaf_index < bindparam("stop")
    )
    .order_by(_ENTRY.leaf_index)
)
_BY_ID = select(log_entries).where(_ENTRY.id == bindparam("entry_id"))
_SUBJECTS = (
    select(_SUBJECT.leaf_index, _SUBJECT.role, _SUBJECT.name)
    .where(_SUBJECT.leaf_index.in_(bindparam("indexes", expanding=True)))
    .order_by(_SUBJECT.leaf_index, _SUBJECT.role, _SUBJECT.place)
)
_LEAF_AND_ROLE = itemgetter("leaf_index", "role")
_LATEST = select(log_checkpoints).order_by(log_checkpoints.c.size.desc()).limit(1)
_KEEP_CHECKPOINT = upserts(
    log_checkpoints,
    lambda statement: statement.on_conflict_do_update(
        index_elements=["size"], set_={"note": statement.excluded.note}
    ),
)
_COVERING = Prepared(
    select(log_checkpoints)
    .where(log_checkpoints.c.size > bindparam("at"))
    .order_by(log_checkpoints.c.size)
    .limit(1)
)


@lru_cache(PIECE)
def _nodes(count: int) -> Prepared:
    """Return the query for this many nodes: level0, position0, level1 and so on."""
    node = log_nodes.c
    wanted = (
        and_(
            node.level == bindparam(f"level{place}"),
            node.position == bindparam(f"position{place}"),
        )
        for place in range(count)
    )
    return Prepared(select(log_nodes).where(or_(*wanted)))


@final
class SqlLogStore:
    """The audit log inside one transaction."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor
        self._locked: LogHead | None = None

    def head(self) -> LogHead:
        """Return the head without locking it.

        Raises:
            IntegrityError: the row is gone.
        """
        return self._head(_HEAD)

    def lock_head(self) -> LogHead:
        """Return the head and hold it until the transaction ends.

        Raises:
            IntegrityError: the row is gone.
            UnavailableError: another transaction holds it for too long.
        """
        if self._locked is None:
            self._locked = self._head(_LOCK_HEAD)
        return self._locked

    def forget_head(self) -> None:
        """Read the locked head anew the next time: a savepoint took appends back."""
        self._locked = None

    def append_entries(self, entries: Sequence[LogEntry], head: LogHead) -> None:
        """Store entries and the head that they lead to.

        Raises:
            ConflictError: an index or id is taken.
        """
        self._cursor.run_each(
            _ADD_ENTRIES, [_row(entry) for entry in entries], what="entry"
        )
        self._cursor.run_each(
            _ADD_SUBJECTS,
            [subject for entry in entries for subject in _subjects(entry)],
            what="entry",
        )
        self._cursor.run(_MOVE_HEAD, {"size": head.size, "time": head.time})
        self._locked = head

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        """Return the hashes of those nodes that are stored."""
        return {
            NodeId(row["level"], row["position"]): row["hash"]
            for piece in pieces(ids)
            for row in self._cursor.all(_nodes(len(piece)), _named(piece))
        }

    def append_nodes(self, nodes: Mapping[NodeId, bytes]) -> None:
        """Store new nodes of the tree.

        Raises:
            ConflictError: a node exists already.
        """
        self._cursor.run_each(
            _ADD_NODES,
            [
                {"level": node.level, "position": node.position, "hash": value}
                for node, value in nodes.items()
            ],
            what="log tree node",
        )

    def read_entries(self, start: int, stop: int) -> Sequence[LogEntry]:
        """Return the entries start … stop-1 in order, fewer where the log ends."""
        return self._whole(self._cursor.all(_RANGE, {"start": start, "stop": stop}))

    def find_entry(self, entry_id: str) -> LogEntry | None:
        """Return the entry with this id, if there is one."""
        found = self._whole(self._cursor.all(_BY_ID, {"entry_id": entry_id}))
        return found[0] if found else None

    def query(self, wanted: QueryFilter) -> Sequence[LogEntry]:
        """Return the entries that match, in ascending order of their index."""
        if wanted.limit <= 0 or wanted.tenants == () or wanted.kinds == ():
            return ()
        found = self._whole(self._cursor.all(select_entries(wanted)))
        return found[::-1] if wanted.newest else found

    def latest_checkpoint(self) -> StoredCheckpoint | None:
        """Return the stored checkpoint of the largest size, if there is one."""
        row = self._cursor.first(_LATEST)
        return None if row is None else StoredCheckpoint(**row)

    def checkpoint_covering(self, index: int) -> StoredCheckpoint | None:
        """Return the smallest stored checkpoint over the entry at `index`."""
        row = self._cursor.first(_COVERING, {"at": index})
        return None if row is None else StoredCheckpoint(**row)

    def store_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Keep a checkpoint; one of the same size replaces the one before."""
        self._cursor.run(
            _KEEP_CHECKPOINT,
            {"size": checkpoint.size, "note": checkpoint.note},
        )

    def _head(self, statement: Prepared) -> LogHead:
        row = self._cursor.first(statement)
        if row is None:
            raise IntegrityError(
                "log head",
                got="no row",
                expected="one",
                hint="the database was damaged; restore a backup",
            )
        return LogHead(**row)

    def _whole(self, rows: Sequence[Row]) -> list[LogEntry]:
        """Join entries with their subjects."""
        names: dict[int, dict[int, tuple[str, ...]]] = {}
        for piece in pieces([row["leaf_index"] for row in rows]):
            found = self._cursor.all(_SUBJECTS, {"indexes": list(piece)})
            for (index, role), group in groupby(found, _LEAF_AND_ROLE):
                names.setdefault(index, {})[role] = tuple(row["name"] for row in group)
        return [_entry(row, names.get(row["leaf_index"], {})) for row in rows]


def _named(nodes: Sequence[NodeId]) -> dict[str, object]:
    named: dict[str, object] = {}
    for place, node in enumerate(nodes):
        named[f"level{place}"], named[f"position{place}"] = node
    return named


def _row(entry: LogEntry) -> dict[str, object]:
    return {
        "leaf_index": entry.index,
        "id": entry.id,
        "time": entry.time,
        "kind": entry.kind,
        "decision": entry.decision,
        "leaf": entry.leaf,
        "body": entry.body,
        "salt": entry.salt,
    }


def _subjects(entry: LogEntry) -> Iterator[dict[str, object]]:
    named = {
        ROLE_TENANT: entry.tenants,
        ROLE_KEY: entry.keys,
        ROLE_POLICY: entry.policies,
    }
    for role, names in named.items():
        for place, name in enumerate(dict.fromkeys(names)):
            yield {
                "role": role,
                "name": name,
                "leaf_index": entry.index,
                "place": place,
            }


def _entry(row: Row, names: Mapping[int, tuple[str, ...]]) -> LogEntry:
    values = dict(row)
    return LogEntry(
        index=values.pop("leaf_index"),
        tenants=names.get(ROLE_TENANT, ()),
        keys=names.get(ROLE_KEY, ()),
        policies=names.get(ROLE_POLICY, ()),
        **values,
    )
