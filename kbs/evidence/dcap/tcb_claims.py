"""The claims about platform and TCB that quotes of TDX and SGX share."""

from __future__ import annotations

from functools import partial

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety, claim_spec
from kbs.core.clock import format_time
from kbs.evidence.dcap.levels import TcbInfo
from kbs.evidence.dcap.pck import Pck
from kbs.evidence.dcap.status import TcbStatus
from kbs.evidence.dcap.tcb import TcbFinding

_PCK = "PCK certificate, SGX extension"
_TCB_INFO = "Intel's TCB info"

_STATUS = Safety(
    reason="the quote is as genuine on a platform with known holes as on another; "
    "the status says what Intel knows",
    default=(TcbStatus.UP_TO_DATE.value,),
    acceptable=(
        TcbStatus.SW_HARDENING_NEEDED.value,
        TcbStatus.CONFIGURATION_NEEDED.value,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED.value,
    ),
)

_PLATFORM_TEXT = {
    "dynamic_platform": "Packages may be added to the platform after it was registered",
    "cached_keys": "The platform's keys are cached by Intel's registration service",
    "smt_enabled": "Simultaneous multithreading is on",
}


def tcb_specs(kind: str) -> tuple[ClaimSpec, ...]:
    """Return the vocabulary of these claims for one family."""
    # An enclave has no TDX module, and nothing to be launched again.
    of_td = kind != "sgx"
    parts = "platform" + (", TDX module" if of_td else "") + " and quoting enclave"
    words = [one for one in TcbStatus if of_td or not one.startswith("TD")]

    spec = partial(claim_spec, kind)
    return (
        spec(
            "tcb_status",
            ClaimType.TEXT,
            f"How good the TCB is, {parts} joined: {', '.join(words)}",
            f"{_TCB_INFO} and QE identity, tcbStatus",
            safety=_STATUS,
        ),
        spec(
            "advisory_ids",
            ClaimType.TEXTS,
            "Intel's advisories about that TCB, sorted",
            f"{_TCB_INFO} and QE identity, advisoryIDs",
        ),
        spec(
            "tcb_date",
            ClaimType.TIME,
            "Until when all advisories are answered by every part's level: the "
            "earliest; absent where a part is below every level",
            f"{_TCB_INFO} and QE identity, tcbDate",
        ),
        spec(
            "tcb_evaluation_data_number",
            ClaimType.INT,
            "Which of Intel's TCB recoveries the status is judged by",
            f"{_TCB_INFO}, tcbEvaluationDataNumber",
        ),
        spec("fmspc", ClaimType.BYTES, "Kind of the platform", _PCK, size=6),
        spec("ppid", ClaimType.BYTES, "Identity of the platform", _PCK, size=16),
        spec(
            "piid",
            ClaimType.BYTES,
            "Identity of the platform instance, all its packages together, until it is "
            "set up anew; absent for processors alone",
            _PCK,
            size=16,
        ),
        spec("pce_svn", ClaimType.INT, "SVN of the certification enclave", _PCK),
        *(
            spec(f"platform.{name}", ClaimType.BOOL, text, f"{_PCK}, configuration")
            for name, text in _PLATFORM_TEXT.items()
        ),
    )


def tcb_claims(
    kind: str, pck: Pck, finding: TcbFinding, info: TcbInfo
) -> dict[str, ClaimValue]:
    """Return these claims of a quote whose every check passed."""
    values: dict[str, ClaimValue] = {
        f"{kind}.tcb_status": finding.status.value,
        f"{kind}.advisory_ids": finding.advisories,
        f"{kind}.tcb_evaluation_data_number": info.evaluation_number,
        f"{kind}.fmspc": pck.fmspc.hex(),
        f"{kind}.ppid": pck.ppid.hex(),
        f"{kind}.pce_svn": pck.pce_svn,
    }
    if pck.piid is not None:
        values[f"{kind}.piid"] = pck.piid.hex()
    if finding.date is not None:
        values[f"{kind}.tcb_date"] = format_time(finding.date)
    for name, value in pck.platform.items():
        values[f"{kind}.platform.{name}"] = value
    return values
