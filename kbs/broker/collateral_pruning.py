"""Which rows of the collateral table no verdict hangs on any more.

Vendors issue the same again and again, and every answer is another row. A row may go
when, at every time since `before`, verifiers would say the same without it:

* a revocation list, when one that the same key signed is newer and had begun by then:
  the newest counts, and where it has run out nothing older takes its place;
* a TCB info or QE identity likewise;
* an OCSP answer that had run out by then, when a newer one about the same certificate
  had begun. One that says revoked or on hold counts however old it is, and stays.

Newer is what verifiers take for newer, and a signature has to prove it: what anybody
wrote cannot push out what a vendor signed. Whose the key is does not matter, since
whoever trusts it for the one would have for the other. Certificates and manifests stay:
they are few, and prove the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.broker.collateral_items import CERTIFICATE, CRL
from kbs.broker.collateral_rows import OCSP
from kbs.broker.ports import StoredCollateral
from kbs.evidence.dcap.documents import DOCUMENT_KINDS, parse_document
from kbs.evidence.dcap.levels import QeIdentity, TcbInfo
from kbs.evidence.dcap.vouching import SIGNER
from kbs.evidence.dcap.vouching import age_of as age_of_document
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe, load_der_certificate, load_der_crl
from kbs.pki.crl import age_of as age_of_list
from kbs.pki.crl import is_crl_of
from kbs.pki.ocsp import load_ocsp_answer
from kbs.pki.p256 import is_p256_signature

_Age = tuple[int, datetime]
_Read = TypeVar("_Read")


def superseded(rows: Sequence[StoredCollateral], before: datetime) -> tuple[bytes, ...]:
    """Return the digests of rows that may go, in the order of the rows.

    Raises:
        MalformedError: a row cannot be read any more.
    """
    # Dates come from what was signed, and from the table's columns never.
    lists = [
        (row.digest, crl)
        for row in rows
        if row.kind == CRL
        and (crl := load_der_crl(row.der, row.issuer)).last_update_utc <= before
    ]
    documents = [
        (row.digest, content)
        for row in rows
        if row.kind in DOCUMENT_KINDS
        and isinstance(
            content := parse_document(row.der).content, (TcbInfo, QeIdentity)
        )
        and content.issue_date <= before
    ]
    answers = [
        (row.digest, load_ocsp_answer(row.der, row.subject))
        for row in rows
        if row.kind == OCSP
    ]
    # Whether a certificate is valid does not matter: its key signed what it signed.
    signers = [
        load_der_certificate(row.der, row.subject)
        for row in rows
        if row.kind == CERTIFICATE and (lists or documents)
    ]
    gone = {
        *_lists(lists, signers),
        *_documents(documents, signers),
        *_answers(answers, before),
    }
    return tuple(row.digest for row in rows if row.digest in gone)


def _lists(
    lists: Sequence[tuple[bytes, x509.CertificateRevocationList]],
    signers: Iterable[x509.Certificate],
) -> set[bytes]:
    cache = LinkCache()
    gone: set[bytes] = set()
    for signer in signers:
        signed = [one for one in lists if is_crl_of(one[1], signer, cache)]
        gone |= _older(signed, age_of_list)
    return gone


def _documents(
    documents: Iterable[tuple[bytes, TcbInfo | QeIdentity]],
    signers: Iterable[x509.Certificate],
) -> set[bytes]:
    same: dict[object, list[tuple[bytes, TcbInfo | QeIdentity]]] = {}
    for digest, one in documents:
        # As verifiers ask for them: by their platform, or by their enclave.
        about = (one.id, one.fmspc) if isinstance(one, TcbInfo) else one.id
        same.setdefault(about, []).append((digest, one))
    keys = [one.public_key() for one in signers if describe(one.subject) == SIGNER]
    gone: set[bytes] = set()
    for some, key in itertools.product(same.values(), keys):
        signed = [
            (digest, one)
            for digest, one in some
            if is_p256_signature(key, one.signature, one.body)
        ]
        gone |= _older(signed, age_of_document)
    return gone


def _older(
    signed: Sequence[tuple[bytes, _Read]], age_of: Callable[[_Read], _Age]
) -> set[bytes]:
    newest = max((age_of(one) for _, one in signed), default=None)
    return {digest for digest, one in signed if age_of(one) != newest}


def _answers(
    answers: Iterable[tuple[bytes, ocsp.OCSPResponse]], before: datetime
) -> set[bytes]:
    singles = [
        (digest, one)
        for digest, given in answers
        for one in given.responses
        if one.this_update_utc <= before
    ]
    newest: dict[object, datetime] = {}
    for _, one in singles:
        begins = one.this_update_utc
        newest[_about(one)] = max(newest.get(_about(one), begins), begins)
    return {
        digest
        for digest, one in singles
        if one.certificate_status is not ocsp.OCSPCertStatus.REVOKED
        and one.next_update_utc is not None
        and one.next_update_utc < before
        and one.this_update_utc < newest[_about(one)]
    }


def _about(one: ocsp.OCSPSingleResponse) -> object:
    return (
        one.hash_algorithm.name,
        one.issuer_name_hash,
        one.issuer_key_hash,
        one.serial_number,
    )
