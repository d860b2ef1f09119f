"""HPKE (RFC 9180), base mode, one message: the answer is sealed to the bound recipient.

`cryptography` takes no associated data, so everything that must be tied to the message
is in `info` (`kbs.channel.binding.release_info`). The output is enc ‖ ct.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from cryptography.hazmat.primitives.hpke import Suite as HPKESuite

from kbs.channel.recipient import Recipient, RecipientPrivateKey, Suite, recipient_of
from kbs.core.errors import MalformedError, VerificationError

# RFC 9180, section 7: 0x0020, 0x0010, 0x0011 are the KEMs, 0x0001 and 0x0002 the KDFs
# HKDF-SHA256 and HKDF-SHA384, 0x0002 the AEAD AES-256-GCM.
_SUITES: Mapping[Suite, HPKESuite] = {
    Suite.X25519: HPKESuite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    Suite.P256: HPKESuite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    Suite.P384: HPKESuite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM),
}


def seal(suite: Suite, recipient: Recipient, plaintext: bytes, *, info: bytes) -> bytes:
    """Return enc ‖ ct for the recipient.

    Raises:
        MalformedError: the suite is not that of the recipient's key.
    """
    _require_suite(suite, recipient.suite)
    return _SUITES[suite].encrypt(plaintext, recipient.key, info=info)


def unseal(
    suite: Suite, key: RecipientPrivateKey, sealed: bytes, *, info: bytes
) -> bytes:
    """Return the plaintext.

    Raises:
        MalformedError: the suite is not that of the key.
        VerificationError: it was sealed to another key, for another request, or was
            changed.
    """
    _require_suite(suite, recipient_of(key).suite)
    try:
        return _SUITES[suite].decrypt(sealed, key, info=info)
    except InvalidTag as exc:
        raise VerificationError(
            "sealed answer",
            got=f"{len(sealed)} bytes that do not open",
            expected="one sealed to this key for this request",
            code="answer.sealed",
        ) from exc


def _require_suite(suite: Suite, fitting: Suite) -> None:
    if suite is not fitting:
        raise MalformedError(
            "suite", got=suite.value, expected=f"{fitting.value} for this key"
        )
