"""The opaque data of a report: what the device says of itself beside measurements.

A list of type (2 bytes), size (2) and value, little-endian. Types and meanings are
those of NVIDIA nvtrust, local GPU and NVSwitch verifiers, and attestation-sdk; types
that are not in the table are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader


class Field(IntEnum):
    """The types: OPAQUE_FIELD_ID_ and these names."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MSRSCNT = 12
    CPRINFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    FLOORSWEPT_PORTS = 23
    POSITION_ID = 24
    LOCK_SWITCH_STATUS = 25
    GPU_LINK_CONN = 32
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36
    INVALID = 255


DISABLED, ENABLED = 0x55, 0xAA
"""How a status byte says no and yes."""

# attestation-sdk, OpaqueDataFeatureFlag.
_FEATURES: Mapping[int, str] = {0: "spt", 1: "mpt", 2: "ppcie"}

_PDI_BYTES = 8
_VBIOS_BYTES = 8
_MAX_FLAG_BYTES = 8

_TEXTS = frozenset(
    {
        Field.DRIVER_VERSION,
        Field.CHIP_SKU,
        Field.PROJECT,
        Field.PROJECT_SKU,
        Field.CHIP_INFO,
    }
)


@dataclass(frozen=True, slots=True)
class OpaqueData:
    """The fields in their order; every type stands there once."""

    fields: tuple[tuple[int, bytes], ...]

    def value(self, field: Field) -> bytes | None:
        """Return the bytes of a field, if it is there."""
        return dict(self.fields).get(field)

    def text(self, field: Field) -> str | None:
        """Return a field that holds text, without the zeros after it, if it has any."""
        value = self.value(field)
        return _text(value) or None if value is not None else None

    @property
    def vbios_version(self) -> str | None:
        """The version of the VBIOS (of an NVSwitch: its BIOS), dotted, upper case."""
        value = self.value(Field.VBIOS_VERSION)
        if value is None:
            return None
        if len(value) != _VBIOS_BYTES:
            # An NVSwitch spells it out.
            return _text(value).upper() or None
        # A GPU has a 32-bit number and one more byte.
        return ".".join(f"{byte:02X}" for byte in (*reversed(value[:4]), value[4]))

    @property
    def feature(self) -> str | None:
        """FEATURE_FLAG: spt, mpt or ppcie; None where it is absent or another."""
        value = self.value(Field.FEATURE_FLAG)
        if value is None:
            return None
        return _FEATURES.get(int.from_bytes(value, "little"), "unknown")

    @property
    def pdis(self) -> tuple[str, ...]:
        """The identities of NVSwitches, each once: a switch's own, a GPU's peers'."""
        value = self.value(Field.SWITCH_PDI) or b""
        each = (
            value[start : start + _PDI_BYTES]
            for start in range(0, len(value), _PDI_BYTES)
        )
        return tuple(sorted({pdi.hex() for pdi in each if any(pdi)}))

    def status(self, field: Field) -> bool | None:
        """Return a status byte as a flag; None where it is absent or another."""
        found = {bytes((DISABLED,)): False, bytes((ENABLED,)): True}
        return found.get(self.value(field) or b"")


def parse_opaque(data: bytes) -> OpaqueData:
    """Read all fields.

    Raises:
        MalformedError: a size beyond the end, a type twice, or a value of a known
            field that has another form.
    """
    reader = Reader(data, "nvgpu report opaque data")
    fields: list[tuple[int, bytes]] = []
    while reader.remaining:
        kind = reader.little(2, "type")
        size = reader.little(2, "size")
        fields.append((kind, reader.take(size, f"field {kind}")))
    types = [kind for kind, _ in fields]
    if len(set(types)) != len(types):
        raise MalformedError(
            "nvgpu report opaque data", got="a type twice", expected="every type once"
        )
    for kind, value in fields:
        _check_form(kind, value)
    return OpaqueData(tuple(fields))


def serialize_opaque(opaque: OpaqueData) -> bytes:
    """Write the fields back."""
    return b"".join(
        kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
        for kind, value in opaque.fields
    )


def name_of(kind: int) -> str:
    """Return the name of a type, or `TYPE_<number>`."""
    try:
        return Field(kind).name
    except ValueError:
        return f"TYPE_{kind}"


def _check_form(kind: int, value: bytes) -> None:
    fits = True
    if kind in _TEXTS or (kind == Field.VBIOS_VERSION and len(value) != _VBIOS_BYTES):
        fits = _is_text(value)
    elif kind == Field.SWITCH_PDI:
        fits = len(value) % _PDI_BYTES == 0
    elif kind == Field.FEATURE_FLAG:
        fits = 0 < len(value) <= _MAX_FLAG_BYTES
    if not fits:
        raise MalformedError(
            f"nvgpu report {name_of(kind)}",
            got=value.hex()[:64],
            expected="a value of its form",
        )


def _is_text(value: bytes) -> bool:
    return all(0x20 < byte < 0x7F for byte in _bare(value))  # noqa: PLR2004


def _text(value: bytes) -> str:
    return _bare(value).decode("ascii")


def _bare(value: bytes) -> bytes:
    # NVIDIA's own verifier takes spaces off both ends, and the zeros that fill a field.
    return value.rstrip(b"\0").strip(b" ")
