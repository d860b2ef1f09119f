"""EAT attestation results (EAR, draft-ietf-rats-ear) of any other verifier.

Trustee's attestation service and Veraison write them. Each submodule is a device with
claims of its own: a policy says `every: ear`. What the verifier appraised by, and what
its evidence was, stays its business; the status and the trustworthiness vector
(draft-ietf-rats-ar4si, section 2.3) are claims. Bound by `eat_nonce`.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import ClaimType, ClaimValue, Safety
from kbs.evidence.token.fields import Table, object_at, read_fields, text_at
from kbs.evidence.token.service import Service, Token, eat_nonce, is_eat_nonce
from kbs.pki.issuers import Profile

_MAX_SUBMODULES = 32
_OWN = "kbs"

_TABLE = Table("ear", "attestation result in the token")
_ROW = _TABLE.row
_VECTOR = "ear.trustworthiness-vector"

TOP_FIELDS = (
    _ROW("iss", ClaimType.TEXT, "the verifier that signed"),
    _ROW("eat_profile", ClaimType.TEXT, "EAT profile"),
    _ROW(("ear.verifier-id", "developer"), ClaimType.TEXT, "whose software appraised"),
    _ROW(("ear.verifier-id", "build"), ClaimType.TEXT, "which software appraised"),
)
SUBMODULE_FIELDS = (
    _ROW(
        "ear.status",
        ClaimType.TEXT,
        "the verifier's overall appraisal of the submodule",
        safety=Safety(
            reason="the verifier did not find it trustworthy", default=("affirming",)
        ),
    ),
    _ROW("ear.appraisal-policy-id", ClaimType.TEXT, "policy that it appraised by"),
    *(
        _ROW((_VECTOR, name), ClaimType.INT, f"trustworthiness vector: {name}")
        for name in (
            "instance-identity",
            "configuration",
            "executables",
            "file-system",
            "hardware",
            "runtime-opaque",
            "storage-opaque",
            "sourced-data",
        )
    ),
)
_SUBMODULE = _TABLE.spec(
    "submodule", ClaimType.TEXT, "name of the submodule, such as cpu0"
)


def is_own(claims: Mapping[str, object]) -> bool:
    """Whether a token says that a broker like this one appraised."""
    return text_at(claims, "ear.verifier-id", "developer") == _OWN


def _devices(token: Token) -> tuple[dict[str, ClaimValue], ...]:
    top = read_fields(TOP_FIELDS, token.claims)
    submodules = object_at(token.claims, "submods")
    found = [
        {**top, **read_fields(SUBMODULE_FIELDS, one), _SUBMODULE.name: name}
        for name, one in sorted(submodules.items())[:_MAX_SUBMODULES]
        if isinstance(one, dict)
    ]
    # A submodule that is no object, or one too many, leaves nothing to judge.
    if len(found) != len(submodules) or not found:
        return (top,)
    return tuple(found)


SERVICE = Service(
    profile=Profile.EAR,
    fields=(*TOP_FIELDS, *SUBMODULE_FIELDS),
    derived=(_SUBMODULE,),
    devices=_devices,
    bound=eat_nonce,
    is_bound=is_eat_nonce,
)
