"""The verifier of NVIDIA GPUs and NVSwitches, without NVIDIA's cloud.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `nvgpu.report.signature`  request and response are signed by the leaf
2. `nvgpu.chain`             the leaf chains to NVIDIA's pinned device root
3. `nvgpu.validity`          every certificate of the chain is valid at the given time
4. `nvgpu.revocation`        none of them is revoked or on hold
5. `nvgpu.fwid`              the report's FWID is one of the leaf's
6. `nvgpu.nonce`             a nonce beside the report is the one that was signed
7. `nvgpu.arch`              chip, generation and what is said beside the report agree
8. `nvgpu.driver_rim.…`, `nvgpu.vbios_rim.…`  the manifests (see `manifests`)
9. `nvgpu.measurements`      the report was held against them

`nvgpu.parse` is the caller's, on a `MalformedError` of `parse`. A measurement that
differs is no failure of check 9 but a claim; only manifests that contradict each other,
or have nothing to compare, fail it. Left out on purpose: whether the versions are
recent, confidential mode, debugging, and whether GPUs and switches are one fabric; all
of these are claims for a policy. Binding is compared by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.checks import CheckLog, Status
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.evidence.nvgpu.abi import NONCE_BYTES
from kbs.evidence.nvgpu.checks import (
    NO_LEAF,
    Case,
    check_arch,
    check_fwid,
    check_measurements,
    check_nonce,
    check_signature,
    check_validity,
)
from kbs.evidence.nvgpu.claims import VOCABULARY, claims_of, family_of
from kbs.evidence.nvgpu.device import (
    chip_of,
    claims_to_be_whole,
    device_certificate,
)
from kbs.evidence.nvgpu.inspection import inspect_item
from kbs.evidence.nvgpu.item import KIND, DeviceItem, parse_item
from kbs.evidence.nvgpu.manifests import Sources, find_rim, note_unnamed
from kbs.evidence.nvgpu.measurements import Comparison
from kbs.evidence.nvgpu.names import Unnamed, wanted_rims
from kbs.evidence.nvgpu.revocation import check_revocation
from kbs.evidence.nvgpu.rim import Rim
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe, spki_sha256
from kbs.pki.chain import Chain, IssuerMissing, build_chain
from kbs.pki.roots import Purpose, pinned_roots

_BINDING_BYTES = 48
# Nobody but the device issued its leaf, so NVIDIA keeps no status of it.
_UNASKED = 1


class NvGpuVerifier:
    """Verifies items of kind `nvgpu`; remembers good signatures and manifests."""

    def __init__(
        self, cache: LinkCache | None = None, shelf: RimShelf | None = None
    ) -> None:
        """Use the given memories, or ones of its own."""
        self._cache = cache if cache is not None else LinkCache()
        self._shelf = shelf if shelf is not None else RimShelf()

    @property
    def kind(self) -> str:
        """The `kind` of its items; claims of a switch are of the family `nvswitch`."""
        return KIND

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return VOCABULARY

    @property
    def primary(self) -> bool:
        """A device is never the primary: it says nothing of the guest it serves."""
        return False

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item.

        Raises:
            MalformedError: a member, the report or something beside it is malformed.
        """
        body = parse_item(item)
        return ParsedItem(
            kind=KIND,
            index=index,
            core=body.through_signature,
            bound=body.report.nonce,
            body=body,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        return inspect_item(_body(parsed), self._shelf)

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether the signed nonce is the first 32 bytes of this 48-byte binding."""
        return len(binding) == _BINDING_BYTES and parsed.bound == binding[:NONCE_BYTES]

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run the nine checks; evidence that is wrong gives checks that say so."""
        log = CheckLog(parsed.index)
        case = Case(item=_body(parsed), trust=trust, log=log)
        check_signature(case)
        chain = self._check_chain(case)
        check_validity(case, chain)
        check = "nvgpu.revocation"
        check_revocation(
            case.log,
            check,
            chain,
            trust=trust,
            cache=self._cache,
            lists=case.item.revocation_lists,
            answers=case.item.answers,
            unasked=_UNASKED,
        )
        check_fwid(case)
        check_nonce(case)
        check_arch(case, chain)
        rims = self._check_rims(case, chain)
        found = check_measurements(case, rims)
        return ItemResult(
            checks=case.log.checks,
            claims=_claims(case, chain, found, parsed.index),
            authenticated=case.has_passed("nvgpu.report.signature", "nvgpu.chain"),
            identities=_identities(case.item, chain),
        )

    def _check_chain(self, case: Case) -> Chain | None:
        log, item = case.log, case.item
        if item.leaf is None:
            log.unchecked("nvgpu.chain", NO_LEAF)
            return None
        outcome = build_chain(
            item.leaf,
            (*item.certificates, *case.trust.collateral.certificates()),
            roots=pinned_roots(Purpose.NVGPU, case.trust.pinned_roots),
            cache=self._cache,
        )
        if isinstance(outcome, Chain):
            leaf = describe(item.leaf.subject)
            log.passed("nvgpu.chain", f"{leaf} chains to {outcome.root_name}")
            return outcome
        if isinstance(outcome, IssuerMissing) and not claims_to_be_whole(
            item.certificates
        ):
            log.unchecked("nvgpu.chain", outcome.detail)
        else:
            # A device hands out its chain as a whole: a gap in it is no lack of ours.
            log.failed("nvgpu.chain", outcome.detail)
        return None

    def _check_rims(self, case: Case, chain: Chain | None) -> dict[str, Rim | None]:
        """Return the manifests that are needed, by role; None for a lacking one."""
        if chain is None:
            case.log.unchecked(
                "nvgpu.vbios_rim.id", "the chip is not known without its chain"
            )
            return {"vbios": None}
        sources = Sources(
            trust=case.trust,
            shelf=self._shelf,
            cache=self._cache,
            rims=case.item.rims,
            lists=case.item.revocation_lists,
            answers=case.item.answers,
        )
        found: dict[str, Rim | None] = {}
        for wanted in wanted_rims(case.item.report, chip_of(chain)):
            if isinstance(wanted, Unnamed):
                note_unnamed(wanted, case.log)
                found[wanted.role] = None
            else:
                found[wanted.role] = find_rim(wanted, sources, case.log)
        return found


def _body(parsed: ParsedItem) -> DeviceItem:
    if not isinstance(parsed.body, DeviceItem):
        message = f"an item of kind {parsed.kind} was given to the nvgpu verifier"
        raise TypeError(message)
    return parsed.body


def _claims(
    case: Case, chain: Chain | None, found: Comparison | None, index: int
) -> ItemClaims | None:
    open_or_failed = {Status.FAIL, Status.UNCHECKED}
    stopped = any(check.status in open_or_failed for check in case.log.checks)
    if stopped or chain is None or found is None:
        return None
    looked_up = all(
        check.status is Status.PASS
        for check in case.log.checks
        if check.id.endswith(".revocation")
    )
    return ItemClaims(
        family=family_of(chain),
        item=index,
        values=claims_of(
            case.item, chain, found, status="good" if looked_up else "unchecked"
        ),
    )


def _identities(item: DeviceItem, chain: Chain | None) -> tuple[str, ...]:
    if item.leaf is None:
        return ()
    leaf = f"spki:{spki_sha256(item.leaf)}"
    if chain is None:
        return (leaf,)
    # Other firmware has another leaf; the device's own certificate stays.
    return (f"gpu:{spki_sha256(device_certificate(chain))}", leaf)
