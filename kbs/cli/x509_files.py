"""Collateral in files that somebody names on the command line.

Vendors publish them with remarks above the PEM blocks (RFC 7468, section 2), which is
fine here and nowhere else. What cannot be read is told in our words, not a library's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.cli.inputs import read_input
from kbs.core.encode import parse_json_object, require_text
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.collateral import read_collateral
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import (
    MAX_CERTIFICATES,
    der,
    load_certificates,
    load_crls,
    without_remarks,
)
from kbs.pki.ocsp import MAX_OCSP_BYTES, load_ocsp_answer

_Loaded = TypeVar("_Loaded")

_BEGIN = b"-----BEGIN "
# X.690, section 8.9: SEQUENCE, constructed, which everything here is in DER.
_DER_SEQUENCE = b"\x30"
_CERTIFICATE_BLOCK = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
_LABEL = re.compile(rb"-----BEGIN ([^-\r\n]{1,40})")
_KNOWN = frozenset({b"CERTIFICATE", b"X509 CRL"})
_MAX_COLLATERAL = 1024
_HOST_MEMBERS = frozenset({"vcekCert", "certificateChain"})
_MAX_HOST_CERTIFICATES = 64 * 1024


def certificates_in(
    data: bytes, what: str, *, most: int = MAX_CERTIFICATES
) -> tuple[x509.Certificate, ...]:
    """Read one certificate in DER, one to `most` in PEM, or Azure's JSON around PEM.

    Raises:
        MalformedError: anything else.
    """
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        data = _host_certificates(data, what)
    return _told(
        lambda: load_certificates(without_remarks(data), what, most=most), data, what
    )


def _host_certificates(data: bytes, what: str) -> bytes:
    # Azure's metadata service, /metadata/THIM/amd/certification: the VCEK of the host
    # and its chain, each as PEM.
    members = parse_json_object(data, what, limit=_MAX_HOST_CERTIFICATES)
    if not members.keys() >= _HOST_MEMBERS:
        raise MalformedError(
            what,
            got=f"JSON with {', '.join(sorted(members))[:60] or 'nothing'}",
            expected=" and ".join(sorted(_HOST_MEMBERS)),
        )
    return "\n".join(
        require_text(members[name], f"{what} {name}", limit=_MAX_HOST_CERTIFICATES)
        for name in sorted(_HOST_MEMBERS, reverse=True)
    ).encode()


def read_certificates(paths: tuple[Path, ...], what: str) -> tuple[bytes, ...]:
    """Return the certificates of PEM or DER files, as DER.

    Raises:
        MalformedError: a file cannot be read, or holds no certificate.
    """
    return tuple(
        der(certificate)
        for path in paths
        for certificate in certificates_in(read_input(path, what), f"{what} {path}")
    )


def crls_in(data: bytes, what: str) -> tuple[x509.CertificateRevocationList, ...]:
    """Read one revocation list in DER, or one or more in PEM.

    Raises:
        MalformedError: anything else.
    """
    return _told(lambda: load_crls(without_remarks(data), what), data, what)


def ocsp_answer_in(data: bytes) -> ocsp.OCSPResponse | None:
    """Return the OCSP answer that a file is, or None where it is something else."""
    if _BEGIN in data or len(data) > MAX_OCSP_BYTES:
        return None
    try:
        return load_ocsp_answer(data, "OCSP answer")
    except MalformedError:
        return None


def load_collateral(data: bytes, what: str) -> GivenCollateral:
    """Read certificates and CRLs, one in DER or any in PEM, or Intel's JSON.

    Raises:
        MalformedError: anything else.
    """
    if data.lstrip(b" \t\r\n").startswith(b"{"):
        return read_collateral(data)
    return _told(lambda: _collateral(data, what), data, what)


def _collateral(data: bytes, what: str) -> GivenCollateral:
    if _BEGIN not in data:
        try:
            return GivenCollateral(load_certificates(data, what), ())
        except MalformedError:
            return GivenCollateral((), load_crls(data, what))
    data = without_remarks(data)
    blocks = _CERTIFICATE_BLOCK.findall(data)
    if data.count(_BEGIN) == len(blocks):
        return GivenCollateral(_certificates(data, what), ())
    _require_known(data, what)
    return GivenCollateral(
        _certificates(b"\n".join(blocks), what) if blocks else (),
        load_crls(_CERTIFICATE_BLOCK.sub(b"", data), what),
    )


def _require_known(data: bytes, what: str) -> None:
    for label in _LABEL.findall(data):
        if label not in _KNOWN:
            raise MalformedError(
                what,
                got=f"PEM {label.decode('ascii', 'replace')}",
                expected=" or ".join(sorted(one.decode() for one in _KNOWN)),
            )


def _certificates(data: bytes, what: str) -> tuple[x509.Certificate, ...]:
    return load_certificates(data, what, most=_MAX_COLLATERAL)


def _told(read: Callable[[], _Loaded], data: bytes, what: str) -> _Loaded:
    try:
        return read()
    except MalformedError as exc:
        if exc.__cause__ is None:
            raise
        # Below ours is a library's error, whose words say nothing to a person.
        known = _BEGIN in data or data.startswith(_DER_SEQUENCE)
        raise MalformedError(
            what,
            got="damaged or other content in PEM or DER"
            if known
            else "bytes that are neither PEM nor DER",
            expected="X.509 certificates or revocation lists",
        ) from exc
