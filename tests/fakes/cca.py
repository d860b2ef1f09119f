"""An Arm CCA platform that signs realm and platform tokens with keys of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.cbor import write_cbor
from kbs.core.encode import b64
from kbs.evidence.model import TrustedIssuer
from kbs.pki.issuers import IssuerKey, Profile
from kbs.pki.jwk import PublicJwk

INSTANCE = b"\x01" + bytes(range(32))
IMPLEMENTATION = bytes(range(100, 132))
LEGACY = "http://arm.com/CCA-SSD/1.0.0"
DRAFT = "tag:arm.com,2023:cca_platform#1.0.0"
DRAFT_REALM = "tag:arm.com,2023:realm#1.0.0"


@cache
def cca_key(number: int) -> ec.EllipticCurvePrivateKey:
    """One of a few P-384 keys."""
    return ec.derive_private_key(0x1234567 + number, ec.SECP384R1())


def sign1(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A tagged COSE_Sign1 with ES384."""
    protected = write_cbor({1: -35})
    signed = write_cbor(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    return write_cbor(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as RMM wrote it at first."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def cose_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as a COSE_Key."""
    raw = point(key)
    return write_cbor({1: 2, -1: 2, -2: raw[1:49], -3: raw[49:]})


@dataclass(frozen=True, kw_only=True)
class FakeCca:
    """One platform with one realm; changes go into the claims that are signed."""

    cpak: int = 1
    rak: int = 2
    realm_signer: int | None = None
    draft: bool = True
    wrapped: bool = False
    realm: Mapping[int, Any] = field(default_factory=dict)
    platform: Mapping[int, Any] = field(default_factory=dict)

    def trusted(self, **changes: Any) -> TrustedIssuer:
        """The platform's key as governance would have it."""
        key = IssuerKey(
            key=cca_key(self.cpak).public_key(),
            algorithm="ES384",
            instance_id=INSTANCE,
            implementation_id=IMPLEMENTATION,
        )
        options: dict[str, Any] = {
            "tenant": "acme",
            "name": "platforms",
            "profile": Profile.CCA,
            "keys": (key,),
            **changes,
        }
        return TrustedIssuer(**options)

    def document(self) -> dict[str, object]:
        """The same as a governed object."""
        key = PublicJwk(key=cca_key(self.cpak).public_key(), alg="ES384")
        platform = {
            "key": key.to_json(),
            "instance_id": INSTANCE.hex(),
            "implementation_id": IMPLEMENTATION.hex(),
        }
        return {"profile": "cca", "platforms": [platform]}

    def token(self, challenge: bytes) -> bytes:
        """The whole token over a challenge of 64 bytes."""
        rak = cca_key(self.rak)
        public = cose_key(rak) if self.draft else point(rak)
        realm = {
            10: challenge,
            44235: bytes(64),
            44236: "sha-256",
            44237: public,
            44238: b"\xab" * 32,
            44239: [bytes([index]) * 32 for index in range(4)],
            44240: "sha-256",
            **({265: DRAFT_REALM} if self.draft else {}),
            **self.realm,
        }
        platform = {
            265: DRAFT if self.draft else LEGACY,
            10: hashlib.sha256(public).digest(),
            2396: IMPLEMENTATION,
            256: INSTANCE,
            2401: b"\xcf" * 4,
            2395: 0x3003,
            2402: "sha-256",
            2399: [{1: "BL2", 2: b"\x01" * 32, 4: "1.0", 5: b"\x02" * 32}],
            **self.platform,
        }
        signer = self.rak if self.realm_signer is None else self.realm_signer
        return self.collection(
            sign1(_encoded(platform), cca_key(self.cpak)),
            sign1(_encoded(realm), cca_key(signer)),
        )

    def collection(self, platform: bytes, realm: bytes) -> bytes:
        """Both tokens in the form that is asked for."""
        if self.wrapped:
            members: dict[object, object] = {
                44234: [263, platform],
                44241: [263, realm],
            }
            return write_cbor(cbor2.CBORTag(907, members))
        return write_cbor(cbor2.CBORTag(399, {44234: platform, 44241: realm}))

    def item(self, challenge: bytes) -> dict[str, object]:
        """A bundle's item."""
        return {"kind": "cca", "token": b64(self.token(challenge))}


def _encoded(claims: Mapping[int, Any]) -> bytes:
    return write_cbor(
        {label: value for label, value in claims.items() if value is not None}
    )
