"""Rows of key versions and the protocol of their store; an adapter implements it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kbs.core.ids import KeyId
from kbs.keys.model import KeyVersion
from kbs.keys.wrap import Envelope


@dataclass(frozen=True, slots=True)
class StoredKeyVersion:
    """One row: what is known of a version, its envelope, and the MAC over both.

    A destroyed version has no envelope; its tombstone stays.
    """

    key: KeyVersion
    envelope: Envelope | None = field(repr=False)
    kek_id: str
    mac: bytes = field(repr=False)


class KeyStore(Protocol):
    """Keeps rows; every method runs inside the caller's transaction."""

    def insert_version(self, row: StoredKeyVersion) -> None:
        """Add a version.

        Raises:
            ConflictError: this version exists.
        """
        ...

    def versions(self, key_id: KeyId) -> tuple[StoredKeyVersion, ...]:
        """Return all versions of a key, oldest first."""
        ...

    def list_keys(self, repository: str | None = None) -> tuple[KeyId, ...]:
        """Return the ids of all keys, or of one repository's, sorted."""
        ...

    def replace(self, row: StoredKeyVersion, *, revision: int) -> None:
        """Write a row over the one whose revision is `revision`, whole.

        A row without envelope erases the stored one.

        Raises:
            ConflictError: the stored row has another revision, or is not there.
        """
        ...

    def macs(self) -> Mapping[str, bytes]:
        """Return the MAC of every version, by `repository/type/tag@version`."""
        ...

    def state(self) -> tuple[int, bytes, bytes] | None:
        """Return what the last change left: its number, a digest, and their MAC."""
        ...

    def set_state(self, state: tuple[int, bytes, bytes]) -> None:
        """Replace it, together with the rows that it tells of."""
        ...
