"""Contents of governed objects as stored: bytes whose digest a statement carries.

A content is read back only in its one canonical spelling, so that no two contents
mean the same object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from kbs.core.encode import parse_json
from kbs.core.errors import MalformedError
from kbs.governance.attestation_key import AttestationKey, parse_attestation_key
from kbs.governance.authority import Authority, parse_authority
from kbs.governance.objects import (
    MAX_OBJECT_BYTES,
    CertificationAuthority,
    Deny,
    ReferenceSet,
    parse_ca,
    parse_deny,
    parse_reference_set,
)
from kbs.governance.token_issuer import TokenIssuer, parse_token_issuer


class _Canonical(Protocol):
    def canonical(self) -> bytes: ...


ObjectT = TypeVar("ObjectT", bound=_Canonical)


def digest_of(content: bytes) -> str:
    """Return hex SHA-256, the digest that a statement carries."""
    return hashlib.sha256(content).hexdigest()


def check_digest(content: bytes, digest: str, what: str) -> None:
    """Return if `content` has this digest.

    Raises:
        MalformedError: it has another one.
    """
    if digest_of(content) != digest:
        raise MalformedError(
            f"{what} content",
            got=f"digest {digest_of(content)}",
            expected=f"{digest}, as signed",
        )


def read_authority(content: bytes) -> Authority:
    """Read an authority document.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "authority", parse_authority)


def read_reference_set(content: bytes) -> ReferenceSet:
    """Read a reference set.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "reference set", parse_reference_set)


def read_attestation_key(content: bytes) -> AttestationKey:
    """Read an enrolled attestation key.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "ak", parse_attestation_key)


def read_ca(content: bytes) -> CertificationAuthority:
    """Read a certification authority.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "ca", parse_ca)


def read_token_issuer(content: bytes) -> TokenIssuer:
    """Read a token issuer.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "token issuer", parse_token_issuer)


def read_deny(content: bytes) -> Deny:
    """Read a deny entry.

    Raises:
        MalformedError: it is none, or not in its canonical spelling.
    """
    return _read(content, "deny", parse_deny)


def read_release_policy(content: bytes) -> bytes:
    """Return the canonical bytes of a release policy, which `kbs.policy` interprets.

    Raises:
        MalformedError: no bytes, or too many.
    """
    if not 0 < len(content) <= MAX_OBJECT_BYTES:
        raise MalformedError(
            "release policy",
            got=f"{len(content)} bytes",
            expected=f"1 to {MAX_OBJECT_BYTES}",
        )
    return content


def _read(content: bytes, what: str, parse: Callable[[object], ObjectT]) -> ObjectT:
    parsed = parse(parse_json(content, what, limit=MAX_OBJECT_BYTES))
    if parsed.canonical() != content:
        raise MalformedError(what, got="another spelling", expected="canonical JSON")
    return parsed
