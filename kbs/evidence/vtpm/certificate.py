"""The attestation key's certificate: chain, validity, revocation.

TCG EK Credential Profile 2.5 and TCG PC Client AK certificates, as X.509 (RFC 5280).
A chain counts when it ends at a CA that some tenant registered for `ak`, or at a
pinned TPM root. Anchors that do not hold are dropped one by one; a check fails, or
stays open, only when nothing is left that makes the key trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from kbs.core.checks import CheckLog
from kbs.evidence.model import Trust
from kbs.evidence.vtpm.anchors import (
    Anchor,
    DeadEnd,
    Judgement,
    find_anchors,
    judge,
)
from kbs.evidence.vtpm.item import TpmQuote
from kbs.pki.certificates import describe
from kbs.pki.chain import IssuerMissing

MAX_LEAVES = 8
"""Certificates of one key that are tried, those beside the quote first."""

_CHECKS = ("vtpm.chain", "vtpm.validity", "vtpm.revocation")

Judged = Mapping[Anchor, Judgement]


@dataclass(frozen=True, slots=True)
class Certified:
    """The anchors that vouch for the key; `open` if an issuer was not to be had.

    `withdrawn` are tenants whose enrolment of the key no longer counts, because a
    certificate of the key, below their own CA or a pinned root, does not hold.
    """

    anchors: tuple[Anchor, ...] = ()
    open: bool = False
    withdrawn: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTrust:
    """What makes the key trusted besides certificates: enrolments, or the caller."""

    tenants: frozenset[str] = frozenset()
    vouched: bool = False

    def __bool__(self) -> bool:
        """Whether there is any, so that a certificate is not required."""
        return self.vouched or bool(self.tenants)


def check_certificates(
    quote: TpmQuote, trust: Trust, log: CheckLog, *, other: OtherTrust
) -> Certified:
    """Find and check the certificates of the attestation key.

    With `other` trust, certificates that lead nowhere are no fault; those that lead
    to an anchor are held to everything, each for its own tenant.
    """
    leaves = _leaves(quote, trust, other)
    if not leaves:
        return _without_leaf(quote, log, other)
    sound = [leaf for leaf in leaves if _leaf_problem(leaf) is None]
    if not sound:
        detail = f"{describe(leaves[0].subject)}: {_leaf_problem(leaves[0])}"
        log.failed("vtpm.chain", detail)
        return Certified()
    pool = (*quote.certificates, *trust.collateral.certificates())
    anchors, dead_ends = find_anchors(sound, pool, trust)
    if not anchors:
        return _dead_end(dead_ends, log, other)
    names = _listed(anchor.label for anchor in anchors)
    log.passed("vtpm.chain", f"{describe(sound[0].subject)} chains to {names}")
    return _weigh({one: judge(one, trust) for one in anchors}, trust, log, other)


def _leaves(
    quote: TpmQuote, trust: Trust, other: OtherTrust
) -> tuple[x509.Certificate, ...]:
    if quote.certificates or other:
        return _with_key(quote, quote.certificates)
    return _with_key(quote, trust.collateral.certificates())


def _with_key(
    quote: TpmQuote, certificates: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    mine = (one for one in dict.fromkeys(certificates) if _is_for(quote, one))
    return tuple(islice(mine, MAX_LEAVES))


def _is_for(quote: TpmQuote, certificate: x509.Certificate) -> bool:
    try:
        return certificate.public_key() == quote.ak.key
    except (ValueError, UnsupportedAlgorithm):  # not this key, whatever it is
        return False


def _without_leaf(quote: TpmQuote, log: CheckLog, other: OtherTrust) -> Certified:
    if quote.certificates and not other:
        log.failed(
            "vtpm.chain",
            "none of the certificates is for the attestation key",
            got=", ".join(describe(cert.subject) for cert in quote.certificates),
            expected="a certificate with the key that came as ak",
        )
        return Certified()
    for check in _CHECKS:
        log.skipped(check, "no certificate of the attestation key is given")
    return Certified()


def _leaf_problem(leaf: x509.Certificate) -> str | None:
    # An endorsement key's certificate, or a CA's, does not make an attestation key.
    extensions = leaf.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "a CA's certificate, not an attestation key's"
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return None if usage.digital_signature else "key usage lacks digitalSignature"


def _dead_end(
    dead_ends: tuple[DeadEnd, ...], log: CheckLog, other: OtherTrust
) -> Certified:
    detail = "; ".join(dict.fromkeys(end.detail for end in dead_ends))[:400]
    if other:
        for check in _CHECKS:
            log.skipped(check, f"the key is trusted without a certificate; {detail}")
        return Certified()
    incomplete = all(isinstance(end, IssuerMissing) for end in dead_ends)
    if incomplete:
        log.unchecked("vtpm.chain", f"{detail}; add it, or register the CA for ak")
    else:
        log.failed("vtpm.chain", detail)
    return Certified(open=incomplete)


def _weigh(judged: Judged, trust: Trust, log: CheckLog, other: OtherTrust) -> Certified:
    good = {
        anchor: found
        for anchor, found in judged.items()
        if not found.bad and not (found.unknown and trust.require_revocation)
    }
    withdrawn = _withdrawn(judged, good, other.tenants)
    stands = bool(other.tenants - withdrawn)
    stands |= other.vouched and _holds(None, judged, good)
    if good:
        _log_good(good, trust, log)
        return Certified(tuple(good), withdrawn=withdrawn)
    if stands:
        detail = f"trusted by other means; no anchor holds: {_complaints(judged)}"
        log.skipped("vtpm.validity", detail)
        log.skipped("vtpm.revocation", detail)
        return Certified(withdrawn=withdrawn)
    return _none_holds(judged, trust, log, other)


def _holds(scope: str | None, judged: Judged, good: Judged) -> bool:
    """Whether no anchor of the scope is at fault, or one of them is good."""
    of_scope = [anchor for anchor in judged if anchor.tenant == scope]
    return not of_scope or any(anchor in good for anchor in of_scope)


def _withdrawn(judged: Judged, good: Judged, tenants: frozenset[str]) -> frozenset[str]:
    if not _holds(None, judged, good):
        return tenants
    return frozenset(one for one in tenants if not _holds(one, judged, good))


def _log_good(good: Judged, trust: Trust, log: CheckLog) -> None:
    names = _listed(anchor.label for anchor in good)
    at = trust.now.isoformat()
    log.passed("vtpm.validity", f"the chain to {names} is valid at {at}")
    unknown = _listed(name for found in good.values() for name in found.unknown)
    if unknown:
        log.skipped("vtpm.revocation", _no_list_of(unknown))
    else:
        log.passed("vtpm.revocation", f"no certificate up to {names} is revoked")


def _none_holds(
    judged: Judged, trust: Trust, log: CheckLog, other: OtherTrust
) -> Certified:
    current = {one: found for one, found in judged.items() if not found.late}
    if not current:
        texts = _listed(text for found in judged.values() for text in found.late)
        log.failed("vtpm.validity", texts, got=trust.now.isoformat(), expected="then")
        return Certified(withdrawn=other.tenants)
    names = _listed(anchor.label for anchor in current)
    at = trust.now.isoformat()
    log.passed("vtpm.validity", f"the chain to {names} is valid at {at}")
    left = {one: found for one, found in current.items() if not found.revoked}
    if not left:
        texts = _listed(text for found in current.values() for text in found.revoked)
        log.failed("vtpm.revocation", f"revoked: {texts}")
        return Certified(withdrawn=other.tenants)
    unknown = _listed(name for found in left.values() for name in found.unknown)
    log.unchecked("vtpm.revocation", _no_list_of(unknown))
    # Nothing is decided yet, so the enrolments that are merely open are left alone.
    return Certified(tuple(left), withdrawn=_withdrawn(judged, left, other.tenants))


def _no_list_of(names: str) -> str:
    return f"no current revocation list of {names} is to hand"


def _complaints(judged: Judged) -> str:
    return _listed(
        f"{anchor.label} ({_listed((*found.late, *found.revoked, *found.unknown))})"
        for anchor, found in judged.items()
    )[:400]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
