"""`make bench` runs and prints every row; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.exchanges import Kind
from tests.bench.floor import NEEDED
from tests.bench.frame import FRAME
from tests.bench.load import CLIENTS, WANDERING
from tests.bench.tables import Section, as_json, as_text
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def printed() -> dict[str, list[dict[str, object]]]:
    """The rows of a short run, by section."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return {section["name"]: section["rows"] for section in document["sections"]}


@pytest.mark.slow
def test_every_row_is_printed(printed: dict[str, list[dict[str, object]]]) -> None:
    ways = [(clients, "one") for clients in CLIENTS] + [(WANDERING, "any")]
    assert sorted(
        (row["exchange"], row["clients"], row["processor"]) for row in printed["load"]
    ) == sorted((kind, *way) for kind in Kind for way in ways)
    assert {row["exchange"] for row in printed["cpu"]} >= set(Kind)
    assert {row["primitive"] for row in printed["floor"]} >= {
        name for needed in (*NEEDED.values(), *FRAME.values()) for name in needed
    }
    whens = {(row["broker"], row["when"]) for row in printed["memory"]}
    assert whens == {
        (broker, when)
        for broker in ("sample", "snp")
        for when in ("at rest", "after the load")
    }
    assert [row["broker"] for row in printed["start"]] == ["sample", "snp"]
    sealing = printed["sealing"]
    assert len({row["MiB"] for row in sealing}) == 2
    assert len({row["work"] for row in sealing}) == 6


def test_text_and_json_say_the_same() -> None:
    section = Section("s", "Title", ("what", "n", "per s"), [("a", 3, 2.345678)])
    assert as_text([section]) == "Title\n  what  n  per s\n  a     3   2.35"
    rows = [{"what": "a", "n": 3, "per s": 2.345678}]
    assert json.loads(as_json([section])) == {
        "sections": [{"name": "s", "title": "Title", "rows": rows}]
    }


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="for"):
        Section("s", "Title", ("what", "n"), [("a",)])
