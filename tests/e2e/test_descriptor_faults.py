"""Connections until a real server has no descriptor left, and then none of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from kbs.core.errors import UnavailableError
from tests.fakes.databases import (
    Place,
    place,
    postgresql_place,
    postgresql_server,
    postgresql_template,
    sqlite_place,
    sqlite_template,
)
from tests.fakes.faulty import no_descriptors
from tests.fakes.outside import Outside, statuses
from tests.fakes.served import Folders, Served, serving

__all__ = [
    "place",
    "postgresql_place",
    "postgresql_server",
    "postgresql_template",
    "sqlite_place",
    "sqlite_template",
]

LIMIT = 256
WORKERS = 2
EXHAUSTED_SECONDS = 20.0


@contextmanager
def _all_taken(served: Served) -> Iterator[None]:
    """Hold connections that never begin a handshake, until no more are accepted."""
    with ExitStack() as stack:
        for _ in range(WORKERS * LIMIT + 100):
            address = ("127.0.0.1", served.port)
            stack.enter_context(socket.create_connection(address, timeout=10))
        deadline = time.monotonic() + EXHAUSTED_SECONDS
        while "Too many open files" not in served.errors():
            assert time.monotonic() < deadline, served.errors()[-2000:]
            time.sleep(0.1)
        yield


@pytest.mark.slow
# Clients' libraries leave sockets that were reset before a handshake to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_descriptors_that_run_out_come_back(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    options = ("--dev", "--workers", str(WORKERS), "--rate-limit", "0")
    with serving(folders, *options, descriptors=(LIMIT, LIMIT)) as served:
        outside = Outside(folders, served)
        outside.administer()
        waiting = outside.guests()
        with outside.asked_all_the_time() as told:
            with _all_taken(served):
                time.sleep(2)
            outside.await_ready()
            for guest in waiting:
                assert outside.send(guest).status == 200
        assert set(statuses(told)) <= {0, 200, 503}
        assert all(one.status == 200 for one in outside.fetch())
        assert "Traceback" not in served.errors()
        # Guests that were connected to a worker that had to be replaced.
        outside.hold_against_log(unheard=statuses(told)[0])


def test_a_database_that_cannot_be_opened_for_want_of_descriptors(place: Place) -> None:
    def read() -> None:
        with database.read() as transaction:
            transaction.log.head()

    with closing(place.connect()) as database:
        with no_descriptors(), pytest.raises(UnavailableError) as caught:
            read()
        assert caught.value.code == "database.descriptors"
        assert "raise the limit of open files" in str(caught.value)
        read()
