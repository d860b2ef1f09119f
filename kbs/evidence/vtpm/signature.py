"""Verifies a TPMT_SIGNATURE over a quote under an attestation key.

TPM 2.0 Library, Part 1, annexes B.5–B.7 (RSASSA, RSAPSS) and C.4 (ECDSA).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kbs.evidence.vtpm.abi import Signature
from kbs.evidence.vtpm.algorithms import SIGNATURE_HASHES, Algorithm, bank_name
from kbs.evidence.vtpm.public import PublicKey, TpmPublic


def scheme_problem(
    signature: Signature, key: PublicKey, public: TpmPublic | None
) -> tuple[str, str] | None:
    """Say what was got and expected when the scheme cannot be this key's, else None."""
    got = scheme_text(signature.scheme, signature.hash)
    if signature.hash not in SIGNATURE_HASHES:
        return got, "SHA-256 or SHA-384"
    if (signature.scheme is Algorithm.ECDSA) != isinstance(
        key, ec.EllipticCurvePublicKey
    ):
        kind = "an RSA" if isinstance(key, rsa.RSAPublicKey) else "an ECC"
        return got, f"a scheme of {kind} key"
    if public is None or public.scheme.algorithm is Algorithm.NULL:
        return None
    allowed = public.scheme
    if (signature.scheme, signature.hash) != (allowed.algorithm, allowed.hash):
        return got, scheme_text(allowed.algorithm, allowed.hash)
    return None


def is_signed(signature: Signature, key: PublicKey, message: bytes) -> bool:
    """Whether the signature over `message` verifies; the scheme has been checked."""
    algorithm = SIGNATURE_HASHES[signature.hash]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            scheme = _rsa_padding(signature.scheme, algorithm)
            key.verify(signature.values[0], message, scheme, algorithm)
        else:
            r, s = (int.from_bytes(value, "big") for value in signature.values)
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def scheme_text(scheme: Algorithm, hash_algorithm: Algorithm | None) -> str:
    """Return how people write a scheme: `rsassa sha256`."""
    name = scheme.name.lower()
    return name if hash_algorithm is None else f"{name} {bank_name(hash_algorithm)}"


def _rsa_padding(
    scheme: Algorithm, algorithm: hashes.HashAlgorithm
) -> padding.AsymmetricPadding:
    if scheme is Algorithm.RSASSA:
        return padding.PKCS1v15()
    # The salt is as long as the digest or as fits, by the TPM's revision (B.7).
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=padding.PSS.AUTO)
