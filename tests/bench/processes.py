"""What Linux says of a server: the main process and its workers together (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the start, and resident memory now, of a tree of processes.

    Resident pages that a worker shares with the main process are counted in both;
    `pss_mib` counts each once, and is 0 where only the superuser may read it.
    """

    processes: int
    cpu_seconds: float
    rss_mib: float
    largest_mib: float
    pss_mib: float


def usage(root: int) -> Usage:
    """Read a process and its children."""
    tree = _tree(root)
    stats = [_stat(pid) for pid in tree]
    sizes = [stat[21] * os.sysconf("SC_PAGE_SIZE") / _MIB for stat in stats]
    return Usage(
        processes=len(stats),
        cpu_seconds=sum(stat[11] + stat[12] for stat in stats) * _TICK,
        rss_mib=sum(sizes),
        largest_mib=max(sizes),
        pss_mib=sum(_pss_kib(pid) for pid in tree) / 1024,
    )


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return _kib(Path("/proc/self/status"), "VmHWM:") / 1024


def _pss_kib(pid: int) -> int:
    try:
        return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
    except PermissionError:
        return 0


def _kib(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == name)


def _tree(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # It may have ended since it was listed.
            with suppress(OSError):
                parents[int(entry.name)] = _stat(int(entry.name))[1]
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _stat(pid: int) -> list[int]:
    # Fields from the third on: the second is a name that may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]
