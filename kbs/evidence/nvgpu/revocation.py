"""Whether a chain of NVIDIA's is revoked: lists and OCSP answers, all that are to hand.

NVIDIA's responder answers for every certificate but the root and the leaf of a device
(`unauthorized`: nobody but the device issued it), so the leaf counts when something is
known of it and is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.core.checks import CheckLog
from kbs.evidence.model import Trust
from kbs.pki.cache import LinkCache
from kbs.pki.chain import Chain
from kbs.pki.status import CertificateState, CertificateStatus, status_of

OCSP_SERVICE = "https://ocsp.ndis.nvidia.com"

_REFUSED = (CertificateState.REVOKED, CertificateState.HOLD)


def check_revocation(
    log: CheckLog,
    check_id: str,
    chain: Chain | None,
    *,
    trust: Trust,
    cache: LinkCache,
    lists: Iterable[x509.CertificateRevocationList] = (),
    answers: Iterable[ocsp.OCSPResponse] = (),
    unasked: int = 0,
) -> None:
    """Record the status of a chain; `unasked` leaves of it need not be known."""
    if chain is None:
        log.unchecked(check_id, "there is no chain to look up")
        return
    lists = (*trust.collateral.revocation_lists(), *lists)
    given = tuple(answers)
    found = [
        status_of(
            one,
            issuer,
            lists=lists,
            answers=(*trust.collateral.ocsp_answers(one.serial_number), *given),
            now=trust.now,
            cache=cache,
        )
        for one, issuer in zip(chain.certificates, chain.certificates[1:], strict=False)
    ]
    refused = _told(found, *_REFUSED)
    unknown = _told(found, CertificateState.UNKNOWN)
    missing = _told(found[unasked:], CertificateState.MISSING)
    if refused:
        log.failed(check_id, refused)
    elif unknown:
        log.unchecked(check_id, unknown)
    elif not missing:
        log.passed(check_id, f"{len(found) - unasked} certificates are good")
    elif trust.require_revocation:
        log.unchecked(check_id, f"{missing}; fetch it from {OCSP_SERVICE}")
    else:
        log.skipped(check_id, missing)


def _told(found: Sequence[CertificateStatus], *states: CertificateState) -> str:
    return "; ".join(one.detail for one in found if one.state in states)[:600]
