"""PostgreSQL goes away, drops connections or takes no writes, below real workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.ordeal import withstands
from tests.fakes.outside import Outside, statuses
from tests.fakes.postgres import PostgresServer, running_server
from tests.fakes.served import Folders, made, serving

AWAY = {"database.away": "check that the database runs"}
READ_ONLY = {"database.read_only": "that the server is not a standby"}
CUTS = 10
SETTINGS = {"wal_level": "replica"}


@pytest.fixture
def stoppable() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    if os.environ.get("KBS_NO_POSTGRES") == "1":
        pytest.skip("KBS_NO_POSTGRES=1")
    with running_server(**SETTINGS) as server:
        yield server


@pytest.fixture
def outside(stoppable: PostgresServer, tmp_path: Path) -> Iterator[Outside]:
    url = stoppable.url(stoppable.create_database())
    folders = Folders(tmp_path, url)
    made(folders)
    options = ("--dev", "--workers", "2", "--rate-limit", "0")
    with serving(folders, *options) as served:
        found = Outside(folders, served)
        found.administer()
        yield found


@contextmanager
def _stopped(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start(**SETTINGS)


def _goes_away(outside: Outside, stoppable: PostgresServer) -> None:
    withstands(
        outside,
        _stopped(stoppable),
        says=AWAY,
        missing={"database": ["database.away"]},
        # Of guests that came all the time: whose commit was the last.
        unheard=2,
    )


def _becomes_a_standby(outside: Outside, stoppable: PostgresServer) -> None:
    withstands(
        outside,
        stoppable.standby(**SETTINGS),
        says=READ_ONLY,
        missing={"database": ["database.read_only"]},
        unheard=4,
    )


def _drops_every_connection(outside: Outside, stoppable: PostgresServer) -> None:
    with outside.asked_all_the_time() as told:
        for _ in range(CUTS):
            time.sleep(0.2)
            stoppable.run_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'kbs'"
            )
        outside.await_ready()
        outside.fetch()
    assert set(statuses(told)) <= {200, 503}
    assert any(one.decision for one in told)
    assert all(one.text for one in told if one.status == 503)
    assert "Traceback" not in outside.served.errors()
    outside.hold_against_log(unheard=2 * CUTS)


@pytest.mark.slow
def test_a_database_that_fails(outside: Outside, stoppable: PostgresServer) -> None:
    """One after the other: the two servers take longer to start than this does."""
    _goes_away(outside, stoppable)
    _becomes_a_standby(outside, stoppable)
    _drops_every_connection(outside, stoppable)
