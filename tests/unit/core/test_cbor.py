"""What the strict CBOR reader accepts, and what it refuses that cbor2 would take."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.cbor import MAX_DEPTH, Tagged, parse_cbor, write_cbor
from kbs.core.errors import MalformedError

LIMIT = 4096

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.integers(-5, 300) | st.text(max_size=5) | st.binary(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def read(text: str, **options: object) -> object:
    return parse_cbor(bytes.fromhex(text), "item", limit=LIMIT, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # RFC 8949, appendix A.
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("1bffffffffffffffff", 2**64 - 1),
        ("3903e7", -1000),
        ("f4", False),
        ("f6", None),
        ("4401020304", b"\x01\x02\x03\x04"),
        ("6449455446", "IETF"),
        ("8301820203820405", [1, [2, 3], [4, 5]]),
        ("a201020304", {1: 2, 3: 4}),
        ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ],
)
def test_examples_of_the_specification_are_read(text: str, value: object) -> None:
    assert read(text) == value
    assert write_cbor(value).hex() == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "head"),
        ("0000", "after its end"),
        ("1817", "shortest form"),
        ("190018", "shortest form"),
        ("1a0000ffff", "shortest form"),
        ("1b00000000ffffffff", "shortest form"),
        ("5801ff", "shortest form"),
        ("1c", "definite length"),
        ("9f01ff", "definite length"),
        ("bf6161 01ff", "definite length"),
        ("5f4101ff", "definite length"),
        ("ff", "definite length"),
        ("f90000", "no float"),
        ("fb3ff199999999999a", "no float"),
        ("f7", "false, true or null"),
        ("f0", "false, true or null"),
        ("f818", "no float"),
        ("c074323031332d30332d32315432303a30343a30305a", "no such tag"),
        ("d8234161", "no such tag"),
        ("d81c80", "no such tag"),
        ("d9d9f701", "no such tag"),
        ("a201020103", "strict CBOR"),
        ("a1f501", "an integer or a string"),
        ("a1810102", "an integer or a string"),
        ("a16161", "head"),
        ("9b00ffffffffffffff", "head"),
        ("5b00ffffffffffffff", "string"),
        ("61ff", "strict CBOR"),
        ("81" * MAX_DEPTH + "01", "deep"),
    ],
)
def test_every_other_form_is_refused(text: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        read(text)


def test_expected_tags_are_kept_and_others_refused() -> None:
    assert read("d28101", tags={18}) == Tagged(18, [1])
    assert read("d281a1018100", tags={18}) == Tagged(18, [{1: [0]}])
    with pytest.raises(MalformedError, match="tag 17"):
        read("d18101", tags={18})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9f01ff", [1]),
        ("bf616101ff", {"a": 1}),
        ("5f41014102ff", b"\x01\x02"),
        ("7f61616162ff", "ab"),
        ("9fff", []),
    ],
)
def test_indefinite_lengths_are_read_where_allowed(text: str, value: object) -> None:
    assert read(text, indefinite=True) == value


@pytest.mark.parametrize(
    "text", ["9f01", "bf6161ff", "5f6161ff", "5f5f4101ffff", "1f", "df01ff", "9f01ff00"]
)
def test_bad_indefinite_lengths_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read(text, indefinite=True)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most 3"):
        parse_cbor(b"\x44abcd", "item", limit=3)


@given(plain_values)
def test_what_cbor2_writes_is_read_back(value: object) -> None:
    assert parse_cbor(write_cbor(value), "item", limit=1 << 20) == value


def fuzz_cbor(data: bytes, *, indefinite: bool = False) -> None:
    """Read any bytes as an item: a value of as many bytes, or our error."""
    try:
        value = parse_cbor(data, "item", limit=LIMIT, tags={18}, indefinite=indefinite)
    except MalformedError:
        return
    if indefinite:
        return
    # One spelling, map order apart.
    assert len(cbor2.dumps(value, default=_write_tag)) == len(data)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_an_item_or_malformed(data: bytes, indefinite: bool) -> None:  # noqa: FBT001
    fuzz_cbor(data, indefinite=indefinite)


def _write_tag(encoder: cbor2.CBOREncoder, value: Tagged) -> None:
    encoder.encode(cbor2.CBORTag(value.tag, value.value))


@given(st.binary(max_size=40).map(lambda tail: b"\xbf" + tail))
def test_any_indefinite_map_is_read_or_malformed(data: bytes) -> None:
    try:
        value = parse_cbor(data, "item", limit=LIMIT, indefinite=True)
    except MalformedError:
        return
    assert isinstance(value, dict)
