"""Any input into the channel's parsers: a value that is written back, or a KbsError."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.channel.answer import ReleasedKey, parse_answer, serialize_keys
from kbs.channel.binding import Mode, parse_runtime_data
from kbs.channel.challenge import (
    ChallengeKey,
    Door,
    mint_challenge,
    parse_challenge,
    read_challenge,
    verify_challenge,
)
from kbs.channel.opening import parse_keys
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.channel.signing import parse_response_key, parse_signature
from kbs.channel.token import SignedRequest, verify_token
from kbs.core.binding import binding
from kbs.core.encode import b64u, canonical_json
from kbs.core.errors import KbsError
from kbs.core.ids import KeyId, KeyRef

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
RECIPIENTS = [recipient_of(generate_recipient_key(suite)).to_json() for suite in Suite]
SEGMENTS = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,5}[a-z0-9])?", fullmatch=True)
REFS = st.builds(
    KeyRef,
    st.builds(KeyId, SEGMENTS, SEGMENTS, SEGMENTS),
    st.one_of(st.none(), st.integers(1, 999_999_999)),
)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.text(max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner)
    ),
    max_leaves=8,
)


@st.composite
def runtime_data(draw: st.DrawFn) -> dict[str, Any]:
    index = draw(st.integers(0, 2))
    keys = draw(st.lists(REFS, min_size=1, max_size=5, unique=True))
    return {
        "audience": draw(st.from_regex(r"[!-~]{1,40}", fullmatch=True)),
        "nonce": draw(st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)),
        "recipient": RECIPIENTS[index],
        "request": {
            "keys": [str(key) for key in keys],
            "mode": draw(st.sampled_from([mode.value for mode in Mode])),
            "partial": draw(st.booleans()),
            "suite": list(Suite)[index].value,
        },
    }


@given(runtime_data())
def test_runtime_data_is_written_back_the_same(value: dict[str, Any]) -> None:
    parsed = parse_runtime_data(value)
    assert canonical_json(parsed.to_json()) == canonical_json(value)
    assert len(binding(parsed.to_json())) == 48


@given(runtime_data(), st.sampled_from(["audience", "nonce", "recipient", "request"]))
def test_a_member_replaced_by_anything_parses_the_same_or_not_at_all(
    value: dict[str, Any], name: str
) -> None:
    changed = {**value, name: b64u(canonical_json(value))[:200]}
    try:
        parsed = parse_runtime_data(changed)
    except KbsError:
        return
    assert parsed.to_json() == changed


@given(JSON)
def test_any_json_is_an_error_or_a_value(value: object) -> None:
    for parse in (parse_runtime_data, parse_answer, parse_signature, parse_challenge):
        with pytest.raises(KbsError):
            parse(value)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_error_or_a_value(data: bytes) -> None:
    for parse in (parse_keys, parse_response_key):
        with pytest.raises(KbsError):
            parse(data)
    with pytest.raises(KbsError):
        verify_token(
            data.decode("latin-1"),
            SignedRequest("GET", "/"),
            instance="00" * 16,
            find_key=lambda _: None,
            now=NOW,
        )


@given(st.lists(st.tuples(REFS, st.binary(max_size=40)), max_size=5))
def test_released_keys_come_back(pairs: list[tuple[KeyRef, bytes]]) -> None:
    released = tuple(
        ReleasedKey(KeyRef(ref.key_id, ref.version or 1), value) for ref, value in pairs
    )
    assert parse_keys(serialize_keys(released)) == released


@given(st.binary(min_size=59, max_size=59))
def test_any_59_bytes_are_no_challenge_of_ours(raw: bytes) -> None:
    key = ChallengeKey(raw[1], bytes(range(32)))
    with pytest.raises(KbsError) as caught:
        verify_challenge(read_challenge(raw), [key], door=Door.V1, origin="o", now=NOW)
    assert caught.value.code in {"challenge.malformed", "challenge.mac"}


@given(st.integers(0, 58), st.integers(0, 7))
def test_any_flipped_bit_of_a_challenge_is_refused(index: int, bit: int) -> None:
    key = ChallengeKey(3, bytes(range(32)))
    raw = bytearray(mint_challenge(key, door=Door.V1, origin="o", now=NOW).raw)
    raw[index] ^= 1 << bit
    with pytest.raises(KbsError):
        verify_challenge(
            read_challenge(bytes(raw)), [key], door=Door.V1, origin="o", now=NOW
        )
