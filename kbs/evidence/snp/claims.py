"""What a verified SNP report proves, claim by claim, and what must not stay open."""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety
from kbs.evidence.snp.certificates import EndorsementKey
from kbs.evidence.snp.products import TCB_COMPONENTS, ProductLine
from kbs.evidence.snp.report import PLATFORM_BITS, POLICY_BITS, Report, SigningKey

_SOURCE = "ATTESTATION_REPORT"

_DEBUG = Safety(
    reason="the host may read and change the memory of a guest that allows debugging",
    default=(False,),
)
_MIGRATION = Safety(
    reason="a migration agent can move the guest to where its policy says nothing",
    default=(False,),
)
_VMPL = Safety(
    reason="a higher VMPL is less privileged: other software rules over this one",
    default=(0,),
)
_SIGNING_KEY = Safety(
    reason="a VLEK is the cloud provider's: the chip itself is not identified",
    default=(SigningKey.VCEK.value,),
    acceptable=(SigningKey.VLEK.value,),
)

_POLICY_TEXT = {
    "smt_allowed": "The guest may run with simultaneous multi-threading",
    "migrate_ma_allowed": "The guest may be associated with a migration agent",
    "debug_allowed": "The host may debug the guest",
    "single_socket": "The guest may be activated on one socket only",
    "cxl_allowed": "CXL devices or memory may be populated",
    "mem_aes_256_xts": "AES-256-XTS is required for memory encryption",
    "rapl_disabled": "Power readings (RAPL) must be disabled",
    "ciphertext_hiding_dram": "Ciphertext hiding for DRAM must be enabled",
    "page_swap_disabled": "Page move and swap commands are disabled for the guest",
}
_PLATFORM_TEXT = {
    "smt_enabled": "Simultaneous multi-threading is enabled",
    "tsme_enabled": "Transparent memory encryption is enabled",
    "ecc_enabled": "Memory has error correction",
    "rapl_disabled": "Power readings (RAPL) are disabled",
    "ciphertext_hiding_dram": "Ciphertext hiding for DRAM is enabled",
    "alias_check_complete": "No aliased memory addresses were found since reset",
    "iommu_write_safe": "The IOMMU cannot be made to write to guest memory",
    "tio_enabled": "SEV-TIO (trusted devices) is enabled",
}
_POLICY_SAFETY = {"debug_allowed": _DEBUG, "migrate_ma_allowed": _MIGRATION}
_TCB_TEXT = {
    "reported": "The TCB that the signing key is derived for",
    "current": "The TCB that runs now",
    "committed": "The TCB below which the platform can not be rolled back",
    "launch": "The TCB when the guest was launched or migrated in",
}


def _bytes(field: str, size: int, description: str) -> ClaimSpec:
    return ClaimSpec(
        name=f"snp.{field}",
        type=ClaimType.BYTES,
        size=size,
        description=description,
        source=f"{_SOURCE}.{field.upper()}",
    )


def _scalar(
    field: str,
    kind: ClaimType,
    description: str,
    *,
    source: str | None = None,
    safety: Safety | None = None,
) -> ClaimSpec:
    return ClaimSpec(
        name=f"snp.{field}",
        type=kind,
        description=description,
        source=source or f"{_SOURCE}.{field.upper()}",
        safety=safety,
    )


_IDENTITY: tuple[ClaimSpec, ...] = (
    _scalar("version", ClaimType.INT, "Version of the report's layout"),
    _scalar("guest_svn", ClaimType.INT, "Security version that the ID block gave"),
    ClaimSpec(
        name="snp.measurement",
        type=ClaimType.BYTES,
        size=48,
        boot=True,
        description="Digest of the guest's memory and state at launch",
        source=f"{_SOURCE}.MEASUREMENT",
    ),
    ClaimSpec(
        name="snp.host_data",
        type=ClaimType.BYTES,
        size=32,
        register="sha256",
        register_style="set",
        description="What the host gave at launch; worth as much as the measurement",
        source=f"{_SOURCE}.HOST_DATA",
    ),
    _bytes("report_data", 64, "What the guest asked to have signed: the binding"),
    _bytes("chip_id", 64, "Identity of the chip; all zero when the host masks it"),
    _scalar(
        "chip_id_masked",
        ClaimType.BOOL,
        "The host withholds the chip's identity",
        source=f"{_SOURCE}.CHIP_ID",
    ),
    _bytes("family_id", 16, "Family id that the ID block gave"),
    _bytes("image_id", 16, "Image id that the ID block gave"),
    _bytes("id_key_digest", 48, "SHA-384 of the key that signed the ID block"),
    _bytes("author_key_digest", 48, "SHA-384 of the key that signed the ID key"),
    _bytes("report_id", 32, "Identity of this guest instance"),
    _bytes("report_id_ma", 32, "Identity of the migration agent; all ones without one"),
    _scalar("vmpl", ClaimType.INT, "Privilege level that asked for it", safety=_VMPL),
    _scalar(
        "signing_key",
        ClaimType.TEXT,
        "VCEK (of the chip) or VLEK (of the cloud provider)",
        safety=_SIGNING_KEY,
    ),
    _scalar(
        "csp_id",
        ClaimType.TEXT,
        "The cloud provider that the VLEK belongs to",
        source="VLEK certificate, CSP id",
    ),
    _scalar("author_key_en", ClaimType.BOOL, "The author key digest is filled in"),
    _scalar("mask_chip_key", ClaimType.BOOL, "The platform does not use its VCEK"),
    _scalar(
        "product",
        ClaimType.TEXT,
        "Product line: Milan, Genoa, Turin",
        source="root certificate",
    ),
    _scalar("cpuid_fam_id", ClaimType.INT, "CPU family, from version 3 on"),
    _scalar("cpuid_mod_id", ClaimType.INT, "CPU model, from version 3 on"),
    _scalar("cpuid_step", ClaimType.INT, "CPU stepping, from version 3 on"),
    _scalar(
        "current_build",
        ClaimType.VERSION,
        "Firmware that runs, major.minor.build",
        source=f"{_SOURCE}.CURRENT_MAJOR, _MINOR, _BUILD",
    ),
    _scalar(
        "committed_build",
        ClaimType.VERSION,
        "Firmware below which there is no rollback, major.minor.build",
        source=f"{_SOURCE}.COMMITTED_MAJOR, _MINOR, _BUILD",
    ),
    _scalar("launch_mit_vector", ClaimType.U64, "Mitigations at launch, version 5 on"),
    _scalar("current_mit_vector", ClaimType.U64, "Mitigations now, version 5 on"),
)

_POLICY: tuple[ClaimSpec, ...] = (
    _scalar("policy.raw", ClaimType.U64, "All of it", source=f"{_SOURCE}.POLICY"),
    _scalar(
        "policy.abi_minor",
        ClaimType.INT,
        "Least minor version of the firmware ABI",
        source=f"{_SOURCE}.POLICY bits 7:0",
    ),
    _scalar(
        "policy.abi_major",
        ClaimType.INT,
        "Least major version of the firmware ABI",
        source=f"{_SOURCE}.POLICY bits 15:8",
    ),
    *(
        _scalar(
            f"policy.{name}",
            ClaimType.BOOL,
            _POLICY_TEXT[name],
            source=f"{_SOURCE}.POLICY bit {bit}",
            safety=_POLICY_SAFETY.get(name),
        )
        for name, bit in POLICY_BITS.items()
    ),
)

_PLATFORM: tuple[ClaimSpec, ...] = (
    _scalar("platform_info", ClaimType.U64, "All flags of the platform"),
    *(
        _scalar(
            f"platform.{name}",
            ClaimType.BOOL,
            _PLATFORM_TEXT[name],
            source=f"{_SOURCE}.PLATFORM_INFO bit {bit}",
        )
        for name, bit in PLATFORM_BITS.items()
    ),
)

_TCBS: tuple[ClaimSpec, ...] = tuple(
    ClaimSpec(
        name=f"snp.{which}_tcb",
        type=ClaimType.TCB,
        components=TCB_COMPONENTS,
        description=description,
        source=f"{_SOURCE}.{which.upper()}_TCB",
    )
    for which, description in _TCB_TEXT.items()
)

SNP_CLAIMS: tuple[ClaimSpec, ...] = (*_IDENTITY, *_POLICY, *_TCBS, *_PLATFORM)
"""Every claim of the family, in the order of the documentation."""

_POLICY_FLAGS = {f"snp.policy.{name}": bit for name, bit in POLICY_BITS.items()}
_PLATFORM_FLAGS = {f"snp.platform.{name}": bit for name, bit in PLATFORM_BITS.items()}


def claims_of(
    report: Report, key: EndorsementKey, line: ProductLine
) -> dict[str, ClaimValue]:
    """Return the claims of a report whose every check passed.

    Raises:
        MalformedError: a TCB does not fit the product line.
    """
    values: dict[str, ClaimValue] = {
        **report_claims(report),
        "snp.product": line.value,
    }
    if key.csp_id is not None:
        values["snp.csp_id"] = key.csp_id
    for which, tcb in report.tcbs(line).items():
        values[f"snp.{which}_tcb"] = dict(tcb)
    return values


def report_claims(report: Report) -> dict[str, ClaimValue]:
    """Return what the report alone says, TCBs and product apart."""
    return {
        "snp.version": report.version,
        "snp.guest_svn": report.guest_svn,
        "snp.measurement": report.measurement.hex(),
        "snp.host_data": report.host_data.hex(),
        "snp.report_data": report.report_data.hex(),
        "snp.chip_id": report.chip_id.hex(),
        "snp.chip_id_masked": report.chip_id_masked,
        "snp.family_id": report.family_id.hex(),
        "snp.image_id": report.image_id.hex(),
        "snp.id_key_digest": report.id_key_digest.hex(),
        "snp.author_key_digest": report.author_key_digest.hex(),
        "snp.report_id": report.report_id.hex(),
        "snp.report_id_ma": report.report_id_ma.hex(),
        "snp.vmpl": report.vmpl,
        "snp.signing_key": report.signing_key.value,
        "snp.author_key_en": report.author_key_en,
        "snp.mask_chip_key": report.mask_chip_key,
        "snp.current_build": _dotted(report.current_version),
        "snp.committed_build": _dotted(report.committed_version),
        **_policy_claims(report.policy),
        **_platform_claims(report.platform_info),
        **_versioned_claims(report),
    }


def _policy_claims(policy: int) -> dict[str, ClaimValue]:
    return {
        "snp.policy.raw": f"{policy:016x}",
        "snp.policy.abi_minor": policy & 0xFF,
        "snp.policy.abi_major": policy >> 8 & 0xFF,
        **{name: bool(policy >> bit & 1) for name, bit in _POLICY_FLAGS.items()},
    }


def _platform_claims(platform_info: int) -> dict[str, ClaimValue]:
    return {
        "snp.platform_info": f"{platform_info:016x}",
        **{
            name: bool(platform_info >> bit & 1)
            for name, bit in _PLATFORM_FLAGS.items()
        },
    }


def _versioned_claims(report: Report) -> dict[str, ClaimValue]:
    values: dict[str, ClaimValue] = {}
    if report.cpuid is not None:
        values["snp.cpuid_fam_id"] = report.cpuid.family
        values["snp.cpuid_mod_id"] = report.cpuid.model
        values["snp.cpuid_step"] = report.cpuid.stepping
    if report.mitigations is not None:
        values["snp.launch_mit_vector"] = f"{report.mitigations.launch:016x}"
        values["snp.current_mit_vector"] = f"{report.mitigations.current:016x}"
    return values


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in version)
