"""The one place that verifies the ECDSA signature of a hardware report.

This is the dearest step of a release (about half a millisecond in `cryptography`),
so it stands behind one function of numbers and bytes that another library can fill.
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
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
