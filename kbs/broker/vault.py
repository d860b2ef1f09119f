"""Opening and sealing what the broker keeps secret, under its key-encryption key."""

from __future__ import annotations

from datetime import datetime

from kbs.keys.blob import open_blob, seal_blob
from kbs.keys.model import KeyState, KeyVersion
from kbs.keys.secret import Secret
from kbs.keys.store import StoredKeyVersion
from kbs.keys.versions import (
    change_state,
    create_version,
    decrypt_version,
    verify_row,
)
from kbs.keys.wrap import KeyEncryptionKey

REMEMBERED = 1024
"""Rows found whole that are kept in memory, sealed as they are in the database."""


class Vault:
    """One key-encryption key and the instance that everything is bound to."""

    def __init__(self, kek: KeyEncryptionKey, instance: str) -> None:
        """Bind everything to this instance."""
        self._kek = kek
        self._instance = instance
        self._whole: dict[bytes, StoredKeyVersion] = {}

    @property
    def provider(self) -> str:
        """Where the key-encryption key lives."""
        return self._kek.provider

    def verify(self, row: StoredKeyVersion) -> None:
        """Return if a row is what this broker wrote.

        Raises:
            IntegrityError: it is not.
        """
        # The very same row, in every field, needs no second proof.
        if self._whole.get(row.mac) == row:
            return
        verify_row(row, self._kek, instance=self._instance)
        if len(self._whole) >= REMEMBERED:
            self._whole.clear()
        self._whole[row.mac] = row

    def open_key(self, row: StoredKeyVersion) -> Secret:
        """Return the secret of one key version.

        Raises:
            IntegrityError: the row is not what was written.
        """
        self.verify(row)
        return decrypt_version(row, self._kek, instance=self._instance)

    def seal_key(self, secret: Secret, key: KeyVersion) -> StoredKeyVersion:
        """Return the row of a new version."""
        return create_version(secret, key, self._kek, instance=self._instance)

    def change_key(
        self, row: StoredKeyVersion, state: KeyState, now: datetime
    ) -> StoredKeyVersion:
        """Return a row in another state.

        Raises:
            ConflictError: the state does not follow from the present one.
        """
        return change_state(row, state, self._kek, instance=self._instance, now=now)

    def seal(self, secret: Secret, *, purpose: str, blob_id: str) -> bytes:
        """Return a sealed blob."""
        return seal_blob(
            secret,
            self._kek,
            instance=self._instance,
            purpose=purpose,
            blob_id=blob_id,
        )

    def open(self, blob: bytes, *, purpose: str, blob_id: str) -> Secret:
        """Return what a blob holds.

        Raises:
            IntegrityError: it is another's, or changed.
        """
        return open_blob(
            blob,
            self._kek,
            instance=self._instance,
            purpose=purpose,
            blob_id=blob_id,
        )
