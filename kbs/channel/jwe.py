"""JSON Web Encryption in the one form that RCAR guests open (RFC 7516, 7518).

Flattened JSON, `A256GCM`, no `aad`. The guest writes the protected header anew before
it checks the tag: `alg`, `enc`, then the rest by name, no spaces. Any other order and
it cannot open what it gets, so the header is written here and by no library.
"""

from __future__ import annotations

import json
import secrets

from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from kbs.channel.tee_key import ECDH, RSA_OAEP, TeeKey
from kbs.core.encode import b64u
from kbs.core.errors import MalformedError

_KEY_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
_OTHER_INFO = (
    len(ECDH).to_bytes(4, "big")
    + ECDH.encode("ascii")
    + bytes(4)  # PartyUInfo: empty
    + bytes(4)  # PartyVInfo: empty
    + (8 * _KEY_BYTES).to_bytes(4, "big")
)
_JSON = json.JSONEncoder(separators=(",", ":"))


def encrypt_jwe(recipient: TeeKey, plaintext: bytes) -> dict[str, str]:
    """Return a JWE that only the holder of the recipient's private key opens.

    Raises:
        MalformedError: the key is none that a message can be sealed to.
    """
    content_key = secrets.token_bytes(_KEY_BYTES)
    if isinstance(recipient.key, ec.EllipticCurvePublicKey):
        curve = recipient.key.curve
        ephemeral = ec.generate_private_key(curve)
        wrapping = derive_wrapping_key(ephemeral.exchange(ec.ECDH(), recipient.key))
        header = {"alg": ECDH, "enc": "A256GCM", "epk": _epk(ephemeral, recipient)}
        encrypted_key = aes_key_wrap(wrapping, content_key)
    else:
        header = {"alg": RSA_OAEP, "enc": "A256GCM"}
        oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
        try:
            encrypted_key = recipient.key.encrypt(content_key, oaep)
        except ValueError as exc:
            raise MalformedError(
                "tee-pubkey", got="a key that nothing can be sealed to"
            ) from exc
    protected = b64u(_JSON.encode(header).encode("ascii"))
    iv = secrets.token_bytes(_IV_BYTES)
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode("ascii"))
    return {
        "protected": protected,
        "encrypted_key": b64u(encrypted_key),
        "iv": b64u(iv),
        "ciphertext": b64u(sealed[:-_TAG_BYTES]),
        "tag": b64u(sealed[-_TAG_BYTES:]),
    }


def derive_wrapping_key(shared: bytes) -> bytes:
    """Return the key that wraps the content key (RFC 7518, section 4.6.2)."""
    return ConcatKDFHash(SHA256(), _KEY_BYTES, _OTHER_INFO).derive(shared)


def _epk(ephemeral: ec.EllipticCurvePrivateKey, recipient: TeeKey) -> dict[str, str]:
    size = (ephemeral.curve.key_size + 7) // 8
    point = ephemeral.public_key().public_numbers()
    return {
        "crv": recipient.to_json()["crv"],
        "kty": "EC",
        "x": b64u(point.x.to_bytes(size, "big")),
        "y": b64u(point.y.to_bytes(size, "big")),
    }
