"""Attestations of go-tpm-tools become items, and every quote in them counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.cli.evidence_files import GCE, guess_kind
from kbs.cli.given_files import GivenFiles
from kbs.core.checks import Status, Verdict, verdict
from kbs.core.errors import MalformedError
from kbs.evidence.gce.attestation import (
    check_others,
    is_attestation,
    parse_attestation,
)
from kbs.evidence.gce.wire import Schema, read_message
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.admin_bench import run
from tests.fakes.amd import FakeAmd
from tests.fakes.eventlog import typical_log
from tests.fakes.gce import (
    attestation,
    number,
    octets,
    quote,
    snp_attestation,
    td_quote,
    varint,
)
from tests.fakes.intel import NOW as INTEL_NOW
from tests.fakes.intel import FakeIntel
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import NOW

OTHER_KEY = rsa.generate_private_key(65537, 2048)
TPM = FakeTpm("rsassa", "sha256")
AMD = FakeAmd()
INTEL = FakeIntel()
GOOD = attestation(TPM, b"nonce")


def named() -> Trust:
    return Trust(
        now=NOW, override_ak=TPM.ak_public, require_revocation=False, recorded=True
    )


def test_the_quote_over_sha256_becomes_the_item() -> None:
    found = parse_attestation(GOOD)
    assert found.tee is None
    (item,) = found.items
    pcrs: Any = item["pcrs"]
    assert list(pcrs) == ["sha256"]
    verifier = VtpmVerifier()
    parsed = verifier.parse(item, 0)
    assert parsed.bound == b"nonce"
    assert verdict(verifier.verify(parsed, named()).checks) is Verdict.VERIFIED


def test_the_quotes_over_other_banks_are_held_to_the_same() -> None:
    checks = check_others(parse_attestation(GOOD), 1)
    assert [(one.id, one.status.value, one.item) for one in checks] == 2 * [
        ("vtpm.quote.signature", "pass", 1),
        ("vtpm.quote.pcr_selection", "pass", 1),
        ("vtpm.quote.pcr_digest", "pass", 1),
        ("vtpm.eventlog.replay", "skipped", 1),
    ]
    assert {one.detail.partition(":")[0] for one in checks} == {"sha1", "sha384"}


def test_a_quote_by_another_key_is_found() -> None:
    other = FakeTpm("rsassa", "sha256")
    other.key = OTHER_KEY
    whole = attestation(TPM, b"nonce", banks=("sha256",))
    forged = octets(2, quote(other, b"nonce", "sha384"))
    checks = check_others(parse_attestation(whole + forged), 0)
    failed = [one.id for one in checks if one.status is Status.FAIL]
    assert failed == ["vtpm.quote.signature"]


def test_sha384_stands_in_for_sha256() -> None:
    found = parse_attestation(attestation(TPM, b"", banks=("sha1", "sha384")))
    pcrs: Any = found.quote["pcrs"]
    assert list(pcrs) == ["sha384"]
    assert len(found.others) == 1


def test_the_event_log_goes_with_every_quote() -> None:
    tpm = FakeTpm("rsassa", "sha256")
    log = typical_log(("sha256", "sha384"))
    log.boot(tpm)
    data = attestation(tpm, b"", banks=("sha256", "sha384"), event_log=log.to_bytes())
    found = parse_attestation(data)
    assert "event_log" in found.quote
    assert {one.status for one in check_others(found, 0)} == {Status.PASS}


@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_report_of_snp_is_put_together_again(version: int) -> None:
    inside = snp_attestation(AMD, b"nonce", version=version)
    found = parse_attestation(GOOD + octets(8, inside))
    assert found.tee is not None
    verifier = SnpVerifier()
    parsed = verifier.parse(found.tee, 0)
    trust = Trust(now=AMD.now, pinned_roots=AMD.pins(), require_revocation=False)
    result = verifier.verify(parsed, trust)
    assert verdict(result.checks) is Verdict.VERIFIED
    assert [item["kind"] for item in found.items] == ["snp", "vtpm"]


def test_a_quote_of_tdx_is_put_together_again() -> None:
    found = parse_attestation(
        GOOD + octets(9, td_quote(INTEL, b"nonce", padding=b"\0"))
    )
    assert found.tee is not None
    item = {**found.tee, "collateral": INTEL.collateral_json()}
    verifier = TdxVerifier()
    trust = Trust(now=INTEL_NOW, pinned_roots=INTEL.pins())
    result = verifier.verify(verifier.parse(item, 0), trust)
    assert verdict(result.checks) is Verdict.VERIFIED
    assert [one["kind"] for one in found.items] == ["tdx", "vtpm"]


# --- what has another shape -----------------------------------------------------------


def parts(**changes: bytes) -> bytes:
    """An attestation with one quote, whose parts may be others."""
    message, signature = TPM.quote(b"", range(24), ("sha256",))
    pair = number(1, 1) + octets(2, bytes(32))
    given = {
        "area": octets(1, TPM.ak_public[2:]),
        "hash": number(1, 11),
        "pair": octets(2, pair),
        "message": octets(1, message),
        "signature": octets(2, signature),
        "more": b"",
        **changes,
    }
    pcrs = octets(3, given["hash"] + given["pair"])
    inner = given["message"] + given["signature"] + pcrs
    return given["area"] + octets(2, inner) + given["more"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "attestation quotes: got none"),
        (b"\xff", "varint"),
        (GOOD[:-1], "field 2"),
        (GOOD + octets(2, quote(TPM, b"", "sha256")), "4 over 3 banks"),
        (attestation(TPM, b"", banks=["sha1"]), "got sha1"),
        (attestation(TPM, b"", banks=["sha256"]) * 2, "ak_pub: got it twice"),
        (GOOD + octets(8, b"x") + octets(9, b"x"), "one of SNP and one of TDX"),
        (GOOD + octets(8, octets(5, b"x")), "sevsnp.Attestation: got field 5"),
        (GOOD + octets(9, number(9, 1)), "tdx.QuoteV4: got field 9"),
        (GOOD + b"\x00", "field: got 0"),
        (GOOD + varint(10 << 3 | 1) + bytes(8), "wire type 1"),
        (GOOD + b"\x80\x00", "a longer form"),
        (GOOD + b"\xff" * 11, "64 bits"),
        (parts(hash=number(1, 5)), "hash: got 0x5"),
        (parts(hash=number(1, 70000)), "hash: got 70000"),
        (parts(pair=octets(2, number(1, 24) + octets(2, bytes(32)))), "key: got 24"),
        (parts(pair=octets(2, octets(2, bytes(20)))), "value: got 20 bytes"),
        (parts(pair=2 * octets(2, octets(2, bytes(32)))), "0 twice"),
        (parts(pair=octets(3, b"x")), "pcrs: got field 3"),
    ],
)
def test_another_message_is_malformed(data: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_attestation(data)


def test_more_fields_than_any_message_has_are_malformed() -> None:
    schema = Schema(octets={1: "x"}, repeated=frozenset({"x"}))
    with pytest.raises(MalformedError, match="more fields"):
        read_message(octets(1, b"x") * 5000, schema, "message")


def test_newer_fields_are_no_fault_and_say_nothing() -> None:
    found = parse_attestation(parts(more=octets(12, b"gpu") + number(13, 1)))
    assert [item["kind"] for item in found.items] == ["vtpm"]


def test_too_large_a_file_is_malformed() -> None:
    with pytest.raises(MalformedError, match="at most"):
        parse_attestation(bytes(1024 * 1024 + 1))


@pytest.mark.parametrize("field", [11, 19])
def test_a_report_with_a_field_of_another_size_is_none(field: int) -> None:
    inside = snp_attestation(AMD, b"nonce")
    whole = varint(field << 3 | 2) + varint(64)
    assert whole in inside
    short = inside.replace(whole, varint(field << 3 | 2) + varint(63), 1)
    with pytest.raises(MalformedError):
        parse_attestation(GOOD + octets(8, short))


def test_an_impossible_cpuid_is_malformed() -> None:
    inside = snp_attestation(AMD, b"nonce", cpuid=b"\x19\x01\x01")
    eax = number(29, 0x00A00F11)
    assert eax in inside
    for wrong in (0xF0A00F11, 0x0FF00F11):
        changed = inside.replace(eax, number(29, wrong))
        size = len(number(29, wrong)) - len(eax)
        assert size in (0, 1)
        with pytest.raises(MalformedError):
            parse_attestation(GOOD + octets(8, changed))


def test_a_td_without_its_four_rtmrs_is_malformed() -> None:
    inside = td_quote(INTEL, b"nonce")
    rtmr = octets(11, bytes(48))
    assert inside.count(rtmr) == 4
    changed = inside.replace(rtmr, octets(11, bytes(42)) + octets(11, bytes(4)), 1)
    with pytest.raises(MalformedError, match="rtmrs"):
        parse_attestation(GOOD + octets(9, changed))


def test_a_file_is_known_by_what_is_in_it() -> None:
    assert is_attestation(GOOD)
    assert guess_kind(GOOD) == GCE
    assert not is_attestation(b"")
    assert not is_attestation(octets(1, b"x") + octets(2, b"x"))
    assert not is_attestation(octets(1, TPM.ak_public[2:]))


# --- the command line -----------------------------------------------------------------


def test_the_command_verifies_every_quote(tmp_path: Path) -> None:
    path, ak = tmp_path / "attestation.pb", tmp_path / "ak"
    path.write_bytes(GOOD)
    ak.write_bytes(TPM.ak_public)
    plain = ["evidence", "verify", str(path), "--ak", str(ak), "--json"]
    ran = run(*plain, "--nonce", "bm9uY2U")
    assert ran.json["verdict"] == "verified"
    assert ran.code == 0
    signatures = [c for c in ran.json["checks"] if c["id"] == "vtpm.quote.signature"]
    assert [one["status"] for one in signatures] == ["pass"] * 3
    assert run(*plain, "--nonce", "AAAA").code == 1
    # One bit of the quote over SHA-384, which is no item.
    message, _ = TPM.quote(b"nonce", range(24), ("sha384",))
    at = GOOD.index(message) + 60
    path.write_bytes(GOOD[:at] + bytes([GOOD[at] ^ 1]) + GOOD[at + 1 :])
    ran = run(*plain)
    assert ran.json["verdict"] == "refused"
    assert ran.json["claims"] == {}
    inspected = run("evidence", "inspect", str(path), "--json")
    assert inspected.json["items"][0]["kind"] == "vtpm"


def test_what_is_named_so_and_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xff")
    ran = run("evidence", "verify", str(path), "--kind", "gce", "--json")
    assert (ran.code, ran.json["verdict"]) == (2, "refused")
    assert ran.json["checks"][0]["id"] == "gce.parse"
    # A quote over another bank that is no quote at all.
    bad = octets(1, b"x") + octets(2, b"x") + octets(3, number(1, 12))
    path.write_bytes(attestation(TPM, b"", banks=["sha256"]) + octets(2, bad))
    ran = run("evidence", "verify", str(path), "--json")
    assert (ran.code, ran.json["verdict"]) == (2, "refused")


def test_options_of_quotes_do_not_go_with_an_attestation(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="--pcrs"):
        GivenFiles(pcrs=tmp_path).refuse_for(GCE)
    assert GCE not in VERIFIERS
