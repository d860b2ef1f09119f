"""Evidence in files: what a file is, and a bundle's item made of loose files.

`contract.md`, section 1: a bundle is JSON; an SNP report has 1184 bytes; a TPM quote
starts with TPM_GENERATED; a token is three words of base64url or a set of such; a CCA
token starts with its tag; an event log is known by its first event, or by being one
to its end; anything else has to be named with --kind. What the evidence
itself lacks in shape is a finding about it (`Unparsed`), what an option's file lacks is
a usage error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kbs.cli.inputs import read_input
from kbs.cli.issuer_files import is_keys_file, vouched
from kbs.cli.x509_files import certificates_in, crls_in, load_collateral
from kbs.core.encode import b64, parse_json_object
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle
from kbs.evidence.cca.abi import is_cca_token
from kbs.evidence.model import GivenCollateral, TrustedIssuer
from kbs.evidence.snp.abi import REPORT_BYTES
from kbs.evidence.token.item import is_token_file
from kbs.evidence.token.item import item_from_file as token_from_file
from kbs.evidence.vtpm.eventlog import parse_event_log
from kbs.evidence.vtpm.item import item_from_files, load_ak
from kbs.pki.certificates import der, spki_sha256
from kbs.pki.issuers import Profile

BUNDLE = "bundle"
EVENT_LOG = "eventlog"

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
        unused = {"--rim": next(iter(self.rims), None)}
        if kind != "vtpm":
            unused |= quote
        if kind not in {BUNDLE, "vtpm"}:
            unused["--ak"] = self.ak
        if kind in {"sample", EVENT_LOG}:
            unused |= signers
        if kind == "cca":
            # Its keys come with --collateral; there are no certificates.
            unused |= {"--cert": signers["--cert"], "--crl": signers["--crl"]}
        if kind not in {BUNDLE, "cca", "token"} and self._holds_keys():
            # Keys of issuers, which only tokens have.
            unused["--collateral"] = self.collateral
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
        for path in self.revocation_lists:
            data = read_input(path, "--crl", limit=4 * MAX_BUNDLE_BYTES)
            lists += crls_in(data, f"--crl {path}")
        if self.collateral is not None and not self._holds_keys():
            data = read_input(
                self.collateral, "--collateral", limit=4 * MAX_BUNDLE_BYTES
            )
            more = load_collateral(data, f"--collateral {self.collateral}")
            certificates += more.given_certificates
            lists += more.given_revocation_lists
        return GivenCollateral(certificates, lists)

    def given_issuers(self) -> tuple[TrustedIssuer, ...]:
        """Return the keys of issuers that --collateral holds, trusted this time only.

        Raises:
            MalformedError: the file cannot be read, or holds something else.
        """
        if self.collateral is None or not self._holds_keys():
            return ()
        return vouched(self.collateral, "--collateral")

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
        if self.collateral is None:
            return False
        limit = 4 * MAX_BUNDLE_BYTES
        return is_keys_file(read_input(self.collateral, "--collateral", limit=limit))

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
        return BUNDLE
    if is_token_file(data):
        return "token"
    if is_cca_token(data):
        return "cca"
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
            expected="a bundle (JSON), an SNP report, a token, a CCA token, a TPM "
            "quote or an event log",
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
    if kind == "snp":
        item: dict[str, object] = {"kind": "snp", "report": b64(data)}
        return Bundle(({**item, "certificates": certificates},))
    if kind == "cca":
        return Bundle(({"kind": "cca", "token": b64(data)},))
    if kind == "sample":
        return Bundle((_sample_item(data),))
    if kind == "token":
        return Bundle((_token_item(data),))
    return Bundle(({**_quote_item(data, files), "ak_certificates": certificates},))


def _sample_item(data: bytes) -> dict[str, object]:
    try:
        item = parse_json_object(data, "sample", limit=MAX_BUNDLE_BYTES)
    except MalformedError as exc:
        raise Unparsed("sample", exc) from exc
    if item.get("kind") != "sample":
        got = repr(item.get("kind"))[:40]
        raise Unparsed("sample", MalformedError("kind", got=got, expected="sample"))
    return item


def _token_item(data: bytes) -> dict[str, object]:
    try:
        return token_from_file(data)
    except MalformedError as exc:
        raise Unparsed("token", exc) from exc


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
