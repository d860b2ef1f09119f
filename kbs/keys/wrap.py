"""Envelope encryption: a data key per secret, wrapped by a key-encryption key.

AES-256-GCM twice: the secret under its data key, the data key under the KEK. Both carry
the same associated data, JCS of {instance, tenant, id, version, kind, kek}, so that no
row can stand in for another. The provider of the KEK is a protocol: a local file now,
an HSM or a KMS later. Keys for wrapping and for MACs are derived from the KEK by HKDF,
so that its bytes are never used for two things.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Protocol, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kbs.core.encode import canonical_json
from kbs.core.errors import ConfigurationError, IntegrityError
from kbs.keys.secret import Secret

KEK_SIZE = 32
# NIST SP 800-38D, section 8.2.2: 96-bit random nonces.
_NONCE_SIZE = 12
_DATA_KEY_SIZE = 32
_ID_SIZE = 8
_WRAP_INFO = b"kbs.kek.wrap/1"
_MAC_INFO = b"kbs.kek.mac/1"
_ID_INFO = b"kbs.kek.id/1"


class KeyEncryptionKey(Protocol):
    """Wraps data keys and authenticates state; never shows itself."""

    @property
    def kek_id(self) -> str:
        """A name that changes with the key and reveals nothing of it."""
        ...

    @property
    def provider(self) -> str:
        """Where it lives, for example `local`."""
        ...

    def wrap(self, data_key: bytes, associated: bytes) -> bytes:
        """Return the wrapped data key."""
        ...

    def unwrap(self, wrapped: bytes, associated: bytes) -> bytes:
        """Return the data key.

        Raises:
            IntegrityError: it was wrapped by another key or for something else.
        """
        ...

    def mac(self, message: bytes) -> bytes:
        """Return HMAC-SHA-256 under a key of its own."""
        ...


@final
class LocalKEK:
    """A key-encryption key of 32 bytes that lies in a file of the trust folder."""

    __slots__ = ("_mac_key", "_wrapping", "kek_id")

    provider = "local"

    def __init__(self, key: Secret) -> None:
        """Derive the working keys.

        Raises:
            ConfigurationError: it has another size, or is no key at all.
        """
        data = key.reveal()
        if len(data) != KEK_SIZE or len(set(data)) == 1:
            raise ConfigurationError(
                "key-encryption key",
                got=f"{len(data)} bytes",
                expected=f"{KEK_SIZE} random bytes",
            )
        self._wrapping = AESGCM(_derive(data, _WRAP_INFO, _DATA_KEY_SIZE))
        self._mac_key = Secret(_derive(data, _MAC_INFO, KEK_SIZE))
        self.kek_id = _derive(data, _ID_INFO, _ID_SIZE).hex()

    def wrap(self, data_key: bytes, associated: bytes) -> bytes:
        """Return nonce ‖ ciphertext."""
        return _encrypt(self._wrapping, data_key, associated)

    def unwrap(self, wrapped: bytes, associated: bytes) -> bytes:
        """Return the data key.

        Raises:
            IntegrityError: it was wrapped by another key or for something else.
        """
        return _decrypt(self._wrapping, wrapped, associated, "wrapped data key")

    def mac(self, message: bytes) -> bytes:
        """Return HMAC-SHA-256 under a key derived for MACs only."""
        return hmac.digest(self._mac_key.reveal(), message, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A secret at rest: useless without the KEK that `kek_id` names."""

    kek_id: str
    wrapped: bytes
    ciphertext: bytes

    def digest(self) -> str:
        """Return hex SHA-256 over both parts, for the state's MAC."""
        size = len(self.wrapped).to_bytes(8, "big")
        return hashlib.sha256(size + self.wrapped + self.ciphertext).hexdigest()


def generate_kek() -> Secret:
    """Return 32 random bytes."""
    return Secret(secrets.token_bytes(KEK_SIZE))


def encrypt_envelope(
    secret: Secret, context: dict[str, object], kek: KeyEncryptionKey
) -> Envelope:
    """Return `secret` under a fresh data key, bound to `context` and the KEK."""
    associated = _associated(context, kek.kek_id)
    data_key = secrets.token_bytes(_DATA_KEY_SIZE)
    return Envelope(
        kek_id=kek.kek_id,
        wrapped=kek.wrap(data_key, associated),
        ciphertext=_encrypt(AESGCM(data_key), secret.reveal(), associated),
    )


def decrypt_envelope(
    envelope: Envelope, context: dict[str, object], kek: KeyEncryptionKey
) -> Secret:
    """Return the secret.

    Raises:
        IntegrityError: another KEK, another context, or changed bytes.
    """
    if envelope.kek_id != kek.kek_id:
        raise IntegrityError(
            "key-encryption key",
            got=kek.kek_id,
            expected=envelope.kek_id,
            hint="the trust folder holds another kek than the one that sealed this",
            code="keys.kek",
        )
    associated = _associated(context, kek.kek_id)
    data_key = kek.unwrap(envelope.wrapped, associated)
    return Secret(
        _decrypt(AESGCM(data_key), envelope.ciphertext, associated, "ciphertext")
    )


def _associated(context: dict[str, object], kek_id: str) -> bytes:
    return canonical_json({**context, "kek": kek_id})


def _derive(key: bytes, info: bytes, size: int) -> bytes:
    # RFC 5869, section 3.3: the KEK is uniformly random, so expanding is enough.
    return HKDFExpand(hashes.SHA256(), size, info).derive(key)


def _encrypt(cipher: AESGCM, data: bytes, associated: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_SIZE)
    return nonce + cipher.encrypt(nonce, data, associated)


def _decrypt(cipher: AESGCM, data: bytes, associated: bytes, what: str) -> bytes:
    try:
        return cipher.decrypt(data[:_NONCE_SIZE], data[_NONCE_SIZE:], associated)
    except (InvalidTag, ValueError) as exc:
        raise IntegrityError(
            f"stored {what}",
            got=f"{len(data)} bytes that do not open",
            expected="what was stored under this id and this key-encryption key",
            code="keys.ciphertext",
        ) from exc
