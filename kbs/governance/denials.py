"""Which deny entries stand against a release; they come before every policy.

An entry on an AK names the key itself (SPKI SHA-256), which always matches, or its TPM
name. A name covers the public area as well as the key, and of a key that is trusted
because of a certificate the host writes that area. So a name is looked for everywhere
it can be proven: as the name of an enrolled key, as the key that some tenant enrolled
under it, and as the signer in the quote where that is a primary key. A key that lies
below another key and is trusted by a certificate alone can be denied by SPKI only.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, ScopedName
from kbs.governance.attestation_key import qualified_names, spki_sha256
from kbs.governance.objects import (
    CHIP_ID_BYTES,
    SPKI_SHA256_BYTES,
    Deny,
    DenyTarget,
)
from kbs.governance.state import GovernanceState, InForce
from kbs.governance.statement import EVERY_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSubject:
    """What one release would involve: `key` with the version that would leave.

    `policies` are those that match the key, `identities` the devices' identities as
    verifiers write them (`ItemResult.identities`), `measurements` the launch
    measurements as lower-case hex.
    """

    key: KeyRef
    policies: frozenset[ScopedName] = frozenset()
    identities: frozenset[str] = frozenset()
    measurements: frozenset[str] = frozenset()


def denials_against(
    state: GovernanceState, subject: ReleaseSubject
) -> tuple[InForce[Deny], ...]:
    """Return every entry that overrides a grant here, by name.

    An entry of a tenant concerns that tenant's keys; one of `*` concerns all. An AK
    that is denied by its TPM name is denied by the key that is enrolled under it, too.
    """
    scopes = {EVERY_TENANT, subject.key.key_id.tenant}
    return tuple(
        state.denials[name]
        for name in sorted(state.denials)
        if name.tenant in scopes
        and _matches(state.denials[name].content, subject, state)
    )


def _matches(deny: Deny, subject: ReleaseSubject, state: GovernanceState) -> bool:
    match deny.target:
        case DenyTarget.ALL:
            return True
        case DenyTarget.POLICY:
            return deny.value in {str(policy) for policy in subject.policies}
        case DenyTarget.KEY:
            return deny.value in {str(subject.key), str(subject.key.key_id)}
        case DenyTarget.MEASUREMENT:
            return deny.value in subject.measurements
        case DenyTarget.AK:
            return not subject.identities.isdisjoint(_key_identities(deny, state))
        case DenyTarget.CHIP:
            # Verifiers write the chip as CHIP_ID has it, padded with zeros.
            padded = deny.value.ljust(2 * CHIP_ID_BYTES, "0")
            return f"chip:{padded}" in subject.identities
        case _:
            return f"gpu:{deny.value}" in subject.identities


def _key_identities(deny: Deny, state: GovernanceState) -> set[str]:
    if len(deny.value) == 2 * SPKI_SHA256_BYTES:
        return {f"spki:{deny.value}"}
    name = bytes.fromhex(deny.value)
    enrolled = {
        key.content.public for key in state.aks.values() if key.content.name == name
    }
    keys = {f"spki:{spki}" for spki in map(_spki, enrolled) if spki is not None}
    signers = {f"qn:{one.hex()}" for one in qualified_names(name)}
    return {f"ak:{deny.value}", *keys, *signers}


def _spki(public: bytes) -> str | None:
    try:
        return spki_sha256(public)
    except MalformedError:  # no verifier can read it either, so it counts nowhere
        return None
