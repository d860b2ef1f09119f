"""Evidence in files: what a file is.

`contract.md`, section 1: a bundle is JSON; an SNP report has 1184 bytes; a TPM quote
starts with TPM_GENERATED, an Azure HCL report with HCLA; a quote of TDX or SGX names
its quoting enclave's vendor in its header; a Nitro document is a COSE_Sign1 of its
kind; an attestation of go-tpm-tools begins with a TPM's key; reports of NVIDIA devices
begin as such or stand in a form of NVIDIA's; a RIM is a SWID tag; a token is three
words of base64url, a set of such or a service's answer with one; a CCA token starts
with its tag; JSON that is no bundle is evidence as RCAR carries it, where its members
say so, or a quote or token in them, or stands around a quote; an event log is known by
its first event, or by being one to its end; text is hex or base64 of what is binary by
nature; anything else needs --kind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kbs.cli.inputs import read_input
from kbs.cli.issuer_files import is_keys_file
from kbs.cli.rim_files import document_in
from kbs.cli.x509_files import load_collateral
from kbs.core.encode import parse_json_object, require_object
from kbs.core.errors import KbsError, MalformedError
from kbs.core.loose import octets_in
from kbs.evidence.azure.hcl import MAGIC
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from kbs.evidence.cca.abi import is_cca_token
from kbs.evidence.dcap.files import kind_of_document
from kbs.evidence.dcap.quote import TEE_TDX, looks_like_quote, tee_type_of
from kbs.evidence.forms import tee_of
from kbs.evidence.gce.attestation import is_attestation
from kbs.evidence.nitro import document as nitro
from kbs.evidence.nvgpu.files import is_device_file
from kbs.evidence.nvgpu.rim_xml import is_rim
from kbs.evidence.snp.abi import REPORT_BYTES
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.token.item import is_token_file
from kbs.evidence.vtpm.eventlog import EventLog, parse_event_log

BUNDLE = "bundle"
EVENT_LOG = "eventlog"
RCAR = "rcar"
AZURE = "azure"
GCE = "gce"
NVGPU = "nvgpu"
RIM = "rim"
TOKEN = "token"  # noqa: S105 - a kind of evidence
CCA = "cca"

WITHOUT_CERTIFICATES = frozenset(
    {BUNDLE, RCAR, GCE, TOKEN, "tdx", "sgx", *nitro.REGISTERS}
)
"""Kinds beside which certificates are collateral, since no item of theirs has any."""

# What is bytes by nature, and therefore also written as text.
_BINARY = frozenset({"snp", "tdx", "sgx", "vtpm", AZURE, CCA, NVGPU, *nitro.REGISTERS})

UNKNOWN_KIND = "evidence.kind"
"""The code of the error about a file that may be anything."""

# TPM 2.0 Library, Part 2, section 6.2: TPM_GENERATED_VALUE.
_TPM_GENERATED = bytes.fromhex("ff544347")

# Firmware Profile 1.06, section 10.4.5.1: the mark follows the header of 32 bytes of
# a TCG_PCR_EVENT (PCR, type, SHA-1, size).
_SPEC_ID = b"Spec ID Event"
_SPEC_ID_OFFSET = 32

# What the first bytes tell, in this order.
_BEGINNINGS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (NVGPU, is_device_file),
    (RIM, is_rim),
    (TOKEN, is_token_file),
    (CCA, is_cca_token),
    ("vtpm", lambda data: data.startswith(_TPM_GENERATED)),
    (AZURE, lambda data: data.startswith(MAGIC)),
)


class Unparsed(Exception):  # noqa: N818 - a finding about evidence, not our error
    """The evidence lacks its promised shape; becomes the check `<kind>.parse`."""

    def __init__(self, kind: str, error: KbsError) -> None:
        """Name the kind whose shape it lacks."""
        self.kind = kind
        self.error = error
        super().__init__(str(error))


def guess_kind(data: bytes) -> str | None:
    """Return what a file of evidence is, where its bytes leave no doubt."""
    for kind, begins in _BEGINNINGS:
        if begins(data):
            return kind
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        if rcar_evidence(data) is not None:
            return RCAR
        return kind_of_document(data) or (RIM if document_in(data) else BUNDLE)
    if looks_like_quote(data):
        return "tdx" if tee_type_of(data) == TEE_TDX else "sgx"
    if len(data) == REPORT_BYTES:
        return "snp"
    return nitro.kind_of(data) or _guess_by_reading(data)


def _guess_by_reading(data: bytes) -> str | None:
    if is_attestation(data):
        return GCE
    return EVENT_LOG if _is_event_log(data) else None


def rcar_evidence(data: bytes) -> tuple[str, dict[str, object]] | None:
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


def hint_beside(data: bytes) -> str | None:
    """Say how a file is given that proves nothing by itself; None if it is another."""
    if is_keys_file(data):
        return "keys of issuers and collateral stand beside evidence: --collateral FILE"
    with suppress(MalformedError):
        load_collateral(data, "evidence")
        return "what vendors publish stands beside evidence: --collateral FILE"
    return None


def read_evidence(path: Path, kind: str | None) -> tuple[str, bytes]:
    """Return the kind of a file of evidence, and its bytes.

    Raises:
        MalformedError: it cannot be read, or its kind cannot be told.
    """
    data = read_input(path, "evidence", limit=MAX_BUNDLE_BYTES)
    found = kind or guess_kind(data)
    if found is None or kind in _BINARY:
        octets = octets_in(data)
        told = None if octets is None else kind or guess_kind(octets)
        if octets is not None and told in _BINARY:
            return told, octets
    if found is None:
        raise MalformedError(
            f"evidence {path}",
            got=f"{len(data)} bytes of no known shape",
            expected="a bundle (JSON), an SNP report, a TDX, SGX or TPM quote, a Nitro "
            "document, an HCL report, an attestation of go-tpm-tools, a token, a CCA "
            "token, reports of NVIDIA devices, a RIM or an event log",
            hint=hint_beside(data) or "say what it is with --kind",
            code=UNKNOWN_KIND,
        )
    if found == RIM:
        return found, document_in(data) or data
    return found, data
