"""A bundle's item made of loose files.

What the evidence itself lacks in shape is a finding about it (`Unparsed`), what an
option's file lacks is a usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kbs.cli.evidence_files import (
    AZURE,
    BUNDLE,
    CCA,
    GCE,
    NVGPU,
    RCAR,
    TOKEN,
    Unparsed,
    hint_beside,
    rcar_evidence,
)
from kbs.cli.given_files import GivenFiles
from kbs.cli.inputs import read_input
from kbs.core.encode import b64, parse_json_object
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import ReportType, parse_hcl_report
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from kbs.evidence.dcap.files import item_of_document, kind_of_document
from kbs.evidence.forms import form_of, item_of
from kbs.evidence.gce.attestation import GceAttestation, parse_attestation
from kbs.evidence.nitro import document as nitro
from kbs.evidence.nvgpu.files import items_of_file
from kbs.evidence.token.item import item_from_file as token_from_file
from kbs.evidence.vtpm.item import item_from_files
from kbs.pki.certificates import der


def bundle_from(kind: str, data: bytes, files: GivenFiles) -> Bundle:
    """Return the bundle that a file is, or one around the raw evidence in it.

    A quote without --pcrs becomes an item without PCR values.

    Raises:
        Unparsed: the evidence lacks its shape.
        MalformedError: a file beside it does.
    """
    if kind == BUNDLE:
        try:
            return parse_bundle(data)
        except MalformedError as exc:
            raise Unparsed(BUNDLE, _unlike_bundle(data) or exc) from exc
    if kind == GCE:
        return Bundle(read_attestation(data).items)
    if kind == NVGPU:
        return Bundle(_device_items(data, files))
    return Bundle((_MAKERS[kind](kind, data, files),))


def _unlike_bundle(data: bytes) -> MalformedError | None:
    """Say what JSON is that has nothing of a bundle; None where it has something."""
    try:
        members = parse_json_object(data, "evidence", limit=MAX_BUNDLE_BYTES)
    except MalformedError:
        return None
    if {"format", "items"} & members.keys():
        return None
    return MalformedError(
        "JSON file",
        got="members " + (", ".join(sorted(members))[:100] or "none"),
        expected='a bundle ({"format", "items"}), evidence of RCAR, an answer of a '
        "service with a token, or reports of NVIDIA devices",
        hint=hint_beside(data),
    )


def read_attestation(data: bytes) -> GceAttestation:
    """Read an attestation of Compute Engine.

    Raises:
        Unparsed: it lacks its shape.
    """
    try:
        return parse_attestation(data)
    except MalformedError as exc:
        raise Unparsed(GCE, exc) from exc


def _snp_item(kind: str, data: bytes, files: GivenFiles) -> dict[str, object]:
    return {"kind": kind, "report": b64(data), "certificates": _encoded(files)}


def _nitro_item(kind: str, data: bytes, _files: GivenFiles) -> dict[str, object]:
    return {"kind": kind, "document": b64(data)}


def _cca_item(kind: str, data: bytes, _files: GivenFiles) -> dict[str, object]:
    return {"kind": kind, "token": b64(data)}


def _token_item(_kind: str, data: bytes, _files: GivenFiles) -> dict[str, object]:
    try:
        return token_from_file(data)
    except MalformedError as exc:
        raise Unparsed(TOKEN, exc) from exc


def _device_items(data: bytes, files: GivenFiles) -> tuple[dict[str, object], ...]:
    try:
        items = items_of_file(data)
    except MalformedError as exc:
        raise Unparsed(NVGPU, exc) from exc
    # Reports in a list come with their chains; a chain given beside them is all theirs.
    certificates = _encoded(files)
    return tuple({"certificates": certificates, **one} for one in items)


def _encoded(files: GivenFiles) -> list[str]:
    return [b64(der(one)) for one in files.given_certificates()]


def _rcar_item(_kind: str, data: bytes, files: GivenFiles) -> dict[str, object]:
    found = rcar_evidence(data)
    quoted = kind_of_document(data) if found is None else None
    if quoted is not None:
        return _dcap_item(quoted, data, files)
    if found is None:
        lacking = MalformedError(
            "RCAR evidence",
            got="members of no known TEE",
            expected="the primary evidence of a message",
        )
        raise Unparsed(BUNDLE, lacking)
    tee, evidence = found
    try:
        return item_of(tee, evidence)
    except MalformedError as exc:
        raise Unparsed(form_of(tee).kind, exc) from exc


def _azure_item(kind: str, data: bytes, files: GivenFiles) -> dict[str, object]:
    try:
        hardware = parse_hcl_report(data).type
    except MalformedError as exc:
        raise Unparsed(AZURE, exc) from exc
    item: dict[str, object] = {"kind": kind, "hcl_report": b64(data)}
    if hardware is ReportType.SNP:
        item["certificates"] = _encoded(files)
    return item


def _dcap_item(kind: str, data: bytes, files: GivenFiles) -> dict[str, object]:
    item: dict[str, object] = {"kind": kind, "quote": b64(data)}
    if data.lstrip()[:1] == b"{":
        try:
            item = item_of_document(data, kind)
        except MalformedError as exc:
            raise Unparsed(kind, exc) from exc
    if files.event_log is not None:
        log = read_input(files.event_log, "--event-log", limit=MAX_BUNDLE_BYTES)
        item["event_log"] = b64(log)
    return item


def _sample_item(_kind: str, data: bytes, _files: GivenFiles) -> dict[str, object]:
    try:
        item = parse_json_object(data, "sample", limit=MAX_BUNDLE_BYTES)
    except MalformedError as exc:
        raise Unparsed("sample", exc) from exc
    if item.get("kind") != "sample":
        got = repr(item.get("kind"))[:40]
        raise Unparsed("sample", MalformedError("kind", got=got, expected="sample"))
    return item


def _quote_item(_kind: str, message: bytes, files: GivenFiles) -> dict[str, object]:
    ak = files.named_ak()
    if files.signature is None or ak is None:
        raise MalformedError(
            "TPM quote",
            got="no " + ", ".join(files.lacks_of_quote()),
            expected="--signature and --ak",
        )
    signature = read_input(files.signature, "--signature")
    pcrs = b"{}" if files.pcrs is None else read_input(files.pcrs, "--pcrs")
    log = files.event_log and read_input(files.event_log, "--event-log")
    try:
        item = item_from_files(message, signature, pcrs, ak, log or None)
    except MalformedError as exc:
        raise Unparsed("vtpm", exc) from exc
    return {**item, "ak_certificates": _encoded(files)}


_MAKERS: Mapping[str, Callable[[str, bytes, GivenFiles], dict[str, object]]] = {
    RCAR: _rcar_item,
    AZURE: _azure_item,
    "snp": _snp_item,
    "tdx": _dcap_item,
    "sgx": _dcap_item,
    "vtpm": _quote_item,
    CCA: _cca_item,
    TOKEN: _token_item,
    "sample": _sample_item,
    **dict.fromkeys(nitro.REGISTERS, _nitro_item),
}
