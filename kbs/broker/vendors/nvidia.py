"""NVIDIA's manifests (RIM service) and the status of its certificates (OCSP).

A manifest lies under its id, which its signature does not cover. The status of a
certificate is asked for by RFC 6960: the request says which certificate is meant, so
that it is the source. It is written as the URL of a GET (appendix A.1) and sent as a
POST with a nonce (RFC 9654); an answer without one was made before and counts for as
long as it says.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Iterator
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from kbs.broker.collateral_rows import load_stored_rim, stored_rim_bytes
from kbs.broker.vendors.source import Service, Source
from kbs.broker.vendors.visit import Route, Visit
from kbs.core.encode import b64, parse_b64, parse_json_object, require_text
from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.rim import verify_rim
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES
from kbs.pki.certificates import der, describe
from kbs.pki.ocsp import MAX_OCSP_BYTES, answer_for, load_ocsp_answer
from kbs.pki.roots import Purpose

RIM_ID = re.compile(r"NV_[A-Z]+_[A-Za-z0-9._-]{1,120}", re.ASCII)

_RIM_PATH = re.compile(rf"/v1/rim/(?P<id>{RIM_ID.pattern})", re.ASCII)
_OCSP_PATH = re.compile(r"/(?P<request>[A-Za-z0-9%]{16,1200})", re.ASCII)
_MAX_ID = 128
_NONCE_BYTES = 32
_MEDIA_TYPE = "application/ocsp-request"


def rim_source(rim_id: str) -> Source:
    """Return where a manifest lies."""
    return Source(Service.RIM, f"/v1/rim/{rim_id}")


def status_source(certificate: x509.Certificate, issuer: x509.Certificate) -> Source:
    """Return where the status of a certificate is asked for."""
    # NVIDIA's own SDK names certificates by SHA-384.
    request = ocsp.OCSPRequestBuilder().add_certificate(
        certificate, issuer, hashes.SHA384()
    )
    return _source_of(request.build())


def status_sources(chain: tuple[x509.Certificate, ...]) -> tuple[Source, ...]:
    """Return where to ask about the certificates of a chain that have an issuer in it.

    The leaf of a device is left out: only the device itself knows it.
    """
    found = [
        status_source(one, issuer)
        for one, issuer in _pairs(chain)
        if _is_authority(one)
    ]
    return tuple(dict.fromkeys(found))


def source_of_rim(data: bytes) -> Source | None:
    """Return where NVIDIA publishes a kept manifest; None if it was kept without id."""
    rim_id = load_stored_rim(data).rim_id
    known = rim_id is not None and RIM_ID.fullmatch(rim_id)
    return rim_source(rim_id) if rim_id is not None and known else None


def source_of_answer(data: bytes) -> Source | None:
    """Return where to ask for what a kept OCSP answer says."""
    single = next(iter(load_ocsp_answer(data, "OCSP answer").responses))
    request = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        single.issuer_name_hash,
        single.issuer_key_hash,
        single.serial_number,
        single.hash_algorithm,
    )
    return _source_of(request.build())


def _fetch_rim(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(visit.source, limit=4 * MAX_RIM_BYTES)
    try:
        members = parse_json_object(answer.body, "RIM", limit=4 * MAX_RIM_BYTES)
        rim_id = require_text(members.get("id"), "RIM id", limit=_MAX_ID)
        document = parse_b64(members.get("rim"), "RIM", limit=MAX_RIM_BYTES)
        rim = verify_rim(document)
    except (MalformedError, VerificationError) as exc:
        raise visit.wrong(str(exc), "a manifest that NVIDIA signed") from exc
    if rim_id.upper() != match["id"].upper():
        raise visit.wrong(f"id {rim_id}", match["id"])
    visit.proven_chain(rim.signer, rim.certificates, Purpose.NVIDIA_RIM)
    return (stored_rim_bytes(StoredRim(document, rim_id)),)


def _fetch_status(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    wanted = _request_in(match["request"])
    certificate, issuer = _meant(visit, wanted)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    asked = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(certificate, issuer, wanted.hash_algorithm)
        .add_extension(x509.OCSPNonce(nonce), critical=False)
        .build()
    )
    answer = visit.ask(
        Source(Service.OCSP, ""),
        limit=MAX_OCSP_BYTES,
        body=asked.public_bytes(Encoding.DER),
        content_type=_MEDIA_TYPE,
    )
    try:
        given = load_ocsp_answer(answer.body, "OCSP answer")
    except MalformedError as exc:
        raise visit.wrong(str(exc), "an OCSP answer") from exc
    found = answer_for(certificate, issuer, given, now=visit.now, cache=visit.cache)
    name = describe(certificate.subject)
    if found is None:
        raise visit.wrong("an answer of somebody else, or about another", f"of {name}")
    if _nonce_of(given) not in {None, nonce}:
        raise visit.wrong("the nonce of another request", "ours, or none")
    if not found.is_current(visit.now):
        raise visit.wrong(f"an answer until {found.until}", "one that is current")
    if found.status is ocsp.OCSPCertStatus.UNKNOWN:
        raise visit.wrong(f"{name} is not known to the responder", "its status")
    # With both, it can be asked for again by what is kept alone.
    return (der(certificate), der(issuer), answer.body)


def _meant(
    visit: Visit, wanted: ocsp.OCSPRequest
) -> tuple[x509.Certificate, x509.Certificate]:
    for certificate, issuer in _pairs(visit.known.certificates()):
        if certificate.serial_number == wanted.serial_number and _is_about(
            wanted, certificate, issuer
        ):
            return certificate, issuer
    raise visit.wrong(
        "no certificate of that serial number to hand",
        "the certificate and its issuer, which prove the answer",
    )


def _is_about(
    wanted: ocsp.OCSPRequest, certificate: x509.Certificate, issuer: x509.Certificate
) -> bool:
    request = ocsp.OCSPRequestBuilder().add_certificate(
        certificate, issuer, wanted.hash_algorithm
    )
    made = request.build()
    return (made.issuer_name_hash, made.issuer_key_hash) == (
        wanted.issuer_name_hash,
        wanted.issuer_key_hash,
    )


def _pairs(
    pool: tuple[x509.Certificate, ...],
) -> Iterator[tuple[x509.Certificate, x509.Certificate]]:
    by_name: dict[bytes, list[x509.Certificate]] = {}
    for one in pool:
        by_name.setdefault(one.subject.public_bytes(), []).append(one)
    for one in pool:
        for issuer in by_name.get(one.issuer.public_bytes(), ()):
            if issuer != one:
                yield one, issuer


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return basic.value.ca


def _nonce_of(answer: ocsp.OCSPResponse) -> bytes | None:
    try:
        return answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def _source_of(request: ocsp.OCSPRequest) -> Source:
    text = quote(b64(request.public_bytes(Encoding.DER)), safe="")
    return Source(Service.OCSP, f"/{text}")


def _request_in(text: str) -> ocsp.OCSPRequest:
    try:
        data = binascii.a2b_base64(unquote(text), strict_mode=True)
        request = ocsp.load_der_ocsp_request(data)
        _ = request.serial_number, request.hash_algorithm
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            "source",
            got="no OCSP request",
            expected="one in base64, as RFC 6960, appendix A.1",
            code="collateral.source",
        ) from exc
    return request


ROUTES = (
    Route(Service.RIM, _RIM_PATH, _fetch_rim),
    Route(Service.OCSP, _OCSP_PATH, _fetch_status),
)
