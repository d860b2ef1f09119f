"""TCG event logs: parse, replay, and say where a log and a quote part ways.

TCG PC Client Platform Firmware Profile 1.06, section 10 (crypto-agile log, Spec ID
Event03, StartupLocality). A log is untrusted until its replay equals quoted PCRs,
and even then only digests are proven: an event's type, and its data unless the
digest is the hash of them, are what the host says. SHA-1-only logs (TCG 1.2) parse
and are not replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.abi import PCR_COUNT
from kbs.evidence.vtpm.algorithms import (
    DIGEST_SIZES,
    Algorithm,
    digest,
    hash_of,
    parse_hash,
)
from kbs.evidence.vtpm.events import Event, EventType

MAX_LOG = 1024 * 1024
MAX_EVENTS = 8192
MAX_ALGORITHMS = 8
MAX_EVENT = 256 * 1024
_SPEC_ID_MARK = b"Spec ID Event"
_SPEC_ID = b"Spec ID Event03\0"
_LOCALITY_MARK = b"StartupLocality\0"
# Firmware Profile 1.06, section 10.4.5.3: locality 0, 3, or 4 (H-CRTM).
_LOCALITIES = (0, 3, 4)
# EV_NO_ACTION events need not belong to a PCR.
_NO_PCR = 0xFFFFFFFF


class LogFormat(StrEnum):
    """Which of the two TCG formats a log has."""

    SHA1 = "sha1"
    CRYPTO_AGILE = "crypto-agile"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A parsed log, nothing in it proven; `used_bytes` is where its last event ends."""

    format: LogFormat
    header: bytes
    algorithms: tuple[Algorithm, ...]
    startup_locality: int
    events: tuple[Event, ...]
    used_bytes: int

    @property
    def banks(self) -> tuple[Algorithm, ...]:
        """Banks that can be replayed: none of a SHA-1 log."""
        if self.format is LogFormat.SHA1:
            return ()
        return tuple(bank for bank in self.algorithms if hash_of(bank) is not None)

    def events_of(self, pcr: int) -> tuple[Event, ...]:
        """Return what was extended into one PCR, in order."""
        return tuple(
            event for event in self.events if event.pcr == pcr and event.extends
        )

    def initial(self, bank: Algorithm, pcr: int) -> bytes:
        """Return a PCR's value before its first event (section 10.4.5.3 for PCR 0)."""
        size = DIGEST_SIZES[bank]
        if 17 <= pcr <= 22:  # noqa: PLR2004 - dynamic PCRs start at ones
            return b"\xff" * size
        last = self.startup_locality if pcr == 0 else 0
        return bytes(size - 1) + bytes([last])


def parse_event_log(data: bytes, *, confidential: bool = False) -> EventLog:
    """Read a whole log; nothing may follow its last event.

    `confidential` is a log of a confidential guest (ACPI table CCEL, UEFI 2.10, section
    38.4): the same format, with measurement register indices for PCRs from the header
    on, in a memory area whose rest is filled with one byte, 00h or FFh.

    Raises:
        MalformedError: not a TCG event log, or one beyond our caps.
    """
    if len(data) > MAX_LOG:
        raise MalformedError(
            "event log", got=f"{len(data)} bytes", expected=f"at most {MAX_LOG}"
        )
    reader = Reader(data, "event log")
    first = _event1(reader, 0)
    if not first.data.startswith(_SPEC_ID_MARK):
        return _sha1_log(reader, first, data)
    if first.data.startswith(_SPEC_ID):
        return _agile_log(reader, first, data, confidential=confidential)
    # Spec ID Event00 and Event02 introduce SHA-1 logs.
    return _sha1_log(reader, None, data)


def replay(log: EventLog) -> Mapping[tuple[Algorithm, int], bytes]:
    """Return the PCRs that the log leads to, for every PCR that it extends."""
    registers: dict[tuple[Algorithm, int], bytes] = {}
    for bank in log.banks:
        for event in log.events:
            if event.extends:
                entry = (bank, event.pcr)
                before = registers.get(entry, log.initial(*entry))
                registers[entry] = extend(bank, before, event)
    return registers


def extend(bank: Algorithm, value: bytes, event: Event) -> bytes:
    """Return a PCR of a computable bank after one event of its log."""
    algorithm, extended = hash_of(bank), event.digest_of(bank)
    if algorithm is None or extended is None:
        raise MalformedError(
            f"event {event.index}", got=f"no {bank.name} digest", expected="one"
        )
    return digest(algorithm, value, extended)


def _sha1_log(reader: Reader, first: Event | None, data: bytes) -> EventLog:
    events = [first] if first is not None else []
    start = 0 if first is not None else reader.offset
    while reader.remaining:
        _cap(len(events))
        events.append(_event1(reader, len(events)))
    return EventLog(
        format=LogFormat.SHA1,
        header=data[:start],
        algorithms=(Algorithm.SHA1,),
        startup_locality=0,
        events=tuple(events),
        used_bytes=reader.offset,
    )


def _agile_log(
    reader: Reader, first: Event, data: bytes, *, confidential: bool
) -> EventLog:
    if first.pcr not in ((0, 1) if confidential else (0,)) or first.extends:
        raise MalformedError(
            "event log header",
            got=f"{first.type_name} of PCR {first.pcr}",
            expected="EV_NO_ACTION of PCR 0",
        )
    algorithms = _spec_id_algorithms(first.data)
    start = reader.offset
    events: list[Event] = []
    while reader.remaining and not (confidential and _is_filler(data, reader.offset)):
        _cap(len(events))
        events.append(_event2(reader, len(events), algorithms))
    return EventLog(
        format=LogFormat.CRYPTO_AGILE,
        header=data[:start],
        algorithms=algorithms,
        startup_locality=_startup_locality(events),
        events=tuple(events),
        used_bytes=reader.offset,
    )


def _is_filler(data: bytes, offset: int) -> bool:
    # Looked at in full only where an event would begin with the same byte four times.
    first = data[offset : offset + 1]
    return (
        first in {b"\x00", b"\xff"}
        and data.startswith(first * min(4, len(data) - offset), offset)
        and not data[offset:].strip(first)
    )


def _cap(count: int) -> None:
    if count >= MAX_EVENTS:
        raise MalformedError(
            "event log", got="more events", expected=f"at most {MAX_EVENTS}"
        )


def _event1(reader: Reader, index: int) -> Event:
    pcr, kind = _event_head(reader, index)
    sha1 = reader.take(DIGEST_SIZES[Algorithm.SHA1], f"event {index} digest")
    return Event(
        index=index,
        pcr=pcr,
        type=kind,
        digests=((Algorithm.SHA1, sha1),),
        data=_event_data(reader, index),
    )


def _event2(reader: Reader, index: int, algorithms: tuple[Algorithm, ...]) -> Event:
    pcr, kind = _event_head(reader, index)
    count = reader.little(4, f"event {index} digest count")
    if count != len(algorithms):
        raise MalformedError(
            f"event log event {index}",
            got=f"{count} digests",
            expected=f"{len(algorithms)}, as its header says",
        )
    digests = []
    for _ in range(count):
        value = reader.little(2, f"event {index} digest algorithm")
        bank = parse_hash(value, f"event log event {index} digest algorithm")
        digests.append((bank, reader.take(DIGEST_SIZES[bank], f"event {index} digest")))
    if {bank for bank, _ in digests} != set(algorithms):
        raise MalformedError(
            f"event log event {index}",
            got="digests " + ", ".join(bank.name for bank, _ in digests),
            expected="one each of " + ", ".join(bank.name for bank in algorithms),
        )
    return Event(
        index=index,
        pcr=pcr,
        type=kind,
        digests=tuple(digests),
        data=_event_data(reader, index),
    )


def _event_head(reader: Reader, index: int) -> tuple[int, int]:
    pcr = reader.little(4, f"event {index} pcrIndex")
    kind = reader.little(4, f"event {index} eventType")
    nowhere = pcr == _NO_PCR and kind == EventType.EV_NO_ACTION
    if pcr >= PCR_COUNT and not nowhere:
        raise MalformedError(
            f"event log event {index} pcrIndex", got=str(pcr), expected="0 to 23"
        )
    return pcr, kind


def _event_data(reader: Reader, index: int) -> bytes:
    size = reader.little(4, f"event {index} eventSize")
    if size > MAX_EVENT:
        raise MalformedError(
            f"event log event {index} eventSize",
            got=str(size),
            expected=f"at most {MAX_EVENT}",
        )
    return reader.take(size, f"event {index} event")


def _spec_id_algorithms(data: bytes) -> tuple[Algorithm, ...]:
    # TCG_EfiSpecIDEvent, Firmware Profile 1.06, section 10.4.5.1.
    reader = Reader(data, "event log header")
    reader.take(len(_SPEC_ID), "signature")
    reader.take(8, "platformClass, versions and uintnSize")
    count = reader.little(4, "numberOfAlgorithms")
    if not 0 < count <= MAX_ALGORITHMS:
        raise MalformedError(
            "event log header numberOfAlgorithms",
            got=str(count),
            expected=f"1 to {MAX_ALGORITHMS}",
        )
    algorithms = tuple(_spec_id_algorithm(reader) for _ in range(count))
    if len(set(algorithms)) != count:
        raise MalformedError("event log header algorithms", got="one of them twice")
    reader.take(reader.little(1, "vendorInfoSize"), "vendorInfo")
    reader.end()
    return algorithms


def _spec_id_algorithm(reader: Reader) -> Algorithm:
    bank = parse_hash(reader.little(2, "algorithmId"), "event log header algorithmId")
    size = reader.little(2, "digestSize")
    if size != DIGEST_SIZES[bank]:
        raise MalformedError(
            f"event log header digestSize of {bank.name}",
            got=str(size),
            expected=str(DIGEST_SIZES[bank]),
        )
    return bank


def _startup_locality(events: list[Event]) -> int:
    # Only an event before the first extension of PCR 0 can tell how PCR 0 started.
    for event in events:
        if event.pcr == 0 and event.extends:
            return 0
        if event.extends or not event.data.startswith(_LOCALITY_MARK):
            continue
        locality = event.data[len(_LOCALITY_MARK) :]
        if len(locality) != 1 or locality[0] not in _LOCALITIES:
            raise MalformedError(
                f"event log event {event.index} StartupLocality",
                got=locality.hex()[:20],
                expected="00, 03 or 04",
            )
        return locality[0]
    return 0
