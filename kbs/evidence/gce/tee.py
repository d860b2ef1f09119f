"""The TEE report inside an attestation: fields of protocol buffers, back to bytes.

google/go-sev-guest, proto/sevsnp.proto (Report, CertificateChain), and
google/go-tdx-guest, proto/tdx.proto (QuoteV4). What was signed are the bytes that the
fields were read from, laid out by AMD 56860, table 23, and by Intel's TDX quote of
version 4; a field of another size makes no report.
"""

from __future__ import annotations

from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.gce.wire import Message, Schema, read_message

Item = dict[str, object]

_U32 = 2**32 - 1

_SNP_ATTESTATION = Schema(octets={1: "report", 2: "certificate_chain", 3: "product"})
_SNP_CHAIN = Schema(
    octets={
        1: "vcek_cert",
        2: "ask_cert",
        3: "ark_cert",
        4: "firmware_cert",
        6: "vlek_cert",
        7: "extras",
    },
    repeated=frozenset({"extras"}),
)
_SNP_REPORT = Schema(
    numbers={
        1: "version",
        2: "guest_svn",
        3: "policy",
        6: "vmpl",
        7: "signature_algo",
        8: "current_tcb",
        9: "platform_info",
        10: "signer_info",
        18: "reported_tcb",
        20: "committed_tcb",
        21: "current_build",
        22: "current_minor",
        23: "current_major",
        24: "committed_build",
        25: "committed_minor",
        26: "committed_major",
        27: "launch_tcb",
        29: "cpuid1eax_fms",
        30: "launch_mit_vector",
        31: "current_mit_vector",
    },
    octets={
        4: "family_id",
        5: "image_id",
        11: "report_data",
        12: "measurement",
        13: "host_data",
        14: "id_key_digest",
        15: "author_key_digest",
        16: "report_id",
        17: "report_id_ma",
        19: "chip_id",
        28: "signature",
    },
)
# AMD 56860, table 23: what is no field of its own there is reserved, and zero. The
# fourth bytes of the builds are.
_CPUID_VERSION = 3

_TD_QUOTE = Schema(
    numbers={3: "signed_data_size"},
    octets={1: "header", 2: "td_quote_body", 4: "signed_data", 5: "extra_bytes"},
)
_TD_HEADER = Schema(
    numbers={1: "version", 2: "attestation_key_type", 3: "tee_type"},
    octets={4: "qe_svn", 5: "pce_svn", 6: "qe_vendor_id", 7: "user_data"},
)
_TD_BODY_SIZES = {
    "tee_tcb_svn": 16,
    "mr_seam": 48,
    "mr_signer_seam": 48,
    "seam_attributes": 8,
    "td_attributes": 8,
    "xfam": 8,
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_owner": 48,
    "mr_owner_config": 48,
}
_TD_BODY = Schema(
    octets={
        **dict(enumerate(_TD_BODY_SIZES, 1)),
        11: "rtmrs",
        12: "report_data",
    },
    repeated=frozenset({"rtmrs"}),
)
_RTMRS, _RTMR_BYTES = 4, 48
_SIGNED_DATA = Schema(
    octets={1: "signature", 2: "ecdsa_attestation_key", 3: "certification_data"}
)
_CERTIFICATION = Schema(
    numbers={1: "certificate_data_type", 2: "size"},
    octets={3: "qe_report_certification_data"},
)
_QE_CERTIFICATION = Schema(
    octets={
        1: "qe_report",
        2: "qe_report_signature",
        3: "qe_auth_data",
        4: "pck_certificate_chain_data",
    }
)
_QE_AUTH = Schema(numbers={1: "parsed_data_size"}, octets={2: "data"})
_PCK_CHAIN = Schema(
    numbers={1: "certificate_data_type", 2: "size"}, octets={3: "pck_cert_chain"}
)
_QE_REPORT = Schema(
    numbers={2: "misc_select", 9: "isv_prod_id", 10: "isv_svn"},
    octets={
        1: "cpu_svn",
        3: "reserved1",
        4: "attributes",
        5: "mr_enclave",
        6: "reserved2",
        7: "mr_signer",
        8: "reserved3",
        11: "reserved4",
        12: "report_data",
    },
)


def snp_item(data: bytes) -> Item:
    """Return the `snp` item of a sevsnp.Attestation.

    Raises:
        MalformedError: a field is unknown or of another size.
    """
    attestation = read_message(data, _SNP_ATTESTATION, "sevsnp.Attestation")
    report = read_message(attestation.one("report"), _SNP_REPORT, "sevsnp.Report")
    chain = read_message(
        attestation.one("certificate_chain"), _SNP_CHAIN, "sevsnp.CertificateChain"
    )
    names = ("vcek_cert", "vlek_cert", "ask_cert", "ark_cert")
    certificates = [b64(one) for name in names if (one := chain.one(name))]
    return {"kind": "snp", "report": b64(_report(report)), "certificates": certificates}


def tdx_item(data: bytes) -> Item:
    """Return the `tdx` item of a tdx.QuoteV4.

    Raises:
        MalformedError: a field is unknown or of another size.
    """
    quote = read_message(data, _TD_QUOTE, "tdx.QuoteV4")
    signed = _signed_data(quote.one("signed_data"))
    raw = (
        _td_header(quote.one("header"))
        + _td_body(quote.one("td_quote_body"))
        + _number(quote, "signed_data_size", 4)
        + signed
        + quote.one("extra_bytes")
    )
    return {"kind": "tdx", "quote": b64(raw)}


def _report(report: Message) -> bytes:
    return b"".join(
        (
            _number(report, "version", 4),
            _number(report, "guest_svn", 4),
            _number(report, "policy", 8),
            report.sized("family_id", 16),
            report.sized("image_id", 16),
            _number(report, "vmpl", 4),
            _number(report, "signature_algo", 4),
            _number(report, "current_tcb", 8),
            _number(report, "platform_info", 8),
            _number(report, "signer_info", 4),
            bytes(4),
            report.sized("report_data", 64),
            report.sized("measurement", 48),
            report.sized("host_data", 32),
            report.sized("id_key_digest", 48),
            report.sized("author_key_digest", 48),
            report.sized("report_id", 32),
            report.sized("report_id_ma", 32),
            _number(report, "reported_tcb", 8),
            _cpuid(report),
            bytes(21),
            report.sized("chip_id", 64),
            _number(report, "committed_tcb", 8),
            *(_number(report, f"current_{part}", 1) for part in _BUILD),
            bytes(1),
            *(_number(report, f"committed_{part}", 1) for part in _BUILD),
            bytes(1),
            _number(report, "launch_tcb", 8),
            _number(report, "launch_mit_vector", 8),
            _number(report, "current_mit_vector", 8),
            bytes(152),
            report.sized("signature", 512),
        )
    )


_BUILD = ("build", "minor", "major")


def _cpuid(report: Message) -> bytes:
    """Return CPUID_FAM_ID, _MOD_ID and _STEP out of CPUID(1).EAX."""
    eax = report.number("cpuid1eax_fms", most=_U32)
    if report.number("version", most=_U32) < _CPUID_VERSION:
        return bytes(3)
    family = (eax >> 8 & 0xF) + (eax >> 20 & 0xFF)
    model = eax >> 12 & 0xF0 | eax >> 4 & 0xF
    if eax & ~0x0FFF0FFF or family > 0xFF:  # noqa: PLR2004 - one byte
        raise MalformedError("sevsnp.Report cpuid1eax_fms", got=f"{eax:#x}")
    return bytes((family, model, eax & 0xF))


def _td_header(data: bytes) -> bytes:
    header = read_message(data, _TD_HEADER, "tdx.Header")
    return (
        _number(header, "version", 2)
        + _number(header, "attestation_key_type", 2)
        + _number(header, "tee_type", 4)
        # Bytes 8 to 11; the reader of these fields takes them in this order.
        + header.sized("pce_svn", 2)
        + header.sized("qe_svn", 2)
        + header.sized("qe_vendor_id", 16)
        + header.sized("user_data", 20)
    )


def _td_body(data: bytes) -> bytes:
    body = read_message(data, _TD_BODY, "tdx.TDQuoteBody")
    rtmrs = body.all("rtmrs")
    if len(rtmrs) != _RTMRS or any(len(one) != _RTMR_BYTES for one in rtmrs):
        raise MalformedError(
            "tdx.TDQuoteBody rtmrs", got=f"{len(rtmrs)}", expected="4 of 48 bytes"
        )
    fields = (body.sized(name, size) for name, size in _TD_BODY_SIZES.items())
    return b"".join((*fields, *rtmrs, body.sized("report_data", 64)))


def _signed_data(data: bytes) -> bytes:
    signed = read_message(data, _SIGNED_DATA, "tdx.Ecdsa256BitQuoteV4AuthData")
    certification = read_message(
        signed.one("certification_data"), _CERTIFICATION, "tdx.CertificationData"
    )
    inner = _qe_certification(certification.one("qe_report_certification_data"))
    return (
        signed.sized("signature", 64)
        + signed.sized("ecdsa_attestation_key", 64)
        + _number(certification, "certificate_data_type", 2)
        + _number(certification, "size", 4)
        + inner
    )


def _qe_certification(data: bytes) -> bytes:
    message = read_message(data, _QE_CERTIFICATION, "tdx.QEReportCertificationData")
    auth = read_message(message.one("qe_auth_data"), _QE_AUTH, "tdx.QeAuthData")
    chain = read_message(
        message.one("pck_certificate_chain_data"), _PCK_CHAIN, "tdx.PCKCertificateChain"
    )
    return b"".join(
        (
            _qe_report(message.one("qe_report")),
            message.sized("qe_report_signature", 64),
            _number(auth, "parsed_data_size", 2),
            auth.one("data"),
            _number(chain, "certificate_data_type", 2),
            _number(chain, "size", 4),
            chain.one("pck_cert_chain"),
        )
    )


def _qe_report(data: bytes) -> bytes:
    report = read_message(data, _QE_REPORT, "tdx.EnclaveReport")
    return b"".join(
        (
            report.sized("cpu_svn", 16),
            _number(report, "misc_select", 4),
            report.sized("reserved1", 28),
            report.sized("attributes", 16),
            report.sized("mr_enclave", 32),
            report.sized("reserved2", 32),
            report.sized("mr_signer", 32),
            report.sized("reserved3", 96),
            _number(report, "isv_prod_id", 2),
            _number(report, "isv_svn", 2),
            report.sized("reserved4", 60),
            report.sized("report_data", 64),
        )
    )


def _number(message: Message, name: str, size: int) -> bytes:
    most = 2 ** (8 * size) - 1
    return message.number(name, most=most).to_bytes(size, "little")
