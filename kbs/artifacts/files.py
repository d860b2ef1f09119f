"""Sealing, opening and inspecting whole files, with output that is all or nothing.

A file appears under its final name only once it is complete and, when it was opened,
authenticated to its end. Until then it is `.kbs-<random>.partial` beside it, removed
on any error; a killed process may leave that one, mode 0600, behind.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kbs.artifacts.envelope import SealedHeader, read_header
from kbs.artifacts.formats import inspect, seal, unseal
from kbs.artifacts.reader import SealedReader
from kbs.artifacts.stream import Progress
from kbs.core.errors import ConflictError, KbsError, MalformedError, UnavailableError
from kbs.core.ids import KeyRef

# What was opened is for its owner alone; what was sealed is as public as the umask
# allows.
OPENED_MODE = 0o600
SEALED_MODE = 0o666

# Nothing is wrong with the request: the same command can work later.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def seal_file(
    source: Path,
    target: Path,
    key: bytes,
    *,
    key_ref: KeyRef | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> SealedHeader:
    """Seal one file into another; return its header.

    Raises:
        KbsError: as `seal`, or a file that cannot be read or written.
    """
    return seal_file_under(
        source, target, lambda: (key, key_ref), name=name, progress=progress
    )


def seal_file_under(
    source: Path,
    target: Path,
    make_key: Callable[[], tuple[bytes, KeyRef | None]],
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> SealedHeader:
    """Seal one file into another under a key that is made once both files are open.

    Making a key can leave a trace (a new version at the broker), which a file that
    cannot be written must not.

    Raises:
        KbsError: as `seal` and `make_key`, or a file that cannot be read or written.
    """
    with reading(source) as file, replacing(target, mode=SEALED_MODE) as out:
        size = os.fstat(file.fileno()).st_size
        _refuse_same(file, target)
        key, key_ref = make_key()
        header = SealedHeader(key=key_ref, name=name, size=size)
        seal(key, file, out, header=header, progress=progress)
    return header


def open_file(
    source: Path, target: Path, secret: bytes, *, progress: Progress | None = None
) -> int:
    """Open one file into another, mode 0600; return the size of the plaintext.

    Raises:
        KbsError: as `unseal`, or a file that cannot be read or written; the target is
            then as it was.
    """
    with reading(source) as file, replacing(target, mode=OPENED_MODE) as out:
        _refuse_same(file, target)
        return unseal(secret, file, out, progress=progress)


def open_reader(path: Path, key: bytes) -> SealedReader:
    """Open a sealed file for random access to its plaintext.

    Raises:
        KbsError: it cannot be read, is not a sealed file, was cut, or another key.
    """
    with reading(path) as file:
        header = read_header(file)
        # The reader gets a descriptor of its own, so that every error closes both.
        own = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
        try:
            return SealedReader(
                key,
                own,
                associated_data=header.associated_data,
                start=len(header.to_bytes()),
            )
        except BaseException:
            own.close()
            raise


def inspect_file(path: Path) -> dict[str, object]:
    """Return what a file says of itself, as `inspect`.

    Raises:
        MalformedError: it cannot be read, or as `inspect`.
    """
    with reading(path) as file:
        return inspect(file)


@contextmanager
def reading(path: Path) -> Iterator[io.FileIO]:
    """Open a regular file.

    Raises:
        MalformedError: there is none, or it may not be read.
    """
    try:
        # Without O_NONBLOCK, a named pipe would wait here for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise _unreadable(path, exc.strerror) from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unreadable(path, "something that is not a regular file")
    with io.FileIO(descriptor, "rb") as file:
        yield file


@contextmanager
def replacing(target: Path, *, mode: int) -> Iterator[io.BufferedWriter]:
    """Give a file that takes the target's place when the block ends without an error.

    Raises:
        MalformedError: the target is no regular file, or its folder not writable.
    """
    _require_replaceable(target)
    partial = target.with_name(f".kbs-{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(partial, flags, mode)
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            try:
                yield file
            except BaseException:
                # Closing must not try to flush to a full disk once more.
                with suppress(OSError):
                    file.close()
                raise
            _finish(file, partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _finish(file: io.BufferedWriter, partial: Path, target: Path) -> None:
    try:
        # The bytes before the name: after a crash there is the old file or the new.
        file.flush()
        os.fsync(file.fileno())
        partial.replace(target)
    except OSError as exc:
        with suppress(OSError):
            file.close()
        raise _unwritable(target, exc) from exc


def _require_replaceable(target: Path) -> None:
    # A link or a device would itself be replaced, which nobody means.
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    if not stat.S_ISREG(mode):
        raise _unwritable(target, "something that is not a regular file")


def _refuse_same(file: io.FileIO, target: Path) -> None:
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), target.lstat()):
            raise ConflictError(
                f"output {target}",
                got="the input itself",
                expected="another file",
                code="artifact.same_file",
            )


def _unreadable(path: Path, got: str | None) -> MalformedError:
    return MalformedError(
        f"input {path}", got=got, expected="a readable file", code="artifact.unreadable"
    )


def _unwritable(path: Path, got: OSError | str) -> KbsError:
    if isinstance(got, OSError) and got.errno in _PASSING:
        return UnavailableError(
            f"output {path}", got=got.strerror, expected="room", code="artifact.io"
        )
    return MalformedError(
        f"output {path}",
        got=got.strerror if isinstance(got, OSError) else got,
        expected="a new or regular file in a writable folder",
        code="artifact.unwritable",
    )
