"""JSON is Unicode text without half a surrogate pair; what is wrong is told in ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.encode import canonical_json, parse_json, require_members
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


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "no value"),
        ("{} x", "more text behind the value"),
        ("{x", "no member name in double quotes"),
        ('{"a" 1}', "a member name without a colon behind it"),
        ("[1 2]", "neither a comma nor the end"),
        ('"a', "a string without an end"),
        ('"\n"', "a control character in a string"),
        ('"\\x"', "an escape that there is not"),
    ],
)
def test_broken_json_is_told_in_our_words(text: str, got: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_json(text, "text", limit=100)
    assert caught.value.got == got


def test_the_words_of_another_library_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise json.JSONDecodeError("Something new", "x", 0)

    monkeypatch.setattr("kbs.core.encode._DECODER.decode", refuse)
    with pytest.raises(MalformedError) as caught:
        parse_json("{}", "text", limit=100)
    assert caught.value.got == "text that is not JSON"


def test_an_object_that_has_no_members_is_told_so() -> None:
    with pytest.raises(MalformedError) as caught:
        require_members({"a": 1}, "challenge request", required=set())
    assert caught.value.expected == "no members"


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 500_000,
        '"' + '\\"' * 500_000 + "\\",
        '"' * 500_001,
        "[" + '"a' * 9,
    ],
)
def test_a_string_without_an_end_costs_one_look(text: str) -> None:
    """Looked at from each quote anew, this would take hours."""
    with pytest.raises(MalformedError):
        parse_json(text, "x", limit=10**7)


def test_brackets_in_strings_do_not_count() -> None:
    text = '{"a": "' + "[" * 100 + '\\"]", "b": ["]"]}'
    assert parse_json(text, "x", limit=1000) == {"a": "[" * 100 + '"]', "b": ["]"]}


def test_the_member_that_is_there_twice_is_named_whatever_else_there_is() -> None:
    text = "{" + ",".join(f'"a{n}":1' for n in range(50_000)) + ',"a49999":1}'
    with pytest.raises(MalformedError, match="'a49999' twice"):
        parse_json(text, "x", limit=10**7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0, -1, 999999999999999]", [0, -1, 10**15 - 1]),
        ("[1, 9007199254740992, -9007199254740992]", [1, 2**53, -(2**53)]),
        ('["1234567890123456", 7]', ["1234567890123456", 7]),
        ('["2026-01-02", 7]', ["2026-01-02", 7]),
    ],
)
def test_integers_within_bounds_are_read(text: str, value: object) -> None:
    assert parse_json(text, "x", limit=100) == value


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "-9007199254740993", "9" * 5000, "-0", "[1, -0]"],
)
def test_integers_beyond_the_bounds_are_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="JSON integer"):
        parse_json(text, "x", limit=10_000)


def test_members_are_written_in_the_order_of_their_utf_16_units() -> None:
    written = canonical_json({"b": 1, "a": 2, "￿": 3, "😀": 4, "é": 5})
    assert written == '{"a":2,"b":1,"é":5,"😀":4,"￿":3}'.encode()
    with pytest.raises(MalformedError, match="JSON member name"):
        canonical_json({"a": 1, 2: 3})
    with pytest.raises(MalformedError, match="JSON member name"):
        canonical_json({("a",): 1})


def written(value: object) -> str:
    """RFC 8785 spelled out: every member, every character, one by one."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        members = (f"{written(name)}:{written(value[name])}" for name in names)
        return "{" + ",".join(members) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(map(escaped, value)) + '"'
    return "null" if value is None else str(value).lower()


def escaped(character: str) -> str:
    named = dict(zip('"\\\b\t\n\f\r', '"\\btnfr', strict=True))
    if character in named:
        return "\\" + named[character]
    return f"\\u{ord(character):04x}" if character < " " else character


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.sampled_from("abc"), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_the_canonical_form_is_that_of_the_rfc(value: object) -> None:
    assert canonical_json(value).decode() == written(value)


def nested(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(1.0, id="float"),
        pytest.param(float("nan"), id="nan"),
        pytest.param(2**53 + 1, id="large"),
        pytest.param(-(2**53) - 1, id="small"),
        pytest.param(b"", id="bytes"),
        pytest.param({1}, id="set"),
        pytest.param(object(), id="object"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param({"\udc00": 1}, id="surrogate-name"),
    ],
)
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_what_has_no_canonical_form_is_refused(wrong: object, levels: int) -> None:
    for document in (nested(wrong, levels), {"é": nested(wrong, levels)}):
        with pytest.raises(MalformedError, match="JSON"):
            canonical_json(document)


def test_nesting_ends_where_reading_ends() -> None:
    for leaf in ("x", 1, {}, {"a": "b"}):
        assert canonical_json(nested(leaf, 30))
        with pytest.raises(MalformedError, match="too deep"):
            canonical_json(nested(leaf, 33))
