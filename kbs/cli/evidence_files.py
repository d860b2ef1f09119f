"""Evidence in files: what a file is, and a bundle's item made of loose files.

`contract.md`, section 1: a bundle is JSON; an SNP report has 1184 bytes; a TPM quote
starts with TPM_GENERATED, an Azure HCL report with HCLA; a quote of TDX or SGX names
its quoting enclave's vendor in its header; a Nitro document is a COSE_Sign1 of its
kind; an attestation of go-tpm-tools begins with a TPM's key; reports of NVIDIA devices
begin as such or stand in a form of NVIDIA's; a RIM is a SWID tag; a token is three
words of base64url, a set of such or a service's answer with one; a CCA token starts
with its tag; JSON that is no bundle is evidence as RCAR carries it, where its members
say so, or stands around a quote; an event log is known by its first event, or by being
one to its end; text is hex or base64 of what is binary by nature; anything else needs
--kind. What the evidence itself lacks in shape is a finding about it (`Unparsed`), what
an option's file lacks is a usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kbs.cli.inputs import read_input
from kbs.cli.issuer_files import is_keys_file, vouched
from kbs.cli.rim_files import document_in, name_in, rim_in
from kbs.cli.x509_files import certificates_in, crls_in, load_collateral, ocsp_answer_in
from kbs.core.encode import b64, parse_json_object, require_object
from kbs.core.errors import KbsError, MalformedError
from kbs.core.loose import octets_in
from kbs.evidence.azure.hcl import MAGIC, ReportType, parse_hcl_report
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from kbs.evidence.cca.abi import is_cca_token
from kbs.evidence.dcap.files import item_of_document, kind_of_document
from kbs.evidence.dcap.quote import TEE_TDX, looks_like_quote, tee_type_of
from kbs.evidence.forms import form_of, item_of, tee_of
from kbs.evidence.gce.attestation import (
    GceAttestation,
    is_attestation,
    parse_attestation,
)
from kbs.evidence.model import GivenCollateral, StoredRim, TrustedIssuer
from kbs.evidence.nitro import document as nitro
from kbs.evidence.nvgpu.files import is_device_file, items_of_file
from kbs.evidence.nvgpu.rim_xml import is_rim
from kbs.evidence.snp.abi import REPORT_BYTES
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.token.item import is_token_file
from kbs.evidence.token.item import item_from_file as token_from_file
from kbs.evidence.vtpm.eventlog import EventLog, parse_event_log
from kbs.evidence.vtpm.item import item_from_files, load_ak
from kbs.pki.certificates import der, spki_sha256
from kbs.pki.issuers import Profile

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

_MAX_COLLATERAL_FILE = 4 * MAX_BUNDLE_BYTES

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


# Which evidence an option is for, or which not.
_ONLY_FOR: Mapping[str, frozenset[str]] = {
    "--signature": frozenset({"vtpm"}),
    "--pcrs": frozenset({"vtpm"}),
    "--event-log": frozenset({"vtpm", "tdx"}),
    "--ak": frozenset({BUNDLE, RCAR, GCE, "vtpm"}),
    "--rim": frozenset({BUNDLE, NVGPU}),
}
_NOT_FOR: Mapping[str, frozenset[str]] = {
    # The keys of a CCA token come with --collateral; there are no certificates.
    "--cert": frozenset({"sample", EVENT_LOG, RIM, CCA}),
    "--crl": frozenset({"sample", EVENT_LOG, CCA}),
    "--collateral": frozenset({"sample", EVENT_LOG}),
}

# Beside others, keys of issuers are a mistake.
_WITH_ISSUERS = frozenset({BUNDLE, TOKEN, CCA})


def _takes(kind: str, option: str) -> bool:
    only = _ONLY_FOR.get(option)
    return kind in only if only is not None else kind not in _NOT_FOR[option]


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
        given = {
            "--signature": self.signature,
            "--pcrs": self.pcrs,
            "--event-log": self.event_log,
            "--ak": self.ak,
            "--cert": next(iter(self.certificates), None),
            "--crl": next(iter(self.revocation_lists), None),
            "--collateral": next(iter(self.collateral), None),
            "--rim": next(iter(self.rims), None),
        }
        unused = [
            option
            for option, path in given.items()
            if path is not None and not _takes(kind, option)
        ]
        if kind not in _WITH_ISSUERS and self._holds_keys():
            unused.append("--collateral")
        if unused:
            raise MalformedError(
                unused[0],
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
        given = [_status_in(path) for path in self.revocation_lists]
        given += [
            load_collateral(data, f"--collateral {path}")
            for path, data in self._collateral_files()
            if not is_keys_file(data)
        ]
        return GivenCollateral(
            tuple(one for each in given for one in each.certificates()),
            tuple(one for each in given for one in each.revocation_lists()),
            given_documents=tuple(one for each in given for one in each.documents()),
            given_ocsp_answers=tuple(
                one for each in given for one in each.given_ocsp_answers
            ),
            given_rims=self.given_rims(),
        )

    def given_rims(self) -> tuple[StoredRim, ...]:
        """Return the manifests that --rim names.

        Raises:
            MalformedError: a file cannot be read, or holds no manifest.
        """
        return tuple(
            rim_in(
                read_input(path, "--rim", limit=MAX_BUNDLE_BYTES),
                f"--rim {path}",
                name_in(path),
            )
            for path in self.rims
        )

    def given_issuers(self) -> tuple[TrustedIssuer, ...]:
        """Return the keys of issuers that --collateral holds, trusted this time only.

        Raises:
            MalformedError: a file cannot be read, or holds something else.
        """
        return tuple(
            issuer
            for path, data in self._collateral_files()
            if is_keys_file(data)
            for issuer in vouched(path, "--collateral")
        )

    def given_roots(self) -> tuple[TrustedIssuer, ...]:
        """Return --cert as the pinned root of PKI tokens, trusted this time only.

        Raises:
            MalformedError: a file cannot be read, or holds no certificate.
        """
        pins = frozenset(spki_sha256(one) for one in self.given_certificates())
        if not pins:
            return ()
        return (
            TrustedIssuer(tenant=None, name="--cert", profile=Profile.GCS, roots=pins),
        )

    def _holds_keys(self) -> bool:
        return any(is_keys_file(data) for _, data in self._collateral_files())

    def _collateral_files(self) -> Iterator[tuple[Path, bytes]]:
        for path in self.collateral:
            yield path, read_input(path, "--collateral", limit=_MAX_COLLATERAL_FILE)

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
    for kind, begins in _BEGINNINGS:
        if begins(data):
            return kind
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        if _rcar_evidence(data) is not None:
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
            hint="say what it is with --kind",
            code=UNKNOWN_KIND,
        )
    if found == RIM:
        return found, document_in(data) or data
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
    hint = "keys of issuers and collateral stand beside evidence: --collateral FILE"
    return MalformedError(
        "JSON file",
        got="members " + (", ".join(sorted(members))[:100] or "none"),
        expected='a bundle ({"format", "items"}), evidence of RCAR, an answer of a '
        "service with a token, or reports of NVIDIA devices",
        hint=hint if is_keys_file(data) else None,
    )


def _status_in(path: Path) -> GivenCollateral:
    data = read_input(path, "--crl", limit=_MAX_COLLATERAL_FILE)
    answer = ocsp_answer_in(data)
    if answer is not None:
        return GivenCollateral(given_ocsp_answers=(answer,))
    return GivenCollateral((), crls_in(data, f"--crl {path}"))


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
    found = _rcar_evidence(data)
    quoted = kind_of_document(data) if found is None else None
    if quoted is not None:
        # That of TDX and SGX has no member of its own: its quote says which it is.
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
    CCA: _cca_item,
    TOKEN: _token_item,
    "sample": _sample_item,
    **dict.fromkeys(nitro.REGISTERS, _nitro_item),
}
