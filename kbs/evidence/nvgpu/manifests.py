"""Finds the manifests that a report needs among those to hand, and checks them.

For each of the two (`driver_rim`, `vbios_rim`; an NVSwitch has the second only):

* `nvgpu.….id`         one for this product and version is to hand
* `nvgpu.….signature`  its XML signature holds under the signer's certificate in it
* `nvgpu.….chain`      the signer chains to NVIDIA's pinned RIM root
* `nvgpu.….validity`   the chain is valid at the given time; one that has run out is
                       `unchecked`: NVIDIA signs the same values anew
* `nvgpu.….revocation` no certificate of the chain is revoked

The chain in a manifest is whole by its format, so a gap in it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.core.checks import CheckLog
from kbs.evidence.model import StoredRim, Trust
from kbs.evidence.nvgpu.names import RIM_SERVICE, Unnamed, WantedRim
from kbs.evidence.nvgpu.revocation import check_revocation
from kbs.evidence.nvgpu.rim import Rim
from kbs.evidence.nvgpu.shelf import ReadRim, RimShelf
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, build_chain, out_of_date
from kbs.pki.roots import Purpose, pinned_roots

_CHECKS = (
    "nvgpu.driver_rim.id",
    "nvgpu.driver_rim.signature",
    "nvgpu.driver_rim.chain",
    "nvgpu.driver_rim.validity",
    "nvgpu.driver_rim.revocation",
    "nvgpu.vbios_rim.id",
    "nvgpu.vbios_rim.signature",
    "nvgpu.vbios_rim.chain",
    "nvgpu.vbios_rim.validity",
    "nvgpu.vbios_rim.revocation",
    "nvgpu.rim.parse",
    "nvgpu.rim.signature",
    "nvgpu.rim.chain",
    "nvgpu.rim.validity",
    "nvgpu.rim.revocation",
)
_IDS = {tuple(name.split(".")[1:]): name for name in _CHECKS}
_ALONE = "rim"

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where manifests and the status of their signers may come from."""

    trust: Trust
    shelf: RimShelf
    cache: LinkCache
    rims: tuple[StoredRim, ...] = ()
    lists: tuple[x509.CertificateRevocationList, ...] = ()
    answers: tuple[ocsp.OCSPResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    stored: StoredRim
    read: ReadRim
    chain: Chain | None = None
    gap: str = ""
    complaints: tuple[str, ...] = ()


def find_rim(wanted: WantedRim, sources: Sources, log: CheckLog) -> Rim | None:
    """Return the manifest that is needed if all is well with it; record every check."""
    about = f"{wanted.role}_rim"
    offered = (*sources.rims, *sources.trust.collateral.rims())
    candidates = [
        _judged(stored, read, sources)
        for stored in dict.fromkeys(offered)
        if _has_id(stored, wanted.rim_id)
        and isinstance(read := sources.shelf.read(stored), ReadRim)
        and _is_about(read, wanted)
    ]
    if not candidates:
        where = f"fetch it from {RIM_SERVICE}{wanted.rim_id}"
        given = [sources.shelf.read(one) for one in sources.rims]
        unread = [f"; unreadable: {one}" for one in given if isinstance(one, str)]
        log.unchecked(
            _IDS[about, "id"],
            f"not to hand: {wanted.rim_id}; {where}{''.join(unread[:1])}",
        )
        return None
    # Nobody signs an id: who fetched a manifest knows it, and a guest may say any.
    kept = {one for one in sources.trust.collateral.rims() if one.rim_id is not None}
    best = max(candidates, key=lambda one: _rank(one, is_named=one.stored in kept))
    log.passed(_IDS[about, "id"], wanted.rim_id)
    return _record(best, about, sources, log)


def note_unnamed(wanted: Unnamed, log: CheckLog) -> None:
    """Record that the report does not say which manifest it needs."""
    log.unchecked(
        _IDS[f"{wanted.role}_rim", "id"],
        f"the report does not say which: it lacks {wanted.lacking}",
    )


def check_rim(stored: StoredRim, sources: Sources, log: CheckLog) -> Rim | None:
    """Record the checks of one manifest that stands alone, as `nvgpu.rim.…`."""
    read = sources.shelf.read(stored)
    if isinstance(read, str):
        log.failed(_IDS[_ALONE, "parse"], read)
        return None
    log.passed(_IDS[_ALONE, "parse"], f"{read.header.product} {read.header.version}")
    return _record(_judged(stored, read, sources), _ALONE, sources, log)


def _record(
    found: _Candidate, about: str, sources: Sources, log: CheckLog
) -> Rim | None:
    rim, trust = found.read.rim, sources.trust
    if rim is None:
        log.failed(_IDS[about, "signature"], found.read.fault)
        return None
    log.passed(_IDS[about, "signature"], f"signed by {describe(rim.signer.subject)}")
    if found.chain is None:
        log.failed(_IDS[about, "chain"], found.gap)
    else:
        log.passed(
            _IDS[about, "chain"], f"the signer chains to {found.chain.root_name}"
        )
    at = trust.now.isoformat()
    if found.complaints:
        again = "; fetch the manifest again: NVIDIA signs the same values anew"
        log.unchecked(_IDS[about, "validity"], "; ".join(found.complaints) + again)
    else:
        log.passed(_IDS[about, "validity"], f"all certificates are valid at {at}")
    check_revocation(
        log,
        _IDS[about, "revocation"],
        found.chain,
        trust=trust,
        cache=sources.cache,
        lists=sources.lists,
        answers=sources.answers,
    )
    return rim if found.chain is not None else None


def _judged(stored: StoredRim, read: ReadRim, sources: Sources) -> _Candidate:
    if read.rim is None:
        return _Candidate(stored, read)
    outcome = build_chain(
        read.rim.signer,
        (*read.rim.certificates, *sources.trust.collateral.certificates()),
        roots=pinned_roots(Purpose.NVIDIA_RIM, sources.trust.pinned_roots),
        cache=sources.cache,
    )
    if isinstance(outcome, (IssuerMissing, ChainBroken)):
        complaints = out_of_date((read.rim.signer,), sources.trust.now)
        return _Candidate(stored, read, gap=outcome.detail, complaints=complaints)
    complaints = out_of_date(outcome.certificates, sources.trust.now)
    return _Candidate(stored, read, outcome, complaints=complaints)


def _rank(
    found: _Candidate, *, is_named: bool
) -> tuple[bool, bool, bool, bool, datetime]:
    # A bad manifest beside a good one takes nothing from it; of good ones the one that
    # was fetched under the very name comes first, even when it ran out: manifests of
    # two boards can have one version. Then the one that was signed last.
    rim = found.read.rim
    return (
        rim is not None,
        found.chain is not None,
        is_named,
        not found.complaints,
        rim.signer.not_valid_before_utc if rim is not None else _NEVER,
    )


def _has_id(stored: StoredRim, rim_id: str) -> bool:
    """Whether a manifest came under this id, or under none."""
    return stored.rim_id is None or stored.rim_id.upper() == rim_id.upper()


def _is_about(read: ReadRim, wanted: WantedRim) -> bool:
    header = read.header
    return (
        header.product in wanted.products
        and header.edition == wanted.edition
        and header.version.upper() == wanted.version.upper()
    )
