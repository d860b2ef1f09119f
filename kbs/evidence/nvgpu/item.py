"""One `nvgpu` item of a bundle: a device's report and what came with it.

::

    {"kind": "nvgpu", "report": b64, "certificates": PEM or [PEM or b64 DER, …],
     "nonce": hex, "arch": "HOPPER", "rims": [b64 or {"id", "rim": b64}, …],
     "ocsp": [b64 DER, …], "crls": [b64 DER, …]}

Only the report is required. Certificates may stand in any order. An NVSwitch comes as
an item of the same kind; its claims are those of the family `nvswitch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.core.encode import (
    parse_b64,
    parse_hex,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.abi import MAX_REPORT_BYTES, NONCE_BYTES, Report, parse_report
from kbs.evidence.nvgpu.device import parse_fwids, select_leaf
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES
from kbs.pki.certificates import (
    MAX_CERTIFICATE_BYTES,
    load_certificates,
    load_der_certificate,
    load_der_crl,
    spki_sha256,
)
from kbs.pki.ocsp import MAX_OCSP_BYTES, load_ocsp_answer

KIND = "nvgpu"
SWITCH_FAMILY = "nvswitch"

MAX_CERTIFICATES = 16
"""Certificates in all strings; a device's chain has 5."""

MAX_RIMS = 4
MAX_STATUS = 16
"""OCSP answers, and revocation lists, that come with one item."""

MAX_CRL_BYTES = 64 * 1024
"""A list that comes with evidence; NVIDIA's are empty, and AMD's under 2 KiB."""

_MAX_ARCH = 20
_MAX_ID = 128
_MAX_CERTIFICATE_TEXT = MAX_CERTIFICATES * 2 * MAX_CERTIFICATE_BYTES

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceItem:
    """Everything in one item; `leaf` is the certificate that should have signed."""

    raw: bytes
    report: Report
    certificates: tuple[x509.Certificate, ...]
    leaf: x509.Certificate | None
    fwids: tuple[bytes, ...]
    nonce: bytes | None
    arch: str | None
    rims: tuple[StoredRim, ...]
    answers: tuple[ocsp.OCSPResponse, ...]
    revocation_lists: tuple[x509.CertificateRevocationList, ...]

    @property
    def through_signature(self) -> bytes:
        """The report without what follows its signature: what stands for it in M."""
        return self.raw[: len(self.raw) - len(self.report.trailing)]


def parse_item(item: Mapping[str, object]) -> DeviceItem:
    """Read the JSON item.

    Raises:
        MalformedError: a member, the report, a certificate or an answer is malformed.
    """
    members = require_members(
        dict(item),
        "nvgpu item",
        required={"kind", "report"},
        optional={"certificates", "nonce", "arch", "rims", "ocsp", "crls"},
    )
    if members["kind"] != KIND:
        got = repr(members["kind"])[:40]
        raise MalformedError("item kind", got=got, expected=KIND)
    raw = parse_b64(members["report"], "nvgpu report", limit=MAX_REPORT_BYTES)
    certificates = parse_certificates(members.get("certificates", []))
    leaf = select_leaf(certificates)
    if leaf is not None:
        # Its key is used whatever becomes of its chain; here it is read or malformed.
        spki_sha256(leaf)
    return DeviceItem(
        raw=raw,
        report=parse_report(raw),
        certificates=certificates,
        leaf=leaf,
        fwids=parse_fwids(leaf) if leaf is not None else (),
        nonce=_optional(members, "nonce", _nonce),
        arch=_optional(members, "arch", _arch),
        rims=_listed(members, "rims", MAX_RIMS, _rim),
        answers=_listed(members, "ocsp", MAX_STATUS, _answer),
        revocation_lists=_listed(members, "crls", MAX_STATUS, _crl),
    )


def parse_certificates(value: object) -> tuple[x509.Certificate, ...]:
    """Read PEM with a chain, or a list of PEM or base64 DER, in their order.

    Raises:
        MalformedError: it is neither, or too many.
    """
    entries = [value] if isinstance(value, str) else value
    texts = require_list(entries, "nvgpu certificates", limit=MAX_CERTIFICATES)
    found = [
        certificate
        for index, entry in enumerate(texts)
        for certificate in _certificates(entry, f"nvgpu certificates[{index}]")
    ]
    if len(found) > MAX_CERTIFICATES:
        raise MalformedError(
            "nvgpu certificates",
            got=f"{len(found)} certificates",
            expected=f"at most {MAX_CERTIFICATES}",
        )
    return tuple(dict.fromkeys(found))


def _certificates(entry: object, what: str) -> tuple[x509.Certificate, ...]:
    text = require_text(entry, what, limit=_MAX_CERTIFICATE_TEXT)
    if "-----" not in text:
        der = parse_b64(text, what, limit=MAX_CERTIFICATE_BYTES)
        return (load_der_certificate(der, what),)
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError as exc:
        raise MalformedError(what, got="PEM that is not ASCII") from exc
    return load_certificates(data, what, most=MAX_CERTIFICATES)


def _optional(
    members: Mapping[str, object], name: str, read: Callable[[object, str], _T]
) -> _T | None:
    return read(members[name], f"nvgpu {name}") if name in members else None


def _listed(
    members: Mapping[str, object],
    name: str,
    most: int,
    read: Callable[[object, str], _T],
) -> tuple[_T, ...]:
    entries = require_list(members.get(name, []), f"nvgpu {name}", limit=most)
    return tuple(
        read(entry, f"nvgpu {name}[{index}]") for index, entry in enumerate(entries)
    )


def _nonce(value: object, what: str) -> bytes:
    return parse_hex(value, what, size=NONCE_BYTES)


def _arch(value: object, what: str) -> str:
    return require_text(value, what, limit=_MAX_ARCH).upper()


def _rim(value: object, what: str) -> StoredRim:
    if isinstance(value, str):
        return StoredRim(parse_b64(value, what, limit=MAX_RIM_BYTES))
    members = require_members(value, what, required={"id", "rim"})
    return StoredRim(
        parse_b64(members["rim"], what, limit=MAX_RIM_BYTES),
        require_text(members["id"], f"{what} id", limit=_MAX_ID),
    )


def _answer(value: object, what: str) -> ocsp.OCSPResponse:
    return load_ocsp_answer(parse_b64(value, what, limit=MAX_OCSP_BYTES), what)


def _crl(value: object, what: str) -> x509.CertificateRevocationList:
    return load_der_crl(parse_b64(value, what, limit=MAX_CRL_BYTES), what)
