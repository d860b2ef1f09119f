"""The life of a key version: made, opened, moved between states, erased, re-wrapped.

Pure: rows go in and come out, a store keeps them. Every row carries a MAC over its
state, under a key that only the KEK gives, and every function here verifies it before
it believes a row. Whoever can write the database can therefore break a key, but not
make a state that never was. An older row put back whole is not seen here: that is what
the sealed state of the whole table is for (`kbs.broker.key_ledger`).
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import datetime

from kbs.core.encode import canonical_json
from kbs.core.errors import ConflictError, IntegrityError
from kbs.core.ids import KeyId
from kbs.keys.model import (
    KeyKind,
    KeyState,
    KeyVersion,
    Origin,
    require_transition,
)
from kbs.keys.secret import Secret
from kbs.keys.store import StoredKeyVersion
from kbs.keys.wrap import (
    Envelope,
    KeyEncryptionKey,
    decrypt_envelope,
    encrypt_envelope,
)

_MAC_TYPE = "kbs.key-state/1"


def create_version(
    secret: Secret, key: KeyVersion, kek: KeyEncryptionKey, *, instance: str
) -> StoredKeyVersion:
    """Return the row of a new version."""
    envelope = encrypt_envelope(secret, _context(key, instance), kek)
    return _row(key, envelope, kek, instance)


def first_version(
    key_id: KeyId,
    *,
    kind: KeyKind,
    origin: Origin,
    now: datetime,
    state: KeyState = KeyState.ENABLED,
) -> KeyVersion:
    """Return the description of version 1 of a key."""
    return KeyVersion(
        key_id=key_id,
        version=1,
        kind=kind,
        origin=origin,
        state=state,
        created=now,
        changed=now,
    )


def next_version(latest: KeyVersion, *, origin: Origin, now: datetime) -> KeyVersion:
    """Return the description of the version after `latest`, of the same kind."""
    return replace(
        latest,
        version=latest.version + 1,
        origin=origin,
        state=KeyState.ENABLED,
        created=now,
        changed=now,
        revision=1,
    )


def verify_row(row: StoredKeyVersion, kek: KeyEncryptionKey, *, instance: str) -> None:
    """Return if the row is one that this broker wrote under this KEK.

    Raises:
        IntegrityError: another KEK, or any field differs.
    """
    if row.kek_id != kek.kek_id:
        raise IntegrityError(
            f"key {row.key.ref} key-encryption key",
            got=kek.kek_id,
            expected=row.kek_id,
            hint="the trust folder holds another kek than the one that sealed this",
            code="keys.kek",
        )
    expected = _mac(row.key, row.envelope, kek, instance)
    is_whole = (row.envelope is None) == (row.key.state is KeyState.DESTROYED)
    if not hmac.compare_digest(expected, row.mac) or not is_whole:
        raise IntegrityError(
            f"key {row.key.ref} state",
            got="another than was written",
            expected="the state that its MAC covers",
            hint="the database was changed behind the broker; restore this row",
            code="keys.state",
        )


def decrypt_version(
    row: StoredKeyVersion, kek: KeyEncryptionKey, *, instance: str
) -> Secret:
    """Return the secret of a version whose row `verify_row` found whole.

    Raises:
        IntegrityError: its envelope belongs to another row.
        ConflictError: it was destroyed.
    """
    if row.envelope is None:
        raise ConflictError(
            f"key {row.key.ref}", got="destroyed", expected="a version with a secret"
        )
    return decrypt_envelope(row.envelope, _context(row.key, instance), kek)


def change_state(
    row: StoredKeyVersion,
    state: KeyState,
    kek: KeyEncryptionKey,
    *,
    instance: str,
    now: datetime,
) -> StoredKeyVersion:
    """Return the row in another state; to destroy erases the envelope.

    Raises:
        IntegrityError: the row is not what was written.
        ConflictError: the state does not follow from the present one.
    """
    verify_row(row, kek, instance=instance)
    require_transition(row.key, state)
    key = replace(row.key, state=state, changed=now, revision=row.key.revision + 1)
    envelope = None if state is KeyState.DESTROYED else row.envelope
    return _row(key, envelope, kek, instance)


def _row(
    key: KeyVersion, envelope: Envelope | None, kek: KeyEncryptionKey, instance: str
) -> StoredKeyVersion:
    mac = _mac(key, envelope, kek, instance)
    return StoredKeyVersion(key, envelope, kek.kek_id, mac)


def _context(key: KeyVersion, instance: str) -> dict[str, object]:
    return {
        "instance": instance,
        "tenant": key.key_id.tenant,
        "id": str(key.key_id),
        "version": key.version,
        "kind": key.kind.value,
    }


def _mac(
    key: KeyVersion, envelope: Envelope | None, kek: KeyEncryptionKey, instance: str
) -> bytes:
    state = {
        "typ": _MAC_TYPE,
        "instance": instance,
        "kek": kek.kek_id,
        "envelope": None if envelope is None else envelope.digest(),
        **key.to_json(),
    }
    return kek.mac(canonical_json(state))
