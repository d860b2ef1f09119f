"""One good device and a table of single changes, each with the check that it fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.claims import ClaimValue
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import GivenCollateral, ItemResult, StoredRim, Trust
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from tests.fakes.nvidia import (
    NOW,
    SWITCH,
    VBIOS_INDICES,
    Device,
    FakeNvidia,
    key_of,
    other,
    pem,
    rim_id,
    sign,
)

NVIDIA = FakeNvidia()
GPU = Device()
BLACKWELL = Device(chip="GB100", driver="595.91.07")
VERIFIER = NvGpuVerifier()
Item = dict[str, Any]


def trust(**changes: Any) -> Trust:
    given: dict[str, Any] = {"now": NOW, "pinned_roots": NVIDIA.pins()}
    return Trust(**given | changes)


def verify(item: Item, **changes: Any) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 0), trust(**changes))


def statuses(result: ItemResult, status: Status) -> set[str]:
    return {check.id for check in result.checks if check.status is status}


def failed(result: ItemResult) -> set[str]:
    return statuses(result, Status.FAIL)


def open_checks(result: ItemResult) -> set[str]:
    return statuses(result, Status.UNCHECKED)


def detail(result: ItemResult, check_id: str) -> str:
    return next(check.detail for check in result.checks if check.id == check_id)


def claims(result: ItemResult) -> dict[str, ClaimValue]:
    assert result.claims is not None, result.checks
    return dict(result.claims.values)


@pytest.mark.parametrize("device", [GPU, BLACKWELL, SWITCH], ids=lambda d: d.chip)
def test_a_device_as_it_should_be_verifies(device: Device) -> None:
    result = verify(NVIDIA.item(device))
    assert verdict(result.checks) is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    found = claims(result)
    family = "nvswitch" if device.is_switch else "nvgpu"
    assert result.claims is not None
    assert result.claims.family == family
    assert found[f"{family}.measurements_match"] is True
    assert found[f"{family}.debug"] is False
    assert found[f"{family}.secure_boot"] is True
    assert found[f"{family}.vbios_version"] == device.vbios_version
    assert found[f"{family}.certificate_status"] == "good"
    assert found[f"{family}.mismatches"] == ()
    if not device.is_switch:
        assert found["nvgpu.driver_version"] == device.driver
        assert found["nvgpu.cc_mode"] == "on"
        assert found["nvgpu.fwid"] == device.fwid.hex()


def test_manifests_and_status_may_come_from_the_store() -> None:
    item = NVIDIA.item(rims=False, status=False)
    result = verify(item, collateral=NVIDIA.collateral(GPU, BLACKWELL, SWITCH))
    assert verdict(result.checks) is Verdict.VERIFIED


# --- the report -------------------------------------------------------------------


def test_a_signature_of_another_key_fails() -> None:
    body = NVIDIA.report_body(GPU, bytes(32))
    report = body + sign(key_of("stranger"), body)
    result = verify(NVIDIA.item(report=report))
    assert failed(result) == {"nvgpu.report.signature"}
    assert not result.authenticated
    assert result.claims is None


def test_what_follows_the_signature_changes_nothing() -> None:
    report = NVIDIA.report(GPU) + b"\x0a"
    parsed = VERIFIER.parse(NVIDIA.item(report=report), 0)
    assert parsed.core == report[:-1]
    assert verdict(VERIFIER.verify(parsed, trust()).checks) is Verdict.VERIFIED


def test_firmware_that_the_leaf_was_not_made_for_fails() -> None:
    for device in (GPU, BLACKWELL):
        result = verify(NVIDIA.item(replace(device, fwid_lie=b"\x07" * 48)))
        assert failed(result) == {"nvgpu.fwid"}


def test_an_empty_fwid_is_none() -> None:
    """Blackwell's leaf has an empty one beside its own."""
    result = verify(NVIDIA.item(replace(BLACKWELL, fwid_lie=bytes(48))))
    assert failed(result) == {"nvgpu.fwid"}


def test_a_report_without_fwid_skips_the_check() -> None:
    result = verify(NVIDIA.item(replace(GPU, opaque={20: None})))
    assert "nvgpu.fwid" in statuses(result, Status.SKIPPED)
    assert verdict(result.checks) is Verdict.VERIFIED


def test_a_nonce_beside_the_report_has_to_be_the_signed_one() -> None:
    item = NVIDIA.item()
    assert not failed(verify(item | {"nonce": bytes(32).hex()}))
    assert failed(verify(item | {"nonce": "01" * 32})) == {"nvgpu.nonce"}


@pytest.mark.parametrize(
    ("device", "arch"),
    [(GPU, "BLACKWELL"), (BLACKWELL, "HOPPER"), (SWITCH, "HOPPER"), (GPU, "x")],
)
def test_another_generation_beside_the_report_fails(device: Device, arch: str) -> None:
    assert failed(verify(NVIDIA.item(device) | {"arch": arch})) == {"nvgpu.arch"}


def test_chip_info_of_another_generation_fails() -> None:
    lying = replace(GPU, opaque={35: b"GB100"})
    assert "nvgpu.arch" in failed(verify(NVIDIA.item(lying)))


def test_a_chip_of_an_unknown_generation_could_not_be_checked() -> None:
    result = verify(NVIDIA.item(Device(chip="XX900")))
    assert open_checks(result) >= {"nvgpu.arch", "nvgpu.vbios_rim.id"}
    assert result.claims is None


# --- the chain --------------------------------------------------------------------


def test_a_root_of_somebody_else_fails() -> None:
    theirs = FakeNvidia(realm="rival")
    result = verify(theirs.item(status=False, rims=False))
    assert "nvgpu.chain" in failed(result)
    assert not result.authenticated


def test_an_amd_root_certifies_no_gpu() -> None:
    pins = dict.fromkeys(NVIDIA.pins(), "AMD ARK Milan")
    assert "nvgpu.chain" in failed(verify(NVIDIA.item(), pinned_roots=pins))


def test_a_rim_root_certifies_no_gpu_and_the_other_way_round() -> None:
    (device, _), (rim, _) = NVIDIA.pins().items()
    swapped = {
        device: "NVIDIA CoRIM signing Root CA",
        rim: "NVIDIA Device Identity CA",
    }
    result = verify(NVIDIA.item(), pinned_roots=swapped)
    assert "nvgpu.chain" in failed(result)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_gap_in_a_chain_that_has_its_root_fails(missing: int) -> None:
    chain = list(NVIDIA.device_chain(GPU))
    del chain[missing]
    result = verify(NVIDIA.item() | {"certificates": pem(*chain)})
    assert "nvgpu.chain" in failed(result)
    assert not result.authenticated


def test_a_chain_cut_short_could_not_be_checked() -> None:
    chain = NVIDIA.device_chain(GPU)
    result = verify(NVIDIA.item() | {"certificates": pem(*chain[:3])})
    assert "nvgpu.chain" in open_checks(result)
    collateral = GivenCollateral(chain)
    again = verify(
        NVIDIA.item() | {"certificates": pem(*chain[:3])}, collateral=collateral
    )
    assert verdict(again.checks) is Verdict.VERIFIED


def test_without_certificates_nothing_is_known() -> None:
    item = NVIDIA.item()
    del item["certificates"]
    result = verify(item)
    assert not failed(result)
    assert open_checks(result) >= {"nvgpu.report.signature", "nvgpu.chain"}
    assert result.identities == ()


def test_certificates_may_stand_in_any_order_and_form() -> None:
    chain = NVIDIA.device_chain(GPU)
    backwards = [pem(one) for one in reversed(chain)]
    assert not failed(verify(NVIDIA.item() | {"certificates": backwards}))


def test_before_its_certificates_begin_a_device_fails() -> None:
    result = verify(NVIDIA.item(), now=NOW - timedelta(days=1001))
    assert "nvgpu.validity" in failed(result)


# --- certificate status -------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (x509.ReasonFlags.key_compromise, "revoked (keyCompromise)"),
        (x509.ReasonFlags.certificate_hold, "on hold"),
    ],
)
@pytest.mark.parametrize("label", ["GH100 device-1 brom", "GH100 ica"])
def test_a_device_that_is_revoked_or_on_hold_fails(
    label: str, reason: x509.ReasonFlags, word: str
) -> None:
    nvidia = FakeNvidia(revoked={label: reason})
    result = verify(nvidia.item())
    assert failed(result) == {"nvgpu.revocation"}
    assert word in detail(result, "nvgpu.revocation")


def test_a_device_unknown_to_the_responder_could_not_be_checked() -> None:
    nvidia = FakeNvidia(unknown={"GH100 device-1 brom"})
    result = verify(nvidia.item())
    assert open_checks(result) == {"nvgpu.revocation"}
    assert "not known to the responder" in detail(result, "nvgpu.revocation")
    recorded = verify(nvidia.item(), require_revocation=False)
    assert open_checks(recorded) == {"nvgpu.revocation"}


def test_without_status_a_release_waits_and_recorded_evidence_does_not() -> None:
    three = {
        "nvgpu.revocation",
        "nvgpu.driver_rim.revocation",
        "nvgpu.vbios_rim.revocation",
    }
    item = NVIDIA.item(status=False)
    result = verify(item)
    assert open_checks(result) == three
    assert "ocsp.ndis.nvidia.com" in detail(result, "nvgpu.revocation")
    recorded = verify(item, require_revocation=False)
    assert statuses(recorded, Status.SKIPPED) >= three
    assert claims(recorded)["nvgpu.certificate_status"] == "unchecked"


@pytest.mark.parametrize("device", [GPU, SWITCH], ids=lambda d: d.chip)
def test_only_where_manifests_signers_were_looked_up_all_is_good(
    device: Device,
) -> None:
    """A manifest by a revoked signer may say anything of a device that is in order."""
    item = NVIDIA.item(device)
    item["ocsp"] = item["ocsp"][:3]  # type: ignore[index]  # those of the device
    family = "nvswitch" if device.is_switch else "nvgpu"
    result = verify(item, require_revocation=False)
    skipped = statuses(result, Status.SKIPPED)
    assert "nvgpu.revocation" not in skipped
    assert "nvgpu.vbios_rim.revocation" in skipped
    assert claims(result)[f"{family}.certificate_status"] == "unchecked"


def test_the_signer_of_a_manifest_may_be_revoked() -> None:
    reason = x509.ReasonFlags.ca_compromise
    nvidia = FakeNvidia(revoked={"GH100 rim l3": reason})
    assert failed(verify(nvidia.item())) == {
        "nvgpu.driver_rim.revocation",
        "nvgpu.vbios_rim.revocation",
    }


# --- manifests ----------------------------------------------------------------------


def test_a_missing_manifest_is_named_for_fetching() -> None:
    result = verify(NVIDIA.item(rims=False))
    assert open_checks(result) == {
        "nvgpu.driver_rim.id",
        "nvgpu.vbios_rim.id",
        "nvgpu.measurements",
    }
    assert "NV_GPU_DRIVER_GH100_580.95.05" in detail(result, "nvgpu.driver_rim.id")
    vbios = "NV_GPU_VBIOS_1010_0200_882_960074001A"
    assert vbios in detail(result, "nvgpu.vbios_rim.id")
    assert verdict(result.checks) is Verdict.UNCHECKED


@pytest.mark.parametrize(
    ("device", "role", "wanted"),
    [
        (BLACKWELL, "driver", "NV_GPU_CC_DRIVER_GB100_595.91.07"),
        (SWITCH, "vbios", "NV_SWITCH_BIOS_5612_0002_890_9610550001"),
    ],
)
def test_each_generation_has_its_names(device: Device, role: str, wanted: str) -> None:
    result = verify(NVIDIA.item(device, rims=False))
    assert wanted in detail(result, f"nvgpu.{role}_rim.id")


def test_blackwell_without_chip_info_is_gb100() -> None:
    device = replace(BLACKWELL, opaque={35: None})
    assert verdict(verify(NVIDIA.item(device)).checks) is Verdict.VERIFIED


@pytest.mark.parametrize("field", [3, 17, 18, 15, 6])
def test_a_report_that_does_not_name_its_manifest_is_not_checked(field: int) -> None:
    result = verify(NVIDIA.item(replace(GPU, opaque={field: None})))
    which = "driver" if field == 3 else "vbios"
    assert f"nvgpu.{which}_rim.id" in open_checks(result)
    assert "lacks" in detail(result, f"nvgpu.{which}_rim.id")


def test_a_switch_without_a_version_is_not_checked() -> None:
    result = verify(NVIDIA.item(replace(SWITCH, opaque={6: None})))
    assert "lacks VBIOS_VERSION" in detail(result, "nvgpu.vbios_rim.id")


def with_rims(*documents: bytes) -> Item:
    return NVIDIA.item() | {"rims": [b64(one) for one in documents]}


VBIOS = NVIDIA.rim(GPU, "vbios")
DRIVER = NVIDIA.rim(GPU, "driver")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"version": "1.2.3"}, "id"),
        ({"product": "GB100"}, "id"),
        ({"signer": "stranger"}, "signature"),
        ({"whole_chain": False}, "chain"),
        ({"signer_until": NOW - timedelta(days=1)}, "validity"),
    ],
)
def test_a_manifest_with_one_change(change: dict[str, Any], check: str) -> None:
    result = verify(with_rims(NVIDIA.rim(GPU, "driver", **change), VBIOS))
    found = failed(result) | open_checks(result)
    assert f"nvgpu.driver_rim.{check}" in found
    assert result.claims is None
    # What has run out is fetched anew; what is wrong is refused.
    waits = check in {"id", "validity"}
    assert (verdict(result.checks) is Verdict.UNCHECKED) is waits


def test_a_manifest_of_another_vendor_fails() -> None:
    rival = FakeNvidia(realm="rival")
    result = verify(with_rims(rival.rim(GPU, "driver"), VBIOS))
    assert "nvgpu.driver_rim.chain" in failed(result)


def test_a_bad_manifest_beside_a_good_one_takes_nothing_from_it() -> None:
    forged = NVIDIA.rim(GPU, "driver", signer="stranger")
    old = NVIDIA.rim(GPU, "driver", signer_until=NOW - timedelta(days=1))
    for documents in ((forged, old, DRIVER, VBIOS), (DRIVER, old, forged, VBIOS)):
        result = verify(with_rims(*documents))
        assert verdict(result.checks) is Verdict.VERIFIED


def test_of_two_boards_with_one_version_the_named_manifest_counts() -> None:
    """Nothing in a manifest names the board; the id it was fetched under does."""
    theirs = NVIDIA.rim(GPU, "vbios", values={1: (b"\x01" * 48,)})
    collateral = GivenCollateral(
        given_rims=(
            StoredRim(theirs, "NV_GPU_VBIOS_G520_0200_885_960074001A"),
            *NVIDIA.rims(GPU),
        )
    )
    result = verify(NVIDIA.item(rims=False), collateral=collateral)
    assert claims(result)["nvgpu.measurements_match"] is True


def test_an_id_that_a_guest_gives_takes_nothing_from_the_store() -> None:
    """Nobody signed the id: a guest may call another board's manifest as it likes."""
    other_board = {9: b"\x09" * 48}
    values = {i: (GPU.golden(i),) for i in VBIOS_INDICES} | {9: (other_board[9],)}
    theirs = {
        "id": rim_id(GPU, "vbios"),
        "rim": b64(NVIDIA.rim(GPU, "vbios", values=values)),
    }
    item = NVIDIA.item(replace(GPU, changed=other_board), rims=False)
    item["rims"] = [theirs]
    result = verify(item, collateral=NVIDIA.collateral(GPU))
    assert claims(result)["nvgpu.mismatches"] == ("vbios.9",)
    # Nor when the store's has run out.
    old = NVIDIA.rim(GPU, "vbios", signer_until=NOW - timedelta(days=1))
    kept = StoredRim(old, rim_id(GPU, "vbios")), NVIDIA.rims(GPU)[0]
    result = verify(item, collateral=GivenCollateral(given_rims=kept))
    assert "nvgpu.vbios_rim.validity" in open_checks(result)
    # Where the store has none, it is all that there is.
    item["rims"] = [theirs, b64(NVIDIA.rim(GPU, "driver"))]
    assert claims(verify(item))["nvgpu.measurements_match"] is True


def test_an_unreadable_manifest_is_mentioned() -> None:
    result = verify(with_rims(b"<SoftwareIdentity/>"))
    assert "unreadable" in detail(result, "nvgpu.driver_rim.id")


# --- measurements -------------------------------------------------------------------


def test_a_difference_is_a_claim_and_no_failure() -> None:
    device = replace(GPU, changed={9: b"\x05" * 48, 21: b"\x06" * 48})
    result = verify(NVIDIA.item(device))
    assert verdict(result.checks) is Verdict.VERIFIED
    found = claims(result)
    assert found["nvgpu.measurements_match"] is False
    assert found["nvgpu.mismatches"] == ("driver.21", "vbios.9")
    for unknown in ("debug", "secure_boot", "cc_mode"):
        assert f"nvgpu.{unknown}" not in found
    text = detail(result, "nvgpu.measurements")
    assert "2 of 10 measurements differ" in text
    assert "vbios.9: got 050505050505…" in text
    golden = device.golden(9).hex()[:12]
    assert f"expected {golden}…" in text


def test_any_of_several_values_will_do() -> None:
    values = {7: (b"\x01" * 48, b"\x02" * 48, GPU.golden(7))}
    found = claims(verify(with_rims(NVIDIA.rim(GPU, "driver", values=values), VBIOS)))
    assert found["nvgpu.measurements_match"] is True


def test_a_measurement_that_the_report_lacks_differs() -> None:
    values = {200: (b"\x01" * 48,)}
    result = verify(with_rims(NVIDIA.rim(GPU, "driver", values={}), VBIOS))
    assert claims(result)["nvgpu.measurements_match"] is True
    rim = NVIDIA.rim(SWITCH, "vbios", values={1: (SWITCH.golden(1),), 40: (b"1" * 48,)})
    item = NVIDIA.item(SWITCH) | {"rims": [b64(rim)]}
    found = claims(verify(item))
    assert found["nvswitch.mismatches"] == ("vbios.40",)
    assert values


def test_index_35_counts_only_while_nvdec0_is_enabled() -> None:
    changed = {35: b"\x09" * 48}
    disabled = claims(verify(NVIDIA.item(replace(GPU, changed=changed))))
    assert disabled["nvgpu.measurements_match"] is True
    enabled = replace(GPU, changed=changed, nvdec0=0xAA)
    found = claims(verify(NVIDIA.item(enabled)))
    assert found["nvgpu.mismatches"] == ("driver.35",)


def test_manifests_that_contradict_each_other_fail() -> None:
    both = NVIDIA.rim(GPU, "driver", values={1: (GPU.golden(1),)})
    assert failed(verify(with_rims(both, VBIOS))) == {"nvgpu.measurements"}


def test_nothing_to_compare_fails() -> None:
    empty = [NVIDIA.rim(GPU, role, values={}) for role in ("driver", "vbios")]
    assert failed(verify(with_rims(*empty))) == {"nvgpu.measurements"}


# --- confidential mode --------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "ppcie", "mode"),
    [
        (0, 0x55, "on"),
        (1, 0x55, "on"),
        (None, None, "on"),
        (None, 0x55, "on"),
        (2, 0xAA, "ppcie"),
        (None, 0xAA, "ppcie"),
        (0, 0xAA, "ppcie"),
        (2, 0x55, "ppcie"),
        (3, 0x55, None),
        (0, 0x00, None),
    ],
)
def test_confidential_mode(
    feature: int | None, ppcie: int | None, mode: str | None
) -> None:
    device = replace(GPU, feature=feature, ppcie=ppcie)
    assert claims(verify(NVIDIA.item(device))).get("nvgpu.cc_mode") == mode


def test_a_gpu_and_a_switch_name_the_switch_alike() -> None:
    peers = bytes(reversed(bytes.fromhex("203eb31ad9ed0008")))
    device = replace(GPU, opaque={22: peers + bytes(8)})
    gpu = claims(verify(NVIDIA.item(device)))
    switch = claims(verify(NVIDIA.item(SWITCH)))
    assert gpu["nvgpu.switch_pdis"] == (switch["nvswitch.switch_pdi"],)


# --- identity -----------------------------------------------------------------------


def test_other_firmware_is_the_same_device() -> None:
    one = verify(NVIDIA.item(GPU)).identities
    updated = verify(NVIDIA.item(replace(GPU, firmware="firmware-2"))).identities
    another = verify(NVIDIA.item(other(GPU, "device-2"))).identities
    assert one[0] == updated[0]
    assert one[1] != updated[1]
    assert not set(one) & set(another)


# --- the item -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "gpu"},
        {"report": 7},
        {"report": "AAAA"},
        {"certificates": "garbage"},
        {"certificates": 7},
        {"certificates": ["-----BEGIN CERTIFICATE-----\u00e9"]},
        {"certificates": [""] * 17},
        {"nonce": "00"},
        {"nonce": "AB" * 32},
        {"arch": 7},
        {"rims": ["AAAA"] * 5},
        {"rims": [{"id": "x"}]},
        {"ocsp": ["AAAA"]},
        {"crls": ["AAAA"]},
        {"uuid": "x"},
    ],
)
def test_an_item_of_another_shape_is_malformed(change: Item) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse(NVIDIA.item() | change, 0)


def test_too_many_certificates_are_malformed() -> None:
    chains = [
        pem(*NVIDIA.device_chain(other(GPU, f"device-{number}"))) for number in range(4)
    ]
    chains.append(pem(*NVIDIA.rim_chain("GH100"), *NVIDIA.rim_chain("GB100")))
    with pytest.raises(MalformedError, match="certificates"):
        VERIFIER.parse(NVIDIA.item() | {"certificates": chains}, 0)


def test_a_named_manifest_in_the_item() -> None:
    rims = [
        {"id": rim_id(GPU, role), "rim": b64(NVIDIA.rim(GPU, role))}
        for role in ("driver", "vbios")
    ]
    assert not open_checks(verify(NVIDIA.item() | {"rims": rims}))
    rims[0]["id"] = "NV_GPU_DRIVER_GH100_1.2"
    result = verify(NVIDIA.item() | {"rims": rims})
    assert "nvgpu.driver_rim.id" in open_checks(result)


def test_inspection_shows_everything_and_believes_nothing() -> None:
    report = NVIDIA.report(GPU)[:-1] + b"\x00"
    item = with_rims(
        DRIVER, b"<SoftwareIdentity/>", NVIDIA.rim(GPU, "vbios", signer="x")
    )
    parsed = VERIFIER.parse(item | {"report": b64(report)}, 0)
    shown: dict[str, Any] = dict(VERIFIER.inspect(parsed))
    assert shown["driver_version"] == GPU.driver
    assert shown["measurements"]["8"] == GPU.golden(7).hex()
    assert shown["opaque"]["NVDEC0_STATUS"] == "55"
    assert len(shown["certificates"]) == 5
    good, broken, forged = shown["rims"]
    assert good["measurements"]["7"] == [GPU.golden(7).hex()]
    assert "error" in broken
    assert forged["product"] == "GH100"
    assert "error" in forged
    assert {one["status"] for one in shown["ocsp"]} == {"good"}


def test_an_item_of_another_family_is_a_mistake_of_ours() -> None:
    parsed = VERIFIER.parse(NVIDIA.item(), 0)
    with pytest.raises(TypeError):
        VERIFIER.verify(replace(parsed, body=object()), trust())


@pytest.mark.parametrize("size", [0, 31, 32, 47, 49])
def test_a_binding_of_another_length_never_matches(size: int) -> None:
    parsed = VERIFIER.parse(NVIDIA.item(), 0)
    assert not VERIFIER.bound_matches(parsed, bytes(size))
    assert VERIFIER.bound_matches(parsed, bytes(48))


def test_time_is_the_callers() -> None:
    later = datetime.max.replace(tzinfo=NOW.tzinfo)
    assert "nvgpu.revocation" in open_checks(verify(NVIDIA.item(), now=later))
