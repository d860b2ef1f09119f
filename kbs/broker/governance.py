"""What is in force, proven from the signed chain, cached by its head.

A release never trusts a row of the database: `snapshot` gives what the chain proves,
and `confirm` reads again the rows that one decision rests on, so that a change behind
the broker's back refuses at once, and is reported. `reload` proves everything anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from kbs.broker.ports import Transaction
from kbs.broker.view import GovernedView
from kbs.core.claims import Vocabulary
from kbs.core.errors import IntegrityError, MalformedError
from kbs.core.ids import KeyId, ScopedName
from kbs.evidence.model import EnrolledKey, TrustedCA
from kbs.governance.chain import replay
from kbs.governance.state import GovernanceState, StoredStatement
from kbs.governance.statement import Kind
from kbs.policy.match import KeyGlob, governing
from kbs.policy.parse import ParsedPolicy, parse_release_policy

PARSED_POLICIES = 4096
"""Compiled policies kept in memory, by digest."""


class Proven(Protocol):
    """An object in force, whatever its content: what `confirm` reads again."""

    @property
    def subject(self) -> ScopedName:
        """Its name."""
        ...

    @property
    def version(self) -> int:
        """Its version."""
        ...

    @property
    def digest(self) -> str:
        """Hex SHA-256 of its content."""
        ...

    @property
    def seq(self) -> int:
        """The number of the statement that put it in force."""
        ...


@dataclass(frozen=True, slots=True)
class ActivePolicy:
    """A release policy in force, compiled."""

    subject: ScopedName
    version: int
    digest: str
    seq: int
    parsed: ParsedPolicy

    @property
    def globs(self) -> tuple[KeyGlob, ...]:
        """The keys it governs."""
        return self.parsed.globs


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything in force at one sequence number, in the shapes that are asked for."""

    state: GovernanceState
    envelopes: Mapping[int, bytes]
    enrolled_keys: Mapping[bytes, tuple[EnrolledKey, ...]]
    cas: tuple[TrustedCA, ...]
    policies: Mapping[str, tuple[ActivePolicy, ...]]
    views: dict[str, GovernedView] = field(default_factory=dict)

    def governing(self, key_id: KeyId) -> tuple[ActivePolicy, ...]:
        """Return every active policy that matches a key."""
        return governing(self.policies.get(key_id.tenant, ()), key_id)

    def view(self, tenant: str) -> GovernedView:
        """Return what names resolve to inside a tenant."""
        found = self.views.get(tenant)
        if found is None:
            found = GovernedView(self.state, tenant)
            self.views[tenant] = found
        return found


class Governance:
    """Proves and caches what is in force."""

    def __init__(
        self,
        *,
        instance: str,
        genesis_digest: str,
        vocabulary: Vocabulary,
        tampered: Callable[[IntegrityError], None] = lambda _: None,
    ) -> None:
        """Pin the genesis; tell `tampered` of every row that does not match."""
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
    def fault(self) -> IntegrityError | None:
        """What was found wrong and is not mended yet."""
        return self._fault

    def snapshot(self, tx: Transaction) -> Snapshot:
        """Return what is in force now.

        Raises:
            IntegrityError: the chain or an object is not what was signed.
        """
        head = tx.governance.head()
        cached = self._cached
        if cached is not None and self._fault is None:
            if cached.state.head_seq == head:
                return cached
            if head < cached.state.head_seq:
                raise self._report(
                    IntegrityError(
                        "governance chain",
                        got=f"{head} statements",
                        expected=f"at least {cached.state.head_seq}",
                        hint="statements were removed from the database",
                        code="governance.truncated",
                    )
                )
        return self.reload(tx)

    def proven(self, tx: Transaction) -> Snapshot:
        """Return what is in force, or what was when it last could be proven.

        For finding out who may read, so that an auditor can still look at a broker
        whose database was changed; never for deciding what is released or changed.

        Raises:
            IntegrityError: nothing was ever proven.
        """
        try:
            return self.snapshot(tx)
        except IntegrityError:
            if self._cached is None:
                raise
            return self._cached

    def reload(self, tx: Transaction) -> Snapshot:
        """Prove the whole chain and every object in force anew.

        Raises:
            IntegrityError: something is not what was signed.
        """
        try:
            snapshot = self._load(tx)
        except IntegrityError as exc:
            raise self._report(exc) from exc
        with self._lock:
            known = self._cached
            if known is not None and snapshot.state.head_seq < known.state.head_seq:
                raise self._report(
                    IntegrityError(
                        "governance chain",
                        got=f"{snapshot.state.head_seq} statements",
                        expected=f"at least {known.state.head_seq}",
                        hint="statements were removed from the database",
                        code="governance.truncated",
                    )
                )
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
        return self._snapshot_of(state, {row.seq: row.envelope for row in rows})

    def _snapshot_of(
        self, state: GovernanceState, envelopes: Mapping[int, bytes]
    ) -> Snapshot:
        return Snapshot(
            state=state,
            envelopes=envelopes,
            enrolled_keys=_enrolled_keys(state),
            cas=tuple(
                TrustedCA(
                    tenant=ca.subject.tenant,
                    name=ca.subject.name,
                    purpose=ca.content.purpose.value,
                    certificate=ca.content.certificate,
                )
                for ca in state.cas.values()
            ),
            policies=self._policies(state),
        )

    def _policies(
        self, state: GovernanceState
    ) -> Mapping[str, tuple[ActivePolicy, ...]]:
        grouped: dict[str, list[ActivePolicy]] = {}
        for _, one in sorted(state.release_policies.items()):
            grouped.setdefault(one.subject.tenant, []).append(
                ActivePolicy(
                    one.subject,
                    one.version,
                    one.digest,
                    one.seq,
                    self._parse(one.content),
                )
            )
        return {tenant: tuple(policies) for tenant, policies in grouped.items()}

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


def _enrolled_keys(
    state: GovernanceState,
) -> Mapping[bytes, tuple[EnrolledKey, ...]]:
    found: dict[bytes, tuple[EnrolledKey, ...]] = {}
    for ak in state.aks.values():
        key = EnrolledKey(
            tenant=ak.subject.tenant,
            group=ak.content.group,
            name=ak.content.name,
            public=ak.content.public,
        )
        found[key.name] = (*found.get(key.name, ()), key)
    return found
