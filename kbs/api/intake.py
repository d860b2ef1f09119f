"""Taking requests in: whole, in time, and no client more than its share.

Nothing here takes a thread: a client that sends one byte a minute, or none, costs a
coroutine. A body counts as whole when it is as long as its Content-Length says. The
server tells the end of a body and the end of its connection in one and the same way,
and in HTTP/2 a stream that was cancelled ends like one that is complete: a body
without a length is refused (RFC 9110, section 15.5.12).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kbs.api.limits import MAX_BODY_BYTES, largest_body
from kbs.api.problems import too_large
from kbs.api.shares import Share, Shares
from kbs.core.clients import client_of
from kbs.wire.problem import problem

BODY_SECONDS = 20.0
"""How long a client may take to send its body."""

PATIENCE_BYTES = 4 * MAX_BODY_BYTES
"""How much is read of a body that is too large, so that the refusal arrives: a client
that still sends when the connection closes sees a broken pipe and never the answer."""

MAX_WAITING = 1024
"""Requests that are read or wait for a thread: as many with a body, as many without.

A client's part of them is more than its rate lets it send at once."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Bytes of bodies that are not complete, or wait for a thread."""

_MAX_DIGITS = 19


class RefusedError(Exception):
    """The request is answered here, with this problem document."""

    def __init__(self, document: dict[str, object]) -> None:
        """Keep the document."""
        super().__init__(document["detail"])
        self.document = document


class ClientLeftError(RefusedError):
    """The client ended its body early; most are gone and hear no answer."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that is complete; it holds its shares until it is at work."""

    body: io.BytesIO
    size: int
    place: Share
    held: Share

    def write(self, piece: bytes) -> bool:
        """Add a piece; False, and all of the body is dropped, when there is no room."""
        if not self.held.grow(len(piece)):
            self.body.truncate(0)
            self.held.give_back()
            return False
        # Written as it comes: a million pieces of one byte would hold much more.
        self.body.write(piece)
        return True

    def give_back(self) -> None:
        """Make room for others: a thread is at work on it, or nobody will be."""
        self.place.give_back()
        self.held.give_back()


class Intake:
    """Reads the bodies of requests, for the coroutines of one event loop."""

    def __init__(self, *, per_client: bool, body_seconds: float = BODY_SECONDS) -> None:
        """`per_client` False where all clients come from one address, a proxy's."""
        self._body_seconds = body_seconds
        self._with_body = Shares(MAX_WAITING, per_client=per_client)
        self._without = Shares(MAX_WAITING, per_client=per_client)
        self._bytes = Shares(MAX_HELD_BYTES, per_client=per_client)
        self._deadlines: set[asyncio.Timeout] = set()
        self._ended = False

    async def take(self, scope: Any, protocol: Any) -> Taken:
        """Return the request's body, with what it holds.

        Raises:
            RefusedError: it has no length, is too large, too late or one too many.
            ClientLeftError: less came than was announced.
        """
        length = _length(scope)
        # Over HTTP/1.1 there is no body without a length (RFC 9112, section 6.3).
        has_body = bool(length) or (length is None and _may_stream(scope))
        client = client_of(peer(scope.client)[0])
        place = (self._with_body if has_body else self._without).of(client)
        if not place.grow(1):
            raise RefusedError(_busy("requests that wait: got too many"))
        held = self._bytes.of(client)
        taken = Taken(io.BytesIO(), length or 0, place, held)
        try:
            if has_body:
                most = largest_body(scope.path)
                await self._in_time(
                    _read_nothing(protocol)
                    if length is None
                    else _read(protocol, length, most, taken, ends=_has_ends(scope))
                )
        except BaseException:
            taken.give_back()
            raise
        taken.body.seek(0)
        return taken

    def end(self) -> None:
        """Wait for no body any more: the process is about to end."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(now)

    async def _in_time(self, reading: Coroutine[object, object, None]) -> None:
        seconds = 0.0 if self._ended else self._body_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._deadlines.add(deadline)
                try:
                    await reading
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError:
            raise RefusedError(self._too_late()) from None

    def _too_late(self) -> dict[str, object]:
        if self._ended:
            return _busy("request body: got a part of it when the broker was ended")
        return problem(
            HTTPStatus.REQUEST_TIMEOUT,
            code="http.timeout",
            detail="request body: got a part of it, "
            f"expected all of it within {self._body_seconds:g} s",
        )


def peer(address: str) -> tuple[str, str]:
    """Return host and port of `host:port`, where IPv6 stands in brackets."""
    host, _, port = str(address).rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


async def _read(
    protocol: Any, length: int, most: int, taken: Taken, *, ends: bool
) -> None:
    """Read a body of this length; what is refused is read and dropped.

    `ends`: whether its end is to be read as well, though all of it is there.

    Raises:
        RefusedError: it is larger than `most`, or than there is room for.
        ClientLeftError: it ends early.
    """
    refused = too_large(length, most) if length > most else None
    size = 0
    if length <= PATIENCE_BYTES:
        async for piece in protocol:
            size += len(piece)
            if refused is None and not taken.write(piece):
                refused = _busy("request bodies: got more than there is room for")
            if size >= length and not ends:
                break  # to be told that it ends here takes the server's threads a turn
    if refused is not None:
        raise RefusedError(refused)
    if size != length:
        raise ClientLeftError(_cut(size, length))


async def _read_nothing(protocol: Any) -> None:
    """Wait for the end of a body that has no length.

    A stream that is cancelled before its first byte looks the same; what may be asked
    for without a body means the same then.

    Raises:
        RefusedError: there is a byte.
    """
    async for piece in protocol:
        if piece:
            raise RefusedError(_no_length())


def _length(scope: Any) -> int | None:
    """Return what Content-Length says, None where there is none.

    Raises:
        RefusedError: it is no number, or the body is chunked.
    """
    if "transfer-encoding" in scope.headers:
        raise RefusedError(_no_length())
    text = scope.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise RefusedError(_no_length())
    return int(text)


def _may_stream(scope: Any) -> bool:
    # A body without a length is possible; one of GET means nothing, and is not read.
    return _has_ends(scope) and scope.method not in {"GET", "HEAD", "DELETE"}


def _has_ends(scope: Any) -> bool:
    """Whether something else than its length says that a body has ended.

    In HTTP/2 a stream that is answered before its end is reset, and an end that comes
    then is a fault of the client's: a thousand of these end its connection.
    """
    return scope.http_version not in {"1", "1.1"}


def _no_length() -> dict[str, object]:
    return problem(
        HTTPStatus.LENGTH_REQUIRED,
        code="http.length",
        detail="Content-Length: got none, expected the length of the body; "
        "a body in chunks is not taken, because its end cannot be told from a cut",
    )


def _cut(size: int, length: int) -> dict[str, object]:
    return problem(
        HTTPStatus.BAD_REQUEST,
        code="http.incomplete",
        detail=f"request body: got {size} bytes, expected the {length} "
        "that Content-Length names",
    )


def _busy(what: str) -> dict[str, object]:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        code="http.busy",
        detail=f"{what}; try again after Retry-After seconds",
    )
