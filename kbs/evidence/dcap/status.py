"""The words for how good a TCB is, and how several of them add up.

Intel PCS API version 4, `tcbStatus`. The parts of a platform are judged apart
(processor, TDX module, quoting enclave) and joined: what any part needs, the whole
needs. Being out of date takes in that software should be hardened.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from kbs.core.errors import MalformedError


class TcbStatus(StrEnum):
    """How good a TCB is, in Intel's words; `NotSupported` is below every level.

    The two of a relaunch stand in no document: `tcb` finds them.
    """

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    NOT_SUPPORTED = "NotSupported"

    @property
    def needs_configuration(self) -> bool:
        """Whether the platform has to be configured otherwise (BIOS, kernel)."""
        return bool(_NEEDS.get(self, 0) & _CONFIGURATION)

    @property
    def is_in_order(self) -> bool:
        """Whether nothing of it has to be updated or given up."""
        return not _NEEDS.get(self, _REVOKED) & (_UPDATE | _REVOKED)

    @staticmethod
    def of_document(text: str, what: str) -> TcbStatus:
        """Return the status that a document of Intel's names.

        Raises:
            MalformedError: it is none of Intel's words that are known here.
        """
        for status in _NEEDS:
            if status.value == text:
                return status
        raise MalformedError(
            what, got=repr(text), expected=", ".join(status.value for status in _NEEDS)
        )


_CONFIGURATION, _HARDENING, _UPDATE, _REVOKED = 1, 2, 4, 8

_NEEDS: Mapping[TcbStatus, int] = {
    TcbStatus.UP_TO_DATE: 0,
    TcbStatus.SW_HARDENING_NEEDED: _HARDENING,
    TcbStatus.CONFIGURATION_NEEDED: _CONFIGURATION,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: _CONFIGURATION | _HARDENING,
    TcbStatus.OUT_OF_DATE: _UPDATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: _UPDATE | _CONFIGURATION,
    TcbStatus.REVOKED: _REVOKED,
}
_STATUSES = {needs: status for status, needs in _NEEDS.items()}


def joined(*statuses: TcbStatus) -> TcbStatus:
    """Return the status of a whole whose parts have these."""
    if TcbStatus.REVOKED in statuses:
        return TcbStatus.REVOKED
    if TcbStatus.NOT_SUPPORTED in statuses:
        return TcbStatus.NOT_SUPPORTED
    needs = 0
    for status in statuses:
        needs |= _NEEDS[status]
    if needs & _UPDATE:
        needs &= ~_HARDENING
    return _STATUSES[needs]
