"""Administrators' tokens: one EdDSA JWT per request, good for 60 seconds at most.

Claims (RFC 7519): `aud` the instance, `iss` = `sub` = the key id (hex SHA-256 of the
SPKI), `iat`, `exp`, `jti`, and the request itself: `m` the method, `p` the path with
its query, `b` hex SHA-256 of the body. That a `jti` is used once is the caller's
business, for writes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from jwt.types import Options

from kbs.channel.signing import response_key_id
from kbs.core.errors import AuthenticationError, said_by

TOKEN_LIFETIME_SECONDS = 60
"""Longest time from `iat` to `exp` (decisions, section 6)."""

CLOCK_SKEW_SECONDS = 5
"""How far an administrator's clock may be ahead. A token is accepted during at most
this much more than its lifetime: one made for later is refused."""

MAX_TOKEN_CHARACTERS = 4096

_TYPE = "kbs-admin+jwt"
_CLAIMS = ("aud", "iss", "sub", "iat", "exp", "jti", "m", "p", "b")
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)

KeyLookup = Callable[[str], Ed25519PublicKey | None]
"""Returns an administrator's public key by key id, from the authority in force."""

# Every option is spelled out. Times are judged below, against the injected clock.
_OPTIONS: Options = {
    "verify_signature": True,
    "require": list(_CLAIMS),
    "verify_aud": True,
    "strict_aud": True,
    "verify_iss": True,
    "verify_sub": True,
    "verify_jti": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "enforce_minimum_key_length": True,
}


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The HTTP request that a token speaks for."""

    method: str
    path: str
    body: bytes = b""

    @property
    def body_digest(self) -> str:
        """Hex SHA-256 of the body."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """Who made the request, and the token's own id with its end."""

    keyid: str
    jti: str
    expires: datetime


def mint_token(
    key: Ed25519PrivateKey, request: SignedRequest, *, instance: str, now: datetime
) -> str:
    """Return the token of one request (the client's side)."""
    keyid = response_key_id(key.public_key())
    issued = int(now.timestamp())
    claims = {
        "aud": instance,
        "iss": keyid,
        "sub": keyid,
        "iat": issued,
        "exp": issued + TOKEN_LIFETIME_SECONDS,
        "jti": secrets.token_hex(16),
        "m": request.method,
        "p": request.path,
        "b": request.body_digest,
    }
    return jwt.encode(
        claims, key, algorithm="EdDSA", headers={"typ": _TYPE, "kid": keyid}
    )


def verify_token(
    token: str,
    request: SignedRequest,
    *,
    instance: str,
    find_key: KeyLookup,
    now: datetime,
) -> VerifiedToken:
    """Return who made this very request.

    Raises:
        AuthenticationError: `token.malformed`, `.key`, `.signature`, `.time` or
            `.request`.
    """
    keyid = _parse_header(token)
    key = find_key(keyid)
    if key is None:
        raise _fault("key", f"key {keyid[:16]}…", "a key of the authority in force")
    claims = _decode(token, key, keyid, instance)
    expires = _check_times(claims, now)
    _check_request(claims, request)
    return VerifiedToken(keyid=keyid, jti=str(claims["jti"]), expires=expires)


def _parse_header(token: str) -> str:
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise _fault("malformed", f"{len(token)} characters", "a compact JWS")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise _fault("malformed", said_by(exc), "a compact JWS") from exc
    keyid = header.get("kid")
    is_ours = header == {"alg": "EdDSA", "typ": _TYPE, "kid": keyid}
    if not is_ours or not isinstance(keyid, str) or not _HEX64.fullmatch(keyid):
        raise _fault("malformed", "another header", f"EdDSA, typ {_TYPE}, a key id")
    return keyid


def _decode(
    token: str, key: Ed25519PublicKey, keyid: str, instance: str
) -> dict[str, object]:
    try:
        claims: dict[str, object] = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            options=_OPTIONS,
            audience=instance,
            issuer=keyid,
            subject=keyid,
        )
    except jwt.InvalidSignatureError as exc:
        raise _fault("signature", "none that verifies", f"key {keyid[:16]}…") from exc
    except jwt.PyJWTError as exc:
        raise _fault("malformed", said_by(exc), "the claims of kbs") from exc
    if claims.keys() != set(_CLAIMS) or not _HEX32.fullmatch(str(claims["jti"])):
        raise _fault("malformed", ", ".join(sorted(claims)), ", ".join(_CLAIMS))
    return claims


def _check_times(claims: dict[str, object], now: datetime) -> datetime:
    issued, expires = claims["iat"], claims["exp"]
    if type(issued) is not int or type(expires) is not int:
        raise _fault("malformed", "iat or exp of another type", "whole seconds")
    seconds = int(now.timestamp())
    if not 0 < expires - issued <= TOKEN_LIFETIME_SECONDS:
        raise _fault(
            "time", f"{expires - issued} s", f"at most {TOKEN_LIFETIME_SECONDS} s"
        )
    # With the lifetime checked, this bounds `exp` too: lifetime plus skew from now.
    if seconds >= expires or issued > seconds + CLOCK_SKEW_SECONDS:
        raise _fault("time", f"{issued} to {expires}", f"one that covers {seconds}")
    return datetime.fromtimestamp(expires, UTC)


def _check_request(claims: dict[str, object], request: SignedRequest) -> None:
    got = (claims["m"], claims["p"], claims["b"])
    expected = (request.method, request.path, request.body_digest)
    if got != expected:
        raise _fault("request", "a token of another request", f"{expected[:2]}")


def _fault(name: str, got: str, expected: str) -> AuthenticationError:
    return AuthenticationError(
        f"token.{name}", got=got, expected=expected, code=f"token.{name}"
    )
