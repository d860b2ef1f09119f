"""A P-384 signature is one, or it is not; nothing is raised."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kbs.pki.ecdsa import is_p384_signature

KEY = ec.generate_private_key(ec.SECP384R1())
MESSAGE = b"signed by the firmware"
R, S = decode_dss_signature(KEY.sign(MESSAGE, ec.ECDSA(hashes.SHA384())))
# SEC 2, section 2.5.1: the order of the curve.
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf"
    "581a0db248b0a77aecec196accc52973",
    16,
)


def test_a_good_signature_holds_for_its_message_and_key_only() -> None:
    assert is_p384_signature(KEY.public_key(), R, S, MESSAGE)
    assert not is_p384_signature(KEY.public_key(), R, S, MESSAGE + b".")
    other = ec.generate_private_key(ec.SECP384R1())
    assert not is_p384_signature(other.public_key(), R, S, MESSAGE)


def test_numbers_out_of_range_are_no_signature() -> None:
    for r, s in [(0, 0), (0, S), (R, 0), (S, R), (R + ORDER, S), (R, S + ORDER)]:
        assert not is_p384_signature(KEY.public_key(), r, s, MESSAGE)


def test_keys_of_another_kind_sign_nothing() -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    r, s = decode_dss_signature(p256.sign(MESSAGE, ec.ECDSA(hashes.SHA384())))
    assert not is_p384_signature(p256.public_key(), r, s, MESSAGE)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert not is_p384_signature(other.public_key(), R, S, MESSAGE)
