"""Sealing, opening and inspecting whatever format a file is in, from open files.

What `unseal` writes before an error is genuine but not complete: `kbs.artifacts.files`
keeps it from being used.
"""

from __future__ import annotations

import io

from kbs.artifacts.age import open_age
from kbs.artifacts.age_header import read_age_header
from kbs.artifacts.detect import HEAD_SIZE, Format, detect
from kbs.artifacts.envelope import ALGORITHM, SealedHeader, read_header
from kbs.artifacts.reader import SeekableSource
from kbs.artifacts.segments import Layout
from kbs.artifacts.stream import (
    Progress,
    Sink,
    Source,
    fill,
    open_stream,
    seal_stream,
    write_all,
)
from kbs.core.errors import ConflictError, KbsError, MalformedError, VerificationError


def seal(
    key: bytes,
    source: Source,
    sink: Sink,
    *,
    header: SealedHeader,
    progress: Progress | None = None,
) -> int:
    """Write header and sealed stream; return the size of the plaintext.

    Raises:
        MalformedError: the key is not 32 bytes.
        ConflictError: the source is not as long as the header says.
        UnavailableError: reading or writing failed.
    """
    write_all(sink, memoryview(header.to_bytes()))
    size = seal_stream(
        key,
        source,
        sink,
        associated_data=header.associated_data,
        progress=progress,
    )
    if header.size is not None and size != header.size:
        raise ConflictError(
            "file to seal",
            got=f"{size} bytes",
            expected=f"{header.size} bytes, as before it was read",
            hint="something else is writing it; try again when that is done",
            code="artifact.changed",
        )
    return size


def unseal(
    secret: bytes,
    source: SeekableSource,
    sink: Sink,
    *,
    progress: Progress | None = None,
) -> int:
    """Open a file of any known format; return the size of the plaintext.

    `secret` is the 32-byte key of a sealed file, or an age identity or passphrase.
    What was written before an error must not be used.

    Raises:
        MalformedError: no known format, or not complete.
        VerificationError: another key, or the file was changed.
        UnavailableError: reading or writing failed.
    """
    if _require_format(source) is Format.KBS:
        return _unseal(secret, source, sink, progress)
    return open_age(source, sink, secret, progress=progress)


def inspect(source: SeekableSource) -> dict[str, object]:
    """Return what a file says of itself; without the key, none of it is verified.

    Raises:
        MalformedError: no known format, or a broken header.
    """
    found = _require_format(source)
    if found is not Format.KBS:
        header = read_age_header(source)
        return {"format": found.value, "recipients": list(header.types)}
    sealed = read_header(source)
    size, complete = _measure(source, sealed)
    return {
        "format": found.value,
        "alg": ALGORITHM,
        "key": None if sealed.key is None else str(sealed.key),
        "name": sealed.name,
        "size": size,
        "complete": complete,
    }


def _measure(
    source: SeekableSource, header: SealedHeader
) -> tuple[int | None, bool | None]:
    # Without a size in the header, a cut between two segments shows only with the key.
    try:
        size = Layout().plaintext_size(_stream_size(source, header))
        _check_size(header, size)
    except KbsError:
        return header.size, False
    return size, None if header.size is None else True


def _require_format(source: SeekableSource) -> Format:
    head = bytearray(HEAD_SIZE)
    source.seek(0)
    data = bytes(head[: fill(source, memoryview(head))])
    source.seek(0)
    found = detect(data)
    if found is Format.UNKNOWN:
        raise MalformedError(
            "file to open",
            # Not what they are: a key that was named by mistake would stand in a log.
            got="other first bytes" if data else "an empty file",
            expected="a file sealed by kbs or age",
            code="artifact.unknown",
        )
    return found


def _unseal(
    key: bytes, source: SeekableSource, sink: Sink, progress: Progress | None
) -> int:
    header = read_header(source)
    stream_size = _stream_size(source, header)
    # First by size alone, so that a large file that was cut is told at once.
    _check_size(header, Layout().plaintext_size(stream_size))
    try:
        size = open_stream(
            key,
            source,
            sink,
            associated_data=header.associated_data,
            progress=progress,
        )
    except VerificationError as exc:
        raise _naming_key(exc, header) from exc
    _check_size(header, size)
    return size


def _stream_size(source: SeekableSource, header: SealedHeader) -> int:
    start = len(header.to_bytes())
    end = source.seek(0, io.SEEK_END)
    source.seek(start)
    return end - start


def _check_size(header: SealedHeader, size: int) -> None:
    if header.size is not None and header.size != size:
        raise VerificationError(
            "sealed file",
            got=f"{size} bytes of content",
            expected=f"{header.size}, as its header says",
            hint="the file was cut short or extended; copy it again",
            code="artifact.truncated" if size < header.size else "artifact.extended",
        )


def _naming_key(exc: VerificationError, header: SealedHeader) -> VerificationError:
    label = "no key" if header.key is None else f"key {header.key}"
    return VerificationError(
        exc.what,
        got=exc.got,
        expected=exc.expected,
        hint=f"{exc.hint}; the header names {label}",
        code=exc.code,
    )
