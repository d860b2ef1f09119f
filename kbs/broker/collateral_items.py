"""What a file of collateral holds, as rows; and rows as verifiers take them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from kbs.broker.collateral_rows import OCSP, RIM, device_row, load_stored_rim
from kbs.broker.ports import StoredCollateral
from kbs.broker.vendors.fetching import origin_of
from kbs.core.clock import format_time
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.dcap.collateral import read_collateral
from kbs.evidence.dcap.documents import DOCUMENT_KINDS, parse_document
from kbs.evidence.dcap.vouching import SIGNER
from kbs.evidence.model import GivenCollateral, VendorDocument
from kbs.pki import certificates as pki
from kbs.pki.ocsp import load_ocsp_answer

CERTIFICATE = "certificate"
CRL = "crl"


def collateral_of(rows: Sequence[StoredCollateral]) -> GivenCollateral:
    """Return what rows hold, read.

    Raises:
        MalformedError: one cannot be read any more.
    """
    return GivenCollateral(
        tuple(
            pki.load_der_certificate(row.der, f"collateral {row.subject}")
            for row in rows
            if row.kind == CERTIFICATE
        ),
        tuple(
            pki.load_der_crl(row.der, f"collateral {row.issuer}")
            for row in rows
            if row.kind == CRL
        ),
        given_documents=tuple(
            parse_document(row.der) for row in rows if row.kind in DOCUMENT_KINDS
        ),
        given_ocsp_answers=tuple(
            load_ocsp_answer(row.der, f"collateral {row.subject}")
            for row in rows
            if row.kind == OCSP
        ),
        given_rims=tuple(load_stored_rim(row.der) for row in rows if row.kind == RIM),
    )


def rows_of(data: bytes, place: int, now: datetime) -> list[StoredCollateral]:
    """Return the rows for what one file holds; `place` is its number in an import.

    Raises:
        MalformedError: it is nothing that vendors publish.
    """
    what = f"collateral item {place}"
    data = pki.without_remarks(data)
    device = device_row(data, what, now)
    if device is not None:
        return [device]
    if data.lstrip(b" \t\r\n").startswith(b"{"):
        return _rows(read_collateral(data), now)
    try:
        return [_certificate(one, now) for one in pki.load_certificates(data, what)]
    except KbsError:
        pass
    try:
        return [_crl(one, now) for one in pki.load_crls(data, what)]
    except KbsError as exc:
        raise MalformedError(
            what,
            expected="certificates or revocation lists (DER, PEM), OCSP answers (DER), "
            "Intel's JSON or manifests with their id",
        ) from exc


def _rows(given: GivenCollateral, now: datetime) -> list[StoredCollateral]:
    return [
        *(_certificate(one, now) for one in given.certificates()),
        *(_crl(one, now) for one in given.revocation_lists()),
        *(_stored(one, now) for one in given.documents()),
    ]


def _stored(document: VendorDocument, now: datetime) -> StoredCollateral:
    return StoredCollateral(
        digest=hashlib.sha256(document.data).digest(),
        kind=document.kind,
        subject=document.subject,
        issuer=SIGNER,
        not_before=document.begins,
        not_after=document.ends,
        der=document.data,
        imported=now,
    )


def _certificate(certificate: x509.Certificate, now: datetime) -> StoredCollateral:
    der = pki.der(certificate)
    return StoredCollateral(
        digest=hashlib.sha256(der).digest(),
        kind=CERTIFICATE,
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        der=der,
        imported=now,
    )


def _crl(crl: x509.CertificateRevocationList, now: datetime) -> StoredCollateral:
    der = pki.der(crl)
    return StoredCollateral(
        digest=hashlib.sha256(der).digest(),
        kind=CRL,
        subject="",
        issuer=crl.issuer.rfc4514_string(),
        not_before=crl.last_update_utc,
        not_after=crl.next_update_utc,
        der=der,
        imported=now,
    )


def row_json(row: StoredCollateral) -> dict[str, object]:
    """Return what is shown of a row, with where its vendor publishes it."""
    origin = origin_of(row.kind, row.der)
    return {
        "sha256": row.digest.hex(),
        "kind": row.kind,
        "subject": row.subject,
        "issuer": row.issuer,
        "not_before": format_time(row.not_before),
        "not_after": None if row.not_after is None else format_time(row.not_after),
        "imported": format_time(row.imported),
        "source": None if origin is None else origin.url,
    }
