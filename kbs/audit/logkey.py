"""The log's Ed25519 keys, named and hashed as C2SP signed-note does.

https://c2sp.org/signed-note: a key is known by its name (the log's origin) and a hash,
the first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key), and written as a
*vkey*, `name+hash+base64(0x01 ‖ public key)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from kbs.core.encode import b64, parse_b64, parse_hex, require_text
from kbs.core.errors import MalformedError

# C2SP signed-note, "Signature types": 0x01 is Ed25519 (RFC 8032).
ED25519_TYPE = b"\x01"

# RFC 8032, section 5.1: sizes of a public key and of a signature.
PUBLIC_SIZE = 32
SIGNATURE_SIZE = 64

HASH_SIZE = 4

# C2SP signed-note: neither spaces nor plus signs. Ours are host names with a path,
# like kbs.example.org/4f0c…; other characters have no business there.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}", re.ASCII)


def parse_origin(text: object, what: str = "log origin") -> str:
    """Accept the name of a log: a schema-less URL without spaces or plus signs.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise MalformedError(
            what,
            got=repr(text)[:80],
            expected="1 to 255 of A-Z a-z 0-9 . _ : / - starting alphanumeric",
        )
    return text


@dataclass(frozen=True, slots=True)
class LogKey:
    """A public key that signs, or once signed, checkpoints of the log `origin`."""

    origin: str
    public: bytes

    @property
    def key_hash(self) -> bytes:
        """The four bytes that name this key in a signature line."""
        text = self.origin.encode() + b"\n" + ED25519_TYPE + self.public
        return hashlib.sha256(text).digest()[:HASH_SIZE]

    @property
    def vkey(self) -> str:
        """The text form, which auditors pin."""
        key = b64(ED25519_TYPE + self.public)
        return f"{self.origin}+{self.key_hash.hex()}+{key}"

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo (RFC 8410), DER."""
        key = Ed25519PublicKey.from_public_bytes(self.public)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made `signature` over `message`."""
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public)
            key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class LogSigner:
    """The private half of a log key; its `repr` shows the public half only."""

    __slots__ = ("_private", "key", "key_hash")

    def __init__(self, origin: str, private: Ed25519PrivateKey) -> None:
        """Name the key by the log's origin."""
        self._private = private
        self.key = LogKey(
            parse_origin(origin),
            private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )
        self.key_hash = self.key.key_hash

    def sign(self, message: bytes) -> bytes:
        """Sign with Ed25519."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        """Show the public half."""
        return f"LogSigner({self.key.vkey})"

    def __reduce__(self) -> str:
        """Refuse to be copied out of the process."""
        raise TypeError("a log signer cannot be pickled")


def parse_vkey(text: object) -> LogKey:
    """Accept `name+hash+base64(0x01 ‖ public key)`.

    Raises:
        MalformedError: another key type, or a hash that is not that of the key.
    """
    parts = require_text(text, "log key", limit=400).split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004 - name, hash, key
        raise MalformedError("log key", got=repr(text)[:80], expected="NAME+HASH+KEY")
    origin = parse_origin(parts[0], "log key name")
    key_hash = parse_hex(parts[1], "log key hash", size=HASH_SIZE)
    data = parse_b64(parts[2], "log key", limit=1 + PUBLIC_SIZE)
    if data[:1] != ED25519_TYPE or len(data) != 1 + PUBLIC_SIZE:
        raise MalformedError(
            "log key",
            got=f"type {data[:1].hex() or 'none'}, {len(data)} bytes",
            expected="type 01 (Ed25519), 33 bytes",
        )
    key = LogKey(origin, data[1:])
    if key.key_hash != key_hash:
        raise MalformedError(
            f"log key of {origin}: hash",
            got=key_hash.hex(),
            expected=key.key_hash.hex(),
            hint="a character of this key was changed; fetch it again",
        )
    return key


def log_key_from_spki(origin: str, spki: bytes) -> LogKey:
    """Read an Ed25519 SubjectPublicKeyInfo as a key of the log `origin`.

    Raises:
        MalformedError: no SubjectPublicKeyInfo, or another kind of key.
    """
    try:
        key = load_der_public_key(spki)
    except Exception as exc:
        # The loader raises ValueError, UnsupportedAlgorithm and, on some curves,
        # classes of OpenSSL's own; none of them is of interest here.
        raise MalformedError("log key", got="bytes", expected="an Ed25519 key") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise MalformedError("log key", got=type(key).__name__, expected="Ed25519")
    return LogKey(origin, key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def find_key(keys: Sequence[LogKey], origin: str, key_hash: bytes) -> LogKey | None:
    """Return the key that a signature line names, if it is among `keys`."""
    for key in keys:
        if key.origin == origin and key.key_hash == key_hash:
            return key
    return None
