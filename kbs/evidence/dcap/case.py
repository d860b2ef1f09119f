"""One verification of a quote: what it has to go by, and what it found so far."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice

from kbs.core.checks import CheckLog, Status
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.item import DcapItem
from kbs.evidence.dcap.pck import Pck, is_pck, parse_pck
from kbs.evidence.dcap.vouching import Signers, find_signers
from kbs.evidence.model import Trust, VendorDocument
from kbs.pki.cache import LinkCache
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, build_chain
from kbs.pki.p256 import is_p256_signature
from kbs.pki.roots import Purpose, pinned_roots

SERVICE = "https://api.trustedservices.intel.com"
"""Where Intel serves its collateral."""

# Signatures tried for a quote without its PCK: strangers choose what comes with an
# item; in the table there is one certificate for each TCB of each machine of a site.
_MAX_GIVEN_PCKS = 16
_MAX_KEPT_PCKS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What differs between the two families: names, and Intel's words for them."""

    kind: str
    tee_type: int
    tcb_info_id: str
    qe_identity_id: str
    checks: tuple[str, ...]
    """The ids of all checks, each the kind and a name that both families share."""

    def check(self, name: str) -> str:
        """Return the id of a check."""
        return self.checks[self.checks.index(f"{self.kind}.{name}")]

    def url(self, path: str) -> str:
        """Return where the service has a document of this family."""
        return f"{SERVICE}/{self.kind}/certification/v4/{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One verification: its inputs, and the log that the checks fill."""

    profile: Profile
    item: DcapItem
    pck: Pck | None
    pck_chain: Chain | IssuerMissing | ChainBroken | None
    signers: Signers
    trust: Trust
    cache: LinkCache
    log: CheckLog

    def has_passed(self, *names: str) -> bool:
        """Whether all of these checks were made and held."""
        return all(
            self.log.status_of(self.profile.check(name)) is Status.PASS
            for name in names
        )

    @property
    def documents(self) -> tuple[VendorDocument, ...]:
        """Every document to hand, whether it came with the item or not."""
        return (
            *self.item.collateral.documents(),
            *self.trust.collateral.documents(),
        )


def open_case(
    profile: Profile, item: DcapItem, trust: Trust, cache: LinkCache, log: CheckLog
) -> Case:
    """Gather what a verification needs; the PCK may come from the collateral."""
    certificates = (
        *item.certificates,
        *item.collateral.certificates(),
        *trust.collateral.certificates(),
    )
    pool = tuple(dict.fromkeys(certificates))
    roots = pinned_roots(Purpose.DCAP, trust.pinned_roots)
    pck = item.pck if item.pck is not None else _known_pck(item, trust)
    pck_chain = None
    if pck is not None:
        pck_chain = build_chain(pck.certificate, pool, roots=roots, cache=cache)
    return Case(
        profile=profile,
        item=item,
        pck=pck,
        pck_chain=pck_chain,
        signers=find_signers(pool, roots, cache),
        trust=trust,
        cache=cache,
        log=log,
    )


def _known_pck(item: DcapItem, trust: Trust) -> Pck | None:
    # A quote that names its PCK by an encrypted PPID: the key that signed tells which.
    quote = item.quote
    given = filter(is_pck, (*item.certificates, *item.collateral.certificates()))
    kept = filter(is_pck, trust.collateral.certificates())
    candidates = chain(islice(given, _MAX_GIVEN_PCKS), islice(kept, _MAX_KEPT_PCKS))
    for certificate in candidates:
        try:
            pck = parse_pck(certificate)
        except MalformedError:
            continue
        if is_p256_signature(
            pck.public_key, quote.qe_report_signature, quote.qe_report_raw
        ):
            return pck
    return None
