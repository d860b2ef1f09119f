"""What is in force at one statement of the chain, in the shapes that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from kbs.broker.view import GovernedView
from kbs.core.ids import KeyId, ScopedName
from kbs.evidence.model import EnrolledKey, TrustedCA, TrustedIssuer
from kbs.governance.state import GovernanceState
from kbs.governance.statement import read_envelope
from kbs.policy.match import KeyGlob, governing
from kbs.policy.parse import ParsedPolicy

REMEMBERED = 4096
"""Keys, and tenants, of which a snapshot keeps what governs them."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


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
    genesis_digest: str
    envelopes: Mapping[int, bytes]
    enrolled_keys: Mapping[bytes, tuple[EnrolledKey, ...]]
    cas: tuple[TrustedCA, ...]
    issuers: tuple[TrustedIssuer, ...]
    policies: Mapping[str, tuple[ActivePolicy, ...]]
    views: dict[str, GovernedView] = field(default_factory=dict)
    matches: dict[KeyId, tuple[ActivePolicy, ...]] = field(default_factory=dict)

    def hash_at(self, seq: int) -> str:
        """Return the hash of a statement, or of the genesis; empty if there is none."""
        if seq == 0:
            return self.genesis_digest
        envelope = self.envelopes.get(seq)
        return "" if envelope is None else read_envelope(envelope).statement.hash()

    def governing(self, key_id: KeyId) -> tuple[ActivePolicy, ...]:
        """Return every active policy that matches a key."""
        found = self.matches.get(key_id)
        if found is None:
            found = governing(self.policies.get(key_id.tenant, ()), key_id)
            _remember(self.matches, key_id, found)
        return found

    def view(self, tenant: str) -> GovernedView:
        """Return what names resolve to inside a tenant."""
        found = self.views.get(tenant)
        if found is None:
            found = GovernedView(self.state, tenant)
            _remember(self.views, tenant, found)
        return found


def snapshot_of(
    state: GovernanceState,
    envelopes: Mapping[int, bytes],
    *,
    genesis_digest: str,
    parse: Callable[[bytes], ParsedPolicy],
) -> Snapshot:
    """Return a state that was proven, with its signed envelopes by number.

    Raises:
        IntegrityError: `parse` cannot read a policy in force.
    """
    return Snapshot(
        state=state,
        genesis_digest=genesis_digest,
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
        issuers=tuple(
            TrustedIssuer(
                tenant=one.subject.tenant,
                name=one.subject.name,
                profile=one.content.profile,
                issuer=one.content.issuer,
                audience=one.content.audience,
                keys=one.content.keys,
                roots=frozenset(one.content.roots),
            )
            for one in state.token_issuers.values()
        ),
        policies=_policies(state, parse),
    )


def _policies(
    state: GovernanceState, parse: Callable[[bytes], ParsedPolicy]
) -> Mapping[str, tuple[ActivePolicy, ...]]:
    grouped: dict[str, list[ActivePolicy]] = {}
    for _, one in sorted(state.release_policies.items()):
        grouped.setdefault(one.subject.tenant, []).append(
            ActivePolicy(
                one.subject,
                one.version,
                one.digest,
                one.seq,
                parse(one.content),
            )
        )
    return {tenant: tuple(policies) for tenant, policies in grouped.items()}


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


def _remember(found: dict[Asked, Answer], asked: Asked, answer: Answer) -> None:
    # Guests choose what they ask for: what is remembered of it has an end.
    if len(found) >= REMEMBERED:
        found.clear()
    found[asked] = answer
