"""Builds TCG crypto-agile event logs, event by event, and boots a fake TPM by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kbs.evidence.vtpm.algorithms import DIGEST_SIZES, parse_bank
from kbs.evidence.vtpm.events import EventType
from tests.fakes.tpm import FakeTpm, hash_bytes

GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


@dataclass
class FakeEventLog:
    """An event log being written; `measure` puts what the firmware would."""

    banks: tuple[str, ...] = ("sha256",)
    body: bytes = b""
    extends: list[tuple[int, dict[str, bytes]]] = field(default_factory=list)

    def measure(
        self, pcr: int, kind: int, data: bytes, *, hashed: bytes | None = None
    ) -> FakeEventLog:
        """Add an event whose digest is of its data, or of `hashed`."""
        digests = {
            bank: hash_bytes(bank, data if hashed is None else hashed)
            for bank in self.banks
        }
        if kind != EventType.EV_NO_ACTION:
            self.extends.append((pcr, digests))
        self.body += event2(pcr, kind, digests, data)
        return self

    def variable(self, name: str, value: bytes) -> FakeEventLog:
        """Add a UEFI variable that configures Secure Boot, in PCR 7."""
        return self.measure(
            7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, variable_data(name, value)
        )

    def separator(self, *pcrs: int, data: bytes = bytes(4)) -> FakeEventLog:
        """Add a separator to each of these PCRs."""
        for pcr in pcrs:
            self.measure(pcr, EventType.EV_SEPARATOR, data)
        return self

    def startup_locality(self, locality: bytes) -> FakeEventLog:
        """Add a StartupLocality event."""
        data = b"StartupLocality\0" + locality
        return self.measure(0, EventType.EV_NO_ACTION, data)

    def to_bytes(self) -> bytes:
        """Return the whole log with its header."""
        return header(self.banks) + self.body

    def boot(self, tpm: FakeTpm) -> None:
        """Extend a TPM as the log says."""
        for pcr, digests in self.extends:
            for value in digests.values():
                tpm.extend(pcr, value)


def typical_log(
    banks: tuple[str, ...] = ("sha256",), *, secure_boot: bytes = b"\x01"
) -> FakeEventLog:
    """Return the log of an ordinary boot: version, Secure Boot, separators, loader."""
    log = FakeEventLog(banks)
    log.measure(0, EventType.EV_S_CRTM_VERSION, b"v1\0")
    log.variable("SecureBoot", secure_boot)
    log.variable("PK", b"platform key")
    log.separator(0, 1, 2, 3, 4, 5, 6, 7)
    log.measure(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"shim", hashed=b"PE")
    return log


def variable_data(name: str, value: bytes, vendor: bytes = GLOBAL_VARIABLE) -> bytes:
    """Return UEFI_VARIABLE_DATA."""
    lengths = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return vendor + lengths + name.encode("utf-16-le") + value


def header(
    banks: Iterable[str], *, sizes: dict[str, int] | None = None, vendor: bytes = b""
) -> bytes:
    """Return the Spec ID Event03 header for these banks."""
    algorithms = [(bank, parse_bank(bank, "bank")) for bank in banks]
    data = b"Spec ID Event03\0" + bytes(4) + bytes([0, 2, 0, 2])
    data += len(algorithms).to_bytes(4, "little")
    for bank, algorithm in algorithms:
        size = (sizes or {}).get(bank, DIGEST_SIZES[algorithm])
        data += algorithm.to_bytes(2, "little") + size.to_bytes(2, "little")
    data += bytes([len(vendor)]) + vendor
    return event1(0, EventType.EV_NO_ACTION, bytes(20), data)


def event1(pcr: int, kind: int, sha1: bytes, data: bytes) -> bytes:
    """Return a TCG_PCR_EVENT."""
    head = pcr.to_bytes(4, "little") + kind.to_bytes(4, "little")
    return head + sha1 + len(data).to_bytes(4, "little") + data


def event2(pcr: int, kind: int, digests: dict[str, bytes], data: bytes) -> bytes:
    """Return a TCG_PCR_EVENT2."""
    head = pcr.to_bytes(4, "little") + kind.to_bytes(4, "little")
    head += len(digests).to_bytes(4, "little")
    for bank, value in digests.items():
        head += parse_bank(bank, "bank").to_bytes(2, "little") + value
    return head + len(data).to_bytes(4, "little") + data
