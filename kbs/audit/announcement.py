"""A new signing key of the broker is announced by an entry that the old one signed.

`decisions.md`, section 6. Signed bytes are "kbs.key-announcement/1" 0x00 JCS({log,
purpose, public_key, previous}); `log` is the log's origin, keys are b64url
SubjectPublicKeyInfo. The signature is Ed25519, or ECDSA with SHA-256 for keys on P-256.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from kbs.audit.events import KeyAnnouncement
from kbs.audit.kinds import Purpose
from kbs.core.encode import b64u, canonical_json, parse_b64u
from kbs.core.errors import MalformedError, VerificationError

_CONTEXT = b"kbs.key-announcement/1\x00"
_MAX_KEY = 2048

SigningKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
VerifyingKey = Ed25519PublicKey | ec.EllipticCurvePublicKey


def announce(
    *, log: str, purpose: Purpose, public_key: VerifyingKey, previous: SigningKey
) -> KeyAnnouncement:
    """Announce `public_key` as the successor of `previous`, which signs."""
    new, old = spki_text(public_key), spki_text(previous.public_key())
    message = _message(log, purpose, new, old)
    if isinstance(previous, Ed25519PrivateKey):
        signature = previous.sign(message)
    else:
        signature = previous.sign(message, ec.ECDSA(SHA256()))
    return KeyAnnouncement(
        log=log,
        purpose=purpose,
        public_key=new,
        previous=old,
        signature=b64u(signature),
    )


def verify_announcement(announced: KeyAnnouncement) -> None:
    """Check that the previous key signed the announcement.

    Raises:
        MalformedError: a key is none that the broker signs with.
        VerificationError: the previous key did not sign it.
    """
    load_verifying_key(announced.public_key)
    previous = load_verifying_key(announced.previous)
    message = _message(
        announced.log, announced.purpose, announced.public_key, announced.previous
    )
    signature = parse_b64u(
        announced.signature, "announcement signature", limit=_MAX_KEY
    )
    try:
        if isinstance(previous, Ed25519PublicKey):
            previous.verify(signature, message)
        else:
            previous.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature as exc:
        raise VerificationError(
            f"announcement of a {announced.purpose.value} key",
            got="a signature that does not verify",
            expected="one by the key before it",
            code="audit.key_announcement",
        ) from exc


def spki_text(key: VerifyingKey) -> str:
    """Return the b64url SubjectPublicKeyInfo of a key."""
    return b64u(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def load_verifying_key(text: str) -> VerifyingKey:
    """Read a b64url SubjectPublicKeyInfo, Ed25519 or P-256.

    Raises:
        MalformedError: anything else.
    """
    expected = "the SubjectPublicKeyInfo of an Ed25519 or P-256 key"
    data = parse_b64u(text, "public key", limit=_MAX_KEY)
    try:
        key = load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            "public key", got="no such key", expected=expected
        ) from exc
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    raise MalformedError("public key", got=type(key).__name__, expected=expected)


def _message(log: str, purpose: Purpose, public_key: str, previous: str) -> bytes:
    return _CONTEXT + canonical_json(
        {
            "log": log,
            "purpose": purpose.value,
            "public_key": public_key,
            "previous": previous,
        }
    )
