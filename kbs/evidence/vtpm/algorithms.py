"""TPM algorithm and curve identifiers, and what `cryptography` calls them.

TCG Algorithm Registry, revision 1.32 (TPM_ALG_ID, TPM_ECC_CURVE).
"""

from __future__ import annotations

from enum import IntEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.errors import MalformedError


class Algorithm(IntEnum):
    """TPM_ALG_ID; only what a quote, its key and its event log may name."""

    RSA = 0x0001
    SHA1 = 0x0004
    AES = 0x0006
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    SM3_256 = 0x0012
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    KDF1_SP800_56A = 0x0020
    KDF1_SP800_108 = 0x0022
    ECC = 0x0023
    SHA3_256 = 0x0027
    SHA3_384 = 0x0028
    SHA3_512 = 0x0029
    CFB = 0x0043


DIGEST_SIZES: dict[Algorithm, int] = {
    Algorithm.SHA1: 20,
    Algorithm.SHA256: 32,
    Algorithm.SHA384: 48,
    Algorithm.SHA512: 64,
    Algorithm.SM3_256: 32,
    Algorithm.SHA3_256: 32,
    Algorithm.SHA3_384: 48,
    Algorithm.SHA3_512: 64,
}
"""Bytes of a digest, for every hash that a PCR bank can have."""

_HASHES: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.SHA1: hashes.SHA1(),  # noqa: S303 - replays SHA-1 banks, signs nothing
    Algorithm.SHA256: hashes.SHA256(),
    Algorithm.SHA384: hashes.SHA384(),
    Algorithm.SHA512: hashes.SHA512(),
}

SIGNATURE_HASHES: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.SHA256: hashes.SHA256(),
    Algorithm.SHA384: hashes.SHA384(),
}
"""Hashes under which we accept a signature; SHA-1 collides, others nobody uses."""

NAME_HASHES: dict[Algorithm, hashes.HashAlgorithm] = {
    Algorithm.SHA256: hashes.SHA256(),
    Algorithm.SHA384: hashes.SHA384(),
    Algorithm.SHA512: hashes.SHA512(),
}
"""Hashes that may name an object; a SHA-1 name could be shared by two keys."""

CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
"""TPM_ECC_NIST_P256 and TPM_ECC_NIST_P384."""


def bank_name(algorithm: Algorithm) -> str:
    """Return what bundles and claims call the PCR bank of a hash (`sha256`)."""
    return algorithm.name.lower()


BANKS: dict[str, Algorithm] = {bank_name(alg): alg for alg in DIGEST_SIZES}
"""Bank names to hashes."""


def parse_bank(name: object, what: str) -> Algorithm:
    """Accept the name of a PCR bank.

    Raises:
        MalformedError: there is no such bank.
    """
    algorithm = BANKS.get(name) if isinstance(name, str) else None
    if algorithm is None:
        raise MalformedError(
            what, got=repr(name)[:60], expected="one of " + ", ".join(BANKS)
        )
    return algorithm


def parse_algorithm(value: int, what: str, allowed: frozenset[Algorithm]) -> Algorithm:
    """Accept a TPM_ALG_ID that is in `allowed`.

    Raises:
        MalformedError: another identifier.
    """
    if value not in allowed:
        names = ", ".join(sorted(f"{alg:#06x} {alg.name}" for alg in allowed))
        raise MalformedError(what, got=f"{value:#06x}", expected=f"one of {names}")
    return Algorithm(value)


def parse_hash(value: int, what: str) -> Algorithm:
    """Accept the identifier of any hash that a PCR bank can have.

    Raises:
        MalformedError: another identifier.
    """
    return parse_algorithm(value, what, frozenset(DIGEST_SIZES))


def hash_of(algorithm: Algorithm) -> hashes.HashAlgorithm | None:
    """Return the hash if we can compute it (SM3 and SHA-3 banks are not replayed)."""
    return _HASHES.get(algorithm)


def digest(algorithm: hashes.HashAlgorithm, *parts: bytes) -> bytes:
    """Return the digest over the parts in order."""
    context = hashes.Hash(algorithm)
    for part in parts:
        context.update(part)
    return context.finalize()
