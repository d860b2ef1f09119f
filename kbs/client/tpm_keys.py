"""Templates of the keys that a guest makes in its TPM.

EK: TCG EK Credential Profile for TPM Family 2.0, version 2.5, section B.3: templates
L-1 (RSA 2048) and L-2 (ECC NIST P-256). AK: a restricted signing key, TPM 2.0 Library,
Part 1, section 22. Both are primary keys of the endorsement hierarchy with an empty
or prescribed `unique`, so the same TPM makes the same key again whenever it is asked.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.public import (
    NO_SCHEME,
    EccParameters,
    ObjectAttributes,
    RsaParameters,
    Scheme,
    Symmetric,
    TpmPublic,
)

# TCG Algorithm Registry, section 6.4: TPM_ECC_NIST_P256.
_NIST_P256 = 0x0003

# EK Credential Profile, section B.3.3: PolicyA, TPM2_PolicySecret(endorsement).
EK_POLICY = bytes.fromhex(
    "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
)

# A key that software cannot copy, import or use on data it made up itself.
_FIXED = (
    ObjectAttributes.FIXED_TPM
    | ObjectAttributes.FIXED_PARENT
    | ObjectAttributes.SENSITIVE_DATA_ORIGIN
    | ObjectAttributes.RESTRICTED
)

AK_ATTRIBUTES = (
    _FIXED
    | ObjectAttributes.USER_WITH_AUTH
    | ObjectAttributes.NO_DA
    | ObjectAttributes.SIGN
)

# The quote's and the name's hash are the same; a policy asks for nothing else.
AK_TEMPLATE = TpmPublic(
    name_algorithm=Algorithm.SHA256,
    attributes=AK_ATTRIBUTES,
    auth_policy=b"",
    symmetric=None,
    scheme=Scheme(Algorithm.ECDSA, Algorithm.SHA256),
    parameters=EccParameters(_NIST_P256, NO_SCHEME, b"", b""),
)

# Template L-1; `unique` is 256 zero bytes, not empty.
EK_RSA_TEMPLATE = TpmPublic(
    name_algorithm=Algorithm.SHA256,
    attributes=_FIXED | ObjectAttributes.ADMIN_WITH_POLICY | ObjectAttributes.DECRYPT,
    auth_policy=EK_POLICY,
    symmetric=Symmetric(128),
    scheme=NO_SCHEME,
    parameters=RsaParameters(2048, 0, bytes(256)),
)

# Template L-2; `unique` is two coordinates of 32 zero bytes.
EK_ECC_TEMPLATE = replace(
    EK_RSA_TEMPLATE,
    parameters=EccParameters(_NIST_P256, NO_SCHEME, bytes(32), bytes(32)),
)


class EkKind(StrEnum):
    """The two endorsement keys that we know how to make."""

    RSA = "rsa"
    ECC = "ecc"

    @property
    def template(self) -> TpmPublic:
        """The public template to make it from."""
        return EK_ECC_TEMPLATE if self is EkKind.ECC else EK_RSA_TEMPLATE

    @property
    def nv_certificate(self) -> int:
        """The NV index of its certificate (EK Credential Profile, section 2.2.1.4)."""
        return 0x01C0000A if self is EkKind.ECC else 0x01C00002


def ek_kind_of(certificate: x509.Certificate) -> EkKind:
    """Return which of the two endorsement keys a certificate is about.

    Raises:
        MalformedError: neither of them.
    """
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == 2048:  # noqa: PLR2004
        return EkKind.RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1
    ):
        return EkKind.ECC
    raise MalformedError(
        "EK certificate",
        got=f"a key of type {type(key).__name__}",
        expected="RSA 2048 or ECC NIST P-256",
        hint="templates L-1 and L-2 of the TCG EK Credential Profile",
    )
