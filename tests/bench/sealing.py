"""Sealing and opening a model, beside bare AES-256-GCM and beside the disk.

Each size is measured in a process of its own, whose peak memory says whether it grows
with the file: `python -m tests.bench.sealing FOLDER MEBIBYTES ROUNDS`.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kbs.artifacts.envelope import SealedHeader
from kbs.artifacts.files import open_file, reading, seal_file
from kbs.artifacts.formats import seal, unseal
from tests.bench.processes import peak_mib
from tests.bench.tables import Cell, Section

MIB = 1024 * 1024
SEGMENT = MIB
KEY = bytes(range(32))
DISK = "disk: write and sync"
BARE = "AES-256-GCM alone, in memory"

# What writes is timed by the clock, what does not by the time of its core.
_Run = tuple[str, Callable[[], object], Callable[[], float]]


class Nowhere:
    """A sink that keeps nothing."""

    def write(self, data: memoryview, /) -> int:
        return len(data)


def section(folder: Path, sizes: tuple[int, ...], rounds: int) -> Section:
    """Measure each size in a process of its own."""
    rows: list[tuple[Cell, ...]] = []
    for mebibytes in sizes:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.bench.sealing"),
                *(str(folder), str(mebibytes), str(rounds)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
        found = json.loads(done.stdout)
        rates = found["rates"]
        rows += [
            (
                *(name, mebibytes, rate, rate / rates[BARE], rate / rates[DISK]),
                found["peak"],
            )
            for name, rate in rates.items()
        ]
    return Section(
        "sealing",
        "Sealing and opening a model (nothing written: one core's time)",
        ("work", "MiB", "MB/s", "of AES-256-GCM", "of the disk", "peak MiB"),
        rows,
    )


def measure(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """MB/s of each work; the file is made first and sealed once."""
    plain, sealed, opened = (folder / name for name in ("plain", "sealed", "opened"))
    block = secrets.token_bytes(SEGMENT)
    write(plain, block, size)
    seal_file(plain, sealed, KEY)
    runs: list[_Run] = [
        (BARE, lambda: encrypt(block, size), time.process_time),
        ("seal, nothing written", lambda: _seal(plain, size), time.process_time),
        ("open, nothing written", lambda: _open(sealed), time.process_time),
        (DISK, lambda: write(opened, block, size), time.perf_counter),
        ("seal a file", lambda: seal_file(plain, sealed, KEY), time.perf_counter),
        ("open a file", lambda: open_file(sealed, opened, KEY), time.perf_counter),
    ]
    taken: dict[str, list[float]] = {name: [] for name, _, _ in runs}
    for _ in range(rounds):
        for name, run, clock in runs:
            started = clock()
            run()
            taken[name].append(clock() - started)
    for path in (plain, sealed, opened):
        path.unlink()
    return {
        name: size / statistics.median(times) / 1e6 for name, times in taken.items()
    }


def encrypt(block: bytes, size: int) -> None:
    """What the cipher costs with nothing around it, in segments of the same size."""
    cipher, out = AESGCM(KEY), bytearray(len(block) + 16)
    for number in range(size // len(block)):
        cipher.encrypt_into(number.to_bytes(12, "big"), block, None, out)


def write(path: Path, block: bytes, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _seal(plain: Path, size: int) -> None:
    with reading(plain) as file:
        seal(KEY, file, Nowhere(), header=SealedHeader(key=None, name=None, size=size))


def _open(sealed: Path) -> None:
    with reading(sealed) as file:
        unseal(KEY, file, Nowhere())


def main(folder: str, mebibytes: str, rounds: str) -> None:
    rates = measure(Path(folder), int(mebibytes) * MIB, int(rounds))
    print(json.dumps({"rates": rates, "peak": peak_mib()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
