"""TDATTRIBUTES: what the host chose for a trust domain, as flags.

Intel TDX Module ABI Specification, rev. 1.5, table 3.9 (ATTRIBUTES): bits 7:0 are the
group TUD; where any of them is set the TD is under debug and not to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping

FLAGS: Mapping[str, int] = {
    "sept_ve_disable": 28,
    "migratable": 29,
    "pks": 30,
    "kl": 31,
    "perfmon": 63,
}
"""Single bits that are claims."""

_TUD = 0xFF


def is_under_debug(attributes: bytes) -> bool:
    """Whether any bit of the group TUD is set; bit 0 is DEBUG."""
    return bool(_number(attributes) & _TUD)


def flags_of(attributes: bytes) -> dict[str, bool]:
    """Return the single flags by name."""
    number = _number(attributes)
    return {name: bool(number >> bit & 1) for name, bit in FLAGS.items()}


def _number(attributes: bytes) -> int:
    return int.from_bytes(attributes, "little")
