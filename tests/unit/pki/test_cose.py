"""COSE_Sign1: shape, algorithms, and signatures under a given key."""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kbs.core.cbor import write_cbor
from kbs.core.errors import MalformedError
from kbs.pki.cose import CoseAlgorithm, is_sign1_signed, parse_sign1

LIMIT = 4096
PAYLOAD = b"what is signed"
ES = {
    CoseAlgorithm.ES256: (ec.SECP256R1(), hashes.SHA256()),
    CoseAlgorithm.ES384: (ec.SECP384R1(), hashes.SHA384()),
    CoseAlgorithm.ES512: (ec.SECP521R1(), hashes.SHA512()),
}
PS = {
    CoseAlgorithm.PS256: hashes.SHA256(),
    CoseAlgorithm.PS384: hashes.SHA384(),
    CoseAlgorithm.PS512: hashes.SHA512(),
}
RSA_KEY = rsa.generate_private_key(65537, 2048)


def structure(protected: bytes, payload: bytes = PAYLOAD) -> bytes:
    """Return the Sig_structure, written here a second time."""
    return cbor2.dumps(["Signature1", protected, b"", payload])


def sign(algorithm: CoseAlgorithm, key: ec.EllipticCurvePrivateKey) -> bytes:
    protected = cbor2.dumps({1: int(algorithm)})
    der = key.sign(structure(protected), ec.ECDSA(ES[algorithm][1]))
    size = (key.curve.key_size + 7) // 8
    raw = b"".join(one.to_bytes(size, "big") for one in decode_dss_signature(der))
    return cbor2.dumps([protected, {}, PAYLOAD, raw])


@pytest.mark.parametrize("algorithm", ES)
def test_an_ecdsa_signature_is_its_keys(algorithm: CoseAlgorithm) -> None:
    key = ec.generate_private_key(ES[algorithm][0])
    message = parse_sign1(sign(algorithm, key), "message", limit=LIMIT)
    assert message.algorithm is algorithm
    assert message.payload == PAYLOAD
    assert is_sign1_signed(message, key.public_key())
    other = ec.generate_private_key(ES[algorithm][0])
    assert not is_sign1_signed(message, other.public_key())
    assert not is_sign1_signed(message, RSA_KEY.public_key())


def test_a_curve_that_is_not_the_algorithms_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    protected = cbor2.dumps({1: int(CoseAlgorithm.ES384)})
    der = key.sign(structure(protected), ec.ECDSA(hashes.SHA384()))
    raw = b"".join(one.to_bytes(32, "big") for one in decode_dss_signature(der))
    data = cbor2.dumps([protected, {}, PAYLOAD, raw])
    message = parse_sign1(data, "message", limit=LIMIT)
    assert not is_sign1_signed(message, key.public_key())


@pytest.mark.parametrize("algorithm", PS)
def test_an_rsa_pss_signature_is_its_keys(algorithm: CoseAlgorithm) -> None:
    protected = cbor2.dumps({1: int(algorithm)})
    scheme = padding.PSS(padding.MGF1(PS[algorithm]), padding.PSS.DIGEST_LENGTH)
    raw = RSA_KEY.sign(structure(protected), scheme, PS[algorithm])
    data = cbor2.dumps(cbor2.CBORTag(18, [protected, {}, PAYLOAD, raw]))
    message = parse_sign1(data, "message", limit=LIMIT)
    assert is_sign1_signed(message, RSA_KEY.public_key())
    flipped = raw[:-1] + bytes([raw[-1] ^ 1])
    bad = parse_sign1(
        cbor2.dumps([protected, {}, PAYLOAD, flipped]), "message", limit=LIMIT
    )
    assert not is_sign1_signed(bad, RSA_KEY.public_key())
    ecdsa_key = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert not is_sign1_signed(message, ecdsa_key)


def test_small_rsa_keys_and_other_kinds_made_nothing() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - refused below
    protected = cbor2.dumps({1: int(CoseAlgorithm.PS256)})
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    raw = small.sign(structure(protected), scheme, hashes.SHA256())
    data = cbor2.dumps([protected, {}, PAYLOAD, raw])
    message = parse_sign1(data, "message", limit=LIMIT)
    assert not is_sign1_signed(message, small.public_key())
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    assert not is_sign1_signed(message, edwards)


@pytest.mark.parametrize("size", [0, 95, 97, 104])
def test_a_signature_of_another_length_is_refused(size: int) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    parts = cbor2.loads(sign(CoseAlgorithm.ES384, key))
    data = cbor2.dumps([*parts[:3], parts[3].ljust(size, b"\0")[:size]])
    message = parse_sign1(data, "message", limit=LIMIT)
    assert not is_sign1_signed(message, key.public_key())


def test_an_absent_unprotected_header_is_an_empty_one() -> None:
    protected = cbor2.dumps({1: -35})
    message = parse_sign1(
        cbor2.dumps([protected, None, PAYLOAD, b""]), "message", limit=LIMIT
    )
    assert message.unprotected == {}


HEADER = write_cbor({1: -35})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "a COSE_Sign1 array of 4"),
        ([HEADER, {}, PAYLOAD], "a COSE_Sign1 array of 4"),
        ([HEADER, {}, PAYLOAD, b"", b""], "a COSE_Sign1 array of 4"),
        ([{1: -35}, {}, PAYLOAD, b""], "protected header: got dict"),
        ([HEADER, [], PAYLOAD, b""], "header: got list"),
        ([HEADER, {}, None, b""], "payload: got NoneType"),
        ([HEADER, {}, PAYLOAD, "text"], "signature: got str"),
        ([b"", {}, PAYLOAD, b""], "algorithm: got None"),
        ([b"", {1: -35}, PAYLOAD, b""], "algorithm: got None"),
        ([write_cbor({1: -8}), {}, PAYLOAD, b""], "algorithm: got -8"),
        ([write_cbor({1: "ES384"}), {}, PAYLOAD, b""], "algorithm: got 'ES384'"),
        ([write_cbor([1, -35]), {}, PAYLOAD, b""], "header: got list"),
        ([HEADER + b"\0", {}, PAYLOAD, b""], "after its end"),
        ([write_cbor({1: -35, 2: [1]}), {}, PAYLOAD, b""], "no critical parameters"),
        ([HEADER, {1: -7}, PAYLOAD, b""], "twice"),
    ],
)
def test_another_shape_is_malformed(value: object, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_sign1(cbor2.dumps(value), "message", limit=LIMIT)


def test_another_tag_is_malformed() -> None:
    data = cbor2.dumps(cbor2.CBORTag(98, [HEADER, {}, PAYLOAD, b""]))
    with pytest.raises(MalformedError, match="tag 98"):
        parse_sign1(data, "message", limit=LIMIT)
