"""Private files and the high-water mark: whole, durable, ours."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbs.adapters.files import (
    HIGHWATER_NAME,
    FileHighwater,
    create_folder,
    read_owned,
    write_private,
)
from kbs.broker.ports import Highwater
from kbs.core.errors import ConfigurationError, UnavailableError

# The uid of nobody on Debian; any that is not ours will do.
_NOBODY = 65534


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_private_file_is_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_must_be_new_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"first", replace=False)
    with pytest.raises(ConfigurationError, match="got a file that exists"):
        write_private(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_no_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        write_private(tmp_path / "no" / "key", b"")


def test_the_new_name_appears_between_two_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the bytes reach the disk, then the name does."""
    path = tmp_path / "key"
    path.write_bytes(b"old")
    seen = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        fsync(handle)
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen.append(("folder" if is_folder else "file", path.read_bytes()))

    monkeypatch.setattr(os, "fsync", watch)
    write_private(path, b"new")
    assert seen == [("file", b"old"), ("folder", b"new")]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "key"
    write_private(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        write_private(path, b"new")
    with pytest.raises(UnavailableError, match="No space left"):
        FileHighwater(tmp_path).write(b"mark")
    assert path.read_bytes() == b"old"
    assert {found.name for found in tmp_path.iterdir()} == {"key", "highwater.lock"}


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    create_folder(path)
    create_folder(path)
    assert _mode(path) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError):
        create_folder(tmp_path / "file")
    with pytest.raises(ConfigurationError):
        create_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("mode", "private", "complaint"),
    [
        (0o600, True, None),
        (0o400, True, "got 0400, expected 0600"),
        (0o644, True, "got 0644, expected 0600"),
        (0o640, True, "got 0640, expected 0600"),
        (0o700, True, "got 0700, expected 0600"),
        (0o4600, True, "got 4600, expected 0600"),
        (0o644, False, None),
        (0o400, False, None),
        (0o664, False, "got 0664, expected 0600"),
        (0o602, False, "got 0602, expected 0600"),
    ],
)
def test_a_file_is_read_only_with_the_right_mode(
    tmp_path: Path, *, mode: int, private: bool, complaint: str | None
) -> None:
    path = tmp_path / "kek"
    path.write_bytes(b"content")
    path.chmod(mode)
    if complaint is None:
        assert read_owned(path, "kek", limit=4, private=private) == b"cont"
        return
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read_owned(path, "kek", limit=4, private=private)
    assert f"chmod 600 {path}" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    write_private(path, b"content")
    os.chown(path, _NOBODY, -1)
    with pytest.raises(ConfigurationError, match=f"got uid {_NOBODY}, expected uid 0"):
        read_owned(path, "kek", limit=4, private=True)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path):
        with pytest.raises(ConfigurationError, match="got no file"):
            read_owned(path, "kek", limit=4, private=True)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_owned(tmp_path / "no", "kek", limit=4, private=True)


def test_the_mark_is_replaced(tmp_path: Path) -> None:
    mark: Highwater = FileHighwater(tmp_path)
    assert mark.read() is None
    mark.write(b"one")
    mark.write(b"two")
    assert FileHighwater(tmp_path).read() == b"two"
    assert _mode(tmp_path / HIGHWATER_NAME) == 0o600


def test_a_mark_that_cannot_be_read_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / HIGHWATER_NAME).mkdir()
    with pytest.raises(UnavailableError, match="Is a directory"):
        FileHighwater(tmp_path).read()
    with pytest.raises(UnavailableError):
        FileHighwater(tmp_path).write(b"mark")


def test_a_mark_too_large_to_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / HIGHWATER_NAME).write_bytes(bytes(16 * 1024 + 1))
    with pytest.raises(UnavailableError, match="more than 16384 bytes"):
        FileHighwater(tmp_path).read()


def test_a_mark_in_no_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        FileHighwater(tmp_path / "no").write(b"mark")


def test_a_lock_that_the_file_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(UnavailableError, match="No locks available"):
        FileHighwater(tmp_path).write(b"mark")


def test_a_holder_may_read_compare_and_write(tmp_path: Path) -> None:
    mark = FileHighwater(tmp_path)

    def raise_by_one() -> None:
        for _ in range(25):
            with mark.locked():
                number = int(mark.read() or b"0")
                mark.write(b"%d" % (number + 1))

    threads = [threading.Thread(target=raise_by_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mark.read() == b"100"


def test_another_process_waits_for_the_lock(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from kbs.adapters.files import FileHighwater\n"
        "print('ready', flush=True)\n"
        "FileHighwater(pathlib.Path(sys.argv[1])).write(b'theirs')\n"
    )
    mark = FileHighwater(tmp_path)
    with mark.locked():
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        mark.write(b"ours")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        assert mark.read() == b"ours"
    with process:
        assert process.wait(timeout=10) == 0
    assert mark.read() == b"theirs"
