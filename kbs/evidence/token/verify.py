"""The verifier of tokens that attestation services sign.

Every check whose inputs are to hand is made; none stops at the first that fails:

1. `token.issuer`      its `iss` is a registered issuer of its profile
2. `token.algorithm`   it names the one algorithm that its key is registered with
3. `token.signature`   it is signed by a registered key, found by `kid`
4. `token.chain`       PKI tokens: the chain inside leads to a pinned root
5. `token.revocation`  none of those certificates is on a list of its issuer
6. `token.validity`    now is not before nbf and iat, and before exp
7. `token.audience`    `aud` is the registered one
8. `token.verifier`    a result of a broker like this one is never evidence
9. `token.submodules`  NVIDIA: the set is complete, each token of it is the one named
   by digest, of one issuer, one nonce and a device of its own;
   `token.submodules.signature`: signed too

Nothing is fetched: keys come from signed statements, never from where a token points
to. What the services appraised, and how well, are claims for a policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.checks import CheckLog, Status
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.core.clock import format_time
from kbs.evidence.model import ItemResult, ParsedItem, Trust, TrustedIssuer
from kbs.evidence.token import ear, nras
from kbs.evidence.token.item import KIND, inspect_item, parse_item
from kbs.evidence.token.jws import Jws
from kbs.evidence.token.service import Token
from kbs.evidence.token.services import SERVICES
from kbs.evidence.token.signers import (
    Signer,
    check_revocation,
    find_certified,
    find_signers,
    lacking,
    uses_chain,
)
from kbs.evidence.token.submodules import check_submodules
from kbs.pki.cache import LinkCache
from kbs.pki.chain import out_of_date

_BINDING_BYTES = 48
_MAX_SHOWN = 100


class TokenVerifier:
    """Verifies items of kind `token`; holds a cache of good certificate signatures."""

    # What a token is about, its profile says (`ParsedItem.primary`).
    primary = False

    def __init__(self, cache: LinkCache | None = None) -> None:
        """Use the given cache, or one of its own."""
        self._cache = cache if cache is not None else LinkCache()

    @property
    def kind(self) -> str:
        """The `kind` of its items; the family of their claims is their profile."""
        return KIND

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return tuple(
            spec for service in SERVICES.values() for spec in service.vocabulary
        )

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item.

        Raises:
            MalformedError: a member or a token lacks the promised shape.
        """
        token = parse_item(item)
        service = SERVICES[token.profile]
        return ParsedItem(
            kind=KIND,
            index=index,
            core=token.jws.compact.encode("ascii"),
            bound=service.bound(token),
            body=token,
            primary=service.primary,
            bound_as=service.bound_as,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        return inspect_item(_body(parsed))

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether the field that the profile's row names is exactly this binding."""
        token = _body(parsed)
        if len(binding) != _BINDING_BYTES:
            return False
        return SERVICES[token.profile].is_bound(token, binding)

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run the checks; evidence that is wrong gives checks that say so."""
        token = _body(parsed)
        log = CheckLog(parsed.index)
        issuers = _check_issuer(token, trust, log)
        signers = self._check_signature(token, issuers, trust, log)
        chains = tuple(one.chain for one in signers if one.chain is not None)
        check_revocation(chains, trust, self._cache, log)
        late = tuple(
            complaint
            for chain in chains
            for complaint in out_of_date(chain.certificates, trust.now)
        )
        _check_validity(token, trust, late, log)
        signers = _check_audience(token.jws, signers, log)
        _check_verifier(token, log)
        check_submodules(token, signers, log)
        claims = _claims(token, signers, log, parsed.index)
        passed = (Status.PASS, Status.SKIPPED)
        return ItemResult(
            checks=log.checks,
            authenticated=log.status_of("token.signature") is Status.PASS
            and log.status_of("token.chain") in passed,
            identities=_identities(token),
            claims=claims[0] if claims else None,
            further_claims=claims[1:],
        )

    def _check_signature(
        self,
        token: Token,
        issuers: tuple[TrustedIssuer, ...],
        trust: Trust,
        log: CheckLog,
    ) -> tuple[Signer, ...]:
        jws = token.jws
        if uses_chain(jws, issuers, token.profile):
            return find_certified(jws, issuers, trust, self._cache, log)
        signers = find_signers(jws, issuers, token.profile, log)
        log.skipped("token.chain", "the token's issuer is known by its keys")
        return signers


def _body(parsed: ParsedItem) -> Token:
    if not isinstance(parsed.body, Token):
        message = f"an item of kind {parsed.kind} was given to the token verifier"
        raise TypeError(message)
    return parsed.body


def _check_issuer(
    token: Token, trust: Trust, log: CheckLog
) -> tuple[TrustedIssuer, ...]:
    check = "token.issuer"
    found = tuple(
        one
        for one in trust.issuers
        if one.profile is token.profile and one.issuer in {None, token.jws.issuer}
    )
    if not found:
        log.unchecked(check, lacking(token.jws, token.profile))
    elif all(one.tenant is None for one in found):
        log.skipped(check, "keys that are trusted for this one command")
    else:
        names = sorted(f"{one.tenant}/{one.name}" for one in found if one.tenant)
        log.passed(check, f"registered as {', '.join(names)}")
    return found


def _check_validity(
    token: Token, trust: Trust, late: tuple[str, ...], log: CheckLog
) -> None:
    check = "token.validity"
    members = (token.jws, *token.submodules.values())
    wrong = [*late, *(text for jws in members for text in _untimely(jws, trust))]
    if log.status_of("token.signature") is Status.UNCHECKED:
        # What it says of its times is nobody's word yet.
        detail = "; ".join(dict.fromkeys(wrong)) or "it says that it is valid now"
        log.unchecked(check, f"not known whose word it is: {detail}"[:400])
    elif wrong:
        log.failed(
            check,
            "; ".join(dict.fromkeys(wrong))[:400],
            got=format_time(trust.now),
            expected="a time at which the token is valid",
        )
    elif all(jws.time("exp") is None for jws in members):
        # Only recorded evidence comes here: see `_untimely`.
        log.skipped(check, "the token says nothing of when it ends")
    else:
        log.passed(check, "at this time")


def _untimely(jws: Jws, trust: Trust) -> list[str]:
    wrong = []
    for name in ("nbf", "iat"):
        begins = jws.time(name)
        if begins is not None and trust.now < begins:
            wrong.append(f"{name} is {format_time(begins)}")
    ends = jws.time("exp")
    if ends is None:
        if not trust.recorded:
            wrong.append("it has no exp, so that it would count for ever")
    elif trust.now >= ends:
        # RFC 7519, section 4.1.4: not on or after.
        wrong.append(f"exp is {format_time(ends)}")
    return wrong


def _check_audience(
    jws: Jws, signers: tuple[Signer, ...], log: CheckLog
) -> tuple[Signer, ...]:
    """Return the signers for whose audience the token is made."""
    check = "token.audience"
    got = jws.claims.get("aud")
    fitting = tuple(
        one
        for one in signers
        if one.issuer.audience == got
        or (one.issuer.tenant is None and one.issuer.audience is None)
    )
    if not signers:
        log.skipped(check, "nobody whose audience could be compared signed it")
    elif not fitting:
        wanted = {one.issuer.audience or "none" for one in signers}
        log.failed(
            check,
            "the token is made for somebody else",
            got=repr(got)[:_MAX_SHOWN],
            expected=" or ".join(sorted(wanted)),
        )
    elif got is None or not any(one.issuer.audience for one in fitting):
        log.skipped(check, "no audience is registered for this issuer")
    else:
        log.passed(check, "the registered one")
    return fitting


def _check_verifier(token: Token, log: CheckLog) -> None:
    if ear.is_own(token.claims):
        log.failed(
            "token.verifier",
            "a token that a key broker issued says who attested to it, no more",
            got="ear.verifier-id of kbs",
            expected="a verifier's token",
        )
    else:
        log.passed("token.verifier", "no broker's own token")


def _identities(token: Token) -> tuple[str, ...]:
    """Name the devices of NVIDIA's tokens: the same one twice is refused."""
    names = []
    for jws in token.submodules.values():
        number = nras.ueid(jws.claims)
        if number is not None:
            names.append(f"gpu:{_hex(int(number))}")
    return tuple(names)


def _hex(number: int) -> str:
    """Write a number as deny entries name GPUs: hex of whole bytes."""
    text = f"{number:x}"
    return text.zfill(len(text) + len(text) % 2)


def _claims(
    token: Token, signers: tuple[Signer, ...], log: CheckLog, index: int
) -> tuple[ItemClaims, ...]:
    open_or_failed = {Status.FAIL, Status.UNCHECKED}
    if not signers or any(check.status in open_or_failed for check in log.checks):
        return ()
    tenants = {one.issuer.tenant for one in signers}
    named = frozenset(tenant for tenant in tenants if tenant is not None)
    return tuple(
        ItemClaims(
            family=token.profile.value,
            item=index,
            values=values,
            trusted_in=None if None in tenants else named,
        )
        for values in SERVICES[token.profile].devices(token)
    )
