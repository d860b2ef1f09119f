"""One statement applied to what is in force: the rules of acceptance, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from kbs.core.clock import format_time
from kbs.core.errors import ConflictError, ForbiddenError, MalformedError
from kbs.governance.contents import (
    check_digest,
    read_attestation_key,
    read_authority,
    read_ca,
    read_deny,
    read_reference_set,
    read_release_policy,
    read_token_issuer,
)
from kbs.governance.objects import Deny, DenyTarget, measure_workload_policy
from kbs.governance.rules import check_signatures, check_tenant
from kbs.governance.state import GovernanceState, InForce
from kbs.governance.statement import (
    BRINGING,
    EVERY_TENANT,
    Envelope,
    Kind,
    Statement,
)

T = TypeVar("T")
K = TypeVar("K")


class Draft:
    """Mutable copy of a state, so that a long chain is replayed in linear time."""

    def __init__(self, state: GovernanceState) -> None:
        """Copy what `state` has in force."""
        self._base = state
        self._seq = state.head_seq
        self._hash = state.head_hash
        self._authority = state.authority
        self._release_policies = dict(state.release_policies)
        self._workload_policies = dict(state.workload_policies)
        self._reference_sets = dict(state.reference_sets)
        self._aks = dict(state.aks)
        self._cas = dict(state.cas)
        self._token_issuers = dict(state.token_issuers)
        self._denials = dict(state.denials)
        self._seen = dict(state.seen)

    def accept(
        self, envelope: Envelope, content: bytes | None, accepted: datetime
    ) -> None:
        """Apply one statement.

        1. It is the next of this chain, for this instance.
        2. It is accepted within its time.
        3. Its content has the digest that was signed.
        4. Enough keys with the right role signed it, under the authority in force.
        5. It fits what is in force.
        """
        statement = envelope.statement
        self._check_place(statement)
        _check_time(statement, accepted)
        check_tenant(statement)
        data = _require_content(statement, content)
        successor = None
        if statement.kind is Kind.AUTHORITY:
            successor = read_authority(data or b"")
        check_signatures(envelope, self._authority.content, successor)
        self._check_version(statement)
        if successor is None:
            self._apply(statement, data)
        else:
            self._authority = _in_force(statement, successor)
        self._seq = statement.seq
        self._hash = statement.hash()

    def state(self) -> GovernanceState:
        """Return what is in force now."""
        return replace(
            self._base,
            head_seq=self._seq,
            head_hash=self._hash,
            authority=self._authority,
            release_policies=dict(self._release_policies),
            workload_policies=dict(self._workload_policies),
            reference_sets=dict(self._reference_sets),
            aks=dict(self._aks),
            cas=dict(self._cas),
            token_issuers=dict(self._token_issuers),
            denials=dict(self._denials),
            seen=dict(self._seen),
        )

    def _check_place(self, statement: Statement) -> None:
        if statement.instance != self._base.instance:
            raise ForbiddenError(
                "statement instance",
                got=statement.instance,
                expected=self._base.instance,
                code="statement.instance",
            )
        place = (statement.seq, statement.prev)
        expected = (self._seq + 1, self._hash)
        if place != expected:
            raise ConflictError(
                "statement seq and prev",
                got=f"{place[0]} after {place[1]}",
                expected=f"{expected[0]} after {expected[1]}",
                hint="read the head again and sign anew",
                code="statement.sequence",
            )

    def _check_version(self, statement: Statement) -> None:
        key = (statement.kind, statement.subject, statement.version)
        known = self._seen.setdefault(key, statement.digest)
        if known != statement.digest:
            raise ConflictError(
                f"{statement.kind} {statement.subject} version {statement.version}",
                got=f"digest {statement.digest}",
                expected=f"{known}: a version never changes",
                code="statement.version",
            )
        current = self._authority.version
        if statement.kind is Kind.AUTHORITY and statement.version <= current:
            raise ConflictError(
                "authority version",
                got=str(statement.version),
                expected=f"above {current}",
                code="statement.version",
            )

    def _apply(self, statement: Statement, data: bytes | None) -> None:
        name = statement.subject
        match statement.kind:
            case Kind.RELEASE_POLICY:
                table = self._release_policies
                _change(table, name, statement, data, read_release_policy)
            case Kind.WORKLOAD_POLICY:
                # Versions of a workload policy stand beside each other: each release
                # policy says which one it means.
                version = (name, statement.version)
                policies = self._workload_policies
                _change(policies, version, statement, data, measure_workload_policy)
            case Kind.REFERENCE_SET:
                sets = self._reference_sets
                _change(sets, name, statement, data, read_reference_set)
            case Kind.AK:
                _change(self._aks, name, statement, data, read_attestation_key)
            case Kind.CA:
                _change(self._cas, name, statement, data, read_ca)
            case Kind.DENY:
                self._apply_deny(statement, data)
            case Kind.TOKEN_ISSUER:
                _change(self._token_issuers, name, statement, data, read_token_issuer)

    def _apply_deny(self, statement: Statement, data: bytes | None) -> None:
        name = statement.subject
        if data is not None and name in self._denials:
            # To replace an entry would lift it in passing.
            raise ConflictError(
                f"deny {name}",
                got="an entry in force",
                expected="a new name, or lift it first",
                code="statement.active",
            )
        _change(self._denials, name, statement, data, read_deny)
        if data is not None:
            _check_deny_tenant(statement.tenant, self._denials[name].content)


def _change(
    table: dict[K, InForce[T]],
    key: K,
    statement: Statement,
    data: bytes | None,
    read: Callable[[bytes], T],
) -> None:
    current = table.get(key)
    named = (statement.version, statement.digest)
    is_same = current is not None and (current.version, current.digest) == named
    if data is None:
        if not is_same:
            raise _not_in_force(statement, current)
        del table[key]
        return
    if is_same:
        raise ConflictError(
            f"{statement.kind} {statement.subject} version {statement.version}",
            got="in force already",
            expected="a change",
            code="statement.active",
        )
    table[key] = _in_force(statement, read(data))


def _in_force(statement: Statement, content: T) -> InForce[T]:
    return InForce(
        subject=statement.subject,
        version=statement.version,
        digest=statement.digest,
        seq=statement.seq,
        content=content,
    )


def _not_in_force(statement: Statement, current: InForce[T] | None) -> ConflictError:
    in_force = "none"
    if current is not None:
        in_force = f"version {current.version}, digest {current.digest}"
    return ConflictError(
        f"{statement.action} {statement.kind} {statement.subject}",
        got=f"version {statement.version}, digest {statement.digest}",
        expected=f"what is in force: {in_force}",
        code="statement.active",
    )


def _check_time(statement: Statement, accepted: datetime) -> None:
    before, after = statement.not_before, statement.expires
    if before is not None and accepted < before:
        raise ForbiddenError(
            "statement not_before",
            got=f"accepted {format_time(accepted)}",
            expected=f"from {format_time(before)}",
            code="statement.early",
        )
    if after is not None and accepted >= after:
        raise ForbiddenError(
            "statement expires",
            got=f"accepted {format_time(accepted)}",
            expected=f"before {format_time(after)}",
            hint="sign a new statement",
            code="statement.expired",
        )


def _require_content(statement: Statement, content: bytes | None) -> bytes | None:
    if statement.action not in BRINGING:
        return None
    if content is None:
        raise MalformedError(
            f"{statement.kind} {statement.subject}",
            got="no content",
            expected=f"digest {statement.digest}",
        )
    check_digest(content, statement.digest, f"{statement.kind} {statement.subject}")
    return content


def _check_deny_tenant(tenant: str, deny: Deny) -> None:
    # A tenant's entry concerns the tenant's keys, an emergency stop too.
    if tenant == EVERY_TENANT:
        return
    owned = {DenyTarget.POLICY, DenyTarget.KEY}
    if deny.target in owned and deny.value.partition("/")[0] != tenant:
        raise MalformedError(
            f"deny {deny.target} {deny.value}".rstrip(),
            got=f"tenant {tenant}",
            expected=f"its own tenant, or {EVERY_TENANT}",
        )
