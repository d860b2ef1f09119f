"""From the server's event loop to the Flask application in threads.

A body is read before any thread is taken (`intake`): what reaches the application is
complete. RSGI is Granian's interface
(https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md); the
application speaks WSGI (PEP 3333).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from kbs.api.intake import (
    BODY_SECONDS,
    ClientLeftError,
    Intake,
    RefusedError,
    Taken,
    peer,
)
from kbs.api.problems import refusal
from kbs.api.streaming import gathered, send_stream
from kbs.broker.pace import Pace
from kbs.core.errors import KbsError
from kbs.wire.problem import problem_of

log = logging.getLogger("kbs.gateway")

LEFT_SECONDS = 0.1
"""Shortest time between two lines of the log about clients that left."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is sent; in pieces where the length is not known before the end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | Generator[bytes]


class Gateway:
    """An RSGI application around a Flask one."""

    def __init__(
        self,
        app: Flask,
        *,
        threads: int,
        per_client: bool = True,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """Run the application in this many threads.

        `per_client`: whether an address stands for a client, who gets a share.
        """
        self._app = app
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kbs-request")
        self._intake = Intake(per_client=per_client, body_seconds=body_seconds)
        self._left = Pace(time.monotonic, LEFT_SECONDS)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of the end: the server waits until every request is answered.

        The server listens for these signals through the loop's file descriptor, which
        a handler of Python's leaves in place.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(
                number, lambda *_: loop.call_soon_threadsafe(self._intake.end)
            )

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request; a client that leaves meanwhile is no error of ours."""
        try:
            await self._answer(scope, protocol)
        except (ProtocolClosed, ClientLeftError):
            # What a stranger may spell freely is escaped: one call is one line.
            level = logging.INFO if self._left.is_due() else logging.DEBUG
            log.log(level, "client left: %s %a", scope.method, scope.path[:200])

    async def _answer(self, scope: Any, protocol: Any) -> None:
        try:
            taken = await self._intake.take(scope, protocol)
        except RefusedError as refused:
            _send(protocol, _refused(refused.document))
            if isinstance(refused, ClientLeftError):
                raise
            return
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(
            self._pool, self._call, _environ(scope, taken), taken
        )
        if isinstance(answer.body, bytes):
            _send(protocol, answer)
            return
        pieces = answer.body
        asked = 0

        async def more() -> bytes:
            nonlocal asked
            asked += 1
            return await loop.run_in_executor(self._pool, gathered, pieces)

        try:
            await send_stream(protocol, answer.status, answer.headers, more)
        except KbsError as exc:
            # Where the status is gone, with the first of what was asked for, the reader
            # misses the end; the log says why.
            path = scope.path[:200]
            log.error("answer broke off: %s %a: %s", scope.method, path, exc)  # noqa: TRY400 - it is said, not a bug
            if asked == 1:
                _send(protocol, _refused(problem_of(exc)))
        finally:
            # Where pieces are made, they are given up: a database may be open there.
            await loop.run_in_executor(self._pool, pieces.close)

    def _call(self, environ: dict[str, Any], taken: Taken) -> _Answer:
        """Run the application; what can be sent whole is read to its end here."""
        taken.give_back()
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _: object = None
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda _: None

        found = self._app.wsgi_app(environ, start_response)
        status, headers = started[-1]
        pieces = _closing(found)
        is_whole = "content-length" in {name.lower() for name, _ in headers}
        body = b"".join(pieces) if is_whole else pieces
        return _Answer(int(status.split(" ", 1)[0]), headers, body)


def _closing(found: Any) -> Generator[bytes]:
    # PEP 3333: `close` is called when the answer was sent, or given up.
    try:
        for piece in found:
            if piece:
                yield piece
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _send(protocol: Any, answer: _Answer) -> None:
    protocol.response_bytes(answer.status, answer.headers, answer.body)


def _refused(document: dict[str, object]) -> _Answer:
    response: Response = refusal(document)
    return _Answer(response.status_code, list(response.headers), response.get_data())


def _environ(scope: Any, taken: Taken) -> dict[str, Any]:
    host, port = peer(scope.server)
    client, client_port = peer(scope.client)
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
        "CONTENT_LENGTH": str(taken.size),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": taken.body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    given: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in scope.headers.items():
        given[name.upper().replace("-", "_")].append(value)
    for key, values in given.items():
        if key == "CONTENT_TYPE":
            environ[key] = values[-1]
        elif key != "CONTENT_LENGTH":
            # HTTP/2 clients may send each cookie alone (RFC 9113, section 8.2.3).
            between = "; " if key == "COOKIE" else ","
            environ[f"HTTP_{key}"] = between.join(values)
    return environ
