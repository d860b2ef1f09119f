"""Every recorded NVIDIA file gives the fields, checks and verdict of its companion.

RIMs are signed for two years, so that most recorded ones count at their time only; and
of most reports the driver's RIM is in no public repository: such a report *could not be
checked*, with everything else of it verified and the RIM named.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kbs.core.checks import CheckLog, Status, Verdict, verdict
from kbs.core.clock import parse_time
from kbs.core.encode import b64
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.model import GivenCollateral, ItemResult, StoredRim, Trust
from kbs.evidence.nvgpu.abi import SIGNATURE_BYTES, parse_report, serialize_report
from kbs.evidence.nvgpu.device import parse_fwids
from kbs.evidence.nvgpu.files import items_of_file
from kbs.evidence.nvgpu.item import DeviceItem
from kbs.evidence.nvgpu.manifests import Sources, check_rim
from kbs.evidence.nvgpu.measurements import compare
from kbs.evidence.nvgpu.opaque import name_of
from kbs.evidence.nvgpu.rim import Rim, verify_rim
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import load_certificates, spki_sha256
from kbs.pki.roots import Purpose, pinned_roots

pytestmark = pytest.mark.vectors

# Inside the leaf of every chain, and of those RIMs that have none of their own below.
AT = datetime(2024, 6, 1, tzinfo=UTC)

REPORTS = (
    "h100-coco",
    "h100-gonvtrust",
    "h100-nvtrust-nogpu",
    "h100-sdk",
    "h100-sdk-badsig",
    "h100-sdk-expired",
    "h100-sdk2",
)
LISTS = ("h100-590", "h100-cert-hold", "ls10-switch")
INVALID_CHAINS = (
    "coco-chain-case2.pem",
    "coco-chain-case3.pem",
    "coco-chain-case4.pem",
    "gonvtrust-invalid-chain.pem",
)
# File and time inside its signer's validity; the README calls three of them INVALID.
RIMS = {
    "driver-rim-gh100-550.144.03.xml": datetime(2025, 6, 1, tzinfo=UTC),
    "h100-nvtrust-nogpu.driver-rim.swidtag": AT,
    "h100-nvtrust-nogpu.vbios-rim.swidtag": AT,
    "switch-bios-rim-ls10.xml": datetime(2026, 11, 1, tzinfo=UTC),
    "vbios-rim-1010_0200_882_96005E0001.swidtag": AT,
    "vbios-rim-1010_0200_882_960074001A.swidtag": AT,
    "vbios-rim-1010_0205_862_96005E0004.swidtag": AT,
    "vbios-rim-1010_0205_862_9600740020.swidtag": AT,
    "vbios-rim-g520_0200_885_9600740001.swidtag": AT,
}
INVALID_RIMS = {
    "driver-rim-535-mismatch.xml": "nvgpu.rim.signature",
    "driver-rim-bad-signature.xml": "nvgpu.rim.signature",
    "driver-rim-bad-chain.xml": "nvgpu.rim.chain",
}
ROOTS = {
    "nvidia-device-root.pem": Purpose.NVGPU,
    "nvidia-rim-root.pem": Purpose.NVIDIA_RIM,
}
WRONG_ROOT = "wrong-rim-root.crt"
PARSED_ELSEWHERE = "h100-sdk2.spdm-parsed.json"

# With both RIMs these two match wholly.
COMPLETE = {
    "h100-gonvtrust": (
        "h100-nvtrust-nogpu.driver-rim.swidtag",
        "h100-nvtrust-nogpu.vbios-rim.swidtag",
    ),
    "ls10-switch": ("switch-bios-rim-ls10.xml",),
}
VERIFIER = NvGpuVerifier()
ALWAYS = {
    "nvgpu.report.signature",
    "nvgpu.chain",
    "nvgpu.validity",
    "nvgpu.revocation",
    "nvgpu.fwid",
    "nvgpu.nonce",
    "nvgpu.arch",
    "nvgpu.vbios_rim.id",
    "nvgpu.measurements",
}


def expected(vectors: Path, stem: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (vectors / "nvidia" / f"{stem}.expected.json").read_text()
    )
    return {**document, **document.get("first", {})}


def read(vectors: Path, name: str) -> bytes:
    return (vectors / "nvidia" / name).read_bytes()


def item_of(vectors: Path, stem: str, chain: str | None = None) -> dict[str, object]:
    """The item of a recorded report; `chain` takes the place of its own."""
    if stem in LISTS:
        (item,) = items_of_file(read(vectors, f"{stem}.json"))
        return item
    text = read(vectors, chain or f"{stem}.chain.pem").decode()
    raw = read(vectors, f"{stem}.bin")
    return {"kind": "nvgpu", "report": b64(raw), "certificates": text}


def body_of(item: dict[str, object]) -> DeviceItem:
    body = VERIFIER.parse(item, 0).body
    assert isinstance(body, DeviceItem)
    return body


def verify(
    item: dict[str, object], *rims: bytes, at: datetime = AT, **trust: Any
) -> ItemResult:
    collateral = GivenCollateral(given_rims=tuple(StoredRim(one) for one in rims))
    given = {"require_revocation": False, "collateral": collateral, **trust}
    return VERIFIER.verify(VERIFIER.parse(item, 0), Trust(now=at, **given))


def statuses(result: ItemResult) -> dict[str, str]:
    return {check.id: check.status.value for check in result.checks}


def test_every_file_is_in_one_of_the_tables(vectors: Path) -> None:
    known = {f"{stem}.bin" for stem in REPORTS}
    known |= {f"{stem}.chain.pem" for stem in REPORTS}
    known |= {f"{stem}.json" for stem in LISTS}
    known |= {f"{stem}.expected.json" for stem in (*REPORTS, *LISTS)}
    known |= {*RIMS, *INVALID_RIMS, *INVALID_CHAINS, *ROOTS}
    known |= {f"{name}.expected.json" for name in (*RIMS, *INVALID_RIMS)}
    known |= {WRONG_ROOT, PARSED_ELSEWHERE}
    assert {path.name for path in (vectors / "nvidia").iterdir()} == known


# --- reports ------------------------------------------------------------------------


@pytest.mark.parametrize("stem", [*REPORTS, *LISTS])
def test_fields_are_as_other_implementations_read_them(
    vectors: Path, stem: str
) -> None:
    wanted = expected(vectors, stem)["parsed"]
    body = body_of(item_of(vectors, stem))
    report = body.report
    assert serialize_report(report) == body.raw
    request, response = wanted["request"], wanted["response"]
    assert report.nonce.hex() == request["nonce"]
    assert report.request_params == (request["param1"], request["param2"])
    assert report.slot_id == request["slot_id"]
    assert report.response_params == (response["param1"], response["param2"])
    assert len(report.blocks) == response["number_of_blocks"]
    assert report.responder_nonce.hex() == response["responder_nonce"]
    assert len(report.trailing) == response["trailing_bytes"]
    measured = {str(one.index): one.value.hex() for one in report.blocks}
    assert measured == wanted["measurements"]
    opaque = {name_of(kind): value for kind, value in report.opaque.fields}
    assert set(opaque) == set(wanted["opaque"])
    for name, text in wanted["opaque"].items():
        value = opaque[name]
        plain = value.rstrip(b"\0").decode("latin-1")
        assert text in {plain, value.hex()} or value.hex().startswith(
            text.partition(".")[0]
        )
    if stem == "ls10-switch":
        # The companion reads the number that a GPU has into the text of a switch.
        assert report.opaque.vbios_version == "96.10.55.00.01"
    else:
        assert report.opaque.vbios_version == wanted["vbios_version"]


def test_fields_are_as_nvidia_itself_reads_them(vectors: Path) -> None:
    wanted = json.loads(read(vectors, PARSED_ELSEWHERE))
    report = parse_report(read(vectors, "h100-sdk2.bin"))
    assert f"0x{report.responder_nonce.hex()}" == wanted["Nonce"]
    assert f"0x{report.signature.hex()}" == wanted["Signature"]
    blocks = wanted["MeasurementRecord"]["MeasurementBlocks"]
    assert {
        str(one.index): (one.type, f"0x{one.value.hex()}") for one in report.blocks
    } == {
        index: (
            one["DMTFSpecMeasurementValueType"],
            one["DMTFSpecMeasurementValue"],
        )
        for index, one in blocks.items()
    }


@pytest.mark.parametrize("stem", [*REPORTS, *LISTS])
def test_signature_chain_and_firmware_are_as_others_found_them(
    vectors: Path, stem: str
) -> None:
    wanted = expected(vectors, stem)
    facts = wanted["verification"]
    item = item_of(vectors, stem)
    result = verify(item)
    found = statuses(result)
    assert set(found) >= ALWAYS
    signed = facts["report_signature"] == "valid"
    assert found["nvgpu.report.signature"] == ("pass" if signed else "fail")
    assert found["nvgpu.chain"] == ("pass" if facts["chain_links_valid"] else "fail")
    matches = {None: "skipped", True: "pass", False: "fail"}
    assert found["nvgpu.fwid"] == matches[facts.get("fwid_match")]
    assert found["nvgpu.nonce"] == ("pass" if stem in LISTS else "skipped")
    leaf = body_of(item).leaf
    assert leaf is not None
    assert spki_sha256(leaf) == facts["leaf"]["spki_sha256"]
    assert facts["leaf_fwid_tail"] in {one.hex() for one in parse_fwids(leaf)}
    assert result.authenticated is signed
    # Valid but for what is in no public repository; or refused.
    outcome = Verdict.REFUSED if wanted["verdict"] == "INVALID" else Verdict.UNCHECKED
    assert verdict(result.checks) is outcome
    if outcome is Verdict.UNCHECKED:
        names = {name for name, status in found.items() if status == "unchecked"}
        assert {name.rpartition(".")[2] for name in names} <= {"id", "measurements"}


@pytest.mark.parametrize("stem", COMPLETE)
def test_a_device_that_matches_its_rims_is_verified(vectors: Path, stem: str) -> None:
    rims = [read(vectors, name) for name in COMPLETE[stem]]
    at = RIMS[COMPLETE[stem][-1]]
    result = verify(item_of(vectors, stem), *rims, at=at)
    assert verdict(result.checks) is Verdict.VERIFIED, statuses(result)
    assert result.claims is not None
    family, values = result.claims.family, result.claims.values
    assert values[f"{family}.measurements_match"] is True
    assert values[f"{family}.debug"] is False
    assert family == ("nvswitch" if stem == "ls10-switch" else "nvgpu")


@pytest.mark.parametrize("stem", COMPLETE)
def test_after_the_rims_ran_out_it_could_not_be_checked(
    vectors: Path, stem: str
) -> None:
    rims = [read(vectors, name) for name in COMPLETE[stem]]
    late = datetime(2035, 1, 1, tzinfo=UTC)
    result = verify(item_of(vectors, stem), *rims, at=late)
    assert verdict(result.checks) is Verdict.UNCHECKED
    assert statuses(result)["nvgpu.vbios_rim.validity"] == "unchecked"


def test_on_the_release_path_status_is_asked_for(vectors: Path) -> None:
    """NVIDIA's responder has this one on hold, which no file here can show."""
    result = verify(item_of(vectors, "h100-cert-hold"), require_revocation=True)
    (check,) = [one for one in result.checks if one.id == "nvgpu.revocation"]
    assert check.status is Status.UNCHECKED
    assert "GH100 A01 GSP BROM" in check.detail


def signed_rim(vectors: Path, name: str | None) -> Rim | None:
    return None if name is None else verify_rim(read(vectors, name))


@pytest.mark.parametrize("stem", [*REPORTS, *LISTS])
def test_the_same_measurements_differ_as_others_found(vectors: Path, stem: str) -> None:
    wanted = expected(vectors, stem).get("rim_comparison")
    if wanted is None:
        return
    report = body_of(item_of(vectors, stem)).report
    compared = 0
    for role in ("driver", "vbios"):
        name = wanted[f"{role}_rim"]
        if name is None or name in INVALID_RIMS:
            continue
        rim = signed_rim(vectors, name)
        assert rim is not None
        found = compare(report, {role: rim})
        facts = wanted[role]
        assert len(rim.measurements) == facts["active"]
        differ = [one.index for one in found.differences]
        assert differ == [
            index
            for index in facts["mismatching_rim_indexes"]
            # Not measured while NVDEC0 is disabled, as in all of these.
            if index != 35
        ]
        compared += found.compared
    assert compared


@pytest.mark.parametrize("chain", INVALID_CHAINS)
def test_defective_chains_are_refused(vectors: Path, chain: str) -> None:
    for stem in ("h100-nvtrust-nogpu", "h100-gonvtrust"):
        result = verify(item_of(vectors, stem, chain))
        assert verdict(result.checks) is Verdict.REFUSED
        assert not result.authenticated


def test_a_chain_of_another_device_is_refused(vectors: Path) -> None:
    result = verify(item_of(vectors, "h100-coco", "h100-sdk.chain.pem"))
    failed = {check.id for check in result.checks if check.status is Status.FAIL}
    assert failed == {"nvgpu.report.signature", "nvgpu.fwid"}


@pytest.mark.parametrize(("name", "purpose"), ROOTS.items())
def test_the_roots_are_the_pinned_ones(
    vectors: Path, name: str, purpose: Purpose
) -> None:
    (root,) = load_certificates(read(vectors, name), name)
    assert list(pinned_roots(purpose)) == [spki_sha256(root)]
    (other,) = load_certificates(read(vectors, WRONG_ROOT), WRONG_ROOT)
    assert spki_sha256(other) not in pinned_roots(purpose)


# --- RIMs ---------------------------------------------------------------------------


def rim_checks(vectors: Path, name: str, at: datetime) -> CheckLog:
    return checks_of(read(vectors, name), at)


def checks_of(document: bytes, at: datetime) -> CheckLog:
    log = CheckLog()
    trust = Trust(now=at, require_revocation=False)
    sources = Sources(trust=trust, shelf=RimShelf(), cache=LinkCache())
    check_rim(StoredRim(document), sources, log)
    return log


@pytest.mark.parametrize(("name", "at"), RIMS.items())
def test_rims_are_as_others_found_them(vectors: Path, name: str, at: datetime) -> None:
    wanted = expected(vectors, name)
    assert verdict(rim_checks(vectors, name, at).checks) is Verdict.VERIFIED
    rim = verify_rim(read(vectors, name))
    assert wanted["xmlsec1"] == "OK"
    assert rim.product == wanted["meta"]["product"]
    assert rim.edition == wanted["meta"]["edition"]
    assert rim.version == wanted["meta"]["colloquialVersion"]
    assert rim.tag_id == wanted["tag"]["tagId"]
    golden = {
        str(index): [value.hex() for value in one.values]
        for index, one in rim.measurements.items()
    }
    assert golden == wanted["golden"]
    assert len(golden) == wanted["active"]
    assert spki_sha256(rim.signer) == wanted["leaf"]["spki_sha256"]
    for when in ("not_before", "not_after"):
        edge = parse_time(wanted["leaf"][when])
        second = timedelta(seconds=-1 if when == "not_before" else 1)
        log = rim_checks(vectors, name, edge + second)
        assert log.status_of("nvgpu.rim.validity") is Status.UNCHECKED
        assert log.status_of("nvgpu.rim.signature") is Status.PASS


@pytest.mark.parametrize(("name", "check"), INVALID_RIMS.items())
def test_invalid_rims_are_refused(vectors: Path, name: str, check: str) -> None:
    wanted = expected(vectors, name)
    at = parse_time(wanted["leaf"]["not_before"]) + timedelta(days=30)
    log = rim_checks(vectors, name, at)
    assert verdict(log.checks) is Verdict.REFUSED
    assert log.status_of(check) is Status.FAIL
    signed = "nvgpu.rim.signature"
    assert (log.status_of(signed) is Status.PASS) is (wanted["xmlsec1"] == "OK")


# --- every bit counts ---------------------------------------------------------------

EXHAUSTIVE = bool(os.environ.get("KBS_EVERY_BIT"))
"""`make bits` flips all; otherwise one seeded bit of each byte."""


def flips(size: int, seed: int) -> list[int]:
    if EXHAUSTIVE:
        return list(range(8 * size))
    chosen = random.Random(seed)  # noqa: S311 - the same each time
    return [8 * at + chosen.randrange(8) for at in range(size)]


def test_any_bit_of_a_real_report_is_signed(vectors: Path) -> None:
    """What may change is what follows the signature, and nothing else."""
    item = item_of(vectors, "ls10-switch")
    whole, body = VERIFIER.parse(item, 0), body_of(item)
    assert not body.report.trailing
    for bit in flips(len(body.raw), seed=11):
        changed = bytearray(body.raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            report = parse_report(bytes(changed))
        except MalformedError:
            continue
        # As parsing the item again would give it; the certificates stay the same.
        flipped = replace(body, raw=bytes(changed), report=report)
        result = VERIFIER.verify(
            replace(whole, body=flipped), Trust(now=AT, require_revocation=False)
        )
        assert statuses(result)["nvgpu.report.signature"] == "fail", bit
        assert result.claims is None
        assert not result.authenticated


def test_bytes_after_the_signature_are_nobodys(vectors: Path) -> None:
    item = item_of(vectors, "h100-coco")
    body = body_of(item)
    assert len(body.report.trailing) == 1
    assert body.through_signature[-SIGNATURE_BYTES:] == body.report.signature
    for trailing in (b"", b"\xff", bytes(100)):
        raw = body.through_signature + trailing
        parsed = VERIFIER.parse(item | {"report": b64(raw)}, 0)
        assert parsed.core == body.through_signature
        result = VERIFIER.verify(parsed, Trust(now=AT, require_revocation=False))
        assert statuses(result)["nvgpu.report.signature"] == "pass"


def test_any_bit_of_a_real_rim_is_signed(vectors: Path) -> None:
    """But for the certificates that are not the signer's: each proves itself."""
    name = "switch-bios-rim-ls10.xml"
    document = read(vectors, name)
    end = document.index(b"</ds:X509Certificate>")
    good = verify_rim(document)
    bits = flips(end, seed=12)
    chosen = random.Random(13)  # noqa: S311 - the same each time
    for bit in bits if EXHAUSTIVE else chosen.sample(bits, 300):
        changed = bytearray(document)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            rim = verify_rim(bytes(changed))
        except KbsError:
            continue
        # Base64 and white space between elements of the signature have a few spellings.
        assert rim.measurements == good.measurements, bit
        assert (rim.product, rim.version) == (good.product, good.version)
        if rim.signer != good.signer:
            # The same key in a certificate that its issuer did not sign.
            log = checks_of(bytes(changed), RIMS[name])
            assert log.status_of("nvgpu.rim.chain") is Status.FAIL, bit
