"""Any bytes into the parsers of tokens: a value or a `MalformedError`, nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbs.cli.evidence_files import guess_kind
from kbs.core.cbor import write_cbor
from kbs.core.encode import b64, b64u, parse_json
from kbs.core.errors import MalformedError
from kbs.evidence.cca.abi import is_cca_token, parse_token
from kbs.evidence.cca.verify import CcaVerifier
from kbs.evidence.model import Trust, Verifier
from kbs.evidence.token.item import is_token_file, item_from_file
from kbs.evidence.token.verify import TokenVerifier
from kbs.governance.objects import MAX_OBJECT_BYTES
from kbs.governance.token_issuer import parse_token_issuer
from kbs.pki.jwk import parse_jwk_set
from tests.fakes.amd import NOW
from tests.fakes.cca import FakeCca, cca_key, sign1
from tests.fakes.tokens import EAR, GCS, MAA, NRAS, FakeSet, unsigned

# Signatures take the time that they take on a machine with other work.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TOKENS = TokenVerifier()
CCA = CcaVerifier()
TRUST = Trust(
    now=NOW,
    issuers=(
        *(one.trusted() for one in (EAR, GCS, MAA, NRAS)),
        FakeCca().trusted(),
    ),
    recorded=True,
)
CCA_TOKEN = FakeCca().token(bytes(64))
SET = FakeSet(nonce="ab" * 32).item()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**60) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
# Names that the readers look for, at any place and with any value.
NAMES = st.sampled_from(
    [
        *("iss", "aud", "exp", "nbf", "eat_nonce", "submods", "dbgstat", "ueid"),
        *("x-ms-runtime", "x-ms-ver", "x-ms-attestation-type", "x-ms-isolation-tee"),
        *("x-ms-sevsnpvm-vmpl", "tdx_td_attributes", "attester_type", "tdx"),
        *("verifier_instance_ids", "attester_held_data", "policy_ids_matched"),
        *("x-nvidia-overall-att-result", "ear.status", "ear.verifier-id", "container"),
        *("ear.trustworthiness-vector", "env_override", "confidential_space"),
    ]
)
ISSUERS = st.sampled_from(
    [
        "https://acme.weu.attest.azure.net",
        "Intel Trust Authority",
        "https://nras.attestation.nvidia.com",
        "https://confidentialcomputing.googleapis.com",
        "somebody",
    ]
)
claim_values = st.recursive(
    json_values,
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


def fuzz_token(data: bytes) -> None:
    """Read and verify any file as a token: only our errors come out.

    Raises:
        AssertionError: a token that nobody signed is believed.
    """
    try:
        is_token_file(data)
        parsed = TOKENS.parse(item_from_file(data), 0)
        TOKENS.inspect(parsed)
        TOKENS.bound_matches(parsed, bytes(48))
        result = TOKENS.verify(parsed, TRUST)
    except MalformedError:
        return
    assert not result.authenticated


def fuzz_cca(data: bytes) -> None:
    """Read and verify any file as a CCA token: only our errors come out."""
    try:
        is_cca_token(data)
        parsed = CCA.parse({"kind": "cca", "token": b64(data)}, 0)
        CCA.inspect(parsed)
        CCA.bound_matches(parsed, bytes(48))
        CCA.verify(parsed, TRUST)
    except MalformedError:
        return


def fuzz_issuer(data: bytes) -> None:
    """Read any file as a governed issuer and as a JWK set: only our errors come out."""
    for read in (parse_token_issuer, lambda one: parse_jwk_set(one, "keys")):
        with contextlib.suppress(MalformedError):
            read(parse_json(data, "keys", limit=MAX_OBJECT_BYTES))


@unhurried
@given(st.binary(max_size=300))
def test_any_bytes_are_a_token_or_malformed(data: bytes) -> None:
    fuzz_token(data)
    fuzz_cca(data)
    fuzz_issuer(data)
    guess_kind(data)


@unhurried
@given(st.dictionaries(NAMES, claim_values, max_size=6), ISSUERS)
def test_any_claims_are_read_and_none_is_believed(
    claims: dict[str, object], issuer: str
) -> None:
    document = {"iss": issuer, **claims}
    fuzz_token(unsigned({"alg": "ES256", "kid": "key-1"}, document).encode())


@unhurried
@given(st.dictionaries(NAMES, claim_values, max_size=6))
def test_any_signed_claims_give_claims_of_the_vocabulary(
    claims: dict[str, object],
) -> None:
    """What a registered issuer signs is read without a fault, whatever it says."""
    document = {name: value for name, value in claims.items() if name != "iss"}
    try:
        parsed = TOKENS.parse(EAR.item(document), 0)
    except MalformedError:
        return
    result = TOKENS.verify(parsed, TRUST)
    known = {spec.name for spec in TOKENS.vocabulary}
    for one in (result.claims, *result.further_claims):
        assert one is None or set(one.values) <= known


@unhurried
@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_any_header_is_read_or_malformed(header: dict[str, object]) -> None:
    fuzz_token(unsigned({"alg": "ES256", **header}, {"iss": EAR.iss}).encode())


@unhurried
@given(json_values)
def test_any_item_is_malformed_or_read(value: object) -> None:
    for item in (
        {"kind": "token", "jwt": value},
        {**SET, "submodules": value},
        {"kind": "cca", "token": value},
    ):
        verifier: Verifier = CCA if item["kind"] == "cca" else TOKENS
        with contextlib.suppress(MalformedError):
            assert verifier.parse(item, 0).kind == item["kind"]


@unhurried
@given(
    st.lists(
        st.tuples(st.integers(0, len(CCA_TOKEN) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_any_change_of_a_cca_token_is_read_or_malformed(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(CCA_TOKEN)
    for offset, value in changes:
        data[offset] = value
    fuzz_cca(bytes(data))


cbor_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 70000) | st.binary(max_size=100),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
LABELS = st.sampled_from(
    [10, 256, 265, 2395, 2396, 2399, 2400, 2401, 2402, *range(44235, 44241)]
)


@unhurried
@given(st.dictionaries(LABELS, cbor_values), st.dictionaries(LABELS, cbor_values))
def test_any_claims_of_a_realm_are_read_or_malformed(
    realm: dict[int, Any], platform: dict[int, Any]
) -> None:
    fake = FakeCca(realm=realm, platform=platform)
    fuzz_cca(fake.token(bytes(64)))


@unhurried
@given(cbor_values)
def test_any_collection_is_malformed(value: object) -> None:
    members = {44234: value, 44241: sign1(b"\xa0", cca_key(1))}
    for tag in (399, 907):
        with pytest.raises(MalformedError):
            parse_token(write_cbor(cbor2.CBORTag(tag, members)))


@unhurried
@given(json_values)
def test_any_json_is_no_issuer_and_no_key(value: object) -> None:
    for read in (parse_token_issuer, lambda one: parse_jwk_set(one, "keys")):
        with pytest.raises(MalformedError):
            read(value)


@unhurried
@given(st.lists(st.text('aA0_-.{}"é', max_size=30), max_size=5))
def test_any_text_of_three_parts_is_read_or_malformed(parts: list[str]) -> None:
    fuzz_token(".".join(parts).encode("utf-8", "surrogatepass"))
    fuzz_token(".".join(b64u(one.encode("utf-8", "replace")) for one in parts).encode())
    fuzz_token(json.dumps([["JWT", ".".join(parts)], {"GPU-0": "a.b.c"}]).encode())
