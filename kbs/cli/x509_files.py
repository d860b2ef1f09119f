"""Certificates and revocation lists in files that somebody names on the command line.

Vendors publish them with remarks above the PEM blocks (RFC 7468, section 2), which is
fine here and nowhere else. What cannot be read is told in our words, not a library's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from cryptography import x509

from kbs.core.errors import MalformedError
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import MAX_CERTIFICATES, load_certificates, load_crls

_Loaded = TypeVar("_Loaded")

_BEGIN = b"-----BEGIN "
# X.690, section 8.9: SEQUENCE, constructed, which everything here is in DER.
_DER_SEQUENCE = b"\x30"
_CERTIFICATE_BLOCK = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
_MAX_COLLATERAL = 1024


def certificates_in(
    data: bytes, what: str, *, most: int = MAX_CERTIFICATES
) -> tuple[x509.Certificate, ...]:
    """Read one certificate in DER, or one to `most` in PEM.

    Raises:
        MalformedError: anything else.
    """
    return _told(
        lambda: load_certificates(data, what, most=most, remarks=True), data, what
    )


def crls_in(data: bytes, what: str) -> tuple[x509.CertificateRevocationList, ...]:
    """Read one revocation list in DER, or one or more in PEM.

    Raises:
        MalformedError: anything else.
    """
    return _told(lambda: load_crls(data, what, remarks=True), data, what)


def load_collateral(data: bytes, what: str) -> GivenCollateral:
    """Read certificates and revocation lists: one in DER, or any number in PEM.

    Raises:
        MalformedError: anything else.
    """
    return _told(lambda: _collateral(data, what), data, what)


def _collateral(data: bytes, what: str) -> GivenCollateral:
    blocks = _CERTIFICATE_BLOCK.findall(data)
    if _BEGIN not in data:
        try:
            return GivenCollateral(load_certificates(data, what), ())
        except MalformedError:
            return GivenCollateral((), load_crls(data, what))
    if not blocks:
        return GivenCollateral((), load_crls(data, what, remarks=True))
    if data.count(_BEGIN) == len(blocks):
        found = load_certificates(data, what, most=_MAX_COLLATERAL, remarks=True)
        return GivenCollateral(found, ())
    rest = _CERTIFICATE_BLOCK.sub(b"", data)
    return GivenCollateral(
        load_certificates(b"\n".join(blocks), what, most=_MAX_COLLATERAL),
        load_crls(rest, what, remarks=True),
    )


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
