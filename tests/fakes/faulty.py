"""Real faults below a running broker: a disk that fills, calls that the kernel fails.

What needs rights that a machine does not give skips its test, and says which.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_MIB = 1024 * 1024
_ATTACH_SECONDS = 20.0
_WRITES = "write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync"
_SYNCS = "fsync,fdatasync"


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs of its own: as large as a test says, at any time."""

    folder: Path
    mib: int

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let not one page more be had."""
        deadline = time.monotonic() + _ATTACH_SECONDS
        while _mount("-o", f"remount,size={self._used()}", str(self.folder)).returncode:
            # Somebody wrote since it was measured.
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield
        finally:
            self._remount(f"size={self.mib * _MIB}")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Take no writes: for a disk on which nobody has a file open for writing."""
        deadline = time.monotonic() + _ATTACH_SECONDS
        while _mount("-o", "remount,ro", str(self.folder)).returncode:
            # A file that is replaced is open for a moment.
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield
        finally:
            self._remount("rw")

    def _used(self) -> int:
        room = os.statvfs(self.folder)
        return (room.f_blocks - room.f_bfree) * room.f_frsize

    def _remount(self, option: str) -> None:
        done = _mount("-o", f"remount,{option}", str(self.folder))
        assert done.returncode == 0, done.stderr


@contextmanager
def small_disk(folder: Path, *, mib: int = 128) -> Iterator[SmallDisk]:
    """Mount one at a folder that is made for it, or skip the test.

    It is larger than the broker's reserve, and takes only the memory that is used.
    """
    folder.mkdir(mode=0o700)
    options = f"size={mib}m,mode=0700"
    try:
        done = _mount("-t", "tmpfs", "-o", options, "kbs-test", str(folder))
    except FileNotFoundError:
        pytest.skip("mount is not here: no disk can be filled")
    if done.returncode != 0:
        pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder, mib)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["mount", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def read_only_file(processes: Sequence[int], paths: Sequence[Path]) -> Iterator[None]:
    """Fail every write as a file system does that went read-only under open files."""
    with _failing(processes, paths, _WRITES, "EROFS"):
        yield


@contextmanager
def unsynced_file(processes: Sequence[int], paths: Sequence[Path]) -> Iterator[None]:
    """Take every write, and fail when it has to reach the disk."""
    with _failing(processes, paths, _SYNCS, "EIO"):
        yield


@contextmanager
def _failing(
    processes: Sequence[int], paths: Sequence[Path], calls: str, error: str
) -> Iterator[None]:
    """Let the kernel answer these calls on these files with an error (strace(1))."""
    command = ["strace", "-f", "-o", os.devnull]
    for process in processes:
        command += ["-p", str(process)]
    for path in paths:
        command += ["-P", str(path)]
    command += ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    try:
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        pytest.skip("strace is not here: no call can be made to fail")
    try:
        _await_tracer(tracer, processes)
        yield
    finally:
        # It lets go of what it watches, which runs on.
        tracer.send_signal(signal.SIGTERM)
        tracer.communicate(timeout=_ATTACH_SECONDS)


def _await_tracer(tracer: subprocess.Popen[str], processes: Sequence[int]) -> None:
    deadline = time.monotonic() + _ATTACH_SECONDS
    while not all(_traced(process) == tracer.pid for process in processes):
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"strace may not watch: {tracer.stderr.read().strip()[:200]}")
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _traced(process: int) -> int:
    """Return who traces every thread of a process; 0 for nobody, or not all."""
    tracers = set()
    for status in Path(f"/proc/{process}/task").glob("*/status"):
        found = re.search(r"^TracerPid:\t(\d+)$", status.read_text(), re.MULTILINE)
        tracers.add(int(found.group(1)) if found else 0)
    return tracers.pop() if len(tracers) == 1 else 0


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> list[int]:
    """Return this process's open descriptors."""
    return sorted(int(one.name) for one in Path("/proc/self/fd").iterdir())
