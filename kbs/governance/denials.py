"""Which deny entries stand against a release; they come before every policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.ids import KeyRef, ScopedName
from kbs.governance.objects import Deny, DenyTarget
from kbs.governance.state import GovernanceState, InForce
from kbs.governance.statement import EVERY_TENANT

# How verifiers write the identities of devices (`ItemResult.identities`).
_IDENTITY_PREFIXES: Mapping[DenyTarget, str] = {
    DenyTarget.AK: "ak:",
    DenyTarget.CHIP: "chip:",
    DenyTarget.GPU: "gpu:",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSubject:
    """What one release would involve: `key` with the version that would leave.

    `policies` are those that match the key, `identities` the devices' identities,
    `measurements` the launch measurements as lower-case hex.
    """

    key: KeyRef
    policies: frozenset[ScopedName] = frozenset()
    identities: frozenset[str] = frozenset()
    measurements: frozenset[str] = frozenset()


def denials_against(
    state: GovernanceState, subject: ReleaseSubject
) -> tuple[InForce[Deny], ...]:
    """Return every entry that overrides a grant here, by name.

    An entry of a tenant concerns that tenant's keys; one of `*` concerns all.
    """
    scopes = {EVERY_TENANT, subject.key.key_id.tenant}
    return tuple(
        state.denials[name]
        for name in sorted(state.denials)
        if name.tenant in scopes and _matches(state.denials[name].content, subject)
    )


def _matches(deny: Deny, subject: ReleaseSubject) -> bool:
    match deny.target:
        case DenyTarget.ALL:
            return True
        case DenyTarget.POLICY:
            return deny.value in {str(policy) for policy in subject.policies}
        case DenyTarget.KEY:
            return deny.value in {str(subject.key), str(subject.key.key_id)}
        case DenyTarget.MEASUREMENT:
            return deny.value in subject.measurements
        case _:
            named = _IDENTITY_PREFIXES[deny.target] + deny.value
            return named in subject.identities
