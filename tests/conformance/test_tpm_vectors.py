"""Recorded TPM quotes: every field and verdict that is known of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import EnrolledKey, ItemResult, Trust
from kbs.evidence.vtpm.abi import (
    Attest,
    parse_attest,
    parse_signature,
    serialize_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.algorithms import Algorithm, bank_name
from kbs.evidence.vtpm.anchors import find_anchors
from kbs.evidence.vtpm.item import item_from_files, load_ak
from kbs.evidence.vtpm.public import parse_public, serialize_public
from kbs.evidence.vtpm.verify import VtpmVerifier
from kbs.pki.certificates import der, load_certificates
from tests.fakes.tpm_ca import NOW

pytestmark = pytest.mark.vectors
VERIFIER = VtpmVerifier()


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "tpm"


def expected_of(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document


def fields(attest: Attest) -> dict[str, object]:
    """Return the fields as the recorded expectations write them."""
    return {
        "magic": "ff544347",
        "type": "8018",
        "qualified_signer": attest.qualified_signer.hex(),
        "extra_data": attest.extra_data.hex(),
        "clock": attest.clock,
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "safe": int(attest.safe),
        "firmware_version": f"{attest.firmware_version:016x}",
        "pcr_select": [
            {"alg": bank_name(entry.bank), "pcrs": list(entry.pcrs)}
            for entry in attest.pcr_select
        ],
        "pcr_digest": attest.pcr_digest.hex(),
    }


def statuses(result: ItemResult) -> dict[str, Status]:
    return {check.id: check.status for check in result.checks}


def verify(item: Mapping[str, object], trust: Trust) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 0), trust)


def named(ak: bytes) -> Trust:
    return Trust(now=NOW, override_ak=ak, require_revocation=False, recorded=True)


def keylime_item(folder: Path, ak: str = "keylime-ak.pub") -> dict[str, object]:
    return item_from_files(
        (folder / "keylime-quote.out").read_bytes(),
        (folder / "keylime-quotesig.out").read_bytes(),
        (folder / "keylime-quotepcr.out").read_bytes(),
        (folder / ak).read_bytes(),
    )


def test_keylime_fields_are_as_recorded(folder: Path) -> None:
    expected = expected_of(folder / "keylime-quote.expected.json")
    message = (folder / "keylime-quote.out").read_bytes()
    attest = parse_attest(message)
    assert fields(attest) == expected["attest"]
    assert serialize_attest(attest) == message
    signature = (folder / "keylime-quotesig.out").read_bytes()
    parsed = parse_signature(signature)
    assert serialize_signature(parsed) == signature
    assert parsed.values[0].hex() in expected["tpm2_checkquote"]


def test_keylime_pcrs_are_those_that_tpm2_checkquote_prints(folder: Path) -> None:
    printed = expected_of(folder / "keylime-quote.expected.json")["tpm2_checkquote"]
    pcrs = keylime_item(folder)["pcrs"]
    assert isinstance(pcrs, dict)
    assert list(pcrs) == ["sha256"]
    assert sorted(pcrs["sha256"]) == ["15", "16", "22"]
    for number, value in pcrs["sha256"].items():
        assert f"{number}: 0x{value.upper()}" in printed


def test_keylime_key_has_its_name(folder: Path) -> None:
    data = (folder / "keylime-ak.pub").read_bytes()
    public = parse_public(data)
    assert serialize_public(public) == data
    assert public.name == (folder / "keylime-ak.name").read_bytes()
    pem = load_ak((folder / "keylime-akpub.pem").read_bytes())
    assert pem.spki == public.spki


@pytest.mark.parametrize("ak", ["keylime-ak.pub", "keylime-akpub.pem"])
def test_keylime_quote_is_verified_for_who_names_the_key(folder: Path, ak: str) -> None:
    result = verify(keylime_item(folder, ak), named((folder / ak).read_bytes()))
    found = statuses(result)
    assert verdict(result.checks) is Verdict.VERIFIED
    assert found["vtpm.quote.signature"] is Status.PASS
    assert found["vtpm.quote.pcr_digest"] is Status.PASS
    assert found["vtpm.ak.trust"] is Status.SKIPPED


def test_keylime_quote_is_refused_without_trust_in_the_key(folder: Path) -> None:
    result = verify(keylime_item(folder), Trust(now=NOW))
    assert verdict(result.checks) is Verdict.REFUSED
    assert statuses(result)["vtpm.ak.trust"] is Status.FAIL


@pytest.mark.parametrize("ak", ["keylime-ak.pub", "keylime-akpub.pem"])
def test_keylime_quote_is_verified_when_the_key_is_enrolled(
    folder: Path, ak: str
) -> None:
    public = (folder / "keylime-ak.pub").read_bytes()
    name = (folder / "keylime-ak.name").read_bytes()
    key = EnrolledKey(tenant="acme", group="hosts", name=name, public=public)
    trust = Trust(now=NOW, enrolled_keys={name: (key,)})
    result = verify(keylime_item(folder, ak), trust)
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.values["vtpm.ak.name"] == name.hex()


def test_a_raw_rsa_signature_is_the_same_signature(folder: Path) -> None:
    raw = (folder / "keylime-quotesig.out").read_bytes()[6:]
    item = item_from_files(
        (folder / "keylime-quote.out").read_bytes(),
        raw,
        (folder / "keylime-quotepcr.out").read_bytes(),
        (folder / "keylime-ak.pub").read_bytes(),
    )
    assert item == keylime_item(folder)


def test_every_flipped_bit_of_the_signed_message_is_refused(folder: Path) -> None:
    item = keylime_item(folder)
    quote = item["quote"]
    assert isinstance(quote, dict)
    message = (folder / "keylime-quote.out").read_bytes()
    trust = named((folder / "keylime-ak.pub").read_bytes())
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        forged = {**item, "quote": {**quote, "message": b64(bytes(changed))}}
        try:
            result = verify(forged, trust)
        except MalformedError:
            continue
        assert statuses(result)["vtpm.quote.signature"] is Status.FAIL
        assert not result.authenticated
        assert result.claims is None


def test_every_flipped_bit_of_the_pcrs_is_refused(folder: Path) -> None:
    pcrs = (folder / "keylime-quotepcr.out").read_bytes()
    trust = named((folder / "keylime-ak.pub").read_bytes())
    message = (folder / "keylime-quote.out").read_bytes()
    signature = (folder / "keylime-quotesig.out").read_bytes()
    ak = (folder / "keylime-ak.pub").read_bytes()
    for offset in (4, 8, 9, 142, 173, 208, 239, 274, 305):
        changed = bytearray(pcrs)
        changed[offset] ^= 1
        try:
            item = item_from_files(message, signature, bytes(changed), ak)
        except MalformedError:
            continue
        assert verify(item, trust).claims is None


def test_another_projects_evidence_fits_our_item(folder: Path) -> None:
    """Its PCRs are a list, its key bare base64 of DER; the quote is a quote."""
    expected = expected_of(folder / "coco-tpm-evidence.expected.json")
    given = expected_of(folder / "coco-tpm-evidence.json")
    quote = given["tpm_quote"]
    message = base64.b64decode(quote["message"])
    assert fields(parse_attest(message)) == expected["attest"]
    pcrs = {"sha256": {str(n): value for n, value in enumerate(quote["pcrs"])}}
    ak = base64.b64decode(given["ak_public"])
    item = item_from_files(
        message,
        base64.b64decode(quote["signature"]),
        json.dumps(pcrs).encode(),
        ak,
    )
    result = verify(item, named(ak))
    found = statuses(result)
    assert found["vtpm.quote.signature"] is Status.PASS
    assert found["vtpm.quote.pcr_digest"] is Status.PASS
    assert expected["checks"] == {
        "signature": "valid (RSASSA)",
        "pcr_digest_matches": True,
    }
    assert result.claims is not None
    # 64 bytes of extraData are not the 32 of a binding, whatever they begin with.
    parsed = VERIFIER.parse(item, 0)
    assert not VERIFIER.bound_matches(parsed, parsed.bound[:48])


def test_a_quote_without_signature_is_parsed(folder: Path) -> None:
    data = (folder / "dstack-gcp-quote-attest.bin").read_bytes()
    attest = parse_attest(data)
    assert serialize_attest(attest) == data
    assert fields(attest) == {
        "magic": "ff544347",
        "type": "8018",
        "qualified_signer": "000b5e49660ab7632407a75f96359e1238649529"
        "bec60afc8f8970b0bdbca01e5fe2",
        "extra_data": "12345678",
        "clock": 88986095,
        "reset_count": 16,
        "restart_count": 0,
        "safe": 1,
        "firmware_version": "2016051100162800",
        "pcr_select": [{"alg": "sha256", "pcrs": [0, 1, 2]}],
        "pcr_digest": "d8de2be2e8a319cddf3d1ce1a310f45e30fd3352"
        "55278e4fcbd59a5f58887648",
    }


def test_a_quote_signed_with_sha1_is_refused(folder: Path) -> None:
    """A real AK of a GCE machine whose scheme is RSASSA with SHA-1."""
    given = expected_of(folder / "go-attestation-windows-gcp.json")
    ak = base64.b64decode(given["AK"]["Public"])
    public_area = len(ak).to_bytes(2, "big") + ak
    public = parse_public(public_area)
    assert public.scheme.hash is Algorithm.SHA1
    sha1 = {
        str(pcr["Index"]): base64.b64decode(pcr["Digest"]).hex()
        for pcr in given["Log"]["PCRs"]
    }
    item = {
        "kind": "vtpm",
        "quote": {
            "message": given["Quote"]["Quote"],
            "signature": given["Quote"]["Signature"],
        },
        "pcrs": {"sha1": sha1},
        "ak": b64(public_area),
        "event_log": given["Log"]["Raw"],
    }
    result = verify(item, named(public_area))
    found = statuses(result)
    assert found["vtpm.quote.signature"] is Status.FAIL
    assert found["vtpm.quote.pcr_selection"] is Status.PASS
    assert found["vtpm.ak.attributes"] is Status.PASS
    assert found["vtpm.eventlog.replay"] is Status.SKIPPED
    assert result.claims is None


def certificate_in(path: Path) -> x509.Certificate:
    """Read a file as its publisher wrote it: PEM with a remark above it, or DER."""
    data = path.read_bytes()
    start = data.find(b"-----BEGIN")
    (certificate,) = load_certificates(data[max(start, 0) :], path.name)
    return certificate


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("leaf", "cas", "root"),
    [
        (
            "vtpm-azure/openpcc-ak-cert-01.pem",
            ["vtpm-azure/azure-vtpm-intermediate-03.pem"],
            "vtpm-azure/azure-vtpm-root-2023.pem",
        ),
        (
            "vtpm-gcp/uca-tpm-rsa-sign-cert.pem",
            ["vtpm-gcp/tpm-ek-intermediate-3.crt"],
            "vtpm-gcp/tpm-ek-root-1.cer",
        ),
        (
            "vtpm-gcp/pca-tpm-rsa-sign-cert.pem",
            ["vtpm-gcp/gcp-ek-ak-ca-intermediate-v3.crt"],
            "vtpm-gcp/gcp-ek-ak-ca-root.crt",
        ),
    ],
)
# Google's CA has a common name longer than X.520 allows.
def test_certificates_of_real_clouds_reach_their_pinned_root(
    vectors: Path, folder: Path, leaf: str, cas: list[str], root: str
) -> None:
    """No quote was recorded under them, so that all but signature and name can hold."""
    certificate = certificate_in(vectors / leaf)
    chain = [certificate_in(vectors / path) for path in (*cas, root)]
    item = keylime_item(folder)
    item["ak"] = b64(spki(certificate))
    item["ak_certificates"] = [b64(der(entry)) for entry in (certificate, *chain)]
    at = certificate.not_valid_before_utc
    result = verify(item, Trust(now=at, require_revocation=False))
    found = statuses(result)
    assert found["vtpm.chain"] is Status.PASS
    assert found["vtpm.validity"] is Status.PASS
    assert found["vtpm.revocation"] is Status.SKIPPED
    assert found["vtpm.ak.trust"] is Status.PASS
    assert found["vtpm.quote.signature"] is Status.FAIL
    assert not result.authenticated
    anchors, _ = find_anchors([certificate], tuple(chain), Trust(now=at))
    assert [anchor.attests for anchor in anchors] == [True]
