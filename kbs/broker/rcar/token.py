"""The attestation result that a guest of this door is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kbs.broker.attest import Attested
from kbs.broker.identity import Identity
from kbs.broker.rcar.presented import RcarPresented
from kbs.channel.ear import Submodule
from kbs.core.claims import Claims, ItemClaims

UNPROVEN = frozenset({"sample", "sampledevice"})
"""Families of claims that no hardware vouches for."""

_PRIMARY = "cpu"
_DEVICE = "gpu"
_CLASSES: Mapping[str, str] = {"nvswitch": "switch"}
"""Families whose submodules are not called `gpu`."""


def issue_token(
    identity: Identity, attested: Attested[RcarPresented], decision: str
) -> str:
    """Return the token of evidence that was verified."""
    return identity.ear_signer.token(
        _submodules(attested),
        decision=decision,
        policy=f"governance-{attested.snapshot.state.head_seq}",
        now=attested.now,
        expires=attested.asked.session.expires,
    )


def _submodules(attested: Attested[RcarPresented]) -> list[Submodule]:
    claims = attested.result.claims
    counts: Counter[str] = Counter()
    found = []
    for item in () if claims is None else claims.items:
        is_primary = item.item == attested.result.primary
        sort = _PRIMARY if is_primary else _CLASSES.get(item.family, _DEVICE)
        found.append(
            Submodule(
                name=f"{sort}{counts[sort]}",
                genuine=item.family not in UNPROVEN,
                annotated=_annotated(attested.asked, item, is_primary=is_primary),
            )
        )
        counts[sort] += 1
    return found


def _annotated(
    asked: RcarPresented, item: ItemClaims, *, is_primary: bool
) -> dict[str, object]:
    claims = Claims(items=(item,), request={}).to_json()
    if not is_primary:
        return claims
    runtime_data = {
        "nonce": asked.session.nonce,
        "tee-pubkey": asked.tee_key.to_json(),
    }
    return {"runtime_data_claims": runtime_data, **claims}
