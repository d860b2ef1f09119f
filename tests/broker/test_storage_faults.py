"""Storage that is full or cannot be written: 503, no key, and it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.adapters.sql.engine import DATABASE_NAME
from tests.fakes.answers import releases, see
from tests.fakes.databases import Place, pragma
from tests.fakes.steps import Bench
from tests.fakes.world import World

KEY = {"acme/model/chat@1": b"the model key"}


@pytest.fixture
def opened(sqlite_place: Place) -> Iterator[SqlDatabase]:
    with closing(sqlite_place.connect()) as database:
        yield database


@contextmanager
def _full(database: SqlDatabase) -> Iterator[None]:
    # SQLite says "full" when the file would grow beyond this many pages.
    pages = pragma(database, "page_count")
    pragma(database, f"max_page_count={pages}")
    yield
    pragma(database, "max_page_count=1000000")


@contextmanager
def _read_only(database: SqlDatabase) -> Iterator[None]:
    pragma(database, "query_only=ON")
    yield
    pragma(database, "query_only=OFF")


def test_a_full_disk(tmp_path: Path, opened: SqlDatabase) -> None:
    world = World.create(tmp_path, database=opened)
    tpm = world.standard()
    with _full(opened):
        # Some fit into the pages that are there; then every one is refused.
        requests = [world.request(tpm) for _ in range(30)]
        seen = [see(world, request) for request in requests]
        statuses = [one.status for one in seen]
        assert set(statuses) == {200, 503} or set(statuses) == {503}
        refused = [one for one in seen if one.status == 503]
        assert {one.code for one in refused} == {"database.full"}
        assert all("answer" not in one.document for one in refused)
    assert len(releases(world)) == statuses.count(200)
    # With room again the same requests are answered: no challenge was spent.
    for request, status in zip(requests, statuses, strict=True):
        if status != 200:
            assert world.released(request) == KEY
    assert len(releases(world)) == len(requests)


def test_a_database_that_only_reads(tmp_path: Path, opened: SqlDatabase) -> None:
    world = World.create(tmp_path, database=opened)
    request = world.request(world.standard())
    with _read_only(opened):
        seen = see(world, request)
        assert (seen.status, seen.code) == (503, "database.read_only")
        assert "answer" not in seen.document
    assert world.released(request) == KEY
    assert len(releases(world)) == 1


def test_a_writer_that_does_not_let_go(tmp_path: Path, sqlite_place: Place) -> None:
    quick = sqlite_place.connect(lock_seconds=0.2)
    with closing(quick), closing(sqlite_place.connect()) as other:
        world = World.create(tmp_path, database=quick)
        request = world.request(world.standard())
        with other.write():
            seen = see(world, request)
        assert (seen.status, seen.code) == (503, "database.locked")
        assert world.released(request) == KEY


def test_every_connection_waits_for_the_disk(sqlite_bench: Bench) -> None:
    # PRAGMA synchronous: 2 is FULL; asked while a release is under way.
    levels: list[object] = []
    other = sqlite_bench.other.parts.database
    assert isinstance(other, SqlDatabase)
    sqlite_bench.probe.at("sealed", lambda: levels.append(pragma(other, "synchronous")))
    assert sqlite_bench.send(sqlite_bench.request()).status == 200
    assert levels == [2]


def test_a_stolen_data_folder_has_no_mark_and_no_key(
    tmp_path: Path, sqlite_place: Place
) -> None:
    with closing(sqlite_place.connect()) as opened:
        World.create(tmp_path, database=opened).standard()
    names = {path.name for path in sqlite_place.folder.iterdir()}
    assert names == {DATABASE_NAME}
