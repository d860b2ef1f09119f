"""Identifiers and their one accepted spelling."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import NewType

from kbs.core.errors import MalformedError

DecisionId = NewType("DecisionId", str)
"""32 lower-case hex digits; joins answer, log line and audit entry."""

InstanceId = NewType("InstanceId", str)
"""32 lower-case hex digits; names one broker for its whole life."""

SHARED_TENANT = "shared"
"""The tenant whose governed objects others may use when the authority allows."""

_NAME = "1 to 64 of a-z 0-9 . _ - that start and end alphanumeric"
_SEGMENT_TEXT = "[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_SEGMENT = re.compile(_SEGMENT_TEXT, re.ASCII)
_KEY_ID = re.compile("/".join([f"({_SEGMENT_TEXT})"] * 3), re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)


def is_segment(text: str) -> bool:
    """Whether `text` can be one segment of a key id, or a name."""
    return _SEGMENT.fullmatch(text) is not None and ".." not in text


def parse_name(text: object, what: str = "name") -> str:
    """Accept a name: 1–64 of a–z, 0–9, `.`, `_`, `-`, starting and ending alphanumeric.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(text, str) or not is_segment(text):
        raise MalformedError(
            what,
            got=repr(text)[:80],
            expected=_NAME,
        )
    return text


@dataclass(frozen=True, slots=True, order=True)
class ScopedName:
    """A governed object's name inside its tenant, written `TENANT/NAME`."""

    tenant: str
    name: str

    def __str__(self) -> str:
        """Return the written form."""
        return f"{self.tenant}/{self.name}"


def parse_scoped_name(text: object, what: str = "name") -> ScopedName:
    """Accept `TENANT/NAME`.

    Raises:
        MalformedError: anything else.
    """
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) != 2:  # noqa: PLR2004 - TENANT and NAME
        raise MalformedError(what, got=repr(text)[:80], expected="TENANT/NAME")
    return ScopedName(parse_name(parts[0], what), parse_name(parts[1], what))


@dataclass(frozen=True, slots=True, order=True)
class KeyId:
    """`repository/type/tag`; the repository is the tenant's boundary."""

    repository: str
    type: str
    tag: str

    def __str__(self) -> str:
        """Return the written form."""
        return f"{self.repository}/{self.type}/{self.tag}"

    @property
    def tenant(self) -> str:
        """The first segment, which decides who may govern this key."""
        return self.repository


@dataclass(frozen=True, slots=True, order=True)
class KeyRef:
    """A key id with an optional version: `repository/type/tag[@version]`."""

    key_id: KeyId
    version: int | None = None

    def __str__(self) -> str:
        """Return the written form."""
        if self.version is None:
            return str(self.key_id)
        return f"{self.key_id}@{self.version}"


def parse_key_id(text: object) -> KeyId:
    """Accept `repository/type/tag`.

    Raises:
        MalformedError: anything else.
    """
    match = _KEY_ID.fullmatch(text) if isinstance(text, str) else None
    if match is None or ".." in match.string:
        raise MalformedError(
            "key id",
            got=repr(text)[:120],
            expected=f"repository/type/tag, each {_NAME}",
        )
    return KeyId(*match.groups())


def parse_key_ref(text: object) -> KeyRef:
    """Accept `repository/type/tag` or `repository/type/tag@version`.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(text, str):
        raise MalformedError(
            "key", got=repr(text)[:120], expected="repository/type/tag[@version]"
        )
    path, at, version = text.partition("@")
    if not at:
        return KeyRef(parse_key_id(path))
    if not _VERSION.fullmatch(version):
        raise MalformedError(
            f"key {path[:120]} version", got=repr(version)[:40], expected="1, 2, 3 …"
        )
    return KeyRef(parse_key_id(path), int(version))


def new_decision_id() -> DecisionId:
    """Return a fresh random decision id."""
    return DecisionId(secrets.token_hex(16))


def new_instance_id() -> InstanceId:
    """Return a fresh random instance id."""
    return InstanceId(secrets.token_hex(16))


def parse_hex32(text: object, what: str) -> str:
    """Accept 32 lower-case hex digits (instance, decision and entry ids).

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(text, str) or not _HEX32.fullmatch(text):
        raise MalformedError(
            what, got=repr(text)[:80], expected="32 lower-case hex digits"
        )
    return text
