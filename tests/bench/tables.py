"""What is printed: sections of rows, as text for people or as one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float


@dataclass(frozen=True)
class Section:
    """One table; every row has a cell for every column."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def __post_init__(self) -> None:
        """Refuse a row that would shift its figures into the wrong column."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: {row} for {self.columns}")

    def to_json(self) -> dict[str, object]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"name": self.name, "title": self.title, "rows": rows}

    def to_text(self) -> str:
        """Aligned columns: names to the left, figures to the right."""
        shown = [self.columns, *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        first = self.rows[0]
        lines = [
            "  ".join(
                text.ljust(width) if isinstance(cell, str) else text.rjust(width)
                for text, width, cell in zip(line, widths, first, strict=True)
            ).rstrip()
            for line in shown
        ]
        return "\n".join([self.title, *(f"  {line}" for line in lines)])


def as_text(sections: Sequence[Section]) -> str:
    return "\n\n".join(section.to_text() for section in sections)


def as_json(sections: Sequence[Section]) -> str:
    return json.dumps({"sections": [one.to_json() for one in sections]}, indent=1)


def progress(text: str) -> None:
    """Say what is being measured; standard output belongs to the figures."""
    print(text, file=sys.stderr, flush=True)


def _shown(cell: Cell) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
