"""Random access to a sealed stream: a file-like object over its plaintext.

Every segment that is touched is authenticated before a byte of it is given out. The
last one is authenticated at the start, with its number and its flag, so that a file
that was cut or extended is refused before anything is read from it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

from kbs.artifacts.segments import (
    HEADER_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    parse_stream_header,
)
from kbs.artifacts.stream import Source, fill
from kbs.core.errors import MalformedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class SeekableSource(Source, Protocol):
    """A file opened with "rb", or `io.BytesIO`."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; return the new position."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class SealedReader(io.RawIOBase):
    """Reads plaintext at any position of a sealed stream that starts at `start`.

    Holds one segment of plaintext. Once built it owns the file: closing the reader
    closes the file. Not for several threads at once: give each its own.
    """

    def __init__(
        self,
        key: bytes,
        file: SeekableSource,
        *,
        associated_data: bytes,
        start: int = 0,
        segment_size: int = SEGMENT_SIZE,
    ) -> None:
        """Derive the key and authenticate the last segment.

        Raises:
            MalformedError: not a stream, or one that ends inside a segment.
            VerificationError: the last segment is not genuine, or not the last.
        """
        super().__init__()
        self._file: SeekableSource | None = None
        self._start = start
        self._position = 0
        self._layout = Layout(segment_size)
        self._ciphertext_size = file.seek(0, io.SEEK_END) - start
        file.seek(start)
        head = bytearray(HEADER_SIZE)
        header = parse_stream_header(bytes(head[: fill(file, memoryview(head))]))
        self._size = self._layout.plaintext_size(self._ciphertext_size)
        self._cipher = SegmentCipher(key, header, associated_data=associated_data)
        self._last = self._layout.segments(self._size) - 1
        longest = min(segment_size, self._ciphertext_size)
        self._sealed = memoryview(bytearray(longest))
        self._opened = memoryview(bytearray(longest))
        self._held: tuple[int, memoryview] | None = None
        self._segment(file, self._last)
        self._file = file

    @property
    def size(self) -> int:
        """Bytes of plaintext; authentic, because the last segment's place is."""
        return self._size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the plaintext."""
        self._require_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move in the plaintext; beyond its end, nothing can be read.

        Raises:
            ValueError: before the start, or an unknown `whence` (as files do).
        """
        self._require_open()
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in origins:
            message = f"invalid whence ({whence}, should be 0, 1 or 2)"
            raise ValueError(message)
        position = origins[whence] + offset
        if position < 0:
            message = f"negative seek position {position}"
            raise ValueError(message)
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, less only at the end.

        Raises:
            VerificationError: a segment on the way is not genuine; of it and those
                behind it nothing is written.
            MalformedError: the file became shorter since it was opened.
        """
        file = self._require_open()
        out = memoryview(buffer).cast("B")
        done = 0
        while done < len(out) and self._position < self._size:
            number, offset = self._layout.locate(self._position)
            piece = self._segment(file, number)[offset:][: len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            self._position += len(piece)
        return done

    def close(self) -> None:
        """Close the file and wipe the plaintext that is held."""
        file = getattr(self, "_file", None)
        if not self.closed and file is not None:
            self._held = None
            self._opened[:] = bytes(len(self._opened))
            file.close()
        super().close()

    def _require_open(self) -> SeekableSource:
        if self.closed or self._file is None:
            message = "I/O operation on closed file."
            raise ValueError(message)
        return self._file

    def _segment(self, file: SeekableSource, number: int) -> memoryview:
        if self._held is not None and self._held[0] == number:
            return self._held[1]
        self._held = None
        start, size = self._layout.extent(number, self._ciphertext_size)
        file.seek(self._start + start)
        sealed = self._sealed[:size]
        if fill(file, sealed) != size:
            raise MalformedError(
                f"sealed segment {number}",
                got="fewer bytes than when the file was opened",
                expected=f"{size} bytes",
                code="artifact.truncated",
            )
        plaintext = self._opened[: size - TAG_SIZE]
        self._cipher.open(number, sealed, plaintext, last=number == self._last)
        self._held = (number, plaintext)
        return plaintext
