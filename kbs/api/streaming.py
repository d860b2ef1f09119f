"""Answers of any length, made no faster than their client reads them.

What the server is given for a stream it keeps in memory until the client has read it,
however long that takes. A file it reads as the client does, so that it is given the
end of a pipe: the kernel holds a few pages of it, and no thread waits.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from kbs.core.errors import UnavailableError

OPEN_SECONDS = 10.0
"""How long it may take until the server, or its client, reads the first bytes."""

STUCK_SECONDS = 300.0
"""How long a client may take to read one piece."""

PIECE_BYTES = 64 * 1024
"""Pieces are put together up to about so many bytes."""

_LOOK_SECONDS = 0.005

Headers = list[tuple[str, str]]


def gathered(pieces: Iterator[bytes]) -> bytes:
    """Return the next pieces as one; empty when there are no more."""
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) >= PIECE_BYTES:
            break
    return bytes(found)


async def send_stream(
    protocol: Any,
    status: int,
    headers: Headers,
    more: Callable[[], Awaitable[bytes]],
    *,
    open_seconds: float = OPEN_SECONDS,
) -> None:
    """Send what `more` gives until it gives nothing.

    Raises:
        UnavailableError: no descriptor is left for it; nothing was sent.
        ProtocolClosed: the client left, or does not read.
    """
    first = await more()
    if not first:
        protocol.response_bytes(status, headers, b"")
        return
    with ExitStack() as ends:
        with _wanting_descriptors():
            reading, writing = os.pipe()
        ends.callback(os.close, writing)
        os.set_blocking(writing, False)
        with ExitStack() as ours:
            ours.callback(os.close, reading)
            with _wanting_descriptors():
                # The server opens one more; where it cannot, it would answer 404.
                os.close(os.dup(reading))
            # Opened anew by the server: ours tells that it did, and is closed then, so
            # that nobody has one but the server, and it is heard when the client left.
            protocol.response_file(status, headers, f"/proc/self/fd/{reading}")
            await _within(open_seconds, _write(writing, first))
            await _within(open_seconds, _touched(reading, len(first)))
        while piece := await more():
            await _within(STUCK_SECONDS, _write(writing, piece))


@contextmanager
def _wanting_descriptors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UnavailableError(
            "long answer",
            got=exc.strerror or type(exc).__name__,
            expected="three file descriptors for it",
            hint="ask again when other answers are done",
            code="http.busy",
        ) from exc


async def _within(seconds: float, done: Awaitable[None]) -> None:
    try:
        await asyncio.wait_for(done, seconds)
    except (TimeoutError, BrokenPipeError) as exc:
        raise ProtocolClosed from exc


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            await _writable(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)


async def _touched(descriptor: int, size: int) -> None:
    """Return once some of what was written has been read."""
    unread = array.array("i", [size])
    while True:
        fcntl.ioctl(descriptor, termios.FIONREAD, unread)
        if unread[0] < size:
            return
        await asyncio.sleep(_LOOK_SECONDS)
