from __future__ import annotations

import pytest

from kbs.core.errors import MalformedError
from kbs.policy.yaml import MAX_BYTES, MAX_NODES, Position, parse_yaml


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (b"a: 1", {"a": 1}),
        (b"a: -12", {"a": -12}),
        (b"a: 0", {"a": 0}),
        (b"a: 9007199254740992", {"a": 2**53}),
        (b"a: true\nb: false", {"a": True, "b": False}),
        (b"a: null\nb: ~\nc:", {"a": None, "b": None, "c": None}),
        (b"a: 550.90.07", {"a": "550.90.07"}),
        (b"a: 2026-11-22", {"a": "2026-11-22"}),
        (b"a: deadbeef", {"a": "deadbeef"}),
        (b"a: 'no'\nb: \"017\"", {"a": "no", "b": "017"}),
        (b"a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        (b"- [1, {b: x}]", [[1, {"b": "x"}]]),
        (b"3: x", {"3": "x"}),
        (b'"<<": x', {"<<": "x"}),
        (b'{"a":1,\t"b":["x\\/y"]}', {"a": 1, "b": ["x/y"]}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ("a: é".encode(), {"a": "é"}),
        ("a: 👩\u200d🔬".encode(), {"a": "👩\u200d🔬"}),
        (b"--- # comment\na: 1\n...\n", {"a": 1}),
        (b'["a",\n\t1]', ["a", 1]),
        (b'{"a": "' + b"x" * 3000 + b'", "b": 1}', {"a": "x" * 3000, "b": 1}),
    ],
)
def test_what_is_unambiguous_is_read(source: bytes, value: object) -> None:
    assert parse_yaml(source, "p").value == value


@pytest.mark.parametrize(
    ("source", "place", "word"),
    [
        (b"a: no", "1 column 4", "without quotes"),
        (b"a: Yes", "1 column 4", "without quotes"),
        (b"a: on", "1 column 4", "without quotes"),
        (b"a: True", "1 column 4", "without quotes"),
        (b"a: NULL", "1 column 4", "without quotes"),
        (b"a: 017", "1 column 4", "without quotes"),
        (b"a: 0o17", "1 column 4", "without quotes"),
        (b"a: 0x1f", "1 column 4", "without quotes"),
        (b"a: 1:30", "1 column 4", "without quotes"),
        (b"a: 3.10", "1 column 4", "without quotes"),
        (b"a: 1e3", "1 column 4", "without quotes"),
        (b"a: .5", "1 column 4", "without quotes"),
        (b"a: .inf", "1 column 4", "without quotes"),
        (b"a: -0", "1 column 4", "without quotes"),
        (b"a: +1", "1 column 4", "without quotes"),
        (b"a: 1_000", "1 column 4", "without quotes"),
        (b"a: 9007199254740993", "1 column 4", "9007199254740993"),
        (b"a: 99999999999999999999999", "1 column 4", "9999"),
        (b"x: 1\na: &b 1", "2 column 4", "anchor"),
        (b"a: &b 1\nc: *b", "1 column 4", "anchor"),
        (b"a: *b", "1 column 4", "alias"),
        (b"&k a: 1", "1 column 1", "anchor or a tag"),
        (b"*k : 1", "1 column 1", "alias as a member name"),
        (b"a: !!str 1", "1 column 4", "tag"),
        (b"a: ! 1", "1 column 4", "tag"),
        (b"a: !x [1]", "1 column 4", "tag"),
        (b"<<: {a: 1}", "1 column 1", "merge key"),
        (b"a: 1\nb: 2\na: 3", "3 column 1", "twice"),
        (b'{"a": 1, "a": 2}', "1 column 10", "twice"),
        (b"? [a]\n: 1", "1 column 3", "list or mapping as a member name"),
        (b"~: 1", "1 column 1", "member name"),
        (b"true: 1", "1 column 1", "member name"),
        (b"no: 1", "1 column 1", "without quotes"),
        (b"a: 1\n---\nb: 1", "2 column 1", "second document"),
        (b"%YAML 1.1\n---\na: 1", "1 column 1", "directive"),
        # What reads as another text than it is, in a comment or escaped too.
        ("a: bad\u200b".encode(), "1 column 4", "U+200B"),
        ("a: 1\nb: x # \u202e y".encode(), "2 column 8", "U+202E"),
        (b'a: "x\\u2066y"', "1 column 4", "U+2066"),
        (b'{"a\\u00ad": 1}', "1 column 2", "U+00AD"),
        (b"%TAG ! x\n---\na: 1", "1 column 1", "directive"),
        (b"", "1 column 1", "nothing"),
        (b"# only a comment\n", "2 column 1", "nothing"),
        (b"a: [1", "1 column 6", "expected"),
        (b"a: b: c", "1 column 5", "mapping values"),
        (b"a:\n\t- 1", "2 column 1", "cannot start"),
        (b"a: 1\nb: \xff", "2 column 4", "not UTF-8"),
        (b"\xef\xbb\xbfa: 1", "1 column 1", "byte order mark"),
        (b"a: \x00", "1 column 4", "U+0000"),
        (b"x\n\x7f", "2 column 1", "U+007F"),
        (b'a: "\\x7f"', "1 column 4", "U+007F"),
        (b'a: "\\N"', "1 column 4", "U+0085"),
        (b'a: "\\L"', "1 column 4", "U+2028"),
        (b'a: "\\ud800"', "1 column 4", "surrogate"),
        (b'a: "\\UFFFFFFFF"', "1 column", "out of range"),
        (b"a: " + b"[" * 40 + b"]" * 40, "1 column 36", "deeper nesting"),
        (b"[" + b"1," * MAX_NODES + b"1]", "1 column", "more values"),
        (b" " * (MAX_BYTES + 1), "1 column 1", "bytes"),
    ],
)
def test_what_readers_differ_on_is_refused_at_its_place(
    source: bytes, place: str, word: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_yaml(source, "policy.yaml")
    assert str(caught.value).startswith(f"policy.yaml line {place}")
    assert word in str(caught.value)


def test_every_value_and_name_has_a_position() -> None:
    document = parse_yaml(b"a:\n  - x\n  - {b: 1}\n", "p")
    assert document.values[()] == Position(1, 1)
    assert document.values["a", 0] == Position(2, 5)
    assert document.names["a", 1, "b"] == Position(3, 6)
    assert document.values["a", 1, "b"] == Position(3, 9)


def test_a_tab_inside_yaml_quotes_stays_a_tab() -> None:
    assert parse_yaml(b"{a: 'x\ty'}", "p").value == {"a": "x\ty"}
