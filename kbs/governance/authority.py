"""The authority document: administrators, their keys and roles, and the threshold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from kbs.core.encode import (
    b64,
    canonical_json,
    parse_b64,
    parse_hex,
    require_integer,
    require_list,
    require_members,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_name
from kbs.governance.signature import VerifyingKey, parse_public_key
from kbs.governance.statement import EVERY_TENANT

_MAX_ADMINISTRATORS = 256
_MAX_ROLES = 16
_MAX_REPOSITORIES = 1024
_MAX_SPKI = 256
_DIGEST_SIZE = 32


class Role(StrEnum):
    """What an administrator may do."""

    POLICY_ADMIN = "policy-admin"
    KEY_ADMIN = "key-admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """One role in some repositories, or in every one (`*`)."""

    role: Role
    repositories: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"role": self.role.value, "repositories": list(self.repositories)}


@dataclass(frozen=True, slots=True)
class Administrator:
    """One key pair and the roles that it gives; `spki` is the public key, DER."""

    name: str
    spki: bytes
    roles: tuple[RoleGrant, ...]

    @property
    def keyid(self) -> str:
        """Hex SHA-256 of the public key."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def public_key(self) -> VerifyingKey:
        """The public key itself."""
        return parse_public_key(self.spki)

    def may(self, role: Role, tenant: str) -> bool:
        """Whether this administrator has `role` in `tenant` (`*`: everywhere)."""
        return any(
            grant.role is role
            and (EVERY_TENANT in grant.repositories or tenant in grant.repositories)
            for grant in self.roles
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "keyid": self.keyid,
            "public_key": b64(self.spki),
            "roles": [grant.to_json() for grant in self.roles],
        }


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may govern: distinct keys, a threshold, and who may use `shared/`."""

    administrators: tuple[Administrator, ...]
    threshold: int
    shared: tuple[str, ...]

    def find(self, keyid: str) -> Administrator | None:
        """Return the administrator with this key, if there is one."""
        for administrator in self.administrators:
            if administrator.keyid == keyid:
                return administrator
        return None

    def may_share(self, tenant: str) -> bool:
        """Whether the objects of `shared/` count inside `tenant`."""
        return EVERY_TENANT in self.shared or tenant in self.shared

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "administrators": [one.to_json() for one in self.administrators],
            "threshold": self.threshold,
            "shared": list(self.shared),
        }

    def canonical(self) -> bytes:
        """Return the one spelling, over which the digest is taken."""
        return canonical_json(self.to_json())


def parse_authority(value: object) -> Authority:
    """Accept an authority document from parsed JSON.

    Raises:
        MalformedError: anything else, a key or name twice, or too few keys that may
            change the authority itself, which could never be mended.
    """
    members = require_members(
        value, "authority", required={"administrators", "threshold", "shared"}
    )
    listed = require_list(
        members["administrators"], "administrators", limit=_MAX_ADMINISTRATORS
    )
    administrators = tuple(_parse_administrator(element) for element in listed)
    _refuse_repeats([one.name for one in administrators], "administrator name")
    _refuse_repeats([one.keyid for one in administrators], "administrator key")
    threshold = require_integer(
        members["threshold"], "threshold", least=1, most=_MAX_ADMINISTRATORS
    )
    able = [one for one in administrators if one.may(Role.POLICY_ADMIN, EVERY_TENANT)]
    if len(able) < threshold:
        raise MalformedError(
            "authority",
            got=f"{len(able)} keys that may change it",
            expected=f"at least {threshold} with policy-admin in every repository",
        )
    shared = _parse_repositories(members["shared"], "shared")
    return Authority(administrators, threshold, shared)


def _parse_administrator(value: object) -> Administrator:
    members = require_members(
        value, "administrator", required={"name", "keyid", "public_key", "roles"}
    )
    name = parse_name(members["name"], "administrator name")
    spki = parse_b64(members["public_key"], f"public key of {name}", limit=_MAX_SPKI)
    parse_public_key(spki)
    listed = require_list(members["roles"], f"roles of {name}", limit=_MAX_ROLES)
    administrator = Administrator(
        name, spki, tuple(_parse_grant(element, name) for element in listed)
    )
    keyid = parse_hex(members["keyid"], f"keyid of {name}", size=_DIGEST_SIZE).hex()
    if keyid != administrator.keyid:
        raise MalformedError(
            f"keyid of {name}", got=keyid, expected=administrator.keyid
        )
    return administrator


def _parse_grant(value: object, name: str) -> RoleGrant:
    members = require_members(
        value, f"role of {name}", required={"role", "repositories"}
    )
    role = members["role"]
    if not isinstance(role, str) or role not in {role.value for role in Role}:
        raise MalformedError(
            f"role of {name}",
            got=repr(role)[:40],
            expected=", ".join(role.value for role in Role),
        )
    repositories = _parse_repositories(
        members["repositories"], f"repositories of {name}"
    )
    if not repositories:
        raise MalformedError(
            f"repositories of {name}", got="none", expected="names, or *"
        )
    return RoleGrant(Role(role), repositories)


def _parse_repositories(value: object, what: str) -> tuple[str, ...]:
    names = tuple(
        EVERY_TENANT if element == EVERY_TENANT else parse_name(element, what)
        for element in require_list(value, what, limit=_MAX_REPOSITORIES)
    )
    _refuse_repeats(list(names), what)
    return names


def _refuse_repeats(values: list[str], what: str) -> None:
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise MalformedError(what, got=f"{twice} twice", expected="each once")
