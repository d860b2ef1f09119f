"""Private files, written whole and durably, and the high-water mark in one of them.

A file is replaced by: temporary file beside it, fsync, rename, fsync of the folder. So
a reader, or a machine that lost its power, finds the old bytes or the new ones.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

from kbs.broker.ports import TRUST_AWAY
from kbs.core.errors import ConfigurationError, UnavailableError

HIGHWATER_NAME = "highwater"

PRIVATE_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS_WRITE = 0o022
_MAX_MARK_BYTES = 16 * 1024


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file of mode 0600, whole and durably; without `replace` only a new one.

    Raises:
        ConfigurationError: it exists already, or cannot be written.
    """
    try:
        _write_durably(path, content, replace=replace)
    except FileExistsError as exc:
        raise ConfigurationError(
            str(path), got="a file that exists", expected="none"
        ) from exc
    except OSError as exc:
        raise _unusable(path, exc) from exc


def create_folder(path: Path) -> None:
    """Make a folder of mode 0700 unless it is there; those above as the umask says.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    except OSError as exc:
        raise _unusable(path, exc) from exc


def read_owned(path: Path, what: str, *, limit: int, private: bool) -> bytes:
    """Read a regular file that is ours and that nobody else can write.

    With `private` its mode must be exactly 0600. At most `limit` bytes are read.

    Raises:
        ConfigurationError: it is not so, or cannot be read.
    """
    try:
        # Not to wait where somebody put a pipe.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(path, flags)
    except OSError as exc:
        raise _unusable(path, exc) from exc
    try:
        _require_owned(path, os.fstat(handle), what, private=private)
        return os.read(handle, limit)
    finally:
        os.close(handle)


@final
class FileHighwater:
    """The high-water mark in a file; processes that share it take turns.

    The mark is opaque here: whoever must not lower it holds `locked()` around reading,
    comparing and writing.
    """

    def __init__(self, folder: Path) -> None:
        """Use the file of a trust folder."""
        self._path = folder / HIGHWATER_NAME
        self._turn = threading.RLock()
        self._depth = 0

    def read(self) -> bytes | None:
        """Return the mark, or None before the first one.

        Raises:
            UnavailableError: it cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_MARK_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _away(self._path, exc) from exc
        if len(content) > _MAX_MARK_BYTES:
            raise UnavailableError(
                f"high-water mark {self._path}",
                got=f"more than {_MAX_MARK_BYTES} bytes",
                expected="a signed mark",
            )
        return content

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is replaced, or None without a file.

        Raises:
            UnavailableError: it cannot be looked at.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _away(self._path, exc) from exc
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def write(self, mark: bytes) -> None:
        """Replace the mark atomically and durably.

        Raises:
            UnavailableError: it cannot be written.
        """
        with self.locked():
            try:
                _write_durably(self._path, mark, replace=True)
            except OSError as exc:
                raise _away(self._path, exc) from exc

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes from writing meanwhile.

        Raises:
            UnavailableError: the lock cannot be had.
        """
        with self._turn:
            # The mark itself is replaced by rename, so the lock has a file of its own.
            handle = -1 if self._depth else self._lock()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if handle >= 0:
                    os.close(handle)

    def _lock(self) -> int:
        path = self._path.with_name(HIGHWATER_NAME + ".lock")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
        except OSError as exc:
            raise _away(path, exc) from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as exc:
            os.close(handle)
            raise _away(path, exc) from exc
        return handle


def _require_owned(
    path: Path, status: os.stat_result, what: str, *, private: bool
) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{what} {path}", got="no file", expected="a file")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{what} {path}: owner",
            got=f"uid {status.st_uid}",
            expected=f"uid {os.geteuid()}",
            hint=f"chown {os.geteuid()} {path}",
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode != PRIVATE_MODE if private else mode & _OTHERS_WRITE:
        raise ConfigurationError(
            f"{what} {path}: mode",
            got=f"{mode:04o}",
            expected=f"{PRIVATE_MODE:04o}",
            hint=f"chmod 600 {path}",
        )


def _write_durably(path: Path, content: bytes, *, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, PRIVATE_MODE), "wb") as file:
        try:
            # The umask may have taken bits away.
            os.fchmod(file.fileno(), PRIVATE_MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if replace:
                temporary.rename(path)
            else:
                # A rename would replace; a second name never does.
                path.hardlink_to(temporary)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unusable(path: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(str(path), got=_reason(exc), expected="a usable file")


def _away(path: Path, exc: OSError) -> UnavailableError:
    # Guests are told as well, whom the folder's name does not concern.
    return UnavailableError(
        f"trust folder: {path.name}",
        got=_reason(exc),
        expected="a trust folder that can be read and written",
        hint="look at its disk, owner and mode; nothing is released before that",
        code=TRUST_AWAY,
    )


def _reason(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__
