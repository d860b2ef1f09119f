"""How good a platform's TCB is, by Intel's TCB info and QE identity.

Intel PCS API version 4, `Get TCB Info`, "TCB status": the best level that the
platform reaches in every component gives the status; for TDX also the level of its
TDX module and of the quoting enclave, and all are joined. A platform below every level
is `NotSupported`, and so is a TDX module that Intel does not list: a finding for the
policy, since the quote as such is genuine.

Where TEE_TCB_SVN2 of a TD report 1.5 shows that the TDX module was updated after the TD
started, Intel's library (SGX and TDX DCAP Quote Verification Library 1.20,
`checkForRelaunch`) says `TDRelaunchAdvised` instead of OutOfDate: the machine is in
order again, and the TD still goes by what was there at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kbs.evidence.dcap.levels import (
    Level,
    Module,
    PlatformLevel,
    QeIdentity,
    SvnLevel,
    TcbInfo,
)
from kbs.evidence.dcap.pck import Pck
from kbs.evidence.dcap.reports import EnclaveReport, Report, TdReport
from kbs.evidence.dcap.status import TcbStatus, joined

# TDX module 1.5: TEE_TCB_SVN[1] is the module's major version, [0] its SVN; from 1 on
# both are judged by the module's own identity and not by the platform's components.
_MODULE_SVN, _MODULE_VERSION = 0, 1
_FIRST_PLATFORM_COMPONENT = 2
# What may be updated under a running TD beside its module: TEE_TCB_SVN[2], microcode.
_LATE_MICROCODE = 2
_OUTDATED = (TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbFinding:
    """The joined status, the status of each part, and what Intel says of the levels.

    `date` is the earliest of the levels of all parts; None where a part is below all of
    its own.
    """

    status: TcbStatus
    platform: TcbStatus
    enclave: TcbStatus
    module: TcbStatus | None
    date: datetime | None
    advisories: tuple[str, ...]


def evaluate(
    report: Report, qe_report: EnclaveReport, pck: Pck, info: TcbInfo, qe: QeIdentity
) -> TcbFinding:
    """Return what Intel's documents say of a platform; both are of its kind."""
    td = report if isinstance(report, TdReport) else None
    platform = platform_level(pck, info, None if td is None else td.tee_tcb_svn)
    enclave = svn_level(qe.levels, qe_report.isv_svn)
    parts: list[Level | None] = [platform, enclave]
    module: TcbStatus | None = None
    if td is not None:
        module, level = _module(td, info)
        # The first TDX module is a part of the platform's own level.
        parts += [] if level is None and module is TcbStatus.UP_TO_DATE else [level]
    statuses = [_status(platform), _status(enclave)]
    statuses += [] if module is None else [module]
    status = joined(*statuses)
    if td is not None and status in _OUTDATED and module is TcbStatus.OUT_OF_DATE:
        hardware = _status(platform_level(pck, info, None))
        if hardware.is_in_order and _status(enclave).is_in_order:
            status = _updated_since(td, pck, info, status, hardware)
    return TcbFinding(
        status=status,
        platform=_status(platform),
        enclave=_status(enclave),
        module=module,
        date=_earliest(parts),
        advisories=tuple(
            sorted({name for part in parts if part for name in part.advisories})
        ),
    )


def platform_level(pck: Pck, info: TcbInfo, svns: bytes | None) -> PlatformLevel | None:
    """Return the first level that the platform reaches; None if it reaches none.

    `svns` are the 16 of TDX (TEE_TCB_SVN), None where the processor alone is judged.
    """
    for level in info.levels:
        if not _reaches(pck.component_svns, level.sgx) or pck.pce_svn < level.pce_svn:
            continue
        if svns is None:
            return level
        first = _FIRST_PLATFORM_COMPONENT if svns[_MODULE_VERSION] else 0
        if _reaches(svns[first:], level.tdx[first:]):
            return level
    return None


def svn_level(levels: Sequence[SvnLevel], isv_svn: int) -> SvnLevel | None:
    """Return the first level at or below an SVN; None if all are above."""
    return next((level for level in levels if level.isv_svn <= isv_svn), None)


def _module(td: TdReport, info: TcbInfo) -> tuple[TcbStatus, SvnLevel | None]:
    version = td.tee_tcb_svn[_MODULE_VERSION]
    if version == 0:
        known = info.module is not None and _is_module(td, info.module)
        return TcbStatus.UP_TO_DATE if known else TcbStatus.NOT_SUPPORTED, None
    module = info.modules.get(_module_id(td.tee_tcb_svn))
    if module is None or not _is_module(td, module):
        return TcbStatus.NOT_SUPPORTED, None
    level = svn_level(module.levels, td.tee_tcb_svn[_MODULE_SVN])
    return _status(level), level


def _earliest(parts: Sequence[Level | None]) -> datetime | None:
    # As Intel's library has it since 2026: the whole is as old as its oldest part.
    known = [part.date for part in parts if part is not None]
    return min(known) if len(known) == len(parts) else None


def _updated_since(
    td: TdReport, pck: Pck, info: TcbInfo, status: TcbStatus, hardware: TcbStatus
) -> TcbStatus:
    """Return what an outdated status is where only the TD is behind its platform.

    The caller found the hardware (processor and PCE, without TDX) and the quoting
    enclave to be in order, and the TDX module of the TD's start to be out of date.
    """
    now = td.tee_tcb_svn2
    if now is None:
        return status
    newest = info.levels[0]
    wanted, states = newest.tdx[_MODULE_SVN], [newest.status]
    if now[_MODULE_VERSION]:
        module = info.modules.get(_module_id(now))
        if module is None:
            return TcbStatus.NOT_SUPPORTED
        wanted = module.levels[0].isv_svn
        states.append(module.levels[0].status)
    microcode = newest.tdx[_LATE_MICROCODE]
    if now[_MODULE_SVN] < wanted or now[_LATE_MICROCODE] < microcode:
        return status
    # Where even the newest is not in order, a new start would help nobody; nor where
    # the platform as it is now reaches no level, which Intel's library does not ask.
    after = _status(platform_level(pck, info, now))
    if not all(state.is_in_order for state in (*states, after)):
        return status
    if any(state.needs_configuration for state in (status, hardware, after)):
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED


def _module_id(svns: bytes) -> str:
    return f"TDX_{svns[_MODULE_VERSION]:02X}"


def _is_module(td: TdReport, module: Module) -> bool:
    attributes = masked(td.seam_attributes, module.attributes_mask)
    return (td.mr_signer_seam, attributes) == (module.mr_signer, module.attributes)


def masked(value: bytes, mask: bytes) -> bytes:
    """Return the bits of a value that a mask asks for."""
    return bytes(left & right for left, right in zip(value, mask, strict=True))


def _reaches(have: Sequence[int], need: Sequence[int]) -> bool:
    return all(left >= right for left, right in zip(have, need, strict=True))


def _status(level: Level | None) -> TcbStatus:
    return TcbStatus.NOT_SUPPORTED if level is None else level.status
