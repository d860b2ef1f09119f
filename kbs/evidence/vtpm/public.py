"""TPM2B_PUBLIC of RSA and ECC keys: bytes to fields and back, name, public key.

TPM 2.0 Library, Part 2 (revision 1.59), section 12.2 (TPMT_PUBLIC) and 8.3
(TPMA_OBJECT); names: Part 1, section 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.abi import MAX_DIGEST, MAX_RSA_BYTES, sized
from kbs.evidence.vtpm.algorithms import (
    CURVES,
    DIGEST_SIZES,
    NAME_HASHES,
    Algorithm,
    digest,
    parse_algorithm,
    parse_hash,
)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""The kinds of keys that an attestation or endorsement key can be."""

MAX_PUBLIC = 1024
# Part 2, section 12.2.3.5: exponent 0 stands for 2^16 + 1.
DEFAULT_EXPONENT = 65537
RSA_BITS = (2048, 3072, 4096)

_SCHEMES = {
    Algorithm.RSA: frozenset(
        {
            Algorithm.NULL,
            Algorithm.RSASSA,
            Algorithm.RSAES,
            Algorithm.RSAPSS,
            Algorithm.OAEP,
        }
    ),
    Algorithm.ECC: frozenset({Algorithm.NULL, Algorithm.ECDSA, Algorithm.ECDH}),
}
_WITHOUT_HASH = frozenset({Algorithm.NULL, Algorithm.RSAES})
_KDFS = frozenset({Algorithm.NULL, Algorithm.KDF1_SP800_56A, Algorithm.KDF1_SP800_108})


class ObjectAttributes(IntFlag):
    """TPMA_OBJECT, Part 2 section 8.3.2."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_KNOWN_ATTRIBUTES = sum(ObjectAttributes)


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT of a storage key: AES in CFB mode."""

    key_bits: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signing, encryption or derivation scheme and the hash it names."""

    algorithm: Algorithm
    hash: Algorithm | None = None


NO_SCHEME = Scheme(Algorithm.NULL)


@dataclass(frozen=True, slots=True)
class RsaParameters:
    """TPMS_RSA_PARMS and the modulus; `exponent` as it stands in the structure."""

    key_bits: int
    exponent: int
    modulus: bytes


@dataclass(frozen=True, slots=True)
class EccParameters:
    """TPMS_ECC_PARMS' curve and KDF, and the point."""

    curve: int
    kdf: Scheme
    x: bytes
    y: bytes


@dataclass(frozen=True, kw_only=True)
class TpmPublic:
    """TPMT_PUBLIC of an asymmetric key."""

    name_algorithm: Algorithm
    attributes: ObjectAttributes
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: Scheme
    parameters: RsaParameters | EccParameters

    @cached_property
    def name(self) -> bytes:
        """The object's name: u16 nameAlg and the digest of TPMT_PUBLIC."""
        return name_of(self.name_algorithm, serialize_area(self))

    @cached_property
    def key(self) -> PublicKey:
        """The public key."""
        return _build_key(self.parameters)

    @cached_property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo."""
        return spki_of(self.key)

    def has(self, *flags: ObjectAttributes) -> bool:
        """Whether all these attributes are set."""
        return all(flag in self.attributes for flag in flags)


def spki_of(key: PublicKey) -> bytes:
    """Return a key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def name_of(algorithm: Algorithm, area: bytes) -> bytes:
    """Return u16 algorithm and the digest of a public area (Part 1, section 16)."""
    return algorithm.to_bytes(2, "big") + digest(NAME_HASHES[algorithm], area)


def parse_public(data: bytes) -> TpmPublic:
    """Read a TPM2B_PUBLIC of an RSA or ECC key.

    Raises:
        MalformedError: any bad field, a point off its curve, or bytes left over.
    """
    outer = Reader(data, "TPM2B_PUBLIC")
    area = outer.sized(2, "publicArea", limit=MAX_PUBLIC)
    outer.end()
    reader = Reader(area, "TPMT_PUBLIC")
    kind = parse_algorithm(
        reader.big(2, "type"), "TPMT_PUBLIC type", frozenset(_SCHEMES)
    )
    name_algorithm = parse_algorithm(
        reader.big(2, "nameAlg"), "TPMT_PUBLIC nameAlg", frozenset(NAME_HASHES)
    )
    public = TpmPublic(
        name_algorithm=name_algorithm,
        attributes=_attributes(reader.big(4, "objectAttributes")),
        auth_policy=_auth_policy(reader, name_algorithm),
        symmetric=_symmetric(reader),
        scheme=_scheme(reader, "scheme", _SCHEMES[kind]),
        parameters=_rsa(reader) if kind is Algorithm.RSA else _ecc(reader),
    )
    reader.end()
    # Refuses points off the curve and even moduli now, so that nothing later can.
    _ = public.key
    return public


def serialize_public(public: TpmPublic) -> bytes:
    """Write a TPM2B_PUBLIC."""
    return sized(serialize_area(public))


def serialize_area(public: TpmPublic) -> bytes:
    """Write a TPMT_PUBLIC, which is what a name is the digest of."""
    parameters = public.parameters
    is_rsa = isinstance(parameters, RsaParameters)
    kind = Algorithm.RSA if is_rsa else Algorithm.ECC
    head = (
        kind.to_bytes(2, "big")
        + public.name_algorithm.to_bytes(2, "big")
        + public.attributes.to_bytes(4, "big")
        + sized(public.auth_policy)
        + _write_symmetric(public.symmetric)
        + _write_scheme(public.scheme)
    )
    if isinstance(parameters, RsaParameters):
        return (
            head
            + parameters.key_bits.to_bytes(2, "big")
            + parameters.exponent.to_bytes(4, "big")
            + sized(parameters.modulus)
        )
    return (
        head
        + parameters.curve.to_bytes(2, "big")
        + _write_scheme(parameters.kdf)
        + sized(parameters.x)
        + sized(parameters.y)
    )


def _attributes(bits: int) -> ObjectAttributes:
    if bits & ~_KNOWN_ATTRIBUTES:
        raise MalformedError(
            "TPMT_PUBLIC objectAttributes",
            got=f"{bits:08x}",
            expected=f"only bits of {_KNOWN_ATTRIBUTES:08x}",
        )
    return ObjectAttributes(bits)


def _auth_policy(reader: Reader, name_algorithm: Algorithm) -> bytes:
    policy = reader.sized(2, "authPolicy", limit=MAX_DIGEST)
    size = DIGEST_SIZES[name_algorithm]
    if policy and len(policy) != size:
        raise MalformedError(
            "TPMT_PUBLIC authPolicy",
            got=f"{len(policy)} bytes",
            expected=f"0 or {size}",
        )
    return policy


def _symmetric(reader: Reader) -> Symmetric | None:
    what = "TPMT_PUBLIC symmetric"
    allowed = frozenset({Algorithm.NULL, Algorithm.AES})
    if parse_algorithm(reader.big(2, "symmetric"), what, allowed) is Algorithm.NULL:
        return None
    bits = reader.big(2, "symmetric keyBits")
    if bits not in (128, 192, 256):
        raise MalformedError(
            f"{what} keyBits", got=str(bits), expected="128, 192 or 256"
        )
    parse_algorithm(
        reader.big(2, "symmetric mode"), f"{what} mode", frozenset({Algorithm.CFB})
    )
    return Symmetric(bits)


def _scheme(reader: Reader, field: str, allowed: frozenset[Algorithm]) -> Scheme:
    what = f"TPMT_PUBLIC {field}"
    algorithm = parse_algorithm(reader.big(2, field), what, allowed)
    if algorithm in _WITHOUT_HASH:
        return Scheme(algorithm)
    return Scheme(algorithm, parse_hash(reader.big(2, f"{field} hash"), f"{what} hash"))


def _rsa(reader: Reader) -> RsaParameters:
    bits = reader.big(2, "keyBits")
    if bits not in RSA_BITS:
        raise MalformedError(
            "TPMT_PUBLIC keyBits", got=str(bits), expected="2048, 3072 or 4096"
        )
    exponent = reader.big(4, "exponent")
    if exponent not in (0, DEFAULT_EXPONENT):
        raise MalformedError(
            "TPMT_PUBLIC exponent", got=str(exponent), expected="0 or 65537"
        )
    modulus = reader.sized(2, "unique", limit=MAX_RSA_BYTES)
    if int.from_bytes(modulus, "big").bit_length() != bits or len(modulus) * 8 != bits:
        raise MalformedError(
            "TPMT_PUBLIC unique",
            got=f"{len(modulus)} bytes",
            expected=f"a modulus of {bits} bits",
        )
    return RsaParameters(bits, exponent, modulus)


def _ecc(reader: Reader) -> EccParameters:
    curve = reader.big(2, "curveID")
    if curve not in CURVES:
        raise MalformedError(
            "TPMT_PUBLIC curveID",
            got=f"{curve:#06x}",
            expected="0x0003 (NIST P-256) or 0x0004 (NIST P-384)",
        )
    kdf = _scheme(reader, "kdf", _KDFS)
    limit = coordinate_size(curve)
    x = reader.sized(2, "unique.x", limit=limit)
    y = reader.sized(2, "unique.y", limit=limit)
    return EccParameters(curve, kdf, x, y)


def coordinate_size(curve: int) -> int:
    """Return the bytes of a full coordinate on a curve."""
    return (CURVES[curve].key_size + 7) // 8


def _build_key(parameters: RsaParameters | EccParameters) -> PublicKey:
    try:
        if isinstance(parameters, RsaParameters):
            modulus = int.from_bytes(parameters.modulus, "big")
            return rsa.RSAPublicNumbers(DEFAULT_EXPONENT, modulus).public_key()
        return ec.EllipticCurvePublicNumbers(
            int.from_bytes(parameters.x, "big"),
            int.from_bytes(parameters.y, "big"),
            CURVES[parameters.curve],
        ).public_key()
    except ValueError as exc:
        raise MalformedError(
            "TPMT_PUBLIC unique", got=str(exc)[:80], expected="a valid public key"
        ) from exc


def _write_symmetric(symmetric: Symmetric | None) -> bytes:
    if symmetric is None:
        return Algorithm.NULL.to_bytes(2, "big")
    return (
        Algorithm.AES.to_bytes(2, "big")
        + symmetric.key_bits.to_bytes(2, "big")
        + Algorithm.CFB.to_bytes(2, "big")
    )


def _write_scheme(scheme: Scheme) -> bytes:
    head = scheme.algorithm.to_bytes(2, "big")
    return head if scheme.hash is None else head + scheme.hash.to_bytes(2, "big")
