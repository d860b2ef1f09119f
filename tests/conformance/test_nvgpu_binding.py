"""The binding row of NVIDIA devices: fixed vectors, signed by our own fakes.

The literals were computed once by `independent`, which knows nothing of the code under
test; keys and signatures of the fake device follow from its name, so that its core is
the same each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from kbs.channel.binding import RuntimeBinding, device_binding, parse_runtime_data
from kbs.core.checks import Verdict
from kbs.core.encode import b64
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import FakeAmd
from tests.fakes.nvidia import NOW, SWITCH, Device, FakeNvidia, other

RUNTIME_DATA: dict[str, Any] = {
    "audience": "kbs.example.org/log",
    "nonce": "AQcBAAAAAGkhZQAAAQIDBAUGBwgJCgsMDQ4P",
    "recipient": {
        "crv": "X25519",
        "kty": "OKP",
        # RFC 7748, section 6.1, Bob's public key.
        "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08",
    },
    "request": {
        "keys": ["acme/model/chat", "acme/prompt/front@7"],
        "mode": "release",
        "partial": False,
        "suite": "0020-0001-0002",
    },
}
DATA = parse_runtime_data(RUNTIME_DATA)
BINDING = RuntimeBinding(DATA)
AMD, NVIDIA = FakeAmd(), FakeNvidia()
GPU = Device()

D_NVGPU = (
    "b0506198369d7cbcec19f84d0757ec4a4867d748ceff092d"
    "b50f3aa1d440bd185dfe6c77a23d6be87ca4d83b1f9df488"
)
# SHA-384 of the fake GPU's report over D("nvgpu"), and the P("snp") that covers it.
CORE = (
    "cf83ff2e3bf174f2039b9c57d6bf815d13dd9339e05ef45e"
    "bc303da4e20e354c7026b543ed0b1add90f12a2902e41c8f"
)
P_SNP_WITH_GPU = (
    "2e9e2bceb3f5a0448143801add54d43775fca94ecb55003a"
    "a5e926c3b328a6b80f588b45c17cc8cc7b3e7a888b386a52"
)


def independent(value: Mapping[str, object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).hexdigest()


def p(*devices: str) -> str:
    return independent(
        {
            "typ": "primary",
            "kind": "snp",
            "runtime_data": RUNTIME_DATA,
            "devices": [{"kind": "nvgpu", "sha384": one} for one in devices],
        }
    )


def d(kind: str = "nvgpu") -> str:
    return independent({"typ": "device", "kind": kind, "runtime_data": RUNTIME_DATA})


NONCE = bytes.fromhex(d())[:32]


def core(report: bytes) -> str:
    """What stands for a report in M: itself, through its signature."""
    return hashlib.sha384(report).hexdigest()


def verify(*items: Mapping[str, object]) -> BundleResult:
    trust = Trust(
        now=NOW,
        collateral=AMD.collateral(),
        pinned_roots={**AMD.pins(), **NVIDIA.pins()},
    )
    return verify_bundle(
        Bundle(tuple(items)), trust=trust, verifiers=VERIFIERS, binding=BINDING
    )


def bound(*devices: Device, nonce: bytes = NONCE) -> BundleResult:
    """A CPU report that covers exactly these devices."""
    reports = [NVIDIA.report(one, nonce) for one in devices]
    cpu = AMD.bundle_item(bytes.fromhex(p(*map(core, reports))))
    items = [
        NVIDIA.item(one, report=report)
        for one, report in zip(devices, reports, strict=True)
    ]
    return verify(cpu, *items)


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.failed()]


def test_the_literals_are_what_the_formulas_give() -> None:
    assert d() == D_NVGPU
    assert core(NVIDIA.report(GPU, NONCE)) == CORE
    assert p(CORE) == P_SNP_WITH_GPU


def test_the_code_gives_the_literals() -> None:
    assert device_binding("nvgpu", DATA).hex() == D_NVGPU
    assert BINDING.primary("snp", [("nvgpu", CORE)]).hex() == P_SNP_WITH_GPU


def test_row_nvgpu() -> None:
    result = bound(GPU)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.devices == (("nvgpu", CORE),)


def test_several_gpus_and_a_switch_are_one_set() -> None:
    result = bound(GPU, other(GPU, "device-2"), SWITCH)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.claims is not None
    families = [item.family for item in result.claims.items]
    assert families == ["snp", "nvgpu", "nvgpu", "nvswitch"]


@pytest.mark.parametrize(
    "nonce",
    [
        bytes(32),
        bytes.fromhex(D_NVGPU)[16:],
        bytes.fromhex(D_NVGPU)[1:33],
        bytes.fromhex(D_NVGPU)[:31] + b"\x00",
        bytes.fromhex(P_SNP_WITH_GPU)[:32],
        bytes.fromhex(d("vtpm"))[:32],
        bytes.fromhex(d("nvswitch"))[:32],
    ],
)
def test_row_nvgpu_refuses_any_other_nonce(nonce: bytes) -> None:
    assert failed(bound(GPU, nonce=nonce)) == ["binding.devices"]


def test_the_nonce_beside_the_report_binds_nothing() -> None:
    report = NVIDIA.report(GPU, bytes(32))
    cpu = AMD.bundle_item(bytes.fromhex(p(core(report))))
    item = NVIDIA.item(GPU, report=report) | {"nonce": NONCE.hex()}
    assert failed(verify(cpu, item)) == ["nvgpu.nonce", "binding.devices"]


def test_a_gpu_of_another_machine_swapped_in_is_found() -> None:
    """A genuine one elsewhere signed the same D for the same challenge."""
    theirs = other(GPU, "device-of-another-machine")
    cpu = AMD.bundle_item(bytes.fromhex(P_SNP_WITH_GPU))
    result = verify(cpu, NVIDIA.item(theirs, report=NVIDIA.report(theirs, NONCE)))
    assert "binding.devices" in failed(result)
    assert result.verdict is Verdict.REFUSED
    assert not result.authenticated
    assert bound(theirs).verdict is Verdict.VERIFIED


def test_another_report_of_the_same_gpu_swapped_in_is_found() -> None:
    cpu = AMD.bundle_item(bytes.fromhex(P_SNP_WITH_GPU))
    changed = Device(changed={9: bytes(48)})
    result = verify(cpu, NVIDIA.item(changed, report=NVIDIA.report(changed, NONCE)))
    assert "binding.devices" in failed(result)


def test_a_gpu_added_or_left_out_is_found() -> None:
    cpu = AMD.bundle_item(bytes.fromhex(P_SNP_WITH_GPU))
    assert failed(verify(cpu)) == ["binding.primary"]
    items = [
        NVIDIA.item(one, report=NVIDIA.report(one, NONCE))
        for one in (GPU, other(GPU, "device-2"))
    ]
    assert failed(verify(cpu, *items)) == ["binding.primary", "binding.devices"]


def test_gpus_in_another_order_are_another_set() -> None:
    devices = [GPU, other(GPU, "device-2")]
    reports = [NVIDIA.report(one, NONCE) for one in devices]
    cpu = AMD.bundle_item(bytes.fromhex(p(*map(core, reversed(reports)))))
    items = [
        NVIDIA.item(one, report=report)
        for one, report in zip(devices, reports, strict=True)
    ]
    assert "binding.devices" in failed(verify(cpu, *items))


def test_what_follows_the_signature_is_no_part_of_the_core() -> None:
    cpu = AMD.bundle_item(bytes.fromhex(P_SNP_WITH_GPU))
    item = NVIDIA.item(GPU, report=NVIDIA.report(GPU, NONCE) + b"\n")
    assert verify(cpu, item).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    "again",
    [GPU, Device(firmware="firmware-2"), Device(driver="590.12")],
    ids=["report", "firmware", "driver"],
)
def test_the_same_gpu_twice_is_refused(again: Device) -> None:
    """Whatever its firmware: the device's own key is the same."""
    assert failed(bound(GPU, again)) == ["binding.duplicate"]


def test_a_device_that_fails_refuses_the_bundle() -> None:
    lying = Device(serial="device-2", fwid_lie=b"\x01" * 48)
    result = bound(GPU, lying)
    assert failed(result) == ["nvgpu.fwid"]
    assert result.claims is None


def test_devices_alone_bind_nothing() -> None:
    item = NVIDIA.item(GPU, report=NVIDIA.report(GPU, NONCE))
    assert failed(verify(item)) == ["bundle.primary"]


def test_recorded_devices_alone_need_no_primary() -> None:
    item = NVIDIA.item(GPU)
    trust = Trust(now=NOW, pinned_roots=NVIDIA.pins(), require_revocation=False)
    given = Bundle((item, NVIDIA.item(other(GPU, "device-2"))))
    result = verify_bundle(
        given, trust=trust, verifiers=VERIFIERS, binding=None, recorded=True
    )
    assert result.verdict is Verdict.VERIFIED
    assert not result.authenticated
    twice = verify_bundle(
        Bundle((item, item)),
        trust=trust,
        verifiers=VERIFIERS,
        binding=None,
        recorded=True,
    )
    assert failed(twice) == ["binding.duplicate"]


def test_a_report_is_compared_whole() -> None:
    """The nonce in the signed request counts, wherever the bytes stand elsewhere."""
    report = NVIDIA.report(GPU, bytes(32)) + NONCE
    cpu = AMD.bundle_item(bytes.fromhex(p(core(report[: -len(NONCE)]))))
    item = NVIDIA.item(GPU) | {"report": b64(report)}
    assert failed(verify(cpu, item)) == ["binding.devices"]
