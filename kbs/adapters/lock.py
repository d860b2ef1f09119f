"""A lock between the processes of one machine, gone with the process that holds it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileLock:
    """Whoever holds the lock on a file; the file itself says nothing."""

    def __init__(self, path: Path) -> None:
        """Make the file when it is first needed."""
        self._path = path

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock while the block runs, or give False: somebody else does."""
        with self._path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
