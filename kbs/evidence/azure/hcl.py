"""The HCL report that Azure's paravisor leaves in the vTPM: bytes to fields.

Microsoft, "Azure confidential VM Guest Attestation design", developer reference
(NV index 0x01400001)::

    header    32 bytes   "HCLA", version, size, request type, status, reserved
    payload   1184       an SNP report, or a TDREPORT and zeros
    variable             size, version, report type, hash type, claim size, claims

All numbers are little-endian. Only the claims (JSON) are bound to the hardware, by
REPORT_DATA = SHA-256(claims) ‖ 32 zero bytes; everything around them has one spelling
here, zero bytes at the end apart, which fill the NV index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.core.encode import (
    parse_b64u,
    parse_json_object,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.public import DEFAULT_EXPONENT, RSA_BITS

MAX_REPORT = 16 * 1024
"""The NV index has 2600 bytes at the time of writing."""

MAGIC = b"HCLA"
PAYLOAD_BYTES = 1184
TDREPORT_BYTES = 1024
VARIABLE_BYTES = 20
AK_ID = "HCLAkPub"

_VERSIONS = frozenset({1, 2})
_REQUEST_TYPE = 2
_VARIABLE_VERSION = 1
_SHA256 = 1
_REPORT_DATA_BYTES = 64
_MAX_KEYS = 8
_MAX_TEXT = 256
# One octet of the claims' user data is two hexadecimal digits; REPORT_DATA has 64.
_MAX_USER_DATA = 128


class ReportType(IntEnum):
    """Which hardware made the report; 1 is VBS, which has none."""

    SNP = 2
    TDX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeClaims:
    """What the paravisor says: the attestation key, and how the VM is configured.

    `configuration` holds the members of `vm-configuration` that are known here.
    """

    ak: rsa.RSAPublicKey
    user_data: str | None
    configuration: Mapping[str, bool | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """The report in its parts; `payload` without the zeros that fill it up."""

    raw: bytes
    version: int
    type: ReportType
    payload: bytes
    claims_json: bytes
    claims: RuntimeClaims

    @property
    def report_data(self) -> bytes:
        """What the REPORT_DATA of the hardware report must be."""
        digest = hashlib.sha256(self.claims_json).digest()
        return digest.ljust(_REPORT_DATA_BYTES, b"\0")


# Member of vm-configuration to the name of the claim.
_FLAGS = {
    "console-enabled": "console_enabled",
    "secure-boot": "secure_boot",
    "tpm-enabled": "tpm_enabled",
    "tpm-persisted": "tpm_persisted",
}
_TEXTS = {"vmUniqueId": "unique_id", "root-cert-thumbprint": "root_cert_thumbprint"}


def parse_hcl_report(raw: bytes) -> HclReport:
    """Read an HCL report of SNP or TDX.

    Raises:
        MalformedError: another structure, or claims without the one attestation key.
    """
    if len(raw) > MAX_REPORT:
        raise MalformedError(
            "HCL report", got=f"{len(raw)} bytes", expected=f"at most {MAX_REPORT}"
        )
    reader = Reader(raw, "HCL report")
    version, size = _header(reader)
    payload = reader.take(PAYLOAD_BYTES, "payload")
    kind, claims_json = _variable(reader)
    if size != reader.offset:
        raise MalformedError(
            "HCL report size", got=str(size), expected=str(reader.offset)
        )
    reader.zeros(reader.remaining, "padding")
    return HclReport(
        raw=raw,
        version=version,
        type=kind,
        payload=_payload(payload, kind),
        claims_json=claims_json,
        claims=_claims(claims_json),
    )


def _header(reader: Reader) -> tuple[int, int]:
    magic = reader.take(len(MAGIC), "signature")
    if magic != MAGIC:
        raise MalformedError("HCL report signature", got=magic.hex(), expected="HCLA")
    version = reader.little(4, "version")
    if version not in _VERSIONS:
        raise MalformedError("HCL report version", got=str(version), expected="1 or 2")
    size = reader.little(4, "size")
    _expect(reader.little(4, "request type"), _REQUEST_TYPE, "request type")
    reader.zeros(16, "status and reserved bytes")
    return version, size


def _variable(reader: Reader) -> tuple[ReportType, bytes]:
    size = reader.little(4, "variable data size")
    _expect(
        reader.little(4, "variable data version"),
        _VARIABLE_VERSION,
        "variable data version",
    )
    kind = reader.little(4, "report type")
    if kind not in {one.value for one in ReportType}:
        raise MalformedError(
            "HCL report type", got=str(kind), expected="2 (SNP) or 4 (TDX)"
        )
    _expect(reader.little(4, "hash type"), _SHA256, "hash type")
    claims = reader.little(4, "claims size")
    _expect(size, claims + VARIABLE_BYTES, "variable data size")
    return ReportType(kind), reader.take(claims, "claims")


def _expect(got: int, expected: int, field: str) -> None:
    if got != expected:
        raise MalformedError(
            f"HCL report {field}", got=str(got), expected=str(expected)
        )


def _payload(payload: bytes, kind: ReportType) -> bytes:
    if kind is ReportType.SNP:
        return payload
    padding = Reader(payload[TDREPORT_BYTES:], "HCL report TDREPORT")
    padding.zeros(padding.remaining, "padding")
    return payload[:TDREPORT_BYTES]


def _claims(data: bytes) -> RuntimeClaims:
    members = parse_json_object(data, "HCL claims", limit=MAX_REPORT)
    configuration = require_object(
        members.get("vm-configuration", {}), "HCL vm-configuration"
    )
    user_data = members.get("user-data")
    return RuntimeClaims(
        ak=_attestation_key(members.get("keys")),
        user_data=None
        if user_data is None
        else require_text(user_data, "HCL user-data", limit=_MAX_USER_DATA).lower(),
        configuration=_configuration(configuration),
    )


def _configuration(members: Mapping[str, object]) -> dict[str, bool | str]:
    found: dict[str, bool | str] = {}
    for name, claim in _FLAGS.items():
        if name in members:
            value = members[name]
            if not isinstance(value, bool):
                raise MalformedError(
                    f"HCL {name}", got=repr(value)[:40], expected="true or false"
                )
            found[claim] = value
    for name, claim in _TEXTS.items():
        if name in members:
            text = require_text(members[name], f"HCL {name}", limit=_MAX_TEXT)
            found[claim] = text
    return found


def _attestation_key(value: object) -> rsa.RSAPublicKey:
    keys = [
        require_object(one, "HCL key")
        for one in require_list(value, "HCL keys", limit=_MAX_KEYS)
    ]
    named = [key for key in keys if key.get("kid") == AK_ID]
    if len(named) != 1:
        raise MalformedError(
            "HCL keys", got=f"{len(named)} with kid {AK_ID}", expected="exactly 1"
        )
    (jwk,) = named
    if jwk.get("kty") != "RSA":
        raise MalformedError(
            f"HCL {AK_ID} kty", got=repr(jwk.get("kty"))[:40], expected="RSA"
        )
    modulus = _number(jwk, "n")
    exponent = _number(jwk, "e")
    fits = modulus.bit_length() in RSA_BITS and modulus % 2 == 1
    if not fits or exponent != DEFAULT_EXPONENT:
        raise MalformedError(
            f"HCL {AK_ID}",
            got=f"{modulus.bit_length()} bits, e {exponent}"[:60],
            expected="an odd modulus of 2048, 3072 or 4096 bits with e 65537",
        )
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _number(jwk: Mapping[str, object], name: str) -> int:
    what = f"HCL {AK_ID} {name}"
    return int.from_bytes(parse_b64u(jwk.get(name), what, limit=1024), "big")
