"""What the names in a policy resolve to: reference sets, workload policies, AK groups.

Names resolve inside the policy's tenant, or in `shared/` where the authority allows
(decisions, section 2.1). The broker answers from governance; a `context.yaml` beside
an example policy answers from files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from kbs.core.ids import SHARED_TENANT, ScopedName
from kbs.policy.model import Dependencies, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSet:
    """Named values that somebody vouched for, perhaps until some time."""

    values: tuple[Scalar, ...]
    expires: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadDigests:
    """Digests (hex) of a workload policy's exact bytes, for each kind of register."""

    sha256: str
    sha384: str
    sha512: str

    @staticmethod
    def of(document: bytes) -> WorkloadDigests:
        """Digest the exact bytes."""
        return WorkloadDigests(
            sha256=hashlib.sha256(document).hexdigest(),
            sha384=hashlib.sha384(document).hexdigest(),
            sha512=hashlib.sha512(document).hexdigest(),
        )

    def by(self, algorithm: str) -> str | None:
        """Return the digest by a register's hash, None for a hash nobody stores."""
        return {
            "sha256": self.sha256,
            "sha384": self.sha384,
            "sha512": self.sha512,
        }.get(algorithm)


class TenantView(Protocol):
    """What one tenant's names resolve to, under one state of governance.

    `name` is `NAME` (the tenant's, else the shared one where that is allowed),
    `TENANT/NAME` of this tenant, or `shared/NAME`. None means: there is no such thing.
    """

    def reference(self, name: str) -> ReferenceSet | None:
        """Return a reference set, expired or not."""
        ...

    def workload_policy(self, name: str, version: int) -> WorkloadDigests | None:
        """Return the digests of one version of a workload policy."""
        ...

    def has_ak_group(self, name: str) -> bool:
        """Whether attestation keys can be enrolled in such a group."""
        ...

    def has_ca(self, name: str) -> bool:
        """Whether such a CA is registered."""
        ...


def candidates(name: str, tenant: str, *, shared: bool) -> Iterator[ScopedName]:
    """Yield the full names that `name` may stand for, the tenant's own first.

    Names of other tenants yield nothing.
    """
    owner, slash, rest = name.partition("/")
    if not slash:
        yield ScopedName(tenant, name)
        if shared and tenant != SHARED_TENANT:
            yield ScopedName(SHARED_TENANT, name)
    elif owner == tenant or (shared and owner == SHARED_TENANT):
        yield ScopedName(owner, rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that names can refer to, of all tenants, held in memory."""

    references: Mapping[ScopedName, ReferenceSet] = field(default_factory=dict)
    workload_policies: Mapping[tuple[ScopedName, int], WorkloadDigests] = field(
        default_factory=dict
    )
    ak_groups: Mapping[ScopedName, tuple[bytes, ...]] = field(default_factory=dict)
    """Attestation keys (TPM2B_PUBLIC) by group."""
    cas: Mapping[ScopedName, bytes] = field(default_factory=dict)
    """Certificates (PEM) by name."""
    shared: bool = True
    """Whether tenants may use what is in `shared/`."""

    def view(self, tenant: str) -> ContextView:
        """Return what `tenant` sees."""
        return ContextView(self, tenant)


@dataclass(frozen=True, slots=True)
class ContextView:
    """One tenant's view of a `Context`; a `TenantView`."""

    context: Context
    tenant: str

    def reference(self, name: str) -> ReferenceSet | None:
        """Return a reference set, expired or not."""
        for full in self._candidates(name):
            if full in self.context.references:
                return self.context.references[full]
        return None

    def workload_policy(self, name: str, version: int) -> WorkloadDigests | None:
        """Return the digests of one version of a workload policy."""
        for full in self._candidates(name):
            if (full, version) in self.context.workload_policies:
                return self.context.workload_policies[full, version]
        return None

    def has_ak_group(self, name: str) -> bool:
        """Whether the context lists such a group."""
        return any(full in self.context.ak_groups for full in self._as_claimed(name))

    def has_ca(self, name: str) -> bool:
        """Whether the context lists such a CA."""
        return any(full in self.context.cas for full in self._as_claimed(name))

    def _as_claimed(self, name: str) -> Iterator[ScopedName]:
        """As claims name groups and CAs: those of `shared/` only with their scope."""
        shared = self.context.shared and "/" in name
        return candidates(name, self.tenant, shared=shared)

    def _candidates(self, name: str) -> Iterator[ScopedName]:
        return candidates(name, self.tenant, shared=self.context.shared)


def missing_names(dependencies: Dependencies, view: TenantView) -> tuple[str, ...]:
    """Return a sentence for every name of a policy that resolves to nothing."""
    found = [
        f"reference {name} does not exist"
        for name in sorted(dependencies.references)
        if view.reference(name) is None
    ]
    found += [
        f"workload policy {name} version {version} does not exist"
        for name, version in sorted(dependencies.workload_policies)
        if view.workload_policy(name, version) is None
    ]
    found += [
        f"AK group {name} does not exist"
        for name in sorted(dependencies.ak_groups)
        if not view.has_ak_group(name)
    ]
    found += [
        f"CA {name} does not exist"
        for name in sorted(dependencies.cas)
        if not view.has_ca(name)
    ]
    return tuple(found)
