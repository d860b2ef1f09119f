"""What names in a policy resolve to inside one tenant, under proven governance."""

from __future__ import annotations

from kbs.core.ids import ScopedName
from kbs.governance.objects import ReferenceSet as GovernedReferences
from kbs.governance.objects import WorkloadPolicy
from kbs.governance.state import GovernanceState, InForce
from kbs.policy.context import ReferenceSet, WorkloadDigests, candidates


class GovernedView:
    """One tenant's view of what is in force; a `kbs.policy.context.TenantView`."""

    __slots__ = ("_shared", "_state", "_tenant")

    def __init__(self, state: GovernanceState, tenant: str) -> None:
        """Resolve in `tenant`, and in `shared/` where the authority allows."""
        self._state = state
        self._tenant = tenant
        self._shared = state.authority.content.may_share(tenant)

    @property
    def shared(self) -> bool:
        """Whether `shared/` counts in this tenant."""
        return self._shared

    def reference(self, name: str) -> ReferenceSet | None:
        """Return a reference set, expired or not."""
        found = self.reference_object(name)
        if found is None:
            return None
        return ReferenceSet(values=found.content.values, expires=found.content.expires)

    def reference_object(self, name: str) -> InForce[GovernedReferences] | None:
        """Return the governed object that a reference name stands for."""
        for full in self._candidates(name):
            if full in self._state.reference_sets:
                return self._state.reference_sets[full]
        return None

    def workload_policy(self, name: str, version: int) -> WorkloadDigests | None:
        """Return the digests of one version of a workload policy."""
        found = self.workload_object(name, version)
        if found is None:
            return None
        return WorkloadDigests(
            sha256=found.content.sha256,
            sha384=found.content.sha384,
            sha512=found.content.sha512,
        )

    def workload_object(
        self, name: str, version: int
    ) -> InForce[WorkloadPolicy] | None:
        """Return the governed object that a workload policy's name stands for."""
        for full in self._candidates(name):
            found = self._state.workload_policy(full, version)
            if found is not None:
                return found
        return None

    def has_ak_group(self, name: str) -> bool:
        """Whether a group of this name may hold keys; a group needs no preparation."""
        return any(True for _ in self._candidates(name))

    def has_ca(self, name: str) -> bool:
        """Whether such a CA is registered: `shared/NAME` for one of `shared/`.

        As the claim says it (`Claims.scoped_to`): a bare name is the tenant's own.
        """
        own = candidates(name, self._tenant, shared=self._shared and "/" in name)
        return any(full in self._state.cas for full in own)

    def _candidates(self, name: str) -> tuple[ScopedName, ...]:
        return tuple(candidates(name, self._tenant, shared=self._shared))
