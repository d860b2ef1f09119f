"""Key versions: their states, kinds and origins, and which one a request gets.

A version is `pending`, `enabled`, `retired` (opens old data, seals nothing new) or
`destroyed` (ciphertext erased, the tombstone stays). Contents of the kinds are in
`kbs.keys.material`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from kbs.core.clock import format_time
from kbs.core.errors import ConflictError, MalformedError
from kbs.core.ids import KeyId, KeyRef

MAX_VERSION = 999_999_999
"""Largest version that a key reference can name (nine digits)."""


class KeyState(StrEnum):
    """Where one version of a key stands in its life."""

    PENDING = "pending"
    ENABLED = "enabled"
    RETIRED = "retired"
    DESTROYED = "destroyed"


class KeyKind(StrEnum):
    """What the secret bytes are."""

    OPAQUE = "opaque"
    AES256 = "aes256"
    HPKE = "hpke"
    JWK = "jwk"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a kind, no passphrase


class Origin(StrEnum):
    """Whether the secret was born in this broker or came from outside."""

    GENERATED = "generated"
    IMPORTED = "imported"


TRANSITIONS: Mapping[KeyState, frozenset[KeyState]] = {
    KeyState.PENDING: frozenset({KeyState.ENABLED, KeyState.DESTROYED}),
    KeyState.ENABLED: frozenset({KeyState.RETIRED, KeyState.DESTROYED}),
    # A retired version is not enabled again: rotate to a new version instead.
    KeyState.RETIRED: frozenset({KeyState.DESTROYED}),
    KeyState.DESTROYED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyVersion:
    """Everything about one version except its secret.

    `revision` counts the changes of this row and is what compare-and-set compares.
    """

    key_id: KeyId
    version: int
    kind: KeyKind
    origin: Origin
    state: KeyState
    created: datetime
    changed: datetime
    revision: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that no store and no key reference can carry."""
        if not 1 <= self.version <= MAX_VERSION or self.revision < 1:
            raise MalformedError(
                f"key {self.key_id}",
                got=f"version {self.version}, revision {self.revision}",
                expected=f"a version from 1 to {MAX_VERSION}, a revision from 1",
            )

    @property
    def ref(self) -> KeyRef:
        """The key id with this version."""
        return KeyRef(self.key_id, self.version)

    def to_json(self) -> dict[str, object]:
        """Return the JSON form; there is no secret in it."""
        return {
            "id": str(self.key_id),
            "version": self.version,
            "kind": self.kind.value,
            "origin": self.origin.value,
            "state": self.state.value,
            "created": format_time(self.created),
            "changed": format_time(self.changed),
            "revision": self.revision,
        }


class _HasKeyVersion(Protocol):
    @property
    def key(self) -> KeyVersion: ...


RowT = TypeVar("RowT", bound=_HasKeyVersion)


def parse_kind(text: object) -> KeyKind:
    """Accept the name of a kind.

    Raises:
        MalformedError: anything else.
    """
    if isinstance(text, str) and text in {kind.value for kind in KeyKind}:
        return KeyKind(text)
    raise MalformedError(
        "key kind",
        got=repr(text)[:40],
        expected=", ".join(kind.value for kind in KeyKind),
    )


def require_transition(key: KeyVersion, state: KeyState) -> None:
    """Return if this version may go to `state`.

    Raises:
        ConflictError: it may not.
    """
    if state not in TRANSITIONS[key.state]:
        allowed = " or ".join(sorted(TRANSITIONS[key.state])) or "nothing else"
        cannot = "already is" if state is key.state else f"cannot become {state}: it is"
        raise ConflictError(
            f"key {key.ref} {cannot} {key.state}",
            hint=f"it can become {allowed}",
            code="key.state",
        )


def select_version(rows: Iterable[RowT], wanted: int | None) -> RowT | None:
    """Return the version that a request gets, or None if there is none.

    Without a version it is the newest enabled one; a named version may be enabled
    or retired (it opens old data), never pending or destroyed.
    """
    ordered = sorted(rows, key=lambda row: row.key.version, reverse=True)
    if wanted is None:
        return next((row for row in ordered if row.key.state is KeyState.ENABLED), None)
    readable = {KeyState.ENABLED, KeyState.RETIRED}
    return next(
        (
            row
            for row in ordered
            if row.key.version == wanted and row.key.state in readable
        ),
        None,
    )
