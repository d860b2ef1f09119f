"""JSON is Unicode text: half of a surrogate pair is refused wherever it stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.encode import canonical_json, parse_json
from kbs.core.errors import MalformedError

LONE = "\\ud800"


@pytest.mark.parametrize(
    "text",
    [
        f'"{LONE}"',
        f'"x{LONE}x"',
        '"\\uDFFF"',
        '"\\udc00\\ud800"',
        f'{{"{LONE}": 1}}',
        f'[[{{"a": ["{LONE}"]}}]]',
        '"\ud800"',
    ],
)
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="x: got a lone surrogate"):
        parse_json(text, "x", limit=100)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "😀"),
        ('"😀"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u00e9\\ud7ff"', "é\ud7ff"),
    ],
)
def test_pairs_and_other_escapes_are_text(text: str, value: str) -> None:
    assert parse_json(text, "x", limit=100) == value
    assert parse_json(text.encode(), "x", limit=100) == value


@given(st.text(st.characters()), st.booleans())
def test_what_parses_can_be_written(text: str, escaped: bool) -> None:  # noqa: FBT001
    document = json.dumps({text: [text]}, ensure_ascii=escaped)
    try:
        value = parse_json(document, "x", limit=10_000)
    except MalformedError:
        assert any("\ud800" <= character <= "\udfff" for character in text)
        return
    assert parse_json(canonical_json(value), "x", limit=10_000) == value
