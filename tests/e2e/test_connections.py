"""Clients that connect and say nothing, against a real broker."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from kbs.adapters.connections import IDLE_SECONDS, LOOK_SECONDS, STUCK_LOOKS
from tests.fakes.served import Folders, Served, serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LIMIT = 256
"""Descriptors of the broker in some tests, a quarter of what a shell gives."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Folders(tmp_path_factory.mktemp("connections"))) as found:
        yield found


def _connected(served: Served, stack: ExitStack) -> socket.socket:
    address = ("127.0.0.1", served.port)
    return stack.enter_context(socket.create_connection(address, timeout=10))


def _secured(served: Served, stack: ExitStack, *protocols: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=ssl.get_server_certificate(_at(served)))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    plain = _connected(served, stack)
    return stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))


def _at(served: Served) -> tuple[str, int]:
    return "127.0.0.1", served.port


def _until_ended(client: socket.socket, deadline: float) -> float:
    """Return when the broker ended a connection; what it says before is read."""
    while True:
        client.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            if client.recv(4096) == b"":
                return time.monotonic()
        except (ConnectionResetError, ssl.SSLError):
            return time.monotonic()


@pytest.mark.slow
def test_silent_connections_are_ended(served: Served) -> None:
    with ExitStack() as stack:
        silent = [_connected(served, stack), _secured(served, stack)]
        framed = _secured(served, stack, "h2")
        framed.sendall(PREFACE)
        kept = _secured(served, stack)
        kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        deadline = started + IDLE_SECONDS + 3 * LOOK_SECONDS
        for client in (*silent, framed, kept):
            assert _until_ended(client, deadline) <= deadline
    assert served.call("GET", "/health/ready")[0] == 200
    assert "Traceback" not in served.errors()
    assert "panic" not in served.errors()


def test_one_client_cannot_take_all_connections(tmp_path: Path) -> None:
    limits = (LIMIT, LIMIT)
    with serving(Folders(tmp_path), descriptors=limits) as served, ExitStack() as stack:
        greedy = [_connected(served, stack) for _ in range(LIMIT // 2)]
        for _ in range(6):
            time.sleep(LOOK_SECONDS / 2)
            # A byte of a handshake now and then is no reason to stay.
            for one in greedy[::2]:
                with suppress(OSError):
                    one.sendall(b"\x16")
        assert "too many of a client" in served.errors()
        assert served.call("GET", "/health/ready")[0] == 200
        assert "Too many open files" not in served.errors()


@pytest.mark.slow
def test_a_worker_without_descriptors_is_replaced(tmp_path: Path) -> None:
    """Handshakes come before every limit of the server: here they take all at once."""
    limits = (LIMIT, LIMIT)
    with serving(Folders(tmp_path), descriptors=limits) as served, ExitStack() as stack:
        before = served.workers()
        for _ in range(LIMIT + 50):
            _connected(served, stack)
        deadline = time.monotonic() + (STUCK_LOOKS + 12) * LOOK_SECONDS
        while served.workers() == before or not _is_ready(served):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "no descriptor is left" in served.errors()
        assert "Traceback" not in served.errors()


def test_the_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    with serving(Folders(tmp_path), descriptors=(LIMIT, 4 * LIMIT)) as served:
        for process in (served.process.pid, *served.workers()):
            limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
            assert limits == (4 * LIMIT, 4 * LIMIT)


def _is_ready(served: Served) -> bool:
    try:
        return served.call("GET", "/health/ready")[0] == 200
    except OSError:
        return False
