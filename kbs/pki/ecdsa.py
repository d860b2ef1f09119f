"""The one place that verifies the ECDSA signatures of hardware and its vendors.

This is the dearest step of a release (P-384: about half a millisecond in
`cryptography`), so it stands behind functions of numbers and bytes that another
library can fill.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


def is_p384_signature(key: PublicKeyTypes, r: int, s: int, message: bytes) -> bool:
    """Whether (r, s) is an ECDSA signature with SHA-384 by a P-384 key over `message`.

    A key of another kind is simply no key that could have made it: False.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(key.curve, ec.SECP384R1):
        return False
    return _is_signature(key, r, s, message, hashes.SHA384())


def is_p256_signature(key: PublicKeyTypes, raw: bytes, message: bytes) -> bool:
    """Whether raw is r and s (32 bytes each, big-endian), with SHA-256, by a P-256 key.

    A key of another kind is simply no key that could have made it: False.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(key.curve, ec.SECP256R1):
        return False
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    return _is_signature(key, r, s, message, hashes.SHA256())


def p256_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the key whose x and y these 64 bytes are; None if no such point is."""
    x, y = int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        return None


def _is_signature(
    key: ec.EllipticCurvePublicKey,
    r: int,
    s: int,
    message: bytes,
    digest: hashes.HashAlgorithm,
) -> bool:
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True
