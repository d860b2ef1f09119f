"""A P-384 signature is one, or it is not; nothing is raised, whoever verifies."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.pki import ecdsa
from kbs.pki.ecdsa import is_p384_signature, verify_by_aws_lc, verify_by_openssl

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


SIGNATURE = encode_dss_signature(R, S)
Verify = Callable[[ec.EllipticCurvePublicKey, bytes, bytes], bool | None]


@pytest.mark.parametrize("verify", [verify_by_openssl, verify_by_aws_lc])
def test_each_library_tells_good_from_bad(verify: Verify) -> None:
    public = KEY.public_key()
    assert verify(public, SIGNATURE, MESSAGE) is True
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert verify(other, SIGNATURE, MESSAGE) is False
    assert verify(public, SIGNATURE, MESSAGE + b".") is False
    for bad in (b"", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(len(SIGNATURE))):
        assert verify(public, bad, MESSAGE) is False


@settings(deadline=None)
@given(st.integers(0, len(SIGNATURE) * 8 - 1), st.binary(max_size=3))
def test_both_libraries_agree_about_damaged_signatures(bit: int, tail: bytes) -> None:
    damaged = bytearray(SIGNATURE)
    damaged[bit // 8] ^= 1 << bit % 8
    signature = bytes(damaged) + tail
    public = KEY.public_key()
    by_openssl = verify_by_openssl(public, signature, MESSAGE)
    assert verify_by_aws_lc(public, signature, MESSAGE) == by_openssl


@settings(deadline=None)
@given(
    st.sampled_from([0, 1, R, ORDER - R, ORDER, R + ORDER, ORDER + 1]),
    st.sampled_from([0, 1, S, ORDER - S, ORDER, S + ORDER, ORDER + 1]),
)
def test_both_libraries_agree_about_numbers_at_the_edge(r: int, s: int) -> None:
    signature = encode_dss_signature(r, s)
    public = KEY.public_key()
    by_openssl = verify_by_openssl(public, signature, MESSAGE)
    assert verify_by_aws_lc(public, signature, MESSAGE) == by_openssl


def test_without_aws_lc_openssl_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "awscrt.crypto", None)
    ecdsa._aws_lc.cache_clear()
    try:
        assert verify_by_aws_lc(KEY.public_key(), SIGNATURE, MESSAGE) is None
        assert is_p384_signature(KEY.public_key(), R, S, MESSAGE)
        assert not is_p384_signature(KEY.public_key(), R, S, MESSAGE + b".")
    finally:
        ecdsa._aws_lc.cache_clear()
