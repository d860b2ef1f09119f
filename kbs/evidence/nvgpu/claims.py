"""What a verified report of a GPU or an NVSwitch proves, claim by claim.

NVIDIA's own verifiers derive secure boot and the debug state from the comparison: a
device whose every measurement is one that NVIDIA published has booted securely and is
not open for debugging (attestation-sdk, `generate_set_measurement_claims`). Where a
measurement differs, neither is known, and the claims are absent.
"""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety, claim_spec
from kbs.evidence.nvgpu.abi import DIGEST_BYTES, NONCE_BYTES
from kbs.evidence.nvgpu.device import (
    architecture_of,
    chip_of,
    device_certificate,
    hardware_model,
)
from kbs.evidence.nvgpu.item import KIND, SWITCH_FAMILY, DeviceItem
from kbs.evidence.nvgpu.measurements import Comparison
from kbs.evidence.nvgpu.names import chip_named
from kbs.evidence.nvgpu.opaque import Field, OpaqueData
from kbs.pki.certificates import spki_sha256
from kbs.pki.chain import Chain

_SPKI_BYTES = 32

_CC_MODE = Safety(
    reason="a GPU outside confidential mode computes where others can look; in mode "
    "ppcie what travels over NVLink is not encrypted",
    default=("on",),
)
_DEBUG = Safety(
    reason="developer tools can read what a GPU computes; where measurements differ "
    "from NVIDIA's, nobody knows that they are off",
    default=(False,),
)

_REPORT = "SPDM report"
_OPAQUE = "SPDM report, opaque data"
_CHAIN = "device certificate chain"
_RIM = "comparison with NVIDIA's RIMs"


def _common(family: str) -> tuple[ClaimSpec, ...]:
    """Return the claims that GPUs and switches have alike."""
    return (
        claim_spec(
            family,
            "nonce",
            ClaimType.BYTES,
            "Nonce of the signed request: the binding",
            f"{_REPORT}, request",
            size=NONCE_BYTES,
        ),
        claim_spec(
            family,
            "hwmodel",
            ClaimType.TEXT,
            "Name of the device certificate: chip, stepping, root of trust",
            _CHAIN,
        ),
        claim_spec(family, "arch", ClaimType.TEXT, "HOPPER, BLACKWELL or LS10", _CHAIN),
        claim_spec(
            family,
            "chip",
            ClaimType.TEXT,
            "The chip (GH100, GB100, LS10)",
            f"{_OPAQUE} (CHIP_INFO), else {_CHAIN}",
        ),
        claim_spec(
            family,
            "device_id",
            ClaimType.BYTES,
            "SHA-256 of the public key of the device certificate",
            _CHAIN,
            size=_SPKI_BYTES,
        ),
        claim_spec(
            family,
            "vbios_version",
            ClaimType.TEXT,
            "Version of the VBIOS, of a switch its BIOS: hex digits, dotted",
            f"{_OPAQUE} (VBIOS_VERSION)",
        ),
        claim_spec(
            family,
            "fwid",
            ClaimType.BYTES,
            "Digest of the firmware that the signing key was made for; absent in old "
            "reports",
            f"{_OPAQUE} (FWID)",
            size=DIGEST_BYTES,
        ),
        claim_spec(
            family,
            "measurements_match",
            ClaimType.BOOL,
            "Every measurement has a value that NVIDIA published for these versions",
            _RIM,
        ),
        claim_spec(
            family,
            "mismatches",
            ClaimType.TEXTS,
            "Measurements with another value: manifest and index in it (`vbios.9`)",
            _RIM,
        ),
        claim_spec(
            family,
            "secure_boot",
            ClaimType.BOOL,
            "True when every measurement matches, else absent",
            _RIM,
        ),
        claim_spec(
            family,
            "debug",
            ClaimType.BOOL,
            "False when every measurement matches, else absent: nobody knows then",
            _RIM,
            safety=_DEBUG,
        ),
        claim_spec(
            family,
            "certificate_status",
            ClaimType.TEXT,
            "`good` when every certificate of the device and of its manifests' signers "
            "was looked up, else `unchecked`",
            "revocation lists and OCSP answers",
        ),
    )


GPU_CLAIMS: tuple[ClaimSpec, ...] = (
    *_common(KIND),
    claim_spec(
        KIND,
        "driver_version",
        ClaimType.VERSION,
        "Version of the driver that drives the GPU",
        f"{_OPAQUE} (DRIVER_VERSION)",
    ),
    claim_spec(
        KIND,
        "cc_mode",
        ClaimType.TEXT,
        "Confidential mode: `on`; `ppcie` (Protected PCIe, NVLink in the clear); "
        "absent where measurements differ",
        f"{_OPAQUE} (FEATURE_FLAG, PROTECTED_PCIE_STATUS) and {_RIM}",
        safety=_CC_MODE,
    ),
    claim_spec(
        KIND,
        "feature",
        ClaimType.TEXT,
        "`spt` (single GPU), `mpt` (several, NVLink encrypted), `ppcie`; absent in old "
        "reports",
        f"{_OPAQUE} (FEATURE_FLAG)",
    ),
    claim_spec(
        KIND,
        "switch_pdis",
        ClaimType.TEXTS,
        "Identities of the NVSwitches that the GPU is connected to",
        f"{_OPAQUE} (SWITCH_PDI)",
    ),
    *(
        claim_spec(
            KIND,
            field.name.lower(),
            ClaimType.TEXT,
            description,
            f"{_OPAQUE} ({field.name})",
        )
        for field, description in (
            (Field.PROJECT, "Board project"),
            (Field.PROJECT_SKU, "Variant of the board"),
            (Field.CHIP_SKU, "Variant of the chip"),
        )
    ),
)

SWITCH_CLAIMS: tuple[ClaimSpec, ...] = (
    *_common(SWITCH_FAMILY),
    claim_spec(
        SWITCH_FAMILY,
        "switch_pdi",
        ClaimType.TEXT,
        "Identity of the switch, as GPUs that it connects report it",
        f"{_OPAQUE} (SWITCH_PDI)",
    ),
)

VOCABULARY = (*GPU_CLAIMS, *SWITCH_CLAIMS)


def family_of(chain: Chain) -> str:
    """Return the family of claims that a device's chain says it has."""
    architecture = architecture_of(chip_of(chain))
    return SWITCH_FAMILY if architecture and architecture.is_switch else KIND


def claims_of(
    item: DeviceItem, chain: Chain, found: Comparison, *, status: str
) -> dict[str, ClaimValue]:
    """Return the claims of a report; the caller has verified all of it."""
    report, chip = item.report, chip_of(chain)
    family = family_of(chain)
    architecture = architecture_of(chip)
    values: dict[str, ClaimValue | None] = {
        "nonce": report.nonce.hex(),
        "hwmodel": hardware_model(chain),
        "arch": None if architecture is None else architecture.value,
        "chip": chip_named(report, chip),
        "device_id": spki_sha256(device_certificate(chain)),
        "vbios_version": report.opaque.vbios_version,
        "fwid": _hex(report.opaque.value(Field.FWID)),
        "measurements_match": found.matches,
        "mismatches": tuple(one.name for one in found.differences),
        "secure_boot": True if found.matches else None,
        "debug": False if found.matches else None,
        "certificate_status": status,
        **(
            _gpu_values(report.opaque, found)
            if family == KIND
            else {"switch_pdi": next(iter(report.opaque.pdis), None)}
        ),
    }
    return {
        f"{family}.{name}": value for name, value in values.items() if value is not None
    }


def _gpu_values(opaque: OpaqueData, found: Comparison) -> dict[str, ClaimValue | None]:
    # A GPU spells its peers' identities the other way round than they do themselves.
    peers = (bytes(reversed(bytes.fromhex(pdi))).hex() for pdi in opaque.pdis)
    return {
        "driver_version": opaque.text(Field.DRIVER_VERSION),
        "cc_mode": _cc_mode(opaque, matches=found.matches),
        "feature": opaque.feature,
        "switch_pdis": tuple(sorted(peers)) or None,
        "project": opaque.text(Field.PROJECT),
        "project_sku": opaque.text(Field.PROJECT_SKU),
        "chip_sku": opaque.text(Field.CHIP_SKU),
    }


def _cc_mode(opaque: OpaqueData, *, matches: bool) -> str | None:
    feature, ppcie = opaque.feature, opaque.status(Field.PROTECTED_PCIE_STATUS)
    if feature == "ppcie" or ppcie:
        return "ppcie"
    told = opaque.value(Field.PROTECTED_PCIE_STATUS) is not None
    if feature == "unknown" or (told and ppcie is None) or not matches:
        return None
    return "on"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
