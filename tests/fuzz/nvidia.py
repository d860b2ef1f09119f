"""Fuzz targets of NVIDIA devices: reports, manifests, OCSP answers, forms of files."""

from __future__ import annotations

import json
from collections.abc import Iterable

from cryptography.hazmat.primitives.serialization import Encoding

from kbs.broker.collateral_rows import device_row
from kbs.core.encode import parse_json_object
from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from kbs.evidence.model import StoredRim, Trust
from kbs.evidence.nvgpu.abi import parse_report, serialize_report
from kbs.evidence.nvgpu.files import is_device_file, items_of_file
from kbs.evidence.nvgpu.inspection import inspect_rim
from kbs.evidence.nvgpu.opaque import parse_opaque, serialize_opaque
from kbs.evidence.nvgpu.rim import read_header, verify_rim
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.evidence.registry import VERIFIERS
from kbs.pki.ocsp import MAX_OCSP_BYTES, load_ocsp_answer
from tests.fakes.nvidia import NOW, SWITCH, Device, FakeNvidia
from tests.fuzz.clouds import appraised
from tests.fuzz.target import KIB, Shape, Target

NVIDIA = FakeNvidia()
GPU = Device()
DEVICES = (GPU, Device(chip="GB100"), SWITCH)
TRUST = Trust(now=NOW, pinned_roots=NVIDIA.pins())


def _report(data: bytes) -> None:
    report = parse_report(data)
    assert serialize_report(report) == data


def _opaque(data: bytes) -> None:
    assert serialize_opaque(parse_opaque(data)) == data


def _item(data: bytes) -> None:
    item = parse_json_object(data, "item", limit=MAX_BUNDLE_BYTES)
    appraised("nvgpu", item, TRUST)


def _file(data: bytes) -> None:
    is_device_file(data)
    for index, item in enumerate(items_of_file(data)):
        VERIFIERS["nvgpu"].parse(item, index)


def _file_seeds() -> Iterable[bytes]:
    item = NVIDIA.item(GPU)
    entry = {"evidence": item["report"], "certificate": "", "nonce": "00" * 32}
    yield NVIDIA.report(GPU)
    yield NVIDIA.report(SWITCH).hex().encode()
    yield json.dumps([entry]).encode()
    yield json.dumps({"device_evidence_list": [entry]}).encode()


def _rim(data: bytes) -> None:
    json.dumps(inspect_rim(StoredRim(data), RimShelf())).encode()
    read_header(data)
    verify_rim(data)


def _row(data: bytes) -> None:
    device_row(data, "item", NOW)


TARGETS = (
    Target(
        name="nvgpu.report",
        run=_report,
        seeds=lambda: (NVIDIA.report(one) for one in DEVICES),
        recorded=("nvidia/*.bin",),
        most_bytes=16 * KIB,
    ),
    Target(
        name="nvgpu.opaque",
        run=_opaque,
        seeds=lambda: (
            serialize_opaque(parse_report(NVIDIA.report(one)).opaque) for one in DEVICES
        ),
        most_bytes=4 * KIB,
    ),
    Target(
        name="nvgpu.item",
        run=_item,
        seeds=lambda: (json.dumps(NVIDIA.item(one)).encode() for one in DEVICES),
        shape=Shape.JSON,
        most_bytes=MAX_BUNDLE_BYTES,
    ),
    Target(
        name="nvgpu.file",
        run=_file,
        seeds=_file_seeds,
        recorded=("nvidia/*.bin", "nvidia/h100-590.json", "nvidia/ls10-switch.json"),
    ),
    Target(
        name="nvgpu.rim",
        run=_rim,
        seeds=lambda: (NVIDIA.rim(GPU, "driver"), NVIDIA.rim(SWITCH, "vbios")),
        allowed=(MalformedError, VerificationError),
        recorded=("nvidia/*.xml", "nvidia/*.swidtag"),
        most_bytes=MAX_RIM_BYTES,
    ),
    Target(
        name="nvgpu.row",
        run=_row,
        seeds=lambda: (one.public_bytes(Encoding.DER) for one in NVIDIA.answers(GPU)),
        shape=Shape.JSON,
    ),
    Target(
        name="x509.ocsp",
        run=lambda data: load_ocsp_answer(data, "answer"),
        seeds=lambda: (one.public_bytes(Encoding.DER) for one in NVIDIA.answers(GPU)),
        most_bytes=MAX_OCSP_BYTES,
    ),
)
