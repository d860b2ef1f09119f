"""The one place that verifies the ECDSA signature of a hardware report.

This is the dearest step of a release, so it is made by AWS-LC where that is at hand
(`awscrt`, two to three times faster on this curve) and by `cryptography` where it is
not. Both give the same answer to the same bytes: tests compare them.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.pki.cache import Findings


class VerificationKey(Protocol):
    """A public key that AWS-LC has read."""

    def verify(self, digest: bytes, signature: bytes, /) -> bool:
        """Whether the DER signature is one over the digest."""
        ...


_KEYS: Findings[VerificationKey] = Findings()


def is_p384_signature(key: PublicKeyTypes, r: int, s: int, message: bytes) -> bool:
    """Whether (r, s) is an ECDSA signature with SHA-384 by a P-384 key over `message`.

    A key of another kind is simply no key that could have made it: False.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(key.curve, ec.SECP384R1):
        return False
    signature = encode_dss_signature(r, s)
    found = verify_by_aws_lc(key, signature, message)
    return verify_by_openssl(key, signature, message) if found is None else found


def verify_by_openssl(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes
) -> bool:
    """Whether `cryptography` verifies a DER signature with SHA-384."""
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def verify_by_aws_lc(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes
) -> bool | None:
    """Whether AWS-LC verifies a DER signature with SHA-384; None without it."""
    maker = _aws_lc()
    if maker is None:
        return None
    known = _KEYS.find((key,))
    if known is None:
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        known = _KEYS.keep((key,), found=maker.new_key_from_der_data(spki))
    return known.verify(hashlib.sha384(message).digest(), signature)


class _Maker(Protocol):
    def new_key_from_der_data(self, spki: bytes, /) -> VerificationKey: ...


@cache
def _aws_lc() -> _Maker | None:
    # Loaded with the first report: it takes a tenth of a second.
    try:
        from awscrt.crypto import EC  # noqa: PLC0415
    except ImportError:
        return None
    return cast("_Maker", EC)
