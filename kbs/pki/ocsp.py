"""OCSP answers: is it about this certificate, from who may say, and what does it say?

RFC 6960. An answer counts when the issuer itself signed it, or a responder whose
certificate the issuer signed for this purpose alone (section 4.2.2.2) and exempted
from revocation (`id-pkix-ocsp-nocheck`), since nothing is fetched here. Nonces are not
looked at: answers are kept and used for as long as they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from kbs.core.errors import MalformedError
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import REMEMBERED
from kbs.pki.chain import is_issued_by, is_strong, out_of_date, understands

MAX_OCSP_BYTES = 16 * 1024
"""DER of one answer; NVIDIA's, with a responder's certificate, have under 2 KiB."""

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one good answer says of one certificate; `until` None is open-ended."""

    status: ocsp.OCSPCertStatus
    reason: x509.ReasonFlags | None
    since: datetime
    until: datetime | None

    def is_current(self, now: datetime) -> bool:
        """Whether the answer speaks about `now`; an open-ended one never does."""
        return self.until is not None and self.since <= now <= self.until


def load_ocsp_answer(data: bytes, what: str) -> ocsp.OCSPResponse:
    """Read one successful OCSP answer, about one certificate, from DER.

    Raises:
        MalformedError: too large, no OCSP answer, or one without any status.
    """
    if len(data) > MAX_OCSP_BYTES:
        raise MalformedError(
            what, got=f"{len(data)} bytes", expected=f"at most {MAX_OCSP_BYTES}"
        )
    try:
        answer = ocsp.load_der_ocsp_response(data)
        status = answer.response_status
    except _UNREADABLE as exc:
        raise MalformedError(what, got="garbage", expected="an OCSP answer") from exc
    if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        # The responder knows nothing of the certificate; that is no status of it.
        raise MalformedError(
            what, got=f"OCSP status {status.name.lower()}", expected="successful"
        )
    _read_through(answer, what)
    return answer


def answer_for(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    given: ocsp.OCSPResponse,
    *,
    now: datetime,
    cache: LinkCache,
) -> Answer | None:
    """Return what an answer says of a certificate; None if nothing that counts."""
    for single in given.responses:
        if single.serial_number != certificate.serial_number:
            continue
        if not _names(single, issuer) or single.this_update_utc > now:
            continue
        if not _is_signed(given, issuer, cache):
            return None
        return Answer(
            status=single.certificate_status,
            reason=single.revocation_reason,
            since=single.this_update_utc,
            until=single.next_update_utc,
        )
    return None


def _read_through(answer: ocsp.OCSPResponse, what: str) -> None:
    """Read everything that is used later, so that it is a parse error now."""
    try:
        singles = list(answer.responses)
        if len(singles) != 1:
            raise MalformedError(what, got=f"{len(singles)} statuses", expected="one")
        _ = answer.produced_at_utc, answer.tbs_response_bytes
        _ = answer.responder_name, answer.responder_key_hash
        _ = answer.signature_hash_algorithm, singles[0].hash_algorithm
        _ = singles[0].certificate_status, singles[0].revocation_reason
        for certificate in answer.certificates:
            _ = certificate.extensions, certificate.public_key()
        extensions = (*answer.extensions, *answer.single_extensions)
    except _UNREADABLE as exc:
        raise MalformedError(what, got="garbage", expected="an OCSP answer") from exc
    if any(extension.critical for extension in extensions):
        raise MalformedError(what, got="a critical extension", expected="none")


def _names(single: ocsp.OCSPSingleResponse, issuer: x509.Certificate) -> bool:
    """Whether the CertID names this issuer, by name and by key."""
    algorithm = single.hash_algorithm
    return single.issuer_name_hash == _digest(
        algorithm, issuer.subject.public_bytes()
    ) and single.issuer_key_hash == _digest(algorithm, _key_bits(issuer))


@lru_cache(REMEMBERED)
def _key_bits(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return b""


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize()


def _is_signed(
    given: ocsp.OCSPResponse, issuer: x509.Certificate, cache: LinkCache
) -> bool:
    # Nothing in this depends on the time or on what is trusted.
    if cache.answers.find((given, issuer)):
        return True
    return _is_signed_by_any(given, issuer, cache) and cache.answers.keep(
        (given, issuer), found=True
    )


def _is_signed_by_any(
    given: ocsp.OCSPResponse, issuer: x509.Certificate, cache: LinkCache
) -> bool:
    signers = (issuer, *(one for one in given.certificates if one != issuer))
    return any(
        _is_responder(given, signer)
        and (signer == issuer or _is_delegate(given, signer, issuer, cache))
        and _has_signature_of(given, signer, cache)
        for signer in signers
    )


def _is_responder(given: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    if given.responder_name is not None:
        return given.responder_name.public_bytes() == signer.subject.public_bytes()
    # RFC 6960, section 4.2.1: KeyHash is always SHA-1, a name and no protection.
    return given.responder_key_hash == _digest(
        hashes.SHA1(),  # noqa: S303
        _key_bits(signer),
    )


def _is_delegate(
    given: ocsp.OCSPResponse,
    signer: x509.Certificate,
    issuer: x509.Certificate,
    cache: LinkCache,
) -> bool:
    extensions = signer.extensions
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        extensions.get_extension_for_class(x509.OCSPNoCheck)
    except x509.ExtensionNotFound:
        return False
    return (
        ExtendedKeyUsageOID.OCSP_SIGNING in usages
        and understands(signer)
        and not out_of_date((signer,), given.produced_at_utc)
        and is_issued_by(signer, issuer, cache)
    )


def _has_signature_of(
    given: ocsp.OCSPResponse, signer: x509.Certificate, cache: LinkCache
) -> bool:
    # What is signed and the signature: all that verifying it depends on.
    signed = given.tbs_response_bytes + given.signature
    left = _digest(hashes.SHA256(), signed)
    right = signer.fingerprint(hashes.SHA256())
    if cache.holds(left, right):
        return True
    algorithm = given.signature_hash_algorithm
    if algorithm is None or not is_strong(algorithm, signer):
        return False
    try:
        _verify_signature(given, signer, algorithm)
    except InvalidSignature:
        return False
    cache.remember(left, right)
    return True


def _verify_signature(
    given: ocsp.OCSPResponse, signer: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> None:
    key, signed = signer.public_key(), given.tbs_response_bytes
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(given.signature, signed, padding.PKCS1v15(), algorithm)
    else:
        # `is_strong` takes these two kinds only.
        curve = cast("ec.EllipticCurvePublicKey", key)
        curve.verify(given.signature, signed, ec.ECDSA(algorithm))
