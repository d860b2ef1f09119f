"""What is in force, proven from the signed chain, cached by its head.

A release never trusts a row of the database: `snapshot` gives what the chain proves,
and `confirm` reads again the rows that one decision rests on, so that a change behind
the broker's back refuses at once, and is reported. `reload` proves everything anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol

from kbs.broker.ports import Transaction
from kbs.broker.snapshot import Proven, Snapshot, snapshot_of
from kbs.core.claims import Vocabulary
from kbs.core.errors import IntegrityError, MalformedError, UnavailableError
from kbs.governance.chain import replay
from kbs.governance.state import StoredStatement
from kbs.governance.statement import Kind
from kbs.policy.parse import ParsedPolicy, parse_release_policy

PARSED_POLICIES = 4096
"""Compiled policies kept in memory, by digest."""


class StaleReadError(UnavailableError):
    """A transaction sees less than is in force by now; a new one will not."""


class Floor(Protocol):
    """How far the chain had come when the high-water mark was written."""

    @property
    def seq(self) -> int:
        """The number of the last statement."""
        ...

    @property
    def head(self) -> str:
        """Its hash, which everything before it leads to."""
        ...


class Anchor(Protocol):
    """What proves the chain from outside the database."""

    def floor(self) -> Floor | None:
        """Return the mark as it stands now, None before the first one."""
        ...

    def prove_logged(self, tx: Transaction, after: int) -> None:
        """Return if the signed log tells of every statement after a number."""
        ...


class Governance:
    """Proves and caches what is in force."""

    def __init__(
        self,
        *,
        instance: str,
        genesis_digest: str,
        vocabulary: Vocabulary,
        tampered: Callable[[IntegrityError], None] = lambda _: None,
        anchor: Anchor | None = None,
        fresh_head: Callable[[], int] | None = None,
    ) -> None:
        """Pin the genesis; tell `tampered` of every row that does not match.

        `anchor` says how far the chain has come by proof outside the database;
        `fresh_head` reads the number of the last statement in a new transaction.
        """
        self._anchor = anchor
        self._fresh_head = fresh_head
        self._declared: dict[str, UnavailableError] = {}
        self._anchored: tuple[Snapshot, Floor] | None = None
        self._instance = instance
        self._genesis_digest = genesis_digest
        self._vocabulary = vocabulary
        self._tampered = tampered
        self._lock = threading.Lock()
        self._cached: Snapshot | None = None
        self._fault: IntegrityError | None = None
        self._parse = lru_cache(PARSED_POLICIES)(self._parse_policy)

    @property
    def vocabulary(self) -> Vocabulary:
        """The claim names that policies may use."""
        return self._vocabulary

    @property
    def fault(self) -> UnavailableError | None:
        """What was found wrong and is not mended yet."""
        return next(iter(self._declared.values()), self._fault)

    def declare(self, source: str, fault: UnavailableError | None) -> None:
        """Stop every release until `source` withdraws its fault with None.

        Those that say that stored state is wrong are reported as well.
        """
        if fault is None:
            self._declared.pop(source, None)
            return
        known = self._declared.get(source)
        self._declared[source] = fault
        is_new = known is None or str(known) != str(fault)
        if isinstance(fault, IntegrityError) and is_new:
            self._tampered(fault)

    def snapshot(self, tx: Transaction) -> Snapshot:
        """Return what is in force now.

        Raises:
            IntegrityError: the chain or an object is not what was signed.
            UnavailableError: a fault of another kind was declared.
        """
        for fault in tuple(self._declared.values()):
            # One that is raised again and again would collect the frames of all.
            raise fault.with_traceback(None)
        head = tx.governance.head()
        cached = self._cached
        floor = self._floor()
        reached = 0 if cached is None else cached.state.head_seq
        known = max(reached, 0 if floor is None else floor.seq)
        if head < known:
            raise self._behind(head, known)
        is_current = cached is not None and reached == head and self._fault is None
        if cached is None or not is_current:
            return self.reload(tx)
        self._require_anchored(cached, floor)
        return cached

    def _floor(self) -> Floor | None:
        if self._anchor is None:
            return None
        try:
            return self._anchor.floor()
        except IntegrityError as exc:
            raise self._report(exc) from exc

    def _behind(self, head: int, known: int) -> UnavailableError:
        # A transaction that began before a statement committed is no tampering.
        if self._fresh_head is not None and self._fresh_head() >= known:
            return StaleReadError(
                "governance",
                got=f"a view of {head} statements",
                expected=f"one of {known}",
                hint="try again",
                code="governance.stale",
            )
        return self._report(
            IntegrityError(
                "governance chain",
                got=f"{head} statements",
                expected=f"at least {known}",
                hint="statements were removed from the database",
                code="governance.truncated",
            )
        )

    def _require_anchored(self, snapshot: Snapshot, floor: Floor | None) -> None:
        """Require that the chain leads through the statement of the mark."""
        if floor is None or self._anchored == (snapshot, floor):
            return
        if snapshot.hash_at(floor.seq) != floor.head:
            raise self._report(
                IntegrityError(
                    f"governance statement {floor.seq}",
                    got=f"hash {snapshot.hash_at(floor.seq)}",
                    expected=f"{floor.head}, as in the high-water mark",
                    hint="the database was changed; restore the newest one",
                    code="governance.mark",
                )
            )
        self._anchored = (snapshot, floor)

    def proven(self, tx: Transaction) -> Snapshot:
        """Return what is in force, or what was when it last could be proven.

        For finding out who may read, so that an auditor can still look at a broker
        whose database was changed; never for deciding what is released or changed.

        Raises:
            UnavailableError: nothing was ever proven, or the view is too old.
        """
        try:
            return self.snapshot(tx)
        except UnavailableError as exc:
            if self._cached is None or isinstance(exc, StaleReadError):
                raise
            return self._cached

    def reload(self, tx: Transaction) -> Snapshot:
        """Prove the whole chain and every object in force anew.

        Raises:
            IntegrityError: something is not what was signed.
        """
        try:
            snapshot = self._load(tx)
            floor = self._floor()
            if floor is not None and snapshot.state.head_seq >= floor.seq:
                self._require_anchored(snapshot, floor)
            if self._anchor is not None:
                # What the mark does not cover yet has to stand in the signed log.
                after = 0 if floor is None else floor.seq
                self._anchor.prove_logged(tx, after)
        except IntegrityError as exc:
            raise self._report(exc) from exc
        with self._lock:
            known = self._cached
            reached = 0 if known is None else known.state.head_seq
            reached = max(reached, 0 if floor is None else floor.seq)
            if snapshot.state.head_seq < reached:
                raise self._behind(snapshot.state.head_seq, reached)
            self._cached = snapshot
            self._fault = None
        return snapshot

    def confirm(
        self, tx: Transaction, snapshot: Snapshot, used: Iterable[Proven]
    ) -> None:
        """Read again what a decision rests on: objects, their statements, authority.

        Raises:
            IntegrityError: a row is not what was proven when it was loaded.
        """
        objects: list[Proven] = [snapshot.state.authority, *used]
        seqs = {one.seq for one in objects if one.seq} | {snapshot.state.head_seq}
        envelopes = tx.governance.statements_at(sorted(seqs - {0}))
        for seq in sorted(seqs - {0}):
            if envelopes.get(seq) != snapshot.envelopes[seq]:
                raise self._report(
                    IntegrityError(
                        f"governance statement {seq}",
                        got="a row that was changed",
                        expected="the envelope that was signed and accepted",
                        hint="restore the row; nothing is released until then",
                        code="governance.tampered",
                    )
                )
        contents = tx.governance.contents(sorted({one.digest for one in objects}))
        for one in objects:
            self._confirm_content(one, contents.get(one.digest))

    def _confirm_content(self, one: Proven, content: bytes | None) -> None:
        got = None if content is None else hashlib.sha256(content).hexdigest()
        if got != one.digest:
            raise self._report(
                IntegrityError(
                    f"governed object {one.subject} version {one.version}",
                    got="no row" if got is None else f"content with digest {got}",
                    expected=f"digest {one.digest}, as statement {one.seq} signed it",
                    hint="restore the row; nothing is released until then",
                    code="governance.tampered",
                )
            )

    def _report(self, fault: IntegrityError) -> IntegrityError:
        first = self._fault is None or str(self._fault) != str(fault)
        self._fault = fault
        if first:
            self._tampered(fault)
        return fault

    def _load(self, tx: Transaction) -> Snapshot:
        rows = list(tx.governance.statements())

        def load(_: Kind, digest: str) -> bytes | None:
            return tx.governance.contents([digest]).get(digest)

        state = replay(
            [StoredStatement(row.envelope, row.accepted) for row in rows],
            genesis_digest=self._genesis_digest,
            instance=self._instance,
            load=load,
        )
        return snapshot_of(
            state,
            {row.seq: row.envelope for row in rows},
            genesis_digest=self._genesis_digest,
            parse=self._parse,
        )

    def _parse_policy(self, content: bytes) -> ParsedPolicy:
        try:
            return parse_release_policy(
                content,
                vocabulary=self._vocabulary,
                what="release policy in force",
                registered=True,
            )
        except MalformedError as exc:
            raise IntegrityError(
                str(exc),
                hint="this version of kbs cannot read a policy that is in force",
                code="governance.policy",
            ) from exc
