"""Any bytes into the parsers of SNP: a value or a `MalformedError`, nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64, canonical_json
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.model import Trust
from kbs.evidence.sample.verify import SampleVerifier
from kbs.evidence.snp.abi import REPORT_BYTES, SIGNED_BYTES, parse_report
from kbs.evidence.snp.abi import serialize_report as serialize
from kbs.evidence.snp.certificates import parse_endorsement_key
from kbs.evidence.snp.verify import SnpVerifier
from tests.fakes.amd import VCEK, FakeAmd, item, sign_report

AMD = FakeAmd()
TURIN = FakeAmd(product="Turin")
BASES = [
    amd.report(version=version)
    for amd in (AMD, FakeAmd(product="Genoa"), TURIN)
    for version in (2, 3, 5)
]
VERIFIER = SnpVerifier()
ARC = "1.3.6.1.4.1.3704.1."

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.binary(max_size=2 * REPORT_BYTES))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    try:
        report = parse_report(data)
    except MalformedError:
        return
    assert serialize(report) == data


@given(
    st.sampled_from(BASES),
    st.lists(
        st.tuples(st.integers(0, REPORT_BYTES - 1), st.integers(0, 255)), max_size=4
    ),
)
def test_what_parses_after_any_change_serializes_to_the_same_bytes(
    base: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(base)
    for offset, value in changes:
        data[offset] = value
    try:
        report = parse_report(bytes(data))
    except MalformedError:
        return
    assert serialize(report) == bytes(data)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=48, max_size=48))
def test_bound_field_is_matched_exactly(report_data: bytes, binding: bytes) -> None:
    for bound in (report_data, binding + bytes(16)):
        body = AMD.report_body({"report_data": bound}, version=3, signing_key=VCEK)
        parsed = VERIFIER.parse(item(body.ljust(REPORT_BYTES, b"\0")), 0)
        matches = VERIFIER.bound_matches(parsed, binding)
        assert matches is (bound == binding + bytes(16))


@given(st.integers(0, SIGNED_BYTES * 8 - 1))
@settings(max_examples=50, deadline=timedelta(seconds=2))
def test_any_bit_flipped_in_the_signed_region_is_refused(bit: int) -> None:
    raw = bytearray(BASES[2])
    raw[bit // 8] ^= 1 << bit % 8
    document = item(bytes(raw), AMD.vcek(), AMD.ask, AMD.ark, crl=AMD.crl())
    try:
        parsed = VERIFIER.parse(document, 0)
    except MalformedError:
        return
    result = VERIFIER.verify(parsed, Trust(now=AMD.now, pinned_roots=AMD.pins()))
    assert verdict(result.checks) is Verdict.REFUSED
    assert not result.authenticated
    assert result.claims is None


@given(
    st.binary(max_size=12),
    st.binary(max_size=70),
    st.binary(max_size=20),
    st.booleans(),
)
@settings(deadline=timedelta(seconds=2))
def test_any_extension_values_are_a_key_or_malformed(
    number: bytes,
    hwid: bytes,
    text: bytes,
    turin: bool,  # noqa: FBT001
) -> None:
    extensions = AMD.extensions() | {ARC + "4": hwid, ARC + "2": text}
    extensions[ARC + ("3.9" if turin else "3.8")] = number
    try:
        key = parse_endorsement_key(AMD.leaf(VCEK, extensions))
    except MalformedError:
        return
    assert all(0 <= value <= 255 for value in key.tcb.values())
    assert key.hwid is not None
    assert len(key.hwid) in (8, 64)


@given(
    st.dictionaries(
        st.sampled_from(["kind", "report", "certificates", "crl", "other"]),
        json_values | st.sampled_from(["snp", b64(BASES[1])]),
    )
)
def test_any_item_is_parsed_or_malformed(document: dict[str, object]) -> None:
    try:
        parsed = VERIFIER.parse(document, 0)
    except MalformedError:
        return
    result = VERIFIER.verify(parsed, Trust(now=AMD.now, pinned_roots=AMD.pins()))
    assert verdict(result.checks) is not Verdict.VERIFIED


@given(
    st.dictionaries(
        st.sampled_from(["kind", "report_data", "claims", "other"]),
        json_values | st.sampled_from(["sample", b64(bytes(48))]),
    )
)
def test_any_sample_is_parsed_or_malformed(document: dict[str, object]) -> None:
    verifier = SampleVerifier()
    try:
        parsed = verifier.parse(document, 0)
    except MalformedError:
        return
    assert parsed.core == canonical_json(document)


def test_a_signature_over_another_length_is_refused() -> None:
    """The region that is signed is exactly the first 2A0h bytes."""
    raw = BASES[1]
    shorter = sign_report(raw[: SIGNED_BYTES - 1], AMD.key())
    with pytest.raises(KbsError):
        parse_report(shorter[:REPORT_BYTES])
