"""Where fetched keys go: files in memory, mode 0600, or one open descriptor.

Never a log and never a terminal. Files are written beside their place and appear
together, so that a workload sees the whole set or none of it; an interruption waits
for one of the two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kbs.channel.answer import ReleasedKey
from kbs.core.errors import ConfigurationError, MalformedError, UnavailableError
from kbs.core.ids import KeyId

FOLDER_MODE = 0o700
FILE_MODE = 0o600

MOUNTS = Path("/proc/self/mountinfo")
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})

# proc(5), mountinfo: white space and backslashes are octal escapes.
_ESCAPE = re.compile(r"\\([0-7]{3})")
_STDERR = 2

# Nothing is wrong with the place: the same command can work later.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_ROOM = "room for it"
_PLACE = "a folder that can be made, and files written in it"

# From a terminal, from a service manager, from a terminal that closed.
_INTERRUPTIONS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def write_keys(folder: Path, keys: Sequence[ReleasedKey]) -> tuple[Path, ...]:
    """Write each key to `folder/repository/type/tag`; all of them or none.

    Raises:
        UnavailableError: there is no room, or a folder cannot be written.
        ConfigurationError: something in the way is a link or belongs to somebody else.
    """
    try:
        with _uninterrupted():
            return _write_all(folder, keys)
    except OSError as exc:
        raise UnavailableError(
            f"output {exc.filename or folder}",
            got=exc.strerror,
            expected=_ROOM if exc.errno in _PASSING else _PLACE,
        ) from exc


def require_places(folder: Path, key_ids: Sequence[KeyId]) -> None:
    """Require that keys can be written below a folder; asked before any is fetched.

    Nothing of it stays, so that a refusal leaves no empty folders behind.

    Raises:
        MalformedError: a folder cannot be made or written, or is where a key goes, or
            two keys go to one place.
        UnavailableError: there is no room now.
        ConfigurationError: something in the way is a link or belongs to somebody else.
    """
    _require_apart(key_ids)
    try:
        with _uninterrupted():
            for key_id in key_ids:
                _require_place(folder, key_id)
    except OSError as exc:
        what = f"output {folder}"
        if exc.errno in _PASSING:
            raise UnavailableError(what, got=exc.strerror, expected=_ROOM) from exc
        raise MalformedError(
            what, got=exc.strerror, expected=_PLACE, code="usage"
        ) from exc


def write_descriptor(descriptor: int, key: ReleasedKey) -> None:
    """Write one key's bytes to an open descriptor, and nothing else.

    Raises:
        MalformedError: it is not open for writing, or somebody looks at it.
        UnavailableError: the reader went away.
    """
    require_descriptor(descriptor)
    rest = memoryview(key.value)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as exc:
        raise UnavailableError(
            f"descriptor {descriptor}", got=exc.strerror, expected="a reader"
        ) from exc


def require_descriptor(descriptor: int) -> None:
    """Require a descriptor that a secret may go to; asked before anything is fetched.

    Raises:
        MalformedError: it is closed, for reading only, standard error, or a terminal.
    """
    expected = "an open descriptor that is neither standard error nor a terminal"
    try:
        mode = os.fstat(descriptor).st_mode
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError) as exc:
        raise MalformedError(
            f"descriptor {descriptor}", got="not open", expected=expected
        ) from exc
    if descriptor in {0, _STDERR} or os.isatty(descriptor) or stat.S_ISDIR(mode):
        raise MalformedError(
            f"descriptor {descriptor}",
            got="one that people or logs read",
            expected=expected,
        )
    if access == os.O_RDONLY:
        raise MalformedError(
            f"descriptor {descriptor}", got="open for reading only", expected=expected
        )


def is_in_memory(folder: Path, mounts: Path = MOUNTS) -> bool:
    """Whether a folder lies on a file system that never reaches a disk of its own."""
    real = folder.resolve()
    best, kind = -1, ""
    for point, file_system in _mounts(mounts):
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), file_system
    return kind in MEMORY_FILE_SYSTEMS


def _mounts(path: Path) -> list[tuple[Path, str]]:
    # proc(5): the fifth field is the mount point; after " - " comes the type.
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4:  # noqa: PLR2004 - the fifth field
            point = _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
            found.append((Path(point), after.partition(" ")[0]))
    return found


@contextmanager
def _uninterrupted() -> Iterator[None]:
    # A few small files: nobody waits long. Without it, a service manager's SIGTERM
    # between two of them would leave a key under a name that nobody knows.
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread handles signals, and only it may say how.
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in _INTERRUPTIONS}
    for number in before:
        signal.signal(number, lambda got, _frame: caught.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for got in caught:
            signal.raise_signal(got)


def _write_all(folder: Path, keys: Sequence[ReleasedKey]) -> tuple[Path, ...]:
    staged: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for key in keys:
            target = _target(folder, key.ref.key_id)
            partial = target.with_name(f".kbs-{secrets.token_hex(8)}.partial")
            staged.append((partial, target))
            _write_file(partial, key.value)
        for partial, target in staged:
            partial.replace(target)
            placed.append(target)
    except BaseException:
        _withdraw([partial for partial, _ in staged] + placed)
        raise
    return tuple(placed)


def _target(folder: Path, key_id: KeyId) -> Path:
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for name in (key_id.repository, key_id.type):
        folder = folder / name
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        _require_own_folder(folder)
    return folder / key_id.tag


def _require_own_folder(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"output {folder}",
            got="a link, or a folder of another user",
            expected="a folder of our own",
            hint="name an empty folder by --out",
        )


def _require_apart(key_ids: Sequence[KeyId]) -> None:
    # A file is named without its version: the second of two would take the place of
    # the first without a word.
    for key_id in key_ids:
        if key_ids.count(key_id) > 1:
            raise MalformedError(
                "keys for one folder",
                got=f"two versions of {key_id}",
                expected="one of each key, whose file is named without its version",
                hint="fetch each version into a folder of its own",
                code="usage",
            )


def _require_place(folder: Path, key_id: KeyId) -> None:
    repository = folder / key_id.repository
    target = repository / key_id.type / key_id.tag
    for inner in (repository, target.parent):
        if _status(inner) is not None:
            _require_own_folder(inner)
    status = _status(target)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise MalformedError(
            f"output {target}",
            got="a folder",
            expected="a file that the key replaces, or nothing yet",
            code="usage",
        )
    _probe(next(path for path in target.parents if _status(path) is not None))


def _probe(folder: Path) -> None:
    # What the permissions say is not the whole truth (/proc, a read-only mount). The
    # name is ours alone: making and removing the folders themselves would race with
    # another fetch into the same place.
    made = folder / f".kbs-{secrets.token_hex(8)}.partial"
    made.mkdir(mode=FOLDER_MODE)
    file = made / "key"
    try:
        _write_file(file, b"\x00")
    finally:
        _withdraw([file])
        made.rmdir()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _write_file(path: Path, value: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())


def _withdraw(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
