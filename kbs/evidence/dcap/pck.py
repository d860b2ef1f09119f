"""PCK certificates: which platform, at which TCB.

Intel SGX PCK Certificate and CRL Profile Specification, rev. 1.5, section 1.3.5: one
extension of Intel's, a SEQUENCE of (OID, value). Read as strict DER, whether or not
the certificate later turns out to be Intel's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kbs.core.errors import MalformedError
from kbs.pki import der
from kbs.pki.certificates import REMEMBERED, spki_sha256

_ARC = "1.2.840.113741.1.13.1"
_OID = x509.ObjectIdentifier(_ARC)
_PPID = f"{_ARC}.1"
_TCB = f"{_ARC}.2"
_PCE_SVN = f"{_TCB}.17"
_CPU_SVN = f"{_TCB}.18"
_PCE_ID = f"{_ARC}.3"
_FMSPC = f"{_ARC}.4"
_PIID = f"{_ARC}.6"
_CONFIGURATION = f"{_ARC}.7"
_FLAGS = {
    "dynamic_platform": f"{_CONFIGURATION}.1",
    "cached_keys": f"{_CONFIGURATION}.2",
    "smt_enabled": f"{_CONFIGURATION}.3",
}

COMPONENTS = 16
"""TCB components, each with an SVN of one byte."""

_MAX_SVN = 0xFF
_MAX_PCE_SVN = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """A PCK certificate with its extension read; not proven to be Intel's.

    `platform` has the configuration flags, and `piid` the identity of the platform
    instance that its owner set up (all packages together, until they are reset); of
    both, processors alone have none.
    """

    certificate: x509.Certificate
    public_key: PublicKeyTypes
    spki_sha256: str
    ppid: bytes
    cpu_svn: bytes
    component_svns: tuple[int, ...]
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    piid: bytes | None
    platform: Mapping[str, bool]


def is_pck(certificate: x509.Certificate) -> bool:
    """Whether a certificate has Intel's SGX extension, as all PCK certificates do."""
    return any(extension.oid == _OID for extension in certificate.extensions)


@lru_cache(REMEMBERED)
def parse_pck(certificate: x509.Certificate) -> Pck:
    """Read a PCK certificate.

    Raises:
        MalformedError: the extension or one of its values is missing or malformed.
    """
    values = _pairs(_extension(certificate), "SGX extension")
    tcb = _pairs(_value(values, _TCB, der.SEQUENCE), "SGX extension TCB")
    digest = spki_sha256(certificate)  # refuses a key of an unknown kind
    return Pck(
        certificate=certificate,
        public_key=certificate.public_key(),
        spki_sha256=digest,
        ppid=_octets(values, _PPID, 16),
        cpu_svn=_octets(tcb, _CPU_SVN, 16),
        component_svns=tuple(
            _number(tcb, f"{_TCB}.{place}", _MAX_SVN)
            for place in range(1, COMPONENTS + 1)
        ),
        pce_svn=_number(tcb, _PCE_SVN, _MAX_PCE_SVN),
        pce_id=_octets(values, _PCE_ID, 2),
        fmspc=_octets(values, _FMSPC, 6),
        piid=_octets(values, _PIID, 16) if _PIID in values else None,
        platform=_configuration(values),
    )


def _extension(certificate: x509.Certificate) -> bytes:
    for extension in certificate.extensions:
        value = extension.value
        if extension.oid == _OID and isinstance(value, x509.UnrecognizedExtension):
            return der.element(value.value, der.SEQUENCE, "SGX extension")
    raise MalformedError(
        "PCK certificate", got=f"no extension {_ARC}", expected="Intel's SGX extension"
    )


def _pairs(content: bytes, what: str) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    for tag, pair in der.elements(content, what):
        parts = der.elements(pair, what) if tag == der.SEQUENCE else ()
        if len(parts) != 2 or parts[0][0] != der.OBJECT_IDENTIFIER:  # noqa: PLR2004
            raise MalformedError(what, got="another shape", expected="(OID, value)")
        oid = der.object_identifier(parts[0][1], what)
        if oid in found:
            raise MalformedError(what, got=f"{oid} twice", expected="once")
        found[oid] = parts[1]
    return found


def _value(values: Mapping[str, tuple[int, bytes]], oid: str, tag: int) -> bytes:
    found = values.get(oid)
    if found is None or found[0] != tag:
        got = "none" if found is None else f"tag {found[0]:#04x}"
        raise MalformedError(
            f"SGX extension {oid}", got=got, expected=f"tag {tag:#04x}"
        )
    return found[1]


def _octets(values: Mapping[str, tuple[int, bytes]], oid: str, size: int) -> bytes:
    content = _value(values, oid, der.OCTET_STRING)
    if len(content) != size:
        raise MalformedError(
            f"SGX extension {oid}", got=f"{len(content)} bytes", expected=f"{size}"
        )
    return content


def _number(values: Mapping[str, tuple[int, bytes]], oid: str, most: int) -> int:
    content = _value(values, oid, der.INTEGER)
    return der.unsigned(content, f"SGX extension {oid}", most=most)


def _configuration(values: Mapping[str, tuple[int, bytes]]) -> dict[str, bool]:
    if _CONFIGURATION not in values:
        return {}
    content = _value(values, _CONFIGURATION, der.SEQUENCE)
    flags = _pairs(content, "SGX extension configuration")
    return {
        name: der.boolean(_value(flags, oid, der.BOOLEAN), f"SGX extension {oid}")
        for name, oid in _FLAGS.items()
        if oid in flags
    }
