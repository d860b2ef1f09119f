"""The verifier of enclave quotes: the checks of `dcap.verify`, and no other."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import ClaimSpec, ClaimValue
from kbs.evidence.dcap.case import Profile
from kbs.evidence.dcap.item import DcapItem, parse_item
from kbs.evidence.dcap.quote import TEE_SGX
from kbs.evidence.dcap.reports import EnclaveReport
from kbs.evidence.dcap.verify import DcapVerifier
from kbs.evidence.sgx.claims import FAMILY, SGX_CLAIMS, report_claims

_CHECKS = (
    "sgx.quote.signature",
    "sgx.qe_report.signature",
    "sgx.qe_report.data",
    "sgx.chain",
    "sgx.validity",
    "sgx.revocation",
    "sgx.qe_identity",
    "sgx.tcb_info",
    "sgx.tcb",
)
_PROFILE = Profile(
    kind=FAMILY,
    tee_type=TEE_SGX,
    tcb_info_id="SGX",
    qe_identity_id="QE",
    checks=_CHECKS,
)


class SgxVerifier(DcapVerifier):
    """Verifies items of kind `sgx`."""

    @property
    def profile(self) -> Profile:
        """What distinguishes the family."""
        return _PROFILE

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return SGX_CLAIMS

    def parse_body(self, item: Mapping[str, object]) -> DcapItem:
        """Read the JSON item.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        parsed, _ = parse_item(item, FAMILY, TEE_SGX, optional=frozenset())
        return parsed

    def report_claims(self, item: DcapItem) -> Mapping[str, ClaimValue]:
        """Return what the report alone says."""
        report = item.quote.report
        if not isinstance(report, EnclaveReport):
            message = "a quote of another TEE was parsed as one of SGX"
            raise TypeError(message)
        return report_claims(item.quote.header.version, report)
