"""Connections that say nothing: ended, on real sockets, and nobody else's touched."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kbs.adapters.connections import STUCK_LOOKS, ConnectionWatch, room_for_connections
from tests.fakes.faulty import descriptors, no_descriptors
from tests.fakes.networks import in_a_network_of_its_own

SECONDS = 0.3


@dataclass
class Site:
    """A listener in this process, and who is connected to it."""

    listener: socket.socket
    stack: ExitStack
    accepted: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def connect(self, host: str | None = None) -> socket.socket:
        """Return the client's side of a new connection, from and to this host."""
        bound, port = self.listener.getsockname()[:2]
        address = (host or bound, port)
        client = self.stack.enter_context(socket.create_connection(address, timeout=5))
        ours, _ = self.listener.accept()
        self.accepted.append(self.stack.enter_context(ours))
        return client


@pytest.fixture(params=["127.0.0.1", "::1"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A listener on each kind of loopback address."""
    with opened(request.param) as found:
        yield found


@contextmanager
def opened(host: str = "127.0.0.1") -> Iterator[Site]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(600)
        yield Site(listener, stack)


def ended(client: socket.socket) -> bool:
    client.settimeout(0.05)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False


def test_who_says_nothing_is_ended_and_who_talks_is_not(site: Site) -> None:
    watch = ConnectionWatch(site.port, idle_seconds=SECONDS)
    silent, talks, hears = site.connect(), site.connect(), site.connect()
    assert watch.look() == 0
    time.sleep(SECONDS * 1.5)
    talks.sendall(b"x")
    site.accepted[2].sendall(b"x")
    hears.recv(1)
    assert watch.look() == 1
    assert [ended(one) for one in (silent, talks, hears)] == [True, False, False]
    # Once is enough, although its owner has not closed it yet.
    site.accepted[0].close()
    time.sleep(SECONDS * 1.5)
    assert watch.look() == 2


def test_nothing_else_of_the_process_is_touched(site: Site) -> None:
    """Such as the database's connections, and the port itself."""
    watch = ConnectionWatch(site.port, idle_seconds=0.0)
    with opened() as database:
        away = database.connect()
        first, second = socket.socketpair()
        with first, second:
            assert watch.look() == 0
            first.sendall(b"x")
            assert second.recv(1) == b"x"
        database.accepted[0].sendall(b"x")
        assert away.recv(1) == b"x"
    # The port still listens; the client's side has another local port.
    client = site.connect()
    assert watch.look() == 1
    assert ended(client)


def test_a_client_has_so_many_and_the_longest_silent_go() -> None:
    with opened() as site:
        watch = ConnectionWatch(site.port, per_client=3, surplus_seconds=0.04)
        clients = [site.connect() for _ in range(5)]
        time.sleep(0.05)
        for number in (0, 2, 4):
            clients[number].sendall(b"x")
        assert watch.look() == 2
        assert [ended(one) for one in clients] == [False, True, False, True, False]
        assert ConnectionWatch(site.port, per_client=None).look() == 0
        # What was answered just now is at work, however many there are.
        busy = ConnectionWatch(site.port, per_client=1, surplus_seconds=60.0)
        assert busy.look() == 0


@pytest.mark.parametrize(
    "limit",
    [{"unanswered_seconds": SECONDS}, {"per_client": 1, "surplus_seconds": SECONDS}],
    ids=["for too long", "too many"],
)
def test_who_only_speaks_is_ended_too(limit: dict[str, Any]) -> None:
    """A byte now and then keeps nothing open, and counts for nothing."""
    with opened() as site:
        speaks, hears = site.connect(), site.connect()
        time.sleep(SECONDS)
        for client in (speaks, hears):
            client.sendall(b"x")
        site.accepted[1].sendall(b"x")
        hears.recv(1)
        assert ConnectionWatch(site.port, **limit).look() == 1
        assert [ended(one) for one in (speaks, hears)] == [True, False]


def test_one_network_of_ipv6_is_one_client() -> None:
    def run() -> None:
        with opened("::") as site:
            watch = ConnectionWatch(site.port, per_client=3, surplus_seconds=0.04)
            near = [site.connect(f"fd00:1::{number}") for number in (1, 1, 2, 2)]
            far = [site.connect("fd00:2::1") for _ in range(3)]
            time.sleep(0.05)
            near[0].sendall(b"x")
            assert watch.look() == 1
            assert [ended(one) for one in near].count(True) == 1
            assert not any(ended(one) for one in far)

    in_a_network_of_its_own(["fd00:1::1", "fd00:1::2", "fd00:2::1"], run)


def test_a_slow_reader_that_goes_on_is_not_silent() -> None:
    with opened() as site:
        watch = ConnectionWatch(site.port, idle_seconds=1.5)
        client = site.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = site.accepted[0]
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        for _ in range(8):
            time.sleep(0.3)
            assert client.recv(65536)
            time.sleep(0.05)
            assert watch.look() == 0


def test_without_a_descriptor_nothing_is_ended_and_nothing_breaks() -> None:
    with opened() as site:
        stuck: list[str] = []
        watch = ConnectionWatch(
            site.port, idle_seconds=0.0, stuck=lambda: stuck.append("stuck")
        )
        site.connect()
        with no_descriptors():
            assert [watch.look() for _ in range(STUCK_LOOKS - 1)] == [0] * 7
        assert watch.look() == 1
        # Only on end, as nothing but a full table stays.
        with no_descriptors():
            for _ in range(STUCK_LOOKS - 1):
                watch.look()
            assert stuck == []
            watch.look()
            assert stuck == ["stuck"]


@pytest.mark.parametrize(
    ("descriptors", "threads", "room"),
    [(20_000, 8, 1024), (1024, 8, 936), (256, 8, 168), (10, 8, 4)],
)
def test_connections_leave_descriptors_for_the_rest(
    descriptors: int, threads: int, room: int
) -> None:
    assert room_for_connections(descriptors, threads=threads) == room


def test_looking_leaves_every_descriptor_as_it_was(site: Site) -> None:
    watch = ConnectionWatch(site.port, idle_seconds=0.0)
    site.connect()
    before = descriptors()
    watch.look()
    assert descriptors() == before
