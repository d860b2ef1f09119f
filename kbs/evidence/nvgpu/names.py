"""Which manifests a report has to be held against, by NVIDIA's names for them.

The names are those of NVIDIA's RIM service, made as NVIDIA attestation-sdk makes them
(`get_driver_rim_id`, `get_vbios_rim_id`), of what the signed report says. A Blackwell
driver has a manifest under Hopper's form of the name too, which is another one; so the
product in the manifest counts as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.evidence.nvgpu.abi import Report
from kbs.evidence.nvgpu.device import Architecture, architecture_of
from kbs.evidence.nvgpu.opaque import Field

RIM_SERVICE = "https://rim.attestation.nvidia.com/v1/rim/"

# attestation-sdk, switch verifier: an LS10 report does not say these.
_LS10_BOARD = "5612_0002_890"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRim:
    """One manifest that is needed: `role` is `driver` or `vbios`."""

    role: str
    rim_id: str
    products: frozenset[str]
    edition: str
    version: str


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A manifest is needed, and the report does not say enough to name it."""

    role: str
    lacking: str


def wanted_rims(report: Report, chip: str) -> tuple[WantedRim | Unnamed, ...]:
    """Return what a report of this chip has to be held against."""
    architecture = architecture_of(chip)
    if architecture is None:
        return (Unnamed("vbios", f"chip {chip[:20]} of an unknown generation"),)
    if architecture.is_switch:
        return (_switch_bios(report, chip),)
    return (_driver(report, chip, architecture), _vbios(report, chip))


def chip_named(report: Report, chip: str) -> str:
    """Return CHIP_INFO where the report has it, else the chip of its chain."""
    return report.opaque.text(Field.CHIP_INFO) or chip


def _driver(
    report: Report, chip: str, architecture: Architecture
) -> WantedRim | Unnamed:
    version = report.opaque.text(Field.DRIVER_VERSION)
    if version is None:
        return Unnamed("driver", "DRIVER_VERSION")
    if architecture is Architecture.HOPPER:
        rim_id = f"NV_GPU_DRIVER_{chip}_{version}"
    else:
        rim_id = f"NV_GPU_CC_DRIVER_{chip_named(report, chip)}_{version}"
    return WantedRim(
        role="driver",
        rim_id=rim_id,
        products=_products(report, chip),
        edition="GPU",
        version=version,
    )


def _vbios(report: Report, chip: str) -> WantedRim | Unnamed:
    board = {
        field: report.opaque.text(field)
        for field in (Field.PROJECT, Field.PROJECT_SKU, Field.CHIP_SKU)
    }
    version = report.opaque.vbios_version
    lacking = [field.name for field, text in board.items() if text is None]
    if version is None or lacking:
        return Unnamed("vbios", ", ".join(lacking) or "VBIOS_VERSION")
    parts = "_".join(text for text in board.values() if text is not None)
    return WantedRim(
        role="vbios",
        rim_id=f"NV_GPU_VBIOS_{parts}_{version.replace('.', '')}".upper(),
        products=_products(report, chip),
        edition="GPU",
        version=version,
    )


def _switch_bios(report: Report, chip: str) -> WantedRim | Unnamed:
    version = report.opaque.vbios_version
    if version is None:
        return Unnamed("vbios", "VBIOS_VERSION")
    return WantedRim(
        role="vbios",
        rim_id=f"NV_SWITCH_BIOS_{_LS10_BOARD}_{version.replace('.', '')}",
        products=frozenset({chip}),
        edition="SWITCH",
        version=version,
    )


def _products(report: Report, chip: str) -> frozenset[str]:
    return frozenset({chip, chip_named(report, chip)})
