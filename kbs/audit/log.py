"""The protocol that a database transaction implements for the audit log.

One `LogStore` stands for one transaction: everything below happens in it, and nothing
is durable before it commits. Appends are serialised by `lock_head`; `append_batch` is
the only way that entries get in, so tree, entries and head always move together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from kbs.audit import merkle
from kbs.audit.merkle import NodeId, NodeStore
from kbs.audit.proof import leaf_hash
from kbs.core.clock import format_time
from kbs.core.errors import UnavailableError

# decisions.md, section 4: a clock more than 60 s behind the last entry refuses.
CLOCK_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEntry:
    """An entry that has no place in the log yet (`kbs.audit.entry.prepare` makes it).

    `leaf` and `body` are canonical JSON, `salt` the 16 bytes that the leaf's digest of
    the body was made with. `tenants`, `keys` (key ids without version), `policies`
    (names) and `decision` repeat what the body says, for queries.
    """

    id: str
    time: datetime
    kind: str
    leaf: bytes
    body: bytes
    salt: bytes
    tenants: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    decision: str | None = None

    def at(self, index: int) -> LogEntry:
        """Return the entry as leaf number `index` of the log."""
        return LogEntry(
            index=index,
            id=self.id,
            time=self.time,
            kind=self.kind,
            leaf=self.leaf,
            body=self.body,
            salt=self.salt,
            tenants=self.tenants,
            keys=self.keys,
            policies=self.policies,
            decision=self.decision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(PreparedEntry):
    """One entry of the log; `index` counts from 0 without gaps."""

    index: int


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log goes: its size, and the latest time of any entry in it."""

    size: int
    time: datetime | None


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed note over the tree of `size` leaves."""

    size: int
    note: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFilter:
    """Which entries to list; every member that is set must hold.

    `key` is a key id without version; an entry matches when it names it. `tenants`:
    the entry concerns at least one of them (the empty tuple: none allowed, nothing
    matches; None: no such limit). `kinds`: one of them. `policy` is a name. `since` is
    inclusive, `until` exclusive. Indexes are exclusive bounds. At most `limit` entries,
    the first ones, or with `newest` the last ones; always in ascending order.
    """

    key: str | None = None
    tenants: tuple[str, ...] | None = None
    decision: str | None = None
    kinds: tuple[str, ...] | None = None
    policy: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after_index: int | None = None
    before_index: int | None = None
    newest: bool = False
    limit: int = 100


class LogStore(NodeStore, Protocol):
    """The audit log inside one transaction."""

    def head(self) -> LogHead:
        """Return the head without locking it; an empty log is `LogHead(0, None)`."""
        ...

    def lock_head(self) -> LogHead:
        """Return the head and hold it: no other transaction appends until this ends."""
        ...

    def append_entries(self, entries: Sequence[LogEntry], head: LogHead) -> None:
        """Store entries and the head that they lead to.

        Raises:
            ConflictError: an index or id is taken.
        """
        ...

    def append_nodes(self, nodes: Mapping[NodeId, bytes]) -> None:
        """Store new nodes of the tree; a node once written never changes.

        Raises:
            ConflictError: a node exists already.
        """
        ...

    def read_entries(self, start: int, stop: int) -> Sequence[LogEntry]:
        """Return the entries start … stop-1 in order, fewer where the log ends."""
        ...

    def find_entry(self, entry_id: str) -> LogEntry | None:
        """Return the entry with this id, if there is one."""
        ...

    def query(self, wanted: QueryFilter) -> Sequence[LogEntry]:
        """Return the entries that match, in ascending order of their index."""
        ...

    def latest_checkpoint(self) -> StoredCheckpoint | None:
        """Return the stored checkpoint of the largest size, if there is one."""
        ...

    def checkpoint_covering(self, index: int) -> StoredCheckpoint | None:
        """Return the smallest stored checkpoint over the entry at `index`."""
        ...

    def store_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Keep a checkpoint; one of the same size replaces the one before."""
        ...


@dataclass(frozen=True, slots=True)
class Appended:
    """The log after a batch: its size and root, and the entries with their places.

    `before` is the root of the tree that the batch was appended to, as it was stored;
    `nodes` are those that were read for it or are new.
    """

    size: int
    root: bytes
    entries: tuple[LogEntry, ...]
    before: bytes
    nodes: Mapping[NodeId, bytes]


def append_batch(store: LogStore, prepared: Sequence[PreparedEntry]) -> Appended:
    """Append entries in this order, under the lock of the head.

    Raises:
        UnavailableError: an entry is more than 60 s older than the log's latest.
        IntegrityError: the stored tree is damaged.
    """
    head = store.lock_head()
    latest = head.time
    for entry in prepared:
        latest = _check_time(entry, latest)
    entries = tuple(entry.at(head.size + place) for place, entry in enumerate(prepared))
    grown = merkle.append(
        store, head.size, [leaf_hash(entry.leaf) for entry in entries]
    )
    store.append_nodes(grown.nodes)
    store.append_entries(entries, LogHead(grown.size, latest))
    return Appended(
        size=grown.size,
        root=grown.root,
        entries=entries,
        before=grown.before,
        nodes={**grown.edge, **grown.nodes},
    )


def _check_time(entry: PreparedEntry, latest: datetime | None) -> datetime:
    if latest is None:
        return entry.time
    if entry.time < latest - CLOCK_TOLERANCE:
        raise UnavailableError(
            "clock",
            got=format_time(entry.time),
            expected=f"at most 60 s behind the log's latest, {format_time(latest)}",
            hint="set the clock right; nothing is decided before that",
            code="clock.behind",
        )
    return max(entry.time, latest)
