"""ECDSA over P-256 in raw numbers, as Intel's hardware and service write it.

P-384, which is dear, is in `ecdsa`; this curve is fast in `cryptography` itself.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


def is_p256_signature(key: PublicKeyTypes, raw: bytes, message: bytes) -> bool:
    """Whether raw is r and s (32 bytes each, big-endian), with SHA-256, by a P-256 key.

    A key of another kind is simply no key that could have made it: False.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(key.curve, ec.SECP256R1):
        return False
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def p256_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the key whose x and y these 64 bytes are; None if no such point is."""
    x, y = int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        return None
