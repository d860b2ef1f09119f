"""What the process tells the operating system about itself."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Linux, include/uapi/linux/prctl.h
_PR_SET_DUMPABLE = 4

# glibc, malloc/malloc.h; mallopt(3): what is freed is overwritten by this byte.
_M_PERTURB = -6
_WIPED = 0xA5

# Granian's allocator, jemalloc, reads its options here when it is loaded.
_JEMALLOC_OPTIONS = "_RJEM_MALLOC_CONF"


def harden() -> None:
    """Refuse core dumps and ptrace by others: secrets lie in this memory.

    Best effort: an operating system without prctl keeps its defaults, and the threat
    model says so.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def wipe_freed_memory() -> None:
    """Have the allocators overwrite what is freed: bodies and keys are among it.

    To be called before Granian is imported. Best effort: glibc spares blocks up to a
    KiB that it gives out again soon, Python those up to 512 bytes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_PERTURB, _WIPED)
    given = os.environ.get(_JEMALLOC_OPTIONS)
    options = [given] if given else []
    os.environ[_JEMALLOC_OPTIONS] = ",".join([*options, "junk:free"])


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
