"""JSON Web Tokens in the compact form (RFC 7515, section 7.1; RFC 7519), read strictly.

Three parts of canonical base64url without padding; header and claims are JSON objects
without members twice and without floats. What the header says about keys (`jku`, `x5u`,
`jwk`, `x5t`) is never followed or believed; `x5c` is kept for the one profile whose
design uses it. A header with `crit` is refused: none of its extensions is understood
here. PyJWT verifies the signature, with one algorithm that the key fixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import jwt
from cryptography import x509

from kbs.core.encode import (
    parse_b64,
    parse_b64u,
    parse_json_object,
    require_list,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES, load_der_certificate
from kbs.pki.jwk import PublicKey

MAX_TOKEN = 256 * 1024
"""Characters of one token. The largest carry whole evidence (annotated EARs)."""

MAX_CHAIN = 8

_PARTS = 3
_MAX_WORD = 512
# RFC 7519, section 2 (NumericDate), within what `datetime` can say.
_LAST_SECOND = 253_402_300_799
# RFC 7515, section 4.1: what a header may say about keys and we never use.
_UNUSED = ("jku", "jwk", "x5u", "x5t", "x5t#S256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A token in its parts; nothing in it is proven."""

    compact: str = field(repr=False)
    algorithm: str
    kid: str | None
    header: Mapping[str, object]
    claims: Mapping[str, object]
    chain: tuple[x509.Certificate, ...]

    @property
    def issuer(self) -> str | None:
        """`iss`, where there is one."""
        value = self.claims.get("iss")
        return value if isinstance(value, str) else None

    @property
    def ignored(self) -> tuple[str, ...]:
        """Header members about keys that are not looked at."""
        return tuple(name for name in _UNUSED if name in self.header)

    def time(self, name: str) -> datetime | None:
        """Return a NumericDate; None where it is absent.

        Raises:
            MalformedError: it is no whole number of seconds.
        """
        value = self.claims.get(name)
        if value is None:
            return None
        # `bool` is an `int` in Python.
        if type(value) is not int or not 0 <= value <= _LAST_SECOND:
            raise MalformedError(
                f"token {name}", got=repr(value)[:40], expected="seconds since 1970"
            )
        return datetime.fromtimestamp(value, UTC)


def parse_jws(text: object, what: str) -> Jws:
    """Read one token.

    Raises:
        MalformedError: it lacks the promised shape.
    """
    compact = require_text(text, what, limit=MAX_TOKEN)
    parts = compact.split(".")
    if len(parts) != _PARTS:
        raise MalformedError(
            what, got=f"{len(parts)} parts", expected="header.claims.signature"
        )
    header = _object(parts[0], f"{what} header")
    if "crit" in header:
        raise MalformedError(
            f"{what} header crit",
            got=repr(header["crit"])[:40],
            expected="no critical extensions",
        )
    if "b64" in header:
        raise MalformedError(
            f"{what} header b64", got="one", expected="none (RFC 7797 is not used)"
        )
    parse_b64u(parts[2], f"{what} signature", limit=MAX_TOKEN)
    jws = Jws(
        compact=compact,
        algorithm=require_text(header.get("alg"), f"{what} alg", limit=_MAX_WORD),
        kid=_kid(header, what),
        header=header,
        claims=_object(parts[1], f"{what} claims"),
        chain=_chain(header.get("x5c"), f"{what} x5c"),
    )
    for name in ("nbf", "iat", "exp"):
        jws.time(name)
    return jws


def is_signed_by(jws: Jws, key: PublicKey, algorithm: str) -> bool:
    """Whether the token's signature is this key's, with exactly this algorithm."""
    try:
        # Times and audience are the verifier's; here the signature alone counts.
        jwt.PyJWS().decode_complete(
            jws.compact,
            key=key,
            algorithms=[algorithm],
            options={"verify_signature": True, "enforce_minimum_key_length": True},
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


def _object(part: str, what: str) -> dict[str, object]:
    data = parse_b64u(part, what, limit=MAX_TOKEN)
    return parse_json_object(data, what, limit=MAX_TOKEN)


def _kid(header: Mapping[str, object], what: str) -> str | None:
    if "kid" not in header:
        return None
    return require_text(header["kid"], f"{what} kid", limit=_MAX_WORD)


def _chain(value: object, what: str) -> tuple[x509.Certificate, ...]:
    if value is None:
        return ()
    # RFC 7515, section 4.1.6: padded standard base64, the signer's certificate first.
    return tuple(
        load_der_certificate(parse_b64(one, what, limit=MAX_CERTIFICATE_BYTES), what)
        for one in require_list(value, what, limit=MAX_CHAIN)
    )
