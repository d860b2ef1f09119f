"""Everything in an item of a device, for people; nothing shown is proven."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.core.clock import format_time
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.abi import Report
from kbs.evidence.nvgpu.item import DeviceItem
from kbs.evidence.nvgpu.opaque import Field, name_of
from kbs.evidence.nvgpu.shelf import RimShelf


def inspect_item(item: DeviceItem, shelf: RimShelf) -> dict[str, object]:
    """Return all fields of a report and what came with it."""
    return {
        **inspect_report(item.report),
        "certificates": [_inspect_certificate(one) for one in item.certificates],
        "fwids": [one.hex() for one in item.fwids],
        "rims": [inspect_rim(one, shelf) for one in item.rims],
        "ocsp": [_inspect_answer(one) for one in item.answers],
        "crls": [one.issuer.rfc4514_string() for one in item.revocation_lists],
    }


def inspect_report(report: Report) -> dict[str, object]:
    """Return all fields of a report."""
    opaque = report.opaque
    return {
        "nonce": report.nonce.hex(),
        "slot_id": report.slot_id,
        "request_params": list(report.request_params),
        "response_params": list(report.response_params),
        "responder_nonce": report.responder_nonce.hex(),
        "driver_version": opaque.text(Field.DRIVER_VERSION),
        "vbios_version": opaque.vbios_version,
        "feature": opaque.feature,
        "opaque": {name_of(kind): value.hex() for kind, value in opaque.fields},
        "measurements": {str(one.index): one.value.hex() for one in report.blocks},
        "signature": {
            "r": f"{report.signature_r:096x}",
            "s": f"{report.signature_s:096x}",
        },
        "trailing_bytes": len(report.trailing),
    }


def inspect_rim(stored: StoredRim, shelf: RimShelf) -> dict[str, object]:
    """Return what a manifest says, and whether its signature holds by itself."""
    document: dict[str, object] = {
        "id": stored.rim_id,
        "sha256": stored.digest.hex(),
    }
    read = shelf.read(stored)
    if isinstance(read, str):
        return {**document, "error": read}
    document |= {
        "product": read.header.product,
        "edition": read.header.edition,
        "version": read.header.version,
    }
    if read.rim is None:
        return {**document, "error": read.fault}
    document["certificates"] = [
        _inspect_certificate(one) for one in read.rim.certificates
    ]
    document["measurements"] = {
        str(index): [value.hex() for value in golden.values]
        for index, golden in read.rim.measurements.items()
    }
    return document


def _inspect_certificate(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
    }


def _inspect_answer(answer: ocsp.OCSPResponse) -> dict[str, object]:
    single = next(iter(answer.responses))
    until = single.next_update_utc
    return {
        "serial": f"{single.serial_number:x}",
        "status": single.certificate_status.name.lower(),
        "this_update": format_time(single.this_update_utc),
        "next_update": None if until is None else format_time(until),
    }
