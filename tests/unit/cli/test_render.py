from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kbs.cli import render

ROOT = Path(__file__).resolve().parents[3]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Ascii(io.TextIOWrapper):
    """A pipe in a locale without Unicode."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


ROWS: list[list[object]] = [
    ["acme/model/chat", 2, True, ["aes256", "x"]],
    ["acme/data/a", None, False, []],
]
COLUMNS = ["key", "version", "ready", "kinds"]

HOSTILE = "a\x1b[31mb\r\nc\u202ed\x9be[bold]:smile:"
HARMLESS = "a\\x1b[31mb\\r\\nc\\u202ed\\x9be[bold]:smile:"


def test_a_table_in_a_pipe_is_aligned_plain_text() -> None:
    out = io.StringIO()
    render.table(COLUMNS, ROWS, file=out)
    assert out.getvalue() == (
        "KEY              VERSION  READY  KINDS\n"
        "acme/model/chat  2        yes    aes256, x\n"
        "acme/data/a      -        no\n"
    )


def test_a_table_on_a_terminal_has_the_same_words() -> None:
    plain, terminal = io.StringIO(), Terminal()
    render.table(COLUMNS, ROWS, file=plain)
    render.table(COLUMNS, ROWS, file=terminal)
    assert "\x1b[1m" in terminal.getvalue()
    words = terminal.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").split()
    assert words == plain.getvalue().split()


def test_a_table_without_rows_still_has_its_head() -> None:
    out = io.StringIO()
    render.table(COLUMNS, [], file=out)
    assert out.getvalue() == "KEY  VERSION  READY  KINDS\n"


def test_long_cells_are_folded_on_a_terminal_never_cut() -> None:
    out = Terminal()
    render.table(["digest", "name"], [["ab" * 60, "n"]], file=out)
    assert out.getvalue().count("ab") == 60
    assert "…" not in out.getvalue()


def test_a_row_of_another_width_is_a_bug_and_prints_nothing() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        render.table(["a", "b"], [["1", "2"], ["1"]], file=out)
    assert out.getvalue() == ""


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_nothing_from_outside_reaches_a_terminal_as_an_instruction(
    out: io.StringIO,
) -> None:
    render.table(["name"], [[HOSTILE], [[HOSTILE]]], file=out)
    node = {"op": HOSTILE, "claim": HOSTILE, "got": HOSTILE, "detail": HOSTILE}
    render.tree({**node, "expected": [HOSTILE], "result": False}, file=out)
    rules = [{"rule": HOSTILE, "result": False, "tree": node}]
    render.explanation(
        {"decision": "denied", "policy": HOSTILE, "digest": HOSTILE, "rules": rules},
        file=out,
    )
    with render.progress(HOSTILE, 1, file=out):
        pass
    text = out.getvalue()
    assert HARMLESS in text
    for forbidden in ("\x1b[31mb", "\r\nc", "\u202e", "\x9b"):
        assert forbidden not in text


TREE = {
    "op": "all",
    "claim": None,
    "got": None,
    "expected": None,
    "result": False,
    "children": [
        {
            "op": "equals",
            "claim": "snp.vmpl",
            "got": 0,
            "expected": 0,
            "result": True,
            "children": [],
        },
        {
            "op": "in",
            "claim": "snp.measurement",
            "got": "ab" * 4,
            "expected": ["cd" * 4, "ef" * 4],
            "result": False,
            "children": [],
        },
        {
            "op": "any",
            "result": None,
            "children": [
                {
                    "op": "exists",
                    "claim": "vtpm.ak.group",
                    "got": None,
                    "expected": None,
                    "result": None,
                    "detail": "no vtpm item",
                }
            ],
        },
    ],
}

PLAIN_TREE = """\
✗ all
  ✓ snp.vmpl equals 0
  ✗ snp.measurement in
      got      abababab
      expected ["cdcdcdcd", "efefefef"]
  ? any
    ? vtpm.ak.group exists
        got      absent
        expected any value
        no vtpm item
"""


def test_a_tree_says_what_holds_what_does_not_and_what_is_unknown() -> None:
    out = io.StringIO()
    render.tree(TREE, file=out)
    assert out.getvalue() == PLAIN_TREE


def test_a_tree_on_a_terminal_is_coloured_by_result() -> None:
    out = Terminal()
    render.tree(TREE, file=out)
    text = out.getvalue()
    assert "\x1b[31m✗ all" in text
    assert "\x1b[32m  ✓ snp.vmpl equals" in text
    assert "\x1b[33m  ? any" in text


def test_an_explanation_begins_with_the_decision() -> None:
    out = io.StringIO()
    document = {
        "decision": "denied",
        "policy": "chat",
        "digest": "0123456789abcdef" * 4,
        "rules": [{"rule": "prod", "result": False, "tree": TREE}],
    }
    render.explanation(document, file=out)
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "✗ denied by policy chat (0123456789abcdef…)",
        "✗ rule prod",
        "  ✗ all",
    ]
    out = io.StringIO()
    render.explanation({"decision": "granted", "policy": "p", "rules": None}, file=out)
    assert out.getvalue() == "✓ granted by policy p\n"


def test_an_explanation_says_what_speaks_against_the_request_itself() -> None:
    leaf = {"op": "at_least", "claim": "snp.vmpl", "got": 2, "expected": 1}
    document = {
        "decision": "denied",
        "policy": "chat",
        "rules": [{"rule": "prod", "result": True, "tree": {**leaf, "result": True}}],
        "reasons": [
            {
                "id": "request.freshness",
                "rule": None,
                "got": "none",
                "expected": "challenge",
            },
            {"id": "snp.debug", "rule": "prod", "got": True, "expected": False},
        ],
        "nearest": {"rule": "prod", "changes": 1},
    }
    out = io.StringIO()
    render.explanation(document, file=out)
    assert out.getvalue().splitlines() == [
        "✗ denied by policy chat",
        "✗ request.freshness",
        "    got      none",
        "    expected challenge",
        "✓ rule prod",
        "  ✓ snp.vmpl at_least 1 (got 2)",
        "nearest: rule prod, 1 condition away",
    ]


def test_long_values_are_cut_in_an_explanation() -> None:
    out = io.StringIO()
    node = {"op": "equals", "claim": "c", "got": "x" * 500, "expected": "y"}
    render.tree(node, file=out)
    line = out.getvalue().splitlines()[1]
    assert line == "    got      " + "x" * (render.MAX_VALUE - 1) + "…"


def test_a_locale_without_unicode_gets_ascii_marks_and_escapes() -> None:
    out = Ascii()
    render.tree({"op": "equals", "claim": "é", "result": True}, file=out)
    render.tree({"op": "any", "result": False}, file=out)
    assert out.text() == "+ \\xe9 equals\nx any\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü ✓", "plain ü ✓"),
        ("\0\t\n\x7f", "\\x00\\t\\n\\x7f"),
        ("\u2028\ud800", "\\u2028\\ud800"),
        ("", ""),
    ],
)
def test_escapes_are_readable(text: str, expected: str) -> None:
    assert render.escaped(text) == expected


def test_json_is_one_line_in_a_pipe_and_indented_on_a_terminal() -> None:
    document = {"b": "ü\x1b", "a": [1, None, True]}
    pipe, terminal = io.StringIO(), Terminal()
    render.print_json(document, file=pipe)
    render.print_json(document, file=terminal)
    assert pipe.getvalue() == '{"b": "\\u00fc\\u001b", "a": [1, null, true]}\n'
    assert len(terminal.getvalue().splitlines()) > 3
    assert json.loads(terminal.getvalue()) == json.loads(pipe.getvalue()) == document


def test_json_has_no_numbers_that_json_has_not() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="not JSON compliant"):
        render.print_json({"x": float("nan")}, file=out)
    assert out.getvalue() == ""


def test_progress_is_silent_in_a_pipe() -> None:
    out = io.StringIO()
    with render.progress("sealing", 100, file=out) as advance:
        advance(50)
    assert out.getvalue() == ""


@pytest.mark.parametrize("total", [2048, None])
def test_progress_is_a_bar_on_a_terminal(total: int | None) -> None:
    out = Terminal()
    with render.progress("sealing", total, file=out) as advance:
        advance(1024)
        advance(1024)
    assert "sealing" in out.getvalue()
    assert "2.0" in out.getvalue()


def test_results_go_to_stdout_and_progress_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.print_json([1])
    render.table(["a"], [["b"]])
    render.tree({"op": "all", "result": True})
    render.explanation({"decision": "denied", "policy": "p"})
    with render.progress("x", 1) as advance:
        advance(1)
    captured = capsys.readouterr()
    assert captured.out == "[1]\nA\nb\n✓ all\n✗ denied by policy p\n"
    assert captured.err == ""


def test_rich_is_not_imported_before_it_is_needed() -> None:
    program = (
        "import sys, io; from kbs.cli import render\n"
        "render.table(['a'], [['b']], file=io.StringIO())\n"
        "assert not any(name.split('.')[0] == 'rich' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
