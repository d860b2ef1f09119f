"""Any bytes into the reader of attestations: a value or a `MalformedError`."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.errors import MalformedError
from kbs.evidence.gce.attestation import (
    check_others,
    is_attestation,
    parse_attestation,
)
from kbs.evidence.gce.wire import Schema, read_message
from tests.fakes.amd import FakeAmd
from tests.fakes.gce import attestation, number, octets, snp_attestation, td_quote
from tests.fakes.intel import FakeIntel
from tests.fakes.tpm import FakeTpm

PLAIN = attestation(FakeTpm(), b"nonce", banks=("sha256", "sha384"))
BASES = [
    PLAIN,
    PLAIN + octets(8, snp_attestation(FakeAmd(), b"nonce")),
    PLAIN + octets(9, td_quote(FakeIntel(), b"nonce")),
]
SCHEMA = Schema(
    numbers={1: "one", 3: "three"}, octets={2: "two"}, repeated=frozenset({"two"})
)


def fuzz_attestation(data: bytes) -> None:
    """Read any bytes as an attestation: items or our error."""
    is_attestation(data)
    try:
        found = parse_attestation(data)
        check_others(found, 0)
    except MalformedError:
        return
    assert {item["kind"] for item in found.items} <= {"snp", "tdx", "vtpm"}


@given(st.binary(max_size=300))
def test_any_bytes_are_an_attestation_or_malformed(data: bytes) -> None:
    fuzz_attestation(data)


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
)
@settings(deadline=timedelta(seconds=2))
def test_any_change_leaves_an_attestation_or_malformed(
    base: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(base)
    for offset, value in changes:
        data[offset % len(data)] = value
    fuzz_attestation(bytes(data[: len(data) - cut]))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        message = read_message(data, SCHEMA, "message")
    except MalformedError:
        return
    # One spelling: what is read is as long as what is written of it.
    fields = [number(1, value) or b"\x08\0" for value in message.numbers.values()]
    fields += [octets(2, one) or b"\x12\0" for one in message.all("two")]
    assert sum(map(len, fields)) == len(data)
