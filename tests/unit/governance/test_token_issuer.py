"""Token issuers: one canonical content each, and keys that leave no doubt."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.core.encode import b64u, canonical_json
from kbs.core.errors import MalformedError
from kbs.governance.contents import read_token_issuer
from kbs.governance.token_issuer import parse_token_issuer
from kbs.pki.issuers import Profile
from tests.fakes.cca import INSTANCE, FakeCca
from tests.fakes.tokens import EAR, GCS, ITA, MAA, NRAS, FakeIssuer, private_key

FAKES = (MAA, ITA, NRAS, GCS, EAR)


def document(fake: FakeIssuer = MAA, **changes: object) -> dict[str, Any]:
    members = {
        "profile": fake.profile.value,
        "issuer": fake.iss,
        "keys": [fake.jwk()],
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


@pytest.mark.parametrize(
    "given",
    [
        *(document(fake) for fake in FAKES),
        document(GCS, audience="kbs"),
        document(GCS, roots=["ab" * 32]),
        document(GCS, keys=None, roots=["ab" * 32]),
        FakeCca().document(),
    ],
)
def test_an_issuer_is_written_back_as_it_was_read(given: dict[str, Any]) -> None:
    issuer = parse_token_issuer(given)
    content = issuer.canonical()
    assert content == canonical_json(given)
    assert read_token_issuer(content) == issuer
    with pytest.raises(MalformedError):
        read_token_issuer(content + b"\n")


def test_only_what_matters_of_a_key_is_kept() -> None:
    """Services publish certificates and thumbprints beside their keys."""
    noisy = {**MAA.jwk(), "use": "sig", "x5t": "abc", "key_ops": ["verify"]}
    issuer = parse_token_issuer(document(keys=[noisy]))
    assert issuer.to_json()["keys"] == [MAA.jwk()]


@pytest.mark.parametrize("fake", [MAA, NRAS, GCS])
def test_a_profile_with_one_algorithm_needs_none_in_the_key(fake: FakeIssuer) -> None:
    bare = {name: value for name, value in fake.jwk().items() if name != "alg"}
    (key,) = parse_token_issuer(document(fake, keys=[bare])).keys
    assert key.algorithm == fake.alg


@pytest.mark.parametrize(
    "given",
    [
        [],
        document(profile="x"),
        document(profile=None),
        document(issuer=None),
        document(issuer=""),
        document(issuer="a\nb"),
        document(issuer=7),
        document(audience=""),
        document(keys=None),
        document(keys=[]),
        document(keys=[{}]),
        document(keys=[MAA.jwk(), {**MAA.jwk(), "kid": "other"}]),
        document(roots=["ab" * 32]),
        document(GCS, roots=["ab" * 31]),
        document(GCS, roots=["ab" * 32] * 2),
        document(more=1),
        # The profile signs with other keys, or the key does not say with which.
        document(keys=[NRAS.jwk()]),
        document(keys=[{**MAA.jwk(), "alg": "PS256"}]),
        document(keys=[{**MAA.jwk(), "alg": "HS256"}]),
        document(keys=[{**MAA.jwk(), "alg": "none"}]),
        document(ITA, keys=[{k: v for k, v in ITA.jwk().items() if k != "alg"}]),
        document(keys=[{"kty": "oct", "k": "AAAA", "alg": "HS256"}]),
        document(keys=[{**MAA.jwk(), "d": "AAAA"}]),
        {"profile": "cca"},
        {"profile": "cca", "platforms": []},
        {"profile": "cca", "platforms": [{}], "keys": []},
        {**FakeCca().document(), "issuer": "x"},
    ],
)
def test_other_documents_are_no_issuer(given: object) -> None:
    with pytest.raises(MalformedError):
        parse_token_issuer(given)


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_id": INSTANCE[:32].hex()},
        {"instance_id": ("02" + INSTANCE.hex()[2:])},
        {"instance_id": INSTANCE.hex().upper()},
        {"implementation_id": "ab"},
        {"key": MAA.jwk()},
        {"more": 1},
    ],
)
def test_other_platforms_are_refused(changes: dict[str, object]) -> None:
    given: Any = FakeCca().document()
    platform = {**given["platforms"][0], **changes}
    with pytest.raises(MalformedError):
        parse_token_issuer({**given, "platforms": [platform]})


def test_a_platform_may_be_of_any_implementation() -> None:
    given: Any = FakeCca().document()
    (platform,) = given["platforms"]
    del platform["implementation_id"]
    issuer = parse_token_issuer(given)
    assert issuer.keys[0].implementation_id is None
    assert issuer.to_json() == given


def test_one_key_may_be_of_two_instances() -> None:
    given: Any = FakeCca().document()
    (first,) = given["platforms"]
    second = {**first, "instance_id": "01" + "ff" * 32}
    issuer = parse_token_issuer({**given, "platforms": [first, second]})
    assert (issuer.profile, len(issuer.keys)) == (Profile.CCA, 2)


def test_weak_keys_are_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - on purpose
    weak = small.public_key().public_numbers()
    strong = private_key("RS256").public_key().public_numbers()
    for n, e in ((weak.n, 65537), (strong.n, 3)):
        jwk = {
            **MAA.jwk(),
            "n": b64u(n.to_bytes((n.bit_length() + 7) // 8, "big")),
            "e": b64u(e.to_bytes(3, "big")),
        }
        with pytest.raises(MalformedError):
            parse_token_issuer(document(keys=[jwk]))
