"""A processor for each worker process.

Python runs one thread of a process at a time. Where its threads wander among
processors, each finds cold caches and wakes the next one across them.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from kbs.core.errors import ConfigurationError

log = logging.getLogger("kbs.processors")


class Processors:
    """Shares the processors of this process out among its forks, one each.

    Whoever ends, however it does, leaves its processor to the next one: what tells is
    a lock on a byte, which ends with its process (fcntl(2), advisory record locking).
    """

    def __init__(self, processes: int) -> None:
        """Share out among so many, which are forked later.

        Raises:
            ConfigurationError: the operating system lets nobody choose.
        """
        self._processes = processes
        try:
            allowed = os.sched_getaffinity(0)
            os.sched_setaffinity(0, allowed)
            self._locks = os.memfd_create("kbs-processors")
        except (AttributeError, OSError) as exc:
            raise ConfigurationError(
                "--pin-workers",
                got=str(exc),
                expected="a system where processes choose their processors (Linux)",
                hint="leave it out, or give the broker processors from outside",
            ) from exc
        self._allowed = sorted(allowed)
        if processes > len(allowed):
            log.warning(
                "--pin-workers: %d workers keep to %d processors, "
                "so that some share one",
                processes,
                len(allowed),
            )

    def keep_to_one(self) -> int | None:
        """Keep all threads of this process, and those to come, to its processor.

        Returns its number; None, and nothing is changed, when there are more processes
        than were said. More processes than processors share them.
        """
        number = self._claimed()
        if number is None:
            return None
        processor = self._allowed[number % len(self._allowed)]
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(int(thread.name), {processor})
        return processor

    def _claimed(self) -> int | None:
        for number in range(self._processes):
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                return number
        return None
