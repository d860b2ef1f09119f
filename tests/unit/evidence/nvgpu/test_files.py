"""Reports in the forms in which NVIDIA's tools and their users write them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.forms import item_of, items_of
from kbs.evidence.nvgpu.abi import is_report, parse_report, serialize_report
from kbs.evidence.nvgpu.files import is_device_file, items_of_file
from kbs.evidence.nvgpu.opaque import Field
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from tests.fakes.nvidia import SWITCH, Device, FakeNvidia, other, pem

NVIDIA = FakeNvidia()
GPU = Device()
REPORT = NVIDIA.report(GPU, b"\x07" * 32)
VERIFIER = NvGpuVerifier()


def entry(device: Device = GPU, **changes: Any) -> dict[str, Any]:
    """One entry of the list that NVIDIA's SDKs write."""
    report = NVIDIA.report(device, b"\x07" * 32)
    given: dict[str, Any] = {
        "arch": "LS10" if device.is_switch else "HOPPER",
        "certificate": b64(pem(*NVIDIA.device_chain(device)).encode()),
        "evidence": b64(report),
        "nonce": "07" * 32,
        "version": "1.0",
    }
    return given | changes


def wrapped(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def wrapper() -> dict[str, Any]:
    chain = pem(*NVIDIA.device_chain(GPU)).encode()
    member = {
        "__cmwc_t": "tag:nvidia.com,2026:evidence-item/v1",
        "evidence": [
            "application/vnd.nvidia.spdm-measurement-transcript",
            wrapped(REPORT),
        ],
        "certificate": [
            "application/vnd.nvidia.pem-cert-chain",
            wrapped(base64.b64encode(chain)),
        ],
        "nonce": ["application/octet-stream", wrapped(b"\x07" * 32)],
    }
    return {
        "__cmwc_t": "tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0",
        "nonce": ["application/octet-stream", wrapped(b"\x07" * 32)],
        "gpu_0": member,
    }


FORMS = {
    "binary": REPORT,
    "hex": REPORT.hex().encode(),
    "hex in lines": b"\n".join(
        REPORT.hex().upper().encode()[at : at + 64]
        for at in range(0, 2 * len(REPORT), 64)
    ),
    "list": json.dumps([entry()]).encode(),
    "hex in a list": json.dumps([entry(evidence=REPORT.hex())]).encode(),
    "rcar": json.dumps({"device_evidence_list": [entry()]}).encode(),
    "wrapper": json.dumps(wrapper()).encode(),
    "alone": json.dumps(entry()).encode(),
    "pem": json.dumps([entry(certificate=pem(*NVIDIA.device_chain(GPU)))]).encode(),
    "asked of the service": json.dumps(
        {
            "nonce": "07" * 32,
            "arch": "HOPPER",
            "evidence_list": [
                {name: entry()[name] for name in ("certificate", "evidence")}
            ],
        }
    ).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_report(form: str) -> None:
    assert is_device_file(FORMS[form])
    (item,) = items_of_file(FORMS[form])
    assert item["report"] == b64(REPORT)
    parsed = VERIFIER.parse(item, 0)
    assert parsed.bound == b"\x07" * 32
    if form not in {"binary", "hex", "hex in lines"}:
        assert item["nonce"] == "07" * 32
        assert len(parsed.body.certificates) == 5  # type: ignore[attr-defined]


def test_a_wrapper_may_lack_the_nonce_and_holds_reports_only() -> None:
    document = wrapper()
    del document["gpu_0"]["nonce"]
    (item,) = items_of_file(json.dumps(document).encode())
    assert "nonce" not in item
    document["gpu_0"]["evidence"][0] = "application/octet-stream"
    with pytest.raises(MalformedError, match="evidence"):
        items_of_file(json.dumps(document).encode())


def test_a_pem_chain_may_be_wrapped_as_it_is() -> None:
    document = wrapper()
    chain = pem(*NVIDIA.device_chain(GPU)).encode()
    document["gpu_0"]["certificate"][1] = wrapped(chain)
    (item,) = items_of_file(json.dumps(document).encode())
    assert item["certificates"] == chain.decode()


def test_an_entry_may_lack_nonce_and_generation() -> None:
    bare = {name: entry()[name] for name in ("certificate", "evidence")}
    (item,) = items_of_file(json.dumps([bare]).encode())
    assert set(item) == {"kind", "report", "certificates"}


def test_what_a_device_says_itself_comes_before_what_is_said_of_all() -> None:
    document = {
        "nonce": "08" * 32,
        "arch": "BLACKWELL",
        "evidence_list": [entry(), {**entry(), "nonce": "09" * 32}],
    }
    items = items_of_file(json.dumps(document).encode())
    assert [one["nonce"] for one in items] == ["07" * 32, "09" * 32]
    assert [one["arch"] for one in items] == ["HOPPER"] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"11e1",
        b"\x11\xe1",
        b"text",
        b'{"a": ["evidence", "certificate"]}',
        b'{"evidence" "certificate"',
    ],
)
def test_other_files_are_none(data: bytes) -> None:
    assert not is_device_file(data)


@pytest.mark.parametrize(
    "document",
    [
        [],
        [7],
        [{}],
        [entry(evidence="%%%")],
        [entry(evidence=7)],
        [entry(certificate="%%%")],
        [entry(nonce=7)],
        [entry()] * 17,
        {"device_evidence_list": 7},
        {"evidence_list": []},
        {"evidence_list": [7]},
        {"__cmwc_t": "x"},
        {"__cmwc_t": "x", "gpu_0": {}},
        {"__cmwc_t": "x", "gpu_0": {"evidence": ["x", "AA"], "certificate": ["", "A"]}},
    ],
)
def test_another_shape_is_malformed(document: Any) -> None:
    with pytest.raises(MalformedError):
        items_of_file(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"11e0f", b"11e0" * 9000])
def test_hex_has_pairs_and_an_end(data: bytes) -> None:
    with pytest.raises(MalformedError):
        items_of_file(data)


# --- the form of RCAR guests --------------------------------------------------------


def test_gpus_and_switches_of_a_guest_stand_in_one_list() -> None:
    devices = [GPU, other(GPU, "device-2"), SWITCH]
    evidence = {"device_evidence_list": [entry(one) for one in devices]}
    items = items_of("nvidia", evidence)
    assert [item["kind"] for item in items] == ["nvgpu"] * 3
    assert [item["arch"] for item in items] == ["HOPPER", "HOPPER", "LS10"]
    with pytest.raises(MalformedError, match="3 devices"):
        item_of("nvidia", evidence)


def test_a_list_of_none_is_malformed() -> None:
    with pytest.raises(MalformedError):
        items_of("nvidia", {"device_evidence_list": []})
    with pytest.raises(MalformedError):
        items_of("nvidia", {})


# --- the report's layout ------------------------------------------------------------


def changed(at: int, value: int) -> bytes:
    data = bytearray(REPORT)
    data[at] = value
    return bytes(data)


# Offsets in the request (37 bytes), the response's header (8) and the first block.
@pytest.mark.parametrize(
    "data",
    [
        b"",
        REPORT[:-1],
        changed(0, 0x12),
        changed(1, 0xE1),
        changed(2, 0x00),
        changed(37, 0x12),
        changed(38, 0x61),
        changed(41, 63),
        changed(41, 65),
        changed(42, 0xC1),
        changed(45, 0),
        changed(46, 2),
        changed(47, 0x34),
        changed(49 + 1, 0x31),
        changed(45 + 55, 1),
        REPORT + bytes(8192),
    ],
)
def test_a_report_of_another_layout_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_report(data)


def test_no_measurement_at_all_is_malformed() -> None:
    head = REPORT[:41]
    empty = head + bytes(4) + bytes(32) + bytes(2) + bytes(96)
    with pytest.raises(MalformedError, match="at least one"):
        parse_report(empty)


@pytest.mark.parametrize(
    "opaque",
    [
        {6: b"\x01"},
        {3: b"a b"},
        {22: b"\x01"},
        {36: b""},
        {36: bytes(9)},
    ],
)
def test_a_field_of_another_form_is_malformed(opaque: dict[int, bytes]) -> None:
    report = NVIDIA.report(Device(opaque=opaque))
    with pytest.raises(MalformedError):
        parse_report(report)


def test_spaces_and_zeros_around_a_text_are_no_part_of_it() -> None:
    report = NVIDIA.report(Device(opaque={17: b" 1010 \0\0"}))
    parsed = parse_report(report)
    assert serialize_report(parsed) == report
    assert parsed.opaque.text(Field.PROJECT) == "1010"


def test_unknown_fields_are_kept() -> None:
    report = NVIDIA.report(Device(opaque={26: b"xyz", 7777: b""}))
    parsed = parse_report(report)
    assert serialize_report(parsed) == report
    assert (26, b"xyz") in parsed.opaque.fields


def test_a_type_twice_is_malformed() -> None:
    body = NVIDIA.report_body(GPU, bytes(32))
    field = (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + b"x"
    size = len(body) - body.index(b"580.95.05") + 4
    assert size
    start = 45 + 64 * 55 + 32
    length = int.from_bytes(body[start : start + 2], "little") + len(field)
    twice = body[:start] + length.to_bytes(2, "little") + body[start + 2 :] + field
    with pytest.raises(MalformedError, match="twice"):
        parse_report(twice + bytes(96))


def test_a_report_is_known_by_its_first_bytes() -> None:
    assert is_report(REPORT)
    assert not is_report(b"\x11")
