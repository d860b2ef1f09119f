"""Group commit: each process commits what has queued up, in one transaction.

Whoever finds nobody committing becomes the leader, takes everything that waits and
runs it in one write transaction, each of several in a savepoint of its own: one
durable sync for the whole batch, no added wait when idle, no writer daemon. The
checkpoint that covers the batch is signed and stored in the same transaction and
shown to nobody before the commit is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeGuard, TypeVar

from kbs.audit import merkle
from kbs.audit.log import (
    CLOCK_TOLERANCE,
    Appended,
    LogEntry,
    LogHead,
    PreparedEntry,
    StoredCheckpoint,
    append_batch,
)
from kbs.broker.ports import Database, Transaction
from kbs.core.clock import format_time
from kbs.core.errors import IntegrityError, KbsError, UnavailableError

T = TypeVar("T")

MAX_BATCH = 64
"""Most pieces of work in one transaction; bounds how long others wait for it."""


class Notary(Protocol):
    """Signs checkpoints with the key of the log."""

    def sign_checkpoint(self, size: int, root: bytes) -> bytes:
        """Return the signed note over this tree."""
        ...

    def require_signed(self, size: int, root: bytes, note: bytes | None) -> None:
        """Return if the note is the signed one over exactly this tree.

        Raises:
            IntegrityError: it is not; the log was rewritten.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An entry in the log with the proof that a receipt needs."""

    entry: LogEntry
    checkpoint: bytes
    inclusion: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Committed(Generic[T]):
    """What a piece of work returned, and its entries, now durable."""

    value: T
    placed: tuple[Placed, ...]


class Work:
    """What a piece of work may do inside the write transaction."""

    __slots__ = ("_head", "_pending", "_start", "tx")

    def __init__(
        self, tx: Transaction, head: LogHead, pending: list[PreparedEntry]
    ) -> None:
        """Begin behind what the batch has appended so far."""
        self.tx = tx
        self._head = head
        self._pending = pending
        self._start = len(pending)

    @property
    def latest(self) -> datetime | None:
        """The latest time of any entry before this batch."""
        return self._head.time

    def append(self, entry: PreparedEntry) -> int:
        """Append an entry and return the index that it will have.

        Raises:
            UnavailableError: the clock is more than 60 s behind the log.
        """
        refuse_clock_behind(entry.time, self._head.time)
        self._pending.append(entry)
        return self._head.size + len(self._pending) - 1

    def abandon(self) -> None:
        """Forget what this piece of work appended."""
        del self._pending[self._start :]

    @property
    def indexes(self) -> range:
        """The indexes that this piece of work appended."""
        return range(
            self._head.size + self._start, self._head.size + len(self._pending)
        )


def refuse_clock_behind(now: datetime, latest: datetime | None) -> None:
    """Return unless `now` is more than 60 s behind the log's latest entry.

    Raises:
        UnavailableError: it is; nothing is decided until the clock is right.
    """
    if latest is not None and now < latest - CLOCK_TOLERANCE:
        raise UnavailableError(
            "clock",
            got=format_time(now),
            expected=f"at most 60 s behind the log's latest, {format_time(latest)}",
            hint="set the clock right; nothing is decided before that",
            code="clock.behind",
        )


@dataclass(slots=True)
class _Job:
    run: Callable[[Work], object]
    done: bool = False
    value: object = None
    indexes: range = field(default_factory=lambda: range(0))
    placed: tuple[Placed, ...] = ()
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done = True


class Committer:
    """Runs work in serialised, batched write transactions."""

    def __init__(
        self,
        database: Database,
        notary: Notary,
        *,
        steps: Callable[[str], None] = lambda _: None,
        committed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Use `steps` to be told of each step, `committed` of each new tree size."""
        self._database = database
        self._notary = notary
        self._steps = steps
        self._committed = committed
        self._durable: tuple[int, bytes] | None = None
        self._fault: UnavailableError | None = None
        self._queue: list[_Job] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()

    @property
    def fault(self) -> UnavailableError | None:
        """Why the database took no writes when last asked; None: it took them."""
        return self._fault

    def probe(self) -> None:
        """Write what is there already, to find a fault, or that it is over.

        Raises:
            UnavailableError: the database takes no writes.
        """
        self.submit(_write_again)
        self._fault = None

    def submit(self, run: Callable[[Work], T]) -> Committed[T]:
        """Run `run` in a write transaction and return when it is durable.

        Raises:
            KbsError: what `run` raised; nothing of it was kept.
            UnavailableError: the commit failed; it may have taken effect.
        """
        job = _Job(run)
        with self._queue_lock:
            self._queue.append(job)
        with self._turn:
            while not job.done:
                self._run_batch(self._next_batch())
        if job.error is not None:
            if _is_fault(job.error):
                self._fault = job.error
            raise job.error
        if job.placed:
            self._fault = None
        return Committed(job.value, job.placed)  # type: ignore[arg-type]

    def submit_alone(self, run: Callable[[Work], T]) -> Committed[T]:
        """Run `run` as `submit` does, in a transaction that holds nothing else.

        The lock is held and nothing is written yet: what a reading transaction finds
        that `run` begins, nobody changes before this one ends.

        Raises:
            KbsError: as `submit`.
        """
        job = _Job(run)
        with self._turn:
            self._run_batch([job])
        if job.error is not None:
            raise job.error
        return Committed(job.value, job.placed)  # type: ignore[arg-type]

    def _next_batch(self) -> list[_Job]:
        # Called with the turn held: our own job is in the queue, perhaps behind others.
        with self._queue_lock:
            batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        return batch

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            size = self._commit(batch)
        except KbsError as exc:
            self._fail(batch, exc)
        except BaseException as exc:
            error = UnavailableError("commit", got=type(exc).__name__)
            error.__cause__ = exc
            self._fail(batch, error)
            raise
        else:
            if size is not None:
                # A listener that fails must not turn a durable commit into a failure.
                with suppress(KbsError):
                    self._committed(size)

    @staticmethod
    def _fail(batch: list[_Job], error: BaseException) -> None:
        for job in batch:
            job.fail(job.error or error)

    def _commit(self, batch: list[_Job]) -> int | None:
        pending: list[PreparedEntry] = []
        with self._database.write() as tx:
            head = tx.log.lock_head()
            for job in batch:
                self._run_job(job, Work(tx, head, pending), alone=len(batch) == 1)
            appended = self._append(tx, pending, batch)
            self._steps("before-commit")
        if appended is not None:
            self._durable = (appended.size, appended.root)
        self._steps("after-commit")
        for job in batch:
            job.done = True
        return None if appended is None else appended.size

    @staticmethod
    def _run_job(job: _Job, work: Work, *, alone: bool) -> None:
        # Work that is alone needs no savepoint: the transaction goes back with it.
        try:
            with nullcontext() if alone else work.tx.savepoint():
                job.value = job.run(work)
        except Exception as exc:
            work.abandon()
            job.error = exc
            if alone:
                raise
            # Not every error can be taken back alone; then nothing of the batch counts.
            try:
                work.tx.require_whole()
            except UnavailableError as lost:
                raise (exc if _is_fault(exc) else lost) from exc
            return
        job.indexes = work.indexes

    def _append(
        self, tx: Transaction, pending: list[PreparedEntry], batch: list[_Job]
    ) -> Appended | None:
        if not pending:
            return None
        appended = append_batch(tx.log, pending)
        first = appended.size - len(appended.entries)
        self._require_signed(tx, first, appended.before)
        note = self._notary.sign_checkpoint(appended.size, appended.root)
        tx.log.store_checkpoint(StoredCheckpoint(appended.size, note))
        nodes = merkle.KnownNodes(appended.nodes)
        for job in batch:
            job.placed = tuple(
                Placed(
                    entry=appended.entries[index - first],
                    checkpoint=note,
                    inclusion=merkle.inclusion_proof(nodes, index, appended.size),
                )
                for index in job.indexes
            )
        return appended

    def _require_signed(self, tx: Transaction, size: int, root: bytes) -> None:
        # The key of the log never signs two trees of which one does not extend the
        # other. What it signed last must still be there: here, by what this process
        # remembers, and in whichever process it was, by the checkpoint over the head.
        if self._durable == (size, root):
            return
        if self._durable is not None:
            self._require_extended(tx, size, *self._durable)
        if size == 0:
            return
        stored = tx.log.checkpoint_covering(size - 1)
        note = stored.note if stored is not None and stored.size == size else None
        self._notary.require_signed(size, root, note)

    @staticmethod
    def _require_extended(
        tx: Transaction, size: int, durable: int, root: bytes
    ) -> None:
        found = merkle.root(tx.log, durable) if size >= durable else b""
        if found != root:
            raise IntegrityError(
                f"audit log: the tree of {size} entries",
                got=found.hex() or "a shorter log",
                expected=f"one that extends the {durable} entries signed before",
                hint="the log was taken back in the database; restore the newest one",
                code="audit.log",
            )


def _write_again(work: Work) -> None:
    latest = work.tx.log.latest_checkpoint()
    if latest is not None:
        work.tx.log.store_checkpoint(latest)


def _is_fault(error: BaseException) -> TypeGuard[UnavailableError]:
    # Of the database, not of what somebody wanted to write.
    return isinstance(error, UnavailableError) and error.code.startswith("database.")
