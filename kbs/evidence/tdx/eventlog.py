"""The event log of a TD: replayed to its RTMRs, with the first that differs named.

UEFI 2.10, section 38.4.1 (measurement registers of TDX) and ACPI 6.5, section 5.2.34
(CCEL): the log is a TCG crypto-agile one, its index 1 to 4 is RTMR 0 to 3, index 0 is
MRTD, which nothing extends. A log is untrusted until its replay equals the quote's
registers, and even then only digests are proven.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.checks import CheckLog
from kbs.core.claims import ClaimValue
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.reports import TdReport
from kbs.evidence.tdx.claims import SECURE_BOOT
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import EventLog, parse_event_log, replay
from kbs.evidence.vtpm.replay import blame, secure_boot

CHECK = "tdx.eventlog.replay"

_BANK = Algorithm.SHA384
_RTMRS = 4
# The firmware's log tells everything about these two; the others are the boot loader's
# and the guest's, and a log without an event of theirs says nothing of them.
_FIRMWARE_RTMRS = range(2)
_FIRST_INDEX = 1


def parse_td_log(data: bytes) -> EventLog:
    """Read a log from the memory area of a CCEL table, filler and all.

    Raises:
        MalformedError: not a crypto-agile log with SHA-384, or of other registers.
    """
    log = parse_event_log(data, confidential=True)
    if _BANK not in log.banks:
        raise MalformedError("TD event log", got="no SHA-384 digests", expected="some")
    for event in log.events:
        if event.extends and not _FIRST_INDEX <= event.pcr < _FIRST_INDEX + _RTMRS:
            raise MalformedError(
                f"TD event log event {event.index} register index",
                got=str(event.pcr),
                expected="1 to 4 (RTMR 0 to 3)",
            )
    return log


def check_event_log(
    log: EventLog | None, report: TdReport, checks: CheckLog
) -> Mapping[str, ClaimValue]:
    """Replay against the quote's RTMRs; return what the log then proves."""
    if log is None:
        checks.skipped(CHECK, "no event log is given")
        return {}
    registers = replay(log)
    told = []
    for number, quoted in enumerate(report.rtmrs):
        entry = (_BANK, number + _FIRST_INDEX)
        if entry not in registers and number not in _FIRMWARE_RTMRS:
            continue
        replayed = registers.get(entry, log.initial(*entry))
        if replayed != quoted:
            checks.failed(
                CHECK,
                f"RTMR {number} differs: {blame(log, entry, quoted)}",
                got=replayed.hex(),
                expected=quoted.hex(),
            )
            return {}
        told.append(str(number))
    checks.passed(CHECK, f"{len(log.events)} events lead to RTMR {', '.join(told)}")
    state = secure_boot(log, _BANK, _FIRST_INDEX)
    return {} if state is None else {SECURE_BOOT: state}
