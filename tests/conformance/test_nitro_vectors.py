"""Every recorded Nitro document gives the fields, checks and verdict known of it."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import ItemResult, Trust
from kbs.evidence.nitro.document import parse_document
from kbs.evidence.nitro.verify import NitroVerifier
from kbs.pki.certificates import load_certificates, spki_sha256
from kbs.pki.roots import Purpose, pinned_roots

pytestmark = pytest.mark.vectors

VERIFIER = NitroVerifier()
VALID = (
    "blocky",
    "dstack-attest",
    "dstack-nsm",
    "evervault-beta",
    "evervault-debug",
    "veracruz",
)
# Document and the only check of it that fails at the time of the good one; the
# self-signed imitation has no time of its own.
INVALID = {
    "veracruz-bad-sig": {"nitro.document.signature"},
    "blocky-selfsigned": {"nitro.certificate", "nitro.chain", "nitro.validity"},
}
# Set to walk through every bit of a document, not one of each byte: `make bits`.
EVERY_BIT = "KBS_EVERY_BIT" in os.environ


def expected_of(folder: Path, stem: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (folder / "nitro" / f"{stem}.expected.json").read_text()
    )
    return document


def raw_of(folder: Path, stem: str) -> bytes:
    return (folder / "nitro" / f"{stem}.cbor").read_bytes()


def verify(raw: bytes, at: str) -> ItemResult:
    parsed = VERIFIER.parse({"kind": "nitro", "document": b64(raw)}, 0)
    return VERIFIER.verify(parsed, Trust(now=parse_time(at)))


def failed(result: ItemResult) -> set[str]:
    return {one.id for one in result.checks if one.status is Status.FAIL}


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    names = {path.name.split(".")[0] for path in (vectors / "nitro").iterdir()}
    assert names == {*VALID, *INVALID, "aws-nitro-root-g1"}


@pytest.mark.parametrize("stem", VALID)
def test_a_document_is_verified_at_its_time_and_its_fields_are_known(
    vectors: Path, stem: str
) -> None:
    expected = expected_of(vectors, stem)
    wanted, proof = expected["parsed"], expected["verification"]
    at = expected["verdict"].removeprefix("valid at ")
    result = verify(raw_of(vectors, stem), at)
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.authenticated
    assert result.claims is not None
    values = result.claims.values
    assert values["nitro.module_id"] == wanted["module_id"]
    # The other implementation leaves the fraction of the second out.
    assert str(values["nitro.timestamp"])[:19] + "Z" == wanted["timestamp"]
    for index, register in wanted["pcrs"].items():
        assert values[f"nitro.pcrs.{index}"] == register
    for name in ("public_key", "user_data", "nonce"):
        assert values.get(f"nitro.{name}") == wanted[name]
    assert values["nitro.debug"] is wanted["debug_mode_all_zero_pcr0"]
    document = parse_document(raw_of(vectors, stem))
    root = document.cabundle[0]
    assert spki_sha256(root) == proof["root_spki_sha256"]
    leaf = document.certificate
    window = [leaf.not_valid_before_utc, leaf.not_valid_after_utc]
    assert window == [parse_time(text) for text in proof["leaf_window"]]


@pytest.mark.parametrize("stem", VALID)
def test_a_document_is_refused_a_second_outside_of_its_window(
    vectors: Path, stem: str
) -> None:
    begins, ends = expected_of(vectors, stem)["verification"]["leaf_window"]
    parsed = VERIFIER.parse(
        {"kind": "nitro", "document": b64(raw_of(vectors, stem))}, 0
    )
    second = timedelta(seconds=1)
    for now in (parse_time(begins) - second, parse_time(ends) + second):
        result = VERIFIER.verify(parsed, Trust(now=now))
        assert failed(result) == {"nitro.validity"}
        assert result.claims is None


@pytest.mark.parametrize("stem", INVALID)
def test_a_bad_document_is_refused(vectors: Path, stem: str) -> None:
    assert expected_of(vectors, stem)["verdict"].startswith("INVALID")
    result = verify(raw_of(vectors, stem), "2022-11-09T22:52:00Z")
    assert failed(result) == INVALID[stem]
    assert not result.authenticated
    assert result.claims is None


def test_the_pin_is_the_recorded_roots(vectors: Path) -> None:
    anchors = json.loads((vectors / "trust-anchors.json").read_text())["anchors"]
    (root,) = load_certificates(
        (vectors / "nitro" / "aws-nitro-root-g1.pem").read_bytes(), "root"
    )
    assert list(pinned_roots(Purpose.NITRO)) == [spki_sha256(root)]
    recorded = {one["spki_sha256"] for one in anchors if one["role"] == "root"}
    assert spki_sha256(root) in recorded


def test_every_changed_byte_of_a_document_is_refused(vectors: Path) -> None:
    """Nothing in a document may change: not even what COSE leaves unsigned."""
    stem = "veracruz"
    raw = raw_of(vectors, stem)
    at = expected_of(vectors, stem)["verdict"].removeprefix("valid at ")
    chosen = random.Random(stem)  # noqa: S311 - which bits to try, no secret
    bits = (
        range(len(raw) * 8)
        if EVERY_BIT
        else [8 * index + chosen.randrange(8) for index in range(len(raw))]
    )
    accepted, signature, malformed = [], 0, 0
    for bit in bits:
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            result = verify(bytes(changed), at)
        except MalformedError:
            malformed += 1
            continue
        signature += "nitro.document.signature" in failed(result)
        if result.authenticated or "nitro.document.signature" not in failed(result):
            accepted.append(bit)
    assert accepted == []
    assert signature > len(raw) // 2
    assert signature + malformed == len(bits)
