"""Any bytes into the parser of HCL reports: a value or a `MalformedError`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.checks import Verdict, verdict
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import parse_hcl_report
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.forms import FORMS, item_of, tee_of
from kbs.evidence.model import Trust
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from tests.fakes.azure import azure

VM = azure()
VERIFIER = AzureVerifier(SnpVerifier(), TdxVerifier())
REPORT = VM.hcl()
ITEM = VM.item()
EVIDENCE = VM.evidence(bytes(48))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def fuzz_hcl_report(data: bytes) -> None:
    """Read any bytes as an HCL report: a value or our error."""
    try:
        report = parse_hcl_report(data)
    except MalformedError:
        return
    assert report.raw == data
    assert len(report.report_data) == 64


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"HCLA" + b))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    fuzz_hcl_report(data)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 80),
)
def test_any_change_leaves_a_report_or_malformed(
    changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(REPORT)
    for offset, value in changes:
        data[offset % len(data)] = value
    fuzz_hcl_report(bytes(data[: len(data) - cut]))


@given(
    st.dictionaries(
        st.sampled_from(["keys", "vm-configuration", "user-data", "x"]), json_values
    )
)
@settings(deadline=timedelta(seconds=2))
def test_any_claims_are_a_report_or_malformed(changes: dict[str, Any]) -> None:
    fuzz_hcl_report(VM.hcl(VM.claims(**changes)))


@given(
    st.dictionaries(
        st.sampled_from([*ITEM, "td_quote", "collateral", "other"]), json_values
    )
)
@settings(deadline=timedelta(seconds=2))
def test_any_item_is_parsed_or_malformed(changes: dict[str, Any]) -> None:
    try:
        parsed = VERIFIER.parse({**ITEM, **changes}, 0)
    except MalformedError:
        return
    trust = Trust(now=VM.amd.now, pinned_roots=VM.amd.pins())
    result = VERIFIER.verify(parsed, trust)
    if changes.keys() & {"hcl_report", "vtpm"}:
        assert verdict(result.checks) is not Verdict.VERIFIED


@given(
    st.sampled_from(sorted(FORMS)),
    st.dictionaries(st.sampled_from([*EVIDENCE, "td_quote", "x"]), json_values),
)
@settings(deadline=timedelta(seconds=2))
def test_any_evidence_of_rcar_is_an_item_or_malformed(
    tee: str, changes: dict[str, Any]
) -> None:
    evidence = {**EVIDENCE, **changes}
    tee_of(evidence)
    try:
        item = item_of(tee, evidence)
    except MalformedError:
        return
    assert item["kind"] == FORMS[tee].kind
