"""Floods and slow senders against a real server, at every door."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kbs.api.intake import BODY_SECONDS
from kbs.api.limits import BURST_SECONDS, MAX_BODY_BYTES
from kbs.serving import HEADER_SECONDS, MAX_HEADER_BYTES, MAX_STREAMS
from tests.fakes.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    NEWEST,
    SETTINGS,
    STATUS_200,
    answered,
    asking,
    frame,
    indexed,
    opening,
)
from tests.fakes.served import Folders, Served, serving
from tests.flood_served import Client, flood, flooded_broker

DOORS = ("/v1/release", "/kbs/v0/attest", "/admin/v1/keys")
GROWTH_MIB = 16.0
"""More than the unrest of allocators and threads that only now come to work."""

RATE = 5
SECONDS = 4.0
MARGIN_SECONDS = 8.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Folders(tmp_path_factory.mktemp("floods"))) as found:
        yield found


@pytest.mark.slow
def test_challenges_that_nobody_answers_leave_nothing(tmp_path: Path) -> None:
    """`make flood` is the large one."""
    with flooded_broker(tmp_path) as broker:
        found = flood(broker, Folders(tmp_path), 3000, warm_up=1000)
        assert "Traceback" not in broker.errors()
    assert found.challenges == 3000
    assert found.stored_after == found.stored_before
    assert found.log_bytes < 1024
    assert found.memory_after_mib - found.memory_before_mib < GROWTH_MIB


@pytest.mark.slow
def test_one_client_that_floods_starves_nobody(tmp_path: Path) -> None:
    options = ("--rate-limit", str(RATE), "--threads", "2")
    with serving(Folders(tmp_path), *options) as broker:
        over = threading.Event()
        heard: Counter[int] = Counter()

        def run() -> None:
            with closing(Client(broker, source="127.0.0.2")) as client:
                while not over.is_set():
                    heard.update(client.send())

        floods = [threading.Thread(target=run) for _ in range(2)]
        for one in floods:
            one.start()
        try:
            others = []
            for _ in range(int(SECONDS * 2)):
                others.append(broker.call("POST", "/v1/challenge", b"{}")[0])
                time.sleep(0.5)
        finally:
            over.set()
            for one in floods:
                one.join()
        assert set(others) == {200}
        # Few of the flood were served; the rest heard why not.
        assert heard[429] > 10 * (heard[200] + heard[401])
        assert heard[200] + heard[401] >= RATE * BURST_SECONDS
        status, kind, body = _limited(broker)
        assert (status, kind) == (429, "application/problem+json")
        assert json.loads(body)["code"] == "rate.limited"
        assert "rate.limited" not in broker.errors()


def _limited(broker: Served) -> tuple[int, str, bytes]:
    while True:
        found = broker.call("POST", "/v1/challenge", b"{}")
        if found[0] != 200:
            return found


@dataclass
class Slow:
    """A client that sends a byte a second; when and how it was ended."""

    door: str
    connection: socket.socket
    started: float
    heard: bytes = b""
    ended: float | None = None

    def drip(self, byte: bytes) -> None:
        """Send one more byte, and read what was said."""
        try:
            self.connection.sendall(byte)
            self.connection.settimeout(0.01)
            piece = self.connection.recv(4096)
        except TimeoutError:
            return
        except OSError:
            piece = b""
        self.heard += piece
        if not piece or b"\r\n\r\n" in self.heard:
            self.ended = time.monotonic()


@pytest.mark.slow
def test_slow_senders_are_ended_at_every_door(served: Served) -> None:
    """Of headers and of bodies, all at once; who is quick is served meanwhile."""
    with ExitStack() as stack:
        heads = [_slow(served, stack, door, "") for door in DOORS]
        bodies = [_slow(served, stack, door, "\r\n") for door in DOORS]
        deadline = time.monotonic() + BODY_SECONDS + MARGIN_SECONDS
        while any(one.ended is None for one in (*heads, *bodies)):
            assert time.monotonic() < deadline
            for one in (*heads, *bodies):
                if one.ended is None:
                    one.drip(b"x")
            assert served.call("GET", "/health/live")[0] == 200
            time.sleep(1.0)
    for one in heads:
        assert one.heard == b"" or one.heard.startswith(b"HTTP/1.1 408"), one
        assert _lasted(one) < HEADER_SECONDS + MARGIN_SECONDS
    for one in bodies:
        assert one.heard.startswith(b"HTTP/1.1 408"), one
        assert b"http.timeout" in one.heard
    assert "Traceback" not in served.errors()


def _slow(served: Served, stack: ExitStack, door: str, end: str) -> Slow:
    connection = _connected(served, stack)
    head = f"POST {door} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    head += "Content-Type: application/json\r\nX-Slow: "
    connection.sendall((head + "\r\n" * bool(end) + end).encode())
    return Slow(door, connection, time.monotonic())


def _lasted(one: Slow) -> float:
    assert one.ended is not None
    return one.ended - one.started


def _connected(served: Served, stack: ExitStack) -> socket.socket:
    address = ("127.0.0.1", served.port)
    plain = stack.enter_context(socket.create_connection(address, timeout=20))
    context = served.context
    return stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))


@pytest.mark.parametrize("door", DOORS)
def test_a_body_has_a_cap_at_every_door(served: Served, door: str) -> None:
    status, _, body = served.call("POST", door, b"x" * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert json.loads(body)["code"] == "http.too_large"


@pytest.mark.parametrize("door", DOORS)
def test_headers_have_a_cap_at_every_door(served: Served, door: str) -> None:
    heard = b""
    with ExitStack() as stack, suppress(OSError):
        connection = _connected(served, stack)
        filling = b"x" * (2 * MAX_HEADER_BYTES)
        connection.sendall(f"POST {door} HTTP/1.1\r\nX-Large: ".encode() + filling)
        while piece := connection.recv(4096):
            heard += piece
    assert heard == b"" or heard.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), heard
    assert served.call("GET", "/health/live")[0] == 200


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folders = Folders(tmp_path_factory.mktemp("plain"))
    with serving(folders, "--plain-http", plain=True) as found:
        yield found


def _said(served: Served, sent: bytes, stream: int = 1) -> list[tuple[int, bytes]]:
    address = ("127.0.0.1", served.port)
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(opening() + sent)
        return answered(connection, stream)


@pytest.mark.parametrize(
    ("value", "times", "is_served"),
    [("v", 100, True), ("v", 2000, False), ("v" * 3900, 4000, False)],
)
def test_headers_count_as_they_are_after_decompression(
    plain: Served, value: str, times: int, *, is_served: bool
) -> None:
    """In HTTP/2 a byte may stand for a header of 4 KB: 8 KB made 16 MB."""
    asked = asking("GET", "/health/live") + indexed("x-a", value) + NEWEST * times
    heard = _said(plain, frame(HEADERS, END_HEADERS | END_STREAM, asked))
    status = [said[0] for kind, said in heard if kind == HEADERS]
    assert (status == [STATUS_200]) is is_served
    assert plain.call("GET", "/health/live")[0] == 200


def test_a_connection_has_few_streams(plain: Served) -> None:
    """An answer lies in memory for as long as the client opens no window for it."""
    wanted = struct.pack(">HI", MAX_CONCURRENT_STREAMS, MAX_STREAMS)
    assert any(wanted in said for kind, said in _said_first(plain) if kind == SETTINGS)


def _said_first(served: Served) -> list[tuple[int, bytes]]:
    asked = asking("GET", "/health/live")
    return _said(served, frame(HEADERS, END_HEADERS | END_STREAM, asked), 0)
