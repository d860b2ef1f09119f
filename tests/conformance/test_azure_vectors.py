"""Every recorded file of Azure gives the fields, checks and verdict known of it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import HclReport, ReportType, parse_hcl_report
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.forms import item_of, tee_of
from kbs.evidence.model import GivenCollateral, ItemResult, Trust
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.pki.certificates import load_certificates

pytestmark = pytest.mark.vectors

AT = "2026-01-01T00:00:00Z"
VERIFIER = AzureVerifier(SnpVerifier(), TdxVerifier())
SNP = ("snp-evidence-v0", "snp-evidence-v1", "snp-evidence-v2", "snp-milan-v3")
TDX = ("tdx-evidence-v0", "tdx-evidence-v1")
REPORTS = ("cvm-tooling-hcl-report-snp", "cvm-tooling-hcl-report-tdx")
EVERY_BIT = "KBS_EVERY_BIT" in os.environ

# Fixtures of a test of another project that go with nothing else here: a quote in a
# form of its own, claims and a key. The AK certificate and its CAs are read by the
# vtpm family's tests.
COMPANIONS = {
    "cvm-tooling-akpub.pem",
    "cvm-tooling-certs.pem",
    "cvm-tooling-quote.bin",
    "cvm-tooling-var-data.bin",
    "azure-vtpm-intermediate-01.pem",
    "azure-vtpm-intermediate-03.pem",
    "azure-vtpm-root-2023.pem",
    "openpcc-ak-cert-01.pem",
}


@cache
def evidence_of(folder: Path, stem: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (folder / "vtpm-azure" / f"{stem}.json").read_text()
    )
    inner: dict[str, Any] = document.get("evidence", document)
    return inner


def expected_of(folder: Path, stem: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (folder / "vtpm-azure" / f"{stem}.expected.json").read_text()
    )
    return document


def raw_of(folder: Path, name: str) -> bytes:
    return (folder / "vtpm-azure" / name).read_bytes()


def trust(folder: Path) -> Trust:
    pem = (folder / "snp" / "amd-milan-ask-ark.pem").read_bytes()
    return Trust(
        now=parse_time(AT),
        collateral=GivenCollateral(load_certificates(pem, "AMD")),
        require_revocation=False,
    )


def item_for(folder: Path, stem: str) -> dict[str, object]:
    evidence = evidence_of(folder, stem)
    tee = tee_of(evidence)
    assert tee is not None
    return item_of(tee, evidence)


def verify(item: Mapping[str, object], how: Trust) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 0), how)


def statuses(result: ItemResult) -> dict[str, str]:
    return {check.id: check.status.value for check in result.checks}


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    names = {path.name for path in (vectors / "vtpm-azure").iterdir()}
    stems = {*SNP, *TDX, *REPORTS}
    assert {name for name in names if name.split(".")[0] not in stems} == COMPANIONS


def check_hcl(report: HclReport, expected: dict[str, Any]) -> None:
    assert report.version == expected["version"]
    assert report.type is ReportType[expected["report_type"].upper()]
    assert len(report.claims_json) == expected["var_data_size"]
    assert json.loads(report.claims_json) == expected["runtime_data"]
    assert report.report_data[:32].hex() == expected["sha256_runtime_data"]
    assert expected["report_data_binds_runtime_data"] is True
    assert report.report_data.hex() == expected["hw_report_data"]
    user_data = expected["runtime_data"].get("user-data")
    assert report.claims.user_data == (user_data and user_data.lower())
    key = report.claims.ak.public_numbers()
    (jwk,) = (
        one for one in expected["runtime_data"]["keys"] if one["kid"] == "HCLAkPub"
    )
    assert key.n.bit_length() == 2048
    assert jwk["e"] == "AQAB"


@pytest.mark.parametrize("stem", [*SNP, *TDX])
def test_the_hcl_report_is_as_others_read_it(vectors: Path, stem: str) -> None:
    raw = raw_of(vectors, f"{stem}.hcl.bin")
    assert item_for(vectors, stem)["hcl_report"] == b64(raw)
    check_hcl(parse_hcl_report(raw), expected_of(vectors, stem)["hcl"])


@pytest.mark.parametrize("stem", [*SNP, *TDX])
def test_the_quote_is_as_others_read_it(vectors: Path, stem: str) -> None:
    expected = expected_of(vectors, stem)
    shown = inspected(vectors, stem)["vtpm"]
    attest = dict(expected["tpm_quote"])
    attest["clock"] = f"{attest['clock']:016x}"
    attest["safe"] = bool(attest["safe"])
    assert shown["attest"] == attest
    assert shown["pcrs"] == {"sha256": expected["pcrs_sha256"]}
    assert expected["tpm_checks"]["pcr_digest_matches"] is True


@pytest.mark.parametrize("stem", SNP)
def test_the_snp_report_is_as_others_read_it(vectors: Path, stem: str) -> None:
    expected = expected_of(vectors, stem)
    wanted, shown = dict(expected["snp_report"]), inspected(vectors, stem)["snp"]
    assert shown["signature"]["algorithm"] == wanted.pop("signature_algo")
    for name in ("policy", "platform_info"):
        value = shown[name]["raw"] if name == "policy" else shown[name]
        assert int(value, 16) == int(wanted.pop(name), 16)
    assert wanted.pop("policy_bits").items() <= shown["policy"].items()
    parts = wanted.pop("reported_tcb_parts")
    assert parts.items() <= shown["reported_tcb"].items()
    for which in ("reported", "current", "committed", "launch"):
        assert shown[f"{which}_tcb"]["raw"] == wanted.pop(f"{which}_tcb")
    for which in ("current", "committed"):
        build, minor, major = wanted.pop(f"{which}_build_minor_major")
        assert shown[f"{which}_build"] == f"{major}.{minor}.{build}"
    assert {name: shown[name] for name in wanted} == wanted
    key, leaf = shown["endorsement_key"], expected["snp_verification"]
    assert key["spki_sha256"] == leaf["leaf"]["spki_sha256"]
    assert key["product_name"] == leaf["leaf_extensions"]["product_name"]


@pytest.mark.parametrize("stem", TDX)
def test_the_td_quote_is_as_others_read_it(vectors: Path, stem: str) -> None:
    expected = expected_of(vectors, stem)
    wanted, shown = dict(expected["td_quote"]), inspected(vectors, stem)["tdx"]
    assert shown["padding_size"] == wanted.pop("trailing_bytes")
    # Bit 0 of the attributes is debugging (Intel 348552, TD attributes).
    debug = bool(int(shown["td_attributes"][:2], 16) & 1)
    assert debug is wanted.pop("td_debug")
    for name in ("att_key_type", "qe_vendor_id", "auth_data_size"):
        wanted.pop(name)
    assert {name: shown[name] for name in wanted} == wanted
    facts, pck = expected["td_quote_verification"], shown["pck"]
    assert pck["spki_sha256"] == facts["pck"]["spki_sha256"]
    assert shown["qe_report"]["mr_signer"] == facts["qe_mr_signer"]
    assert shown["qe_report"]["isv_svn"] == facts["qe_isv_svn"]
    extension = facts["pck_extension"]
    for name, other in (
        ("ppid", "ppid"),
        ("fmspc", "fmspc"),
        ("pce_id", "pceid"),
        ("pce_svn", "pcesvn"),
        ("cpu_svn", "cpusvn"),
    ):
        assert pck[name] == extension[other]


def inspected(folder: Path, stem: str) -> dict[str, Any]:
    return dict(VERIFIER.inspect(VERIFIER.parse(item_for(folder, stem), 0)))


@pytest.mark.parametrize("stem", REPORTS)
def test_a_lone_hcl_report_is_read_and_unchecked(vectors: Path, stem: str) -> None:
    raw = raw_of(vectors, f"{stem}.bin")
    check_hcl(parse_hcl_report(raw), expected_of(vectors, stem)["hcl"])
    result = verify({"kind": "azure", "hcl_report": b64(raw)}, trust(vectors))
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated


def test_certificates_of_another_chip_are_refused(vectors: Path) -> None:
    """The fixture's certificates are not those of its report."""
    item = {
        "kind": "azure",
        "hcl_report": b64(raw_of(vectors, "cvm-tooling-hcl-report-snp.bin")),
        "certificates": [raw_of(vectors, "cvm-tooling-certs.pem").decode()],
    }
    found = statuses(verify(item, trust(vectors)))
    assert found["snp.report.signature"] == "fail"
    assert found["snp.chain"] == "pass"
    assert found["azure.runtime_data"] == "pass"


@pytest.mark.parametrize("stem", SNP)
def test_evidence_of_snp_is_verified(vectors: Path, stem: str) -> None:
    expected = expected_of(vectors, stem)
    assert expected["verdict"] == "valid"
    parsed = VERIFIER.parse(item_for(vectors, stem), 0)
    quote = expected["tpm_quote"]
    assert parsed.bound.hex() == quote["extra_data"]
    result = VERIFIER.verify(parsed, trust(vectors))
    assert verdict(result.checks) is Verdict.VERIFIED
    assert set(statuses(result).values()) == {"pass", "skipped"}
    assert result.authenticated
    assert result.claims is not None
    values = result.claims.values
    for index, value in expected["pcrs_sha256"].items():
        assert values[f"azure_snp.pcr.sha256.{index}"] == value
    for name in ("measurement", "report_data", "host_data", "chip_id", "version"):
        assert values[f"azure_snp.{name}"] == expected["snp_report"][name]
    parts = expected["snp_report"]["reported_tcb_parts"]
    assert values["azure_snp.reported_tcb"] == parts
    assert values["azure_snp.product"] == expected["product"]
    for name in ("reset_count", "restart_count", "extra_data", "firmware_version"):
        assert values[f"azure_snp.{name}"] == quote[name]


@pytest.mark.parametrize("stem", SNP)
def test_evidence_of_snp_without_amds_issuers_is_unchecked(
    vectors: Path, stem: str
) -> None:
    plain = Trust(now=parse_time(AT), require_revocation=False)
    result = verify(item_for(vectors, stem), plain)
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert not result.authenticated


@pytest.mark.parametrize("stem", TDX)
def test_evidence_of_tdx_holds_as_far_as_it_can_be_checked(
    vectors: Path, stem: str
) -> None:
    expected = expected_of(vectors, stem)
    item = item_for(vectors, stem)
    assert item["td_quote"] == b64(raw_of(vectors, f"{stem}.td-quote.bin"))
    parsed = VERIFIER.parse(item, 0)
    assert parsed.bound.hex() == expected["tpm_quote"]["extra_data"]
    result = VERIFIER.verify(parsed, trust(vectors))
    assert expected["verdict"] == "valid"
    assert expected["td_quote_report_data_binds_runtime_data"] is True
    assert verdict(result.checks) is Verdict.UNCHECKED
    # TCB info and QE identity of that platform were not recorded.
    open_checks = {"tdx.qe_identity", "tdx.tcb_info", "tdx.tcb"}
    found = statuses(result)
    assert {name for name, status in found.items() if status == "unchecked"} == (
        open_checks
    )
    for name in (
        "tdx.quote.signature",
        "tdx.chain",
        "azure.runtime_data",
        "vtpm.quote.signature",
        "vtpm.quote.pcr_digest",
    ):
        assert found[name] == "pass"
    assert result.claims is None


def test_every_changed_byte_of_an_hcl_report_is_refused(vectors: Path) -> None:
    """Header, report, its own padding and claims; and the zeros after them.

    Of the report every fourth byte: the snp family's own test goes through all of it.
    """
    raw = raw_of(vectors, "snp-evidence-v1.hcl.bin")
    item = item_for(vectors, "snp-evidence-v1")
    how = trust(vectors)
    accepted, failed = [], 0
    report = range(32 * 8, (32 + 1184) * 8)
    for bit in bits_of(raw, "hcl"):
        if not EVERY_BIT and bit in report and bit // 8 % 4:
            continue
        try:
            result = verify({**item, "hcl_report": b64(flipped(raw, bit))}, how)
        except MalformedError:
            continue
        wrong = {one.id for one in result.checks if one.status is Status.FAIL}
        failed += 1
        if result.authenticated or not wrong & {
            "snp.report.signature",
            "azure.runtime_data",
        }:
            accepted.append(bit)
    assert accepted == []
    assert failed > 300


def test_every_changed_byte_of_the_quote_is_refused(vectors: Path) -> None:
    evidence = evidence_of(vectors, "snp-evidence-v1")
    raw = raw_of(vectors, "snp-evidence-v1.quote-msg.bin")
    how = trust(vectors)
    for bit in bits_of(raw, "quote"):
        quote = {**evidence["tpm_quote"], "message": flipped(raw, bit).hex()}
        try:
            item = item_of("az-snp-vtpm", {**evidence, "tpm_quote": quote})
            result = verify(item, how)
        except MalformedError:
            continue
        assert statuses(result)["vtpm.quote.signature"] == "fail"
        assert not result.authenticated


def test_every_changed_byte_of_signature_and_pcrs_is_refused(vectors: Path) -> None:
    evidence = evidence_of(vectors, "snp-evidence-v1")
    quote, how = evidence["tpm_quote"], trust(vectors)
    signature = bytes.fromhex(quote["signature"])
    for bit in bits_of(signature, "signature")[:: 1 if EVERY_BIT else 4]:
        changed = {**quote, "signature": flipped(signature, bit).hex()}
        item = item_of("az-snp-vtpm", {**evidence, "tpm_quote": changed})
        assert statuses(verify(item, how))["vtpm.quote.signature"] == "fail"
    for index, value in enumerate(quote["pcrs"]):
        bad = flipped(bytes.fromhex(value), 8 * index).hex()
        pcrs = [*quote["pcrs"][:index], bad, *quote["pcrs"][index + 1 :]]
        item = item_of(
            "az-snp-vtpm", {**evidence, "tpm_quote": {**quote, "pcrs": pcrs}}
        )
        assert statuses(verify(item, how))["vtpm.quote.pcr_digest"] == "fail"


def test_zeros_at_the_end_may_be_more_or_fewer(vectors: Path) -> None:
    """The only bytes of the evidence that nothing covers."""
    raw = raw_of(vectors, "snp-evidence-v1.hcl.bin")
    item = item_for(vectors, "snp-evidence-v1")
    for changed in (raw + bytes(9), raw.rstrip(b"\0")):
        result = verify({**item, "hcl_report": b64(changed)}, trust(vectors))
        assert verdict(result.checks) is Verdict.VERIFIED


def bits_of(raw: bytes, seed: str) -> list[int]:
    """Return every bit, or one of each byte."""
    if EVERY_BIT:
        return list(range(8 * len(raw)))
    chosen = random.Random(seed)  # noqa: S311 - which bits to try, no secret
    return [8 * index + chosen.randrange(8) for index in range(len(raw))]


def flipped(raw: bytes, bit: int) -> bytes:
    """Return bytes with one bit changed."""
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
