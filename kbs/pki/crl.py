"""Revocation lists: is it the issuer's, is it current, does it list this certificate?

RFC 5280, sections 5 and 6.3, for complete lists of one issuer. Delta lists, partial
lists and other critical extensions are not understood and count for nothing. The
newest list wins, by CRL number and then by date, wherever it came from and whether it
is still current, so that an old list put beside the evidence cannot hide a revocation:
where the newest has run out, nothing older takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import is_strong, may_sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the lists of one issuer say at one time.

    `current` is the newest list if it covers the time asked for, or None; `revoked`
    names the certificates listed in the newest. A list that has run out still revokes,
    because a revocation is not undone, but it clears nobody.
    """

    current: x509.CertificateRevocationList | None
    revoked: tuple[str, ...]


def standing(
    certificates: Iterable[x509.Certificate],
    issuer: x509.Certificate,
    lists: Iterable[x509.CertificateRevocationList],
    *,
    now: datetime,
    cache: LinkCache | None = None,
) -> Standing:
    """Look the certificates up in the newest of the issuer's lists."""
    links = cache if cache is not None else LinkCache()
    valid = [
        crl
        for crl in lists
        if crl.last_update_utc <= now and is_crl_of(crl, issuer, links)
    ]
    newest = newest_of(valid)
    if newest is None:
        return Standing(current=None, revoked=())
    revoked = tuple(
        describe(certificate.subject)
        for certificate in certificates
        if lists_certificate(newest, certificate)
    )
    current = newest if is_current(newest, now) else None
    return Standing(current=current, revoked=revoked)


def is_crl_of(
    crl: x509.CertificateRevocationList,
    issuer: x509.Certificate,
    cache: LinkCache,
) -> bool:
    """Whether the list is complete, understood, and signed by `issuer`."""
    if cache.lists.find((crl, issuer)):
        return True
    # Only what an issuer signed is kept: strangers can send any number of others.
    return _is_crl_of(crl, issuer, cache) and cache.lists.keep(
        (crl, issuer), found=True
    )


def _is_crl_of(
    crl: x509.CertificateRevocationList,
    issuer: x509.Certificate,
    cache: LinkCache,
) -> bool:
    if crl.issuer.public_bytes() != issuer.subject.public_bytes():
        return False
    if any(extension.critical for extension in crl.extensions):
        return False
    if not may_sign(issuer, "crl_sign"):
        return False
    left = crl.fingerprint(hashes.SHA256())
    right = issuer.fingerprint(hashes.SHA256())
    if cache.holds(left, right):
        return True
    if not _has_signature_of(crl, issuer):
        return False
    cache.remember(left, right)
    return True


def newest_of(
    lists: Iterable[x509.CertificateRevocationList],
) -> x509.CertificateRevocationList | None:
    """Return the newest of one issuer's lists: by CRL number, then by date."""
    return max(lists, key=age_of, default=None)


def is_current(crl: x509.CertificateRevocationList, now: datetime) -> bool:
    """Whether `now` lies between the list's thisUpdate and nextUpdate."""
    until = crl.next_update_utc
    return until is not None and crl.last_update_utc <= now <= until


def lists_certificate(
    crl: x509.CertificateRevocationList, certificate: x509.Certificate
) -> bool:
    """Whether the list revokes this certificate.

    A serial number counts within its issuer (RFC 5280, section 5.3.3). AMD signs the
    list by the root, and VCEKs below the intermediate all have serial number 0, so
    0 names none of them; any other serial of a deeper certificate that is listed is
    taken as meant.
    """
    serial = certificate.serial_number
    if serial <= 0:
        return False
    return crl.get_revoked_certificate_by_serial_number(serial) is not None


def age_of(crl: x509.CertificateRevocationList) -> tuple[int, datetime]:
    """Return by what the newer of two lists is known."""
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        number = 0
    return number, crl.last_update_utc


def _has_signature_of(
    crl: x509.CertificateRevocationList, issuer: x509.Certificate
) -> bool:
    try:
        key = issuer.public_key()
        return (
            isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey))
            and is_strong(crl.signature_hash_algorithm, issuer)
            and crl.is_signature_valid(key)
        )
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False
