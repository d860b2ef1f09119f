"""A vendor's service on loopback that can answer late, wrong, 429, or nothing.

What it serves is a table of paths; how it serves the next requests is a list of
`Fault`s, each used once, and after them it is well again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Served:
    """A body with its headers."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Fault = Callable[[BaseHTTPRequestHandler, Served], None]
"""Answers one request in its own way; the second is what would have been sent."""


@dataclass
class VendorService:
    """One service: what lies where, and what goes wrong next."""

    answers: dict[str, Served] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)

    def find(self, path: str, body: bytes | None) -> Served | None:
        """What lies there."""
        return self.answers.get(path)


@contextmanager
def serving(service: VendorService) -> Iterator[str]:
    """Serve on a free loopback port; give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

        def do_GET(self) -> None:
            _answer(service, self, None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            service.posted.append(body)
            _answer(service, self, body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(
    service: VendorService, handler: BaseHTTPRequestHandler, body: bytes | None
) -> None:
    service.asked.append(handler.path)
    served = service.find(handler.path, body)
    if service.faults:
        service.faults.pop(0)(handler, served or Served(b""))
    elif served is None:
        send(handler, Served(b"not here"), 404)
    else:
        send(handler, served)


def send(handler: BaseHTTPRequestHandler, served: Served, status: int = 200) -> None:
    """Answer as a service that is well."""
    handler.send_response(status)
    for name, text in served.headers.items():
        handler.send_header(name, text)
    handler.send_header("Content-Length", str(len(served.body)))
    handler.end_headers()
    handler.wfile.write(served.body)


def late(seconds: float) -> Fault:
    """Answer, after a while."""

    def fault(handler: BaseHTTPRequestHandler, served: Served) -> None:
        time.sleep(seconds)
        send(handler, served)

    return fault


def status(code: int, **headers: str) -> Fault:
    """Answer with a status and headers (`Retry_After`)."""

    def fault(handler: BaseHTTPRequestHandler, _: Served) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        send(handler, Served(b"no", named), code)

    return fault


def nothing(handler: BaseHTTPRequestHandler, _: Served) -> None:
    """Hang up."""
    handler.close_connection = True
    handler.connection.close()


def truncated(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """Promise everything and hang up in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(served.body)))
    handler.end_headers()
    handler.wfile.write(served.body[: len(served.body) // 2])
    handler.close_connection = True


def cut(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """Half of it, as if that were all."""
    send(handler, Served(served.body[: len(served.body) // 2], served.headers))


def huge(handler: BaseHTTPRequestHandler, _: Served) -> None:
    """No length, and no end until the other side has enough."""
    handler.send_response(200)
    handler.end_headers()
    for _place in range(4096):
        handler.wfile.write(bytes(64 * 1024))


def promising(handler: BaseHTTPRequestHandler, _: Served) -> None:
    """Promise more than anybody takes."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()


def dripping(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """Send a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(served.body)))
    handler.end_headers()
    for place in range(len(served.body)):
        handler.wfile.write(served.body[place : place + 1])
        handler.wfile.flush()
        time.sleep(0.02)


def slow_headers(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """Send a header now and then."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    with suppress(OSError):
        for number in range(20):
            handler.wfile.write(b"X-%d: y\r\n" % number)
            time.sleep(0.1)
        handler.wfile.write(b"Content-Length: %d\r\n\r\n" % len(served.body))
        handler.wfile.write(served.body)
    handler.close_connection = True


def chunked(handler: BaseHTTPRequestHandler, served: Served) -> None:
    """The whole answer, in chunks (RFC 9112, section 7.1)."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    half = len(served.body) // 2
    for part in (served.body[:half], served.body[half:]):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
    handler.wfile.write(b"0\r\n\r\n")
    handler.close_connection = True


def instead(body: bytes, **headers: str) -> Fault:
    """Answer with something else."""

    def fault(handler: BaseHTTPRequestHandler, served: Served) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        send(handler, Served(body, {**served.headers, **named}))

    return fault


def headed(code: int = 200, **headers: str) -> Fault:
    """Answer with these headers alone, whatever is in them, and hang up."""

    def fault(handler: BaseHTTPRequestHandler, _: Served) -> None:
        handler.send_response(code)
        for name, text in headers.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.close_connection = True

    return fault


def redirecting(target: str) -> Fault:
    """Send the caller elsewhere."""
    return status(302, Location=target)
