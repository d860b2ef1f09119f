"""Who signs attestation tokens: the profiles, and the algorithms fixed for each.

A profile says how tokens of one service are read. What is trusted is never here: an
issuer and its keys count because administrators signed them (`token-issuer`), or
because somebody vouches for them at the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbs.core.errors import MalformedError
from kbs.pki.jwk import PublicJwk, PublicKey


class Profile(StrEnum):
    """Services whose tokens are read; also the family of their claims."""

    MAA = "maa"  # Microsoft Azure Attestation
    ITA = "ita"  # Intel Trust Authority
    NRAS = "nras"  # NVIDIA Remote Attestation Service
    GCS = "gcs"  # Google Cloud Attestation: Confidential Space
    EAR = "ear"  # EAT attestation results of any other verifier (Trustee, Veraison)
    CCA = "cca"  # Arm CCA platforms: keys of platform tokens, no JWT


ALGORITHMS: Mapping[Profile, tuple[str, ...]] = {
    # Each service's own signing keys; Azure Attestation: "RS256" in every example of
    # its documentation. Intel: PS384, or RS256 where the request asks for it.
    Profile.MAA: ("RS256",),
    Profile.ITA: ("PS384", "RS256"),
    Profile.NRAS: ("ES384",),
    Profile.GCS: ("RS256",),
    # Any verifier: which of these is fixed by its key, whose JWK must leave no doubt.
    Profile.EAR: (
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
    ),
    Profile.CCA: ("ES256", "ES384", "ES512"),
}
"""JWS algorithms by profile. None is symmetric, and `none` is not one."""

CERTIFIED = frozenset({Profile.GCS})
"""Profiles whose tokens may carry their chain (`x5c`) to a pinned root: Confidential
Space's PKI tokens. For the others a chain in a token says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKey:
    """One key of an issuer, with the only algorithm that it is used with.

    `instance_id` and `implementation_id` name the platform of a CCA key.
    """

    key: PublicKey
    algorithm: str
    kid: str | None = None
    instance_id: bytes | None = None
    implementation_id: bytes | None = None


def issuer_key(jwk: PublicJwk, profile: Profile, what: str) -> IssuerKey:
    """Return a key with its algorithm.

    Raises:
        MalformedError: the profile does not sign with such a key, or with several
            algorithms and the JWK does not say which.
    """
    usable = [one for one in ALGORITHMS[profile] if one in jwk.algorithms]
    if jwk.alg is not None:
        usable = [one for one in usable if one == jwk.alg]
    if len(usable) != 1:
        raise MalformedError(
            f"{what} alg",
            got=jwk.alg or "none",
            expected=f"exactly one of {', '.join(ALGORITHMS[profile])}, named by the "
            "key",
        )
    return IssuerKey(key=jwk.key, algorithm=usable[0], kid=jwk.kid)
