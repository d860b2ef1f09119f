"""The verifier of quotes, as far as TDX and SGX share it.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `quote.signature`      header and body are signed by the attestation key
2. `qe_report.signature`  the quoting enclave's report is signed by the PCK
3. `qe_report.data`       that report names the attestation key
4. `chain`                the PCK leads to Intel's pinned root through a PCK CA
5. `validity`             every certificate relied on is valid at the given time
6. `revocation`           none is on the newest list of its issuer (PCK CA, root)
7. `qe_identity`          the quoting enclave is the one that Intel's identity names
8. `tcb_info`             there is a current TCB info for this FMSPC and PCE
9. `tcb`                  the TCB was evaluated; its status is a claim

`<kind>.parse` is the caller's, on a `MalformedError` of `parse`. Left out on purpose:
whether the TCB is good enough, debug, attributes and measurements are claims for a
policy; binding is compared by the caller through `bound_matches`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from kbs.core.checks import CheckLog, Status
from kbs.core.claims import ClaimSpec, ClaimValue, ItemClaims
from kbs.evidence.dcap.case import Case, Profile, open_case
from kbs.evidence.dcap.checks import (
    check_chain,
    check_qe_identity,
    check_qe_report,
    check_revocation,
    check_signature,
    check_tcb,
    check_tcb_info,
    check_validity,
)
from kbs.evidence.dcap.item import DcapItem, inspect_item
from kbs.evidence.dcap.tcb_claims import tcb_claims
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.pki.cache import LinkCache

_BINDING_BYTES = 48
_BOUND_BYTES = 64
# SNP's CHIP_ID has 64 bytes, and so have all chips in deny entries.
_CHIP_BYTES = 64
_AUTHENTIC = (
    "quote.signature",
    "qe_report.signature",
    "qe_report.data",
    "chain",
    "qe_identity",
)


class DcapVerifier(ABC):
    """Verifies quotes of one family; remembers good signatures of Intel's."""

    def __init__(self) -> None:
        """Start with nothing remembered."""
        self._cache = LinkCache()

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """What distinguishes the family."""

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""

    @abstractmethod
    def parse_body(self, item: Mapping[str, object]) -> DcapItem:
        """Read the JSON item.

        Raises:
            MalformedError: it lacks the promised shape.
        """

    @abstractmethod
    def report_claims(self, item: DcapItem) -> Mapping[str, ClaimValue]:
        """Return what the report alone says."""

    def check_further(self, case: Case) -> Mapping[str, ClaimValue]:
        """Run the checks that only this family has, and return their claims."""
        del case
        return {}

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        return self.profile.kind

    @property
    def primary(self) -> bool:
        """A CPU report is a primary by itself."""
        return True

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item of a bundle.

        Raises:
            MalformedError: it lacks the promised shape.
        """
        body = self.parse_body(item)
        return ParsedItem(
            kind=self.kind,
            index=index,
            core=body.quote.raw,
            bound=body.quote.report.report_data,
            body=body,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        return inspect_item(self.body_of(parsed))

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether REPORTDATA is this 48-byte binding followed by 16 zero bytes."""
        if len(binding) != _BINDING_BYTES:
            return False
        return parsed.bound == binding.ljust(_BOUND_BYTES, b"\0")

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run every check; evidence that is wrong gives checks that say so."""
        item = self.body_of(parsed)
        log = CheckLog(parsed.index)
        case = open_case(self.profile, item, trust, self._cache, log)
        check_signature(case)
        check_qe_report(case)
        chain = check_chain(case)
        identity = check_qe_identity(case)
        info = check_tcb_info(case)
        signers = [found.chain for found in (identity, info) if found is not None]
        check_validity(case, [chain, *signers])
        check_revocation(case, chain, signers)
        finding = check_tcb(case, info, identity)
        further = self.check_further(case)
        checks = case.log.checks
        stopped = any(
            check.status in {Status.FAIL, Status.UNCHECKED} for check in checks
        )
        claims = None
        if not (stopped or finding is None or info is None or case.pck is None):
            tcb = tcb_claims(self.kind, case.pck, finding, info.content)
            claims = ItemClaims(
                family=self.kind,
                item=parsed.index,
                values={**self.report_claims(item), **further, **tcb},
            )
        return ItemResult(
            checks=checks,
            claims=claims,
            authenticated=case.has_passed(*_AUTHENTIC),
            identities=_identities(case),
        )

    def body_of(self, parsed: ParsedItem) -> DcapItem:
        """Return the parsed item's own part."""
        if parsed.kind != self.kind or not isinstance(parsed.body, DcapItem):
            message = f"an item of kind {parsed.kind} was given to the {self.kind} one"
            raise TypeError(message)
        return parsed.body


def _identities(case: Case) -> tuple[str, ...]:
    pck = case.pck
    if pck is None:
        return ()
    chip = pck.ppid.ljust(_CHIP_BYTES, b"\0").hex()
    return (f"chip:{chip}", f"spki:{pck.spki_sha256}")
