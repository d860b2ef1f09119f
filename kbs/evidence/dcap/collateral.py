"""Intel's collateral in JSON: the answers of the service, or a set with their chains.

Accepted are the body of one answer (`documents`), or an object of any of these members,
which is how DCAP libraries hand collateral around (`sgx_ql_qve_collateral_t`)::

    {"tcb_info": text, "tcb_info_signature": hex, "tcb_info_issuer_chain": PEM,
     "qe_identity": text, "qe_identity_signature": hex, "qe_identity_issuer_chain": PEM,
     "pck_crl": CRL, "root_ca_crl": CRL, "pck_crl_issuer_chain": PEM,
     "pck_certificate_chain": PEM}

`tcb_info` and `qe_identity` are the body of the answer as text, or the signed value
alone with its signature beside it. A CRL is DER in hex or base64, or PEM. An issuer
chain may be percent-encoded, as the service writes it into a header. Nothing is
believed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from cryptography import x509

from kbs.core.encode import parse_b64, parse_hex, parse_json_object, require_text
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.documents import (
    MAX_DOCUMENT_BYTES,
    joined_document,
    parse_document,
)
from kbs.evidence.model import GivenCollateral, VendorDocument
from kbs.pki.certificates import load_certificates, load_crls, load_der_crl

MAX_CRL_BYTES = 256 * 1024
"""A list that comes with evidence; Intel's have under 4 KiB."""

MAX_CERTIFICATES = 8
"""Certificates in one chain; Intel's have 2 or 3."""

_MAX_CHAIN_TEXT = 64 * 1024
_CHAINS = (
    "tcb_info_issuer_chain",
    "qe_identity_issuer_chain",
    "pck_crl_issuer_chain",
    "pck_certificate_chain",
)
_LISTS = ("pck_crl", "root_ca_crl")
_DOCUMENTS = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
_MEMBERS = frozenset(
    {*_CHAINS, *_LISTS, *_DOCUMENTS, *(f"{name}_signature" for name in _DOCUMENTS)}
)


def read_collateral(data: bytes) -> GivenCollateral:
    """Read a file of Intel's collateral in JSON.

    Raises:
        MalformedError: it is neither an answer of the service nor a set.
    """
    members = parse_json_object(data, "Intel collateral", limit=4 * MAX_DOCUMENT_BYTES)
    if members.keys().isdisjoint(_MEMBERS):
        return GivenCollateral(given_documents=(parse_document(data),))
    return parse_collateral(members)


def parse_collateral(members: Mapping[str, object]) -> GivenCollateral:
    """Read a set of collateral; a member may be absent or null.

    Raises:
        MalformedError: an unknown member, or one that is malformed.
    """
    unknown = sorted(members.keys() - _MEMBERS)
    if unknown:
        raise MalformedError(
            "collateral",
            got=f"unknown member {unknown[0][:40]!r}",
            expected="only " + ", ".join(sorted(_MEMBERS)),
        )
    given = {name: value for name, value in members.items() if value is not None}
    certificates = [
        one for name in _CHAINS if name in given for one in _chain(given[name], name)
    ]
    return GivenCollateral(
        tuple(dict.fromkeys(certificates)),
        tuple(one for name in _LISTS if name in given for one in _crls(given, name)),
        given_documents=tuple(
            _document(given, name) for name in _DOCUMENTS if name in given
        ),
    )


def _document(given: Mapping[str, object], name: str) -> VendorDocument:
    text = require_text(given[name], name, limit=MAX_DOCUMENT_BYTES)
    beside = f"{name}_signature"
    if beside not in given:
        return parse_document(text.encode("utf-8"))
    signature = require_text(given[beside], beside, limit=128)
    if not signature.isalnum():
        raise MalformedError(beside, got=repr(signature)[:40], expected="hex")
    return parse_document(joined_document(_DOCUMENTS[name], text, signature))


def _chain(value: object, what: str) -> tuple[x509.Certificate, ...]:
    text = require_text(value, what, limit=_MAX_CHAIN_TEXT)
    data = text.encode("utf-8")
    if text.startswith("-----BEGIN%20"):
        data = unquote_to_bytes(text)
    # What comes from C libraries may end with the terminator of its string.
    return load_certificates(data.rstrip(b"\0"), what, most=MAX_CERTIFICATES)


def _crls(
    given: Mapping[str, object], what: str
) -> tuple[x509.CertificateRevocationList, ...]:
    text = require_text(given[what], what, limit=2 * MAX_CRL_BYTES)
    if "-----" in text:
        return load_crls(text.encode("utf-8"), what)
    # DER begins with 30h: in hex that is "30", in base64 it is "M".
    if text.startswith("30"):
        der = parse_hex(text.lower(), what)
    else:
        der = parse_b64(text, what, limit=MAX_CRL_BYTES)
    return (load_der_crl(der, what),)
