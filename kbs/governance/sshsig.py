"""SSH signatures over statements, so that `ssh-keygen -Y sign` and an agent can sign.

OpenSSH, PROTOCOL.sshsig: a blob of magic, version, public key, namespace, reserved,
hash algorithm and signature, over a structure that repeats all but the keys. Ed25519
keys only: RSA and security-key formats would each bring rules of their own.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.core.errors import ForbiddenError, MalformedError
from kbs.core.reader import Reader

NAMESPACE = b"kbs-statement@v1"

# OpenSSH, PROTOCOL.sshsig, "Blob format" and "Signed Data".
_MAGIC = b"SSHSIG"
_VERSION = 1
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
# RFC 8709, sections 4 and 6: public key and signature blobs of Ed25519.
_ED25519 = b"ssh-ed25519"
_PUBLIC_SIZE = 32
_SIGNATURE_SIZE = 64
_FIELD_LIMIT = 512


def verify_ssh_signature(blob: bytes, message: bytes, key: Ed25519PublicKey) -> None:
    """Return if `blob` (not armored) is a signature by `key` over `message`.

    Raises:
        MalformedError: the blob is no SSH signature in this namespace.
        ForbiddenError: it is by another key, or does not verify.
    """
    public, hash_name, signature = _parse_blob(blob)
    if public != key.public_bytes_raw():
        raise ForbiddenError(
            "SSH signature",
            got=f"one by key {hashlib.sha256(public).hexdigest()[:16]}…",
            expected="one by the key that keyid names",
            code="statement.signature",
        )
    hashed = _HASHES[hash_name](message).digest()
    try:
        key.verify(signature, _MAGIC + _signed_fields(hash_name) + _string(hashed))
    except InvalidSignature as exc:
        raise ForbiddenError(
            "SSH signature", got="one that does not verify", code="statement.signature"
        ) from exc


def _parse_blob(blob: bytes) -> tuple[bytes, bytes, bytes]:
    reader = Reader(blob, "SSH signature")
    _expect(reader.take(len(_MAGIC), "magic"), _MAGIC, "magic")
    version = reader.big(4, "version")
    _expect(version.to_bytes(4, "big"), _VERSION.to_bytes(4, "big"), "version")
    public = _parse_ed25519(
        reader.sized(4, "public key", limit=_FIELD_LIMIT), _PUBLIC_SIZE, "public key"
    )
    namespace = reader.sized(4, "namespace", limit=_FIELD_LIMIT)
    _expect(namespace, NAMESPACE, "namespace")
    _expect(reader.sized(4, "reserved", limit=_FIELD_LIMIT), b"", "reserved")
    hash_name = reader.sized(4, "hash algorithm", limit=_FIELD_LIMIT)
    if hash_name not in _HASHES:
        raise MalformedError(
            "SSH signature hash algorithm",
            got=repr(hash_name)[:40],
            expected="sha256 or sha512",
        )
    signature = _parse_ed25519(
        reader.sized(4, "signature", limit=_FIELD_LIMIT), _SIGNATURE_SIZE, "signature"
    )
    reader.end()
    return public, hash_name, signature


def _parse_ed25519(data: bytes, size: int, what: str) -> bytes:
    reader = Reader(data, f"SSH {what}")
    _expect(reader.sized(4, "algorithm", limit=_FIELD_LIMIT), _ED25519, "algorithm")
    value = reader.sized(4, what, limit=_FIELD_LIMIT)
    reader.end()
    if len(value) != size:
        raise MalformedError(
            f"SSH {what}", got=f"{len(value)} bytes", expected=f"{size} bytes"
        )
    return value


def _signed_fields(hash_name: bytes) -> bytes:
    return _string(NAMESPACE) + _string(b"") + _string(hash_name)


def _string(data: bytes) -> bytes:
    # RFC 4251, section 5: `string`.
    return len(data).to_bytes(4, "big") + data


def _expect(got: bytes, expected: bytes, field: str) -> None:
    if got != expected:
        raise MalformedError(
            f"SSH signature {field}", got=repr(got)[:60], expected=repr(expected)
        )
