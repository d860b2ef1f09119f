"""Recipient keys: one spelling, on the curve, of full order, with the fitting suite."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from kbs.channel.recipient import (
    Suite,
    generate_recipient_key,
    parse_recipient,
    parse_suite,
    recipient_of,
)
from kbs.core.encode import b64u
from kbs.core.errors import MalformedError


def jwk(suite: Suite) -> dict[str, Any]:
    return {**recipient_of(generate_recipient_key(suite)).to_json()}


OKP, P256, P384 = jwk(Suite.X25519), jwk(Suite.P256), jwk(Suite.P384)
# RFC 7748, section 6.1, and the usual list: the points of order 1, 2, 4 and 8.
P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


@pytest.mark.parametrize("suite", list(Suite))
def test_a_fresh_key_of_each_suite_is_accepted_and_written_back(suite: Suite) -> None:
    private = generate_recipient_key(suite)
    recipient = recipient_of(private)
    assert recipient.suite is suite
    assert parse_recipient(recipient.to_json()) == recipient
    assert recipient.key == private.public_key()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "OKP",
        {},
        {**OKP, "kty": "RSA"},
        {**OKP, "kty": 1},
        {**OKP, "kty": "EC"},
        {**OKP, "crv": "Ed25519"},
        {**OKP, "crv": "X448"},
        {**OKP, "kid": "1"},
        {**OKP, "d": OKP["x"]},
        {**OKP, "x": OKP["x"] + "="},
        {**OKP, "x": b64u(bytes(range(31)))},
        {**OKP, "x": b64u(bytes(range(33)))},
        {**OKP, "x": ""},
        {**OKP, "x": 5},
        {**OKP, "x": "é" * 43},
        {**P256, "crv": "P-384"},
        {**P256, "crv": "P-521"},
        {**P256, "y": P256["x"]},
        {**P256, "x": b64u(bytes(32)), "y": b64u(bytes(32))},
        {**P256, "x": b64u(b"\x00" + bytes(range(32)))},
        {**P384, "crv": "P-256"},
        {**P384, "x": P256["x"]},
        {"kty": "EC", "crv": "P-256", "x": P256["x"]},
    ],
)
def test_any_other_jwk_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_recipient(value)


@pytest.mark.parametrize("u", LOW_ORDER)
def test_a_point_of_low_order_is_refused(u: int) -> None:
    x = b64u(u.to_bytes(32, "little"))
    with pytest.raises(MalformedError) as caught:
        parse_recipient({"kty": "OKP", "crv": "X25519", "x": x})
    assert caught.value.got == "a point of low order"


def test_a_stray_bit_in_the_last_character_is_refused() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters[letters.index(OKP["x"][-1]) + 1]
    with pytest.raises(MalformedError):
        parse_recipient({**OKP, "x": OKP["x"][:-1] + last})


def test_akp_keys_are_known_and_come_later() -> None:
    akp = {"kty": "AKP", "alg": "ML-KEM-768", "pub": b64u(bytes(1184))}
    with pytest.raises(MalformedError) as caught:
        parse_recipient(akp)
    assert caught.value.hint is not None
    for wrong in ({**akp, "pub": "!"}, {**akp, "x": "AA"}, {**akp, "alg": 1}):
        with pytest.raises(MalformedError) as caught:
            parse_recipient(wrong)
        assert caught.value.hint is None


def test_recipient_of_knows_the_curves() -> None:
    assert recipient_of(ec.generate_private_key(ec.SECP384R1())).suite is Suite.P384
    assert recipient_of(x25519.X25519PrivateKey.generate()).suite is Suite.X25519


def test_suites_are_named_exactly() -> None:
    assert [parse_suite(suite.value) for suite in Suite] == list(Suite)
    for wrong in ("0020-0001-0001", "20-1-2", "", None, 32, "0020-0001-0002 "):
        with pytest.raises(MalformedError):
            parse_suite(wrong)
