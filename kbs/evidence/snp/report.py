"""The fields of an ATTESTATION_REPORT, by the specification's own names.

AMD 56860, SEV Secure Nested Paging Firmware ABI Specification, rev. 1.58. Nothing
here says that a report is genuine; see `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbs.evidence.snp.products import ProductLine, parse_tcb, product_of_cpuid

# AMD 56860, table 10: bit 17 is reserved and must be one.
POLICY_RESERVED_ONE = 1 << 17
POLICY_BITS: Mapping[str, int] = {
    "smt_allowed": 16,
    "migrate_ma_allowed": 18,
    "debug_allowed": 19,
    "single_socket": 20,
    "cxl_allowed": 21,
    "mem_aes_256_xts": 22,
    "rapl_disabled": 23,
    "ciphertext_hiding_dram": 24,
    "page_swap_disabled": 25,
}
POLICY_BITS_DEFINED = 26

# AMD 56860, table 24.
PLATFORM_BITS: Mapping[str, int] = {
    "smt_enabled": 0,
    "tsme_enabled": 1,
    "ecc_enabled": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding_dram": 4,
    "alias_check_complete": 5,
    "iommu_write_safe": 6,
    "tio_enabled": 7,
}
PLATFORM_BITS_DEFINED = 8


class SigningKey(StrEnum):
    """Which key the report says it is signed with (SIGNING_KEY)."""

    VCEK = "VCEK"
    VLEK = "VLEK"
    NONE = "NONE"


# AMD 56860, table 23, offset 48h, bits 4:2; 2 to 6 are reserved.
SIGNING_KEYS: Mapping[int, SigningKey] = {
    0: SigningKey.VCEK,
    1: SigningKey.VLEK,
    7: SigningKey.NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUID:
    """CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP: combined family, model, stepping."""

    family: int
    model: int
    stepping: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mitigations:
    """LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR: one bit per mitigation in place."""

    launch: int
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every field as the firmware laid it out; TCBs raw, since the line says how."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    signing_key: SigningKey
    mask_chip_key: bool
    author_key_en: bool
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: CPUID | None
    chip_id: bytes
    committed_tcb: bytes
    current_version: tuple[int, int, int]
    committed_version: tuple[int, int, int]
    launch_tcb: bytes
    mitigations: Mitigations | None
    signature_r: int
    signature_s: int

    @property
    def product(self) -> ProductLine | None:
        """The line that the CPUID fields name; None before version 3 or if unknown."""
        if self.cpuid is None:
            return None
        return product_of_cpuid(self.cpuid.family, self.cpuid.model)

    @property
    def chip_id_masked(self) -> bool:
        """Whether the platform withholds the chip's identity (MaskChipId)."""
        return not any(self.chip_id)

    def tcbs(self, line: ProductLine) -> Mapping[str, Mapping[str, int]]:
        """Read all four TCB_VERSIONs by the layout of a product line.

        Raises:
            MalformedError: a byte that the line reserves is not zero.
        """
        return {
            "reported": parse_tcb(self.reported_tcb, line, "REPORTED_TCB"),
            "current": parse_tcb(self.current_tcb, line, "CURRENT_TCB"),
            "committed": parse_tcb(self.committed_tcb, line, "COMMITTED_TCB"),
            "launch": parse_tcb(self.launch_tcb, line, "LAUNCH_TCB"),
        }
