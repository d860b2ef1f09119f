"""AMD product lines, and how each lays out a TCB_VERSION (AMD 56860, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from kbs.core.errors import MalformedError

TCB_BYTES = 8

TCB_COMPONENTS = ("bootloader", "tee", "snp", "microcode", "fmc")
"""Every component name; only Turin has an FMC."""


class ProductLine(StrEnum):
    """What AMD's key service calls a product; each has a root of its own."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


_BY_NAME: Mapping[str, ProductLine] = {line.value: line for line in ProductLine}

_RESERVED = None

# AMD 56860 rev. 1.58, tables 3 and 4: byte by byte, lowest first.
_LAYOUT_MILAN_GENOA = ("bootloader", "tee", *(4 * (_RESERVED,)), "snp", "microcode")
_LAYOUT_TURIN = ("fmc", "bootloader", "tee", "snp", *(3 * (_RESERVED,)), "microcode")

# CPUID Fn8000_0001_EAX, family to (first model, last model, line). AMD 55898 (Milan,
# 19h 00h-0Fh), 55901 (Genoa, 19h 10h-1Fh), 57228 (Bergamo and Siena, 19h A0h-AFh,
# the same line as Genoa), 57238 (Turin, 1Ah 00h-0Fh; Turin Dense from 10h).
_MODELS: Mapping[int, tuple[tuple[int, int, ProductLine], ...]] = {
    0x19: (
        (0x00, 0x0F, ProductLine.MILAN),
        (0x10, 0x1F, ProductLine.GENOA),
        (0xA0, 0xAF, ProductLine.GENOA),
    ),
    0x1A: ((0x00, 0x1F, ProductLine.TURIN),),
}


def product_of_cpuid(family: int, model: int) -> ProductLine | None:
    """Return the product line of a combined CPUID family and model, if it is known."""
    for first, last, line in _MODELS.get(family, ()):
        if first <= model <= last:
            return line
    return None


def product_of_name(name: str) -> ProductLine | None:
    """Return the line of a product name with or without stepping (`Milan-B0`)."""
    return _BY_NAME.get(name.partition("-")[0])


def parse_tcb(raw: bytes, line: ProductLine, what: str) -> Mapping[str, int]:
    """Read a TCB_VERSION as component name to security version number.

    Raises:
        MalformedError: a byte that this product line reserves is not zero.
    """
    layout = _LAYOUT_TURIN if line is ProductLine.TURIN else _LAYOUT_MILAN_GENOA
    components: dict[str, int] = {}
    for name, value in zip(layout, raw, strict=True):
        if name is not None:
            components[name] = value
        elif value:
            raise MalformedError(
                f"snp report {what} of a {line.value} part",
                got=raw.hex(),
                expected="zero in the reserved bytes",
            )
    return components
