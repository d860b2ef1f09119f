"""What the process tells the operating system about itself."""

from __future__ import annotations

import ctypes
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Linux, include/uapi/linux/prctl.h
_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Refuse core dumps and ptrace by others: secrets lie in this memory.

    Best effort: an operating system without prctl keeps its defaults, and the threat
    model says so.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_descriptor_limit() -> int:
    """Take all the descriptors that this process may have, and return how many.

    Clients hold one each. The soft limit is for programs that use select(2); where it
    cannot be raised, it stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def free_bytes_of(folder: Path) -> Callable[[], int]:
    """Return a function that says how much room the folder's disk has."""
    return lambda: shutil.disk_usage(folder).free
