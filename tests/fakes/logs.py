"""An audit log in memory; its operations fail on demand, before or after the effect."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from kbs.audit.log import LogEntry, LogHead, QueryFilter, StoredCheckpoint
from kbs.audit.merkle import NodeId
from kbs.core.errors import ConflictError, UnavailableError

When = Literal["before", "after"]


@dataclass
class LogState:
    """What the log holds; tests tamper with it directly."""

    entries: list[LogEntry] = field(default_factory=list)
    nodes: dict[NodeId, bytes] = field(default_factory=dict)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    head: LogHead = field(default_factory=lambda: LogHead(0, None))


class MemoryLog:
    """The database: hands out transactions that commit whole or not at all."""

    def __init__(self) -> None:
        self.state = LogState()
        self.reads: list[int] = []
        self._head_lock = threading.RLock()
        self._faults: dict[str, tuple[When, Exception]] = {}

    def fail(
        self, operation: str, *, when: When, error: Exception | None = None
    ) -> None:
        """Make the next call of `operation` (or `commit`) fail, once."""
        self._faults[operation] = (
            when,
            error or UnavailableError(f"{operation} failed {when} it took effect"),
        )

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Run one transaction; an error inside leaves the log as it was."""
        transaction = MemoryTransaction(self)
        try:
            yield transaction
            with self.fault("commit"):
                self.state = transaction.staged
        finally:
            transaction.release()

    @contextmanager
    def fault(self, operation: str) -> Iterator[None]:
        """Raise before or after the block, when `operation` was told to fail."""
        when, error = self._faults.pop(operation, (None, None))
        if when == "before" and error is not None:
            raise error
        yield
        if when == "after" and error is not None:
            raise error

    def hold_head(self) -> None:
        self._head_lock.acquire()

    def release_head(self) -> None:
        self._head_lock.release()


class MemoryTransaction:
    """Implements `kbs.audit.log.LogStore` over a copy of the log."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._held = 0
        self.staged = self._copy()

    def _copy(self) -> LogState:
        state = self._log.state
        return LogState(
            entries=list(state.entries),
            nodes=dict(state.nodes),
            checkpoints=dict(state.checkpoints),
            head=state.head,
        )

    def release(self) -> None:
        while self._held:
            self._log.release_head()
            self._held -= 1

    def head(self) -> LogHead:
        with self._log.fault("head"):
            return self.staged.head

    def lock_head(self) -> LogHead:
        with self._log.fault("lock_head"):
            self._log.hold_head()
            self._held += 1
            if self._held == 1:
                # What another transaction committed before the lock was ours counts.
                self.staged = self._copy()
        return self.staged.head

    def append_entries(self, entries: Sequence[LogEntry], head: LogHead) -> None:
        with self._log.fault("append_entries"):
            known = {entry.id for entry in self.staged.entries}
            for entry in entries:
                if entry.index != len(self.staged.entries) or entry.id in known:
                    raise ConflictError(f"entry {entry.id} at {entry.index}")
                known.add(entry.id)
                self.staged.entries.append(entry)
            self.staged.head = head

    def append_nodes(self, nodes: Mapping[NodeId, bytes]) -> None:
        with self._log.fault("append_nodes"):
            if not self.staged.nodes.keys().isdisjoint(nodes):
                raise ConflictError("a node exists already")
            self.staged.nodes.update(nodes)

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        with self._log.fault("read_nodes"):
            self._log.reads.append(len(ids))
            return {
                node: self.staged.nodes[node]
                for node in ids
                if node in self.staged.nodes
            }

    def read_entries(self, start: int, stop: int) -> Sequence[LogEntry]:
        with self._log.fault("read_entries"):
            return self.staged.entries[start:stop]

    def find_entry(self, entry_id: str) -> LogEntry | None:
        with self._log.fault("find_entry"):
            found = [entry for entry in self.staged.entries if entry.id == entry_id]
            return found[0] if found else None

    def query(self, wanted: QueryFilter) -> Sequence[LogEntry]:
        with self._log.fault("query"):
            found = [entry for entry in self.staged.entries if _matches(entry, wanted)]
            return found[-wanted.limit :] if wanted.newest else found[: wanted.limit]

    def latest_checkpoint(self) -> StoredCheckpoint | None:
        with self._log.fault("latest_checkpoint"):
            if not self.staged.checkpoints:
                return None
            size = max(self.staged.checkpoints)
            return StoredCheckpoint(size, self.staged.checkpoints[size])

    def checkpoint_covering(self, index: int) -> StoredCheckpoint | None:
        with self._log.fault("checkpoint_covering"):
            sizes = [size for size in self.staged.checkpoints if size > index]
            if not sizes:
                return None
            return StoredCheckpoint(min(sizes), self.staged.checkpoints[min(sizes)])

    def store_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        with self._log.fault("store_checkpoint"):
            self.staged.checkpoints[checkpoint.size] = checkpoint.note


def _matches(entry: LogEntry, wanted: QueryFilter) -> bool:
    return all(
        (
            wanted.key is None or wanted.key in entry.keys,
            wanted.tenants is None or not set(wanted.tenants).isdisjoint(entry.tenants),
            wanted.decision is None or wanted.decision == entry.decision,
            wanted.kinds is None or entry.kind in wanted.kinds,
            wanted.policy is None or wanted.policy in entry.policies,
            wanted.since is None or entry.time >= wanted.since,
            wanted.until is None or entry.time < wanted.until,
            wanted.after_index is None or entry.index > wanted.after_index,
            wanted.before_index is None or entry.index < wanted.before_index,
        )
    )
