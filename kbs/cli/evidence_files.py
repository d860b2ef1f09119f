"""Evidence in files: what a file is, and a bundle's item made of loose files.

`contract.md`, section 1: a bundle is JSON; an SNP report has 1184 bytes; a TPM quote
starts with TPM_GENERATED; reports of NVIDIA devices begin as such or stand in a form of
NVIDIA's; a RIM is a SWID tag; an event log is known by its first event, or by being one
to its end; anything else has to be named with --kind. What the evidence itself lacks in
shape is a finding about it (`Unparsed`), what an option's file lacks is a usage error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.cli.inputs import read_input
from kbs.cli.rim_files import name_in, rim_in
from kbs.cli.x509_files import certificates_in, crls_in, load_collateral, ocsp_answer_in
from kbs.core.encode import b64, parse_json_object
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from kbs.evidence.model import GivenCollateral, StoredRim
from kbs.evidence.nvgpu.files import is_device_file, items_of_file
from kbs.evidence.nvgpu.rim_xml import is_rim
from kbs.evidence.snp.abi import REPORT_BYTES
from kbs.evidence.vtpm.eventlog import parse_event_log
from kbs.evidence.vtpm.item import item_from_files, load_ak
from kbs.pki.certificates import der

BUNDLE = "bundle"
EVENT_LOG = "eventlog"
NVGPU = "nvgpu"
RIM = "rim"

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
    collateral: Path | None = None
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
        quote = {
            "--signature": self.signature,
            "--pcrs": self.pcrs,
            "--event-log": self.event_log,
        }
        signers = {
            "--cert": next(iter(self.certificates), None),
            "--crl": next(iter(self.revocation_lists), None),
            "--collateral": self.collateral,
        }
        unused: dict[str, Path | None] = {}
        if kind not in {BUNDLE, NVGPU}:
            unused["--rim"] = next(iter(self.rims), None)
        if kind != "vtpm":
            unused |= quote
        if kind not in {BUNDLE, "vtpm"}:
            unused["--ak"] = self.ak
        if kind in {"sample", EVENT_LOG}:
            unused |= signers
        if kind == RIM:
            unused["--cert"] = signers["--cert"]
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
        certificates: tuple[x509.Certificate, ...] = ()
        lists: tuple[x509.CertificateRevocationList, ...] = ()
        answers: tuple[ocsp.OCSPResponse, ...] = ()
        for path in self.revocation_lists:
            data = read_input(path, "--crl", limit=4 * MAX_BUNDLE_BYTES)
            answer = ocsp_answer_in(data)
            if answer is not None:
                answers += (answer,)
                continue
            lists += crls_in(data, f"--crl {path}")
        if self.collateral is not None:
            data = read_input(
                self.collateral, "--collateral", limit=4 * MAX_BUNDLE_BYTES
            )
            more = load_collateral(data, f"--collateral {self.collateral}")
            certificates += more.given_certificates
            lists += more.given_revocation_lists
        return GivenCollateral(certificates, lists, answers, self.given_rims())

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
    if is_device_file(data):
        return NVGPU
    if is_rim(data):
        return RIM
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        return BUNDLE
    if data.startswith(_TPM_GENERATED):
        return "vtpm"
    if len(data) == REPORT_BYTES:
        return "snp"
    return EVENT_LOG if _is_event_log(data) else None


def _is_event_log(data: bytes) -> bool:
    if data.startswith(_SPEC_ID, _SPEC_ID_OFFSET):
        return True
    # Older logs have no mark: one is known by being read to its end.
    try:
        return bool(parse_event_log(data).events)
    except MalformedError:
        return False


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
            expected="a bundle (JSON), an SNP report, a TPM quote, reports of NVIDIA "
            "devices, a RIM or an event log",
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
    certificates = [b64(der(one)) for one in files.given_certificates()]
    if kind == NVGPU:
        return Bundle(_device_items(data, certificates))
    if kind == "snp":
        item: dict[str, object] = {"kind": "snp", "report": b64(data)}
        return Bundle(({**item, "certificates": certificates},))
    if kind == "sample":
        return Bundle((_sample_item(data),))
    return Bundle(({**_quote_item(data, files), "ak_certificates": certificates},))


def _device_items(
    data: bytes, certificates: list[str]
) -> tuple[dict[str, object], ...]:
    try:
        items = items_of_file(data)
    except MalformedError as exc:
        raise Unparsed(NVGPU, exc) from exc
    # Reports in a list come with their chains; a chain given beside them is all theirs.
    return tuple({"certificates": certificates, **one} for one in items)


def _sample_item(data: bytes) -> dict[str, object]:
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


def _quote_item(message: bytes, files: GivenFiles) -> dict[str, object]:
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
        return item_from_files(message, signature, pcrs, ak, log or None)
    except MalformedError as exc:
        raise Unparsed("vtpm", exc) from exc
