"""Events of a TCG log and which of their digests can be recomputed.

TCG PC Client Platform Firmware Profile 1.06, section 10.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kbs.evidence.vtpm.algorithms import Algorithm, digest, hash_of

# Firmware Profile 1.06, section 10.4.2: the digest is of these data (or of 1 on error).
SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff")
ERROR_SEPARATOR = b"\x01\0\0\0"


class EventType(IntEnum):
    """Event types of the Firmware Profile, section 10.4.1."""

    EV_PREBOOT_CERT = 0x0
    EV_POST_CODE = 0x1
    EV_UNUSED = 0x2
    EV_NO_ACTION = 0x3
    EV_SEPARATOR = 0x4
    EV_ACTION = 0x5
    EV_EVENT_TAG = 0x6
    EV_S_CRTM_CONTENTS = 0x7
    EV_S_CRTM_VERSION = 0x8
    EV_CPU_MICROCODE = 0x9
    EV_PLATFORM_CONFIG_FLAGS = 0xA
    EV_TABLE_OF_DEVICES = 0xB
    EV_COMPACT_HASH = 0xC
    EV_IPL = 0xD
    EV_IPL_PARTITION_DATA = 0xE
    EV_NONHOST_CODE = 0xF
    EV_NONHOST_CONFIG = 0x10
    EV_NONHOST_INFO = 0x11
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12
    EV_POST_CODE2 = 0x13
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EV_EFI_GPT_EVENT = 0x80000006
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EV_EFI_HANDOFF_TABLES = 0x80000009
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_GPT_EVENT2 = 0x8000000D
    EV_EFI_HCRTM_EVENT = 0x80000010
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2


HASHED_DATA = frozenset(
    {
        EventType.EV_SEPARATOR,
        EventType.EV_ACTION,
        EventType.EV_S_CRTM_VERSION,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EV_EFI_GPT_EVENT,
        EventType.EV_EFI_ACTION,
        EventType.EV_EFI_VARIABLE_BOOT2,
    }
)
"""Types whose digest the Profile says is the hash of the event's data.

EV_EFI_VARIABLE_AUTHORITY is left out: recorded logs of real firmware hash something
else for it, so a difference would accuse the wrong event.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """TCG_PCR_EVENT or TCG_PCR_EVENT2; `index` counts from 0 after the header."""

    index: int
    pcr: int
    type: int
    digests: tuple[tuple[Algorithm, bytes], ...]
    data: bytes

    @property
    def type_name(self) -> str:
        """The type's name in the Profile, or its number in hex."""
        try:
            return EventType(self.type).name
        except ValueError:
            return f"{self.type:#010x}"

    @property
    def extends(self) -> bool:
        """Whether it was extended: EV_NO_ACTION events never are."""
        return self.type != EventType.EV_NO_ACTION

    def digest_of(self, bank: Algorithm) -> bytes | None:
        """Return the digest that was extended into one bank."""
        return dict(self.digests).get(bank)

    def is_recomputed(self, bank: Algorithm) -> bool | None:
        """Whether the digest is the hash of the data; None where it need not be."""
        algorithm = hash_of(bank)
        if algorithm is None or self.type not in HASHED_DATA:
            return None
        return self.digest_of(bank) == digest(algorithm, self.data)
