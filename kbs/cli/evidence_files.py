"""Evidence in files: what a file is, and a bundle's item made of loose files.

`contract.md`, section 1: a bundle is JSON; an SNP report has 1184 bytes; a TPM quote
starts with TPM_GENERATED, an Azure HCL report with HCLA; a quote of TDX or SGX names
its quoting enclave's vendor in its header; a Nitro document is a COSE_Sign1 of its
kind; an attestation of go-tpm-tools begins with a TPM's key; JSON that is no bundle is
evidence as RCAR carries it, where its members say so; an event log is known by its
first event, or by being one to its end; anything else has to be named with --kind.
What the evidence itself lacks in shape is a finding about it (`Unparsed`), what an
option's file lacks is a usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kbs.cli.inputs import read_input
from kbs.cli.x509_files import certificates_in, crls_in, load_collateral
from kbs.core.encode import b64, parse_json_object, require_object
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.azure.hcl import MAGIC, ReportType, parse_hcl_report
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from kbs.evidence.dcap.quote import TEE_TDX, looks_like_quote, tee_type_of
from kbs.evidence.forms import form_of, item_of, tee_of
from kbs.evidence.gce.attestation import (
    GceAttestation,
    is_attestation,
    parse_attestation,
)
from kbs.evidence.model import GivenCollateral
from kbs.evidence.nitro import document as nitro
from kbs.evidence.snp.abi import REPORT_BYTES
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.vtpm.eventlog import EventLog, parse_event_log
from kbs.evidence.vtpm.item import item_from_files, load_ak
from kbs.pki.certificates import der

BUNDLE = "bundle"
EVENT_LOG = "eventlog"
RCAR = "rcar"
AZURE = "azure"
GCE = "gce"

WITHOUT_CERTIFICATES = frozenset({BUNDLE, RCAR, GCE, "tdx", "sgx", *nitro.REGISTERS})
"""Kinds beside which certificates are collateral, since no item of theirs has any."""

UNKNOWN_KIND = "evidence.kind"
"""The code of the error about a file that may be anything."""

# TPM 2.0 Library, Part 2, section 6.2: TPM_GENERATED_VALUE.
_TPM_GENERATED = bytes.fromhex("ff544347")

# Firmware Profile 1.06, section 10.4.5.1: the mark follows the header of 32 bytes of
# a TCG_PCR_EVENT (PCR, type, SHA-1, size).
_SPEC_ID = b"Spec ID Event"
_SPEC_ID_OFFSET = 32


class Unparsed(Exception):  # noqa: N818 - a finding about evidence, not our error
    """The evidence lacks its promised shape; becomes the check `<kind>.parse`."""

    def __init__(self, kind: str, error: KbsError) -> None:
        """Name the kind whose shape it lacks."""
        self.kind = kind
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFiles:
    """The files that stand beside the evidence on the command line."""

    certificates: tuple[Path, ...] = ()
    revocation_lists: tuple[Path, ...] = ()
    collateral: tuple[Path, ...] = ()
    rims: tuple[Path, ...] = ()
    event_log: Path | None = None
    signature: Path | None = None
    pcrs: Path | None = None
    ak: Path | None = None

    def refuse_for(self, kind: str) -> None:
        """Return if every file given means something for evidence of this kind.

        Raises:
            MalformedError: one would be ignored without a word.
        """
        quote = {"--signature": self.signature, "--pcrs": self.pcrs}
        signers = {
            "--cert": next(iter(self.certificates), None),
            "--crl": next(iter(self.revocation_lists), None),
            "--collateral": next(iter(self.collateral), None),
        }
        unused = {"--rim": next(iter(self.rims), None)}
        if kind != "vtpm":
            unused |= quote
        if kind not in {"vtpm", "tdx"}:
            unused["--event-log"] = self.event_log
        if kind not in {BUNDLE, RCAR, GCE, "vtpm"}:
            unused["--ak"] = self.ak
        if kind in {"sample", EVENT_LOG}:
            unused |= signers
        for option, path in unused.items():
            if path is not None:
                raise MalformedError(
                    option,
                    got=f"a file beside evidence of kind {kind}",
                    expected="only files that evidence of this kind has",
                    code="usage",
                )

    def given_certificates(self) -> tuple[x509.Certificate, ...]:
        """Return the certificates of every --cert, in order.

        Raises:
            MalformedError: a file cannot be read, or holds none.
        """
        return tuple(
            certificate
            for path in self.certificates
            for certificate in certificates_in(
                read_input(path, "--cert"), f"--cert {path}"
            )
        )

    def given_collateral(self) -> GivenCollateral:
        """Return what --crl and --collateral hold.

        Raises:
            MalformedError: a file cannot be read, or holds something else.
        """
        limit = 4 * MAX_BUNDLE_BYTES
        given = [
            GivenCollateral((), crls_in(read_input(path, "--crl", limit=limit), what))
            for path, what in (
                (path, f"--crl {path}") for path in self.revocation_lists
            )
        ]
        given += [
            load_collateral(read_input(path, "--collateral", limit=limit), what)
            for path, what in (
                (path, f"--collateral {path}") for path in self.collateral
            )
        ]
        return GivenCollateral(
            tuple(one for each in given for one in each.certificates()),
            tuple(one for each in given for one in each.revocation_lists()),
            tuple(one for each in given for one in each.documents()),
        )

    def named_ak(self) -> bytes | None:
        """Return the key that --ak vouches for.

        Raises:
            MalformedError: the file cannot be read, or holds no key.
        """
        if self.ak is None:
            return None
        data = read_input(self.ak, "--ak")
        try:
            load_ak(data)
        except MalformedError as exc:
            raise MalformedError(
                f"--ak {self.ak}", got=str(exc), expected="TPM2B_PUBLIC, PEM or DER"
            ) from exc
        return data


def guess_kind(data: bytes) -> str | None:
    """Return what a file of evidence is, where its bytes leave no doubt."""
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        return BUNDLE if _rcar_evidence(data) is None else RCAR
    if data.startswith(_TPM_GENERATED):
        return "vtpm"
    if data.startswith(MAGIC):
        return AZURE
    if looks_like_quote(data):
        return "tdx" if tee_type_of(data) == TEE_TDX else "sgx"
    if len(data) == REPORT_BYTES:
        return "snp"
    return nitro.kind_of(data) or _guess_by_reading(data)


def _guess_by_reading(data: bytes) -> str | None:
    if is_attestation(data):
        return GCE
    return EVENT_LOG if _is_event_log(data) else None


def _rcar_evidence(data: bytes) -> tuple[str, dict[str, object]] | None:
    """Return TEE and evidence of a document that is evidence as RCAR carries it."""
    try:
        document = parse_json_object(data, "evidence", limit=MAX_BUNDLE_BYTES)
        if document.keys() == {"platform", "evidence"}:
            # How another verifier keeps such evidence in files.
            document = require_object(document["evidence"], "evidence")
    except MalformedError:
        return None
    tee = None if "format" in document else tee_of(document)
    return None if tee is None else (tee, document)


def _is_event_log(data: bytes) -> bool:
    if data.startswith(_SPEC_ID, _SPEC_ID_OFFSET):
        return True
    # Older logs have no mark: one is known by being read to its end.
    try:
        return bool(parse_event_log(data).events)
    except MalformedError:
        return False


def read_event_log(data: bytes) -> tuple[str, EventLog]:
    """Return a log, and the kind of evidence that it stands beside.

    Raises:
        MalformedError: it is neither a TPM's log nor a TD's.
    """
    try:
        return "vtpm", parse_event_log(data)
    except MalformedError as exc:
        # A TD's has another header and is padded; of what is neither, the TPM's own
        # fault says more.
        with suppress(MalformedError):
            return "tdx", parse_td_log(data)
        raise exc from None


def read_evidence(path: Path, kind: str | None) -> tuple[str, bytes]:
    """Return the kind of a file of evidence, and its bytes.

    Raises:
        MalformedError: it cannot be read, or its kind cannot be told.
    """
    data = read_input(path, "evidence", limit=MAX_BUNDLE_BYTES)
    found = kind or guess_kind(data)
    if found is None:
        raise MalformedError(
            f"evidence {path}",
            got=f"{len(data)} bytes of no known shape",
            expected="a bundle (JSON), an SNP report, a TDX, SGX or TPM quote, a Nitro "
            "document, an HCL report, an attestation of go-tpm-tools or an event log",
            hint="say what it is with --kind",
            code=UNKNOWN_KIND,
        )
    return found, data


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
            raise Unparsed(BUNDLE, exc) from exc
    if kind == GCE:
        return Bundle(read_attestation(data).items)
    return Bundle((_MAKERS[kind](kind, data, files),))


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


def _encoded(files: GivenFiles) -> list[str]:
    return [b64(der(one)) for one in files.given_certificates()]


def _rcar_item(_kind: str, data: bytes, _files: GivenFiles) -> dict[str, object]:
    found = _rcar_evidence(data)
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


def _dcap_item(kind: str, quote: bytes, files: GivenFiles) -> dict[str, object]:
    item: dict[str, object] = {"kind": kind, "quote": b64(quote)}
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


def lacks_of_quote(files: GivenFiles) -> tuple[str, ...]:
    """Return the options without which a TPM quote cannot be verified."""
    wanted: Mapping[str, Path | None] = {
        "--signature": files.signature,
        "--pcrs": files.pcrs,
        "--ak": files.ak,
    }
    return tuple(option for option, path in wanted.items() if path is None)


def _quote_item(_kind: str, message: bytes, files: GivenFiles) -> dict[str, object]:
    ak = files.named_ak()
    if files.signature is None or ak is None:
        raise MalformedError(
            "TPM quote",
            got="no " + ", ".join(lacks_of_quote(files)),
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
    "sample": _sample_item,
    **dict.fromkeys(nitro.REGISTERS, _nitro_item),
}
