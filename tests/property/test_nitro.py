"""Any bytes into the parser of Nitro documents: a value or a `MalformedError`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import Trust
from kbs.evidence.nitro.document import kind_of, parse_document
from kbs.evidence.nitro.verify import NitroVerifier
from tests.fakes.nitro import NOW, nitro

AWS = nitro()
VERIFIER = NitroVerifier()
DOCUMENTS = [AWS.document(user_data=bytes(48), nonce=b"n"), AWS.tpm_document()]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.binary(max_size=64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(), inner),
    max_leaves=4,
)


def fuzz_document(data: bytes) -> None:
    """Read any bytes as a document: a value or our error."""
    try:
        document = parse_document(data)
    except MalformedError:
        return
    assert document.raw == data


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_malformed(data: bytes) -> None:
    fuzz_document(data)
    kind_of(data)


@given(
    st.sampled_from(DOCUMENTS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 8),
)
def test_any_change_leaves_a_document_or_malformed(
    base: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(base)
    for offset, value in changes:
        data[offset % len(data)] = value
    fuzz_document(bytes(data[: len(data) - cut]))


@given(
    st.dictionaries(
        st.sampled_from(["module_id", "timestamp", "pcrs", "cabundle", "nonce", "x"]),
        values,
    )
)
@settings(deadline=timedelta(seconds=2))
def test_any_signed_members_are_a_document_or_malformed(
    changes: dict[str, Any],
) -> None:
    fuzz_document(AWS.sign(cbor2.dumps(AWS.members(**changes))))


@given(st.integers(0, 8 * len(DOCUMENTS[0]) - 1))
@settings(max_examples=40, deadline=timedelta(seconds=2))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(DOCUMENTS[0])
    data[bit // 8] ^= 1 << bit % 8
    try:
        parsed = VERIFIER.parse({"kind": "nitro", "document": b64(bytes(data))}, 0)
    except MalformedError:
        return
    result = VERIFIER.verify(parsed, Trust(now=NOW, pinned_roots=AWS.pins))
    assert verdict(result.checks) is Verdict.REFUSED
    assert not result.authenticated
    assert result.claims is None
