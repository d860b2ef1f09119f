"""The governed objects: what a statement's digest stands for.

Each has a strict JSON form; its content is the canonical JSON (RFC 8785), its digest
SHA-256 of that. A workload policy is its exact bytes; a release policy is the canonical
bytes of `kbs.policy`, which only that package interprets. Attestation keys and the
authority document have modules of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    MAX_INTEGER,
    b64,
    canonical_json,
    parse_b64,
    parse_hex,
    require_integer,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_key_ref, parse_scoped_name
from kbs.governance.attestation_key import is_tpm_name

MAX_OBJECT_BYTES = 1024 * 1024
"""Largest content of a governed object."""

CHIP_ID_BYTES = 64
"""CHIP_ID of an SNP report (AMD 56860, table 23)."""

SPKI_SHA256_BYTES = 32

# What one deny entry can name. A Turin chip is known by its 8 bytes of HWID (AMD
# 57230), which CHIP_ID pads with zeros, a platform of Intel's by its PPID. Launch
# measurements: 48 bytes are SNP's launch digest and TDX's MRTD (SHA-384), 32 are SGX's
# MRENCLAVE (SHA-256); a CCA realm's has the size of its hash, up to SHA-512. A GPU is
# known by its device_id, or where NVIDIA's service saw it by its ueid, the serial
# number of a certificate: at most 20 bytes (RFC 5280, section 4.1.2.2), without
# leading zeros.
_CHIP_SIZES = (8, 16, CHIP_ID_BYTES)
_MEASUREMENT_SIZES = (32, 48, 64)
_GPU_ID_BYTES = 32
_MAX_UEID_BYTES = 20

_MAX_VALUES = 10_000
_MAX_VALUE = 1024
_MAX_CERTIFICATE = 16 * 1024
_MAX_REASON = 500


class Purpose(StrEnum):
    """What a certification authority may certify."""

    EK = "ek"
    AK = "ak"
    TOKEN = "token"  # noqa: S105 - a purpose, no token


class DenyTarget(StrEnum):
    """What a deny entry names; `all` is the emergency stop."""

    POLICY = "policy"
    KEY = "key"
    AK = "ak"
    CHIP = "chip"
    GPU = "gpu"
    MEASUREMENT = "measurement"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """Reference values, in the form in which claims are written."""

    values: tuple[str | int, ...]
    expires: datetime | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        document: dict[str, object] = {"values": list(self.values)}
        if self.expires is not None:
            document["expires"] = format_time(self.expires)
        return document

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


@dataclass(frozen=True, slots=True)
class CertificationAuthority:
    """A CA for one purpose; `der` is its certificate."""

    purpose: Purpose
    der: bytes

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_der_x509_certificate(self.der)

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"purpose": self.purpose.value, "certificate": b64(self.der)}

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


@dataclass(frozen=True, slots=True)
class Deny:
    """A deny entry: it overrides every grant of what it names."""

    target: DenyTarget
    value: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "target": self.target.value,
            "value": self.value,
            "reason": self.reason,
        }

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


@dataclass(frozen=True, slots=True)
class WorkloadPolicy:
    """The digests of a workload policy's exact bytes, for `measures`."""

    sha256: str
    sha384: str
    sha512: str
    size: int


def parse_reference_set(value: object) -> ReferenceSet:
    """Accept reference values: strings or integers, each once, at least one.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value, "reference set", required={"values"}, optional={"expires"}
    )
    listed = require_list(members["values"], "reference values", limit=_MAX_VALUES)
    values = tuple(_parse_value(element) for element in listed)
    if not values or len(set(values)) != len(values):
        raise MalformedError(
            "reference values",
            got=f"{len(values)}, {len(set(values))} of them distinct",
            expected="at least one, each once",
        )
    expires = members.get("expires")
    if "expires" not in members:
        return ReferenceSet(values)
    return ReferenceSet(values, parse_time(expires, "reference set expires"))


def parse_ca(value: object) -> CertificationAuthority:
    """Accept a CA: its purpose, and one certificate as base64 DER or as PEM.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(value, "ca", required={"purpose", "certificate"})
    purpose = Purpose(_one_of(members["purpose"], "ca purpose", Purpose))
    text = require_text(
        members["certificate"], "ca certificate", limit=2 * _MAX_CERTIFICATE
    )
    try:
        if text.startswith("-----BEGIN CERTIFICATE-----"):
            certificates = x509.load_pem_x509_certificates(text.encode("ascii"))
        else:
            der = parse_b64(text, "ca certificate", limit=_MAX_CERTIFICATE)
            certificates = [x509.load_der_x509_certificate(der)]
    except (ValueError, x509.InvalidVersion) as exc:
        raise MalformedError(
            "ca certificate", got="another text", expected="PEM or base64 DER"
        ) from exc
    if len(certificates) != 1:
        raise MalformedError(
            "ca certificate", got=f"{len(certificates)}", expected="exactly one"
        )
    return CertificationAuthority(purpose, certificates[0].public_bytes(Encoding.DER))


def parse_deny(value: object) -> Deny:
    """Accept a deny entry whose value has the form that its target asks for.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(value, "deny", required={"target", "value", "reason"})
    target = DenyTarget(_one_of(members["target"], "deny target", DenyTarget))
    text = require_text(members["value"], "deny value", limit=_MAX_VALUE)
    _check_deny_value(target, text)
    reason = require_text(members["reason"], "deny reason", limit=_MAX_REASON)
    if not reason.strip():
        raise MalformedError("deny reason", got="nothing", expected="why")
    return Deny(target, text, reason)


def measure_workload_policy(data: bytes) -> WorkloadPolicy:
    """Return all digests of the exact bytes of a workload policy.

    Raises:
        MalformedError: no bytes, or too many.
    """
    if not 0 < len(data) <= MAX_OBJECT_BYTES:
        raise MalformedError(
            "workload policy",
            got=f"{len(data)} bytes",
            expected=f"1 to {MAX_OBJECT_BYTES}",
        )
    return WorkloadPolicy(
        hashlib.sha256(data).hexdigest(),
        hashlib.sha384(data).hexdigest(),
        hashlib.sha512(data).hexdigest(),
        len(data),
    )


def _check_deny_value(target: DenyTarget, text: str) -> None:
    if target is DenyTarget.ALL:
        if text:
            raise MalformedError("deny value", got=repr(text)[:40], expected="empty")
    elif target is DenyTarget.POLICY:
        parse_scoped_name(text, "deny value")
    elif target is DenyTarget.KEY:
        parse_key_ref(text)
    else:
        _check_device(target, text)


def _check_device(target: DenyTarget, text: str) -> None:
    # An entry of another form would never match, and nobody would notice.
    what = f"deny value of {target.value}"
    data = parse_hex(text, what)
    if target is DenyTarget.AK:
        fits = len(data) == SPKI_SHA256_BYTES or is_tpm_name(data)
        expected = (
            "the key's SPKI SHA-256 (64 hex digits) or its TPM name (000b and 64, "
            "000c and 96, or 000d and 128 hex digits)"
        )
    elif target is DenyTarget.CHIP:
        fits = len(data) in _CHIP_SIZES and any(data)
        expected = (
            "CHIP_ID (128 hex digits), Intel's PPID (32) or Turin's HWID (16), "
            "not all zeros"
        )
    elif target is DenyTarget.MEASUREMENT:
        fits = len(data) in _MEASUREMENT_SIZES
        expected = "a launch measurement of 64, 96 or 128 hex digits"
    else:
        is_ueid = len(data) <= _MAX_UEID_BYTES and data[:1] > b"\0"
        fits = len(data) == _GPU_ID_BYTES or is_ueid
        expected = (
            "a device's device_id (64 hex digits) or ueid (up to 40, no zeros before)"
        )
    if not fits:
        raise MalformedError(what, got=f"{len(text)} hex digits", expected=expected)


def _parse_value(value: object) -> str | int:
    if isinstance(value, str):
        return require_text(value, "reference value", limit=_MAX_VALUE)
    return require_integer(
        value, "reference value", least=-MAX_INTEGER, most=MAX_INTEGER
    )


def _one_of(value: object, what: str, words: type[StrEnum]) -> str:
    known = [word.value for word in words]
    if isinstance(value, str) and value in known:
        return value
    raise MalformedError(what, got=repr(value)[:40], expected=", ".join(known))
