"""The verifier of Arm CCA attestation tokens.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `cca.profile`             both tokens have profiles that go together
2. `cca.trust`               a key of this platform (CPAK) is registered
3. `cca.platform.signature`  the platform token is signed by it
4. `cca.realm.key`           the platform token's challenge is the hash of the realm's
   key (RAK), by the algorithm that the realm token names
5. `cca.realm.signature`     the realm token is signed by that key
6. `cca.revocation`          there are no lists: a key is taken back by removing it

Nothing is known of a platform but its key: Arm publishes no root, so CPAKs are
registered by hand or from a maker's endorsements (`kbs ref add issuer --service cca`).
Left out on purpose: life cycle, firmware and measurements are claims for a policy.
Tokens carry no times; freshness is the realm's challenge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.checks import CheckLog, Status
from kbs.core.claims import ClaimSpec, ItemClaims, nest
from kbs.core.encode import parse_b64, require_members
from kbs.core.errors import MalformedError
from kbs.evidence.cca.abi import CHALLENGE_BYTES, MAX_TOKEN, CcaToken, parse_token
from kbs.evidence.cca.claims import CCA_CLAIMS, claims_of
from kbs.evidence.model import ItemResult, ParsedItem, Trust, TrustedIssuer
from kbs.pki.cose import is_sign1_signed
from kbs.pki.issuers import IssuerKey, Profile
from kbs.pki.jwk import PublicJwk

KIND = "cca"

_BINDING_BYTES = 48
# Platform profile to the realm profile beside it; the first is of before there was one
# for realms (RMM 1.0 EAC, TF-RMM), the second of draft-ffm-rats-cca-token-00 and the
# third of RMM 1.0 REL (DEN0137) and draft-ffm-rats-cca-token-03.
_PROFILES: Mapping[str, str | None] = {
    "http://arm.com/CCA-SSD/1.0.0": None,
    "tag:arm.com,2023:cca_platform#1.0.0": "tag:arm.com,2023:realm#1.0.0",
    "tag:arm.com,2024:cca_platform#2.0.0": "tag:arm.com,2024:realm#2.0.0",
}
# IANA's registry of hash functions, as the tokens write them.
_HASHES = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A registered key for the token's platform, and who registered it."""

    issuer: TrustedIssuer
    key: IssuerKey


class CcaVerifier:
    """Verifies items of kind `cca`; keeps no state."""

    primary = True

    @property
    def kind(self) -> str:
        """The `kind` of its items, which is also the family of its claims."""
        return KIND

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return CCA_CLAIMS

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item, `{"kind": "cca", "token": b64}`.

        Raises:
            MalformedError: a member or the token is malformed.
        """
        members = require_members(dict(item), "cca item", required={"kind", "token"})
        if members["kind"] != KIND:
            got = repr(members["kind"])[:40]
            raise MalformedError("item kind", got=got, expected=KIND)
        token = parse_token(parse_b64(members["token"], "cca token", limit=MAX_TOKEN))
        return ParsedItem(
            kind=KIND,
            index=index,
            core=token.raw,
            bound=token.realm.challenge,
            body=token,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        token = _body(parsed)
        document = nest(claims_of(token), KIND)
        document["lifecycle"] = f"{token.platform.lifecycle:04x}"
        document["platform_challenge"] = token.platform.challenge.hex()
        document["realm_public_key"] = token.realm.public_key.hex()
        document["algorithms"] = {
            "platform": token.platform.message.algorithm.name,
            "realm": token.realm.message.algorithm.name,
        }
        return document

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether the realm's challenge is this binding followed by 16 zero bytes."""
        if len(binding) != _BINDING_BYTES:
            return False
        return parsed.bound == binding.ljust(CHALLENGE_BYTES, b"\0")

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run the checks; evidence that is wrong gives checks that say so."""
        token = _body(parsed)
        log = CheckLog(parsed.index)
        _check_profile(token, log)
        anchors = _check_trust(token, trust, log)
        signers = _check_platform(token, anchors, log)
        _check_realm_key(token, log)
        _check_realm(token, log)
        log.skipped("cca.revocation", "a platform's key is taken back by removing it")
        return ItemResult(
            checks=log.checks,
            claims=_claims(token, signers, log, parsed.index),
            authenticated=all(
                log.status_of(check) is Status.PASS
                for check in (
                    "cca.platform.signature",
                    "cca.realm.key",
                    "cca.realm.signature",
                )
            ),
            identities=_identities(token, signers),
        )


def _body(parsed: ParsedItem) -> CcaToken:
    if not isinstance(parsed.body, CcaToken):
        message = f"an item of kind {parsed.kind} was given to the cca verifier"
        raise TypeError(message)
    return parsed.body


def _check_profile(token: CcaToken, log: CheckLog) -> None:
    check = "cca.profile"
    platform, realm = token.platform.profile, token.realm.profile
    if platform not in _PROFILES:
        # Another profile may bind the realm's key by another claim.
        log.unchecked(check, f"profile {platform[:100]!r} is not known to this release")
    elif realm not in {None, _PROFILES[platform]}:
        log.failed(
            check,
            "the realm token is of another profile than the platform token",
            got=repr(realm)[:100],
            expected=str(_PROFILES[platform]),
        )
    else:
        log.passed(check, platform)


def _check_trust(token: CcaToken, trust: Trust, log: CheckLog) -> tuple[_Anchor, ...]:
    check = "cca.trust"
    platform = token.platform
    known = [
        _Anchor(issuer, key)
        for issuer in trust.issuers
        if issuer.profile is Profile.CCA
        for key in issuer.keys
        if key.instance_id in {None, platform.instance_id}
    ]
    anchors = tuple(
        one
        for one in known
        if one.key.implementation_id in {None, platform.implementation_id}
    )
    if not known:
        log.unchecked(
            check,
            f"no key of platform {platform.instance_id.hex()} is registered: import "
            "its CPAK (kbs ref add issuer --service cca), or give it to kbs evidence "
            "verify (--collateral)",
        )
    elif not anchors:
        log.failed(
            check,
            "the platform's key is registered for another implementation",
            got=platform.implementation_id.hex(),
            expected="the registered implementation_id",
        )
    elif all(one.issuer.tenant is None for one in anchors):
        log.skipped(check, "keys that are trusted for this one command")
    else:
        names = {f"{one.issuer.tenant}/{one.issuer.name}" for one in anchors}
        log.passed(check, f"registered as {', '.join(sorted(names))}")
    return anchors


def _check_platform(
    token: CcaToken, anchors: tuple[_Anchor, ...], log: CheckLog
) -> tuple[_Anchor, ...]:
    """Return the registered keys that signed."""
    check = "cca.platform.signature"
    message = token.platform.message
    signers = tuple(
        one
        for one in anchors
        if one.key.algorithm == message.algorithm.name
        and is_sign1_signed(message, one.key.key)
    )
    if not anchors:
        log.unchecked(check, "there is no key of this platform to verify it with")
    elif signers:
        log.passed(check, f"{message.algorithm.name} by the platform's key")
    else:
        log.failed(check, "the platform token does not verify under the platform's key")
    return signers


def _check_realm_key(token: CcaToken, log: CheckLog) -> None:
    check = "cca.realm.key"
    realm = token.realm
    name = _HASHES.get(realm.public_key_hash_algo_id)
    if name is None:
        log.failed(
            check,
            "the hash of the realm's key is by an unknown algorithm",
            got=repr(realm.public_key_hash_algo_id)[:40],
            expected=" or ".join(_HASHES),
        )
        return
    digest = hashlib.new(name, realm.public_key).hexdigest()
    challenge = token.platform.challenge.hex()
    log.compared(
        check, "the platform's challenge names the realm's key", challenge, digest
    )


def _check_realm(token: CcaToken, log: CheckLog) -> None:
    check = "cca.realm.signature"
    message = token.realm.message
    if is_sign1_signed(message, token.realm.key):
        log.passed(check, f"{message.algorithm.name} by the realm's key")
    else:
        log.failed(check, "the realm token does not verify under the key in it")


def _claims(
    token: CcaToken, signers: tuple[_Anchor, ...], log: CheckLog, index: int
) -> ItemClaims | None:
    open_or_failed = {Status.FAIL, Status.UNCHECKED}
    if not signers or any(check.status in open_or_failed for check in log.checks):
        return None
    tenants = {one.issuer.tenant for one in signers}
    named = frozenset(tenant for tenant in tenants if tenant is not None)
    return ItemClaims(
        family=KIND,
        item=index,
        values=claims_of(token),
        trusted_in=None if None in tenants else named,
    )


def _identities(token: CcaToken, signers: tuple[_Anchor, ...]) -> tuple[str, ...]:
    if not signers:
        return ()
    spki = {
        hashlib.sha256(PublicJwk(key=one.key.key).spki).hexdigest() for one in signers
    }
    names = [f"spki:{one}" for one in sorted(spki)]
    return (*names, f"instance:{token.platform.instance_id.hex()}")
