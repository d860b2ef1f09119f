"""Attestation results: what a JOSE library makes of them, and what guests look for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.channel.ear import MAX_TOKEN_CHARACTERS, EarSigner, Submodule, verify_ear
from kbs.core.errors import AuthenticationError

NOW = datetime(2026, 11, 22, 8, 0, 0, 500, UTC)
EXPIRES = NOW + timedelta(seconds=300)
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = "kbs.local/00112233445566778899aabbccddeeff"
DECISION = "0123456789abcdef0123456789abcdef"
SUBMODULE = Submodule(name="cpu0", genuine=True, annotated={"snp": {"text": "ü"}})


def token() -> str:
    return EarSigner(KEY, ISSUER).token(
        [SUBMODULE],
        decision=DECISION,
        policy="governance-4",
        now=NOW,
        expires=EXPIRES,
    )


def test_a_library_reads_the_claims_and_the_broker_its_own_token() -> None:
    claims = jwt.decode(
        token(),
        KEY.public_key(),
        algorithms=["ES256"],
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["jti"] == DECISION
    assert claims["exp"] - claims["iat"] == 300
    assert claims["submods"]["cpu0"] == SUBMODULE.to_json("governance-4")
    found = verify_ear(token(), KEY.public_key(), issuer=ISSUER, now=NOW)
    assert found == DECISION


def test_the_header_holds_the_key_with_its_algorithm() -> None:
    header = jwt.get_unverified_header(token())
    assert header["jwk"]["alg"] == header["alg"] == "ES256"
    key = jwt.PyJWK(header["jwk"]).key
    assert key.public_numbers() == KEY.public_key().public_numbers()


def test_a_device_that_no_hardware_vouches_for_is_not_affirmed() -> None:
    found = Submodule(name="cpu0", genuine=False, annotated={}).to_json("p")
    assert found["ear.status"] == "contraindicated"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "Not enough segments"),
        ("a.b", "Not enough segments"),
        ("a.b.c", "Invalid header padding"),
        (token().rpartition(".")[0], "Not enough segments"),
        ("x" * (MAX_TOKEN_CHARACTERS + 1), "another text"),
        ("ä.b.c", "another text"),
    ],
    ids=["nothing", "two", "letters", "unsigned", "long", "umlaut"],
)
def test_what_is_no_token_is_told_in_words(text: str, got: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        verify_ear(text, KEY.public_key(), issuer=ISSUER, now=NOW)
    assert (caught.value.code, caught.value.got) == ("ear.malformed", got)
