"""A small flood: nothing is stored for it. `make flood` is the large one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.fakes.databases import Place
from tests.fakes.world import World
from tests.flood import flood


def test_beginnings_that_nobody_answers_are_stored_nowhere(
    tmp_path: Path, sqlite_place: Place
) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened, development=True)
        found = flood(world, 1000)
    assert found["stored_after"] == found["stored_before"]
    assert found["challenges"] == 1000
