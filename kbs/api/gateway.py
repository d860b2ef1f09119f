"""From the server's event loop to the Flask application in threads.

A body is read here, with a deadline and a cap, before any thread is taken: a client
that sends one byte a minute, or none, costs a coroutine and nobody else's time. What
reaches the application is complete. RSGI is Granian's interface
(https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md); the
application speaks WSGI (PEP 3333).
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from kbs.api.limits import MAX_BODY_BYTES
from kbs.api.problems import refusal, too_large
from kbs.broker.pace import Pace
from kbs.wire.problem import problem

log = logging.getLogger("kbs.gateway")

BODY_SECONDS = 20.0
"""How long a client may take to send its body."""

PATIENCE_BYTES = 4 * MAX_BODY_BYTES
"""How much is read of a body that is too large, so that the refusal arrives: a client
that still sends when the connection closes sees a broken pipe and never the answer."""

MAX_READING = 256
"""Bodies that are read at once; further requests wait for their turn."""

LEFT_SECONDS = 0.1
"""Shortest time between two lines of the log about clients that left."""

_END = b""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    pieces: Iterable[bytes]

    @property
    def is_whole(self) -> bool:
        """Whether the length is known, so that it can be sent in one piece."""
        return any(name.lower() == "content-length" for name, _ in self.headers)


class Gateway:
    """An RSGI application around a Flask one."""

    def __init__(
        self, app: Flask, *, threads: int, body_seconds: float = BODY_SECONDS
    ) -> None:
        """Run the application in this many threads."""
        self._app = app
        self._body_seconds = body_seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kbs-request")
        self._reading = asyncio.Semaphore(MAX_READING)
        self._left = Pace(time.monotonic, LEFT_SECONDS)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request; a client that leaves meanwhile is no error of ours."""
        try:
            await self._answer(scope, protocol)
        except ProtocolClosed:
            # What a stranger may spell freely is escaped: one call is one line.
            level = logging.INFO if self._left.is_due() else logging.DEBUG
            log.log(level, "client left: %s %a", scope.method, scope.path[:200])

    async def _answer(self, scope: Any, protocol: Any) -> None:
        async with self._reading:
            try:
                async with asyncio.timeout(self._body_seconds):
                    body = await _read(protocol)
            except TimeoutError:
                _send(protocol, _refused(self._too_late()))
                return
        if body is None:
            _send(protocol, _refused(too_large(None)))
            return
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(
            self._pool, self._call, _environ(scope, body)
        )
        if answer.is_whole:
            _send(protocol, answer)
            return
        pieces = _closing(answer.pieces)
        try:
            stream = protocol.response_stream(answer.status, answer.headers)
            while piece := await loop.run_in_executor(self._pool, next, pieces, _END):
                await stream.send_bytes(piece)
        finally:
            # Where pieces are made, they are given up: a database may be open there.
            await loop.run_in_executor(self._pool, pieces.close)

    def _too_late(self) -> dict[str, object]:
        return problem(
            HTTPStatus.REQUEST_TIMEOUT,
            code="http.timeout",
            detail="request body: got a part of it, "
            f"expected all of it within {self._body_seconds:g} s",
        )

    def _call(self, environ: dict[str, Any]) -> _Answer:
        """Run the application; what can be sent whole is read to its end here."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _: object = None
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda _: None

        found = self._app.wsgi_app(environ, start_response)
        status, headers = started[-1]
        answer = _Answer(int(status.split(" ", 1)[0]), headers, _closing(found))
        if answer.is_whole:
            return _Answer(answer.status, headers, list(answer.pieces))
        return answer


async def _read(protocol: Any) -> bytes | None:
    """Return the body, or None if it is larger than any that is taken."""
    pieces: list[bytes] = []
    size = 0
    async for piece in protocol:
        size += len(piece)
        if size > PATIENCE_BYTES:
            break
        if size <= MAX_BODY_BYTES:
            pieces.append(bytes(piece))
    return b"".join(pieces) if size <= MAX_BODY_BYTES else None


def _closing(found: Any) -> Generator[bytes]:
    # PEP 3333: `close` is called when the answer was sent, or given up.
    try:
        yield from (piece for piece in found if piece)
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _send(protocol: Any, answer: _Answer) -> None:
    protocol.response_bytes(answer.status, answer.headers, b"".join(answer.pieces))


def _refused(document: dict[str, object]) -> _Answer:
    response: Response = refusal(document)
    return _Answer(response.status_code, list(response.headers), [response.get_data()])


def _environ(scope: Any, body: bytes) -> dict[str, Any]:
    host, _, port = str(scope.server).rpartition(":")
    client, _, client_port = str(scope.client).rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        # PEP 3333: bytes as latin-1 text.
        "PATH_INFO": scope.path.encode("utf-8").decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port or "0",
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": client,
        "REMOTE_PORT": client_port,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value
        elif key != "CONTENT_LENGTH":
            known = environ.get(f"HTTP_{key}")
            environ[f"HTTP_{key}"] = value if known is None else f"{known},{value}"
    return environ
