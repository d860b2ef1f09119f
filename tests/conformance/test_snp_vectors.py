"""Every recorded SNP file gives the fields, checks and verdict of its companion."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import GivenCollateral, ItemResult, ParsedItem, Trust
from kbs.evidence.snp.abi import parse_report, serialize_report
from kbs.evidence.snp.certificates import parse_endorsement_key
from kbs.evidence.snp.item import SnpItem
from kbs.evidence.snp.verify import SnpVerifier
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import (
    der,
    load_certificates,
    load_crls,
    load_der_certificate,
    spki_sha256,
)
from kbs.pki.chain import Chain, build_chain, is_issued_by
from kbs.pki.cose import CoseAlgorithm, Sign1, is_sign1_signed
from kbs.pki.crl import is_crl_of, is_current, lists_certificate
from kbs.pki.roots import PINNED_ROOTS, Purpose, pinned_roots

pytestmark = pytest.mark.vectors

# Report, leaf, issuers.
REPORTS = {
    "genoa-v3-ms": ("genoa-v3-ms.vcek.pem", "amd-genoa-ask-ark.pem"),
    "genoa-v5-live": ("genoa-v5-live.vcek.der", "amd-genoa-ask-ark.pem"),
    "milan-v2-aci": ("milan-v2-aci.vcek.pem", "amd-milan-ask-ark.pem"),
    "milan-v2-coco": ("milan-v2-coco.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v2-google": ("milan-v2-google.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v2-virtee": ("milan-v2-virtee.vcek.der", "amd-milan-ask-ark.pem"),
    "milan-v3-aws-vlek": (
        "milan-v3-aws-vlek.vlek.der",
        "amd-milan-ask-ark-vlek.pem",
    ),
    "milan-v3-dstack": ("milan-v3-dstack.vcek.pem", "amd-milan-ask-ark.pem"),
    "milan-v3-ms": ("milan-v3-ms.vcek.pem", "amd-milan-ask-ark.pem"),
}
INVALID_KEYS = ("milan-v2-coco.vcek-invalid-legacy", "milan-v2-coco.vcek-invalid-new")
STRUCTURE_ONLY = "lit-guest-report"
ISSUER_FILES = tuple(
    f"amd-{line}-ask-ark{kind}.pem"
    for line in ("milan", "genoa", "turin")
    for kind in ("", "-vlek")
)
# A COSE endorsement of a measurement, which no family reads (docs/evidence.md).
ELSEWHERE = "milan-v2-aci.uvm-reference-info"

CHECKS = {
    "snp.report.signature",
    "snp.chain",
    "snp.validity",
    "snp.revocation",
    "snp.signing_key",
    "snp.product",
    "snp.tcb",
    "snp.chip_id",
}


def read_expected(folder: Path, stem: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (folder / "snp" / f"{stem}.expected.json").read_text()
    )
    return document


def load(folder: Path, name: str) -> tuple[x509.Certificate, ...]:
    return load_certificates((folder / "snp" / name).read_bytes(), name)


def build_item(
    folder: Path, report: str, *certificates: x509.Certificate
) -> dict[str, object]:
    raw = (folder / "snp" / f"{report}.bin").read_bytes()
    return {
        "kind": "snp",
        "report": b64(raw),
        "certificates": [b64(der(certificate)) for certificate in certificates],
    }


def verify(item: dict[str, object], trust: Trust) -> ItemResult:
    verifier = SnpVerifier()
    return verifier.verify(verifier.parse(item, 0), trust)


def statuses(result: ItemResult) -> dict[str, str]:
    return {check.id: check.status.value for check in result.checks}


def test_every_expected_file_is_in_one_of_the_tables(vectors: Path) -> None:
    known = {*REPORTS, *INVALID_KEYS, STRUCTURE_ONLY, ELSEWHERE, "turin-vcek-virtee"}
    found = {
        path.name.removesuffix(".expected.json")
        for path in (vectors / "snp").glob("*.expected.json")
    }
    assert found == known


@pytest.mark.parametrize("stem", [*REPORTS, STRUCTURE_ONLY])
def test_fields_are_as_other_implementations_read_them(
    vectors: Path, stem: str
) -> None:
    wanted = read_expected(vectors, stem)["parsed"]
    raw = (vectors / "snp" / f"{stem}.bin").read_bytes()
    report = parse_report(raw)
    assert serialize_report(report) == raw
    verifier = SnpVerifier()
    parsed = verifier.parse(build_item(vectors, stem), 0)
    shown: dict[str, Any] = dict(verifier.inspect(parsed))

    for field in ("family_id", "image_id", "report_data", "measurement", "host_data"):
        assert shown[field] == wanted[field]
    for field in ("id_key_digest", "author_key_digest", "report_id", "report_id_ma"):
        assert shown[field] == wanted[field]
    for field in ("version", "guest_svn", "vmpl", "signing_key", "chip_id"):
        assert shown[field] == wanted[field]
    for field in ("author_key_en", "mask_chip_key"):
        assert shown[field] is bool(wanted[field])
    for field in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"):
        assert shown.get(field) == wanted.get(field)
    assert shown["signature"]["algorithm"] == wanted["signature_algo"]
    assert int(shown["platform_info"], 16) == int(wanted["platform_info"], 16)
    assert int(shown["policy"]["raw"], 16) == int(wanted["policy"], 16)
    bits = wanted["policy_bits"]
    assert {name: shown["policy"][name] for name in bits} == bits
    for which in ("current", "reported", "committed", "launch"):
        assert shown[f"{which}_tcb"]["raw"] == wanted[f"{which}_tcb"]
    parts = {k: v for k, v in shown["reported_tcb"].items() if k != "raw"}
    assert parts == wanted["reported_tcb_parts"]
    for which in ("current", "committed"):
        build, minor, major = wanted[f"{which}_build_minor_major"]
        assert shown[f"{which}_build"] == f"{major}.{minor}.{build}"


@pytest.mark.parametrize("stem", REPORTS)
def test_report_verifies_at_both_ends_of_its_window(vectors: Path, stem: str) -> None:
    wanted = read_expected(vectors, stem)
    assert wanted["verdict"] == "valid"
    leaf, issuers = REPORTS[stem]
    item = build_item(vectors, stem, *load(vectors, leaf), *load(vectors, issuers))
    for at in wanted["valid_time_window"]:
        trust = Trust(now=parse_time(at), require_revocation=False)
        result = verify(item, trust)
        masked = wanted["verification"].get("leaf_hwid_equals_chip_id") is None
        assert set(statuses(result)) == CHECKS
        assert statuses(result) == dict.fromkeys(CHECKS, "pass") | {
            "snp.revocation": "skipped",
            "snp.chip_id": "skipped" if masked else "pass",
        }
        assert verdict(result.checks) is Verdict.VERIFIED
        assert result.authenticated
        assert result.claims is not None
        values = result.claims.values
        assert values["snp.measurement"] == wanted["parsed"]["measurement"]
        assert values["snp.reported_tcb"] == wanted["parsed"]["reported_tcb_parts"]
        line = wanted["verification"]["chain"][-1].split(",")[0]
        assert line == f"CN=ARK-{values['snp.product']}"


@pytest.mark.parametrize("stem", REPORTS)
def test_report_is_refused_a_second_outside_its_window(
    vectors: Path, stem: str
) -> None:
    begins, ends = read_expected(vectors, stem)["valid_time_window"]
    leaf, issuers = REPORTS[stem]
    item = build_item(vectors, stem, *load(vectors, leaf), *load(vectors, issuers))
    second = timedelta(seconds=1)
    for at in (parse_time(begins) - second, parse_time(ends) + second):
        result = verify(item, Trust(now=at, require_revocation=False))
        assert statuses(result)["snp.validity"] == "fail"
        assert statuses(result)["snp.chain"] == "pass"
        assert verdict(result.checks) is Verdict.REFUSED
        assert result.authenticated
        assert result.claims is None


@pytest.mark.parametrize("stem", REPORTS)
def test_leaf_extensions_are_as_other_implementations_read_them(
    vectors: Path, stem: str
) -> None:
    wanted = read_expected(vectors, stem)["verification"]
    (leaf,) = load(vectors, REPORTS[stem][0])
    assert_extensions(leaf, wanted["leaf_extensions"])
    assert spki_sha256(leaf) == wanted["leaf"]["spki_sha256"]


def assert_extensions(leaf: x509.Certificate, wanted: dict[str, Any]) -> None:
    key = parse_endorsement_key(leaf)
    assert key.struct_version == wanted["struct_version"]
    assert key.product_name == wanted["product_name"]
    assert key.tcb["bootloader"] == wanted["bl_spl"]
    assert key.tcb["tee"] == wanted["tee_spl"]
    assert key.tcb["snp"] == wanted["snp_spl"]
    assert key.tcb["microcode"] == wanted["ucode_spl"]
    assert key.tcb.get("fmc") == wanted.get("fmc_spl")
    assert key.csp_id == wanted.get("csp_id")
    hwid = wanted.get("hwid")
    # One implementation shows the OCTET STRING around it as well.
    if hwid is not None and hwid.startswith("0440") and len(hwid) == 132:
        hwid = hwid[4:]
    assert (key.hwid.hex() if key.hwid is not None else None) == hwid


def test_report_without_a_certificate_is_unchecked(vectors: Path) -> None:
    stem = STRUCTURE_ONLY
    assert "structure only" in read_expected(vectors, stem)["verdict"]
    result = verify(
        build_item(vectors, stem),
        Trust(now=datetime(2024, 1, 1, tzinfo=UTC), require_revocation=False),
    )
    assert statuses(result) == dict.fromkeys(CHECKS, "unchecked")
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated
    assert result.claims is None


def test_truncated_report_is_malformed(vectors: Path) -> None:
    with pytest.raises(MalformedError, match="793 bytes"):
        SnpVerifier().parse(build_item(vectors, "lit-corrupt"), 0)


@pytest.mark.parametrize("stem", INVALID_KEYS)
def test_altered_keys_are_refused(vectors: Path, stem: str) -> None:
    wanted = read_expected(vectors, stem)
    assert wanted["verdict"] == "INVALID"
    report = wanted["with_report"].removesuffix(".bin")
    leaf = load_der_certificate((vectors / "snp" / f"{stem}.der").read_bytes(), stem)
    assert_extensions(leaf, wanted["verification"]["leaf_extensions"])
    item = build_item(vectors, report, leaf, *load(vectors, "amd-milan-ask-ark.pem"))
    now = leaf.not_valid_before_utc + timedelta(days=30)
    result = verify(item, Trust(now=now, require_revocation=False))
    assert statuses(result) == {
        "snp.report.signature": "fail",
        "snp.chain": "fail",
        "snp.validity": "unchecked",
        "snp.revocation": "unchecked",
        "snp.signing_key": "pass",
        "snp.product": "unchecked",
        "snp.tcb": "fail",
        "snp.chip_id": "fail",
    }
    assert verdict(result.checks) is Verdict.REFUSED
    assert not result.authenticated


def test_turin_key_chains_and_its_extensions_are_read(vectors: Path) -> None:
    wanted = read_expected(vectors, "turin-vcek-virtee")
    (leaf,) = load(vectors, "turin-vcek-virtee.der")
    assert_extensions(leaf, wanted["leaf_extensions"])
    chain = build_chain(
        leaf,
        load(vectors, "amd-turin-ask-ark.pem"),
        roots=pinned_roots(Purpose.SNP),
    )
    assert isinstance(chain, Chain)
    assert chain.root_name == "AMD ARK Turin"
    assert len(chain.certificates) == 3


@pytest.mark.parametrize("name", ISSUER_FILES)
def test_issuers_chain_to_the_pinned_root(vectors: Path, name: str) -> None:
    issuer, root = load(vectors, name)
    chain = build_chain(issuer, [root], roots=pinned_roots(Purpose.SNP))
    assert isinstance(chain, Chain)
    assert chain.certificates == (issuer, root)


@pytest.mark.parametrize("line", ["milan", "genoa"])
def test_revocation_lists_are_the_roots_and_clear_the_issuers(
    vectors: Path, line: str
) -> None:
    name = f"amd-{line}-kds.crl.pem"
    (crl,) = load_crls((vectors / "snp" / name).read_bytes(), name)
    ask, ark = load(vectors, f"amd-{line}-ask-ark.pem")
    asvk, _ = load(vectors, f"amd-{line}-ask-ark-vlek.pem")
    assert is_crl_of(crl, ark, LinkCache())
    assert len(list(crl)) == {"milan": 0, "genoa": 1}[line]
    assert not any(lists_certificate(crl, issuer) for issuer in (ask, asvk, ark))
    until = crl.next_update_utc
    assert until is not None
    assert is_current(crl, until)
    assert not is_current(crl, until + timedelta(seconds=1))
    other = {"milan": "genoa", "genoa": "milan"}[line]
    assert not is_crl_of(crl, load(vectors, f"amd-{other}-ask-ark.pem")[1], LinkCache())


def test_revocation_passes_with_the_recorded_list(vectors: Path) -> None:
    leaf, issuers = REPORTS["milan-v2-coco"]
    item = build_item(vectors, "milan-v2-coco", *load(vectors, leaf))
    crls = load_crls((vectors / "snp" / "amd-milan-kds.crl.pem").read_bytes(), "crl")
    trust = Trust(
        now=datetime(2025, 6, 1, tzinfo=UTC),
        collateral=GivenCollateral(load(vectors, issuers), crls),
    )
    result = verify(item, trust)
    assert statuses(result) == dict.fromkeys(CHECKS, "pass")
    late = replace(trust, now=datetime(2026, 6, 1, tzinfo=UTC))
    assert statuses(verify(item, late))["snp.revocation"] == "unchecked"


def test_host_certificate_document_of_a_container_instance(vectors: Path) -> None:
    """The THIM document that comes with milan-v2-aci has leaf and chain in PEM."""
    path = vectors / "snp" / "milan-v2-aci.host-amd-certificate.json"
    document = json.loads(path.read_text())
    item = build_item(vectors, "milan-v2-aci")
    item["certificates"] = [document["vcekCert"], document["certificateChain"]]
    result = verify(
        item, Trust(now=datetime(2024, 1, 1, tzinfo=UTC), require_revocation=False)
    )
    assert verdict(result.checks) is Verdict.VERIFIED


def test_pins_are_those_of_the_recorded_roots(vectors: Path) -> None:
    anchors = json.loads((vectors / "trust-anchors.json").read_text())["anchors"]
    recorded = {anchor["spki_sha256"] for anchor in anchors if anchor["role"] == "root"}
    assert {root.spki_sha256 for root in PINNED_ROOTS} <= recorded
    by_name = {anchor["name"]: anchor["spki_sha256"] for anchor in anchors}
    for line in ("Milan", "Genoa", "Turin"):
        spki = by_name[f"AMD ARK {line}"]
        assert pinned_roots(Purpose.SNP)[spki] == f"AMD ARK {line}"


def test_every_single_bit_flip_of_a_real_report_is_refused(vectors: Path) -> None:
    """All 9472 bits: the signed region, the signature and its padding."""
    stem = "milan-v3-ms"
    leaf, issuers = REPORTS[stem]
    verifier = SnpVerifier()
    parsed = verifier.parse(
        build_item(vectors, stem, *load(vectors, leaf), *load(vectors, issuers)), 0
    )
    body = parsed.body
    assert isinstance(body, SnpItem)
    trust = Trust(now=datetime(2027, 1, 1, tzinfo=UTC), require_revocation=False)
    assert verdict(verifier.verify(parsed, trust).checks) is Verdict.VERIFIED

    accepted, malformed = [], 0
    for bit in range(len(body.raw) * 8):
        raw = bytearray(body.raw)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            flipped = reparse(parsed, body, bytes(raw))
        except MalformedError:
            malformed += 1
            continue
        result = verifier.verify(flipped, trust)
        signature = next(c for c in result.checks if c.id == "snp.report.signature")
        if signature.status is not Status.FAIL or result.authenticated:
            accepted.append(bit)
    assert accepted == []
    # Reserved bytes are refused by the parser, without any cryptography.
    assert malformed > 3000


def reparse(parsed: ParsedItem, body: SnpItem, raw: bytes) -> ParsedItem:
    """Parse a changed report beside certificates that are parsed already."""
    return replace(parsed, body=replace(body, raw=raw, report=parse_report(raw)))


def test_the_endorsement_of_a_measurement(vectors: Path) -> None:
    """No family reads it, since a time in its header has a tag; what it says is so."""
    wanted = read_expected(vectors, ELSEWHERE)
    message = cbor2.loads((vectors / "snp" / f"{ELSEWHERE}.cose").read_bytes())
    protected, unprotected, payload, signature = message.value
    header = cbor2.loads(protected)
    chain = [load_der_certificate(one, "x5chain") for one in header[33]]
    signed = Sign1(
        protected=protected,
        algorithm=CoseAlgorithm(header[1]),
        header=header,
        unprotected=unprotected,
        payload=payload,
        signature=signature,
    )
    assert is_sign1_signed(signed, chain[0].public_key())
    assert not is_sign1_signed(
        replace(signed, payload=payload + b" "), chain[0].public_key()
    )
    assert all(is_issued_by(*link, LinkCache()) for link in pairwise(chain))
    assert (wanted["signature"], wanted["chain_links_valid"]) == ("valid", True)
    assert header[1] == wanted["alg"]
    assert header[3] == wanted["content_type"]
    assert (header["iss"], header["feed"]) == (wanted["iss"], wanted["feed"])
    assert json.loads(payload) == wanted["payload"]
    assert [
        {
            "subject": one.subject.rfc4514_string(),
            "issuer": one.issuer.rfc4514_string(),
            "not_before": format_time(one.not_valid_before_utc),
            "not_after": format_time(one.not_valid_after_utc),
            "spki_sha256": spki_sha256(one),
            "cert_sha256": one.fingerprint(hashes.SHA256()).hex(),
        }
        for one in chain
    ] == wanted["chain"]
    report = parse_report((vectors / "snp" / "milan-v2-aci.bin").read_bytes())
    measured = wanted["payload"]["x-ms-sevsnpvm-launchmeasurement"]
    assert (report.measurement.hex() == measured) is wanted[
        "payload_measurement_equals_report"
    ]


def test_the_security_policy_of_a_container_group_is_in_host_data(
    vectors: Path,
) -> None:
    text = (vectors / "snp" / "milan-v2-aci.security-policy.base64").read_text()
    report = parse_report((vectors / "snp" / "milan-v2-aci.bin").read_bytes())
    policy = base64.b64decode(text, validate=True)
    assert report.host_data == hashlib.sha256(policy).digest()
