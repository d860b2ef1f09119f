"""HTTP/2 by hand (RFC 9113), for what no client of ours would send."""

from __future__ import annotations

import socket
import struct
from contextlib import closing

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113, sections 6 and 7.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
NO_ERROR, CANCEL = 0, 8

STATUS_200 = 0x88
"""How the headers of an answer with this status begin (RFC 7541, appendix A)."""

NEWEST = b"\xbe"
"""The header that was indexed last, once more."""


def text(value: str) -> bytes:
    """A string of RFC 7541, section 5.2, without Huffman."""
    data = value.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = len(data) - 127, bytearray([127])
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes(size) + bytes([rest]) + data


def literal(name: str, value: str) -> bytes:
    """A header that is not indexed."""
    return b"\0" + text(name) + text(value)


def indexed(name: str, value: str) -> bytes:
    """A header that one byte stands for when it comes again."""
    return b"\x40" + text(name) + text(value)


def asking(method: str, path: str) -> bytes:
    """The headers that every request begins with."""
    return (
        literal(":method", method)
        + literal(":scheme", "http")
        + literal(":path", path)
        + literal(":authority", "localhost")
    )


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    """One frame."""
    size = struct.pack(">I", len(payload))[1:]
    return size + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening(settings: bytes = b"") -> bytes:
    """What a client says first."""
    return PREFACE + frame(SETTINGS, 0, settings, 0)


def answered(connection: socket.socket, stream: int = 1) -> list[tuple[int, bytes]]:
    """Kinds and payloads of the frames of a stream, until it or the connection ends."""
    heard = all_answered(connection, stream)
    return [(kind, payload) for of, kind, payload in heard if of == stream]


def all_answered(
    connection: socket.socket, *streams: int
) -> list[tuple[int, int, bytes]]:
    """Streams, kinds and payloads of all frames, until each of the streams ended."""
    found = []
    left = set(streams)
    with closing(connection.makefile("rb")) as reader:
        while left and (head := reader.read(9)):
            payload = reader.read(int.from_bytes(head[:3], "big"))
            stream = int.from_bytes(head[5:9], "big")
            found.append((stream, head[3], payload))
            if head[3] == RST_STREAM or head[4] & END_STREAM:
                left.discard(stream)
    return found
