"""The verifier of TD quotes: the checks of `dcap.verify`, and one more.

10. `tdx.eventlog.replay`  the event log leads to the RTMRs; skipped without one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kbs.core.claims import ClaimSpec, ClaimValue
from kbs.core.encode import parse_b64
from kbs.evidence.dcap.case import Case, Profile
from kbs.evidence.dcap.item import DcapItem, parse_item
from kbs.evidence.dcap.quote import TEE_TDX
from kbs.evidence.dcap.reports import TdReport
from kbs.evidence.dcap.verify import DcapVerifier
from kbs.evidence.tdx.claims import FAMILY, TDX_CLAIMS, report_claims
from kbs.evidence.tdx.eventlog import check_event_log, parse_td_log
from kbs.evidence.vtpm.eventlog import MAX_LOG, EventLog

_CHECKS = (
    "tdx.quote.signature",
    "tdx.qe_report.signature",
    "tdx.qe_report.data",
    "tdx.chain",
    "tdx.validity",
    "tdx.revocation",
    "tdx.qe_identity",
    "tdx.tcb_info",
    "tdx.tcb",
    "tdx.eventlog.replay",
)
_PROFILE = Profile(
    kind=FAMILY,
    tee_type=TEE_TDX,
    tcb_info_id="TDX",
    qe_identity_id="TD_QE",
    checks=_CHECKS,
)


class TdxVerifier(DcapVerifier):
    """Verifies items of kind `tdx`."""

    @property
    def profile(self) -> Profile:
        """What distinguishes the family."""
        return _PROFILE

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return TDX_CLAIMS

    def parse_body(self, item: Mapping[str, object]) -> DcapItem:
        """Read the JSON item, with its event log.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        parsed, members = parse_item(
            item, FAMILY, TEE_TDX, optional=frozenset({"event_log"})
        )
        if "event_log" not in members:
            return parsed
        log = parse_b64(members["event_log"], "tdx event_log", limit=MAX_LOG)
        return replace(parsed, event_log=parse_td_log(log))

    def report_claims(self, item: DcapItem) -> Mapping[str, ClaimValue]:
        """Return what the report alone says."""
        return report_claims(item.quote.header.version, _report(item))

    def check_further(self, case: Case) -> Mapping[str, ClaimValue]:
        """Replay the event log, where there is one."""
        log = case.item.event_log
        given = log if isinstance(log, EventLog) else None
        return check_event_log(given, _report(case.item), case.log)


def _report(item: DcapItem) -> TdReport:
    report = item.quote.report
    if not isinstance(report, TdReport):
        message = "a quote of another TEE was parsed as one of TDX"
        raise TypeError(message)
    return report
