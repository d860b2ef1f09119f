"""For whom a trusted attestation key counts, and what is proven of it there.

A key may be trusted by several tenants for different reasons. What one of them says
of it (a group, a CA's name, the TPM name that follows from the public area which it
enrolled) is a claim in that tenant only.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.claims import ClaimValue
from kbs.evidence.model import EnrolledKey
from kbs.evidence.vtpm.anchors import GOOGLE_ROOTS, Anchor
from kbs.evidence.vtpm.instance import instance_claims
from kbs.evidence.vtpm.item import AttestationKey

NAME_CLAIM = "vtpm.ak.name"
_GROUP_CLAIM = "vtpm.ak.group"
_CA_CLAIM = "vtpm.ak.ca"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything that makes one key trusted; `bare` if it came without its area."""

    enrolled: tuple[EnrolledKey, ...]
    anchors: tuple[Anchor, ...]
    vouched: AttestationKey | None
    bare: bool

    @property
    def counted(self) -> tuple[Anchor, ...]:
        """The anchors in whose scope the attributes of the key are proven.

        Where nobody proves them, all anchors, for the attributes' check to refuse.
        """
        # A pinned maker's word that it is an attestation key is good for everybody.
        by_maker = any(one.attests for one in self.anchors if one.tenant is None)
        counted = tuple(
            one
            for one in self.anchors
            if one.tenant in self._tenants
            or (not self.bare and (one.attests or by_maker))
        )
        return counted if counted or self.enrolled else self.anchors

    @property
    def names(self) -> tuple[bytes, ...]:
        """The TPM names that an enrolment, or the caller, says the key has."""
        names = [key.name for key in self.enrolled]
        if self.vouched is not None and self.vouched.public is not None:
            names.append(self.vouched.public.name)
        return tuple(dict.fromkeys(names))

    def values(self) -> dict[str, ClaimValue]:
        """Return the claims that hold for everybody who trusts the key."""
        values: dict[str, ClaimValue] = {}
        # Pinned roots have capitals and spaces in their names, which no registered
        # CA's name can have, so a policy that names a tenant's own CA never means a
        # root.
        roots = [anchor.name for anchor in self.anchors if anchor.tenant is None]
        if roots:
            values[_CA_CLAIM] = roots[0]
        for anchor in self.anchors:
            if anchor.tenant is None and anchor.name in GOOGLE_ROOTS:
                values |= instance_claims(anchor.chain.certificates[0], "vtpm")
        if self._one_name:
            values[NAME_CLAIM] = self.names[0].hex()
        return values

    def scoped(self) -> dict[str, dict[str, ClaimValue]]:
        """Return the claims that hold in one tenant."""
        scoped: dict[str, dict[str, ClaimValue]] = {}
        # A key that is enrolled twice in a tenant keeps its first group there.
        for key in self.enrolled:
            members = scoped.setdefault(key.tenant, {})
            members.setdefault(_GROUP_CLAIM, key.group)
            if not self._one_name:
                members.setdefault(NAME_CLAIM, key.name.hex())
        for anchor in self.counted:
            if anchor.tenant is not None:
                members = scoped.setdefault(anchor.tenant, {})
                members.setdefault(_CA_CLAIM, anchor.name)
        return scoped

    def trusted_in(self) -> frozenset[str] | None:
        """Return the tenants in which the key counts; None is all."""
        tenants = {anchor.tenant for anchor in self.counted}
        if self.vouched is not None or None in tenants:
            return None
        named = {tenant for tenant in tenants if tenant is not None}
        return frozenset(self._tenants | named)

    @property
    def _tenants(self) -> frozenset[str]:
        return frozenset(key.tenant for key in self.enrolled)

    @property
    def _one_name(self) -> bool:
        # A name is proven to those who enrolled it and to who vouches, to nobody else.
        proven = all(anchor.tenant in self._tenants for anchor in self.counted)
        return len(self.names) == 1 and (proven or self.vouched is not None)
