"""The table of services, and which of them a token says it is from.

What a token says decides only how it is read: its signature must then be by a key of an
issuer that is registered under the same profile and the same `iss`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from kbs.evidence.token import ear, gcs, ita, maa, nras
from kbs.evidence.token.service import Service
from kbs.pki.issuers import Profile

SERVICES: Mapping[Profile, Service] = MappingProxyType(
    {
        service.profile: service
        for service in (
            maa.SERVICE,
            ita.SERVICE,
            nras.SERVICE,
            gcs.SERVICE,
            ear.SERVICE,
        )
    }
)

# How the services name themselves in `iss`, clouds of their own included.
_ISSUERS: tuple[tuple[Profile, re.Pattern[str]], ...] = (
    (
        Profile.MAA,
        re.compile(
            r"https://[a-z0-9-]+(?:\.[a-z0-9-]+)*\.attest\.azure\.(?:net|us|cn)"
        ),
    ),
    (
        Profile.ITA,
        re.compile(
            r"Intel Trust Authority"
            r"|https://portal(?:\.[a-z0-9-]+)?\.trustauthority\.intel\.com"
        ),
    ),
    (
        Profile.NRAS,
        re.compile(r"https://nras\.attestation(?:-[a-z0-9]+)?\.nvidia\.com"),
    ),
    (Profile.GCS, re.compile(r"https://confidentialcomputing\.googleapis\.com")),
)
# What only tokens of one service have, for installations under another name.
_MARKS: tuple[tuple[Profile, frozenset[str]], ...] = (
    (Profile.MAA, frozenset({"x-ms-ver", "x-ms-attestation-type"})),
    (Profile.ITA, frozenset({"attester_type", "verifier_instance_ids"})),
    (Profile.NRAS, frozenset({"x-nvidia-overall-att-result"})),
)


def profile_of(claims: Mapping[str, object]) -> Profile:
    """Return the profile by which claims are read; EAR where nothing else fits."""
    issuer = claims.get("iss")
    if isinstance(issuer, str):
        for profile, pattern in _ISSUERS:
            if pattern.fullmatch(issuer):
                return profile
    for profile, marks in _MARKS:
        if marks <= claims.keys():
            return profile
    return Profile.EAR
