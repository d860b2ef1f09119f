"""Every recorded CCA token gives the claims, checks and verdict of its companion."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbs.cli.issuer_files import read_keys, vouched
from kbs.core.checks import Status, Verdict, verdict
from kbs.core.encode import b64, canonical_json
from kbs.core.errors import MalformedError
from kbs.evidence.cca.abi import is_cca_token, parse_token
from kbs.evidence.cca.verify import CcaVerifier
from kbs.evidence.model import ItemResult, Trust, TrustedIssuer
from kbs.governance.token_issuer import parse_token_issuer

pytestmark = pytest.mark.vectors

VERIFIER = CcaVerifier()
NOW = datetime(2026, 11, 22, tzinfo=UTC)

# Token, and the files of keys that verify it.
TOKENS = {
    "coco-example": (
        "coco-cpak-pub.json",
        "veraison-cpak.json",
        "veraison-ta-tfa.json",
    ),
    "draft-ffm-00": ("veraison-cpak.json", "veraison-ta-tfa.json"),
    "tf-rmm-01": ("veraison-cpak.json", "veraison-ta-tfa.json"),
}
OTHERS_KEYS = "veraison-ta.json"
COMPANIONS = {
    "coco-cpak-pub.json",
    "veraison-cpak.json",
    "veraison-ta.json",
    "veraison-ta-tfa.json",
    "veraison-rv.json",
}
# Labels of the companion, and the claims here.
REALM = {
    "10": "challenge",
    "44235": "personalization_value",
    "44236": "hash_algo_id",
    "44238": "initial_measurement",
    "44240": "public_key_hash_algo_id",
    "265": "profile",
}
PLATFORM = {
    "256": "instance_id",
    "265": "profile",
    "2396": "implementation_id",
    "2400": "verification_service",
    "2401": "config",
    "2402": "hash_algo_id",
}


def read(folder: Path, stem: str) -> bytes:
    return (folder / "cca" / f"{stem}.cbor").read_bytes()


def read_expected(folder: Path, stem: str) -> dict[str, Any]:
    path = folder / "cca" / f"{stem}.expected.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def keys(folder: Path, name: str) -> tuple[TrustedIssuer, ...]:
    return vouched(folder / "cca" / name, "keys")


def verify(data: bytes, issuers: tuple[TrustedIssuer, ...] = ()) -> ItemResult:
    item = {"kind": "cca", "token": b64(data)}
    trust = Trust(now=NOW, issuers=issuers, recorded=True)
    return VERIFIER.verify(VERIFIER.parse(item, 0), trust)


def statuses(result: ItemResult) -> dict[str, Status]:
    return {check.id: check.status for check in result.checks}


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    found = {path.name for path in (vectors / "cca").iterdir()}
    tokens = {f"{stem}.{end}" for stem in TOKENS for end in ("cbor", "expected.json")}
    assert found == tokens | COMPANIONS


@pytest.mark.parametrize(("stem", "file"), [(a, b) for a in TOKENS for b in TOKENS[a]])
def test_tokens_are_verified_under_their_platforms_key(
    vectors: Path, stem: str, file: str
) -> None:
    data, expected = read(vectors, stem), read_expected(vectors, stem)
    assert is_cca_token(data)
    result = verify(data, keys(vectors, file))
    assert verdict(result.checks) is Verdict.VERIFIED, statuses(result)
    found = statuses(result)
    assert expected["realm_signature_by_rak"]
    assert found["cca.realm.signature"] is Status.PASS
    assert expected["platform_challenge_equals_hash_of_rak"]
    assert found["cca.realm.key"] is Status.PASS
    assert expected.get("platform_signature_by_cpak", True)
    assert found["cca.platform.signature"] is Status.PASS
    assert result.claims is not None
    values = result.claims.values
    for label, name in REALM.items():
        want = expected["realm_claims"].get(label)
        assert values.get(f"cca.realm.{name}") == want
    for label, name in PLATFORM.items():
        want = expected["platform_claims"].get(label)
        assert values.get(f"cca.platform.{name}") == want
    registers = [values[f"cca.realm.extensible_measurement{n}"] for n in range(4)]
    assert registers == expected["realm_claims"]["44239"]
    assert values["cca.platform.lifecycle"] == "secured"


@pytest.mark.parametrize("stem", TOKENS)
def test_every_component_is_read(vectors: Path, stem: str) -> None:
    token = parse_token(read(vectors, stem))
    expected = read_expected(vectors, stem)["platform_claims"]["2399"]
    found = [
        {
            label: value
            for label, value in (
                ("1", one.component_type),
                ("2", one.measurement_value.hex()),
                ("4", one.version),
                ("5", one.signer_id.hex()),
                ("6", one.hash_algo_id),
            )
            if value is not None
        }
        for one in token.platform.sw_components
    ]
    assert found == expected
    public = read_expected(vectors, stem)["realm_claims"]["44237"]
    assert token.realm.public_key.hex() == public


@pytest.mark.parametrize("stem", TOKENS)
def test_without_the_platforms_key_nothing_could_be_checked(
    vectors: Path, stem: str
) -> None:
    for issuers in ((), keys(vectors, OTHERS_KEYS)):
        result = verify(read(vectors, stem), issuers)
        assert verdict(result.checks) is Verdict.UNCHECKED
        assert not result.authenticated


def test_a_store_of_anchors_can_be_registered(vectors: Path) -> None:
    given = read_keys(vectors / "cca" / "veraison-ta-tfa.json", "keys")
    issuer = parse_token_issuer({"profile": "cca", "platforms": given})
    trusted = TrustedIssuer(
        tenant="acme", name="tfa", profile=issuer.profile, keys=issuer.keys
    )
    result = verify(read(vectors, "tf-rmm-01"), (trusted,))
    assert verdict(result.checks) is Verdict.VERIFIED
    again = parse_token_issuer(json.loads(canonical_json(issuer.to_json())))
    assert again.canonical() == issuer.canonical()


# --- every byte counts ----------------------------------------------------------------


EVERY = os.environ.get("KBS_EVERY_BIT") == "1"
SMALLEST = "tf-rmm-01"
STRIDE = 11
"""Every bit of every token is `make bits`."""


def unsigned_places(data: bytes) -> set[int]:
    """Offsets of the two unprotected headers: empty maps, which nobody signs."""
    token = parse_token(data)
    places = set()
    for message in (token.platform.message, token.realm.message):
        start = data.index(message.protected + b"\xa0")
        places.add(start + len(message.protected))
    return places


@pytest.mark.parametrize("stem", TOKENS)
def test_any_flipped_bit_is_refused(vectors: Path, stem: str) -> None:
    """Each byte of one token with a seeded bit, places of the others (`STRIDE`)."""
    data, issuers = read(vectors, stem), keys(vectors, TOKENS[stem][0])
    rng = random.Random(stem)  # noqa: S311 - which bit, no secret
    survivors = set()
    for offset in range(0, len(data), 1 if EVERY or stem == SMALLEST else STRIDE):
        for bit in range(8) if EVERY else (rng.randrange(8),):
            changed = bytearray(data)
            changed[offset] ^= 1 << bit
            try:
                result = verify(bytes(changed), issuers)
            except MalformedError:
                continue
            if verdict(result.checks) is Verdict.VERIFIED:
                survivors.add(offset)
            else:
                failed = {k for k, v in statuses(result).items() if v is Status.FAIL}
                unknown = statuses(result)["cca.trust"] is Status.UNCHECKED
                assert failed or unknown, offset
    assert survivors <= unsigned_places(data)
