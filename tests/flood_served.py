"""`make flood`, second part: the same challenges through a real server.

Clients keep a TLS connection each and send requests in bundles, without waiting for
each answer, so that the server is what takes the time. Whatever was counted is there
to be compared: memory of all its processes, rows in its database, its own log.
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.processes import usage
from tests.fakes.served import Folders, Served, serving
from tests.flood import AUTH, DEFAULT

CLIENTS = 4
BUNDLE = 50
WARM_UP = 4000
"""What the first requests load stays: threads, their connections, their memory."""

SECONDS = 4 * 3600.0
"""When a flood that takes too long is over."""

TABLES = ("log_entries", "spent_challenges", "sessions", "evidence", "enrolments")
_TIMEOUT = 120.0


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# As in the first part: both doors, and every tenth asks for the resource as well.
REQUESTS = tuple(
    _request("GET", "/kbs/v0/resource/default/test/key", b"")
    if number % 10 == 0
    else _request("POST", "/v1/challenge", b"{}")
    if number % 2
    else _request("POST", "/kbs/v0/auth", AUTH)
    for number in range(BUNDLE)
)
STATUSES = tuple(401 if number % 10 == 0 else 200 for number in range(BUNDLE))


@dataclass(frozen=True)
class Flooded:
    """What there was before and after."""

    challenges: int
    seconds: float
    memory_before_mib: float
    memory_after_mib: float
    stored_before: int
    stored_after: int
    log_bytes: int
    """What the broker's own log grew by."""


class Client:
    """One connection that sends bundles of requests and reads their answers."""

    def __init__(self, served: Served, *, source: str = "127.0.0.1") -> None:
        plain = socket.create_connection(
            ("127.0.0.1", served.port), timeout=_TIMEOUT, source_address=(source, 0)
        )
        context: ssl.SSLContext = served.context
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._rest = b""

    def close(self) -> None:
        self._socket.close()

    def send(self, requests: tuple[bytes, ...] = REQUESTS) -> tuple[int, ...]:
        """Send a bundle; return the statuses in its order."""
        self._socket.sendall(b"".join(requests))
        return tuple(self._read() for _ in requests)

    def _read(self) -> int:
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self._rest[:end].lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        whole = end + 4 + length
        while len(self._rest) < whole:
            self._more()
        self._rest = self._rest[whole:]
        return int(head[9:12])

    def _more(self) -> None:
        piece = self._socket.recv(256 * 1024)
        if not piece:
            raise ConnectionError("the broker ended the connection")
        self._rest += piece


@contextmanager
def flooded_broker(folder: Path, *, workers: int = 2) -> Iterator[Served]:
    """A broker with no limit of rates, so that all of the flood reaches it."""
    options = ("--dev", "--workers", str(workers), "--rate-limit", "0")
    with serving(Folders(folder), *options) as served:
        yield served


def flood(
    served: Served,
    folders: Folders,
    count: int,
    *,
    seconds: float = SECONDS,
    warm_up: int = WARM_UP,
) -> Flooded:
    """Send `count` beginnings, or as many as the time allows; say what they left."""
    _send(served, warm_up, seconds)
    memory, stored, log = _measured(served, folders)
    started = time.monotonic()
    sent = _send(served, count, seconds)
    spent = time.monotonic() - started
    memory_after, stored_after, log_after = _measured(served, folders)
    return Flooded(
        challenges=sent,
        seconds=round(spent, 1),
        memory_before_mib=memory,
        memory_after_mib=memory_after,
        stored_before=stored,
        stored_after=stored_after,
        log_bytes=log_after - log,
    )


def _measured(served: Served, folders: Folders) -> tuple[float, int, int]:
    rss = round(usage(served.process.pid).rss_mib, 1)
    return rss, _stored(folders), served.stderr.stat().st_size


def _send(served: Served, count: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    bundles = -(-count // BUNDLE)
    done = [0] * CLIENTS

    def run(number: int) -> None:
        with closing(Client(served)) as client:
            for _ in range(number, bundles, CLIENTS):
                if time.monotonic() > deadline:
                    return
                statuses = client.send()
                if statuses != STATUSES:
                    raise RuntimeError(f"not every challenge was answered: {statuses}")
                done[number] += BUNDLE

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(run, number) for number in range(CLIENTS)]
        while wait(running, timeout=1.0).not_done:
            print(f"\r{sum(done):>9}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for one in running:
        one.result()
    return sum(done)


def _stored(folders: Folders) -> int:
    """Rows of every table that a stranger might fill."""
    with closing(sqlite3.connect(folders.database)) as database:
        return sum(
            database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in TABLES
        )


def main() -> None:
    """Flood a broker and print what stayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=DEFAULT)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, flooded_broker(Path(folder)) as found:
        folders = Folders(Path(folder))
        result = flood(found, folders, arguments.count, seconds=arguments.seconds)
    for name, value in asdict(result).items():
        print(f"{name:20} {value:>12}")


if __name__ == "__main__":
    main()
