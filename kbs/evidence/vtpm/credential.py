"""TPM2_MakeCredential without a TPM, and what an endorsement key must be for it.

TPM 2.0 Library, Part 1 (revision 1.59), sections 24 (credential protection), 11.4.10
(KDFa, KDFe), B.10.4 and C.6.4 (secret sharing by RSA and ECC); TCG EK Credential
Profile 2.5. Only the TPM that holds both the endorsement key and the key with this
name can open what is made here, so an answer proves that they live together.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import (
    KBKDFHMAC,
    CounterLocation,
    Mode,
)

from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.vtpm.abi import sized
from kbs.evidence.vtpm.algorithms import NAME_HASHES, Algorithm
from kbs.evidence.vtpm.public import ObjectAttributes, TpmPublic

_REQUIRED = (
    ObjectAttributes.RESTRICTED,
    ObjectAttributes.DECRYPT,
    ObjectAttributes.FIXED_TPM,
    ObjectAttributes.FIXED_PARENT,
    ObjectAttributes.SENSITIVE_DATA_ORIGIN,
)
# Part 1, section 24.4 and 24.5: labels of the derivations; OAEP's ends with a zero.
_IDENTITY = b"IDENTITY"
_OAEP_LABEL = b"IDENTITY\0"
_STORAGE = b"STORAGE"
_INTEGRITY = b"INTEGRITY"
_AES_BLOCK = 16
# TCG OID registry: tcg-kp-EKCertificate.
_EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
MAX_CREDENTIAL = 32
"""Bytes of a secret; a TPM takes up to the digest of the endorsement key's nameAlg."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes to the TPM: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    credential_blob: bytes
    secret: bytes


def make_credential(
    endorsement: TpmPublic, name: bytes, credential: bytes
) -> Credential:
    """Wrap `credential` for the object called `name` in the TPM of `endorsement`.

    Raises:
        VerificationError: the endorsement key lacks the attributes of one.
        MalformedError: the credential is empty or too long, or the key is no key.
    """
    check_endorsement_key(endorsement)
    if not 0 < len(credential) <= MAX_CREDENTIAL:
        raise MalformedError(
            "credential",
            got=f"{len(credential)} bytes",
            expected=f"1 to {MAX_CREDENTIAL}",
        )
    algorithm = NAME_HASHES[endorsement.name_algorithm]
    seed, secret = _share_seed(endorsement, algorithm)
    identity = _encrypt(endorsement, algorithm, seed, name, sized(credential))
    key = kdfa(algorithm, seed, _INTEGRITY, b"", algorithm.digest_size)
    integrity = hmac.HMAC(key, algorithm)
    integrity.update(identity + name)
    return Credential(sized(sized(integrity.finalize()) + identity), sized(secret))


def check_endorsement_key(public: TpmPublic) -> None:
    """Require a restricted decryption key that never leaves its TPM.

    Raises:
        VerificationError: an attribute is missing, or the key can sign.
    """
    wrong = [f"{flag.name} not set" for flag in _REQUIRED if not public.has(flag)]
    if public.has(ObjectAttributes.SIGN):
        wrong.append("SIGN set")
    if public.symmetric is None:
        wrong.append("no symmetric algorithm")
    if public.scheme.algorithm is not Algorithm.NULL:
        wrong.append(f"scheme {public.scheme.algorithm.name}")
    if wrong:
        raise VerificationError(
            "endorsement key",
            got=", ".join(wrong),
            expected="a restricted decryption key fixed to its TPM",
            hint="use the TPM's EK from the templates of the EK Credential Profile",
            code="vtpm.ek.attributes",
        )


def check_endorsement_certificate(
    public: TpmPublic, certificate: x509.Certificate
) -> None:
    """Require that a certificate is an EK certificate, for exactly this key.

    TCG EK Credential Profile 2.5, section 3.2: no CA; a key usage, where there is one,
    that fits an endorsement key; an extended key usage, where there is one, with
    tcg-kp-EKCertificate. A maker's CA may certify other keys too, which prove no TPM.

    Raises:
        VerificationError: it certifies another key, or the key for something else.
    """
    try:
        same = certificate.public_key() == public.key
    except (ValueError, UnsupportedAlgorithm):
        same = False
    if not same:
        raise VerificationError(
            "endorsement certificate",
            got="a certificate of another key",
            expected=f"the key with name {public.name.hex()}",
            code="vtpm.ek.certificate",
        )
    problem = _endorsement_problem(certificate)
    if problem is not None:
        raise VerificationError(
            "endorsement certificate",
            got=problem,
            expected="a certificate for an endorsement key",
            hint="TCG EK Credential Profile 2.5, section 3.2",
            code="vtpm.ek.certificate",
        )


def _endorsement_problem(certificate: x509.Certificate) -> str | None:
    extensions = certificate.extensions
    with suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "a CA's certificate"
    with suppress(x509.ExtensionNotFound):
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        if not (usage.key_encipherment or usage.key_agreement):
            return "a key usage without keyEncipherment and keyAgreement"
    with suppress(x509.ExtensionNotFound):
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if _EK_CERTIFICATE not in purposes:
            listed = ", ".join(one.dotted_string for one in purposes)
            return f"extended key usage {listed[:200]}"
    return None


def kdfa(
    algorithm: hashes.HashAlgorithm, key: bytes, label: bytes, context: bytes, size: int
) -> bytes:
    """KDFa (Part 1, section 11.4.10.2): SP 800-108 in counter mode with HMAC."""
    return KBKDFHMAC(
        algorithm=algorithm,
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(key)


def kdfe(
    algorithm: hashes.HashAlgorithm, shared: bytes, label: bytes, u: bytes, v: bytes
) -> bytes:
    """KDFe (Part 1, section 11.4.10.3): SP 800-56A, one digest long."""
    return ConcatKDFHash(
        algorithm=algorithm,
        length=algorithm.digest_size,
        otherinfo=label + b"\0" + u + v,
    ).derive(shared)


def _share_seed(
    endorsement: TpmPublic, algorithm: hashes.HashAlgorithm
) -> tuple[bytes, bytes]:
    key = endorsement.key
    if isinstance(key, rsa.RSAPublicKey):
        seed = secrets.token_bytes(algorithm.digest_size)
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, _OAEP_LABEL)
        try:
            return seed, key.encrypt(seed, oaep)
        except ValueError as exc:
            # A number that is no RSA modulus: an even one, for example.
            raise MalformedError(
                "endorsement key",
                got="a key that nothing can be sealed to",
                expected="the EK of a TPM",
            ) from exc
    ephemeral = ec.generate_private_key(key.curve)
    shared = ephemeral.exchange(ec.ECDH(), key)
    x, y = _coordinates(ephemeral.public_key())
    # C.6.4: party U is the ephemeral key, party V the endorsement key.
    seed = kdfe(algorithm, shared, _IDENTITY, x, _coordinates(key)[0])
    return seed, sized(x) + sized(y)


def _coordinates(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    # At full length: a TPM does not drop leading zeros here.
    numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")


def _encrypt(
    endorsement: TpmPublic,
    algorithm: hashes.HashAlgorithm,
    seed: bytes,
    name: bytes,
    plaintext: bytes,
) -> bytes:
    bits = endorsement.symmetric.key_bits if endorsement.symmetric is not None else 0
    key = kdfa(algorithm, seed, _STORAGE, name, bits // 8)
    # Part 1, section 24.4: the IV is zero, since the key is used once.
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(_AES_BLOCK))).encryptor()
    return encryptor.update(plaintext) + encryptor.finalize()
