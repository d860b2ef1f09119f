"""Signatures over statements: Ed25519, ECDSA P-256 and SSH signatures.

Ed25519 (RFC 8032) and ES256 (RFC 7518, section 3.4: raw r ‖ s) sign
"kbs.statement/1" 0x00 JCS(statement); an SSH signature covers JCS(statement) and
carries its own namespace.
"""

from __future__ import annotations

import hashlib
from typing import TypeGuard

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from kbs.core.errors import ForbiddenError, MalformedError
from kbs.governance.sshsig import verify_ssh_signature
from kbs.governance.statement import (
    STATEMENT_CONTEXT,
    SignatureAlgorithm,
    Statement,
    StatementSignature,
)

SigningKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
VerifyingKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

# RFC 7518, section 3.4: 32 bytes for each of r and s.
_SCALAR_SIZE = 32


def spki_of(key: VerifyingKey) -> bytes:
    """Return the SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: VerifyingKey) -> str:
    """Return hex SHA-256 of the SubjectPublicKeyInfo."""
    return hashlib.sha256(spki_of(key)).hexdigest()


def parse_public_key(der: bytes) -> VerifyingKey:
    """Accept the SPKI (DER) of an Ed25519 or a P-256 key in its one encoding.

    Raises:
        MalformedError: anything else.
    """
    expected = "an Ed25519 or P-256 public key (SubjectPublicKeyInfo, DER)"
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            "public key", got=f"{len(der)} other bytes", expected=expected
        ) from exc
    if not _can_verify(key):
        raise MalformedError("public key", got=type(key).__name__, expected=expected)
    if spki_of(key) != der:
        raise MalformedError("public key", got="another encoding", expected=expected)
    return key


def sign_statement(statement: Statement, key: SigningKey) -> StatementSignature:
    """Return the signature of `key` over a statement.

    Raises:
        MalformedError: the key is on another curve than P-256.
    """
    public = key.public_key()
    if not _can_verify(public):
        raise MalformedError("signing key", expected="Ed25519 or P-256")
    message = STATEMENT_CONTEXT + statement.canonical()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        value = key.sign(message)
        return StatementSignature(key_id(public), SignatureAlgorithm.EDDSA, value)
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    value = r.to_bytes(_SCALAR_SIZE, "big") + s.to_bytes(_SCALAR_SIZE, "big")
    return StatementSignature(key_id(public), SignatureAlgorithm.ES256, value)


def verify_signature(
    statement: Statement, signature: StatementSignature, key: VerifyingKey
) -> None:
    """Return if `signature` is by `key` over `statement`.

    Raises:
        ForbiddenError: it is not, or its algorithm is not that of the key.
        MalformedError: an SSH signature of another shape or namespace.
    """
    if signature.keyid != key_id(key):
        raise _refused(signature, f"key {key_id(key)[:16]}…")
    message = STATEMENT_CONTEXT + statement.canonical()
    if isinstance(key, ed25519.Ed25519PublicKey):
        if signature.algorithm is SignatureAlgorithm.SSHSIG:
            verify_ssh_signature(signature.value, statement.canonical(), key)
            return
        _require_algorithm(signature, SignatureAlgorithm.EDDSA)
        _verify_ed25519(signature, message, key)
        return
    _require_algorithm(signature, SignatureAlgorithm.ES256)
    _verify_es256(signature, message, key)


def _verify_ed25519(
    signature: StatementSignature, message: bytes, key: ed25519.Ed25519PublicKey
) -> None:
    try:
        key.verify(signature.value, message)
    except InvalidSignature as exc:
        raise _refused(signature, "a signature that verifies") from exc


def _verify_es256(
    signature: StatementSignature, message: bytes, key: ec.EllipticCurvePublicKey
) -> None:
    if len(signature.value) != 2 * _SCALAR_SIZE:
        raise _refused(signature, f"{2 * _SCALAR_SIZE} bytes")
    encoded = utils.encode_dss_signature(
        int.from_bytes(signature.value[:_SCALAR_SIZE], "big"),
        int.from_bytes(signature.value[_SCALAR_SIZE:], "big"),
    )
    try:
        key.verify(encoded, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise _refused(signature, "a signature that verifies") from exc


def _require_algorithm(
    signature: StatementSignature, algorithm: SignatureAlgorithm
) -> None:
    if signature.algorithm is not algorithm:
        raise _refused(signature, f"{algorithm} for this key")


def _can_verify(key: object) -> TypeGuard[VerifyingKey]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _refused(signature: StatementSignature, expected: str) -> ForbiddenError:
    return ForbiddenError(
        "statement signature",
        got=f"{signature.algorithm} by {signature.keyid[:16]}…",
        expected=expected,
        code="statement.signature",
    )
