"""One `snp` item of a bundle: the report and the certificates that came with it.

::

    {"kind": "snp", "report": b64, "certificates": [PEM or b64 DER, …], "crl": b64}

Certificates may stand in any order and include ones that are not needed; the leaf
is the one with AMD's extensions. Nothing is believed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from kbs.core.claims import nest
from kbs.core.clock import format_time
from kbs.core.encode import parse_b64, require_list, require_members, require_text
from kbs.core.errors import MalformedError
from kbs.evidence.snp.abi import REPORT_BYTES, parse_report
from kbs.evidence.snp.certificates import (
    EndorsementKey,
    is_endorsement_key,
    parse_endorsement_key,
)
from kbs.evidence.snp.claims import report_claims
from kbs.evidence.snp.products import ProductLine
from kbs.evidence.snp.report import Report
from kbs.pki.certificates import (
    MAX_CERTIFICATE_BYTES,
    load_certificates,
    load_der_certificate,
    load_der_crl,
)

MAX_CERTIFICATES = 16
"""Strings in `certificates`, and certificates in all of them; a chain has 3."""

MAX_CRL_BYTES = 64 * 1024
"""A list that comes with evidence; AMD's have under 2 KiB."""

# PEM is base64 with line breaks and two more lines, for a few certificates.
_MAX_CERTIFICATE_TEXT = 4 * 2 * MAX_CERTIFICATE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpItem:
    """Report, leaf if there is one, the other certificates, and revocation lists."""

    raw: bytes
    report: Report
    key: EndorsementKey | None
    certificates: tuple[x509.Certificate, ...]
    revocation_lists: tuple[x509.CertificateRevocationList, ...]


def parse_item(item: Mapping[str, object]) -> SnpItem:
    """Read the JSON item.

    Raises:
        MalformedError: a member, the report, a certificate or the CRL is malformed.
    """
    members = require_members(
        dict(item),
        "snp item",
        required={"kind", "report"},
        optional={"certificates", "crl"},
    )
    if members["kind"] != "snp":
        raise MalformedError(
            "item kind", got=repr(members["kind"])[:40], expected="snp"
        )
    raw = parse_b64(members["report"], "snp report", limit=REPORT_BYTES)
    report = parse_report(raw)
    certificates = _parse_certificates(members.get("certificates", []))
    return SnpItem(
        raw=raw,
        report=report,
        key=_select_key(report, certificates),
        certificates=certificates,
        revocation_lists=_parse_crl(members),
    )


def inspect_item(item: SnpItem) -> dict[str, object]:
    """Return all fields for people; nothing in it is proven."""
    report = item.report
    document = nest(report_claims(report), "snp")
    # Without a product line in the report or the leaf, the older layout is shown.
    line = report.product or (item.key and item.key.product) or ProductLine.MILAN
    document.update(_inspect_tcbs(report, line))
    document["signature"] = {
        "algorithm": report.signature_algo,
        "r": f"{report.signature_r:096x}",
        "s": f"{report.signature_s:096x}",
    }
    document["certificates"] = [_inspect_certificate(c) for c in item.certificates]
    if item.key is not None:
        document["endorsement_key"] = _inspect_key(item.key)
    document["revocation_lists"] = [_inspect_crl(crl) for crl in item.revocation_lists]
    return document


def _parse_certificates(value: object) -> tuple[x509.Certificate, ...]:
    certificates: list[x509.Certificate] = []
    texts = require_list(value, "snp certificates", limit=MAX_CERTIFICATES)
    for index, entry in enumerate(texts):
        what = f"snp certificates[{index}]"
        text = require_text(entry, what, limit=_MAX_CERTIFICATE_TEXT)
        certificates.extend(_parse_certificate(text, what))
    if len(certificates) > MAX_CERTIFICATES:
        raise MalformedError(
            "snp certificates",
            got=f"{len(certificates)} certificates",
            expected=f"at most {MAX_CERTIFICATES}",
        )
    return tuple(dict.fromkeys(certificates))


def _parse_certificate(text: str, what: str) -> tuple[x509.Certificate, ...]:
    if "-----" not in text:
        der = parse_b64(text, what, limit=MAX_CERTIFICATE_BYTES)
        return (load_der_certificate(der, what),)
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError as exc:
        raise MalformedError(what, got="PEM that is not ASCII") from exc
    return load_certificates(data, what, most=MAX_CERTIFICATES)


def _parse_crl(
    members: Mapping[str, object],
) -> tuple[x509.CertificateRevocationList, ...]:
    if "crl" not in members:
        return ()
    der = parse_b64(members["crl"], "snp crl", limit=MAX_CRL_BYTES)
    return (load_der_crl(der, "snp crl"),)


def _select_key(
    report: Report, certificates: tuple[x509.Certificate, ...]
) -> EndorsementKey | None:
    """Return the leaf: of the kind that the report names, else of the other."""
    keys = [parse_endorsement_key(c) for c in certificates if is_endorsement_key(c)]
    fitting = [key for key in keys if key.kind is report.signing_key] or keys
    if len(fitting) > 1:
        raise MalformedError(
            "snp certificates",
            got=f"{len(fitting)} {fitting[0].kind.value} certificates",
            expected="the one that signed the report",
        )
    return fitting[0] if fitting else None


def _inspect_tcbs(report: Report, line: ProductLine) -> dict[str, object]:
    raw = {
        "reported": report.reported_tcb,
        "current": report.current_tcb,
        "committed": report.committed_tcb,
        "launch": report.launch_tcb,
    }
    try:
        parts: Mapping[str, Mapping[str, int]] = report.tcbs(line)
    except MalformedError:
        parts = {}
    return {
        f"{which}_tcb": {"raw": value.hex(), **parts.get(which, {})}
        for which, value in raw.items()
    }


def _inspect_certificate(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
    }


def _inspect_key(key: EndorsementKey) -> dict[str, object]:
    document: dict[str, object] = {
        "kind": key.kind.value,
        "spki_sha256": key.spki_sha256,
        "struct_version": key.struct_version,
        "product_name": key.product_name,
        "tcb": dict(key.tcb),
    }
    if key.hwid is not None:
        document["hwid"] = key.hwid.hex()
    if key.csp_id is not None:
        document["csp_id"] = key.csp_id
    return document


def _inspect_crl(crl: x509.CertificateRevocationList) -> dict[str, object]:
    until = crl.next_update_utc
    return {
        "issuer": crl.issuer.rfc4514_string(),
        "this_update": format_time(crl.last_update_utc),
        "next_update": format_time(until) if until is not None else None,
        "revoked": [f"{entry.serial_number:x}" for entry in crl],
    }
