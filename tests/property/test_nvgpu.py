"""Any bytes into the parsers of NVIDIA evidence: a value or an error of ours.

The functions named `fuzz_…` take bytes and allow nothing else; a fuzzer can call them.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64, canonical_json, parse_json_object
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.model import Trust
from kbs.evidence.nvgpu.abi import parse_report, serialize_report
from kbs.evidence.nvgpu.files import is_device_file, items_of_file
from kbs.evidence.nvgpu.opaque import parse_opaque, serialize_opaque
from kbs.evidence.nvgpu.rim import read_header, verify_rim
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from kbs.pki.ocsp import load_ocsp_answer
from tests.fakes.nvidia import NOW, SWITCH, Device, FakeNvidia

NVIDIA = FakeNvidia()
GPU = Device()
BASES = [NVIDIA.report(one) for one in (GPU, Device(chip="GB100"), SWITCH)]
ITEM = NVIDIA.item(GPU)
RIM = NVIDIA.rim(GPU, "driver")
VERIFIER = NvGpuVerifier()
TRUST = Trust(now=NOW, pinned_roots=NVIDIA.pins())

SLOW = settings(deadline=timedelta(seconds=5), max_examples=60)


def fuzz_report(data: bytes) -> None:
    """What parses is written back byte for byte."""
    try:
        report = parse_report(data)
    except MalformedError:
        return
    assert serialize_report(report) == data


def fuzz_opaque(data: bytes) -> None:
    """What parses is written back, and every value can be asked for."""
    try:
        opaque = parse_opaque(data)
    except MalformedError:
        return
    assert serialize_opaque(opaque) == data
    assert opaque.vbios_version is None or opaque.vbios_version.isascii()
    assert all(len(pdi) == 16 for pdi in opaque.pdis)
    assert opaque.feature in {None, "spt", "mpt", "ppcie", "unknown"}


def fuzz_rim(data: bytes) -> None:
    """A document that nobody signed gives no values."""
    for read in (read_header, verify_rim):
        try:
            read(data)
        except KbsError:
            continue


def fuzz_file(data: bytes) -> None:
    """A file is of one of the forms, or malformed."""
    is_device_file(data)
    try:
        items = items_of_file(data)
    except MalformedError:
        return
    for index, item in enumerate(items):
        try:
            VERIFIER.parse(item, index)
        except MalformedError:
            continue


def fuzz_ocsp(data: bytes) -> None:
    """An OCSP answer, or malformed."""
    try:
        load_ocsp_answer(data, "answer")
    except MalformedError:
        return


def fuzz_item(data: bytes) -> None:
    """An item of a bundle, parsed, verified and shown; nothing made up verifies."""
    try:
        parsed = VERIFIER.parse(parse_json_object(data, "item", limit=1 << 20), 0)
    except MalformedError:
        return
    VERIFIER.inspect(parsed)
    result = VERIFIER.verify(parsed, TRUST)
    assert result.claims is None or canonical_json(ITEM) == data


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    for fuzz in (fuzz_report, fuzz_opaque, fuzz_rim, fuzz_file, fuzz_ocsp, fuzz_item):
        fuzz(data)


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 4300), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
)
def test_any_change_to_a_report(
    base: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(base)
    for at, value in changes:
        data[at % len(data)] = value
    fuzz_report(bytes(data[: len(data) - cut]))


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=20)), max_size=6))
def test_any_fields(fields: list[tuple[int, bytes]]) -> None:
    data = b"".join(
        kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
        for kind, value in fields
    )
    fuzz_opaque(data)


@given(st.integers(0, 8 * (len(BASES[2]) - 1)))
@SLOW
def test_any_bit_of_a_report_is_refused(bit: int) -> None:
    data = bytearray(BASES[2])
    data[bit // 8] ^= 1 << bit % 8
    item = NVIDIA.item(SWITCH, report=bytes(data))
    try:
        parsed = VERIFIER.parse(item, 0)
    except MalformedError:
        return
    result = VERIFIER.verify(parsed, TRUST)
    assert verdict(result.checks) is Verdict.REFUSED
    assert not result.authenticated


@given(st.integers(0, len(RIM) - 1), st.binary(min_size=1, max_size=3))
@SLOW
def test_any_change_to_a_manifest(at: int, patch: bytes) -> None:
    data = RIM[:at] + patch + RIM[at + len(patch) :]
    try:
        rim = verify_rim(data)
    except KbsError:
        return
    assert rim.measurements == verify_rim(RIM).measurements


@given(
    st.dictionaries(
        st.sampled_from(["kind", "report", "certificates", "nonce", "rims", "ocsp"]),
        st.none()
        | st.integers(-9, 9)
        | st.text(max_size=8)
        | st.sampled_from(["nvgpu", b64(BASES[0])])
        | st.lists(st.text(max_size=8), max_size=3),
    )
)
def test_any_item(document: dict[str, object]) -> None:
    fuzz_item(canonical_json(document))


@given(st.sampled_from([[], {}, 7, "x", None]), st.text(max_size=12))
def test_any_json_file(value: object, text: str) -> None:
    for name in ("evidence", "certificate", "nonce", "arch"):
        entry = {"evidence": b64(BASES[2]), "certificate": "", name: value}
        fuzz_file(canonical_json([entry]))
        fuzz_file(canonical_json({"device_evidence_list": [{**entry, name: text}]}))
        fuzz_file(canonical_json({"__cmwc_t": text, "gpu_0": {name: [text, text]}}))


def test_the_good_item_stays_good() -> None:
    """So that the fuzzers above begin somewhere."""
    fuzz_item(canonical_json(ITEM))
    with pytest.raises(KbsError):
        verify_rim(RIM[:-1])
