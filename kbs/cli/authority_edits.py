"""What may change in an authority document, and how a command line says it.

An edit takes the authority in force and returns the wanted one; it is applied anew to a
newer document when somebody else was faster.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_public_key,
    load_pem_public_key,
)

from kbs.cli.inputs import is_pem, read_input
from kbs.core.errors import ConflictError, MalformedError, NotFoundError
from kbs.core.ids import parse_name
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import spki_of
from kbs.governance.statement import EVERY_TENANT

Edit = Callable[[Authority], Authority]
T = TypeVar("T")

_MAX_PUBLIC = 4096
# `kbs.governance.authority`: the most roles of one administrator.
_MAX_ROLES = 16


def adding(name: str, spki: bytes, roles: tuple[RoleGrant, ...]) -> Edit:
    """Return the edit that adds an administrator.

    Its errors: ConflictError, the name or the key is there already.
    """
    made = Administrator(parse_name(name, "administrator name"), spki, roles)

    def edit(authority: Authority) -> Authority:
        for one in authority.administrators:
            if made.name == one.name or made.spki == one.spki:
                raise ConflictError(
                    f"administrator {made.name}",
                    got=f"{one.name}, key id {one.keyid}, in force",
                    expected="a new name and a new key",
                    hint="kbs admin roles NAME replaces the roles of one who is there",
                    code="authority.exists",
                )
        return replace(authority, administrators=(*authority.administrators, made))

    return edit


def with_roles(name: str, roles: tuple[RoleGrant, ...]) -> Edit:
    """Return the edit that replaces an administrator's roles.

    Its errors: NotFoundError, nobody has this name.
    """

    def edit(authority: Authority) -> Authority:
        named = _named(authority, name)
        return replace(
            authority,
            administrators=tuple(
                replace(one, roles=roles) if one is named else one
                for one in authority.administrators
            ),
        )

    return edit


def removing(name: str) -> Edit:
    """Return the edit that removes an administrator.

    Its errors: NotFoundError, nobody has this name.
    """

    def edit(authority: Authority) -> Authority:
        named = _named(authority, name)
        rest = tuple(one for one in authority.administrators if one is not named)
        return replace(authority, administrators=rest)

    return edit


def sharing(tenants: Sequence[str]) -> Edit:
    """Return the edit that says which tenants may use `shared/` (`*`: every one)."""

    def edit(authority: Authority) -> Authority:
        return replace(authority, shared=tuple(tenants))

    return edit


def read_roles(given: Sequence[str]) -> tuple[RoleGrant, ...]:
    """Read `ROLE[=REPOSITORY[,REPOSITORY…]]`; without repositories it is every one.

    Raises:
        MalformedError: no such role, a role twice, or names that are none.
    """
    grants = tuple(_read_role(text) for text in given)
    roles = [grant.role for grant in grants]
    if len(set(roles)) != len(roles):
        raise MalformedError(
            "--role",
            got="a role twice",
            expected="each once, with all its repositories: ROLE=A,B",
            code="usage",
        )
    return grants


def read_public(path: Path) -> bytes:
    """Return the SPKI of an administrator's public key in a file, PEM or DER.

    Raises:
        MalformedError: it cannot be read, or holds no Ed25519 public key.
    """
    data = read_input(path, "public key", limit=_MAX_PUBLIC)
    expected = "an Ed25519 public key (SubjectPublicKeyInfo, PEM or DER)"
    try:
        key = load_pem_public_key(data) if is_pem(data) else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            f"public key {path}", got="something else", expected=expected
        ) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise MalformedError(
            f"public key {path}",
            got=type(key).__name__,
            expected=expected,
            hint="administrators' tokens are signed with Ed25519",
        )
    return spki_of(key)


def roles_text(administrator: Administrator) -> str:
    """Return the roles as `--role` takes them, separated by spaces."""
    return " ".join(
        f"{grant.role}={','.join(grant.repositories)}"
        for grant in dict.fromkeys(administrator.roles)
    )


def spellings(authority: Authority) -> Iterator[Authority]:
    """Give documents that all mean this authority, the plainest one first.

    The order of the lists means nothing, and a role given twice is given once.
    """
    own = (_with_spelled_roles(one) for one in authority.administrators)
    for everybody in itertools.product(*own):
        for shared in _rotations(authority.shared):
            for order in _rotations(everybody):
                yield replace(authority, administrators=order, shared=shared)


def _with_spelled_roles(administrator: Administrator) -> list[Administrator]:
    roles = tuple(dict.fromkeys(administrator.roles))
    room = _MAX_ROLES - len(roles) if roles else 0
    return [
        replace(administrator, roles=turned + turned[:1] * repeats)
        for repeats in range(room + 1)
        for turned in _rotations(roles)
    ]


def meaning(authority: Authority) -> object:
    """Return what two documents have in common that differ in their spelling only."""
    return (
        {
            one.name: (
                one.spki,
                {(grant.role, frozenset(grant.repositories)) for grant in one.roles},
            )
            for one in authority.administrators
        },
        authority.threshold,
        set(authority.shared),
    )


def _named(authority: Authority, name: str) -> Administrator:
    for one in authority.administrators:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in authority.administrators)
    raise NotFoundError(
        f"administrator {name[:80]}", got="nobody of this name", expected=known
    )


def _read_role(text: str) -> RoleGrant:
    word, equals, names = text.partition("=")
    if word not in set(Role):
        raise MalformedError(
            "--role",
            got=repr(word)[:40],
            expected=f"one of {', '.join(Role)}, then =REPOSITORY,… or nothing",
            code="usage",
        )
    listed = names.split(",") if equals else [EVERY_TENANT]
    repositories = tuple(
        name if name == EVERY_TENANT else parse_name(name, f"--role {word}")
        for name in listed
    )
    if len(set(repositories)) != len(repositories):
        raise MalformedError(
            f"--role {word}", got="a repository twice", expected="each once"
        )
    return RoleGrant(Role(word), repositories)


def _rotations(values: tuple[T, ...]) -> list[tuple[T, ...]]:
    return [values[at:] + values[:at] for at in range(len(values))] or [()]
