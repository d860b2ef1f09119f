"""Keys for a guest with a CPU report, GPUs and a switch: one decision over all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.channel.binding import device_binding, device_digest, primary_binding
from kbs.core.encode import b64, canonical_json
from kbs.evidence.model import ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from kbs.governance.statement import Action, Kind
from tests.broker.test_rcar import sender
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import see
from tests.fakes.databases import Place
from tests.fakes.nvidia import SWITCH, Device, FakeNvidia, other
from tests.fakes.rcar_client import RcarClient
from tests.fakes.rcar_evidence import nvidia_evidence, snp_evidence
from tests.fakes.snp_world import MEASURED, policy
from tests.fakes.world import Request, World, request_of, trusting

NVIDIA = FakeNvidia()
GPU = Device()
GPUS = (GPU, other(GPU, "device-2"))
KEY = "acme/gpus/model"
FIRST = "acme/first/model"

POLICIES: Mapping[str, str] = {
    "gpus": policy(
        "gpus",
        MEASURED,
        "{count: nvgpu, at_least: 2}",
        '{every: nvgpu, all: [{claim: nvgpu.driver_version, at_least: "580.90"}]}',
    ),
    "first": policy("first", MEASURED, "{claim: 'nvgpu[0].arch', equals: HOPPER}"),
    "cpu": policy("cpu", MEASURED),
    "switched": policy(
        "switched",
        MEASURED,
        "{count: nvgpu, equals: 1}",
        "{count: nvswitch, equals: 1}",
    ),
    "offline": policy(
        "offline",
        MEASURED,
        "{count: nvgpu, at_least: 1}",
        more="revocation: {tolerate_missing: true}\n",
    ),
}


class PinnedNvidia(NvGpuVerifier):
    """The verifier of a broker that was built with a fake NVIDIA's roots."""

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        return super().verify(parsed, replace(trust, pinned_roots=NVIDIA.pins()))


@pytest.fixture
def gpus(tmp_path: Path, sqlite_place: Place, amd: FakeAmd) -> Iterator[World]:
    """A broker that trusts a fake AMD and a fake NVIDIA."""
    verifiers: dict[str, Verifier] = {**trusting(amd.pins()), "nvgpu": PinnedNvidia()}
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened, verifiers=verifiers)
        for name, source in POLICIES.items():
            world.activate_policy(source, name=name)
            world.create_key(f"acme/{name}/model", name.encode())
        yield world


def request(
    world: World,
    amd: FakeAmd,
    devices: Sequence[Device],
    *,
    key: str = KEY,
    nvidia: FakeNvidia = NVIDIA,
    **options: Any,
) -> Request:
    """A request with devices beside a CPU report that covers them."""
    data, private = world.runtime_data([key])
    bound = device_binding("nvgpu", data)
    items = [nvidia.item(one, bound, **options) for one in devices]
    reports = [nvidia.report(one, bound[:32]) for one in devices]
    listed = [device_digest("nvgpu", report) for report in reports]
    primary = primary_binding("snp", data, listed)
    return request_of(data, private, primary, [amd.bundle_item(primary), *items])


def test_a_key_leaves_for_a_cpu_and_its_gpus(gpus: World, amd: FakeAmd) -> None:
    asked = request(gpus, amd, GPUS)
    assert gpus.released(asked) == {f"{KEY}@1": b"gpus"}


def test_manifests_and_status_from_the_table_do(gpus: World, amd: FakeAmd) -> None:
    asked = request(gpus, amd, GPUS, rims=False, status=False)
    first = see(gpus, asked)
    assert first.status == 503
    assert set(first.checks) >= {"nvgpu.driver_rim.id", "nvgpu.revocation"}
    import_all(gpus, *GPUS)
    # The challenge is still good: nothing was wrong, something was missing.
    assert gpus.released(asked) == {f"{KEY}@1": b"gpus"}


def import_all(world: World, *devices: Device) -> None:
    """Bring in what an operator would have: manifests and OCSP answers."""
    rims = {rim.digest: rim for one in devices for rim in NVIDIA.rims(one)}
    items = [
        canonical_json({"id": rim.rim_id, "rim": b64(rim.document)})
        for rim in rims.values()
    ]
    items += [
        answer.public_bytes(Encoding.DER)
        for one in devices
        for answer in NVIDIA.answers(one)
    ]
    body = {"items": [b64(one) for one in items]}
    done = world.must("POST", "/admin/v1/collateral", body)
    assert done["read"] == len(items)
    again = world.must("POST", "/admin/v1/collateral", body)
    assert again["added"] == 0
    listed = world.must("GET", "/admin/v1/collateral")["collateral"]
    assert isinstance(listed, list)
    assert {one["kind"] for one in listed} >= {"rim", "ocsp"}


def test_what_is_no_manifest_or_answer_is_not_kept(gpus: World) -> None:
    forged = NVIDIA.rim(GPU, "driver", signer="stranger")
    for item in (
        b"{}",
        canonical_json({"id": "x", "rim": "%"}),
        canonical_json({"id": "x", "rim": b64(b"<x/>")}),
        canonical_json({"id": "x", "rim": b64(forged)}),
        canonical_json({"id": "x\0", "rim": b64(NVIDIA.rim(GPU, "driver"))}),
        bytes.fromhex("30030a0106"),
    ):
        answer = gpus.call("POST", "/admin/v1/collateral", {"items": [b64(item)]})
        assert answer.status_code == 400


SWITCHED = "acme/switched/model"
CHANGED = replace(GPUS[1], changed={9: bytes(48)})
DENIED: Sequence[tuple[str, Sequence[Device], str, set[str]]] = (
    ("too few", GPUS[:1], KEY, {"nvgpu.count"}),
    (
        "an old driver on one of them",
        (GPU, replace(GPUS[1], driver="550.54.15")),
        KEY,
        {"nvgpu.driver_version"},
    ),
    # What `safe: true` stands for: confidential mode, and developer tools off.
    (
        "one that differs from its manifests",
        (GPU, CHANGED),
        KEY,
        {"nvgpu.cc_mode", "nvgpu.debug"},
    ),
    (
        "Protected PCIe is no confidential mode",
        [replace(one, feature=2, ppcie=0xAA) for one in GPUS],
        KEY,
        {"nvgpu.cc_mode"},
    ),
    # The rule names the first one only; what it wants to be safe, all have to be.
    (
        "an unsafe one beside the one that is named",
        (GPU, CHANGED),
        FIRST,
        {"nvgpu.cc_mode", "nvgpu.debug"},
    ),
    (
        "a GPU is no switch",
        GPUS,
        SWITCHED,
        {"nvgpu.count", "nvswitch.count"},
    ),
)


def test_policies_judge_each_device_and_their_number(gpus: World, amd: FakeAmd) -> None:
    for why, devices, key, reasons in DENIED:
        seen = see(gpus, request(gpus, amd, devices, key=key))
        assert seen.status == 403, why
        assert set(seen.denied[key]) == reasons, why
    asked = request(gpus, amd, GPUS, key=FIRST)
    assert gpus.released(asked) == {f"{FIRST}@1": b"first"}
    asked = request(gpus, amd, (GPU, SWITCH), key=SWITCHED)
    assert gpus.released(asked) == {f"{SWITCHED}@1": b"switched"}


def test_evidence_that_fails_is_refused_whatever_policies_say(
    gpus: World, amd: FakeAmd
) -> None:
    # A surplus one: the policy does not ask for GPUs at all.
    lying = replace(GPUS[1], fwid_lie=b"\x01" * 48)
    seen = see(gpus, request(gpus, amd, (GPUS[0], lying), key="acme/cpu/model"))
    assert (seen.status, seen.checks) == (403, ["nvgpu.fwid"])
    again = replace(GPU, firmware="firmware-2")
    seen = see(gpus, request(gpus, amd, (GPU, again)))
    assert (seen.status, seen.checks) == (403, ["binding.duplicate"])
    # The policy tolerates that nothing is known, and not that it is on hold.
    hold = x509.ReasonFlags.certificate_hold
    nvidia = FakeNvidia(revoked={"GH100 device-1 brom": hold})
    key = "acme/offline/model"
    seen = see(gpus, request(gpus, amd, GPUS[:1], key=key, nvidia=nvidia))
    assert (seen.status, seen.checks) == (403, ["nvgpu.revocation"])
    asked = request(gpus, amd, GPUS[:1], key=key, status=False)
    assert gpus.released(asked) == {f"{key}@1": b"offline"}


def test_a_gpu_made_for_another_request_is_refused(gpus: World, amd: FakeAmd) -> None:
    mine, theirs = request(gpus, amd, GPUS), request(gpus, amd, GPUS)
    document, foreign = json.loads(mine.body), json.loads(theirs.body)
    document["items"][2] = foreign["items"][2]
    seen = see(gpus, json.dumps(document).encode())
    assert seen.status == 403
    assert set(seen.checks) == {"binding.primary", "binding.devices"}


def test_a_denied_gpu_gets_nothing_and_stands_in_no_log(
    gpus: World, amd: FakeAmd
) -> None:
    item = NVIDIA.item(GPU)
    verifier = PinnedNvidia()
    found = verifier.verify(verifier.parse(item, 0), Trust(now=NVIDIA.now))
    device = found.identities[0].removeprefix("gpu:")
    content = {"target": "gpu", "value": device, "reason": "stolen"}
    gpus.govern(Action.DENY, Kind.DENY, "acme", "no-gpu", json.dumps(content).encode())
    seen = see(gpus, request(gpus, amd, GPUS))
    assert seen.status == 403
    assert "answer" in seen.document
    assert device not in json.dumps(gpus.entries("release.denied"))


# --- the RCAR door ------------------------------------------------------------------


def guest(
    world: World, amd: FakeAmd, *devices: Device, hexed: bool = False
) -> RcarClient:
    return RcarClient(
        sender(world),
        tee="snp",
        evidence=snp_evidence(amd),
        devices={"nvidia": nvidia_evidence(NVIDIA, *devices, hexed=hexed)},
    )


def test_gpus_and_switches_come_by_rcar_in_one_list(gpus: World, amd: FakeAmd) -> None:
    source = policy("rcar", MEASURED, "{count: nvgpu, at_least: 2}")
    tenant = source.replace("acme/rcar", "default/rcar")
    gpus.activate_policy(
        tenant + "accept: {doors: [rcar]}\n", name="rcar", tenant="default"
    )
    gpus.create_key("default/rcar/key", b"by rcar")
    import_crl(gpus, amd)
    import_all(gpus, *GPUS, SWITCH)
    older = guest(gpus, amd, *GPUS, SWITCH, hexed=True)
    assert older.fetch("default/rcar/key") == b"by rcar"
    client = guest(gpus, amd, *GPUS, SWITCH)
    assert client.fetch("default/rcar/key") == b"by rcar"
    claims = jwt.decode(str(client.token), options={"verify_signature": False})
    assert set(claims["submods"]) == {"cpu0", "gpu0", "gpu1", "switch0"}
    evidence = claims["submods"]["gpu1"]["ear.veraison.annotated-evidence"]
    assert evidence["nvgpu"]["measurements_match"] is True

    client.auth()
    message: Any = client.message()
    evidence = message["tee-evidence"]
    # One space more in the text of the list: the same JSON, other bytes.
    evidence["additional_evidence"] += " "
    answer = client.attest(message)
    assert answer.status == 401
    assert "binding." in answer.json["detail"]
    # A whole chassis fits: eight GPUs and four switches beside the report.
    chassis = [other(GPU, f"gpu-{number}") for number in range(8)]
    chassis += [other(SWITCH, f"switch-{number}") for number in range(4)]
    import_all(gpus, *chassis)
    assert guest(gpus, amd, *chassis).fetch("default/rcar/key") == b"by rcar"
    many = [other(GPU, f"device-{number}") for number in range(16)]
    client = guest(gpus, amd, *many)
    client.auth()
    assert client.attest().status in {400, 401}


def import_crl(world: World, amd: FakeAmd) -> None:
    crl = amd.crl().public_bytes(Encoding.DER)
    world.must("POST", "/admin/v1/collateral", {"items": [b64(crl)]})
