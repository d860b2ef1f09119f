"""Public JWKs: what services publish is read; what is secret, weak or odd is not."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from kbs.core.errors import MalformedError
from kbs.pki.issuers import ALGORITHMS, Profile, issuer_key
from kbs.pki.jwk import PublicJwk, check_public_key, parse_jwk, parse_jwk_set
from tests.fakes.tokens import FakeGooglePKI, private_key

KINDS = ["RS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"]


def jwk(of: str, **changes: object) -> dict[str, Any]:
    key = PublicJwk(key=private_key(of).public_key(), kid="k", alg=of)
    return {**key.to_json(), **changes}


@pytest.mark.parametrize("alg", KINDS)
def test_a_key_is_written_back_as_it_was_read(alg: str) -> None:
    found = parse_jwk(jwk(alg), "key")
    assert found.to_json() == jwk(alg)
    assert (found.kid, found.alg) == ("k", alg)
    assert alg in found.algorithms


def test_a_set_is_read_without_keys_for_encryption() -> None:
    keys = {"keys": [jwk("RS256"), jwk("ES256", use="enc"), jwk("ES384", use="sig")]}
    assert [one.alg for one in parse_jwk_set(keys, "set")] == ["RS256", "ES384"]
    assert len(parse_jwk_set(jwk("RS256"), "key")) == 1


def test_a_key_may_stand_in_a_certificate_alone() -> None:
    """Azure Attestation publishes some keys as `x5c` without their numbers."""
    pki = FakeGooglePKI()
    found = parse_jwk({"kty": "RSA", "kid": "k", "x5c": pki.x5c()}, "key")
    leaf = pki.leaf.public_key()
    assert found.key == leaf


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"keys": []},
        {"keys": [jwk("ES256", use="enc")]},
        {"keys": [7]},
        {"keys": [jwk("RS256")] * 65},
        jwk("RS256", d="AAAA"),
        jwk("RS256", p="AAAA"),
        {"kty": "oct", "k": "AAAA"},
        {"kty": "oct"},
        {"kty": "RSA"},
        {"kty": "RSA", "x5c": []},
        {"kty": "RSA", "x5c": ["AAAA"]},
        jwk("RS256", n=""),
        jwk("RS256", n="AA"),
        jwk("RS256", e="Aw"),
        jwk("RS256", n="AQAB"),
        jwk("RS256", kid=7),
        jwk("RS256", alg="ES256"),
        jwk("RS256", alg="HS256"),
        jwk("RS256", alg="none"),
        jwk("ES256", crv="P-384"),
        jwk("ES256", crv="secp256k1"),
        jwk("ES256", crv=7),
        jwk("ES256", x=jwk("ES256")["y"]),
        jwk("ES256", x=jwk("ES256")["x"][:-2]),
        jwk("EdDSA", crv="X25519"),
        jwk("EdDSA", x="AAAA"),
        [],
        "text",
    ],
)
def test_others_are_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_jwk_set(value, "set")


def test_keys_of_other_kinds_are_refused() -> None:
    given = private_key("EdDSA").public_key()
    assert check_public_key(given, "key") == given
    for key in (
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
    ):
        with pytest.raises(MalformedError):
            check_public_key(key, "key")


def test_no_profile_signs_with_a_shared_secret() -> None:
    for names in ALGORITHMS.values():
        assert not any(name.startswith("HS") or name == "none" for name in names)


@pytest.mark.parametrize("profile", Profile)
def test_a_key_has_exactly_one_algorithm_or_is_refused(profile: Profile) -> None:
    for alg in KINDS:
        bare = PublicJwk(key=private_key(alg).public_key())
        usable = set(bare.algorithms) & set(ALGORITHMS[profile])
        if len(usable) == 1:
            assert issuer_key(bare, profile, "key").algorithm in usable
        else:
            with pytest.raises(MalformedError):
                issuer_key(bare, profile, "key")
