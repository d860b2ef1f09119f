"""Administrators' tokens as the RCAR tools make them, good for uploads only.

Those tools sign a JWT with the administrator's key and send it as it is with every
request until it expires: no key id, no audience of ours, nothing of the request in it.
Whoever gets hold of one can upload in its owner's name until then, so its life is
capped here, and it is taken for nothing else (`docs/trustee.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.types import Options

from kbs.channel.token import CLOCK_SKEW_SECONDS, MAX_TOKEN_CHARACTERS
from kbs.core.errors import AuthenticationError, said_by

MAX_LIFETIME_SECONDS = 2 * 3600
"""Longest time from `iat` to `exp`: what `kbs-client` gives its tokens."""

# Claims by which `kbs.channel.token` binds a token to one request.
_SIGNED_REQUEST = frozenset({"m", "p", "b"})

# Every option is spelled out. Times are judged below, against the injected clock.
_OPTIONS: Options = {
    "verify_signature": True,
    "require": ["iat", "exp"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
    "enforce_minimum_key_length": True,
}


def verify_upload_token(
    token: str, keys: Mapping[str, Ed25519PublicKey], *, now: datetime
) -> str:
    """Return the id of the one key that signed the token.

    Raises:
        AuthenticationError: `token.malformed`, `.signature` or `.time`.
    """
    _check_header(token)
    for keyid, key in keys.items():
        try:
            claims: dict[str, object] = jwt.decode(
                token, key, algorithms=["EdDSA"], options=_OPTIONS
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, RecursionError) as exc:
            raise _fault("malformed", said_by(exc), "EdDSA, iat, exp") from exc
        if not _SIGNED_REQUEST.isdisjoint(claims):
            raise _fault("request", "a token of one request", "one of the RCAR tools")
        _check_times(claims, now)
        return keyid
    raise _fault("signature", "none that verifies", "one by an administrator's key")


def _check_header(token: str) -> None:
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise _fault("malformed", "another text", "a compact JWS")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise _fault("malformed", said_by(exc), "a compact JWS") from exc
    # The tokens of our own tools are for one request each, and are none of these.
    if header.get("typ", "JWT") != "JWT":
        raise _fault("malformed", "another typ", "JWT")


def _check_times(claims: Mapping[str, object], now: datetime) -> None:
    issued, expires = claims["iat"], claims["exp"]
    since = claims.get("nbf", issued)
    if type(issued) is not int or type(expires) is not int or type(since) is not int:
        raise _fault("malformed", "iat, nbf or exp of another type", "whole seconds")
    seconds = int(now.timestamp())
    if not 0 < expires - issued <= MAX_LIFETIME_SECONDS:
        expected = f"1 to {MAX_LIFETIME_SECONDS} s from iat to exp"
        raise _fault("time", f"{expires - issued} s", expected)
    if seconds >= expires or max(issued, since) > seconds + CLOCK_SKEW_SECONDS:
        raise _fault("time", f"{issued} to {expires}", f"one that covers {seconds}")


def _fault(name: str, got: str, expected: str) -> AuthenticationError:
    return AuthenticationError(
        "upload token", got=got, expected=expected, code=f"token.{name}"
    )
