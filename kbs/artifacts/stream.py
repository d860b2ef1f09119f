"""Sealing and opening a stream from front to end, in constant memory.

Wire format: `kbs.artifacts.segments`. A stream is opened segment by segment: what
was written before an error is genuine but not complete, so a caller that keeps the
output must throw it away on an error (`kbs.artifacts.files` does).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from kbs.artifacts.segments import (
    HEADER_SIZE,
    MAX_SEGMENTS,
    NONCE_PREFIX_SIZE,
    SALT_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    StreamHeader,
    parse_stream_header,
)
from kbs.core.errors import MalformedError, UnavailableError

Progress = Callable[[int], None]
"""Told the plaintext bytes that were done since the last call."""


class Source(Protocol):
    """What can be read from: a file opened with "rb", a pipe, `io.BytesIO`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from its start; return the count, 0 at the end."""
        ...


class Sink(Protocol):
    """What can be written to: a file opened with "wb", a pipe, `io.BytesIO`."""

    def write(self, data: memoryview, /) -> int | None:
        """Write some or all of the data; return the count."""
        ...


def seal_stream(
    key: bytes,
    source: Source,
    sink: Sink,
    *,
    associated_data: bytes,
    progress: Progress | None = None,
    segment_size: int = SEGMENT_SIZE,
) -> int:
    """Seal everything that `source` gives; return its size.

    Raises:
        MalformedError: the key is not 32 bytes, or the source is too long.
        UnavailableError: the source cannot be read or the sink not be written.
    """
    # Salt and prefix are always fresh: a caller that could choose them could make
    # one nonce count twice under one key.
    header = StreamHeader(os.urandom(SALT_SIZE), os.urandom(NONCE_PREFIX_SIZE))
    cipher = SegmentCipher(key, header, associated_data=associated_data)
    write_all(sink, memoryview(header.to_bytes()))
    return _seal(cipher, source, sink, progress, Layout(segment_size))


def open_stream(
    key: bytes,
    source: Source,
    sink: Sink,
    *,
    associated_data: bytes,
    progress: Progress | None = None,
    segment_size: int = SEGMENT_SIZE,
) -> int:
    """Write what a stream holds, segment by authenticated segment; return its size.

    Raises:
        MalformedError: the bytes are not a stream, or end inside a segment.
        VerificationError: a segment was changed, moved, cut off or added, or the key
            or associated data is another.
        UnavailableError: the source cannot be read or the sink not be written.
    """
    layout = Layout(segment_size)
    head = bytearray(HEADER_SIZE)
    size = fill(source, memoryview(head))
    header = parse_stream_header(bytes(head[:size]))
    cipher = SegmentCipher(key, header, associated_data=associated_data)
    return _open(cipher, source, sink, progress, layout)


def fill(source: Source, buffer: memoryview) -> int:
    """Read until the buffer is full or the source ends; return the count.

    Raises:
        UnavailableError: the source cannot be read, or has nothing now.
    """
    done = 0
    while done < len(buffer):
        try:
            count = source.readinto(buffer[done:])
        except OSError as exc:
            raise _failed("input", exc.strerror or str(exc), "data") from exc
        if count is None:
            # Taken for an end, it would cut the data silently.
            raise _failed("input", "no data yet (non-blocking)", "data or the end")
        if count == 0:
            break
        done += count
    return done


def write_all(sink: Sink, data: memoryview) -> None:
    """Write everything, however little the sink takes at a time.

    Raises:
        UnavailableError: the sink cannot be written, or takes nothing now.
    """
    while data:
        try:
            count = sink.write(data)
        except OSError as exc:
            raise _failed("output", exc.strerror or str(exc), "room") from exc
        if not count:
            raise _failed("output", "no byte taken (non-blocking)", "a blocking file")
        data = data[count:]


def _failed(end: str, got: str, expected: str) -> UnavailableError:
    return UnavailableError(end, got=got, expected=expected, code="artifact.io")


def _seal(
    cipher: SegmentCipher,
    source: Source,
    sink: Sink,
    progress: Progress | None,
    layout: Layout,
) -> int:
    # The nonce says whether a segment is the last, so one is always read ahead.
    current = memoryview(bytearray(layout.plaintext_segment))
    ahead = memoryview(bytearray(layout.plaintext_segment))
    sealed = memoryview(bytearray(layout.segment_size))
    total = number = 0
    room = layout.first_plaintext
    size = fill(source, current[:room])
    while True:
        following = fill(source, ahead) if size == room else 0
        last = following == 0
        _check_number(number, last=last)
        cipher.seal(number, current[:size], sealed[: size + TAG_SIZE], last=last)
        write_all(sink, sealed[: size + TAG_SIZE])
        total += size
        if progress is not None:
            progress(size)
        if last:
            return total
        current, ahead = ahead, current
        size, room, number = following, layout.plaintext_segment, number + 1


def _open(
    cipher: SegmentCipher,
    source: Source,
    sink: Sink,
    progress: Progress | None,
    layout: Layout,
) -> int:
    current = memoryview(bytearray(layout.segment_size))
    ahead = memoryview(bytearray(layout.segment_size))
    opened = memoryview(bytearray(layout.plaintext_segment))
    total = number = 0
    room = layout.segment_size - HEADER_SIZE
    size = fill(source, current[:room])
    while True:
        following = fill(source, ahead) if size == room else 0
        last = following == 0
        _check_number(number, last=last)
        check_segment(number, size)
        plaintext = opened[: size - TAG_SIZE]
        cipher.open(number, current[:size], plaintext, last=last)
        write_all(sink, plaintext)
        total += len(plaintext)
        if progress is not None:
            progress(len(plaintext))
        if last:
            return total
        current, ahead = ahead, current
        size, room, number = following, layout.segment_size, number + 1


def check_segment(number: int, size: int) -> None:
    """Require that a segment holds a tag and, unless it is the first, a byte more.

    Raises:
        MalformedError: it is shorter.
    """
    least = TAG_SIZE + (1 if number else 0)
    if size < least:
        raise MalformedError(
            f"sealed segment {number}",
            got=f"{size} bytes",
            expected=f"at least {least}",
            hint="the file is cut short; copy it again",
            code="artifact.truncated",
        )


def _check_number(number: int, *, last: bool) -> None:
    if number + (0 if last else 1) >= MAX_SEGMENTS:
        raise MalformedError(
            "sealed stream", got="more segments", expected=f"at most {MAX_SEGMENTS}"
        )
