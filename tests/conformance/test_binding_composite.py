"""The binding of composite bundles: every kind of primary beside every kind of device.

The rows of `binding.md` have fixed vectors in the other files; here is what joins them.
A device of another machine signs the same D for the same challenge, so only the
primary's M tells it from ours.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.channel.binding import RuntimeBinding, parse_runtime_data
from kbs.core.checks import Status, Verdict
from kbs.core.encode import b64
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.model import EnrolledKey, GivenCollateral, Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.public import Scheme
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.azure import azure
from tests.fakes.cca import FakeCca
from tests.fakes.intel import FakeIntel
from tests.fakes.nitro import item as nitro_item
from tests.fakes.nitro import nitro
from tests.fakes.nvidia import SWITCH, Device, FakeNvidia, other
from tests.fakes.tokens import (
    EAR,
    GCS,
    ITA,
    MAA,
    NRAS,
    FakeSet,
    ear_claims,
    gcs_claims,
    ita_claims,
    maa_claims,
)
from tests.fakes.tpm import AK_ATTRIBUTES, FakeTpm, public_of

Item = dict[str, Any]
M = Sequence[Mapping[str, str]]

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
        "keys": ["acme/model/chat"],
        "mode": "release",
        "partial": False,
        "suite": "0020-0001-0002",
    },
}
BINDING = RuntimeBinding(parse_runtime_data(RUNTIME_DATA))
AMD, INTEL, CCA, NVIDIA = FakeAmd(), FakeIntel(), FakeCca(), FakeNvidia()
OURS, THEIRS = 0, 1


def independent(value: Mapping[str, object]) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).digest()


def covering(kind: str, devices: M) -> dict[str, object]:
    return {
        "typ": "primary",
        "kind": kind,
        "runtime_data": RUNTIME_DATA,
        "devices": list(devices),
    }


def p(kind: str, devices: M) -> bytes:
    return independent(covering(kind, devices))


def d(kind: str) -> bytes:
    return independent({"typ": "device", "kind": kind, "runtime_data": RUNTIME_DATA})


def text(digest: bytes) -> str:
    return b64(digest).replace("+", "-").replace("/", "_").rstrip("=")


@cache
def tpm(machine: int) -> FakeTpm:
    fake = FakeTpm()
    fake.key = ec.derive_private_key(7 + machine, ec.SECP256R1())
    fake.public = public_of(
        fake.key, attributes=AK_ATTRIBUTES, scheme=Scheme(fake.scheme, fake.hash)
    )
    return fake


def vtpm_core(item: Item, machine: int) -> bytes:
    message: bytes = tpm(machine).quote(d("vtpm")[:32])[0]
    assert item["quote"]["message"] == b64(message)
    spki = hashlib.sha256(tpm(machine).ak_spki).digest()
    return len(message).to_bytes(4, "big") + message + spki


@dataclass(frozen=True)
class Made:
    """A device item, and the bytes that stand for it in M."""

    item: Item
    core: bytes

    @property
    def listed(self) -> dict[str, str]:
        digest = hashlib.sha384(self.core).hexdigest()
        return {"kind": self.item["kind"], "sha384": digest}


def gpu(machine: int, name: str = "") -> Made:
    device = Device() if not (machine or name) else other(Device(), f"{machine}{name}")
    return _reported(device)


def switch(machine: int) -> Made:
    return _reported(other(SWITCH, f"switch-{machine}"))


def _reported(device: Device) -> Made:
    report = NVIDIA.report(device, d("nvgpu")[:32])
    return Made(dict(NVIDIA.item(device, report=report)), report)


def vtpm(machine: int) -> Made:
    item = tpm(machine).quote_item(d("vtpm")[:32])
    return Made(item, vtpm_core(item, machine))


def gpu_token(machine: int) -> Made:
    nonce = d("nvgpu")[:32].hex()
    item = FakeSet(nonce=nonce, device={"ueid": f"machine-{machine}"}).item()
    return Made(item, str(item["jwt"]).encode("ascii"))


def _sample(kind: str, machine: int) -> Made:
    item = {"kind": kind, "report_data": b64(d(kind)), "claims": {"svn": machine}}
    written = json.dumps(item, sort_keys=True, separators=(",", ":"))
    return Made(item, written.encode())


DEVICES: dict[str, Callable[[int], Made]] = {
    "nvgpu": gpu,
    "nvswitch": switch,
    "vtpm": vtpm,
    "gpu token": gpu_token,
    "sample": lambda machine: _sample("sample", machine),
    "sampledevice": lambda machine: _sample("sampledevice", machine),
}
PRIMARIES: dict[str, Callable[[M], Item]] = {
    "snp": lambda m: AMD.bundle_item(p("snp", m)),
    "tdx": lambda m: INTEL.bundle_item(p("tdx", m)),
    "sgx": lambda m: INTEL.bundle_item(p("sgx", m), tee="sgx"),
    "cca": lambda m: CCA.item(p("cca", m) + bytes(16)),
    "nitro": lambda m: nitro_item(nitro().document(user_data=p("nitro", m))),
    "nitrotpm": lambda m: nitro_item(
        nitro().tpm_document(user_data=p("nitrotpm", m)), "nitrotpm"
    ),
    "azure": lambda m: azure().item(p("azure", m)[:32]),
    "vtpm": lambda m: tpm(OURS).quote_item(p("vtpm", m)[:32]),
    "maa": lambda m: MAA.item(maa_claims(covering("token", m))),
    "ita": lambda m: ITA.item(ita_claims(text(p("token", m)).encode())),
    "gcs": lambda m: GCS.item(gcs_claims(text(p("token", m)))),
    "ear": lambda m: EAR.item(ear_claims(text(p("token", m)))),
    "sample": lambda m: {"kind": "sample", "report_data": b64(p("sample", m))},
}
# A vTPM beside a sample is the primary itself, and one beside a vTPM another one.
PAIRS = [
    (primary, device)
    for primary in PRIMARIES
    for device in DEVICES
    if (primary, device)
    not in {("vtpm", "vtpm"), ("sample", "vtpm"), ("sample", "sample")}
]


@cache
def collateral() -> GivenCollateral:
    given = [AMD.collateral(), INTEL.collateral("tdx"), INTEL.collateral("sgx")]
    return GivenCollateral(
        tuple(one for each in given for one in each.certificates()),
        tuple(one for each in given for one in each.revocation_lists()),
        given_documents=tuple(one for each in given for one in each.documents()),
    )


def verify(*items: Mapping[str, object]) -> BundleResult:
    enrolled = {
        one.ak_name: (
            EnrolledKey(
                tenant="acme", group="hosts", name=one.ak_name, public=one.ak_public
            ),
        )
        for one in (tpm(OURS), tpm(THEIRS))
    }
    trust = Trust(
        now=NOW,
        collateral=collateral(),
        enrolled_keys=enrolled,
        issuers=(
            *(one.trusted() for one in (MAA, ITA, NRAS, GCS, EAR)),
            CCA.trusted(),
        ),
        development=True,
        pinned_roots={
            **AMD.pins(),
            **INTEL.pins(),
            **NVIDIA.pins(),
            **nitro().pins,
            **azure().amd.pins(),
        },
    )
    return verify_bundle(
        Bundle(tuple(items)), trust=trust, verifiers=VERIFIERS, binding=BINDING
    )


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.checks if check.status is Status.FAIL]


def unreleasable(result: BundleResult) -> bool:
    return (
        result.verdict is not Verdict.VERIFIED
        and result.claims is None
        and not result.authenticated
        and result.binding is None
    )


@pytest.mark.parametrize(("primary", "device"), PAIRS)
def test_a_primary_covers_this_very_device(primary: str, device: str) -> None:
    make = PRIMARIES[primary]
    ours, theirs = DEVICES[device](OURS), DEVICES[device](THEIRS)
    covers = make([ours.listed])
    good = verify(covers, ours.item)
    assert good.verdict is Verdict.VERIFIED, failed(good)
    assert good.authenticated
    # Of another machine, for the same challenge, put in after the report was made.
    swapped = verify(covers, theirs.item)
    assert failed(swapped) == ["binding.primary", "binding.devices"]
    assert unreleasable(swapped)
    assert verify(make([theirs.listed]), theirs.item).verdict is Verdict.VERIFIED
    for result in (verify(covers), verify(covers, ours.item, theirs.item)):
        assert "binding.primary" in failed(result)
        assert unreleasable(result)
    # In the bundle, and not in the binding.
    assert "binding.devices" in failed(verify(make([]), ours.item))


@cache
def machine() -> tuple[Made, ...]:
    """What stands beside the CPU report of one large machine."""
    return (
        gpu(OURS),
        gpu(OURS, "second"),
        switch(OURS),
        vtpm(OURS),
        gpu_token(OURS),
        _sample("sampledevice", OURS),
    )


@cache
def whole() -> tuple[Item, ...]:
    report = PRIMARIES["snp"]([one.listed for one in machine()])
    return (report, *(one.item for one in machine()))


def test_a_machine_with_everything_is_one_decision() -> None:
    result = verify(*whole())
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.claims is not None
    assert [one.family for one in result.claims.items] == [
        "snp",
        "nvgpu",
        "nvgpu",
        "nvswitch",
        "vtpm",
        "nras",
        "sampledevice",
    ]


@pytest.mark.parametrize("place", range(1, 7))
def test_the_primary_may_stand_anywhere(place: int) -> None:
    """M is the order of the others, whatever stands between them."""
    report, *others = whole()
    items = [*others[:place], report, *others[place:]]
    result = verify(*items)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.primary == place


@pytest.mark.parametrize(("left", "right"), [*itertools.combinations(range(1, 7), 2)])
def test_devices_in_another_order(left: int, right: int) -> None:
    items = list(whole())
    items[left], items[right] = items[right], items[left]
    result = verify(*items)
    assert failed(result) == ["binding.primary", "binding.devices"]
    assert unreleasable(result)


@pytest.mark.parametrize("place", range(1, 7))
def test_a_device_left_out_or_there_twice_or_in_anothers_place(place: int) -> None:
    items = list(whole())
    del items[place]
    assert failed(verify(*items)) == ["binding.primary", "binding.devices"]
    items = list(whole())
    items.insert(place, items[place])
    assert "binding.duplicate" in failed(verify(*items))
    items = list(whole())
    items[place] = items[1 if place > 1 else 2]
    assert {"binding.primary", "binding.duplicate"} <= set(failed(verify(*items)))


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("kind", sorted(VERIFIERS))
def test_an_item_under_another_familys_name(place: int, kind: str) -> None:
    items = list(whole())
    if items[place]["kind"] == kind:
        return
    items[place] = {**items[place], "kind": kind}
    result = verify(*items)
    assert unreleasable(result)
    if {items[place]["kind"], whole()[place]["kind"]} != {"sample", "sampledevice"}:
        assert failed(result) == [f"{kind}.parse"]
    else:
        assert failed(result) == ["binding.primary", "binding.devices"]


def test_two_cpus_are_one_too_many() -> None:
    neighbours: list[Item] = [
        make([]) for name, make in PRIMARIES.items() if name not in {"vtpm", "sample"}
    ]
    for one in neighbours:
        result = verify(*whole(), one)
        assert "bundle.primary" in failed(result)
        assert unreleasable(result)


@pytest.mark.parametrize("device", ["nvgpu", "nvswitch", "vtpm", "gpu token"])
def test_a_device_that_fails_takes_the_whole_machine_with_it(device: str) -> None:
    """Its own signature, of all: nothing of the rest is believed either."""
    made = DEVICES[device](OURS)
    item = json.loads(json.dumps(made.item))
    if device == "vtpm":
        theirs: Item = tpm(THEIRS).quote_item(d("vtpm")[:32])
        item["quote"]["signature"] = theirs["quote"]["signature"]
        core = made.core
    elif device == "gpu token":
        head, body, signature = item["jwt"].split(".")
        item["jwt"] = ".".join((head, body, signature[::-1]))
        core = item["jwt"].encode()
    else:
        raw = made.core[:-1] + bytes([made.core[-1] ^ 1])
        item["report"], core = b64(raw), raw
    listed = {"kind": item["kind"], "sha384": hashlib.sha384(core).hexdigest()}
    result = verify(PRIMARIES["snp"]([listed]), item)
    assert result.verdict is Verdict.REFUSED
    assert result.claims is None
    assert not {"binding.primary", "binding.devices"} & set(failed(result))
