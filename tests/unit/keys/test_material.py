"""What each kind generates, and what it takes when imported."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from kbs.core.encode import b64u, canonical_json
from kbs.core.errors import MalformedError
from kbs.keys.material import (
    MAX_SECRET_BYTES,
    generate_secret,
    import_secret,
    public_part,
)
from kbs.keys.model import KeyKind


@pytest.mark.parametrize("kind", list(KeyKind))
def test_what_is_generated_can_be_imported_and_differs_each_time(
    kind: KeyKind,
) -> None:
    first, second = generate_secret(kind), generate_secret(kind)
    assert first != second
    assert import_secret(kind, first.reveal()) == first


def test_a_generated_passphrase_has_160_bits_in_readable_groups() -> None:
    groups = generate_secret(KeyKind.PASSPHRASE).reveal().decode().split("-")
    assert [len(group) for group in groups] == [4] * 8
    assert set("".join(groups)) <= set("abcdefghijklmnopqrstuvwxyz234567")


def integer(value: int) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def ec_jwk() -> dict[str, Any]:
    numbers = ec.generate_private_key(ec.SECP384R1()).private_numbers()
    point = numbers.public_numbers
    parts = {"x": point.x, "y": point.y, "d": numbers.private_value}
    return {
        "kty": "EC",
        "crv": "P-384",
        "kid": "k1",
        **{name: b64u(value.to_bytes(48, "big")) for name, value in parts.items()},
    }


def okp_jwk(crv: str = "Ed25519") -> dict[str, Any]:
    private = (
        ed25519.Ed25519PrivateKey.generate()
        if crv == "Ed25519"
        else x25519.X25519PrivateKey.generate()
    )
    return {
        "kty": "OKP",
        "crv": crv,
        "d": b64u(private.private_bytes_raw()),
        "x": b64u(private.public_key().public_bytes_raw()),
    }


RSA_KEY = rsa.generate_private_key(65537, 2048).private_numbers()


def rsa_jwk() -> dict[str, Any]:
    public = RSA_KEY.public_numbers
    values = {
        "n": public.n,
        "e": public.e,
        "d": RSA_KEY.d,
        "p": RSA_KEY.p,
        "q": RSA_KEY.q,
        "dp": RSA_KEY.dmp1,
        "dq": RSA_KEY.dmq1,
        "qi": RSA_KEY.iqmp,
    }
    return {
        "kty": "RSA",
        "use": "enc",
        **{name: integer(value) for name, value in values.items()},
    }


OCT = {"kty": "oct", "k": b64u(bytes(range(32))), "alg": "A256GCM"}


@pytest.mark.parametrize(
    "jwk", [ec_jwk(), okp_jwk(), okp_jwk("X25519"), rsa_jwk(), OCT]
)
def test_a_private_jwk_is_kept_as_canonical_json(jwk: dict[str, Any]) -> None:
    spaced = json.dumps(jwk, indent=2).encode()
    assert import_secret(KeyKind.JWK, spaced).reveal() == canonical_json(jwk)


@pytest.mark.parametrize(
    "jwk",
    [
        {**ec_jwk(), "d": ec_jwk()["d"]},
        {**ec_jwk(), "crv": "P-256"},
        {**ec_jwk(), "crv": "secp256k1"},
        {**ec_jwk(), "crv": 1},
        {**ec_jwk(), "extra": "x"},
        {name: value for name, value in ec_jwk().items() if name != "d"},
        {**okp_jwk(), "x": okp_jwk()["x"]},
        {**okp_jwk(), "crv": "Ed448"},
        {**okp_jwk(), "d": 7},
        {**rsa_jwk(), "q": integer(RSA_KEY.q + 2)},
        {**rsa_jwk(), "n": integer(2**1023 + 1)},
        {**rsa_jwk(), "e": b64u(b"\x00\x01\x00\x01")},
        {**rsa_jwk(), "e": ""},
        {**OCT, "k": b64u(b"short")},
        {**OCT, "kty": "AKP"},
        {"k": OCT["k"]},
    ],
)
def test_a_jwk_whose_parts_do_not_fit_is_refused_without_showing_it(
    jwk: dict[str, Any],
) -> None:
    with pytest.raises(MalformedError) as caught:
        import_secret(KeyKind.JWK, json.dumps(jwk).encode())
    for name in ("d", "k", "p", "q"):
        if isinstance(jwk.get(name), str):
            assert jwk[name] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [b"secret-text", b"[1]", b'{"kty":"oct","kty":"oct"}'])
def test_what_is_no_jwk_is_refused_without_quoting_it(text: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        import_secret(KeyKind.JWK, text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"secret":1,"secret":2}', "jwk: got a member twice"),
        (b'{"k":NaN}', "jwk: got a number that is no integer"),
        (b'{"secret":1.5}', "jwk: got a number that is no integer"),
        (b'{"k":9007199254740993}', "jwk: got an integer beyond ±2^53"),
        (b'{"k":"secret}', "jwk line 1 column 6: got a string without an end"),
        (b"secret-text", "jwk line 1 column 1: got no value"),
        (b"\xff", "jwk: got bytes that are not UTF-8"),
        (b'["secret"]', "jwk: got a list"),
    ],
)
def test_what_is_wrong_with_the_text_of_a_jwk_is_said(text: bytes, fault: str) -> None:
    with pytest.raises(MalformedError) as caught:
        import_secret(KeyKind.JWK, text)
    assert str(caught.value) == f"{fault}, expected one JSON object"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (KeyKind.OPAQUE, b""),
        (KeyKind.OPAQUE, bytes(MAX_SECRET_BYTES + 1)),
        (KeyKind.AES256, bytes(range(31))),
        (KeyKind.AES256, bytes(range(32)).hex().encode()),
        (KeyKind.AES256, bytes(32)),
        (KeyKind.HPKE, bytes(range(33))),
        (KeyKind.HPKE, bytes(32)),
        (KeyKind.PASSPHRASE, b"fifteen letters"),
        (KeyKind.PASSPHRASE, b"correct horse battery\n"),
        (KeyKind.PASSPHRASE, b"\xff" * 20),
        (KeyKind.PASSPHRASE, b"a" * 20),
        (KeyKind.PASSPHRASE, b"ab" * 600),
    ],
)
def test_bytes_that_cannot_be_of_the_kind_are_refused(
    kind: KeyKind, data: bytes
) -> None:
    with pytest.raises(MalformedError) as caught:
        import_secret(kind, data)
    assert "correct" not in str(caught.value)


def test_only_an_hpke_key_pair_has_a_public_part() -> None:
    secret = generate_secret(KeyKind.HPKE)
    private = x25519.X25519PrivateKey.from_private_bytes(secret.reveal())
    assert public_part(KeyKind.HPKE, secret) == {
        "crv": "X25519",
        "kty": "OKP",
        "x": b64u(private.public_key().public_bytes_raw()),
    }
    assert public_part(KeyKind.AES256, generate_secret(KeyKind.AES256)) is None
