"""An enrolled attestation key: the governed object that makes one AK trusted.

It holds the TPM2B_PUBLIC and the TPM name that follows from it. Whether the key's
attributes are those of an attestation key is for the vTPM verifier to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.encode import b64, canonical_json, parse_b64, parse_hex, require_members
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_name
from kbs.core.reader import Reader

_MAX_PUBLIC = 1024
_SHA256_SIZE = 32
# TPM 2.0 Library, Part 2, table 9 (TPM_ALG_ID).
_NAME_ALGORITHMS: Mapping[int, str] = {
    0x000B: "sha256",
    0x000C: "sha384",
    0x000D: "sha512",
}
_TPM_ALG_RSA = 0x0001
_TPM_ALG_ECC = 0x0023
_TPM_ALG_NULL = 0x0010
# The same, table 10 (TPM_ECC_CURVE).
_CURVES: Mapping[int, ec.EllipticCurve] = {
    0x0003: ec.SECP256R1(),
    0x0004: ec.SECP384R1(),
}
# The same, section 12.2.3.5 (TPMS_RSA_PARMS): an exponent of 0 means this one.
_RSA_EXPONENT = 65537
# The same, section 7.4 (TPM_RH): what a primary key hangs from.
_HIERARCHIES = (0x40000001, 0x40000007, 0x4000000B, 0x4000000C)
_MAX_UNIQUE = 512


class Enrolment(StrEnum):
    """How an attestation key came to be trusted."""

    ACTIVATION = "activation"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """An AK in a group: its TPM name, its TPM2B_PUBLIC, and how it was enrolled.

    `ek` is hex SHA-256 of the endorsement key's SPKI, where activation proved one.
    """

    group: str
    name: bytes
    public: bytes
    how: Enrolment
    ek: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        document: dict[str, object] = {
            "group": self.group,
            "name": self.name.hex(),
            "public": b64(self.public),
            "how": self.how.value,
        }
        if self.ek is not None:
            document["ek"] = self.ek
        return document

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


def parse_attestation_key(value: object) -> AttestationKey:
    """Accept an AK whose name is the one that its TPM2B_PUBLIC gives.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value, "ak", required={"group", "name", "public", "how"}, optional={"ek"}
    )
    public = parse_b64(members["public"], "ak public", limit=_MAX_PUBLIC)
    name = parse_hex(members["name"], "ak name")
    if name != tpm_name(public):
        raise MalformedError(
            "ak name", got=name.hex()[:140], expected=tpm_name(public).hex()
        )
    ek = None
    if "ek" in members:
        ek = parse_hex(members["ek"], "ak ek", size=_SHA256_SIZE).hex()
    how = _parse_enrolment(members["how"])
    if how is Enrolment.ACTIVATION and ek is None:
        raise MalformedError("ak ek", got="none", expected="the EK that activated it")
    return AttestationKey(
        group=parse_name(members["group"], "ak group"),
        name=name,
        public=public,
        how=how,
        ek=ek,
    )


def tpm_name(public: bytes) -> bytes:
    """Return the name of a TPM2B_PUBLIC: u16 nameAlg and digest of the TPMT_PUBLIC.

    TPM 2.0 Library, Part 1, section 16 ("Names").

    Raises:
        MalformedError: it is no TPM2B_PUBLIC, or names another hash.
    """
    reader = Reader(public, "TPM2B_PUBLIC")
    area = reader.sized(2, "publicArea", limit=_MAX_PUBLIC)
    reader.end()
    inner = Reader(area, "TPMT_PUBLIC")
    inner.take(2, "type")
    algorithm = inner.big(2, "nameAlg")
    if algorithm not in _NAME_ALGORITHMS:
        raise MalformedError(
            "TPMT_PUBLIC nameAlg",
            got=f"0x{algorithm:04x}",
            expected="SHA-256, SHA-384 or SHA-512",
        )
    digest = hashlib.new(_NAME_ALGORITHMS[algorithm], area).digest()
    return algorithm.to_bytes(2, "big") + digest


def is_tpm_name(data: bytes) -> bool:
    """Whether these bytes can be the name of a key: u16 nameAlg and its digest."""
    algorithm = _NAME_ALGORITHMS.get(int.from_bytes(data[:2], "big"))
    return algorithm is not None and len(data) == 2 + hashlib.new(algorithm).digest_size


def qualified_names(name: bytes) -> tuple[bytes, ...]:
    """Return what a primary key of this name calls itself in a quote, by hierarchy.

    TPM 2.0 Library, Part 1, section 16.4: the qualified name, which the TPM signs.
    """
    algorithm = _NAME_ALGORITHMS[int.from_bytes(name[:2], "big")]
    return tuple(
        name[:2] + hashlib.new(algorithm, handle.to_bytes(4, "big") + name).digest()
        for handle in _HIERARCHIES
    )


def spki_sha256(public: bytes) -> str:
    """Return hex SHA-256 of the SubjectPublicKeyInfo of the key in a TPM2B_PUBLIC.

    TPM 2.0 Library, Part 2, section 12.2.4 (TPMT_PUBLIC).

    Raises:
        MalformedError: it holds no RSA key, and none on NIST P-256 or P-384.
    """
    outer = Reader(public, "TPM2B_PUBLIC")
    reader = Reader(outer.sized(2, "publicArea", limit=_MAX_PUBLIC), "TPMT_PUBLIC")
    kind = reader.big(2, "type")
    reader.take(6, "nameAlg and objectAttributes")
    reader.sized(2, "authPolicy", limit=_MAX_PUBLIC)
    if reader.big(2, "symmetric") != _TPM_ALG_NULL:
        reader.take(4, "symmetric keyBits and mode")
    _skip_scheme(reader)
    try:
        key = _rsa(reader) if kind == _TPM_ALG_RSA else _ecc(reader, kind)
    except ValueError as exc:
        raise _no_key(str(exc)[:80]) from exc
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    reader.take(2, "keyBits")
    exponent = reader.big(4, "exponent") or _RSA_EXPONENT
    modulus = reader.sized(2, "unique", limit=_MAX_UNIQUE)
    return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()


def _ecc(reader: Reader, kind: int) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(reader.big(2, "curveID")) if kind == _TPM_ALG_ECC else None
    if curve is None:
        raise _no_key(f"type {kind:#06x}, or another curve")
    _skip_scheme(reader)
    x = reader.sized(2, "unique.x", limit=_MAX_UNIQUE)
    y = reader.sized(2, "unique.y", limit=_MAX_UNIQUE)
    return ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    ).public_key()


def _skip_scheme(reader: Reader) -> None:
    if reader.big(2, "scheme") != _TPM_ALG_NULL:
        reader.take(2, "scheme hash")


def _no_key(got: str) -> MalformedError:
    return MalformedError(
        "TPM2B_PUBLIC", got=got, expected="an RSA key, or one on NIST P-256 or P-384"
    )


def _parse_enrolment(value: object) -> Enrolment:
    if isinstance(value, str) and value in {how.value for how in Enrolment}:
        return Enrolment(value)
    raise MalformedError(
        "ak how", got=repr(value)[:40], expected="activation or manual"
    )
