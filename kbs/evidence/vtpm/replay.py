"""Compares an event log with quoted PCRs and takes claims from what is proven.

Only digests are proven by a replay. An event's type is the host's word, so nothing is
concluded from it alone: separators are known by their digest, and a claim is read
from data only where the digest is the hash of these data and only firmware could have
extended it (PCRs 0–7, before the separator: Firmware Profile 1.06, section 3.3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.checks import CheckLog
from kbs.core.claims import ClaimValue
from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.algorithms import Algorithm, digest, hash_of
from kbs.evidence.vtpm.claims import CLAIM_BANKS
from kbs.evidence.vtpm.eventlog import (
    EventLog,
    LogFormat,
    extend,
    replay,
)
from kbs.evidence.vtpm.events import (
    ERROR_SEPARATOR,
    SEPARATORS,
    Event,
    EventType,
)
from kbs.evidence.vtpm.pcrs import PcrValues, pcr_label

BOOT_PCRS = range(8)
SECURE_BOOT_PCR = 7
# UEFI 2.10, section 3.3: EFI_GLOBAL_VARIABLE, in its mixed-endian binary form.
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURE_BOOT = "SecureBoot"
_MAX_VARIABLE_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first PCR at which log and quote differ."""

    entry: tuple[Algorithm, int]
    replayed: bytes
    quoted: bytes
    detail: str


def check_event_log(
    log: EventLog | None, quoted: PcrValues, checks: CheckLog
) -> Mapping[str, ClaimValue]:
    """Replay against the quoted PCRs; return what the log then proves."""
    check = "vtpm.eventlog.replay"
    if log is None:
        checks.skipped(check, "no event log is given")
        return {}
    if log.format is LogFormat.SHA1:
        checks.skipped(check, "the log is SHA-1 only: parsed, not replayed")
        return {}
    covered = _covered(log, quoted)
    if not covered:
        checks.skipped(check, "the log covers none of the quoted PCRs")
        return {}
    difference = find_difference(log, covered)
    if difference is not None:
        checks.failed(
            check,
            difference.detail,
            got=difference.replayed.hex(),
            expected=difference.quoted.hex(),
        )
        return {}
    labels = ", ".join(pcr_label(entry) for entry in covered)
    checks.passed(check, f"{len(log.events)} events lead to {labels}")
    return proven_claims(log, covered)


def find_difference(log: EventLog, quoted: PcrValues) -> Difference | None:
    """Return the first quoted PCR that the log does not lead to, and why if known."""
    registers = replay(log)
    for entry, value in sorted(quoted.items()):
        replayed = registers.get(entry, log.initial(*entry))
        if replayed != value:
            return Difference(
                entry=entry,
                replayed=replayed,
                quoted=value,
                detail=f"{pcr_label(entry)} differs: {blame(log, entry, value)}",
            )
    return None


def proven_claims(log: EventLog, quoted: PcrValues) -> dict[str, ClaimValue]:
    """Return the claims of a log that replays to these PCRs."""
    for bank in CLAIM_BANKS:
        if (bank, SECURE_BOOT_PCR) in quoted:
            state = secure_boot(log, bank, SECURE_BOOT_PCR)
            if state is not None:
                return {"vtpm.eventlog.secure_boot": state}
    return {}


def separator_index(log: EventLog, bank: Algorithm, pcr: int) -> int | None:
    """Return the index of a boot PCR's separator, known by its digest; None if none."""
    algorithm = hash_of(bank)
    if algorithm is None or pcr not in BOOT_PCRS:
        return None
    marks = {digest(algorithm, data) for data in (*SEPARATORS, ERROR_SEPARATOR)}
    for event in log.events_of(pcr):
        if event.digest_of(bank) in marks:
            return event.index
    return None


def _covered(log: EventLog, quoted: PcrValues) -> dict[tuple[Algorithm, int], bytes]:
    # A firmware log must tell everything about the boot PCRs. The others are the
    # operating system's, and a log without an event of theirs says nothing of them.
    banks = set(log.banks)
    return {
        (bank, pcr): value
        for (bank, pcr), value in quoted.items()
        if bank in banks and (pcr in BOOT_PCRS or log.events_of(pcr))
    }


def blame(log: EventLog, entry: tuple[Algorithm, int], quoted: bytes) -> str:
    """Return which event makes a register another one than was quoted, if it shows."""
    bank, pcr = entry
    events = log.events_of(pcr)
    value = log.initial(bank, pcr)
    if value == quoted and events:
        return f"nothing was extended, but the log begins with event {_name(events[0])}"
    for event in events:
        value = extend(bank, value, event)
        if value == quoted:
            return f"the quote ends at event {_name(event)}; later events are not in it"
    for event in events:
        if event.is_recomputed(bank) is False:
            return f"the digest of event {_name(event)} is not the hash of its data"
    return f"no event of the log can be told to be the wrong one ({len(events)} events)"


def _name(event: Event) -> str:
    return f"{event.index} ({event.type_name})"


def secure_boot(log: EventLog, bank: Algorithm, pcr: int) -> bool | None:
    """Return what firmware measured into a boot PCR as SecureBoot, if that is proven.

    The log has to replay to the register, or nothing is.
    """
    end = separator_index(log, bank, pcr)
    algorithm = hash_of(bank)
    if end is None or algorithm is None:
        return None
    closing = log.events[end].digest_of(bank)
    if closing == digest(algorithm, ERROR_SEPARATOR):
        return None  # the firmware gave up measuring
    for event in log.events[:end]:
        if event.pcr == pcr and _is_proven_variable(event, bank):
            name, value = _global_variable(event) or ("", b"")
            if name == _SECURE_BOOT:
                return {b"\x00": False, b"\x01": True}.get(value)
    return None


def _is_proven_variable(event: Event, bank: Algorithm) -> bool:
    kind = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
    return event.type == kind and event.is_recomputed(bank) is True


def _global_variable(event: Event) -> tuple[str, bytes] | None:
    # UEFI_VARIABLE_DATA, Firmware Profile 1.06, section 10.2.6.
    reader = Reader(event.data, f"event {event.index}")
    try:
        vendor = reader.take(16, "VariableName")
        characters = reader.little(8, "UnicodeNameLength")
        size = reader.little(8, "VariableDataLength")
        name = reader.take(min(characters, _MAX_VARIABLE_NAME) * 2, "UnicodeName")
        value = reader.take(size, "VariableData")
        reader.end()
    except MalformedError:
        return None
    if vendor != _GLOBAL_VARIABLE:
        return None
    return name.decode("utf-16-le", "replace"), value
