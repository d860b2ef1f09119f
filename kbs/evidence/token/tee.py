"""Rows that Azure Attestation and Intel Trust Authority share: TDX and SGX claims.

Names and meaning: draft-kdyxy-rats-tdx-eat-profile, sections 3 and 4, which both write.
"""

from __future__ import annotations

from kbs.core.claims import ClaimType, Safety
from kbs.evidence.token.fields import Field, Table

DEBUG_FLAGS = (
    "tdx_is_debuggable",
    "tdx_td_attributes_debug",
    "sgx_is_debuggable",
    "sevsnp_is_debuggable",
    "x-ms-sgx-is-debuggable",
    "x-ms-sevsnpvm-is-debuggable",
    "is-debuggable",
)
"""Flags that say that the host can read the memory."""

MIGRATION_FLAGS = (
    "tdx_is_migratable",
    "tdx_td_attributes_migratable",
    "x-ms-sevsnpvm-migration-allowed",
)
"""Flags that say that the guest may be moved by a migration agent."""

NO_DEBUG = Safety(reason="the host reads the memory of a debug TEE", default=(False,))

NO_MIGRATION = Safety(
    reason="whoever is the migration agent can read the memory", default=(False,)
)


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
        row("tdx_xfam", ClaimType.BYTES, "XFAM", size=8),
        row("tdx_tee_tcb_svn", ClaimType.BYTES, "TEE_TCB_SVN", size=16),
        row("tdx_seamsvn", ClaimType.INT, "SVN of the TDX module"),
        row("attester_tcb_status", ClaimType.TEXT, "TCB status of the platform"),
    )
