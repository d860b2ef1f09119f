"""Holds the measurements of a report against the manifests: which differ, and why.

NVIDIA nvtrust, local GPU verifier (`Verifier.verify`): every active index i of driver
and VBIOS manifest is compared with measurement block i + 1 and must be one of the
values given; no index may be active in both. Index 35 is measured only while NVDEC0 is
enabled. A difference is a finding about the device and no fault of the evidence: it
becomes claims, which a policy judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.evidence.nvgpu.abi import Report
from kbs.evidence.nvgpu.opaque import Field
from kbs.evidence.nvgpu.rim import Golden, Rim

_NVDEC0_INDEX = 35
_SHOWN = 12
"""Differences that are told with both values; of further ones only the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One measurement that has none of the values of a manifest."""

    role: str
    index: int
    got: bytes | None
    expected: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """The manifest and the index in it: `vbios.9`."""
        return f"{self.role}.{self.index}"

    def __str__(self) -> str:
        """Say what differs, in the first bytes of each value."""
        got = "no such block" if self.got is None else f"{self.got.hex()[:12]}…"
        first = f"{self.expected[0].hex()[:12]}…"
        more = f" or {len(self.expected) - 1} more" if len(self.expected) > 1 else ""
        return f"{self.name}: got {got}, expected {first}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing found; `conflicts` are indices active in two manifests."""

    compared: int
    differences: tuple[Difference, ...]
    conflicts: tuple[int, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether something was compared and nothing differs."""
        return self.compared > 0 and not self.differences and not self.conflicts

    def summary(self) -> str:
        """Say how many differ, and which."""
        if not self.differences:
            return f"{self.compared} of {self.compared} measurements match"
        told = "; ".join(map(str, self.differences[:_SHOWN]))
        rest = ", ".join(one.name for one in self.differences[_SHOWN:])
        return (
            f"{len(self.differences)} of {self.compared} measurements differ: {told}"
            f"{f'; also {rest}' if rest else ''}"
        )


def compare(report: Report, rims: Mapping[str, Rim]) -> Comparison:
    """Compare a report with the manifests for it, by role."""
    differences: list[Difference] = []
    seen: set[int] = set()
    conflicts: set[int] = set()
    compared = 0
    for role, rim in rims.items():
        for index, golden in sorted(rim.measurements.items()):
            if index in seen:
                conflicts.add(index)
            seen.add(index)
            found = _difference(report, role, index, golden)
            if found is not None and _is_exempt(report, index):
                continue
            compared += 1
            if found is not None:
                differences.append(found)
    return Comparison(
        compared=compared,
        differences=tuple(differences),
        conflicts=tuple(sorted(conflicts)),
    )


def _difference(
    report: Report, role: str, index: int, golden: Golden
) -> Difference | None:
    got = report.measurement(index + 1)
    if got in golden.values:
        return None
    return Difference(role=role, index=index, got=got, expected=golden.values)


def _is_exempt(report: Report, index: int) -> bool:
    return index == _NVDEC0_INDEX and report.opaque.status(Field.NVDEC0_STATUS) is False
