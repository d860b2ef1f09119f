"""Tokens of Microsoft Azure Attestation (MAA).

Claims: "Claims rules functions supported in policy" and "Azure Attestation EAT profile
for TDX" of its documentation. Bound by the runtime data that the guest hands in as a
JSON object: MAA compares its SHA-256 with REPORT_DATA and repeats it in `x-ms-runtime`.
Tokens of the guest attestation of confidential VMs (`azurevm`) are read and verified,
and never bound: a TPM quote of the paravisor stands behind them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.binding import binding
from kbs.core.claims import ClaimType, ClaimValue, Safety
from kbs.evidence.token.fields import Table, object_at, read_fields, text_at
from kbs.evidence.token.service import Service, Token
from kbs.evidence.token.tee import (
    is_snp,
    open_claims,
    open_specs,
    sgx_rows,
    tcb_status,
    tdx_rows,
)
from kbs.pki.issuers import Profile

_BOUND_TYPES = frozenset({"sevsnpvm", "tdxvm"})
_SNP = "x-ms-sevsnpvm-"

_TABLE = Table("maa", "token of Azure Attestation")
_ROW = _TABLE.row
_SNP_BYTES = (
    ("launchmeasurement", "SNP launch measurement", 48, True),
    ("hostdata", "HOST_DATA", 32, False),
    ("reportdata", "REPORT_DATA", 64, False),
    ("reportid", "REPORT_ID", 32, False),
    ("idkeydigest", "digest of the ID key", 48, False),
    ("authorkeydigest", "digest of the author key", 48, False),
    ("familyId", "FAMILY_ID", 16, False),
    ("imageId", "IMAGE_ID", 16, False),
)
_SNP_NUMBERS = (
    ("guestsvn", "SVN of the guest"),
    ("bootloader-svn", "TCB: boot loader"),
    ("tee-svn", "TCB: TEE"),
    ("snpfw-svn", "TCB: SNP firmware"),
    ("microcode-svn", "TCB: microcode"),
    ("vmpl", "VMPL of the report"),
)
_SNP_FLAGS = (
    ("is-debuggable", "whether the policy allows debugging"),
    ("migration-allowed", "whether the policy allows a migration agent"),
    ("smt-allowed", "whether the policy allows SMT"),
)

FIELDS = (
    _ROW("iss", ClaimType.TEXT, "the attestation provider"),
    _ROW("x-ms-ver", ClaimType.TEXT, "version of the token's schema"),
    _ROW("x-ms-attestation-type", ClaimType.TEXT, "what was attested"),
    _ROW("x-ms-compliance-status", ClaimType.TEXT, "whose image Azure says it is"),
    _ROW("x-ms-policy-hash", ClaimType.TEXT, "digest of the provider's policy"),
    _ROW("secureboot", ClaimType.BOOL, "secure boot of the guest's firmware"),
    *(
        _ROW(f"{_SNP}{name}", ClaimType.BYTES, meaning, size=size, boot=boot)
        for name, meaning, size, boot in _SNP_BYTES
    ),
    *(_ROW(f"{_SNP}{name}", ClaimType.INT, meaning) for name, meaning in _SNP_NUMBERS),
    *(_ROW(f"{_SNP}{name}", ClaimType.BOOL, meaning) for name, meaning in _SNP_FLAGS),
    *tdx_rows(_TABLE),
    tcb_status(_TABLE, beside="maa.tdx_mrtd"),
    *sgx_rows(
        _TABLE,
        enclave="x-ms-sgx-mrenclave",
        signer="x-ms-sgx-mrsigner",
        product="x-ms-sgx-product-id",
        version="x-ms-sgx-svn",
        guests=("maa.x_ms_sevsnpvm_launchmeasurement",),
    ),
)

_VMPL = _TABLE.spec(
    "vmpl",
    ClaimType.INT,
    "VMPL of an SNP report; 0 where the TEE has no such levels",
    safety=Safety(
        reason="software at a lower privilege may be anything that the guest runs",
        default=(0,),
    ),
)


def _devices(token: Token) -> tuple[dict[str, ClaimValue], ...]:
    body = _body(token)
    values = {**read_fields(FIELDS, body), **open_claims("maa", body)}
    vmpl = body.get(f"{_SNP}vmpl")
    if not is_snp(body):
        values[_VMPL.name] = 0
    elif type(vmpl) is int:
        values[_VMPL.name] = vmpl
    return (values,)


def _body(token: Token) -> Mapping[str, object]:
    # A guest's token says of the TEE below it what the others say at the top.
    inner = object_at(token.claims, "x-ms-isolation-tee")
    return {**inner, **token.claims}


def _bound(token: Token) -> bytes:
    # What was parsed strictly can be written canonically.
    return binding(token.claims.get("x-ms-runtime"))


def _is_bound(token: Token, wanted: bytes) -> bool:
    """Whether `x-ms-runtime` is the object whose digest this is."""
    kind = text_at(token.claims, "x-ms-attestation-type")
    return kind in _BOUND_TYPES and _bound(token) == wanted


SERVICE = Service(
    profile=Profile.MAA,
    fields=FIELDS,
    derived=(*open_specs(_TABLE), _VMPL),
    devices=_devices,
    bound=_bound,
    is_bound=_is_bound,
)
