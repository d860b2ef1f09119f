"""`kbs evidence inspect`: fields of bundles, reports, quotes, logs, collateral, keys.

`{"items": [{"kind", <kind>: {…fields…}}], "runtime_data"?}`; an item that does not
parse has an `error` in place of its fields. Nothing shown is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509

from kbs.cli.evidence_files import (
    BUNDLE,
    EVENT_LOG,
    RIM,
    Unparsed,
    guess_kind,
    read_event_log,
    read_evidence,
)
from kbs.cli.evidence_items import bundle_from
from kbs.cli.given_files import GivenFiles
from kbs.cli.inputs import read_input
from kbs.cli.issuer_files import inspect_keys, is_keys_file
from kbs.cli.x509_files import certificates_in, load_collateral
from kbs.core.clock import format_time
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle
from kbs.evidence.dcap.inspection import inspect_document
from kbs.evidence.model import GivenCollateral, StoredRim
from kbs.evidence.nvgpu.inspection import inspect_rim
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.snp.certificates import is_endorsement_key, parse_endorsement_key
from kbs.evidence.vtpm.abi import Attest, parse_attest
from kbs.evidence.vtpm.algorithms import bank_name
from kbs.evidence.vtpm.eventlog import EventLog, replay
from kbs.pki.certificates import spki_sha256

CERTIFICATE = "certificate"
COLLATERAL = "collateral"
KEYS = "keys"

# Data of an event beyond this is shown by its size only.
_MAX_SHOWN = 256


def inspect_file(path: Path, kind: str | None, files: GivenFiles) -> dict[str, object]:
    """Return all fields of a file of evidence.

    Raises:
        MalformedError: it cannot be read, or its kind cannot be told.
    """
    if kind is None:
        kind = _guess(read_input(path, "evidence", limit=MAX_BUNDLE_BYTES))
    found, data = read_evidence(path, kind)
    if found in _ALONE:
        return _ALONE[found](data)
    files.refuse_for(found)
    try:
        if found == "vtpm" and files.lacks_of_quote():
            return _single(found, {"attest": _inspect_attest(parse_attest(data))})
        return _inspect_bundle(bundle_from(found, data, files))
    except Unparsed as exc:
        return {"items": [{"kind": exc.kind, "error": str(exc)}]}
    except MalformedError as exc:
        if found == BUNDLE:
            raise
        return {"items": [{"kind": found, "error": str(exc)}]}


def _guess(data: bytes) -> str | None:
    """Return what a file is; certificates and other collateral are tried last."""
    found = guess_kind(data)
    if found is not None and not _is_collateral_set(found, data):
        return found
    for kind, read in ((CERTIFICATE, certificates_in), (COLLATERAL, load_collateral)):
        try:
            read(data, kind)
        except MalformedError:
            continue
        return kind
    # What speaks of keys and is no bundle is told what is wrong with them. The keys of
    # a bundle are those that it asks for.
    return KEYS if is_keys_file(data) and b'"items"' not in data else found


def _is_collateral_set(found: str, data: bytes) -> bool:
    # Both are JSON, and nothing is a bundle without saying so.
    return found == BUNDLE and b'"kbs.evidence/' not in data


def _inspect_bundle(bundle: Bundle) -> dict[str, object]:
    document: dict[str, object] = {
        "items": [_inspect_item(bundle, index) for index in range(len(bundle.items))]
    }
    if bundle.runtime_data is not None:
        document["runtime_data"] = dict(bundle.runtime_data)
    return document


def _inspect_item(bundle: Bundle, index: int) -> dict[str, object]:
    kind = bundle.kind(index)
    verifier = VERIFIERS.get(kind)
    if verifier is None:
        return {"kind": kind, "error": f"unknown kind, expected {', '.join(VERIFIERS)}"}
    try:
        parsed = verifier.parse(bundle.items[index], index)
    except KbsError as exc:
        return {"kind": kind, "error": str(exc)}
    return {"kind": kind, kind: dict(verifier.inspect(parsed))}


def _single(kind: str, fields: dict[str, object]) -> dict[str, object]:
    return {"items": [{"kind": kind, kind: fields}]}


def _inspect_certificates(data: bytes) -> dict[str, object]:
    shown = [_inspect_certificate(one) for one in certificates_in(data, CERTIFICATE)]
    return {"items": [{"kind": CERTIFICATE, CERTIFICATE: one} for one in shown]}


def _inspect_rim_file(data: bytes) -> dict[str, object]:
    fields = inspect_rim(StoredRim(data), RimShelf())
    if "product" not in fields:
        return {"items": [{"kind": RIM, "error": fields["error"]}]}
    return _single(RIM, fields)


def _inspect_log_file(data: bytes) -> dict[str, object]:
    try:
        return _single(EVENT_LOG, _inspect_log(read_event_log(data)[1]))
    except MalformedError as exc:
        return {"items": [{"kind": EVENT_LOG, "error": str(exc)}]}


def _inspect_log(log: EventLog) -> dict[str, object]:
    return {
        "format": log.format.value,
        "algorithms": [bank_name(bank) for bank in log.algorithms],
        "startup_locality": log.startup_locality,
        "pcrs": registers_of(log),
        "events": [
            {
                "index": event.index,
                "pcr": event.pcr,
                "type": event.type_name,
                "digests": {
                    bank_name(bank): value.hex() for bank, value in event.digests
                },
                "size": len(event.data),
                "data": event.data.hex() if len(event.data) <= _MAX_SHOWN else None,
            }
            for event in log.events
        ],
    }


def _inspect_keys_file(data: bytes) -> dict[str, object]:
    try:
        return _single(KEYS, inspect_keys(data))
    except MalformedError as exc:
        return {"items": [{"kind": KEYS, "error": str(exc)}]}


def _inspect_collateral_file(data: bytes) -> dict[str, object]:
    return _single(COLLATERAL, _inspect_collateral(load_collateral(data, COLLATERAL)))


def _inspect_collateral(given: GivenCollateral) -> dict[str, object]:
    return {
        "certificates": [_inspect_certificate(one) for one in given.certificates()],
        "revocation_lists": [_inspect_crl(one) for one in given.revocation_lists()],
        "documents": [inspect_document(one) for one in given.documents()],
    }


def _inspect_crl(crl: x509.CertificateRevocationList) -> dict[str, object]:
    until = crl.next_update_utc
    return {
        "issuer": crl.issuer.rfc4514_string(),
        "this_update": format_time(crl.last_update_utc),
        "next_update": None if until is None else format_time(until),
        "revoked": [f"{entry.serial_number:x}" for entry in crl],
    }


def _inspect_certificate(certificate: x509.Certificate) -> dict[str, object]:
    document: dict[str, object] = {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": format_time(certificate.not_valid_before_utc),
        "not_after": format_time(certificate.not_valid_after_utc),
        "spki_sha256": spki_sha256(certificate),
    }
    if is_endorsement_key(certificate):
        key = parse_endorsement_key(certificate)
        document["endorsement_key"] = {
            "kind": key.kind.value,
            "product_name": key.product_name,
            "struct_version": key.struct_version,
            "tcb": dict(key.tcb),
            "hwid": None if key.hwid is None else key.hwid.hex(),
            "csp_id": key.csp_id,
        }
    return document


_ALONE: Mapping[str, Callable[[bytes], dict[str, object]]] = {
    EVENT_LOG: _inspect_log_file,
    RIM: _inspect_rim_file,
    CERTIFICATE: _inspect_certificates,
    COLLATERAL: _inspect_collateral_file,
    KEYS: _inspect_keys_file,
}
"""Files that are no item of a bundle."""


def registers_of(log: EventLog) -> dict[str, dict[str, str]]:
    """Return the PCRs that a log leads to, by bank; none of a SHA-1 log."""
    registers: dict[str, dict[str, str]] = {}
    for (bank, pcr), value in sorted(replay(log).items()):
        registers.setdefault(bank_name(bank), {})[str(pcr)] = value.hex()
    return registers


def _inspect_attest(attest: Attest) -> dict[str, object]:
    """Return the fields of a quote that came without signature, PCRs and key."""
    return {
        "extra_data": attest.extra_data.hex(),
        "qualified_signer": attest.qualified_signer.hex(),
        "clock": f"{attest.clock:016x}",
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "safe": attest.safe,
        "firmware_version": f"{attest.firmware_version:016x}",
        "pcr_select": [
            {"alg": selection.bank.name.lower(), "pcrs": list(selection.pcrs)}
            for selection in attest.pcr_select
        ],
        "pcr_digest": attest.pcr_digest.hex(),
    }
