"""COSE_Sign1 (RFC 9052, section 4.2): shape, and signature under a given key.

::

    [protected: bstr .cbor map, unprotected: map, payload: bstr, signature: bstr]

with or without tag 18. The algorithm stands in the protected header. Whose key it is,
and what the payload means, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kbs.core.cbor import Tagged, parse_cbor, write_cbor
from kbs.core.errors import MalformedError
from kbs.pki.ecdsa import is_p384_signature

TAG = 18
"""CBOR tag of COSE_Sign1 (RFC 9052, section 2)."""

_MEMBERS = 4
# RFC 9052, section 3.1: labels of common header parameters.
_ALG, _CRIT = 1, 2
_MIN_RSA_BITS = 2048


class CoseAlgorithm(IntEnum):
    """IANA COSE Algorithms (RFC 9053, section 2.1; RFC 8230, section 2)."""

    ES256 = -7
    ES384 = -35
    ES512 = -36
    PS256 = -37
    PS384 = -38
    PS512 = -39


_HASHES: Mapping[CoseAlgorithm, hashes.HashAlgorithm] = {
    CoseAlgorithm.ES256: hashes.SHA256(),
    CoseAlgorithm.ES384: hashes.SHA384(),
    CoseAlgorithm.ES512: hashes.SHA512(),
    CoseAlgorithm.PS256: hashes.SHA256(),
    CoseAlgorithm.PS384: hashes.SHA384(),
    CoseAlgorithm.PS512: hashes.SHA512(),
}
# RFC 9053 leaves the curve open; one curve for each algorithm is what signers use.
_CURVES: Mapping[CoseAlgorithm, str] = {
    CoseAlgorithm.ES256: ec.SECP256R1.name,
    CoseAlgorithm.ES384: ec.SECP384R1.name,
    CoseAlgorithm.ES512: ec.SECP521R1.name,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign1:
    """A COSE_Sign1 in its parts; `protected` as it was encoded, since that is signed.

    `unprotected` is not signed: nothing may be concluded from it.
    """

    protected: bytes
    algorithm: CoseAlgorithm
    header: Mapping[object, object]
    unprotected: Mapping[object, object]
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The Sig_structure (RFC 9052, section 4.4), without external data."""
        return write_cbor(["Signature1", self.protected, b"", self.payload])


def parse_sign1(data: bytes, what: str, *, limit: int) -> Sign1:
    """Read a COSE_Sign1 whose payload is inside.

    Raises:
        MalformedError: not strict CBOR, another shape, or an unknown algorithm.
    """
    value = parse_cbor(data, what, limit=limit, tags={TAG})
    if isinstance(value, Tagged):
        value = value.value
    if not isinstance(value, list) or len(value) != _MEMBERS:
        raise MalformedError(
            what, got=type(value).__name__, expected="a COSE_Sign1 array of 4"
        )
    protected, unprotected, payload, signature = value
    header = _parse_header(_octets(protected, f"{what} protected header"), what)
    # Some encoders write null for an empty map; it is outside of the signature.
    beside = _mapping({} if unprotected is None else unprotected, what)
    if twice := header.keys() & beside.keys():
        raise MalformedError(
            f"{what} headers", got=f"{sorted(map(str, twice))} twice", expected="once"
        )
    return Sign1(
        protected=protected,
        algorithm=_algorithm(header, what),
        header=header,
        unprotected=beside,
        payload=_octets(payload, f"{what} payload"),
        signature=_octets(signature, f"{what} signature"),
    )


def is_sign1_signed(message: Sign1, key: PublicKeyTypes) -> bool:
    """Whether the signature is this key's; a key of another kind cannot have made it.

    ECDSA takes the curve that goes with the hash, RSA-PSS at least 2048 bits.
    """
    algorithm = message.algorithm
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name != _CURVES.get(algorithm):
            return False
        return _is_ecdsa(message, key)
    if isinstance(key, rsa.RSAPublicKey):
        if algorithm in _CURVES or key.key_size < _MIN_RSA_BITS:
            return False
        return _is_pss(message, key)
    return False


def _is_ecdsa(message: Sign1, key: ec.EllipticCurvePublicKey) -> bool:
    # RFC 9053, section 2.1: r and s, each as long as the curve's order, in a row.
    size = (key.curve.key_size + 7) // 8
    if len(message.signature) != 2 * size:
        return False
    r = int.from_bytes(message.signature[:size], "big")
    s = int.from_bytes(message.signature[size:], "big")
    if message.algorithm is CoseAlgorithm.ES384:
        return is_p384_signature(key, r, s, message.signed)
    scheme = ec.ECDSA(_HASHES[message.algorithm])
    try:
        key.verify(encode_dss_signature(r, s), message.signed, scheme)
    except InvalidSignature:
        return False
    return True


def _is_pss(message: Sign1, key: rsa.RSAPublicKey) -> bool:
    # RFC 8230, section 2: the salt is as long as the hash.
    algorithm = _HASHES[message.algorithm]
    scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
    try:
        key.verify(message.signature, message.signed, scheme, algorithm)
    except InvalidSignature:
        return False
    return True


def _parse_header(encoded: bytes, what: str) -> Mapping[object, object]:
    # RFC 9052, section 3: an empty map is encoded as a string of no bytes.
    if not encoded:
        return {}
    value = parse_cbor(encoded, f"{what} protected header", limit=len(encoded))
    header = _mapping(value, what)
    if _CRIT in header:
        raise MalformedError(
            f"{what} header crit",
            got=repr(header[_CRIT])[:40],
            expected="no critical parameters",
        )
    return header


def _algorithm(header: Mapping[object, object], what: str) -> CoseAlgorithm:
    value = header.get(_ALG)
    known = {algorithm.value for algorithm in CoseAlgorithm}
    if isinstance(value, int) and value in known:
        return CoseAlgorithm(value)
    raise MalformedError(
        f"{what} algorithm",
        got=repr(value)[:40],
        expected=", ".join(f"{one.name} ({one.value})" for one in CoseAlgorithm),
    )


def _mapping(value: object, what: str) -> Mapping[object, object]:
    if isinstance(value, dict):
        return value
    raise MalformedError(f"{what} header", got=type(value).__name__, expected="a map")


def _octets(value: object, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    raise MalformedError(what, got=type(value).__name__, expected="a byte string")
