"""The verifier of SNP reports.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `snp.report.signature`  the report is signed by the leaf (VCEK or VLEK)
2. `snp.chain`             the leaf chains to a pinned AMD root
3. `snp.validity`          every certificate of the chain is valid at the given time
4. `snp.revocation`        none of them is on AMD's newest revocation list
5. `snp.signing_key`       the leaf is of the kind that the report names
6. `snp.product`           report, leaf and root are of one product line
7. `snp.tcb`               REPORTED_TCB is the leaf's, component by component
8. `snp.chip_id`           CHIP_ID is the leaf's hardware id, where not masked

`snp.parse` is the caller's, on a `MalformedError` of `parse`. Left out on purpose:
whether the TCB is recent enough, debug, VMPL and the like are claims for a policy;
binding is compared by the caller through `bound_matches`.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.checks import CheckLog, Status
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.evidence.snp.checks import (
    NO_LEAF,
    Case,
    check_chip_id,
    check_product,
    check_signature,
    check_signing_key,
    check_tcb,
    check_validity,
    known_key,
    line_of,
    padded_hwid,
)
from kbs.evidence.snp.claims import SNP_CLAIMS, claims_of
from kbs.evidence.snp.item import SnpItem, inspect_item, parse_item
from kbs.evidence.snp.service import KEY_SERVICE, crl_path, where_issuers, where_leaf
from kbs.pki.cache import LinkCache
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, build_chain
from kbs.pki.crl import standing
from kbs.pki.roots import Purpose, pinned_roots

_BINDING_BYTES = 48
_BOUND_BYTES = 64


class SnpVerifier:
    """Verifies items of kind `snp`; holds a cache of good certificate signatures."""

    def __init__(self, cache: LinkCache | None = None) -> None:
        """Use the given cache, or one of its own."""
        self._cache = cache if cache is not None else LinkCache()

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        return "snp"

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return SNP_CLAIMS

    @property
    def primary(self) -> bool:
        """A CPU report is a primary by itself."""
        return True

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item.

        Raises:
            MalformedError: a member, the report, a certificate or the CRL is malformed.
        """
        body = parse_item(item)
        return ParsedItem(
            kind=self.kind,
            index=index,
            core=body.raw,
            bound=body.report.report_data,
            body=body,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        return inspect_item(_body(parsed))

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether REPORT_DATA is this 48-byte binding followed by 16 zero bytes."""
        if len(binding) != _BINDING_BYTES:
            return False
        return parsed.bound == binding.ljust(_BOUND_BYTES, b"\0")

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run the eight checks; evidence that is wrong gives checks that say so."""
        item = _body(parsed)
        key = item.key if item.key is not None else known_key(item.report, trust)
        case = Case(item=item, key=key, trust=trust, log=CheckLog(parsed.index))
        check_signature(case)
        chain = self._check_chain(case)
        check_validity(case, chain)
        self._check_revocation(case, chain)
        check_signing_key(case)
        check_product(case, chain)
        check_tcb(case, chain)
        check_chip_id(case)
        return ItemResult(
            checks=case.log.checks,
            claims=_claims(case, chain, parsed.index),
            authenticated=case.has_passed("snp.report.signature", "snp.chain"),
            identities=_identities(case),
        )

    def _check_chain(self, case: Case) -> Chain | None:
        log = case.log
        if case.key is None:
            log.unchecked("snp.chain", NO_LEAF + where_leaf(case.item.report))
            return None
        outcome = build_chain(
            case.key.certificate,
            (*case.item.certificates, *case.trust.collateral.certificates()),
            roots=pinned_roots(Purpose.SNP, case.trust.pinned_roots),
            cache=self._cache,
        )
        if isinstance(outcome, IssuerMissing):
            log.unchecked("snp.chain", outcome.detail + where_issuers(case.key))
            return None
        if isinstance(outcome, ChainBroken):
            log.failed("snp.chain", outcome.detail)
            return None
        log.passed("snp.chain", f"{case.key.subject} chains to {outcome.root_name}")
        return outcome

    def _check_revocation(self, case: Case, chain: Chain | None) -> None:
        log = case.log
        if chain is None:
            log.unchecked("snp.revocation", "there is no chain to look up")
            return
        collateral = case.trust.collateral.revocation_lists()
        found = standing(
            chain.certificates,
            chain.root,
            (*collateral, *case.item.revocation_lists),
            now=case.trust.now,
            cache=self._cache,
        )
        if found.revoked:
            log.failed("snp.revocation", f"revoked: {', '.join(found.revoked)}")
        elif found.current is not None:
            since = found.current.last_update_utc.isoformat()
            log.passed("snp.revocation", f"not on AMD's list of {since}")
        elif case.trust.require_revocation:
            line = line_of(chain)
            where = "" if line is None else f": fetch {KEY_SERVICE}{crl_path(line)}"
            log.unchecked("snp.revocation", f"no revocation list is current{where}")
        else:
            log.skipped("snp.revocation", "no revocation list is current at that time")


def _body(parsed: ParsedItem) -> SnpItem:
    if not isinstance(parsed.body, SnpItem):
        message = f"an item of kind {parsed.kind} was given to the snp verifier"
        raise TypeError(message)
    return parsed.body


def _claims(case: Case, chain: Chain | None, index: int) -> ItemClaims | None:
    open_or_failed = {Status.FAIL, Status.UNCHECKED}
    stopped = any(check.status in open_or_failed for check in case.log.checks)
    line = line_of(chain) if chain is not None else None
    if stopped or case.key is None or line is None:
        return None
    values = claims_of(case.item.report, case.key, line)
    return ItemClaims(family="snp", item=index, values=values)


def _identities(case: Case) -> tuple[str, ...]:
    report, key = case.item.report, case.key
    chip = report.chip_id
    if report.chip_id_masked and key is not None:
        # A VCEK names the chip even where the report does not.
        chip = padded_hwid(key)
    identities = [f"chip:{chip.hex()}"] if any(chip) else []
    if key is not None:
        identities.append(f"spki:{key.spki_sha256}")
    return tuple(identities)
