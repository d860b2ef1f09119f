"""Answers of any length, by the real server: made no faster than they are read."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.fakes.endless import PIECE, PIECES

ASKING = b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOOKS = 10


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    command = (
        *(sys.executable, "-m", "granian", "--interface", "rsgi", "--no-ws"),
        *("--host", "127.0.0.1", "--port", str(number), "tests.fakes.endless:gateway"),
    )
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not listens(number):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield number
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def settled(port: int) -> int:
    """How much was made once no more is."""
    before, same = -1, 0
    while same < LOOKS:
        now = int(get(port, "/made"))
        same = same + 1 if now == before else 0
        before = now
        time.sleep(0.05)
    return before


def test_a_long_answer_arrives_whole(port: int) -> None:
    assert len(get(port, "/long")) == PIECES * len(PIECE)


def test_an_answer_that_nobody_reads_is_not_made(port: int) -> None:
    """Sockets hold some megabytes of it, and the broker next to nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(ASKING)
        assert 0 < settled(port) < PIECES // 4
    assert len(get(port, "/long")) == PIECES * len(PIECE)
