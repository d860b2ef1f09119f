"""The gateway: bodies whole and in time, or a refusal; then the application."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, request
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from kbs.api.gateway import Gateway
from kbs.api.intake import MAX_HELD_BYTES, MAX_WAITING, PATIENCE_BYTES
from kbs.api.limits import MAX_BODY_BYTES, SHORT_BODY_BYTES
from kbs.api.shares import CLIENT_PART
from kbs.api.streaming import PIECE_BYTES, send_stream
from kbs.core.errors import IntegrityError

PIPE_BYTES = 64 * 1024
"""What Linux holds of a pipe (pipe(7))."""

READ = 4096


@dataclass
class Protocol:
    """What the server gives: pieces of a body, and places for an answer."""

    pieces: list[bytes]
    pause: float = 0.0
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    reads: int | None = None
    file: bytes = b""
    ahead: int = 0
    reader: threading.Thread | None = None
    taken: int = 0
    held: asyncio.Event | None = None
    lingers: float = 0.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            self.taken += len(piece)
            yield piece
        if self.held is not None:
            try:
                await self.held.wait()
            finally:
                await asyncio.sleep(self.lingers)
        # The server ends every body with this, and those that are cut too.
        yield b""

    def response_bytes(
        self, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.status, self.headers, self.body = status, headers, body

    def response_file(
        self, status: int, headers: list[tuple[str, str]], path: str
    ) -> None:
        """Read a file as the server does: in a thread, as far as `reads` says."""
        self.status, self.headers = status, headers
        opened = os.open(path, os.O_RDONLY)

        def read() -> None:
            while self.reads is None or len(self.file) < self.reads:
                most = READ if self.reads is None else self.reads - len(self.file)
                piece = os.read(opened, min(READ, most))
                if not piece:
                    break
                self.ahead = max(self.ahead, made[0] - len(self.file))
                self.file += piece
            os.close(opened)

        self.reader = threading.Thread(target=read)
        self.reader.start()


class Headers(dict[str, str]):
    """Headers as the server gives them."""


class Repeated(Headers):
    """Names that come twice and more."""

    def items(self) -> Any:
        found = super().items()
        return [(name, one) for name, value in found for one in value.split("|")]


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
made = [0]
"""How many bytes of a long stream there are."""


def breaking(size: int) -> Iterator[bytes]:
    yield bytes(size)
    raise IntegrityError("log entries", got="4", expected="5")


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
            "cookies": dict(request.cookies),
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

    @app.post("/long/<int:count>")
    def long(count: int) -> Response:
        def pieces() -> Iterator[bytes]:
            made[0] = 0
            try:
                for _ in range(count):
                    made[0] += 1024
                    yield b"x" * 1024
            finally:
                closed.append("long")

        return Response(pieces())

    @app.post("/broken/<int:size>")
    def broken(size: int) -> Response:
        return Response(breaking(size))

    return app


def announced(length: object, **others: str) -> Headers:
    return Headers(
        {"content-type": "text/plain", "content-length": f"{length}"}, **others
    )


def ask(protocol: Protocol, seconds: float = 5.0, **changes: object) -> Protocol:
    size = sum(len(piece) for piece in protocol.pieces)
    given = {"headers": announced(size, **{"x-one": "1"}), **changes}

    async def run() -> None:
        gateway = Gateway(application(), threads=2, body_seconds=seconds)
        await gateway.__rsgi__(scope(**given), protocol)

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
        "cookies": {},
        "client": "127.0.0.1",
        "path": "/echo/ä",
    }


def test_headers_that_come_twice_are_joined() -> None:
    """In HTTP/2 each cookie may come alone (RFC 9113, section 8.2.3)."""
    given = announced(1, **{"x-one": "1|2", "cookie": "a=b|session=c|d=e"})
    answered = json.loads(ask(Protocol([b"x"]), headers=Repeated(given)).body)
    assert answered["one"] == "1,2"
    assert answered["cookies"] == {"a": "b", "session": "c", "d": "e"}


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


def read_by(protocol: Protocol, path: str = "/stream") -> Protocol:
    """Ask for a stream, and wait until its client has read what it wanted."""
    closed.clear()
    answered = ask(protocol, path=path)
    if answered.reader is not None:
        answered.reader.join(timeout=20)
    return answered


def test_an_answer_of_unknown_length_is_streamed_and_closed() -> None:
    answered = read_by(Protocol([]))
    assert answered.status == 200
    assert answered.file == b"onetwo"
    assert closed == ["stream"]


def test_a_stream_of_nothing_is_an_empty_answer() -> None:
    answered = read_by(Protocol([]), path="/long/0")
    assert (answered.status, answered.body, answered.reader) == (200, b"", None)
    assert closed == ["long"]


def test_a_stream_is_made_no_faster_than_it_is_read() -> None:
    """Its client may be slow, or read nothing: what is made waits in memory."""
    answered = read_by(Protocol([]), path="/long/3000")
    assert answered.file == b"x" * 3000 * 1024
    assert answered.ahead <= PIPE_BYTES + 3 * PIECE_BYTES


@pytest.mark.parametrize("reads", [1, 500_000])
def test_a_client_that_leaves_a_stream_is_one_line(
    reads: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        answered = read_by(Protocol([], reads=reads), path="/long/3000")
    assert answered.file == b"x" * reads
    assert closed == ["long"]
    assert caplog.messages == ["client left: POST '/long/3000'"]
    assert caplog.records[0].exc_info is None


def test_a_stream_that_nobody_begins_to_read_is_given_up() -> None:
    def file(*_: object) -> None:
        pass

    nobody = SimpleNamespace(response_file=file)

    async def more() -> bytes:
        return b"x"

    with pytest.raises(ProtocolClosed):
        asyncio.run(send_stream(nobody, 200, [], more, open_seconds=0.01))


@pytest.mark.parametrize(
    ("size", "status", "got"), [(3, 503, b""), (PIECE_BYTES, 200, bytes(PIECE_BYTES))]
)
def test_an_answer_that_breaks_off_is_one_line(
    size: int, status: int, got: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answered = read_by(Protocol([]), path=f"/broken/{size}")
    assert (answered.status, answered.file) == (status, got)
    if status == 503:
        assert json.loads(answered.body)["code"] == "integrity"
    assert caplog.messages == [
        f"answer broke off: POST '/broken/{size}': log entries: got 4, expected 5"
    ]
    assert caplog.records[0].exc_info is None


@contextmanager
def descriptors(left: int) -> Iterator[None]:
    """Let this process open so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(left + 1)]
    for one in free:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_stream_without_descriptors_is_refused(left: int) -> None:
    closed.clear()
    gateway, refused = Gateway(application(), threads=1), Protocol([])

    async def run() -> None:
        with descriptors(left):
            await one(gateway, refused, path="/long/3000")

    asyncio.run(run())
    assert refused.status == 503
    assert dict(refused.headers)["Retry-After"] == "2"
    assert json.loads(refused.body)["code"] == "http.busy"
    assert closed == ["long"]
    assert read_by(Protocol([]), path="/long/3").status == 200


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("pieces", [[], [b"he"], [b"he", b"ll"], [b"hello!"]])
def test_a_body_of_another_length_than_announced_is_none(
    pieces: list[bytes], version: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        answered = ask(Protocol(pieces), headers=announced(5), http_version=version)
    size = sum(len(piece) for piece in pieces)
    assert answered.status == 400
    document = json.loads(answered.body)
    assert document["code"] == "http.incomplete"
    assert f"got {size} bytes, expected the 5" in document["detail"]
    assert caplog.messages == ["client left: POST '/echo/ä'".replace("ä", "\\xe4")]


def test_a_body_that_is_complete_is_not_waited_for() -> None:
    """What follows is no part of it."""
    held = asyncio.Event()
    given = Protocol([b"he", b"llo", b"!"], held=held)
    answered = ask(given, seconds=60.0, headers=announced(5))
    assert answered.status == 200
    assert json.loads(answered.body)["body"] == "hello"
    assert answered.taken == 5


def test_in_http2_the_end_of_a_complete_body_is_waited_for() -> None:
    """The stream would be reset, if it were answered before."""
    given = Protocol([b"he", b"llo"], held=asyncio.Event())
    answered = ask(given, seconds=0.05, headers=announced(5), http_version="2")
    assert answered.status == 408


def test_in_http2_more_than_was_announced_is_no_body() -> None:
    given = Protocol([b"hello", b"!"])
    answered = ask(given, headers=announced(5), http_version="2")
    assert answered.status == 400
    assert "got 6 bytes, expected the 5" in json.loads(answered.body)["detail"]


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"transfer-encoding": "chunked"}, "1.1"),
        ({"transfer-encoding": "chunked", "content-length": "5"}, "1.1"),
        ({}, "2"),
        ({"content-length": "+5"}, "1.1"),
        ({"content-length": "²"}, "2"),
        ({"content-length": "5" * 5000}, "1.1"),
    ],
)
def test_a_body_without_a_length_is_refused(
    headers: dict[str, str], version: str
) -> None:
    answered = ask(Protocol([b"hello"]), headers=headers, http_version=version)
    assert answered.status == 411
    assert json.loads(answered.body)["code"] == "http.length"


@pytest.mark.parametrize(
    ("version", "length"), [("1", None), ("1.1", None), ("1.1", "0"), ("2", None)]
)
def test_no_body_is_an_empty_one(version: str, length: str | None) -> None:
    headers = {} if length is None else {"content-length": length}
    answered = ask(Protocol([]), headers=headers, http_version=version)
    assert answered.status == 200
    assert json.loads(answered.body)["body"] == ""


@pytest.mark.parametrize("path", ["/v1/challenge", "/kbs/v0/auth"])
def test_doors_that_need_no_large_body_take_none(path: str) -> None:
    most = SHORT_BODY_BYTES
    answered = ask(Protocol([bytes(most + 1)]), path=path)
    assert answered.status == 413
    assert f"expected at most {most} bytes" in json.loads(answered.body)["detail"]
    assert ask(Protocol([bytes(most)]), path=path).status == 404


def test_a_network_is_one_client_in_ipv6() -> None:
    answered = ask(Protocol([]), client="[2001:db8::1]:50000")
    assert json.loads(answered.body)["client"] == "2001:db8::1"


PART = MAX_WAITING // CLIENT_PART
OTHER = "192.0.2.1:1"


async def hold(
    gateway: Gateway,
    stack: AsyncExitStack,
    protocols: list[Protocol],
    **changes: object,
) -> asyncio.Event:
    """Begin requests whose bodies do not end before the event, nor after the test."""
    over = asyncio.Event()
    tasks = []
    for protocol in protocols:
        protocol.held = over
        tasks.append(asyncio.create_task(gateway.__rsgi__(scope(**changes), protocol)))

    async def end() -> None:
        over.set()
        await asyncio.gather(*tasks)

    stack.push_async_callback(end)
    await asyncio.sleep(0.05)
    return over


async def one(gateway: Gateway, protocol: Protocol, **changes: object) -> Protocol:
    size = sum(len(piece) for piece in protocol.pieces)
    await gateway.__rsgi__(scope(**{"headers": announced(size), **changes}), protocol)
    return protocol


def busy(answered: Protocol) -> bool:
    if answered.status != 503:
        return False
    document = json.loads(answered.body)
    return document["code"] == "http.busy" and ("Retry-After", "2") in answered.headers


def test_slow_bodies_of_one_client_take_its_share_and_no_more() -> None:
    """HTTP/2 makes this many requests of two connections."""

    async def run() -> None:
        gateway = Gateway(application(), threads=2)
        slow = [Protocol([]) for _ in range(PART)]
        async with AsyncExitStack() as stack:
            over = await hold(gateway, stack, slow, http_version="2")
            assert busy(await one(gateway, Protocol([b"x"])))
            empty = await one(gateway, Protocol([]))
            assert empty.status == 200
            others = await one(gateway, Protocol([b"x"]), client=OTHER)
            assert others.status == 200
            over.set()
        assert (await one(gateway, Protocol([b"x"]))).status == 200
        assert {protocol.status for protocol in slow} == {200}

    asyncio.run(run())


def test_behind_a_proxy_no_address_has_a_share() -> None:
    async def run() -> None:
        gateway = Gateway(application(), threads=2, per_client=False)
        async with AsyncExitStack() as stack:
            slow = [Protocol([]) for _ in range(MAX_WAITING)]
            await hold(gateway, stack, slow[1:], headers=announced(1))
            assert (await one(gateway, Protocol([b"x"]))).status == 200
            await hold(gateway, stack, slow[:1], headers=announced(1))
            assert busy(await one(gateway, Protocol([b"x"]), client=OTHER))

    asyncio.run(run())


def test_bodies_of_one_client_hold_so_much_memory_and_no_more() -> None:
    async def run() -> None:
        gateway = Gateway(application(), threads=2)
        most = bytes(MAX_BODY_BYTES)
        fitting = MAX_HELD_BYTES // CLIENT_PART // MAX_BODY_BYTES
        nearly = [Protocol([most[1:]]) for _ in range(fitting)]
        async with AsyncExitStack() as stack:
            await hold(gateway, stack, nearly, headers=announced(MAX_BODY_BYTES))
            refused = await one(gateway, Protocol([most]))
            assert busy(refused)
            assert refused.taken == len(most)
            assert (await one(gateway, Protocol([most]), client=OTHER)).status == 200
        # They left; their bytes are nobody's.
        assert {protocol.status for protocol in nearly} == {400}
        assert (await one(gateway, Protocol([most]))).status == 200

    asyncio.run(run())


def test_what_waits_for_a_thread_counts() -> None:
    async def run() -> None:
        app = application()
        started, go_on = threading.Event(), threading.Event()

        @app.get("/wait")
        def wait() -> str:
            started.set()
            return str(go_on.wait(20))

        gateway = Gateway(app, threads=1)
        waiting = [Protocol([]) for _ in range(PART + 1)]
        asked = {"method": "GET", "path": "/wait", "headers": {}}
        async with AsyncExitStack() as stack:
            await hold(gateway, stack, waiting[:1], **asked)
            assert await asyncio.to_thread(started.wait, 20)
            await hold(gateway, stack, waiting[1:], **asked)
            refused = await one(gateway, Protocol([]), **asked)
            go_on.set()
        assert busy(refused)
        assert {protocol.status for protocol in waiting} == {200}

    asyncio.run(run())


def test_the_end_waits_for_no_body() -> None:
    async def run() -> None:
        gateway = Gateway(application(), threads=2)
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            gateway.__rsgi_init__(asyncio.get_running_loop())
            slow = Protocol([b"x"], held=asyncio.Event(), lingers=0.2)
            task = asyncio.create_task(one(gateway, slow, headers=announced(2)))
            # It is interrupted twice, by somebody who is in a hurry.
            for number in (signal.SIGTERM, signal.SIGINT):
                await asyncio.sleep(0.05)
                signal.raise_signal(number)
            await task
            assert busy(slow)
            late = Protocol([b"x"], held=asyncio.Event())
            assert busy(await one(gateway, late, headers=announced(2)))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    asyncio.run(run())
