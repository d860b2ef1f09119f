"""Every recorded token gives the claims, checks and verdict of its companion."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kbs.cli.issuer_files import vouched
from kbs.core.checks import Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.encode import parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import ItemResult, Trust, TrustedIssuer
from kbs.evidence.token.item import is_token_file, item_from_file, parse_item
from kbs.evidence.token.service import Token
from kbs.evidence.token.verify import TokenVerifier
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import load_certificates, load_der_certificate, spki_sha256
from kbs.pki.chain import is_issued_by
from kbs.pki.issuers import IssuerKey, Profile
from kbs.pki.jwk import parse_jwk

pytestmark = pytest.mark.vectors

VERIFIER = TokenVerifier()

# Token, file of keys, claims to compare with those of the companion: path there, and
# the claim's name here.
SIGNED = {
    "maa-sevsnpvm-weu.jwt": (
        "maa.jwks.json",
        {
            "iss": "maa.iss",
            "x-ms-attestation-type": "maa.x_ms_attestation_type",
            "x-ms-policy-hash": "maa.x_ms_policy_hash",
            "secureboot": "maa.secureboot",
            "x-ms-isolation-tee/x-ms-compliance-status": "maa.x_ms_compliance_status",
            "x-ms-isolation-tee/x-ms-sevsnpvm-launchmeasurement": (
                "maa.x_ms_sevsnpvm_launchmeasurement"
            ),
            "x-ms-isolation-tee/x-ms-sevsnpvm-idkeydigest": (
                "maa.x_ms_sevsnpvm_idkeydigest"
            ),
            "x-ms-isolation-tee/x-ms-sevsnpvm-familyId": (
                "maa.x_ms_sevsnpvm_family_id"
            ),
            "x-ms-isolation-tee/x-ms-sevsnpvm-microcode-svn": (
                "maa.x_ms_sevsnpvm_microcode_svn"
            ),
            "x-ms-isolation-tee/x-ms-sevsnpvm-is-debuggable": "maa.debug",
        },
    ),
    "ita-sgx.jwt": (
        "ita.jwks.json",
        {
            "iss": "ita.iss",
            "attester_type": "ita.attester_type",
            "attester_tcb_status": "ita.attester_tcb_status",
            "sgx_mrenclave": "ita.sgx_mrenclave",
            "sgx_mrsigner": "ita.sgx_mrsigner",
            "sgx_isvsvn": "ita.sgx_isvsvn",
            "sgx_is_debuggable": "ita.debug",
        },
    ),
    "gcp-confidential-space-sev.jwt": (
        "gcp-confidential-space.jwks.json",
        {
            "aud": "gcs.aud",
            "eat_nonce": "gcs.eat_nonce",
            "hwmodel": "gcs.hwmodel",
            "dbgstat": "gcs.dbgstat",
            "secboot": "gcs.secboot",
            "submods/container/image_digest": "gcs.submods.container.image_digest",
            "submods/gce/project_id": "gcs.submods.gce.project_id",
        },
    ),
}
CONFUSED = "ita-alg-confusion-hs384.jwt"
SETS = ("nras-hopper-v3.json", "nras-switch.json")
# The first carries its own key, which is no anchor; the second is no attestation token,
# but what a key vault answered, under a root of nobody's here.
ANCHORLESS = ("coco-as-rs384.jwt", "akv-skr-release.jwt")
COMPANIONS = {
    "maa.jwks.json",
    "ita.jwks.json",
    "gcp-confidential-space.jwks.json",
    "nras-intermediate-002.pem",
    "nras-x5c-chain.json",
}


def read(folder: Path, name: str) -> bytes:
    return (folder / "tokens" / name).read_bytes()


def read_expected(folder: Path, name: str) -> dict[str, Any]:
    stem = name.rpartition(".")[0]
    document: dict[str, Any] = json.loads(read(folder, f"{stem}.expected.json"))
    return document


def keys(folder: Path, name: str) -> tuple[TrustedIssuer, ...]:
    return vouched(folder / "tokens" / name, "keys")


def middle(window: list[str]) -> datetime:
    begins, ends = (parse_time(one, "window") for one in window)
    return begins + (ends - begins) / 2


def verify(
    data: bytes, now: datetime, issuers: tuple[TrustedIssuer, ...] = ()
) -> ItemResult:
    trust = Trust(now=now, issuers=issuers, require_revocation=False, recorded=True)
    return VERIFIER.verify(VERIFIER.parse(item_from_file(data), 0), trust)


def statuses(result: ItemResult) -> dict[str, Status]:
    return {check.id: check.status for check in result.checks}


def at(document: dict[str, Any], path: str) -> Any:
    for step in path.split("/"):
        document = document[step]
    return document


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    known = {*SIGNED, CONFUSED, *SETS, *ANCHORLESS, *COMPANIONS}
    found = {path.name for path in (vectors / "tokens").iterdir()}
    assert {name for name in found if not name.endswith(".expected.json")} == known


@pytest.mark.parametrize("name", [*SIGNED, CONFUSED, *SETS, *ANCHORLESS])
def test_a_token_is_known_by_its_bytes(vectors: Path, name: str) -> None:
    assert is_token_file(read(vectors, name))


@pytest.mark.parametrize("name", [*SIGNED, CONFUSED, *ANCHORLESS])
def test_header_and_claims_are_as_another_library_reads_them(
    vectors: Path, name: str
) -> None:
    expected = read_expected(vectors, name)
    token = parse_item(item_from_file(read(vectors, name)))
    assert dict(token.jws.header) == expected["header"]
    assert dict(token.claims) == expected["claims"]


@pytest.mark.parametrize("name", SIGNED)
def test_signed_tokens_are_verified_inside_their_window(
    vectors: Path, name: str
) -> None:
    file, compared = SIGNED[name]
    expected = read_expected(vectors, name)
    assert expected["signature"] == "valid"
    window = expected["valid_time_window"]
    data, issuers = read(vectors, name), keys(vectors, file)
    result = verify(data, middle(window), issuers)
    assert verdict(result.checks) is Verdict.VERIFIED, statuses(result)
    assert result.claims is not None
    values = result.claims.values
    got = {path: values.get(claim) for path, claim in compared.items()}
    assert got == {path: at(expected["claims"], path) for path in compared}
    begins, ends = (parse_time(one, "window") for one in window)
    assert verdict(verify(data, begins, issuers).checks) is Verdict.VERIFIED
    for late in (begins - timedelta(seconds=1), ends):
        outside = verify(data, late, issuers)
        assert statuses(outside)["token.validity"] is Status.FAIL
        assert verdict(outside.checks) is Verdict.REFUSED
    unknown = verify(data, middle(window))
    assert verdict(unknown.checks) is Verdict.UNCHECKED


def test_a_token_by_another_algorithm_is_refused(vectors: Path) -> None:
    expected = read_expected(vectors, CONFUSED)
    assert expected["verdict"].startswith("INVALID")
    now = middle(expected["valid_time_window"])
    for issuers in (keys(vectors, "ita.jwks.json"), ()):
        result = verify(read(vectors, CONFUSED), now, issuers)
        assert statuses(result)["token.algorithm"] is Status.FAIL
        assert verdict(result.checks) is Verdict.REFUSED


@pytest.mark.parametrize("name", SETS)
def test_sets_without_keys_hold_together_and_could_not_be_checked(
    vectors: Path, name: str
) -> None:
    expected = read_expected(vectors, name)
    token = parse_item(item_from_file(read(vectors, name)))
    given = [dict(one.claims) for one in (token.jws, *token.submodules.values())]
    assert given == [one["claims"] for one in expected["tokens"]]
    assert set(token.submodules) == set(
        expected["submod_digest_sha256_of_detached_jwt_matches"]
    )
    for now in (
        datetime(2025, 6, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 22, tzinfo=UTC),
    ):
        result = verify(read(vectors, name), now)
        assert statuses(result)["token.submodules"] is Status.PASS
        assert verdict(result.checks) is Verdict.UNCHECKED
        assert result.claims is None
    (device,) = VERIFIER.verify(
        VERIFIER.parse(item_from_file(read(vectors, name)), 0),
        Trust(now=datetime(2025, 6, 11, 1, tzinfo=UTC)),
    ).identities
    assert device.startswith("gpu:")


@pytest.mark.parametrize("name", ANCHORLESS)
def test_tokens_without_an_anchor_could_not_be_checked(
    vectors: Path, name: str
) -> None:
    result = verify(read(vectors, name), datetime(2023, 12, 4, 6, 53, tzinfo=UTC))
    assert verdict(result.checks) is Verdict.UNCHECKED


def test_a_key_counts_when_somebody_vouches_for_it(vectors: Path) -> None:
    """The key inside a token is believed only when it was registered by itself."""
    expected = read_expected(vectors, "coco-as-rs384.jwt")
    jwk = parse_jwk(expected["claims"]["jwk"], "jwk")
    key = IssuerKey(key=jwk.key, algorithm="RS384")
    issuer = TrustedIssuer(
        tenant="acme",
        name="coco",
        profile=Profile.EAR,
        issuer="CoCo-Attestation-Service",
        keys=(key,),
    )
    now = middle(expected["valid_time_window"])
    data = read(vectors, "coco-as-rs384.jwt")
    assert verdict(verify(data, now, (issuer,)).checks) is Verdict.VERIFIED
    other = replace(issuer, issuer="Somebody-Else")
    assert verdict(verify(data, now, (other,)).checks) is Verdict.UNCHECKED


def test_the_vaults_answer_is_signed_by_its_leaf(vectors: Path) -> None:
    """As an issuer whose key somebody took from that certificate."""
    data = read(vectors, "akv-skr-release.jwt")
    token = parse_item(item_from_file(data))
    links = LinkCache()
    for issued, above in pairwise(token.jws.chain):
        assert is_issued_by(issued, above, links)
    key = IssuerKey(key=token.jws.chain[0].public_key(), algorithm="RS256")  # type: ignore[arg-type]
    issuer = TrustedIssuer(tenant=None, name="vault", profile=Profile.EAR, keys=(key,))
    result = verify(data, datetime(2026, 1, 1, tzinfo=UTC), (issuer,))
    assert statuses(result)["token.signature"] is Status.PASS
    assert verdict(result.checks) is Verdict.VERIFIED


def test_the_chain_of_nvidias_key_holds(vectors: Path) -> None:
    document = json.loads(read(vectors, "nras-x5c-chain.json"))
    chain = [
        load_der_certificate(parse_b64(one, "x5c", limit=4096), "x5c")
        for one in document["x5c"]
    ]
    assert is_issued_by(chain[0], chain[1], LinkCache())
    assert spki_sha256(chain[-1]).startswith("fd32837f954e2c45")
    pem = read(vectors, "nras-intermediate-002.pem")
    intermediate, *_ = load_certificates(pem, "pem")
    assert spki_sha256(intermediate).startswith("47277eed6a87671d")


# --- every character counts -----------------------------------------------------------

EVERY = os.environ.get("KBS_EVERY_BIT") == "1"
SMALLEST = "gcp-confidential-space-sev.jwt"
STRIDE = 11
"""Every place is `make bits`."""

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def altered(text: str, index: int, rng: random.Random) -> str:
    """Another character of the alphabet in one place; dots become characters."""
    other = rng.choice([one for one in _ALPHABET if one != text[index]])
    return text[:index] + other + text[index + 1 :]


@pytest.mark.parametrize("name", SIGNED)
def test_any_other_character_in_a_token_is_refused(vectors: Path, name: str) -> None:
    """Header, claims and signature of one token; places of the others (`STRIDE`)."""
    file, _ = SIGNED[name]
    now = middle(read_expected(vectors, name)["valid_time_window"])
    issuers = keys(vectors, file)
    text = read(vectors, name).decode().strip()
    rng = random.Random(name)  # noqa: S311 - which characters, no secret
    for index in range(0, len(text), 1 if EVERY or name == SMALLEST else STRIDE):
        item = {"kind": "token", "jwt": altered(text, index, rng)}
        try:
            parsed = VERIFIER.parse(item, 0)
        except MalformedError:
            continue
        result = VERIFIER.verify(parsed, Trust(now=now, issuers=issuers, recorded=True))
        # Another `kid` or `iss` names a key that nobody has: never verified either way.
        assert verdict(result.checks) is not Verdict.VERIFIED, index
        assert statuses(result)["token.signature"] is not Status.PASS, index
        assert isinstance(parsed.body, Token)


def test_any_other_character_in_a_device_token_is_refused(vectors: Path) -> None:
    item: dict[str, Any] = item_from_file(read(vectors, SETS[0]))
    text = item["submodules"]["GPU-0"]
    rng = random.Random(SETS[0])  # noqa: S311 - which characters, no secret
    now = datetime(2025, 6, 11, 1, tzinfo=UTC)
    for index in range(0, len(text), 1 if EVERY else STRIDE):
        changed = {"GPU-0": altered(text, index, rng)}
        try:
            parsed = VERIFIER.parse({**item, "submodules": changed}, 0)
        except MalformedError:
            continue
        result = VERIFIER.verify(parsed, Trust(now=now, recorded=True))
        assert statuses(result)["token.submodules"] is Status.FAIL, index
