"""Other secrets at rest: the broker's own keys, and evidence kept for recomputation.

One byte string per blob: 0x01 | KEK id (8) | u16 size, wrapped data key | ciphertext,
bound by associated data to instance, purpose and id.
"""

from __future__ import annotations

from kbs.core.errors import IntegrityError, MalformedError
from kbs.core.reader import Reader
from kbs.keys.secret import Secret
from kbs.keys.wrap import (
    Envelope,
    KeyEncryptionKey,
    decrypt_envelope,
    encrypt_envelope,
)

_FORMAT = 1
_KEK_ID_SIZE = 8
_MAX_WRAPPED = 4096


def seal_blob(
    secret: Secret,
    kek: KeyEncryptionKey,
    *,
    instance: str,
    purpose: str,
    blob_id: str,
) -> bytes:
    """Return the bytes to store, bound to `purpose` and `blob_id`."""
    context = _context(instance, purpose, blob_id)
    envelope = encrypt_envelope(secret, context, kek)
    return (
        bytes((_FORMAT,))
        + bytes.fromhex(envelope.kek_id)
        + len(envelope.wrapped).to_bytes(2, "big")
        + envelope.wrapped
        + envelope.ciphertext
    )


def open_blob(
    blob: bytes,
    kek: KeyEncryptionKey,
    *,
    instance: str,
    purpose: str,
    blob_id: str,
) -> Secret:
    """Return what `seal_blob` was given for the same purpose and id.

    Raises:
        IntegrityError: it is no blob, or one of another purpose, id or KEK.
    """
    try:
        envelope = _parse(blob)
    except MalformedError as exc:
        raise IntegrityError(str(exc), code="keys.ciphertext") from exc
    return decrypt_envelope(envelope, _context(instance, purpose, blob_id), kek)


def _parse(blob: bytes) -> Envelope:
    reader = Reader(blob, "sealed blob")
    version = reader.big(1, "format")
    if version != _FORMAT:
        raise MalformedError(
            "sealed blob format", got=str(version), expected=str(_FORMAT)
        )
    kek_id = reader.take(_KEK_ID_SIZE, "kek id").hex()
    wrapped = reader.sized(2, "wrapped data key", limit=_MAX_WRAPPED)
    return Envelope(kek_id, wrapped, reader.take(reader.remaining, "ciphertext"))


def _context(instance: str, purpose: str, blob_id: str) -> dict[str, object]:
    return {"instance": instance, "purpose": purpose, "id": blob_id}
