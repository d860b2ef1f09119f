"""One `tdx` or `sgx` item of a bundle: the quote, and what came with it.

::

    {"kind": "tdx", "quote": b64, "collateral": {…}, "event_log": b64}
    {"kind": "sgx", "quote": b64, "collateral": {…}}

The PCK certificate and its issuers are in the quote; for `collateral`, see there.
Nothing is believed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from cryptography import x509

from kbs.core.clock import format_time
from kbs.core.encode import parse_b64, require_members, require_object
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.collateral import MAX_CERTIFICATES, parse_collateral
from kbs.evidence.dcap.inspection import inspect_document
from kbs.evidence.dcap.pck import Pck, is_pck, parse_pck
from kbs.evidence.dcap.quote import (
    CERTIFICATE_CHAIN,
    MAX_QUOTE_BYTES,
    Quote,
    parse_quote,
)
from kbs.evidence.dcap.reports import EnclaveReport, Report
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import load_certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapItem:
    """Quote, the certificates in it, its PCK if that is one of them, collateral."""

    quote: Quote
    certificates: tuple[x509.Certificate, ...]
    pck: Pck | None
    collateral: GivenCollateral
    event_log: object | None = field(default=None, repr=False)


def parse_item(
    item: Mapping[str, object], kind: str, tee_type: int, *, optional: frozenset[str]
) -> tuple[DcapItem, Mapping[str, object]]:
    """Read the JSON item; `optional` names what the family adds and reads by itself.

    Raises:
        MalformedError: a member, the quote, a certificate or a document is malformed.
    """
    members = require_members(
        dict(item),
        f"{kind} item",
        required={"kind", "quote"},
        optional={"collateral", *optional},
    )
    if members["kind"] != kind:
        raise MalformedError("item kind", got=repr(members["kind"])[:40], expected=kind)
    raw = parse_b64(members["quote"], f"{kind} quote", limit=MAX_QUOTE_BYTES)
    quote = parse_quote(raw)
    if quote.header.tee_type != tee_type:
        raise MalformedError(
            f"{kind} quote TEE type",
            got=f"{quote.header.tee_type:#x}",
            expected=f"{tee_type:#x}",
        )
    certificates = _certificates(quote)
    collateral = GivenCollateral()
    if "collateral" in members:
        given = require_object(members["collateral"], f"{kind} collateral")
        collateral = parse_collateral(given)
    leaf = next((one for one in certificates if is_pck(one)), None)
    parsed = DcapItem(
        quote=quote,
        certificates=certificates,
        pck=None if leaf is None else parse_pck(leaf),
        collateral=collateral,
    )
    return parsed, members


def inspect_item(item: DcapItem) -> dict[str, object]:
    """Return all fields of the quote and its PCK for people; nothing is proven."""
    quote = item.quote
    document: dict[str, object] = {
        "version": quote.header.version,
        "tee_type": f"{quote.header.tee_type:#x}",
        "body_type": quote.body_type,
        "qe_svn": quote.header.qe_svn,
        "pce_svn": quote.header.pce_svn,
        "user_data": quote.header.user_data.hex(),
        **inspect_report(quote.report),
        "quote_size": len(quote.raw),
        "padding_size": len(quote.padding),
        "signature": quote.signature.hex(),
        "attestation_key": quote.attestation_key.hex(),
        "qe_report": inspect_report(quote.qe_report),
        "qe_auth_data": quote.qe_auth_data.hex(),
        "certification_data_type": quote.certification.type,
        "certificates": [_inspect_certificate(one) for one in item.certificates],
        "documents": [inspect_document(one) for one in item.collateral.documents()],
    }
    if item.pck is not None:
        document["pck"] = _inspect_pck(item.pck)
    return document


def inspect_report(report: Report) -> dict[str, object]:
    """Return the fields of a report, bytes as hex."""
    values = ((each.name, getattr(report, each.name)) for each in fields(report))
    shown = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in values
        if value is not None
    }
    if isinstance(report, EnclaveReport):
        shown["debug"] = report.is_debug
    return shown


def _certificates(quote: Quote) -> tuple[x509.Certificate, ...]:
    if quote.certification.type != CERTIFICATE_CHAIN:
        return ()
    # Quoting libraries leave the terminator of the C string behind the last block.
    data = quote.certification.data.rstrip(b"\0")
    what = "quote certification data"
    if not data.startswith(b"-----BEGIN "):
        raise MalformedError(what, got="no PEM", expected="certificates in PEM")
    return load_certificates(data, what, most=MAX_CERTIFICATES)


def _inspect_pck(pck: Pck) -> dict[str, object]:
    return {
        "spki_sha256": pck.spki_sha256,
        "ppid": pck.ppid.hex(),
        **({} if pck.piid is None else {"piid": pck.piid.hex()}),
        "fmspc": pck.fmspc.hex(),
        "pce_id": pck.pce_id.hex(),
        "pce_svn": pck.pce_svn,
        "cpu_svn": pck.cpu_svn.hex(),
        "tcb_component_svns": ".".join(str(svn) for svn in pck.component_svns),
        **pck.platform,
    }


def _inspect_certificate(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
    }
