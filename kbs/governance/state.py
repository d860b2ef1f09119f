"""What is in force, as data: every governed object with the statement that made it so.

`kbs.governance.chain` proves it; nothing else makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from kbs.core.ids import ScopedName
from kbs.governance.attestation_key import AttestationKey
from kbs.governance.authority import Authority
from kbs.governance.objects import (
    CertificationAuthority,
    Deny,
    ReferenceSet,
    WorkloadPolicy,
)
from kbs.governance.statement import Kind
from kbs.governance.token_issuer import TokenIssuer

T = TypeVar("T")

Seen = Mapping[tuple[Kind, ScopedName, int], str]
"""Which digest each version of each object has, for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce(Generic[T]):
    """One object in force; `seq` is that of the statement that made it so."""

    subject: ScopedName
    version: int
    digest: str
    seq: int
    content: T


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """A row of the chain: the envelope as accepted, and when it was."""

    envelope: bytes
    accepted: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceState:
    """Everything in force after statement `head_seq`, whose hash is `head_hash`.

    The mappings are never changed: `extend` returns a state with mappings of its own.
    """

    instance: str
    head_seq: int
    head_hash: str
    authority: InForce[Authority]
    release_policies: Mapping[ScopedName, InForce[bytes]]
    workload_policies: Mapping[tuple[ScopedName, int], InForce[WorkloadPolicy]]
    reference_sets: Mapping[ScopedName, InForce[ReferenceSet]]
    aks: Mapping[ScopedName, InForce[AttestationKey]]
    cas: Mapping[ScopedName, InForce[CertificationAuthority]]
    token_issuers: Mapping[ScopedName, InForce[TokenIssuer]]
    denials: Mapping[ScopedName, InForce[Deny]]
    seen: Seen

    def workload_policy(
        self, name: ScopedName, version: int
    ) -> InForce[WorkloadPolicy] | None:
        """Return one active version of a workload policy."""
        return self.workload_policies.get((name, version))
