"""A DCAP quote, versions 3, 4 and 5: bytes to fields and back, nothing believed.

Intel SGX ECDSA QuoteGenReference, rev. 1.14, appendix A (version 3); Intel TDX DCAP
Quoting Library API, rev. 0.9, appendices A.3 and A.4 (versions 4 and 5). Numbers are
little-endian; r, s, x and y are big-endian. The file may be longer than the quote:
some buffers are padded, with zeros or with whatever was there, so that the length
fields alone say where the quote ends, and nothing behind it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.dcap.reports import (
    ENCLAVE_REPORT_BYTES,
    TD_REPORT_10_BYTES,
    TD_REPORT_15_BYTES,
    TD_REPORT_15_EX_BYTES,
    EnclaveReport,
    Report,
    TdReport,
    read_enclave_report,
    read_td_report,
    serialize_report,
)

MAX_QUOTE_BYTES = 32 * 1024
"""A quote with its padding; the longest seen has 8000 bytes."""

TEE_SGX = 0x00
TEE_TDX = 0x81
VERSIONS = (3, 4, 5)

INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""QE_VENDOR_ID of Intel's quoting enclaves (QuoteGenReference, table 3)."""

# TDX DCAP Quoting Library API, A.3.9: types of certification data.
CERTIFICATE_CHAIN = 5
"""The PCK certificate with its issuers, in PEM."""
_QE_REPORT = 6

_ECDSA_P256 = 2
_SIGNATURE_BYTES = 64
_VENDOR_OFFSET = 12
# A.4.1: the types of a version 5 body.
_BODY_SGX, _BODY_TD_10, _BODY_TD_15, _BODY_TD_15_EX = 1, 2, 3, 4
_BODY_BYTES = {
    _BODY_SGX: ENCLAVE_REPORT_BYTES,
    _BODY_TD_10: TD_REPORT_10_BYTES,
    _BODY_TD_15: TD_REPORT_15_BYTES,
    _BODY_TD_15_EX: TD_REPORT_15_EX_BYTES,
}
_BODY_TEE = dict.fromkeys(_BODY_BYTES, TEE_TDX) | {_BODY_SGX: TEE_SGX}
_V3, _V5 = 3, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header; QE and PCE SVN are what version 3 says there, and reserved later."""

    version: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    user_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """Certification data: how the PCK certificate comes, or how to find it."""

    type: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Every field as the quoting enclave laid it out.

    `raw` ends where the length fields say; `signed_bytes` of it are signed by the
    attestation key. `padding` is what stood behind it.
    """

    raw: bytes = field(repr=False)
    padding: bytes = field(repr=False)
    signed_bytes: int
    header: Header
    body_type: int
    report: Report
    signature: bytes
    attestation_key: bytes
    qe_report_raw: bytes = field(repr=False)
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification: Certification

    @property
    def signed(self) -> bytes:
        """Header and body, which the attestation key signed."""
        return self.raw[: self.signed_bytes]


def looks_like_quote(data: bytes) -> bool:
    """Whether bytes begin as a quote by a quoting enclave of Intel's does."""
    version = int.from_bytes(data[:2], "little")
    vendor = data[_VENDOR_OFFSET : _VENDOR_OFFSET + len(INTEL_QE_VENDOR)]
    return version in VERSIONS and vendor == INTEL_QE_VENDOR


def tee_type_of(data: bytes) -> int:
    """Return the TEE type that the header of a quote names."""
    return int.from_bytes(data[4:8], "little")


def parse_quote(data: bytes) -> Quote:
    """Read a quote signed by ECDSA P-256, and what pads it.

    Raises:
        MalformedError: another version, TEE, body, algorithm or vendor, or a length
            that does not fit.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise MalformedError(
            "quote", got=f"{len(data)} bytes", expected=f"at most {MAX_QUOTE_BYTES}"
        )
    reader = Reader(data, "quote")
    header = _read_header(reader)
    body_type = _read_body_type(reader, header)
    report = _read_body(reader, body_type)
    signed_bytes = reader.offset
    size = reader.little(4, "signature data size")
    signature = Reader(reader.take(size, "signature data"), "quote signature data")
    raw = data[: reader.offset]
    ecdsa = signature.take(_SIGNATURE_BYTES, "signature")
    attestation_key = signature.take(_SIGNATURE_BYTES, "attestation key")
    qe = signature if header.version == _V3 else _read_nested(signature)
    qe_report_raw = qe.take(ENCLAVE_REPORT_BYTES, "QE report")
    quote = Quote(
        raw=raw,
        padding=data[len(raw) :],
        signed_bytes=signed_bytes,
        header=header,
        body_type=body_type,
        report=report,
        signature=ecdsa,
        attestation_key=attestation_key,
        qe_report_raw=qe_report_raw,
        qe_report=read_enclave_report(Reader(qe_report_raw, "QE report")),
        qe_report_signature=qe.take(_SIGNATURE_BYTES, "QE report signature"),
        qe_auth_data=qe.take(qe.little(2, "QE auth data size"), "QE auth data"),
        certification=_read_certification(qe),
    )
    qe.end()
    signature.end()
    return quote


def serialize_quote(quote: Quote) -> bytes:
    """Write a quote and its padding back, byte for byte as it was parsed."""
    certification = quote.certification
    qe = b"".join(
        (
            quote.qe_report_raw,
            quote.qe_report_signature,
            _sized(quote.qe_auth_data, 2),
            _certification_bytes(certification.type, certification.data),
        )
    )
    if quote.header.version != _V3:
        qe = _certification_bytes(_QE_REPORT, qe)
    signature = quote.signature + quote.attestation_key + qe
    return b"".join(
        (
            _header_bytes(quote),
            serialize_report(quote.report),
            _sized(signature, 4),
            quote.padding,
        )
    )


def _read_header(reader: Reader) -> Header:
    version = reader.little(2, "version")
    if version not in VERSIONS:
        raise MalformedError("quote version", got=str(version), expected="3, 4 or 5")
    algorithm = reader.little(2, "attestation key type")
    if algorithm != _ECDSA_P256:
        raise MalformedError(
            "quote attestation key type",
            got=str(algorithm),
            expected="2 (ECDSA P-256)",
        )
    tee_type = reader.little(4, "TEE type")
    tees = (TEE_SGX,) if version == _V3 else (TEE_SGX, TEE_TDX)
    if tee_type not in tees:
        raise MalformedError(
            f"quote TEE type in version {version}",
            got=f"{tee_type:#x}",
            expected=" or ".join(f"{tee:#x}" for tee in tees),
        )
    qe_svn, pce_svn = reader.little(2, "QE SVN"), reader.little(2, "PCE SVN")
    vendor = reader.take(len(INTEL_QE_VENDOR), "QE vendor id")
    if vendor != INTEL_QE_VENDOR:
        raise MalformedError(
            "quote QE vendor id",
            got=vendor.hex(),
            expected=f"{INTEL_QE_VENDOR.hex()} (Intel)",
        )
    return Header(
        version=version,
        tee_type=tee_type,
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        user_data=reader.take(20, "user data"),
    )


def _read_body_type(reader: Reader, header: Header) -> int:
    if header.version != _V5:
        return _BODY_TD_10 if header.tee_type == TEE_TDX else _BODY_SGX
    body_type = reader.little(2, "body type")
    size = reader.little(4, "body size")
    if _BODY_TEE.get(body_type) != header.tee_type or size != _BODY_BYTES[body_type]:
        raise MalformedError(
            "quote body",
            got=f"type {body_type} of {size} bytes for TEE {header.tee_type:#x}",
            expected="1 (SGX, 384), 2 (TD 1.0, 584), 3 (TD 1.5, 648) or 4 (885)",
            hint="this version reads no other",
        )
    return body_type


def _read_body(reader: Reader, body_type: int) -> TdReport | EnclaveReport:
    if body_type == _BODY_SGX:
        return read_enclave_report(reader)
    return read_td_report(reader, _BODY_BYTES[body_type])


def _read_nested(signature: Reader) -> Reader:
    # From version 4 on, the QE report is itself certification data, of type 6.
    outer = _read_certification(signature)
    if outer.type != _QE_REPORT:
        raise MalformedError(
            "quote certification data type",
            got=str(outer.type),
            expected="6 (QE report certification data)",
        )
    return Reader(outer.data, "QE report certification data")


def _read_certification(reader: Reader) -> Certification:
    kind = reader.little(2, "certification data type")
    size = reader.little(4, "certification data size")
    return Certification(type=kind, data=reader.take(size, "certification data"))


def _certification_bytes(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + _sized(data, 4)


def _sized(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "little") + data


def _header_bytes(quote: Quote) -> bytes:
    header = quote.header
    written = b"".join(
        (
            header.version.to_bytes(2, "little"),
            _ECDSA_P256.to_bytes(2, "little"),
            header.tee_type.to_bytes(4, "little"),
            header.qe_svn.to_bytes(2, "little"),
            header.pce_svn.to_bytes(2, "little"),
            INTEL_QE_VENDOR,
            header.user_data,
        )
    )
    if header.version != _V5:
        return written
    size = _BODY_BYTES[quote.body_type]
    return written + quote.body_type.to_bytes(2, "little") + size.to_bytes(4, "little")
