"""What the tokens of one service mean: their claims, and where they carry a binding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kbs.core.claims import ClaimSpec, ClaimValue
from kbs.core.encode import b64u, parse_b64u
from kbs.core.errors import MalformedError
from kbs.evidence.token.fields import Field
from kbs.evidence.token.jws import Jws
from kbs.pki.issuers import Profile

_MAX_NONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token with the detached tokens that it names by digest, not trusted."""

    jws: Jws
    profile: Profile
    submodules: Mapping[str, Jws] = field(default_factory=dict)

    @property
    def claims(self) -> Mapping[str, object]:
        """The claims of the token itself."""
        return self.jws.claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One row of the table of services.

    `devices` returns the claims of each device that the token speaks of, by full name.
    `bound` returns the bytes that stand for the binding (for messages),
    `is_bound` compares them, whole. `primary`: it speaks of a CPU; tokens about GPUs
    are devices, bound by D of the kind `bound_as`.
    """

    profile: Profile
    fields: tuple[Field, ...]
    derived: tuple[ClaimSpec, ...]
    devices: Callable[[Token], tuple[dict[str, ClaimValue], ...]]
    bound: Callable[[Token], bytes]
    is_bound: Callable[[Token, bytes], bool]
    primary: bool = True
    bound_as: str | None = None

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim that tokens of this service can give."""
        return (*(each.spec for each in self.fields), *self.derived)


def nonce_bytes(text: object) -> bytes:
    """Return what a nonce in text stands for: its base64url bytes, else its text."""
    if not isinstance(text, str):
        return b""
    try:
        return parse_b64u(text, "eat_nonce", limit=_MAX_NONCE)
    except MalformedError:
        return text.encode("utf-8", "replace")[:_MAX_NONCE]


def is_nonce(text: object, binding: bytes) -> bool:
    """Whether a nonce is exactly this binding in base64url; a list of nonces never is.

    In a list ours would stand beside what somebody else asked for.
    """
    return text == b64u(binding)


def eat_nonce(token: Token) -> bytes:
    """Return `eat_nonce` (RFC 9711, section 4.1) as bytes."""
    return nonce_bytes(token.claims.get("eat_nonce"))


def is_eat_nonce(token: Token, binding: bytes) -> bool:
    """Whether `eat_nonce` is exactly this binding in base64url."""
    return is_nonce(token.claims.get("eat_nonce"), binding)
