"""Strict loading of certificates and revocation lists, DER or PEM (RFC 5280, 7468).

Loading decides about shape only: one complete DER value, no trailing bytes, readable
extensions. Nothing here trusts anything; see `chain` and `crl`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from kbs.core.encode import parse_b64
from kbs.core.errors import MalformedError

# Every real VCEK and VLEK has serial number 0 (AMD 57230, section 3). The filter is
# for this one message only, and set once: `catch_warnings` around each load would
# race between threads.
warnings.filterwarnings(
    "ignore",
    message="Parsed a serial number which wasn't positive",
    category=CryptographyDeprecationWarning,
)
# The common name of Google's vTPM CAs is longer than the 64 characters that X.520,
# Annex C, allows (upper bound ub-common-name); nothing of ours depends on it.
warnings.filterwarnings(
    "ignore",
    message=r"Attribute's length must be >= \d+ and <= \d+",
    category=UserWarning,
)

MAX_CERTIFICATE_BYTES = 16 * 1024
"""DER of one certificate; the largest seen in evidence has 2.5 KiB."""

MAX_CRL_BYTES = 1024 * 1024
"""DER of one revocation list; AMD's have under 2 KiB, TPM makers' up to 300 KiB."""

MAX_CERTIFICATES = 64
"""Certificates in one file."""

REMEMBERED = 128
"""Certificates of which is kept in memory what was read from them, by their encoding.

The same bytes read the same way for ever; nothing here says that one is trusted.
"""

# Larger ones are read each time: strangers choose what is kept.
_ORDINARY = 4096
_ORDINARY_PEM = 4 * _ORDINARY

_BLOCK = re.compile(
    r"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----"
)
# Lines without dashes in a row, at the start or after a block, up to the next block.
_REMARKS = re.compile(
    rb"(\A|-----END [A-Z0-9 ]+-----[ \t]*\r?\n)"
    rb"(?:(?!-----)[^\r\n]*\r?\n)+?(?=-----BEGIN )"
)
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    UnsupportedAlgorithm,
)


def load_der_certificate(data: bytes, what: str) -> x509.Certificate:
    """Read one certificate from DER, with its extensions.

    Raises:
        MalformedError: too large, trailing bytes, or not a certificate.
    """
    _check_size(data, MAX_CERTIFICATE_BYTES, what)
    try:
        return _loaded(data) if len(data) <= _ORDINARY else _load(data)
    except _UNREADABLE as exc:
        raise _not_a(what, "an X.509 certificate in DER", exc) from exc


# The same chip sends the same certificates each time; what is read from one, and what
# was found out about it (`kbs.pki.cache`), is kept with the object.
@lru_cache(REMEMBERED)
def _loaded(data: bytes) -> x509.Certificate:
    return _load(data)


def _load(data: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(data)
    # Read now, so that a bad extension is a parse error and not a later surprise.
    _ = certificate.extensions, certificate.subject, certificate.issuer
    _require_whole_octets(data, certificate.signature)
    return certificate


def _require_whole_octets(data: bytes, signature: bytes) -> None:
    # The signature is the last value (RFC 5280, section 4.1), and signed by nobody is
    # the count of bits in it that mean nothing: a second spelling where they are 0.
    if not data.endswith(b"\0" + signature):
        message = "a signature of broken octets"
        raise ValueError(message)


def load_certificates(
    data: bytes, what: str, *, most: int = MAX_CERTIFICATES
) -> tuple[x509.Certificate, ...]:
    """Read one certificate from DER, or one to `most` from PEM.

    Raises:
        MalformedError: anything else.
    """
    if not _looks_like_pem(data):
        return (load_der_certificate(data, what),)
    load = _chain_of_pem if len(data) <= _ORDINARY_PEM else _load_pem
    return load(data, what, most)


@lru_cache(REMEMBERED)
def _chain_of_pem(data: bytes, what: str, most: int) -> tuple[x509.Certificate, ...]:
    return _load_pem(data, what, most)


def _load_pem(data: bytes, what: str, most: int) -> tuple[x509.Certificate, ...]:
    _check_size(data, most * 2 * MAX_CERTIFICATE_BYTES, what)
    blocks = _pem_blocks(data, "CERTIFICATE", what, limit=MAX_CERTIFICATE_BYTES)
    if len(blocks) > most:
        raise MalformedError(
            what, got=f"{len(blocks)} certificates", expected=f"at most {most}"
        )
    return tuple(load_der_certificate(block, what) for block in blocks)


def load_der_crl(data: bytes, what: str) -> x509.CertificateRevocationList:
    """Read one revocation list from DER, with its extensions.

    Raises:
        MalformedError: too large, trailing bytes, or not a revocation list.
    """
    _check_size(data, MAX_CRL_BYTES, what)
    try:
        crl = x509.load_der_x509_crl(data)
        _ = crl.extensions, crl.issuer, crl.last_update_utc, crl.next_update_utc
        _require_whole_octets(data, crl.signature)
    except _UNREADABLE as exc:
        raise _not_a(what, "an X.509 CRL in DER", exc) from exc
    return crl


def load_crls(data: bytes, what: str) -> tuple[x509.CertificateRevocationList, ...]:
    """Read one revocation list from DER, or one or more from PEM.

    Raises:
        MalformedError: anything else.
    """
    if not _looks_like_pem(data):
        return (load_der_crl(data, what),)
    _check_size(data, 2 * MAX_CRL_BYTES, what)
    blocks = _pem_blocks(data, "X509 CRL", what, limit=MAX_CRL_BYTES)
    return tuple(load_der_crl(block, what) for block in blocks)


def without_remarks(data: bytes) -> bytes:
    """Return a file without the lines of text directly above its PEM blocks.

    Vendors publish such files (RFC 7468, section 2); in evidence they may not be.
    """
    # Only whole lines of ASCII go, none below the last block, and nothing with a
    # boundary in it: what is no good block stays, to be refused. DER has bytes that
    # no text has, and is left as it is.
    return _REMARKS.sub(rb"\1", data) if data.isascii() else data


def der(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """Return the DER encoding, exactly as it was read."""
    return certificate.public_bytes(Encoding.DER)


@lru_cache(REMEMBERED)
def spki_sha256(certificate: x509.Certificate) -> str:
    """Return the SHA-256 (hex) of the certificate's SubjectPublicKeyInfo in DER.

    Raises:
        MalformedError: the key is of a kind that cannot be read.
    """
    try:
        spki = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
    except _UNREADABLE as exc:
        raise _not_a("certificate public key", "a supported key", exc) from exc
    return hashlib.sha256(spki).hexdigest()


def describe(name: x509.Name) -> str:
    """Return a short text for a subject or issuer: its common name, else all of it."""
    for attribute in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        return str(attribute.value)[:80]
    return name.rfc4514_string()[:80]


def _looks_like_pem(data: bytes) -> bool:
    return data.lstrip(b" \t\r\n")[:10] == b"-----BEGIN"


def _pem_blocks(data: bytes, label: str, what: str, *, limit: int) -> list[bytes]:
    # RFC 7468 allows text around blocks; we do not, so that nothing is overlooked.
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as exc:
        raise MalformedError(what, got="PEM that is not ASCII") from exc
    blocks: list[bytes] = []
    position = 0
    for match in _BLOCK.finditer(text):
        _check_between(text[position : match.start()], what)
        position = match.end()
        if match.group(1) != label:
            raise MalformedError(what, got=f"PEM {match.group(1)[:40]}", expected=label)
        body = re.sub(r"[\r\n]", "", match.group(2))
        blocks.append(parse_b64(body, f"{what} PEM", limit=limit))
    _check_between(text[position:], what)
    return blocks


def _check_between(text: str, what: str) -> None:
    if text.strip(" \t\r\n"):
        raise MalformedError(
            what, got="text outside of PEM blocks", expected="PEM blocks only"
        )


def _check_size(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        raise MalformedError(
            what, got=f"{len(data)} bytes", expected=f"at most {limit}"
        )


def _not_a(what: str, expected: str, cause: Exception) -> MalformedError:
    return MalformedError(what, got=str(cause)[:80] or "garbage", expected=expected)
