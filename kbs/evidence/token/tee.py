"""What Azure Attestation and Intel Trust Authority share: TDX and SGX claims.

Names and meaning: draft-kdyxy-rats-tdx-eat-profile, sections 3 and 4, which both write.
What must not stay open of any TEE is one claim for all of them, whatever the token is
about: false where the TEE has no such thing, absent where the token does not say.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety
from kbs.evidence.token.fields import Field, Table, any_true, text_at

# Flags that say that the host can read the memory.
_DEBUG_FLAGS = (
    "tdx_is_debuggable",
    "tdx_td_attributes_debug",
    "sgx_is_debuggable",
    "sevsnp_is_debuggable",
    "x-ms-sgx-is-debuggable",
    "x-ms-sevsnpvm-is-debuggable",
    "is-debuggable",
)
# Flags that say that the guest may be moved by a migration agent.
_MIGRATION_FLAGS = (
    "tdx_is_migratable",
    "tdx_td_attributes_migratable",
    "sevsnp_migration_allowed",
    "x-ms-sevsnpvm-migration-allowed",
)
_TDX = "tdx_"
_SNP = ("sevsnp_", "x-ms-sevsnpvm-")
# Bit 29 of the TD attributes, MIGRATABLE (Intel TDX Module ABI, TD_ATTRIBUTES).
_MIGRATABLE_BIT = 29
_ATTRIBUTES_BYTES = 8
# Of a module of Intel's both are zero: hexadecimal digits of MRSIGNERSEAM (SHA-384) and
# SEAMATTRIBUTES (Intel TDX Module ABI, TEE_TCB_INFO).
_SEAM = {"tdx_mrsignerseam": 96, "tdx_seam_attributes": 16}

_OPEN = (
    (
        "debug",
        "whether any flag of the token says that the TEE can be debugged",
        "the host reads the memory of a debug TEE",
    ),
    (
        "migration_allowed",
        "whether a migration agent may move the guest; false where the TEE has none",
        "whoever is the migration agent can read the memory",
    ),
    (
        "other_tdx_module",
        "whether the TDX module is not one of Intel's; false where the TEE has none",
        "another signer's TDX module can say anything",
    ),
)


def tcb_status(table: Table, beside: str | None = None) -> Field:
    """Return the row of the platform's TCB status, in the words of Intel's TCB info.

    `beside` is a claim without which a rule is about TEEs that have no such status.
    """
    safety = Safety(
        reason="the service attests to platforms with known holes too",
        default=("UpToDate",),
        acceptable=(
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
        ),
        beside=beside,
    )
    meaning = "TCB status of the platform"
    return table.row("attester_tcb_status", ClaimType.TEXT, meaning, safety=safety)


def open_specs(table: Table) -> tuple[ClaimSpec, ...]:
    """Return the claims about what must not stay open of any TEE."""
    return tuple(
        table.spec(
            name,
            ClaimType.BOOL,
            meaning,
            safety=Safety(reason=reason, default=(False,)),
        )
        for name, meaning, reason in _OPEN
    )


def open_claims(family: str, body: Mapping[str, object]) -> dict[str, ClaimValue]:
    """Return those of them that a token answers."""
    found = {
        "debug": _debug(body),
        "migration_allowed": _may_migrate(body),
        "other_tdx_module": _has_other_module(body),
    }
    return {
        f"{family}.{name}": value for name, value in found.items() if value is not None
    }


def sgx_rows(
    table: Table,
    *,
    enclave: str,
    signer: str,
    product: str,
    version: str,
    guests: tuple[str, ...] = (),
) -> tuple[Field, ...]:
    """Return the rows of an enclave's identity, by the names of the service.

    Of a signer alone nobody knows which enclave it is, nor how old: where a rule names
    the signer it must name product and SVN too, or a measurement: that of an enclave,
    a TD, or a guest of another TEE (`guests`, further names of claims).
    """
    measured = table.row(enclave, ClaimType.BYTES, "MRENCLAVE", size=32, boot=True)
    signed = table.row(signer, ClaimType.BYTES, "MRSIGNER", size=32)
    others = (measured.spec.name, f"{table.family}.tdx_mrtd", *guests)
    which = Safety(
        reason="a signer signs many enclaves: name MRENCLAVE, or which product",
        alternatives=others,
        beside=signed.spec.name,
    )
    how_old = Safety(
        reason="a signer's older versions have its older holes",
        alternatives=others,
        floor=True,
        beside=signed.spec.name,
    )
    return (
        measured,
        signed,
        table.row(product, ClaimType.INT, "ISVPRODID", safety=which),
        table.row(version, ClaimType.INT, "ISVSVN", safety=how_old),
    )


def is_snp(body: Mapping[str, object]) -> bool:
    """Whether a token is about an SNP guest."""
    return any(name.startswith(_SNP) for name in body)


def _is_tdx(body: Mapping[str, object]) -> bool:
    return any(name.startswith(_TDX) for name in body)


def _debug(body: Mapping[str, object]) -> bool | None:
    flags = any_true(body, _DEBUG_FLAGS)
    state = text_at(body, "dbgstat")
    if state is None:
        return flags
    # RFC 9711, section 4.2.9: every value but `enabled` begins with `disabled`.
    return not state.startswith("disabled") or flags is True


def _may_migrate(body: Mapping[str, object]) -> bool | None:
    flags = any_true(body, _MIGRATION_FLAGS)
    attributes = body.get("tdx_td_attributes")
    if flags or attributes is None:
        has_none = not is_snp(body) and not _is_tdx(body)
        return False if flags is None and has_none else flags
    if not isinstance(attributes, str):
        return True
    try:
        data = bytes.fromhex(attributes)
    except ValueError:
        return True
    bits = int.from_bytes(data, "little")
    return len(data) != _ATTRIBUTES_BYTES or bool(bits >> _MIGRATABLE_BIT & 1)


def _has_other_module(body: Mapping[str, object]) -> bool | None:
    if not _is_tdx(body):
        return False
    given = {name: body[name] for name in _SEAM if body.get(name) is not None}
    if any(value != "0" * _SEAM[name] for name, value in given.items()):
        return True
    return False if len(given) == len(_SEAM) else None


def tdx_rows(table: Table) -> tuple[Field, ...]:
    """Return the rows of a TD quote's body."""
    row = table.row
    measurements = (
        ("tdx_mrtd", "measurement of the TD's initial contents", True),
        ("tdx_rtmr0", "runtime measurement register 0, firmware", True),
        ("tdx_rtmr1", "runtime measurement register 1, boot loader", True),
        ("tdx_rtmr2", "runtime measurement register 2, kernel", True),
        ("tdx_rtmr3", "runtime measurement register 3, workload", False),
        ("tdx_mrconfigid", "MRCONFIGID", False),
        ("tdx_mrowner", "MROWNER", False),
        ("tdx_mrownerconfig", "MROWNERCONFIG", False),
        ("tdx_mrseam", "measurement of the TDX module", False),
        ("tdx_mrsignerseam", "signer of the TDX module", False),
    )
    flags = (
        ("tdx_td_attributes_debug", "TD attribute DEBUG"),
        ("tdx_td_attributes_septve_disable", "TD attribute SEPT_VE_DISABLE"),
        ("tdx_is_debuggable", "whether the TD can be debugged"),
    )
    return (
        *(
            row(name, ClaimType.BYTES, meaning, size=48, boot=boot)
            for name, meaning, boot in measurements
        ),
        *(row(name, ClaimType.BOOL, meaning) for name, meaning in flags),
        row("tdx_report_data", ClaimType.BYTES, "REPORTDATA", size=64),
        row("tdx_td_attributes", ClaimType.BYTES, "TD attributes", size=8),
        row("tdx_seam_attributes", ClaimType.BYTES, "SEAM attributes", size=8),
        row("tdx_xfam", ClaimType.BYTES, "XFAM", size=8),
        row("tdx_tee_tcb_svn", ClaimType.BYTES, "TEE_TCB_SVN", size=16),
        row("tdx_seamsvn", ClaimType.INT, "SVN of the TDX module"),
    )
