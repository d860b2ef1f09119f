"""What commands print: tables, explanations, progress, JSON.

On a terminal with `rich` (imported only then, so that scripts start fast); elsewhere
the same words as plain aligned text. Names and values come from files and servers, so
every character that a terminal would obey is shown as an escape, in either form.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# A longer value helps nobody on a terminal; `--json` has all of it.
MAX_VALUE = 160

# By result of a rule or condition: holds, does not, cannot be told.
_MARKS = {True: "✓", False: "✗", None: "?"}
_ASCII_MARKS = {True: "+", False: "x", None: "?"}
_STYLES = {True: "green", False: "red", None: "yellow"}

_Line = tuple[str, str | None]
"""A line of output and its style on a terminal."""


def print_json(document: object, *, file: TextIO | None = None) -> None:
    """Print one JSON document: indented on a terminal, else on one line."""
    out = sys.stdout if file is None else file
    # ASCII only: safe for any terminal and encoding, and the same to a program.
    text = json.dumps(
        document,
        ensure_ascii=True,
        allow_nan=False,
        indent=2 if out.isatty() else None,
    )
    out.write(text + "\n")
    out.flush()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    file: TextIO | None = None,
) -> None:
    """Print rows under their columns.

    Raises:
        ValueError: a row has another number of cells.
    """
    out = sys.stdout if file is None else file
    cells = [[_cell(value) for value in row] for row in rows]
    for row in cells:
        if len(row) != len(columns):
            message = f"a row of {len(row)} cells under {len(columns)} columns"
            raise ValueError(message)
    if out.isatty():
        _rich_table(columns, cells, out)
    else:
        _plain_table(columns, cells, out)


def explanation(document: Mapping[str, object], *, file: TextIO | None = None) -> None:
    """Print the document of `policy explain`: the decision, then each rule's tree."""
    out = sys.stdout if file is None else file
    marks = _marks(out)
    granted = document.get("decision") == "granted"
    head = (
        f"{_text(document.get('decision'))} by policy {_text(document.get('policy'))}"
    )
    digest = document.get("digest")
    if isinstance(digest, str):
        head += f" ({_text(digest[:16])}…)"
    lines: list[_Line] = [(f"{marks[granted]} {head}", f"bold {_STYLES[granted]}")]
    lines += _request_lines(document, marks)
    for rule in _mappings(document.get("rules")):
        result = _result(rule)
        name = _text(rule.get("rule"))
        lines.append((f"{marks[result]} rule {name}", _STYLES[result]))
        for node in _mappings([rule.get("tree")]):
            lines += _node_lines(node, 1, marks)
        surplus = rule.get("surplus")
        if isinstance(surplus, list) and surplus:
            items = ", ".join(_text(one) for one in surplus)
            lines.append((f"  says nothing about {items}", "dim"))
    lines += _nearest_lines(document)
    _print_lines(lines, out)


def tree(node: Mapping[str, object], *, file: TextIO | None = None) -> None:
    """Print one tree {"op", "claim", "got", "expected", "result", "children"}."""
    out = sys.stdout if file is None else file
    _print_lines(_node_lines(node, 0, _marks(out)), out)


@contextmanager
def progress(
    label: str, total: int | None, *, file: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """Give a function to call with bytes done; a bar on a terminal, else silence.

    The bar is on stderr: stdout belongs to the result. `total` None is unknown.
    """
    out = sys.stderr if file is None else file
    if not out.isatty():
        yield _ignore
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=_console(out)) as bar:
        task = bar.add_task(_text(label), total=total)
        yield lambda count: bar.advance(task, count)


def escaped(text: str) -> str:
    """Return the text with every character that is not printable as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _ignore(_: int) -> None:
    """Take the place of a bar where there is no terminal."""


def _console(out: TextIO) -> Console:
    from rich.console import Console

    # Nothing in the text is an instruction: no markup, no emoji names, no guessing.
    return Console(file=out, markup=False, emoji=False, highlight=False)


def _rich_table(columns: Sequence[str], cells: list[list[str]], out: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Folded, never cut: people copy ids and digests from here.
        grid.add_column(Text(column.upper()), overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    _console(out).print(grid)


def _plain_table(columns: Sequence[str], cells: list[list[str]], out: TextIO) -> None:
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _write("  ".join(padded).rstrip(), out)


def _print_lines(lines: list[_Line], out: TextIO) -> None:
    if not out.isatty():
        for line, _ in lines:
            _write(line, out)
        return
    from rich.text import Text

    console = _console(out)
    for line, style in lines:
        console.print(Text(line, style=style or ""), soft_wrap=True)


def _write(line: str, out: TextIO) -> None:
    encoding = out.encoding or "utf-8"
    out.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _request_lines(
    document: Mapping[str, object], marks: Mapping[bool | None, str]
) -> list[_Line]:
    """Say what speaks against the request itself, which no rule's tree shows."""
    lines: list[_Line] = []
    for reason in _mappings(document.get("reasons")):
        if reason.get("rule") is None and reason.get("expected") is not None:
            lines.append((f"{marks[False]} {_text(reason.get('id'))}", _STYLES[False]))
            lines.append((f"    got      {_value(reason.get('got'), 'absent')}", None))
            lines.append((f"    expected {_value(reason['expected'], '')}", None))
    return lines


def _nearest_lines(document: Mapping[str, object]) -> list[_Line]:
    nearest = document.get("nearest")
    if not isinstance(nearest, Mapping) or not nearest.get("changes"):
        return []
    changes = nearest["changes"]
    plural = "" if changes == 1 else "s"
    rule = _text(nearest.get("rule"))
    return [(f"nearest: rule {rule}, {_text(changes)} condition{plural} away", None)]


def _node_lines(
    node: Mapping[str, object], depth: int, marks: Mapping[bool | None, str]
) -> list[_Line]:
    indent = "  " * depth
    result = _result(node)
    children = _mappings(node.get("children"))
    words = [marks[result]]
    words += [_text(node[name]) for name in ("claim", "op") if node.get(name)]
    if not children and result is True and node.get("claim"):
        words += _held(node)
    lines: list[_Line] = [(indent + " ".join(words), _STYLES[result])]
    # A group has no value of its own.
    if not children and result is not True and node.get("claim"):
        got = node.get("got")
        lines.append((f"{indent}    got      {_value(got, 'absent')}", None))
        expected = _value(node.get("expected"), "any value")
        lines.append((f"{indent}    expected {expected}", None))
    if node.get("detail"):
        lines.append((f"{indent}    {_value(node['detail'], '')}", None))
    for child in children:
        lines += _node_lines(child, depth + 1, marks)
    return lines


def _held(node: Mapping[str, object]) -> list[str]:
    """Return what a condition that holds expected, and got where that is not all."""
    got, expected = node.get("got"), node.get("expected")
    words = [] if expected is None else [_value(expected, "")]
    if got is not None and got != expected:
        words.append(f"(got {_value(got, '')})")
    return words


def _marks(out: TextIO) -> Mapping[bool | None, str]:
    try:
        "".join(_MARKS.values()).encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        return _ASCII_MARKS
    return _MARKS


def _result(node: Mapping[str, object]) -> bool | None:
    result = node.get("result")
    return result if isinstance(result, bool) else None


def _mappings(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, (list, tuple)):
        return []
    return [each for each in value if isinstance(each, Mapping)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(each) for each in value)
    return _text(value)


def _value(value: object, absent: str) -> str:
    if value is None:
        return absent
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    line = escaped(value)
    return line if len(line) <= MAX_VALUE else line[: MAX_VALUE - 1] + "…"


def _text(value: object) -> str:
    return escaped(str(value))
