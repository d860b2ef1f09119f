"""The attestation key's certificate: chain, validity, revocation.

TCG EK Credential Profile 2.5 and TCG PC Client AK certificates, as X.509 (RFC 5280).
A chain counts when it ends at a CA that some tenant registered for `ak`, or at a
pinned TPM root.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from kbs.core.checks import CheckLog
from kbs.evidence.model import Trust
from kbs.evidence.vtpm.item import TpmQuote
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain, IssuerMissing, build_chain, out_of_date
from kbs.pki.crl import standing
from kbs.pki.roots import Purpose, pinned_roots

AK_PURPOSE = "ak"
"""The purpose for which a CA must be registered to vouch for attestation keys."""

_CHECKS = ("vtpm.chain", "vtpm.validity", "vtpm.revocation")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a chain ended: a tenant's CA, or a pinned root (`tenant` is None)."""

    tenant: str | None
    name: str
    chain: Chain

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.name if self.tenant is None else f"{self.tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Certified:
    """The anchors that vouch for the key; `open` if an issuer was not to be had."""

    anchors: tuple[Anchor, ...] = ()
    open: bool = False


def check_certificates(
    quote: TpmQuote, trust: Trust, log: CheckLog, *, required: bool
) -> Certified:
    """Find and check a certificate of the attestation key.

    Without `required` (the key is trusted by other means) certificates that lead
    nowhere are no fault; those that lead to an anchor are held to everything.
    """
    leaf = _leaf(quote, trust, required=required)
    if leaf is None:
        return _without_leaf(quote, log, required=required)
    problem = _leaf_problem(leaf)
    if problem is not None:
        log.failed("vtpm.chain", f"{describe(leaf.subject)}: {problem}")
        return Certified()
    pool = (*quote.certificates, *trust.collateral.certificates())
    anchors, dead_ends = _anchors(leaf, pool, trust)
    if not anchors:
        return _dead_end(dead_ends, log, required=required)
    names = ", ".join(anchor.label for anchor in anchors)
    log.passed("vtpm.chain", f"{describe(leaf.subject)} chains to {names}")
    valid = _valid(anchors, trust, log)
    if not valid or not _not_revoked(valid, trust, log):
        return Certified()
    return Certified(valid)


def _leaf(quote: TpmQuote, trust: Trust, *, required: bool) -> x509.Certificate | None:
    if quote.certificates or not required:
        return _with_key(quote, quote.certificates)
    return _with_key(quote, trust.collateral.certificates())


def _with_key(
    quote: TpmQuote, certificates: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    for certificate in certificates:
        try:
            if certificate.public_key() == quote.ak.key:
                return certificate
        except (ValueError, UnsupportedAlgorithm):  # not this key, whatever it is
            continue
    return None


def _without_leaf(quote: TpmQuote, log: CheckLog, *, required: bool) -> Certified:
    if quote.certificates and required:
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


def _anchors(
    leaf: x509.Certificate, pool: tuple[x509.Certificate, ...], trust: Trust
) -> tuple[tuple[Anchor, ...], tuple[object, ...]]:
    cache = LinkCache()
    found: list[Anchor] = []
    dead_ends: list[object] = []
    roots = pinned_roots(Purpose.TPM, trust.pinned_roots)
    pinned = build_chain(leaf, pool, roots=roots, cache=cache)
    if isinstance(pinned, Chain):
        found.append(Anchor(None, pinned.root_name, pinned))
    else:
        dead_ends.append(pinned)
    issuers = {certificate.issuer.public_bytes() for certificate in (leaf, *pool)}
    for authority in trust.cas:
        anchor = authority.certificate
        if authority.purpose != AK_PURPOSE:
            continue
        if anchor.subject.public_bytes() not in issuers:
            continue  # it issued nothing that is to hand
        chain = build_chain(leaf, pool, roots={}, anchors=(anchor,), cache=cache)
        if isinstance(chain, Chain):
            found.append(Anchor(authority.tenant, authority.name, chain))
        else:
            dead_ends.append(chain)
    return tuple(found), tuple(dead_ends)


def _dead_end(
    dead_ends: tuple[object, ...], log: CheckLog, *, required: bool
) -> Certified:
    detail = "; ".join(str(getattr(end, "detail", "")) for end in dead_ends)[:400]
    if not required:
        for check in _CHECKS:
            log.skipped(check, f"the key is trusted without a certificate; {detail}")
        return Certified()
    incomplete = all(isinstance(end, IssuerMissing) for end in dead_ends)
    if incomplete:
        log.unchecked("vtpm.chain", f"{detail}; add it, or register the CA for ak")
    else:
        log.failed("vtpm.chain", detail)
    return Certified(open=incomplete)


def _valid(
    anchors: tuple[Anchor, ...], trust: Trust, log: CheckLog
) -> tuple[Anchor, ...]:
    complaints = {
        anchor: out_of_date(anchor.chain.certificates, trust.now) for anchor in anchors
    }
    valid = tuple(anchor for anchor in anchors if not complaints[anchor])
    if valid:
        log.passed("vtpm.validity", f"the chain is valid at {trust.now.isoformat()}")
        return valid
    texts = dict.fromkeys(text for found in complaints.values() for text in found)
    log.failed(
        "vtpm.validity", "; ".join(texts), got=trust.now.isoformat(), expected="then"
    )
    return ()


def _not_revoked(anchors: tuple[Anchor, ...], trust: Trust, log: CheckLog) -> bool:
    lists = trust.collateral.revocation_lists()
    revoked: list[str] = []
    unknown: list[str] = []
    for anchor in anchors:
        for certificate, issuer in pairwise(anchor.chain.certificates):
            found = standing((certificate,), issuer, lists, now=trust.now)
            revoked.extend(found.revoked)
            if found.current is None:
                unknown.append(describe(issuer.subject))
    if revoked:
        log.failed("vtpm.revocation", f"revoked: {', '.join(dict.fromkeys(revoked))}")
        return False
    if not unknown:
        log.passed("vtpm.revocation", "no certificate of the chain is revoked")
        return True
    names = ", ".join(dict.fromkeys(unknown))
    detail = f"no current revocation list of {names} is to hand"
    if trust.require_revocation:
        log.unchecked("vtpm.revocation", detail)
    else:
        log.skipped("vtpm.revocation", detail)
    return True
