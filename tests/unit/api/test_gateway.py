"""The gateway: bodies whole and in time, or a refusal; then the application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, request
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from kbs.api.gateway import PATIENCE_BYTES, Gateway
from kbs.api.limits import MAX_BODY_BYTES


@dataclass
class Stream:
    sent: list[bytes] = field(default_factory=list)
    room: int = 100

    async def send_bytes(self, data: bytes) -> None:
        if len(self.sent) == self.room:
            raise ProtocolClosed
        self.sent.append(data)


@dataclass
class Protocol:
    """What the server gives: pieces of a body, and places for an answer."""

    pieces: list[bytes]
    pause: float = 0.0
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    stream: Stream = field(default_factory=Stream)
    taken: int = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            self.taken += len(piece)
            yield piece

    def response_bytes(
        self, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.status, self.headers, self.body = status, headers, body

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Stream:
        self.status, self.headers = status, headers
        return self.stream


class Headers(dict[str, str]):
    """Headers as the server gives them: names may come twice."""


def scope(**changes: object) -> Any:
    given = {
        "method": "POST",
        "path": "/echo/ä",
        "query_string": "a=1&b=%20",
        "http_version": "1.1",
        "scheme": "https",
        "server": "127.0.0.1:8443",
        "client": "127.0.0.1:50000",
        "headers": Headers({"content-type": "text/plain", "x-one": "1"}),
    }
    return SimpleNamespace(**{**given, **changes})


closed: list[str] = []


def application() -> Flask:
    app = Flask("test", static_folder=None)

    @app.post("/echo/<name>")
    def echo(name: str) -> dict[str, object]:
        return {
            "name": name,
            "body": request.get_data(as_text=True),
            "query": request.args.get("b"),
            "one": request.headers.get("X-One"),
            "type": request.mimetype,
            "client": request.remote_addr,
            "path": request.path,
        }

    @app.post("/stream")
    def stream() -> Response:
        def pieces() -> Iterator[bytes]:
            try:
                yield b"one"
                yield b""
                yield b"two"
            finally:
                closed.append("stream")

        return Response(pieces())

    return app


def ask(protocol: Protocol, seconds: float = 5.0, **changes: object) -> Protocol:
    async def run() -> None:
        gateway = Gateway(application(), threads=2, body_seconds=seconds)
        await gateway.__rsgi__(scope(**changes), protocol)

    asyncio.run(run())
    return protocol


def test_the_application_sees_the_request_whole() -> None:
    answered = ask(Protocol([b"he", b"llo"]))
    assert answered.status == 200
    assert json.loads(answered.body) == {
        "name": "ä",
        "body": "hello",
        "query": " ",
        "one": "1",
        "type": "text/plain",
        "client": "127.0.0.1",
        "path": "/echo/ä",
    }


def test_a_body_that_does_not_come_in_time_is_refused() -> None:
    answered = ask(Protocol([b"x"] * 100, pause=0.02), seconds=0.1)
    assert answered.status == 408
    document = json.loads(answered.body)
    assert document["code"] == "http.timeout"
    assert "expected all of it within 0.1 s" in document["detail"]
    assert ("Content-Type", "application/problem+json") in answered.headers


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2 * PATIENCE_BYTES])
def test_a_body_that_is_too_large_is_refused_and_read_with_patience(size: int) -> None:
    piece = bytes(64 * 1024)
    answered = ask(Protocol([piece] * (size // len(piece) + 1)))
    assert answered.status == 413
    document = json.loads(answered.body)
    assert document["code"] == "http.too_large"
    assert f"expected at most {MAX_BODY_BYTES} bytes" in document["detail"]
    assert answered.taken <= PATIENCE_BYTES + len(piece)


def test_the_largest_body_is_taken() -> None:
    answered = ask(Protocol([b"a" * MAX_BODY_BYTES]))
    assert answered.status == 200


def test_an_answer_of_unknown_length_is_streamed_and_closed() -> None:
    closed.clear()
    answered = ask(Protocol([]), path="/stream")
    assert answered.status == 200
    assert answered.stream.sent == [b"one", b"two"]
    assert closed == ["stream"]


def test_a_client_that_leaves_a_stream_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed.clear()
    with caplog.at_level("INFO"):
        answered = ask(Protocol([], stream=Stream(room=1)), path="/stream")
    assert answered.stream.sent == [b"one"]
    assert closed == ["stream"]
    assert caplog.messages == ["client left: POST '/stream'"]
    assert caplog.records[0].exc_info is None
