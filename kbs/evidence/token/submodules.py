"""The detached tokens of a set: each is the one that the overall token names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from kbs.core.checks import CheckLog
from kbs.evidence.token import nras
from kbs.evidence.token.fields import object_at
from kbs.evidence.token.jws import Jws
from kbs.evidence.token.service import Token
from kbs.evidence.token.signers import Signer, is_signed
from kbs.pki.issuers import Profile

# RFC 9711, section 4.2.18.2: ["DIGEST", [algorithm, digest]]; named as in IANA's
# registry of hash functions.
_HASHES = {"SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_PAIR = 2


def check_submodules(token: Token, signers: tuple[Signer, ...], log: CheckLog) -> None:
    """Make `token.submodules` and `token.submodules.signature`."""
    check = "token.submodules"
    if token.profile is not Profile.NRAS:
        log.skipped(check, "tokens of this issuer come alone")
        return
    named = object_at(token.claims, "submods")
    missing = sorted(named.keys() - token.submodules.keys())
    wrong = _wrong(token, named)
    if wrong:
        log.failed(check, "; ".join(wrong)[:400])
    elif missing or not named:
        what = ", ".join(missing)[:200] or "any device"
        log.unchecked(check, f"the set lacks the token of {what}")
    else:
        log.passed(check, f"{len(named)} tokens, each as the overall token names it")
    _check_signatures(token, signers, log)


def _wrong(token: Token, named: Mapping[str, object]) -> list[str]:
    wrong = []
    for name, jws in token.submodules.items():
        if name not in named:
            wrong.append(f"{name} is not of the set")
        elif not _is_named(jws, named[name]):
            wrong.append(f"{name} is another token than the one named by digest")
        if jws.claims.get("iss") != token.claims.get("iss"):
            wrong.append(f"{name} is by another issuer")
        if jws.claims.get("eat_nonce") != token.claims.get("eat_nonce"):
            wrong.append(f"{name} has another eat_nonce")
    return wrong + _twice(token)


def _twice(token: Token) -> list[str]:
    # The service appraises whatever reports it is sent, one device's twice as well; a
    # policy that counts would count two.
    first: dict[int | str, str] = {}
    wrong = []
    for name, jws in token.submodules.items():
        number = nras.ueid(jws.claims)
        known = first.setdefault(jws.compact if number is None else int(number), name)
        if known != name:
            wrong.append(f"{name} is the same device as {known}")
    return wrong


def _is_named(jws: Jws, entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != _PAIR or entry[0] != "DIGEST":
        return False
    pair = entry[1]
    if not isinstance(pair, list) or len(pair) != _PAIR:
        return False
    algorithm, digest = pair
    name = _HASHES.get(algorithm) if isinstance(algorithm, str) else None
    if name is None:
        return False
    return bool(digest == hashlib.new(name, jws.compact.encode("ascii")).hexdigest())


def _check_signatures(token: Token, signers: tuple[Signer, ...], log: CheckLog) -> None:
    check = "token.submodules.signature"
    if not token.submodules:
        log.unchecked(check, "there is no token of a device")
    elif not signers:
        log.unchecked(check, "nobody is known to have signed the overall token")
    else:
        bad = [
            name
            for name, jws in token.submodules.items()
            if not any(is_signed(jws, one.issuer) for one in signers)
        ]
        if bad:
            log.failed(check, f"not signed by the issuer: {', '.join(bad)[:200]}")
        else:
            log.passed(check, "by keys of the same issuer")
