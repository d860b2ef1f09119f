"""Storage that is full or cannot be written: 503, no key, and it comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.adapters.sql.engine import DATABASE_NAME
from kbs.broker.mark import Ticker
from kbs.broker.ports import TRUST_AWAY
from kbs.core.errors import UnavailableError
from tests.fakes.answers import releases, see
from tests.fakes.databases import FailingDatabase, Place, pragma
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


def _ready(world: World) -> tuple[int, dict[str, str]]:
    answer = world.app.test_client().get("/health/ready")
    missing = {one["what"]: one["detail"] for one in answer.get_json()["missing"]}
    return answer.status_code, missing


def test_a_write_that_failed_costs_readiness_until_one_succeeds(
    tmp_path: Path, opened: SqlDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.create(tmp_path, database=opened)
    request = world.request(world.standard())
    upkeep = world.broker.audit._upkeep
    lacking = (503, {"database": "database.read_only"})
    with _read_only(opened):
        assert _ready(world) == (200, {})
        assert see(world, request).status == 503
        assert _ready(world) == lacking
        upkeep.every_second()
        assert _ready(world) == lacking
    # Nobody has written yet; whoever only reads could not know.
    assert _ready(world) == lacking
    with caplog.at_level(logging.INFO):
        upkeep.every_second()
    assert "it takes writes again" in caplog.text
    assert _ready(world) == (200, {})
    assert world.released(request) == KEY


def test_where_nobody_writes_a_minute_shows_that_nobody_could(
    tmp_path: Path, opened: SqlDatabase
) -> None:
    world = World.create(tmp_path, database=opened)
    upkeep = world.broker.audit._upkeep
    with _read_only(opened):
        upkeep.every_minute()
        assert _ready(world) == (503, {"database": "database.read_only"})
    # A decision that is written is as good as a probe.
    world.create_key("acme/model/chat")
    assert _ready(world) == (200, {})
    upkeep.every_minute()
    assert _ready(world) == (200, {})


class StuckHighwater:
    """A mark in memory whose writing fails on command."""

    def __init__(self, mark: bytes | None) -> None:
        self.mark = mark
        self.is_stuck = False

    def read(self) -> bytes | None:
        return self.mark

    def stamp(self) -> object:
        return self.mark

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def write(self, mark: bytes) -> None:
        if self.is_stuck:
            raise UnavailableError("trust folder", code=TRUST_AWAY)
        self.mark = mark


def test_a_mark_that_cannot_follow_the_log_stops_releases(
    tmp_path: Path, opened: SqlDatabase
) -> None:
    made = World.create(tmp_path, database=opened)
    highwater = StuckHighwater(made.parts.highwater.read())
    world = made.restarted(highwater=highwater)
    tpm = world.standard()
    upkeep = world.broker.audit._upkeep
    upkeep.every_second()
    highwater.is_stuck = True
    assert world.released(world.request(tpm)) == KEY
    upkeep.every_second()
    request = world.request(tpm)
    for _ in range(2):
        seen = see(world, request)
        assert (seen.status, seen.code) == (503, "trust.away")
    assert _ready(world) == (503, {"trust folder": "trust.away"})
    # Nothing stored is wrong: there is no alarm, and auditors can read.
    assert world.entries("integrity.reported") == []
    highwater.is_stuck = False
    upkeep.every_second()
    assert _ready(world) == (200, {})
    assert world.released(request) == KEY


def test_strangers_do_not_fill_the_broker_s_log_while_it_is_away(
    tmp_path: Path, opened: SqlDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    away = FailingDatabase(opened)
    world = World.create(tmp_path, database=away)
    client = world.app.test_client()
    away.fail_reads = 5
    with caplog.at_level(logging.INFO):
        statuses = [client.get("/v1/log/checkpoint").status_code for _ in range(5)]
    assert statuses == [503] * 5
    told = [one for one in caplog.records if "could not answer" in one.getMessage()]
    assert len(told) == 1


def test_strangers_at_the_administrators_door_have_few_lines(
    tmp_path: Path, opened: SqlDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    made = World.create(tmp_path, database=opened)
    world = made.restarted(monotonic=lambda: 0.0)
    client = world.app.test_client()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert client.get("/admin/v1/keys").status_code == 401
            assert world.call("GET", "/admin/v1/keys").status_code == 200
    told = [one.getMessage() for one in caplog.records if one.name == "kbs.admin"]
    assert len([one for one in told if one.startswith("nobody: ")]) == 1
    assert len(told) == 6


def test_upkeep_outlives_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    again = threading.Event()

    def run() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        again.set()

    ticker = Ticker(run, 0.01, name="kbs-test")
    ticker.start()
    assert again.wait(10)
    ticker.stop()
    assert "kbs-test: an internal error" in caplog.text
