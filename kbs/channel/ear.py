"""Attestation results as guests of the RCAR protocol expect them: an EAR in a JWT.

EAT Attestation Result (draft-ietf-rats-ear) in the profile that Trustee writes: ES256,
the verification key in the header. It says what evidence proved; what may be had for
it is decided when something is asked for, never by the token. `jti` is the id of the
attestation's decision, by which the broker finds what it recorded itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.types import Options

from kbs import __version__
from kbs.core.encode import b64u
from kbs.core.errors import AuthenticationError, said_by

PROFILE = "tag:github.com,2024:confidential-containers/Trustee"

MAX_TOKEN_CHARACTERS = 512 * 1024

# AR4SI trustworthiness claims (draft-ietf-rats-ar4si), section 2.3.
GENUINE_HARDWARE = 2
UNTRUSTED_HARDWARE = 97
_VECTOR = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_COORDINATE_BYTES = 32

# Every option is spelled out. Times are judged below, against the injected clock.
_OPTIONS: Options = {
    "verify_signature": True,
    "require": ["iss", "exp", "jti"],
    "verify_iss": True,
    "verify_jti": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_sub": False,
    "enforce_minimum_key_length": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """What was found of one device: its name in the token, and its claims by family.

    `genuine` is False for evidence that no hardware vouches for.
    """

    name: str
    genuine: bool
    annotated: Mapping[str, object]

    def to_json(self, policy: str) -> dict[str, object]:
        """Return the submodule of the token."""
        hardware = GENUINE_HARDWARE if self.genuine else UNTRUSTED_HARDWARE
        vector = dict.fromkeys(_VECTOR, 0) | {"hardware": hardware}
        return {
            "ear.status": "affirming" if self.genuine else "contraindicated",
            "ear.trustworthiness-vector": vector,
            "ear.appraisal-policy-id": policy,
            "ear.veraison.annotated-evidence": dict(self.annotated),
        }


class EarSigner:
    """Signs the tokens of one issuer; what they have in common is made once."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, issuer: str) -> None:
        """Sign with a P-256 key."""
        self._key = key
        self._issuer = issuer
        # The guest looks for the key's algorithm in the JWK, and for no `kid`.
        self._headers = {"jwk": {"alg": "ES256", **public_jwk(key.public_key())}}

    def token(
        self,
        submodules: Sequence[Submodule],
        *,
        decision: str,
        policy: str,
        now: datetime,
        expires: datetime,
    ) -> str:
        """Return the token of one attestation."""
        claims = {
            "eat_profile": PROFILE,
            "iat": int(now.timestamp()),
            "exp": int(expires.timestamp()),
            "iss": self._issuer,
            "jti": decision,
            "ear.verifier-id": {"developer": "kbs", "build": f"kbs {__version__}"},
            "submods": {one.name: one.to_json(policy) for one in submodules},
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers=self._headers)


def verify_ear(
    token: str, key: ec.EllipticCurvePublicKey, *, issuer: str, now: datetime
) -> str:
    """Return the decision id of a token that this broker signed and that is current.

    The key in its header is not looked at.

    Raises:
        AuthenticationError: `ear.malformed`, `.signature` or `.expired`.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise _fault("malformed", "another text")
    try:
        claims: dict[str, object] = jwt.decode(
            token, key, algorithms=["ES256"], options=_OPTIONS, issuer=issuer
        )
    except jwt.InvalidSignatureError as exc:
        raise _fault("signature", "a signature of another key") from exc
    except (jwt.PyJWTError, ValueError, RecursionError) as exc:
        raise _fault("malformed", said_by(exc)) from exc
    expires, decision = claims["exp"], claims["jti"]
    if type(expires) is not int or not isinstance(decision, str):
        raise _fault("malformed", "claims of another type")
    if not _HEX32.fullmatch(decision):
        raise _fault("malformed", "another jti")
    if int(now.timestamp()) >= expires:
        raise _fault("expired", f"one that ended at {expires}")
    return decision


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return a P-256 key as a JWK."""
    point = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64u(point.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": b64u(point.y.to_bytes(_COORDINATE_BYTES, "big")),
    }


def _fault(name: str, got: str) -> AuthenticationError:
    return AuthenticationError(
        "attestation token",
        got=got,
        expected="a current token of this broker",
        hint="attest again",
        code=f"ear.{name}",
    )
