"""Ends connections that say nothing, and those that one client has too many of.

The server's deadlines count from the first byte of a request. Whoever connects and
keeps silent, before or after the TLS handshake or behind an HTTP/2 preface, would hold
a descriptor for ever, and a few hundred of them all that there are. The kernel knows of
every connection when data last came and went (`struct tcp_info`, linux/tcp.h).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import struct
import termios
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kbs.core.clients import client_of

log = logging.getLogger("kbs.connections")

IDLE_SECONDS = 30.0
"""How long both sides of a connection may be silent.

A body arrives within 20 s and our clients wait 30 s for an answer's first byte; long
answers are streamed, so that data flows."""

UNANSWERED_SECONDS = 60.0
"""How long a client may go on sending and get nothing back.

Headers have 10 s, a body 20 s, and our clients wait 30 s for an answer. What is left is
a client that sends a byte now and then of a TLS handshake or of a header in HTTP/2, for
which the server has no deadlines."""

SLOW_READER_SECONDS = 300.0
"""How long nothing may reach a client that answers, while data waits for it."""

LOOK_SECONDS = 1.0
"""How often connections are looked at."""

SURPLUS_SECONDS = 2.0
"""How long a connection got nothing before it counts as one too many of its client."""

STUCK_LOOKS = 8
"""After so many looks without a descriptor the process is given up. Longer than the
5.5 s in which the server takes the end of a worker for a loop, and ends altogether."""

MAX_CONNECTIONS = 1024
"""Connections of a worker; further clients wait until one ends."""

CLIENT_SHARE = 4
"""One client (an address, in IPv6 a /64 network) gets no more than this part, a
quarter, of a worker's connections; those silent for longest go first."""

SPARE_DESCRIPTORS = 64
"""Descriptors that a worker needs for other things than clients and databases."""

_LISTEN = 10  # TCP_LISTEN, net/tcp_states.h
# tcpi_state; tcpi_last_data_sent, tcpi_last_data_recv and tcpi_last_ack_recv in
# milliseconds.
_TCP_INFO = struct.Struct("=B43xI4xII")


def room_for_connections(descriptors: int, *, threads: int) -> int:
    """Return how many connections a worker with so many descriptors may serve at once.

    Those whose TLS handshake is not over come on top: the server does not count them.
    """
    # A thread's database connection: the file, its write-ahead log, its index.
    others = SPARE_DESCRIPTORS + 3 * threads
    return max(CLIENT_SHARE, min(MAX_CONNECTIONS, descriptors - others))


@dataclass(frozen=True, slots=True)
class _Connection:
    descriptor: int
    client: str
    peer: object
    idle: float
    unanswered: float


class ConnectionWatch:
    """Looks at this process's connections to the port that it serves."""

    def __init__(
        self,
        port: int,
        *,
        idle_seconds: float = IDLE_SECONDS,
        unanswered_seconds: float = UNANSWERED_SECONDS,
        per_client: int | None = None,
        surplus_seconds: float = SURPLUS_SECONDS,
        stuck: Callable[[], object] = lambda: None,
    ) -> None:
        """Watch connections to this local port; `per_client` None sets no cap.

        `stuck` is called when no descriptor was left at `STUCK_LOOKS` looks on end. The
        server then tries to accept without a pause, and comes to nothing else, not even
        to closing what has ended.
        """
        self._port = port
        self._idle_seconds = idle_seconds
        self._unanswered_seconds = unanswered_seconds
        self._per_client = per_client
        self._surplus_seconds = surplus_seconds
        self._stuck = stuck
        self._failed = 0

    def look(self) -> int:
        """End what is silent for too long or too many; return how many those were."""
        try:
            descriptors = [int(one.name) for one in Path("/proc/self/fd").iterdir()]
        except OSError as exc:
            self._fail(exc)
            return 0
        self._failed = 0
        seen = [self._read(descriptor) for descriptor in descriptors]
        found = [one for one in seen if one is not None]
        silent = [one for one in found if self._is_silent(one)]
        surplus = self._surplus(found)
        ended = sum(self._end(one) for one in {*silent, *surplus})
        if ended:
            log.info(
                "ended %d of %d connections: %d silent, %d too many of a client",
                *(ended, len(found), len(silent), len(surplus)),
            )
        return ended

    def _fail(self, error: OSError) -> None:
        log.warning("connections cannot be looked at: %s", error.strerror)
        self._failed += error.errno in {errno.EMFILE, errno.ENFILE}
        if self._failed >= STUCK_LOOKS:
            self._stuck()

    def _is_silent(self, one: _Connection) -> bool:
        return (
            one.idle >= self._idle_seconds or one.unanswered >= self._unanswered_seconds
        )

    def _surplus(self, found: Iterable[_Connection]) -> list[_Connection]:
        if self._per_client is None:
            return []
        clients: dict[str, list[_Connection]] = defaultdict(list)
        for one in found:
            clients[one.client].append(one)
        surplus: list[_Connection] = []
        for theirs in clients.values():
            # What is answered is at work, and ends by itself.
            waiting = [one for one in theirs if one.unanswered >= self._surplus_seconds]
            waiting.sort(key=lambda one: one.idle, reverse=True)
            surplus += waiting[: max(0, len(theirs) - self._per_client)]
        return surplus

    def _read(self, descriptor: int) -> _Connection | None:
        try:
            with _borrowed(descriptor) as borrowed:
                return _connection(descriptor, borrowed, self._port)
        except OSError:
            return None

    def _end(self, known: _Connection) -> bool:
        try:
            with _borrowed(known.descriptor) as borrowed:
                now = _connection(known.descriptor, borrowed, self._port)
                # No other one under the same number, nor one that spoke or was
                # answered meanwhile.
                if now is None or now.peer != known.peer:
                    return False
                if now.idle < known.idle or now.unanswered < known.unanswered:
                    return False
                borrowed.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Give a socket under a descriptor of our own, which nobody else closes.

    Raises:
        OSError: the descriptor is closed, or no socket, or none is left.
    """
    _require_socket(descriptor)
    ours = os.dup(descriptor)
    # The number may have become a file meanwhile. Ours then stays open: closing one of
    # a database would take the locks away that this process has on it (fcntl(2)).
    _require_socket(ours)
    with socket.socket(fileno=ours) as borrowed:
        yield borrowed


def _connection(
    descriptor: int, borrowed: socket.socket, port: int
) -> _Connection | None:
    if borrowed.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    if borrowed.type != socket.SOCK_STREAM or borrowed.getsockname()[1] != port:
        return None
    told = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    state, sent, received, acknowledged = _TCP_INFO.unpack(told)
    if state == _LISTEN:
        return None
    idle = min(sent, received)
    if _has_unsent(borrowed) and idle < SLOW_READER_SECONDS * 1000:
        # The kernel holds back what a slow reader has no room for yet.
        idle = sent = min(idle, acknowledged)
    peer = borrowed.getpeername()
    client = client_of(str(peer[0]))
    return _Connection(descriptor, client, peer, idle / 1000, sent / 1000)


def _has_unsent(borrowed: socket.socket) -> bool:
    count = fcntl.ioctl(borrowed.fileno(), termios.TIOCOUTQ, bytes(4))
    return any(count)


def _require_socket(descriptor: int) -> None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError("no socket")
