"""What the bytes of each kind of key are: made here, or checked when imported.

* `opaque`: 1 byte to 64 KiB, anything.
* `aes256`: 32 bytes, not all equal.
* `hpke`: the 32 bytes of an X25519 private key (RFC 7748; RFC 9180, KEM 0x0020).
* `jwk`: a private or symmetric JWK (RFC 7517), kept as canonical JSON.
* `passphrase`: UTF-8 text of one line.
"""

from __future__ import annotations

import base64
import secrets
import unicodedata
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kbs.core.encode import b64u
from kbs.core.errors import MalformedError
from kbs.keys.jwk import generate_jwk, parse_private_jwk
from kbs.keys.model import KeyKind
from kbs.keys.secret import Secret

MAX_SECRET_BYTES = 64 * 1024
"""Largest secret; a model is encrypted under a key, it is not a key."""

_AES256_SIZE = 32
_X25519_SIZE = 32
_OPAQUE_SIZE = 32
# 160 bits: 32 characters of base32 without padding, in groups that people can read.
_PASSPHRASE_ENTROPY_BYTES = 20
_PASSPHRASE_GROUP = 4
_PASSPHRASE_MIN = 16
_PASSPHRASE_MAX = 1024


def generate_secret(kind: KeyKind) -> Secret:
    """Return fresh secret bytes of a kind, from the system's random generator."""
    return Secret(_GENERATORS[kind]())


def import_secret(kind: KeyKind, data: bytes) -> Secret:
    """Return imported bytes if they can be a secret of this kind.

    Raises:
        MalformedError: they cannot; the message never shows them.
    """
    if not 0 < len(data) <= MAX_SECRET_BYTES:
        raise MalformedError(
            f"{kind} secret",
            got=f"{len(data)} bytes",
            expected=f"1 to {MAX_SECRET_BYTES} bytes",
        )
    return Secret(_IMPORTERS[kind](data))


def public_part(kind: KeyKind, secret: Secret) -> dict[str, str] | None:
    """Return the public JWK of an HPKE key pair; other kinds have none to show."""
    if kind is not KeyKind.HPKE:
        return None
    private = X25519PrivateKey.from_private_bytes(secret.reveal())
    x = private.public_key().public_bytes_raw()
    return {"crv": "X25519", "kty": "OKP", "x": b64u(x)}


def _generate_passphrase() -> bytes:
    letters = base64.b32encode(secrets.token_bytes(_PASSPHRASE_ENTROPY_BYTES)).lower()
    groups = [
        letters[start : start + _PASSPHRASE_GROUP]
        for start in range(0, len(letters), _PASSPHRASE_GROUP)
    ]
    return b"-".join(groups)


def _import_opaque(data: bytes) -> bytes:
    return data


def _import_aes256(data: bytes) -> bytes:
    if len(data) != _AES256_SIZE:
        raise MalformedError(
            "aes256 secret",
            got=f"{len(data)} bytes",
            expected="exactly 32 bytes, raw",
            hint="a file of hex or base64 must be decoded first",
        )
    if len(set(data)) == 1:
        raise MalformedError("aes256 secret", got="32 equal bytes", expected="a key")
    return data


def _import_hpke(data: bytes) -> bytes:
    if len(data) != _X25519_SIZE or len(set(data)) == 1:
        raise MalformedError(
            "hpke secret",
            got=f"{len(data)} bytes",
            expected="the 32 raw bytes of an X25519 private key",
        )
    return data


def _import_passphrase(data: bytes) -> bytes:
    expected = f"{_PASSPHRASE_MIN} to {_PASSPHRASE_MAX} characters of UTF-8 on one line"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        # `from None`: the cause holds the secret bytes.
        raise MalformedError(
            "passphrase", got="other bytes", expected=expected
        ) from None
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise MalformedError(
            "passphrase",
            got="a control character",
            expected=expected,
            hint="a final newline counts; use printf instead of echo",
        )
    if not _PASSPHRASE_MIN <= len(text) <= _PASSPHRASE_MAX or len(set(text)) == 1:
        raise MalformedError(
            "passphrase", got=f"{len(text)} characters", expected=expected
        )
    return data


_GENERATORS: Mapping[KeyKind, Callable[[], bytes]] = {
    KeyKind.OPAQUE: lambda: secrets.token_bytes(_OPAQUE_SIZE),
    KeyKind.AES256: lambda: secrets.token_bytes(_AES256_SIZE),
    KeyKind.HPKE: lambda: X25519PrivateKey.generate().private_bytes_raw(),
    KeyKind.JWK: generate_jwk,
    KeyKind.PASSPHRASE: _generate_passphrase,
}

_IMPORTERS: Mapping[KeyKind, Callable[[bytes], bytes]] = {
    KeyKind.OPAQUE: _import_opaque,
    KeyKind.AES256: _import_aes256,
    KeyKind.HPKE: _import_hpke,
    KeyKind.JWK: parse_private_jwk,
    KeyKind.PASSPHRASE: _import_passphrase,
}
