"""Who signed a token: a registered key of its issuer, or a chain to a pinned root."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from kbs.core.checks import CheckLog
from kbs.core.errors import MalformedError
from kbs.evidence.model import Trust, TrustedIssuer
from kbs.evidence.token.jws import Jws, is_signed_by
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain, build_chain, may_sign
from kbs.pki.crl import standing
from kbs.pki.issuers import ALGORITHMS, CERTIFIED, IssuerKey, Profile
from kbs.pki.jwk import check_public_key


@dataclass(frozen=True, slots=True)
class Signer:
    """An issuer whose key, or whose root's chain, verifies the token."""

    issuer: TrustedIssuer
    chain: Chain | None = None


def keys_for(jws: Jws, issuer: TrustedIssuer) -> tuple[IssuerKey, ...]:
    """Return the keys that a token may be signed with: those of its `kid`.

    Where the token or the key has no id, the signature alone decides.
    """
    return tuple(
        key
        for key in issuer.keys
        if jws.kid is None or key.kid is None or key.kid == jws.kid
    )


def find_signers(
    jws: Jws, issuers: tuple[TrustedIssuer, ...], profile: Profile, log: CheckLog
) -> tuple[Signer, ...]:
    """Make `token.algorithm` and `token.signature` with the registered keys."""
    keys = [(issuer, key) for issuer in issuers for key in keys_for(jws, issuer)]
    fixed = {key.algorithm for _, key in keys} or set(ALGORITHMS[profile])
    if jws.algorithm not in fixed:
        log.failed(
            "token.algorithm",
            "the token names an algorithm that its issuer does not sign with",
            got=repr(jws.algorithm)[:40],
            expected=" or ".join(sorted(fixed)),
        )
        log.failed(
            "token.signature", "a signature by another algorithm is no signature"
        )
        return ()
    log.passed("token.algorithm", jws.algorithm)
    if not keys:
        log.unchecked("token.signature", lacking(jws, profile))
        return ()
    signers = tuple(Signer(issuer) for issuer in issuers if is_signed(jws, issuer))
    _tell(log, signers, jws)
    return signers


def is_signed(jws: Jws, issuer: TrustedIssuer) -> bool:
    """Whether one of an issuer's keys signed the token, with that key's algorithm."""
    return any(
        key.algorithm == jws.algorithm and is_signed_by(jws, key.key, key.algorithm)
        for key in keys_for(jws, issuer)
    )


def find_certified(
    jws: Jws,
    issuers: tuple[TrustedIssuer, ...],
    trust: Trust,
    cache: LinkCache,
    log: CheckLog,
) -> tuple[Signer, ...]:
    """Make the same checks with the chain in the token, and `token.chain`."""
    (algorithm,) = ALGORITHMS[Profile.GCS]
    if jws.algorithm != algorithm:
        log.failed(
            "token.algorithm",
            "the token names an algorithm that its issuer does not sign with",
            got=repr(jws.algorithm)[:40],
            expected=algorithm,
        )
    else:
        log.passed("token.algorithm", algorithm)
    signers = _chains(jws, issuers, trust, cache, log)
    leaf = jws.chain[0]
    try:
        key = check_public_key(leaf.public_key(), "token x5c key")
    except MalformedError as exc:
        log.failed("token.signature", str(exc))
        return ()
    is_good = jws.algorithm == algorithm and is_signed_by(jws, key, algorithm)
    if is_good and may_sign(leaf, "digital_signature"):
        log.passed("token.signature", f"signed by {describe(leaf.subject)}")
        return signers
    log.failed(
        "token.signature",
        f"not signed by the leaf of its chain, {describe(leaf.subject)}",
    )
    return ()


def uses_chain(jws: Jws, issuers: tuple[TrustedIssuer, ...], profile: Profile) -> bool:
    """Whether the token's own chain is how its issuer signs, and a root is pinned."""
    pinned = any(issuer.roots for issuer in issuers)
    return bool(jws.chain) and profile in CERTIFIED and pinned


def check_revocation(
    chains: tuple[Chain, ...], trust: Trust, cache: LinkCache, log: CheckLog
) -> None:
    """Make `token.revocation` for the certificates of chains inside the token."""
    check = "token.revocation"
    if not chains:
        log.skipped(check, "registered keys are taken back by removing the issuer")
        return
    lists = trust.collateral.revocation_lists()
    revoked: list[str] = []
    unknown: list[str] = []
    for chain in chains:
        for certificate, issuer in pairwise(chain.certificates):
            found = standing((certificate,), issuer, lists, now=trust.now, cache=cache)
            revoked.extend(found.revoked)
            if found.current is None:
                unknown.append(describe(issuer.subject))
    if revoked:
        log.failed(check, f"revoked: {', '.join(dict.fromkeys(revoked))}")
    elif not unknown:
        log.passed(check, "on no list of its issuers")
    else:
        detail = "no current revocation list of " + ", ".join(dict.fromkeys(unknown))
        report = log.unchecked if trust.require_revocation else log.skipped
        report(check, detail)


def lacking(jws: Jws, profile: Profile) -> str:
    """Say what to import so that a token can be checked."""
    key = "no key without an id" if jws.kid is None else f"no key {jws.kid[:100]!r}"
    issuer = "no issuer at all" if jws.issuer is None else repr(jws.issuer[:200])
    return (
        f"the token names {issuer} (profile {profile}), of which {key} is registered: "
        "have an administrator pin the keys that it publishes (kbs ref add issuer), or "
        "give them to kbs evidence verify (--collateral)"
    )


def _chains(
    jws: Jws,
    issuers: tuple[TrustedIssuer, ...],
    trust: Trust,
    cache: LinkCache,
    log: CheckLog,
) -> tuple[Signer, ...]:
    pool = (*jws.chain[1:], *trust.collateral.certificates())
    signers = []
    problem = ""
    for issuer in issuers:
        if not issuer.roots:
            continue
        roots = dict.fromkeys(issuer.roots, f"{issuer.name}'s root")
        found = build_chain(jws.chain[0], pool, roots=roots, cache=cache)
        if isinstance(found, Chain):
            signers.append(Signer(issuer, found))
        else:
            problem = found.detail
    if signers:
        log.passed("token.chain", f"chains to {signers[0].issuer.name}'s pinned root")
    else:
        log.failed("token.chain", f"no chain to a pinned root: {problem}")
    return tuple(signers)


def _tell(log: CheckLog, signers: tuple[Signer, ...], jws: Jws) -> None:
    if signers:
        names = ", ".join(sorted({one.issuer.name for one in signers}))
        log.passed("token.signature", f"signed by {names}")
    else:
        key = "" if jws.kid is None else f" {jws.kid[:100]!r}"
        log.failed("token.signature", f"the token does not verify under key{key}")
