"""A P-256 signature is one, or it is not; nothing is raised."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kbs.pki.p256 import is_p256_signature, p256_key

KEY = ec.generate_private_key(ec.SECP256R1())
MESSAGE = b"signed by the enclave"


def raw_signature(message: bytes) -> bytes:
    r, s = decode_dss_signature(KEY.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_good_signature_holds_for_its_message_and_key_only() -> None:
    raw = raw_signature(MESSAGE)
    assert is_p256_signature(KEY.public_key(), raw, MESSAGE)
    assert not is_p256_signature(KEY.public_key(), raw, MESSAGE + b".")
    assert not is_p256_signature(KEY.public_key(), raw[32:] + raw[:32], MESSAGE)
    assert not is_p256_signature(KEY.public_key(), bytes(64), MESSAGE)
    assert not is_p256_signature(KEY.public_key(), b"\xff" * 64, MESSAGE)


def test_keys_of_another_kind_sign_nothing() -> None:
    raw = raw_signature(MESSAGE)
    p384 = ec.generate_private_key(ec.SECP384R1())
    assert not is_p256_signature(p384.public_key(), raw, MESSAGE)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert not is_p256_signature(other.public_key(), raw, MESSAGE)


def test_a_point_is_a_key_if_it_lies_on_the_curve() -> None:
    numbers = KEY.public_key().public_numbers()
    point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    assert p256_key(point) == KEY.public_key()
    for wrong in (bytes(64), b"\xff" * 64, point[32:] + point[:32]):
        assert p256_key(wrong) is None
