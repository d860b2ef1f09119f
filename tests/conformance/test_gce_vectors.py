"""Every recorded file of Google's vTPMs gives the fields, checks and verdict known."""

from __future__ import annotations

import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.errors import MalformedError
from kbs.evidence.gce.attestation import check_others, parse_attestation
from kbs.evidence.model import GivenCollateral, ItemResult, Trust
from kbs.evidence.vtpm.anchors import find_anchors
from kbs.evidence.vtpm.verify import VtpmVerifier
from kbs.pki.certificates import load_certificates
from kbs.pki.roots import Purpose, pinned_roots

pytestmark = pytest.mark.vectors

AT = parse_time("2024-06-01T00:00:00Z")
VERIFIER = VtpmVerifier()
EVERY_BIT = "KBS_EVERY_BIT" in os.environ
# The header of field 3, and what follows it.
EVENT_LOG = bytes.fromhex("1aa2bb01")
EVENT_LOG_BYTES = 23970
# objectAttributes in the TPMT_PUBLIC of field 1.
AREA = range(3 + 4, 3 + 8)
ATTESTATION = "gce-cos-85-nonce9009"
ROOTS = ("gce-ek-ak-root.pem", "gcp-ek-ak-ca-root.crt", "tpm-ek-root-1.cer")
CAS = (
    "gcp-ek-ak-ca-intermediate-v3.crt",
    "openpcc-ak-intermediate.pem",
    "tpm-ek-intermediate-2.crt",
    "tpm-ek-intermediate-3.crt",
)
# Certificates of attestation keys, which sign, and of endorsement keys, which do not.
SIGNING = {
    "openpcc-ak-cert.pem": "Google EK/AK CA Root",
    "pca-tpm-ecc-sign-cert.pem": "Google EK/AK CA Root",
    "pca-tpm-rsa-sign-cert.pem": "Google EK/AK CA Root",
    "uca-tpm-rsa-sign-cert.pem": "Google tpm_ek_v1_cloud_host_root",
}
ENDORSEMENT = ("pca-tpm-ecc-enc-cert.pem", "uca-tpm-rsa-enc-cert.pem")


@cache
def certificate(folder: Path, name: str) -> x509.Certificate:
    """Read a file as its publisher wrote it: PEM with a remark above it, or DER."""
    data = (folder / "vtpm-gcp" / name).read_bytes()
    (found,) = load_certificates(data[max(data.find(b"-----BEGIN"), 0) :], name)
    return found


def trust(folder: Path) -> Trust:
    authorities = tuple(certificate(folder, name) for name in (*CAS, *ROOTS))
    return Trust(
        now=AT,
        collateral=GivenCollateral(authorities),
        require_revocation=False,
        recorded=True,
    )


def raw_of(folder: Path) -> bytes:
    return (folder / "vtpm-gcp" / f"{ATTESTATION}.pb").read_bytes()


def expected_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (folder / "vtpm-gcp" / f"{ATTESTATION}.expected.json").read_text()
    )
    return document


def verify(raw: bytes, how: Trust) -> tuple[ItemResult, Verdict]:
    attestation = parse_attestation(raw)
    result = VERIFIER.verify(VERIFIER.parse(attestation.quote, 0), how)
    return result, verdict((*result.checks, *check_others(attestation, 0)))


def length_at(raw: bytes, offset: int) -> tuple[int, int]:
    """Return a length of two bytes and the offset after it."""
    low, high = raw[offset : offset + 2]
    return low & 0x7F | high << 7, offset + 2


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    names = {path.name for path in (vectors / "vtpm-gcp").iterdir()}
    evidence = {f"{ATTESTATION}.pb", f"{ATTESTATION}.expected.json"}
    assert names == {*evidence, *ROOTS, *CAS, *SIGNING, *ENDORSEMENT}


def test_the_attestation_is_verified_and_its_fields_are_known(vectors: Path) -> None:
    expected = expected_of(vectors)
    assert expected["verdict"] == "valid"
    result, outcome = verify(raw_of(vectors), trust(vectors))
    assert outcome is Verdict.VERIFIED
    assert result.authenticated
    assert result.claims is not None
    values = result.claims.values
    assert values["vtpm.extra_data"] == expected["nonce_hex"]
    assert values["vtpm.ak.ca"] == "Google tpm_ek_v1_cloud_host_root"
    assert values["vtpm.eventlog.secure_boot"] is True
    assert expected["machine_state"]["secureBoot"]["enabled"] is True
    by_bank = {quote["hash"].lower(): quote for quote in expected["quotes"]}
    for index, value in by_bank["sha256"]["pcrs"].items():
        assert values[f"vtpm.pcr.sha256.{index}"] == value
    for name in ("reset_count", "restart_count", "firmware_version"):
        assert values[f"vtpm.{name}"] == by_bank["sha256"]["attest"][name]
    attestation = parse_attestation(raw_of(vectors))
    others = [dict(item["pcrs"]) for item in attestation.others]  # type: ignore[call-overload]
    assert others == [
        {"sha1": by_bank["sha1"]["pcrs"]},
        {"sha384": by_bank["sha384"]["pcrs"]},
    ]
    passed = {one.id for one in check_others(attestation, 0)}
    assert "vtpm.eventlog.replay" in passed


def test_every_quote_is_as_others_read_it(vectors: Path) -> None:
    attestation = parse_attestation(raw_of(vectors))
    shown = {}
    for item in (attestation.quote, *attestation.others):
        fields: Any = VERIFIER.inspect(VERIFIER.parse(item, 0))
        (bank,) = fields["pcrs"]
        shown[bank] = fields
    recorded = expected_of(vectors)["quotes"]
    assert len(shown) == len(recorded)
    for quote in recorded:
        fields = shown[quote["hash"].lower()]
        attest = dict(quote["attest"])
        attest["clock"] = f"{attest['clock']:016x}"
        attest["safe"] = bool(attest["safe"])
        assert fields["attest"] == attest
        assert fields["pcrs"] == {quote["hash"].lower(): quote["pcrs"]}
        # After algorithm, hash and size.
        assert fields["signature"]["values"] == [quote["raw_sig"][12:]]


def test_without_googles_issuers_it_is_unchecked(vectors: Path) -> None:
    plain = Trust(now=AT, require_revocation=False, recorded=True)
    result, outcome = verify(raw_of(vectors), plain)
    assert outcome is Verdict.UNCHECKED
    assert not result.authenticated


def test_every_changed_byte_of_what_is_signed_is_refused(vectors: Path) -> None:
    """Key, quotes, signatures, PCRs, and the headers of their fields.

    Without the event log, which is replayed elsewhere; one byte of twelve, or every
    bit. The certificate vouches for the key alone: of the area around it only the name
    is lost, which the quote no longer proves. A quote under a field number that nobody
    knows is as good as left out, which the message, unsigned, cannot prevent.
    """
    whole, how = raw_of(vectors), trust(vectors)
    end = whole.index(EVENT_LOG)
    raw = whole[:end] + whole[end + len(EVENT_LOG) + EVENT_LOG_BYTES :]
    _, outcome = verify(raw, how)
    assert outcome is Verdict.VERIFIED
    chosen = random.Random(ATTESTATION)  # noqa: S311 - which bits to try, no secret
    bits = [8 * index + chosen.randrange(8) for index in range(0, end, 12)]
    accepted = []
    for bit in range(8 * end) if EVERY_BIT else bits:
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            result, outcome = verify(bytes(changed), how)
        except MalformedError:
            continue
        if outcome is Verdict.VERIFIED:
            assert result.claims is not None
            named = "vtpm.ak.name" in result.claims.values
            accepted.append((bit // 8, named))
    headers = [0]
    for _ in range(3):
        size, after = length_at(raw, headers[-1] + 1)
        headers.append(after + size)
    for index, named in accepted:
        assert named if index in headers[1:] else index in AREA


@pytest.mark.parametrize(("name", "root"), SIGNING.items())
def test_certificates_of_attestation_keys_reach_their_root(
    vectors: Path, name: str, root: str
) -> None:
    leaf = certificate(vectors, name)
    pool = tuple(certificate(vectors, one) for one in (*CAS, *ROOTS))
    anchors, _ = find_anchors([leaf], pool, Trust(now=leaf.not_valid_before_utc))
    assert [anchor.name for anchor in anchors] == [root]
    assert anchors[0].attests


@pytest.mark.parametrize("name", ENDORSEMENT)
def test_certificates_of_endorsement_keys_attest_nothing(
    vectors: Path, name: str
) -> None:
    leaf = certificate(vectors, name)
    pool = tuple(certificate(vectors, one) for one in (*CAS, *ROOTS))
    anchors, _ = find_anchors([leaf], pool, Trust(now=leaf.not_valid_before_utc))
    assert not any(anchor.attests for anchor in anchors)


def test_the_roots_are_those_that_are_pinned(vectors: Path) -> None:
    names = set(pinned_roots(Purpose.TPM).values())
    assert set(SIGNING.values()) <= names
    first, second, _ = (certificate(vectors, name) for name in ROOTS)
    assert first == second


def test_a_quote_of_another_hand_is_refused(vectors: Path) -> None:
    """The key of one quote, and the quote of another machine's key."""
    raw = bytearray(raw_of(vectors))
    raw[60] ^= 1  # in the modulus of the key
    result, outcome = verify(bytes(raw), trust(vectors))
    assert outcome is Verdict.REFUSED
    failed = {one.id for one in result.checks if one.status is Status.FAIL}
    assert "vtpm.quote.signature" in failed
