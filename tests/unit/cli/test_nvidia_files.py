"""NVIDIA evidence and manifests in files, as the command line takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64, b64u
from tests.fakes.admin_bench import Bench, Ran, run
from tests.fakes.nvidia import NOW, Device, FakeNvidia, pem

NVIDIA = FakeNvidia()
GPU = Device()


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def verify(*arguments: object) -> Ran:
    return run("evidence", "verify", *map(str, arguments), "--json")


def entry(nonce: bytes = bytes(32)) -> dict[str, Any]:
    return {
        "arch": "HOPPER",
        "certificate": b64(pem(*NVIDIA.device_chain(GPU)).encode()),
        "evidence": b64(NVIDIA.report(GPU, nonce)),
        "nonce": nonce.hex(),
    }


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    path = tmp_path / "devices.json"
    path.write_text(json.dumps([entry(), entry(b"\x01" * 32)]))
    return path


def test_a_list_of_devices_is_known_by_its_content(devices: Path) -> None:
    """Nobody pinned the fake vendor's root, so that it is refused, device by device."""
    ran = verify(devices)
    assert ran.code == 1
    found = [(one["id"], one["item"]) for one in ran.json["checks"]]
    assert ("nvgpu.chain", 0) in found
    assert ("nvgpu.chain", 1) in found
    assert statuses(ran)["bundle.primary"] == "skipped"
    assert statuses(ran)["binding.duplicate"] == "fail"


def test_a_nonce_is_compared_with_every_device(devices: Path) -> None:
    ran = verify(devices, "--nonce", b64u(bytes(32)))
    nonces = {
        one["item"]: one["status"]
        for one in ran.json["checks"]
        if one["id"] == "binding.nonce"
    }
    assert nonces == {0: "pass", 1: "fail"}


def test_a_raw_report_takes_its_chain_from_options(tmp_path: Path) -> None:
    report, chain = tmp_path / "report.bin", tmp_path / "chain.pem"
    report.write_bytes(NVIDIA.report(GPU))
    chain.write_text(pem(*NVIDIA.device_chain(GPU)))
    assert statuses(verify(report))["nvgpu.report.signature"] == "unchecked"
    ran = verify(report, "--cert", chain)
    assert statuses(ran)["nvgpu.report.signature"] == "pass"
    assert statuses(ran)["nvgpu.chain"] == "fail"


def test_a_report_in_base64_is_the_same_report(tmp_path: Path) -> None:
    report, chain = tmp_path / "report.txt", tmp_path / "chain.pem"
    report.write_text(b64(NVIDIA.report(GPU)) + "\n")
    chain.write_text(pem(*NVIDIA.device_chain(GPU)))
    for kind in ([], ["--kind", "nvgpu"]):
        ran = verify(report, "--cert", chain, *kind)
        assert statuses(ran)["nvgpu.report.signature"] == "pass"


def test_status_comes_by_crl(tmp_path: Path) -> None:
    report, chain = tmp_path / "report.bin", tmp_path / "chain.pem"
    report.write_bytes(NVIDIA.report(GPU))
    chain.write_text(pem(*NVIDIA.device_chain(GPU)))
    answer = tmp_path / "answer.der"
    answer.write_bytes(NVIDIA.answers(GPU)[0].public_bytes(Encoding.DER))
    ran = verify(report, "--cert", chain, "--crl", answer)
    assert ran.code == 1
    nothing = tmp_path / "nothing.der"
    nothing.write_bytes(b"\x30\x03\x0a\x01\x06")
    ran = run("evidence", "verify", str(report), "--crl", str(nothing))
    assert ran.code == 2
    ran.assert_one_error_line()


@pytest.mark.parametrize(
    ("data", "code"), [(b"11e0 0", 2), (b'[{"evidence": 1, "certificate": 2}]', 2)]
)
def test_evidence_without_its_shape_is_malformed(
    tmp_path: Path, data: bytes, code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    ran = verify(path)
    assert ran.code == code
    assert statuses(ran) == {"nvgpu.parse": "fail"}
    shown = run("evidence", "inspect", str(path), "--json")
    assert shown.code == 2
    assert "error" in shown.json["items"][0]


def test_a_manifest_alone_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "rim.xml"
    path.write_bytes(NVIDIA.rim(GPU, "driver"))
    ran = verify(path, "--at", NOW.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert ran.code == 1
    assert statuses(ran)["nvgpu.rim.signature"] == "pass"
    assert statuses(ran)["nvgpu.rim.chain"] == "fail"
    shown = run("evidence", "inspect", str(path), "--json").json["items"][0]
    assert shown["kind"] == "rim"
    assert shown["rim"]["version"] == GPU.driver
    path.write_bytes(b"<SoftwareIdentity/>")
    ran = verify(path)
    assert ran.code == 2
    assert statuses(ran) == {"nvgpu.rim.parse": "fail"}
    assert run("evidence", "inspect", str(path), "--json").code == 2


@pytest.mark.parametrize("options", [[], ["--kind", "rim"]])
def test_an_answer_of_the_service_is_the_manifest_in_it(
    tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "answer.json"
    answer = {"id": "NV_X", "rim": b64(NVIDIA.rim(GPU, "driver")), "sha256": "00"}
    path.write_text(json.dumps(answer))
    ran = verify(path, *options)
    assert statuses(ran)["nvgpu.rim.signature"] == "pass"
    shown = run("evidence", "inspect", str(path), *options, "--json").json["items"][0]
    assert shown["rim"]["version"] == GPU.driver
    # What is in it counts, not what stands beside it.
    path.write_text(json.dumps(answer | {"rim": b64(b"<SoftwareIdentities/>")}))
    ran = verify(path, "--kind", "rim")
    assert (ran.code, statuses(ran)) == (2, {"nvgpu.rim.parse": "fail"})


@pytest.mark.parametrize(
    "options", [("--nonce", "AAAA"), ("--cert", "x"), ("--rim", "x"), ("--ak", "x")]
)
def test_what_means_nothing_beside_a_manifest_is_refused(
    tmp_path: Path, options: tuple[str, str]
) -> None:
    path = tmp_path / "rim.xml"
    path.write_bytes(NVIDIA.rim(GPU, "driver"))
    ran = run("evidence", "verify", str(path), *options)
    assert ran.code == 2
    ran.assert_one_error_line()


def test_a_file_that_is_no_manifest_is_no_rim(devices: Path, tmp_path: Path) -> None:
    for content in (b"text", b'{"id": "x"}', b'{"id": "x", "rim": "QUFB"}'):
        path = tmp_path / "rim"
        path.write_bytes(content)
        ran = run("evidence", "verify", str(devices), "--rim", str(path))
        assert ran.code == 2
        ran.assert_one_error_line()


# --- recorded evidence ----------------------------------------------------------------


@pytest.mark.vectors
def test_a_recorded_gpu_with_its_manifests_verifies(vectors: Path) -> None:
    folder = vectors / "nvidia"
    rims = [
        f"--rim={folder / f'h100-nvtrust-nogpu.{name}-rim.swidtag'}"
        for name in ("driver", "vbios")
    ]
    report = folder / "h100-gonvtrust.bin"
    chain = f"--cert={folder / 'h100-gonvtrust.chain.pem'}"
    ran = verify(report, chain, *rims, "--at", "2024-06-01T00:00:00Z")
    assert (ran.code, ran.json["verdict"]) == (0, "verified")
    assert ran.json["claims"]["nvgpu"]["cc_mode"] == "on"
    late = verify(report, chain, *rims, "--at", "2035-01-01T00:00:00Z")
    assert (late.code, late.json["verdict"]) == (3, "unchecked")
    without = verify(report, chain, "--at", "2024-06-01T00:00:00Z")
    assert without.code == 3
    assert "NV_GPU_DRIVER_GH100_545.00" in without.out


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["h100-590.json", "ls10-switch.json"])
def test_recorded_lists_are_inspected(vectors: Path, name: str) -> None:
    ran = run("evidence", "inspect", str(vectors / "nvidia" / name), "--json")
    assert ran.code == 0
    (item,) = ran.json["items"]
    assert item["kind"] == "nvgpu"
    assert len(item["nvgpu"]["nonce"]) == 64


# --- kbs ref import-rim -------------------------------------------------------------


@pytest.mark.vectors
@pytest.mark.enable_socket
def test_manifests_are_imported(
    shared_bench: Bench, vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / "nvidia"
    named = tmp_path / "NV_GPU_DRIVER_GH100_550.144.03.xml"
    document = (folder / "driver-rim-gh100-550.144.03.xml").read_bytes()
    named.write_bytes(document)
    done = shared_bench.must("ref", "import-rim", str(named))
    assert (done["read"], done["added"]) == (1, 1)
    assert done["rims"][0]["id"] == "NV_GPU_DRIVER_GH100_550.144.03"
    service = tmp_path / "answer.json"
    answer = {"id": "NV_GPU_DRIVER_GH100_550.144.03", "rim": b64(document)}
    service.write_text(json.dumps({**answer, "rim_format": "TCG"}))
    again = shared_bench.must("ref", "import-rim", str(service))
    assert again["added"] == 0
    listed = shared_bench.must("collateral", "list")["collateral"]
    assert [one["subject"] for one in listed if one["kind"] == "rim"] == [
        "NV_GPU_DRIVER_GH100_550.144.03"
    ]
    old = folder / "vbios-rim-1010_0200_882_96005E0001.swidtag"
    ran = shared_bench.run(
        "ref", "import-rim", str(old), "--id", "NV_GPU_VBIOS_1010_0200_882_96005E0001"
    )
    assert ran.code == 0
    assert "warning: " in ran.out


@pytest.mark.vectors
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "name", ["driver-rim-bad-signature.xml", "driver-rim-bad-chain.xml"]
)
def test_manifests_that_nvidia_did_not_sign_are_not(
    shared_bench: Bench, vectors: Path, name: str
) -> None:
    before = len(shared_bench.requests)
    ran = shared_bench.run("ref", "import-rim", str(vectors / "nvidia" / name))
    assert ran.code == 1
    ran.assert_one_error_line()
    assert len(shared_bench.requests) == before


@pytest.mark.enable_socket
def test_one_id_is_for_one_file(shared_bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "rim.xml"
    path.write_bytes(NVIDIA.rim(GPU, "driver"))
    ran = shared_bench.run("ref", "import-rim", str(path), str(path), "--id", "x")
    assert ran.code == 2
    ran.assert_one_error_line()


@pytest.mark.enable_socket
def test_an_ocsp_answer_is_imported(shared_bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "answer.der"
    path.write_bytes(NVIDIA.answers(GPU)[1].public_bytes(Encoding.DER))
    done = shared_bench.must("collateral", "import", str(path))
    assert (done["read"], done["added"]) == (1, 1)
    assert "ocsp" in shared_bench.run("collateral", "list").out
