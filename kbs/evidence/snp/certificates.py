"""VCEK and VLEK certificates: the extensions that say which chip, at which TCB.

AMD 57230, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface
Specification, tables 8 to 10. Every value is read as strict DER, whether or not the
certificate later turns out to be AMD's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kbs.core.errors import MalformedError
from kbs.evidence.snp.products import ProductLine, product_of_name
from kbs.evidence.snp.report import SigningKey
from kbs.pki.certificates import REMEMBERED, describe, spki_sha256

_ARC = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSION = _ARC + "1"
_PRODUCT_NAME = _ARC + "2"
_HWID = _ARC + "4"
_CSP_ID = _ARC + "5"

_SPL: Mapping[str, str] = {
    "bootloader": _ARC + "3.1",
    "tee": _ARC + "3.2",
    "snp": _ARC + "3.3",
    "microcode": _ARC + "3.8",
}
_FMC_SPL = _ARC + "3.9"
# spl4 to spl7 stand for the reserved bytes of the TCB_VERSION; Turin has no spl4.
_RESERVED_SPLS = tuple(f"{_ARC}3.{number}" for number in (4, 5, 6, 7))

_LEAF = x509.ObjectIdentifier(_STRUCT_VERSION)

_TAG_INTEGER = 0x02
_TAG_OCTET_STRING = 0x04
_TAG_IA5STRING = 0x16
_MAX_SHORT_LENGTH = 127
_HWID_SIZES = (64, 8)
"""Milan and Genoa, Turin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A VCEK or VLEK with its extensions read; not proven to be AMD's."""

    certificate: x509.Certificate
    public_key: PublicKeyTypes
    spki_sha256: str
    kind: SigningKey
    subject: str
    struct_version: int
    product_name: str
    tcb: Mapping[str, int]
    hwid: bytes | None
    csp_id: str | None

    @property
    def product(self) -> ProductLine | None:
        """The line that the product name belongs to, if it is known."""
        return product_of_name(self.product_name)


@lru_cache(REMEMBERED)
def is_endorsement_key(certificate: x509.Certificate) -> bool:
    """Whether a certificate has AMD's structure version extension, as all leaves do."""
    try:
        certificate.extensions.get_extension_for_oid(_LEAF)
    except x509.ExtensionNotFound:
        return False
    return True


@lru_cache(REMEMBERED)
def parse_endorsement_key(certificate: x509.Certificate) -> EndorsementKey:
    """Read a VCEK (it has a hardware id) or a VLEK (it has a provider's id).

    Raises:
        MalformedError: an extension is missing or not strict DER.
    """
    values = _amd_extensions(certificate)
    hwid = _parse_hwid(values[_HWID]) if _HWID in values else None
    csp_id = _parse_text(values[_CSP_ID], "CSP id") if _CSP_ID in values else None
    if (hwid is None) == (csp_id is None):
        raise MalformedError(
            "snp endorsement key",
            got="both a HWID and a CSP id" if hwid else "neither HWID nor CSP id",
            expected="HWID (a VCEK) or CSP id (a VLEK)",
        )
    _check_reserved(values)
    digest = spki_sha256(certificate)
    return EndorsementKey(
        certificate=certificate,
        public_key=certificate.public_key(),
        spki_sha256=digest,
        kind=SigningKey.VCEK if hwid is not None else SigningKey.VLEK,
        subject=describe(certificate.subject),
        struct_version=_parse_number(values, _STRUCT_VERSION, "struct version"),
        product_name=_parse_text(_require(values, _PRODUCT_NAME), "product name"),
        tcb=_parse_spls(values),
        hwid=hwid,
        csp_id=csp_id,
    )


def _amd_extensions(certificate: x509.Certificate) -> dict[str, bytes]:
    return {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
        and extension.oid.dotted_string.startswith(_ARC)
    }


def _parse_spls(values: Mapping[str, bytes]) -> dict[str, int]:
    tcb = {
        name: _parse_number(values, oid, f"{name} SPL") for name, oid in _SPL.items()
    }
    if _FMC_SPL in values:
        tcb["fmc"] = _parse_number(values, _FMC_SPL, "FMC SPL")
    return tcb


def _check_reserved(values: Mapping[str, bytes]) -> None:
    for oid in _RESERVED_SPLS:
        if oid in values and _parse_number(values, oid, "reserved SPL"):
            raise MalformedError(
                f"snp endorsement key extension {oid}",
                got=values[oid].hex(),
                expected="SPL 0, as the specification reserves it",
            )


def _require(values: Mapping[str, bytes], oid: str) -> bytes:
    if oid not in values:
        raise MalformedError(
            "snp endorsement key", got=f"no extension {oid}", expected="a VCEK or VLEK"
        )
    return values[oid]


def _parse_number(values: Mapping[str, bytes], oid: str, what: str) -> int:
    """Read a DER INTEGER from 0 to 255 in its one shortest spelling."""
    raw = _require(values, oid)
    content = _der_content(raw, _TAG_INTEGER, what)
    number = int.from_bytes(content, "big", signed=True)
    shortest = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    if not content or content != shortest or not 0 <= number <= 0xFF:  # noqa: PLR2004
        raise MalformedError(
            f"snp endorsement key {what}",
            got=raw.hex()[:40],
            expected="a DER INTEGER of one byte",
        )
    return number


def _parse_text(raw: bytes, what: str) -> str:
    content = _der_content(raw, _TAG_IA5STRING, what)
    text = content.decode("ascii", errors="replace")
    if not text or not text.isascii() or not text.isprintable():
        raise MalformedError(
            f"snp endorsement key {what}",
            got=raw.hex()[:80],
            expected="a DER IA5String of printable characters",
        )
    return text


def _parse_hwid(raw: bytes) -> bytes:
    # AMD's service puts the bytes there bare; the specification has an OCTET STRING.
    # The two differ in length, so a value is never read two ways.
    if len(raw) in _HWID_SIZES:
        return raw
    content = _der_content(raw, _TAG_OCTET_STRING, "HWID")
    if len(content) not in _HWID_SIZES:
        raise MalformedError(
            "snp endorsement key HWID",
            got=f"{len(content)} bytes",
            expected="64 bytes, or 8 on Turin",
        )
    return content


def _der_content(raw: bytes, tag: int, what: str) -> bytes:
    header = 2
    if (
        len(raw) < header
        or raw[0] != tag
        or raw[1] > _MAX_SHORT_LENGTH
        or raw[1] != len(raw) - header
    ):
        raise MalformedError(
            f"snp endorsement key {what}",
            got=raw.hex()[:40] or "nothing",
            expected=f"one DER value with tag {tag:#04x}",
        )
    return raw[header:]
