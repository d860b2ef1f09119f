"""Uploads that are cut in the middle, and bodies that never end, at a real server."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.fakes.frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    all_answered,
    answered,
    asking,
    frame,
    literal,
    opening,
)
from tests.fakes.served import Folders, Served, made, serving

SECRET = b"A" * 32
PART = SECRET[:10]
SECONDS = 600


@dataclass(frozen=True)
class Store:
    """A broker without TLS, and an administrator who puts resources there."""

    served: Served
    token: str

    def connect(self, stack: ExitStack) -> socket.socket:
        address = ("127.0.0.1", self.served.port)
        return stack.enter_context(socket.create_connection(address, timeout=20))

    def head(self, name: str, *fields: str) -> bytes:
        """The header of an HTTP/1.1 request."""
        lines = (
            f"POST {path(name)} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.token}",
            "Content-Type: application/octet-stream",
            *fields,
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    def opened(self, name: str, length: int | None) -> bytes:
        """The preface and the header of an HTTP/2 request; names are not indexed."""
        fields = asking("POST", path(name))
        fields += literal("authorization", f"Bearer {self.token}")
        fields += literal("content-type", "application/octet-stream")
        if length is not None:
            fields += literal("content-length", str(length))
        return opening() + frame(HEADERS, END_HEADERS, fields)

    def has(self, name: str) -> bool:
        """Whether a resource of this name is in the files of the database."""
        files = (self.served.stdout.parent / "data").glob("kbs.db*")
        return any(name.encode() in file.read_bytes() for file in files)


def path(name: str) -> str:
    return f"/kbs/v0/resource/default/test/{name}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folders = Folders(tmp_path_factory.mktemp("cut"))
    made(folders)
    pem = (folders.profile / "admin.key").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    now = int(time.time())
    claims = {"iat": now, "exp": now + SECONDS, "role": "admin", "sub": "admin"}
    token = jwt.encode(claims, key, algorithm="EdDSA")
    with serving(folders, "--plain-http", plain=True) as served:
        yield Store(served, token)


def ask(store: Store, sent: bytes, *, cut: bool) -> bytes:
    """Send a request over HTTP/1.1; return the answer, or its beginning."""
    with ExitStack() as stack:
        connection = store.connect(stack)
        connection.sendall(sent)
        if cut:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def test_a_whole_upload_is_stored(store: Store) -> None:
    """What the tests below cut."""
    head = store.head("whole1", f"Content-Length: {len(SECRET)}")
    assert ask(store, head + SECRET, cut=False).startswith(b"HTTP/1.1 200")
    with ExitStack() as stack:
        connection = store.connect(stack)
        body = frame(DATA, END_STREAM, SECRET)
        connection.sendall(store.opened("whole2", len(SECRET)) + body)
        answered(connection)
    assert store.has("whole1")
    assert store.has("whole2")


def await_left(store: Store, name: str) -> None:
    """Return when the broker's log says that this request's client left."""
    deadline = time.monotonic() + 20
    while f"client left: POST '{path(name)}'" not in store.served.errors():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_upload_that_is_cut_is_not_stored(store: Store) -> None:
    head = store.head("cut1", f"Content-Length: {len(SECRET)}")
    assert b" 200 " not in ask(store, head + PART, cut=True)
    await_left(store, "cut1")
    assert not store.has("cut1")


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
def test_an_upload_in_chunks_is_not_stored(store: Store, end: bytes) -> None:
    """Cut or whole: the server does not tell the two apart."""
    head = store.head("chunks", "Transfer-Encoding: chunked")
    chunk = b"%x\r\n%s\r\n" % (len(PART), PART)
    said = ask(store, head + chunk + end, cut=not end)
    assert said.startswith(b"HTTP/1.1 411")
    assert b"http.length" in said
    assert not store.has("chunks")


@pytest.mark.parametrize("reason", [NO_ERROR, CANCEL])
@pytest.mark.parametrize("length", [None, len(SECRET)])
def test_an_upload_whose_stream_is_reset_is_not_stored(
    store: Store, length: int | None, reason: int
) -> None:
    """The server takes these two reasons for the end of a body."""
    with ExitStack() as stack:
        connection = store.connect(stack)
        reset = frame(RST_STREAM, 0, struct.pack(">I", reason))
        part = frame(DATA, 0, PART)
        connection.sendall(store.opened("reset", length) + part + reset)
        # Answered on the same connection after what came before it.
        health = asking("GET", "/health/live")
        connection.sendall(frame(HEADERS, END_HEADERS | END_STREAM, health, 3))
        assert any(b"live" in payload for _, payload in answered(connection, 3))
        time.sleep(0.2)  # Time in which it would be stored.
    assert not store.has("reset")
    assert store.served.call("GET", "/health/live")[0] == 200


def test_a_stream_that_ends_behind_its_body_is_not_reset(store: Store) -> None:
    """The end may come in a frame of its own.

    A server that answers before it has seen the end resets the stream; an end that
    comes then is a fault, and a thousand of these end the connection for everybody
    behind the same proxy.
    """
    with ExitStack() as stack:
        connection = store.connect(stack)
        body = frame(DATA, 0, SECRET)
        connection.sendall(store.opened("late1", len(SECRET)) + body)
        time.sleep(0.2)  # Time in which it would be answered, and reset.
        health = asking("GET", "/health/live")
        after = frame(HEADERS, END_HEADERS | END_STREAM, health, 3)
        connection.sendall(frame(DATA, END_STREAM, b"") + after)
        frames = all_answered(connection, 1, 3)
    kinds = {kind for stream, kind, _ in frames if stream == 1}
    assert HEADERS in kinds
    assert RST_STREAM not in kinds
    assert store.has("late1")


def test_the_end_waits_for_no_body(tmp_path: Path) -> None:
    with serving(Folders(tmp_path), "--plain-http", plain=True) as served:
        with ExitStack() as stack:
            address = ("127.0.0.1", served.port)
            slow = stack.enter_context(socket.create_connection(address, timeout=20))
            head = "POST /v1/release HTTP/1.1\r\nHost: localhost\r\n"
            slow.sendall(f"{head}Content-Length: 10\r\n\r\nx".encode())
            time.sleep(0.2)
            served.terminate()
            said = slow.recv(65536)
        assert said.startswith(b"HTTP/1.1 503")
        assert json.loads(said.rpartition(b"\r\n")[2])["code"] == "http.busy"
        assert served.process.returncode == 0
