"""Arm CCA tokens: good cases, and a table of single changes with their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from kbs.core.cbor import write_cbor
from kbs.core.checks import Status
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.cca.abi import is_cca_token, parse_token
from kbs.evidence.cca.claims import lifecycle_of
from kbs.evidence.cca.verify import CcaVerifier
from kbs.evidence.model import ItemResult, ParsedItem, Trust, TrustedIssuer
from kbs.pki.issuers import Profile
from tests.fakes.amd import NOW
from tests.fakes.cca import (
    DRAFT_REALM,
    IMPLEMENTATION,
    INSTANCE,
    FakeCca,
    cca_key,
    cose_key,
    point,
    sign1,
)

VERIFIER = CcaVerifier()
CHALLENGE = bytes(range(64))
GOOD = FakeCca()


def verify(token: bytes, *issuers: TrustedIssuer) -> ItemResult:
    trust = Trust(now=NOW, issuers=issuers or (GOOD.trusted(),))
    item = {"kind": "cca", "token": b64(token)}
    return VERIFIER.verify(VERIFIER.parse(item, 1), trust)


def stopping(result: ItemResult) -> dict[str, str]:
    ended = {Status.FAIL, Status.UNCHECKED}
    return {one.id: one.status.value for one in result.checks if one.status in ended}


@pytest.mark.parametrize(
    "fake",
    [
        GOOD,
        FakeCca(draft=False),
        FakeCca(wrapped=True),
        FakeCca(realm={265: None}, platform={2400: "https://verifier.example.org"}),
        FakeCca(
            realm={265: "tag:arm.com,2024:realm#2.0.0"},
            platform={265: "tag:arm.com,2024:cca_platform#2.0.0", 2394: 1},
        ),
    ],
)
def test_tokens_of_every_profile_are_verified(fake: FakeCca) -> None:
    result = verify(fake.token(CHALLENGE))
    assert stopping(result) == {}
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.trusted_in == frozenset({"acme"})
    assert result.claims.values["cca.realm.challenge"] == CHALLENGE.hex()
    assert result.claims.values["cca.platform.lifecycle"] == "secured"
    assert f"instance:{INSTANCE.hex()}" in result.identities


STRANGER = FakeCca(cpak=9).trusted()


@pytest.mark.parametrize(
    ("fake", "issuer", "found"),
    [
        (
            GOOD,
            GOOD.trusted(profile=Profile.EAR),
            {"cca.trust": "unchecked", "cca.platform.signature": "unchecked"},
        ),
        (GOOD, STRANGER, {"cca.platform.signature": "fail"}),
        (
            FakeCca(platform={256: b"\x01" + bytes(32)}),
            GOOD.trusted(),
            {"cca.trust": "unchecked", "cca.platform.signature": "unchecked"},
        ),
        (
            FakeCca(platform={2396: bytes(32)}),
            GOOD.trusted(),
            {"cca.trust": "fail", "cca.platform.signature": "unchecked"},
        ),
        (FakeCca(realm_signer=5), GOOD.trusted(), {"cca.realm.signature": "fail"}),
        (
            FakeCca(realm={44237: cose_key(cca_key(5))}),
            GOOD.trusted(),
            {"cca.realm.key": "fail", "cca.realm.signature": "fail"},
        ),
        (
            FakeCca(platform={10: bytes(32)}),
            GOOD.trusted(),
            {"cca.realm.key": "fail"},
        ),
        (FakeCca(realm={44240: "sha-512"}), GOOD.trusted(), {"cca.realm.key": "fail"}),
        (FakeCca(realm={44240: "md5"}), GOOD.trusted(), {"cca.realm.key": "fail"}),
        (FakeCca(realm={265: "x"}), GOOD.trusted(), {"cca.profile": "fail"}),
        (
            FakeCca(draft=False, realm={265: DRAFT_REALM}),
            GOOD.trusted(),
            {"cca.profile": "fail"},
        ),
        (
            FakeCca(platform={265: "tag:arm.com,2026:cca_platform#2.0.0"}),
            GOOD.trusted(),
            {"cca.profile": "unchecked"},
        ),
    ],
)
def test_each_change_is_found_by_its_check(
    fake: FakeCca, issuer: TrustedIssuer, found: dict[str, str]
) -> None:
    result = verify(fake.token(CHALLENGE), issuer)
    assert stopping(result) == found
    assert result.claims is None
    signatures = {"cca.platform.signature", "cca.realm.key", "cca.realm.signature"}
    assert result.authenticated is signatures.isdisjoint(found)


def test_a_realm_of_one_platform_does_not_pass_below_another_one() -> None:
    """Realm token of one, platform token of the other, both genuine."""
    first = parse_token(FakeCca(rak=2).token(CHALLENGE))
    other = parse_token(FakeCca(rak=3).token(CHALLENGE))

    def encoded(message: Any) -> bytes:
        parts = [message.protected, {}, message.payload, message.signature]
        return write_cbor(cbor2.CBORTag(18, parts))

    mixed = GOOD.collection(
        encoded(first.platform.message), encoded(other.realm.message)
    )
    assert stopping(verify(mixed)) == {"cca.realm.key": "fail"}


def test_the_tenants_are_those_who_registered_the_key() -> None:
    issuers = (GOOD.trusted(), GOOD.trusted(tenant="rival"), STRANGER)
    result = verify(GOOD.token(CHALLENGE), *issuers)
    assert result.claims is not None
    assert result.claims.trusted_in == frozenset({"acme", "rival"})


def test_a_key_of_the_command_line_fits_any_platform() -> None:
    (key,) = GOOD.trusted().keys
    anyone = replace(key, instance_id=None, implementation_id=None)
    result = verify(GOOD.token(CHALLENGE), GOOD.trusted(tenant=None, keys=(anyone,)))
    assert result.claims is not None
    assert result.claims.trusted_in is None
    (told,) = (one for one in result.checks if one.id == "cca.trust")
    assert told.status is Status.SKIPPED


def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    (key,) = GOOD.trusted().keys
    other = replace(key, algorithm="ES256")
    found = stopping(verify(GOOD.token(CHALLENGE), GOOD.trusted(keys=(other,))))
    assert found == {"cca.platform.signature": "fail"}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0x0001, "unknown"),
        (0x10FF, "assembly_and_test"),
        (0x2000, "cca_platform_rot_provisioning"),
        (0x3000, "secured"),
        (0x30FF, "secured"),
        (0x3100, "reserved"),
        (0x2FFF, "reserved"),
        (0x4000, "non_cca_platform_rot_debug"),
        (0x5001, "recoverable_cca_platform_rot_debug"),
        (0x6000, "decommissioned"),
        (0xFFFF, "reserved"),
        (-1, "reserved"),
    ],
)
def test_life_cycles_in_words(value: int, word: str) -> None:
    assert lifecycle_of(value) == word


def test_debug_states_are_claims_for_policy() -> None:
    result = verify(FakeCca(platform={2395: 0x4001}).token(CHALLENGE))
    assert result.claims is not None
    found = result.claims.values["cca.platform.lifecycle"]
    assert found == "non_cca_platform_rot_debug"


def test_a_component_cannot_pretend_to_be_two_fields() -> None:
    odd = {1: "a;version=9%3b", 2: b"\x01" * 32, 5: b"\x02" * 32}
    result = verify(FakeCca(platform={2399: [odd]}).token(CHALLENGE))
    assert result.claims is not None
    listed = result.claims.values["cca.platform.sw_components"]
    assert isinstance(listed, tuple)
    assert listed[0].startswith("type=a%3bversion=9%253b;measurement=0101")


@pytest.mark.parametrize(
    ("challenge", "matches"),
    [
        (bytes(range(48)) + bytes(16), True),
        (bytes(range(48)) + bytes(15) + b"\x01", False),
        (bytes(16) + bytes(range(48)), False),
        (bytes(64), False),
    ],
)
def test_the_challenge_is_the_binding_and_zeros(
    challenge: bytes, *, matches: bool
) -> None:
    parsed = VERIFIER.parse(GOOD.item(challenge), 0)
    assert VERIFIER.bound_matches(parsed, bytes(range(48))) is matches
    assert not VERIFIER.bound_matches(parsed, bytes(range(47)))
    assert not VERIFIER.bound_matches(parsed, challenge)


# --- parsing --------------------------------------------------------------------------

REALM_CHANGES: list[dict[int, Any]] = [
    {10: None},
    {10: bytes(63)},
    {10: "text"},
    {44235: bytes(32)},
    {44236: 7},
    {44236: "x" * 257},
    {44237: None},
    {44237: b"\x04" + bytes(96)},
    {44237: b"\x04" + bytes(95)},
    {44237: write_cbor({1: 1, -1: 2})},
    {44237: write_cbor({1: 2, -1: 9})},
    {44237: write_cbor({1: 2, -1: 2, -2: bytes(47), -3: bytes(48)})},
    {44237: write_cbor({1: 2, -1: 2, -2: bytes(48), -3: bytes(48)})},
    {44238: bytes(31)},
    {44239: [bytes(32)] * 3},
    {44239: [bytes(32)] * 5},
    {44239: [bytes(48)] * 4},
    {44239: [bytes(32), bytes(32), bytes(32), "x"]},
    {44239: b""},
    {265: 7},
]
PLATFORM_CHANGES: list[dict[int, Any]] = [
    {265: None},
    {10: bytes(20)},
    {2396: bytes(31)},
    {256: bytes(32)},
    {2401: None},
    {2395: True},
    {2395: 0x10000},
    {2395: "secured"},
    {2399: []},
    {2399: [{}]},
    {2399: [7]},
    {2399: [{2: bytes(32), 5: bytes(32)}] * 65},
    {2399: [{2: bytes(31), 5: bytes(32)}]},
    {2399: [{2: bytes(32), 5: bytes(32), 1: 7}]},
    {2400: 7},
    {2402: None},
]


@pytest.mark.parametrize(
    "fake",
    [
        *(FakeCca(realm=one) for one in REALM_CHANGES),
        *(FakeCca(platform=one) for one in PLATFORM_CHANGES),
    ],
)
def test_claims_of_another_form_are_malformed(fake: FakeCca) -> None:
    token = fake.token(CHALLENGE)
    with pytest.raises(MalformedError):
        parse_token(token)


TOKEN = sign1(b"", cca_key(1))


@pytest.mark.parametrize(
    "value",
    [
        {44234: TOKEN, 44241: TOKEN},
        cbor2.CBORTag(399, [TOKEN, TOKEN]),
        cbor2.CBORTag(399, {44234: TOKEN}),
        cbor2.CBORTag(399, {44234: TOKEN, 44241: TOKEN, 1: b""}),
        cbor2.CBORTag(399, {44234: TOKEN, 44241: TOKEN, "__cmwc_t": "x"}),
        cbor2.CBORTag(399, {44234: TOKEN, 44241: "x"}),
        cbor2.CBORTag(399, {44234: [263, TOKEN], 44241: [263, TOKEN]}),
        cbor2.CBORTag(907, {44234: TOKEN, 44241: TOKEN}),
        cbor2.CBORTag(907, {44234: [262, TOKEN], 44241: [263, TOKEN]}),
        cbor2.CBORTag(907, {44234: [263, TOKEN, 1], 44241: [263, TOKEN]}),
        cbor2.CBORTag(399, {44234: TOKEN, 44241: TOKEN}),
    ],
)
def test_other_collections_are_malformed(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_token(write_cbor(value))


def test_bytes_after_the_end_are_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_token(GOOD.token(CHALLENGE) + b"\x00")


@pytest.mark.parametrize("changes", [{"kind": "snp"}, {"token": 7}, {"more": 1}])
def test_other_items_are_malformed(changes: Mapping[str, object]) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse({**GOOD.item(CHALLENGE), **changes}, 0)


def test_inspect_shows_what_is_no_claim_too() -> None:
    shown = VERIFIER.inspect(VERIFIER.parse(GOOD.item(CHALLENGE), 0))
    assert shown["lifecycle"] == "3003"
    assert shown["realm_public_key"] == cose_key(cca_key(2)).hex()
    assert IMPLEMENTATION.hex() in str(shown["platform"])


def test_a_file_is_known_by_its_tag() -> None:
    assert is_cca_token(GOOD.token(CHALLENGE))
    assert is_cca_token(FakeCca(wrapped=True).token(CHALLENGE))
    assert not is_cca_token(b"\xd9\x01\x8f")
    assert not is_cca_token(point(cca_key(1)))


def test_an_item_of_another_family_is_a_mistake_of_the_program() -> None:
    foreign = ParsedItem(kind="snp", index=0, core=b"", bound=b"", body=object())
    with pytest.raises(TypeError):
        VERIFIER.verify(foreign, Trust(now=NOW))
