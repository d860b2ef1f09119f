"""The response key: what the broker answers is signed by a key that the guest pins.

Ed25519 over a context, 0x00 and the canonical JSON, so that no signed thing can stand
in for another kind. The guest needs this public key only; TLS is not what it trusts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from kbs.core.encode import (
    b64u,
    canonical_json,
    parse_b64u,
    parse_hex,
    require_members,
)
from kbs.core.errors import AuthenticationError, MalformedError

ANSWER_CONTEXT = b"kbs.answer/1"
CHALLENGE_CONTEXT = b"kbs.challenge-answer/1"

MAX_KEY_FILE_BYTES = 4096
_SIGNATURE_SIZE = 64
_DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True)
class ResponseSignature:
    """A signature and the id of the response key that made it."""

    keyid: str
    value: bytes

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"keyid": self.keyid, "sig": b64u(self.value)}


def response_key_id(key: Ed25519PublicKey) -> str:
    """Return hex SHA-256 of the SubjectPublicKeyInfo."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def serialize_response_key(key: Ed25519PublicKey) -> bytes:
    """Return the PEM file that a guest pins."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def parse_response_key(data: bytes) -> Ed25519PublicKey:
    """Accept the PEM file of a response key.

    Raises:
        MalformedError: it is no Ed25519 public key.
    """
    expected = "an Ed25519 public key in PEM (SubjectPublicKeyInfo)"
    if len(data) > MAX_KEY_FILE_BYTES:
        raise MalformedError("broker key", got=f"{len(data)} bytes", expected=expected)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError("broker key", got="another", expected=expected) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise MalformedError("broker key", got=type(key).__name__, expected=expected)
    return key


def sign_document(
    key: Ed25519PrivateKey, context: bytes, document: object
) -> ResponseSignature:
    """Return the signature over one document in one context."""
    return sign_canonical(key, context, canonical_json(document))


def sign_canonical(
    key: Ed25519PrivateKey, context: bytes, canonical: bytes
) -> ResponseSignature:
    """Return the signature over one document that is written canonically already."""
    value = key.sign(_message(context, canonical))
    return ResponseSignature(response_key_id(key.public_key()), value)


def parse_signature(value: object) -> ResponseSignature:
    """Accept the JSON form of a signature.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(value, "signature", required={"keyid", "sig"})
    sig = parse_b64u(members["sig"], "signature sig", limit=_SIGNATURE_SIZE)
    if len(sig) != _SIGNATURE_SIZE:
        raise MalformedError(
            "signature sig", got=f"{len(sig)} bytes", expected=f"{_SIGNATURE_SIZE}"
        )
    keyid = parse_hex(members["keyid"], "signature keyid", size=_DIGEST_SIZE).hex()
    return ResponseSignature(keyid, sig)


def verify_document(
    key: Ed25519PublicKey,
    context: bytes,
    document: object,
    signature: ResponseSignature,
) -> None:
    """Return if the pinned key signed this document in this context.

    Raises:
        AuthenticationError: another key signed it, or the signature does not verify.
    """
    if signature.keyid != response_key_id(key):
        raise _refused(f"a signature by key {signature.keyid[:16]}…", key)
    try:
        key.verify(signature.value, _message(context, canonical_json(document)))
    except InvalidSignature as exc:
        raise _refused("a signature that does not verify", key) from exc


def _message(context: bytes, canonical: bytes) -> bytes:
    return context + b"\x00" + canonical


def _refused(got: str, key: Ed25519PublicKey) -> AuthenticationError:
    return AuthenticationError(
        "broker signature",
        got=got,
        expected=f"one by the pinned key {response_key_id(key)[:16]}…",
        hint="check --broker-key, and who stands between you and the broker",
        code="answer.signature",
    )
