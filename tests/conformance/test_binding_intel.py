"""The binding rows of TDX and SGX: REPORTDATA[0:48] = P, [48:64] = 0.

The literals were computed once by `independent`, as for the other rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from kbs.channel.binding import RuntimeBinding, parse_runtime_data, primary_binding
from kbs.core.checks import Verdict
from kbs.core.encode import b64
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import FakeAmd
from tests.fakes.intel import NOW, FakeIntel

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
INTEL = FakeIntel()
NEIGHBOUR = FakeIntel(platform="platform-2")
AMD = FakeAmd()

P: dict[str, bytes] = {
    "tdx": bytes.fromhex(
        "94c9811f3dec3fedf3b7b066de53e65ed14ed75a5f11d1fe"
        "afc70657c16a1cf0e4adba8ac616c968455f82e929213ab2"
    ),
    "sgx": bytes.fromhex(
        "9abeec590b7b690e190be0b3a61903011824ff896b39facc"
        "093133182780117758cf1db33ec8db24bb3ab83e417298ec"
    ),
}


def independent(kind: str, devices: list[dict[str, str]], typ: str) -> str:
    value: dict[str, Any] = {"typ": typ, "kind": kind, "runtime_data": RUNTIME_DATA}
    if typ == "primary":
        value["devices"] = devices
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).hexdigest()


def verify(*items: Mapping[str, object]) -> BundleResult:
    trust = Trust(
        now=NOW,
        collateral=INTEL.collateral("tdx"),
        development=True,
        pinned_roots={**INTEL.pins(), **AMD.pins()},
    )
    return verify_bundle(
        Bundle(tuple(items)),
        trust=trust,
        verifiers=VERIFIERS,
        binding=RuntimeBinding(DATA),
    )


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.failed()]


@pytest.mark.parametrize("kind", P)
def test_the_literals_are_what_the_formulas_and_the_code_give(kind: str) -> None:
    assert P[kind].hex() == independent(kind, [], "primary")
    assert primary_binding(kind, DATA, []) == P[kind]


@pytest.mark.parametrize("kind", P)
def test_the_row_holds(kind: str) -> None:
    result = verify(INTEL.bundle_item(P[kind], tee=kind))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.binding == P[kind]
    assert result.primary == 0


@pytest.mark.parametrize("kind", P)
@pytest.mark.parametrize(
    "bound",
    [
        lambda p, _: bytes(64),
        lambda p, _: p[:32],
        lambda p, _: p[:47],
        lambda p, _: p + b"\x01",
        lambda p, _: p + bytes(15) + b"\x80",
        lambda p, _: b"\0" + p,
        lambda p, _: p[::-1],
        lambda _, kind: P["sgx" if kind == "tdx" else "tdx"],
        lambda _, kind: primary_binding("snp", DATA, []),
        lambda _, kind: bytes.fromhex(independent(kind, [], "device")),
        lambda p, _: hashlib.sha256(p).digest(),
    ],
)
def test_the_row_refuses_any_other_field(kind: str, bound: Any) -> None:
    result = verify(INTEL.bundle_item(bound(P[kind], kind), tee=kind))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


@pytest.mark.parametrize("kind", P)
def test_padding_behind_the_quote_is_no_part_of_the_binding(kind: str) -> None:
    result = verify(INTEL.bundle_item(P[kind], tee=kind, padding=b"\x07" * 40))
    assert result.verdict is Verdict.VERIFIED, failed(result)


def covering(kind: str, device: Mapping[str, object]) -> bytes:
    text = json.dumps(device, sort_keys=True, separators=(",", ":"))
    core = hashlib.sha384(text.encode()).hexdigest()
    covered = [{"kind": "sample", "sha384": core}]
    return bytes.fromhex(independent(kind, covered, "primary"))


def sample(byte: int = 0) -> dict[str, object]:
    bound = bytes.fromhex(independent("sample", [], "device"))
    return {"kind": "sample", "report_data": b64(bound), "claims": {"svn": byte}}


@pytest.mark.parametrize("kind", P)
def test_the_primary_covers_its_devices(kind: str) -> None:
    ours, swapped_in = sample(1), sample(2)
    primary = INTEL.bundle_item(covering(kind, ours), tee=kind)
    assert verify(primary, ours).verdict is Verdict.VERIFIED
    # Made for the same nonce on another machine, and put in afterwards.
    result = verify(primary, swapped_in)
    assert "binding.devices" in failed(result)
    assert not result.authenticated
    assert failed(verify(primary)) == ["binding.primary"]


def test_two_cpu_reports_are_one_too_many() -> None:
    one = INTEL.bundle_item(P["tdx"])
    two = NEIGHBOUR.bundle_item(P["tdx"])
    amd = AMD.bundle_item(primary_binding("snp", DATA, []))
    for other in (two, amd, INTEL.bundle_item(P["sgx"], tee="sgx")):
        assert "bundle.primary" in failed(verify(one, other))


def test_one_platform_twice_is_a_duplicate() -> None:
    one = INTEL.bundle_item(P["tdx"])
    again = INTEL.bundle_item(P["tdx"], version=5)
    assert "binding.duplicate" in failed(verify(one, again))
    padded = INTEL.bundle_item(P["tdx"], padding=b"\0")
    assert "binding.duplicate" in failed(verify(one, padded))
