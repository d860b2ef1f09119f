"""Where the chain of an attestation key's certificate ends, and whether it holds.

Every anchor is judged by itself: its own path, dates and revocation lists. What one
tenant registered or imported never speaks for or against the anchor of another.

TCG EK Credential Profile 2.5 and TCG OID Registry (AK certificates); RFC 5280.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509

from kbs.evidence.model import Trust, TrustedCA
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import (
    Chain,
    ChainBroken,
    IssuerMissing,
    build_chain,
    out_of_date,
)
from kbs.pki.crl import standing
from kbs.pki.roots import Purpose, pinned_roots

AK_PURPOSE = "ak"
"""The purpose for which a CA must be registered to vouch for attestation keys."""

# TCG OID Registry 1.00: tcg-kp-AIKCertificate, the key is a TPM's attestation key.
AK_USAGE = x509.ObjectIdentifier("2.23.133.8.3")

# Pinned roots whose CAs leave tcg-kp-AIKCertificate out of AK certificates, although
# they certify no other signing key. Google certifies two keys of an instance, which
# its own vTPM makes: the endorsement key (key usage keyEncipherment or keyAgreement)
# and "the Attestation Key (otherwise known as an AK or a TPM restricted signing key)"
# (digitalSignature). Compute Engine API v1, getShieldedInstanceIdentity;
# Confidential Computing API v1, GceShieldedIdentity.akCert.
# Azure's AK certificates carry the usage, so its root is not here.
GOOGLE_ROOTS = frozenset({"Google EK/AK CA Root", "Google tpm_ek_v1_cloud_host_root"})

DeadEnd = IssuerMissing | ChainBroken


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

    @property
    def attests(self) -> bool:
        """Whether the certificate says that the key is a TPM's attestation key.

        Only that makes what a TPM2B_PUBLIC says of the key more than the host's word.
        """
        leaf = self.chain.certificates[0]
        if _is_for_attestation(leaf):
            return True
        pinned = self.tenant is None and self.name in GOOGLE_ROOTS
        return pinned and _signs_only(leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is wrong with one anchor's path; nothing, when all three are empty."""

    late: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Issuers of whom no current revocation list is to hand."""

    @property
    def bad(self) -> bool:
        """Whether the path does not hold, whatever else may come to hand."""
        return bool(self.late or self.revoked)


def find_anchors(
    leaves: Iterable[x509.Certificate],
    pool: tuple[x509.Certificate, ...],
    trust: Trust,
) -> tuple[tuple[Anchor, ...], tuple[DeadEnd, ...]]:
    """Return where chains from any of the leaves end, and why others ended nowhere."""
    paths = _Paths(pool, trust)
    found: list[Anchor] = []
    dead_ends: list[DeadEnd] = []
    for leaf in leaves:
        for tenant, name, chain in paths.of(leaf):
            if isinstance(chain, Chain):
                label = chain.root_name if name is None else name
                found.append(Anchor(tenant, label, chain))
            else:
                dead_ends.append(chain)
    return tuple(found), tuple(dead_ends)


def judge(anchor: Anchor, trust: Trust) -> Judgement:
    """Hold one anchor's path against the time and the revocation lists."""
    certificates = anchor.chain.certificates
    lists = trust.collateral.revocation_lists()
    revoked: list[str] = []
    unknown: list[str] = []
    for certificate, issuer in pairwise(certificates):
        found = standing((certificate,), issuer, lists, now=trust.now)
        revoked.extend(found.revoked)
        if found.current is None:
            unknown.append(describe(issuer.subject))
    return Judgement(
        late=out_of_date(certificates, trust.now),
        revoked=tuple(revoked),
        unknown=tuple(unknown),
    )


class _Paths:
    """Builds chains over one pool; what is out of date is a second choice."""

    def __init__(self, pool: tuple[x509.Certificate, ...], trust: Trust) -> None:
        self._pool = pool
        self._current = tuple(one for one in pool if not out_of_date((one,), trust.now))
        self._roots = pinned_roots(Purpose.TPM, trust.pinned_roots)
        self._cas = tuple(one for one in trust.cas if one.purpose == AK_PURPOSE)
        self._cache = LinkCache()
        self._issuers = {one.issuer.public_bytes() for one in pool}

    def of(
        self, leaf: x509.Certificate
    ) -> Iterable[tuple[str | None, str | None, Chain | DeadEnd]]:
        """Yield tenant, CA and outcome for the pinned roots and each CA in question."""
        yield None, None, self._build(leaf, None)
        issuers = {leaf.issuer.public_bytes(), *self._issuers}
        for authority in self._cas:
            # Others issued nothing that is to hand.
            if authority.certificate.subject.public_bytes() in issuers:
                yield authority.tenant, authority.name, self._build(leaf, authority)

    def _build(
        self, leaf: x509.Certificate, authority: TrustedCA | None
    ) -> Chain | DeadEnd:
        # An old certificate of a CA, put beside its successor, must not win over it.
        chain = self._over(self._current, leaf, authority)
        if isinstance(chain, Chain) or len(self._current) == len(self._pool):
            return chain
        return self._over(self._pool, leaf, authority)

    def _over(
        self,
        pool: tuple[x509.Certificate, ...],
        leaf: x509.Certificate,
        authority: TrustedCA | None,
    ) -> Chain | DeadEnd:
        if authority is None:
            return build_chain(leaf, pool, roots=self._roots, cache=self._cache)
        anchors = (authority.certificate,)
        return build_chain(leaf, pool, roots={}, anchors=anchors, cache=self._cache)


def _is_for_attestation(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return AK_USAGE in usage


def _signs_only(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    encrypts = usage.key_encipherment or usage.data_encipherment or usage.key_agreement
    return usage.digital_signature and not encrypts
